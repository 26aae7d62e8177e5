//! The cost of evidence: shares of stake in parts per billion.
//!
//! Equivocation is correlated: each of many simultaneous offenders loses more (the GRANDPA/BABE rule), with a
//! floor of 5 %.

use crate::amount::{ONE, mul_div};
use ruint::aliases::U256;

/// The least share that equivocation costs; taken at once, before the number of offenders is known.
pub const EQUIVOCATION_MIN: u64 = ONE / 20;
/// The reporter's part of a slash is the slash divided by this: a quarter.
pub const REPORTER_DIVISOR: u128 = 4;

/// The share `parts` of a stake, floored; `None` beyond 128 bits, which `parts` up to [`ONE`] never reach.
pub fn of(stake: u128, parts: u64) -> Option<u128> {
    mul_div(stake, parts.into(), ONE.into())
}

fn parts(value: U256) -> u64 {
    value.min(U256::from(ONE)).try_into().expect("clamped to ONE")
}

/// The share for `k` silent of `n`: `min(1, 3 (k - (n/10 + 1)) / n) * 7 %`. Kept as a published example:
/// being offline costs no stake here.
pub fn unresponsive(n: u64, offenders: u64) -> u64 {
    if n == 0 {
        return 0;
    }
    let beyond = offenders.saturating_sub(n / 10 + 1);
    parts(U256::from(3) * U256::from(beyond) * U256::from(ONE) / U256::from(n)) * 7 / 100
}

/// The share for `k` equivocating of `n`: `max(5 %, min(1, (3k / n)^2))`.
pub fn equivocation(n: u64, offenders: u64) -> u64 {
    if n == 0 {
        return ONE;
    }
    let tripled = U256::from(3) * U256::from(offenders);
    parts(tripled * tripled * U256::from(ONE) / (U256::from(n) * U256::from(n))).max(EQUIVOCATION_MIN)
}
