//! Damage costs only the record that it hits; a torn end is not damage.

use super::*;
use crate::power_cut::{CUTS, Cut, power_cut};
use commonware_runtime::{
    Blob as _, Runner as _, Storage as _, Supervisor as _, WriteOptions, deterministic, tokio,
};
use posync_protocol::encoded;
use std::collections::BTreeSet;

encoded! {
    /// A numbered test record.
    Numbered {
        number: u64,
        rest: [u8; 32],
    }
}

fn row(number: u64) -> Numbered {
    Numbered { number, rest: [7; 32] }
}

type State = (BTreeSet<u64>, bool);

fn apply(state: &mut State, record: Numbered) {
    state.0.insert(record.number);
}

fn snapshot(state: &State) -> Vec<Numbered> {
    state.0.iter().map(|number| row(*number)).collect()
}

fn hurt(state: &mut State) {
    state.1 = true;
}

async fn open<E: Context>(context: &E) -> Result<(Journal<E, Numbered>, State), Error> {
    Journal::open(context.child("journal"), "j", apply, snapshot, hurt).await
}

/// Writes `count` records, one sync each, after an empty snapshot, and seals them.
async fn write<E: Context>(context: &E, count: u64) {
    let (mut journal, _) = open(context).await.expect("opens");
    journal.snapshot(vec![]).await.expect("durable");
    for number in 0..count {
        journal.append(row(number)).await.expect("taken");
        journal.sync().await.expect("durable");
    }
    journal.seal().await.expect("durable");
}

/// Flips a bit of a byte in the only file of the journal; returns the file's length.
async fn flip<E: Context>(context: &E, at: u64) -> u64 {
    let names = context.scan("j").await.expect("there");
    assert_eq!(names.len(), 1);
    let (blob, size) = context.open("j", &names[0]).await.expect("opens");
    let at = at.min(size - 1);
    let mut byte =
        blob.read_at(at, 1, ReadOptions::default()).await.expect("readable").coalesce().as_ref().to_vec();
    byte[0] ^= 0x10;
    blob.write_at(at, byte, WriteOptions::default()).await.expect("writable");
    blob.sync().await.expect("durable");
    size
}

/// Runs a case at every `step`-th byte of the journal that it writes; the case returns the journal's length.
fn at_each_byte<F: Future<Output = u64>>(step: u64, case: impl Fn(deterministic::Context, u64) -> F) {
    let mut at = 0;
    loop {
        let size = deterministic::Runner::default().start(|context| case(context, at));
        at += step;
        if at >= size {
            break;
        }
    }
}

#[test]
fn one_flipped_bit_costs_at_most_the_record_that_it_hits_wherever_it_is() {
    // One page, then several: a record takes about 50 bytes.
    for (count, step) in [(12, 29), (400, 499)] {
        at_each_byte(step, |context, at| async move {
            write(&context, count).await;
            let size = flip(&context, at).await;
            let (mut journal, state) = open(&context.child("again")).await.expect("opens");
            let lost: Vec<u64> = (0..count).filter(|number| !state.0.contains(number)).collect();
            assert!(lost.len() <= 1, "byte {at} of {size}: {lost:?} of {count}");
            assert!(lost.is_empty() || state.1, "byte {at}: {lost:?} went without a word");
            journal.append(row(count)).await.expect("works on");
            journal.sync().await.expect("durable");
            drop(journal);
            let (_, after) = open(&context.child("third")).await.expect("opens");
            assert_eq!(after.0.len(), state.0.len() + 1, "byte {at}");
            size
        });
    }
}

/// Writes records in groups of one sync each, and ends as a killed process does: nothing seals them.
async fn write_and_die<E: Context>(context: &E, groups: &[u64]) -> u64 {
    let (mut journal, _) = open(context).await.expect("opens");
    journal.snapshot(vec![]).await.expect("durable");
    let mut count = 0;
    for group in groups {
        let rows: Vec<Numbered> = (count..count + group).map(row).collect();
        journal.keep(&rows).await.expect("durable");
        count += group;
    }
    count
}

/// Runs `work` on a real disk, which keeps what was written without a sync when a process is killed.
fn on_disk<F, Fut>(work: F)
where
    F: FnOnce(tokio::Context) -> Fut,
    Fut: Future<Output = ()>,
{
    let home = tempfile::tempdir().expect("a directory");
    tokio::Runner::new(tokio::Config::default().with_storage_directory(home.path())).start(work);
}

