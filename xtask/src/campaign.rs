//! Whole networks from seeds: `cargo xtask campaign`.

use std::process::ExitCode;

/// Our crates as the campaign builds them: optimised, with every check of a debug build. Other
/// dependencies are those that the tests use.
const OPTIMISED: [&str; 5] = ["sim", "node", "client", "provider", "gateway"];

/// The seeds that every change must hold.
pub(crate) const GATE: &[&str] = &["--seeds", "0..40"];

/// The cargo command that runs the campaign with these options.
pub(crate) fn arguments(options: &[&str]) -> Vec<String> {
    let mut arguments: Vec<String> = vec!["run".into(), "--locked".into(), "--quiet".into()];
    for package in OPTIMISED {
        arguments.extend(["--config".into(), format!("profile.dev.package.posync-{package}.opt-level=1")]);
    }
    arguments.extend(["--package", "posync-sim", "--bin", "campaign", "--"].map(Into::into));
    arguments.extend(options.iter().map(ToString::to_string));
    arguments
}

/// Runs it; fails if any seed is open.
pub(crate) fn run(options: &[&str]) -> ExitCode {
    let arguments = arguments(options);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if crate::cargo(&arguments) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
