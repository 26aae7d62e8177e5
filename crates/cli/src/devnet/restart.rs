//! Decides when a member that ended is started again. Pure: starts no process.
//!
//! ```text
//!   ends ─► 1 s ─► ends ─► 2 s ─► ends ─► 4 s ... 60 s, 60 s, forever
//!                    └─ runs for 30 s: over, the next end starts at 1 s again
//! ```

use std::time::Duration;

/// Pause before the first start after an end.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause: after its trouble is mended, a member runs again within it.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Running time after which a member counts as well again.
const WELL_AFTER: Duration = Duration::from_secs(30);

/// The number of times that a member ended since it was last well, and since when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Restarts {
    /// Ends since the member was last well.
    ends: u32,
    /// Time of the first of these ends.
    since: Duration,
}

/// The message to report about an end: only news for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// The member was well until this end.
    Begins,
    /// The pauses are as long as they get from now on.
    Lasts,
    /// No news: the same trouble as before.
    Nothing,
}

impl Restarts {
    /// Records an end at `now`; returns the pause before the next start, and what to report.
    pub(crate) fn ended(&mut self, now: Duration) -> (Duration, News) {
        if self.ends == 0 {
            self.since = now;
        }
        let pause = Self::pause(self.ends);
        let news = match self.ends {
            0 => News::Begins,
            before if pause == PAUSE_MAX && Self::pause(before - 1) < PAUSE_MAX => News::Lasts,
            _ => News::Nothing,
        };
        self.ends = self.ends.saturating_add(1);
        (pause, news)
    }

    /// Records that the member has run for `lived` at `now`. `Some` once after it became well: the number of
    /// starts that took, and the time that it was not well.
    pub(crate) fn runs(&mut self, lived: Duration, now: Duration) -> Option<(u32, Duration)> {
        if self.ends == 0 || lived < WELL_AFTER {
            return None;
        }
        let Self { ends, since } = std::mem::take(self);
        Some((ends, now.saturating_sub(lived).saturating_sub(since)))
    }

    /// The pause after so many ends: a state that is kept as a number, where `Backoff` is one that runs on.
    fn pause(ends: u32) -> Duration {
        PAUSE_MIN.saturating_mul(2_u32.saturating_pow(ends)).min(PAUSE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn pauses_grow_to_a_bound_and_only_what_is_new_is_told() {
        let mut restarts = Restarts::default();
        let news: Vec<(u64, News)> = (0..9)
            .map(|i| {
                let (pause, news) = restarts.ended(at(i));
                (pause.as_secs(), news)
            })
            .collect();
        let nothing = News::Nothing;
        assert_eq!(news[..2], [(1, News::Begins), (2, nothing)]);
        assert_eq!(news[5..], [(32, nothing), (60, News::Lasts), (60, nothing), (60, nothing)]);
    }

    #[test]
    fn an_end_after_any_number_of_ends_is_answered() {
        let mut restarts = Restarts { ends: u32::MAX - 1, since: at(0) };
        assert_eq!(restarts.ended(at(9)), (PAUSE_MAX, News::Nothing));
        assert_eq!(restarts.ended(at(9)), (PAUSE_MAX, News::Nothing));
    }

    #[test]
    fn who_runs_for_a_while_is_well_again_and_starts_from_the_shortest_pause() {
        let mut restarts = Restarts::default();
        assert_eq!(restarts.runs(at(90), at(90)), None, "it never ended");
        restarts.ended(at(100));
        restarts.ended(at(102));
        assert_eq!(restarts.runs(at(29), at(133)), None, "not yet");
        assert_eq!(restarts.runs(at(30), at(134)), Some((2, at(4))));
        assert_eq!(restarts.runs(at(31), at(135)), None, "told once");
        assert_eq!(restarts.ended(at(200)), (PAUSE_MIN, News::Begins));
    }
}
