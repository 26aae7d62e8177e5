//! A condition in the log: logged when it begins and when it ends, not every time it is met.

use std::fmt::Display;

/// Occurrences before the first reminder; doubled each time.
const REMIND_FIRST: u64 = 1 << 10;

/// A condition that may hold, with its occurrences.
#[derive(Debug)]
pub(crate) struct Condition {
    what: &'static str,
    /// Occurrences since it began; `remind` is the count at which it is logged again.
    met: u64,
    remind: u64,
}

impl Condition {
    /// Creates the condition; `what` describes it while it holds.
    pub(crate) const fn new(what: &'static str) -> Self {
        Self { what, met: 0, remind: REMIND_FIRST }
    }

    /// Notes that it holds. Returns true if that was logged: when it begins, then ever more rarely.
    pub(crate) fn holds(&mut self, why: &dyn Display) -> bool {
        self.met = self.met.saturating_add(1);
        let begins = self.met == 1;
        let logs = begins || self.met >= self.remind;
        if begins {
            tracing::warn!(%why, "{}; it is tried again until it works", self.what);
        } else if logs {
            self.remind = self.remind.saturating_mul(2);
            tracing::warn!(%why, tries = self.met, "{}, still", self.what);
        }
        logs
    }

    /// True from its first occurrence until its end.
    pub(crate) const fn is_held(&self) -> bool {
        self.met > 0
    }

    /// Notes that it holds no more. Returns true if that was logged: if it held before.
    pub(crate) fn ended(&mut self) -> bool {
        let (held, tries) = (self.met > 0, self.met);
        (self.met, self.remind) = (0, REMIND_FIRST);
        if held {
            tracing::info!(tries, "over: {}", self.what);
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_logged_when_it_begins_and_when_it_ends() {
        let mut condition = Condition::new("nothing works");
        assert!(!condition.ended(), "it never held");
        assert!(condition.holds(&"a reason"));
        // It holds for an hour, met several times a second.
        let logged = (0..4 * 3_600).filter(|_| condition.holds(&"a reason")).count();
        assert!(logged <= 4, "{logged} lines");
        assert!(condition.ended() && !condition.ended());
        assert!(condition.holds(&"again"), "it begins again");
    }
}
