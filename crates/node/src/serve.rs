//! The node service: answers any caller over the channel, from the handle, the feed and the mempool.
//!
//! ```text
//!  caller ──channel──► rpc ──ask──► [`Service`] ──► handle  (proofs, headers, bodies)
//!                                        ├──────────► feed    (receipts)
//!                                        ├──────────► mempool (operations)
//!                                        └──────────► dials   (the caller, at its own address)
//! ```
//!
//! It decides nothing: callers verify its answers. Every wait has an end, and every answer a bound.

use crate::{
    dial_back::Dials,
    engine::{Finalization, PublicKey, Runtime},
    equivocation::submit,
    feed::Feed,
    follower::Relay,
    handle::{Handle, Operations, ReadError},
    mempool::{Inbox, Mempool, state::Refused},
    run::{RunError, SimServices, TokioServices},
    steady::Steady,
};
use commonware_codec::{Encode as _, EncodeSize as _};
use commonware_cryptography::ed25519::PrivateKey;
use commonware_macros::select;
use commonware_p2p::{Receiver, Sender};
use commonware_runtime::{Network, Resolver, Supervisor as _};
use futures::FutureExt as _;
use posync_client::{
    channel::Listen,
    rpc::{self, Incoming, Server, Service as _},
};
use posync_protocol::{
    Account, Bounded, Hash, Key,
    block::{Header, Receipts, sha256},
    limits::{BODY_BYTES_MAX, EVENTS_MAX, RECEIPT_WAIT_MS},
    wire::node::{
        self, Ask, BlockEvents, Certified, DialBack, DialOutcome, Dialled, Info, NETWORK_KEY_BYTES,
        NodeAnswer, Nothing, STATE_BYTES_MAX, Unavailable,
    },
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

/// Upper bound on the headers up to a certificate: 64 of half a KiB, and slack.
const HEADERS_BYTES: usize = 48 << 10;
/// Upper bound on a record and its proof.
const RECORD_BYTES: usize = 2_560;
/// Attempts at a read while the state moves during it.
const READ_ATTEMPTS: usize = 8;

/// The sources of the service's answers.
struct Service<E, N> {
    context: Arc<E>,
    network: Arc<N>,
    key: PrivateKey,
    handle: Handle,
    feed: Feed,
    intake: Intake,
    dials: Dials,
}

/// Where the operations of callers go.
#[derive(Clone)]
pub(crate) enum Intake {
    /// The mempool of an authority.
    Mempool(Mempool),
    /// The upstream nodes of a node without a seat.
    Upstream(Relay),
}

impl Intake {
    async fn submit(&self, caller: Account, origin: Option<IpAddr>, bytes: Vec<u8>) -> Result<Hash, Refused> {
        match self {
            Self::Mempool(mempool) => mempool.submit_of(caller, bytes).await,
            Self::Upstream(relay) => relay.submit((caller, origin), &bytes).await,
        }
    }
}

impl<E, N> Clone for Service<E, N> {
    fn clone(&self) -> Self {
        Self {
            context: self.context.clone(),
            network: self.network.clone(),
            key: self.key.clone(),
            handle: self.handle.clone(),
            feed: self.feed.clone(),
            intake: self.intake.clone(),
            dials: self.dials.clone(),
        }
    }
}

/// The key and the address of the node service.
pub struct Serving {
    /// Key that the service proves to its callers.
    pub key: PrivateKey,
    /// Port 0 takes any free port.
    pub address: SocketAddr,
    /// True if the network is private: then callers of any address are dialled back.
    pub private: bool,
}

/// Creates an authority's services over sockets, and the mempool that its application draws from.
pub fn over_sockets(serving: Serving) -> (Arc<dyn Operations>, TokioServices) {
    let (mempool, inbox) = Mempool::new();
    let operations = Arc::new(mempool.clone());
    let services: TokioServices = Box::new(move |context, handle, channel| {
        async move {
            let network = context.child("network");
            let steady = Steady::of_machine(context);
            run(steady, network, serving, handle, (mempool, inbox), channel).await
        }
        .boxed()
    });
    (operations, services)
}

/// As [`over_sockets`], on the deterministic runtime and over any network.
pub fn simulated<N: Network>(network: N, serving: Serving) -> (Arc<dyn Operations>, SimServices) {
    let (mempool, inbox) = Mempool::new();
    let operations = Arc::new(mempool.clone());
    let services: SimServices = Box::new(move |context, handle, channel| {
        async move {
            let ended = run(context, network, serving, handle, (mempool, inbox), channel).await;
            if let Err(error) = ended {
                assert!(!matches!(error, RunError::Service(_)), "a simulated address is free: {error}");
                tracing::error!(%error, "the node service ended");
            }
        }
        .boxed()
    });
    (operations, services)
}

/// Runs mempool, feed and node service until one of them ends, which is a failure.
///
/// # Errors
/// The address cannot be bound, or a part has ended.
pub async fn run<E, N, S, R>(
    context: E,
    network: N,
    serving: Serving,
    handle: Handle,
    (mempool, inbox): (Mempool, Inbox),
    channel: (S, R),
) -> Result<(), RunError>
where
    E: Runtime + Resolver,
    N: Network,
    S: Sender,
    R: Receiver<PublicKey = PublicKey>,
{
    let (key, network) = (serving.key.clone(), Arc::new(network));
    let parts = listen(&context, network, serving, &handle, Intake::Mempool(mempool.clone())).await?;
    let bringing = context.child("bring").spawn({
        let (mempool, handle) = (mempool.clone(), handle.clone());
        move |_| submit::run(mempool, handle, key)
    });
    let pooling = context
        .child("mempool")
        .spawn(move |context| async move { mempool.run(context, handle, inbox, channel).await });
    let part = select! {
        part = parts => part,
        _ = pooling => "the mempool",
        _ = bringing => "what brings evidence",
    };
    Err(RunError::Ended(part.into()))
}

/// Starts the feed and the listener of the node service. The result resolves to the part that ends first.
///
/// # Errors
/// The address cannot be bound.
pub(crate) async fn listen<E: Runtime + Resolver, N: Network>(
    context: &E,
    network: Arc<N>,
    serving: Serving,
    handle: &Handle,
    intake: Intake,
) -> Result<impl Future<Output = &'static str> + Send + Unpin + use<E, N>, RunError> {
    let feed = Feed::default();
    let service = Service {
        context: Arc::new(context.child("service")),
        network: network.clone(),
        key: serving.key.clone(),
        handle: handle.clone(),
        feed: feed.clone(),
        intake,
        dials: Dials::new(serving.address.ip(), serving.private),
    };
    let server = Server::<rpc::Node, _>::new(move |call, ask| {
        let service = service.clone();
        async move { service.answer(call, ask).await }
    });
    let listen = Listen::new(serving.key, rpc::Node::NAMESPACE, serving.address);
    let listening = server.listen(context.child("listener"), &*network, listen).await?;
    tracing::info!(address = %listening.address, "the node service listens");
    let feeding = context.child("feed").spawn({
        let handle = handle.clone();
        move |_| feed.run(handle)
    });
    let parts = async move {
        select! {
            _ = listening.task => "the listener of the node service",
            _ = feeding => "the feed of receipts",
        }
    };
    Ok(parts.boxed())
}

