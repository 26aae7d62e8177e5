//! Attacks on stored data, on the ledger itself: data that is not there, not new, not real, or read at
//! a time that the provider chose. The attacker searches its plans; the figure is its best one.

use crate::{
    audit::Answers,
    ledger::{Bench, shards, signed, would_fail},
    row::{Row, Runs},
};
use posync_protocol::{
    Body, Code, Operation,
    amount::{ONE, UNIT},
    limits::{LEAF_BYTES, Parameters},
    operation::SetDataSet,
    record::Provider,
};

/// Grains per 2^20 leaf-rounds: a leaf stands for many, so that an operation's fee is small beside an
/// epoch's pay, as in a provider of gigabytes.
const PRICE: u128 = 1 << 44;
/// What holding a leaf costs, of its fee: four fifths of what the provider keeps of it.
const COST: u64 = ONE / 10 * 6;
/// Epochs of a run.
const EPOCHS: u64 = 10;
/// Agreements of the customer with a provider, and leaves of each.
const AGREEMENTS: u32 = 4;
const LEAVES: u64 = 16;
const SHARDS: u64 = 4;

/// What holding `leaves` leaves for `rounds` rounds costs.
fn cost(leaves: u64, rounds: u64) -> i128 {
    let fee = u128::from(leaves) * u128::from(rounds) * PRICE / UNIT;
    signed(fee * u128::from(COST) / u128::from(ONE))
}

/// Data of slot `slot` at the provider number `number`, encrypted for it alone; `alike` is the mutant in
/// which every provider is given the same bytes.
fn data(number: u64, slot: u32, alike: bool) -> Vec<Vec<u8>> {
    let whose = if alike { 0 } else { number };
    shards((whose << 8) + u64::from(slot) + 1, SHARDS, (LEAVES / SHARDS * LEAF_BYTES) as usize)
}

/// Providers that hold the customer's data; the first ones are the attacker's.
const PROVIDERS: [&str; 4] = ["p", "q", "g", "h"];

/// A ledger in which the customer `c` stores with every provider under `agreements`, and whose draws
/// begin with its next block. The attacker's providers have `answers`.
fn stocked(
    seed: u64,
    answers: Answers,
    agreements: u32,
    tune: impl Fn(&mut Parameters),
    alike: bool,
) -> Bench {
    let mut bench = Bench::new(seed, &["a", "c", "x", "p", "q", "g", "h"]);
    bench.stage.world.parameters.price_storage = PRICE;
    tune(&mut bench.stage.world.parameters);
    for (number, name) in (0..).zip(PROVIDERS) {
        bench.provider(name, if number < 2 { answers } else { Answers::Always });
        for slot in 0..agreements {
            bench.play(&format!("c open {name} slot={slot} {TERMS} quota=64 end=20"));
            bench.store("c", name, slot, &data(number, slot, alike));
        }
    }
    let begun = bench.world().epoch() + 1;
    bench.run_to(begun);
    bench.stage.world.draws = true;
    bench
}

/// A ledger as it is, four agreements a provider.
fn usual(seed: u64, answers: Answers, alike: bool) -> Bench {
    stocked(seed, answers, AGREEMENTS, |_| (), alike)
}

/// An opening that buys storage alone.
const TERMS: &str = "quota_egress=0 quota_gas=0 reserve=0 storage_max=100000s";

/// Per epoch, of what a run of [`EPOCHS`] brought.
fn per_epoch(total: i128) -> i128 {
    total / i128::from(EPOCHS)
}

fn rounds(bench: &Bench) -> u64 {
    bench.world().parameters.epoch_rounds * EPOCHS
}

/// Parts of a whole that an attacker tries.
const SHARES: [u64; 4] = [ONE / 16, ONE / 4, ONE / 2, ONE];
const WAYS: [Answers; 2] = [Answers::Always, Answers::Complete];

/// Whether place `place` of many lies in `share` of them, scattered.
fn within(place: u64, share: u64) -> bool {
    place * 7 % 16 < share / (ONE / 16)
}

