//! Authorities that lost their storage, their secrets or both, or got an old copy of them: they follow soon,
//! sign nothing a second time, and sign again within three terms.

#[allow(dead_code, reason = "each test file uses its part of what they share")]
mod common;

use common::{Network4, World};
use commonware_runtime::{Clock as _, Runner as _, Storage as _, Supervisor as _, deterministic};
use posync_node::{epoch::Secrets, own_key::Refusal};
use posync_protocol::{
    Account, Record as _,
    limits::Parameters,
    record::Seat,
    rules::{Activation, Rules},
};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

const TERM: u64 = Parameters::LOCAL.term_blocks();

fn runner(seed: u64) -> deterministic::Runner {
    let config = deterministic::Config::new()
        .with_seed(seed)
        .with_start_time(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000))
        .with_timeout(Some(Duration::from_secs(600)));
    deterministic::Runner::new(config)
}

fn network() -> Network4 {
    Network4::deal(4, Parameters::LOCAL, Vec::new())
}

/// A copy of the secrets as they are now, as a backup has it.
fn copy(secrets: &Secrets) -> Secrets {
    let Secrets::Memory(table) = secrets else { panic!("the deterministic runtime keeps them in memory") };
    Secrets::Memory(Arc::new(commonware_utils::sync::Mutex::new(table.lock().clone())))
}

/// The newest height of the authorities other than `index`.
fn height(world: &World, index: usize) -> u64 {
    let others = world.handles.iter().filter(|(other, _)| **other != index);
    others.map(|(_, handle)| handle.applied()).max().expect("others run")
}

fn since(context: &deterministic::Context, moment: SystemTime) -> Duration {
    context.current().duration_since(moment).expect("virtual time does not step")
}

/// Stops another authority and checks that blocks become final: they need the vote of authority 3 then.
async fn is_needed_and_votes(world: &mut World) {
    world.crash(0);
    let goal = height(world, 0) + 20;
    world.reach(goal).await;
    let roots = world.roots(goal).await;
    assert!(roots.len() == 3 && roots.iter().all(|root| *root == roots[0]));
}

async fn nobody_is_slashed(world: &World) {
    let handle = world.handles.values().next().expect("one runs");
    for authority in &world.network.genesis.authorities {
        let slot = handle.read_unproven(vec![Seat::key(&Account::of(&authority.key))]).await.remove(0);
        let seat = Seat::from_slot(&slot.expect("it has a seat")).expect("it decodes");
        assert!(seat.jailed.is_none() && seat.slashed == posync_protocol::Amount::ZERO);
    }
}

/// The parts that authority 3 keeps, and the height at which it loses the rest.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// Without its secrets it takes its state anew as well, which needs a real disk (`damage.rs`).
    storage: bool,
    secrets: bool,
    lost_at: u64,
}

/// Authority 3 is away for a term and loses what `case` says. It follows within a minute, and from three terms
/// later on it votes: the others, one fewer, cannot go on without it. With all that it had it votes at once.
fn follows_and_votes(seed: u64, case: Case) {
    runner(seed).start(move |context| async move {
        let mut world = World::start(context.child("world"), network()).await;
        world.reach(case.lost_at).await;
        world.crash(3);
        if !case.storage {
            world.network.nodes[3].prefix = "another-disk".into();
        }
        if !case.secrets {
            world.network.nodes[3].secrets = Secrets::memory();
        }
        world.reach(case.lost_at + TERM).await;
        let (began, goal) = (context.current(), height(&world, 3) + 4);
        world.boot(3).await;
        world.reach(goal).await;
        assert!(since(&context, began) < Duration::from_secs(60), "{case:?}");
        let is_synced = world.handles[&3].header(5).await.is_none();
        assert_eq!(is_synced, !case.storage, "it fetches a state if it has none: {case:?}");
        if !case.storage {
            world.reach((goal / TERM + 3) * TERM + 2).await;
        }
        assert!(world.network.nodes[3].secrets.has_share(), "{case:?}");
        is_needed_and_votes(&mut world).await;
        nobody_is_slashed(&world).await;
    });
}

