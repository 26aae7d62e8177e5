//! The mark of a member's directory: the format of its files, and the version that wrote it.
//!
//! A newer program may write what an older one reads wrongly, and an older one then damages. So each program
//! knows one format number, marks the directory with it, and refuses a higher one before it writes anything. The
//! number is raised by a newer program alone, when it changes a file's format. A directory without a mark has
//! format 1.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};
use thiserror::Error;

/// The format that this program reads and writes.
pub(crate) const FORMAT: u32 = 1;
/// The version of this program.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Name of the mark's file.
const NAME: &str = "format";
/// Most bytes of a mark; a longer file is damaged.
const BYTES_MAX: usize = 256;

/// Why a directory cannot be used by this program.
#[derive(Debug, Error)]
pub enum FormatError {
    /// A newer version has written to the directory.
    #[error(
        "{directory} has format {theirs}, written by posync {by}, and this is posync {VERSION}, which knows formats \
         up to {FORMAT}: nothing was touched; start it with posync {by} or newer"
    )]
    Newer {
        /// Path of the directory.
        directory: PathBuf,
        /// Format of the directory.
        theirs: u32,
        /// Version that wrote the mark.
        by: String,
    },
    /// The mark does not read as one.
    #[error(
        "{0} is damaged: it must hold two lines, \"format NUMBER\" and \"version VERSION\"; nothing was touched. Find \
         out which version of posync wrote to this directory, and use that one or a newer one"
    )]
    Damaged(PathBuf),
    /// The mark cannot be read or written.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
}

/// Reads the mark of a directory; `None` if it has none. It writes nothing.
///
/// # Errors
/// `Newer`, `Damaged`, `File`.
pub(crate) fn check(directory: &Path) -> Result<Option<u32>, FormatError> {
    check_as(directory, FORMAT)
}

/// Marks a directory that this process has locked: a missing mark is written, a lower one raised.
///
/// # Errors
/// `Newer`, `Damaged`, `File`.
pub fn claim(directory: &Path) -> Result<(), FormatError> {
    claim_as(directory, FORMAT, VERSION)
}

fn check_as(directory: &Path, known: u32) -> Result<Option<u32>, FormatError> {
    let path = directory.join(NAME);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FormatError::File(path, error)),
    };
    let Some((theirs, by)) = parse(&bytes) else { return Err(FormatError::Damaged(path)) };
    if theirs > known {
        return Err(FormatError::Newer { directory: directory.into(), theirs, by });
    }
    Ok(Some(theirs))
}

fn claim_as(directory: &Path, known: u32, version: &str) -> Result<(), FormatError> {
    if check_as(directory, known)? == Some(known) {
        return Ok(());
    }
    let path = directory.join(NAME);
    let text = format!("format {known}\nversion {version}\n");
    replace(&path, &text).map_err(|error| FormatError::File(path, error))
}

/// Replaces a small file of a member's directory, durably: whole or not at all. Only its owner may read it.
///
/// # Errors
/// The file cannot be written.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    replace_bytes(path, text.as_bytes())
}

/// Replaces a file as [`replace`] does.
pub(crate) fn replace_bytes(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidFilename.into());
    };
    let temporary = directory.join(format!(".{}.new", name.to_string_lossy()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()
}

/// The number and the version of a mark.
fn parse(bytes: &[u8]) -> Option<(u32, String)> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= BYTES_MAX)?;
    let mut lines = text.lines();
    let number = lines.next()?.strip_prefix("format ")?.parse().ok().filter(|number| *number > 0)?;
    let version = lines.next()?.strip_prefix("version ")?;
    let is_word = !version.is_empty() && version.chars().all(|char| char.is_ascii_graphic());
    (is_word && lines.next().is_none()).then(|| (number, version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory_lock::hold_member;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("a directory");
        entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_directory_of_a_newer_version_is_refused_with_both_named_and_untouched() {
        let home = tempfile::tempdir().expect("a directory");
        claim_as(home.path(), FORMAT + 1, "9.2.0").expect("writable");
        let before = fs::read(home.path().join(NAME)).expect("it was written");
        for error in [
            check(home.path()).expect_err("newer").to_string(),
            claim(home.path()).expect_err("newer").to_string(),
            hold_member(&home.path().join("lock")).expect_err("newer").to_string(),
        ] {
            assert!(error.contains("9.2.0") && error.contains(&format!("posync {VERSION}")), "{error}");
            assert!(error.contains(&format!("format {}", FORMAT + 1)), "{error}");
        }
        assert_eq!(names(home.path()), [NAME], "no lock, no new file");
        assert_eq!(fs::read(home.path().join(NAME)).expect("there"), before);
    }

    #[test]
    fn a_mark_is_written_with_the_lock_and_raised_by_a_newer_version_alone() {
        let home = tempfile::tempdir().expect("a directory");
        assert_eq!(check(home.path()).expect("no mark"), None);
        let lock = hold_member(&home.path().join("lock")).expect("writable").expect("free");
        assert_eq!(check(home.path()).expect("marked"), Some(FORMAT));
        let text = || fs::read_to_string(home.path().join(NAME)).expect("there");
        assert_eq!(text(), format!("format {FORMAT}\nversion {VERSION}\n"));
        claim_as(home.path(), FORMAT, "9.1.0").expect("the same format");
        assert!(text().contains(VERSION), "a version that writes the same format changes nothing");
        claim_as(home.path(), FORMAT + 1, "9.2.0").expect("raised");
        assert_eq!(text(), format!("format {}\nversion 9.2.0\n", FORMAT + 1));
        drop(lock);
    }

    #[test]
    fn a_damaged_mark_is_no_mark_of_the_first_format() {
        let home = tempfile::tempdir().expect("a directory");
        let long = format!("format 1\nversion {}\n", "9".repeat(BYTES_MAX));
        for bad in [
            "",
            "format",
            "format 0\nversion 1\n",
            "format x\nversion 1\n",
            "format 1\n",
            "version 1\nformat 1\n",
        ]
        .into_iter()
        .chain([
            "format 1\nversion \n",
            "format 1\nversion 1 2\n",
            "format 1\nversion 1\nmore\n",
            &long,
        ]) {
            fs::write(home.path().join(NAME), bad).expect("writable");
            let error = check(home.path()).expect_err(bad).to_string();
            assert!(error.contains("damaged") && error.contains("newer one"), "{error}");
        }
    }
}
