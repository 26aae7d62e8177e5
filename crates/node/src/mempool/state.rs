//! Decides which operations wait, which are evicted, and in which order they are offered to a block.
//!
//! Lanes
//! - *Storage proofs*, keyed (provider, challenge height): oldest challenge first; a later one replaces
//!   an earlier one with the same key.
//! - *Reserved* (RD-8), keyed (signer, kind, epoch, batch): after the storage proofs, those of seats first,
//!   which also displace evidence of strangers; then in order of arrival.
//! - *Upkeep*, keyed (provider, kind of work): after those, first that of the provider itself, then that of
//!   its consumers. A sender displaces those ranked after it; the provider displaces upkeep of every kind.
//! - *Paid*: by offered fee per charged unit, then by arrival; the nonces of an account in order,
//!   without gaps. An offer below the base fee waits for it to fall. Operations that wait for an
//!   earlier nonce of their account have a small part of their own ([`paid`]).
//!
//! Invariants
//! 1. Bytes never exceed [`MEMPOOL_BYTES`], and paid operations never use [`MEMPOOL_FREE_BYTES`] and
//!    [`MEMPOOL_RESERVED_BYTES`]: no flood of paid operations displaces a storage proof, a reveal or
//!    evidence, no flood of upkeep displaces a storage proof, and no flood of evidence an operation of a seat.
//! 2. An account has at most [`MEMPOOL_PER_ACCOUNT`] paid operations, and the balance last seen covers their
//!    fees.
//! 3. No operation waits past its expiry height.
//! 4. An account's upkeep stays within [`MEMPOOL_SETTLE_PER_ACCOUNT`] bytes, its reserved operations
//!    within [`MEMPOOL_RESERVED_PER_ACCOUNT`].
//! 5. A refused operation displaces none: room is checked before any operation is removed.
//! 6. Given the same calls in the same order, the same operations are offered.

mod paid;

use crate::application::SELECTIONS_MAX;
use commonware_codec::EncodeSize as _;
use paid::PoolPlace;
use posync_protocol::{
    Account, Amount, Body, Code, Hash, Operation,
    limits::{
        BODY_BYTES_MAX, MEMPOOL_EVIDENCE_PER_ACCOUNT, MEMPOOL_FREE_BYTES, MEMPOOL_REFUSALS_MAX,
        MEMPOOL_RESERVED_BYTES, MEMPOOL_RESERVED_PER_ACCOUNT, MEMPOOL_SETTLE_BYTES,
        MEMPOOL_SETTLE_PER_ACCOUNT, OPERATIONS_MAX, PAID_LANE_BYTES,
    },
    operation::{Evidence, Lane, Settle},
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

/// The reason for which the pool refuses an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The operation is invalid, with the ledger's code.
    Code(Code),
    /// The pool is full of operations that came first or offer more.
    Full,
}

impl From<Code> for Refused {
    fn from(code: Code) -> Self {
        Self::Code(code)
    }
}

/// Nonce and balance of an account in the applied state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Funds {
    /// Nonce that the account's next operation must have.
    pub nonce: u64,
    /// Money that is not locked, which pays fees and amounts.
    pub balance: Amount,
}

/// The lane of an admitted operation, and the facts from the applied state that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The answer to an open challenge.
    StorageProof,
    /// An operation of a seat, or evidence.
    Reserved {
        /// Nonce and balance of the signer.
        funds: Funds,
        /// True if the signer has a seat that is not jailed.
        is_seat: bool,
    },
    /// Upkeep with work that is due.
    Upkeep {
        /// True if the provider itself or one of its consumers sent it.
        is_party: bool,
    },
    /// An operation that pays for its place in a block.
    Paid {
        /// Nonce and balance of the signer.
        funds: Funds,
        /// Units that its fee is charged for ([`posync_protocol::ledger::Size::units`]).
        units: u64,
        /// The most that it may take out of the signer's balance, beside its fee.
        takes: Amount,
    },
}

