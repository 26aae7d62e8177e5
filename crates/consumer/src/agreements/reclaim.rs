//! Removes closed agreements from the ledger once their redemption window is over, so that the rest of
//! their reserves is refunded: a provider that never held anything under one has no reason to.

use super::{actor::Agreements, state::Stage};
use crate::{
    agreement::OwnAgreement,
    catalogue::Stopped,
    ledger::{Error, decode},
    shared::{Notice, Shared},
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

/// Forgets an agreement under which no shard is in force, and that is gone from the ledger or will be. What was
/// held under it is no longer in any data set.
///
/// # Errors
/// [`Stopped`].
pub async fn forget(shared: &Shared, agreement: &OwnAgreement) -> Result<(), Stopped> {
    let held = agreement.close();
    let catalogue = &shared.common.catalogue;
    catalogue.erase_holdings(agreement.number, agreement.id, held.clone()).await?;
    agreement.set_terms(|row| row.stage = Stage::Gone as u8).await?;
    shared.remove_agreement(agreement.number);
    for entry in held {
        shared.notice_surely(Notice::Incomplete { file: entry.file, segment: entry.segment }).await;
    }
    Ok(())
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
            tracing::info!(
                agreement = agreement.number,
                "an agreement was removed from the ledger; the rest of its reserves is back"
            );
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
pub(super) mod tests {
    use super::*;
    use crate::{
        account::{Consumer, Means},
        catalogue::{LoadedAgreement, Nothing, row::OwnAgreementRow},
    };
    use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
    use commonware_runtime::{Runner as _, Supervisor as _, deterministic};
    use posync_client::{
        connection::Endpoint,
        light::{Light, network_key},
    };
    use posync_protocol::{Account, AgreementId, Amount, limits::Parameters};
    use std::net::SocketAddr;

    /// A network key that is a point of its group: nothing is verified under it here.
    const ANY_KEY: &str = "93e02b6052719f607dacd3a088274f65596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e\
                           024aa2b2f08f0a91260805272dc51051c6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8";

    pub(in crate::agreements) fn means() -> Means {
        let hex = |at: usize| u8::from_str_radix(&ANY_KEY[2 * at..2 * at + 2], 16).expect("hex");
        let parameters = Parameters::LOCAL;
        let node =
            Endpoint { account: Account([1; 32]), address: SocketAddr::from(([127, 0, 0, 1], 1)).into() };
        Means {
            key: PrivateKey::from_seed(1),
            partition: "test".into(),
            nodes: vec![node],
            keeps_floor: false,
            light: Light::new([1; 32], network_key(&std::array::from_fn(hex)).expect("a point")),
            parameters,
            policy: crate::Policy::of(&parameters),
            alerts: Default::default(),
            volume: Default::default(),
        }
    }

    #[test]
    fn what_is_gone_from_the_ledger_is_kept_while_a_damaged_row_may_describe_its_shards() {
        deterministic::Runner::default().start(|context| async move {
            let network = posync_client::channel::SharedNetwork::new(context.child("network"));
            let mut consumer = Consumer::<Nothing>::open(&context, &network, means()).await.expect("opens");
            let row = |slot| OwnAgreementRow {
                id: AgreementId { provider: Account([7; 32]), slot, opened: 1 },
                stage: Stage::Closing as u8,
                end_epoch: 720,
                quota_leaves: 1 << 21,
                quota_egress: 64 << 30,
                voucher_reserve: Amount::sync(28),
                egress_price: 1,
                rate_egress: Default::default(),
            };
            let catalogue = consumer.shared.common.catalogue.clone();
            let mut numbers = Vec::new();
            for slot in 0..2 {
                let number = catalogue.add_agreement(row(slot)).await.expect("runs").expect("room");
                consumer.agreements.add(LoadedAgreement::fresh(number, row(slot)));
                numbers.push(number);
            }
            let agreements = Arc::get_mut(&mut consumer.agreements).expect("nothing else has it");
            agreements.kept = [numbers[0]].into();
            for number in &numbers {
                let agreement = consumer.shared.agreement(*number).expect("added");
                agreements.forget(&agreement).await.expect("runs");
            }
            let kept = consumer.shared.agreement(numbers[0]).expect("not forgotten");
            assert_eq!(Stage::of(&kept.terms()), Stage::Closing);
            assert!(!kept.is_closed());
            assert!(consumer.shared.agreement(numbers[1]).is_none(), "nothing names its shards");
        });
    }

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
