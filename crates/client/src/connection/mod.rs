//! A connection to the node service of a network: several nodes, one of them at a time, none trusted.
//!
//! ```text
//!   caller ──► Connection ──ask──► node A ──✕ lost, late, or not believed
//!                         └──ask──► node B ──answer──► Light ──► typed record, header, body
//! ```
//!
//! Invariants
//! 1. Whatever is returned as proved was verified by [`Light`]; [`Connection::info`] and events are
//!    a node's word and say so.
//! 2. A node that is lost, late or caught with an answer that does not verify is left for the next,
//!    and a refusal is asked of a second one; a question is put at most [`ASK_ATTEMPTS`] times.
//! 3. A proven read is at most [`STALE_BLOCKS_MAX`] blocks behind the newest header seen here.
//!
//! It may be cloned and used from many tasks; clones share the connection.

mod follow;

pub use follow::{Follow, FollowBodies};

use crate::{
    light::{self, Light, SYNC_PROOF_BYTES_MAX, Subject, SyncProof, network_key_bytes},
    rpc::{self, Call, Client},
};
use commonware_cryptography::ed25519::PrivateKey;
use commonware_macros::select;
use commonware_runtime::{Clock, Network, Spawner};
use futures::{FutureExt as _, future::BoxFuture};
use posync_protocol::{
    Account, Bounded, Code, Hash, Key, Operation, Record, Slot,
    block::{BlockBody, Header, Receipts},
    ledger::Event,
    limits::{ANSWER_MS_MAX, ASK_ATTEMPTS, ASK_PAUSE_MS, READ_KEYS_MAX, STALE_BLOCKS_MAX},
    record::System,
    wire::node::{Answer, Ask, Info, Nothing, Read, Receipt, Unavailable},
};
use rand_core::CryptoRng;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::Mutex;

/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No node answered in time.
    #[error("no node answers, the last one said: {0}; check that the network runs")]
    Unreachable(String),
    /// No endpoint was given.
    #[error("no node is configured; name at least one")]
    NoEndpoint,
    /// What the nodes say does not lead to the network key.
    #[error("a node's answer is not believed: {0}")]
    NotBelieved(#[from] light::Error),
    /// The nodes cannot answer it.
    #[error("the nodes cannot answer: {}", match .0 {
        Unavailable::Pruned => "the block is older than what they keep",
        Unavailable::NotYet => "the block is not final yet",
        Unavailable::Moved => "the state moves too fast",
        Unavailable::Busy => "they are busy; try later",
    })]
    Unavailable(Unavailable),
    /// The operation is refused.
    #[error("the ledger refuses the operation, code {}: {}", *.0 as u8, .0.explain())]
    Refused(Code),
    /// The operation did not become final before its expiry height.
    #[error("the operation did not become final before it expired; send it again")]
    Expired,
    /// The question is outside its bounds.
    #[error("the question is too large: {0}")]
    TooLarge(&'static str),
}

/// A node: who it is and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its account.
    pub account: Account,
    /// Its node service.
    pub address: SocketAddr,
}

/// Something proved, and the certified header that it was proved against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proved<T> {
    /// The header.
    pub header: Header,
    /// What was proved.
    pub value: T,
}

/// A block's receipts, checked, and its events, on the node's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// By the certified header.
    pub receipts: Receipts,
    /// A node's word.
    pub events: Vec<Event>,
}

type Dial = dyn Fn(Endpoint) -> BoxFuture<'static, Result<Client<rpc::Node>, rpc::Error>> + Send + Sync;
type Sleep = dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync;

struct Inner {
    endpoints: Vec<Endpoint>,
    current: AtomicUsize,
    client: Mutex<Option<Client<rpc::Node>>>,
    dial: Box<Dial>,
    sleep: Box<Sleep>,
    light: Light,
    height: AtomicU64,
}

/// A connection to a network's nodes.
#[derive(Clone)]
pub struct Connection(Arc<Inner>);

