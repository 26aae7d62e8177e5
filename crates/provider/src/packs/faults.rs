//! F11: a disk that fails in parts costs a shard, and a full one costs new shards only.

use super::*;
use crate::power_cut::{CUTS, Cut, Fuse, power_cut};
use commonware_runtime::{Runner as _, Supervisor as _, deterministic, tokio};
use posync_protocol::Account;
use std::path::Path;

fn config() -> StoreConfig {
    StoreConfig { cap_bytes: 64 << 20, pack_bytes: 6_000, ..StoreConfig::for_capacity("t", 0, 0) }
}

fn agreement() -> AgreementId {
    AgreementId { provider: Account([1; 32]), slot: 3, opened: 5 }
}

fn shard(tag: u64, length: usize) -> (Hash, Bytes) {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&tag.to_be_bytes()).finalize_xof().fill(&mut bytes);
    (*blake3::hash(&bytes).as_bytes(), bytes.into())
}

async fn fill<B: Blob>(store: &Store<B>, tags: std::ops::Range<u64>) -> Vec<(Hash, Bytes)> {
    let all: Vec<_> = tags.map(|tag| shard(tag, 900)).collect();
    for (name, data) in &all {
        store.put(agreement(), *name, data.clone()).await.expect("fits");
    }
    all
}

async fn missing<B: Blob>(store: &Store<B>, all: &[(Hash, Bytes)]) -> Vec<usize> {
    let mut missing = vec![];
    for (place, (name, data)) in all.iter().enumerate() {
        match store.get(name).await {
            Ok(read) => assert_eq!(&read, data),
            Err(_) => missing.push(place),
        }
    }
    missing
}

fn flip(path: &Path, at: u64) {
    let mut bytes = std::fs::read(path).expect("readable");
    bytes[usize::try_from(at).expect("small")] ^= 1;
    std::fs::write(path, bytes).expect("writable");
}

/// Runs `work` as a process of its own on a real directory.
fn on_disk<F, Fut, T>(directory: &Path, work: F) -> T
where
    F: FnOnce(tokio::Context) -> Fut,
    Fut: Future<Output = T>,
{
    let config = tokio::Config::default().with_storage_directory(directory);
    tokio::Runner::new(config).start(work)
}

#[test]
fn a_shard_that_cannot_be_read_stops_neither_compaction_nor_the_provider() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_path_buf();
    on_disk(directory.path(), |context| async move {
        let (store, _writer) = Store::open(context.child("store"), config()).await.expect("opens");
        let all = fill(&store, 0..60).await;
        let hit = all[2].0;
        let extent = extents(&path).expect("readable").into_iter().find(|extent| extent.shard == hit);
        let extent = extent.expect("listed");
        flip(&extent.path, extent.offset + 9);
        // All but two shards of its file are removed: the file is the first to be compacted, repeatedly.
        for (place, (name, _)) in all.iter().enumerate() {
            if place % 6 > 2 || place > 40 {
                store.unlink(agreement(), &[*name]).await.expect("open");
            }
        }
        let more = fill(&store, 100..160).await;
        let kept: Vec<_> = all
            .iter()
            .enumerate()
            .filter(|(place, _)| place % 6 <= 2 && *place <= 40)
            .map(|(_, one)| one.clone())
            .collect();
        assert_eq!(missing(&store, &kept).await, [2], "it alone");
        assert_eq!(missing(&store, &more).await, [0; 0]);
        assert_eq!(store.damaged(9), [hit], "and it is named");
        assert!(extent.path.exists(), "its file stays");
        // A new put repairs it, and its file is removed in the end.
        store.put(agreement(), hit, all[2].1.clone()).await.expect("mends");
        assert_eq!(missing(&store, &kept).await, [0; 0]);
        store.close().await.expect("open");
    });
}

