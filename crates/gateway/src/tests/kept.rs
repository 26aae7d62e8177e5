//! Agreements whose providers sign no removal, or take no shard that moves: what they cost, and how they end.

use super::world::{
    Context, Ledgered, MASTER, Verdict, World, bytes, holders, index_of, name_of, open, roomy, row, usages,
    whole,
};
use crate::{
    agreement::OwnAgreement,
    agreements::{
        Policy,
        barred::Barred,
        forget,
        policy::{Posted, Quota, wanted},
        state::{AgreementStep, Around, Stage, View, judge},
        successor,
    },
    catalogue::{self, row::FileRow},
    coding::SEGMENT_BYTES,
    renew,
    repair::{Notice, state::FoundBy},
    transfer,
};
use commonware_runtime::{Clock as _, Runner as _, Supervisor as _, deterministic};
use futures::{StreamExt as _, stream};
use posync_protocol::{
    Account, Amount, Bounded, Class, PerClass,
    limits::Parameters,
    record::{Audit, Offer, Pair, Provider, Reputation},
    wire::provider::{Ask, Refusal},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

const P: Parameters = Parameters::LOCAL;
/// Looks after which the ledger removes a closed agreement.
const REDEEMED: u32 = 20;
/// Blocks in a second.
const BLOCKS: u64 = 4;

fn run<Fut: Future<Output = ()>>(work: impl FnOnce(Context) -> Fut) {
    let config = deterministic::Config::default().with_seed(1).with_timeout(Some(Duration::from_secs(1_200)));
    deterministic::Runner::new(config).start(work);
}

/// A provider with room, as the ledger shows it.
fn view(barred: bool) -> View {
    let offer = Offer {
        operator: [0; 32],
        capacity: PerClass::new(1 << 23, 1 << 42, 0),
        reserve: PerClass::all(0),
        term_max: 720,
        region: Bounded::default(),
    };
    let provider = Provider { bond: Amount::sync(100_000), ..Provider::default() };
    let (audit, reputation) = (Audit::default(), Reputation::newborn(0));
    View { offer, provider, audit, reputation, measured: None, barred }
}

fn posted(height: u64) -> Posted {
    let prices = P.prices.map(|price: u128| Pair { price: price as u64, slow: price as u64 });
    Posted { prices, balance: Amount::sync(1_000_000), height }
}

/// The account's task that keeps the agreements, on the ledger of these tests: once a second it opens, judges, moves
/// and closes.
async fn keep(world: &World) {
    let (shared, versions) = (world.shared.clone(), world.versions.clone());
    let accounts: Vec<Account> = world.providers.iter().map(|provider| provider.account).collect();
    let (policy, drain) = (Policy::of(&P), renew::drainer(&shared));
    shared.common.environment.clone().spawn(async move {
        let (mut barred, mut read, mut closed) = (Barred::default(), BTreeMap::new(), BTreeMap::new());
        loop {
            let height = shared.height.fetch_add(BLOCKS, Ordering::Relaxed);
            let epoch = P.epoch(height);
            let rows = usages(&shared, &mut read).await;
            barred.look(&rows, epoch);
            let views = accounts.iter().map(|of| (*of, view(barred.holds(of, &rows, epoch)))).collect();
            let wants = (&policy, shared.demand(10));
            for (account, opens) in wanted(&views, &BTreeSet::new(), &rows, wants, &posted(height), &P) {
                let index = accounts.iter().position(|of| *of == account).expect("one of ours");
                for asked in opens {
                    let (leaves, egress) = (asked.quota[Class::Storage], asked.quota[Class::Egress]);
                    open(&shared, &versions, index, Quota { leaves, egress }).await;
                }
            }
            let (mut all, mut away) = (Vec::new(), BTreeSet::new());
            for usage in rows {
                let agreement = shared.agreement(usage.number).expect("it was there");
                let around = Around {
                    successor: successor(&shared.consumer, &agreement, 0, epoch, &P).is_some(),
                    idle: false,
                    kept: false,
                    leaves: false,
                    egress_price: usage.row.egress_price,
                };
                let (step, is_away) = judge(&usage, epoch, around, &policy, &P);
                if is_away {
                    away.insert(usage.number);
                }
                let stage = |stage| agreement.set_terms(move |row| row.stage = stage as u8);
                match step {
                    AgreementStep::Drain => stage(Stage::Draining).await.expect("runs"),
                    AgreementStep::Close => stage(Stage::Closing).await.expect("runs"),
                    AgreementStep::Nothing if Stage::of(&usage.row) == Stage::Closing => {
                        let looks: &mut u32 = closed.entry(usage.number).or_default();
                        *looks += 1;
                        if *looks == REDEEMED {
                            forget(&shared.consumer, &agreement).await.expect("runs");
                        }
                    }
                    _ => {}
                }
                all.push((agreement, usage));
            }
            drain(&all, &away, epoch);
            shared.common.environment.sleep(Duration::from_secs(1)).await;
        }
    });
}

/// Number of agreements that were ever opened with a provider.
fn opened(world: &World, index: usize) -> usize {
    world.versions.lock().keys().filter(|(of, _)| *of == index).count()
}

fn held_bytes(agreement: &OwnAgreement) -> u64 {
    agreement.with_state(|state| state.live()).iter().map(|entry| u64::from(entry.bytes)).sum()
}

/// Has provider `index` sign no removal for a reason.
async fn refuse_removals(world: &mut World, index: usize, reason: Refusal) {
    let judge = move |ask: &Ask| match ask {
        Ask::Sign(sign) if !sign.removes.is_empty() => Verdict::Refuses(reason, "the parent is unknown"),
        _ => Verdict::Answers,
    };
    world.judge([index], judge).await;
}

/// It would otherwise sell every shard again under a new agreement, be paid for what was removed, and hold the users'
/// quotas.
#[test]
fn a_provider_that_signs_no_removal_sells_at_most_one_copy_and_keeps_nothing_pending() {
    for reason in [Refusal::Claim, Refusal::Busy] {
        run(move |context| async move {
            let mut world = World::start(&context).await;
            for file in 0..6 {
                let name = format!("file {file}");
                world.put(&name, &bytes(300_000, file)).await.expect("stored");
                world.until("eight holders", async |w| whole(w, &name).await).await;
            }
            let provider = holders(&world, "file 0", 0).await[2].1;
            let index = index_of(&world, &provider);
            let agreement = world.shared.agreements_with(&provider)[0].clone();
            let (copy, before) = (held_bytes(&agreement), agreement.egress().await);
            refuse_removals(&mut world, index, reason).await;
            for file in 0..2 {
                let removed = world.shared.catalogue.remove(format!("file {file}").into_bytes()).await;
                removed.expect("runs").expect("it was there");
            }
            keep(&world).await;
            let freed = async |w: &World| w.shared.catalogue.jobs(0, 9).await.expect("runs").is_empty();
            world.until("what was removed is pending no longer", freed).await;
            let bought = agreement.egress().await - before;
            assert!(bought < copy, "{bought} bytes of {copy} were bought");
            context.sleep(Duration::from_secs(60)).await;
            assert_eq!(opened(&world, index), 1, "no other agreement with it");
            for file in 2..6 {
                let name = format!("file {file}");
                let moved = async |w: &World| {
                    let holders = holders(w, &name, 0).await;
                    holders.len() == 8 && holders.iter().all(|(_, holder, _)| *holder != provider)
                };
                world.until("others hold what it held", moved).await;
                assert!(world.get(&name).await.expect("eight serve") == bytes(300_000, file));
            }
        });
    }
}

/// Each look would read every shard again, at the price of egress.
#[test]
fn a_provider_that_takes_no_shard_that_moves_sells_a_few_copies_and_not_one_at_each_look() {
    run(|context| async move {
        let mut world = World::start(&context).await;
        world.put("file", &bytes(300_000, 1)).await.expect("stored");
        world.until("eight holders", async |w| whole(w, "file").await).await;
        let provider = holders(&world, "file", 0).await[2].1;
        let index = index_of(&world, &provider);
        let old = world.shared.agreements_with(&provider)[0].clone();
        let (copy, before) = (held_bytes(&old), old.egress().await);
        world.open_more(index, Quota { leaves: 1 << 20, egress: 1 << 40 }).await;
        old.set_terms(|row| row.stage = Stage::Draining as u8).await.expect("runs");
        let judge = |ask: &Ask| match ask {
            Ask::Put(_) => Verdict::Refuses(Refusal::Busy, "too much to do"),
            _ => Verdict::Answers,
        };
        world.judge([index], judge).await;
        keep(&world).await;
        context.sleep(Duration::from_secs(300)).await;
        let egress = async || {
            let mut all = 0;
            for agreement in world.shared.agreements_with(&provider) {
                all += agreement.egress().await;
            }
            all - before
        };
        let bought = egress().await;
        assert!(bought > 0, "it is asked to take it");
        assert!(bought <= 10 * copy, "{bought} bytes, {copy} are held");
        world.reconnect(index).await;
        world.until("it takes it in time", async |_| held_bytes(&old) == 0).await;
        assert!(world.get("file").await.expect("read") == bytes(300_000, 1));
    });
}

/// Each try would read four shards again, at the price of egress.
#[test]
fn what_is_rebuilt_and_taken_by_nobody_is_read_ever_less_often() {
    run(|context| async move {
        let mut world = World::start(&context).await;
        world.put("file", &bytes(300_000, 1)).await.expect("stored");
        world.until("eight holders", async |w| whole(w, "file").await).await;
        let provider = holders(&world, "file", 0).await[2].1;
        let agreement = world.shared.agreements_with(&provider)[0].clone();
        let lost = agreement.with_state(|state| state.live())[0];
        let bought = async |world: &World| {
            let mut all = 0;
            for agreement in world.shared.agreements() {
                all += agreement.egress().await;
            }
            all / u64::from(lost.bytes)
        };
        let before = bought(&world).await;
        let judge = |ask: &Ask| match ask {
            Ask::Put(_) => Verdict::Refuses(Refusal::Busy, "too much to do"),
            _ => Verdict::Answers,
        };
        world.judge(0..10, judge).await;
        let (sequences, found_by) = (vec![lost.sequence], FoundBy::Read);
        world.shared.notice_surely(Notice::Lost { agreement: agreement.number, sequences, found_by }).await;
        context.sleep(Duration::from_secs(300)).await;
        let shards = bought(&world).await - before;
        assert!((4..=50).contains(&shards), "{shards} shards were bought");
        for index in 0..10 {
            world.reconnect(index).await;
        }
        world.until("it is rebuilt in time", async |w| whole(w, "file").await).await;
    });
}

/// Versions of the first ten agreements, by number.
fn versions(world: &World) -> Vec<u64> {
    let of = |number| world.shared.agreement(number).expect("open").with_state(|state| state.version());
    (0..10).map(of).collect()
}

/// True if the ledger has all that was signed.
fn settled(world: &World) -> bool {
    world.shared.agreements().iter().all(|agreement| agreement.waiting().is_none())
}

fn runner() -> deterministic::Runner {
    let limit = Some(Duration::from_secs(1_200));
    deterministic::Runner::new(deterministic::Config::default().with_seed(1).with_timeout(limit))
}

/// A gateway with the catalogue on its disk, on a ledger that ran before.
async fn resumed(context: &Context, ledger: Arc<Ledgered>) -> World {
    World::start_on(context, context.child("catalogue"), roomy, ledger).await
}

/// A backup of the catalogue, which is replaced by the one in `other` if there is one.
async fn swap(context: &Context, other: Option<&[u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    catalogue::backup(context.child("backup"), "gateway", &mut out).await.expect("it is sound");
    if let Some(other) = other {
        catalogue::erase(context, "gateway").await.expect("goes");
        catalogue::restore(context.child("restore"), "gateway", || Ok(other)).await.expect("it is whole");
    }
    out
}

/// Waits until a gateway from a backup has moved the file "old" to new agreements, and for two minutes more.
async fn moved(context: &Context, world: &World) {
    keep(world).await;
    let moved = async |w: &World| {
        let row = row(w, "old", 0).await;
        (0..8).all(|position| row.holder(position).is_some_and(|holding| holding.agreement >= 10))
    };
    world.until("what it knows has moved to new agreements", moved).await;
    context.sleep(Duration::from_secs(120)).await;
    assert!(world.get("old").await.expect("read") == bytes(300_000, 1));
}

/// A catalogue that is newer than the backup exists, and is not in use meanwhile. The ledger has its last data sets.
#[test]
fn a_restored_gateway_closes_and_empties_no_agreement_under_which_a_newer_catalogue_has_files() {
    let ledger = Arc::<Ledgered>::default();
    let seen = ledger.clone();
    let ((), checkpoint) = runner().start_and_recover(|context| async move {
        let world = resumed(&context, seen).await;
        world.put("old", &bytes(300_000, 1)).await.expect("stored");
        world.until("the ledger has it", async |w| whole(w, "old").await && settled(w)).await;
    });
    let backup = |context: Context| async move { swap(&context, None).await };
    let (backup, checkpoint) = deterministic::Runner::from(checkpoint).start_and_recover(backup);
    let seen = ledger.clone();
    let (newer, checkpoint) =
        deterministic::Runner::from(checkpoint).start_and_recover(|context| async move {
            let world = resumed(&context, seen).await;
            for file in 0..6 {
                let name = format!("new {file}");
                world.put(&name, &bytes(300_000, 10 + file)).await.expect("stored");
                world.until("eight holders", async |w| whole(w, &name).await).await;
            }
            world.until("the ledger has them", async |w| settled(w)).await;
            versions(&world)
        });
    let restore = |context: Context| async move { swap(&context, Some(&backup[..])).await };
    let (whole, checkpoint) = deterministic::Runner::from(checkpoint).start_and_recover(restore);
    let seen = ledger.clone();
    let ((), checkpoint) = deterministic::Runner::from(checkpoint).start_and_recover(|context| async move {
        let world = resumed(&context, seen).await;
        let before = versions(&world);
        let changed: Vec<usize> = (0..10).filter(|at| before[*at] < newer[*at]).collect();
        assert!(changed.len() >= 8, "{before:?} {newer:?}");
        moved(&context, &world).await;
        for at in changed {
            let agreement = world.shared.agreement(at as u32).expect("it is not forgotten");
            assert_eq!(Stage::of(&agreement.terms()), Stage::Draining, "{at} is not closed");
            assert_eq!(agreement.with_state(|state| state.version()), before[at], "{at} is not changed");
        }
    });
    // Its owner finds the newer catalogue, and goes on with it.
    deterministic::Runner::from(checkpoint).start(|context| async move {
        swap(&context, Some(&whole[..])).await;
        let world = resumed(&context, ledger).await;
        for file in 0..6 {
            let read = world.get(&format!("new {file}")).await;
            assert!(read.expect("nothing of it is gone") == bytes(300_000, 10 + file));
        }
    });
}

/// A put was under way when the backup was taken, and ended well. No data set changed since.
#[test]
fn a_restored_gateway_removes_no_shard_of_a_put_that_ended_after_the_backup() {
    let ledger = Arc::<Ledgered>::default();
    let seen = ledger.clone();
    let ((), checkpoint) = runner().start_and_recover(|context| async move {
        let world = resumed(&context, seen).await;
        world.put("old", &bytes(300_000, 1)).await.expect("stored");
        let (shared, share) = (world.shared.clone(), world.share.clone());
        let first =
            bytes(SEGMENT_BYTES, 2).chunks(1 << 20).map(|piece| Ok(piece.to_vec())).collect::<Vec<_>>();
        world.shared.common.environment.spawn(async move {
            let pieces = stream::iter(first).chain(stream::pending()).boxed();
            let put = transfer::put(&shared, &share, name_of("new"), 2 * SEGMENT_BYTES as u64, pieces);
            panic!("it waits for its second half: {:?}", put.await);
        });
        let signed = async |w: &World| {
            let jobs = w.shared.catalogue.jobs(0, 9).await.expect("runs");
            let Some((_, job)) = jobs.first() else { return false };
            let row = w.shared.catalogue.segment(job.file, 0).await.expect("runs");
            row.is_some_and(|row| row.open_positions().next().is_none()) && settled(w)
        };
        world.until("its first segment is signed for", signed).await;
    });
    let ((backup, whole), checkpoint) =
        deterministic::Runner::from(checkpoint).start_and_recover(|context| async move {
            let backup = swap(&context, None).await;
            // The put ends; its second half is left out.
            let started = catalogue::start(context.child("newer"), "gateway", MASTER).await;
            let (newer, _, disk) = started.expect("opens");
            let (number, job) = newer.jobs(0, 9).await.expect("runs")[0];
            let (length, blake3) = (SEGMENT_BYTES as u64, *blake3::hash(&bytes(SEGMENT_BYTES, 2)).as_bytes());
            let (name, owner) = (name_of("new"), job.owner);
            let file = FileRow { name, id: job.file, bytes: length, blake3, segments: 1, owner };
            newer.finish(number, file).await.expect("runs").expect("room");
            drop(newer);
            disk.await.expect("ends").expect("no disk error");
            let whole = swap(&context, Some(&backup[..])).await;
            (backup, whole)
        });
    assert_ne!(backup, whole);
    let seen = ledger.clone();
    let ((), checkpoint) = deterministic::Runner::from(checkpoint).start_and_recover(|context| async move {
        let world = resumed(&context, seen).await;
        moved(&context, &world).await;
        assert!(world.get("new").await.is_err(), "it does not know it");
    });
    deterministic::Runner::from(checkpoint).start(|context| async move {
        swap(&context, Some(&whole[..])).await;
        let world = resumed(&context, ledger).await;
        assert!(world.get("new").await.expect("nothing of it is gone") == bytes(SEGMENT_BYTES, 2));
    });
}
