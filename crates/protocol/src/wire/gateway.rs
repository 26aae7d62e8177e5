//! The gateway service: whole files by name, for the CLI (and later the S3 face).

use crate::{Account, AgreementId, Amount, Bounded, Hash, limits::NAME_BYTES_MAX, wire::node::Nothing};

/// Namespace of the channel's handshake.
pub const NAMESPACE: &[u8] = b"posync/gateway/1";
/// Most bytes in one `Data` message.
pub const DATA_BYTES_MAX: usize = 1 << 20;
/// Most rows in one answer.
pub const ROWS_MAX: usize = 1024;

/// Most segments in the answer to one `Why`.
pub const PLACEMENTS_MAX: usize = 32;

/// Name of a file, at most [`NAME_BYTES_MAX`] bytes.
pub type Name = Bounded<u8, NAME_BYTES_MAX>;

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
    /// A user's request to a gateway.
    Ask {
        /// Store a file: `length` bytes follow as `Data`; answered `Stored` when it is durable.
        0 => Put(Put),
        /// The next bytes of the open `Put` with this id.
        1 => Data(Bounded<u8, DATA_BYTES_MAX>),
        /// Give up the open `Put`; its space is freed.
        2 => Cancel(Nothing),
        /// Read a range of a file.
        3 => Get(Get),
        /// One page of the caller's files whose names are `from` or later, in order.
        4 => List(Name),
        /// Remove a file; its space is freed.
        5 => Remove(Name),
        /// The gateway's state, with the faults that it found.
        6 => Status(Nothing),
        /// The gateway's agreements with providers.
        7 => Agreements(Nothing),
        /// The reasons why a provider gets shards, or gets none.
        8 => Why(Account),
        /// One page of another account's files whose names are `name` or later; for the gateway's owner alone.
        9 => ListOf(FileOf),
        /// Remove a file of an account that is not served any more; for the gateway's owner alone.
        10 => RemoveOf(FileOf),
    }
}

encoded! {
    /// A file of another account than the caller's.
    FileOf {
        /// Account that owns the file.
        account: Account,
        /// Name of the file.
        name: Name,
    }
}

encoded! {
    /// A file that the following `Data` messages carry.
    Put {
        /// Name under which the file is stored.
        name: Name,
        /// Length of the file in bytes.
        length: u64,
    }
}

encoded! {
    /// A range of a file.
    Get {
        /// Name of the file to read.
        name: Name,
        /// Offset of the first byte.
        offset: u64,
        /// Number of bytes; `None` reads to the end.
        length: Option<u64>,
    }
}

encoded! {
    /// An answer and the id of its request.
    Response {
        /// Id of the request that this answers.
        id: u64,
        /// The answer, without its id.
        answer: GatewayAnswer,
    }
}

tagged! {
    /// A gateway's answer to a user.
    GatewayAnswer {
        /// The file is durable: at least 6 of 8 shards of each segment are on providers that signed.
        0 => Stored(File),
        /// The file that a `Get` reads; its bytes follow as `Data`.
        1 => Found(File),
        /// The next bytes of the file, in order.
        2 => Data(Bounded<u8, DATA_BYTES_MAX>),
        /// The `Get` is complete.
        3 => End(Nothing),
        /// A page of files.
        4 => Files(Bounded<File, ROWS_MAX>),
        /// The file is removed; this was its row.
        5 => Removed(File),
        /// The state and the faults of the gateway.
        6 => Status(Status),
        /// One row for each agreement of the gateway.
        7 => Agreements(Bounded<AgreementRow, ROWS_MAX>),
        /// The request failed, for a reason that is named.
        8 => Refused(Refused),
        /// Reasons of the placement about a provider.
        9 => Why(Why),
    }
}

tags! {
    /// The kind of a refusal, on which programs act.
    Refusal {
        /// The caller has no file of this name.
        0 => NoFile "no file",
        /// The gateway does not serve this account.
        1 => NotServed "not served",
        /// The request is wrong: a name, a range, or the order of messages.
        2 => Request "request",
        /// Too few providers can take or give the bytes now.
        3 => Providers "providers",
        /// The gateway has no room for another file.
        4 => Full "full",
        /// The request broke off: a caller that was slow or went away, or a file that changed meanwhile.
        5 => Interrupted "interrupted",
        /// The gateway is stopping.
        6 => Stopping "stopping",
        /// The account has read as many bytes as it may for now.
        7 => Allowance "allowance",
    }
}

encoded! {
    #[json]
    /// A request that failed.
    Refused {
        /// Kind of the refusal.
        kind: Refusal,
        /// Text for people: what happened, why, and what to do next.
        text: Bounded<u8, 1024>,
    }
}

