//! Nodes without a seat end to end: they follow authorities and each other, over real channels, and serve
//! clients that accept only proofs.

#[allow(dead_code, reason = "each test file uses its part of what they share")]
mod common;
mod liar;

use common::{Network4, World, address, serve};
use commonware_codec::Encode as _;
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_runtime::{
    Clock as _, Handle as Task, Runner as _, Spawner as _, Supervisor as _, deterministic,
};
use commonware_utils::channel::oneshot;
use liar::{LIES, Lie, front, liar, liar_as, sink};
use posync_client::{
    account::Submitter,
    connection::{Connection, Endpoint},
    light::{Light, Subject, SyncProof},
    rpc,
};
use posync_node::{
    follower::{self, RELAYED_PER_CALLER, RELAYED_PER_ORIGIN, Relay, Settings},
    genesis::Genesis,
    handle::Handle,
    run::RunError,
    serve::{Serving, simulated},
};
use posync_protocol::{
    Account, Amount, Body, Bounded, Code, Operation,
    block::Receipts,
    ledger::{self, BlockContext},
    limits::Parameters,
    operation::Transfer,
    record::AccountState,
    wire::node::{Ask, NodeAnswer, Unavailable},
};
use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

fn key(seed: u64) -> PrivateKey {
    PrivateKey::from_seed(seed)
}

fn account(seed: u64) -> Account {
    Account::of(&key(seed).public_key())
}

fn runner() -> deterministic::Runner {
    let config = deterministic::Config::new().with_seed(8).with_timeout(Some(Duration::from_secs(900)));
    deterministic::Runner::new(config)
}

fn network() -> Network4 {
    let accounts = vec![(account(1), Amount::sync(1_000)), (account(2), Amount::sync(1_000))];
    Network4::deal(4, Parameters::LOCAL, accounts)
}

async fn world(context: &deterministic::Context) -> World {
    World::start_serving(context.child("world"), network(), serve()).await
}

/// The authority with that index, at its first start.
fn authority(network: &Network4, index: usize) -> Endpoint {
    let account = Account::of(&network.nodes[index].key.public_key());
    Endpoint { account, address: address(index, index as u64 + 1).into() }
}

fn authorities(network: &Network4) -> Vec<Endpoint> {
    (0..4).map(|index| authority(network, index)).collect()
}

/// A node without a seat that runs; its storage is that of its seed.
struct Follower {
    handle: Handle,
    task: Task<Result<(), RunError>>,
    endpoint: Endpoint,
}

/// Starts the node without a seat of `seed`; `start` makes its address new, as no address is ever freed.
async fn follow(
    context: &deterministic::Context,
    genesis: &Arc<Genesis>,
    place: (u64, u16),
    upstream: Vec<Endpoint>,
) -> Follower {
    follow_from(context, genesis, place, (upstream, u64::MAX)).await
}

/// As [`follow`]; without state it runs `replayed_max` blocks at most, and else takes a state.
async fn follow_from(
    context: &deterministic::Context,
    genesis: &Arc<Genesis>,
    place: (u64, u16),
    from: (Vec<Endpoint>, u64),
) -> Follower {
    let (task, handle, endpoint) = launch(context, genesis, place, from);
    Follower { handle: handle.await.expect("it starts"), task, endpoint }
}

/// A node without a seat that has just been started.
type Launched = (Task<Result<(), RunError>>, oneshot::Receiver<Handle>, Endpoint);

/// As [`follow_from`], without waiting for its state.
fn launch(
    context: &deterministic::Context,
    genesis: &Arc<Genesis>,
    (seed, start): (u64, u16),
    (upstream, replayed_max): (Vec<Endpoint>, u64),
) -> Launched {
    let listen = SocketAddr::from(([10, 7, seed as u8, 1], 100 + start));
    let settings = Settings {
        genesis: genesis.clone(),
        key: key(seed),
        upstream,
        listen,
        page_cache_pages: 1_024,
        archive: false,
        replayed_max,
        private: true,
    };
    let (sender, handle) = oneshot::channel();
    let task = context.child("follower").with_attribute("start", format!("{seed}-{start}")).spawn(
        move |context| async move {
            let networks = (context.child("dialing"), context.child("listening"));
            let beside = Box::new(|_: deterministic::Context, handle| drop(sender.send(handle)));
            follower::run(context, networks, format!("follower-{seed}"), settings, beside).await
        },
    );
    (task, handle, Endpoint { account: account(seed), address: listen.into() })
}