impl Connection {
    /// Will ask `endpoints` in turn, beginning with the first, as the holder of `key`.
    pub fn new<E, N>(context: E, network: N, key: PrivateKey, endpoints: Vec<Endpoint>, light: Light) -> Self
    where
        E: Spawner + Clock + CryptoRng,
        N: Network,
    {
        let (dialing, network) = (Arc::new(context), Arc::new(network));
        let sleeping = dialing.clone();
        let dial = move |endpoint: Endpoint| {
            let (context, network, key) = (dialing.child("node"), network.clone(), key.clone());
            async move { Client::dial(context, &*network, &key, endpoint.account, endpoint.address).await }
                .boxed()
        };
        Self(Arc::new(Inner {
            endpoints,
            current: AtomicUsize::new(0),
            client: Mutex::new(None),
            dial: Box::new(dial),
            sleep: Box::new(move |pause| sleeping.sleep(pause).boxed()),
            light,
            height: AtomicU64::new(0),
        }))
    }

    /// What is believed in.
    pub fn light(&self) -> &Light {
        &self.0.light
    }

    /// The height of the newest certified header seen here; asks for one if none was.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn height(&self) -> Result<u64, Error> {
        match self.0.height.load(Ordering::Acquire) {
            0 => Ok(self.read::<System>(System::key()).await?.header.height),
            height => Ok(height),
        }
    }

    /// What a node says of the network; chain and network key are compared, the rest is its word.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn info(&self) -> Result<Info, Error> {
        self.ask(Ask::Info(Nothing {}), |answer| match answer {
            Answer::Info(info) => {
                let ours = info.chain == self.0.light.chain()
                    && info.network_key == network_key_bytes(self.0.light.network_key());
                if ours { Ok(info) } else { Err(light::Error::Chain.into()) }
            }
            other => unexpected(&other),
        })
        .await
    }

    /// Gives an operation to a node; it waits for a block then. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] with the code, or as any question.
    pub async fn submit(&self, operation: &Operation) -> Result<Hash, Error> {
        let ask = Ask::submit(operation).ok_or(Error::Refused(Code::TooLarge))?;
        let id = operation.id();
        self.ask(ask, |answer| match answer {
            Answer::Accepted(accepted) if accepted == id => Ok(id),
            Answer::Accepted(_) => Err(light::Error::Question.into()),
            Answer::Refused(code) => Err(Error::Refused(code)),
            other => unexpected(&other),
        })
        .await
    }

    /// What became of an operation, checked against its block; `None` if it is not final yet, after
    /// waiting up to `RECEIPT_WAIT_MS`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn receipt(&self, id: &Hash) -> Result<Option<Receipt>, Error> {
        let claimed = self
            .ask(Ask::Receipt(*id), |answer| match answer {
                Answer::Receipt(receipt) => Ok(receipt),
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

    /// Waits until an operation is final.
    ///
    /// # Errors
    /// [`Error::Expired`] once blocks above `expires` are final without it.
    pub async fn wait_receipt(&self, id: &Hash, expires: u64) -> Result<Receipt, Error> {
        loop {
            let height = self.read::<System>(System::key()).await?.header.height;
            if let Some(receipt) = self.receipt(id).await? {
                return Ok(receipt);
            }
            if height > expires {
                return Err(Error::Expired);
            }
        }
    }

    /// A proven record; `value` is `None` when it is proved that there is none.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn read<R: Record>(&self, key: Key) -> Result<Proved<Option<R>>, Error> {
        let Proved { header, value } = self.read_many(&[key]).await?;
        let slot = value.into_iter().next().flatten();
        let record = slot.map(|slot| R::from_slot(&slot)).transpose();
        let value = record.map_err(|_| light::Error::Malformed("the record"))?;
        Ok(Proved { header, value })
    }

    /// Proven records of one state, in the order asked for, at most [`READ_KEYS_MAX`].
    ///
    /// # Errors
    /// [`Error`].
    pub async fn read_many(&self, keys: &[Key]) -> Result<Proved<Vec<Option<Slot>>>, Error> {
        let read = self.proven(keys).await?;
        let header = read.certified.headers.first().expect("a verified answer has one").clone();
        Ok(Proved { header, value: read.records.iter().map(|record| record.slot).collect() })
    }

    /// A proof of a record, or of its absence, that anyone verifies with the network key.
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
            // Its block has no certificate of its own; a later one will.
            (self.0.sleep)(Duration::from_millis(ASK_PAUSE_MS)).await;
        }
        Err(Error::Unavailable(Unavailable::Moved))
    }

    /// The certified header at `height`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it is not final yet or not kept any more, and as any question.
    pub async fn header(&self, height: u64) -> Result<Header, Error> {
        self.ask(Ask::Header(height), |answer| match answer {
            Answer::Certified(certified) => {
                self.0.light.certified(&certified)?;
                let header = certified.headers.first().expect("a verified answer has one").clone();
                if header.height == height { Ok(header) } else { Err(light::Error::Question.into()) }
            }
            other => unexpected(&other),
        })
        .await
    }

    /// The body of a header that is believed.
    ///
    /// # Errors
    /// As [`Self::header`].
    pub async fn body(&self, header: &Header) -> Result<BlockBody, Error> {
        self.ask(Ask::Body(header.height), |answer| match answer {
            Answer::Body(body) => Ok(Light::body(header, &body).map(|()| body)?),
            other => unexpected(&other),
        })
        .await
    }

    /// What the block at `height` did.
    ///
    /// # Errors
    /// As [`Self::header`].
    pub async fn outcome(&self, height: u64) -> Result<Proved<Outcome>, Error> {
        let header = self.header(height).await?;
        let mut last = Error::NoEndpoint;
        for attempt in 0..ASK_ATTEMPTS {
            match self.outcome_once(&header).await {
                Ok(value) => return Ok(Proved { header, value }),
                Err(error) => last = self.after(error, attempt).await?,
            }
        }
        Err(last)
    }

    async fn outcome_once(&self, header: &Header) -> Result<Outcome, Error> {
        let mut call = self.open(Ask::Events(header.height)).await?;
        let mut events = Vec::new();
        loop {
            match self.within(call.recv()).await? {
                Some(Answer::Events(part)) => {
                    Light::receipts(header, &part.receipts)?;
                    events.extend(part.events.into_inner());
                    if part.last {
                        return Ok(Outcome { receipts: part.receipts, events });
                    }
                }
                Some(other) => return unexpected(&other),
                None => return Err(Error::Unreachable("the connection ended".into())),
            }
        }
    }

    /// Certified headers from `from` on (0: from the newest), one after the other, without end.
    pub fn follow(&self, from: u64) -> Follow {
        Follow::new(self.clone(), from)
    }

    /// Certified headers and their bodies from `from` on (0: from the newest).
    pub fn follow_bodies(&self, from: u64) -> FollowBodies {
        FollowBodies::new(self.follow(from))
    }

    async fn proven(&self, keys: &[Key]) -> Result<Read, Error> {
        let asked = Bounded::<Key, READ_KEYS_MAX>::new(keys.to_vec());
        let asked = asked.ok_or(Error::TooLarge("a read names at most 64 records"))?;
        self.ask(Ask::Read(asked), |answer| match answer {
            Answer::Read(read) => {
                self.0.light.read(keys, &read)?;
                let (first, last) = (read.certified.headers.first(), read.certified.headers.last());
                let (first, last) = first.zip(last).expect("a verified answer has one");
                if first.height + STALE_BLOCKS_MAX < self.0.height.load(Ordering::Acquire) {
                    return Err(Error::Unavailable(Unavailable::Moved));
                }
                self.saw(last.height);
                Ok(read)
            }
            other => unexpected(&other),
        })
        .await
    }

    /// Notes a certified height.
    pub(crate) fn saw(&self, height: u64) {
        self.0.height.fetch_max(height, Ordering::AcqRel);
    }

    /// Puts a question until `judge` accepts an answer, or there is no point in asking again.
    async fn ask<T>(&self, ask: Ask, judge: impl Fn(Answer) -> Result<T, Error>) -> Result<T, Error> {
        let mut last = Error::NoEndpoint;
        for attempt in 0..ASK_ATTEMPTS {
            let asked = async {
                let client = self.client().await?;
                let answer = self.within(client.call(ask.clone())).await?;
                judge(answer.map_err(|error| Error::Unreachable(error.to_string()))?)
            };
            match asked.await {
                Ok(value) => return Ok(value),
                Err(error) => last = self.after(error, attempt).await?,
            }
        }
        Err(last)
    }

    /// Opens a call for several answers.
    pub(crate) async fn open(&self, ask: Ask) -> Result<Call<rpc::Node>, Error> {
        let client = self.client().await?;
        client.open(ask).await.map_err(|error| Error::Unreachable(error.to_string()))
    }

    /// What to do after a failed attempt: give up with the error, or leave the node and pause.
    ///
    /// # Errors
    /// The error, when asking again cannot help.
    pub(crate) async fn after(&self, error: Error, attempt: u32) -> Result<Error, Error> {
        let nodes = self.0.endpoints.len() as u32;
        let give_up = match error {
            Error::Unreachable(_) | Error::NotBelieved(_) => false,
            Error::Unavailable(Unavailable::Moved | Unavailable::Busy) if attempt.is_multiple_of(2) => {
                return self.pause(error, attempt).await;
            }
            Error::Unavailable(Unavailable::Moved | Unavailable::Busy) => false,
            // One node's word; another may keep more, or be further.
            Error::Unavailable(_) => attempt + 1 >= nodes,
            // Nonces differ from node to node for a moment: asking another would mislead.
            Error::Refused(Code::NonceOld | Code::NonceGap) => true,
            Error::Refused(_) => attempt + 1 >= nodes.min(2),
            _ => true,
        };
        if give_up {
            return Err(error);
        }
        self.leave().await;
        self.pause(error, attempt).await
    }

    async fn pause(&self, error: Error, attempt: u32) -> Result<Error, Error> {
        if attempt + 1 < ASK_ATTEMPTS {
            let pause = Duration::from_millis(ASK_PAUSE_MS) * 2_u32.saturating_pow(attempt);
            (self.0.sleep)(pause.min(PAUSE_MAX)).await;
        }
        Ok(error)
    }

    /// Waits for an answer no longer than a node may take.
    pub(crate) async fn within<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        let limit = (self.0.sleep)(Duration::from_millis(ANSWER_MS_MAX));
        select! {
            done = work => Ok(done),
            () = limit => Err(Error::Unreachable("no answer in time".into())),
        }
    }

    async fn client(&self) -> Result<Client<rpc::Node>, Error> {
        let mut client = self.0.client.lock().await;
        if let Some(open) = client.as_ref().filter(|client| !client.is_gone()) {
            return Ok(open.clone());
        }
        let place = self.0.current.load(Ordering::Relaxed) % self.0.endpoints.len().max(1);
        let endpoint = self.0.endpoints.get(place).ok_or(Error::NoEndpoint)?;
        let open = (self.0.dial)(*endpoint).await.map_err(|error| Error::Unreachable(error.to_string()))?;
        *client = Some(open.clone());
        Ok(open)
    }

    /// Leaves the current node for the next one.
    pub(crate) async fn leave(&self) {
        *self.0.client.lock().await = None;
        self.0.current.fetch_add(1, Ordering::Relaxed);
    }
}

/// An answer that does not fit its question.
pub(crate) fn unexpected<T>(answer: &Answer) -> Result<T, Error> {
    match answer {
        Answer::Unavailable(why) => Err(Error::Unavailable(*why)),
        _ => Err(light::Error::Question.into()),
    }
}
