//! Measured capacity: the drawn peers, which counts are valid, the caps that follow, and the effect on
//! the market.

use crate::{
    model_provider::ModelProvider,
    script::Stage,
    world::{World, account, key},
};
use posync_protocol::{
    Account, Body, Bounded, Class, Code,
    capacity::{offered_egress, rate, taken},
    economics::price,
    ledger::Event,
    limits::MEASURED_FRESH_EPOCHS,
    operation::{Measure, ProbeCount},
    record::{Agreement, Closing, Market, Measured, Offer, Probe, Provider, ProviderAt},
};
use proptest::prelude::*;

const PROVIDERS: [&str; 4] = ["a", "b", "p", "q"];
const MIB: u64 = 1 << 20;

/// Four providers, and an epoch whose peers are drawn; the next block is in epoch 1.
pub(crate) fn measured_network(out: u64) -> Stage {
    let mut stage = Stage::new();
    stage.world.draws = true;
    for name in PROVIDERS {
        stage.play(&format!("{name} register out={out}"));
    }
    stage.world.skip_to_epoch(1);
    stage
}

pub(crate) fn probe(world: &World, epoch: u64) -> Option<Probe> {
    world.get::<Probe>(Probe::of(epoch)).filter(|probe| probe.epoch == epoch)
}

fn provider(world: &World, who: &str) -> Provider {
    world.get(Provider::key(&account(who))).expect("it registered")
}

fn measured(world: &World, who: &str) -> Option<Measured> {
    world.get(Measured::key(&account(who)))
}

/// The counts of the drawn peers of `who`: `bytes` for the first eight draws.
pub(crate) fn measure_of(world: &World, who: &str, epoch: u64, bytes: &[u64]) -> Measure {
    let (sender, mut counts) = (account(who), Vec::new());
    let Some(probe) = probe(world, epoch) else { return unheard(world, sender, epoch) };
    for (draw, bytes) in (0..).zip(bytes) {
        let Some(index) = probe.peer(&sender, provider(world, who).index, draw) else { continue };
        let at: ProviderAt = world.get(ProviderAt::key(index)).expect("an index");
        counts.push((index, counted(world, epoch, sender, at.account.expect("taken"), draw, *bytes)));
    }
    Measure { epoch, counts: Bounded::new(counts).expect("at most eight") }
}

/// Counts for an epoch in which no peer was drawn.
fn unheard(world: &World, sender: Account, epoch: u64) -> Measure {
    let count = |draw| (0, counted(world, epoch, sender, account("q"), draw, 1));
    Measure { epoch, counts: Bounded::new((0..8).map(count).collect()).expect("eight") }
}

fn counted(
    world: &World,
    epoch: u64,
    sender: Account,
    receiver: Account,
    draw: u8,
    bytes: u64,
) -> ProbeCount {
    let count = ProbeCount { epoch, sender, receiver, draw, bytes, signature: [0; 64] };
    let name = PROVIDERS.iter().find(|name| account(name) == receiver);
    name.map_or(count, |name| count.signed(&key(name), &world.chain))
}

fn submit(stage: &mut Stage, who: &str, measure: Measure) -> Result<Code, Code> {
    let operation = stage.world.sign(who, Body::Measure(measure));
    stage.world.submit(&operation)
}

/// Runs empty blocks until the measuring window of the epoch is over.
fn after_window(stage: &mut Stage, epoch: u64) {
    let end = probe(&stage.world, epoch).expect("it drew").window(&stage.world.parameters).end;
    while stage.world.height + 1 < end {
        stage.world.block(&[]).expect("an empty block is valid");
    }
}

/// Measures `who` in each of the epochs, with `bytes` from each peer.
pub(crate) fn measure_in(stage: &mut Stage, who: &str, epochs: core::ops::Range<u64>, bytes: u64) {
    for epoch in epochs {
        stage.world.skip_to_epoch(epoch);
        stage.world.block(&[]).expect("the block with the seed");
        stage.world.block(&[]).expect("the block after it");
        after_window(stage, epoch);
        let measure = measure_of(&stage.world, who, epoch, &[bytes; 8]);
        assert_eq!(submit(stage, who, measure), Ok(Code::Done), "epoch {epoch}");
    }
}