/// Kills a node without a seat in the middle of whatever it does; what it synced stays.
async fn kill(context: &deterministic::Context, follower: Follower) {
    let Follower { handle, task, .. } = follower;
    drop(handle);
    task.abort();
    assert!(task.await.is_err(), "it ran until now");
    // Its tasks close their files at the next moment.
    context.sleep(Duration::from_millis(10)).await;
}

async fn reach(context: &deterministic::Context, handle: &Handle, height: u64) {
    while handle.applied() < height {
        context.sleep(Duration::from_millis(20)).await;
    }
}

fn connect(context: &deterministic::Context, genesis: &Genesis, nodes: Vec<Endpoint>) -> Connection {
    let light = Light::new(genesis.chain(), genesis.network_key());
    Connection::new(context.child("client"), context.child("network"), key(77), nodes, light)
}

async fn balance(connection: &Connection, seed: u64) -> Option<Amount> {
    let read = connection.read::<AccountState>(AccountState::key(&account(seed))).await;
    read.expect("the nodes answer").value.map(|account| account.balance)
}

fn pay(to: u64, amount: u64) -> Body {
    Body::Transfer(Transfer { to: account(to), amount: Amount::sync(amount) })
}

fn signed(genesis: &Genesis, seed: u64, nonce: u64, height: u64) -> Operation {
    let sign = |fee| Operation::signed(&key(seed), &genesis.chain(), nonce, fee, height + 100, pay(3, 1));
    let context = BlockContext {
        chain: genesis.chain(),
        parameters: Parameters::LOCAL,
        height,
        leader: Account::default(),
        parent: [0; 32],
        seed: None,
    };
    sign(ledger::fee(&context, ledger::floor(&Parameters::LOCAL), &sign(Amount::ZERO)))
}

/// The blocks up to `height` that a node holds are those of another, with every body and outcome.
async fn expect_same(one: &Handle, other: &Handle, heights: std::ops::RangeInclusive<u64>) {
    for height in heights {
        let header = one.header(height).await.expect("kept");
        assert_eq!(Some(&header), other.header(height).await.as_ref(), "height {height}");
        let body = one.body(height).await.expect("kept");
        assert_eq!(body.root(), header.body_root, "height {height}");
        let outcome = one.outcome(height).await.expect("kept");
        let receipts = Receipts { rows: Bounded::new(outcome.receipts).expect("few") };
        assert_eq!(receipts.root(), header.receipts_root, "height {height}");
        assert_eq!(other.outcome(height).await.expect("kept").events, outcome.events, "height {height}");
        one.headers_to_certificate(height).await.expect("each block has a certificate above it");
    }
}

/// A client that knows one node without a seat, which itself knows only another one, pays, reads, follows and
/// proves as with an authority.
#[test]
fn a_client_of_followers_alone_reads_pays_and_proves() {
    runner().start(|context| async move {
        let world = world(&context).await;
        let genesis = world.network.genesis.clone();
        let first = follow(&context, &genesis, (50, 0), authorities(&world.network)).await;
        let second = follow(&context, &genesis, (51, 0), vec![first.endpoint.clone()]).await;
        let connection = connect(&context, &genesis, vec![second.endpoint.clone()]);
        assert_eq!(connection.info().await.expect("answers").parameters, Parameters::LOCAL);
        let sender = Submitter::new(connection.clone(), key(1), Parameters::LOCAL);
        let sent = sender.send(pay(3, 5)).await.expect("final").done().expect("done");
        assert_eq!(balance(&connection, 3).await, Some(Amount::sync(5)));
        let outcome = connection.outcome(sent.receipt.height).await.expect("kept");
        assert_eq!(outcome.value.receipts.rows[sent.receipt.index as usize], (sent.id, Code::Done));
        let poor = sender.send(pay(3, 5_000)).await.expect("final");
        assert_eq!(poor.receipt.code, Code::Balance);
        world.reach(200).await;
        reach(&context, &second.handle, 200).await;
        expect_same(&second.handle, &world.handles[&0], 1..=200).await;
        let subject = Subject::of_account::<AccountState>(&account(3));
        let proof = connection.prove(&subject).await.expect("short enough").to_bytes();
        let verified = SyncProof::verify(&proof, &genesis.network_key()).expect("verifies");
        let proved = verified.record::<AccountState>().expect("an account").map(|a| a.balance);
        assert_eq!(proved, Some(Amount::sync(5)));
        let mut blocks = connection.follow_bodies(150);
        for height in 150..=200 {
            assert_eq!(blocks.next().await.expect("goes on").0.height, height);
        }
    });
}

