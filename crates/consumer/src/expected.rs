//! Leaves of running puts that are not placed yet: the demand for which agreements are opened.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// The number of unplaced leaves over all running puts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expected(Arc<AtomicU64>);

impl Expected {
    /// Adds `leaves` to the demand, until they are [`Coming::placed`] or dropped.
    pub(crate) fn more(&self, leaves: u64) -> Coming {
        // Bounded: each put adds less than 2^53, and puts are few.
        self.0.fetch_add(leaves, Ordering::AcqRel);
        Coming { all: self.clone(), left: AtomicU64::new(leaves) }
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
    left: AtomicU64,
}

impl Coming {
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
        let (first, second) = (all.more(100), all.more(7));
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
