//! Penalties follow actions: silence is not a wrong answer, suspension can be worked off, and a
//! read that succeeds again costs nothing.

use crate::{
    audits::{answer, holding, submit, until_drawn},
    books::{reputation, row, run_to, steps},
    model_provider::{ModelProvider, bytes},
    script::Stage,
    sets::settled,
    world::account,
};
use posync_protocol::{
    Amount, Body, Bounded, Class, Code, Record,
    amount::ONE,
    economics::score::CORRECTNESS_MIN,
    ledger::{Event, ReputationReason, ReputationStep},
    operation::{FoundRead, Reasked, StorageProof},
    record::{Provider, Reputation, System, UNMEASURED},
};

/// Sets one draw an epoch instead of one in every second block.
pub(crate) fn one_draw_an_epoch(stage: &mut Stage) {
    stage.world.parameters.draw_every_blocks = stage.world.parameters.epoch_blocks();
}

/// Answers `count` challenges as they are drawn.
fn answers(stage: &mut Stage, member: &ModelProvider, count: usize) {
    for _ in 0..count {
        until_drawn(stage, member);
        assert_eq!(answer(stage, member), Some(Ok(Code::Done)));
    }
}

/// Stays silent until a later draw has closed the open challenge.
fn let_expire(stage: &mut Stage, member: &ModelProvider) {
    until_drawn(stage, member);
    let open = member.audit(&stage.world).challenge;
    while member.audit(&stage.world).challenge == open {
        stage.world.block(&[]).expect("an empty block is valid");
    }
}

#[test]
fn an_outage_alone_jails_nobody_however_rarely_it_is_drawn() {
    let (mut stage, member) = holding(&[70_000]);
    one_draw_an_epoch(&mut stage);
    answers(&mut stage, &member, 3);
    let_expire(&mut stage, &member);
    let audit = member.audit(&stage.world);
    assert_eq!((audit.history, audit.silent, audit.drawn), (0xFFF0, 0xF, 16));
    let until = stage.world.epoch() + 12;
    let events = run_to(&mut stage, &member, until, true);
    let wrong = |(_, reason): &(ReputationStep, ReputationReason)| *reason == ReputationReason::Correctness;
    assert!(!steps(&events).iter().any(wrong), "{:?}", steps(&events));
    let now = reputation(&stage.world);
    assert_eq!((now.last_jailed, now.low_correct, now.proven), (0, 0, ONE));
    let figures = (0..until).filter_map(|epoch| row(&stage.world, &account("p"), epoch));
    let low = figures.filter(|row| row.correct[Class::Storage].ppb() < CORRECTNESS_MIN).collect::<Vec<_>>();
    assert!(low.len() >= 3, "silence stays missing in its correctness");
    assert!(low.iter().all(|row| row.quality.ppb() == 0), "and costs the whole quality");
}

#[test]
fn silence_hides_no_wrong_answer() {
    let (mut stage, mut member) = holding(&[70_000]);
    one_draw_an_epoch(&mut stage);
    member.lose_tenths(5);
    answers(&mut stage, &member, 2);
    let_expire(&mut stage, &member);
    let events = run_to(&mut stage, &member, 12, true);
    assert!(
        steps(&events).contains(&(ReputationStep::Jailed, ReputationReason::Correctness)),
        "{:?} {:?}",
        steps(&events),
        member.audit(&stage.world)
    );
}

#[test]
fn what_nobody_answered_is_no_evidence_at_all() {
    let (mut stage, member) = holding(&[70_000]);
    let events = run_to(&mut stage, &member, 14, false);
    let now = reputation(&stage.world);
    assert_eq!((now.proven, now.low_correct, now.last_jailed), (UNMEASURED, 0, 0));
    assert!(steps(&events).iter().all(|(_, reason)| *reason == ReputationReason::Availability));
    assert!(now.on_time < ONE / 2 && now.suspended > 0);
    let audit = member.audit(&stage.world);
    assert_eq!(audit.silent.count_ones(), audit.drawn.min(64));
}