/// Runs all blocks of a chain that is far ahead, is killed in the middle again and again, and goes on.
#[test]
fn a_follower_killed_at_any_block_goes_on_from_where_it_was() {
    runner().start(|context| async move {
        let world = world(&context).await;
        let genesis = world.network.genesis.clone();
        world.reach(100).await;
        let mut before = 0;
        for (start, until) in [1, 2, 17, 63, 64, 65, 90].into_iter().enumerate() {
            let upstream = authorities(&world.network);
            let follower = follow(&context, &genesis, (50, start as u16), upstream).await;
            assert!(follower.handle.applied() >= before, "it keeps what it had applied");
            reach(&context, &follower.handle, until).await;
            before = follower.handle.applied();
            kill(&context, follower).await;
        }
        let follower = follow(&context, &genesis, (50, 99), authorities(&world.network)).await;
        reach(&context, &follower.handle, 110).await;
        expect_same(&follower.handle, &world.handles[&0], 1..=110).await;
    });
}

/// With one authority down, a node without state is in step at once: it takes the state of a recent block, and runs
/// only those above. It serves clients, and another node without state takes its state from it.
#[test]
fn a_follower_without_state_takes_a_recent_one_and_serves_as_any_other() {
    runner().start(|context| async move {
        let mut world = world(&context).await;
        let genesis = world.network.genesis.clone();
        let sender = connect(&context, &genesis, authorities(&world.network));
        let sender = Submitter::new(sender, key(1), Parameters::LOCAL);
        sender.send(pay(3, 5)).await.expect("final").done().expect("done");
        world.reach(100).await;
        world.crash(3);
        let began = context.current();
        let first = follow_from(&context, &genesis, (50, 0), (authorities(&world.network), 20)).await;
        reach(&context, &first.handle, world.handles[&0].applied()).await;
        let took = context.current().duration_since(began).expect("virtual time does not step");
        assert!(took < Duration::from_secs(10), "it is in step after {took:?}");
        let floor = first.handle.applied();
        assert!(floor >= 100 && first.handle.header(5).await.is_none(), "it ran no old block: {floor}");
        let second = follow_from(&context, &genesis, (51, 0), (vec![first.endpoint.clone()], 20)).await;
        let begins = second.handle.applied();
        let connection = connect(&context, &genesis, vec![second.endpoint.clone()]);
        assert_eq!(balance(&connection, 3).await, Some(Amount::sync(5)));
        assert_eq!(balance(&connection, 4).await, None, "an absence is proved as well");
        let goal = begins + 40;
        for follower in [&first, &second] {
            reach(&context, &follower.handle, goal).await;
            expect_same(&follower.handle, &world.handles[&0], begins + 1..=goal).await;
        }
        let sender = Submitter::new(connection.clone(), key(2), Parameters::LOCAL);
        sender.send(pay(4, 7)).await.expect("final").done().expect("done");
        assert_eq!(balance(&connection, 4).await, Some(Amount::sync(7)));
        // It keeps what it has: its next start takes no state.
        kill(&context, second).await;
        let again = follow_from(&context, &genesis, (51, 1), (vec![first.endpoint.clone()], 20)).await;
        assert!(again.handle.header(begins + 1).await.is_some());
        let goal = goal + 40;
        reach(&context, &again.handle, goal).await;
        expect_same(&again.handle, &world.handles[&0], begins + 1..=goal).await;
    });
}

