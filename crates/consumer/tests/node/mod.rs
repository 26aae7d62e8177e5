//! A node of a network under the real rules, for tests of those that use a ledger.
//!
//! ```text
//!   Submit ─► refused by the node, or waiting ─► block: the rules of the protocol, or a code of the test
//!   Read   ◄─ records with proofs ◄─ store ◄─ the records that the block changed
//! ```
//!
//! One authority certifies every block, so a reader verifies what it reads as in any network. The node runs in the
//! deterministic runtime; a test changes records and codes while it runs.

#[allow(dead_code, reason = "scenarios of the protocol use the rest")]
#[path = "../../../protocol/tests/scenarios/world.rs"]
pub(crate) mod chain;

use chain::World;
use commonware_codec::{Copying, DecodeExt as _, Encode as _};
use commonware_consensus::{
    simplex::{
        scheme::bls12381_threshold::vrf,
        types::{Finalization, Finalize, Proposal},
    },
    types::{Epoch, Round, View},
};
use commonware_cryptography::{
    Sha256, Signer as _,
    bls12381::{
        dkg::feldman_desmedt::deal,
        primitives::{sharing::Mode, variant::MinSig},
    },
    ed25519::{PrivateKey, PublicKey},
    sha256,
};
use commonware_parallel::Sequential;
use commonware_runtime::{
    Clock as _, Spawner as _, Supervisor as _, buffer::paged::CacheRef, deterministic::Context,
};
use commonware_storage::{
    journal::contiguous::fixed::Config as LogConfig,
    merkle::full::Config as MerkleConfig,
    mmr::Family,
    qmdb::{
        current::{FixedConfig, ordered::fixed},
        floor::Proportional,
    },
    translator::EightCap,
};
use commonware_utils::{N3f1, NZU16, NZU64, NZUsize, TestRng, non_empty, ordered::Set, sync::Mutex};
use posync_client::{
    channel::Listen,
    connection::Endpoint,
    light::{Light, NetworkKey},
    rpc::{self, Incoming, Server, Service as _},
};
use posync_protocol::{
    Account, Amount, Body, Bounded, Code, Hash, Key, Operation, Record as _, Slot,
    block::{BlockBody, HEADER_NAMESPACE, Header, Receipts},
    ledger::{base_fee, fee},
    operation::sign,
    record::{AccountState, System},
    wire::node::{Ask, BlockEvents, Certified, NodeAnswer, ProvenRecord, Read, Unavailable},
};
use std::{
    collections::BTreeMap,
    mem,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};
use tokio::sync::Notify;

type Scheme = vrf::Scheme<PublicKey, MinSig>;
type Database = fixed::Db<Family, Context, sha256::Digest, Slot, Sha256, EightCap, 32, Sequential>;
type Certificate = Bounded<u8, 256>;

/// Most headers in one answer to a follower.
const RUN: u64 = 16;
/// Term of every block.
const TERM: u64 = 1;

/// The end of an operation that a test refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The node does not take it: its word, which proves nothing.
    ByNode(Code),
    /// It is in a block, and its receipt has this code; it changes nothing.
    Finally(Code),
}

/// Decides about an operation; `None` leaves it to the rules.
type Judge = Arc<dyn Fn(&Operation) -> Option<Refused> + Send + Sync>;
/// Changes the state before each block.
type Edit = Arc<dyn Fn(&mut World) + Send + Sync>;

struct Block {
    header: Header,
    body: BlockBody,
    receipts: Receipts,
    certificate: Option<Certificate>,
}

struct Chain {
    world: World,
    /// `None` only while a block is written.
    database: Option<Database>,
    /// The records in the store.
    written: BTreeMap<Key, Slot>,
    blocks: Vec<Block>,
    waiting: Vec<Operation>,
}

