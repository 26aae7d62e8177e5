//! The lines of a provider's service audit: every report on it, and the medians of the reports.

use super::{Line, Times};
use crate::{failure::Outcome, ledger::Ledger, output::table};
use posync_protocol::{
    Account, Class, Code,
    ledger::Event,
    record::{Finding, Settlement, UNMEASURED},
    service::{Verdict, latency_score},
};
use serde_json::{Value, json};

/// A report that an auditor revealed.
struct Report {
    block: u64,
    auditor: Account,
    finding: Finding,
    code: Code,
    event: Event,
}

/// The result of an epoch's service audit of the provider.
#[derive(Clone, Copy)]
struct Closed {
    assigned: u8,
    on_time: u64,
    /// Answered share and latency score that hold from then on.
    stands: [u64; 2],
}

/// The service audit of a provider for one epoch.
pub(super) struct Service {
    reports: Vec<Report>,
    now: Option<Closed>,
    before: Option<Closed>,
}

impl Service {
    /// Reads the audit from the blocks in which it was revealed and judged.
    pub(super) async fn read(ledger: &Ledger, account: &Account, epoch: u64, times: &Times) -> Outcome<Self> {
        let parameters = *ledger.parameters();
        let mut reports = Vec::new();
        let first = (epoch + 1) * parameters.epoch_blocks();
        for block in first..first + parameters.round_blocks {
            for event in ledger.block(block).await?.events {
                let Event::Reported {
                    provider,
                    auditor,
                    asked,
                    answered,
                    correct,
                    latency,
                    throughput,
                    code,
                    ..
                } = event
                else {
                    continue;
                };
                if provider == *account {
                    let finding = Finding { auditor: 0, asked, answered, correct, latency, throughput };
                    reports.push(Report { block, auditor, finding, code, event });
                }
            }
        }
        let now = closed(ledger, account, epoch, times.measured).await?;
        let before = match (epoch.checked_sub(1), times.measured.checked_sub(parameters.epoch_blocks())) {
            (Some(epoch), Some(block)) => closed(ledger, account, epoch, block).await?,
            _ => None,
        };
        Ok(Self { reports, now, before })
    }

