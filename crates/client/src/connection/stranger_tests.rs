//! Trusted nodes and strangers: a stranger is asked while no trusted node answers, and decides nothing while one does.

use super::*;
use crate::{
    channel::Listen,
    light::tests::{CHAIN, Committee, Database, header, proven, store},
    rpc::{Incoming, Server, Service as _},
};
use commonware_cryptography::{Signer as _, ed25519};
use commonware_runtime::{Runner as _, Supervisor as _, deterministic};
use futures::future::pending;
use posync_protocol::{Amount, Body, operation::Transfer, wire::node::Certified};
use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicUsize},
};

/// Height of the first block.
const FIRST: u64 = 100;
/// Number of blocks that the node holds.
const LENGTH: u64 = 60;

/// The network's chain; all blocks have the same state.
struct World {
    committee: Committee,
    database: Database,
    blocks: Vec<Certified>,
}

impl World {
    async fn new(context: &deterministic::Context) -> Arc<Self> {
        let (committee, database) = (Committee::new(1), store(context).await);
        let root: Hash = database.root().as_ref().try_into().expect("32 bytes");
        let (mut parent, mut blocks) = ([1; 32], vec![]);
        for height in FIRST..FIRST + LENGTH {
            let header = header(height, parent, root);
            parent = header.digest();
            let finalization = committee.finalize(&header);
            blocks.push(Certified { headers: Bounded::new(vec![header]).expect("one"), finalization });
        }
        Arc::new(Self { committee, database, blocks })
    }

    fn block(&self, height: u64) -> Option<&Certified> {
        self.blocks.get(usize::try_from(height.checked_sub(FIRST)?).ok()?)
    }
}

/// A node of the test, and what it does.
struct Node {
    endpoint: Endpoint,
    asked: Arc<AtomicUsize>,
    /// Number of questions for a block.
    headers: Arc<AtomicUsize>,
    is_up: Arc<AtomicBool>,
    /// Height of its newest block.
    height: Arc<AtomicU64>,
    /// True if it has old blocks.
    has_old: Arc<AtomicBool>,
    /// True if no block that is asked for is final at it.
    is_early: Arc<AtomicBool>,
    /// Pause before each block that it sends to a follower.
    pause: Arc<Mutex<Duration>>,
}

impl Node {
    async fn start(context: &deterministic::Context, world: &Arc<World>, seed: u64) -> Self {
        Self::start_at(context, world, seed, [10, 0, 0, seed as u8]).await
    }

