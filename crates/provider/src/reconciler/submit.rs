//! Submits a data set to the ledger when the consumer does not: a consumer that lets its provider sign
//! and never submits the claim has storage on credit.
//!
//! A claim describes the whole set (DS-1), so the newest one is enough. It costs a fee: the provider
//! waits until the pay that it missed is worth more.

use super::{REGISTER_BLOCKS, Reconciler, sending::Sending};
use crate::{data_sets::Bringing, ledger::Ledger, terms::Terms};
use commonware_runtime::{Blob, Spawner};
use commonware_storage::Context;
use posync_client::account::paying;
use posync_protocol::{
    AgreementId, Amount, Body, Operation,
    block::with_chain,
    ledger::fee,
    operation::{DATA_SET_NAMESPACE, SetDataSet, sign},
};

/// The claims that are being submitted.
pub(super) struct ClaimSubmitter {
    task: Sending,
    /// The agreement and version of the claim submitted last, and the height.
    last: Option<(AgreementId, u64, u64)>,
}

impl ClaimSubmitter {
    pub(super) const fn new() -> Self {
        Self { task: Sending::new(), last: None }
    }
}

impl<E: Spawner + Context, B: Blob, L: Ledger> Reconciler<E, B, L> {
    /// Submits the claim whose absence costs the provider most pay, if that is more than its fee; one at a
    /// time, beside other work.
    pub(super) fn bring(&mut self) {
        let view = &self.handler.parts().view;
        let height = view.height();
        if self.claim_submitter.task.is_busy() || view.check_grows().is_err() {
            return;
        }
        let Some((body, claimed)) = self.worth_bringing(height) else { return };
        let (agreement, version) = claimed;
        let again = |(last, then, at)| (last, then) == claimed && height < at + REGISTER_BLOCKS;
        if self.claim_submitter.last.is_some_and(again) {
            return;
        }
        self.claim_submitter.last = Some((agreement, version, height));
        tracing::info!(
            slot = agreement.slot,
            version,
            "bringing a data set that was signed here to the ledger"
        );
        let task = self.pay_beside(body, "a data set could not be brought to the ledger now");
        self.claim_submitter.task = task;
    }

    /// The operation with the largest missed pay, and its claim; `None` if none is worth its fee.
    fn worth_bringing(&self, height: u64) -> Option<(Body, (AgreementId, u64))> {
        let parts = self.handler.parts();
        let (view, parameters) = (&parts.view, &parts.view.parameters);
        let all: Vec<AgreementId> = parts.data_sets.with(|state| state.agreements().collect());
        let open = all.iter().filter_map(|id| view.kept(id)).filter(|t| t.check_open(view.epoch()).is_ok());
        let missed = open.filter_map(|terms| {
            let (bringing, pay) = parts.data_sets.with(|state| state.missed(&terms, height, parameters))?;
            Some((pay, bringing, terms))
        });
        let (pay, bringing, terms) = missed.max_by_key(|(pay, ..)| *pay)?;
        let claimed = (terms.id, bringing.claim.version);
        let body = self.claim_of(&bringing, &terms);
        (pay > self.fee_of(&body, height).grains()).then_some((body, claimed))
    }

    fn claim_of(&self, bringing: &Bringing, terms: &Terms) -> Body {
        let parts = self.handler.parts();
        let Bringing { claim, signature } = *bringing;
        let own = sign(&parts.key, DATA_SET_NAMESPACE, &with_chain(&parts.view.chain, &claim));
        Body::SetDataSet(SetDataSet {
            claim,
            index: self.costs.index,
            end_epoch: terms.agreement.end_epoch,
            storage_key: terms.agreement.storage_key,
            consumer_signature: signature,
            provider_signature: Some(own),
        })
    }

    fn fee_of(&self, body: &Body, height: u64) -> Amount {
        let view = &self.handler.parts().view;
        let context = paying(view.chain, view.parameters, height);
        let operation = Operation {
            signer: view.account,
            nonce: 0,
            max_fee: Amount::ZERO,
            expires: height,
            body: body.clone(),
            signature: [0; 64],
        };
        fee(&context, self.costs.base_fee, &operation)
    }
}
