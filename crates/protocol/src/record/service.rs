//! Records of the service audits: an epoch's draws, auditors' commitments and their reports. See
//! [`crate::service`].

use super::{CLOSING_RING, Key, Record, key};
use crate::number::{count, saturate_u32};
use crate::{
    Account, Bounded, Hash,
    limits::{AUDITORS_MAX, REPORTS_PER_PART},
};

records! {
    /// An epoch's service audit: the inputs from which all its draws follow (SQ-1).
    24 ServiceRound "service audit" (place: u64) [&place.to_be_bytes()] {
        /// Epoch that is audited.
        epoch: u64,
        /// Digest of the seed in the epoch's first block that carries one.
        seed: Hash,
        /// Number of provider indices at that block.
        providers: u32,
        /// Number of seats at that block.
        seats: u32,
    }

    /// An auditor's commitment to its reports of an epoch (SQ-3).
    25 Commitment "commitment" (seat: &Account, place: u64) [&seat.0, &place.to_be_bytes()] {
        /// Epoch that the reports cover.
        epoch: u64,
        /// Digest of all reports and a secret.
        digest: Hash,
    }

    /// Revealed reports on a provider until the close, ascending by auditor.
    26 Reports "reports" (provider: &Account, part: u32) [&provider.0, &part.to_be_bytes()] {
        /// Epoch that the reports cover.
        epoch: u64,
        /// One finding per auditor.
        findings: Bounded<Finding, REPORTS_PER_PART>,
    }
}

encoded! {
    #[json]
    /// One auditor's measurements, as kept for the verdict.
    #[derive(Copy)]
    Finding {
        /// Number of the auditor among those drawn for the provider.
        auditor: u8,
        /// Reads that the auditor requested.
        asked: u16,
        /// Reads that were answered in time.
        answered: u16,
        /// Reads whose bytes verified.
        correct: u16,
        /// Latency band of the answered reads.
        #[json("latency_band")]
        latency: u8,
        /// Throughput band of the answered reads.
        #[json("throughput_band")]
        throughput: u8,
    }
}

/// Number of records that hold the reports on one provider.
pub const REPORT_PARTS: usize = AUDITORS_MAX.div_ceil(REPORTS_PER_PART);

impl ServiceRound {
    /// The key of the record for `epoch`.
    pub fn of(epoch: u64) -> Key {
        Self::key(epoch % CLOSING_RING)
    }
}

impl Commitment {
    /// The key of the commitment of `seat` for `epoch`.
    pub fn of(seat: &Account, epoch: u64) -> Key {
        Self::key(seat, epoch % CLOSING_RING)
    }
}

impl Reports {
    /// The key of the record that holds this auditor's report on the provider for `epoch`.
    pub fn of(provider: &Account, epoch: u64, auditor: u8) -> Key {
        Self::part(provider, epoch, usize::from(auditor) / REPORTS_PER_PART)
    }

    /// The keys of all records that hold reports on `provider` for `epoch`.
    pub fn parts(provider: &Account, epoch: u64) -> impl Iterator<Item = Key> + '_ {
        (0..REPORT_PARTS).map(move |part| Self::part(provider, epoch, part))
    }

    fn part(provider: &Account, epoch: u64, part: usize) -> Key {
        let ring = epoch % CLOSING_RING;
        Self::key(provider, saturate_u32(ring * count(REPORT_PARTS) + count(part)))
    }
}
