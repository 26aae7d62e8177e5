//! A provider on a real network in one process: four authorities that agree, light proofs, real
//! channels, draws from the beacon; killed and started again in between.

#[path = "../../node/tests/common/mod.rs"]
#[allow(dead_code)]
mod common;

use common::{Network4, Serve, World};
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_runtime::{Clock as _, Handle, Runner as _, Spawner as _, Supervisor as _, deterministic};
use posync_client::{
    account::Submitter,
    connection::{Connection, Endpoint},
    light::Light,
    rpc::{self, Client},
};
use posync_node::serve::{Serving, simulated};
use posync_protocol::{
    Account, AgreementId, Amount, Body, Bounded, Class, Hash, PerClass, Units,
    agreement::{credit_window, trust},
    amount::ONE,
    block::with_chain,
    limits::{Parameters, SLICE_BYTES},
    operation::{DATA_SET_NAMESPACE, DataSetClaim, Open, SetDataSet, Voucher, sign},
    record::{Agreement, Audit, DataSet, Endpoint as EndpointRecord, Provider, Usage},
    shard,
    tree::SumTree,
    wire::provider::{Ask, Get, ProviderAnswer, Put, Sign},
};
use posync_provider::{
    Config,
    config::{GRACE_LOCAL, LOOSE, SCRUB_LOCAL, SCRUB_RATE},
    vouchers::OVERDUE,
};
use std::{net::SocketAddr, time::Duration};

type Context = deterministic::Context;

const P: Parameters = Parameters::LOCAL;

fn key(seed: u64) -> PrivateKey {
    PrivateKey::from_seed(seed)
}

fn account(seed: u64) -> Account {
    Account::of(&key(seed).public_key())
}

const PROVIDER: u64 = 10;
const CONSUMER: u64 = 2;

fn node_address(index: usize, start: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, index as u8, 1], 7_000 + start as u16))
}

fn serve() -> Option<Serve> {
    Some(Box::new(|context, node, index, start| {
        let serving = Serving { key: node.key.clone(), address: node_address(index, start), private: true };
        simulated(context.child("sockets"), serving)
    }))
}

fn endpoints(network: &Network4) -> Vec<Endpoint> {
    let endpoint = |(index, node): (usize, &posync_node::run::SimNode)| Endpoint {
        account: Account::of(&node.key.public_key()),
        address: node_address(index, index as u64 + 1).into(),
    };
    network.nodes.iter().enumerate().map(endpoint).collect()
}

/// Starts the provider; the simulated network never frees an address, so each start uses another port.
fn start(world: &World, port: u16) -> Handle<()> {
    let genesis = &world.network.genesis;
    let config = Config {
        key: key(PROVIDER),
        partition: "provider".into(),
        listen: SocketAddr::from(([10, 9, 0, 1], port)),
        advertised: None,
        region: "here".into(),
        operator: "ten".into(),
        bond: Amount::sync(1_000),
        capacity_bytes: 64 << 20,
        space_bytes: u64::MAX,
        egress_rate: 16 << 20,
        pack_bytes: 1 << 20,
        capacity_gas: 0,
        reserve_prices: PerClass::all(0),
        term_max: posync_provider::config::TERM_MAX,
        nodes: endpoints(&world.network),
        chain: genesis.chain(),
        network_key: genesis.network_key(),
        parameters: P,
        scrub: SCRUB_LOCAL,
        scrub_rate: SCRUB_RATE,
        loose: LOOSE,
        grace: GRACE_LOCAL,
        report: posync_provider::alerts::Reporter::default(),
        left: posync_provider::left::Left::default(),
    };
    let network = world.context.child("network");
    world.context.child("provider").with_attribute("port", port).spawn(move |context| async move {
        let ended = posync_provider::run(context, network, config, |_| {}).await;
        panic!("the provider ended: {ended:?}");
    })
}

struct Consumer {
    connection: Connection,
    submitter: Submitter,
    chain: Hash,
}

impl Consumer {
    fn new(world: &World) -> Self {
        let genesis = &world.network.genesis;
        let light = Light::new(genesis.chain(), genesis.network_key());
        let (context, network) = (world.context.child("consumer"), world.context.child("network"));
        let connection = Connection::new(context, network, key(CONSUMER), endpoints(&world.network), light);
        let submitter = Submitter::new(connection.clone(), key(CONSUMER), P);
        Self { connection, submitter, chain: genesis.chain() }
    }

