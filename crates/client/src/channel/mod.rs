//! Framed, authenticated, encrypted channels between node keys. All traffic except consensus uses one of
//! these.
//!
//! ```text
//!  dial ──TCP──► accept
//!   │  key, Syn ───────►│   SAKE: both ends prove their Ed25519 keys, bound to the namespace
//!   │◄─────── SynAck    │   "posync/<service>/1"
//!   │  Ack ────────────►│
//!   │◄══ frames ═══════►│   CUPS V1 records: sealed length, sealed body (AES-256-GCM)
//! ```
//!
//! Invariants
//! 1. No byte reaches a caller before the peer's key is proved and the whole frame authenticates.
//! 2. A frame holds at most [`FRAME_BYTES_MAX`] bytes; a longer one is refused unread.
//! 3. A handshake ends within [`HANDSHAKE_MS_MAX`]; handshakes and connections of a listener are bounded,
//!    in all and for each origin and key ([`places`]). A listener never stops accepting.
//! 4. Any error closes that half of the channel for good.
//! 5. A listener reads a message only when there is memory for it ([`memory`]): at most
//!    [`READ_BYTES_MAX`] in all.
//!
//! An empty frame only means "still here" and is never returned to a caller.
//! Sources: `commonware_stream::{cups, sake}`. The TCP options (no delay, timeouts) are the runtime's.

mod cipher;
pub(crate) mod memory;
mod places;
mod shared;
#[cfg(test)]
mod tests;

pub(crate) use cipher::Aes256Gcm;
pub(crate) use places::HANDSHAKES_MAX;
pub use shared::SharedNetwork;

use crate::{
    Backoff,
    address::{Address, Unresolved},
};
use bytes::Bytes;
use commonware_cryptography::{ed25519::PrivateKey, handshake::sake::Error as Handshake};
use commonware_macros::select;
use commonware_runtime::{
    Clock, Handle, IoBufs, Listener as _, ListenerOf, Network, Resolver, Sink, SinkOf, Spawner, Stream,
    StreamOf, Supervisor,
};
use commonware_stream::{
    Upgrader as _,
    cups::{self, Cups},
    sake::{self, Sake},
    utils::{Timeout, TimeoutError},
};
use memory::{Budget, Gate, Held, Metered};
use places::{ConnectionPlace, Origin, Places};
use posync_protocol::{
    Account,
    limits::{CALL_BYTES_MAX, CONNECTIONS_MAX, FRAME_BYTES_MAX, HANDSHAKE_MS_MAX, HANDSHAKE_SKEW_MS_MAX},
};
use rand_core::CryptoRng;
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

/// Bytes of messages that the connections of one listener hold before their handlers take them.
pub(crate) const READ_BYTES_MAX: usize = 2 * CALL_BYTES_MAX;
/// Bytes of answers that the connections of one listener hold until they are sent.
pub(crate) const WRITE_BYTES_MAX: usize = 2 * CALL_BYTES_MAX;
/// Read buffer of a socket.
const SOCKET_BYTES: usize = 64 << 10;
/// Upper bound on the memory of all connections of one listener: each message once in its budget and once
/// more while it is decoded or sealed, plus the read buffers. 548 MiB.
const WORST_BYTES: usize =
    2 * (READ_BYTES_MAX + WRITE_BYTES_MAX) + (CONNECTIONS_MAX + HANDSHAKES_MAX) * SOCKET_BYTES;
const _: () = assert!(WORST_BYTES < 560 << 20);
// One key's half holds a whole window of the largest slices, so that a put never waits for itself.
const _: () = assert!(READ_BYTES_MAX / 2 > 32 * ((1 << 20) + memory::OVERHEAD));

/// Time within which an address must take a connection while others of the same name are left: three round trips to the
/// other side of the world. It is half of the least time that a node has to answer, so that the second one still does.
const CONNECT: Duration = Duration::from_secs(1);
/// Pause after the first accept error (usually out of file descriptors); it doubles with each one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause after accept errors.
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(3);
/// Accept errors in a row between two errors in the log.
const ACCEPT_FAILURES_TOLD: u32 = 100;

