//! Test support: an agreement between a provider and a consumer, and what both sign for it.

use crate::{
    data_sets::{DataSets, Held},
    packs::{Store, StoreConfig},
    registration::registration,
    terms::Terms,
    world::{self, World},
};
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_runtime::Spawner;
use commonware_storage::Context;
use posync_protocol::{
    Account, AgreementId, Amount, Body, Bounded, Hash, PerClass, Signature, Units,
    block::with_chain,
    operation::{DATA_SET_NAMESPACE, DataSetClaim, Open, RegisterProvider, SetDataSet, sign},
    record::{Agreement, DataSet, Pair, Provider, Usage},
    tree::SumTree,
    wire::provider::Sign,
};
use std::sync::Arc;

/// Genesis hash used by all tests.
pub(crate) const CHAIN: Hash = [0xc4; 32];

pub(crate) fn key(seed: u64) -> PrivateKey {
    PrivateKey::from_seed(seed)
}

fn account(seed: u64) -> Account {
    Account::of(&key(seed).public_key())
}

pub(crate) fn provider() -> PrivateKey {
    key(1)
}

pub(crate) fn consumer() -> Account {
    account(2)
}

pub(crate) fn session() -> PrivateKey {
    key(3)
}

pub(crate) fn storage() -> PrivateKey {
    key(4)
}

pub(crate) fn id() -> AgreementId {
    AgreementId { provider: account(1), slot: 0, opened: 0 }
}

/// An open agreement of the first round: 2^20 leaves, 1 GiB of egress, 1 MiB a round.
pub(crate) fn terms() -> Terms {
    let agreement = Agreement {
        opened: 0,
        consumer: consumer(),
        session_key: Account::of(&session().public_key()),
        storage_key: Account::of(&storage().public_key()),
        end_epoch: 700,
        prices: PerClass::new(
            Pair { price: 10_000_000, slow: 10_000_000 },
            Pair { price: 1_000_000, slow: 1_000_000 },
            Pair { price: 1_000, slow: 1_000 },
        ),
        quota: PerClass::new(1 << 20, 1 << 30, 1 << 30),
        rate: Units { egress: 1 << 20, gas: 1 << 30 },
    };
    let usage = Usage { voucher_reserve: Amount::sync(1), ..Usage::default() };
    Terms { id: id(), height: 0, agreement, usage, data: DataSet::default() }
}

/// Signature of the consumer over a claim.
pub(crate) fn claim_of(claim: &DataSetClaim) -> Signature {
    sign(&storage(), DATA_SET_NAMESPACE, &with_chain(&CHAIN, claim))
}

/// A signed change of the shards in `base`.
pub(crate) fn sign_of(version: u64, base: &[(Hash, u64)], removes: &[u32], adds: &[(Hash, u64)]) -> Sign {
    let mut tree = SumTree::new(base).expect("small");
    tree.change(removes, adds).expect("fits");
    let (root, leaves, bytes) = (tree.root(), tree.leaves(), tree.bytes());
    let claim = DataSetClaim { agreement: id(), version, root, leaves, bytes };
    Sign {
        claim,
        adds: Bounded::new(adds.to_vec()).expect("few"),
        removes: Bounded::new(removes.to_vec()).expect("few"),
        signature: claim_of(&claim),
    }
}

/// The registration of the provider `paul` of a [`World`].
pub(crate) fn register_body() -> RegisterProvider {
    let capacity = PerClass::new(1 << 20, 1 << 30, 1 << 40);
    RegisterProvider { capacity, ..registration("paul", "127.0.0.1:4000") }
}

/// An agreement of `carol`, who signs everything herself, with `paul`.
pub(crate) fn open_body(world: &World, slot: u32, epochs: u64) -> Open {
    let parameters = world.parameters;
    let price = |price: u128| u64::try_from(price).expect("small");
    Open {
        provider: world::account("paul"),
        slot,
        session_key: world::account("carol"),
        storage_key: world::account("carol"),
        price_max: parameters.prices.map(price),
        quota: PerClass::new(1 << 16, 1 << 30, 1 << 30),
        rate: Units { egress: 1 << 24, gas: 1 << 30 },
        end_epoch: world.epoch() + epochs,
        voucher_reserve: Amount::sync(10),
        storage_reserve_max: Amount::sync(1_000),
    }
}

/// The claim of a version of `paul`'s data set under an agreement, with these shards.
pub(crate) fn claim(agreement: AgreementId, version: u64, shards: &[(Hash, u64)]) -> DataSetClaim {
    let tree = SumTree::new(shards).expect("small");
    DataSetClaim { agreement, version, root: tree.root(), leaves: tree.leaves(), bytes: tree.bytes() }
}

/// Signature of `carol` over a claim on a chain.
fn signature_of_carol(chain: &Hash, claim: &DataSetClaim) -> Signature {
    sign(&world::key("carol"), DATA_SET_NAMESPACE, &with_chain(chain, claim))
}

/// The request of `carol` that the provider sign a claim.
pub(crate) fn sign_body(chain: &Hash, claim: DataSetClaim, removes: &[u32], adds: &[(Hash, u64)]) -> Sign {
    Sign {
        claim,
        adds: Bounded::new(adds.to_vec()).expect("few"),
        removes: Bounded::new(removes.to_vec()).expect("few"),
        signature: signature_of_carol(chain, &claim),
    }
}

/// The operation by which a claim on `paul` comes to the ledger, signed by `carol`.
pub(crate) fn set_body(world: &World, claim: DataSetClaim, provider_signature: Option<Signature>) -> Body {
    let paul = world::account("paul");
    let provider: Provider = world.get(Provider::key(&paul)).expect("registered");
    let agreement: Agreement = world.get(Agreement::key(&paul, claim.agreement.slot)).expect("open");
    Body::SetDataSet(SetDataSet {
        claim,
        index: provider.index,
        end_epoch: agreement.end_epoch,
        storage_key: world::account("carol"),
        consumer_signature: signature_of_carol(&world.chain, &claim),
        provider_signature,
    })
}

/// The proved records of `paul`'s agreement in a slot, while it is open.
pub(crate) fn terms_at(world: &World, slot: u32) -> Option<Terms> {
    let paul = world::account("paul");
    let agreement: Agreement = world.get(Agreement::key(&paul, slot))?;
    Some(Terms {
        id: agreement.id(paul, slot),
        height: world.height,
        agreement,
        usage: world.get(Usage::key(&paul, slot))?,
        data: world.get(DataSet::key(&paul, slot)).unwrap_or_default(),
    })
}

/// The shard store and the data sets of `paul`, on the disk of a runtime.
pub(crate) async fn disk<E: Context + Spawner>(context: &E, chain: Hash) -> (Store<E::Blob>, DataSets) {
    let config = StoreConfig::for_capacity("store", 64 << 20, 1 << 20);
    let (store, _) = Store::open(context.child("store"), config).await.expect("opens");
    let reader = store.clone();
    let held: Held = Arc::new(move |id, shard| reader.length(shard).filter(|_| reader.holds(id, shard)));
    let opening = DataSets::open(context.child("data_sets"), "books", world::key("paul"), chain, held);
    let (data_sets, _) = opening.await.expect("opens");
    (store, data_sets)
}

/// Test data of a given length that depends on `tag`.
pub(crate) fn data(tag: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&tag.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}
