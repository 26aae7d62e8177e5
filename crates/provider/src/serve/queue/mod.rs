//! The provider's own queue: decides which request is served next when not all fit.
//!
//! ```text
//!   Put, Get --demand: slot, disk bytes, uplink bytes--> waiting (at most 1,024)
//!        --weighted dominant-resource fairness--> served --drop--> room for the next
//! ```
//!
//! A consumer's weight is its recent spending here ([`crate::spending`]); the least weighted dominant
//! share goes first, compared by cross-multiplication ([`posync_protocol::economics::fair`]).
//! Vouchers never wait: they are what frees a stalled download.
//!
//! Invariants
//! 1. Served requests never exceed the totals.
//! 2. A consumer that holds no resource comes before all that hold some; one consumer leaves a quarter
//!    of each resource to the others, so none of them waits for the end of another's work.
//! 3. At most `QUEUE_MAX` of `state` wait. When the queue is full, the consumer with most waiting gives up its
//!    newest request for one with fewer.
//! 4. A request that goes away, waiting or served, frees all that it held.

mod actor;
mod state;

pub(crate) use actor::{Queue, Turn};
pub(crate) use state::Demand;
