//! Providers: registration, offer, exit.

use crate::{
    script::{Stage, check},
    world::{FUNDED, account},
};
use posync_protocol::{
    Amount, Class, Code, Record,
    ledger::{Event, Mode, execute},
    record::{Endpoint, Newcomer, Offer, Provider, ProviderAt, System},
};

pub(crate) const ACCEPTED: &str = "
    p register bond=1000s
    q register bond=6000s capacity=10000000000
    p update capacity=5 storage=10 egress=3 address=10.0.0.1:9
    p update bond=50s capacity=1000000
    p leave
    p update capacity=7
    epoch 21
    p leave
    p register
    p update capacity=5000
    a open p quota=1000 end=60
    b refusal p leaves=4000
    p update capacity=5000
    a refusal p leaves=1000 within=p/0
";

pub(crate) const REFUSED: &str = "
    p register bond=2000000s                  => Balance
    p register bond=999s                      => BondTooSmall
    p register capacity=10000000000           => BondTooSmall
    p register capacity=max                   => BondTooSmall
    p register operator=                      => OperatorEmpty
    p register address=                       => !BadShape
    p register region=                        => !BadShape
    p update                                  => ProviderUnknown
    p leave                                   => ProviderUnknown
    p register
    p register                                => ProviderExists
    p update index=3                          => BadShape
    p update index=1048576                    => !BadShape
    p update bond=2000000s                    => Balance
    p update capacity=10000000000             => BondTooSmall
    p update capacity=max                     => BondTooSmall
    p update capacity=10000000000 bond=1s     => BondTooSmall
    a open p quota=1000
    p update capacity=999                     => CapacityBelowSold
    p leave
    a open p slot=1                           => ProviderLeaving
    p leave                                   => HasAgreements
    a close p/0 second=p
    p leave                                   => ExitEarly
    p leave registered=1                      => BadShape
    p leave registered=max                    => BadShape
    a open q                                  => ProviderUnknown
    a refusal q leaves=1                      => ProviderUnknown
    q register capacity=5000
    a open q quota=1000
    a refusal q leaves=0                      => !BadShape
    a refusal q leaves=1 within=p/0           => !BadShape
    a refusal q leaves=1 height=1000          => RefusalStale
    a refusal q leaves=1 height=max           => RefusalStale
    a refusal q leaves=4001                   => RefusalBeyond
    a refusal q leaves=max                    => RefusalBeyond
    a refusal q leaves=4000
    a refusal q leaves=1                      => RefusalBeyond
    a refusal q leaves=1 within=q/0           => RefusalCut
    a open q slot=1 quota=1                   => NoCapacity
    epoch 3
    a refusal q leaves=1 height=1             => RefusalStale
";

#[test]
fn table() {
    check(ACCEPTED);
    check(REFUSED);
}

#[test]
fn registration_locks_the_bond_burns_its_price_and_stands_in_the_lines() {
    let world = check("p register bond=1500s storage=4 egress=5");
    let system = world.system();
    let provider: Provider = world.get(Provider::key(&account("p"))).unwrap();
    assert_eq!((provider.index, provider.bond), (0, Amount::sync(1_500)));
    let offer: Offer = world.get(Offer::key(&account("p"))).unwrap();
    assert_eq!((offer.reserve[Class::Storage], offer.reserve[Class::Egress]), (4, 5));
    assert_eq!((system.providers, system.newcomers, system.bonds), (1, 1, Amount::sync(1_500)));
    assert!(system.burned > world.parameters.registration_burn);
    assert_eq!(world.get::<ProviderAt>(ProviderAt::key(0)).unwrap().account, Some(account("p")));
    assert_eq!(world.get::<Newcomer>(Newcomer::key(0)).unwrap().account, account("p"));
    let endpoint: Endpoint = world.get(Endpoint::key(&account("p"))).unwrap();
    assert_eq!((&endpoint.addresses[0][..], &offer.region[..]), (&b"127.0.0.1:1"[..], &b"north"[..]));
}

#[test]
fn a_refusal_within_the_declared_capacity_cuts_it_to_what_is_sold() {
    let mut stage = Stage::new();
    stage.play("p register capacity=5000\n a open p quota=1000\n b refusal p leaves=4000");
    let (provider, consumer) = (account("p"), account("b"));
    let row: Provider = stage.world.get(Provider::key(&provider)).unwrap();
    let offer: Offer = stage.world.get(Offer::key(&provider)).unwrap();
    assert_eq!(
        (offer.capacity[Class::Storage], row.sold[Class::Storage], row.bond),
        (1000, 1000, Amount::sync(1_000)),
        "no stake is taken"
    );
    let cut = Event::CapacityCut { provider, consumer, before: 5000, after: 1000 };
    assert_eq!(stage.world.events, [cut]);
}

