//! The invariant of the whole ledger: one function over all slots, run after every block in tests and in
//! simulation. It recomputes every sum from the records.
//!
//! Keys are hashes, so records are found in the way the rules find them: from `System` to the indices, to the
//! providers, to their slots. A record that is not reached that way is an orphan.
//!
//! Invariants checked
//! 1. Money: each sum in `System` equals the sum over its records, and all of it is the genesis supply
//!    (LE-5).
//! 2. Providers: index, account and records agree; vacant indices form one list.
//! 3. Agreements: slots, sold capacity, pool and endings equal the sums over the agreements.
//! 4. Draw weights: `fee_weight`, `slot_weight`, `paid`, `paid_base`, `weighed` and every Fenwick node equal
//!    the recomputed ones, each slot at its place.
//! 5. The books: rows add up to their epoch, pools cover payments, ratios are at most one.
//! 6. Seats: index and account agree, the bonds add up to their sum.
//! 7. Nodes: each has a seat or one place with its deposit.
//! 8. Every record is reachable.

mod books;
mod nodes;
mod seats;
mod service;

use crate::number::{count, widest};
use crate::settlement::owed;
use crate::{
    Account, Amount, Broken, Class, Key, Record, Slot,
    fenwick::{place, update_path},
    limits::{PLACES_MAX, PROVIDERS_MAX, SLOTS_MAX},
    record::{
        AccountState, Agreement, Audit, Books, Closing, Commitment, DataSet, Ending, Endings, Endpoint,
        FaultBits, FaultRing, FeeTree, Market, Measured, Newcomer, Node, NodeAt, Offences, Offer, PROBE_RING,
        Peak, Probe, Provider, ProviderAt, Reports, Reputation, RoundInfo, Seat, SeatAt, ServiceRound,
        Settlement, SlotTree, System, Usage,
    },
};
use alloc::{collections::BTreeMap, vec::Vec};

fn equal(what: &'static str, recorded: impl Into<u128>, counted: impl Into<u128>) -> Result<(), Broken> {
    let (recorded, counted) = (recorded.into(), counted.into());
    if recorded == counted { Ok(()) } else { Err(Broken::Sum { what, recorded, counted }) }
}

fn at_most(what: &'static str, part: impl Into<u128>, whole: impl Into<u128>) -> Result<(), Broken> {
    let (recorded, counted) = (whole.into(), part.into());
    if counted <= recorded { Ok(()) } else { Err(Broken::Sum { what, recorded, counted }) }
}

/// All records, and the number of each kind.
struct State {
    slots: BTreeMap<Key, Slot>,
    kinds: BTreeMap<u8, u64>,
}

impl State {
    fn get<R: Record>(&self, key: Key) -> Result<Option<R>, Broken> {
        let Some(slot) = self.slots.get(&key) else { return Ok(None) };
        R::from_slot(slot).map(Some).map_err(|_| Broken::Slot { kind: slot[0] })
    }

    fn need<R: Record>(&self, key: Key, what: &'static str) -> Result<R, Broken> {
        self.get(key)?.ok_or(Broken::Missing { what })
    }

    fn all<R: Record>(&self) -> impl Iterator<Item = Result<R, Broken>> {
        let own = self.slots.values().filter(|slot| slot[0] == R::KIND);
        own.map(|slot| R::from_slot(slot).map_err(|_| Broken::Slot { kind: R::KIND }))
    }

    fn count<R: Record>(&self) -> u64 {
        self.kinds.get(&R::KIND).copied().unwrap_or(0)
    }
}

/// The counts and sums that the walk over providers and slots has reached.
#[derive(Default)]
struct Reached {
    providers: u64,
    vacant: u64,
    agreements: u64,
    data_sets: u64,
    endings: u64,
    slot_nodes: u64,
    fee_weight: u128,
    fee_nodes: BTreeMap<u32, u128>,
    /// Accounts of the providers, in the order of their indices.
    accounts: Vec<Account>,
}

