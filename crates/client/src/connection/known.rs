//! The nodes that a connection learns, how far each is, and how new their answers must be.

use super::{ANSWER, At, Connection, Endpoint, Error, Failed, Learned, Proved, unexpected};
use crate::address::Address;
use futures::future::join_all;
use posync_protocol::{
    Bounded, Key, Slot,
    limits::{ASK_ATTEMPTS, ASK_PAUSE_MS, READ_KEYS_MAX, STALE_BLOCKS_MAX},
    wire::node::{Ask, NodeAnswer, Nothing},
};
use std::{
    sync::atomic::Ordering,
    time::{Duration, UNIX_EPOCH},
};

/// Nodes that are asked at the same time when the first ones do not answer.
const AT_ONCE: usize = 8;
/// Most nodes that an error names.
const NAMED_MAX: usize = 8;
/// Nodes whose round trip is measured at once; each costs a handshake.
const MEASURED_AT_ONCE: usize = 8;

/// The proofs that several nodes gave, and the nodes that gave none.
#[derive(Default)]
struct Gathered {
    proofs: Vec<Proved<Vec<Option<Slot>>>>,
    /// Number of proofs that were wanted: fewer if there are fewer nodes.
    needed: usize,
    failed: Vec<(Option<Endpoint>, Error)>,
}

impl Gathered {
    fn too_few(self) -> Error {
        if self.needed == 0 {
            return Error::NoEndpoint;
        }
        let name = |(at, error): &(Option<Endpoint>, Error)| {
            let at = at.as_ref().map_or_else(String::new, |at| format!("{} at {}: ", at.account, at.address));
            match error {
                Error::Unreachable(why) => format!("{at}{why}"),
                error => format!("{at}{error}"),
            }
        };
        let mut tried: Vec<String> = self.failed.iter().take(NAMED_MAX).map(name).collect();
        if self.failed.len() > NAMED_MAX {
            tried.push(format!("and {} more", self.failed.len() - NAMED_MAX));
        }
        Error::TooFew { proved: self.proofs.len(), needed: self.needed, failed: tried.join("; ") }
    }
}

impl Connection {
    /// The nodes that are asked: those given at the start, then the learned ones.
    pub fn nodes(&self) -> Vec<Endpoint> {
        self.0.pool.endpoints()
    }

    /// The learned nodes alone.
    pub fn learned(&self) -> Vec<Learned> {
        self.0.pool.learned()
    }

    /// The learned nodes of which an answer was accepted.
    pub fn learned_and_heard(&self) -> Vec<Learned> {
        self.0.pool.learned_and_heard()
    }

    /// The node that is asked now.
    pub fn current(&self) -> Option<Endpoint> {
        self.0.pool.endpoint(self.0.pool.current())
    }

    /// Takes over the ledger's whole list: which learned nodes have a seat, and nodes that were not known. Returns the
    /// number of new ones. No answer of theirs is believed without proof, as of any node.
    pub fn learn(&self, listed: &[Learned]) -> usize {
        self.0.pool.learn(listed)
    }

    /// Adds nodes that were learned in an earlier run, as far as there is room, and returns their number.
    pub fn recall(&self, kept: &[Learned]) -> usize {
        self.0.pool.recall(kept)
    }

    /// Notes that an own operation is final in the block at `height`: no read shows the state before it.
    pub fn note_written(&self, height: u64) {
        self.0.written.fetch_max(height, Ordering::AcqRel);
    }

    /// The newest block with an own operation; 0 if there is none.
    pub fn written(&self) -> u64 {
        self.0.written.load(Ordering::Acquire)
    }

    /// Asks some learned nodes that have not answered yet for their newest block, so that it is known which answer:
    /// those with a seat before others.
    pub async fn sound_out(&self) {
        let mut places = self.0.pool.unheard();
        let count = places.len();
        places.rotate_left(self.random() as usize % count.max(1));
        places.sort_by_key(|place| !self.0.pool.is_trusted(*place));
        places.truncate(AT_ONCE);
        join_all(places.into_iter().map(|place| async move {
            let _ = self.newest_at(place).await;
            self.0.pool.close(place);
        }))
        .await;
    }