#[test]
fn an_authority_with_storage_and_secrets_votes_as_soon_as_it_follows() {
    follows_and_votes(20, Case { storage: true, secrets: true, lost_at: 20 });
}

/// In the first term the only share is the dealt one.
#[test]
fn an_authority_that_lost_its_storage_in_the_first_term_votes_again_within_three_terms() {
    follows_and_votes(22, Case { storage: false, secrets: true, lost_at: 20 });
}

#[test]
fn an_authority_that_lost_its_storage_later_votes_again_within_three_terms() {
    follows_and_votes(23, Case { storage: false, secrets: true, lost_at: TERM + 20 });
}

#[test]
fn an_authority_that_lost_both_votes_again_within_three_terms() {
    follows_and_votes(24, Case { storage: false, secrets: false, lost_at: 20 });
}

/// A backup of the secrets knows an older proposal than the network does. Its authority is refused with both
/// views, and signs again in a later term once its operator has stopped the other.
#[test]
fn a_restored_backup_is_refused_and_signs_in_a_later_term_if_the_other_was_stopped() {
    runner(30).start(|context| async move {
        let mut world = World::start(context.child("world"), network()).await;
        world.reach(TERM + 4).await;
        let backup = copy(&world.network.nodes[3].secrets);
        world.reach(TERM + 24).await;
        world.crash(3);
        let kept = world.network.nodes[3].secrets.proposed().expect("it has led");
        let own = backup.proposed();
        assert!(own < Some(kept), "it led after the backup");
        world.network.nodes[3].secrets = backup;

        for _ in 0..2 {
            world.launch(3);
            let refused = &mut world.running.get_mut(&3).expect("it was started").refused;
            let refusal: Refusal = refused.await.expect("it ends for that reason");
            assert_eq!(refusal.own, own);
            assert!(Some(refusal.seen) > own && refusal.seen <= kept, "{refusal}");
            let text = refusal.to_string();
            let [term, view] = refusal.seen;
            assert!(text.contains(&format!("term {term}, view {view}")), "{text}");
            assert!(
                text.contains("--i-stopped-the-other")
                    && refusal.height.is_none_or(|height| text.contains(&height.to_string()))
            );
            world.running.remove(&3);
        }
        assert_eq!(world.network.nodes[3].secrets.proposed(), own, "it signed nothing");

        world.network.nodes[3].other_stopped = true;
        world.boot(3).await;
        let began = height(&world, 3) / TERM;
        let secrets = world.network.nodes[3].secrets.clone();
        while secrets.wait().is_none() {
            context.sleep(Duration::from_millis(50)).await;
        }
        let from = secrets.wait().expect("it waits").from;
        assert!((began + 1..=began + 2).contains(&from), "the next term, or the one after");
        // Killed while it waits: it goes on waiting, without its operator's word.
        world.crash(3);
        world.network.nodes[3].other_stopped = false;
        world.boot(3).await;
        world.reach(from * TERM - 4).await;
        assert_eq!(secrets.proposed(), own, "it signs nothing in the term in which it came back");
        world.reach(from * TERM + 4).await;
        assert!(secrets.proposed() >= Some([from - 1, u64::MAX]));
        is_needed_and_votes(&mut world).await;
        nobody_is_slashed(&world).await;
    });
}

/// With two of four down nothing becomes final. It does again within ten seconds of the third's return.
#[test]
fn two_of_four_down_stop_finality_and_the_third_brings_it_back_within_ten_seconds() {
    for down in [Duration::from_secs(30), Duration::from_secs(200)] {
        runner(40).start(move |context| async move {
            let mut world = World::start(context.child("world"), network()).await;
            world.reach(12).await;
            world.crash(2);
            world.crash(3);
            context.sleep(Duration::from_secs(5)).await;
            let stood = height(&world, 3);
            context.sleep(down).await;
            assert_eq!(height(&world, 3), stood, "two of four are no quorum");
            let began = context.current();
            world.launch(3);
            while height(&world, 3) < stood + 2 {
                context.sleep(Duration::from_millis(50)).await;
            }
            let took = since(&context, began);
            assert!(took < Duration::from_secs(10), "it took {took:?} after {down:?}");
        });
    }
}