/// Checks the whole state against `supply`, the money at genesis.
///
/// # Errors
/// The first invariant that does not hold.
pub fn check_all(slots: impl IntoIterator<Item = (Key, Slot)>, supply: Amount) -> Result<(), Broken> {
    let mut state = State { slots: BTreeMap::new(), kinds: BTreeMap::new() };
    for (key, slot) in slots {
        *state.kinds.entry(slot[0]).or_default() += 1;
        state.slots.insert(key, slot);
    }
    check_decodes(&state)?;
    let system: System = state.need(System::key(), "System")?;
    check_money(&state, &system, supply)?;
    books::check(&state, &system)?;
    seats::check(&state, &system)?;
    nodes::check(&state, &system)?;
    service::check(&state, &system)?;
    let reached = walk(&state, &system)?;
    check_reached(&state, &system, &reached)?;
    books::check_reached(&state, &reached.accounts)
}

fn check_decodes(state: &State) -> Result<(), Broken> {
    fn each<R: Record>(state: &State) -> Result<u64, Broken> {
        state.all::<R>().try_fold(0, |count, record| record.map(|_| count + 1))
    }
    let known = each::<System>(state)?
        + each::<AccountState>(state)?
        + each::<Provider>(state)?
        + each::<Audit>(state)?
        + each::<ProviderAt>(state)?
        + each::<Endpoint>(state)?
        + each::<Offer>(state)?
        + each::<Agreement>(state)?
        + each::<Usage>(state)?
        + each::<DataSet>(state)?
        + each::<SlotTree>(state)?
        + each::<FeeTree>(state)?
        + each::<Ending>(state)?
        + each::<Endings>(state)?
        + each::<RoundInfo>(state)?
        + each::<Settlement>(state)?
        + each::<Newcomer>(state)?
        + each::<Market>(state)?
        + each::<Reputation>(state)?
        + each::<Closing>(state)?
        + each::<Books>(state)?
        + each::<Peak>(state)?
        + each::<Seat>(state)?
        + each::<SeatAt>(state)?
        + each::<ServiceRound>(state)?
        + each::<Commitment>(state)?
        + each::<Reports>(state)?
        + each::<Offences>(state)?
        + each::<FaultRing>(state)?
        + each::<FaultBits>(state)?
        + each::<Measured>(state)?
        + each::<Probe>(state)?
        + each::<Node>(state)?
        + each::<NodeAt>(state)?;
    equal("slots of a known kind", widest(count(state.slots.len())), known)
}

fn check_money(state: &State, system: &System, supply: Amount) -> Result<(), Broken> {
    let mut sums = [0_u128; 5];
    for account in state.all::<AccountState>() {
        sums[0] += account?.balance.grains();
    }
    for usage in state.all::<Usage>() {
        let usage = usage?;
        sums[1] += usage.voucher_reserve.grains();
        sums[2] += usage.deposit.grains();
    }
    for node in state.all::<Node>() {
        sums[2] += node?.deposit.grains();
    }
    for provider in state.all::<Provider>() {
        let provider = provider?;
        sums[3] += provider.pool.grains();
        sums[4] += provider.bond.grains();
    }
    equal("System.balances", system.balances.grains(), sums[0])?;
    equal("System.voucher_reserves", system.voucher_reserves.grains(), sums[1])?;
    equal("System.deposits", system.deposits.grains(), sums[2])?;
    equal("System.storage_pools", system.storage_pools.grains(), sums[3])?;
    equal("System.bonds", system.bonds.grains(), sums[4])?;
    equal("the supply", supply.grains(), system.accounted().grains())
}

fn walk(state: &State, system: &System) -> Result<Reached, Broken> {
    let mut reached = Reached::default();
    for index in 0..system.providers {
        let at: ProviderAt = state.need(ProviderAt::key(index), "ProviderAt")?;
        let Some(account) = at.account else { continue };
        equal("a provider has no next vacant index", at.next_vacant.is_some(), false)?;
        let provider: Provider = state.need(Provider::key(&account), "Provider at an index")?;
        equal("Provider.index", provider.index, index)?;
        state.need::<Audit>(Audit::key(&account), "Audit of a provider")?;
        state.need::<Endpoint>(Endpoint::key(&account), "Endpoint of a provider")?;
        state.need::<Reputation>(Reputation::key(&account), "Reputation of a provider")?;
        reached.providers += 1;
        reached.accounts.push(account);
        reached.fee_weight += provider.weighed;
        add(&mut reached.fee_nodes, index, PROVIDERS_MAX, provider.weighed);
        walk_slots(state, &account, &provider, &mut reached)?;
    }
    let mut next = system.vacant;
    while let Some(index) = next {
        let at: ProviderAt = state.need(ProviderAt::key(index), "a vacant index")?;
        equal("a vacant index has no account", at.account.is_some(), false)?;
        reached.vacant += 1;
        at_most("the list of vacant indices ends", reached.vacant, system.providers)?;
        next = at.next_vacant;
    }
    for place in 0..system.newcomers {
        state.need::<Newcomer>(Newcomer::key(place), "Newcomer")?;
    }
    Ok(reached)
}

