//! Real provider handlers and a real gateway on one deterministic runtime, joined by real encrypted
//! channels. Only consensus is missing: a small task plays the ledger, puts signed data sets in force,
//! and holds the agreements.

use super::served::Served;
use crate::{
    access::{self, Access, Share},
    catalogue::{
        self, LoadedAgreement,
        row::{OwnAgreementRow, Owner, RateCap, SegmentRow},
    },
    limits::SHARE_BYTES_MAX,
    repair,
    serve::{self, Service},
    shared::{Known, Shared},
    transfer::{self, Reader},
};
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_runtime::{
    Blob as _, Clock, Handle, IoBufs, Metrics, ReadOptions, Spawner, Storage, Supervisor as _, WriteOptions,
    deterministic,
};
use commonware_utils::channel::mpsc;
use commonware_utils::sync::Mutex;
use futures::{FutureExt as _, StreamExt as _, future::ready};
use posync_client::{
    account::Submitter,
    channel::{Listen, SharedNetwork},
    connection::Connection,
    light::{self, Light},
    rpc::{self, Incoming, Server, Service as _},
    volume::Size,
};
use posync_consumer::{
    agreement::{Common, OwnAgreement, session_key, storage_key},
    agreements::{
        Policy,
        policy::Quota,
        state::{AgreementUsage, Stage},
    },
    dialer,
    environment::Environment,
    ledger::Ledger,
    peer::{Dialer, Peer},
    shared,
    volume::Volume,
};
use posync_protocol::{
    Account, AgreementId, Amount, Bounded, Hash, PerClass, Units,
    limits::Parameters,
    operation::DataSetClaim,
    record::{Agreement, DataSet, Pair, Usage, Version},
    wire::{
        gateway::{self, File, Name},
        provider::{self, Ask, Refusal, Refused},
    },
};
use posync_provider::{
    data_sets::DataSets,
    packs::{Store, StoreConfig},
    serve::{Handler, Parts},
    terms::Terms,
    view::View,
    vouchers::Vouchers,
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

pub(crate) type Context = deterministic::Context;
pub(crate) type Handled = Arc<Handler<Context, <Context as Storage>::Blob>>;

pub(crate) const CHAIN: Hash = [0xc4; 32];
pub(crate) const MASTER: Hash = [0x11; 32];
/// A network key that signs no certificate in these tests: the generator of its group.
const GENERATOR: &str = "93e02b6052719f607dacd3a088274f65596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e\
                         024aa2b2f08f0a91260805272dc51051c6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8";

pub(crate) fn account(key: &PrivateKey) -> Account {
    Account::of(&key.public_key())
}

pub(crate) fn gateway_key() -> PrivateKey {
    PrivateKey::from_seed(1000)
}

/// A provider process with its listener.
pub(crate) struct Provider {
    pub(crate) index: usize,
    pub(crate) handler: Handled,
    pub(crate) account: Account,
    pub(crate) address: SocketAddr,
    context: Context,
    listening: Option<Handle<()>>,
}

/// The gateway's first agreement with provider `index`, with fixed slot and opening.
fn agreement_of(index: usize) -> AgreementId {
    AgreementId { provider: account(&provider_key(index)), slot: 0, opened: 1 }
}

pub(super) fn provider_key(index: usize) -> PrivateKey {
    PrivateKey::from_seed(index as u64 + 1)
}

/// Bytes of the gateway's volume.
pub(super) const VOLUME: u64 = 64 << 20;

/// The agreed rate in most tests: more than is ever read.
const RATE: u64 = 1 << 40;

/// The first agreement with each provider in most tests: larger than what is stored and read.
pub(super) const fn roomy(index: usize) -> Opened {
    Opened { number: index as u32, leaves: 1 << 20, egress: 1 << 40, rate: RATE }
}

/// The epoch in which an agreement ends: a later one ends later.
const fn end_of(slot: u32) -> u64 {
    700 + slot as u64
}

/// An agreement on the ledger: its number in the catalogue, and its quotas.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opened {
    pub(crate) number: u32,
    pub(crate) leaves: u64,
    pub(crate) egress: u64,
    pub(crate) rate: u64,
}

/// The agreements on the ledger, by provider and slot.
pub(crate) type Versions = Arc<Mutex<BTreeMap<(usize, u32), Opened>>>;

