//! Cost of an epoch at scale: a split over a million weights, and a close with ten thousand providers.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use posync_economy::{
    chance::Chance,
    world::{Deal, Mark, Terms, World},
};
use posync_protocol::{amount::SYNC, economics::split::floor_carry};

fn split_1m(criterion: &mut Criterion) {
    let mut chance = Chance::new(1, "bench");
    let weights: Vec<u128> = (0..1_000_000).map(|_| u128::from(chance.below(1 << 60))).collect();
    criterion.bench_function("split_1m", |bencher| bencher.iter(|| floor_carry(1_000_000 * SYNC, &weights)));
}

fn close_10k(criterion: &mut Criterion) {
    const NODES: usize = 10_000;
    let world = World::new(Terms::DEFAULT, NODES, 256, 1);
    let deals: Vec<Deal> = (0..NODES).map(|node| Deal::plain(0, node, SYNC + node as u128)).collect();
    let marks = vec![Some(Mark::PERFECT); NODES];
    criterion.bench_function("close_10k", |bencher| {
        let fresh = || (world.clone(), deals.clone());
        bencher.iter_batched(fresh, |(mut world, deals)| world.close(deals, &marks), BatchSize::LargeInput);
    });
}

criterion_group! { name = benches; config = Criterion::default().sample_size(10); targets = split_1m, close_10k }
criterion_main!(benches);
