//! The range of a shard that a read asks for, and the verified bytes that arrive.

use posync_protocol::{AgreementId, Hash, limits::SLICE_BYTES, wire::provider::Get};
use std::time::Duration;

/// A range of a shard to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// BLAKE3 name of the shard.
    pub name: Hash,
    /// Bytes of the whole shard.
    pub length: u64,
    /// Offset of the first byte, a multiple of [`SLICE_BYTES`].
    pub offset: u64,
    /// Number of bytes to read.
    pub bytes: u64,
}

impl Part {
    /// The range that covers a whole shard.
    pub(crate) const fn whole(name: Hash, length: u64) -> Self {
        Self { name, length, offset: 0, bytes: length }
    }

    pub(super) const fn get(&self, agreement: AgreementId) -> Get {
        let length = if self.bytes == self.length { 0 } else { self.bytes };
        Get { agreement, shard: self.name, offset: self.offset, length }
    }

    /// Capacity for the bytes that arrive: slices are sent whole, so they may exceed the range.
    pub(super) fn room(&self) -> usize {
        usize::try_from(self.bytes.next_multiple_of(SLICE_BYTES)).unwrap_or(0)
    }
}

/// Verified bytes, and the times from the request to their arrival.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrived {
    /// The bytes asked for, rounded up to whole slices.
    pub bytes: Vec<u8>,
    /// Time until the first slice.
    pub first: Duration,
    /// Time until the last slice.
    pub whole: Duration,
}
