//! The whole network in one process: authorities, their links, their disks, and the judge.
//!
//! ```text
//!  Plan ──► run ──► phase (one life of the runtime) ──► phase after a power cut ──► ... ──► Report
//!                     │
//!                     ├── authorities: posync_node::run_sim over p2p::simulated
//!                     ├── everybody else over network::Fabric
//!                     └── judge: every finalized block, run again from the genesis on
//! ```
//!
//! Invariants
//! 1. Nothing here is random but by the plan's seed: two runs of a plan end in equal reports.
//! 2. What survives a power cut is what was synced, and [`Lasting`]: keys, the judge, the links.
//! 3. A step that does not come true in bounded virtual time fails the plan.

use crate::{
    judge::Judge,
    ledger::{Fault, Ledger},
    network::{Fabric, Role, host},
    plan::{Gossip, Plan, Step},
};
use commonware_cryptography::Signer as _;
use commonware_p2p::simulated::{Config, Link, Network, Oracle};
use commonware_runtime::{Clock as _, Supervisor as _, deterministic};
use commonware_utils::{NZUsize, Probability, TestRng};
use futures::FutureExt as _;
use posync_node::{
    engine::{PublicKey, message_bytes_max},
    epoch::secrets::Secrets,
    genesis::{AuthoritySecret, Genesis, deal},
    handle::{Handle, Operations, ReadError},
    run::{SimNode, SimRunning, run_sim},
};
use posync_protocol::{
    Account, Amount, Hash, Key, Operation,
    ledger::{BlockContext, Event},
    limits::READ_KEYS_MAX,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// How often the world looks whether something came true.
const LOOK: Duration = Duration::from_millis(20);
/// Looks in a row without a new block after which a plan has stalled: a minute.
const LOOKS_MAX: u32 = 3_000;
/// All money of a simulated network.
const SUPPLY: Amount = Amount::sync(1_000_000_000);

/// Why a plan failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The judge found a fault.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// Nothing new came.
    #[error("no block was final for a minute after height {0}")]
    Stalled(u64),
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
    /// The plan asks for what cannot be.
    #[error("the plan is wrong: {0}")]
    Plan(&'static str),
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
}

/// What a power cut does not take.
struct Lasting {
    plan: Plan,
    nodes: Vec<SimNode>,
    fabric: Fabric,
    judge: Judge,
    events: Vec<(u64, Event)>,
    running: Vec<bool>,
}

/// A network that runs.
pub struct World<'a> {
    context: deterministic::Context,
    oracle: Oracle<PublicKey, deterministic::Context>,
    authorities: Vec<Option<Authority>>,
    gossip: Gossip,
    lasting: &'a mut Lasting,
}

struct Authority {
    running: SimRunning,
    handle: Option<Handle>,
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
    let steps = std::mem::take(&mut lasting.plan.steps);
    let mut phases = steps.split(|step| matches!(step, Step::PowerCut)).peekable();
    loop {
        let steps = phases.next().expect("a split has at least one part");
        let last = phases.peek().is_none();
        let (result, checkpoint) =
            runner.start_and_recover(|context| phase(context, &mut lasting, steps, last));
        match result? {
            Some(report) => return Ok(report),
            None => runner = deterministic::Runner::from(checkpoint),
        }
    }
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
    steps: &[Step],
    last: bool,
) -> Result<Option<Report>, Failure> {
    let mut world = World::start(context, lasting).await;
    for step in steps {
        world.step(step).await?;
    }
    if last { world.report().await.map(Some) } else { Ok(None) }
}

impl Lasting {
    fn new(plan: Plan) -> Self {
        let addresses: Vec<SocketAddr> =
            (0..plan.authorities).map(|index| SocketAddr::new(host(Role::Authority, index), 1)).collect();
        let mut rng = TestRng::new(plan.seed);
        let (genesis, secrets) = deal(&addresses, plan.parameters, SUPPLY, funded(), &mut rng)
            .expect("a plan has 1 to 32 authorities");
        let genesis = Arc::new(genesis);
        let node = |(index, secret): (usize, AuthoritySecret)| node(&genesis, index, secret);
        let nodes: Vec<SimNode> = secrets.into_iter().enumerate().map(node).collect();
        let ledger = Ledger {
            chain: genesis.chain(),
            parameters: plan.parameters,
            supply: SUPPLY,
            state: genesis.records(),
            check_every: 1,
        };
        let parent = genesis.block::<deterministic::Context>().header().digest();
        Self {
            fabric: Fabric::new(plan.seed, plan.data),
            judge: Judge::new(ledger, parent),
            events: Vec::new(),
            running: vec![true; nodes.len()],
            nodes,
            plan,
        }
    }
}

