//! Tests of the shard store against a model, through restarts and power cuts.

use super::*;
use crate::power_cut::{CUTS, Cut, Fuse, power_cut};
use commonware_runtime::{Runner as _, Supervisor as _, deterministic};
use posync_protocol::Account;
use proptest::prelude::*;
use std::collections::BTreeMap;

const CONFIG: fn() -> StoreConfig =
    || StoreConfig { cap_bytes: 64 << 20, pack_bytes: 6_000, ..StoreConfig::for_capacity("t", 0, 0) };

fn agreement(slot: u32) -> AgreementId {
    AgreementId { provider: Account([1; 32]), slot, opened: 5 }
}

/// A shard of `length` bytes that depend on `tag`.
fn shard(tag: u64, length: usize) -> (Hash, Bytes) {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&tag.to_be_bytes()).finalize_xof().fill(&mut bytes);
    (*blake3::hash(&bytes).as_bytes(), bytes.into())
}

#[derive(Clone, Copy, Debug)]
enum PackAction {
    Put(u32, u64, usize),
    Unlink(u32, u64, usize),
    Restart,
}

/// Expected content of the store: the shards with the agreements that hold each.
type Model = BTreeMap<Hash, (Bytes, Vec<AgreementId>)>;

fn model_put(model: &mut Model, holder: AgreementId, shard: Hash, data: Bytes) {
    let entry = model.entry(shard).or_insert((data, vec![]));
    if !entry.1.contains(&holder) {
        entry.1.push(holder);
        entry.1.sort();
    }
}

fn model_unlink(model: &mut Model, holder: AgreementId, shard: Hash) {
    if let Some(entry) = model.get_mut(&shard) {
        entry.1.retain(|known| *known != holder);
        if entry.1.is_empty() {
            model.remove(&shard);
        }
    }
}

async fn check<B: Blob>(store: &Store<B>, model: &Model) {
    for (shard, (data, holders)) in model {
        assert_eq!(&store.get(shard).await.expect("an acknowledged shard is there"), data);
        assert_eq!(&store.holders(shard), holders);
    }
    let lengths = || model.values().map(|(data, _)| u32::try_from(data.len()).expect("small"));
    let expected = Totals {
        shards: model.len() as u64,
        bytes: lengths().map(u64::from).sum(),
        leaves: lengths().map(leaves).sum(),
    };
    assert_eq!(store.totals(), expected);
    assert_eq!(store.page(None, usize::MAX), model.keys().copied().collect::<Vec<_>>());
    assert!(store.damaged(1).is_empty());
}

#[test]
fn a_group_of_puts_costs_one_write_and_one_sync() {
    deterministic::Runner::default().start(|context| async move {
        let fuse = Fuse::after(1_000_000);
        let context = Cut::new(context, fuse.clone());
        let (store, _writer) = Store::open(context.child("store"), CONFIG()).await.expect("opens");
        let before = fuse.left();
        let puts = (0..10).map(|tag| {
            let (name, data) = shard(tag, 100);
            store.put(agreement(0), name, data)
        });
        let done = futures::future::join_all(puts).await;
        assert!(done.iter().all(Result::is_ok));
        assert_eq!(before - fuse.left(), 3, "a write, a sync, and a note of the length without a sync");
        assert_eq!((store.totals().shards, store.held(&agreement(0)).leaves), (10, 10));
    });
}

