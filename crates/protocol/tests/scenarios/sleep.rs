//! Sleep (DR-6): a provider that lets a challenge expire, or proves nothing, is drawn in turn only,
//! at a time that anyone can compute, and is not paid for the time in between. Also the limits of
//! tests where draws are rare (RD-11).

use crate::{
    audits::{answer, holding, submit, until_drawn},
    crowd::populate,
    model_provider::{ModelProvider, bytes},
    script::Stage,
    world::account,
};
use posync_protocol::{
    Body, Bounded, Code, Record,
    audit::is_awake,
    ledger::Event,
    operation::Settle,
    record::{Audit, Ending, Provider},
    shard,
};

/// Number of other providers, which hold nothing: with them a turn comes every twelve epochs.
const OTHERS: u32 = 60;

/// Runs the next block, in which the provider answers if it is drawn.
fn answering(stage: &mut Stage, member: &ModelProvider) {
    if answer(stage, member).is_none() {
        stage.world.block(&[]).expect("an empty block is valid");
    }
}

fn silent(stage: &mut Stage) {
    stage.world.block(&[]).expect("an empty block is valid");
}

/// True if the last block drew in turn, and drew `p`.
fn was_turn(stage: &Stage) -> bool {
    let height = stage.world.height;
    height % 4 == 2
        && stage.world.events.iter().any(
            |event| matches!(event, Event::Drawn { provider, height: at } if *provider == account("p") && *at == height),
        )
}

/// `p` holds 293 leaves of `a` until `end`, and one leaf of its own until epoch 700. It earns all
/// fees, so that every draw by fee falls on it, and answers all challenges until its turn has come.
fn heavy(end: u64) -> (Stage, ModelProvider) {
    let mut stage = Stage::new();
    stage.world.check_every = 97;
    populate(&mut stage.world, OTHERS);
    stage.play(&format!("p register\n a open p quota=1000 end={end}\n p open p slot=1 quota=1 end=700"));
    let mut member = ModelProvider::new("p");
    for (who, slot, length) in [("a", 0, 300_000), ("p", 1, 1_000)] {
        let set = member.change(&stage.world, slot, &[], &[bytes(u64::from(slot) + 1, length)]);
        assert_eq!(submit(&mut stage, who, Body::SetDataSet(set)), Ok(Code::Done));
        assert!(member.data_set(&stage.world, slot).current.leaves > 0, "at once");
    }
    stage.world.draws = true;
    while !was_turn(&stage) {
        answering(&mut stage, &member);
        assert!(stage.world.height < 2_000);
    }
    assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
    (stage, member)
}

/// Lets one challenge expire, which `b`, a stranger, closes. Then `p` is asleep without an open challenge.
fn fall_asleep(stage: &mut Stage, member: &ModelProvider) {
    while is_awake(&member.provider(&stage.world)) {
        silent(stage);
    }
    let open = member.audit(&stage.world).challenge.expect("it is open");
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
    let provider: Provider = member.provider(&stage.world);
    assert!(!is_awake(&provider) && member.audit(&stage.world).challenge.is_none());
}

/// RD-1, RD-11, DR-6: a provider is not paid for data that it did not hold. The data of `a` is lost
/// when the sleep begins. No draw comes before its agreement has ended, and the one that comes then
/// reads the one live leaf.
#[test]
fn who_sleeps_is_not_paid_for_what_it_lost() {
    let (mut stage, mut member) = heavy(17);
    fall_asleep(&mut stage, &member);
    let lost = bytes(1, 300_000);
    let name = shard::name(&lost);
    member.lost.extend((0..lost.len().div_ceil(1024) as u64).map(|place| (name, place)));
    let asleep = member.provider(&stage.world);
    let (epoch, earned) = (stage.world.epoch(), stage.world.balance("p").grains());
    while member.audit(&stage.world).challenge.is_none() {
        silent(&mut stage);
        assert!(stage.world.height < 2_000);
    }
    assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
    let ending: Ending = stage.world.get(Ending::key(&account("p"), 17)).expect("it was crossed");
    let rounds = (ending.acc.expect("it was crossed") - asleep.acc) / 1_000_000_000;
    let now = stage.world.epoch();
    let pay = stage.world.balance("p").grains() - earned;
    assert_eq!(
        rounds, 0,
        "asleep in epochs {epoch} to {now}, it was paid {rounds} rounds ({pay} grains) for bytes that it did not have"
    );
}

