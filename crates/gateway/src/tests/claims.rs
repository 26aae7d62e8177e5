//! Data sets on their way to a ledger that takes one per agreement and block.

use super::world::{Context, World, bytes, terms};
use commonware_runtime::{Runner as _, deterministic};
use commonware_utils::sync::Mutex;
use futures::future::join_all;
use posync_protocol::{limits::Parameters, wire::provider::Ask};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

fn run<Fut: Future<Output = ()>>(work: impl FnOnce(Context) -> Fut) {
    let config = deterministic::Config::default().with_seed(1).with_timeout(Some(Duration::from_secs(900)));
    deterministic::Runner::new(config).start(work);
}

/// Puts files of a few bytes, one after another. Returns the time that this took.
async fn put_many(context: &Context, world: &World, name: &str, count: usize) -> Duration {
    use commonware_runtime::Clock as _;
    let before = context.current();
    for number in 0..count {
        let put = world.put(&format!("{name} {number}"), &bytes(100, number as u64)).await;
        put.unwrap_or_else(|error| panic!("{name} {number} is refused: {error}"));
    }
    context.current().duration_since(before).expect("time goes on")
}

#[test]
fn small_files_one_after_another_are_all_taken() {
    run(|context| async move {
        let world = World::start(&context).await;
        let took = put_many(&context, &world, "file", 150).await;
        let versions: u64 =
            world.shared.agreements().iter().map(|agreement| agreement.with_state(|s| s.version())).sum();
        let brought = world.ledger.brought.load(Ordering::Relaxed);
        let blocks = took.as_millis() as u64 / Parameters::LOCAL.block_ms + 1;
        assert!(brought <= blocks * 10, "one of an agreement in a block: {brought} in {blocks} blocks");
        assert!(brought < versions / 2, "one carries all that was signed before it: {brought} of {versions}");
        assert!(took < Duration::from_secs(60), "{took:?}");
        assert_eq!(world.get("file 149").await.expect("read"), bytes(100, 149));
    });
}

#[test]
fn who_puts_from_many_places_is_not_refused() {
    run(|context| async move {
        let world = World::start(&context).await;
        let names: Vec<String> = (0..6).map(|worker| format!("of {worker}")).collect();
        join_all(names.iter().map(|name| put_many(&context, &world, name, 60))).await;
        let settled = async |w: &World| w.shared.agreements().iter().all(|agreement| agreement.ahead() == 0);
        world.until("the ledger has the newest of each", settled).await;
        assert_eq!(world.get("of 5 59").await.expect("read"), bytes(100, 59));
    });
}

#[test]
fn puts_go_on_while_the_ledger_is_out_of_reach_and_afterwards() {
    run(|context| async move {
        let world = World::start(&context).await;
        world.ledger.bars.store(true, Ordering::Relaxed);
        put_many(&context, &world, "before", 20).await;
        assert_eq!(world.ledger.brought.load(Ordering::Relaxed), 0);
        let most = world.shared.agreements().iter().map(|agreement| agreement.ahead()).max();
        assert!((8..=24).contains(&most.expect("ten")), "{most:?}");
        world.ledger.bars.store(false, Ordering::Relaxed);
        put_many(&context, &world, "after", 20).await;
        let settled = async |w: &World| w.shared.agreements().iter().all(|agreement| agreement.ahead() == 0);
        world.until("the ledger has the newest of each", settled).await;
        assert!(world.ledger.brought.load(Ordering::Relaxed) < 10 * 20);
    });
}

/// A provider signs, its answer is lost, and it submits the data set by itself. The gateway must not ask
/// for another change under the same version for ever.
#[test]
fn what_a_provider_signed_and_brought_by_itself_is_taken_as_signed() {
    run(|context| async move {
        let mut world = World::start(&context).await;
        let handler = world.providers[3].handler.clone();
        let signed = Arc::new(Mutex::new(None));
        let (keeps, silent) = (signed.clone(), handler.clone());
        let silent = move |call, ask| {
            let (handler, keeps) = (silent.clone(), keeps.clone());
            async move {
                match ask {
                    Ask::Sign(sign) => {
                        let claim = sign.claim;
                        handler
                            .parts()
                            .data_sets
                            .sign(terms(3), sign, 8)
                            .await
                            .expect("open")
                            .expect("right");
                        *keeps.lock() = Some(claim);
                        futures::future::pending().await
                    }
                    ask => handler.handle(call, ask).await,
                }
            }
        };
        world.replace(3, silent).await;
        let agreement = world.shared.agreements_with(&world.providers[3].account)[0].clone();
        for number in 0..20 {
            world.put(&format!("file {number}"), &bytes(100, number)).await.expect("seven others");
            if signed.lock().is_some() {
                break;
            }
        }
        let claim = signed.lock().take().expect("it was offered something");
        assert_eq!((claim.version, agreement.with_state(|state| state.version())), (1, 0));
        world.ledger.theirs.lock().push(claim);
        world
            .replace(3, move |call, ask| {
                let handler = handler.clone();
                async move { handler.handle(call, ask).await }
            })
            .await;
        let known = async |w: &World| {
            let agreement = &w.shared.agreements_with(&w.providers[3].account)[0];
            agreement.with_state(|state| state.version()) >= 1
        };
        world.until("what it signed is known", known).await;
        let mut number = 100;
        let goes_on = async |w: &World| {
            number += 1;
            w.put(&format!("file {number}"), &bytes(100, number)).await.expect("stored");
            agreement.with_state(|state| state.version()) >= 2
        };
        world.until("it signs the next one", goes_on).await;
    });
}
