//! The segments that wait for repair, and the providers at fault. Decides only; moves no bytes.
//!
//! Invariants
//! 1. A segment waits at most once; one that could not be repaired is tried again at the next tick. If its shards were
//!    read in vain, which costs egress, it waits for twice as long each time, up to [`WAIT_MAX`] ticks, unless
//!    something new is found missing.
//! 2. A fault collects the shards that one provider lost until all of them are repaired; a later loss
//!    is a new fault.
//! 3. What is owed is known by segment, position and provider: a shard that is found missing twice is lost
//!    once, and two providers that lose the same position have a fault each.
//! 4. The provider that lost a shard is remembered here until the shard has a holder again: the data set
//!    forgets the shard as soon as the provider signs, which may be before the repair begins.

use crate::catalogue::{FileId, row::FaultRow};
use posync_protocol::Account;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Most ticks that a segment waits after its shards were read in vain: about nine minutes.
const WAIT_MAX: u64 = 1 << 8;

/// A segment to repair: its file and its number in the file.
pub(crate) type Task = (FileId, u32);

/// How a loss was found, as in [`posync_protocol::wire::gateway::Fault::found_by`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FoundBy {
    /// The provider was late on a draw, and silent to this gateway for the grace period.
    Late = 0,
    /// A draw made the provider suspect, and a read by this gateway confirmed the loss.
    Draw = 1,
    /// A read by this gateway failed.
    Read = 2,
    /// The provider's own scrub reported it.
    Scrub = 3,
}

/// A lost shard that has no holder yet.
#[derive(Clone, Copy, Debug)]
struct Owed {
    found_by: FoundBy,
    /// True if the loss was found while the segment was repaired: that repair may have come before it.
    during: bool,
}

/// The repair queue, and the faults of providers.
#[derive(Default)]
pub(crate) struct State {
    ready: VecDeque<Task>,
    /// Segments that could not be repaired, and the tick at which each is tried again.
    later: BTreeMap<Task, u64>,
    ticks: u64,
    /// Ticks that a segment waited last after its shards were read in vain.
    waits: BTreeMap<Task, u64>,
    known: BTreeSet<Task>,
    running: BTreeSet<Task>,
    again: BTreeSet<Task>,
    faults: BTreeMap<Account, (Option<u64>, FaultRow)>,
    owed: BTreeMap<Task, BTreeMap<(u8, Account), Owed>>,
    resumed: BTreeSet<Task>,
    earlier: BTreeMap<Account, u32>,
}

/// The result of a repair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rebuilt {
    /// True if no position of the segment is missing any more.
    pub whole: bool,
    /// Positions that have a holder again.
    pub positions: Vec<u8>,
    /// True if shards of the segment were read.
    pub read: bool,
}

impl State {
    /// Queues a segment that lacks a holder, or has it repaired once more if its repair is running.
    pub(crate) fn push(&mut self, task: Task) {
        if self.running.contains(&task) {
            self.again.insert(task);
        } else if self.known.insert(task) || self.later.remove(&task).is_some() {
            self.ready.push_back(task);
        }
    }

    /// Has a segment that could not be repaired wait.
    fn put_off(&mut self, task: Task, rebuilt: &Rebuilt) {
        let in_vain = rebuilt.read && rebuilt.positions.is_empty();
        let wait = if in_vain {
            let wait = self.waits.entry(task).or_default();
            *wait = wait.saturating_mul(2).clamp(1, WAIT_MAX);
            *wait
        } else {
            1
        };
        self.known.insert(task);
        self.later.insert(task, self.ticks.saturating_add(wait));
    }

    /// Takes the next segment to repair.
    pub(crate) fn pop(&mut self) -> Option<Task> {
        let task = self.ready.pop_front()?;
        self.running.insert(task);
        Some(task)
    }

