//! The result of the reports on a provider: quorum, medians, and the auditors that are paid.

use super::{latency_score, share};
use crate::number::{index, index8};
use crate::{
    Account, Broken,
    amount::ONE,
    authority,
    economics::score::lower_weighted_median,
    event::Event,
    record::{Finding, Reports, Reputation, ServiceRound, UNMEASURED},
    working::Working,
};
use alloc::vec::Vec;

/// Largest distance between a report's shares and the medians at which it is still paid.
pub const PAID_WITHIN: u64 = ONE / 10;

/// Returns true if two thirds of the assigned auditors have reported (SQ-6).
pub const fn is_quorum(reported: usize, assigned: u8) -> bool {
    3 * reported >= 2 * index8(assigned)
}

/// The outcome of a provider's service audit. A figure without a quorum of its own is `None`: the last value
/// stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Number of auditors that were drawn.
    pub assigned: u8,
    /// Number of auditors whose reports count.
    pub reported: u8,
    /// Median answered share, parts per billion.
    pub answered: Option<u64>,
    /// Median share of correct reads among the answered ones.
    pub correct: Option<u64>,
    /// Median latency score, parts per billion.
    pub latency: Option<u64>,
    /// Median throughput band: shown, but decides nothing.
    pub throughput: Option<u64>,
}

impl Verdict {
    /// The verdict of the reports that count, of `assigned` auditors (SQ-6).
    ///
    /// Guarantees: the order of the reports does not matter; while fewer than a third of `assigned` lie,
    /// every figure lies within the range of the honest reports of it; one report moves a figure at most to
    /// the report next to it.
    pub fn of(findings: &[Finding], assigned: u8) -> Self {
        let median = |figure: &dyn Fn(&Finding) -> Option<u64>| {
            let values: Vec<(u64, u128)> =
                findings.iter().filter_map(|finding| Some((figure(finding)?, 1))).collect();
            lower_weighted_median(&values).filter(|_| is_quorum(values.len(), assigned))
        };
        let of_answered = |value: &dyn Fn(&Finding) -> u64| {
            median(&|finding| (finding.answered > 0).then(|| value(finding)))
        };
        Self {
            assigned,
            reported: u8::try_from(findings.len()).unwrap_or(u8::MAX),
            answered: median(&|finding| Some(finding.answered_share())),
            correct: of_answered(&Finding::correct_share),
            latency: of_answered(&|finding| latency_score(finding.latency)),
            throughput: of_answered(&|finding| finding.throughput.into()),
        }
    }

    /// Returns true if a report earns its auditor a credit: it paid for a read, and its shares lie within
    /// [`PAID_WITHIN`] of the medians (SQ-8).
    pub fn pays(&self, finding: &Finding) -> bool {
        let near = |value: u64, median: Option<u64>| median.is_some_and(|m| value.abs_diff(m) <= PAID_WITHIN);
        finding.correct > 0
            && near(finding.answered_share(), self.answered)
            && near(finding.correct_share(), self.correct)
    }
}

impl Finding {
    /// Answered share of the reads asked, parts per billion.
    pub fn answered_share(&self) -> u64 {
        share(self.answered, self.asked)
    }

    /// Correct share of the answered reads, parts per billion; zero if none was answered.
    pub fn correct_share(&self) -> u64 {
        share(self.correct, self.answered)
    }
}

/// Ends a provider's service audit: reads and removes its reports, updates its figures where there is a
/// quorum, and credits the seats of the paid auditors. `seats` are all seats in order.
pub(crate) fn close(
    working: &mut Working<'_>,
    round: &ServiceRound,
    stratum: u32,
    seats: &[Account],
    account: &Account,
    reputation: &mut Reputation,
) -> Result<Verdict, Broken> {
    let epoch = round.epoch;
    let mut findings = Vec::new();
    for key in Reports::parts(account, epoch) {
        let Some(reports) = working.get::<Reports>(key)? else { continue };
        working.delete(key)?;
        if reports.epoch == epoch {
            findings.extend(reports.findings.into_inner());
        }
    }
    let verdict = Verdict::of(&findings, u8::try_from(round.auditors()).unwrap_or(u8::MAX));
    reputation.answered = verdict.answered.unwrap_or(reputation.answered);
    reputation.latency = verdict.latency.unwrap_or(reputation.latency);
    for finding in findings.iter().filter(|finding| verdict.pays(finding)) {
        let seat = round.seat(stratum, finding.auditor).and_then(|seat| seats.get(index(seat)));
        if let Some(seat) = seat {
            authority::credit(working, seat, epoch)?;
        }
    }
    Ok(verdict)
}

/// The event that reports a verdict and the values that stand after it.
pub(crate) fn event(
    epoch: u64,
    provider: Account,
    on_time: u64,
    verdict: &Verdict,
    reputation: &Reputation,
) -> Event {
    let figure = |figure: Option<u64>| figure.unwrap_or(UNMEASURED);
    Event::ServiceMeasured {
        epoch,
        provider,
        assigned: verdict.assigned,
        reported: verdict.reported,
        on_time,
        answered: figure(verdict.answered),
        correct: figure(verdict.correct),
        latency: figure(verdict.latency),
        throughput: figure(verdict.throughput),
        stands: [reputation.answered, reputation.latency],
    }
}
