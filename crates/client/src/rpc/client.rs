//! The calling side of an RPC connection: opens calls and receives their answers.

use super::{
    Error, Service,
    shared::{Frame, Half, PendingCall, Shared, frame, frame_bytes, idle, read, write},
};
use crate::{
    address::Address,
    channel::{self, Receiver, Sender},
};
use commonware_codec::{EncodeSize, Write};
use commonware_cryptography::ed25519::PrivateKey;
use commonware_macros::select;
use commonware_runtime::{Clock, Network, Resolver, Sink, Spawner, Stream};
use commonware_utils::sync::Mutex;
use posync_protocol::{Account, limits::CALLS_MAX};
use rand_core::CryptoRng;
use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Time without an open call after which a caller ends a connection (at most twice that). It is shorter
/// than the server's, so that no call meets a connection that is being ended.
const IDLE_MS_MAX: u64 = super::server::IDLE_MS_MAX / 3;

/// A connection to a service; clones share it. It closes when the last clone and call are dropped.
pub struct Client<S: Service> {
    inner: Arc<Inner<S>>,
}

impl<S: Service> Clone for Client<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

struct Inner<S: Service> {
    shared: Arc<Shared<S::Answer>>,
    calls: Arc<Semaphore>,
    next: Mutex<u64>,
    gone: Arc<AtomicBool>,
}

impl<S: Service> Drop for Inner<S> {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// An open call. Dropping it cancels it.
pub struct Call<S: Service> {
    half: Half<S::Answer>,
    _client: Client<S>,
    _place: OwnedSemaphorePermit,
}

impl<S: Service> Client<S> {
    /// Connects to `peer` at `address`.
    ///
    /// # Errors
    /// As [`channel::dial`].
    pub async fn dial<E, N>(
        context: E,
        network: &N,
        key: &PrivateKey,
        peer: Account,
        address: impl Into<Address> + Send,
    ) -> Result<Self, Error>
    where
        E: Spawner + Clock + CryptoRng + Resolver,
        N: Network,
    {
        Self::dial_where(context, network, key, (peer, address.into()), |_| true).await
    }

    /// As [`Self::dial`], at those addresses of the host alone that `may_dial` accepts.
    ///
    /// # Errors
    /// As [`channel::dial_where`].
    pub async fn dial_where<E, N>(
        context: E,
        network: &N,
        key: &PrivateKey,
        peer: (Account, Address),
        may_dial: impl Fn(IpAddr) -> bool + Send,
    ) -> Result<Self, Error>
    where
        E: Spawner + Clock + CryptoRng + Resolver,
        N: Network,
    {
        let dialing = context.child("dial");
        let dialled = channel::dial_where(dialing, network, key, S::NAMESPACE, peer, may_dial).await;
        let (sender, receiver) = dialled?;
        Ok(Self::over(context, sender, receiver))
    }

    /// Uses a channel that is open already.
    pub(crate) fn over<E, O, I>(context: E, mut sender: Sender<O>, mut receiver: Receiver<I>) -> Self
    where
        E: Spawner + Clock,
        O: Sink,
        I: Stream,
    {
        let (shared, mut queue) = Shared::<S::Answer>::new(None);
        let gone = Arc::new(AtomicBool::new(false));
        let (weak, flag) = (Arc::downgrade(&shared), gone.clone());
        context.spawn(move |context| async move {
            let take = |id, frame, held| {
                // If the client is gone, nothing waits for the answer.
                weak.upgrade()?.common(id, frame, held)
            };
            select! {
                () = write(&context, &mut sender, &mut queue, |_| {}) => {},
                () = read(&mut receiver, None, take) => {},
                () = idle(&context, &weak, Duration::from_millis(IDLE_MS_MAX)) => {},
            }
            flag.store(true, Ordering::Release);
            if let Some(shared) = weak.upgrade() {
                shared.close();
            }
        });
        let calls = Arc::new(Semaphore::new(CALLS_MAX));
        Self { inner: Arc::new(Inner { shared, calls, next: Mutex::new(0), gone }) }
    }

    /// True once the connection has ended.
    pub fn is_gone(&self) -> bool {
        self.inner.gone.load(Ordering::Acquire)
    }

    /// Sends one request and waits for one answer.
    ///
    /// # Errors
    /// The connection ended, or the server gave no answer.
    pub async fn call(&self, ask: S::Ask) -> Result<S::Answer, Error> {
        let mut call = self.open(ask).await?;
        match call.recv().await {
            Some(answer) => Ok(answer),
            None if self.is_gone() => Err(Error::Gone),
            None => Err(Error::NoAnswer),
        }
    }

    /// Opens a call for more than one message. Waits while [`CALLS_MAX`] are open.
    ///
    /// # Errors
    /// The connection ended, or the ask is too large for a frame.
    pub async fn open(&self, ask: S::Ask) -> Result<Call<S>, Error> {
        self.open_as(&ask).await
    }

    /// As [`Self::open`], with a value that encodes as an ask, so large bytes can be borrowed.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_as(&self, ask: &(impl Write + EncodeSize)) -> Result<Call<S>, Error> {
        let place = self.inner.calls.clone().acquire_owned().await.map_err(|_| Error::Gone)?;
        let shared = &self.inner.shared;
        let room = shared.room(frame_bytes(ask)?, None).await?;
        let (slot, inbox) = PendingCall::new(true);
        let credit = slot.credit.clone();
        // Held until the frame is queued, so that ids reach the queue in order.
        let mut next = self.inner.next.lock();
        let id = *next;
        let bytes = frame(&Frame::Open(()), id, ask)?;
        *next += 1;
        shared.insert(id, slot).ok_or(Error::Gone)?;
        let half = Half { id, shared: shared.clone(), inbox, credit, taken: 0 };
        shared.push(bytes, room)?;
        drop(next);
        Ok(Call { half, _client: self.clone(), _place: place })
    }
}

impl<S: Service> Call<S> {
    /// Sends another ask once the server's window has room.
    ///
    /// # Errors
    /// [`Error::Gone`] when the call or the connection has ended.
    pub async fn send(&self, ask: &S::Ask) -> Result<(), Error> {
        self.half.send(ask).await
    }

    /// The next answer; `None` when the server ended the call or the connection is gone.
    pub async fn recv(&mut self) -> Option<S::Answer> {
        self.half.recv().await
    }
}
