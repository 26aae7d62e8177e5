//! Test support: one agreement between a provider and a consumer.

use crate::{
    terms::Terms,
    world::{self, World},
};
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use posync_protocol::record::Pair;
use posync_protocol::{
    Account, AgreementId, Amount, Bounded, Hash, PerClass, Signature, Units,
    block::with_chain,
    operation::{DATA_SET_NAMESPACE, DataSetClaim, Open, RegisterProvider, sign},
    record::{Agreement, DataSet, Usage},
    tree::SumTree,
    wire::provider::Sign,
};

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

fn text<const MAX: usize>(text: &str) -> Bounded<u8, MAX> {
    Bounded::new(text.as_bytes().to_vec()).expect("short")
}

/// The registration of the provider `paul` of a [`World`].
pub(crate) fn register_body() -> RegisterProvider {
    let mut operator = [0; 32];
    operator[..4].copy_from_slice(b"paul");
    RegisterProvider {
        operator,
        bond: Amount::sync(1_000),
        capacity: PerClass::new(1 << 20, 1 << 30, 1 << 40),
        reserve: PerClass::all(0),
        term_max: 720,
        addresses: Bounded::new(vec![text("127.0.0.1:4000")]).expect("one"),
        region: text("test"),
    }
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

/// Test data of a given length that depends on `tag`.
pub(crate) fn data(tag: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&tag.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}
