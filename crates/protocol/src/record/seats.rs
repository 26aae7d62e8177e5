//! Records of the authorities: who has a seat, what it locked, and what it earned. See
//! [`crate::authority`].

use super::{CLOSING_RING, Key, Record, key};
use crate::{
    Account, Amount,
    limits::{EVIDENCE_EPOCHS_MAX, SEATS_MAX},
};

/// Epochs whose credits, and faults, wait at the same time.
const RING: usize = CLOSING_RING as usize;
/// Epochs of which faults are remembered: no evidence is older.
const OFFENCE_RING: u64 = EVIDENCE_EPOCHS_MAX + 2;
/// A bit for each seat.
const SEAT_BYTES: usize = SEATS_MAX as usize / 8;

record! {
    /// An authority's seat.
    21 Seat (account: &Account) [&account.0] {
        /// Its place among the seats.
        index: u32,
        /// Locked money.
        bond: Amount,
        /// Credits of the epochs that are not paid yet, at epoch mod `CLOSING_RING`.
        credits: [u32; RING],
        /// The bond before the slash for a fault in an epoch that is not closed yet, at the same
        /// places; zero without a fault.
        exposed: [Amount; RING],
        /// Height of the block that first proved a fault of it: no credits from then on, for ever,
        /// and soon no leadership and no share of the key (AU-9, AU-10).
        jailed: Option<u64>,
        /// Paid from the committee's pool, in all.
        paid: Amount,
        /// Taken from the bond, in all.
        slashed: Amount,
    }
}

record! {
    /// Who has the seat of an index.
    22 SeatAt (index: u32) [&index.to_be_bytes()] {
        /// The authority.
        account: Account,
    }
}

record! {
    /// Which seats are proven to have signed against themselves in an epoch, in a ring: each is
    /// punished for an epoch once, and all of them together for how many they are.
    #[derive(Default)]
    28 Offences (place: u64) [&place.to_be_bytes()] {
        /// The epoch.
        epoch: u64,
        /// Bit `index` for each seat.
        seats: [u8; SEAT_BYTES],
    }
}

impl Offences {
    /// Where the faults of `epoch` stand.
    pub fn at(epoch: u64) -> Key {
        Self::key(epoch % OFFENCE_RING)
    }

    /// The faults of `epoch` in its place of the ring: what stands there, or none.
    pub fn of(epoch: u64, found: Option<Self>) -> Self {
        found.filter(|offences| offences.epoch == epoch).unwrap_or(Self { epoch, ..Self::default() })
    }

    /// Whether a seat is among them.
    pub fn has(&self, seat: u32) -> bool {
        self.seats.get(seat as usize / 8).is_some_and(|byte| byte >> (seat % 8) & 1 == 1)
    }

    /// Adds a seat; whether it is new and has a place.
    pub fn add(&mut self, seat: u32) -> bool {
        let is_new = !self.has(seat);
        let byte = self.seats.get_mut(seat as usize / 8);
        byte.map(|byte| *byte |= 1 << (seat % 8)).is_some() && is_new
    }

    /// How many seats.
    pub fn count(&self) -> u32 {
        self.seats.iter().map(|byte| byte.count_ones()).sum()
    }
}

impl Seat {
    /// A seat without a past.
    pub const fn new(index: u32, bond: Amount) -> Self {
        Self {
            index,
            bond,
            credits: [0; RING],
            exposed: [Amount::ZERO; RING],
            jailed: None,
            paid: Amount::ZERO,
            slashed: Amount::ZERO,
        }
    }

    /// The place of an epoch's credits and faults.
    pub const fn place(epoch: u64) -> usize {
        (epoch % CLOSING_RING) as usize
    }
}
