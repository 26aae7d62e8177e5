//! Records of the books: what an epoch adds up to, and how a provider stands.
//!
//! `Settlement` is the row of one provider and epoch; `Closing` gathers an epoch while it is closed,
//! `Books` keeps its outcome for ever, `Peak` the row tree's edge in between. See [`crate::books`].

use super::{Key, Record, key};
use crate::{Account, Amount, Hash};
use commonware_codec::{Buf, Error, FixedSize, Read, Write};

/// Stands for a ratio that was never measured.
pub const UNMEASURED: u64 = u64::MAX;
/// Epochs whose qualities weigh: the least of them counts.
pub const QUALITIES: usize = 8;
/// Epochs that are closed at the same time have a record each in a ring of this many.
pub const CLOSING_RING: u64 = 4;
/// Classes of what is sold: storage, egress, gas.
pub const CLASSES: usize = 3;
/// Storage among the classes.
pub const STORAGE: usize = 0;
/// Egress among the classes.
pub const EGRESS: usize = 1;
/// Gas among the classes.
pub const GAS: usize = 2;

/// A ratio as a row keeps it: parts per billion in four bytes, all ones for one never measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ratio(u32);

impl Ratio {
    /// A ratio that was never measured.
    pub const UNMEASURED: Self = Self(u32::MAX);

    /// From parts per billion; [`UNMEASURED`] and whatever is above all ratios is not measured.
    pub const fn new(ppb: u64) -> Self {
        if ppb < u32::MAX as u64 { Self(ppb as u32) } else { Self::UNMEASURED }
    }

    /// Parts per billion, or [`UNMEASURED`].
    pub const fn ppb(self) -> u64 {
        if self.0 == u32::MAX { UNMEASURED } else { self.0 as u64 }
    }

    /// Parts per billion, if it was measured.
    pub fn measured(self) -> Option<u64> {
        (self != Self::UNMEASURED).then_some(self.ppb())
    }
}

impl Write for Ratio {
    fn write(&self, buf: &mut impl bytes::BufMut) {
        self.0.write(buf);
    }
}
impl FixedSize for Ratio {
    const SIZE: usize = 4;
}
impl Read for Ratio {
    type Cfg = ();
    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
        Ok(Self(u32::read_cfg(buf, &())?))
    }
}

record! {
    /// The row of a provider and an epoch, in a ring of 512: what was settled, then how it was
    /// measured and what it was paid. Complete once [`Books`] of the epoch stand.
    #[derive(Default)]
    13 Settlement (provider: &Account, place: u64) [&provider.0, &place.to_be_bytes()] {
        /// The epoch.
        epoch: u64,
        /// Consumers paid.
        fee: Amount,
        /// Burned of it.
        burn: Amount,
        /// The committee's part.
        committee: Amount,
        /// The provider's part.
        pay: Amount,
        /// The fees at min(price, slow price): what weighs.
        base: Amount,
        /// Egress bytes redeemed.
        egress: u64,
        /// Gas redeemed.
        gas: u64,
        /// Leaf-rounds paid.
        storage: u64,
        /// Value that counterparties signed: vouchers and settled storage.
        signed: Amount,
        /// Claims beyond signatures.
        disputed: Amount,
        /// Reads drawn between the last close and this one.
        reads: u32,
        /// Challenges answered between the last close and this one.
        answers: u32,
        /// Of the newest 64 of its reads, those that were answered and did not pass.
        wrong: u8,
        /// Of the newest 64 of its challenges, those that were answered late or not at all.
        late: u8,
        /// Correct share of each class at the close; not measured if not in this epoch.
        correct: [Ratio; CLASSES],
        /// Available share at the close.
        available: Ratio,
        /// Latency score at the close.
        latency: Ratio,
        /// Quality of the epoch: the least of the measured classes.
        quality: Ratio,
        /// The least quality of the measured epochs among the last eight; 0 when there is none.
        least: Ratio,
        /// floor(base x least / ONE).
        weight: u128,
        /// Its share of the epoch's pool.
        subsidy: Amount,
        /// Score of each class after the epoch; not measured for a class that never was.
        scores: [Ratio; CLASSES],
        /// Auditors that were drawn for it.
        assigned: u8,
        /// Auditors whose reports on it count.
        reported: u8,
    }
}

record! {
    /// The posted price of a class and what moves it. No record yet: the genesis price.
    #[derive(Default)]
    16 Market (class: u8) [&[class]] {
        /// Posted price.
        price: u64,
        /// Slow price.
        slow: u64,
        /// What use beyond the target has added up to.
        excess: u64,
        /// Paid units that have not counted yet.
        bucket: u128,
        /// Capacity of the last epoch that moved it.
        capacity: u128,
        /// Use of that epoch.
        used: u128,
        /// That epoch.
        epoch: u64,
    }
}

