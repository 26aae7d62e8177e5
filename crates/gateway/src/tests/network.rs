//! Files through real providers: all sizes, any four holders, false answers, power cuts, repairs.

use super::world::{CHAIN, Context, MASTER, World, bytes, corrupt, holders, index_of, unconnected, whole};
use crate::{
    coding::{SEGMENT_BYTES, shard_bytes},
    repair::Notice,
    transfer::{Error, Reader},
};
use commonware_runtime::{Clock as _, Runner as _, deterministic};
use commonware_utils::channel::mpsc;
use posync_client::rpc;
use posync_consumer::{
    agreements::policy::Quota,
    sample::{
        self, Sample, SampleResult, Sampler,
        names::{Known, Named},
        state::moments,
    },
};
use posync_protocol::{
    Account, Bounded,
    agreement::credit_window,
    amount::ONE,
    limits::{Parameters, SLICE_BYTES},
    wire::provider::{Ask, ProviderAnswer, Slice},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

fn runner(seed: u64) -> deterministic::Runner {
    let config =
        deterministic::Config::default().with_seed(seed).with_timeout(Some(Duration::from_secs(900)));
    deterministic::Runner::new(config)
}

fn run<Fut: Future<Output = ()>>(work: impl FnOnce(Context) -> Fut) {
    runner(1).start(work);
}

#[test]
fn files_of_every_size_come_back() {
    run(|context| async move {
        let world = World::start(&context).await;
        let sizes = [0, 1, 255, 256, 65_537, SEGMENT_BYTES - 1, SEGMENT_BYTES, SEGMENT_BYTES + 1];
        for (index, size) in sizes.into_iter().enumerate() {
            let (name, plain) = (format!("dir/ü {index}"), bytes(size, index as u64));
            let file = world.put(&name, &plain).await.expect("stored");
            assert_eq!((file.bytes, file.blake3), (size as u64, *blake3::hash(&plain).as_bytes()));
            assert!(file.shards_durable >= file.segments * 6, "{file:?}");
            assert!(world.get(&name).await.expect("read") == plain, "{size} bytes");
        }
    });
}

#[test]
fn odd_names_and_refusals() {
    run(|context| async move {
        let world = World::start(&context).await;
        let longest = "ä".repeat(512);
        for name in ["a b", "a/b/../c", "-", "\u{1f600}", "line\nbreak", &longest] {
            world.put(name, name.as_bytes()).await.expect("stored");
        }
        for name in ["a b", "a/b/../c", "-", "\u{1f600}", "line\nbreak", &longest] {
            assert_eq!(world.get(name).await.expect("read"), name.as_bytes());
        }
        let listed = world.shared.catalogue.list(vec![]).await.expect("runs");
        let names: Vec<_> = listed.iter().map(|file| file.name.to_vec()).collect();
        assert!(names.is_sorted() && names.len() == 6);
        assert!(matches!(world.put("", b"x").await, Err(Error::Name)));
        assert!(matches!(world.get("nothing").await, Err(Error::NoFile(_))));
        let long = world.put_pieces("long", 3, vec![b"four".to_vec()]).await;
        assert!(matches!(long, Err(Error::Incomplete(4, 3))), "{long:?}");
        assert!(matches!(world.get("long").await, Err(Error::NoFile(_))), "nothing of it stays");
    });
}

#[test]
fn the_same_name_and_the_same_content_twice() {
    run(|context| async move {
        let world = World::start(&context).await;
        let (first, second) = (bytes(200_000, 1), bytes(100_000, 2));
        world.put("name", &first).await.expect("stored");
        world.put("other name", &first).await.expect("the same content");
        world
            .until("all shards signed", async |w| whole(w, "name").await && whole(w, "other name").await)
            .await;
        let both = world.leaves();
        world.put("name", &second).await.expect("replaced");
        assert!(world.get("name").await.expect("read") == second);
        assert!(world.get("other name").await.expect("read") == first);
        world.until("the old space comes back", async |w| w.leaves() < both).await;
        let other = world.shared.catalogue.file(b"other name".to_vec()).await.expect("runs").expect("there");
        world.shared.catalogue.remove(b"name".to_vec()).await.expect("runs").expect("there");
        world.shared.catalogue.remove(b"other name".to_vec()).await.expect("runs").expect("there");
        world.until("all space comes back", async |w| w.leaves() == 0).await;
        let jobs = async |w: &World| w.shared.catalogue.jobs(0, 9).await.expect("runs").is_empty();
        world.until("no job is left", jobs).await;
        let mut reader = Reader::open(&world.shared, &world.share, &other, 0, None).expect("its range");
        let error = reader
            .next()
            .await
            .map(|bytes| bytes.map(|bytes| bytes.len()))
            .expect_err("it was removed after its row was read");
        assert!(error.to_string().contains("removed or replaced"), "{error}");
    });
}

#[test]
fn any_four_of_its_eight_holders_may_be_gone() {
    run(|context| async move {
        let mut world = World::start(&context).await;
        let plain = bytes(300_000, 7);
        world.put("file", &plain).await.expect("stored");
        world.until("eight holders", async |w| whole(w, "file").await).await;
        let holders = holders(&world, "file", 0).await;
        let operators: BTreeSet<_> = holders.iter().map(|(_, account, _)| *account).collect();
        assert_eq!(operators.len(), 8, "one shard per operator");
        for (_, account, _) in &holders[..4] {
            let index = index_of(&world, account);
            world.providers[index].stop();
        }
        let before = context.current();
        assert!(world.get("file").await.expect("parity suffices") == plain);
        assert!(context.current().duration_since(before).expect("time goes on") < Duration::from_secs(5));
    });
}

#[test]
fn a_put_goes_around_a_stopped_provider() {
    run(|context| async move {
        let mut world = World::start(&context).await;
        for index in [0, 1] {
            world.providers[index].stop();
        }
        let plain = bytes(5 << 20, 3);
        world.put("file", &plain).await.expect("eight operators are left");
        world.until("eight holders", async |w| whole(w, "file").await).await;
        assert!(world.get("file").await.expect("read") == plain);
        for index in [2, 3, 4] {
            world.providers[index].stop();
        }
        let refused = world.put("more", &bytes(100, 1)).await;
        assert!(matches!(refused, Err(Error::Operators(..) | Error::Unsigned(..))), "{refused:?}");
    });
}

#[test]
fn a_corrupted_provider_is_routed_around_and_repaired() {
    let plain = bytes(2 * SEGMENT_BYTES, 5);
    let (before, checkpoint) = runner(1).start_and_recover(|context| {
        let plain = plain.clone();
        async move {
            let world = World::start(&context).await;
            world.put("file", &plain).await.expect("stored");
            world.until("eight holders", async |w| whole(w, "file").await).await;
            let holders = holders(&world, "file", 0).await;
            let index = index_of(&world, &holders[0].1);
            (holders, index)
        }
    });
    let (before, index) = before;
    deterministic::Runner::from(checkpoint).start(|context| async move {
        corrupt(&context, index).await;
        let world = World::start(&context).await;
        let corrupted = before[0].1;
        // A get runs during the repair.
        world.shared.notice_surely(Notice::Failed(corrupted)).await;
        assert!(world.get("file").await.expect("read") == plain);
        let moved = async |w: &World| {
            whole(w, "file").await && holders(w, "file", 0).await.iter().all(|(_, a, _)| *a != corrupted)
        };
        world.until("its shards have new holders", moved).await;
        let faults = world.shared.catalogue.faults().await.expect("runs");
        assert!(faults.iter().all(|(_, fault)| fault.provider == corrupted && fault.lost == fault.repaired));
        assert!(faults.iter().map(|(_, fault)| fault.lost).sum::<u32>() >= 1);
        assert!(world.get("file").await.expect("read") == plain);
        let after = holders(&world, "file", 0).await;
        assert!(before.iter().zip(&after).all(|(b, a)| b.2 == a.2), "the same names");
    });
}

async fn lie(call: &rpc::Incoming<rpc::Provider>) {
    let data = Bounded::new(vec![7; SLICE_BYTES as usize]).expect("a slice");
    let path = Bounded::new(vec![[1; 32]; 2]).expect("short");
    let slice = Slice { shard_bytes: 1 << 18, offset: 0, data, path, last: false };
    let _ = call.send(&ProviderAnswer::Slice(slice)).await;
}

/// The samples of all providers in the first epoch; `names` holds the shards that each is asked for.
async fn sampled(context: &Context, world: &World, names: BTreeMap<Account, Known>) -> Vec<Sample> {
    let (samples, mut taken) = mpsc::channel(64);
    let sampler = Sampler {
        shared: world.shared.consumer.clone(),
        ledger: unconnected(context, CHAIN),
        parameters: Parameters::LOCAL,
        secret: MASTER,
        samples: Some(samples),
        names: names.into(),
    };
    let environment = &world.shared.common.environment;
    environment.spawn(sample::start(Arc::new(sampler)));
    for height in 1..Parameters::LOCAL.epoch_blocks() {
        environment.sleep(Duration::from_millis(Parameters::LOCAL.block_ms)).await;
        world.shared.height.store(height, Ordering::Relaxed);
    }
    let mut samples = Vec::new();
    while let Ok(sample) = taken.try_recv() {
        samples.push(sample);
    }
    samples
}

#[test]
fn samples_tell_who_serves_and_fault_nobody_for_what_it_no_longer_owes() {
    run(|context| async move {
        let mut world = World::start(&context).await;
        world.put("file", &bytes(1 << 20, 6)).await.expect("stored");
        world.until("eight holders", async |w| whole(w, "file").await).await;
        let holders = holders(&world, "file", 0).await;
        let [liar, sleeper, freed] = [0, 1, 2].map(|holder| index_of(&world, &holders[holder].1));
        let lies = move |call: rpc::Incoming<rpc::Provider>, ask| async move {
            if matches!(ask, Ask::Get(_)) {
                lie(&call).await;
            }
        };
        world.replace(liar, lies).await;
        world.replace(sleeper, |_call, _ask| futures::future::pending()).await;
        let agreement = world.shared.agreements_with(&world.providers[freed].account)[0].id;
        let store = &world.providers[freed].handler.parts().store;
        store.unlink(agreement, &[holders[2].2]).await.expect("the disk works");
        let known = |shard| Known {
            challenge: 1,
            epoch: 0,
            shards: vec![Named { shard, length: 1 << 18, slot: 0, root: [0; 32] }],
        };
        let names = holders.iter().map(|(_, account, shard)| (*account, known(*shard))).collect();
        let samples = sampled(&context, &world, names).await;
        for (index, provider) in world.providers.iter().enumerate() {
            let of: Vec<SampleResult> =
                samples.iter().filter(|s| s.provider == provider.account).map(|s| s.found).collect();
            let due = moments(&MASTER, 0, &provider.account, &Parameters::LOCAL);
            let due = due.iter().filter(|at| **at > 0).count();
            let agreement = &world.shared.agreements_with(&provider.account)[0];
            let paid = agreement.egress().await;
            if index == liar {
                assert_eq!((of, paid), (vec![SampleResult::Wrong; due], 0));
            } else if index == sleeper {
                assert_eq!((of, paid), (vec![SampleResult::PeerHealth; due], 0));
            } else if index == freed || !holders.iter().any(|holder| holder.1 == provider.account) {
                assert_eq!((of, paid), (vec![], 0), "nothing is known that it owes");
            } else {
                assert_eq!((of.len(), paid), (due, due as u64 * SLICE_BYTES));
                assert!(
                    of.iter().all(|found| matches!(found, SampleResult::Bytes { bytes: SLICE_BYTES, .. }))
                );
                assert_eq!(
                    provider.handler.parts().vouchers.with(|vouchers| vouchers.paid(&agreement.id)),
                    paid
                );
            }
        }
    });
}

#[test]
fn who_holds_small_shards_alone_is_sampled_too() {
    run(|context| async move {
        let world = World::start(&context).await;
        world.put("file", &bytes(40_000, 6)).await.expect("stored");
        world.until("eight holders", async |w| whole(w, "file").await).await;
        let holders = holders(&world, "file", 0).await;
        let length = shard_bytes(40_000) as u64;
        assert!(length * 6 < SLICE_BYTES && length * 7 > SLICE_BYTES);
        let known = |shard| Known {
            challenge: 1,
            epoch: 0,
            shards: vec![Named { shard, length, slot: 0, root: [0; 32] }],
        };
        let names = holders.iter().map(|(_, account, shard)| (*account, known(*shard))).collect();
        let samples = sampled(&context, &world, names).await;
        assert!(samples.len() >= 8, "{samples:?}");
        for sample in &samples {
            let SampleResult::Bytes { bytes, first, whole } = sample.found else { panic!("{sample:?}") };
            assert_eq!(bytes, 7 * length, "seven times the only one");
            assert!(first < whole, "{sample:?}");
        }
        for (_, account, _) in &holders {
            let agreement = &world.shared.agreements_with(account)[0];
            let reads = samples.iter().filter(|sample| sample.provider == *account).count() as u64;
            assert_eq!(
                agreement.egress().await,
                reads * 7 * length,
                "all of it is paid, so that it backs a report"
            );
        }
    });
}

#[test]
fn liars_and_sleepers_are_routed_around_and_never_paid() {
    run(|context| async move {
        let mut world = World::start(&context).await;
        let plain = bytes(1 << 20, 6);
        world.put("file", &plain).await.expect("stored");
        world.until("eight holders", async |w| whole(w, "file").await).await;
        let holders = holders(&world, "file", 0).await;
        let (liar, sleeper) = (index_of(&world, &holders[0].1), index_of(&world, &holders[1].1));
        let lies = move |call: rpc::Incoming<rpc::Provider>, ask| async move {
            if matches!(ask, Ask::Get(_)) {
                lie(&call).await;
            }
        };
        world.replace(liar, lies).await;
        world.replace(sleeper, |_call, _ask| futures::future::pending()).await;
        let before = context.current();
        assert!(world.get("file").await.expect("six others are honest") == plain);
        assert!(context.current().duration_since(before).expect("time goes on") < Duration::from_secs(8));
        for index in [liar, sleeper] {
            let agreement = &world.shared.agreements_with(&world.providers[index].account)[0];
            assert_eq!(agreement.egress().await, 0, "nothing verified, nothing is paid");
        }
    });
}

#[test]
fn what_verified_is_paid_and_nothing_more() {
    run(|context| async move {
        let world = World::start(&context).await;
        let plain = bytes(3 * SEGMENT_BYTES, 8);
        world.put("file", &plain).await.expect("stored");
        for _ in 0..3 {
            assert!(world.get("file").await.expect("read") == plain);
        }
        let mut paid = 0;
        for provider in &world.providers {
            let agreement = &world.shared.agreements_with(&provider.account)[0];
            let vouchers = &provider.handler.parts().vouchers;
            let (sent, has) =
                vouchers.with(|vouchers| (vouchers.sent(&agreement.id), vouchers.paid(&agreement.id)));
            assert_eq!(
                (sent, has),
                (agreement.egress().await, agreement.egress().await),
                "all that was sent is paid"
            );
            paid += has;
        }
        assert!(paid >= 9 * SEGMENT_BYTES as u64, "{paid}");
        assert!(paid < 12 * SEGMENT_BYTES as u64, "data shards first: {paid}");
    });
}

#[test]
fn a_read_that_nobody_waits_for_any_more_is_paid_to_the_last_byte() {
    run(|context| async move {
        let world = World::start(&context).await;
        world.put("file", &bytes(3 * SEGMENT_BYTES, 8)).await.expect("stored");
        let environment = &world.shared.common.environment;
        for millis in [0, 1, 2, 5, 10, 20, 50, 100] {
            // The read is given up in the middle; the bytes that it asked for arrive and are paid.
            let read = environment.within(Duration::from_millis(millis), world.get("file")).await;
            assert!(read.is_none_or(|read| read.is_ok()));
        }
        environment.sleep(Duration::from_secs(5)).await;
        let mut sum = 0;
        for index in 0..world.providers.len() {
            let [signed, paid, sent, overdue] = world.egress(index).await;
            assert_eq!((signed, paid, overdue), (sent, sent, 0), "provider {index}");
            sum += sent;
        }
        assert!(sum > SEGMENT_BYTES as u64, "something was read: {sum}");
    });
}

/// A connection breaks again and again while slices and vouchers are in flight, each time later in a read.
#[test]
fn what_arrived_before_a_connection_broke_is_paid_and_what_did_not_stops_nobody() {
    let mut lost = 0;
    for seed in 1..=6 {
        let of_this = runner(seed).start(|context| async move {
            let mut world = World::start(&context).await;
            let plain = bytes(2 * SEGMENT_BYTES, seed);
            world.put("file", &plain).await.expect("stored");
            let holders = holders(&world, "file", 0).await;
            let (_, account, name) = holders[0];
            let index = index_of(&world, &account);
            let agreement = world.shared.agreements_with(&account)[0].clone();
            for turn in 0..80 {
                let after = Duration::from_micros(37 * seed + 500 * turn);
                // The link may still have the old address: this turn then breaks no connection.
                let _ = agreement.peer.ready().await;
                let _ = world.shared.common.environment.within(after, agreement.fetch(name, 1 << 20)).await;
                let [_, paid, sent, _] = world.egress(index).await;
                if credit_window(paid, sent - paid + SLICE_BYTES, ONE) == 0 {
                    // One more lost slice would end all credit (VO-8).
                    break;
                }
                world.reconnect(index).await;
            }
            world.shared.common.environment.sleep(Duration::from_secs(30)).await;
            let [signed, paid, sent, _] = world.egress(index).await;
            assert_eq!(signed, paid, "seed {seed}: the last voucher came, though nothing was read since");
            let got = agreement.fetch(name, 1 << 20).await.expect("it goes on");
            assert_eq!(*blake3::hash(&got).as_bytes(), name);
            let [signed, now_paid, now_sent, overdue] = world.egress(index).await;
            assert_eq!((signed, now_sent - now_paid), (now_paid, sent - paid), "what was lost stays lost");
            assert_eq!(overdue, sent - paid);
            sent - paid
        });
        lost += of_this;
    }
    assert!(lost > 0, "no connection broke in the middle of a read");
}

/// Connections break until the provider sends no more under the agreement, as it may (VO-8). The bytes that
/// it lent and lost are never paid, since they never arrived.
#[test]
fn a_provider_that_lends_nothing_more_under_one_agreement_is_read_under_another() {
    runner(4).start(|context| async move {
        let mut world = World::start(&context).await;
        let plain = bytes(2 * SEGMENT_BYTES, 4);
        world.put("file", &plain).await.expect("stored");
        let (_, account, name) = holders(&world, "file", 0).await[0];
        let index = index_of(&world, &account);
        let agreement = world.shared.agreements_with(&account)[0].clone();
        let lends = async |w: &World| {
            let [_, paid, sent, _] = w.egress(index).await;
            credit_window(paid, sent - paid, ONE) > 0
        };
        // The shortest time after which something was sent: then little of it has arrived and is paid.
        let mut step = 0;
        for _ in 0..400 {
            if !lends(&world).await {
                // A voucher may still be in flight.
                context.sleep(Duration::from_secs(30)).await;
                if !lends(&world).await {
                    break;
                }
            }
            while agreement.peer.ready().await.is_err() {
                // The pause after a dial that failed while the provider moved.
                context.sleep(Duration::from_secs(1)).await;
            }
            let [_, _, before, _] = world.egress(index).await;
            let after = Duration::from_micros(148 + 500 * step);
            let _ = world.shared.common.environment.within(after, agreement.fetch(name, 1 << 20)).await;
            world.reconnect(index).await;
            let [_, _, now, _] = world.egress(index).await;
            step = if now > before { 0 } else { (step + 1) % 80 };
        }
        assert!(!lends(&world).await, "more is lost than a provider lends");
        let refused = async |_: &World| {
            let _ = agreement.fetch(name, 1 << 20).await;
            !agreement.unread().await.1
        };
        world.until("its refusal is heard", refused).await;
        world.open_more(index, Quota { leaves: 0, egress: 1 << 30 }).await;
        let payer = world.shared.payer(&agreement, 1 << 20).await;
        assert_ne!(payer.number, agreement.number, "another agreement pays");
        let got = payer.fetch(name, 1 << 20).await.expect("it goes on");
        assert_eq!(*blake3::hash(&got).as_bytes(), name);
    });
}

#[test]
fn a_cancelled_put_gives_its_space_back() {
    run(|context| async move {
        let world = World::start(&context).await;
        let pieces: Vec<_> = bytes(2 * SEGMENT_BYTES, 9).chunks(1 << 20).map(<[u8]>::to_vec).collect();
        let cancelled = world.put_pieces("file", 4 * SEGMENT_BYTES as u64, pieces.clone()).await;
        assert!(matches!(cancelled, Err(Error::Incomplete(..))), "{cancelled:?}");
        assert!(matches!(world.get("file").await, Err(Error::NoFile(_))));
        world.until("its space comes back", async |w| w.leaves() == 0).await;
        // The same with the put's future dropped at some point.
        for millis in [20, 60, 140, 300] {
            let put = world.put_pieces("file", 4 * SEGMENT_BYTES as u64, pieces.clone());
            world.shared.common.environment.within(Duration::from_millis(millis), put).await;
        }
        world.until("its space comes back", async |w| w.leaves() == 0).await;
        let jobs = async |w: &World| w.shared.catalogue.jobs(0, 9).await.expect("runs").is_empty();
        world.until("no job is left", jobs).await;
    });
}

/// Files are removed and put, one after the other, while the reaper works on the removed ones: it must not
/// take a file that was put meanwhile.
#[test]
fn what_was_put_while_others_are_reaped_stays() {
    for seed in 1..=4 {
        runner(seed).start(|context| async move {
            let world = World::start(&context).await;
            let environment = &world.shared.common.environment;
            for turn in 0..60_u64 {
                let (name, plain) = (format!("file {turn}"), bytes(3_000, turn));
                world.put(&name, &plain).await.expect("stored");
                environment.sleep(Duration::from_millis(turn * 7 % 60)).await;
                assert_eq!(world.get(&name).await.expect("it was acknowledged"), plain, "{seed}: {name}");
                world.shared.catalogue.remove(name.into_bytes()).await.expect("runs");
                environment.sleep(Duration::from_millis(turn * 37 % 520)).await;
            }
        });
    }
}

#[test]
fn a_power_cut_anywhere_loses_nothing_acknowledged() {
    for seed in 0..4u64 {
        let plain = bytes(SEGMENT_BYTES + 77, seed);
        let (stored, checkpoint) = runner(seed).start_and_recover(|context| {
            let plain = plain.clone();
            async move {
                let world = World::start(&context).await;
                world.put("first", &plain).await.expect("stored");
                world.get("first").await.expect("read");
                // The power fails while a second put runs.
                let second = world.put("second", &plain);
                let cut = Duration::from_millis(15 + 35 * seed);
                world.shared.common.environment.within(cut, second).await.is_some_and(|put| put.is_ok())
            }
        });
        deterministic::Runner::from(checkpoint).start(|context| async move {
            let world = World::start(&context).await;
            assert!(world.get("first").await.expect("read") == plain, "seed {seed}");
            let second = world.get("second").await;
            assert!(if stored { second.expect("acknowledged") == plain } else { second.is_err() });
            world.put("third", &plain).await.expect("stored");
            for name in ["first", "third"] {
                world.until("eight holders", async |w| whole(w, name).await).await;
                world.shared.catalogue.remove(name.as_bytes().to_vec()).await.expect("runs");
            }
            world.shared.catalogue.remove(b"second".to_vec()).await.expect("runs");
            world.until("all space comes back", async |w| w.leaves() == 0).await;
        });
    }
}

/// Advances the ledger's height at the pace of blocks.
fn blocks_pass(world: &World) {
    let shared = world.shared.clone();
    world.shared.common.environment.spawn(async move {
        loop {
            shared.common.environment.sleep(Duration::from_millis(Parameters::LOCAL.block_ms)).await;
            shared.height.fetch_add(1, Ordering::Relaxed);
        }
    });
}

#[test]
fn who_never_answers_an_offer_is_left_out_until_it_does() {
    for refuses_bytes in [true, false] {
        run(move |context| async move {
            let mut world = World::start(&context).await;
            blocks_pass(&world);
            let (silent, handler) = (world.providers[3].account, world.providers[3].handler.clone());
            let offers = Arc::new(AtomicU64::new(0));
            let count = offers.clone();
            // It accepts connections and answers status, but no offers of shards, or no requests to sign.
            let handler = move |call, ask| {
                let (handler, count) = (handler.clone(), count.clone());
                async move {
                    if matches!(ask, Ask::Put(_)) {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    match ask {
                        Ask::Put(_) if refuses_bytes => futures::future::pending().await,
                        Ask::Sign(_) => futures::future::pending().await,
                        ask => handler.handle(call, ask).await,
                    }
                }
            };
            world.replace(3, handler).await;
            let mut turn = 0;
            let peer = world.shared.agreements_with(&silent)[0].peer.clone();
            while peer.unanswered().1 == 0 {
                world.put(&format!("file {turn}"), &bytes(1_000, turn)).await.expect("eight others");
                context.sleep(Duration::from_secs(4)).await;
                turn += 1;
                assert!(turn < 40, "three offers of twenty seconds each: {:?}", peer.unanswered());
            }
            let before = offers.load(Ordering::Relaxed);
            let why = world.shared.why(&silent);
            assert_eq!(why.seen.map(|seen| seen.unanswered), Some(3));
            assert!(why.seen.is_some_and(|seen| (1..=40).contains(&seen.left_out)), "{why:?}");
            assert!(why.placements.iter().all(|placement| placement.reason == 10), "{why:?}");
            while peer.unanswered().1 > 4 {
                world.put(&format!("file {turn}"), &bytes(1_000, turn)).await.expect("eight others");
                turn += 1;
            }
            assert_eq!(offers.load(Ordering::Relaxed), before, "nobody offers it anything");

            let handler = world.providers[3].handler.clone();
            let answers = move |call, ask| {
                let handler = handler.clone();
                async move { handler.handle(call, ask).await }
            };
            world.replace(3, answers).await;
            let again = async |w: &World| {
                turn += 1;
                w.put(&format!("file {turn}"), &bytes(1_000, turn)).await.expect("stored");
                peer.unanswered() == (0, 0)
            };
            world.until("its next answer forgives", again).await;
            let chosen =
                async |w: &World| w.shared.why(&silent).placements.iter().any(|placed| placed.reason == 0);
            world.until("it is chosen again", chosen).await;
        });
    }
}
