//! A node without a seat whose rules disagree with a certified block ends, and says which block and why.

use commonware_codec::Encode as _;
use commonware_consensus::{
    simplex::types::{Finalize, Proposal},
    types::{Epoch, Round, View},
};
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_parallel::Sequential;
use commonware_runtime::{Runner as _, Supervisor as _, deterministic};
use commonware_utils::{TestRng, non_empty, ordered::Set};
use futures::future::pending;
use posync_client::{
    channel::Listen,
    connection::Endpoint,
    rpc::{self, Incoming, Server, Service as _},
};
use posync_node::{
    engine::{Block, Finalization, Scheme},
    follower::{self, Settings},
    genesis::{AuthoritySecret, Genesis, deal},
};
use posync_protocol::{
    Account, Amount, Bounded,
    block::{BlockBody, Header},
    limits::Parameters,
    wire::node::{Ask, Certified, NodeAnswer, Unavailable},
};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// The certificate that a quorum of the authorities signs for a header.
fn certify(genesis: &Genesis, secrets: &[AuthoritySecret], header: &Header) -> Finalization {
    let players = Set::from_iter_dedup(genesis.authorities.iter().map(|authority| authority.key.clone()));
    let scheme = |secret: &AuthoritySecret| {
        let (output, share) = (genesis.output.public().clone(), secret.share.clone());
        Scheme::signer(&genesis.namespace(), players.clone(), output, share).expect("its own share")
    };
    let schemes: Vec<Scheme> = secrets.iter().map(scheme).collect();
    let round = Round::new(Epoch::new(header.term), View::new(header.view));
    let proposal = Proposal::new(round, View::new(header.parent_view), header.digest().into());
    let votes: Vec<_> =
        schemes.iter().map(|scheme| Finalize::sign(scheme, proposal.clone()).expect("signs")).collect();
    let finalization = Finalization::from_finalizes(&schemes[0], non_empty![@votes.iter()], &Sequential);
    finalization.expect("a quorum")
}

/// A first block that all authorities certified although its state is not what the rules make of it.
fn forged(genesis: &Genesis, secrets: &[AuthoritySecret]) -> (Certified, BlockBody) {
    let first = genesis.block::<deterministic::Context>();
    let header = Header {
        height: 1,
        view: 1,
        parent: first.header().digest(),
        range_end: first.header().range_end + 1,
        state_root: [7; 32],
        ..first.header().clone()
    };
    let (draws, operations, dkg) = (Bounded::default(), Bounded::default(), Bounded::default());
    let block = Block::sign(header, BlockBody { draws, operations, dkg }, None, &secrets[0].key);
    let certificate = certify(genesis, secrets, block.header());
    let certified = Certified {
        headers: Bounded::new(vec![block.header().clone()]).expect("one"),
        finalization: Bounded::new(certificate.encode().to_vec()).expect("132 bytes"),
    };
    (certified, block.body().clone())
}

#[test]
#[should_panic(expected = "block 1 is final, and this node cannot follow it: its state is")]
fn a_certified_block_with_another_state_ends_a_follower_with_the_reason() {
    let config = deterministic::Config::new().with_timeout(Some(Duration::from_secs(60)));
    deterministic::Runner::new(config).start(|context| async move {
        let addresses: Vec<SocketAddr> =
            (0..4).map(|i| SocketAddr::from(([127, 0, 0, 1], 9_000 + i))).collect();
        let (genesis, secrets) =
            deal(&addresses, Parameters::LOCAL, Amount::sync(1_000_000), Vec::new(), TestRng::new(1))
                .expect("valid");
        let (certified, body) = forged(&genesis, &secrets);
        let server = Server::<rpc::Node, _>::new(move |call: Incoming<rpc::Node>, ask| {
            let (certified, body) = (certified.clone(), body.clone());
            async move {
                match ask {
                    Ask::Follow(_) => {
                        call.send(&NodeAnswer::Certified(certified)).await.expect("the follower lives");
                        pending().await
                    }
                    Ask::Body(1) => drop(call.finish(&NodeAnswer::Body(body)).await),
                    _ => drop(call.finish(&NodeAnswer::Unavailable(Unavailable::NotYet)).await),
                }
            }
        });
        let own = PrivateKey::from_seed(66);
        let address = SocketAddr::from(([10, 9, 9, 9], 1));
        let upstream = vec![Endpoint { account: Account::of(&own.public_key()), address: address.into() }];
        let listen = Listen::new(own, rpc::Node::NAMESPACE, address);
        let network = context.child("network");
        server.listen(context.child("upstream"), &network, listen).await.expect("listens");
        let settings = Settings {
            genesis: Arc::new(genesis),
            key: PrivateKey::from_seed(50),
            upstream,
            listen: SocketAddr::from(([10, 7, 0, 1], 1)),
            page_cache_pages: 64,
            archive: false,
            replayed_max: u64::MAX,
            private: true,
        };
        let networks = (context.child("dialing"), context.child("listening"));
        let beside = Box::new(|_: deterministic::Context, _| {});
        let ended = follower::run(context.child("node"), networks, "node".into(), settings, beside).await;
        unreachable!("the runtime passes the panic on: {ended:?}");
    });
}