/// A node that is killed while it takes a state goes on with that one or a newer one.
#[test]
fn a_follower_killed_while_it_takes_a_state_takes_it_at_its_next_start() {
    runner().start(|context| async move {
        let world = world(&context).await;
        let genesis = world.network.genesis.clone();
        world.reach(60).await;
        let (mut cut, mut start) = (0, 0);
        for wait in [1, 5, 10, 20, 40, 80, 160, 320, 640] {
            let from = (authorities(&world.network), 20);
            let (task, handle, _) = launch(&context, &genesis, (50, start), from);
            context.sleep(Duration::from_millis(wait)).await;
            task.abort();
            let _ = task.await;
            cut += usize::from(futures::FutureExt::now_or_never(handle).is_none_or(|handle| handle.is_err()));
            context.sleep(Duration::from_millis(10)).await;
            start += 1;
        }
        assert!(cut >= 2, "it was killed before it had its state: {cut}");
        let from = (authorities(&world.network), 20);
        let follower = follow_from(&context, &genesis, (50, start), from).await;
        let goal = world.handles[&0].applied() + 20;
        reach(&context, &follower.handle, goal).await;
        assert!(follower.handle.header(5).await.is_none());
        expect_same(&follower.handle, &world.handles[&0], goal - 10..=goal).await;
    });
}

/// The newest header of one upstream node is no start, if the nodes have proved a newer one.
#[test]
fn a_follower_begins_at_the_newest_block_though_an_upstream_names_an_old_one() {
    runner().start(|context| async move {
        let world = world(&context).await;
        let genesis = world.network.genesis.clone();
        world.reach(10).await;
        let (endpoint, asked) = liar(&world, Lie::OldNewest, 140).await;
        world.reach(60).await;
        for (turn, most) in [20, 5].into_iter().enumerate() {
            let upstream = (vec![endpoint.clone()], most);
            let follower = follow_from(&context, &genesis, (90 + turn as u64, 0), upstream).await;
            let goal = world.handles[&1].applied() + 10;
            reach(&context, &follower.handle, goal).await;
            assert!(follower.handle.header(5).await.is_none(), "it ran old blocks");
            assert!(follower.handle.header(50).await.is_none(), "it began at an old block");
            expect_same(&follower.handle, &world.handles[&1], goal - 5..=goal).await;
            kill(&context, follower).await;
        }
        assert!(asked.load(Ordering::SeqCst) > 0, "it was asked");
    });
}

/// A near node that shows an old block is not believed that the chain is short, if another one is given.
#[test]
fn an_old_block_of_one_near_node_makes_no_follower_run_all_blocks() {
    runner().start(|context| async move {
        let world = world(&context).await;
        let genesis = world.network.genesis.clone();
        world.reach(10).await;
        let (old, asked) = liar(&world, Lie::OldRead, 140).await;
        let (late, _) = liar_as(&world, 67, Lie::Late, 141).await;
        world.reach(60).await;
        let follower = follow_from(&context, &genesis, (90, 0), (vec![old.clone(), late], 20)).await;
        let goal = world.handles[&1].applied() + 10;
        reach(&context, &follower.handle, goal).await;
        assert!(follower.handle.header(5).await.is_none(), "it ran old blocks");
        expect_same(&follower.handle, &world.handles[&1], goal - 5..=goal).await;
        assert!(asked.load(Ordering::SeqCst) > 0, "it was asked");
        // While the other one is away, nothing is decided.
        let away = Endpoint { account: account(68), address: SocketAddr::from(([10, 9, 9, 9], 142)).into() };
        let before = asked.load(Ordering::SeqCst);
        let (task, mut handle, _) = launch(&context, &genesis, (91, 0), (vec![old, away], 20));
        while asked.load(Ordering::SeqCst) < before + 12 {
            context.sleep(Duration::from_millis(20)).await;
        }
        assert!(futures::FutureExt::now_or_never(&mut handle).is_none(), "it has no state");
        liar_as(&world, 68, Lie::Late, 142).await;
        let handle = handle.await.expect("it starts");
        reach(&context, &handle, goal).await;
        assert!(handle.header(5).await.is_none(), "it ran old blocks");
        task.abort();
    });
}

/// A node that says of every state that it is gone ends nothing while another one may have it.
#[test]
fn one_nodes_word_ends_no_state_sync() {
    runner().start(|context| async move {
        let world = world(&context).await;
        let genesis = world.network.genesis.clone();
        world.reach(60).await;
        let (liar, asked) = liar(&world, Lie::PrunedState, 150).await;
        let honest =
            Endpoint { account: account(67), address: SocketAddr::from(([10, 9, 9, 9], 151)).into() };
        let (task, handle, _) = launch(&context, &genesis, (92, 0), (vec![liar.clone(), honest], 20));
        context.sleep(Duration::from_secs(3)).await;
        assert!(asked.load(Ordering::SeqCst) > 0, "it was asked");
        liar_as(&world, 67, Lie::Late, 151).await;
        let handle = handle.await.expect("it becomes readable");
        let goal = world.handles[&1].applied() + 10;
        reach(&context, &handle, goal).await;
        expect_same(&handle, &world.handles[&1], goal - 5..=goal).await;
        task.abort();
        // If it is the only one, its word ends the node, and the next start takes another state.
        let (task, _, _) = launch(&context, &genesis, (93, 0), (vec![liar], 20));
        assert!(matches!(task.await, Ok(Err(RunError::StateGone))));
    });
}

