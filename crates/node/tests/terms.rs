//! An authority that signed two proposals of a view leads no more from the next term on, and is dealt no
//! share any more if four others remain; the others continue.

#[allow(dead_code, reason = "each test file uses its part of what they share")]
mod common;

use common::{Network4, World};
use commonware_codec::{Copying, Decode as _};
use commonware_cryptography::{
    Signer as _,
    bls12381::primitives::sharing::ModeVersion,
    ed25519::{PrivateKey, PublicKey},
};
use commonware_glue::dkg::types::EpochOutcome;
use commonware_runtime::{Runner as _, Supervisor as _, deterministic};
use posync_node::{
    engine::{AUTHORITIES_MAX, EpochInfo, Payload},
    epoch::Secrets,
    handle::Handle,
};
use posync_protocol::{
    Account, Amount, Body, Bounded, Operation, Record as _,
    block::{HEADER_NAMESPACE, Header},
    limits::Parameters,
    operation::{Evidence, Proposals, sign},
    record::Seat,
};
use std::time::Duration;

/// Terms as short as five dealers allow, two in an epoch.
const PARAMETERS: Parameters = Parameters { term_rounds: 4, epoch_rounds: 8, ..Parameters::LOCAL };
const TERM: u64 = PARAMETERS.term_blocks();
/// Index of the authority that signs twice.
const GUILTY: usize = 2;

/// The result of a run: state roots, and the runtime's audit of all its tasks.
type Outcome = (Vec<[u8; 32]>, String);

/// Runs a network twice; both runs must give the same result.
fn twice<F: Future<Output = Vec<[u8; 32]>>>(authorities: u16, story: impl Fn(World) -> F) {
    let run = || -> Outcome {
        let config =
            deterministic::Config::new().with_seed(11).with_timeout(Some(Duration::from_secs(1_200)));
        deterministic::Runner::new(config).start(|context| async {
            let accounts = vec![(account(&reporter().public_key()), Amount::sync(10))];
            let network = Network4::deal(authorities, PARAMETERS, accounts);
            let auditor = context.child("auditor");
            let roots = story(World::start(context, network).await).await;
            (roots, auditor.auditor().state())
        })
    };
    assert_eq!(run(), run());
}

fn reporter() -> PrivateKey {
    PrivateKey::from_seed(1)
}

fn account(key: &PublicKey) -> Account {
    Account::of(key)
}

/// Submits two headers of the guilty authority for one view of term 0, as anyone who saw them could.
async fn report(world: &World) {
    let key = &world.network.nodes[GUILTY].key;
    let honest = world.handles[&0].header(3).await.expect("the block is kept");
    let headers = [1, 2].map(|time_ms| {
        let leader = account(&key.public_key());
        let mut header = Header { leader, time_ms, ..honest.clone() };
        header.signature = sign(key, HEADER_NAMESPACE, &header.signed_bytes());
        header
    });
    let evidence = Evidence::Proposals(Proposals { headers: Bounded::new(headers.to_vec()).expect("two") });
    let (chain, body) = (world.network.genesis.chain(), Body::Evidence(evidence));
    world.network.queue.add(Operation::signed(&reporter(), &chain, 0, Amount::sync(1), 200, body));
}

/// The height at which the guilty authority was jailed.
async fn jailed(world: &World) -> Option<u64> {
    let key = Seat::key(&account(&world.network.nodes[GUILTY].key.public_key()));
    let slot = world.handles[&0].read_unproven(vec![key]).await.remove(0).expect("it has a seat");
    Seat::from_slot(&slot).expect("the record decodes").jailed
}

/// The next term's data in the last block of `term`.
async fn handover(handle: &Handle, term: u64) -> EpochInfo {
    let body = handle.body((term + 1) * TERM - 1).await.expect("the block is kept");
    match Payload::decode_cfg(Copying(&body.dkg), &(AUTHORITIES_MAX, ModeVersion::v0())) {
        Ok(Payload::EpochInfo(info)) => info,
        _ => panic!("the last block of a term names the next"),
    }
}

/// The number of blocks of a term that the guilty authority led.
async fn led(world: &World, term: u64) -> usize {
    let guilty = account(&world.network.nodes[GUILTY].key.public_key());
    let mut count = 0;
    for height in (term * TERM).max(1)..(term + 1) * TERM {
        let header = world.handles[&0].header(height).await.expect("the block is kept");
        count += usize::from(header.leader == guilty);
    }
    count
}

