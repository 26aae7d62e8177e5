//! The node service end to end: four authorities, real channels, clients that accept only proofs.

#[allow(dead_code, reason = "each test file uses its part of what they share")]
mod common;
#[path = "../../protocol/tests/scenarios/registration.rs"]
mod registration;

use common::{Network4, World, address, serve};
use commonware_codec::Encode as _;
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_runtime::{Clock as _, Runner as _, Spawner as _, Supervisor as _, deterministic};
use futures::{FutureExt as _, future::BoxFuture};
use posync_client::{
    account::Submitter,
    channel::Listen,
    connection::{Connection, Endpoint, Error},
    light::{Light, Subject, SyncProof},
    rpc::{self, Incoming, Server, Service as _},
};
use posync_node::genesis::Genesis;
use posync_protocol::{
    Account, AgreementId, Amount, Body, Bounded, Code, Operation, Record as _, Units,
    ledger::{self, BlockContext},
    limits::{OPERATION_BYTES_MAX, Parameters, REDEEM_VOUCHERS_MAX},
    operation::{Redeem, Redemption, Settle, StorageProof, Transfer, Voucher},
    record::{AccountState, Audit, RoundInfo, System},
    wire::node::{Ask, NodeAnswer, Receipt, Unavailable},
};
use registration::registration;
use std::{net::SocketAddr, time::Duration};

fn key(seed: u64) -> PrivateKey {
    PrivateKey::from_seed(seed)
}

fn account(seed: u64) -> Account {
    Account::of(&key(seed).public_key())
}

/// The endpoints of a freshly started world, starting with `first`.
fn endpoints(network: &Network4, first: usize) -> Vec<Endpoint> {
    let count = network.nodes.len();
    let endpoint = |index: usize| Endpoint {
        account: Account::of(&network.nodes[index].key.public_key()),
        address: address(index, index as u64 + 1).into(),
    };
    (0..count).map(|place| endpoint((first + place) % count)).collect()
}

fn light(genesis: &Genesis) -> Light {
    Light::new(genesis.chain(), genesis.network_key())
}

fn connect(world: &World, endpoints: Vec<Endpoint>) -> Connection {
    let (context, network) = (world.context.child("client"), world.context.child("network"));
    Connection::new(context, network, key(77), endpoints, light(&world.network.genesis))
}

async fn world(context: &deterministic::Context) -> World {
    let accounts = vec![(account(1), Amount::sync(1_000)), (account(2), Amount::sync(1))];
    let network = Network4::deal(4, Parameters::LOCAL, accounts);
    World::start_serving(context.child("world"), network, serve()).await
}

fn run<F: Future<Output = ()>>(test: impl FnOnce(deterministic::Context) -> F) {
    let config = deterministic::Config::new().with_seed(5).with_timeout(Some(Duration::from_secs(600)));
    deterministic::Runner::new(config).start(test);
}

fn pay(to: u64, amount: u64) -> Body {
    Body::Transfer(Transfer { to: account(to), amount: Amount::sync(amount) })
}

async fn state(connection: &Connection, seed: u64) -> Option<AccountState> {
    connection.read(AccountState::key(&account(seed))).await.expect("the network answers").value
}

