//! One agreement's data set and its next change. Decides only; moves no bytes.
//!
//! ```text
//!   reserve ─► (shard stored at the provider) ─► queue ─┐
//!                                                        ├─► intent ─► signed: entries, version + 1
//!   drop ──────────────────────────────────► drops ─────┘         └─► refused: back to the callers
//! ```
//!
//! Invariants
//! 1. There is one intent at a time, the same one until it is signed or refused for good.
//! 2. The order of `entries` by sequence is the order of the tree that both sides signed.
//! 3. Leaves in entries, queue and reservations never exceed the quota, except while a change that was
//!    given up is adopted.
//! 4. A change that was given up is remembered until the next version is signed: the ledger may show it.

use crate::{
    catalogue::{
        Agreed, Entry,
        row::{Added, Intent, Removed, SetRow, SignedClaim},
    },
    limits::SIGN_BATCH,
};
use posync_protocol::{
    AgreementId, Bounded, Hash, Signature, operation::DataSetClaim, record::Version, shard, tree::SumTree,
    wire::provider::Sign,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Maximum of given-up intents that are remembered.
const WITHDRAWN_MAX: usize = 8;

/// One agreement's data set.
pub struct State {
    number: u32,
    agreement: AgreementId,
    quota: u64,
    signed: SetRow,
    entries: BTreeMap<u64, Entry>,
    tree: SumTree,
    queue: VecDeque<Added>,
    drops: BTreeSet<u64>,
    intent: Option<Intent>,
    /// Intents given up under the next version; the provider may have signed one of them all the same.
    withdrawn: VecDeque<Intent>,
    held: u64,
    /// Leaves of the entries that are neither wanted nor removed ([`Entry::frozen`]).
    frozen: u64,
    reserved: u64,
    /// Leaves that only the provider counts: shards that it stored unsigned, or that left the data set
    /// and are still in force.
    crowded: u64,
}

/// The entries do not make a tree: the catalogue is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the data set of agreement {0} in the catalogue is not one; restore this gateway's directory")]
pub struct Damaged(pub u32);

/// Leaves of a shard of `bytes`.
pub fn leaves(bytes: u64) -> u64 {
    shard::leaves(bytes)
}

fn pair(added: &Added) -> (Hash, u64) {
    (added.name, u64::from(added.bytes))
}

impl State {
    /// Resumes the state that the catalogue holds.
    ///
    /// # Errors
    /// [`Damaged`].
    pub(crate) fn new(
        number: u32,
        agreement: AgreementId,
        quota: u64,
        signed: SetRow,
        entries: BTreeMap<u64, Entry>,
        intent: Option<Intent>,
    ) -> Result<Self, Damaged> {
        let shards: Vec<_> = entries.values().map(|entry| pair(&entry.added)).collect();
        let tree = SumTree::new(&shards).ok_or(Damaged(number))?;
        let removed = |entry: &Entry| entry.dropped && !entry.frozen;
        let drops = entries.iter().filter(|(_, entry)| removed(entry)).map(|(s, _)| *s).collect();
        let frozen = entries.values().filter(|entry| entry.frozen);
        let frozen = frozen.map(|entry| leaves(entry.added.bytes.into())).fold(0, u64::saturating_add);
        let queue = VecDeque::new();
        let held = tree.leaves();
        let (intent_before, reserved) = (None, 0);
        let mut state = Self {
            number,
            agreement,
            quota,
            signed,
            entries,
            tree,
            queue,
            drops,
            intent: intent_before,
            withdrawn: VecDeque::new(),
            held,
            frozen,
            reserved,
            crowded: 0,
        };
        if let Some(intent) = intent {
            state.reserved = intent.adds.iter().map(|a| leaves(a.bytes.into())).sum();
            intent.removes.iter().for_each(|removed| _ = state.drops.remove(&removed.sequence));
            state.apply(&intent).ok_or(Damaged(number))?;
            state.intent = Some(intent);
        }
        Ok(state)
    }

    /// Leaves held, queued and reserved, plus those that only the provider counts.
    pub const fn load(&self) -> u64 {
        self.held.saturating_add(self.reserved).saturating_add(self.crowded)
    }

    /// Treats the agreement as full until [`Self::uncrowd`], as its provider says. True if that is new.
    pub(crate) const fn crowd(&mut self) -> bool {
        let is_new = self.crowded == 0;
        self.crowded = 0;
        self.crowded = self.quota.saturating_sub(self.load());
        is_new
    }

    /// Forgets the leaves that only the provider counted: they may be gone by now.
    pub(crate) const fn uncrowd(&mut self) {
        self.crowded = 0;
    }

    /// Numbers of shards and bytes that both sides signed for.
    pub fn totals(&self) -> (u64, u64) {
        let bytes = self.entries.values().map(|entry| u64::from(entry.added.bytes)).sum();
        (self.entries.len() as u64, bytes)
    }

    /// Last version that both sides signed.
    pub const fn version(&self) -> u64 {
        self.signed.version
    }

    /// Claim that the provider is asked to sign, if any.
    pub(crate) fn intended(&self) -> Option<DataSetClaim> {
        self.intent.as_ref().map(|intent| intent.claim)
    }

    /// The entries that are not marked for removal.
    pub fn live(&self) -> Vec<Added> {
        self.entries.values().filter(|entry| !entry.dropped).map(|entry| entry.added).collect()
    }

    /// Leaves of the entries that are not marked for removal.
    pub fn live_leaves(&self) -> u64 {
        let removes =
            self.intent.iter().flat_map(|intent| intent.removes.iter().map(|removed| removed.sequence));
        let dropped = self.drops.iter().copied().chain(removes);
        let of = |sequence| self.entries.get(&sequence).map_or(0, |entry| leaves(entry.added.bytes.into()));
        self.held.saturating_sub(dropped.map(of).fold(self.frozen, u64::saturating_add))
    }

    /// True if there are entries that are neither wanted nor removed.
    pub(crate) const fn is_frozen(&self) -> bool {
        self.frozen > 0
    }

    /// True if a shard is on its way into the data set: its room is reserved, or its signature is awaited.
    pub(crate) fn is_coming(&self) -> bool {
        self.reserved > 0 || !self.queue.is_empty()
    }

    /// True if any entry is not marked for removal.
    pub fn is_live(&self) -> bool {
        self.entries.values().any(|entry| !entry.dropped)
    }

    /// All signed entries, including those marked for removal.
    pub(crate) fn all(&self) -> Vec<Added> {
        self.entries.values().map(|entry| entry.added).collect()
    }

    /// True if there is no entry, no queued shard, no intent and no reservation.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.queue.is_empty() && self.intent.is_none() && self.reserved == 0
    }

    /// Reserves room for a shard of `bytes`; `false` if it does not fit the quota.
    pub(crate) fn reserve(&mut self, bytes: u64) -> bool {
        let load = self.load().saturating_add(leaves(bytes));
        if load <= self.quota {
            self.reserved += leaves(bytes);
        }
        load <= self.quota
    }

    /// Frees the room of a shard that did not arrive.
    pub(crate) fn release(&mut self, bytes: u64) {
        self.reserved = self.reserved.saturating_sub(leaves(bytes));
    }

    /// Queues a shard that the provider stored, for which room was reserved.
    pub(crate) fn queue(&mut self, added: Added) {
        self.queue.push_back(added);
    }

    /// Gives up a queued shard and frees its room; `false` if it is not queued (any more).
    pub(crate) fn unqueue(&mut self, name: &Hash) -> bool {
        let Some(place) = self.queue.iter().position(|added| added.name == *name) else { return false };
        let added = self.queue.remove(place).expect("found above");
        self.release(added.bytes.into());
        true
    }

    /// Marks entries for removal. Returns those that were in force.
    pub fn drop_entries(&mut self, sequences: impl IntoIterator<Item = u64>) -> Vec<Added> {
        let mut dropped = Vec::new();
        for sequence in sequences {
            if let Some(entry) = self.entries.get_mut(&sequence)
                && !std::mem::replace(&mut entry.dropped, true)
            {
                dropped.push(entry.added);
                self.drops.insert(sequence);
            }
        }
        dropped
    }

    /// Records which entries found no place in their segments; the catalogue keeps them elsewhere until
    /// they are removed. Returns their sequences.
    pub(crate) fn relocate(&mut self, orphans: &[Added]) -> BTreeSet<u64> {
        let mut strays = BTreeSet::new();
        for orphan in orphans {
            if let Some(entry) = self.entries.get_mut(&orphan.sequence)
                && entry.added.file != orphan.file
            {
                entry.added = *orphan;
                strays.insert(orphan.sequence);
            }
        }
        strays
    }

    /// The next change to ask of the provider: the same until [`Self::sign`] or [`Self::refuse`]. The
    /// ledger refuses a data set that shrinks soon after it grew, so without `may_shrink` at most as many
    /// leaves are removed as are added. The other removals wait and hold up no additions.
    pub(crate) fn next_intent(&mut self, may_shrink: bool) -> Option<Intent> {
        if self.intent.is_none() {
            let count = self.queue.len().min(SIGN_BATCH);
            let adds: Vec<Added> = self
                .queue
                .drain(..count)
                .zip(self.signed.sequence..)
                .map(|(added, sequence)| Added { sequence, ..added })
                .collect();
            let room = adds.iter().map(|added| leaves(added.bytes.into())).sum();
            let removes = self.take_drops(if may_shrink { u64::MAX } else { room });
            if !(adds.is_empty() && removes.is_empty()) {
                self.intend(adds, removes);
            }
        }
        self.intent.clone()
    }

    /// Takes the next entries to remove, of at most `room` leaves together.
    fn take_drops(&mut self, mut room: u64) -> Vec<Removed> {
        let mut removes = Vec::new();
        for sequence in &self.drops {
            let added = &self.entries[sequence].added;
            let size = leaves(added.bytes.into());
            if size > room || removes.len() == SIGN_BATCH {
                break;
            }
            room -= size;
            removes.push(Removed { file: added.file, segment: added.segment, sequence: *sequence });
        }
        removes.iter().for_each(|removed| _ = self.drops.remove(&removed.sequence));
        removes
    }

    fn intend(&mut self, adds: Vec<Added>, removes: Vec<Removed>) {
        let bounded = "at most a batch was taken";
        let mut intent = Intent {
            claim: DataSetClaim {
                agreement: self.agreement,
                version: self.signed.version + 1,
                root: [0; 32],
                leaves: 0,
                bytes: 0,
            },
            adds: Bounded::new(adds).expect(bounded),
            removes: Bounded::new(removes).expect(bounded),
        };
        self.apply(&intent).expect("positions of entries, room was reserved");
        intent.claim.root = self.tree.root();
        intent.claim.leaves = self.tree.leaves();
        intent.claim.bytes = self.tree.bytes();
        self.intent = Some(intent);
    }

    /// Applies an intent to the tree, not to the entries; `None` if it does not fit the tree.
    fn apply(&mut self, intent: &Intent) -> Option<()> {
        let adds: Vec<_> = intent.adds.iter().map(pair).collect();
        self.tree.change(&self.positions(intent), &adds)
    }

    fn positions(&self, intent: &Intent) -> Vec<u32> {
        if intent.removes.is_empty() {
            return Vec::new();
        }
        let removes: BTreeSet<u64> = intent.removes.iter().map(|removed| removed.sequence).collect();
        (0..).zip(self.entries.keys()).filter(|(_, s)| removes.contains(s)).map(|(place, _)| place).collect()
    }

    /// The wire form of an intent, signed with the storage key.
    pub(crate) fn request(&self, intent: &Intent, signature: Signature) -> Sign {
        let bounded = "a batch is below the wire's bound";
        Sign {
            claim: intent.claim,
            adds: Bounded::new(intent.adds.iter().map(pair).collect()).expect(bounded),
            removes: Bounded::new(self.positions(intent)).expect(bounded),
            signature,
        }
    }

    /// Puts the intent, which the provider signed, in force. Returns the changes to record, if there is one.
    pub(crate) fn sign(&mut self, signature: Signature) -> Option<Agreed> {
        let intent = self.intent.take()?;
        for removed in intent.removes.iter() {
            self.entries.remove(&removed.sequence);
        }
        self.withdrawn.clear();
        self.held = intent.claim.leaves;
        for added in intent.adds.iter() {
            self.entries.insert(added.sequence, Entry { added: *added, dropped: false, frozen: false });
            self.release(added.bytes.into());
        }
        self.signed.version = intent.claim.version;
        self.signed.sequence += intent.adds.len() as u64;
        Some(Agreed {
            agreement: self.number,
            row: self.signed,
            claim: SignedClaim { claim: intent.claim, signature },
            adds: intent.adds.into_inner(),
            removes: intent.removes.into_inner(),
        })
    }

    /// Gives up the intent, which the provider refused for good. Returns the shards that are not added.
    pub(crate) fn refuse(&mut self) -> Vec<Added> {
        let Some(intent) = self.intent.take() else { return Vec::new() };
        intent.adds.iter().for_each(|added| self.release(added.bytes.into()));
        self.undo(&intent);
        self.withdrawn.truncate(WITHDRAWN_MAX - 1);
        self.withdrawn.push_front(intent.clone());
        intent.adds.into_inner()
    }

    /// Takes an intent out of the tree; its removals wait again.
    fn undo(&mut self, intent: &Intent) {
        self.drops.extend(intent.removes.iter().map(|removed| removed.sequence));
        let shards: Vec<_> = self.entries.values().map(|entry| pair(&entry.added)).collect();
        self.tree = SumTree::new(&shards).expect("these entries made a tree before");
    }

    /// True if the ledger's last version is the intent. An intent that was given up becomes the intent again
    /// if the ledger shows it; the additions of the one in its place go back to the queue.
    pub(crate) fn adopt(&mut self, last: &Version) -> bool {
        let is_shown = |claim: &DataSetClaim| (claim.version, claim.root) == (last.version, last.root);
        if self.intended().as_ref().is_some_and(is_shown) {
            return true;
        }
        let Some(place) = self.withdrawn.iter().position(|intent| is_shown(&intent.claim)) else {
            return false;
        };
        let shown = self.withdrawn.remove(place).expect("found above");
        if let Some(other) = self.intent.take() {
            self.undo(&other);
            other.adds.into_inner().into_iter().rev().for_each(|added| self.queue.push_front(added));
        }
        self.reserved += shown.adds.iter().map(|added| leaves(added.bytes.into())).sum::<u64>();
        shown.removes.iter().for_each(|removed| _ = self.drops.remove(&removed.sequence));
        self.apply(&shown).expect("nothing was signed since it was applied before");
        self.intent = Some(shown);
        true
    }

    /// Empties the state of an agreement that is gone. Returns all entries that it held.
    pub(crate) fn clear(&mut self) -> Vec<Added> {
        let all = self.all();
        self.entries.clear();
        self.drops.clear();
        self.intent = None;
        self.withdrawn.clear();
        (self.held, self.frozen) = (0, 0);
        self.tree = SumTree::new(&[]).expect("nothing is a tree");
        all
    }
}
