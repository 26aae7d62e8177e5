//! The state that changes from term to term: signers, their shares, their addresses, their weights.
//!
//! A *term* is the engine's epoch: a fixed number of blocks after which the authorities reshare the
//! network key. The key itself never changes, so one public key verifies every certificate of every
//! term. The last block of a term carries the next term's players and this module's [`Directory`].
//!
//! ```text
//! seats in the state, as of the middle of term t
//!        │ Authorities: weights of t+1, players of t+2
//!        ▼
//! finalized last block of term t
//!        │ EpochInfo { output, players, directory }
//!        ├──► Registrar ──► Schemes[t+1] ──► consensus engine of term t+1
//!        └──► Peers::track ──► p2p addresses
//!                         └──► Weights[t+1] ──► elector of term t+1
//! ```
//!
//! Invariants:
//! 1. `Peers::track` fills the weights of a term before that term's engine asks for a leader.
//! 2. Participants and directory are functions of finalized state only: of the seats' records as of one
//!    height ([`terms`]), and of the keys, addresses and weights of the genesis.
//!
//! Source: the term hooks of `commonware-glue`, module `dkg`.

pub(crate) mod elector;
pub(crate) mod secrets;
pub(crate) mod terms;

pub use secrets::Secrets;
pub(crate) use terms::Authorities;

use crate::{
    engine::{CONSENSUS_TERMS_KEPT, PublicKey, Scheme, Variant},
    own_key::OwnKey,
};
use bytes::BufMut;
use commonware_codec::{Buf, EncodeSize, Error as CodecError, FixedSize, RangeCfg, Read, Write};
use commonware_consensus::types::Epoch;
use commonware_cryptography::certificate::{Provider as CertificateProvider, Scoped};
use commonware_glue::dkg::{
    Registrar as RegistrarTrait,
    network::{Directory as DirectoryTrait, Manager},
    types::SchemeInfo,
};
use commonware_p2p::{
    Address, AddressableManager, AddressableTrackedPeers, PeerSetSubscription, Provider, TrackedPeers,
};
use commonware_utils::{
    Faults as _, N3f1,
    ordered::{Map, Set},
    sync::Mutex,
};
use std::{collections::BTreeMap, sync::Arc};
use thiserror::Error;

/// The address of an authority, and the weight by which the beacon draws it as leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Address that the other authorities dial.
    pub address: Address,
    /// Share of the drawn views, relative to the other authorities; 0 leads no view.
    pub weight: u64,
}

impl Write for DirectoryEntry {
    fn write(&self, buf: &mut impl BufMut) {
        self.address.write(buf);
        self.weight.write(buf);
    }
}

impl EncodeSize for DirectoryEntry {
    fn encode_size(&self) -> usize {
        self.address.encode_size() + u64::SIZE
    }
}

impl Read for DirectoryEntry {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, CodecError> {
        Ok(Self { address: Address::read_cfg(buf, &())?, weight: u64::read_cfg(buf, &())? })
    }
}

/// The entries of exactly the authorities that take part in a term; all nodes hold the same directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory(pub Map<PublicKey, DirectoryEntry>);

impl Write for Directory {
    fn write(&self, buf: &mut impl BufMut) {
        self.0.write(buf);
    }
}

impl EncodeSize for Directory {
    fn encode_size(&self) -> usize {
        self.0.encode_size()
    }
}

impl Read for Directory {
    type Cfg = RangeCfg<usize>;

    fn read_cfg(buf: &mut impl Buf, cfg: &Self::Cfg) -> Result<Self, CodecError> {
        Ok(Self(Map::read_cfg(buf, &(*cfg, (), ()))?))
    }
}

impl DirectoryTrait<PublicKey> for Directory {
    fn codec_config(peers: &Set<PublicKey>) -> Self::Cfg {
        RangeCfg::exact(peers.len())
    }

    fn max_encode_size(peers: usize) -> usize {
        use commonware_codec::MaxEncodeSize as _;
        Map::<PublicKey, DirectoryEntry>::max_encode_size(peers, Address::MAX_ENCODE_SIZE + u64::SIZE)
    }

    fn matches(&self, peers: &Set<PublicKey>) -> bool {
        self.0.keys() == peers
    }
}

/// Leader weights by term, shared between [`Peers`] (writes) and the elector (reads).
#[derive(Clone, Debug, Default)]
pub(crate) struct Weights(Arc<Mutex<BTreeMap<u64, Map<PublicKey, u64>>>>);

impl Weights {
    pub(crate) fn set(&self, term: u64, directory: &Directory) {
        let weights = directory.0.iter_pairs().map(|(key, entry)| (key.clone(), entry.weight));
        let mut table = self.0.lock();
        table.insert(term, Map::from_iter_dedup(weights));
        while table.len() > CONSENSUS_TERMS_KEPT {
            table.pop_first();
        }
    }

    /// True if this participant leads no view of `term` (AU-9): it has no weight, and those that have some are a
    /// quorum. False if the weights are unknown.
    pub(crate) fn leads_none(&self, term: u64, participants: &Set<PublicKey>, key: &PublicKey) -> bool {
        let weights = self.of(term, participants);
        let own = participants.position(key).and_then(|index| weights.get(index));
        let leaders = weights.iter().filter(|weight| **weight > 0).count();
        own == Some(&0) && leaders >= N3f1::quorum(weights.len()) as usize
    }

