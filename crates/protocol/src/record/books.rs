//! Records of the epoch accounting: rows, totals and prices of an epoch, and each provider's reputation.
//!
//! `Settlement` is the row of one provider and epoch. `Closing` gathers an epoch while it is closed,
//! `Peak` holds the row tree's edge meanwhile, and `Books` keeps the outcome forever. See
//! [`crate::books`].

use super::{Key, Record, key};
use crate::number::{saturate_u32, wide};
use crate::{Account, Amount, Class, Hash, PerClass, Units};
use commonware_codec::{Buf, Error, FixedSize, Read, Write};

/// Marks a ratio that was never measured.
pub const UNMEASURED: u64 = u64::MAX;
/// Number of past epochs whose qualities are kept; the lowest of them weighs (BK-3).
pub const QUALITIES: usize = 8;
/// Size of the ring of records for epochs that are being closed.
pub const CLOSING_RING: u64 = 4;

/// A ratio as stored in a row: parts per billion in four bytes, all ones if never measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ratio(u32);

impl Ratio {
    /// A ratio that was never measured.
    pub const UNMEASURED: Self = Self(u32::MAX);

    /// From parts per billion. [`UNMEASURED`], and any value that does not fit, becomes unmeasured.
    pub const fn new(ppb: u64) -> Self {
        Self(saturate_u32(ppb))
    }

    /// The ratio in parts per billion, or [`UNMEASURED`].
    pub const fn ppb(self) -> u64 {
        if self.0 == u32::MAX { UNMEASURED } else { wide(self.0) }
    }

