//! Submits the newest signed data set of an agreement to the ledger, in the background, and reads the
//! ledger's records of that agreement.
//!
//! A claim covers the whole data set (DS-1): one operation carries all that was signed before it, and
//! makes older claims void. So at most one is in flight for each agreement.

use crate::{
    agreement::OwnAgreement,
    ledger::{Error, Ledger, decode},
    shared::Shared,
};
use posync_protocol::{
    Code,
    agreement::trust,
    limits::Parameters,
    operation::{Body, DataSetClaim, SetDataSet},
    record::{Audit, DataSet, Usage},
};
use std::{sync::Arc, time::Duration};

/// Settlements required between a growth in force and the next shrink (DS-3).
const SHRINK_SETTLEMENTS: u32 = 2;

/// Which data sets of an agreement the ledger would accept now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Verdict {
    /// It would accept the one that waits.
    takes: bool,
    /// It will accept one that is smaller than the one signed last.
    shrinks: bool,
}

impl Verdict {
    /// From the set in force and the one after it, the provider's settlements, whether the provider may
    /// grow, and the newest claim that is not on the ledger.
    fn of(data_set: &DataSet, settlements: u32, grows: bool, waiting: Option<&DataSetClaim>) -> Self {
        let current = &data_set.current;
        let settled = settlements >= current.grown_at.saturating_add(SHRINK_SETTLEMENTS);
        let takes = waiting.is_none_or(|claim| {
            (grows || claim.leaves <= current.leaves) && (settled || claim.leaves >= current.leaves)
        });
        // A set that takes effect before a shrink must not be a growth, or the shrink would wait again. A
        // provider that may not grow gets no growth accepted either.
        let below = |leaves: Option<u64>| leaves.is_none_or(|leaves| leaves < current.leaves);
        let next = below(data_set.next.map(|next| next.leaves));
        let shrinks = settled && next && (below(waiting.map(|claim| claim.leaves)) || !grows);
        Self { takes, shrinks }
    }
}

/// Submits the claim of one agreement that waits, if the ledger would accept it now.
///
/// # Errors
/// [`Error`]; the claim keeps waiting.
pub(super) async fn settle(
    shared: &Shared,
    ledger: &Ledger,
    agreement: &Arc<OwnAgreement>,
    parameters: &Parameters,
) -> Result<(), Error> {
    // Another task that submits it has just read the ledger.
    let Some(_bringing) = agreement.bring() else { return Ok(()) };
    let stopped = |_| Error::Stopping;
    let slot = agreement.id.slot;
    let provider = agreement.provider();
    let keys = vec![DataSet::key(&provider, slot), Audit::key(&provider), Usage::key(&provider, slot)];
    let (height, slots) = ledger.read(keys).await?;
    let data_set: DataSet = decode(slots.first().copied().flatten())?.unwrap_or_default();
    let audit: Audit = decode(slots.get(1).copied().flatten())?.unwrap_or_default();
    let usage: Usage = decode(slots.get(2).copied().flatten())?.unwrap_or_default();
    agreement.set_trust(trust(&usage, parameters));
    let last = data_set.next.unwrap_or(data_set.current);
    agreement.looked(&last, height).await.map_err(stopped)?;
    let Some(known) = shared.known(&provider) else { return Ok(()) };
    let waiting = agreement.waiting();
    let claim = waiting.as_ref().map(|signed| &signed.claim);
    let verdict = Verdict::of(&data_set, audit.settlements, known.takes, claim);
    agreement.set_may_shrink(verdict.shrinks.then(|| claim.map_or(last.version, |claim| claim.version)));
    // A refused claim costs a fee, so it waits for the provider's return, for settlements, or for the end
    // of the agreement.
    let Some(signed) = waiting.filter(|_| verdict.takes) else { return Ok(()) };
    let body = Body::SetDataSet(SetDataSet {
        claim: signed.claim,
        index: known.index,
        end_epoch: agreement.terms().end_epoch,
        storage_key: agreement.storage_account(),
        consumer_signature: agreement.sign_claim(&signed.claim),
        provider_signature: Some(signed.signature),
    });
    let (code, is_final) = ledger.ask(body).await?;
    match code {
        Code::Done => {
            agreement.settled(signed.claim.version).await.map_err(stopped)?;
            if agreement.is_due() {
                shared.common.signed.notify_one();
            }
        }
        // The provider was faster with it. While signatures wait for the ledger, so does a put: the new state is
        // read with the next block.
        Code::DataSetVersion if agreement.is_due() => {
            shared.common.environment.sleep(Duration::from_millis(parameters.block_ms / 2)).await;
            shared.common.signed.notify_one();
        }
        // A block was faster: the next look reads the new state.
        Code::DataSetShrinkEarly | Code::DataSetVersion | Code::GrowthJailed | Code::GrowthSuspended => {}
        // The claim is given up, but only after a final receipt, not on a node's word.
        Code::AgreementUnknown | Code::AgreementClosed | Code::AgreementEnded if is_final => {
            tracing::info!(?code, agreement = agreement.number, "an agreement accepts no data set any more");
            agreement.settled(signed.claim.version).await.map_err(stopped)?;
        }
        _ => {
            tracing::warn!(
                ?code,
                agreement = agreement.number,
                "the ledger refused a data set: {}",
                code.explain()
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use posync_protocol::{Account, AgreementId, record::Version};

    fn claim(leaves: u64) -> DataSetClaim {
        let agreement = AgreementId { provider: Account([1; 32]), slot: 0, opened: 1 };
        DataSetClaim { agreement, version: 9, root: [1; 32], leaves, bytes: 0 }
    }

    fn version(leaves: u64) -> Version {
        Version { version: 3, root: [0; 32], leaves, bytes: 0, grown_at: 10 }
    }

    #[test]
    fn a_claim_is_brought_and_a_shrink_signed_only_when_the_ledger_takes_them() {
        for (what, next, settlements, grows, waiting, takes, shrinks) in [
            ("nothing waits", None, 12, true, None, true, true),
            ("just grown", None, 11, true, None, true, false),
            ("a growth waits as next", Some(101), 12, true, None, true, false),
            ("a shrink waits as next", Some(99), 12, true, None, true, true),
            ("a growth waits here", None, 12, true, Some(101), true, false),
            ("as large as what is in force", None, 11, true, Some(100), true, false),
            ("smaller, just grown", None, 11, true, Some(99), false, false),
            ("smaller, settled", None, 12, true, Some(99), true, true),
            ("smaller than next, not than what is in force", Some(120), 11, true, Some(110), true, false),
            ("a growth at who may not grow", None, 12, false, Some(101), false, true),
            ("a shrink at who may not grow", None, 12, false, Some(99), true, true),
            ("the same, just grown", None, 11, false, Some(99), false, false),
        ] {
            let data_set = DataSet { current: version(100), next: next.map(version) };
            let waiting = waiting.map(claim);
            let verdict = Verdict::of(&data_set, settlements, grows, waiting.as_ref());
            assert_eq!(verdict, Verdict { takes, shrinks }, "{what}");
        }
    }
}
