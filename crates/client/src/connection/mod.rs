//! A connection to the node service of a network: several nodes, one of them at a time, none believed without proof.
//!
//! ```text
//!   caller ──► Connection ──ask──► node A ──✕ lost, late, or not believed
//!                         └──ask──► node B ──answer──► Light ──► typed record, header, body
//! ```
//!
//! Invariants
//! 1. Everything returned as proved was verified by [`Light`]. [`Connection::info`] and events are a
//!    node's word, as their comments say.
//! 2. A node that is lost, late or gives an answer that does not verify is left for the next one. A
//!    refusal is checked with a second node. A request fails at most [`ASK_ATTEMPTS`] times.
//! 3. A proven read is at most [`STALE_BLOCKS_MAX`] blocks behind the newest header seen here or kept
//!    from an earlier run ([`Connection::raise_floor`]), and never older than the newest own operation.
//! 4. A node without a new block for [`STILL`], or with blocks that are old for that long, is compared with a second
//!    one, and left if that is ahead.
//! 5. That a block is not there is believed when every trusted node that answers has said so. One that does not have a
//!    block that is proved to be final lags, and has no say; while another one says "not final yet", none is "pruned".
//! 6. A stranger is asked only while no trusted node answers ([`pool`]); the trusted ones are then tried again and
//!    again, and the first that answers takes over. One trusted node that answers alone is compared with a stranger, and
//!    left while a stranger proves that it is behind.
//!
//! A connection may be cloned and used from many tasks; clones share it.

mod error;
mod follow;
mod home;
mod known;
mod pool;
mod reach;
#[cfg(test)]
mod stranger_tests;
#[cfg(test)]
mod tests;

pub use error::Error;
pub(crate) use follow::FollowBodies;
pub use follow::{Follow, Run};
use home::Home;
pub(crate) use pool::LEARNED_MAX;
use pool::{At, Failed, Pool};
pub use reach::Reach;

use crate::{
    Backoff,
    address::Address,
    light::{self, Light, SYNC_PROOF_BYTES_MAX, Subject, SyncProof, network_key_bytes},
    rpc::{self, Call, Client},
};
use commonware_cryptography::ed25519::PrivateKey;
use commonware_runtime::{Clock, Network, Resolver, Spawner};
use commonware_utils::sync::Mutex;
use futures::{
    FutureExt as _, StreamExt as _,
    future::{Either, join_all, select as either},
    stream::FuturesUnordered,
};
use posync_protocol::{
    Account, Bounded, Code, Hash, Key, Operation, Record, Slot,
    block::{BlockBody, Header, Receipts},
    ledger::Event,
    limits::{ANSWER_MS_MAX, ASK_ATTEMPTS, ASK_PAUSE_MS, READ_KEYS_MAX, STALE_BLOCKS_MAX},
    record::System,
    wire::node::{Ask, Info, NodeAnswer, Nothing, Read, Receipt, STATE_ASK_BYTES_MAX, Unavailable},
};
use rand_core::CryptoRng;
use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Time without a newer block from a node after which a second node is asked for its height. It is
/// measured by the wall clock: a step of that clock costs or saves one request.
const STILL: Duration = Duration::from_secs(5);
/// Blocks by which two healthy nodes may differ at any moment.
const APART_BLOCKS_MAX: u64 = 4;
/// Most strangers that are asked for what one of them cannot show.
const ASKED_MAX: usize = 6;
/// Nodes that must refuse an operation.
const REFUSED_MAX: usize = 2;
/// Time that a node has to answer a request.
const ANSWER: Duration = Duration::from_millis(ANSWER_MS_MAX);

/// A node: its account and its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Account whose key the node proves.
    pub account: Account,
    /// Address of its node service.
    pub address: Address,
}

/// A node that was learned from the ledger's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// Its account and address.
    pub endpoint: Endpoint,
    /// True if it had a seat when the list was read: then it is trusted as a given one.
    pub has_seat: bool,
}

