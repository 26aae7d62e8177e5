//! The agreements of an account on a ledger that refuses them: with every code that it has for them, finally or by a node's word
//! alone, for openings, top-ups and closes. A refusal costs few fees, and what is refused is done once it is not. Also what
//! two nodes must prove before an agreement is given up or closed.

#[allow(dead_code, reason = "tests of others use the rest")]
#[path = "../../tests/node/mod.rs"]
mod node;

use super::{Agreements, Policy, state::Stage};
use crate::{
    account::{self, Consumer, Means},
    catalogue::{Nothing, row::PaidRow},
    ledger::Ledger,
};
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_runtime::{
    Clock as _, Runner as _, Supervisor as _,
    deterministic::{self, Context},
};
use node::{Node, Refused, chain::World, fund, run};
use posync_client::{account::Submitter, channel::SharedNetwork, connection::Connection};
use posync_protocol::{
    Account, Amount, Body, Bounded, Code, Operation, PerClass,
    limits::Parameters,
    operation::RegisterProvider,
    record::{AccountState, Agreement, DataSet, Record as _, Usage, Version},
};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

const P: Parameters = Parameters::LOCAL;

/// Each code with which a node or the rules refuse an opening, a top-up or a close.
const CODES: [Code; 27] = [
    Code::Malformed,
    Code::Expired,
    Code::BadShape,
    Code::BadSignature,
    Code::NonceOld,
    Code::NonceGap,
    Code::FeeAboveMaximum,
    Code::Balance,
    Code::UnknownAccount,
    Code::ProviderUnknown,
    Code::ProviderLeaving,
    Code::AgreementUnknown,
    Code::WrongParty,
    Code::AgreementClosed,
    Code::AgreementEnded,
    Code::PriceAboveMaximum,
    Code::PriceBelowReserve,
    Code::NoCapacity,
    Code::SlotTaken,
    Code::TermTooLong,
    Code::EscrowTooSmall,
    Code::TooManyKeys,
    Code::ProviderJailed,
    Code::ProviderSuspended,
    Code::NoEgress,
    Code::NoGas,
    Code::ChallengeOpen,
];

fn codes() -> impl Iterator<Item = Code> {
    CODES.into_iter()
}

fn own_key() -> PrivateKey {
    PrivateKey::from_seed(1)
}

fn own() -> Account {
    Account::of(&own_key().public_key())
}

/// The key of the provider whose operations are refused with a code.
fn key_of(code: Code) -> PrivateKey {
    PrivateKey::from_seed(5_000 + u64::from(code.number()))
}

fn provider_of(code: Code) -> Account {
    Account::of(&key_of(code).public_key())
}

/// The code with which the operations about each provider are refused.
fn refusals() -> BTreeMap<Account, Code> {
    codes().map(|code| (provider_of(code), code)).collect()
}

/// A ledger with a provider for each of the first `count` codes, and money for the account.
fn world_of(count: usize) -> World {
    let mut world = World::new(&[]);
    world.check_every = u64::MAX;
    fund(&mut world, &own(), Amount::sync(100_000));
    for code in codes().take(count) {
        let mut operator = [0; 32];
        operator[..3].copy_from_slice(format!("{:03}", code.number()).as_bytes());
        let address = Bounded::new(b"10.9.9.9:9".to_vec()).expect("short");
        let register = RegisterProvider {
            operator,
            bond: Amount::sync(1_000),
            capacity: PerClass::new(1 << 23, 1 << 40, 0),
            reserve: PerClass::all(0),
            term_max: 720,
            addresses: Bounded::new(vec![address]).expect("one"),
            region: Bounded::new(b"north".to_vec()).expect("short"),
        };
        fund(&mut world, &provider_of(code), Amount::sync(2_000));
        assert_eq!(run(&mut world, &key_of(code), Body::RegisterProvider(register)), Code::Done);
    }
    world
}

/// A ledger with a provider for each code.
fn world() -> World {
    world_of(CODES.len())
}

/// A consumer that wants an agreement with every provider, on a ledger of its own.
struct Setup {
    node: Node,
    agreements: Arc<Agreements>,
    context: Context,
}

