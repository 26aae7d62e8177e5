//! A workload with every kind of change, interrupted at any point: acknowledged changes are there, and
//! the change in progress is there as a whole or not at all.

mod users;

use super::{row::*, *};
use crate::{coding::SHARDS, limits::HOLDINGS_MAX};
use commonware_runtime::{
    Runner as _, Supervisor as _,
    deterministic::{Config, FaultConfig, PartialWriteMode, Runner, WriteConfig},
};
use commonware_utils::{Probability, probability};
use posync_protocol::{Account, AgreementId, Amount, Bounded, operation::DataSetClaim};

const STEPS: u64 = 68;

fn agreement(number: u32) -> AgreementId {
    AgreementId { provider: Account([number as u8; 32]), slot: number, opened: 7 }
}

fn agreement_row(number: u32, stage: u8) -> OwnAgreementRow {
    OwnAgreementRow {
        id: agreement(number),
        stage,
        end_epoch: 99,
        quota_leaves: 1 << 21,
        quota_egress: 1 << 30,
        voucher_reserve: Amount::sync(28),
        egress_price: 1,
        rate_egress: Default::default(),
    }
}

fn segment_row() -> SegmentRow {
    let names = (0..SHARDS as u8).map(|i| [i; 32]).collect();
    SegmentRow {
        plain: 1000,
        names: Bounded::new(names).expect("eight"),
        holdings: Bounded::new(vec![]).expect("none"),
    }
}

fn file_row(name: &str, id: FileId) -> FileRow {
    let name = Bounded::new(name.as_bytes().to_vec()).expect("short");
    FileRow { name, id, bytes: 1000, blake3: [1; 32], segments: 1, owner: Owner::default() }
}

fn added(file: FileId, position: u8, sequence: u64) -> Added {
    Added { file, segment: 0, position, sequence, name: [position; 32], bytes: 256, moves: false }
}

fn agreed(number: u32, version: u64, adds: Vec<Added>, removes: Vec<Removed>) -> Agreed {
    let claim = DataSetClaim { agreement: agreement(number), version, root: [0; 32], leaves: 0, bytes: 0 };
    Agreed {
        agreement: number,
        row: SetRow { version, sequence: version * 10 },
        claim: SignedClaim { claim, signature: [2; 64] },
        adds,
        removes,
    }
}

/// The change of number `step`: a cycle of sixteen that puts, replaces, signs, drops, repairs and removes.
async fn change(catalogue: &Catalogue, step: u64) -> Result<(), Stopped> {
    let round = step / 16;
    let id = |n: u64| -> FileId { std::array::from_fn(|i| if i < 8 { (round * 4 + n) as u8 } else { 0 }) };
    match step % 16 {
        0 => drop(catalogue.add_agreement(agreement_row(round as u32, 0)).await?),
        1 => drop(catalogue.begin(id(1), Claim::default()).await?.expect("room")),
        2 => catalogue.place(id(1), 0, segment_row()).await?,
        3 => {
            let adds = (0..6).map(|i| added(id(1), i, u64::from(i))).collect::<Vec<_>>();
            let intent = agreed(round as u32, 1, vec![], vec![]).claim.claim;
            let adds = Bounded::new(adds).expect("six");
            let removes = Bounded::new(vec![]).expect("none");
            catalogue.intend(round as u32, Intent { claim: intent, adds, removes }).await?;
        }
        4 => {
            let adds = (0..6).map(|i| added(id(1), i, u64::from(i))).collect();
            catalogue.agreed(agreed(round as u32, 1, adds, vec![])).await?;
        }
        5 => drop(catalogue.finish(0, file_row("one", id(1))).await?),
        6 => drop(catalogue.begin(id(5), Claim::default()).await?.expect("room")),
        7 => catalogue.place(id(5), 0, segment_row()).await?,
        8 => drop(catalogue.finish(0, file_row("one", id(5))).await?),
        9 => catalogue.drop_holdings(round as u32, agreement(round as u32), vec![added(id(1), 2, 2)]).await?,
        10 => {
            let removes = vec![Removed { file: id(1), segment: 0, sequence: 2 }];
            catalogue.agreed(agreed(round as u32, 2, vec![added(id(1), 2, 10)], removes)).await?;
        }
        11 if round.is_multiple_of(2) => {
            catalogue.put_paid(round as u32, agreement(round as u32), PaidRow { egress: step }).await?;
        }
        11 => catalogue.settled(round as u32, agreement(round as u32), 1).await?,
        12 => drop(catalogue.remove(b"one".to_vec()).await?),
        13 => {
            let row = FaultRow { provider: Account([1; 32]), found_by: 0, round: step, lost: 1, repaired: 0 };
            catalogue.add_fault(row).await?;
        }
        14 => catalogue.put_agreement(round as u32, agreement_row(round as u32, 3)).await?,
        _ => {
            catalogue.erase_holdings(round as u32, agreement(round as u32), vec![added(id(1), 0, 0)]).await?
        }
    }
    Ok(())
}

