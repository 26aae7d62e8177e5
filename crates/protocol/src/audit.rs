//! Draws: the beacon chooses the providers to ask, and the leaves. No party sends a challenge.
//!
//! ```text
//!   seed of the parent --+-- draw n even: x = H(seed, n) mod the fee weight of all  -> fee tree  -> provider
//!                        +-- draw n odd : the next in the turn line      -> provider
//!   challenge (height, seed) stays in the provider's record until it is answered or expires
//!   i0 = H(seed, provider, 0) mod W -> place, leaf -> its bytes -> i1 = H(seed, provider, 0, bytes) ..
//! ```
//!
//! W is the weight of the agreements that live in the epoch of the draw: one range of the provider's slot
//! tree, which is ordered by end epoch ([`crate::fenwick::window`]). Ended agreements are not read, cleared
//! or not.
//!
//! The turn line is every index, then the newcomers (their first 64 reads) a second time. The proposer
//! searches the fee tree ([`Resolver`]) and writes (index, account) of each draw into the body; every
//! verifier checks `prefix(index) <= x < prefix(index + 1)` in one batched read.
//!
//! Invariants
//! 1. The draws of a block follow from the seed that it carries and the parent's state alone: a body with
//!    other draws, or without one of them, is invalid (DR-2, DR-4).
//! 2. A draw is lost (nothing accumulates) without a seed, while no provider is paid, on a vacant index, and
//!    when it finds that a newcomer no longer is one. It is lost on a provider with an open challenge, also a
//!    stale one, which it closes; that provider is then not drawn again in the same block (DR-5).
//! 3. Only a provider that has one leaf can know which leaf is read next (RD-1).
//! 4. The weight of a provider in the fee tree is what it is paid for, or zero while it is asleep (DR-3,
//!    DR-6).

mod draw;
mod reads;
mod weight;

pub use draw::Resolver;
pub(crate) use draw::{apply_draws, touches_draws};
pub use reads::{Live, Prover, Question, Reads, Share};
pub use weight::is_awake;
pub use weight::proved_nothing;
pub(crate) use weight::{touches_weight, wake, weigh};

use crate::number::{count, saturate_u8, saturate_u32};
use crate::{
    Account, Hash,
    event::Event,
    limits::{NEWCOMER_CLOSED, Parameters, READS},
    record::{Audit, Challenge, Provider},
    working::BlockContext,
};
use ruint::aliases::U256;

/// `hash` as a big-endian number, modulo `modulus`; `None` if that is zero.
pub(crate) fn reduce(hash: blake3::Hash, modulus: u128) -> Option<u128> {
    let number = U256::from_be_bytes(*hash.as_bytes());
    (modulus != 0).then(|| number % U256::from(modulus))?.try_into().ok()
}

/// Returns true if an answer in a block of `height` meets the deadline of the challenge.
pub const fn is_on_time(challenge: &Challenge, height: u64, parameters: &Parameters) -> bool {
    height.saturating_sub(challenge.height) <= parameters.deadline_blocks
}

/// Returns true if a challenge can no longer be answered in a block of `height`.
pub const fn is_expired(challenge: &Challenge, height: u64, parameters: &Parameters) -> bool {
    let waited = parameters.round(height).saturating_sub(parameters.round(challenge.height));
    waited > parameters.pending_rounds_max
}

/// The outcome of a challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timing {
    /// Answered within the deadline.
    OnTime,
    /// Answered after the deadline, while the challenge was pending.
    Late,
    /// Expired without an answer.
    Silent,
    /// Late, in a round that is the network's fault: left out of the histories.
    Excused,
}

/// Writes the outcome of a challenge into the histories and closes it. An excused one is left out of both
/// histories, and of the count of reads that gives their length (NF-3).
pub(crate) fn note(audit: &mut Audit, height: u64, reads: &[bool], timing: Timing) {
    if timing != Timing::Excused {
        for passed in reads {
            audit.history = audit.history << 1 | u64::from(*passed);
            audit.silent = audit.silent << 1 | u64::from(timing == Timing::Silent);
        }
        if !reads.is_empty() {
            audit.on_time = audit.on_time << 1 | u64::from(timing == Timing::OnTime);
        }
        audit.drawn = audit.drawn.saturating_add(saturate_u32(count(reads.len())));
    }
    audit.settlements = audit.settlements.saturating_add(u32::from(!reads.is_empty()));
    audit.closed = audit.closed.saturating_add(1).min(NEWCOMER_CLOSED);
    audit.last_height = height;
    audit.challenge = None;
}

/// Closes a challenge that was pending too long. If the provider is paid for anything, four reads are missing
/// and one answer is late. The rounds since the last settlement are not paid: if they were, silence would be
/// a way to skip bad draws. An excused challenge does not change the histories and is not paid either (NF-4).
pub(crate) fn expire(
    context: &BlockContext,
    account: &Account,
    provider: &mut Provider,
    audit: &mut Audit,
    challenge: &Challenge,
    excused: bool,
) -> Event {
    let reads = if provider.paid == 0 { 0 } else { READS };
    let timing = if excused { Timing::Excused } else { Timing::Silent };
    note(audit, challenge.height, &[false; READS][..reads], timing);
    provider.settled_round = context.round();
    Event::Audited {
        provider: *account,
        height: challenge.height,
        answered: false,
        passed: 0,
        reads: saturate_u8(count(reads)),
        on_time: false,
        excused,
    }
}

/// The hash that stands for the leaf of a missing read.
pub const NO_LEAF: Hash = [0; 32];