#[test]
fn money_moves_and_anyone_can_check_it() {
    run(|context| async move {
        let world = world(&context).await;
        let connection = connect(&world, endpoints(&world.network, 0));
        let info = connection.info().await.expect("answers");
        assert_eq!(info.parameters, Parameters::LOCAL);
        assert_eq!(state(&connection, 3).await, None);
        let sender = Submitter::new(connection.clone(), key(1), Parameters::LOCAL);
        let sent = sender.send(pay(3, 5)).await.expect("final").done().expect("done");
        // It appears in the proved state, in the block, in its receipts and in its events.
        assert_eq!(state(&connection, 3).await.expect("exists").balance, Amount::sync(5));
        let header = connection.header(sent.receipt.height).await.expect("kept");
        let body = connection.body(&header).await.expect("kept");
        assert_eq!(body.operations[sent.receipt.index as usize].id(), sent.id);
        let outcome = connection.outcome(sent.receipt.height).await.expect("kept");
        assert_eq!(outcome.value.receipts.rows[sent.receipt.index as usize], (sent.id, Code::Done));
        // The proof can be verified with the network key alone.
        let subject = Subject::of_account::<AccountState>(&account(3));
        let proof = connection.prove(&subject).await.expect("short enough").to_bytes();
        let network_key = world.network.genesis.network_key();
        let verified = SyncProof::verify(&proof, &network_key).expect("verifies");
        assert_eq!(
            verified.record::<AccountState>().expect("an account").map(|a| a.balance),
            Some(Amount::sync(5))
        );
        for byte in 0..proof.len() {
            let mut flipped = proof.clone();
            flipped[byte] ^= 1 << (byte % 8);
            assert!(SyncProof::verify(&flipped, &network_key).is_err(), "byte {byte}");
        }
        // A refused payment is final too, with its code.
        let poor = sender.send(pay(3, 5_000)).await.expect("final");
        assert_eq!(poor.receipt.code, Code::Balance);
        assert!(matches!(poor.done(), Err(Error::Refused(Code::Balance))));
    });
}

#[test]
fn a_quiet_network_pauses_between_blocks_and_an_operation_ends_the_pause() {
    run(|context| async move {
        let accounts = vec![(account(1), Amount::sync(1_000))];
        let mut network = Network4::deal(4, Parameters::LOCAL, accounts);
        network.nodes.iter_mut().for_each(|node| node.quiet_ms = 700);
        let world = World::start_serving(context.child("world"), network, serve()).await;
        let connection = connect(&world, endpoints(&world.network, 0));
        let sender = Submitter::new(connection.clone(), key(1), Parameters::LOCAL);
        let time = async |height| connection.header(height).await.expect("kept").time_ms;
        world.reach(12).await;
        let quiet = time(12).await - time(8).await;
        assert!((4 * 700..4 * 1_000).contains(&quiet), "{quiet} ms for four blocks");
        // Each payment comes into the next block, which waits for no more than the network's pace.
        let mut heights = Vec::new();
        for _ in 0..4 {
            let sent = sender.send(pay(3, 1)).await.expect("final").done().expect("done");
            heights.push(sent.receipt.height);
        }
        for height in heights {
            let pause = time(height).await - time(height - 1).await;
            assert!((250..700).contains(&pause), "{pause} ms before block {height}");
        }
    });
}

#[test]
fn many_operations_of_one_key_become_final_once_each() {
    run(|context| async move {
        let world = world(&context).await;
        let connection = connect(&world, endpoints(&world.network, 1));
        let sender = Submitter::new(connection.clone(), key(1), Parameters::LOCAL);
        let sends = (0..24).map(|_| sender.send(pay(3, 1)));
        for sent in futures::future::join_all(sends).await {
            sent.expect("final").done().expect("done");
        }
        assert_eq!(state(&connection, 3).await.expect("exists").balance, Amount::sync(24));
        assert_eq!(state(&connection, 1).await.expect("exists").nonce, 24);
        // Another process with the same key costs attempts, but no money.
        let second = Submitter::new(connection.clone(), key(1), Parameters::LOCAL);
        let (a, b) = futures::join!(sender.send(pay(4, 1)), second.send(pay(4, 2)));
        a.expect("final").done().expect("done");
        b.expect("final").done().expect("done");
        assert_eq!(state(&connection, 4).await.expect("exists").balance, Amount::sync(3));
    });
}

/// Waits until an operation is final.
async fn receipt(connection: &Connection, operation: &Operation) -> Receipt {
    loop {
        if let Some(receipt) = connection.receipt(&operation.id()).await.expect("answers") {
            return receipt;
        }
    }
}

