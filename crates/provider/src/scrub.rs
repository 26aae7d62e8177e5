//! Rehashes what is stored, so that the provider knows of bit rot before a draw does.

use crate::{segments::StoreError, serve::Desk};
use commonware_runtime::{Blob, Clock};
use posync_protocol::wire::provider::BAD_SHARDS_MAX;
use std::time::Duration;

/// Shards looked up at once.
const PAGE: usize = 256;

/// Not one shard can be read.
#[derive(Debug, thiserror::Error)]
#[error("none of {shards} shards can be read: {last}; is the volume mounted?")]
pub struct Unreadable {
    /// Shards that should be there.
    pub shards: usize,
    /// The last error.
    pub last: StoreError,
}

/// Scrubs for ever, one pass every `every`.
///
/// # Errors
/// [`Unreadable`].
pub async fn run<E: Clock, B: Blob>(desk: &Desk<E, B>, every: Duration) -> Result<(), Unreadable> {
    loop {
        desk.parts().clock.sleep(every).await;
        let bad = pass(desk).await?;
        if bad > 0 {
            tracing::warn!(bad, "the scrub found shards that are damaged or missing; they are in the status");
        }
    }
}

/// One pass: reads every shard against its name, and looks for owed ones that are not there.
/// Returns how many are bad.
///
/// # Errors
/// [`Unreadable`]: the disk failed on every one of them.
pub async fn pass<E: Clock, B: Blob>(desk: &Desk<E, B>) -> Result<usize, Unreadable> {
    let store = &desk.parts().store;
    let (mut after, mut seen, mut failed, mut last) = (None, 0, 0, StoreError::Unknown);
    loop {
        let page = store.page(after, PAGE);
        let Some(end) = page.last() else { break };
        after = Some(*end);
        for shard in page {
            // A damaged one is noted by the store itself; one removed meanwhile is no fault.
            seen += 1;
            if let Err(error @ StoreError::Disk(_)) = store.get(&shard).await {
                (failed, last) = (failed + 1, error);
            }
            desk.parts().clock.sleep(Duration::ZERO).await;
        }
    }
    if seen > 0 && failed == seen {
        return Err(Unreadable { shards: seen, last });
    }
    let owed = desk.parts().books.with(crate::books::State::owed);
    let missing = owed.into_iter().filter(|shard| store.length(shard).is_none());
    desk.set_missing(missing.take(BAD_SHARDS_MAX).collect());
    Ok(desk.bad().len())
}
