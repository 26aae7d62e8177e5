//! A consumer burns with one grain what its provider has earned and not redeemed yet (AG-8 x VO-3).

use crate::{books::row, script::Stage, world::account};
use posync_protocol::{
    Record,
    record::{EGRESS, Market},
};

fn post(stage: &mut Stage, price: u64, slow: u64) {
    let market = Market { price, slow, ..Market::default() };
    stage.world.state.insert(Market::key(EGRESS as u8), market.to_slot());
}

/// What `p` is paid for eight MiB that it sent, whose voucher it holds and whose price is in the reserve.
fn paid(between: &str, (price, slow): (u64, u64)) -> u128 {
    let mut stage = Stage::new();
    stage.play("p register\n a open p rate=1073741824 reserve=8000000");
    post(&mut stage, price, slow);
    stage.play(between);
    stage.play("p redeem p/0 egress=8388608");
    row(&stage.world, &account("p"), 0).expect("it was paid").pay.grains()
}

/// The posted price doubles in six epochs at most, the slow one follows by a 128th of the gap each.
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
