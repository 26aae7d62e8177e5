//! The channel with friendly, wrong, slow and hostile peers, on both runtimes.

use super::{places::HANDSHAKES_PER_ORIGIN, *};
use commonware_cryptography::{Signer as _, ed25519};
use commonware_runtime::{Runner as _, Sink as _, Supervisor as _, deterministic, tokio};
use commonware_utils::channel::mpsc;
use std::net::{IpAddr, Ipv4Addr};

const SERVICE: &[u8] = b"posync/test/1";

fn key(seed: u64) -> PrivateKey {
    ed25519::PrivateKey::from_seed(seed)
}

fn account(seed: u64) -> Account {
    Account::of(&key(seed).public_key())
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// Starts a listener (key 1) that returns every frame and reports each caller's account.
async fn echo<E, N>(context: &E, network: &N, port: u16, most: usize) -> (SocketAddr, mpsc::Receiver<Account>)
where
    E: Spawner + Clock + CryptoRng + commonware_runtime::Resolver,
    N: Network,
{
    let (callers, seen) = mpsc::channel(64);
    let config = Listen { connections_max: most, ..Listen::new(key(1), SERVICE, at(port)) };
    let listening =
        listen(context.child("echo"), network, config, move |_, peer, mut sender, mut receiver| {
            let callers = callers.clone();
            async move {
                let _ = callers.send(peer).await;
                while let Ok(frame) = receiver.recv().await {
                    if sender.send(frame).await.is_err() {
                        break;
                    }
                }
            }
        });
    (listening.await.expect("the port is free").address, seen)
}

async fn dial_as<E>(context: &E, seed: u64, address: SocketAddr) -> Result<Channel<E>, Error>
where
    E: Spawner + Clock + CryptoRng + commonware_runtime::Resolver + Network,
{
    dial(context.child("dial"), context, &key(seed), SERVICE, account(1), address).await
}

async fn frames_come_back<E>(context: E, port: u16)
where
    E: Spawner + Clock + CryptoRng + commonware_runtime::Resolver + Network,
{
    let (address, mut seen) = echo(&context, &context, port, 4).await;
    let (mut sender, mut receiver) =
        dial(context.child("dial"), &context, &key(2), SERVICE, account(1), address).await.expect("connects");
    assert_eq!(seen.recv().await, Some(account(2)));
    for length in [1, 2, 4096, 65_536, FRAME_BYTES_MAX] {
        let frame = Bytes::from(vec![length as u8 | 1; length]);
        let (sent, back) = futures::join!(sender.send(frame.clone()), receiver.recv());
        sent.expect("sends");
        assert_eq!(back.expect("comes back"), frame);
    }
    sender.keep_alive().await.expect("sends");
    sender.send_many(vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")]).await.expect("sends");
    assert_eq!(receiver.recv().await.expect("the empty frame is skipped"), b"a"[..]);
    assert_eq!(receiver.recv().await.expect("in order"), b"b"[..]);
    let refused = sender.send(Bytes::from(vec![0; FRAME_BYTES_MAX + 1])).await;
    assert!(matches!(refused, Err(Error::TooLarge(_))), "{refused:?}");
    sender.send(Bytes::from_static(b"still open")).await.expect("a refusal breaks nothing");
    assert_eq!(receiver.recv().await.expect("comes back"), b"still open"[..]);
}

#[test]
fn frames_come_back_deterministic() {
    deterministic::Runner::default().start(|context| frames_come_back(context, 9000));
}

#[test]
fn frames_come_back_over_sockets() {
    tokio::Runner::default().start(|context| frames_come_back(context, 0));
}

async fn wrong_ends_are_refused<E>(context: E, port: u16)
where
    E: Spawner + Clock + CryptoRng + commonware_runtime::Resolver + Network,
{
    let (address, _seen) = echo(&context, &context, port, 4).await;
    let wrong_key = dial(context.child("dial"), &context, &key(2), SERVICE, account(3), address).await;
    assert!(matches!(wrong_key, Err(Error::Handshake(..))), "{:?}", wrong_key.err());
    let wrong_service =
        dial(context.child("dial"), &context, &key(2), b"posync/other/1", account(1), address).await;
    assert!(matches!(wrong_service, Err(Error::Handshake(..))), "{:?}", wrong_service.err());
    let no_key = (0..=u8::MAX).map(|byte| Account([byte; 32])).find(|account| account.public_key().is_none());
    let no_key = no_key.expect("half of all strings are no points");
    let not_a_point = dial(context.child("dial"), &context, &key(2), SERVICE, no_key, address).await;
    assert!(matches!(not_a_point, Err(Error::Key(..))), "{:?}", not_a_point.err());
    let nobody = dial(context.child("dial"), &context, &key(2), SERVICE, account(1), at(1)).await;
    assert!(matches!(nobody, Err(Error::Dial(..))), "{:?}", nobody.err());
    let taken = Listen::new(key(1), SERVICE, address);
    let taken = listen(context.child("taken"), &context, taken, |_, _, _, _| async {}).await;
    assert!(matches!(taken, Err(Error::Bind(..))), "{:?}", taken.err());
}

#[test]
fn wrong_ends_are_refused_deterministic() {
    deterministic::Runner::default().start(|context| wrong_ends_are_refused(context, 9000));
}

#[test]
fn wrong_ends_are_refused_over_sockets() {
    tokio::Runner::default().start(|context| wrong_ends_are_refused(context, 0));
}

async fn garbage_and_silence_cost_only_their_own_connection<E>(context: E, port: u16)
where
    E: Spawner + Clock + CryptoRng + commonware_runtime::Resolver + Network,
{
    let (address, mut seen) = echo(&context, &context, port, 8).await;
    let garbage: [&[u8]; 4] = [b"GET / HTTP/1.1\r\n\r\n", &[0xff; 64], &[0x20; 4096], &[0; 1]];
    let mut held = Vec::new();
    for bytes in garbage {
        let (mut sink, stream) = context.dial(address).await.expect("connects");
        let _ = sink.send(bytes.to_vec()).await;
        held.push((sink, stream));
    }
    let silent = context.dial(address).await.expect("connects");
    let good = dial(context.child("dial"), &context, &key(2), SERVICE, account(1), address).await;
    assert!(good.is_ok(), "{:?}", good.err());
    assert_eq!(seen.recv().await, Some(account(2)), "only the proved key is served");
    drop((held, silent));
}

#[test]
fn garbage_deterministic() {
    deterministic::Runner::default()
        .start(|context| garbage_and_silence_cost_only_their_own_connection(context, 9000));
}

#[test]
fn garbage_over_sockets() {
    tokio::Runner::default().start(|context| garbage_and_silence_cost_only_their_own_connection(context, 0));
}

/// A peer that accepts and never answers: the caller gives up, in virtual time.
#[test]
fn a_silent_peer_ends_in_a_timeout() {
    deterministic::Runner::default().start(|context| async move {
        let _listener = context.bind(at(9000)).await.expect("binds");
        let before = context.current();
        let slow = dial(context.child("dial"), &context, &key(2), SERVICE, account(1), at(9000)).await;
        assert!(matches!(slow, Err(Error::HandshakeTimeout(_))), "{:?}", slow.err());
        let waited = context.current().duration_since(before).expect("time goes on");
        assert!(waited >= Duration::from_millis(HANDSHAKE_MS_MAX));
    });
}

/// With one slot, a silent caller holds it for the time of the handshake and no longer.
#[test]
fn a_silent_caller_gives_its_slot_back() {
    deterministic::Runner::default().start(|context| async move {
        let (address, mut seen) = echo(&context, &context, 9000, 1).await;
        let _silent = context.dial(address).await.expect("connects");
        let first = dial(context.child("dial"), &context, &key(2), SERVICE, account(1), address).await;
        let (mut sender, mut receiver) = match first {
            Ok(channel) => channel,
            Err(Error::HandshakeTimeout(_)) => {
                dial(context.child("dial"), &context, &key(2), SERVICE, account(1), address)
                    .await
                    .expect("the slot is free again")
            }
            Err(error) => panic!("{error}"),
        };
        assert_eq!(seen.recv().await, Some(account(2)));
        sender.send(Bytes::from_static(b"x")).await.expect("sends");
        assert_eq!(receiver.recv().await.expect("comes back"), b"x"[..]);
    });
}

/// Twice as many silent connections as a listener handles at once, always renewed, make no caller fail.
#[test]
fn silent_connections_make_no_honest_caller_fail() {
    tokio::Runner::default().start(|context| async move {
        let (address, mut seen) = echo(&context, &context, 0, 4).await;
        let mut silent = std::collections::VecDeque::new();
        for _ in 0..2 * HANDSHAKES_MAX {
            silent.push_back(context.dial(address).await.expect("the listener accepts"));
        }
        for _ in 0..6 {
            for _ in 0..HANDSHAKES_PER_ORIGIN {
                silent.pop_front();
                silent.push_back(context.dial(address).await.expect("the listener accepts"));
            }
            let dialing = dial_as(&context, 2, address);
            let (mut sender, mut receiver) = dialing.await.expect("an honest caller is served");
            assert_eq!(seen.recv().await, Some(account(2)));
            sender.send(Bytes::from_static(b"x")).await.expect("sends");
            assert_eq!(receiver.recv().await.expect("comes back"), b"x"[..]);
        }
    });
}

/// Four keys hold all places without a call, kept alive for an hour; one is closed for a key that makes one.
#[test]
fn connections_without_a_call_give_way_to_a_caller() {
    deterministic::Runner::default().start(|context| async move {
        let (address, mut seen) = echo(&context, &context, 9000, 4).await;
        let mut held = Vec::new();
        for seed in 10..14 {
            let dialing = dial_as(&context, seed, address);
            held.push(dialing.await.expect("there is room"));
            assert_eq!(seen.recv().await, Some(account(seed)));
        }
        for _ in 0..180 {
            context.sleep(Duration::from_secs(20)).await;
            for (sender, _) in &mut held {
                sender.keep_alive().await.expect("nobody else asks");
            }
        }
        let dialing = dial_as(&context, 2, address);
        let (mut sender, mut receiver) = dialing.await.expect("it is looked at");
        assert_eq!(seen.recv().await, Some(account(2)));
        sender.send(Bytes::from_static(b"x")).await.expect("sends");
        assert_eq!(receiver.recv().await.expect("comes back"), b"x"[..]);
    });
}

/// A network whose listeners fail to accept a number of times, as if out of file descriptors.
#[derive(Clone)]
struct Failing<N>(N, u32);

struct FailingListener<L>(L, u32);

impl<L: commonware_runtime::Listener> commonware_runtime::Listener for FailingListener<L> {
    type Sink = L::Sink;
    type Stream = L::Stream;

    async fn accept(&mut self) -> Result<(SocketAddr, L::Sink, L::Stream), commonware_runtime::Error> {
        if self.1 > 0 {
            self.1 -= 1;
            return Err(commonware_runtime::Error::Closed);
        }
        self.0.accept().await
    }

    fn local_addr(&self) -> Result<SocketAddr, std::io::Error> {
        self.0.local_addr()
    }
}

impl<N: Network> Network for Failing<N> {
    type Listener = FailingListener<N::Listener>;

    async fn bind(&self, socket: SocketAddr) -> Result<Self::Listener, commonware_runtime::Error> {
        Ok(FailingListener(self.0.bind(socket).await?, self.1))
    }

    async fn dial(
        &self,
        socket: SocketAddr,
    ) -> Result<(SinkOf<Self>, StreamOf<Self>), commonware_runtime::Error> {
        self.0.dial(socket).await
    }
}

#[test]
fn a_listener_outlives_a_thousand_accept_errors_in_a_row() {
    deterministic::Runner::default().start(|context| async move {
        let network = Failing(context.child("network"), 1_000);
        let (address, mut seen) = echo(&context, &network, 9000, 4).await;
        context.sleep(ACCEPT_PAUSE_MAX * 1_000).await;
        let dialing = dial_as(&context, 2, address);
        let _channel = dialing.await.expect("it accepts again");
        assert_eq!(seen.recv().await, Some(account(2)));
    });
}

/// A peer that announces a frame beyond the bound is refused before its bytes are read.
#[test]
fn an_oversized_frame_closes_the_channel() {
    deterministic::Runner::default().start(|context| async move {
        let (results, mut result) = mpsc::channel(1);
        let config = Listen::new(key(1), SERVICE, at(9000));
        listen(context.child("server"), &context, config, move |_, _, _sender, mut receiver| {
            let results = results.clone();
            async move {
                let first = receiver.recv().await.map(|frame| frame.len());
                let second = receiver.recv().await.map(|frame| frame.len());
                let _ = results.send((first, second)).await;
            }
        })
        .await
        .expect("listens");
        let (sink, stream) = context.dial(at(9000)).await.expect("connects");
        let greedy = upgrade(&key(2), SERVICE);
        let (mut sender, _receiver) = greedy
            .dial(context.child("dial"), SERVICE, FRAME + 1, key(1).public_key(), stream, sink)
            .await
            .expect("the handshake does not speak of frames");
        let sent = sender.send(Bytes::from(vec![0; FRAME_BYTES_MAX + 1])).await;
        assert!(!matches!(sent, Err(cups::Error::SendTooLarge(_))), "the peer refuses it, not this side");
        let (first, second) = result.recv().await.expect("the server reports");
        assert!(matches!(first, Err(Error::Lost(cups::Error::RecvTooLarge(_)))), "{first:?}");
        assert!(matches!(second, Err(Error::Lost(cups::Error::StreamClosed))), "{second:?}");
    });
}

/// A listener ends the handshake without an answer if the caller's clock is far off: the error says so.
#[test]
fn a_caller_whose_clock_is_far_off_is_told_to_look_at_it() {
    deterministic::Runner::default().start(|context| async move {
        let mut listener = context.bind(at(9100)).await.expect("free");
        context.child("refuses").spawn(move |_| async move {
            while let Ok((_, sink, stream)) = listener.accept().await {
                drop((sink, stream));
            }
        });
        let refused = dial(context.child("dial"), &context, &key(2), SERVICE, account(1), at(9100)).await;
        let text = refused.err().expect("it is refused").to_string();
        assert!(text.contains("clock") && text.contains("more than 48 h off"), "{text}");
        assert!(!text.contains("did not prove"), "{text}");
        let node = posync_protocol::wire::node::NAMESPACE;
        let refused = dial(context.child("dial"), &context, &key(2), node, account(1), at(9100)).await;
        let text = refused.err().expect("it is refused").to_string();
        assert!(
            text.contains("check its account") && !text.contains("clock"),
            "nodes take any clock: {text}"
        );
    });
    let theirs = Handshake::InvalidTimestamp(900_000_000, 0..7_200_000);
    let text = Error::Handshake(at(1), sake::Error::HandshakeError(theirs)).to_string();
    assert!(text.contains("clock that is more than 48 h from this machine's"), "{text}");
    assert!(text.contains("says 900000 s since 1970"), "{text}");
}

/// A network in which nobody ever answers at one address.
struct Holed<N>(N, SocketAddr);

impl<N: Network> Network for Holed<N> {
    type Listener = N::Listener;

    async fn bind(&self, socket: SocketAddr) -> Result<N::Listener, commonware_runtime::Error> {
        self.0.bind(socket).await
    }

    async fn dial(&self, socket: SocketAddr) -> Result<(SinkOf<N>, StreamOf<N>), commonware_runtime::Error> {
        if socket == self.1 {
            return std::future::pending().await;
        }
        self.0.dial(socket).await
    }
}

/// A name leads to a closed address, to one that swallows everything, to another machine's, and to the peer's: in each
/// order of two the peer is reached, and soon.
#[test]
fn a_name_of_which_one_address_is_dead_closed_or_anothers_leads_to_the_peer() {
    deterministic::Runner::default().start(|context| async move {
        let ip = |last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
        let serve = |last, by| {
            let config = Listen::new(key(by), SERVICE, SocketAddr::new(ip(last), 9300));
            let serve = |_, _, _sender, mut receiver: Receiver<_>| async move {
                while receiver.recv().await.is_ok() {}
            };
            listen(context.child("listener"), &context, config, serve)
        };
        let (own, another) = (serve(1, 1).await.expect("free"), serve(4, 4).await.expect("free"));
        let (closed, dead) = (ip(2), ip(3));
        let network = Holed(context.child("network"), SocketAddr::new(dead, 9300));
        let name: Address = "dual.example.org:9300".parse().expect("a name");
        let reach = async |ips: Vec<IpAddr>| {
            context.resolver_register("dual.example.org", Some(ips));
            dial(context.child("dial"), &network, &key(2), SERVICE, account(1), name.clone()).await
        };
        for bad in [closed, dead, another.address.ip()] {
            for ips in [vec![bad, ip(1)], vec![ip(1), bad]] {
                let began = context.current();
                assert!(reach(ips.clone()).await.is_ok(), "{ips:?}");
                let took = context.current().duration_since(began).expect("virtual time goes on");
                assert!(took < 2 * CONNECT, "{ips:?} took {took:?}");
            }
        }
        let nobody = reach(vec![another.address.ip(), closed]).await.err().expect("no peer is there");
        assert!(matches!(nobody, Error::Handshake(at, _) if at == another.address), "{nobody}");
        let nobody = reach(vec![dead, closed]).await.err().expect("no peer is there");
        assert!(matches!(nobody, Error::Dial(..)), "{nobody}");
        own.task.abort();
    });
}

/// A node service takes callers whose clock is anything, and each other service those that are within two days.
#[test]
fn only_node_services_take_a_clock_that_is_years_off() {
    assert_eq!(skew(posync_protocol::wire::node::NAMESPACE), Duration::from_millis(u64::MAX));
    assert_eq!(skew(SERVICE), Duration::from_millis(HANDSHAKE_SKEW_MS_MAX));
}
