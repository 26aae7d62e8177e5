//! The voucher store: the best voucher of each agreement, durable before the next slice leaves, and the bytes
//! sent beyond it.
//!
//! ```text
//!   voucher --> state::judge (the ledger's own check) --> actor: append, ONE sync for all that wait
//!                                                            |
//!                                  paid bytes rise, downloads that wait for credit continue
//! ```
//!
//! Invariants
//! 1. `paid` rises only after the voucher is durable: a crash never costs more than the window.
//! 2. A voucher that the ledger would refuse is refused here, with the ledger's code.
//! 3. One voucher per agreement is kept: cumulative units make all earlier ones worthless.
//! 4. Overdue bytes were sent, and not paid for [`OVERDUE`] after the last download ended.
//!
//! The count of sent bytes is not on disk. A restart forgives a debt unless it was claimed before: a claim
//! is on the ledger, which counts it once however often it is repeated (BK-8). So a crash may lose a claim
//! and never makes one twice.

mod actor;
mod state;

pub use actor::Vouchers;
pub(crate) use actor::VouchersError;
pub(crate) use state::{Judged, judge};
pub use state::{OVERDUE, State};

#[cfg(test)]
mod operator;
