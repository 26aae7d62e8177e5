//! Ledgers with many providers, and blocks that run without a check of the whole state.

use crate::{
    script::Stage,
    world::{World, account},
};
use posync_protocol::{
    Account, Amount, Operation, Record,
    block::sha256,
    ledger::{Mode, execute},
    record::{Audit, Endpoint, Newcomer, Offer, Provider, ProviderAt, Reputation, System},
};

/// Adds `count` providers with indices from 0, in the state after a registration.
pub(crate) fn populate(world: &mut World, count: u32) {
    let template = {
        let mut stage = Stage::new();
        stage.play("p register");
        stage.world
    };
    let p = account("p");
    let provider: Provider = template.get(Provider::key(&p)).expect("it registered");
    let offer: Offer = template.get(Offer::key(&p)).expect("it registered");
    let endpoint: Endpoint = template.get(Endpoint::key(&p)).expect("it registered");
    for index in 0..count {
        let account = Account(sha256(&index.to_be_bytes()));
        let at = ProviderAt { account: Some(account), next_vacant: None };
        let own = Provider { index, ..provider.clone() };
        world.state.insert(ProviderAt::key(index), at.to_slot());
        world.state.insert(Newcomer::key(index), Newcomer { account, born: own.born }.to_slot());
        world.state.insert(Provider::key(&account), own.to_slot());
        world.state.insert(Audit::key(&account), Audit::default().to_slot());
        world.state.insert(Offer::key(&account), offer.to_slot());
        world.state.insert(Endpoint::key(&account), endpoint.to_slot());
        world.state.insert(Reputation::key(&account), Reputation::newborn(0).to_slot());
    }
    let mut system = world.system();
    let bonds = Amount::new(provider.bond.grains() * u128::from(count)).expect("below the bound");
    system.providers = count;
    system.newcomers = count;
    system.bonds = bonds;
    system.reserve = Amount::ZERO;
    world.supply = world.supply.checked_sub(world.system().reserve).expect("it was part of it");
    world.supply = world.supply.checked_add(bonds).expect("below the bound");
    world.state.insert(System::key(), system.to_slot());
}

/// Runs a block. Returns the numbers of records that it named and changed.
pub(crate) fn unchecked(stage: &mut Stage, operations: &[Operation]) -> (usize, usize) {
    let world = &mut stage.world;
    let context = world.context(world.height + 1);
    let draws = world.resolve(&context);
    let records = world.read(&context, &draws, operations).expect("a small block");
    let outcome = execute(&context, &draws, operations, &records, Mode::Verify).expect("a valid block");
    for (key, slot) in &outcome.changes {
        match slot {
            Some(slot) => world.state.insert(*key, *slot),
            None => world.state.remove(key),
        };
    }
    world.height = context.height;
    (records.len(), outcome.changes.len())
}

/// Runs only the block at that height.
pub(crate) fn block_at(stage: &mut Stage, height: u64) -> (usize, usize) {
    stage.world.height = height - 1;
    unchecked(stage, &[])
}