/// An operation that a lost node had accepted becomes final all the same, and a follower misses no block.
#[test]
fn a_lost_node_loses_nothing() {
    run(|context| async move {
        let mut world = world(&context).await;
        let connection = connect(&world, endpoints(&world.network, 3));
        let mut follow = connection.follow_bodies(1);
        let (first, _) = follow.next().await.expect("the first block");
        assert_eq!(first.height, 1);
        let height = connection.height().await.expect("answers");
        let operation = signed(&world, 1, 0, height, pay(3, 5));
        connection.submit(&operation).await.expect("accepted");
        // The batch leaves at the same moment as the answer; let it reach the others.
        context.sleep(Duration::from_millis(50)).await;
        world.crash(3);
        let receipt = receipt(&connection, &operation).await;
        assert_eq!(receipt.code, Code::Done);
        let (mut found, mut last) = (false, first);
        while last.height < receipt.height + 10 {
            let (header, body) = follow.next().await.expect("goes on");
            assert_eq!((header.height, header.parent), (last.height + 1, last.digest()));
            found |= body.operations.contains(&operation);
            last = header;
        }
        assert!(found, "the body that holds it was followed");
        // With all nodes gone, the caller gets an error.
        (0..3).for_each(|index| world.crash(index));
        let gone = connection.read::<System>(System::key()).await;
        assert!(matches!(gone, Err(Error::Unreachable(_))), "{gone:?}");
    });
}

fn context_at(world: &World, height: u64) -> BlockContext {
    BlockContext {
        chain: world.network.genesis.chain(),
        parameters: Parameters::LOCAL,
        height,
        leader: Account::default(),
        parent: [0; 32],
        seed: None,
    }
}

fn signed(world: &World, seed: u64, nonce: u64, height: u64, body: Body) -> Operation {
    let sign = |fee| {
        let chain = world.network.genesis.chain();
        Operation::signed(&key(seed), &chain, nonce, fee, height + 100, body.clone())
    };
    let base_fee = ledger::floor(&Parameters::LOCAL);
    let fee = ledger::fee(&context_at(world, height), base_fee, &sign(Amount::ZERO));
    sign(fee)
}

/// The lie of a node between the client and an honest node.
#[derive(Clone, Copy, Debug)]
enum Lie {
    Record,
    Absence,
    Body,
    Receipts,
    Parameters,
    SkipsHeaders,
    RepeatsHeaders,
    OldState,
    Accepts,
    Silent,
    Nothing,
}

const LIES: [Lie; 11] = [
    Lie::Record,
    Lie::Absence,
    Lie::Body,
    Lie::Receipts,
    Lie::Parameters,
    Lie::SkipsHeaders,
    Lie::RepeatsHeaders,
    Lie::OldState,
    Lie::Accepts,
    Lie::Silent,
    Lie::Nothing,
];

