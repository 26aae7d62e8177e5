//! The books: which shards each agreement's data set holds, in every version that matters.
//!
//! ```text
//!   version:   3 in force on the ledger     4 signed        5 signed (on 4)
//!              the prover answers from it   4' signed too, other root: the ledger may take either
//! ```
//!
//! A consumer may let us sign and then put the version on the ledger at once, later, or never, and
//! may ask for another version 4. The ledger decides; until it has moved past a version, every one
//! that we signed is kept whole, with its shards.
//!
//! Invariants
//! 1. A signature leaves only after the change is durable here.
//! 2. A signed version has all its shards, and they stay until the ledger is past it.
//! 3. The root we sign is the one we computed.

mod actor;
mod state;

pub use actor::{Books, BooksError, Held};
pub(crate) use state::hex;
pub use state::{Bringing, Change, State, Variant};
