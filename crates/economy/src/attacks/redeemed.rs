//! Attacks on vouchers, on the ledger itself: use that its consumer never pays, and audits that were
//! never read.

use crate::{
    audit::Answers,
    ledger::{Bench, signed},
    row::{Row, Runs},
};
use posync_protocol::{Body, amount::UNIT, record::Agreement};

/// Bytes that a consumer takes and signs for in a block.
const PER_BLOCK: u64 = 1 << 25;
/// Epoch in which the consumer acts.
const ACTS: u64 = 3;
/// Epoch by which everything is over.
const OVER: u64 = 10;

/// How a consumer tries to void what it signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Closes alone.
    Close,
    /// Replaces its session key, and again as soon as it may.
    Rotate,
    /// Replaces its key, then closes.
    RotateClose,
    /// Has the agreement end.
    End,
}

const WAYS: [Way; 4] = [Way::Close, Way::Rotate, Way::RotateClose, Way::End];

/// When the provider redeems: in every `every`-th epoch from `phase` on, in block `block` of it.
#[derive(Clone, Copy, Debug)]
struct Redeems {
    every: u64,
    phase: u64,
    block: u64,
}

/// Profit of a consumer that takes all it can, signs for it, and acts in block `at` of its epoch: the
/// worth of what it took, less all that it has less in the end.
fn voided(way: Way, at: u64, redeems: Redeems, window: u64) -> i128 {
    let mut bench = Bench::new(1, &["x", "p"]);
    bench.stage.world.parameters.redemption_epochs = window;
    bench.holder("p", Answers::Always);
    bench.play("p register");
    let before = bench.fortune(&["x"]);
    let end = if way == Way::End { ACTS + 1 } else { 40 };
    bench.play(&format!("x open p quota=0 quota_egress=64000000000 quota_gas=0 rate=4000000000 reserve=1000s end={end}"));
    let blocks = bench.world().parameters.epoch_blocks();
    let stops = if way == Way::End { (ACTS + 1) * blocks } else { ACTS * blocks + at };
    let opened = bench.world().height;
    let taken = |height: u64| (height.min(stops) - opened) * PER_BLOCK;
    let (mut acted, mut redeemed) = (0, 0);
    while bench.world().epoch() < OVER {
        let height = bench.world().height + 1;
        let (epoch, block) = (height / blocks, height % blocks);
        if epoch > redeemed && epoch % redeems.every == redeems.phase && block >= redeems.block {
            redeemed = epoch;
            bench.attempt(&format!("p redeem p/0 egress={}", taken(height)));
        } else if let Some(line) = way.line(acted).filter(|_| height >= stops + acted / 2 * 2 * blocks) {
            acted += 1;
            bench.attempt(line);
        } else {
            bench.block(&[]);
        }
    }
    let taken = taken(u64::MAX);
    finish(&mut bench);
    let value = u128::from(taken) * bench.world().parameters.price_egress / UNIT;
    signed(value) - (before - bench.fortune(&["x"]))
}

impl Way {
    /// What the consumer sends, one after the other: two at once, the third when the first key may no
    /// longer redeem.
    fn line(self, place: u64) -> Option<&'static str> {
        let lines: &[&str] = match self {
            Self::Close => &["x closealone p/0"],
            Self::Rotate => &["x rotate p/0 second", "x rotate p/0 third", "x rotate p/0 third"],
            Self::RotateClose => &["x rotate p/0 second", "x closealone p/0"],
            Self::End => &[],
        };
        lines.get(usize::try_from(place).ok()?).copied()
    }
}

/// Removes the agreement, so that its money is the consumer's again.
fn finish(bench: &mut Bench) {
    let keeper = &bench.holders["p"].keeper;
    let Some(Agreement { .. }) = keeper.agreement(bench.world(), 0) else { return };
    let settle = keeper.settle(bench.world(), &[0]);
    let operation = bench.stage.world.sign("x", Body::Settle(settle));
    if bench.block(&[operation]).is_empty() {
        bench.play("x close p/0 second=p");
    }
}

/// The best of [`voided`] against a provider that redeems in every `every`-th epoch.
fn voided_best(every: u64, window: u64) -> i128 {
    let last = Bench::new(1, &["x"]).world().parameters.epoch_blocks() - 1;
    let redemptions = (0..every).flat_map(|phase| [0, last].map(|block| Redeems { every, phase, block }));
    let profits = redemptions.flat_map(|redeems| {
        WAYS.into_iter().flat_map(move |way| [0, 1, last].map(|at| voided(way, at, redeems, window)))
    });
    profits.max().expect("some plans")
}

/// The rows of this file.
pub fn rows() -> Vec<Row> {
    let rows = [
        Row::attack(
            "A25 close or rotate before redemption",
            "closed, rotated, both, or ended, at any time; redeemed in every epoch",
            voided_best(1, 2),
        ),
        Row::attack("A25 two", "x", voided_best(2, 2)),
        Row::mutant("mutant: no window to redeem", "A25", voided_best(1, 0)),
    ];
    rows.map(|row| row.runs(Runs::Ledger)).into()
}

/// Timings.
pub fn probe() {
    for block in [0, 39] {
        for way in WAYS {
            for at in [0, 1, 39] {
                println!("{way:?} at {at} redeemed at {block}: {}", voided(way, at, Redeems { every: 1, phase: 0, block }, 2));
            }
        }
    }
}
