//! Keeps the providers that are suspected of a loss because they are silent, and decides when their shards
//! are rebuilt elsewhere. Moves no bytes.
//!
//! ```text
//!   late on a draw, twice no slice of what it holds ─► suspected ──a slice──► withdrawn, nothing happened
//!                                                          └─ for the grace period ─► rebuilt beside it
//! ```
//!
//! Invariants
//! 1. Silence is not loss: a suspected holder's shard counts and is read until another provider has
//!    signed for the same shard.
//! 2. Silence is measured by the time that the gateway has waited, never by a wall clock: while the gateway itself is
//!    stopped, no provider counts as silent. The time is kept in the catalogue, so that a gateway that restarts often
//!    repairs all the same; but nothing is rebuilt before this process has asked in vain, too ([`Suspects::is_confirmed`]).
//! 3. A provider is silent if it does not answer, or answers and serves no slice of a shard that it
//!    holds. It is not silent if this gateway is the reason that it cannot read (no running
//!    agreement, quota or reserve used up).
//! 4. No shard of a segment is replaced while too few of its holders are free of suspicion: the segment
//!    could not be rebuilt, and the suspected holders are needed.

use crate::{
    catalogue::row::Silence,
    coding::{DATA, SHARDS},
};
use commonware_utils::sync::{Mutex, MutexGuard};
use posync_protocol::{Account, limits::Parameters};
use std::{collections::BTreeMap, time::Duration};

/// The grace period is an epoch divided by this: six hours in production.
const WHOLE_PART: u64 = 4;
/// The same for segments near the fewest holders that suffice: one hour in production.
const SHORT_PART: u64 = 24;
/// Lower bound of the grace period, for the short epochs of a local network: longer than every timeout.
const WHOLE_LEAST: Duration = Duration::from_secs(120);
const SHORT_LEAST: Duration = Duration::from_secs(60);
/// Lower bound of a grace period that an operator chooses: an epoch divided by this, a minute in production, in which a
/// provider restarts and answers the slowest read. At least ten seconds on a local network.
const CHOSEN_PART: u64 = 1_440;
const CHOSEN_LEAST: Duration = Duration::from_secs(10);
/// The longest pause between two reads from a suspect, as a part of the network's shorter grace period: 15 minutes in
/// production.
const PAUSE_PART: u32 = 4;
/// Looks of this process that a provider must leave unanswered before its shards are rebuilt.
const LOOKS_LEAST: u32 = 3;
/// Pause after the first read from a suspect, and how often it doubles.
const READ_PAUSE: Duration = Duration::from_secs(2);
const READ_DOUBLINGS: u32 = 16;
/// A segment with at most this many holders free of suspicion is near the fewest that suffice.
const NEAR: usize = DATA + 1;

/// Times for which a provider may be silent before its shards are rebuilt elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grace {
    /// Grace period of a segment with holders to spare.
    pub whole: Duration,
    /// Grace period of a segment that can lose one more holder at most.
    pub short: Duration,
    /// Longest pause between two reads from a suspect, whatever the operator chose: a read may be paid.
    pub pause: Duration,
    /// Least time for which this process itself has waited for a provider before its shards are rebuilt, and most time
    /// that is not written down. A provider restarts in it.
    pub own: Duration,
}

/// State of a position of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HolderState {
    /// No provider holds it.
    Open,
    /// Its holder is not suspected.
    Live,
    /// Its holder has been silent for this time.
    Silent(Duration),
}

/// True if a segment can still be read without the holder of `without`: enough others are free of
/// suspicion. Silent ones do not count, since they may never answer again.
pub(crate) fn suffice(places: &[HolderState; SHARDS], without: Option<usize>) -> bool {
    let others = (0..SHARDS).filter(|position| Some(*position) != without);
    others.filter(|position| places[*position] == HolderState::Live).count() >= DATA
}

