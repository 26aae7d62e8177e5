//! An enemy's view of sleep (DR-6): who lets one challenge expire is drawn in turn only, at a time that
//! everybody can reckon, and is paid for all of the time in between.

use crate::{
    audits::{answer, holding, submit},
    crowd::populate,
    keeper::{Keeper, bytes},
    script::Stage,
    world::account,
};
use posync_protocol::{
    Body, Bounded, Code, Record,
    audit::is_awake,
    chunk,
    ledger::Event,
    operation::Settle,
    record::{Ending, Provider},
};

/// Others that are registered and hold nothing: a turn comes every twelve epochs.
const OTHERS: u32 = 60;

/// The next block, in which the keeper answers if it is drawn.
fn answering(stage: &mut Stage, keeper: &Keeper) {
    if answer(stage, keeper).is_none() {
        stage.world.block(&[]).expect("an empty block is valid");
    }
}

fn silent(stage: &mut Stage) {
    stage.world.block(&[]).expect("an empty block is valid");
}

/// Whether the last block drew somebody in turn, and `p` it was.
fn was_turn(stage: &Stage) -> bool {
    let height = stage.world.height;
    height % 4 == 2
        && stage.world.events.iter().any(
            |event| matches!(event, Event::Drawn { provider, height: at } if *provider == account("p") && *at == height),
        )
}

/// `p` holds 293 leaves of `a` until `end` and one leaf of its own until epoch 700; it earns all the
/// fees there are, so that every draw by fee falls on it, and answers all until its turn was there.
fn heavy(end: u64) -> (Stage, Keeper) {
    let mut stage = Stage::new();
    stage.world.check_every = 97;
    populate(&mut stage.world, OTHERS);
    stage.play(&format!("p register\n a open p quota=1000 end={end}\n p open p slot=1 quota=1 end=700"));
    let mut keeper = Keeper::new("p");
    for (who, slot, length) in [("a", 0, 300_000), ("p", 1, 1_000)] {
        let set = keeper.change(&stage.world, slot, &[], &[bytes(u64::from(slot) + 1, length)]);
        assert_eq!(submit(&mut stage, who, Body::SetDataSet(set)), Ok(Code::Done));
        assert!(keeper.data_set(&stage.world, slot).current.leaves > 0, "at once");
    }
    stage.world.draws = true;
    while !was_turn(&stage) {
        answering(&mut stage, &keeper);
        assert!(stage.world.height < 2_000);
    }
    assert_eq!(answer(&mut stage, &keeper), Some(Ok(Code::Done)));
    (stage, keeper)
}

/// Lets one challenge expire; anyone (here `b`) closes it. Asleep, and no challenge is open.
fn fall_asleep(stage: &mut Stage, keeper: &Keeper) {
    while is_awake(&keeper.provider(&stage.world)) {
        silent(stage);
    }
    let open = keeper.audit(&stage.world).challenge.expect("it is open");
    let parameters = stage.world.parameters;
    let last = parameters.round(open.height) + parameters.pending_rounds_max;
    while parameters.round(stage.world.height + 1) <= last {
        silent(stage);
    }
    let close = Settle {
        provider: account("p"),
        index: OTHERS,
        slots: Bounded::default(),
        endings: Bounded::default(),
    };
    assert_eq!(submit(stage, "b", Body::Settle(close)), Ok(Code::Done));
    let provider: Provider = keeper.provider(&stage.world);
    assert!(!is_awake(&provider) && keeper.audit(&stage.world).challenge.is_none());
}

/// RD-1, RD-11, DR-6: nobody is paid for what it did not hold. The data of `a` is gone from the moment
/// of sleep; no draw comes before its agreement has ended, and the one that comes then reads the one
/// leaf that lives.
#[test]
fn who_sleeps_is_not_paid_for_what_it_lost() {
    let (mut stage, mut keeper) = heavy(17);
    fall_asleep(&mut stage, &keeper);
    let lost = bytes(1, 300_000);
    let name = chunk::name(&lost);
    keeper.lost.extend((0..lost.len().div_ceil(1024) as u64).map(|place| (name, place)));
    let asleep = keeper.provider(&stage.world);
    let (epoch, earned) = (stage.world.epoch(), stage.world.balance("p").grains());
    while keeper.audit(&stage.world).challenge.is_none() {
        silent(&mut stage);
        assert!(stage.world.height < 2_000);
    }
    assert_eq!(answer(&mut stage, &keeper), Some(Ok(Code::Done)));
    let ending: Ending = stage.world.get(Ending::key(&account("p"), 17)).expect("it was crossed");
    let rounds = (ending.acc.expect("it was crossed") - asleep.acc) / 1_000_000_000;
    let now = stage.world.epoch();
    let pay = stage.world.balance("p").grains() - earned;
    assert_eq!(
        rounds, 0,
        "asleep in epochs {epoch} to {now}, it was paid {rounds} rounds ({pay} grains) for bytes that it did not have"
    );
}