encoded! {
    #[json]
    /// A file in the catalogue.
    File {
        /// Name under which the file is stored.
        name: Name,
        /// Length of the file in bytes.
        bytes: u64,
        /// Plain BLAKE3 hash of the file's bytes.
        blake3: Hash,
        /// Number of segments of the file.
        segments: u32,
        /// Shards that are durable at providers now.
        shards_durable: u32,
        /// Shards that the file has when all its segments are complete.
        shards: u32,
    }
}

encoded! {
    #[json]
    /// The state of a gateway.
    Status {
        /// Account of the gateway, which opens its agreements.
        account: Account,
        /// Last certified height that the gateway has seen.
        height: u64,
        /// Number of the caller's files.
        files: u64,
        /// Number of shards that wait for repair.
        repairs_open: u32,
        /// Faults found so far, oldest first.
        faults: Bounded<Fault, ROWS_MAX>,
        /// Bytes of each account that the gateway serves or served; for others than its owner, only their own.
        users: Bounded<UserRow, ROWS_MAX>,
    }
}

encoded! {
    #[json]
    /// The bytes of one account at a gateway.
    UserRow {
        /// Account that owns the files.
        account: Account,
        /// True if the gateway serves it now.
        listed: bool,
        /// Maximum of bytes that its files may count as together; none without one.
        quota: Option<u64>,
        /// Number of its files.
        files: u64,
        /// Bytes that its files count as, each in whole blocks of 4 KiB, and those that are pending.
        bytes: u64,
        /// Bytes of puts under way, and of removed files whose space is not freed yet.
        pending: u64,
    }
}

encoded! {
    #[json]
    /// A provider that failed, and the repair of its shards.
    Fault {
        /// Account of the provider that failed.
        provider: Account,
        /// 0 late on a draw and then silent, 1 failed a draw, 2 failed a read, 3 its own scrub reported the
        /// shard.
        found_by: u8,
        /// Round in which the fault was found.
        round: u64,
        /// Shards of this gateway that the provider held.
        shards_lost: u32,
        /// Shards rebuilt at other providers so far, each with the same name.
        shards_repaired: u32,
    }
}

encoded! {
    #[json]
    /// One of the gateway's agreements.
    AgreementRow {
        /// Provider, slot and opening height of the agreement.
        agreement: AgreementId,
        /// Number of shards stored under the agreement.
        shards: u64,
        /// Bytes of the shards stored under the agreement.
        bytes: u64,
        /// Last data set version that both parties signed.
        version: u64,
        /// Egress bytes paid by vouchers.
        egress: u64,
        /// Epoch in which the agreement ends.
        end_epoch: u64,
        /// Money paid into the voucher reserve so far, top-ups included.
        voucher_reserve: Amount,
    }
}

encoded! {
    /// The view that a gateway's placement has of a provider now.
    Why {
        /// The provider's data in the gateway; `None` if the gateway has not seen it on the ledger.
        seen: Option<Seen>,
        /// True if `placements` are recent segments; false after a start, when they are made up as a sample.
        recent: bool,
        /// The segments, newest first, as they would be placed now.
        placements: Bounded<Placement, PLACEMENTS_MAX>,
    }
}

encoded! {
    /// A provider as a gateway's placement sees it.
    #[derive(Copy)]
    Seen {
        /// True if the provider answers and its reads were found.
        trusted: bool,
        /// True if its first reads were drawn already, so that it is no newcomer.
        vetted: bool,
        /// Sync score of the provider, parts per billion.
        score: u64,
        /// Leaves held and leaves that may be held under the open agreement; `None` if none is open.
        room: Option<(u64, u64)>,
        /// Number of offers in a row that it left unanswered.
        unanswered: u32,
        /// Blocks for which it is left out of placement because of those offers.
        left_out: u64,
    }
}

encoded! {
    /// A provider's result in the placement of one segment.
    Placement {
        /// Name of the segment, as the placement rule uses it.
        segment: Bounded<u8, 32>,
        /// Number of leaves of each shard.
        leaves: u64,
        /// 0 chosen, 1 chosen first as a newcomer, 2 chosen although its region or network was taken,
        /// 3 late, failed or silent, 4 no room, 5 its operator holds another shard, 6 its network does,
        /// 7 its region holds two, 8 others stood before it, 9 no open agreement with it,
        /// 10 it left offers unanswered.
        reason: u8,
        /// Number of providers that were considered.
        candidates: u32,
        /// Number of providers that were chosen.
        chosen: u32,
    }
}
