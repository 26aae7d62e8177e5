//! The nodes that a connection learns, and how far each is.

use super::{At, Connection, Endpoint, unexpected};
use posync_protocol::wire::node::{Answer, Ask, Nothing};
use std::time::UNIX_EPOCH;

/// Nodes whose round trip is measured at once; each costs a handshake.
const MEASURED_AT_ONCE: usize = 8;

impl Connection {
    /// The nodes that are asked: those given at the start, then the learned ones.
    pub fn nodes(&self) -> Vec<Endpoint> {
        self.0.pool.endpoints()
    }

    /// The learned nodes alone.
    pub fn learned(&self) -> Vec<Endpoint> {
        self.0.pool.learned()
    }

    /// The node that is asked now.
    pub fn current(&self) -> Option<Endpoint> {
        self.0.pool.endpoint(self.0.pool.current())
    }

    /// Adds nodes that were not known, and returns their number. No answer of theirs is believed without
    /// proof, as of any node.
    pub fn learn(&self, listed: &[Endpoint]) -> usize {
        self.0.pool.learn(listed)
    }

    /// Measures the round trip to some of the nodes where it is not known, and leaves a far node for a near one
    /// that is not in `avoid`.
    pub(crate) async fn prefer_near(&self, avoid: &[Endpoint]) {
        let mut places = self.0.pool.unmeasured();
        let (count, draw) = (places.len(), self.random());
        places.rotate_left(draw as usize % count.max(1));
        for place in places.into_iter().take(MEASURED_AT_ONCE) {
            self.measure(place).await;
        }
        self.0.pool.prefer_near(avoid, draw);
    }

    /// By how many milliseconds the clock of a node is ahead of this machine's; `None` if it does not say.
    pub(super) async fn clock(&self, place: usize) -> Option<i64> {
        let judge = |answer| match answer {
            Answer::Clock(time_ms) => Ok(time_ms),
            other => unexpected(&other),
        };
        let before = self.now_ms();
        let asked = self.0.pool.once(place, self.0.pool.limit(place), &Ask::Clock(Nothing {}), &judge).await;
        let (theirs, after) = (asked.ok()?.1, self.now_ms());
        let middle = before + after.saturating_sub(before) / 2;
        Some(i64::try_from(theirs).ok()?.saturating_sub(i64::try_from(middle).ok()?))
    }

    fn now_ms(&self) -> u64 {
        let since = (self.0.now)().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// Measures a question over an open connection; a node that fails is left for later.
    async fn measure(&self, place: usize) {
        if self.newest_at(place).await.is_err() {
            return self.0.pool.leave(At::nowhere(place));
        }
        let before = (self.0.now)();
        if self.newest_at(place).await.is_ok()
            && let Ok(trip) = (self.0.now)().duration_since(before)
        {
            self.0.pool.measured(place, trip);
        }
        self.0.pool.close(place);
    }
}