impl<E: Runtime + Resolver, N: Network> Service<E, N> {
    async fn answer(self, mut call: Incoming<rpc::Node>, ask: Ask) {
        // A caller that does not read its answers delays only itself.
        match &ask {
            Ask::Body(_) | Ask::Events(_) => call.reserve(BODY_BYTES_MAX).await,
            Ask::Read(keys) => call.reserve(HEADERS_BYTES + keys.len() * RECORD_BYTES).await,
            Ask::Header(_) => call.reserve(HEADERS_BYTES).await,
            Ask::State(_) => call.reserve(STATE_BYTES_MAX).await,
            Ask::Genesis(_) => call.reserve(self.handle.genesis().encode_size()).await,
            // Their messages are short: a `Follow` sends one header after the other.
            Ask::Info(_)
            | Ask::Clock(_)
            | Ask::Submit(_)
            | Ask::Receipt(_)
            | Ask::Follow(_)
            | Ask::DialBack(_) => {}
        }
        let answer = match ask {
            Ask::Info(_) => self.info(),
            Ask::Clock(_) => self.clock(),
            Ask::Genesis(_) => self.genesis(),
            Ask::Submit(bytes) => self.submit(&call, bytes.into_inner()).await,
            Ask::State(request) => self.state(&request).await,
            Ask::Receipt(id) => self.receipt(&id).await,
            Ask::Read(keys) => self.read(keys.into_inner()).await,
            Ask::Header(height) => self.header(height).await,
            Ask::Body(height) => match self.handle.body(height).await {
                Some(body) => NodeAnswer::Body(body),
                None => self.missing(height),
            },
            Ask::DialBack(ask) => self.dial_back(&call, ask).await,
            Ask::Follow(from) => return self.follow(call, from).await,
            Ask::Events(height) => return self.events(call, height).await,
        };
        // A caller that has left does not need the answer.
        let _ = call.finish(&answer).await;
    }

