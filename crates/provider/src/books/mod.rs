//! The books: which shards each agreement's data set holds, in every version that matters.
//!
//! ```text
//!   version:   3 in force on the ledger    4 void    5 is `next` there    6 signed     7 signed (on 6)
//!              the prover answers from it  (gone)    in force after       6' signed too, other root:
//!                                                    the open challenge   the ledger may take either
//! ```
//!
//! A consumer may let us sign and then put the version on the ledger at once, later, or never, and
//! may ask for another version 6. The ledger decides: a claim says the whole set, so any version above
//! its last one may follow (DS-1), and what is at or below it never can. At most 32 wait above it; then
//! one has to be brought. The keeper brings the newest by itself once the pay that it misses is worth
//! the fee ([`State::missed`]).
//!
//! Invariants
//! 1. A signature leaves only after the change is durable here.
//! 2. What is in force, what is `next` and every signed version above both is kept whole, with its
//!    shards: whatever anybody brings, its reads can be answered.
//! 3. A shard stays while a read of it is asked again, whatever is in force by then (RD-7).
//! 4. The root we sign is the one we computed.

mod actor;
mod state;

pub use actor::{Books, BooksError, Held};
pub(crate) use state::hex;
pub use state::{Bringing, Change, State, Variant};
