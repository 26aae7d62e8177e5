//! Reads a little from every provider in every epoch, at unpredictable moments.
//!
//! ```text
//!   secret, epoch, provider ─► state: two moments ─► actor ──proven Audit, block body──► names
//!                                                      │  a shard that the provider just proved
//!                                                      ▼
//!                    agreement: one slice, or small shards of as many bytes, verified, paid ─► [`Sample`]
//! ```
//!
//! A gateway learns from the samples which provider to ask first; an auditor ([`crate::auditor`]) reports
//! them. Both run this code with the same agreements, so a provider cannot distinguish their reads.
//!
//! Invariants
//! 1. The moment and the bytes of a read follow from a secret and the ledger alone, never from its
//!    purpose.
//! 2. A shard is read only if that provider proved it in a storage proof that became final.
//! 3. A read ends before the last round of its epoch, in which providers redeem.

mod actor;
pub mod names;
pub mod state;

pub use actor::{Sampler, start};

use posync_protocol::{Account, AgreementId, service::LATENCY_HIGH_MS};
use std::time::Duration;

/// Milliseconds within which a sample must arrive; a higher latency scores nothing.
pub(crate) const IN_TIME_MS: u64 = LATENCY_HIGH_MS;
/// Most milliseconds between a block and a read that is due at it, so that reads do not coincide; waiting
/// for names takes at most as long again.
pub(crate) const SPREAD_MS: u64 = 500;

/// The result of one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The epoch in which the sample was due.
    pub epoch: u64,
    /// The provider that was asked.
    pub provider: Account,
    /// The agreement under which it was read.
    pub agreement: AgreementId,
    /// The agreement's number in the catalogue, from which the session key derives.
    pub number: u32,
    /// The outcome of the read.
    pub found: SampleResult,
}

/// The outcome of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleResult {
    /// No answer in time, or a refusal to serve.
    PeerHealth,
    /// An answer without the right bytes.
    Wrong,
    /// The right bytes, in time.
    Bytes {
        /// Number of bytes received.
        bytes: u64,
        /// Time until the first slice arrived.
        first: Duration,
        /// Time until the last slice arrived.
        whole: Duration,
    },
}
