//! The node service: submit operations, read proven state, follow finalized blocks.

use crate::{Bounded, Hash, Key, Operation, limits::READ_KEYS_MAX};

/// Namespace of the handshake.
pub const NAMESPACE: &[u8] = b"posync/node/1";

encoded! {
    /// A request and its id.
    Request {
        /// Repeated in the answers.
        id: u64,
        /// What is asked.
        ask: Ask,
    }
}

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
        /// Take an operation.
        1 => Submit(Operation),
        /// What became of an operation, by id.
        2 => Receipt(Hash),
        /// Records with proofs against a certified header.
        3 => Read(Bounded<Key, READ_KEYS_MAX>),
        /// Finalized headers from a height on, without end.
        4 => Follow(u64),
        /// A body by height.
        5 => Body(u64),
        /// Events by height.
        6 => Events(u64),
    }
}
