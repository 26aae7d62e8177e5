//! What a third audit of the rules found: each test fails as long as its fault is there.

use crate::{
    audits::{answer, holding, submit, until_drawn},
    books::{row, run_to, standing, steps},
    crowd::populate,
    keeper::{Keeper, bytes},
    punished::one_draw_an_epoch,
    script::Stage,
    world::account,
};
use commonware_codec::EncodeSize as _;
use posync_protocol::{
    Account, AgreementId, Amount, Body, Bounded, Code, Operation, Record,
    amount::ONE,
    block::sha256,
    economics::score::quality,
    ledger::{Mode, StandingReason, StandingStep, execute, select, touches_operation},
    limits::BODY_BYTES_MAX,
    operation::{Answer, ProvedRead, Redemption, Statement, SumPath, check_structure},
    record::{Audit, DataSet, Finding, Reports, Standing},
    service::{LATENCY_BOUNDS_MS, latency_score},
    standing::PROBATION_QUALITY,
};
use std::collections::BTreeSet;

/// A statement of nothing for the open challenge, as large as `vouchers` make it: all that a node can say of
/// it before it is executed is right.
fn garbage(
    stage: &Stage,
    provider: Account,
    index: u32,
    vouchers: usize,
    answers: usize,
) -> Option<Operation> {
    let challenge = stage.world.get::<Audit>(Audit::key(&provider))?.challenge?;
    let position = SumPath { lefts: 0, siblings: Bounded::new(vec![([7; 32], 1); 20]).expect("20") };
    let read = ProvedRead {
        place: 0,
        shard: [7; 32],
        length: 4 << 20,
        position,
        chunk: Bounded::new(vec![7; 1024]).expect("a chunk"),
        path: Bounded::new(vec![[7; 32]; 12]).expect("a path"),
    };
    let redemption = |slot| {
        let id = AgreementId { provider, slot, opened: 1 };
        let claim = Some((u64::from(slot) + 1, 0));
        Redemption { claim, ..stage.redemption_of(id, "session", 1, 0) }
    };
    let statement = Statement {
        height: challenge.height,
        anchor: [0; 32],
        index,
        answers: Bounded::new(vec![Answer::Proved(read); answers]).expect("four"),
        reasked: Bounded::default(),
        vouchers: Bounded::new((0..vouchers as u32).map(redemption).collect()).expect("64"),
        apply: Bounded::new((0..64).map(|slot| (slot, provider, 5)).collect()).expect("64"),
        endings: Bounded::default(),
    };
    Some(Operation {
        signer: provider,
        nonce: 0,
        max_fee: Amount::ZERO,
        expires: stage.world.height + 1,
        body: Body::Statement(statement),
        signature: [0; 64],
    })
}

/// What a node offers its proposer of the free lanes, the oldest challenge first: as much as a body holds
/// (`node/src/mempool/state.rs`, `candidates`; nobody was refused before).
fn candidates(mut waiting: Vec<Operation>) -> Vec<Operation> {
    waiting.sort_by_key(|operation| match &operation.body {
        Body::Statement(statement) => (statement.height, operation.signer),
        _ => (u64::MAX, operation.signer),
    });
    let mut left = BODY_BYTES_MAX;
    waiting.retain(|operation| {
        let bytes = operation.encode_size();
        let fits = bytes <= left;
        left -= if fits { bytes } else { 0 };
        fits
    });
    waiting
}

