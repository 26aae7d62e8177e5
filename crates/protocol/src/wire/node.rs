//! The node service: submit operations, read proven state, follow finalized blocks.
//!
//! What a node says is of three kinds. *Proved*: headers up to the next certificate, one
//! certificate, proofs against a header's roots. *Checkable*: bodies and receipts, by the roots in
//! a proved header. *Its word*: `Info`, the height of a receipt, events. Clients believe the
//! first two only.

use crate::{
    Bounded, Code, Hash, Key, Operation, Slot,
    block::{BlockBody, Header, Receipts},
    ledger::Event,
    limits::{EVENTS_MAX, HEADERS_MAX, OPERATION_BYTES_MAX, Parameters, READ_KEYS_MAX},
};

use commonware_codec::Encode;

/// Namespace of the handshake.
pub const NAMESPACE: &[u8] = b"posync/node/1";
/// Bytes of what may be submitted: more than an operation, so that one too large is told so.
pub const SUBMIT_BYTES_MAX: usize = 4 * OPERATION_BYTES_MAX;
/// Bytes of an encoded finalization: 132 today.
pub const FINALIZATION_BYTES_MAX: usize = 256;
/// Bytes of an encoded inclusion or exclusion proof: below 600 at a million records.
pub const PROOF_BYTES_MAX: usize = 2048;
/// Bytes of an encoded network key.
pub const NETWORK_KEY_BYTES: usize = 96;

encoded! {
    /// Nothing more to say.
    #[derive(Copy, Default)]
    Nothing {}
}

tagged! {
    /// What a client asks a node.
    Ask {
        /// Chain, network key, parameters, tip.
        0 => Info(Nothing),
        /// Take an encoded operation; answered `Accepted` or `Refused`.
        1 => Submit(Bounded<u8, SUBMIT_BYTES_MAX>),
        /// What became of an operation, by id; waits for it up to [`crate::limits::RECEIPT_WAIT_MS`].
        2 => Receipt(Hash),
        /// Records with proofs against a certified header.
        3 => Read(Bounded<Key, READ_KEYS_MAX>),
        /// Certified headers from a height on (0: from the tip), without end: `Certified` each.
        4 => Follow(u64),
        /// A body by height.
        5 => Body(u64),
        /// Receipts and events by height.
        6 => Events(u64),
        /// The header at a height and what certifies it.
        7 => Header(u64),
    }
}

impl Ask {
    /// Asks a node to take `operation`; `None` if it is far too large to travel.
    pub fn submit(operation: &Operation) -> Option<Self> {
        Bounded::new(operation.encode().to_vec()).map(Self::Submit)
    }
}

tagged! {
    /// What a node answers.
    Answer {
        /// To `Info`.
        0 => Info(Info),
        /// The operation waits for a block, or stands in one.
        1 => Accepted(Hash),
        /// The operation is refused.
        2 => Refused(Code),
        /// What became of the operation; `None` when it is not final yet.
        3 => Receipt(Option<Receipt>),
        /// To `Read`.
        4 => Read(Read),
        /// To `Header`, and each step of `Follow`.
        5 => Certified(Certified),
        /// To `Body`.
        6 => Body(BlockBody),
        /// To `Events`, in parts.
        7 => Events(BlockEvents),
        /// Not now, or not any more.
        8 => Unavailable(Unavailable),
    }
}

encoded! {
    /// What a node says of itself and its network; only its word.
    Info {
        /// SHA-256 of the genesis.
        chain: Hash,
        /// Under which every certificate verifies.
        network_key: [u8; NETWORK_KEY_BYTES],
        /// Of the genesis.
        parameters: Parameters,
        /// Highest finalized height that it can answer about.
        height: u64,
    }
}

encoded! {
    /// Where an operation stands.
    #[derive(Copy)]
    Receipt {
        /// Of the block.
        height: u64,
        /// Place in the block.
        index: u32,
        /// What became of it.
        code: Code,
    }
}

encoded! {
    /// Headers, each the parent of the next, and the certificate of the last.
    Certified {
        /// At least one, ascending.
        headers: Bounded<Header, HEADERS_MAX>,
        /// An encoded `Finalization` of the last header.
        finalization: Bounded<u8, FINALIZATION_BYTES_MAX>,
    }
}

encoded! {
    /// Records of the state after the first header of `certified`, in the order asked for.
    Read {
        /// The header and what certifies it.
        certified: Certified,
        /// The records.
        records: Bounded<ProvenRecord, READ_KEYS_MAX>,
    }
}

encoded! {
    /// A record, or its absence, with the proof.
    ProvenRecord {
        /// The slot; `None` when there is none.
        slot: Option<Slot>,
        /// An encoded key-value proof, or an encoded exclusion proof.
        proof: Bounded<u8, PROOF_BYTES_MAX>,
    }
}

encoded! {
    /// What a block did, in as many parts as its events need.
    BlockEvents {
        /// By the header's `receipts_root`; the same in every part.
        receipts: Receipts,
        /// The node's word.
        events: Bounded<Event, EVENTS_MAX>,
        /// Whether no part follows.
        last: bool,
    }
}

/// Why a node cannot answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Unavailable {
    /// The block is older than what is kept.
    Pruned = 0,
    /// The block is not final yet.
    NotYet = 1,
    /// The state moved while it was read, or no certificate is at hand yet; ask again.
    Moved = 2,
    /// Too much at once; ask again later.
    Busy = 3,
}

impl commonware_codec::Write for Unavailable {
    fn write(&self, buf: &mut impl bytes::BufMut) {
        buf.put_u8(*self as u8);
    }
}

impl commonware_codec::FixedSize for Unavailable {
    const SIZE: usize = 1;
}

impl commonware_codec::Read for Unavailable {
    type Cfg = ();
    fn read_cfg(buf: &mut impl commonware_codec::Buf, _: &()) -> Result<Self, commonware_codec::Error> {
        Ok(match u8::read_cfg(buf, &())? {
            0 => Self::Pruned,
            1 => Self::NotYet,
            2 => Self::Moved,
            3 => Self::Busy,
            other => return Err(commonware_codec::Error::InvalidEnum(other)),
        })
    }
}
