//! Leaves of running puts that are not placed yet: the demand for which agreements are opened.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// The number of unplaced leaves over all running puts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expected(Arc<AtomicU64>);

impl Expected {
    /// Begins a put, of which no leaves are expected yet.
    pub(crate) fn begin(&self) -> Coming {
        Coming { all: self.clone(), total: AtomicU64::new(0), left: AtomicU64::new(0) }
    }

    /// Leaves that all puts still have to place.
    pub(crate) fn leaves(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// One put's unplaced leaves. Dropping this removes them from the demand.
#[derive(Debug)]
pub struct Coming {
    all: Expected,
    /// Leaves that were expected so far, with those that are placed.
    total: AtomicU64,
    left: AtomicU64,
}

impl Coming {
    /// Raises the leaves that are expected of the put to `total`, with those that are placed already, until they are
    /// [`Self::placed`] or dropped. Returns true if it is the first time, or twice as much as when it was true last.
    pub(crate) fn up_to(&self, total: u64) -> bool {
        let before = self.total.fetch_max(total, Ordering::AcqRel);
        let more = total.saturating_sub(before);
        // Bounded: a put is less than 2^53 leaves, and puts are few.
        self.left.fetch_add(more, Ordering::AcqRel);
        self.all.0.fetch_add(more, Ordering::AcqRel);
        more > 0 && before.checked_ilog2() < total.checked_ilog2()
    }

    /// Removes `leaves` that found room from the demand.
    pub fn placed(&self, leaves: u64) {
        let take = |left: u64| Some(left.saturating_sub(leaves));
        let before = self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        let placed = before.unwrap_or_default().min(leaves);
        self.all.0.fetch_sub(placed, Ordering::AcqRel);
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.placed(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_placed_or_given_up_is_expected_no_more() {
        let all = Expected::default();
        let (first, second) = (all.begin(), all.begin());
        assert!(first.up_to(60) && second.up_to(7) && first.up_to(100) && !first.up_to(100));
        assert!(!first.up_to(99) && !second.up_to(7));
        assert_eq!(all.leaves(), 107);
        first.placed(60);
        assert_eq!(all.leaves(), 47);
        first.placed(60);
        assert_eq!(all.leaves(), 7, "no more than it announced");
        drop(first);
        assert_eq!(all.leaves(), 7);
        drop(second);
        assert_eq!(all.leaves(), 0);
    }
}