fn steps() -> impl Strategy<Value = Vec<PackAction>> {
    let length = prop_oneof![Just(0usize), Just(1), Just(1024), Just(1025), 0usize..5000];
    let put = (0u32..3, 0u64..12, length.clone()).prop_map(|(a, t, l)| PackAction::Put(a, t, l));
    let unlink = (0u32..3, 0u64..12, length).prop_map(|(a, t, l)| PackAction::Unlink(a, t, l));
    prop::collection::vec(prop_oneof![6 => put, 4 => unlink, 1 => Just(PackAction::Restart)], 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// put, unlink and restart in any order leave exactly the content of a map, with the right totals.
    #[test]
    fn the_store_is_a_map(steps in steps()) {
        deterministic::Runner::default().start(|context| async move {
            let (mut store, mut writer) = Store::open(context.child("a"), CONFIG()).await.expect("opens");
            let mut model = Model::new();
            let mut lengths = BTreeMap::new();
            for step in steps {
                match step {
                    PackAction::Put(slot, tag, length) => {
                        let length = *lengths.entry(tag).or_insert(length);
                        let (name, data) = shard(tag, length);
                        store.put(agreement(slot), name, data.clone()).await.expect("fits");
                        model_put(&mut model, agreement(slot), name, data);
                    }
                    PackAction::Unlink(slot, tag, length) => {
                        let (name, _) = shard(tag, *lengths.entry(tag).or_insert(length));
                        store.unlink(agreement(slot), &[name]).await.expect("open");
                        model_unlink(&mut model, agreement(slot), name);
                    }
                    PackAction::Restart => {
                        store.close().await.expect("open");
                        writer.await.expect("ends").expect("cleanly");
                        drop(store);
                        (store, writer) = Store::open(context.child("b"), CONFIG()).await.expect("opens");
                    }
                }
            }
            check(&store, &model).await;
        });
    }
}

/// A workload with several files, links, removals and compaction. Returns the acknowledged content, and
/// the last step, which may or may not have happened.
async fn workload(context: Cut<deterministic::Context>) -> (Model, Option<PackAction>) {
    let mut model = Model::new();
    let Ok((store, _writer)) = Store::open(context, CONFIG()).await else { return (model, None) };
    let mut steps: Vec<PackAction> =
        (0..8).map(|tag| PackAction::Put(0, tag, 700 + 40 * tag as usize)).collect();
    steps.extend([PackAction::Put(1, 3, 820), PackAction::Put(1, 4, 860)]);
    steps.extend((0..7).map(|tag| PackAction::Unlink(0, tag, 700 + 40 * tag as usize)));
    steps.extend((20..30).map(|tag| PackAction::Put(2, tag, 900)));
    steps.extend((20..26).map(|tag| PackAction::Unlink(2, tag, 900)));
    steps.extend((30..36).map(|tag| PackAction::Put(2, tag, 1500)));
    for step in steps {
        match step {
            PackAction::Put(slot, tag, length) => {
                let (name, data) = shard(tag, length);
                if store.put(agreement(slot), name, data.clone()).await.is_err() {
                    return (model, Some(step));
                }
                model_put(&mut model, agreement(slot), name, data);
            }
            PackAction::Unlink(slot, tag, length) => {
                let (name, _) = shard(tag, length);
                if store.unlink(agreement(slot), &[name]).await.is_err() {
                    return (model, Some(step));
                }
                model_unlink(&mut model, agreement(slot), name);
            }
            PackAction::Restart => {}
        }
    }
    let _ = store.close().await;
    (model, None)
}

async fn survives(context: deterministic::Context, model: Model, last: Option<PackAction>) {
    let (store, _writer) = Store::open(context.child("after"), CONFIG()).await.expect("recovers");
    let mut model = model;
    match last {
        Some(PackAction::Put(slot, tag, length)) => {
            let (name, data) = shard(tag, length);
            if store.holds(&agreement(slot), &name) {
                model_put(&mut model, agreement(slot), name, data);
            }
        }
        Some(PackAction::Unlink(slot, tag, length)) => {
            let (name, _) = shard(tag, length);
            if !store.holds(&agreement(slot), &name) {
                model_unlink(&mut model, agreement(slot), name);
            }
        }
        _ => {}
    }
    check(&store, &model).await;
    let (name, data) = shard(1_000, 333);
    store.put(agreement(9), name, data.clone()).await.expect("works on");
    model_put(&mut model, agreement(9), name, data);
    check(&store, &model).await;
}

#[test]
fn acknowledged_shards_survive_a_power_cut_at_every_storage_operation() {
    for cut in CUTS {
        let mut operation = 0;
        while !power_cut(operation, cut, workload, |context, (model, last)| survives(context, model, last)) {
            operation += 1;
        }
        assert!(operation > 60, "the workload must reach compaction: {operation} operations");
    }
}

#[test]
fn space_comes_back_and_the_cap_holds() {
    deterministic::Runner::default().start(|context| async move {
        let config = StoreConfig {
            partition: "t".into(),
            pack_bytes: 64 << 10,
            cap_bytes: (16 << 20) + (640 << 10),
            volume: Volume::default(),
        };
        let usable = config.usable_bytes();
        let cap = config.cap_bytes;
        let (store, _writer) = Store::open(context.child("store"), config).await.expect("opens");
        let one = 10_000 + frame::HEADER_BYTES as u64;
        let fit = usable / one;
        for round in 0..3u64 {
            for tag in 0..fit {
                let (name, data) = shard(1_000 * round + tag, 10_000);
                store.put(agreement(0), name, data).await.expect("below the cap");
                assert!(store.file_bytes() <= cap);
            }
            let (name, data) = shard(77_777, 10_000);
            let refused = store.put(agreement(0), name, data).await;
            assert!(matches!(refused, Err(StoreError::Full { .. })), "{refused:?}");
            let names = store.page(None, usize::MAX);
            store.unlink(agreement(0), &names).await.expect("open");
            assert_eq!(store.totals(), Totals::default());
        }
        // One live shard in each file: compaction gathers them.
        let mut kept = vec![];
        for tag in 0..fit {
            let (name, data) = shard(50_000 + tag, 10_000);
            store.put(agreement(1), name, data).await.expect("fits");
            if tag % 6 == 0 {
                kept.push(name)
            } else {
                store.unlink(agreement(1), &[name]).await.expect("open")
            }
        }
        assert!(store.file_bytes() < usable, "{}", store.file_bytes());
        for name in kept {
            store.get(&name).await.expect("moved, not lost");
        }
    });
}

#[test]
fn a_damaged_shard_is_named_and_a_new_put_mends_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = commonware_runtime::tokio::Config::default().with_storage_directory(directory.path());
    let path = directory.path().to_path_buf();
    commonware_runtime::tokio::Runner::new(config).start(|context| async move {
        let (store, _writer) = Store::open(context.child("store"), CONFIG()).await.expect("opens");
        let all: Vec<_> = (0..5).map(|tag| shard(tag, 3_000)).collect();
        for (name, data) in &all {
            store.put(agreement(0), *name, data.clone()).await.expect("fits");
        }
        store.unlink(agreement(0), &[all[4].0]).await.expect("open");
        let extents = extents(&path).expect("readable");
        assert_eq!(extents.len(), 4);
        let hit = extents.iter().find(|extent| extent.shard == all[2].0).expect("listed");
        let mut bytes = std::fs::read(&hit.path).expect("readable");
        let at = usize::try_from(hit.offset).expect("small");
        assert_eq!(&bytes[at..at + 3_000], &all[2].1[..]);
        bytes[at + 7] ^= 1;
        std::fs::write(&hit.path, bytes).expect("writable");
        assert!(matches!(store.get(&all[2].0).await, Err(StoreError::Damaged)));
        assert_eq!(store.damaged(9), [all[2].0]);
        store.put(agreement(0), all[2].0, all[2].1.clone()).await.expect("mends");
        assert_eq!(store.get(&all[2].0).await.expect("whole again"), all[2].1);
        assert!(store.damaged(9).is_empty());
        assert!(matches!(store.get(&[0; 32]).await, Err(StoreError::Unknown)));
    });
}
