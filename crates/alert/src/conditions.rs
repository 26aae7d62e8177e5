//! Computes the alerts that hold: pure, from the ledger's records of a provider and the room on its volume.
//!
//! ```text
//!   figures now --> ReadsFail, AnswersLate        (no epoch judged yet)
//!   + low epochs judged --> Warned.., JailNext, SuspendNext --> Jailed, Suspended
//!   open challenge --> ChallengeWaits --> ChallengeExpires
//!   reads missing --> ReadsMissing --> (restitution)
//! ```

use crate::{Alert, Kind, Space};
use posync_protocol::{
    Class,
    amount::ONE,
    books::proven_of,
    economics::score::CORRECTNESS_MIN,
    limits::{HISTORY, Parameters, READS},
    provider::bond_needed,
    record::{Audit, Offer, Provider, Reputation},
    reputation::{AVAILABLE_MIN, LOW_EPOCHS},
};

/// Free bytes below which a volume counts as nearly full, whatever was promised.
const SPACE_MIN: u64 = 1 << 30;

/// The command that ends jail.
const RELEASE: &str = "`posync unjail --dir DIR`";

/// Proven records of a provider at one height, and the room on its volume if that is known.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Constants of the network, from the genesis.
    pub parameters: &'a Parameters,
    /// Height at which the ledger held these records.
    pub height: u64,
    /// Its bond and totals.
    pub provider: &'a Provider,
    /// The capacity and the terms that it declares.
    pub offer: &'a Offer,
    /// Its history of challenges and reads, and its open challenge.
    pub audit: &'a Audit,
    /// Its scores, warnings and penalties; `None` before it registered.
    pub reputation: Option<&'a Reputation>,
    /// Free and promised bytes of its volume.
    pub space: Option<Space>,
}

/// The alerts that hold now, in the order of [`Kind`].
pub fn conditions(facts: &Facts<'_>) -> Vec<Alert> {
    let mut alerts = Vec::new();
    if let Some(reputation) = facts.reputation {
        reads(facts, reputation, &mut alerts);
        answers(facts, reputation, &mut alerts);
    }
    missing(facts, &mut alerts);
    challenge(facts, &mut alerts);
    bond(facts, &mut alerts);
    alerts.extend(facts.space.and_then(low_space));
    alerts.sort_by_key(|alert| alert.kind);
    alerts
}

/// Returns an alert if a volume has less room than was promised of it, or nearly none.
pub fn low_space(space: Space) -> Option<Alert> {
    let Space { free, promised } = space;
    let what = match (free < SPACE_MIN, free < promised) {
        (false, false) => return None,
        (true, false) => format!("{free} bytes are free on the volume"),
        (_, true) => format!("{free} bytes are free on the volume, and {promised} are under contract"),
    };
    let next = "what cannot be stored is refused, and a refusal cuts the declared capacity; a full volume \
                takes no more data: free space, or declare less";
    Some(Alert { kind: Kind::LowSpace, what, next: next.into(), due: None })
}

/// Counts the set bits among the newest `count` of a history; also returns how many bits were counted.
fn newest(history: u64, count: u64) -> (u64, u64) {
    let count = count.min(HISTORY.into());
    let mask = if count >= 64 { u64::MAX } else { (1 << count) - 1 };
    ((history & mask).count_ones().into(), count)
}

/// True if `part` is less than `share` (of [`ONE`]) of `whole`.
const fn is_below(part: u64, whole: u64, share: u64) -> bool {
    (part as u128 * ONE as u128) < whole as u128 * share as u128
}

impl Facts<'_> {
    fn epoch(&self) -> u64 {
        self.parameters.epoch(self.height)
    }

    /// Epoch in which the third low epoch in a row is judged, if every epoch from now on is low.
    fn judged(&self, low: u8) -> u64 {
        self.epoch().saturating_add(LOW_EPOCHS.saturating_sub(low).into())
    }
}

