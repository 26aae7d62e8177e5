//! The gateway's account on the ledger: operations in the order of their nonces, each until it has
//! a receipt.
//!
//! ```text
//!   body ─► nonce, signature ─► submitted ─► receipt ─► code to the caller
//!                                  └─ no receipt: submitted again; expired: signed again
//! ```
//!
//! Invariants
//! 1. Bodies stand in blocks in the order in which they were given.
//! 2. At most [`IN_FLIGHT_MAX`] operations wait: below the mempool's bound for one account.
//! 3. An operation is signed anew only when its expiry height has passed without a receipt.