/// A provider that is suspended and has lost its only consumer, so that no data is left to read.
fn emptied_while_suspended() -> (Stage, ModelProvider) {
    let (mut stage, member) = holding(&[70_000]);
    run_to(&mut stage, &member, 22, false);
    assert!(reputation(&stage.world).suspended > 0);
    stage.world.draws = false;
    let later = stage.world.epoch() + 5;
    stage.play(&format!("a closealone p/0\n epoch {later}"));
    let expiry = Body::Settle(member.settle(&stage.world, &[]));
    assert_eq!(submit(&mut stage, "b", expiry), Ok(Code::Done));
    let removal = Body::Settle(member.settle(&stage.world, &[0]));
    assert_eq!(submit(&mut stage, "b", removal), Ok(Code::Done));
    assert_eq!((member.provider(&stage.world).slot_weight, member.provider(&stage.world).slots), (0, 0));
    let measured = stage.world.epoch() + 3;
    stage.play(&format!("epoch {measured}\n a open p end={} => ProviderSuspended", measured + 500));
    (stage, member)
}

#[test]
fn who_is_suspended_and_holds_nothing_works_it_off_by_answering() {
    let (mut stage, member) = emptied_while_suspended();
    let resumed = (ReputationStep::Resumed, ReputationReason::Availability);
    stage.world.draws = true;
    let mut silent = Stage { world: stage.world.clone(), opened: stage.opened.clone() };
    let until = silent.world.epoch() + 8;
    let events = run_to(&mut silent, &member, until, false);
    assert_eq!(steps(&events), [], "who says nothing stays suspended");
    assert!(reputation(&silent.world).suspended > 0);
    let until = stage.world.epoch() + 4;
    let events = run_to(&mut stage, &member, until, true);
    assert_eq!(steps(&events), [resumed]);
    let now = reputation(&stage.world);
    assert_eq!((now.suspended, now.low_available), (0, 0));
    let end = stage.world.epoch() + 500;
    stage.world.draws = false;
    stage.play(&format!("a open p quota=100000 end={end}"));
}

#[test]
fn who_resumed_with_nothing_is_suspended_again_for_three_low_epochs() {
    let (mut stage, mut member) = emptied_while_suspended();
    stage.world.draws = true;
    let until = stage.world.epoch() + 4;
    run_to(&mut stage, &member, until, true);
    stage.world.draws = false;
    let end = stage.world.epoch() + 500;
    stage.play(&format!("a open p quota=100000 end={end}"));
    let set = member.change(&stage.world, 0, &[], &[bytes(3, 50_000)]);
    assert_eq!(submit(&mut stage, "a", Body::SetDataSet(set)), Ok(Code::Done));
    stage.world.draws = true;
    let until = stage.world.epoch() + 30;
    let events = run_to(&mut stage, &member, until, false);
    let away = ReputationReason::Availability;
    let expected = [ReputationStep::Warned, ReputationStep::Warned, ReputationStep::Suspended];
    assert_eq!(steps(&events)[..3], expected.map(|step| (step, away)));
}

fn restitutions(stage: &Stage) -> usize {
    stage.world.events.iter().filter(|event| matches!(event, Event::Restitution { .. })).count()
}

/// Four shards of a leaf each, all declared missing once. The swap replaces them by shards with
/// other names.
fn declared_missing() -> (Stage, ModelProvider) {
    let (mut stage, mut member) = holding(&[1_000; 4]);
    member.lose_every(1);
    settled(&mut stage, &member);
    assert!(!member.audit(&stage.world).missing.is_empty());
    (stage, member)
}

/// Replaces every shard by one of equal length; both parties sign.
fn swap(stage: &mut Stage, member: &mut ModelProvider) {
    let others: Vec<Vec<u8>> = (50..54).map(|seed| bytes(seed, 1_000)).collect();
    let set = member.change(&stage.world, 0, &[0, 1, 2, 3], &others);
    let version = set.claim.version;
    assert_eq!(submit(stage, "a", Body::SetDataSet(set)), Ok(Code::Done));
    assert_eq!(member.data_set(&stage.world, 0).current.version, version, "at once");
    stage.world.draws = true;
}

#[test]
fn a_read_that_is_there_again_is_proved_though_its_shard_was_swapped() {
    let (mut stage, mut member) = declared_missing();
    let bond = member.provider(&stage.world).bond;
    member.lost.clear();
    swap(&mut stage, &mut member);
    for _ in 0..6 {
        answers(&mut stage, &member, 1);
        assert_eq!(restitutions(&stage), 0);
    }
    assert!(member.audit(&stage.world).missing.is_empty());
    assert_eq!(member.provider(&stage.world).bond, bond);
}

