//! Four authorities on one thread with one seed: terms, transfers, crashes, restarts.

#[allow(dead_code, reason = "each test file uses its part of what they share")]
mod common;

use common::{Network4, World};
use commonware_codec::{Copying, Decode as _};
use commonware_cryptography::{
    Sha256, Signer as _, bls12381::primitives::sharing::ModeVersion, ed25519, sha256,
};
use commonware_glue::dkg::types::EpochOutcome;
use commonware_parallel::Sequential;
use commonware_runtime::{Clock as _, Runner as _, Storage as _, Supervisor as _, deterministic};
use commonware_storage::{
    mmr,
    qmdb::{
        any::value::FixedEncoding,
        current::ordered::proof::constant::{ExclusionProof, KeyValueProof},
    },
};
use posync_node::{
    engine::{AUTHORITIES_MAX, Payload},
    handle::Handle,
};
use posync_protocol::{
    Account, Amount, Body, Bounded, Code, Key, Operation, Record as _, Slot,
    block::{HEADER_NAMESPACE, Header},
    limits::{OPERATIONS_MAX, Parameters},
    operation::{Evidence, Proposals, Transfer, sign},
    record::{AccountState, Seat},
};
use std::time::Duration;

const TERM: u64 = Parameters::LOCAL.term_blocks();

fn runner(seed: u64) -> deterministic::Runner {
    let config = deterministic::Config::new().with_seed(seed).with_timeout(Some(Duration::from_secs(600)));
    deterministic::Runner::new(config)
}

fn alice() -> ed25519::PrivateKey {
    ed25519::PrivateKey::from_seed(1)
}

fn account(key: &ed25519::PrivateKey) -> Account {
    Account::of(&key.public_key())
}

fn network() -> Network4 {
    Network4::deal(4, Parameters::LOCAL, vec![(account(&alice()), Amount::sync(1_000))])
}

async fn balance(handle: &Handle, account: &Account) -> Option<Amount> {
    let slot = handle.read_unproven(vec![AccountState::key(account)]).await.remove(0)?;
    Some(AccountState::from_slot(&slot).expect("the record decodes").balance)
}

/// Every certificate of three terms verifies under the one network key, and each reshare succeeded.
#[test]
fn terms_reshare_under_one_key() {
    runner(1).start(|mut context| async move {
        let world = World::start(context.child("world"), network()).await;
        world.reach(2 * TERM + 8).await;
        let (handle, mut certified) = (&world.handles[&0], 0);
        for height in 1..=2 * TERM {
            if let Some(finalization) = handle.finalization(height).await {
                assert!(
                    finalization.verify(&mut context, &handle.verifier(), &Sequential),
                    "height {height}"
                );
                certified += 1;
            }
            let header = handle.header(height).await.expect("the block is kept");
            assert_eq!(header.beacon.is_none(), header.parent_view == 0);
        }
        assert!(certified > TERM, "{certified} certificates");
        for last in [TERM - 1, 2 * TERM - 1] {
            let body = handle.body(last).await.expect("the block is kept");
            let payload = Payload::decode_cfg(Copying(&body.dkg), &(AUTHORITIES_MAX, ModeVersion::v0()));
            let Ok(Payload::EpochInfo(info)) = payload else {
                panic!("the last block of a term names the next")
            };
            assert_eq!(info.outcome, EpochOutcome::Success);
            assert_eq!(*info.output.public().public(), handle.genesis().network_key());
        }
    });
}

fn transfer(network: &Network4, nonce: u64, to: Account, amount: Amount) -> Operation {
    let body = Body::Transfer(Transfer { to, amount });
    Operation::signed(&alice(), &network.genesis.chain(), nonce, Amount::sync(1), 200, body)
}

/// True if the proof of a proven read for `key` verifies under `root`.
fn proves(root: [u8; 32], key: Key, slot: Option<Slot>, proof: &[u8]) -> bool {
    const MAX: usize = commonware_storage::merkle::MAX_PROOF_DIGESTS_PER_ELEMENT;
    type Digest = sha256::Digest;
    type Present = KeyValueProof<mmr::Family, Digest, Digest, 32>;
    type Absent = ExclusionProof<mmr::Family, Digest, FixedEncoding<Slot>, Digest, 32>;
    let (key, root): (Digest, Digest) = (key.0.into(), root.into());
    match slot {
        Some(slot) => Present::decode_cfg(Copying(proof), &(MAX, ()))
            .is_ok_and(|proof| proof.verify::<Sha256, FixedEncoding<Slot>>(key, slot, &root)),
        None => Absent::decode_cfg(Copying(proof), &(MAX, (), ()))
            .is_ok_and(|proof| proof.verify::<Sha256>(&key, &root)),
    }
}

