//! Storage pay: intervals, endings and upkeep; only owed money is charged or paid.

use crate::{
    audits::{answer, holding, submit, until_drawn},
    model_provider::{ModelProvider, bytes},
    script::Stage,
    world::{FUNDED, World, account, key},
};
use posync_protocol::{
    Body, Bounded, Class, Code, Operation, Record,
    fees::split_fee,
    fenwick,
    ledger::Event,
    limits::PLACES_MAX,
    operation::Settle,
    record::{Agreement, Ending, Market, Provider, SlotTree, Usage},
    settlement::owed,
};
use proptest::prelude::*;

const RATE: u128 = 10_000_000;
const UNIT: u128 = 1 << 20;

fn blocks(stage: &mut Stage, count: u64) {
    for _ in 0..count {
        stage.world.block(&[]).expect("an empty block is valid");
    }
}

/// Runs blocks without draws, then one that draws `p`.
fn idle(stage: &mut Stage, member: &ModelProvider, count: u64) {
    stage.world.draws = false;
    blocks(stage, count);
    stage.world.draws = true;
    until_drawn(stage, member);
}

/// Storage fees that the last block paid to `p`, in grains.
fn fees(world: &World) -> Vec<u128> {
    let fee = |event: &Event| match event {
        Event::Settled { agreement: None, fee, .. } => Some(fee.grains()),
        _ => None,
    };
    world.events.iter().filter_map(fee).collect()
}

/// Money that left the provider's pool and is not charged yet, and the money left to agreements.
fn claims(member: &ModelProvider, world: &World, slots: u32) -> u128 {
    let provider = member.provider(world);
    let p = account(&member.name);
    let claim = |slot| {
        let terms: Agreement = world.get(Agreement::key(&p, slot))?;
        let usage: Usage = world.get(Usage::key(&p, slot)).expect("beside it");
        let ending: Ending = world.get(Ending::key(&p, terms.end_epoch)).expect("beside it");
        let owed = owed(&terms, &usage, &member.data_set(world, slot), &ending, &provider);
        Some(usage.storage_reserve.grains() - owed.grains())
    };
    (0..slots).filter_map(claim).sum()
}

#[test]
fn an_interval_pays_by_the_rule_and_charges_the_same() {
    let (mut stage, member) = holding(&[70_000, 3_000]);
    let leaves = member.data_set(&stage.world, 0).current.leaves;
    let reserve = |stage: &Stage| stage.world.get::<Usage>(Usage::key(&account("p"), 0)).expect("open");
    let before = (reserve(&stage), member.provider(&stage.world), stage.world.balance("p").grains());
    idle(&mut stage, &member, 60);
    let now = stage.world.parameters.round(stage.world.height + 1);
    let rounds = u128::from(now - before.1.settled_round);
    assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
    let fee = RATE * u128::from(leaves) * rounds / UNIT;
    assert!(fee > 0);
    assert_eq!(fees(&stage.world), vec![fee]);
    let fee_amount = posync_protocol::Amount::new(fee).expect("small");
    let split = split_fee(fee_amount, fee_amount, 200_000_000, 50_000_000).expect("the shares fit");
    assert_eq!(stage.world.balance("p").grains() - before.2, split.pay.grains());
    assert_eq!(before.1.pool.grains() - member.provider(&stage.world).pool.grains(), fee);
    assert_eq!(reserve(&stage).storage_reserve, before.0.storage_reserve, "charged when touched");
    stage.world.draws = false;
    stage.play("a close p/0 second=p");
    assert_eq!(stage.world.system().storage_pools.grains(), 0, "the dust is burned with the last one");
}

