//! Smaller promises of the rules that an enemy breaks.

use crate::{
    audits::{answer, holding, submit, until_drawn},
    books::row,
    keeper::bytes,
    script::Stage,
    sets::settled,
    world::account,
};
use posync_protocol::{
    Body, Code, Record,
    record::{EGRESS, Market, Standing},
};

fn post(stage: &mut Stage, price: u64, slow: u64) {
    let market = Market { price, slow, ..Market::default() };
    stage.world.state.insert(Market::key(EGRESS as u8), market.to_slot());
}

/// AG-8: a top-up makes nothing that is not redeemed yet cheaper. The price fell for long and rose
/// again: the consumer adds a grain, pays as much as before, and its provider gets a quarter.
#[test]
fn a_top_up_lowers_no_base_of_its_provider() {
    let mut stage = Stage::new();
    stage.play("p register");
    post(&mut stage, 4_000_000, 4_000_000);
    stage.play("a open p rate=1073741824\n p redeem p/0 egress=1048576");
    let base = |stage: &Stage| row(&stage.world, &account("p"), 0).expect("it was paid").base.grains();
    let before = base(&stage);
    assert_eq!(before, 4_000_000);
    post(&mut stage, 4_000_001, 1_000_000);
    stage.play("a topup p/0 1\n p redeem p/0 egress=2097152");
    assert!(base(&stage) - before >= before, "the same bytes: {} of {before}", base(&stage) - before);
}

/// JL-4: no data set with who is jailed gets more leaves than are in force. What was brought before and
/// waits does.
#[test]
fn growth_that_waits_does_not_take_effect_in_jail() {
    let (mut stage, mut keeper) = holding(&[10_000]);
    until_drawn(&mut stage, &keeper);
    let large = keeper.change(&stage.world, 0, &[], &[bytes(7, 900_000)]);
    assert_eq!(submit(&mut stage, "a", Body::SetDataSet(large)), Ok(Code::Done));
    let place = Standing::key(&account("p"));
    let mut standing: Standing = stage.world.get(place).expect("it registered");
    (standing.jailed_until, standing.jailings, standing.last_jailed) = (40, 1, 1);
    stage.world.state.insert(place, standing.to_slot());
    assert_eq!(answer(&mut stage, &keeper), Some(Ok(Code::Done)));
    assert_eq!(keeper.data_set(&stage.world, 0).current.leaves, 10, "as many as were in force");
}

/// DR-5: a draw that closes a stale challenge opens none, so that who closed is refunded in the block
/// that closes it. With eight draws a block, as production has, the next draw of the block opens one.
#[test]
fn a_close_is_refunded_with_the_draws_of_production() {
    let (mut stage, keeper) = holding(&[60_000]);
    (stage.world.parameters.draws, stage.world.parameters.draw_every_blocks) = (8, 1);
    until_drawn(&mut stage, &keeper);
    stage.play("a closealone p/0");
    let window = stage.world.epoch() + stage.world.parameters.redemption_epochs;
    stage.play(&format!("epoch {window}"));
    let mut closed = false;
    for _ in 0..400 {
        let upkeep = stage.world.sign("b", Body::Settle(keeper.settle(&stage.world, &[0])));
        if stage.world.submit(&upkeep) == Ok(Code::Done) {
            closed = true;
            break;
        }
    }
    assert!(closed, "a challenge is open in every block for {} epochs", 400 / 40);
}

/// AG-5, ST-8: signed by both, a close is immediate and ends the agreement's pay at the last
/// settlement. With a challenge open it goes on to be paid, and to burn for what it reserves.
#[test]
fn a_close_by_both_ends_the_pay_though_a_challenge_is_open() {
    let (mut stage, keeper) = holding(&[60_000]);
    settled(&mut stage, &keeper);
    stage.world.draws = true;
    until_drawn(&mut stage, &keeper);
    let before = keeper.provider(&stage.world);
    stage.play("a close p/0 second=p");
    let burned = stage.world.system().burned;
    for _ in 0..80 {
        if answer(&mut stage, &keeper).is_none() {
            stage.world.block(&[]).expect("an empty block is valid");
        }
    }
    let rounds = (keeper.provider(&stage.world).acc - before.acc) / 1_000_000_000;
    let _ = burned;
    assert!(rounds <= 3, "paid {rounds} rounds after a close that is immediate");
}
