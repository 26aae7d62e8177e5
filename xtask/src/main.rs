//! The project's own commands: `cargo xtask test` is the one test command of the README.
//!
//! It runs every check on a machine that has only cargo, a C compiler and python3, in the order
//! in which they fail fastest, and stops after the first part that fails. It has one small dependency, for the relay
//! of `hosts --far`: it must build in seconds on a cold machine.

mod binaries;
mod campaign;
mod hosts;
mod idle;
mod net;
mod outside;
mod planted;
mod summary;
mod tidy;
mod tools;
mod trials;

use std::{
    env,
    process::{Command, ExitCode, Stdio},
};
use summary::Summary;

/// A check: its name, its cargo arguments, and the cargo component that it needs.
struct Check {
    name: &'static str,
    arguments: &'static [&'static str],
    component: Option<&'static str>,
}

/// Runs before [`CHECKS`] and, like the check of the text after it, in under a second.
const FORMAT: Check =
    Check { name: "format", arguments: &["fmt", "--all", "--check"], component: Some("fmt") };

/// The cargo checks of `cargo xtask test` after the text of the sources and before the tests, in order.
const CHECKS: &[Check] = &[
    // Checked alone, because the workspace's other members switch on features of shared dependencies
    // that would hide a use of std in the rules.
    Check {
        name: "rules alone (no_std)",
        arguments: &["check", "--locked", "--package", "posync-protocol"],
        component: None,
    },
    Check {
        name: "lint",
        arguments: &[
            "clippy",
            "--locked",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "--deny",
            "warnings",
        ],
        component: Some("clippy"),
    },
];

/// The rules and their wide integers with the release profile's settings: the history that the tests ran must
/// end in the same bytes. Other dependencies are reused as built; building all of them with `--release` takes
/// minutes more and gives the same digest.
const HISTORY: Check = Check {
    name: "history, as released",
    arguments: &[
        "test",
        "--locked",
        "--config",
        "profile.dev.package.posync-protocol.opt-level=3",
        "--config",
        "profile.dev.package.posync-protocol.debug-assertions=false",
        "--config",
        "profile.dev.package.posync-protocol.overflow-checks=true",
        "--config",
        "profile.dev.package.ruint.opt-level=3",
        "--config",
        "profile.dev.package.ruint.debug-assertions=false",
        // As the tests above choose features: alone, the rules would choose others, and build their
        // dependencies again.
        "--workspace",
        "--test",
        "scenarios",
        "no_byte_changed",
    ],
    component: None,
};

const USAGE: &str = "usage: cargo xtask test | tidy | campaign --seeds A..B [--jobs N] | fuzz [--seconds N] |
                        mutants [--sample N] [--seed S] | planted [NAME...] |
                        idle [--minutes N] [--program FILE] | trials [NAME...] [--program FILE] |
                        hosts [--small|--people|--far|--figures] [--program FILE] | outside

  test      every check: format, tidy, the rules alone, lint, all tests with real processes and beside them 40 seeds
            of the campaign, a history of the ledger with the settings of a release,
            20 s of each fuzz target where a nightly toolchain is installed, and `hosts --small` as root on Linux
  tidy      the text of the sources: lengths, headers, impure words in the rules, citations, tics of language
  campaign  whole networks with faults drawn from seeds, each run twice: is anything lost? Also
            --again N (twice only every N-th seed), --only KINDS, --without KINDS, --show; or --behind N: an authority
            that is N blocks behind, and signs while another one is down
  fuzz      runs each fuzz target of fuzz/ for N seconds (60); needs a nightly toolchain and c++
  mutants   N wrong versions (300) of the rules, chosen by seed S (1): which does no test notice?
  idle      a local network of a release build (or of FILE) for N minutes (30): descriptors, files, memory, disk and
            processor time of every process, and whether minute N is within 10 % of minute N/3
  trials    large files, many small ones, a slow reader, stopped providers, equal payments on a local network of a
            release build: does each stay within its limit?
  hosts     a network of machines of their own, each a network namespace with an address, a user and a directory:
            ceremony, joins, lost disks, new addresses, a partition, a moved gateway, with the commands of
            docs/operating.md and a release build; needs root. --small: ceremony, a file, an authority that comes back;
            --people: four new users follow the page for them and README to the letter, 4 minutes; --far: two halves with a round
            trip of 100 ms, lost packets and one-way cuts between them, 4 minutes; --figures: measures
  outside   a thousand random WebAssembly modules on both engines, and real programs from package registries, bare and
            as `posync run` runs them; needs python3 with pip, npm and tar
  planted   builds each bug of docs/planted.md in turn: is it found by the test that must find it?";

