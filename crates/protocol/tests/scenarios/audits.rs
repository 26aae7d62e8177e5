//! Challenges: draws, storage proofs, missing reads, and every kind of wrong answer.

use crate::{
    model_provider::{ModelProvider, bytes},
    script::Stage,
    world::account,
};
use commonware_codec::{DecodeExt, Encode};
use posync_protocol::{
    Body, Bounded, Code, Hash,
    block::Draw,
    fenwick::place,
    ledger::{Event, Invalid, Mode, execute},
    limits::{HISTORY, PLACES_MAX},
    operation::{ProvedRead, ReadAnswer, Reasked, SetDataSet, StillMissing, StorageProof, SumPath},
    record::{Audit, Provider, Usage},
};
use std::collections::BTreeSet;

/// A stage with a provider `p` that holds shards of these lengths for `a` in slot 0, and draws on.
pub(crate) fn holding(lengths: &[usize]) -> (Stage, ModelProvider) {
    let mut stage = Stage::new();
    stage.play("p register\n a open p quota=100000 end=700");
    let mut member = ModelProvider::new("p");
    let adds: Vec<Vec<u8>> = lengths.iter().zip(1..).map(|(length, seed)| bytes(seed, *length)).collect();
    let set = member.change(&stage.world, 0, &[], &adds);
    assert_eq!(submit(&mut stage, "a", Body::SetDataSet(set)), Ok(Code::Done));
    stage.world.draws = true;
    (stage, member)
}

pub(crate) fn submit(stage: &mut Stage, who: &str, body: Body) -> Result<Code, Code> {
    let operation = stage.world.sign(who, body);
    stage.world.submit(&operation)
}

/// Runs empty blocks until the provider has an open challenge.
pub(crate) fn until_drawn(stage: &mut Stage, member: &ModelProvider) {
    for _ in 0..100 {
        if member.audit(&stage.world).challenge.is_some() {
            return;
        }
        stage.world.block(&[]).expect("an empty block is valid");
    }
    panic!("100 blocks without a draw");
}

/// Answers the open challenge; `None` if none is open.
pub(crate) fn answer(stage: &mut Stage, member: &ModelProvider) -> Option<Result<Code, Code>> {
    let storage_proof = member.storage_proof(&stage.world)?;
    Some(submit(stage, &member.name, Body::StorageProof(storage_proof)))
}

fn lose_all(member: &mut ModelProvider, stage: &Stage) {
    let all = member.shares(&stage.world).iter().map(|share| share.leaves).sum::<u64>();
    assert!(all > 0);
    for (seed, length) in (1..).zip([4096_usize, 3000, 1]) {
        let name = posync_protocol::shard::name(&bytes(seed, length));
        member.lost.extend((0..length.div_ceil(1024) as u64).map(|leaf| (name, leaf)));
    }
}

#[test]
fn an_answer_on_time_passes_pays_and_is_remembered() {
    let (mut stage, member) = holding(&[70_000, 0, 1, 5_000]);
    until_drawn(&mut stage, &member);
    assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
    let audited = stage.world.events.iter().find_map(|event| match event {
        Event::Audited { answered, passed, reads, on_time, .. } => {
            Some((*answered, *passed, *reads, *on_time))
        }
        _ => None,
    });
    assert_eq!(audited, Some((true, 4, 4, true)));
    let audit = member.audit(&stage.world);
    assert_eq!((audit.history, audit.on_time, audit.drawn, audit.settlements), (0b1111, 1, 4, 1));
    assert_eq!(audit.challenge, None);
    let provider = member.provider(&stage.world);
    assert_eq!(provider.settled_round, stage.world.parameters.round(stage.world.height));
}

