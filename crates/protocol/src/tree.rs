//! The Merkle-sum tree of a data set: it proves to the signed root which shard holds a leaf number.
//!
//! A data set of any size takes 32 bytes on the ledger. A draw names a leaf number; the sums on the path fix
//! its shard and leaf, so the two sides cannot disagree about places.
//!
//! ```text
//!   node = H(0x01, h_left, n_left, h_right, n_right)          sums are leaves (1 KiB chunks)
//!   leaf = H(0x00, shard's name, length), n = max(1, ceil(length / 1024))
//!   levels pair from the left, an odd node rises unchanged
//! ```
//!
//! Invariants
//! 1. The root depends only on the shards and their order, not on the history of changes.
//! 2. A path that verifies gives the exact number of leaves before the shard: the sums are part of the hashes
//!    (DS-2).
//! 3. The empty data set has a root of zeros and no leaves.

use crate::number::index;
use crate::{
    Bounded, Hash,
    bodies::SumPath,
    limits::{SHARD_BYTES_MAX, SUM_LEVELS_MAX},
    shard,
};
use alloc::vec::Vec;

const TAG: &[u8] = b"posync/sum/1";
/// The root of the empty data set.
pub const EMPTY_ROOT: Hash = [0; 32];
/// Largest number of shards in one data set.
pub const SHARDS_MAX: usize = 1 << SUM_LEVELS_MAX;

/// A node: its hash and the number of leaves below it.
type Node = (Hash, u64);

fn leaf(shard: &Hash, length: u64) -> Node {
    let mut hasher = blake3::Hasher::new();
    hasher.update(TAG).update(&[0]).update(shard).update(&length.to_be_bytes());
    (*hasher.finalize().as_bytes(), shard::leaves(length))
}

fn parent(left: &Node, right: &Node) -> Option<Node> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(TAG).update(&[1]);
    for (hash, sum) in [left, right] {
        hasher.update(hash).update(&sum.to_be_bytes());
    }
    Some((*hasher.finalize().as_bytes(), left.1.checked_add(right.1)?))
}

/// The position and the root that a path proves for a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardPlace {
    /// Number of the shard's first leaf.
    pub start: u64,
    /// Leaves of the shard.
    pub leaves: u64,
    /// Leaves of the data set.
    pub total: u64,
    /// Root of the data set.
    pub root: Hash,
}

impl SumPath {
    /// The place of a shard, and the root of its data set; `None` if the path is not well formed.
    pub fn place(&self, shard: &Hash, length: u64) -> Option<ShardPlace> {
        let (levels, lefts) = (self.siblings.len(), u64::from(self.lefts));
        (length <= SHARD_BYTES_MAX && lefts >> levels == 0).then_some(())?;
        let mut at = leaf(shard, length);
        let (leaves, mut start) = (at.1, 0u64);
        for (level, sibling) in self.siblings.iter().enumerate() {
            at = if lefts >> level & 1 == 1 {
                start = start.checked_add(sibling.1)?;
                parent(sibling, &at)?
            } else {
                parent(&at, sibling)?
            };
        }
        Some(ShardPlace { start, leaves, total: at.1, root: at.0 })
    }
}

/// A leaf of a shard, with the shard's path to the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardRead {
    /// Name of the shard: its BLAKE3 hash.
    pub shard: Hash,
    /// Length of the shard in bytes.
    pub length: u64,
    /// Number of the leaf within the shard.
    pub leaf: u64,
    /// Path from the shard to the root.
    pub position: SumPath,
}

/// The tree of a data set in memory: 40 bytes a node, two nodes a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SumTree {
    shards: Vec<(Hash, u64)>,
    levels: Vec<Vec<Node>>,
    bytes: u64,
}

impl SumTree {
    /// Builds the tree of these shards (name, length); `None` if one is too long or they are too many.
    pub fn new(shards: &[(Hash, u64)]) -> Option<Self> {
        let mut tree = Self::default();
        tree.change(&[], shards)?;
        Some(tree)
    }

