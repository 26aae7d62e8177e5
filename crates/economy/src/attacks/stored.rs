//! Attacks on stored data, on the ledger itself: data that is missing, old or fake, or read at a
//! time that the provider chose. The attacker tries its plans; the figure is the best of them.

use crate::{
    audit::Answers,
    ledger::{Bench, shards, signed, would_fail},
    row::{Row, Runs},
};
use posync_protocol::{
    Body, Class, Code, Operation,
    amount::{ONE, UNIT},
    limits::{LEAF_BYTES, Parameters},
    operation::SetDataSet,
    record::Provider,
};

/// Grains per 2^20 leaf-rounds. A leaf stands for many, so that an operation's fee is small beside
/// an epoch's pay, as it is for a provider of gigabytes.
const PRICE: u128 = 1 << 44;
/// Cost of holding a leaf, as a share of its fee: four fifths of the provider's part of the fee.
const COST: u64 = ONE / 10 * 6;
/// Number of epochs in a run.
const EPOCHS: u64 = 10;
/// Agreements of the consumer with each provider. The data of each is [`LEAVES`] leaves in
/// [`SHARDS`] shards.
const AGREEMENTS: u32 = 4;
const LEAVES: u64 = 16;
const SHARDS: u64 = 4;

/// Cost of holding `leaves` leaves for `rounds` rounds, in grains.
fn cost(leaves: u64, rounds: u64) -> i128 {
    let fee = u128::from(leaves) * u128::from(rounds) * PRICE / UNIT;
    signed(fee * u128::from(COST) / u128::from(ONE))
}

/// Data of slot `slot` at provider number `number`, encrypted for it alone. `alike` selects the
/// mutant in which every provider gets the same bytes.
fn data(number: u64, slot: u32, alike: bool) -> Vec<Vec<u8>> {
    let whose = if alike { 0 } else { number };
    shards((whose << 8) + u64::from(slot) + 1, SHARDS, (LEAVES / SHARDS * LEAF_BYTES) as usize)
}

/// Providers that hold the consumer's data; the attacker owns the first two.
const PROVIDERS: [&str; 4] = ["p", "q", "g", "h"];

/// A ledger in which the consumer `c` stores with every provider under `agreements` agreements, and
/// draws begin with the next block. The attacker's providers answer as `answers` says.
fn stocked(
    seed: u64,
    answers: Answers,
    agreements: u32,
    tune: impl Fn(&mut Parameters),
    alike: bool,
) -> Bench {
    let mut bench = Bench::new(seed, &["a", "c", "x", "p", "q", "g", "h"]);
    bench.stage.world.parameters.prices[Class::Storage] = PRICE;
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

/// A ledger with the usual parameters and four agreements per provider.
fn usual(seed: u64, answers: Answers, alike: bool) -> Bench {
    stocked(seed, answers, AGREEMENTS, |_| (), alike)
}

/// Terms of an opening that buys storage alone.
const TERMS: &str = "quota_egress=0 quota_gas=0 reserve=0 storage_max=100000s";

/// A total over [`EPOCHS`], divided into epochs.
fn per_epoch(total: i128) -> i128 {
    total / i128::from(EPOCHS)
}

fn rounds(bench: &Bench) -> u64 {
    bench.world().parameters.epoch_rounds * EPOCHS
}

/// Shares of its data that an attacker tries to drop.
const SHARES: [u64; 4] = [ONE / 16, ONE / 4, ONE / 2, ONE];
const WAYS: [Answers; 2] = [Answers::Always, Answers::Complete];

/// True if `place` lies in a scattered `share` of all places.
fn within(place: u64, share: u64) -> bool {
    place * 7 % 16 < share / (ONE / 16)
}

/// Money of an owner of two selling names on one disk. Of the second name's leaves it keeps those
/// that equal the first name's, and all others but `share`. For `alike` see [`data`].
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

/// The version of its data set that an attacker would like to have in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Old {
    /// The consumer deleted a part: the attacker wants the larger, older version, to be paid for it
    /// further.
    Larger,
    /// The data grew: the attacker wants the smaller, older version, and drops the added data.
    Smaller,
    /// The data grew: the attacker wants no other version, but drops the added data.
    Unkept,
}

/// Money of a provider that submits, in every epoch, the data set that both signed before the last
/// change of `share`, first as it was and then under the next version. Without `attacks` it is
/// honest. `unversioned` selects the mutant in which signatures name no version.
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
    // The honest provider holds the added data, and no longer holds the deleted data.
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