/// A node that sends a false part of the state, or none, keeps nobody from the true one.
#[test]
fn a_false_state_is_not_taken() {
    runner().start(|context| async move {
        let world = world(&context).await;
        let genesis = world.network.genesis.clone();
        world.reach(60).await;
        for (turn, lie) in [Lie::State, Lie::HangsAtState].into_iter().enumerate() {
            let (endpoint, asked) = liar(&world, lie, 120 + turn as u16).await;
            let seed = 60 + turn as u64;
            let (task, mut handle, _) = launch(&context, &genesis, (seed, 0), (vec![endpoint.clone()], 20));
            let before = asked.load(Ordering::SeqCst);
            while asked.load(Ordering::SeqCst) < before + 6 {
                context.sleep(Duration::from_millis(20)).await;
            }
            assert!(futures::FutureExt::now_or_never(&mut handle).is_none(), "{lie:?}: it has no state");
            task.abort();
            let _ = task.await;
            context.sleep(Duration::from_millis(10)).await;
            let upstream = vec![endpoint.clone(), endpoint, authority(&world.network, 1)];
            let follower = follow_from(&context, &genesis, (seed, 1), (upstream, 20)).await;
            let goal = world.handles[&1].applied() + 10;
            reach(&context, &follower.handle, goal).await;
            expect_same(&follower.handle, &world.handles[&1], goal - 5..=goal).await;
            kill(&context, follower).await;
        }
    });
}

/// Everything loses power while a node without a seat catches up: what was not synced is lost, nothing else.
#[test]
fn power_cuts_lose_nothing_that_a_follower_had_applied() {
    let (network, mut checkpoint, mut before) = (network(), None, (0, [0; 32]));
    // The network's height, and the one at which the node without a seat is cut off while it catches up.
    for (ahead, until) in [(70, 1), (70, 5), (71, 40), (71, 66), (75, 75)] {
        let runner = checkpoint.map_or_else(runner, deterministic::Runner::from);
        let network = network.clone();
        let (now, next) = runner.start_and_recover(move |context| async move {
            let world = World::start_serving(context.child("world"), network, serve()).await;
            let genesis = world.network.genesis.clone();
            if before.0 == 0 {
                world.reach(ahead).await;
            }
            let follower = follow(&context, &genesis, (50, 0), authorities(&world.network)).await;
            let (height, root) = before;
            if height > 0 {
                // The state may be a few blocks behind its outcomes; they are run again.
                let header = follower.handle.header(height).await.expect("an applied block is kept");
                assert_eq!(header.state_root, root);
            }
            world.reach(ahead).await;
            reach(&context, &follower.handle, until).await;
            let applied = follower.handle.applied();
            expect_same(&follower.handle, &world.handles[&0], 1..=until).await;
            (applied, follower.handle.header(applied).await.expect("kept").state_root)
        });
        (before, checkpoint) = (now, Some(next));
    }
}

/// The nodes that are followed leave one after the other, and others are there in time.
#[test]
fn an_upstream_that_is_lost_is_replaced_while_the_follower_runs() {
    runner().start(|context| async move {
        let mut world = world(&context).await;
        let genesis = world.network.genesis.clone();
        let beside = follow(&context, &genesis, (50, 0), authorities(&world.network)).await;
        let upstream = vec![authority(&world.network, 3), beside.endpoint.clone()];
        let follower = follow(&context, &genesis, (51, 0), upstream).await;
        reach(&context, &follower.handle, 10).await;
        world.crash(3);
        reach(&context, &follower.handle, 40).await;
        kill(&context, beside).await;
        // With nobody left to follow, it proves what it has.
        let ahead = world.handles[&0].applied() + 10;
        world.reach(ahead).await;
        assert!(follower.handle.applied() < ahead);
        let held = connect(&context, &genesis, vec![follower.endpoint.clone()]);
        assert_eq!(balance(&held, 2).await, Some(Amount::sync(1_000)));
        expect_same(&follower.handle, &world.handles[&0], 1..=40).await;
    });
}

