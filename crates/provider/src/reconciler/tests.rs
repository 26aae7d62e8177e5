//! The reconciler against the real rules in memory: it sees only records, and sends only operations.

use super::*;

mod alerts;
mod declared;
mod far;
mod give_up;
mod leave;
mod search;
mod sets;

use crate::{
    credit::Credit,
    fixtures::{claim, data, disk, open_body, register_body, set_body, sign_body, terms_at},
    serve::Parts,
    view::View,
    vouchers::{OVERDUE, Vouchers},
    world::{World, account, key},
};
use commonware_runtime::{Clock as _, Runner as _, Supervisor as _, deterministic, reschedule};
use commonware_utils::sync::Mutex;
use posync_protocol::{
    Amount, Bounded, Class, Code, Key, PerClass, Units,
    amount::ONE,
    block::with_chain,
    ledger::Event,
    limits::Parameters,
    operation::{DataSetClaim, Open, Redemption, RefusedPlacement, Transfer, Voucher, sign},
    record::{Agreement, DataSet, Usage},
};
use std::sync::atomic::{AtomicBool, Ordering};

type Context = deterministic::Context;
type StoreBlob = <Context as commonware_runtime::Storage>::Blob;

/// The ledger in memory: an operation that is sent is in the next block.
#[derive(Clone)]
struct Memory {
    world: Arc<Mutex<World>>,
    waiting: Arc<Mutex<Vec<Body>>>,
    blocks: Arc<Mutex<Blocks>>,
    /// Nodes drop everything but storage proofs, and report no error.
    is_stuck: Arc<AtomicBool>,
    /// Nodes take an operation, and their answer is lost.
    is_mute: Arc<AtomicBool>,
    /// No node answers a paid operation.
    is_away: Arc<AtomicBool>,
    distance: Arc<far::Distance>,
}

/// The answers of a node about blocks.
#[derive(Default)]
struct Blocks {
    /// Height and slot of every opening.
    openings: Vec<(u64, u32)>,
    /// Slots that it falsely claims for every block.
    lies: Vec<u32>,
    /// The first block that it keeps.
    kept: u64,
    /// The heights of the blocks that were requested.
    asked: Vec<u64>,
    /// The state from which it proves agreements if it is not the newest: older, or of another node.
    behind: Option<World>,
    /// The states of the nodes that are asked one by one; if empty, the newest state twice.
    confirmers: Vec<World>,
}

impl Memory {
    /// Runs one block; returns its events.
    fn block(&self) -> Vec<Event> {
        let bodies = std::mem::take(&mut *self.waiting.lock());
        let mut world = self.world.lock();
        let operations: Vec<_> = bodies.into_iter().map(|body| world.sign("paul", body)).collect();
        world.block(&operations).expect("a proposer leaves out what is refused");
        world.events.clone()
    }
}

impl Ledger for Memory {
    async fn read(&self, keys: Vec<Key>) -> Result<crate::ledger::Proven, LedgerError> {
        assert!(keys.len() <= READ_KEYS_MAX);
        self.distance.travel().await;
        let (world, blocks) = (self.world.lock(), self.blocks.lock());
        let behind = blocks.behind.as_ref().filter(|_| !keys.contains(&System::key()));
        let world = behind.unwrap_or(&world);
        Ok((world.height, keys.iter().map(|key| world.state.get(key).copied()).collect()))
    }

    async fn confirmers(
        &self,
        keys: Vec<Key>,
        least: u64,
    ) -> Result<Vec<crate::ledger::Proven>, LedgerError> {
        let (world, blocks) = (self.world.lock(), self.blocks.lock());
        let ahead = blocks.behind.as_ref().filter(|other| other.height > world.height);
        let newest = ahead.unwrap_or(&world);
        let nodes: Vec<&World> =
            if blocks.confirmers.is_empty() { vec![newest; 2] } else { blocks.confirmers.iter().collect() };
        let of =
            |world: &World| (world.height, keys.iter().map(|key| world.state.get(key).copied()).collect());
        let proofs = nodes.iter().filter(|world| world.height >= least).take(2).map(|world| of(world));
        let proofs: Vec<_> = proofs.collect();
        let enough = proofs.len() == nodes.len().min(2);
        enough.then_some(proofs).ok_or_else(|| LedgerError::Unreachable("a node is behind".into()))
    }

