//! What both ends of a connection share: the table of calls, the frames, the queue to the writer.

use super::{Error, SMALL_BYTES};
use crate::channel::{Receiver, Sender};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use commonware_codec::{DecodeExt as _, EncodeSize, Read, Write};
use commonware_macros::select;
use commonware_runtime::{Clock, Handle, Sink, Stream};
use posync_protocol::limits::{
    CALL_BYTES_MAX, CALL_MEMORY_MS_MAX, CALL_WINDOW, FRAME_BYTES_MAX, FRAMES_QUEUED_MAX, KEEP_ALIVE_MS,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

const OPEN: u8 = 0;
const MESSAGE: u8 = 1;
const LAST: u8 = 2;
const GRANT: u8 = 3;
const CLOSE: u8 = 4;
const HEAD_BYTES: usize = 9;

/// A frame, by kind; `id` names the call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<T> {
    Open(T),
    Message(T),
    Last(T),
    Grant(u32),
    Close,
}

/// Encodes a frame that carries a message.
pub(super) fn frame<T: Write + EncodeSize>(kind: &Frame<()>, id: u64, message: &T) -> Result<Bytes, Error> {
    let size = HEAD_BYTES + message.encode_size();
    if size > FRAME_BYTES_MAX {
        return Err(Error::TooLarge(size));
    }
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

/// Decodes a frame; `None` if the peer does not keep to the format.
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

/// A message and the memory that it holds of the server's bound.
pub(super) type Held<T> = (T, Option<OwnedSemaphorePermit>);

/// One end's view of an open call.
pub(super) struct Slot<T> {
    /// To whoever reads this call.
    pub(super) inbox: mpsc::Sender<Held<T>>,
    /// Messages that this side may still send.
    pub(super) credit: Arc<Semaphore>,
    /// The handler, on the server's side.
    pub(super) task: Option<Handle<()>>,
}

impl<T> Slot<T> {
    pub(super) fn new() -> (Self, mpsc::Receiver<Held<T>>) {
        let (inbox, outlet) = mpsc::channel(CALL_WINDOW);
        let credit = Arc::new(Semaphore::new(CALL_WINDOW));
        (Self { inbox, credit, task: None }, outlet)
    }
}

impl<T> Drop for Slot<T> {
    fn drop(&mut self) {
        self.credit.close();
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// A frame for the writer, and its place in the bounded queue if it carries a message.
pub(super) type Queued = (Bytes, Option<OwnedSemaphorePermit>);

/// One end of a connection; `T` is what arrives.
pub(super) struct Shared<T> {
    slots: Mutex<Option<BTreeMap<u64, Slot<T>>>>,
    queue: mpsc::UnboundedSender<Queued>,
    places: Arc<Semaphore>,
}

impl<T> Shared<T> {
    pub(super) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Queued>) {
        // Unbounded in type only: messages take a place; a call has one Close and one Grant per
        // half window, and no new call starts while the writer stands still.
        let (queue, outlet) = mpsc::unbounded_channel();
        let places = Arc::new(Semaphore::new(FRAMES_QUEUED_MAX));
        (Arc::new(Self { slots: Mutex::new(Some(BTreeMap::new())), queue, places }), outlet)
    }

    fn lock(&self) -> MutexGuard<'_, Option<BTreeMap<u64, Slot<T>>>> {
        self.slots.lock().expect("no holder of this lock panics")
    }

    /// Works on the table; `None` once the connection is gone.
    pub(super) fn with<R>(&self, work: impl FnOnce(&mut BTreeMap<u64, Slot<T>>) -> R) -> Option<R> {
        self.lock().as_mut().map(work)
    }

    /// Ends every call.
    pub(super) fn close(&self) {
        let slots = self.lock().take();
        self.places.close();
        drop(slots);
    }

    /// Waits for a place in the writer's queue.
    pub(super) async fn place(&self) -> Result<OwnedSemaphorePermit, Error> {
        self.places.clone().acquire_owned().await.map_err(|_| Error::Gone)
    }

    /// Queues a message at its place.
    pub(super) fn push(&self, bytes: Bytes, place: OwnedSemaphorePermit) -> Result<(), Error> {
        self.queue.send((bytes, Some(place))).map_err(|_| Error::Gone)
    }

    /// Forgets a call without telling the peer: its last message does. The handler runs on.
    pub(super) fn forget(&self, id: u64) -> bool {
        let slot = self.with(|slots| slots.remove(&id)).flatten();
        slot.map(|mut slot| slot.task = None).is_some()
    }

    /// Queues a frame without a message.
    pub(super) fn grant(&self, id: u64, messages: u32) {
        let mut bytes = control(GRANT, id);
        bytes.put_u32(messages);
        let _ = self.queue.send((bytes.freeze(), None));
    }

    /// Forgets a call and tells the peer, if it was still open. The handler runs on.
    pub(super) fn end(&self, id: u64) {
        if self.forget(id) {
            let _ = self.queue.send((control(CLOSE, id).freeze(), None));
        }
    }

    /// Handles what means the same on both sides. `None`: the peer broke the rules.
    pub(super) fn common(&self, id: u64, frame: Frame<T>, held: Option<OwnedSemaphorePermit>) -> Option<()> {
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

/// `None` when the window is overrun; a reader that has gone loses the message.
fn deliver<T>(slot: &Slot<T>, message: T, held: Option<OwnedSemaphorePermit>) -> Option<Option<Slot<T>>> {
    match slot.inbox.try_send((message, held)) {
        Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Some(None),
        Err(mpsc::error::TrySendError::Full(_)) => None,
    }
}

fn grant<T>(slot: &Slot<T>, messages: u32) -> Option<Option<Slot<T>>> {
    let messages = messages as usize;
    let granted = slot.credit.available_permits().saturating_add(messages);
    if !cfg!(planted = "any-window") && granted > CALL_WINDOW {
        return None;
    }
    slot.credit.add_permits(messages);
    Some(None)
}

/// One side's handle of an open call: sends `Out`, receives `In`.
pub(super) struct Half<In> {
    pub(super) id: u64,
    pub(super) shared: Arc<Shared<In>>,
    pub(super) inbox: mpsc::Receiver<Held<In>>,
    pub(super) credit: Arc<Semaphore>,
    pub(super) taken: u32,
}

impl<In> Half<In> {
    /// Sends a message when the peer's window has room.
    pub(super) async fn send<Out: Write + EncodeSize>(&self, message: &Out) -> Result<(), Error> {
        let bytes = frame(&Frame::Message(()), self.id, message)?;
        self.credit.acquire().await.map_err(|_| Error::Gone)?.forget();
        let place = self.shared.place().await?;
        self.shared.push(bytes, place)
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

/// Writes what is queued, several frames at a time, and keeps the connection warm.
pub(super) async fn write<E: Clock, O: Sink>(
    context: &E,
    sender: &mut Sender<O>,
    queue: &mut mpsc::UnboundedReceiver<Queued>,
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
        if sender.send_many(frames).await.is_err() {
            return;
        }
    }
}

/// The bound of large messages, on a clock: who waits too long for memory loses the connection.
pub(super) struct Memory<'a, E> {
    pub(super) context: &'a E,
    pub(super) kib: &'a Arc<Semaphore>,
}

impl<E: Clock> Memory<'_, E> {
    async fn hold(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes.div_ceil(1024)).expect("a frame is below 4 GiB");
        select! {
            held = self.kib.clone().acquire_many_owned(kib) => Some(held.expect("the semaphore is never closed")),
            () = self.context.sleep(Duration::from_millis(CALL_MEMORY_MS_MAX)) => None,
        }
    }
}

/// Reads frames into `take` until the connection ends or `take` says that the peer broke the rules.
pub(super) async fn read<E: Clock, I: Stream, T: Read<Cfg = ()>>(
    receiver: &mut Receiver<I>,
    memory: Option<Memory<'_, E>>,
    mut take: impl FnMut(u64, Frame<T>, Option<OwnedSemaphorePermit>) -> Option<()>,
) {
    while let Ok(bytes) = receiver.recv().await {
        let held = match &memory {
            Some(memory) if bytes.len() > SMALL_BYTES => {
                let Some(held) = memory.hold(bytes.len()).await else {
                    tracing::warn!("no memory for a message in time; the connection is cut");
                    return;
                };
                Some(held)
            }
            _ => None,
        };
        let Some((id, frame)) = parse(bytes) else {
            tracing::debug!("the peer sent a frame that does not decode");
            return;
        };
        if take(id, frame, held).is_none() {
            tracing::debug!(id, "the peer overran a bound of the connection");
            return;
        }
    }
}

/// The bound of all large messages of a server, in KiB.
pub(super) fn memory() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(CALL_BYTES_MAX / 1024))
}
