//! The reputation of a provider: its sync score, and the steps from a warning to jail and back.
//!
//! ```text
//!   good --low epoch--> warned --3 in a row--> suspended (away) --good epoch--> good
//!                                       \----> jailed (wrong) --Unjail, later--> probation --> good
//! ```
//!
//! Being away costs new agreements, being wrong costs more; neither costs stake. Every step is an event with
//! its reason, the hash of the row that shows it, and the epoch at which it can be lifted.
//!
//! Invariants
//! 1. A score depends on ratios of measured epochs, never on volume; it stays within [0, ONE] (SC-4).
//! 2. A provider is warned in an epoch before it is suspended or jailed (JL-2).
//! 3. Only a provider that answered is jailed, and for its answers: unanswered reads lower its correctness
//!    and its quality, but are no evidence against it (JL-1, JL-3).
//! 4. Suspension and jail change nothing that was agreed or closed before (JL-4).

use crate::{
    Account, Class, Code, Halt, Hash, PerClass,
    account::debit,
    amount::{ONE, mul_div},
    bodies::Unjail,
    economics::score::{CORRECTNESS_MIN, SCORE_START, quality, update},
    event::{Event, ReputationReason, ReputationStep},
    provider::bond_needed,
    record::{Offer, Provider, QUALITIES, Reputation, Settlement, UNMEASURED},
    service::is_quorum,
    working::{Touched, Working},
};
use alloc::vec::Vec;

/// Epochs in a row without a drawn read after which the storage score starts to fall.
pub const IDLE_GRACE: u32 = 3;
/// Low epochs in a row that suspend or jail.
pub const LOW_EPOCHS: u8 = 3;
/// An epoch with an on-time share below this is low.
pub const AVAILABLE_MIN: u64 = ONE / 2;
/// Epochs of a first stay in jail; each earlier jailing doubles it, up to six times.
pub const JAIL_EPOCHS: u64 = 8;
/// Epochs after which a jailing no longer counts.
pub const JAIL_MEMORY: u64 = 256;
/// Good epochs after jail before a score can rise.
pub const PROBATION: u8 = 3;
/// Lowest passed share and on-time share of a good epoch on probation.
pub const PROBATION_MIN: u64 = ONE / 10 * 9;
/// Reads drawn before the score counts in full.
pub const VETTING_READS: u64 = 64;

impl Reputation {
    /// The reputation of a provider that registers in `epoch` for the first time.
    pub const fn newborn(epoch: u64) -> Self {
        Self {
            registered: epoch,
            scores: PerClass::new(SCORE_START, UNMEASURED, UNMEASURED),
            qualities: [UNMEASURED; QUALITIES],
            idle: 0,
            drawn_at_close: 0,
            answered_at_close: 0,
            low_correct: 0,
            low_egress: 0,
            low_available: 0,
            suspended: 0,
            warned: 0,
            jailed_until: 0,
            jailings: 0,
            last_jailed: 0,
            probation: 0,
            released: 0,
            answered: UNMEASURED,
            latency: 0,
            on_time: UNMEASURED,
            proven: UNMEASURED,
            silent: u8::MAX,
        }
    }

    /// The reputation of an account that registers in `epoch`; `before` is the record of an earlier
    /// registration. Jail, its count and probation carry over; scores start anew (PV-6). The account of a
    /// jailed seat is jailed forever.
    pub(crate) fn reborn(epoch: u64, before: Option<&Self>, is_jailed_seat: bool) -> Self {
        let mut reputation = Self::newborn(epoch);
        if let Some(before) = before {
            reputation.jailed_until = before.jailed_until;
            reputation.jailings = before.jailings;
            reputation.last_jailed = before.last_jailed;
            reputation.probation = before.probation;
            reputation.warned = before.warned;
        }
        if is_jailed_seat || reputation.jailed_until == u64::MAX {
            (reputation.jailed_until, reputation.scores) = (u64::MAX, PerClass::default());
        }
        reputation
    }

    /// Returns true if the record stays after its provider's exit in `epoch`: the provider is jailed, or a
    /// jailing still counts (PV-6).
    pub(crate) fn outlives(&self, epoch: u64) -> bool {
        let counts = self.jailings > 0 && epoch.saturating_sub(self.last_jailed) <= JAIL_MEMORY;
        self.jailed_until != 0 || counts
    }

