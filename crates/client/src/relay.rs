//! Test support: a relay between real sockets, which makes the way between them long, slow, lossy or one-way.
//!
//! ```text
//!   caller ──TCP──► Relay ──(There: delay, rate, stalls, cut)──► service
//!          ◄──────────── (Back: the same, of its own)  ◄────────
//! ```
//!
//! Invariants
//! 1. Bytes arrive in order and once. Loss is what TCP shows of it: a stall of 200 ms to 1 s, and everything
//!    behind it waits as well.
//! 2. A cut holds bytes until it heals; it breaks no connection.
//! 3. At most [`CHUNKS`] chunks of a connection and direction are under way; beyond, the relay reads no more.

use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, sleep_until},
};

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 16 << 10;
/// Most chunks under way: 1 MiB.
const CHUNKS: usize = 64;

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the caller to the service.
    There,
    /// From the service to the caller.
    Back,
}

/// The properties of both directions.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Way {
    /// Time of a round trip: each direction takes half of it.
    pub(crate) trip: Duration,
    /// Bytes a second in each direction; 0 is without a limit.
    pub(crate) rate: u64,
    /// One chunk in so many stalls; 0 is none.
    pub(crate) stalls_one_in: u64,
}

/// A relay in front of one service; it ends when it is dropped.
pub(crate) struct Relay {
    /// Address that callers dial instead of the service's.
    pub(crate) address: SocketAddr,
    cut: [watch::Sender<bool>; 2],
    task: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Relay {
    /// Listens on loopback and passes connections on to the service at `to`; `seed` decides which chunks stall.
    pub(crate) async fn start(to: SocketAddr, way: Way, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let cut = [watch::channel(false).0, watch::channel(false).0];
        let followed = [cut[0].subscribe(), cut[1].subscribe()];
        let task = tokio::spawn(async move {
            let (mut connections, mut number) = (JoinSet::new(), seed);
            while let Ok((caller, _)) = listener.accept().await {
                number = number.wrapping_add(2);
                connections.spawn(connect(caller, to, way, followed.clone(), number));
            }
        });
        Ok(Self { address, cut, task })
    }

    /// Cuts or heals one direction of all connections.
    pub(crate) fn cut(&self, direction: Direction, is_cut: bool) {
        self.cut[direction as usize].send_replace(is_cut);
    }
}

/// Passes one connection on. The relay accepts at once what takes a round trip over a real way.
async fn connect(
    caller: TcpStream,
    to: SocketAddr,
    way: Way,
    [there, back]: [watch::Receiver<bool>; 2],
    seed: u64,
) {
    sleep(way.trip).await;
    let Ok(service) = TcpStream::connect(to).await else { return };
    let (_, _) = (caller.set_nodelay(true), service.set_nodelay(true));
    let (from_caller, to_caller) = caller.into_split();
    let (from_service, to_service) = service.into_split();
    tokio::join!(
        pass(from_caller, to_service, way, there, seed),
        pass(from_service, to_caller, way, back, seed + 1),
    );
}

/// Passes one direction on until it ends, or one of its sockets breaks.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    way: Way,
    mut cut: watch::Receiver<bool>,
    seed: u64,
) {
    let (under_way, mut arriving) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS);
    let mut random = Random(seed);
    let reading = async move {
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(length @ 1..) = from.read(&mut chunk).await {
            let due = Instant::now() + way.trip / 2 + random.stall(way.stalls_one_in);
            if under_way.send((due, chunk[..length].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((due, bytes)) = arriving.recv().await {
            sleep_until(due).await;
            let healed = cut.wait_for(|is_cut| !is_cut).await.is_ok();
            if !healed || to.write_all(&bytes).await.is_err() {
                return;
            }
            if let Some(nanos) = (bytes.len() as u64 * 1_000_000_000).checked_div(way.rate) {
                sleep(Duration::from_nanos(nanos)).await;
            }
        }
        // The end arrives as well.
        let _ = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}

/// Reproducible random numbers: splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Time by which a lost packet delays a chunk: 200 ms to 1 s.
    fn stall(&mut self, one_in: u64) -> Duration {
        match self.next().checked_rem(one_in) {
            Some(0) => Duration::from_millis(200 + self.next() % 800),
            _ => Duration::ZERO,
        }
    }
}
