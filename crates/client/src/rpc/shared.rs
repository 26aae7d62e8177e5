//! Shared by both ends of a connection: the table of calls, the frames, the queue to the writer.

use super::Error;
use crate::channel::{
    Receiver, Sender,
    memory::{Gate, Held},
};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use commonware_codec::{DecodeExt as _, EncodeSize, Read, Write};
use commonware_macros::select;
use commonware_runtime::{Clock, Handle, Sink, Stream};
use commonware_utils::sync::{Mutex, MutexGuard};
use posync_protocol::limits::{CALL_WINDOW, CALLS_MAX, FRAME_BYTES_MAX, FRAMES_QUEUED_MAX, KEEP_ALIVE_MS};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

/// Frames waiting to be written above which a server stops reading from that connection: a peer that does
/// not read cannot make it queue answers.
const QUEUED_MAX: usize = 4 * CALLS_MAX;

const OPEN: u8 = 0;
const MESSAGE: u8 = 1;
const LAST: u8 = 2;
const GRANT: u8 = 3;
const CLOSE: u8 = 4;
const HEAD_BYTES: usize = 9;

/// A frame by kind. On the wire, an id names its call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<T> {
    Open(T),
    Message(T),
    Last(T),
    Grant(u32),
    Close,
}

/// Bytes of the frame that carries a message; an error if they exceed a frame.
pub(super) fn frame_bytes<T: EncodeSize>(message: &T) -> Result<usize, Error> {
    let size = HEAD_BYTES + message.encode_size();
    if size > FRAME_BYTES_MAX { Err(Error::TooLarge(size)) } else { Ok(size) }
}

/// Encodes a frame that carries a message.
pub(super) fn frame<T: Write + EncodeSize>(kind: &Frame<()>, id: u64, message: &T) -> Result<Bytes, Error> {
    let size = frame_bytes(message)?;
    let mut bytes = BytesMut::with_capacity(size);
    bytes.put_u8(match kind {
        Frame::Open(()) => OPEN,
        Frame::Last(()) => LAST,
        _ => MESSAGE,
    });
    bytes.put_u64(id);
    message.write(&mut bytes);
    Ok(bytes.freeze())
}

fn control(kind: u8, id: u64) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(HEAD_BYTES + 4);
    bytes.put_u8(kind);
    bytes.put_u64(id);
    bytes
}

/// Decodes a frame; `None` if the peer violates the format.
pub(super) fn parse<T: Read<Cfg = ()>>(mut bytes: Bytes) -> Option<(u64, Frame<T>)> {
    if bytes.len() < HEAD_BYTES {
        return None;
    }
    let (kind, id) = (bytes.get_u8(), bytes.get_u64());
    let frame = match kind {
        OPEN => Frame::Open(T::decode(bytes).ok()?),
        MESSAGE => Frame::Message(T::decode(bytes).ok()?),
        LAST => Frame::Last(T::decode(bytes).ok()?),
        GRANT => Frame::Grant(u32::decode(bytes).ok()?),
        CLOSE if bytes.is_empty() => Frame::Close,
        _ => return None,
    };
    Some((id, frame))
}

/// A message and the listener's memory that it holds.
pub(super) type Kept<T> = (T, Option<Held>);

/// One end's view of an open call.
pub(super) struct PendingCall<T> {
    /// Queue to the task that reads this call.
    pub(super) inbox: mpsc::Sender<Kept<T>>,
    /// Messages that this side may still send.
    pub(super) credit: Arc<Semaphore>,
    /// Handler's task, on the server's side.
    pub(super) task: Option<Handle<()>>,
    /// True if the peer may send more messages.
    more: bool,
}

impl<T> PendingCall<T> {
    /// Creates the slot of a call; `more` allows the peer to send further messages.
    pub(super) fn new(more: bool) -> (Self, mpsc::Receiver<Kept<T>>) {
        let (inbox, outlet) = mpsc::channel(CALL_WINDOW);
        let credit = Arc::new(Semaphore::new(CALL_WINDOW));
        (Self { inbox, credit, task: None, more }, outlet)
    }
}