pub(crate) fn terms(index: usize) -> Terms {
    let number = u32::try_from(index).expect("few");
    terms_of(index, 0, Opened { number, leaves: 1 << 20, egress: 1 << 40, rate: RATE })
}

fn terms_of(index: usize, slot: u32, opened: Opened) -> Terms {
    let agreement = opened.number;
    let agreement = Agreement {
        opened: 1,
        consumer: account(&gateway_key()),
        session_key: account(&session_key(&MASTER, agreement)),
        storage_key: account(&storage_key(&MASTER, agreement)),
        end_epoch: end_of(slot),
        prices: PerClass::new(
            Pair { price: 10_000_000, slow: 10_000_000 },
            Pair { price: 1_000_000, slow: 1_000_000 },
            Pair { price: 1_000, slow: 1_000 },
        ),
        quota: PerClass::new(opened.leaves, opened.egress, 0),
        rate: Units { egress: opened.rate, gas: 0 },
    };
    let usage = Usage { voucher_reserve: Amount::sync(100_000), ..Usage::default() };
    let id = AgreementId { slot, ..agreement_of(index) };
    Terms { id, height: 8, agreement, usage, data: DataSet::default() }
}

impl Provider {
    async fn start(context: Context, index: usize, versions: Versions) -> Self {
        let terms = move |slot| {
            let found = versions.lock().get(&(index, slot)).copied();
            ready(found.map(|opened| terms_of(index, slot, opened)))
        };
        Self::start_on(context, index, 8, terms).await
    }

    /// As [`Self::start`], on a ledger at `height` that answers by `terms`.
    pub(super) async fn start_on<F, Fut>(context: Context, index: usize, height: u64, terms: F) -> Self
    where
        F: Fn(u32) -> Fut + Send + 'static,
        Fut: Future<Output = Option<Terms>> + Send,
    {
        let account = account(&provider_key(index));
        let (view, mut questions) = View::new(account, CHAIN, Parameters::LOCAL);
        view.advance(height);
        context.child("ledger").spawn(move |_| async move {
            while let Some(question) = questions.recv().await {
                let _ = question.done.send(terms(question.slot).await);
            }
        });
        let name = |what: &str| format!("provider{index}-{what}");
        let config = StoreConfig::for_capacity(&name("store"), 256 << 20, 16 << 20);
        let (store, _) = Store::open(context.child("store"), config).await.expect("opens");
        let held = store.clone();
        let held = Arc::new(move |agreement: &AgreementId, shard: &Hash| {
            held.length(shard).filter(|_| held.holds(agreement, shard))
        });
        let (key, partition) = (provider_key(index), name("books"));
        let data_sets = DataSets::open(context.child("data_sets"), &partition, key, CHAIN, held);
        let (data_sets, _) = data_sets.await.expect("opens");
        let (vouchers, _) = Vouchers::open(context.child("vouchers"), &name("till")).await.expect("opens");
        let (clock, key) = (Arc::new(context.child("clock")), provider_key(index));
        let parts = Parts { clock, store, data_sets, vouchers, view, capacity_leaves: 1 << 20, key };
        let handler = Handler::start(&context, parts);
        let kept = handler.parts().data_sets.with(|data_sets| data_sets.kept());
        for shard in handler.parts().store.page(None, 1 << 20) {
            let holders = handler.parts().store.holders(&shard).into_iter();
            let loose = holders.filter(|agreement| !kept.contains(&(*agreement, shard)));
            loose.for_each(|agreement| handler.note_loose(agreement, shard));
        }
        let address = SocketAddr::from(([10, 0, index as u8, 1], 4000));
        let mut provider = Self { index, handler, account, address, context, listening: None };
        let handler = provider.handler.clone();
        provider
            .listen(move |call, ask| {
                let handler = handler.clone();
                async move { handler.handle(call, ask).await }
            })
            .await;
        provider
    }

    /// Serves with `handler` from now on, at another port.
    pub(crate) async fn listen<F, Fut>(&mut self, handler: F)
    where
        F: Fn(Incoming<rpc::Provider>, Ask) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.stop();
        self.address.set_port(self.address.port() + 1);
        let network = self.context.child("network");
        let listen = Listen::new(provider_key(self.index), rpc::Provider::NAMESPACE, self.address);
        let listening = Server::<rpc::Provider, _>::new(handler)
            .listen(self.context.child("listen"), &network, listen)
            .await;
        self.listening = Some(listening.expect("the address is free").task);
    }

    /// Ends the listener and every connection.
    pub(crate) fn stop(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
        }
    }

    /// Leaves that this provider holds for all agreements.
    pub(crate) fn leaves(&self) -> u64 {
        self.handler.parts().store.totals().leaves
    }
}

