//! Records of the ledger: fixed slots of 256 bytes in an authenticated key-value store.
//!
//! Key = SHA-256("posync/record" | kind | id); value = kind, version, the fields in order, zeros.
//! Because slots have a fixed size, the engine's state sync and its proofs carry them unchanged. State
//! is bounded: each record is paid for by a deposit or a bond, or is part of a ring.

use crate::number::bound;
use crate::{
    Account, AgreementId, Amount, Bounded, Hash, Metered, PerClass, Units,
    limits::{ADDRESS_BYTES_MAX, ADDRESSES_MAX, ENDING_RING, MISSING_MAX, OPERATOR_BYTES, REGION_BYTES_MAX},
};
use bytes::BufMut;
use commonware_codec::{Copying, EncodeSize, Error, FixedSize, Read, Write};
use commonware_cryptography::{Hasher, Sha256};

/// Encoded value of a record, padded with zeros.
pub type Slot = [u8; 256];

/// Key of a record in the store: SHA-256 over its kind and id.
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

/// Size in bytes of the ring of bits for ending epochs.
pub const ENDING_BYTES: usize = bound(ENDING_RING) / 8;

/// Format version, the second byte of every slot.
pub const VERSION: u8 = 1;

fn key(kind: u8, id: &[&[u8]]) -> Key {
    let (first, second) = (id.first().copied(), id.get(1).copied());
    let digest =
        Sha256::hash(&[b"posync/record", &[kind], first.unwrap_or_default(), second.unwrap_or_default()]);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    Key(bytes)
}

/// The key of a record of kind [`Record::KIND`] whose id's parts are concatenated in `id`.
pub fn place(kind: u8, id: &[u8]) -> Key {
    key(kind, &[id])
}

/// A kind of record, with its encoding as a slot.
pub trait Record: Write + EncodeSize + Read<Cfg = ()> {
    /// The first byte of every slot of this kind.
    const KIND: u8;

    /// Encodes the record as a slot.
    ///
    /// # Panics
    /// If the fields exceed 254 bytes. That is a bug; a test of each kind's largest value catches it.
    fn to_slot(&self) -> Slot {
        let mut slot = [0; 256];
        let mut rest = &mut slot[..];
        rest.put_u8(Self::KIND);
        rest.put_u8(VERSION);
        self.write(&mut rest);
        slot
    }

