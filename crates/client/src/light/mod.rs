//! Verification without trust: a node's answer counts if it leads to the chain's name and network key.
//!
//! ```text
//!   network key ──► finalization of header h+n ──► digest of header h+n
//!                                                   │ parent, parent, ...
//!                                                   ▼
//!                                                  header h ──► state root ──► QMDB proof ──► record
//!                                                        └────► body root, receipts root
//! ```
//!
//! Invariants
//! 1. No answer of a node is used before it is verified up to the network key.
//! 2. Every accepted encoding is the only one of its value: decoded values are encoded again and
//!    compared, so no bit of a proof can change unnoticed.
//! 3. Only lengths within the bounds of `wire::node` are decoded.
//! 4. A certificate is checked once. Only the same bytes for the same header are accepted unchecked later.
//!
//! The network key outlives every change of the authorities, so no older header is needed.
//! Sources: `commonware_consensus::simplex::scheme::bls12381_threshold::vrf`,
//! `commonware_storage::qmdb::current::ordered`.

mod proof;
#[cfg(test)]
pub(crate) mod tests;

pub use proof::{ProvedRow, SYNC_PROOF_BYTES_MAX, Subject, SyncProof, Verified};

use commonware_codec::{Copying, Decode, DecodeExt as _, Encode, Read as CodecRead};
use commonware_consensus::simplex::{
    scheme::bls12381_threshold::vrf,
    types::{self},
};
use commonware_cryptography::{
    Sha256,
    bls12381::primitives::variant::{MinSig, Variant},
    ed25519, sha256,
};
use commonware_parallel::Sequential;
use commonware_storage::{
    mmr::Family,
    qmdb::{any::value::FixedEncoding, current::ordered::proof::constant},
};
use commonware_utils::{sync::Mutex, sys_rng};
use posync_protocol::{
    Bounded, Hash, Key, Slot,
    block::{BlockBody, Header, Receipts},
    wire::node::{Certified, FINALIZATION_BYTES_MAX, NETWORK_KEY_BYTES, ProvenRecord, Read},
};
use std::{collections::VecDeque, fmt, sync::Arc};

/// The key under which every certificate of a network verifies.
pub type NetworkKey = <MinSig as Variant>::Public;
/// The signature scheme of the certificates.
pub(crate) type Scheme = vrf::Scheme<ed25519::PublicKey, MinSig>;
/// A certificate that a block is final.
pub(crate) type Finalization = types::Finalization<Scheme, sha256::Digest>;
/// A proof that a record has a given value.
pub(crate) type InclusionProof = constant::KeyValueProof<Family, sha256::Digest, sha256::Digest, 32>;
/// A proof that a record does not exist.
pub(crate) type ExclusionProof =
    constant::ExclusionProof<Family, sha256::Digest, FixedEncoding<Slot>, sha256::Digest, 32>;

/// Most digests in a proof: twice the levels of a tree of 2^32 operations.
const PROOF_DIGESTS_MAX: usize = 64;
/// Verified certificates that are remembered: those of the newest blocks, which a follower and several
/// readers of one process meet again. About 20 KiB.
const REMEMBERED_MAX: usize = 64;

/// Why an answer is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It does not decode, or its bytes are not the canonical encoding.
    #[error("{0} does not decode; it was damaged on the way or made by another version")]
    Malformed(&'static str),
    /// Its header belongs to another network.
    #[error("it belongs to another network; check the genesis or the network key")]
    Chain,
    /// Its headers do not follow each other.
    #[error("its headers do not follow each other")]
    Headers,
    /// The certificate is not this network's, or not for that header.
    #[error("its certificate does not verify under the network key")]
    Certificate,
    /// The proof does not lead to the header's state root.
    #[error("the proof of a record does not lead to the certified state root")]
    Proof,
    /// It answers a different request.
    #[error("it answers another question than was asked")]
    Question,
    /// The header does not commit to this body or these receipts.
    #[error("{0} is not what the certified header commits to")]
    Commitment(&'static str),
}

/// Decodes `bytes` if they are the only encoding of their value.
pub(crate) fn canonical<T: CodecRead + Encode>(
    what: &'static str,
    bytes: &[u8],
    config: &T::Cfg,
) -> Result<T, Error> {
    let value = T::decode_cfg(Copying(bytes), config).map_err(|_| Error::Malformed(what))?;
    if value.encode() == *bytes { Ok(value) } else { Err(Error::Malformed(what)) }
}

/// Decodes a network key from its 96 bytes.
///
/// # Errors
/// [`Error::Malformed`] unless they encode a point of the group.
pub fn network_key(bytes: &[u8; NETWORK_KEY_BYTES]) -> Result<NetworkKey, Error> {
    NetworkKey::decode(Copying(&bytes[..])).map_err(|_| Error::Malformed("the network key"))
}

/// The 96 bytes of a network key.
pub fn network_key_bytes(key: &NetworkKey) -> [u8; NETWORK_KEY_BYTES] {
    key.encode().as_ref().try_into().expect("a key in the larger group has 96 bytes")
}

/// The namespace that binds certificates to a chain.
pub(crate) fn consensus_namespace(chain: &Hash) -> Vec<u8> {
    [b"posync/consensus/1".as_slice(), chain].concat()
}

fn digest(hash: Hash) -> sha256::Digest {
    hash.into()
}

/// Certificates that verified, each with the digest of its header; the oldest is forgotten first.
#[derive(Default)]
struct Remembered(Mutex<VecDeque<(Hash, Bounded<u8, FINALIZATION_BYTES_MAX>)>>);

impl Remembered {
    /// True if exactly this certificate verified for the header with this digest.
    fn holds(&self, header: &Hash, certificate: &[u8]) -> bool {
        let verified = self.0.lock();
        // The newest is asked for most.
        verified.iter().rev().any(|(digest, bytes)| digest == header && **bytes == *certificate)
    }

    fn add(&self, header: Hash, certificate: &Bounded<u8, FINALIZATION_BYTES_MAX>) {
        let mut verified = self.0.lock();
        if verified.len() == REMEMBERED_MAX {
            verified.pop_front();
        }
        verified.push_back((header, certificate.clone()));
    }
}

/// A light client: verifies the answers of one network's nodes. Clones share the memory of certificates.
#[derive(Clone)]
pub struct Light {
    chain: Hash,
    network_key: NetworkKey,
    scheme: Scheme,
    remembered: Arc<Remembered>,
}

impl fmt::Debug for Light {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Light").field("chain", &self.chain).finish_non_exhaustive()
    }
}

