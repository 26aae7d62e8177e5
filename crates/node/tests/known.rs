//! Nodes known from the ledger, end to end: nodes announce themselves, clients learn them from proved records
//! and go on when every node that they began with is gone.

#[allow(dead_code, reason = "each test file uses its part of what they share")]
mod common;

use common::{Network4, World, address, serve};
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_runtime::{
    Clock as _, Handle as Task, Runner as _, Spawner as _, Supervisor as _, deterministic,
};
use posync_client::{
    connection::{Connection, Endpoint},
    known::{self, Listed},
    light::Light,
};
use posync_node::{
    announce::{self, ListEntry},
    follower::{self, Settings},
    genesis::Genesis,
};
use posync_protocol::{
    Account, Amount,
    limits::{NODE_DEPOSIT_MIN, Parameters},
    record::{AccountState, Node, System},
};
use std::{net::SocketAddr, time::Duration};

fn key(seed: u64) -> PrivateKey {
    PrivateKey::from_seed(seed)
}

fn account(seed: u64) -> Account {
    Account::of(&key(seed).public_key())
}

fn run<F: Future<Output = ()>>(test: impl FnOnce(deterministic::Context) -> F) {
    let config = deterministic::Config::new().with_seed(6).with_timeout(Some(Duration::from_secs(900)));
    deterministic::Runner::new(config).start(test);
}

/// Four authorities with money of their own, and two members with some.
async fn world(context: &deterministic::Context) -> World {
    let rich = |seed| (account(seed), Amount::sync(1_000));
    let seats = Network4::deal(4, Parameters::LOCAL, vec![]).nodes;
    let seats = seats.iter().map(|node| (Account::of(&node.key.public_key()), Amount::sync(1_000)));
    let accounts = seats.chain([rich(50), rich(51)]).collect();
    let network = Network4::deal(4, Parameters::LOCAL, accounts);
    let world = World::start_serving(context.child("world"), network, serve()).await;
    world.reach(2).await;
    world
}

fn authority(world: &World, index: usize) -> Endpoint {
    let account = Account::of(&world.network.nodes[index].key.public_key());
    Endpoint { account, address: address(index, index as u64 + 1).into() }
}

fn authorities(world: &World) -> Vec<Endpoint> {
    (0..4).map(|index| authority(world, index)).collect()
}

/// Address of the node without a seat of `seed`.
fn at(seed: u64) -> Endpoint {
    Endpoint { account: account(seed), address: SocketAddr::from(([10, 7, seed as u8, 1], 100)).into() }
}

/// Starts a node without a seat.
fn follow(context: &deterministic::Context, world: &World, seed: u64) -> Task<()> {
    let settings = Settings {
        genesis: world.network.genesis.clone(),
        key: key(seed),
        upstream: authorities(world),
        listen: SocketAddr::from(([10, 7, seed as u8, 1], 100)),
        page_cache_pages: 1_024,
        archive: false,
        replayed_max: u64::MAX,
        private: true,
    };
    context.child("follower").with_attribute("seed", seed).spawn(move |context| async move {
        let networks = (context.child("dialing"), context.child("listening"));
        let ended =
            follower::run(context, networks, format!("follower-{seed}"), settings, Box::new(|_, _| ()));
        panic!("a follower ended: {:?}", ended.await.err());
    })
}

fn connect(context: &deterministic::Context, genesis: &Genesis, nodes: Vec<Endpoint>) -> Connection {
    let light = Light::new(genesis.chain(), genesis.network_key());
    Connection::new(context.child("client"), context.child("network"), key(77), nodes, light)
}

/// Keeps an entry in the ledger, over a connection to all authorities.
fn announce(
    context: &deterministic::Context,
    world: &World,
    (key, endpoint): (PrivateKey, &Endpoint),
    deposit: Amount,
) -> Task<()> {
    let connection = connect(context, &world.network.genesis, authorities(world));
    let entry = ListEntry::new(&endpoint.address, false, "north", deposit).expect("it is short");
    context.child("announce").spawn(move |context| async move {
        announce::keep(context, connection, key, Parameters::LOCAL, Some(entry)).await;
    })
}

fn announce_authority(context: &deterministic::Context, world: &World, index: usize) -> Task<()> {
    let key = world.network.nodes[index].key.clone();
    announce(context, world, (key, &authority(world, index)), Amount::ZERO)
}

/// Waits until the ledger's list fits.
async fn until_listed(
    context: &deterministic::Context,
    connection: &Connection,
    fits: impl Fn(&[Listed]) -> bool,
) -> Vec<Listed> {
    loop {
        let listed = known::listed(connection).await.expect("the nodes answer");
        if fits(&listed) {
            return listed;
        }
        context.sleep(Duration::from_millis(500)).await;
    }
}