/// The journals of terms that are long final are gone, also in the directory of an authority that came back
/// with new storage.
#[test]
fn journals_of_past_terms_go_also_where_storage_was_lost() {
    runner(50).start(|context| async move {
        let mut world = World::start(context.child("world"), network()).await;
        world.reach(20).await;
        world.crash(3);
        world.network.nodes[3].prefix = "another-disk".into();
        world.reach(TERM + 5).await;
        world.boot(3).await;
        world.reach(4 * TERM + 20).await;
        for (prefix, term, is_kept) in
            [("another-disk", 1, false), ("another-disk", 2, false), ("another-disk", 4, true)]
        {
            let partition = format!("{prefix}-orchestrator_consensus_{term}");
            assert_eq!(world.context.scan(&partition).await.is_ok(), is_kept, "{partition}");
        }
    });
}

/// Three authorities follow new rules from a height on that the fourth does not know: it stops one block before,
/// with its state whole, and goes on as soon as it runs a program that knows them.
#[test]
fn an_unknown_activation_ends_a_node_one_block_before_it() {
    const NEW: [Activation; 1] = [Activation { height: 30, version: 2 }];
    let new = Rules::new(&NEW).expect("it rises");
    runner(60).start(move |context| async move {
        let mut network = network();
        network.nodes[..3].iter_mut().for_each(|node| node.rules = new);
        let mut world = World::start(context.child("world"), network).await;
        for _ in 0..2 {
            let unknown = &mut world.running.get_mut(&3).expect("it was started").unknown;
            let unknown = unknown.await.expect("it ends for that reason");
            assert_eq!((unknown.height, unknown.version, unknown.known, unknown.newest), (30, 2, 1, 1));
            let text = unknown.to_string();
            assert!(text.contains("stops at block 29") && text.contains("knows version 2"), "{text}");
            world.handles.remove(&3);
            world.running.remove(&3);
            world.reach(40).await;
            // The same program ends there again.
            world.launch(3);
        }
        world.running.remove(&3).expect("it was started").task.abort();
        let header = world.handles[&0].header(30).await.expect("the others go on");
        assert_eq!((header.version, world.handles[&0].header(29).await.expect("kept").version), (2, 1));
        world.network.nodes[3].rules = new;
        world.boot(3).await;
        assert!(world.handles[&3].applied() <= 29 || world.handles[&3].header(29).await.is_some());
        world.reach(60).await;
        let roots = world.roots(60).await;
        assert!(roots.len() == 4 && roots.iter().all(|root| *root == roots[0]));
    });
}

/// One clock is an hour ahead or behind: all four go on through two terms at the usual pace, the one with the wrong
/// clock votes, and each knows by how much its own clock differs from the others'.
#[test]
fn a_clock_that_is_an_hour_off_stalls_nobody_and_is_measured_against_the_others() {
    const HOUR: i64 = 3_600;
    for ahead in [HOUR, -HOUR] {
        runner(70).start(move |context| async move {
            let mut network = network();
            network.nodes[3].clock_ahead_ms = ahead * 1_000;
            let mut world = World::start(context.child("world"), network).await;
            let mut own_keys = Vec::new();
            for running in world.running.values_mut() {
                own_keys.push((&mut running.own_key).await.expect("it starts"));
            }
            let began = context.current();
            world.reach(2 * TERM + 10).await;
            let pace = since(&context, began) / (2 * TERM + 10) as u32;
            assert!(pace < Duration::from_millis(2 * Parameters::LOCAL.block_ms), "a block took {pace:?}");
            for (index, own_key) in own_keys.iter().enumerate() {
                let measured = own_key.ahead_of_peers().expect("three others answered");
                let expected = if index == 3 { ahead } else { 0 };
                assert!((measured - expected).abs() <= 1, "authority {index}: {measured} s");
            }
            is_needed_and_votes(&mut world).await;
        });
    }
}
