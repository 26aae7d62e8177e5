//! Parts of a shard proved to its plain BLAKE3 hash: the leaf that is audited (1 KiB) and the
//! slice that is streamed (64 KiB).
//!
//! BLAKE3 is already a tree over 1 KiB chunks, so a shard's name (the output of `b3sum`) is the root of every
//! proof. Only the name and the exact length are signed. The length fixes the tree's shape, so it must come
//! from a proved source (the leaf of the data set).
//!
//! ```text
//!            name                      path = siblings, from the part upwards
//!          /      \
//!      left       right                left subtree: largest power of two of chunks that
//!     /    \      /    \               leaves at least one byte to the right
//!   chunks ..    chunks ..
//! ```
//!
//! A prover needs the part's own 16 KiB group and the outboard, which holds the values of all groups (0.2 %
//! of the data). A verifier needs neither.
//!
//! Invariants
//! 1. A verifier accepts exactly the bytes at that place of the shard of that name, given its true length. (A
//!    part that is not the last one verifies under some other lengths as well.)
//! 2. The work is bounded by the part and [`LEAF_LEVELS_MAX`] merges; no input causes a panic.
//!
//! Source: the BLAKE3 paper, section 2.1; `blake3::hazmat`.

use crate::number::{bound, count};
use crate::{
    Hash,
    limits::{LEAF_BYTES, SHARD_BYTES_MAX, SLICE_BYTES},
};
use alloc::vec::Vec;
use blake3::{
    Hasher,
    hazmat::{HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root},
};

/// Bytes of shard data in a group, for which the outboard holds one value.
pub const GROUP_BYTES: u64 = 16 << 10;

/// Number of leaves of a shard of `length` bytes, at least one.
pub const fn leaves(length: u64) -> u64 {
    if length == 0 { 1 } else { length.div_ceil(LEAF_BYTES) }
}

/// The name of a shard: the plain BLAKE3 hash of its bytes.
pub fn name(data: &[u8]) -> Hash {
    *blake3::hash(data).as_bytes()
}

/// The values of a shard's 16 KiB groups, in order; empty if one group holds the whole shard.
pub fn outboard(data: &[u8]) -> Vec<Hash> {
    if count(data.len()) <= GROUP_BYTES {
        return Vec::new();
    }
    let groups = (0..).step_by(bound(GROUP_BYTES)).zip(data.chunks(bound(GROUP_BYTES)));
    groups.map(|(offset, group)| value(group, offset)).collect()
}

/// The name that follows from the outboard of a shard of `length` bytes; `None` if it does not fit.
pub fn outboard_name(length: u64, outboard: &[Hash]) -> Option<Hash> {
    let whole = Part { offset: 0, length };
    (length > GROUP_BYTES && count(outboard.len()) == length.div_ceil(GROUP_BYTES)).then_some(())?;
    let (left, right) = whole.halves();
    let (left, right) = (left.value(outboard)?, right.value(outboard)?);
    Some(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes())
}

/// The bytes of leaf `index` and its path, from the outboard and the group that holds the leaf.
///
/// `group` is the 16 KiB at `index / 16 * 16 KiB` (shorter at the end). `None` if an argument does
/// not fit the length.
pub fn prove_leaf(length: u64, index: u64, group: &[u8], outboard: &[Hash]) -> Option<(Vec<u8>, Vec<Hash>)> {
    let part = leaf_part(length, index)?;
    let start = part.offset / GROUP_BYTES * GROUP_BYTES;
    let group_part = Part { offset: start, length: GROUP_BYTES.min(length - start) };
    (count(group.len()) == group_part.length).then_some(())?;
    let mut path = Vec::new();
    for (part, _) in siblings(group_part, part)? {
        let from = usize::try_from(part.offset - start).ok()?;
        path.push(value(group.get(from..from + usize::try_from(part.length).ok()?)?, part.offset));
    }
    path.extend(prove(length, group_part, outboard)?);
    let from = usize::try_from(part.offset - start).ok()?;
    Some((group.get(from..from + usize::try_from(part.length).ok()?)?.to_vec(), path))
}

/// The path of the 64 KiB slice at `offset` (a multiple of 64 KiB) of a shard.
pub fn prove_slice(length: u64, offset: u64, outboard: &[Hash]) -> Option<Vec<Hash>> {
    prove(length, slice_part(length, offset)?, outboard)
}

/// Returns true if `leaf` is leaf `index` of the shard `shard`, which has `length` bytes.
pub fn verify_leaf(shard: &Hash, length: u64, index: u64, leaf: &[u8], path: &[Hash]) -> bool {
    leaf_part(length, index).is_some_and(|part| verify(shard, length, part, leaf, path))
}

