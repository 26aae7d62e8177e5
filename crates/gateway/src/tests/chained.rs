//! A gateway whose account keeps its agreements on a ledger of the real rules ([`super::node`]), with real providers
//! that the ledger knows.

use super::{
    node::{Node, chain::World as Ledger, fund, run},
    world::{CHAIN, Context, Handled, Provider, World, account, gateway_key, name_of, provider_key},
};
use crate::{
    access::Share,
    catalogue::{Catalogue, Files, row::Owner},
    limits::SHARE_BYTES_MAX,
    renew, repair,
    shared::Shared,
    transfer,
};
use commonware_runtime::Supervisor as _;
use futures::{FutureExt as _, StreamExt as _};
use posync_client::channel::SharedNetwork;
use posync_consumer::{
    Consumer, Means, account as consumer,
    agreements::{Policy, policy::Quota},
};
use posync_protocol::{
    Account, Amount, Body, Bounded, Class, Code, PerClass, Record as _,
    limits::Parameters,
    operation::RegisterProvider,
    record::{Agreement, Audit, DataSet, Market, Provider as Registered, Usage},
    wire::gateway::File,
};
use posync_provider::terms::Terms;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

pub(super) const P: Parameters = Parameters::LOCAL;
/// Providers of the ledger.
const PROVIDERS: usize = 10;
/// Blocks between two settlements of a provider.
const SETTLED_EVERY: u64 = 6;

/// A gateway, its providers and their ledger.
pub(super) struct Chained {
    pub(super) world: World,
    pub(super) node: Node,
}

/// A policy with small first agreements of a short term.
pub(super) fn policy(leaves: u64, egress: u64, epochs: u64) -> Policy {
    let mut policy = Policy::of(&P);
    (policy.first, policy.epochs) = (Quota { leaves, egress }, epochs);
    policy
}

/// A ledger with ten providers of ten operators, and money for the gateway.
pub(super) fn genesis() -> Ledger {
    let mut ledger = Ledger::new(&[]);
    (ledger.chain, ledger.check_every) = (CHAIN, u64::MAX);
    fund(&mut ledger, &account(&gateway_key()), Amount::sync(100_000));
    for index in 0..PROVIDERS {
        let mut operator = [0; 32];
        operator[..2].copy_from_slice(format!("{index:02}").as_bytes());
        let text = |text: String| Bounded::new(text.into_bytes()).expect("short");
        let register = RegisterProvider {
            operator,
            bond: Amount::sync(1_000),
            capacity: PerClass::new(1 << 20, 1 << 40, 0),
            reserve: PerClass::all(0),
            term_max: 720,
            addresses: Bounded::new(vec![text(address(index, 4001))]).expect("one"),
            region: Bounded::new(format!("region {}", index % 5).into_bytes()).expect("short"),
        };
        fund(&mut ledger, &account(&provider_key(index)), Amount::sync(2_000));
        assert_eq!(run(&mut ledger, &provider_key(index), Body::RegisterProvider(register)), Code::Done);
    }
    ledger
}

/// The address of a provider in the records of the ledger.
pub(super) fn address(index: usize, port: u16) -> String {
    format!("10.0.{index}.1:{port}")
}

/// The records of an agreement as its provider reads them.
fn terms(ledger: &Ledger, provider: Account, slot: u32) -> Option<Terms> {
    let agreement: Agreement = ledger.get(Agreement::key(&provider, slot))?;
    Some(Terms {
        id: agreement.id(provider, slot),
        height: ledger.height,
        usage: ledger.get(Usage::key(&provider, slot)).unwrap_or_default(),
        data: ledger.get(DataSet::key(&provider, slot)).unwrap_or_default(),
        agreement,
    })
}

/// The upkeep of the providers by proofs, which nobody draws here: each is settled in each block, and shrinks again
/// after some.
pub(super) fn settled(ledger: &mut Ledger) {
    let round = P.round(ledger.height + 1);
    for index in 0..PROVIDERS {
        let provider = account(&provider_key(index));
        let Some(mut registered) = ledger.get::<Registered>(Registered::key(&provider)) else { continue };
        registered.settled_round = round;
        ledger.state.insert(Registered::key(&provider), registered.to_slot());
        if ledger.height.is_multiple_of(SETTLED_EVERY) {
            let mut audit: Audit = ledger.get(Audit::key(&provider)).unwrap_or_default();
            audit.settlements += 1;
            ledger.state.insert(Audit::key(&provider), audit.to_slot());
        }
    }
}

/// Posts `times` the prices of the genesis.
pub(super) fn post(ledger: &mut Ledger, times: u64) {
    for class in [Class::Storage, Class::Egress] {
        let mut market: Market = ledger.get(Market::key(class)).unwrap_or_default();
        let price = u64::try_from(P.prices[class]).expect("small") * times;
        (market.price, market.slow) = (price, price);
        ledger.state.insert(Market::key(class), market.to_slot());
    }
}

