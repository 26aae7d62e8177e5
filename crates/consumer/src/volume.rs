//! The volume that holds the catalogue: below a reserve of free bytes, nothing is written there that can wait.
//!
//! ```text
//!   free >= reserve        ──► all is written
//!   free <  reserve        ──► full: no new data, no room ahead of need, no repair that can wait;
//!                              the reserve is for the rest: vouchers, removals, repair that cannot wait
//!   free >= 1.5 x reserve  ──► all is written again
//! ```
//!
//! A write that fails nevertheless ends the process, as the catalogue prescribes.

use posync_client::volume::{Size, size};
use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Minimum and maximum bytes of the reserve. The catalogue's log grows by up to 24,576 changes of less than 1 KiB on
/// average before it frees its oldest file: the minimum holds these, and what else the process writes.
const RESERVE: (u64, u64) = (32 << 20, 256 << 20);
/// Divisor: this part of a volume is the reserve, within [`RESERVE`].
const RESERVE_PART: u64 = 20;

/// The volume has no room for what can wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("only {free} bytes are free on the volume of the catalogue, and new data is taken from {least} on")]
pub struct Full {
    /// Bytes that are free.
    pub free: u64,
    /// Free bytes from which new data is taken.
    pub least: u64,
}

type Query = dyn Fn() -> io::Result<Size> + Send + Sync;

struct State {
    query: Box<Query>,
    is_full: AtomicBool,
}

/// The volume of the catalogue; the default one has no limit. Clones share the state.
#[derive(Clone, Default)]
pub struct Volume(Option<Arc<State>>);

impl Volume {
    /// The volume that holds a directory.
    pub fn of(directory: PathBuf) -> Self {
        Self::queried(move || size(&directory))
    }

    /// A volume with the size that `query` returns at each look.
    pub fn queried(query: impl Fn() -> io::Result<Size> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(State { query: Box::new(query), is_full: AtomicBool::new(false) })))
    }

    /// Succeeds if data that can wait may be written now. A volume that cannot be queried has room.
    ///
    /// # Errors
    /// [`Full`].
    pub fn has_room(&self) -> Result<(), Full> {
        let Some(state) = &self.0 else { return Ok(()) };
        let Ok(size) = (state.query)() else { return Ok(()) };
        let judged = judge(size, state.is_full.load(Ordering::Acquire));
        let was_full = state.is_full.swap(judged.is_err(), Ordering::AcqRel);
        match judged {
            Err(full) if !was_full => tracing::warn!(
                %full,
                "the volume is full but for the reserve: new files are refused, no agreement is opened ahead, and \
                 repair waits where six shards are left; reads and removals go on"
            ),
            Ok(()) if was_full => {
                tracing::info!(free = size.free, "the volume has room again: new files are taken");
            }
            _ => {}
        }
        judged
    }
}

/// The reserve of a volume. A very small one is never all reserve.
fn reserve(all: u64) -> u64 {
    (all / RESERVE_PART).clamp(RESERVE.0, RESERVE.1).min(all / 2)
}

/// Judges a volume that was full before or was not: there is a distance between the two, so that it does not flap.
fn judge(Size { free, all }: Size, is_full: bool) -> Result<(), Full> {
    let reserve = reserve(all);
    let least = if is_full { reserve + reserve / 2 } else { reserve };
    if free >= least { Ok(()) } else { Err(Full { free, least }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_part_of_the_volume_stays_free_and_room_to_spare_ends_it() {
        for (free, all, is_full, least) in [
            (32, 64, false, None),
            (31, 64, false, Some(32)),
            (47, 64, true, Some(48)),
            (48, 64, true, None),
            (99, 2_000, false, Some(100)),
            (255, 1 << 30, false, Some(256)),
            (383, 1 << 30, true, Some(384)),
            (384, 1 << 30, true, None),
            (10, 20, false, None),
            (9, 20, false, Some(10)),
            (15, 20, true, None),
        ] {
            let expected = least.map_or(Ok(()), |least| Err(Full { free: free * MIB, least: least * MIB }));
            let judged = judge(Size { free: free * MIB, all: all * MIB }, is_full);
            assert_eq!(judged, expected, "{free} of {all} MiB, full: {is_full}");
        }
        assert_eq!(judge(Size { free: 0, all: u64::MAX }, true), Err(Full { free: 0, least: 384 * MIB }));
    }

    #[test]
    fn a_full_volume_has_room_again_by_itself_and_one_that_does_not_answer_is_not_full() {
        let free = Arc::new(AtomicU64::new(32 * MIB));
        let shown = free.clone();
        let volume = Volume::queried(move || match shown.load(Ordering::Relaxed) {
            u64::MAX => Err(io::Error::other("it does not answer")),
            free => Ok(Size { free, all: 64 * MIB }),
        });
        let mut has_room = Vec::new();
        for now in [32 * MIB, 32 * MIB - 1, 40 * MIB, u64::MAX, 40 * MIB, 48 * MIB, 32 * MIB] {
            free.store(now, Ordering::Relaxed);
            has_room.push(volume.clone().has_room().is_ok());
        }
        assert_eq!(has_room, [true, false, false, true, false, true, true]);
        assert_eq!(Volume::default().has_room(), Ok(()));
    }

    #[test]
    fn the_volume_of_a_directory_is_measured() {
        let directory = tempfile::tempdir().expect("a directory");
        let Size { free, all } = size(directory.path()).expect("it is there");
        assert!(0 < free && free <= all);
        assert_eq!(Volume::of(directory.path().join("gone")).has_room(), Ok(()));
    }
}
