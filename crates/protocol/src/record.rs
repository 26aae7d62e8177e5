//! What the ledger remembers: fixed records of 256 bytes in an authenticated key-value store.
//!
//! Key = SHA-256("posync/record" | kind | id), value = kind, version, the fields in order, zeros.
//! Fixed slots let the engine's own state sync and proofs carry them as they are. State is
//! bounded: every record is paid for by a deposit, a bond or a ring.

use crate::{
    Account, AgreementId, Amount, Bounded, Hash,
    limits::{ADDRESS_BYTES_MAX, ADDRESSES_MAX, ENDING_RING, MISSING_MAX, OPERATOR_BYTES, REGION_BYTES_MAX},
};
use bytes::BufMut;
use commonware_codec::{Copying, EncodeSize, Error, FixedSize, Read, Write};
use commonware_cryptography::{Hasher, Sha256};

/// A record's bytes.
pub type Slot = [u8; 256];

/// A record's place: SHA-256 over its kind and id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub [u8; 32]);

impl Write for Key {
    fn write(&self, buf: &mut impl BufMut) {
        self.0.write(buf);
    }
}
impl FixedSize for Key {
    const SIZE: usize = 32;
}
impl Read for Key {
    type Cfg = ();
    fn read_cfg(buf: &mut impl commonware_codec::Buf, _: &()) -> Result<Self, Error> {
        Ok(Self(<[u8; 32]>::read_cfg(buf, &())?))
    }
}

/// Bytes of a ring of ending epochs.
pub const ENDING_BYTES: usize = ENDING_RING as usize / 8;

/// The format version in every slot's second byte.
pub const VERSION: u8 = 1;

fn key(kind: u8, id: &[&[u8]]) -> Key {
    let (first, second) = (id.first().copied(), id.get(1).copied());
    let digest =
        Sha256::hash(&[b"posync/record", &[kind], first.unwrap_or_default(), second.unwrap_or_default()]);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    Key(bytes)
}

/// The place of the record of that kind ([`Record::KIND`]), given its id's parts in one row.
pub fn place(kind: u8, id: &[u8]) -> Key {
    key(kind, &[id])
}

/// A kind of record: how it becomes a slot and back.
pub trait Record: Write + EncodeSize + Read<Cfg = ()> {
    /// First byte of every slot of this kind.
    const KIND: u8;

    /// The slot's bytes.
    ///
    /// # Panics
    /// If the fields exceed 254 bytes: a bug, caught by the test of each kind's largest value.
    fn to_slot(&self) -> Slot {
        let mut slot = [0; 256];
        let mut rest = &mut slot[..];
        rest.put_u8(Self::KIND);
        rest.put_u8(VERSION);
        self.write(&mut rest);
        slot
    }

    /// Reads a slot of this kind.
    ///
    /// # Errors
    /// Another kind or version, fields that do not decode, or trailing bytes that are not zero.
    fn from_slot(slot: &Slot) -> Result<Self, Error> {
        if slot[0] != Self::KIND || slot[1] != VERSION {
            return Err(Error::Invalid("Slot", "another kind or version"));
        }
        let mut rest = Copying(&slot[2..]);
        let record = Self::read_cfg(&mut rest, &())?;
        let used = 2 + record.encode_size();
        if slot[used..].iter().any(|byte| *byte != 0) {
            return Err(Error::Invalid("Slot", "bytes after the fields"));
        }
        Ok(record)
    }
}

