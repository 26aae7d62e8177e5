//! A block's header, which a certificate covers, and the draws of its beacon.
//!
//! The digest is the SHA-256 of the encoded header with the leader's signature, so that anyone can check
//! two headers for one view as evidence. It is SHA-256 because browsers provide it.

use crate::{Account, Hash, Signature};
use bytes::Bytes;
use commonware_codec::{Encode, EncodeSize, Write};
use commonware_cryptography::{Hasher, Sha256};

/// Namespace of a header's signature.
pub const HEADER_NAMESPACE: &[u8] = b"posync/header/1";

/// SHA-256 digest of `bytes`.
pub fn sha256(bytes: &[u8]) -> Hash {
    let mut out = [0; 32];
    out.copy_from_slice(Sha256::hash(&[bytes]).as_ref());
    out
}

encoded! {
    #[json("digest" = Self::digest)]
    /// A block's header: the part that a certificate covers.
    Header {
        /// Version of the block format.
        version: u16,
        /// Chain id: SHA-256 of the genesis.
        chain: Hash,
        /// Number of the term: the consensus engine's epoch.
        term: u64,
        /// The consensus engine's view within the term.
        view: u64,
        /// Authority that proposed the block.
        leader: Account,
        /// View of the parent; 0 in the first block of a term.
        parent_view: u64,
        /// Digest of the parent's header.
        parent: Hash,
        /// Number of the block; its parent's is one less.
        height: u64,
        /// Time in milliseconds since 1970, for display: from the parent's time to 10 s after it.
        time_ms: u64,
        /// VRF seed signature of the parent's view; `None` exactly if `parent_view` is 0.
        beacon: Option<[u8; 48]>,
        /// SHA-256 of the encoded body.
        body_root: Hash,
        /// SHA-256 of the encoded receipts.
        receipts_root: Hash,
        /// Root of the state after this block: the store's `current` root.
        state_root: Hash,
        /// Root over the store's operations, for state sync.
        ops_root: Hash,
        /// First location of the range that state sync transfers.
        range_start: u64,
        /// End of the range that state sync transfers.
        range_end: u64,
        /// Ed25519 signature by the leader over all fields above.
        #[json(skip)]
        signature: Signature,
    }
}

impl Header {
    /// The digest by which certificates name the block.
    pub fn digest(&self) -> Hash {
        sha256(&self.encode())
    }

    /// The bytes that the leader signs: every field before the signature.
    pub fn signed_bytes(&self) -> Bytes {
        let all = self.encode();
        all.slice(..all.len() - self.signature.encode_size())
    }
}

encoded! {
    #[json]
    /// A provider that the block's beacon drew.
    #[derive(Copy)]
    Draw {
        /// Index of the provider in the fee tree.
        index: u32,
        /// Account of the provider at that index.
        account: Account,
    }
}

/// The bytes that a signature covers: chain id, then the value's encoding.
pub fn with_chain(chain: &Hash, value: &impl Encode) -> Bytes {
    let mut bytes = bytes::BytesMut::with_capacity(32 + value.encode_size());
    chain.write(&mut bytes);
    value.write(&mut bytes);
    bytes.freeze()
}