#[test]
fn a_late_answer_counts_in_full_but_the_waiting_rounds_are_unpaid() {
    let (mut stage, member) = holding(&[70_000]);
    stage.play("blocks 20");
    until_drawn(&mut stage, &member);
    let challenge = member.audit(&stage.world).challenge.expect("it is drawn");
    let before = member.provider(&stage.world);
    while stage.world.height < challenge.height + 30 {
        stage.world.block(&[]).expect("an empty block is valid");
    }
    assert_eq!(member.audit(&stage.world).challenge, Some(challenge), "it is skipped while it waits");
    assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
    let (after, audit) = (member.provider(&stage.world), member.audit(&stage.world));
    assert_eq!((audit.history, audit.on_time, audit.silent), (0b1111, 0, 0));
    let drawn_in = stage.world.parameters.round(challenge.height);
    let paid_rounds = u128::from(drawn_in - before.settled_round);
    assert_eq!(after.acc - before.acc, paid_rounds * 1_000_000_000);
    assert_eq!(after.settled_round, stage.world.parameters.round(stage.world.height));
}

fn none<T, const MAX: usize>() -> Bounded<T, MAX> {
    Bounded::new(Vec::new()).expect("nothing")
}

/// A change of a good storage proof, and the code that refuses it.
type WrongStorageProof = (&'static str, fn(&mut StorageProof), Code);

fn first(storage_proof: &mut StorageProof, change: impl FnOnce(&mut ProvedRead)) {
    let mut answers = storage_proof.answers.to_vec();
    let ReadAnswer::Proved(read) = &mut answers[0] else { panic!("the first read is proved") };
    change(read);
    storage_proof.answers = Bounded::new(answers).expect("as many");
}

fn flip<const MAX: usize>(bytes: &Bounded<u8, MAX>) -> Bounded<u8, MAX> {
    let mut bytes = bytes.to_vec();
    *bytes.last_mut().expect("not empty") ^= 1;
    Bounded::new(bytes).expect("as many")
}

/// Codes that tests of this file assert besides the tables.
pub(crate) const ALSO: &[Code] = &[Code::DataSetShrinkEarly, Code::SettledAlready];

pub(crate) const WRONG_STORAGE_PROOFS: &[WrongStorageProof] = &[
    ("another height", |s| s.height += 1, Code::NotDrawn),
    ("an answered height", |s| s.height = 0, Code::AnsweredAlready),
    ("another anchor", |s| s.anchor[31] ^= 1, Code::WrongAnchor),
    ("another index", |s| s.index += 1, Code::BadShape),
    ("no answers", |s| s.answers = none(), Code::BadShape),
    ("three answers", |s| s.answers = Bounded::new(s.answers[..3].to_vec()).expect("three"), Code::BadShape),
    ("another slot", |s| first(s, |read| read.place += 1), Code::ReadOutsideSlot),
    ("the slot at another end", |s| first(s, |read| read.place -= 1 << 20), Code::ReadOutsideSlot),
    ("the last place", |s| first(s, |read| read.place = PLACES_MAX - 1), Code::ReadOutsideSlot),
    ("beyond the last place", |s| first(s, |read| read.place = PLACES_MAX), Code::BadShape),
    ("another shard", |s| first(s, |read| read.shard[0] ^= 1), Code::ReadPath),
    ("another length", |s| first(s, |read| read.length += 1), Code::ReadPath),
    ("a turned path", |s| first(s, |read| read.position.lefts ^= 1), Code::ReadPath),
    (
        "a shorter path",
        |s| first(s, |read| read.position = SumPath { lefts: 0, siblings: Bounded::default() }),
        Code::ReadPath,
    ),
    ("another leaf", |s| first(s, |read| read.leaf = flip(&read.leaf)), Code::ReadLeaf),
    ("no leaf", |s| first(s, |read| read.leaf = Bounded::default()), Code::ReadLeaf),
    ("no leaf path", |s| first(s, |read| read.path = Bounded::default()), Code::ReadLeaf),
    (
        "ended though it is not",
        |s| {
            let mut answers = s.answers.to_vec();
            answers[3] = ReadAnswer::Ended(posync_protocol::operation::EndedRead { place: place(700, 0) });
            s.answers = Bounded::new(answers).expect("four");
        },
        Code::ReadPath,
    ),
    (
        "a read swapped with the next",
        |s| {
            let mut answers = s.answers.to_vec();
            answers.swap(0, 1);
            s.answers = Bounded::new(answers).expect("four");
        },
        Code::ReadLeaf,
    ),
    (
        "a slot to apply that has nothing waiting",
        |s| s.apply = Bounded::new(vec![(0, account("a"), 700)]).expect("one"),
        Code::BadShape,
    ),
    (
        "a slot to apply that has no agreement",
        |s| s.apply = Bounded::new(vec![(5, account("a"), 700)]).expect("one"),
        Code::BadShape,
    ),
    (
        "an answer that nobody asked for again",
        |s| s.reasked = Bounded::new(vec![Reasked::Missing(StillMissing { slot: 0 })]).expect("one"),
        Code::ReaskedWrong,
    ),
];

#[test]
fn wrong_storage_proofs_are_no_storage_proofs() {
    let (mut stage, member) = holding(&[70_000, 60_000]);
    until_drawn(&mut stage, &member);
    let good = member.storage_proof(&stage.world).expect("it is drawn");
    for (what, mutate, code) in WRONG_STORAGE_PROOFS {
        let mut wrong = good.clone();
        mutate(&mut wrong);
        let mut copy = Stage { world: stage.world.clone(), opened: stage.opened.clone() };
        assert_eq!(submit(&mut copy, "p", Body::StorageProof(wrong)), Err(*code), "{what}");
    }
    assert_eq!(submit(&mut stage, "q", Body::StorageProof(good.clone())), Err(Code::ProviderUnknown));
    assert_eq!(submit(&mut stage, "p", Body::StorageProof(good.clone())), Ok(Code::Done));
    assert_eq!(submit(&mut stage, "p", Body::StorageProof(good)), Err(Code::AnsweredAlready));
}

#[test]
fn a_storage_proof_with_any_byte_changed_is_refused() {
    let (mut stage, member) = holding(&[30_000, 9_000, 1_500]);
    until_drawn(&mut stage, &member);
    let good = member.storage_proof(&stage.world).expect("it is drawn");
    let context = stage.world.context(stage.world.height + 1);
    let draws = stage.world.resolve(&context);
    let accepted = |storage_proof: StorageProof| {
        let operations = [stage.world.sign("p", Body::StorageProof(storage_proof))];
        let records = stage.world.read(&context, &draws, &operations);
        records.and_then(|records| execute(&context, &draws, &operations, &records, Mode::Verify)).is_ok()
    };
    let encoded = good.encode().to_vec();
    assert!(accepted(good.clone()) && encoded.len() > 4 * 1024);
    for place in 0..encoded.len() {
        let mut wrong = encoded.clone();
        wrong[place] ^= 1 << (place % 8);
        let decoded = StorageProof::decode(bytes::Bytes::from(wrong));
        assert!(
            decoded.is_err() || decoded.is_ok_and(|storage_proof| !accepted(storage_proof)),
            "byte {place}"
        );
    }
}

#[test]
fn a_missing_read_is_asked_three_times_more_then_paid_back() {
    let (mut stage, mut member) = holding(&[4096, 3000, 1]);
    lose_all(&mut member, &stage);
    let bond = member.provider(&stage.world).bond;
    for asks in [3_u8, 2, 1] {
        until_drawn(&mut stage, &member);
        assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
        let oldest = member.audit(&stage.world).missing[0];
        assert_eq!(oldest.asks_left, asks);
        assert_eq!(member.provider(&stage.world).bond, bond);
    }
    let reserve = |stage: &Stage| -> Usage { stage.world.get(Usage::key(&account("p"), 0)).expect("open") };
    let before = reserve(&stage).storage_reserve;
    until_drawn(&mut stage, &member);
    assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
    let epoch_fee = 10_000_000_u128 * 8 * 5;
    let paid: Vec<u128> = stage
        .world
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Restitution { amount, .. } => Some(amount.grains()),
            _ => None,
        })
        .collect();
    assert!(!paid.is_empty() && paid.iter().all(|amount| *amount == (2 * epoch_fee) >> 20));
    let moved: u128 = paid.iter().sum();
    assert_eq!(bond.grains() - member.provider(&stage.world).bond.grains(), moved);
    let burned: u128 = paid.iter().map(|amount| amount.div_ceil(10)).sum();
    assert_eq!(reserve(&stage).storage_reserve.grains() - before.grains(), moved - burned);
    let audit: Audit = member.audit(&stage.world);
    assert_eq!((audit.history, audit.on_time, audit.drawn), (0, 0b1111, 16));
}