record! {
    /// How a provider stands: scores, recent qualities, and what it was warned of.
    17 Standing (account: &Account) [&account.0] {
        /// Epoch of its registration.
        registered: u64,
        /// Score of each class; `UNMEASURED` for a class that was never measured.
        scores: [u64; CLASSES],
        /// Qualities of the last epochs, newest first; `UNMEASURED` ones do not count.
        qualities: [u64; QUALITIES],
        /// Epochs in a row without a drawn read.
        idle: u32,
        /// `Audit::drawn` at the last close.
        drawn_at_close: u32,
        /// `Audit::answered` at the last close.
        answered_at_close: u32,
        /// Low epochs in a row in the correctness of storage.
        low_correct: u8,
        /// Low epochs in a row in the correctness of egress.
        low_egress: u8,
        /// Measured epochs in a row with too few answers on time.
        low_available: u8,
        /// Epoch since which it takes no new agreements for being away; 0 when it does.
        suspended: u64,
        /// Epoch of the last warning; 0 without one.
        warned: u64,
        /// Epoch from which it may leave jail; 0 outside, `u64::MAX` never.
        jailed_until: u64,
        /// Jailings, each within 256 epochs of the one before.
        jailings: u8,
        /// Epoch of the last jailing.
        last_jailed: u64,
        /// Good epochs still needed after jail.
        probation: u8,
        /// The answered share that auditors last agreed on; `UNMEASURED` before the first time.
        answered: u64,
        /// The latency score that auditors last agreed on; 0 before the first time.
        latency: u64,
        /// On-time share of its last 64 challenges at the last close.
        on_time: u64,
        /// Passed share of the answered reads among the last 64 at the last close; `UNMEASURED`
        /// without one.
        proven: u64,
        /// Epochs in a row in which it answered no challenge; the largest number before its first answer.
        silent: u8,
    }
}

record! {
    /// An epoch while it is closed: sums of the first pass, then what the second has paid.
    #[derive(Default)]
    18 Closing (place: u64) [&place.to_be_bytes()] {
        /// The epoch.
        epoch: u64,
        /// Provider indices at its end.
        providers: u32,
        /// Rows complete so far.
        rows: u64,
        /// Sum of burns of settled fees.
        burn: Amount,
        /// Sum of weights.
        weight: u128,
        /// Capacity of each class: leaf-rounds, egress bytes and gas of an epoch.
        capacity: [u128; CLASSES],
        /// Use of each class: leaf-rounds, egress bytes and gas that were paid, of those whose
        /// capacity counts.
        used: [u128; CLASSES],
        /// What the reserve emits.
        emission: Amount,
        /// What the rows share.
        pool: Amount,
        /// Of it, what was taken from the reserve.
        drawn: Amount,
        /// Paid so far.
        paid: Amount,
        /// What the seats share of its fees; zero once shared.
        committee: Amount,
    }
}

record! {
    /// A closed epoch, for ever.
    #[derive(Default)]
    19 Books (epoch: u64) [&epoch.to_be_bytes()] {
        /// The epoch.
        epoch: u64,
        /// Rows.
        rows: u64,
        /// Root over the rows in the order of their indices.
        root: Hash,
        /// Sum of burns of settled fees.
        burn: Amount,
        /// Sum of weights.
        weight: u128,
        /// What the reserve emitted.
        emission: Amount,
        /// What the rows shared.
        pool: Amount,
        /// Of it, what was taken from the reserve.
        drawn: Amount,
        /// What the rows were paid.
        paid: Amount,
        /// The carry after it.
        carry: Amount,
        /// Posted prices that its use led to.
        prices: [u64; CLASSES],
        /// Slow prices with them.
        slow: [u64; CLASSES],
        /// What the seats shared of its fees.
        committee: Amount,
        /// Among how many credits.
        credits: u64,
    }
}

record! {
    /// The edge of a row tree that still grows: the root of 2^level rows.
    #[derive(Default)]
    20 Peak (place: u64, level: u8) [&place.to_be_bytes(), &[level]] {
        /// The node.
        node: Hash,
    }
}

impl Settlement {
    /// The row of `epoch` in its place of the ring: what stands there, or an empty one.
    pub fn of(epoch: u64, found: Option<Self>) -> Self {
        found.filter(|row| row.epoch == epoch).unwrap_or(Self { epoch, ..Self::default() })
    }
}

impl Closing {
    /// Where the closing of `epoch` stands.
    pub fn of(epoch: u64) -> Key {
        Self::key(epoch % CLOSING_RING)
    }
}