/// With such a node alone, nothing false is applied; with an honest one beside it, the chain is followed.
#[test]
fn an_upstream_that_lies_or_hangs_is_left() {
    runner().start(|context| async move {
        let world = world(&context).await;
        let genesis = world.network.genesis.clone();
        world.reach(3).await;
        for (turn, lie) in LIES.into_iter().enumerate() {
            let (endpoint, asked) = liar(&world, lie, 100 + turn as u16).await;
            let seed = 80 + turn as u64;
            let alone = follow(&context, &genesis, (seed, 0), vec![endpoint.clone()]).await;
            while asked.load(Ordering::SeqCst) == 0 {
                context.sleep(Duration::from_millis(20)).await;
            }
            world.reach(world.handles[&1].applied() + 8).await;
            match (lie, alone.handle.applied()) {
                // It holds back, and was honest so far.
                (Lie::Drips, applied) => assert!(applied < 3, "{applied}"),
                // A node that repeats an answer was honest once.
                (Lie::Repeats, applied) => assert!(applied <= 1, "{applied}"),
                (_, applied) => assert_eq!(applied, 0, "{lie:?}"),
            }
            kill(&context, alone).await;
            let upstream = vec![endpoint.clone(), endpoint.clone(), endpoint, authority(&world.network, 1)];
            let beside = follow(&context, &genesis, (seed, 1), upstream).await;
            let now = world.handles[&1].applied();
            reach(&context, &beside.handle, now).await;
            let late = world.handles[&1].applied() - now;
            assert!(late < 400, "{lie:?}: it was left after {late} blocks");
            expect_same(&beside.handle, &world.handles[&1], 1..=now).await;
            kill(&context, beside).await;
        }
    });
}

/// The node of another network, even with the same network key, gives nothing to a follower of this one.
#[test]
fn another_chain_is_not_followed() {
    runner().start(|context| async move {
        let world = world(&context).await;
        let mut parameters = Parameters::LOCAL;
        parameters.expiry_blocks_max += 1;
        let mut other = Network4::deal(4, parameters, vec![]);
        other.nodes.iter_mut().for_each(|node| node.prefix = format!("strange-{}", node.prefix));
        assert_eq!(other.genesis.network_key(), world.network.genesis.network_key());
        let at = |index: usize| SocketAddr::from(([10, 1, index as u8, 1], 7_000));
        let serve: common::Serve = Box::new(move |context, node, index, _| {
            let serving = Serving { key: node.key.clone(), address: at(index), private: true };
            simulated(context.child("sockets"), serving)
        });
        let strange = World::start_serving(context.child("strange"), other, Some(serve)).await;
        strange.reach(10).await;
        let stranger = Endpoint { address: at(0).into(), ..authority(&strange.network, 0) };
        let genesis = world.network.genesis.clone();
        let follower = follow(&context, &genesis, (50, 0), vec![stranger.clone()]).await;
        strange.reach(30).await;
        assert_eq!(follower.handle.applied(), 0);
        kill(&context, follower).await;
        let upstream = vec![stranger.clone(), stranger, authority(&world.network, 0)];
        let follower = follow(&context, &genesis, (50, 1), upstream).await;
        reach(&context, &follower.handle, 10).await;
        expect_same(&follower.handle, &world.handles[&0], 1..=10).await;
    });
}

/// Operations that every upstream node refuses are answered with the code, and cost no upstream node its place.
#[test]
fn operations_that_are_refused_move_no_upstream() {
    runner().start(|context| async move {
        let world = world(&context).await;
        let genesis = world.network.genesis.clone();
        world.reach(120).await;
        let ((one, to_one), (other, to_other)) = (front(&world, 70).await, front(&world, 71).await);
        let connection = connect(&context, &genesis, vec![one, other]);
        let relay = Relay::new(context.child("relay"), genesis.chain(), connection.clone());
        let upstream = connection.current();
        for nonce in 0..20 {
            // Its last block is far behind.
            let expired = signed(&genesis, 1, nonce, 1);
            let refused = relay.submit((account(200), None), &expired.encode()).await;
            assert_eq!(refused.map_err(|refused| format!("{refused:?}")), Err("Code(Expired)".into()));
            assert_eq!(connection.current(), upstream, "operation {nonce}");
        }
        assert_eq!((to_one.load(Ordering::SeqCst), to_other.load(Ordering::SeqCst)), (1, 1));
    });
}

