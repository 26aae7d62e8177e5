//! Two ways to share a pool among weights, with their guarantees.
//!
//! | | sum of shares | carry | pool grows: anyone worse off | splitting an identity gains |
//! | --- | --- | --- | --- | --- |
//! | [`floor_carry`] | pool - carry | below the number of weights | never | never |
//! | [`largest_remainder`] | pool | none | possible (the Alabama paradox) | up to one unit a part |
//!
//! The books use `floor_carry`; `largest_remainder` is for splits that must be exact at once.

use alloc::vec::Vec;
use ruint::aliases::{U256, U512};

fn total(weights: &[u128]) -> U256 {
    // Cannot overflow: fewer than 2^128 weights, each below 2^128.
    weights.iter().map(|weight| U256::from(*weight)).fold(U256::ZERO, |sum, weight| sum + weight)
}

/// `floor(pool * weight / total)` and the remainder; `weight <= total`, `total > 0`.
fn share(pool: u128, weight: u128, total: U256) -> (u128, U256) {
    let (quotient, remainder) = (U256::from(pool) * U256::from(weight)).div_rem(total);
    (quotient.try_into().expect("a share is at most the pool"), remainder)
}

/// Shares `pool` in proportion to `weights`, each share floored; the rest is the carry.
///
/// Guarantees: shares and carry sum to `pool`; the carry is below the number of weights (all of `pool` if
/// every weight is zero); equal weights get equal shares, a larger weight never less; a larger pool lowers no
/// share; splitting one weight in parts never gains.
pub fn floor_carry(pool: u128, weights: &[u128]) -> (Vec<u128>, u128) {
    let total = total(weights);
    if total.is_zero() {
        return (alloc::vec![0; weights.len()], pool);
    }
    let shares: Vec<u128> = weights.iter().map(|weight| share(pool, *weight, total).0).collect();
    let paid: u128 = shares.iter().sum();
    (shares, pool - paid)
}

/// Shares `pool` exactly: floors, then one unit each to the largest remainders (Hamilton's
/// method; ties: larger weight, then lower index). All zero if every weight is zero.
///
/// Guarantees: the shares sum to `pool`; each is its exact share rounded down or up.
pub fn largest_remainder(pool: u128, weights: &[u128]) -> Vec<u128> {
    let total = total(weights);
    if total.is_zero() {
        return alloc::vec![0; weights.len()];
    }
    let rows: Vec<(u128, U256)> = weights.iter().map(|weight| share(pool, *weight, total)).collect();
    let mut shares: Vec<u128> = rows.iter().map(|row| row.0).collect();
    let left = pool - shares.iter().sum::<u128>();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|a, b| rows[*b].1.cmp(&rows[*a].1).then(weights[*b].cmp(&weights[*a])).then(a.cmp(b)));
    let units = usize::try_from(left).expect("fewer units are left than there are weights");
    for index in &order[..units] {
        shares[*index] += 1;
    }
    shares
}

/// `floor(a * b / c)`, at most `u128::MAX`; zero when `c` is zero.
pub(crate) fn mul_div_saturating(a: u128, b: u128, c: u128) -> u128 {
    if c == 0 {
        return 0;
    }
    (U512::from(a) * U512::from(b) / U512::from(c)).try_into().unwrap_or(u128::MAX)
}