    /// The sync score: the least over the classes that were ever measured (SC-4).
    pub fn score(&self) -> u64 {
        let measured = self.scores.values().iter().copied().filter(|score| *score != UNMEASURED);
        measured.min().unwrap_or(SCORE_START)
    }

    /// The score, scaled by the part of [`VETTING_READS`] that was drawn in the provider's life (SC-5).
    pub fn effective(&self, drawn: u32) -> u64 {
        let vetted = u128::from(u64::from(drawn).min(VETTING_READS));
        let score = mul_div(self.score().into(), vetted, VETTING_READS.into());
        score.and_then(|score| u64::try_from(score).ok()).unwrap_or(0)
    }
}

/// Checks that the provider takes new agreements (JL-4).
///
/// # Errors
/// `ProviderJailed`, `ProviderSuspended`.
pub fn check_takes(reputation: &Reputation) -> Result<(), Code> {
    if reputation.jailed_until != 0 {
        return Err(Code::ProviderJailed);
    }
    if reputation.suspended != 0 { Err(Code::ProviderSuspended) } else { Ok(()) }
}

/// Checks that a data set at the provider may grow (JL-4). Otherwise an old quota would be a way around jail
/// or suspension.
///
/// # Errors
/// `GrowthJailed`, `GrowthSuspended`.
pub fn check_grows(reputation: &Reputation) -> Result<(), Code> {
    check_takes(reputation).map_err(|code| match code {
        Code::ProviderJailed => Code::GrowthJailed,
        _ => Code::GrowthSuspended,
    })
}

/// Moves the scores by a measured row (SC-3). Storage decays when idle beyond the grace; an unmeasured egress
/// score stays. On probation no score rises; a provider that is jailed forever has no score to move.
pub(crate) fn score(reputation: &mut Reputation, row: &Settlement) {
    if reputation.jailed_until == u64::MAX {
        return;
    }
    for class in [Class::Storage, Class::Egress] {
        let (correct, before) = (row.correct[class].ppb(), reputation.scores[class]);
        let is_idle = class == Class::Storage && reputation.idle > IDLE_GRACE;
        if correct == UNMEASURED && !is_idle {
            continue;
        }
        let start = if before == UNMEASURED { SCORE_START } else { before };
        let quality =
            (correct != UNMEASURED).then(|| quality(correct, row.available.ppb(), row.latency.ppb()));
        let after = update(start, quality, correct < CORRECTNESS_MIN);
        reputation.scores[class] = if reputation.probation > 0 { after.min(start) } else { after };
    }
}

/// A step of a provider's reputation, before it becomes an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReputationChange {
    step: ReputationStep,
    reason: ReputationReason,
    until: u64,
}

impl ReputationChange {
    pub(crate) const fn event(self, provider: Account, epoch: u64, evidence: Hash) -> Event {
        let Self { step, reason, until } = self;
        Event::Reputation { provider, epoch, step, reason, evidence, until }
    }
}

/// Counts the low epochs in a row of each class by itself, and returns the highest count of the classes that
/// are low in this epoch (JL-1, JL-3). An epoch that did not measure a class leaves its count unchanged. So
/// does one in which too few of the newest reads of storage passed, but none of the epoch's own failed: it
/// counts no failure twice, and does not clear an earlier one. Nothing counts in jail, so a warning comes
/// first again after it.
fn count_wrong(reputation: &mut Reputation, row: &Settlement) -> Option<u8> {
    if reputation.jailed_until != 0 || row.epoch < reputation.released {
        return None;
    }
    let is_storage = row.correct[Class::Storage].measured().is_some();
    let storage = match (reputation.proven < CORRECTNESS_MIN, row.wrong > 0) {
        (false, _) => Some(false),
        (true, is_fresh) => is_fresh.then_some(true),
    };
    let egress = row.correct[Class::Egress].measured().map(|correct| correct < CORRECTNESS_MIN);
    let counts =
        [(&mut reputation.low_correct, storage.filter(|_| is_storage)), (&mut reputation.low_egress, egress)];
    let mut highest = None;
    for (count, is_low) in counts {
        match is_low {
            Some(true) if row.answers > 0 => {
                *count = count.saturating_add(1);
                highest = highest.max(Some(*count));
            }
            Some(false) => *count = 0,
            _ => {}
        }
    }
    highest
}