/// A running node; clones are the same node.
#[derive(Clone)]
pub(crate) struct Node {
    chain: Arc<tokio::sync::Mutex<Chain>>,
    made: Arc<Notify>,
    judge: Arc<Mutex<Judge>>,
    edit: Arc<Mutex<Edit>>,
    /// True while it makes no block.
    stands: Arc<AtomicBool>,
    /// Final operations with their codes, in their order.
    done: Arc<Mutex<Vec<(Body, Code)>>>,
    /// Bodies that were submitted, as often as they were.
    asked: Arc<Mutex<Vec<Body>>>,
    scheme: Scheme,
    network_key: NetworkKey,
    chain_id: Hash,
    key: PrivateKey,
    address: SocketAddr,
}

/// Gives an account money, from nowhere: the sums over all accounts are not held against each other.
pub(crate) fn fund(world: &mut World, account: &Account, amount: Amount) {
    let before: AccountState = world.get(AccountState::key(account)).unwrap_or_default();
    let balance = before.balance.checked_add(amount).expect("below the bound");
    world.state.insert(AccountState::key(account), AccountState { balance, ..before }.to_slot());
    let mut system = world.system();
    system.balances = system.balances.checked_add(amount).expect("below the bound");
    world.state.insert(System::key(), system.to_slot());
}

/// Signs an operation for the next block, and runs that block with it alone.
pub(crate) fn run(world: &mut World, key: &PrivateKey, body: Body) -> Code {
    let account = Account::of(&key.public_key());
    let state: AccountState = world.get(AccountState::key(&account)).unwrap_or_default();
    let (base, height) = (base_fee(&world.system(), &world.parameters), world.height + 1);
    let (nonce, max_fee, signature) = (state.nonce, Amount::ZERO, [0; 64]);
    let draft = Operation { signer: account, nonce, max_fee, expires: height, body, signature };
    let max_fee = fee(&world.context(height), base, &draft);
    let signed = Operation::signed(key, &world.chain, nonce, max_fee, height, draft.body);
    world.submit(&signed).expect("it may stand in a block")
}

impl Node {
    /// Starts a node at `address` that makes a block of `world` in each block time.
    pub(crate) async fn start(context: &Context, mut world: World, address: SocketAddr) -> Self {
        // Test edits change sums that the rules hold.
        world.check_every = u64::MAX;
        let key = PrivateKey::from_seed(31_337);
        let players = Set::from_iter_dedup([key.public_key()]);
        let (output, shares) =
            deal::<MinSig, _, N3f1>(TestRng::new(1), Mode::NonZeroCounter, players.clone()).expect("deals");
        let network_key = *output.public().public();
        let namespace = [b"posync/consensus/1".as_slice(), &world.chain].concat();
        let share = shares.get_value(&key.public_key()).expect("the only one has one").clone();
        let scheme =
            Scheme::signer(&namespace, players, output.public().clone(), share).expect("its own share");
        let (chain_id, pause) = (world.chain, Duration::from_millis(world.parameters.block_ms));
        let database = Some(database(context, world.height).await);
        let chain = Chain { world, database, written: BTreeMap::new(), blocks: vec![], waiting: vec![] };
        let node = Self {
            chain: Arc::new(tokio::sync::Mutex::new(chain)),
            made: Arc::default(),
            judge: Arc::new(Mutex::new(Arc::new(|_: &Operation| None))),
            edit: Arc::new(Mutex::new(Arc::new(|_: &mut World| {}))),
            stands: Arc::default(),
            done: Arc::default(),
            asked: Arc::default(),
            scheme,
            network_key,
            chain_id,
            key: key.clone(),
            address,
        };
        let making = node.clone();
        context.child("blocks").spawn(move |context| async move {
            loop {
                let now = context.current().duration_since(UNIX_EPOCH).unwrap_or_default();
                if !making.stands.load(Ordering::Relaxed) {
                    making.block(now.as_millis() as u64).await;
                }
                context.sleep(pause).await;
            }
        });
        let serving = node.clone();
        let server = Server::<rpc::Node, _>::new(move |call: Incoming<rpc::Node>, ask| {
            let node = serving.clone();
            async move { node.serve(call, ask).await }
        });
        let listen = Listen::new(key, rpc::Node::NAMESPACE, address);
        server.listen(context.child("node"), &context.child("net"), listen).await.expect("a free address");
        node
    }

