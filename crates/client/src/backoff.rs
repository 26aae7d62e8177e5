//! Pauses between attempts that fail.

use std::time::Duration;

/// Pauses that double from a first one up to a longest one, without end. A success begins anew with another
/// one.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// Pauses from `first` to `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { next: first, longest }
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.next.min(self.longest);
        self.next = pause.saturating_mul(2);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_never_end() {
        let pauses = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let seconds: Vec<u64> = pauses.take(6).map(|pause| pause.as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 5, 5, 5]);
        let mut wide = Backoff::new(Duration::MAX, Duration::MAX);
        assert_eq!(wide.nth(9), Some(Duration::MAX), "no overflow");
    }
}