/// Waits until a connection knows this many nodes.
async fn until_known(context: &deterministic::Context, connection: &Connection, count: usize) {
    while connection.nodes().len() < count {
        context.sleep(Duration::from_millis(500)).await;
    }
}

async fn height(connection: &Connection) -> u64 {
    connection.read::<System>(System::key()).await.expect("a node answers").header.height
}

#[test]
fn a_client_goes_on_when_all_nodes_it_was_born_with_are_gone_also_after_a_restart() {
    run(|context| async move {
        let world = world(&context).await;
        let born = vec![at(50), at(51)];
        let followers = [follow(&context, &world, 50), follow(&context, &world, 51)];
        let client = connect(&context, &world.network.genesis, born.clone());
        let first_life = context.child("first_life");
        let keeping = {
            let connections = vec![client.clone()];
            first_life.spawn(move |context| async move {
                known::keep(context.child("known"), connections, "client-known", None).await;
                let _ = context.stopped().await;
            })
        };
        while client.read::<System>(System::key()).await.is_err() {
            context.sleep(Duration::from_millis(200)).await;
        }
        assert_eq!(client.nodes(), born, "nobody has announced itself yet");
        let announcing: Vec<_> = (0..4).map(|index| announce_authority(&context, &world, index)).collect();
        until_known(&context, &client, 6).await;
        let before = height(&client).await;
        for follower in followers {
            follower.abort();
        }
        let mut blocks = client.follow(before + 1);
        for expected in before + 1..before + 40 {
            assert_eq!(blocks.next().await.expect("another node goes on").height, expected);
        }
        assert!(!born.contains(&client.current().expect("one")), "it asks a learned node");
        // The client restarts: its network file still names only the nodes that are gone.
        announcing.iter().for_each(Task::abort);
        drop((blocks, client));
        keeping.abort();
        context.sleep(Duration::from_secs(1)).await;
        let again = connect(&context, &world.network.genesis, born.clone());
        known::keep(context.child("second_life"), vec![again.clone()], "client-known", None).await;
        assert_eq!(again.nodes().len(), 6, "it read them from its own disk");
        assert!(height(&again).await >= before + 39);
    });
}

#[test]
fn a_changed_address_reaches_the_ledger_and_the_clients_by_itself() {
    run(|context| async move {
        let world = world(&context).await;
        let client = connect(&context, &world.network.genesis, authorities(&world));
        let (first, mut second) = (authority(&world, 0), authority(&world, 0));
        let task = announce_authority(&context, &world, 0);
        let listed = until_listed(&context, &client, |listed| !listed.is_empty()).await;
        assert_eq!((listed.len(), &listed[0].endpoint), (1, &first));
        assert!(listed[0].has_seat && listed[0].region == "north");
        task.abort();
        second.address = "authority.example.org:4001".parse().expect("a name");
        let key = world.network.nodes[0].key.clone();
        let _task = announce(&context, &world, (key.clone(), &second), Amount::ZERO);
        until_listed(&context, &client, |listed| listed[0].endpoint == second).await;
        // Withdrawn by its operator.
        let connection = connect(&context, &world.network.genesis, authorities(&world));
        drop(_task);
        let _task = context.child("withdraw").spawn(move |context| async move {
            announce::keep(context, connection, key, Parameters::LOCAL, None).await;
        });
        until_listed(&context, &client, <[Listed]>::is_empty).await;
    });
}

#[test]
fn a_node_without_a_seat_is_listed_for_a_deposit_and_one_without_money_serves_unlisted() {
    run(|context| async move {
        let world = world(&context).await;
        let client = connect(&context, &world.network.genesis, authorities(&world));
        let _rich = announce(&context, &world, (key(50), &at(50)), NODE_DEPOSIT_MIN);
        let _poor = announce(&context, &world, (key(60), &at(60)), NODE_DEPOSIT_MIN);
        let _careful = announce(&context, &world, (key(51), &at(51)), Amount::sync(99));
        let listed = until_listed(&context, &client, |listed| !listed.is_empty()).await;
        assert_eq!(listed[0].endpoint, at(50));
        assert!(!listed[0].has_seat);
        let node: Option<Node> = client.read(Node::key(&account(50))).await.expect("answers").value;
        assert_eq!(node.map(|node| (node.place, node.deposit)), Some((Some(0), NODE_DEPOSIT_MIN)));
        // Each of the others has tried several times by now.
        let now = height(&client).await;
        world.reach(now + 200).await;
        assert_eq!(known::listed(&client).await.expect("answers").len(), 1);
        let careful =
            client.read::<AccountState>(AccountState::key(&account(51))).await.expect("answers").value;
        assert_eq!(careful.map(|state| (state.nonce, state.balance)), Some((0, Amount::sync(1_000))));
    });
}
