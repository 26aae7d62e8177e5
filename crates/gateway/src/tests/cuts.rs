//! The power fails at every operation of the gateway's storage in turn: in a put, in a repair and in a remove. What
//! was acknowledged reads, and what was not leaves nothing behind.

use super::{
    power_cut::{Cut, Fuse},
    world::{Context, Ledgered, World, bytes, holders, roomy, whole},
};
use crate::repair::{Notice, state::FoundBy};
use commonware_runtime::{
    Runner as _, Supervisor as _,
    deterministic::{self, FaultConfig, PartialWriteMode, WriteConfig},
};
use commonware_utils::{Probability, probability};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

const BYTES: usize = 3_000;
/// Operations before the cut that never come.
const NEVER: i64 = 1 << 40;
/// Operations from the beginning of the remove on that are all cut, and the step between those after them.
const BEGUN: i64 = 16;
const SOME: usize = 12;

/// The progress of the work at the cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Reached {
    #[default]
    Nothing,
    /// The put was acknowledged.
    Stored,
    /// The remove was begun.
    Removing,
    /// The remove was acknowledged.
    Removed,
    /// No job was left of it.
    Freed,
}

/// Stores a file, loses a shard of it, and removes it. Returns the progress, the operations that were left of the fuse
/// at the end of each part, and the ledger.
async fn work(context: Context, fuse: Fuse) -> (Reached, Vec<i64>, Arc<Ledgered>) {
    let mut left = Vec::new();
    let mut reached = Reached::default();
    let disk = Cut::new(context.child("catalogue"), fuse.clone());
    let world = World::start_on(&context, disk, roomy, Arc::default()).await;
    left.push(fuse.left());
    let parts = async {
        world.put("file", &bytes(BYTES, 1)).await.ok()?;
        reached = Reached::Stored;
        until(&world, &fuse, async |w| whole(w, "file").await).await?;
        left.push(fuse.left());
        let (_, holder, _) = holders(&world, "file", 0).await[2];
        let agreement = world.shared.agreements_with(&holder)[0].clone();
        let sequences = vec![agreement.with_state(|state| state.live())[0].sequence];
        let notice = Notice::Lost { agreement: agreement.number, sequences, found_by: FoundBy::Read };
        world.shared.notice_surely(notice).await;
        let elsewhere =
            async |w: &World| agreement.with_state(|state| state.live().is_empty()) && whole(w, "file").await;
        until(&world, &fuse, elsewhere).await?;
        left.push(fuse.left());
        let removed = world.shared.catalogue.remove(b"file".to_vec());
        reached = Reached::Removing;
        removed.await.ok()??;
        reached = Reached::Removed;
        until(&world, &fuse, async |w| w.shared.catalogue.jobs(0, 9).await.is_ok_and(|jobs| jobs.is_empty()))
            .await?;
        reached = Reached::Freed;
        left.push(fuse.left());
        Some(())
    };
    // A wait inside the work may be for a catalogue that has ended.
    let cut = async {
        while fuse.left() >= 0 {
            world.shared.common.environment.sleep(Duration::from_millis(50)).await;
        }
    };
    futures::future::select(std::pin::pin!(parts), std::pin::pin!(cut)).await;
    (reached, left, world.ledger.clone())
}

/// Waits until `done` holds; `None` after the cut.
async fn until(world: &World, fuse: &Fuse, mut done: impl AsyncFnMut(&World) -> bool) -> Option<()> {
    loop {
        if fuse.left() < 0 {
            return None;
        }
        if done(world).await {
            return Some(());
        }
        world.shared.common.environment.sleep(Duration::from_millis(100)).await;
    }
}

/// The runtime of one cut; the fate of unsynced bytes follows from its number.
fn runner(operation: i64) -> deterministic::Runner {
    let mode = if operation % 2 == 0 { PartialWriteMode::Prefix } else { PartialWriteMode::Subset };
    let retention_rate = Probability::new(operation as u64 * 37 % 101, 100).expect("a percentage");
    let write = WriteConfig { failure_rate: probability!(0.0), retention_rate, mode };
    let limit = Some(Duration::from_secs(900));
    let config = deterministic::Config::default().with_seed(1).with_timeout(limit);
    deterministic::Runner::new(config.with_storage_fault_config(FaultConfig::default().write(write)))
}