/// Flips one byte in every 16 KiB of a stopped provider's shard files.
pub(crate) async fn corrupt(context: &Context, index: usize) {
    let partition = format!("provider{index}-store-segments");
    for name in context.scan(&partition).await.expect("a store has files") {
        let (blob, size) = context.open(&partition, &name).await.expect("opens");
        for offset in (9_000..size.saturating_sub(64)).step_by(16 << 10) {
            let byte = blob.read_at(offset, 1, ReadOptions::default()).await.expect("reads").coalesce();
            let flipped = vec![byte.as_ref()[0] ^ 0xff];
            blob.write_at(offset, IoBufs::from(flipped), WriteOptions::SYNC).await.expect("writes");
        }
    }
}

/// A gateway and its providers.
pub(crate) struct World {
    pub(crate) shared: Arc<Shared>,
    /// Share of the gateway's owner.
    pub(crate) share: Arc<Share>,
    pub(crate) providers: Vec<Provider>,
    pub(crate) ledger: Arc<Ledgered>,
    pub(super) versions: Versions,
    /// Free bytes of the gateway's volume of [`VOLUME`] bytes.
    pub(super) free: Arc<AtomicU64>,
}

/// Switches and counters by which a test observes and controls the ledger.
#[derive(Default)]
pub(crate) struct Ledgered {
    /// While true, the ledger takes no data set from the gateway.
    pub(crate) bars: AtomicBool,
    /// Number of data sets that the gateway submitted.
    pub(crate) brought: AtomicU64,
    /// Data sets that providers submit in the next block.
    pub(crate) theirs: Mutex<Vec<DataSetClaim>>,
    /// Time that a dial to a provider takes.
    pub(crate) far: Mutex<BTreeMap<Account, Duration>>,
    /// The data set of each agreement in force and the next one, and the number of the last block.
    sets: Mutex<BTreeMap<u32, DataSet>>,
    blocks: AtomicU64,
}

impl World {
    /// Starts ten providers of ten operators, and a gateway with an agreement with each.
    pub(crate) async fn start(context: &Context) -> Self {
        Self::start_with(context, 1 << 20, 1 << 40).await
    }

    /// As [`Self::start`], with first agreements of `leaves` leaves and `egress` bytes.
    pub(crate) async fn start_with(context: &Context, leaves: u64, egress: u64) -> Self {
        Self::start_rated(context, leaves, egress, RATE).await
    }

    /// As [`Self::start_with`], with an agreed rate of `rate` bytes in each round.
    pub(crate) async fn start_rated(context: &Context, leaves: u64, egress: u64, rate: u64) -> Self {
        let first = |index: usize| Opened { number: index as u32, leaves, egress, rate };
        Self::start_on(context, context.child("catalogue"), first, Arc::default()).await
    }

