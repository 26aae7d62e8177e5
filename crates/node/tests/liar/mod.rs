//! Upstream nodes that answer falsely, never or through another one, for the tests of nodes without a seat.

use super::{account, authority, caller, common::World, key};
use commonware_runtime::{Clock as _, Supervisor as _, deterministic};
use commonware_utils::sync::Mutex;
use futures::future::pending;
use posync_client::{
    channel::{self, Listen},
    connection::Endpoint,
    rpc::{self, Incoming, Server, Service as _},
};
use posync_protocol::{
    Bounded,
    record::System,
    wire::node::{Ask, NodeAnswer, Unavailable},
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// The fault of an upstream node.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lie {
    Body,
    Header,
    Skips,
    Repeats,
    Chain,
    HangsAtBodies,
    Hangs,
    Pruned,
    Drips,
    State,
    HangsAtState,
    OldNewest,
    /// Each read is answered with that of the start.
    OldRead,
    /// Only of states it says that they are gone.
    PrunedState,
    /// No lie: each answer comes late.
    Late,
}

/// Time that a late answer takes.
const LATE: Duration = Duration::from_millis(700);

/// The faults that a node which runs all blocks meets.
pub(crate) const LIES: [Lie; 9] = [
    Lie::Body,
    Lie::Header,
    Lie::Skips,
    Lie::Repeats,
    Lie::Chain,
    Lie::HangsAtBodies,
    Lie::Hangs,
    Lie::Pruned,
    Lie::Drips,
];

fn twist(lie: Lie, answer: NodeAnswer, first: &NodeAnswer) -> Option<NodeAnswer> {
    Some(match (lie, answer) {
        (Lie::Body, NodeAnswer::Body(mut body)) => {
            body.draws = Bounded::new(vec![None; 3]).expect("few");
            NodeAnswer::Body(body)
        }
        (Lie::Header | Lie::Chain, NodeAnswer::Certified(mut certified)) => {
            let mut headers = certified.headers.into_inner();
            let last = headers.last_mut().expect("at least one");
            let byte = if matches!(lie, Lie::Chain) { &mut last.chain[0] } else { &mut last.state_root[0] };
            *byte ^= 1;
            certified.headers = Bounded::new(headers).expect("as many");
            NodeAnswer::Certified(certified)
        }
        (Lie::Skips, NodeAnswer::Certified(mut certified)) => {
            certified.headers = Bounded::new(certified.headers[1..].to_vec()).expect("fewer");
            NodeAnswer::Certified(certified)
        }
        (Lie::Repeats, NodeAnswer::Certified(_)) => first.clone(),
        (Lie::State, NodeAnswer::State(part)) => {
            let mut part = part.into_inner();
            *part.last_mut().expect("it holds operations") ^= 1;
            NodeAnswer::State(Bounded::new(part).expect("as many"))
        }
        (Lie::HangsAtBodies, NodeAnswer::Body(_))
        | (Lie::HangsAtState, NodeAnswer::State(_))
        | (Lie::Hangs, _) => {
            return None;
        }
        (Lie::Pruned, _) | (Lie::PrunedState, NodeAnswer::State(_)) => {
            NodeAnswer::Unavailable(Unavailable::Pruned)
        }
        (_, honest) => honest,
    })
}

/// Starts a node that asks an honest one and falsifies the answers; counts what it is asked.
pub(crate) async fn liar(world: &World, lie: Lie, port: u16) -> (Endpoint, Arc<AtomicUsize>) {
    liar_as(world, 66, lie, port).await
}

