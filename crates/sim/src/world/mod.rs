//! The whole network in one process: every role, their links, their disks, and the judge.
//!
//! ```text
//!  Plan ──► run ──► phase (one life of the runtime) ──► phase after a power cut ──► ... ──► Report
//!                     │
//!                     ├── authorities: posync_node::run::run_sim over p2p::simulated
//!                     ├── node services, providers, gateways, users over network::Fabric
//!                     └── judge: every finalized block, run again from the genesis on
//! ```
//!
//! Invariants
//! 1. Nothing here is random but by the plan's seed: two runs of a plan end in equal reports.
//! 2. What survives a power cut is what was synced, and [`Lasting`]: keys, the judge, the links.
//! 3. A step that does not come true in bounded virtual time fails the plan.
//! 4. No authority ever holds another for one that signed twice, unless the plan made it do so.

mod faults;
mod front;
mod judging;
mod liar;
mod processes;
mod promises;
mod users;

use crate::{
    judge::Judge,
    ledger::{Fault, Ledger},
    machine::{Disk, Gate},
    network::{Fabric, Role, host},
    plan::{Gossip, Plan, Process, Sample, Step},
};
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_p2p::simulated::Oracle;
use commonware_runtime::{Handle as Task, deterministic};
use commonware_utils::TestRng;
use posync_node::{
    engine::PublicKey,
    epoch::secrets::Secrets,
    genesis::{AuthoritySecret, Genesis, deal},
};
use posync_protocol::{
    Account, Amount, Hash, Key, Slot,
    ledger::Event,
    record::{AccountState, Seat},
};
use processes::Running;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

/// All money of a simulated network.
const SUPPLY: Amount = Amount::sync(1_000_000_000);
/// What each provider, gateway and user begins with.
const FUNDS: Amount = Amount::sync(1_000_000);
/// Users of a simulated network.
const USERS: u8 = 2;
/// The port of every service.
const PORT: u16 = 7000;

/// Why a plan failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The judge found a fault.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// Nothing new came.
    #[error("no block was final for a minute after height {0}")]
    Stalled(u64),
    /// A condition did not come true.
    #[error("step {0} did not come true until height {1}")]
    Never(usize, u64),
    /// Two authorities differ.
    #[error("authority {authority} differs at height {height}: {reason}")]
    Differs {
        /// Who.
        authority: u8,
        /// Where.
        height: u64,
        /// How.
        reason: String,
    },
    /// An authority holds an honest one for a liar.
    #[error("authority {authority} holds {seat} for one that signed twice, and it did not")]
    Accused {
        /// Who.
        authority: u8,
        /// Whom.
        seat: Account,
    },
    /// A process ended by itself.
    #[error("{0}")]
    Ended(String),
    /// A file that was acknowledged did not come back.
    #[error("'{name}' was acknowledged, and {blocks} blocks after all faults it is lost: {reason}")]
    Lost {
        /// Of the file.
        name: &'static str,
        /// How long everything had been well.
        blocks: u64,
        /// What came instead.
        reason: String,
    },
    /// Something happened twice, or not at all.
    #[error("not once: {0}")]
    NotOnce(String),
    /// A user did not get what was promised.
    #[error("{what}: {reason}")]
    User {
        /// What was asked.
        what: String,
        /// What came instead.
        reason: String,
    },
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Height of the last judged block.
    pub height: u64,
    /// Its digest, which covers all history.
    pub digest: Hash,
    /// Its state root, found in the store of every living authority.
    pub state_root: Hash,
    /// The runtime's account of everything that ran, in order.
    pub audit: String,
    /// What the blocks told, with their heights.
    pub events: Vec<(u64, Event)>,
    /// The authorities' accounts, seats and balances after the last block.
    pub seats: Vec<(Account, Seat, AccountState)>,
    /// Every record after the last block.
    pub state: BTreeMap<Key, Slot>,
    /// What was done to the network: how often each kind of fault.
    pub faults: BTreeMap<&'static str, u32>,
    /// Puts that were refused while the network was not well.
    pub refused: u32,
}

/// An authority's keys.
struct Keys {
    key: PrivateKey,
    secrets: Secrets,
    prefix: String,
}

/// What a power cut does not take.
struct Lasting {
    plan: Plan,
    genesis: Arc<Genesis>,
    seats: Vec<Keys>,
    /// Who was made to sign twice.
    liars: BTreeSet<Account>,
    fabric: Fabric,
    judge: Judge,
    events: Vec<(u64, Event)>,
    up: BTreeSet<Process>,
    disks: BTreeMap<Process, Disk>,
    faults: BTreeMap<&'static str, u32>,
    /// Files that a gateway acknowledged.
    acknowledged: Vec<Sample>,
    refused: u32,
    /// Payments that a user was told of.
    paid: u32,
    /// What each authority's service says.
    fronts: Vec<front::Front>,
}

/// A network that runs.
struct World<'a> {
    context: deterministic::Context,
    oracle: Oracle<PublicKey, deterministic::Context>,
    running: BTreeMap<Process, Running>,
    ended: Arc<Mutex<Vec<String>>>,
    gossip: Gossip,
    paused: BTreeMap<Process, Gate>,
    loiterers: Vec<Task<()>>,
    lasting: &'a mut Lasting,
}