impl<T> Drop for PendingCall<T> {
    fn drop(&mut self) {
        self.credit.close();
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Room for a message that waits to be written: a place in the queue and, on a server, memory.
pub(super) struct Room {
    _place: OwnedSemaphorePermit,
    _held: Option<Held>,
}

/// A frame for the writer, and its room if it carries a message.
pub(super) type Queued = (Bytes, Option<Room>);

/// One end of a connection; `T` is the type of the messages that arrive.
pub(super) struct Shared<T> {
    slots: Mutex<Option<BTreeMap<u64, PendingCall<T>>>>,
    queue: mpsc::UnboundedSender<Queued>,
    places: Arc<Semaphore>,
    /// Budget of the connection, on a server's side.
    gate: Option<Arc<Gate>>,
    /// Calls opened since the connection began.
    opened: AtomicU64,
    /// Frames that wait to be written.
    queued: AtomicUsize,
    written: Notify,
}

impl<T> Shared<T> {
    pub(super) fn new(gate: Option<Arc<Gate>>) -> (Arc<Self>, mpsc::UnboundedReceiver<Queued>) {
        // Unbounded in type only: messages take a place, a call has one Close and one Grant per half window,
        // and a server reads nothing while more than QUEUED_MAX frames wait.
        let (queue, outlet) = mpsc::unbounded_channel();
        let shared = Self {
            slots: Mutex::new(Some(BTreeMap::new())),
            queue,
            places: Arc::new(Semaphore::new(FRAMES_QUEUED_MAX)),
            gate,
            opened: AtomicU64::new(0),
            queued: AtomicUsize::new(0),
            written: Notify::new(),
        };
        (Arc::new(shared), outlet)
    }

    /// Address from which the peer connected, on a server's side.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.gate.as_ref().map(|gate| gate.address)
    }

    fn lock(&self) -> MutexGuard<'_, Option<BTreeMap<u64, PendingCall<T>>>> {
        self.slots.lock()
    }

    /// Applies `work` to the table; `None` once the connection is gone.
    pub(super) fn with<R>(&self, work: impl FnOnce(&mut BTreeMap<u64, PendingCall<T>>) -> R) -> Option<R> {
        let mut slots = self.lock();
        let slots = slots.as_mut()?;
        let done = work(slots);
        if let Some(calls) = self.gate.as_ref().and_then(|gate| gate.calls()) {
            calls.store(slots.len(), Ordering::Relaxed);
        }
        Some(done)
    }

    /// Enters a call into the table; `None` once the connection is gone.
    pub(super) fn insert(&self, id: u64, slot: PendingCall<T>) -> Option<()> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.with(|slots| slots.insert(id, slot)).map(drop)
    }

    /// Calls ever opened, and calls open now; `None` once the connection is gone.
    pub(super) fn activity(&self) -> Option<(u64, usize)> {
        self.with(|slots| (self.opened.load(Ordering::Relaxed), slots.len()))
    }

    /// On a server's side, waits until the writer keeps up.
    async fn keeps_up(&self) {
        while self.gate.is_some() && self.queued.load(Ordering::Acquire) > QUEUED_MAX {
            let mut written = std::pin::pin!(self.written.notified());
            written.as_mut().enable();
            if self.queued.load(Ordering::Acquire) > QUEUED_MAX {
                written.await;
            }
        }
    }

    fn enqueue(&self, queued: Queued) -> Result<(), Error> {
        self.queued.fetch_add(1, Ordering::AcqRel);
        self.queue.send(queued).map_err(|_| Error::Gone)
    }

    /// Ends every call of the connection.
    pub(super) fn close(&self) {
        let slots = self.lock().take();
        self.places.close();
        drop(slots);
    }

    /// Waits for room for a message of `bytes`; memory in `held` is used first.
    pub(super) async fn room(&self, bytes: usize, held: Option<Held>) -> Result<Room, Error> {
        let place = self.places.clone().acquire_owned().await.map_err(|_| Error::Gone)?;
        let held = match held {
            Some(held) => Some(held),
            None => self.memory(bytes).await,
        };
        Ok(Room { _place: place, _held: held })
    }

    /// On a server's side, waits for memory for an answer of `bytes`.
    pub(super) async fn memory(&self, bytes: usize) -> Option<Held> {
        let gate = self.gate.as_ref()?;
        Some(gate.writes.take(gate.holder()?, bytes).await)
    }

    /// Queues a message that has room.
    pub(super) fn push(&self, bytes: Bytes, room: Room) -> Result<(), Error> {
        self.enqueue((bytes, Some(room)))
    }

    /// Removes a call without a notice to the peer: the last message is that notice. The handler runs on.
    pub(super) fn forget(&self, id: u64) -> bool {
        let slot = self.with(|slots| slots.remove(&id)).flatten();
        slot.map(|mut slot| slot.task = None).is_some()
    }

    /// Queues a frame that grants the peer more messages.
    pub(super) fn grant(&self, id: u64, messages: u32) {
        let mut bytes = control(GRANT, id);
        bytes.put_u32(messages);
        let _ = self.enqueue((bytes.freeze(), None));
    }

    /// Removes a call and notifies the peer if it was still open. The handler runs on.
    pub(super) fn end(&self, id: u64) {
        if self.forget(id) {
            let _ = self.enqueue((control(CLOSE, id).freeze(), None));
        }
    }

    /// Handles the frames that both sides treat alike. `None`: the peer violated the protocol.
    pub(super) fn common(&self, id: u64, frame: Frame<T>, held: Option<Held>) -> Option<()> {
        let taken = self.with(|slots| match frame {
            Frame::Open(_) => None,
            Frame::Message(message) => match slots.get(&id) {
                Some(slot) => deliver(slot, message, held),
                None => Some(None),
            },
            Frame::Last(message) => match slots.remove(&id) {
                Some(slot) => deliver(&slot, message, held).map(|_| Some(slot)),
                None => Some(None),
            },
            Frame::Grant(messages) => match slots.get(&id) {
                Some(slot) => grant(slot, messages),
                None => Some(None),
            },
            Frame::Close => Some(slots.remove(&id)),
        })?;
        taken.map(drop)
    }
}

