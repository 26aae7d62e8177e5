//! A runtime for one command: the same one that the roles run on, with nothing on disk.

use crate::failure::{Exit, Failure, Outcome};
use commonware_runtime::{Runner as _, tokio};
use std::io;
use tempfile::TempDir;

/// Memory-backed where the system has it: the runtime syncs the file system that it starts on.
const SCRATCH: &str = "/dev/shm";

/// Runs `work` and removes what the runtime left behind.
pub(crate) fn run<T>(work: impl AsyncFnOnce(tokio::Context) -> Outcome<T>) -> Outcome<T> {
    let scratch = scratch().map_err(|error| {
        let next = "make room in the temporary directory, or name another one with TMPDIR";
        Failure::new(Exit::Local, "cannot make a temporary directory", error, next)
    })?;
    let config = tokio::Config::new().with_storage_directory(scratch.path());
    tokio::Runner::new(config).start(async |context| work(context).await)
}

/// A directory with a name that nobody has; it goes when the command ends.
fn scratch() -> io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    let named = builder.prefix("posync-");
    named.tempdir_in(SCRATCH).or_else(|_| named.tempdir())
}
