//! A workload of every change, cut at any point: what was acknowledged is there, the change under
//! way is there whole or not at all.

use super::{row::*, *};
use crate::coding::SHARDS;
use commonware_runtime::{
    Runner as _, Supervisor as _,
    deterministic::{Config, FaultConfig, PartialWriteMode, Runner, WriteConfig},
};
use commonware_utils::{Probability, probability};
use posync_protocol::{Account, AgreementId, Amount, Bounded, operation::DataSetClaim};

const STEPS: u64 = 60;

fn agreement(deed: u32) -> AgreementId {
    AgreementId { provider: Account([deed as u8; 32]), slot: deed, opened: 7 }
}

fn deed_row(deed: u32, stage: u8) -> DeedRow {
    DeedRow {
        agreement: agreement(deed),
        stage,
        end_epoch: 99,
        quota_leaves: 1 << 21,
        quota_egress: 1 << 30,
        voucher_reserve: Amount::sync(28),
        egress_price: 1,
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

fn agreed(deed: u32, version: u64, adds: Vec<Added>, removes: Vec<Removed>) -> Agreed {
    let claim = DataSetClaim { agreement: agreement(deed), version, root: [0; 32], leaves: 0, bytes: 0 };
    Agreed {
        deed,
        row: SetRow { version, sequence: version * 10 },
        claim: SignedClaim { claim, signature: [2; 64] },
        adds,
        removes,
    }
}

/// The `step`-th change: a cycle of fourteen that puts, replaces, signs, drops, repairs and removes.
async fn change(catalogue: &Catalogue, step: u64) -> Result<(), Stopped> {
    let round = step / 14;
    let id = |n: u64| -> FileId { std::array::from_fn(|i| if i < 8 { (round * 4 + n) as u8 } else { 0 }) };
    let job = || async {
        let begun = catalogue.begin(id(step % 14), 1).await?;
        catalogue.place(id(step % 14), 0, segment_row()).await.map(|()| begun)
    };
    match step % 14 {
        0 => drop(catalogue.add_deed(deed_row(round as u32, 0)).await?),
        1 => drop(job().await?),
        2 => {
            let adds = (0..6).map(|i| added(id(1), i, u64::from(i))).collect::<Vec<_>>();
            let intent = agreed(round as u32, 1, vec![], vec![]).claim.claim;
            let adds = Bounded::new(adds).expect("six");
            let removes = Bounded::new(vec![]).expect("none");
            catalogue.intend(round as u32, Intent { claim: intent, adds, removes }).await?;
        }
        3 => {
            let adds = (0..6).map(|i| added(id(1), i, u64::from(i))).collect();
            catalogue.agreed(agreed(round as u32, 1, adds, vec![])).await?;
        }
        4 => drop(catalogue.finish(0, file_row("one", id(1))).await?),
        5 => drop(job().await?),
        6 => drop(catalogue.finish(0, file_row("one", id(5))).await?),
        7 => catalogue.drop_holdings(round as u32, vec![added(id(1), 2, 2)]).await?,
        8 => {
            let removes = vec![Removed { file: id(1), segment: 0, sequence: 2 }];
            catalogue.agreed(agreed(round as u32, 2, vec![added(id(1), 2, 10)], removes)).await?;
        }
        9 if round.is_multiple_of(2) => catalogue.put_paid(round as u32, PaidRow { egress: step }).await?,
        9 => catalogue.settled(round as u32, 1).await?,
        10 => drop(catalogue.remove(b"one".to_vec()).await?),
        11 => {
            let row = FaultRow { provider: Account([1; 32]), found_by: 0, round: step, lost: 1, repaired: 0 };
            catalogue.add_fault(row).await?;
        }
        12 => catalogue.put_deed(round as u32, deed_row(round as u32, 3)).await?,
        _ => catalogue.erase_holdings(round as u32, vec![added(id(1), 0, 0)]).await?,
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

/// The picture after each number of steps, without faults.
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
                // The power goes in the middle of a change.
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
