//! Prices that rise far above those of the genesis while files are stored and read.

use super::{
    chained::{Chained, P, policy, post},
    world::{Context, bytes, whole},
};
use crate::transfer::Error;
use commonware_runtime::{Clock as _, Runner as _, deterministic};
use posync_protocol::Class;
use std::time::Duration;

fn run<Fut: Future<Output = ()>>(work: impl FnOnce(Context) -> Fut) {
    let config = deterministic::Config::default().with_seed(1).with_timeout(Some(Duration::from_secs(1_800)));
    deterministic::Runner::new(config).start(work);
}

const MIB: usize = 1 << 20;

/// The prices of the genesis.
fn genesis(class: Class) -> u64 {
    u64::try_from(P.prices[class]).expect("small")
}

#[test]
fn puts_go_on_at_three_times_the_price_and_new_room_is_opened_at_it() {
    run(|context| async move {
        let chained = Chained::start(&context, policy(2 << 10, 8 << 20, 64)).await;
        let world = &chained.world;
        world.put("before", &bytes(MIB, 1)).await.expect("stored");
        let opened = chained.on_ledger().await.len();
        chained.edit(|ledger| post(ledger, 3));
        context.sleep(Duration::from_secs(2)).await;
        // More than the room that is open.
        for file in 0..3 {
            world.put(&format!("file {file}"), &bytes(3 * MIB, file)).await.expect("stored");
        }
        let after = chained.on_ledger().await;
        assert!(after.len() > opened, "more was opened");
        let dear =
            after.values().filter(|one| one.prices[Class::Storage].price == 3 * genesis(Class::Storage));
        assert_eq!(dear.count(), after.len() - opened, "at the posted price");
        for file in 0..3 {
            assert!(world.get(&format!("file {file}")).await.expect("read") == bytes(3 * MIB, file));
        }
    });
}

/// Above four times the genesis prices no room is opened for new data. What is stored stays readable at any price that
/// the account can pay.
#[test]
fn at_a_price_above_the_limit_a_put_beyond_the_open_room_is_refused_for_it_and_reads_go_on() {
    run(|context| async move {
        let chained = Chained::start(&context, policy(2 << 10, 3 << 20, 64)).await;
        let world = &chained.world;
        let plain = bytes(2 * MIB, 1);
        world.put("file", &plain).await.expect("stored");
        world.until("eight holders", async |w| whole(w, "file").await).await;
        chained.edit(|ledger| post(ledger, 10));
        context.sleep(Duration::from_secs(2)).await;
        let refused = world.put("large", &bytes(16 * MIB, 2)).await.expect_err("there is no room for it");
        assert!(matches!(refused, Error::Operators(..) | Error::Unsigned(..)), "{refused:?}");
        assert!(refused.to_string().contains("price"), "the reason is named: {refused}");
        // Several times the egress that was opened at the old price, from the four holders of data.
        for turn in 0..32 {
            let read = world.get("file").await;
            assert!(read.unwrap_or_else(|error| panic!("turn {turn}: {error}")) == plain);
            context.sleep(Duration::from_secs(1)).await;
        }
        let all = chained.on_ledger().await;
        let stores = all.values().filter(|one| one.quota[Class::Storage] > 0);
        let dearest = stores.map(|one| one.prices[Class::Storage].price).max().expect("some");
        assert_eq!(dearest, genesis(Class::Storage), "no room was opened above the limit");
    });
}

#[test]
fn what_is_stored_is_renewed_at_any_price_and_no_agreement_ends_with_data_under_it() {
    run(|context| async move {
        let chained = Chained::start(&context, policy(2 << 10, 8 << 20, 16)).await;
        let world = &chained.world;
        let plain = bytes(2 * MIB, 1);
        world.put("file", &plain).await.expect("stored");
        world.until("eight holders", async |w| whole(w, "file").await).await;
        let first = chained.on_ledger().await;
        let last = first.values().map(|one| one.end_epoch).max().expect("some");
        chained.edit(|ledger| post(ledger, 10));
        let over = async |w: &super::world::World| P.epoch(super::chained::height(w)) > last;
        world.until("the first terms are over", over).await;
        assert!(world.get("file").await.expect("read") == plain);
        let holds =
            world.shared.agreements().into_iter().filter(|one| one.with_state(|state| state.is_live()));
        let on_ledger = chained.on_ledger().await;
        for agreement in holds {
            let found = &on_ledger[&(agreement.provider(), agreement.id.slot)];
            assert_eq!(found.prices[Class::Storage].price, 10 * genesis(Class::Storage), "it is a successor");
        }
        world.until("eight holders", async |w| whole(w, "file").await).await;
    });
}
