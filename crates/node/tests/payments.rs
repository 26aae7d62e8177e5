//! A client never pays twice and never counts one payment twice, whatever a node answers: four authorities,
//! real channels, and nodes in between that lie, forget, withhold or hang.

#[allow(dead_code, reason = "each test file uses its part of what they share")]
mod common;

use common::{Network4, World, address, serve};
use commonware_codec::{Copying, DecodeExt as _};
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_runtime::{
    Clock as _, Listener as _, Network as _, Runner as _, Spawner as _, Supervisor as _, deterministic,
};
use commonware_utils::sync::Mutex;
use posync_client::{
    account::{Final, Submitter},
    channel::Listen,
    connection::{Connection, Endpoint, Error},
    light::Light,
    rpc::{self, Incoming, Server, Service as _},
};
use posync_protocol::{
    Account, Amount, Body, Code, Operation,
    limits::{Parameters, STALE_BLOCKS_MAX},
    operation::{AuditCommit, Transfer},
    record::{AccountState, System},
    wire::node::{Ask, NodeAnswer, Unavailable},
};
use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

fn key(seed: u64) -> PrivateKey {
    PrivateKey::from_seed(seed)
}

fn account(seed: u64) -> Account {
    Account::of(&key(seed).public_key())
}

fn endpoints(network: &Network4) -> Vec<Endpoint> {
    let endpoint = |(index, node): (usize, &posync_node::run::SimNode)| Endpoint {
        account: Account::of(&node.key.public_key()),
        address: address(index, index as u64 + 1).into(),
    };
    network.nodes.iter().enumerate().map(endpoint).collect()
}

fn connect(world: &World, endpoints: Vec<Endpoint>) -> Connection {
    let (context, network) = (world.context.child("client"), world.context.child("network"));
    let genesis = &world.network.genesis;
    let light = Light::new(genesis.chain(), genesis.network_key());
    Connection::new(context, network, key(77), endpoints, light).beginning_at(0)
}

async fn world(context: &deterministic::Context) -> World {
    let accounts = vec![(account(1), Amount::sync(1_000)), (account(2), Amount::sync(1))];
    let network = Network4::deal(4, Parameters::LOCAL, accounts);
    let world = World::start_serving(context.child("world"), network, serve()).await;
    world.reach(2).await;
    world
}

fn run<F: Future<Output = ()>>(test: impl FnOnce(deterministic::Context) -> F) {
    let config = deterministic::Config::new().with_seed(5).with_timeout(Some(Duration::from_secs(600)));
    deterministic::Runner::new(config).start(test);
}

fn pay(to: u64, amount: u64) -> Body {
    Body::Transfer(Transfer { to: account(to), amount: Amount::sync(amount) })
}

/// The account state that two honest nodes prove, after waiting operations have had time to be included.
async fn later(world: &World, seed: u64) -> AccountState {
    let connection = connect(world, endpoints(&world.network));
    let height = connection.height().await.expect("answers");
    world.reach(height + 24).await;
    let state = connection.read(AccountState::key(&account(seed))).await.expect("answers");
    state.value.unwrap_or_default()
}

/// The behaviour of a node between a client and an honest node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Forwards an operation, answers that its nonce is used, and knows no receipt.
    SaysOld,
    /// Forwards an operation, refuses it, and knows no receipt.
    SaysNo,
    /// Forwards an operation and is lost before it answers.
    Lost,
    /// Has a state but no block before it: it accepts an operation once another one is final.
    Synced,
    /// Repeats its first answer to every read.
    Withholds,
    /// Accepts an operation and does not forward it.
    Keeps,
}

