//! Posted prices: one record per class, moved once per epoch by the use of a closed one.

use crate::{
    Broken,
    economics::price,
    ledger::{Event, Touched, Working},
    limits::Parameters,
    record::{CLASSES, Closing, Key, Market},
};

/// A posted price and the slow one that follows it, in grains per 2^20 units; an agreement keeps both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The price that consumers pay.
    pub price: u64,
    /// The slow price; the provider's base is at the lower of the two.
    pub slow: u64,
}

/// The keys of the market records of all classes.
pub(super) fn keys() -> impl Iterator<Item = Key> {
    (0..CLASSES).map(|class| Market::key(class as u8))
}

/// Names the market records that an opening reads.
pub(crate) fn touches(touched: &mut Touched) {
    touched.readable.extend(keys());
}

fn least(class: usize, parameters: &Parameters) -> u128 {
    [parameters.price_storage, parameters.price_egress, parameters.price_gas].get(class).copied().unwrap_or(0)
}

/// Prices are locked in agreements as 64 bits.
fn saturate(price: u128) -> u64 {
    u64::try_from(price).unwrap_or(u64::MAX)
}

/// The class's record, or the genesis prices while there is none.
fn of(found: Option<Market>, class: usize, parameters: &Parameters) -> Market {
    let genesis = saturate(least(class, parameters));
    found.unwrap_or(Market { price: genesis, slow: genesis, ..Market::default() })
}

/// The pair posted for a class: its record, or the genesis price while there is none (MK-1).
pub fn pair(found: Option<Market>, class: usize, parameters: &Parameters) -> Pair {
    let market = of(found, class, parameters);
    Pair { price: market.price, slow: market.slow }
}

/// The class's record after an epoch (MK-2, MK-3): an eighth of the bucket of paid units counts as use.
fn next(market: Market, class: usize, sums: &Closing, parameters: &Parameters) -> Market {
    let (used, bucket) = price::bucket_next(market.bucket, sums.used[class]);
    let (target, fraction) = (price::TARGET_FLOW, price::FRACTION_FLOW);
    let capacity = sums.capacity[class];
    let excess = price::excess_next(market.excess, used, capacity, target, fraction);
    let posted = saturate(price::posted(least(class, parameters), excess, fraction));
    let slow = saturate(price::slow_next(market.slow.into(), posted.into()));
    Market { price: posted, slow, excess, bucket, capacity, used, epoch: sums.epoch }
}

/// Moves every class's price by the epoch's use; the new prices hold from this block on.
pub(super) fn move_prices(working: &mut Working<'_>, sums: &Closing) -> Result<(), Broken> {
    for (class, key) in keys().enumerate() {
        let parameters = &working.context.parameters;
        let market = next(of(working.get(key)?, class, parameters), class, sums, parameters);
        let Market { price, slow, .. } = market;
        working.put(key, &market)?;
        working.events.push(Event::Priced { epoch: sums.epoch, class: class as u8, price, slow });
    }
    Ok(())
}
