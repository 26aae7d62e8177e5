//! Fenwick trees over records: the nodes that an index touches, and sums from those nodes.
//!
//! The ledger keeps two kinds of such trees, one record per node: the fees of providers by index and, per
//! provider, `rate x leaves` by end epoch and slot. A draw hits an index in proportion to its paid weight.
//! Changing or checking one index reads at most a node for each level, however many members there are.
//!
//! ```text
//!   node n (counted from 1) holds items [n - lowbit(n), n)
//!   prefix(i) = items 0..i  = nodes i, i - lowbit(i), ..         prefix_path
//!   item i is part of         nodes i+1, +lowbit, .. <= capacity  update_path
//!
//!   slot tree in epoch d, a ring:  | ended .. | d+1 .. lives .. d+span | nothing ends so late |
//!                                             first                    last          window
//! ```
//!
//! Invariants
//! 1. `prefix(i)` is the sum of the items below `i`; a draw `x` hits `i` if `prefix(i) <= x < prefix(i + 1)`.
//! 2. A path has at most [`PATH_MAX`] nodes.
//! 3. An agreement that ends in the `span` epochs after `d` lies in the [`window`] of `d`; one that ended
//!    within the last `ENDS_RING - span` epochs does not (RD-9, RD-12).
//!
//! Source: P. Fenwick, A new data structure for cumulative frequency tables, 1994.

use crate::limits::{ENDS_RING, SLOTS_MAX};
use crate::number::{saturate_u32, wide};
use alloc::vec::Vec;

/// Nodes of the longest path, in a tree of 2^30 places.
pub const PATH_MAX: usize = 31;

/// A slot's place in its provider's tree, from its end epoch and number: slots with the same end are adjacent
/// (RD-12).
pub const fn place(end_epoch: u64, slot: u32) -> u32 {
    saturate_u32(end_epoch % wide(ENDS_RING)) * SLOTS_MAX + slot % SLOTS_MAX
}

/// The number of the slot at a place.
pub const fn slot_at(place: u32) -> u32 {
    place % SLOTS_MAX
}

/// The places that live in `epoch`, if no agreement ends more than `span` epochs later (RD-12): from the
/// first up to, not including, the last, around the ring.
pub const fn window(epoch: u64, span: u64) -> (u32, u32) {
    let most = wide(ENDS_RING) - 1;
    let span = if span < most { span } else { most };
    let first = epoch.wrapping_add(1);
    (place(first, 0), place(first.wrapping_add(span), 0))
}

const fn lowbit(node: u32) -> u32 {
    node & node.wrapping_neg()
}

/// The nodes whose sums hold item `index` (below `capacity`), smallest first.
pub fn update_path(index: u32, capacity: u32) -> Vec<u32> {
    let start = index.checked_add(1).filter(|node| *node <= capacity);
    core::iter::successors(start, |node| node.checked_add(lowbit(*node)).filter(|next| *next <= capacity))
        .collect()
}

/// The nodes whose sums add up to the items below `index`, largest first.
pub fn prefix_path(index: u32) -> Vec<u32> {
    core::iter::successors((index > 0).then_some(index), |node| {
        let next = node - lowbit(*node);
        (next > 0).then_some(next)
    })
    .collect()
}

/// The sum of the items below `index`; `node(n)` gives the sum at node `n`.
///
/// # Errors
/// The errors of `node`; `overflow` if the sum exceeds 128 bits.
pub fn prefix<E>(index: u32, overflow: E, mut node: impl FnMut(u32) -> Result<u128, E>) -> Result<u128, E> {
    let mut sum = 0u128;
    for place in prefix_path(index) {
        sum = match sum.checked_add(node(place)?) {
            Some(sum) => sum,
            None => return Err(overflow),
        };
    }
    Ok(sum)
}

/// A search for the item that holds `x`, from the widest node down: give the sum of [`Self::node`] to
/// [`Self::step`] until the former is `None`; then [`Self::index`] is the item.
#[derive(Clone, Copy, Debug)]
pub struct Descent {
    rest: u128,
    position: u32,
    width: u32,
    items: u32,
}

impl Descent {
    /// Starts a search for `x`, which is below the sum of all items, in a tree whose items from `items` on
    /// are zero.
    pub const fn new(x: u128, items: u32) -> Self {
        let width = if items == 0 { 0 } else { 1 << items.ilog2() };
        Self { rest: x, position: 0, width, items }.skip()
    }

    const fn skip(mut self) -> Self {
        while self.width > 0 && self.position + self.width > self.items {
            self.width /= 2;
        }
        self
    }

    /// The node whose sum is needed next.
    pub const fn node(&self) -> Option<u32> {
        if self.width == 0 { None } else { Some(self.position + self.width) }
    }

    /// Goes one level down; `sum` is the sum at [`Self::node`].
    pub const fn step(mut self, sum: u128) -> Self {
        if sum <= self.rest {
            self.rest -= sum;
            self.position += self.width;
        }
        self.width /= 2;
        self.skip()
    }

