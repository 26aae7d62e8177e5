//! Bounds the reads for upkeep before it is judged: it is free of charge, and names many records.

use super::admit::Slots;
use posync_protocol::{
    Account, Body, Key, Operation,
    operation::Settle,
    record::{AccountState, Provider},
};
use std::collections::{BTreeMap, BTreeSet};

/// Records that one batch may read: those of 31 operations that name as many as they may.
const KEYS_MAX: usize = 8192;
/// Records of these that one signer may read.
const KEYS_PER_SIGNER: usize = KEYS_MAX / 8;

fn settle(operation: &Operation) -> Option<&Settle> {
    match &operation.body {
        Body::Settle(settle) => Some(settle),
        _ => None,
    }
}

/// The records of the provider and the signer of an upkeep operation.
fn parties(operation: &Operation) -> Option<[Key; 2]> {
    Some([Provider::key(&settle(operation)?.provider), AccountState::key(&operation.signer)])
}

/// The keys that [`is_known`] checks: two for each upkeep operation.
pub(super) fn keys<'a>(operations: impl Iterator<Item = &'a Operation>) -> BTreeSet<Key> {
    operations.filter_map(parties).flatten().collect()
}

/// True for upkeep whose provider and signer are both in the ledger.
pub(super) fn is_known(operation: &Operation, slots: &Slots) -> bool {
    parties(operation).is_some_and(|keys| keys.iter().all(|key| slots.contains_key(key)))
}

/// True if the signer is the provider that the upkeep is for.
pub(super) fn is_own(operation: &Operation) -> bool {
    settle(operation).is_some_and(|settle| settle.provider == operation.signer)
}

/// Number of records that the upkeep of one batch reads.
#[derive(Default)]
pub(super) struct Reads {
    all: usize,
    of_signer: BTreeMap<Account, usize>,
}

impl Reads {
    /// Counts `count` reads for `signer` and returns true, if the bounds allow them.
    pub(super) fn take(&mut self, signer: &Account, count: usize) -> bool {
        let own = self.of_signer.entry(*signer).or_default();
        let has_room = self.all + count <= KEYS_MAX && *own + count <= KEYS_PER_SIGNER;
        if has_room {
            self.all += count;
            *own += count;
        }
        has_room
    }
}