    /// The providers that lost a shard of a segment: a rebuilt shard goes to none of them.
    pub(crate) fn owed(&self, task: &Task) -> BTreeSet<Account> {
        self.owed.get(task).into_iter().flat_map(|lost| lost.keys().map(|(_, who)| *who)).collect()
    }

    /// Ends a repair; a segment that was reported meanwhile is queued again. Returns the changed faults, to
    /// be written.
    pub(crate) fn done(&mut self, task: Task, rebuilt: &Rebuilt) -> Vec<(u64, FaultRow)> {
        self.running.remove(&task);
        self.known.remove(&task);
        let again = self.again.remove(&task);
        if rebuilt.whole {
            self.waits.remove(&task);
        }
        if again {
            self.push(task);
        } else if !rebuilt.whole {
            self.put_off(task, rebuilt);
        }
        let mut owed = self.owed.remove(&task).unwrap_or_default();
        let whole = rebuilt.whole && !again;
        let restored = |position: &u8| whole || rebuilt.positions.contains(position);
        let is_closed = |(position, _): &(u8, Account), lost: &mut Owed| restored(position) && !lost.during;
        let closed: Vec<Account> = owed.extract_if(.., is_closed).map(|((_, who), _)| who).collect();
        owed.values_mut().for_each(|lost| lost.during = false);
        if !owed.is_empty() {
            self.owed.insert(task, owed);
        }
        let mut changed: Vec<_> = closed.iter().filter_map(|who| self.repaired(who, 1)).collect();
        if whole && self.resumed.remove(&task) && self.resumed.is_empty() {
            changed.extend(self.settle_earlier());
        }
        changed
    }

    /// Closes the shards that were missing at the start, once all segments open then are whole.
    fn settle_earlier(&mut self) -> Vec<(u64, FaultRow)> {
        let earlier = std::mem::take(&mut self.earlier);
        earlier.iter().filter_map(|(who, shards)| self.repaired(who, *shards)).collect()
    }

    /// Queues again the segments that could not be repaired and have waited.
    pub(crate) fn tick(&mut self) {
        self.ticks = self.ticks.saturating_add(1);
        let ticks = self.ticks;
        self.ready.extend(self.later.extract_if(.., |_, due| *due <= ticks).map(|(task, _)| task));
    }

    /// Number of segments that wait or are being repaired.
    pub(crate) fn open(&self) -> usize {
        self.known.len()
    }

    /// Records that a provider lost these shards; those that it owes already count once, and are no longer
    /// taken back once they are known not to be only late. Returns the fault's row to write, and its number if any.
    pub(crate) fn lost(
        &mut self,
        provider: Account,
        found_by: FoundBy,
        round: u64,
        shards: &[(Task, u8)],
    ) -> (Option<u64>, FaultRow) {
        let mut new = 0u32;
        for (task, position) in shards {
            let during = self.running.contains(task);
            let owed = self.owed.entry(*task).or_default();
            let known = owed.entry((*position, provider)).or_insert_with(|| {
                new = new.saturating_add(1);
                Owed { found_by, during }
            });
            if known.found_by == FoundBy::Late {
                known.found_by = found_by;
            }
        }
        let fresh = FaultRow { provider, found_by: found_by as u8, round, lost: 0, repaired: 0 };
        let fault = self.faults.entry(provider).or_insert((None, fresh));
        fault.1.lost = fault.1.lost.saturating_add(new);
        *fault
    }

    /// True if a provider is known to have lost a position.
    pub(crate) fn is_owed(&self, task: &Task, position: u8, provider: &Account) -> bool {
        self.owed.get(task).is_some_and(|lost| lost.contains_key(&(position, *provider)))
    }

