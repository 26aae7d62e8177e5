//! Honest worlds: pay is proportional to verified contribution, conserved, and no more concentrated.

use crate::{
    Plan,
    chance::Chance,
    recompute,
    row::{Bound, Row, Topic},
    seats::Seats,
    world::{ClosedEpoch, Deal, Mark, Terms, World},
};
use posync_protocol::{
    amount::{ONE, SYNC},
    economics::{
        seats::seats_for,
        split::{floor_carry, largest_remainder},
    },
    limits::SEATS_MIN,
};
use serde::Serialize;

/// The spread of contribution and pay in a network of one size.
#[derive(Clone, Debug, Serialize)]
pub struct Size {
    /// Number of providers in the network.
    pub nodes: usize,
    /// Gini coefficient of verified contribution, parts per billion.
    pub gini_contribution: u64,
    /// Gini coefficient of pay, parts per billion.
    pub gini_pay: u64,
    /// Least number of nodes that have more than a third of the contribution.
    pub nakamoto_contribution: usize,
    /// Least number of nodes that have more than a third of the pay.
    pub nakamoto_pay: usize,
    /// The largest gap between a node's share of all pay and its share of all contribution, in
    /// parts per billion of the latter.
    pub share_gap: u64,
    /// `(contribution, pay)` of the first nodes, at most a thousand.
    pub sample: Vec<(u128, u128)>,
}

/// The Gini coefficient, parts per billion: `2 sum(i x_i) / (n sum(x)) - (n + 1) / n`.
pub(crate) fn gini(values: &[u128]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    // Shifting the sum to at most 60 bits keeps the products within 128 bits.
    let sum: u128 = sorted.iter().sum();
    let shift = (128 - sum.leading_zeros()).saturating_sub(60);
    let (count, sum) = (sorted.len() as u128, (sum >> shift).max(1));
    let ranked: u128 = (1u128..).zip(&sorted).map(|(rank, value)| rank * (value >> shift)).sum();
    let one = u128::from(ONE);
    let scaled = 2 * ranked / count * one / sum;
    u64::try_from(scaled.saturating_sub((count + 1) * one / count)).expect("a ratio")
}

/// Least number of holders that have more than a third of the sum.
pub(crate) fn nakamoto(values: &[u128]) -> usize {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    let third = sorted.iter().sum::<u128>() / 3;
    let mut held = 0;
    let beyond = sorted.iter().position(|value| {
        held += value;
        held > third
    });
    beyond.map_or(sorted.len(), |place| place + 1)
}

/// Bases with a heavy tail: most near one SYNC, a few near a thousand.
fn contributions(chance: &mut Chance, nodes: usize) -> Vec<u128> {
    (0..nodes)
        .map(|_| 1_000 * SYNC / (1 + u128::from(chance.below(1_000))) + u128::from(chance.below(1_000)))
        .collect()
}

/// The honest deals of an epoch: each node serves three consumers, and use varies by a fifth.
fn deals(chance: &mut Chance, bases: &[u128], consumers: usize) -> Vec<Deal> {
    let mut deals = Vec::with_capacity(3 * bases.len());
    for (node, base) in bases.iter().enumerate() {
        for third in 0..3 {
            let paid = base * u128::from(chance.around(1_000, 200)) / 3_000;
            deals.push(Deal::plain((node + third) % consumers, node, paid));
        }
    }
    deals
}

fn marks(chance: &mut Chance, nodes: usize) -> Vec<Option<Mark>> {
    let mut mark = || Mark {
        correct: ONE,
        available: ONE - chance.below(ONE / 20),
        latency: ONE - chance.below(ONE / 10),
    };
    (0..nodes).map(|_| Some(mark())).collect()
}

/// The largest gap between a node's pay and its verified share, in parts per billion of that share,
/// rounding included. The fee part is compared with the base, the subsidy with the weight.
pub(crate) fn deviation(terms: &Terms, books: &ClosedEpoch) -> u64 {
    let total: u128 = books.lines.iter().map(|line| line.weight).sum();
    let keeps = u128::from(ONE - terms.burn - terms.committee);
    let mut worst = 0;
    for line in &books.lines {
        let exact = line.base * keeps / u128::from(ONE);
        let subsidy = floor_carry(books.pool, &[line.weight, total - line.weight]).0[0];
        let gap = (line.pay + line.subsidy).abs_diff(exact + subsidy);
        worst = worst.max(gap * u128::from(ONE) / (exact + subsidy).max(1));
    }
    u64::try_from(worst).unwrap_or(u64::MAX)
}

