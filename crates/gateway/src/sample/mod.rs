//! Reads a little of every provider in every epoch, at moments that nobody can foresee.
//!
//! ```text
//!   secret, epoch, provider ─► state: two moments ─► actor ──proven Audit, block body──► names
//!                                                      │  a shard that the provider just proved
//!                                                      ▼
//!                    deed: one slice, or small shards of as many bytes, verified, paid ─► [`Sample`]
//! ```
//!
//! A gateway learns from it whom to ask first; an auditor ([`crate::auditor`]) reports it. Both run
//! this code with the same agreements, so a provider cannot tell whose read it answers.
//!
//! Invariants
//! 1. When and what is read follows from a secret and the ledger alone, never from what it is for.
//! 2. What is read was proved by that provider in a statement that became final.
//! 3. A read ends before the last round of its epoch, in which providers redeem.

mod actor;
pub mod names;
pub mod state;

pub use actor::{Sampler, start};

use posync_protocol::{Account, AgreementId, service::LATENCY_HIGH_MS};
use std::time::Duration;

/// Milliseconds in which the slice must be here: beyond, its latency is worth nothing.
pub const IN_TIME_MS: u64 = LATENCY_HIGH_MS;
/// Reads begin up to so many milliseconds after their block, so that they do not fall together, and
/// wait for names at most as long again.
pub const SPREAD_MS: u64 = 500;

/// What one read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The epoch in which it began.
    pub epoch: u64,
    /// Who was asked.
    pub provider: Account,
    /// Under which agreement.
    pub agreement: AgreementId,
    /// Its number in the catalogue: names the session key.
    pub deed: u32,
    /// What came.
    pub found: Found,
}

/// What came of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing in time, or a refusal to serve.
    Silence,
    /// An answer that does not hold the bytes.
    Wrong,
    /// The bytes.
    Bytes {
        /// How many.
        bytes: u64,
        /// Until the first slice.
        first: Duration,
        /// Until the last.
        whole: Duration,
    },
}
