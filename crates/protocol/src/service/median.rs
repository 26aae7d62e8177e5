//! What the reports on a provider come to: quorum, medians, and which auditors are paid.

use super::{latency_score, share};
use crate::{
    Account, Code,
    amount::ONE,
    authority,
    economics::score::lower_weighted_median,
    ledger::{Event, Working},
    record::{Finding, Reports, ServiceRound, Standing, UNMEASURED},
};
use alloc::vec::Vec;

/// How far a report's shares may lie from the medians and still be paid.
pub const PAID_WITHIN: u64 = ONE / 10;

/// Whether reports of two thirds of the assigned auditors are there (SQ-6).
pub const fn is_quorum(reported: usize, assigned: u8) -> bool {
    3 * reported >= 2 * assigned as usize
}

/// The outcome of a provider's service audit. A figure without a quorum of its own is `None`: the
/// last one stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Auditors that were drawn.
    pub assigned: u8,
    /// Auditors whose reports count.
    pub reported: u8,
    /// Median answered share, parts per billion.
    pub answered: Option<u64>,
    /// Median share of correct reads among the answered ones.
    pub correct: Option<u64>,
    /// Median latency score.
    pub latency: Option<u64>,
    /// Median throughput band: shown, decides nothing.
    pub throughput: Option<u64>,
}

impl Verdict {
    /// The verdict of the reports that count, of `assigned` auditors (SQ-6).
    ///
    /// Guarantees: an order of the reports changes nothing; while fewer than a third of `assigned`
    /// lie, every figure lies within what honest reports of it say; one report moves a figure at
    /// most to the report next to it.
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

    /// Whether a report earns its auditor a credit: it paid for a read, and its shares lie within
    /// [`PAID_WITHIN`] of the medians (SQ-8).
    pub fn pays(&self, finding: &Finding) -> bool {
        let near = |value: u64, median: Option<u64>| median.is_some_and(|m| value.abs_diff(m) <= PAID_WITHIN);
        finding.correct > 0
            && near(finding.answered_share(), self.answered)
            && near(finding.correct_share(), self.correct)
    }
}

impl Finding {
    /// Answered of what was asked, parts per billion.
    pub fn answered_share(&self) -> u64 {
        share(self.answered, self.asked)
    }

    /// Correct of what was answered, parts per billion; zero if nothing was.
    pub fn correct_share(&self) -> u64 {
        share(self.correct, self.answered)
    }
}

/// Ends a provider's service audit: reads and removes its reports, moves its figures where there
/// is a quorum, and credits the seats of the auditors that are paid. `seats` are all seats in
/// order.
pub(crate) fn close(
    working: &mut Working<'_>,
    round: &ServiceRound,
    stratum: u32,
    seats: &[Account],
    account: &Account,
    standing: &mut Standing,
) -> Result<Verdict, Code> {
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
    standing.answered = verdict.answered.unwrap_or(standing.answered);
    standing.latency = verdict.latency.unwrap_or(standing.latency);
    for finding in findings.iter().filter(|finding| verdict.pays(finding)) {
        let seat = round.seat(stratum, finding.auditor).and_then(|seat| seats.get(seat as usize));
        if let Some(seat) = seat {
            authority::credit(working, seat, epoch)?;
        }
    }
    Ok(verdict)
}

/// What is told of a verdict.
pub(crate) fn event(
    epoch: u64,
    provider: Account,
    on_time: u64,
    verdict: &Verdict,
    standing: &Standing,
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
        stands: [standing.answered, standing.latency],
    }
}
