//! Records of measured capacity. See [`crate::capacity`].

use super::{Record, key};
use crate::{Account, Hash, Key};

/// Number of measurements kept; their lower median counts (CP-4).
pub const MEASURED: usize = 3;
/// Size of the ring of records for the windows of epochs.
pub const PROBE_RING: u64 = 4;

records! {
    #[json("epochs" = crate::json::epochs_of, "bytes_per_epoch" = crate::json::rates_of, "median" = Self::median)]
    /// A provider's measured egress, from the last three epochs in which it was measured.
    #[derive(Default)]
    27 Measured "measured" (account: &Account) [&account.0] {
        /// Number of measurements so far, at most three.
        #[json(skip)]
        taken: u8,
        /// Epochs of the measurements, newest first.
        #[json(skip)]
        epochs: [u64; MEASURED],
        /// Measured rates in bytes per epoch, newest first.
        #[json(skip)]
        rates: [u64; MEASURED],
    }

    /// The window of an epoch in which all providers are measured: the inputs of its draws (CP-1).
    30 Probe "probe" (place: u64) [&place.to_be_bytes()] {
        /// Epoch of the window.
        epoch: u64,
        /// Digest of the epoch's first seed.
        seed: Hash,
        /// Number of provider indices when the seed became known.
        providers: u32,
    }
}