    async fn start_at(context: &deterministic::Context, world: &Arc<World>, seed: u64, ip: [u8; 4]) -> Self {
        let key = ed25519::PrivateKey::from_seed(seed);
        let address = SocketAddr::from((ip, 100));
        let node = Self {
            endpoint: Endpoint { account: Account::of(&key.public_key()), address: address.into() },
            asked: Arc::default(),
            headers: Arc::default(),
            is_up: Arc::new(AtomicBool::new(true)),
            height: Arc::new(AtomicU64::new(FIRST + LENGTH - 1)),
            has_old: Arc::default(),
            is_early: Arc::default(),
            pause: Arc::default(),
        };
        let (asked, is_up, height) = (node.asked.clone(), node.is_up.clone(), node.height.clone());
        let (has_old, pause, world) = (node.has_old.clone(), node.pause.clone(), world.clone());
        let headers = node.headers.clone();
        let is_early = node.is_early.clone();
        let clock = Arc::new(context.child("clock"));
        let server = Server::<rpc::Node, _>::new(move |call: Incoming<rpc::Node>, ask| {
            asked.fetch_add(1, Ordering::SeqCst);
            headers.fetch_add(usize::from(matches!(ask, Ask::Header(_))), Ordering::SeqCst);
            let (is_up, height) = (is_up.load(Ordering::SeqCst), height.load(Ordering::SeqCst));
            let (has_old, pause) = (has_old.load(Ordering::SeqCst), *pause.lock());
            let is_early = is_early.load(Ordering::SeqCst);
            let (world, clock) = (world.clone(), clock.clone());
            async move {
                let answer = match ask {
                    _ if !is_up => return,
                    Ask::Read(keys) => {
                        let certified = world.block(height).expect("a block").clone();
                        let record = proven(&world.database, keys[0]).await;
                        let records = Bounded::new(vec![record]).expect("one");
                        NodeAnswer::Read(Read { certified, records })
                    }
                    Ask::Header(_) if is_early => NodeAnswer::Unavailable(Unavailable::NotYet),
                    Ask::Header(height) if has_old => {
                        NodeAnswer::Certified(world.block(height).expect("a block").clone())
                    }
                    Ask::Follow(from) => {
                        for height in from..FIRST + LENGTH {
                            clock.sleep(pause).await;
                            let block = world.block(height).expect("a block").clone();
                            if call.send(&NodeAnswer::Certified(block)).await.is_err() {
                                return;
                            }
                        }
                        return pending().await;
                    }
                    _ => NodeAnswer::Unavailable(Unavailable::Pruned),
                };
                let _ = call.finish(&answer).await;
            }
        });
        let listen = Listen::new(key, rpc::Node::NAMESPACE, address);
        server.listen(context.child("node"), context, listen).await.expect("listens");
        node
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn set_up(&self, is_up: bool) {
        self.is_up.store(is_up, Ordering::SeqCst);
    }
}

/// Two trusted nodes, one given and one with a seat, and strangers; and a connection that knows them.
struct Net {
    world: Arc<World>,
    trusted: Vec<Node>,
    strangers: Vec<Node>,
    connection: Connection,
}

impl Net {
    async fn new(context: &deterministic::Context, strangers: u64) -> Self {
        let world = World::new(context).await;
        let trusted = vec![Node::start(context, &world, 1).await, Node::start(context, &world, 2).await];
        let mut others = vec![];
        for seed in 0..strangers {
            others.push(Node::start(context, &world, 10 + seed).await);
        }
        let light = Light::new(CHAIN, world.committee.network_key);
        let (reader, over) = (context.child("reader"), context.child("network"));
        let key = ed25519::PrivateKey::from_seed(9);
        let connection = Connection::new(reader, over, key, vec![trusted[0].endpoint.clone()], light);
        let learned = |has_seat| move |node: &Node| Learned { endpoint: node.endpoint.clone(), has_seat };
        let listed = others.iter().map(learned(false)).chain(trusted[1..].iter().map(learned(true)));
        connection.learn(&listed.collect::<Vec<_>>());
        Self { world, trusted, strangers: others, connection }
    }

    async fn read(&self) -> Result<u64, Error> {
        Ok(self.connection.read::<System>(System::key()).await?.header.height)
    }

    fn strangers_asked(&self) -> usize {
        self.strangers.iter().map(Node::asked).sum()
    }