async fn picture<E>(context: E) -> String
where
    E: Storage + Clock + Metrics + Spawner,
{
    let (catalogue, loaded, _handle) = start(context, "test", [9; 32]).await.expect("opens");
    let list = catalogue.list(vec![]).await.expect("runs");
    let faults = catalogue.faults().await.expect("runs");
    format!("{loaded:?} {list:?} {faults:?}")
}

/// The picture after each number of steps, without storage faults.
fn pictures() -> Vec<String> {
    let mut runner = Runner::default();
    let mut pictures = Vec::new();
    for done in 0..=STEPS {
        let (picture, checkpoint) = runner.start_and_recover(|context| async move {
            if done > 0 {
                let started = start(context.child("work"), "test", [9; 32]).await;
                let (catalogue, _, handle) = started.expect("opens");
                change(&catalogue, done - 1).await.expect("runs");
                drop(catalogue);
                handle.await.expect("ends").expect("no disk error");
            }
            picture(context.child("picture")).await
        });
        pictures.push(picture);
        runner = Runner::from(checkpoint);
    }
    pictures
}

#[test]
fn every_cut_keeps_what_was_acknowledged() {
    let pictures = pictures();
    let (mut cut_early, mut under_way) = (0, 0);
    for seed in 0..150 {
        let faults = FaultConfig {
            write_rate: Some(WriteConfig {
                failure_rate: Probability::new(seed % 5, 100).expect("below one"),
                retention_rate: probability!(1, 2),
                mode: if seed % 2 == 0 { PartialWriteMode::Prefix } else { PartialWriteMode::Subset },
            }),
            sync_rate: Some(probability!(1, 50)),
            ..FaultConfig::default()
        };
        let (done, checkpoint) =
            Runner::new(Config::default().with_seed(seed)).start_and_recover(|context| async move {
                let (catalogue, _, _handle) =
                    start(context.child("work"), "test", [9; 32]).await.expect("opens");
                *context.storage_fault_config().write() = faults;
                let mut done = 0;
                while done < STEPS.min(seed) && change(&catalogue, done).await.is_ok() {
                    done += 1;
                }
                // Power fails in the middle of a change.
                if done < STEPS {
                    let next = Box::pin(change(&catalogue, done));
                    drop(
                        futures::future::select(
                            next,
                            Box::pin(context.sleep(std::time::Duration::from_millis(seed % 4))),
                        )
                        .await,
                    );
                }
                done
            });
        let found = Runner::from(checkpoint).start(|context| async move {
            *context.storage_fault_config().write() = FaultConfig::default();
            picture(context.child("picture")).await
        });
        let done = done as usize;
        cut_early += usize::from(done < STEPS as usize);
        under_way += usize::from(found != pictures[done]);
        assert!(
            found == pictures[done] || pictures.get(done + 1) == Some(&found),
            "seed {seed}, {done} changes acknowledged, found {found}, expected {}",
            pictures[done],
        );
    }
    assert!(cut_early > 50 && under_way > 5, "{cut_early} cut, {under_way} with a change under way");
}

