//! Cost of an audit: proving and verifying the four reads of a challenge, beside two yardsticks in
//! the same run (hashing the shard once, checking one signature).
//!
//! `cargo bench --package posync-protocol --bench challenge`; results in `docs/benchmarks.md`.

use commonware_cryptography::{Signer as _, Verifier as _, ed25519};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use posync_protocol::{
    Hash,
    limits::{LEAF_BYTES, READS},
    operation::SumPath,
    shard,
    tree::SumTree,
};
use std::hint::black_box;

const SHARD_BYTES: usize = 1 << 20;
/// Number of shards in the data set, so that 17 levels lie above each.
const SHARDS: usize = 1 << 17;
const NAMESPACE: &[u8] = b"posync/bench";

struct Read {
    index: u64,
    leaf: Vec<u8>,
    path: Vec<Hash>,
    position: SumPath,
}

struct Fixture {
    shard: Vec<u8>,
    name: Hash,
    outboard: Vec<Hash>,
    tree: SumTree,
}

impl Fixture {
    fn new() -> Self {
        let mut shard = vec![0; SHARD_BYTES];
        blake3::Hasher::new().update(b"bench").finalize_xof().fill(&mut shard);
        let (name, outboard) = (shard::name(&shard), shard::outboard(&shard));
        let shards: Vec<(Hash, u64)> = (0..SHARDS as u64)
            .map(|place| if place == 7 { name } else { shard::name(&place.to_be_bytes()) })
            .map(|name| (name, SHARD_BYTES as u64))
            .collect();
        let tree = SumTree::new(&shards).expect("a data set holds 2^20 shards");
        Self { shard, name, outboard, tree }
    }

    /// The four reads of a challenge. Each is one group of 16 KiB from the shard.
    fn prove(&self) -> Vec<Read> {
        let read = |number: u64| {
            let index = number * 211 % (SHARD_BYTES as u64 / LEAF_BYTES);
            let start = (index * LEAF_BYTES / shard::GROUP_BYTES * shard::GROUP_BYTES) as usize;
            let group = &self.shard[start..start + shard::GROUP_BYTES as usize];
            let (leaf, path) = shard::prove_leaf(SHARD_BYTES as u64, index, group, &self.outboard)
                .expect("the group holds the leaf");
            Read { index, leaf, path, position: self.tree.path(7).expect("it is there") }
        };
        (1..=READS as u64).map(read).collect()
    }

    fn verify(&self, reads: &[Read]) -> bool {
        reads.iter().all(|read| {
            let place = read.position.place(&self.name, SHARD_BYTES as u64);
            place.is_some_and(|place| place.root == self.tree.root())
                && shard::verify_leaf(&self.name, SHARD_BYTES as u64, read.index, &read.leaf, &read.path)
        })
    }
}

fn challenge(criterion: &mut Criterion) {
    let fixture = Fixture::new();
    let reads = fixture.prove();
    assert!(fixture.verify(&reads));
    let mut group = criterion.benchmark_group("challenge");
    group.bench_function("prove four reads of 1 MiB shards", |b| b.iter(|| fixture.prove()));
    group.bench_function("verify four reads", |b| b.iter(|| fixture.verify(black_box(&reads))));
    let key = ed25519::PrivateKey::from_seed(1);
    let (public, signature) = (key.public_key(), key.sign(NAMESPACE, b"a storage proof"));
    group.bench_function("limit: verify one Ed25519 signature", |b| {
        b.iter(|| public.verify(NAMESPACE, black_box(b"a storage proof"), &signature));
    });
    group.finish();
}

fn shard(criterion: &mut Criterion) {
    let fixture = Fixture::new();
    let mut group = criterion.benchmark_group("shard of 1 MiB");
    group.throughput(Throughput::Bytes(SHARD_BYTES as u64));
    group.bench_function("outboard of 16 KiB groups", |b| b.iter(|| shard::outboard(&fixture.shard)));
    group.bench_function("limit: plain BLAKE3", |b| b.iter(|| blake3::hash(&fixture.shard)));
    group.finish();
}

criterion_group!(benches, challenge, shard);
criterion_main!(benches);
