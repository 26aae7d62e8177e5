//! Brings signed data sets to the ledger, in order, in the background, and looks at what it says of us.

use crate::{
    core::Core,
    deed::Deed,
    ledger::{Error, Ledger, decode},
};
use futures::future::join_all;
use posync_protocol::{
    Code,
    agreement::trust,
    limits::Parameters,
    operation::{Body, DataSetClaim, SetDataSet},
    record::{Audit, DataSet, Use},
};
use std::sync::Arc;

/// Claims of one agreement in one go.
const CLAIMS_AT_ONCE: usize = 8;
/// Settlements that must lie between a growth and the next shrink (protocol 3).
const SHRINK_SETTLEMENTS: u32 = 2;

/// Brings what waits of one agreement to the ledger, as far as it takes it now.
///
/// # Errors
/// [`Error`]; the claims go on waiting.
pub(super) async fn settle(
    core: &Core,
    ledger: &Ledger,
    deed: &Arc<Deed>,
    parameters: &Parameters,
) -> Result<(), Error> {
    let stopped = |_| Error::Stopping;
    let slot = deed.agreement.slot;
    let provider = deed.provider();
    let keys = vec![DataSet::key(&provider, slot), Audit::key(&provider), Use::key(&provider, slot)];
    let (_, slots) = ledger.read(keys).await?;
    let data_set: DataSet = decode(slots.first().copied().flatten())?.unwrap_or_default();
    let audit: Audit = decode(slots.get(1).copied().flatten())?.unwrap_or_default();
    let usage: Use = decode(slots.get(2).copied().flatten())?.unwrap_or_default();
    deed.set_trust(trust(&usage, parameters));
    let last = data_set.next.unwrap_or(data_set.current);
    deed.settled(last.version).await.map_err(stopped)?;
    let waiting = deed.waiting();
    let may_shrink = audit.settlements >= last.grown_at.saturating_add(SHRINK_SETTLEMENTS);
    deed.set_may_shrink(waiting.is_empty() && may_shrink);
    let Some(known) = core.known(&deed.provider()) else { return Ok(()) };
    // A data set that grows would be refused for a fee, and with it what follows: all of it waits for
    // the provider's return, or for the end of the agreement.
    let grows = |claim: &DataSetClaim| !known.takes && claim.leaves > last.leaves;
    let due = waiting.iter().take_while(|signed| !grows(&signed.claim));
    let bodies = due.take(CLAIMS_AT_ONCE).map(|signed| {
        Body::SetDataSet(SetDataSet {
            claim: signed.claim,
            index: known.index,
            end_epoch: deed.terms().end_epoch,
            storage_key: deed.storage_account(),
            consumer_signature: deed.sign_claim(&signed.claim),
            provider_signature: Some(signed.signature),
        })
    });
    let bodies: Vec<Body> = bodies.collect();
    let codes = join_all(bodies.into_iter().map(|body| ledger.execute(body))).await;
    for (signed, code) in waiting.iter().zip(codes) {
        match code? {
            Code::Done => deed.settled(signed.claim.version).await.map_err(stopped)?,
            // What follows it is refused too; all of it is brought again at the next look.
            Code::DataSetShrinkEarly | Code::DataSetVersion | Code::GrowthJailed | Code::GrowthSuspended => {
                return Ok(());
            }
            code @ (Code::AgreementUnknown | Code::AgreementClosed | Code::AgreementEnded) => {
                tracing::info!(?code, deed = deed.number, "an agreement takes no data set any more");
                let all = waiting.last().map_or(0, |last| last.claim.version);
                return deed.settled(all).await.map_err(stopped);
            }
            code => {
                tracing::warn!(?code, deed = deed.number, "a data set is refused: {}", code.explain());
                return Ok(());
            }
        }
    }
    Ok(())
}
