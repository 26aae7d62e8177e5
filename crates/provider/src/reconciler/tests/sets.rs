//! Data sets that no consumer submits, shards that are asked again, and the return after silence.

use super::*;
use futures::FutureExt as _;
use posync_protocol::{Class, operation::Settle, record::AccountState};

fn balance(bench: &Bench, who: &str) -> u128 {
    let state: Option<AccountState> = bench.ledger.world.lock().get(AccountState::key(&account(who)));
    state.expect("funded").balance.grains()
}

/// The shards of `tags`, 4 MiB each.
fn large(tags: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    tags.map(|tag| data(tag, 4 << 20)).collect()
}

#[test]
fn a_claim_that_its_consumer_never_brings_is_brought_once_the_missed_pay_exceeds_the_fee() {
    run(|context| async move {
        let mut bench = Bench::new(&context).await;
        bench.steps(10).await;
        let id = bench.open(100);
        let parameters = bench.ledger.world.lock().parameters;
        for version in 1..=3 {
            bench.sign(id, version, &[], &large(2 * version..2 * version + 2)).await;
        }
        let before = balance(&bench, "paul");
        let (mut blocks, start) = (0, bench.ledger.world.lock().height);
        while bench.on_ledger().current.version == 0 && blocks < 400 {
            assert_eq!(balance(&bench, "paul"), before, "nothing is paid before it is worth it");
            bench.step().await;
            blocks += 1;
        }
        assert_eq!(bench.on_ledger().current.version, 3, "the newest one says all (DS-1)");
        assert_eq!(bench.on_ledger().current.leaves, 6 * 4096);
        let fee = before - balance(&bench, "paul");
        let rounds = parameters.round(bench.ledger.world.lock().height) - parameters.round(start);
        let a_round = parameters.prices[Class::Storage] * 6 * 4096 / (1 << 20) * 3 / 4;
        assert!(fee > 0 && a_round * u128::from(rounds) > fee, "{fee} {a_round} {rounds}");
        assert!(a_round * u128::from(rounds - 2) < fee, "and not long after: {fee} {a_round} {rounds}");
        // From here on it is paid, and submits nothing more.
        let after = balance(&bench, "paul");
        bench.steps(200).await;
        assert_eq!(balance(&bench, "paul"), after);
        bench.ledger.world.lock().draws = true;
        let (good, bad) = audited(&bench.steps(40).await);
        assert!(good > 5 && bad == 0, "{good} {bad}");
    });
}

#[test]
fn what_its_consumer_brings_in_time_costs_the_provider_nothing() {
    run(|context| async move {
        let mut bench = Bench::new(&context).await;
        bench.steps(10).await;
        let id = bench.open(100);
        bench.ledger.world.lock().draws = true;
        for version in 1..=4 {
            let body = bench.sign(id, version, &[], &large(version..version + 1)).await;
            let before = bench.ledger.world.lock().height;
            bench.steps(16).await;
            let mut world = bench.ledger.world.lock();
            let operation = world.sign("carol", body);
            assert_eq!(world.submit(&operation), Ok(Code::Done), "nobody was faster");
            assert_eq!(world.height, before + 17);
        }
    });
}

#[test]
fn in_force_next_and_above_are_all_provable_whatever_is_brought() {
    run(|context| async move {
        let mut bench = Bench::new(&context).await;
        bench.steps(10).await;
        let id = bench.open(100);
        bench.set(id, 1, &[], &[data(1, 50_000)]).await;
        bench.ledger.world.lock().draws = true;
        let mut signed = vec![];
        for version in 2..=12 {
            let removed: &[u32] = if version % 3 == 0 { &[0] } else { &[] };
            signed.push(bench.sign(id, version, removed, &[data(version, 70_000)]).await);
        }
        // Every third one is submitted, the ones between are void; some wait as `next`, some are replaced.
        for body in signed.iter().skip(1).step_by(3) {
            let operation = bench.ledger.world.lock().sign("carol", body.clone());
            assert_eq!(bench.ledger.world.lock().submit(&operation), Ok(Code::Done));
            let (good, bad) = audited(&bench.steps(11).await);
            assert!(good > 2 && bad == 0, "{good} {bad}");
        }
        bench.steps(16).await;
        let last = bench.on_ledger();
        assert_eq!((last.current.version, last.next), (12, None));
        assert_eq!(bench.handler.parts().store.totals().bytes, last.current.bytes, "the void ones went");
    });
}