/// A proved value, and the certified header that it was proved against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proved<T> {
    /// Certified header of the block whose state or outcome it is.
    pub header: Header,
    /// Value that the proof holds for.
    pub value: T,
}

/// A block's receipts, which are checked, and its events, which are the node's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Receipts, checked against the certified header.
    pub receipts: Receipts,
    /// Events, without a proof.
    pub events: Vec<Event>,
}

/// A node's answer when all are asked for their height.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Node that was asked.
    pub endpoint: Endpoint,
    /// Newest certified header that it proves, or why there is none.
    pub newest: Result<Header, String>,
    /// Milliseconds by which its clock is ahead of this machine's, to half a round trip, if it says.
    pub ahead_ms: Option<i64>,
}

/// Decodes a slot of a proved state.
///
/// # Errors
/// [`light::Error::Malformed`] if the slot holds another kind of record.
pub fn decode<R: Record>(slot: Option<Slot>) -> Result<Option<R>, Error> {
    let record = slot.map(|slot| R::from_slot(&slot)).transpose();
    record.map_err(|_| light::Error::Malformed("the record").into())
}

struct Inner {
    pool: Pool,
    random: Box<dyn Fn() -> u64 + Send + Sync>,
    now: Box<dyn Fn() -> SystemTime + Send + Sync>,
    light: Light,
    height: AtomicU64,
    /// The newest block with an own operation.
    written: AtomicU64,
    /// When the height rose.
    moved: Mutex<Option<SystemTime>>,
    /// When the height of the node that is asked was last compared with another node's.
    compared: Mutex<Option<SystemTime>>,
    reach: Reach,
    home: Mutex<Home>,
    /// The node with which the rotation of second copies begins.
    turn: usize,
}

/// The course of one request: its failures, and the nodes that answered that they have not what is asked for.
#[derive(Default)]
pub(crate) struct Course {
    failures: u32,
    tried: Vec<usize>,
    /// Height of the block that is asked for; 0 if there is none.
    height: u64,
    /// A node that said that it has dropped the block.
    pruned: Option<At>,
    /// True if a node said that the block is not final yet.
    is_early: bool,
}

impl Course {
    /// The course of a request for the block at `height`.
    pub(crate) fn of_block(height: u64) -> Self {
        Self { height, ..Self::default() }
    }
}

/// A connection to the nodes of a network.
#[derive(Clone)]
pub struct Connection(Arc<Inner>);

impl Connection {
    /// Asks `endpoints` in turn, starting with a random one, as the holder of `key`.
    pub fn new<E, N>(context: E, network: N, key: PrivateKey, endpoints: Vec<Endpoint>, light: Light) -> Self
    where
        E: Spawner + Clock + CryptoRng + Resolver,
        N: Network,
    {
        let random = Mutex::new(context.child("random"));
        let random = move || random.lock().next_u64();
        let (start, turn) = (random() as usize, random() as usize);
        let reach = Reach::of(&endpoints);
        let dialled = reach.clone();
        let (dialing, network) = (Arc::new(context), Arc::new(network));
        let (sleeping, clock, timing) = (dialing.clone(), dialing.clone(), dialing.clone());
        let dial = move |endpoint: Endpoint, is_given: bool| {
            let (context, network, key) = (dialing.child("node"), network.clone(), key.clone());
            let reach = dialled.clone();
            let may_dial = move |ip| {
                if is_given {
                    reach.widen(ip);
                }
                is_given || reach.allows(ip)
            };
            let peer = (endpoint.account, endpoint.address);
            async move { Client::dial_where(context, &*network, &key, peer, may_dial).await }.boxed()
        };
        let sleep = move |pause| sleeping.sleep(pause).boxed();
        Self(Arc::new(Inner {
            pool: Pool::new(
                endpoints,
                start,
                Box::new(dial),
                (Box::new(sleep), Box::new(move || timing.current())),
            ),
            random: Box::new(random),
            now: Box::new(move || clock.current()),
            light,
            height: AtomicU64::new(0),
            written: AtomicU64::new(0),
            moved: Mutex::new(None),
            compared: Mutex::new(None),
            reach,
            home: Mutex::default(),
            turn,
        }))
    }

