//! The tree over an epoch's rows: appended row by row, its root kept for ever.
//!
//! ```text
//!   leaf = SHA-256(0x00 | account | row's slot)       node = SHA-256(0x01 | left | right)
//!   peaks of 7 rows: [4 rows] [2 rows] [1 row]        root = SHA-256(0x02 | 7 | (4, (2, 1)))
//! ```
//!
//! Only the roots of full subtrees (the peaks) are kept while it grows, so a row costs one step on
//! average and at most [`LEVELS`]. The number of rows is part of the root.

use crate::{Account, Hash, Slot};
use alloc::vec::Vec;
use commonware_cryptography::{Hasher, Sha256};

/// Highest level of a peak: as many rows as there can be providers.
pub const LEVELS: u8 = 20;
const _: () = assert!(1 << LEVELS == crate::limits::PROVIDERS_MAX);

fn hash(tag: u8, left: &[u8], right: &[u8]) -> Hash {
    let digest = Sha256::hash(&[&[tag], left, right]);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

/// The leaf of a provider's row: the row itself does not name its provider, the leaf does.
pub fn leaf(account: &Account, row: &Slot) -> Hash {
    hash(0, &account.0, row)
}

/// The node over two subtrees of equal size.
pub fn node(left: &Hash, right: &Hash) -> Hash {
    hash(1, left, right)
}

/// The root over `rows` rows with these peaks, largest first: bagged from the right, with the
/// number of rows.
pub fn root(rows: u64, peaks: &[Hash]) -> Hash {
    let bagged = peaks.iter().rev().copied().reduce(|right, left| node(&left, &right));
    let bagged = bagged.as_ref().map_or(&[][..], |hash| &hash[..]);
    hash(2, &rows.to_be_bytes(), bagged)
}

/// The root over all leaves of an epoch, in the order of their indices: what `Books::root` says.
pub fn root_of(leaves: &[Hash]) -> Hash {
    let (mut rest, mut peaks) = (leaves, Vec::new());
    for level in (0..usize::BITS).rev() {
        if leaves.len() >> level & 1 == 1 {
            let (full, after) = rest.split_at(1 << level);
            peaks.push(perfect(full));
            rest = after;
        }
    }
    root(leaves.len() as u64, &peaks)
}

/// The root of a full subtree.
fn perfect(leaves: &[Hash]) -> Hash {
    let mut layer = leaves.to_vec();
    while layer.len() > 1 {
        layer = layer.chunks(2).map(|pair| node(&pair[0], &pair[pair.len() - 1])).collect();
    }
    layer.first().copied().unwrap_or_default()
}
