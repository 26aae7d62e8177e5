//! Providers that measure each other: real channels and real rules, the chain in memory. Once on
//! simulated time, once over the system's own sockets.

use super::*;
use crate::{
    data_sets::{DataSets, Held},
    fixtures::data,
    ledger::{Ledger, LedgerError, Proven},
    packs::{Store, StoreConfig},
    registration::registration,
    serve::{Handler, Parts},
    view::View,
    vouchers::Vouchers,
    world::{World, account, key},
};
use commonware_cryptography::ed25519::PrivateKey;
use commonware_runtime::{
    Clock, Metrics, Network, Resolver, Runner as _, Spawner, Storage, Supervisor as _, deterministic,
    tokio as real,
};
use commonware_utils::sync::Mutex;
use posync_client::{
    channel::{Listen, SharedNetwork},
    rpc::{self, Client, Server, Service as _},
};
use posync_protocol::{
    Body, Bounded, Class, Key, Operation, PerClass,
    limits::Parameters,
    operation::RegisterProvider,
    record::{Measured, Offer, Probe as Drawn},
    wire::provider::{Ask, Filler, Probe, ProviderAnswer, Refusal},
};
use rand_core::CryptoRng;
use std::{net::SocketAddr, sync::Arc, time::Duration};

const NAMES: [&str; 4] = ["paul", "quinn", "rose", "sam"];
const RATE: u64 = 1 << 20;

/// The chain in memory: an operation that is paid is in the next block.
#[derive(Clone)]
struct Chain {
    world: Arc<Mutex<World>>,
    waiting: Arc<Mutex<Vec<(&'static str, Body)>>>,
    views: Vec<View>,
}

/// The chain as one member sees it.
#[derive(Clone)]
struct Seat {
    chain: Chain,
    name: &'static str,
}

impl Chain {
    fn block(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        let mut world = self.world.lock();
        let operations: Vec<Operation> =
            waiting.into_iter().map(|(name, body)| world.sign(name, body)).collect();
        let outcome = world.block(&operations).expect("a proposer leaves out what is refused");
        assert_eq!(outcome.kept.len(), operations.len());
        let height = world.height;
        drop(world);
        self.views.iter().for_each(|view| view.advance(height));
    }

    fn measured(&self, name: &str) -> Option<Measured> {
        self.world.lock().get(Measured::key(&account(name)))
    }
}

impl Ledger for Seat {
    async fn read(&self, keys: Vec<Key>) -> Result<Proven, LedgerError> {
        let world = self.chain.world.lock();
        Ok((world.height, keys.iter().map(|key| world.state.get(key).copied()).collect()))
    }

    async fn confirmers(&self, keys: Vec<Key>, _: u64) -> Result<Vec<Proven>, LedgerError> {
        Ok(vec![self.read(keys.clone()).await?, self.read(keys).await?])
    }

    async fn above(&self, _: u64) -> Result<u64, LedgerError> {
        Err(LedgerError::Unreachable("nobody follows here".into()))
    }

    async fn openings(&self, _: u64) -> Result<Vec<u32>, LedgerError> {
        Ok(vec![])
    }

    async fn send(&self, body: Body) -> Result<(), LedgerError> {
        self.pay(body).await
    }

