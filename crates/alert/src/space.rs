//! The free space of a member's volume, and the alert that it is full.

use crate::{Alert, Kind};
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

/// The alert of a member that writes nothing new because its volume has no room: `what` is the case, `effect`
/// what that means for the member.
pub fn full_volume(what: String, effect: &str) -> Alert {
    Alert { kind: Kind::VolumeFull, what, next: format!("{effect}: make room on the volume"), due: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_volume_is_another_alert_than_a_low_one_and_says_what_to_do() {
        let alert = full_volume("7 bytes are free".into(), "no shard is taken");
        assert_eq!((alert.kind, alert.what.as_str()), (Kind::VolumeFull, "7 bytes are free"));
        assert_eq!(alert.next, "no shard is taken: make room on the volume");
        let low = crate::low_space(Space { free: 7, promised: 0 }).expect("it is low");
        assert_ne!(low.kind, alert.kind);
    }

    #[test]
    fn a_directory_has_room_and_a_missing_one_none() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(Space::of(directory.path(), 0).is_some_and(|space| space.free > 0));
        assert_eq!(Space::of(&directory.path().join("not mounted"), 0), None);
    }
}
