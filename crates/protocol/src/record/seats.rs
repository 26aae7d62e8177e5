//! Records of the authorities: seats, their bonds, credits and faults. See [`crate::authority`].

use super::{CLOSING_RING, Key, Record, key};
use crate::number::{bound, index};
use crate::{
    Account, Amount,
    limits::{EVIDENCE_EPOCHS_MAX, SEATS_MAX},
};

/// Number of epochs whose credits and faults are open at the same time.
const RING: usize = bound(CLOSING_RING);
/// Number of epochs whose faults are remembered; older evidence is refused.
const OFFENCE_RING: u64 = EVIDENCE_EPOCHS_MAX + 2;
/// Size in bytes of a set of seats, one bit each.
const SEAT_BYTES: usize = index(SEATS_MAX) / 8;

records! {
    /// An authority's seat: bond, credits, jail and pay.
    21 Seat "seat" (account: &Account) [&account.0] {
        /// Place of the seat among all seats.
        index: u32,
        /// Money locked as bond.
        bond: Amount,
        /// Credits of the epochs that are not paid yet, at epoch mod `CLOSING_RING`.
        credits: [u32; RING],
        /// Bond before the slash for a fault in an epoch that is not closed yet, at the same places;
        /// zero without a fault.
        exposed: [Amount; RING],
        /// Height of the block that first proved a fault of the seat. From then on it earns no credits,
        /// and soon it leads no block and holds no share of the key (AU-9, AU-10).
        jailed: Option<u64>,
        /// Total paid to it from the committee's pool.
        paid: Amount,
        /// Total taken from its bond.
        slashed: Amount,
    }

    /// The account at a seat's index.
    22 SeatAt "seat at an index" (index: u32) [&index.to_be_bytes()] {
        /// Authority that has the seat.
        account: Account,
    }

    /// Seats that are proved to have equivocated in an epoch, in a ring. Each is slashed once per epoch,
    /// and at the close all of them by their number (AU-6).
    #[derive(Default)]
    28 Offences "offences" (place: u64) [&place.to_be_bytes()] {
        /// Epoch of the faults.
        epoch: u64,
        /// Set of seats: bit `index` for each of them.
        seats: [u8; SEAT_BYTES],
    }
}

impl Offences {
    /// The key of the record of faults in `epoch`.
    pub fn at(epoch: u64) -> Key {
        Self::key(epoch % OFFENCE_RING)
    }

    /// The faults of `epoch`: those found at its place in the ring, or none if they are older.
    pub fn of(epoch: u64, found: Option<Self>) -> Self {
        found.filter(|offences| offences.epoch == epoch).unwrap_or(Self { epoch, ..Self::default() })
    }

    /// True if the seat is in the set.
    pub fn has(&self, seat: u32) -> bool {
        self.seats.get(index(seat) / 8).is_some_and(|byte| byte >> (seat % 8) & 1 == 1)
    }

    /// Adds a seat. Returns true if it is new and its index is in range.
    pub fn add(&mut self, seat: u32) -> bool {
        let is_new = !self.has(seat);
        let byte = self.seats.get_mut(index(seat) / 8);
        byte.map(|byte| *byte |= 1 << (seat % 8)).is_some() && is_new
    }

    /// Number of seats in the set.
    pub fn count(&self) -> u32 {
        self.seats.iter().map(|byte| byte.count_ones()).sum()
    }
}

impl Seat {
    /// A seat with a bond and no history.
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

    /// Place of the epoch in the rings of credits and exposed bonds.
    pub const fn place(epoch: u64) -> usize {
        bound(epoch % CLOSING_RING)
    }
}