    /// Starts with the endpoint at `place` instead of a random one.
    #[must_use]
    pub fn beginning_at(self, place: usize) -> Self {
        self.0.pool.begin_at(place);
        self
    }

    /// Sets the floor: `height` was proved before, and reads from far below it are rejected.
    pub fn raise_floor(&self, height: u64) {
        self.0.height.fetch_max(height, Ordering::AcqRel);
    }

    /// The newest height that was proved or remembered; 0 if there is none.
    pub fn floor(&self) -> u64 {
        self.0.height.load(Ordering::Acquire)
    }

    /// Random bits from the runtime.
    pub(crate) fn random(&self) -> u64 {
        (self.0.random)()
    }

    /// Waits for `duration` on the runtime's clock.
    pub(crate) fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + Unpin + use<> {
        self.0.pool.sleep(duration)
    }

    /// Asks two nodes for their newest certified header; later reads are not far below the newer one. A node
    /// that is slower than the other by half a second and its way is not waited for.
    ///
    /// # Errors
    /// [`Error`], if neither node answers.
    pub async fn compare(&self) -> Result<u64, Error> {
        self.come_home().await;
        let first = self.0.pool.current();
        let Some(second) = self.opinions_beside(first).await.first().copied() else {
            return Ok(self.read::<System>(System::key()).await?.header.height);
        };
        let (mut here, mut there) = (pin!(self.newest_at(first)), pin!(self.newest_at(second)));
        let late = |error| Failed { at: At::nowhere(first), error };
        let (here, there) = match either(here.as_mut(), there.as_mut()).await {
            Either::Left((Ok(here), _)) => {
                let grace = self.0.pool.grace(second);
                let there = self.0.pool.within(grace, there).await.ok().and_then(Result::ok);
                if there.is_none() && !self.0.pool.is_trusted(second) {
                    // Another stranger is asked the next time.
                    self.0.pool.leave(At::nowhere(second));
                }
                (Ok(here), there)
            }
            Either::Left((failed, _)) => (failed, there.await.ok()),
            Either::Right((Ok(there), _)) => {
                let here = self.0.pool.within(self.0.pool.grace(first), here).await;
                (here.map_err(late).and_then(|here| here), Some(there))
            }
            Either::Right((Err(_), _)) => (here.await, None),
        };
        match (here, there) {
            (Err(_), None) => Ok(self.read::<System>(System::key()).await?.header.height),
            (Err(failed), Some(_)) => {
                self.0.pool.leave(failed.at);
                Ok(self.floor())
            }
            (Ok((at, header)), Some(other)) => {
                let height = other.1.height;
                if header.height + APART_BLOCKS_MAX < height && self.is_still_behind(at.place, height).await {
                    self.0.pool.leave(at);
                }
                Ok(self.floor())
            }
            (Ok(_), None) => Ok(self.floor()),
        }
    }

    /// The nodes with whose newest blocks that of the node at `place` is compared. Before strangers are, the trusted nodes
    /// that failed last are tried again, if it is time.
    async fn opinions_beside(&self, place: usize) -> Vec<usize> {
        let others = self.0.pool.opinions_beside(place);
        if others.iter().all(|other| self.0.pool.is_trusted(*other)) {
            return others;
        }
        self.try_trusted(false).await;
        self.0.pool.opinions_beside(place)
    }

    /// Asks every node at the same time for its newest certified header.
    pub async fn survey(&self) -> Vec<Heard> {
        let places = 0..self.0.pool.len();
        join_all(places.map(|place| async move {
            let newest = self.newest_at(place).await;
            // The connection is open before the time that counts.
            let ahead_ms = if newest.is_ok() { self.clock(place).await } else { None };
            let newest = newest.map(|(_, header)| header).map_err(|failed| failed.error.to_string());
            Heard { endpoint: self.0.pool.endpoint(place).expect("it is in the list"), newest, ahead_ms }
        }))
        .await
    }

