//! Attacks on the usage subsidy: fake, lumpy, split, dust and on-off use.

use super::{Doing, held};
use crate::{
    chance::Chance,
    row::Row,
    world::{Cap, Deal, Mark, Terms, World},
};
use posync_protocol::{
    amount::{ONE, SYNC},
    economics::score,
    limits::Parameters,
};

const NODES: usize = 20;
const EPOCHS: u64 = 40;
/// Honest base of each provider in an epoch, in grains.
const BASE: u128 = 1_000 * SYNC;

/// Consumer 1 and provider 0 belong to the attacker; consumer 0 is honest.
const COALITION: (&[usize], &[usize]) = (&[0], &[1]);

fn honest() -> Vec<Deal> {
    (0..NODES).map(|node| Deal::plain(0, node, BASE)).collect()
}

/// Marks in which the attacker is perfect and every other node has `quality`.
fn marks(quality: u64) -> Vec<Option<Mark>> {
    let mut marks = vec![Some(Mark::of(quality)); NODES];
    marks[0] = Some(Mark::PERFECT);
    marks
}

/// Profit per epoch of a provider that settles `fake` with itself in every epoch.
pub(crate) fn wash(terms: Terms, seats: usize, quality: u64, fake: u128) -> i128 {
    let run = |fake: u128| {
        held(World::new(terms, NODES, seats, 2), EPOCHS, COALITION, |_, _| {
            let mut deals = honest();
            deals.push(Deal::plain(1, 0, fake));
            Doing { deals, marks: marks(quality) }
        })
    };
    (run(fake) - run(0)) / i128::from(EPOCHS)
}

/// The best wash over sizes, honest qualities, caps below one and shares of committee credit.
fn best_wash() -> i128 {
    let mut best = i128::MIN;
    for kappa in [ONE / 10 * 4, ONE / 10 * 8, ONE - 1] {
        for seats in [1, 2, NODES] {
            for quality in [ONE / 10 * 3, ONE / 2, ONE] {
                for fake in [1, 1_000, SYNC, BASE, 100 * BASE, 10_000 * BASE] {
                    let terms = Terms { kappa, ..Terms::DEFAULT };
                    best = best.max(wash(terms, seats, quality, fake));
                }
            }
        }
    }
    best
}

/// Profit of redeeming the use of `every` epochs at once, against redeeming in each epoch.
pub(crate) fn lumpy(seed: u64, every: u64, divisor: u128) -> i128 {
    let terms = Terms { divisor, ..Terms::DEFAULT };
    let run = |every: u64| {
        let mut chance = Chance::new(seed, "lumpy");
        let mut waiting = 0;
        held(World::new(terms, NODES, 1, 2), EPOCHS, COALITION, |epoch, _| {
            let mut deals = honest();
            waiting += BASE;
            deals[0].paid = 0;
            if (epoch + 1) % every == 0 {
                deals[0].paid = waiting;
                waiting = 0;
            }
            deals[0].base = deals[0].paid;
            let mut marks = marks(ONE);
            // Good and bad days: waiting for a better day gains nothing, because the least of eight
            // weighs a lump.
            marks[0] = Some(Mark::of(chance.around(ONE / 10 * 8, ONE / 10)));
            Doing { deals, marks }
        })
    };
    (run(every) - run(1)) / i128::from(EPOCHS)
}

/// Profit of switching off in one epoch of four. Half of that epoch's use is lost, costs of `cost`
/// parts per billion of the lost base are saved, and quality and score fall.
pub(crate) fn moody(cost: u64) -> i128 {
    let run = |off: bool| {
        let mut saved = 0;
        let end = held(World::new(Terms::DEFAULT, NODES, 1, 2), EPOCHS, COALITION, |epoch, _| {
            let mut deals = honest();
            let mut marks = marks(ONE);
            if off && epoch % 4 == 3 {
                deals[0] = Deal::plain(0, 0, BASE / 2);
                marks[0] = Some(Mark::of(ONE / 2));
                saved += BASE / 2 * u128::from(cost) / u128::from(ONE);
            }
            Doing { deals, marks }
        });
        end + i128::try_from(saved).expect("below the supply")
    };
    (run(true) - run(false)) / i128::from(EPOCHS)
}

/// Profit of serving the same use under `parts` names.
pub(crate) fn split_identity(parts: usize) -> i128 {
    let burn = Parameters::PRODUCTION.registration_burn.grains();
    let run = |parts: usize| {
        let mut world = World::new(Terms::DEFAULT, NODES + parts - 1, 1, 2);
        world.burn(1, burn * (parts as u128 - 1));
        let names: Vec<usize> = [0].into_iter().chain(NODES..NODES + parts - 1).collect();
        held(world, EPOCHS, (&names, &[1]), |_, _| {
            let mut deals = honest();
            deals.remove(0);
            deals.extend(names.iter().map(|name| Deal::plain(0, *name, BASE / parts as u128)));
            Doing { deals, marks: vec![Some(Mark::PERFECT); NODES + parts - 1] }
        })
    };
    (run(parts) - run(1)) / i128::from(EPOCHS)
}

