//! Measured egress: in its window of an epoch a provider sends bytes to eight drawn peers, which count them.
//!
//! ```text
//!   ledger --Probe record--> window, peers --dial--> Probe, Filler, Filler, ... paced --> Counted (signed)
//!                                                                                         |
//!   ledger <--Measure: five to eight counts ----------------------------------------------+
//! ```
//!
//! The counting side is in [`crate::serve`]. `state` decides what to send and which bytes count; the actor
//! here waits, dials and sends.
//!
//! Invariants
//! 1. At most the declared rate is sent in a window, spread over it: a measurement never takes more of
//!    a line or a processor than was offered.
//! 2. Only counts that verify and do not exceed the bytes sent are submitted.
//! 3. A failed measurement is logged and costs this epoch only.

mod actor;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use actor::Prober;
pub(crate) use state::{Plan, Window};