/// The answer of a node with that behaviour; `None`: the call ends without one.
async fn twist(
    way: Way,
    ask: Ask,
    behind: &rpc::Client<rpc::Node>,
    first: &Mutex<Option<NodeAnswer>>,
    context: &deterministic::Context,
) -> Option<NodeAnswer> {
    if way == Way::Synced && matches!(ask, Ask::Submit(_)) {
        // A node does so if it begins with a state that includes the operation already.
        context.sleep(Duration::from_secs(2)).await;
        return Some(NodeAnswer::Refused(Code::NonceOld));
    }
    if way == Way::Keeps
        && let Ask::Submit(bytes) = &ask
    {
        return Some(NodeAnswer::Accepted(Operation::decode(Copying(bytes)).expect("honest").id()));
    }
    let answer = behind.call(ask.clone()).await.ok();
    match (way, &ask) {
        (Way::SaysOld, Ask::Submit(_)) => Some(NodeAnswer::Refused(Code::NonceOld)),
        (Way::SaysNo, Ask::Submit(_)) => Some(NodeAnswer::Refused(Code::Balance)),
        (Way::Lost, Ask::Submit(_)) => None,
        (Way::SaysOld | Way::SaysNo | Way::Lost | Way::Synced, Ask::Receipt(_)) => {
            Some(NodeAnswer::Receipt(None))
        }
        (Way::Synced, Ask::Header(_) | Ask::Body(_) | Ask::Events(_)) => {
            Some(NodeAnswer::Unavailable(Unavailable::Pruned))
        }
        (Way::Withholds, Ask::Read(_)) => {
            let mut first = first.lock();
            Some(first.get_or_insert(answer?).clone())
        }
        _ => answer,
    }
}

/// Starts a node with that behaviour in front of an honest one.
async fn between(world: &World, way: Way, seed: u64) -> Endpoint {
    let honest = endpoints(&world.network)[0].clone();
    let network = world.context.child("network");
    let own = key(seed);
    let behind = world.context.child("behind");
    let behind = rpc::Client::<rpc::Node>::dial(behind, &network, &own, honest.account, honest.address);
    let behind = behind.await.expect("connects");
    let (context, first) = (Arc::new(world.context.child("between")), Arc::new(Mutex::new(None)));
    let server = Server::<rpc::Node, _>::new(move |call: Incoming<rpc::Node>, ask| {
        let (behind, context, first) = (behind.clone(), context.clone(), first.clone());
        async move {
            if let Ask::Follow(_) = ask {
                let mut blocks = behind.open(ask).await.expect("the honest node lives");
                while let Some(answer) = blocks.recv().await {
                    if call.send(&answer).await.is_err() {
                        return;
                    }
                }
            } else if let Some(answer) = twist(way, ask, &behind, &first, &context).await {
                let _ = call.finish(&answer).await;
            }
        }
    });
    let address = SocketAddr::from(([10, 9, 9, seed as u8], 100));
    let listen = Listen::new(own.clone(), rpc::Node::NAMESPACE, address);
    server.listen(world.context.child("listener"), &network, listen).await.expect("listens");
    Endpoint { account: account(seed), address: address.into() }
}

/// Sends 1 SYNC to a stranger, with these nodes before the honest ones; the payer must have paid once.
fn pays_once(ways: &'static [Way]) {
    run(|context| async move {
        let world = world(&context).await;
        let mut nodes = Vec::new();
        for (place, way) in ways.iter().enumerate() {
            nodes.push(between(&world, *way, 60 + place as u64).await);
        }
        nodes.extend(endpoints(&world.network).into_iter().skip(1));
        let sender = Submitter::new(connect(&world, nodes), key(1), Parameters::LOCAL);
        let sent = sender.send(pay(3, 1)).await.expect("final").done().expect("done");
        assert_eq!(later(&world, 3).await.balance, Amount::sync(1), "{ways:?}");
        assert_eq!(later(&world, 1).await.nonce, 1, "{ways:?}");
        // The receipt belongs to the one payment.
        let connection = connect(&world, endpoints(&world.network));
        let body = connection.header(sent.receipt.height).await.expect("kept");
        let body = connection.body(&body).await.expect("kept");
        assert_eq!(body.operations[sent.receipt.index as usize].id(), sent.id);
    });
}