macro_rules! record {
    ($(#[$meta:meta])* $kind:literal $name:ident ($($id:ident : $id_type:ty),*) [$($part:expr),*] { $($(#[$fmeta:meta])* $field:ident : $type:ty,)* }) => {
        encoded! { $(#[$meta])* $name { $($(#[$fmeta])* $field: $type,)* } }
        impl Record for $name { const KIND: u8 = $kind; }
        impl $name {
            /// Where this record stands.
            pub fn key($($id: $id_type),*) -> Key { key($kind, &[$($part),*]) }
        }
    };
}

mod books;
mod capacity;
mod faults;
mod seats;
mod service;

pub use books::*;
pub use capacity::*;
pub use faults::*;
pub use seats::*;
pub use service::*;

record! {
    /// The one record of sums; each money field is part of the conserved total.
    #[derive(Default)]
    0 System () [] {
        /// Height of the block that wrote it.
        height: u64,
        /// Indices given out so far: every provider's index is below this.
        providers: u32,
        /// The first vacant index below `providers`, if one left; the next is in its `ProviderAt`.
        vacant: Option<u32>,
        /// Places in the newcomers' line: they stand in the turn line a second time.
        newcomers: u32,
        /// Open agreements.
        agreements: u64,
        /// Sum of all balances.
        balances: Amount,
        /// Sum of all voucher reserves.
        voucher_reserves: Amount,
        /// Sum of all storage pools of providers.
        storage_pools: Amount,
        /// Sum of all bonds.
        bonds: Amount,
        /// Sum of all deposits.
        deposits: Amount,
        /// Burned so far.
        burned: Amount,
        /// The committee's pool.
        committee: Amount,
        /// What no one has yet: all supply exists at genesis.
        reserve: Amount,
        /// Drawn from the reserve for the subsidy and not yet paid.
        carry: Amount,
        /// Sum of what providers weigh in the fee tree.
        phi: u128,
        /// Next index in turn.
        turn: u64,
        /// Seats of authorities: every seat's index is below this.
        seats: u32,
        /// Sum of the bonds of all seats.
        seat_bonds: Amount,
        /// Base fee of the next block: grains per unit of a paid operation (AC-3).
        base_fee: u64,
    }
}

record! {
    /// An account's money and its next nonce.
    #[derive(Default)]
    1 AccountState (account: &Account) [&account.0] {
        /// The nonce that the next paid operation must carry.
        nonce: u64,
        /// Free money.
        balance: Amount,
    }
}

record! {
    /// What the ledger counts of a provider: its bond, its totals and its storage pool. What it
    /// declares is its [`Offer`].
    #[derive(Default)]
    2 Provider (account: &Account) [&account.0] {
        /// Place in the fee tree and in the turn line.
        index: u32,
        /// Height of the block of its registration: names this life of its account.
        born: u64,
        /// 0 active, else the epoch at which it may end agreements alone.
        leaves_at: u64,
        /// Locked money.
        bond: Amount,
        /// Leaves under contract (quotas).
        sold: u64,
        /// Egress under contract: quotas spread over the epochs of their agreements.
        sold_egress: u64,
        /// Gas under contract; no rule counts it yet.
        sold_gas: u64,
        /// Height of the block that last cut its offer after a signed refusal; 0 without one.
        cut: u64,
        /// Agreements that hold a slot.
        slots: u32,
        /// Leaves of its data sets in force whose agreements have not been crossed as ended.
        leaves: u64,
        /// The slot tree's total: sum of rate x leaves, ended slots included until they are cleared.
        phi: u128,
        /// Sum of rate x leaves over live agreements.
        paid: u128,
        /// The same at min(p, slow p).
        paid_base: u128,
        /// What it weighs in the fee tree: `paid` while awake, 0 asleep.
        weighed: u128,
        /// Prepaid storage, not yet earned.
        pool: Amount,
        /// Sum of rounds x passed x ONE / 4.
        acc: u128,
        /// Round up to which it is settled.
        settled_round: u64,
    }
}

record! {
    /// What a provider declares: any opening within it is accepted.
    37 Offer (account: &Account) [&account.0] {
        /// Declared operator, zero padded UTF-8.
        operator: [u8; OPERATOR_BYTES],
        /// Leaves.
        capacity: u64,
        /// Egress, bytes an epoch.
        capacity_egress: u64,
        /// Gas an epoch; no rule sells by it yet.
        capacity_gas: u64,
        /// Least price for storage.
        reserve_storage: u64,
        /// Least price for egress.
        reserve_egress: u64,
        /// Least price for gas; no rule reads it yet.
        reserve_gas: u64,
        /// Longest agreement, in epochs: for how long it locks its prices.
        term_max: u32,
        /// Region's name.
        region: Bounded<u8, REGION_BYTES_MAX>,
    }
}

encoded! {
    /// A read declared missing, asked again beside the next three challenges.
    #[derive(Copy, Default)]
    Missing {
        /// The agreement's slot.
        slot: u32,
        /// The shard's name.
        shard: Hash,
        /// The chunk within it.
        chunk: u32,
        /// Challenges in which it will still be asked.
        asks_left: u8,
    }
}

encoded! {
    /// An open challenge.
    #[derive(Copy)]
    Challenge {
        /// Height of the block that drew it.
        height: u64,
        /// Digest of the beacon seed that decides its reads.
        seed: Hash,
        /// Drawn in proportion to the storage fee, not in turn.
        by_fee: bool,
    }
}

record! {
    /// A provider's audit state.
    #[derive(Default)]
    3 Audit (account: &Account) [&account.0] {
        /// The challenge that waits for its answer.
        challenge: Option<Challenge>,
        /// Last 64 drawn reads, newest in the lowest bit, 1 = passed.
        history: u64,
        /// Last 64 challenges with reads, 1 = answered on time.
        on_time: u64,
        /// Last 64 drawn reads as in `history`, 1 = nobody answered.
        silent: u64,
        /// Reads drawn in its life.
        drawn: u32,
        /// Settlements in its life.
        settlements: u32,
        /// Challenges closed in its life, as far as it may stand in the line twice.
        closed: u8,
        /// Challenges answered in its life, on time or late.
        answered: u32,
        /// Challenge height last answered or expired.
        last_height: u64,
        /// Reads to be asked again.
        missing: Bounded<Missing, MISSING_MAX>,
    }
}

record! {
    /// Who stands at an index of the fee tree; once it left, a link in the list of vacant indices.
    4 ProviderAt (index: u32) [&index.to_be_bytes()] {
        /// The provider; `None` when it left: a draw that hits this index in turn is lost.
        account: Option<Account>,
        /// The next vacant index, when this one is vacant.
        next_vacant: Option<u32>,
    }
}

/// `host:port`, UTF-8.
pub type Address = Bounded<u8, ADDRESS_BYTES_MAX>;

record! {
    /// Where a provider is reached.
    5 Endpoint (account: &Account) [&account.0] {
        /// Its addresses, the one to try first at the front.
        addresses: Bounded<Address, ADDRESSES_MAX>,
    }
}

record! {
    /// The terms of an agreement; never changes but for the session key.
    6 Agreement (provider: &Account, slot: u32) [&provider.0, &slot.to_be_bytes()] {
        /// Height of the block that opened it.
        opened: u64,
        /// Who pays.
        consumer: Account,
        /// Signs vouchers only.
        session_key: Account,
        /// Signs data sets.
        storage_key: Account,
        /// Last epoch, exclusive: a provider's ending record stands there.
        end_epoch: u64,
        /// Posted storage price at opening.
        storage_price: u64,
        /// Slow storage price at opening.
        storage_slow: u64,
        /// Posted egress price at opening.
        egress_price: u64,
        /// Slow egress price at opening.
        egress_slow: u64,
        /// Posted gas price at opening.
        gas_price: u64,
        /// Slow gas price at opening.
        gas_slow: u64,
        /// Most leaves.
        quota_leaves: u64,
        /// Most egress bytes.
        quota_egress: u64,
        /// Most gas.
        quota_gas: u64,
        /// Egress bytes per round.
        rate_egress: u64,
        /// Gas per round.
        rate_gas: u64,
    }
}

record! {
    /// What was used of an agreement and what is left of its reserves.
    #[derive(Default)]
    7 Use (provider: &Account, slot: u32) [&provider.0, &slot.to_be_bytes()] {
        /// Storage money paid in and not yet charged (a claim on the provider's pool, not money of its own).
        storage_reserve: Amount,
        /// Money that vouchers draw from.
        voucher_reserve: Amount,
        /// Returned when the records go, less what reserving egress and gas cost.
        deposit: Amount,
        /// Egress bytes redeemed.
        egress: u64,
        /// Gas redeemed.
        gas: u64,
        /// The provider's `acc` when this agreement was last charged.
        acc: u128,
        /// Epoch from which a close is in effect for redemption; `None` while open.
        closing_epoch: Option<u64>,
        /// The session key before the last rotation.
        old_session_key: Account,
        /// Epoch until which the old key redeems; 0 when none.
        old_key_until: u32,
        /// Value of accepted vouchers, in all.
        signed: Amount,
        /// Claims beyond signatures, at most `signed`.
        disputed: Amount,
        /// Redeemed egress bytes that back a report of an auditor.
        audited: u64,
        /// Round up to which its unused leaves were charged.
        held_round: u64,
        /// The prices of vouchers since a top-up; `None` while those of the opening hold.
        lock: Option<Lock>,
    }
}

encoded! {
    /// Prices that a top-up locked, and those of what was paid in before it (AG-8).
    #[derive(Copy)]
    Lock {
        /// Posted egress price then.
        egress_price: u64,
        /// Slow egress price then.
        egress_slow: u64,
        /// Posted gas price then.
        gas_price: u64,
        /// Slow gas price then.
        gas_slow: u64,
        /// Cumulative egress bytes up to which the reserve paid when egress rose.
        egress: u64,
        /// Cumulative gas up to which the reserve paid when gas rose.
        gas: u64,
        /// Egress price of the bytes up to `egress`.
        egress_before: u64,
        /// What of it is base.
        egress_base_before: u64,
        /// Gas price of the gas up to `gas`.
        gas_before: u64,
        /// What of it is base.
        gas_base_before: u64,
    }
}

encoded! {
    /// A version of an agreement's data set.
    #[derive(Copy, Default)]
    Version {
        /// Above that of every set before it.
        version: u64,
        /// Root of the Merkle-sum tree.
        root: Hash,
        /// Chunks in all.
        leaves: u64,
        /// Bytes in all.
        bytes: u64,
        /// The provider's settlement count when a set of at least as many leaves as before last took
        /// effect; in `next` nothing reads it.
        grown_at: u32,
    }
}

record! {
    /// What an agreement's provider holds, and what it will hold from the next settled point on.
    #[derive(Default)]
    8 DataSet (provider: &Account, slot: u32) [&provider.0, &slot.to_be_bytes()] {
        /// In force: draws read here.
        current: Version,
        /// Waits while a challenge is pending.
        next: Option<Version>,
    }
}

record! {
    /// A Fenwick node over a provider's slots: sums of rate x leaves.
    9 SlotTree (provider: &Account, node: u32) [&provider.0, &node.to_be_bytes()] {
        /// The partial sum.
        sum: u128,
    }
}

record! {
    /// A Fenwick node over provider indices: sums of what they weigh.
    10 FeeTree (node: u32) [&node.to_be_bytes()] {
        /// The partial sum.
        sum: u128,
    }
}

record! {
    /// What ends for a provider at an epoch.
    #[derive(Default)]
    11 Ending (provider: &Account, epoch: u64) [&provider.0, &epoch.to_be_bytes()] {
        /// Rate x leaves that ends.
        paid: u128,
        /// The same at the base price.
        paid_base: u128,
        /// Leaves that end.
        leaves: u64,
        /// The provider's `acc` at that epoch's end, once crossed.
        acc: Option<u128>,
        /// Agreements that end then; the record goes with the last one.
        agreements: u32,
    }
}

record! {
    /// Epochs at which something that is paid for ends, not crossed yet: who settles can tell that
    /// none was left out, without a look at every epoch.
    15 Endings (provider: &Account) [&provider.0] {
        /// Every ending up to this epoch was crossed.
        crossed: u64,
        /// Bit `epoch mod ENDING_RING` for each of the next `ENDING_RING` epochs.
        bits: [u8; ENDING_BYTES],
    }
}

record! {
    /// A round's anchor and how its draws by fee were answered, in a ring.
    #[derive(Default)]
    12 RoundInfo (place: u64) [&place.to_be_bytes()] {
        /// The round.
        round: u64,
        /// Digest of the parent of its first block.
        anchor: Hash,
        /// Challenges that its draws by fee opened.
        drawn: u32,
        /// Of them, those answered on time.
        on_time: u32,
    }
}

record! {
    /// The newcomers' line: the account at a place below `System::newcomers`.
    ///
    /// Registration appends. A draw that hits a place whose provider left or has had its 64 reads
    /// moves the last entry there (both keys follow from `System` alone), so that graduating
    /// never needs a record that the operation could not name.
    14 Newcomer (place: u32) [&place.to_be_bytes()] {
        /// The provider.
        account: Account,
        /// [`Provider::born`] of the life that stands in the line.
        born: u64,
    }
}

impl Agreement {
    /// The id of this agreement at its place.
    pub const fn id(&self, provider: Account, slot: u32) -> AgreementId {
        AgreementId { provider, slot, opened: self.opened }
    }
}

impl Endings {
    /// Nothing ends after `crossed`.
    pub const fn new(crossed: u64) -> Self {
        Self { crossed, bits: [0; ENDING_BYTES] }
    }

    /// The epochs to cross up to and including `last`, ascending.
    pub fn due(&self, last: u64) -> impl Iterator<Item = u64> {
        let last = last.min(self.crossed.saturating_add(ENDING_RING));
        (self.crossed.saturating_add(1)..=last).filter(|epoch| {
            let (byte, bit) = Self::place(*epoch);
            self.bits[byte] & bit != 0
        })
    }

    /// Something ends at `epoch`; `None` outside the ring.
    pub fn set(&mut self, epoch: u64) -> Option<()> {
        let ahead = epoch.checked_sub(self.crossed)?;
        (ahead > 0 && ahead <= ENDING_RING).then_some(())?;
        let (byte, bit) = Self::place(epoch);
        self.bits[byte] |= bit;
        Some(())
    }

    /// Everything up to `last` was crossed.
    pub fn cross(&mut self, last: u64) {
        let due: alloc::vec::Vec<u64> = self.due(last).collect();
        for epoch in due {
            let (byte, bit) = Self::place(epoch);
            self.bits[byte] &= !bit;
        }
        self.crossed = self.crossed.max(last);
    }

    const fn place(epoch: u64) -> (usize, u8) {
        let at = epoch % ENDING_RING;
        ((at / 8) as usize, 1 << (at % 8))
    }
}
