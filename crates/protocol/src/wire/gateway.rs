//! The gateway service: whole files by name, for the CLI (and later the S3 face).

use crate::{Account, AgreementId, Amount, Bounded, Hash, limits::NAME_BYTES_MAX, wire::node::Nothing};

/// Namespace of the handshake.
pub const NAMESPACE: &[u8] = b"posync/gateway/1";
/// Bytes in one `Data` message.
pub const DATA_BYTES_MAX: usize = 1 << 20;
/// Rows in one page of an answer.
pub const ROWS_MAX: usize = 1024;

/// Segments that one `Why` looks at.
pub const PLACEMENTS_MAX: usize = 32;

/// A file's name.
pub type Name = Bounded<u8, NAME_BYTES_MAX>;

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
    /// What a user asks a gateway.
    Ask {
        /// Store a file: `length` bytes follow as `Data`; answered `Stored` when it is durable.
        0 => Put(Put),
        /// Bytes of the open `Put` with this id, in order.
        1 => Data(Bounded<u8, DATA_BYTES_MAX>),
        /// Give up the open `Put`; its space comes back.
        2 => Cancel(Nothing),
        /// Read a range of a file.
        3 => Get(Get),
        /// Names at or after `from`, in order, one page.
        4 => List(Name),
        /// Forget a file; its space comes back.
        5 => Remove(Name),
        /// How it is doing, with detected faults.
        6 => Status(Nothing),
        /// Its agreements.
        7 => Agreements(Nothing),
        /// Why a provider gets shards, or gets none.
        8 => Why(Account),
    }
}

encoded! {
    /// A file to come.
    Put {
        /// Its name.
        name: Name,
        /// Its bytes.
        length: u64,
    }
}

encoded! {
    /// A range of a file.
    Get {
        /// Its name.
        name: Name,
        /// First byte.
        offset: u64,
        /// Bytes; `None` means to the end.
        length: Option<u64>,
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
    /// What a gateway answers.
    Answer {
        /// The file is durable: at least 6 of 8 shards of each segment are on providers that signed.
        0 => Stored(File),
        /// What a `Get` will bring; `Data` follows.
        1 => Found(File),
        /// Bytes in order.
        2 => Data(Bounded<u8, DATA_BYTES_MAX>),
        /// The `Get` is complete.
        3 => End(Nothing),
        /// A page of files.
        4 => Files(Bounded<File, ROWS_MAX>),
        /// Done.
        5 => Removed(File),
        /// Health.
        6 => Status(Status),
        /// Agreements.
        7 => Agreements(Bounded<AgreementRow, ROWS_MAX>),
        /// No, and why: what happened, why, what to do.
        8 => Refused(Bounded<u8, 1024>),
        /// What placement says of a provider.
        9 => Why(Why),
    }
}

encoded! {
    /// A file in the catalogue.
    File {
        /// Its name.
        name: Name,
        /// Its bytes.
        bytes: u64,
        /// Plain BLAKE3 of its bytes.
        blake3: Hash,
        /// Segments.
        segments: u32,
        /// Shards that are durable now.
        shards_durable: u32,
        /// Shards that it should have.
        shards: u32,
    }
}

encoded! {
    /// How a gateway is doing.
    Status {
        /// Its account.
        account: Account,
        /// Last certified height it has seen.
        height: u64,
        /// Files.
        files: u64,
        /// Shards that wait for repair.
        repairs_open: u32,
        /// Faults found so far, oldest first.
        faults: Bounded<Fault, ROWS_MAX>,
    }
}

encoded! {
    /// A provider that failed, and what was done.
    Fault {
        /// The provider.
        provider: Account,
        /// 0 late on a draw, 1 failed a draw, 2 failed a read, 3 its scrub said so.
        found_by: u8,
        /// Round in which it was found.
        round: u64,
        /// Shards that it held of ours.
        shards_lost: u32,
        /// Shards rebuilt elsewhere so far, each with the same name.
        shards_repaired: u32,
    }
}

encoded! {
    /// An agreement of the gateway's.
    AgreementRow {
        /// Which.
        agreement: AgreementId,
        /// Shards under it.
        shards: u64,
        /// Bytes under it.
        bytes: u64,
        /// Last data set version that both signed.
        version: u64,
        /// Egress bytes paid by voucher.
        egress: u64,
        /// Epoch of its end.
        end_epoch: u64,
        /// What the voucher reserve was when opened.
        voucher_reserve: Amount,
    }
}

encoded! {
    /// What a gateway's placement says of a provider now.
    Why {
        /// What the gateway knows of it; `None` if it has not seen it on the ledger.
        seen: Option<Seen>,
        /// Whether `placements` are recent segments; else, after a start, segments made up as a sample.
        recent: bool,
        /// Recent segments, newest first, as they would be placed now.
        placements: Bounded<Placement, PLACEMENTS_MAX>,
    }
}

encoded! {
    /// A provider as a gateway's placement sees it.
    #[derive(Copy)]
    Seen {
        /// It answers, and its reads were found.
        trusted: bool,
        /// It was drawn for its first reads already: no newcomer.
        vetted: bool,
        /// Its sync score, parts per billion.
        score: u64,
        /// Leaves held and leaves that may be held under the open agreement; `None` if none is open.
        room: Option<(u64, u64)>,
        /// Offers in a row that it left unanswered.
        unanswered: u32,
        /// Blocks for which it is left out of placement for that.
        left_out: u64,
    }
}

encoded! {
    /// A provider's fate in a segment's placement.
    Placement {
        /// Names the segment to the rule.
        segment: Bounded<u8, 32>,
        /// Leaves of a shard.
        leaves: u64,
        /// 0 chosen, 1 chosen first as a newcomer, 2 chosen although its region or network was taken,
        /// 3 late, failed or silent, 4 no room, 5 its operator holds another shard, 6 its network does,
        /// 7 its region holds two, 8 others stood before it, 9 no open agreement with it,
        /// 10 it left offers unanswered.
        reason: u8,
        /// Providers that were looked at.
        candidates: u32,
        /// Providers that were chosen.
        chosen: u32,
    }
}
