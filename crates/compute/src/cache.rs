//! Leftovers in the directory of machine code.
//!
//! wasmtime writes a file under a name that follows from the module, and gives it its own name once it is whole. A lane
//! that is killed meanwhile, or a full disk, leaves it; while the name is taken, no lane keeps code of that module.

use std::{
    fs::{self, DirEntry},
    path::Path,
    time::Duration,
};

/// Beginning of the extension of a file that is being written.
const UNFINISHED: &str = "wip-atomic-write";
/// Age at which nobody writes such a file any more: writing one takes seconds.
const ABANDONED_AFTER: Duration = Duration::from_secs(60);

/// Removes files that nobody finished. What cannot be removed stays: its module is compiled each time.
pub(crate) fn remove_abandoned(cache: &Path) {
    for compiler in entries(&cache.join("modules")) {
        for file in entries(&compiler.path()).filter(is_abandoned) {
            let _ = fs::remove_file(file.path());
        }
    }
}

fn entries(directory: &Path) -> impl Iterator<Item = DirEntry> {
    fs::read_dir(directory).into_iter().flatten().flatten()
}

fn is_abandoned(file: &DirEntry) -> bool {
    let path = file.path();
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    let written = file.metadata().and_then(|found| found.modified());
    // A time in the future is that of another clock.
    let is_old = written.is_ok_and(|at| at.elapsed().map_or(true, |age| age > ABANDONED_AFTER));
    extension.starts_with(UNFINISHED) && is_old
}