    /// The weight of every participant in `term`, in the given order; 1 if it is unknown.
    fn of(&self, term: u64, participants: &Set<PublicKey>) -> Vec<u64> {
        let table = self.0.lock();
        let weights = table.get(&term);
        participants.iter().map(|key| weights.and_then(|w| w.get_value(key)).copied().unwrap_or(1)).collect()
    }
}

/// A directory lacks a peer that it must name.
#[derive(Clone, Debug, Error)]
#[error("the directory of term {term} names no address for {peer}")]
pub(crate) struct MissingAddress {
    term: u64,
    peer: Box<PublicKey>,
}

/// The transport's peer manager, controlled by the ledger instead of by an operator.
#[derive(Clone, Debug)]
pub(crate) struct Peers<M> {
    inner: M,
    weights: Weights,
}

impl<M> Peers<M> {
    /// Wraps the transport's manager; the elector reads `weights`.
    pub(crate) const fn new(inner: M, weights: Weights) -> Self {
        Self { inner, weights }
    }
}

impl<M: AddressableManager<PublicKey = PublicKey>> Provider for Peers<M> {
    type PublicKey = PublicKey;

    async fn peer_set(&mut self, id: u64) -> Option<TrackedPeers<PublicKey>> {
        self.inner.peer_set(id).await
    }

    async fn subscribe(&mut self) -> PeerSetSubscription<PublicKey> {
        self.inner.subscribe().await
    }
}

impl<M: AddressableManager<PublicKey = PublicKey>> Manager for Peers<M> {
    type Directory = Directory;
    type Error = MissingAddress;

    fn track(
        &mut self,
        epoch: Epoch,
        peers: TrackedPeers<PublicKey>,
        directory: &Directory,
    ) -> Result<(), MissingAddress> {
        let term = epoch.get();
        let resolve = |set: &Set<PublicKey>| {
            let mut found = Vec::with_capacity(set.len());
            for peer in set {
                let entry = directory
                    .0
                    .get_value(peer)
                    .ok_or_else(|| MissingAddress { term, peer: Box::new(peer.clone()) })?;
                found.push((peer.clone(), entry.address.clone()));
            }
            Ok(Map::from_iter_dedup(found))
        };
        let tracked = AddressableTrackedPeers::new(resolve(&peers.primary)?, resolve(&peers.secondary)?);
        self.weights.set(term, directory);
        let _ = self.inner.track(term, tracked);
        Ok(())
    }
}

/// The signing scheme of each recent term.
#[derive(Clone, Default)]
pub(crate) struct Schemes(Arc<Mutex<BTreeMap<Epoch, Arc<Scheme>>>>);

impl Schemes {
    /// The newest term whose scheme is known.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.0.lock().last_key_value().map(|(term, _)| term.get())
    }
}

impl CertificateProvider for Schemes {
    type Scope = Epoch;
    type Scheme = Scheme;

    fn scoped(&self, scope: Epoch) -> Option<Scoped<Scheme>> {
        self.scheme(scope).map(Scoped::scheme)
    }

    fn scheme(&self, scope: Epoch) -> Option<Arc<Scheme>> {
        self.0.lock().get(&scope).cloned()
    }
}

/// Turns the outcome of a reshare into the scheme that consensus signs with.
#[derive(Clone)]
pub(crate) struct Registrar {
    schemes: Schemes,
    namespace: Arc<[u8]>,
    own_key: OwnKey,
}

impl Registrar {
    /// Registers into `schemes`; certificates are bound to `namespace`, and `own_key` takes the authorities of
    /// each term.
    pub(crate) const fn new(schemes: Schemes, namespace: Arc<[u8]>, own_key: OwnKey) -> Self {
        Self { schemes, namespace, own_key }
    }

    fn scheme(&self, info: SchemeInfo<Variant, PublicKey>) -> Scheme {
        match info {
            SchemeInfo::Verifier { participants, sharing } => {
                Scheme::verifier(&self.namespace, participants, sharing)
            }
            SchemeInfo::Member { participants, sharing, public_key } => {
                Scheme::member(&self.namespace, participants, sharing, &public_key)
                    .expect("a member is one of the participants it is registered with")
            }
            SchemeInfo::Signer { participants, sharing, share } => {
                Scheme::signer(&self.namespace, participants, sharing, share)
                    .expect("the reshare actor checked the share against the sharing")
            }
        }
    }
}

impl RegistrarTrait for Registrar {
    type Variant = Variant;
    type PublicKey = PublicKey;

    async fn register(&self, epoch: Epoch, info: SchemeInfo<Variant, PublicKey>) {
        let (SchemeInfo::Verifier { participants, .. }
        | SchemeInfo::Member { participants, .. }
        | SchemeInfo::Signer { participants, .. }) = &info;
        self.own_key.term(epoch.get(), participants);
        let scheme = Arc::new(self.scheme(info));
        let mut schemes = self.schemes.0.lock();
        schemes.insert(epoch, scheme);
        while schemes.len() > CONSENSUS_TERMS_KEPT {
            schemes.pop_first();
        }
    }
}