    async fn pay(&self, body: Body) -> Result<(), LedgerError> {
        self.chain.waiting.lock().push((self.name, body));
        Ok(())
    }
}

/// A handler that stores nothing and only counts.
async fn handler<E>(context: &E, view: View, key: PrivateKey) -> Arc<Handler<E, E::Blob>>
where
    E: Spawner + Clock + Storage + Metrics + CryptoRng,
{
    let name = |part: &str| format!("{}-{part}", view.account);
    let config = StoreConfig::for_capacity(&name("store"), 64 << 20, 4 << 20);
    let (store, _) = Store::open(context.child("store"), config).await.expect("opens");
    let held: Held = Arc::new(|_, _| None);
    let (chain, partition) = (view.chain, name("books"));
    let data_sets = DataSets::open(context.child("data_sets"), &partition, key.clone(), chain, held);
    let (data_sets, _) = data_sets.await.expect("opens");
    let (vouchers, _) = Vouchers::open(context.child("vouchers"), &name("till")).await.expect("opens");
    let clock = Arc::new(context.child("clock"));
    Arc::new(Handler::new(Parts { clock, store, data_sets, vouchers, view, capacity_leaves: 1 << 20, key }))
}

async fn listen<E>(context: &E, handler: &Arc<Handler<E, E::Blob>>, key: PrivateKey, port: u16) -> SocketAddr
where
    E: Spawner + Clock + Storage + Metrics + CryptoRng + Network,
{
    let handler = handler.clone();
    let server = Server::<rpc::Provider, _>::new(move |call, ask| {
        let handler = handler.clone();
        async move { handler.handle(call, ask).await }
    });
    let listen = Listen::new(key, rpc::Provider::NAMESPACE, SocketAddr::from(([127, 0, 0, 1], port)));
    server.listen(context.child("listen"), &context.child("network"), listen).await.expect("binds").address
}

/// Four registered providers, each with a handler and a prober. The next block is the first of epoch 1.
async fn network<E>(context: &E, parameters: Parameters, ports: [u16; 4], rates: [u64; 4]) -> Chain
where
    E: Spawner + Clock + Storage + Metrics + CryptoRng + Network + Resolver,
{
    let mut world = World::new(&NAMES);
    (world.draws, world.parameters) = (true, parameters);
    let (id, mut views) = (world.chain, vec![]);
    for (place, name) in NAMES.into_iter().enumerate() {
        let member = context.child("member").with_attribute("name", name);
        let (view, _) = View::new(account(name), id, parameters);
        let handler = handler(&member, view.clone(), key(name)).await;
        let address = listen(&member, &handler, key(name), ports[place]).await;
        let capacity = PerClass::new(1 << 20, parameters.bytes_per_epoch(rates[place]), 0);
        let body = RegisterProvider { capacity, ..registration(name, &address.to_string()) };
        let operation = world.sign(name, Body::RegisterProvider(body));
        assert_eq!(world.submit(&operation), Ok(posync_protocol::Code::Done));
        views.push(view);
    }
    world.skip_to_epoch(1);
    let chain = Chain { world: Arc::new(Mutex::new(world)), waiting: Arc::default(), views };
    for (place, name) in NAMES.into_iter().enumerate() {
        let seat = Seat { chain: chain.clone(), name };
        let (view, shared) = (chain.views[place].clone(), SharedNetwork::new(context.child("network")));
        let probing = context.child("prober").with_attribute("name", name);
        let prober = Prober::new(probing, shared, view, seat, key(name), RATE);
        context.child("prober_task").spawn(move |_| prober.run());
    }
    chain
}

/// Makes a block at each tick of the chain's clock, until `is_over`.
async fn blocks<E: Clock>(context: &E, chain: &Chain, is_over: impl Fn() -> bool) {
    let pace = Duration::from_millis(chain.world.lock().parameters.block_ms);
    for _ in 0..400 {
        if is_over() {
            return;
        }
        chain.block();
        context.sleep(pace).await;
    }
    panic!("ten epochs were not enough");
}

fn declared(chain: &Chain, name: &str) -> u64 {
    let offer: Offer = chain.world.lock().get(Offer::key(&account(name))).expect("registered");
    offer.capacity[Class::Egress]
}

#[test]
fn providers_measure_each_other_to_what_they_declare_and_send() {
    deterministic::Runner::timed(Duration::from_secs(300)).start(|context| async move {
        // Rose declares more than it sends, sam declares no egress.
        let rates = [RATE, RATE / 4, 4 * RATE, 0];
        let chain = network(&context, Parameters::LOCAL, [4001, 4002, 4003, 4004], rates).await;
        let thrice = |name: &&str| chain.measured(name).is_some_and(|measured| measured.taken == 3);
        blocks(&context, &chain, || NAMES.iter().all(thrice)).await;
        for (name, rate) in NAMES.into_iter().zip([RATE, RATE / 4, RATE, 0]) {
            let measured = chain.measured(name).expect("it was measured");
            assert_eq!(measured.median(), Some(Parameters::LOCAL.bytes_per_epoch(rate)), "{name}");
            assert_eq!(measured.epochs, [3, 2, 1], "{name}: once in each epoch");
        }
        assert!(chain.measured("rose").and_then(|rose| rose.median()) < Some(declared(&chain, "rose")));
    });
}

/// Parameters of the test over sockets: epochs of three seconds.
const SHORT: Parameters =
    Parameters { round_blocks: 2, term_rounds: 6, epoch_rounds: 6, ..Parameters::LOCAL };

#[test]
fn over_real_sockets_peers_count_what_was_sent() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = real::Config::new().with_storage_directory(directory.path()).with_tcp_nodelay(Some(true));
    real::Runner::new(config).start(|context| async move {
        let chain = network(&context, SHORT, [0; 4], [RATE; 4]).await;
        blocks(&context, &chain, || NAMES.iter().all(|name| chain.measured(name).is_some())).await;
        for name in NAMES {
            let rate = chain.measured(name).expect("it was measured").rates[0];
            // A loaded machine may lose some bytes to the window's end, but never gain any.
            assert!(rate > 0 && rate <= declared(&chain, name), "{name}: {rate}");
        }
    });
}

/// A handler within a window, the drawn sender that it counts, and the window.
async fn counting(context: &deterministic::Context) -> (View, SocketAddr, PrivateKey, Probe, Window) {
    let owner = account("paul");
    let (view, _) = View::new(owner, [7; 32], Parameters::LOCAL);
    let handler = handler(context, view.clone(), key("paul")).await;
    let address = listen(context, &handler, key("paul"), 4001).await;
    let probe = Drawn { epoch: 1, seed: [9; 32], providers: 4 };
    let draw =
        (0..8).find(|draw| probe.peer(&account("quinn"), 1, *draw) == Some(0)).expect("drawn by chance");
    let window = Window::new(probe, 0, &Parameters::LOCAL);
    view.set_window(window.clone());
    (view, address, key("quinn"), Probe { epoch: 1, index: 1, draw }, window)
}

