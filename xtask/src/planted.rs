//! Bugs planted behind a compile-time switch, each with the test of the gate that must find it:
//! `cargo xtask planted`. docs/planted.md lists them with their kinds.
//!
//! While they are built, this binary is also the compiler's wrapper: it adds the switch to the unit
//! tests of the one crate that has the bug, so that no other artifact ever contains one.

use std::{
    env, fs,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, ExitCode, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, SystemTime},
};

/// Time for which a test with a bug may run. Without one each takes seconds. A test that takes longer would
/// hold up the gate, so it counts as failed.
const TEST_TIME_MAX: Duration = Duration::from_secs(120);

/// Environment variable that names the bug for the wrapper.
const BUG: &str = "POSYNC_PLANTED";
/// Environment variable that names the crate with the bug for the wrapper.
const CRATE: &str = "POSYNC_PLANTED_CRATE";

/// A bug: its name in `cfg(planted = "...")`, the file that has it, and the test that finds it.
struct Bug {
    name: &'static str,
    file: &'static str,
    test: &'static str,
}

const fn bug(name: &'static str, file: &'static str, test: &'static str) -> Bug {
    Bug { name, file, test }
}

/// All bugs, grouped by crate, so that a crate's dependencies are built once.
const BUGS: [Bug; 20] = [
    bug("forged-slice", "protocol/src/shard.rs", "every_part_verifies_and_no_other"),
    bug("unsigned", "client/src/light/mod.rs", "answers_that_differ_are_refused"),
    bug("any-window", "client/src/rpc/shared.rs", "peers_that_break_the_rules_are_cut_off"),
    bug(
        "greedy-key",
        "client/src/channel/places.rs",
        "one_key_holds_no_more_than_its_share_and_its_idle_ones_give_way",
    ),
    bug(
        "one-word",
        "provider/src/reconciler/give_up.rs",
        "an_absence_that_only_one_node_proves_ends_nothing",
    ),
    bug(
        "unsynced-shard",
        "provider/src/packs/store.rs",
        "acknowledged_shards_survive_a_power_cut_at_every_storage_operation",
    ),
    bug("unnamed-bytes", "provider/src/packs/mod.rs", "a_damaged_shard_is_named_and_a_new_put_mends_it"),
    bug(
        "unsynced-voucher",
        "provider/src/vouchers/actor.rs",
        "what_was_counted_as_paid_survives_a_power_cut_at_every_operation",
    ),
    bug("worse-voucher", "provider/src/vouchers/state.rs", "only_a_better_voucher_is_kept_in_any_order"),
    bug("own-rule", "provider/src/vouchers/state.rs", "the_ledgers_check_decides"),
    bug("anyone-asks", "provider/src/serve/handler.rs", "refusals_say_why"),
    bug("slow-is-lost", "consumer/src/peer_health.rs", "three_in_a_row_leave_it_out_and_an_answer_forgives"),
    bug(
        "one-stall-many",
        "consumer/src/peer_health.rs",
        "three_in_a_row_leave_it_out_and_an_answer_forgives",
    ),
    bug("for-ever", "consumer/src/peer_health.rs", "the_time_doubles_up_to_its_bound"),
    bug("one-operator", "gateway/src/placement.rs", "operators_differ_and_order_does_not_matter"),
    bug("nonce-again", "node/src/mempool/state/paid.rs", "what_the_paid_lane_refuses"),
    bug("in-place", "cli/src/target.rs", "a_failed_write_leaves_what_was_there_and_nothing_beside_it"),
    bug("changed-source", "cli/src/source.rs", "a_file_that_changes_on_the_way_never_gives_its_last_bytes"),
    bug("rounded-amount", "cli/src/commands/send.rs", "amounts_are_exact"),
    bug("no-words", "cli/src/commands/why.rs", "every_reason_has_words_of_its_own"),
];

/// Acts as the compiler's wrapper if cargo called this binary as one.
pub(crate) fn wrapper() -> Option<ExitCode> {
    let (bug, of) = (env::var(BUG).ok()?, env::var(CRATE).ok()?);
    let mut arguments = env::args_os().skip(1);
    let compiler = arguments.next()?;
    let arguments: Vec<_> = arguments.collect();
    let is_it = arguments.windows(2).any(|pair| pair[0] == "--crate-name" && pair[1] == of.as_str())
        && arguments.iter().any(|argument| argument == "--test");
    let mut command = Command::new(compiler);
    command.args(&arguments);
    if is_it {
        command.args(["--cfg", &format!("planted=\"{bug}\"")]);
    }
    let ended = command.status().ok()?;
    Some(ExitCode::from(u8::try_from(ended.code().unwrap_or(1)).unwrap_or(1)))
}