#[test]
fn a_bit_flipped_in_the_last_group_of_a_killed_process_costs_one_record_at_most_and_is_told() {
    let mut told = 0;
    for (groups, end, step) in
        [(&[1][..], 80, 9), (&[3, 1], 230, 23), (&[1, 12], 640, 67), (&[90, 90], 8_800, 1_009)]
    {
        for at in (0..end).step_by(step).chain([4_085, 4_091]) {
            on_disk(async |context| {
                let count = write_and_die(&context, groups).await;
                flip(&context, at).await;
                let (mut journal, state) = open(&context.child("again")).await.expect("opens");
                let lost: Vec<u64> = (0..count).filter(|number| !state.0.contains(number)).collect();
                assert!(lost.len() <= 1, "byte {at}: {lost:?} of {count}");
                assert!(lost.is_empty() || state.1, "byte {at}: {lost:?} went without a word");
                told += u64::from(!lost.is_empty());
                journal.keep(&[row(count)]).await.expect("works on");
                drop(journal);
                let (_, after) = open(&context.child("third")).await.expect("opens");
                assert_eq!((after.0.len(), after.1), (state.0.len() + 1, false), "byte {at}: told once");
            });
        }
    }
    assert!(told > 20, "{told} hit records");
}

#[test]
fn an_acknowledged_end_that_is_gone_is_told_and_a_group_that_was_never_acknowledged_is_not() {
    for cut in [1, 40, 4_096] {
        on_disk(async |context| {
            let count = write_and_die(&context, &[90, 90]).await;
            shorten(&context, cut).await;
            let (_, state) = open(&context.child("again")).await.expect("opens");
            let lost = (0..count).filter(|number| !state.0.contains(number)).count();
            assert!(lost == 0 || state.1, "{cut} bytes: {lost} went without a word");
            // Less than a page holds the checksums of the last one alone.
            assert_eq!(lost > 0, cut > 4_000, "{cut} bytes: {lost}");
        });
        // The process dies in the middle of a write: nothing of it was acknowledged.
        on_disk(async |context| {
            let count = write_and_die(&context, &[90]).await;
            let (mut journal, _) = open(&context.child("more")).await.expect("opens");
            journal.watermark = None;
            journal.keep(&(count..count + 90).map(row).collect::<Vec<_>>()).await.expect("written");
            drop(journal);
            shorten(&context, cut).await;
            let (_, state) = open(&context.child("again")).await.expect("opens");
            assert!(!state.1, "{cut} bytes: a torn end is no damage");
            assert!((0..count).all(|number| state.0.contains(&number)));
        });
    }
}

/// Cuts bytes off the end of the only file of the journal.
async fn shorten<E: Context>(context: &E, cut: u64) {
    let names = context.scan("j").await.expect("there");
    let (blob, size) = context.open("j", &names[0]).await.expect("opens");
    blob.resize(size - cut).await.expect("shortened");
    blob.sync().await.expect("durable");
}

/// Writes `count` records and a snapshot of them, with nothing behind it.
async fn write_snapshot<E: Context>(context: &E, count: u64) {
    write(context, count).await;
    let (mut journal, state) = open(&context.child("snapshot")).await.expect("opens");
    journal.snapshot(snapshot(&state)).await.expect("durable");
}

#[test]
fn a_flipped_bit_in_a_snapshot_with_nothing_behind_it_costs_one_record_at_most_and_is_told() {
    for (count, step) in [(12, 7), (400, 499)] {
        at_each_byte(step, |context, at| async move {
            write_snapshot(&context, count).await;
            let size = flip(&context, at).await;
            let (_, state) = open(&context.child("again")).await.expect("opens");
            let lost = (0..count).filter(|number| !state.0.contains(number)).count();
            assert!(lost <= 1, "byte {at} of {size}: {lost} of {count} are lost");
            assert!(state.1 || lost == 0, "byte {at}: went without a word");
            size
        });
    }
}

#[test]
fn two_damages_with_no_write_between_are_told_as_well() {
    for first in (60..700).step_by(97) {
        for second in (60..700).step_by(61) {
            deterministic::Runner::default().start(|context| async move {
                write(&context, 12).await;
                flip(&context, first).await;
                let (_, before) = open(&context.child("second")).await.expect("opens");
                flip(&context, second).await;
                let (_, after) = open(&context.child("third")).await.expect("opens");
                let lost = before.0.difference(&after.0).count();
                assert!(lost <= 1 && (lost == 0 || after.1), "bytes {first}, {second}: {lost}");
            });
        }
    }
}

