//! The data plane in memory: streams between hosts, with the faults that TCP shows its users.
//!
//! The deterministic runtime's own network never releases a bound address, so a restarted server
//! could not listen again, and its streams have no latency, loss or partition. This network keeps
//! its state in a [`Fabric`] that survives every crash. A role gets a [`SimNetwork`] that acts for
//! one host.
//!
//! ```text
//!  role at 10.0.1.0 ── SimNetwork ──┐            ┌── SimNetwork ── role at 10.0.2.3
//!                                   ├── Fabric ──┤
//!            Plan: partition, isolate, reset
//! ```
//!
//! Invariants
//! 1. Bytes of a stream arrive in order, once, or the stream breaks: no loss, no duplicates.
//! 2. Loss is a stall: a lost part arrives one retransmission later, and so does everything behind it.
//! 3. A partition holds bytes and handshakes until it heals. Only [`Fabric::reset`] and a crash
//!    break streams.
//! 4. Equal seeds and equal calls give equal deliveries.
//! 5. At most [`state::WINDOW_BYTES`] of a stream and [`state::BACKLOG`] unaccepted streams wait.

pub(crate) mod state;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use commonware_macros::select;
use commonware_runtime::{Clock, Error, IoBufs, Supervisor, deterministic::Context};
use commonware_utils::{
    channel::{mpsc, oneshot},
    sync::Mutex,
};
pub(crate) use state::Link;
use state::{Next, Room, State};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

/// The kind of process that a host runs: the third byte of its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Role {
    /// An authority's node service.
    Authority = 1,
    /// A provider with its service.
    Provider = 2,
    /// A gateway with its service.
    Gateway = 3,
    /// A user, who only dials.
    User = 4,
}

/// Address of the `index`-th process of a role: 10.0.role.index.
pub(crate) const fn host(role: Role, index: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, role as u8, index))
}

/// The links and streams between all hosts. Clones share it; it survives the crash of every host.
#[derive(Clone)]
pub(crate) struct Fabric(Arc<Mutex<State>>);

impl Fabric {
    /// A fabric in which every link starts as `link`; `seed` determines jitter and loss.
    pub(crate) fn new(seed: u64, link: Link) -> Self {
        Self(Arc::new(Mutex::new(State::new(seed, link))))
    }

    /// The network as `host` sees it. `context` provides the time.
    pub(crate) fn at(&self, context: &Context, host: IpAddr) -> SimNetwork {
        SimNetwork { fabric: self.clone(), host, clock: Arc::new(context.child("network")) }
    }

    /// Cuts both directions between two hosts; bytes wait.
    #[cfg(test)]
    pub(crate) fn partition(&self, a: IpAddr, b: IpAddr) {
        self.0.lock().set_up(a, b, false);
    }

    /// Restores both directions between two hosts after [`Self::partition`].
    #[cfg(test)]
    pub(crate) fn heal(&self, a: IpAddr, b: IpAddr) {
        self.0.lock().set_up(a, b, true);
    }

    /// Cuts a host off from all others, in both directions.
    pub(crate) fn isolate(&self, host: IpAddr) {
        self.0.lock().set_isolated(host, true);
    }

    /// Reconnects a host after [`Self::isolate`].
    pub(crate) fn rejoin(&self, host: IpAddr) {
        self.0.lock().set_isolated(host, false);
    }

    /// Breaks every stream between two hosts. Both sides notice at their next call.
    #[cfg(test)]
    pub(crate) fn reset(&self, a: IpAddr, b: IpAddr) {
        self.0.lock().reset(a, b);
    }
}

/// The network of one host.
#[derive(Clone)]
pub(crate) struct SimNetwork {
    fabric: Fabric,
    host: IpAddr,
    clock: Arc<Context>,
}

impl SimNetwork {
    fn ends(&self, pipe: u64, back: u64) -> (SimSink, SimStream) {
        let sink = SimSink { fabric: self.fabric.clone(), clock: self.clock.clone(), pipe, broken: false };
        let stream = SimStream {
            fabric: self.fabric.clone(),
            clock: self.clock.clone(),
            pipe: back,
            arrived: Vec::new(),
            broken: false,
        };
        (sink, stream)
    }
}

impl commonware_runtime::Network for SimNetwork {
    type Listener = SimListener;

