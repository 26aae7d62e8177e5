//! The till: the best voucher of each agreement, durable before the next slice leaves.
//!
//! ```text
//!   voucher --> state::judge (the ledger's own check) --> actor: append, ONE sync for all that wait
//!                                                            |
//!                                   paid bytes rise, who waits for credit goes on
//! ```
//!
//! Invariants
//! 1. `paid` rises only after the voucher is durable: a crash never costs more than the window.
//! 2. A voucher that the ledger would refuse is refused here, with the ledger's code.
//! 3. One voucher per agreement is kept: cumulative units make all earlier ones worthless.

mod actor;
mod state;

pub use actor::{Till, TillError};
pub use state::{Judged, State, judge};
