//! Durable list of agreements found in blocks, and the progress of the search.
//!
//! ```text
//!   registration                                              newest block
//!      |--- searched ---|-- missed: no node kept it --|--- searched ---|next ...
//! ```
//!
//! Bounded by the provider's slots and by agreements that were cleared but not yet proved gone.

use crate::journal::{Error, Journal};
use commonware_storage::Context;
use posync_protocol::{AgreementId, encoded, tagged};
use std::{collections::BTreeMap, ops::Range};

/// Blocks searched in one tick.
pub(super) const BLOCKS_A_TICK: u64 = 32;

encoded! {
    /// Progress of the search through blocks.
    #[derive(Copy, Default)]
    Reach {
        /// The first block that was not searched.
        next: u64,
        /// The first block that no node kept when it was requested, and the first one after the gap.
        missed: (u64, u64),
    }
}

impl Reach {
    /// The same, limited to the registration that began at the height `born`.
    pub(super) fn since(self, born: u64) -> Self {
        let born = born.max(1);
        let (first, end) = self.missed;
        Self { next: self.next.max(born), missed: (first.max(born), end.max(born)) }
    }

    /// True if a gap of blocks that no node kept is left.
    pub(super) const fn is_missing(&self) -> bool {
        self.missed.0 < self.missed.1
    }

    /// The blocks to search next, up to `height`, the newest; the missed ones if they may be requested again
    /// and few others wait.
    pub(super) fn ahead(&self, height: u64, again: bool) -> Option<Range<u64>> {
        let (new, missed) = (self.next..height + 1, self.missed.0..self.missed.1);
        let few = height < self.next.saturating_add(BLOCKS_A_TICK);
        let ahead = if again && few && self.is_missing() { missed } else { new };
        (!ahead.is_empty()).then_some(ahead)
    }

    /// Notes that the blocks `from..done` were searched; no effect if no range begins at `from` now.
    pub(super) fn looked(mut self, from: u64, done: u64) -> Self {
        if from == self.next {
            self.next = done;
        } else if from == self.missed.0 {
            self.missed.0 = done;
        }
        self
    }

    /// Notes that no node keeps the blocks `from..kept`; the search continues at `kept`.
    pub(super) fn skip(self, from: u64, kept: u64) -> Self {
        let first = if self.is_missing() { self.missed.0.min(from) } else { from };
        Self { next: kept, missed: (first, kept) }
    }

    /// Notes that every agreement that existed at `height` is known.
    pub(super) fn agreed(self, height: u64) -> Self {
        Self { next: self.next.max(height + 1), missed: (0, 0) }
    }
}

tagged! {
    /// A record of the journal of found agreements.
    Record {
        0 => Found(AgreementId),
        1 => Gone(AgreementId),
        2 => Looked(Reach),
    }
}

/// Last proof of a found agreement; empty after a start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Proof {
    /// Certified height of the proof.
    pub(super) height: u64,
    /// The epoch from which on the agreement is over.
    pub(super) over: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    reach: Reach,
    found: BTreeMap<AgreementId, Proof>,
}

/// The found agreements, with their journal.
pub(crate) struct Finds<E: Context> {
    journal: Journal<E, Record>,
    state: State,
}

impl<E: Context> Finds<E> {
    /// Opens the journal of found agreements.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) async fn open(context: E, partition: &str) -> Result<Self, Error> {
        let (journal, state) = Journal::open(context, partition, apply, snapshot, hurt).await?;
        let mut finds = Self { journal, state };
        finds.shorten().await?;
        Ok(finds)
    }

    /// The progress of the search.
    pub(super) const fn reach(&self) -> Reach {
        self.state.reach
    }

    /// Found agreements that are not proved gone, with their last proofs.
    pub(super) fn all(&self) -> impl Iterator<Item = (&AgreementId, &Proof)> {
        self.state.found.iter()
    }

    /// The last proof of an agreement, if it is one of these.
    pub(super) fn proof(&self, id: &AgreementId) -> Option<Proof> {
        self.state.found.get(id).copied()
    }

    /// Notes that an agreement was proved to exist.
    pub(super) fn note(&mut self, id: &AgreementId, proof: Proof) {
        if let Some(last) = self.state.found.get_mut(id).filter(|last| last.height <= proof.height) {
            *last = proof;
        }
    }

    /// Keeps found agreements and the progress of the search, durably.
    ///
    /// # Errors
    /// The disk failed.
    pub(super) async fn keep(&mut self, found: Vec<AgreementId>, reach: Reach) -> Result<(), Error> {
        let new = found.into_iter().filter(|id| !self.state.found.contains_key(id)).map(Record::Found);
        let moved = (reach != self.state.reach).then_some(Record::Looked(reach));
        self.write(new.chain(moved).collect()).await
    }

    /// Drops an agreement that was proved gone, durably.
    ///
    /// # Errors
    /// The disk failed.
    pub(super) async fn drop_gone(&mut self, id: AgreementId) -> Result<(), Error> {
        let known = self.state.found.contains_key(&id);
        self.write(known.then_some(Record::Gone(id)).into_iter().collect()).await
    }

    async fn write(&mut self, records: Vec<Record>) -> Result<(), Error> {
        if records.is_empty() {
            return Ok(());
        }
        self.journal.keep(&records).await?;
        self.journal.seal().await?;
        records.into_iter().for_each(|record| apply(&mut self.state, record));
        self.shorten().await
    }

    async fn shorten(&mut self) -> Result<(), Error> {
        if self.journal.is_long(self.state.found.len() as u64) {
            self.journal.snapshot(snapshot(&self.state)).await?;
        }
        Ok(())
    }
}