/// A world in which `p` was measured in three epochs.
pub(crate) fn measured_thrice() -> World {
    let mut stage = measured_network(1 << 30);
    measure_in(&mut stage, "p", 1..4, 8 * MIB);
    stage.play("epoch 5");
    stage.world
}

#[test]
fn the_first_seed_of_an_epoch_draws_peers_and_a_window_for_all() {
    let mut stage = measured_network(MIB);
    assert!(probe(&stage.world, 1).is_none());
    stage.world.block(&[]).unwrap();
    let first = probe(&stage.world, 1).expect("the first block that carries a seed");
    assert_eq!((first.epoch, first.providers), (1, 4));
    stage.world.skip_to_epoch(2);
    assert_eq!(probe(&stage.world, 1), Some(first), "no later seed moves it");
    stage.world.draws = false;
    stage.world.skip_to_epoch(3);
    assert!(probe(&stage.world, 2).is_none(), "an epoch without a seed measures nobody");
    let measure = measure_of(&stage.world, "p", 2, &[1; 8]);
    assert_eq!(submit(&mut stage, "p", measure), Ok(Code::MeasureUndrawn));
}

#[test]
fn the_counts_of_drawn_peers_are_a_measurement() {
    let mut stage = measured_network(u64::MAX >> 1);
    stage.world.block(&[]).unwrap();
    after_window(&mut stage, 1);
    let bytes = [9, 2, 3, 4, 5, 6, 7, 8];
    let before = stage.world.system();
    let measure = measure_of(&stage.world, "p", 1, &bytes);
    assert_eq!(submit(&mut stage, "p", measure), Ok(Code::Done));
    let expected = 5 * 8 * 5;
    assert_eq!(
        rate(bytes, &stage.world.parameters),
        expected,
        "the fourth lowest, eight times, in five windows an epoch"
    );
    let record = measured(&stage.world, "p").expect("it was measured");
    assert_eq!((record.taken, record.epochs[0], record.rates[0]), (1, 1, expected));
    let told = Event::CapacityMeasured { epoch: 1, provider: account("p"), rate: expected, median: None };
    assert!(stage.world.events.contains(&told));
    let after = stage.world.system();
    assert_eq!(
        (after.reserve, after.committee, after.bonds),
        (before.reserve, before.committee, before.bonds),
        "it pays nothing"
    );
}

/// Codes that the tests below assert.
pub(crate) const ALSO: &[Code] =
    &[Code::MeasureUndrawn, Code::MeasureUntimely, Code::MeasuredAlready, Code::MeasurePeer, Code::NoEgress];

type Change = fn(&World, &mut Measure);

/// Wrong measurements, each with its outcome.
const WRONG: &[(&str, Change, Result<Code, Code>)] = &[
    ("nothing", |_, _| {}, Ok(Code::Done)),
    ("four counts", |_, m| shorten(m, 4), Err(Code::BadShape)),
    ("draws that do not ascend", |_, m| swap(m), Err(Code::BadShape)),
    ("a ninth draw", |_, m| change(m, 7, |count| count.draw = 8), Err(Code::BadShape)),
    ("a count of another epoch", |_, m| change(m, 0, |count| count.epoch = 2), Err(Code::BadShape)),
    ("an index that cannot be", |_, m| reindex(m, 0, 1 << 20), Err(Code::BadShape)),
    (
        "a count about another sender",
        |_, m| change(m, 0, |count| count.sender = account("q")),
        Err(Code::WrongParty),
    ),
    (
        "a receiver that stands elsewhere",
        |_, m| change(m, 0, |count| count.receiver = account("p")),
        Ok(Code::MeasurePeer),
    ),
    (
        "itself",
        |world, m| {
            reindex(m, 0, provider(world, "p").index);
            change(m, 0, |count| count.receiver = account("p"));
        },
        Ok(Code::MeasurePeer),
    ),
    ("a peer that was not drawn", |world, m| redirect(world, m), Ok(Code::MeasurePeer)),
    ("an epoch that drew nobody", |_, m| move_to(m, 0), Ok(Code::MeasureUndrawn)),
    ("an epoch to come", |_, m| move_to(m, 9), Ok(Code::MeasureUndrawn)),
];