    /// As [`Self::start`], with the gateway's catalogue on another disk than the rest, on a ledger that may have
    /// run before.
    pub(super) async fn start_on<D>(
        context: &Context,
        disk: D,
        first: impl Fn(usize) -> Opened,
        seen: Arc<Ledgered>,
    ) -> Self
    where
        D: Storage + Clock + Metrics + Spawner,
    {
        let versions: Versions =
            Arc::new(Mutex::new((0..10).map(|index| ((index, 0), first(index))).collect()));
        let agreement_row = |index| row_of(index, 0, first(index));
        let mut providers = Vec::new();
        for index in 0..10 {
            let child = context.child("provider").with_attribute("i", index);
            providers.push(Provider::start(child, index, versions.clone()).await);
        }
        let environment = Environment::new(context);
        let started = catalogue::start(disk, "gateway", MASTER).await;
        let (catalogue, mut loaded, _disk) = started.expect("opens");
        let common = Common {
            environment: environment.clone(),
            catalogue: (*catalogue).clone(),
            chain: CHAIN,
            master: MASTER,
            signed: Arc::default(),
        };
        let (findings, heard) = mpsc::channel(1024);
        let free = Arc::new(AtomicU64::new(VOLUME));
        let shown = free.clone();
        let volume = Volume::queried(move || Ok(Size { free: shown.load(Ordering::Relaxed), all: VOLUME }));
        let consumer = shared::Shared::new(common.clone(), findings, Parameters::LOCAL, volume);
        let (shared, notices) = Shared::new(consumer, catalogue, heard, None);
        let dialer: Dialer<rpc::Provider> =
            dialer(context, &SharedNetwork::new(context.child("network")), &gateway_key());
        let dialer = super::slow::far_dialer(dialer, seen.clone(), environment.clone());
        if loaded.agreements.is_empty() {
            for index in 0..10 {
                let number =
                    common.catalogue.add_agreement(agreement_row(index)).await.expect("runs").expect("room");
                loaded.agreements.push(LoadedAgreement::fresh(number, agreement_row(index)));
            }
        }
        for (provider, loaded) in providers.iter().zip(loaded.agreements) {
            let peer = Peer::new(provider.account, dialer.clone(), environment.clone(), shared.heights());
            peer.set_address(provider.address);
            let agreement = OwnAgreement::start(loaded, Arc::new(peer), common.clone()).expect("sound");
            shared.add_agreement(agreement);
            shared.learn(provider.account, known(provider));
        }
        let mending = repair::start(shared.clone(), notices, loaded.contents.open);
        environment.spawn(mending.map(drop));
        environment.spawn(repair::reap(shared.clone()));
        let handlers = providers.iter().map(|provider| provider.handler.clone()).collect();
        environment.spawn(ledger(shared.clone(), handlers, seen.clone()));
        let share = Arc::new(Share::new(Owner::default(), SHARE_BYTES_MAX));
        Self { shared, share, providers, ledger: seen, versions, free }
    }

    /// Opens the agreements that a policy asks for, two seconds after each look, like a ledger.
    pub(crate) fn open_by(&self, policy: Policy) {
        let (shared, versions) = (self.shared.clone(), self.versions.clone());
        self.shared.common.environment.spawn(async move {
            let mut read = BTreeMap::new();
            loop {
                let mut asked = Vec::new();
                let usages = usages(&shared, &mut read).await;
                for index in 0..10 {
                    let own = |s: &&AgreementUsage| s.row.id.provider == account(&provider_key(index));
                    let mine: Vec<&AgreementUsage> = usages.iter().filter(own).collect();
                    let quotas = policy.openings(&mine, shared.demand(10), 0, &Parameters::LOCAL);
                    asked.extend(quotas.into_iter().map(|quota| (index, quota)));
                }
                shared.common.environment.sleep(Duration::from_secs(2)).await;
                for (index, quota) in asked {
                    open(&shared, &versions, index, quota).await;
                }
                shared.common.environment.sleep(Duration::from_millis(500)).await;
            }
        });
    }

    /// Opens one more agreement of `quota` with provider `index`.
    pub(crate) async fn open_more(&self, index: usize, quota: Quota) {
        open(&self.shared, &self.versions, index, quota).await;
    }

    pub(crate) async fn put(&self, name: &str, bytes: &[u8]) -> Result<File, transfer::Error> {
        self.put_pieces(name, bytes.len() as u64, bytes.chunks(1 << 20).map(<[u8]>::to_vec).collect()).await
    }

    pub(crate) async fn put_pieces(
        &self,
        name: &str,
        length: u64,
        pieces: Vec<Vec<u8>>,
    ) -> Result<File, transfer::Error> {
        let pieces = futures::stream::iter(pieces.into_iter().map(Ok)).boxed();
        transfer::put(&self.shared, &self.share, name_of(name), length, pieces).await
    }

    pub(crate) async fn get(&self, name: &str) -> Result<Vec<u8>, transfer::Error> {
        let row = self.shared.catalogue.file(name.as_bytes().to_vec()).await?;
        let row = row.ok_or_else(|| transfer::Error::NoFile(name.into()))?;
        let mut reader = Reader::open(&self.shared, &self.share, &row, 0, None)?;
        let mut bytes = Vec::new();
        while let Some(piece) = reader.next().await? {
            bytes.extend(piece);
        }
        Ok(bytes)
    }