/// A transfer moves money; its receipt is kept and the balances are proved against a certified header.
#[test]
fn a_transfer_is_proved() {
    runner(2).start(|mut context| async move {
        let world = World::start(context.child("world"), network()).await;
        let (bob, nobody) = (Account([9; 32]), Account([8; 32]));
        world.network.queue.add(transfer(&world.network, 0, bob, Amount::sync(5)));
        world.reach(12).await;
        let handle = &world.handles[&2];
        assert_eq!(balance(handle, &bob).await, Some(Amount::sync(5)));

        let mut follow = handle.subscribe_finalized(1);
        let receipt = loop {
            let block = follow.next().await.expect("the node runs");
            if let Some((_, code)) = block.outcome.receipts.first() {
                break *code;
            }
        };
        assert_eq!(receipt, Code::Done);

        let keys: Vec<_> = [bob, nobody].iter().map(AccountState::key).collect();
        let read = handle.read(keys.clone()).await.expect("the state is at hand");
        for (key, record) in keys.iter().zip(&read.records) {
            assert!(proves(read.header.state_root, *key, record.slot, &record.proof));
            assert!(!proves([1; 32], *key, record.slot, &record.proof));
        }
        assert!(read.records[0].slot.is_some() && read.records[1].slot.is_none());
        world.reach(handle.applied() + 4).await;
        let (headers, certificate) =
            handle.headers_to_certificate(read.header.height).await.expect("a later block is certified");
        assert!(certificate.verify(&mut context, &handle.verifier(), &Sequential));
        assert_eq!(headers.last().map(|header| header.digest().into()), Some(certificate.proposal.payload));
    });
}

/// A block's worth of operations that no block can hold waits in front of the valid ones.
#[test]
fn what_is_refused_keeps_nothing_out_of_a_block() {
    runner(3).start(|context| async move {
        let world = World::start(context.child("world"), network()).await;
        let (bob, chain) = (Account([9; 32]), world.network.genesis.chain());
        let stranger = ed25519::PrivateKey::from_seed(77);
        for nonce in 0..OPERATIONS_MAX as u64 {
            let body = Body::Transfer(Transfer { to: bob, amount: Amount::sync(1) });
            world.network.queue.add(Operation::signed(&stranger, &chain, nonce, Amount::sync(1), 200, body));
        }
        world.network.queue.add(transfer(&world.network, 0, bob, Amount::sync(5)));
        world.reach(12).await;
        assert_eq!(balance(&world.handles[&2], &bob).await, Some(Amount::sync(5)));
    });
}

async fn seats(handle: &Handle, accounts: &[Account]) -> (u64, Vec<Seat>) {
    let read = handle.read(accounts.iter().map(Seat::key).collect()).await.expect("the state is at hand");
    let seat = |slot: Option<Slot>| Seat::from_slot(&slot.expect("every authority has a seat"));
    let seats = read.records.iter().map(|record| seat(record.slot).expect("the record decodes"));
    (read.header.height, seats.collect())
}