#[test]
fn a_node_that_says_the_nonce_is_used_makes_nobody_pay_twice() {
    pays_once(&[Way::SaysOld]);
}

#[test]
fn a_node_that_refuses_what_it_passed_on_makes_nobody_say_refused() {
    pays_once(&[Way::SaysNo]);
}

#[test]
fn a_node_that_knows_the_nonce_and_not_the_receipt_makes_nobody_pay_twice() {
    pays_once(&[Way::Lost, Way::Synced]);
}

/// True if a block holds the commitment of the authority with this key.
async fn holds_commitment(world: &World, key: &PrivateKey) -> bool {
    let connection = connect(world, endpoints(&world.network));
    let account = Account::of(&key.public_key());
    for height in 1..=world.handles[&0].applied() {
        let header = connection.header(height).await.expect("kept");
        let body = connection.body(&header).await.expect("kept");
        let is_it = |operation: &Operation| {
            operation.signer == account && matches!(operation.body, Body::AuditCommit(_))
        };
        if body.operations.iter().any(is_it) {
            return true;
        }
    }
    false
}

/// Sends an authority's commitment, which has no nonce, to one node of this kind; `judge` gets the result,
/// and true if it happened.
fn commits(way: Way, judge: impl FnOnce(Result<Final, Error>, bool) + 'static) {
    run(move |context| async move {
        let seat = Network4::deal(4, Parameters::LOCAL, vec![]).nodes[1].key.clone();
        let funded = vec![(Account::of(&seat.public_key()), Amount::sync(10))];
        let network = Network4::deal(4, Parameters::LOCAL, funded);
        let world = World::start_serving(context.child("world"), network, serve()).await;
        world.reach(3).await;
        let commit = AuditCommit::signed(&seat, &world.network.genesis.chain(), 0, [1; 32]);
        let nodes = vec![between(&world, way, 60).await];
        let sender = Submitter::new(connect(&world, nodes), seat.clone(), Parameters::LOCAL);
        let sent = sender.send(Body::AuditCommit(commit)).await;
        world.reach(world.handles[&0].applied() + 24).await;
        let happened = holds_commitment(&world, &seat).await;
        judge(sent, happened);
    });
}

#[test]
fn what_a_node_refused_and_passed_on_is_not_said_to_be_refused_for_good() {
    commits(Way::SaysNo, |sent, happened| {
        let Err(Error::Undecided { nonce, refusal, .. }) = sent else { panic!("{sent:?}") };
        assert_eq!((nonce, refusal, happened), (None, Some(Code::Balance), true));
    });
}

#[test]
fn a_node_that_withholds_the_receipt_makes_nobody_say_never() {
    commits(Way::Lost, |sent, happened| {
        assert!(happened);
        assert_eq!(sent.expect("a block says so").receipt.code, Code::Done);
    });
}

#[test]
fn a_node_that_withholds_the_blocks_makes_nobody_say_never() {
    commits(Way::Synced, |sent, _| {
        assert!(matches!(sent, Err(Error::Undecided { nonce: None, .. })), "{sent:?}");
    });
}

#[test]
fn never_is_said_when_every_block_up_to_the_expiry_was_looked_through() {
    commits(Way::Keeps, |sent, happened| {
        assert!(matches!(sent, Err(Error::Expired)), "{sent:?}");
        assert!(!happened);
    });
}