/// RD-10, DR-6: a sleeping provider is not asked, and gains nothing from that: neither from the
/// turn that comes at last, nor from waking itself before it.
#[test]
fn who_sleeps_gains_nothing_from_not_being_asked() {
    for wakes_itself in [false, true] {
        let (mut stage, mut member) = heavy(700);
        fall_asleep(&mut stage, &member);
        let lost = bytes(1, 300_000);
        let name = shard::name(&lost);
        let places: Vec<_> = (0..lost.len().div_ceil(1024) as u64).map(|place| (name, place)).collect();
        member.lost.extend(places.iter().copied());
        let (asleep, earned) = (member.provider(&stage.world), stage.world.balance("p"));
        let until = stage.world.height + 41 * 8;
        while stage.world.height < until && member.audit(&stage.world).challenge.is_none() {
            silent(&mut stage);
        }
        if wakes_itself && member.audit(&stage.world).challenge.is_none() {
            let own = Body::Settle(member.settle(&stage.world, &[]));
            assert_eq!(submit(&mut stage, "p", own), Ok(Code::Done), "an honest one wakes for nothing");
            assert!(is_awake(&member.provider(&stage.world)));
        }
        // Before it is asked, it has fetched all data again.
        for place in &places {
            member.lost.remove(place);
        }
        let woken = stage.world.parameters.round(stage.world.height);
        while member.audit(&stage.world).challenge.is_none() {
            silent(&mut stage);
            assert!(stage.world.height < 3_000);
        }
        let asked = stage.world.parameters.round(stage.world.height);
        assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
        let after = member.provider(&stage.world);
        let now = stage.world.parameters.round(stage.world.height);
        let paid = (after.acc - asleep.acc) / 1_000_000_000;
        let since = if wakes_itself { woken } else { asked };
        assert!(paid <= u128::from(now - since), "{paid} rounds, held since {since}, now {now}");
        assert!(asked >= asleep.settled_round + 30, "it was long asleep");
        assert!(is_awake(&after) && stage.world.balance("p") >= earned);
    }
}