fn main() -> ExitCode {
    if let Some(code) = planted::wrapper() {
        return code;
    }
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["test"] => test(),
        ["tidy"] => tidy::run(),
        ["campaign", ref options @ ..] => campaign::run(options),
        ["planted", ref names @ ..] => planted::run(names),
        ["fuzz"] => tools::fuzz("60"),
        ["fuzz", "--seconds", seconds] => tools::fuzz(seconds),
        ["mutants", ref options @ ..] => tools::mutants(options),
        ["idle", ref options @ ..] => idle::run(options),
        ["trials", ref options @ ..] => trials::run(options),
        ["hosts", ref options @ ..] => hosts::run(options),
        ["outside"] => outside::run(),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("unknown command '{}'\n\n{USAGE}", arguments.join(" "));
            ExitCode::from(2)
        }
    }
}

/// Runs every check until one fails, then prints the result and the time of each.
fn test() -> ExitCode {
    let mut summary = Summary::default();
    let passed = every_check(&mut summary);
    eprintln!("\n{summary}");
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn every_check(summary: &mut Summary) -> bool {
    check(summary, &FORMAT)
        && tidy(summary)
        && CHECKS.iter().all(|next| check(summary, next))
        && tests_and_campaign(summary)
        && check(summary, &HISTORY)
        && fuzz(summary)
        && hosts(summary)
}

/// Runs a check, or skips it if the toolchain lacks its component.
fn check(summary: &mut Summary, check: &Check) -> bool {
    if let Some(component) = check.component
        && !has_component(component)
    {
        summary.skip(check.name, &format!("this toolchain has no `cargo {component}`"));
        return true;
    }
    eprintln!("\n== {}: cargo {}", check.name, check.arguments.join(" "));
    summary.time(check.name, || cargo(check.arguments))
}

fn tidy(summary: &mut Summary) -> bool {
    eprintln!("\n== tidy");
    summary.time("tidy", || tidy::run() == ExitCode::SUCCESS)
}

/// Runs all tests and, beside them, the campaign. Tests of `crates/cli` start real networks of processes, and one of
/// them passes its exported blocks to `tests/settlement.py`.
///
/// Many tests wait more than they compute, and the campaign only computes: at the lowest priority it takes the
/// processor time that the tests leave.
fn tests_and_campaign(summary: &mut Summary) -> bool {
    eprintln!("\n== build of the tests");
    let mut built = None;
    if !summary.time("build of the tests", || {
        built = binaries::build();
        built.is_some()
    }) {
        return false;
    }
    eprintln!("\n== tests, beside campaign {}", campaign::GATE.join(" "));
    let campaign = campaign::Beside::start();
    let passed = summary.time("tests", || binaries::run(&built.unwrap_or_default()));
    summary.time("campaign, to its end", || campaign.end()) && passed
}

fn fuzz(summary: &mut Summary) -> bool {
    if let Some(missing) = tools::missing_for_fuzz() {
        summary.skip("fuzzing", missing);
        return true;
    }
    summary.time("fuzzing", || tools::fuzz("20") == ExitCode::SUCCESS)
}

/// The small network of machines, with the program that the tests were built with.
fn hosts(summary: &mut Summary) -> bool {
    if let Some(why) = hosts::unavailable() {
        summary.skip("hosts", &why);
        return true;
    }
    let program = tools::target_directory().join("debug/posync");
    eprintln!("\n== hosts --small");
    summary.time("hosts", || {
        hosts::run(&["--small", "--program", &program.to_string_lossy()]) == ExitCode::SUCCESS
    })
}

/// Runs cargo on the caller's terminal; returns false if it fails or does not start.
pub(crate) fn cargo(arguments: &[&str]) -> bool {
    match Command::new(cargo_path()).args(arguments).status() {
        Ok(status) => status.success(),
        Err(error) => {
            eprintln!("cargo did not start: {error}");
            false
        }
    }
}

fn has_component(component: &str) -> bool {
    Command::new(cargo_path())
        .args([component, "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

pub(crate) fn cargo_path() -> String {
    env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}
