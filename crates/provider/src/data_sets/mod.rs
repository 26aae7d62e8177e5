//! The data sets: the shards of each agreement's data set, in every version that matters.
//!
//! ```text
//!   version:   3 in force on the ledger    4 void    5 is `next` there    6 signed     7 signed (on 6)
//!              the prover answers from it  (gone)    in force after       6' signed too, other root:
//!                                                    the open challenge   the ledger may take either
//! ```
//!
//! A consumer may let the provider sign and then put the version on the ledger at once, later, or never,
//! and may ask for another version 6. The ledger decides: a claim describes the whole set, so any version
//! above its last one may follow (DS-1), and a version at or below it cannot. At most 32 wait above it;
//! then one has to be submitted. The reconciler submits the newest by itself once the pay that it misses is
//! worth the fee ([`State::missed`]).
//!
//! Invariants
//! 1. A signature leaves only after the change is durable here.
//! 2. The version in force, `next` and every signed version above both are kept whole, with their
//!    shards: whichever version is submitted, its reads can be answered.
//! 3. A shard stays while a read of it is asked again, whatever is in force by then (RD-7).
//! 4. The provider signs only roots that it computed itself.

mod actor;
mod state;

pub use actor::DataSets;
pub(crate) use actor::{DataSetsError, Held};
pub(crate) use state::Bringing;
pub use state::State;
pub(crate) use state::hex;