    async fn above(&self, _: u64) -> Result<u64, LedgerError> {
        self.block();
        Ok(self.world.lock().height)
    }

    async fn openings(&self, height: u64) -> Result<Vec<u32>, LedgerError> {
        let mut blocks = self.blocks.lock();
        blocks.asked.push(height);
        if height < blocks.kept {
            return Err(LedgerError::Pruned);
        }
        let opened = blocks.openings.iter().filter(|(at, _)| *at == height).map(|(_, slot)| *slot);
        Ok(opened.chain(blocks.lies.iter().copied()).collect())
    }

    async fn send(&self, body: Body) -> Result<(), LedgerError> {
        if self.is_stuck.load(Ordering::Relaxed) && !matches!(body, Body::StorageProof(_)) {
            futures::future::pending::<()>().await;
        }
        self.distance.note(&body);
        self.distance.travel().await;
        self.waiting.lock().push(body);
        let is_lost = self.is_mute.load(Ordering::Relaxed);
        if is_lost { Err(LedgerError::Unreachable("the answer is lost".into())) } else { Ok(()) }
    }

    async fn pay(&self, body: Body) -> Result<(), LedgerError> {
        if self.is_stuck.load(Ordering::Relaxed) {
            futures::future::pending::<()>().await;
        }
        if self.is_away.load(Ordering::Relaxed) {
            return Err(LedgerError::Unreachable("no node answers".into()));
        }
        let mut world = self.world.lock();
        let operation = world.sign("paul", body);
        match world.submit(&operation) {
            Ok(Code::Done) => Ok(()),
            Ok(code) | Err(code) => Err(LedgerError::Refused(code)),
        }
    }
}

/// Grace period in blocks.
const GRACE: u64 = 20;

struct Bench {
    ledger: Memory,
    handler: Arc<Handler<Context, StoreBlob>>,
    reconciler: Reconciler<Context, StoreBlob, Memory>,
    shards: Vec<(Hash, u64)>,
}

async fn reconciler(
    context: &Context,
    handler: &Arc<Handler<Context, StoreBlob>>,
    ledger: &Memory,
    report: Reporter,
) -> Reconciler<Context, StoreBlob, Memory> {
    reconciler_of(context, handler, ledger, report, Left::default()).await
}

async fn reconciler_of(
    context: &Context,
    handler: &Arc<Handler<Context, StoreBlob>>,
    ledger: &Memory,
    report: Reporter,
    left: Left,
) -> Reconciler<Context, StoreBlob, Memory> {
    let patience = Patience { loose: Duration::from_secs(60), grace_blocks: GRACE };
    let finds = Finds::open(context.child("finds"), "finds").await.expect("opens");
    let ends = Ends::open(context.child("ends"), "ends").await.expect("opens");
    let (context, journals) = (context.child("reconciler"), Journals { finds, ends, left });
    Reconciler::new(context, handler.clone(), ledger.clone(), register_body(), patience, report, journals)
}

impl Bench {
    async fn new(context: &Context) -> Self {
        Self::of(context, World::new(&["paul", "carol"])).await
    }

    async fn of(context: &Context, world: World) -> Self {
        let (view, questions) = View::new(account("paul"), world.chain, world.parameters);
        let chain = world.chain;
        let ledger = Memory {
            world: Arc::new(Mutex::new(world)),
            waiting: Arc::default(),
            blocks: Arc::default(),
            is_stuck: Arc::default(),
            is_mute: Arc::default(),
            is_away: Arc::default(),
            distance: Arc::default(),
        };
        let (asked, answered) = (ledger.clone(), view.clone());
        context.child("questions").spawn(move |_| answer_questions(asked, answered, questions));
        let (store, data_sets) = disk(context, chain).await;
        let (vouchers, _) = Vouchers::open(context.child("vouchers"), "till").await.expect("opens");
        let (clock, key) = (Arc::new(context.child("clock")), key("paul"));
        let parts = Parts { clock, store, data_sets, vouchers, view, capacity_leaves: 1 << 20, key };
        let handler = Handler::start(context, parts);
        let reconciler = reconciler(context, &handler, &ledger, Reporter::default()).await;
        Self { ledger, handler, reconciler, shards: vec![] }
    }

