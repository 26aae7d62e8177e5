//! Calls with many callers, slow readers, lost peers and peers that violate the protocol.

use super::{server::IDLE_MS_MAX, *};
use crate::channel::{Listen, READ_BYTES_MAX, dial};
use bytes::{BufMut as _, Bytes, BytesMut};
use commonware_codec::Encode as _;
use commonware_cryptography::{Signer as _, ed25519};
use commonware_runtime::{Clock, Network, Runner as _, Spawner, Supervisor as _, deterministic, tokio};
use posync_protocol::{
    Account, Bounded,
    limits::{CALL_WINDOW, CALLS_MAX},
};
use proptest::prelude::*;
use rand_core::CryptoRng;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

type Message = Bounded<u8, { 2 << 20 }>;

enum Test {}

impl Service for Test {
    const NAMESPACE: &'static [u8] = b"posync/test/1";
    type Ask = Message;
    type Answer = Message;

    fn takes_more(ask: &Message) -> bool {
        ask.first() != Some(&b'1')
    }
}

fn message(bytes: &[u8]) -> Message {
    Message::new(bytes.to_vec()).expect("within the bound")
}

fn key(seed: u64) -> ed25519::PrivateKey {
    ed25519::PrivateKey::from_seed(seed)
}

fn account(seed: u64) -> Account {
    Account::of(&key(seed).public_key())
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// Counters of the test service: handlers that run, and answers sent.
#[derive(Clone, Default)]
struct Seen {
    running: Arc<AtomicUsize>,
    sent: Arc<AtomicUsize>,
}

struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Acts by the first byte: `e` echo, `n` no answer, `f` flood for ever, `s` sum up the messages that follow,
/// `h` hang, anything else answers with the caller's account.
async fn handle(seen: Seen, mut call: Incoming<Test>, ask: Message) {
    seen.running.fetch_add(1, Ordering::SeqCst);
    let _running = Running(seen.running.clone());
    match ask.first() {
        Some(b'e') => drop(call.finish(&ask).await),
        Some(b'n') => {}
        Some(b'f') => {
            while call.send(&message(b"more")).await.is_ok() {
                seen.sent.fetch_add(1, Ordering::SeqCst);
            }
        }
        Some(b's') => {
            let mut sum = 0u64;
            while let Some(part) = call.recv().await {
                if part.is_empty() {
                    break;
                }
                sum += part.len() as u64;
            }
            drop(call.finish(&message(&sum.to_be_bytes())).await);
        }
        Some(b'h') => futures::future::pending().await,
        _ => {
            let peer = call.peer();
            drop(call.finish(&message(&peer.0)).await);
        }
    }
}

async fn serve<E>(context: &E, port: u16) -> (SocketAddr, Seen)
where
    E: Spawner + Clock + CryptoRng + commonware_runtime::Resolver + Network,
{
    let seen = Seen::default();
    let state = seen.clone();
    let server = Server::<Test, _>::new(move |call, ask| handle(state.clone(), call, ask));
    let config = Listen::new(key(1), Test::NAMESPACE, at(port));
    let listening = server.listen(context.child("server"), context, config).await.expect("listens");
    (listening.address, seen)
}

async fn connect<E>(context: &E, address: SocketAddr) -> Client<Test>
where
    E: Spawner + Clock + CryptoRng + commonware_runtime::Resolver + Network,
{
    Client::dial(context.child("client"), context, &key(2), account(1), address).await.expect("connects")
}

/// Lets the other tasks run until `done` holds; the time is virtual, so it costs nothing.
async fn until(context: &impl Clock, done: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if done() {
            return;
        }
        context.sleep(Duration::from_millis(1)).await;
    }
    panic!("it never came true");
}

async fn many_calls_at_once<E>(context: E, port: u16)
where
    E: Spawner + Clock + CryptoRng + commonware_runtime::Resolver + Network,
{
    let (address, _) = serve(&context, port).await;
    let client = connect(&context, address).await;
    assert_eq!(client.call(message(b"?")).await.expect("answers")[..], account(2).0);
    let calls = (0..300u32).map(|n| {
        let ask = message(&[b"e", &n.to_be_bytes()[..], &vec![7; n as usize * 400]].concat());
        let client = client.clone();
        async move { assert_eq!(client.call(ask.clone()).await.expect("answers"), ask) }
    });
    futures::future::join_all(calls).await;
    let none = client.call(message(b"n")).await;
    assert!(matches!(none, Err(Error::NoAnswer)), "{none:?}");
    assert!(!client.is_gone());
    let upload = client.open(message(b"s")).await.expect("opens");
    let mut upload = upload;
    for _ in 0..100 {
        upload.send(&message(&[1; 100_000])).await.expect("sends");
    }
    upload.send(&message(b"")).await.expect("sends");
    assert_eq!(upload.recv().await.expect("answers")[..], 10_000_000u64.to_be_bytes());
    assert!(upload.recv().await.is_none(), "the call is over");
}