    /// Takes back the losses of a provider that was only silent and answers again. Returns the fault to
    /// write.
    pub(crate) fn withdraw(&mut self, provider: &Account) -> Option<(u64, FaultRow)> {
        let mut back = 0u32;
        for lost in self.owed.values_mut() {
            let is_back = |(_, who): &(u8, Account), lost: &mut Owed| {
                *who == *provider && lost.found_by == FoundBy::Late
            };
            back =
                back.saturating_add(u32::try_from(lost.extract_if(.., is_back).count()).unwrap_or(u32::MAX));
        }
        self.owed.retain(|_, lost| !lost.is_empty());
        let fault = self.faults.get_mut(provider).filter(|_| back > 0)?;
        fault.1.lost = fault.1.lost.saturating_sub(back);
        let (number, row) = (fault.0?, fault.1);
        if row.repaired >= row.lost {
            self.faults.remove(provider);
        }
        Some((number, row))
    }

    /// Records the number under which a provider's fault was written.
    pub(crate) fn numbered(&mut self, provider: &Account, number: u64) {
        if let Some(fault) = self.faults.get_mut(provider) {
            fault.0 = Some(number);
        }
    }

    fn repaired(&mut self, provider: &Account, shards: u32) -> Option<(u64, FaultRow)> {
        let fault = self.faults.get_mut(provider)?;
        fault.1.repaired = fault.1.repaired.saturating_add(shards);
        let (number, row) = (fault.0?, fault.1);
        if row.repaired >= row.lost {
            self.faults.remove(provider);
        }
        Some((number, row))
    }