impl Setup {
    async fn start(context: &Context, world: World) -> Self {
        let node = Node::start(context, world, SocketAddr::from(([10, 0, 0, 1], 100))).await;
        let policy = Policy {
            providers: CODES.len(),
            voucher_reserve: Amount::new(1 << 20).expect("small"),
            ..Policy::of(&P)
        };
        let means = Means {
            key: own_key(),
            partition: "test".into(),
            nodes: vec![node.endpoint()],
            keeps_floor: false,
            light: node.light(),
            parameters: P,
            policy,
            alerts: Default::default(),
            volume: Default::default(),
        };
        let network = SharedNetwork::new(context.child("network"));
        let consumer = Consumer::<Nothing>::open(context, &network, means).await.expect("opens");
        Self { node, agreements: consumer.agreements, context: context.child("test") }
    }

    /// Begins to keep the agreements.
    fn keep(&self) {
        account::start(&self.agreements, None, None);
    }

    /// Waits until `done` holds, for at most an hour of the runtime's time.
    async fn until(&self, what: &str, mut done: impl AsyncFnMut(&Self) -> bool) {
        for _ in 0..3_600 {
            if done(self).await {
                return;
            }
            self.context.sleep(Duration::from_secs(1)).await;
        }
        panic!("still waiting: {what}");
    }

    fn stages(&self) -> BTreeMap<Account, Vec<Stage>> {
        let mut all = BTreeMap::<_, Vec<Stage>>::new();
        for agreement in self.agreements.shared.agreements() {
            all.entry(agreement.provider()).or_default().push(Stage::of(&agreement.terms()));
        }
        all
    }

    /// Waits until each provider has one open agreement, and nothing is in doubt.
    async fn all_open(&self) {
        self.open(CODES.len()).await;
    }

    /// Waits until each of the first `count` providers has one open agreement, and nothing is in doubt.
    async fn open(&self, count: usize) {
        let open = async |setup: &Self| {
            let stages = setup.stages();
            let one = |code| stages.get(&provider_of(code)).is_some_and(|of| **of == [Stage::Open]);
            codes().take(count).all(one) && !setup.agreements.is_opening()
        };
        self.until("one agreement is open with each provider", open).await;
    }

    /// Has the operations for which `about` names a provider be final with that provider's code.
    fn refuse(&self, about: impl Fn(&Body) -> Option<Account> + Send + Sync + 'static) {
        let refusals = refusals();
        let code = move |body: &Body| about(body).and_then(|provider| refusals.get(&provider).copied());
        self.node.judge(move |operation: &Operation| code(&operation.body).map(Refused::Finally));
    }

    /// The number of final operations about each provider, done or refused.
    fn tries(&self, about: impl Fn(&Body) -> Option<Account>) -> BTreeMap<Account, usize> {
        let mut all = BTreeMap::new();
        for provider in self.node.done().iter().filter_map(|(body, _)| about(body)) {
            *all.entry(provider).or_default() += 1;
        }
        all
    }

    async fn balance(&self) -> Amount {
        let key = AccountState::key(&own());
        self.node.with(|world| world.get::<AccountState>(key).expect("funded").balance).await
    }
}

fn opens(body: &Body) -> Option<Account> {
    if let Body::Open(open) = body { Some(open.provider) } else { None }
}

fn tops_up(body: &Body) -> Option<Account> {
    if let Body::TopUp(top_up) = body { Some(top_up.agreement.provider) } else { None }
}

fn closes(body: &Body) -> Option<Account> {
    if let Body::CloseAlone(close) = body { Some(close.agreement.provider) } else { None }
}

fn runner() -> deterministic::Runner {
    let limit = Some(Duration::from_secs(7_200));
    deterministic::Runner::new(deterministic::Config::default().with_seed(1).with_timeout(limit))
}

/// Checks that each provider was tried, and ever less often: `tries` times at most in 100 seconds.
fn tried_a_few_times(tries: &BTreeMap<Account, usize>, most: usize) {
    for code in codes() {
        let tried = tries.get(&provider_of(code)).copied().unwrap_or(0);
        assert!((1..=most).contains(&tried), "{code:?}: {tried} times");
    }
}

