//! A block's work: name the records, then execute over them, all or nothing per operation.
//!
//! ```text
//!   touches(op) -> keys, bounded        one batched read by the node
//!   execute: round anchor -> draws -> operations in order -> System
//!            each operation: charge its fee, run on an overlay, keep it or drop it whole
//! ```
//!
//! Invariants
//! 1. A refused operation leaves only its fee and its nonce behind.
//! 2. An operation whose fee cannot be charged, or a free one that is refused, makes the block
//!    invalid: a proposer leaves it out ([`Mode::Propose`]), a verifier rejects ([`Mode::Verify`]).
//! 3. A record that no operation named is never read or written.

use crate::{
    Amount, Code, Hash, Key, Operation, Record, Slot, account,
    block::{Draw, sha256},
    limits::{KEYS_MAX, Parameters},
    record::{RoundInfo, System},
};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use commonware_codec::Encode;

/// Records read for a block: a named key that is absent from state maps to `None`.
pub type Records = BTreeMap<Key, Option<Slot>>;

/// What a block knows of itself before it runs.
#[derive(Clone, Debug)]
pub struct BlockContext {
    /// SHA-256 of the genesis.
    pub chain: Hash,
    /// Genesis parameters.
    pub parameters: Parameters,
    /// This block's height.
    pub height: u64,
    /// The parent's digest.
    pub parent: Hash,
    /// Digest of the parent's seed, `None` in the first block of a term.
    pub seed: Option<Hash>,
}

impl BlockContext {
    /// This block's round.
    pub const fn round(&self) -> u64 {
        self.parameters.round(self.height)
    }

    /// This block's epoch.
    pub const fn epoch(&self) -> u64 {
        self.parameters.epoch(self.height)
    }
}

/// Who runs the block: a proposer leaves out what a verifier would reject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Drop operations that would make the block invalid.
    Propose,
    /// Fail on them.
    Verify,
}

/// Why a block is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// An operation could not pay, or a free one was refused.
    #[error("operation {index} makes the block invalid: {}", code.explain())]
    Operation {
        /// Its place.
        index: usize,
        /// Why.
        code: Code,
    },
    /// The draws are not those of the beacon.
    #[error("draw {index} is not what the beacon drew")]
    Draw {
        /// Its place.
        index: usize,
    },
    /// More records than a block may name.
    #[error("the block names more than {KEYS_MAX} records")]
    Keys,
    /// A slot does not decode: the state is damaged.
    #[error("a record of the state does not decode; restore this node from a peer")]
    State,
}

/// The records that an operation names.
#[derive(Debug, Default)]
pub struct Touched {
    /// May change; each is charged.
    pub writable: Vec<Key>,
    /// Only read.
    pub readable: Vec<Key>,
}

/// What a block does to the state.
#[derive(Debug, Default)]
pub struct Outcome {
    /// New slots, `None` to delete, in key order.
    pub changes: BTreeMap<Key, Option<Slot>>,
    /// Id and code of each kept operation.
    pub receipts: Vec<(Hash, Code)>,
    /// Places (in the input) of the operations that were kept; all of them under `Verify`.
    pub kept: Vec<usize>,
    /// What happened, for people and books; not part of the state.
    pub events: Vec<Event>,
}

/// Something that happened, in the order of the block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A fee was paid and split; `agreement` is `None` for storage (per provider).
    Settled {
        /// Epoch of the books.
        epoch: u64,
        /// The provider.
        provider: crate::Account,
        /// The voucher agreement, if any.
        agreement: Option<crate::AgreementId>,
        /// Paid by consumers.
        fee: Amount,
        /// Burned of it.
        burn: Amount,
        /// To the committee's pool.
        committee: Amount,
        /// To the provider.
        pay: Amount,
    },
    /// A provider was drawn.
    Drawn {
        /// The provider.
        provider: crate::Account,
        /// At this height.
        height: u64,
    },
    /// A challenge was answered, or expired (`answered` false: four missing, late).
    Audited {
        /// The provider.
        provider: crate::Account,
        /// Height of the draw.
        height: u64,
        /// Whether it was answered at all.
        answered: bool,
        /// Reads proved, 0 to 4.
        passed: u8,
        /// Reads drawn: 4, or 0 when nothing was paid for.
        reads: u8,
        /// Whether it was on time.
        on_time: bool,
    },
    /// An agreement was opened, closed or deleted.
    Agreement {
        /// Which.
        agreement: crate::AgreementId,
        /// The consumer.
        consumer: crate::Account,
        /// What became of it.
        change: AgreementChange,
    },
    /// A redemption in a batch was refused; the rest stands.
    VoucherRefused {
        /// The agreement.
        agreement: crate::AgreementId,
        /// Why.
        code: Code,
    },
    /// Stake moved to an agreement's storage reserve: a read was still missing after three re-asks.
    Restitution {
        /// The provider.
        provider: crate::Account,
        /// The agreement.
        agreement: crate::AgreementId,
        /// How much.
        amount: Amount,
    },
}