/// The leader of each block earns a credit; a seat that signs two proposals of a view loses bond and credits.
#[test]
fn leaders_earn_credits_until_one_signs_twice() {
    runner(9).start(|context| async move {
        let world = World::start(context.child("world"), network()).await;
        let genesis = &world.network.genesis;
        let accounts: Vec<Account> = genesis.authorities.iter().map(|seat| Account::of(&seat.key)).collect();
        let (handle, key) = (&world.handles[&1], &world.network.nodes[0].key);
        world.reach(20).await;
        let (height, before) = seats(handle, &accounts).await;
        let mut led = vec![0; accounts.len()];
        for height in 1..=height {
            let leader = handle.header(height).await.expect("the block is kept").leader;
            led[accounts.iter().position(|account| *account == leader).expect("a seat")] += 1;
        }
        assert_eq!(before.iter().map(|seat| seat.credits[0]).collect::<Vec<_>>(), led);

        let honest = handle.header(5).await.expect("the block is kept");
        let headers = [1, 2].map(|time_ms| {
            let mut header = Header { leader: account(key), time_ms, ..honest.clone() };
            header.signature = sign(key, HEADER_NAMESPACE, &header.signed_bytes());
            header
        });
        let evidence =
            Evidence::Proposals(Proposals { headers: Bounded::new(headers.to_vec()).expect("two") });
        let body = Body::Evidence(evidence);
        let operation = Operation::signed(&alice(), &genesis.chain(), 0, Amount::sync(1), 200, body);
        world.network.queue.add(operation);
        world.reach(24).await;
        let (_, after) = seats(handle, &accounts).await;
        let guilty = accounts.iter().position(|seat| *seat == account(key)).expect("it has a seat");
        for (index, seat) in after.iter().enumerate() {
            let bond = if index == guilty { 9_500 } else { 10_000 };
            assert_eq!((seat.bond, seat.jailed.is_some()), (Amount::sync(bond), index == guilty));
        }
        world.reach(36).await;
        let (_, later) = seats(handle, &accounts).await;
        assert_eq!(later[guilty].credits, after[guilty].credits, "it leads for nothing");
        assert!(
            later.iter().zip(&after).filter(|(later, after)| later.credits[0] > after.credits[0]).count() > 1
        );
    });
}

/// An authority that was down for half a term reaches the same state again.
#[test]
fn a_crashed_authority_catches_up() {
    runner(3).start(|context| async move {
        let mut world = World::start(context, network()).await;
        world.network.queue.add(transfer(&world.network, 0, Account([9; 32]), Amount::sync(5)));
        world.reach(10).await;
        world.crash(1);
        world.reach(30).await;
        world.boot(1).await;
        world.reach(TERM + 10).await;
        let roots = world.roots(TERM + 5).await;
        assert_eq!(roots.len(), 4);
        assert!(roots.iter().all(|root| *root == roots[0]));
    });
}

/// An authority that lost everything, including its shares, fetches a recent state and follows.
#[test]
fn a_wiped_authority_fetches_the_state() {
    runner(4).start(|context| async move {
        let mut world = World::start(context, network()).await;
        world.network.queue.add(transfer(&world.network, 0, Account([9; 32]), Amount::sync(5)));
        world.reach(10).await;
        world.crash(3);
        world.network.nodes[3].prefix = "wiped".into();
        world.network.nodes[3].secrets = posync_node::epoch::Secrets::memory();
        world.reach(20).await;
        world.boot(3).await;
        world.reach(3 * TERM + 5).await;
        let roots = world.roots(3 * TERM).await;
        assert!(roots.len() == 4 && roots.iter().all(|root| *root == roots[0]));
        assert!(world.network.nodes[3].secrets.has_share(), "it was dealt a share again");
    });
}

/// All authorities stop at once and lose unsynced data; the next run continues at the same height.
#[test]
fn a_power_cut_keeps_the_height() {
    let network = network();
    let (before, checkpoint) = runner(5).start_and_recover({
        let network = network.clone();
        |context| async move {
            let world = World::start(context, network).await;
            world.network.queue.add(transfer(&world.network, 0, Account([9; 32]), Amount::sync(5)));
            world.reach(TERM + 7).await;
            world.roots(TERM).await[0]
        }
    });
    deterministic::Runner::from(checkpoint).start(|context| async move {
        let world = World::start(context, network).await;
        assert!(world.handles.values().any(|handle| handle.applied() >= TERM));
        world.reach(TERM + 15).await;
        assert_eq!(world.roots(TERM).await[0], before);
        let handle = &world.handles[&0];
        assert_eq!(balance(handle, &Account([9; 32])).await, Some(Amount::sync(5)));
        let receipts = handle.outcome(5).await.is_some();
        assert!(receipts, "outcomes survive");
    });
}

/// Power cuts where a term begins, ends and hands over: no height is decided twice.
#[test]
fn power_cuts_around_a_term_end() {
    let network = network();
    let (mut checkpoint, mut kept) = (None, Vec::new());
    for until in [2, TERM / 2, TERM - 1, TERM, TERM + 1, TERM + 6] {
        let runner = checkpoint.map_or_else(|| runner(10), deterministic::Runner::from);
        let network = network.clone();
        let (root, next) = runner.start_and_recover(move |context| async move {
            let world = World::start(context, network).await;
            world.reach(until).await;
            world.roots(until).await[0]
        });
        kept.push((until, root));
        checkpoint = Some(next);
    }
    let checkpoint = checkpoint.expect("there were cuts");
    deterministic::Runner::from(checkpoint).start(|context| async move {
        let world = World::start(context, network).await;
        world.reach(2 * TERM + 1).await;
        for (height, root) in kept {
            assert!(world.roots(height).await.iter().all(|now| *now == root), "height {height}");
        }
    });
}

