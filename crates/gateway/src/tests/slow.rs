//! Slow is not lost, and full is not final: a caller or provider that stalls holds up no other, and no
//! single provider decides whether a put succeeds.

use super::{
    served::Served,
    world::{Context, Ledgered, Verdict, World, account, bytes, holders, index_of, refusal, send},
};
use crate::{repair::Notice, transfer::Error};
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_runtime::{Clock as _, Runner as _, Supervisor as _, deterministic};
use futures::{FutureExt as _, future::join_all};
use posync_client::rpc;
use posync_consumer::{environment::Environment, peer::Dialer};
use posync_protocol::wire::{
    gateway::{self, GatewayAnswer},
    provider::{Ask, Refusal},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

fn runner(seconds: u64) -> deterministic::Runner {
    let limit = Some(Duration::from_secs(seconds));
    deterministic::Runner::new(deterministic::Config::default().with_seed(1).with_timeout(limit))
}

fn run<Fut: Future<Output = ()>>(work: impl FnOnce(Context) -> Fut) {
    runner(900).start(work);
}

fn key(seed: u64) -> PrivateKey {
    PrivateKey::from_seed(77_000 + seed)
}

async fn serve(context: &Context, world: &World) -> Served {
    world.serve(context, account(&key(0)), &[account(&key(1))]).await
}

async fn timed<T>(context: &Context, work: impl Future<Output = T>) -> (T, Duration) {
    let before = context.current();
    let done = work.await;
    (done, context.current().duration_since(before).expect("time goes on"))
}

async fn whole(world: &World, name: &str) -> bool {
    let catalogue = &world.shared.catalogue;
    let file = catalogue.file(name.as_bytes().to_vec()).await.expect("runs").expect("there");
    let file = catalogue.describe(file).await.expect("runs");
    file.shards_durable == file.shards
}

const MIB: usize = 1 << 20;

#[test]
fn uploads_that_stall_hold_up_nobody() {
    run(|context| async move {
        let world = World::start(&context).await;
        let served = serve(&context, &world).await;
        let slow = served.dial(&key(0)).await;
        let mut stalled = Vec::new();
        for number in 0..12 {
            let call = slow.begin(&format!("slow {number}"), 20 * MIB).await;
            // Some send no bytes, some a part of a segment, some a segment and a part.
            for piece in bytes([0, MIB / 16, 4 * MIB + MIB / 8][number % 3], 1).chunks(64 << 10) {
                send(&call, piece).await;
            }
            stalled.push(call);
        }
        context.sleep(Duration::from_secs(100)).await;
        for who in [served.dial(&key(0)).await, served.dial(&key(1)).await] {
            let plain = bytes(3 * MIB, 2);
            let (stored, took) = timed(&context, who.put("file", &plain)).await;
            assert!(matches!(stored, GatewayAnswer::Stored(_)), "{stored:?}");
            assert!(took < Duration::from_secs(2), "{took:?}");
            assert!(who.get("file").await == Ok(plain));
        }
        drop(stalled);
    });
}

#[test]
fn a_source_that_pauses_is_no_error() {
    runner(20_000).start(|context| async move {
        let world = World::start(&context).await;
        let served = serve(&context, &world).await;
        let user = served.dial(&key(0)).await;
        let mut call = user.begin("paused", 6).await;
        for (pause, piece) in [(65, "he"), (600, "ll"), (2_500, "o\n")] {
            context.sleep(Duration::from_secs(pause)).await;
            send(&call, piece.as_bytes()).await;
            let stored = if piece == "o\n" { call.recv().await } else { None };
            assert!(
                stored.is_none_or(|answer| matches!(answer, GatewayAnswer::Stored(_))),
                "after {pause} s"
            );
        }
        assert_eq!(user.get("paused").await, Ok(b"hello\n".to_vec()));
    });
}

#[test]
fn every_end_of_a_put_has_its_own_reason() {
    runner(20_000).start(|context| async move {
        let world = World::start(&context).await;
        let served = serve(&context, &world).await;
        let user = served.dial(&key(0)).await;
        let mut cancelled = user.begin("file", 6).await;
        cancelled.send(&gateway::Ask::Cancel(Default::default())).await.expect("it is connected");
        assert!(refusal(&cancelled.recv().await.expect("an answer")).contains("was cancelled"));
        let mut odd = user.begin("file", 6).await;
        odd.send(&gateway::Ask::List(Default::default())).await.expect("it is connected");
        assert!(refusal(&odd.recv().await.expect("an answer")).contains("something else came"));
        let mut long = user.begin("file", 6).await;
        send(&long, b"sevenxx").await;
        assert!(refusal(&long.recv().await.expect("an answer")).contains("7 of 6 announced bytes"));
        let mut slow = user.begin("file", 6).await;
        send(&slow, b"five").await;
        let (answer, took) = timed(&context, slow.recv()).await;
        let said = refusal(&answer.expect("an answer"));
        assert!(said.contains("arrived in 3600s of waiting") && !said.contains("cancelled"), "{said}");
        assert!(took > Duration::from_secs(3500), "{took:?}");
        assert!(user.get("file").await.expect_err("nothing is stored").contains("there is no file"));
    });
}

#[test]
fn a_reader_at_150_kilobytes_a_second_gets_its_file() {
    run(|context| async move {
        let world = World::start(&context).await;
        let served = serve(&context, &world).await;
        let user = served.dial(&key(0)).await;
        // More than a window of the largest messages, so the reader has to grant more.
        let plain = bytes(34 * MIB, 3);
        assert!(matches!(user.put("file", &plain).await, GatewayAnswer::Stored(_)));
        let (mut call, _) = user.open("file").await;
        let mut got = Vec::new();
        while got.len() < plain.len() {
            match call.recv().await.expect("an answer") {
                GatewayAnswer::Data(data) => {
                    context.sleep(Duration::from_micros(data.len() as u64 * 1_000 / 150)).await;
                    got.extend_from_slice(&data);
                }
                other => panic!("after {} bytes: {other:?}", got.len()),
            }
        }
        assert!(got == plain);
    });
}

#[test]
fn readers_that_stall_hold_up_neither_others_nor_repair() {
    run(|context| async move {
        let mut world = World::start(&context).await;
        let served = serve(&context, &world).await;
        let (slow, user) = (served.dial(&key(0)).await, served.dial(&key(0)).await);
        let plain = bytes(5 * MIB, 3);
        assert!(matches!(user.put("file", &plain).await, GatewayAnswer::Stored(_)));
        world.until("eight holders", async |w| whole(w, "file").await).await;
        let mut stalled = Vec::new();
        for _ in 0..12 {
            stalled.push(slow.open("file").await);
        }
        context.sleep(Duration::from_secs(100)).await;
        for who in [&user, &served.dial(&key(1)).await] {
            assert!(matches!(who.put("other", &plain).await, GatewayAnswer::Stored(_)));
            let (got, took) = timed(&context, who.get("other")).await;
            assert!(got.is_ok_and(|got| got == plain));
            assert!(took < Duration::from_secs(5), "{took:?}");
        }
        let stopped = world.shared.agreements()[0].provider();
        world.providers[0].stop();
        world.shared.notice_surely(Notice::Late(stopped)).await;
        let moved = async |w: &World| {
            w.shared.agreements()[0].with_state(|state| state.live().is_empty()) && whole(w, "file").await
        };
        world.until("what it held is rebuilt", moved).await;
        drop(stalled);
    });
}

#[test]
fn nobody_waits_for_the_seventh_shard_and_the_file_is_whole_later() {
    for hangs_at_put in [true, false] {
        run(move |context| async move {
            let mut world = World::start(&context).await;
            let judge = move |ask: &Ask| match ask {
                Ask::Put(_) if hangs_at_put => Verdict::Hangs,
                Ask::Sign(_) => Verdict::Hangs,
                _ => Verdict::Answers,
            };
            world.judge([0, 1], judge).await;
            for number in 0..100 {
                let name = format!("file {number}");
                let (stored, took) = timed(&context, world.put(&name, &bytes(4096, number))).await;
                stored.expect("six others sign");
                assert!(took < Duration::from_millis(500), "{number}: {took:?}");
            }
            world.judge([0, 1], |_| Verdict::Answers).await;
            for number in 0..100 {
                let name = format!("file {number}");
                world.until("the other shards follow", async |w| whole(w, &name).await).await;
            }
        });
    }
}

/// Two providers store what they get and sign nothing for now, as when their data sets wait for the ledger.
#[test]
fn a_stopped_provider_holds_up_no_put_even_if_two_others_cannot_sign() {
    run(|context| async move {
        let mut world = World::start(&context).await;
        world.judge([3], |_| Verdict::Hangs).await;
        let full = |ask: &Ask| match ask {
            Ask::Sign(_) => Verdict::Refuses(Refusal::Busy, "32 signed versions wait"),
            _ => Verdict::Answers,
        };
        world.judge([5, 7], full).await;
        for number in 0..200 {
            let (stored, took) =
                timed(&context, world.put(&format!("file {number}"), &bytes(4096, number))).await;
            stored.expect("seven others sign");
            assert!(took < Duration::from_millis(500), "{number}: {took:?}");
            context.sleep(Duration::from_millis(100)).await;
        }
    });
}

#[test]
fn a_stopped_provider_is_offered_no_shard_of_a_put_until_it_answers() {
    run(|context| async move {
        let mut world = World::start(&context).await;
        let offers = Arc::new(AtomicU32::new(0));
        let count = offers.clone();
        let judge = move |ask: &Ask| {
            count.fetch_add(u32::from(matches!(ask, Ask::Put(_))), Ordering::Relaxed);
            Verdict::Hangs
        };
        world.judge([3], judge).await;
        let mut before = 0;
        for number in 0..300 {
            world.put(&format!("file {number}"), &bytes(4096, number)).await.expect("nine others");
            context.sleep(Duration::from_secs(1)).await;
            if number == 10 {
                before = offers.load(Ordering::Relaxed);
            }
        }
        assert!(before > 0, "it was asked");
        assert_eq!(offers.load(Ordering::Relaxed), before, "nine others can hold eight shards");
        let held = |w: &World| {
            w.shared.agreements_with(&w.providers[3].account)[0].with_state(|state| state.live().len())
        };
        let had = held(&world);
        world.reconnect(3).await;
        let mut number = 0;
        let again = async |w: &World| {
            number += 1;
            w.put(&format!("again {number}"), &bytes(4096, number)).await.expect("ten");
            held(w) > had
        };
        world.until("it is back, and is given shards again", again).await;
    });
}

#[test]
fn who_is_silent_is_remembered_and_asked_last() {
    run(|context| async move {
        let mut world = World::start(&context).await;
        // Four of ten hang: six are left, and each of them is needed.
        world
            .judge(
                [2, 4, 6, 8],
                |ask| if matches!(ask, Ask::Put(_)) { Verdict::Hangs } else { Verdict::Answers },
            )
            .await;
        let mut slow = 0;
        for number in 0..60 {
            let (stored, took) =
                timed(&context, world.put(&format!("file {number}"), &bytes(4096, number))).await;
            stored.expect("six others sign");
            assert!(took < Duration::from_secs(5), "{number}: {took:?}");
            slow += u32::from(took > Duration::from_millis(500));
            context.sleep(Duration::from_millis(500)).await;
        }
        assert!(slow <= 6, "{slow} of 60 waited for a silent provider");
    });
}

/// Cuts the power right after the acknowledgement, with two shards on their way.
#[test]
fn a_put_that_six_signed_is_whole_after_a_power_cut() {
    let plain = bytes(5 * MIB, 4);
    let ((), checkpoint) = runner(900).start_and_recover(|context| {
        let plain = plain.clone();
        async move {
            let mut world = World::start(&context).await;
            world
                .judge(
                    [0, 1],
                    |ask| if matches!(ask, Ask::Put(_)) { Verdict::Hangs } else { Verdict::Answers },
                )
                .await;
            let file = world.put("file", &plain).await.expect("six others sign");
            assert!(file.shards_durable >= 6 * file.segments, "{file:?}");
        }
    });
    deterministic::Runner::from(checkpoint).start(|context| async move {
        let world = World::start(&context).await;
        assert!(world.get("file").await.expect("acknowledged") == plain);
        world.until("eight holders", async |w| whole(w, "file").await).await;
    });
}

#[test]
fn busy_providers_end_no_put() {
    run(|context| async move {
        let mut world = World::start(&context).await;
        let (puts, signs) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let judge = move |ask: &Ask| {
            let busy = |count: &AtomicU32| count.fetch_add(1, Ordering::Relaxed) < 80;
            match ask {
                Ask::Put(_) if busy(&puts) => Verdict::Refuses(Refusal::Busy, "try again"),
                Ask::Sign(_) if busy(&signs) => Verdict::Refuses(Refusal::Busy, "32 signed versions wait"),
                _ => Verdict::Answers,
            }
        };
        world.judge(0..10, judge).await;
        let names: Vec<String> = (0..4).map(|number| format!("file {number}")).collect();
        for put in join_all(names.iter().map(|name| world.put(name, b"of a patient user"))).await {
            put.expect("they have time in a moment");
        }
    });
}

#[test]
fn a_failure_names_who_refused_and_why() {
    run(|context| async move {
        let mut world = World::start(&context).await;
        world
            .judge(0..10, |ask| match ask {
                Ask::Put(_) => Verdict::Refuses(Refusal::Space, "no space left\non this volume"),
                _ => Verdict::Answers,
            })
            .await;
        let failed = world.put("file", &bytes(1000, 1)).await.expect_err("nobody takes it");
        let Error::Unsigned(0, why) = &failed else { panic!("{failed:?}") };
        assert!(why.contains("no space left\\non this volume"), "why, without control characters: {why}");
        let named = world.providers.iter().filter(|provider| why.contains(&provider.account.to_string()));
        assert!(named.count() >= 3, "{why}");
        assert!(why.contains("others"), "and how many more: {why}");
        assert!(failed.to_string().len() < 1024, "{failed}");
    });
}

#[test]
fn a_failed_put_leaves_nothing_to_repair() {
    run(|context| async move {
        let mut world = World::start(&context).await;
        world
            .judge(
                [0, 1, 2],
                |ask| if matches!(ask, Ask::Put(_)) { Verdict::Hangs } else { Verdict::Answers },
            )
            .await;
        // Two segments are signed for by six or seven providers; the third never arrives in full.
        let pieces = bytes(9 * MIB, 5).chunks(MIB).map(<[u8]>::to_vec).collect();
        let failed = world.put_pieces("file", 12 * MIB as u64, pieces).await;
        assert!(matches!(failed, Err(Error::Incomplete(..))), "{failed:?}");
        let mut repairs = 0;
        for _ in 0..300 {
            context.sleep(Duration::from_millis(100)).await;
            repairs += world.shared.repairs_open.load(Ordering::Relaxed);
        }
        assert_eq!(repairs, 0, "nothing of it is repaired");
        world.judge([0, 1, 2], |_| Verdict::Answers).await;
        world.until("its space comes back", async |w| w.leaves() == 0).await;
        let jobs = async |w: &World| w.shared.catalogue.jobs(0, 9).await.expect("runs").is_empty();
        world.until("no job is left", jobs).await;
    });
}

/// A dialer whose dials take as long as the ledger says for each provider.
pub(super) fn far_dialer(
    near: Dialer<rpc::Provider>,
    seen: Arc<Ledgered>,
    environment: Environment,
) -> Dialer<rpc::Provider> {
    Arc::new(move |account, address| {
        let (near, environment) = (near.clone(), environment.clone());
        let time = seen.far.lock().get(&account).copied().unwrap_or_default();
        async move {
            environment.sleep(time).await;
            near(account, address).await
        }
        .boxed()
    })
}

/// Has provider 0 answer each request 300 ms after it came, as over a long way, and each get after `get`.
async fn answers_after(context: &Context, world: &mut World, get: Duration) {
    let (handler, clock) = (world.providers[0].handler.clone(), Arc::new(context.child("slow")));
    world
        .replace(0, move |call, ask| {
            let (handler, clock) = (handler.clone(), clock.clone());
            async move {
                clock.sleep(if matches!(ask, Ask::Get(_)) { get } else { Duration::from_millis(300) }).await;
                handler.handle(call, ask).await;
            }
        })
        .await;
}

/// Stores files until one has provider 0, whose dial takes 900 ms (three round trips of 300 ms), among its four data
/// shards. Returns the file's name and the provider of another of them.
async fn file_with_far(context: &Context, world: &mut World) -> (String, usize) {
    answers_after(context, world, Duration::from_millis(300)).await;
    let far = world.shared.agreements_with(&world.providers[0].account)[0].clone();
    far.peer.status().await.expect("it answers");
    eprintln!("its way: {:?}", far.peer.way());
    for number in 0..60 {
        let name = format!("file {number}");
        world.put(&name, &bytes(4096, number)).await.expect("stored");
        world.until("eight holders", async |w| whole(w, &name).await).await;
        world.shared.common.environment.sleep(Duration::from_secs(1)).await;
        let holders: Vec<usize> =
            holders(world, &name, 0).await.iter().map(|(_, account, _)| index_of(world, account)).collect();
        let doubtful = far.peer.is_doubtful();
        if holders[..4].contains(&0) && !doubtful {
            let other = holders[..4].iter().find(|index| **index != 0).expect("four");
            return (name, *other);
        }
    }
    panic!("no file has it");
}

/// A stopped near provider holds up a get for as long as before, though a far one is among those asked.
#[test]
fn a_far_provider_that_answered_makes_nobody_wait_longer_for_a_stopped_one() {
    run(|context| async move {
        let mut world = World::start(&context).await;
        world.ledger.far.lock().insert(world.providers[0].account, Duration::from_millis(900));
        let (name, other) = file_with_far(&context, &mut world).await;
        world.get(&name).await.expect("all answer");
        let hangs = |ask: &Ask| if matches!(ask, Ask::Get(_)) { Verdict::Hangs } else { Verdict::Answers };
        world.judge([other], hangs).await;
        let (got, took) = timed(&context, world.get(&name)).await;
        assert!(got.is_ok());
        assert!(took < Duration::from_millis(1_500), "{took:?}: it was 0.75 s before");
    });
}

/// A provider that answers its dials and its gets slowly on purpose is noticed and asked last.
#[test]
fn a_provider_that_is_slow_on_purpose_holds_up_no_second_get() {
    run(|context| async move {
        let mut world = World::start(&context).await;
        world.ledger.far.lock().insert(world.providers[0].account, Duration::from_millis(900));
        let (name, _) = file_with_far(&context, &mut world).await;
        answers_after(&context, &mut world, Duration::from_millis(2_700)).await;
        let far = world.shared.agreements_with(&world.providers[0].account)[0].clone();
        // The old connection ends with the first of these.
        drop(far.peer.status().await);
        far.peer.status().await.expect("it answers");
        let mut all = Vec::new();
        for _ in 0..6 {
            let (got, took) = timed(&context, world.get(&name)).await;
            assert!(got.is_ok());
            all.push(took);
        }
        assert!(all.iter().skip(1).all(|took| *took < Duration::from_millis(1_500)), "{all:?}");
    });
}
