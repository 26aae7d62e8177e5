//! Judges a provider that answers requests for a signature and does not sign. Decides only; sends nothing.
//!
//! Invariants
//! 1. Only answers count: a provider that does not answer is judged by others ([`crate::peer_health`]).
//! 2. A signature over additions alone does not forgive a refusal to sign a removal, or a provider could keep what was
//!    removed, and be paid for it, by signing all else.

/// Claims refused for good, in a row, after which the two sides disagree on the data set.
const REFUSALS: u32 = 3;

/// The answers without a signature since the provider last signed such a change.
#[derive(Debug, Default)]
pub(super) struct Reluctance {
    /// Claims in a row that it refused for good.
    refusals: u32,
    /// Heights of the first and the last answer.
    answers: Option<(u64, u64)>,
    /// True if it did not sign a removal.
    removes: bool,
}

impl Reluctance {
    /// Counts an answer without a signature at `height`, to a change that `removes` entries or does not. After
    /// `gap` blocks without an answer the count begins anew.
    pub(super) fn answered(&mut self, height: u64, gap: u64, removes: bool) {
        self.removes |= removes;
        let first = self.answers.filter(|(_, last)| height.saturating_sub(*last) <= gap);
        self.answers = Some((first.map_or(height, |(first, _)| first), height));
    }

    /// Counts a claim that was refused for good.
    pub(super) const fn refused(&mut self) {
        self.refusals = self.refusals.saturating_add(1);
    }

    /// Forgives what came before a signature over a change that `removes` entries or does not.
    pub(super) fn signed(&mut self, removes: bool) {
        if removes || !self.removes {
            *self = Self::default();
        }
    }

    /// True once provider and gateway disagree on the data set.
    pub(super) const fn disagrees(&self) -> bool {
        self.refusals >= REFUSALS
    }

    /// Number of blocks for which it has answered and not signed.
    pub(super) fn blocks(&self) -> u64 {
        self.answers.map_or(0, |(first, last)| last.saturating_sub(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    enum Does {
        /// Answers at a height, to a change that removes or does not.
        Answers(u64, bool),
        Refuses,
        Signs(bool),
    }
    use Does::{Answers, Refuses, Signs};

    #[test]
    fn only_answers_count_and_only_the_signature_that_was_missing_forgives() {
        for (what, history, disagrees, blocks) in [
            ("nothing", vec![], false, 0),
            ("busy for long", vec![Answers(10, true), Answers(15, true), Answers(30, true)], false, 20),
            ("busy, silent, busy", vec![Answers(10, true), Answers(99, true)], false, 0),
            ("refuses three times", vec![Refuses, Refuses, Refuses], true, 0),
            ("signs in between", vec![Refuses, Refuses, Signs(false), Refuses], false, 0),
            (
                "signs all but removals",
                vec![
                    Answers(1, true),
                    Refuses,
                    Signs(false),
                    Refuses,
                    Signs(false),
                    Refuses,
                    Answers(5, true),
                ],
                true,
                4,
            ),
            ("signs a removal", vec![Answers(1, true), Refuses, Signs(true), Answers(7, true)], false, 0),
            ("signs an addition again", vec![Answers(1, false), Answers(4, false), Signs(false)], false, 0),
        ] {
            let mut reluctance = Reluctance::default();
            for step in history {
                match step {
                    Answers(height, removes) => reluctance.answered(height, 20, removes),
                    Refuses => reluctance.refused(),
                    Signs(removes) => reluctance.signed(removes),
                }
            }
            assert_eq!((reluctance.disagrees(), reluctance.blocks()), (disagrees, blocks), "{what}");
        }
    }
}
