//! Providers that refuse with each reason there is, in the middle of a put and of a get: others are taken, the user
//! hears of it only if too few are left, and what was not sent is not paid.

use super::world::{Context, Verdict, World, bytes, holders, index_of, whole};
use crate::transfer::Error;
use commonware_runtime::{Clock as _, Runner as _, deterministic};
use posync_protocol::wire::provider::{Ask, Refusal};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

fn run<Fut: Future<Output = ()>>(work: impl FnOnce(Context) -> Fut) {
    let config = deterministic::Config::default().with_seed(1).with_timeout(Some(Duration::from_secs(900)));
    deterministic::Runner::new(config).start(work);
}

/// Each reason for which a provider refuses.
const REASONS: [Refusal; 11] = [
    Refusal::Agreement,
    Refusal::Content,
    Refusal::Space,
    Refusal::Unknown,
    Refusal::Damaged,
    Refusal::Claim,
    Refusal::Voucher,
    Refusal::Credit,
    Refusal::Busy,
    Refusal::Shape,
    Refusal::Window,
];

/// The kind of request that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Put,
    Sign,
    Get,
}

/// Has providers refuse a kind of request with a reason; returns the count of the refusals.
async fn refuse(world: &mut World, who: &[usize], at: At, reason: Refusal) -> Arc<AtomicU32> {
    let count = Arc::new(AtomicU32::new(0));
    let counted = count.clone();
    let judge = move |ask: &Ask| match (at, ask) {
        (At::Put, Ask::Put(_)) | (At::Sign, Ask::Sign(_)) | (At::Get, Ask::Get(_)) => {
            counted.fetch_add(1, Ordering::Relaxed);
            Verdict::Refuses(reason, "for a test")
        }
        _ => Verdict::Answers,
    };
    world.judge(who.iter().copied(), judge).await;
    count
}

async fn signed_for(world: &World) -> u64 {
    let mut all = 0;
    for agreement in world.shared.agreements() {
        all += agreement.egress().await;
    }
    all
}

#[test]
fn a_put_goes_around_two_providers_that_refuse_it_for_any_reason() {
    for at in [At::Put, At::Sign] {
        run(move |context| async move {
            let mut world = World::start(&context).await;
            for (turn, reason) in REASONS.into_iter().enumerate() {
                let count = refuse(&mut world, &[2, 5], at, reason).await;
                let mut refused = 0;
                for file in 0..6 {
                    let name = format!("file {turn} {file}");
                    let plain = bytes(3_000, file);
                    world
                        .put(&name, &plain)
                        .await
                        .unwrap_or_else(|error| panic!("{at:?} {reason:?}: {error}"));
                    assert!(world.get(&name).await.expect("read") == plain, "{at:?} {reason:?}");
                    refused = count.load(Ordering::Relaxed);
                }
                // A provider that refused a moment ago may be passed over: then there is nothing to refuse.
                assert!(turn > 0 || refused > 0, "{at:?} {reason:?}: it was asked");
                for index in [2, 5] {
                    world.reconnect(index).await;
                }
            }
            for (turn, reason) in REASONS.into_iter().enumerate() {
                for file in 0..6 {
                    let name = format!("file {turn} {file}");
                    let eight = async |w: &World| whole(w, &name).await;
                    world.until(&format!("eight holders after {at:?} {reason:?}"), eight).await;
                }
            }
        });
    }
}

#[test]
fn a_put_that_all_providers_refuse_names_one_of_them_and_the_reason_and_its_space_comes_back() {
    for reason in REASONS {
        run(move |context| async move {
            let mut world = World::start(&context).await;
            let all: Vec<usize> = (0..10).collect();
            refuse(&mut world, &all, At::Put, reason).await;
            let failed = world.put("file", &bytes(3_000, 1)).await.expect_err("nobody takes it");
            assert!(matches!(failed, Error::Unsigned(..) | Error::Operators(..)), "{reason:?}: {failed:?}");
            let said = failed.to_string();
            let named = world.providers.iter().any(|provider| said.contains(&provider.account.to_string()));
            assert!(named && said.contains("for a test"), "{reason:?}: {said}");
            assert!(matches!(world.get("file").await, Err(Error::NoFile(_))), "{reason:?}");
            assert_eq!(signed_for(&world).await, 0, "{reason:?}: nothing was read");
            for index in 0..10 {
                world.reconnect(index).await;
            }
            let jobs = async |w: &World| w.shared.catalogue.jobs(0, 9).await.expect("runs").is_empty();
            world.until("no job is left", jobs).await;
            let stored = async |w: &World| w.put("file", &bytes(3_000, 1)).await.is_ok();
            world.until("it is stored once they take it", stored).await;
        });
    }
}

#[test]
fn a_get_goes_around_two_holders_that_refuse_it_for_any_reason_and_pays_the_others_alone() {
    for reason in REASONS {
        run(move |context| async move {
            let mut world = World::start(&context).await;
            let plain = bytes(40_000, 3);
            world.put("file", &plain).await.expect("stored");
            world.until("eight holders", async |w| whole(w, "file").await).await;
            // They hold data, not parity: they are asked first.
            let two = holders(&world, "file", 0).await[..2].to_vec();
            let two: Vec<usize> = two.iter().map(|(_, holder, _)| index_of(&world, holder)).collect();
            let count = refuse(&mut world, &two, At::Get, reason).await;
            let read = world.get("file").await;
            assert!(read.unwrap_or_else(|error| panic!("{reason:?}: {error}")) == plain);
            assert!(count.load(Ordering::Relaxed) > 0, "{reason:?}: they were asked");
            for index in &two {
                assert_eq!(world.egress(*index).await[0], 0, "{reason:?}: what it did not send is not paid");
                world.reconnect(*index).await;
            }
            context.sleep(Duration::from_secs(20)).await;
            world.until("eight holders", async |w| whole(w, "file").await).await;
            assert!(world.get("file").await.expect("read") == plain, "{reason:?}: afterwards");
        });
    }
}

#[test]
fn a_get_that_all_holders_refuse_for_any_reason_says_so_and_works_again_once_they_serve() {
    for reason in REASONS {
        run(move |context| async move {
            let mut world = World::start(&context).await;
            let plain = bytes(40_000, 3);
            world.put("file", &plain).await.expect("stored");
            world.until("eight holders", async |w| whole(w, "file").await).await;
            let all: Vec<usize> = (0..10).collect();
            refuse(&mut world, &all, At::Get, reason).await;
            let failed = world.get("file").await.expect_err("nobody sends it");
            assert!(matches!(failed, Error::Unreadable(0, _)), "{reason:?}: {failed:?}");
            assert_eq!(signed_for(&world).await, 0, "{reason:?}: nothing was sent, nothing is paid");
            for index in 0..10 {
                world.reconnect(index).await;
            }
            let read = async |w: &World| w.get("file").await.is_ok_and(|read| read == plain);
            world.until("it reads once they send it", read).await;
            world.until("eight holders", async |w| whole(w, "file").await).await;
        });
    }
}
