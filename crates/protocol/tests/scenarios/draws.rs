//! The targets of draws and of their reads: no ended data, no silent provider.

use crate::{
    audits::{answer, holding, submit, until_drawn},
    model_provider::{ModelProvider, bytes},
    script::Stage,
    world::account,
};
use posync_protocol::{
    Body, Bounded, Code,
    audit::is_awake,
    block::Draw,
    fenwick::place,
    ledger::{Event, Invalid, Mode, execute, touches_operation},
    limits::Parameters,
    operation::{EndedRead, ReadAnswer, Settle},
    record::{Newcomer, Usage},
};

/// `(passed, reads)` of the challenges that an answer closed in the last block.
fn judged(stage: &Stage) -> (u64, u64) {
    let audited = stage.world.events.iter().filter_map(|event| match event {
        Event::Audited { answered: true, passed, reads, .. } => Some((u64::from(*passed), u64::from(*reads))),
        _ => None,
    });
    audited.fold((0, 0), |sum, audit| (sum.0 + audit.0, sum.1 + audit.1))
}

/// Runs the next block, in which the provider answers if it is drawn. Returns [`judged`].
fn answering(stage: &mut Stage, member: &ModelProvider) -> (u64, u64) {
    if answer(stage, member).is_none() {
        stage.world.block(&[]).expect("an empty block is valid");
    }
    judged(stage)
}

fn copy(stage: &Stage) -> Stage {
    Stage { world: stage.world.clone(), opened: stage.opened.clone() }
}

/// `p` holds 69 leaves of `a` until epoch 700. It also holds 4,096 leaves of its own, which are in
/// force for one round before their agreement ends with epoch 2. Draws are off.
fn hiding() -> (Stage, ModelProvider) {
    let (mut stage, mut member) = holding(&[69 * 1024]);
    stage.world.draws = false;
    stage.play("p open p slot=1 quota=4096 end=3");
    while stage.world.height < 111 {
        stage.world.block(&[]).expect("an empty block is valid");
    }
    stage.world.draws = true;
    until_drawn(&mut stage, &member);
    assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
    stage.world.draws = false;
    let own = member.change(&stage.world, 1, &[], &[bytes(77, 4 << 20)]);
    assert_eq!(submit(&mut stage, "p", Body::SetDataSet(own)), Ok(Code::Done));
    assert_eq!(member.data_set(&stage.world, 1).current.leaves, 4_096, "in force before the epoch ends");
    stage.play("epoch 3");
    (stage, member)
}

#[test]
fn an_own_agreement_that_ended_hides_no_lost_leaf_of_a_consumer() {
    let (mut stage, mut member) = hiding();
    member.lose_every(1);
    let before = member.provider(&stage.world);
    stage.world.draws = true;
    let (mut passed, mut reads) = (0, 0);
    while stage.world.epoch() < 4 {
        let (more, asked) = answering(&mut stage, &member);
        (passed, reads) = (passed + more, reads + asked);
    }
    assert!(reads >= 40, "{reads} reads");
    assert_eq!(passed, 0, "of {reads} reads: every leaf that lives is lost");
    assert_eq!(member.provider(&stage.world).acc, before.acc, "nothing was proved, so nothing is paid");
    assert_eq!(member.audit(&stage.world).missing.len(), 4, "and what is lost is asked again");
}

/// A tenth of a consumer's data is missing, and 98.3 % of the tree has ended. It is found as soon
/// as without the ended data.
#[test]
fn ended_weight_hides_no_dropped_tenth() {
    for number in 0..4_u8 {
        let (mut stage, mut member) = hiding();
        stage.world.chain[0] = number;
        member.lose_tenths(1);
        stage.world.draws = true;
        let last = stage.world.height + 41 * 8;
        let mut failed = false;
        while stage.world.height < last && !failed {
            let (passed, reads) = answering(&mut stage, &member);
            failed = passed < reads;
        }
        assert!(failed, "seed {number}");
    }
}

/// When an ending is crossed, its weight leaves the fee tree, the leaves and the weights of draws by fee.
#[test]
fn crossing_an_ending_takes_its_weight_out_of_the_draws_by_fee() {
    let (mut stage, member) = hiding();
    let before = member.provider(&stage.world);
    assert_eq!((before.leaves, before.weighed), (4_165, 4_165 * 10_000_000));
    stage.world.draws = true;
    until_drawn(&mut stage, &member);
    assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
    let after = member.provider(&stage.world);
    assert_eq!((after.leaves, after.weighed), (69, 69 * 10_000_000));
    assert_eq!(stage.world.system().fee_weight, after.weighed);
    assert_eq!(after.slot_weight, before.slot_weight, "the slot keeps its place until it is freed");
}