#[test]
fn growth_waits_for_a_settled_point_and_is_paid_from_there() {
    let (mut stage, mut member) = holding(&[70_000]);
    idle(&mut stage, &member, 50);
    let small = member.provider(&stage.world).slot_weight;
    let grown = member.change(&stage.world, 0, &[], &[bytes(5, 700_000)]);
    assert_eq!(submit(&mut stage, "a", Body::SetDataSet(grown)), Ok(Code::Done));
    let waiting = member.data_set(&stage.world, 0);
    assert!(waiting.next.is_some() && member.provider(&stage.world).slot_weight == small);
    let again = member.change(&stage.world, 0, &[], &[bytes(6, 10_000)]);
    assert_eq!(again.claim.version, 3, "a later one replaces it, judged against it");
    assert_eq!(submit(&mut stage, "a", Body::SetDataSet(again)), Ok(Code::Done));
    let acc = member.provider(&stage.world).acc;
    assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
    let after = member.provider(&stage.world);
    let rounds = (after.acc - acc) / 1_000_000_000;
    assert_eq!(fees(&stage.world), vec![small * rounds / UNIT], "paid for what was held");
    assert_eq!(member.data_set(&stage.world, 0).current.version, 3);
    assert!(after.slot_weight > 10 * small);
}

#[test]
fn an_ending_is_crossed_in_order_and_what_ended_is_no_longer_paid() {
    let (mut stage, mut member) = holding(&[70_000]);
    stage.world.draws = false;
    stage.play("b open p slot=1 quota=1000 end=3");
    let second = member.change(&stage.world, 1, &[], &[bytes(7, 50_000)]);
    assert_eq!(submit(&mut stage, "b", Body::SetDataSet(second)), Ok(Code::Done));
    let all = member.provider(&stage.world);
    assert_eq!(member.data_set(&stage.world, 1).next, None, "it settled in this round");
    stage.play("epoch 4");
    stage.world.draws = true;
    until_drawn(&mut stage, &member);
    let storage_proof = member.storage_proof(&stage.world).expect("it is drawn");
    assert_eq!(storage_proof.endings[..], [3]);
    let mut blind = storage_proof.clone();
    blind.endings = Bounded::new(vec![]).expect("none");
    assert_eq!(submit(&mut stage, "p", Body::StorageProof(blind)), Err(Code::EndingsMissing));
    let mut wide = storage_proof;
    wide.endings = Bounded::new(vec![2, 3, 9]).expect("three");
    assert_eq!(
        submit(&mut stage, "p", Body::StorageProof(wide.clone())),
        Err(Code::BadShape),
        "none so late"
    );
    wide.endings = Bounded::new(vec![2, 3, 5]).expect("three");
    assert_eq!(submit(&mut stage, "p", Body::StorageProof(wide)), Ok(Code::Done), "more may be named");
    let after = member.provider(&stage.world);
    let live = RATE * u128::from(member.data_set(&stage.world, 0).current.leaves);
    assert_eq!((after.paid, after.slot_weight), (live, all.slot_weight));
    let ending: Ending = stage.world.get(Ending::key(&account("p"), 3)).expect("its agreement is there");
    let end = ending.acc.expect("it is crossed");
    let (before_end, after_end) = ((end - all.acc) / 1_000_000_000, (after.acc - end) / 1_000_000_000);
    assert_eq!(before_end, u128::from(15 - all.settled_round));
    assert_eq!(fees(&stage.world), vec![(all.paid * before_end + live * after_end) / UNIT]);
}