/// Order of operations, best first: fee rate, then earlier arrival.
type Rank = (u128, Reverse<u64>);

/// Signer, kind, epoch or term, batch, and for evidence the offender.
type ReservedKey = (Account, u8, u64, u16, Account);

/// A provider and the kind of work.
type UpkeepKey = (Account, Work);

/// The kinds of work of upkeep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    Expire,
    Endings,
    Slots,
}

/// The sender of a free operation, ranked by which displaces which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sender {
    Stranger,
    /// A consumer, for upkeep of its provider.
    Party,
    /// The provider itself, or a seat.
    Own,
}

fn upkeep_key(settle: &Settle) -> UpkeepKey {
    let work = match (settle.slots.is_empty(), settle.endings.is_empty()) {
        (false, _) => Work::Slots,
        (true, false) => Work::Endings,
        (true, true) => Work::Expire,
    };
    (settle.provider, work)
}

fn reserved_key(operation: &Operation) -> Option<ReservedKey> {
    let (kind, number, batch, about) = match &operation.body {
        Body::AuditCommit(commit) => (0, commit.epoch, 0, Account::default()),
        Body::AuditReveal(reveal) => (1, reveal.epoch, reveal.batch.into(), Account::default()),
        Body::Evidence(evidence) => {
            let number = match evidence {
                Evidence::Proposals(pair) => pair.headers.first().map_or(0, |header| header.term),
                Evidence::Commitments(pair) => pair.commits.first().map_or(0, |commit| commit.epoch),
            };
            (EVIDENCE, number, 0, evidence.offender())
        }
        _ => return None,
    };
    Some((operation.signer, kind, number, batch, about))
}

/// The code of evidence in a [`ReservedKey`].
const EVIDENCE: u8 = 2;

struct PoolEntry {
    operation: Operation,
    bytes: usize,
    units: u64,
    takes: Amount,
    rank: Rank,
    refusals: u8,
    sender: Sender,
    place: PoolPlace,
    /// True once it was seen in another authority's block.
    in_block: bool,
}

/// Challenges whose refusals are remembered; the oldest are dropped first.
const REFUSED_MAX: usize = 4_096;

struct Pending {
    funds: Funds,
    by_nonce: BTreeMap<u64, Hash>,
}

/// The waiting operations of all lanes, with their indices.
#[derive(Default)]
pub(crate) struct Pool {
    entries: BTreeMap<Hash, PoolEntry>,
    accounts: BTreeMap<Account, Pending>,
    /// Paid operations that a block can hold, the worst first.
    paid: BTreeSet<paid::Key>,
    /// Paid operations behind a gap in their nonces, by arrival.
    gaps: BTreeSet<(u64, Hash)>,
    storage_proofs: BTreeMap<(u64, Account), Hash>,
    /// Challenges for which a storage proof was refused: further answers to them come last.
    refused: BTreeSet<(u64, Account)>,
    reserved: BTreeMap<ReservedKey, Hash>,
    settles: BTreeMap<UpkeepKey, Hash>,
    settle_bytes_of: BTreeMap<Account, usize>,
    expiries: BTreeSet<(u64, Hash)>,
    arrivals: u64,
    paid_bytes: usize,
    gap_bytes: usize,
    storage_proof_bytes: usize,
    reserved_bytes: usize,
    settle_bytes: usize,
}

impl Pool {
    /// Number of operations that wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if no operation waits.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of all operations that wait.
    #[cfg(test)]
    pub(crate) const fn bytes(&self) -> usize {
        self.paid_bytes + self.gap_bytes + self.storage_proof_bytes + self.reserved_bytes + self.settle_bytes
    }

    /// True if an operation waits that was not seen in another authority's block. A block of one's own may not hold all
    /// that was offered to it.
    pub(crate) fn has_new(&self) -> bool {
        self.entries.values().any(|entry| !entry.in_block)
    }

