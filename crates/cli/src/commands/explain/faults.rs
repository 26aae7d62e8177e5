//! Network faults and their effect: which rounds of the epoch's blocks were found faulty, and which
//! late answers or expiries the provider's histories leave out for that reason (NF-3).

use posync_protocol::{Account, ledger::Event};
use serde_json::{Value, json};

/// The network faults that an epoch's blocks report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// Block, round, challenges by fee, and how many of those were answered on time.
    rounds: Vec<(u64, u64, u32, u32)>,
    /// Block, height of the draw, and true if the answer came (late).
    excused: Vec<(u64, u64, bool)>,
}

impl Faults {
    /// Adds an event of the block at `height`.
    pub(super) fn enter(&mut self, height: u64, account: &Account, event: &Event) {
        match event {
            Event::RoundFaulty { round, drawn, on_time } => {
                self.rounds.push((height, *round, *drawn, *on_time));
            }
            Event::Audited { provider, height: drawn_at, answered, excused: true, .. }
                if provider == account =>
            {
                self.excused.push((height, *drawn_at, *answered));
            }
            _ => {}
        }
    }

    pub(super) fn to_json(&self) -> Value {
        let rounds = self.rounds.iter().map(|(block, round, drawn, on_time)| {
            json!({ "block": block, "round": round, "drawn_by_fee": drawn, "on_time": on_time })
        });
        let excused = self.excused.iter().map(|(block, drawn_at, answered)| {
            json!({ "block": block, "drawn_at": drawn_at, "answered": answered })
        });
        json!({ "rounds": rounds.collect::<Vec<_>>(), "excused": excused.collect::<Vec<_>>() })
    }

    /// One line for each; empty for an epoch without faults.
    pub(super) fn to_text(&self) -> String {
        let rounds = self.rounds.iter().map(|(block, round, drawn, on_time)| {
            format!("\nblock {block}: round {round} was the network's fault: {on_time} of {drawn} answered on time")
        });
        let excused = self.excused.iter().map(|(block, drawn_at, answered)| {
            let what = if *answered { "late answer to" } else { "expiry of" };
            format!(
                "\nblock {block}: excused: the {what} the challenge of height {drawn_at} does not count in correctness (C) or \
                 availability (A)"
            )
        });
        let lines: String = rounds.chain(excused).collect();
        if lines.is_empty() { lines } else { format!("\n{lines}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_mattered_to_the_provider_is_told() {
        let (provider, other) = (Account([1; 32]), Account([2; 32]));
        let audited = |provider, excused| Event::Audited {
            provider,
            height: 40,
            answered: true,
            passed: 4,
            reads: 4,
            on_time: false,
            excused,
        };
        let mut faults = Faults::default();
        assert_eq!(faults.to_text(), "");
        for event in [audited(provider, false), audited(other, true)] {
            faults.enter(60, &provider, &event);
        }
        assert_eq!(faults, Faults::default());
        faults.enter(64, &provider, &Event::RoundFaulty { round: 5, drawn: 20, on_time: 9 });
        faults.enter(66, &provider, &audited(provider, true));
        let text = faults.to_text();
        assert!(text.contains("round 5") && text.contains("9 of 20") && text.contains("height 40"), "{text}");
        assert_eq!(faults.to_json()["excused"][0]["drawn_at"], 40);
    }
}
