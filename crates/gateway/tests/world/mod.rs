//! Real provider desks and a real gateway on one deterministic runtime, joined by real encrypted
//! channels. Only consensus is left out: a small task says what the ledger would, that each signed
//! data set is in force and which agreements there are.

use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_runtime::{
    Blob as _, Handle, IoBufs, ReadOptions, Spawner as _, Storage, Supervisor as _, WriteOptions,
    deterministic,
};
use commonware_utils::channel::mpsc;
use futures::StreamExt as _;
use posync_client::{
    account::Submitter,
    channel::Listen,
    connection::Connection,
    light::{self, Light},
    rpc::{self, Incoming, Server, Service as _},
};
use posync_gateway::{
    access::{Access, Share},
    catalogue::{
        self, LoadedDeed,
        row::{DeedRow, Owner},
    },
    core::{Core, Known},
    deed::{Common, Deed, session_key, storage_key},
    dialer,
    environment::Environment,
    ledger::Ledger,
    limits::SHARE_BYTES_MAX,
    link::{Dialer, Link},
    purse::state::Stage,
    repair,
    serve::{self, Service},
    transfer::{self, Reader},
};
use posync_protocol::{
    Account, AgreementId, Amount, Bounded, Hash,
    limits::Parameters,
    operation::DataSetClaim,
    record::{Agreement, DataSet, Use, Version},
    wire::{
        gateway::{self, File, Name},
        provider::{self, Ask, Refusal, Refused},
    },
};
use posync_provider::{
    books::Books,
    segments::{Store, StoreConfig},
    serve::{Desk, Parts},
    terms::Terms,
    till::Till,
    view::View,
};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

pub(crate) type Context = deterministic::Context;
pub(crate) type Desked = Arc<Desk<Context, <Context as Storage>::Blob>>;

pub(crate) const CHAIN: Hash = [0xc4; 32];
pub(crate) const MASTER: Hash = [0x11; 32];
/// A network key whose secret nobody needs: the generator of its group.
const GENERATOR: &str = "93e02b6052719f607dacd3a088274f65596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e\
                         024aa2b2f08f0a91260805272dc51051c6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8";

pub(crate) fn account(key: &PrivateKey) -> Account {
    Account::of(&key.public_key())
}

fn gateway_key() -> PrivateKey {
    PrivateKey::from_seed(1000)
}

/// One provider process.
pub(crate) struct Provider {
    pub(crate) index: usize,
    pub(crate) desk: Desked,
    pub(crate) account: Account,
    pub(crate) address: SocketAddr,
    context: Context,
    listening: Option<Handle<()>>,
}

/// The agreement of the gateway with provider `index`: number, slot and terms are fixed.
fn agreement_of(index: usize) -> AgreementId {
    AgreementId { provider: account(&provider_key(index)), slot: 0, opened: 1 }
}

fn provider_key(index: usize) -> PrivateKey {
    PrivateKey::from_seed(index as u64 + 1)
}

pub(crate) fn terms(index: usize) -> Terms {
    let deed = u32::try_from(index).expect("few");
    let agreement = Agreement {
        opened: 1,
        consumer: account(&gateway_key()),
        session_key: account(&session_key(&MASTER, deed)),
        storage_key: account(&storage_key(&MASTER, deed)),
        end_epoch: 700,
        storage_price: 10_000_000,
        storage_slow: 10_000_000,
        egress_price: 1_000_000,
        egress_slow: 1_000_000,
        gas_price: 1_000,
        gas_slow: 1_000,
        quota_leaves: 1 << 20,
        quota_egress: 1 << 40,
        quota_gas: 0,
        rate_egress: 1 << 40,
        rate_gas: 0,
    };
    let usage = Use { voucher_reserve: Amount::sync(100_000), ..Use::default() };
    Terms { id: agreement_of(index), height: 8, agreement, usage, data: DataSet::default() }
}

