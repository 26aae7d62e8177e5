//! Agreements: opening, closing, keys.

use crate::{
    script::{Stage, check},
    world::{FUNDED, account},
};
use posync_protocol::{
    Amount, Class, Code, PerClass,
    agreement::{deposit, storage_reserve},
    ledger::{AgreementChange, Event},
    record::{Agreement, Ending, Provider, Usage},
};

pub(crate) const ACCEPTED: &str = "
    p register
    a open p slot=0
    b open p slot=1 end=720 quota=0 reserve=0
    a topup p/0 5s
    b topup p/1 1
    a rotate p/0 fresh
    a close p/0 second=p
    a open p slot=0
    p close p/0 second=a
    a open p slot=0
    a closealone p/0
    a close p/0 second=p
    q register
    a open q
    a open q slot=1
    q leave
    epoch 6
    q closealone q/0
    a closealone q/1
";

pub(crate) const REFUSED: &str = "
    p register capacity=4000
    a open p reserve=2000000s                          => Balance
    a open q                                           => ProviderUnknown
    a open p max_storage=9999999                       => PriceAboveMaximum
    a open p max_egress=999999                         => PriceAboveMaximum
    a open p max_gas=999                               => PriceAboveMaximum
    p update storage=10000001
    a open p                                           => PriceBelowReserve
    p update egress=1000001
    a open p                                           => PriceBelowReserve
    p update gas=1001
    a open p                                           => PriceBelowReserve
    p update gas_out=0
    a open p                                           => NoGas
    p update gas_out=1000000000000
    p update
    a open p quota=4001                                => NoCapacity
    a open p quota=2097153                             => !BadShape
    a open p quota=max                                 => !BadShape
    a open p quota_egress=max                          => !BadShape
    a open p quota_gas=max                             => !BadShape
    a open p rate=max                                  => !BadShape
    a open p rate_gas=max                              => !BadShape
    a open p slot=1048576                              => !BadShape
    a open p slot=4294967295                           => !BadShape
    a open p end=0                                     => TermTooLong
    a open p end=9999                                  => TermTooLong
    a open p end=max                                   => TermTooLong
    a open p storage_max=1                             => EscrowTooSmall
    p update term=9
    a open p end=10                                    => TermTooLong
    a open p end=max                                   => TermTooLong
    p update
    a topup p/0 1                                      => AgreementUnknown
    a close p/0 second=p consumer=a                    => AgreementUnknown
    a closealone p/0                                   => AgreementUnknown
    a rotate p/0 fresh                                 => AgreementUnknown
    p update storage=10000000 egress=1000000
    a open p max_storage=10000000 max_egress=1000000 max_gas=1000
    p update
    b open p                                           => SlotTaken
    b topup p/0 1                                      => WrongParty
    p topup p/0 1                                      => WrongParty
    a topup p/0 1 max_egress=999999                    => PriceAboveMaximum
    a topup p/0 1 max_gas=999                          => PriceAboveMaximum
    a topup p/0 1 max_egress=1000000 max_gas=1000
    a topup p/0 1 opened=1                             => AgreementUnknown
    a topup p/0 1 opened=max                           => AgreementUnknown
    a topup p/0 0                                      => !BadShape
    a topup p/0 2000000s                               => Balance
    b close p/0 second=p                               => WrongParty
    a close p/0 second=p last=1                        => Expired
    a close p/0 second=p end=5                         => BadShape
    a close p/0 second=p end=max                       => BadShape
    a close p/0 second=p consumer=b                    => BadShape
    a close p/0 second=p index=1                       => BadShape
    a close p/0 second=p index=1048576                 => !BadShape
    b closealone p/0                                   => WrongParty
    p closealone p/0                                   => NoticeMissing
    b rotate p/0 fresh                                 => WrongParty
    p rotate p/0 fresh                                 => WrongParty
    a rotate p/0 fresh
    a rotate p/0 fresher                               => KeyRotated
    a closealone p/0
    a closealone p/0                                   => AgreementClosed
    a topup p/0 1                                      => AgreementClosed
    a rotate p/0 fresh                                 => AgreementClosed
    a open p slot=1 end=8
    epoch 8
    a topup p/1 1                                      => AgreementEnded
    a closealone p/1                                   => AgreementEnded
    a rotate p/1 fresh                                 => AgreementEnded
";

#[test]
fn table() {
    check(ACCEPTED);
    check(REFUSED);
}