#[test]
fn an_opening_that_is_refused_with_any_code_costs_a_few_fees_and_is_open_once_it_is_not() {
    runner().start(|context| async move {
        let setup = Setup::start(&context, world()).await;
        let before = setup.balance().await;
        setup.refuse(opens);
        setup.keep();
        context.sleep(Duration::from_secs(100)).await;
        tried_a_few_times(&setup.tries(opens), 7);
        assert!(setup.stages().is_empty(), "nothing is taken up that is not open");
        assert_eq!(setup.balance().await, before, "no money is locked");
        setup.node.judge(|_| None);
        setup.all_open().await;
        let number = setup.agreements.shared.agreements().iter().map(|agreement| agreement.number).max();
        let few = codes().count() * 8;
        assert!(number.is_some_and(|number| (number as usize) < few), "{number:?}");
    });
}

#[test]
fn an_opening_that_a_node_refuses_by_its_word_is_in_doubt_until_it_cannot_happen_any_more() {
    const FEW: usize = 3;
    for code in [Code::Balance, Code::NonceGap, Code::SlotTaken] {
        runner().start(|context| async move {
            let setup = Setup::start(&context, world_of(FEW)).await;
            setup.node.judge(move |operation| opens(&operation.body).map(|_| Refused::ByNode(code)));
            setup.keep();
            context.sleep(Duration::from_secs(50)).await;
            assert!(setup.node.done().is_empty() && setup.stages().is_empty(), "{code:?}");
            assert!(setup.node.asked(|body| opens(body).is_some()) > 0, "{code:?}");
            setup.node.judge(|_| None);
            setup.open(FEW).await;
            let done = setup.node.done();
            let opened = done.iter().filter(|(body, code)| opens(body).is_some() && *code == Code::Done);
            assert_eq!(opened.count(), FEW, "{code:?}: each once");
        });
    }
}

/// The voucher reserve of each agreement, on the ledger and in the catalogue.
async fn reserves(setup: &Setup) -> Vec<(Account, Amount, Amount)> {
    let mut all = Vec::new();
    for agreement in setup.agreements.shared.agreements() {
        let key = Usage::key(&agreement.provider(), agreement.id.slot);
        let usage = setup.node.with(|world| world.get::<Usage>(key)).await.expect("it is open");
        all.push((agreement.provider(), usage.voucher_reserve, agreement.terms().voucher_reserve));
    }
    all
}

#[test]
fn a_top_up_that_is_refused_with_any_code_is_tried_ever_less_often_and_no_grain_is_counted_that_is_not_there()
{
    let (world, checkpoint) = runner().start_and_recover(|context| async move {
        let setup = Setup::start(&context, world()).await;
        setup.keep();
        setup.all_open().await;
        for agreement in setup.agreements.shared.agreements() {
            let catalogue = &setup.agreements.shared.common.catalogue;
            let paid = PaidRow { egress: 1 << 20 };
            catalogue.put_paid(agreement.number, agreement.id, paid).await.expect("runs");
        }
        setup.node.with(|world| world.clone()).await
    });
    deterministic::Runner::from(checkpoint).start(|context| async move {
        let setup = Setup::start(&context, world).await;
        let before = reserves(&setup).await;
        setup.refuse(tops_up);
        setup.keep();
        context.sleep(Duration::from_secs(100)).await;
        tried_a_few_times(&setup.tries(tops_up), 7);
        assert_eq!(reserves(&setup).await, before, "nothing is added");
        setup.node.judge(|_| None);
        let topped = async |setup: &Setup| {
            let now = reserves(setup).await;
            let more = now.iter().zip(&before).filter(|(now, before)| now.1 > before.1);
            assert!(now.iter().all(|(_, ledger, ours)| ours <= ledger), "{now:?}");
            more.count() == now.len() && now.iter().all(|(_, ledger, ours)| ours == ledger)
        };
        setup.until("each is topped up, and counted", topped).await;
    });
}

#[test]
fn a_close_that_is_refused_with_any_code_happens_once_it_can_and_the_reserves_come_back() {
    runner().start(|context| async move {
        let setup = Setup::start(&context, world()).await;
        let before = setup.balance().await;
        setup.keep();
        setup.all_open().await;
        let locked = before.saturating_sub(setup.balance().await);
        setup.refuse(closes);
        setup.agreements.retired.store(true, std::sync::atomic::Ordering::Release);
        for agreement in setup.agreements.shared.agreements() {
            agreement.set_terms(|row| row.stage = Stage::Draining as u8).await.expect("runs");
        }
        context.sleep(Duration::from_secs(100)).await;
        tried_a_few_times(&setup.tries(closes), 14);
        assert_eq!(setup.stages().len(), codes().count(), "none is forgotten that is open on the ledger");
        setup.node.judge(|_| None);
        let gone = async |setup: &Setup| setup.stages().is_empty();
        setup.until("each is closed, removed and forgotten", gone).await;
        let left = |world: &mut World| {
            codes()
                .filter(|code| world.get::<Agreement>(Agreement::key(&provider_of(*code), 0)).is_some())
                .count()
        };
        assert_eq!(setup.node.with(left).await, 0, "none is left on the ledger");
        let lost = before.saturating_sub(setup.balance().await);
        assert!(lost.grains() * 5 < locked.grains(), "{lost:?} of {locked:?} did not come back");
    });
}