#[test]
fn many_calls_at_once_deterministic() {
    deterministic::Runner::default().start(|context| many_calls_at_once(context, 9000));
}

#[test]
fn many_calls_at_once_over_sockets() {
    tokio::Runner::default().start(|context| many_calls_at_once(context, 0));
}

#[test]
fn a_slow_reader_holds_the_sender_at_the_window() {
    deterministic::Runner::default().start(|context| async move {
        let (address, seen) = serve(&context, 9000).await;
        let client = connect(&context, address).await;
        let mut flood = client.open(message(b"f")).await.expect("opens");
        until(&context, || seen.sent.load(Ordering::SeqCst) == CALL_WINDOW).await;
        // Other calls continue, and the flood stays at its window.
        for _ in 0..100 {
            client.call(message(b"e")).await.expect("answers");
        }
        assert_eq!(seen.sent.load(Ordering::SeqCst), CALL_WINDOW);
        for _ in 0..10 * CALL_WINDOW {
            assert_eq!(flood.recv().await.expect("more comes"), message(b"more"));
        }
        until(&context, || seen.sent.load(Ordering::SeqCst) > 10 * CALL_WINDOW).await;
        assert!(seen.sent.load(Ordering::SeqCst) <= 11 * CALL_WINDOW);
    });
}

#[test]
fn a_dropped_call_drops_its_handler() {
    deterministic::Runner::default().start(|context| async move {
        let (address, seen) = serve(&context, 9000).await;
        let client = connect(&context, address).await;
        for ask in [b"f", b"h", b"s"] {
            let call = client.open(message(ask)).await.expect("opens");
            until(&context, || seen.running.load(Ordering::SeqCst) == 1).await;
            drop(call);
            until(&context, || seen.running.load(Ordering::SeqCst) == 0).await;
        }
        // The place of a cancelled call is free again.
        for _ in 0..4 * CALLS_MAX {
            drop(client.open(message(b"h")).await.expect("opens"));
        }
        client.call(message(b"e")).await.expect("the connection lives");
        until(&context, || seen.running.load(Ordering::SeqCst) == 0).await;
        // All calls end with their connection.
        let held: Vec<_> = futures::future::join_all((0..10).map(|_| client.open(message(b"h")))).await;
        until(&context, || seen.running.load(Ordering::SeqCst) == 10).await;
        drop((held, client));
        until(&context, || seen.running.load(Ordering::SeqCst) == 0).await;
    });
}

#[test]
fn callers_wait_for_a_free_place() {
    deterministic::Runner::default().start(|context| async move {
        let (address, seen) = serve(&context, 9000).await;
        let client = connect(&context, address).await;
        let mut held = Vec::new();
        for _ in 0..CALLS_MAX {
            held.push(client.open(message(b"h")).await.expect("opens"));
        }
        let waiting = client.call(message(b"e"));
        let one_ends = async {
            until(&context, || seen.running.load(Ordering::SeqCst) == CALLS_MAX).await;
            held.pop();
        };
        let (answer, ()) = futures::join!(waiting, one_ends);
        answer.expect("it had its turn");
    });
}

#[test]
fn a_lost_server_ends_every_call() {
    deterministic::Runner::default().start(|context| async move {
        let seen = Seen::default();
        let server = Server::<Test, _>::new(move |call, ask| handle(seen.clone(), call, ask));
        let config = Listen::new(key(1), Test::NAMESPACE, at(9000));
        let listening = server.listen(context.child("server"), &context, config).await.expect("listens");
        let client = connect(&context, listening.address).await;
        let mut call = client.open(message(b"h")).await.expect("opens");
        client.call(message(b"e")).await.expect("answers");
        listening.task.abort();
        assert!(call.recv().await.is_none());
        assert!(client.is_gone());
        let late = client.call(message(b"e")).await;
        assert!(matches!(late, Err(Error::Gone)), "{late:?}");
    });
}

