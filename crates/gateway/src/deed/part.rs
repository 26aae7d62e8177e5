//! What is read of a shard, and what came.

use posync_protocol::{AgreementId, Hash, limits::SLICE_BYTES, wire::provider::Get};
use std::time::Duration;

/// What is read of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its name.
    pub name: Hash,
    /// Its bytes in all.
    pub length: u64,
    /// The first byte, a multiple of a slice.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
}

impl Part {
    /// All of a shard.
    pub const fn whole(name: Hash, length: u64) -> Self {
        Self { name, length, offset: 0, bytes: length }
    }

    pub(super) const fn get(&self, agreement: AgreementId) -> Get {
        let length = if self.bytes == self.length { 0 } else { self.bytes };
        Get { agreement, shard: self.name, offset: self.offset, length }
    }

    /// Slices are sent whole, so a part may bring a little more than was asked for.
    pub(super) fn room(&self) -> usize {
        usize::try_from(self.bytes.next_multiple_of(SLICE_BYTES)).unwrap_or(0)
    }
}

/// Verified bytes, and how long they took from the request on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrived {
    /// At least the bytes that were asked for: whole slices.
    pub bytes: Vec<u8>,
    /// Until the first slice.
    pub first: Duration,
    /// Until the last.
    pub whole: Duration,
}
