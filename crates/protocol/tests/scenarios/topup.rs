//! A top-up buys at today's price, and reprices no earlier payment (AG-8, VO-3).

use crate::{books::row, script::Stage, world::account};
use posync_protocol::{
    Class, Record,
    record::{Market, Usage},
};

fn post(stage: &mut Stage, price: u64, slow: u64) {
    let market = Market { price, slow, ..Market::default() };
    stage.world.state.insert(Market::key(Class::Egress), market.to_slot());
}

/// Pay of `p` for eight MiB that it sent, whose voucher it holds and whose price is in the reserve.
fn paid(between: &str, (price, slow): (u64, u64)) -> u128 {
    let mut stage = Stage::new();
    stage.play("p register\n a open p rate=1073741824 reserve=8000000");
    post(&mut stage, price, slow);
    stage.play(between);
    stage.play("p redeem p/0 egress=8388608");
    row(&stage.world, &account("p"), 0).expect("it was paid").pay.grains()
}

/// The posted price can double in six epochs; the slow price follows by a 128th of the gap in each.
#[test]
fn a_grain_on_top_burns_nothing_that_was_earned() {
    let alone = paid("blocks 1", (2_000_000, 1_030_000));
    assert_eq!(alone, 6_000_000, "three quarters of eight MiB at the price of the opening");
    let after = paid("a topup p/0 1", (2_000_000, 1_030_000));
    assert!(after >= alone, "{after} of {alone} grains: the consumer pays as much, the rest is burned");
}

#[test]
fn a_grain_on_top_burns_nothing_that_was_earned_at_sixteen_times_the_price() {
    let after = paid("a topup p/0 1\n a closealone p/0", (16_000_000, 1_500_000));
    assert!(after >= 6_000_000, "{after} of 6000000 grains, and nothing more will ever come");
}

/// AG-8: a top-up lowers the price of no unredeemed use. After a long fall the price rises again.
/// The consumer adds a grain and pays as much as before; without the rule, its provider would get a
/// quarter.
#[test]
fn a_top_up_lowers_no_base_of_its_provider() {
    let mut stage = Stage::new();
    stage.play("p register");
    post(&mut stage, 4_000_000, 4_000_000);
    stage.play("a open p rate=1073741824 reserve=4000000\n p redeem p/0 egress=1048576");
    let base = |stage: &Stage| row(&stage.world, &account("p"), 0).expect("it was paid").base.grains();
    let before = base(&stage);
    assert_eq!(before, 4_000_000);
    post(&mut stage, 4_000_001, 1_000_000);
    stage.play("a topup p/0 4000001\n p redeem p/0 egress=2097152");
    assert!(base(&stage) - before >= before, "the same bytes: {} of {before}", base(&stage) - before);
}

/// The price is sixteen times as high, and the consumer signs for four MiB beyond its payment. At
/// once, in pieces, and again after one more grain, the old reserve pays for all eight MiB that it
/// bought.
#[test]
fn a_voucher_beyond_the_old_reserve_costs_it_nothing() {
    for pieces in [&[12][..], &[8, 12], &[3, 12], &[1, 5, 12]] {
        let mut stage = Stage::new();
        stage.play("p register\n a open p rate=1073741824 reserve=8000000");
        post(&mut stage, 16_000_000, 1_500_000);
        stage.play("a topup p/0 1");
        post(&mut stage, 32_000_000, 3_000_000);
        stage.play("a topup p/0 32000000");
        for mib in pieces {
            stage.play(&format!("p redeem p/0 egress={}", mib << 20));
        }
        let row = row(&stage.world, &account("p"), 0).expect("it was paid");
        assert!(row.base.grains() >= 8_000_000, "{} in {pieces:?}", row.base.grains());
        assert!(row.redeemed.egress >= 8 << 20, "{} in {pieces:?}", row.redeemed.egress);
    }
}

/// Above the use that the old reserve pays for, the price is that of the top-up, for any number of
/// top-ups. Each sum buys at the price of its day, in one voucher or in many.
#[test]
fn each_sum_buys_at_the_price_of_its_day() {
    for pieces in [&[8][..], &[1, 2, 3, 4, 5, 6, 7, 8], &[3, 8]] {
        let mut stage = Stage::new();
        stage.play("p register\n a open p rate=1073741824 reserve=2000000");
        post(&mut stage, 2_000_000, 2_000_000);
        stage.play("a topup p/0 4000000");
        post(&mut stage, 4_000_000, 3_000_000);
        stage.play("a topup p/0 16000000");
        for mib in pieces {
            stage.play(&format!("p redeem p/0 egress={}", mib << 20));
        }
        let usage: Usage = stage.world.get(Usage::key(&account("p"), 0)).expect("it stands");
        assert_eq!((usage.redeemed.egress, usage.signed.grains()), (8 << 20, 22_000_000), "{pieces:?}");
        assert_eq!(usage.voucher_reserve.grains(), 0);
        let row = row(&stage.world, &account("p"), 0).expect("it was paid");
        assert_eq!(row.base.grains(), 2_000_000 + 4_000_000 + 12_000_000, "{pieces:?}");
    }
}

/// Two classes share a reserve, and half of it bought gas. The price of egress rises. The egress
/// that the whole reserve would have bought keeps its price, and gas costs the same as before.
#[test]
fn a_rise_of_one_class_leaves_the_other_alone() {
    let mut stage = Stage::new();
    stage.play("p register\n a open p rate=1073741824 rate_gas=900000000 reserve=2000000");
    post(&mut stage, 4_000_000, 4_000_000);
    stage.play("a topup p/0 9000000\n p redeem p/0 egress=3145728 gas=524288000");
    let usage: Usage = stage.world.get(Usage::key(&account("p"), 0)).expect("it stands");
    assert_eq!(usage.signed.grains(), 500_000 + 2_000_000 + 4_000_000, "500 MiB of gas, three of egress");
    let lock = usage.lock.expect("egress rose");
    assert_eq!(
        (lock.from.egress, lock.from.gas, lock.prices.gas.price, lock.before.gas.price),
        (2 << 20, 0, 1_000, 1_000)
    );
}