    /// The ratio in parts per billion, or `None` if never measured.
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

records! {
    /// The row of one provider and epoch, in a ring of 512: settled fees, then measurements, then pay.
    /// Complete once the epoch's [`Books`] are written.
    #[derive(Default)]
    13 Settlement "settlement" (provider: &Account, place: u64) [&provider.0, &place.to_be_bytes()] {
        /// Epoch that the row belongs to.
        epoch: u64,
        /// Fees that consumers paid.
        fee: Amount,
        /// Part of `fee` that was burned.
        burn: Amount,
        /// Part of `fee` that went to the committee's pool.
        committee: Amount,
        /// Part of `fee` that the provider got.
        #[json("provider_pay")]
        pay: Amount,
        /// The fees at min(price, slow price); the weight is computed from it.
        base: Amount,
        /// Egress and gas redeemed in the epoch.
        #[json(units("egress", "gas"))]
        redeemed: Units,
        /// Storage paid for, in leaf-rounds.
        storage: u64,
        /// Value that counterparties signed: vouchers and settled storage.
        signed: Amount,
        /// Claims beyond signed vouchers (BK-8).
        disputed: Amount,
        /// Reads drawn between the previous close and this one.
        reads: u32,
        /// Challenges answered between the previous close and this one.
        answers: u32,
        /// Reads since the previous close, at most the last 64, that were answered and did not pass.
        wrong: u8,
        /// Challenges since the previous close, at most the last 64, that were answered late or not at all.
        late: u8,
        /// Correct share of each class at the close; unmeasured if not measured in this epoch.
        correct: PerClass<Ratio>,
        /// Availability at the close: the A of SC-1.
        available: Ratio,
        /// Latency score at the close: the L of SC-1.
        latency: Ratio,
        /// Quality of the epoch: the lowest of the measured classes.
        quality: Ratio,
        /// Lowest quality of the measured epochs among the last eight; 0 if none was measured.
        #[json("least_quality")]
        least: Ratio,
        /// Weight in the epoch's pool: floor(base x least / ONE).
        weight: u128,
        /// Share of the epoch's pool that was paid.
        subsidy: Amount,
        /// Score of each class after the epoch; unmeasured if the class never was.
        scores: PerClass<Ratio>,
        /// Number of auditors drawn for the provider.
        #[json("auditors")]
        assigned: u8,
        /// Number of auditors whose reports count.
        #[json("auditors_reported")]
        reported: u8,
    }

    /// The posted price of a class and the state that moves it (MK-2). Without a record the genesis
    /// price holds.
    #[derive(Default)]
    16 Market "market" (class: Class) [&[class.index()]] {
        /// Posted price, in grains per 2^20 units.
        #[json(digits)]
        price: u64,
        /// Slow price, in grains per 2^20 units.
        #[json(digits)]
        slow: u64,
        /// Accumulated use beyond the target, which sets the price.
        #[json(digits)]
        excess: u64,
        /// Paid units that have not counted as use yet.
        bucket: u128,
        /// Capacity in the last epoch that moved the price.
        capacity: u128,
        /// Use that counted in that epoch.
        used: u128,
        /// Last epoch that moved the price.
        epoch: u64,
    }

    #[json("score" = Self::score)]
    /// A provider's reputation: scores, recent qualities, warnings, suspension and jail.
    17 Reputation "reputation" (account: &Account) [&account.0] {
        /// Epoch of the registration.
        registered: u64,
        /// Score of each class; `UNMEASURED` if the class never was measured.
        #[json(ratio)]
        scores: PerClass<u64>,
        /// Qualities of the last epochs, newest first; `UNMEASURED` ones are skipped.
        #[json(ratio)]
        qualities: [u64; QUALITIES],
        /// Number of epochs in a row without a drawn read.
        idle: u32,
        /// `Audit::drawn` at the previous close.
        drawn_at_close: u32,
        /// `Audit::answered` at the previous close.
        answered_at_close: u32,
        /// Number of epochs in a row that were low in the correctness of storage (JL-1).
        low_correct: u8,
        /// Number of epochs in a row that were low in the correctness of egress (JL-1).
        low_egress: u8,
        /// Number of measured epochs in a row that were low in availability (JL-1).
        low_available: u8,
        /// Epoch since which it is suspended and gets no new agreements; 0 if it is not.
        suspended: u64,
        /// Epoch of the last warning; 0 if there was none.
        warned: u64,
        /// Epoch from which it may leave jail; 0 if it is not jailed, `u64::MAX` if it is forever.
        jailed_until: u64,
        /// Number of jailings, each within 256 epochs of the one before.
        jailings: u8,
        /// Epoch of the last jailing.
        last_jailed: u64,
        /// Number of good epochs still needed after jail.
        probation: u8,
        /// Epoch in which it left jail last; 0 before. Earlier epochs count neither against it nor for it.
        released: u64,
        /// Answered share that auditors last agreed on; `UNMEASURED` before the first time.
        #[json(ratio)]
        answered: u64,
        /// Latency score that auditors last agreed on; 0 before the first time.
        latency: u64,
        /// Share of its last 64 challenges that were answered on time, at the previous close.
        #[json(ratio)]
        on_time: u64,
        /// Share of the answered reads among its last 64 that passed, at the previous close;
        /// `UNMEASURED` if none was answered.
        #[json(ratio)]
        proven: u64,
        /// Number of epochs in a row without an answered challenge; the largest `u8` before the first
        /// answer.
        silent: u8,
    }

    /// An epoch while it is closed: totals of the first pass, then those that the second has paid.
    #[derive(Default)]
    18 Closing "closing" (place: u64) [&place.to_be_bytes()] {
        /// Epoch that is closed.
        epoch: u64,
        /// Number of provider indices at the epoch's end.
        providers: u32,
        /// Number of rows that are complete.
        rows: u64,
        /// Sum of the burned parts of settled fees.
        burn: Amount,
        /// Sum of the rows' weights.
        weight: u128,
        /// Capacity of each class in the epoch: leaf-rounds, bytes of egress, gas.
        capacity: PerClass<u128>,
        /// Use of each class in the epoch, in the same units: paid units of those providers whose
        /// capacity counts.
        used: PerClass<u128>,
        /// Emission of the reserve for the epoch: upper bound of the pool.
        emission: Amount,
        /// Pool that the rows share by weight.
        pool: Amount,
        /// Part of the pool that was taken from the reserve.
        drawn: Amount,
        /// Part of the pool that the second pass has paid so far.
        paid: Amount,
        /// Pool of the seats, from the committee's part of fees; zero once it is paid.
        committee: Amount,
    }

    /// The accounts of a closed epoch; kept forever.
    #[derive(Default)]
    19 Books "books" (epoch: u64) [&epoch.to_be_bytes()] {
        /// Epoch that was closed.
        epoch: u64,
        /// Number of rows under the root.
        rows: u64,
        /// Root over the rows in the order of their providers' indices.
        root: Hash,
        /// Sum of the burned parts of settled fees.
        burn: Amount,
        /// Sum of the rows' weights.
        weight: u128,
        /// Emission of the reserve for the epoch: upper bound of the pool.
        emission: Amount,
        /// Pool that the rows shared by weight.
        pool: Amount,
        /// Part of the pool that was taken from the reserve.
        drawn: Amount,
        /// Subsidies paid to all rows.
        paid: Amount,
        /// Carry left for the following epoch.
        carry: Amount,
        /// Posted price of each class that this epoch's use led to.
        #[json(digits)]
        prices: PerClass<u64>,
        /// Slow price of each class that this epoch's use led to.
        #[json(digits)]
        slow: PerClass<u64>,
        /// Pool that the seats shared, from the committee's part of fees.
        committee: Amount,
        /// Number of the seats' credits that shared it.
        credits: u64,
    }

    /// One peak of a row tree that still grows: the root of 2^level rows.
    #[derive(Default)]
    20 Peak "peak" (place: u64, level: u8) [&place.to_be_bytes(), &[level]] {
        /// Hash of the peak.
        node: Hash,
    }
}

encoded! {
    /// A posted price and the slow one that follows it, in grains per 2^20 units; an agreement keeps both.
    #[derive(Copy, Default)]
    Pair {
        /// The price that consumers pay.
        price: u64,
        /// The slow price; the provider's base is at the lower of the two.
        slow: u64,
    }
}

impl Pair {
    /// The price of the provider's base: the lower of the two (ST-3).
    pub const fn base(self) -> u64 {
        if self.price < self.slow { self.price } else { self.slow }
    }
}

impl Settlement {
    /// Units paid for in the epoch: leaf-rounds, bytes of egress, gas.
    pub const fn used(&self) -> PerClass<u64> {
        PerClass::new(self.storage, self.redeemed.egress, self.redeemed.gas)
    }

    /// The row of `epoch`: the one found at its place in the ring, or an empty one if that is older.
    pub fn of(epoch: u64, found: Option<Self>) -> Self {
        found.filter(|row| row.epoch == epoch).unwrap_or(Self { epoch, ..Self::default() })
    }
}

impl Closing {
    /// The key of the record in which `epoch` is closed.
    pub fn of(epoch: u64) -> Key {
        Self::key(epoch % CLOSING_RING)
    }
}
