//! Recent spending of each consumer here: its weight when not all requests can be served. Pure.
//!
//! It uses the ledger's own figure: `Usage::signed`, the value of all redeemed vouchers of an agreement.
//! An increase belongs to the epoch in which it is seen; amounts redeemed before a start count as seen
//! then.
//!
//! Memory: one figure per kept agreement, at most eight per consumer.

use crate::terms::Terms;
use posync_protocol::{Account, AgreementId};
use std::collections::BTreeMap;

/// Number of recent epochs that count.
const EPOCHS: u64 = 8;

/// Sums of recent spending by consumer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spending {
    /// Amount redeemed under each agreement, in grains, as last seen.
    seen: BTreeMap<AgreementId, u128>,
    /// Grains by consumer and epoch.
    spent: BTreeMap<Account, BTreeMap<u64, u128>>,
}

impl Spending {
    /// Notes proven terms in an epoch.
    pub(crate) fn learn(&mut self, terms: &Terms, epoch: u64) {
        let signed = terms.usage.signed.grains();
        let before = self.seen.insert(terms.id, signed).unwrap_or(0);
        let more = signed.saturating_sub(before);
        if more > 0 {
            let epochs = self.spent.entry(terms.agreement.consumer).or_default();
            let sum = epochs.entry(epoch).or_default();
            *sum = sum.saturating_add(more);
            epochs.retain(|then, _| *then + EPOCHS > epoch);
        }
    }

    /// Forgets an agreement that is over; its spending still counts for its epochs.
    pub(crate) fn forget(&mut self, agreement: &AgreementId, epoch: u64) {
        self.seen.remove(agreement);
        self.spent.retain(|_, epochs| epochs.keys().any(|then| *then + EPOCHS > epoch));
    }

    /// A consumer's weight: grains spent in the last eight epochs, at least one.
    pub(crate) fn weight(&self, consumer: &Account, epoch: u64) -> u64 {
        let epochs = self.spent.get(consumer).into_iter().flatten();
        let recent = epochs.filter(|(then, _)| **then + EPOCHS > epoch);
        let sum = recent.fold(0u128, |sum, (_, grains)| sum.saturating_add(*grains));
        u64::try_from(sum).unwrap_or(u64::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{consumer, terms};
    use posync_protocol::Amount;

    fn at(slot: u32, grains: u128) -> Terms {
        let mut terms = terms();
        terms.id.slot = slot;
        terms.usage.signed = Amount::new(grains).expect("small");
        terms
    }

    #[test]
    fn eight_epochs_of_all_agreements_count() {
        let mut spend = Spending::default();
        assert_eq!(spend.weight(&consumer(), 5), 1, "nobody is without weight");
        for (slot, grains, epoch, expected) in [
            (0, 100, 5, 100),
            (0, 100, 5, 100),
            (0, 130, 6, 130),
            (1, 50, 6, 180),
            (1, 40, 7, 180),
            (0, 130, 12, 180),
            (0, 131, 13, 81),
            (0, 131, 20, 1),
        ] {
            spend.learn(&at(slot, grains), epoch);
            assert_eq!(spend.weight(&consumer(), epoch), expected, "{slot} {grains} {epoch}");
        }
        assert_eq!(spend.weight(&Account([9; 32]), 13), 1);
        spend.forget(&at(0, 0).id, 13);
        assert_eq!(spend.weight(&consumer(), 13), 81, "it was spent");
        spend.forget(&at(1, 0).id, 40);
        assert_eq!(spend, Spending::default(), "nothing stays behind");
    }
}
