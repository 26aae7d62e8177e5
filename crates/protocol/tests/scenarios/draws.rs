//! Whom draws reach and what their reads fall on: nothing that ended, nobody that is silent.

use crate::{
    audits::{answer, holding, submit, until_drawn},
    keeper::{Keeper, bytes},
    script::Stage,
};
use posync_protocol::{Body, Code, ledger::Event};

/// (passed, reads) of the challenges that the last block closed by an answer.
fn judged(stage: &Stage) -> (u64, u64) {
    let audited = stage.world.events.iter().filter_map(|event| match event {
        Event::Audited { answered: true, passed, reads, .. } => Some((u64::from(*passed), u64::from(*reads))),
        _ => None,
    });
    audited.fold((0, 0), |sum, audit| (sum.0 + audit.0, sum.1 + audit.1))
}

/// `p` holds 69 leaves of `a` until epoch 700 and lost every one; and 4,096 of its own, in force for
/// one round before the end of epoch 2, when their agreement ends. Draws are off.
fn hiding() -> (Stage, Keeper) {
    let (mut stage, mut keeper) = holding(&[69 * 1024]);
    stage.world.draws = false;
    stage.play("p open p slot=1 quota=4096 end=3");
    keeper.lose_every(1);
    while stage.world.height < 111 {
        stage.world.block(&[]).expect("an empty block is valid");
    }
    stage.world.draws = true;
    until_drawn(&mut stage, &keeper);
    assert_eq!(answer(&mut stage, &keeper), Some(Ok(Code::Done)));
    stage.world.draws = false;
    let own = keeper.change(&stage.world, 1, &[], &[bytes(77, 4 << 20)]);
    assert_eq!(submit(&mut stage, "p", Body::SetDataSet(own)), Ok(Code::Done));
    assert_eq!(keeper.data_set(&stage.world, 1).current.leaves, 4_096, "in force before the epoch ends");
    stage.play("epoch 3");
    (stage, keeper)
}

#[test]
fn an_own_agreement_that_ended_hides_no_lost_leaf_of_a_customer() {
    let (mut stage, keeper) = hiding();
    let before = keeper.provider(&stage.world);
    stage.world.draws = true;
    let (mut passed, mut reads) = (0, 0);
    while stage.world.epoch() < 4 {
        if answer(&mut stage, &keeper).is_none() {
            stage.world.block(&[]).expect("an empty block is valid");
        }
        let (more, asked) = judged(&stage);
        (passed, reads) = (passed + more, reads + asked);
    }
    assert!(reads >= 40, "{reads} reads");
    assert_eq!(passed, 0, "of {reads} reads: every leaf that lives is lost");
    assert_eq!(keeper.provider(&stage.world).acc, before.acc, "nothing was proved, so nothing is paid");
    assert_eq!(keeper.audit(&stage.world).missing.len(), 4, "and what is lost is asked again");
}
