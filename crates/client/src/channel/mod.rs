//! Framed, authenticated, encrypted channels between node keys: everything that is not consensus
//! traffic travels over one of these.
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
//! 3. A handshake ends within [`HANDSHAKE_MS_MAX`]; a listener serves at most its bound of connections.
//! 4. Any error closes that half for good.
//!
//! An empty frame only says "still here" and is never seen by a caller.
//! Sources: `commonware_stream::{cups, sake}`. The TCP options (no delay, timeouts) are the runtime's.

mod cipher;
#[cfg(test)]
mod tests;

pub use cipher::Aes256Gcm;

use bytes::Bytes;
use commonware_cryptography::ed25519::PrivateKey;
use commonware_runtime::{
    Clock, Handle, IoBufs, Listener as _, ListenerOf, Network, Sink, SinkOf, Spawner, Stream, StreamOf,
};
use commonware_stream::{
    Upgrader as _,
    cups::{self, Cups},
    sake::{self, Sake},
    utils::{Timeout, TimeoutError},
};
use posync_protocol::{
    Account,
    limits::{CONNECTIONS_MAX, FRAME_BYTES_MAX, HANDSHAKE_MS_MAX, HANDSHAKE_SKEW_MS_MAX},
};
use rand_core::CryptoRng;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::sync::Semaphore;

