//! The two ways in which a rule stops: it refuses, or the state contradicts the rules.
//!
//! ```text
//!   Halt::Refused(code)   an author asked for what the rules forbid  -> a receipt, or left out
//!   Halt::Broken(broken)  the state, or a rule, is wrong             -> Invalid::State: no block
//! ```
//!
//! Invariants
//! 1. No operation can cause a [`Broken`], whatever bytes it has: what depends on an author's numbers is
//!    refused with a [`Code`]. Otherwise anyone could stop the network.
//! 2. A [`Broken`] never becomes a receipt and is never dropped: it ends the block in both modes (LE-6).

use crate::Code;

/// An invariant that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A slot has no known kind, or does not decode.
    #[error("a slot of kind {kind} does not decode")]
    Slot {
        /// First byte of the slot, which names its kind.
        kind: u8,
    },
    /// A record that others refer to is missing.
    #[error("{what}: the record is missing")]
    Missing {
        /// Name of the record, or the reference to it.
        what: &'static str,
    },
    /// A recorded value differs from the recomputed one, or exceeds its bound.
    #[error("{what}: recorded {recorded}, the records say {counted}")]
    Sum {
        /// Name of the invariant or of the field.
        what: &'static str,
        /// The recorded value, or the bound.
        recorded: u128,
        /// The value that the records give.
        counted: u128,
    },
    /// A change would take a value below zero or above its bound, which the other invariants rule out.
    #[error("{what}: a change leaves its bounds")]
    Bound {
        /// Name of the field or of the list.
        what: &'static str,
    },
    /// A rule used a record that its operation, or the block, did not name (LE-1), or that was not read.
    #[error("{what}: a rule used the record without naming it")]
    Unnamed {
        /// Name of the record.
        what: &'static str,
    },
}

impl Broken {
    /// A value that cannot leave its bounds, but would.
    pub(crate) const fn bound(what: &'static str) -> Self {
        Self::Bound { what }
    }
}

/// The reason why a rule stopped; its changes are undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// The rules forbid what the author asked for.
    #[error("{}", .0.explain())]
    Refused(Code),
    /// The state contradicts the rules.
    #[error(transparent)]
    Broken(#[from] Broken),
}

impl From<Code> for Halt {
    fn from(code: Code) -> Self {
        Self::Refused(code)
    }
}