#[test]
fn an_opening_splits_the_escrow_and_a_close_by_both_returns_it() {
    let mut stage = Stage::new();
    stage.play("p register\n blocks 9\n a open p quota=1000 end=10 reserve=3s");
    let world = &stage.world;
    let round = world.parameters.round(world.height);
    let needed = storage_reserve(10_000_000, 1_000, 50 - round, &world.parameters).unwrap();
    let usage: Usage = world.get(Usage::key(&account("p"), 0)).unwrap();
    assert_eq!((usage.storage_reserve, usage.voucher_reserve), (needed, Amount::sync(3)));
    let terms: Agreement = world.get(Agreement::key(&account("p"), 0)).unwrap();
    assert_eq!(Some(usage.deposit), deposit(&terms, &world.parameters));
    let provider: Provider = world.get(Provider::key(&account("p"))).unwrap();
    assert_eq!((provider.pool, provider.sold[Class::Storage], provider.slots), (needed, 1_000, 1));
    let ending: Ending = world.get(Ending::key(&account("p"), 10)).unwrap();
    assert_eq!(ending.agreements, 1);
    let opened = world.events.iter().any(|event| {
        matches!(event, Event::Agreement { change: AgreementChange::Opened, consumer, .. } if *consumer == account("a"))
    });
    assert!(opened, "the opening is told");
    let fees = |world: &crate::world::World| {
        world.system().burned.grains() - world.parameters.registration_burn.grains()
    };
    let before = fees(&stage.world);
    stage.play("p close p/0 second=a");
    let world = &stage.world;
    let system = world.system();
    assert_eq!((system.voucher_reserves, system.deposits, system.storage_pools), Default::default());
    assert!(world.get::<Agreement>(Agreement::key(&account("p"), 0)).is_none());
    assert!(world.get::<Ending>(Ending::key(&account("p"), 10)).is_none());
    let lost = FUNDED.grains() - world.balance("a").grains();
    assert!(lost <= before, "the consumer lost fees only");
}

#[test]
fn idle_time_of_an_empty_provider_is_not_prepaid() {
    let world = check("p register\n epoch 5\n a open p quota=1000 end=10");
    let usage: Usage = world.get(Usage::key(&account("p"), 0)).unwrap();
    assert_eq!(usage.storage_reserve, storage_reserve(10_000_000, 1_000, 25, &world.parameters).unwrap());
}

#[test]
fn a_provider_closes_alone_no_earlier_than_it_may_leave() {
    let leaves = "p register\n a open p\n p leave\n p closealone p/0 => ExitEarly";
    let closing = |more: &str| {
        let world = check(&format!("{leaves}\n {more}"));
        world.get::<Usage>(Usage::key(&account("p"), 0)).expect("it stands").closing_epoch
    };
    assert_eq!(closing("epoch 5\n p closealone p/0 => ExitEarly\n epoch 6\n p closealone p/0"), Some(8));
    assert_eq!(closing("a closealone p/0"), Some(2), "its consumer waits for nothing");
}

#[test]
fn the_last_slot_can_be_used() {
    check("p register\n a open p slot=1048575\n a topup p/1048575 1\n a close p/1048575 second=p");
}

#[test]
fn what_is_sold_is_not_sold_again() {
    check(
        "p register capacity=1000
         a open p quota=600
         b open p slot=1 quota=401 => NoCapacity
         b open p slot=1 quota=400
         b open p slot=2 quota=1   => NoCapacity",
    );
}

/// The unit of each class in scripts, and the refusal of an opening beyond what is declared.
const DECLARED: [(Class, &str, Code); 3] = [
    (Class::Storage, "capacity", Code::NoCapacity),
    (Class::Egress, "out", Code::NoEgress),
    (Class::Compute, "gas_out", Code::NoGas),
];

/// An opening by `a` at `p` for one epoch that asks for `units` of a class and for nothing else.
fn only(class: Class, slot: u32, units: u64) -> String {
    let of = |other: Class| if other == class { units } else { 0 };
    let [storage, egress, gas] = Class::ALL.map(of);
    format!(
        "a open p slot={slot} end=1 quota={storage} quota_egress={egress} quota_gas={gas} reserve=0 storage_max=1000s"
    )
}

/// AG-9: what was not declared is not sold, in no class, and a declaration does not go below what is sold.
#[test]
fn nothing_is_sold_that_was_not_declared_in_any_class() {
    assert_eq!(DECLARED.map(|(class, ..)| class), Class::ALL);
    for (class, declared, code) in DECLARED {
        let mut stage = Stage::new();
        stage.world.draws = false;
        stage.play("p register capacity=0 out=0 gas_out=0");
        let sold = |stage: &Stage| {
            stage.world.get::<Provider>(Provider::key(&account("p"))).expect("registered").sold
        };
        stage.play(&format!("{} => {code:?}\n p update {declared}=1000", only(class, 0, 1)));
        stage.play(&format!("{} => {code:?}\n {}", only(class, 0, 1_001), only(class, 0, 999)));
        for other in Class::ALL {
            assert_eq!(sold(&stage)[other], if other == class { 999 } else { 0 }, "{class:?}");
        }
        stage.play(&format!("{} => {code:?}\n {}", only(class, 1, 2), only(class, 1, 1)));
        stage.play(&format!(
            "p update {declared}=999 => CapacityBelowSold\n {} => {code:?}",
            only(class, 2, 1)
        ));
        stage.play("a close p/0 second=p");
        assert_eq!(sold(&stage)[class], 1, "{class:?}: what was taken is free again");
        stage.play(&only(class, 2, 999));
        stage.play("a close p/1 second=p\n a close p/2 second=p");
        assert_eq!(sold(&stage), PerClass::default());
    }
}

/// AG-2: a provider's least price of a class counts for an opening that buys of it, and for no other.
#[test]
fn a_least_price_counts_where_the_class_is_bought() {
    for (class, least) in [
        (Class::Storage, "storage=10000001"),
        (Class::Egress, "egress=1000001"),
        (Class::Compute, "gas=1001"),
    ] {
        let mut stage = Stage::new();
        stage.play(&format!("p register {least}\n {} => PriceBelowReserve", only(class, 0, 1)));
        for (slot, other) in (0..).zip(Class::ALL.into_iter().filter(|other| *other != class)) {
            stage.play(&only(other, slot, 1));
        }
    }
}
