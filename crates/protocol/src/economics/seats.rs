//! Seats of authorities: their number, how they are earned and lost, and the weights of leaders.
//!
//! ```text
//!   score of an epoch --Track::after--> eligible | warned | due        votes --Ballots--> decided
//!                                           \________________ elect ________________/
//!                                     admitted, removed, warned, waiting: one term's changes
//!   scores of the seats --leader_weights--> how often each one leads
//! ```
//!
//! Guarantees
//! 1. Noise moves no seat: an account enters at 0.80 and leaves below 0.60, each after a run of epochs
//!    (SE-2).
//! 2. A term changes at most a tenth of the seats, or one; at least four are always left (SE-5).
//! 3. Seats that were given without votes are at most the third that the engine tolerates (SE-6).
//! 4. One vote decides about one account; removed seats have no votes; no decision triggers another (SE-3).
//! 5. Everything is bounded by [`SEATS_MAX`] and by the number of candidates given; the order of the
//!    inputs changes nothing.

mod ballots;
mod election;

pub use ballots::{BALLOTS_MAX, Ballots, Decision, Refused};
pub use election::{Candidate, Changes, Seated, Way, elect};

use crate::number::{count, widest};
use crate::{
    amount::ONE,
    limits::{SEATS_MAX, SEATS_MIN},
};
use alloc::vec::Vec;

/// An epoch with at least this effective score counts towards a seat.
pub const ENTER: u64 = ONE / 5 * 4;
/// Epochs in a row, at [`ENTER`] or above, that earn a seat.
pub const ENTER_EPOCHS: u8 = 8;
/// An epoch with an effective score below this counts against a seat. A provider at or above it counts in
/// [`seats_for`].
pub const LEAVE: u64 = ONE / 5 * 3;
/// Low epochs in a row, after the one that warned, that cost a seat.
pub const LEAVE_EPOCHS: u8 = 3;
/// With this many seats or more, no leader's weight exceeds this fraction (an eighth) of the sum.
pub const LEADERS_MIN: usize = 8;

/// Number of seats for a number of bonded providers with a score of at least [`LEAVE`] (SE-1): four times the
/// root, floored, from 4 to 256.
pub fn seats_for(providers: u64) -> usize {
    let seats = providers.isqrt().saturating_mul(4).clamp(SEATS_MIN.into(), SEATS_MAX.into());
    usize::try_from(seats).expect("at most SEATS_MAX")
}

/// Most seats that a term gives or takes, out of `seats` (SE-5).
pub const fn churn_max(seats: usize) -> usize {
    if seats < 20 { 1 } else { seats / 10 }
}

/// Most seats, out of `seats`, that may have been given without votes (SE-6): as many as the engine tolerates
/// as faulty.
pub const fn automatic_max(seats: usize) -> usize {
    seats.saturating_sub(1) / 3
}

/// How long an account's score has been high or low. Kept for each seat and candidate, by account and
/// registration, and moved once an epoch (SE-2).
///
/// Guarantees: a score between [`LEAVE`] and [`ENTER`] ends both runs; a seat is due only if it was warned in
/// an earlier epoch; an account that never reached [`LEAVE`] is never due, so that a genesis can start with
/// seats that have yet to earn a score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Track {
    high: u8,
    low: u8,
    proven: bool,
}

impl Track {
    /// The track after one more epoch with this effective score.
    #[must_use]
    pub const fn after(self, score: u64) -> Self {
        let high = if score >= ENTER { self.high.saturating_add(1) } else { 0 };
        let low = if self.proven && score < LEAVE { self.low.saturating_add(1) } else { 0 };
        Self { high, low, proven: self.proven || score >= LEAVE }
    }

    /// Returns true if the account may have a seat.
    pub const fn is_eligible(self) -> bool {
        self.high >= ENTER_EPOCHS
    }

    /// Returns true in the epoch of the public warning.
    pub const fn is_warned(self) -> bool {
        self.low == 1
    }

    /// Returns true if the seat is due to be taken.
    pub const fn is_due(self) -> bool {
        self.low > LEAVE_EPOCHS
    }
}

/// Weights of leaders from their scores, one per operator (SE-7): the scores, of which the `j` largest are
/// lowered to `rest / (8 - j)`, with the smallest `j` that suffices. Zero for a seat that is out of sync or
/// waits to leave. With fewer than eight seats nothing is lowered.
///
/// Guarantees: no weight is above its score, nor, from eight seats on, above an eighth of the sum; if fewer
/// than eight weights are positive, those are equal. A zero stays zero; a higher score never has a lower
/// weight.
pub fn leader_weights(scores: &[u64]) -> Vec<u64> {
    let mut sorted: Vec<u64> = scores.iter().copied().filter(|score| *score > 0).collect();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    let parts = LEADERS_MIN.min(sorted.len());
    if scores.len() < LEADERS_MIN || parts == 0 {
        return scores.to_vec();
    }
    let mut rest: u128 = sorted.iter().map(|score| u128::from(*score)).sum();
    let mut cap = 0;
    for (lowered, largest) in sorted.iter().enumerate().take(parts) {
        cap = rest / widest(count(parts - lowered));
        if u128::from(*largest) <= cap {
            break;
        }
        rest -= u128::from(*largest);
    }
    let cap = u64::try_from(cap).unwrap_or(u64::MAX);
    scores.iter().map(|score| (*score).min(cap)).collect()
}
