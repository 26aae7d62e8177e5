//! Rehashes what is stored, so that the provider knows of bit rot before a draw does.

use crate::serve::Desk;
use commonware_runtime::{Blob, Clock};
use posync_protocol::wire::provider::BAD_SHARDS_MAX;
use std::time::Duration;

/// Shards looked up at once.
const PAGE: usize = 256;

/// Scrubs for ever, one pass every `every`.
pub async fn run<E: Clock, B: Blob>(desk: &Desk<E, B>, every: Duration) {
    loop {
        desk.parts().clock.sleep(every).await;
        let bad = pass(desk).await;
        if bad > 0 {
            tracing::warn!(bad, "the scrub found shards that are damaged or missing; they are in the status");
        }
    }
}

/// One pass: reads every shard against its name, and looks for owed ones that are not there.
/// Returns how many are bad.
pub async fn pass<E: Clock, B: Blob>(desk: &Desk<E, B>) -> usize {
    let store = &desk.parts().store;
    let mut after = None;
    loop {
        let page = store.page(after, PAGE);
        let Some(last) = page.last() else { break };
        after = Some(*last);
        for shard in page {
            // A damaged one is noted by the store itself; one removed meanwhile is no fault.
            let _ = store.get(&shard).await;
            desk.parts().clock.sleep(Duration::ZERO).await;
        }
    }
    let owed = desk.parts().books.with(crate::books::State::owed);
    let missing = owed.into_iter().filter(|shard| store.length(shard).is_none());
    desk.set_missing(missing.take(BAD_SHARDS_MAX).collect());
    desk.bad().len()
}