#[test]
fn a_missing_read_that_is_found_again_is_forgotten() {
    let (mut stage, mut member) = holding(&[4096, 3000, 1]);
    lose_all(&mut member, &stage);
    until_drawn(&mut stage, &member);
    assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
    assert!(!member.audit(&stage.world).missing.is_empty());
    let lost = std::mem::take(&mut member.lost);
    until_drawn(&mut stage, &member);
    let good = member.storage_proof(&stage.world).expect("it is drawn");
    let mut silent = good.clone();
    silent.reasked = none();
    let mut other = good.clone();
    let still = StillMissing { slot: 1 };
    other.reasked = Bounded::new(vec![Reasked::Missing(still); good.reasked.len()]).expect("as many");
    for wrong in [silent, other] {
        assert_eq!(submit(&mut stage, "p", Body::StorageProof(wrong)), Err(Code::ReaskedWrong));
    }
    assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
    assert!(member.audit(&stage.world).missing.is_empty());
    assert!(!lost.is_empty());
}

#[test]
fn deleting_the_data_ends_the_asking() {
    let (mut stage, mut member) = holding(&[4096, 3000, 1]);
    lose_all(&mut member, &stage);
    let empty = |stage: &Stage, member: &mut ModelProvider| {
        let mut set = member.change(&stage.world, 0, &[0, 1, 2], &[]);
        set.provider_signature = None;
        Body::SetDataSet(set)
    };
    for _ in 0..2 {
        until_drawn(&mut stage, &member);
        assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
    }
    until_drawn(&mut stage, &member);
    let body = empty(&stage, &mut member);
    assert_eq!(submit(&mut stage, "a", body), Ok(Code::Done));
    assert_eq!(member.data_set(&stage.world, 0).current.leaves, 8, "it waits for the answer");
    assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
    assert_eq!(member.data_set(&stage.world, 0).current.leaves, 0);
    assert!(member.audit(&stage.world).missing.is_empty());
    assert_eq!(member.provider(&stage.world).slot_weight, 0);
}