    /// Resumes after a stop with the open faults and the segments without eight holders. The disk does not
    /// say which provider lost which shard, so these faults close when the last of the segments is whole.
    /// Returns the changed faults, to be written.
    pub(crate) fn resume(&mut self, faults: Vec<(u64, FaultRow)>, open: Vec<Task>) -> Vec<(u64, FaultRow)> {
        for (number, row) in faults.into_iter().filter(|(_, row)| row.repaired < row.lost) {
            self.earlier.insert(row.provider, row.lost - row.repaired);
            self.faults.insert(row.provider, (Some(number), row));
        }
        self.resumed.extend(&open);
        open.into_iter().for_each(|task| self.push(task));
        if self.resumed.is_empty() { self.settle_earlier() } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Task = ([1; 16], 0);
    const B: Task = ([1; 16], 1);

    fn whole() -> Rebuilt {
        Rebuilt { whole: true, ..Rebuilt::default() }
    }

    #[test]
    fn a_segment_that_was_read_in_vain_waits_longer_each_time_until_something_new_is_missing() {
        let mut state = State::default();
        let in_vain = Rebuilt { read: true, ..Rebuilt::default() };
        let tried = |state: &mut State, rebuilt: &Rebuilt, ticks: std::ops::Range<u32>| {
            let mut at = Vec::new();
            for tick in ticks {
                if let Some(task) = state.pop() {
                    state.done(task, rebuilt);
                    at.push(tick);
                }
                state.tick();
            }
            at
        };
        state.push(A);
        assert_eq!(tried(&mut state, &in_vain, 0..40), [0, 1, 3, 7, 15, 31]);
        state.push(A);
        assert_eq!(tried(&mut state, &in_vain, 40..42), [40], "another of its shards is missing");
        assert!(tried(&mut state, &in_vain, 42..3_000).len() > 10, "never for good");
        state.push(A);
        let free = Rebuilt::default();
        assert_eq!(tried(&mut state, &free, 0..4), [0, 1, 2, 3], "what costs nothing is tried at each tick");
        let some = Rebuilt { read: true, positions: vec![1], ..Rebuilt::default() };
        assert_eq!(tried(&mut state, &some, 4..8), [4, 5, 6, 7], "it goes on");
    }

    #[test]
    fn a_segment_waits_once_and_is_tried_again() {
        let mut state = State::default();
        for task in [A, B, A] {
            state.push(task);
        }
        assert_eq!((state.pop(), state.open()), (Some(A), 2));
        state.push(A);
        state.done(A, &whole());
        assert_eq!(state.open(), 2, "reported while it was repaired: once more");
        assert_eq!((state.pop(), state.pop(), state.pop()), (Some(B), Some(A), None));
        state.done(B, &Rebuilt::default());
        assert_eq!(state.pop(), None, "not before a tick");
        state.done(A, &whole());
        state.tick();
        assert_eq!((state.pop(), state.open()), (Some(B), 1));
        state.done(B, &whole());
        assert_eq!(state.open(), 0);
    }

    fn figures(changed: Vec<(u64, FaultRow)>) -> Vec<(u64, u32, u32)> {
        changed.into_iter().map(|(number, row)| (number, row.lost, row.repaired)).collect()
    }

    #[test]
    fn a_fault_collects_until_it_is_repaired() {
        let (mut state, who) = (State::default(), Account([7; 32]));
        let (number, row) = state.lost(who, FoundBy::Draw, 5, &[(A, 0), (B, 3)]);
        assert_eq!((number, row.lost, row.found_by, row.round), (None, 2, 1, 5));
        state.numbered(&who, 9);
        let (number, row) = state.lost(who, FoundBy::Scrub, 8, &[(A, 1)]);
        let of = (number, row.lost, row.found_by, row.round);
        assert_eq!(of, (Some(9), 3, 1, 5), "the first finder counts");
        assert_eq!(state.owed(&A), [who].into(), "no rebuilt shard goes back to it");
        let first = Rebuilt { positions: vec![1], ..Rebuilt::default() };
        assert_eq!(figures(state.done(A, &first)), [(9, 3, 1)]);
        assert_eq!(figures(state.done(B, &whole())), [(9, 3, 2)], "or its file was removed");
        assert_eq!(figures(state.done(A, &whole())), [(9, 3, 3)]);
        assert_eq!(figures(state.done(A, &whole())), [], "closed");
        assert!(state.owed(&A).is_empty());
        assert_eq!(state.lost(who, FoundBy::Read, 11, &[(A, 0)]).0, None, "a new one");
    }

    #[test]
    fn a_loss_during_the_repair_waits_for_the_next() {
        let (mut state, one, two) = (State::default(), Account([1; 32]), Account([2; 32]));
        state.lost(one, FoundBy::Late, 5, &[(A, 4)]);
        state.numbered(&one, 0);
        state.push(A);
        assert_eq!(state.pop(), Some(A));
        state.lost(two, FoundBy::Read, 5, &[(A, 6)]);
        state.numbered(&two, 1);
        state.push(A);
        let of_one = Rebuilt { positions: vec![4], ..whole() };
        assert_eq!(figures(state.done(A, &of_one)), [(0, 1, 1)]);
        assert_eq!(state.pop(), Some(A));
        assert_eq!(figures(state.done(A, &whole())), [(1, 1, 1)]);
    }

    #[test]
    fn what_was_only_silent_is_taken_back_and_what_was_damaged_is_not() {
        let (mut state, who) = (State::default(), Account([7; 32]));
        state.lost(who, FoundBy::Late, 5, &[(A, 0), (B, 3)]);
        state.numbered(&who, 4);
        assert!(state.is_owed(&A, 0, &who) && !state.is_owed(&A, 1, &who));
        state.lost(who, FoundBy::Scrub, 5, &[(A, 1)]);
        let back = state.withdraw(&who).into_iter().collect();
        assert_eq!(figures(back), [(4, 1, 0)], "one was damaged");
        assert!(!state.is_owed(&A, 0, &who) && state.is_owed(&A, 1, &who));
        assert_eq!(state.withdraw(&who), None);
        assert_eq!(figures(state.done(A, &whole())), [(4, 1, 1)]);
        assert_eq!(state.owed(&B), BTreeSet::new());
    }

    #[test]
    fn a_shard_that_is_owed_already_is_lost_once_however_often_it_is_found() {
        let (mut state, who) = (State::default(), Account([7; 32]));
        state.lost(who, FoundBy::Late, 5, &[(A, 0), (B, 3)]);
        state.numbered(&who, 4);
        let (number, row) = state.lost(who, FoundBy::Scrub, 6, &[(A, 0)]);
        assert_eq!((number, row.lost), (Some(4), 2), "its scrub says what is known");
        assert_eq!(state.lost(who, FoundBy::Late, 6, &[(A, 0)]).1.lost, 2);
        let back = state.withdraw(&who).into_iter().collect();
        assert_eq!(figures(back), [(4, 1, 0)], "what its scrub reported is not only silent");
        assert!(state.is_owed(&A, 0, &who) && !state.is_owed(&B, 3, &who));
        state.lost(who, FoundBy::Read, 7, &[(A, 0)]);
        assert_eq!(figures(state.done(A, &whole())), [(4, 1, 1)], "closed");
        assert_eq!(state.lost(who, FoundBy::Read, 8, &[(A, 0)]).0, None, "a new one");
    }

    #[test]
    fn two_providers_that_lose_the_same_position_both_have_a_fault_until_it_is_repaired() {
        let (mut state, one, two) = (State::default(), Account([1; 32]), Account([2; 32]));
        for (who, number) in [(one, 0), (two, 1)] {
            assert_eq!(state.lost(who, FoundBy::Late, 5, &[(A, 4)]).1.lost, 1);
            state.numbered(&who, number);
        }
        assert_eq!(state.owed(&A), [one, two].into(), "no rebuilt shard goes back to either");
        let repaired = Rebuilt { positions: vec![4], ..Rebuilt::default() };
        assert_eq!(figures(state.done(A, &repaired)), [(0, 1, 1), (1, 1, 1)]);
        assert!(state.owed(&A).is_empty());
        state.lost(one, FoundBy::Late, 9, &[(B, 2)]);
        state.lost(two, FoundBy::Read, 9, &[(B, 2)]);
        assert_eq!(state.withdraw(&one), None, "not numbered yet");
        assert!(!state.is_owed(&B, 2, &one) && state.is_owed(&B, 2, &two));
    }

    #[test]
    fn a_position_that_is_lost_again_during_its_repair_waits_for_the_next() {
        let (mut state, one, two) = (State::default(), Account([1; 32]), Account([2; 32]));
        state.lost(one, FoundBy::Late, 5, &[(A, 4)]);
        state.numbered(&one, 0);
        state.push(A);
        assert_eq!(state.pop(), Some(A));
        state.lost(two, FoundBy::Scrub, 5, &[(A, 4)]);
        state.numbered(&two, 1);
        state.push(A);
        let repaired = Rebuilt { positions: vec![4], ..whole() };
        assert_eq!(figures(state.done(A, &repaired)), [(0, 1, 1)]);
        assert_eq!(state.pop(), Some(A));
        assert_eq!(figures(state.done(A, &repaired)), [(1, 1, 1)]);
    }

    #[test]
    fn a_fault_of_before_a_stop_closes_with_the_last_open_segment() {
        let who = Account([7; 32]);
        let row = FaultRow { provider: who, found_by: 0, round: 1, lost: 5, repaired: 2 };
        let mut state = State::default();
        assert_eq!(figures(state.resume(vec![(3, row)], vec![A, B])), []);
        assert_eq!((state.pop(), state.pop()), (Some(A), Some(B)));
        assert_eq!(figures(state.done(A, &whole())), []);
        state.lost(who, FoundBy::Scrub, 9, &[(A, 0)]);
        assert_eq!(figures(state.done(B, &whole())), [(3, 6, 5)], "what it lost since is still open");
        assert_eq!(figures(state.done(A, &whole())), [(3, 6, 6)]);
        assert_eq!(figures(State::default().resume(vec![(3, row)], vec![])), [(3, 5, 5)], "all is whole");
    }
}
