//! What waits for a block: bounded, in the lanes of a block, each authority its own.
//!
//! ```text
//!  serve ──Submit──► actor ──batch──► ingress ──good──► state ◄── candidates ── application
//!                      ▲ │                                ▲
//!        channel 8  ───┘ └───► channel 8 (own only)       └────── finalized ─────┘
//! ```
//!
//! [`state`] decides and never waits; `admit` says what the applied state knows of an operation;
//! [`actor`] moves bytes: it gathers what callers and other
//! authorities bring, verifies signatures in one batch, looks up accounts and challenges in the
//! applied state, and sends what callers brought to the other authorities. All authorities are
//! connected, so nothing is passed on a second time.

pub mod actor;
mod admit;
mod early;
pub mod state;
#[cfg(test)]
mod tests;
mod upkeep;

pub use actor::{Inbox, Mempool, Submitted};
