//! What evidence costs: shares of stake in parts per billion.
//!
//! Equivocation is correlated: many offenders at once lose more each (the GRANDPA/BABE rule),
//! with a floor of 5 %.

use crate::amount::{ONE, mul_div};
use ruint::aliases::U256;

/// The least share that equivocation takes; taken at once, before it is known how many did it.
pub const EQUIVOCATION_MIN: u64 = ONE / 20;
/// The reporter's part of a slash is the slash divided by this: a quarter.
pub const REPORTER_DIVISOR: u128 = 4;

/// `parts` of a stake, floored; `None` beyond 128 bits, which `parts` up to [`ONE`] never are.
pub fn of(stake: u128, parts: u64) -> Option<u128> {
    mul_div(stake, parts.into(), ONE.into())
}

fn parts(value: U256) -> u64 {
    value.min(U256::from(ONE)).try_into().expect("clamped to ONE")
}

/// `min(1, 3 (k - (n/10 + 1)) / n) * 7 %`, of `k` silent among `n`. Kept as a published example:
/// being offline takes nothing here.
pub fn unresponsive(n: u64, offenders: u64) -> u64 {
    if n == 0 {
        return 0;
    }
    let beyond = offenders.saturating_sub(n / 10 + 1);
    parts(U256::from(3) * U256::from(beyond) * U256::from(ONE) / U256::from(n)) * 7 / 100
}

/// `max(5 %, min(1, (3k / n)^2))`, of `k` equivocating among `n`.
pub fn equivocation(n: u64, offenders: u64) -> u64 {
    if n == 0 {
        return ONE;
    }
    let tripled = U256::from(3) * U256::from(offenders);
    parts(tripled * tripled * U256::from(ONE) / (U256::from(n) * U256::from(n))).max(EQUIVOCATION_MIN)
}
