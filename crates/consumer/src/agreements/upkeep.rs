//! The jobs under way for the agreements, and their pauses after a refusal. A look starts paid work and
//! goes on: it never waits for an operation to become final.
//!
//! Invariants
//! 1. At most one instance of each [`Job`] is under way.
//! 2. After a refusal a job pauses, each time for twice as long: a permanent refusal costs ever fewer
//!    fees.

use commonware_utils::sync::{Mutex, MutexGuard};
use posync_protocol::{Account, Code};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Length of the first pause, in blocks.
const PAUSE_BLOCKS: u64 = 8;
/// Most times that a pause doubles.
const DOUBLINGS: u32 = 10;

/// Work that costs fees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Job {
    /// Open agreements with a provider.
    Open(Account),
    /// Add money to an agreement's voucher reserve.
    TopUp(u32),
    /// Close an agreement on the ledger.
    Close(u32),
    /// Look up the openings whose outcome is unknown.
    LookUp,
    /// Remove agreements that are over.
    Reclaim,
    /// Submit a signed refusal of a provider.
    Refusal(Account),
}

#[derive(Default)]
struct Jobs {
    busy: BTreeSet<Job>,
    /// By job, the refusals in a row and the height at which its pause ends.
    pauses: BTreeMap<Job, (u32, u64)>,
}

/// The jobs of one account.
#[derive(Clone, Default)]
pub(crate) struct Upkeep(Arc<Mutex<Jobs>>);

/// A job that is under way until this is dropped.
pub(super) struct Busy {
    job: Job,
    upkeep: Upkeep,
}

impl Upkeep {
    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.0.lock()
    }

    /// Takes a job at `height`; `None` while it is under way or pauses.
    pub(super) fn take(&self, job: Job, height: u64) -> Option<Busy> {
        let mut jobs = self.lock();
        let pauses = jobs.pauses.get(&job).is_some_and(|(_, until)| height < *until);
        (!pauses && jobs.busy.insert(job)).then(|| Busy { job, upkeep: self.clone() })
    }

    /// Ends the pauses of an agreement's jobs: its number stands for another agreement now.
    pub(super) fn forget(&self, number: u32) {
        let of = |job: &Job| matches!(job, Job::TopUp(of) | Job::Close(of) if *of == number);
        self.lock().pauses.retain(|job, _| !of(job));
    }

    /// The providers with which agreements are being opened.
    pub(crate) fn opening(&self) -> BTreeSet<Account> {
        let of = |job: &Job| if let Job::Open(account) = job { Some(*account) } else { None };
        self.lock().busy.iter().filter_map(of).collect()
    }
}

impl Busy {
    /// Ends the pauses of a job that succeeded.
    pub(super) fn done(&self) {
        self.upkeep.lock().pauses.remove(&self.job);
    }

    /// Pauses a job that was refused, or was not final in time, at `height`.
    pub(super) fn refused(&self, height: u64) {
        let mut jobs = self.upkeep.lock();
        let (times, until) = jobs.pauses.entry(self.job).or_default();
        *until = height.saturating_add(PAUSE_BLOCKS << (*times).min(DOUBLINGS));
        *times = times.saturating_add(1);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.upkeep.lock().busy.remove(&self.job);
    }
}

/// Returns true if the answer to a close means that the agreement is closed.
pub(super) const fn is_closed(code: Code) -> bool {
    matches!(code, Code::Done | Code::AgreementClosed | Code::AgreementEnded | Code::AgreementUnknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_under_way_once() {
        let upkeep = Upkeep::default();
        let open = Job::Open(Account([1; 32]));
        let busy = upkeep.take(open, 0).expect("free");
        assert!(upkeep.take(open, 0).is_none() && upkeep.opening().len() == 1, "one is under way");
        assert!(upkeep.take(Job::Close(1), 0).is_some(), "another is not held up");
        drop(busy);
        assert!(upkeep.opening().is_empty() && upkeep.take(open, 0).is_some());
    }

    #[test]
    fn what_is_refused_for_ever_is_asked_ever_less_often() {
        let upkeep = Upkeep::default();
        let asked = |job, heights: std::ops::Range<u64>| {
            let refused =
                |height: &u64| upkeep.take(job, *height).map(|busy| busy.refused(*height)).is_some();
            heights.filter(refused).collect::<Vec<_>>()
        };
        assert_eq!(asked(Job::TopUp(3), 0..130), [0, 8, 24, 56, 120]);
        assert!(asked(Job::TopUp(3), 130..100_000).len() < 20, "never for good");
        assert_eq!(asked(Job::TopUp(4), 0..8), [0], "each agreement by itself");
        let busy = upkeep.take(Job::TopUp(3), 1 << 40).expect("its pause is over");
        busy.done();
        drop(busy);
        assert_eq!(asked(Job::TopUp(3), 0..9), [0, 8], "from the beginning");
    }

    #[test]
    fn only_an_answer_that_says_so_closes_an_agreement() {
        let closed: Vec<Code> = Code::ALL.iter().copied().filter(|code| is_closed(*code)).collect();
        let mut expected =
            vec![Code::Done, Code::AgreementUnknown, Code::AgreementClosed, Code::AgreementEnded];
        expected.sort();
        assert_eq!(closed, expected);
    }
}
