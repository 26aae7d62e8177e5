//! Seats of authorities: how many there are, who earns and who loses one, and who leads.
//!
//! ```text
//!   score of an epoch --Track::after--> eligible | warned | due        votes --Ballots--> decided
//!                                           \________________ elect ________________/
//!                                     admitted, removed, warned, waiting: one term's changes
//!   scores of those who are in --leader_weights--> who is drawn how often
//! ```
//!
//! Guarantees
//! 1. Noise moves no seat: one enters at 0.80 and leaves below 0.60, after whole runs of epochs (SE-2).
//! 2. A term changes at most a tenth of the seats, or one; never fewer than four are left (SE-5).
//! 3. Whoever gets in without votes is at most the third that the engine tolerates (SE-6).
//! 4. One vote decides about one account; the removed vote no more; nothing follows by itself (SE-3).
//! 5. Everything is bounded by [`SEATS_MAX`] and by the number of candidates given; the order of the
//!    inputs changes nothing.

mod ballots;
mod election;

pub use ballots::{BALLOTS_MAX, Ballots, Decision, Refused};
pub use election::{Candidate, Changes, Seated, Way, elect};

use crate::{
    amount::ONE,
    limits::{SEATS_MAX, SEATS_MIN},
};
use alloc::vec::Vec;

/// From this effective score on, an epoch counts towards a seat.
pub const ENTER: u64 = ONE / 5 * 4;
/// Epochs in a row that earn one.
pub const ENTER_EPOCHS: u8 = 8;
/// Below this effective score, an epoch counts against a seat; also what makes a provider count in
/// [`seats_for`].
pub const LEAVE: u64 = ONE / 5 * 3;
/// Epochs in a row, after the one that warned, that cost it.
pub const LEAVE_EPOCHS: u8 = 3;
/// With this many leaders or more, none weighs above this part of all.
pub const LEADERS_MIN: usize = 8;

/// Seats for a number of bonded providers with a score of at least [`LEAVE`] (SE-1): four times the
/// root, floored, from 4 to 256.
pub fn seats_for(providers: u64) -> usize {
    let seats = providers.isqrt().saturating_mul(4).clamp(SEATS_MIN.into(), SEATS_MAX.into());
    usize::try_from(seats).expect("at most SEATS_MAX")
}

/// Most seats that a term takes or gives, of `seats` (SE-5).
pub const fn churn_max(seats: usize) -> usize {
    if seats < 20 { 1 } else { seats / 10 }
}

/// Most seats that were given without votes, of `seats` (SE-6): what the engine tolerates as faulty.
pub const fn automatic_max(seats: usize) -> usize {
    seats.saturating_sub(1) / 3
}

/// How long somebody's score has stood high or low: kept for each seat and candidate, by account and
/// registration, and moved once an epoch (SE-2).
///
/// Guarantees: a score between [`LEAVE`] and [`ENTER`] ends both runs; nobody is due without having
/// been warned in an earlier epoch; who never stood at [`LEAVE`] is never due, so that a genesis can
/// start with seats that have yet to earn a score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Track {
    high: u8,
    low: u8,
    proven: bool,
}

impl Track {
    /// After one more epoch with this effective score.
    #[must_use]
    pub const fn after(self, score: u64) -> Self {
        let high = if score >= ENTER { self.high.saturating_add(1) } else { 0 };
        let low = if self.proven && score < LEAVE { self.low.saturating_add(1) } else { 0 };
        Self { high, low, proven: self.proven || score >= LEAVE }
    }

    /// Whether it may have a seat.
    pub const fn is_eligible(self) -> bool {
        self.high >= ENTER_EPOCHS
    }

    /// Whether this epoch is the public warning.
    pub const fn is_warned(self) -> bool {
        self.low == 1
    }

    /// Whether it ought to lose its seat.
    pub const fn is_due(self) -> bool {
        self.low > LEAVE_EPOCHS
    }
}

/// Weights of leaders from their scores, one an operator (SE-7): the scores, of which the `j` largest
/// are lowered to `rest / (8 - j)`, `j` being the smallest that suffices. Zero for a seat that is out
/// of sync or waits to leave. With fewer than eight seats nothing is lowered.
///
/// Guarantees: nobody weighs more than its score, nor, from eight seats on, above an eighth of all;
/// where fewer than eight weigh anything, those weigh the same. A zero stays zero; who scores more
/// never weighs less.
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
        cap = rest / (parts - lowered) as u128;
        if u128::from(*largest) <= cap {
            break;
        }
        rest -= u128::from(*largest);
    }
    let cap = u64::try_from(cap).unwrap_or(u64::MAX);
    scores.iter().map(|score| (*score).min(cap)).collect()
}
