//! Connections between authorities that end when the peer is silent.
//!
//! A peer that changes its address, or that a broken link hides, closes no connection. TCP alone notices that
//! after many minutes, and repeats what it sent at growing intervals: a link that was away for half a minute
//! may be unused for another half. So a connection on which nothing came for [`SILENCE_MAX`] ends, although
//! each side sends a ping every [`PING_EVERY`], and the peer is dialled anew, at the address that its name has now.
//! No ping can come on the way of a long message, so that is read in pieces: a slow connection that lives stays.

use commonware_macros::select;
use commonware_runtime::{Clock, Error, IoBufs, Listener, Stream, Supervisor};
use std::{io, net::SocketAddr, time::Duration};

/// Time between two pings on a connection.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(5);
/// Longest time without a message, or without a piece of a long one: three pings.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(15);
/// Bytes of a piece: a connection with a thousand bytes a second brings it in time.
const PIECE: usize = 8 << 10;

/// A listener whose connections end when the peer is silent.
pub struct Attentive<E, L> {
    clock: E,
    inner: L,
}

/// The receiving half of a connection that ends when the peer is silent.
pub struct Heard<E, S> {
    clock: E,
    inner: S,
}

impl<E: Supervisor, L> Attentive<E, L> {
    /// Wraps a listener; `clock` measures the silence.
    pub(crate) fn new(clock: &E, inner: L) -> Self {
        Self { clock: clock.child("attentive"), inner }
    }
}

impl<E: Supervisor, S> Heard<E, S> {
    /// Wraps the receiving half of a connection; `clock` measures the silence.
    pub(crate) fn new(clock: &E, inner: S) -> Self {
        Self { clock: clock.child("heard"), inner }
    }
}

impl<E: Clock + Supervisor + Sync, L: Listener> Listener for Attentive<E, L> {
    type Sink = L::Sink;
    type Stream = Heard<E, L::Stream>;

    async fn accept(&mut self) -> Result<(SocketAddr, Self::Sink, Self::Stream), Error> {
        let (address, sink, stream) = self.inner.accept().await?;
        Ok((address, sink, Heard::new(&self.clock, stream)))
    }

    fn local_addr(&self) -> Result<SocketAddr, io::Error> {
        self.inner.local_addr()
    }
}

impl<E: Clock + Sync, S: Stream> Stream for Heard<E, S> {
    async fn recv(&mut self, len: usize) -> Result<IoBufs, Error> {
        let (mut all, mut left) = (IoBufs::default(), len);
        loop {
            // An abandoned read leaves the stream closed, as its contract says.
            let piece = select! {
                received = self.inner.recv(left.min(PIECE)) => received?,
                () = self.clock.sleep(SILENCE_MAX) => return Err(Error::Timeout),
            };
            left -= left.min(PIECE);
            if left == 0 && all.is_empty() {
                return Ok(piece);
            }
            all.append(piece.coalesce());
            if left == 0 {
                return Ok(all);
            }
        }
    }

    fn peek(&self, max_len: usize) -> &[u8] {
        self.inner.peek(max_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steady::Steady;
    use commonware_runtime::{IoBuf, Network as _, Runner as _, Sink as _, Spawner as _, deterministic};
    use std::net::{Ipv4Addr, SocketAddr};

    const AT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4_000);

    /// Times, since the connection was made, at which either side of a connection ends, if the other one sends a
    /// byte every [`PING_EVERY`] until `quiet`.
    fn ends(quiet: Duration) -> [Duration; 2] {
        deterministic::Runner::default().start(|context| async move {
            let runtime = Steady::shifted(context.child("steady"), 0);
            let mut listener = runtime.bind(AT).await.expect("a free port");
            let (mut out, mut heard) = runtime.dial(AT).await.expect("it listens");
            let (_, mut back, mut received) = listener.accept().await.expect("it was dialled");
            let since = context.current();
            let passed = move |context: &deterministic::Context| {
                context.current().duration_since(since).expect("time goes on")
            };
            let pings = context.child("pings").spawn(move |context| async move {
                while passed(&context) < quiet {
                    for sink in [&mut out, &mut back] {
                        sink.send(IoBuf::from(b"p")).await.expect("it is read");
                    }
                    context.sleep(PING_EVERY).await;
                }
                // The halves stay open: what a peer that is gone leaves behind.
                std::future::pending::<()>().await;
            });
            let dialled = context.child("dialled").spawn(move |context| async move {
                while heard.recv(1).await.is_ok() {}
                passed(&context)
            });
            while received.recv(1).await.is_ok() {}
            let ends = [passed(&context), dialled.await.expect("it ends")];
            pings.abort();
            ends
        })
    }

    #[test]
    fn a_connection_to_a_silent_peer_ends_on_both_sides_within_three_pings() {
        for quiet in [0, 60] {
            let quiet = Duration::from_secs(quiet);
            for end in ends(quiet) {
                let silent = end.checked_sub(quiet).expect("not while pings came");
                // Each step of the deterministic runtime takes a millisecond.
                assert!(silent <= SILENCE_MAX + Duration::from_millis(100), "{silent:?}");
                assert!(silent + PING_EVERY >= SILENCE_MAX, "{silent:?}");
            }
        }
    }

    /// Bytes of a long message that a slow link brings each second.
    const SLOW: usize = 1 << 10;

    #[test]
    fn a_long_message_over_a_slow_link_is_read_while_it_comes_and_not_after() {
        let message: Vec<u8> = (0..200 * SLOW).map(|index| (index % 251) as u8).collect();
        for (sent, is_read) in [(message.len(), true), (message.len() / 2, false)] {
            let whole = message.clone();
            let received = deterministic::Runner::default().start(|context| async move {
                let runtime = Steady::shifted(context.child("steady"), 0);
                let mut listener = runtime.bind(AT).await.expect("a free port");
                let (mut out, _heard) = runtime.dial(AT).await.expect("it listens");
                let (_, _back, mut received) = listener.accept().await.expect("it was dialled");
                let (parts, len) = (whole[..sent].to_vec(), whole.len());
                let sending = context.child("sending").spawn(move |context| async move {
                    for part in parts.chunks(SLOW) {
                        out.send(IoBuf::from(part.to_vec())).await.expect("it is read");
                        context.sleep(Duration::from_secs(1)).await;
                    }
                    std::future::pending::<()>().await;
                });
                let received = received.recv(len).await;
                sending.abort();
                received.map(|bytes| bytes.coalesce().as_ref().to_vec())
            });
            match received {
                Ok(bytes) => assert!(is_read && bytes == message),
                Err(error) => assert!(!is_read && matches!(error, Error::Timeout), "{error}"),
            }
        }
    }
}
