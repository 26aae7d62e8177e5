//! Has closed agreements removed once their redemption window is over, so that what is left of
//! their reserves comes back: a provider that never held anything under one has no reason to.

use super::{actor::Purse, state::Stage};
use crate::{
    deed::Deed,
    ledger::{Error, decode},
};
use posync_protocol::{
    Bounded, Code,
    agreement::is_over,
    operation::{Body, Settle},
    record::{Agreement, Audit, Use},
};
use std::sync::Arc;

/// Agreements looked at in one go.
const AT_ONCE: usize = 16;

impl Purse {
    /// Looks after some closed agreements.
    pub(super) async fn reclaim(&self) -> Result<(), Error> {
        let closing = |deed: &Arc<Deed>| Stage::of(&deed.terms()) == Stage::Closing;
        for deed in self.core.deeds().into_iter().filter(closing).take(AT_ONCE) {
            self.reclaim_one(&deed).await?;
        }
        Ok(())
    }

    async fn reclaim_one(&self, deed: &Arc<Deed>) -> Result<(), Error> {
        let (provider, slot) = (deed.provider(), deed.agreement.slot);
        let keys = vec![Agreement::key(&provider, slot), Use::key(&provider, slot), Audit::key(&provider)];
        let (height, slots) = self.ledger.read(keys).await?;
        let slot_at = |place: usize| slots.get(place).copied().flatten();
        let agreement: Option<Agreement> = decode(slot_at(0))?;
        let usage: Use = decode(slot_at(1))?.unwrap_or_default();
        let audit: Audit = decode(slot_at(2))?.unwrap_or_default();
        let Some(agreement) = agreement.filter(|found| found.opened == deed.agreement.opened) else {
            tracing::info!(deed = deed.number, "an agreement is gone; its reserves are back");
            return self.forget(deed).await;
        };
        let over = is_over(&agreement, &usage, self.parameters.epoch(height), &self.parameters);
        let Some(known) = self.core.known(&provider).filter(|_| over && audit.challenge.is_none()) else {
            return Ok(());
        };
        let slots = Bounded::new(vec![(slot, agreement.consumer, agreement.end_epoch)]);
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
