//! Reads at the agreed rate: beyond it a reader waits for the next round, and no provider is blamed.

use super::world::{World, bytes, whole};
use commonware_runtime::{Runner as _, deterministic};
use std::{sync::atomic::Ordering, time::Duration};

/// Nobody is suspected, barred or asked last, and no provider refused a read.
async fn nobody_is_blamed(world: &World) {
    for agreement in world.shared.agreements() {
        let provider = agreement.provider();
        assert!(!agreement.peer.is_doubtful(), "{provider} is asked last");
        assert!(agreement.unread().await.1, "{provider} counts as one that refuses");
        assert_eq!(world.shared.suspects.silent_for(&provider), None);
    }
    assert!(world.shared.catalogue.faults().await.expect("runs").is_empty());
}

#[test]
fn beyond_the_agreed_rate_a_reader_waits_for_the_next_round_and_no_provider_is_blamed() {
    let config = deterministic::Config::default().with_seed(1).with_timeout(Some(Duration::from_secs(900)));
    deterministic::Runner::new(config).start(|context| async move {
        // Two shards of the file in each round.
        let world = World::start_rated(&context, 1 << 20, 1 << 40, 160_000).await;
        let plain = bytes(300_000, 4);
        world.put("file", &plain).await.expect("stored");
        world.until("eight holders", async |w| whole(w, "file").await).await;
        let environment = &world.shared.common.environment;
        let at = |height: u64| {
            world.shared.height.store(height, Ordering::Relaxed);
        };
        let (patient, mut reads) = (Duration::from_secs(10), 0);
        // The providers are in round 1, the gateway in round 0 and then in round 1.
        for height in [0, 8] {
            at(height);
            for _ in 0..4 {
                let read = environment.within(patient, world.get("file")).await;
                assert!(read.expect("in time").expect("it reads") == plain, "read {reads}");
                reads += 1;
            }
            assert!(environment.within(patient, world.get("file")).await.is_none(), "after {reads} it waits");
            nobody_is_blamed(&world).await;
        }
        // The providers are behind: they refuse what the gateway's round allows.
        at(16);
        assert!(environment.within(patient, world.get("file")).await.is_none(), "it waits");
        nobody_is_blamed(&world).await;
        let refusals = world.shared.agreements().iter().filter_map(|of| of.peer.last_refusal()).count();
        assert!(refusals > 0, "they refused");
        let views = world.providers.iter().map(|provider| &provider.handler.parts().view);
        views.for_each(|view| view.advance(16));
        let read = environment.within(patient, world.get("file")).await;
        assert!(read.expect("in time").expect("it reads") == plain);
        nobody_is_blamed(&world).await;
    });
}
