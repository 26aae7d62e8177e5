//! A block: a header that a certificate covers, and the body that it commits to.
//!
//! Digest = SHA-256 of the encoded header, the leader's signature included, so that two headers
//! for one view are evidence that anyone can check. SHA-256 because browsers have it.

use crate::{
    Account, Bounded, Code, Hash, Operation, Signature,
    limits::{DKG_BYTES_MAX, DRAWS_MAX, OPERATIONS_MAX},
};
use bytes::Bytes;
use commonware_codec::{Encode, EncodeSize, Write};
use commonware_cryptography::{Hasher, Sha256};

/// Namespace of a header's signature.
pub const HEADER_NAMESPACE: &[u8] = b"posync/header/1";

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> Hash {
    let mut out = [0; 32];
    out.copy_from_slice(Sha256::hash(&[bytes]).as_ref());
    out
}

encoded! {
    /// What a certificate covers.
    Header {
        /// Format version.
        version: u16,
        /// SHA-256 of the genesis.
        chain: Hash,
        /// The engine's epoch.
        term: u64,
        /// The engine's view within the term.
        view: u64,
        /// Who proposed it.
        leader: Account,
        /// The parent's view; 0 in the first block of a term.
        parent_view: u64,
        /// The parent's digest.
        parent: Hash,
        /// Height.
        height: u64,
        /// Milliseconds since 1970, for display; parent's <= t <= parent's + 10 s.
        time_ms: u64,
        /// The parent's VRF seed signature; `None` iff `parent_view` is 0.
        beacon: Option<[u8; 48]>,
        /// SHA-256 of the encoded body.
        body_root: Hash,
        /// SHA-256 of the encoded receipts.
        receipts_root: Hash,
        /// Root of the state after this block (`current` root of the store).
        state_root: Hash,
        /// Root over the store's operations, for state sync.
        ops_root: Hash,
        /// First location of the synced range.
        range_start: u64,
        /// End of the synced range.
        range_end: u64,
        /// Ed25519 by the leader over everything above.
        signature: Signature,
    }
}

impl Header {
    /// The digest that certificates name.
    pub fn digest(&self) -> Hash {
        sha256(&self.encode())
    }

    /// The bytes that the leader signs.
    pub fn signed_bytes(&self) -> Bytes {
        let all = self.encode();
        all.slice(..all.len() - self.signature.encode_size())
    }
}

encoded! {
    /// A provider that the block's beacon drew.
    #[derive(Copy)]
    Draw {
        /// Its index in the fee tree.
        index: u32,
        /// Who stands there.
        account: Account,
    }
}

encoded! {
    /// What a block does.
    BlockBody {
        /// Drawn providers: a fixed number per block; `None` is a lost draw.
        draws: Bounded<Option<Draw>, DRAWS_MAX>,
        /// Operations in the proposer's order.
        operations: Bounded<Operation, OPERATIONS_MAX>,
        /// The engine's reshare payload, empty when none.
        dkg: Bounded<u8, DKG_BYTES_MAX>,
    }
}

impl BlockBody {
    /// The root that the header carries.
    pub fn root(&self) -> Hash {
        sha256(&self.encode())
    }
}

encoded! {
    /// What became of the operations of a block, in order.
    Receipts {
        /// Operation id and code.
        rows: Bounded<(Hash, Code), OPERATIONS_MAX>,
    }
}

impl Receipts {
    /// The root that the header carries.
    pub fn root(&self) -> Hash {
        sha256(&self.encode())
    }
}

/// Bytes that a signature covers: chain id, then the value's encoding.
pub fn with_chain(chain: &Hash, value: &impl Encode) -> Bytes {
    let mut bytes = bytes::BytesMut::with_capacity(32 + value.encode_size());
    chain.write(&mut bytes);
    value.write(&mut bytes);
    bytes.freeze()
}
