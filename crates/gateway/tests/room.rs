//! Agreements that fill up, and a catalogue that is lost.

#[allow(dead_code, reason = "other tests use the rest")]
mod world;

use commonware_runtime::{Runner as _, Storage as _, Supervisor as _, deterministic};
use posync_gateway::{
    catalogue,
    coding::SEGMENT_BYTES,
    link::Parcel,
    purse::{Policy, policy::Quota},
};
use posync_protocol::limits::Parameters;
use std::time::Duration;
use world::{Context, World, bytes, whole};

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
            for partition in catalogue::partitions("gateway") {
                let _ = context.remove(&partition, None).await;
            }
            out
        });
    deterministic::Runner::from(checkpoint).start(|context| async move {
        let restored = catalogue::restore(context.child("restore"), "gateway", || Ok(&backup[..])).await;
        assert_eq!(restored.expect("it is whole").files, 1);
        let world = World::start(&context).await;
        assert!(world.get("file").await.expect("its key and its holders are known") == plain);
    });
}

/// Three files in a row, each larger than all the room that there is when it begins, then read again and
/// again: agreements that fill up, and whose egress is spent, are joined by others in time.
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

/// A provider counts what the gateway has given up: its refusal closes the agreement for a while, and the
/// shard is taken under another one.
#[test]
fn an_agreement_that_its_provider_calls_full_is_passed_over() {
    run(|context| async move {
        let world = World::start_with(&context, 4 << 10, 1 << 30).await;
        let full: Vec<usize> = (0..10).collect();
        // The provider holds shards that were never signed for: the gateway knows of none.
        for index in full {
            let provider = &world.providers[index];
            let deed = world.core.deeds_with(&provider.account)[0].clone();
            for seed in 0..4 {
                let stray = bytes(1 << 20, 100 + seed);
                let name = *blake3::hash(&stray).as_bytes();
                let parcel = Parcel::new(stray).expect("a shard's size");
                deed.link.put(deed.agreement, name, &parcel).await.expect("there is room");
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
