//! Simulated networks from seeds: `cargo xtask campaign`.

use crate::tools::target_directory;
use std::{
    fs::{self, File},
    io,
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
};

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
    let program = program();
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

fn program() -> PathBuf {
    target_directory().join("debug/campaign")
}

fn log() -> PathBuf {
    target_directory().join("tmp/campaign.log")
}

/// The campaign of the gate, which runs beside the tests at the lowest priority. Its output goes to a file.
pub(crate) struct Beside(io::Result<Child>);

impl Beside {
    /// Starts the program that the build of the tests left.
    pub(crate) fn start() -> Self {
        let start = || {
            fs::create_dir_all(target_directory().join("tmp"))?;
            let out = File::create(log())?;
            let error = out.try_clone()?;
            let mut nice = Command::new("nice");
            nice.args(["-n", "19"]).arg(program()).args(GATE);
            nice.stdin(Stdio::null()).stdout(out).stderr(error).spawn()
        };
        Self(start())
    }

    /// Waits for the campaign's end and prints its output; returns true if every seed held.
    pub(crate) fn end(self) -> bool {
        let ended = self.0.and_then(|mut child| child.wait());
        print!("{}", fs::read_to_string(log()).unwrap_or_default());
        match ended {
            Ok(status) => status.success(),
            Err(error) => {
                eprintln!("{} did not run: {error}", program().display());
                false
            }
        }
    }
}
