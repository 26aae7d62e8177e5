//! The economics at scale: honest worlds, attacks, prices and scores, with asserted outcomes.
//!
//! Scenarios with many members run the rules' own integer functions (`posync_protocol::economics`,
//! `fees::split_fee`) over a model without blocks or signatures, so that a year of 10,000 nodes
//! takes minutes. Scenarios that depend on operations and their order run the ledger itself
//! (`ledger`). Each outcome says which it runs ([`row::Runs`]). Only plots use floats.
//!
//! ```text
//!   world   members, money, one close       audit   draws, four reads, pending, pay
//!   price   a class and its consumers       attacks one small scenario each, and mutants
//!   honest  proportion, conservation,       plots   CSV and SVG of the same runs
//!           growth, the year, recomputed
//!   ledger  `touches` and `execute` in memory, with the fixtures of the rules' scenario tests
//! ```
//!
//! The whole network with the real engine is `posync-sim`; why this is a crate of its own stands in
//! `docs/decisions/economics-simulated-apart.md`.

pub mod attacks;
mod audit;
pub mod chance;
pub mod honest;
mod ledger;
pub mod plots;
mod price;
mod recompute;
pub mod row;
pub mod seats;
pub mod world;

use posync_protocol::{amount::ONE, economics::price as rules};
use row::{Bound, Row, Topic};

/// The parameters of a run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Seed of every random stream.
    pub seed: u64,
    /// Number of epochs in the conservation run.
    pub epochs: u64,
    /// Number of nodes at which the growth run stops.
    pub nodes: usize,
    /// True to also run 365 epochs with `nodes` nodes.
    pub year: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self { seed: 1, epochs: 2_000, nodes: 10_000, year: false }
    }
}

/// Runs everything. Returns the rows in the order of the report, and the sizes that the growth run
/// measured.
pub fn run(plan: Plan) -> (Vec<Row>, Vec<honest::Size>) {
    let (mut rows, sizes) = honest::rows(plan);
    rows.extend(price_rows());
    rows.extend(seats::rows(plan.seed));
    rows.extend(attacks::all(plan.seed));
    (rows, sizes)
}

/// Elasticities, in hundredths, of the experiments.
pub(crate) const ELASTICITIES: [u64; 6] = [25, 50, 100, 200, 400, 800];
/// For each lag, the largest of them at which prices settle.
const SETTLES: [u64; 3] = [800, 800, 400];
/// Epochs of a price experiment; the last [`TAIL`] are measured.
const PRICE_EPOCHS: usize = 3_000;
const TAIL: usize = 200;

fn price_row(name: String, region: &str, swing: u64, bound: Bound) -> Row {
    Row::new(Topic::Price, name, region, i128::from(swing / 1_000), "swing, ppm", bound)
}

/// The asserted outcomes of the price experiments. A swing is the highest price over the lowest.
pub fn price_rows() -> Vec<Row> {
    let swing =
        |elasticity, lag, bucket| price::swing(&price::respond(elasticity, lag, bucket, PRICE_EPOCHS), TAIL);
    let worst = |lag, bucket, most: u64| {
        let stable = ELASTICITIES.into_iter().filter(|elasticity| *elasticity <= most);
        stable.map(|elasticity| swing(elasticity, lag, bucket)).max().expect("some elasticities")
    };
    let mut rows = Vec::new();
    for (lag, most) in SETTLES.into_iter().enumerate() {
        let region = format!("elasticity 0.25 to {}, demand doubles", most / 100);
        let settled = Bound::AtMost(1_001_000);
        rows.push(price_row(format!("prices settle, lag {lag}"), &region, worst(lag, true, most), settled));
        let name = format!("prices settle without bucket, lag {lag}");
        rows.push(price_row(name, &region, worst(lag, false, most), settled));
        let least = [1_800, 2_400].map(|e| swing(e, lag, false)).into_iter().min().expect("some");
        let name = format!("limit cycle without bucket, lag {lag}");
        rows.push(price_row(name, "elasticity 18 and 24", least, Bound::AtLeast(1_020_000)));
    }
    let cycle = swing(800, 2, true);
    rows.push(Row {
        topic: Topic::Published,
        ..price_row("limit cycle, lag 2".into(), "elasticity 8", cycle, Bound::AtLeast(1_020_000))
    });
    rows.extend([2, 5, 10].into_iter().flat_map(redemption_rows));
    rows.extend(sold_out_rows());
    rows
}

/// A class that is sold out while its quotas are used by three fifths. Its price must rise, or
/// everything is sold at the floor. At a target of four fifths, the target of a stock, the price
/// falls.
fn sold_out_rows() -> [Row; 2] {
    let grows = |target: u64| {
        let used = price::CAPACITY / 5 * 3;
        let fraction = rules::FRACTION_FLOW;
        let after = (0..100).fold(price::ORIGIN, |excess, _| {
            rules::excess_next(excess, used, price::CAPACITY, target, fraction)
        });
        i128::from(after) - i128::from(price::ORIGIN)
    };
    let row = |topic, name: &str, figure| {
        let region = "all room sold, quotas used by 3/5, 100 epochs";
        Row::new(topic, name, region, figure, "of excess, ppb", Bound::Positive)
    };
    [
        row(Topic::Price, "a class that is sold out grows dearer", grows(rules::TARGET_FLOW)),
        row(Topic::Mutant, "mutant: a target of 4/5", -grows(ONE / 5 * 4)),
    ]
}

/// Redeems the same use every `every` epochs and compares the prices with redemption in each epoch.
/// The mean of ten epochs and the slow price stay close; the third row shows how far a single epoch
/// is off.
fn redemption_rows(every: usize) -> [Row; 3] {
    const EPOCHS: usize = 1_000;
    let (smooth, smooth_slow) = price::redeemed_every(1, EPOCHS);
    let (lumpy, slow) = price::redeemed_every(every, EPOCHS);
    let gap = |a: &[u128], b: &[u128], span: usize| {
        let sums = a[EPOCHS / 2..].windows(span).zip(b[EPOCHS / 2..].windows(span));
        sums.map(|(a, b)| price::swing(&[a.iter().sum(), b.iter().sum()], 2)).max().expect("some epochs")
    };
    let row = |what: &str, swing, most| {
        let region = "elasticity 1, against redemption in every epoch";
        price_row(format!("redemption every {every} epochs, {what}"), region, swing, Bound::AtMost(most))
    };
    [
        row("mean of ten", gap(&smooth, &lumpy, 10), 1_050_000),
        row("slow price", gap(&smooth_slow, &slow, 1), 1_050_000),
        row("single epoch", gap(&smooth, &lumpy, 1), 1_150_000),
    ]
}
