//! Simulated networks from seeds: `cargo xtask campaign`.

use std::process::{Command, ExitCode};

/// Seeds that every change must pass. They draw every variant of every kind of fault, and eight, each of which
/// begins with another kind, run twice: docs/benchmarks.md has what they take.
pub(crate) const GATE: &[&str] = &["--seeds", "0..40", "--again", "5"];

/// Builds the simulator's program exactly as `cargo test --workspace` does, which builds it for the tests beside
/// it. Every check is on, and nothing is built twice: `cargo run --package posync-sim` would choose other features
/// of shared dependencies, and so build the engine and all roles again.
const BUILD: &[&str] = &["test", "--locked", "--quiet", "--workspace", "--test", "campaign", "--no-run"];

/// Runs the campaign; fails if any seed does not hold.
pub(crate) fn run(options: &[&str]) -> ExitCode {
    if !crate::cargo(BUILD) {
        return ExitCode::FAILURE;
    }
    let program = crate::tools::target_directory().join("debug/campaign");
    match Command::new(&program).args(options).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        // Its usage was wrong.
        Ok(status) if status.code() == Some(2) => ExitCode::from(2),
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{} did not start: {error}", program.display());
            ExitCode::FAILURE
        }
    }
}
