//! Detects a full volume, and one that is away: which errors mean it, and how much space stays reserved.

use commonware_runtime::Error;
use posync_client::volume::{InUse, is_away};
use std::{io, path::PathBuf};

/// Minimum and maximum bytes of a volume that shards leave free.
const RESERVE: (u64, u64) = (16 << 20, 256 << 20);
/// Divisor: this part of a volume stays free, within [`RESERVE`].
const RESERVE_PART: u64 = 20;
/// Linux error numbers: an input/output error, a device that is gone (two), a read-only file system, an exceeded quota.
const EIO: i32 = 5;
const ENXIO: i32 = 6;
const ENODEV: i32 = 19;
const EROFS: i32 = 30;
const EDQUOT: i32 = 122;
/// Linux error numbers: no memory, too many open files in the system, and in the process.
const ENOMEM: i32 = 12;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;

/// True if a failed write means that the volume accepts nothing now: full, over a quota, failing, or away.
/// Earlier writes are intact.
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
    kind || is_away(error) || matches!(io.raw_os_error(), Some(EIO | ENXIO | ENODEV | EROFS | EDQUOT))
}

/// True if a failed read is an error of the device or the file system, which says nothing about the bytes: an error of
/// the system, but for a file that is not there or ends early.
pub(crate) fn is_of_device(error: &Error) -> bool {
    match error {
        Error::ReadFailed => true,
        Error::Io(io) | Error::BlobOpenFailed(_, _, io) => {
            io.raw_os_error().is_some() && io.kind() != io::ErrorKind::NotFound
        }
        _ => false,
    }
}

/// True if a failed read is an error of this process: too many open files, or no memory.
pub(super) fn is_own(error: &Error) -> bool {
    let io = match error {
        Error::Io(io) | Error::BlobOpenFailed(_, _, io) => io,
        _ => return false,
    };
    matches!(io.raw_os_error(), Some(ENOMEM | ENFILE | EMFILE))
}

/// The volume that holds the shards.
#[derive(Clone, Debug, Default)]
pub(crate) struct Volume {
    directory: Option<PathBuf>,
    in_use: Option<InUse>,
}

impl Volume {
    /// The volume of a directory; `None`: a volume without limit. `in_use` checks that it is there; `None`: it always
    /// is.
    pub(crate) const fn of(directory: Option<PathBuf>, in_use: Option<InUse>) -> Self {
        Self { directory, in_use }
    }

    /// Succeeds if `bytes` more may be written; the error is the reason. A volume that cannot be queried succeeds.
    pub(super) fn takes(&self, bytes: u64) -> Result<(), String> {
        if let Some(in_use) = &self.in_use {
            in_use.check().map_err(|error| error.to_string())?;
        }
        let volume = self.directory.as_deref().and_then(|directory| rustix::fs::statvfs(directory).ok());
        let Some(volume) = volume else { return Ok(()) };
        let (free, all) = (
            volume.f_bavail.saturating_mul(volume.f_frsize),
            volume.f_blocks.saturating_mul(volume.f_frsize),
        );
        judge(bytes, free, all).map_err(|(free, reserve)| {
            format!("{free} bytes are free on the volume, of which {reserve} stay free")
        })
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
        for (code, full) in [
            (28, true),
            (122, true),
            (5, true),
            (6, true),
            (19, true),
            (30, true),
            (2, false),
            (13, false),
            (9, false),
        ] {
            assert_eq!(is_full(&error(code)), full, "{code}");
        }
        assert!(is_full(&Error::WriteFailed) && !is_full(&Error::Closed));
        for (code, of_device) in [(5, true), (6, true), (19, true), (24, true), (30, true), (2, false)] {
            assert_eq!(is_of_device(&error(code)), of_device, "{code}");
        }
        let short = Error::Io(Arc::new(io::ErrorKind::UnexpectedEof.into()));
        assert!(is_of_device(&Error::ReadFailed) && !is_of_device(&short) && !is_of_device(&Error::Closed));
    }
}
