//! The provider service: store shards, sign data sets, stream verified slices against vouchers.

use crate::number::bound;
use crate::{
    AgreementId, Bounded, Hash, Signature,
    limits::{LEAF_LEVELS_MAX, PROBE_BYTES, SHARD_BYTES_MAX, SLICE_BYTES},
    operation::{DataSetClaim, ProbeCount, RefusedPlacement, Voucher},
    wire::node::Nothing,
};

/// Namespace of the channel's handshake.
pub const NAMESPACE: &[u8] = b"posync/provider/1";
/// Most shards that one `Sign` adds, and most that it removes.
pub const SIGN_SHARDS_MAX: usize = 8192;
/// Most bad shards that one `Status` lists.
pub const BAD_SHARDS_MAX: usize = 8192;

encoded! {
    /// A request and its id.
    Request {
        /// Id of the caller's choice, repeated in the answers.
        id: u64,
        /// The request, without its id.
        ask: Ask,
    }
}

tagged! {
    /// A consumer's request to a provider.
    Ask {
        /// Store a shard under an agreement of the caller; answered `Stored` once it is durable.
        0 => Put(Put),
        /// Sign a new version of an agreement's data set.
        1 => Sign(Sign),
        /// Stream a range of a shard, as verified slices.
        2 => Get(Get),
        /// A voucher for an agreement, alone or within a `Get`. Alone, the call ends without an answer once
        /// the voucher is durable at the provider. Within a `Get`, a voucher that races with the end of the
        /// call may be lost.
        3 => Pay(Voucher),
        /// The provider's free space, load and bad shards.
        4 => Status(Nothing),
        /// Count the bytes that follow: between providers, in an epoch's window. Answered `Counted` after the
        /// last `Filler`.
        5 => Probe(Probe),
        /// Bytes that are counted and discarded, within a `Probe`.
        6 => Filler(Filler),
    }
}

encoded! {
    /// A shard that the provider is to store.
    Put {
        /// The agreement under which the shard is stored.
        agreement: AgreementId,
        /// Name of the shard: plain BLAKE3 of its bytes.
        shard: Hash,
        /// All bytes of the shard.
        data: Bounded<u8, { bound(SHARD_BYTES_MAX) }>,
    }
}

encoded! {
    /// A change of a data set that the storage key has signed.
    Sign {
        /// The new version of the data set.
        claim: DataSetClaim,
        /// Shards appended at the end of the tree, in this order: name and length.
        adds: Bounded<(Hash, u64), SIGN_SHARDS_MAX>,
        /// Shards removed first: positions in the current tree, ascending; the rest keep their order.
        removes: Bounded<u32, SIGN_SHARDS_MAX>,
        /// Signature of the storage key over the claim.
        signature: Signature,
    }
}

encoded! {
    /// A range of a shard. `offset` is a multiple of a slice (64 KiB).
    Get {
        /// The agreement that pays.
        agreement: AgreementId,
        /// Name of the shard to read.
        shard: Hash,
        /// Offset of the first byte.
        offset: u64,
        /// Number of bytes; 0 reads to the end.
        length: u64,
    }
}

encoded! {
    /// The start of the bytes that a provider sends to a drawn receiver, which counts them.
    #[derive(Copy)]
    Probe {
        /// Epoch of the window in which they are sent.
        epoch: u64,
        /// Index of the sending provider.
        index: u32,
        /// The sender's draw, 0 to 7, that hit the receiver.
        draw: u8,
    }
}

encoded! {
    /// Bytes that the receiver counts.
    Filler {
        /// The content, which the receiver discards.
        data: Bounded<u8, PROBE_BYTES>,
        /// True if no bytes follow.
        last: bool,
    }
}

encoded! {
    /// An answer and the id of its request.
    Response {
        /// Id of the request that this answers.
        id: u64,
        /// The answer, without its id.
        answer: ProviderAnswer,
    }
}

tagged! {
    /// A provider's answer to a consumer.
    ProviderAnswer {
        /// The shard is durable.
        0 => Stored(Hash),
        /// The provider's signature over the claim; the change is durable.
        1 => Signed(Signature),
        /// A slice; the last one of a range has `last`.
        2 => Slice(Slice),
        /// The provider's free space, load and bad shards.
        3 => Status(Status),
        /// The request is refused, with the reason.
        4 => Refused(Refused),
        /// The signed count of the bytes that arrived within the window.
        5 => Counted(ProbeCount),
    }
}

encoded! {
    /// A slice of a shard and its path to the shard's name.
    Slice {
        /// Exact length of the whole shard in bytes.
        shard_bytes: u64,
        /// Offset of the slice in the shard.
        offset: u64,
        /// Bytes of the slice: 64 KiB, fewer at the end of the shard.
        data: Bounded<u8, { bound(SLICE_BYTES) }>,
        /// Sibling chaining values, slice side first.
        path: Bounded<Hash, LEAF_LEVELS_MAX>,
        /// True if the range ends with this slice.
        last: bool,
    }
}

encoded! {
    /// The state of a provider in its own view.
    Status {
        /// Leaves that it can still store.
        free_leaves: u64,
        /// Number of requests that wait or run.
        load: u32,
        /// Shards that its scrub found damaged or missing.
        bad: Bounded<Hash, BAD_SHARDS_MAX>,
    }
}

encoded! {
    /// Reason of a refused request.
    Refused {
        /// The reason as a code.
        reason: Refusal,
        /// The reason as text for people.
        text: Bounded<u8, 512>,
        /// Signed if the provider could not take a placement that its declared capacity promises; anyone may
        /// submit it to the ledger (PV-5).
        signed: Option<RefusedPlacement>,
    }
}

tags! {
    /// Reasons for which a provider refuses a request.
    Refusal {
        /// There is no such agreement, or the caller is not its consumer.
        0 => Agreement,
        /// The bytes do not have the given name.
        1 => Content,
        /// No space is left, or the quota is exceeded.
        2 => Space,
        /// The provider has no such shard.
        3 => Unknown,
        /// The shard is damaged on disk.
        4 => Damaged,
        /// The version, root, leaves or signature differs from the one that this provider computes.
        5 => Claim,
        /// The voucher is not valid.
        6 => Voucher,
        /// The credit window is used up; pay first.
        7 => Credit,
        /// Too many requests at once; ask again later.
        8 => Busy,
        /// A field of the request is outside its range.
        9 => Shape,
        /// This receiver was not drawn to count the sender, or not now.
        10 => Window,
    }
}
