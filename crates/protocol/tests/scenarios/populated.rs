//! Worlds in which every operation has an effect: moments of one history, each with the operations
//! that are valid then.
//!
//! Properties of *any* operation are checked here, not in an empty world: a wrong number in a
//! storage proof shows nothing if no provider is drawn.

use crate::{
    model_provider::{ModelProvider, bytes},
    script::Stage,
    world::{World, account, key},
};
use posync_protocol::{
    Account, Body, Bounded, Operation, Record, Units,
    limits::AUDIT_READ_BYTES,
    operation::{
        AuditCommit, AuditReveal, Commitments, Evidence, Measure, ProbeCount, Report, Settle, StorageProof,
        digest_of, reveals,
    },
    record::{Agreement, Probe, Provider, ProviderAt, Reputation, ServiceRound},
};
use std::{collections::BTreeMap, sync::OnceLock};

/// Every actor that signs: consumers, providers, seats, and one without a role yet.
const ACTORS: [&str; 10] = ["a", "b", "p", "q", "r", "s", "t", "u", "v", "fresh"];
const PROVIDERS: [&str; 3] = ["p", "q", "r"];
const SEATS: [&str; 4] = ["s", "t", "u", "v"];
/// Salt of every seat's commitments.
const SALT: [u8; 32] = [9; 32];

/// A world at a moment, with the models of its providers.
#[derive(Clone)]
pub(crate) struct Moment {
    /// Short name of the moment's special state.
    pub(crate) name: &'static str,
    pub(crate) stage: Stage,
    pub(crate) members: [ModelProvider; 2],
}

/// The moments of the history, built once.
pub(crate) fn moments() -> &'static [Moment] {
    static MOMENTS: OnceLock<Vec<Moment>> = OnceLock::new();
    MOMENTS.get_or_init(history)
}

impl Moment {
    fn begin() -> Self {
        let stage = Stage { world: World::new(&ACTORS), opened: BTreeMap::new() };
        let mut moment = Self { name: "opened", stage, members: ["p", "q"].map(ModelProvider::new) };
        SEATS.iter().for_each(|seat| moment.stage.world.seat(seat));
        moment.stage.world.leaders = SEATS.map(account).to_vec();
        moment.stage.play(
            "p register\n q register\n r register capacity=2000\n a open p quota=100000 end=700
             b open p slot=1 quota=1000 end=3\n a open p slot=2 quota=1000 end=4
             b open q quota=1000 end=700\n b open p slot=3 quota=9 end=30\n a rotate p/2 fresh",
        );
        moment.hold(0, 0, &[70_000, 1, 5_000, 0]);
        moment.hold(0, 1, &[50_000]);
        moment.hold(0, 2, &[3_000]);
        moment.hold(1, 0, &[9_000]);
        moment
    }

    /// Adds shards of these lengths to the data set in a slot of a provider.
    fn hold(&mut self, member: usize, slot: u32, lengths: &[usize]) {
        let world = &self.stage.world;
        let seed = world.height * 10 + u64::from(slot);
        let adds: Vec<_> = lengths.iter().zip(seed..).map(|(length, seed)| bytes(seed, *length)).collect();
        let set = self.members[member].change(world, slot, &[], &adds);
        self.submit("a", Body::SetDataSet(set));
    }

    fn submit(&mut self, who: &str, body: Body) {
        let operation = self.stage.world.sign(who, body);
        let code = self.stage.world.submit(&operation);
        assert!(code.is_ok(), "{}: {code:?} of {:?}", self.name, operation.body);
    }

    fn blocks(&mut self, count: u64) {
        self.stage.play(&format!("blocks {count}"));
    }

    /// Answers the open challenge of a provider, if there is one.
    fn answer(&mut self, member: usize) {
        if let Some(storage_proof) = self.members[member].storage_proof(&self.stage.world) {
            let name = self.members[member].name.clone();
            self.submit(&name, Body::StorageProof(storage_proof));
        }
    }

    /// Runs blocks until the first provider is drawn.
    fn until_drawn(&mut self) {
        self.stage.world.draws = true;
        for _ in 0..100 {
            if self.members[0].audit(&self.stage.world).challenge.is_some() {
                return;
            }
            self.answer(1);
            self.blocks(1);
        }
        panic!("100 blocks without a draw");
    }

    fn named(&self, name: &'static str) -> Self {
        Self { name, ..self.clone() }
    }
}