#[test]
fn a_cut_spends_every_refusal_that_was_signed_before_it() {
    let mut stage = Stage::new();
    stage.play("blocks 3\n p register capacity=5000\n a open p quota=1000");
    let signed = stage.world.height;
    stage.play("blocks 1\n b refusal p leaves=4000");
    let cut = stage.world.height;
    stage.play("p update capacity=5000");
    for height in [signed, cut - 1] {
        stage.play(&format!("b refusal p leaves=4000 height={height} => RefusalStale"));
        stage.play(&format!("a refusal p leaves=9 height={height} within=p/0 => RefusalStale"));
    }
    stage.play(&format!("b refusal p leaves=4000 height={cut}"));
    stage.play("p update capacity=5000\n b refusal p leaves=1");
    let mut stage = Stage::new();
    stage.play("blocks 3\n p register capacity=5000\n b refusal p leaves=1 height=3 => RefusalStale");
    stage.play("b refusal p leaves=1 height=4");
}

#[test]
fn an_exit_returns_the_bond_and_the_index_is_taken_again() {
    let world = check("p register\n q register\n p leave\n epoch 21\n p leave");
    let system = world.system();
    assert_eq!((system.providers, system.vacant), (2, Some(0)));
    assert_eq!(system.bonds, Amount::sync(1_000));
    assert!(world.get::<Provider>(Provider::key(&account("p"))).is_none());
    let burned = system.burned.grains();
    assert!(FUNDED.grains() - world.balance("p").grains() < burned);
    let world = check("p register\n q register\n p leave\n epoch 21\n p leave\n a register\n b register");
    let index = |name: &str| world.get::<Provider>(Provider::key(&account(name))).unwrap().index;
    assert_eq!((index("a"), index("q"), index("b")), (0, 1, 2));
    assert_eq!(world.system().vacant, None);
}

#[test]
fn registrations_of_one_block_do_not_collide() {
    let mut stage = Stage::new();
    stage.play("b register\n b leave\n epoch 21\n b leave");
    let operations: Vec<_> =
        ["a", "p", "q"].iter().map(|who| stage.sign(&format!("{who} register"))).collect();
    let outcome = stage.world.block(&operations).unwrap();
    assert!(outcome.receipts.iter().all(|(_, code)| *code == Code::Done));
    let index = |name: &str| stage.world.get::<Provider>(Provider::key(&account(name))).unwrap().index;
    assert_eq!((index("a"), index("p"), index("q")), (0, 1, 2));
}

#[test]
fn the_last_index_is_the_last() {
    let mut stage = Stage::new();
    let last = u32::try_from(stage.world.parameters.indices_max() - 1).unwrap();
    assert_eq!(last, 32 * 64 - 1, "a slice of 64 in each of the 32 blocks after the first round");
    let full = System { providers: last, ..stage.world.system() };
    stage.world.state.insert(System::key(), full.to_slot());
    let mut register = |who: &str| {
        let operation = [stage.sign(&format!("{who} register"))];
        let context = stage.world.context(1);
        let records = stage.world.read(&context, &[], &operation).unwrap();
        let outcome = execute(&context, &[], &operation, &records, Mode::Verify).unwrap();
        stage.world.state.extend(outcome.changes.iter().map(|(key, slot)| (*key, slot.unwrap())));
        outcome.receipts[0].1
    };
    assert_eq!(register("p"), Code::Done);
    assert_eq!(register("q"), Code::ProviderFull);
}

#[test]
fn a_lowered_bond_stops_sales_but_not_updates() {
    let mut stage = Stage::new();
    stage.play("p register capacity=1000");
    let key = Provider::key(&account("p"));
    let mut provider: Provider = stage.world.get(key).unwrap();
    let lost = Amount::sync(1);
    provider.bond = provider.bond.checked_sub(lost).unwrap();
    let mut system = stage.world.system();
    system.bonds = provider.bond;
    system.burned = system.burned.checked_add(lost).unwrap();
    stage.world.state.insert(key, provider.to_slot());
    stage.world.state.insert(System::key(), system.to_slot());
    stage.play(
        "
        a open p quota=1              => NoCapacity
        p update address=10.0.0.1:1
        p update capacity=1001        => BondTooSmall
        p update bond=1s
        a open p quota=1
        ",
    );
}

#[test]
fn an_exit_is_complete_in_its_epoch_and_not_in_the_one_before() {
    let mut stage = Stage::new();
    stage.play("p register\n epoch 2\n p leave");
    let mut left = None;
    while left.is_none() {
        let code = stage.attempt("p leave").expect("it is an operation");
        let epoch = stage.world.parameters.epoch(stage.world.height);
        match code.as_str() {
            "Done" => left = Some(epoch),
            code => assert_eq!(code, "ExitEarly"),
        }
    }
    assert_eq!(left, Some(2 + stage.world.parameters.unbonding_epochs));
}

#[test]
fn a_refusal_counts_for_an_epoch_and_not_a_block_longer() {
    let mut stage = Stage::new();
    stage.play("p register\n blocks 90");
    let epoch = stage.world.parameters.epoch_blocks();
    let stale = stage.world.height + 1 - (epoch + 1);
    stage.play(&format!("b refusal p leaves=5 height={stale} => RefusalStale"));
    let last = stage.world.height + 1 - epoch;
    stage.play(&format!("b refusal p leaves=5 height={last}"));
}

#[test]
fn a_bond_covers_the_capacity_that_it_pays_for_and_not_a_leaf_more() {
    let mut stage = Stage::new();
    stage.play(
        "
        p register bond=1200s
        p update capacity=2000000001  => BondTooSmall
        p update capacity=2000000000
        ",
    );
}