    async fn bind(&self, socket: SocketAddr) -> Result<SimListener, Error> {
        if !socket.ip().is_unspecified() && socket.ip() != self.host {
            return Err(Error::BindFailed);
        }
        let socket = SocketAddr::new(self.host, socket.port());
        let (generation, incoming) = self.fabric.0.lock().listen(socket).ok_or(Error::BindFailed)?;
        Ok(SimListener { network: self.clone(), socket, generation, incoming })
    }

    async fn dial(&self, socket: SocketAddr) -> Result<(SimSink, SimStream), Error> {
        loop {
            let changed = match self.fabric.0.lock().way_is_cut(self.host, socket.ip()) {
                Some(changed) => changed,
                None => break,
            };
            changed.await.map_err(|_| Error::ConnectionFailed)?;
        }
        let round_trip = self.fabric.0.lock().round_trip(self.host, socket.ip());
        self.clock.sleep(round_trip).await;
        let (out, back) = self.fabric.0.lock().connect(self.host, socket).ok_or(Error::ConnectionFailed)?;
        Ok(self.ends(out, back))
    }
}

/// Accepts streams at one address, until it is dropped.
pub(crate) struct SimListener {
    network: SimNetwork,
    socket: SocketAddr,
    generation: u64,
    incoming: mpsc::Receiver<(SocketAddr, u64, u64)>,
}

impl commonware_runtime::Listener for SimListener {
    type Sink = SimSink;
    type Stream = SimStream;

    async fn accept(&mut self) -> Result<(SocketAddr, SimSink, SimStream), Error> {
        let (from, out, back) = self.incoming.recv().await.ok_or(Error::Closed)?;
        // The accepting side reads the dialer's outward pipe.
        let (sink, stream) = self.network.ends(back, out);
        Ok((from, sink, stream))
    }

    fn local_addr(&self) -> Result<SocketAddr, std::io::Error> {
        Ok(self.socket)
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.incoming.close();
        let mut state = self.network.fabric.0.lock();
        while let Ok((_, out, back)) = self.incoming.try_recv() {
            state.drop_sink(back);
            state.drop_stream(out);
        }
        state.unlisten(self.socket, self.generation);
    }
}

/// The sending half of a stream.
pub(crate) struct SimSink {
    fabric: Fabric,
    clock: Arc<Context>,
    pipe: u64,
    broken: bool,
}

impl commonware_runtime::Sink for SimSink {
    async fn send(&mut self, bufs: impl Into<IoBufs> + Send) -> Result<(), Error> {
        if std::mem::replace(&mut self.broken, true) {
            return Err(Error::Closed);
        }
        let mut rest = Bytes::from(bufs.into().coalesce());
        loop {
            let now = self.clock.current();
            let room = self.fabric.0.lock().send(self.pipe, &mut rest, now);
            match room {
                Room::Sent => break,
                Room::Broken => return Err(Error::SendFailed),
                Room::Wait(drained) => drained.await.map_err(|_| Error::SendFailed)?,
            }
        }
        self.broken = false;
        Ok(())
    }
}

impl Drop for SimSink {
    fn drop(&mut self) {
        self.fabric.0.lock().drop_sink(self.pipe);
    }
}

/// The receiving half of a stream.
pub(crate) struct SimStream {
    fabric: Fabric,
    clock: Arc<Context>,
    pipe: u64,
    arrived: Vec<u8>,
    broken: bool,
}

impl commonware_runtime::Stream for SimStream {
    async fn recv(&mut self, len: usize) -> Result<IoBufs, Error> {
        if std::mem::replace(&mut self.broken, true) {
            return Err(Error::Closed);
        }
        while self.arrived.len() < len {
            let now = self.clock.current();
            let next = self.fabric.0.lock().receive(self.pipe, now, &mut self.arrived);
            match next {
                Next::Took => {}
                Next::Broken => return Err(Error::RecvFailed),
                Next::At(time, event) => select! {
                    _ = self.clock.sleep_until(time) => {},
                    _ = event => {},
                },
                Next::Wait(event) => event.await.map_err(|_| Error::RecvFailed)?,
            }
        }
        self.broken = false;
        let rest = self.arrived.split_off(len);
        Ok(IoBufs::from(std::mem::replace(&mut self.arrived, rest)))
    }

    fn peek(&self, max_len: usize) -> &[u8] {
        &self.arrived[..max_len.min(self.arrived.len())]
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.fabric.0.lock().drop_stream(self.pipe);
    }
}

type Event = oneshot::Receiver<()>;
