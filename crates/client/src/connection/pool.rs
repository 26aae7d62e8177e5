//! Chooses the node that is asked: one at a time, and a second when the first is slow. None is believed without
//! proof.
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
//! 4. How long a node may be silent is counted beside its distance ([`crate::trips`]): a far node is not a
//!    silent one.
//! 5. The nodes given at the start stay for ever; at most [`LEARNED_MAX`] are learned later. A learned node that
//!    answers is never replaced by a stranger.
//! 6. Trusted nodes are the given ones and those with a seat. All others are strangers: one is chosen only while every
//!    trusted node has failed last. While one trusted node alone answers, a stranger's proved height is compared with its
//!    own ([`Pool::opinions_beside`]), and a stranger gets the second copy of an operation; it answers nothing in its
//!    place.

use super::{Endpoint, Error, Learned};
use crate::{
    address::{self, Address, Scope},
    rpc::{self, Client},
    trips::{DIAL_TRIPS, Trips},
};
use commonware_macros::select;
use commonware_utils::sync::{AsyncMutex, Mutex as Lock};
use futures::future::{BoxFuture, Either, select as either};
use posync_protocol::wire::node::{Ask, NodeAnswer, Unavailable};
use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

/// Opens a connection to a node; the flag is true for one that was given at the start.
pub(super) type Dial =
    dyn Fn(Endpoint, bool) -> BoxFuture<'static, Result<Client<rpc::Node>, rpc::Error>> + Send + Sync;
pub(super) type Sleep = dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync;
pub(super) type Now = dyn Fn() -> SystemTime + Send + Sync;

/// Time without an answer, beside that of the way, after which a second node is asked as well: a node's own
/// work, and a lost packet.
const HEDGE: Duration = Duration::from_secs(1);
/// Extra time that the slower of two nodes gets, beside that of the way.
const GRACE: Duration = Duration::from_millis(500);
/// Most nodes that are learned from the ledger, beside those given at the start.
pub(crate) const LEARNED_MAX: usize = 64;
/// Most strangers whose newest blocks are compared with that of a trusted node, side by side.
const OPINIONS: usize = 4;
/// Most strangers that are learned at one host, outside a private network.
const SAME_HOST_MAX: usize = 2;
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

impl Failed {
    /// True if the node did not do its part. That it has not what is asked for, or refuses it, is an answer.
    const fn is_fault(&self) -> bool {
        !matches!(
            self.error,
            Error::Refused(_) | Error::Unavailable(Unavailable::Pruned | Unavailable::NotYet)
        )
    }
}

struct Open {
    generation: u64,
    client: Client<rpc::Node>,
}

struct Node {
    endpoint: Endpoint,
    open: AsyncMutex<Option<Open>>,
    /// True for a given node, and for one that had a seat when the list was read last.
    is_trusted: AtomicBool,
    /// True once an answer was accepted.
    has_answered: AtomicBool,
    /// Failures since the last accepted answer.
    strikes: AtomicU32,
    /// Round trip of the last measured question, in milliseconds.
    trip_ms: AtomicU64,
    /// Estimate of the time of an answer, from all answers over an open connection.
    trips: Lock<Trips>,
}

impl Node {
    fn new(endpoint: Endpoint, is_trusted: bool) -> Arc<Self> {
        let (strikes, trip_ms) = (AtomicU32::new(0), AtomicU64::new(UNMEASURED));
        let (is_trusted, has_answered) = (AtomicBool::new(is_trusted), AtomicBool::new(false));
        let (open, trips) = (AsyncMutex::new(None), Lock::default());
        Arc::new(Self { endpoint, open, is_trusted, has_answered, strikes, trip_ms, trips })
    }

    fn is_trusted(&self) -> bool {
        self.is_trusted.load(Ordering::Relaxed)
    }

    fn is_trusted_and_answers(&self) -> bool {
        self.is_trusted() && self.strikes() == 0
    }

