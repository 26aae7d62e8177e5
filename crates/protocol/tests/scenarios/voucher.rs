//! Vouchers: the check that all paths share, and redemption.

use crate::{
    capacity::{measure_in, measured_network},
    script::{Stage, check},
    world::{FUNDED, account},
};
use posync_protocol::{
    Amount, Body, Bounded, Class, Code, Record,
    ledger::Event,
    operation::Redeem,
    record::{Closing, Market, Settlement, Usage},
};

pub(crate) const ACCEPTED: &str = "
    p register
    a open p
    p redeem p/0 egress=65536
    p redeem p/0 egress=65536 gas=5
    p redeem p/0 egress=70000 gas=5 claim=90000
    a rotate p/0 fresh
    p redeem p/0 egress=80000 gas=5
    p redeem p/0 egress=90000 gas=5 session=fresh
    a closealone p/0
    epoch 1
    p redeem p/0 egress=95000 gas=6 session=fresh
    a open p slot=1 end=3
    epoch 4
    p redeem p/1 egress=1
";

pub(crate) const REFUSED: &str = "
    p register
    a open p quota_egress=100000 quota_gas=1000 rate=50000 rate_gas=800 reserve=70000
    p redeem                                   => !BadShape
    p redeem p/0 egress=9 claim=8              => !BadShape
    a redeem p/0 egress=1                      => !WrongParty
    p redeem p/0 slot=1048576 egress=1         => !BadShape
    p redeem p/0 egress=1 session=thief        => BadSignature
    p redeem p/1 egress=1                      => AgreementUnknown
    p redeem p/0 opened=1 egress=1             => AgreementUnknown
    p redeem p/0 opened=max egress=1           => AgreementUnknown
    p redeem p/0 egress=0                      => VoucherNothingNew
    p redeem p/0 egress=40000
    p redeem p/0 egress=40000                  => VoucherNothingNew
    p redeem p/0 egress=39999 gas=5            => VoucherWentBack
    p redeem p/0 egress=100001                 => VoucherOverQuota
    p redeem p/0 egress=max                    => VoucherOverQuota
    p redeem p/0 egress=40000 gas=1001         => VoucherOverQuota
    p redeem p/0 egress=40000 gas=max          => VoucherOverQuota
    blocks 8
    a open p slot=1 rate=50000 rate_gas=800
    p redeem p/1 egress=50001                  => VoucherOverRate
    p redeem p/1 egress=50000 gas=801          => VoucherOverRate
    p redeem p/1 egress=50000 gas=800
    p redeem p/0 egress=90000
    p redeem p/0 egress=95000                  => VoucherReserveEmpty
    a rotate p/1 fresh
    epoch 3
    p redeem p/1 egress=60000 gas=800          => BadSignature
    a closealone p/1
    epoch 5
    p redeem p/1 egress=60000 gas=800 session=fresh => WindowOver
    a open p slot=2 end=7
    epoch 9
    p redeem p/2 egress=1                      => WindowOver
";

#[test]
fn table() {
    check(ACCEPTED);
    check(REFUSED);
}

/// Redeems the vouchers `(egress, gas)` of agreement p/0 in one operation.
fn redeem(stage: &mut Stage, units: &[(u64, u64)]) -> Code {
    let id = stage.id("p/0");
    let vouchers = units.iter().map(|(egress, gas)| stage.redemption_of(id, "session", *egress, *gas));
    let vouchers = Bounded::new(vouchers.collect()).unwrap();
    let operation = stage.world.sign("p", Body::Redeem(Redeem { vouchers }));
    stage.world.submit(&operation).unwrap()
}

fn opened() -> Stage {
    let mut stage = Stage::new();
    stage.play("p register\n a open p reserve=1s\n blocks 8");
    stage
}