/// Two blocks a round and two rounds an epoch, for runs over many epochs.
fn short(parameters: &mut Parameters) {
    (parameters.round_blocks, parameters.epoch_rounds, parameters.term_rounds) = (2, 2, 2);
    (parameters.deadline_blocks, parameters.draw_every_blocks) = (2, 1);
}

#[test]
fn an_ended_slot_that_nobody_clears_is_missing_from_304_epochs_after_its_end() {
    let mut stage = Stage::new();
    short(&mut stage.world.parameters);
    stage.play("p register\n a open p quota=100 end=700\n b open p slot=1 quota=5000 end=5");
    let mut member = ModelProvider::new("p");
    for (who, slot, length) in [("a", 0, 50_000), ("b", 1, 4_000_000)] {
        let set = member.change(&stage.world, slot, &[], &[bytes(slot.into(), length)]);
        assert_eq!(submit(&mut stage, who, Body::SetDataSet(set)), Ok(Code::Done));
    }
    stage.world.draws = true;
    until_drawn(&mut stage, &member);
    assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
    assert_eq!(member.data_set(&stage.world, 1).current.leaves, 3_907);
    stage.world.draws = false;
    stage.play("epoch 6");
    stage.world.draws = true;
    for epoch in [6, 307, 308, 309] {
        stage.world.draws = false;
        stage.play(&format!("epoch {epoch}"));
        stage.world.draws = true;
        let mut all = (0, 0);
        while stage.world.epoch() == epoch {
            let drawn_in = member.audit(&stage.world).challenge.map(|open| open.height / 4);
            let (passed, reads) = answering(&mut stage, &member);
            if drawn_in == Some(epoch) {
                all = (all.0 + passed, all.1 + reads);
            }
        }
        assert!(all.1 > 0, "epoch {epoch}");
        match epoch {
            309 => assert!(all.0 < all.1, "its end came round again: {all:?}"),
            _ => assert_eq!(all.0, all.1, "epoch {epoch}: all that lives is there"),
        }
    }
    assert!(member.audit(&stage.world).missing.is_empty(), "nothing of it is asked again");
    while member.audit(&stage.world).challenge.is_some() {
        answering(&mut stage, &member);
    }
    stage.world.draws = false;
    let upkeep = Body::Settle(member.settle(&stage.world, &[1]));
    assert_eq!(submit(&mut stage, "b", upkeep), Ok(Code::Done), "anyone clears it free of charge");
    stage.world.draws = true;
    for _ in 0..40 {
        let (passed, reads) = answering(&mut stage, &member);
        assert_eq!(passed, reads);
    }
}

/// A provider that lost the data of a challenge waits until the agreement has ended.
#[test]
fn waiting_with_the_answer_until_the_data_ended_proves_nothing() {
    let (mut stage, mut member) = holding(&[]);
    stage.world.draws = false;
    stage.play("b open p slot=1 quota=1000 end=3");
    let set = member.change(&stage.world, 1, &[], &[bytes(7, 900_000)]);
    assert_eq!(submit(&mut stage, "b", Body::SetDataSet(set)), Ok(Code::Done));
    member.lose_every(1);
    while stage.world.height < 114 {
        stage.world.block(&[]).expect("an empty block is valid");
    }
    stage.world.draws = true;
    until_drawn(&mut stage, &member);
    stage.world.draws = false;
    stage.play("epoch 3");
    let good = member.storage_proof(&stage.world).expect("it is open");
    let mut ended = good.clone();
    ended.answers = Bounded::new(vec![ReadAnswer::Ended(EndedRead { place: place(3, 1) }); 4]).expect("four");
    assert_eq!(submit(&mut stage, "p", Body::StorageProof(ended)), Err(Code::ReadPath));
    let mut nothing = good;
    nothing.answers = Bounded::default();
    assert_eq!(submit(&mut stage, "p", Body::StorageProof(nothing)), Err(Code::BadShape));
    assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
    assert_eq!(judged(&stage), (0, 4), "the epoch of the draw decides");
    assert_eq!(member.provider(&stage.world).acc, 0);
}