fn shorten(measure: &mut Measure, length: usize) {
    let mut counts = measure.counts.to_vec();
    counts.truncate(length);
    measure.counts = Bounded::new(counts).unwrap();
}

fn swap(measure: &mut Measure) {
    let mut counts = measure.counts.to_vec();
    counts.swap(0, 1);
    measure.counts = Bounded::new(counts).unwrap();
}

fn change(measure: &mut Measure, place: usize, work: impl FnOnce(&mut ProbeCount)) {
    let mut counts = measure.counts.to_vec();
    work(&mut counts[place].1);
    measure.counts = Bounded::new(counts).unwrap();
}

fn reindex(measure: &mut Measure, place: usize, index: u32) {
    let mut counts = measure.counts.to_vec();
    counts[place].0 = index;
    measure.counts = Bounded::new(counts).unwrap();
}

/// Replaces the drawn peer of the first count by another provider, correctly named and signed.
fn redirect(world: &World, measure: &mut Measure) {
    let mut counts = measure.counts.to_vec();
    let (drawn, count) = counts[0];
    let other = PROVIDERS.iter().find(|name| **name != "p" && provider(world, name).index != drawn);
    let other = other.expect("four providers");
    let signed = ProbeCount { receiver: account(other), ..count }.signed(&key(other), &world.chain);
    counts[0] = (provider(world, other).index, signed);
    measure.counts = Bounded::new(counts).unwrap();
}

fn move_to(measure: &mut Measure, epoch: u64) {
    measure.epoch = epoch;
    let counts = measure.counts.iter().map(|(index, count)| (*index, ProbeCount { epoch, ..*count }));
    measure.counts = Bounded::new(counts.collect()).unwrap();
}

#[test]
fn a_wrong_measurement_is_refused_for_its_reason() {
    let mut ready = measured_network(MIB);
    ready.world.block(&[]).unwrap();
    after_window(&mut ready, 1);
    for (what, work, expected) in WRONG {
        let mut stage = Stage { world: ready.world.clone(), opened: ready.opened.clone() };
        let mut measure = measure_of(&stage.world, "p", 1, &[7; 8]);
        work(&ready.world, &mut measure);
        assert_eq!(submit(&mut stage, "p", measure), *expected, "{what}");
    }
    let measure = Measure { ..measure_of(&ready.world, "p", 1, &[7; 8]) };
    let mut outsider = Stage { world: World::new(&["a", "b", "p", "q"]), opened: ready.opened.clone() };
    assert_eq!(submit(&mut outsider, "p", measure), Ok(Code::ProviderUnknown));
}

#[test]
fn an_epoch_is_measured_once_after_its_window_and_until_the_next_epoch_ends() {
    let mut stage = measured_network(MIB);
    stage.world.block(&[]).unwrap();
    let early = measure_of(&stage.world, "p", 1, &[7; 8]);
    assert_eq!(submit(&mut stage, "p", early.clone()), Ok(Code::MeasureUntimely));
    after_window(&mut stage, 1);
    assert_eq!(submit(&mut stage, "p", early.clone()), Ok(Code::Done));
    assert_eq!(submit(&mut stage, "p", early), Ok(Code::MeasuredAlready));
    let late = measure_of(&stage.world, "q", 1, &[7; 8]);
    let last = measure_of(&stage.world, "b", 1, &[7; 8]);
    stage.world.skip_to_epoch(2);
    assert_eq!(submit(&mut stage, "b", last), Ok(Code::Done), "in the epoch after it");
    stage.world.skip_to_epoch(3);
    assert_eq!(submit(&mut stage, "q", late), Ok(Code::MeasureUntimely));
}

#[test]
fn who_registers_in_the_epoch_neither_sends_nor_counts() {
    let mut stage = Stage::new();
    stage.world.draws = true;
    stage.play("a register\n b register\n p register\n b leave\n epoch 21\n b leave\n q register");
    stage.world.skip_to_epoch(22);
    stage.world.block(&[]).unwrap();
    stage.play("b register");
    after_window(&mut stage, 22);
    let measure = measure_of(&stage.world, "b", 22, &[7; 8]);
    assert_eq!(submit(&mut stage, "b", measure), Ok(Code::MeasurePeer));
    let measure = measure_of(&stage.world, "p", 22, &[7; 8]);
    assert_eq!(submit(&mut stage, "p", measure), Ok(Code::Done), "q registered before");
    // An index that was taken anew after the seed was known: its new holder was not drawn.
    let mut stage = Stage::new();
    stage.world.draws = true;
    stage.play("q register\n p register\n q leave\n epoch 21\n blocks 2\n q leave\n a register");
    after_window(&mut stage, 21);
    let measure = measure_of(&stage.world, "p", 21, &[7; 8]);
    assert_eq!(submit(&mut stage, "p", measure), Ok(Code::MeasurePeer));
}