#[test]
fn an_ended_slot_is_not_read_and_keeps_its_place_until_anyone_frees_it() {
    let (mut stage, mut member) = holding(&[10]);
    stage.world.draws = false;
    stage.play("b open p slot=1 quota=1000 end=3");
    let second = member.change(&stage.world, 1, &[], &[bytes(7, 900_000)]);
    assert_eq!(submit(&mut stage, "b", Body::SetDataSet(second)), Ok(Code::Done));
    for leaf in 0..900 {
        member.lost.insert((posync_protocol::shard::name(&bytes(7, 900_000)), leaf));
    }
    for epoch in ["epoch 3", "epoch 4"] {
        stage.play(epoch);
        stage.world.draws = true;
        until_drawn(&mut stage, &member);
        let upkeep = Body::Settle(member.settle(&stage.world, &[1]));
        let mut copy = Stage { world: stage.world.clone(), opened: stage.opened.clone() };
        assert_eq!(submit(&mut copy, "b", upkeep), Err(Code::NothingToSettle), "its reads are due");
        assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
        stage.world.draws = false;
    }
    let audit = member.audit(&stage.world);
    assert_eq!((audit.history, audit.drawn), (0xff, 8), "all eight reads were of the leaf that lives");
    let (slot_weight, upkeep) =
        (member.provider(&stage.world).slot_weight, Body::Settle(member.settle(&stage.world, &[1])));
    assert_eq!(slot_weight, RATE * 880, "the ended ones keep their place");
    assert_eq!(submit(&mut stage, "b", upkeep.clone()), Ok(Code::Done));
    assert_eq!(submit(&mut stage, "b", upkeep), Err(Code::NothingToSettle));
    assert_eq!(member.provider(&stage.world).slot_weight, RATE);
    let nodes =
        stage.world.state.values().filter(|slot| slot[0] == <SlotTree as posync_protocol::Record>::KIND);
    let path = fenwick::update_path(fenwick::place(700, 0), PLACES_MAX);
    assert_eq!(nodes.count(), path.len(), "only slot 0 has nodes");
}

/// Operations of one sender with consecutive nonces, each with its own fee.
fn in_a_row(world: &World, who: &str, bodies: Vec<Body>) -> Vec<Operation> {
    let first = world.sign(who, bodies[0].clone()).nonce;
    let sign = |(nonce, body): (u64, Body)| {
        let fee = world.sign(who, body.clone()).max_fee;
        Operation::signed(&key(who), &world.chain, nonce, fee, world.height + 1, body)
    };
    (first..).zip(bodies).map(sign).collect()
}

/// Number of reads that `p` passed in the last block.
fn passed(world: &World) -> u128 {
    let passed = |event: &Event| match event {
        Event::Audited { passed, .. } => Some(u128::from(*passed)),
        _ => None,
    };
    world.events.iter().find_map(passed).expect("it answered")
}

/// An agreement that lives on in slot 0, 66 agreements that end in successive epochs, and a
/// challenge after the last end.
fn many_endings() -> (Stage, ModelProvider) {
    let mut stage = Stage::new();
    (stage.world.parameters.term_rounds, stage.world.parameters.epoch_rounds) = (2, 2);
    stage.play("p register\n a open p quota=10000 end=700");
    for slot in 1..=66 {
        stage.play(&format!("a open p slot={slot} quota=1 end={} reserve=0", FIRST_END + slot - 1));
    }
    let mut member = ModelProvider::new("p");
    member.slots = 67;
    let mut set = |slot: u32| {
        let length = if slot == 0 { 900_000 } else { 1_000 };
        Body::SetDataSet(member.change(&stage.world, slot, &[], &[bytes(slot.into(), length)]))
    };
    let sets = in_a_row(&stage.world, "a", (0..=66).map(&mut set).collect());
    let codes = stage.world.block(&sets).expect("all fit a block").receipts;
    assert_eq!(codes.iter().filter(|(_, code)| *code == Code::Done).count(), 67);
    assert!((0..=66).all(|slot| member.data_set(&stage.world, slot).current.version == 1));
    stage.world.skip_to_epoch(u64::from(FIRST_END) + 70);
    stage.world.draws = true;
    until_drawn(&mut stage, &member);
    (stage, member)
}

/// End epoch of the agreement in slot 1 of [`many_endings`].
const FIRST_END: u32 = 12;