#[test]
fn what_could_not_be_tested_because_nothing_lives_stays_with_the_consumer() {
    let (mut stage, mut member) = holding(&[]);
    stage.world.draws = false;
    stage.play("b open p slot=1 quota=1000 end=3");
    let set = member.change(&stage.world, 1, &[], &[bytes(7, 900_000)]);
    assert_eq!(submit(&mut stage, "b", Body::SetDataSet(set)), Ok(Code::Done));
    let reserve =
        |stage: &Stage| stage.world.get::<Usage>(Usage::key(&account("p"), 1)).map(|u| u.storage_reserve);
    let prepaid = reserve(&stage).expect("it is open");
    stage.play("epoch 3");
    stage.world.draws = true;
    until_drawn(&mut stage, &member);
    let silent = copy(&stage);
    assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
    let audit = member.audit(&stage.world);
    assert_eq!((judged(&stage), audit.drawn, audit.settlements, audit.answered), ((0, 0), 0, 0, 1));
    let provider = member.provider(&stage.world);
    assert_eq!((provider.acc, provider.paid, provider.weighed), (0, 0, 0), "crossed and unpaid");
    assert_eq!(reserve(&stage), Some(prepaid));
    // An unpaid provider misses nothing, though the slot keeps its place.
    let mut unpaid = copy(&stage);
    unpaid.play("blocks 140");
    let audit = member.audit(&unpaid.world);
    assert!(audit.closed == 2 && member.provider(&unpaid.world).slot_weight > 0);
    assert_eq!((audit.drawn, audit.on_time, audit.silent), (0, 0, 0));
    stage.world.draws = false;
    let balance = stage.world.balance("b").grains();
    stage.play("epoch 5");
    let upkeep = Body::Settle(member.settle(&stage.world, &[1]));
    assert_eq!(submit(&mut stage, "q", upkeep), Ok(Code::Done));
    assert!(stage.world.balance("b").grains() >= balance + prepaid.grains(), "it returns at the removal");
    // A provider that is paid and stays silent counts as silent all the same.
    let mut stage = silent;
    stage.play("blocks 130");
    let audit = member.audit(&stage.world);
    assert_eq!((audit.history, audit.on_time, audit.drawn), (0, 0, 4));
}

/// `p` and `q` each hold a shard for `a`; that of `p` is larger.
fn two() -> (Stage, ModelProvider, ModelProvider) {
    let mut stage = Stage::new();
    let mut members = Vec::new();
    for (name, length) in [("p", 60_000), ("q", 20_000)] {
        stage.play(&format!("{name} register\n a open {name} quota=1000 end=700"));
        let mut member = ModelProvider::new(name);
        let set = member.change(&stage.world, 0, &[], &[bytes(length as u64, length)]);
        assert_eq!(submit(&mut stage, "a", Body::SetDataSet(set)), Ok(Code::Done));
        members.push(member);
    }
    stage.world.draws = true;
    let q = members.pop().expect("two");
    (stage, members.pop().expect("two"), q)
}

/// Runs a block in which the drawn providers answer; `false` silences the provider at that place.
fn block(stage: &mut Stage, members: [&ModelProvider; 2], answers: [bool; 2]) {
    let storage_proofs: Vec<_> = members
        .iter()
        .zip(answers)
        .filter(|(_, answers)| *answers)
        .filter_map(|(member, _)| {
            Some(stage.world.sign(&member.name, Body::StorageProof(member.storage_proof(&stage.world)?)))
        })
        .collect();
    stage.world.block(&storage_proofs).expect("right answers may stand in a block");
}

/// True if the draws of the next block are by fee.
fn by_fee(stage: &Stage) -> bool {
    (stage.world.height + 1).is_multiple_of(4)
}

/// Both providers earn fees, and the wrong index is below the drawn unit as often as above it.
#[test]
fn a_draw_by_fee_names_who_holds_the_unit_and_nobody_beside() {
    let (mut stage, p, q) = two();
    let draws = [(0, "p"), (1, "q")].map(|(index, name)| Draw { index, account: account(name) });
    let mut seen = [0; 2];
    for _ in 0..120 {
        let context = stage.world.context(stage.world.height + 1);
        let right = stage.world.resolve(&context);
        if by_fee(&stage) {
            let drawn = draws.iter().position(|draw| right == [Some(*draw)]).expect("one of the two");
            let wrong = [Some(draws[1 - drawn])];
            seen[drawn] += 1;
            let records = stage.world.read(&context, &wrong, &[]).expect("it names as many");
            let verdict = execute(&context, &wrong, &[], &records, Mode::Verify).map(|_| ());
            assert!(matches!(verdict, Err(Invalid::Draw { index: 0 })), "{wrong:?} for {right:?}");
        }
        block(&mut stage, [&p, &q], [true; 2]);
    }
    assert!(seen[0] > seen[1] && seen[1] > 2, "{seen:?}: as each is paid");
}