    /// A new reconciler after the old one is gone: it knows only the disk and the ledger.
    async fn restart(self, context: &Context, report: Reporter) -> Self {
        let Self { ledger, handler, reconciler: old, shards } = self;
        drop(old);
        let reconciler = reconciler(context, &handler, &ledger, report).await;
        Self { ledger, handler, reconciler, shards }
    }

    /// Runs a block, then the reconciler's step at its height.
    async fn step(&mut self) -> Vec<Event> {
        let events = self.ledger.block();
        self.handler.parts().view.advance(self.ledger.world.lock().height);
        self.reconciler.step().await.expect("nothing fails");
        // Let the tasks beside it run.
        reschedule().await;
        events
    }

    async fn steps(&mut self, blocks: u64) -> Vec<Event> {
        let mut all = vec![];
        for _ in 0..blocks {
            all.extend(self.step().await);
        }
        all
    }

    fn epoch_blocks(&self) -> u64 {
        self.ledger.world.lock().parameters.epoch_blocks()
    }

    fn open(&self, epochs: u64) -> AgreementId {
        let body = open_body(&self.ledger.world.lock(), 0, epochs);
        self.open_with(body)
    }

    fn open_with(&self, body: Open) -> AgreementId {
        let (mut world, slot) = (self.ledger.world.lock(), body.slot);
        let operation = world.sign("carol", Body::Open(body));
        assert_eq!(world.submit(&operation), Ok(Code::Done));
        self.ledger.blocks.lock().openings.push((world.height, slot));
        AgreementId { provider: account("paul"), slot, opened: world.height }
    }

    /// Stores shards, has the version signed and puts it on the ledger.
    async fn set(&mut self, id: AgreementId, version: u64, removes: &[u32], adds: &[Vec<u8>]) {
        let body = self.sign(id, version, removes, adds).await;
        let mut world = self.ledger.world.lock();
        let operation = world.sign("carol", body);
        assert_eq!(world.submit(&operation), Ok(Code::Done));
    }

    /// Stores shards and has the version signed.
    async fn sign(&mut self, id: AgreementId, version: u64, removes: &[u32], adds: &[Vec<u8>]) -> Body {
        let parts = self.handler.parts();
        let mut added = vec![];
        for data in adds {
            let name = *blake3::hash(data).as_bytes();
            parts.store.put(id, name, data.clone().into()).await.expect("fits");
            added.push((name, data.len() as u64));
        }
        for place in removes.iter().rev() {
            self.shards.remove(*place as usize);
        }
        self.shards.extend(&added);
        let claim = claim(id, version, &self.shards);
        let chain = self.ledger.world.lock().chain;
        let ask = sign_body(&chain, claim, removes, &added);
        let terms = parts.view.terms(&id).await.expect("open");
        let signed =
            parts.data_sets.sign(terms, ask, parts.view.height()).await.expect("open").expect("right");
        set_body(&self.ledger.world.lock(), claim, Some(signed))
    }

    fn on_ledger(&self) -> DataSet {
        self.ledger.world.lock().get(DataSet::key(&account("paul"), 0)).unwrap_or_default()
    }

    fn provider(&self) -> Provider {
        self.ledger.world.lock().get(Provider::key(&account("paul"))).expect("registered")
    }

    fn audit(&self) -> Audit {
        self.ledger.world.lock().get(Audit::key(&account("paul"))).expect("registered")
    }
}

/// Counts audits: (answered on time with all reads passed, anything else).
fn audited(events: &[Event]) -> (usize, usize) {
    let audits = events.iter().filter_map(|event| match event {
        Event::Audited { answered, passed, reads, on_time, .. } => {
            Some(*answered && *on_time && passed == reads)
        }
        _ => None,
    });
    audits.fold((0, 0), |(good, bad), held| if held { (good + 1, bad) } else { (good, bad + 1) })
}

fn run<F, Fut>(work: F)
where
    F: FnOnce(Context) -> Fut,
    Fut: Future<Output = ()>,
{
    deterministic::Runner::timed(Duration::from_secs(7_200)).start(work);
}

