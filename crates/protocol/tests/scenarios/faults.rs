//! Network faults: which rounds are faulty, and which misses are excused.

use crate::{
    audits::{answer, holding, submit, until_drawn},
    model_provider::{ModelProvider, bytes},
    script::Stage,
    world::{World, account},
};
use posync_protocol::{
    Account, Body, Class, Code, Operation, Record,
    faults::is_faulty,
    ledger::Event,
    limits::Parameters,
    record::{Audit, Challenge, FaultBits, FaultRing, Provider, Reputation, RoundInfo, Usage},
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) const ALSO: &[Code] = &[Code::GrowthJailed, Code::GrowthSuspended];

/// Providers `p0`, `p1`, .. that each hold a shard for `a`. A round has 16 draws by fee and 16 in
/// turn, so that most draws find a provider without an open challenge.
struct Fleet {
    world: World,
    members: Vec<ModelProvider>,
}

impl Fleet {
    fn new(size: usize, change: impl FnOnce(&mut Parameters)) -> Self {
        let names: Vec<String> = (0..size).map(|index| format!("p{index}")).collect();
        let funded: Vec<&str> = ["a", "b"].into_iter().chain(names.iter().map(String::as_str)).collect();
        let mut stage = Stage { world: World::new(&funded), opened: BTreeMap::new() };
        let parameters = &mut stage.world.parameters;
        (parameters.draws, parameters.draw_every_blocks, parameters.fault_draws_min) = (4, 1, 8);
        change(parameters);
        let mut members = Vec::new();
        for (name, seed) in names.iter().zip(0..) {
            stage.play(&format!("{name} register\n a open {name} quota=1000 end=700"));
            let mut member = ModelProvider::new(name);
            let set = member.change(&stage.world, 0, &[], &[bytes(seed, 4096)]);
            assert_eq!(submit(&mut stage, "a", Body::SetDataSet(set)), Ok(Code::Done));
            members.push(member);
        }
        stage.world.draws = true;
        let mut fleet = Self { world: stage.world, members };
        fleet.until_round(fleet.round() + 1, |_, _| true);
        fleet
    }

    /// Round of the next block.
    fn round(&self) -> u64 {
        self.world.parameters.round(self.world.height + 1)
    }

    fn audit(&self, index: usize) -> Audit {
        self.members[index].audit(&self.world)
    }

    /// Runs a block in which the providers chosen by `answers` answer.
    fn block(&mut self, answers: impl Fn(&World, usize) -> bool) -> Vec<Event> {
        let storage_proof = |(index, member): (usize, &ModelProvider)| {
            let storage_proof = member.storage_proof(&self.world).filter(|_| answers(&self.world, index))?;
            Some(self.world.sign(&member.name, Body::StorageProof(storage_proof)))
        };
        let storage_proofs: Vec<Operation> =
            self.members.iter().enumerate().filter_map(storage_proof).collect();
        self.world.block(&storage_proofs).expect("an answered block is valid").events
    }

    /// Runs blocks up to the last one before a round.
    fn until_round(&mut self, round: u64, answers: impl Fn(&World, usize) -> bool) -> Vec<Event> {
        let mut events = Vec::new();
        while self.round() < round {
            events.extend(self.block(&answers));
        }
        events
    }

    /// A round in which the first `silent` providers do not answer, and one more. Returns the
    /// events up to the block before the one that judges the round.
    fn outage(&mut self, silent: usize) -> Vec<Event> {
        let round = self.round();
        assert!((self.world.height + 1).is_multiple_of(self.world.parameters.round_blocks));
        self.until_round(round + 2, |_, index| index >= silent)
    }
}

fn faulty(events: &[Event]) -> Vec<(u64, u32, u32)> {
    let round = |event: &Event| match event {
        Event::RoundFaulty { round, drawn, on_time } => Some((*round, *drawn, *on_time)),
        _ => None,
    };
    events.iter().filter_map(round).collect()
}

/// The audits in these events: (provider, answered, passed, excused).
fn audited(events: &[Event]) -> Vec<(Account, bool, u8, bool)> {
    let audited = |event: &Event| match event {
        Event::Audited { provider, answered, passed, excused, .. } => {
            Some((*provider, *answered, *passed, *excused))
        }
        _ => None,
    };
    events.iter().filter_map(audited).collect()
}

