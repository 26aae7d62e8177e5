//! Full blocks that keep everyone else out: the burn they cost when the base fee follows fullness.

use crate::{
    ledger::{Bench, key, signed},
    row::{Bound, Row, Runs, Topic},
};
use posync_protocol::{
    Body, Bounded, Code, Operation, Record,
    amount::{ONE, SYNC, mul_div},
    ledger::{self, Size},
    limits::{PAID_LANE_BYTES, PAID_LANE_KEYS, Parameters},
    operation::{Redeem, Redemption},
    record::System,
};
use std::sync::OnceLock;

/// Bytes of a block's paid lane.
const LANE: u128 = PAID_LANE_BYTES as u128;

fn floor() -> u128 {
    Parameters::PRODUCTION.base_fee.grains()
}

/// The base fee after a block of fullness `full` (parts per billion), computed by the ledger.
fn next(base: u128, full: u64) -> u128 {
    let bytes = u128::from(full.min(ONE)) * LANE / u128::from(ONE);
    let paid = Size { bytes: u64::try_from(bytes).expect("a lane"), records: 0 };
    let base = u64::try_from(base).expect("below its bound");
    ledger::next_base_fee(base, ledger::floor(&Parameters::PRODUCTION), paid).into()
}

/// The resource that exhausts a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filler {
    /// Operations with as many bytes as allowed, all on one record.
    Bytes,
    /// Operations that name as many records as allowed.
    Records,
}

/// Burn of one sender that fills the paid lane of `blocks` blocks on the ledger, in SYNC. `rests`
/// selects the mutant in which the base fee stays at its floor.
fn filled(filler: Filler, blocks: u64, rests: bool) -> i128 {
    let mut bench = Bench::new(1, &["c", "x"]);
    bench.play("x register\n c open x quota=0 reserve=0");
    let before = bench.fortune(&["x"]);
    for _ in 0..blocks {
        let operations = full_block(&bench, filler);
        let receipts = bench.forge(&operations);
        assert!(
            receipts.len() == operations.len() && !receipts.contains(&Code::Done),
            "all of them are charged"
        );
        if rests {
            let world = &mut bench.stage.world;
            let base_fee = ledger::floor(&world.parameters);
            let system = System { base_fee, ..world.system() };
            world.state.insert(System::key(), system.to_slot());
        }
    }
    (before - bench.fortune(&["x"])) / signed(SYNC)
}

/// Operations of one sender after which no other fits. Each is refused and charged.
fn full_block(bench: &Bench, filler: Filler) -> Vec<Operation> {
    let context = bench.world().context(bench.world().height + 1);
    let largest = redeem(bench, filler, VOUCHERS);
    let size = Size::of(&context, &largest);
    let fit = (PAID_LANE_BYTES as u64 / size.bytes).min(PAID_LANE_KEYS as u64 / size.records);
    // One more operation fills the bytes that are left.
    let left = PAID_LANE_BYTES as u64 - fit * size.bytes;
    let each = (size.bytes - Size::of(&context, &redeem(bench, filler, 0)).bytes) / VOUCHERS;
    let rest = redeem(bench, filler, (left / each).saturating_sub(1).min(VOUCHERS));
    let all = (0..fit).map(|_| largest.clone()).chain([rest]);
    let numbered = (0..).zip(all).map(|(place, one)| {
        let Operation { nonce, max_fee, expires, body, .. } = one;
        Operation::signed(&key("x"), &context.chain, nonce + place, max_fee, expires, body)
    });
    numbered.collect()
}

/// Number of vouchers in the largest operation.
const VOUCHERS: u64 = 160;

/// A redemption of `count` invalid vouchers.
fn redeem(bench: &Bench, filler: Filler, count: u64) -> Operation {
    let voucher = bench.stage.redemption_of(bench.stage.id("x/0"), "nobody", 1, 0);
    let of = |place: u64| {
        let mut other: Redemption = voucher;
        other.voucher.agreement.slot += if filler == Filler::Records { place as u32 } else { 0 };
        other
    };
    let vouchers = Bounded::new((0..count).map(of).collect()).expect("as many as may stand");
    bench.world().sign("x", Body::Redeem(Redeem { vouchers }))
}

/// Burn of the cheapest filler, in SYNC.
fn filled_least(blocks: u64, rests: bool) -> i128 {
    [Filler::Bytes, Filler::Records]
        .map(|filler| filled(filler, blocks, rests))
        .into_iter()
        .min()
        .expect("two")
}

/// The base fee after `blocks` blocks that are full to the last byte, and the grains they burned.
fn fill(blocks: u64) -> (u128, u128) {
    (0..blocks).fold((floor(), 0), |(base, burned), _| (next(base, ONE), burned + base * LANE))
}

