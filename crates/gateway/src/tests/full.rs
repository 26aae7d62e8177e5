//! A gateway whose volume is full but for the reserve.

use super::world::{Context, VOLUME, World, bytes, holders, name_of, whole};
use crate::{
    catalogue::row::Owner,
    coding::SEGMENT_BYTES,
    limits::ACKNOWLEDGE_SHARDS,
    repair::{Notice, state::FoundBy},
    transfer::{self, Error},
};
use commonware_runtime::{Runner as _, deterministic};
use futures::StreamExt as _;
use posync_protocol::wire::gateway::Refusal;
use std::{sync::atomic::Ordering, time::Duration};

/// Free bytes below the reserve of the volume.
const FULL: u64 = VOLUME / 2 - 1;

fn run<Fut: Future<Output = ()>>(work: impl FnOnce(Context) -> Fut) {
    let config = deterministic::Config::default().with_seed(1).with_timeout(Some(Duration::from_secs(900)));
    deterministic::Runner::new(config).start(work);
}

fn is_full(error: &Error) -> bool {
    let text = error.to_string();
    let (why, next) = text.rsplit_once("; ").expect("a refusal says what to do");
    why.contains("takes no new files") && why.contains(&FULL.to_string()) && next.contains("make room")
}

/// Waits until no file is being cleaned up.
async fn tidy(world: &World) {
    let none = async |w: &World| w.shared.catalogue.jobs(0, 9).await.expect("runs").is_empty();
    world.until("nothing is left to be cleaned up", none).await;
}

/// Has the holders of so many positions of the file's first segment lose their shards.
async fn lose(world: &World, file: &str, shards: usize) {
    for (_, account, name) in holders(world, file, 0).await.into_iter().take(shards) {
        let agreement = world.shared.agreements_with(&account)[0].clone();
        let live = agreement.with_state(|state| state.live());
        let of = live.iter().filter(|entry| entry.name == name).map(|entry| entry.sequence);
        let (agreement, sequences) = (agreement.number, of.collect());
        world.shared.notice_surely(Notice::Lost { agreement, sequences, found_by: FoundBy::Read }).await;
    }
}

#[test]
fn a_full_volume_refuses_a_new_file_and_neither_a_read_nor_a_removal_until_there_is_room() {
    run(|context| async move {
        let world = World::start(&context).await;
        let plain = bytes(300_000, 3);
        for name in ["kept", "removed"] {
            world.put(name, &plain).await.expect("stored");
        }
        world.free.store(FULL, Ordering::Relaxed);
        for length in [300_000, 0] {
            let refused = world.put("new", &plain[..length]).await.expect_err("there is no room");
            assert!(is_full(&refused) && refused.kind() == Refusal::Full, "{refused}");
        }
        assert!(world.shared.catalogue.jobs(0, 9).await.expect("runs").is_empty(), "nothing was begun");
        assert!(world.get("kept").await.expect("read") == plain);
        let removed = world.shared.catalogue.remove(b"removed".to_vec()).await.expect("runs");
        assert!(removed.is_some());
        tidy(&world).await;
        world.free.store(VOLUME, Ordering::Relaxed);
        world.put("new", &plain).await.expect("there is room again");
        assert!(world.get("new").await.expect("read") == plain);
    });
}

#[test]
fn a_put_under_way_ends_when_the_volume_fills_and_its_space_comes_back() {
    run(|context| async move {
        let world = World::start(&context).await;
        let plain = bytes(3 * SEGMENT_BYTES, 4);
        world.put("kept", &plain[..1000]).await.expect("stored");
        let free = world.free.clone();
        let pieces = plain.chunks(1 << 20).map(<[u8]>::to_vec).enumerate().map(|(at, piece)| {
            if at == SEGMENT_BYTES >> 20 {
                free.store(FULL, Ordering::Relaxed);
            }
            Ok(piece)
        });
        let pieces = futures::stream::iter(pieces).boxed();
        let put = transfer::put(&world.shared, &world.share, name_of("kept"), plain.len() as u64, pieces);
        let refused = put.await.expect_err("the volume filled");
        assert!(is_full(&refused), "{refused}");
        tidy(&world).await;
        assert!(world.get("kept").await.expect("read") == plain[..1000], "the name keeps its file");
        let usages = world.shared.catalogue.usages().await.expect("runs");
        let (_, usage) =
            usages.into_iter().find(|(owner, _)| *owner == Owner::default()).expect("has a file");
        assert_eq!((usage.files, usage.pending), (1, 0));
    });
}

#[test]
fn on_a_full_volume_repair_waits_while_six_shards_are_left_and_not_below() {
    run(|context| async move {
        let world = World::start(&context).await;
        let plain = bytes(300_000, 5);
        for name in ["waits", "urgent"] {
            world.put(name, &plain).await.expect("stored");
            world.until("eight holders", async |w| whole(w, name).await).await;
        }
        world.free.store(FULL, Ordering::Relaxed);
        let spare = 8 - ACKNOWLEDGE_SHARDS;
        let left = async |w: &World, name: &str| holders(w, name, 0).await.len();
        for name in ["waits", "urgent"] {
            lose(&world, name, spare).await;
            world.until("the loss is known", async |w| left(w, name).await == ACKNOWLEDGE_SHARDS).await;
        }
        world.shared.common.environment.sleep(Duration::from_secs(120)).await;
        assert_eq!(world.shared.repairs_open.load(Ordering::Relaxed), 2, "both wait for room");
        assert_eq!((left(&world, "waits").await, left(&world, "urgent").await), (6, 6));
        lose(&world, "urgent", 1).await;
        // Nobody but the two providers without a shard gets one: three of ten lost theirs.
        world.until("a segment with five is rebuilt", async |w| left(w, "urgent").await == 7).await;
        assert_eq!(left(&world, "waits").await, ACKNOWLEDGE_SHARDS);
        world.free.store(VOLUME, Ordering::Relaxed);
        world.until("the other is rebuilt with room", async |w| whole(w, "waits").await).await;
        for name in ["waits", "urgent"] {
            assert!(world.get(name).await.expect("read") == plain);
        }
    });
}