/// Loses a shard of the version in force until a storage proof declares it missing; in that block a larger set
/// without the shard takes effect. Then the shard is repaired. Returns its agreement, its name, and the state before
/// that block.
async fn miss_and_repair(bench: &mut Bench) -> (AgreementId, Hash, World) {
    bench.steps(10).await;
    let id = bench.open(100);
    let lost = data(1, 100_000);
    let name = *blake3::hash(&lost).as_bytes();
    bench.set(id, 1, &[], std::slice::from_ref(&lost)).await;
    let swap = bench.sign(id, 2, &[0], &[data(2, 120_000)]).await;
    bench.handler.parts().store.unlink(id, &[name]).await.expect("there");
    bench.ledger.world.lock().draws = true;
    while bench.ledger.waiting.lock().is_empty() {
        bench.step().await;
    }
    bench.ledger.waiting.lock().push(swap);
    bench.ledger.world.lock().draws = false;
    let before = bench.ledger.world.lock().clone();
    bench.ledger.block();
    bench.handler.parts().store.put(id, name, lost.into()).await.expect("fits");
    assert_eq!((bench.on_ledger().current.version, bench.on_ledger().next), (2, None));
    assert!(bench.audit().missing.iter().any(|missing| missing.shard == name), "it is asked again");
    (id, name, before)
}

/// Steps on, and checks that a shard that is asked again stays until it is proved.
async fn stays_until_it_is_proved(bench: &mut Bench, name: Hash) {
    bench.steps(20).await;
    assert_eq!(bench.handler.parts().store.length(&name), Some(100_000), "so it stays (RD-7)");
    bench.ledger.world.lock().draws = true;
    let events = bench.steps(40).await;
    let (good, bad) = audited(&events);
    assert!(good > 5 && bad == 0, "{good} {bad}");
    let took = events.iter().any(|event| matches!(event, Event::Restitution { .. }));
    assert!(!took, "nothing is taken for what is there again");
    assert!(bench.audit().missing.is_empty());
    assert_eq!(bench.handler.parts().store.length(&name), None, "nobody asks any more");
}

#[test]
fn a_shard_that_is_asked_again_stays_until_it_was_proved_then_goes() {
    run(|context| async move {
        let mut bench = Bench::new(&context).await;
        let (_, name, _) = miss_and_repair(&mut bench).await;
        stays_until_it_is_proved(&mut bench, name).await;
    });
}

#[test]
fn a_shard_that_is_asked_again_stays_although_a_request_notes_the_new_version_first() {
    run(|context| async move {
        let mut bench = Bench::new(&context).await;
        let (id, name, _) = miss_and_repair(&mut bench).await;
        let parts = bench.handler.parts();
        let height = bench.ledger.world.lock().height;
        parts.data_sets.note(id, bench.on_ledger(), height).await.expect("open");
        stays_until_it_is_proved(&mut bench, name).await;
    });
}

#[test]
fn a_shard_that_is_asked_again_stays_although_its_agreement_is_proved_above_the_audit() {
    run(|context| async move {
        let mut bench = Bench::new(&context).await;
        let (_, name, before) = miss_and_repair(&mut bench).await;
        // A node takes the block between two reads of one step.
        let newest = std::mem::replace(&mut *bench.ledger.world.lock(), before);
        bench.handler.parts().view.advance(newest.height);
        bench.ledger.blocks.lock().behind = Some(newest.clone());
        bench.reconciler.tidied = None;
        bench.reconciler.step().await.expect("the ledger is there");
        bench.ledger.blocks.lock().behind = None;
        *bench.ledger.world.lock() = newest;
        stays_until_it_is_proved(&mut bench, name).await;
    });
}

#[test]
fn what_a_request_noted_leaves_the_disk_at_once_although_its_caller_is_gone() {
    run(|context| async move {
        let mut bench = Bench::new(&context).await;
        bench.steps(10).await;
        let id = bench.open(100);
        let removed = data(1, 50_000);
        let name = *blake3::hash(&removed).as_bytes();
        bench.set(id, 1, &[], std::slice::from_ref(&removed)).await;
        let swap = bench.sign(id, 2, &[0], &[data(2, 60_000)]).await;
        let operation = bench.ledger.world.lock().sign("carol", swap);
        assert_eq!(bench.ledger.world.lock().submit(&operation), Ok(Code::Done));
        let parts = bench.handler.parts();
        let taken = bench.on_ledger();
        assert!(parts.data_sets.with(|state| state.is_behind(&id, &taken)));
        // The request gets its place in the queue, and its connection ends.
        let height = bench.ledger.world.lock().height;
        let is_answered = parts.data_sets.note(id, taken, height).now_or_never().is_some();
        assert!(!is_answered && parts.store.length(&name).is_some());
        for _ in 0..100 {
            reschedule().await;
            // At the same height, so no later round removes anything.
            bench.reconciler.step().await.expect("the ledger is there");
        }
        let parts = bench.handler.parts();
        assert_eq!(parts.store.length(&name), None, "no round later, and no minutes");
        assert!(!parts.data_sets.with(|state| state.is_leaving(&id, &name)), "it may be put again");
        parts.store.put(id, name, removed.into()).await.expect("fits");
    });
}

