//! Decides which bytes arrive at which time. It does no I/O and never waits.

use super::Event;
use bytes::Bytes;
use commonware_utils::{
    TestRng,
    channel::{mpsc, oneshot},
};
use rand_core::Rng as _;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

/// Limit of the bytes in flight in one direction of a stream.
pub(crate) const WINDOW_BYTES: usize = 1 << 20;
/// Limit of the streams that a listener has not accepted yet.
pub(crate) const BACKLOG: usize = 128;
/// Delay of a lost part: TCP's least retransmission timeout.
pub(crate) const RETRANSMISSION: Duration = Duration::from_millis(200);
/// Bytes of a part, the unit of a stream that is lost or delayed.
const PART_BYTES: usize = 64 << 10;

/// The link in one direction between two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Time that a part takes on the way.
    pub latency: Duration,
    /// Upper bound of an additional delay, which is uniformly distributed.
    pub jitter: Duration,
    /// Share of lost parts (64 KiB each), in thousandths.
    pub loss_per_mille: u16,
    /// True if the link passes anything.
    pub up: bool,
}

impl Link {
    /// A local network: a millisecond, no loss.
    pub(crate) const LOCAL: Self =
        Self { latency: Duration::from_millis(1), jitter: Duration::ZERO, loss_per_mille: 0, up: true };
}

struct Pipe {
    from: IpAddr,
    to: IpAddr,
    parts: VecDeque<(SystemTime, Bytes)>,
    queued: usize,
    last: SystemTime,
    sink: bool,
    stream: bool,
    reset: bool,
    reader: Option<oneshot::Sender<()>>,
    writer: Option<oneshot::Sender<()>>,
}

/// The result of `send`.
pub(super) enum Room {
    Sent,
    Wait(Event),
    Broken,
}

/// The result of `receive`.
pub(super) enum Next {
    Took,
    At(SystemTime, Event),
    Wait(Event),
    Broken,
}

type Incoming = (SocketAddr, u64, u64);

pub(super) struct State {
    link: Link,
    links: BTreeMap<(IpAddr, IpAddr), Link>,
    isolated: BTreeSet<IpAddr>,
    listeners: BTreeMap<SocketAddr, (u64, mpsc::Sender<Incoming>)>,
    pipes: BTreeMap<u64, Pipe>,
    dialers: Vec<oneshot::Sender<()>>,
    next: u64,
    rng: TestRng,
}