/// Ten files of one segment each under three agreements, and a fault.
async fn fill<E: Storage + Clock + Metrics + Spawner>(context: &E) {
    fill_with(context, 10).await;
}

/// As [`fill`], with `files` files.
async fn fill_with<E: Storage + Clock + Metrics + Spawner>(context: &E, files: u8) {
    let (catalogue, _, handle) = start(context.child("fill"), "test", [9; 32]).await.expect("opens");
    for agreement in 0..3 {
        assert_eq!(
            catalogue.add_agreement(agreement_row(agreement, 1)).await.expect("runs"),
            Some(agreement)
        );
    }
    for file in 0..files {
        let job = catalogue.begin([file; 16], Claim::default()).await.expect("runs").expect("room");
        catalogue.place([file; 16], 0, segment_row()).await.expect("runs");
        let adds = vec![added([file; 16], file % 8, file.into())];
        catalogue.agreed(agreed(u32::from(file) % 3, 1, adds, vec![])).await.expect("runs");
        let row = file_row(&format!("file {file}"), [file; 16]);
        catalogue.finish(job, row).await.expect("runs").expect("room");
    }
    let row = FaultRow { provider: Account([1; 32]), found_by: 0, round: 1, lost: 1, repaired: 0 };
    catalogue.add_fault(row).await.expect("runs");
    drop(catalogue);
    handle.await.expect("ends").expect("no disk error");
}

fn names(files: &[posync_protocol::wire::gateway::File]) -> Vec<String> {
    files.iter().map(|file| String::from_utf8_lossy(&file.name).into_owned()).collect()
}

#[test]
fn a_row_that_does_not_decode_costs_what_it_described_and_no_more() {
    for (what, key, files, agreements, aside) in [
        ("a file", FileRow::key(4), 9, 3, 1),
        ("a segment", SegmentRow::key(&[4; 16], 0), 10, 3, 1),
        ("an agreement", OwnAgreementRow::key(1), 10, 2, 1),
        ("its data set", SetRow::key(1), 10, 2, 1),
        ("a fault", FaultRow::key(0), 10, 3, 0),
        ("the numbers and the secret", Meta::key(), 10, 3, 0),
        ("their copy", Meta::copy(), 10, 3, 0),
    ] {
        Runner::default().start(|context| async move {
            fill(&context).await;
            let mut store = store::Store::open(context.child("spoil"), "test").await.expect("opens");
            store.put_raw(key.clone(), vec![0xff; 3]);
            store.commit().await.expect("works");
            drop(store);
            let started = start(context.child("again"), "test", [7; 32]).await;
            let (catalogue, loaded, handle) = started.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(loaded.master, [9; 32], "{what}: the secret of all files is there");
            assert_eq!((loaded.agreements.len(), loaded.aside.len()), (agreements, aside), "{what}");
            assert_eq!(loaded.hides_shards(), ["a file", "a segment"].contains(&what), "{what}");
            assert_eq!(catalogue.list(vec![]).await.expect("runs").len(), files, "{what}");
            catalogue.faults().await.expect("runs");
            let others = (0..10).filter(|file| *file != 4);
            for file in others {
                let name = format!("file {file}").into_bytes();
                let row = catalogue.file(name).await.expect("runs").expect("it is not hit");
                assert!(catalogue.segment(row.id, 0).await.expect("runs").is_some(), "{what}: {file}");
            }
            // Operations on the damaged row go on, too, and its number is not used for anything else.
            catalogue.drop_holdings(1, agreement(1), vec![added([4; 16], 4, 4)]).await.expect("runs");
            catalogue.agreed(agreed(1, 2, vec![added([4; 16], 4, 70)], vec![])).await.expect("runs");
            let job = catalogue.begin([20; 16], Claim::default()).await.expect("runs").expect("room");
            let new = catalogue.finish(job, file_row("new", [20; 16])).await.expect("runs");
            assert!(new.is_ok() && catalogue.remove(b"file 4".to_vec()).await.is_ok(), "{what}");
            assert_eq!(catalogue.add_agreement(agreement_row(9, 1)).await.expect("runs"), Some(3), "{what}");
            drop(catalogue);
            handle.await.expect("ends").expect("no disk error");
            let store = store::Store::open(context.child("look"), "test").await.expect("opens");
            let kept = store.raw(&key).await.expect("reads");
            let is_kept = kept.as_deref() == Some(&[0xff; 3][..]);
            let rewritten = [Meta::key(), Meta::copy(), SetRow::key(1), FaultRow::key(0)];
            assert!(is_kept || rewritten.contains(&key), "{what}: it is kept as it is");
        });
    }
}