fn funded() -> Vec<(Account, Amount)> {
    Vec::new()
}

fn node(genesis: &Arc<Genesis>, index: usize, secret: AuthoritySecret) -> SimNode {
    let secrets = Secrets::memory();
    secrets.seed(&secret.share);
    SimNode {
        genesis: genesis.clone(),
        key: secret.key,
        secrets,
        prefix: format!("authority-{index}"),
        operations: Arc::new(Inbox::default()),
    }
}

impl<'a> World<'a> {
    async fn start(context: deterministic::Context, lasting: &'a mut Lasting) -> Self {
        let config = Config {
            max_size: message_bytes_max(),
            max_peers_per_set: NZUsize!(32),
            disconnect_on_block: true,
            tracked_peer_sets: NZUsize!(4),
        };
        let keys: Vec<PublicKey> = lasting.nodes.iter().map(|node| node.key.public_key()).collect();
        let (network, oracle) = Network::new_with_peers(context.child("gossip"), config, keys).await;
        let _ = network.start();
        let gossip = lasting.plan.gossip;
        let mut world = Self { context, oracle, authorities: Vec::new(), gossip, lasting };
        world.authorities.resize_with(world.lasting.nodes.len(), || None);
        world.link_all(gossip).await;
        for index in 0..world.lasting.nodes.len() {
            if world.lasting.running[index] {
                world.start_authority(index);
            }
        }
        world
    }

    fn key(&self, index: usize) -> PublicKey {
        self.lasting.nodes[index].key.public_key()
    }

    async fn link_all(&mut self, gossip: Gossip) {
        self.gossip = gossip;
        for index in 0..self.lasting.nodes.len() {
            self.link(index, Some(gossip)).await;
        }
    }

    /// Sets, or takes away, every link to and from an authority.
    async fn link(&self, index: usize, gossip: Option<Gossip>) {
        for other in (0..self.lasting.nodes.len()).filter(|other| *other != index) {
            for (from, to) in [(index, other), (other, index)] {
                let (from, to) = (self.key(from), self.key(to));
                // Absent at first, and after an isolation.
                let _ = self.oracle.remove_link(from.clone(), to.clone()).await;
                if let Some(gossip) = gossip {
                    self.oracle.add_link(from, to, link(gossip)).await.expect("just removed");
                }
            }
        }
    }

    fn start_authority(&mut self, index: usize) {
        let context = self.context.child("authority").with_attribute("index", index);
        let services = Box::new(|_, _, _| futures::future::pending().boxed());
        let running = run_sim(context, self.oracle.clone(), self.lasting.nodes[index].clone(), services);
        self.authorities[index] = Some(Authority { running, handle: None });
        self.lasting.running[index] = true;
    }

    async fn crash(&mut self, index: usize) {
        if let Some(authority) = self.authorities[index].take() {
            authority.running.task.abort();
            let _ = authority.running.task.await;
        }
        self.lasting.running[index] = false;
    }

    async fn step(&mut self, step: &Step) -> Result<(), Failure> {
        match step {
            Step::Reach(height) => self.reach(*height).await?,
            Step::Crash(index) => self.crash((*index).into()).await,
            Step::Restart(index) => self.start_authority((*index).into()),
            Step::Wipe(index) => {
                let node = &mut self.lasting.nodes[usize::from(*index)];
                node.secrets = Secrets::memory();
                node.prefix.push_str("-again");
                self.start_authority((*index).into());
            }
            Step::Gossip(gossip) => self.link_all(*gossip).await,
            Step::Isolate(index) => {
                self.lasting.fabric.isolate(host(Role::Authority, *index));
                self.link((*index).into(), None).await;
            }
            Step::Rejoin(index) => {
                self.lasting.fabric.rejoin(host(Role::Authority, *index));
                self.link((*index).into(), Some(self.gossip)).await;
            }
            Step::Storage(config) => *self.context.storage_fault_config().write() = config.clone(),
            Step::Mint => self.lasting.judge.ledger.mint(),
            Step::PowerCut => unreachable!("a power cut ends the phase"),
        }
        Ok(())
    }