/// Raw frames that no honest caller sends; each must cost the sender its connection.
#[test]
fn peers_that_break_the_rules_are_cut_off() {
    let frame = |kind: u8, id: u64, rest: &[u8]| {
        let mut bytes = BytesMut::new();
        bytes.put_u8(kind);
        bytes.put_u64(id);
        bytes.extend_from_slice(rest);
        bytes.freeze()
    };
    let hang = message(b"h").encode();
    let over = |count: usize| (0..count as u64).map(|id| frame(0, id, &hang)).collect::<Vec<_>>();
    let mut window = vec![frame(0, 0, &hang)];
    window.extend((0..=CALL_WINDOW).map(|_| frame(1, 0, &message(b"x").encode())));
    let single = vec![frame(0, 0, &message(b"1").encode()), frame(1, 0, &message(b"x").encode())];
    let table: Vec<(&str, Vec<Bytes>)> = vec![
        ("too short", vec![Bytes::from_static(&[0, 1])]),
        ("unknown kind", vec![frame(9, 0, &[])]),
        ("an ask that does not decode", vec![frame(0, 0, &[0xff, 0xff, 0xff, 0xff, 0x0f])]),
        ("bytes after the ask", vec![frame(0, 0, &[hang.as_ref(), &[0]].concat())]),
        ("bytes after a close", vec![frame(4, 0, &[0])]),
        ("an id out of order", vec![frame(0, 1, &hang)]),
        ("an id again", vec![frame(0, 0, &hang), frame(0, 0, &hang)]),
        ("a last message from a caller", vec![frame(0, 0, &hang), frame(2, 0, &hang)]),
        ("a grant beyond the window", vec![frame(0, 0, &hang), frame(3, 0, &1u32.to_be_bytes())]),
        ("a grant of everything", vec![frame(0, 0, &hang), frame(3, 0, &u32::MAX.to_be_bytes())]),
        ("more calls than allowed", over(CALLS_MAX + 1)),
        ("more messages than the window", window),
        ("a message that no handler would read", single),
    ];
    deterministic::Runner::default().start(|context| async move {
        let (address, seen) = serve(&context, 9000).await;
        for (name, frames) in table {
            let (mut sender, mut receiver) =
                dial(context.child("raw"), &context, &key(2), Test::NAMESPACE, account(1), address)
                    .await
                    .expect("connects");
            sender.send_many(frames).await.expect("sends");
            while receiver.recv().await.is_ok() {}
            until(&context, || seen.running.load(Ordering::SeqCst) == 0).await;
            assert!(sender.send(Bytes::from_static(b"late")).await.is_err(), "{name}");
        }
        // Late frames of a closed call are ignored.
        let (mut sender, mut receiver) =
            dial(context.child("raw"), &context, &key(2), Test::NAMESPACE, account(1), address)
                .await
                .expect("connects");
        let late = vec![frame(1, 7, &hang), frame(3, 7, &1u32.to_be_bytes()), frame(4, 7, &[])];
        sender.send_many(late).await.expect("sends");
        sender.send(frame(0, 0, &message(b"e").encode())).await.expect("sends");
        assert_eq!(receiver.recv().await.expect("answers"), frame(2, 0, &message(b"e").encode()));
    });
}

/// Large messages that handlers have not finished with hold memory. One key gets at most half of it, so
/// others are served at once; beyond its share it is not read from, and is cut if it waits in vain.
#[test]
fn one_key_cannot_hold_the_memory_of_a_listener() {
    deterministic::Runner::default().start(|context| async move {
        let (address, seen) = serve(&context, 9000).await;
        let (first, second) = (connect(&context, address).await, connect(&context, address).await);
        let other = Client::<Test>::dial(context.child("other"), &context, &key(3), account(1), address)
            .await
            .expect("connects");
        let large = message(&[&b"h"[..], &vec![0; (2 << 20) - 100]].concat());
        let share = READ_BYTES_MAX / 2 / (2 << 20);
        let mut held = Vec::new();
        for _ in 0..share {
            held.push(first.open(large.clone()).await.expect("opens"));
        }
        until(&context, || seen.running.load(Ordering::SeqCst) == share).await;
        let mut waiting =
            second.open(message(&[&b"e"[..], &vec![0; (2 << 20) - 100]].concat())).await.expect("opens");
        other.call(large_echo()).await.expect("another key has its own share");
        assert_eq!(seen.running.load(Ordering::SeqCst), share);
        held.pop();
        waiting.recv().await.expect("it had its turn");
        held.push(first.open(large.clone()).await.expect("opens"));
        until(&context, || seen.running.load(Ordering::SeqCst) == share).await;
        // Its own calls hold all the memory that it may hold, so it would wait for ever.
        let mut stuck = first.open(large.clone()).await.expect("opens");
        assert!(stuck.recv().await.is_none());
        assert!(first.is_gone());
        until(&context, || seen.running.load(Ordering::SeqCst) == 0).await;
        assert!(!second.is_gone(), "its other connection lives");
        other.call(large_echo()).await.expect("the memory is free again");
    });
}