    /// Waits until `done` holds; panics after ten minutes of the runtime's time.
    pub(crate) async fn until(&self, what: &str, mut done: impl AsyncFnMut(&Self) -> bool) {
        for _ in 0..6000 {
            if done(self).await {
                return;
            }
            self.shared.common.environment.sleep(Duration::from_millis(100)).await;
        }
        panic!("still waiting: {what}");
    }

    /// Starts the gateway's service for its owner and users.
    pub(crate) async fn serve(&self, context: &Context, owner: Account, users: &[Account]) -> Served {
        let users: Vec<access::User> = users.iter().map(|user| (*user).into()).collect();
        self.serve_users(context, owner, &users).await
    }

    /// As [`Self::serve`], for users with quotas.
    pub(crate) async fn serve_users(
        &self,
        context: &Context,
        owner: Account,
        users: &[access::User],
    ) -> Served {
        self.serve_access(context, Access::new(owner, users).expect("few")).await
    }

    /// As [`Self::serve`], for the accounts of `access`.
    pub(crate) async fn serve_access(&self, context: &Context, access: Access) -> Served {
        let service = Service { shared: self.shared.clone(), account: account(&gateway_key()), access };
        let service = Arc::new(service);
        let address = SocketAddr::from(([10, 1, 0, 1], 4000));
        let listen = Listen::new(gateway_key(), rpc::Gateway::NAMESPACE, address);
        let server =
            Server::<rpc::Gateway, _>::new(move |call, ask| serve::handle(service.clone(), call, ask));
        let listening = server.listen(context.child("users"), &context.child("network"), listen).await;
        Served { context: context.child("callers"), address: listening.expect("a free address").address }
    }

    /// Has the providers `indices` treat each ask by the verdict of `judge`.
    pub(crate) async fn judge(
        &mut self,
        indices: impl IntoIterator<Item = usize>,
        judge: impl Fn(&Ask) -> Verdict + Clone + Send + Sync + 'static,
    ) {
        for index in indices {
            let (handler, judge) = (self.providers[index].handler.clone(), judge.clone());
            let handler = move |call: Incoming<rpc::Provider>, ask: Ask| {
                let (handler, verdict) = (handler.clone(), judge(&ask));
                async move {
                    match verdict {
                        Verdict::Answers => handler.handle(call, ask).await,
                        Verdict::Hangs => futures::future::pending().await,
                        Verdict::Refuses(reason, text) => {
                            let text = Bounded::new(text.as_bytes().to_vec()).expect("short");
                            let refused = Refused { reason, text, signed: None };
                            let _ = call.finish(&provider::ProviderAnswer::Refused(refused)).await;
                        }
                    }
                }
            };
            self.replace(index, handler).await;
        }
    }

    /// Has a provider answer with `handler`, at another port that the gateway learns.
    pub(crate) async fn replace<F, Fut>(&mut self, index: usize, handler: F)
    where
        F: Fn(Incoming<rpc::Provider>, Ask) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.providers[index].listen(handler).await;
        let provider = &self.providers[index];
        self.shared.learn(provider.account, known(provider));
    }

    /// Breaks every connection with a provider, which then serves at another port.
    pub(crate) async fn reconnect(&mut self, index: usize) {
        let handler = self.providers[index].handler.clone();
        let serve = move |call, ask| {
            let handler = handler.clone();
            async move { handler.handle(call, ask).await }
        };
        self.replace(index, serve).await;
    }

    /// Egress bytes under the first agreement with provider `index`: signed for by the gateway; paid and sent
    /// as the provider counts them; and overdue in an hour.
    pub(crate) async fn egress(&self, index: usize) -> [u64; 4] {
        let provider = &self.providers[index];
        let agreement = &self.shared.agreements_with(&provider.account)[0];
        let later = self.shared.common.environment.now() + Duration::from_secs(3_600);
        let of = |vouchers: &mut posync_provider::vouchers::State| {
            let id = &agreement.id;
            [vouchers.paid(id), vouchers.sent(id), vouchers.overdue(id, later)]
        };
        let [paid, sent, overdue] = provider.handler.parts().vouchers.with(of);
        [agreement.egress().await, paid, sent, overdue]
    }

    /// Leaves that all providers hold.
    pub(crate) fn leaves(&self) -> u64 {
        self.providers.iter().map(Provider::leaves).sum()
    }
}