/// Runs the history and keeps its moments.
fn history() -> Vec<Moment> {
    let mut at = Moment::begin();
    let mut moments = vec![at.clone()];
    at.members[0].lose_tenths(3);
    at.until_drawn();
    at.stage.play("p redeem p/0 egress=2000000 gas=5 claim=3000000\n q redeem q egress=2000000");
    at.hold(0, 0, &[2_000]);
    moments.push(at.named("drawn, and a data set waits"));
    for _ in 0..200 {
        at.answer(0);
        at.answer(1);
        at.blocks(1);
        if !at.members[0].audit(&at.stage.world).missing.is_empty() && at.stage.world.epoch() >= 2 {
            break;
        }
    }
    at.until_drawn();
    commit(&mut at);
    moments.push(at.named("drawn, with reads to ask again"));
    at.stage.world.draws = false;
    at.stage.play(&format!("epoch {}", at.stage.world.epoch() + 1));
    moments.push(at.named("the first round of an epoch"));
    at.stage.play("blocks 37");
    moments.push(at.named("everybody was measured, an agreement ended in between"));
    at.answer(0);
    at.stage.play("epoch 6");
    moments.push(at.named("agreements are over"));
    at.until_drawn();
    at.stage.world.draws = false;
    at.blocks(140);
    jail(&mut at.stage.world, "r");
    moments.push(at.named("a challenge has expired, a provider may leave jail"));
    moments
}

/// Jails a provider until epoch 1.
fn jail(world: &mut World, name: &str) {
    let key = Reputation::key(&account(name));
    let reputation: Reputation = world.get(key).expect("it registered");
    world.state.insert(key, Reputation { jailed_until: 1, jailings: 1, ..reputation }.to_slot());
}

/// Each seat but the first commits to its findings of this epoch.
fn commit(at: &mut Moment) {
    let world = &at.stage.world;
    let commits: Vec<Operation> = (1..SEATS.len())
        .filter_map(|seat| {
            Some(world.sign(SEATS[seat], Body::AuditCommit(committed(at, seat, world.epoch())?)))
        })
        .collect();
    assert!(!commits.is_empty(), "the epoch has drawn an audit");
    at.stage.world.block(&commits).expect("commitments are valid");
}

fn committed(at: &Moment, seat: usize, epoch: u64) -> Option<AuditCommit> {
    let reveal = revealed(at, seat, epoch)?;
    let digest = digest_of(&[reveal], &account(SEATS[seat]))?;
    Some(AuditCommit::signed(&key(SEATS[seat]), &at.stage.world.chain, epoch, digest))
}

/// Findings of a seat about the drawn providers that have an agreement with some consumer.
fn revealed(at: &Moment, seat: usize, epoch: u64) -> Option<AuditReveal> {
    let world = &at.stage.world;
    let round: ServiceRound =
        world.get(ServiceRound::of(epoch)).filter(|round: &ServiceRound| round.epoch == epoch)?;
    let report = |(stratum, index): (u16, u32)| {
        let provider = world.get::<ProviderAt>(ProviderAt::key(index))?.account?;
        let terms: Agreement = world.get(Agreement::key(&provider, 0))?;
        let report = Report {
            stratum,
            auditor: round.auditor(stratum.into(), seat as u32)?,
            provider,
            index,
            slot: 0,
            opened: terms.opened,
            session_key: Account::default(),
            asked: 4,
            answered: 3,
            correct: u16::try_from(1_000_000 / AUDIT_READ_BYTES / SEATS.len() as u64).ok()?.min(3),
            latency: 1,
            throughput: 3,
            signature: [0; 64],
        };
        Some(report.signed(&key("session"), &world.chain, epoch, &account(SEATS[seat])))
    };
    let reports: Vec<Report> = round.assigned(seat as u32).filter_map(report).collect();
    Some(reveals(epoch, SALT, reports)?.swap_remove(0))
}

/// The counts that the peers of a provider made in an epoch.
fn measured(world: &World, who: &str, epoch: u64) -> Option<Measure> {
    let sender = account(who);
    let probe: Probe = world.get(Probe::of(epoch)).filter(|probe: &Probe| probe.epoch == epoch)?;
    let index = world.get::<Provider>(Provider::key(&sender))?.index;
    let count = |draw| {
        let peer = probe.peer(&sender, index, draw)?;
        let receiver = world.get::<ProviderAt>(ProviderAt::key(peer))?.account?;
        let name = PROVIDERS.iter().find(|name| account(name) == receiver)?;
        let count = ProbeCount { epoch, sender, receiver, draw, bytes: 9_000_000, signature: [0; 64] };
        Some((peer, count.signed(&key(name), &world.chain)))
    };
    Some(Measure { epoch, counts: Bounded::new((0..8).filter_map(count).collect())? })
}

