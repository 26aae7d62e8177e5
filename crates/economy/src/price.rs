//! A class of use whose price follows utilisation, and consumers that follow the price.
//!
//! Demand has constant elasticity in the price: with `p = p_min e^(x/f)`, demand is
//! `D e^(-elasticity (x - x0)/f)`, which the rules' own integer exponential computes.

use posync_protocol::{
    amount::ONE,
    economics::price::{self, fake_exponential},
};

/// Capacity of an epoch, in units of the class.
pub(crate) const CAPACITY: u128 = 1 << 50;
/// The least price, in grains per 2^20 units.
pub(crate) const PRICE_MIN: u128 = 1_000_000;

/// The price controller of one class.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PostedPrice {
    /// Accumulated excess of use over the target.
    pub excess: u64,
    /// Price of the next epoch, in grains per 2^20 units.
    pub price: u128,
    /// Smoothed price, which moves a small step each epoch.
    pub slow: u128,
    /// Capacity per epoch, in units.
    pub capacity: u128,
    bucket: Option<u128>,
    target: u64,
    fraction: u64,
}

impl PostedPrice {
    /// A flow class at `excess`, with a bucket filled by use at the target and a slow price equal
    /// to the posted price.
    pub(crate) fn flow(excess: u64) -> Self {
        let price = price::posted(PRICE_MIN, excess, price::FRACTION_FLOW);
        let bucket = CAPACITY / 2 * 7;
        Self {
            excess,
            price,
            slow: price,
            capacity: CAPACITY,
            bucket: Some(bucket),
            target: price::TARGET_FLOW,
            fraction: price::FRACTION_FLOW,
        }
    }

    /// The same class without a bucket: settled units count at once.
    pub(crate) fn bare(self) -> Self {
        Self { bucket: None, ..self }
    }

    /// Closes an epoch in which `settled` units were redeemed.
    pub(crate) fn close(&mut self, settled: u128) {
        let used = match &mut self.bucket {
            Some(bucket) => {
                let (used, rest) = price::bucket_next(*bucket, settled);
                *bucket = rest;
                used
            }
            None => settled,
        };
        self.excess = price::excess_next(self.excess, used, self.capacity, self.target, self.fraction);
        self.price = price::posted(PRICE_MIN, self.excess, self.fraction);
        self.slow = price::slow_next(self.slow, self.price);
    }
}

/// Units that consumers want at `excess` if they want `usual` at `origin`. `elasticity` is in hundredths.
pub(crate) fn demand(usual: u128, origin: u64, excess: u64, elasticity: u64) -> u128 {
    let power = u128::from(elasticity) * u128::from(excess.abs_diff(origin)) / 100;
    let fraction = u128::from(price::FRACTION_FLOW);
    if excess <= origin {
        return fake_exponential(usual, power, fraction);
    }
    let scale = u128::from(ONE) * u128::from(ONE);
    let shrunk = fake_exponential(scale, power, fraction);
    posync_protocol::amount::mul_div(usual, scale, shrunk).expect("at most the usual demand")
}

/// Excess from which experiments start in equilibrium: the price is `e^6` times the least.
pub(crate) const ORIGIN: u64 = 6 * price::FRACTION_FLOW;

/// Prices of `epochs` epochs after demand doubled at once. Consumers see the price of `lag` epochs ago.
pub(crate) fn respond(elasticity: u64, lag: usize, bucket: bool, epochs: usize) -> Vec<u128> {
    let class = PostedPrice::flow(ORIGIN);
    let mut class = if bucket { class } else { class.bare() };
    let mut seen = vec![class.excess; lag + 1];
    let mut prices = vec![class.price];
    for _ in 0..epochs {
        let wanted = demand(CAPACITY, ORIGIN, seen[0], elasticity);
        class.close(wanted);
        seen.rotate_left(1);
        seen[lag] = class.excess;
        prices.push(class.price);
    }
    prices
}

/// The highest price over the lowest of the last `tail` epochs, in parts per billion.
pub(crate) fn swing(prices: &[u128], tail: usize) -> u64 {
    let tail = &prices[prices.len() - tail..];
    let (low, high) = (tail.iter().min().expect("some"), tail.iter().max().expect("some"));
    u64::try_from(high * u128::from(ONE) / (*low).max(1)).unwrap_or(u64::MAX)
}

/// Posted and slow prices when the same use is redeemed every `every` epochs. Use follows the price
/// with elasticity one.
pub(crate) fn redeemed_every(every: usize, epochs: usize) -> (Vec<u128>, Vec<u128>) {
    let mut class = PostedPrice::flow(ORIGIN);
    let (mut waiting, mut prices, mut slow) = (0, vec![class.price], vec![class.slow]);
    for epoch in 1..=epochs {
        waiting += demand(CAPACITY / 2, ORIGIN, class.excess, 100);
        let settled = if epoch % every == 0 { std::mem::take(&mut waiting) } else { 0 };
        class.close(settled);
        prices.push(class.price);
        slow.push(class.slow);
    }
    (prices, slow)
}
