//! The machinery of BFT consensus: the concrete types, the block, and the wiring of the actors.
//!
//! ```text
//!        votes, certificates                    finalized blocks, in order
//!  p2p ─────────────────────► Simplex ─► marshal ────────┬──► Stateful ──► Application (rules, QMDB)
//!                    ▲  propose/verify     ▲             ├──► Orchestrator (one Simplex per term)
//!                    │                     │ blocks      └──► Reshare (next term's key shares)
//!                   Pacer ──► Deferred ──────┘
//!                   (pace, seeds)
//! ```
//!
//! Invariants:
//! 1. One network key verifies every certificate of every term.
//! 2. A block's digest covers its header; its header covers its body; decoding checks both.
//! 3. Everything that a node has acknowledged survives a crash: shares, votes, blocks, state, outcomes.
//!
//! Sources: the crates `commonware-consensus` (Simplex, marshal) and `commonware-glue` (stateful, dkg).

mod block;
mod follow;
mod forgiving;
mod gate;
mod pacer;
mod recent;
mod sizes;
mod terms;
mod wiring;

pub(crate) use block::dkg_bytes;
pub use block::{Block, EpochInfo, Payload};
pub(crate) use follow::follow;
pub(crate) use follow::{FollowerParts, Store};
pub(crate) use gate::Gated;
pub(crate) use gate::Taking;
pub(crate) use pacer::{Pacer, Seeds};
pub(crate) use sizes::Files;
pub(crate) use sizes::quota_of;
pub use sizes::{PEER_SETS, PEERS_MAX, channels, message_bytes_max, quota};
pub(crate) use wiring::{Parts, Transport, start};

use commonware_consensus::{
    marshal::{core::Mailbox as MarshalMailbox, standard::Standard},
    simplex::{scheme::bls12381_threshold::vrf, types},
};
use commonware_cryptography::{Sha256, bls12381::primitives::variant::MinSig, ed25519, sha256};
use commonware_parallel::Sequential;
use commonware_runtime::{Clock, Metrics, Network, Spawner, Storage};
use commonware_storage::{
    mmr,
    qmdb::{any::ordered, current::ordered::fixed},
    translator::EightCap,
};
use posync_protocol::{Slot, limits};
use rand_core::CryptoRng;
use std::num::NonZeroU32;

/// Public key of an authority, an account or a node: always Ed25519.
pub type PublicKey = ed25519::PublicKey;
/// Secret half of a [`PublicKey`].
pub(crate) type PrivateKey = ed25519::PrivateKey;
/// SHA-256: digests of headers and state can be checked by any browser.
pub(crate) type Digest = sha256::Digest;
/// BLS12-381 with 48-byte signatures and 96-byte keys.
pub(crate) type Variant = MinSig;
/// Threshold signatures whose certificates carry a verifiable seed.
pub type Scheme = vrf::Scheme<PublicKey, Variant>;
/// The beacon value of one round.
pub(crate) type Seed = vrf::Seed<Variant>;
/// The view that consensus asks a proposal for, with its parent.
pub(crate) type Context = types::Context<Digest, PublicKey>;
/// Proof that a block is final: about 132 bytes, checked with the network key alone.
pub type Finalization = types::Finalization<Scheme, Digest>;
/// The ordered store of blocks and certificates.
pub(crate) type Marshal = MarshalMailbox<Scheme, Standard<Block>>;
/// The network key: it outlives every reshare.
pub(crate) type NetworkKey =
    <MinSig as commonware_cryptography::bls12381::primitives::variant::Variant>::Public;
/// The record store: 32-byte keys in order, 256-byte slots, a root that proves presence and absence.
pub(crate) type Database<E> = fixed::Db<mmr::Family, E, Digest, Slot, Sha256, EightCap, 32, Sequential>;

/// An entry of the record store's log.
pub(crate) type StoreOperation = ordered::fixed::Operation<mmr::Family, Digest, Slot>;

/// Most authorities a term may have; bounds every decoded set.
pub const AUTHORITIES_MAX: NonZeroU32 = NonZeroU32::new(limits::AUTHORITIES_MAX).expect("it is not zero");
/// Terms whose schemes and weights stay in memory: the running one, its neighbours, and slack.
pub(crate) const CONSENSUS_TERMS_KEPT: usize = 8;

/// The runtime features that the engine uses.
pub trait Runtime: Spawner + Metrics + CryptoRng + Clock + Storage + Network {}

impl<T: Spawner + Metrics + CryptoRng + Clock + Storage + Network> Runtime for T {}
