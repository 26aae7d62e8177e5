//! Upstream nodes that answer falsely, for the tests of nodes without a seat.

use super::{account, authority, common::World, key};
use commonware_runtime::{Clock as _, Supervisor as _};
use futures::future::pending;
use posync_client::{
    channel::Listen,
    connection::Endpoint,
    rpc::{self, Incoming, Server, Service as _},
};
use posync_protocol::{
    Bounded,
    wire::node::{Answer, Ask, Unavailable},
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
}

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

fn twist(lie: Lie, answer: Answer, first: &Answer) -> Option<Answer> {
    Some(match (lie, answer) {
        (Lie::Body, Answer::Body(mut body)) => {
            body.draws = Bounded::new(vec![None; 3]).expect("few");
            Answer::Body(body)
        }
        (Lie::Header | Lie::Chain, Answer::Certified(mut certified)) => {
            let mut headers = certified.headers.into_inner();
            let last = headers.last_mut().expect("at least one");
            let byte = if matches!(lie, Lie::Chain) { &mut last.chain[0] } else { &mut last.state_root[0] };
            *byte ^= 1;
            certified.headers = Bounded::new(headers).expect("as many");
            Answer::Certified(certified)
        }
        (Lie::Skips, Answer::Certified(mut certified)) => {
            certified.headers = Bounded::new(certified.headers[1..].to_vec()).expect("fewer");
            Answer::Certified(certified)
        }
        (Lie::Repeats, Answer::Certified(_)) => first.clone(),
        (Lie::State, Answer::State(part)) => {
            let mut part = part.into_inner();
            *part.last_mut().expect("it holds operations") ^= 1;
            Answer::State(Bounded::new(part).expect("as many"))
        }
        (Lie::HangsAtBodies, Answer::Body(_)) | (Lie::HangsAtState, Answer::State(_)) | (Lie::Hangs, _) => {
            return None;
        }
        (Lie::Pruned, _) => Answer::Unavailable(Unavailable::Pruned),
        (_, honest) => honest,
    })
}

/// Starts a node that asks an honest one and falsifies the answers; counts what it is asked.
pub(crate) async fn liar(world: &World, lie: Lie, port: u16) -> (Endpoint, Arc<AtomicUsize>) {
    let honest = authority(&world.network, 0);
    let network = world.context.child("network");
    let own = key(66);
    let dialing = world.context.child("behind");
    let client = rpc::Client::<rpc::Node>::dial(dialing, &network, &own, honest.account, honest.address);
    let client = client.await.expect("connects");
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let old = client.open(Ask::Follow(0)).await.expect("the honest node lives").recv().await;
    let clock = Arc::new(world.context.child("drips"));
    let server = Server::<rpc::Node, _>::new(move |call: Incoming<rpc::Node>, ask| {
        let (client, clock) = (client.clone(), clock.clone());
        counted.fetch_add(1, Ordering::SeqCst);
        let old = old.clone().filter(|_| matches!((lie, &ask), (Lie::OldNewest, Ask::Follow(0))));
        async move {
            if let Some(old) = old {
                drop(call.send(&old).await);
                return pending().await;
            }
            let mut first = None;
            let mut behind = client.open(ask).await.expect("the honest node lives");
            while let Some(answer) = behind.recv().await {
                if matches!((lie, &answer), (Lie::Drips, Answer::Certified(_))) {
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
    (Endpoint { account: account(66), address: address.into() }, asked)
}