/// Stays silent until draws by fee pass it over and its challenge has expired.
async fn fall_asleep(bench: &mut Bench) {
    bench.ledger.world.lock().draws = true;
    let most = 40 * bench.epoch_blocks();
    for _ in 0..most {
        bench.ledger.block();
        if bench.provider().weighed == 0 && bench.provider().paid > 0 {
            break;
        }
    }
    assert_eq!(bench.provider().weighed, 0, "draws by fee pass it by (DR-6)");
    bench.ledger.world.lock().draws = false;
    let parameters = bench.ledger.world.lock().parameters;
    for _ in 0..(parameters.pending_rounds_max + 2) * parameters.round_blocks {
        bench.ledger.block();
    }
    // Anyone may close a stale challenge.
    let mut world = bench.ledger.world.lock();
    let provider: Provider = world.get(Provider::key(&account("paul"))).expect("registered");
    let index = provider.index;
    let settle =
        Settle { provider: account("paul"), index, slots: Bounded::default(), endings: Bounded::default() };
    let operation = world.sign("carol", Body::Settle(settle));
    assert_eq!(world.submit(&operation), Ok(Code::Done));
    let height = world.height;
    drop(world);
    bench.handler.parts().view.advance(height);
    assert!(bench.audit().challenge.is_none());
    assert_eq!(bench.provider().weighed, 0, "nobody else can wake it");
}

#[test]
fn who_was_silent_asks_to_be_drawn_by_fee_again() {
    run(|context| async move {
        let mut bench = Bench::new(&context).await;
        bench.steps(10).await;
        let id = bench.open(700);
        bench.set(id, 1, &[], &[data(1, 100_000)]).await;
        bench.steps(10).await;
        fall_asleep(&mut bench).await;
        bench.steps(2).await;
        let provider = bench.provider();
        assert!(provider.paid > 0);
        assert_eq!(provider.weighed, provider.paid, "it woke itself, without a draw");
        let sent = bench.ledger.waiting.lock().len();
        bench.steps(20).await;
        assert_eq!((sent, bench.ledger.waiting.lock().len()), (0, 0), "and asks no more");
    });
}

#[test]
fn what_ended_while_it_was_silent_is_cleared_without_a_draw() {
    run(|context| async move {
        let mut bench = Bench::new(&context).await;
        bench.steps(10).await;
        let id = bench.open(3);
        bench.set(id, 1, &[], &[data(1, 100_000)]).await;
        bench.steps(10).await;
        fall_asleep(&mut bench).await;
        assert!(bench.provider().slot_weight > 0, "it still stands in the slot tree");
        bench.steps(40).await;
        assert_eq!(bench.provider().slot_weight, 0, "cleared within the epoch (RD-9)");
        assert_eq!(bench.provider().slots, 0);
        bench.steps(2 * GRACE).await;
        assert_eq!(bench.handler.parts().store.totals().shards, 0);
    });
}

/// A node took the answer, and what it said was lost: until the next block a second one would be in its way.
#[test]
fn one_challenge_is_answered_with_one_storage_proof_in_a_block_although_no_node_confirms_it() {
    run(|context| async move {
        let mut bench = Bench::new(&context).await;
        bench.ledger.world.lock().draws = true;
        bench.steps(10).await;
        let id = bench.open(100);
        bench.set(id, 1, &[], &[data(1, 100_000)]).await;
        bench.ledger.is_mute.store(true, Ordering::Relaxed);
        let mut tries = 0;
        while bench.audit().challenge.is_none() {
            bench.ledger.block();
            tries += 1;
            assert!(tries < 500, "it is drawn");
        }
        bench.handler.parts().view.advance(bench.ledger.world.lock().height);
        for egress in [1 << 20, 2 << 20] {
            // What comes in between would change the answer.
            bench.pay(id, egress).await;
            let lost = bench.reconciler.step().await;
            assert!(matches!(lost, Err(ReconcilerError::Ledger(LedgerError::Unreachable(_)))), "{lost:?}");
        }
        let waiting = bench.ledger.waiting.lock().clone();
        let proofs: Vec<_> = waiting.iter().filter(|body| matches!(body, Body::StorageProof(_))).collect();
        assert!(proofs.len() == 2 && proofs[0] == proofs[1], "{} that differ", proofs.len());
        bench.ledger.is_mute.store(false, Ordering::Relaxed);
        bench.ledger.waiting.lock().truncate(1);
        let held = audited(&bench.step().await);
        assert_eq!(held, (1, 0), "it counts");
    });
}