    /// Notes that the operation with that id stands in a block. True if it waits, so its signatures were verified.
    pub(crate) fn met(&mut self, id: &Hash) -> bool {
        self.entries.get_mut(id).map(|entry| entry.in_block = true).is_some()
    }

    /// True if the operation with that id waits.
    pub(crate) fn contains(&self, id: &Hash) -> bool {
        self.entries.contains_key(id)
    }

    /// Inserts an operation that passed [`crate::ingress`], in the lane that the applied state admits it to.
    ///
    /// # Errors
    /// `BadShape` if it is admitted to a lane other than its own; `NonceOld`, `NonceGap`, `Balance`;
    /// or [`Refused::Full`].
    pub(crate) fn insert(
        &mut self,
        id: Hash,
        operation: Operation,
        admission: Admission,
    ) -> Result<(), Refused> {
        if self.entries.contains_key(&id) {
            return Ok(());
        }
        match (&operation.body, admission) {
            (Body::StorageProof(storage_proof), Admission::StorageProof) => {
                let key = (storage_proof.height, operation.signer);
                self.insert_storage_proof(id, key, operation)
            }
            (Body::Settle(settle), Admission::Upkeep { is_party }) => {
                let sender = match (settle.provider == operation.signer, is_party) {
                    (true, _) => Sender::Own,
                    (false, true) => Sender::Party,
                    (false, false) => Sender::Stranger,
                };
                let key = upkeep_key(settle);
                self.insert_settle(id, key, operation, sender)
            }
            (_, Admission::Reserved { funds, is_seat }) => {
                let sender = if is_seat { Sender::Own } else { Sender::Stranger };
                self.insert_reserved(id, operation, funds, sender)
            }
            (body, Admission::Paid { funds, units, takes }) if body.has_nonce() => {
                let entry = PoolEntry { units, takes, ..PoolEntry::new(operation) };
                self.insert_paid(id, entry, funds)
            }
            _ => Err(Code::BadShape.into()),
        }
    }

    fn insert_reserved(
        &mut self,
        id: Hash,
        operation: Operation,
        funds: Funds,
        sender: Sender,
    ) -> Result<(), Refused> {
        let key = reserved_key(&operation).ok_or(Code::BadShape)?;
        if operation.max_fee > funds.balance {
            return Err(Code::Balance.into());
        }
        let first = (operation.signer, 0, 0, 0, Account::default());
        let own = self.reserved.range(first..).take_while(|(other, _)| other.0 == operation.signer);
        let (mut all, mut evidence) = (0, 0);
        for (other, _) in own.filter(|(other, _)| **other != key) {
            all += 1;
            evidence += usize::from(other.1 == EVIDENCE);
        }
        let is_many = key.1 == EVIDENCE && evidence >= MEMPOOL_EVIDENCE_PER_ACCOUNT;
        if all >= MEMPOOL_RESERVED_PER_ACCOUNT || is_many {
            return Err(Refused::Full);
        }
        let bytes = operation.encode_size();
        let mut going: Vec<Hash> = self.reserved.get(&key).copied().into_iter().collect();
        let mut left = self.reserved_bytes - going.iter().map(|id| self.entries[id].bytes).sum::<usize>();
        if left + bytes > MEMPOOL_RESERVED_BYTES {
            // Operations of strangers are displaced by those of seats, the latest first.
            let mut weaker: Vec<&Hash> =
                self.reserved.values().filter(|id| self.entries[*id].sender < sender).collect();
            weaker.retain(|id| !going.contains(*id));
            weaker.sort_by_key(|id| self.entries[*id].rank.1);
            for victim in weaker {
                if left + bytes <= MEMPOOL_RESERVED_BYTES {
                    break;
                }
                left -= self.entries[victim].bytes;
                going.push(*victim);
            }
        }
        if left + bytes > MEMPOOL_RESERVED_BYTES {
            return Err(Refused::Full);
        }
        going.iter().for_each(|id| self.remove(id));
        self.reserved_bytes += bytes;
        self.reserved.insert(key, id);
        self.keep(id, PoolEntry { sender, ..PoolEntry::new(operation) });
        Ok(())
    }