/// Results of a long honest run.
#[derive(Debug, Default)]
pub(crate) struct Worked {
    /// Number of epochs that conserved every grain.
    pub conserved: u64,
    /// Number of epochs that the second computation matched, node by node.
    pub recomputed: u64,
    /// Largest deviation of pay from the verified share, parts per billion.
    pub deviation: u64,
    /// Number of epochs in whose term every bound of the seats held.
    pub in_bounds: u64,
    /// Number of seats at the end.
    pub seats: usize,
    /// Nakamoto coefficient of leadership at the end.
    pub leaders: usize,
}

/// Runs `epochs` honest epochs of `nodes` nodes and checks each. Four nodes have seats at first;
/// nodes with a seat share the committee's pool.
pub(crate) fn work(seed: u64, nodes: usize, epochs: u64) -> Worked {
    let mut chance = Chance::new(seed, "honest");
    let mut world = World::new(Terms::DEFAULT, nodes, SEATS_MIN as usize, 16);
    let mut seats = Seats::new(SEATS_MIN as usize);
    let bases = contributions(&mut chance, nodes);
    let mut worked = Worked::default();
    for _ in 0..epochs {
        let deals = deals(&mut chance, &bases, 16);
        let marks = marks(&mut chance, nodes);
        refill(&mut world, &deals);
        let books = world.close(deals, &marks);
        worked.conserved += u64::from(world.conserved());
        worked.recomputed += u64::from(recompute::differs(&world.terms, &books).is_none());
        worked.deviation = worked.deviation.max(deviation(&world.terms, &books));
        let scores: Vec<u64> = world.nodes.iter().map(|node| node.score).collect();
        seats.term(&scores);
        world.nodes.iter_mut().for_each(|node| node.credit = 0);
        seats.nodes().for_each(|node| world.nodes[node].credit = 1);
    }
    worked.in_bounds = epochs - seats.record.broken;
    (worked.seats, worked.leaders) = (seats.len(), seats.leaders());
    worked
}

/// Providers spend their earnings: when a consumer could not pay an epoch's deals, all consumers
/// get the holdings of the providers, so that a long run never stops for lack of money.
fn refill(world: &mut World, deals: &[Deal]) {
    let needed: u128 = deals.iter().map(|deal| deal.paid).sum();
    if world.consumers.iter().any(|purse| *purse < needed) {
        let back: u128 = world.nodes.iter_mut().map(|node| std::mem::take(&mut node.balance)).sum();
        let (shares, left) = floor_carry(back, &vec![1; world.consumers.len()]);
        for (purse, share) in world.consumers.iter_mut().zip(shares) {
            *purse += share;
        }
        world.consumers[0] += left;
    }
}

/// Grows the network to `nodes` and runs sixteen epochs. Sums contribution (base times quality) and pay.
fn grow(world: &mut World, seed: u64, nodes: usize) -> Size {
    const EPOCHS: u64 = 16;
    let mut chance = Chance::new(seed, "growth");
    while world.nodes.len() < nodes {
        world.join();
    }
    let bases = contributions(&mut chance, nodes);
    let (mut contribution, mut pay) = (vec![0u128; nodes], vec![0u128; nodes]);
    for _ in 0..EPOCHS {
        let deals = deals(&mut chance, &bases, 16);
        let books = world.close(deals, &vec![Some(Mark::PERFECT); nodes]);
        for (node, line) in books.lines.iter().enumerate() {
            contribution[node] += line.weight;
            pay[node] += line.pay + line.subsidy;
        }
    }
    let (all, paid): (u128, u128) = (contribution.iter().sum(), pay.iter().sum());
    let gap = |(given, got): (&u128, &u128)| {
        (got * all).abs_diff(given * paid) / (given * paid / u128::from(ONE)).max(1)
    };
    let share_gap = contribution.iter().zip(&pay).map(gap).max().unwrap_or(0);
    let sample = contribution.iter().copied().zip(pay.iter().copied()).take(1_000).collect();
    Size {
        nodes,
        gini_contribution: gini(&contribution),
        gini_pay: gini(&pay),
        nakamoto_contribution: nakamoto(&contribution),
        nakamoto_pay: nakamoto(&pay),
        share_gap: u64::try_from(share_gap).unwrap_or(u64::MAX),
        sample,
    }
}