#[test]
fn who_is_silent_past_its_deadline_is_drawn_in_turn_only_until_it_answers() {
    let (mut stage, p, q) = two();
    while is_awake(&p.provider(&stage.world)) {
        block(&mut stage, [&p, &q], [false, true]);
        assert!(stage.world.height < 200, "it never sleeps");
    }
    let (asleep, open) = (p.provider(&stage.world), p.audit(&stage.world).challenge.expect("it is open"));
    assert!(
        stage.world.height > open.height + stage.world.parameters.deadline_blocks,
        "not before the deadline"
    );
    assert!(stage.world.height.is_multiple_of(4), "by a draw by fee");
    assert_eq!((asleep.weighed, stage.world.system().fee_weight), (0, q.provider(&stage.world).paid));
    let at = stage.world.height;
    for _ in 0..40 {
        let context = stage.world.context(stage.world.height + 1);
        let drawn = stage.world.resolve(&context);
        let is_p = drawn.iter().flatten().any(|draw| draw.account == account("p"));
        assert!(!(by_fee(&stage) && is_p), "draws by fee go to the provider that answers");
        block(&mut stage, [&p, &q], [false, true]);
    }
    let own = Body::Settle(p.settle(&stage.world, &[]));
    let mut early = copy(&stage);
    assert_eq!(submit(&mut early, "p", own), Err(Code::SettledAlready), "its challenge is open");
    assert_eq!(answer(&mut stage, &p), Some(Ok(Code::Done)));
    let awake = p.provider(&stage.world);
    assert_eq!((awake.weighed, awake.paid), (asleep.paid, asleep.paid));
    assert_eq!(stage.world.system().fee_weight, awake.paid + q.provider(&stage.world).paid);
    assert!(awake.acc > asleep.acc, "and is paid through the round of the draw, as always");
    assert!(stage.world.height > at + 40);
}

/// Runs blocks until the silent `p` is asleep and its challenge can be closed. Draws are off then.
fn until_stale(stage: &mut Stage, members: [&ModelProvider; 2], answers: [bool; 2]) {
    while is_awake(&members[0].provider(&stage.world)) {
        block(stage, members, answers);
    }
    stage.world.draws = false;
    let open = members[0].audit(&stage.world).challenge.expect("it is open");
    let parameters = stage.world.parameters;
    let last = parameters.round(open.height) + parameters.pending_rounds_max;
    while parameters.round(stage.world.height + 1) <= last {
        block(stage, members, answers);
    }
}

#[test]
fn who_sleeps_wakes_itself_once_its_challenge_expired_and_once_for_each() {
    let (mut stage, mut p, q) = two();
    for _ in 0..2 {
        until_stale(&mut stage, [&p, &q], [false, true]);
        let upkeep = |stage: &Stage| Body::Settle(p.settle(&stage.world, &[]));
        let mut other = copy(&stage);
        let body = upkeep(&other);
        assert_eq!(submit(&mut other, "b", body), Ok(Code::Done), "anyone closes a stale challenge");
        assert_eq!(p.provider(&other.world).weighed, 0, "but it does not wake by others");
        let body = upkeep(&other);
        assert_eq!(submit(&mut other, "b", body.clone()), Err(Code::SettledAlready));
        assert_eq!(submit(&mut other, "p", body), Ok(Code::Done), "it wakes itself");
        assert!(is_awake(&p.provider(&other.world)));
        let body = upkeep(&stage);
        assert_eq!(submit(&mut stage, "p", body), Ok(Code::Done), "both at once");
        let now = p.provider(&stage.world);
        assert!(is_awake(&now) && now.weighed > 0 && p.audit(&stage.world).challenge.is_none());
        let body = upkeep(&stage);
        assert_eq!(submit(&mut stage, "p", body), Err(Code::SettledAlready), "there is nothing to wake");
        stage.world.draws = true;
    }
    // While it sleeps, its weights change as usual, and it stays asleep.
    until_stale(&mut stage, [&p, &q], [false, true]);
    let body = Body::Settle(p.settle(&stage.world, &[]));
    assert_eq!(submit(&mut stage, "b", body), Ok(Code::Done));
    let before = p.provider(&stage.world);
    let grown = p.change(&stage.world, 0, &[], &[bytes(9, 9_000)]);
    assert_eq!(submit(&mut stage, "a", Body::SetDataSet(grown)), Ok(Code::Done));
    let after = p.provider(&stage.world);
    assert!(after.paid > before.paid && after.weighed == 0, "settled in this round, and asleep");
    let body = Body::Settle(p.settle(&stage.world, &[]));
    assert_eq!(submit(&mut stage, "p", body), Ok(Code::Done));
    assert_eq!(p.provider(&stage.world).weighed, after.paid, "for all that it is paid now");
}