/// What became of an agreement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgreementChange {
    /// Opened.
    Opened,
    /// Closed, redeemable for the window.
    Closing,
    /// Its records are gone, deposit and rest returned.
    Deleted,
}

/// The state under a running block: records as read, the block's changes, the operation's changes.
pub struct Working<'a> {
    /// The block.
    pub context: &'a BlockContext,
    /// The record of sums, written once at the end.
    pub system: System,
    /// Events so far.
    pub events: Vec<Event>,
    records: &'a Records,
    block: BTreeMap<Key, Option<Slot>>,
    overlay: BTreeMap<Key, Option<Slot>>,
    damaged: bool,
}

impl<'a> Working<'a> {
    fn new(context: &'a BlockContext, records: &'a Records) -> Result<Self, Invalid> {
        let mut working = Self {
            context,
            system: System::default(),
            events: Vec::new(),
            records,
            block: BTreeMap::new(),
            overlay: BTreeMap::new(),
            damaged: false,
        };
        working.system = working.get(System::key()).ok().flatten().ok_or(Invalid::State)?;
        Ok(working)
    }

    /// The record at `key`.
    ///
    /// # Errors
    /// `BadShape` if no operation named the key (a wrong hint).
    pub fn get<R: Record>(&mut self, key: Key) -> Result<Option<R>, Code> {
        let slot = match self
            .overlay
            .get(&key)
            .or_else(|| self.block.get(&key))
            .or_else(|| self.records.get(&key))
        {
            Some(Some(slot)) => slot,
            Some(None) => return Ok(None),
            None => return Err(Code::BadShape),
        };
        R::from_slot(slot).map(Some).map_err(|_| {
            self.damaged = true;
            Code::BadShape
        })
    }

    /// The record at `key`, or `missing` if there is none.
    ///
    /// # Errors
    /// As [`Self::get`], or `missing`.
    pub fn need<R: Record>(&mut self, key: Key, missing: Code) -> Result<R, Code> {
        self.get(key)?.ok_or(missing)
    }

    /// Writes a record; seen by what follows in this operation, kept only if it succeeds.
    ///
    /// # Errors
    /// `BadShape` if no operation named the key.
    pub fn put<R: Record>(&mut self, key: Key, record: &R) -> Result<(), Code> {
        self.set(key, Some(record.to_slot()))
    }

    /// Deletes a record.
    ///
    /// # Errors
    /// `BadShape` if no operation named the key.
    pub fn delete(&mut self, key: Key) -> Result<(), Code> {
        self.set(key, None)
    }

    fn set(&mut self, key: Key, slot: Option<Slot>) -> Result<(), Code> {
        if !self.records.contains_key(&key) {
            return Err(Code::BadShape);
        }
        self.overlay.insert(key, slot);
        Ok(())
    }

    /// Runs `work` on an overlay of its own: all of its writes and events stay, or none.
    ///
    /// # Errors
    /// What `work` returns.
    pub fn atomically<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Code>) -> Result<T, Code> {
        let (overlay, system, events) = (self.overlay.clone(), self.system.clone(), self.events.len());
        let result = work(self);
        if result.is_err() {
            self.overlay = overlay;
            self.system = system;
            self.events.truncate(events);
        }
        result
    }

    fn commit(&mut self) {
        self.block.append(&mut self.overlay);
    }
}

/// The records that a block names beyond those of its operations.
fn block_keys(context: &BlockContext) -> Vec<Key> {
    let ring = context.parameters.round_ring;
    alloc::vec![System::key(), RoundInfo::key(context.round() % ring)]
}