impl Bench {
    /// Runs blocks; returns at how many of them the duties were performed, and all events.
    async fn reach(&mut self, blocks: u64) -> (u64, Vec<Event>) {
        let (mut performed, mut all) = (0, vec![]);
        for _ in 0..blocks {
            all.extend(self.ledger.block());
            let height = self.ledger.world.lock().height;
            self.reconciler.reached(height).await.expect("nothing fails");
            performed += u64::from(self.reconciler.stepped == height);
            reschedule().await;
        }
        (performed, all)
    }
}

#[test]
fn a_provider_reads_its_records_less_often_only_while_it_stores_nothing() {
    run(|context| async move {
        let mut bench = Bench::new(&context).await;
        bench.reach(10).await;
        assert!(bench.reconciler.is_registered, "it does not rest before that");
        let (performed, _) = bench.reach(40).await;
        assert_eq!(performed, 40 / EMPTY_BLOCKS);
        let is_calm = |bench: &Bench| bench.handler.parts().view.is_calm(EMPTY_BLOCKS);
        assert!(is_calm(&bench), "the headers of several blocks may be read together");
        // Data that it lost may still be asked for.
        bench.reconciler.is_unasked = false;
        assert_eq!(bench.reach(1).await.0, 1);
        let id = bench.open(100);
        bench.set(id, 1, &[], &[data(1, 100_000), data(2, 5)]).await;
        bench.ledger.world.lock().draws = true;
        let (performed, events) = bench.reach(80).await;
        assert_eq!(performed, 80, "with data it reads them at each block");
        assert!(!is_calm(&bench), "and each header");
        let (good, bad) = audited(&events);
        assert!(good > 15 && bad == 0, "{good} answered, {bad} not");
    });
}

#[test]
fn a_registration_that_waits_for_money_is_one_condition_until_the_provider_is_registered() {
    run(|context| async move {
        let mut bench = Bench::of(&context, World::new(&["carol"])).await;
        for _ in 0..3 {
            bench.reach(REGISTER_BLOCKS).await;
            assert_eq!(
                bench.reconciler.failed_sends.held(),
                [UNREGISTERED],
                "it is not over at the next block"
            );
        }
        {
            let mut world = bench.ledger.world.lock();
            let (to, amount) = (account("paul"), Amount::sync(5_000));
            let pay = world.sign("carol", Body::Transfer(Transfer { to, amount }));
            assert_eq!(world.submit(&pay), Ok(Code::Done));
        }
        bench.reach(2 * REGISTER_BLOCKS).await;
        assert!(bench.reconciler.is_registered && bench.reconciler.failed_sends.held().is_empty());
    });
}

#[test]
fn it_registers_itself_and_answers_every_draw_across_restarts() {
    run(|context| async move {
        let mut bench = Bench::new(&context).await;
        bench.steps(10).await;
        let registered: Option<Offer> = bench.ledger.world.lock().get(Offer::key(&account("paul")));
        assert_eq!(registered.expect("by itself").capacity[Class::Storage], 1 << 20);
        let id = bench.open(100);
        bench.set(id, 1, &[], &[data(1, 100_000), data(2, 5)]).await;
        bench.ledger.world.lock().draws = true;
        let (good, bad) = audited(&bench.steps(80).await);
        assert!(good > 15 && bad == 0, "{good} {bad}");
        for version in 2..6 {
            // A new process knows only the disk and the ledger.
            bench = bench.restart(&context, Reporter::default()).await;
            bench.set(id, version, &[], &[data(version, 3_000)]).await;
            let (good, bad) = audited(&bench.steps(20).await);
            assert!(good > 3 && bad == 0, "{good} {bad}");
        }
        let on_ledger: DataSet =
            bench.ledger.world.lock().get(DataSet::key(&account("paul"), 0)).expect("there");
        assert_eq!((on_ledger.current.version, on_ledger.next), (5, None));
    });
}