/// What an owner of two names, each of which sells, has on one disk: of the second name's chunks it keeps
/// what it has anyway and, of the rest, all but `share`. `alike`: see [`data`].
fn one_disk(seed: u64, share: u64, answers: Answers, alike: bool) -> i128 {
    let mut bench = usual(seed, answers, alike);
    let mut saved = 0;
    for slot in 0..AGREEMENTS {
        let (first, second) = (data(0, slot, alike), data(1, slot, alike));
        if first == second {
            saved += if share > 0 { LEAVES } else { 0 };
        } else {
            saved += bench.lose("q", &second, |place| within(place, share));
        }
    }
    let end = bench.world().epoch() + EPOCHS;
    bench.run_to(end);
    bench.fortune(&["p", "q"]) + cost(saved, rounds(&bench))
}

/// The best of [`one_disk`] above keeping both copies, per epoch.
fn one_disk_best(seed: u64, alike: bool) -> i128 {
    let honest = one_disk(seed, 0, Answers::Always, alike);
    let plans = SHARES.into_iter().flat_map(|share| WAYS.map(|way| (share, way)));
    best(plans.map(|(share, way)| per_epoch(one_disk(seed, share, way, alike) - honest)))
}

/// Which version of its data set an attacker would rather have in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Old {
    /// The consumer deleted a part: the larger one from before, to be paid for it further.
    Larger,
    /// The data grew: the smaller one from before, without what was added.
    Smaller,
    /// The data grew: none, but what was added is not kept.
    Unkept,
}

/// What a provider has that brings, in every epoch, the data set that both signed before the last change
/// of `share`, as it was and under the next version. Without `attacks` it is honest. `unversioned`: the
/// mutant in which what is signed names no version.
fn replayed(seed: u64, plan: Replay, attacks: bool, unversioned: bool) -> i128 {
    let Replay { old, share, answers } = plan;
    let mut bench = usual(seed, answers, false);
    let part = usize::try_from(SHARDS * share / ONE).expect("few").max(1);
    let added = |slot: u32| data(9, slot, false)[..part].to_vec();
    let before: Vec<SetDataSet> =
        (0..AGREEMENTS).map(|slot| change(&mut bench, slot, old, &added(slot))).collect();
    let leaves = part as u64 * LEAVES / SHARDS * u64::from(AGREEMENTS);
    if attacks && old != Old::Larger {
        (0..AGREEMENTS).for_each(|slot| {
            bench.lose("p", &added(slot), |_| true);
        });
    }
    for _ in 0..EPOCHS {
        if attacks && old != Old::Unkept {
            before.iter().for_each(|set| bring(&mut bench, set, unversioned));
        }
        let next = bench.world().epoch() + 1;
        bench.run_to(next);
    }
    // The honest one holds what was added, and no longer what the consumer deleted.
    let holds = attacks == (old == Old::Larger);
    bench.fortune(&["p"]) - if holds { cost(leaves, rounds(&bench)) } else { 0 }
}

/// A plan of [`replayed`].
#[derive(Clone, Copy, Debug)]
struct Replay {
    old: Old,
    share: u64,
    answers: Answers,
}

/// The best of [`replayed`] above honesty, per epoch.
fn replayed_best(seed: u64, unversioned: bool) -> i128 {
    let olds = [Old::Larger, Old::Smaller, Old::Unkept];
    let changes = [ONE / 4, ONE / 2].into_iter().flat_map(|share| olds.map(|old| (old, share)));
    best(changes.flat_map(|(old, share)| {
        let plan = |answers| Replay { old, share, answers };
        let honest = replayed(seed, plan(Answers::Always), false, unversioned);
        WAYS.map(|way| per_epoch(replayed(seed, plan(way), true, unversioned) - honest))
    }))
}

/// Makes the change after which there is an old version; the old one.
fn change(bench: &mut Bench, slot: u32, old: Old, added: &[Vec<u8>]) -> SetDataSet {
    let holder = bench.holders["p"].keeper.clone();
    let version = holder.data_set(bench.world(), slot).current;
    let (removes, adds): (Vec<u32>, &[Vec<u8>]) = match old {
        Old::Larger => ((0..added.len() as u32).collect(), &[]),
        Old::Smaller | Old::Unkept => (vec![], added),
    };
    // What both signed for the version in force, as a provider keeps it.
    let mut before = bench.claim("c", "p", slot, &[], &[]).0;
    before.claim.version = version.version;
    (before.claim.root, before.claim.leaves, before.claim.bytes) =
        (version.root, version.leaves, version.bytes);
    while bench.world().epoch() < 40 {
        let (_, operation) = bench.claim("c", "p", slot, &removes, adds);
        if bench.block(&[operation]).first() == Some(&Code::Done) {
            break;
        }
    }
    resigned(bench, before)
}

