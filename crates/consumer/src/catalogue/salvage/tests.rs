//! Damage in a log of several files: each start reads the newest ones twice, and the others once.

use super::*;
use crate::catalogue::Nothing;
use commonware_runtime::{Runner as _, Supervisor as _, tokio};

/// Rows that fill more than three files of the log.
const ROWS: u32 = 50_000;

fn key(number: u32) -> Key {
    place(2, &[&number.to_be_bytes(), &[0; 8]])
}

async fn fill<E: Storage + Clock + Metrics + Spawner>(context: &E) -> Vec<Vec<u8>> {
    let mut store = Store::open(context.child("fill"), "t").await.expect("opens");
    let meta = Meta { master: [9; 32], ..Meta::default() };
    store.put(Meta::key(), &meta);
    store.put(Meta::copy(), &meta);
    for number in 0..ROWS {
        store.put_raw(key(number), number.to_be_bytes().to_vec());
        if store.staged() >= COMMIT_ROWS_MAX {
            store.commit().await.expect("durable");
        }
    }
    store.commit().await.expect("durable");
    let [data, ..] = partitions("t");
    names(context, &data).await.expect("listed")
}

async fn flip<E: Storage>(context: &E, name: &[u8], part: u64) {
    let [data, ..] = partitions("t");
    let (blob, size) = context.open(&data, name).await.expect("opens");
    let at = size / 8 * part;
    let byte = blob.read_at(at, 1, ReadOptions::default()).await.expect("readable").coalesce();
    let flipped = IoBufs::from(vec![byte.as_ref()[0] ^ 4]);
    blob.write_at(at, flipped, WriteOptions::SYNC).await.expect("writable");
}

/// The number of rows that are there.
async fn count<E: Storage + Clock + Metrics + Spawner>(store: &Store<E>) -> u32 {
    let mut count = 0;
    for number in 0..ROWS {
        count += u32::from(store.raw(&key(number)).await.expect("readable").is_some());
    }
    count
}

/// Runs `work` on a real disk, which keeps the noted length of a killed process.
fn on_disk(work: impl AsyncFnOnce(tokio::Context)) {
    let home = tempfile::tempdir().expect("a directory");
    let config = tokio::Config::default().with_storage_directory(home.path());
    tokio::Runner::new(config).start(async move |context| work(context).await);
}

/// Number of changes that were durable.
async fn noted<E: Storage>(context: &E) -> Option<u64> {
    let (_, newest) = Watermark::open(context, &durable_partition("t")).await?;
    newest.map(|(_, changes)| changes)
}

#[test]
fn a_damaged_page_of_any_file_costs_its_rows_alone_and_old_files_are_read_once() {
    for back in 0..3 {
        on_disk(async |context| {
            let files = fill(&context).await;
            assert!(files.len() > 3, "{} files", files.len());
            let hit = files.len() - 1 - back;
            flip(&context, &files[hit], 4).await;
            let is_read = is_damaged(&context, "t", noted(&context).await).await.expect("readable");
            assert_eq!(is_read, back < WRITTEN, "the check before the table reads the files that it may cut");
            let refused = Store::open(context.child("damaged"), "t").await.map(drop);
            let Err(Error::Page(why)) = refused else { panic!("file {hit}: {refused:?}") };
            mend(&context, "t", why).await.expect("the rest is there");
            let store = Store::open(context.child("mended"), "t").await.expect("opens");
            let left = count(&store).await;
            assert!(left < ROWS && left + 400 > ROWS, "file {hit}: {left} rows of {ROWS}");
            let told: Option<Vec<u8>> = store.raw(&place(DAMAGED_PAGES, &[])).await.expect("readable");
            assert!(told.is_some(), "it is told");
        });
    }
}

#[test]
fn a_sound_log_of_several_files_is_no_damage_and_loses_nothing() {
    on_disk(async |context| {
        fill(&context).await;
        let changes = noted(&context).await.expect("noted");
        assert!(changes > u64::from(ROWS), "{changes}");
        assert_eq!(end(&context, "t").await.expect("readable").0.changes, changes, "to the last change");
        let store = Store::open(context.child("again"), "t").await.expect("opens");
        assert_eq!(count(&store).await, ROWS);
    });
}

#[test]
fn a_damaged_salvage_of_a_damaged_log_is_an_error_wherever_the_work_was_interrupted() {
    for (what, gone) in [
        ("nothing is removed but the notes", vec![durable_partition("t")]),
        ("the rows are removed first", partitions("t")[..1].to_vec()),
        ("all is removed", partitions("t").into_iter().chain([durable_partition("t")]).collect()),
    ] {
        on_disk(async |context| {
            let mut store = Store::open(context.child("fill"), "t").await.expect("opens");
            let meta = Meta { master: [9; 32], ..Meta::default() };
            let rows: Rows = [Meta::key(), Meta::copy()].map(|key| (key, meta.encode().to_vec())).into();
            rows.iter().for_each(|(key, row)| store.put_raw(key.clone(), row.clone()));
            store.commit().await.expect("durable");
            // They end on the second page, whose damage looks like a torn end.
            (0..70).for_each(|number| store.put_raw(key(number), vec![1; 90]));
            store.commit().await.expect("durable");
            drop(store);
            let [data, ..] = partitions("t");
            let files = names(&context, &data).await.expect("listed");
            flip(&context, &files[0], 5).await;
            let refused = Store::open(context.child("damaged"), "t").await.map(drop);
            assert!(matches!(refused, Err(Error::Page(_))), "{what}: {refused:?}");
            let (whole, mut flipped) = (encode(&rows), encode(&rows));
            flipped[11] ^= 1;
            write(&context, &salvage("t"), super::ROWS, &flipped).await.expect("writable");
            for partition in &gone {
                remove(&context, partition).await.expect("goes");
            }
            let refused = crate::catalogue::start::<Nothing, _>(context.child("again"), "t", [1; 32]).await;
            let refused = refused.map(drop).expect_err("its rows are in neither place");
            assert!(matches!(refused, Error::Page(_)), "{what}: {refused}");
            // The operator brings back the bytes of the salvage.
            write(&context, &salvage("t"), super::ROWS, &whole).await.expect("writable");
            let opened = crate::catalogue::start::<Nothing, _>(context.child("mended"), "t", [1; 32]).await;
            assert_eq!(opened.expect("the work goes on").loaded.master, [9; 32], "{what}");
        });
    }
}
