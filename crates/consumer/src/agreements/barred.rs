//! Keeps the providers with which no agreement for new room is opened, because they sign no change of an agreement any
//! more. Decides only; sends nothing.
//!
//! The shards under such an agreement move to other operators, and it is closed. Were another one opened with the
//! same provider at once, it would sell every shard again, each time at the price of egress.
//!
//! Invariants
//! 1. A provider is barred while it signs nothing under an agreement, and for [`BAR_EPOCHS`] from its beginning, twice
//!    as long each time.
//! 2. No bar is longer than [`BAR_EPOCHS`] x 2^[`DOUBLINGS`] epochs.

use super::state::AgreementUsage;
use posync_protocol::Account;
use std::collections::{BTreeMap, BTreeSet};

/// Length of the first bar, in epochs.
const BAR_EPOCHS: u64 = 16;
/// Most times that a bar doubles.
const DOUBLINGS: u32 = 6;

/// The providers with which no room is opened, and until when.
#[derive(Debug, Default)]
pub struct Barred {
    /// Agreements under which their providers sign nothing.
    refused: BTreeSet<u32>,
    /// By provider, the number of its bars and the epoch in which the last one ends.
    until: BTreeMap<Account, (u32, u64)>,
}

impl Barred {
    /// Takes note of the agreements at `epoch`.
    pub fn look(&mut self, usages: &[AgreementUsage], epoch: u64) {
        for usage in usages.iter().filter(|usage| usage.refuses && !self.refused.contains(&usage.number)) {
            let (times, until) = self.until.entry(usage.row.id.provider).or_default();
            if epoch >= *until {
                *until = epoch.saturating_add(BAR_EPOCHS << (*times).min(DOUBLINGS));
                *times = times.saturating_add(1);
            }
            tracing::warn!(provider = %usage.row.id.provider, agreement = usage.number, leaves = usage.live, until = *until,
                "a provider signs no change of an agreement any more; its shards move to other operators, then the \
                 agreement is closed; no room is opened with the provider until that epoch");
        }
        self.refused = usages.iter().filter(|usage| usage.refuses).map(|usage| usage.number).collect();
        self.until.retain(|_, (_, until)| epoch < until.saturating_add(BAR_EPOCHS << DOUBLINGS));
    }

    /// True if no room is opened with a provider of `usages` at `epoch`.
    pub fn holds(&self, provider: &Account, usages: &[AgreementUsage], epoch: u64) -> bool {
        let refuses = |usage: &AgreementUsage| usage.refuses && usage.row.id.provider == *provider;
        self.until.get(provider).is_some_and(|(_, until)| epoch < *until) || usages.iter().any(refuses)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::state::tests::usage_of, *};
    use crate::agreements::state::Stage;

    #[test]
    fn who_signs_nothing_is_barred_for_longer_each_time_and_others_are_not() {
        let (mut barred, other) = (Barred::default(), Account([9; 32]));
        let usage = |number, refuses| AgreementUsage { number, refuses, ..usage_of(Stage::Open, 720) };
        let provider = usage(0, false).row.id.provider;
        let mut ends = Vec::new();
        let mut epoch = 0;
        for number in 0..9 {
            // Two of its agreements at once are one reason.
            let all = [usage(number, true), usage(number + 100, true)];
            barred.look(&all, epoch);
            barred.look(&all, epoch + 40);
            assert!(barred.holds(&provider, &all, epoch + 2_000), "while it signs nothing");
            assert!(!barred.holds(&other, &all, epoch));
            barred.look(&[], epoch);
            let first = (epoch..).find(|at| !barred.holds(&provider, &[], *at)).expect("it ends");
            ends.push(first - epoch);
            epoch = first;
        }
        assert_eq!(ends, [16, 32, 64, 128, 256, 512, 1_024, 1_024, 1_024]);
        barred.look(&[], epoch + 1_024);
        assert!(barred.until.is_empty(), "it is forgotten in time");
    }
}