fn add(nodes: &mut BTreeMap<u32, u128>, place: u32, places: u32, weight: u128) {
    if weight > 0 {
        for node in update_path(place, places) {
            *nodes.entry(node).or_default() += weight;
        }
    }
}

/// The sums over a provider's agreements.
#[derive(Default)]
struct Sums {
    slots: u32,
    sold: u64,
    leaves: u64,
    reserves: u128,
    slot_weight: u128,
    paid: u128,
    paid_base: u128,
    endings: BTreeMap<u64, Ending>,
    nodes: BTreeMap<u32, u128>,
}

fn walk_slots(
    state: &State,
    account: &Account,
    provider: &Provider,
    reached: &mut Reached,
) -> Result<(), Broken> {
    let mut sums = Sums::default();
    let mut slot = 0;
    while sums.slots < provider.slots && slot < SLOTS_MAX {
        if let Some(agreement) = state.get::<Agreement>(Agreement::key(account, slot))? {
            count_agreement(state, account, slot, &agreement, provider, &mut sums)?;
            reached.data_sets += u64::from(state.slots.contains_key(&DataSet::key(account, slot)));
        }
        slot += 1;
    }
    reached.agreements += u64::from(sums.slots);
    reached.endings += count(sums.endings.len());
    reached.slot_nodes += count(sums.nodes.len());
    check_provider(state, account, provider, &sums)
}

fn count_agreement(
    state: &State,
    account: &Account,
    slot: u32,
    agreement: &Agreement,
    provider: &Provider,
    sums: &mut Sums,
) -> Result<(), Broken> {
    let usage: Usage = state.need(Usage::key(account, slot), "Use of an agreement")?;
    let data_set: DataSet = state.get(DataSet::key(account, slot))?.unwrap_or_default();
    let key = Ending::key(account, agreement.end_epoch);
    let ending: Ending = state.need(key, "Ending of an agreement")?;
    let crossed = ending.acc.is_some();
    let leaves = u128::from(data_set.current.leaves);
    let weight = u128::from(agreement.prices[Class::Storage].price) * leaves;
    let base = u128::from(agreement.prices[Class::Storage].base()) * leaves;
    at_most("leaves within the quota", data_set.current.leaves, agreement.quota[Class::Storage])?;
    at_most("egress within the quota", usage.redeemed.egress, agreement.quota[Class::Egress])?;
    at_most("gas within the quota", usage.redeemed.gas, agreement.quota[Class::Compute])?;
    at_most("audited within the redeemed egress", usage.audited, usage.redeemed.egress)?;
    at_most("disputed within signed", usage.disputed.grains(), usage.signed.grains())?;
    sums.slots += 1;
    sums.sold += agreement.quota[Class::Storage];
    // Credited to the provider already; charged when the agreement is next touched.
    let owed = owed(agreement, &usage, &data_set, &ending, provider);
    sums.reserves += usage.storage_reserve.saturating_sub(owed).grains();
    check_lock(agreement, &usage)?;
    sums.slot_weight += weight;
    add(&mut sums.nodes, place(agreement.end_epoch, slot), PLACES_MAX, weight);
    let ending = sums.endings.entry(agreement.end_epoch).or_default();
    ending.agreements += 1;
    if !crossed {
        sums.leaves += data_set.current.leaves;
        ending.leaves += data_set.current.leaves;
        sums.paid += weight;
        sums.paid_base += base;
        ending.paid += weight;
        ending.paid_base += base;
    }
    Ok(())
}

/// Checks that a top-up only raised prices and bases, and only beyond the money paid in before (AG-8).
fn check_lock(agreement: &Agreement, usage: &Usage) -> Result<(), Broken> {
    let Some(lock) = usage.lock else { return Ok(()) };
    let opened = agreement.prices.metered().zip(lock.before.zip(lock.prices));
    for (opened, (before, now)) in opened.into_array() {
        at_most("a lock at the opening's prices or above", opened.price, before.price)?;
        at_most("a lock at the opening's base or above", opened.base(), before.base)?;
        at_most("what was paid in is not dearer", before.price, now.price)?;
        at_most("the base in force never falls", before.base, now.base())?;
    }
    Ok(())
}