    /// Decodes a slot of this kind.
    ///
    /// # Errors
    /// Another kind or version, fields that do not decode, or trailing bytes other than zero.
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

/// Declares a record: its kind, its id, the parts of its key, and its fields with their JSON form (`json.rs`).
/// `#[json("name" = function)]` before its documentation adds an entry that is computed from the record.
macro_rules! record {
    (#[json($($extra:tt)*)] $(#[$meta:meta])* $kind:literal $name:ident $id:tt $parts:tt $fields:tt) => {
        encoded! { #[json($($extra)*)] $(#[$meta])* $name $fields }
        record! { @key $kind $name $id $parts }
    };
    ($(#[$meta:meta])* $kind:literal $name:ident $id:tt $parts:tt $fields:tt) => {
        encoded! { #[json] $(#[$meta])* $name $fields }
        record! { @key $kind $name $id $parts }
    };
    (@key $kind:literal $name:ident ($($id:ident : $id_type:ty),*) [$($part:expr),*]) => {
        impl Record for $name { const KIND: u8 = $kind; }
        impl $name {
            /// The key of the record with this id.
            pub fn key($($id: $id_type),*) -> Key { key($kind, &[$($part),*]) }
        }
    };
}

/// Declares the kinds of records of a file, each as [`record!`] and with a name for users: `number Type "name"
/// (id) [parts] { fields }`. The functions about a record whose kind is known only from its slot follow.
macro_rules! records {
    ($(
        $(#[$($attribute:tt)*])* $kind:literal $name:ident $text:literal $id:tt $parts:tt $fields:tt
    )*) => {
        $(record! { $(#[$($attribute)*])* $kind $name $id $parts $fields })*

        /// The name of the kind of a record that this file declares; `None` for others and for what does not
        /// decode.
        #[cfg(feature = "serde")]
        pub(crate) fn name_of(slot: &crate::Slot) -> Option<&'static str> {
            use crate::record::Record as _;
            match slot[0] {
                $($kind => $name::from_slot(slot).ok().map(|_| $text),)*
                _ => None,
            }
        }

        /// Writes a record that this file declares as JSON; returns `to` for others.
        #[cfg(feature = "serde")]
        pub(crate) fn serialize<S: serde::Serializer>(
            slot: &crate::Slot,
            to: S,
        ) -> Result<Result<S::Ok, S::Error>, S> {
            use crate::record::Record as _;
            match slot[0] {
                $($kind => Ok($name::from_slot(slot)
                    .map_err(serde::ser::Error::custom)
                    .and_then(|record| serde::Serialize::serialize(&record, to))),)*
                _ => Err(to),
            }
        }
    };
}

mod books;
mod capacity;
mod faults;
mod nodes;
mod seats;
mod service;

pub use books::*;
pub use capacity::*;
pub use faults::*;
pub use nodes::*;
pub use seats::*;
pub use service::*;

records! {
    /// The ledger's totals, a single record. Each money field is part of the conserved sum (LE-5).
    #[derive(Default)]
    0 System "system" () [] {
        /// Height of the block that wrote it.
        height: u64,
        /// Provider indices given out so far: every index is below this.
        providers: u32,
        /// First vacant index below `providers`, if a provider left. Its `ProviderAt` names the next
        /// one.
        vacant: Option<u32>,
        /// Length of the newcomers' line: their second places in the turn line (DR-3).
        newcomers: u32,
        /// Number of agreements that hold a slot.
        agreements: u64,
        /// Sum of the balances of all accounts.
        balances: Amount,
        /// Sum of the voucher reserves of all agreements.
        voucher_reserves: Amount,
        /// Sum of the storage pools of all providers.
        storage_pools: Amount,
        /// Sum of the bonds of all providers.
        bonds: Amount,
        /// Sum of the deposits of all agreements and of all listed nodes.
        deposits: Amount,
        /// Money burned since genesis.
        burned: Amount,
        /// Fees collected for the seats and not yet paid out.
        committee: Amount,
        /// Supply that was not emitted yet: all of it exists at genesis.
        reserve: Amount,
        /// Money drawn from the reserve for the subsidy and not yet paid out.
        carry: Amount,
        /// Sum of the weights of all providers in the fee tree: phi of a draw by fee (DR-3).
        #[json("phi")]
        fee_weight: u128,
        /// Position in the turn line of the next draw in turn.
        turn: u64,
        /// Number of authorities' seats: every seat's index is below this.
        seats: u32,
        /// Sum of the bonds of all seats.
        seat_bonds: Amount,
        /// Base fee of the next block, in grains per unit of a paid operation (AC-3).
        #[json(money)]
        base_fee: u64,
    }

    /// An account's balance and next nonce.
    #[derive(Default)]
    1 AccountState "account" (account: &Account) [&account.0] {
        /// The nonce that the next paid operation must carry.
        nonce: u64,
        /// Money that is not locked anywhere.
        balance: Amount,
    }

    /// A provider as the ledger counts it: bond, totals and storage pool. Its declarations are in
    /// [`Offer`].
    #[derive(Default)]
    2 Provider "provider" (account: &Account) [&account.0] {
        /// Index in the fee tree and in the turn line.
        index: u32,
        /// Height of the block of its registration; distinguishes registrations of one account.
        born: u64,
        /// Epoch from which it may end agreements alone, after its notice; 0 while it is active.
        leaves_at: u64,
        /// Money locked as bond.
        bond: Amount,
        /// Units under contract: leaves, the sum of the agreements' quotas; egress bytes and gas per epoch,
        /// quotas spread over the epochs of their agreements (CP-5).
        #[json(units("sold", "sold_egress", "sold_gas"))]
        sold: PerClass<u64>,
        /// Height of the block that last lowered its offer after a signed refusal; 0 if none did.
        cut: u64,
        /// Number of agreements that hold a slot.
        slots: u32,
        /// Leaves in force, without those of agreements whose end was crossed.
        leaves: u64,
        /// Total of its slot tree, phi in RD-12: sum of rate x leaves, with ended slots until they are cleared.
        #[json("phi")]
        slot_weight: u128,
        /// Sum of rate x leaves over live agreements.
        paid: u128,
        /// The same sum at min(price, slow price).
        paid_base: u128,
        /// Its weight in the fee tree: `paid` while awake, 0 while asleep (DR-6).
        weighed: u128,
        /// Prepaid storage money that it has not earned yet.
        pool: Amount,
        /// Accumulated pay per unit of rate x leaves: sum of rounds x passed x ONE / 4 (ST-4).
        acc: u128,
        /// Round up to which storage is settled.
        settled_round: u64,
    }

    /// A provider's declared offer: any opening within it is accepted.
    37 Offer "offer" (account: &Account) [&account.0] {
        /// Declared operator, zero padded UTF-8.
        #[json(text)]
        operator: [u8; OPERATOR_BYTES],
        /// Capacity offered: leaves, egress bytes per epoch, gas per epoch.
        #[json(units("capacity", "capacity_egress", "capacity_gas"))]
        capacity: PerClass<u64>,
        /// Lowest price of each class at which it sells.
        #[json(prices("reserve_storage", "reserve_egress", "reserve_gas"))]
        reserve: PerClass<u64>,
        /// Longest agreement in epochs, and so the longest time for which it locks its prices.
        term_max: u32,
        /// Name of its region, UTF-8.
        region: Bounded<u8, REGION_BYTES_MAX>,
    }

    /// A provider's open challenge and the history of its reads.
    #[derive(Default)]
    3 Audit "audit" (account: &Account) [&account.0] {
        /// The open challenge, if any.
        #[json(drawn_at)]
        challenge: Option<Challenge>,
        /// Last 64 drawn reads, newest in the lowest bit; 1 = passed.
        #[json(bits)]
        history: u64,
        /// Last 64 challenges with reads, newest in the lowest bit; 1 = answered on time.
        #[json(bits)]
        on_time: u64,
        /// Last 64 drawn reads, aligned with `history`; 1 = the challenge was not answered.
        #[json(bits)]
        silent: u64,
        /// Reads drawn since registration, without excused ones (NF-3).
        drawn: u32,
        /// Challenges with reads that were closed since registration; data sets count their growth by
        /// it.
        settlements: u32,
        /// Challenges closed since registration, counted up to [`crate::limits::NEWCOMER_CLOSED`].
        closed: u8,
        /// Challenges answered since registration, on time or late, without excused ones that had reads.
        answered: u32,
        /// Height of the challenge that was last answered or expired.
        last_height: u64,
        /// Reads declared missing, to be asked again.
        #[json(count)]
        missing: Bounded<Missing, MISSING_MAX>,
    }

    /// The provider at an index of the fee tree. After it left, a link in the list of vacant indices.
    4 ProviderAt "provider at an index" (index: u32) [&index.to_be_bytes()] {
        /// The provider; `None` if it left. A draw in turn that hits a vacant index is lost.
        account: Option<Account>,
        /// Next vacant index, if this one is vacant and not the last.
        next_vacant: Option<u32>,
    }

    /// The addresses at which clients reach a provider.
    5 Endpoint "endpoint" (account: &Account) [&account.0] {
        /// Addresses, the one to try first at the front.
        #[json("address", first)]
        #[json("addresses")]
        addresses: Bounded<Address, ADDRESSES_MAX>,
    }

    /// The terms of an agreement. Only the session key ever changes.
    6 Agreement "agreement" (provider: &Account, slot: u32) [&provider.0, &slot.to_be_bytes()] {
        /// Height of the block that opened it.
        opened: u64,
        /// Account that opened the agreement and pays it.
        consumer: Account,
        /// Key that signs vouchers and nothing else.
        session_key: Account,
        /// Key that signs data sets.
        storage_key: Account,
        /// Epoch in which it ends, exclusive; key of the provider's ending record.
        end_epoch: u64,
        /// Posted and slow price of each class at the opening.
        #[json(prices("storage_price", "storage_slow", "egress_price", "egress_slow", "gas_price", "gas_slow"))]
        prices: PerClass<Pair>,
        /// Quotas: leaves held at once, egress bytes and gas over the whole term.
        #[json(units("quota_leaves", "quota_egress", "quota_gas"))]
        quota: PerClass<u64>,
        /// Rate caps, in egress bytes and gas per round.
        #[json(units("rate_egress", "rate_gas"))]
        rate: Units,
    }

    /// The use of an agreement so far, and the rest of its reserves.
    #[derive(Default)]
    7 Usage "usage" (provider: &Account, slot: u32) [&provider.0, &slot.to_be_bytes()] {
        /// Prepaid storage money, not yet charged: a claim on the provider's pool, not money of its own.
        storage_reserve: Amount,
        /// Money from which vouchers are paid.
        voucher_reserve: Amount,
        /// Returned when the records are deleted, less the cost of reserved egress and gas (AG-7).
        deposit: Amount,
        /// Egress and gas redeemed so far.
        #[json(units("egress", "gas"))]
        redeemed: Units,
        /// The provider's `acc` at the last charge of this agreement.
        acc: u128,
        /// After a close by one party, epoch from which nothing can be redeemed; `None` while open.
        closing_epoch: Option<u64>,
        /// Session key before the last rotation.
        old_session_key: Account,
        /// Epoch from which the old key no longer redeems; 0 if there was no rotation.
        old_key_until: u32,
        /// Value of all accepted vouchers.
        signed: Amount,
        /// Claims beyond signed vouchers, at most `signed` (BK-8).
        disputed: Amount,
        /// Part of the redeemed egress, in bytes, that backs auditors' reports (SQ-5).
        audited: u64,
        /// Round up to which unused leaves were charged (AG-7).
        held_round: u64,
        /// Voucher prices since a top-up raised them; `None` while those of the opening hold.
        lock: Option<Lock>,
    }

    /// An agreement's data set in force, and the one that takes effect at the next settled point (DS-4).
    #[derive(Default)]
    8 DataSet "data set" (provider: &Account, slot: u32) [&provider.0, &slot.to_be_bytes()] {
        /// The version in force, which draws read.
        current: Version,
        /// Version that waits for a settled point, if any.
        next: Option<Version>,
    }

    /// A Fenwick node over the places of a provider's slot tree: a partial sum of rate x leaves.
    9 SlotTree "node of a slot tree" (provider: &Account, node: u32) [&provider.0, &node.to_be_bytes()] {
        /// Partial sum that the node covers.
        sum: u128,
    }

    /// A Fenwick node over provider indices: a partial sum of their weights.
    10 FeeTree "node of the fee tree" (node: u32) [&node.to_be_bytes()] {
        /// Partial sum that the node covers.
        sum: u128,
    }

    /// Totals of a provider's agreements that end in one epoch (ST-5).
    #[derive(Default)]
    11 Ending "ending" (provider: &Account, epoch: u64) [&provider.0, &epoch.to_be_bytes()] {
        /// Rate x leaves of those agreements.
        paid: u128,
        /// The same at min(price, slow price).
        paid_base: u128,
        /// Leaves of those agreements.
        leaves: u64,
        /// The provider's `acc` at the end of that epoch; `None` until the ending is crossed.
        acc: Option<u128>,
        /// Number of those agreements; the record is deleted with the last one.
        agreements: u32,
    }

    /// Epochs with an ending that was not crossed yet. A settlement proves with this one record that it
    /// omits none (ST-5).
    15 Endings "endings" (provider: &Account) [&provider.0] {
        /// Epoch up to which every ending was crossed.
        crossed: u64,
        /// Bit `epoch mod ENDING_RING` for each of the next `ENDING_RING` epochs.
        bits: [u8; ENDING_BYTES],
    }

    /// A round's anchor, and the count of answers to its draws by fee. Kept in a ring.
    #[derive(Default)]
    12 RoundInfo "round" (place: u64) [&place.to_be_bytes()] {
        /// Number of the round.
        round: u64,
        /// The round's anchor: digest of the parent of its first block.
        anchor: Hash,
        /// Challenges opened by draws in proportion to the fee.
        drawn: u32,
        /// Those of them that were answered on time.
        on_time: u32,
    }

    /// One place in the newcomers' line, below `System::newcomers`.
    ///
    /// Registration appends a place. A draw that hits a place whose provider left or is no longer a
    /// newcomer moves the last entry there. Both keys follow from `System` alone, so this never needs a
    /// record that the operation could not name.
    14 Newcomer "newcomer" (place: u32) [&place.to_be_bytes()] {
        /// Provider that has this place.
        account: Account,
        /// [`Provider::born`] of the registration that has this place.
        born: u64,
    }
}

encoded! {
    #[json]
    /// A read that was declared missing and is asked again beside the next three challenges (RD-7).
    #[derive(Copy, Default)]
    Missing {
        /// Slot of the agreement.
        slot: u32,
        /// Name of the shard: its plain BLAKE3 hash.
        shard: Hash,
        /// Number of the leaf within the shard.
        #[json("chunk")]
        leaf: u32,
        /// Number of challenges that will still ask for it.
        asks_left: u8,
    }
}

encoded! {
    #[json]
    /// A challenge that waits for its answer.
    #[derive(Copy)]
    Challenge {
        /// Height of the block that drew it.
        height: u64,
        /// Digest of the beacon seed that decides its reads.
        seed: Hash,
        /// True if drawn in proportion to the fee, false if drawn in turn.
        by_fee: bool,
    }
}

/// Address of a service as `host:port`, UTF-8.
pub type Address = Bounded<u8, ADDRESS_BYTES_MAX>;

encoded! {
    /// The price of the units that were paid in for before a top-up.
    #[derive(Copy)]
    Before {
        /// Price that the consumer pays, in grains per 2^20 units.
        price: u64,
        /// Part of `price` that counts as base (ST-3).
        base: u64,
    }
}

encoded! {
    #[json]
    /// Voucher prices that a top-up locked, and the earlier ones up to the boundaries (AG-8).
    #[derive(Copy)]
    Lock {
        /// Posted and slow prices that were locked.
        #[json(prices("egress_price", "egress_slow", "gas_price", "gas_slow"))]
        prices: Metered<Pair>,
        /// Boundaries: cumulative units that the reserve covered before the raise.
        #[json(units("egress", "gas"))]
        from: Units,
        /// Prices up to the boundaries.
        #[json(prices("egress_before", "egress_base_before", "gas_before", "gas_base_before"))]
        before: Metered<Before>,
    }
}

encoded! {
    #[json]
    /// A version of an agreement's data set.
    #[derive(Copy, Default)]
    Version {
        /// Version number, above those of all sets before it.
        version: u64,
        /// Root of the Merkle-sum tree; zeros if empty.
        root: Hash,
        /// Size in leaves of 1 KiB.
        leaves: u64,
        /// Size in bytes, at most `leaves` x 1 KiB.
        bytes: u64,
        /// `Audit::settlements` when a set of at least as many leaves as its predecessor last took
        /// effect; not read in `next`.
        grown_at: u32,
    }
}

impl Agreement {
    /// The id of this agreement, given its provider and slot.
    pub const fn id(&self, provider: Account, slot: u32) -> AgreementId {
        AgreementId { provider, slot, opened: self.opened }
    }
}

impl Endings {
    /// A ring without endings, crossed up to `crossed`.
    pub const fn new(crossed: u64) -> Self {
        Self { crossed, bits: [0; ENDING_BYTES] }
    }

    /// Epochs with endings to cross up to and including `last`, ascending.
    pub fn due(&self, last: u64) -> impl Iterator<Item = u64> {
        let last = last.min(self.crossed.saturating_add(ENDING_RING));
        (self.crossed.saturating_add(1)..=last).filter(|epoch| {
            let (byte, bit) = Self::place(*epoch);
            self.bits[byte] & bit != 0
        })
    }

    /// Marks that something ends in `epoch`; `None` if the epoch is outside the ring.
    pub fn set(&mut self, epoch: u64) -> Option<()> {
        let ahead = epoch.checked_sub(self.crossed)?;
        (ahead > 0 && ahead <= ENDING_RING).then_some(())?;
        let (byte, bit) = Self::place(epoch);
        self.bits[byte] |= bit;
        Some(())
    }

    /// Marks every ending up to `last` as crossed.
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
        (bound(at / 8), 1 << (at % 8))
    }
}

/// The name of the kind of a record, as users read it; `None` for what is no record of a known kind.
#[cfg(feature = "serde")]
pub(crate) fn kind_name(slot: &Slot) -> Option<&'static str> {
    name_of(slot)
        .or_else(|| books::name_of(slot))
        .or_else(|| capacity::name_of(slot))
        .or_else(|| faults::name_of(slot))
        .or_else(|| nodes::name_of(slot))
        .or_else(|| seats::name_of(slot))
        .or_else(|| service::name_of(slot))
}

/// Writes the fields of a record as JSON.
///
/// # Errors
/// The slot is no record of a known kind, or `to` fails.
#[cfg(feature = "serde")]
pub(crate) fn fields<S: serde::Serializer>(slot: &Slot, to: S) -> Result<S::Ok, S::Error> {
    serialize(slot, to)
        .or_else(|to| books::serialize(slot, to))
        .or_else(|to| capacity::serialize(slot, to))
        .or_else(|to| faults::serialize(slot, to))
        .or_else(|to| nodes::serialize(slot, to))
        .or_else(|to| seats::serialize(slot, to))
        .or_else(|to| service::serialize(slot, to))
        .unwrap_or_else(|_| Err(serde::ser::Error::custom(format_args!("no record is of kind {}", slot[0]))))
}

impl System {
    /// All money that the totals account for: each of their amounts, once.
    pub fn accounted(&self) -> Amount {
        let parts = [
            self.balances,
            self.voucher_reserves,
            self.storage_pools,
            self.bonds,
            self.deposits,
            self.burned,
            self.committee,
            self.reserve,
            self.carry,
            self.seat_bonds,
        ];
        let sum = parts.iter().map(|part| part.grains()).fold(0, u128::saturating_add);
        Amount::new(sum).unwrap_or(Amount::MAX)
    }
}