/// Accept errors in a row after which a listener gives up.
const ACCEPT_FAILURES_MAX: u32 = 100;
/// Pause after an accept error (out of file descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a channel could not be opened or is gone.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be bound.
    #[error("cannot listen on {0}: {1}; choose a free port or stop what uses it")]
    Bind(SocketAddr, #[source] commonware_runtime::Error),
    /// Nobody answers there.
    #[error("cannot reach {0}: {1}; is the process running and the address right?")]
    Dial(SocketAddr, #[source] commonware_runtime::Error),
    /// The account is not a valid key.
    #[error("{0} is not a valid key; check the account")]
    Key(Account),
    /// The other end did not prove the expected key.
    #[error("the peer at {0} did not prove the expected key: {1}; check its account and the service")]
    Handshake(SocketAddr, #[source] sake::Error),
    /// The other end took too long.
    #[error("the handshake with {0} took more than {HANDSHAKE_MS_MAX} ms; the peer is busy or not posync")]
    HandshakeTimeout(SocketAddr),
    /// A message does not fit a frame.
    #[error("a message of {0} bytes exceeds the frame of {FRAME_BYTES_MAX}; split it")]
    TooLarge(usize),
    /// The connection ended or broke a rule.
    #[error("the connection is lost: {0}")]
    Lost(#[source] cups::Error),
}

impl From<cups::Error> for Error {
    fn from(error: cups::Error) -> Self {
        match error {
            cups::Error::SendTooLarge(bytes) => Self::TooLarge(bytes),
            other => Self::Lost(other),
        }
    }
}

/// The sending half.
pub struct Sender<O>(cups::Sender<Aes256Gcm, O>);

/// The receiving half.
pub struct Receiver<I>(cups::Receiver<Aes256Gcm, I>);

/// Both halves, on the network `N`.
pub type Channel<N> = (Sender<SinkOf<N>>, Receiver<StreamOf<N>>);

impl<O: Sink> Sender<O> {
    /// Sends one frame.
    ///
    /// # Errors
    /// [`Error::TooLarge`] leaves the channel usable; any other closes it. Dropping the future does too.
    pub async fn send(&mut self, frame: impl Into<IoBufs> + Send) -> Result<(), Error> {
        Ok(self.0.send(frame).await?)
    }

    /// Sends frames in order with one write.
    ///
    /// # Errors
    /// As [`Self::send`]; nothing was sent if one is too large.
    pub async fn send_many(&mut self, frames: Vec<Bytes>) -> Result<(), Error> {
        Ok(self.0.send_many(frames).await?)
    }

    /// Tells the peer, and every box between, that this side lives.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn keep_alive(&mut self) -> Result<(), Error> {
        self.send(Bytes::new()).await
    }
}

impl<I: Stream> Receiver<I> {
    /// The next frame that is not empty.
    ///
    /// # Errors
    /// [`Error::Lost`]; the channel is closed then. Dropping the future closes it too.
    pub async fn recv(&mut self) -> Result<Bytes, Error> {
        loop {
            let frame = self.0.recv().await?.coalesce();
            if !frame.is_empty() {
                return Ok(frame.into());
            }
        }
    }

    #[cfg(test)]
    pub(crate) async fn recv_length(&mut self) -> Result<usize, Error> {
        Ok(self.0.recv().await?.len())
    }
}

type Upgrade = Timeout<Cups<Sake<PrivateKey>, Aes256Gcm>>;

fn upgrade(key: &PrivateKey) -> Upgrade {
    let sake = Sake {
        signer: key.clone(),
        synchrony_bound: Duration::from_millis(HANDSHAKE_SKEW_MS_MAX),
        max_handshake_age: Duration::from_millis(HANDSHAKE_SKEW_MS_MAX),
        version: sake::Version::V1,
    };
    Timeout::new(Cups::new(sake, cups::Version::V1), Duration::from_millis(HANDSHAKE_MS_MAX))
}

const FRAME: u32 = FRAME_BYTES_MAX as u32;

fn refused(address: SocketAddr, error: TimeoutError<sake::Error>) -> Error {
    match error {
        TimeoutError::Upgrade(reason) => Error::Handshake(address, reason),
        TimeoutError::Timeout => Error::HandshakeTimeout(address),
    }
}

/// Connects to `peer` at `address` for the service with that namespace.
///
/// # Errors
/// Nobody there, another key, another service, or too slow.
pub async fn dial<E, N>(
    context: E,
    network: &N,
    key: &PrivateKey,
    namespace: &[u8],
    peer: Account,
    address: SocketAddr,
) -> Result<Channel<N>, Error>
where
    E: Clock + CryptoRng,
    N: Network,
{
    let public = peer.public_key().ok_or(Error::Key(peer))?;
    let (sink, stream) = network.dial(address).await.map_err(|error| Error::Dial(address, error))?;
    let (sender, receiver) = upgrade(key)
        .dial(context, namespace, FRAME, public, stream, sink)
        .await
        .map_err(|error| refused(address, error))?;
    Ok((Sender(sender), Receiver(receiver)))
}

/// Where and as whom to listen.
#[derive(Clone)]
pub struct Listen {
    /// The key that callers expect.
    pub key: PrivateKey,
    /// Of the service.
    pub namespace: &'static [u8],
    /// Port 0 takes any free one.
    pub address: SocketAddr,
    /// Most connections at once, handshakes included.
    pub connections_max: usize,
}

impl Listen {
    /// Listens with the usual bound of connections.
    pub const fn new(key: PrivateKey, namespace: &'static [u8], address: SocketAddr) -> Self {
        Self { key, namespace, address, connections_max: CONNECTIONS_MAX }
    }
}

/// A running listener; it stops with the task that started it, or by `task.abort()`.
pub struct Listening {
    /// The bound address.
    pub address: SocketAddr,
    /// Ends only when accepting fails for good.
    pub task: Handle<()>,
}

/// Accepts any key and gives each proved connection to `serve`, in a task of its own.
///
/// Callers beyond the bound wait in the system's backlog.
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
    let slots = Arc::new(Semaphore::new(config.connections_max));
    let mut failures = 0;
    while failures < ACCEPT_FAILURES_MAX {
        let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (address, sink, stream) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                failures += 1;
                tracing::warn!(%error, "cannot accept a connection");
                context.sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        failures = 0;
        let (upgrade, namespace, serve) = (upgrade(&config.key), config.namespace, serve.clone());
        context.child("connection").spawn(move |context| async move {
            let _slot = slot;
            let anyone = |_| async { true };
            let handshake =
                upgrade.listen(context.child("handshake"), namespace, FRAME, anyone, stream, sink);
            match handshake.await {
                Ok((key, sender, receiver)) => {
                    serve(context, Account::of(&key), Sender(sender), Receiver(receiver)).await;
                }
                Err(error) => {
                    tracing::debug!(%address, %error, "handshake failed");
                    if cfg!(planted = "kept-slot") {
                        std::future::pending::<()>().await;
                    }
                }
            }
        });
    }
    tracing::error!("the listener on {} stops after {failures} failures in a row", config.address);
}