/// The same claim with both signatures over it, as they were given when it was new.
fn resigned(bench: &Bench, mut set: SetDataSet) -> SetDataSet {
    use crate::ledger::key;
    use posync_protocol::{
        block::with_chain,
        operation::{DATA_SET_NAMESPACE, sign},
    };
    let signed =
        |name: &str| sign(&key(name), DATA_SET_NAMESPACE, &with_chain(&bench.world().chain, &set.claim));
    (set.consumer_signature, set.provider_signature) = (signed("storage"), Some(signed("p")));
    set
}

/// Brings an old claim, as it was signed; then as the next version, which a node takes only if the
/// signatures say nothing of it.
fn bring(bench: &mut Bench, old: &SetDataSet, unversioned: bool) {
    let operation = bench.stage.world.sign("p", Body::SetDataSet(old.clone()));
    bench.block(&[operation]);
    let slot = old.claim.agreement.slot;
    let data_set = bench.holders["p"].keeper.data_set(bench.world(), slot);
    let last = data_set.next.unwrap_or(data_set.current);
    if last.root == old.claim.root {
        return;
    }
    let mut newer = old.clone();
    newer.claim.version = last.version + 1;
    let operation = bench.stage.world.sign("p", Body::SetDataSet(newer));
    if unversioned || bench.is_signed(&operation) {
        bench.forge(&[operation]);
    }
}

/// Fake data that a provider stores with itself: it costs nothing to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fake {
    /// For the whole time.
    Live,
    /// Opened shortly before an epoch ends, to end with it: for the rest of the time it has ended.
    Ended,
}

/// A plan of [`diluted`].
#[derive(Clone, Copy, Debug)]
struct Dilution {
    fake: Fake,
    /// Leaves of its own for each of the customer's.
    times: u64,
    /// Share of the customer's data that it drops.
    share: u64,
    /// Blocks before the end of an epoch at which it opens what ends with it.
    lead: u64,
    /// What it says of what it lacks.
    answers: Answers,
}

/// Agreements of the customer where data is diluted; the attacker's own follow.
const SPREAD: u32 = 16;
/// Epochs of a dilution.
const LONG_EPOCHS: u64 = 3;

/// As in a large network: an epoch is long beside a round and a provider is drawn seldom, so that a
/// short agreement of its own is cheap. `free`: the mutant in which paying oneself costs nothing.
fn large(parameters: &mut Parameters, free: bool) {
    (parameters.epoch_rounds, parameters.term_rounds) = (160, 160);
    parameters.draw_every_blocks = 8;
    parameters.price_storage = PRICE / 256;
    if free {
        (parameters.burn, parameters.committee) = (1, 0);
    }
}

/// What a provider and its own consumer have that follow a plan; without one, they are honest.
fn diluted(seed: u64, plan: Option<Dilution>, free: bool) -> i128 {
    let answers = plan.map_or(Answers::Always, |plan| plan.answers);
    let mut bench = stocked(seed, answers, SPREAD, |parameters| large(parameters, free), false);
    let first = bench.world().epoch();
    let mut saved = 0;
    for epoch in first..first + LONG_EPOCHS {
        if let Some(plan) = plan {
            // It drops only behind what covers it, and holds everything until then.
            let is_covered = cover(&mut bench, plan, epoch, first);
            if is_covered && saved == 0 {
                for slot in 0..SPREAD {
                    saved += bench.lose("p", &data(0, slot, false), |place| within(place, plan.share));
                }
                saved *= first + LONG_EPOCHS - epoch - u64::from(plan.fake == Fake::Ended);
            }
        }
        bench.run_to(epoch + 1);
    }
    let customers: Vec<u32> = (0..SPREAD).collect();
    bench.close("c", "p", &customers);
    // What is over gives its reserves back.
    bench.stage.world.draws = true;
    bench.run_to(first + LONG_EPOCHS + 2);
    (SPREAD..SPREAD + 4).for_each(|slot| tidy(&mut bench, slot));
    bench.fortune(&["p", "x"]) + cost(saved, bench.world().parameters.epoch_rounds) / 256
}

