//! Prices follow utilisation: an exponential of the accumulated excess over a target.
//!
//! ```text
//!   paid units    -> bucket -> use (an eighth leaves per epoch) -> excess x -> p = p_min * e^(x/f)
//!                                                                         slow p̄ walks towards p
//! ```
//!
//! The exponential is EIP-4844's `fake_exponential`, an integer Taylor sum
//! (<https://eips.ethereum.org/EIPS/eip-4844>). The bucket smooths irregular redemption, so that its timing
//! cannot steer the price.

use super::split::mul_div_saturating;
use crate::amount::ONE;
use ruint::aliases::U512;

/// Update fraction of every class; all classes are flows. At full use a price grows 12.5 % an epoch.
pub const FRACTION_FLOW: u64 = 4_245_093_508;
/// Target utilisation of every class, parts per billion.
pub const TARGET_FLOW: u64 = ONE / 2;
/// The excess is at most this many update fractions (prices up to 2^92 times the least one).
pub const EXCESS_FRACTIONS_MAX: u64 = 64;

/// `factor * e^(numerator / denominator)`, as the integer Taylor sum of EIP-4844, at most
/// `u128::MAX`. A zero denominator counts as one.
///
/// Ends after at most a few hundred terms: either the terms reach zero or the sum reaches its bound.
pub fn fake_exponential(factor: u128, numerator: u128, denominator: u128) -> u128 {
    let denominator = U512::from(denominator.max(1));
    let limit = U512::from(u128::MAX) * denominator;
    let numerator = U512::from(numerator);
    let mut term = U512::from(factor) * denominator;
    let (mut sum, mut i) = (U512::ZERO, 1u64);
    while !term.is_zero() {
        sum += term;
        if sum > limit {
            return u128::MAX;
        }
        // term <= sum <= 2^256 here and numerator < 2^128, so the product fits 512 bits.
        term = term * numerator / (denominator * U512::from(i));
        i += 1;
    }
    (sum / denominator).try_into().unwrap_or(u128::MAX)
}

/// Adds `settled` to the bucket and takes the eighth that counts as this epoch's use: `(use, bucket')`.
pub fn bucket_next(bucket: u128, settled: u128) -> (u128, u128) {
    let bucket = bucket.saturating_add(settled);
    let used = bucket / 8;
    (used, bucket - used)
}

/// The next excess: `x + ONE * min(used, capacity) / capacity - target`, within `[0, 64 * fraction]`. Without
/// capacity the excess stays.
pub fn excess_next(excess: u64, used: u128, capacity: u128, target: u64, fraction: u64) -> u64 {
    if capacity == 0 {
        return excess;
    }
    let utilisation = mul_div_saturating(u128::from(ONE), used.min(capacity), capacity);
    let next = (u128::from(excess) + utilisation).saturating_sub(u128::from(target));
    let most = u128::from(EXCESS_FRACTIONS_MAX) * u128::from(fraction);
    u64::try_from(next.min(most)).unwrap_or(u64::MAX)
}

/// The posted price at a given excess.
pub fn posted(price_min: u128, excess: u64, fraction: u64) -> u128 {
    fake_exponential(price_min, u128::from(excess), u128::from(fraction))
}

/// The slow price after one step of `up(|p - p̄| / 128)` towards the posted one; rounding up makes it arrive.
pub fn slow_next(slow: u128, posted: u128) -> u128 {
    let step = posted.abs_diff(slow).div_ceil(128);
    if posted >= slow { slow + step } else { slow - step }
}