/// Falsifies an honest answer; `seen` holds the first of its kind.
fn twist(lie: Lie, answer: NodeAnswer, seen: &mut Option<NodeAnswer>) -> Option<NodeAnswer> {
    let first = seen.get_or_insert_with(|| answer.clone()).clone();
    Some(match (lie, answer) {
        (Lie::Record, NodeAnswer::Read(mut read)) => {
            let mut records = read.records.into_inner();
            records.iter_mut().filter_map(|record| record.slot.as_mut()).for_each(|slot| slot[30] ^= 1);
            read.records = Bounded::new(records).expect("as many");
            NodeAnswer::Read(read)
        }
        (Lie::Absence, NodeAnswer::Read(mut read)) => {
            let mut records = read.records.into_inner();
            records.iter_mut().for_each(|record| record.slot = None);
            read.records = Bounded::new(records).expect("as many");
            NodeAnswer::Read(read)
        }
        (Lie::Body, NodeAnswer::Body(mut body)) => {
            body.operations = Bounded::default();
            body.draws = Bounded::new(vec![None; 3]).expect("few");
            NodeAnswer::Body(body)
        }
        (Lie::Receipts, NodeAnswer::Events(mut part)) => {
            part.receipts.rows = Bounded::new(vec![([1; 32], Code::Done)]).expect("few");
            NodeAnswer::Events(part)
        }
        (Lie::Parameters, NodeAnswer::Info(mut info)) => {
            info.chain[0] ^= 1;
            NodeAnswer::Info(info)
        }
        (Lie::SkipsHeaders, NodeAnswer::Certified(mut certified)) => {
            certified.headers = Bounded::new(certified.headers[1..].to_vec()).expect("fewer");
            NodeAnswer::Certified(certified)
        }
        (Lie::RepeatsHeaders, NodeAnswer::Certified(_)) => first,
        (Lie::OldState, NodeAnswer::Read(_)) if matches!(first, NodeAnswer::Read(_)) => first,
        (Lie::Accepts, NodeAnswer::Accepted(_)) => NodeAnswer::Accepted([3; 32]),
        (Lie::Silent, _) => return None,
        (Lie::Nothing, _) => NodeAnswer::Unavailable(Unavailable::Busy),
        (_, honest) => honest,
    })
}

/// Starts a node that forwards requests to an honest one and falsifies the answers.
async fn liar(world: &World, lie: Lie, port: u16) -> Endpoint {
    let honest = endpoints(&world.network, 0)[0].clone();
    let network = world.context.child("network");
    let dialing = world.context.child("behind");
    let own = key(66);
    let client = rpc::Client::<rpc::Node>::dial(dialing, &network, &own, honest.account, honest.address);
    let client = client.await.expect("connects");
    let server = Server::<rpc::Node, _>::new(move |call: Incoming<rpc::Node>, ask| {
        let client = client.clone();
        async move {
            let mut seen = None;
            let mut behind = client.open(ask).await.expect("the honest node lives");
            while let Some(answer) = behind.recv().await {
                match twist(lie, answer, &mut seen) {
                    Some(answer) => drop(call.send(&answer).await),
                    None => futures::future::pending().await,
                }
            }
        }
    });
    let address = SocketAddr::from(([10, 9, 9, 9], port));
    let listen = Listen::new(own.clone(), rpc::Node::NAMESPACE, address);
    server.listen(world.context.child("liar"), &network, listen).await.expect("listens");
    Endpoint { account: account(66), address: address.into() }
}

/// Whatever the first node does, the client ends up with the data that the network certified.
#[test]
fn a_lying_node_is_left() {
    run(|context| async move {
        let world = world(&context).await;
        world.reach(2).await;
        for (turn, lie) in LIES.into_iter().enumerate() {
            let mut nodes = vec![liar(&world, lie, 100 + turn as u16).await];
            nodes.extend(endpoints(&world.network, 1));
            let connection = connect(&world, nodes);
            assert_eq!(
                connection.info().await.expect("answers").chain,
                world.network.genesis.chain(),
                "{lie:?}"
            );
            let mut follow = connection.follow_bodies(1);
            for height in 1..6 {
                let (header, body) = follow.next().await.expect("goes on");
                assert_eq!((header.height, header.body_root), (height, body.root()), "{lie:?}");
            }
            assert_eq!(state(&connection, 99).await, None, "{lie:?}");
            let sender = Submitter::new(connection.clone(), key(1), Parameters::LOCAL);
            sender.send(pay(3, 1)).await.expect("final").done().expect("done");
            let balance = state(&connection, 3).await.expect("exists").balance;
            assert_eq!(balance, Amount::sync(turn as u64 + 1), "{lie:?}");
        }
    });
}