#[test]
fn silence_expires_as_four_missing_and_one_late_and_pays_nothing() {
    let (mut stage, member) = holding(&[50_000]);
    until_drawn(&mut stage, &member);
    let open = member.audit(&stage.world).challenge.expect("it is drawn");
    let before = member.provider(&stage.world);
    let last = (stage.world.parameters.round(open.height) + 16) * 8 - 1;
    while stage.world.height < last - 1 {
        stage.world.block(&[]).expect("an empty block is valid");
    }
    let late = member.storage_proof(&stage.world).expect("it is open");
    let mut in_time = Stage { world: stage.world.clone(), opened: stage.opened.clone() };
    assert_eq!(submit(&mut in_time, "p", Body::StorageProof(late.clone())), Ok(Code::Done));
    stage.world.draws = false;
    stage.play("blocks 1");
    assert_eq!(submit(&mut stage, "p", Body::StorageProof(late)), Err(Code::NotDrawn));
    let upkeep = Body::Settle(member.settle(&stage.world, &[]));
    let mut by_anyone = Stage { world: stage.world.clone(), opened: stage.opened.clone() };
    assert_eq!(submit(&mut by_anyone, "b", upkeep.clone()), Ok(Code::Done));
    assert_eq!(submit(&mut by_anyone, "b", upkeep), Err(Code::SettledAlready));
    stage.world.draws = true;
    for _ in 0..20 {
        stage.world.block(&[]).expect("an empty block is valid");
    }
    let next = member.audit(&stage.world).challenge.expect("the next draw closed the stale one");
    assert!(next.height > open.height);
    for stage in [&by_anyone, &stage] {
        let (audit, provider) = (member.audit(&stage.world), member.provider(&stage.world));
        assert_eq!((audit.history, audit.on_time, audit.drawn, audit.settlements), (0, 0, 4, 1));
        assert_eq!((provider.acc, provider.pool), (before.acc, before.pool));
        assert!(provider.settled_round > before.settled_round);
    }
}