#[test]
fn a_damaged_page_is_told_from_a_full_disk_and_the_way_out_works() {
    use commonware_runtime::{Blob as _, IoBufs, ReadOptions, WriteOptions};
    let (backup, checkpoint) = Runner::default().start_and_recover(|context| async move {
        fill(&context).await;
        let mut out = Vec::new();
        let held = backup(context.child("backup"), "test", &mut out).await.expect("it is sound");
        assert_eq!((held.files, held.agreements), (10, 3));
        let refused = restore(context.child("over"), "test", || Ok(&out[..])).await;
        assert!(matches!(refused, Err(Error::NotEmpty)), "a catalogue is not overwritten: {refused:?}");
        for partition in partitions("test") {
            for name in context.scan(&partition).await.unwrap_or_default() {
                let (blob, size) = context.open(&partition, &name).await.expect("opens");
                let at = size / 3;
                let byte = blob.read_at(at, 1, ReadOptions::default()).await.expect("reads").coalesce();
                let flipped = vec![byte.as_ref()[0] ^ 0xff];
                blob.write_at(at, IoBufs::from(flipped), WriteOptions::SYNC).await.expect("writes");
            }
        }
        out
    });
    Runner::from(checkpoint).start(|context| async move {
        let started = start(context.child("damaged"), "test", [7; 32]).await;
        let (catalogue, loaded, handle) = started.expect("what can be read goes on");
        assert_eq!((loaded.master, &loaded.aside[..]), ([9; 32], &["pages".to_string()][..]));
        drop(catalogue);
        handle.await.expect("ends").expect("no disk error");
        // As the alert advises: move it aside, and restore the backup.
        erase(&context, "test").await.expect("goes");
        let changed = restore(context.child("cut"), "test", || Ok(&backup[..backup.len() - 1])).await;
        assert!(matches!(changed, Err(Error::Backup(_))), "{changed:?}");
        let mut store = store::Store::open(context.child("half"), "test").await.expect("opens");
        store.put_raw(restoring(), vec![1]);
        store.commit().await.expect("works");
        drop(store);
        let half = start(context.child("begun"), "test", [7; 32]).await.map(drop);
        assert!(matches!(half, Err(Error::Restoring)), "what is half there does not start: {half:?}");
        let held = restore(context.child("restore"), "test", || Ok(&backup[..])).await.expect("it is whole");
        assert_eq!((held.files, held.agreements), (10, 3));
        let (catalogue, loaded, _handle) =
            start(context.child("again"), "test", [7; 32]).await.expect("opens");
        assert_eq!(loaded.master, [9; 32]);
        assert!(loaded.agreements.iter().all(|agreement| agreement.row.stage == 2));
        assert!(loaded.agreements.iter().all(|agreement| agreement.restored == Some(agreement.set.version)));
        assert_eq!(loaded.agreements.iter().map(|agreement| agreement.entries.len()).sum::<usize>(), 10);
        let expected: Vec<String> = (0..10).map(|file| format!("file {file}")).collect();
        assert_eq!(names(&catalogue.list(vec![]).await.expect("runs")), expected);
    });
}

/// Flips a byte at a part of the newest file of each of `partitions`.
async fn flip(
    context: &commonware_runtime::deterministic::Context,
    partitions: &[String],
    (part, of): (u64, u64),
) {
    use commonware_runtime::{Blob as _, IoBufs, ReadOptions, WriteOptions};
    for partition in partitions {
        let names = context.scan(partition).await.expect("a catalogue has files");
        let (blob, size) = context.open(partition, names.last().expect("one")).await.expect("opens");
        let at = size * part / of;
        let byte = blob.read_at(at, 1, ReadOptions::default()).await.expect("reads").coalesce();
        let flipped = vec![byte.as_ref()[0] ^ 1];
        blob.write_at(at, IoBufs::from(flipped), WriteOptions::SYNC).await.expect("writes");
    }
}

