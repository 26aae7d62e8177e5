//! Removes the consensus journals of past terms from disk.
//!
//! Consensus keeps the votes of each term in a separate journal, so that a restarted node signs nothing
//! twice. A restarted node resumes at the term of the last block that it has certainly processed, which is
//! at most [`PENDING_ACKS`] below the applied one. So the journal of a term is not needed once the next
//! term is final.
//!
//! The oldest goes first: after a crash between two removals, the next start removes the rest.

use super::sizes::PENDING_ACKS;
use crate::epoch::secrets::SignedAt;
use commonware_runtime::{Error, Storage};
use posync_client::watch;
use std::{collections::BTreeSet, num::NonZeroU64};

/// The first term whose journal a node that has applied `height` may still need: the one before the term in
/// which it would resume.
pub(super) const fn first_needed(height: u64, term: NonZeroU64) -> u64 {
    let sure = height.saturating_sub(PENDING_ACKS.get() as u64 + 1);
    (sure / term.get()).saturating_sub(1)
}

/// The terms in whose journals a node may have votes: those around the term in which it resumes, by the applied
/// height and by the block from which it takes a state, and those of which it has shares.
pub(super) fn voted_in(height: u64, term: NonZeroU64, floor: Option<u64>, shares: &[u64]) -> BTreeSet<u64> {
    let around = |first: u64, last: u64| first..=last.saturating_add(2);
    let by_floor = floor.into_iter().flat_map(|floor| around(floor.saturating_sub(1), floor));
    around(first_needed(height, term), height / term.get())
        .chain(by_floor)
        .chain(shares.iter().copied())
        .collect()
}

/// The newest term and view to which consensus wrote, of these terms. Each view is a file, which is written before a
/// vote of that view is sent.
///
/// # Panics
/// If the disk cannot be read.
pub(super) async fn newest_view<E: Storage>(
    context: &E,
    terms: BTreeSet<u64>,
    partition: impl Fn(u64) -> String,
) -> Option<SignedAt> {
    let mut newest = None;
    for term in terms {
        let names = match context.scan(&partition(term)).await {
            Ok(names) => names,
            Err(Error::PartitionMissing(_)) => continue,
            Err(error) => panic!("a node that cannot read its journal of votes must stop: {error}"),
        };
        let views =
            names.iter().filter_map(|name| Some(u64::from_be_bytes(name.as_slice().try_into().ok()?)));
        newest = newest.max(views.max().map(|view| [term, view]));
    }
    newest
}

/// Removes journals as `applied` grows, until the node stops. `partition` names the journal of a term.
pub(super) async fn run<E: Storage>(
    context: E,
    term: NonZeroU64,
    mut applied: watch::Receiver<u64>,
    partition: impl Fn(u64) -> String,
) {
    let mut next = 0;
    loop {
        let needed = first_needed(*applied.borrow_and_update(), term);
        while next < needed {
            match context.remove(&partition(next), None).await {
                Ok(()) => tracing::debug!(term = next, "the consensus journal of a past term is removed"),
                Err(Error::PartitionMissing(_)) => {}
                Err(error) => {
                    tracing::warn!(
                        %error,
                        term = next,
                        "the consensus journal of a past term cannot be removed; it takes disk \
                         space until the next term"
                    );
                    break;
                }
            }
            next += 1;
        }
        if applied.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn votes_are_looked_for_where_the_node_resumes_and_where_it_has_a_share() {
        let term = NonZeroU64::new(40).expect("not zero");
        assert_eq!(voted_in(130, term, None, &[]).into_iter().collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        let found = voted_in(0, term, Some(9), &[4, 5]).into_iter().collect::<Vec<_>>();
        assert_eq!(found, [0, 1, 2, 4, 5, 8, 9, 10, 11]);
    }

    #[test]
    fn a_journal_is_needed_until_the_next_term_is_final_and_acknowledged() {
        let term = NonZeroU64::new(40).expect("not zero");
        let table = [(0, 0), (40, 0), (80, 0), (96, 0), (97, 1), (120, 1), (136, 1), (137, 2), (177, 3)];
        for (height, needed) in table {
            assert_eq!(first_needed(height, term), needed, "at {height}");
        }
        for height in 0..1_000u64 {
            // Wherever the node resumes, the journal of that term is there.
            let restart = height.saturating_sub(PENDING_ACKS.get() as u64) / 40;
            assert!(first_needed(height, term) <= restart);
        }
    }
}
