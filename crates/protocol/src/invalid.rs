//! The reasons for which a block may be neither built nor voted for.

use crate::{
    Broken, Code,
    limits::{BODY_BYTES_MAX, KEYS_MAX, OPERATIONS_MAX, PAID_LANE_BYTES, RESERVED_PER_ACCOUNT},
};

/// Why a block may be neither built nor voted for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// An operation is malformed or cannot pay its fee, or one outside the paid lane was refused.
    #[error("operation {index} makes the block invalid: {}", code.explain())]
    Operation {
        /// Position of the operation in the body.
        index: usize,
        /// Receipt code that says why.
        code: Code,
    },
    /// A draw differs from the beacon's.
    #[error("draw {index} is not what the beacon drew")]
    Draw {
        /// Position of the draw in the body.
        index: usize,
    },
    /// The block names more records than [`KEYS_MAX`].
    #[error("the block names more than {KEYS_MAX} records")]
    Keys,
    /// The body exceeds its limits on operations, bytes or paid bytes; its lanes are out of order; or an
    /// account has too many reserved operations.
    #[error(
        "the operations do not fit a body: at most {OPERATIONS_MAX}, {BODY_BYTES_MAX} bytes, {PAID_LANE_BYTES} of them paid; storage proofs, reserved ones, upkeep and paid ones in this order; {RESERVED_PER_ACCOUNT} reserved ones of an account"
    )]
    Body,
    /// The state is damaged, or contradicts the rules: no block can be built on it.
    #[error(
        "the state contradicts the rules ({0}); restore this node from a peer, and report this if it stays"
    )]
    State(#[from] Broken),
}