    async fn read<R: posync_protocol::Record>(&self, key: posync_protocol::Key) -> Option<R> {
        self.connection.read(key).await.expect("the network answers").value
    }

    async fn open(&self, slot: u32) -> AgreementId {
        self.open_until(slot, 50, 1 << 30).await
    }

    async fn open_until(&self, slot: u32, end_epoch: u64, quota_egress: u64) -> AgreementId {
        let price = |price: u128| u64::try_from(price).expect("small");
        let body = Body::Open(Open {
            provider: account(PROVIDER),
            slot,
            session_key: account(3),
            storage_key: account(4),
            price_max: P.prices.map(price),
            quota: PerClass::new(1 << 15, quota_egress, 0),
            rate: Units::egress(1 << 30),
            end_epoch,
            voucher_reserve: Amount::sync(10),
            storage_reserve_max: Amount::sync(10_000),
        });
        let opened = self.submitter.send(body).await.expect("final").done().expect("done");
        AgreementId { provider: account(PROVIDER), slot, opened: opened.receipt.height }
    }

    /// Puts shards, has the version signed, and puts it on the ledger.
    async fn store(&self, client: &Client<rpc::Provider>, id: AgreementId, shards: &[Vec<u8>]) {
        let mut adds = vec![];
        for data in shards {
            let name = shard::name(data);
            let ask = Put { agreement: id, shard: name, data: Bounded::new(data.clone()).expect("fits") };
            assert_eq!(client.call(Ask::Put(ask)).await.expect("answered"), ProviderAnswer::Stored(name));
            adds.push((name, data.len() as u64));
        }
        let tree = SumTree::new(&adds).expect("small");
        let (root, leaves, bytes) = (tree.root(), tree.leaves(), tree.bytes());
        let claim = DataSetClaim { agreement: id, version: 1, root, leaves, bytes };
        let consumer_signature = sign(&key(4), DATA_SET_NAMESPACE, &with_chain(&self.chain, &claim));
        let ask = Sign {
            claim,
            adds: Bounded::new(adds).expect("few"),
            removes: Bounded::default(),
            signature: consumer_signature,
        };
        let answer = client.call(Ask::Sign(ask)).await.expect("answered");
        let ProviderAnswer::Signed(provider_signature) = answer else { panic!("{answer:?}") };
        let provider: Provider = self.read(Provider::key(&account(PROVIDER))).await.expect("registered");
        let agreement: Agreement = self.read(Agreement::key(&account(PROVIDER), 0)).await.expect("open");
        let set = SetDataSet {
            claim,
            index: provider.index,
            end_epoch: agreement.end_epoch,
            storage_key: account(4),
            consumer_signature,
            provider_signature: Some(provider_signature),
        };
        self.submitter.send(Body::SetDataSet(set)).await.expect("final").done().expect("done");
    }

    /// Reads a shard, verifying each slice and paying for it at once.
    async fn get(
        &self,
        client: &Client<rpc::Provider>,
        id: AgreementId,
        shard: Hash,
        paid: &mut u64,
    ) -> Vec<u8> {
        let ask = Ask::Get(Get { agreement: id, shard, offset: 0, length: 0 });
        let mut call = client.open(ask).await.expect("open");
        let mut read: Vec<u8> = vec![];
        loop {
            let answer = call.recv().await.expect("more");
            let ProviderAnswer::Slice(slice) = answer else { panic!("{answer:?}") };
            let proved =
                shard::verify_slice(&shard, slice.shard_bytes, slice.offset, &slice.data, &slice.path);
            assert!(proved && slice.offset == read.len() as u64);
            read.extend_from_slice(&slice.data);
            *paid += slice.data.len() as u64;
            let voucher = Voucher::signed(&key(3), &self.chain, id, Units::egress(*paid));
            if slice.last {
                // No answer means acceptance, once the voucher is durable there.
                assert!(matches!(client.call(Ask::Pay(voucher)).await, Err(rpc::Error::NoAnswer)));
                return read;
            }
            call.send(&Ask::Pay(voucher)).await.expect("open");
        }
    }