/// The same seed gives the same history: roots and the runtime's own audit agree.
#[test]
fn a_seed_repeats_itself() {
    let run = |seed| {
        runner(seed).start(|context| async move {
            let mut world = World::start(context.child("world"), network()).await;
            world.network.queue.add(transfer(&world.network, 0, Account([9; 32]), Amount::sync(5)));
            world.reach(8).await;
            world.crash(2);
            world.reach(16).await;
            world.boot(2).await;
            world.reach(30).await;
            (world.roots(30).await, context.auditor().state())
        })
    };
    let (first, second, other) = (run(6), run(6), run(7));
    assert_eq!(first, second);
    assert_ne!(first.1, other.1);
}

/// A proposer whose mempool admits a forged operation cannot get it into the ledger, and does not stop
/// the others.
#[test]
fn a_forged_operation_never_lands() {
    runner(8).start(|context| async move {
        let mut network = network();
        let forger = std::sync::Arc::new(common::Queue::default());
        network.nodes[0].operations = forger.clone();
        let mut forged = transfer(&network, 0, Account([9; 32]), Amount::sync(500));
        forged.signature[5] ^= 1;
        forger.add(forged);
        let world = World::start(context, network).await;
        world.network.queue.add(transfer(&world.network, 0, Account([9; 32]), Amount::sync(5)));
        world.reach(TERM + 5).await;
        assert_eq!(balance(&world.handles[&1], &Account([9; 32])).await, Some(Amount::sync(5)));
    });
}

/// With one authority of four down for good, terms still change.
#[test]
fn three_of_four_go_on() {
    runner(9).start(|context| async move {
        let mut world = World::start(context, network()).await;
        world.reach(5).await;
        world.crash(2);
        world.reach(2 * TERM + 5).await;
        let roots = world.roots(2 * TERM).await;
        assert!(roots.len() == 3 && roots.iter().all(|root| *root == roots[0]));
    });
}

/// An authority that is killed at many points around the ends of terms continues, and its journals of terms
/// that are long final are gone.
#[test]
fn journals_of_past_terms_go_and_no_crash_needs_one() {
    runner(11).start(|context| async move {
        let mut world = World::start(context.child("world"), network()).await;
        let mut next = TERM - 2;
        while next < 2 * TERM + 24 {
            world.reach(next).await;
            world.crash(0);
            world.boot(0).await;
            // Crashes are more frequent around the end of a term and where a journal is removed.
            next += if (next + 3) % TERM < 24 { 3 } else { 12 };
        }
        world.reach(2 * TERM + 24).await;
        let roots = world.roots(2 * TERM).await;
        assert!(roots.iter().all(|root| *root == roots[0]));
        for index in 0..4 {
            let kept = |term: u64| {
                let partition = format!("authority-{index}-orchestrator_consensus_{term}");
                let context = &world.context;
                async move { context.scan(&partition).await.is_ok() }
            };
            assert!(!kept(0).await, "authority {index} keeps what nobody needs");
            assert!(kept(1).await && kept(2).await, "authority {index} keeps what it may need");
        }
    });
}

/// An authority whose volume is nearly full hears and applies nothing new, and serves the data it has; with
/// room again it catches up.
#[test]
fn an_authority_without_room_stands_still_and_serves_and_catches_up() {
    runner(12).start(|context| async move {
        let world = World::start(context.child("world"), network()).await;
        world.reach(10).await;
        let (full, other) = (world.handles[&3].clone(), world.handles[&0].clone());
        full.taking().set(false);
        let stood = full.applied();
        while other.applied() < stood + 40 {
            context.sleep(Duration::from_millis(50)).await;
        }
        assert!(full.applied() <= stood + 16, "it applied {} blocks", full.applied() - stood);
        let height = full.applied();
        assert_eq!(full.header(height).await, other.header(height).await);
        assert!(full.read(vec![AccountState::key(&account(&alice()))]).await.is_ok(), "it answers");
        full.taking().set(true);
        let goal = other.applied() + 4;
        world.reach(goal).await;
        let roots = world.roots(goal).await;
        assert!(roots.iter().all(|root| *root == roots[0]));
    });
}