impl State {
    pub(super) fn new(seed: u64, link: Link) -> Self {
        Self {
            link,
            links: BTreeMap::new(),
            isolated: BTreeSet::new(),
            listeners: BTreeMap::new(),
            pipes: BTreeMap::new(),
            dialers: Vec::new(),
            next: 0,
            rng: TestRng::new(seed),
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn link(&self, from: IpAddr, to: IpAddr) -> Link {
        let mut link = *self.links.get(&(from, to)).unwrap_or(&self.link);
        link.up &= !self.isolated.contains(&from) && !self.isolated.contains(&to);
        link
    }

    #[cfg(test)]
    pub(super) fn set_up(&mut self, a: IpAddr, b: IpAddr, up: bool) {
        for way in [(a, b), (b, a)] {
            self.links.entry(way).or_insert(self.link).up = up;
        }
        self.wake_all();
    }

    pub(super) fn set_isolated(&mut self, host: IpAddr, isolated: bool) {
        if isolated {
            self.isolated.insert(host);
        } else {
            self.isolated.remove(&host);
        }
        self.wake_all();
    }

    #[cfg(test)]
    pub(super) fn reset(&mut self, a: IpAddr, b: IpAddr) {
        for pipe in self.pipes.values_mut() {
            if (pipe.from, pipe.to) == (a, b) || (pipe.from, pipe.to) == (b, a) {
                pipe.reset = true;
                pipe.parts.clear();
                pipe.wake();
            }
        }
    }

    fn wake_all(&mut self) {
        self.pipes.values_mut().for_each(Pipe::wake);
        self.dialers.drain(..).for_each(wake);
    }

    pub(super) fn listen(&mut self, socket: SocketAddr) -> Option<(u64, mpsc::Receiver<Incoming>)> {
        if self.listeners.contains_key(&socket) {
            return None;
        }
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let generation = self.number();
        self.listeners.insert(socket, (generation, sender));
        Some((generation, receiver))
    }

    pub(super) fn unlisten(&mut self, socket: SocketAddr, generation: u64) {
        if self.listeners.get(&socket).is_some_and(|(held, _)| *held == generation) {
            self.listeners.remove(&socket);
        }
    }

    /// `None` if a handshake can pass now, else an event to wait for.
    pub(super) fn way_is_cut(&mut self, from: IpAddr, to: IpAddr) -> Option<Event> {
        if self.link(from, to).up && self.link(to, from).up {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        self.dialers.retain(|waiting| !waiting.is_closed());
        self.dialers.push(sender);
        Some(receiver)
    }

    pub(super) fn round_trip(&mut self, from: IpAddr, to: IpAddr) -> Duration {
        self.time_on_the_way(from, to) + self.time_on_the_way(to, from)
    }

    /// Opens an outward and a backward pipe; `None` without a listener at `to`, or if its backlog is full.
    pub(super) fn connect(&mut self, from: IpAddr, to: SocketAddr) -> Option<(u64, u64)> {
        let sender = self.listeners.get(&to)?.1.clone();
        let number = self.number();
        let port = u16::try_from(32_768 + number % 28_000).expect("below 2^16");
        let (out, back) = (self.pipe(from, to.ip()), self.pipe(to.ip(), from));
        if sender.try_send((SocketAddr::new(from, port), out, back)).is_err() {
            self.pipes.remove(&out);
            self.pipes.remove(&back);
            return None;
        }
        Some((out, back))
    }

    fn pipe(&mut self, from: IpAddr, to: IpAddr) -> u64 {
        let number = self.number();
        let pipe = Pipe {
            from,
            to,
            parts: VecDeque::new(),
            queued: 0,
            last: SystemTime::UNIX_EPOCH,
            sink: true,
            stream: true,
            reset: false,
            reader: None,
            writer: None,
        };
        self.pipes.insert(number, pipe);
        number
    }

    fn time_on_the_way(&mut self, from: IpAddr, to: IpAddr) -> Duration {
        let link = self.link(from, to);
        let jitter = u64::try_from(link.jitter.as_micros()).expect("a jitter below 500,000 years");
        let mut time = link.latency + Duration::from_micros(self.rng.next_u64() % (jitter + 1));
        while self.rng.next_u64() % 1_000 < u64::from(link.loss_per_mille.min(900)) {
            time += RETRANSMISSION;
        }
        time
    }

    /// Moves from `rest` into the pipe as much as the window holds.
    pub(super) fn send(&mut self, number: u64, rest: &mut Bytes, now: SystemTime) -> Room {
        let (from, to) = match self.pipes.get(&number) {
            Some(pipe) => (pipe.from, pipe.to),
            None => return Room::Broken,
        };
        // The news that the other side has gone needs the way back.
        let news = self.link(to, from).up;
        loop {
            let pipe = self.pipes.get(&number).expect("looked up above");
            if pipe.reset || (!pipe.stream && news) {
                return Room::Broken;
            }
            let part = rest.len().min(PART_BYTES).min(WINDOW_BYTES - pipe.queued);
            if part == 0 {
                break;
            }
            let time = now + self.time_on_the_way(from, to);
            let pipe = self.pipes.get_mut(&number).expect("looked up above");
            pipe.last = pipe.last.max(time);
            pipe.queued += part;
            pipe.parts.push_back((pipe.last, rest.split_to(part)));
            pipe.reader.take().into_iter().for_each(wake);
        }
        if rest.is_empty() {
            return Room::Sent;
        }
        let (sender, receiver) = oneshot::channel();
        self.pipes.get_mut(&number).expect("looked up above").writer = Some(sender);
        Room::Wait(receiver)
    }

    /// Moves the bytes that have arrived by `now` into `arrived`.
    pub(super) fn receive(&mut self, pipe: u64, now: SystemTime, arrived: &mut Vec<u8>) -> Next {
        let Some(up) = self.pipes.get(&pipe).map(|pipe| self.link(pipe.from, pipe.to).up) else {
            return Next::Broken;
        };
        let pipe = self.pipes.get_mut(&pipe).expect("looked up above");
        if pipe.reset {
            return Next::Broken;
        }
        let before = arrived.len();
        while up && pipe.parts.front().is_some_and(|(time, _)| *time <= now) {
            let (_, part) = pipe.parts.pop_front().expect("looked at above");
            pipe.queued -= part.len();
            arrived.extend_from_slice(&part);
        }
        if arrived.len() > before {
            pipe.writer.take().into_iter().for_each(wake);
            return Next::Took;
        }
        let (sender, event) = oneshot::channel();
        pipe.reader = Some(sender);
        match pipe.parts.front() {
            Some((time, _)) if up => Next::At(*time, event),
            None if up && !pipe.sink => Next::Broken,
            _ => Next::Wait(event),
        }
    }

    pub(super) fn drop_sink(&mut self, pipe: u64) {
        self.drop_end(pipe, |pipe| pipe.sink = false);
    }

    pub(super) fn drop_stream(&mut self, pipe: u64) {
        self.drop_end(pipe, |pipe| pipe.stream = false);
    }

    fn drop_end(&mut self, number: u64, end: impl FnOnce(&mut Pipe)) {
        let Some(pipe) = self.pipes.get_mut(&number) else { return };
        end(pipe);
        pipe.wake();
        if !pipe.sink && !pipe.stream {
            self.pipes.remove(&number);
        }
    }
}

impl Pipe {
    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(wake);
    }
}

fn wake(waiting: oneshot::Sender<()>) {
    // The receiver may have stopped waiting.
    let _ = waiting.send(());
}
