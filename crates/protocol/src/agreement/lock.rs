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
    Metered, Units,
    amount::{UNIT, mul_div, mul_div_up},
    books::Pair,
    record::{Agreement, Before, Lock, Usage},
};

/// The prices in force for vouchers: those of the last top-up that raised them, or those of the opening.
pub fn lock_of(agreement: &Agreement, usage: &Usage) -> Lock {
    let prices = agreement.prices.metered();
    let before = prices.map(|pair| Before { price: pair.price, base: pair.base() });
    usage.lock.unwrap_or(Lock { prices, from: Units::ZERO, before })
}

/// The prices that a top-up locks. For each class, the posted pair holds from where the money in the reserve
/// ends, if its price is above the one in force (AG-8). `None` if no price rises: nothing changes. `usage` is
/// that before the top-up.
pub fn raise(agreement: &Agreement, usage: &Usage, posted: Metered<Pair>) -> Option<Lock> {
    let (before, left) = (lock_of(agreement, usage), usage.voucher_reserve.grains());
    let raised = before.classes().zip(usage.redeemed.zip(posted));
    let raised = raised.map(|(lock, (used, posted))| lock.raised(used, left, posted));
    let prices = raised.map(|lock| lock.posted);
    let lock = Lock { prices, from: raised.map(|lock| lock.from), before: raised.map(|lock| lock.before) };
    let price = |pair: Pair| pair.price;
    (prices.map(price) != before.prices.map(price)).then_some(lock)
}

impl Lock {
    /// The price of cumulative units in grains; each class is floored alone.
    pub(super) fn value(&self, units: Units) -> u128 {
        let values = self.classes().zip(units).map(|(lock, units)| lock.prices().value(units));
        values.egress.saturating_add(values.gas)
    }

    /// The provider's base for cumulative units in grains: their value at the lower of price and slow price.
    pub(super) fn base(&self, units: Units) -> u128 {
        let values = self.classes().zip(units).map(|(lock, units)| lock.bases().value(units));
        values.egress.saturating_add(values.gas)
    }

    /// The cumulative egress bytes that `grains` pay for beyond `used`, if no gas is redeemed.
    pub fn egress_reach(&self, used: u64, grains: u128) -> u64 {
        self.classes().egress.prices().reach(used, grains)
    }

    /// The grains that cumulative `gas` costs beyond `used`.
    pub fn gas_cost(&self, used: u64, gas: u64) -> u128 {
        let prices = self.classes().gas.prices();
        prices.value(gas).saturating_sub(prices.value(used))
    }

    /// The points on the way to `units` (egress and gas beyond those redeemed, in proportion) at which a
    /// price rises.
    pub(super) fn bends(&self, usage: &Usage, units: Units) -> [Option<Units>; 2] {
        let (Units { egress, gas }, used) = (units, usage.redeemed);
        let to =
            |from: u64, used: u64, units: u64| from.checked_sub(used).filter(|to| *to > 0 && *to < units);
        let along = |units: u64, part: u64, whole: u64| {
            let units = mul_div(units.into(), part.into(), whole.into());
            units.and_then(|units| u64::try_from(units).ok()).unwrap_or_default()
        };
        let by_egress = to(self.from.egress, used.egress, egress);
        let by_egress = by_egress.map(|to| Units { egress: to, gas: along(gas, to, egress) });
        let by_gas = to(self.from.gas, used.gas, gas);
        let by_gas = by_gas.map(|to| Units { egress: along(egress, to, gas), gas: to });
        [by_egress, by_gas]
    }

    /// The lock of each class.
    fn classes(&self) -> Metered<ClassLock> {
        let each = self.from.zip(self.before.zip(self.prices));
        each.map(|(from, (before, posted))| ClassLock { from, before, posted })
    }
}

/// The lock of one class.
#[derive(Clone, Copy)]
struct ClassLock {
    from: u64,
    before: Before,
    posted: Pair,
}

impl ClassLock {
    const fn prices(self) -> Steps {
        Steps { from: self.from, before: self.before.price, beyond: self.posted.price }
    }

    const fn bases(self) -> Steps {
        Steps { from: self.from, before: self.before.base, beyond: self.posted.base() }
    }

    /// The lock after a top-up at `posted`: the new price holds from where `left` grains no longer pay for
    /// units beyond `used`. If two prices hold up to there, their mean replaces them, rounded up: the sum
    /// stays the same.
    fn raised(self, used: u64, left: u128, posted: Pair) -> Self {
        if posted.price <= self.posted.price {
            return self;
        }
        let (prices, bases) = (self.prices(), self.bases());
        // At a price of zero no money was paid in for units ahead.
        let from = if self.posted.price == 0 { used } else { prices.reach(used, left) };
        let price = prices.mean(used, from);
        Self {
            from,
            before: Before { price, base: bases.mean(used, from).min(price) },
            posted: Pair { price: posted.price, slow: posted.slow.max(self.posted.base()) },
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
