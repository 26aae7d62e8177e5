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
//! 1. The plan's seed is the only source of randomness: two runs of a plan end in equal reports.
//! 2. A power cut leaves only the synced bytes and [`Lasting`]: keys, the judge, the links.
//! 3. A step that does not come true in bounded virtual time fails the plan.
//! 4. No authority accuses another of signing twice, unless the plan made that one do so.

mod faults;
mod judging;
mod liar;
mod processes;
mod promises;
mod relay;
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
use commonware_utils::sync::Mutex;
use posync_node::{
    engine::PublicKey,
    epoch::Secrets,
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
    sync::Arc,
};

/// All money of a simulated network.
const SUPPLY: Amount = Amount::sync(1_000_000_000);
/// Initial balance of each provider, gateway and user.
const FUNDS: Amount = Amount::sync(1_000_000);
/// Number of users in a simulated network.
const USERS: u8 = 2;
/// Port of every service.
const PORT: u16 = 7000;

/// The reason for which a plan failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The judge found a fault in a block or in the state.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// No new block became final for a minute.
    #[error("no block was final for a minute after height {0}")]
    Stalled(u64),
    /// A condition did not come true in time.
    #[error("step {0} did not come true until height {1}")]
    Never(usize, u64),
    /// An authority's store differs from the judge's state.
    #[error("authority {authority} differs at height {height}: {reason}")]
    Differs {
        /// Index of the authority.
        authority: u8,
        /// Height of the compared state.
        height: u64,
        /// Description of the difference.
        reason: String,
    },
    /// An authority accuses an honest one.
    #[error("authority {authority} holds {seat} for one that signed twice, and it did not")]
    Accused {
        /// Index of the authority that accuses.
        authority: u8,
        /// Account of the accused seat.
        seat: Account,
    },
    /// A process ended by itself.
    #[error("{0}")]
    Ended(String),
    /// An acknowledged file could not be read.
    #[error("'{name}' was acknowledged, and {blocks} blocks after all faults it is lost: {reason}")]
    Lost {
        /// Name of the lost file.
        name: &'static str,
        /// Number of blocks since all faults ended.
        blocks: u64,
        /// Answer to the last attempt to read it.
        reason: String,
    },
    /// A payment or a change of an agreement happened twice, or not at all.
    #[error("not once: {0}")]
    NotOnce(String),
    /// A user's request failed.
    #[error("{what}: {reason}")]
    User {
        /// Kind of the request.
        what: String,
        /// Answer that the user got.
        reason: String,
    },
}

/// The result of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Height of the last judged block.
    pub height: u64,
    /// Digest of that block, which covers all history.
    pub digest: Hash,
    /// State root of that block, found in the store of every running authority.
    pub state_root: Hash,
    /// The runtime's audit hash of everything that ran, in order.
    pub audit: String,
    /// Events of the blocks, with their heights.
    pub events: Vec<(u64, Event)>,
    /// The authorities' accounts, seats and balances after the last block.
    pub seats: Vec<(Account, Seat, AccountState)>,
    /// Every record after the last block.
    pub state: BTreeMap<Key, Slot>,
    /// Number of faults, by kind.
    pub faults: BTreeMap<&'static str, u32>,
    /// Number of puts that were refused while the network had faults.
    pub refused: u32,
}

/// Keys and storage prefix of an authority.
struct Keys {
    key: PrivateKey,
    secrets: Secrets,
    prefix: String,
}

/// State that a power cut leaves.
struct Lasting {
    plan: Plan,
    genesis: Arc<Genesis>,
    seats: Vec<Keys>,
    /// Authorities that were made to sign twice.
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
    /// Number of payments that were acknowledged to a user.
    paid: u32,
    /// Fronts before the authorities' services.
    relays: Vec<relay::Relay>,
}

/// A running network with its processes.
struct World<'a> {
    context: deterministic::Context,
    oracle: Oracle<PublicKey, deterministic::Context>,
    running: BTreeMap<Process, Running>,
    /// Processes that ended by themselves, with the reason.
    ended: Arc<Mutex<Vec<(Process, String)>>>,
    gossip: Gossip,
    paused: BTreeMap<Process, Gate>,
    /// Providers that are paused, cut off or down.
    away: BTreeSet<Process>,
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

/// True if the step cuts the power.
const fn cuts(step: &Step) -> bool {
    matches!(step, Step::PowerCut | Step::Blackout)
}

/// Runs a plan twice; both runs must end in equal reports.
///
/// # Panics
/// If a run fails, or if the reports differ.
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
            relays: (0..plan.authorities).map(|_| relay::Relay::default()).collect(),
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

/// Derives the account of a key.
pub fn account(key: &PrivateKey) -> Account {
    Account::of(&key.public_key())
}

/// Address of the host that runs a process.
fn place(process: Process) -> IpAddr {
    match process {
        Process::Authority(index) => host(Role::Authority, index),
        Process::Provider(index) => host(Role::Provider, index),
        Process::Gateway(index) => host(Role::Gateway, index),
    }
}