/// A peer that requests much and reads nothing fills its share of the memory for answers, and delays no one.
#[test]
fn a_peer_that_reads_nothing_delays_nobody() {
    tokio::Runner::default().start(|context| async move {
        let (address, seen) = serve(&context, 0).await;
        let (mut sender, _unread) =
            dial(context.child("raw"), &context, &key(3), Test::NAMESPACE, account(1), address)
                .await
                .expect("connects");
        for id in 0..40u64 {
            let mut frame = BytesMut::new();
            frame.put_u8(0);
            frame.put_u64(id);
            frame.extend_from_slice(&large_echo().encode());
            sender.send(frame.freeze()).await.expect("sends");
        }
        until(&context, || seen.running.load(Ordering::SeqCst) > 8).await;
        let client = connect(&context, address).await;
        for _ in 0..10 {
            client.call(large_echo()).await.expect("answers");
        }
    });
}

/// A connection without a call ends, kept alive or not; one with a lasting call stays.
#[test]
fn only_connections_without_a_call_end() {
    deterministic::Runner::default().start(|context| async move {
        let (address, seen) = serve(&context, 9000).await;
        let follower = connect(&context, address).await;
        let _follows = follower.open(message(b"h")).await.expect("opens");
        let unused = connect(&context, address).await;
        let (mut sender, mut receiver) =
            dial(context.child("raw"), &context, &key(2), Test::NAMESPACE, account(1), address)
                .await
                .expect("connects");
        let ends = async {
            let before = context.current();
            while receiver.recv_length().await.is_ok() {
                let _ = sender.keep_alive().await;
            }
            context.current().duration_since(before).expect("time goes on")
        };
        let lasted = ends.await.as_millis() as u64;
        assert!((IDLE_MS_MAX..=2 * IDLE_MS_MAX + 1_000).contains(&lasted), "{lasted}");
        assert!(unused.is_gone(), "a caller ends what it does not use");
        context.sleep(Duration::from_millis(10 * IDLE_MS_MAX)).await;
        assert!(!follower.is_gone());
        assert_eq!(seen.running.load(Ordering::SeqCst), 1);
        follower.call(message(b"e")).await.expect("it is still served");
    });
}

fn large_echo() -> Message {
    message(&[&b"e"[..], &vec![0; 1 << 20]].concat())
}

proptest! {
    /// For any input, a frame decodes to a value of the service or is rejected. It never panics, and a
    /// decoded frame encodes to the same bytes.
    #[test]
    fn any_bytes_are_a_frame_or_nothing(
        kind in 0..6u8,
        tag in 0..12u8,
        bytes in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        use super::shared::parse;
        use posync_protocol::wire::{gateway, node, provider};
        let frame = [&[kind][..], &7u64.to_be_bytes(), &[tag], &bytes].concat();
        for bytes in [frame, bytes] {
            let bytes = Bytes::from(bytes);
            same::<node::Ask>(&bytes, parse(bytes.clone()))?;
            same::<node::NodeAnswer>(&bytes, parse(bytes.clone()))?;
            same::<provider::Ask>(&bytes, parse(bytes.clone()))?;
            same::<provider::ProviderAnswer>(&bytes, parse(bytes.clone()))?;
            same::<gateway::Ask>(&bytes, parse(bytes.clone()))?;
            same::<gateway::GatewayAnswer>(&bytes, parse(bytes.clone()))?;
        }
    }
}

fn same<T: commonware_codec::Encode>(
    bytes: &Bytes,
    parsed: Option<(u64, super::shared::Frame<T>)>,
) -> Result<(), TestCaseError> {
    use super::shared::Frame;
    if let Some((_, Frame::Open(value) | Frame::Message(value) | Frame::Last(value))) = parsed {
        prop_assert_eq!(&bytes[9..], &value.encode()[..]);
    }
    Ok(())
}

/// An idle connection sends an empty frame, well before a socket's read timeout of a minute.
#[test]
fn silence_is_kept_alive() {
    deterministic::Runner::default().start(|context| async move {
        let (address, _) = serve(&context, 9000).await;
        let (mut sender, mut receiver) =
            dial(context.child("raw"), &context, &key(2), Test::NAMESPACE, account(1), address)
                .await
                .expect("connects");
        for _ in 0..10 {
            let before = context.current();
            assert_eq!(receiver.recv_length().await.expect("lives"), 0);
            let silent = context.current().duration_since(before).expect("time goes on");
            assert!(silent > Duration::from_secs(1) && silent < Duration::from_secs(30), "{silent:?}");
            sender.keep_alive().await.expect("lives");
        }
    });
}