#[test]
fn crossing_an_ending_of_who_sleeps_wakes_nobody() {
    let (mut stage, mut p, q) = two();
    stage.world.draws = false;
    stage.play("b open p slot=1 quota=1000 end=2");
    let set = p.change(&stage.world, 1, &[], &[bytes(7, 9_000)]);
    assert_eq!(submit(&mut stage, "b", Body::SetDataSet(set)), Ok(Code::Done));
    stage.world.draws = true;
    until_drawn(&mut stage, &p);
    assert_eq!(answer(&mut stage, &p), Some(Ok(Code::Done)));
    assert_eq!(p.provider(&stage.world).leaves, 59 + 9);
    until_stale(&mut stage, [&p, &q], [false, true]);
    let before = p.provider(&stage.world);
    for _ in 0..2 {
        // The first closes the challenge and thereby settles; the second crosses the earlier endings.
        let upkeep = Body::Settle(p.settle(&stage.world, &[]));
        assert_eq!(submit(&mut stage, "b", upkeep), Ok(Code::Done));
    }
    let after = p.provider(&stage.world);
    assert_eq!((after.leaves, after.paid), (59, 59 * 10_000_000), "what ended is crossed");
    assert_eq!((before.weighed, after.weighed), (0, 0));
    let own = Body::Settle(p.settle(&stage.world, &[]));
    assert_eq!(submit(&mut stage, "p", own), Ok(Code::Done));
    assert_eq!(p.provider(&stage.world).weighed, after.paid);
}

#[test]
fn after_an_outage_of_all_each_wakes_by_its_late_answer() {
    let (mut stage, p, q) = two();
    while stage.world.system().fee_weight > 0 {
        block(&mut stage, [&p, &q], [false; 2]);
        assert!(stage.world.height < 300, "both sleep at last");
    }
    assert!([&p, &q].iter().all(|member| member.audit(&stage.world).challenge.is_some()));
    let context = stage.world.context(stage.world.height + 4 - stage.world.height % 4);
    assert_eq!(stage.world.resolve(&context), [None], "no provider is left for a draw by fee");
    for _ in 0..2 {
        block(&mut stage, [&p, &q], [true; 2]);
    }
    let paid = [&p, &q].map(|member| member.provider(&stage.world).paid);
    assert_eq!(stage.world.system().fee_weight, paid[0] + paid[1]);
    for _ in 0..40 {
        block(&mut stage, [&p, &q], [true; 2]);
    }
    let on_time = [&p, &q].map(|member| member.audit(&stage.world).on_time & 1);
    assert_eq!(on_time, [1, 1], "and all is as before");
}

/// The only provider is drawn in turn in every block and never answers. The closing consumer is
/// refunded in the block that closes the stale challenge.
#[test]
fn a_close_is_refunded_although_its_provider_never_answers() {
    let (mut stage, member) = holding(&[60_000]);
    (stage.world.parameters.draws, stage.world.parameters.draw_every_blocks) = (2, 1);
    until_drawn(&mut stage, &member);
    stage.play("a closealone p/0");
    let window = stage.world.epoch() + stage.world.parameters.redemption_epochs;
    stage.play(&format!("epoch {window}"));
    let before = stage.world.balance("a").grains();
    let mut closed = false;
    for _ in 0..200 {
        let upkeep = stage.world.sign("b", Body::Settle(member.settle(&stage.world, &[0])));
        let Ok(Code::Done) = stage.world.submit(&upkeep) else { continue };
        closed = true;
        break;
    }
    assert!(closed, "a challenge is open in every block");
    assert!(stage.world.balance("a").grains() > before);
    assert_eq!((stage.world.system().agreements, member.provider(&stage.world).slot_weight), (0, 0));
}

