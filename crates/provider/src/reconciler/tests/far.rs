//! A provider far from its nodes: every proven read and every operation takes a round trip.

use super::*;
use posync_protocol::{Operation, PerClass, limits::Parameters, record::Challenge, tree::EMPTY_ROOT};
use std::{sync::atomic::AtomicUsize, time::SystemTime};

/// The way to the nodes: the time of a round trip, and what was sent over it.
#[derive(Default)]
pub(super) struct Distance {
    /// The runtime's clock and the time of a round trip; `None` if the nodes are near.
    trip: Mutex<Option<(Arc<Context>, Duration)>>,
    trips: AtomicUsize,
    open: AtomicUsize,
    most_open: AtomicUsize,
    /// When the last storage proof was sent.
    answered: Mutex<Option<SystemTime>>,
    answers: AtomicUsize,
}

impl Distance {
    pub(super) async fn travel(&self) {
        let trip = self.trip.lock().clone();
        self.trips.fetch_add(1, Ordering::Relaxed);
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_open.fetch_max(open, Ordering::Relaxed);
        if let Some((clock, trip)) = trip {
            clock.sleep(trip).await;
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    fn set(&self, clock: &Context, trip: Duration) {
        *self.trip.lock() = Some((Arc::new(clock.child("distance")), trip));
    }

    pub(super) fn note(&self, body: &Body) {
        if let (Body::StorageProof(_), Some((clock, _))) = (body, self.trip.lock().as_ref()) {
            *self.answered.lock() = Some(clock.current());
            self.answers.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Most operations of a block here: a data set names 75 records, and a block 16,384.
const OPERATIONS: usize = 200;

impl Bench {
    /// A provider that is `trip` away from its nodes and has a data set of one leaf under each of `agreements`.
    async fn far(context: &Context, agreements: u32, trip: Duration) -> Self {
        let mut world = World::new(&["paul", "carol"]);
        (world.parameters, world.check_every) = (Parameters::PRODUCTION, 1 << 20);
        let bench = Self::of(context, world).await;
        bench.run_paid("paul", vec![Body::RegisterProvider(register_body())]);
        let openings = (0..agreements).map(|slot| {
            let quota = PerClass::new(64, 1 << 20, 0);
            let voucher_reserve = Amount::sync(1);
            let body = open_body(&bench.ledger.world.lock(), slot, 700);
            Body::Open(Open { quota, voucher_reserve, ..body })
        });
        let openings = openings.collect();
        bench.run_paid("carol", openings);
        // All data sets take effect while nothing was earned: within one round.
        let round = bench.ledger.world.lock().parameters.round_blocks;
        while !bench.ledger.world.lock().height.is_multiple_of(round) {
            bench.ledger.block();
        }
        let mut sets = vec![];
        for slot in 0..agreements {
            sets.push(bench.set_at(slot, 1, slot.into()).await);
        }
        bench.run_paid("carol", sets);
        assert_eq!(bench.provider().leaves, u64::from(agreements), "all are in force");
        *bench.ledger.distance.trip.lock() = Some((Arc::new(context.child("distance")), trip));
        bench
    }

    /// Runs paid operations of one account, in order, in as many blocks as they need.
    fn run_paid(&self, who: &str, bodies: Vec<Body>) {
        let mut world = self.ledger.world.lock();
        for bodies in bodies.chunks(OPERATIONS) {
            let sign = |(place, body): (u64, &Body)| {
                let one = world.sign(who, body.clone());
                let (nonce, expires) = (one.nonce + place, one.expires);
                Operation::signed(&key(who), &world.chain, nonce, one.max_fee, expires, one.body)
            };
            let operations: Vec<_> = (0..).zip(bodies).map(sign).collect();
            let outcome = world.block(&operations).expect("the block holds them");
            let done = outcome.receipts.iter().filter(|(_, code)| *code == Code::Done).count();
            assert_eq!(done, bodies.len(), "{:?}", outcome.receipts.first());
        }
    }

    /// Stores one shard and signs a version that adds it, as the only one.
    async fn set_at(&self, slot: u32, version: u64, tag: u64) -> Body {
        let parts = self.handler.parts();
        let terms = terms_at(&self.ledger.world.lock(), slot).expect("open");
        let shard = data(tag, 100);
        let (name, length) = (*blake3::hash(&shard).as_bytes(), shard.len() as u64);
        parts.store.put(terms.id, name, shard.into()).await.expect("fits");
        let claim = claim(terms.id, version, &[(name, length)]);
        let chain = self.ledger.world.lock().chain;
        let removes: &[u32] = if version > 1 { &[0] } else { &[] };
        let (ask, height) = (sign_body(&chain, claim, removes, &[(name, length)]), terms.height);
        let signed = parts.data_sets.sign(terms, ask, height).await.expect("open").expect("right");
        set_body(&self.ledger.world.lock(), claim, Some(signed))
    }

    /// The consumer's claim, which needs no signature of the provider, that a data set is empty.
    fn emptied(&self, slot: u32, version: u64) -> Body {
        let world = self.ledger.world.lock();
        let agreement: Agreement = world.get(Agreement::key(&account("paul"), slot)).expect("open");
        let id = agreement.id(account("paul"), slot);
        let claim = DataSetClaim { agreement: id, version, root: EMPTY_ROOT, leaves: 0, bytes: 0 };
        set_body(&world, claim, None)
    }

    /// Draws the provider, and lets it answer: the time from the block to the answer, the reads for it, and
    /// the events of the block that takes the answer.
    async fn drawn(&mut self, context: &Context) -> (Duration, usize, Vec<Event>) {
        self.ledger.world.lock().draws = true;
        let challenge = |bench: &Self| -> Option<Challenge> { bench.audit().challenge };
        while challenge(self).is_none() {
            self.ledger.block();
        }
        self.ledger.world.lock().draws = false;
        let distance = self.ledger.distance.clone();
        self.handler.parts().view.advance(self.ledger.world.lock().height);
        let (began, before) = (context.current(), distance.trips.load(Ordering::Relaxed));
        self.reconciler.step().await.expect("nothing fails");
        let answered = distance.answered.lock().take().expect("it answers");
        let trips = distance.trips.load(Ordering::Relaxed) - before;
        let events = self.ledger.block();
        (answered.duration_since(began).expect("after the block"), trips, events)
    }
}

#[test]
fn ten_thousand_agreements_at_100_ms_are_answered_long_before_the_deadline() {
    const AGREEMENTS: u32 = 10_000;
    const TRIP: Duration = Duration::from_millis(100);
    run(|context| async move {
        let mut bench = Bench::far(&context, AGREEMENTS, TRIP).await;
        let parameters = bench.ledger.world.lock().parameters;
        let deadline = Duration::from_millis(parameters.block_ms * parameters.deadline_blocks);
        let (first, trips, events) = bench.drawn(&context).await;
        eprintln!("first: {first:?} and {trips} requests");
        assert_eq!(audited(&events), (1, 0));
        assert!(first < deadline / 8, "{first:?}");
        let (then, trips, events) = bench.drawn(&context).await;
        eprintln!("then: {then:?} and {trips} requests");
        assert_eq!(audited(&events), (1, 0));
        assert!(then < deadline / 8, "{then:?}");
        let most = bench.ledger.distance.most_open.load(Ordering::Relaxed);
        assert!(most <= 16, "{most} requests at once");
    });
}

#[test]
fn one_slow_read_of_a_near_node_delays_no_second_answer() {
    run(|context| async move {
        let near = Duration::from_millis(20);
        let mut bench = Bench::far(&context, 1, near).await;
        let parameters = bench.ledger.world.lock().parameters;
        let retry = RETRY_BLOCKS + 20_u64.div_ceil(parameters.block_ms);
        for trip in [near, Duration::from_secs(2), near] {
            bench.ledger.distance.set(&context, trip);
            bench.drawn(&context).await;
            assert_eq!(bench.reconciler.retry_blocks(), retry, "{trip:?}");
        }
        for _ in 0..20 {
            bench.ledger.distance.set(&context, Duration::from_secs(2));
            bench.drawn(&context).await;
        }
        let retry = bench.reconciler.retry_blocks();
        assert!(retry <= parameters.deadline_blocks / 2, "of a far node, too: {retry}");
    });
}

#[test]
fn what_changed_since_it_was_proved_is_answered_as_the_ledger_has_it() {
    const AGREEMENTS: u32 = 400;
    run(|context| async move {
        let mut bench = Bench::far(&context, AGREEMENTS, Duration::from_millis(100)).await;
        assert_eq!(audited(&bench.drawn(&context).await.2), (1, 0));
        // Replaced by another shard; emptied by the consumer alone; both while no challenge is open.
        let last = AGREEMENTS - 40;
        let mut changes = vec![];
        for slot in last..last + 20 {
            changes.push(bench.set_at(slot, 2, 50_000 + u64::from(slot)).await);
        }
        bench.run_paid("carol", changes);
        assert_eq!(audited(&bench.drawn(&context).await.2), (1, 0), "the replaced ones are proved again");
        let before = bench.provider().leaves;
        let empties = (last + 20..AGREEMENTS).map(|slot| bench.emptied(slot, 2)).collect();
        bench.run_paid("carol", empties);
        for _ in 0..12 {
            let (_, trips, events) = bench.drawn(&context).await;
            assert_eq!(audited(&events), (1, 0), "after {trips} requests");
        }
        assert!(bench.provider().leaves < before, "what was emptied weighs nothing");
    });
}

impl Bench {
    fn id_at(&self, slot: u32) -> AgreementId {
        let agreement: Agreement =
            self.ledger.world.lock().get(Agreement::key(&account("paul"), slot)).expect("open");
        agreement.id(account("paul"), slot)
    }
}

/// The settling storage proof puts versions that wait in force (DS-4), also one that the consumer emptied
/// alone while the challenge was open.
#[test]
fn a_set_that_was_emptied_while_a_challenge_was_open_is_empty_after_the_answer() {
    const AGREEMENTS: u32 = 600;
    run(|context| async move {
        let mut bench = Bench::far(&context, AGREEMENTS, Duration::from_millis(100)).await;
        for _ in 0..3 {
            assert_eq!(audited(&bench.drawn(&context).await.2), (1, 0));
        }
        bench.ledger.world.lock().draws = true;
        while bench.audit().challenge.is_none() {
            bench.ledger.block();
        }
        bench.ledger.world.lock().draws = false;
        let slot = AGREEMENTS - 1;
        bench.run_paid("carol", vec![bench.emptied(slot, 2)]);
        let on_ledger = |bench: &Bench| -> DataSet {
            bench.ledger.world.lock().get(DataSet::key(&account("paul"), slot)).expect("there")
        };
        assert!(on_ledger(&bench).next.is_some(), "it waits for the answer");
        let mut answers = 0;
        while on_ledger(&bench).current.leaves > 0 && answers < 40 {
            assert_eq!(audited(&bench.drawn(&context).await.2), (1, 0));
            answers += 1;
        }
        assert_eq!(answers, 1, "the consumer pays for a set that it deleted through all these answers");
    });
}

/// While no block takes an answer, it is given again each few blocks, also over a node that lags by a second.
#[test]
fn a_node_that_lags_makes_no_provider_answer_at_each_block() {
    run(|context| async move {
        let mut bench = Bench::far(&context, 2, Duration::from_millis(100)).await;
        bench.ledger.world.lock().draws = true;
        while bench.audit().challenge.is_none() {
            bench.ledger.block();
        }
        bench.ledger.world.lock().draws = false;
        let lagging = bench.ledger.world.lock().clone();
        (0..5).for_each(|_| drop(bench.ledger.block()));
        bench.ledger.blocks.lock().behind = Some(lagging);
        for _ in 0..8 {
            bench.ledger.waiting.lock().clear();
            bench.ledger.block();
            let height = bench.ledger.world.lock().height;
            bench.handler.parts().view.advance(height);
            bench.reconciler.step().await.expect("nothing fails");
        }
        let answers = bench.ledger.distance.answers.load(Ordering::Relaxed);
        assert!(answers <= 3, "{answers} answers in eight blocks");
    });
}

/// Each answer redeems the vouchers that the ones before it left (up to 64 a storage proof), and none twice.
#[test]
fn each_answer_redeems_vouchers_that_no_earlier_one_has_redeemed() {
    const AGREEMENTS: u32 = 600;
    const VOUCHERS: u32 = 256;
    run(|context| async move {
        let mut bench = Bench::far(&context, AGREEMENTS, Duration::from_millis(100)).await;
        for _ in 0..2 {
            assert_eq!(audited(&bench.drawn(&context).await.2), (1, 0));
        }
        let slots = AGREEMENTS - VOUCHERS..AGREEMENTS;
        let chain = bench.ledger.world.lock().chain;
        for slot in slots.clone() {
            let egress = Units::egress((1 << 20) - u64::from(slot));
            let voucher = Voucher::signed(&key("carol"), &chain, bench.id_at(slot), egress);
            let kept = Redemption { voucher, session_key: account("carol"), claim: None };
            bench.handler.parts().vouchers.keep(kept).await.expect("durable");
        }
        let redeemed = |bench: &Bench| {
            let used = |slot| bench.ledger.world.lock().get::<Usage>(Usage::key(&account("paul"), slot));
            slots.clone().filter(|slot| used(*slot).expect("open").redeemed.egress > 0).count()
        };
        let mut all = vec![];
        for _ in 0..10 {
            assert_eq!(audited(&bench.drawn(&context).await.2), (1, 0));
            all.push(redeemed(&bench));
        }
        assert!(all[0] > 0, "{all:?}");
        assert!(all[4] == VOUCHERS as usize || all[4] >= 5 * all[0], "{all:?}");
    });
}
