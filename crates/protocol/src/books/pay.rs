//! The second pass: shares an epoch's pool, moves scores and hashes the rows; then seals the epoch.

use super::{closing, tree};
use crate::{
    Account, Amount, Broken, Class, Hash, PerClass, Record as _,
    account::credit,
    authority,
    economics::pool,
    event::Event,
    limits::SETTLEMENT_RING,
    record::{Books, CLOSING_RING, Closing, Market, Peak, Ratio, Reputation, Settlement},
    reputation,
    working::Working,
};
use alloc::vec::Vec;

/// Draws the epoch's pool: the part that the carry does not hold comes from the reserve (BK-5).
pub(super) fn draw_pool(working: &mut Working<'_>, sums: &mut Closing) -> Result<(), Broken> {
    let parameters = &working.context.parameters;
    let system = &mut working.system;
    let (emission, pool) = pool::usage_pool(
        system.reserve.grains(),
        parameters.emission_divisor.into(),
        parameters.usage_share,
        parameters.subsidy_cap,
        parameters.burn,
        sums.weight,
    );
    let grains = |amount: u128| Amount::new(amount).ok_or(Broken::bound("an epoch's pool"));
    sums.emission = grains(emission)?;
    sums.pool = grains(pool)?;
    sums.drawn = sums.pool.saturating_sub(system.carry);
    system.reserve.lose(sums.drawn, "System.reserve")?;
    system.carry.gain(sums.drawn, "System.carry")?;
    let Closing { epoch, weight, emission, pool, drawn, .. } = *sums;
    working.events.push(Event::Pool { epoch, weight, emission, pool, drawn });
    Ok(())
}

/// Pays one provider its share and moves its scores; its row is then complete and enters the tree (BK-6).
pub(super) fn pay(working: &mut Working<'_>, sums: &mut Closing, account: &Account) -> Result<(), Broken> {
    let epoch = sums.epoch;
    let mut reputation: Reputation = working.kept(Reputation::key(account))?;
    let key = Settlement::key(account, epoch % SETTLEMENT_RING);
    let found = working.get::<Settlement>(key)?.filter(|row| row.epoch == epoch);
    // A provider that came back has no row of its earlier registration: an exit deletes them (PV-3).
    let Some(mut row) = found else { return Ok(()) };
    let share = pool::share(sums.pool.grains(), row.weight, sums.weight);
    row.subsidy = Amount::new(share).ok_or(Broken::bound("Settlement.subsidy"))?;
    working.system.carry.lose(row.subsidy, "System.carry")?;
    sums.paid.gain(row.subsidy, "Closing.paid")?;
    credit(working, account, row.subsidy)?;
    if row.subsidy > Amount::ZERO {
        working.events.push(Event::Subsidy { epoch, provider: *account, amount: row.subsidy });
    }
    reputation::score(&mut reputation, &row);
    row.scores = reputation.scores.map(Ratio::new);
    let leaf = tree::leaf(account, &row.to_slot());
    let now = working.context.epoch();
    let steps = reputation::judge(&mut reputation, &row, now);
    working.events.extend(steps.into_iter().map(|step| step.event(*account, epoch, leaf)));
    working.put(Reputation::key(account), &reputation)?;
    working.put(key, &row)?;
    append(working, sums, leaf)
}

/// Appends a row's leaf: full subtrees of equal size merge.
fn append(working: &mut Working<'_>, sums: &mut Closing, leaf: Hash) -> Result<(), Broken> {
    let place = sums.epoch % CLOSING_RING;
    let (mut node, mut level) = (leaf, 0);
    while sums.rows >> level & 1 == 1 {
        let peak: Peak = working.kept(Peak::key(place, level))?;
        node = tree::node(&peak.node, &node);
        level += 1;
    }
    sums.rows += 1;
    working.put(Peak::key(place, level), &Peak { node })
}

/// Writes the books of an epoch whose providers are paid, after it pays the seats (BK-7).
pub(super) fn seal(working: &mut Working<'_>, epoch: u64, seats: &[Account]) -> Result<(), Broken> {
    let Some(mut sums) = closing(working, epoch)? else { return Ok(()) };
    let credits = authority::close(working, seats, &sums)?;
    let mut peaks: Vec<Hash> = Vec::new();
    for level in (0..=tree::LEVELS).rev().filter(|level| sums.rows >> level & 1 == 1) {
        let peak: Peak = working.kept(Peak::key(epoch % CLOSING_RING, level))?;
        peaks.push(peak.node);
    }
    let root = tree::root(sums.rows, &peaks);
    let (mut prices, mut slow) = (PerClass::default(), PerClass::default());
    for class in Class::ALL {
        let market: Option<Market> = working.get(Market::key(class))?;
        let pair = super::pair(market, class, &working.context.parameters);
        (prices[class], slow[class]) = (pair.price, pair.slow);
    }
    let Closing { rows, burn, weight, emission, pool, drawn, paid, committee, .. } = sums;
    let carry = working.system.carry;
    let money = Books { burn, weight, emission, pool, drawn, paid, carry, committee, ..Books::default() };
    let books = Books { epoch, rows, root, prices, slow, credits, ..money };
    sums.committee = Amount::ZERO;
    working.put(Closing::of(epoch), &sums)?;
    working.put(Books::key(epoch), &books)?;
    working.events.push(Event::Closed { epoch, rows, root });
    Ok(())
}