#[test]
fn a_round_is_faulty_above_a_fifth() {
    let parameters = Parameters::PRODUCTION;
    let cases = [
        (0, 0, false),
        (15, 0, false),
        (16, 16, false),
        (16, 13, false),
        (16, 12, true),
        (20, 16, false),
        (20, 15, true),
        (240, 192, false),
        (240, 191, true),
        (u32::MAX, 0, true),
    ];
    for (drawn, on_time, expected) in cases {
        assert_eq!(is_faulty(drawn, on_time, &parameters), expected, "{on_time} of {drawn}");
    }
    assert_eq!((parameters.faults_max(), Parameters::LOCAL.faults_max()), (9_216, 32));
}

#[test]
fn an_outage_is_judged_two_rounds_later_and_excuses_only_draws_by_fee() {
    let mut fleet = Fleet::new(24, |_| ());
    let before: Vec<Audit> = (0..12).map(|index| fleet.audit(index)).collect();
    let round = fleet.round();
    let early = fleet.outage(12);
    assert_eq!(faulty(&early), [], "not before nothing of it can be on time");
    let pending: Vec<_> =
        (0..12).map(|index| fleet.audit(index).challenge.expect("all were drawn")).collect();
    let of_round = |open: &Challenge| open.by_fee && parameters_round(&fleet, open.height) == round;
    let expected: Vec<bool> = pending.iter().map(of_round).collect();
    assert!(expected.contains(&true) && expected.contains(&false), "{pending:?}");
    let info: RoundInfo = fleet.world.get(RoundInfo::key(round)).expect("its record");
    assert!(info.drawn >= 8 && (info.drawn - info.on_time) * 5 > info.drawn, "{info:?}");
    let judged = fleet.block(|_, _| true);
    assert_eq!(faulty(&judged), [(round, info.drawn, info.on_time)]);
    for (provider, answered, passed, excused) in audited(&judged) {
        let Some(index) = (0..12).find(|index| provider == account(&format!("p{index}"))) else { continue };
        assert_eq!((answered, passed), (true, 4), "who answers is heard and paid");
        assert_eq!(excused, expected[index], "p{index}");
        let (old, new) = (&before[index], fleet.audit(index));
        if excused {
            assert_eq!((new.history, new.on_time, new.drawn), (old.history, old.on_time, old.drawn));
        } else {
            let on_time = parameters_round(&fleet, pending[index].height) > round;
            let bits = old.on_time << 1 | u64::from(on_time);
            assert_eq!((new.on_time, new.drawn), (bits, old.drawn + 4), "counted");
        }
        // An excused miss counts neither for the provider nor against it.
        let answered = old.answered + u32::from(!excused);
        assert_eq!((new.settlements, new.answered), (old.settlements + 1, answered));
        assert_eq!(new.challenge, None);
    }
    let ring: FaultRing = fleet.world.get(FaultRing::key()).expect("a round was faulty");
    let bits: FaultBits = fleet.world.get(FaultBits::key()).expect("a round was faulty");
    assert!(ring.recent(round / 5) == 1 && bits.is_faulty(round) && !bits.is_faulty(round - 1));
}

#[test]
fn few_misses_and_few_draws_are_nobodys_excuse() {
    for (silent, least) in [(1, 8), (12, 100)] {
        let mut fleet = Fleet::new(24, |parameters| parameters.fault_draws_min = least);
        let before = fleet.audit(0);
        let mut events = fleet.outage(silent);
        events.extend(fleet.block(|_, _| true));
        assert_eq!(faulty(&events), []);
        assert!(audited(&events).iter().all(|(_, _, _, excused)| !excused));
        assert_eq!(fleet.audit(0).on_time, before.on_time << 1);
    }
}

#[test]
fn an_answer_before_the_judgement_is_late_and_counts() {
    let mut fleet = Fleet::new(24, |_| ());
    let round = fleet.round();
    // A challenge of the round's first block is late from its tenth block on, and judged from the 17th.
    let first = fleet.world.height + 1;
    let late = |world: &World, index: usize| index >= 12 || world.height + 1 >= first + 15;
    let events = fleet.until_round(round + 2, late);
    let counted = events.iter().any(|event| {
        matches!(event, Event::Audited { height, answered: true, on_time: false, excused: false, .. } if *height < first + 7)
    });
    assert!(counted);
    assert_eq!(faulty(&fleet.block(|_, _| true)).len(), 1, "and the round is faulty all the same");
}