/// Why a channel cannot be opened or was lost.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be bound.
    #[error("cannot listen on {0}: {1}; choose a free port or stop what uses it")]
    Bind(SocketAddr, #[source] commonware_runtime::Error),
    /// The TCP connection to the address failed.
    #[error("cannot reach {0}: {1}; is the process running and the address right?")]
    Dial(Address, #[source] commonware_runtime::Error),
    /// The host name has no address.
    #[error(transparent)]
    Name(#[from] Unresolved),
    /// No address of a listed host may be dialled.
    #[error(
        "{0} leads to this machine or into a private network; such an address of the ledger's list is not dialled, \
         unless a node of the network file is there too"
    )]
    Hidden(Address),
    /// The account is not a valid key.
    #[error("{0} is not a valid key; check the account")]
    Key(Account),
    /// The other end did not prove the expected key.
    #[error("the peer at {address} {why}", address = .0, why = refusal(.1))]
    Handshake(SocketAddr, #[source] sake::Error),
    /// A listener ended the handshake of a node service, which takes any clock.
    #[error("the peer at {0} ended the handshake: check its account, and that it is a node")]
    NoNode(SocketAddr),
    /// The other end did not finish the handshake in time.
    #[error("the handshake with {0} took more than {HANDSHAKE_MS_MAX} ms; the peer is busy or not posync")]
    HandshakeTimeout(SocketAddr),
    /// A message is larger than a frame.
    #[error("a message of {0} bytes exceeds the frame of {FRAME_BYTES_MAX}; split it")]
    TooLarge(usize),
    /// The connection ended or broke a rule.
    #[error("the connection is lost: {0}")]
    Lost(#[source] cups::Error),
}

/// Explains a failed handshake. A listener that finds the caller's clock far off ends the handshake
/// without an answer, and does the same for another account or service.
fn refusal(reason: &sake::Error) -> String {
    const HOURS: u64 = HANDSHAKE_SKEW_MS_MAX / 3_600_000;
    match reason {
        sake::Error::HandshakeError(Handshake::InvalidTimestamp(theirs, _)) => {
            format!(
                "has a clock that is more than {HOURS} h from this machine's: it says {} s since 1970; set \
                 the wrong one right (compare with `date -u +%s`)",
                theirs / 1_000
            )
        }
        sake::Error::Frame(_) => format!(
            "ended the handshake: is this machine's clock right (`date -u`; more than {HOURS} h off is refused)? \
             If it is, check the peer's account and the service"
        ),
        other => format!("did not prove the expected key: {other}; check its account and the service"),
    }
}

impl From<cups::Error> for Error {
    fn from(error: cups::Error) -> Self {
        match error {
            cups::Error::SendTooLarge(bytes) => Self::TooLarge(bytes),
            other => Self::Lost(other),
        }
    }
}

/// The sending half of a channel.
pub struct Sender<O>(cups::Sender<Aes256Gcm, O>);

/// The receiving half of a channel.
pub struct Receiver<I> {
    inner: cups::Receiver<Aes256Gcm, Metered<I>>,
    /// Memory of the connection; `None` on the caller's side.
    gate: Option<Arc<Gate>>,
}

/// Both halves, on the network `N`.
pub(crate) type Channel<N> = (Sender<SinkOf<N>>, Receiver<StreamOf<N>>);

impl<O: Sink> Sender<O> {
    /// Sends one frame.
    ///
    /// # Errors
    /// [`Error::TooLarge`] leaves the channel usable; any other error, or dropping the future, closes it.
    pub(crate) async fn send(&mut self, frame: impl Into<IoBufs> + Send) -> Result<(), Error> {
        Ok(self.0.send(frame).await?)
    }

    /// Sends frames in order with one write.
    ///
    /// # Errors
    /// As [`Self::send`]; nothing is sent if one frame is too large.
    pub(crate) async fn send_many(&mut self, frames: Vec<Bytes>) -> Result<(), Error> {
        Ok(self.0.send_many(frames).await?)
    }

    /// Shows the peer, and every middlebox on the path, that this side is alive.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub(crate) async fn keep_alive(&mut self) -> Result<(), Error> {
        self.send(Bytes::new()).await
    }
}

impl<I: Stream> Receiver<I> {
    /// The next frame that is not empty.
    ///
    /// # Errors
    /// [`Error::Lost`]; the channel is closed then. Dropping the future closes it too.
    #[cfg(test)]
    pub(crate) async fn recv(&mut self) -> Result<Bytes, Error> {
        Ok(self.recv_held().await?.0)
    }

    /// The next frame that is not empty and, on a listener's side, the memory that it holds.
    pub(crate) async fn recv_held(&mut self) -> Result<(Bytes, Option<Held>), Error> {
        loop {
            let frame = self.inner.recv().await?.coalesce();
            let held = self.gate.as_ref().and_then(|gate| gate.taken());
            if !frame.is_empty() {
                return Ok((frame.into(), held));
            }
        }
    }

    /// The listener's record of this connection; `None` on the caller's side.
    pub(crate) fn gate(&self) -> Option<Arc<Gate>> {
        self.gate.clone()
    }

    #[cfg(test)]
    pub(crate) async fn recv_length(&mut self) -> Result<usize, Error> {
        Ok(self.inner.recv().await?.len())
    }
}

type Upgrade = Timeout<Cups<Sake<PrivateKey>, Aes256Gcm>>;

/// The distance of two clocks that a handshake of the service with this namespace bears: any for a node service, from
/// which a machine learns how wrong its clock is, years included. Both ends make a key of their own for each connection,
/// so an old message opens none.
fn skew(namespace: &[u8]) -> Duration {
    Duration::from_millis(if is_node(namespace) { u64::MAX } else { HANDSHAKE_SKEW_MS_MAX })
}

fn is_node(namespace: &[u8]) -> bool {
    namespace == posync_protocol::wire::node::NAMESPACE
}

fn upgrade(key: &PrivateKey, namespace: &[u8]) -> Upgrade {
    let sake = Sake {
        signer: key.clone(),
        synchrony_bound: skew(namespace),
        max_handshake_age: skew(namespace),
        version: sake::Version::V1,
    };
    Timeout::new(Cups::new(sake, cups::Version::V1), Duration::from_millis(HANDSHAKE_MS_MAX))
}

const FRAME: u32 = FRAME_BYTES_MAX as u32;

fn refused(address: SocketAddr, namespace: &[u8], error: TimeoutError<sake::Error>) -> Error {
    match error {
        TimeoutError::Upgrade(sake::Error::Frame(_)) if is_node(namespace) => Error::NoNode(address),
        TimeoutError::Upgrade(reason) => Error::Handshake(address, reason),
        TimeoutError::Timeout => Error::HandshakeTimeout(address),
    }
}

/// Connects to `peer` at `address` for the service with this namespace.
///
/// # Errors
/// The address does not answer, proves another key, runs another service, or is too slow.
pub async fn dial<E, N>(
    context: E,
    network: &N,
    key: &PrivateKey,
    namespace: &[u8],
    peer: Account,
    address: impl Into<Address> + Send,
) -> Result<Channel<N>, Error>
where
    E: Clock + CryptoRng + Resolver + Supervisor,
    N: Network,
{
    dial_where(context, network, key, namespace, (peer, address.into()), |_| true).await
}

/// As [`dial`], at those addresses of the host alone that `may_dial` accepts. A name may have an address that is closed,
/// dead or another machine's, such as one of IPv6 that no router forwards: the next one is tried then.
///
/// # Errors
/// As [`dial`], of the address that came furthest; [`Error::Hidden`] if no address is accepted.
pub(crate) async fn dial_where<E, N>(
    context: E,
    network: &N,
    key: &PrivateKey,
    namespace: &[u8],
    (peer, address): (Account, Address),
    may_dial: impl Fn(IpAddr) -> bool + Send,
) -> Result<Channel<N>, Error>
where
    E: Clock + CryptoRng + Resolver + Supervisor,
    N: Network,
{
    let public = peer.public_key().ok_or(Error::Key(peer))?;
    let mut candidates = address.resolve(&context).await?;
    candidates.retain(|candidate| may_dial(candidate.ip()));
    let mut failed = Error::Hidden(address.clone());
    let count = candidates.len();
    for (place, candidate) in candidates.into_iter().enumerate() {
        let limit = (place + 1 < count).then_some(CONNECT);
        let error = match connect_to(&context, network, candidate, limit).await {
            Ok((sink, stream)) => {
                let stream = Metered { stream, gate: None };
                let attempt = context.child("handshake");
                let upgrade = upgrade(key, namespace);
                match upgrade.dial(attempt, namespace, FRAME, public.clone(), stream, sink).await {
                    Ok((sender, receiver)) => {
                        return Ok((Sender(sender), Receiver { inner: receiver, gate: None }));
                    }
                    Err(error) => refused(candidate, namespace, error),
                }
            }
            Err(error) => Error::Dial(address.clone(), error),
        };
        // A peer that answered says more than an address where nobody does.
        if matches!(failed, Error::Hidden(_) | Error::Dial(..)) {
            failed = error;
        }
    }
    Err(failed)
}

/// Opens a connection to an address, within `limit` if there is one.
async fn connect_to<E: Clock, N: Network>(
    context: &E,
    network: &N,
    to: SocketAddr,
    limit: Option<Duration>,
) -> Result<(SinkOf<N>, StreamOf<N>), commonware_runtime::Error> {
    let Some(limit) = limit else { return network.dial(to).await };
    let late = context.sleep(limit);
    select! {
        connected = network.dial(to) => connected,
        () = late => Err(commonware_runtime::Error::Timeout),
    }
}

/// The address, key and service of a listener.
#[derive(Clone)]
pub struct Listen {
    /// The key that callers expect.
    pub key: PrivateKey,
    /// Namespace of the service, bound into the handshake.
    pub namespace: &'static [u8],
    /// Port 0 takes any free port.
    pub address: SocketAddr,
    /// Upper bound on proved connections at once.
    pub connections_max: usize,
}

impl Listen {
    /// Uses the standard bound on connections.
    pub const fn new(key: PrivateKey, namespace: &'static [u8], address: SocketAddr) -> Self {
        Self { key, namespace, address, connections_max: CONNECTIONS_MAX }
    }
}

/// A running listener. It stops with the task that started it, or by `task.abort()`.
pub struct Listening {
    /// The address that was bound, with the actual port.
    pub address: SocketAddr,
    /// Ends when it is aborted, or with the task that started it.
    pub task: Handle<()>,
}

/// Accepts any key and passes each proved connection to `serve`, in a task of its own.
///
/// When the listener is full, connections that prove no key, have no open call, or belong to the key or
/// origin with the most connections are closed first. Accept errors are logged, and accepting goes on.
///
/// # Errors
/// [`Error::Bind`].
pub async fn listen<E, N, F, Fut>(
    context: E,
    network: &N,
    config: Listen,
    serve: F,
) -> Result<Listening, Error>
where
    E: Spawner + Clock + CryptoRng,
    N: Network,
    F: Fn(E, Account, Sender<SinkOf<N>>, Receiver<StreamOf<N>>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = network.bind(config.address).await.map_err(|error| Error::Bind(config.address, error))?;
    let address = listener.local_addr().unwrap_or(config.address);
    let task = context.spawn(move |context| accept::<E, N, F, Fut>(context, listener, config, serve));
    Ok(Listening { address, task })
}

async fn accept<E, N, F, Fut>(context: E, mut listener: ListenerOf<N>, config: Listen, serve: F)
where
    E: Spawner + Clock + CryptoRng,
    N: Network,
    F: Fn(E, Account, Sender<SinkOf<N>>, Receiver<StreamOf<N>>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let places = Places::default();
    let (reads, writes) = (Budget::new(READ_BYTES_MAX), Budget::new(WRITE_BYTES_MAX));
    let pauses = Backoff::new(ACCEPT_PAUSE, ACCEPT_PAUSE_MAX);
    let (mut failures, mut backoff) = (0_u32, pauses);
    loop {
        let (address, sink, stream) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                log_accept_error(config.address, failures, &error);
                failures = failures.saturating_add(1);
                context.sleep(backoff.next().unwrap_or(ACCEPT_PAUSE_MAX)).await;
                continue;
            }
        };
        if failures > 0 {
            tracing::warn!(failures, "the listener on {} accepts connections again", config.address);
            (failures, backoff) = (0, pauses);
        }
        let origin = Origin::of(address.ip());
        let (place, cut) = places.arrive(origin);
        let (config, serve) = (config.clone(), serve.clone());
        let gate = Gate::new(context.child("gate"), address, reads.clone(), writes.clone());
        context.child("connection").spawn(move |context| async move {
            let connection = connect::<E, N, F, Fut>(
                context,
                config,
                serve,
                &place,
                Arc::new(gate),
                (address, sink, stream),
            );
            select! {
                () = connection => {},
                _ = cut => tracing::debug!(%address, "a connection gives way to another"),
            }
        });
    }
}

