//! Posted prices: one record per class, moved once per epoch by the use of a closed one.

use crate::{
    Broken, Class,
    economics::price,
    event::Event,
    limits::Parameters,
    record::{Closing, Market, Pair},
    working::{Touched, Working},
};

/// Names the market records that an opening reads.
pub(crate) fn touches(touched: &mut Touched) {
    touched.readable.extend(Class::ALL.map(Market::key));
}

/// Prices are locked in agreements as 64 bits.
fn saturate(price: u128) -> u64 {
    u64::try_from(price).unwrap_or(u64::MAX)
}

/// The class's record, or the genesis prices while there is none.
fn of(found: Option<Market>, class: Class, parameters: &Parameters) -> Market {
    let genesis = saturate(parameters.prices[class]);
    found.unwrap_or(Market { price: genesis, slow: genesis, ..Market::default() })
}

/// The pair posted for a class: its record, or the genesis price while there is none (MK-1).
pub fn pair(found: Option<Market>, class: Class, parameters: &Parameters) -> Pair {
    let market = of(found, class, parameters);
    Pair { price: market.price, slow: market.slow }
}

/// The class's record after an epoch (MK-2, MK-3): an eighth of the bucket of paid units counts as use.
fn next(market: Market, class: Class, sums: &Closing, parameters: &Parameters) -> Market {
    let (used, bucket) = price::bucket_next(market.bucket, sums.used[class]);
    let (target, fraction) = (price::TARGET_FLOW, price::FRACTION_FLOW);
    let capacity = sums.capacity[class];
    let excess = price::excess_next(market.excess, used, capacity, target, fraction);
    let posted = saturate(price::posted(parameters.prices[class], excess, fraction));
    let slow = saturate(price::slow_next(market.slow.into(), posted.into()));
    Market { price: posted, slow, excess, bucket, capacity, used, epoch: sums.epoch }
}

/// Moves every class's price by the epoch's use; the new prices hold from this block on.
pub(super) fn move_prices(working: &mut Working<'_>, sums: &Closing) -> Result<(), Broken> {
    for class in Class::ALL {
        let (key, parameters) = (Market::key(class), &working.context.parameters);
        let market = next(of(working.get(key)?, class, parameters), class, sums, parameters);
        let Market { price, slow, .. } = market;
        working.put(key, &market)?;
        working.events.push(Event::Priced { epoch: sums.epoch, class, price, slow });
    }
    Ok(())
}