#[test]
fn the_lost_end_of_a_snapshot_is_damage_and_the_rest_is_kept() {
    for pages in 1..5 {
        for whole in [true, false] {
            deterministic::Runner::default().start(|context| async move {
                write_snapshot(&context, 400).await;
                let names = context.scan("j").await.expect("there");
                let (blob, size) = context.open("j", &names[0]).await.expect("opens");
                let end = u64::from(PAGE_BYTES) * pages - if whole { 0 } else { 1_000 };
                assert!(end < size);
                blob.resize(end).await.expect("shortened");
                blob.sync().await.expect("durable");
                drop(blob);
                let (_, state) = open(&context.child("second")).await.expect("opens");
                assert!(state.1, "{end} of {size} bytes are left");
                assert!(state.0.len() as u64 >= 50 * pages, "{} records of {end} bytes", state.0.len());
            });
        }
    }
}

#[test]
fn a_snapshot_that_a_crash_tore_costs_nothing_and_is_no_damage() {
    for cut in CUTS {
        let mut operation = 0;
        let work = |context: Cut<deterministic::Context>| async move {
            let Ok((mut journal, _)) = open(&context).await else { return 0 };
            if journal.snapshot(vec![]).await.is_err() {
                return 0;
            }
            let mut durable = 0;
            for round in 1..4 {
                let rows: Vec<Numbered> = (durable..200 * round).map(row).collect();
                if journal.keep(&rows).await.is_err() {
                    break;
                }
                durable = 200 * round;
                if journal.snapshot((0..durable).map(row).collect()).await.is_err() {
                    break;
                }
            }
            durable
        };
        while !power_cut(operation, cut, work, keeps_all) {
            operation += 1;
        }
        assert!(operation > 15, "{operation}");
    }
}

/// A start after a crash finds every record below `durable`, and no damage.
async fn keeps_all(context: deterministic::Context, durable: u64) {
    let (_, state) = open(&context.child("again")).await.expect("recovers");
    assert!(!state.1, "a crash is no damage");
    assert!((0..durable).all(|number| state.0.contains(&number)), "{durable}");
}

#[test]
fn mending_survives_a_power_cut_at_every_operation() {
    for cut in CUTS {
        let mut operation = 0;
        let work = |context: Cut<deterministic::Context>| async move {
            // Written and damaged first, whatever follows.
            let Ok((mut journal, _)) = open(&context).await else { return false };
            if journal.snapshot(vec![]).await.is_err() {
                return false;
            }
            for number in 0..30 {
                if journal.append(row(number)).await.is_err() || journal.sync().await.is_err() {
                    return false;
                }
            }
            drop(journal);
            let Ok(names) = context.scan("j").await else { return false };
            let Ok((blob, _)) = context.open("j", &names[0]).await else { return false };
            let wrote = blob.write_at(900, vec![0xff; 9], WriteOptions::default()).await;
            if wrote.is_err() || blob.sync().await.is_err() {
                return false;
            }
            drop(blob);
            drop(open(&context).await);
            true
        };
        while !power_cut(operation, cut, work, |context, damaged| async move {
            let (_, state) = open(&context.child("again")).await.expect("recovers");
            let lost = (0..30).filter(|number| !state.0.contains(number)).count();
            assert!(!damaged || lost <= 1, "{lost} records are lost");
        }) {
            operation += 1;
        }
        assert!(operation > 40, "{operation}");
    }
}

#[test]
fn a_torn_end_is_no_damage() {
    for cut in CUTS {
        let mut operation = 0;
        let work = |context: Cut<deterministic::Context>| async move {
            let Ok((mut journal, _)) = open(&context).await else { return 0 };
            if journal.snapshot(vec![]).await.is_err() {
                return 0;
            }
            for group in 0..8 {
                for number in 0..60 {
                    if journal.append(row(60 * group + number)).await.is_err() {
                        return 60 * group;
                    }
                }
                if journal.sync().await.is_err() {
                    return 60 * group;
                }
            }
            480
        };
        while !power_cut(operation, cut, work, keeps_all) {
            operation += 1;
        }
        assert!(operation > 10, "{operation}");
    }
}

#[test]
fn items_of_before_are_read() {
    let mut old = vec![2];
    old.extend_from_slice(&row(7).encode());
    let read = Marked::<Numbered>::read_cfg(&mut commonware_codec::Copying(&old[..]), &());
    let marked = read.expect("decodes");
    assert!(matches!(marked.item, Item::Record(Numbered { number: 7, .. })) && !marked.after_sync);
}