/// Checks that every reshare of the first `terms` succeeded, revealed no share, and kept the network's key.
async fn key_is_kept(world: &World, terms: u64) {
    let handle = &world.handles[&0];
    for term in 0..terms {
        let info = handover(handle, term).await;
        assert_eq!((info.outcome, info.output.revealed().len()), (EpochOutcome::Success, 0), "term {term}");
        assert_eq!(*info.output.public().public(), handle.genesis().network_key());
    }
}

#[test]
fn of_five_one_that_signed_twice_leads_no_more_and_leaves_the_players() {
    twice(5, |mut world| async move {
        let guilty = world.network.nodes[GUILTY].key.public_key();
        world.reach(5).await;
        report(&world).await;
        world.reach(12).await;
        assert!(jailed(&world).await.is_some_and(|height| height < TERM / 2));
        world.reach(3 * TERM + 2).await;
        assert!(led(&world, 0).await > 0, "it led until the term ended");
        for term in 1..3 {
            assert_eq!(led(&world, term).await, 0, "term {term}");
        }
        let handle = &world.handles[&0];
        for term in 0..3 {
            let info = handover(handle, term).await;
            for (key, entry) in info.directory.0.iter_pairs() {
                assert_eq!(entry.weight, u64::from(*key != guilty), "term {term}");
            }
            let members = [info.output.players(), &info.players, &info.next_players]
                .map(|set| (set.len(), set.position(&guilty).is_some()));
            let (in_, out) = ((5, true), (4, false));
            let expected = [[in_, in_, out], [in_, out, out], [out, out, out]][term as usize];
            assert_eq!(members, expected, "signers, players and next players after term {term}");
        }

        // Without the guilty one, an honest authority may be away, and it returns.
        world.crash(GUILTY);
        world.crash(1);
        world.reach(3 * TERM + 20).await;
        world.boot(1).await;
        world.reach(5 * TERM + 2).await;
        key_is_kept(&world, 3).await;
        assert_eq!(handover(&world.handles[&0], 4).await.outcome, EpochOutcome::Success);

        // It restarts on its disk: it answers from there, harms no one, and no one waits for it.
        world.boot(GUILTY).await;
        let alone = world.handles.remove(&GUILTY).expect("it runs");
        assert!(alone.applied() >= 3 * TERM);
        world.reach(5 * TERM + 20).await;
        world.roots(5 * TERM + 20).await
    });
}

#[test]
fn of_four_all_keep_their_shares_but_one_leads_no_more() {
    twice(4, |mut world| async move {
        world.reach(5).await;
        report(&world).await;
        // One authority is down while the term ends, and returns: its replay must give the same next term.
        world.reach(TERM - 3).await;
        world.crash(1);
        world.reach(TERM - 2).await;
        world.boot(1).await;
        world.reach(2 * TERM + 2).await;
        assert_eq!((led(&world, 1).await, jailed(&world).await.is_some()), (0, true));
        for term in 0..2 {
            let info = handover(&world.handles[&0], term).await;
            let sizes = [info.output.players(), &info.players, &info.next_players].map(|set| set.len());
            assert_eq!(sizes, [4; 3], "term {term}");
            assert_eq!(*info.output.public().public(), world.handles[&0].genesis().network_key());
        }
        let roots = world.roots(2 * TERM).await;
        assert!(roots.len() == 4 && roots.iter().all(|root| *root == roots[0]));
        roots
    });
}

#[test]
fn whoever_was_given_the_state_by_peers_answers_as_they_do() {
    twice(5, |mut world| async move {
        world.reach(5).await;
        report(&world).await;
        // While the guilty authority still holds a share, it is the one of five whose dealing is missing.
        world.reach(3 * TERM + 2).await;
        world.crash(GUILTY);
        world.crash(3);
        world.network.nodes[3].prefix = "wiped".into();
        world.network.nodes[3].secrets = Secrets::memory();
        world.boot(3).await;
        world.reach(5 * TERM + 5).await;
        for term in [3, 4] {
            let info = handover(&world.handles[&0], term).await;
            assert_eq!((info.outcome, info.output.players().len()), (EpochOutcome::Success, 4));
        }
        assert!(world.network.nodes[3].secrets.has_share(), "it was dealt a share again");
        let roots = world.roots(5 * TERM).await;
        assert!(roots.len() == 4 && roots.iter().all(|root| *root == roots[0]));
        roots
    });
}
