//! Which operations wait, which give way, and in what order they are offered to a block.
//!
//! Lanes
//! - *Statements*, keyed (provider, challenge height): oldest challenge first; a later one replaces
//!   an earlier one with the same key.
//! - *Reserved* (RD-8), keyed (signer, kind, epoch, batch): after the statements, first come first.
//! - *Upkeep*, keyed (provider, kind of work): after those, of the provider itself and its consumers
//!   first, who also take the place of a stranger's.
//! - *Paid*: by offered fee per charged unit, then arrival; the nonces of an account in order,
//!   without gaps. What offers less than the base fee waits for it to fall.
//!
//! Invariants
//! 1. Bytes never exceed [`MEMPOOL_BYTES`], and paid ones leave [`MEMPOOL_FREE_BYTES`] and
//!    [`MEMPOOL_RESERVED_BYTES`] alone: no flood of paid operations displaces a statement, a reveal
//!    or evidence, and no flood of upkeep displaces a statement.
//! 2. An account has at most [`MEMPOOL_PER_ACCOUNT`] paid operations, and its balance covers their
//!    fees as far as was last seen.
//! 3. Nothing waits past its expiry height.
//! 4. An account's upkeep stays within [`MEMPOOL_SETTLE_PER_ACCOUNT`] bytes, its reserved operations
//!    within [`MEMPOOL_RESERVED_PER_ACCOUNT`].
//! 5. Given the same calls in the same order, the same operations are offered.

use commonware_codec::EncodeSize as _;
use posync_protocol::{
    Account, Amount, Body, Code, Hash, Operation,
    limits::{
        BODY_BYTES_MAX, MEMPOOL_BYTES, MEMPOOL_FREE_BYTES, MEMPOOL_PER_ACCOUNT, MEMPOOL_REFUSALS_MAX,
        MEMPOOL_REPLACE_PERCENT, MEMPOOL_RESERVED_BYTES, MEMPOOL_RESERVED_PER_ACCOUNT, MEMPOOL_SETTLE_BYTES,
        MEMPOOL_SETTLE_PER_ACCOUNT, OPERATIONS_MAX, PAID_LANE_BYTES,
    },
    operation::{Evidence, Lane, Settle},
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

/// Bytes that paid operations may fill.
const PAID_BYTES: usize = MEMPOOL_BYTES - MEMPOOL_FREE_BYTES - MEMPOOL_RESERVED_BYTES;
/// Fees per unit are compared in millionths of a grain.
const RATE_SCALE: u128 = 1_000_000;

/// Why an operation may not wait here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// For what it is.
    Code(Code),
    /// For what else waits: others came first or offer more.
    Full,
}

impl From<Code> for Refused {
    fn from(code: Code) -> Self {
        Self::Code(code)
    }
}

/// What the applied state says of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Funds {
    /// The next nonce.
    pub nonce: u64,
    /// Free money.
    pub balance: Amount,
}

/// What the applied state says of an operation that may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The answer to an open challenge.
    Statement,
    /// Of a seat, or evidence; its signer's funds.
    Reserved(Funds),
    /// Upkeep that is due.
    Upkeep {
        /// Whether the provider itself or a consumer of it asks.
        is_party: bool,
    },
    /// A paid operation.
    Paid {
        /// Its signer's.
        funds: Funds,
        /// What its fee is reckoned from ([`posync_protocol::ledger::Size::units`]).
        units: u64,
    },
}

/// Best first: rate, then earlier arrival.
type Rank = (u128, Reverse<u64>);

/// Signer, kind, epoch or term, batch, and of evidence the offender.
type ReservedKey = (Account, u8, u64, u16, Account);

/// Provider and kind of work.
type UpkeepKey = (Account, Work);

/// What upkeep does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    Expire,
    Endings,
    Slots,
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
            (2, number, 0, evidence.offender())
        }
        _ => return None,
    };
    Some((operation.signer, kind, number, batch, about))
}

struct Entry {
    operation: Operation,
    bytes: usize,
    units: u64,
    rank: Rank,
    refusals: u8,
    is_party: bool,
}

struct Pending {
    funds: Funds,
    by_nonce: BTreeMap<u64, Hash>,
}

/// The waiting operations.
#[derive(Default)]
pub struct Pool {
    entries: BTreeMap<Hash, Entry>,
    accounts: BTreeMap<Account, Pending>,
    paid: BTreeSet<(Rank, Hash)>,
    statements: BTreeMap<(u64, Account), Hash>,
    reserved: BTreeMap<ReservedKey, Hash>,
    settles: BTreeMap<UpkeepKey, Hash>,
    settle_bytes_of: BTreeMap<Account, usize>,
    expiries: BTreeSet<(u64, Hash)>,
    arrivals: u64,
    paid_bytes: usize,
    statement_bytes: usize,
    reserved_bytes: usize,
    settle_bytes: usize,
}