/// A provider's treatment of an ask.
pub(crate) enum Verdict {
    Answers,
    Hangs,
    Refuses(Refusal, &'static str),
}

/// Sends bytes of an open put; if the gateway has ended the call, its answer says why.
pub(crate) async fn send(call: &rpc::Call<rpc::Gateway>, piece: &[u8]) {
    let data = Bounded::new(piece.to_vec()).expect("a piece");
    let _ = call.send(&gateway::Ask::Data(data)).await;
}

/// The text of a refusal.
pub(crate) fn refusal(answer: &gateway::GatewayAnswer) -> String {
    match answer {
        gateway::GatewayAnswer::Refused(refused) => String::from_utf8_lossy(&refused.text).into_owned(),
        other => panic!("no refusal: {other:?}"),
    }
}

/// A connection to a ledger without nodes, so that no request is answered.
pub(crate) fn unconnected(context: &Context, chain: Hash) -> Ledger {
    let bytes: Vec<u8> = (0..GENERATOR.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&GENERATOR[at..at + 2], 16).expect("hex"))
        .collect();
    let network_key = light::network_key(&bytes.try_into().expect("96 bytes")).expect("a point");
    let (dialing, network) = (context.child("nodes"), context.child("network"));
    let light = Light::new(chain, network_key);
    let connection = Connection::new(dialing, network, gateway_key(), Vec::new(), light);
    Ledger::new(connection.clone(), Submitter::new(connection, gateway_key(), Parameters::LOCAL))
}

pub(crate) fn name_of(name: &str) -> Name {
    Bounded::new(name.as_bytes().to_vec()).expect("short")
}

/// The load and egress of each agreement; `read` holds the egress at the look before.
pub(super) async fn usages(shared: &Shared, read: &mut BTreeMap<u32, u64>) -> Vec<AgreementUsage> {
    let mut all = Vec::new();
    for agreement in shared.agreements() {
        let egress = agreement.egress().await;
        let epoch = shared.parameters.epoch(shared.height.load(Ordering::Relaxed));
        let pace = egress - read.insert(agreement.number, egress).unwrap_or(egress);
        all.push(AgreementUsage { pace, ..AgreementUsage::of(&agreement, egress, epoch) });
    }
    all
}

/// Opens one more agreement with a provider, on the ledger and at the gateway.
pub(super) async fn open(shared: &Arc<Shared>, versions: &Versions, index: usize, quota: Quota) {
    let slot = versions.lock().keys().filter(|(of, _)| *of == index).count() as u32;
    let mut opened = Opened { number: 0, leaves: quota.leaves, egress: quota.egress, rate: RATE };
    let added = shared.common.catalogue.add_agreement(row_of(index, slot, opened)).await;
    opened.number = added.expect("runs").expect("room");
    versions.lock().insert((index, slot), opened);
    let loaded = LoadedAgreement::fresh(opened.number, row_of(index, slot, opened));
    let peer = shared.agreements_with(&account(&provider_key(index)))[0].peer.clone();
    shared.add_agreement(OwnAgreement::start(loaded, peer, shared.common.clone()).expect("sound"));
}

fn row_of(index: usize, slot: u32, opened: Opened) -> OwnAgreementRow {
    OwnAgreementRow {
        id: AgreementId { slot, ..agreement_of(index) },
        stage: Stage::Open as u8,
        end_epoch: end_of(slot),
        quota_leaves: opened.leaves,
        quota_egress: opened.egress,
        voucher_reserve: Amount::sync(100_000),
        egress_price: 1_000_000,
        rate_egress: RateCap(opened.rate),
    }
}

fn known(provider: &Provider) -> Known {
    Known {
        index: provider.index as u32,
        operator: vec![provider.index as u8],
        region: vec![provider.index as u8 % 5],
        address: Some(provider.address.into()),
        socket: Some(provider.address),
        trusted: true,
        takes: true,
        score: 1_000_000_000,
        vetted: true,
    }
}

/// Blocks between two settled points (DS-4) of a provider.
const SETTLED_EVERY: u64 = 6;

