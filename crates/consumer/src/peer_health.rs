//! Decides for how long a provider that leaves offers unanswered is left out of this account's placement.
//!
//! ```text
//!   offer unanswered, 1, 2 ─► 3: left out of placement for an epoch
//!                                 └─ one more afterwards: for 2, 4 .. 64 epochs
//!   any answer to an offer, a refusal too ─► forgiven
//! ```
//!
//! A consumer cannot prove to others that an offer was not answered, so this stays in its own memory and
//! does not reach the ledger (docs/decisions/silence-cuts-no-capacity.md). Time is the ledger's height.
//!
//! Invariants
//! 1. Offers that were under way together count once: one stall is no habit.
//! 2. No provider is left out for longer than [`EPOCHS_MAX`] epochs before it gets an offer again.
//! 3. One answer forgives all unanswered offers, also those under way with it.

/// Number of unanswered offers in a row after which a provider is left out.
pub(crate) const OFFERS: u32 = 3;
/// Maximum of epochs for which a provider is left out at a time.
pub(crate) const EPOCHS_MAX: u64 = 64;

/// The record of the offers that one provider left unanswered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerHealth {
    /// Number of unanswered offers in a row.
    unanswered: u32,
    /// Height at which an offer was last counted, or an answer forgave all.
    judged: Option<u64>,
    /// Height from which the provider is offered shards again.
    until: u64,
}

impl PeerHealth {
    /// Counts an offer that was made at the height `offered` and given up at `height` without an answer.
    pub(crate) fn missed(&mut self, offered: u64, height: u64, epoch_blocks: u64) {
        if !cfg!(planted = "one-stall-many") && self.judged.is_some_and(|judged| offered <= judged) {
            return;
        }
        self.judged = Some(height);
        self.unanswered = self.unanswered.saturating_add(1);
        if let Some(times) = self.unanswered.checked_sub(OFFERS) {
            let most = if cfg!(planted = "for-ever") { u64::MAX } else { EPOCHS_MAX };
            let epochs = 1u64.checked_shl(times).unwrap_or(most).min(most);
            self.until = height.saturating_add(epochs.saturating_mul(epoch_blocks));
        }
    }

    /// Forgives all unanswered offers, since the provider answered one at `height`, if only to refuse it.
    pub(crate) const fn answered(&mut self, height: u64) {
        if cfg!(planted = "slow-is-lost") {
            return;
        }
        *self = Self { unanswered: 0, judged: Some(height), until: 0 };
    }

    /// Number of offers in a row that the provider left unanswered.
    pub(crate) const fn unanswered(&self) -> u32 {
        self.unanswered
    }

    /// Number of blocks after `height` for which the provider is still left out of placement.
    pub(crate) const fn left_out(&self, height: u64) -> u64 {
        self.until.saturating_sub(height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: u64 = 40;

    enum Does {
        /// Leaves an offer of the first height unanswered up to the second.
        Misses(u64, u64),
        Answers(u64),
    }
    use Does::{Answers, Misses};

    #[test]
    fn three_in_a_row_leave_it_out_and_an_answer_forgives() {
        for (history, unanswered, until) in [
            (vec![], 0, 0),
            (vec![Misses(0, 80), Misses(81, 161)], 2, 0),
            (vec![Misses(0, 80), Misses(81, 161), Misses(162, 242)], 3, 242 + EPOCH),
            // Offers that were under way together count once.
            (vec![Misses(0, 80), Misses(1, 81), Misses(80, 160)], 1, 0),
            (vec![Misses(0, 80), Misses(81, 161), Answers(170), Misses(171, 251)], 1, 0),
            // An answer also forgives an offer that was under way with it.
            (vec![Misses(0, 80), Answers(90), Misses(85, 165)], 0, 0),
            (vec![Misses(0, 8), Misses(9, 18), Misses(19, 28), Misses(100, 120)], 4, 120 + 2 * EPOCH),
            (vec![Misses(0, 8), Misses(9, 18), Misses(19, 28), Answers(100)], 0, 0),
        ] {
            let mut peer_health = PeerHealth::default();
            for step in history {
                match step {
                    Misses(offered, height) => peer_health.missed(offered, height, EPOCH),
                    Answers(height) => peer_health.answered(height),
                }
            }
            assert_eq!((peer_health.unanswered(), peer_health.left_out(0)), (unanswered, until));
            assert_eq!(peer_health.left_out(until), 0, "offered again from then on");
        }
    }

    #[test]
    fn the_time_doubles_up_to_its_bound() {
        let (mut peer_health, mut height) = (PeerHealth::default(), 0);
        let mut epochs = Vec::new();
        for _ in 0..100 {
            peer_health.missed(height + 1, height + 2, EPOCH);
            height += 2;
            epochs.push(peer_health.left_out(height) / EPOCH);
            height += peer_health.left_out(height);
        }
        assert_eq!(epochs[..10], [0, 0, 1, 2, 4, 8, 16, 32, 64, 64]);
        assert_eq!(epochs[99], EPOCHS_MAX);
    }
}
