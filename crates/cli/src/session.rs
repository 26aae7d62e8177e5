//! A runtime for one command: the same one that the roles run on, with nothing on disk.
//!
//! The runtime locks a directory at its start, and commands store nothing in it: its name goes as
//! soon as the runtime is up, so that whatever ends the command leaves nothing behind. Signals are
//! listened to before that.

use crate::{
    failure::{Exit, Failure, Outcome},
    interrupt::{Interrupt, Signals},
};
use commonware_runtime::{Runner as _, tokio};
use std::io;
use tempfile::TempDir;

/// Memory-backed where the system has it: the runtime syncs the file system that it starts on.
const SCRATCH: &str = "/dev/shm";

/// Runs `work` until it is done or the user ends it; what it holds is dropped in order then.
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

/// Runs `work`, which listens to signals itself.
pub(crate) fn until_done<T>(work: impl AsyncFnOnce(tokio::Context) -> Outcome<T>) -> Outcome<T> {
    let scratch = scratch().map_err(|error| {
        let next = "make room in the temporary directory, or name another one with TMPDIR";
        Failure::new(Exit::Local, "cannot make a temporary directory", error, next)
    })?;
    let config = tokio::Config::new()
        .with_storage_directory(scratch.path())
        .with_worker_threads(posync_node::run::workers());
    tokio::Runner::new(config).start(async |context| {
        // Nothing is stored in it; if it cannot be removed now, it is when the command ends.
        let _ = scratch.close();
        work(context).await
    })
}

fn interrupted(by: Interrupt) -> Failure {
    let exit = match by {
        Interrupt::User => Exit::Interrupted,
        Interrupt::System => Exit::Terminated,
    };
    let next = "nothing is left half-written here; look whether it was done (`posync ls`, `posync status`) before \
                you repeat it";
    Failure::new(exit, "the command was interrupted", "a signal asked it to end", next)
}

/// A directory with a name that nobody has.
fn scratch() -> io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    let named = builder.prefix("posync-");
    named.tempdir_in(SCRATCH).or_else(|_| named.tempdir())
}