impl Pool {
    /// Operations that wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes that wait.
    pub const fn bytes(&self) -> usize {
        self.paid_bytes + self.statement_bytes + self.reserved_bytes + self.settle_bytes
    }

    /// Whether the operation with that id waits: its signatures were verified.
    pub fn contains(&self, id: &Hash) -> bool {
        self.entries.contains_key(id)
    }

    /// Takes an operation that passed [`crate::ingress`], as the applied state admits it.
    ///
    /// # Errors
    /// `BadShape` if it is admitted to another lane than its own, `NonceOld`, `NonceGap`, `Balance`;
    /// or [`Refused::Full`].
    pub fn insert(&mut self, id: Hash, operation: Operation, admission: Admission) -> Result<(), Refused> {
        if self.entries.contains_key(&id) {
            return Ok(());
        }
        match (&operation.body, admission) {
            (Body::Statement(statement), Admission::Statement) => {
                let key = (statement.height, operation.signer);
                self.insert_statement(id, key, operation)
            }
            (Body::Settle(settle), Admission::Upkeep { is_party }) => {
                let key = upkeep_key(settle);
                self.insert_settle(id, key, operation, is_party)
            }
            (_, Admission::Reserved(funds)) => self.insert_reserved(id, operation, funds),
            (body, Admission::Paid { funds, units }) if body.has_nonce() => {
                self.insert_paid(id, operation, funds, units)
            }
            _ => Err(Code::BadShape.into()),
        }
    }

    fn insert_reserved(&mut self, id: Hash, operation: Operation, funds: Funds) -> Result<(), Refused> {
        let key = reserved_key(&operation).ok_or(Code::BadShape)?;
        if operation.max_fee > funds.balance {
            return Err(Code::Balance.into());
        }
        if let Some(old) = self.reserved.get(&key).copied() {
            self.remove(&old);
        }
        let bytes = operation.encode_size();
        let first = (operation.signer, 0, 0, 0, Account::default());
        let own = self.reserved.range(first..).take_while(|(key, _)| key.0 == operation.signer).count();
        if own >= MEMPOOL_RESERVED_PER_ACCOUNT || self.reserved_bytes + bytes > MEMPOOL_RESERVED_BYTES {
            return Err(Refused::Full);
        }
        self.reserved_bytes += bytes;
        self.reserved.insert(key, id);
        self.keep(id, Entry::new(operation, bytes));
        Ok(())
    }

    fn insert_statement(
        &mut self,
        id: Hash,
        key: (u64, Account),
        operation: Operation,
    ) -> Result<(), Refused> {
        if let Some(old) = self.statements.get(&key).copied() {
            self.remove(&old);
        }
        let bytes = operation.encode_size();
        while self.statement_bytes + self.settle_bytes + bytes > MEMPOOL_FREE_BYTES {
            // Upkeep gives way first, then the youngest challenge.
            let youngest = self.statements.last_key_value().filter(|(last, _)| **last > key);
            let victim = self.settles.values().next().or(youngest.map(|(_, id)| id)).copied();
            self.remove(&victim.ok_or(Refused::Full)?);
        }
        self.statement_bytes += bytes;
        self.statements.insert(key, id);
        self.keep(id, Entry::new(operation, bytes));
        Ok(())
    }

    fn insert_settle(
        &mut self,
        id: Hash,
        key: UpkeepKey,
        operation: Operation,
        is_party: bool,
    ) -> Result<(), Refused> {
        if let Some(old) = self.settles.get(&key).copied() {
            let waiting = &self.entries[&old];
            let gives_way = waiting.operation.signer == operation.signer || (is_party && !waiting.is_party);
            if !gives_way {
                return Err(Refused::Full);
            }
            self.remove(&old);
        }
        let bytes = operation.encode_size();
        let own = self.settle_bytes_of.get(&operation.signer).copied().unwrap_or(0) + bytes;
        let free = self.statement_bytes + self.settle_bytes;
        let fits = own <= MEMPOOL_SETTLE_PER_ACCOUNT
            && self.settle_bytes + bytes <= MEMPOOL_SETTLE_BYTES
            && free + bytes <= MEMPOOL_FREE_BYTES;
        if !fits {
            return Err(Refused::Full);
        }
        self.settle_bytes += bytes;
        self.settle_bytes_of.insert(operation.signer, own);
        self.settles.insert(key, id);
        self.keep(id, Entry { is_party, ..Entry::new(operation, bytes) });
        Ok(())
    }