/// For operations signed at the same moment with one key, each success is a separate payment.
#[test]
fn equal_payments_of_many_processes_are_as_many_payments() {
    const SENDERS: u64 = 10;
    run(|context| async move {
        let world = world(&context).await;
        let height = world.handles[&0].applied();
        let sends = (0..SENDERS).map(|place| {
            // Each is a process of its own, connected to a node of its own.
            let nodes = endpoints(&world.network);
            let connection = connect(&world, nodes).beginning_at(place as usize);
            let sender = Submitter::new(connection, key(1), Parameters::LOCAL);
            async move { sender.send(pay(3, 1)).await }
        });
        let sent: Vec<Final> = futures::future::join_all(sends)
            .await
            .into_iter()
            .map(|sent| sent.expect("final").done().expect("done"))
            .collect();
        let ids: BTreeSet<_> = sent.iter().map(|sent| sent.id).collect();
        let took = world.handles[&0].applied() - height;
        assert_eq!(ids.len() as u64, SENDERS, "each has an id of its own");
        assert!(took <= 5 * 4, "they took {took} blocks, of which there are four a second");
        assert_eq!(later(&world, 3).await.balance, Amount::sync(SENDERS));
        assert_eq!(later(&world, 1).await.nonce, SENDERS);
    });
}

/// If the proved state refuses a payment, it is refused at once: nothing was signed.
#[test]
fn what_cannot_be_paid_is_refused_before_anything_is_signed() {
    run(|context| async move {
        let world = world(&context).await;
        let connection = connect(&world, endpoints(&world.network));
        let sender = Submitter::new(connection, key(9), Parameters::LOCAL);
        let refused = sender.send(pay(3, 1)).await;
        assert!(matches!(refused, Err(Error::Refused(Code::UnknownAccount))), "{refused:?}");
    });
}

/// Without a quorum no block comes: the wait ends, and the error is not "refused".
#[test]
fn without_a_quorum_a_payment_ends_within_its_bound_and_says_that_it_may_still_happen() {
    run(|context| async move {
        let mut world = world(&context).await;
        world.crash(2);
        world.crash(3);
        let nodes = endpoints(&world.network).into_iter().take(2).collect();
        let connection = connect(&world, nodes);
        let bound = Duration::from_secs(30);
        let sender = Submitter::for_command(connection, key(1), Parameters::LOCAL, None, bound);
        let before = context.current();
        let sent = sender.send(pay(3, 1)).await;
        let took = context.current().duration_since(before).expect("time goes on");
        let Err(Error::Undecided { id, nonce, expires, .. }) = sent else { panic!("{sent:?}") };
        assert!(took < bound * 2, "{took:?}");
        // Once there is a quorum again, the payment does happen.
        world.boot(2).await;
        world.boot(3).await;
        let state = later(&world, 3).await;
        assert_eq!((state.balance, nonce), (Amount::sync(1), Some(0)), "{id:?} {expires}");
    });
}

/// A node whose height stands still is left, even if the client only sends reads.
#[test]
fn a_node_that_withholds_blocks_is_left_by_who_only_reads() {
    run(|context| async move {
        let world = world(&context).await;
        let mut nodes = vec![between(&world, Way::Withholds, 60).await];
        nodes.extend(endpoints(&world.network).into_iter().skip(1));
        let connection = connect(&world, nodes);
        let read =
            || async { connection.read::<System>(System::key()).await.expect("answers").header.height };
        let first = read().await;
        world.reach(first + 40).await;
        read().await;
        let newest = world.handles[&1].applied();
        assert!(read().await + STALE_BLOCKS_MAX >= newest, "it reads an old state for ever");
    });
}

/// The height that was proved once is the minimum from then on, also after a restart.
#[test]
fn a_state_below_what_was_proved_before_is_not_believed() {
    run(|context| async move {
        let world = world(&context).await;
        let withholding = between(&world, Way::Withholds, 60).await;
        let old = connect(&world, vec![withholding.clone()]);
        let seen = old.read::<System>(System::key()).await.expect("answers").header.height;
        world.reach(seen + STALE_BLOCKS_MAX + 8).await;
        let floor = world.handles[&1].applied();
        let restarted = connect(&world, vec![withholding.clone()]);
        restarted.raise_floor(floor);
        let refused = restarted.read::<System>(System::key()).await;
        assert!(matches!(refused, Err(Error::Behind { .. })), "{refused:?}");
        let mut nodes = vec![withholding];
        nodes.extend(endpoints(&world.network).into_iter().skip(1));
        // No floor is remembered, so two nodes are compared.
        let compared = connect(&world, nodes);
        compared.compare().await.expect("answers");
        let height = compared.read::<System>(System::key()).await.expect("answers").header.height;
        assert!(height + STALE_BLOCKS_MAX >= floor, "{height} {floor}");
    });
}

