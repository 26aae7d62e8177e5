//! Attacks on prices by providers with a large share of a class.

use crate::{
    price::{CAPACITY, ORIGIN, PostedPrice, demand},
    row::Row,
    world::Terms,
};
use posync_protocol::amount::{ONE, UNIT, mul_div};

/// The price at which a provider's base is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    /// The lower of posted and slow price: the rule.
    Lower,
    /// The posted price: a mutant.
    Posted,
}

pub(super) fn value(units: u128, price: u128) -> i128 {
    i128::try_from(mul_div(units, price, UNIT).expect("below 2^128")).expect("below the supply")
}

pub(super) fn part(grains: i128, share: u64) -> i128 {
    grains * i128::from(share) / i128::from(ONE)
}

/// Share of its base that a provider keeps, with the subsidy at full quality, in parts per billion.
pub(super) fn kept() -> u64 {
    let Terms { burn, committee, kappa, .. } = Terms::DEFAULT;
    ONE - burn - committee
        + u64::try_from(u128::from(burn) * u128::from(kappa) / u128::from(ONE)).expect("a ratio")
}

/// A plan to raise the posted price by buying from oneself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pump {
    /// The pumping provider's share of the class, parts per billion.
    pub share: u64,
    /// Elasticity of demand, in hundredths.
    pub elasticity: u64,
    /// The price at which the base is settled.
    pub base: Base,
    /// Epochs of buying. As many follow, in which the price comes down.
    pub epochs: u64,
}

/// Profit per epoch of buying enough from oneself to keep the price up by about a tenth, in parts
/// per billion of the provider's honest income.
pub(crate) fn pump(plan: Pump) -> i128 {
    let usual = CAPACITY / 2;
    let mut class = PostedPrice::flow(ORIGIN);
    let honest = part(part(value(usual, class.price), plan.share), kept());
    let goal = ORIGIN + posync_protocol::economics::price::FRACTION_FLOW / 10;
    let mut profit = 0;
    for epoch in 0..2 * plan.epochs {
        let wanted = demand(usual, ORIGIN, class.excess, plan.elasticity);
        let missing = usual.saturating_sub(wanted);
        let push = if class.excess < goal { usual / 20 } else { 0 };
        let bought = if epoch < plan.epochs { missing + push } else { 0 };
        let at = match plan.base {
            Base::Lower => class.price.min(class.slow),
            Base::Posted => class.price,
        };
        profit += part(part(value(wanted, at), plan.share), kept()) - honest;
        profit += part(value(bought, at), kept()) - value(bought, class.price);
        class.close(wanted + bought);
    }
    profit / i128::from(2 * plan.epochs) * i128::from(ONE) / honest
}

/// Profit per epoch of a provider of `share` that withholds a tenth of its capacity and loses that
/// part of its sales, at the price reached. In parts per billion of its honest income. `supply` is
/// the elasticity of the others' supply, in hundredths.
pub(crate) fn withhold(share: u64, elasticity: u64, supply: u64) -> i128 {
    let usual = CAPACITY / 2;
    let mut class = PostedPrice::flow(ORIGIN);
    let honest = part(part(value(usual, class.price), share), kept());
    let held_back = part(i128::try_from(CAPACITY).expect("small") / 10, share);
    let (mut last, epochs) = (0, 1_200);
    for _ in 0..epochs {
        // The others add capacity as the price rises: e^(supply (x - x0)/f).
        let others =
            demand(CAPACITY - CAPACITY * u128::from(share) / u128::from(ONE), class.excess, ORIGIN, supply);
        let others = others.max(CAPACITY - CAPACITY * u128::from(share) / u128::from(ONE));
        let mine =
            CAPACITY * u128::from(share) / u128::from(ONE) - u128::try_from(held_back).expect("positive");
        class.capacity = others + mine;
        let wanted = demand(usual, ORIGIN, class.excess, elasticity).min(class.capacity);
        let sold = mul_div(wanted, mine, class.capacity).expect("below the capacity");
        last = part(value(sold, class.price.min(class.slow)), kept()) - honest;
        class.close(wanted);
    }
    last * i128::from(ONE) / honest
}

/// Profit of a pump with share and elasticity in hundredths.
fn shaped(share: u64, elasticity: u64, base: Base, epochs: u64) -> i128 {
    pump(Pump { share: ONE / 100 * share, elasticity, base, epochs })
}

/// The rows of this module. Profits are in parts per billion of the provider's honest income.
pub(crate) fn rows() -> Vec<Row> {
    let of_income = |row: Row| Row { unit: "ppb of income", ..row };
    let rows = [
        Row::attack(
            "A7 price pump",
            "share 0.33, elasticity 0.25, 64 epochs",
            shaped(33, 25, Base::Lower, 64),
        ),
        Row::attack(
            "A7 price pump",
            "share 0.10, elasticity 0.5, 64 epochs",
            shaped(10, 50, Base::Lower, 64),
        ),
        Row::published(
            "A7 price pump, inelastic",
            "share 0.33, elasticity 0.1",
            shaped(33, 10, Base::Lower, 64),
        ),
        Row::attack("A8 withholding", "share 0.2, elasticity 0.25", withhold(ONE / 5, 25, 0)),
        Row::attack("A8 withholding", "share 0.5, elasticity 0.25, others' 0.5", withhold(ONE / 2, 25, 50)),
        Row::published(
            "A7 price pump, long",
            "share 0.33, elasticity 0.25, 512 epochs",
            shaped(33, 25, Base::Lower, 512),
        ),
        Row::published(
            "A8 withholding, market power",
            "share 0.5, elasticity 0.25",
            withhold(ONE / 2, 25, 0),
        ),
        Row::mutant(
            "mutant: base at the posted price",
            "share 0.33, elasticity 0.25",
            shaped(33, 25, Base::Posted, 64),
        ),
    ];
    rows.map(of_income).into()
}