impl Chained {
    /// Starts everything on a new ledger, and waits until there is an agreement with each provider.
    pub(super) async fn start(context: &Context, policy: Policy) -> Self {
        let ledger = genesis();
        let address = SocketAddr::from(([10, 2, 0, 1], 100));
        let height = ledger.height;
        let node = Node::start(context, ledger, address).await;
        node.edit(settled);
        let mut providers = Vec::new();
        for index in 0..PROVIDERS {
            let child = context.child("provider").with_attribute("i", index);
            let (asked, own) = (node.clone(), account(&provider_key(index)));
            let terms = move |slot| {
                let node = asked.clone();
                async move { node.with(|ledger| terms(ledger, own, slot)).await }
            };
            providers.push(Provider::start_on(child, index, height, terms).await);
        }
        let means = Means {
            key: gateway_key(),
            partition: "gateway".into(),
            nodes: vec![node.endpoint()],
            keeps_floor: false,
            light: node.light(),
            parameters: P,
            policy,
            alerts: Default::default(),
            volume: Default::default(),
        };
        let network = SharedNetwork::new(context.child("network"));
        let opened = Consumer::<Files>::open(context, &network, means).await.expect("opens");
        let Consumer { shared, agreements, heard, contents, found, disk: _ } = opened;
        let catalogue = Catalogue::of(shared.common.catalogue.clone(), contents);
        let (shared, notices) = Shared::new(shared, catalogue, heard, None);
        consumer::start(&agreements, None, Some(renew::drainer(&shared)));
        let environment = shared.common.environment.clone();
        environment.spawn(repair::reap(shared.clone()));
        environment.spawn(repair::start(shared.clone(), notices, found.open).map(drop));
        let handlers = providers.iter().map(|provider| provider.handler.clone()).collect();
        environment.spawn(follow(shared.clone(), node.clone(), handlers));
        let share = Arc::new(Share::new(Owner::default(), SHARE_BYTES_MAX));
        let (ledger, versions) = Default::default();
        let world = World { shared, share, providers, ledger, versions, free: Arc::default() };
        let chained = Self { world, node };
        chained
            .world
            .until("an agreement with each provider", async |world| {
                let all = world.shared.agreements();
                world.providers.iter().all(|of| all.iter().any(|one| one.provider() == of.account))
            })
            .await;
        chained
    }

    /// Runs blocks by this edit from now on, beside the upkeep of the providers.
    pub(super) fn edit(&self, edit: impl Fn(&mut Ledger) + Send + Sync + 'static) {
        self.node.edit(move |ledger| {
            settled(ledger);
            edit(ledger);
        });
    }

    /// Stores a file whose pieces arrive with a pause before each; calls `at` before each with its number.
    pub(super) async fn put_slowly(
        &self,
        name: &str,
        bytes: &[u8],
        pause: Duration,
        at: impl Fn(usize) + Send + Sync,
    ) -> Result<File, transfer::Error> {
        let shared = &self.world.shared;
        let at = &at;
        let pieces = futures::stream::iter(bytes.chunks(1 << 20).map(<[u8]>::to_vec).enumerate());
        let pieces = pieces.then(move |(number, piece)| async move {
            at(number);
            shared.common.environment.sleep(pause).await;
            Ok(piece)
        });
        transfer::put(shared, &self.world.share, name_of(name), bytes.len() as u64, pieces.boxed()).await
    }

    /// The gateway's agreements on the ledger, by provider and slot.
    pub(super) async fn on_ledger(&self) -> BTreeMap<(Account, u32), Agreement> {
        let own = account(&gateway_key());
        let providers: Vec<Account> = self.world.providers.iter().map(|provider| provider.account).collect();
        let found = |ledger: &mut Ledger| {
            let mut all = BTreeMap::new();
            for provider in providers {
                for slot in 0..64 {
                    let found = ledger.get::<Agreement>(Agreement::key(&provider, slot));
                    all.extend(
                        found.filter(|found| found.consumer == own).map(|one| ((provider, slot), one)),
                    );
                }
            }
            all
        };
        self.node.with(found).await
    }
}

/// Shows the ledger's data sets to the providers after each block.
async fn follow(shared: Arc<Shared>, node: Node, handlers: Vec<Handled>) {
    loop {
        shared.common.environment.sleep(Duration::from_millis(P.block_ms)).await;
        for handler in &handlers {
            let parts = handler.parts();
            let own = parts.view.account;
            let agreements = shared.agreements_with(&own);
            let ids: Vec<_> = agreements.iter().map(|agreement| agreement.id).collect();
            let sets = |ledger: &mut Ledger| {
                let set = |slot| ledger.get::<DataSet>(DataSet::key(&own, slot)).unwrap_or_default();
                (ledger.height, ids.iter().map(|id| (*id, set(id.slot))).collect::<Vec<_>>())
            };
            let (height, sets) = node.with(sets).await;
            parts.view.advance(height);
            for (id, set) in sets {
                parts.data_sets.note(id, set, height).await.expect("the data sets are open");
            }
            for (agreement, shards) in handler.expired(Duration::from_secs(10)) {
                parts.data_sets.let_go(agreement, shards, height);
            }
            for (agreement, shards) in parts.data_sets.release(height, &Default::default()) {
                parts.store.unlink(agreement, &shards).await.expect("the disk works");
                parts.data_sets.gone(agreement, &shards);
            }
        }
    }
}

/// The greatest height that the gateway has seen.
pub(super) fn height(world: &World) -> u64 {
    world.shared.height.load(Ordering::Relaxed)
}
