//! Measured egress: in the epoch's one slot it sends bytes to eight drawn peers, which count them.
//!
//! ```text
//!   ledger --Probe record--> slot, peers --dial--> Probe, Filler, Filler, ... paced --> Counted (signed)
//!                                                                                         |
//!   ledger <--Measure: five to eight counts ----------------------------------------------+
//! ```
//!
//! The other side of it, counting, is [`crate::serve`]'s. `state` decides what is sent and what
//! counts; the actor here waits, dials and sends.
//!
//! Invariants
//! 1. At most the declared rate is sent in a slot, spread over it: a measurement never takes more of
//!    a line or a processor than was offered.
//! 2. Only counts that verify and are no more than what was sent are brought.
//! 3. A failed measurement is told and costs this epoch only.

mod actor;
mod state;
#[cfg(test)]
mod tests;

pub use actor::{Prober, Shared};
pub use state::{Plan, Slot};
