//! The agreement that takes over the shards of one that ends.

use super::state::takes_over;
use crate::{
    agreement::{OwnAgreement, state::leaves},
    shared::Shared,
};
use posync_protocol::limits::Parameters;
use std::sync::Arc;

/// The agreement with the same provider that has room for `bytes` of the old one and ends last.
pub fn successor(
    shared: &Shared,
    old: &OwnAgreement,
    bytes: u64,
    epoch: u64,
    p: &Parameters,
) -> Option<Arc<OwnAgreement>> {
    let terms = old.terms();
    let takes = |agreement: &Arc<OwnAgreement>| {
        let (new, load) = (agreement.terms(), agreement.with_state(|state| state.load()));
        let has_room = load.saturating_add(leaves(bytes)) <= new.quota_leaves;
        agreement.number != old.number
            && !agreement.is_closed()
            && takes_over(&new, &terms, epoch, p)
            && (bytes == 0 || has_room)
    };
    let all = shared.agreements_with(&old.provider()).into_iter().filter(takes);
    all.max_by_key(|agreement| (agreement.terms().end_epoch, agreement.number))
}

/// Bytes of the smallest shard in force under an agreement; 0 without one.
pub(super) fn smallest(agreement: &OwnAgreement) -> u64 {
    let live = agreement.with_state(|state| state.live());
    live.iter().map(|entry| u64::from(entry.bytes)).min().unwrap_or(0)
}