    fn insert_paid(
        &mut self,
        id: Hash,
        operation: Operation,
        funds: Funds,
        units: u64,
    ) -> Result<(), Refused> {
        let (signer, nonce) = (operation.signer, operation.nonce);
        let bytes = operation.encode_size();
        let rate = operation.max_fee.grains().saturating_mul(RATE_SCALE) / u128::from(units.max(1));
        self.refresh(&signer, funds);
        let funds = self.accounts.get(&signer).map_or(funds, |pending| pending.funds);
        if nonce < funds.nonce {
            return Err(Code::NonceOld.into());
        }
        if nonce - funds.nonce >= MEMPOOL_PER_ACCOUNT as u64 {
            return Err(Code::NonceGap.into());
        }
        let old = self.accounts.get(&signer).and_then(|pending| pending.by_nonce.get(&nonce)).copied();
        if let Some(old) = old {
            let offered = self.entries[&old].rank.0;
            if rate.saturating_mul(100) < offered.saturating_mul(MEMPOOL_REPLACE_PERCENT) {
                return Err(Code::NonceOld.into());
            }
        }
        self.check_balance(&signer, nonce, operation.max_fee, funds)?;
        self.make_room(bytes, rate, &signer, old)?;
        if let Some(old) = old {
            self.remove(&old);
        }
        let pending = self.accounts.entry(signer).or_insert(Pending { funds, by_nonce: BTreeMap::new() });
        pending.by_nonce.insert(nonce, id);
        self.paid_bytes += bytes;
        let rank = (rate, Reverse(0));
        let rank = self.keep(id, Entry { units, rank, ..Entry::new(operation, bytes) });
        self.paid.insert((rank, id));
        Ok(())
    }

    /// The fees of an account's waiting operations, this one included, stay within its balance.
    fn check_balance(&self, signer: &Account, nonce: u64, fee: Amount, funds: Funds) -> Result<(), Code> {
        let others = self.accounts.get(signer).into_iter().flat_map(|pending| &pending.by_nonce);
        let fees = others
            .filter(|(other, _)| **other != nonce)
            .try_fold(fee, |sum, (_, id)| sum.checked_add(self.entries[id].operation.max_fee));
        if fees.is_some_and(|fees| fees <= funds.balance) { Ok(()) } else { Err(Code::Balance) }
    }

    /// Makes room among the paid by dropping those that offer less, with what follows on them.
    fn make_room(
        &mut self,
        bytes: usize,
        rate: u128,
        signer: &Account,
        old: Option<Hash>,
    ) -> Result<(), Refused> {
        let returned = old.map_or(0, |old| self.entries[&old].bytes);
        while self.paid_bytes - returned + bytes > PAID_BYTES {
            let Some(((worst, _), victim)) = self.paid.first().copied() else {
                return Err(Refused::Full);
            };
            // An account never displaces its own earlier nonces.
            if worst >= rate || self.entries[&victim].operation.signer == *signer {
                return Err(Refused::Full);
            }
            self.drop_from(&victim);
        }
        Ok(())
    }

    /// Drops an operation and, if paid, the later nonces of its account: they cannot stand without it.
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

    /// Keeps an entry; its rank takes the order of arrival in.
    fn keep(&mut self, id: Hash, mut entry: Entry) -> Rank {
        entry.rank.1 = Reverse(self.arrivals);
        let rank = entry.rank;
        self.arrivals += 1;
        self.expiries.insert((entry.operation.expires, id));
        self.entries.insert(id, entry);
        rank
    }

    fn remove(&mut self, id: &Hash) {
        let Some(entry) = self.entries.remove(id) else { return };
        let operation = &entry.operation;
        self.expiries.remove(&(operation.expires, *id));
        match &operation.body {
            Body::Statement(statement) => {
                self.statement_bytes -= entry.bytes;
                self.statements.remove(&(statement.height, operation.signer));
            }
            Body::Settle(settle) => {
                self.settle_bytes -= entry.bytes;
                self.settles.remove(&upkeep_key(settle));
                if let Some(own) = self.settle_bytes_of.get_mut(&operation.signer) {
                    *own -= entry.bytes;
                    if *own == 0 {
                        self.settle_bytes_of.remove(&operation.signer);
                    }
                }
            }
            Body::AuditCommit(_) | Body::AuditReveal(_) | Body::Evidence(_) => {
                self.reserved_bytes -= entry.bytes;
                reserved_key(operation).map(|key| self.reserved.remove(&key));
            }
            _ => {
                self.paid_bytes -= entry.bytes;
                self.paid.remove(&(entry.rank, *id));
                if let Some(pending) = self.accounts.get_mut(&operation.signer) {
                    pending.by_nonce.remove(&operation.nonce);
                    if pending.by_nonce.is_empty() {
                        self.accounts.remove(&operation.signer);
                    }
                }
            }
        }
    }

