//! A runtime for one command: the same one that the roles run on, with nothing on disk.

use crate::failure::Outcome;
use commonware_runtime::{Runner as _, tokio};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Memory-backed where the system has it: the runtime syncs the file system that it starts on.
const SCRATCH: &str = "/dev/shm";

/// Runs `work` and removes what the runtime left behind.
pub(crate) fn run<T>(work: impl AsyncFnOnce(tokio::Context) -> Outcome<T>) -> Outcome<T> {
    let scratch = scratch();
    let config = tokio::Config::new().with_storage_directory(&scratch);
    let result = tokio::Runner::new(config).start(async |context| work(context).await);
    // A command stores nothing there; an empty directory left behind does no harm.
    let _ = fs::remove_dir_all(&scratch);
    result
}

fn scratch() -> PathBuf {
    let shared = Path::new(SCRATCH);
    let base = if shared.is_dir() { shared.to_path_buf() } else { std::env::temp_dir() };
    base.join(format!("posync-{}", std::process::id()))
}