#[test]
fn a_storage_proof_that_a_block_left_out_is_sent_again() {
    run(|context| async move {
        let mut bench = Bench::new(&context).await;
        bench.steps(10).await;
        let id = bench.open(100);
        bench.set(id, 1, &[], &[data(1, 100_000)]).await;
        bench.ledger.world.lock().draws = true;
        let mut lost = 0;
        let mut events = vec![];
        for _ in 0..100 {
            // Every second storage proof is lost on the way.
            if !bench.ledger.waiting.lock().is_empty() && lost % 2 == 0 {
                bench.ledger.waiting.lock().clear();
                lost += 1;
            } else if !bench.ledger.waiting.lock().is_empty() {
                lost += 1;
            }
            events.extend(bench.step().await);
        }
        let (good, bad) = audited(&events);
        assert!(good > 10 && bad == 0 && lost > 20, "{good} {bad} {lost}");
    });
}

#[test]
fn vouchers_and_space_of_an_ended_agreement_are_not_lost() {
    run(|context| async move {
        let mut bench = Bench::new(&context).await;
        bench.steps(10).await;
        let id = bench.open(2);
        bench.set(id, 1, &[], &[data(1, 100_000), data(2, 50_000)]).await;
        let chain = bench.ledger.world.lock().chain;
        let voucher = Voucher::signed(&key("carol"), &chain, id, Units::egress(5 << 20));
        let kept = Redemption { voucher, session_key: account("carol"), claim: None };
        bench.handler.parts().vouchers.keep(kept).await.expect("durable");
        // A loose shard: put, never signed for.
        let loose = data(9, 7_000);
        let name = *blake3::hash(&loose).as_bytes();
        bench.handler.parts().store.put(id, name, loose.into()).await.expect("fits");
        bench.handler.note_loose(id, name);
        let paid = |bench: &Bench| {
            bench
                .ledger
                .world
                .lock()
                .get::<Usage>(Usage::key(&account("paul"), 0))
                .map(|used| used.redeemed.egress)
        };
        let parameters = bench.ledger.world.lock().parameters;
        bench.steps(2 * parameters.epoch_blocks()).await;
        assert_eq!(paid(&bench), Some(5 << 20), "redeemed without a draw, at an epoch's end");
        assert!(bench.handler.parts().store.length(&name).is_some(), "its time is not up");
        context.sleep(Duration::from_secs(61)).await;
        bench.steps(parameters.round_blocks).await;
        assert_eq!(bench.handler.parts().store.length(&name), None);
        bench.ledger.world.lock().draws = true;
        bench.steps(6 * parameters.epoch_blocks()).await;
        assert_eq!(paid(&bench), None, "the records are gone");
        assert_eq!(bench.handler.parts().store.totals().shards, 0);
        assert_eq!(bench.handler.parts().data_sets.with(|state| state.agreements().count()), 0);
        assert_eq!(bench.handler.parts().vouchers.with(|vouchers| vouchers.len()), 0);
    });
}

#[test]
fn a_claim_reaches_the_books_once_although_storage_proofs_are_lost() {
    run(|context| async move {
        let mut bench = Bench::new(&context).await;
        bench.steps(10).await;
        let id = bench.open(100);
        bench.set(id, 1, &[], &[data(1, 100_000)]).await;
        let (chain, vouchers) = (bench.ledger.world.lock().chain, bench.handler.parts().vouchers.clone());
        let handler = bench.handler.clone();
        let paid = |egress| {
            let voucher = Voucher::signed(&key("carol"), &chain, id, Units::egress(egress));
            vouchers.keep(Redemption { voucher, session_key: account("carol"), claim: None })
        };
        let download = || {
            vouchers.with(|state| {
                state.begin(id, 0, handler.uptime().now());
                assert_eq!(state.draw(id, 64 << 10, ONE, u64::MAX), Credit::Send);
                state.end(&id, handler.uptime().now());
            });
        };
        let used = |bench: &Bench| {
            bench.ledger.world.lock().get::<Usage>(Usage::key(&account("paul"), 0)).expect("open")
        };
        paid(1 << 20).await.expect("durable");
        download();
        context.sleep(OVERDUE).await;
        bench.ledger.world.lock().draws = true;
        let mut lost = 0;
        while used(&bench).redeemed.egress == 0 {
            if lost < 5 && !bench.ledger.waiting.lock().is_empty() {
                bench.ledger.waiting.lock().clear();
                lost += 1;
            }
            bench.step().await;
        }
        assert_eq!((lost, used(&bench).disputed.grains()), (5, 62_500));
        // The next download is paid; a claim of the first one's gap is sent along and changes nothing.
        download();
        paid((1 << 20) + (64 << 10)).await.expect("durable");
        bench.steps(80).await;
        assert_eq!(
            (used(&bench).redeemed.egress, used(&bench).disputed.grains()),
            ((1 << 20) + (64 << 10), 62_500)
        );
    });
}