/// Alerts about answered reads that were not proved: failing, warned, jail next, in jail.
fn reads(facts: &Facts<'_>, reputation: &Reputation, alerts: &mut Vec<Alert>) {
    if reputation.jailed_until != 0 {
        let stays = "no new agreements and no new data; what it holds is read and paid";
        let (what, next, due) = match reputation.jailed_until {
            u64::MAX => ("in jail for ever".to_owned(), stays.to_owned(), None),
            until => {
                let next = format!("{stays}: mend the cause; from that epoch on {RELEASE} releases it");
                (format!("in jail until epoch {until}"), next, Some(until))
            }
        };
        if reputation.jailed_until <= facts.epoch() {
            let what = format!("its term in jail ended in epoch {}", reputation.jailed_until);
            let next = format!(
                "it stays in jail until {RELEASE} releases it: mend the cause first, as the next jailing is twice as long"
            );
            alerts.push(Alert { kind: Kind::JailOver, what, next, due });
        }
        alerts.push(Alert { kind: Kind::Jailed, what, next, due });
        return;
    }
    // As the ledger judges (JL-1): unanswered reads are no evidence of damage.
    let Audit { history, silent, drawn, .. } = facts.audit;
    let (passed, drawn) = ((history & !silent).count_ones(), (*drawn).min(HISTORY));
    let answered = drawn.saturating_sub(silent.count_ones());
    let fails = proven_of(facts.audit) < CORRECTNESS_MIN;
    let figures =
        format!("{passed} of the {answered} that it answered of its last {drawn} reads were proved");
    let low = reputation.low_correct.max(reputation.low_egress);
    if low > 0 {
        let why = if reputation.low_egress > reputation.low_correct {
            "wrong bytes to auditors"
        } else {
            "reads that were not proved"
        };
        let what = format!("warned in epoch {} for {why}: {low} low epochs", reputation.warned);
        let next = format!("{LOW_EPOCHS} in a row are jail: restore the shards, or have them rebuilt");
        alerts.push(Alert { kind: Kind::WarnedReads, what, next, due: Some(facts.judged(low)) });
    } else if fails {
        let next =
            format!("an epoch below nine tenths is warned, {LOW_EPOCHS} in a row are jail: check the disk");
        alerts.push(Alert { kind: Kind::ReadsFail, what: figures.clone(), next, due: None });
    }
    // Each class of reads is counted alone (JL-3).
    let near = reputation.low_correct.saturating_add(u8::from(fails)).max(reputation.low_egress);
    if near >= LOW_EPOCHS - 1 {
        let what = format!("{figures}, after {low} low epochs");
        let next = "jail follows if reads go on failing: restore the shards, or have them rebuilt".into();
        alerts.push(Alert { kind: Kind::JailNext, what, next, due: Some(facts.judged(low)) });
    }
}

/// Alerts about answers that came late or not at all: late, warned, suspension next, suspended.
fn answers(facts: &Facts<'_>, reputation: &Reputation, alerts: &mut Vec<Alert>) {
    let (on_time, drawn) = newest(facts.audit.on_time, u64::from(facts.audit.drawn) / READS as u64);
    let away = drawn > 0 && is_below(on_time, drawn, AVAILABLE_MIN);
    let figures = format!("{on_time} of its last {drawn} answers were on time");
    if reputation.suspended != 0 {
        let what = format!("suspended since epoch {}: {figures}", reputation.suspended);
        let next =
            "no new agreements and no new data until an epoch with half of the answers on time, or one in \
                    which nothing was read and it answered a challenge"
                .into();
        alerts.push(Alert { kind: Kind::Suspended, what, next, due: None });
        return;
    }
    let low = reputation.low_available;
    if low > 0 {
        let what = format!("warned in epoch {} for late answers: {low} low epochs", reputation.warned);
        let next = format!("{LOW_EPOCHS} in a row suspend: see that it runs and reaches the network");
        alerts.push(Alert { kind: Kind::WarnedAnswers, what, next, due: Some(facts.judged(low)) });
    } else if away {
        let next =
            format!("an epoch below one half is warned, {LOW_EPOCHS} in a row suspend: check the network");
        alerts.push(Alert { kind: Kind::AnswersLate, what: figures.clone(), next, due: None });
    }
    if low + u8::from(away) >= LOW_EPOCHS - 1 {
        let what = format!("{figures}, after {low} low epochs");
        let next = "suspension follows if it goes on: no new agreements, no new data".into();
        alerts.push(Alert { kind: Kind::SuspendNext, what, next, due: Some(facts.judged(low)) });
    }
}

/// The alert about reads declared missing, the only fault in storage that costs stake.
fn missing(facts: &Facts<'_>, alerts: &mut Vec<Alert>) {
    let missing = &facts.audit.missing;
    let Some(left) = missing.iter().map(|missing| missing.asks_left).min() else { return };
    let what = format!("{} reads are missing; the first is asked {left} times more", missing.len());
    let next =
        "still missing then, twice the agreement's fee of an epoch moves from the bond to its consumer: \
                restore the shards"
            .into();
    alerts.push(Alert { kind: Kind::ReadsMissing, what, next, due: None });
}