/// Brings the fake data of an epoch under way; whether it weighs.
fn cover(bench: &mut Bench, plan: Dilution, epoch: u64, first: u64) -> bool {
    let Dilution { fake, times, lead, .. } = plan;
    let own = times * LEAVES * u64::from(SPREAD);
    if fake == Fake::Live {
        return epoch == first && dilute(bench, SPREAD, own, first + LONG_EPOCHS);
    }
    let blocks = bench.world().parameters.epoch_blocks();
    while bench.world().height + lead < (epoch + 1) * blocks {
        bench.block(&[]);
    }
    dilute(bench, SPREAD + (epoch % 4) as u32, own, epoch + 1)
}

/// The best of [`diluted`] above honesty, per epoch. Under the mutant, as much of its own as it likes.
fn diluted_best(seed: u64, free: bool) -> i128 {
    let honest = diluted(seed, None, free);
    let live = |share, times, answers| Dilution { fake: Fake::Live, times, share, lead: 0, answers };
    let ended =
        |share, times, lead| Dilution { fake: Fake::Ended, times, share, lead, answers: Answers::Complete };
    let plans = if free {
        WAYS.map(|way| live(ONE, 256, way)).to_vec()
    } else {
        let sizes = [(ONE, 16), (ONE, 64)];
        let all = sizes.into_iter().flat_map(|(share, times)| {
            [live(share, times, Answers::Complete), ended(share, times, 30), ended(share, times, 60)]
        });
        all.chain([live(ONE / 16, 1, Answers::Always), ended(ONE / 16, 16, 60)]).collect()
    };
    best(plans.into_iter().map(|plan| (diluted(seed, Some(plan), free) - honest) / i128::from(LONG_EPOCHS)))
}

/// Opens an agreement of the attacker with itself until `end`, and fills it as soon as a claim takes
/// effect at once.
fn dilute(bench: &mut Bench, slot: u32, leaves: u64, end: u64) -> bool {
    let open = format!("x open p slot={slot} {TERMS} quota={leaves} end={end}");
    if bench.attempt(&open) != "Done" {
        return false;
    }
    let fakes = shards(1 << 20 | end << 8 | u64::from(slot), leaves / 16, (16 * LEAF_BYTES) as usize);
    while bench.world().epoch() < end {
        let (world, keeper) = (bench.world(), &bench.holders["p"].keeper);
        let now = world.parameters.round(world.height + 1);
        let is_settled =
            keeper.provider(world).settled_round == now && keeper.audit(world).challenge.is_none();
        if is_settled {
            let (_, operation) = bench.claim("x", "p", slot, &[], &fakes);
            return bench.block(&[operation]) == [Code::Done];
        }
        bench.block(&[]);
    }
    false
}

/// Removes what is over as soon as the provider is settled beyond its end.
fn tidy(bench: &mut Bench, slot: u32) {
    while bench.holders["p"].keeper.agreement(bench.world(), slot).is_some() {
        let settle = bench.holders["p"].keeper.settle(bench.world(), &[slot]);
        let operation = bench.stage.world.sign("p", Body::Settle(settle));
        bench.block(&[operation]);
    }
}

/// Operations by which an attacker could move a draw or its reads.
fn moves(bench: &mut Bench, step: u64) -> Vec<Operation> {
    let grow = {
        let mut trial = bench.clone();
        trial.claim("x", "p", AGREEMENTS, &[], &shards(1 << 30 | step, 1, 1)).1
    };
    let other = {
        let mut trial = bench.clone();
        trial.claim("x", "q", AGREEMENTS, &[], &shards(1 << 31 | step, 1, 1)).1
    };
    let index =
        bench.world().get::<Provider>(Provider::key(&crate::ledger::account("p"))).map_or(0, |p| p.index);
    let register = bench.sign("a register");
    vec![grow, other, register, bench.sign(&format!("q update index={}", index + 1))]
}