/// Takes the newest data set of each agreement in every block, puts it in force at settled points and shows
/// it to its provider, like the ledger. Panics on an old version (DS-1), and on a data set below the one
/// in force before two settlements passed (DS-3).
async fn ledger(shared: Arc<Shared>, handlers: Vec<Handled>, seen: Arc<Ledgered>) {
    for block in seen.blocks.load(Ordering::Relaxed) + 1.. {
        shared.common.environment.sleep(Duration::from_millis(Parameters::LOCAL.block_ms)).await;
        let settlements = u32::try_from(block / SETTLED_EVERY).expect("a short run");
        for agreement in shared.agreements() {
            let at = |handler: &&Handled| handler.parts().view.account == agreement.provider();
            let handler = handlers.iter().find(at).expect("one of ours");
            let mut set = seen.sets.lock().get(&agreement.number).cloned().unwrap_or_default();
            // Who submits reads first.
            let last = set.next.unwrap_or(set.current);
            if agreement.looked(&last, block).await.is_err() {
                // The gateway has ended with its disk.
                return;
            }
            let settled = |set: &DataSet| settlements >= set.current.grown_at + 2;
            let own = |claim: &mut DataSetClaim| claim.agreement == agreement.id;
            let theirs = seen.theirs.lock().extract_if(.., own).next();
            let ours = agreement.waiting().map(|signed| signed.claim);
            let ours = ours.filter(|_| theirs.is_none() && !seen.bars.load(Ordering::Relaxed));
            seen.brought.fetch_add(ours.iter().count() as u64, Ordering::Relaxed);
            if let Some(claim) = theirs.or(ours) {
                let last = set.next.unwrap_or(set.current);
                assert!(claim.version > last.version, "an old version is brought");
                assert!(claim.leaves >= set.current.leaves || settled(&set), "a shrink is brought too early");
                let DataSetClaim { version, root, leaves, bytes, .. } = claim;
                set.next = Some(Version { version, root, leaves, bytes, grown_at: set.current.grown_at });
            }
            if block.is_multiple_of(SETTLED_EVERY)
                && let Some(next) = set.next.take()
            {
                let grows = next.leaves >= set.current.leaves && next.leaves > 0;
                let grown_at = if grows { settlements } else { set.current.grown_at };
                set.current = Version { grown_at, ..next };
            }
            seen.sets.lock().insert(agreement.number, set.clone());
            let last = set.next.unwrap_or(set.current);
            if agreement.looked(&last, block).await.is_err() {
                return;
            }
            let below = set.next.is_none_or(|next| next.leaves < set.current.leaves);
            agreement.set_may_shrink(
                (agreement.waiting().is_none() && settled(&set) && below).then_some(last.version),
            );
            let parts = handler.parts();
            let noted = parts.data_sets.note(agreement.id, set.clone(), block).await;
            noted.expect("the data sets are open");
            for (agreement, shards) in handler.expired(Duration::from_secs(10)) {
                parts.data_sets.let_go(agreement, shards, block);
            }
            // No provider here misses a read.
            for (agreement, shards) in parts.data_sets.release(block, &Default::default()) {
                parts.store.unlink(agreement, &shards).await.expect("the disk works");
                parts.data_sets.gone(agreement, &shards);
            }
        }
        seen.blocks.store(block, Ordering::Relaxed);
    }
}

pub(crate) fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// The catalogue's row of a file's segment.
pub(crate) async fn row(world: &World, name: &str, segment: u32) -> SegmentRow {
    let catalogue = &world.shared.catalogue;
    let file = catalogue.file(name.as_bytes().to_vec()).await.expect("runs").expect("there");
    catalogue.segment(file.id, segment).await.expect("runs").expect("there")
}

/// The positions of a segment that have a holder, with the holder and the shard's name.
pub(crate) async fn holders(world: &World, name: &str, segment: u32) -> Vec<(usize, Account, Hash)> {
    let row = row(world, name, segment).await;
    let of = |position: usize| {
        let holder = row.holder(position)?;
        Some((position, world.shared.agreement(holder.agreement)?.provider(), row.names[position]))
    };
    (0..8).filter_map(of).collect()
}

/// True if all shards of a file have holders.
pub(crate) async fn whole(world: &World, name: &str) -> bool {
    let file = world.shared.catalogue.file(name.as_bytes().to_vec()).await.expect("runs").expect("there");
    let file = world.shared.catalogue.describe(file).await.expect("runs");
    file.shards_durable == file.shards
}

/// Index of a provider in the world.
pub(crate) fn index_of(world: &World, account: &Account) -> usize {
    world.providers.iter().position(|provider| provider.account == *account).expect("one of ours")
}
