//! Removes the consensus journals of past terms from disk.
//!
//! Consensus keeps the votes of each term in a separate journal, so that a restarted node signs nothing
//! twice. A restarted node resumes at the term of the last block that it has certainly processed, which is
//! at most [`PENDING_ACKS`] below the applied one. So the journal of a term is not needed once the next
//! term is final.
//!
//! The oldest goes first: after a crash between two removals, the next start removes the rest.

use super::sizes::PENDING_ACKS;
use commonware_runtime::{Error, Storage};
use posync_client::watch;
use std::num::NonZeroU64;

/// The first term whose journal a node that has applied `height` may still need: the one before the term in
/// which it would resume.
pub(super) const fn first_needed(height: u64, term: NonZeroU64) -> u64 {
    let sure = height.saturating_sub(PENDING_ACKS.get() as u64 + 1);
    (sure / term.get()).saturating_sub(1)
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
