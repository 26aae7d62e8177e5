//! A lock that admits one process to a directory, and one that knows the format of its files.

use crate::format_mark::{self, FormatError};
use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    thread,
    time::Duration,
};

/// Attempts on a lock that another process holds, and the pause between two of them. A process that was
/// killed releases it within this time; a living one does not.
const LOOKS: u32 = 30;
const PAUSE: Duration = Duration::from_millis(100);

/// Takes the lock of a member's directory as [`hold`] does, and marks the directory with the format of this
/// program.
///
/// # Errors
/// As [`hold`]; and a newer version has written to the directory ([`FormatError`]), which is then not touched.
pub fn hold_member(path: &Path) -> io::Result<Option<File>> {
    let directory = path.parent().unwrap_or(Path::new("."));
    format_mark::check(directory).map_err(refused)?;
    let held = hold(path)?;
    if held.is_some() {
        format_mark::claim(directory).map_err(refused)?;
    }
    Ok(held)
}

fn refused(error: FormatError) -> io::Error {
    match error {
        FormatError::File(_, error) => error,
        error => io::Error::other(error),
    }
}

/// Takes the lock file at `path` for this process, until the returned file is dropped. `None`: a living
/// process holds it. Waits up to three seconds for a process that is ending.
///
/// # Errors
/// The file cannot be created, opened or locked.
pub fn hold(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    for look in 0..LOOKS {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if look + 1 < LOOKS => thread::sleep(PAUSE),
            Err(TryLockError::WouldBlock) => {}
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_file_is_refused_and_free_again_when_dropped() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("lock");
        let first = hold(&path).expect("writable").expect("free");
        assert!(hold(&path).expect("writable").is_none());
        drop(first);
        assert!(hold(&path).expect("writable").is_some());
        assert!(hold(Path::new("/nowhere/lock")).is_err());
    }

    #[test]
    fn who_lets_go_in_time_is_waited_for() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("lock");
        let first = hold(&path).expect("writable").expect("free");
        let second = {
            let path = path.clone();
            thread::spawn(move || hold(&path).expect("writable").is_some())
        };
        drop(first);
        assert!(second.join().expect("it does not panic"));
    }
}