/// Builds with each bug in turn, or with the named ones, and runs the test that must then fail.
pub(crate) fn run(names: &[&str]) -> ExitCode {
    let chosen: Vec<&Bug> = BUGS.iter().filter(|bug| names.is_empty() || names.contains(&bug.name)).collect();
    if chosen.is_empty() || chosen.len() < names.len() {
        eprintln!("no such bug; there are: {}", BUGS.map(|bug| bug.name).join(" "));
        return ExitCode::from(2);
    }
    let found = chosen.iter().filter(|bug| is_found(bug)).count();
    println!("{} planted, {found} found", chosen.len());
    if found == chosen.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// True if the bug's test fails, as it must.
fn is_found(bug: &Bug) -> bool {
    let verdict = test(bug);
    let Bug { name, test, .. } = bug;
    match &verdict {
        Ok(Verdict::Passed) => println!("{name}: NOT FOUND by {test}"),
        Ok(Verdict::Failed) => println!("{name}: found by {test}"),
        Ok(Verdict::Outlived) => {
            println!("{name}: found by {test}, which did not end within {} s", TEST_TIME_MAX.as_secs());
        }
        Err(reason) => println!("{name}: {reason}"),
    }
    matches!(verdict, Ok(Verdict::Failed | Verdict::Outlived))
}

/// The result of a test.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    /// The test did not end within its time, and was ended with every process that it had started.
    Outlived,
}

/// Builds and runs the test with the bug; an error if it was not built or did not run.
fn test(bug: &Bug) -> Result<Verdict, String> {
    let path = crate::tools::root().join("crates").join(bug.file);
    // Cargo does not see the switch: the file is marked as modified while the bug is built.
    let file = fs::File::options().append(true).open(&path);
    let file = file.map_err(|error| format!("{}: {error}", path.display()))?;
    let before = file.metadata().and_then(|about| about.modified()).map_err(|error| error.to_string())?;
    file.set_modified(SystemTime::now()).map_err(|error| error.to_string())?;
    let this = env::current_exe().map_err(|error| error.to_string())?;
    let verdict = build_and_run(bug, &this);
    file.set_modified(before).map_err(|error| error.to_string())?;
    verdict
}

fn build_and_run(bug: &Bug, wrapper: &Path) -> Result<Verdict, String> {
    let directory = bug.file.split('/').next().unwrap_or_default();
    let (package, unit) =
        (format!("posync-{directory}"), if directory == "cli" { "--bins" } else { "--lib" });
    let krate = if directory == "cli" { "posync".into() } else { package.replace('-', "_") };
    let cargo = |last: &str| {
        let mut cargo = Command::new(crate::cargo_path());
        cargo.args(["test", "--quiet", "--locked", "--package", &package, unit, last]);
        cargo.env("RUSTC_WORKSPACE_WRAPPER", wrapper).env(BUG, bug.name).env(CRATE, &krate);
        cargo.stdin(Stdio::null());
        cargo
    };
    let did_not_start = |error| format!("cargo did not start: {error}");
    let built = cargo("--no-run").output().map_err(did_not_start)?;
    if !built.status.success() {
        return Err(format!("it does not build: {}", String::from_utf8_lossy(&built.stderr)));
    }
    let (output, in_time) = within(TEST_TIME_MAX, cargo(bug.test)).map_err(did_not_start)?;
    if !String::from_utf8_lossy(&output.stdout).contains("running 1 test") {
        return Err(format!("there is no test {}", bug.test));
    }
    Ok(match in_time {
        false => Verdict::Outlived,
        true if output.status.success() => Verdict::Passed,
        true => Verdict::Failed,
    })
}

/// Runs a command in a process group of its own. If it does not end in time, ends the whole group and
/// returns false beside its output so far.
fn within(time: Duration, mut command: Command) -> std::io::Result<(Output, bool)> {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn()?;
    let group = format!("-{}", child.id());
    let (sender, ended) = mpsc::channel();
    // Ends when the child has, and every process that inherited its output.
    thread::spawn(move || sender.send(child.wait_with_output()));
    let gone = || std::io::Error::other("the thread that waits for it is gone");
    match ended.recv_timeout(time) {
        Ok(output) => Ok((output?, true)),
        Err(_) => {
            Command::new("kill").args(["-s", "KILL", "--", &group]).status()?;
            Ok((ended.recv().map_err(|_| gone())??, false))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]);
        shell
    }

    #[test]
    fn a_test_that_ends_in_time_keeps_its_result_and_its_output() {
        let (output, in_time) = within(TEST_TIME_MAX, shell("echo running 1 test; exit 3")).expect("starts");
        assert!(in_time);
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(output.stdout, b"running 1 test\n");
    }

    /// The output ends only when its last writer does, so a process that is left would hold this test up.
    #[test]
    fn a_test_that_does_not_end_is_ended_with_every_process_it_started() {
        let script = "sleep 86400 & sleep 86400";
        let (output, in_time) = within(Duration::from_secs(1), shell(script)).expect("starts");
        assert!(!in_time && !output.status.success());
    }
}
