//! Connections to far nodes over real sockets: round trips, stalls and cuts are a relay's.

use super::*;
use crate::relay::{Direction, Relay, Way};
use commonware_runtime::tokio as sockets;
use posync_protocol::limits::Parameters;
use std::time::Instant;

/// A node that describes its network, behind a relay.
struct Far {
    relay: Relay,
    endpoint: Endpoint,
    asked: Arc<AtomicUsize>,
}

impl Far {
    async fn start(context: &sockets::Context, committee: &Committee, seed: u64, way: Way) -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let info = Info {
            chain: CHAIN,
            network_key: network_key_bytes(&committee.network_key),
            parameters: Parameters::LOCAL,
            height: FIRST,
        };
        let count = asked.clone();
        let server = Server::<rpc::Node, _>::new(move |call: Incoming<rpc::Node>, _| {
            count.fetch_add(1, Ordering::SeqCst);
            let info = info.clone();
            async move { drop(call.finish(&NodeAnswer::Info(info)).await) }
        });
        let key = ed25519::PrivateKey::from_seed(seed);
        let account = Account::of(&key.public_key());
        let listen = Listen::new(key, rpc::Node::NAMESPACE, SocketAddr::from(([127, 0, 0, 1], 0)));
        let listening = server.listen(context.child("node"), context, listen).await.expect("listens");
        let relay = Relay::start(listening.address, way, seed).await.expect("a free port");
        let endpoint = Endpoint { account, address: relay.address.into() };
        Self { relay, endpoint, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// Two nodes at the same distance, and a connection that begins at the first.
async fn two(context: &sockets::Context, way: Way) -> (Far, Far, Connection) {
    let committee = Committee::new(1);
    let first = Far::start(context, &committee, 1, way).await;
    let second = Far::start(context, &committee, 2, way).await;
    let light = Light::new(CHAIN, committee.network_key);
    let nodes = vec![first.endpoint.clone(), second.endpoint.clone()];
    let key = ed25519::PrivateKey::from_seed(9);
    let connection = Connection::new(context.child("reader"), context.child("sockets"), key, nodes, light);
    (first, second, connection.beginning_at(0))
}

const fn trip(ms: u64) -> Way {
    Way { trip: Duration::from_millis(ms), rate: 0, stalls_one_in: 0 }
}

#[test]
fn a_node_at_1_100_or_300_ms_is_not_left_and_no_second_one_is_asked() {
    sockets::Runner::default().start(|context| async move {
        for ms in [1, 100, 300] {
            let (first, second, connection) = two(&context, trip(ms)).await;
            for _ in 0..4 {
                connection.info().await.expect("it answers");
            }
            let many = join_all((0..32).map(|_| connection.info())).await;
            assert!(many.iter().all(Result::is_ok), "at {ms} ms");
            assert_eq!((first.asked(), second.asked()), (36, 0), "at {ms} ms");
            assert_eq!(connection.current(), Some(first.endpoint.clone()), "at {ms} ms");
        }
    });
}

#[test]
fn at_300_ms_with_stalls_and_little_bandwidth_every_request_ends_well() {
    let way = Way { stalls_one_in: 4, rate: 64 << 10, ..trip(300) };
    sockets::Runner::default().start(|context| async move {
        let (first, second, connection) = two(&context, way).await;
        for _ in 0..4 {
            let some = join_all((0..8).map(|_| connection.info())).await;
            assert!(some.iter().all(Result::is_ok));
        }
        let (asked, needed) = (first.asked() + second.asked(), 32);
        assert!(asked < needed * 2, "{asked} requests for {needed}: no storm");
    });
}

#[test]
fn a_node_whose_answers_are_cut_off_is_left_and_asked_again_once_it_is_needed() {
    sockets::Runner::default().start(|context| async move {
        let (first, second, connection) = two(&context, trip(100)).await;
        connection.info().await.expect("it answers");
        first.relay.cut(Direction::Back, true);
        let began = Instant::now();
        connection.info().await.expect("the second one answers");
        assert!(began.elapsed() < ANSWER, "{:?}", began.elapsed());
        assert_eq!(connection.current(), Some(second.endpoint.clone()));
        first.relay.cut(Direction::Back, false);
        for direction in [Direction::There, Direction::Back] {
            second.relay.cut(direction, true);
        }
        connection.info().await.expect("the first one answers again");
        assert_eq!(connection.current(), Some(first.endpoint.clone()), "slow is not lost");
    });
}