#[test]
fn a_provider_that_holds_nothing_answers_with_nothing() {
    let mut stage = Stage::new();
    stage.play("p register");
    stage.world.draws = true;
    let member = ModelProvider::new("p");
    until_drawn(&mut stage, &member);
    assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
    let audit = member.audit(&stage.world);
    assert_eq!((audit.drawn, audit.on_time, audit.settlements, audit.answered), (0, 0, 0, 1));
}

#[test]
fn a_body_with_other_draws_than_the_seed_decides_is_invalid() {
    let (mut stage, _) = holding(&[9_000]);
    stage.play("q register");
    let q = Draw { index: 1, account: account("q") };
    let mut kinds = BTreeSet::new();
    for _ in 0..8 {
        let context = stage.world.context(stage.world.height + 1);
        let right = stage.world.resolve(&context);
        let mut wrong: Vec<Vec<Option<Draw>>> = vec![[right.clone(), vec![None]].concat()];
        if let [drawn] = right[..] {
            kinds.insert(drawn.map(|draw| draw.index));
            wrong.push(vec![]);
            wrong.push(vec![if drawn.is_some() { None } else { Some(q) }]);
            wrong.push(vec![drawn.map(|draw| Draw { index: draw.index ^ 1, ..draw })]);
            wrong.push(vec![drawn.map(|draw| Draw { account: account("a"), ..draw })]);
            let p = Draw { index: 0, account: account("p") };
            wrong.push(vec![drawn.map(|draw| if draw == p { q } else { p })]);
        }
        for draws in wrong.into_iter().filter(|draws| *draws != right) {
            let refused = stage
                .world
                .read(&context, &draws, &[])
                .and_then(|records| execute(&context, &draws, &[], &records, Mode::Verify).map(|_| ()));
            let index = right
                .len()
                .min(draws.len())
                .min(right.iter().zip(&draws).take_while(|(a, b)| a == b).count());
            assert_eq!(refused, Err(Invalid::Draw { index }), "{draws:?} for {right:?}");
        }
        stage.world.block(&[]).expect("an empty block is valid");
    }
    assert_eq!(kinds.len(), 2, "both providers were drawn");
}

#[test]
fn nothing_in_the_block_of_a_draw_changes_what_is_drawn() {
    let (mut stage, mut member) = holding(&[20_000]);
    for round in 0..6_u64 {
        let mut busy = Stage { world: stage.world.clone(), opened: stage.opened.clone() };
        stage.world.block(&[]).expect("an empty block is valid");
        let grown = member.change(&busy.world, 0, &[], &[bytes(100 + round, 5_000)]);
        let operations = [
            busy.world.sign("q", busy.sign("q register").body),
            busy.world.sign("a", Body::SetDataSet(grown)),
        ];
        busy.world.block(&operations).expect("both may stand in a block");
        let drawn = |stage: &Stage| member.audit(&stage.world).challenge;
        assert_eq!(drawn(&stage), drawn(&busy));
        if drawn(&busy).is_some() {
            assert_eq!(answer(&mut busy, &member), Some(Ok(Code::Done)));
        }
        stage = busy;
    }
}

