//! The room on a member's volume.

use std::path::Path;

/// Free and promised bytes of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that this process may still write.
    pub free: u64,
    /// Bytes that are under contract and not stored yet.
    pub promised: u64,
}

impl Space {
    /// Measures the volume that holds `directory`; `None` if the system does not answer.
    pub fn of(directory: &Path, promised: u64) -> Option<Self> {
        let volume = rustix::fs::statvfs(directory).ok()?;
        Some(Self { free: volume.f_bavail.saturating_mul(volume.f_frsize), promised })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_room_and_a_missing_one_none() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(Space::of(directory.path(), 0).is_some_and(|space| space.free > 0));
        assert_eq!(Space::of(&directory.path().join("not mounted"), 0), None);
    }
}
