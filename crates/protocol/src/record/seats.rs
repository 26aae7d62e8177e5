//! Records of the authorities: who has a seat, what it locked, and what it earned. See
//! [`crate::authority`].

use super::{CLOSING_RING, Key, Record, key};
use crate::{Account, Amount};

/// Epochs whose credits, and faults, wait at the same time.
const RING: usize = CLOSING_RING as usize;

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
        /// Epoch in which a fault of it was first proven: no credits from then on, for ever.
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