/// Every code that ingress and the mempool give, from an honest operation with one change each.
#[test]
fn refusals_at_the_door() {
    run(|context| async move {
        let world = world(&context).await;
        let connection = connect(&world, endpoints(&world.network, 2));
        world.reach(3).await;
        let height = connection.height().await.expect("answers");
        let honest = |nonce, body| signed(&world, 1, nonce, height, body);
        let change = |change: fn(&mut Operation)| {
            let mut operation = honest(0, pay(3, 1));
            change(&mut operation);
            let chain = world.network.genesis.chain();
            let Operation { nonce, max_fee, expires, body, .. } = operation;
            Operation::signed(&key(1), &chain, nonce, max_fee, expires, body)
        };
        let other_chain = Operation::signed(&key(1), &[1; 32], 0, Amount::sync(1), height + 50, pay(3, 1));
        let storage_proof = storage_proof(2);
        let settle =
            Settle { provider: account(5), index: 0, slots: Bounded::default(), endings: Bounded::default() };
        let mut forged = honest(0, pay(3, 1));
        forged.signature[3] ^= 1;
        let free = |seed: u64, body| signed(&world, seed, 0, height, body);
        let table = [
            ("an expiry that has passed", Code::Expired, change(|o| o.expires = 0)),
            ("an expiry too far ahead", Code::Expired, change(|o| o.expires += 1_000)),
            ("a free operation with a nonce", Code::BadShape, {
                Operation { nonce: 1, ..free(1, Body::Settle(settle.clone())) }
            }),
            ("a forged signature", Code::BadSignature, forged),
            ("another network's signature", Code::BadSignature, other_chain),
            ("a fee too small", Code::FeeAboveMaximum, change(|o| o.max_fee = Amount::ZERO)),
            ("a nonce too far ahead", Code::NonceGap, honest(64, pay(3, 1))),
            ("a fee beyond the balance", Code::Balance, change(|o| o.max_fee = Amount::sync(1_001))),
            ("an account that does not exist", Code::UnknownAccount, signed(&world, 9, 0, height, pay(3, 1))),
            ("a challenge that was not drawn", Code::NotDrawn, free(1, Body::StorageProof(storage_proof))),
            ("upkeep by nobody", Code::UnknownAccount, free(9, Body::Settle(settle))),
        ];
        for (name, code, operation) in table {
            let refused = connection.submit(&operation).await;
            assert!(matches!(refused, Err(Error::Refused(got)) if got == code), "{name}: {refused:?}");
        }
        raw_refusals(&world, honest(0, pay(3, 1))).await;
        // The same operation twice is one; another with the nonce of a waiting one must offer more.
        let (first, second) = (honest(0, pay(3, 1)), honest(0, pay(3, 2)));
        connection.submit(&first).await.expect("accepted");
        connection.submit(&first).await.expect("accepted again");
        let refused = connection.submit(&second).await;
        assert!(matches!(refused, Err(Error::Refused(Code::NonceOld))), "{refused:?}");
        receipt(&connection, &first).await;
        connection.submit(&first).await.expect("accepted: it stands in a block");
        let refused = connection.submit(&second).await;
        assert!(matches!(refused, Err(Error::Refused(Code::NonceOld))), "{refused:?}");
        assert_eq!(state(&connection, 3).await.expect("exists").balance, Amount::sync(1));
    });
}