fn check_provider(state: &State, account: &Account, provider: &Provider, sums: &Sums) -> Result<(), Broken> {
    equal("Provider.slots", provider.slots, sums.slots)?;
    equal("Provider.sold", provider.sold[Class::Storage], sums.sold)?;
    let offer: Offer = state.need(Offer::key(account), "Offer of a provider")?;
    for (class, sold) in provider.sold.iter() {
        at_most("sold within the declared", *sold, offer.capacity[class])?;
        equal("sold to nobody", provider.slots == 0 && *sold > 0, false)?;
    }
    at_most("storage reserves within the pool", sums.reserves, provider.pool.grains())?;
    equal("Provider.slot_weight", provider.slot_weight, sums.slot_weight)?;
    equal("Provider.leaves", provider.leaves, sums.leaves)?;
    equal("Provider.paid", provider.paid, sums.paid)?;
    equal("Provider.paid_base", provider.paid_base, sums.paid_base)?;
    equal("Provider.weighed", provider.weighed, if provider.weighed == 0 { 0 } else { sums.paid })?;
    let endings: Option<Endings> = state.get(Endings::key(account))?;
    for (epoch, counted) in &sums.endings {
        let marked = endings.as_ref().is_some_and(|endings| endings.due(*epoch).any(|due| due == *epoch));
        equal("an ending with pay is marked", counted.paid > 0 && !marked, false)?;
        let ending: Ending = state.need(Ending::key(account, *epoch), "Ending")?;
        equal("Ending.agreements", ending.agreements, counted.agreements)?;
        if ending.acc.is_none() {
            equal("Ending.paid", ending.paid, counted.paid)?;
            equal("Ending.paid_base", ending.paid_base, counted.paid_base)?;
            equal("Ending.leaves", ending.leaves, counted.leaves)?;
        }
    }
    for (node, sum) in &sums.nodes {
        let record: SlotTree = state.need(SlotTree::key(account, *node), "SlotTree node")?;
        equal("SlotTree.sum", record.sum, *sum)?;
    }
    Ok(())
}

fn check_reached(state: &State, system: &System, reached: &Reached) -> Result<(), Broken> {
    equal("System.fee_weight", system.fee_weight, reached.fee_weight)?;
    equal("System.agreements", system.agreements, reached.agreements)?;
    equal("indices are taken or vacant", system.providers, reached.providers + reached.vacant)?;
    for (node, sum) in &reached.fee_nodes {
        let record: FeeTree = state.need(FeeTree::key(*node), "FeeTree node")?;
        equal("FeeTree.sum", record.sum, *sum)?;
    }
    let mut filled = [0_u64; 2];
    for node in state.all::<FeeTree>() {
        filled[0] += u64::from(node?.sum > 0);
    }
    for node in state.all::<SlotTree>() {
        filled[1] += u64::from(node?.sum > 0);
    }
    equal("FeeTree nodes with a sum", filled[0], count(reached.fee_nodes.len()))?;
    equal("SlotTree nodes with a sum", filled[1], reached.slot_nodes)?;
    equal("providers without an index", state.count::<Provider>(), reached.providers)?;
    equal("orphaned Audit", state.count::<Audit>(), reached.providers)?;
    at_most("orphaned Endings", state.count::<Endings>(), reached.providers)?;
    equal("orphaned Endpoint", state.count::<Endpoint>(), reached.providers)?;
    equal("orphaned Offer", state.count::<Offer>(), reached.providers)?;
    at_most("orphaned Measured", state.count::<Measured>(), reached.providers)?;
    at_most("orphaned Probe", state.count::<Probe>(), PROBE_RING)?;
    equal("orphaned ProviderAt", state.count::<ProviderAt>(), u64::from(system.providers))?;
    equal("orphaned Newcomer", state.count::<Newcomer>(), u64::from(system.newcomers))?;
    equal("orphaned Agreement", state.count::<Agreement>(), reached.agreements)?;
    equal("orphaned Usage", state.count::<Usage>(), reached.agreements)?;
    equal("orphaned DataSet", state.count::<DataSet>(), reached.data_sets)?;
    equal("orphaned Ending", state.count::<Ending>(), reached.endings)
}