    /// True unless the address of a listed node is never dialled from here.
    pub(crate) fn may_dial(&self, address: &Address) -> bool {
        self.0.reach.may_allow(address)
    }

    /// Reads records from `count` nodes, each by itself, at `least` or above: from trusted nodes, all of them if they are fewer,
    /// or from strangers while no trusted node answers.
    ///
    /// # Errors
    /// [`Error::TooFew`] if fewer nodes prove them; it names those that do not, with their reasons.
    pub async fn read_from_several(
        &self,
        keys: &[Key],
        least: u64,
        count: usize,
    ) -> Result<Vec<Proved<Vec<Option<Slot>>>>, Error> {
        let found = self.proofs_of_several(keys, least, count).await;
        if found.proofs.len() >= found.needed.max(1) { Ok(found.proofs) } else { Err(found.too_few()) }
    }

    /// As [`Self::read_from_several`], and one proof is enough if no other node gives one. No node is asked twice.
    ///
    /// # Errors
    /// [`Error::TooFew`] if no node proves them.
    pub async fn read_from_some(
        &self,
        keys: &[Key],
        least: u64,
        count: usize,
    ) -> Result<Vec<Proved<Vec<Option<Slot>>>>, Error> {
        let found = self.proofs_of_several(keys, least, count).await;
        if found.proofs.is_empty() { Err(found.too_few()) } else { Ok(found.proofs) }
    }

    async fn proofs_of_several(&self, keys: &[Key], least: u64, count: usize) -> Gathered {
        let (trusted, strangers) = self.0.pool.classes();
        let mut found = Gathered::default();
        for mut places in [trusted, strangers] {
            let (all, mut has_answer) = (places.len(), false);
            if all == 0 {
                continue;
            }
            (found.proofs, found.needed) = (vec![], count.min(all));
            places.rotate_left(self.random() as usize % all);
            while !places.is_empty() && found.proofs.len() < found.needed {
                let is_first = places.len() == all;
                let next = if is_first { count } else { AT_ONCE }.min(places.len());
                let asked =
                    places.drain(..next).map(async |place| (place, self.read_alone(place, keys).await));
                for (place, answer) in join_all(asked).await {
                    has_answer |= matches!(answer, Ok(_) | Err(Error::Behind { .. }));
                    match answer {
                        Ok(proved) if proved.header.height >= least => found.proofs.push(proved),
                        Ok(proved) => {
                            let error = Error::Behind { height: proved.header.height, floor: least };
                            found.failed.push((self.0.pool.endpoint(place), error));
                        }
                        Err(error) => found.failed.push((self.0.pool.endpoint(place), error)),
                    }
                }
            }
            if has_answer {
                break;
            }
        }
        found.proofs.truncate(count);
        found
    }

    /// Reads records from the node at `place` alone.
    async fn read_alone(&self, place: usize, keys: &[Key]) -> Result<Proved<Vec<Option<Slot>>>, Error> {
        let asked = Bounded::<Key, READ_KEYS_MAX>::new(keys.to_vec());
        let ask = Ask::Read(asked.ok_or(Error::TooLarge("a read names at most 64 records"))?);
        let judge = |answer| self.judge_read(keys, answer);
        let mut read = self.0.pool.once(place, ANSWER, &ask, &judge).await;
        for _ in 1..ASK_ATTEMPTS {
            match &read {
                // It has the block with an own operation soon.
                Err(Failed { error: Error::Behind { height, floor }, .. })
                    if height + STALE_BLOCKS_MAX >= *floor => {}
                _ => break,
            }
            self.sleep(Duration::from_millis(ASK_PAUSE_MS)).await;
            read = self.0.pool.once(place, ANSWER, &ask, &judge).await;
        }
        self.0.pool.close(place);
        let (_, (_, read)) = read.map_err(|failed| failed.error)?;
        let header = read.certified.headers.first().expect("a verified answer has one").clone();
        Ok(Proved { header, value: read.records.iter().map(|record| record.slot).collect() })
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
            NodeAnswer::Clock(time_ms) => Ok(time_ms),
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