/// BL-5, LE-3: what may not stand in a block keeps no answer out of it. Each of the silent ones was drawn
/// before the honest one and has one free statement wait that no block can hold. The block stays empty.
#[test]
fn large_statements_that_cannot_stand_keep_no_answer_out() {
    const SILENT: u32 = 60;
    const SELECTIONS: usize = 4; // node/src/application.rs
    let mut stage = Stage::new();
    stage.world.check_every = 97;
    (stage.world.parameters.draws, stage.world.parameters.draw_every_blocks) = (8, 1);
    populate(&mut stage.world, SILENT);
    stage.play("p register\n a open p quota=1000 end=700");
    let mut keeper = Keeper::new("p");
    let set = keeper.change(&stage.world, 0, &[], &[bytes(1, 60_000)]);
    assert_eq!(submit(&mut stage, "a", Body::SetDataSet(set)), Ok(Code::Done));
    stage.world.draws = true;
    let drawn = |stage: &Stage| {
        let audit = |index: u32| stage.world.get::<Audit>(Audit::key(&Account(sha256(&index.to_be_bytes()))));
        (0..SILENT).filter(|index| audit(*index).is_some_and(|audit| audit.challenge.is_some())).count()
    };
    while drawn(&stage) < SILENT as usize || keeper.audit(&stage.world).challenge.is_none() {
        if answer(&mut stage, &keeper).is_none() {
            stage.world.block(&[]).expect("an empty block is valid");
        }
        assert!(stage.world.height < 100);
    }
    let statement = keeper.statement(&stage.world).expect("it is drawn");
    let honest = stage.world.sign("p", Body::Statement(statement));
    let mut waiting = vec![honest.clone()];
    let mut left = BODY_BYTES_MAX;
    for index in 0..SILENT {
        let account = Account(sha256(&index.to_be_bytes()));
        // The largest that still fits what is left of a proposer's candidates.
        let sizes = [(64, 4)].into_iter().chain((0..=64).rev().map(|vouchers| (vouchers, 0)));
        let mut sizes =
            sizes.filter_map(|(vouchers, answers)| garbage(&stage, account, index, vouchers, answers));
        let Some(operation) = sizes.find(|operation| operation.encode_size() <= left) else { break };
        left -= operation.encode_size();
        waiting.push(operation);
    }
    let (count, largest) = (waiting.len() - 1, waiting[1].encode_size());
    let context = stage.world.context(stage.world.height + 1);
    assert!(waiting.iter().all(|operation| check_structure(operation, &context).is_ok()));
    let draws = stage.world.resolve(&context);
    let (system, roster) = (stage.world.system(), stage.world.roster(&context));
    let (mut offered, mut stands) = (candidates(waiting), 0);
    let (mut selections, mut is_in) = (0, false);
    while !is_in && selections < SELECTIONS && !offered.is_empty() {
        selections += 1;
        let chosen = select(&context, &system, &roster, &draws, &offered);
        let chosen: Vec<Operation> = chosen.into_iter().map(|place| offered[place].clone()).collect();
        let records = stage.world.read(&context, &draws, &chosen).expect("what is selected fits");
        let outcome = execute(&context, &draws, &chosen, &records, Mode::Propose).expect("a valid block");
        let kept: BTreeSet<_> = outcome.kept.iter().map(|place| chosen[*place].id()).collect();
        (is_in, stands) = (kept.contains(&honest.id()), kept.len());
        offered.retain(|o| kept.contains(&o.id()) || !chosen.iter().any(|tried| tried.id() == o.id()));
    }
    assert!(
        is_in,
        "{count} statements of up to {largest} bytes that cannot stand: after {selections} selections {stands} \
         operations stand in the block, and the answer of {} bytes is none of them",
        honest.encode_size()
    );
}

/// JL-1, JL-2: three low epochs in a row suspend. One bad hour is one bad epoch, however rarely it is drawn
/// afterwards: every answer after it is on time.
#[test]
fn one_bad_epoch_suspends_nobody_who_is_drawn_rarely() {
    let (mut stage, keeper) = holding(&[70_000]);
    // An epoch of 160 blocks; that of production has 86,400.
    stage.world.parameters.epoch_rounds = 20;
    let mut late = 0;
    // In the first epoch each answer comes two blocks after the deadline.
    while stage.world.height < 160 {
        let open = keeper.audit(&stage.world).challenge;
        let deadline = stage.world.parameters.deadline_blocks;
        if open.is_some_and(|open| stage.world.height + 1 > open.height + deadline + 1) {
            assert_eq!(answer(&mut stage, &keeper), Some(Ok(Code::Done)));
            late += 1;
        } else {
            stage.world.block(&[]).expect("an empty block is valid");
        }
    }
    one_draw_an_epoch(&mut stage);
    let before = keeper.audit(&stage.world);
    let events = run_to(&mut stage, &keeper, 24, true);
    let audit = keeper.audit(&stage.world);
    let after = audit.drawn / 4 - before.drawn / 4;
    let suspended = (StandingStep::Suspended, StandingReason::Availability);
    assert!(
        !steps(&events).contains(&suspended),
        "{late} late in epoch 0, then {after} answers ({:b} on time): {:?}",
        audit.on_time,
        steps(&events)
    );
}