/// The ledger shows a data set that this catalogue does not know, as after a restore from a backup.
#[test]
fn an_agreement_of_which_the_ledger_has_a_newer_data_set_is_not_closed() {
    const FEW: usize = 2;
    runner().start(|context| async move {
        let setup = Setup::start(&context, world_of(FEW)).await;
        setup.keep();
        setup.open(FEW).await;
        let [newer, other] = [CODES[0], CODES[1]].map(provider_of);
        let current = Version { version: 3, root: [7; 32], leaves: 0, bytes: 0, grown_at: 0 };
        let set = DataSet { current, next: None };
        let slot = setup.agreements.shared.agreements_with(&newer)[0].id.slot;
        let insert = |world: &mut World| world.state.insert(DataSet::key(&newer, slot), set.to_slot());
        setup.node.with(insert).await;
        // It stands in a block that every reader of the floor's height has.
        context.sleep(Duration::from_secs(30)).await;
        setup.agreements.retired.store(true, std::sync::atomic::Ordering::Release);
        for agreement in setup.agreements.shared.agreements() {
            agreement.set_terms(|row| row.stage = Stage::Draining as u8).await.expect("runs");
        }
        let closed = async |setup: &Setup| setup.tries(closes).contains_key(&other);
        setup.until("the other is closed", closed).await;
        context.sleep(Duration::from_secs(100)).await;
        assert!(!setup.tries(closes).contains_key(&newer), "another catalogue has files under it");
        assert_eq!(setup.stages()[&newer], [Stage::Draining]);
    });
}

/// Nothing is given up on the word of one node: the second one must be as far, and not show the record either.
#[test]
fn a_record_is_absent_only_if_a_second_node_that_keeps_up_does_not_show_it_either() {
    runner().start(|context| async move {
        let network = SharedNetwork::new(context.child("network"));
        let mut nodes = Vec::new();
        // Their stores differ by the height at which they begin.
        for host in 1..3 {
            let address = SocketAddr::from(([10, 0, 0, host], 100));
            let child = context.child("ledger").with_attribute("host", host);
            nodes.push(Node::start(&child, world_of(host.into()), address).await);
        }
        let connect = |node: &Node| {
            let (dialing, nodes) = (context.child("reads"), vec![node.endpoint()]);
            Connection::new(dialing, network.clone(), own_key(), nodes, node.light())
        };
        let [first, second] = [&nodes[0], &nodes[1]];
        let reads = connect(first);
        let ledger = Ledger::new(reads.clone(), Submitter::new(reads, own_key(), P)).beside(connect(second));
        let stranger = AccountState::key(&Account([9; 32]));
        let absent = async |floor: u64| ledger.is_absent(stranger, floor, |_: &AccountState| true).await;
        let until = async |height: u64| {
            while first.with(|world| world.height).await < height {
                context.sleep(Duration::from_secs(1)).await;
            }
        };
        let start = first.with(|world| world.height).await;
        until(start + 8).await;
        assert_eq!(absent(start + 4).await, Ok(true));
        second.stand(true);
        until(start + 40).await;
        assert_eq!(absent(start + 30).await, Ok(false), "the second has stood still since then");
        second.stand(false);
        let caught_up = async || absent(start + 30).await == Ok(true);
        for _ in 0..60 {
            if caught_up().await {
                break;
            }
            context.sleep(Duration::from_secs(1)).await;
        }
        assert!(caught_up().await);
        second.with(|world| fund(world, &Account([9; 32]), Amount::sync(1))).await;
        context.sleep(Duration::from_secs(10)).await;
        assert_eq!(absent(start + 30).await, Ok(false), "the second shows it");
    });
}