/// Profit of moving draws after the seed is known, above not moving them: the provider lacks `share` of
/// its data, looks a block ahead, and sends whatever leaves it without a challenge that it would fail.
/// `ahead`: the mutant in which the seed is known a block before the draws look at the state.
fn moved(seed: u64, share: u64, ahead: bool) -> i128 {
    let run = |attacks: bool| {
        let mut bench = usual(seed, Answers::Always, false);
        for name in ["p", "q"] {
            bench.play(&format!("x open {name} slot={AGREEMENTS} {TERMS} quota=64 end=20"));
        }
        for slot in 0..AGREEMENTS {
            bench.lose("p", &data(0, slot, false), |place| within(place, share));
        }
        let end = bench.world().epoch() + EPOCHS;
        while bench.world().epoch() < end {
            let best = if attacks { best_move(&mut bench, ahead) } else { None };
            match best {
                Some((number, operation)) => {
                    if number < 2 {
                        keep_tree(&mut bench, number);
                    }
                    bench.block(&[operation]);
                }
                None => drop(bench.block(&[])),
            }
        }
        bench.close("x", "p", &[AGREEMENTS]);
        bench.close("x", "q", &[AGREEMENTS]);
        bench.fortune(&["p", "q", "x", "a"])
    };
    per_epoch(run(true) - run(false))
}

/// The keeper remembers the tree of a move that is sent.
fn keep_tree(bench: &mut Bench, number: usize) {
    let step = bench.world().height;
    let (name, seed) = [("p", 1 << 30), ("q", 1 << 31)][number];
    bench.claim("x", name, AGREEMENTS, &[], &shards(seed | step, 1, 1));
}

/// The first move after which the provider is not drawn for what it lacks, if it would be without one.
fn best_move(bench: &mut Bench, ahead: bool) -> Option<(usize, Operation)> {
    let open = |bench: &Bench| bench.holders["p"].keeper.audit(bench.world()).challenge.map(|c| c.height);
    let before = open(bench);
    let fails = |operations: &[Operation]| {
        let mut trial = bench.clone();
        trial.block(operations);
        if ahead {
            trial.block(&[]);
        }
        open(&trial) != before && would_fail(&trial, "p")
    };
    if !fails(&[]) {
        return None;
    }
    let step = bench.world().height;
    let mut sender = bench.clone();
    let mut all = moves(&mut sender, step).into_iter().enumerate();
    all.find(|(_, operation)| !fails(core::slice::from_ref(operation)))
}

fn best(profits: impl Iterator<Item = i128>) -> i128 {
    profits.max().expect("some plans")
}

/// The rows of this file.
pub fn rows(seed: u64) -> Vec<Row> {
    let moves = |ahead| best(SHARES[..3].iter().map(|share| moved(seed, *share, ahead)));
    let rows = [
        Row::attack(
            "A4 one disk, two names",
            "1/16 to all of the second copy dropped, two ways to answer",
            one_disk_best(seed, false),
        ),
        Row::attack(
            "A21 data dilution",
            "1/16 to all dropped behind 1 to 64 times as much of its own, live or ended",
            diluted_best(seed, false),
        ),
        Row::attack(
            "A23 late registration",
            "1/16 to 1/2 missing; data sets, a registration, an update sent with the draw",
            moves(false),
        ),
        Row::attack(
            "A28 replay of old data sets",
            "a quarter or half newer or deleted; brought again in every epoch",
            replayed_best(seed, false),
        ),
        Row::mutant(
            "mutant: not encrypted one by one",
            "A4, every provider is given the same bytes",
            one_disk_best(seed, true),
        ),
        Row::mutant(
            "mutant: paying oneself is free",
            "A21, no burn and no committee",
            diluted_best(seed, true),
        ),
        Row::mutant("mutant: the seed is known a block early", "A23", moves(true)),
        Row::mutant("mutant: signatures name no version", "A28", replayed_best(seed, true)),
    ];
    rows.map(|row| row.runs(Runs::Ledger)).into()
}