impl Provider {
    async fn start(context: Context, index: usize) -> Self {
        let account = account(&provider_key(index));
        let (view, mut questions) = View::new(account, CHAIN, Parameters::LOCAL);
        view.advance(8);
        context.child("ledger").spawn(move |_| async move {
            while let Some(question) = questions.recv().await {
                let _ = question.done.send((question.slot == 0).then(|| terms(index)));
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
        let books = Books::open(context.child("books"), &partition, key, CHAIN, held);
        let (books, _) = books.await.expect("opens");
        let (till, _) = Till::open(context.child("till"), &name("till")).await.expect("opens");
        let clock = Arc::new(context.child("clock"));
        let desk = Arc::new(Desk::new(Parts {
            clock,
            store,
            books,
            till,
            view,
            capacity_leaves: 1 << 20,
            key: provider_key(index),
        }));
        let kept = desk.parts().books.with(|books| books.kept());
        for shard in desk.parts().store.page(None, 1 << 20) {
            let holders = desk.parts().store.holders(&shard).into_iter();
            let loose = holders.filter(|agreement| !kept.contains(&(*agreement, shard)));
            loose.for_each(|agreement| desk.note_loose(agreement, shard));
        }
        let address = SocketAddr::from(([10, 0, index as u8, 1], 4000));
        let mut provider = Self { index, desk, account, address, context, listening: None };
        let desk = provider.desk.clone();
        provider
            .listen(move |call, ask| {
                let desk = desk.clone();
                async move { desk.handle(call, ask).await }
            })
            .await;
        provider
    }

    /// Serves with `handler` from now on, at another address.
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

    /// Ends its listener and every connection.
    pub(crate) fn stop(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
        }
    }

    /// Leaves held for all agreements.
    pub(crate) fn leaves(&self) -> u64 {
        self.desk.parts().store.totals().leaves
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
    pub(crate) core: Arc<Core>,
    /// Of the gateway's owner.
    pub(crate) share: Arc<Share>,
    pub(crate) providers: Vec<Provider>,
    pub(crate) ledger: Arc<Ledgered>,
}

/// What a test sees of the ledger, and does to it.
#[derive(Default)]
pub(crate) struct Ledgered {
    /// It takes no data set now.
    pub(crate) bars: AtomicBool,
    /// Data sets that the gateway brought.
    pub(crate) brought: AtomicU64,
    /// Data sets that providers bring in the next block.
    pub(crate) theirs: Mutex<Vec<DataSetClaim>>,
}

impl World {
    /// Ten providers of ten operators and a gateway with an agreement with each.
    pub(crate) async fn start(context: &Context) -> Self {
        let mut providers = Vec::new();
        for index in 0..10 {
            providers
                .push(Provider::start(context.child("provider").with_attribute("i", index), index).await);
        }
        let environment = Environment::new(context);
        let started = catalogue::start(context.child("catalogue"), "gateway", MASTER).await;
        let (catalogue, mut loaded, _disk) = started.expect("opens");
        let common = Common {
            environment: environment.clone(),
            catalogue,
            chain: CHAIN,
            master: MASTER,
            signed: Arc::default(),
        };
        let (notices, heard) = mpsc::channel(1024);
        let core = Core::new(common.clone(), notices, Parameters::LOCAL);
        let network = Arc::new(context.child("network"));
        let dialer: Dialer<rpc::Provider> = dialer(context, &network, &gateway_key());
        if loaded.deeds.is_empty() {
            for index in 0..10 {
                let number = common.catalogue.add_deed(deed_row(index)).await.expect("runs").expect("room");
                loaded.deeds.push(LoadedDeed::fresh(number, deed_row(index)));
            }
        }
        for (provider, loaded) in providers.iter().zip(loaded.deeds) {
            let link = Link::new(provider.account, dialer.clone(), environment.clone(), core.heights());
            link.set_address(provider.address);
            let deed = Deed::start(loaded, Arc::new(link), common.clone()).expect("sound");
            core.add_deed(deed);
            core.learn(provider.account, known(provider));
        }
        environment.spawn({
            let core = core.clone();
            async move {
                let _ = repair::start(core, heard, loaded.open).await;
            }
        });
        environment.spawn(repair::reap(core.clone()));
        let desks = providers.iter().map(|provider| provider.desk.clone()).collect();
        let seen = Arc::<Ledgered>::default();
        environment.spawn(ledger(core.clone(), desks, seen.clone()));
        let share = Arc::new(Share::new(Owner::default(), SHARE_BYTES_MAX));
        Self { core, share, providers, ledger: seen }
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
        transfer::put(&self.core, &self.share, name_of(name), length, pieces).await
    }

    pub(crate) async fn get(&self, name: &str) -> Result<Vec<u8>, transfer::Error> {
        let row = self.core.common.catalogue.file(name.as_bytes().to_vec()).await?;
        let row = row.ok_or_else(|| transfer::Error::NoFile(name.into()))?;
        let mut reader = Reader::open(&self.core, &self.share, &row, 0, None)?;
        let mut bytes = Vec::new();
        while let Some(piece) = reader.next().await? {
            bytes.extend(piece);
        }
        Ok(bytes)
    }

    /// Waits until `done` holds, at most two minutes of the runtime's time.
    pub(crate) async fn until(&self, what: &str, mut done: impl AsyncFnMut(&Self) -> bool) {
        for _ in 0..1200 {
            if done(self).await {
                return;
            }
            self.core.common.environment.sleep(Duration::from_millis(100)).await;
        }
        panic!("still waiting: {what}");
    }

    /// Serves users from now on.
    pub(crate) async fn serve(&self, context: &Context, owner: Account, users: &[Account]) -> Served {
        let access = Access::new(owner, users).expect("few");
        let service = Service { core: self.core.clone(), account: account(&gateway_key()), access };
        let service = Arc::new(service);
        let address = SocketAddr::from(([10, 1, 0, 1], 4000));
        let listen = Listen::new(gateway_key(), rpc::Gateway::NAMESPACE, address);
        let server =
            Server::<rpc::Gateway, _>::new(move |call, ask| serve::handle(service.clone(), call, ask));
        let network = context.child("network");
        let listening = server.listen(context.child("users"), &network, listen).await;
        Served { context: context.child("callers"), address: listening.expect("the address is free").address }
    }

    /// Has `indices` answer to an ask with what `judge` says; to what it says nothing of, as they do.
    pub(crate) async fn judge(
        &mut self,
        indices: impl IntoIterator<Item = usize>,
        judge: impl Fn(&Ask) -> Verdict + Clone + Send + Sync + 'static,
    ) {
        for index in indices {
            let (desk, judge) = (self.providers[index].desk.clone(), judge.clone());
            let handler = move |call: Incoming<rpc::Provider>, ask: Ask| {
                let (desk, verdict) = (desk.clone(), judge(&ask));
                async move {
                    match verdict {
                        Verdict::Answers => desk.handle(call, ask).await,
                        Verdict::Hangs => futures::future::pending().await,
                        Verdict::Refuses(reason, text) => {
                            let text = Bounded::new(text.as_bytes().to_vec()).expect("short");
                            let refused = Refused { reason, text, signed: None };
                            let _ = call.finish(&provider::Answer::Refused(refused)).await;
                        }
                    }
                }
            };
            self.replace(index, handler).await;
        }
    }

    /// Lets a provider answer with `handler`.
    pub(crate) async fn replace<F, Fut>(&mut self, index: usize, handler: F)
    where
        F: Fn(Incoming<rpc::Provider>, Ask) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.providers[index].listen(handler).await;
        let provider = &self.providers[index];
        self.core.learn(provider.account, known(provider));
    }

    /// Breaks every connection with a provider; it listens again, at another address.
    pub(crate) async fn reconnect(&mut self, index: usize) {
        let desk = self.providers[index].desk.clone();
        let serve = move |call, ask| {
            let desk = desk.clone();
            async move { desk.handle(call, ask).await }
        };
        self.replace(index, serve).await;
    }

    /// Egress bytes under the agreement with provider `index`: verified and signed for by the
    /// gateway, paid and sent as the provider knows it, and overdue in an hour.
    pub(crate) async fn egress(&self, index: usize) -> [u64; 4] {
        let provider = &self.providers[index];
        let deed = &self.core.deeds_with(&provider.account)[0];
        let later = self.core.common.environment.now() + Duration::from_secs(3_600);
        let of = |till: &mut posync_provider::till::State| {
            let id = &deed.agreement;
            [till.paid(id), till.sent(id), till.overdue(id, later)]
        };
        let [paid, sent, overdue] = provider.desk.parts().till.with(of);
        [deed.egress().await, paid, sent, overdue]
    }

    /// Leaves that all providers hold.
    pub(crate) fn leaves(&self) -> u64 {
        self.providers.iter().map(Provider::leaves).sum()
    }
}

/// What a provider does with an ask.
pub(crate) enum Verdict {
    Answers,
    Hangs,
    Refuses(Refusal, &'static str),
}

/// A gateway's listener.
pub(crate) struct Served {
    context: Context,
    address: SocketAddr,
}

impl Served {
    /// A connection of whoever has `key`.
    pub(crate) async fn dial(&self, key: &PrivateKey) -> User {
        let (context, network) = (self.context.child("user"), self.context.child("network"));
        let dialed = rpc::Client::dial(context, &network, key, account(&gateway_key()), self.address).await;
        User(dialed.expect("the gateway listens"))
    }
}

/// Somebody at the gateway's door.
pub(crate) struct User(pub(crate) rpc::Client<rpc::Gateway>);

impl User {
    pub(crate) async fn ask(&self, ask: gateway::Ask) -> gateway::Answer {
        self.0.call(ask).await.expect("an answer")
    }

    /// A put whose bytes are still to come.
    pub(crate) async fn begin(&self, name: &str, length: usize) -> rpc::Call<rpc::Gateway> {
        let put = gateway::Put { name: name_of(name), length: length as u64 };
        self.0.open(gateway::Ask::Put(put)).await.expect("it is connected")
    }

    pub(crate) async fn put(&self, name: &str, bytes: &[u8]) -> gateway::Answer {
        let mut call = self.begin(name, bytes.len()).await;
        for piece in bytes.chunks(64 << 10) {
            send(&call, piece).await;
        }
        call.recv().await.expect("an answer")
    }

    /// A get, after its first answer.
    pub(crate) async fn open(&self, name: &str) -> (rpc::Call<rpc::Gateway>, gateway::Answer) {
        let get = gateway::Get { name: name_of(name), offset: 0, length: None };
        let mut call = self.0.open(gateway::Ask::Get(get)).await.expect("it is connected");
        let answer = call.recv().await.expect("an answer");
        (call, answer)
    }

    /// A file's bytes, or what was said instead.
    pub(crate) async fn get(&self, name: &str) -> Result<Vec<u8>, String> {
        let (mut call, found) = self.open(name).await;
        if let gateway::Answer::Refused(text) = found {
            return Err(String::from_utf8_lossy(&text).into_owned());
        }
        let mut bytes = Vec::new();
        loop {
            match call.recv().await.expect("an answer") {
                gateway::Answer::Data(data) => bytes.extend_from_slice(&data),
                gateway::Answer::End(_) => return Ok(bytes),
                gateway::Answer::Refused(text) => return Err(String::from_utf8_lossy(&text).into_owned()),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Brings bytes of an open put; a gateway that stopped listening says why.
pub(crate) async fn send(call: &rpc::Call<rpc::Gateway>, piece: &[u8]) {
    let data = Bounded::new(piece.to_vec()).expect("a piece");
    let _ = call.send(&gateway::Ask::Data(data)).await;
}

/// The words of a refusal.
pub(crate) fn refusal(answer: &gateway::Answer) -> String {
    match answer {
        gateway::Answer::Refused(text) => String::from_utf8_lossy(text).into_owned(),
        other => panic!("no refusal: {other:?}"),
    }
}

/// A ledger that no node answers for.
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

fn deed_row(index: usize) -> DeedRow {
    DeedRow {
        agreement: agreement_of(index),
        stage: Stage::Open as u8,
        end_epoch: 700,
        quota_leaves: 1 << 20,
        quota_egress: 1 << 40,
        voucher_reserve: Amount::sync(100_000),
        egress_price: 1_000_000,
    }
}

fn known(provider: &Provider) -> Known {
    Known {
        index: provider.index as u32,
        operator: vec![provider.index as u8],
        region: vec![provider.index as u8 % 5],
        address: Some(provider.address),
        trusted: true,
        takes: true,
        score: 1_000_000_000,
        vetted: true,
    }
}

/// Blocks between two settled points of a provider.
const SETTLED_EVERY: u64 = 6;

/// Takes the newest data set of each agreement in every block, puts it in force at settled points and
/// tells its provider, as the ledger does: an old version is refused (DS-1), a shrink below what is in
/// force waits for two settlements (DS-3).
async fn ledger(core: Arc<Core>, desks: Vec<Desked>, seen: Arc<Ledgered>) {
    let mut sets = vec![DataSet::default(); desks.len()];
    for block in 1u64.. {
        core.common.environment.sleep(Duration::from_millis(Parameters::LOCAL.block_ms)).await;
        let settlements = u32::try_from(block / SETTLED_EVERY).expect("a short run");
        for ((deed, desk), set) in core.deeds().iter().zip(&desks).zip(&mut sets) {
            let settled = |set: &DataSet| settlements >= set.current.grown_at + 2;
            let own = |claim: &mut DataSetClaim| claim.agreement == deed.agreement;
            let theirs = seen.theirs.lock().expect("no panic").extract_if(.., own).next();
            let ours = deed.waiting().map(|signed| signed.claim);
            let ours = ours.filter(|_| theirs.is_none() && !seen.bars.load(Ordering::Relaxed));
            seen.brought.fetch_add(ours.iter().count() as u64, Ordering::Relaxed);
            if let Some(claim) = theirs.or(ours) {
                let last = set.next.unwrap_or(set.current);
                assert!(claim.version > last.version, "an old version is brought");
                assert!(claim.leaves >= set.current.leaves || settled(set), "a shrink is brought too early");
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
            let last = set.next.unwrap_or(set.current);
            deed.looked(&last, block).await.expect("runs");
            let below = set.next.is_none_or(|next| next.leaves < set.current.leaves);
            deed.set_may_shrink((deed.waiting().is_none() && settled(set) && below).then_some(last.version));
            let parts = desk.parts();
            let gone = parts.books.observe(deed.agreement, set.clone()).await.expect("the books are open");
            parts.store.unlink(deed.agreement, &gone).await.expect("the disk works");
            parts.books.gone(deed.agreement, &gone);
            let loose = desk.expired(Duration::from_secs(10));
            for (agreement, shards) in loose {
                let shards = desk.parts().books.let_go(agreement, shards);
                desk.parts().store.unlink(agreement, &shards).await.expect("the disk works");
                desk.parts().books.gone(agreement, &shards);
            }
        }
    }
}

pub(crate) fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}
