//! The tree over an epoch's rows: appended row by row, its root kept forever.
//!
//! ```text
//!   leaf = SHA-256(0x00 | account | row's slot)       node = SHA-256(0x01 | left | right)
//!   peaks of 7 rows: [4 rows] [2 rows] [1 row]        root = SHA-256(0x02 | 7 | (4, (2, 1)))
//! ```
//!
//! Only the roots of full subtrees (the peaks) are kept while it grows, so a row costs one step on average
//! and at most [`LEVELS`]. The number of rows is part of the root. The [`path`] from its leaf to the root
//! proves a row of any epoch.

use crate::number::{count, index8};
use crate::{Account, Hash, Slot};
use alloc::vec::Vec;
use commonware_cryptography::{Hasher, Sha256};

/// Highest level of a peak: there can be as many rows as providers.
pub const LEVELS: u8 = 20;
/// Most nodes of a path: up a full subtree, one for all peaks after it, and the peaks before it.
pub const PATH_MAX: usize = 1 + index8(LEVELS);
const _: () = assert!(1 << LEVELS == crate::limits::PROVIDERS_MAX);

fn hash(tag: u8, left: &[u8], right: &[u8]) -> Hash {
    let digest = Sha256::hash(&[&[tag], left, right]);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

/// The leaf of a provider's row. It covers the account, which the row itself does not contain.
pub fn leaf(account: &Account, row: &Slot) -> Hash {
    hash(0, &account.0, row)
}

/// The node over two subtrees of equal size.
pub fn node(left: &Hash, right: &Hash) -> Hash {
    hash(1, left, right)
}

/// The root over `rows` rows with these peaks, largest first: the peaks are bagged from the right, and the
/// number of rows is part of the hash.
pub fn root(rows: u64, peaks: &[Hash]) -> Hash {
    let bagged = peaks.iter().rev().copied().reduce(|right, left| node(&left, &right));
    let bagged = bagged.as_ref().map_or(&[][..], |hash| &hash[..]);
    hash(2, &rows.to_be_bytes(), bagged)
}

/// The root over all leaves of an epoch, in the order of their indices: the value of `Books::root`.
pub fn root_of(leaves: &[Hash]) -> Hash {
    root(count(leaves.len()), &full_subtrees(leaves).into_iter().map(perfect).collect::<Vec<_>>())
}

/// The leaves of each full subtree, the largest first; the root of each is a peak.
fn full_subtrees(leaves: &[Hash]) -> Vec<&[Hash]> {
    let (mut rest, mut subtrees) = (leaves, Vec::new());
    while let Some(level) = rest.len().checked_ilog2() {
        let (full, after) = rest.split_at(1 << level);
        subtrees.push(full);
        rest = after;
    }
    subtrees
}

/// The peak that a leaf lies in, among those of `rows` leaves, largest first.
struct RowPlace {
    /// Number of peaks before the leaf's own.
    before: usize,
    /// Level of the peak, which has 2^level leaves.
    level: u32,
    /// The leaf's offset within its peak.
    offset: u64,
    /// True if peaks follow the leaf's own.
    more: bool,
}

fn place(rows: u64, index: u64) -> Option<RowPlace> {
    let (mut before, mut offset) = (0, index);
    for level in (0..=u32::from(LEVELS)).rev().filter(|level| rows >> level & 1 == 1) {
        if offset < 1 << level {
            return Some(RowPlace { before, level, offset, more: rows & ((1 << level) - 1) != 0 });
        }
        offset -= 1 << level;
        before += 1;
    }
    None
}

/// The path from the leaf at `index` to the root: its siblings from the bottom up, the peaks after its own
/// bagged into one, then the peaks before it from the nearest on. `None` if there is no such leaf.
pub fn path(leaves: &[Hash], index: usize) -> Option<Vec<Hash>> {
    let place = place(count(leaves.len()), count(index))?;
    let subtrees = full_subtrees(leaves);
    let mut nodes = siblings(subtrees.get(place.before)?, usize::try_from(place.offset).ok()?);
    let peaks: Vec<Hash> = subtrees.into_iter().map(perfect).collect();
    let (before, after) = (peaks.get(..place.before)?, peaks.get(place.before + 1..)?);
    nodes.extend(after.iter().rev().copied().reduce(|right, left| node(&left, &right)));
    nodes.extend(before.iter().rev());
    Some(nodes)
}

fn siblings(leaves: &[Hash], mut at: usize) -> Vec<Hash> {
    let (mut layer, mut nodes) = (leaves.to_vec(), Vec::new());
    while layer.len() > 1 {
        nodes.push(layer[at ^ 1]);
        layer = layer.chunks(2).map(|pair| node(&pair[0], &pair[pair.len() - 1])).collect();
        at /= 2;
    }
    nodes
}

/// The root that a path leads to from the leaf at `index` of `rows` (PF-2). `None` if the path does not have
/// the length of that place.
pub fn root_by_path(leaf: &Hash, index: u64, rows: u64, path: &[Hash]) -> Option<Hash> {
    let place = place(rows, index)?;
    let (up, over) = path.split_at_checked(crate::number::index(place.level))?;
    let mut at = place.offset;
    let mut hash = up.iter().fold(*leaf, |below, sibling| {
        let above = if at & 1 == 0 { node(&below, sibling) } else { node(sibling, &below) };
        at >>= 1;
        above
    });
    let (after, before) = over.split_at_checked(usize::from(place.more))?;
    hash = after.iter().fold(hash, |left, right| node(&left, right));
    hash = before.iter().fold(hash, |right, left| node(left, &right));
    (before.len() == place.before).then(|| root(rows, &[hash]))
}

/// The root of a full subtree.
fn perfect(leaves: &[Hash]) -> Hash {
    let mut layer = leaves.to_vec();
    while layer.len() > 1 {
        layer = layer.chunks(2).map(|pair| node(&pair[0], &pair[pair.len() - 1])).collect();
    }
    layer.first().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leaves(rows: u64) -> Vec<Hash> {
        (0..rows).map(|row| leaf(&Account([7; 32]), &[row as u8; 256])).collect()
    }

    #[test]
    fn every_leaf_of_every_small_tree_leads_to_the_root() {
        for rows in 0..70 {
            let leaves = leaves(rows);
            for (index, leaf) in leaves.iter().enumerate() {
                let path = path(&leaves, index).expect("there is such a leaf");
                assert!(path.len() <= PATH_MAX);
                let root = root_by_path(leaf, index as u64, rows, &path);
                assert_eq!(root, Some(root_of(&leaves)), "{index} of {rows}");
            }
            assert_eq!(path(&leaves, rows as usize), None);
        }
    }

    #[test]
    fn the_longest_path_fits() {
        let levels = u64::from(LEVELS);
        for rows in [1 << levels, (1 << levels) - 1, (1 << (levels - 1)) + 1] {
            for index in [0, rows / 2, rows - 1] {
                let place = place(rows, index).expect("inside");
                let nodes = place.level as usize + usize::from(place.more) + place.before;
                assert!(nodes <= PATH_MAX, "{nodes} for {index} of {rows}");
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_else_leads_there(
            rows in 1u64..200, index in 0u64..200, other in 0u64..220, count in 0u64..220,
            flip in any::<(usize, u8)>(), cut in any::<usize>(),
        ) {
            let leaves = leaves(rows);
            let index = index % rows;
            let (leaf, root) = (leaves[index as usize], root_of(&leaves));
            let path = path(&leaves, index as usize).expect("inside");
            if other != index {
                prop_assert_ne!(root_by_path(&leaf, other, rows, &path), Some(root));
            }
            if count != rows {
                prop_assert_ne!(root_by_path(&leaf, index, count, &path), Some(root));
            }
            let mut longer = path.clone();
            longer.push(leaf);
            prop_assert_ne!(root_by_path(&leaf, index, rows, &longer), Some(root));
            if !path.is_empty() {
                let mut changed = path.clone();
                changed[flip.0 % path.len()][usize::from(flip.1) % 32] ^= 1;
                prop_assert_ne!(root_by_path(&leaf, index, rows, &changed), Some(root));
                prop_assert_eq!(root_by_path(&leaf, index, rows, &path[..cut % path.len()]), None);
            }
        }
    }
}
