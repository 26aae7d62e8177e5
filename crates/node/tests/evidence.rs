//! Two commitments of one seat for one epoch: found on their way into the mempool or in blocks, submitted by
//! the seat whose turn it is, and never from an account that cannot pay.

#[allow(dead_code, reason = "each test file uses its part of what they share")]
mod common;

use common::{Network4, World, address, serve};
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_runtime::{Clock as _, Runner as _, Supervisor as _, deterministic};
use posync_client::{
    account::Submitter,
    connection::{Connection, Endpoint},
    light::Light,
};
use posync_protocol::{
    Account, Amount, Body, Code,
    limits::Parameters,
    operation::AuditCommit,
    record::{AccountState, Seat},
};
use std::time::Duration;

const LIAR: usize = 1;

fn account(key: &PrivateKey) -> Account {
    Account::of(&key.public_key())
}

/// Deals four authorities; those in `funded` have money.
fn network(funded: &[usize]) -> Network4 {
    let keys: Vec<PrivateKey> =
        Network4::deal(4, Parameters::LOCAL, Vec::new()).nodes.into_iter().map(|node| node.key).collect();
    let funded = funded.iter().map(|index| (account(&keys[*index]), Amount::sync(10))).collect();
    let network = Network4::deal(4, Parameters::LOCAL, funded);
    let same = network.nodes.iter().zip(&keys).all(|(node, key)| account(&node.key) == account(key));
    assert!(same, "one seed, the same keys");
    network
}

fn submitter(world: &World, node: usize) -> Submitter {
    let key = world.network.nodes[LIAR].key.clone();
    let genesis = &world.network.genesis;
    let endpoint = Endpoint {
        account: account(&world.network.nodes[node].key),
        address: address(node, node as u64 + 1).into(),
    };
    let light = Light::new(genesis.chain(), genesis.network_key());
    let (context, over) = (world.context.child("client"), world.context.child("network"));
    let connection = Connection::new(context, over, key.clone(), vec![endpoint], light);
    Submitter::new(connection, key, Parameters::LOCAL)
}

async fn record<R: posync_protocol::Record>(world: &World, key: posync_protocol::Key) -> Option<R> {
    let slot = world.handles[&0].read_unproven(vec![key]).await.remove(0)?;
    Some(R::from_slot(&slot).expect("it decodes"))
}

async fn seats(world: &World) -> Vec<(Seat, AccountState)> {
    let mut seats = Vec::new();
    for node in &world.network.nodes {
        let account = account(&node.key);
        let seat = record(world, Seat::key(&account)).await.expect("every authority has one");
        seats.push((seat, record(world, AccountState::key(&account)).await.unwrap_or_default()));
    }
    seats
}

fn run(funded: &'static [usize], reporter: usize) {
    let config = deterministic::Config::new().with_seed(5).with_timeout(Some(Duration::from_secs(600)));
    deterministic::Runner::new(config).start(|context| async move {
        let world = World::start_serving(context.child("world"), network(funded), serve()).await;
        world.reach(3).await;
        let (chain, key) = (world.network.genesis.chain(), &world.network.nodes[LIAR].key);
        let sender = submitter(&world, 0);
        let commit = |digest| Body::AuditCommit(AuditCommit::signed(key, &chain, 0, [digest; 32]));
        let sent = sender.send(commit(1)).await.expect("it becomes final");
        assert_eq!(sent.receipt.code, Code::Done);
        // A refused commitment is in no block (RD-8), but is evidence as soon as a node has checked it.
        let refused = sender.send(commit(2)).await;
        assert!(refused.is_err(), "{refused:?}");
        while seats(&world).await[LIAR].0.jailed.is_none() {
            assert!(world.handles[&0].applied() < 80, "it is brought within a few rounds");
            world.context.sleep(Duration::from_millis(100)).await;
        }
        world.reach(world.handles[&0].applied() + 40).await;
        let bond = Parameters::LOCAL.seat_bond.grains();
        for (index, (seat, state)) in seats(&world).await.into_iter().enumerate() {
            let lost = if index == LIAR { bond / 20 } else { 0 };
            assert_eq!((seat.bond.grains(), seat.jailed.is_some()), (bond - lost, index == LIAR));
            assert_eq!(state.nonce, 0, "authority {index}: none of it carries a nonce");
            let is_paid = state.balance > Amount::sync(10);
            assert_eq!(is_paid, index == reporter, "authority {index}: a quarter of what was taken");
        }
        for handle in world.handles.values() {
            assert_eq!(handle.accused(), [account(key)]);
        }
    });
}

#[test]
fn two_commitments_are_brought_by_the_next_seat() {
    run(&[0, 1, 2, 3], 2);
}

#[test]
fn a_seat_without_money_leaves_it_to_the_one_after_it() {
    run(&[0, 1, 3], 3);
}
