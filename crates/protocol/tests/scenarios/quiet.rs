//! Epochs with no or hardly any payments close like any other.

use crate::{
    audits::{answer, holding},
    books::{row, run_to},
    script::Stage,
    world::account,
};
use posync_protocol::{
    Amount, Record,
    ledger::Event,
    record::{Books, Ratio, Reputation, Settlement},
};

fn books(stage: &Stage, epoch: u64) -> Books {
    stage.world.get(Books::key(epoch)).expect("it is sealed")
}

#[test]
fn without_a_provider_an_epoch_closes_empty() {
    let mut stage = Stage::new();
    let reserve = stage.world.system().reserve;
    stage.play("epoch 6");
    for epoch in 0..=2 {
        let books = books(&stage, epoch);
        assert_eq!((books.rows, books.weight, books.pool, books.drawn), (0, 0, Amount::ZERO, Amount::ZERO));
    }
    assert_eq!(stage.world.system().reserve, reserve, "nothing is drawn for nobody");
}

#[test]
fn without_use_providers_have_rows_and_no_pay() {
    let mut stage = Stage::new();
    stage.play("p register\n b register\n epoch 6");
    let reserve = stage.world.system().reserve;
    for epoch in 1..=2 {
        let books = books(&stage, epoch);
        assert_eq!((books.rows, books.weight, books.paid), (2, 0, Amount::ZERO));
        for name in ["p", "b"] {
            let row = row(&stage.world, &account(name), epoch).expect("a row each");
            assert_eq!((row.fee, row.subsidy, row.weight), (Amount::ZERO, Amount::ZERO, 0), "{name}");
            assert_eq!(row.quality, Ratio::UNMEASURED, "{name}");
        }
    }
    stage.play("epoch 9");
    assert_eq!(stage.world.system().reserve, reserve);
}

/// If all providers are jailed, they keep their agreements and are paid for them, but no agreement
/// can be opened. The books close, and the pool goes to the providers with weight.
#[test]
fn with_everybody_in_jail_epochs_close_and_nothing_new_begins() {
    let (mut stage, member) = holding(&[70_000]);
    stage.play("b register");
    for name in ["p", "b"] {
        let key = Reputation::key(&account(name));
        let mut reputation: Reputation = stage.world.get(key).expect("it registered");
        reputation.jailed_until = 1_000;
        stage.world.state.insert(key, reputation.to_slot());
    }
    let events = run_to(&mut stage, &member, 7, true);
    let closed = events.iter().filter(|event| matches!(event, Event::Closed { .. })).count();
    assert!(closed >= 3, "{closed} epochs closed");
    for epoch in 1..=3 {
        let books = books(&stage, epoch);
        let rows: Vec<Settlement> =
            ["p", "b"].iter().filter_map(|name| row(&stage.world, &account(name), epoch)).collect();
        let paid: u128 = rows.iter().map(|row| row.subsidy.grains()).sum();
        assert_eq!((books.rows, books.paid.grains()), (2, paid));
        assert!(rows[0].pay > Amount::ZERO, "what stands is paid");
    }
    stage.world.draws = false;
    while answer(&mut stage, &member).is_some() {}
    stage.play("a open p slot=1 end=700 => ProviderJailed\n a open b slot=0 end=700 => ProviderJailed");
}