/// As [`liar`], with the key of a seed.
pub(crate) async fn liar_as(world: &World, seed: u64, lie: Lie, port: u16) -> (Endpoint, Arc<AtomicUsize>) {
    let honest = authority(&world.network, 0);
    let network = world.context.child("network");
    let own = key(seed);
    let dialing = world.context.child("behind");
    let client = rpc::Client::<rpc::Node>::dial(dialing, &network, &own, honest.account, honest.address);
    let client = client.await.expect("connects");
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let old = client.open(Ask::Follow(0)).await.expect("the honest node lives").recv().await;
    let read = Ask::Read(Bounded::new(vec![System::key()]).expect("one"));
    let old_read = client.call(read.clone()).await.expect("the honest node lives");
    let clock = Arc::new(world.context.child("drips"));
    let server = Server::<rpc::Node, _>::new(move |call: Incoming<rpc::Node>, ask| {
        let (client, clock) = (client.clone(), clock.clone());
        counted.fetch_add(1, Ordering::SeqCst);
        let old = old.clone().filter(|_| matches!((lie, &ask), (Lie::OldNewest, Ask::Follow(0))));
        let old_read = (matches!(lie, Lie::OldRead) && ask == read).then(|| old_read.clone());
        async move {
            if let Some(old) = old {
                drop(call.send(&old).await);
                return pending().await;
            }
            if let Some(old) = old_read {
                return drop(call.finish(&old).await);
            }
            if matches!(lie, Lie::Late) {
                clock.sleep(LATE).await;
            }
            let mut first = None;
            let mut behind = client.open(ask).await.expect("the honest node lives");
            while let Some(answer) = behind.recv().await {
                if matches!((lie, &answer), (Lie::Drips, NodeAnswer::Certified(_))) {
                    clock.sleep(Duration::from_secs(3)).await;
                }
                match twist(lie, answer.clone(), first.get_or_insert(answer)) {
                    Some(answer) => drop(call.send(&answer).await),
                    None => pending().await,
                }
            }
        }
    });
    let address = SocketAddr::from(([10, 9, 9, 9], port));
    let listen = Listen::new(own, rpc::Node::NAMESPACE, address);
    server.listen(world.context.child("liar"), &network, listen).await.expect("listens");
    (Endpoint { account: account(seed), address: address.into() }, asked)
}

/// Starts an honest upstream node in front of an authority; counts its connections.
pub(crate) async fn front(world: &World, seed: u64) -> (Endpoint, Arc<AtomicUsize>) {
    let context = &world.context;
    let honest = authority(&world.network, 0);
    let behind = caller(context, 300 + seed, honest).await;
    let server = Server::<rpc::Node, _>::new(move |call: Incoming<rpc::Node>, ask| {
        let behind = behind.clone();
        async move { drop(call.finish(&behind.call(ask).await.expect("the authority lives")).await) }
    });
    let (own, connections) = (key(seed), Arc::new(AtomicUsize::new(0)));
    let (address, counted) = (SocketAddr::from(([10, 9, 9, seed as u8], 98)), connections.clone());
    let listen = Listen::new(own, rpc::Node::NAMESPACE, address);
    let network = context.child("network");
    let opened =
        channel::listen(context.child("front"), &network, listen, move |context, peer, sender, receiver| {
            counted.fetch_add(1, Ordering::SeqCst);
            let server = server.clone();
            async move { server.serve(&context, peer, sender, receiver).await }
        });
    opened.await.expect("listens");
    (Endpoint { account: account(seed), address: address.into() }, connections)
}

/// Starts an upstream node that takes operations and never answers; returns the most that waited at once.
pub(crate) async fn sink(context: &deterministic::Context) -> (Endpoint, Arc<Mutex<usize>>) {
    let waiting = Arc::new(Mutex::new(0));
    let counted = waiting.clone();
    let server = Server::<rpc::Node, _>::new(move |call: Incoming<rpc::Node>, ask| {
        if matches!(ask, Ask::Submit(_)) {
            *counted.lock() += 1;
        }
        async move {
            // Dropped, the call would be closed.
            let _call = call;
            pending::<()>().await;
        }
    });
    let address = SocketAddr::from(([10, 9, 9, 9], 99));
    let listen = Listen::new(key(66), rpc::Node::NAMESPACE, address);
    let network = context.child("network");
    server.listen(context.child("sink"), &network, listen).await.expect("listens");
    (Endpoint { account: account(66), address: address.into() }, waiting)
}