#[test]
fn more_endings_than_a_storage_proof_names_are_settled_up_to_the_last_it_may_name() {
    let (mut stage, mut member) = many_endings();
    let before = member.provider(&stage.world);
    let storage_proof = member.storage_proof(&stage.world).expect("it is drawn");
    assert_eq!(storage_proof.endings.len(), 64);
    let mut blind = storage_proof.clone();
    blind.endings = Bounded::new(storage_proof.endings[..63].to_vec()).expect("fewer");
    assert_eq!(submit(&mut stage, "p", Body::StorageProof(blind)), Err(Code::EndingsMissing));
    let mut late = Stage { world: stage.world.clone(), opened: stage.opened.clone() };
    assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
    let (first, after) = (passed(&stage.world), member.provider(&stage.world));
    let start = |ending: u32| 2 * u64::from(ending);
    let last = FIRST_END + 63;
    assert_eq!(after.settled_round, start(last), "settled up to the 64th, and not beyond");
    let quarter = 250_000_000;
    let units = first * u128::from(start(last) - before.settled_round);
    assert!(first > 0);
    assert_eq!(after.acc, before.acc + quarter * units);
    let ending = |stage: &Stage, epoch: u32| -> Ending {
        stage.world.get(Ending::key(&account("p"), epoch.into())).expect("its agreement is there")
    };
    assert_eq!(ending(&stage, last).acc, Some(after.acc));
    assert_eq!((ending(&stage, last + 1).acc, ending(&stage, last + 2).acc), (None, None));
    assert_eq!(after.paid, before.paid - 64 * RATE);
    let grown = member.change(&stage.world, 0, &[], &[bytes(99, 5_000)]);
    stage.world.draws = false;
    assert_eq!(submit(&mut stage, "a", Body::SetDataSet(grown)), Ok(Code::Done));
    assert!(member.data_set(&stage.world, 0).next.is_some(), "it is no settled point");
    stage.world.draws = true;
    until_drawn(&mut stage, &member);
    assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
    let (second, end) = (passed(&stage.world), member.provider(&stage.world));
    let now = stage.world.parameters.round(stage.world.height);
    assert_eq!(
        (end.settled_round, end.acc),
        (now, after.acc + quarter * second * u128::from(now - start(last)))
    );
    let between = after.acc + quarter * second * u128::from(start(last + 1) - start(last));
    assert_eq!(ending(&stage, last + 1).acc, Some(between), "the rest goes on where it was settled");
    assert_eq!(member.data_set(&stage.world, 0).current.version, 2);

    let open = member.audit(&late.world).challenge.expect("it is open");
    late.world.draws = false;
    blocks(&mut late, 40);
    assert_eq!(answer(&mut late, &member), Some(Ok(Code::Done)));
    let waited = late.world.parameters.round(late.world.height) - late.world.parameters.round(open.height);
    assert!(waited > 0);
    assert_eq!(member.provider(&late.world).acc, after.acc);
    assert_eq!(member.provider(&late.world).settled_round, start(last) + waited, "waiting is never paid");
}

/// An agreement whose window is over, but whose provider is not settled up to its end (ST-8).
#[test]
fn an_agreement_that_ended_is_not_removed_before_its_end_is_paid() {
    let (mut stage, mut member) = holding(&[10]);
    stage.world.draws = false;
    stage.play("b open p slot=1 quota=1000 end=3");
    let second = member.change(&stage.world, 1, &[], &[bytes(7, 900_000)]);
    assert_eq!(submit(&mut stage, "b", Body::SetDataSet(second)), Ok(Code::Done));
    stage.play("epoch 6");
    let early = Body::Settle(member.settle(&stage.world, &[1]));
    assert_eq!(submit(&mut stage, "b", early), Err(Code::NothingToSettle));
    stage.world.draws = true;
    until_drawn(&mut stage, &member);
    assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
    stage.world.draws = false;
    let upkeep = Body::Settle(member.settle(&stage.world, &[1]));
    assert_eq!(submit(&mut stage, "b", upkeep), Ok(Code::Done));
    assert!(member.agreement(&stage.world, 1).is_none());
}