#[test]
fn three_measurements_cap_what_is_sold() {
    let mut stage = measured_network(100 * MIB);
    measure_in(&mut stage, "p", 1..3, MIB);
    // Two measurements are not enough, so the declared capacity is sold. 20 epochs of 5 MiB.
    stage.play(&format!("a open p slot=0 end=22 quota_egress={}", 100 * MIB));
    assert_eq!(provider(&stage.world, "p").sold[Class::Egress], 5 * MIB);
    measure_in(&mut stage, "p", 3..4, MIB);
    let median = measured(&stage.world, "p").and_then(|record| record.median());
    assert_eq!(median, Some(40 * MIB), "eight peers, five windows an epoch");
    let open = |slot: u32, mib: u64| format!("a open p slot={slot} end=23 quota_egress={}", mib * MIB);
    stage.play(&format!(
        "{} => NoEgress\n {}\n {} => NoEgress",
        open(1, 20 * 36),
        open(1, 20 * 35),
        open(2, 1)
    ));
    assert_eq!(provider(&stage.world, "p").sold[Class::Egress], 40 * MIB);
    stage.play(&format!("p update out={} => CapacityBelowSold\n p update out={}", 40 * MIB - 1, 40 * MIB));
    // A lower median stops sales. Egress under contract continues, and becomes free at its end.
    measure_in(&mut stage, "p", 4..6, MIB / 8);
    stage.play(&format!("{} => NoEgress\n a open p slot=2 end=23 quota_egress=0", open(2, 1)));
    stage.world.draws = false;
    stage.play("a close p/1 second=p => ChallengeOpen\n blocks 128");
    let expiry = Body::Settle(ModelProvider::new("p").settle(&stage.world, &[]));
    let expiry = stage.world.sign("b", expiry);
    assert_eq!(stage.world.submit(&expiry), Ok(Code::Done));
    stage.play("a close p/1 second=p");
    assert_eq!(provider(&stage.world, "p").sold[Class::Egress], 5 * MIB);
}

#[test]
fn a_closed_agreement_gives_its_share_back() {
    let mut stage = Stage::new();
    stage.play("p register out=1000\n a open p end=10 quota_egress=9999\n a open p slot=1 end=10 quota_egress=1 => NoEgress");
    assert_eq!(provider(&stage.world, "p").sold[Class::Egress], 1000);
    stage.play("epoch 3\n a close p/0 second=p");
    assert_eq!(provider(&stage.world, "p").sold[Class::Egress], 0);
    stage.play(
        "a open p slot=1 end=4 quota_egress=1001 => NoEgress\n a open p slot=1 end=4 quota_egress=1000",
    );
}

#[test]
fn an_exit_takes_the_measurements_along() {
    let mut stage = measured_network(MIB);
    measure_in(&mut stage, "p", 1..2, MIB);
    stage.play("p leave\n epoch 23\n p leave");
    assert!(measured(&stage.world, "p").is_none());
}