/// Holds the state after a cut against what was acknowledged, and frees all space again.
async fn check(context: Context, operation: i64, reached: Reached, ledger: Arc<Ledgered>) {
    let world = World::start_on(&context, context.child("catalogue"), roomy, ledger).await;
    let read = world.get("file").await;
    let is_there = world.shared.catalogue.file(b"file".to_vec()).await.expect("runs").is_some();
    match reached {
        Reached::Stored => assert!(read.is_ok(), "operation {operation}: {read:?}"),
        Reached::Removed | Reached::Freed => assert!(!is_there, "operation {operation}: it is back"),
        // The catalogue may have it, or not; it is never half there.
        Reached::Nothing | Reached::Removing => assert_eq!(read.is_ok(), is_there, "operation {operation}"),
    }
    if let Ok(read) = read {
        assert!(read == bytes(BYTES, 1), "operation {operation}");
        world.until("eight holders", async |w| whole(w, "file").await).await;
        world.shared.catalogue.remove(b"file".to_vec()).await.expect("runs").expect("it is there");
    }
    world.until("all space comes back", async |w| w.leaves() == 0).await;
    let jobs = async |w: &World| w.shared.catalogue.jobs(0, 9).await.expect("runs").is_empty();
    world.until("no job is left", jobs).await;
    let numbers: BTreeSet<u32> = world.shared.agreements().iter().map(|agreement| agreement.number).collect();
    assert_eq!(numbers, (0..10).collect(), "operation {operation}: the same agreements");
    let empty = async |w: &World| {
        w.shared.agreements().iter().all(|agreement| agreement.with_state(|state| state.is_empty()))
    };
    world.until("no agreement holds or waits for anything", empty).await;
    world.put("again", &bytes(BYTES, 2)).await.expect("it goes on");
}

#[test]
fn a_power_cut_at_each_operation_of_a_put_a_repair_and_a_remove_loses_nothing_acknowledged_and_leaves_nothing_behind()
 {
    let (reached, left, _) = runner(1).start(|context| work(context, Fuse::after(NEVER)));
    assert_eq!((reached, left.len()), (Reached::Freed, 4), "without a cut");
    let ends: Vec<i64> = left.iter().map(|left| NEVER - left).collect();
    // A remove that waits for signatures does the same again and again: some of its later operations stand for all.
    let all = (ends[0]..ends[2] + BEGUN).chain((ends[2] + BEGUN..=ends[3]).step_by(SOME));
    let mut seen = BTreeSet::new();
    for operation in all {
        let cut = |context| work(context, Fuse::after(operation));
        let ((reached, _, ledger), checkpoint) = runner(operation).start_and_recover(cut);
        seen.insert(reached);
        deterministic::Runner::from(checkpoint).start(|context| check(context, operation, reached, ledger));
    }
    for reached in [Reached::Nothing, Reached::Stored, Reached::Removed] {
        assert!(seen.contains(&reached), "{reached:?} of {seen:?}, {ends:?}");
    }
}

/// The gateway then ends, and its supervisor starts it again.
#[test]
fn a_disk_that_is_full_in_the_middle_of_a_put_costs_nothing_acknowledged_and_all_goes_on_when_there_is_room()
{
    for millis in [0, 4, 8, 16, 32] {
        let ((second, ledger), checkpoint) = runner(1).start_and_recover(|context| async move {
            let fuse = Fuse::after(NEVER);
            let disk = Cut::new(context.child("catalogue"), fuse.clone());
            let world = World::start_on(&context, disk, roomy, Arc::default()).await;
            world.put("first", &bytes(BYTES, 1)).await.expect("there is room");
            let fills = async {
                world.shared.common.environment.sleep(Duration::from_millis(millis)).await;
                fuse.set_full(true);
            };
            let plain = bytes(BYTES, 2);
            let (second, ()) = futures::join!(world.put("second", &plain), fills);
            assert!(world.put("third", &bytes(BYTES, 3)).await.is_err(), "nothing can be recorded");
            (second.is_ok(), world.ledger.clone())
        });
        deterministic::Runner::from(checkpoint).start(|context| async move {
            let world = World::start_on(&context, context.child("catalogue"), roomy, ledger).await;
            assert!(world.get("first").await.expect("acknowledged") == bytes(BYTES, 1), "{millis}");
            let read = world.get("second").await;
            assert!(!second || read.is_ok_and(|read| read == bytes(BYTES, 2)), "{millis}: acknowledged");
            assert!(world.get("third").await.is_err(), "{millis}: refused");
            world.put("third", &bytes(BYTES, 3)).await.expect("there is room");
            for name in ["first", "second", "third"] {
                world.shared.catalogue.remove(name.as_bytes().to_vec()).await.expect("runs");
            }
            world.until("all space comes back", async |w| w.leaves() == 0).await;
            let jobs = async |w: &World| w.shared.catalogue.jobs(0, 9).await.expect("runs").is_empty();
            world.until("no job is left", jobs).await;
        });
    }
}
