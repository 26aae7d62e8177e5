//! The prices of vouchers: one for the units that the money paid in covers, another beyond.
//!
//! ```text
//!   price          +--------- price, slow: of the top-up that raised it
//!   before +-------+
//!          |       |
//!   units  +-------+--------->
//!         used    from: as far as the reserve paid before that top-up
//! ```
//!
//! Invariants
//! 1. After a top-up, the reserve pays for the same units as before, at the same price in all and at no lower
//!    base (AG-8).
//! 2. Neither price nor base ever falls, from one raise to the next and from one unit to the next.
//! 3. Each class counts alone, so that the price of cumulative units depends on no order (VO-7).

use crate::{
    amount::{UNIT, mul_div, mul_div_up},
    books::Pair,
    record::{Agreement, Lock, Usage},
};

/// The prices in force for vouchers: those of the last top-up that raised them, or those of the opening.
pub fn lock_of(agreement: &Agreement, usage: &Usage) -> Lock {
    let Agreement { egress_price, egress_slow, gas_price, gas_slow, .. } = *agreement;
    let opening = Lock {
        egress_price,
        egress_slow,
        gas_price,
        gas_slow,
        egress: 0,
        gas: 0,
        egress_before: egress_price,
        egress_base_before: egress_price.min(egress_slow),
        gas_before: gas_price,
        gas_base_before: gas_price.min(gas_slow),
    };
    usage.lock.unwrap_or(opening)
}

/// The prices that a top-up locks. For each class, the posted pair holds from where the money in the reserve
/// ends, if its price is above the one in force (AG-8). `None` if no price rises: nothing changes. `usage` is
/// that before the top-up.
pub fn raise(agreement: &Agreement, usage: &Usage, egress: Pair, gas: Pair) -> Option<Lock> {
    let (before, left) = (lock_of(agreement, usage), usage.voucher_reserve.grains());
    let [of_egress, of_gas] = before.classes();
    let (egress, gas) = (of_egress.raised(usage.egress, left, egress), of_gas.raised(usage.gas, left, gas));
    let lock = Lock {
        egress_price: egress.price,
        egress_slow: egress.slow,
        gas_price: gas.price,
        gas_slow: gas.slow,
        egress: egress.from,
        gas: gas.from,
        egress_before: egress.before,
        egress_base_before: egress.base_before,
        gas_before: gas.before,
        gas_base_before: gas.base_before,
    };
    let raised = (egress.price, gas.price) != (before.egress_price, before.gas_price);
    raised.then_some(lock)
}

impl Lock {
    /// The price of cumulative units in grains; each class is floored alone.
    pub(super) fn value(&self, egress: u64, gas: u64) -> u128 {
        let [of_egress, of_gas] = self.classes();
        of_egress.prices().value(egress).saturating_add(of_gas.prices().value(gas))
    }

    /// The provider's base for cumulative units in grains: their value at the lower of price and slow price.
    pub(super) fn base(&self, egress: u64, gas: u64) -> u128 {
        let [of_egress, of_gas] = self.classes();
        of_egress.bases().value(egress).saturating_add(of_gas.bases().value(gas))
    }

    /// The cumulative egress bytes that `grains` pay for beyond `used`, if no gas is redeemed.
    pub fn egress_reach(&self, used: u64, grains: u128) -> u64 {
        let [of_egress, _] = self.classes();
        of_egress.prices().reach(used, grains)
    }

    /// The grains that cumulative `gas` costs beyond `used`.
    pub fn gas_cost(&self, used: u64, gas: u64) -> u128 {
        let [_, of_gas] = self.classes();
        of_gas.prices().value(gas).saturating_sub(of_gas.prices().value(used))
    }

    /// The points on the way to `units` (egress and gas beyond those redeemed, in proportion) at which a
    /// price rises.
    pub(super) fn bends(&self, usage: &Usage, (egress, gas): (u64, u64)) -> [Option<(u64, u64)>; 2] {
        let to =
            |from: u64, used: u64, units: u64| from.checked_sub(used).filter(|to| *to > 0 && *to < units);
        let along = |units: u64, part: u64, whole: u64| {
            let units = mul_div(units.into(), part.into(), whole.into());
            units.and_then(|units| u64::try_from(units).ok()).unwrap_or_default()
        };
        let by_egress = to(self.egress, usage.egress, egress).map(|to| (to, along(gas, to, egress)));
        let by_gas = to(self.gas, usage.gas, gas).map(|to| (along(egress, to, gas), to));
        [by_egress, by_gas]
    }

