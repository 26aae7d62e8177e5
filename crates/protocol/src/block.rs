//! A block: a header, and the body whose root it holds.

pub use crate::header::{Draw, HEADER_NAMESPACE, Header, sha256, with_chain};

use crate::{
    Bounded, Code, Hash, Operation,
    limits::{DKG_BYTES_MAX, DRAWS_MAX, OPERATIONS_MAX},
};
use commonware_codec::Encode;

encoded! {
    #[json]
    /// A block's content, below its header.
    BlockBody {
        /// Providers drawn, a fixed number per block; `None` is a draw that names no provider.
        draws: Bounded<Option<Draw>, DRAWS_MAX>,
        /// Operations in the proposer's order, lane by lane.
        operations: Bounded<Operation, OPERATIONS_MAX>,
        /// The engine's payload for resharing the key; empty if there is none.
        #[json(skip)]
        dkg: Bounded<u8, DKG_BYTES_MAX>,
    }
}

impl BlockBody {
    /// The hash that the header holds as `body_root`.
    pub fn root(&self) -> Hash {
        sha256(&self.encode())
    }
}

encoded! {
    #[json]
    /// The outcomes of a block's operations, in order.
    Receipts {
        /// Operation id and receipt code of each.
        #[json("receipts", outcomes)]
        rows: Bounded<(Hash, Code), OPERATIONS_MAX>,
    }
}

impl Receipts {
    /// The hash that the header holds as `receipts_root`.
    pub fn root(&self) -> Hash {
        sha256(&self.encode())
    }
}