/// RD-10: who dropped all of its customer's data fails a read within 41 rounds. Asleep it is asked for
/// none, and yet the time counts for its pay.
#[test]
fn who_sleeps_is_found_as_soon_as_who_is_awake() {
    let (mut stage, mut keeper) = heavy(700);
    fall_asleep(&mut stage, &keeper);
    let lost = bytes(1, 300_000);
    let name = chunk::name(&lost);
    keeper.lost.extend((0..lost.len().div_ceil(1024) as u64).map(|place| (name, place)));
    let last = stage.world.height + 41 * 8;
    let mut asked = false;
    while stage.world.height < last && !asked {
        silent(&mut stage);
        asked = keeper.audit(&stage.world).challenge.is_some();
    }
    let provider = keeper.provider(&stage.world);
    let unsettled = stage.world.parameters.round(stage.world.height) - provider.settled_round;
    assert!(asked, "{unsettled} rounds wait to be paid, and nobody asked for a byte");
}

/// DR-3, DR-6: a provider that proves nothing draws nobody's audits to itself for nothing. `q` has no
/// byte of its own false data set; it says so in time, is charged nothing, and takes the draws by fee.
#[test]
fn who_proves_nothing_takes_no_draws_from_who_proves() {
    let draws = |with_enemy: bool| {
        let (mut stage, p) = holding(&[60_000]);
        stage.world.draws = false;
        let mut q = Keeper::new("q");
        if with_enemy {
            stage.play("q register\n q open q quota=3000 end=700");
            let set = q.change(&stage.world, 0, &[], &[bytes(99, 3_000_000)]);
            assert_eq!(submit(&mut stage, "q", Body::SetDataSet(set)), Ok(Code::Done));
            q.lose_every(1);
        }
        stage.world.draws = true;
        let wealth = |stage: &Stage| {
            let own = stage.world.balance("q").grains();
            let bond = if with_enemy { q.provider(&stage.world).bond.grains() } else { 0 };
            let used: Option<posync_protocol::record::Use> =
                stage.world.get(posync_protocol::record::Use::key(&account("q"), 0));
            own + bond + used.map_or(0, |used| used.storage_reserve.grains())
        };
        let before = wealth(&stage);
        let mut by_fee = 0;
        for _ in 0..40 * 20 {
            let mut statements = Vec::new();
            if let Some(statement) = p.statement(&stage.world) {
                statements.push(stage.world.sign("p", Body::Statement(statement)));
            }
            if with_enemy
                && let Some(statement) = q.statement(&stage.world)
                && stage.world.height + 1 >= statement.height + stage.world.parameters.deadline_blocks
            {
                statements.push(stage.world.sign("q", Body::Statement(statement)));
            }
            stage.world.block(&statements).expect("right answers may stand in a block");
            by_fee += stage
                .world
                .events
                .iter()
                .filter(|event| {
                    matches!(event, Event::Drawn { provider, height } if *provider == account("p") && height % 4 == 0)
                })
                .count();
        }
        (by_fee, before, wealth(&stage))
    };
    let (alone, ..) = draws(false);
    let (beside, before, after) = draws(true);
    assert!(
        beside * 2 >= alone || after < before,
        "{beside} draws by fee of {alone}, and all of it cost {} grains",
        before - after
    );
}

