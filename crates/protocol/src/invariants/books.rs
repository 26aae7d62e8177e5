//! The books' part of the invariant: rows, sums and pools of epochs that are still being closed.

use super::{Broken, State, at_most, equal};
use crate::number::count;
use crate::{
    Account, Class,
    amount::ONE,
    limits::SETTLEMENT_RING,
    record::{Books, CLOSING_RING, Closing, Market, Peak, Reputation, Settlement, System, UNMEASURED},
};
use alloc::collections::{BTreeMap, BTreeSet};

/// Sums over the rows of one epoch.
#[derive(Default)]
struct Rows {
    burn: u128,
    weight: u128,
    subsidy: u128,
}

pub(super) fn check(state: &State, system: &System) -> Result<(), Broken> {
    let rows = check_rows(state)?;
    let mut latest: Option<Closing> = None;
    for closing in state.all::<Closing>() {
        let closing = closing?;
        let there: Option<Closing> = state.get(Closing::of(closing.epoch))?;
        equal("Closing stands in its place", there.as_ref() == Some(&closing), true)?;
        let counted = rows.get(&closing.epoch);
        equal("Closing.weight", closing.weight, counted.map_or(0, |rows| rows.weight))?;
        equal("Closing.paid", closing.paid.grains(), counted.map_or(0, |rows| rows.subsidy))?;
        at_most("Closing.burn", closing.burn.grains(), counted.map_or(0, |rows| rows.burn))?;
        at_most("paid within the pool", closing.paid.grains(), closing.pool.grains())?;
        at_most("the pool within the emission", closing.pool.grains(), closing.emission.grains())?;
        at_most("rows of an epoch", closing.rows, closing.providers)?;
        let is_later = latest.as_ref().is_none_or(|latest| latest.epoch < closing.epoch);
        if closing.emission.grains() > 0 && is_later {
            latest = Some(closing);
        }
    }
    if let Some(Closing { pool, paid, .. }) = latest {
        at_most("the carry covers the pool", pool.grains() - paid.grains(), system.carry.grains())?;
    }
    check_books(state)?;
    check_reputations(state)?;
    at_most("orphaned Closing", state.count::<Closing>(), CLOSING_RING)?;
    at_most("orphaned Market", state.count::<Market>(), count(Class::ALL.len()))?;
    at_most(
        "orphaned Peak",
        state.count::<Peak>(),
        CLOSING_RING * (1 + u64::from(crate::books::tree::LEVELS)),
    )
}

fn check_rows(state: &State) -> Result<BTreeMap<u64, Rows>, Broken> {
    let mut rows: BTreeMap<u64, Rows> = BTreeMap::new();
    for row in state.all::<Settlement>() {
        let row = row?;
        let parts = row.burn.grains() + row.committee.grains() + row.pay.grains();
        equal("Settlement.fee", row.fee.grains(), parts)?;
        equal("Settlement.signed", row.signed.grains(), row.fee.grains())?;
        at_most("a row's base within its fee", row.base.grains(), row.fee.grains())?;
        at_most("a row's disputed within signed", row.disputed.grains(), row.signed.grains())?;
        at_most("a row's weight within its base", row.weight, row.base.grains())?;
        at_most("a row's subsidy within its burn", row.subsidy.grains(), row.burn.grains())?;
        let sums = rows.entry(row.epoch).or_default();
        sums.burn += row.burn.grains();
        sums.weight += row.weight;
        sums.subsidy += row.subsidy.grains();
    }
    Ok(rows)
}

/// Checks that every row belongs to a registered provider. So must every reputation, except those of providers
/// that were jailed and left (PV-6).
pub(super) fn check_reached(state: &State, providers: &[Account]) -> Result<(), Broken> {
    let mut places = BTreeSet::new();
    for row in state.all::<Settlement>() {
        places.insert(row?.epoch % SETTLEMENT_RING);
    }
    let keys =
        providers.iter().flat_map(|account| places.iter().map(|place| Settlement::key(account, *place)));
    let rows = count(keys.filter(|key| state.slots.contains_key(key)).count());
    equal("orphaned Settlement", state.count::<Settlement>(), rows)?;
    let mut kept = 0_u64;
    for reputation in state.all::<Reputation>() {
        let reputation = reputation?;
        kept += u64::from(reputation.jailed_until != 0 || reputation.jailings > 0);
    }
    let mut own = 0_u64;
    for account in providers {
        let reputation: Reputation = state.need(Reputation::key(account), "Reputation of a provider")?;
        own += u64::from(reputation.jailed_until == 0 && reputation.jailings == 0);
    }
    // An account that was never jailed has a reputation only while it is registered.
    equal("orphaned Reputation", state.count::<Reputation>(), own + kept)
}

fn check_books(state: &State) -> Result<(), Broken> {
    for books in state.all::<Books>() {
        let books = books?;
        let there: Option<Books> = state.get(Books::key(books.epoch))?;
        equal("Books stand in their place", there.as_ref() == Some(&books), true)?;
        at_most("Books.paid", books.paid.grains(), books.pool.grains())?;
        at_most("Books.drawn", books.drawn.grains(), books.pool.grains())?;
        at_most("Books.pool", books.pool.grains(), books.emission.grains())?;
        at_most("Books.pool within the burn", books.pool.grains(), books.burn.grains())?;
    }
    Ok(())
}

fn check_reputations(state: &State) -> Result<(), Broken> {
    for reputation in state.all::<Reputation>() {
        let reputation = reputation?;
        let ratios = reputation.scores.values().iter().chain(&reputation.qualities);
        for ratio in ratios.filter(|ratio| **ratio != UNMEASURED) {
            at_most("a score or quality", *ratio, ONE)?;
        }
    }
    Ok(())
}