    /// Handles of the authorities that run and whose state is readable.
    fn handles(&mut self) -> Vec<(u8, Handle)> {
        let mut handles = Vec::new();
        for (index, authority) in (0_u8..).zip(&mut self.authorities) {
            let Some(authority) = authority else { continue };
            if authority.handle.is_none() {
                authority.handle = authority.running.handle.try_recv().ok();
            }
            handles.extend(authority.handle.clone().map(|handle| (index, handle)));
        }
        handles
    }

    /// Judges every block up to `height`, as they become final.
    async fn reach(&mut self, height: u64) -> Result<(), Failure> {
        let mut looks = 0;
        while self.lasting.judge.height() < height {
            if self.judge_next().await? {
                looks = 0;
            } else if looks == LOOKS_MAX {
                return Err(Failure::Stalled(self.lasting.judge.height()));
            } else {
                looks += 1;
                self.context.sleep(LOOK).await;
            }
        }
        Ok(())
    }

    /// Judges the next block, if some authority has it.
    async fn judge_next(&mut self) -> Result<bool, Failure> {
        let next = self.lasting.judge.height() + 1;
        for (_, handle) in self.handles() {
            if handle.applied() < next {
                continue;
            }
            if let (Some(header), Some(body)) = (handle.header(next).await, handle.body(next).await) {
                let outcome = self.lasting.judge.block(&header, &body)?;
                self.lasting.events.extend(outcome.events.into_iter().map(|event| (next, event)));
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Compares every living authority's store with the judge's state, record by record.
    async fn report(&mut self) -> Result<Report, Failure> {
        let mut state_root = [0; 32];
        for (index, handle) in self.handles() {
            state_root = self.compare(index, &handle).await?;
        }
        Ok(Report {
            height: self.lasting.judge.height(),
            digest: self.lasting.judge.digest(),
            state_root,
            audit: self.context.auditor().state(),
            events: std::mem::take(&mut self.lasting.events),
        })
    }

    async fn compare(&mut self, authority: u8, handle: &Handle) -> Result<Hash, Failure> {
        'again: for _ in 0..LOOKS_MAX {
            // A state is compared while it is the newest one: the next block comes in a quarter second.
            self.reach(handle.applied().max(self.lasting.judge.height())).await?;
            let height = self.lasting.judge.height();
            let differs = |reason: String| Failure::Differs { authority, height, reason };
            let records: Vec<_> = self.lasting.judge.records().collect();
            let mut state_root = [0; 32];
            for group in records.chunks(READ_KEYS_MAX) {
                let keys: Vec<Key> = group.iter().map(|(key, _)| *key).collect();
                let read = match handle.read(keys).await {
                    Ok(read) if read.header.height == height => read,
                    Ok(_) | Err(ReadError::Moved) => {
                        self.context.sleep(LOOK).await;
                        continue 'again;
                    }
                    Err(error) => return Err(differs(error.to_string())),
                };
                if read.header.digest() != self.lasting.judge.digest() {
                    return Err(differs("it has another block".into()));
                }
                if read.records.iter().map(|record| record.slot).ne(group.iter().map(|(_, slot)| Some(*slot)))
                {
                    return Err(differs("its store holds another record than the blocks say".into()));
                }
                state_root = read.header.state_root;
            }
            return Ok(state_root);
        }
        Err(Failure::Stalled(self.lasting.judge.height()))
    }
}

fn link(gossip: Gossip) -> Link {
    let arrives = Probability::new(u64::from(100 - gossip.loss_percent.min(100)), 100);
    Link {
        latency: gossip.latency,
        jitter: gossip.jitter,
        success_rate: arrives.expect("at most a hundred of a hundred"),
    }
}

/// Operations on their way to a block, until the mempool takes this place.
#[derive(Default)]
struct Inbox;

impl Operations for Inbox {
    fn candidates(&self, _: &BlockContext) -> Vec<Operation> {
        Vec::new()
    }
    fn finalized(&self, _: u64, _: &[Operation]) {}
}