/// Alerts about an open challenge: past half its deadline, or past half the time after which it expires.
fn challenge(facts: &Facts<'_>, alerts: &mut Vec<Alert>) {
    let Some(open) = facts.audit.challenge else { return };
    let parameters = facts.parameters;
    let waited = facts.height.saturating_sub(open.height);
    if waited > parameters.deadline_blocks / 2 {
        let what = format!("a challenge of height {} waits for {waited} blocks", open.height);
        let deadline = parameters.deadline_blocks;
        let next = format!("after {deadline} the answer is late, and nothing is paid until it comes");
        alerts.push(Alert { kind: Kind::ChallengeWaits, what, next, due: None });
    }
    let (rounds, most) =
        (parameters.round(facts.height) - parameters.round(open.height), parameters.pending_rounds_max);
    if rounds > most / 2 {
        let what = format!("a challenge of height {} waits for {rounds} rounds", open.height);
        let next = format!("after {most} it expires: four reads missing, one answer late, nothing paid");
        let due = parameters.epoch((parameters.round(open.height) + most + 1) * parameters.round_blocks);
        alerts.push(Alert { kind: Kind::ChallengeExpires, what, next, due: Some(due) });
    }
}

/// The alert about a bond that restitution lowered below what the capacity needs.
fn bond(facts: &Facts<'_>, alerts: &mut Vec<Alert>) {
    let (bond, needed) =
        (facts.provider.bond, bond_needed(facts.offer.capacity[Class::Storage], facts.parameters));
    if bond < needed {
        let what = format!("the bond is {bond} SYNC, and the declared capacity needs {needed}");
        let next = "nothing more is sold than the bond covers: add to it, or declare less".into();
        alerts.push(Alert { kind: Kind::BondShort, what, next, due: None });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use posync_protocol::{
        Amount, Bounded, PerClass,
        limits::OPERATOR_BYTES,
        record::{Challenge, Missing},
    };

    const P: Parameters = Parameters::LOCAL;

    fn provider() -> Provider {
        Provider { bond: bond_needed(1 << 20, &P), ..Provider::default() }
    }

    fn offer() -> Offer {
        Offer {
            operator: [b'o'; OPERATOR_BYTES],
            capacity: PerClass::new(1 << 20, 0, 0),
            reserve: PerClass::all(0),
            term_max: 720,
            region: Bounded::default(),
        }
    }

    /// The kinds of alerts for a good provider at height 1,000 after `change`.
    fn kinds(
        change: impl FnOnce(&mut Provider, &mut Audit, &mut Reputation, &mut Option<Space>),
    ) -> Vec<Kind> {
        let (mut provider, mut reputation) = (provider(), Reputation::newborn(0));
        let mut audit = Audit { history: u64::MAX, on_time: u64::MAX, drawn: 400, ..Audit::default() };
        let mut space = Some(Space { free: 2 << 30, promised: 1 << 30 });
        change(&mut provider, &mut audit, &mut reputation, &mut space);
        let (provider, audit, reputation, offer) = (&provider, &audit, Some(&reputation), &offer());
        let facts = Facts { parameters: &P, height: 1_000, provider, offer, audit, reputation, space };
        let alerts = conditions(&facts);
        assert!(alerts.iter().all(|alert| !alert.what.is_empty() && !alert.next.is_empty()));
        alerts.into_iter().map(|alert| alert.kind).collect()
    }

    /// A history whose newest `bad` of 64 bits are zero.
    fn with(bad: u32) -> u64 {
        u64::MAX << bad
    }

    #[test]
    fn a_good_provider_has_none_and_neither_has_a_newcomer() {
        assert_eq!(kinds(|_, _, _, _| ()), []);
        assert_eq!(kinds(|_, audit, _, _| *audit = Audit::default()), []);
    }

    #[test]
    fn reads_that_fail_go_from_a_figure_to_jail() {
        assert_eq!(kinds(|_, audit, _, _| audit.history = with(6)), [], "58 of 64 are nine tenths");
        assert_eq!(kinds(|_, audit, _, _| audit.history = with(7)), [Kind::ReadsFail]);
        assert_eq!(kinds(|_, _, reputation, _| reputation.low_correct = 1), [Kind::WarnedReads]);
        let failing = |low| {
            move |_: &mut Provider, audit: &mut Audit, reputation: &mut Reputation, _: &mut Option<Space>| {
                (audit.history, reputation.low_correct) = (0, low);
            }
        };
        assert_eq!(kinds(failing(1)), [Kind::WarnedReads, Kind::JailNext]);
        assert_eq!(kinds(failing(2)), [Kind::WarnedReads, Kind::JailNext]);
        assert_eq!(
            kinds(|_, _, reputation, _| reputation.low_correct = 2),
            [Kind::WarnedReads, Kind::JailNext]
        );
        assert_eq!(kinds(|_, _, reputation, _| reputation.low_egress = 1), [Kind::WarnedReads]);
        assert_eq!(
            kinds(|_, _, reputation, _| reputation.low_egress = 2),
            [Kind::WarnedReads, Kind::JailNext]
        );
        let both = |_: &mut Provider, _: &mut Audit, reputation: &mut Reputation, _: &mut Option<Space>| {
            (reputation.low_correct, reputation.low_egress) = (1, 1);
        };
        assert_eq!(kinds(both), [Kind::WarnedReads], "each class counts alone");
        assert_eq!(kinds(|_, _, reputation, _| reputation.jailed_until = 99), [Kind::Jailed]);
        assert_eq!(kinds(|_, _, reputation, _| reputation.jailed_until = u64::MAX), [Kind::Jailed]);
        assert_eq!(kinds(|_, _, reputation, _| reputation.jailed_until = 1), [Kind::Jailed, Kind::JailOver]);
    }

    /// JL-1: unanswered reads jail no provider; they count against its availability.
    #[test]
    fn reads_that_nobody_answered_are_no_failing_ones() {
        let audit = |silent: u64, failed: u64| Audit {
            history: !(silent | failed),
            silent,
            on_time: u64::MAX,
            drawn: 400,
            ..Audit::default()
        };
        let of = |silent, failed| kinds(|_, now, _, _| *now = audit(silent, failed));
        assert_eq!(of(u64::MAX >> 1, 0), [], "one read is left, and it was proved");
        assert_eq!(of(u64::MAX, 0), [], "none is left");
        assert_eq!(of(u64::MAX >> 32, 1 << 40), [], "31 of 32");
        assert_eq!(of(u64::MAX >> 32, 0xf << 40), [Kind::ReadsFail], "28 of 32, 60 of 64");
        let low = |_: &mut Provider, now: &mut Audit, reputation: &mut Reputation, _: &mut Option<Space>| {
            (*now, reputation.low_correct) = (audit(u64::MAX, 0), 1);
        };
        assert_eq!(kinds(low), [Kind::WarnedReads], "jail is not next");
    }

    #[test]
    fn a_suspended_provider_is_told_both_ways_out() {
        let (provider, audit, offer) = (provider(), Audit::default(), offer());
        let reputation = Reputation { suspended: 9, ..Reputation::newborn(0) };
        let facts = Facts {
            parameters: &P,
            height: 1_000,
            provider: &provider,
            offer: &offer,
            audit: &audit,
            reputation: Some(&reputation),
            space: None,
        };
        let alerts = conditions(&facts);
        let next = &alerts.iter().find(|alert| alert.kind == Kind::Suspended).expect("it is").next;
        assert!(next.contains("half of the answers on time"), "{next}");
        assert!(next.contains("nothing was read and it answered a challenge"), "{next}");
    }

    #[test]
    fn late_answers_go_from_a_figure_to_suspension() {
        assert_eq!(kinds(|_, audit, _, _| audit.on_time = with(32)), [], "half is enough");
        assert_eq!(kinds(|_, audit, _, _| audit.on_time = with(33)), [Kind::AnswersLate]);
        assert_eq!(kinds(|_, _, reputation, _| reputation.low_available = 1), [Kind::WarnedAnswers]);
        let late =
            |_: &mut Provider, audit: &mut Audit, reputation: &mut Reputation, _: &mut Option<Space>| {
                (audit.on_time, reputation.low_available) = (0, 1);
            };
        assert_eq!(kinds(late), [Kind::WarnedAnswers, Kind::SuspendNext]);
        assert_eq!(kinds(|_, _, reputation, _| reputation.suspended = 9), [Kind::Suspended]);
    }

    #[test]
    fn a_challenge_waits_then_nears_its_end() {
        let at = |height| {
            kinds(|_, audit, _, _| {
                audit.challenge = Some(Challenge { height, seed: [0; 32], by_fee: true });
            })
        };
        assert_eq!(at(1_000), []);
        assert_eq!(at(996), [], "half of eight blocks");
        assert_eq!(at(995), [Kind::ChallengeWaits]);
        assert_eq!(at(1_000 - 7 * 8), [Kind::ChallengeWaits]);
        assert_eq!(at(1_000 - 8 * 8), [Kind::ChallengeWaits, Kind::ChallengeExpires]);
    }

    #[test]
    fn what_costs_stake_or_room_is_told() {
        let missing = Missing { asks_left: 2, ..Missing::default() };
        let two = Bounded::new(vec![missing, Missing { asks_left: 3, ..missing }]).expect("two");
        assert_eq!(kinds(|_, audit, _, _| audit.missing = two), [Kind::ReadsMissing]);
        assert_eq!(kinds(|provider, _, _, _| provider.bond = Amount::sync(1)), [Kind::BondShort]);
        let space = |free, promised| kinds(move |_, _, _, space| *space = Some(Space { free, promised }));
        assert_eq!(space(SPACE_MIN, SPACE_MIN), []);
        assert_eq!(space(SPACE_MIN - 1, 0), [Kind::LowSpace]);
        assert_eq!(space(3 << 30, (3 << 30) + 1), [Kind::LowSpace]);
        assert_eq!(kinds(|_, _, _, space| *space = None), []);
    }
}