    /// Its account and address.
    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint { account: Account::of(&self.key.public_key()), address: self.address.into() }
    }

    /// Verifies the answers of this node as any reader does.
    pub(crate) fn light(&self) -> Light {
        Light::new(self.chain_id, self.network_key)
    }

    /// Treats operations by this judge from now on.
    pub(crate) fn judge(&self, judge: impl Fn(&Operation) -> Option<Refused> + Send + Sync + 'static) {
        *self.judge.lock() = Arc::new(judge);
    }

    /// Changes the state by this edit before each block from now on.
    pub(crate) fn edit(&self, edit: impl Fn(&mut World) + Send + Sync + 'static) {
        *self.edit.lock() = Arc::new(edit);
    }

    /// Has the node stand still from now on, or go on.
    pub(crate) fn stand(&self, stands: bool) {
        self.stands.store(stands, Ordering::Relaxed);
    }

    /// Runs `work` on the state between two blocks.
    pub(crate) async fn with<T>(&self, work: impl FnOnce(&mut World) -> T) -> T {
        work(&mut self.chain.lock().await.world)
    }

    /// Final operations with their codes.
    pub(crate) fn done(&self) -> Vec<(Body, Code)> {
        self.done.lock().clone()
    }

    /// Number of submissions for which `is` holds.
    pub(crate) fn asked(&self, is: impl Fn(&Body) -> bool) -> usize {
        self.asked.lock().iter().filter(|body| is(body)).count()
    }

    async fn block(&self, time_ms: u64) {
        let mut chain = self.chain.lock().await;
        let chain = &mut *chain;
        let edit = self.edit.lock().clone();
        edit(&mut chain.world);
        let height = chain.world.height + 1;
        let judge = self.judge.lock().clone();
        let mut taken = mem::take(&mut chain.waiting);
        taken.retain(|operation| operation.expires >= height);
        taken.sort_by_key(|operation| operation.body.lane());
        let is_refused = |operation: &Operation| matches!(judge(operation), Some(Refused::Finally(_)));
        let (refused, run): (Vec<_>, Vec<_>) = taken.into_iter().partition(is_refused);
        let outcome = chain.world.block(&run).expect("the rules run");
        let mut operations: Vec<Operation> = outcome.kept.iter().map(|place| run[*place].clone()).collect();
        let mut rows = outcome.receipts;
        let kept = outcome.kept;
        let left = run.into_iter().enumerate().filter(|(place, _)| !kept.contains(place));
        chain.waiting.extend(left.map(|(_, operation)| operation));
        for operation in refused {
            let account = AccountState::key(&operation.signer);
            let state: AccountState = chain.world.get(account).unwrap_or_default();
            let Some(Refused::Finally(code)) = judge(&operation) else { continue };
            if operation.nonce == state.nonce {
                chain.world.state.insert(account, AccountState { nonce: state.nonce + 1, ..state }.to_slot());
                rows.push((operation.id(), code));
                operations.push(operation);
            } else {
                chain.waiting.push(operation);
            }
        }
        let done = operations.iter().zip(&rows).map(|(operation, (_, code))| (operation.body.clone(), *code));
        self.done.lock().extend(done);
        let body = BlockBody {
            draws: Bounded::default(),
            operations: Bounded::new(operations).expect("few"),
            dkg: Bounded::default(),
        };
        let receipts = Receipts { rows: Bounded::new(rows).expect("few") };
        chain.store().await;
        let header = self.header(chain, time_ms, &body, &receipts);
        chain.blocks.push(Block { header, body, receipts, certificate: None });
        self.made.notify_waiters();
    }

    fn header(&self, chain: &Chain, time_ms: u64, body: &BlockBody, receipts: &Receipts) -> Header {
        let height = chain.world.height;
        let root = chain.database.as_ref().expect("it is written").root();
        let mut header = Header {
            version: 1,
            chain: self.chain_id,
            term: TERM,
            view: height + 1,
            leader: Account::of(&self.key.public_key()),
            parent_view: height,
            parent: chain.blocks.last().map_or([1; 32], |block| block.header.digest()),
            height,
            time_ms,
            beacon: Some([9; 48]),
            body_root: body.root(),
            receipts_root: receipts.root(),
            state_root: root.as_ref().try_into().expect("32 bytes"),
            ops_root: [4; 32],
            range_start: 1,
            range_end: 1_000,
            signature: [0; 64],
        };
        header.signature = sign(&self.key, HEADER_NAMESPACE, &header.signed_bytes());
        header
    }

    /// The headers from `from` to `to` and the certificate of the last.
    fn certified(&self, chain: &mut Chain, from: u64, to: u64) -> Certified {
        let first = chain.blocks[0].header.height;
        let places = (from - first) as usize..=(to - first) as usize;
        let headers = chain.blocks[places.clone()].iter().map(|block| block.header.clone()).collect();
        let last = &mut chain.blocks[*places.end()];
        let header = &last.header;
        let finalization = last.certificate.get_or_insert_with(|| {
            let round = Round::new(Epoch::new(header.term), View::new(header.view));
            let payload: sha256::Digest = header.digest().into();
            let proposal = Proposal::new(round, View::new(header.parent_view), payload);
            let votes = [Finalize::sign(&self.scheme, proposal).expect("signs")];
            let all = Finalization::from_finalizes(&self.scheme, non_empty![@votes.iter()], &Sequential);
            Bounded::new(all.expect("one of one").encode().to_vec()).expect("132 bytes")
        });
        Certified { headers: Bounded::new(headers).expect("few"), finalization: finalization.clone() }
    }

    async fn serve(&self, call: Incoming<rpc::Node>, ask: Ask) {
        let answer = match ask {
            Ask::Submit(bytes) => self.submit(&bytes).await,
            Ask::Read(keys) => self.read(&keys).await,
            Ask::Follow(from) => return self.follow(call, from).await,
            Ask::Header(height) => {
                let mut chain = self.chain.lock().await;
                match chain.place(height) {
                    Some(_) => NodeAnswer::Certified(self.certified(&mut chain, height, height)),
                    None => NodeAnswer::Unavailable(Unavailable::NotYet),
                }
            }
            Ask::Body(height) => match self.chain.lock().await.place(height) {
                Some(block) => NodeAnswer::Body(block.body.clone()),
                None => NodeAnswer::Unavailable(Unavailable::NotYet),
            },
            Ask::Events(height) => match self.chain.lock().await.place(height) {
                Some(block) => NodeAnswer::Events(BlockEvents {
                    receipts: block.receipts.clone(),
                    events: Bounded::default(),
                    last: true,
                }),
                None => NodeAnswer::Unavailable(Unavailable::NotYet),
            },
            _ => NodeAnswer::Unavailable(Unavailable::Pruned),
        };
        // The caller may be gone.
        let _ = call.finish(&answer).await;
    }

    async fn submit(&self, bytes: &[u8]) -> NodeAnswer {
        let Ok(operation) = Operation::decode(Copying(bytes)) else {
            return NodeAnswer::Refused(Code::Malformed);
        };
        self.asked.lock().push(operation.body.clone());
        let judge = self.judge.lock().clone();
        if let Some(Refused::ByNode(code)) = judge(&operation) {
            return NodeAnswer::Refused(code);
        }
        let id = operation.id();
        let mut chain = self.chain.lock().await;
        if chain.waiting.iter().all(|waiting| waiting.id() != id) {
            chain.waiting.push(operation);
        }
        NodeAnswer::Accepted(id)
    }

    async fn read(&self, keys: &[Key]) -> NodeAnswer {
        let mut chain = self.chain.lock().await;
        let Some(height) = chain.blocks.last().map(|block| block.header.height) else {
            return NodeAnswer::Unavailable(Unavailable::Moved);
        };
        let mut records = Vec::new();
        for key in keys {
            records.push(chain.proven(*key).await);
        }
        let certified = self.certified(&mut chain, height, height);
        NodeAnswer::Read(Read { certified, records: Bounded::new(records).expect("as many as asked for") })
    }

    async fn follow(&self, call: Incoming<rpc::Node>, from: u64) {
        let mut next = from;
        loop {
            let made = self.made.notified();
            let run = {
                let mut chain = self.chain.lock().await;
                let tip = chain.blocks.last().map_or(0, |block| block.header.height);
                next = if next == 0 { tip } else { next };
                let end = tip.min(next + RUN - 1);
                (tip > 0 && next <= tip).then(|| (end, self.certified(&mut chain, next, end)))
            };
            match run {
                Some((end, certified)) => {
                    if call.send(&NodeAnswer::Certified(certified)).await.is_err() {
                        return;
                    }
                    next = end + 1;
                }
                None => made.await,
            }
        }
    }
}

