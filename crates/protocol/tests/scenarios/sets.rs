//! Data sets: a claim states the whole set, so any party may submit any signed version at any time.

use crate::{
    audits::{answer, holding, submit, until_drawn},
    books::row,
    model_provider::{ModelProvider, bytes},
    script::Stage,
    world::account,
};
use posync_protocol::{
    Amount, Body, Class, Code, Hash, Record,
    operation::SetDataSet,
    record::{Audit, DataSet, Endings, Reputation, Version},
    tree::EMPTY_ROOT,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Root and version that identify a set.
type Named = (Hash, u64);

fn bring(stage: &mut Stage, who: &str, set: &SetDataSet) -> Code {
    submit(stage, who, Body::SetDataSet(set.clone())).expect("its fee is paid")
}

fn current(stage: &Stage, member: &ModelProvider) -> Version {
    member.data_set(&stage.world, 0).current
}

fn named(set: &SetDataSet) -> Named {
    (set.claim.root, set.claim.version)
}

/// The next version on top of a signed one, with one more shard.
fn grown(stage: &Stage, member: &mut ModelProvider, on: Named, seed: u64, length: usize) -> SetDataSet {
    member.sign(&stage.world, 0, (on.0, on.1 + 1), &[], &[bytes(seed, length)])
}

/// The empty set under a version, signed by the consumer alone.
fn emptied(stage: &Stage, member: &mut ModelProvider, version: u64) -> SetDataSet {
    let mut set = member.sign(&stage.world, 0, (EMPTY_ROOT, version), &[], &[]);
    set.provider_signature = None;
    set
}

/// Version 1 with ten leaves in force, draws off, and no open challenge.
fn quiet() -> (Stage, ModelProvider, Named) {
    let (mut stage, member) = holding(&[10_000]);
    stage.world.draws = false;
    let now = current(&stage, &member);
    (stage, member, (now.root, now.version))
}

/// Runs draws until there is one more settlement.
fn settle_once(stage: &mut Stage, member: &ModelProvider) {
    stage.world.draws = true;
    until_drawn(stage, member);
    assert_eq!(answer(stage, member), Some(Ok(Code::Done)));
    stage.world.draws = false;
    assert_eq!(member.audit(&stage.world).challenge, None, "no draw in the block of the answer");
}

/// Brings a settlement early in a round, so that in the next block a change takes effect at once.
pub(crate) fn settled(stage: &mut Stage, member: &ModelProvider) {
    let round_blocks = stage.world.parameters.round_blocks;
    while !(stage.world.height + 1).is_multiple_of(round_blocks) {
        stage.world.block(&[]).expect("an empty block is valid");
    }
    settle_once(stage, member);
    let round = stage.world.parameters.round(stage.world.height + 1);
    assert_eq!(member.provider(&stage.world).settled_round, round, "the next block is at a settled point");
}

#[test]
fn only_the_newest_signed_set_need_reach_the_ledger() {
    let (mut stage, mut member, first) = quiet();
    let mut on = first;
    let signed: Vec<SetDataSet> = (0..5)
        .map(|seed| {
            let set = grown(&stage, &mut member, on, 20 + seed, 5_000);
            on = named(&set);
            set
        })
        .collect();
    settled(&mut stage, &member);
    assert_eq!(bring(&mut stage, "p", &signed[4]), Code::Done);
    let now = current(&stage, &member);
    assert_eq!((now.root, now.version, now.leaves), (on.0, 6, 10 + 5 * 5));
    for old in &signed {
        assert_eq!(bring(&mut stage, "a", old), Code::DataSetVersion, "it is void from now on");
    }
    settle_once(&mut stage, &member);
    assert_eq!(member.audit(&stage.world).history, u64::MAX >> (64 - member.audit(&stage.world).drawn));
}

#[test]
fn an_old_set_never_comes_back_neither_in_force_nor_as_next() {
    let (mut stage, mut member, first) = quiet();
    let second = grown(&stage, &mut member, first, 21, 3_000);
    let third = grown(&stage, &mut member, named(&second), 22, 3_000);
    stage.world.draws = true;
    until_drawn(&mut stage, &member);
    assert_eq!(bring(&mut stage, "a", &third), Code::Done);
    assert_eq!(member.data_set(&stage.world, 0).next.map(|next| next.version), Some(3), "it waits");
    for sender in ["a", "p", "b"] {
        assert_eq!(bring(&mut stage, sender, &second), Code::DataSetVersion, "below what waits");
        assert_eq!(bring(&mut stage, sender, &third), Code::DataSetVersion, "what waits, again");
    }
    assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
    assert_eq!(current(&stage, &member).version, 3);
    stage.world.draws = false;
    for sender in ["a", "p", "b"] {
        assert_eq!(bring(&mut stage, sender, &second), Code::DataSetVersion);
        assert_eq!(bring(&mut stage, sender, &third), Code::DataSetVersion);
    }
    assert_eq!(current(&stage, &member).version, 3);
}

#[test]
fn an_intermediate_version_brought_by_the_other_side_only_comes_first() {
    let (mut stage, mut member, first) = quiet();
    let second = grown(&stage, &mut member, first, 21, 3_000);
    let third = grown(&stage, &mut member, named(&second), 22, 3_000);
    settled(&mut stage, &member);
    assert_eq!(bring(&mut stage, "p", &second), Code::Done);
    assert_eq!(current(&stage, &member).root, second.claim.root);
    assert_eq!(bring(&mut stage, "a", &third), Code::Done, "the newest follows it");
    let data_set = member.data_set(&stage.world, 0);
    assert_eq!(data_set.next.unwrap_or(data_set.current).root, third.claim.root);
}

#[test]
fn an_empty_set_at_a_high_version_voids_what_was_signed_and_not_brought() {
    let (mut stage, mut member, first) = quiet();
    let second = grown(&stage, &mut member, first, 21, 3_000);
    let last = emptied(&stage, &mut member, u64::MAX);
    settled(&mut stage, &member);
    settled(&mut stage, &member);
    assert_eq!(bring(&mut stage, "a", &last), Code::Done, "the consumer deletes alone");
    assert_eq!(current(&stage, &member).leaves, 0);
    assert_eq!(bring(&mut stage, "p", &second), Code::DataSetVersion, "it could have come before");
    let more = member.sign(&stage.world, 0, (first.0, u64::MAX), &[], &[]);
    assert_eq!(bring(&mut stage, "a", &more), Code::DataSetVersion, "no version is above the last of all");
}

#[test]
fn an_empty_set_at_a_low_version_gives_way_to_a_higher_one_that_was_signed() {
    let (mut stage, mut member, first) = quiet();
    let third = member.sign(&stage.world, 0, (first.0, 3), &[], &[bytes(21, 3_000)]);
    let empty = emptied(&stage, &mut member, 2);
    settled(&mut stage, &member);
    settled(&mut stage, &member);
    assert_eq!(bring(&mut stage, "a", &empty), Code::Done);
    assert_eq!(current(&stage, &member).leaves, 0);
    assert_eq!(bring(&mut stage, "p", &third), Code::Done, "either may bring it");
    assert_eq!(current(&stage, &member).root, third.claim.root);
}

#[test]
fn growth_and_shrink_between_versions_that_nobody_brought_never_weigh() {
    let (mut stage, mut member, first) = quiet();
    let large = grown(&stage, &mut member, first, 21, 900_000);
    let (root, version) = named(&large);
    let small = member.sign(&stage.world, 0, (root, version + 1), &[1], &[bytes(22, 2_000)]);
    settled(&mut stage, &member);
    let before = member.provider(&stage.world).slot_weight;
    assert_eq!(bring(&mut stage, "a", &small), Code::Done, "it is no shrink of what is in force");
    assert_eq!(member.provider(&stage.world).slot_weight, before / 10 * 12, "twelve leaves, once ten");
    assert_eq!(bring(&mut stage, "a", &large), Code::DataSetVersion);
}

#[test]
fn what_waits_weighs_nothing_and_is_no_growth_to_shrink_from() {
    let (mut stage, mut member, first) = quiet();
    stage.world.draws = true;
    until_drawn(&mut stage, &member);
    let large = grown(&stage, &mut member, first, 21, 900_000);
    let slot_weight = member.provider(&stage.world).slot_weight;
    assert_eq!(bring(&mut stage, "a", &large), Code::Done);
    let (root, version) = named(&large);
    let small = member.sign(&stage.world, 0, (root, version + 1), &[1], &[]);
    assert_eq!(bring(&mut stage, "a", &small), Code::Done, "back to the ten leaves in force");
    assert_eq!(member.provider(&stage.world).slot_weight, slot_weight);
    assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
    assert_eq!(
        (current(&stage, &member).version, member.provider(&stage.world).slot_weight),
        (3, slot_weight)
    );
}

/// Growth that takes effect at once, and growth that waits for its settled point.
#[test]
fn a_set_that_grew_stands_for_two_settlements_in_force() {
    for waits in [false, true] {
        let (mut stage, mut member, first) = quiet();
        let large = grown(&stage, &mut member, first, 21, 900_000);
        settled(&mut stage, &member);
        if waits {
            stage.world.draws = true;
            until_drawn(&mut stage, &member);
        }
        assert_eq!(bring(&mut stage, "a", &large), Code::Done);
        if waits {
            assert_eq!(current(&stage, &member).version, 1);
            assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
            stage.world.draws = false;
        }
        assert_eq!(current(&stage, &member).version, 2);
        let shrunk = member.sign(&stage.world, 0, (large.claim.root, 9), &[1], &[]);
        let empty = emptied(&stage, &mut member, 9);
        for settlements in 0..2 {
            for set in [&shrunk, &empty] {
                let told = format!("waited: {waits}, after {settlements}");
                assert_eq!(bring(&mut stage, "a", set), Code::DataSetShrinkEarly, "{told}");
            }
            settled(&mut stage, &member);
        }
        assert_eq!(bring(&mut stage, "a", &shrunk), Code::Done);
        assert_eq!(current(&stage, &member).leaves, 10);
        let smaller = emptied(&stage, &mut member, 10);
        settled(&mut stage, &member);
        assert_eq!(bring(&mut stage, "a", &smaller), Code::Done, "a shrink starts no waiting anew");
    }
}

#[test]
fn a_swap_for_as_many_leaves_is_a_growth() {
    let (mut stage, mut member, first) = quiet();
    let same = member.sign(&stage.world, 0, (first.0, 2), &[0], &[bytes(22, 10_000)]);
    let less = member.sign(&stage.world, 0, (same.claim.root, 3), &[0], &[bytes(23, 4_000)]);
    settled(&mut stage, &member);
    settled(&mut stage, &member);
    assert_eq!(bring(&mut stage, "a", &same), Code::Done);
    for _ in 0..2 {
        assert_eq!(bring(&mut stage, "a", &less), Code::DataSetShrinkEarly);
        settled(&mut stage, &member);
    }
    assert_eq!(bring(&mut stage, "a", &less), Code::Done);
}

/// MK-3: leaves that are worth less than a grain a round are used all the same.
#[test]
fn leaf_rounds_count_as_use_where_their_price_is_below_a_grain() {
    let mut stage = Stage::new();
    stage.world.parameters.prices[Class::Storage] = 1;
    stage.play("p register\n a open p quota=100000 end=700");
    let mut member = ModelProvider::new("p");
    let first = member.sign(&stage.world, 0, (EMPTY_ROOT, 1), &[], &[bytes(1, 10_000)]);
    assert_eq!(bring(&mut stage, "a", &first), Code::Done);
    settled(&mut stage, &member);
    let row = row(&stage.world, &account("p"), stage.world.epoch()).expect("its use is booked");
    assert_eq!((row.fee, row.signed), (Amount::ZERO, Amount::ZERO), "ten leaves, a grain for 2^20");
    assert!(row.storage >= 10, "{} leaf-rounds", row.storage);
}

#[test]
fn a_first_set_is_a_growth() {
    let mut stage = Stage::new();
    stage.play("p register\n a open p quota=100000 end=700");
    let mut member = ModelProvider::new("p");
    let first = member.sign(&stage.world, 0, (EMPTY_ROOT, 7), &[], &[bytes(1, 10_000)]);
    assert_eq!(bring(&mut stage, "a", &first), Code::Done);
    let empty = emptied(&stage, &mut member, 8);
    for _ in 0..2 {
        assert_eq!(bring(&mut stage, "a", &empty), Code::DataSetShrinkEarly);
        settled(&mut stage, &member);
    }
    assert_eq!(bring(&mut stage, "a", &empty), Code::Done);
}

#[test]
fn growth_signed_before_a_suspension_is_refused_after_it() {
    let (mut stage, mut member, first) = quiet();
    let large = grown(&stage, &mut member, first, 21, 900_000);
    let same = member.sign(&stage.world, 0, (first.0, 5), &[0], &[bytes(22, 10_000)]);
    let less = member.sign(&stage.world, 0, (first.0, 6), &[0], &[bytes(23, 4_000)]);
    let back = member.sign(&stage.world, 0, (first.0, 7), &[0], &[bytes(24, 9_999)]);
    settled(&mut stage, &member);
    settled(&mut stage, &member);
    stage.world.draws = true;
    until_drawn(&mut stage, &member);
    let place = Reputation::key(&account("p"));
    let mut reputation: Reputation = stage.world.get(place).expect("it registered");
    reputation.suspended = 1;
    stage.world.state.insert(place, reputation.to_slot());
    for sender in ["a", "p"] {
        assert_eq!(bring(&mut stage, sender, &large), Code::GrowthSuspended);
    }
    assert_eq!(bring(&mut stage, "a", &same), Code::Done, "as many leaves as in force");
    assert_eq!(bring(&mut stage, "a", &less), Code::Done, "fewer wait");
    assert_eq!(bring(&mut stage, "a", &back), Code::Done, "and are compared with what is in force");
    let over = member.sign(&stage.world, 0, (first.0, 8), &[], &[bytes(25, 1)]);
    assert_eq!(bring(&mut stage, "a", &over), Code::GrowthSuspended, "one leaf above what is in force");
}

#[test]
fn replacing_what_waits_in_every_block_only_settles_which_is_last() {
    let (mut stage, mut member, first) = quiet();
    stage.world.draws = true;
    until_drawn(&mut stage, &member);
    let before = member.provider(&stage.world);
    let mut on = first;
    for seed in 0..12 {
        let set = grown(&stage, &mut member, on, 30 + seed, 2_000);
        on = named(&set);
        assert_eq!(bring(&mut stage, if seed % 2 == 0 { "a" } else { "p" }, &set), Code::Done);
        assert_eq!(member.provider(&stage.world).slot_weight, before.slot_weight);
    }
    assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
    assert_eq!((current(&stage, &member).root, current(&stage, &member).version), on);
}

#[test]
fn what_nobody_brings_is_storage_on_credit_until_the_provider_brings_it() {
    let (mut stage, mut member, first) = quiet();
    let large = grown(&stage, &mut member, first, 21, 900_000);
    settled(&mut stage, &member);
    let unpaid = member.provider(&stage.world);
    stage.play("blocks 20");
    assert_eq!(member.provider(&stage.world).paid, unpaid.paid, "it is paid for ten leaves");
    settled(&mut stage, &member);
    assert_eq!(bring(&mut stage, "p", &large), Code::Done);
    assert_eq!(member.provider(&stage.world).paid, unpaid.paid / 10 * 889);
}

#[test]
fn of_two_variants_of_one_version_the_first_voids_the_other_but_not_its_children() {
    let (mut stage, mut member, first) = quiet();
    let one = grown(&stage, &mut member, first, 21, 3_000);
    let other = grown(&stage, &mut member, first, 22, 4_000);
    let child = grown(&stage, &mut member, named(&other), 23, 1_000);
    settled(&mut stage, &member);
    assert_eq!(bring(&mut stage, "a", &one), Code::Done);
    assert_eq!(bring(&mut stage, "p", &other), Code::DataSetVersion);
    assert_eq!(bring(&mut stage, "p", &child), Code::Done, "it says its whole set");
    settle_once(&mut stage, &member);
    let now = current(&stage, &member);
    assert_eq!((now.root, now.leaves), (child.claim.root, 10 + 4 + 1));
}

/// DS-4: growth without an open challenge, but after rounds that are not settled.
#[test]
fn growth_after_rounds_that_are_not_settled_waits() {
    let (mut stage, mut member, first) = quiet();
    settled(&mut stage, &member);
    let settled_round = member.provider(&stage.world).settled_round;
    stage.play("blocks 8");
    assert_eq!(member.audit(&stage.world).challenge, None);
    let before = member.provider(&stage.world);
    assert!(stage.world.parameters.round(stage.world.height + 1) > settled_round);
    let large = grown(&stage, &mut member, first, 21, 900_000);
    assert_eq!(bring(&mut stage, "a", &large), Code::Done);
    let data_set = member.data_set(&stage.world, 0);
    assert_eq!((data_set.current.version, data_set.next.map(|next| next.version)), (1, Some(2)));
    assert_eq!(member.provider(&stage.world).slot_weight, before.slot_weight);
    let upkeep = Body::Settle(member.settle(&stage.world, &[0]));
    assert_eq!(submit(&mut stage, "b", upkeep), Err(Code::NothingToSettle), "nor does upkeep");
}

/// DS-4: growth that is settled up to this round, but behind an ending that is not crossed.
#[test]
fn growth_behind_an_ending_that_is_not_crossed_waits() {
    let (mut stage, mut member, first) = quiet();
    settled(&mut stage, &member);
    let end = stage.world.epoch() + 1;
    stage.play(&format!("b open p slot=1 quota=1000 end={end}"));
    settled(&mut stage, &member);
    let second = member.change(&stage.world, 1, &[], &[bytes(7, 50_000)]);
    assert_eq!(submit(&mut stage, "b", Body::SetDataSet(second)), Ok(Code::Done));
    assert_eq!(member.data_set(&stage.world, 1).current.version, 1);
    stage.world.draws = true;
    until_drawn(&mut stage, &member);
    stage.world.draws = false;
    let open = member.audit(&stage.world).challenge.expect("it is drawn");
    let pending = stage.world.parameters.pending_rounds_max;
    let stale =
        (stage.world.parameters.round(open.height) + pending + 1) * stage.world.parameters.round_blocks;
    while stage.world.height + 1 < stale {
        stage.world.block(&[]).expect("an empty block is valid");
    }
    let mut expiry = member.settle(&stage.world, &[]);
    expiry.endings = posync_protocol::Bounded::default();
    assert_eq!(submit(&mut stage, "b", Body::Settle(expiry)), Ok(Code::Done));
    let before = member.provider(&stage.world);
    assert_eq!(before.settled_round, stage.world.parameters.round(stage.world.height + 1));
    let large = grown(&stage, &mut member, first, 21, 900_000);
    let mut crossed = Stage { world: stage.world.clone(), opened: stage.opened.clone() };
    assert_eq!(bring(&mut stage, "a", &large), Code::Done);
    assert_eq!(current(&stage, &member).version, 1, "it waits for the crossing");
    assert_eq!(member.provider(&stage.world).slot_weight, before.slot_weight);
    let crossing = Body::Settle(member.settle(&crossed.world, &[]));
    assert_eq!(submit(&mut crossed, "b", crossing), Ok(Code::Done));
    assert_eq!(bring(&mut crossed, "a", &large), Code::Done);
    assert_eq!(current(&crossed, &member).version, 2, "then it takes effect");
}

/// One step of a random history.
#[derive(Clone, Debug)]
enum SetAction {
    /// Both sign on top of the newest or an earlier set, `above` versions after the newest.
    Sign {
        on: prop::sample::Index,
        above: u64,
        remove: bool,
        add: Option<usize>,
    },
    /// The consumer alone signs the empty set.
    Empty {
        above: u64,
    },
    /// A party submits a signed claim.
    Bring {
        claim: prop::sample::Index,
        newest: bool,
        by: &'static str,
    },
    Answer,
    Upkeep,
    Blocks(u64),
}

fn step() -> impl Strategy<Value = SetAction> {
    let by = prop::sample::select(vec!["a", "p", "b"]);
    let add = prop::option::weighted(0.8, 1..40_000_usize);
    prop_oneof![
        5 => (any::<prop::sample::Index>(), 0..4_u64, any::<bool>(), add)
            .prop_map(|(on, above, remove, add)| SetAction::Sign { on, above, remove, add }),
        1 => (0..3_u64).prop_map(|above| SetAction::Empty { above }),
        8 => (any::<prop::sample::Index>(), any::<bool>(), by)
            .prop_map(|(claim, newest, by)| SetAction::Bring { claim, newest, by }),
        6 => Just(SetAction::Answer),
        2 => Just(SetAction::Upkeep),
        6 => (1..20_u64).prop_map(SetAction::Blocks),
    ]
}

/// The two parties and their signed sets. The provider deletes the sets that can no longer be submitted.
struct Model {
    stage: Stage,
    member: ModelProvider,
    signed: Vec<SetDataSet>,
    /// Roots of the sets that the provider keeps.
    held: BTreeSet<Hash>,
    /// Every set that was in force, by version.
    forced: BTreeMap<u64, Hash>,
    seed: u64,
}

impl Model {
    fn new() -> Self {
        let mut stage = Stage::new();
        stage.play("p register\n a open p quota=300 end=700");
        stage.world.draws = true;
        let (held, forced) = ([EMPTY_ROOT].into(), BTreeMap::new());
        Self { stage, member: ModelProvider::new("p"), signed: vec![], held, forced, seed: 0 }
    }

    fn data_set(&self) -> DataSet {
        self.member.data_set(&self.stage.world, 0)
    }

    fn last(&self) -> u64 {
        let data_set = self.data_set();
        data_set.next.unwrap_or(data_set.current).version
    }

    /// The highest version that was signed or submitted.
    fn newest(&self) -> u64 {
        self.signed.iter().map(|set| set.claim.version).max().unwrap_or(0).max(self.last())
    }

    fn run(&mut self, step: &SetAction) {
        match step {
            SetAction::Sign { on, above, remove, add } => self.sign(on, *above, *remove, *add),
            SetAction::Empty { above } => {
                let version = self.newest().saturating_add(*above);
                let set = emptied(&self.stage, &mut self.member, version);
                self.signed.push(set);
            }
            SetAction::Bring { claim, newest, by } => self.bring(claim, *newest, by),
            SetAction::Answer => match answer(&mut self.stage, &self.member) {
                None | Some(Err(Code::NotDrawn | Code::AnsweredAlready)) => {}
                Some(result) => assert_eq!(result, Ok(Code::Done)),
            },
            SetAction::Upkeep => {
                let body = Body::Settle(self.member.settle(&self.stage.world, &[0]));
                let _ = submit(&mut self.stage, "b", body);
            }
            SetAction::Blocks(count) => {
                for _ in 0..*count {
                    self.stage.world.block(&[]).expect("an empty block is valid");
                }
            }
        }
        self.check();
    }

    /// The provider signs a set built from one that it still holds, with a version above the ledger's last.
    fn sign(&mut self, on: &prop::sample::Index, above: u64, remove: bool, add: Option<usize>) {
        let held: Vec<Hash> = self.held.iter().copied().collect();
        let root = held[on.index(held.len())];
        let version = self.newest().saturating_add(above).max(self.last() + 1);
        self.seed += 1;
        let adds: Vec<Vec<u8>> = add.into_iter().map(|length| bytes(self.seed, length)).collect();
        let removes: &[u32] = if remove && root != EMPTY_ROOT { &[0] } else { &[] };
        let set = self.member.sign(&self.stage.world, 0, (root, version), removes, &adds);
        self.held.insert(set.claim.root);
        self.signed.push(set);
    }

    fn bring(&mut self, claim: &prop::sample::Index, newest: bool, by: &str) {
        if self.signed.is_empty() {
            return;
        }
        let set = match newest {
            true => self.signed.iter().max_by_key(|set| set.claim.version).expect("one").clone(),
            false => self.signed[claim.index(self.signed.len())].clone(),
        };
        let (before, last) = (self.data_set(), self.last());
        let code = bring(&mut self.stage, by, &set);
        if set.claim.version <= last {
            assert_eq!(code, Code::DataSetVersion, "an old claim is void");
        }
        match code {
            Code::Done => assert!(set.claim.version > last),
            Code::DataSetVersion => assert!(set.claim.version <= last),
            Code::DataSetShrinkEarly => assert!(set.claim.leaves < before.current.leaves),
            Code::DataSetOverQuota => assert!(set.claim.leaves > 300),
            Code::GrowthSuspended | Code::GrowthJailed => {
                assert!(set.claim.leaves > before.current.leaves);
            }
            code => panic!("{code:?}"),
        }
    }

    /// Checks three things: the set in force is always held, no version is in force twice, and of
    /// the sets up to the last version only those on the ledger need be kept.
    fn check(&mut self) {
        let DataSet { current, next } = self.data_set();
        assert!(self.held.contains(&current.root), "version {} is not held", current.version);
        let known = *self.forced.entry(current.version).or_insert(current.root);
        assert_eq!(known, current.root, "one set for a version");
        assert_eq!(self.forced.keys().next_back(), Some(&current.version), "versions only rise");
        let last = self.last();
        let open = self.signed.iter().filter(|set| set.claim.version > last).map(|set| set.claim.root);
        let kept = open.chain([EMPTY_ROOT, current.root]).chain(next.map(|next| next.root));
        self.held = kept.collect();
        self.member.prune(&self.held);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Reads are answered from the kept sets, so a set in force that was pruned could not be proved.
    #[test]
    fn any_party_brings_any_signed_version_and_what_is_in_force_is_held(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut model = Model::new();
        for step in &steps {
            model.run(step);
        }
        let audit = model.member.audit(&model.stage.world);
        prop_assert_eq!(audit.history.count_ones() + audit.silent.count_ones(), audit.drawn.min(64));
        prop_assert!(audit.missing.is_empty());
    }
}

/// Endings are counted within a window of epochs; a provider that was paid nothing has none to keep.
#[test]
fn a_provider_that_was_paid_for_nothing_for_long_takes_data_for_a_whole_term() {
    let mut stage = Stage::new();
    stage.play("p register");
    // Data that it held in the first epochs left this record behind.
    stage.world.state.insert(Endings::key(&account("p")), Endings::new(0).to_slot());
    stage.world.skip_to_epoch(305);
    stage.play("a open p quota=100000 end=1025");
    let mut member = ModelProvider::new("p");
    let set = member.change(&stage.world, 0, &[], &[bytes(1, 9_000)]);
    assert_eq!(bring(&mut stage, "a", &set), Code::Done);
    assert_eq!(current(&stage, &member).leaves, 9);
}

/// DR-6: a provider that proved nothing wakes by a passed read, not by replacing its data.
#[test]
fn new_data_wakes_nobody_who_proved_nothing() {
    for (history, weighed) in [(0, false), (1, true)] {
        let mut stage = Stage::new();
        stage.play("p register\n a open p quota=100000 end=700");
        let mut member = ModelProvider::new("p");
        let audit = Audit { drawn: 4, history, ..member.audit(&stage.world) };
        stage.world.state.insert(Audit::key(&account("p")), audit.to_slot());
        let set = member.change(&stage.world, 0, &[], &[bytes(1, 9_000)]);
        assert_eq!(bring(&mut stage, "a", &set), Code::Done);
        let provider = member.provider(&stage.world);
        assert_eq!((provider.paid > 0, provider.weighed == provider.paid), (true, weighed), "{history}");
    }
}
