//! The till: the best voucher of each agreement, durable before the next slice leaves, and what was
//! sent beyond it.
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
//! 4. What is overdue was sent, and not paid for [`OVERDUE`] after the last download ended.
//!
//! What was sent is not on disk. A restart forgives what was owed, except what was claimed by then:
//! that stands in the ledger, which counts it once however often it is told (BK-8). So a crash may
//! lose a claim and never makes one twice.

mod actor;
mod state;

pub use actor::{Till, TillError};
pub use state::{Judged, OVERDUE, State, judge};

#[cfg(test)]
mod operator;