#[test]
fn an_expiry_of_a_faulty_round_is_excused_however_it_is_closed() {
    let mut fleet = Fleet::new(24, |_| ());
    let before: Vec<Audit> = (0..12).map(|index| fleet.audit(index)).collect();
    let held: Vec<Provider> = (0..12).map(|index| fleet.members[index].provider(&fleet.world)).collect();
    let round = fleet.round();
    fleet.outage(12);
    let open: Vec<_> = (0..12).map(|index| fleet.audit(index).challenge.expect("all were drawn")).collect();
    fleet.until_round(round + 20, |_, index| index >= 12);
    let mut by_anyone = Fleet { world: fleet.world.clone(), members: fleet.members.clone() };
    by_anyone.world.draws = false;
    let mut seen = BTreeSet::new();
    for (index, challenge) in open.iter().enumerate() {
        if parameters_round(&fleet, challenge.height) != round {
            continue;
        }
        seen.insert(challenge.by_fee);
        let member = &by_anyone.members[index];
        let closed = if member.audit(&by_anyone.world).challenge == Some(*challenge) {
            let upkeep = by_anyone.world.sign("b", Body::Settle(member.settle(&by_anyone.world, &[])));
            assert_eq!(by_anyone.world.submit(&upkeep), Ok(Code::Done));
            by_anyone.audit(index)
        } else {
            // The next draw closed this challenge and opened the next one.
            Audit { challenge: None, ..fleet.audit(index) }
        };
        let (old, kept) = (&before[index], u64::from(!challenge.by_fee));
        assert_eq!(
            (closed.on_time, closed.drawn),
            (old.on_time << kept, old.drawn + 4 * kept as u32),
            "p{index}"
        );
        assert_eq!((closed.settlements, closed.answered), (old.settlements + 1, old.answered));
        let now = by_anyone.members[index].provider(&by_anyone.world);
        assert_eq!((now.acc, now.pool), (held[index].acc, held[index].pool), "silence is not paid");
        assert!(now.settled_round > held[index].settled_round);
    }
    assert_eq!(seen.len(), 2, "both kinds of draw");
}

fn parameters_round(fleet: &Fleet, height: u64) -> u64 {
    fleet.world.parameters.round(height)
}

#[test]
fn pay_is_the_same_with_and_without_the_rule() {
    let run = |least: u32| {
        let mut fleet = Fleet::new(24, |parameters| parameters.fault_draws_min = least);
        let (mut events, round) = (fleet.outage(12), fleet.round());
        // Half of the silent providers return, the others never do.
        events.extend(fleet.until_round(round + 3, |_, index| index >= 4));
        fleet
            .members
            .iter()
            .map(|member| {
                let Provider { pool, acc, settled_round, bond, paid, .. } = member.provider(&fleet.world);
                let usage: Usage = fleet.world.get(Usage::key(&account(&member.name), 0)).expect("open");
                (pool, acc, settled_round, bond, paid, usage)
            })
            .zip(std::iter::repeat(faulty(&events).len()))
            .collect::<Vec<_>>()
    };
    let (with, without) = (run(8), run(u32::MAX));
    assert!(with[0].1 > 0 && without[0].1 == 0, "one of them has faults");
    assert!(with.iter().zip(&without).all(|(with, without)| with.0 == without.0));
}

/// A reader of blocks that computes the rules `NF-1` to `NF-3` as docs/protocol.md states them.
#[derive(Default)]
struct Model {
    /// Draws by fee of a round: opened, and answered on time.
    rounds: BTreeMap<u64, (u32, u32)>,
    faulty: BTreeSet<u64>,
    /// Open challenges by provider: the height of the draw, and true if it was by fee.
    open: BTreeMap<Account, (u64, bool)>,
    /// Counted on-time bits of a provider, oldest first.
    counted: BTreeMap<Account, Vec<bool>>,
}

impl Model {
    fn judge(&mut self, parameters: &Parameters, height: u64) -> Option<u64> {
        let begins = height.is_multiple_of(parameters.round_blocks);
        let round = parameters.round(height).checked_sub(2).filter(|_| begins)?;
        let (drawn, on_time) = self.rounds.get(&round).copied().unwrap_or_default();
        let epoch = |round: &u64| round / parameters.epoch_rounds;
        let recent = self.faulty.iter().filter(|past| epoch(past) + 64 > epoch(&round)).count() as u64;
        let is_faulty = drawn >= parameters.fault_draws_min
            && 5 * (drawn - on_time) > drawn
            && 10 * (recent + 1) <= 64 * parameters.epoch_rounds;
        is_faulty.then(|| self.faulty.insert(round)).map(|_| round)
    }

