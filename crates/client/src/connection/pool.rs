//! Chooses the node that is asked: one at a time, and a second when the first is slow. None is trusted.
//!
//! ```text
//!   ask ──► current ──(silent for its patience)──► the next best beside it ──► the first good answer counts
//!              ✕ lost, late, behind, or not believed: strike, the next best becomes current
//! ```
//!
//! Invariants
//! 1. Tasks that fail together leave a node once: one of them switches, and a connection that another
//!    task has made since is kept.
//! 2. Dialling one node delays no request to another.
//! 3. Nodes with fewer failures in a row are asked first; an accepted answer resets the count. Among equals,
//!    near ones come first, each list in its own order, so that callers spread.
//! 4. How long a node may be silent follows its measured round trips ([`crate::trips`]): a far node is not a
//!    silent one.
//! 5. The nodes given at the start stay for ever; at most [`LEARNED_MAX`] are learned later.

use super::{Endpoint, Error};
use crate::{
    rpc::{self, Client},
    trips::{DIAL_TRIPS, Trips},
};
use commonware_macros::select;
use commonware_utils::sync::Mutex as Lock;
use futures::future::{BoxFuture, Either, select as either};
use posync_protocol::wire::node::{Answer, Ask};
use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::sync::Mutex;

pub(super) type Dial =
    dyn Fn(Endpoint) -> BoxFuture<'static, Result<Client<rpc::Node>, rpc::Error>> + Send + Sync;
pub(super) type Sleep = dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync;
pub(super) type Now = dyn Fn() -> SystemTime + Send + Sync;

/// Time without an answer, beside that of the way, after which a second node is asked as well: a node's own
/// work, and a lost packet.
const HEDGE: Duration = Duration::from_secs(1);
/// Extra time that the slower of two nodes gets, beside that of the way.
const GRACE: Duration = Duration::from_millis(500);
/// Most nodes that are learned from the ledger, beside those given at the start.
pub const LEARNED_MAX: usize = 64;
/// Round trip of a node that was not measured.
const UNMEASURED: u64 = u64::MAX;
/// Milliseconds by which a node may be slower than twice the nearest one and still count as near.
const NEAR_MS: u64 = 10;

/// The node and the connection that a request went to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At {
    /// Index of the node in the list.
    pub(super) place: usize,
    /// Number of the connection; 0 if there was none.
    generation: u64,
}

impl At {
    /// The node at `place`, without a known connection.
    pub(super) const fn nowhere(place: usize) -> Self {
        Self { place, generation: 0 }
    }
}

/// A request that failed, and the node it went to.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(super) at: At,
    pub(super) error: Error,
}

struct Open {
    generation: u64,
    client: Client<rpc::Node>,
}

struct Node {
    endpoint: Endpoint,
    open: Mutex<Option<Open>>,
    /// Failures since the last accepted answer.
    strikes: AtomicU32,
    /// Round trip of the last measured question, in milliseconds.
    trip_ms: AtomicU64,
    /// Estimate of the time of an answer, from all answers over an open connection.
    trips: Lock<Trips>,
}

impl Node {
    fn new(endpoint: Endpoint) -> Arc<Self> {
        let (strikes, trip_ms) = (AtomicU32::new(0), AtomicU64::new(UNMEASURED));
        Arc::new(Self { endpoint, open: Mutex::new(None), strikes, trip_ms, trips: Lock::default() })
    }

    /// Time that the way of a request and its answer takes, and of a connection if none is open.
    fn way(&self) -> Duration {
        let is_open = |open: &Open| !open.client.is_gone();
        let is_open = self.open.try_lock().is_ok_and(|held| held.as_ref().is_some_and(is_open));
        let trips = if is_open { 1 } else { 1 + DIAL_TRIPS };
        self.trips.lock().expected(trips)
    }

    fn strikes(&self) -> u32 {
        self.strikes.load(Ordering::Relaxed)
    }

    fn trip_ms(&self) -> Option<u64> {
        Some(self.trip_ms.load(Ordering::Relaxed)).filter(|trip| *trip != UNMEASURED)
    }
}

