//! A machine pauses on command, and its faults stay on its own disk.

use super::{Damage, Disk, Gate, Machine, Refused};
use commonware_runtime::{
    Blob as _, Clock as _, Error, ReadOptions, Runner as _, Spawner as _, Storage as _, Supervisor as _,
    WriteOptions,
    deterministic::{Context, Runner},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

const SECOND: Duration = Duration::from_secs(1);
const BYTES: [u8; 64] = [9; 64];

fn run<F: Future<Output = ()>>(test: impl FnOnce(Context) -> F) {
    Runner::timed(Duration::from_secs(3_600)).start(test);
}

fn machine(context: &Context) -> (Machine, Gate, Disk) {
    let (gate, disk) = (Gate::default(), Disk::default());
    (Machine::new(context.child("machine"), gate.clone(), disk.clone()), gate, disk)
}

#[test]
fn no_task_of_a_paused_process_runs_until_it_goes_on() {
    run(|context| async move {
        let (machine, gate, _) = machine(&context);
        let seconds = Arc::new(AtomicU32::new(0));
        let counting = seconds.clone();
        // A task that spawns a task: both belong to the process.
        let parent = machine.spawn(move |machine| async move {
            let child = machine.child("child").spawn(move |machine| async move {
                loop {
                    machine.sleep(SECOND).await;
                    counting.fetch_add(1, Ordering::Relaxed);
                }
            });
            child.await
        });
        context.sleep(SECOND * 10).await;
        let before = seconds.load(Ordering::Relaxed);
        assert!((9..=10).contains(&before), "{before}");
        gate.close();
        context.sleep(SECOND * 100).await;
        assert_eq!(seconds.load(Ordering::Relaxed), before);
        gate.open();
        context.sleep(SECOND * 10).await;
        let after = seconds.load(Ordering::Relaxed) - before;
        assert!((9..=11).contains(&after), "{after}: it was paused, not asleep");
        parent.abort();
    });
}

#[test]
fn a_paused_process_can_be_killed() {
    run(|context| async move {
        let (machine, gate, _) = machine(&context);
        let task = machine.spawn(|machine| async move { machine.sleep(SECOND * 1_000).await });
        gate.close();
        context.sleep(SECOND).await;
        task.abort();
        assert!(matches!(task.await, Err(Error::Aborted | Error::Closed)));
    });
}

#[test]
fn a_damaged_sector_is_met_at_every_read_of_it_and_at_no_other_place() {
    run(|context| async move {
        for damage in [Damage::Unreadable, Damage::FlippedBit] {
            let (machine, _, disk) = machine(&context);
            let partition = format!("{}-segments", damage as u8);
            let (file, _) = machine.open(&partition, b"file").await.expect("opens");
            file.write_at(0, BYTES.to_vec(), WriteOptions::default()).await.expect("writes");
            let read = async |offset, length| {
                let read = file.read_at(offset, length, ReadOptions::default()).await;
                read.map(|bytes| bytes.coalesce().as_ref().to_vec())
            };
            disk.damage("-segments", damage);
            // The damage is in the middle of the first read: byte 16.
            for _ in 0..3 {
                match (damage, read(8, 16).await) {
                    (Damage::Unreadable, Err(Error::ReadFailed)) => {}
                    (Damage::FlippedBit, Ok(bytes)) => {
                        let wrong: Vec<usize> = (0..16).filter(|at| bytes[*at] != 9).collect();
                        assert_eq!(wrong, [8]);
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(read(17, 47).await.expect("reads"), BYTES[17..]);
            assert_eq!(read(0, 16).await.expect("reads"), BYTES[..16]);
            assert_eq!(disk.damaged(), 1);
            file.write_at(16, vec![9], WriteOptions::default()).await.expect("writes");
            assert_eq!(read(0, 64).await.expect("reads"), BYTES);
            assert_eq!(disk.damaged(), 0);
        }
    });
}

#[test]
fn a_disk_fails_one_write_or_one_sync_and_the_next_ones_succeed() {
    run(|context| async move {
        let (machine, _, disk) = machine(&context);
        let (file, _) = machine.open("any", b"file").await.expect("opens");
        let write = || file.write_at(0, BYTES.to_vec(), WriteOptions::default());
        disk.refuse(Refused::Write, 1);
        write().await.expect("the one before it");
        assert!(matches!(write().await, Err(Error::WriteFailed)));
        write().await.expect("the one after it");
        disk.refuse(Refused::Sync, 0);
        assert!(matches!(file.start_sync().await.await, Err(Error::BlobSyncFailed(..))));
        file.sync().await.expect("the one after it");
        assert!(disk.has_failed() && !disk.has_failed());
        assert_eq!(disk.refused(), [Refused::Write, Refused::Sync]);
        disk.refuse(Refused::Sync, 0);
        disk.allow();
        file.sync().await.expect("cancelled");
    });
}

#[test]
fn a_full_disk_refuses_writes_keeps_what_it_has_and_takes_more_when_there_is_room() {
    run(|context| async move {
        let (machine, _, disk) = machine(&context);
        let (file, _) = machine.open("any", b"file").await.expect("opens");
        file.write_at(0, BYTES.to_vec(), WriteOptions::default()).await.expect("writes");
        disk.fill(true);
        let refused = file.write_at(64, vec![1], WriteOptions::default()).await;
        assert!(matches!(refused, Err(Error::WriteFailed)));
        let kept = file.read_at(0, 64, ReadOptions::default()).await.expect("reads");
        assert_eq!(kept.coalesce().as_ref(), BYTES);
        disk.fill(false);
        file.write_at(64, vec![1], WriteOptions::default()).await.expect("writes again");
    });
}