#[test]
fn a_flipped_bit_costs_the_rows_of_its_page_and_everything_else_goes_on() {
    const FILES: u8 = 200;
    const PARTS: u64 = 12;
    let mut hurt = 0;
    for part in 0..PARTS {
        let ((), checkpoint) = Runner::default().start_and_recover(|context| async move {
            fill_with(&context, FILES).await;
            flip(&context, &partitions("test")[..1], (part, PARTS)).await;
        });
        let ((aside, left), checkpoint) = Runner::from(checkpoint).start_and_recover(|context| async move {
            let started = start(context.child("damaged"), "test", [7; 32]).await;
            let (catalogue, loaded, handle) = started.unwrap_or_else(|error| panic!("{part}: {error}"));
            assert_eq!(loaded.master, [9; 32], "{part}: the secret of all files");
            let all = catalogue.list(vec![]).await.expect("runs");
            assert!(all.len() >= usize::from(FILES) - 30, "{part}: {} files are left", all.len());
            let mut read = 0;
            for file in &all {
                let row = catalogue.file(file.name.to_vec()).await.expect("runs").expect("it is listed");
                read += usize::from(catalogue.segment(row.id, 0).await.expect("runs").is_some());
            }
            assert!(read + 30 >= all.len(), "{part}: {read} segments are left");
            let is_hurt = !loaded.aside.is_empty();
            if is_hurt {
                assert!(
                    loaded.hides_shards() && loaded.contents.jobs.is_empty(),
                    "{part}: nothing is removed"
                );
                let stages = loaded.agreements.iter().map(|agreement| agreement.row.stage);
                assert!(stages.into_iter().all(|stage| stage == 2), "{part}: they take no new shards");
            } else {
                assert_eq!((all.len(), read), (FILES.into(), FILES.into()), "{part}: nothing was hit");
            }
            let job = catalogue.begin([250; 16], Claim::default()).await.expect("runs").expect("room");
            let new = catalogue.finish(job, file_row("new", [250; 16])).await.expect("runs");
            new.expect("there is room");
            drop(catalogue);
            handle.await.expect("ends").expect("no disk error");
            (loaded.aside, all.len() + 1)
        });
        hurt += u64::from(!aside.is_empty());
        Runner::from(checkpoint).start(|context| async move {
            let (catalogue, loaded, _handle) =
                start(context.child("again"), "test", [7; 32]).await.expect("opens");
            assert_eq!(loaded.aside, aside, "{part}: it is reported until the owner restores a backup");
            assert_eq!(catalogue.list(vec![]).await.expect("runs").len(), left, "{part}");
        });
    }
    assert!(hurt >= PARTS / 2, "{hurt} of {PARTS} hit rows that count");
}

/// Runs `work` as a process of its own on a real directory: what it wrote without a sync stays when it is killed.
fn on_disk<T>(
    directory: &std::path::Path,
    work: impl AsyncFnOnce(commonware_runtime::tokio::Context) -> T,
) -> T {
    use commonware_runtime::tokio::{Config, Runner};
    Runner::new(Config::default().with_storage_directory(directory))
        .start(async move |context| work(context).await)
}

/// The newest file of the rows in a directory.
fn newest(directory: &std::path::Path) -> std::path::PathBuf {
    let data = std::fs::read_dir(directory.join(&partitions("test")[0])).expect("a catalogue");
    data.map(|entry| entry.expect("readable").path()).max().expect("it has files")
}