    /// Splits the lock into its two classes: egress, then gas.
    fn classes(&self) -> [Class; 2] {
        let egress = Class {
            from: self.egress,
            before: self.egress_before,
            base_before: self.egress_base_before,
            price: self.egress_price,
            slow: self.egress_slow,
        };
        let gas = Class {
            from: self.gas,
            before: self.gas_before,
            base_before: self.gas_base_before,
            price: self.gas_price,
            slow: self.gas_slow,
        };
        [egress, gas]
    }
}

/// The lock of one class.
#[derive(Clone, Copy)]
struct Class {
    from: u64,
    before: u64,
    base_before: u64,
    price: u64,
    slow: u64,
}

impl Class {
    const fn prices(self) -> Steps {
        Steps { from: self.from, before: self.before, beyond: self.price }
    }

    fn bases(self) -> Steps {
        Steps { from: self.from, before: self.base_before, beyond: self.base() }
    }

    /// The base in force beyond `from`.
    fn base(self) -> u64 {
        self.price.min(self.slow)
    }

    /// The lock after a top-up at `posted`: the new price holds from where `left` grains no longer pay for
    /// units beyond `used`. If two prices hold up to there, their mean replaces them, rounded up: the sum
    /// stays the same.
    fn raised(self, used: u64, left: u128, posted: Pair) -> Self {
        if posted.price <= self.price {
            return self;
        }
        let (prices, bases) = (self.prices(), self.bases());
        // At a price of zero no money was paid in for units ahead.
        let from = if self.price == 0 { used } else { prices.reach(used, left) };
        let before = prices.mean(used, from);
        Self {
            from,
            before,
            base_before: bases.mean(used, from).min(before),
            price: posted.price,
            slow: posted.slow.max(self.base()),
        }
    }
}

/// A price per 2^20 units up to `from` cumulative units, and one beyond.
#[derive(Clone, Copy)]
struct Steps {
    from: u64,
    before: u64,
    beyond: u64,
}

impl Steps {
    /// The price of cumulative units.
    fn value(self, units: u64) -> u128 {
        let of = |price: u64, units: u64| mul_div(price.into(), units.into(), UNIT).unwrap_or(u128::MAX);
        let below = of(self.before, units.min(self.from));
        below.saturating_add(of(self.beyond, units.saturating_sub(self.from)))
    }

    /// The cumulative units that cost `grains` more than `used`, floored.
    fn reach(self, used: u64, grains: u128) -> u64 {
        let (all, first) = (self.value(used).saturating_add(grains), self.value(self.from));
        let reach = if all < first {
            most(self.before, all)
        } else {
            self.from.saturating_add(most(self.beyond, all.saturating_sub(first)))
        };
        reach.max(used)
    }

    /// The price at which the units from `used` to `to` cost as much as at their own prices, rounded up.
    fn mean(self, used: u64, to: u64) -> u64 {
        if to <= self.from {
            return self.before;
        }
        if used >= self.from {
            return self.beyond;
        }
        let rise = self.value(to).saturating_sub(self.value(used));
        let mean = mul_div_up(rise, UNIT, u128::from(to.saturating_sub(used)));
        let mean = mean.and_then(|mean| u64::try_from(mean).ok()).unwrap_or(self.beyond);
        mean.max(self.before).min(self.beyond)
    }
}

/// The units that `grains` buy at `price`, floored; unlimited at a price of zero.
fn most(price: u64, grains: u128) -> u64 {
    grains
        .saturating_mul(UNIT)
        .checked_div(price.into())
        .and_then(|units| u64::try_from(units).ok())
        .unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reaches_to_the_rise_of_the_price_is_all_below_it() {
        let unit = u64::try_from(UNIT).expect("2^30");
        // A unit and a half cost one grain; so does the half unit that is left.
        let from = unit + unit / 2;
        let steps = Steps { from, before: 1, beyond: 2 };
        assert_eq!(steps.reach(0, 1), from);
        assert_eq!(steps.reach(unit, 0), from);
        assert_eq!((steps.reach(0, 0), steps.reach(0, 3)), (0, from + unit));
    }
}
