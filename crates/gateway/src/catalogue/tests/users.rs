//! Things that a user can do to the catalogue: long puts that store little, many jobs, names that read as rows.

use super::*;
use crate::limits::JOBS_PER_ACCOUNT;

/// A put of any length that stores two segments leaves a job of two: a start, the reaper and a backup walk no
/// more.
#[test]
fn a_put_that_announces_much_and_stores_little_leaves_little_to_walk() {
    let id: FileId = [5; 16];
    let ((), checkpoint) = Runner::default().start_and_recover(|context| async move {
        let started = start(context.child("catalogue"), "test", [9; 32]).await;
        let (catalogue, _, handle) = started.expect("opens");
        catalogue.begin(id, Claim::default()).await.expect("runs").expect("room");
        // Segments are placed in any order.
        catalogue.place(id, 2, segment_row()).await.expect("runs");
        catalogue.place(id, 0, segment_row()).await.expect("runs");
        let jobs = catalogue.jobs(0, 9).await.expect("runs");
        assert_eq!(jobs.iter().map(|(_, job)| job.segments).collect::<Vec<_>>(), [3]);
        drop(catalogue);
        handle.await.expect("ends").expect("no disk error");
    });
    Runner::from(checkpoint).start(|context| async move {
        let started = start(context.child("catalogue"), "test", [9; 32]).await;
        let (_, loaded, _disk) = started.expect("opens");
        assert_eq!(loaded.contents.jobs.iter().map(|(_, job)| job.segments).collect::<Vec<_>>(), [3]);
    });
}

/// A job of before its count was kept names what its put announced. The first start counts it.
#[test]
fn an_older_job_that_announces_much_is_counted_once() {
    let id: FileId = [5; 16];
    Runner::default().start(|context| async move {
        let (catalogue, _, handle) = start(context.child("fill"), "test", [9; 32]).await.expect("opens");
        let job = catalogue.begin(id, Claim::default()).await.expect("runs").expect("room");
        catalogue.place(id, 4, segment_row()).await.expect("runs");
        drop(catalogue);
        handle.await.expect("ends").expect("no disk error");
        let mut store = store::Store::open(context.child("older"), "test").await.expect("opens");
        let older = JobRow { file: id, segments: u32::MAX, owner: Owner::default() };
        store.put(JobRow::key(job), &older);
        store.commit().await.expect("works");
        drop(store);
        let mut copy = Vec::new();
        let held = backup(context.child("backup"), "test", &mut copy).await.expect("it is read");
        let (catalogue, loaded, _disk) = start(context.child("again"), "test", [9; 32]).await.expect("opens");
        let counted = JobRow { segments: 5, ..older };
        assert_eq!(loaded.contents.jobs, [(job, counted)]);
        assert_eq!(catalogue.job(job).await.expect("runs"), Some(counted));
        assert_eq!(held.rows, 4, "the counts, their copy, the job, its segment");
    });
}

#[test]
fn a_user_with_many_jobs_begins_no_put_and_others_do() {
    Runner::default().start(|context| async move {
        let (catalogue, _, _disk) = start(context.child("work"), "test", [9; 32]).await.expect("opens");
        let [one, other] = [1, 2].map(|byte| Owner(Some(Account([byte; 32]))));
        let claim = |owner| Claim { owner, ..Claim::default() };
        let ids = (0..JOBS_PER_ACCOUNT).map(|file| {
            let mut id: FileId = [0; 16];
            id[..8].copy_from_slice(&file.to_be_bytes());
            id
        });
        let begun = futures::future::join_all(ids.map(|id| catalogue.begin(id, claim(one)))).await;
        assert!(begun.into_iter().all(|begun| begun.expect("runs").is_ok()));
        let refused = catalogue.begin([7; 16], claim(one)).await.expect("runs");
        assert_eq!(refused, Err(NoRoom::Jobs(JOBS_PER_ACCOUNT)));
        for owner in [other, Owner::default()] {
            assert!(catalogue.begin([8; 16], claim(owner)).await.expect("runs").is_ok(), "{owner:?}");
        }
        let (number, job) = catalogue.jobs(0, 1).await.expect("runs")[0];
        catalogue.job_done(number, job).await.expect("runs");
        assert!(catalogue.begin([7; 16], claim(one)).await.expect("runs").is_ok(), "one is freed");
    });
}

/// A provider signs for a shard of a put that went away: the shard has a job of one segment, wherever in its
/// file it was.
#[test]
fn a_shard_that_is_signed_late_leaves_little_to_walk() {
    Runner::default().start(|context| async move {
        let (catalogue, _, _disk) = start(context.child("work"), "test", [9; 32]).await.expect("opens");
        catalogue.add_agreement(agreement_row(0, 1)).await.expect("runs");
        let late = Added { segment: 1 << 19, ..added([5; 16], 3, 7) };
        let orphans =
            catalogue.agreed(agreed(0, 1, vec![late], vec![])).await.expect("runs").expect("its own");
        let [stray] = orphans[..] else { panic!("one is given up: {orphans:?}") };
        assert_eq!(Added { file: late.file, segment: late.segment, ..stray }, late);
        let jobs = catalogue.jobs(0, 9).await.expect("runs");
        assert_eq!(jobs, [(0, JobRow { file: stray.file, segments: 1, owner: Owner::default() })]);
        let row = catalogue.segment(stray.file, 0).await.expect("runs").expect("until its job is done");
        assert_eq!(row.holdings.len(), 1);
    });
}