/// Number of empty blocks that bring the base fee back to its floor after `blocks` full ones.
fn recovery(blocks: u64) -> i128 {
    let (mut base, mut empty) = (fill(blocks).0, 0);
    while base > floor() {
        base = next(base, 0);
        empty += 1;
    }
    empty
}

/// The fullness that consumers want at `base` if they want `demand` parts per billion of a block at
/// the floor. The elasticity is in halves.
fn wanted(demand: u64, base: u128, halves: u32) -> u64 {
    let root = |square: u128| square.isqrt();
    let one = u128::from(ONE);
    let ratio = floor() * one / base;
    let of = |ratio: u128| mul_div(demand.into(), ratio, one).expect("below 2^128");
    let full = match halves {
        1 => of(root(ratio * one)),
        2 => of(ratio),
        _ => of(ratio * ratio / one),
    };
    u64::try_from(full).expect("below any demand")
}

/// The last base fee under elastic demand, and the highest over the lowest of the last 200 blocks (ppm).
fn settled(demand: u64, halves: u32) -> (u128, u128) {
    let mut base = floor();
    let mut tail = Vec::new();
    for block in 0..4_000 {
        base = next(base, wanted(demand, base, halves));
        if block >= 3_800 {
            tail.push(base);
        }
    }
    let (low, high) = (tail.iter().min().expect("some"), tail.iter().max().expect("some"));
    (base, high * 1_000_000 / low)
}

fn row(topic: Topic, name: &str, region: &str, figure: i128, unit: &'static str, bound: Bound) -> Row {
    Row::new(topic, name, region, figure, unit, bound)
}

/// The rows of the ledger runs. They draw nothing, so one run serves every seed.
fn ledger_rows() -> Vec<Row> {
    static ROWS: OnceLock<Vec<Row>> = OnceLock::new();
    ROWS.get_or_init(|| {
        let out = |blocks: u64, least: i128| {
            let region = format!("{blocks} blocks filled by one sender, by bytes or by records");
            let (figure, bound) = (filled_least(blocks, false), Bound::AtLeast(least));
            row(Topic::Attack, "keeping everybody out, burned", &region, figure, "SYNC", bound)
        };
        let rests = 400 - filled_least(60, true);
        let rows = [
            out(20, 3),
            out(40, 40),
            out(60, 400),
            row(
                Topic::Mutant,
                "mutant: the base fee rests",
                "60 blocks filled by one sender, what it burns below 400",
                rests,
                "SYNC",
                Bound::Positive,
            ),
        ];
        rows.map(|row| row.runs(Runs::Ledger)).into()
    })
    .clone()
}

/// The rows of this module.
pub(crate) fn rows() -> Vec<Row> {
    let mut rows = ledger_rows();
    for (blocks, empty) in [(20, 18), (40, 36), (60, 54)] {
        let region = format!("after {blocks} full blocks");
        let name = "the base fee is at its floor again";
        rows.push(row(Topic::Price, name, &region, recovery(blocks), "empty blocks", Bound::AtMost(empty)));
    }
    for (halves, elasticity) in [(1, "0.5"), (2, "1"), (4, "2")] {
        let swings = [ONE / 10 * 9, 2 * ONE].map(|demand| settled(demand, halves).1);
        let region = format!("elasticity {elasticity}, demand of 0.9 and 2 blocks at the floor");
        let swing = signed(swings.into_iter().max().expect("two"));
        let bound = Bound::AtMost(1_020_000);
        rows.push(row(Topic::Price, "the base fee settles", &region, swing, "swing, ppm", bound));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::{fill, next, recovery, settled};
    use posync_protocol::amount::{ONE, SYNC};

    #[test]
    fn the_figures_that_are_published() {
        assert_eq!([10, 20, 40, 60].map(|blocks| fill(blocks).0), [316, 1_018, 10_712, 112_929]);
        assert_eq!([20, 40, 60, 90].map(|blocks| fill(blocks).1 / SYNC), [3, 44, 473, 16_218]);
        assert_eq!([20, 40, 60].map(recovery), [18, 36, 53]);
        let at = |demand, halves| settled(demand, halves).0;
        assert_eq!([at(ONE / 10 * 9, 1), at(2 * ONE, 1)], [324, 1_600]);
        assert_eq!([at(ONE / 10 * 9, 2), at(2 * ONE, 2)], [180, 400]);
        assert_eq!([at(ONE / 10 * 9, 4), at(2 * ONE, 4)], [135, 200]);
    }

    #[test]
    fn half_full_blocks_rest_and_the_floor_holds() {
        assert_eq!(next(5_000, ONE / 2), 5_000);
        assert_eq!((next(100, 0), next(100, ONE)), (100, 112));
    }
}