fn piece(bytes: usize, last: bool) -> Ask {
    Ask::Filler(Filler { data: Bounded::new(data(1, bytes)).expect("a piece"), last })
}

#[test]
fn no_header_is_read_late_while_a_measuring_window_is_near() {
    let (view, _) = View::new(account("paul"), [7; 32], Parameters::LOCAL);
    let window = Window::new(Drawn { epoch: 1, seed: [9; 32], providers: 4 }, 0, &Parameters::LOCAL);
    view.set_window(window.clone());
    assert!(!view.is_calm(4), "before its own records were read, anything may be due");
    view.set_unasked(true);
    let far = window.begins() - 5;
    for height in far - 5..window.ends() + 5 {
        view.advance(height);
        assert_eq!(view.is_calm(4), height <= far || height > window.ends(), "{height}");
    }
    view.set_unasked(false);
    assert!(!view.is_calm(4));
}

#[test]
fn only_bytes_within_the_window_are_counted_and_signed() {
    deterministic::Runner::timed(Duration::from_secs(60)).start(|context| async move {
        let (view, address, caller, ask, window) = counting(&context).await;
        let network = context.child("network");
        let client: Client<rpc::Provider> =
            Client::dial(context.child("dial"), &network, &caller, account("paul"), address)
                .await
                .expect("reachable");
        view.advance(window.heights.start - 2);
        let mut call = client.open(Ask::Probe(ask)).await.expect("open");
        for (height, bytes, last) in [
            (window.heights.start - 2, 1, false),
            (window.heights.start, 10, false),
            (window.heights.end, 100, false),
            (window.heights.end + 1, 1_000, true),
        ] {
            view.advance(height);
            call.send(&piece(bytes, last)).await.expect("open");
            // Let the other side accept it before the chain advances.
            context.sleep(Duration::from_millis(50)).await;
        }
        let Some(ProviderAnswer::Counted(count)) = call.recv().await else { panic!("not counted") };
        let parties = (account("quinn"), account("paul"));
        assert_eq!((count.epoch, count.draw, count.bytes), (1, ask.draw, 110));
        assert!(window.is_good(&count, &ask, parties, 110, &[7; 32]));
        assert!(!window.is_good(&count, &ask, parties, 109, &[7; 32]), "more than was sent");
        assert!(!window.is_good(&count, &ask, parties, 110, &[8; 32]), "of another network");
        assert!(
            !window.is_good(&count, &Probe { draw: 9, ..ask }, parties, 110, &[7; 32]),
            "of another draw"
        );
    });
}

#[test]
fn who_was_not_drawn_or_comes_at_another_time_is_refused() {
    deterministic::Runner::timed(Duration::from_secs(120)).start(|context| async move {
        let (view, address, caller, ask, window) = counting(&context).await;
        let network = context.child("network");
        let dial = async |name: &'static str, key: &PrivateKey| -> Client<rpc::Provider> {
            let dialing = context.child("dial").with_attribute("name", name);
            Client::dial(dialing, &network, key, account("paul"), address).await.expect("reachable")
        };
        let (drawn, stranger) = (dial("drawn", &caller).await, dial("stranger", &key("zoe")).await);
        let refused = async |client: &Client<rpc::Provider>, ask: Ask| match client.call(ask).await {
            Ok(ProviderAnswer::Refused(refused)) => refused.reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(&drawn, Ask::Probe(ask)).await, Refusal::Window, "long before");
        view.advance(window.heights.start);
        let not_drawn = (0..8).find(|draw| window.probe.peer(&account("zoe"), 1, *draw) != Some(0));
        let by_zoe = Probe { draw: not_drawn.expect("another"), ..ask };
        assert_eq!(refused(&stranger, Ask::Probe(by_zoe)).await, Refusal::Window);
        assert_eq!(refused(&drawn, Ask::Probe(Probe { epoch: 2, ..ask })).await, Refusal::Window);
        assert_eq!(refused(&drawn, piece(5, true)).await, Refusal::Shape, "outside a probe");
        let mut call = drawn.open(Ask::Probe(ask)).await.expect("open");
        call.send(&Ask::Probe(ask)).await.expect("open");
        assert!(
            matches!(call.recv().await, Some(ProviderAnswer::Refused(no)) if no.reason == Refusal::Shape)
        );
        let mut silent = drawn.open(Ask::Probe(ask)).await.expect("open");
        assert!(
            matches!(silent.recv().await, Some(ProviderAnswer::Refused(no)) if no.reason == Refusal::Window)
        );
        view.advance(window.heights.end);
        assert_eq!(refused(&drawn, Ask::Probe(ask)).await, Refusal::Window, "after");
    });
}