#[test]
fn removed_shards_leave_the_disk_once_the_ledger_is_past_them() {
    run(|context| async move {
        let mut bench = Bench::new(&context).await;
        bench.steps(10).await;
        let id = bench.open(100);
        bench.set(id, 1, &[], &[data(1, 10_000), data(2, 20_000), data(3, 30_000)]).await;
        bench.ledger.world.lock().draws = true;
        bench.steps(60).await;
        assert_eq!(bench.handler.parts().store.totals().bytes, 60_000);
        bench.set(id, 2, &[1], &[]).await;
        bench.steps(60).await;
        assert_eq!(bench.handler.parts().store.totals().bytes, 40_000);
        let (good, bad) = audited(&bench.steps(40).await);
        assert!(good > 5 && bad == 0, "{good} {bad}");
    });
}

#[test]
fn what_a_refusal_cut_is_declared_again() {
    run(|context| async move {
        let mut bench = Bench::new(&context).await;
        bench.steps(10).await;
        bench.open(100);
        let provider = |bench: &Bench| {
            bench.ledger.world.lock().get::<Provider>(Provider::key(&account("paul"))).expect("registered")
        };
        let capacity = |bench: &Bench| {
            let offer = bench.ledger.world.lock().get::<Offer>(Offer::key(&account("paul")));
            offer.expect("registered").capacity[Class::Storage]
        };
        let (declared, sold) = (capacity(&bench), provider(&bench).sold[Class::Storage]);
        assert!(declared > sold && sold > 0);
        // Once an epoch: a provider that keeps refusing pays a fee for each declaration.
        for (after, expected) in [(1, declared), (1, sold), (bench.epoch_blocks(), declared)] {
            if capacity(&bench) > sold {
                let mut world = bench.ledger.world.lock();
                submit_refusal(&mut world);
                assert_eq!(
                    world
                        .get::<Offer>(Offer::key(&account("paul")))
                        .map(|offer| offer.capacity[Class::Storage]),
                    Some(sold)
                );
            }
            bench.steps(after).await;
            assert_eq!(capacity(&bench), expected, "after {after} blocks");
        }
    });
}

/// Submits for carol a placement that paul refused at this height.
fn submit_refusal(world: &mut World) {
    let refused = RefusedPlacement {
        provider: account("paul"),
        consumer: account("carol"),
        agreement: None,
        leaves: 1,
        height: world.height,
        signature: [0; 64],
    };
    let body = Body::Refusal(refused.signed(&key("paul"), &world.chain));
    let operation = world.sign("carol", body);
    assert_eq!(world.submit(&operation), Ok(Code::Done));
}

#[test]
fn nothing_that_is_sent_beside_delays_an_answer() {
    run(|context| async move {
        let mut bench = Bench::new(&context).await;
        bench.steps(10).await;
        let id = bench.open(100);
        bench.set(id, 1, &[], &[data(1, 100_000)]).await;
        let declared = |bench: &Bench| {
            let offer = bench.ledger.world.lock().get::<Offer>(Offer::key(&account("paul")));
            offer.expect("registered").capacity[Class::Storage]
        };
        {
            let mut world = bench.ledger.world.lock();
            submit_refusal(&mut world);
            world.draws = true;
        }
        let before = declared(&bench);
        bench.ledger.is_stuck.store(true, Ordering::Relaxed);
        let (good, bad) = audited(&bench.steps(2 * bench.epoch_blocks()).await);
        assert!(good > 20 && bad == 0, "{good} {bad}");
        assert_eq!(declared(&bench), before, "the declaration hangs");
    });
}
