//! Returns a connection from learned nodes to a trusted one, and asks every trusted node before a refusal is final.

use super::{APART_BLOCKS_MAX, At, Connection, Course, Error};
use crate::Backoff;
use futures::future::join_all;
use posync_protocol::{
    limits::{ASK_ATTEMPTS, ASK_PAUSE_MS},
    wire::node::Unavailable,
};
use std::time::{Duration, SystemTime};

/// Pauses between two attempts to find a trusted node that answers again.
const PAUSES: Backoff = Backoff::new(Duration::from_secs(1), PAUSE_MAX);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Attempts after which the pause does not grow any more.
const TRIES_MAX: usize = 8;
/// Trusted nodes that are tried at the same time.
const TRIED_AT_ONCE: usize = 32;

/// The attempts to find a trusted node that answers again.
#[derive(Default)]
pub(super) struct Home {
    last: Option<SystemTime>,
    tries: usize,
}

impl Home {
    /// True if it is time to try again; counts that as an attempt. `is_urgent` waits for the first pause alone.
    fn is_due(&mut self, now: SystemTime, is_urgent: bool) -> bool {
        let passed =
            self.last.map_or(Duration::MAX, |last| now.duration_since(last).unwrap_or(Duration::MAX));
        if passed > 2 * PAUSE_MAX {
            self.tries = 0;
        }
        let tries = if is_urgent { 0 } else { self.tries };
        let is_due = self.last.is_none() || PAUSES.take(tries + 1).last().is_none_or(|pause| passed >= pause);
        if is_due {
            (self.last, self.tries) = (Some(now), (self.tries + 1).min(TRIES_MAX));
        }
        is_due
    }
}

impl Connection {
    /// Goes back to a trusted node if one answers again, while a stranger is asked.
    pub(super) async fn come_home(&self) {
        let pool = &self.0.pool;
        if !pool.is_away() {
            return;
        }
        if pool.next_trusted(&[]).is_none() {
            self.try_trusted(false).await;
        }
        if let Some(place) = pool.next_trusted(&[]) {
            pool.begin_at(place);
            tracing::debug!(place, "a trusted node answers again and is asked from here on");
        }
    }

    /// True if the node at `at` is a stranger and a trusted one answers again.
    pub(super) async fn is_home_again(&self, at: At) -> bool {
        if self.0.pool.is_trusted(at.place) {
            return false;
        }
        self.come_home().await;
        self.0.pool.is_trusted(self.0.pool.current())
    }

    /// Asks all trusted nodes that failed last, if it is time, and waits as long as for any comparison; a good answer
    /// clears a node's failures.
    pub(super) async fn try_trusted(&self, is_urgent: bool) {
        let pool = &self.0.pool;
        let mut silent = pool.silent_trusted();
        if silent.is_empty() || !self.0.home.lock().is_due(self.now(), is_urgent) {
            return;
        }
        let count = silent.len();
        silent.rotate_left(self.random() as usize % count);
        silent.truncate(TRIED_AT_ONCE);
        let tried = silent.into_iter().map(|place| async move {
            if let Ok((at, newest)) = self.newest_at(place).await
                && newest.height + APART_BLOCKS_MAX < self.floor()
            {
                // It answers, and is far behind.
                pool.leave(at);
            }
        });
        join_all(tried).await;
    }

    /// The word of all nodes that were asked. If one has dropped the block and another says that it is not final yet, one
    /// of them is wrong: the first is asked for its newest block. If that is proved above the block, the other one lags
    /// and has no word from then on; if it is not, the first is left, as nobody drops what is not final.
    async fn verdict(&self, error: Error, course: &Course) -> Error {
        let is_open = course.is_early && course.height > 0;
        let Some(pruned) = course.pruned.filter(|_| is_open) else { return error };
        match self.newest_at(pruned.place).await {
            Ok((_, newest)) if newest.height >= course.height => {}
            Ok((at, _)) => self.0.pool.leave(at),
            Err(failed) => self.0.pool.blame(&failed),
        }
        Error::Unavailable(Unavailable::NotYet)
    }

    /// Chooses another node, after that at `at` said `error`: a word that counts once every trusted node that answers
    /// has said the same, or `enough` of them. While none answers, some strangers' word counts. Nodes that contradict
    /// each other about a block leave it open: it is not final yet until one proves a block above it.
    ///
    /// # Errors
    /// `error`, when enough nodes have been asked, or that the block is not final yet.
    pub(super) async fn ask_others(
        &self,
        at: At,
        error: Error,
        course: &mut Course,
        enough: usize,
    ) -> Result<(), Error> {
        let pool = &self.0.pool;
        match error {
            Error::Unavailable(Unavailable::Pruned) => drop(course.pruned.get_or_insert(at)),
            Error::Unavailable(Unavailable::NotYet) => course.is_early = true,
            _ => (),
        }
        if course.tried.contains(&at.place) {
            // Another task may have moved back to it.
            course.failures += 1;
            if course.failures >= ASK_ATTEMPTS {
                return Err(Error::Unreachable(format!("too few nodes were asked; one says: {error}")));
            }
        } else {
            course.tried.push(at.place);
        }
        let is_of_trusted = |place: &&usize| pool.is_trusted(**place);
        let said = course.tried.iter().filter(is_of_trusted).count();
        if said >= enough {
            return Err(error);
        }
        if pool.next_trusted(&course.tried).is_none() {
            // Nobody waits for what is not final yet to be believed: it is asked for again.
            let is_urgent = matches!(error, Error::Unavailable(Unavailable::Pruned));
            self.try_trusted(is_urgent).await;
        }
        let next = match pool.next_trusted(&course.tried) {
            Some(next) => Some(next),
            None if said > 0 => None,
            None if course.tried.len() >= super::ASKED_MAX.min(enough) => None,
            None => pool.next_stranger(&course.tried),
        };
        let Some(next) = next else { return Err(self.verdict(error, course).await) };
        self.sleep(Duration::from_millis(ASK_PAUSE_MS)).await;
        // After the pause, so that no other request chooses another node meanwhile.
        pool.begin_at(next);
        Ok(())
    }
}
