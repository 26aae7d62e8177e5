//! Whole networks from seeds: `cargo xtask campaign`.

use std::process::ExitCode;

/// The seeds that every change must hold: each begins with another kind of fault. As many as two cores
/// run in about three minutes in the tests' build (docs/benchmarks.md).
pub(crate) const GATE: &[&str] = &["--seeds", "0..6"];

/// The cargo command that runs the campaign with these options: the build of the tests, with every
/// check on; its dependencies are optimised.
fn arguments<'a>(options: &[&'a str]) -> Vec<&'a str> {
    [&["run", "--locked", "--quiet", "--package", "posync-sim", "--bin", "campaign", "--"], options].concat()
}

/// Runs it; fails if any seed is open.
pub(crate) fn run(options: &[&str]) -> ExitCode {
    if crate::cargo(&arguments(options)) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
