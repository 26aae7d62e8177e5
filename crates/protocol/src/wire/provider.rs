//! The provider service: keep shards, sign data sets, stream verified slices against vouchers.

use crate::{
    AgreementId, Bounded, Hash, Signature,
    limits::{CHUNK_LEVELS_MAX, PROBE_BYTES, SHARD_BYTES_MAX, SLICE_BYTES},
    operation::{DataSetClaim, ProbeCount, RefusedPlacement, Voucher},
    wire::node::Nothing,
};

/// Namespace of the handshake.
pub const NAMESPACE: &[u8] = b"posync/provider/1";
/// Shards that one `Sign` adds or removes.
pub const SIGN_SHARDS_MAX: usize = 8192;
/// Bad shards that one `Status` lists.
pub const BAD_SHARDS_MAX: usize = 8192;

encoded! {
    /// A request and its id.
    Request {
        /// Repeated in the answers.
        id: u64,
        /// What is asked.
        ask: Ask,
    }
}

tagged! {
    /// What a consumer asks a provider.
    Ask {
        /// Keep a shard under an agreement of the caller's; answered `Stored` once it is durable.
        0 => Put(Put),
        /// Sign a new version of an agreement's data set.
        1 => Sign(Sign),
        /// Stream a range of a shard, as verified slices.
        2 => Get(Get),
        /// A voucher for an agreement, alone or within a `Get`. Alone, the call ends without an answer
        /// once it is durable there; within a `Get`, one that races with the call's end may be lost.
        3 => Pay(Voucher),
        /// How it is doing.
        4 => Status(Nothing),
        /// Count what follows: between providers, in an epoch's slot. Answered `Counted` after the last `Filler`.
        5 => Probe(Probe),
        /// Bytes that are counted and thrown away, within a `Probe`.
        6 => Filler(Filler),
    }
}

encoded! {
    /// A shard to keep.
    Put {
        /// Under which agreement.
        agreement: AgreementId,
        /// Its name: plain BLAKE3 of the bytes.
        shard: Hash,
        /// The bytes.
        data: Bounded<u8, { SHARD_BYTES_MAX as usize }>,
    }
}

encoded! {
    /// A change of a data set that the storage key has signed.
    Sign {
        /// The new version.
        claim: DataSetClaim,
        /// Appended at the end of the tree, in this order: name and length.
        adds: Bounded<(Hash, u64), SIGN_SHARDS_MAX>,
        /// Taken out first: positions in the current tree, ascending; the rest keep their order.
        removes: Bounded<u32, SIGN_SHARDS_MAX>,
        /// By the storage key over the claim.
        signature: Signature,
    }
}

encoded! {
    /// A range of a shard. `offset` is a multiple of a slice (64 KiB).
    Get {
        /// The agreement that pays.
        agreement: AgreementId,
        /// The shard's name.
        shard: Hash,
        /// First byte.
        offset: u64,
        /// Bytes; 0 means to the end.
        length: u64,
    }
}

encoded! {
    /// A drawn provider begins to send what the receiver counts.
    #[derive(Copy)]
    Probe {
        /// The epoch whose slot this is.
        epoch: u64,
        /// The sender's index.
        index: u32,
        /// The sender's draw, 0 to 7, that hit the receiver.
        draw: u8,
    }
}

encoded! {
    /// Bytes to count.
    Filler {
        /// The bytes.
        data: Bounded<u8, PROBE_BYTES>,
        /// Whether these are the last.
        last: bool,
    }
}

encoded! {
    /// An answer and the id of its request.
    Response {
        /// Of the request.
        id: u64,
        /// The answer.
        answer: Answer,
    }
}

tagged! {
    /// What a provider answers.
    Answer {
        /// The shard is durable.
        0 => Stored(Hash),
        /// The provider's signature over the claim; the change is durable.
        1 => Signed(Signature),
        /// A slice; the last one of a range has `last`.
        2 => Slice(Slice),
        /// How it is doing.
        3 => Status(Status),
        /// No, and why.
        4 => Refused(Refused),
        /// What arrived within the slot, signed.
        5 => Counted(ProbeCount),
    }
}

encoded! {
    /// A slice of a shard and its path to the shard's name.
    Slice {
        /// The shard's exact length.
        shard_bytes: u64,
        /// Where it starts.
        offset: u64,
        /// The bytes: 64 KiB but at the end.
        data: Bounded<u8, { SLICE_BYTES as usize }>,
        /// Sibling chaining values, slice side first.
        path: Bounded<Hash, CHUNK_LEVELS_MAX>,
        /// Whether the range ends here.
        last: bool,
    }
}

encoded! {
    /// A provider's own view.
    Status {
        /// Leaves that it can still store.
        free_leaves: u64,
        /// Requests waiting or running.
        load: u32,
        /// Shards that its scrub found damaged or missing.
        bad: Bounded<Hash, BAD_SHARDS_MAX>,
    }
}

encoded! {
    /// A refusal.
    Refused {
        /// Why.
        reason: Refusal,
        /// In words, for people.
        text: Bounded<u8, 512>,
        /// Signed when it could not take what its declared capacity promises: the ledger takes it.
        signed: Option<RefusedPlacement>,
    }
}

/// Why a provider says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// No such agreement, or the caller is not its consumer.
    Agreement = 0,
    /// The bytes do not have that name.
    Content = 1,
    /// No space, or above the quota.
    Space = 2,
    /// No such shard.
    Unknown = 3,
    /// The shard is damaged on disk.
    Damaged = 4,
    /// The version, root, leaves or signature is not what this provider computes.
    Claim = 5,
    /// The voucher is refused.
    Voucher = 6,
    /// The credit window is used up; pay first.
    Credit = 7,
    /// Too many requests at once.
    Busy = 8,
    /// The request's fields are outside their range.
    Shape = 9,
    /// Not drawn to be counted here, or not now.
    Slot = 10,
}

impl commonware_codec::Write for Refusal {
    fn write(&self, buf: &mut impl bytes::BufMut) {
        buf.put_u8(*self as u8);
    }
}

impl commonware_codec::FixedSize for Refusal {
    const SIZE: usize = 1;
}

impl commonware_codec::Read for Refusal {
    type Cfg = ();
    fn read_cfg(buf: &mut impl commonware_codec::Buf, _: &()) -> Result<Self, commonware_codec::Error> {
        Ok(match u8::read_cfg(buf, &())? {
            0 => Self::Agreement,
            1 => Self::Content,
            2 => Self::Space,
            3 => Self::Unknown,
            4 => Self::Damaged,
            5 => Self::Claim,
            6 => Self::Voucher,
            7 => Self::Credit,
            8 => Self::Busy,
            9 => Self::Shape,
            10 => Self::Slot,
            other => return Err(commonware_codec::Error::InvalidEnum(other)),
        })
    }
}