/// DR-3, DR-6: a provider that proves nothing does not attract the audits of others for free. `q`
/// has no byte of its own false data set. It declares that in time, is charged nothing, and would
/// take the draws by fee.
#[test]
fn who_proves_nothing_takes_no_draws_from_who_proves() {
    let draws = |with_enemy: bool| {
        let (mut stage, p) = holding(&[60_000]);
        stage.world.draws = false;
        let mut q = ModelProvider::new("q");
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
            let used: Option<posync_protocol::record::Usage> =
                stage.world.get(posync_protocol::record::Usage::key(&account("q"), 0));
            own + bond + used.map_or(0, |used| used.storage_reserve.grains())
        };
        let before = wealth(&stage);
        let mut by_fee = 0;
        for _ in 0..40 * 20 {
            let mut storage_proofs = Vec::new();
            if let Some(storage_proof) = p.storage_proof(&stage.world) {
                storage_proofs.push(stage.world.sign("p", Body::StorageProof(storage_proof)));
            }
            if with_enemy
                && let Some(storage_proof) = q.storage_proof(&stage.world)
                && stage.world.height + 1 >= storage_proof.height + stage.world.parameters.deadline_blocks
            {
                storage_proofs.push(stage.world.sign("q", Body::StorageProof(storage_proof)));
            }
            stage.world.block(&storage_proofs).expect("right answers may stand in a block");
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

/// DR-6: after an answer without any passed read, only a passed read wakes the provider: neither
/// its own `Settle`, not even after an expired challenge, nor growth from nothing.
#[test]
fn who_proved_nothing_wakes_by_proof_alone() {
    let (mut stage, mut member) = holding(&[60_000]);
    until_drawn(&mut stage, &member);
    member.lose_every(1);
    assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
    let wake = |stage: &mut Stage, member: &ModelProvider| {
        let own = Body::Settle(member.settle(&stage.world, &[]));
        submit(stage, "p", own)
    };
    stage.world.draws = false;
    let asleep = member.provider(&stage.world);
    assert!(!is_awake(&asleep) && asleep.weighed == 0 && stage.world.system().fee_weight == 0);
    assert_eq!(wake(&mut stage, &member), Err(Code::SettledAlready));
    stage.world.draws = true;
    until_drawn(&mut stage, &member);
    let asked = member.provider(&stage.world);
    assert_eq!(asked.settled_round, stage.world.parameters.round(stage.world.height), "unpaid until here");
    stage.world.draws = false;
    let open = member.audit(&stage.world).challenge.expect("it is open");
    let parameters = stage.world.parameters;
    while parameters.round(stage.world.height + 1)
        <= parameters.round(open.height) + parameters.pending_rounds_max
    {
        silent(&mut stage);
    }
    assert_eq!(wake(&mut stage, &member), Ok(Code::Done), "it closes the challenge");
    assert!(!is_awake(&member.provider(&stage.world)), "and sleeps on");
    assert_eq!(wake(&mut stage, &member), Err(Code::SettledAlready));
    stage.world.draws = true;
    until_drawn(&mut stage, &member);
    member.lost.clear();
    assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
    assert!(is_awake(&member.provider(&stage.world)), "by what it proved");
}

/// RD-11: a provider that earns little is drawn in turn only, awake or asleep. Data that ends
/// between two turns is never read, and is paid as soon as one leaf lives: for at most the rounds
/// of one turn cycle, as docs/threats.md states.
#[test]
fn what_is_paid_untested_is_at_most_one_turn_cycle() {
    let mut stage = Stage::new();
    stage.world.check_every = 97;
    populate(&mut stage.world, OTHERS);
    stage.play("p register\n q register\n a open p quota=1000 end=17\n p open p slot=1 quota=1 end=700\n b open q quota=900000 end=700");
    let (mut p, mut q) = (ModelProvider::new("p"), ModelProvider::new("q"));
    for (slot, length) in [(0, 3_000), (1, 1_000)] {
        let set = p.change(&stage.world, slot, &[], &[bytes(u64::from(slot) + 1, length)]);
        assert_eq!(submit(&mut stage, "a", Body::SetDataSet(set)), Ok(Code::Done));
    }
    let set = q.change(&stage.world, 0, &[], &[bytes(77, 4_000_000)]);
    assert_eq!(submit(&mut stage, "b", Body::SetDataSet(set)), Ok(Code::Done));
    stage.world.draws = true;
    let (mut answers, mut lost_at) = (0, None);
    while stage.world.epoch() < 19 {
        let mut storage_proofs = Vec::new();
        for member in [&p, &q] {
            if let Some(storage_proof) = member.storage_proof(&stage.world) {
                answers += u32::from(member.name == "p");
                storage_proofs.push(stage.world.sign(&member.name, Body::StorageProof(storage_proof)));
            }
        }
        let turned = !storage_proofs.is_empty() && storage_proofs.iter().any(|s| s.signer == account("p"));
        stage.world.block(&storage_proofs).expect("right answers may stand in a block");
        // After its turn it deletes all data that it holds for others.
        if turned && lost_at.is_none() {
            lost_at = Some((stage.world.epoch(), p.provider(&stage.world).acc, answers));
            let name = shard::name(&bytes(1, 3_000));
            p.lost.extend((0..3).map(|place| (name, place)));
        }
    }
    let (epoch, acc, before) = lost_at.expect("its turn came");
    let ending: Ending = stage.world.get(Ending::key(&account("p"), 17)).expect("it is there");
    let rounds = (ending.acc.unwrap_or(acc) - acc) / 1_000_000_000;
    let cycle = u128::from(cycle_rounds(&stage));
    assert!(
        rounds > 0 && rounds <= cycle,
        "paid {rounds} of the {} rounds in which it held nothing, after {} answers; a cycle has {cycle}",
        (17 - epoch) * 5,
        answers - before
    );
}

/// Rounds of one turn cycle: there is a draw in turn in every fourth block.
fn cycle_rounds(stage: &Stage) -> u64 {
    let system = stage.world.system();
    let line = u64::from(system.providers) + u64::from(system.newcomers);
    (line * 4).div_ceil(stage.world.parameters.round_blocks)
}

/// Earnings of `p` from one consumer until epoch `until`, and the rounds of a turn cycle. The
/// agreements cover these epochs, one after the other, and `p` answers every challenge. It earns
/// little, so that it is drawn in turn only.
fn earned_of(terms: &[(u64, u64)], until: u64) -> (u128, u64) {
    let mut stage = Stage::new();
    stage.world.check_every = 97;
    populate(&mut stage.world, OTHERS);
    stage.play("p register\n q register\n b open q quota=900000 end=700");
    let (mut p, mut q) = (ModelProvider::new("p"), ModelProvider::new("q"));
    let set = q.change(&stage.world, 0, &[], &[bytes(77, 4_000_000)]);
    assert_eq!(submit(&mut stage, "b", Body::SetDataSet(set)), Ok(Code::Done));
    // The provider is no longer a newcomer.
    let old = Audit { closed: 64, ..p.audit(&stage.world) };
    stage.world.state.insert(Audit::key(&account("p")), old.to_slot());
    stage.world.draws = true;
    let (mut earned, mut waiting) = (0, terms.iter().enumerate());
    let mut next = waiting.next();
    while stage.world.epoch() < until {
        if let Some((slot, (from, end))) = next.filter(|(_, (from, _))| stage.world.epoch() >= *from) {
            stage.play(&format!("a open p slot={slot} quota=100 end={end}"));
            let set = p.change(&stage.world, slot as u32, &[], &[bytes(1, 3_000)]);
            assert_eq!(submit(&mut stage, "a", Body::SetDataSet(set)), Ok(Code::Done), "from {from}");
            next = waiting.next();
        }
        let storage_proofs: Vec<_> = [&p, &q]
            .into_iter()
            .filter_map(|member| {
                Some(stage.world.sign(&member.name, Body::StorageProof(member.storage_proof(&stage.world)?)))
            })
            .collect();
        stage.world.block(&storage_proofs).expect("right answers may stand in a block");
        let events = stage.world.events.iter();
        earned += events
            .map(|event| match event {
                Event::Settled { provider, pay, .. } if *provider == account("p") => pay.grains(),
                _ => 0,
            })
            .sum::<u128>();
    }
    (earned, cycle_rounds(&stage))
}

/// RD-11: a consumer whose agreements all end between two turns pays nothing; each is shorter than
/// a turn cycle, as docs/threats.md states. A consumer whose agreement lasts two cycles pays.
#[test]
fn only_what_is_shorter_than_a_turn_cycle_can_stay_unpaid() {
    let (earned, cycle) = earned_of(&[(0, 5), (5, 17)], 19);
    assert_eq!(earned, 0);
    assert!(12 * 5 <= cycle, "the longer one has 60 rounds, a cycle {cycle}");
    let (earned, _) = earned_of(&[(0, 29)], 29);
    assert!(earned > 0, "two cycles of 12 epochs hold a draw");
}