impl Grace {
    /// The grace periods of a network with these parameters, or the one that the operator chose. A segment near
    /// its fewest holders waits no longer for that.
    pub(crate) fn of(p: &Parameters, chosen: Option<Duration>) -> Self {
        let epoch = p.epoch_blocks().saturating_mul(p.block_ms);
        let part = |part: u64, least: Duration| Duration::from_millis(epoch / part).max(least);
        let (whole, short) = (part(WHOLE_PART, WHOLE_LEAST), part(SHORT_PART, SHORT_LEAST));
        let own = part(CHOSEN_PART, CHOSEN_LEAST);
        let whole = chosen.map_or(whole, |chosen| chosen.max(own));
        Self { whole, short: short.min(whole), pause: short / PAUSE_PART, own }
    }

    /// Positions of a segment whose silent holders are due for replacement.
    pub(crate) fn overdue(&self, places: &[HolderState; SHARDS]) -> Vec<usize> {
        let live = places.iter().filter(|place| **place == HolderState::Live).count();
        let limit = if live <= NEAR { self.short } else { self.whole };
        let is_overdue =
            |place: &HolderState| matches!(place, HolderState::Silent(silent) if *silent >= limit);
        let overdue = (0..SHARDS).filter(|position| is_overdue(&places[*position]));
        if live < DATA { Vec::new() } else { overdue.collect() }
    }
}

#[derive(Clone, Copy, Debug)]
struct Suspect {
    silent: Duration,
    /// The part of its silence that this process has seen, and the looks that found it silent.
    own: Duration,
    looks: u32,
    was_trusted: bool,
    /// Reads from it that it did not serve, and the silence at which the next one is due.
    reads: u32,
    due: Duration,
}

impl Suspect {
    /// A suspect that has been silent for `silent`, and that this process has not looked at.
    const fn new(silent: Duration, was_trusted: bool) -> Self {
        Self { silent, own: Duration::ZERO, looks: 0, was_trusted, reads: 0, due: silent }
    }
}

/// The suspected providers, each with the time for which it has been silent.
#[derive(Debug, Default)]
pub(crate) struct Suspects(Mutex<BTreeMap<Account, Suspect>>);

impl Suspects {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Account, Suspect>> {
        self.0.lock()
    }

    /// Suspects a provider from now on. True if it was not suspected before.
    pub(crate) fn suspect(&self, provider: Account, was_trusted: bool) -> bool {
        let mut all = self.lock();
        let is_new = !all.contains_key(&provider);
        all.entry(provider).or_insert_with(|| Suspect::new(Duration::ZERO, was_trusted));
        is_new
    }

    /// Takes up the silences that an earlier process left. Those providers are suspected from now on, and the next look
    /// at each withdraws or confirms that.
    pub(crate) fn resume(&self, silences: Vec<Silence>) {
        let mut all = self.lock();
        for Silence { provider, seconds } in silences {
            all.insert(provider, Suspect::new(Duration::from_secs(seconds), true));
        }
    }

    /// The suspects with their silence, in order, for the next process.
    pub(crate) fn silences(&self) -> Vec<Silence> {
        let of = |(provider, suspect): (&Account, &Suspect)| Silence {
            provider: *provider,
            seconds: suspect.silent.as_secs(),
        };
        self.lock().iter().map(of).collect()
    }

    /// Records that a look found a suspect silent. True for the first look of this process.
    pub(crate) fn confirm(&self, provider: &Account) -> bool {
        let mut all = self.lock();
        let Some(suspect) = all.get_mut(provider) else { return false };
        suspect.looks = suspect.looks.saturating_add(1);
        suspect.looks == 1
    }

    /// True if this process itself has looked at a suspect in vain, often and for long enough.
    pub(crate) fn is_confirmed(&self, provider: &Account, grace: &Grace) -> bool {
        let is_enough = |suspect: &Suspect| suspect.looks >= LOOKS_LEAST && suspect.own >= grace.own;
        self.lock().get(provider).is_some_and(is_enough)
    }

    /// Withdraws the suspicion of a provider that serves again. Returns how long it was silent and the
    /// trust that it had before; `None` if it was not suspected.
    pub(crate) fn withdraw(&self, provider: &Account) -> Option<(Duration, bool)> {
        self.lock().remove(provider).map(|suspect| (suspect.silent, suspect.was_trusted))
    }

