//! Submits providers' signed refusals of placements, which cut their declared capacity to what is sold (PV-5).
//!
//! Each submission costs this account a fee. So a refusal is submitted only if it is of a placement of this account,
//! the ledger's own rule would cut something, and no other refusal of the provider was submitted shortly before.

use super::{
    actor::Agreements,
    state::View,
    upkeep::{Busy, Job},
};
use crate::shared::Known;
use posync_protocol::{
    Account,
    operation::{Body, RefusedPlacement},
    provider::check_cut,
};
use std::{collections::BTreeMap, sync::Arc};

impl Agreements {
    /// Begins to submit the refusals that the ledger would accept. Returns their number.
    pub(super) fn bring_refusals(self: &Arc<Self>, views: &BTreeMap<Account, (View, Known)>) -> usize {
        let mut begun = 0;
        for agreement in self.shared.agreements() {
            let Some(refused) = agreement.peer.take_refusal(self.height()) else { continue };
            let view = views.get(&refused.provider).map(|(view, _)| view);
            if !view.is_some_and(|view| self.cuts(&refused, view)) {
                tracing::debug!(provider = %refused.provider, "a refusal that would cut nothing is not submitted");
                continue;
            }
            let work = |agreements: Arc<Self>, busy: Arc<Busy>| async move {
                let code = agreements.ledger.execute(Body::Refusal(refused)).await;
                // Whatever became of it: the next refusal of this provider waits.
                busy.refused(agreements.height());
                let code = code?;
                tracing::warn!(provider = %refused.provider, ?code, "a provider refused within its declared capacity");
                Ok(())
            };
            begun += usize::from(self.begin(Job::Refusal(refused.provider), work));
        }
        begun
    }

    /// True if the ledger would cut the capacity of a provider, as `view` shows it, for a refusal of a placement of
    /// this account.
    fn cuts(&self, refused: &RefusedPlacement, view: &View) -> bool {
        let own = refused.consumer == self.account && refused.leaves > 0;
        let cut = check_cut(refused, &view.provider, &view.offer, self.height(), &self.parameters);
        own && cut.is_ok() && refused.check(&self.shared.common.chain).verify()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        account::Consumer,
        agreements::{
            reclaim::tests::means,
            state::{Stage, tests::usage_of},
        },
        catalogue::{LoadedAgreement, Nothing, row::OwnAgreementRow},
    };
    use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
    use commonware_runtime::{Runner as _, Supervisor as _, deterministic};
    use posync_client::channel::SharedNetwork;
    use posync_protocol::{
        AgreementId, Bounded, PerClass,
        record::{Audit, Offer, Provider, Reputation},
        wire::provider::{Refusal, Refused},
    };
    use std::sync::atomic::Ordering;

    /// The ledger's view of a provider of 100 leaves, of which `sold` are under contract.
    fn views(provider: Account, sold: u64) -> BTreeMap<Account, (View, Known)> {
        let offer = Offer {
            operator: [0; 32],
            capacity: PerClass::new(100, 0, 0),
            reserve: PerClass::all(0),
            term_max: 720,
            region: Bounded::default(),
        };
        let record = Provider { sold: PerClass::new(sold, 0, 0), cut: 70, ..Provider::default() };
        let (audit, reputation) = (Audit::default(), Reputation::newborn(0));
        let view = View { offer, provider: record, audit, reputation, measured: None, barred: false };
        let known = Known {
            index: 0,
            operator: Vec::new(),
            region: Vec::new(),
            address: None,
            socket: None,
            trusted: true,
            takes: true,
            score: 1,
            vetted: true,
        };
        [(provider, (view, known))].into()
    }

    #[test]
    fn a_refusal_is_submitted_only_if_it_is_ours_and_cuts_something_and_not_again_at_once() {
        deterministic::Runner::default().start(|context| async move {
            let network = SharedNetwork::new(context.child("network"));
            let consumer = Consumer::<Nothing>::open(&context, &network, means()).await.expect("opens");
            let key = PrivateKey::from_seed(5);
            let provider = Account::of(&key.public_key());
            let id = AgreementId { provider, slot: 3, opened: 1 };
            let row = OwnAgreementRow { id, ..usage_of(Stage::Open, 720).row };
            let catalogue = consumer.shared.common.catalogue.clone();
            let number = catalogue.add_agreement(row.clone()).await.expect("runs").expect("room");
            consumer.agreements.add(LoadedAgreement::fresh(number, row));
            let (agreements, chain) = (consumer.agreements.clone(), consumer.shared.common.chain);
            consumer.shared.height.store(100, Ordering::Relaxed);
            let peer = consumer.shared.agreement(number).expect("added").peer.clone();
            let (own, agreement) = (agreements.account, Some(id));
            let refusal = RefusedPlacement {
                provider,
                consumer: own,
                agreement,
                leaves: 1,
                height: 90,
                signature: [0; 64],
            };
            let begun = |refusal: RefusedPlacement, sold: u64, times: usize| {
                let begin = |_| {
                    let text = Bounded::new(b"full".to_vec()).expect("short");
                    let refused = Refused { reason: Refusal::Space, text, signed: Some(refusal) };
                    peer.keep_refusal(&refused, id);
                    agreements.bring_refusals(&views(provider, sold))
                };
                (0..times).map(begin).sum::<usize>()
            };
            let signed = |refusal: RefusedPlacement| refusal.signed(&key, &chain);
            let of_another = RefusedPlacement { consumer: Account([9; 32]), ..refusal };
            for (what, refusal, sold) in [
                ("nothing is free", signed(refusal), 100),
                ("it is another consumer's", signed(of_another), 50),
                ("nobody signed it", refusal, 50),
                ("it is of no leaves", signed(RefusedPlacement { leaves: 0, ..refusal }), 50),
                ("it is old", signed(RefusedPlacement { height: 59, ..refusal }), 50),
                ("a cut came after it", signed(RefusedPlacement { height: 65, ..refusal }), 50),
            ] {
                assert_eq!(begun(refusal, sold, 10), 0, "{what}");
            }
            assert_eq!(begun(signed(refusal), 50, 10), 1, "one, and a pause");
        });
    }
}
