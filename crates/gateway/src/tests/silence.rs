//! Silence is not loss: providers that pause and come back, or stay silent.

use super::world::{Context, Ledgered, Verdict, World, bytes, holders, index_of, roomy, whole};
use crate::{
    catalogue::row::Silence,
    coding::SEGMENT_BYTES,
    repair::{self, Notice},
};
use commonware_runtime::{Clock as _, Runner as _, Supervisor as _, deterministic};
use posync_consumer::agreements::policy::Quota;
use posync_protocol::{
    Account, Hash,
    limits::SLICE_BYTES,
    wire::provider::{Ask, Refusal},
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

fn run<Fut: Future<Output = ()>>(work: impl FnOnce(Context) -> Fut) {
    let config = deterministic::Config::default().with_seed(1).with_timeout(Some(Duration::from_secs(900)));
    deterministic::Runner::new(config).start(work);
}

#[test]
fn a_stopped_providers_shards_are_rebuilt_with_their_names() {
    run(|context| async move {
        let mut world = World::start(&context).await;
        let plain = bytes(SEGMENT_BYTES + 5000, 4);
        world.put("file", &plain).await.expect("stored");
        world.until("eight holders", async |w| whole(w, "file").await).await;
        let before = holders(&world, "file", 0).await;
        let stopped = before[2].1;
        let index = index_of(&world, &stopped);
        world.providers[index].stop();
        // It is late on a draw, and answers no request.
        world.shared.notice_surely(Notice::Late(stopped)).await;
        context.sleep(Duration::from_secs(100)).await;
        assert_eq!(holders(&world, "file", 0).await, before, "within the grace period it keeps them");
        assert!(world.shared.catalogue.faults().await.expect("runs").is_empty());
        let moved = async |w: &World| {
            whole(w, "file").await && holders(w, "file", 0).await.iter().all(|(_, a, _)| *a != stopped)
        };
        world.until("its shards have new holders", moved).await;
        let after = holders(&world, "file", 0).await;
        for (position, _, name) in &before {
            assert_eq!(after[*position].2, *name, "the same name");
        }
        let (_, spare, name) = after[2];
        let held =
            world.providers[index_of(&world, &spare)].handler.parts().store.get(&name).await.expect("held");
        assert_eq!(*blake3::hash(&held).as_bytes(), name);
        let faults = world.shared.catalogue.faults().await.expect("runs");
        assert_eq!(faults.len(), 1);
        assert_eq!((faults[0].1.provider, faults[0].1.found_by), (stopped, 0));
        assert_eq!(faults[0].1.lost, faults[0].1.repaired);
        assert!(world.get("file").await.expect("read") == plain);
    });
}

/// Runs the gateway again and again on one disk, for so many seconds each time, and stops it without warning. The
/// holder of the third shard is silent in all runs but those from number `back` on. After the first run `noted` seconds of
/// its silence are written down, if that is above 0. `check` gets the number of the run, true if that shard has another
/// holder at its end, and the seconds that are written down.
fn restarts(
    (runs, back, seconds, noted): (usize, usize, u64, u64),
    check: impl Fn(usize, bool, u64) + Copy + Send + 'static,
) {
    let ledger = Arc::<Ledgered>::default();
    let config = deterministic::Config::default().with_seed(1).with_timeout(Some(Duration::from_secs(900)));
    let (mut runner, mut third) = (deterministic::Runner::new(config), None);
    for run in 0..runs {
        let ledger = ledger.clone();
        let work = move |context: Context| async move {
            let mut world = World::start_on(&context, context.child("catalogue"), roomy, ledger).await;
            if run == 0 {
                world.put("file", &bytes(300_000, 4)).await.expect("stored");
                world.until("eight holders", async |w| whole(w, "file").await).await;
            }
            let third = match third {
                Some(account) => account,
                None => holders(&world, "file", 0).await[2].1,
            };
            if run < back {
                let index = index_of(&world, &third);
                world.providers[index].stop();
            }
            if run == 0 {
                world.shared.notice_surely(Notice::Late(third)).await;
            }
            context.sleep(Duration::from_secs(seconds)).await;
            let moved = holders(&world, "file", 0).await.iter().all(|(_, holder, _)| *holder != third);
            let silences = world.shared.catalogue.silences().await.expect("runs");
            let of_third = silences.iter().find(|one| one.provider == third);
            check(run, moved, of_third.map_or(0, |one| one.seconds));
            if run == 0 && noted > 0 {
                let noted = vec![Silence { provider: third, seconds: noted }];
                world.shared.catalogue.put_silences(noted).await.expect("runs");
            }
            third
        };
        let (account, checkpoint) = runner.start_and_recover(work);
        (runner, third) = (deterministic::Runner::from(checkpoint), Some(account));
    }
}

/// The grace period is two minutes, and no run is as long.
#[test]
fn a_gateway_that_restarts_more_often_than_the_grace_period_rebuilds_what_a_silent_provider_held() {
    restarts((3, 3, 58, 0), |run, moved, seconds| {
        assert_eq!(moved, run == 2, "run {run}: {seconds} s are written down");
        // At most ten seconds of each run are lost.
        let least = 46 * (run as u64 + 1);
        assert!(seconds >= least && seconds <= 58 * (run as u64 + 1), "run {run}: {seconds} s");
    });
}

/// The silence was far longer than the grace period, and the next process gets an answer.
#[test]
fn a_provider_that_answers_after_a_restart_keeps_its_shards_however_long_it_was_silent_before() {
    restarts((3, 1, 58, 10_000), |run, moved, seconds| {
        assert!(!moved, "run {run}: it answers now");
        assert_eq!(seconds > 0, run == 0, "run {run}: {seconds} s are written down");
    });
}

/// No run is long enough to distinguish a silent provider from one that restarts beside the gateway.
#[test]
fn a_long_silence_is_no_loss_while_each_process_has_asked_for_seconds_only() {
    restarts((5, 5, 9, 10_000), |run, moved, seconds| {
        assert!(!moved, "run {run}: {seconds} s are written down");
    });
}

/// Names of the entries in force under all agreements with a provider.
fn kept(world: &World, provider: usize) -> BTreeSet<Hash> {
    let agreements = world.shared.agreements_with(&world.providers[provider].account);
    let live = agreements.iter().flat_map(|agreement| agreement.with_state(|state| state.live()));
    live.map(|entry| entry.name).collect()
}

/// Egress that examinations of a provider may cost in an epoch, however little it holds, and the slice that exceeds
/// it.
const MOST_BYTES: u64 = 17 * SLICE_BYTES;

/// Notifies repair every second that these providers are late on a draw, as a look at the ledger does.
fn late_at_every_look(world: &World, paused: &[usize]) -> commonware_runtime::Handle<()> {
    let shared = world.shared.clone();
    let late: Vec<Account> = paused.iter().map(|index| world.providers[*index].account).collect();
    world.shared.common.environment.spawn(async move {
        loop {
            for provider in &late {
                shared.notice_surely(Notice::Late(*provider)).await;
            }
            shared.common.environment.sleep(Duration::from_secs(1)).await;
        }
    })
}

#[test]
fn holders_that_pause_and_come_back_lose_nothing_and_nothing_is_rebuilt_for_them() {
    for (count, seconds) in [(5, 58), (7, 110), (10, 110)] {
        run(move |context| async move {
            let mut world = World::start(&context).await;
            let plain = |turn: usize| bytes(300_000 + turn, turn as u64);
            for turn in 0..6 {
                let name = format!("file {turn}");
                world.put(&name, &plain(turn)).await.expect("stored");
                world.until("eight holders", async |w| whole(w, &name).await).await;
            }
            let before: Vec<_> = (0..10).map(|index| kept(&world, index)).collect();
            let paused: Vec<usize> = (0..count).collect();
            for index in &paused {
                // It accepts connections and answers no request, like a stopped process.
                world.replace(*index, |_call, _ask| futures::future::pending()).await;
            }
            let late = late_at_every_look(&world, &paused);
            context.sleep(Duration::from_secs(seconds)).await;
            late.abort();
            for index in &paused {
                world.reconnect(*index).await;
            }
            for turn in 0..6 {
                let read = world.get(&format!("file {turn}")).await;
                assert!(read.expect("at once") == plain(turn), "{count} were silent for {seconds} s");
            }
            let trusted = async |w: &World| w.shared.all_known().values().all(|known| known.trusted);
            world.until("those that are back are given shards again", trusted).await;
            world.put("afterwards", &plain(7)).await.expect("there are ten operators");
            context.sleep(Duration::from_secs(200)).await;
            for (index, before) in before.iter().enumerate() {
                assert!(kept(&world, index).is_superset(before), "provider {index} keeps what it had");
            }
            assert!(world.shared.catalogue.faults().await.expect("runs").is_empty());
        });
    }
}

/// More holders are silent than a segment can spare. Shards that can be rebuilt are rebuilt beside them;
/// the others stay with them. One of the holders comes back late, and all files can be read.
#[test]
fn what_cannot_be_rebuilt_stays_with_its_silent_holders_until_they_are_back() {
    run(|context| async move {
        let mut world = World::start(&context).await;
        let plain = bytes(300_000, 4);
        world.put("file", &plain).await.expect("stored");
        world.until("eight holders", async |w| whole(w, "file").await).await;
        let before = holders(&world, "file", 0).await;
        let paused: Vec<usize> =
            before[..5].iter().map(|(_, account, _)| index_of(&world, account)).collect();
        for index in &paused {
            world.replace(*index, |_call, _ask| futures::future::pending()).await;
        }
        let late = late_at_every_look(&world, &paused);
        context.sleep(Duration::from_secs(400)).await;
        assert_eq!(holders(&world, "file", 0).await, before, "three answer: nothing can be rebuilt");
        late.abort();
        world.reconnect(paused[0]).await;
        assert!(world.get("file").await.expect("four answer") == plain);
        let live = async |w: &World| {
            let silent = |account: &Account| w.shared.suspects.silent_for(account).is_some();
            holders(w, "file", 0).await.iter().filter(|(_, account, _)| !silent(account)).count() == 6
        };
        world.until("two others hold what two silent ones did", live).await;
        let after = holders(&world, "file", 0).await;
        assert_eq!(after.len(), 8, "nothing was given up");
        assert!(before.iter().zip(&after).all(|(b, a)| b.2 == a.2), "the same names");
        assert!(world.get("file").await.expect("six answer") == plain);
    });
}

/// A shard that moves to another agreement late in a term need not come from its silent provider.
#[test]
fn a_silent_providers_shard_is_made_anew_from_the_others() {
    run(|context| async move {
        let mut world = World::start(&context).await;
        world.put("file", &bytes(300_000, 4)).await.expect("stored");
        world.until("eight holders", async |w| whole(w, "file").await).await;
        let (_, silent, name) = holders(&world, "file", 0).await[1];
        let index = index_of(&world, &silent);
        world.replace(index, |_call, _ask| futures::future::pending()).await;
        let entry = world.shared.agreements_with(&silent)[0].with_state(|state| state.live())[0];
        let made = repair::restore(&world.shared, &entry).await.expect("seven others");
        assert_eq!((*blake3::hash(&made).as_bytes(), entry.name), (name, name));
    });
}

/// A provider answers status and serves none of its shards: its word alone does not free it of suspicion.
#[test]
fn a_provider_that_answers_and_serves_nothing_is_suspected_and_its_shards_are_rebuilt() {
    for turn in 0..4 {
        run(move |context| async move {
            let mut world = World::start(&context).await;
            let plain = bytes(300_000, 4);
            world.put("file", &plain).await.expect("stored");
            world.until("eight holders", async |w| whole(w, "file").await).await;
            let before = holders(&world, "file", 0).await;
            let idle = before[2].1;
            let judge = move |ask: &Ask| match (ask, turn) {
                (Ask::Get(_), 0) => Verdict::Hangs,
                (Ask::Get(_), 1) => Verdict::Refuses(Refusal::Busy, "too much to do"),
                (Ask::Get(_), 2) => Verdict::Refuses(Refusal::Credit, "pay first"),
                (Ask::Get(_), _) => Verdict::Refuses(Refusal::Agreement, "no such agreement"),
                _ => Verdict::Answers,
            };
            world.judge([index_of(&world, &idle)], judge).await;
            world.shared.notice_surely(Notice::Late(idle)).await;
            let suspected = async |w: &World| w.shared.suspects.silent_for(&idle).is_some();
            world.until("its word frees it of nothing", suspected).await;
            let moved = async |w: &World| {
                whole(w, "file").await && holders(w, "file", 0).await.iter().all(|(_, a, _)| *a != idle)
            };
            world.until("others hold what it did", moved).await;
            let after = holders(&world, "file", 0).await;
            assert!(before.iter().zip(&after).all(|(b, a)| b.2 == a.2), "the same names");
            assert!(world.get("file").await.expect("eight serve") == plain);
        });
    }
}

/// The quotas of the agreements are used up: no shard can be read, and only the gateway is the reason.
#[test]
fn whom_we_cannot_read_from_for_a_reason_of_ours_is_neither_suspected_nor_replaced() {
    run(|context| async move {
        let mut world = World::start_with(&context, 1 << 20, 0).await;
        world.put("file", &bytes(300_000, 4)).await.expect("stored");
        world.until("eight holders", async |w| whole(w, "file").await).await;
        let before = holders(&world, "file", 0).await;
        let [paused, well] = [index_of(&world, &before[0].1), index_of(&world, &before[1].1)];
        world.replace(paused, |_call, _ask| futures::future::pending()).await;
        let late = late_at_every_look(&world, &[paused, well]);
        let silent = |w: &World, index: usize| w.shared.suspects.silent_for(&w.providers[index].account);
        world.until("who does not answer is suspected", async |w| silent(w, paused).is_some()).await;
        world.reconnect(paused).await;
        for _ in 0..30 {
            context.sleep(Duration::from_secs(10)).await;
            assert_eq!(silent(&world, well), None, "it answers");
            assert!(silent(&world, paused).is_some(), "nothing was read from it yet");
        }
        late.abort();
        assert_eq!(holders(&world, "file", 0).await, before, "it answers, and it is we who cannot read");
        assert!(world.shared.catalogue.faults().await.expect("runs").is_empty());
        world.open_more(paused, Quota { leaves: 0, egress: 1 << 30 }).await;
        world.until("it serves", async |w| silent(w, paused).is_none()).await;
        assert_eq!(holders(&world, "file", 0).await, before);
    });
}

/// Puts `count` files of 250,000 bytes, each with one slice at every holder. Returns the index of a provider and
/// the number of shards that it holds.
async fn put_slices(world: &World, count: u64) -> (usize, u64) {
    for turn in 0..count {
        world.put(&format!("file {turn}"), &bytes(250_000, turn)).await.expect("stored");
    }
    let last = format!("file {}", count - 1);
    world.until("eight holders", async |w| whole(w, &last).await).await;
    let index = index_of(world, &holders(world, &last, 0).await[0].1);
    let held =
        world.shared.agreements_with(&world.providers[index].account)[0].with_state(|s| s.live().len());
    (index, held as u64)
}

#[test]
fn a_provider_that_is_late_and_serves_is_paid_for_a_few_slices_and_not_for_one_at_each_look() {
    run(|context| async move {
        let world = World::start(&context).await;
        let (index, _) = put_slices(&world, 1).await;
        let before = holders(&world, "file 0", 0).await;
        let late = late_at_every_look(&world, &[index]);
        context.sleep(Duration::from_secs(600)).await;
        late.abort();
        let [signed, ..] = world.egress(index).await;
        assert!(signed > 0, "it was looked at");
        assert!(signed < MOST_BYTES, "{} slices were bought", signed / SLICE_BYTES);
        assert_eq!(holders(&world, "file 0", 0).await, before, "it serves: nothing moves");
    });
}

#[test]
fn a_provider_whose_reads_are_found_missing_again_and_again_sells_a_few_slices_and_not_all_that_it_holds() {
    run(|context| async move {
        let world = World::start(&context).await;
        let (index, held) = put_slices(&world, 64).await;
        assert!(held > 32, "{held}");
        let [before, ..] = world.egress(index).await;
        let provider = world.providers[index].account;
        for _ in 0..10 {
            world.shared.notice_surely(Notice::Failed(provider)).await;
            context.sleep(Duration::from_secs(30)).await;
        }
        let [signed, ..] = world.egress(index).await;
        assert!(signed > before, "it was examined");
        let bought = signed - before;
        assert!(bought < MOST_BYTES, "{} slices of {held} shards were bought", bought / SLICE_BYTES);
        assert!(world.shared.known(&provider).expect("known").trusted, "nothing was lost");
    });
}

#[test]
fn a_slow_answer_is_no_loss() {
    run(|context| async move {
        let world = World::start(&context).await;
        world.put("file", &bytes(1000, 4)).await.expect("stored");
        world.until("eight holders", async |w| whole(w, "file").await).await;
        let before = holders(&world, "file", 0).await;
        world.shared.notice_surely(Notice::Late(before[0].1)).await;
        context.sleep(Duration::from_secs(20)).await;
        assert_eq!(holders(&world, "file", 0).await, before, "it answers us: nothing moves");
        assert!(world.shared.catalogue.faults().await.expect("runs").is_empty());
    });
}