/// Script lines that are valid at some moment.
const LINES: &[&str] = &[
    "a send b 5",
    "fresh register",
    "p update bond=1s capacity=1500000",
    "p leave",
    "b open p slot=5 quota=10 end=END",
    "a topup p/0 5",
    "a close p/0 second=p",
    "b closealone p/3",
    "a rotate p/0 fresh",
    "p redeem p/0 egress=2500000 gas=900000 claim=9000000",
    "b refusal p leaves=5",
    "a evidence s view=3",
    "r unjail bond=1s",
    "a node place=4 deposit=100s",
];

/// Number of operations that [`operation`] can build.
pub(crate) const OPERATIONS: usize = LINES.len() + 2 + 3 + 2 + 2 + 3 + 2;

/// Builds one of the operations that may be valid at this moment; `None` if it cannot be built then.
pub(crate) fn operation(at: &mut Moment, number: usize) -> Option<Operation> {
    let world = &at.stage.world;
    let epoch = world.epoch();
    if let Some(line) = LINES.get(number) {
        let line = line.replace("END", &(epoch + 3).to_string());
        return Some(at.stage.sign(&line));
    }
    let stand = PROVIDERS[..2].iter().all(|name| world.state.contains_key(&Provider::key(&account(name))));
    stand.then_some(())?;
    let (who, body) = match number - LINES.len() {
        member @ 0..=1 => (PROVIDERS[member], Body::StorageProof(at.members[member].storage_proof(world)?)),
        2 => ("a", Body::Settle(at.members[0].settle(world, &[]))),
        3 => ("a", Body::Settle(at.members[0].settle(world, &[1, 2]))),
        4 => ("a", Body::Settle(at.members[0].settle(world, &[0]))),
        5 => ("a", Body::SetDataSet(at.members[0].change(world, 0, &[], &[bytes(world.height, 1_500)]))),
        6 => ("b", Body::SetDataSet(emptied(at)?)),
        7 => ("p", Body::Measure(measured(world, "p", epoch)?)),
        8 => ("q", Body::Measure(measured(world, "q", epoch.checked_sub(1)?)?)),
        9 => (SEATS[0], Body::AuditCommit(committed(at, 0, epoch)?)),
        10 => (SEATS[1], Body::AuditReveal(revealed(at, 1, epoch.checked_sub(1)?)?)),
        11 => ("a", Body::Evidence(two_commitments(world, epoch))),
        12 => ("p", Body::StorageProof(full_storage_proof(at)?)),
        _ => ("a", Body::Settle(Settle { endings: few(vec![epoch]), ..at.members[0].settle(world, &[]) })),
    };
    Some(at.stage.world.sign(who, body))
}

fn few<T, const MAX: usize>(items: Vec<T>) -> Bounded<T, MAX> {
    Bounded::new(items).expect("few")
}

/// A storage proof that also redeems and names an ending, so that none of its lists is empty.
fn full_storage_proof(at: &Moment) -> Option<StorageProof> {
    let storage_proof = at.members[0].storage_proof(&at.stage.world)?;
    let mut redemption = at.stage.redemption_of(at.stage.id("p/0"), "session", 2_600_000, 6);
    redemption.claim = Some(Units { egress: 2_700_000, gas: 7 });
    let mut endings = storage_proof.endings.to_vec();
    if endings.is_empty() {
        endings.push(at.stage.world.epoch());
    }
    Some(StorageProof { vouchers: few(vec![redemption]), endings: few(endings), ..storage_proof })
}

/// The consumer's signature alone for an empty data set in slot 1.
fn emptied(at: &mut Moment) -> Option<posync_protocol::operation::SetDataSet> {
    let held = at.members[0].held(&at.stage.world, 1);
    let removes: Vec<u32> = (0..held).collect();
    at.members[0].agreement(&at.stage.world, 1)?;
    let set = at.members[0].change(&at.stage.world, 1, &removes, &[]);
    Some(posync_protocol::operation::SetDataSet { provider_signature: None, ..set })
}

fn two_commitments(world: &World, epoch: u64) -> Evidence {
    let commits = [3, 4].map(|digest| AuditCommit::signed(&key("t"), &world.chain, epoch, [digest; 32]));
    let commits = Bounded::new(commits.to_vec()).expect("two");
    Evidence::Commitments(Commitments { seat: account("t"), commits })
}
