//! The usage subsidy: the amount that an epoch draws from the reserve, and its division among providers.
//!
//! ```text
//!   W = sum of weights      U = min( floor(usage share x E), floor(kappa x floor(beta x W)) )
//!   share_i = floor(U x w_i / W)            what rounding leaves stays in the carry, used first
//! ```
//!
//! The cap is on the *weighted* base and lies below the burn of that base, so paying oneself always costs
//! more than it draws (BK-5). [`pay_pool`] splits in one piece; the ledger does the same in slices, with
//! [`share`] for each provider.

use super::split::{floor_carry, largest_remainder, mul_div_saturating};
use crate::amount::ONE;
use alloc::vec::Vec;
use ruint::aliases::U256;

/// The payment of a pool, in grains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payout {
    /// One share for each weight, in the same order.
    pub shares: Vec<u128>,
    /// Grains drawn from the reserve.
    pub drawn: u128,
    /// Grains left for the next epoch.
    pub carry: u128,
}

/// `(emission, pool)` of an epoch: the emission is `reserve / divisor`, the pool the lesser of its
/// usage share `gamma` and `kappa` of the burn `beta` of all weights; parts per billion.
///
/// Guarantees: `pool <= emission <= reserve`; `pool <= kappa * beta * weight`; no weight, no pool.
pub fn usage_pool(
    reserve: u128,
    divisor: u128,
    gamma: u64,
    kappa: u64,
    beta: u64,
    weight: u128,
) -> (u128, u128) {
    let part = |whole: u128, share: u64| mul_div_saturating(whole, share.min(ONE).into(), ONE.into());
    let emission = reserve / divisor.max(1);
    let cap = part(part(weight, beta), kappa);
    (emission, part(emission, gamma).min(cap))
}

/// The weight of a provider in the split: `floor(base x least quality)`. `qualities` are those of the
/// measured epochs among the last eight; without any, the weight is zero.
///
/// Guarantees: at most `base`; never less for a larger base or a better quality.
pub fn weight(base: u128, qualities: &[u64]) -> u128 {
    let least = qualities.iter().min().map_or(0, |least| (*least).min(ONE));
    mul_div_saturating(base, least.into(), ONE.into())
}

/// The share of one weight: `floor(pool x weight / total)`; zero if `total` is zero.
///
/// Guarantees, for weights that sum to `total`: the shares sum to at most `pool`, and to more than `pool`
/// less one for each weight; zero for zero; equal for equal, never less for more.
pub fn share(pool: u128, weight: u128, total: u128) -> u128 {
    mul_div_saturating(pool, weight.min(total), total)
}

/// Pays `target` to the weights, from the carry first and the rest from the reserve. If all weights are zero,
/// nothing is drawn or paid.
///
/// Guarantees: the shares and the new carry sum to the old carry and the drawn grains; the shares sum to at
/// most `target`; a larger target lowers no share; scaling all weights changes nothing.
pub fn pay_pool(target: u128, carry: u128, weights: &[u128]) -> Payout {
    if weights.iter().all(|weight| *weight == 0) {
        return Payout { shares: alloc::vec![0; weights.len()], drawn: 0, carry };
    }
    let used = target.min(carry);
    let (shares, left) = floor_carry(target, weights);
    Payout { shares, drawn: target - used, carry: carry - used + left }
}

/// The division of a capacity pool `pool` among classes: by settled fees and, so that a class without fees
/// yet gets its part, by the prior `F0 = up(2 x pool / beta)` in proportion to `prior_shares` (parts per
/// billion). Returns the parts and `F0`. No class has such a pool at launch.
///
/// Guarantees: the parts sum to `pool` unless all weights are zero.
pub fn class_split(pool: u128, fees: &[u128], prior_shares: &[u64], beta: u64) -> (Vec<u128>, u128) {
    let doubled = U256::from(pool) * U256::from(2 * ONE);
    let prior = doubled.div_ceil(U256::from(beta.max(1)));
    let prior = if pool == 0 { 1 } else { prior.try_into().unwrap_or(u128::MAX) };
    let weight = |(fee, share): (&u128, &u64)| {
        let own = fee.saturating_mul(ONE.into());
        own.saturating_add(u128::from(*share).saturating_mul(prior))
    };
    let weights: Vec<u128> = fees.iter().zip(prior_shares).map(weight).collect();
    (largest_remainder(pool, &weights), prior)
}