#[test]
fn a_newcomer_stands_in_line_twice_for_its_first_reads_only() {
    let (mut stage, member) = holding(&[30_000]);
    stage.play("q register");
    assert_eq!(stage.world.system().newcomers, 2);
    let mut answered = 0;
    while stage.world.system().newcomers == 2 {
        until_drawn(&mut stage, &member);
        assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
        answered += 1;
        assert!(answered < 40, "it never graduates");
    }
    let audit = member.audit(&stage.world);
    assert!(audit.drawn >= HISTORY && answered >= 16);
    let name: posync_protocol::record::Newcomer =
        stage.world.get(posync_protocol::record::Newcomer::key(0)).expect("one is left");
    assert_eq!(name.account, account("q"), "the last took the free place");
}

#[test]
fn everyone_is_drawn_within_one_round_of_the_line() {
    let mut stage = Stage::new();
    stage.play("p register\n q register\n a register\n b register");
    stage.world.draws = true;
    let line = u64::from(stage.world.system().providers + stage.world.system().newcomers);
    let mut drawn = BTreeSet::new();
    // One draw in two blocks, and every second draw is in turn.
    for _ in 0..4 * line {
        stage.world.block(&[]).expect("an empty block is valid");
        drawn.extend(stage.world.events.iter().filter_map(|event| match event {
            Event::Drawn { provider, .. } => Some(*provider),
            _ => None,
        }));
    }
    assert_eq!(drawn.len(), 4);
}

#[test]
fn a_provider_that_left_loses_its_place_in_both_lines() {
    let mut stage = Stage::new();
    stage.play("p register\n q register\n p leave\n epoch 21\n p leave");
    stage.world.draws = true;
    assert_eq!(stage.world.system().newcomers, 2);
    for _ in 0..40 {
        stage.world.block(&[]).expect("an empty block is valid");
        assert!(stage.world.get::<Provider>(Provider::key(&account("p"))).is_none());
    }
    assert_eq!(stage.world.system().newcomers, 1);
    let member = ModelProvider::new("q");
    assert!(member.audit(&stage.world).challenge.is_some());
}