    /// True if it has answered, and not failed since.
    fn is_well(&self) -> bool {
        self.has_answered.load(Ordering::Relaxed) && self.strikes() == 0
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

/// True if a trusted node did not fail last: then strangers are not asked.
fn has_trusted(nodes: &[Arc<Node>]) -> bool {
    nodes.iter().any(|node| node.is_trusted_and_answers())
}

/// The places of the nodes that may be asked: the trusted ones while one of them answers, otherwise all.
fn askable(nodes: &[Arc<Node>]) -> impl Iterator<Item = usize> + Clone + use<'_> {
    let trusted_only = has_trusted(nodes);
    (0..nodes.len()).filter(move |place| !trusted_only || nodes[*place].is_trusted())
}

/// The longest round trip that counts as near, by the best node that answers and may be asked.
fn near_ms(nodes: &[Arc<Node>]) -> u64 {
    let answering = askable(nodes).map(|place| &nodes[place]).filter(|node| node.strikes() == 0);
    answering.filter_map(|node| node.trip_ms()).min().map_or(UNMEASURED, |best| 2 * best + NEAR_MS)
}

/// The best of some nodes other than the one at `place`, the best first: fewest strikes, trusted, near, then the next in
/// the list.
fn ranked(nodes: &[Arc<Node>], places: impl Iterator<Item = usize>, place: usize) -> Vec<usize> {
    let (count, near) = (nodes.len(), near_ms(nodes));
    let mut ranked: Vec<usize> = places.filter(|other| *other != place).collect();
    ranked.sort_by_key(|other| {
        let node = &nodes[*other];
        let is_far = node.trip_ms().is_some_and(|trip| trip > near);
        (node.strikes(), !node.is_trusted(), is_far, (other + count - place) % count)
    });
    ranked
}

/// The host of an address that anyone may name; `None` in a private network, where nodes share machines.
fn host(address: &Address) -> Option<String> {
    match address {
        Address::Ip(at) if address::scope(at.ip()) == Scope::Internet => {
            Some(address::group(at.ip()).to_string())
        }
        Address::Ip(_) => None,
        Address::Name(name, _) => Some(name.to_string()),
    }
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
    /// Trusts these endpoints, and starts with the one at `start`, modulo their number.
    pub(super) fn new(
        endpoints: Vec<Endpoint>,
        start: usize,
        dial: Box<Dial>,
        (sleep, now): (Box<Sleep>, Box<Now>),
    ) -> Self {
        let given = endpoints.len();
        let current = AtomicUsize::new(start % given.max(1));
        let nodes = Lock::new(endpoints.into_iter().map(|endpoint| Node::new(endpoint, true)).collect());
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
    pub(super) fn learned(&self) -> Vec<Learned> {
        self.learned_if(|_| true)
    }

    /// The learned nodes that have answered.
    pub(super) fn learned_and_heard(&self) -> Vec<Learned> {
        self.learned_if(|node| node.has_answered.load(Ordering::Relaxed))
    }

    /// The learned nodes that have not answered.
    pub(super) fn unheard(&self) -> Vec<usize> {
        let nodes = self.nodes.lock();
        let is_unheard = |place: &usize| !nodes[*place].has_answered.load(Ordering::Relaxed);
        (self.given..nodes.len()).filter(is_unheard).collect()
    }

    fn learned_if(&self, fits: impl Fn(&Node) -> bool) -> Vec<Learned> {
        let nodes = self.nodes.lock();
        let learned =
            |node: &Arc<Node>| Learned { endpoint: node.endpoint.clone(), has_seat: node.is_trusted() };
        nodes[self.given..].iter().filter(|node| fits(node)).map(learned).collect()
    }

    /// Adds nodes that were known in an earlier run, as far as there is room, and returns their number.
    pub(super) fn recall(&self, kept: &[Learned]) -> usize {
        let mut nodes = self.nodes.lock();
        let before = nodes.len();
        for node in kept {
            let is_known = nodes.iter().any(|known| known.endpoint == node.endpoint);
            if !is_known && nodes.len() < self.given + LEARNED_MAX {
                nodes.push(Node::new(node.endpoint.clone(), node.has_seat));
            }
        }
        nodes.len() - before
    }

    /// Takes over the whole list of the ledger: who has a seat, and the nodes that are not there yet. Returns the
    /// number of those added.
    pub(super) fn learn(&self, listed: &[Learned]) -> usize {
        let mut nodes = self.nodes.lock();
        for node in &nodes[self.given..] {
            let has_seat = listed.iter().any(|listed| listed.has_seat && listed.endpoint == node.endpoint);
            node.is_trusted.store(has_seat, Ordering::Relaxed);
        }
        let (seats, strangers): (Vec<_>, Vec<_>) = listed.iter().partition(|node| node.has_seat);
        let new = seats.into_iter().chain(strangers);
        new.filter(|new| self.place(&mut nodes, new, listed)).count()
    }

    /// Adds a node. Beyond [`LEARNED_MAX`] it takes the place of another one: a stranger that of a node that is not
    /// well and not listed any more, one with a seat that of any stranger. Returns false if it is known or there is no
    /// such place.
    fn place(&self, nodes: &mut Vec<Arc<Node>>, new: &Learned, listed: &[Learned]) -> bool {
        let learned = &nodes[self.given..];
        if nodes.iter().any(|node| node.endpoint == new.endpoint) {
            return false;
        }
        let host = host(&new.endpoint.address).filter(|_| !new.has_seat);
        let at_host = |node: &&Arc<Node>| host.is_some() && self::host(&node.endpoint.address) == host;
        if learned.iter().filter(at_host).count() >= SAME_HOST_MAX {
            return false;
        }
        let node = Node::new(new.endpoint.clone(), new.has_seat);
        if learned.len() < LEARNED_MAX {
            nodes.push(node);
            return true;
        }
        let is_gone = |node: &Node| listed.iter().all(|listed| listed.endpoint != node.endpoint);
        let current = self.current();
        let gives_way = |place: &usize| {
            let old = &nodes[*place];
            *place != current && !old.is_trusted() && (new.has_seat || (!old.is_well() && is_gone(old)))
        };
        // A node that is listed and well is the last to go.
        let worst = (self.given..nodes.len())
            .filter(gives_way)
            .max_by_key(|place| (!nodes[*place].is_well(), is_gone(&nodes[*place]), nodes[*place].strikes()));
        let Some(place) = worst else { return false };
        nodes[place] = node;
        true
    }

    /// The nodes whose round trip is not known, of those that may be asked and did not fail last.
    pub(super) fn unmeasured(&self) -> Vec<usize> {
        let nodes = self.nodes.lock();
        let wanted = |place: &usize| nodes[*place].strikes() == 0 && nodes[*place].trip_ms().is_none();
        askable(&nodes).filter(wanted).collect()
    }

    pub(super) fn measured(&self, place: usize, trip: Duration) {
        if let Some(node) = self.node(place) {
            let trip = u64::try_from(trip.as_millis()).unwrap_or(UNMEASURED - 1);
            node.trip_ms.store(trip, Ordering::Relaxed);
        }
    }

    /// Leaves the current node without blame if it is far, for a near trusted one that is not in `avoid`; `draw`
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
            node.is_trusted()
                && node.strikes() == 0
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

    /// The best node other than the one at `place`: fewest strikes, trusted, near, then the next in the list. Never a
    /// stranger while a trusted node answers, be it the one at `place`.
    pub(super) fn beside(&self, place: usize) -> Option<usize> {
        let nodes = self.nodes.lock();
        ranked(&nodes, askable(&nodes), place).first().copied()
    }

    /// The nodes whose newest blocks are compared with that of the node at `place`: another trusted one, if one did not
    /// fail last, or the best of all others, at most [`OPINIONS`]. A stranger's block is proved, so all that a stranger
    /// can do is to withhold it, or to hang.
    pub(super) fn opinions_beside(&self, place: usize) -> Vec<usize> {
        let nodes = self.nodes.lock();
        let trusted = (0..nodes.len()).filter(|other| nodes[*other].is_trusted_and_answers());
        let mut opinions = ranked(&nodes, trusted, place);
        let most = if opinions.is_empty() {
            opinions = ranked(&nodes, 0..nodes.len(), place);
            OPINIONS
        } else {
            1
        };
        opinions.truncate(most);
        opinions
    }

    /// The nodes other than the current one that may be asked, in their order after it: those that did not fail last,
    /// or all if there are none.
    pub(super) fn others(&self) -> Vec<usize> {
        let nodes = self.nodes.lock();
        let (count, current) = (nodes.len(), self.current());
        let fits = |place: &usize| *place != current && nodes[*place].strikes() == 0;
        let mut others: Vec<usize> = askable(&nodes).filter(fits).collect();
        if others.is_empty() {
            others = askable(&nodes).filter(|place| *place != current).collect();
        }
        others.sort_by_key(|place| (place + count - current) % count);
        others
    }

    /// The nodes that get a second copy of an operation: as [`Self::others`], and strangers that did not fail last while
    /// no other trusted node answers.
    pub(super) fn others_or_strangers(&self) -> Vec<usize> {
        let others = self.others();
        let nodes = self.nodes.lock();
        if others.iter().any(|place| nodes[*place].strikes() == 0) {
            return others;
        }
        let (count, current) = (nodes.len(), self.current());
        let after = (1..count).map(|step| (current + step) % count);
        let well: Vec<usize> = after.filter(|place| nodes[*place].strikes() == 0).collect();
        if well.is_empty() { others } else { well }
    }

    /// Two lists of places, each account once: the trusted nodes, and the strangers.
    pub(super) fn classes(&self) -> (Vec<usize>, Vec<usize>) {
        let nodes = self.nodes.lock();
        let account = |place: usize| nodes[place].endpoint.account;
        let is_first = |place: &usize| (0..*place).all(|before| account(before) != account(*place));
        (0..nodes.len()).filter(is_first).partition(|place| nodes[*place].is_trusted())
    }

    /// The trusted nodes that failed last.
    pub(super) fn silent_trusted(&self) -> Vec<usize> {
        let nodes = self.nodes.lock();
        (0..nodes.len()).filter(|place| nodes[*place].is_trusted() && nodes[*place].strikes() > 0).collect()
    }

    /// True for a trusted node.
    pub(super) fn is_trusted(&self, place: usize) -> bool {
        self.node(place).is_some_and(|node| node.is_trusted())
    }

    /// True while a stranger is asked though there are trusted nodes.
    pub(super) fn is_away(&self) -> bool {
        let nodes = self.nodes.lock();
        let is_stranger = nodes.get(self.current()).is_some_and(|node| !node.is_trusted());
        is_stranger && nodes.iter().any(|node| node.is_trusted())
    }

    /// The next trusted node that did not fail last and is not in `tried`.
    pub(super) fn next_trusted(&self, tried: &[usize]) -> Option<usize> {
        let nodes = self.nodes.lock();
        let (count, current) = (nodes.len(), self.current());
        let fits = |place: &usize| {
            nodes[*place].is_trusted() && nodes[*place].strikes() == 0 && !tried.contains(place)
        };
        (0..count).map(|step| (current + step) % count).find(fits)
    }

    /// The next node that did not fail last and is not in `tried`.
    pub(super) fn next_stranger(&self, tried: &[usize]) -> Option<usize> {
        let nodes = self.nodes.lock();
        let (count, current) = (nodes.len(), self.current());
        let fits = |place: &usize| nodes[*place].strikes() == 0 && !tried.contains(place);
        (0..count).map(|step| (current + step) % count).find(fits)
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
        let client = (self.dial)(node.endpoint.clone(), place < self.given).await;
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
    pub(super) fn patience(&self, place: usize) -> Duration {
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

    /// Leaves a node that did not do its part.
    pub(super) fn blame(&self, failed: &Failed) {
        if failed.is_fault() {
            self.leave(failed.at);
        }
    }

    /// Resets the node's strikes, as its answer was accepted.
    fn clear(&self, at: At) {
        if let Some(node) = self.node(at.place) {
            node.strikes.store(0, Ordering::Relaxed);
            node.has_answered.store(true, Ordering::Relaxed);
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
        judge: &(impl Fn(NodeAnswer) -> Result<T, Error> + Sync),
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
        let first = self.current();
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
                self.leave(At::nowhere(first));
                Ok(done)
            }
            Either::Left((Err(failed), _)) => {
                self.blame(&failed);
                second.await
            }
            // The second node's word is an answer: nobody waits for the silent one as well.
            Either::Right((Err(failed), _)) if !failed.is_fault() => {
                self.leave(At::nowhere(first));
                Err(failed)
            }
            Either::Right((Err(failed), _)) => {
                self.blame(&failed);
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
        judge: &(impl Fn(NodeAnswer) -> Result<T, Error> + Sync),
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
