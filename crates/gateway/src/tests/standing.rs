//! Providers that are suspended or jailed, that leave, or that move to another address, while files are stored.

use super::{
    chained::{Chained, P, address, height, policy},
    node::chain::World as Ledger,
    world::{Context, World, bytes, holders, index_of, whole},
};
use commonware_runtime::{Runner as _, deterministic};
use posync_client::rpc;
use posync_protocol::{
    Account, Bounded, Record as _,
    record::{Endpoint, Provider, Reputation},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

fn run<Fut: Future<Output = ()>>(work: impl FnOnce(Context) -> Fut) {
    let config = deterministic::Config::default().with_seed(1).with_timeout(Some(Duration::from_secs(1_800)));
    deterministic::Runner::new(config).start(work);
}

const MIB: usize = 1 << 20;

fn suspend(ledger: &mut Ledger, provider: &Account, since: u64) {
    let mut reputation: Reputation = ledger.get(Reputation::key(provider)).expect("registered");
    (reputation.suspended, reputation.low_available) = (since, if since == 0 { 0 } else { 3 });
    ledger.state.insert(Reputation::key(provider), reputation.to_slot());
}

fn jail(ledger: &mut Ledger, provider: &Account) {
    let mut reputation: Reputation = ledger.get(Reputation::key(provider)).expect("registered");
    reputation.jailed_until = 600;
    ledger.state.insert(Reputation::key(provider), reputation.to_slot());
}

fn leave(ledger: &mut Ledger, provider: &Account) {
    let mut registered: Provider = ledger.get(Provider::key(provider)).expect("registered");
    registered.leaves_at = P.epoch(ledger.height) + P.exit_epochs;
    ledger.state.insert(Provider::key(provider), registered.to_slot());
}

/// Shards in force at a provider.
fn shards(world: &World, provider: &Account) -> usize {
    let all = world.shared.agreements_with(provider);
    all.iter().map(|agreement| agreement.with_state(|state| state.live().len())).sum()
}

/// True if a provider holds no shard of a file that has eight holders.
async fn moved(world: &World, name: &str, provider: &Account) -> bool {
    let holders = holders(world, name, 0).await;
    holders.len() == 8 && holders.iter().all(|(_, holder, _)| holder != provider)
}

#[test]
fn a_suspended_provider_gets_no_new_data_its_shards_stay_readable_and_move_and_it_is_used_again_afterwards() {
    run(|context| async move {
        let chained = Chained::start(&context, policy(4 << 10, 8 << 20, 16)).await;
        let world = &chained.world;
        let plain = bytes(300_000, 1);
        world.put("file", &plain).await.expect("stored");
        world.until("eight holders", async |w| whole(w, "file").await).await;
        let suspended = holders(world, "file", 0).await[2].1;
        let is_suspended = Arc::new(AtomicBool::new(true));
        let flag = is_suspended.clone();
        chained.edit(move |ledger| suspend(ledger, &suspended, u64::from(flag.load(Ordering::Relaxed))));
        let known = async |w: &World| w.shared.known(&suspended).is_some_and(|known| !known.takes);
        world.until("its suspension is known", known).await;
        let held = shards(world, &suspended);
        for file in 0..12 {
            world.put(&format!("during {file}"), &bytes(4_096, file)).await.expect("nine others");
        }
        assert_eq!(shards(world, &suspended), held, "it gets no new data");
        let agreement = world.shared.agreements_with(&suspended)[0].clone();
        let entry = agreement.with_state(|state| state.live())[0];
        let fetched = agreement.fetch(entry.name, entry.bytes.into()).await;
        assert!(fetched.is_ok(), "what it holds stays readable: {fetched:?}");
        let ended = chained.on_ledger().await;
        let of_it = ended.iter().filter(|((provider, _), _)| *provider == suspended);
        let last = of_it.map(|(_, agreement)| agreement.end_epoch).max().expect("it has one");
        world.until("its shards move", async |w| moved(w, "file", &suspended).await).await;
        assert!(P.epoch(height(world)) <= last, "before their term ends");
        assert!(world.get("file").await.expect("read") == plain);
        is_suspended.store(false, Ordering::Relaxed);
        let mut turn = 0;
        let used = async |w: &World| {
            turn += 1;
            w.put(&format!("after {turn}"), &bytes(4_096, turn)).await.expect("stored");
            shards(w, &suspended) > 0
        };
        world.until("it is used again", used).await;
    });
}

/// In the middle of a put; afterwards the file has eight holders that may hold it.
#[test]
fn a_provider_that_is_jailed_or_leaves_in_the_middle_of_a_put_stops_it_not() {
    for leaves in [false, true] {
        run(move |context| async move {
            let chained = Chained::start(&context, policy(16 << 10, 64 << 20, 64)).await;
            let world = &chained.world;
            world.put("first", &bytes(300_000, 9)).await.expect("stored");
            world.until("eight holders", async |w| whole(w, "first").await).await;
            let provider = holders(world, "first", 0).await[3].1;
            let now = Arc::new(AtomicBool::new(false));
            let flag = now.clone();
            chained.edit(move |ledger| match flag.load(Ordering::Relaxed) {
                true if leaves => leave(ledger, &provider),
                true => jail(ledger, &provider),
                false => {}
            });
            let plain = bytes(9 * MIB, 5);
            let at = |piece| now.store(piece >= 4, Ordering::Relaxed);
            chained.put_slowly("file", &plain, Duration::from_secs(2), at).await.expect("nine others");
            world.until("eight holders", async |w| whole(w, "file").await).await;
            let last = holders(world, "file", 2).await;
            assert!(last.iter().all(|(_, holder, _)| *holder != provider), "what came later is elsewhere");
            assert!(world.get("file").await.expect("read") == plain);
            if leaves {
                let gone = async |w: &World| {
                    shards(w, &provider) == 0 && moved(w, "first", &provider).await && whole(w, "file").await
                };
                world.until("others hold what it held", gone).await;
                assert!(world.get("first").await.expect("read") == bytes(300_000, 9));
            }
        });
    }
}

#[test]
fn a_provider_whose_address_changes_in_the_middle_of_a_put_is_found_at_the_new_one() {
    run(|context| async move {
        let mut chained = Chained::start(&context, policy(16 << 10, 64 << 20, 64)).await;
        chained.world.put("first", &bytes(300_000, 9)).await.expect("stored");
        let provider = holders(&chained.world, "first", 0).await[3].1;
        let index = index_of(&chained.world, &provider);
        let plain = bytes(5 * MIB, 5);
        let now = Arc::new(AtomicBool::new(false));
        // It listens at the new address before the ledger has it, as an operator does it.
        let handler = chained.world.providers[index].handler.clone();
        let serve = move |call: rpc::Incoming<rpc::Provider>, ask| {
            let handler = handler.clone();
            async move { handler.handle(call, ask).await }
        };
        chained.world.providers[index].listen(serve).await;
        let port = chained.world.providers[index].address.port();
        let flag = now.clone();
        chained.edit(move |ledger| {
            if flag.load(Ordering::Relaxed) {
                let new = Bounded::new(address(index, port).into_bytes()).expect("short");
                let endpoint = Endpoint { addresses: Bounded::new(vec![new]).expect("one") };
                ledger.state.insert(Endpoint::key(&provider), endpoint.to_slot());
            }
        });
        let at = |piece| now.store(piece >= 2, Ordering::Relaxed);
        chained.put_slowly("file", &plain, Duration::from_secs(2), at).await.expect("stored");
        let world = &chained.world;
        world.until("eight holders", async |w| whole(w, "file").await).await;
        assert!(world.get("file").await.expect("read") == plain);
        let peer = world.shared.agreements_with(&provider)[0].peer.clone();
        world.until("it answers at the new address", async |_| peer.ready().await.is_ok()).await;
        let held = shards(world, &provider);
        let mut turn = 0;
        let used = async |w: &World| {
            turn += 1;
            w.put(&format!("after {turn}"), &bytes(4_096, turn)).await.expect("stored");
            shards(w, &provider) > held
        };
        world.until("it is given shards again", used).await;
    });
}