    /// Returns the newest certified header of the node at `place`.
    async fn newest_at(&self, place: usize) -> Result<(At, Header), Failed> {
        let keys = [System::key()];
        let ask = Ask::Read(Bounded::new(keys.to_vec()).expect("one"));
        let judge = |answer| match answer {
            NodeAnswer::Read(read) => {
                self.0.light.read(&keys, &read)?;
                let last = read.certified.headers.last().expect("a verified answer has one");
                self.saw(last.height);
                Ok(last.clone())
            }
            other => unexpected(&other),
        };
        self.0.pool.once(place, self.0.pool.limit(place), &ask, &judge).await
    }

    /// The light client that verifies all answers.
    pub fn light(&self) -> &Light {
        &self.0.light
    }

    /// The height of the newest certified header seen here. If there is none, it reads one.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn height(&self) -> Result<u64, Error> {
        match self.floor() {
            0 => Ok(self.read::<System>(System::key()).await?.header.height),
            height => Ok(height),
        }
    }

    /// A node's description of the network. Chain and network key are compared; the rest is its word.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn info(&self) -> Result<Info, Error> {
        self.ask(Ask::Info(Nothing {}), |answer| match answer {
            NodeAnswer::Info(info) => {
                let ours = info.chain == self.0.light.chain()
                    && info.network_key == network_key_bytes(self.0.light.network_key());
                if ours { Ok(info) } else { Err(light::Error::Chain.into()) }
            }
            other => unexpected(&other),
        })
        .await
    }

    /// Sends an operation to a node, where it waits for a block. A repetition changes nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] with the code, which is the nodes' word: a node may forward an operation that it
    /// refuses. Otherwise as any request.
    pub async fn submit(&self, operation: &Operation) -> Result<Hash, Error> {
        let ask = Ask::submit(operation).ok_or(Error::Refused(Code::TooLarge))?;
        let id = operation.id();
        self.ask(ask, |answer| accepted(id, answer)).await
    }

    /// Sends another member's operation to a node and, if that does not accept it, once to a second one, whose acceptance
    /// counts. A refusal moves no later request to another node: its sender may cause as many as it likes.
    ///
    /// # Errors
    /// As [`Self::submit`], without further attempts.
    pub async fn pass_on(&self, operation: &Operation) -> Result<Hash, Error> {
        let ask = Ask::submit(operation).ok_or(Error::Refused(Code::TooLarge))?;
        let id = operation.id();
        let judge = |answer| accepted(id, answer);
        self.come_home().await;
        let first = match self.0.pool.ask(ANSWER, &ask, &judge).await {
            Ok((_, id)) => return Ok(id),
            Err(failed) => failed,
        };
        match first.error {
            // Nodes may disagree about nonces for a moment: another node's answer would mislead.
            Error::Refused(Code::NonceOld | Code::NonceGap) => return Err(first.error),
            Error::Refused(_) | Error::Unavailable(_) => (),
            _ => self.0.pool.leave(first.at),
        }
        let mut others = self.0.pool.others().into_iter().chain([self.0.pool.current()]);
        let Some(other) = others.find(|other| *other != first.at.place) else { return Err(first.error) };
        let second = self.0.pool.once(other, ANSWER, &ask, &judge).await;
        second.map(|(_, id)| id).map_err(|second| match first.error {
            Error::Refused(_) => first.error,
            _ => second.error,
        })
    }

    /// Sends an operation to one node other than the current one, in rotation, if there is another: a trusted one, or
    /// a stranger while no other trusted one answers.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub async fn submit_elsewhere(&self, turn: usize, operation: &Operation) -> Result<(), Error> {
        let others = self.0.pool.others_or_strangers();
        self.submit_in_turn(&others, turn, operation).await
    }

    /// Sends an operation to one node, in rotation over the current one and the others, as
    /// [`Self::submit_elsewhere`].
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub(crate) async fn submit_at(&self, turn: usize, operation: &Operation) -> Result<(), Error> {
        let (mut all, current) = (self.0.pool.others_or_strangers(), self.0.pool.current());
        if all.iter().all(|place| self.0.pool.is_trusted(*place)) {
            all.push(current);
            return self.submit_in_turn(&all, turn, operation).await;
        }
        // Strangers may be many and withhold: each second offer goes to the trusted node.
        let places = if turn.is_multiple_of(2) { vec![current] } else { all };
        self.submit_in_turn(&places, turn / 2, operation).await
    }

    async fn submit_in_turn(
        &self,
        places: &[usize],
        turn: usize,
        operation: &Operation,
    ) -> Result<(), Error> {
        let ask = Ask::submit(operation).ok_or(Error::Refused(Code::TooLarge))?;
        let turn = self.0.turn.wrapping_add(turn) % places.len().max(1);
        let place = places.get(turn).copied().unwrap_or(self.0.pool.current());
        let id = operation.id();
        let limit = self.0.pool.limit(place);
        let given = self.0.pool.once(place, limit, &ask, &|answer| accepted(id, answer)).await;
        given.map(drop).map_err(|failed| {
            self.0.pool.blame(&failed);
            failed.error
        })
    }

    /// The receipt of an operation, checked against its block. `None` if a node shows no receipt after
    /// waiting up to `RECEIPT_WAIT_MS`: that is its word and proves nothing.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn receipt(&self, id: &Hash) -> Result<Option<Receipt>, Error> {
        let claimed = self
            .ask(Ask::Receipt(*id), |answer| match answer {
                NodeAnswer::Receipt(receipt) => Ok(receipt),
                other => unexpected(&other),
            })
            .await?;
        let Some(claimed) = claimed else { return Ok(None) };
        let outcome = self.outcome(claimed.height).await?;
        let row = outcome.value.receipts.rows.get(claimed.index as usize);
        if row == Some(&(*id, claimed.code)) {
            Ok(Some(claimed))
        } else {
            Err(light::Error::Commitment("a receipt").into())
        }
    }

    /// Reads a proven record; `value` is `None` when its absence is proved.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn read<R: Record>(&self, key: Key) -> Result<Proved<Option<R>>, Error> {
        let Proved { header, value } = self.read_many(&[key]).await?;
        Ok(Proved { header, value: decode(value.into_iter().next().flatten())? })
    }

    /// Reads proven records of one state, in the order of `keys`, at most [`READ_KEYS_MAX`].
    ///
    /// # Errors
    /// [`Error`].
    pub async fn read_many(&self, keys: &[Key]) -> Result<Proved<Vec<Option<Slot>>>, Error> {
        let read = self.proven(keys).await?;
        let header = read.certified.headers.first().expect("a verified answer has one").clone();
        Ok(Proved { header, value: read.records.iter().map(|record| record.slot).collect() })
    }

    /// Returns a proof of a record, or of its absence, that anyone can verify with the network key.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn prove(&self, subject: &Subject) -> Result<SyncProof, Error> {
        for _ in 0..ASK_ATTEMPTS {
            let read = self.proven(&[subject.key()]).await?;
            let record = read.records.first().expect("one was asked for").clone();
            let proof = SyncProof::new(subject.clone(), read.certified, record);
            if proof.to_bytes().len() <= SYNC_PROOF_BYTES_MAX {
                return Ok(proof);
            }
            // Its block has no certificate of its own; a later block will.
            self.sleep(Duration::from_millis(ASK_PAUSE_MS)).await;
        }
        Err(Error::Unavailable(Unavailable::Moved))
    }

    /// Fetches the certified header at `height`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it is not final yet or was pruned; otherwise as any request.
    pub async fn header(&self, height: u64) -> Result<Header, Error> {
        self.ask(Ask::Header(height), |answer| match answer {
            NodeAnswer::Certified(certified) => {
                self.0.light.certified(&certified)?;
                let header = certified.headers.first().expect("a verified answer has one").clone();
                if header.height == height { Ok(header) } else { Err(light::Error::Question.into()) }
            }
            other => unexpected(&other),
        })
        .await
    }

    /// Fetches the body of a header that is verified already.
    ///
    /// # Errors
    /// As [`Self::header`].
    pub async fn body(&self, header: &Header) -> Result<BlockBody, Error> {
        self.ask(Ask::Body(header.height), |answer| match answer {
            NodeAnswer::Body(body) => Ok(Light::body(header, &body).map(|()| body)?),
            other => unexpected(&other),
        })
        .await
    }

    /// Fetches a part of the state that `judge` finds proved; `request` is the store's, encoded.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no node keeps that state any more, or none has it yet; otherwise as any request.
    pub async fn state_part<T>(
        &self,
        request: &Bounded<u8, STATE_ASK_BYTES_MAX>,
        judge: impl Fn(&[u8]) -> Option<T> + Sync,
    ) -> Result<T, Error> {
        self.ask(Ask::State(request.clone()), |answer| match answer {
            NodeAnswer::State(part) => {
                judge(&part).ok_or(light::Error::Commitment("a part of the state").into())
            }
            other => unexpected(&other),
        })
        .await
    }

    /// Fetches the receipts and events of the block at `height`.
    ///
    /// # Errors
    /// As [`Self::header`].
    pub async fn outcome(&self, height: u64) -> Result<Proved<Outcome>, Error> {
        let header = self.header(height).await?;
        let mut course = Course::of_block(height);
        loop {
            match self.outcome_once(&header).await {
                Ok(value) => return Ok(Proved { header, value }),
                Err(failed) => self.after(failed, &mut course).await?,
            }
        }
    }

    async fn outcome_once(&self, header: &Header) -> Result<Outcome, Failed> {
        let (at, mut call) = self.open(Ask::Events(header.height)).await?;
        let mut events = Vec::new();
        let parts = async {
            loop {
                match self.within(call.recv()).await? {
                    Some(NodeAnswer::Events(part)) => {
                        Light::receipts(header, &part.receipts)?;
                        events.extend(part.events.into_inner());
                        if part.last {
                            return Ok(part.receipts);
                        }
                    }
                    Some(other) => return unexpected(&other),
                    None => return Err(Error::Unreachable("the connection ended".into())),
                }
            }
        };
        let receipts = parts.await.map_err(|error| Failed { at, error })?;
        Ok(Outcome { receipts, events })
    }

    /// Follows certified headers in order, without end, from `from` on (0: from the newest).
    pub fn follow(&self, from: u64) -> Follow {
        Follow::new(self.clone(), from)
    }

    /// Follows certified headers and their bodies from `from` on (0: from the newest).
    pub fn follow_bodies(&self, from: u64) -> FollowBodies {
        FollowBodies::new(self.follow(from))
    }

    async fn proven(&self, keys: &[Key]) -> Result<Read, Error> {
        let asked = Bounded::<Key, READ_KEYS_MAX>::new(keys.to_vec());
        let ask = Ask::Read(asked.ok_or(Error::TooLarge("a read names at most 64 records"))?);
        let judge = |answer| self.judge_read(keys, answer);
        for _ in 0..self.0.pool.len() {
            let (at, (last, read)) = self.ask_at(&ask, &judge).await?;
            if !self.stands_still(at, &last).await {
                return Ok(read);
            }
            self.0.pool.leave(at);
        }
        Ok(self.ask_at(&ask, &judge).await?.1.1)
    }

    /// The newest header in a proven answer that is not far below what was proved before, and the answer.
    fn judge_read(&self, keys: &[Key], answer: NodeAnswer) -> Result<(Header, Read), Error> {
        let NodeAnswer::Read(read) = answer else { return unexpected(&answer) };
        self.0.light.read(keys, &read)?;
        let (first, last) = (read.certified.headers.first(), read.certified.headers.last());
        let (first, last) = first.zip(last).expect("a verified answer has one");
        let (floor, written) = (self.floor(), self.written());
        if first.height + STALE_BLOCKS_MAX < floor || first.height < written {
            return Err(Error::Behind { height: first.height, floor: floor.max(written) });
        }
        let last = last.clone();
        self.saw(last.height);
        Ok((last, read))
    }

    /// True if a node whose newest header is `last` makes no progress, or is late, while another one is ahead.
    async fn stands_still(&self, at: At, last: &Header) -> bool {
        let now = self.now();
        let passed = |since: &mut Option<SystemTime>| {
            now.duration_since(*since.get_or_insert(now)).unwrap_or(STILL) >= STILL
        };
        let is_slow = passed(&mut self.0.moved.lock()) || self.is_old(last.time_ms);
        let is_due = {
            let mut compared = self.0.compared.lock();
            let is_due = passed(&mut compared) && is_slow;
            if is_due {
                *compared = Some(now);
            }
            is_due
        };
        let ahead = if is_due { self.ahead_of(at, last.height).await } else { None };
        match ahead {
            Some(height) => self.is_still_behind(at.place, height).await,
            None => false,
        }
    }

    /// True if a block of that time is no new one by this machine's clock, or that clock is off.
    pub(super) fn is_old(&self, time_ms: u64) -> bool {
        let now = self.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.abs_diff(Duration::from_millis(time_ms)) >= STILL
    }

    pub(super) fn now(&self) -> SystemTime {
        (self.0.now)()
    }

    /// True if a node other than the one at `at` proves a block well above `height`. If that one fails, another is
    /// asked the next time.
    pub(super) async fn is_left_behind(&self, at: At, height: u64) -> bool {
        self.ahead_of(at, height).await.is_some()
    }

    /// The height of a block well above `height` that a node other than the one at `at` proves. Several strangers are
    /// asked side by side within one limit, as some of them may hang; one that answers shortens it.
    async fn ahead_of(&self, at: At, height: u64) -> Option<u64> {
        let others = self.opinions_beside(at.place).await;
        let limit = others.iter().map(|other| self.0.pool.patience(*other)).max()?;
        let mut late = self.sleep(limit);
        let mut open = others.clone();
        let asking = others.into_iter().map(|other| async move { (other, self.newest_at(other).await) });
        let mut asked: FuturesUnordered<_> = asking.collect();
        while let Either::Left((Some((other, newest)), _)) = either(asked.next(), &mut late).await {
            open.retain(|place| *place != other);
            match newest {
                Ok((_, header)) if height + APART_BLOCKS_MAX < header.height => return Some(header.height),
                Ok(_) => {
                    // A connection may have to be opened first: four ways instead of one.
                    let graces = open.iter().map(|place| self.0.pool.grace(*place) * 2);
                    if let Some(grace) = graces.max().filter(|grace| *grace < limit) {
                        late = self.sleep(grace);
                    }
                }
                Err(failed) => self.0.pool.leave(failed.at),
            }
        }
        // Those that hang are asked after all others the next time.
        open.into_iter().for_each(|place| self.0.pool.leave(At::nowhere(place)));
        None
    }

    /// True if the node at `place`, which answered a read with an older block, still proves none near `height` after
    /// another node proved that one: the other may have answered seconds later, and many blocks come in seconds.
    async fn is_still_behind(&self, place: usize, height: u64) -> bool {
        self.newest_at(place).await.map_or(true, |(_, now)| now.height + APART_BLOCKS_MAX < height)
    }

    /// Leaves a node for the next best one.
    pub(super) fn leave(&self, at: At) {
        self.0.pool.leave(at);
    }

    /// Records a certified height.
    pub(crate) fn saw(&self, height: u64) {
        if self.0.height.fetch_max(height, Ordering::AcqRel) < height {
            let now = (self.0.now)();
            *self.0.moved.lock() = Some(now);
        }
    }

    /// Sends a request until `judge` accepts an answer, or until another attempt cannot help.
    async fn ask<T>(
        &self,
        ask: Ask,
        judge: impl Fn(NodeAnswer) -> Result<T, Error> + Sync,
    ) -> Result<T, Error> {
        Ok(self.ask_at(&ask, &judge).await?.1)
    }

    async fn ask_at<T>(
        &self,
        ask: &Ask,
        judge: &(impl Fn(NodeAnswer) -> Result<T, Error> + Sync),
    ) -> Result<(At, T), Error> {
        let mut course = match ask {
            Ask::Header(height) | Ask::Body(height) => Course::of_block(*height),
            _ => Course::default(),
        };
        loop {
            self.come_home().await;
            match self.0.pool.ask(ANSWER, ask, judge).await {
                Ok(answered) => return Ok(answered),
                Err(failed) => self.after(failed, &mut course).await?,
            }
        }
    }

    /// Opens a call that has several answers.
    pub(crate) async fn open(&self, ask: Ask) -> Result<(At, Call<rpc::Node>), Failed> {
        self.come_home().await;
        let (at, client) = self.0.pool.connected().await?;
        let call = client.open(ask).await.map_err(|error| Error::Unreachable(error.to_string()));
        call.map(|call| (at, call)).map_err(|error| Failed { at, error })
    }

    /// Decides after a failed attempt: gives up with the error, or chooses the next node and pauses.
    ///
    /// # Errors
    /// The same error, when another attempt cannot help.
    pub(crate) async fn after(&self, failed: Failed, course: &mut Course) -> Result<(), Error> {
        let Failed { at, error } = failed;
        let is_odd = course.failures.is_multiple_of(2);
        match error {
            Error::Unavailable(Unavailable::Moved | Unavailable::Busy) if is_odd => (),
            // An own operation is some milliseconds old: the node has its block soon.
            Error::Behind { height, floor } if is_odd && height + STALE_BLOCKS_MAX >= floor => (),
            Error::Unreachable(_)
            | Error::NotBelieved(_)
            | Error::Behind { .. }
            | Error::Unavailable(Unavailable::Moved | Unavailable::Busy) => self.0.pool.leave(at),
            // The block has long been final: the node lags, and its answer is no word about the block.
            Error::Unavailable(Unavailable::NotYet)
                if course.height > 0 && course.height + STALE_BLOCKS_MAX < self.floor() =>
            {
                self.0.pool.leave(at);
            }
            // This is one node's word; another may keep more blocks, or be ahead.
            Error::Unavailable(_) => return self.ask_others(at, error, course, usize::MAX).await,
            // Nodes may disagree about nonces for a moment: another node's answer would mislead.
            Error::Refused(Code::NonceOld | Code::NonceGap) => return Err(error),
            Error::Refused(_) => return self.ask_others(at, error, course, REFUSED_MAX).await,
            _ => return Err(error),
        }
        course.failures += 1;
        if course.failures >= ASK_ATTEMPTS {
            return Err(error);
        }
        let pause = Backoff::new(Duration::from_millis(ASK_PAUSE_MS), PAUSE_MAX);
        self.sleep(pause.take(course.failures as usize).last().unwrap_or(PAUSE_MAX)).await;
        Ok(())
    }

    /// Waits for `work` for as long as a node may take to answer.
    pub(crate) async fn within<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        self.0.pool.within(ANSWER, work).await
    }
}

/// Returns the id if the node accepted the operation with that id.
fn accepted(id: Hash, answer: NodeAnswer) -> Result<Hash, Error> {
    match answer {
        NodeAnswer::Accepted(accepted) if accepted == id => Ok(id),
        NodeAnswer::Accepted(_) => Err(light::Error::Question.into()),
        NodeAnswer::Refused(code) => Err(Error::Refused(code)),
        other => unexpected(&other),
    }
}

/// Returns the error for an answer that does not fit its request.
pub(crate) fn unexpected<T>(answer: &NodeAnswer) -> Result<T, Error> {
    match answer {
        NodeAnswer::Unavailable(why) => Err(Error::Unavailable(*why)),
        _ => Err(light::Error::Question.into()),
    }
}