/// `None` if the window is exceeded or the call takes no more. If the reader has gone, the message is lost.
fn deliver<T>(slot: &PendingCall<T>, message: T, held: Option<Held>) -> Option<Option<PendingCall<T>>> {
    if !slot.more {
        return None;
    }
    match slot.inbox.try_send((message, held)) {
        Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Some(None),
        Err(mpsc::error::TrySendError::Full(_)) => None,
    }
}

fn grant<T>(slot: &PendingCall<T>, messages: u32) -> Option<Option<PendingCall<T>>> {
    let messages = messages as usize;
    let granted = slot.credit.available_permits().saturating_add(messages);
    if !cfg!(planted = "any-window") && granted > CALL_WINDOW {
        return None;
    }
    slot.credit.add_permits(messages);
    Some(None)
}

/// One side's handle of an open call: it sends `Out` and receives `In`.
pub(super) struct Half<In> {
    pub(super) id: u64,
    pub(super) shared: Arc<Shared<In>>,
    pub(super) inbox: mpsc::Receiver<Kept<In>>,
    pub(super) credit: Arc<Semaphore>,
    pub(super) taken: u32,
}

impl<In> Half<In> {
    /// Sends a message once the peer's window has room.
    pub(super) async fn send<Out: Write + EncodeSize>(&self, message: &Out) -> Result<(), Error> {
        let size = frame_bytes(message)?;
        self.credit.acquire().await.map_err(|_| Error::Gone)?.forget();
        let room = self.shared.room(size, None).await?;
        self.shared.push(frame(&Frame::Message(()), self.id, message)?, room)
    }

    /// The next message; `None` when the peer ended the call or the connection is gone.
    pub(super) async fn recv(&mut self) -> Option<In> {
        let (message, held) = self.inbox.recv().await?;
        drop(held);
        self.taken += 1;
        if self.taken as usize >= CALL_WINDOW / 2 {
            self.shared.grant(self.id, std::mem::take(&mut self.taken));
        }
        Some(message)
    }
}

impl<In> Drop for Half<In> {
    fn drop(&mut self) {
        self.shared.end(self.id);
    }
}

/// Writes queued frames, several at a time, and sends keep-alives.
pub(super) async fn write<E: Clock, O: Sink>(
    context: &E,
    sender: &mut Sender<O>,
    queue: &mut mpsc::UnboundedReceiver<Queued>,
    written: impl Fn(usize),
) {
    loop {
        let first = select! {
            first = queue.recv() => first,
            () = context.sleep(Duration::from_millis(KEEP_ALIVE_MS)) => {
                if sender.keep_alive().await.is_err() {
                    return;
                }
                continue;
            },
        };
        let Some((first, place)) = first else { return };
        let (mut frames, mut places, mut bytes) = (vec![first], vec![place], 0);
        while bytes < FRAME_BYTES_MAX
            && let Ok((frame, place)) = queue.try_recv()
        {
            bytes += frame.len();
            frames.push(frame);
            places.push(place);
        }
        let count = frames.len();
        if sender.send_many(frames).await.is_err() {
            return;
        }
        written(count);
    }
}

impl<T> Shared<T> {
    /// Records that the writer has written frames.
    pub(super) fn wrote(&self, frames: usize) {
        self.queued.fetch_sub(frames, Ordering::AcqRel);
        self.written.notify_waiters();
    }
}

/// Waits until the connection has had no call for `time`, at most twice that. It does not keep it open.
pub(super) async fn idle<E: Clock, T>(context: &E, shared: &Weak<Shared<T>>, time: Duration) {
    let mut before = None;
    loop {
        let Some(now) = shared.upgrade().and_then(|shared| shared.activity()) else { return };
        if before == Some(now) && now.1 == 0 {
            return;
        }
        before = Some(now);
        context.sleep(time).await;
    }
}

/// Passes frames to `take` until the connection ends or `take` finds a violation of the protocol.
pub(super) async fn read<I: Stream, T: Read<Cfg = ()>>(
    receiver: &mut Receiver<I>,
    shared: Option<&Shared<T>>,
    mut take: impl FnMut(u64, Frame<T>, Option<Held>) -> Option<()>,
) {
    loop {
        if let Some(shared) = shared {
            shared.keeps_up().await;
        }
        let Ok((bytes, mut held)) = receiver.recv_held().await else { return };
        let size = bytes.len();
        let Some((id, frame)) = parse(bytes) else {
            tracing::debug!("the peer sent a frame that does not decode");
            return;
        };
        if held.is_none()
            && !matches!(frame, Frame::Grant(_) | Frame::Close)
            && let Some(gate) = receiver.gate()
        {
            let Ok(taken) = gate.take(size).await else { return };
            held = taken;
        }
        if take(id, frame, held).is_none() {
            tracing::debug!(id, "the peer overran a bound of the connection");
            return;
        }
    }
}