/// The longest round trip that counts as near, by the best node that answers.
fn near_ms(nodes: &[Arc<Node>]) -> u64 {
    let answering = nodes.iter().filter(|node| node.strikes() == 0);
    answering.filter_map(|node| node.trip_ms()).min().map_or(UNMEASURED, |best| 2 * best + NEAR_MS)
}

/// The nodes, and which of them is asked.
pub(super) struct Pool {
    nodes: Lock<Vec<Arc<Node>>>,
    /// Number of nodes that were given at the start.
    given: usize,
    current: AtomicUsize,
    generations: AtomicU64,
    dial: Box<Dial>,
    sleep: Box<Sleep>,
    now: Box<Now>,
}

impl Pool {
    /// Starts with the endpoint at `start`, modulo their number.
    pub(super) fn new(
        endpoints: Vec<Endpoint>,
        start: usize,
        dial: Box<Dial>,
        (sleep, now): (Box<Sleep>, Box<Now>),
    ) -> Self {
        let given = endpoints.len();
        let current = AtomicUsize::new(start % given.max(1));
        let nodes = Lock::new(endpoints.into_iter().map(Node::new).collect());
        Self { nodes, given, current, generations: AtomicU64::new(0), dial, sleep, now }
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.lock().len()
    }

    fn node(&self, place: usize) -> Option<Arc<Node>> {
        self.nodes.lock().get(place).cloned()
    }

    pub(super) fn endpoint(&self, place: usize) -> Option<Endpoint> {
        self.node(place).map(|node| node.endpoint.clone())
    }

    /// All nodes, those given at the start first.
    pub(super) fn endpoints(&self) -> Vec<Endpoint> {
        self.nodes.lock().iter().map(|node| node.endpoint.clone()).collect()
    }

    /// The learned nodes alone.
    pub(super) fn learned(&self) -> Vec<Endpoint> {
        self.nodes.lock()[self.given..].iter().map(|node| node.endpoint.clone()).collect()
    }

    /// Adds the nodes that are not there yet, and returns their number. Beyond [`LEARNED_MAX`] a node takes the
    /// place of the learned one with the most failures, if that is not in the list any more.
    pub(super) fn learn(&self, listed: &[Endpoint]) -> usize {
        let mut nodes = self.nodes.lock();
        let mut added = 0;
        for endpoint in listed {
            if nodes.iter().any(|node| node.endpoint == *endpoint) {
                continue;
            }
            if nodes.len() < self.given + LEARNED_MAX {
                nodes.push(Node::new(endpoint.clone()));
                added += 1;
                continue;
            }
            let current = self.current();
            let gone = |place: &usize| *place != current && !listed.contains(&nodes[*place].endpoint);
            let worst = (self.given..nodes.len()).filter(gone).max_by_key(|place| nodes[*place].strikes());
            if let Some(place) = worst {
                nodes[place] = Node::new(endpoint.clone());
                added += 1;
            }
        }
        added
    }

    /// The nodes whose round trip is not known, without those that failed last.
    pub(super) fn unmeasured(&self) -> Vec<usize> {
        let nodes = self.nodes.lock();
        let wanted = |place: &usize| nodes[*place].strikes() == 0 && nodes[*place].trip_ms().is_none();
        (0..nodes.len()).filter(wanted).collect()
    }

    pub(super) fn measured(&self, place: usize, trip: Duration) {
        if let Some(node) = self.node(place) {
            let trip = u64::try_from(trip.as_millis()).unwrap_or(UNMEASURED - 1);
            node.trip_ms.store(trip, Ordering::Relaxed);
        }
    }