    fn is_at_a_stranger(&self) -> bool {
        let current = self.connection.current();
        self.strangers.iter().any(|node| Some(&node.endpoint) == current.as_ref())
    }
}

fn run<F: Future<Output = ()>>(test: impl FnOnce(deterministic::Context) -> F) {
    deterministic::Runner::default().start(test);
}

#[test]
fn strangers_are_asked_while_no_trusted_node_answers_and_the_first_that_does_takes_over() {
    run(|context| async move {
        let net = Net::new(&context, 6).await;
        let all_that_asks = async || {
            for _ in 0..4 {
                net.read().await.expect("a node answers");
                net.connection.compare().await.expect("a node answers");
                net.connection.prefer_near(&[]).await;
                // While one of two trusted nodes answers, that is too few, and no stranger is asked instead.
                let _ = net.connection.read_from_several(&[System::key()], 0, 2).await;
                context.sleep(STILL).await;
            }
        };
        all_that_asks().await;
        assert_eq!(net.strangers_asked(), 0);
        assert!(net.trusted.iter().all(|node| node.asked() > 0));
        net.trusted[0].set_up(false);
        all_that_asks().await;
        assert!(net.connection.read_from_several(&[System::key()], 0, 2).await.is_err());
        assert_eq!(net.connection.current().as_ref(), Some(&net.trusted[1].endpoint), "it answers");
        for _ in 0..20 {
            net.read().await.expect("it answers");
            assert!(net.connection.header(FIRST).await.is_err(), "it says so");
        }
        let headers = net.strangers.iter().map(|node| node.headers.load(Ordering::SeqCst)).sum::<usize>();
        assert_eq!(headers, 0, "strangers are asked for their height alone, and answer nothing in its place");
        net.trusted[1].set_up(false);
        all_that_asks().await;
        assert!(net.is_at_a_stranger());
        let several = net.connection.read_from_several(&[System::key()], 0, 2).await;
        assert_eq!(several.expect("strangers answer").len(), 2);
        net.trusted[0].set_up(true);
        context.sleep(Duration::from_secs(31)).await;
        all_that_asks().await;
        assert_eq!(net.connection.current().as_ref(), Some(&net.trusted[0].endpoint));
        net.trusted[1].set_up(true);
        context.sleep(Duration::from_secs(61)).await;
        all_that_asks().await;
        let before = net.strangers_asked();
        all_that_asks().await;
        assert_eq!(net.strangers_asked(), before, "two trusted nodes answer");
    });
}

#[test]
fn one_trusted_node_alone_is_compared_with_strangers_and_left_while_it_is_behind() {
    run(|context| async move {
        let net = Net::new(&context, 3).await;
        let newest = FIRST + LENGTH - 1;
        let (alone, liar) = (&net.trusted[0], &net.strangers[0]);
        net.trusted[1].set_up(false);
        liar.set_up(false);
        net.connection.compare().await.expect("one answers");
        let set = |height| alone.height.store(height, Ordering::SeqCst);
        let is_at_it = || net.connection.current().as_ref() == Some(&alone.endpoint);
        // A reader and a follower find it behind, though it answers and sends a block from time to time.
        set(FIRST);
        let began = context.current();
        while net.read().await.expect("a node answers") < newest {
            let passed = context.current().duration_since(began).expect("time goes on");
            assert!(passed < 6 * STILL, "{passed:?}");
            alone.height.fetch_add(1, Ordering::SeqCst);
            context.sleep(Duration::from_millis(3_900)).await;
        }
        assert!(net.is_at_a_stranger());
        set(newest);
        context.sleep(Duration::from_secs(61)).await;
        net.read().await.expect("it answers");
        assert!(is_at_it(), "it is there again");
        set(FIRST);
        let compared = net.connection.compare().await.expect("a node answers");
        assert_eq!((compared, is_at_it()), (newest, false), "nothing is signed on its old state");
    });
}

#[test]
fn strangers_that_hang_are_asked_side_by_side_and_hide_no_newer_block() {
    run(|context| async move {
        let net = Net::new(&context, 9).await;
        net.trusted[1].set_up(false);
        net.strangers[..8].iter().for_each(|stranger| stranger.set_up(false));
        net.read().await.expect("one answers");
        let began = context.current();
        let mut in_vain = 0;
        while !net.connection.is_left_behind(At::nowhere(0), FIRST).await {
            in_vain += 1;
            assert!(in_vain <= 3, "the other trusted node, then four strangers and four more");
        }
        let passed = context.current().duration_since(began).expect("time goes on");
        assert!(
            passed < Duration::from_secs(20),
            "nine that are waited for one by one take 40 s: {passed:?}"
        );
    });
}

#[test]
fn a_second_copy_of_an_operation_goes_to_strangers_while_one_trusted_node_alone_answers() {
    run(|context| async move {
        let net = Net::new(&context, 3).await;
        let key = ed25519::PrivateKey::from_seed(3);
        let body = Body::Transfer(Transfer { to: Account([1; 32]), amount: Amount::sync(1) });
        let operation = Operation::signed(&key, &CHAIN, 0, Amount::ZERO, 500, body);
        net.trusted[1].set_up(false);
        let _ = net.connection.submit_elsewhere(0, &operation).await;
        assert_eq!(net.strangers_asked(), 0, "another trusted node may answer");
        for turn in 0..6 {
            let _ = net.connection.submit_elsewhere(turn, &operation).await;
        }
        assert_eq!(net.strangers.iter().map(Node::asked).collect::<Vec<_>>(), [2, 2, 2], "in rotation");
        assert_eq!(net.connection.current().as_ref(), Some(&net.trusted[0].endpoint));
    });
}

#[test]
fn a_block_is_pruned_when_every_trusted_node_that_answers_has_said_so() {
    run(|context| async move {
        let net = Net::new(&context, 8).await;
        let has_old = |place: usize, has_old| net.trusted[place].has_old.store(has_old, Ordering::SeqCst);
        let pruned =
            |asked: Result<Header, Error>| matches!(asked, Err(Error::Unavailable(Unavailable::Pruned)));
        has_old(1, true);
        for _ in 0..3 {
            assert!(net.connection.header(FIRST).await.is_ok(), "the second trusted node has it");
            let _ = net.connection.clone().beginning_at(0);
        }
        // Everyone trusted is away for a moment, and strangers have taken over.
        net.trusted.iter().for_each(|node| node.set_up(false));
        net.read().await.expect("a stranger answers");
        assert!(net.is_at_a_stranger());
        net.trusted.iter().for_each(|node| node.set_up(true));
        context.sleep(Duration::from_secs(2)).await;
        assert!(net.connection.header(FIRST).await.is_ok(), "strangers do not decide it");
        has_old(1, false);
        assert!(pruned(net.connection.header(FIRST).await), "all trusted nodes say so");
        has_old(1, true);
        net.trusted[0].set_up(false);
        let _ = net.connection.clone().beginning_at(0);
        assert!(net.connection.header(FIRST).await.is_ok());
        net.trusted[1].set_up(false);
        assert!(pruned(net.connection.header(FIRST).await), "there are strangers alone, and they say so");
    });
}

/// A block that one node does not have yet, and that another says it has dropped: one of them is wrong.
#[test]
fn no_block_is_pruned_while_a_trusted_node_says_that_it_is_not_final_yet() {
    run(|context| async move {
        let net = Net::new(&context, 0).await;
        let early = |is_early| net.trusted[0].is_early.store(is_early, Ordering::SeqCst);
        let asked = async |place: usize| net.connection.clone().beginning_at(place).header(FIRST).await;
        early(true);
        net.trusted.iter().for_each(|node| node.height.store(FIRST, Ordering::SeqCst));
        for first in [0, 1, 0, 1] {
            let found = asked(first).await;
            assert!(matches!(found, Err(Error::Unavailable(Unavailable::NotYet))), "{first}: {found:?}");
        }
        // The other node proves that the block has long been final: the first one lags, and has no word.
        net.trusted[1].height.store(FIRST + LENGTH - 1, Ordering::SeqCst);
        let _ = asked(0).await;
        for first in [0, 1] {
            let found = asked(first).await;
            assert!(matches!(found, Err(Error::Unavailable(Unavailable::Pruned))), "{first}: {found:?}");
        }
        // It has caught up, and has the block.
        early(false);
        net.trusted[0].has_old.store(true, Ordering::SeqCst);
        context.sleep(Duration::from_secs(31)).await;
        assert!(asked(0).await.is_ok());
    });
}

#[test]
fn a_node_that_says_it_dropped_what_is_not_final_yet_is_left() {
    run(|context| async move {
        let net = Net::new(&context, 0).await;
        net.trusted[0].is_early.store(true, Ordering::SeqCst);
        net.trusted.iter().for_each(|node| node.height.store(FIRST, Ordering::SeqCst));
        let found = net.connection.clone().beginning_at(1).header(FIRST + 20).await;
        assert!(matches!(found, Err(Error::Unavailable(Unavailable::NotYet))), "{found:?}");
        assert_eq!(net.connection.0.pool.silent_trusted(), [1], "it alone has failed");
    });
}

#[test]
fn a_proof_of_one_node_is_kept_when_the_other_is_silent_and_nobody_is_asked_twice() {
    run(|context| async move {
        let net = Net::new(&context, 0).await;
        let keys = [System::key()];
        net.trusted[0].set_up(false);
        let before = net.trusted[0].asked();
        let proofs = net.connection.read_from_some(&keys, 0, 2).await.expect("one node proves it");
        assert_eq!((proofs.len(), net.trusted[0].asked() - before), (1, 1));
        let failed =
            net.connection.read_from_several(&keys, 0, 2).await.expect_err("two are needed").to_string();
        for part in [format!("{}", net.trusted[0].endpoint.address), "1 of 2".into()] {
            assert!(failed.contains(&part), "{part}: {failed}");
        }
        net.trusted[1].set_up(false);
        let failed = net.connection.read_from_some(&keys, 0, 2).await.expect_err("none answers").to_string();
        for node in &net.trusted {
            assert!(failed.contains(&node.endpoint.address.to_string()), "each is named: {failed}");
        }
    });
}

#[test]
fn requests_that_ask_at_the_same_time_ask_each_trusted_node_once_for_what_none_has() {
    run(|context| async move {
        let net = Net::new(&context, 14).await;
        let all = || net.trusted.iter().chain(&net.strangers);
        let seats = all().map(|node| Learned { endpoint: node.endpoint.clone(), has_seat: true });
        net.connection.learn(&seats.collect::<Vec<_>>());
        let before: usize = all().map(Node::asked).sum();
        let eight = futures::future::join_all((0..8).map(|_| net.connection.header(FIRST))).await;
        for asked in eight {
            assert!(matches!(asked, Err(Error::Unavailable(Unavailable::Pruned))), "{asked:?}");
        }
        let questions = all().map(Node::asked).sum::<usize>() - before;
        assert!((1..=8 * 16 + 8).contains(&questions), "{questions} questions");
    });
}

#[test]
fn a_second_copy_of_an_operation_goes_to_trusted_nodes() {
    run(|context| async move {
        let net = Net::new(&context, 6).await;
        let key = ed25519::PrivateKey::from_seed(3);
        let body = Body::Transfer(Transfer { to: Account([1; 32]), amount: Amount::sync(1) });
        let operation = Operation::signed(&key, &CHAIN, 0, Amount::ZERO, 500, body);
        let copies = async || {
            for turn in 0..8 {
                let _ = net.connection.submit_elsewhere(turn, &operation).await;
                let _ = net.connection.submit_at(turn, &operation).await;
            }
        };
        copies().await;
        assert_eq!(net.strangers_asked(), 0);
        assert!(net.trusted.iter().all(|node| node.asked() >= 4));
        net.trusted.iter().for_each(|node| node.set_up(false));
        net.read().await.expect("a stranger answers");
        let before = net.strangers_asked();
        copies().await;
        assert_eq!(net.strangers_asked(), before + 16, "strangers are better than none");
    });
}

#[test]
fn a_node_that_sends_old_blocks_one_by_one_is_left_by_readers_and_followers() {
    run(|context| async move {
        let net = Net::new(&context, 0).await;
        let drips = Duration::from_millis(3_900);
        let slow = &net.trusted[0];
        slow.height.store(FIRST, Ordering::SeqCst);
        let began = context.current();
        while net.read().await.expect("a node answers") < FIRST + LENGTH - 1 {
            slow.height.fetch_add(1, Ordering::SeqCst);
            context.sleep(drips).await;
        }
        let passed = |since: SystemTime| context.current().duration_since(since).expect("time goes on");
        assert!(passed(began) < 3 * STILL, "{:?}", passed(began));
        // A follower of blocks that all exist already.
        *slow.pause.lock() = drips;
        let began = context.current();
        let mut follow = net.connection.clone().beginning_at(0).follow(FIRST);
        for height in FIRST..FIRST + LENGTH {
            assert_eq!(follow.next().await.expect("a node answers").height, height);
        }
        assert!(passed(began) < 4 * STILL, "{:?}", passed(began));
        assert_eq!(net.world.blocks.len() as u64, LENGTH);
    });
}

#[test]
fn a_follower_goes_back_from_a_stranger_to_a_trusted_node() {
    run(|context| async move {
        let net = Net::new(&context, 2).await;
        net.trusted.iter().for_each(|node| node.set_up(false));
        net.strangers.iter().for_each(|node| *node.pause.lock() = Duration::from_secs(2));
        let mut follow = net.connection.follow(FIRST);
        assert_eq!(follow.next().await.expect("a stranger answers").height, FIRST);
        assert!(net.is_at_a_stranger());
        net.trusted[1].set_up(true);
        for height in FIRST + 1..FIRST + LENGTH {
            assert_eq!(follow.next().await.expect("a node answers").height, height);
        }
        assert_eq!(net.connection.current().as_ref(), Some(&net.trusted[1].endpoint));
    });
}

#[test]
fn a_strangers_name_that_leads_to_this_machine_is_dialled_only_where_a_given_node_is_on_it() {
    run(|context| async move {
        let world = World::new(&context).await;
        let inside = Node::start_at(&context, &world, 20, [127, 0, 0, 1]).await;
        for name in ["inside.example.org", "here.example.org"] {
            context.resolver_register(name, Some(vec![[127, 0, 0, 1].into()]));
        }
        let at = |account, address: &str| Endpoint { account, address: address.parse().expect("an address") };
        for (given, is_dialled) in
            [("9.9.9.9:7", false), ("10.0.0.1:7", false), ("127.0.0.1:7", true), ("here.example.org:7", true)]
        {
            let light = Light::new(CHAIN, world.committee.network_key);
            let (reader, over) = (context.child("reader"), context.child("network"));
            // Nobody listens at the given node's port.
            let key = ed25519::PrivateKey::from_seed(9);
            let gone = at(Account::of(&ed25519::PrivateKey::from_seed(30).public_key()), given);
            let connection = Connection::new(reader, over, key, vec![gone], light);
            let endpoint = at(inside.endpoint.account, "inside.example.org:100");
            connection.learn(&[Learned { endpoint, has_seat: false }]);
            let before = inside.asked();
            let read = connection.read::<System>(System::key()).await;
            assert_eq!((read.is_ok(), inside.asked() > before), (is_dialled, is_dialled), "{given}");
        }
    });
}
