//! Records of measured capacity. See [`crate::capacity`].

use super::{Record, key};
use crate::{Account, Hash, Key};

/// Measurements of which the lower median counts.
pub const MEASURED: usize = 3;
/// Slots of epochs have a record each in a ring of this many.
pub const PROBE_RING: u64 = 4;

record! {
    /// What a provider was measured to send: the last three epochs in which it was.
    #[derive(Default)]
    27 Measured (account: &Account) [&account.0] {
        /// Measurements so far, at most three.
        taken: u8,
        /// Their epochs, newest first.
        epochs: [u64; MEASURED],
        /// Bytes an epoch, newest first.
        rates: [u64; MEASURED],
    }
}

record! {
    /// The slot of an epoch in which everybody is measured, and what its peers are drawn from.
    30 Probe (place: u64) [&place.to_be_bytes()] {
        /// The epoch.
        epoch: u64,
        /// Digest of the first seed of the epoch.
        seed: Hash,
        /// Provider indices when it became known.
        providers: u32,
    }
}