    fn insert_storage_proof(
        &mut self,
        id: Hash,
        key: (u64, Account),
        operation: Operation,
    ) -> Result<(), Refused> {
        let bytes = operation.encode_size();
        let old = self.storage_proofs.get(&key).copied();
        // Upkeep is displaced first, then the youngest challenge.
        let younger = self.storage_proofs.range(key..).rev().filter(|(other, _)| **other != key);
        let weaker = self.settles.values().chain(younger.map(|(_, id)| id));
        let mut left = self.storage_proof_bytes + self.settle_bytes;
        let mut going = Vec::new();
        for victim in old.iter().chain(weaker) {
            if left + bytes <= MEMPOOL_FREE_BYTES && Some(*victim) != old {
                break;
            }
            left -= self.entries[victim].bytes;
            going.push(*victim);
        }
        if left + bytes > MEMPOOL_FREE_BYTES {
            return Err(Refused::Full);
        }
        going.iter().for_each(|id| self.remove(id));
        self.storage_proof_bytes += bytes;
        self.storage_proofs.insert(key, id);
        self.keep(id, PoolEntry::new(operation));
        Ok(())
    }

    fn insert_settle(
        &mut self,
        id: Hash,
        key: UpkeepKey,
        operation: Operation,
        sender: Sender,
    ) -> Result<(), Refused> {
        let of_provider = (key.0, Work::Expire)..=(key.0, Work::Slots);
        let mut going = Vec::new();
        for (other, id) in self.settles.range(of_provider) {
            let waiting = &self.entries[id];
            let is_ours = waiting.operation.signer == operation.signer;
            let (is_same, is_own) = (*other == key, sender.max(waiting.sender) == Sender::Own);
            if !is_same && (is_ours || !is_own) {
                continue;
            }
            if !is_ours && waiting.sender >= sender {
                return Err(Refused::Full);
            }
            going.push(*id);
        }
        let bytes = operation.encode_size();
        let of = |signer: Option<Account>| {
            let entries = going.iter().map(|id| &self.entries[id]);
            entries
                .filter(|entry| signer.is_none_or(|signer| entry.operation.signer == signer))
                .map(|entry| entry.bytes)
                .sum::<usize>()
        };
        let own = self.settle_bytes_of.get(&operation.signer).copied().unwrap_or(0);
        let own = own - of(Some(operation.signer)) + bytes;
        let settles = self.settle_bytes - of(None) + bytes;
        let fits = own <= MEMPOOL_SETTLE_PER_ACCOUNT
            && settles <= MEMPOOL_SETTLE_BYTES
            && self.storage_proof_bytes + settles <= MEMPOOL_FREE_BYTES;
        if !fits {
            return Err(Refused::Full);
        }
        going.iter().for_each(|id| self.remove(id));
        self.settle_bytes += bytes;
        self.settle_bytes_of.insert(operation.signer, own);
        self.settles.insert(key, id);
        self.keep(id, PoolEntry { sender, ..PoolEntry::new(operation) });
        Ok(())
    }

    /// Drops an operation and, if it is paid, the later nonces of its account, which need it.
    fn drop_from(&mut self, id: &Hash) {
        let Some(entry) = self.entries.get(id) else { return };
        if !entry.operation.body.has_nonce() {
            return self.remove(id);
        }
        let (signer, nonce) = (entry.operation.signer, entry.operation.nonce);
        let later: Vec<Hash> = self
            .accounts
            .get(&signer)
            .into_iter()
            .flat_map(|pending| pending.by_nonce.range(nonce..))
            .map(|(_, id)| *id)
            .collect();
        later.iter().for_each(|id| self.remove(id));
    }

    /// Stores an entry, with its order of arrival as part of its rank.
    fn keep(&mut self, id: Hash, mut entry: PoolEntry) {
        entry.rank.1 = Reverse(self.arrivals);
        self.arrivals += 1;
        self.expiries.insert((entry.operation.expires, id));
        self.entries.insert(id, entry);
    }

