//! The runtime of one command: the one that the roles run on, without storage.
//!
//! The runtime locks a directory at its start, but commands store nothing in it. The directory is removed as
//! soon as the runtime is up, so no end of the command leaves it behind. Signals are caught from before
//! that on.

use crate::{
    failure::{Exit, Failure, Outcome},
    interrupt::{Interrupt, Signals},
};
use commonware_runtime::{Runner as _, tokio};
use std::io;
use tempfile::TempDir;

/// Directory in memory, where the system has one: the runtime syncs the file system that it starts on.
const SCRATCH: &str = "/dev/shm";

/// Runs `work` until it is done or the user interrupts it; then drops its values in order.
pub(crate) fn run<T>(work: impl AsyncFnOnce(tokio::Context) -> Outcome<T>) -> Outcome<T> {
    let signals = Signals::listen()?;
    until_done(async |context| {
        ::tokio::select! {
            biased;
            interrupt = signals.wait() => Err(interrupted(interrupt)),
            done = work(context) => done,
        }
    })
}

/// Runs `work`, which handles signals itself.
pub(crate) fn until_done<T>(work: impl AsyncFnOnce(tokio::Context) -> Outcome<T>) -> Outcome<T> {
    let scratch = scratch().map_err(|error| {
        let next = "make room in the temporary directory, or name another one with TMPDIR";
        Failure::new(Exit::Local, "cannot make a temporary directory", error, next)
    })?;
    let config = tokio::Config::new()
        .with_storage_directory(scratch.path())
        .with_worker_threads(posync_node::run::workers());
    tokio::Runner::new(config).start(async |context| {
        // Nothing is stored in it. If it cannot be removed now, it is removed when the command ends.
        let _ = scratch.close();
        work(context).await
    })
}

fn interrupted(by: Interrupt) -> Failure {
    let next = "nothing is left half-written here; look whether it was done (`posync ls`, `posync status`) before \
                you repeat it";
    Failure::new(by.exit(), "the command was interrupted", "a signal asked it to end", next)
}

/// Creates a temporary directory with a unique name.
fn scratch() -> io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    let named = builder.prefix("posync-");
    named.tempdir_in(SCRATCH).or_else(|_| named.tempdir())
}