/// PV-3, AG-6: from the 8th epoch after its notice a provider may end agreements alone. Until then its
/// customer pays, may pay for reading what it stored, may replace a stolen session key, and needs nobody's
/// consent to delete (DS-3).
#[test]
fn a_provider_that_gives_notice_freezes_no_agreement_before_it_may_end_it() {
    let mut left = Vec::new();
    for asked in ["a topup p/0 1s", "a rotate p/0 other", "empty", "signed by both before"] {
        let (mut stage, mut keeper) = holding(&[70_000]);
        let start = stage.world.epoch();
        run_to(&mut stage, &keeper, start + 3, true);
        stage.world.draws = false;
        let grown = keeper.change(&stage.world, 0, &[], &[bytes(9, 40_000)]);
        stage.play("p leave\n p closealone p/0");
        let got = if asked == "empty" {
            let tree = posync_protocol::tree::SumTree::default();
            let version = keeper.data_set(&stage.world, 0).current.version + 1;
            let mut set = keeper.claim(&stage.world, 0, version, &tree);
            set.provider_signature = None;
            format!("{:?}", submit(&mut stage, "a", Body::SetDataSet(set)).expect("it is charged"))
        } else if asked == "signed by both before" {
            format!("{:?}", submit(&mut stage, "a", Body::SetDataSet(grown)).expect("it is charged"))
        } else {
            stage.attempt(asked).expect("an operation")
        };
        let provider = keeper.provider(&stage.world);
        left.push((asked, got, provider.leaves_at - stage.world.epoch()));
    }
    assert!(left.iter().all(|(_, got, _)| got == "Done"), "{left:?} epochs before it may leave");
}

/// SC-1, JL-1: nothing is held against a provider twice. Auditors find it away in one epoch; they come to few
/// providers in an epoch (production: 1,024), so nobody looks again for long. It answers all on time.
#[test]
fn one_epoch_away_is_not_held_against_pay_and_score_until_the_next_audit() {
    let after = |away: bool| {
        let (mut stage, keeper) = holding(&[70_000]);
        stage.world.seat("b");
        while stage.world.epoch() < 40 {
            let (world, p) = (&mut stage.world, account("p"));
            let is_audited =
                world.height % world.parameters.epoch_blocks() == 6 && (3..=4).contains(&world.epoch());
            if is_audited {
                let epoch = world.epoch() - 1;
                let answered = if away && epoch == 3 { 0 } else { 4 };
                let finding =
                    Finding { auditor: 0, asked: 4, answered, correct: answered, latency: 0, throughput: 3 };
                let reports = Reports { epoch, findings: Bounded::new(vec![finding]).expect("one") };
                world.state.insert(Reports::of(&p, epoch, 0), reports.to_slot());
            }
            if answer(&mut stage, &keeper).is_none() {
                stage.world.block(&[]).expect("an empty block is valid");
            }
        }
        let rows = (5..37).filter_map(|epoch| row(&stage.world, &account("p"), epoch));
        let (worthless, rows): (Vec<_>, Vec<_>) = rows.partition(|row| row.weight == 0);
        (worthless.len(), rows.len(), standing(&stage.world).score())
    };
    let (good, bad) = (after(false), after(true));
    // The least of eight measured epochs weighs (BK-3).
    assert!(
        bad.0 <= 8,
        "epochs that weigh nothing, others, score: always there {good:?}; away in epoch 3 alone {bad:?}"
    );
}

/// JL-5: who left jail, and is right and on time ever after, has a score that rises again, whatever its
/// latency is, and before any auditor came by.
#[test]
fn who_left_jail_and_does_everything_right_leaves_probation() {
    let never: Vec<u64> = LATENCY_BOUNDS_MS
        .iter()
        .zip(0..)
        .filter(|(_, band)| quality(ONE, ONE, latency_score(*band)) < PROBATION_QUALITY)
        .map(|(bound, _)| *bound)
        .collect();
    let (mut stage, keeper) = holding(&[70_000]);
    let start = stage.world.epoch();
    run_to(&mut stage, &keeper, start + 4, true);
    let unjailed = Standing { probation: 3, ..standing(&stage.world) };
    stage.world.state.insert(Standing::key(&account("p")), unjailed.to_slot());
    let start = stage.world.epoch();
    run_to(&mut stage, &keeper, start + 60, true);
    let now = standing(&stage.world);
    assert_eq!(
        (now.probation, never),
        (0, vec![]),
        "after 60 epochs of right answers on time, proven {}, on time {}, score {}",
        now.proven,
        now.on_time,
        now.score()
    );
}

