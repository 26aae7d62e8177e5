//! Files through real providers: all sizes, every four holders, liars, cuts, repairs.

mod world;

use commonware_runtime::{Runner as _, deterministic};
use posync_gateway::coding::SEGMENT_BYTES;
use std::time::Duration;
use world::{Context, World, bytes};

fn run<Fut: Future<Output = ()>>(work: impl FnOnce(Context) -> Fut) {
    let config = deterministic::Config::default().with_timeout(Some(Duration::from_secs(600)));
    deterministic::Runner::new(config).start(work);
}

#[test]
fn files_of_every_size_come_back() {
    run(|context| async move {
        let world = World::start(&context).await;
        for (index, size) in
            [0, 1, 255, 256, 65_537, SEGMENT_BYTES - 1, SEGMENT_BYTES, SEGMENT_BYTES + 1].into_iter().enumerate()
        {
            let (name, plain) = (format!("dir/ü {index}"), bytes(size, index as u64));
            let file = world.put(&name, &plain).await.expect("stored");
            assert_eq!((file.bytes, file.blake3), (size as u64, *blake3::hash(&plain).as_bytes()));
            assert!(file.shards_durable >= file.segments * 6, "{file:?}");
            assert!(world.get(&name).await.expect("read") == plain, "{size} bytes");
        }
    });
}