/// Makes the change that leaves an old version behind. Returns the old version.
fn change(bench: &mut Bench, slot: u32, old: Old, added: &[Vec<u8>]) -> SetDataSet {
    let holder = bench.holders["p"].member.clone();
    let version = holder.data_set(bench.world(), slot).current;
    let (removes, adds): (Vec<u32>, &[Vec<u8>]) = match old {
        Old::Larger => ((0..added.len() as u32).collect(), &[]),
        Old::Smaller | Old::Unkept => (vec![], added),
    };
    // The claim that both signed for the version in force, as a provider keeps it.
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

/// The same claim with both signatures, as they were made when it was new.
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

/// Submits an old claim as it was signed, then as the next version. A node accepts the second only
/// if the signatures cover no version.
fn bring(bench: &mut Bench, old: &SetDataSet, unversioned: bool) {
    let operation = bench.stage.world.sign("p", Body::SetDataSet(old.clone()));
    bench.block(&[operation]);
    let slot = old.claim.agreement.slot;
    let data_set = bench.holders["p"].member.data_set(bench.world(), slot);
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

/// Fake data that a provider stores with itself; holding it costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fake {
    /// Stored for the whole run.
    Live,
    /// Opened shortly before an epoch ends, to end with it: it counts as ended for the rest of the time.
    Ended,
}

/// A plan of [`diluted`].
#[derive(Clone, Copy, Debug)]
struct Dilution {
    fake: Fake,
    /// Number of the attacker's own leaves for each leaf of the consumer.
    times: u64,
    /// Share of the consumer's data that it drops, parts per billion.
    share: u64,
    /// Blocks before the end of an epoch at which it opens the fake agreement.
    lead: u64,
    /// How it answers for missing data.
    answers: Answers,
}

/// Agreements of the consumer in a dilution; the attacker's own use the slots after them.
const SPREAD: u32 = 16;
/// Number of epochs in a dilution.
const LONG_EPOCHS: u64 = 3;

/// Parameters as in a large network: an epoch is long beside a round and a provider is drawn
/// rarely, so that a short agreement with oneself is cheap. `free` selects the mutant in which
/// paying oneself costs nothing.
fn large(parameters: &mut Parameters, free: bool) {
    (parameters.epoch_rounds, parameters.term_rounds) = (160, 160);
    parameters.draw_every_blocks = 8;
    parameters.prices[Class::Storage] = PRICE / 256;
    if free {
        (parameters.burn, parameters.committee, parameters.reserve_share) = (1, 0, 0);
    }
}

/// Money of a provider and its own consumer that follow a plan; without one, they are honest.
fn diluted(seed: u64, plan: Option<Dilution>, free: bool) -> i128 {
    let answers = plan.map_or(Answers::Always, |plan| plan.answers);
    let mut bench = stocked(seed, answers, SPREAD, |parameters| large(parameters, free), false);
    let first = bench.world().epoch();
    let mut saved = 0;
    for epoch in first..first + LONG_EPOCHS {
        if let Some(plan) = plan {
            // It drops data only behind a cover, and holds everything until then.
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
    let consumers: Vec<u32> = (0..SPREAD).collect();
    bench.close("c", "p", &consumers);
    // Agreements that are over return their reserves.
    bench.stage.world.draws = true;
    bench.run_to(first + LONG_EPOCHS + 2);
    (SPREAD..SPREAD + 4).for_each(|slot| tidy(&mut bench, slot));
    bench.fortune(&["p", "x"]) + cost(saved, bench.world().parameters.epoch_rounds) / 256
}

/// Stores the fake data of an epoch. Returns true if it weighs in draws.
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

/// The best of [`diluted`] above honesty, per epoch. The mutant may store as much of its own as it likes.
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

/// Opens an agreement of the attacker with itself until `end`, and fills it once a claim takes
/// effect immediately. Returns true if the claim was accepted.
fn dilute(bench: &mut Bench, slot: u32, leaves: u64, end: u64) -> bool {
    let open = format!("x open p slot={slot} {TERMS} quota={leaves} end={end}");
    if bench.attempt(&open) != "Done" {
        return false;
    }
    let fakes = shards(1 << 20 | end << 8 | u64::from(slot), leaves / 16, (16 * LEAF_BYTES) as usize);
    while bench.world().epoch() < end {
        let (world, member) = (bench.world(), &bench.holders["p"].member);
        let now = world.parameters.round(world.height + 1);
        let is_settled =
            member.provider(world).settled_round == now && member.audit(world).challenge.is_none();
        if is_settled {
            let (_, operation) = bench.claim("x", "p", slot, &[], &fakes);
            return bench.block(&[operation]) == [Code::Done];
        }
        bench.block(&[]);
    }
    false
}

/// Removes an agreement once the provider is settled beyond its end.
fn tidy(bench: &mut Bench, slot: u32) {
    while bench.holders["p"].member.agreement(bench.world(), slot).is_some() {
        let settle = bench.holders["p"].member.settle(bench.world(), &[slot]);
        let operation = bench.stage.world.sign("p", Body::Settle(settle));
        bench.block(&[operation]);
    }
}

/// Operations with which an attacker could move a draw or its reads.
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

/// Profit of moving draws after the seed is known, above not moving them. The provider lacks
/// `share` of its data, looks a block ahead, and sends any operation that avoids a challenge it
/// would fail. `ahead` selects the mutant in which the seed is known a block before the draws read
/// the state.
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

/// Makes the provider remember the tree of a move that is sent.
fn keep_tree(bench: &mut Bench, number: usize) {
    let step = bench.world().height;
    let (name, seed) = [("p", 1 << 30), ("q", 1 << 31)][number];
    bench.claim("x", name, AGREEMENTS, &[], &shards(seed | step, 1, 1));
}

/// If the provider would be drawn for missing data, the first move after which it is not.
fn best_move(bench: &mut Bench, ahead: bool) -> Option<(usize, Operation)> {
    let open = |bench: &Bench| bench.holders["p"].member.audit(bench.world()).challenge.map(|c| c.height);
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

/// The rows of this module.
pub(crate) fn rows(seed: u64) -> Vec<Row> {
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
            "A21, no burn, no committee, no price of reserving",
            diluted_best(seed, true),
        ),
        Row::mutant("mutant: the seed is known a block early", "A23", moves(true)),
        Row::mutant("mutant: signatures name no version", "A28", replayed_best(seed, true)),
    ];
    rows.map(|row| row.runs(Runs::Ledger)).into()
}
