//! Durable facts that must be known before an agreement is given up.
//!
//! ```text
//!   floor:  the newest certified height seen by any process of this provider
//!   window: the epoch from which on an agreement's vouchers are worthless, as last proved
//!   gone:   agreements whose absence is proved and confirmed, and from which height on
//! ```
//!
//! Bounded by the provider's agreements. A provider that loses this file only waits longer.

use crate::journal::{Error, Journal};
use commonware_storage::Context;
use posync_protocol::{AgreementId, tagged};
use std::collections::BTreeMap;

tagged! {
    /// A record of the journal of ends.
    Record {
        0 => Floor(u64),
        1 => Window((AgreementId, u64)),
        2 => Gone((AgreementId, u64)),
        3 => Back(AgreementId),
        4 => Dropped(AgreementId),
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    floor: u64,
    windows: BTreeMap<AgreementId, u64>,
    gone: BTreeMap<AgreementId, u64>,
}

/// The ends of agreements, with their journal.
pub(crate) struct Ends<E: Context> {
    journal: Journal<E, Record>,
    state: State,
}

impl<E: Context> Ends<E> {
    /// Opens the journal of ends.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) async fn open(context: E, partition: &str) -> Result<Self, Error> {
        let (journal, state) = Journal::open(context, partition, apply, snapshot, |_| ()).await?;
        let mut ends = Self { journal, state };
        ends.shorten().await?;
        Ok(ends)
    }

    /// The newest certified height that any process of this provider noted: a proof below it is no evidence
    /// of absence.
    pub(super) const fn floor(&self) -> u64 {
        self.state.floor
    }

    /// The first height at which an agreement's absence was proved and confirmed.
    pub(super) fn gone(&self, id: &AgreementId) -> Option<u64> {
        self.state.gone.get(id).copied()
    }

    /// All agreements that are gone and not yet given up, with the heights of the first proof.
    pub(super) fn all_gone(&self) -> impl Iterator<Item = (&AgreementId, &u64)> {
        self.state.gone.iter()
    }

    /// The epoch from which on an agreement's vouchers are worthless, as last proved.
    pub(super) fn window(&self, id: &AgreementId) -> Option<u64> {
        self.state.windows.get(id).copied()
    }

    /// Notes a certified height, durably; it never decreases.
    ///
    /// # Errors
    /// The disk failed.
    pub(super) async fn raise(&mut self, height: u64) -> Result<(), Error> {
        let higher = height > self.state.floor;
        self.write(higher.then_some(Record::Floor(height)).into_iter().collect()).await
    }

    /// Notes when the redemption windows of agreements end, durably.
    ///
    /// # Errors
    /// The disk failed.
    pub(super) async fn note(&mut self, windows: Vec<(AgreementId, u64)>) -> Result<(), Error> {
        let new = windows.into_iter().filter(|(id, over)| self.window(id) != Some(*over));
        let new = new.map(Record::Window).collect();
        self.write(new).await
    }

    /// Notes that an agreement's absence was proved and confirmed at a height, durably.
    ///
    /// # Errors
    /// The disk failed.
    pub(super) async fn lose(&mut self, id: AgreementId, height: u64) -> Result<(), Error> {
        let new = self.gone(&id).is_none();
        self.write(new.then_some(Record::Gone((id, height))).into_iter().collect()).await
    }

    /// Notes that an agreement exists after all, durably.
    ///
    /// # Errors
    /// The disk failed.
    pub(super) async fn find(&mut self, id: AgreementId) -> Result<(), Error> {
        let known = self.gone(&id).is_some();
        self.write(known.then_some(Record::Back(id)).into_iter().collect()).await
    }

    /// Forgets an agreement that was given up, durably.
    ///
    /// # Errors
    /// The disk failed.
    pub(super) async fn forget(&mut self, id: AgreementId) -> Result<(), Error> {
        let known = self.gone(&id).is_some() || self.window(&id).is_some();
        self.write(known.then_some(Record::Dropped(id)).into_iter().collect()).await
    }

    async fn write(&mut self, records: Vec<Record>) -> Result<(), Error> {
        if records.is_empty() {
            return Ok(());
        }
        self.journal.keep(&records).await?;
        records.into_iter().for_each(|record| apply(&mut self.state, record));
        self.shorten().await
    }

    async fn shorten(&mut self) -> Result<(), Error> {
        let size = 1 + self.state.windows.len() + self.state.gone.len();
        if self.journal.is_long(size as u64) {
            self.journal.snapshot(snapshot(&self.state)).await?;
        }
        Ok(())
    }
}

fn snapshot(state: &State) -> Vec<Record> {
    let windows = state.windows.iter().map(|(id, over)| Record::Window((*id, *over)));
    let gone = state.gone.iter().map(|(id, since)| Record::Gone((*id, *since)));
    windows.chain(gone).chain([Record::Floor(state.floor)]).collect()
}

fn apply(state: &mut State, record: Record) {
    match record {
        Record::Floor(height) => state.floor = state.floor.max(height),
        Record::Window((id, over)) => drop(state.windows.insert(id, over)),
        Record::Gone((id, since)) => drop(state.gone.insert(id, since)),
        Record::Back(id) => drop(state.gone.remove(&id)),
        Record::Dropped(id) => {
            state.gone.remove(&id);
            state.windows.remove(&id);
        }
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

    /// Notes a height and an absence in each step; returns the number of steps that succeeded.
    async fn work(context: Cut<deterministic::Context>) -> u64 {
        let Ok(mut ends) = Ends::open(context, "ends").await else { return 0 };
        for step in 1..=8 {
            let slot = AgreementId { slot: u32::try_from(step).expect("small"), ..id() };
            let raised = ends.raise(10 * step).await.is_ok();
            if !raised || ends.note(vec![(slot, step)]).await.is_err() {
                return step - 1;
            }
            if ends.lose(slot, step).await.is_err() {
                return step - 1;
            }
        }
        8
    }

    #[test]
    fn the_floor_and_what_is_gone_survive_a_power_cut_at_every_operation() {
        for cut in CUTS {
            let mut operation = 0;
            while !power_cut(operation, cut, work, |context, done| async move {
                let mut ends = Ends::open(context.child("again"), "ends").await.expect("recovers");
                assert!(ends.floor() >= 10 * done, "{} {done}", ends.floor());
                for step in 1..=done {
                    let slot = AgreementId { slot: u32::try_from(step).expect("small"), ..id() };
                    assert_eq!((ends.gone(&slot), ends.window(&slot)), (Some(step), Some(step)));
                    ends.find(slot).await.expect("durable");
                    assert_eq!((ends.gone(&slot), ends.window(&slot)), (None, Some(step)));
                }
                let floor = ends.floor().max(1);
                ends.raise(1).await.expect("durable");
                assert_eq!(ends.floor(), floor, "it never goes back");
            }) {
                operation += 1;
            }
            assert!(operation > 8, "{operation}");
        }
    }

    #[test]
    fn a_snapshot_holds_the_same_state() {
        let state = State { floor: 9, windows: [(id(), 4)].into(), gone: [(id(), 7)].into() };
        let mut again = State::default();
        snapshot(&state).into_iter().for_each(|record| apply(&mut again, record));
        assert_eq!(again, state);
    }
}
