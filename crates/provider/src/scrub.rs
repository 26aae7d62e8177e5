//! Rehashes stored shards, so that the provider finds bit rot before a draw does.
//!
//! It reads at a limited rate, so that the disk stays free: terabytes take days, a small store a moment.

use crate::{packs::StoreError, serve::Handler};
use commonware_runtime::{Blob, Clock};
use posync_protocol::wire::provider::BAD_SHARDS_MAX;
use std::{convert::Infallible, time::Duration};

/// Number of shards looked up at once.
const PAGE: usize = 256;
/// Maximum seconds of a pass: two weeks. A store that would take longer is read faster.
const ROUND_SECONDS: u64 = 14 * 24 * 3_600;
/// Bytes read before a pause: two of the largest shards.
const BURST: u64 = 8 << 20;

/// Pause before what the disk failed to read is read again.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Fewest shards of a pass that say something of the disk: one bad sector may be all that a small store has.
const SHARDS_MIN: usize = 16;

/// The disk failed on every shard of a pass, and there were many.
#[derive(Debug, thiserror::Error)]
#[error("none of {shards} shards can be read: {last}; is the volume mounted?")]
pub struct Unreadable {
    /// Number of shards that should be readable.
    pub shards: usize,
    /// The error of the last read.
    pub last: StoreError,
}

/// Reads again, forever, what the disk failed to read: a read that fails is no damage if a later one succeeds.
pub(crate) async fn read_again<E: Clock, B: Blob>(handler: &Handler<E, B>) -> Infallible {
    loop {
        handler.parts().clock.sleep(READ_AGAIN_AFTER).await;
        handler.parts().store.read_again().await;
    }
}

/// Scrubs forever, with a pause of `every` before each pass, at `least_rate` bytes a second or more.
///
/// # Errors
/// [`Unreadable`].
pub(crate) async fn run<E: Clock, B: Blob>(
    handler: &Handler<E, B>,
    every: Duration,
    least_rate: u64,
) -> Result<(), Unreadable> {
    let mut logged = 0;
    loop {
        handler.parts().clock.sleep(every).await;
        let bad = pass(handler, least_rate).await?;
        if bad > logged {
            tracing::warn!(bad, "the scrub found shards that are damaged or missing; they are in the status");
        } else if bad == 0 && logged > 0 {
            tracing::info!("over: the scrub finds every shard whole");
        }
        logged = bad;
    }
}

/// Read rate in bytes a second for a store of `bytes`, of `least` at least.
const fn rate(bytes: u64, least: u64) -> u64 {
    let in_time = bytes / ROUND_SECONDS;
    let least = if least == 0 { 1 } else { least };
    if in_time > least { in_time } else { least }
}

/// One pass: reads every shard at a limited rate, compares it with its name, and looks for owed shards that
/// are missing. Returns the number of bad shards.
///
/// # Errors
/// [`Unreadable`]: the disk failed on every one of at least [`SHARDS_MIN`].
pub(crate) async fn pass<E: Clock, B: Blob>(
    handler: &Handler<E, B>,
    least_rate: u64,
) -> Result<usize, Unreadable> {
    let (store, clock) = (&handler.parts().store, &handler.parts().clock);
    look_for_missing(handler);
    let rate = rate(store.totals().bytes, least_rate);
    let (mut after, mut seen, mut failed, mut last) = (None, 0, 0, StoreError::Unknown);
    let mut burst = 0_u64;
    loop {
        let page = store.page(after, PAGE);
        let Some(end) = page.last() else { break };
        after = Some(*end);
        for shard in page {
            // The store itself notes damaged shards; one removed in the meantime is no fault.
            seen += 1;
            burst = burst.saturating_add(store.length(&shard).unwrap_or(0).into());
            match store.get(&shard).await {
                Err(error @ StoreError::Unread(_)) => (failed, last) = (failed + 1, error),
                Err(error) if error.is_away() => {
                    tracing::warn!(%error, "the scrub ends early: nothing was found damaged by that");
                    return Ok(handler.bad().len());
                }
                Err(error @ StoreError::Disk(_)) => (failed, last) = (failed + 1, error),
                _ => {}
            }
            clock.sleep(Duration::ZERO).await;
            if burst >= BURST {
                clock.sleep(Duration::from_micros(burst.saturating_mul(1_000_000) / rate)).await;
                burst = 0;
            }
        }
    }
    if seen >= SHARDS_MIN && failed == seen {
        return Err(Unreadable { shards: seen, last });
    }
    look_for_missing(handler);
    Ok(handler.bad().len())
}

/// Notes owed shards that the index lacks; reads no data.
fn look_for_missing<E: Clock, B: Blob>(handler: &Handler<E, B>) {
    let owed = handler.parts().data_sets.with(crate::data_sets::State::owed);
    let missing = owed.into_iter().filter(|shard| handler.parts().store.length(shard).is_none());
    handler.set_missing(missing.take(BAD_SHARDS_MAX).collect());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SCRUB_RATE;

    #[test]
    fn a_round_takes_days_and_never_more_than_two_weeks() {
        const TIB: u64 = 1 << 40;
        for (bytes, most) in [(0, 1), (1 << 20, 1), (TIB, 14 * 86_400), (100 * TIB, 14 * 86_400 + 1)] {
            assert!(bytes / rate(bytes, SCRUB_RATE) <= most, "{bytes}");
        }
        assert!(TIB / rate(TIB, SCRUB_RATE) > 10 * 86_400, "a terabyte is no reason to hurry");
    }
}