    fn remove(&mut self, id: &Hash) {
        self.put_at(id, PoolPlace::None);
        let Some(entry) = self.entries.remove(id) else { return };
        let operation = &entry.operation;
        self.expiries.remove(&(operation.expires, *id));
        match (operation.body.lane(), &operation.body) {
            (Lane::StorageProof, Body::StorageProof(storage_proof)) => {
                self.storage_proof_bytes -= entry.bytes;
                self.storage_proofs.remove(&(storage_proof.height, operation.signer));
            }
            (Lane::Upkeep, Body::Settle(settle)) => {
                self.settle_bytes -= entry.bytes;
                self.settles.remove(&upkeep_key(settle));
                if let Some(own) = self.settle_bytes_of.get_mut(&operation.signer) {
                    *own -= entry.bytes;
                    if *own == 0 {
                        self.settle_bytes_of.remove(&operation.signer);
                    }
                }
            }
            (Lane::Reserved, _) => {
                self.reserved_bytes -= entry.bytes;
                reserved_key(operation).map(|key| self.reserved.remove(&key));
            }
            (Lane::Paid, _) => {
                if let Some(pending) = self.accounts.get_mut(&operation.signer) {
                    pending.by_nonce.remove(&operation.nonce);
                    if pending.by_nonce.is_empty() {
                        self.accounts.remove(&operation.signer);
                    }
                }
            }
            // No other kind was inserted in these lanes.
            (Lane::StorageProof | Lane::Upkeep, _) => {}
        }
    }

    /// Removes the operations of a final block, and those that expired with it.
    pub(crate) fn finalized(&mut self, height: u64, operations: &[Operation]) {
        for operation in operations {
            match (operation.body.lane(), &operation.body) {
                (Lane::StorageProof, Body::StorageProof(storage_proof)) => {
                    let key = (storage_proof.height, operation.signer);
                    self.refused.remove(&key);
                    if let Some(id) = self.storage_proofs.get(&key).copied() {
                        self.remove(&id);
                    }
                }
                (Lane::StorageProof | Lane::Reserved | Lane::Upkeep, _) => self.remove(&operation.id()),
                (Lane::Paid, _) => {
                    if let Some(pending) = self.accounts.get(&operation.signer) {
                        let nonce = operation.nonce.saturating_add(1).max(pending.funds.nonce);
                        let funds = Funds { nonce, ..pending.funds };
                        self.refresh(&operation.signer, funds);
                    }
                }
            }
        }
        while let Some((expires, id)) = self.expiries.first().copied()
            && expires <= height
        {
            self.drop_from(&id);
        }
    }

    /// Counts operations that an own proposal had to leave out. A storage proof is dropped after several
    /// refusals, and so is upkeep of a party, which may wait for an answer. Reserved operations and upkeep of
    /// strangers are dropped at once. Paid operations stay.
    pub(crate) fn refused(&mut self, ids: &[Hash]) {
        for id in ids {
            let Some(entry) = self.entries.get_mut(id) else { continue };
            let most = match (entry.operation.body.lane(), entry.sender) {
                (Lane::StorageProof, _) => MEMPOOL_REFUSALS_MAX,
                (Lane::Upkeep, Sender::Stranger) | (Lane::Reserved, _) => 1,
                (Lane::Upkeep, _) => MEMPOOL_REFUSALS_MAX,
                (Lane::Paid, _) => continue,
            };
            entry.refusals += 1;
            if let Body::StorageProof(storage_proof) = &entry.operation.body {
                self.refused.insert((storage_proof.height, entry.operation.signer));
                if self.refused.len() > REFUSED_MAX {
                    self.refused.pop_first();
                }
            }
            if entry.refusals >= most {
                self.remove(id);
            }
        }
    }

