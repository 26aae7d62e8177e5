//! Checks the invariants in the header of the in-memory network.

use super::{Fabric, Link, Role, SimNetwork, SimSink, SimStream, host, state::RETRANSMISSION};
use commonware_runtime::{
    Clock as _, Error, Listener as _, Network as _, Runner as _, Sink as _, Spawner as _, Stream as _,
    Supervisor as _,
    deterministic::{Context, Runner},
};
use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

const SERVER: IpAddr = host(Role::Provider, 1);
const CLIENT: IpAddr = host(Role::Gateway, 0);
const ADDRESS: SocketAddr = SocketAddr::new(SERVER, 4000);
const LONG: Duration = Duration::from_secs(60);

type Ends = (SimSink, SimStream);

fn fabric(context: &Context, link: Link) -> (Fabric, SimNetwork, SimNetwork) {
    let fabric = Fabric::new(1, link);
    let (server, client) = (fabric.at(context, SERVER), fabric.at(context, CLIENT));
    (fabric, server, client)
}

async fn connected(context: &Context, server: &SimNetwork, client: &SimNetwork) -> (Ends, Ends) {
    let mut listener = server.bind(ADDRESS).await.expect("binds");
    let accepted = context.child("accept").spawn(|_| async move {
        let (from, sink, stream) = listener.accept().await.expect("accepts");
        assert_eq!(from.ip(), CLIENT);
        (sink, stream)
    });
    let dialed = client.dial(ADDRESS).await.expect("dials");
    (dialed, accepted.await.expect("runs"))
}

fn since(context: &Context, start: SystemTime) -> Duration {
    context.current().duration_since(start).expect("time goes forward")
}

/// Runs `test` in virtual time, for at most an hour, and returns its result.
fn run<F: Future<Output = T>, T>(test: impl FnOnce(Context) -> F) -> T {
    Runner::timed(Duration::from_secs(3600)).start(test)
}

#[test]
fn bytes_arrive_in_order_after_the_latency_whatever_their_size() {
    for (latency, length) in [(0, 1), (1, 70_000), (40, 1), (40, 5 << 20)] {
        run(|context| async move {
            let latency = Duration::from_millis(latency);
            let (_fabric, server, client) = fabric(&context, Link { latency, ..Link::LOCAL });
            let ((mut sink, _back), (_sink, mut stream)) = connected(&context, &server, &client).await;
            let sent: Vec<u8> = (0..length).map(|i: u32| (i % 251) as u8).collect();
            let expected = sent.clone();
            let start = context.current();
            let sender = context.child("send").spawn(|_| async move {
                sink.send(sent).await.expect("sends");
                sink
            });
            let got = stream.recv(expected.len()).await.expect("receives").coalesce();
            assert!(got == expected.as_slice());
            assert!(since(&context, start) >= latency);
            drop(sender.await.expect("runs"));
            assert!(matches!(stream.recv(1).await, Err(Error::RecvFailed)));
            assert!(matches!(stream.recv(1).await, Err(Error::Closed)));
        });
    }
}

#[test]
fn an_address_is_free_again_when_its_listener_is_gone() {
    run(|context| async move {
        let (_fabric, server, client) = fabric(&context, Link::LOCAL);
        assert!(matches!(client.dial(ADDRESS).await, Err(Error::ConnectionFailed)));
        assert!(matches!(client.bind(ADDRESS).await, Err(Error::BindFailed)));
        for _ in 0..3 {
            let crashing = server.clone();
            let role = context.child("role").spawn(|_| async move {
                let mut listener = crashing.bind(ADDRESS).await.expect("binds");
                let (_, _sink, mut stream) = listener.accept().await.expect("accepts");
                stream.recv(usize::MAX).await.map(|_| ())
            });
            context.sleep(Duration::from_millis(5)).await;
            assert!(matches!(server.bind(ADDRESS).await, Err(Error::BindFailed)));
            let (mut sink, mut stream) = client.dial(ADDRESS).await.expect("dials");
            // One more stream waits in the backlog at the crash.
            let (_, mut waiting) = client.dial(ADDRESS).await.expect("dials");
            role.abort();
            assert!(matches!(stream.recv(1).await, Err(Error::RecvFailed)));
            assert!(matches!(waiting.recv(1).await, Err(Error::RecvFailed)));
            assert!(matches!(sink.send(vec![1]).await, Err(Error::SendFailed)));
            assert!(matches!(client.dial(ADDRESS).await, Err(Error::ConnectionFailed)));
        }
    });
}