/// DR-5: a draw that closes a stale challenge opens no other, so that the closing consumer is
/// refunded in the same block. With eight draws a block, as in production, the next draw of the
/// block opens one.
#[test]
fn a_close_is_refunded_with_the_draws_of_production() {
    let (mut stage, member) = holding(&[60_000]);
    (stage.world.parameters.draws, stage.world.parameters.draw_every_blocks) = (8, 1);
    until_drawn(&mut stage, &member);
    stage.play("a closealone p/0");
    let window = stage.world.epoch() + stage.world.parameters.redemption_epochs;
    stage.play(&format!("epoch {window}"));
    let mut closed = false;
    for _ in 0..400 {
        let upkeep = stage.world.sign("b", Body::Settle(member.settle(&stage.world, &[0])));
        if stage.world.submit(&upkeep) == Ok(Code::Done) {
            closed = true;
            break;
        }
    }
    assert!(closed, "a challenge is open in every block for {} epochs", 400 / 40);
}

#[test]
fn a_draw_that_closes_a_stale_challenge_opens_none() {
    let (mut stage, member) = holding(&[60_000]);
    until_drawn(&mut stage, &member);
    let open = member.audit(&stage.world).challenge.expect("it is drawn");
    while member.audit(&stage.world).challenge == Some(open) {
        stage.world.block(&[]).expect("an empty block is valid");
    }
    assert_eq!(member.audit(&stage.world).challenge, None);
    assert!(!stage.world.events.iter().any(|event| matches!(event, Event::Drawn { .. })));
    stage.play("blocks 4");
    assert!(member.audit(&stage.world).challenge.is_some(), "the next draws reach it as always");
}

#[test]
fn who_holds_nothing_leaves_the_newcomers_line_after_64_challenges() {
    let mut stage = Stage::new();
    stage.play("p register");
    stage.world.draws = true;
    let member = ModelProvider::new("p");
    let mut closed = 0;
    while stage.world.system().newcomers == 1 {
        closed += u32::from(answer(&mut stage, &member).is_some_and(|result| result == Ok(Code::Done)));
        stage.world.block(&[]).expect("an empty block is valid");
        assert!(closed < 70, "it stays in the line for ever");
    }
    // The draw that reaches its second place frees the place: the first draw after the 64th.
    let audit = member.audit(&stage.world);
    assert!((64..=66).contains(&closed) && audit.closed == 64 && audit.drawn == 0, "{closed}");
}

#[test]
fn leaving_and_registering_anew_leaves_one_second_place() {
    let mut stage = Stage::new();
    stage.play("p register\n p leave\n epoch 21\n p leave\n p register");
    assert_eq!(stage.world.system().newcomers, 2, "one of each life, so far");
    let born = ModelProvider::new("p").provider(&stage.world).born;
    stage.world.draws = true;
    stage.play("blocks 24");
    assert_eq!(stage.world.system().newcomers, 1);
    let left: Newcomer = stage.world.get(Newcomer::key(0)).expect("one is left");
    assert_eq!((left.account, left.born), (account("p"), born), "that of the life that runs");
}

#[test]
fn a_data_set_names_at_most_59_writable_records() {
    let (stage, mut member) = holding(&[]);
    let context = stage.world.context(stage.world.height + 1);
    let mut most = 0;
    for (slot, index, end_epoch) in
        [(0, 0, 1_024), (0, 0, 1), (1, 1, 700), ((1 << 20) - 1, 5, 720), (7, 0, 2_048)]
    {
        let mut set = member.change(&stage.world, 0, &[], &[bytes(1, 100)]);
        (set.claim.agreement.slot, set.index, set.end_epoch) = (slot, index, end_epoch);
        let mut keys = touches_operation(&context, &stage.world.sign("a", Body::SetDataSet(set))).writable;
        keys.sort_unstable();
        keys.dedup();
        most = most.max(keys.len());
    }
    assert_eq!(most, 59);
}

/// Upkeep that names no slot or ending is not free, not even for the provider itself.
#[test]
fn upkeep_of_ones_own_wakes_or_is_refused() {
    let (mut stage, member) = holding(&[60_000]);
    stage.world.draws = false;
    let own = Settle { slots: Bounded::default(), ..member.settle(&stage.world, &[]) };
    assert_eq!(submit(&mut stage, "p", Body::Settle(own)), Err(Code::SettledAlready));
}