    /// Candidates for the next block at `base_fee`, best first: of the free lanes as many as a body holds, of
    /// the paid lane as many as all selections of a proposal could take. An operation that offers less waits,
    /// and so do the later nonces of its account.
    pub(crate) fn candidates(&self, height: u64, base_fee: u64) -> Vec<Operation> {
        let mut chosen = Vec::new();
        let mut free = FreeBytes { left: BODY_BYTES_MAX };
        for id in
            self.storage_proofs_in_order().chain(self.reserved_in_order()).chain(self.settles_in_order())
        {
            let entry = &self.entries[id];
            if chosen.len() < OPERATIONS_MAX && entry.operation.expires >= height && free.take(entry.bytes) {
                chosen.push(entry.operation.clone());
            }
        }
        let mut paid = FreeBytes { left: SELECTIONS_MAX * PAID_LANE_BYTES };
        let most = chosen.len() + SELECTIONS_MAX * OPERATIONS_MAX;
        let mut heads: BinaryHeap<(Rank, Hash)> =
            self.accounts.values().filter_map(|pending| self.head(pending, pending.funds.nonce)).collect();
        while let Some((_, id)) = heads.pop() {
            let entry = &self.entries[&id];
            let fee = u128::from(base_fee) * u128::from(entry.units);
            let fits = chosen.len() < most
                && entry.operation.expires >= height
                && entry.operation.max_fee.grains() >= fee;
            // An operation that does not fit takes the later nonces of its account with it.
            if fits && paid.take(entry.bytes) {
                let pending = &self.accounts[&entry.operation.signer];
                heads.extend(self.head(pending, entry.operation.nonce + 1));
                chosen.push(entry.operation.clone());
            }
        }
        chosen
    }

    /// Storage proofs whose challenge had no refusal come first, then the oldest challenge.
    fn storage_proofs_in_order(&self) -> impl Iterator<Item = &Hash> {
        let again = |(key, _): &(&(u64, Account), &Hash)| self.refused.contains(*key);
        let (late, first): (Vec<_>, Vec<_>) = self.storage_proofs.iter().partition(again);
        first.into_iter().chain(late).map(|(_, id)| id)
    }

    fn settles_in_order(&self) -> impl Iterator<Item = &Hash> {
        let mut ids: Vec<&Hash> = self.settles.values().collect();
        ids.sort_by_key(|id| {
            let entry = &self.entries[*id];
            (Reverse(entry.sender), Reverse(entry.rank.1))
        });
        ids.into_iter()
    }

    fn reserved_in_order(&self) -> impl Iterator<Item = &Hash> {
        let mut ids: Vec<&Hash> = self.reserved.values().collect();
        ids.sort_by_key(|id| {
            let entry = &self.entries[*id];
            (Reverse(entry.sender), Reverse(entry.rank.1))
        });
        ids.into_iter()
    }

    fn head(&self, pending: &Pending, nonce: u64) -> Option<(Rank, Hash)> {
        let id = pending.by_nonce.get(&nonce)?;
        Some((self.entries[id].rank, *id))
    }

    /// The accounts among `signers` that have waiting paid operations.
    pub(crate) fn waiting(&self, signers: impl IntoIterator<Item = Account>) -> Vec<Account> {
        let waiting: BTreeSet<Account> =
            signers.into_iter().filter(|signer| self.accounts.contains_key(signer)).collect();
        waiting.into_iter().collect()
    }
}

impl PoolEntry {
    fn new(operation: Operation) -> Self {
        Self {
            bytes: operation.encode_size(),
            operation,
            units: 0,
            takes: Amount::ZERO,
            rank: (0, Reverse(0)),
            refusals: 0,
            sender: Sender::Stranger,
            place: PoolPlace::None,
            in_block: false,
        }
    }
}

struct FreeBytes {
    left: usize,
}

impl FreeBytes {
    fn take(&mut self, bytes: usize) -> bool {
        let fits = bytes <= self.left;
        if fits {
            self.left -= bytes;
        }
        fits
    }
}