/// A provider is paid at the lower of both prices; the part that a rise of the price adds is burned.
#[test]
fn storage_is_paid_at_the_slow_price_where_that_is_lower() {
    let mut stage = Stage::new();
    let market = Market { price: 40_000_000, slow: 10_000_000, ..Market::default() };
    stage.world.state.insert(Market::key(Class::Storage), market.to_slot());
    stage.play("p register\n a open p quota=100000 end=700");
    let mut member = ModelProvider::new("p");
    let set = member.change(&stage.world, 0, &[], &[bytes(1, 900_000)]);
    assert_eq!(submit(&mut stage, "a", Body::SetDataSet(set)), Ok(Code::Done));
    stage.play("blocks 20");
    stage.world.draws = true;
    until_drawn(&mut stage, &member);
    assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
    let split = stage.world.events.iter().find_map(|event| match event {
        Event::Settled { fee, burn, committee, pay, .. } => {
            Some([*fee, *burn, *committee, *pay].map(posync_protocol::Amount::grains))
        }
        _ => None,
    });
    let [fee, burn, committee, pay] = split.expect("it is paid");
    assert!(pay > 0 && pay <= fee / 4, "{pay} of {fee}, whose base is a quarter");
    assert!(committee <= fee / 80 && burn >= fee * 3 / 4 + fee / 20);
    assert_eq!(burn + committee + pay, fee);
}

/// Codes that tests of this file assert.
pub(crate) const ALSO: &[Code] = &[Code::EndingsMissing, Code::NothingToSettle, Code::ChallengeOpen];

/// Upkeep that changes nothing is refused, so that it cannot fill blocks for free.
#[test]
fn upkeep_changes_something_or_is_refused() {
    let (mut stage, member) = holding(&[5_000]);
    stage.world.draws = false;
    let good = member.settle(&stage.world, &[0]);
    let wrong = |change: fn(&mut Settle)| {
        let mut body = good.clone();
        change(&mut body);
        Body::Settle(body)
    };
    let rows = [
        ("no slot", wrong(|s| s.slots = Bounded::new(vec![]).expect("none")), Code::SettledAlready),
        ("nothing due", wrong(|_| ()), Code::NothingToSettle),
        (
            "an ending to come",
            wrong(|s| s.endings = Bounded::new(vec![1]).expect("one")),
            Code::EndingsMissing,
        ),
        (
            "an ending later than that",
            wrong(|s| s.endings = Bounded::new(vec![u64::MAX]).expect("one")),
            Code::BadShape,
        ),
        (
            "an unknown slot",
            wrong(|s| s.slots = Bounded::new(vec![(3, account("a"), 700)]).expect("one")),
            Code::AgreementUnknown,
        ),
        (
            "another consumer",
            wrong(|s| s.slots = Bounded::new(vec![(0, account("b"), 700)]).expect("one")),
            Code::BadShape,
        ),
        (
            "a slot twice",
            wrong(|s| s.slots = Bounded::new(vec![(0, account("a"), 700); 2]).expect("two")),
            Code::BadShape,
        ),
        (
            "endings that do not ascend",
            wrong(|s| s.endings = Bounded::new(vec![1, 0]).expect("two")),
            Code::BadShape,
        ),
        (
            "an ending two epochs ahead",
            wrong(|s| s.endings = Bounded::new(vec![2]).expect("one")),
            Code::BadShape,
        ),
        (
            "another end",
            wrong(|s| s.slots = Bounded::new(vec![(0, account("a"), 7)]).expect("one")),
            Code::BadShape,
        ),
        ("another index", wrong(|s| s.index = 1), Code::BadShape),
        ("another provider", wrong(|s| s.provider = account("q")), Code::ProviderUnknown),
    ];
    for (what, body, code) in rows {
        assert_eq!(submit(&mut stage, "b", body), Err(code), "{what}");
    }
}

#[test]
fn an_agreement_that_is_over_returns_everything_that_was_not_used() {
    let (mut stage, member) = holding(&[5_000]);
    let opened = stage.world.clone();
    idle(&mut stage, &member, 30);
    stage.play("a closealone p/0");
    assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
    let epoch = stage.world.epoch();
    let upkeep = |stage: &Stage| Body::Settle(member.settle(&stage.world, &[0]));
    stage.world.draws = false;
    let body = upkeep(&stage);
    assert_eq!(submit(&mut stage, "b", body), Err(Code::NothingToSettle), "the window is open");
    stage.play(&format!("epoch {}", epoch + 2));
    let body = upkeep(&stage);
    assert_eq!(submit(&mut stage, "b", body), Ok(Code::Done));
    let system = stage.world.system();
    assert_eq!(
        (system.agreements, system.deposits, system.storage_pools, system.fee_weight),
        Default::default()
    );
    let fee = member.provider(&stage.world).acc / 1_000_000_000 * RATE * 5 / UNIT;
    let fees = stage.world.parameters.base_fee.grains();
    let spent = FUNDED.grains() - stage.world.balance("a").grains();
    let opening = FUNDED.grains() - opened.balance("a").grains();
    assert!(fee > 0 && spent >= fee && spent < opening + 200_000 * fees);
}