#[test]
fn a_swap_of_what_is_really_lost_saves_nobody_from_restitution() {
    let (mut stage, mut member) = declared_missing();
    let lost = std::mem::take(&mut member.lost);
    swap(&mut stage, &mut member);
    member.lost = lost;
    let mut paid = 0;
    for _ in 0..6 {
        answers(&mut stage, &member, 1);
        paid += restitutions(&stage);
    }
    assert!(paid > 0);
}

#[test]
fn a_swap_and_a_shrink_end_the_asking() {
    let (mut stage, mut member) = declared_missing();
    swap(&mut stage, &mut member);
    answers(&mut stage, &member, 1);
    settled(&mut stage, &member);
    assert!(!member.audit(&stage.world).missing.is_empty());
    let shrunk = member.change(&stage.world, 0, &[0], &[]);
    assert_eq!(submit(&mut stage, "a", Body::SetDataSet(shrunk)), Ok(Code::Done));
    assert_eq!(member.data_set(&stage.world, 0).current.leaves, 3);
    assert!(member.audit(&stage.world).missing.is_empty());
}

/// A change of a good answer to a read asked again, and the code that refuses it.
type WrongRead = (&'static str, fn(&mut FoundRead), Code);

const WRONG_FOUND: &[WrongRead] = &[
    ("another slot", |read| read.slot += 1, Code::ReaskedWrong),
    ("another shard", |read| read.shard[0] ^= 1, Code::ReaskedWrong),
    ("longer by leaves", |read| read.length += 4 * 1024, Code::ReadLeaf),
    ("no length", |read| read.length = 0, Code::ReadLeaf),
    ("longest", |read| read.length = u64::MAX, Code::ReadLeaf),
    (
        "another leaf",
        |read| {
            let mut leaf = read.leaf.to_vec();
            leaf[0] ^= 1;
            read.leaf = Bounded::new(leaf).expect("as many");
        },
        Code::ReadLeaf,
    ),
    ("no leaf", |read| read.leaf = Bounded::default(), Code::ReadLeaf),
    ("no path", |read| read.path = Bounded::default(), Code::ReadLeaf),
    (
        "a longer path",
        |read| read.path = Bounded::new([read.path.to_vec(), vec![[0; 32]]].concat()).expect("few"),
        Code::ReadLeaf,
    ),
];

#[test]
fn only_the_chunk_and_its_path_to_the_name_prove_a_read_asked_again() {
    let (mut stage, mut member) = holding(&[5_000]);
    member.lose_every(1);
    answers(&mut stage, &member, 1);
    member.lost.clear();
    until_drawn(&mut stage, &member);
    let good = member.storage_proof(&stage.world).expect("it is drawn");
    let asked = good.reasked.to_vec();
    for (what, change, code) in WRONG_FOUND {
        let mut answers = asked.clone();
        let Reasked::Proved(read) = &mut answers[0] else { panic!("it is there again") };
        change(read);
        let wrong = StorageProof { reasked: Bounded::new(answers).expect("as many"), ..good.clone() };
        let mut copy = Stage { world: stage.world.clone(), opened: stage.opened.clone() };
        assert_eq!(submit(&mut copy, "p", Body::StorageProof(wrong)), Err(*code), "{what}");
    }
    if let [Reasked::Proved(one), Reasked::Proved(other), ..] = &asked[..] {
        let mut answers = asked.clone();
        answers[0] = Reasked::Proved(FoundRead { slot: one.slot, ..other.clone() });
        let wrong = StorageProof { reasked: Bounded::new(answers).expect("as many"), ..good.clone() };
        let mut copy = Stage { world: stage.world.clone(), opened: stage.opened.clone() };
        assert_eq!(submit(&mut copy, "p", Body::StorageProof(wrong)), Err(Code::ReadLeaf), "another's leaf");
    }
    assert_eq!(submit(&mut stage, "p", Body::StorageProof(good)), Ok(Code::Done));
}

#[test]
fn a_read_is_remembered_once() {
    let (mut stage, mut member) = holding(&[1_000]);
    member.lose_every(1);
    for _ in 0..3 {
        answers(&mut stage, &member, 1);
        assert_eq!(member.audit(&stage.world).missing.len(), 1, "all four reads are of one leaf");
    }
    answers(&mut stage, &member, 1);
    assert_eq!(restitutions(&stage), 1);
}

#[test]
fn the_end_of_an_agreement_ends_the_asking_without_restitution() {
    let (mut stage, mut member) = holding(&[10]);
    stage.world.draws = false;
    stage.play("b open p slot=1 quota=1000 end=3");
    let second = member.change(&stage.world, 1, &[], &[bytes(7, 900_000)]);
    assert_eq!(submit(&mut stage, "b", Body::SetDataSet(second)), Ok(Code::Done));
    member.lose_every(1);
    settled(&mut stage, &member);
    let of_b = |member: &ModelProvider, stage: &Stage| {
        member.audit(&stage.world).missing.iter().filter(|missing| missing.slot == 1).count()
    };
    assert!(of_b(&member, &stage) > 0);
    stage.play("epoch 3");
    stage.world.draws = true;
    for _ in 0..3 {
        answers(&mut stage, &member, 1);
        assert_eq!((of_b(&member, &stage), restitutions(&stage)), (0, 0));
    }
}

#[test]
fn silence_after_wrong_answers_counts_no_further_epoch_against_it() {
    let (mut stage, mut member) = holding(&[70_000]);
    one_draw_an_epoch(&mut stage);
    member.lose_tenths(8);
    answers(&mut stage, &member, 1);
    let judged = stage.world.epoch() + 3;
    run_to(&mut stage, &member, judged, false);
    let before = reputation(&stage.world).low_correct;
    assert_eq!(before, 1);
    run_to(&mut stage, &member, judged + 12, false);
    let now = reputation(&stage.world);
    assert!(now.drawn_at_close > 4, "silence was measured");
    assert_eq!((now.low_correct, now.jailed_until), (before, 0));
}

#[test]
fn no_score_rises_on_probation() {
    let (mut stage, member) = holding(&[70_000]);
    let place = Reputation::key(&account("p"));
    let mut given: Reputation = stage.world.get(place).expect("it registered");
    (given.probation, given.scores[Class::Storage]) = (u8::MAX, ONE / 10);
    stage.world.state.insert(place, given.to_slot());
    let mut free = Stage { world: stage.world.clone(), opened: stage.opened.clone() };
    given.probation = 0;
    free.world.state.insert(place, given.to_slot());
    for (stage, rises) in [(&mut stage, false), (&mut free, true)] {
        run_to(stage, &member, 8, true);
        assert_eq!(reputation(&stage.world).scores[Class::Storage] > ONE / 10, rises);
    }
}

/// The bond may be too small for the declaration, because restitution has lowered it since.
#[test]
fn who_leaves_jail_has_a_bond_for_what_it_declares() {
    let mut stage = Stage::new();
    stage.play("p register bond=1000s");
    let (place, at) = (Reputation::key(&account("p")), Provider::key(&account("p")));
    let mut jailed: Reputation = stage.world.get(place).expect("it registered");
    jailed.jailed_until = 1;
    stage.world.state.insert(place, jailed.to_slot());
    let mut provider: Provider = stage.world.get(at).expect("it registered");
    let mut system = stage.world.system();
    provider.bond = Amount::sync(999);
    system.bonds = Amount::sync(999);
    system.burned = system.burned.checked_add(Amount::sync(1)).expect("below the bound");
    stage.world.state.insert(at, provider.to_slot());
    stage.world.state.insert(System::key(), system.to_slot());
    stage.play("epoch 2\n p unjail => BondTooSmall\n p unjail bond=1s");
}

/// JL-4: a jailed provider's data set does not grow beyond the leaves in force. This includes
/// growth that was submitted before and still waits.
#[test]
fn growth_that_waits_does_not_take_effect_in_jail() {
    let (mut stage, mut member) = holding(&[10_000]);
    until_drawn(&mut stage, &member);
    let large = member.change(&stage.world, 0, &[], &[bytes(7, 900_000)]);
    assert_eq!(submit(&mut stage, "a", Body::SetDataSet(large)), Ok(Code::Done));
    let place = Reputation::key(&account("p"));
    let mut reputation: Reputation = stage.world.get(place).expect("it registered");
    (reputation.jailed_until, reputation.jailings, reputation.last_jailed) = (40, 1, 1);
    stage.world.state.insert(place, reputation.to_slot());
    assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
    assert_eq!(member.data_set(&stage.world, 0).current.leaves, 10, "as many as were in force");
}
