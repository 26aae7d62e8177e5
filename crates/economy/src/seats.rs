//! Seats under noise: enter at a score of 0.80 for 8 epochs, leave below 0.60 for 3.

use crate::{
    chance::Chance,
    row::{Bound, Row, Topic},
};
use posync_protocol::{amount::ONE, economics::score};

const ENTER: u64 = ONE / 5 * 4;
const LEAVE: u64 = ONE / 5 * 3;

/// Seat changes among `members` (every other one seated at first) in `epochs` epochs whose quality
/// is `centre` within `noise`.
pub fn changes(seed: u64, members: usize, epochs: u64, centre: u64, noise: u64) -> u64 {
    let mut chance = Chance::new(seed, "seats");
    let mut changes = 0;
    for member in 0..members {
        let (mut seated, mut held, mut score) = (member % 2 == 0, 0, centre);
        for _ in 0..epochs {
            score = score::update(score, Some(chance.around(centre, noise)), false);
            let (leans, needed) = if seated { (score < LEAVE, 3) } else { (score >= ENTER, 8) };
            held = if leans { held + 1 } else { 0 };
            if held == needed {
                (seated, held, changes) = (!seated, 0, changes + 1);
            }
        }
    }
    changes
}

/// The rows of this file.
pub fn rows(seed: u64) -> Vec<Row> {
    let row = |name, region, figure: u64, bound| {
        Row::new(Topic::Score, name, region, figure.into(), "seat changes", bound)
    };
    let quiet = changes(seed, 100, 1_000, ONE / 10 * 7, ONE / 20);
    let moving = changes(seed, 100, 1_000, ONE / 10 * 9, ONE / 20);
    vec![
        row("noise of 0.05 around 0.7", "100 members, 1,000 epochs", quiet, Bound::Exactly(0)),
        row("those without a seat enter at 0.9", "50 of 100 members", moving, Bound::Exactly(50)),
    ]
}
