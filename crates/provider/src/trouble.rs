//! A condition in the log: told when it begins and when it ends, not every time it is met.

use std::fmt::Display;

/// Times that a condition is met between two reminders: doubled each time.
const REMIND_FIRST: u64 = 1 << 10;

/// A condition that may hold.
#[derive(Debug)]
pub(crate) struct Trouble {
    what: &'static str,
    /// Times that it was met since it began, and the count at which it is told again.
    met: u64,
    remind: u64,
}

impl Trouble {
    /// What is the case while it holds.
    pub(crate) const fn new(what: &'static str) -> Self {
        Self { what, met: 0, remind: REMIND_FIRST }
    }

    /// It holds now. Says whether that was told: when it begins, then ever more seldom.
    pub(crate) fn holds(&mut self, why: &dyn Display) -> bool {
        self.met = self.met.saturating_add(1);
        let begins = self.met == 1;
        let tells = begins || self.met >= self.remind;
        if begins {
            tracing::warn!(%why, "{}; it is tried again until it works", self.what);
        } else if tells {
            self.remind = self.remind.saturating_mul(2);
            tracing::warn!(%why, tries = self.met, "{}, still", self.what);
        }
        tells
    }

    /// It holds no more. Says whether that was told: if it held before.
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
    fn a_condition_is_told_when_it_begins_and_when_it_ends() {
        let mut trouble = Trouble::new("nothing works");
        assert!(!trouble.ended(), "it never held");
        assert!(trouble.holds(&"a reason"));
        // An hour of it, several times a second.
        let told = (0..4 * 3_600).filter(|_| trouble.holds(&"a reason")).count();
        assert!(told <= 4, "{told} lines");
        assert!(trouble.ended() && !trouble.ended());
        assert!(trouble.holds(&"again"), "it begins again");
    }
}
