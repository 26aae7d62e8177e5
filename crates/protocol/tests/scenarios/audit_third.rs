//! Faults that a third audit of the rules found: each test fails as long as its fault is there.

use crate::{
    audits::{answer, holding, submit, until_drawn},
    books::{reputation, run_to, steps},
    model_provider::{ModelProvider, bytes},
    punished::one_draw_an_epoch,
    script::Stage,
    world::account,
};
use posync_protocol::{
    Body, Code, Record,
    ledger::{ReputationReason, ReputationStep},
    record::{Provider, Reputation},
};

/// JL-1, JL-2: three low epochs in a row suspend. One bad hour is one bad epoch, however rarely it is drawn
/// afterwards: every answer after it is on time.
#[test]
fn one_bad_epoch_suspends_nobody_who_is_drawn_rarely() {
    let (mut stage, member) = holding(&[70_000]);
    // An epoch of 160 blocks; that of production has 86,400.
    stage.world.parameters.epoch_rounds = 20;
    let mut late = 0;
    // In the first epoch each answer comes two blocks after the deadline.
    while stage.world.height < 160 {
        let open = member.audit(&stage.world).challenge;
        let deadline = stage.world.parameters.deadline_blocks;
        if open.is_some_and(|open| stage.world.height + 1 > open.height + deadline + 1) {
            assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
            late += 1;
        } else {
            stage.world.block(&[]).expect("an empty block is valid");
        }
    }
    one_draw_an_epoch(&mut stage);
    let before = member.audit(&stage.world);
    let events = run_to(&mut stage, &member, 24, true);
    let audit = member.audit(&stage.world);
    let after = audit.drawn / 4 - before.drawn / 4;
    let suspended = (ReputationStep::Suspended, ReputationReason::Availability);
    assert!(
        !steps(&events).contains(&suspended),
        "{late} late in epoch 0, then {after} answers ({:b} on time): {:?}",
        audit.on_time,
        steps(&events)
    );
}

/// PV-3, AG-6: from the 8th epoch after its notice a provider may end agreements alone. Until then its
/// consumer pays, may pay for reading what it stored, may replace a stolen session key, and needs nobody's
/// consent to delete (DS-3).
#[test]
fn a_provider_that_gives_notice_freezes_no_agreement_before_it_may_end_it() {
    let mut left = Vec::new();
    for asked in ["a topup p/0 1s", "a rotate p/0 other", "empty", "signed by both before"] {
        let (mut stage, mut member) = holding(&[70_000]);
        let start = stage.world.epoch();
        run_to(&mut stage, &member, start + 3, true);
        stage.world.draws = false;
        let grown = member.change(&stage.world, 0, &[], &[bytes(9, 40_000)]);
        stage.play("p leave\n p closealone p/0 => ExitEarly");
        let got = if asked == "empty" {
            let tree = posync_protocol::tree::SumTree::default();
            let version = member.data_set(&stage.world, 0).current.version + 1;
            let mut set = member.claim(&stage.world, 0, version, &tree);
            set.provider_signature = None;
            format!("{:?}", submit(&mut stage, "a", Body::SetDataSet(set)).expect("it is charged"))
        } else if asked == "signed by both before" {
            format!("{:?}", submit(&mut stage, "a", Body::SetDataSet(grown)).expect("it is charged"))
        } else {
            stage.attempt(asked).expect("an operation")
        };
        let provider = member.provider(&stage.world);
        left.push((asked, got, provider.leaves_at - stage.world.epoch()));
    }
    assert!(left.iter().all(|(_, got, _)| got == "Done"), "{left:?} epochs before it may leave");
    let (mut stage, _) = holding(&[70_000]);
    stage.world.draws = false;
    stage.play("p leave");
    let leaves_at = stage.world.get::<Provider>(Provider::key(&account("p"))).expect("there").leaves_at;
    let last = leaves_at - stage.world.parameters.redemption_epochs;
    stage.play(&format!(
        "epoch {}\n p closealone p/0 => ExitEarly\n epoch {last}\n p closealone p/0",
        last - 1
    ));
}

/// JL-5: who left jail, and is right and on time ever after, has a score that rises again, whatever its
/// latency is, and before any auditor came by.
#[test]
fn who_left_jail_and_does_everything_right_leaves_probation() {
    let (mut stage, member) = holding(&[70_000]);
    let start = stage.world.epoch();
    run_to(&mut stage, &member, start + 4, true);
    let unjailed = Reputation { probation: 3, ..reputation(&stage.world) };
    stage.world.state.insert(Reputation::key(&account("p")), unjailed.to_slot());
    let start = stage.world.epoch();
    run_to(&mut stage, &member, start + 60, true);
    let now = reputation(&stage.world);
    assert_eq!(
        now.probation,
        0,
        "after 60 epochs of right answers on time, proven {}, on time {}, score {}",
        now.proven,
        now.on_time,
        now.score()
    );
}

/// AG-7: the price of an agreement follows from its terms and the data that it held, not from the party that
/// touched it, nor from the time. Any stranger may clear an ended slot free of charge; that costs the consumer
/// nothing, because it filled its quota.
#[test]
fn a_strangers_free_upkeep_costs_the_consumer_nothing() {
    let returned = |clears: bool| {
        let mut stage = Stage::new();
        stage.play("p register\n a open p quota=98000 end=6 quota_egress=0 quota_gas=0 reserve=0");
        let mut member = ModelProvider::new("p");
        let adds: Vec<_> = (0..24).map(|seed| bytes(seed, 4 << 20)).collect();
        let set = member.change(&stage.world, 0, &[], &adds[..]);
        let leaves = set.claim.leaves;
        assert!(leaves > 98_000, "{leaves}");
        let tail = bytes(99, (98_000 - 23 * 4096) << 10);
        let set = member.change(&stage.world, 0, &[], &[&adds[..23], &[tail]].concat());
        assert_eq!(submit(&mut stage, "a", Body::SetDataSet(set)), Ok(Code::Done));
        stage.world.draws = true;
        run_to(&mut stage, &member, 6, true);
        until_drawn(&mut stage, &member);
        assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
        stage.world.draws = false;
        if clears {
            let upkeep = member.settle(&stage.world, &[0]);
            assert_eq!(submit(&mut stage, "b", Body::Settle(upkeep)), Ok(Code::Done));
        }
        stage.world.skip_to_epoch(8);
        let before = stage.world.balance("a").grains();
        let upkeep = member.settle(&stage.world, &[0]);
        assert_eq!(submit(&mut stage, "b", Body::Settle(upkeep)), Ok(Code::Done));
        assert!(member.agreement(&stage.world, 0).is_none());
        stage.world.balance("a").grains() - before
    };
    assert_eq!(
        returned(true),
        returned(false),
        "grains that return to the consumer, cleared by a stranger and not"
    );
}