    /// Removes the shards at `removes` (ascending positions; the rest keep their order), then appends `adds`.
    /// Only the paths from the first change onwards are recomputed.
    ///
    /// Returns `None`, without any change, if a position does not exist or is out of order, a shard is longer
    /// than [`SHARD_BYTES_MAX`], or more than [`SHARDS_MAX`] would remain.
    pub fn change(&mut self, removes: &[u32], adds: &[(Hash, u64)]) -> Option<()> {
        let ascending = removes.windows(2).all(|pair| pair[0] < pair[1]);
        let inside = removes.last().is_none_or(|last| index(*last) < self.shards.len());
        let fits = adds.iter().all(|(_, length)| *length <= SHARD_BYTES_MAX);
        let count = self.shards.len().checked_sub(removes.len())? + adds.len();
        (ascending && inside && fits && count <= SHARDS_MAX).then_some(())?;
        let from = removes.first().map_or(self.shards.len(), |first| index(*first));
        let mut removes = removes.iter().map(|position| index(*position)).peekable();
        let tail = self.shards.split_off(from);
        for (position, shard) in (from..).zip(tail) {
            if removes.next_if_eq(&position).is_some() {
                self.bytes -= shard.1;
            } else {
                self.shards.push(shard);
            }
        }
        self.shards.extend_from_slice(adds);
        self.bytes += adds.iter().map(|(_, length)| length).sum::<u64>();
        self.rebuild(from);
        Some(())
    }

    /// Recomputes every node that covers a position at or after `from`.
    fn rebuild(&mut self, from: usize) {
        let mut from = from;
        let mut width = self.shards.len();
        let mut level = 0;
        while width > 0 {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let (below, here) = self.levels.split_at_mut(level);
            here[0].truncate(from);
            match below.last() {
                None => {
                    here[0].extend(self.shards[from..].iter().map(|(shard, length)| leaf(shard, *length)))
                }
                Some(below) => here[0].extend(below[2 * from..].chunks(2).map(join)),
            }
            if width == 1 {
                break;
            }
            (from, width, level) = (from / 2, width.div_ceil(2), level + 1);
        }
        self.levels.truncate(if self.shards.is_empty() { 0 } else { level + 1 });
    }

    /// Number of shards in the data set.
    pub fn len(&self) -> usize {
        self.shards.len()
    }

    /// Returns true if the data set has no shards.
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    /// The shards in order: name and length.
    pub fn shards(&self) -> &[(Hash, u64)] {
        &self.shards
    }

    /// Number of leaves of all shards.
    pub fn leaves(&self) -> u64 {
        self.top().1
    }

    /// Number of bytes of all shards.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The root that both parties sign.
    pub fn root(&self) -> Hash {
        self.top().0
    }

    fn top(&self) -> Node {
        self.levels.last().and_then(|level| level.first()).copied().unwrap_or((EMPTY_ROOT, 0))
    }

    /// The path of the shard at a position; `None` if there is none.
    pub fn path(&self, position: usize) -> Option<SumPath> {
        (position < self.shards.len()).then_some(())?;
        let (mut lefts, mut siblings, mut at) = (0, Vec::new(), position);
        for level in &self.levels {
            if let Some(sibling) = level.get(at ^ 1) {
                lefts |= u32::from(at & 1 == 1) << siblings.len();
                siblings.push(*sibling);
            }
            at /= 2;
        }
        Some(SumPath { lefts, siblings: Bounded::new(siblings)? })
    }

    /// The position of the shard that holds leaf `number`, and the number of that leaf within the shard.
    pub fn find(&self, number: u64) -> Option<(usize, u64)> {
        (number < self.leaves()).then_some(())?;
        let (mut at, mut rest) = (0, number);
        for level in self.levels.iter().rev().skip(1) {
            at *= 2;
            let left = level[at].1;
            if rest >= left {
                rest -= left;
                at += 1;
            }
        }
        Some((at, rest))
    }
}