    /// Enters a block's events, and checks that each audit is excused if the rule says so.
    fn enter(&mut self, world: &World, events: &[Event]) {
        let parameters = &world.parameters;
        let judged = self.judge(parameters, world.height);
        let told: Vec<u64> = faulty(events).iter().map(|(round, _, _)| *round).collect();
        assert_eq!(told, judged.into_iter().collect::<Vec<_>>(), "height {}", world.height);
        for event in events {
            match event {
                Event::Drawn { provider, height } => {
                    // The challenge is still open, and the record says how it was drawn.
                    let audit: Audit = world.get(Audit::key(provider)).expect("registered");
                    let by_fee = audit.challenge.expect("nobody answers in the block of a draw").by_fee;
                    self.open.insert(*provider, (*height, by_fee));
                    let round = self.rounds.entry(parameters.round(*height)).or_default();
                    round.0 += u32::from(by_fee);
                }
                Event::Audited { provider, height, on_time, excused, reads: 4, .. } => {
                    let (drawn_at, by_fee) = self.open.remove(provider).expect("it was drawn");
                    assert_eq!(drawn_at, *height);
                    let round = parameters.round(*height);
                    self.rounds.entry(round).or_default().1 += u32::from(by_fee && *on_time);
                    assert_eq!(*excused, by_fee && !on_time && self.faulty.contains(&round));
                    if !excused {
                        self.counted.entry(*provider).or_default().push(*on_time);
                    }
                }
                _ => {}
            }
        }
    }

    fn check(&self, fleet: &Fleet, before: &[Audit]) {
        for (member, before) in fleet.members.iter().zip(before) {
            let counted = self.counted.get(&account(&member.name)).cloned().unwrap_or_default();
            let expected =
                counted.iter().fold(before.on_time, |bits, on_time| bits << 1 | u64::from(*on_time));
            let audit = member.audit(&fleet.world);
            assert_eq!(audit.on_time, expected, "{}", member.name);
            assert_eq!(audit.drawn, before.drawn + 4 * counted.len() as u32);
        }
    }
}

/// Runs `rounds` of weather; each is a bit set of the silent providers.
fn weather(parameters: impl FnOnce(&mut Parameters), rounds: &[u16]) -> (Fleet, Model) {
    let mut fleet = Fleet::new(6, |given| {
        (given.draws, given.fault_draws_min) = (2, 3);
        parameters(given);
    });
    fleet.until_round(fleet.round() + 3, |_, _| true);
    let before: Vec<Audit> = (0..6).map(|index| fleet.audit(index)).collect();
    assert!(before.iter().all(|audit| audit.challenge.is_none() || audit.drawn > 0));
    let mut model = Model::default();
    for (index, member) in fleet.members.iter().enumerate() {
        if let Some(open) = fleet.audit(index).challenge {
            model.open.insert(account(&member.name), (open.height, open.by_fee));
        }
    }
    for back in 0..4 {
        let round = fleet.round().saturating_sub(back);
        let info: Option<RoundInfo> = fleet.world.get(RoundInfo::key(round % 64));
        if let Some(info) = info.filter(|info| info.round == round) {
            model.rounds.insert(round, (info.drawn, info.on_time));
        }
    }
    for silent in rounds {
        let next = fleet.round() + 1;
        while fleet.round() < next {
            let events = fleet.block(|_, index| silent >> index & 1 == 0);
            model.enter(&fleet.world, &events);
        }
    }
    model.check(&fleet, &before);
    (fleet, model)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    /// For any silence: rounds, excuses and histories equal those that a reader of blocks computes. An outage
    /// of most stands at the beginning, so that some rounds are faulty.
    #[test]
    fn the_rule_is_what_a_reader_computes(silence in prop::collection::vec(0..64_u16, 20..40)) {
        let rounds: Vec<u16> = [0b1111; 2].into_iter().chain(silence).collect();
        let (_, model) = weather(|_| (), &rounds);
        prop_assert!(!model.faulty.is_empty());
    }
}