/// Restarts the search after damage: a found agreement may be forgotten, and blocks are searched while the
/// ledger counts more than are known.
fn hurt(state: &mut State) {
    state.reach = Reach::default();
}

fn snapshot(state: &State) -> Vec<Record> {
    let found = state.found.keys().copied().map(Record::Found);
    found.chain([Record::Looked(state.reach)]).collect()
}

fn apply(state: &mut State, record: Record) {
    match record {
        Record::Found(id) => {
            state.found.entry(id).or_default();
        }
        Record::Gone(id) => {
            state.found.remove(&id);
        }
        Record::Looked(reach) => state.reach = reach,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixtures::id,
        power_cut::{CUTS, Cut, power_cut},
    };
    use commonware_runtime::{Supervisor as _, deterministic};

    fn slot(slot: u32) -> AgreementId {
        AgreementId { slot, ..id() }
    }

    /// Finds one in every block, drops every second one; returns the number of steps that succeeded.
    async fn work(context: Cut<deterministic::Context>) -> u32 {
        let Ok(mut finds) = Finds::open(context, "finds").await else { return 0 };
        for step in 1..=8 {
            let reach = finds.reach().looked(finds.reach().next, step.into());
            if finds.keep(vec![slot(step)], reach).await.is_err() {
                return step - 1;
            }
            if step % 2 == 0 && finds.drop_gone(slot(step - 1)).await.is_err() {
                return step;
            }
        }
        8
    }

    #[test]
    fn what_was_found_and_looked_through_survives_a_power_cut_at_every_operation() {
        for cut in CUTS {
            let mut operation = 0;
            while !power_cut(operation, cut, work, |context, done| async move {
                let finds = Finds::open(context.child("again"), "finds").await.expect("recovers");
                assert!(finds.reach().next >= u64::from(done));
                let kept = |step: &u32| finds.proof(&slot(*step)).is_some();
                // The last odd one may have been dropped already.
                assert!((1..=done).filter(|step| step % 2 == 0).all(|step| kept(&step)), "{done}");
                assert!(!(1..done.saturating_sub(1)).filter(|step| step % 2 == 1).any(|step| kept(&step)));
                // Progress and finds are kept together: the search passes no block whose find was lost.
                let next = u32::try_from(finds.reach().next).expect("small");
                assert!(next == 0 || kept(&next) || kept(&(next + 1)), "{next}");
            }) {
                operation += 1;
            }
            assert!(operation > 8, "{operation}");
        }
    }

    #[test]
    fn a_snapshot_holds_the_same_state() {
        let mut state = State { reach: Reach { next: 9, missed: (3, 5) }, found: BTreeMap::new() };
        state.found.extend([1, 2].map(|place| (slot(place), Proof::default())));
        let mut again = State::default();
        snapshot(&state).into_iter().for_each(|record| apply(&mut again, record));
        assert_eq!(again, state);
    }

    #[test]
    fn blocks_that_no_node_keeps_are_asked_for_after_all_others() {
        let reach = Reach::default().since(7);
        assert_eq!(reach.ahead(99, true), Some(7..100));
        let reach = reach.looked(7, 10).skip(10, 50);
        assert_eq!(reach.ahead(99, true), Some(50..100));
        let reach = reach.looked(50, 100);
        assert_eq!(reach.looked(70, 80), reach, "the counts agreed while it was under way");
        assert_eq!(reach.ahead(99, true), Some(10..50));
        assert_eq!(reach.ahead(101, true), Some(10..50), "although the chain goes on");
        assert_eq!(reach.ahead(101, false), Some(100..102));
        assert_eq!(reach.ahead(99, false), None);
        // Another node keeps the end of the gap.
        let reach = reach.looked(10, 12).skip(12, 40);
        assert_eq!(reach.ahead(99, true), Some(40..100));
        let reach = reach.looked(40, 100).looked(12, 40);
        assert!(!reach.is_missing() && reach.ahead(99, true).is_none());
        // Two gaps become one; once the counts agree there is none.
        let twice = Reach { next: 20, missed: (3, 5) }.skip(20, 30);
        assert_eq!(twice, Reach { next: 30, missed: (3, 30) });
        assert_eq!(twice.agreed(40), Reach { next: 41, missed: (0, 0) });
        assert_eq!(twice.since(60).ahead(59, true), None, "nothing of an earlier life");
    }
}