/// BL-5: a free operation makes a block read no record that nobody needs. Growth that waits in jail takes no
/// effect, so naming it says nothing, challenge after challenge.
#[test]
fn a_statement_names_no_growth_that_may_not_take_effect() {
    let (mut stage, mut keeper) = holding(&[70_000]);
    until_drawn(&mut stage, &keeper);
    let grown = keeper.change(&stage.world, 0, &[], &[bytes(9, 40_000)]);
    assert_eq!(submit(&mut stage, "a", Body::SetDataSet(grown)), Ok(Code::Done));
    let jailed = Standing { jailed_until: 1_000, ..standing(&stage.world) };
    stage.world.state.insert(Standing::key(&account("p")), jailed.to_slot());
    let mut named = Vec::new();
    for _ in 0..3 {
        until_drawn(&mut stage, &keeper);
        let statement = keeper.statement(&stage.world).expect("it is drawn");
        let bare = Statement { apply: Bounded::default(), ..statement.clone() };
        let keys = |statement: Statement| {
            let operation = stage.world.sign("p", Body::Statement(statement));
            let touched = touches_operation(&stage.world.context(stage.world.height + 1), &operation);
            touched.writable.into_iter().chain(touched.readable).collect::<BTreeSet<_>>().len()
        };
        let more = keys(statement.clone()) - keys(bare);
        let got = submit(&mut stage, "p", Body::Statement(statement));
        let waits =
            stage.world.get::<DataSet>(DataSet::key(&account("p"), 0)).is_some_and(|d| d.next.is_some());
        named.push((got, waits, more));
    }
    assert!(
        named.iter().all(|(got, ..)| got.is_err()),
        "receipt, waits still, records for nothing: {named:?}"
    );
}

/// AG-7: what an agreement pays follows from its terms and what it held, not from who touched it when. Any
/// stranger may clear an ended slot for nothing; that costs the customer nothing, because it filled its quota.
#[test]
fn a_strangers_free_upkeep_costs_the_customer_nothing() {
    let returned = |clears: bool| {
        let mut stage = Stage::new();
        stage.play("p register\n a open p quota=98000 end=6 quota_egress=0 quota_gas=0 reserve=0");
        let mut keeper = Keeper::new("p");
        let adds: Vec<_> = (0..24).map(|seed| bytes(seed, 4 << 20)).collect();
        let set = keeper.change(&stage.world, 0, &[], &adds[..]);
        let leaves = set.claim.leaves;
        assert!(leaves > 98_000, "{leaves}");
        let tail = bytes(99, (98_000 - 23 * 4096) << 10);
        let set = keeper.change(&stage.world, 0, &[], &[&adds[..23], &[tail]].concat());
        assert_eq!(submit(&mut stage, "a", Body::SetDataSet(set)), Ok(Code::Done));
        stage.world.draws = true;
        run_to(&mut stage, &keeper, 6, true);
        until_drawn(&mut stage, &keeper);
        assert_eq!(answer(&mut stage, &keeper), Some(Ok(Code::Done)));
        stage.world.draws = false;
        if clears {
            let upkeep = keeper.settle(&stage.world, &[0]);
            assert_eq!(submit(&mut stage, "b", Body::Settle(upkeep)), Ok(Code::Done));
        }
        stage.world.skip_to_epoch(8);
        let before = stage.world.balance("a").grains();
        let upkeep = keeper.settle(&stage.world, &[0]);
        assert_eq!(submit(&mut stage, "b", Body::Settle(upkeep)), Ok(Code::Done));
        assert!(keeper.agreement(&stage.world, 0).is_none());
        stage.world.balance("a").grains() - before
    };
    assert_eq!(
        returned(true),
        returned(false),
        "grains that return to the customer, cleared by a stranger and not"
    );
}