    /// Reads as much as the provider sends without payment, then hangs up. Returns the bytes.
    async fn take(&self, client: &Client<rpc::Provider>, id: AgreementId, shard: Hash) -> u64 {
        let ask = Ask::Get(Get { agreement: id, shard, offset: 0, length: 0 });
        let mut call = client.open(ask).await.expect("open");
        let mut taken = 0;
        while let Some(ProviderAnswer::Slice(slice)) = call.recv().await {
            taken += slice.data.len() as u64;
        }
        taken
    }

    async fn used(&self, id: AgreementId) -> Usage {
        self.read(Usage::key(&account(PROVIDER), id.slot)).await.expect("open")
    }

    async fn audit(&self) -> Audit {
        self.read(Audit::key(&account(PROVIDER))).await.expect("registered")
    }

    /// Waits until `reads` more reads were drawn, and checks that all passed in time.
    async fn wait_for_reads(&self, context: &Context, reads: u32) {
        let before = self.audit().await.drawn;
        for _ in 0..2_000 {
            let audit = self.audit().await;
            if audit.drawn >= before + reads {
                let last = u64::MAX >> (64 - reads.min(64));
                assert_eq!(audit.history & last, last, "all passed");
                assert_eq!(audit.on_time & 1, 1, "on time");
                return;
            }
            context.sleep(Duration::from_millis(100)).await;
        }
        panic!("not drawn");
    }
}

async fn dial(world: &World, seed: u64, port: u16) -> Client<rpc::Provider> {
    let network = world.context.child("network");
    let address = SocketAddr::from(([10, 9, 0, 1], port));
    for _ in 0..100 {
        let dialing = world.context.child("dial");
        match Client::dial(dialing, &network, &key(seed), account(PROVIDER), address).await {
            Ok(client) => return client,
            Err(_) => world.context.sleep(Duration::from_millis(100)).await,
        }
    }
    panic!("the provider does not listen");
}

