//! Agreements that fill up, and a catalogue that is lost.

use super::world::{Context, World, bytes, holders, row, whole};
use crate::{
    catalogue::{
        self,
        row::{Added, Holding},
    },
    coding::SEGMENT_BYTES,
    limits::HOLDINGS_MAX,
};
use commonware_runtime::{Runner as _, Supervisor as _, deterministic};
use posync_consumer::{
    agreements::{Policy, policy::Quota},
    peer::Parcel,
};
use posync_protocol::limits::Parameters;
use std::{collections::BTreeSet, time::Duration};

fn runner() -> deterministic::Runner {
    let config = deterministic::Config::default().with_seed(1).with_timeout(Some(Duration::from_secs(900)));
    deterministic::Runner::new(config)
}

fn run<Fut: Future<Output = ()>>(work: impl FnOnce(Context) -> Fut) {
    runner().start(work);
}

#[test]
fn a_file_is_read_back_after_the_catalogue_was_destroyed_and_restored() {
    let plain = bytes(SEGMENT_BYTES / 16, 3);
    let ((), checkpoint) = runner().start_and_recover(|context| {
        let plain = plain.clone();
        async move {
            let world = World::start(&context).await;
            world.put("file", &plain).await.expect("stored");
            world.until("eight holders", async |w| whole(w, "file").await).await;
        }
    });
    let (backup, checkpoint) =
        deterministic::Runner::from(checkpoint).start_and_recover(|context| async move {
            let mut out = Vec::new();
            catalogue::backup(context.child("backup"), "gateway", &mut out).await.expect("it is sound");
            catalogue::erase(&context, "gateway").await.expect("goes");
            out
        });
    deterministic::Runner::from(checkpoint).start(|context| async move {
        let restored = catalogue::restore(context.child("restore"), "gateway", || Ok(&backup[..])).await;
        assert_eq!(restored.expect("it is whole").files, 1);
        let world = World::start(&context).await;
        assert!(world.get("file").await.expect("its key and its holders are known") == plain);
    });
}

/// Three files in a row are each larger than all room when they begin, and are then read several times:
/// other agreements open in time beside those that are full or whose egress is spent.
#[test]
fn files_larger_than_all_room_are_taken_one_after_another_and_read_many_times() {
    run(|context| async move {
        let world = World::start_with(&context, 1 << 11, 2 << 20).await;
        let mut policy = Policy::of(&Parameters::LOCAL);
        policy.first = Quota { leaves: 1 << 11, egress: 2 << 20 };
        policy.most = Quota { leaves: 1 << 14, egress: 1 << 30 };
        world.open_by(policy);
        let plain = |file: u64| bytes(3 * SEGMENT_BYTES, file);
        for file in 0..3 {
            let put = world.put(&format!("file {file}"), &plain(file)).await;
            put.unwrap_or_else(|error| panic!("file {file} is refused: {error}"));
        }
        for turn in 0..5 {
            let read = world.get(&format!("file {}", turn % 3)).await;
            let read = read.unwrap_or_else(|error| panic!("read {turn}: {error}"));
            assert!(read == plain(turn % 3), "read {turn}");
        }
    });
}

/// A provider counts shards that the gateway does not: its refusal closes the agreement for a while, and
/// the shard is stored under another one.
#[test]
fn an_agreement_that_its_provider_calls_full_is_passed_over() {
    run(|context| async move {
        let world = World::start_with(&context, 4 << 10, 1 << 30).await;
        let full: Vec<usize> = (0..10).collect();
        // Each provider holds unsigned shards that the gateway does not know.
        for index in full {
            let provider = &world.providers[index];
            let agreement = world.shared.agreements_with(&provider.account)[0].clone();
            for seed in 0..4 {
                let stray = bytes(1 << 20, 100 + seed);
                let name = *blake3::hash(&stray).as_bytes();
                let parcel = Parcel::new(stray).expect("a shard's size");
                agreement.peer.put(agreement.id, name, &parcel).await.expect("there is room");
            }
        }
        let mut policy = Policy::of(&Parameters::LOCAL);
        policy.first = Quota { leaves: 4 << 10, egress: 1 << 30 };
        world.open_by(policy);
        let plain = bytes(SEGMENT_BYTES, 5);
        world.put("file", &plain).await.expect("others are opened beside those that are full");
        assert!(world.get("file").await.expect("read") == plain);
    });
}

/// A segment whose row takes no more holdings refuses one addition, and the gateway goes on.
#[test]
fn a_full_segment_costs_one_addition_which_is_taken_out_again_and_stops_nobody() {
    run(|context| async move {
        let world = World::start(&context).await;
        let plain = bytes(300_000, 3);
        world.put("file", &plain).await.expect("stored");
        world.until("eight holders", async |w| whole(w, "file").await).await;
        let catalogue = &world.shared.catalogue;
        let file = catalogue.file(b"file".to_vec()).await.expect("runs").expect("there");
        let before = row(&world, "file", 0).await;
        // Copies that wait for removal under agreements whose providers do not answer.
        let waiting = |holdings: &mut Vec<Holding>| {
            let more = (holdings.len()..HOLDINGS_MAX).zip(0..);
            let of = |(_, sequence)| Holding { position: 0, agreement: 4_000, sequence, dropped: true };
            holdings.extend(more.map(of).collect::<Vec<_>>());
        };
        let full = before.with_holdings(waiting).expect("as many as it takes");
        catalogue.place(file.id, 0, full.clone()).await.expect("runs");
        let kept = holders(&world, "file", 0).await.into_iter().map(|(_, account, _)| account).collect();
        let shard = bytes(75_000, 9);
        let rooms = world.shared.rooms(b"one more", 1, shard.len() as u64, &kept, &BTreeSet::new());
        let room = rooms.into_iter().next().expect("two hold nothing");
        let agreement = room.agreement().clone();
        let added = Added {
            file: file.id,
            segment: 0,
            position: 0,
            sequence: 0,
            name: *blake3::hash(&shard).as_bytes(),
            bytes: 75_000,
            moves: true,
        };
        let signed = room.store(added, shard).await.expect("the provider has room").signed().await;
        assert!(!signed, "who added it must not count on it");
        assert_eq!(row(&world, "file", 0).await, full, "what was in force is in force");
        assert!(agreement.with_state(|state| !state.is_live()), "it is to be taken out");
        world.until("it is out", async |_| agreement.with_state(|state| state.is_empty())).await;
        let jobs = async |w: &World| w.shared.catalogue.jobs(0, 9).await.expect("runs").is_empty();
        world.until("no job is left of it", jobs).await;
        assert!(world.get("file").await.expect("read") == plain);
        world.put("another", &plain).await.expect("the gateway goes on");
    });
}
