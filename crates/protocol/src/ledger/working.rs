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

use super::{BlockContext, Event, Invalid, Outcome, Records, Touched};
use crate::{Code, Key, Record, Slot, record::System};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

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
    damaged: bool,
}

impl<'a> Working<'a> {
    pub(super) fn new(context: &'a BlockContext, records: &'a Records) -> Result<Self, Invalid> {
        let slot = records.get(&System::key()).copied().flatten().ok_or(Invalid::State)?;
        Ok(Self {
            context,
            system: System::from_slot(&slot).map_err(|_| Invalid::State)?,
            events: Vec::new(),
            records,
            shared: BTreeSet::new(),
            writable: BTreeSet::new(),
            readable: BTreeSet::new(),
            block: BTreeMap::new(),
            overlay: BTreeMap::new(),
            undo: Vec::new(),
            damaged: false,
        })
    }

    /// Adds keys that every operation of the block may use, because they follow from `System`.
    pub(super) fn share(&mut self, keys: impl IntoIterator<Item = Key>) {
        self.shared.extend(keys);
    }

    /// Begins an operation, or the system step, that named `touched`.
    pub(super) fn begin(&mut self, touched: Touched) {
        self.writable = touched.writable.into_iter().collect();
        self.readable = touched.readable.into_iter().collect();
    }

    /// The record at `key`, or `None` if there is none.
    ///
    /// # Errors
    /// `BadShape` if this operation did not name the key, because a hint was wrong.
    pub fn get<R: Record>(&mut self, key: Key) -> Result<Option<R>, Code> {
        if !self.may_write(&key) && !self.readable.contains(&key) {
            return Err(Code::BadShape);
        }
        let found =
            self.overlay.get(&key).or_else(|| self.block.get(&key)).or_else(|| self.records.get(&key));
        match found {
            Some(Some(slot)) => R::from_slot(slot).map(Some).map_err(|_| self.damage()),
            Some(None) => Ok(None),
            None => Err(self.damage()),
        }
    }

    /// The record at `key`, or `missing` if there is none.
    ///
    /// # Errors
    /// As [`Self::get`], or `missing`.
    pub fn need<R: Record>(&mut self, key: Key, missing: Code) -> Result<R, Code> {
        self.get(key)?.ok_or(missing)
    }

    /// Writes a record. Later steps of this operation see it; it is kept only if the operation succeeds.
    ///
    /// # Errors
    /// `BadShape` if this operation did not name the key as writable.
    pub fn put<R: Record>(&mut self, key: Key, record: &R) -> Result<(), Code> {
        self.set(key, Some(record.to_slot()))
    }

    /// Deletes the record at `key`.
    ///
    /// # Errors
    /// `BadShape` if this operation did not name the key as writable.
    pub fn delete(&mut self, key: Key) -> Result<(), Code> {
        self.set(key, None)
    }

    fn set(&mut self, key: Key, slot: Option<Slot>) -> Result<(), Code> {
        if !self.may_write(&key) {
            return Err(Code::BadShape);
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

    /// Notes that the state is damaged: it lacks a named record, or holds bytes that no version wrote.
    fn damage(&mut self) -> Code {
        self.damaged = true;
        Code::BadShape
    }

    pub(super) fn check_sound(&self) -> Result<(), Invalid> {
        if self.damaged { Err(Invalid::State) } else { Ok(()) }
    }

    /// Runs `work` all or nothing: if it fails, its writes, totals and events are undone.
    ///
    /// # Errors
    /// The error of `work`.
    pub fn atomically<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Code>) -> Result<T, Code> {
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
    pub(super) fn commit(&mut self) {
        self.block.append(&mut self.overlay);
        self.undo.clear();
    }

    /// Ends the block: writes `System` and hands over changes and events.
    pub(super) fn finish(mut self, mut outcome: Outcome) -> Outcome {
        self.system.height = self.context.height;
        self.block.insert(System::key(), Some(self.system.to_slot()));
        outcome.changes = self.block;
        outcome.events = self.events;
        outcome
    }
}