/// A change of the log as a user can write it into a file's name: `tag` and its fields, with their length.
fn logged(tag: u8, fields: &[&[u8]]) -> Vec<u8> {
    let mut change = vec![tag];
    for field in fields {
        change.push(u8::try_from(field.len()).expect("short"));
        change.extend_from_slice(field);
    }
    change.insert(0, u8::try_from(change.len()).expect("short"));
    change
}

/// Names that read as changes: of rows without a key, of the secret of all files, of other rows, and removals.
fn forging_names() -> [Vec<u8>; 4] {
    use commonware_codec::Encode as _;
    let foreign = Meta { master: [66; 32], files: 1, ..Meta::default() }.encode();
    let file = file_row("forged", [66; 16]).encode();
    [
        logged(0xd2, &[b"", b""]),
        [logged(0xd2, &[&Meta::key(), &foreign]), logged(0xd2, &[&Meta::copy(), &foreign])].concat(),
        [logged(0xd2, &[&FileRow::key(0), &file]), vec![3, 0xd3, 0, 0]].concat(),
        [logged(0xd1, &[&FileRow::key(1)]), logged(0xd1, &[&Meta::key()])].concat(),
    ]
}

/// Flips a bit in the middle of page `page` of the newest data file. False if it has no such page before its
/// last two, which may be taken for a torn end.
async fn flip_page<E: Storage>(context: &E, page: u64) -> bool {
    use commonware_runtime::{Blob as _, IoBufs, ReadOptions, WriteOptions};
    const PAGE: u64 = 4096 + 12;
    let [data, ..] = partitions("test");
    let names = context.scan(&data).await.expect("a catalogue has files");
    let (blob, size) = context.open(&data, names.last().expect("one")).await.expect("opens");
    if (page + 3) * PAGE > size {
        return false;
    }
    let at = page * PAGE + PAGE / 2;
    let byte = blob.read_at(at, 1, ReadOptions::default()).await.expect("reads").coalesce();
    let flipped = vec![byte.as_ref()[0] ^ 1];
    blob.write_at(at, IoBufs::from(flipped), WriteOptions::SYNC).await.expect("writes");
    true
}

/// Fills a catalogue with `files` files of names that consist of `change`, and flips a bit in page `page`. Without
/// `indexed` the table's index is gone, too. False if there is no such page.
async fn fill_forging(
    context: &commonware_runtime::deterministic::Context,
    files: u8,
    change: &[u8],
    (page, indexed): (u64, bool),
) -> bool {
    let started = start(context.child("fill"), "test", [9; 32]).await;
    let (catalogue, _, handle) = started.expect("opens");
    for file in 0..files {
        let job = catalogue.begin([file; 16], Claim::default()).await.expect("runs").expect("room");
        catalogue.place([file; 16], 0, segment_row()).await.expect("runs");
        let name = [file].into_iter().chain(change.iter().copied().cycle()).take(1024).collect();
        let row = FileRow { name: Bounded::new(name).expect("short"), ..file_row("", [file; 16]) };
        catalogue.finish(job, row).await.expect("runs").expect("room");
    }
    drop(catalogue);
    handle.await.expect("ends").expect("no disk error");
    if !indexed {
        context.remove(&partitions("test")[1], None).await.expect("it goes");
    }
    flip_page(context, page).await
}

#[test]
fn no_name_of_a_file_is_read_as_rows_wherever_a_page_is_damaged() {
    const FILES: u8 = 24;
    let (mut pages, mut lost) = (0, 0);
    for (kind, change) in forging_names().into_iter().enumerate() {
        for (page, indexed) in (0..).flat_map(|page| [(page, true), (page, false)]) {
            let what =
                format!("name {kind}, page {page}, {}", if indexed { "indexed" } else { "not indexed" });
            let change = change.clone();
            let (flipped, checkpoint) = Runner::default().start_and_recover(|context| async move {
                fill_forging(&context, FILES, &change, (page, indexed)).await
            });
            if !flipped {
                break;
            }
            pages += 1;
            lost += Runner::from(checkpoint).start(|context| async move {
                let started = start(context.child("damaged"), "test", [7; 32]).await;
                let (catalogue, loaded, _disk) = started.unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(loaded.master, [9; 32], "{what}: the secret of all files");
                let all = catalogue.list(vec![]).await.expect("runs");
                assert!(all.iter().all(|file| file.name.len() == 1024), "{what}: a forged row");
                // A page has the rows of three such files, and others begin before it or end behind it. Without an
                // index, those that begin in the next 2 KiB are passed over, too.
                assert!(
                    all.len() + 5 + 2 * usize::from(!indexed) >= usize::from(FILES),
                    "{what}: {} files are left",
                    all.len()
                );
                usize::from(FILES) - all.len()
            });
        }
    }
    assert!(pages > 20 && lost > 10, "{pages} pages, {lost} files lost");
}