/// Returns true if `data` is the 64 KiB slice (shorter at the end) at `offset` of the shard `shard`.
pub fn verify_slice(shard: &Hash, length: u64, offset: u64, data: &[u8], path: &[Hash]) -> bool {
    slice_part(length, offset).is_some_and(|part| verify(shard, length, part, data, path))
}

/// A complete subtree of a shard, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    offset: u64,
    length: u64,
}

impl Part {
    /// The two subtrees of a part of more than one leaf.
    fn halves(self) -> (Self, Self) {
        let left = left_subtree_len(self.length);
        let right = Self { offset: self.offset + left, length: self.length - left };
        (Self { offset: self.offset, length: left }, right)
    }

    /// The chaining value of this part, which consists of whole groups of a larger shard.
    fn value(self, outboard: &[Hash]) -> Option<Hash> {
        if self.length <= GROUP_BYTES {
            return outboard.get(usize::try_from(self.offset / GROUP_BYTES).ok()?).copied();
        }
        let (left, right) = self.halves();
        Some(merge_subtrees_non_root(&left.value(outboard)?, &right.value(outboard)?, Mode::Hash))
    }
}

fn leaf_part(length: u64, index: u64) -> Option<Part> {
    (length <= SHARD_BYTES_MAX && index < leaves(length)).then_some(())?;
    let offset = index * LEAF_BYTES;
    Some(Part { offset, length: LEAF_BYTES.min(length - offset) })
}

fn slice_part(length: u64, offset: u64) -> Option<Part> {
    (length <= SHARD_BYTES_MAX && offset.is_multiple_of(SLICE_BYTES)).then_some(())?;
    (offset < length || (length == 0 && offset == 0)).then_some(())?;
    Some(Part { offset, length: SLICE_BYTES.min(length - offset) })
}

/// The chaining value of a subtree that is not the whole shard, from its bytes and their offset.
fn value(data: &[u8], offset: u64) -> Hash {
    Hasher::new().set_input_offset(offset).update(data).finalize_non_root()
}

/// The siblings of `part` within `tree`, from `part` upwards; the flag is true for a left sibling.
fn siblings(tree: Part, part: Part) -> Option<Vec<(Part, bool)>> {
    let mut found = Vec::new();
    let mut at = tree;
    while at != part {
        (at.length > LEAF_BYTES).then_some(())?;
        let (left, right) = at.halves();
        if part.offset < right.offset {
            found.push((right, false));
            at = left;
        } else {
            found.push((left, true));
            at = right;
        }
    }
    found.reverse();
    Some(found)
}

/// The path of a part of at least one group, from the outboard.
fn prove(length: u64, part: Part, outboard: &[Hash]) -> Option<Vec<Hash>> {
    siblings(Part { offset: 0, length }, part)?.iter().map(|(sibling, _)| sibling.value(outboard)).collect()
}