/// Returns true if the epoch is low in availability, false if it is not, and `None` if it says nothing
/// (JL-1). Auditors judge their own epoch. Otherwise too few of the newest challenges were answered on time,
/// and one of this epoch was not: no epoch counts twice against a provider.
fn is_away(reputation: &Reputation, row: &Settlement) -> Option<bool> {
    let is_reported = row.assigned > 0 && is_quorum(row.reported.into(), row.assigned);
    if is_reported && reputation.answered < AVAILABLE_MIN {
        return Some(true);
    }
    match (reputation.on_time < AVAILABLE_MIN, row.late > 0) {
        // What auditors found is not made good by an epoch in which they did not come.
        (false, _) => (is_reported || reputation.answered >= AVAILABLE_MIN).then_some(false),
        (true, is_fresh) => is_fresh.then_some(true),
    }
}

/// Ends the suspension of a provider that has nothing to read, once it answered a challenge (JL-2). It takes
/// no agreements, so no epoch could ever measure it again.
fn resume_idle(reputation: &mut Reputation, row: &Settlement, now: u64) -> Option<ReputationChange> {
    (reputation.suspended != 0 && row.reads == 0 && row.answers > 0).then(|| {
        (reputation.suspended, reputation.low_available) = (0, 0);
        ReputationChange { step: ReputationStep::Resumed, reason: ReputationReason::Availability, until: now }
    })
}

/// Counts low epochs, and warns, suspends, resumes or jails (JL-1, JL-2, JL-3). `now` is the
/// epoch of the block. A provider that is jailed already is not jailed again.
pub(crate) fn judge(reputation: &mut Reputation, row: &Settlement, now: u64) -> Vec<ReputationChange> {
    if row.quality.measured().is_none() {
        return resume_idle(reputation, row, now).into_iter().collect();
    }
    let mut steps = Vec::new();
    let wrong = count_wrong(reputation, row);
    let is_away = is_away(reputation, row);
    match is_away {
        Some(true) => reputation.low_available = reputation.low_available.saturating_add(1),
        Some(false) => reputation.low_available = 0,
        None => {}
    }
    // Jail is for wrong answers: distance, which lowers the quality for ever, keeps no provider on probation.
    let is_good = wrong.is_none() && is_away == Some(false) && row.epoch >= reputation.released;
    if is_good && reputation.probation > 0 && reputation.proven.min(reputation.on_time) >= PROBATION_MIN {
        reputation.probation -= 1;
    }
    let mut step = |step, reason, until| steps.push(ReputationChange { step, reason, until });
    let penalty = |count: u8| now.saturating_add((LOW_EPOCHS - count).into());
    match wrong {
        Some(count) if count >= LOW_EPOCHS => {
            step(ReputationStep::Jailed, ReputationReason::Correctness, jail(reputation, now));
        }
        Some(count) => {
            reputation.warned = now;
            step(ReputationStep::Warned, ReputationReason::Correctness, penalty(count));
        }
        None => {}
    }
    match (is_away, reputation.suspended) {
        (Some(true), 0) if reputation.low_available >= LOW_EPOCHS => {
            reputation.suspended = now;
            step(ReputationStep::Suspended, ReputationReason::Availability, now.saturating_add(1));
        }
        (Some(true), 0) => {
            reputation.warned = now;
            step(ReputationStep::Warned, ReputationReason::Availability, penalty(reputation.low_available));
        }
        (Some(false), since) if since != 0 => {
            reputation.suspended = 0;
            step(ReputationStep::Resumed, ReputationReason::Availability, now);
        }
        _ => {}
    }
    steps
}

/// Jails a provider; returns the first epoch in which it may leave jail.
fn jail(reputation: &mut Reputation, now: u64) -> u64 {
    if now.saturating_sub(reputation.last_jailed) > JAIL_MEMORY {
        reputation.jailings = 0;
    }
    let until = now.saturating_add(JAIL_EPOCHS << reputation.jailings.min(6));
    reputation.jailings = reputation.jailings.saturating_add(1);
    reputation.last_jailed = now;
    reputation.jailed_until = until;
    (reputation.low_correct, reputation.low_egress) = (0, 0);
    until
}

/// Names the records of leaving jail, without the signer's account.
pub(crate) fn touches_unjail(signer: &Account, touched: &mut Touched) {
    touched.writable.extend([Provider::key(signer), Reputation::key(signer)]);
    touched.readable.push(Offer::key(signer));
}

