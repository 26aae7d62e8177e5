//! Agreements that are full for their whole term.

use super::{
    chained::{Chained, P, height, policy},
    world::{Context, World, bytes, whole},
};
use commonware_runtime::{Runner as _, deterministic};
use posync_consumer::agreement::OwnAgreement;
use std::{collections::BTreeSet, time::Duration};

fn run<Fut: Future<Output = ()>>(work: impl FnOnce(Context) -> Fut) {
    let config = deterministic::Config::default().with_seed(1).with_timeout(Some(Duration::from_secs(1_800)));
    deterministic::Runner::new(config).start(work);
}

/// A twentieth of its room is free at most.
fn is_full(agreement: &OwnAgreement) -> bool {
    let quota = agreement.terms().quota_leaves;
    quota > 0 && agreement.with_state(|state| state.load()) * 20 >= quota * 19
}

/// Numbers of the agreements that are full.
fn full(world: &World) -> BTreeSet<u32> {
    world.shared.agreements().iter().filter(|one| is_full(one)).map(|one| one.number).collect()
}

#[test]
fn an_agreement_that_is_full_loses_nothing_over_its_term_and_that_of_its_successor() {
    run(|context| async move {
        let chained = Chained::start(&context, policy(2 << 10, 8 << 20, 16)).await;
        let world = &chained.world;
        let mut files = Vec::new();
        // Small pieces, so that agreements fill to the last leaves.
        while full(world).len() < 4 {
            let file = files.len();
            assert!(file < 200, "no agreement becomes full");
            let name = format!("file {file}");
            let plain = bytes(if file < 7 { 1 << 20 } else { 100_000 }, file as u64);
            world.put(&name, &plain).await.expect("stored");
            files.push((name, plain));
        }
        let filled = full(world);
        let ends = || world.shared.agreements().iter().map(|one| one.terms().end_epoch).max().expect("some");
        for term in ["their terms", "the terms of their successors"] {
            let last = ends();
            let over = async |w: &World| P.epoch(height(w)) > last;
            world.until(&format!("{term} are over"), over).await;
            for (name, plain) in &files {
                let read = world.get(name).await;
                assert!(read.unwrap_or_else(|error| panic!("{name} after {term}: {error}")) == *plain);
            }
        }
        let left = world.shared.agreements();
        assert!(left.iter().all(|one| !filled.contains(&one.number)), "the full ones are over");
        for (name, _) in &files {
            world.until("eight holders", async |w| whole(w, name).await).await;
        }
    });
}