/// A change of a good data set change, and the code that refuses it.
type DataSetRow = (&'static str, fn(&mut SetDataSet), Code);

pub(crate) const WRONG_DATA_SETS: &[DataSetRow] = &[
    ("the same version", |s| s.claim.version = 1, Code::DataSetVersion),
    ("version zero", |s| s.claim.version = 0, Code::DataSetVersion),
    ("without the provider", |s| s.provider_signature = None, Code::DataSetSignature),
    ("above the quota", |s| s.claim.leaves = 100_001, Code::DataSetOverQuota),
    ("more bytes than leaves hold", |s| s.claim.bytes = s.claim.leaves * 1024 + 1, Code::DataSetEmptyRoot),
    ("leaves under the empty root", |s| s.claim.root = [0; 32], Code::DataSetEmptyRoot),
    ("another agreement", |s| s.claim.agreement.opened += 1, Code::AgreementUnknown),
    ("another end", |s| s.end_epoch += 1, Code::BadShape),
    ("another key", |s| s.storage_key = account("session"), Code::BadShape),
    ("another index", |s| s.index += 1, Code::BadShape),
];

/// Data sets: each row changes one thing of a good change.
#[test]
fn wrong_data_sets_are_refused() {
    let (mut stage, mut member) = holding(&[4096, 3000, 1]);
    stage.world.draws = false;
    let good = member.change(&stage.world, 0, &[], &[bytes(9, 2_000)]);
    let shrunk = member.change(&stage.world, 0, &[0], &[]);
    let zero: Hash = [0; 32];
    for (what, mutate, code) in WRONG_DATA_SETS {
        let mut wrong = good.clone();
        mutate(&mut wrong);
        assert_eq!(submit(&mut stage, "a", Body::SetDataSet(wrong)), Ok(*code), "{what}");
    }
    let mut rooted = member.change(&stage.world, 0, &[0, 1, 2], &[]);
    assert_eq!(rooted.claim.root, zero);
    rooted.claim.root = [1; 32];
    assert_eq!(submit(&mut stage, "a", Body::SetDataSet(shrunk)), Ok(Code::DataSetShrinkEarly));
    stage.world.draws = true;
    for _ in 0..2 {
        until_drawn(&mut stage, &member);
        assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
    }
    assert_eq!(submit(&mut stage, "a", Body::SetDataSet(rooted)), Ok(Code::DataSetEmptyRoot));
    let shrunk = member.change(&stage.world, 0, &[0], &[]);
    assert_eq!(submit(&mut stage, "p", Body::SetDataSet(shrunk)), Ok(Code::Done), "either party may send it");
    stage.play("a closealone p/0");
    let more = member.change(&stage.world, 0, &[], &[bytes(10, 10)]);
    assert_eq!(submit(&mut stage, "a", Body::SetDataSet(more)), Ok(Code::AgreementClosed));
}

/// A provider below or above the drawn unit does not hold it, so a proposer cannot draw its friends.
#[test]
fn a_draw_by_fee_names_neither_who_is_below_the_drawn_unit_nor_who_is_above() {
    let (mut stage, _) = holding(&[50_000]);
    stage.world.draws = false;
    stage.play("q register\n b open q quota=100000 end=700");
    let mut member = ModelProvider::new("q");
    let set = member.change(&stage.world, 0, &[], &[bytes(9, 50_000)]);
    assert_eq!(submit(&mut stage, "b", Body::SetDataSet(set)), Ok(Code::Done));
    stage.world.draws = true;
    let both = [Draw { index: 0, account: account("p") }, Draw { index: 1, account: account("q") }];
    let mut seen = BTreeSet::new();
    for _ in 0..40 {
        let context = stage.world.context(stage.world.height + 1);
        let every = context.parameters.draw_every_blocks;
        let by_fee = context.height.is_multiple_of(every) && (context.height / every).is_multiple_of(2);
        if let ([Some(right)], true) = (&stage.world.resolve(&context)[..], by_fee) {
            seen.insert(right.index);
            let other = both[1 - right.index as usize];
            let run = |draw: Draw| {
                let draws = [Some(draw)];
                let records = stage.world.read(&context, &draws, &[])?;
                execute(&context, &draws, &[], &records, Mode::Verify).map(|_| ())
            };
            assert_eq!(run(*right), Ok(()));
            assert_eq!(run(other), Err(Invalid::Draw { index: 0 }), "{right:?}");
        }
        stage.world.block(&[]).expect("an empty block is valid");
    }
    assert_eq!(seen.len(), 2, "each of them was drawn");
}

/// ST-7: storage proofs come before upkeep in a block, so an ended agreement is removed even if its
/// provider is drawn often.
#[test]
fn what_is_over_is_removed_behind_the_answer_in_the_same_block() {
    let (mut stage, member) = holding(&[60_000]);
    stage.world.draws = false;
    stage.world.check_every = 97;
    stage.play("a closealone p/0\n epoch 2");
    stage.world.draws = true;
    until_drawn(&mut stage, &member);
    let removal = stage.world.sign("a", Body::Settle(member.settle(&stage.world, &[0])));
    assert_ne!(stage.world.submit(&removal), Ok(Code::Done), "its reads are due");
    let storage_proof = member.storage_proof(&stage.world).expect("it is drawn");
    let answer = stage.world.sign("p", Body::StorageProof(storage_proof));
    let removal = stage.world.sign("a", Body::Settle(member.settle(&stage.world, &[0])));
    stage.world.block(&[answer, removal]).expect("a valid block");
    assert!(member.agreement(&stage.world, 0).is_none());
}