/// The fee of an operation: base fee x (bytes + 512 per record that it names as writable).
pub fn fee(context: &BlockContext, operation: &Operation) -> Amount {
    if operation.body.is_free() {
        return Amount::ZERO;
    }
    let keys = touches_operation(context, operation).writable.len() as u64;
    let bytes = operation.encode().len() as u64 + crate::limits::FEE_BYTES_PER_KEY * keys;
    Amount::new(context.parameters.base_fee.grains() * u128::from(bytes)).unwrap_or(Amount::MAX)
}

/// The records that one operation names, its signer's account included.
pub fn touches_operation(_context: &BlockContext, operation: &Operation) -> Touched {
    let mut touched = Touched::default();
    if !operation.body.is_free() {
        touched.writable.push(crate::record::AccountState::key(&operation.signer));
    }
    match &operation.body {
        crate::Body::Transfer(body) => account::touches(body, &mut touched),
        _ => {}
    }
    touched
}

/// Every record that the block names, sorted and unique, for one batched read.
///
/// # Errors
/// [`Invalid::Keys`] above [`KEYS_MAX`].
pub fn touches(
    context: &BlockContext,
    draws: &[Option<Draw>],
    operations: &[Operation],
) -> Result<Vec<Key>, Invalid> {
    let _ = draws;
    let mut keys: BTreeSet<Key> = block_keys(context).into_iter().collect();
    for operation in operations {
        let touched = touches_operation(context, operation);
        keys.extend(touched.writable);
        keys.extend(touched.readable);
        if keys.len() > KEYS_MAX {
            return Err(Invalid::Keys);
        }
    }
    Ok(keys.into_iter().collect())
}

/// Runs a block. Signatures and structure were checked before ([`crate::operation`]).
///
/// # Errors
/// [`Invalid`]: the block may not be built or voted for.
pub fn execute(
    context: &BlockContext,
    draws: &[Option<Draw>],
    operations: &[Operation],
    records: &Records,
    mode: Mode,
) -> Result<Outcome, Invalid> {
    let mut working = Working::new(context, records)?;
    let mut outcome = Outcome::default();
    open_round(&mut working).map_err(|_| Invalid::State)?;
    let _ = draws;
    working.commit();
    for (index, operation) in operations.iter().enumerate() {
        match apply(&mut working, operation) {
            Ok(code) => {
                working.commit();
                outcome.kept.push(index);
                outcome.receipts.push((sha256(&operation.encode()), code));
            }
            Err(_) if mode == Mode::Propose => {}
            Err(code) => return Err(Invalid::Operation { index, code }),
        }
        if working.damaged {
            return Err(Invalid::State);
        }
    }
    working.system.height = context.height;
    let system = working.system.clone();
    working.put(System::key(), &system).map_err(|_| Invalid::State)?;
    working.commit();
    outcome.changes = working.block;
    outcome.events = working.events;
    Ok(outcome)
}

/// The first block of a round fixes the round's anchor: its parent.
fn open_round(working: &mut Working<'_>) -> Result<(), Code> {
    let context = working.context;
    if !context.height.is_multiple_of(context.parameters.round_blocks) {
        return Ok(());
    }
    let round = context.round();
    let info = RoundInfo { round, anchor: context.parent };
    working.put(RoundInfo::key(round % context.parameters.round_ring), &info)
}

/// Charges and runs one operation. `Ok(code)`: it stands in the block with that receipt.
/// `Err(code)`: it may not stand in a block.
fn apply(working: &mut Working<'_>, operation: &Operation) -> Result<Code, Code> {
    if operation.expires < working.context.height {
        return Err(Code::Expired);
    }
    if operation.body.is_free() {
        return working.atomically(|w| dispatch(w, operation)).map(|()| Code::Done);
    }
    working.atomically(|w| account::charge(w, operation))?;
    match working.atomically(|w| dispatch(w, operation)) {
        Ok(()) => Ok(Code::Done),
        Err(code) => Ok(code),
    }
}

fn dispatch(working: &mut Working<'_>, operation: &Operation) -> Result<(), Code> {
    match &operation.body {
        crate::Body::Transfer(body) => account::transfer(working, &operation.signer, body),
        _ => Err(Code::Malformed),
    }
}
