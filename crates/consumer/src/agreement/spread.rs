//! Spreads signatures over the time that a claim takes to the ledger.
//!
//! ```text
//!   versions above the ledger's last:   0 ....... 8 ................... 24
//!   pause after each signature:         none      a block / those left   until the ledger has a newer one
//! ```
//!
//! Without the pauses a busy account has all its versions signed within a moment, and the next put waits for a
//! whole block. A put that comes alone never waits.

use super::{OwnAgreement, SIGN_PAUSE};
use crate::{
    limits::{VERSIONS_AHEAD, VERSIONS_AHEAD_MAX},
    peer::Error,
};
use commonware_utils::sync::Mutex;
use posync_client::Backoff;
use posync_protocol::wire::provider::Refusal;
use std::time::Duration;
use tokio::sync::Notify;

/// Pause after the first of several requests that found the provider busy; it doubles up to [`SIGN_PAUSE`]. A
/// provider without a place for another version has one as soon as it sees the ledger's newest.
const BUSY_PAUSE: Duration = Duration::from_millis(30);

/// State of the signer's pauses.
#[derive(Debug, Default)]
pub(super) struct Spread {
    /// Pauses while the provider is busy; `None` since its last signature.
    busy: Mutex<Option<Backoff>>,
    /// Wakes the signer from its pause.
    taken: Notify,
}

impl Spread {
    /// Notes that the ledger has taken a newer version.
    pub(super) fn taken(&self) {
        self.taken.notify_one();
    }
}

/// Pause before another version is signed while `ahead` are above the ledger's last: a block's time, divided by
/// the number of versions that are left.
fn pause(ahead: u64, block: Duration) -> Duration {
    if ahead < VERSIONS_AHEAD {
        return Duration::ZERO;
    }
    let left = VERSIONS_AHEAD_MAX.saturating_sub(ahead).max(1);
    block / u32::try_from(left).unwrap_or(u32::MAX)
}

impl OwnAgreement {
    /// Waits between two versions, unless the ledger has most of them. Entries that arrive meanwhile share the
    /// next version.
    pub(super) async fn spread(&self) {
        *self.spread.busy.lock() = None;
        let block = self.peer.heights().block;
        let enough = async {
            while !pause(self.ahead(), block).is_zero() {
                self.spread.taken.notified().await;
            }
        };
        self.common.environment.within(pause(self.ahead(), block), enough).await;
    }

    /// The pause after a request for a signature that failed and is repeated.
    pub(super) fn pause_after(&self, error: &Error) -> Duration {
        if !matches!(error, Error::Refused(_, Refusal::Busy, _)) {
            return SIGN_PAUSE;
        }
        let mut busy = self.spread.busy.lock();
        busy.get_or_insert(Backoff::new(BUSY_PAUSE, SIGN_PAUSE)).next().unwrap_or(SIGN_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_versions_wait_for_nothing_and_all_others_together_for_several_blocks() {
        let block = Duration::from_millis(250);
        assert!((0..VERSIONS_AHEAD).all(|ahead| pause(ahead, block).is_zero()));
        let pauses: Vec<Duration> =
            (VERSIONS_AHEAD..VERSIONS_AHEAD_MAX).map(|ahead| pause(ahead, block)).collect();
        assert!(pauses.is_sorted(), "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause <= block), "{pauses:?}");
        assert!(pauses.iter().sum::<Duration>() > 3 * block, "{pauses:?}");
        assert_eq!(pause(VERSIONS_AHEAD_MAX + 1, block), block, "no division by nothing");
    }
}