#[test]
fn a_redemption_pays_by_the_rule_and_tells_it() {
    let mut stage = opened();
    let before = stage.world.system();
    assert_eq!(redeem(&mut stage, &[(1 << 20, 0)]), Code::Done);
    let system = stage.world.system();
    let settled = stage.world.events.iter().find_map(|event| match event {
        Event::Settled { agreement: Some(id), provider, fee, burn, committee, pay, .. } => {
            Some((*id, *provider, [*fee, *burn, *committee, *pay].map(Amount::grains)))
        }
        _ => None,
    });
    let parts = [1_000_000, 200_000, 50_000, 750_000];
    assert_eq!(settled, Some((stage.id("p/0"), account("p"), parts)));
    assert_eq!(before.voucher_reserves.grains() - system.voucher_reserves.grains(), 1_000_000);
    assert_eq!(system.committee.grains(), 50_000);
    let row: Settlement = stage.world.get(Settlement::key(&account("p"), 0)).unwrap();
    assert_eq!([row.fee, row.burn, row.committee, row.pay].map(Amount::grains), parts);
    let usage: Usage = stage.world.get(Usage::key(&account("p"), 0)).unwrap();
    assert_eq!((usage.redeemed.egress, usage.signed.grains()), (1 << 20, 1_000_000));
}

#[test]
fn a_row_starts_again_in_its_next_epoch() {
    let mut stage = opened();
    redeem(&mut stage, &[(1 << 20, 0)]);
    stage.world.skip_to_epoch(1);
    redeem(&mut stage, &[(2 << 20, 0)]);
    for place in [0, 1] {
        let row: Settlement = stage.world.get(Settlement::key(&account("p"), place)).unwrap();
        assert_eq!((row.epoch, row.fee.grains()), (place, 1_000_000));
    }
}

#[test]
fn vouchers_that_are_all_refused_are_refused_with_the_lowest_code_in_any_order() {
    let mut stage = opened();
    assert_eq!(redeem(&mut stage, &[(300, 7)]), Code::Done);
    let lowest = Code::VoucherOverQuota.min(Code::VoucherWentBack);
    assert_ne!(Code::VoucherOverQuota, Code::VoucherWentBack);
    for refused in [[(100, 0), (1 << 40, 7)], [(1 << 40, 7), (100, 0)]] {
        assert_eq!(redeem(&mut stage, &refused), lowest);
    }
}

#[test]
fn each_voucher_is_judged_apart() {
    let mut stage = opened();
    assert_eq!(redeem(&mut stage, &[(100, 0), (1 << 40, 0), (300, 7)]), Code::Done);
    let refused: Vec<Code> = stage
        .world
        .events
        .iter()
        .filter_map(|event| match event {
            Event::VoucherRefused { code, .. } => Some(*code),
            _ => None,
        })
        .collect();
    assert_eq!(refused, [Code::VoucherOverQuota, Code::VoucherWentBack]);
    let usage: Usage = stage.world.get(Usage::key(&account("p"), 0)).unwrap();
    assert_eq!((usage.redeemed.egress, usage.redeemed.gas), (300, 7));
}

#[test]
fn above_the_reserve_units_count_as_far_as_they_are_paid() {
    let mut stage = Stage::new();
    stage.play("p register\n a open p reserve=1000\n p redeem p/0 egress=1048576");
    let usage: Usage = stage.world.get(Usage::key(&account("p"), 0)).unwrap();
    assert_eq!((usage.signed.grains(), usage.redeemed.egress), (999, 1_048), "what a thousand grains buy");
    assert_eq!(stage.world.system().voucher_reserves.grains(), 1);
    let row: Settlement = stage.world.get(Settlement::key(&account("p"), 0)).unwrap();
    assert_eq!((row.redeemed.egress, row.fee.grains()), (1_048, 999));
    stage.play("a topup p/0 5s\n blocks 8\n p redeem p/0 egress=1048576");
    let usage: Usage = stage.world.get(Usage::key(&account("p"), 0)).unwrap();
    assert_eq!(
        (usage.signed.grains(), usage.redeemed.egress),
        (1_000_000, 1 << 20),
        "the rest, after a top-up"
    );
}

const GIB: u64 = 1 << 30;