/// Profit of a new name after a bad epoch, against recovering under the old name. Placement gives a
/// share of the usual use that follows the effective score; a newcomer gets none in its first
/// epoch.
pub(crate) fn whitewash() -> i128 {
    let stay = {
        let mut score = ONE * 9 / 10;
        held(World::new(Terms::DEFAULT, NODES, 1, 2), EPOCHS, COALITION, |epoch, _| {
            let mark = if epoch == 0 { Mark { correct: ONE / 2, ..Mark::PERFECT } } else { Mark::PERFECT };
            score = score::update(score, Some(mark.quality()), epoch == 0);
            let mut marks = marks(ONE);
            marks[0] = Some(mark);
            Doing { deals: usual(0, score), marks }
        })
    };
    let leave = {
        let mut world = World::new(Terms::DEFAULT, NODES + 1, 1, 2);
        world.burn(1, Parameters::PRODUCTION.registration_burn.grains());
        let mut score = score::SCORE_START;
        held(world, EPOCHS, (&[NODES], &[1]), |epoch, _| {
            let reads = (epoch * 8).min(64);
            let effective = score * reads / 64;
            score = score::update(score, (epoch > 0).then_some(ONE), false);
            let mut marks = marks(ONE);
            marks.push((epoch > 0).then_some(Mark::PERFECT));
            Doing { deals: usual(NODES, effective), marks }
        })
    };
    (leave - stay) / i128::from(EPOCHS)
}

fn usual(provider: usize, score: u64) -> Vec<Deal> {
    let mut deals: Vec<Deal> = honest().into_iter().skip(1).collect();
    deals.push(Deal::plain(0, provider, BASE * u128::from(score) / u128::from(ONE)));
    deals
}

/// The best profit of settling `count` fees of a few grains with itself.
pub(crate) fn dust() -> i128 {
    let run = |count: u64, grains: u128| {
        let world = World::new(Terms { kappa: ONE - 1, ..Terms::DEFAULT }, NODES, NODES, 2);
        held(world, 8, COALITION, |_, _| {
            let mut deals = honest();
            deals.extend((0..count).map(|_| Deal::plain(1, 0, grains)));
            Doing { deals, marks: marks(ONE / 2) }
        })
    };
    // The profit is not divided by epochs, because dust is about single grains.
    (1..=24).map(|grains| run(64, grains) - run(0, grains)).max().expect("some sizes")
}

/// The rows of this module.
pub(crate) fn rows(seed: u64) -> Vec<Row> {
    let aggregate = Terms { cap: Cap::Aggregate, ..Terms::DEFAULT };
    let lumps = [2, 5, 8].into_iter().flat_map(|every| [4096, 1_000_000].map(|d| lumpy(seed, every, d)));
    vec![
        Row::attack(
            "A1 wash usage",
            "any kappa < 1, any seats, honest quality 0.3 to 1, any size",
            best_wash(),
        ),
        Row::attack(
            "A2 lumpy or timed redemption",
            "every 2, 5, 8 epochs, cap or emission binding",
            lumps.max().expect("some lumps"),
        ),
        Row::attack("A9 on-off", "cost at most half of the pay, one epoch in four", moody(ONE / 100 * 38)),
        Row::attack(
            "A11 sybil split",
            "2, 10, 100 names",
            [2, 10, 100].map(split_identity).into_iter().max().expect("some splits"),
        ),
        Row::attack("A12 whitewashing", "after one failed epoch from 0.9, 40 epochs", whitewash()),
        Row::attack("A17 dust", "64 fees of 1 to 24 grains, all seats, kappa just below 1", dust()),
        Row::mutant(
            "mutant: aggregate cap",
            "wash of a tenth of a base, all committee credit, honest quality 0.3",
            wash(aggregate, 1, ONE / 10 * 3, BASE / 10),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::{BASE, wash};
    use crate::world::{Cap, Terms};
    use posync_protocol::amount::ONE;

    #[test]
    fn the_same_wash_loses_under_the_weighted_cap() {
        let quality = ONE / 10 * 3;
        assert!(wash(Terms { cap: Cap::Aggregate, ..Terms::DEFAULT }, 1, quality, BASE / 10) > 0);
        assert!(wash(Terms::DEFAULT, 1, quality, BASE / 10) < 0);
    }
}