/// LE-3, BL-5: an answer to a challenge that no block would accept is refused on submission, in whatever
/// form: forty-six of them would fill the room of all free operations. A valid one is accepted right after
/// it.
#[test]
fn an_answer_that_no_block_takes_is_refused_at_the_door() {
    run(|context| async move {
        let world = with_providers(&context).await;
        let connection = connect(&world, endpoints(&world.network, 0));
        let record = async |key| world.handles[&0].read_unproven(vec![key]).await.remove(0);
        let challenge = loop {
            let audit =
                record(Audit::key(&account(1))).await.map(|slot| Audit::from_slot(&slot).expect("whole"));
            if let Some(challenge) = audit.and_then(|audit| audit.challenge) {
                break challenge;
            }
            world.reach(world.handles[&0].applied() + 1).await;
        };
        let round = Parameters::LOCAL.round(challenge.height);
        let anchor = record(RoundInfo::key(round % Parameters::LOCAL.round_ring)).await.expect("it began");
        let anchor = RoundInfo::from_slot(&anchor).expect("whole").anchor;
        let right = StorageProof { anchor, ..storage_proof(challenge.height) };
        // No data is stored, so each of these claims too much or names data that does not exist.
        let wrong = [
            StorageProof { apply: Bounded::new(vec![(0, account(2), 5)]).expect("one"), ..right.clone() },
            StorageProof { anchor: [7; 32], ..right.clone() },
            StorageProof { index: 1, ..right.clone() },
        ];
        for storage_proof in wrong {
            let at = world.handles[&0].applied();
            let operation = signed(&world, 1, 0, at, Body::StorageProof(storage_proof.clone()));
            let got = connection.submit(&operation).await;
            assert!(
                matches!(got, Err(Error::Refused(Code::BadShape | Code::WrongAnchor))),
                "{storage_proof:?}: {got:?}"
            );
            // One storage proof of a provider is tried for each block.
            world.reach(at + 2).await;
        }
        // A wrong one in the same block delays the right one by no more than a block.
        let at = world.handles[&0].applied();
        let wrong = StorageProof { anchor: [8; 32], ..right.clone() };
        let wrong = signed(&world, 1, 0, at, Body::StorageProof(wrong));
        let operation = signed(&world, 1, 0, at, Body::StorageProof(right));
        let (refused, taken) = futures::join!(connection.submit(&wrong), connection.submit(&operation));
        // By its second try the right one may have closed the challenge.
        let codes = [Code::WrongAnchor, Code::NotDrawn, Code::AnsweredAlready];
        assert!(matches!(&refused, Err(Error::Refused(code)) if codes.contains(code)), "{refused:?}");
        taken.expect("a right answer waits");
        assert_eq!(receipt(&connection, &operation).await.code, Code::Done);
    });
}

/// A redemption of as many vouchers as are allowed, all with wrong signatures.
fn bad_redeem(provider: u64) -> Body {
    let bad = |slot| {
        let agreement = AgreementId { provider: account(provider), slot, opened: 1 };
        let voucher = Voucher { agreement, units: Units::egress(1), signature: [7; 64] };
        Redemption { voucher, session_key: account(6), claim: None }
    };
    let vouchers = (0..REDEEM_VOUCHERS_MAX as u32).map(bad).collect();
    Body::Redeem(Redeem { vouchers: Bounded::new(vouchers).expect("as many as there may be") })
}

/// A stranger's operation costs a look-up: its signatures are not checked. A member's operation with a bad
/// carried signature is checked once until the next block, and delays no one else.
#[test]
fn bad_signatures_cost_a_look_up_or_one_try_a_block() {
    run(|context| async move {
        let world = world(&context).await;
        world.reach(2).await;
        let Endpoint { account: peer, address } = endpoints(&world.network, 0)[0].clone();
        let network = world.context.child("network");
        let raw = world.context.child("raw");
        let client = rpc::Client::<rpc::Node>::dial(raw, &network, &key(8), peer, address).await;
        let client = client.expect("connects");
        let height = world.handles[&0].applied();
        let submit = |operation: Operation| {
            let bytes = Bounded::new(operation.encode().to_vec()).expect("may travel");
            client.call(Ask::Submit(bytes))
        };
        let refused = |code| NodeAnswer::Refused(code);
        let mut forged = signed(&world, 9, 0, height, pay(3, 1));
        forged.signature[3] ^= 1;
        assert_eq!(submit(forged).await.expect("answers"), refused(Code::UnknownAccount));
        let stranger = signed(&world, 9, 0, height, bad_redeem(9));
        assert_eq!(submit(stranger).await.expect("answers"), refused(Code::UnknownAccount));
        let mut stale = signed(&world, 1, 64, height, pay(3, 1));
        stale.signature[3] ^= 1;
        assert_eq!(submit(stale).await.expect("answers"), refused(Code::NonceGap));
        // One operation is checked until the next block.
        world.reach(world.handles[&0].applied() + 1).await;
        let before = world.handles[&0].applied();
        let first = submit(signed(&world, 1, 0, height, bad_redeem(1))).await.expect("answers");
        assert_eq!(first, refused(Code::BadSignature));
        let second = submit(signed(&world, 1, 1, height, bad_redeem(1))).await.expect("answers");
        assert_eq!(world.handles[&0].applied(), before, "all in one block's time");
        assert_eq!(second, NodeAnswer::Unavailable(Unavailable::Busy));
        let other = signed(&world, 2, 0, height, pay(3, 1));
        assert!(matches!(submit(other).await.expect("answers"), NodeAnswer::Accepted(_)));
        world.reach(before + 2).await;
        let later = submit(signed(&world, 1, 0, height, bad_redeem(1))).await.expect("answers");
        assert_eq!(later, refused(Code::BadSignature), "the next block forgives");
    });
}