#[test]
fn a_bit_flipped_in_the_last_commits_of_a_killed_process_is_told_and_costs_no_other_rows() {
    const FILES: u8 = 12;
    let mut reported = 0;
    for back in (1..2_000).step_by(151) {
        let home = tempfile::tempdir().expect("a directory");
        on_disk(home.path(), async |context| fill_with(&context, FILES).await);
        let path = newest(home.path());
        let mut bytes = std::fs::read(&path).expect("readable");
        // The end of the last page holds its checksums, and before them zeros.
        let end = bytes.iter().rposition(|byte| *byte != 0).expect("rows");
        let end = bytes[..end - 12].iter().rposition(|byte| *byte != 0).expect("rows");
        bytes[end + 1 - back] ^= 4;
        std::fs::write(&path, bytes).expect("writable");
        reported += on_disk(home.path(), async |context| {
            let started = start(context.child("damaged"), "test", [7; 32]).await;
            let (catalogue, loaded, _handle) = started.unwrap_or_else(|error| panic!("{back}: {error}"));
            let all = catalogue.list(vec![]).await.expect("runs").len();
            let faults = catalogue.faults().await.expect("runs").len();
            let is_whole = (all, faults) == (FILES.into(), 1);
            assert!(
                is_whole || loaded.aside == ["pages"],
                "{back}: {all} files, {faults} faults, not reported"
            );
            u64::from(!loaded.aside.is_empty())
        });
    }
    assert!(reported > 5, "{reported} hit rows");
}

#[test]
fn an_acknowledged_end_that_is_gone_is_told() {
    let home = tempfile::tempdir().expect("a directory");
    on_disk(home.path(), async |context| fill(&context).await);
    let file = std::fs::OpenOptions::new().write(true).open(newest(home.path())).expect("there");
    let size = file.metadata().expect("there").len();
    file.set_len(size - 4_108).expect("shorter by a page");
    on_disk(home.path(), async |context| {
        match start(context.child("short"), "test", [7; 32]).await.map(|(_, loaded, _)| loaded.aside) {
            Ok(aside) => assert_eq!(aside, ["pages"]),
            Err(error) => assert!(matches!(error, Error::Page(_)), "{error}"),
        }
    });
}

#[test]
fn a_new_agreement_begins_with_nothing_whatever_lies_under_its_number() {
    Runner::default().start(|context| async move {
        // An interrupted restore leaves rows of agreements, and no row that counts them.
        let mut store = store::Store::open(context.child("cut"), "test").await.expect("opens");
        store.put(PaidRow::key(0), &PaidRow { egress: 5 });
        store.put(SetRow::key(0), &SetRow { version: 3, sequence: 30 });
        let claim = agreed(0, 3, vec![], vec![]).claim;
        store.put(Waiting::key(0), &Waiting { claim: Some(claim) });
        store.commit().await.expect("works");
        drop(store);
        let (catalogue, _, handle) = start(context.child("work"), "test", [9; 32]).await.expect("opens");
        assert_eq!(catalogue.add_agreement(agreement_row(0, 1)).await.expect("runs"), Some(0));
        drop(catalogue);
        handle.await.expect("ends").expect("no disk error");
        let (_, loaded, _) = start(context.child("again"), "test", [9; 32]).await.expect("opens");
        assert_eq!(loaded.agreements, [LoadedAgreement::fresh(0, agreement_row(0, 1))]);
    });
}