#[test]
fn faults_stay_within_their_share() {
    // Two rounds an epoch: twelve of 128 rounds may be faulty, and other rounds are as bad.
    let two = |parameters: &mut Parameters| {
        (parameters.term_rounds, parameters.epoch_rounds) = (2, 2);
    };
    let rounds: Vec<u16> = (0..180_u16).map(|round| if round % 4 < 2 { 0b1111 } else { 0 }).collect();
    let (fleet, model) = weather(two, &rounds);
    let most = fleet.world.parameters.faults_max();
    assert_eq!(most, 12);
    let epochs: Vec<u64> = model.faulty.iter().map(|round| round / 2).collect();
    let first = epochs.first().copied().expect("some are faulty");
    let windows = (first..first + 90)
        .map(|start| epochs.iter().filter(|epoch| (start..start + 64).contains(*epoch)).count() as u64);
    assert_eq!(windows.max(), Some(most));
    assert!(model.faulty.len() as u64 > most, "after 64 epochs there may be faults again");
}

/// Repeats outages of two rounds. Returns the reputation of the first provider, and its number of
/// on-time draws.
fn outages(least: u32) -> (Reputation, u32) {
    let mut fleet = Fleet::new(24, |parameters| parameters.fault_draws_min = least);
    for _ in 0..12 {
        fleet.outage(12);
        fleet.until_round(fleet.round() + 1, |_, _| true);
    }
    let reputation = fleet.world.get(Reputation::key(&account("p0"))).expect("registered");
    (reputation, fleet.audit(0).on_time.count_ones())
}

#[test]
fn outages_cost_less_of_a_score_than_absence() {
    let ((with, on_time), (without, less)) = (outages(8), outages(u32::MAX));
    assert!(with.scores[Class::Storage] > without.scores[Class::Storage]);
    assert!(on_time <= less, "what is excused is not counted as on time either");
}

/// A change of a reputation, and the code that refuses growth under it.
type Stood = (fn(&mut Reputation), Code);

#[test]
fn who_is_jailed_or_suspended_grows_no_data_set() {
    let (stage, member) = holding(&[9_000, 5_000]);
    let stand = |change: fn(&mut Reputation)| {
        let mut stage = Stage { world: stage.world.clone(), opened: stage.opened.clone() };
        let place = Reputation::key(&account("p"));
        let mut reputation: Reputation = stage.world.get(place).expect("it registered");
        change(&mut reputation);
        stage.world.state.insert(place, reputation.to_slot());
        stage
    };
    let kinds: [Stood; 3] = [
        (|reputation| reputation.jailed_until = 900, Code::GrowthJailed),
        (|reputation| reputation.jailed_until = u64::MAX, Code::GrowthJailed),
        (|reputation| reputation.suspended = 1, Code::GrowthSuspended),
    ];
    for (change, code) in kinds {
        let (mut stage, mut member) = (stand(change), member.clone());
        for sender in ["a", "p"] {
            let grown = member.change(&stage.world, 0, &[], &[bytes(7, 100)]);
            assert_eq!(submit(&mut stage, sender, Body::SetDataSet(grown)), Ok(code), "by {sender}");
        }
        assert_eq!(member.data_set(&stage.world, 0).next, None, "nothing waits for better days");
        // Data already held is still read and paid, and the same leaves may hold other bytes.
        let same = member.change(&stage.world, 0, &[1], &[bytes(8, 4_100)]);
        assert_eq!(submit(&mut stage, "a", Body::SetDataSet(same)), Ok(Code::Done));
        for _ in 0..3 {
            until_drawn(&mut stage, &member);
            assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
        }
        assert!(member.provider(&stage.world).acc > 0);
        let shrunk = member.change(&stage.world, 0, &[0], &[]);
        assert_eq!(submit(&mut stage, "a", Body::SetDataSet(shrunk)), Ok(Code::Done));
        until_drawn(&mut stage, &member);
        assert_eq!(answer(&mut stage, &member), Some(Ok(Code::Done)));
        assert_eq!(member.data_set(&stage.world, 0).next, None, "the shrink is in force");
        let regrown = member.change(&stage.world, 0, &[], &[bytes(9, 9_000)]);
        assert_eq!(submit(&mut stage, "a", Body::SetDataSet(regrown)), Ok(code), "nor back to what it held");
    }
    let (mut stage, mut member) = (stand(|reputation| reputation.warned = 1), member.clone());
    let grown = member.change(&stage.world, 0, &[], &[bytes(7, 100)]);
    assert_eq!(submit(&mut stage, "a", Body::SetDataSet(grown)), Ok(Code::Done), "a warning takes nothing");
}