/// Logs an accept error when it begins, and from time to time while it lasts.
fn log_accept_error(address: SocketAddr, failures: u32, error: &commonware_runtime::Error) {
    if failures == 0 {
        tracing::warn!(%error, "the listener on {address} cannot accept a connection; it tries again");
    } else if failures.is_multiple_of(ACCEPT_FAILURES_TOLD) {
        tracing::error!(
            %error,
            failures,
            "the listener on {address} accepts no connection: new clients are not served; \
             look at the number of open files of this process"
        );
    }
}

/// Verifies the other end's key and serves the connection.
async fn connect<E, N, F, Fut>(
    context: E,
    config: Listen,
    serve: F,
    place: &ConnectionPlace,
    gate: Arc<Gate>,
    (address, sink, stream): (SocketAddr, SinkOf<N>, StreamOf<N>),
) where
    E: Spawner + Clock + CryptoRng,
    N: Network,
    F: Fn(E, Account, Sender<SinkOf<N>>, Receiver<StreamOf<N>>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let anyone = |_| {
        place.speaks();
        async { true }
    };
    let stream = Metered { stream, gate: Some(gate.clone()) };
    let handshake = upgrade(&config.key, config.namespace).listen(
        context.child("handshake"),
        config.namespace,
        FRAME,
        anyone,
        stream,
        sink,
    );
    let (key, sender, receiver) = match handshake.await {
        Ok(proved) => proved,
        Err(error) => {
            tracing::debug!(%address, %error, "handshake failed");
            return;
        }
    };
    let peer = Account::of(&key);
    let Some(calls) = place.prove(peer, config.connections_max) else {
        return tracing::debug!(%address, %peer, "no place for a connection: its key or all keys hold too many");
    };
    gate.open(peer, calls);
    serve(context, peer, Sender(sender), Receiver { inner: receiver, gate: Some(gate) }).await;
}