#[test]
fn a_close_by_both_while_a_challenge_is_open_is_refused_and_upkeep_does_not_finish_it() {
    let (mut stage, member) = holding(&[5_000]);
    until_drawn(&mut stage, &member);
    stage.play("a close p/0 second=p => ChallengeOpen");
    let upkeep = Body::Settle(member.settle(&stage.world, &[0]));
    assert_eq!(submit(&mut stage, "b", upkeep.clone()), Err(Code::NothingToSettle));
    assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
    stage.world.draws = false;
    assert_eq!(submit(&mut stage, "b", upkeep.clone()), Err(Code::NothingToSettle), "it stands");
    stage.play("a close p/0 second=p");
    assert_eq!(submit(&mut stage, "b", upkeep), Err(Code::AgreementUnknown));
    assert_eq!(stage.world.system().storage_pools, Default::default());
}

/// One step of a random history.
#[derive(Clone, Debug)]
enum StorageAction {
    Open { slot: u32, end: u64 },
    Grow { slot: u32, length: usize },
    Shrink { slot: u32 },
    Empty { slot: u32 },
    Lose { seed: u8 },
    Answer,
    Upkeep { slot: u32 },
    Close { slot: u32 },
    CloseAlone { slot: u32 },
    Blocks(u64),
}

fn step() -> impl Strategy<Value = StorageAction> {
    let slot = 0..4_u32;
    prop_oneof![
        2 => (slot.clone(), 1..12_u64).prop_map(|(slot, end)| StorageAction::Open { slot, end }),
        4 => (slot.clone(), 1..90_000_usize).prop_map(|(slot, length)| StorageAction::Grow { slot, length }),
        1 => slot.clone().prop_map(|slot| StorageAction::Shrink { slot }),
        1 => slot.clone().prop_map(|slot| StorageAction::Empty { slot }),
        1 => any::<u8>().prop_map(|seed| StorageAction::Lose { seed }),
        8 => Just(StorageAction::Answer),
        3 => slot.clone().prop_map(|slot| StorageAction::Upkeep { slot }),
        1 => slot.clone().prop_map(|slot| StorageAction::Close { slot }),
        1 => slot.prop_map(|slot| StorageAction::CloseAlone { slot }),
        6 => (1..25_u64).prop_map(StorageAction::Blocks),
        1 => (100..180_u64).prop_map(StorageAction::Blocks),
    ]
}

/// A history under test, with the touches since the pool was last empty.
struct History {
    stage: Stage,
    member: ModelProvider,
    touches: u128,
    seed: u64,
}

impl History {
    fn run(&mut self, step: &StorageAction) {
        match *step {
            StorageAction::Open { slot, end } => {
                let end = self.stage.world.epoch() + end;
                let line = format!("a open p slot={slot} quota=100000 end={end}");
                let opened = self.stage.attempt(&line);
                assert!(opened.is_some());
            }
            StorageAction::Grow { slot, length } => {
                self.seed += 1;
                let shard = bytes(self.seed, length);
                self.set(slot, &[], &[shard]);
            }
            StorageAction::Shrink { slot } => self.set(slot, &[0], &[]),
            StorageAction::Empty { slot } => self.set(slot, &[u32::MAX], &[]),
            StorageAction::Lose { seed } => {
                self.member.lose_every(u64::from(seed) + 2);
            }
            StorageAction::Answer => match answer(&mut self.stage, &self.member) {
                None => {}
                // A challenge may expire, and be closed by a draw, in the same block as its answer.
                Some(Err(Code::NotDrawn | Code::AnsweredAlready)) => {}
                Some(result) => assert_eq!(result, Ok(Code::Done)),
            },
            StorageAction::Upkeep { slot } => {
                let body = Body::Settle(self.member.settle(&self.stage.world, &[slot]));
                let _ = submit(&mut self.stage, "b", body);
            }
            StorageAction::Close { slot } => {
                self.stage.attempt(&format!("a close p/{slot} second=p"));
            }
            StorageAction::CloseAlone { slot } => {
                self.stage.attempt(&format!("a closealone p/{slot}"));
            }
            StorageAction::Blocks(count) => blocks(&mut self.stage, count),
        }
    }