#[test]
fn numbers_of_agreements_that_are_gone_are_used_again_and_never_run_out() {
    Runner::default().start(|context| async move {
        let (catalogue, _, _handle) = start(context.child("work"), "test", [9; 32]).await.expect("opens");
        let most = crate::limits::AGREEMENTS_MAX as u32;
        for opened in 0..2 * most {
            let number =
                catalogue.add_agreement(agreement_row(opened, 0)).await.expect("runs").expect("a number");
            assert!(number <= crate::limits::AGREEMENTS_FRESH as u32, "{number}");
            if opened > 0 {
                let gone = OwnAgreementRow { stage: 4, ..agreement_row(opened, 4) };
                catalogue.put_agreement(number, gone).await.expect("runs");
            }
        }
        // A late change for an agreement that is gone does not reach the one that has its number now.
        let number = catalogue.add_agreement(agreement_row(7, 1)).await.expect("runs").expect("a number");
        assert!(!catalogue.put_paid(number, agreement(8), PaidRow { egress: 5 }).await.expect("runs"));
        assert!(catalogue.put_paid(number, agreement(7), PaidRow { egress: 3 }).await.expect("runs"));
        let intent = |agreement: u32, version| {
            let claim = agreed(agreement, version, vec![], vec![]).claim.claim;
            let (adds, removes) = (Bounded::new(vec![]), Bounded::new(vec![]));
            Intent { claim, adds: adds.expect("none"), removes: removes.expect("none") }
        };
        catalogue.intend(number, intent(7, 1)).await.expect("runs");
        catalogue.intend(number, intent(8, 2)).await.expect("runs");
        catalogue.withdraw(number, agreement(8)).await.expect("runs");
        catalogue.put_agreement(number, agreement_row(8, 4)).await.expect("runs");
        drop(catalogue);
        _handle.await.expect("ends").expect("no disk error");
        let (_, loaded, _) = start(context.child("again"), "test", [9; 32]).await.expect("opens");
        let agreement =
            loaded.agreements.iter().find(|agreement| agreement.number == number).expect("it is open");
        assert_eq!((agreement.paid.egress, loaded.agreements[0].row.stage), (3, 0));
        assert_eq!((&agreement.row, &agreement.intent), (&agreement_row(7, 1), &Some(intent(7, 1))));
    });
}

/// A shard that a provider signed for is in its data set, even if the row of its segment is full: it is
/// known after a restart, and the holdings in force before it stay so.
#[test]
fn a_holding_above_what_a_segment_takes_is_kept_elsewhere_until_it_is_taken_out() {
    let ((stray, id), checkpoint) = Runner::default().start_and_recover(|context| async move {
        let started = start(context.child("catalogue"), "test", [9; 32]).await;
        let (catalogue, _, _disk) = started.expect("opens");
        catalogue.add_agreement(agreement_row(0, 1)).await.expect("runs");
        let id: FileId = [5; 16];
        catalogue.begin(id, Claim::default()).await.expect("runs").expect("room");
        catalogue.place(id, 0, segment_row()).await.expect("runs");
        for sequence in 0..HOLDINGS_MAX as u64 {
            let add = Added { moves: true, ..added(id, 0, sequence) };
            let orphans = catalogue.agreed(agreed(0, sequence + 1, vec![add], vec![])).await;
            assert_eq!(orphans.expect("runs"), Some(vec![]));
        }
        let full = catalogue.segment(id, 0).await.expect("runs").expect("there");
        let one_more = Added { moves: true, ..added(id, 0, 99) };
        let orphans = catalogue.agreed(agreed(0, 100, vec![one_more], vec![])).await.expect("runs");
        let orphans = orphans.expect("its number stands for it");
        let [stray] = orphans[..] else { panic!("one is given up: {orphans:?}") };
        assert_eq!(Added { file: id, segment: 0, ..stray }, one_more);
        assert_ne!(stray.file, id);
        assert_eq!(catalogue.segment(id, 0).await.expect("runs"), Some(full));
        (stray, id)
    });
    Runner::from(checkpoint).start(|context| async move {
        let started = start(context.child("catalogue"), "test", [9; 32]).await;
        let (catalogue, loaded, _disk) = started.expect("opens");
        let entries = &loaded.agreements[0].entries;
        assert_eq!(entries.len(), HOLDINGS_MAX + 1, "all that was signed");
        assert_eq!(
            entries[&99],
            Entry { added: Added { moves: false, ..stray }, dropped: true, frozen: false }
        );
        let removed = Removed { file: stray.file, segment: 0, sequence: 99 };
        catalogue.agreed(agreed(0, 101, vec![], vec![removed])).await.expect("runs");
        let row = catalogue.segment(stray.file, 0).await.expect("runs").expect("until its job is done");
        assert!(row.holdings.is_empty());
        let jobs = catalogue.jobs(0, 9).await.expect("runs");
        assert!(jobs.iter().any(|(_, job)| job.file == stray.file) && stray.file != id);
    });
}