#[test]
fn a_partition_keeps_bytes_handshakes_and_news_until_it_heals() {
    run(|context| async move {
        let (fabric, server, client) = fabric(&context, Link::LOCAL);
        let ((mut sink, _back), (_sink, mut stream)) = connected(&context, &server, &client).await;
        fabric.partition(CLIENT, SERVER);
        sink.send(vec![7; 10]).await.expect("the window takes it");
        drop(sink);
        let mut second = server.bind(ADDRESS).await.expect("binds");
        let dialing = client.clone();
        let dial = context.child("dial").spawn(|_| async move { dialing.dial(ADDRESS).await.map(|_| ()) });
        let start = context.current();
        let healer = fabric.clone();
        let heal = context.child("heal").spawn(move |context| async move {
            context.sleep(LONG).await;
            healer.heal(CLIENT, SERVER);
        });
        assert!(stream.recv(10).await.expect("receives").coalesce() == [7; 10]);
        assert!(since(&context, start) >= LONG);
        assert!(matches!(stream.recv(1).await, Err(Error::RecvFailed)));
        second.accept().await.expect("accepts");
        dial.await.expect("runs").expect("dials");
        heal.await.expect("runs");
    });
}

#[test]
fn isolation_cuts_a_host_from_all_and_only_it() {
    run(|context| async move {
        let (fabric, server, client) = fabric(&context, Link::LOCAL);
        let other = fabric.at(&context, host(Role::Provider, 2));
        let _listener = server.bind(ADDRESS).await.expect("binds");
        fabric.isolate(CLIENT);
        other.dial(ADDRESS).await.expect("dials");
        let start = context.current();
        let healer = fabric.clone();
        let _heal = context.child("heal").spawn(move |context| async move {
            context.sleep(LONG).await;
            healer.rejoin(CLIENT);
        });
        client.dial(ADDRESS).await.expect("dials");
        assert!(since(&context, start) >= LONG);
    });
}

#[test]
fn a_reset_breaks_both_ends_at_once() {
    run(|context| async move {
        let (fabric, server, client) = fabric(&context, Link::LOCAL);
        let ((mut sink, mut back), (mut other, mut stream)) = connected(&context, &server, &client).await;
        sink.send(vec![1]).await.expect("sends");
        fabric.reset(SERVER, CLIENT);
        assert!(matches!(stream.recv(1).await, Err(Error::RecvFailed)));
        assert!(matches!(back.recv(1).await, Err(Error::RecvFailed)));
        assert!(matches!(sink.send(vec![1]).await, Err(Error::SendFailed)));
        assert!(matches!(other.send(vec![1]).await, Err(Error::SendFailed)));
    });
}

#[test]
fn a_slow_reader_stops_its_writer_and_a_reader_that_goes_frees_it() {
    run(|context| async move {
        let (_fabric, server, client) = fabric(&context, Link::LOCAL);
        let ((mut sink, _back), (_sink, stream)) = connected(&context, &server, &client).await;
        let writer =
            context.child("write").spawn(|_| async move { sink.send(vec![0; 8 << 20]).await.map(|()| sink) });
        context.sleep(LONG).await;
        drop(stream);
        assert!(matches!(writer.await.expect("runs").map(|_| ()), Err(Error::SendFailed)));
    });
}

#[test]
fn loss_is_a_stall_and_equal_seeds_stall_equally() {
    let measure = |loss_per_mille| {
        run(|context| async move {
            let (_fabric, server, client) = fabric(&context, Link { loss_per_mille, ..Link::LOCAL });
            let ((mut sink, _back), (_sink, mut stream)) = connected(&context, &server, &client).await;
            let mut delays = Vec::new();
            for byte in 0..200 {
                let start = context.current();
                sink.send(vec![byte]).await.expect("sends");
                assert!(stream.recv(1).await.expect("receives").coalesce() == [byte]);
                delays.push(since(&context, start));
            }
            delays
        })
    };
    let (clean, lossy) = (measure(0), measure(100));
    assert!(clean.iter().all(|delay| *delay < RETRANSMISSION));
    let stalled = lossy.iter().filter(|delay| **delay >= RETRANSMISSION).count();
    assert!((5..=40).contains(&stalled), "{stalled} of 200 at one in ten");
    assert_eq!(lossy, measure(100));
}