    fn set(&mut self, slot: u32, removes: &[u32], adds: &[Vec<u8>]) {
        let held = self.member.held(&self.stage.world, slot);
        let all: Vec<u32> = (0..held).collect();
        let removes = if removes == [u32::MAX] { &all[..] } else { removes };
        if self.member.agreement(&self.stage.world, slot).is_none() || removes.len() > all.len() {
            return;
        }
        let set = self.member.change(&self.stage.world, slot, removes, adds);
        let _ = submit(&mut self.stage, "a", Body::SetDataSet(set));
    }

    /// Invariant 6 of docs/invariants.md: charged - credited lies in [0, touches].
    fn check(&mut self) {
        let world = &self.stage.world;
        let provider: Provider = self.member.provider(world);
        let dust = provider.pool.grains() - claims(&self.member, world, 4);
        // Each step charges at most its slot or settles once; the sum of each live agreement is rounded up.
        self.touches += 8;
        assert!(dust <= self.touches, "{dust} grains of dust after {} touches", self.touches);
        if provider.slots == 0 {
            assert_eq!(provider.pool.grains(), 0);
            self.touches = 0;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// `World::block` checks that the pool covers every claim (charged >= credited), and that every
    /// weight, Fenwick node and sum is right after each block. The upper bound is checked here.
    #[test]
    fn charges_exceed_credits_by_rounding_only(steps in prop::collection::vec(step(), 1..60)) {
        let mut stage = Stage::new();
        stage.play("p register");
        stage.world.draws = true;
        let mut history = History { stage, member: ModelProvider::new("p"), touches: 0, seed: 0 };
        for step in &steps {
            history.run(step);
            history.check();
        }
    }
}

/// Storage pay of `p` in 500 steps if it answers always, or only when it holds all reads.
fn earned(missing_of_ten: u64, only_lucky: bool) -> u128 {
    let lengths = vec![20_000; 10];
    let (mut stage, mut member) = holding(&lengths);
    member.lose_tenths(missing_of_ten);
    let mut sum = 0;
    for _ in 0..500 {
        let storage_proof = member.storage_proof(&stage.world).filter(|storage_proof| {
            let holds = |answer: &posync_protocol::operation::ReadAnswer| {
                matches!(answer, posync_protocol::operation::ReadAnswer::Proved(_))
            };
            !only_lucky || storage_proof.answers.iter().all(holds)
        });
        match storage_proof {
            Some(storage_proof) => {
                let result = submit(&mut stage, "p", Body::StorageProof(storage_proof));
                assert!(
                    matches!(result, Ok(Code::Done) | Err(Code::NotDrawn | Code::AnsweredAlready)),
                    "{result:?}"
                );
            }
            None => blocks(&mut stage, 1),
        }
        sum += fees(&stage.world).iter().sum::<u128>();
    }
    sum
}

#[test]
fn answering_only_when_lucky_earns_less_than_answering_always() {
    let whole = earned(0, false);
    for missing in [1, 2, 4, 6, 8] {
        let (honest, lucky) = (earned(missing, false), earned(missing, true));
        assert!(lucky < honest && honest < whole, "{missing} tenths: {lucky} of {honest} of {whole}");
    }
    assert_eq!((earned(10, false), earned(10, true)), (0, 0));
}