fn data(tag: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&tag.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn run<Fut: Future<Output = ()>>(work: impl FnOnce(Context) -> Fut) {
    let config = deterministic::Config::new().with_seed(3).with_timeout(Some(Duration::from_secs(900)));
    deterministic::Runner::new(config).start(work);
}

/// Four authorities, a consumer, and a provider that has registered.
async fn set_up(context: &Context) -> (World, Consumer, Handle<()>) {
    let accounts =
        vec![(account(PROVIDER), Amount::sync(10_000)), (account(CONSUMER), Amount::sync(1_000_000))];
    let world = World::start_serving(context.child("world"), Network4::deal(4, P, accounts), serve()).await;
    let consumer = Consumer::new(&world);
    let running = start(&world, 4_001);
    let endpoint = EndpointRecord::key(&account(PROVIDER));
    while consumer.read::<EndpointRecord>(endpoint).await.is_none() {
        context.sleep(Duration::from_millis(100)).await;
    }
    (world, consumer, running)
}

#[test]
fn it_registers_keeps_proves_sells_and_survives_being_killed() {
    run(|context| async move {
        let (world, consumer, mut running) = set_up(&context).await;
        let shards = [data(1, 300_000), data(2, 1), data(3, 65_537)];
        let id = consumer.open(0).await;
        let client = dial(&world, CONSUMER, 4_001).await;
        consumer.store(&client, id, &shards).await;
        consumer.wait_for_reads(&context, 12).await;
        let mut paid = 0;
        assert_eq!(consumer.get(&client, id, shard::name(&shards[0]), &mut paid).await, shards[0]);
        let used = Usage::key(&account(PROVIDER), 0);
        while consumer.read::<Usage>(used).await.is_some_and(|used| used.redeemed.egress < paid) {
            context.sleep(Duration::from_millis(100)).await;
        }
        for start_number in 2..5u16 {
            // Killed at an arbitrary point; acknowledged data must be there at the next start.
            running.abort();
            context.sleep(Duration::from_millis(137 * u64::from(start_number))).await;
            running = start(&world, 4_000 + start_number);
            let client = dial(&world, CONSUMER, 4_000 + start_number).await;
            for shard in &shards {
                assert_eq!(&consumer.get(&client, id, shard::name(shard), &mut paid).await, shard);
            }
            consumer.wait_for_reads(&context, 8).await;
        }
        let on_ledger: DataSet = consumer.read(DataSet::key(&account(PROVIDER), 0)).await.expect("there");
        assert_eq!(on_ledger.current.version, 1);
        let provider: Provider = consumer.read(Provider::key(&account(PROVIDER))).await.expect("there");
        assert!(provider.acc > 0, "it was paid for storage");
        running.abort();
    });
}

/// No message announces them: the provider reads the bodies of blocks.
#[test]
fn agreements_that_nobody_ever_used_are_found_in_blocks_and_cleared() {
    run(|context| async move {
        let (world, consumer, running) = set_up(&context).await;
        let now = P.epoch(consumer.connection.height().await.expect("the network answers"));
        consumer.open_until(7, now + 2, 1 << 26).await;
        // Killed before or after the provider saw it; another is opened while it is away.
        running.abort();
        consumer.open_until(1 << 19, now + 2, 1 << 26).await;
        let running = start(&world, 4_002);
        let provider = Provider::key(&account(PROVIDER));
        let over = (now + 3 + P.redemption_epochs) * P.epoch_blocks();
        loop {
            let Provider { slots, sold, .. } = consumer.read(provider).await.expect("registered");
            if slots == 0 {
                assert_eq!(sold, PerClass::all(0), "the room is on offer again");
                break;
            }
            let height = consumer.connection.height().await.expect("the network answers");
            assert!(height < over, "cleared within an epoch");
            context.sleep(Duration::from_millis(500)).await;
        }
        running.abort();
    });
}

/// Two agreements of the same consumer: bytes that it takes and never pays under the second do not affect
/// the first.
#[test]
fn who_takes_a_window_and_leaves_is_disputed_once_and_who_pays_never() {
    run(|context| async move {
        let (world, consumer, running) = set_up(&context).await;
        let (honest, cheat) = (consumer.open(0).await, consumer.open(1).await);
        let client = dial(&world, CONSUMER, 4_001).await;
        let (shard, small) = (data(1, 4 << 20), data(2, 1 << 20));
        consumer.store(&client, honest, &[shard.clone(), small.clone()]).await;
        let (name, small) = (shard::name(&shard), shard::name(&small));
        let (mut paid, mut paid_by_cheat) = (0, 0);
        for _ in 0..2 {
            consumer.get(&client, honest, name, &mut paid).await;
            consumer.get(&client, cheat, name, &mut paid_by_cheat).await;
        }
        let lost = consumer.take(&client, cheat, name).await;
        assert_eq!(lost, credit_window(paid_by_cheat, 0, ONE), "8 MiB were paid: half a MiB");
        let until = context.current() + OVERDUE + Duration::from_secs(1);
        while context.current() < until {
            consumer.get(&client, honest, small, &mut paid).await;
            context.sleep(Duration::from_secs(5)).await;
        }
        assert_eq!(consumer.used(cheat).await.disputed, Amount::ZERO, "no voucher came that could carry it");
        // It returns and pays for its reads now, twice; the earlier bytes are claimed once.
        for _ in 0..2 {
            consumer.get(&client, cheat, small, &mut paid_by_cheat).await;
            consumer.get(&client, honest, small, &mut paid).await;
            for (id, paid) in [(honest, paid), (cheat, paid_by_cheat)] {
                while consumer.used(id).await.redeemed.egress < paid {
                    context.sleep(Duration::from_millis(100)).await;
                }
            }
            let (honest, cheat) = (consumer.used(honest).await, consumer.used(cheat).await);
            assert_eq!((honest.disputed, trust(&honest, &P)), (Amount::ZERO, ONE));
            let worth = (u128::from(lost) * P.prices[Class::Egress]) >> 20;
            assert_eq!(cheat.disputed.grains(), worth);
        }
        // The provider refreshes its agreements once a round.
        context.sleep(Duration::from_millis(2 * P.round_blocks * P.block_ms)).await;
        let trusted = trust(&consumer.used(cheat).await, &P);
        let window = credit_window(paid_by_cheat, lost, trusted);
        assert!(trusted < ONE && window < credit_window(paid_by_cheat, lost, ONE), "{trusted} {window}");
        let taken = consumer.take(&client, cheat, name).await;
        assert_eq!(taken, window / SLICE_BYTES * SLICE_BYTES);
        assert!(taken < consumer.take(&client, honest, name).await);
        running.abort();
    });
}