#[test]
fn the_price_of_egress_follows_the_use_of_what_was_measured() {
    let mut stage = measured_network(40 * MIB);
    measure_in(&mut stage, "p", 1..4, MIB);
    stage.play(&format!("a open p end=300 quota_egress={} rate=4294967296 reserve=1000s", 8_000 * MIB));
    let least = u64::try_from(stage.world.parameters.prices[Class::Egress]).unwrap();
    let market = |world: &World| world.get::<Market>(Market::key(Class::Egress)).expect("it was looked at");
    let before = market(&stage.world);
    assert_eq!((before.price, before.capacity), (least, 0), "nothing measured, nothing moves");
    // An eighth of the bucket counts: 320 MiB use up 40 MiB an epoch at once.
    for epoch in 5..12 {
        stage.world.skip_to_epoch(epoch);
        stage.play(&format!("p redeem p/0 egress={}", (epoch - 4) * 320 * MIB));
    }
    let now = market(&stage.world);
    assert_eq!(now.capacity, u128::from(40 * MIB), "the other three declare as much and are not measured");
    assert!(now.price > least && now.slow > least, "{now:?}");
    let posted = price::posted(least.into(), now.excess, price::FRACTION_FLOW);
    assert_eq!(u128::from(now.price), posted);
    // Measurements expire: the newest is of epoch 3. Then no capacity counts, and the price stays.
    stage.world.skip_to_epoch(14);
    stage.world.block(&[]).unwrap();
    let closing: Closing = stage.world.get(Closing::of(12)).expect("it stands");
    assert_eq!(closing.capacity[Class::Egress], 0);
    let rested = market(&stage.world);
    stage.world.skip_to_epoch(16);
    stage.world.block(&[]).unwrap();
    assert_eq!((market(&stage.world).price, market(&stage.world).capacity), (rested.price, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A peer that is silent or lies moves the rate only within the range of the others' counts.
    #[test]
    fn a_minority_of_peers_decides_nothing(
        honest in prop::collection::vec(1..1_000_000_u64, 8),
        lies in prop::collection::vec(any::<u64>(), 3),
        places in prop::sample::subsequence((0..8_usize).collect::<Vec<_>>(), 3),
    ) {
        let parameters = posync_protocol::limits::Parameters::LOCAL;
        let mut told = honest.clone();
        for (place, lie) in places.iter().zip(&lies) {
            told[*place] = *lie;
        }
        let kept: Vec<u64> = (0..8).filter(|place| !places.contains(place)).map(|place| honest[place]).collect();
        let scale = 8 * parameters.epoch_blocks() / parameters.probe_blocks();
        let rate = rate(told, &parameters);
        prop_assert!(rate <= kept.iter().max().unwrap() * scale);
        prop_assert!(rate >= kept.iter().min().unwrap() * scale);
    }

    /// `sold_egress` is the sum of the shares of the open agreements, and never exceeds the
    /// declared capacity.
    #[test]
    fn shares_add_up(steps in prop::collection::vec((0..6_u8, 0..3_u32, 0..4_000_u64, 1..9_u64), 1..24)) {
        let mut stage = Stage::new();
        stage.play("p register out=2000");
        for (kind, slot, number, small) in steps {
            match kind {
                0..=2 => stage.attempt(&format!("a open p slot={slot} quota=1 quota_egress={number} end={}", stage.world.epoch() + small)),
                3 => stage.attempt(&format!("a close p/{slot} second=p")),
                4 => stage.attempt(&format!("p update out={number}")),
                _ => stage.attempt(&format!("blocks {}", small * 11)),
            };
            let row = provider(&stage.world, "p");
            let agreement = |slot| stage.world.get::<Agreement>(Agreement::key(&account("p"), slot));
            let shares = (0..3).filter_map(agreement).map(|a| taken(&a, &stage.world.parameters)[Class::Egress]);
            prop_assert_eq!(row.sold[Class::Egress], shares.sum::<u64>());
            let offer: Offer = stage.world.get(Offer::key(&account("p"))).unwrap();
            prop_assert!(row.sold[Class::Egress] <= offer.capacity[Class::Egress]);
        }
    }
}

#[test]
fn a_measurement_counts_as_offered_for_as_long_as_it_is_fresh_and_not_an_epoch_longer() {
    let stage = measured_network(100);
    let offer: Offer = stage.world.get(Offer::key(&account("p"))).expect("it registered");
    let measured = |taken| Measured { taken, rates: [90, 50, 70], epochs: [3, 2, 1] };
    let last = 3 + MEASURED_FRESH_EPOCHS;
    assert_eq!(offered_egress(&offer, Some(&measured(3)), last), 70, "the median of three");
    assert_eq!(offered_egress(&offer, Some(&measured(3)), last + 1), 0);
    assert_eq!(offered_egress(&offer, Some(&measured(2)), 3), 0, "twice is not enough");
    assert_eq!(offered_egress(&offer, None, 3), 0);
}