/// Runs a plan from its beginning to its end.
///
/// # Errors
/// [`Failure`]: the network or the plan is wrong.
pub fn run(plan: Plan) -> Result<Report, Failure> {
    let config =
        deterministic::Config::new().with_seed(plan.seed).with_storage_fault_config(plan.storage.clone());
    let mut runner = deterministic::Runner::new(config);
    let mut lasting = Lasting::new(plan);
    let steps: Vec<(usize, Step)> = std::mem::take(&mut lasting.plan.steps).into_iter().enumerate().collect();
    let mut phases = steps.split_inclusive(|(_, step)| cuts(step));
    loop {
        let steps = phases.next().unwrap_or_default();
        let last = !steps.last().is_some_and(|(_, step)| cuts(step));
        let (result, checkpoint) =
            runner.start_and_recover(|context| phase(context, &mut lasting, steps, last));
        match result? {
            Some(report) => return Ok(report),
            None => runner = deterministic::Runner::from(checkpoint),
        }
    }
}

/// Whether the power goes.
const fn cuts(step: &Step) -> bool {
    matches!(step, Step::PowerCut | Step::Blackout)
}

/// Runs a plan twice; both must end alike.
///
/// # Panics
/// If they do not, or fail.
pub fn run_twice(plan: &Plan) -> Report {
    let first = run(plan.clone()).unwrap_or_else(|failure| panic!("seed {}: {failure}", plan.seed));
    let second = run(plan.clone()).unwrap_or_else(|failure| panic!("seed {}, again: {failure}", plan.seed));
    assert!(first == second, "seed {}: two runs of one plan differ", plan.seed);
    first
}

async fn phase(
    context: deterministic::Context,
    lasting: &mut Lasting,
    steps: &[(usize, Step)],
    last: bool,
) -> Result<Option<Report>, Failure> {
    let mut world = World::start(context, lasting).await;
    for (number, step) in steps {
        tracing::info!(number, ?step, height = world.lasting.judge.height(), "step");
        world.step(*number, step).await?;
    }
    world.check_accused()?;
    if last { world.report().await.map(Some) } else { Ok(None) }
}

impl Lasting {
    fn new(plan: Plan) -> Self {
        let addresses: Vec<SocketAddr> =
            (0..plan.authorities).map(|index| SocketAddr::new(host(Role::Authority, index), 1)).collect();
        let members = members(&plan);
        let accounts = members.iter().map(|(_, key)| (account(key), FUNDS));
        let accounts = accounts.chain((0..USERS).map(|user| (account(&user_key(user)), FUNDS))).collect();
        let mut rng = TestRng::new(plan.seed);
        let (genesis, secrets) = deal(&addresses, plan.parameters, SUPPLY, accounts, &mut rng)
            .expect("1 to 32 authorities, funded");
        let genesis = Arc::new(genesis);
        let ledger = Ledger {
            chain: genesis.chain(),
            parameters: plan.parameters,
            supply: SUPPLY,
            state: genesis.records(),
            check_every: 1,
        };
        let parent = genesis.block::<deterministic::Context>().header().digest();
        let authorities = (0..plan.authorities).map(Process::Authority);
        Self {
            fabric: Fabric::new(plan.seed, plan.data),
            judge: Judge::new(ledger, parent),
            events: Vec::new(),
            liars: BTreeSet::new(),
            disks: BTreeMap::new(),
            faults: BTreeMap::new(),
            acknowledged: Vec::new(),
            refused: 0,
            paid: 0,
            fronts: (0..plan.authorities).map(|_| front::Front::default()).collect(),
            up: authorities.chain(members.into_iter().map(|(process, _)| process)).collect(),
            seats: secrets.into_iter().enumerate().map(seat).collect(),
            genesis,
            plan,
        }
    }
}

fn seat((index, secret): (usize, AuthoritySecret)) -> Keys {
    let secrets = Secrets::memory();
    secrets.seed(&secret.share);
    Keys { key: secret.key, secrets, prefix: format!("authority-{index}") }
}

/// Providers and gateways of a plan, with their keys.
fn members(plan: &Plan) -> Vec<(Process, PrivateKey)> {
    let providers = (0..plan.providers).map(Process::Provider);
    let gateways = (0..plan.gateways).map(Process::Gateway);
    providers.chain(gateways).map(|process| (process, member_key(process))).collect()
}

/// The key of a provider or gateway.
///
/// # Panics
/// For an authority, whose key is dealt.
pub fn member_key(process: Process) -> PrivateKey {
    match process {
        Process::Provider(index) => PrivateKey::from_seed(10_000 + u64::from(index)),
        Process::Gateway(index) => PrivateKey::from_seed(20_000 + u64::from(index)),
        Process::Authority(_) => panic!("the keys of authorities are dealt"),
    }
}

fn user_key(user: u8) -> PrivateKey {
    PrivateKey::from_seed(30_000 + u64::from(user))
}

/// The account of a key.
pub fn account(key: &PrivateKey) -> Account {
    Account::of(&key.public_key())
}

/// Where a process is.
fn place(process: Process) -> IpAddr {
    match process {
        Process::Authority(index) => host(Role::Authority, index),
        Process::Provider(index) => host(Role::Provider, index),
        Process::Gateway(index) => host(Role::Gateway, index),
    }
}