#[test]
fn a_segment_row_that_makes_no_sense_is_set_aside() {
    let held = |position| vec![Holding { position, agreement: 0, sequence: 1, dropped: false }];
    let outside = SegmentRow { holdings: Bounded::new(held(8)).expect("one"), ..segment_row() };
    let nameless = SegmentRow {
        names: Bounded::new(vec![]).expect("none"),
        holdings: Bounded::new(held(0)).expect("one"),
        ..segment_row()
    };
    for row in [outside, nameless] {
        let ((), checkpoint) = Runner::default().start_and_recover(|context| async move {
            let started = start(context.child("catalogue"), "test", [9; 32]).await;
            let (catalogue, _, _disk) = started.expect("opens");
            catalogue.add_agreement(agreement_row(0, 1)).await.expect("runs");
            catalogue.begin([5; 16], Claim::default()).await.expect("runs").expect("room");
            catalogue.place([5; 16], 0, row).await.expect("runs");
            catalogue.place([5; 16], 1, segment_row()).await.expect("runs");
            assert_eq!(
                catalogue.segment([5; 16], 0).await.expect("runs"),
                None,
                "nothing can be done with it"
            );
        });
        Runner::from(checkpoint).start(|context| async move {
            let started = start(context.child("catalogue"), "test", [9; 32]).await;
            let (catalogue, loaded, _disk) = started.expect("opens");
            assert_eq!(loaded.aside, ["segment 0"]);
            assert_eq!(catalogue.segment([5; 16], 1).await.expect("runs"), Some(segment_row()));
        });
    }
}

/// An agreement is gone, and another has its number: late changes for the first do not affect the second,
/// and return that they were not written.
#[test]
fn what_comes_late_for_a_number_that_is_used_again_is_not_written_and_says_so() {
    Runner::default().start(|context| async move {
        let (catalogue, _, handle) = start(context.child("work"), "test", [9; 32]).await.expect("opens");
        let number = catalogue.add_agreement(agreement_row(8, 1)).await.expect("runs").expect("a number");
        catalogue.put_agreement(number, agreement_row(8, 4)).await.expect("runs");
        // The fresh numbers are used up first; then this one is the first to be used again.
        for _ in 1..crate::limits::AGREEMENTS_FRESH {
            catalogue.add_agreement(agreement_row(9, 1)).await.expect("runs").expect("a number");
        }
        assert_eq!(catalogue.add_agreement(agreement_row(7, 1)).await.expect("runs"), Some(number));
        let job = catalogue.begin([4; 16], Claim::default()).await.expect("runs").expect("room");
        catalogue.place([4; 16], 0, segment_row()).await.expect("runs");
        let of = |it: u32, position| Agreed {
            agreement: number,
            ..agreed(it, 1, vec![added([4; 16], position, 1)], vec![])
        };
        assert_eq!(catalogue.agreed(of(7, 0)).await.expect("runs"), Some(vec![]));
        let row = file_row("file", [4; 16]);
        catalogue.finish(job, row).await.expect("runs").expect("room");
        let before = catalogue.segment([4; 16], 0).await.expect("runs");
        // All of these changes are for the first agreement.
        assert_eq!(catalogue.agreed(of(8, 1)).await.expect("runs"), None);
        catalogue.settled(number, agreement(8), 9).await.expect("runs");
        for entries in [vec![added([4; 16], 0, 1)], vec![added([4; 16], 1, 1)]] {
            catalogue.drop_holdings(number, agreement(8), entries.clone()).await.expect("runs");
            catalogue.erase_holdings(number, agreement(8), entries).await.expect("runs");
        }
        assert_eq!(catalogue.segment([4; 16], 0).await.expect("runs"), before);
        drop(catalogue);
        handle.await.expect("ends").expect("no disk error");
        let (_, loaded, _) = start(context.child("again"), "test", [9; 32]).await.expect("opens");
        let agreement =
            loaded.agreements.iter().find(|agreement| agreement.number == number).expect("it is open");
        assert_eq!(agreement.waiting.claim, Some(of(7, 0).claim), "its claim waits for the ledger still");
    });
}
