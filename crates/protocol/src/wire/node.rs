//! The node service: submit operations, read proven state, follow finalized blocks.
//!
//! The answers of a node are of three kinds. *Proved*: headers up to the next certificate, one certificate,
//! proofs against a header's roots. *Checkable*: bodies and receipts, by the roots in a proved header. *Its
//! word*: `Info`, its clock, the height of a receipt, events. Clients rely on the first two only.

use crate::{
    Account, Bounded, Code, Hash, Key, Operation, Slot,
    block::{BlockBody, Header, Receipts},
    ledger::Event,
    limits::{EVENTS_MAX, FRAME_BYTES_MAX, HEADERS_MAX, OPERATION_BYTES_MAX, Parameters, READ_KEYS_MAX},
};

use commonware_codec::Encode;

/// Namespace of the channel's handshake.
pub const NAMESPACE: &[u8] = b"posync/node/1";
/// Most bytes that a client may submit: more than an operation, so that the node can reject one that is too
/// large by its code.
pub const SUBMIT_BYTES_MAX: usize = 4 * OPERATION_BYTES_MAX;
/// Most bytes of an encoded finalization, which has 132 today.
pub const FINALIZATION_BYTES_MAX: usize = 256;
/// Most bytes of an encoded inclusion or exclusion proof, which is below 600 at a million records.
pub const PROOF_BYTES_MAX: usize = 2048;
/// Most milliseconds that a node spends on dialling a caller back.
pub const DIAL_BACK_MS_MAX: u64 = 5_000;
/// Most bytes of an encoded request for a part of the state.
pub const STATE_ASK_BYTES_MAX: usize = 32;
/// Most operations of the store in a part of the state.
pub const STATE_OPERATIONS_MAX: u64 = 256;
/// Most bytes of a part of the state: operations of 321 bytes each, and their proof.
pub const STATE_BYTES_MAX: usize = 128 << 10;
/// Most bytes of an encoded genesis, which funds at most 65,536 accounts: 3.1 MB, in one frame.
pub const GENESIS_BYTES_MAX: usize = 4 << 20;
const _: () = assert!(GENESIS_BYTES_MAX < FRAME_BYTES_MAX);
/// Bytes of an encoded network key.
pub const NETWORK_KEY_BYTES: usize = 96;

encoded! {
    /// A message without content.
    #[derive(Copy, Default)]
    Nothing {}
}

tagged! {
    /// A client's request to a node.
    Ask {
        /// The chain, the network key, the parameters and the tip.
        0 => Info(Nothing),
        /// Submit an encoded operation; answered `Accepted` or `Refused`.
        1 => Submit(Bounded<u8, SUBMIT_BYTES_MAX>),
        /// The receipt of an operation, by id; the node waits for it up to
        /// [`crate::limits::RECEIPT_WAIT_MS`].
        2 => Receipt(Hash),
        /// Records with proofs against a certified header.
        3 => Read(Bounded<Key, READ_KEYS_MAX>),
        /// Certified headers from a height on (0: from the tip), without end, each as `Certified`.
        4 => Follow(u64),
        /// A body by height.
        5 => Body(u64),
        /// Receipts and events by height.
        6 => Events(u64),
        /// The header at a height, with its certificate.
        7 => Header(u64),
        /// Dial the caller back at its own address; answered `Dialled`.
        8 => DialBack(DialBack),
        /// The time of the node's machine; answered `Clock`.
        9 => Clock(Nothing),
        /// The genesis, whose SHA-256 is the name of the chain; answered `Genesis`.
        10 => Genesis(Nothing),
        /// A part of a recent state, for a node that has none: an encoded request of the store's synchronization, for
        /// at most [`STATE_OPERATIONS_MAX`] operations. Answered `State`.
        16 => State(Bounded<u8, STATE_ASK_BYTES_MAX>),
    }
}

impl Ask {
    /// A request that submits `operation`; `None` if it exceeds [`SUBMIT_BYTES_MAX`].
    pub fn submit(operation: &Operation) -> Option<Self> {
        Bounded::new(operation.encode().to_vec()).map(Self::Submit)
    }
}