async fn caller(context: &deterministic::Context, seed: u64, node: Endpoint) -> rpc::Client<rpc::Node> {
    let (dialing, network, own) = (context.child("caller"), context.child("network"), key(seed));
    let client = rpc::Client::dial(dialing, &network, &own, node.account, node.address);
    client.await.expect("connects")
}

/// Callers that flood a node without a seat are answered at once that it is busy, each within its share, and all of one
/// address within that of an address; an operation that nobody signed never leaves the node.
#[test]
fn what_is_passed_on_is_signed_and_bounded() {
    runner().start(|context| async move {
        let genesis = network().genesis;
        let (sink, waiting) = sink(&context).await;
        let follower = follow(&context, &genesis, (50, 0), vec![sink]).await;
        let mut callers = Vec::new();
        for seed in 200..203 {
            callers.push(caller(&context, seed, follower.endpoint.clone()).await);
        }
        let mut forged = signed(&genesis, 1, 0, 1);
        forged.signature[3] ^= 1;
        let answer = callers[0].call(Ask::submit(&forged).expect("small")).await.expect("answers");
        assert_eq!(answer, NodeAnswer::Refused(Code::BadSignature));
        assert_eq!(*waiting.lock(), 0);
        // An operation under way is not passed on twice, so two nodes cannot pass it in a circle.
        let mut left = Vec::new();
        for (caller, expected) in [(0, RELAYED_PER_CALLER), (1, RELAYED_PER_ORIGIN), (2, RELAYED_PER_ORIGIN)]
        {
            for nonce in 0..RELAYED_PER_CALLER as u64 + 4 {
                let ask = Ask::submit(&signed(&genesis, 1 + caller as u64, nonce, 1)).expect("small");
                left.push(callers[caller].open(ask).await.expect("open"));
            }
            let mut busy = 0;
            context.sleep(Duration::from_millis(500)).await;
            for call in &mut left {
                if let Some(Some(answer)) = futures::FutureExt::now_or_never(call.recv()) {
                    assert_eq!(answer, NodeAnswer::Unavailable(Unavailable::Busy));
                    busy += 1;
                }
            }
            assert_eq!(*waiting.lock(), expected, "caller {caller}");
            assert!(busy >= 4, "caller {caller}: {busy}");
        }
    });
}

/// Two nodes that have only each other as upstream end an operation's way, and go on.
#[test]
fn nodes_that_follow_each_other_pass_nothing_in_a_circle() {
    runner().start(|context| async move {
        let genesis = network().genesis;
        let at = |seed: u64| Endpoint {
            account: account(seed),
            address: SocketAddr::from(([10, 7, seed as u8, 1], 100)).into(),
        };
        let (one, other) = futures::join!(
            follow(&context, &genesis, (50, 0), vec![at(51)]),
            follow(&context, &genesis, (51, 0), vec![at(50)])
        );
        assert_eq!((one.endpoint, other.endpoint), (at(50), at(51)));
        let caller = caller(&context, 200, at(50)).await;
        let ask = Ask::submit(&signed(&genesis, 1, 0, 1)).expect("small");
        let answer = caller.call(ask).await.expect("answers");
        assert_eq!(answer, NodeAnswer::Unavailable(Unavailable::Busy));
    });
}

/// A node without a seat that names nobody, or only itself, is refused with the setting to change.
#[test]
fn a_follower_needs_somebody_to_follow() {
    runner().start(|context| async move {
        let listen = SocketAddr::from(([10, 7, 50, 1], 1));
        let own = Endpoint { account: account(50), address: listen.into() };
        for upstream in [vec![], vec![own]] {
            let settings = Settings {
                genesis: network().genesis,
                key: key(50),
                upstream,
                listen,
                page_cache_pages: 16,
                archive: false,
                replayed_max: u64::MAX,
                private: true,
            };
            let networks = (context.child("dialing"), context.child("listening"));
            let beside = Box::new(|_: deterministic::Context, _| {});
            let ended = follower::run(context.child("node"), networks, "f".into(), settings, beside).await;
            assert!(matches!(ended, Err(RunError::NoUpstream)), "{ended:?}");
        }
    });
}
