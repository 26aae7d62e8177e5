//! The usage subsidy, with the names of the protocol's `economics::pool`.

use posync_protocol::{
    amount::{ONE, mul_div},
    economics::split::floor_carry,
};

/// What a pool pays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Payout {
    /// One for each weight.
    pub(crate) shares: Vec<u128>,
    /// Taken from the reserve.
    pub(crate) drawn: u128,
    /// Left for the next epoch.
    pub(crate) carry: u128,
}

fn part(whole: u128, share: u64) -> u128 {
    mul_div(whole, share.min(ONE).into(), ONE.into()).expect("a part is at most the whole")
}

/// `(emission, pool)` of an epoch: `min(gamma x emission, kappa x beta x weight)`.
pub(crate) fn usage_pool(
    reserve: u128,
    divisor: u128,
    gamma: u64,
    kappa: u64,
    beta: u64,
    weight: u128,
) -> (u128, u128) {
    let emission = reserve / divisor.max(1);
    (emission, part(emission, gamma).min(part(part(weight, beta), kappa)))
}

/// `floor(base x least quality)` of the measured epochs among the last eight; none: zero.
pub(crate) fn weight(base: u128, qualities: &[u64]) -> u128 {
    qualities.iter().min().map_or(0, |least| part(base, *least))
}

/// Pays `target` to the weights, the carry first and the rest from the reserve.
pub(crate) fn pay_pool(target: u128, carry: u128, weights: &[u128]) -> Payout {
    if weights.iter().all(|weight| *weight == 0) {
        return Payout { shares: vec![0; weights.len()], drawn: 0, carry };
    }
    let used = target.min(carry);
    let (shares, left) = floor_carry(target, weights);
    Payout { shares, drawn: target - used, carry: carry - used + left }
}