/// Splits a pool over `count` weights in both ways. Returns the grains that do not sum up.
pub(crate) fn pure_split(seed: u64, count: usize) -> u128 {
    let mut chance = Chance::new(seed, "split");
    let weights: Vec<u128> = (0..count).map(|_| u128::from(chance.below(1 << 60))).collect();
    let pool = 1_000_000 * SYNC + 7;
    let (shares, carry) = floor_carry(pool, &weights);
    let exact: u128 = largest_remainder(pool, &weights).iter().sum();
    pool.abs_diff(shares.iter().sum::<u128>() + carry) + pool.abs_diff(exact)
}

/// Takes one network through all sizes up to `nodes`. Every close conserves money.
pub(crate) fn growth(seed: u64, nodes: usize) -> Vec<Size> {
    let steps = [10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000];
    let mut world = World::new(Terms::DEFAULT, 0, 0, 16);
    steps.into_iter().filter(|step| *step <= nodes).map(|step| grow(&mut world, seed, step)).collect()
}

fn growth_rows(sizes: &[Size]) -> Vec<Row> {
    let gap = |size: &Size| size.gini_pay.abs_diff(size.gini_contribution);
    let moved = |size: &Size| size.nakamoto_pay.abs_diff(size.nakamoto_contribution);
    let last = sizes.last().map_or(0, |size| size.nodes);
    let region = format!("10 to {last} nodes, heavy-tailed contributions");
    vec![
        Row::new(
            Topic::Honest,
            "share of pay against share of contribution",
            &region,
            sizes.iter().map(|size| size.share_gap).max().unwrap_or(u64::MAX).into(),
            "parts per billion",
            Bound::AtMost(999),
        ),
        Row::new(
            Topic::Honest,
            "Gini of pay against contribution",
            &region,
            sizes.iter().map(gap).max().unwrap_or(u64::MAX).into(),
            "parts per billion",
            Bound::AtMost(1_000),
        ),
        Row::new(
            Topic::Honest,
            "Nakamoto coefficient of pay against contribution",
            &region,
            sizes.iter().map(moved).max().unwrap_or(usize::MAX) as i128,
            "nodes",
            Bound::AtMost(0),
        ),
    ]
}

fn worked_rows(region: &str, nodes: usize, epochs: u64, worked: &Worked) -> Vec<Row> {
    let seats = seats_for(nodes as u64);
    let row =
        |name, figure: u64, unit, bound| Row::new(Topic::Honest, name, region, figure.into(), unit, bound);
    vec![
        row("conserved to the grain", worked.conserved, "epochs", Bound::Exactly(epochs.into())),
        row("recomputed, every node", worked.recomputed, "epochs", Bound::Exactly(epochs.into())),
        row(
            "pay against verified share, rounding included",
            worked.deviation,
            "parts per billion",
            Bound::AtMost(999),
        ),
        row(
            "seats: churn, floor of 4, a third without votes",
            worked.in_bounds,
            "epochs",
            Bound::Exactly(epochs.into()),
        ),
        row("seats at the end", worked.seats as u64, "seats", Bound::Exactly(seats as i128)),
        row(
            "Nakamoto coefficient of leadership at the end",
            worked.leaders as u64,
            "leaders",
            Bound::AtLeast(seats as i128 / 4),
        ),
    ]
}

/// The rows of this module, and the sizes for the plots.
pub fn rows(plan: Plan) -> (Vec<Row>, Vec<Size>) {
    let sizes = growth(plan.seed, plan.nodes);
    let mut rows = growth_rows(&sizes);
    let region = format!("100 nodes, {} epochs", plan.epochs);
    rows.extend(worked_rows(&region, 100, plan.epochs, &work(plan.seed, 100, plan.epochs)));
    if plan.year {
        let region = format!("a year of {} nodes", plan.nodes);
        rows.extend(worked_rows(&region, plan.nodes, 365, &work(plan.seed, plan.nodes, 365)));
    }
    let lost = i128::try_from(pure_split(plan.seed, 1_000_000)).expect("few");
    let region = "both splits, weights below 2^60";
    rows.push(Row::new(
        Topic::Honest,
        "split over 1,000,000 weights",
        region,
        lost,
        "grains off",
        Bound::Exactly(0),
    ));
    (rows, sizes)
}

#[cfg(test)]
mod tests {
    use super::{gini, nakamoto};

    #[test]
    fn spread_of_known_worlds() {
        assert_eq!(gini(&[5, 5, 5, 5]), 0);
        assert_eq!(gini(&[0, 0, 0, 8]), 750_000_000);
        assert_eq!(nakamoto(&[1, 1, 1, 1, 1, 1]), 3);
        assert_eq!(nakamoto(&[100, 1, 1]), 1);
    }
}