    /// Leaves the current node without blame if it is far, for a near one that is not in `avoid`; `draw`
    /// chooses among several.
    pub(super) fn prefer_near(&self, avoid: &[Endpoint], draw: u64) {
        let nodes = self.nodes.lock();
        let (current, near) = (self.current(), near_ms(&nodes));
        let is_far = |node: &Node| node.trip_ms().is_some_and(|trip| trip > near);
        if !nodes.get(current).is_some_and(|node| is_far(node)) {
            return;
        }
        let fits = |place: &usize| {
            let node = &nodes[*place];
            node.strikes() == 0
                && node.trip_ms().is_some_and(|trip| trip <= near)
                && !avoid.contains(&node.endpoint)
        };
        let fitting: Vec<usize> = (0..nodes.len()).filter(fits).collect();
        if let Some(place) = fitting.get(draw as usize % fitting.len().max(1)) {
            let _ = self.current.compare_exchange(current, *place, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// Closes the connection to a node that is not the current one.
    pub(super) fn close(&self, place: usize) {
        if place != self.current()
            && let Some(node) = self.node(place)
            && let Ok(mut held) = node.open.try_lock()
        {
            *held = None;
        }
    }

    pub(super) fn current(&self) -> usize {
        self.current.load(Ordering::Acquire)
    }

    /// Makes the endpoint at `place` the current one.
    pub(super) fn begin_at(&self, place: usize) {
        self.current.store(place % self.len().max(1), Ordering::Release);
    }

    pub(super) fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        (self.sleep)(duration)
    }

    /// The best node other than the one at `place`: fewest strikes, near, then the next in the list.
    pub(super) fn beside(&self, place: usize) -> Option<usize> {
        let nodes = self.nodes.lock();
        let (count, near) = (nodes.len(), near_ms(&nodes));
        let others = (1..count).map(|step| (place + step) % count);
        others.min_by_key(|other| {
            let node = &nodes[*other];
            (node.strikes(), node.trip_ms().is_some_and(|trip| trip > near))
        })
    }

    /// Returns an open connection to the node at `place`, dialling if necessary.
    pub(super) async fn client(&self, place: usize) -> Result<(At, Client<rpc::Node>), Failed> {
        let nobody = At::nowhere(place);
        let failed = |error| Failed { at: nobody, error };
        let node = self.node(place).ok_or_else(|| failed(Error::NoEndpoint))?;
        let mut held = node.open.lock().await;
        if let Some(open) = held.as_ref().filter(|open| !open.client.is_gone()) {
            return Ok((At { place, generation: open.generation }, open.client.clone()));
        }
        let begun = (self.now)();
        let client = (self.dial)(node.endpoint.clone()).await;
        if client.is_ok() {
            node.trips.lock().took(self.since(begun) / DIAL_TRIPS);
        }
        let client = client.map_err(|error| failed(Error::Unreachable(error.to_string())))?;
        let generation = self.generations.fetch_add(1, Ordering::Relaxed) + 1;
        *held = Some(Open { generation, client: client.clone() });
        Ok((At { place, generation }, client))
    }

    fn since(&self, begun: SystemTime) -> Duration {
        (self.now)().duration_since(begun).unwrap_or_default()
    }

    fn way(&self, place: usize) -> Duration {
        self.node(place).map_or(Duration::ZERO, |node| node.way())
    }

    /// Time without an answer after which the node at `place` counts as silent.
    fn patience(&self, place: usize) -> Duration {
        HEDGE + self.way(place)
    }

    /// Time that the node at `place` has to answer a request that it answers at once.
    pub(super) fn limit(&self, place: usize) -> Duration {
        self.patience(place) * 2
    }

    /// Time by which the node at `place` may be slower than another one.
    pub(super) fn grace(&self, place: usize) -> Duration {
        GRACE + self.way(place)
    }

    /// Leaves a node for the next best one, unless another task has done so.
    pub(super) fn leave(&self, at: At) {
        let Some(node) = self.node(at.place) else { return };
        node.strikes.fetch_add(1, Ordering::Relaxed);
        // If the lock is held, another task is dialling the node again.
        if let Ok(mut held) = node.open.try_lock()
            && held.as_ref().is_some_and(|open| open.generation == at.generation)
        {
            *held = None;
        }
        if let Some(next) = self.beside(at.place) {
            let _ = self.current.compare_exchange(at.place, next, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// Resets the node's strikes, as its answer was accepted.
    fn clear(&self, at: At) {
        if let Some(node) = self.node(at.place) {
            node.strikes.store(0, Ordering::Relaxed);
        }
    }

    /// The result of `work` if it comes within `limit`.
    pub(super) async fn within<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Result<T, Error> {
        let limit = self.sleep(limit);
        select! {
            done = work => Ok(done),
            () = limit => Err(Error::Unreachable("no answer in time".into())),
        }
    }

    /// Sends a request to the node at `place`, once, and judges its answer.
    pub(super) async fn once<T>(
        &self,
        place: usize,
        limit: Duration,
        ask: &Ask,
        judge: &(impl Fn(Answer) -> Result<T, Error> + Sync),
    ) -> Result<(At, T), Failed> {
        let generation = AtomicU64::new(0);
        let asked = async {
            let (at, client) = self.client(place).await?;
            generation.store(at.generation, Ordering::Relaxed);
            let begun = (self.now)();
            let answer =
                client.call(ask.clone()).await.map_err(|error| Error::Unreachable(error.to_string()));
            if answer.is_ok() && is_prompt(ask) {
                self.node(place).into_iter().for_each(|node| node.trips.lock().took(self.since(begun)));
            }
            match answer.and_then(judge) {
                Ok(value) => Ok((at, value)),
                Err(error) => Err(Failed { at, error }),
            }
        };
        let asked = self.within(limit, asked).await;
        let silent = At { place, generation: generation.load(Ordering::Relaxed) };
        let asked = asked.map_err(|error| Failed { at: silent, error })?;
        let (at, value) = asked?;
        self.clear(at);
        Ok((at, value))
    }

    /// Runs `work` at the current node, and at the next best one as well if the first stays silent for
    /// longer than its way and `beside` take. The first success is returned; if it is the second node's, the
    /// silent one is left.
    pub(super) async fn hedged<T, F>(
        &self,
        beside: Duration,
        work: impl Fn(usize) -> F,
    ) -> Result<(At, T), Failed>
    where
        F: Future<Output = Result<(At, T), Failed>>,
    {
        let (first, begun) = (self.current(), (self.now)());
        let mut asked = pin!(work(first));
        let late = self.sleep(self.patience(first) + beside);
        let other = match either(asked.as_mut(), late).await {
            Either::Left((done, _)) => return done,
            Either::Right(_) => self.beside(first),
        };
        let Some(other) = other else { return asked.await };
        let mut second = pin!(work(other));
        match either(asked.as_mut(), second.as_mut()).await {
            Either::Left((Ok(done), _)) => Ok(done),
            Either::Right((Ok(done), _)) => {
                let waited = self.since(begun).saturating_sub(beside);
                self.node(first).into_iter().for_each(|node| node.trips.lock().gave_up(waited));
                self.leave(At::nowhere(first));
                Ok(done)
            }
            Either::Left((Err(failed), _)) => {
                self.leave(failed.at);
                second.await
            }
            Either::Right((Err(failed), _)) => {
                self.leave(failed.at);
                asked.await
            }
        }
    }

    /// A connection to the current node, or to the next best one if that is slow.
    pub(super) async fn connected(&self) -> Result<(At, Client<rpc::Node>), Failed> {
        self.hedged(Duration::ZERO, |place| self.client(place)).await
    }

    /// Sends a request, and sends it to a second node as well if the first is slow.
    pub(super) async fn ask<T>(
        &self,
        limit: Duration,
        ask: &Ask,
        judge: &(impl Fn(Answer) -> Result<T, Error> + Sync),
    ) -> Result<(At, T), Failed> {
        // A node may hold a request for a receipt this long by its rules; only after that is it slow.
        let beside = match ask {
            Ask::Receipt(_) => Duration::from_millis(posync_protocol::limits::RECEIPT_WAIT_MS),
            _ => Duration::ZERO,
        };
        self.hedged(beside, |place| self.once(place, limit, ask, judge)).await
    }
}

/// True if a node answers such a request at once, so that the time of the answer is that of the way.
const fn is_prompt(ask: &Ask) -> bool {
    !matches!(ask, Ask::Receipt(_) | Ask::DialBack(_))
}
