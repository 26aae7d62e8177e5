//! The volume of a member: its free space, and the mark that an empty mount point lacks.
//!
//! ```text
//!   first start   --> mark on the volume, then a record in the member's own directory
//!   later starts  --> record, and the mark of this account --> goes on
//!                     record, and no mark                  --> refused: the volume is not mounted, or another one
//! ```
//!
//! A mount point without its volume is an empty directory. Taken for the store, everything on it would count as lost,
//! and what is written there would vanish below the volume when that is mounted.

use crate::format_mark::replace;
use posync_protocol::Account;
use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};
use thiserror::Error;

/// Name of the mark on a volume.
const MARK: &str = "member";
/// Name of the record in the member's directory.
const RECORD: &str = "volume";
/// Most bytes of a mark; a longer file is damaged.
const BYTES_MAX: usize = 256;

/// Why a volume cannot be used.
#[derive(Debug, Error)]
pub enum VolumeError {
    /// The volume does not hold the mark that the member left there.
    #[error(
        "{0} lacks the mark of this member, which kept its data there before: the volume is not mounted, or it is \
         another one; nothing was written to it"
    )]
    Missing(PathBuf),
    /// The mark does not read as one.
    #[error(
        "the mark {0} is damaged: it must hold the line \"member ACCOUNT\"; nothing was written to the volume"
    )]
    Damaged(PathBuf),
    /// Another member keeps its data on the volume.
    #[error("{0} is the volume of another member, {1}; nothing was written to it")]
    Foreign(PathBuf, Account),
    /// The mark or the record cannot be read or written.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
}

/// Checks that `volume` is the one on which the member of `directory` keeps its data, or a new one. It writes nothing.
///
/// # Errors
/// [`VolumeError`].
pub fn check(directory: &Path, volume: &Path, account: &Account) -> Result<(), VolumeError> {
    let record = directory.join(RECORD);
    let is_recorded = match fs::symlink_metadata(&record) {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(VolumeError::File(record, error)),
    };
    match mark(volume)? {
        Some(theirs) if theirs != *account => Err(VolumeError::Foreign(volume.into(), theirs)),
        None if is_recorded => Err(VolumeError::Missing(volume.into())),
        _ => Ok(()),
    }
}

/// Checks the volume as [`check`] does, and marks a new one: called before anything is stored there.
///
/// # Errors
/// [`VolumeError`].
pub fn claim(directory: &Path, volume: &Path, account: &Account) -> Result<(), VolumeError> {
    check(directory, volume, account)?;
    write(directory, volume, account)
}

/// Takes the volume as it is on the operator's word, with a missing or damaged mark. What was on another is lost.
///
/// # Errors
/// `Foreign`, `File`.
pub fn take(directory: &Path, volume: &Path, account: &Account) -> Result<(), VolumeError> {
    match mark(volume) {
        Ok(Some(theirs)) if theirs != *account => return Err(VolumeError::Foreign(volume.into(), theirs)),
        Err(error @ VolumeError::File(..)) => return Err(error),
        Ok(_) | Err(_) => {}
    }
    let path = volume.join(MARK);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(VolumeError::File(path, error)),
        _ => write(directory, volume, account),
    }
}

/// The account in the mark of a volume; `None` without a mark.
fn mark(volume: &Path) -> Result<Option<Account>, VolumeError> {
    let path = volume.join(MARK);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(VolumeError::File(path, error)),
    };
    let text = std::str::from_utf8(&bytes).ok().filter(|text| text.len() <= BYTES_MAX);
    let account = text.and_then(|text| text.trim_end().strip_prefix("member ")?.parse().ok());
    account.map(Some).ok_or(VolumeError::Damaged(path))
}

/// Writes what is missing: the mark first, so that a record without a mark is always a missing volume.
fn write(directory: &Path, volume: &Path, account: &Account) -> Result<(), VolumeError> {
    fs::create_dir_all(volume).map_err(|error| VolumeError::File(volume.into(), error))?;
    for path in [volume.join(MARK), directory.join(RECORD)] {
        if !path.exists() {
            let text = format!("member {account}\n");
            replace(&path, &text).map_err(|error| VolumeError::File(path, error))?;
        }
    }
    Ok(())
}

/// Bytes that this process may still write to the volume that holds `directory`.
///
/// # Errors
/// The directory or its volume cannot be queried.
pub fn free(directory: &Path) -> io::Result<u64> {
    let volume = rustix::fs::statvfs(directory)?;
    Ok(volume.f_bavail.saturating_mul(volume.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_has_room_and_a_missing_directory_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(free(directory.path()).expect("it is there") > 0);
        assert!(free(&directory.path().join("not mounted")).is_err());
    }

    const OWN: Account = Account([7; 32]);

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("a directory");
        entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn an_empty_mount_point_is_no_new_volume_and_stays_empty() {
        let home = tempfile::tempdir().expect("a directory");
        let (directory, volume) = (home.path().join("member"), home.path().join("volume"));
        fs::create_dir(&directory).expect("made");
        check(&directory, &volume, &OWN).expect("a first start");
        claim(&directory, &volume, &OWN).expect("a first start");
        claim(&directory, &volume, &OWN).expect("a second one");
        let away = home.path().join("away");
        fs::rename(&volume, &away).expect("unmounted");
        for is_there in [false, true] {
            if is_there {
                fs::create_dir(&volume).expect("the mount point");
            }
            for refused in [check(&directory, &volume, &OWN), claim(&directory, &volume, &OWN)] {
                let error = refused.expect_err("it is not mounted").to_string();
                assert!(error.contains("not mounted") && error.contains("nothing was written"), "{error}");
            }
        }
        assert!(names(&volume).is_empty(), "nothing is written below a mount point");
        fs::remove_dir(&volume).expect("empty");
        fs::rename(&away, &volume).expect("mounted again");
        claim(&directory, &volume, &OWN).expect("it is back");
        // A crash between the mark and the record.
        fs::remove_file(directory.join(RECORD)).expect("there");
        claim(&directory, &volume, &OWN).expect("marked already");
        assert!(directory.join(RECORD).exists());
    }

    #[test]
    fn another_members_volume_is_never_taken_and_a_lost_one_on_a_word_only() {
        let home = tempfile::tempdir().expect("a directory");
        let (directory, volume) = (home.path().join("member"), home.path().join("volume"));
        fs::create_dir(&directory).expect("made");
        claim(&directory, &volume, &OWN).expect("a first start");
        let other = Account([8; 32]);
        for refused in [claim(home.path(), &volume, &other), take(home.path(), &volume, &other)] {
            let error = refused.expect_err("another's").to_string();
            assert!(error.contains(&OWN.to_string()), "{error}");
        }
        for damaged in [&b"member"[..], b"", b"\xff", &[b'9'; 300]] {
            fs::write(volume.join(MARK), damaged).expect("writable");
            assert!(matches!(claim(&directory, &volume, &OWN), Err(VolumeError::Damaged(_))));
        }
        take(&directory, &volume, &OWN).expect("on a word");
        claim(&directory, &volume, &OWN).expect("marked again");
        fs::remove_dir_all(&volume).expect("the disk is gone");
        assert!(matches!(claim(&directory, &volume, &OWN), Err(VolumeError::Missing(_))));
        take(&directory, &volume, &OWN).expect("on a word");
        claim(&directory, &volume, &OWN).expect("a new disk");
    }
}
