//! A block as consensus sees it: the ledger's header and body, with the parts that consensus uses decoded.
//!
//! The header is signed, hashed and certified; it commits to the body by a hash. Decoding rejects a
//! body that its header does not name, so one digest never stands for two bodies.
//!
//! ```text
//! digest = SHA-256(header with signature) ◄── certificate
//! header.body_root = SHA-256(body)        ◄── body { draws, operations, dkg payload }
//! ```

use super::{AUTHORITIES_MAX, Context, Digest, PrivateKey, PublicKey, Variant};
use crate::epoch::Directory;
use bytes::BufMut;
use commonware_codec::{
    Buf, Copying, Decode as _, DecodeExt as _, Encode as _, EncodeSize, Error as CodecError, Read, Write,
};
use commonware_consensus::{
    Block as ConsensusBlock, BoundedBlock, CertifiableBlock, Heightable,
    types::{Epoch, Height, Round, View},
};
use commonware_cryptography::{
    Digestible, Signer as _, Verifier as _, bls12381::primitives::sharing::ModeVersion, ed25519::Signature,
};
use commonware_glue::dkg::{ReshareBlock, types as dkg};
use commonware_storage::{
    mmr::{Family, Location},
    qmdb::sync::Target,
};
use commonware_utils::non_empty_range;
use posync_protocol::{
    Account, Bounded,
    block::{BlockBody, HEADER_NAMESPACE, Header},
    limits::{BODY_BYTES_MAX, DKG_BYTES_MAX},
    operation::sign,
};

/// A dealer's log, or the outcome of a term's reshare.
pub type Payload = dkg::Payload<Variant, PublicKey, Directory>;
/// The last block's message to the next term: key output, players, directory.
pub type EpochInfo = dkg::EpochInfo<Variant, PublicKey, Directory>;

/// Upper bound on an encoded block: operations, reshare payload, and 64 KiB for header and draws.
pub(crate) const BLOCK_BYTES_MAX: usize = BODY_BYTES_MAX + DKG_BYTES_MAX + (64 << 10);

/// A header and the body that it commits to.
#[derive(Clone)]
pub struct Block {
    header: Header,
    body: BlockBody,
    leader: PublicKey,
    payload: Option<Payload>,
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Block")
            .field("header", &self.header)
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Block {
    fn eq(&self, other: &Self) -> bool {
        self.header == other.header
    }
}

impl Eq for Block {}

impl Block {
    /// Sets leader and body root in the header and signs it with `key`.
    pub fn sign(mut header: Header, body: BlockBody, payload: Option<Payload>, key: &PrivateKey) -> Self {
        let leader = key.public_key();
        header.leader = Account::of(&leader);
        header.body_root = body.root();
        header.signature = sign(key, HEADER_NAMESPACE, &header.signed_bytes());
        Self { header, body, leader, payload }
    }

    /// Joins a header and its body.
    ///
    /// # Errors
    /// The body is not the header's, or a part of them does not decode.
    pub(crate) fn assemble(header: Header, body: BlockBody) -> Result<Self, CodecError> {
        let size = body.encode_size();
        if size > BLOCK_BYTES_MAX - (32 << 10) {
            return Err(CodecError::InvalidLength(size));
        }
        if body.root() != header.body_root {
            return Err(CodecError::Invalid("Block", "the body is not the header's"));
        }
        if header.range_start >= header.range_end || !Location::new(header.range_end).is_valid() {
            return Err(CodecError::Invalid("Block", "the range is empty or too large"));
        }
        let leader = header.leader.public_key();
        Ok(Self {
            leader: leader.ok_or(CodecError::Invalid("Block", "the leader is not a key"))?,
            payload: read_payload(&body.dkg)?,
            header,
            body,
        })
    }

    /// The unsigned first block: `leader` only fills the field, and no one votes on it.
    pub(crate) fn genesis(mut header: Header, leader: PublicKey, info: EpochInfo) -> Self {
        let payload = Some(Payload::EpochInfo(info));
        let body = BlockBody { draws: empty(), operations: empty(), dkg: dkg_bytes(&payload) };
        header.leader = Account::of(&leader);
        header.body_root = body.root();
        Self { header, body, leader, payload }
    }

    /// The header, which the leader signs.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The draws, operations and reshare payload, which the header covers by hash.
    pub const fn body(&self) -> &BlockBody {
        &self.body
    }