    /// The item found, once [`Self::node`] is `None`.
    pub const fn index(&self) -> u32 {
        self.position
    }

    /// The offset of `x` within the item, once [`Self::node`] is `None`.
    pub const fn rest(&self) -> u128 {
        self.rest
    }

    /// The nodes that the next `levels` steps may need: at most `2^levels - 1`.
    pub fn ahead(&self, levels: u32) -> Vec<u32> {
        let mut nodes = Vec::new();
        let mut front = alloc::vec![*self];
        for _ in 0..levels {
            let mut next = Vec::new();
            for search in front {
                let Some(node) = search.node() else { continue };
                nodes.push(node);
                let left = Self { width: search.width / 2, ..search }.skip();
                let right = Self { position: node, width: search.width / 2, ..search }.skip();
                next.extend([left, right]);
            }
            front = next;
        }
        nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PLACES_MAX;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    fn tree(items: &[u64], capacity: u32) -> BTreeMap<u32, u128> {
        let mut nodes = BTreeMap::new();
        for (index, item) in items.iter().enumerate() {
            for node in update_path(index.try_into().unwrap(), capacity) {
                *nodes.entry(node).or_insert(0) += u128::from(*item);
            }
        }
        nodes
    }

    fn read(nodes: &BTreeMap<u32, u128>, node: u32) -> u128 {
        nodes.get(&node).copied().unwrap_or(0)
    }

    #[test]
    fn paths_are_bounded_and_stay_inside() {
        let capacity = 1 << 20;
        for index in [0, 1, 2, 3, 7, 8, 1 << 19, (1 << 20) - 2, (1 << 20) - 1] {
            let update = update_path(index, capacity);
            assert!(update.len() <= PATH_MAX && update.iter().all(|n| *n >= 1 && *n <= capacity));
            assert!(prefix_path(index + 1).len() <= PATH_MAX);
        }
        for place in [place(0, 0), place(1_023, 0), place(700, 7), PLACES_MAX - 1] {
            let update = update_path(place, PLACES_MAX);
            assert!(update.len() <= PATH_MAX && update.iter().all(|n| *n >= 1 && *n <= PLACES_MAX));
            assert!(prefix_path(place + 1).len() <= PATH_MAX);
        }
        assert!(update_path(capacity, capacity).is_empty());
        assert!(update_path(u32::MAX, u32::MAX).is_empty());
        assert!(prefix_path(0).is_empty());
    }

    #[test]
    fn a_window_begins_after_its_epoch_and_holds_as_many_ends_as_it_spans() {
        let ends = |first: u32, last: u32| {
            (first / SLOTS_MAX, last / SLOTS_MAX, first % SLOTS_MAX, last % SLOTS_MAX)
        };
        for (epoch, first, last) in
            [(0, 1, 721), (302, 303, 1_023), (303, 304, 0), (1_023, 0, 720), (5_000, 905, 601)]
        {
            let (from, to) = window(epoch, 720);
            assert_eq!(ends(from, to), (first, last, 0, 0), "epoch {epoch}");
            // At most ten nodes each: the lower 20 bits of the places are zero.
            assert!(prefix_path(from).len() <= 10 && prefix_path(to).len() <= 10);
        }
        assert_eq!(window(u64::MAX, u64::MAX), window(1_023, 1_023), "and no epoch of the wire overflows");
        assert_eq!(slot_at(place(u64::MAX, 77)), 77);
    }

    proptest! {
        #[test]
        fn prefixes_are_sums_and_descent_finds_the_item(items in prop::collection::vec(0u64..5, 1..70), pick in any::<u64>()) {
            let nodes = tree(&items, 1 << 20);
            let mut sum = 0u128;
            for index in 0..=items.len() {
                let got = prefix::<()>(index.try_into().unwrap(), (), |n| Ok(read(&nodes, n)));
                prop_assert_eq!(got, Ok(sum));
                sum += items.get(index).copied().map_or(0, u128::from);
            }
            prop_assume!(sum > 0);
            let x = u128::from(pick) % sum;
            let count = items.len().try_into().unwrap();
            let mut search = Descent::new(x, count);
            while let Some(node) = search.node() {
                prop_assert!(search.ahead(3).contains(&node));
                search = search.step(read(&nodes, node));
            }
            let below: u128 = items[..search.index() as usize].iter().map(|i| u128::from(*i)).sum();
            prop_assert_eq!(below + search.rest(), x);
            prop_assert!(search.rest() < u128::from(items[search.index() as usize]));
        }

        #[test]
        fn ahead_names_all_that_is_asked(items in 1u32..5000, x in any::<u64>(), turns in prop::collection::vec(any::<bool>(), 22)) {
            let mut search = Descent::new(u128::from(x), items);
            let named = search.ahead(5);
            prop_assert!(named.len() < 32);
            for turn in turns.into_iter().take(5) {
                let Some(node) = search.node() else { break };
                prop_assert!(named.contains(&node) && node <= items);
                search = search.step(if turn { 0 } else { u128::MAX });
            }
        }
    }
}