tagged! {
    /// A node's answer to a client.
    NodeAnswer {
        /// The answer to an `Info` request.
        0 => Info(Info),
        /// The operation waits for a block, or is in one.
        1 => Accepted(Hash),
        /// The operation is refused.
        2 => Refused(Code),
        /// The receipt of the operation; `None` while it is not final.
        3 => Receipt(Option<Receipt>),
        /// The answer to a `Read` request.
        4 => Read(Read),
        /// The answer to `Header`, and each step of `Follow`.
        5 => Certified(Certified),
        /// The answer to a `Body` request.
        6 => Body(BlockBody),
        /// One part of the answer to `Events`.
        7 => Events(BlockEvents),
        /// The node cannot answer now, or not any more.
        8 => Unavailable(Unavailable),
        /// The outcome of a `DialBack`.
        9 => Dialled(Dialled),
        /// Milliseconds since 1970 by the clock of the node's machine: its word.
        10 => Clock(u64),
        /// The encoded genesis, as the authorities signed it.
        11 => Genesis(Bounded<u8, GENESIS_BYTES_MAX>),
        /// A part of the state: operations of the store, proved against the `ops_root` of a header.
        16 => State(Bounded<u8, STATE_BYTES_MAX>),
    }
}

tagged! {
    /// A service that a node can dial back; its namespace is part of the handshake.
    #[derive(Copy)]
    Dial {
        /// The service of a provider, [`crate::wire::provider`].
        0 => Provider(Nothing),
        /// The service of a gateway, [`crate::wire::gateway`].
        1 => Gateway(Nothing),
        /// The service of a node, described here.
        2 => Node(Nothing),
        /// The port at which an authority listens for the others. It answers to authorities alone, so the node that dials
        /// connects and proves nothing: `Reached` says that the way there is open.
        3 => Consensus(Nothing),
    }
}

encoded! {
    /// Asks a node to dial the IP address from which this request comes, at most for [`DIAL_BACK_MS_MAX`].
    /// The request names no host, so that nobody can make a node dial a third party.
    #[derive(Copy)]
    DialBack {
        /// TCP port to dial.
        port: u16,
        /// Account that the listener there must prove.
        account: Account,
        /// Service that it must serve.
        service: Dial,
    }
}

encoded! {
    /// The outcome of a dial-back, by the node's word.
    #[derive(Copy)]
    Dialled {
        /// IP address of the caller as the node sees it; IPv4 as `::ffff:a.b.c.d`.
        ip: [u8; 16],
        /// End of the attempt.
        outcome: DialOutcome,
    }
}

tagged! {
    /// The end of an attempt to dial back.
    #[derive(Copy)]
    DialOutcome {
        /// The listener proved the expected account; of `Dial::Consensus` alone, it took the connection.
        0 => Reached(Nothing),
        /// The connection was refused, or there is no way to the address.
        1 => Refused(Nothing),
        /// No connection, or no handshake, within [`DIAL_BACK_MS_MAX`].
        2 => TimedOut(Nothing),
        /// Something answers there, but it proves another account or serves something else.
        3 => Other(Nothing),
        /// The address is not dialled: it is none of the internet, or the node's own.
        4 => Hidden(Nothing),
    }
}

encoded! {
    /// A node's storage proof about itself and its network, without proof.
    Info {
        /// SHA-256 of the genesis.
        chain: Hash,
        /// Key under which every certificate verifies.
        network_key: [u8; NETWORK_KEY_BYTES],
        /// Parameters that the genesis fixes.
        parameters: Parameters,
        /// Highest finalized height about which it can answer.
        height: u64,
    }
}

encoded! {
    /// The place and the outcome of an operation.
    #[derive(Copy)]
    Receipt {
        /// Height of the block that holds the operation.
        height: u64,
        /// Place of the operation in the block.
        index: u32,
        /// Outcome of the operation: done, or the reason of its refusal.
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
        /// The headers and the certificate against which the records are proved.
        certified: Certified,
        /// The records with their proofs, one for each key.
        records: Bounded<ProvenRecord, READ_KEYS_MAX>,
    }
}

encoded! {
    /// A record, or its absence, with its proof.
    ProvenRecord {
        /// The slot of the record; `None` if there is none.
        slot: Option<Slot>,
        /// An encoded key-value proof, or an encoded exclusion proof.
        proof: Bounded<u8, PROOF_BYTES_MAX>,
    }
}

encoded! {
    /// The receipts and events of a block, in as many parts as its events need.
    BlockEvents {
        /// Proved by the header's `receipts_root`; the same in every part.
        receipts: Receipts,
        /// Events of the block, by the node's word only.
        events: Bounded<Event, EVENTS_MAX>,
        /// True if no part follows.
        last: bool,
    }
}

tags! {
    /// Reasons why a node cannot answer.
    Unavailable {
        /// The block is older than those that the node keeps.
        0 => Pruned,
        /// The block is not final yet.
        1 => NotYet,
        /// The state changed while it was read, or no certificate is available yet; ask again.
        2 => Moved,
        /// Too many requests at once; ask again later.
        3 => Busy,
    }
}