/// A whole byte costs less than a grain, and the next one more: one grain buys nothing yet.
#[test]
fn a_voucher_of_which_not_a_grain_can_be_paid_is_refused() {
    let mut stage = Stage::new();
    let line = format!("a open p reserve=1 quota_egress={} rate={}", 4 * GIB, 4 * GIB);
    stage.play(&format!("p register\n {line}\n p redeem p/0 egress={} => VoucherReserveEmpty", 4 * GIB));
    let usage: Usage = stage.world.get(Usage::key(&account("p"), 0)).unwrap();
    assert_eq!((usage.redeemed.egress, usage.voucher_reserve.grains()), (0, 1));
    assert!(stage.world.get::<Settlement>(Settlement::key(&account("p"), 0)).is_none(), "nothing was used");
    stage.play(&format!("a topup p/0 1\n p redeem p/0 egress={}", 4 * GIB));
    let usage: Usage = stage.world.get(Usage::key(&account("p"), 0)).unwrap();
    assert_eq!((usage.redeemed.egress, usage.signed.grains()), (2, 1), "what two grains buy");
}

/// The base of a short redemption is the slow price of the units that it paid for.
#[test]
fn a_short_redemption_weighs_no_more_than_its_units_at_the_slow_price() {
    let mut stage = Stage::new();
    let market = Market { price: 2_000_000, slow: 1_000_000, ..Market::default() };
    stage.world.state.insert(Market::key(Class::Egress), market.to_slot());
    stage.play("p register\n a open p reserve=1000\n p redeem p/0 egress=1048576");
    let row: Settlement = stage.world.get(Settlement::key(&account("p"), 0)).unwrap();
    assert_eq!((row.redeemed.egress, row.fee.grains(), row.base.grains()), (524, 999, 499));
}

/// Paid in grain by grain, the reserve pays as much in all as at once, for as many units.
#[test]
fn tiny_top_ups_drift_nowhere() {
    let mut stage = Stage::new();
    stage.play("p register\n a open p reserve=0\n blocks 8");
    for _ in 0..60 {
        stage.play("a topup p/0 1");
        let code = redeem(&mut stage, &[(1 << 20, 0)]);
        assert!(matches!(code, Code::Done | Code::VoucherReserveEmpty), "{code:?}");
    }
    let usage: Usage = stage.world.get(Usage::key(&account("p"), 0)).unwrap();
    let (paid, left) = (usage.signed.grains(), usage.voucher_reserve.grains());
    assert_eq!(paid + left, 60);
    let price = u128::from(usage.redeemed.egress) * 1_000_000 / (1 << 20);
    assert_eq!(price, paid, "what is redeemed costs what was paid");
    assert!(left <= 1, "{left}");
}

/// A provider redeems 4 GiB an epoch under its own agreement that holds a grain, where 1 GiB an
/// epoch is offered.
#[test]
fn use_that_nobody_paid_pumps_no_price() {
    for pumped in ["p", "q"] {
        let mut stage = measured_network(GIB);
        measure_in(&mut stage, "p", 1..4, 8 << 20);
        stage.play("a update out=0\n b update out=0");
        let terms = format!("quota=0 quota_gas=0 reserve=1 quota_egress={} rate={}", 60 * GIB, 4 * GIB);
        stage.play(&format!("a open {pumped} {terms} end=700"));
        for epoch in 5..13 {
            stage.world.skip_to_epoch(epoch);
            stage.play(&format!("a topup {pumped}/0 1"));
            stage.attempt(&format!("p redeem {pumped}/0 egress={}", (epoch - 4) * 4 * GIB));
            stage.attempt(&format!("q redeem {pumped}/0 egress={}", (epoch - 4) * 4 * GIB));
        }
        let market: Market = stage.world.get(Market::key(Class::Egress)).expect("it was looked at");
        assert_eq!(u128::from(market.price), stage.world.parameters.prices[Class::Egress]);
        assert!(market.capacity > 0 && market.used < 1_000, "{market:?}");
    }
}

