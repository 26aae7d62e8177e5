//! Which segments wait for repair, and who is to blame: decides, moves no bytes.
//!
//! Invariants
//! 1. A segment waits at most once; one that could not be repaired is tried again at the next tick.
//! 2. A fault collects what one provider lost until all of it is rebuilt; what it loses afterwards
//!    is a new fault.

use crate::{catalogue::row::FaultRow, coding::FileId};
use posync_protocol::Account;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A segment.
pub type Task = (FileId, u32);

/// How a loss was found, as in [`posync_protocol::wire::gateway::Fault::found_by`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FoundBy {
    /// It did not answer a draw in time, and does not answer us.
    Late = 0,
    /// A draw found reads missing, and so did we.
    Draw = 1,
    /// A read of ours.
    Read = 2,
    /// It says so itself.
    Scrub = 3,
}

/// What waits and who failed.
#[derive(Default)]
pub struct State {
    ready: VecDeque<Task>,
    later: Vec<Task>,
    known: BTreeSet<Task>,
    running: BTreeSet<Task>,
    again: BTreeSet<Task>,
    faults: BTreeMap<Account, (Option<u64>, FaultRow)>,
}

impl State {
    /// A segment lacks a holder.
    pub fn push(&mut self, task: Task) {
        if self.running.contains(&task) {
            self.again.insert(task);
        } else if self.known.insert(task) {
            self.ready.push_back(task);
        }
    }

    /// The next segment to repair.
    pub fn pop(&mut self) -> Option<Task> {
        let task = self.ready.pop_front()?;
        self.running.insert(task);
        Some(task)
    }

    /// The repair ended; `whole` if nothing is left to do. What was reported meanwhile is done again.
    pub fn done(&mut self, task: Task, whole: bool) {
        self.running.remove(&task);
        self.known.remove(&task);
        if self.again.remove(&task) {
            self.push(task);
        } else if !whole {
            self.known.insert(task);
            self.later.push(task);
        }
    }

    /// Time passed: what could not be repaired is tried again.
    pub fn tick(&mut self) {
        self.ready.extend(self.later.drain(..));
    }

    /// Segments that wait or are being repaired.
    pub fn open(&self) -> usize {
        self.known.len()
    }

    /// A provider lost `shards`. The row to write, and its number if it has one.
    pub fn lost(
        &mut self,
        provider: Account,
        found_by: FoundBy,
        round: u64,
        shards: u32,
    ) -> (Option<u64>, FaultRow) {
        let fresh = FaultRow { provider, found_by: found_by as u8, round, lost: 0, repaired: 0 };
        let fault = self.faults.entry(provider).or_insert((None, fresh));
        fault.1.lost = fault.1.lost.saturating_add(shards);
        *fault
    }

    /// The fault was written under this number.
    pub fn numbered(&mut self, provider: &Account, number: u64) {
        if let Some(fault) = self.faults.get_mut(provider) {
            fault.0 = Some(number);
        }
    }

    /// A shard that a provider lost is rebuilt. The row to write, if it has a number.
    pub fn repaired(&mut self, provider: &Account) -> Option<(u64, FaultRow)> {
        let fault = self.faults.get_mut(provider)?;
        fault.1.repaired = fault.1.repaired.saturating_add(1);
        let (number, row) = (fault.0?, fault.1);
        if row.repaired >= row.lost {
            self.faults.remove(provider);
        }
        Some((number, row))
    }

    /// Faults that were open when the gateway stopped.
    pub fn resume(&mut self, faults: Vec<(u64, FaultRow)>) {
        for (number, row) in faults.into_iter().filter(|(_, row)| row.repaired < row.lost) {
            self.faults.insert(row.provider, (Some(number), row));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Task = ([1; 16], 0);
    const B: Task = ([1; 16], 1);

    #[test]
    fn a_segment_waits_once_and_is_tried_again() {
        let mut state = State::default();
        for task in [A, B, A] {
            state.push(task);
        }
        assert_eq!((state.pop(), state.open()), (Some(A), 2));
        state.push(A);
        state.done(A, true);
        assert_eq!(state.open(), 2, "reported while it was repaired: once more");
        assert_eq!((state.pop(), state.pop(), state.pop()), (Some(B), Some(A), None));
        state.done(B, false);
        assert_eq!(state.pop(), None, "not before a tick");
        state.done(A, true);
        state.tick();
        assert_eq!((state.pop(), state.open()), (Some(B), 1));
        state.done(B, true);
        assert_eq!(state.open(), 0);
    }

    #[test]
    fn a_fault_collects_until_it_is_repaired() {
        let (mut state, who) = (State::default(), Account([7; 32]));
        let (number, row) = state.lost(who, FoundBy::Draw, 5, 2);
        assert_eq!((number, row.lost, row.found_by, row.round), (None, 2, 1, 5));
        state.numbered(&who, 9);
        let (number, row) = state.lost(who, FoundBy::Scrub, 8, 1);
        assert_eq!(
            (number, row.lost, row.found_by, row.round),
            (Some(9), 3, 1, 5),
            "the first finder counts"
        );
        let left = |state: &mut State| state.repaired(&who).map(|(n, row)| (n, row.repaired));
        assert_eq!([left(&mut state), left(&mut state)], [Some((9, 1)), Some((9, 2))]);
        assert_eq!(left(&mut state), Some((9, 3)));
        assert_eq!(left(&mut state), None, "closed");
        assert_eq!(state.lost(who, FoundBy::Read, 11, 1).0, None, "a new one");
    }
}