    /// Adds the time that this process waited to the silence of every suspect.
    pub(crate) fn wait(&self, waited: Duration) {
        for suspect in self.lock().values_mut() {
            suspect.silent = suspect.silent.saturating_add(waited);
            suspect.own = suspect.own.saturating_add(waited);
        }
    }

    /// Resets the silence of a suspect that answers but cannot be read from for a reason of this gateway.
    /// It stays suspected until it serves.
    pub(crate) fn spare(&self, provider: &Account) {
        let reset = |suspect: &mut Suspect| {
            let next = suspect.due.saturating_sub(suspect.silent);
            (suspect.silent, suspect.due) = (Duration::ZERO, next);
            (suspect.own, suspect.looks) = (Duration::ZERO, 0);
        };
        self.lock().get_mut(provider).into_iter().for_each(reset);
    }

    /// True if a suspect that answers is due to be read from. The next read is due after a pause that doubles, up to
    /// `most`.
    pub(crate) fn is_due(&self, provider: &Account, most: Duration) -> bool {
        let mut all = self.lock();
        let Some(suspect) = all.get_mut(provider) else { return false };
        if suspect.silent < suspect.due {
            return false;
        }
        let pause = READ_PAUSE.saturating_mul(1 << suspect.reads.min(READ_DOUBLINGS)).min(most);
        suspect.due = suspect.silent.saturating_add(pause);
        suspect.reads = suspect.reads.saturating_add(1);
        true
    }

    /// Time for which a provider has been silent; `None` if it is not suspected.
    pub(crate) fn silent_for(&self, provider: &Account) -> Option<Duration> {
        self.lock().get(provider).map(|suspect| suspect.silent)
    }