/// The parent of a pair; an odd node rises unchanged.
fn join(pair: &[Node]) -> Node {
    match pair {
        [left, right] => {
            parent(left, right).expect("2^20 shards of 2^12 leaves each: their sum is below 2^64")
        }
        _ => pair[0],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shard(number: u64) -> (Hash, u64) {
        (shard::name(&number.to_be_bytes()), number * 977 % 5000)
    }

    fn shards() -> impl Strategy<Value = Vec<(Hash, u64)>> {
        prop::collection::vec((any::<u64>().prop_map(|n| shard::name(&n.to_be_bytes())), 0u64..9000), 0..40)
    }

    #[test]
    fn empty_and_single() {
        let empty = SumTree::default();
        assert_eq!((empty.root(), empty.leaves(), empty.find(0)), (EMPTY_ROOT, 0, None));
        assert_eq!(empty.path(0), None);
        let one = SumTree::new(&[([7; 32], 0)]).unwrap();
        assert_eq!((one.leaves(), one.find(0), one.find(1)), (1, Some((0, 0)), None));
        let place = one.path(0).unwrap().place(&[7; 32], 0).unwrap();
        assert_eq!(place, ShardPlace { start: 0, leaves: 1, total: 1, root: one.root() });
    }

    #[test]
    fn refused_changes_leave_the_tree_as_it_was() {
        let mut tree = SumTree::new(&[shard(1), shard(2), shard(3)]).unwrap();
        let before = tree.clone();
        let long = [([1; 32], SHARD_BYTES_MAX + 1)];
        for (removes, adds) in
            [(&[3][..], &[][..]), (&[1, 0], &[]), (&[1, 1], &[]), (&[], &long), (&[0, 1, 2, 3], &[])]
        {
            assert_eq!(tree.change(removes, adds), None);
            assert_eq!(tree, before);
        }
    }

    proptest! {
        #[test]
        fn every_leaf_is_found_and_proved(shards in shards()) {
            let tree = SumTree::new(&shards).unwrap();
            let mut number = 0;
            for (position, (shard, length)) in shards.iter().enumerate() {
                let path = tree.path(position).unwrap();
                let place = path.place(shard, *length).unwrap();
                let leaves = shard::leaves(*length);
                prop_assert_eq!(place, ShardPlace { start: number, leaves, total: tree.leaves(), root: tree.root() });
                prop_assert_eq!(tree.find(number), Some((position, 0)));
                prop_assert_eq!(tree.find(number + leaves - 1), Some((position, leaves - 1)));
                number += leaves;
            }
            prop_assert_eq!((tree.leaves(), tree.find(number)), (number, None));
        }

        #[test]
        fn changes_equal_a_fresh_tree(start in shards(), steps in prop::collection::vec((prop::collection::btree_set(0u32..40, 0..6), shards()), 0..4)) {
            let mut tree = SumTree::new(&start).unwrap();
            let mut model = start;
            for (removes, adds) in steps {
                let removes: Vec<u32> = removes.into_iter().filter(|r| (*r as usize) < model.len()).collect();
                tree.change(&removes, &adds).unwrap();
                for position in removes.iter().rev() {
                    model.remove(*position as usize);
                }
                model.extend(adds);
                prop_assert_eq!(&tree, &SumTree::new(&model).unwrap());
                prop_assert_eq!(tree.bytes(), model.iter().map(|(_, length)| length).sum::<u64>());
            }
        }

        #[test]
        fn a_tampered_path_leads_elsewhere(shards in shards(), pick in any::<usize>(), byte in 0usize..40, bit in 0u32..20) {
            prop_assume!(!shards.is_empty());
            let tree = SumTree::new(&shards).unwrap();
            let position = pick % shards.len();
            let (shard, length) = shards[position];
            let path = tree.path(position).unwrap();
            let good = path.place(&shard, length);
            for level in 0..path.siblings.len() {
                let mut siblings = path.siblings.to_vec();
                if byte < 32 { siblings[level].0[byte] ^= 1 } else { siblings[level].1 ^= 1 << ((byte - 32) * 8) }
                let wrong = SumPath { lefts: path.lefts, siblings: Bounded::new(siblings).unwrap() };
                prop_assert_ne!(wrong.place(&shard, length).map(|p| p.root), good.map(|p| p.root));
            }
            let turned = SumPath { lefts: path.lefts ^ 1 << bit, siblings: path.siblings.clone() };
            prop_assert_ne!(turned.place(&shard, length).map(|p| p.root), good.map(|p| p.root));
            prop_assert_ne!(path.place(&shard, length + 1).map(|p| p.root), good.map(|p| p.root));
            prop_assert_eq!(path.place(&shard, SHARD_BYTES_MAX + 1), None);
        }
    }
}