    /// The node's own time: its machine's clock may be set meanwhile, which is an alert of its own.
    fn clock(&self) -> NodeAnswer {
        let since = self.context.current().duration_since(UNIX_EPOCH).unwrap_or_default();
        NodeAnswer::Clock(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn info(&self) -> NodeAnswer {
        let network_key: [u8; NETWORK_KEY_BYTES] =
            self.handle.network_key().encode().as_ref().try_into().expect("a key has 96 bytes");
        NodeAnswer::Info(Info {
            chain: self.handle.chain(),
            network_key,
            parameters: self.handle.genesis().parameters,
            height: self.handle.applied(),
        })
    }

    fn genesis(&self) -> NodeAnswer {
        let bytes = self.handle.genesis().encode().to_vec();
        NodeAnswer::Genesis(Bounded::new(bytes).expect("a checked genesis is within the bound"))
    }

    async fn submit(&self, call: &Incoming<rpc::Node>, bytes: Vec<u8>) -> NodeAnswer {
        let id = sha256(&bytes);
        if self.feed.receipt(&id).is_some() {
            return NodeAnswer::Accepted(id);
        }
        match self.intake.submit(call.peer(), call.origin(), bytes).await {
            Ok(id) => NodeAnswer::Accepted(id),
            Err(Refused::Code(code)) => NodeAnswer::Refused(code),
            Err(Refused::Full) => NodeAnswer::Unavailable(Unavailable::Busy),
        }
    }

    async fn dial_back(&self, call: &Incoming<rpc::Node>, ask: DialBack) -> NodeAnswer {
        let busy = NodeAnswer::Unavailable(Unavailable::Busy);
        let Some(ip) = call.origin() else { return busy };
        let outcome = if self.dials.may_dial(ip) {
            let Some(attempt) = self.dials.begin(ip, call.peer()) else { return busy };
            attempt.run(self.context.child("dial_back"), &*self.network, &self.key, ask).await
        } else {
            DialOutcome::Hidden(Nothing {})
        };
        let ip = match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        NodeAnswer::Dialled(Dialled { ip: ip.octets(), outcome })
    }

    async fn state(&self, request: &[u8]) -> NodeAnswer {
        match self.handle.state_part(request).await {
            Ok(part) => NodeAnswer::State(part),
            Err(why) => NodeAnswer::Unavailable(why),
        }
    }

    async fn receipt(&self, id: &Hash) -> NodeAnswer {
        let limit = self.context.sleep(Duration::from_millis(RECEIPT_WAIT_MS));
        select! {
            receipt = self.feed.wait(id) => NodeAnswer::Receipt(Some(receipt)),
            () = limit => NodeAnswer::Receipt(None),
        }
    }

    async fn read(&self, keys: Vec<Key>) -> NodeAnswer {
        let mut heights = self.handle.heights();
        for _ in 0..READ_ATTEMPTS {
            heights.borrow_and_update();
            match self.handle.read(keys.clone()).await {
                Ok(read) => {
                    let height = read.header.height;
                    if let Some(certified) = self.certified(height).await {
                        let records = read.records.into_iter().map(|record| {
                            let proof = Bounded::new(record.proof.to_vec()).expect("a proof is below 2 KiB");
                            node::ProvenRecord { slot: record.slot, proof }
                        });
                        let records = Bounded::new(records.collect()).expect("as many as keys");
                        return NodeAnswer::Read(node::Read { certified, records });
                    }
                }
                Err(ReadError::Moved) => {}
                Err(ReadError::TooMany | ReadError::Pruned(_) | ReadError::Stopping) => break,
            }
            if heights.changed().await.is_err() {
                break;
            }
        }
        NodeAnswer::Unavailable(Unavailable::Moved)
    }

    async fn certified(&self, height: u64) -> Option<Certified> {
        let (headers, finalization) = self.handle.headers_to_certificate(height).await?;
        Some(certified(headers, &finalization))
    }

    async fn header(&self, height: u64) -> NodeAnswer {
        match self.certified(height).await {
            Some(certified) => NodeAnswer::Certified(certified),
            // The block is here; its certificate has not arrived yet.
            None if self.handle.header(height).await.is_some() => NodeAnswer::Unavailable(Unavailable::Moved),
            None => self.missing(height),
        }
    }

    fn missing(&self, height: u64) -> NodeAnswer {
        let old = height <= self.handle.applied();
        NodeAnswer::Unavailable(if old { Unavailable::Pruned } else { Unavailable::NotYet })
    }

    /// Sends certified headers as they become available, until the caller leaves.
    async fn follow(&self, call: Incoming<rpc::Node>, from: u64) {
        let mut heights = self.handle.heights();
        let mut next = if from == 0 { self.handle.applied().max(1) } else { from };
        loop {
            if heights.wait_for(|height| *height >= next).await.is_err() {
                return;
            }
            let Some(certified) = self.certified(next).await else {
                if self.handle.header(next).await.is_none() {
                    let _ = call.finish(&NodeAnswer::Unavailable(Unavailable::Pruned)).await;
                    return;
                }
                // The certificate has not arrived yet; it comes with the next block at the latest.
                if heights.changed().await.is_err() {
                    return;
                }
                continue;
            };
            next = certified.headers.last().expect("at least one").height + 1;
            if call.send(&NodeAnswer::Certified(certified)).await.is_err() {
                return;
            }
        }
    }

    async fn events(&self, call: Incoming<rpc::Node>, height: u64) {
        let Some(outcome) = self.handle.outcome(height).await else {
            let _ = call.finish(&self.missing(height)).await;
            return;
        };
        let receipts = Receipts { rows: Bounded::new(outcome.receipts).expect("as many as operations") };
        let mut parts = outcome.events.chunks(EVENTS_MAX).peekable();
        loop {
            let events = parts.next().unwrap_or_default().to_vec();
            let events = Bounded::new(events).expect("a part is within the bound");
            let last = parts.peek().is_none();
            let part = NodeAnswer::Events(BlockEvents { receipts: receipts.clone(), events, last });
            if last {
                let _ = call.finish(&part).await;
                return;
            }
            if call.send(&part).await.is_err() {
                return;
            }
        }
    }
}

/// Headers up to a certificate, as an answer of the node service.
pub(crate) fn certified(headers: Vec<Header>, finalization: &Finalization) -> Certified {
    let finalization = Bounded::new(finalization.encode().to_vec()).expect("132 bytes");
    Certified { headers: Bounded::new(headers).expect("the handle bounds them"), finalization }
}