impl Light {
    /// Creates a light client for the network with this name and key.
    pub fn new(chain: Hash, network_key: NetworkKey) -> Self {
        let scheme = Scheme::certificate_verifier(&consensus_namespace(&chain), network_key);
        Self { chain, network_key, scheme, remembered: Arc::default() }
    }

    /// The name of the chain: the hash that its headers carry.
    pub const fn chain(&self) -> Hash {
        self.chain
    }

    /// The key under which the network's certificates verify.
    pub const fn network_key(&self) -> &NetworkKey {
        &self.network_key
    }

    /// Remembers a certificate that this process has verified by itself, as a node does with each of its blocks.
    pub fn remember(&self, verified: &Certified) {
        let Some(last) = verified.headers.last() else { return };
        let digest = last.digest();
        if last.chain == self.chain && !self.remembered.holds(&digest, &verified.finalization) {
            self.remembered.add(digest, &verified.finalization);
        }
    }

    /// Checks that the headers follow each other and that the last one is final; about 1 ms, or microseconds
    /// if the same certificate was checked a moment ago.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Chain`], [`Error::Headers`], [`Error::Certificate`].
    pub(crate) fn certified(&self, certified: &Certified) -> Result<(), Error> {
        let last = certified.headers.last().ok_or(Error::Headers)?;
        if certified.headers.iter().any(|header| header.chain != self.chain) {
            return Err(Error::Chain);
        }
        for pair in certified.headers.windows(2) {
            if pair[1].parent != pair[0].digest() || Some(pair[1].height) != pair[0].height.checked_add(1) {
                return Err(Error::Headers);
            }
        }
        let digest_of_last = last.digest();
        if self.remembered.holds(&digest_of_last, &certified.finalization) {
            return Ok(());
        }
        let finalization: Finalization = canonical("the certificate", &certified.finalization, &())?;
        let proposal = &finalization.proposal;
        // The payload commits to the whole header. The view may be a later one: the last block of a term is
        // proposed again, unchanged, in every view until one makes it final.
        let names_it = proposal.payload == digest(digest_of_last)
            && proposal.round.epoch().get() == last.term
            && proposal.round.view().get() >= last.view;
        let is_signed =
            cfg!(planted = "unsigned") || finalization.verify(&mut sys_rng(), &self.scheme, &Sequential);
        if !names_it || !is_signed {
            return Err(Error::Certificate);
        }
        self.remembered.add(digest_of_last, &certified.finalization);
        Ok(())
    }

    /// Checks records against the state root of the answer's first header.
    ///
    /// # Errors
    /// As [`Self::certified`]; [`Error::Question`] if their number differs; [`Error::Proof`].
    pub(crate) fn read(&self, keys: &[Key], read: &Read) -> Result<Vec<Option<Slot>>, Error> {
        if keys.len() != read.records.len() {
            return Err(Error::Question);
        }
        self.certified(&read.certified)?;
        let header = read.certified.headers.first().ok_or(Error::Headers)?;
        for (key, record) in keys.iter().zip(read.records.iter()) {
            check_record(header, key, record)?;
        }
        Ok(read.records.iter().map(|record| record.slot).collect())
    }

    /// Checks a body against a header that is verified already.
    ///
    /// # Errors
    /// [`Error::Commitment`].
    pub(crate) fn body(header: &Header, body: &BlockBody) -> Result<(), Error> {
        if body.root() == header.body_root { Ok(()) } else { Err(Error::Commitment("the body")) }
    }

    /// Checks receipts against a header that is verified already.
    ///
    /// # Errors
    /// [`Error::Commitment`].
    pub(crate) fn receipts(header: &Header, receipts: &Receipts) -> Result<(), Error> {
        if receipts.root() == header.receipts_root { Ok(()) } else { Err(Error::Commitment("the receipts")) }
    }
}

/// Checks one record, or its absence, against a header's state root.
pub(crate) fn check_record(header: &Header, key: &Key, record: &ProvenRecord) -> Result<(), Error> {
    let (root, key) = (digest(header.state_root), digest(key.0));
    let holds = match record.slot {
        Some(slot) => {
            let proof: InclusionProof = canonical("a proof", &record.proof, &(PROOF_DIGESTS_MAX, ()))?;
            proof.verify::<Sha256, FixedEncoding<Slot>>(key, slot, &root)
        }
        None => {
            let config = (PROOF_DIGESTS_MAX, (), ());
            let proof: ExclusionProof = canonical("a proof", &record.proof, &config)?;
            proof.verify::<Sha256>(&key, &root)
        }
    };
    if holds { Ok(()) } else { Err(Error::Proof) }
}