#[test]
fn a_bad_head_and_a_lost_index_cost_one_shard_and_shorten_no_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_path_buf();
    let all = on_disk(directory.path(), |context| async move {
        let (store, _writer) = Store::open(context.child("store"), config()).await.expect("opens");
        let all = fill(&store, 0..53).await;
        store.close().await.expect("open");
        all
    });
    let hit = extents(&path).expect("readable").into_iter().find(|extent| extent.shard == all[3].0);
    let hit = hit.expect("listed");
    flip(&hit.path, hit.offset - 20);
    let before = std::fs::metadata(&hit.path).expect("there").len();
    std::fs::remove_dir_all(path.join("t-index")).expect("there");
    on_disk(directory.path(), |context| async move {
        let (store, writer) = Store::open(context.child("store"), config()).await.expect("opens");
        assert_eq!(missing(&store, &all).await, [3], "the others are all there");
        store.put(agreement(), all[3].0, all[3].1.clone()).await.expect("fits");
        store.close().await.expect("open");
        writer.await.expect("ends").expect("cleanly");
        drop(store);
        let (store, _writer) = Store::open(context.child("again"), config()).await.expect("opens");
        assert_eq!(missing(&store, &all).await, [0; 0]);
    });
    assert_eq!(std::fs::metadata(&hit.path).expect("there").len(), before, "a sealed file is never cut");
}

/// Bytes of a shard of 900 bytes, put by a consumer that expects a damaged header before them.
fn forged(head: &frame::Frame, data: &[u8]) -> (Hash, Bytes) {
    let mut bytes = [&head.header(), data].concat();
    bytes.resize(900, 7);
    (*blake3::hash(&bytes).as_bytes(), bytes.into())
}

#[test]
fn headers_that_a_consumer_put_into_its_shard_cost_no_shard_of_others_when_its_own_header_is_damaged() {
    use frame::{Frame, Kind};
    let own = agreement();
    // A whole shard that ends in the middle of the next header: of that, the consumer knows how it begins.
    let inner = [&[7; 900 - frame::HEADER_BYTES][..], &frame::MAGIC].concat();
    let name = *blake3::hash(&inner).as_bytes();
    let length = u32::try_from(inner.len()).expect("small");
    let keep = |shard, length| Frame { kind: Kind::Keep, agreement: own, shard, length };
    let small = [7; 40];
    let skips = keep([9; 32], 2_000).header();
    for (what, head, data) in [
        ("it skips two shards", keep([9; 32], 2_000), vec![]),
        ("it ends in a header", keep(name, length), vec![]),
        ("it links a shard", Frame { kind: Kind::Link, agreement: own, shard: [9; 32], length: 0 }, vec![]),
        (
            "a whole shard leads to one that skips",
            keep(*blake3::hash(&small).as_bytes(), 40),
            [&small[..], &skips].concat(),
        ),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().to_path_buf();
        let all = on_disk(directory.path(), |context| async move {
            let (store, _writer) = Store::open(context.child("store"), config()).await.expect("opens");
            let mut all = fill(&store, 0..3).await;
            let (name, data) = forged(&head, &data);
            store.put(own, name, data.clone()).await.expect("fits");
            all.push((name, data));
            all.extend(fill(&store, 4..53).await);
            store.close().await.expect("open");
            all
        });
        let hit = extents(&path).expect("readable").into_iter().find(|extent| extent.shard == all[3].0);
        let hit = hit.expect("listed");
        flip(&hit.path, hit.offset - 20);
        std::fs::remove_dir_all(path.join("t-index")).expect("there");
        on_disk(directory.path(), |context| async move {
            let (store, _writer) = Store::open(context.child("store"), config()).await.expect("opens");
            assert_eq!(missing(&store, &all).await, [3], "{what}");
        });
    }
}