/// Paid use of a provider that was never measured does not count as use of the others' capacity.
#[test]
fn paid_use_counts_only_where_capacity_does() {
    let used = |seller: &str| {
        let mut stage = measured_network(GIB);
        measure_in(&mut stage, "p", 1..4, 8 << 20);
        let terms = format!("quota=0 quota_gas=0 reserve=9s quota_egress={} rate={}", 4 * GIB, 4 * GIB);
        stage.play(&format!("a open {seller} {terms} end=700\n {seller} redeem {seller}/0 egress={GIB}"));
        let epoch = stage.world.epoch();
        stage.world.skip_to_epoch(epoch + 2);
        let closing: Closing = stage.world.get(Closing::of(epoch)).expect("it is measured");
        (closing.epoch == epoch, closing.capacity[Class::Egress] > 0, closing.used[Class::Egress])
    };
    assert_eq!(used("p"), (true, true, GIB.into()));
    assert_eq!(used("q"), (true, true, 0));
}

#[test]
fn a_claim_counts_as_disputed_up_to_what_the_voucher_pays() {
    let claim = |units: u64| {
        let script = format!("p register\n a open p\n p redeem p/0 egress=1048576 claim={units}");
        let usage: Usage = check(&script).get(Usage::key(&account("p"), 0)).unwrap();
        usage.disputed.grains()
    };
    assert_eq!(claim(1_048_576), 0);
    assert_eq!(claim(1_048_576 + 524_288), 500_000);
    assert_eq!(claim(u64::MAX), 1_000_000);
}

#[test]
fn a_gap_is_disputed_once_however_often_it_is_told() {
    let disputed = |redemptions: &str| {
        let world = check(&format!("p register\n a open p rate=1073741824{redemptions}"));
        let usage: Usage = world.get(Usage::key(&account("p"), 0)).unwrap();
        usage.disputed.grains()
    };
    const M: u64 = 1 << 20;
    let redeem = |paid: u64, claimed: u64| format!("\n p redeem p/0 egress={paid} claim={claimed}");
    for (name, redemptions, expected) in [
        ("nothing beyond", vec![(M, M)], 0),
        ("once", vec![(M, M + M / 4)], 250_000),
        ("with every voucher", vec![(M, M + M / 4), (2 * M, 2 * M + M / 4), (3 * M, 3 * M + M / 4)], 250_000),
        ("grown", vec![(M, M + M / 4), (2 * M, 2 * M + M / 2)], 500_000),
        ("paid in the end", vec![(M, M + M / 4), (2 * M, 2 * M), (3 * M, 3 * M + M / 4)], 250_000),
        ("more than is paid comes with what is paid next", vec![(M, 5 * M), (2 * M, 6 * M)], 2_000_000),
        ("up to the gap", vec![(M, 2 * M), (4 * M, 5 * M)], 1_000_000),
        ("without limit", vec![(M, u64::MAX), (2 * M, u64::MAX), (4 * M, u64::MAX)], 4_000_000),
    ] {
        let script: String = redemptions.iter().map(|(paid, claimed)| redeem(*paid, *claimed)).collect();
        assert_eq!(disputed(&script), expected, "{name}");
    }
}

#[test]
fn a_provider_that_only_redeems_gains_what_it_is_paid_less_its_fees() {
    let world = check("p register bond=1000s\n a open p\n p redeem p/0 egress=1048576");
    let (system, bond) = (world.system(), Amount::sync(1_000));
    let spent = FUNDED.grains() - bond.grains() - world.balance("p").grains();
    assert!(spent + 750_000 <= system.burned.grains() - 200_000, "{spent}");
}

#[test]
fn a_replaced_key_redeems_through_its_window_and_not_in_the_epoch_after() {
    check(
        "p register
         a open p
         p redeem p/0 egress=5
         a rotate p/0 fresh
         epoch 1
         p redeem p/0 egress=10
         epoch 2
         p redeem p/0 egress=15 => BadSignature
         p redeem p/0 egress=15 session=fresh",
    );
}
