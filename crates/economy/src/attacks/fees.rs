//! Keeping everybody out of blocks: what it burns when the base fee follows how full they are.

use crate::row::{Bound, Row, Runs, Topic};
use posync_protocol::{
    amount::{ONE, SYNC, mul_div},
    limits::{BODY_BYTES_MAX, FREE_LANE_BYTES, Parameters},
};

/// Bytes of a block that paid operations may fill.
const LANE: u128 = (BODY_BYTES_MAX - FREE_LANE_BYTES) as u128;

fn floor() -> u128 {
    Parameters::PRODUCTION.base_fee.grains()
}

/// The base fee after a block of fullness `full`, parts per billion (AC-5).
fn next(base: u128, full: u64) -> u128 {
    let (half, full) = (u128::from(ONE / 2), u128::from(full.min(ONE)));
    let step = mul_div(base, full.abs_diff(half), half).expect("below 2^128") / 8;
    if full > half { base + step.max(1) } else { base.saturating_sub(step).max(floor()) }
}

/// The base fee and what was burned after `blocks` blocks that one sender fills; `moves`: whether the
/// base fee does.
fn fill(blocks: u64, moves: bool) -> (u128, u128) {
    (0..blocks).fold((floor(), 0), |(base, burned), _| {
        (if moves { next(base, ONE) } else { base }, burned + base * LANE)
    })
}

/// Empty blocks until the base fee is at its floor again, after `blocks` full ones.
fn recovery(blocks: u64) -> i128 {
    let (mut base, mut empty) = (fill(blocks, true).0, 0);
    while base > floor() {
        base = next(base, 0);
        empty += 1;
    }
    empty
}

/// The fullness that is wanted at `base` when `demand` parts per billion of a block are at the floor;
/// elasticity in halves.
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

/// Base fees of the last blocks under elastic demand: the last one, and highest over lowest.
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

fn signed(grains: u128) -> i128 {
    i128::try_from(grains).expect("below the supply")
}

/// The rows of this file.
pub fn rows() -> Vec<Row> {
    let burned = |blocks| signed(fill(blocks, true).1 / SYNC);
    let row = |topic, name: &str, region: &str, figure, unit, bound| {
        Row::new(topic, name, region, figure, unit, bound).runs(Runs::Formula)
    };
    let excluded = |blocks: u64, least| {
        let region = format!("{blocks} blocks filled by one sender");
        let bound = Bound::AtLeast(least);
        row(Topic::Attack, "keeping everybody out, burned", &region, burned(blocks), "SYNC", bound)
    };
    let mut rows = vec![excluded(20, 3), excluded(40, 40), excluded(60, 400), excluded(90, 16_000)];
    for (blocks, empty) in [(20, 18), (40, 36), (60, 54)] {
        let region = format!("after {blocks} full blocks");
        let bound = Bound::AtMost(empty);
        rows.push(row(Topic::Price, "the base fee is at its floor again", &region, recovery(blocks), "empty blocks", bound));
    }
    for halves in [1, 2, 4] {
        let swings = [ONE / 10 * 9, 2 * ONE].map(|demand| settled(demand, halves).1);
        let region = format!("elasticity {}, demand of 0.9 and 2 blocks at the floor", ["0.5", "1", "2"][halves as usize / 2]);
        let swing = signed(swings.into_iter().max().expect("two"));
        rows.push(row(Topic::Price, "the base fee settles", &region, swing, "swing, ppm", Bound::AtMost(1_020_000)));
    }
    rows.push(row(
        Topic::Mutant,
        "mutant: the base fee rests",
        "60 blocks filled by one sender, what it burns less",
        burned(60) - signed(fill(60, false).1 / SYNC),
        "SYNC",
        Bound::Positive,
    ));
    rows
}

#[cfg(test)]
mod tests {
    use super::{fill, next, recovery, settled};
    use posync_protocol::amount::{ONE, SYNC};

    #[test]
    fn the_figures_that_are_published() {
        assert_eq!([10, 20, 40, 60].map(|blocks| fill(blocks, true).0), [316, 1_018, 10_712, 112_929]);
        assert_eq!([20, 40, 60, 90].map(|blocks| fill(blocks, true).1 / SYNC), [3, 44, 473, 16_218]);
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
