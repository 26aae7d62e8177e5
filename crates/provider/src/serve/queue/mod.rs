//! The provider's own queue: who is served next when not everybody can be.
//!
//! ```text
//!   Put, Get --demand: slot, disk bytes, uplink bytes--> waiting (at most 1,024)
//!        --weighted dominant-resource fairness--> served --drop--> room for the next
//! ```
//!
//! A consumer's weight is what it spent here lately ([`crate::spend`]); the least weighted dominant
//! share goes first, compared by cross-multiplication ([`posync_protocol::economics::fair`]).
//! Vouchers never wait: they are what frees a stalled download.
//!
//! Invariants
//! 1. What is served never exceeds the totals.
//! 2. Who holds nothing comes before everybody who holds something; one consumer leaves a quarter of
//!    each resource to the others, so none of them waits for the end of another's work.
//! 3. At most [`QUEUE_MAX`] wait. When the queue is full, the one with most waiting gives up its
//!    newest request for one who has fewer.
//! 4. A request that goes away, waiting or served, leaves nothing behind.

mod actor;
mod state;

pub use actor::{Full, Place, Queue};
pub use state::{Demand, QUEUE_MAX, TOTAL};