/// Releases a provider from jail after its time, with a sufficient bond, for a burned price (JL-5).
///
/// # Errors
/// `Balance`, `ProviderUnknown`, `BondTooSmall`, `NotJailed`, `JailedStill`.
pub(crate) fn unjail(working: &mut Working<'_>, signer: &Account, body: &Unjail) -> Result<(), Halt> {
    let (context, parameters) = (working.context, &working.context.parameters);
    debit(working, signer, parameters.unjail_burn)?;
    debit(working, signer, body.bond_add)?;
    let system = &mut working.system;
    system.burned.gain(parameters.unjail_burn, "System.burned")?;
    system.bonds.gain(body.bond_add, "System.bonds")?;
    let mut provider: Provider = working.need(Provider::key(signer), Code::ProviderUnknown)?;
    let mut reputation: Reputation = working.kept(Reputation::key(signer))?;
    provider.bond.gain(body.bond_add, "Provider.bond")?;
    let offer: Offer = working.kept(Offer::key(signer))?;
    if provider.bond < bond_needed(offer.capacity[Class::Storage], parameters) {
        return Err(Code::BondTooSmall.into());
    }
    if reputation.jailed_until == 0 {
        return Err(Code::NotJailed.into());
    }
    if context.epoch() < reputation.jailed_until || reputation.jailed_until == u64::MAX {
        return Err(Code::JailedStill.into());
    }
    reputation.jailed_until = 0;
    reputation.released = context.epoch();
    reputation.probation = PROBATION;
    for score in reputation.scores.values_mut().iter_mut().filter(|score| **score != UNMEASURED) {
        *score = (*score).min(SCORE_START);
    }
    working.put(Provider::key(signer), &provider)?;
    working.put(Reputation::key(signer), &reputation)?;
    let step = ReputationChange {
        step: ReputationStep::Unjailed,
        reason: ReputationReason::Request,
        until: context.epoch(),
    };
    working.events.push(step.event(*signer, context.epoch(), Hash::default()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Ratio;

    #[test]
    fn a_stay_in_jail_doubles_for_each_before_it_within_its_memory() {
        for (gap, stay) in [(JAIL_MEMORY, 32), (JAIL_MEMORY + 1, 8)] {
            let mut reputation = Reputation { jailings: 2, last_jailed: 1_000, ..Reputation::newborn(0) };
            assert_eq!(jail(&mut reputation, 1_000 + gap), 1_000 + gap + stay);
        }
    }

    /// The row of an epoch: `wrong` failed reads of storage if any was drawn, and the share of correct bytes
    /// that auditors agreed on, if any looked.
    fn row(wrong: Option<u8>, egress: Option<u64>, answers: u32) -> Settlement {
        let ratio = |share: Option<u64>| share.map_or(Ratio::UNMEASURED, Ratio::new);
        let correct = PerClass::new(ratio(wrong.map(|_| ONE)), ratio(egress), Ratio::UNMEASURED);
        let (quality, wrong) = (Ratio::new(ONE), wrong.unwrap_or(0));
        Settlement { correct, answers, wrong, quality, available: quality, ..Settlement::default() }
    }

    #[test]
    fn each_class_counts_alone_and_each_low_epoch_has_a_failed_read_of_its_own() {
        const LOW: u64 = CORRECTNESS_MIN - 1;
        let mut reputation = Reputation { on_time: ONE, ..Reputation::newborn(0) };
        for (proven, wrong, egress, answers, counts) in [
            (LOW, Some(4), None, 1, (1, 0)),
            // In turn: no read of the epoch failed; only auditors looked; the provider was away.
            (LOW, Some(0), None, 1, (1, 0)),
            (LOW, None, Some(ONE), 1, (1, 0)),
            (LOW, Some(0), Some(0), 0, (1, 0)),
            (LOW, None, Some(0), 1, (1, 1)),
            // Correct storage does not clear wrong egress.
            (CORRECTNESS_MIN, Some(1), None, 1, (0, 1)),
            (ONE, Some(0), Some(LOW), 1, (0, 2)),
            (LOW, Some(1), None, 1, (1, 2)),
            (LOW, Some(1), Some(CORRECTNESS_MIN), 1, (2, 0)),
            (UNMEASURED, Some(0), Some(LOW), 1, (0, 1)),
        ] {
            reputation.proven = proven;
            judge(&mut reputation, &row(wrong, egress, answers), 9);
            let now = (reputation.low_correct, reputation.low_egress);
            assert_eq!(now, counts, "{proven} {wrong:?} {egress:?} {answers}");
        }
    }

    #[test]
    fn probation_ends_with_its_last_good_epoch_and_not_with_others() {
        let mut reputation = Reputation { probation: 2, on_time: ONE, proven: ONE, ..Reputation::newborn(0) };
        let good = row(Some(0), None, 1);
        let left = [ONE, PROBATION_MIN - 1, PROBATION_MIN, ONE].map(|share| {
            (reputation.proven, reputation.on_time) = (ONE, share);
            judge(&mut reputation, &good, 9);
            reputation.probation
        });
        assert_eq!(left, [1, 1, 0, 0]);
        (reputation.probation, reputation.proven) = (1, PROBATION_MIN - 1);
        judge(&mut reputation, &good, 9);
        assert_eq!(reputation.probation, 1);
    }

    #[test]
    fn epochs_in_jail_count_for_nothing_after_it() {
        let jailed = Reputation { released: 5, probation: 2, on_time: ONE, ..Reputation::newborn(0) };
        let mut reputation = Reputation { proven: 0, ..jailed };
        let of = |epoch, wrong| Settlement { epoch, ..row(Some(wrong), None, 1) };
        assert_eq!(judge(&mut reputation, &of(4, 4), 6), []);
        reputation.proven = ONE;
        judge(&mut reputation, &of(4, 0), 6);
        assert_eq!((reputation.low_correct, reputation.probation), (0, 2));
        judge(&mut reputation, &of(5, 0), 7);
        assert_eq!(reputation.probation, 1, "the first epoch after it");
    }

    #[test]
    fn a_bad_epoch_takes_nothing_off_probation() {
        let reputation =
            Reputation { probation: 2, on_time: ONE, proven: ONE, answered: ONE, ..Reputation::newborn(0) };
        let audited = Settlement { assigned: 3, reported: 3, ..row(Some(0), None, 1) };
        let wrong_egress = row(Some(0), Some(0), 1);
        for (answered, row, left) in [(ONE, &audited, 1), (0, &audited, 2), (ONE, &wrong_egress, 2)] {
            let mut reputation = Reputation { answered, ..reputation.clone() };
            judge(&mut reputation, row, 9);
            assert_eq!(reputation.probation, left, "{answered} {row:?}");
        }
    }

    #[test]
    fn an_epoch_without_auditors_makes_nothing_good_that_they_found() {
        let mut reputation = Reputation { on_time: ONE, proven: ONE, answered: 0, ..Reputation::newborn(0) };
        let unaudited = row(Some(0), None, 1);
        let audited = Settlement { assigned: 3, reported: 3, ..unaudited.clone() };
        for (row, low) in [(&audited, 1), (&unaudited, 1), (&audited, 2), (&unaudited, 2), (&audited, 3)] {
            judge(&mut reputation, row, 9);
            assert_eq!(reputation.low_available, low);
        }
        judge(&mut reputation, &unaudited, 9);
        assert_eq!(reputation.suspended, 9, "until they come again, or until it holds nothing");
        reputation.answered = ONE;
        judge(&mut reputation, &audited, 10);
        assert_eq!((reputation.suspended, reputation.low_available), (0, 0));
    }

    #[test]
    fn who_leaves_jail_is_warned_before_the_next_jailing() {
        let jailed = Reputation { jailed_until: 20, on_time: ONE, ..Reputation::newborn(0) };
        let mut reputation = Reputation { proven: 0, ..jailed };
        let steps = |reputation: &mut Reputation| {
            let bad = row(Some(4), Some(0), 1);
            judge(reputation, &bad, 9).iter().map(|step| (step.step, step.until)).collect::<Vec<_>>()
        };
        for _ in 0..4 {
            assert_eq!(steps(&mut reputation), [], "in jail nothing counts");
        }
        reputation.jailed_until = 0;
        assert_eq!(steps(&mut reputation), [(ReputationStep::Warned, 9 + 2)]);
        assert_eq!(steps(&mut reputation), [(ReputationStep::Warned, 9 + 1)]);
        assert_eq!(steps(&mut reputation), [(ReputationStep::Jailed, 9 + JAIL_EPOCHS)]);
        assert_eq!((reputation.low_correct, reputation.low_egress), (0, 0));
    }
}