/// Starts a world with two providers, whose keys are 1 and 2.
async fn with_providers(context: &deterministic::Context) -> World {
    let accounts = vec![(account(1), Amount::sync(3_000)), (account(2), Amount::sync(3_000))];
    let network = Network4::deal(4, Parameters::LOCAL, accounts);
    let world = World::start_serving(context.child("world"), network, serve()).await;
    let connection = connect(&world, endpoints(&world.network, 0));
    for seed in [1, 2] {
        let sender = Submitter::new(connection.clone(), key(seed), Parameters::LOCAL);
        let body = Body::RegisterProvider(registration("one", "127.0.0.1:1"));
        sender.send(body).await.expect("final").done().expect("registered");
    }
    world
}

/// An answer to a challenge of the block at `height`.
fn storage_proof(height: u64) -> StorageProof {
    StorageProof { height, ..StorageProof::default() }
}

/// Submits at authority 0, as the holder of the key `caller`.
async fn raw(world: &World, caller: u64) -> impl Fn(Operation) -> BoxFuture<'static, NodeAnswer> {
    let Endpoint { account: peer, address } = endpoints(&world.network, 0)[0].clone();
    let (context, network) = (world.context.child("raw"), world.context.child("network"));
    let client = rpc::Client::<rpc::Node>::dial(context, &network, &key(caller), peer, address).await;
    let client = client.expect("connects");
    move |operation: Operation| {
        let bytes = Bounded::new(operation.encode().to_vec()).expect("may travel");
        let client = client.clone();
        async move { client.call(Ask::Submit(bytes)).await.expect("answers") }.boxed()
    }
}

/// Submits 320 early storage proofs of `flooder` to authority 0 from many callers; then an honest early one of
/// provider 1 must wait for its block, and not be refused.
fn early_flood(flooder: u64, is_signed: bool) {
    run(move |context| async move {
        let world = with_providers(&context).await;
        let height = world.handles[&0].applied();
        let mut floods = Vec::new();
        for caller in 0..8u8 {
            let submit = raw(&world, 100 + u64::from(caller)).await;
            for place in 0..40 {
                let different =
                    StorageProof { anchor: [caller * 30 + place; 32], ..storage_proof(height + 40) };
                let mut flood =
                    signed(&world, flooder, 0, height + u64::from(caller), Body::StorageProof(different));
                flood.signature[0] ^= u8::from(!is_signed);
                floods.push(submit(flood));
            }
        }
        let flood = futures::future::join_all(floods);
        let flood = context.child("flood").spawn(move |_| flood);
        world.reach(height + 4).await;
        let due = world.handles[&0].applied() + 4;
        let submit = raw(&world, 99).await;
        let honest = signed(&world, 1, 0, height, Body::StorageProof(storage_proof(due)));
        assert_eq!(submit(honest).await, NodeAnswer::Refused(Code::NotDrawn), "its block draws nobody");
        assert!(world.handles[&0].applied() >= due, "it is turned away before its block");
        if !is_signed {
            let answers = flood.await.expect("runs");
            assert!(answers.iter().all(|answer| *answer == NodeAnswer::Refused(Code::BadSignature)));
        }
    });
}

