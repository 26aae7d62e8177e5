//! Simulated networks from seeds: `cargo xtask campaign`.

use std::process::ExitCode;

/// Seeds that every change must pass; each begins with another kind of fault. Their number is what two cores
/// run in about three minutes in the tests' build (docs/benchmarks.md).
pub(crate) const GATE: &[&str] = &["--seeds", "0..6"];

/// Arguments of the cargo command that runs the campaign with these options, in the tests' build: every check
/// is on, and dependencies are optimised.
fn arguments<'a>(options: &[&'a str]) -> Vec<&'a str> {
    [&["run", "--locked", "--quiet", "--package", "posync-sim", "--bin", "campaign", "--"], options].concat()
}

/// Runs the campaign; fails if any seed does not hold.
pub(crate) fn run(options: &[&str]) -> ExitCode {
    if crate::cargo(&arguments(options)) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