/// A node may be some blocks behind, but nobody is shown the state before the own operation.
#[test]
fn a_read_after_an_own_operation_shows_it() {
    run(|context| async move {
        let world = world(&context).await;
        let mut nodes = vec![between(&world, Way::Withholds, 60).await];
        nodes.extend(endpoints(&world.network));
        let connection = connect(&world, nodes).beginning_at(0);
        let key_of_3 = AccountState::key(&account(3));
        assert!(connection.read::<AccountState>(key_of_3).await.expect("answers").value.is_none());
        let honest = connect(&world, endpoints(&world.network));
        let sender = Submitter::new(honest.clone(), key(1), Parameters::LOCAL);
        let height = sender.send(pay(3, 1)).await.expect("final").done().expect("done").receipt.height;
        assert_eq!(honest.written(), height);
        connection.note_written(height);
        let state: Option<AccountState> = connection.read(key_of_3).await.expect("answers").value;
        assert_eq!(state.expect("it was paid").balance, Amount::sync(1));
        let several = connection.read_from_several(&[key_of_3], 0, 3).await.expect("three honest nodes");
        assert!(several.iter().all(|proof| proof.header.height >= height));
    });
}

/// A node that accepts connections and never answers costs one delay in all, not five seconds a request.
#[test]
fn a_node_that_hangs_is_asked_last() {
    run(|context| async move {
        let world = world(&context).await;
        let hung = SocketAddr::from(([10, 9, 9, 9], 100));
        let mut listener = world.context.child("hung").bind(hung).await.expect("free");
        world.context.child("silent").spawn(move |_| async move {
            let mut taken = Vec::new();
            while let Ok(connection) = listener.accept().await {
                taken.push(connection);
            }
        });
        let mut nodes = vec![Endpoint { account: account(66), address: hung.into() }];
        nodes.extend(endpoints(&world.network).into_iter().skip(1));
        let connection = connect(&world, nodes);
        let start = context.current();
        // Many concurrent tasks switch together, to one node.
        let reads = (0..7).map(|_| connection.read::<System>(System::key()));
        for read in futures::future::join_all(reads).await {
            read.expect("answers");
        }
        let first = context.current().duration_since(start).expect("time goes on");
        assert!(first < Duration::from_millis(2_500), "{first:?}");
        for _ in 0..8 {
            let start = context.current();
            connection.read::<System>(System::key()).await.expect("answers");
            let took = context.current().duration_since(start).expect("time goes on");
            assert!(took < Duration::from_secs(1), "{took:?}");
        }
    });
}

/// Different operations of equal content have different bytes, and all of them decode.
#[test]
fn equal_payments_have_different_bytes() {
    run(|context| async move {
        let world = world(&context).await;
        let connection = connect(&world, endpoints(&world.network));
        let mut ids = BTreeSet::new();
        for _ in 0..3 {
            let sender = Submitter::new(connection.clone(), key(1), Parameters::LOCAL);
            let sent = sender.send(pay(3, 1)).await.expect("final").done().expect("done");
            let header = connection.header(sent.receipt.height).await.expect("kept");
            let body = connection.body(&header).await.expect("kept");
            let operation = &body.operations[sent.receipt.index as usize];
            let bytes = commonware_codec::Encode::encode(operation);
            assert_eq!(&Operation::decode(Copying(&bytes)).expect("canonical"), operation);
            ids.insert((operation.max_fee, operation.expires - header.height));
        }
        assert_eq!(ids.len(), 3, "their offers differ");
    });
}