#[test]
fn early_storage_proofs_that_nobody_signed_take_no_place_of_honest_ones() {
    early_flood(1, false);
}

#[test]
fn early_storage_proofs_of_one_provider_take_no_place_of_anothers() {
    early_flood(2, true);
}

/// Upkeep is free and reads many records: unsigned upkeep, or that of one account, leaves room for others.
#[test]
fn upkeep_of_one_account_or_that_nobody_signed_leaves_room_for_that_of_others() {
    run(|context| async move {
        let world = with_providers(&context).await;
        let height = world.handles[&0].applied();
        let settle = |slots: u32| {
            let slots = Bounded::new((0..slots).map(|slot| (slot, account(6), 9)).collect()).expect("few");
            Body::Settle(Settle { provider: account(1), index: 0, slots, endings: Bounded::default() })
        };
        for is_signed in [false, true] {
            let (flooder, honest) = (raw(&world, 100).await, raw(&world, 101).await);
            let mut asked = Vec::new();
            for place in 0..40 {
                let mut flood = signed(&world, 1, 0, height + place, settle(64));
                flood.signature[0] ^= u8::from(!is_signed);
                asked.push(flooder(flood));
            }
            asked.push(honest(signed(&world, 2, 0, height, settle(4))));
            let answers = futures::future::join_all(asked).await;
            assert_eq!(answers.last(), Some(&NodeAnswer::Refused(Code::AgreementUnknown)), "{is_signed}");
        }
    });
}

/// Submits bytes that are no operation, or too many, and asks for blocks that do not exist.
async fn raw_refusals(world: &World, operation: Operation) {
    let Endpoint { account: peer, address } = endpoints(&world.network, 0)[0].clone();
    let network = world.context.child("network");
    let context = world.context.child("raw");
    let client = rpc::Client::<rpc::Node>::dial(context, &network, &key(8), peer, address).await;
    let client = client.expect("connects");
    let bytes = operation.encode();
    let large = |length| Bounded::new(vec![0; length]).expect("may travel");
    let longer = Bounded::new([&bytes[..], &[0]].concat()).expect("may travel");
    let shorter = Bounded::new(bytes[..bytes.len() - 1].to_vec()).expect("may travel");
    let table = [
        ("nothing", Ask::Submit(Bounded::default()), NodeAnswer::Refused(Code::Malformed)),
        ("zeros", Ask::Submit(large(300)), NodeAnswer::Refused(Code::Malformed)),
        ("a byte more", Ask::Submit(longer), NodeAnswer::Refused(Code::Malformed)),
        ("a byte less", Ask::Submit(shorter), NodeAnswer::Refused(Code::Malformed)),
        ("too large", Ask::Submit(large(OPERATION_BYTES_MAX + 1)), NodeAnswer::Refused(Code::TooLarge)),
        ("a header to come", Ask::Header(1 << 40), NodeAnswer::Unavailable(Unavailable::NotYet)),
        ("a body to come", Ask::Body(1 << 40), NodeAnswer::Unavailable(Unavailable::NotYet)),
        ("the genesis' body", Ask::Body(0), NodeAnswer::Unavailable(Unavailable::Pruned)),
        ("events to come", Ask::Events(1 << 40), NodeAnswer::Unavailable(Unavailable::NotYet)),
        ("an unknown operation", Ask::Receipt([9; 32]), NodeAnswer::Receipt(None)),
    ];
    for (name, ask, answer) in table {
        assert_eq!(client.call(ask).await.expect("answers"), answer, "{name}");
    }
}
