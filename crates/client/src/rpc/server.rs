//! The answering side of an RPC connection: accepts calls and sends their answers.

use super::{
    Error, Service,
    shared::{Frame, Half, PendingCall, Shared, frame, frame_bytes, idle, read, write},
};
use crate::channel::{self, Listen, Listening, memory::Held};
use commonware_macros::select;
use commonware_runtime::{Clock, Network, Sink, Spawner, Stream};
use posync_protocol::{Account, limits::CALLS_MAX};
use rand_core::CryptoRng;
use std::{marker::PhantomData, net::IpAddr, sync::Arc, time::Duration};

/// Time without an open call after which a server ends a connection (at most twice that). A call that
/// stays open, such as one that follows blocks, keeps its connection.
pub(crate) const IDLE_MS_MAX: u64 = 300_000;

/// A handler's view of a call. Dropping it without an answer closes the call.
pub struct Incoming<S: Service> {
    half: Half<S::Ask>,
    peer: Account,
    _held: Option<Held>,
    reserved: Option<Held>,
    _service: PhantomData<fn() -> S>,
}

impl<S: Service> Incoming<S> {
    /// The caller's account: the key that the connection proved.
    pub const fn peer(&self) -> Account {
        self.peer
    }

    /// IP address from which the caller connected, IPv4 never written as IPv6; `None` without a listener.
    pub fn origin(&self) -> Option<IpAddr> {
        self.half.shared.address().map(|address| address.ip().to_canonical())
    }

    /// The caller's next message; `None` when the caller has left.
    pub async fn recv(&mut self) -> Option<S::Ask> {
        self.half.recv().await
    }

    /// Reserves memory for the last answer, of at most `bytes`. A handler with a large answer calls this
    /// before it builds the answer, so that callers that do not read cannot make it hold many.
    pub async fn reserve(&mut self, bytes: usize) {
        self.reserved = self.half.shared.memory(bytes).await;
    }

    /// Sends one of several answers once the caller's window has room.
    ///
    /// # Errors
    /// [`Error::Gone`] when the caller has left; [`Error::TooLarge`] is a bug of the handler.
    pub async fn send(&self, answer: &S::Answer) -> Result<(), Error> {
        self.half.send(answer).await
    }

    /// Sends the last answer and ends the call.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn finish(mut self, answer: &S::Answer) -> Result<(), Error> {
        let (id, shared) = (self.half.id, self.half.shared.clone());
        let size = frame_bytes(answer)?;
        self.half.credit.acquire().await.map_err(|_| Error::Gone)?.forget();
        let room = shared.room(size, self.reserved.take()).await?;
        let bytes = frame(&Frame::Last(()), id, answer)?;
        // Removed first, so that dropping `self` sends no Close after the answer.
        shared.forget(id);
        shared.push(bytes, room)
    }
}

/// A service that answers calls with `handler`, each in a task of its own.
pub struct Server<S, F> {
    handler: F,
    _service: PhantomData<fn() -> S>,
}

impl<S, F: Clone> Clone for Server<S, F> {
    fn clone(&self) -> Self {
        Self { handler: self.handler.clone(), _service: PhantomData }
    }
}

impl<S, F, Fut> Server<S, F>
where
    S: Service,
    F: Fn(Incoming<S>, S::Ask) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    /// Creates a server that answers each call with `handler`.
    pub fn new(handler: F) -> Self {
        Self { handler, _service: PhantomData }
    }

    /// Listens and serves every caller.
    ///
    /// # Errors
    /// [`channel::Error::Bind`].
    pub async fn listen<E, N>(
        self,
        context: E,
        network: &N,
        config: Listen,
    ) -> Result<Listening, channel::Error>
    where
        E: Spawner + Clock + CryptoRng,
        N: Network,
    {
        channel::listen(context, network, config, move |context, peer, sender, receiver| {
            let server = self.clone();
            async move { server.serve(&context, peer, sender, receiver).await }
        })
        .await
    }

    /// Serves one connection until it ends.
    pub async fn serve<E, O, I>(
        &self,
        context: &E,
        peer: Account,
        mut sender: channel::Sender<O>,
        mut receiver: channel::Receiver<I>,
    ) where
        E: Spawner + Clock,
        O: Sink,
        I: Stream,
    {
        let (shared, mut queue) = Shared::<S::Ask>::new(receiver.gate());
        // Runs also when this future is dropped: every handler ends with its connection.
        let _closing = Closing(shared.clone());
        let mut next = 0;
        let take = |id, frame, held| match frame {
            Frame::Open(ask) => {
                if id != next {
                    return None;
                }
                next += 1;
                self.start(context, &shared, peer, id, ask, held)
            }
            Frame::Last(_) => None,
            other => shared.common(id, other, held),
        };
        let weak = Arc::downgrade(&shared);
        select! {
            () = write(context, &mut sender, &mut queue, |frames| shared.wrote(frames)) => {},
            () = read(&mut receiver, Some(&*shared), take) => {},
            () = idle(context, &weak, Duration::from_millis(IDLE_MS_MAX)) => {
                tracing::debug!(%peer, "a connection without a call ends");
            },
        }
    }

    fn start<E: Spawner>(
        &self,
        context: &E,
        shared: &Arc<Shared<S::Ask>>,
        peer: Account,
        id: u64,
        ask: S::Ask,
        held: Option<Held>,
    ) -> Option<()> {
        let (slot, inbox) = PendingCall::new(S::takes_more(&ask));
        let credit = slot.credit.clone();
        // Only this task adds calls, so the check holds.
        if shared.with(|slots| slots.len())? >= CALLS_MAX {
            return None;
        }
        shared.insert(id, slot)?;
        let half = Half { id, shared: shared.clone(), inbox, credit, taken: 0 };
        let incoming = Incoming { half, peer, _held: held, reserved: None, _service: PhantomData };
        let handler = self.handler.clone();
        let task = context.child("call").spawn(move |_| handler(incoming, ask));
        shared.with(|slots| {
            // A handler that has finished already has no slot.
            if let Some(slot) = slots.get_mut(&id) {
                slot.task = Some(task);
            }
        })
    }
}

struct Closing<T>(Arc<Shared<T>>);

impl<T> Drop for Closing<T> {
    fn drop(&mut self) {
        self.0.close();
    }
}