/// RD-1, RD-11: who earns little is drawn in turn only, awake or asleep. What ends between two turns is
/// never read, and is paid in full as soon as one leaf of its own lives: RD-11's reason ("what can no
/// longer be tested stays with the consumer") holds only where nothing at all lives.
#[test]
fn what_ended_between_two_draws_is_not_paid_untested() {
    let mut stage = Stage::new();
    stage.world.check_every = 97;
    populate(&mut stage.world, OTHERS);
    stage.play("p register\n q register\n a open p quota=1000 end=17\n p open p slot=1 quota=1 end=700\n b open q quota=900000 end=700");
    let (mut p, mut q) = (Keeper::new("p"), Keeper::new("q"));
    for (slot, length) in [(0, 3_000), (1, 1_000)] {
        let set = p.change(&stage.world, slot, &[], &[bytes(u64::from(slot) + 1, length)]);
        assert_eq!(submit(&mut stage, "a", Body::SetDataSet(set)), Ok(Code::Done));
    }
    let set = q.change(&stage.world, 0, &[], &[bytes(77, 4_000_000)]);
    assert_eq!(submit(&mut stage, "b", Body::SetDataSet(set)), Ok(Code::Done));
    stage.world.draws = true;
    let (mut answers, mut lost_at) = (0, None);
    while stage.world.epoch() < 19 {
        let mut statements = Vec::new();
        for keeper in [&p, &q] {
            if let Some(statement) = keeper.statement(&stage.world) {
                answers += u32::from(keeper.name == "p");
                statements.push(stage.world.sign(&keeper.name, Body::Statement(statement)));
            }
        }
        let turned = !statements.is_empty() && statements.iter().any(|s| s.signer == account("p"));
        stage.world.block(&statements).expect("right answers may stand in a block");
        // After its turn it throws away all that it holds for others.
        if turned && lost_at.is_none() {
            lost_at = Some((stage.world.epoch(), p.provider(&stage.world).acc, answers));
            let name = chunk::name(&bytes(1, 3_000));
            p.lost.extend((0..3).map(|place| (name, place)));
        }
    }
    let (epoch, acc, before) = lost_at.expect("its turn came");
    let ending: Ending = stage.world.get(Ending::key(&account("p"), 17)).expect("it is there");
    let rounds = (ending.acc.unwrap_or(acc) - acc) / 1_000_000_000;
    assert_eq!(
        rounds,
        0,
        "of the {} rounds in which it held nothing, after {} answers",
        (17 - epoch) * 5,
        answers - before
    );
}

/// RD-11: a provider that answers all that it is asked is paid for what it held. Its only customer lets
/// each agreement end before the next turn and opens the next one in time: it never pays a grain.
#[test]
fn a_customer_pays_though_its_agreements_end_between_two_draws() {
    let mut stage = Stage::new();
    stage.world.check_every = 97;
    populate(&mut stage.world, OTHERS);
    stage.play("p register\n q register\n a open p quota=100 end=5\n b open q quota=900000 end=700");
    let (mut p, mut q) = (Keeper::new("p"), Keeper::new("q"));
    let set = p.change(&stage.world, 0, &[], &[bytes(1, 3_000)]);
    assert_eq!(submit(&mut stage, "a", Body::SetDataSet(set)), Ok(Code::Done));
    let set = q.change(&stage.world, 0, &[], &[bytes(77, 4_000_000)]);
    assert_eq!(submit(&mut stage, "b", Body::SetDataSet(set)), Ok(Code::Done));
    // It is no newcomer any more.
    let old = posync_protocol::record::Audit { closed: 64, ..p.audit(&stage.world) };
    stage.world.state.insert(posync_protocol::record::Audit::key(&account("p")), old.to_slot());
    stage.world.draws = true;
    let (mut asked, mut proved, mut earned) = (0, 0, 0);
    let mut is_open_again = false;
    while stage.world.epoch() < 19 {
        if stage.world.epoch() == 5 && !is_open_again {
            is_open_again = true;
            stage.play("a open p slot=1 quota=100 end=17");
            let set = p.change(&stage.world, 1, &[], &[bytes(1, 3_000)]);
            assert_eq!(submit(&mut stage, "a", Body::SetDataSet(set)), Ok(Code::Done));
        }
        let statements: Vec<_> = [&p, &q]
            .into_iter()
            .filter_map(|keeper| {
                Some(stage.world.sign(&keeper.name, Body::Statement(keeper.statement(&stage.world)?)))
            })
            .collect();
        stage.world.block(&statements).expect("right answers may stand in a block");
        for event in &stage.world.events {
            match event {
                Event::Audited { provider, passed, answered, .. } if *provider == account("p") => {
                    asked += 1;
                    proved += u32::from(*answered && *passed == 4);
                }
                Event::Settled { provider, pay, .. } if *provider == account("p") => earned += pay.grains(),
                _ => {}
            }
        }
    }
    assert!(
        earned > 0,
        "17 epochs of storage, {asked} challenges answered ({proved} with reads), {earned} grains"
    );
}
