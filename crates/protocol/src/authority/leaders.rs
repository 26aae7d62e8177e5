//! The seats that order the blocks of the coming terms. A seat that signed against itself leads no more, and
//! holds no share of the network's key once enough others do.
//!
//! ```text
//!   term t                            t + 1                 t + 2               t + 3
//!   first half | second half
//!   jailed here, or before ---------> leads nothing,        is dealt no share,
//!                                     still votes           still votes ------> votes no more
//! ```
//!
//! A share is dealt during one term and used in the next, among the seats that the term before named. That is
//! why leading ends one term after the proof, and voting three.
//!
//! Guarantees: the block of [`decided_at`] fixes the decision of a term. Every later state gives the same
//! answer, because a seat is jailed once and forever. Tests: `what_comes_later_changes_nothing`.

use crate::number::index;
use crate::{
    limits::{Parameters, SEATS_MIN},
    record::Seat,
};
use alloc::vec::Vec;

/// Height of the block whose state decides the leaders of the term after `term` and the holders of shares in
/// the one after that: the last block of the term's first half (AU-9). The engine reads it in the second
/// half.
pub const fn decided_at(parameters: &Parameters, term: u64) -> u64 {
    let blocks = parameters.term_blocks();
    term.saturating_mul(blocks).saturating_add(blocks / 2).saturating_sub(1)
}

/// The seats that are dealt a share, in order of their indices: those that are not jailed. If these are fewer
/// than four, jailed ones are added, lowest index first, until they are four or all (AU-10).
///
/// Guarantees: at least `min(4, seats)`; no jailed seat while four others are there. Tests:
/// `the_jailed_play_only_where_four_others_do_not`.
pub fn players(jailed: &[bool]) -> Vec<bool> {
    let free = jailed.iter().filter(|jailed| !**jailed).count();
    let mut short = index(SEATS_MIN).saturating_sub(free);
    let plays = |jailed: &bool| {
        let fills = *jailed && short > 0;
        short = short.saturating_sub(fills.into());
        !jailed || fills
    };
    jailed.iter().map(plays).collect()
}

impl Seat {
    /// Returns true if a fault of the seat was proved by the block at `height` or before.
    pub fn jailed_by(&self, height: u64) -> bool {
        self.jailed.is_some_and(|proved| proved <= height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Amount;

    #[test]
    fn the_jailed_play_only_where_four_others_do_not() {
        // One seat per column: x is jailed, P gets a share.
        let cases = [
            ("....", "PPPP"),
            ("x...", "PPPP"),
            ("xxxx", "PPPP"),
            (".....", "PPPPP"),
            ("..x..", "PP.PP"),
            ("x..x.", "PPP.P"),
            ("xxxxx", "PPPP."),
            (".......", "PPPPPPP"),
            ("x.....x", ".PPPPP."),
            (".x.x.x.", "P.P.P.P"),
            ("xxx.xxx", "PPPP..."),
            ("xxxxxx.", "PPP...P"),
            ("", ""),
            ("x", "P"),
            (".xx", "PPP"),
        ];
        for (seats, expected) in cases {
            let jailed: Vec<bool> = seats.bytes().map(|seat| seat == b'x').collect();
            let plays: Vec<u8> =
                players(&jailed).into_iter().map(|plays| if plays { b'P' } else { b'.' }).collect();
            assert_eq!(core::str::from_utf8(&plays), Ok(expected), "{seats}");
        }
    }

    #[test]
    fn what_comes_later_changes_nothing() {
        let p = Parameters::LOCAL;
        assert_eq!([0, 1, 2].map(|term| decided_at(&p, term)), [19, 59, 99]);
        let seat = |jailed| Seat { jailed, ..Seat::new(0, Amount::ZERO) };
        let cases = [(None, false, false), (Some(59), true, true), (Some(60), false, true)];
        for (jailed, first, second) in cases {
            let by = [1, 2].map(|term| seat(jailed).jailed_by(decided_at(&p, term)));
            assert_eq!(by, [first, second], "{jailed:?}");
        }
    }
}