    /// Adds the figures behind the provider's quality, each computed from the reports.
    pub(super) fn lines(&self, lines: &mut Vec<Line>, row: &Settlement, times: &Times) {
        let Some(now) = self.now else { return };
        let counted: Vec<Finding> = self
            .reports
            .iter()
            .filter(|report| report.code == Code::Done)
            .map(|report| report.finding)
            .collect();
        let verdict = Verdict::of(&counted, now.assigned);
        let last = self.before.map_or([UNMEASURED, 0], |before| before.stands);
        let mut add = |name, formula, value: u64, recorded: u64| {
            lines.push(Line {
                name,
                formula,
                value: value.into(),
                recorded: recorded.into(),
                block: times.measured,
            });
        };
        let all = |figure: &dyn Fn(&Finding) -> u64, answered: bool| {
            let kept = counted.iter().filter(|finding| !answered || finding.answered > 0);
            let mut values: Vec<u64> = kept.map(figure).collect();
            values.sort_unstable();
            values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        let formula = format!("reports above that count, of {} auditors drawn", row.assigned);
        add("reports", formula, counted.len() as u64, row.reported.into());
        let quorum = format!("{} of {} auditors", counted.len(), now.assigned);
        let stands = |figure: Option<u64>, what: &str, values: String| match figure {
            Some(_) => format!("lower median of {what}, {quorum}: {values}"),
            None if now.assigned == 0 => "not drawn for audit: the last figure stands".to_owned(),
            None => format!("no two thirds of {what} ({quorum}): the last figure stands"),
        };
        let formula =
            stands(verdict.answered, "floor(answered x ONE / asked)", all(&Finding::answered_share, false));
        let answered = verdict.answered.unwrap_or(last[0]);
        add("answered share", formula, answered, now.stands[0]);
        let formula = format!(
            "least of the share of its last 64 challenges answered on time, {}, and the answered share, {}",
            super::number(now.on_time.into()),
            super::number(answered.into())
        );
        add("availability A", formula, now.on_time.min(answered), row.available.ppb());
        let what = "the latency bands' scores";
        let formula = stands(verdict.latency, what, all(&|finding| latency_score(finding.latency), true));
        add("latency L", formula, verdict.latency.unwrap_or(last[1]), row.latency.ppb());
        if let Some(correct) = verdict.correct {
            let what = "floor(correct x ONE / answered)";
            let formula = stands(verdict.correct, what, all(&Finding::correct_share, true));
            add("egress C", formula, correct, row.correct[Class::Egress].ppb());
        }
    }

    /// All reports as a JSON list.
    pub(super) fn to_json(&self) -> Vec<Value> {
        let with_block = |report: &Report| {
            let mut value = json!(report.event);
            value["block"] = report.block.into();
            value
        };
        self.reports.iter().map(with_block).collect()
    }

    /// The reports as a table; empty if there are none.
    pub(super) fn to_text(&self) -> String {
        if self.reports.is_empty() {
            return String::new();
        }
        let rows: Vec<Vec<String>> = self
            .reports
            .iter()
            .map(|report| {
                let Finding { asked, answered, correct, latency, throughput, .. } = report.finding;
                let counts = match report.code {
                    Code::Done => "counts".to_owned(),
                    code => code.explain().to_owned(),
                };
                let numbers = [asked, answered, correct, latency.into(), throughput.into()];
                [report.block.to_string(), report.auditor.to_string()]
                    .into_iter()
                    .chain(numbers.map(|number| number.to_string()))
                    .chain([counts])
                    .collect()
            })
            .collect();
        let head = ["block", "auditor", "asked", "answered", "correct", "latency", "throughput", ""];
        format!("\n\n{}", table(&head, &rows))
    }
}

/// The result of the provider's service audit, from the block that measured `epoch`.
async fn closed(ledger: &Ledger, account: &Account, epoch: u64, block: u64) -> Outcome<Option<Closed>> {
    let events = ledger.block(block).await?.events;
    Ok(events.into_iter().find_map(|event| match event {
        Event::ServiceMeasured { epoch: of, provider, assigned, on_time, stands, .. }
            if (of, provider) == (epoch, *account) =>
        {
            Some(Closed { assigned, on_time, stands })
        }
        _ => None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use posync_protocol::{PerClass, amount::ONE, record::Ratio};

    const TIMES: Times = Times { measured: 48, pooled: 80, paid: 88, sealed: 120 };

    fn report(answered: u16, correct: u16, latency: u8, code: Code) -> Report {
        let (asked, throughput, provider) = (4, 3, Account([7; 32]));
        let auditor = Account([8; 32]);
        let event = Event::Reported {
            epoch: 1,
            provider,
            auditor,
            asked,
            answered,
            correct,
            latency,
            throughput,
            code,
        };
        let finding = Finding { auditor: 0, asked, answered, correct, latency, throughput };
        Report { block: 41, auditor, finding, code, event }
    }

    fn lines_of(service: &Service, row: &Settlement) -> Vec<Line> {
        let mut lines = Vec::new();
        service.lines(&mut lines, row, &TIMES);
        for line in &lines {
            assert_eq!(line.value, line.recorded, "{}: {}", line.name, line.formula);
            assert_eq!(line.block, TIMES.measured);
        }
        lines
    }

    #[test]
    fn each_figure_follows_from_the_reports_that_count() {
        let reports = [(4, 4, 0, Code::Done), (2, 2, 4, Code::Done), (4, 4, 9, Code::Done)];
        let mut reports: Vec<Report> = reports
            .into_iter()
            .map(|(answered, correct, band, code)| report(answered, correct, band, code))
            .collect();
        reports.push(report(0, 0, 0, Code::AuditNotAssigned));
        let latency = latency_score(4);
        let now = Some(Closed { assigned: 4, on_time: ONE / 2, stands: [ONE, latency] });
        let service = Service { reports, now, before: None };
        let row = Settlement {
            available: Ratio::new(ONE / 2),
            latency: Ratio::new(latency),
            correct: PerClass::new(UNMEASURED, ONE, UNMEASURED).map(Ratio::new),
            assigned: 4,
            reported: 3,
            ..Settlement::default()
        };
        let lines = lines_of(&service, &row);
        assert_eq!(lines.len(), 5);
        assert!(lines[1].formula.ends_with("3 of 4 auditors: 500000000, 1000000000, 1000000000"));
        assert_eq!(service.to_json().len(), 4, "those that do not count are shown, too");
        assert!(service.to_text().contains(Code::AuditNotAssigned.explain()));
    }

    #[test]
    fn without_a_quorum_the_figures_of_the_epoch_before_stand() {
        let stands = Closed { assigned: 4, on_time: ONE, stands: [ONE / 2, 7] };
        let reports = vec![report(4, 4, 0, Code::Done)];
        let service = Service { reports, now: Some(stands), before: Some(stands) };
        let row = Settlement {
            available: Ratio::new(ONE / 2),
            latency: Ratio::new(7),
            correct: PerClass::new(ONE, UNMEASURED, UNMEASURED).map(Ratio::new),
            assigned: 4,
            reported: 1,
            ..Settlement::default()
        };
        let lines = lines_of(&service, &row);
        assert_eq!(lines.len(), 4);
        assert!(lines[1].formula.ends_with("the last figure stands"));
    }

    #[test]
    fn a_figure_that_does_not_follow_is_seen() {
        let now = Some(Closed { assigned: 0, on_time: ONE, stands: [UNMEASURED, 0] });
        let service = Service { reports: vec![], now, before: None };
        let mut lines = Vec::new();
        service.lines(
            &mut lines,
            &Settlement { available: Ratio::new(ONE), latency: Ratio::new(1), ..Settlement::default() },
            &TIMES,
        );
        let wrong: Vec<&str> =
            lines.iter().filter(|line| line.value != line.recorded).map(|line| line.name).collect();
        assert_eq!(wrong, ["latency L"]);
        assert_eq!(service.to_text(), "");
    }
}