impl Chain {
    fn place(&self, height: u64) -> Option<&Block> {
        let first = self.blocks.first()?.header.height;
        self.blocks.get(height.checked_sub(first)? as usize)
    }

    /// Writes the changed records to the store.
    async fn store(&mut self) {
        let database = self.database.take().expect("it is there between blocks");
        let mut batch = database.new_batch();
        let state = &self.world.state;
        for (key, slot) in state {
            if *key == System::key() || self.written.get(key) != Some(slot) {
                batch = batch.write(key.0.into(), Some(*slot));
            }
        }
        for key in self.written.keys().filter(|key| !state.contains_key(*key)) {
            batch = batch.write(key.0.into(), None);
        }
        self.written.clone_from(state);
        let batch = batch.merkleize(&database, None, &mut Proportional).await.expect("computes");
        self.database = Some(database.apply_batch(batch).await.expect("applies"));
    }

    async fn proven(&self, key: Key) -> ProvenRecord {
        let (database, key) = (self.database.as_ref().expect("it is written"), key.0.into());
        let slot = database.get(&key).await.expect("reads");
        let proof = match slot {
            Some(_) => database.key_value_proof(key).await.expect("proves").encode(),
            None => database.exclusion_proof(&key).await.expect("proves").encode(),
        };
        ProvenRecord { slot, proof: Bounded::new(proof.to_vec()).expect("within the bound") }
    }
}

/// An empty store. `start` keeps it apart from those of nodes that ran before on the same disk.
async fn database(context: &Context, start: u64) -> Database {
    let name = |what: &str| format!("node-{start}-{what}");
    let cache = CacheRef::new(NZU16!(4096), NZUsize!(64));
    let config = FixedConfig {
        merkle_config: MerkleConfig {
            journal_partition: name("nodes"),
            metadata_partition: name("pinned"),
            items_per_blob: NZU64!(4096),
            write_buffer: NZUsize!(65_536),
            replay_buffer: NZUsize!(65_536),
            strategy: Sequential,
            page_cache: cache.clone(),
        },
        journal_config: LogConfig {
            partition: name("log"),
            items_per_blob: NZU64!(4096),
            page_cache: cache,
            write_buffer: NZUsize!(65_536),
            replay_buffer: NZUsize!(65_536),
        },
        grafted_metadata_partition: name("grafted"),
        translator: EightCap,
        init_cache: None,
        init_buffer: NZUsize!(65_536),
        init_concurrency: (),
    };
    Database::init(context.child("store"), config, None).await.expect("opens")
}
