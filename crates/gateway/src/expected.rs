//! Leaves of puts under way that have no room yet: what agreements are opened for.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// All that is expected.
#[derive(Clone, Debug, Default)]
pub struct Expected(Arc<AtomicU64>);

impl Expected {
    /// `leaves` more are on their way, until they are [`Coming::placed`] or given up.
    pub fn more(&self, leaves: u64) -> Coming {
        // Bounded: each put adds less than 2^53, and puts are few.
        self.0.fetch_add(leaves, Ordering::AcqRel);
        Coming { all: self.clone(), left: AtomicU64::new(leaves) }
    }

    /// Leaves on their way.
    pub fn leaves(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// One put's leaves; what is left when this is dropped does not come.
#[derive(Debug)]
pub struct Coming {
    all: Expected,
    left: AtomicU64,
}

impl Coming {
    /// `leaves` of them have their room.
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
