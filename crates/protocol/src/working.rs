//! The state while a block runs: records as read, the block's changes, the operation's changes.
//!
//! ```text
//!   records (read once) <- block (kept operations) <- overlay (this operation, undone if refused)
//! ```
//!
//! Invariants
//! 1. An operation reads only what it named and writes only what it named as writable, whatever else its
//!    block names. So it behaves the same if a proposer drops another operation.
//! 2. `System` is never named: it is read once, and written once at the end of the block.
//! 3. A rule checks an author's hints before it reads what they name. So a key that was not named is a
//!    fault of the rule, and no author can cause it.

use crate::{
    Account, Broken, Code, Halt, Hash, Key, Record, Slot, event::Event, limits::Parameters, record::System,
};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

/// Records read for a block. A named key that is absent from the state maps to `None`.
pub type Records = BTreeMap<Key, Option<Slot>>;

/// Facts about a block that are known before it runs.
#[derive(Clone, Debug)]
pub struct BlockContext {
    /// Chain id: SHA-256 of the genesis.
    pub chain: Hash,
    /// Parameters that the genesis fixes.
    pub parameters: Parameters,
    /// Height of this block.
    pub height: u64,
    /// Authority that leads the block.
    pub leader: Account,
    /// Digest of the parent block.
    pub parent: Hash,
    /// Digest of the parent's seed; `None` in the first block of a term.
    pub seed: Option<Hash>,
}

impl BlockContext {
    /// The round of this block's height.
    pub const fn round(&self) -> u64 {
        self.parameters.round(self.height)
    }

    /// The epoch of this block's height.
    pub const fn epoch(&self) -> u64 {
        self.parameters.epoch(self.height)
    }
}

/// The keys that an operation names before it runs.
#[derive(Debug, Default)]
pub struct Touched {
    /// Keys that may be written; the fee counts each.
    pub writable: Vec<Key>,
    /// Keys that may only be read; free.
    pub readable: Vec<Key>,
}

/// Name of a record's type, for the reports of a broken state.
fn name<R: Record>() -> &'static str {
    let path = core::any::type_name::<R>();
    path.rsplit("::").next().unwrap_or(path)
}

/// Decodes a slot of the state.
pub(crate) fn decode<R: Record>(slot: &Slot) -> Result<R, Broken> {
    R::from_slot(slot).map_err(|_| Broken::Slot { kind: slot[0] })
}

/// The state while a block runs.
pub struct Working<'a> {
    /// Context of the running block.
    pub context: &'a BlockContext,
    /// The ledger's totals, written once at the end of the block.
    pub system: System,
    /// Events emitted so far, in order.
    pub events: Vec<Event>,
    records: &'a Records,
    shared: BTreeSet<Key>,
    writable: BTreeSet<Key>,
    readable: BTreeSet<Key>,
    block: BTreeMap<Key, Option<Slot>>,
    overlay: BTreeMap<Key, Option<Slot>>,
    undo: Vec<(Key, Option<Option<Slot>>)>,
}

impl<'a> Working<'a> {
    pub(crate) fn new(context: &'a BlockContext, records: &'a Records) -> Result<Self, Broken> {
        let slot = records.get(&System::key()).copied().flatten();
        let slot = slot.ok_or(Broken::Missing { what: "System" })?;
        Ok(Self {
            context,
            system: decode(&slot)?,
            events: Vec::new(),
            records,
            shared: BTreeSet::new(),
            writable: BTreeSet::new(),
            readable: BTreeSet::new(),
            block: BTreeMap::new(),
            overlay: BTreeMap::new(),
            undo: Vec::new(),
        })
    }

    /// Adds keys that every operation of the block may use, because they follow from `System`.
    pub(crate) fn share(&mut self, keys: impl IntoIterator<Item = Key>) {
        self.shared.extend(keys);
    }

    /// Begins an operation, or the system step, that named `touched`.
    pub(crate) fn begin(&mut self, touched: Touched) {
        self.writable = touched.writable.into_iter().collect();
        self.readable = touched.readable.into_iter().collect();
    }

    /// The record at `key`, or `None` if there is none.
    ///
    /// # Errors
    /// [`Broken`] if this operation did not name the key, or the record does not decode.
    pub fn get<R: Record>(&self, key: Key) -> Result<Option<R>, Broken> {
        let unnamed = Broken::Unnamed { what: name::<R>() };
        if !self.may_read(&key) {
            return Err(unnamed);
        }
        let found =
            self.overlay.get(&key).or_else(|| self.block.get(&key)).or_else(|| self.records.get(&key));
        found.ok_or(unnamed)?.as_ref().map(decode).transpose()
    }

    /// The record at `key`, or `missing` if there is none.
    ///
    /// # Errors
    /// As [`Self::get`], or `missing`.
    pub fn need<R: Record>(&self, key: Key, missing: Code) -> Result<R, Halt> {
        Ok(self.get(key)?.ok_or(missing)?)
    }

    /// The record at `key`, which exists because another one does.
    ///
    /// # Errors
    /// As [`Self::get`], or [`Broken::Missing`].
    pub fn kept<R: Record>(&self, key: Key) -> Result<R, Broken> {
        self.get(key)?.ok_or(Broken::Missing { what: name::<R>() })
    }

    /// Writes a record. Later steps of this operation see it; it is kept only if the operation succeeds.
    ///
    /// # Errors
    /// [`Broken`] if this operation did not name the key as writable.
    pub fn put<R: Record>(&mut self, key: Key, record: &R) -> Result<(), Broken> {
        self.set(key, Some(record.to_slot()), name::<R>())
    }

    /// Deletes the record at `key`.
    ///
    /// # Errors
    /// [`Broken`] if this operation did not name the key as writable.
    pub fn delete(&mut self, key: Key) -> Result<(), Broken> {
        self.set(key, None, "a deleted record")
    }

    fn set(&mut self, key: Key, slot: Option<Slot>, what: &'static str) -> Result<(), Broken> {
        if !self.may_write(&key) {
            return Err(Broken::Unnamed { what });
        }
        let before = self.overlay.insert(key, slot);
        self.undo.push((key, before));
        Ok(())
    }

    /// True if this operation may write `key`.
    pub fn names(&self, key: &Key) -> bool {
        self.may_write(key)
    }

    fn may_write(&self, key: &Key) -> bool {
        self.writable.contains(key) || self.shared.contains(key)
    }

    /// True if this operation may read `key`.
    pub fn may_read(&self, key: &Key) -> bool {
        self.may_write(key) || self.readable.contains(key)
    }

    /// Runs `work` all or nothing: if it fails, its writes, totals and events are undone.
    ///
    /// # Errors
    /// The error of `work`.
    pub fn atomically<T, E>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E> {
        let (mark, system, events) = (self.undo.len(), self.system.clone(), self.events.len());
        let result = work(self);
        if result.is_err() {
            for (key, before) in self.undo.drain(mark..).rev() {
                match before {
                    Some(slot) => self.overlay.insert(key, slot),
                    None => self.overlay.remove(&key),
                };
            }
            self.system = system;
            self.events.truncate(events);
        }
        result
    }

    /// Keeps the changes of the operation that ran last.
    pub(crate) fn commit(&mut self) {
        self.block.append(&mut self.overlay);
        self.undo.clear();
    }

    /// Ends the block: writes `System`. Returns all changes, and all events in order.
    pub(crate) fn finish(mut self) -> (BTreeMap<Key, Option<Slot>>, Vec<Event>) {
        self.system.height = self.context.height;
        self.block.insert(System::key(), Some(self.system.to_slot()));
        (self.block, self.events)
    }
}
