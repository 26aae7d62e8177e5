//! Accounts: transfers, nonces, fees, expiry.

use crate::{script::check, world::FUNDED};

pub(crate) const ACCEPTED: &str = "
    a send b 5s
    b send new 1
    a send a 3s
    a send b 1 fee=1s
    a send b 1 expires=245
";

pub(crate) const REFUSED: &str = "
    a send b 2000000s        => Balance
    a send b 0               => !BadShape
    a send b 1 nonce=2       => !NonceGap
    a send b 1 nonce=0       => !NonceOld
    a send b 1 fee=1         => !FeeAboveMaximum
    nobody send a 1          => !UnknownAccount
    a send b 1 expires=3     => !Expired
    a send b 1 expires=9999  => !Expired
    a send new 1
    new send a 1             => !Balance
    a send poor 500000
    poor send newer 1        => Balance
";

#[test]
fn table() {
    check(ACCEPTED);
    check(REFUSED);
}

#[test]
fn a_transfer_moves_the_amount_and_burns_the_fee() {
    let world = check("a send b 5s");
    let system = world.system();
    let five = posync_protocol::Amount::sync(5);
    assert_eq!(world.balance("b"), FUNDED.checked_add(five).unwrap());
    let spent = FUNDED.checked_sub(world.balance("a")).unwrap();
    assert_eq!(spent, five.checked_add(system.burned).unwrap());
    assert!(system.burned.grains() > 0);
}

#[test]
fn a_transfer_that_opens_an_account_burns_what_its_record_costs_for_ever() {
    let burned = |script: &str| check(script).system().burned.grains();
    let (opens, adds) = (burned("a send new 1"), burned("a send b 1"));
    let price = posync_protocol::limits::Parameters::LOCAL.account_burn.grains();
    assert_eq!(opens - adds, price);
    assert_eq!(burned("a send new 1\n a send new 1"), opens + adds, "once");
    assert_eq!(check("a send new 7").balance("new").grains(), 7, "who is paid gets all of it");
}

#[test]
fn a_refusal_leaves_fee_and_nonce_behind_and_nothing_else() {
    let world = check("a send b 2000000s => Balance");
    assert_eq!(world.balance("b"), FUNDED);
    assert_eq!(FUNDED.checked_sub(world.balance("a")), Some(world.system().burned));
    check("a send b 2000000s => Balance\n a send b 1 nonce=1");
}
