//! When a volume takes no more: which errors say so, and how much of it is left alone.

use commonware_runtime::Error;
use std::{io, path::PathBuf};

/// Least and most bytes of a volume that shards leave alone.
const RESERVE: (u64, u64) = (16 << 20, 256 << 20);
/// This part of a volume is left alone, within [`RESERVE`].
const RESERVE_PART: u64 = 20;
/// Input/output error and quota exceeded, as Linux numbers them.
const EIO: i32 = 5;
const EDQUOT: i32 = 122;

/// Whether a failed write says that the volume takes nothing now: full, over a quota, or failing. What
/// was written before is there all the same.
pub(crate) fn is_full(error: &Error) -> bool {
    let io = match error {
        Error::WriteFailed | Error::PartitionCreationFailed(_) => return true,
        Error::Io(io) => io,
        Error::BlobSyncFailed(_, _, io)
        | Error::BlobResizeFailed(_, _, io)
        | Error::BlobOpenFailed(_, _, io) => io,
        _ => return false,
    };
    let kind = matches!(io.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    kind || matches!(io.raw_os_error(), Some(EIO | EDQUOT))
}

/// The volume that holds the shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volume(Option<PathBuf>);

impl Volume {
    /// The volume of a directory; `None`: one without an end.
    pub const fn of(directory: Option<PathBuf>) -> Self {
        Self(directory)
    }

    /// Whether `bytes` more may be written; else the bytes that are free and those that stay so. What
    /// cannot be asked says yes.
    pub(super) fn takes(&self, bytes: u64) -> Result<(), (u64, u64)> {
        let volume = self.0.as_deref().and_then(|directory| rustix::fs::statvfs(directory).ok());
        let Some(volume) = volume else { return Ok(()) };
        let (free, all) = (
            volume.f_bavail.saturating_mul(volume.f_frsize),
            volume.f_blocks.saturating_mul(volume.f_frsize),
        );
        judge(bytes, free, all)
    }
}

fn judge(bytes: u64, free: u64, all: u64) -> Result<(), (u64, u64)> {
    let reserve = (all / RESERVE_PART).clamp(RESERVE.0, RESERVE.1);
    if free.saturating_sub(bytes) >= reserve { Ok(()) } else { Err((free, reserve)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_part_of_the_volume_is_left_alone() {
        const MIB: u64 = 1 << 20;
        for (bytes, free, all, expected) in [
            (0, 16 * MIB, 100 * MIB, Ok(())),
            (1, 16 * MIB, 100 * MIB, Err((16 * MIB, 16 * MIB))),
            (0, 99 * MIB, 2_000 * MIB, Err((99 * MIB, 100 * MIB))),
            (4 * MIB, 260 * MIB, 1 << 50, Ok(())),
            (5 * MIB, 260 * MIB, 1 << 50, Err((260 * MIB, 256 * MIB))),
            (u64::MAX, 1 << 50, 1 << 50, Err((1 << 50, 256 * MIB))),
        ] {
            assert_eq!(judge(bytes, free, all), expected, "{bytes} {free} {all}");
        }
    }

    #[test]
    fn a_full_disk_is_told_from_one_that_is_gone() {
        let error = |code| Error::Io(Arc::new(io::Error::from_raw_os_error(code)));
        for (code, full) in [(28, true), (122, true), (5, true), (2, false), (13, false), (9, false)] {
            assert_eq!(is_full(&error(code)), full, "{code}");
        }
        assert!(is_full(&Error::WriteFailed) && !is_full(&Error::Closed));
    }
}
