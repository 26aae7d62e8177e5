//! No block does work proportional to members: the same block on ledgers of 10, 1,000 and
//! 100,000 providers names the same number of records and changes the same number.

use crate::{
    script::Stage,
    world::{World, account},
};
use posync_protocol::{
    Account, Amount, Record,
    block::sha256,
    ledger::{Mode, execute},
    record::{Audit, Endpoint, Newcomer, Provider, ProviderAt, System},
};

/// Adds `count` registered providers with indices from 0, as registration leaves them.
fn populate(world: &mut World, count: u32) {
    let template = {
        let mut stage = Stage::new();
        stage.play("p register");
        stage.world
    };
    let p = account("p");
    let provider: Provider = template.get(Provider::key(&p)).expect("it registered");
    let endpoint: Endpoint = template.get(Endpoint::key(&p)).expect("it registered");
    for index in 0..count {
        let account = Account(sha256(&index.to_be_bytes()));
        let at = ProviderAt { account: Some(account), next_vacant: None };
        let own = Provider { index, ..provider.clone() };
        world.state.insert(ProviderAt::key(index), at.to_slot());
        world.state.insert(Newcomer::key(index), Newcomer { account }.to_slot());
        world.state.insert(Provider::key(&account), own.to_slot());
        world.state.insert(Audit::key(&account), Audit::default().to_slot());
        world.state.insert(Endpoint::key(&account), endpoint.to_slot());
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

/// Records named, records changed.
fn work(providers: u32) -> (usize, usize) {
    let mut stage = Stage::new();
    populate(&mut stage.world, providers);
    if providers <= 1_000 {
        stage.play("p register\n a open p");
    } else {
        // The same two blocks without checking a hundred thousand providers after each.
        for line in ["p register", "a open p"] {
            let operation = stage.sign(line);
            unchecked(&mut stage, &[operation]);
        }
        stage.opened.insert(("p".into(), 0), stage.world.height);
    }
    // A block that draws: its height is even, and somebody stands in the line.
    stage.world.draws = true;
    if stage.world.height.is_multiple_of(2) {
        stage.world.height += 1;
    }
    let lines = ["q register", "a close p/0 second=p", "b open p slot=1", "p redeem p/0 egress=5"];
    let operations: Vec<_> = lines.iter().map(|line| stage.sign(line)).collect();
    unchecked(&mut stage, &operations)
}

fn unchecked(stage: &mut Stage, operations: &[posync_protocol::Operation]) -> (usize, usize) {
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

#[test]
fn keys_of_a_block_do_not_grow_with_the_providers() {
    let few = work(10);
    assert!(few.0 < 100, "{few:?}");
    // A path of a Fenwick tree has as many nodes as its index leaves: at most 21, whatever the
    // number of providers, and fewer at some indices.
    for providers in [1_000, 100_000] {
        let (named, changed) = work(providers);
        assert!(named <= few.0 + 20 && changed <= few.1 + 20, "{providers}: {named} {changed}, {few:?}");
    }
}