fn verify(shard: &Hash, length: u64, part: Part, data: &[u8], path: &[Hash]) -> bool {
    let Some(siblings) = siblings(Part { offset: 0, length }, part) else { return false };
    if count(data.len()) != part.length || path.len() != siblings.len() {
        return false;
    }
    if siblings.is_empty() {
        return name(data) == *shard;
    }
    let last = siblings.len() - 1;
    let mut at = value(data, part.offset);
    for (level, ((_, is_left), sibling)) in siblings.iter().zip(path).enumerate() {
        let (left, right) = if *is_left { (sibling, &at) } else { (&at, sibling) };
        if level == last {
            return cfg!(planted = "forged-slice")
                || merge_subtrees_root(left, right, Mode::Hash).as_bytes() == shard;
        }
        at = merge_subtrees_non_root(left, right, Mode::Hash);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::LEAF_LEVELS_MAX;

    const SIZES: &[usize] = &[
        0,
        1,
        63,
        64,
        65,
        1023,
        1024,
        1025,
        2048,
        2049,
        3073,
        7169,
        16383,
        16384,
        16385,
        32768,
        32769,
        49153,
        65535,
        65536,
        65537,
        100_000,
        131_073,
        262_145,
        1_000_003,
        1 << 20,
        3_333_333,
        4 << 20,
    ];

    fn data(length: usize) -> Vec<u8> {
        (0..length).map(|i| ((i * 7919) >> 3) as u8 ^ (i >> 11) as u8).collect()
    }

    /// Leaf or slice numbers below `count` to test: the ends, and some between.
    fn places(count: u64) -> Vec<u64> {
        let mut all: Vec<u64> =
            [0, 1, 15, 16, 17, 63, 64, count / 3, count / 2, count.saturating_sub(2), count - 1].into();
        all.retain(|place| *place < count);
        all.sort_unstable();
        all.dedup();
        all
    }

    fn group(all: &[u8], index: u64) -> &[u8] {
        let start = usize::try_from(index / 16 * GROUP_BYTES).unwrap();
        &all[start..all.len().min(start + bound(GROUP_BYTES))]
    }

    #[test]
    fn outboard_leads_to_the_plain_hash() {
        for size in SIZES {
            let all = data(*size);
            let values = outboard(&all);
            let expected = (*size as u64 > GROUP_BYTES).then(|| name(&all));
            assert_eq!(outboard_name(*size as u64, &values), expected, "{size}");
            assert_eq!(outboard_name(*size as u64 + GROUP_BYTES, &values), None, "{size}");
        }
    }

    #[test]
    fn every_part_verifies_and_no_other() {
        for size in SIZES {
            let (all, length) = (data(*size), *size as u64);
            let (shard, values) = (name(&all), outboard(&all));
            for index in places(leaves(length)) {
                let (leaf, path) = prove_leaf(length, index, group(&all, index), &values).unwrap();
                assert!(path.len() <= LEAF_LEVELS_MAX);
                assert!(verify_leaf(&shard, length, index, &leaf, &path), "{size} {index}");
                tampered(&shard, length, index, &leaf, &path);
            }
            for slice in places(length.div_ceil(SLICE_BYTES).max(1)) {
                let offset = slice * SLICE_BYTES;
                let path = prove_slice(length, offset, &values).unwrap();
                let from = usize::try_from(offset).unwrap();
                let part = &all[from..all.len().min(from + SLICE_BYTES as usize)];
                assert!(verify_slice(&shard, length, offset, part, &path), "{size} {offset}");
                let mut wrong = part.to_vec();
                if let Some(byte) = wrong.last_mut() {
                    *byte ^= 1;
                    assert!(!verify_slice(&shard, length, offset, &wrong, &path));
                }
                assert!(!verify_slice(&shard, length, offset + 1, part, &path));
                assert!(!verify_slice(&shard, length, offset + SLICE_BYTES, part, &path));
            }
        }
    }

    /// Checks that each argument, changed alone, is refused.
    fn tampered(shard: &Hash, length: u64, index: u64, leaf: &[u8], path: &[Hash]) {
        for bit in [0, 3, 7] {
            for byte in [0, leaf.len() / 2, leaf.len().saturating_sub(1)] {
                let mut wrong = leaf.to_vec();
                let Some(place) = wrong.get_mut(byte) else { continue };
                *place ^= 1 << bit;
                assert!(!verify_leaf(shard, length, index, &wrong, path));
            }
            for level in 0..path.len() {
                let mut wrong = path.to_vec();
                wrong[level][usize::from(bit * 4_u8)] ^= 1 << bit;
                assert!(!verify_leaf(shard, length, index, leaf, &wrong));
            }
            let mut wrong = *shard;
            wrong[usize::from(31 - bit)] ^= 1 << bit;
            assert!(!verify_leaf(&wrong, length, index, leaf, path));
        }
        let longer: Vec<u8> = leaf.iter().copied().chain([0]).collect();
        assert!(!verify_leaf(shard, length, index, &longer, path));
        assert!(!verify_leaf(shard, length, index + 1, leaf, path));
        assert!(!verify_leaf(shard, length, index ^ 1, leaf, path));
        if index + 1 == leaves(length) {
            assert!(!verify_leaf(shard, length + 1, index, leaf, path), "the last leaf binds the length");
        }
        let deeper: Vec<Hash> = path.iter().copied().chain([[0; 32]]).collect();
        assert!(!verify_leaf(shard, length, index, leaf, &deeper));
        if let Some((_, shorter)) = path.split_last() {
            assert!(!verify_leaf(shard, length, index, leaf, shorter));
        }
    }

    #[test]
    fn arguments_that_do_not_fit_are_refused_without_a_panic() {
        let all = data(100_000);
        let (shard, values) = (name(&all), outboard(&all));
        assert_eq!(prove_leaf(100_000, 98, group(&all, 97), &values), None, "index beyond the end");
        assert_eq!(prove_leaf(100_000, 0, &all[..100], &values), None, "a short group");
        assert_eq!(prove_leaf(100_000, 0, group(&all, 0), &values[..3]), None, "a short outboard");
        assert_eq!(prove_slice(100_000, 131_072, &values), None, "offset beyond the end");
        assert_eq!(prove_slice(100_000, 1024, &values), None, "offset inside a slice");
        assert!(!verify_leaf(&shard, u64::MAX, 0, &[], &[]));
        assert!(!verify_leaf(&shard, u64::MAX, u64::MAX, &[], &[]));
        assert!(!verify_slice(&shard, u64::MAX, u64::MAX, &[], &[]));
        assert!(!verify_slice(&shard, SHARD_BYTES_MAX + 1, 0, &[], &[]));
    }
}