#[test]
fn a_file_that_was_away_is_taken_back_and_nothing_goes_because_the_index_lacks_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_path_buf();
    let all = on_disk(directory.path(), |context| async move {
        let (store, _writer) = Store::open(context.child("store"), config()).await.expect("opens");
        let all = fill(&store, 0..40).await;
        store.close().await.expect("open");
        all
    });
    let first = extents(&path).expect("readable").into_iter().find(|extent| extent.shard == all[0].0);
    let (first, away) = (first.expect("listed").path, path.join("away"));
    std::fs::rename(&first, &away).expect("moved");
    let lost = on_disk(directory.path(), |context| {
        let all = all.clone();
        async move {
            let (store, _writer) = Store::open(context.child("store"), config()).await.expect("opens");
            let lost = missing(&store, &all).await;
            store.close().await.expect("open");
            lost
        }
    });
    assert!(lost.len() > 3, "{lost:?}");
    std::fs::rename(&away, &first).expect("back");
    on_disk(directory.path(), |context| async move {
        let (store, _writer) = Store::open(context.child("store"), config()).await.expect("opens");
        assert_eq!(missing(&store, &all).await, [0; 0]);
        assert!(all.iter().all(|(name, _)| store.holds(&agreement(), name)));
        store.close().await.expect("open");
    });
}

#[test]
fn open_files_are_bounded_however_many_there_are() {
    let directory = tempfile::tempdir().expect("a directory");
    on_disk(directory.path(), |context| async move {
        let (store, _writer) = Store::open(context.child("store"), config()).await.expect("opens");
        let all = fill(&store, 0..400).await;
        assert!(store.shared.lock().present.len() > 50);
        assert_eq!(missing(&store, &all).await, [0; 0]);
        assert!(store.shared.files.open().await <= files::OPEN_MAX);
        let reads = all.iter().map(|(name, _)| store.get(name));
        assert!(futures::future::join_all(reads).await.iter().all(Result::is_ok), "all at once, too");
        store.close().await.expect("open");
    });
}

