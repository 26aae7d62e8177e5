//! Records of the service audits: whom an epoch draws, what auditors committed to and reported. See
//! [`crate::service`].

use super::{CLOSING_RING, Key, Record, key};
use crate::{
    Account, Bounded, Hash,
    limits::{AUDITORS_MAX, REPORTS_PER_PART},
};

record! {
    /// Whom an epoch's service audit draws: everything that the draws follow from.
    24 ServiceRound (place: u64) [&place.to_be_bytes()] {
        /// The epoch.
        epoch: u64,
        /// Digest of the seed of the first block of the epoch that carries one.
        seed: Hash,
        /// Provider indices at that block.
        providers: u32,
        /// Seats at that block.
        seats: u32,
    }
}

record! {
    /// What an auditor committed to for an epoch.
    25 Commitment (seat: &Account, place: u64) [&seat.0, &place.to_be_bytes()] {
        /// The epoch.
        epoch: u64,
        /// The digest.
        digest: Hash,
    }
}

encoded! {
    /// A report that counts.
    #[derive(Copy)]
    Finding {
        /// Which of the provider's auditors reported.
        auditor: u8,
        /// Reads asked for.
        asked: u16,
        /// Reads answered in time.
        answered: u16,
        /// Reads whose bytes verified.
        correct: u16,
        /// Latency band.
        latency: u8,
        /// Throughput band.
        throughput: u8,
    }
}

record! {
    /// The reports on a provider between their reveal and the close, by auditor.
    26 Reports (provider: &Account, part: u32) [&provider.0, &part.to_be_bytes()] {
        /// The epoch.
        epoch: u64,
        /// The reports.
        findings: Bounded<Finding, REPORTS_PER_PART>,
    }
}

/// Records that hold the reports on one provider.
pub const REPORT_PARTS: usize = AUDITORS_MAX.div_ceil(REPORTS_PER_PART);

impl ServiceRound {
    /// Where the round of `epoch` stands.
    pub fn of(epoch: u64) -> Key {
        Self::key(epoch % CLOSING_RING)
    }
}

impl Commitment {
    /// Where the commitment of `seat` for `epoch` stands.
    pub fn of(seat: &Account, epoch: u64) -> Key {
        Self::key(seat, epoch % CLOSING_RING)
    }
}

impl Reports {
    /// Where a report of this auditor of the provider stands, for `epoch`.
    pub fn of(provider: &Account, epoch: u64, auditor: u8) -> Key {
        Self::part(provider, epoch, usize::from(auditor) / REPORTS_PER_PART)
    }

    /// Where all reports on `provider` for `epoch` stand.
    pub fn parts(provider: &Account, epoch: u64) -> impl Iterator<Item = Key> + '_ {
        (0..REPORT_PARTS).map(move |part| Self::part(provider, epoch, part))
    }

    fn part(provider: &Account, epoch: u64, part: usize) -> Key {
        let ring = epoch % CLOSING_RING;
        Self::key(provider, (ring * REPORT_PARTS as u64) as u32 + part as u32)
    }
}
