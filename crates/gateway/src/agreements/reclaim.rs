//! Removes closed agreements from the ledger once their redemption window is over, so that the rest of
//! their reserves is refunded: a provider that never held anything under one has no reason to.

use super::{actor::Agreements, state::Stage};
use crate::{
    agreement::OwnAgreement,
    ledger::{Error, decode},
};
use posync_protocol::{
    Bounded, Code,
    agreement::is_over,
    operation::{Body, Settle},
    record::{Agreement, Audit, Usage},
};
use std::sync::{Arc, atomic::Ordering};

/// Closed agreements handled at one look.
const AT_ONCE: usize = 16;

/// The next few of `all`, which is sorted by number, after the number `after`, wrapping around:
/// agreements that cannot be removed do not starve the others.
fn turn<T>(mut all: Vec<T>, after: u32, number: impl Fn(&T) -> u32) -> Vec<T> {
    let first = all.partition_point(|one| number(one) <= after);
    let first = if first == all.len() { 0 } else { first };
    all.rotate_left(first);
    all.truncate(AT_ONCE);
    all
}

impl Agreements {
    /// Handles the next few closed agreements.
    pub(super) async fn reclaim(&self) {
        let after = self.reclaimed.load(Ordering::Relaxed);
        let mut closing: Vec<Arc<OwnAgreement>> = self.shared.agreements();
        closing.retain(|agreement| Stage::of(&agreement.terms()) == Stage::Closing);
        for agreement in turn(closing, after, |agreement| agreement.number) {
            self.reclaimed.store(agreement.number, Ordering::Relaxed);
            if let Err(error) = self.reclaim_one(&agreement).await {
                tracing::debug!(%error, agreement = agreement.number, "a closed agreement waits for the ledger");
            }
        }
    }

    async fn reclaim_one(&self, agreement: &Arc<OwnAgreement>) -> Result<(), Error> {
        let (provider, slot) = (agreement.provider(), agreement.id.slot);
        let keys = vec![Agreement::key(&provider, slot), Usage::key(&provider, slot), Audit::key(&provider)];
        let (height, slots) = self.ledger.read(keys).await?;
        let slot_at = |place: usize| slots.get(place).copied().flatten();
        let record: Option<Agreement> = decode(slot_at(0))?;
        let usage: Usage = decode(slot_at(1))?.unwrap_or_default();
        let audit: Audit = decode(slot_at(2))?.unwrap_or_default();
        let ours = |found: &Agreement| found.opened == agreement.id.opened;
        let Some(record) = record.filter(ours) else {
            // A lagging node may not show an agreement that was opened since.
            let key = Agreement::key(&provider, slot);
            if !self.ledger.is_absent(key, agreement.id.opened, ours).await? {
                return Ok(());
            }
            tracing::info!(agreement = agreement.number, "an agreement is gone; its reserves are back");
            return self.forget(agreement).await;
        };
        let epoch = self.parameters.epoch(height);
        if usage.closing_epoch.is_none() && epoch < record.end_epoch {
            // An earlier answer said that it was closed, and it is not: the close is repeated.
            let again = agreement.set_terms(|row| row.stage = Stage::Draining as u8).await;
            return again.map_err(|_| Error::Stopping);
        }
        let over = is_over(&record, &usage, epoch, &self.parameters);
        let Some(known) = self.shared.known(&provider).filter(|_| over && audit.challenge.is_none()) else {
            return Ok(());
        };
        let slots = Bounded::new(vec![(slot, record.consumer, record.end_epoch)]);
        let (index, slots, endings) =
            (known.index, slots.expect("one is within every bound"), Bounded::default());
        match self.ledger.execute(Body::Settle(Settle { provider, index, slots, endings })).await {
            Ok(Code::Done) | Err(Error::Expired) => Ok(()),
            Ok(code) => {
                tracing::debug!(?code, "a closed agreement could not be removed now");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_closed_agreement_has_its_turn() {
        let all: Vec<u32> = (0..40).collect();
        let (mut seen, mut after) = (Vec::new(), 0);
        for _ in 0..3 {
            let few = turn(all.clone(), after, |number| *number);
            assert_eq!(few.len(), AT_ONCE);
            after = few[AT_ONCE - 1];
            seen.extend(few);
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, all);
        assert_eq!(turn(vec![3, 9], 9, |number| *number), [3, 9], "round again");
        assert!(turn(Vec::<u32>::new(), 9, |number| *number).is_empty());
    }
}