    /// True if the leader named in the header signed it.
    pub(crate) fn signed(&self) -> bool {
        Signature::decode(Copying(&self.header.signature)).is_ok_and(|signature| {
            self.leader.verify(HEADER_NAMESPACE, &self.header.signed_bytes(), &signature)
        })
    }

    /// The root and range of the record store's log after this block.
    pub(crate) fn sync_target(&self) -> Target<Family, Digest> {
        let Header { ops_root, range_start, range_end, .. } = &self.header;
        Target::new(
            (*ops_root).into(),
            non_empty_range!(Location::new(*range_start), Location::new(*range_end)),
        )
    }
}

fn empty<T, const MAX: usize>() -> Bounded<T, MAX> {
    Bounded::new(Vec::new()).expect("nothing is within any bound")
}

/// The encoded reshare payload of a body; empty if there is none.
pub(crate) fn dkg_bytes(payload: &Option<Payload>) -> Bounded<u8, DKG_BYTES_MAX> {
    let bytes = payload.as_ref().map(|payload| payload.encode().to_vec());
    Bounded::new(bytes.unwrap_or_default()).expect("the bound covers the largest payload, checked at start")
}

fn read_payload(dkg: &[u8]) -> Result<Option<Payload>, CodecError> {
    if dkg.is_empty() {
        return Ok(None);
    }
    let cfg = (AUTHORITIES_MAX, ModeVersion::v0());
    let payload = Payload::decode_cfg(Copying(dkg), &cfg)?;
    if payload.encode()[..] != *dkg {
        return Err(CodecError::Invalid("Block", "the reshare payload is not canonical"));
    }
    Ok(Some(payload))
}

impl Write for Block {
    fn write(&self, buf: &mut impl BufMut) {
        self.header.write(buf);
        self.body.write(buf);
    }
}

impl EncodeSize for Block {
    fn encode_size(&self) -> usize {
        self.header.encode_size() + self.body.encode_size()
    }
}

impl Read for Block {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, CodecError> {
        let header = Header::read_cfg(buf, &())?;
        Self::assemble(header, BlockBody::read_cfg(buf, &())?)
    }
}

impl BoundedBlock for Block {
    fn max_encode_size(_: &()) -> usize {
        BLOCK_BYTES_MAX
    }
}

impl Digestible for Block {
    type Digest = Digest;

    fn digest(&self) -> Digest {
        self.header.digest().into()
    }
}

impl Heightable for Block {
    fn height(&self) -> Height {
        Height::new(self.header.height)
    }
}

impl ConsensusBlock for Block {
    fn parent(&self) -> Digest {
        self.header.parent.into()
    }
}

impl CertifiableBlock for Block {
    type Context = Context;

    fn context(&self) -> Context {
        Context {
            round: Round::new(Epoch::new(self.header.term), View::new(self.header.view)),
            leader: self.leader.clone(),
            parent: (View::new(self.header.parent_view), self.header.parent.into()),
        }
    }
}

impl ReshareBlock for Block {
    type Variant = Variant;
    type PublicKey = PublicKey;
    type Directory = Directory;

    fn payload(&self) -> Option<Payload> {
        self.payload.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    fn block() -> Block {
        let zero = [0; 32];
        let header = Header {
            version: 1,
            chain: [3; 32],
            term: 1,
            view: 9,
            leader: Account::default(),
            parent_view: 8,
            parent: [4; 32],
            height: 48,
            time_ms: 5,
            beacon: Some([6; 48]),
            body_root: zero,
            receipts_root: zero,
            state_root: zero,
            ops_root: zero,
            range_start: 2,
            range_end: 7,
            signature: [0; 64],
        };
        let body = BlockBody { draws: empty(), operations: empty(), dkg: empty() };
        Block::sign(header, body, None, &PrivateKey::from_seed(1))
    }

    #[test]
    fn a_signed_block_survives_its_bytes() {
        let decoded = Block::decode(block().encode()).expect("it decodes");
        assert!(decoded == block() && decoded.signed());
        assert_eq!(decoded.digest(), block().digest());
    }

    /// One digest stands for one block: no changed byte decodes to the same digest, and no changed block that
    /// decodes is validly signed.
    #[test]
    fn no_byte_can_be_changed_unseen() {
        let (bytes, digest) = (block().encode(), block().digest());
        for place in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[place] ^= 1;
            if let Ok(block) = Block::decode(Copying(&changed)) {
                assert!(block.digest() != digest && !block.signed(), "byte {place}");
            }
        }
    }
}
