//! The mark of a provider that leaves: a file in its directory, by which no later start registers it again.
//!
//! `posync leave` writes it before it signs the notice or the exit. A running provider writes it too as soon as the
//! ledger shows its notice: the notice may have been signed elsewhere. Only the operator removes it.

use posync_client::format_mark::replace;
use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

/// Name of the mark's file.
const NAME: &str = "left";
/// Most bytes of a mark.
const BYTES_MAX: usize = 256;
/// The line that explains a mark to its finder.
const ABOUT: &str = "posync leave wrote this: the provider registers no more";

/// The mark in a provider's directory; the default has no directory, and forgets.
#[derive(Clone, Debug, Default)]
pub struct Left(Option<PathBuf>);

impl Left {
    /// The mark of the provider in `directory`.
    pub fn of(directory: &Path) -> Self {
        Self(Some(directory.join(NAME)))
    }

    /// True if there is a mark. One that cannot be read counts: a wrong registration locks money and takes data.
    pub(crate) fn is_noted(&self) -> bool {
        let Some(path) = &self.0 else { return false };
        !matches!(fs::symlink_metadata(path), Err(error) if error.kind() == ErrorKind::NotFound)
    }

    /// The height at which the mark was written; `None` if there is no mark, or no height in it.
    pub fn since(&self) -> Option<u64> {
        let text = fs::read_to_string(self.0.as_ref()?).ok().filter(|text| text.len() <= BYTES_MAX)?;
        text.lines().next()?.strip_prefix("left at height ")?.parse().ok()
    }

    /// Writes the mark, durably, unless it is there. Returns the height in it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn note(&self, height: u64) -> io::Result<u64> {
        if let Some(since) = self.since() {
            return Ok(since);
        }
        if let Some(path) = &self.0 {
            replace(path, &format!("left at height {height}\n{ABOUT}\n"))?;
        }
        Ok(height)
    }

    /// Writes a mark without a height, durably, unless there is a mark: no start registers the provider from here on, and
    /// [`Self::note`] adds the height once it is sure.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn begin(&self) -> io::Result<()> {
        match &self.0 {
            Some(path) if !self.is_noted() => replace(path, &format!("left\n{ABOUT}\n")),
            _ => Ok(()),
        }
    }

    /// Removes the mark: the next start registers the provider again.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn clear(&self) -> io::Result<()> {
        let Some(path) = &self.0 else { return Ok(()) };
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_keeps_its_first_height_until_it_is_removed_and_a_damaged_one_counts() {
        let home = tempfile::tempdir().expect("a directory");
        let left = Left::of(home.path());
        assert!(!left.is_noted() && left.since().is_none());
        left.begin().expect("writable");
        assert!(left.is_noted() && left.since().is_none(), "it counts before its height is sure");
        assert_eq!(left.note(7).expect("writable"), 7);
        assert_eq!(left.note(9).expect("there"), 7);
        left.begin().expect("there");
        assert_eq!((left.is_noted(), Left::of(home.path()).since()), (true, Some(7)));
        fs::write(home.path().join(NAME), "left at").expect("writable");
        assert!(left.is_noted() && left.since().is_none(), "what it says is lost, that it left is not");
        assert_eq!(left.note(11).expect("written again"), 11);
        left.clear().expect("removed");
        left.clear().expect("nothing to remove");
        assert!(!left.is_noted());
        let nowhere = Left::of(&home.path().join("missing"));
        assert!(nowhere.note(1).is_err() && !Left::default().is_noted());
    }
}