#[test]
fn a_volume_that_is_away_refuses_puts_damages_no_shard_and_takes_puts_again_when_it_is_back() {
    deterministic::Runner::default().start(|context| async move {
        let fuse = Fuse::after(1_000_000);
        let cut = Cut::new(context.child("cut"), fuse.clone());
        let (store, writer) = Store::open(cut, config()).await.expect("opens");
        let all = fill(&store, 0..300).await;
        assert!(store.shared.lock().present.len() > files::OPEN_MAX);
        fuse.set_away(true);
        let unread = missing(&store, &all).await;
        assert!(!unread.is_empty(), "more files than stay open");
        let one = store.get(&all[unread[0]].0).await;
        assert!(one.as_ref().is_err_and(StoreError::is_away), "{one:?}");
        assert_eq!(store.damaged(10), [] as [Hash; 0], "what cannot be read now is not damaged");
        // Those that fit into the open file are durable there; the next file cannot be made.
        let mut more = vec![];
        let refused = loop {
            let (name, data) = shard(1_000 + more.len() as u64, 900);
            match store.put(agreement(), name, data.clone()).await {
                Ok(()) => more.push((name, data)),
                Err(refused) => break refused,
            }
            assert!(more.len() < 10, "a file holds six");
        };
        assert!(matches!(refused, StoreError::NoSpace(_)), "{refused:?}");
        assert!(refused.to_string().contains("not mounted"), "{refused}");
        // Files without a shard are not removed now, and nobody waits for that in a circle.
        for (name, _) in &all[..50] {
            match store.unlink(agreement(), &[*name]).await {
                Ok(()) | Err(StoreError::NoSpace(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        fuse.set_away(false);
        assert_eq!(missing(&store, &all[50..]).await, [0; 0], "nothing was lost");
        assert_eq!(missing(&store, &more).await, [0; 0], "nor what was acknowledged meanwhile");
        let after = fill(&store, 2_000..2_020).await;
        assert_eq!((missing(&store, &after).await, store.full()), (vec![], None));
        store.close().await.expect("open");
        writer.await.expect("ends").expect("cleanly");
        drop(store);
        let (store, _writer) = Store::open(context.child("again"), config()).await.expect("opens");
        for kept in [&all[50..], &more, &after] {
            assert_eq!(missing(&store, kept).await, [0; 0], "after the next start");
        }
    });
}

#[test]
fn a_read_that_fails_is_damage_only_if_it_fails_again_and_again() {
    deterministic::Runner::default().start(|context| async move {
        let fuse = Fuse::after(1_000_000);
        let cut = Cut::new(context.child("cut"), fuse.clone());
        let (store, _writer) = Store::open(cut, config()).await.expect("opens");
        let all = fill(&store, 0..20).await;
        let names: Vec<Hash> = all.iter().map(|(name, _)| *name).collect();
        // The device is gone for a moment, for readers and for compaction.
        for times in 0..READ_AGAIN {
            fuse.fail_reads(true);
            let read = store.get(&names[3]).await;
            assert!(matches!(&read, Err(error @ StoreError::Unread(_)) if error.is_away()), "{read:?}");
            for _ in 0..times {
                store.read_again().await;
            }
            assert_eq!(store.damaged(9), [] as [Hash; 0], "{times} times is no damage yet");
            fuse.fail_reads(false);
            assert_eq!(missing(&store, &all).await, [0; 0]);
            assert!(store.shared.lock().bad.is_empty());
        }
        // Readers who ask a hundred times decide nothing; a read of the store, now and then, does.
        fuse.fail_reads(true);
        for _ in 0..100 {
            store.get(&names[3]).await.expect_err("it fails");
        }
        assert_eq!(store.damaged(9), [] as [Hash; 0]);
        for _ in 0..READ_AGAIN {
            store.read_again().await;
        }
        assert_eq!(store.damaged(9), [names[3]]);
        let read = store.get(&names[3]).await;
        assert!(matches!(&read, Err(error @ StoreError::Disk(_)) if !error.is_away()), "{read:?}");
        fuse.fail_reads(false);
        assert_eq!(missing(&store, &all).await, [0; 0], "and a read that succeeds ends that, too");
        assert_eq!(store.damaged(9), [] as [Hash; 0]);
        store.close().await.expect("open");
    });
}

#[test]
fn a_full_volume_refuses_puts_goes_on_reading_and_takes_them_again_when_there_is_room() {
    deterministic::Runner::default().start(|context| async move {
        let fuse = Fuse::after(1_000_000);
        let cut = Cut::new(context.child("cut"), fuse.clone());
        let (store, writer) = Store::open(cut, config()).await.expect("opens");
        let before = fill(&store, 0..20).await;
        for round in 0..3u64 {
            fuse.set_full(true);
            for tag in 0..5 {
                let (name, data) = shard(1_000 + tag, 900);
                let refused = store.put(agreement(), name, data).await;
                assert!(matches!(refused, Err(StoreError::NoSpace(_))), "{refused:?}");
                assert!(matches!(store.get(&name).await, Err(StoreError::Unknown)), "it was refused");
            }
            let refused = store.unlink(agreement(), &[before[0].0]).await;
            assert!(matches!(refused, Err(StoreError::NoSpace(_))), "{refused:?}");
            assert!(store.full().is_some() && store.holds(&agreement(), &before[0].0));
            assert_eq!(missing(&store, &before).await, [0; 0], "reading goes on");
            fuse.set_full(false);
            assert!(store.full().is_some(), "a put shows whether writes succeed");
            let after = fill(&store, 100 * (round + 1)..100 * (round + 1) + 20).await;
            assert_eq!((missing(&store, &after).await, store.full()), (vec![], None));
        }
        assert_eq!(store.totals().shards, 80);
        store.close().await.expect("open");
        writer.await.expect("ends").expect("cleanly");
        drop(store);
        let (store, _writer) = Store::open(context.child("again"), config()).await.expect("opens");
        assert_eq!(store.totals().shards, 80);
        assert_eq!(missing(&store, &before).await, [0; 0]);
    });
}

#[test]
fn a_volume_that_is_back_is_noticed_without_a_put_and_without_a_write() {
    use posync_client::volume::{InUse, claim};
    let home = tempfile::tempdir().expect("a directory");
    let [member, volume, elsewhere] = ["member", "volume", "elsewhere"].map(|name| home.path().join(name));
    std::fs::create_dir(&member).expect("made");
    let own = Account([1; 32]);
    claim(&member, &volume, &own, "t").expect("a first start");
    let in_use = InUse::new(&member, &volume, &own, "t").expect("it is there");
    deterministic::Runner::default().start(|context| async move {
        let fuse = Fuse::after(1_000_000);
        let cut = Cut::new(context.child("cut"), fuse.clone());
        let config = config().on(Volume::of(Some(volume.clone()), Some(in_use)));
        let (store, _writer) = Store::open(cut, config).await.expect("opens");
        let before = fill(&store, 0..20).await;
        std::fs::rename(&volume, &elsewhere).expect("unmounted");
        let (name, data) = shard(1_000, 900);
        let refused = store.put(agreement(), name, data).await;
        assert!(matches!(refused, Err(StoreError::NoSpace(_))), "{refused:?}");
        assert!(store.full().is_some_and(|why| why.contains("not mounted")));
        std::fs::rename(&elsewhere, &volume).expect("mounted again");
        let left = fuse.left();
        assert_eq!((store.full(), fuse.left()), (None, left));
        assert_eq!(missing(&store, &before).await, [0; 0]);
        store.close().await.expect("open");
    });
}

/// Durable puts, of which the index notes none after the last rotation.
async fn unlogged(context: Cut<deterministic::Context>) -> Vec<(Hash, Bytes)> {
    let (store, _writer) = Store::open(context, config()).await.expect("opens");
    fill(&store, 0..10).await
}

#[test]
fn no_opening_and_no_read_that_fails_once_at_a_start_costs_an_acknowledged_shard() {
    let (mut nth, mut ended) = (0, false);
    while !ended {
        nth += 1;
        power_cut(1_000_000, CUTS[0], unlogged, |context, mut all| {
            let ended = &mut ended;
            async move {
                let fuse = Fuse::after(1_000_000);
                fuse.fail_packs(nth);
                let (store, writer) = Store::open(Cut::new(context.child("fails"), fuse.clone()), config())
                    .await
                    .expect("opens");
                *ended = fuse.is_pack_failure_due();
                fuse.fail_packs(0);
                all.extend(fill(&store, 100..120).await);
                for (name, _) in &all[10..20] {
                    store.unlink(agreement(), &[*name]).await.expect("open");
                }
                all.drain(10..20);
                store.close().await.expect("open");
                writer.await.expect("ends").expect("cleanly");
                drop(store);
                let (store, _writer) = Store::open(context.child("again"), config()).await.expect("opens");
                assert_eq!(missing(&store, &all).await, [0; 0], "failure {nth}");
                assert!(all.iter().all(|(name, _)| store.holds(&agreement(), name)), "failure {nth}");
            }
        });
    }
    assert!(nth > 5, "openings and reads must have failed: {nth}");
}

#[test]
fn a_bit_flipped_in_the_last_put_of_a_killed_process_costs_that_shard_and_is_told() {
    let layout = 900 + frame::HEADER_BYTES as u64;
    for at in [0, 4, 60, frame::HEADER_BYTES as u64 - 1, frame::HEADER_BYTES as u64, 500, layout - 1] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().to_path_buf();
        let all = on_disk(directory.path(), |context| async move {
            let (store, writer) = Store::open(context.child("store"), config()).await.expect("opens");
            let all = fill(&store, 0..3).await;
            // The process is killed: the index is not synced, nothing is closed.
            writer.abort();
            drop(writer.await);
            all
        });
        let last = extents(&path).expect("readable").into_iter().find(|extent| extent.shard == all[2].0);
        let last = last.expect("listed");
        let (size, head) = (std::fs::metadata(&last.path).expect("there").len(), frame::HEADER_BYTES as u64);
        flip(&last.path, last.offset - head + at);
        on_disk(directory.path(), |context| async move {
            let (store, writer) = Store::open(context.child("store"), config()).await.expect("opens");
            assert_eq!(missing(&store, &all).await, [2], "byte {at}: it alone");
            if at >= head {
                assert_eq!(store.damaged(9), [all[2].0], "byte {at}: it is known by name, so it is reported");
                assert!(store.holds(&agreement(), &all[2].0));
            }
            store.put(agreement(), all[2].0, all[2].1.clone()).await.expect("mends");
            let more = fill(&store, 10..12).await;
            assert_eq!(missing(&store, &all).await, [0; 0]);
            store.close().await.expect("open");
            writer.await.expect("ends").expect("cleanly");
            drop(store);
            let (store, _writer) = Store::open(context.child("again"), config()).await.expect("opens");
            assert_eq!((missing(&store, &all).await, missing(&store, &more).await), (vec![], vec![]));
        });
        assert!(
            std::fs::metadata(&last.path).expect("there").len() >= size,
            "what was durable is not cut off"
        );
    }
}

/// Writes a shard as a new one, durably.
async fn keep<E: commonware_storage::Context>(writer: &mut store::Writer<E>, (name, data): &(Hash, Bytes)) {
    let length = u32::try_from(data.len()).expect("small");
    let frame = frame::Frame { kind: frame::Kind::Keep, agreement: agreement(), shard: *name, length };
    writer.write(vec![(frame, Some(data.clone()))]).await.expect("fits");
}

#[test]
fn a_byte_that_flips_in_the_copy_of_a_moved_shard_costs_nothing_while_the_original_is_there() {
    for at in [0, 9, 899] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().to_path_buf();
        let all: Vec<_> = (0..10).map(|tag| shard(tag, 900)).collect();
        on_disk(directory.path(), async |context| {
            let mut writer = store::Writer::open(context.child("writer"), config()).await.expect("opens");
            for shard in &all {
                keep(&mut writer, shard).await;
            }
            writer.finish().await.expect("noted");
            // The process is killed after the copies are written, and before the file is removed.
            writer.compact(0).await.expect("moves");
        });
        let copy = extents(&path).expect("readable").into_iter().find(|extent| extent.shard == all[2].0);
        let copy = copy.expect("listed");
        assert!(!copy.path.ends_with("00000000"), "the newest copy lies in another file: {:?}", copy.path);
        flip(&copy.path, copy.offset + at);
        on_disk(directory.path(), async |context| {
            let (store, writer) = Store::open(context.child("store"), config()).await.expect("opens");
            assert_eq!((store.damaged(9), missing(&store, &all).await), (vec![], vec![]));
            let more = fill(&store, 20..80).await;
            store.close().await.expect("open");
            writer.await.expect("ends").expect("cleanly");
            drop(store);
            let (store, _writer) = Store::open(context.child("again"), config()).await.expect("opens");
            assert_eq!((missing(&store, &all).await, missing(&store, &more).await), (vec![], vec![]));
        });
    }
}

#[test]
fn a_damaged_shard_that_was_stored_again_is_not_reported() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_path_buf();
    let one = shard(1, 900);
    on_disk(directory.path(), async |context| {
        let mut writer = store::Writer::open(context.child("writer"), config()).await.expect("opens");
        for shard in [&one, &shard(2, 900), &one] {
            keep(&mut writer, shard).await;
        }
    });
    let last = extents(&path).expect("readable").into_iter().find(|extent| extent.shard == one.0);
    let last = last.expect("listed");
    flip(&last.path, last.offset + 9 - 2 * (900 + frame::HEADER_BYTES as u64));
    on_disk(directory.path(), async |context| {
        let (store, _writer) = Store::open(context.child("store"), config()).await.expect("opens");
        assert_eq!((store.damaged(9), missing(&store, &[one]).await), (vec![], vec![]));
    });
}
