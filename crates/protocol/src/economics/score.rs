//! Quality of an epoch, the slow sync score, and the median of auditors' reports.
//!
//! Everything is in parts per billion and stays within `[0, ONE]`. A score depends on ratios,
//! never on volume; it rises by a sixteenth of the gap and falls by an eighth (a quarter when
//! correctness failed), so that trust is slow to earn and quick to lose.

use crate::amount::ONE;
use alloc::vec::Vec;
use ruint::aliases::U256;

/// Below this share of passed reads, quality is zero.
pub const CORRECTNESS_MIN: u64 = ONE / 10 * 9;
/// The score of a newcomer: a quarter.
pub const SCORE_START: u64 = ONE / 4;

/// The lower weighted median: the smallest value `v` with `2 * weight(<= v) >= total`. `None`
/// when the weights sum to zero. Entries of weight zero do not count.
///
/// While less than a third of the assigned weight lies and two thirds reported, the result is
/// within the honest reporters' range.
pub fn lower_weighted_median(reports: &[(u64, u128)]) -> Option<u64> {
    let mut reports: Vec<(u64, u128)> = reports.iter().filter(|report| report.1 > 0).copied().collect();
    reports.sort_unstable();
    let total = reports.iter().fold(U256::ZERO, |sum, report| sum + U256::from(report.1));
    let mut below = U256::ZERO;
    for (value, weight) in reports {
        below += U256::from(weight);
        if below + below >= total {
            return Some(value);
        }
    }
    None
}

/// The product of two ratios: `floor(a * b / ONE)`; both are at most `ONE`.
fn times(a: u64, b: u64) -> u64 {
    u64::try_from(u128::from(a) * u128::from(b) / u128::from(ONE)).expect("a product of ratios is a ratio")
}

/// Quality `q = C^2 * A * (1 + L) / 2`, zero below the correctness gate. Inputs above `ONE` count
/// as `ONE`.
///
/// * `c` - correctness: passed share of drawn reads (storage), or the correct share by auditors (egress).
/// * `a` - availability: on-time share.
/// * `l` - latency score.
pub fn quality(c: u64, a: u64, l: u64) -> u64 {
    let (c, a, l) = (c.min(ONE), a.min(ONE), l.min(ONE));
    if c < CORRECTNESS_MIN {
        return 0;
    }
    times(times(times(c, c), a), (ONE + l) / 2)
}

/// One epoch's step of the score towards `quality`; `None` is an unmeasured epoch after the grace.
///
/// Guarantees: the result lies between the old score and the quality (below the old score when
/// unmeasured) and never leaves `[0, ONE]`; steps down are rounded up, so that they arrive.
pub fn update(score: u64, quality: Option<u64>, gate_failed: bool) -> u64 {
    let score = score.min(ONE);
    match quality.map(|quality| quality.min(ONE)) {
        None => score - score.div_ceil(64),
        Some(quality) if quality >= score => score + (quality - score) / 16,
        Some(quality) => score - (score - quality).div_ceil(if gate_failed { 4 } else { 8 }),
    }
}

/// Latency score: `ONE` at or below `low`, zero at or above `high`, linear between. Same units.
pub fn latency(latency: u64, low: u64, high: u64) -> u64 {
    if latency <= low {
        return ONE;
    }
    if latency >= high {
        return 0;
    }
    let share = u128::from(ONE) * u128::from(high - latency) / u128::from(high - low);
    u64::try_from(share).expect("a share is at most ONE")
}

/// Trust (BK-9): the share of a provider's claims that its counterparties signed. `b0` is the deposit of one
/// agreement. Trust is shown and used for credit, and is never part of quality.
pub fn books(signed: u128, disputed: u128, b0: u128) -> u64 {
    let good = U256::from(b0) + U256::from(signed);
    let all = good + U256::from(disputed);
    if all.is_zero() {
        return ONE;
    }
    (U256::from(ONE) * good / all).try_into().expect("a share is at most ONE")
}
