//! The mempool: operations that wait for a block, bounded, in a block's lanes, separate at each authority.
//!
//! ```text
//!  serve ──Submit──► actor ──batch──► ingress ──good──► state ◄── candidates ── application
//!                      ▲ │                                ▲
//!        channel 8  ───┘ └───► channel 8 (own only)       └────── finalized ─────┘
//! ```
//!
//! [`state`] decides and never waits; `admit` judges an operation by the applied state; [`actor`] moves
//! bytes: it gathers operations of callers and other authorities, verifies signatures in one batch, looks
//! up accounts and challenges in the applied state, and sends callers' operations to the other
//! authorities. All authorities are connected, so no operation is forwarded a second time.

pub(crate) mod actor;
mod admit;
mod early;
pub(crate) mod state;
#[cfg(test)]
mod tests;
mod upkeep;

pub(crate) use actor::{Inbox, Mempool};
