//! Cost to a block of closing the books, at 10, 1,000 and 100,000 providers.
//!
//! A block closes a slice of at most 64 providers in each of two passes, so its cost must not grow
//! with their number. The benchmark measures the rules' part of the block (name the records, execute)
//! on the records of a real ledger in memory. The yardstick in the same run is one Ed25519
//! verification.

use commonware_cryptography::{Signer as _, Verifier as _, ed25519};
use criterion::{Criterion, criterion_group, criterion_main};
use crowd::{block_at, populate};
use posync_protocol::ledger::{Mode, execute};
use script::Stage;
use std::hint::black_box;

#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/scenarios/crowd.rs"]
mod crowd;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/scenarios/script.rs"]
mod script;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/scenarios/world.rs"]
mod world;

/// A ledger before the first block of its third epoch in which both passes close a slice.
fn ledger(providers: u32) -> Stage {
    let mut stage = Stage::new();
    populate(&mut stage.world, providers);
    let p = stage.world.parameters;
    let (epoch, first) = (p.epoch_blocks(), p.round_blocks);
    for height in [epoch, epoch + first, 2 * epoch] {
        block_at(&mut stage, height);
    }
    stage.world.height = 2 * epoch + first - 1;
    stage
}

fn closing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a block that closes a slice in both passes");
    for providers in [10, 1_000, 100_000] {
        let stage = ledger(providers);
        let context = stage.world.context(stage.world.height + 1);
        let draws = stage.world.resolve(&context);
        let records = stage.world.read(&context, &draws, &[]).expect("a small block");
        let run =
            || execute(&context, &draws, &[], black_box(&records), Mode::Verify).expect("a valid block");
        assert!(run().changes.len() > 10, "it closes something");
        group.bench_function(format!("{providers} providers, {} records", records.len()), |b| b.iter(run));
    }
    let key = ed25519::PrivateKey::from_seed(1);
    let (public, signature) = (key.public_key(), key.sign(b"posync/bench", b"a storage proof"));
    group.bench_function("limit: verify one Ed25519 signature", |b| {
        b.iter(|| public.verify(b"posync/bench", black_box(b"a storage proof"), &signature));
    });
    group.finish();
}

criterion_group!(benches, closing);
criterion_main!(benches);
