//! The step `tests` of `cargo xtask test`: every test binary of the workspace, as many at once as there are
//! processors.
//!
//! `cargo test` runs one binary after another. The tests of real networks each have a binary of their own and
//! mostly wait, so one at a time leaves the processors idle for half of the run. Each binary here runs one test
//! at a time, and its output is printed when it ends. All run, so that one run names every failure.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Number of the slowest binaries that are listed at the end.
const LISTED: usize = 12;

/// A test binary and the directory of its package, in which its tests expect to run.
#[derive(Debug, PartialEq)]
pub(crate) struct Binary {
    program: PathBuf,
    package: PathBuf,
}

impl Binary {
    /// The package's directory and the binary's name without its hash.
    fn name(&self) -> String {
        let part = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let target = part(&self.program);
        let target = target.rsplit_once('-').map_or(target.as_str(), |(name, _)| name);
        format!("{}::{target}", part(&self.package))
    }

    fn starts_networks(&self) -> bool {
        ["crates/cli", "crates/node"].iter().any(|package| self.package.ends_with(package))
    }
}

/// Runs every test binary, then the tests of the documentation; returns false if any fails.
pub(crate) fn run(binaries: &[Binary]) -> bool {
    if binaries.is_empty() {
        eprintln!("cargo named no test binary: the form of its messages has changed");
        return false;
    }
    let workers = thread::available_parallelism().map_or(1, usize::from).min(binaries.len());
    eprintln!("running {} test binaries, {workers} at once", binaries.len());
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut times = Vec::new();
        while let Some(binary) = binaries.get(next.fetch_add(1, Ordering::AcqRel)) {
            let (passed, time) = run_one(binary);
            times.push((time, binary.name(), passed));
        }
        times
    };
    let times: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        running.into_iter().flat_map(|worker| worker.join().expect("a worker does not panic")).collect()
    });
    let failed: Vec<_> =
        times.iter().filter(|(.., passed)| !passed).map(|(_, name, _)| name.clone()).collect();
    list(times);
    if !failed.is_empty() {
        eprintln!("failed: {}", failed.join(", "));
    }
    failed.is_empty() && crate::cargo(&["test", "--locked", "--workspace", "--doc"])
}

/// Builds the test binaries and returns them, those that wait longest first; `None` if they do not build.
pub(crate) fn build() -> Option<Vec<Binary>> {
    let arguments = ["test", "--locked", "--workspace", "--no-run", "--message-format"];
    let output = Command::new(crate::cargo_path())
        .args(arguments)
        .arg("json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output();
    match output {
        Ok(output) if output.status.success() => Some(binaries(&String::from_utf8_lossy(&output.stdout))),
        Ok(_) => None,
        Err(error) => {
            eprintln!("cargo did not start: {error}");
            None
        }
    }
}

/// The test binaries that cargo's messages name, one message a line. Those with real networks come first: they take
/// minutes, and the last one to run should be short.
fn binaries(messages: &str) -> Vec<Binary> {
    let binary = |line: &str| {
        let package = PathBuf::from(text(line, "manifest_path")?);
        Some(Binary { program: text(line, "executable")?.into(), package: package.parent()?.into() })
    };
    let mut all: Vec<_> = messages.lines().filter(|line| is_test(line)).filter_map(binary).collect();
    all.sort_by_key(|binary| !binary.starts_networks());
    all
}

/// True for an artifact with the harness of tests. A target that could be tested is not one: the programs that
/// integration tests start have `"test":true` in `target`, and false in `profile`.
fn is_test(line: &str) -> bool {
    let profile = line.split_once(r#""profile":{"#).and_then(|(_, rest)| rest.split_once('}'));
    line.contains(r#""reason":"compiler-artifact""#)
        && profile.is_some_and(|(profile, _)| profile.contains(r#""test":true"#))
}

/// The text of a field, if it is a text. Paths of this project need no escapes.
fn text<'a>(line: &'a str, field: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(&format!("\"{field}\":\""))?;
    rest.split_once('"').map(|(text, _)| text)
}

/// Runs a binary with its output in a file, prints the output, and returns whether it passed and its time.
fn run_one(binary: &Binary) -> (bool, Duration) {
    let (since, name) = (Instant::now(), binary.name());
    eprintln!("-- {name} starts");
    let log = crate::tools::target_directory().join("tmp").join(format!("{}.log", name.replace("::", "-")));
    let passed = start(binary, &log).unwrap_or_else(|error| {
        eprintln!("{} did not run: {error}", binary.program.display());
        false
    });
    let output = fs::read(&log).unwrap_or_default();
    println!("\n-- {name}\n{}", String::from_utf8_lossy(&output).trim());
    (passed, since.elapsed())
}

fn start(binary: &Binary, log: &Path) -> std::io::Result<bool> {
    fs::create_dir_all(log.parent().unwrap_or(log))?;
    let out = File::create(log)?;
    let error = out.try_clone()?;
    let status = Command::new(&binary.program)
        .current_dir(&binary.package)
        .env("CARGO_MANIFEST_DIR", &binary.package)
        .env("RUST_TEST_THREADS", "1")
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(error)
        .status()?;
    Ok(status.success())
}

fn list(mut times: Vec<(Duration, String, bool)>) {
    times.sort_unstable_by(|one, other| other.cmp(one));
    eprintln!("\nthe slowest of {} test binaries:", times.len());
    for (time, name, _) in times.iter().take(LISTED) {
        eprintln!("  {:7.1} s  {name}", time.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_test_binaries_are_taken_from_cargos_messages() {
        let artifact = |target: &str, test: &str, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/p/crates/{target}/Cargo.toml","target":{{"kind":["bin"],"test":true}},"profile":{{"opt_level":"0","test":{test}}},"features":[],"executable":{executable}}}"#
            )
        };
        let messages = [
            artifact("client", "true", r#""/t/debug/deps/posync_client-0123abc""#),
            artifact("node", "true", r#""/t/debug/deps/terms-0123abc""#),
            artifact("node", "false", r#""/t/debug/examples/follow""#),
            artifact("node", "false", "null"),
            r#"{"reason":"build-finished","success":true}"#.into(),
        ];
        let found = binaries(&messages.join("\n"));
        let binary = |package: &str, program: &str| Binary {
            program: format!("/t/debug/deps/{program}-0123abc").into(),
            package: format!("/p/crates/{package}").into(),
        };
        assert_eq!(found, [binary("node", "terms"), binary("client", "posync_client")]);
        assert_eq!(found[0].name(), "node::terms");
    }
}