    /// Accounts of all suspected providers.
    pub(crate) fn all(&self) -> Vec<Account> {
        self.lock().keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{HolderState::*, *};

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_grace_period_is_hours_in_production_and_longer_than_every_timeout_locally() {
        let production =
            Grace { whole: secs(6 * 3_600), short: secs(3_600), pause: secs(900), own: secs(60) };
        assert_eq!(Grace::of(&Parameters::PRODUCTION, None), production);
        let local = Grace { whole: secs(120), short: secs(60), pause: secs(15), own: secs(10) };
        assert_eq!(Grace::of(&Parameters::LOCAL, None), local);
    }

    #[test]
    fn an_operator_chooses_the_grace_period_but_not_less_than_a_restart_takes() {
        for (chosen, whole, short) in [
            (secs(86_400), 86_400, 3_600),
            (secs(7_200), 7_200, 3_600),
            (secs(90), 90, 90),
            (secs(1), 60, 60),
        ] {
            let grace = Grace::of(&Parameters::PRODUCTION, Some(chosen));
            assert_eq!(
                grace,
                Grace { whole: secs(whole), short: secs(short), pause: secs(900), own: secs(60) },
                "{chosen:?}"
            );
        }
        assert_eq!(Grace::of(&Parameters::LOCAL, Some(secs(1))).whole, secs(10));
    }

    #[test]
    fn silent_holders_are_replaced_after_their_grace_and_never_when_others_do_not_suffice() {
        let grace = Grace::of(&Parameters::LOCAL, None);
        let places = |silent: &[u64], open: usize| -> [HolderState; SHARDS] {
            std::array::from_fn(|at| match silent.get(at) {
                Some(silent) => Silent(secs(*silent)),
                None if at < silent.len() + open => Open,
                None => Live,
            })
        };
        for (what, silent, open, overdue) in [
            ("nobody is silent", vec![], 0, vec![]),
            ("within the grace period", vec![119], 0, vec![]),
            ("over", vec![120, 3], 0, vec![0]),
            ("three silent, five live: near the fewest", vec![60, 59, 60], 0, vec![0, 2]),
            ("two silent, six live", vec![60, 119], 0, vec![]),
            ("one silent, two open: near as well", vec![60], 2, vec![0]),
            ("four live", vec![60, 60, 60, 60], 0, vec![0, 1, 2, 3]),
            ("three live: it could not be rebuilt", vec![9_999; 5], 0, vec![]),
            ("all silent", vec![9_999; 8], 0, vec![]),
        ] {
            assert_eq!(grace.overdue(&places(&silent, open)), overdue, "{what}");
        }
    }

    #[test]
    fn silent_holders_are_no_reason_to_give_up_a_damaged_shard() {
        let silent = Silent(Duration::ZERO);
        for (what, places, suffices) in [
            ("all others answer", [Live; SHARDS], true),
            ("four others answer", [Live, Live, Live, Live, Live, silent, silent, Open], true),
            ("three others answer", [Live, Live, Live, Live, silent, silent, silent, silent], false),
            (
                "four others answer and it does not",
                [silent, Live, Live, Live, Live, silent, Open, Open],
                true,
            ),
            ("nobody else answers", [Live, silent, silent, silent, silent, silent, silent, silent], false),
        ] {
            assert_eq!(suffice(&places, Some(0)), suffices, "{what}");
        }
        let others = [Live, Live, Live, Live, Open, Open, Open, Open];
        assert!(suffice(&others, None), "a second holder is none of the four");
    }

    #[test]
    fn a_suspect_that_serves_nothing_is_read_from_ever_less_often_and_at_least_at_the_longest_pause() {
        let (suspects, who) = (Suspects::default(), Account([7; 32]));
        assert!(!suspects.is_due(&who, secs(15)), "it is no suspect");
        suspects.suspect(who, true);
        let mut reads = Vec::new();
        for second in 0..60 {
            if suspects.is_due(&who, secs(15)) {
                reads.push(second);
            }
            suspects.wait(secs(1));
        }
        assert_eq!(reads, [0, 2, 6, 14, 29, 44, 59]);
        suspects.spare(&who);
        assert!(!suspects.is_due(&who, secs(15)), "its silence begins anew, the pause does not");
        suspects.wait(secs(14));
        assert!(suspects.is_due(&who, secs(15)));
    }

    #[test]
    fn an_answer_withdraws_the_suspicion_and_the_next_silence_begins_anew() {
        let (suspects, who) = (Suspects::default(), Account([7; 32]));
        suspects.wait(secs(100));
        assert_eq!(suspects.silent_for(&who), None);
        assert!(suspects.suspect(who, true));
        suspects.wait(secs(100));
        assert!(!suspects.suspect(who, false), "it is suspected already");
        suspects.wait(secs(10));
        assert_eq!(suspects.withdraw(&who), Some((secs(110), true)));
        assert_eq!(suspects.withdraw(&who), None);
        assert!(suspects.suspect(who, false));
        assert_eq!(suspects.silent_for(&who), Some(Duration::ZERO));
    }

    #[test]
    fn a_silence_goes_on_after_a_restart_and_is_due_only_when_the_new_process_has_seen_it_too() {
        let (grace, who) = (Grace::of(&Parameters::PRODUCTION, None), Account([7; 32]));
        let before = Suspects::default();
        before.suspect(who, true);
        before.wait(secs(21_599));
        let after = Suspects::default();
        after.resume(before.silences());
        assert_eq!(after.silent_for(&who), Some(secs(21_599)));
        assert!(after.is_due(&who, secs(900)), "it is read from at once");
        let looks = |count: u32| (0..count).map(|_| after.confirm(&who)).filter(|first| *first).count();
        after.wait(secs(3_600 * 24));
        assert!(!after.is_confirmed(&who, &grace), "a long silence that this process did not hear");
        assert_eq!(looks(2), 1);
        assert!(!after.is_confirmed(&who, &grace), "two looks");
        assert_eq!(looks(1), 0);
        assert!(after.is_confirmed(&who, &grace));
        after.spare(&who);
        assert!(!after.is_confirmed(&who, &grace), "it answered meanwhile");
        looks(9);
        after.wait(secs(59));
        assert!(!after.is_confirmed(&who, &grace), "less than a restart takes");
        after.wait(secs(1));
        assert!(after.is_confirmed(&who, &grace));
        assert_eq!(after.silences(), [Silence { provider: who, seconds: 60 }], "what it waited since then");
        after.withdraw(&who);
        assert!(!after.is_confirmed(&who, &grace) && !after.confirm(&who) && after.silences().is_empty());
    }
}
