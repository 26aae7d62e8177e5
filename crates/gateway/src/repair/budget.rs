//! Bounds the egress that examinations of a provider cost. A provider that is late, or declares reads missing, is
//! examined by reading slices, and is paid for those that it serves: without a bound it would sell egress by being
//! late.
//!
//! ```text
//!   late, failed ──► granted? no: no read, no verdict ──► the next epoch
//!                        └─ yes: read ──► served: its bytes count      not served: nothing was paid
//! ```
//!
//! Invariants
//! 1. In an epoch, examinations of a provider that lost nothing cost at most a [`FEE_PART`]th of what it earns by
//!    storing for this gateway, or [`LEAST_BYTES`], and less than a slice beyond it.
//! 2. What is not served is not paid, and does not count: a provider that lost everything is examined until all of it
//!    is known.
//! 3. A suspect is always examined: the slice that ends the suspicion counts, and is never refused. There is one for
//!    each suspicion, which a notice of lateness begins.

use commonware_utils::sync::Mutex;
use posync_protocol::{
    Account, Class,
    limits::{Parameters, SLICE_BYTES},
};
use std::collections::BTreeMap;

/// Divisor of the storage fee of an epoch: this part of it may be spent on examinations.
const FEE_PART: u128 = 8;
/// Bytes that examinations of a provider may cost in an epoch, however little it holds: 1 MiB.
pub(super) const LEAST_BYTES: u64 = 16 * SLICE_BYTES;

/// The bytes that each provider served to examinations in an epoch.
#[derive(Debug, Default)]
pub(crate) struct Budget(Mutex<BTreeMap<Account, (u64, u64)>>);

/// Bytes that examinations of a provider that holds `leaves` may cost in an epoch, at the prices of the genesis: only
/// the ratio of the two prices counts.
fn allowed(leaves: u64, p: &Parameters) -> u64 {
    let leaf_rounds = u128::from(leaves).saturating_mul(p.epoch_rounds.into());
    let fee = leaf_rounds.saturating_mul(p.prices[Class::Storage]);
    let bytes = fee / FEE_PART / p.prices[Class::Egress].max(1);
    u64::try_from(bytes).unwrap_or(u64::MAX).max(LEAST_BYTES)
}

impl Budget {
    /// Bytes that may still be read in `epoch` to examine a provider that holds `leaves`.
    pub(super) fn left(&self, provider: &Account, leaves: u64, epoch: u64, p: &Parameters) -> u64 {
        let all = self.0.lock();
        let spent = all.get(provider).filter(|(of, _)| *of == epoch).map_or(0, |(_, spent)| *spent);
        allowed(leaves, p).saturating_sub(spent)
    }

    /// Counts `bytes` that a provider served in `epoch`.
    pub(super) fn spend(&self, provider: &Account, bytes: u64, epoch: u64) {
        let mut all = self.0.lock();
        // Bounded by the providers that are examined in one epoch.
        all.retain(|_, (of, _)| *of >= epoch);
        let (_, spent) = all.entry(*provider).or_insert((epoch, 0));
        *spent = spent.saturating_add(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 20;

    #[test]
    fn examinations_cost_a_part_of_the_storage_fee_and_a_little_of_whoever_holds_little() {
        let p = &Parameters::PRODUCTION;
        for (leaves, bytes) in [
            (0, LEAST_BYTES),
            (GIB / 8, LEAST_BYTES),
            // 0.036 SYNC in a day; egress costs 1.024 SYNC a GiB.
            (GIB, 4_718_592),
            (10 * GIB, 47_185_920),
            (u64::MAX, u64::MAX),
        ] {
            assert_eq!(allowed(leaves, p), bytes, "{leaves} leaves");
        }
    }

    #[test]
    fn what_was_served_counts_for_its_provider_and_its_epoch() {
        let (budget, p) = (Budget::default(), &Parameters::LOCAL);
        let (one, other) = (Account([1; 32]), Account([2; 32]));
        budget.spend(&one, 10, 7);
        budget.spend(&one, LEAST_BYTES, 7);
        budget.spend(&other, 5, 7);
        let left = |who, epoch| budget.left(who, 0, epoch, p);
        assert_eq!([left(&one, 7), left(&other, 7)], [0, LEAST_BYTES - 5]);
        assert_eq!(left(&one, 8), LEAST_BYTES);
        budget.spend(&other, 1, 8);
        assert_eq!(budget.0.lock().len(), 1, "past epochs are forgotten");
    }
}