    /// What the state now says of an account: old nonces go, and what its balance no longer covers.
    pub fn refresh(&mut self, account: &Account, funds: Funds) {
        let Some(pending) = self.accounts.get_mut(account) else { return };
        // What was read may be a block older than what is known to be final.
        let funds = Funds { nonce: funds.nonce.max(pending.funds.nonce), ..funds };
        pending.funds = funds;
        let old: Vec<Hash> = pending.by_nonce.range(..funds.nonce).map(|(_, id)| *id).collect();
        old.iter().for_each(|id| self.remove(id));
        let Some(pending) = self.accounts.get(account) else { return };
        let mut left = funds.balance;
        let uncovered = pending.by_nonce.values().find(|id| {
            match left.checked_sub(self.entries[*id].operation.max_fee) {
                Some(rest) => {
                    left = rest;
                    false
                }
                None => true,
            }
        });
        if let Some(id) = uncovered.copied() {
            self.drop_from(&id);
        }
    }

    /// A block is final: what it holds is gone, and what expired with it.
    pub fn finalized(&mut self, height: u64, operations: &[Operation]) {
        for operation in operations {
            match &operation.body {
                Body::Statement(statement) => {
                    let key = (statement.height, operation.signer);
                    if let Some(id) = self.statements.get(&key).copied() {
                        self.remove(&id);
                    }
                }
                body if !body.has_nonce() => self.remove(&operation.id()),
                _ => {
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

    /// Operations that an own proposal had to leave out: a statement goes after several, what is of
    /// the reserved lane or upkeep at once. Paid ones stay.
    pub fn refused(&mut self, ids: &[Hash]) {
        for id in ids {
            let Some(entry) = self.entries.get_mut(id) else { continue };
            let most = match entry.operation.body.lane() {
                Lane::Statement => MEMPOOL_REFUSALS_MAX,
                Lane::Reserved | Lane::Upkeep => 1,
                Lane::Paid => continue,
            };
            entry.refusals += 1;
            if entry.refusals >= most {
                self.remove(id);
            }
        }
    }

    /// Operations for the next block, whose paid ones pay `base_fee`, best first: as many as a body
    /// holds, of each lane. Who offers less, and what follows on it, waits.
    pub fn candidates(&self, height: u64, base_fee: u64) -> Vec<Operation> {
        let mut chosen = Vec::new();
        let mut free = FreeBytes { left: BODY_BYTES_MAX };
        for id in self.statements.values().chain(self.reserved_in_order()).chain(self.settles_in_order()) {
            let entry = &self.entries[id];
            if chosen.len() < OPERATIONS_MAX && entry.operation.expires >= height && free.take(entry.bytes) {
                chosen.push(entry.operation.clone());
            }
        }
        let mut paid = FreeBytes { left: PAID_LANE_BYTES };
        let mut heads: BinaryHeap<(Rank, Hash)> =
            self.accounts.values().filter_map(|pending| self.head(pending, pending.funds.nonce)).collect();
        while let Some((_, id)) = heads.pop() {
            let entry = &self.entries[&id];
            let fee = u128::from(base_fee) * u128::from(entry.units);
            let fits = chosen.len() < OPERATIONS_MAX
                && entry.operation.expires >= height
                && entry.operation.max_fee.grains() >= fee;
            // What does not fit takes the later nonces of its account with it.
            if fits && paid.take(entry.bytes) {
                let pending = &self.accounts[&entry.operation.signer];
                heads.extend(self.head(pending, entry.operation.nonce + 1));
                chosen.push(entry.operation.clone());
            }
        }
        chosen
    }

    fn settles_in_order(&self) -> impl Iterator<Item = &Hash> {
        let mut ids: Vec<&Hash> = self.settles.values().collect();
        ids.sort_by_key(|id| {
            let entry = &self.entries[*id];
            (!entry.is_party, Reverse(entry.rank.1))
        });
        ids.into_iter()
    }

    fn reserved_in_order(&self) -> impl Iterator<Item = &Hash> {
        let mut ids: Vec<&Hash> = self.reserved.values().collect();
        ids.sort_by_key(|id| Reverse(self.entries[*id].rank.1));
        ids.into_iter()
    }

    fn head(&self, pending: &Pending, nonce: u64) -> Option<(Rank, Hash)> {
        let id = pending.by_nonce.get(&nonce)?;
        Some((self.entries[id].rank, *id))
    }

    /// Accounts with waiting paid operations among `signers`.
    pub fn waiting(&self, signers: impl IntoIterator<Item = Account>) -> Vec<Account> {
        let waiting: BTreeSet<Account> =
            signers.into_iter().filter(|signer| self.accounts.contains_key(signer)).collect();
        waiting.into_iter().collect()
    }
}

impl Entry {
    const fn new(operation: Operation, bytes: usize) -> Self {
        Self { operation, bytes, units: 0, rank: (0, Reverse(0)), refusals: 0, is_party: false }
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
