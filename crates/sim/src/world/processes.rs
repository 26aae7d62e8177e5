//! Starts, crashes and isolates processes.

use super::{PORT, World, account, member_key, place, user_key};
use crate::{
    machine::{Gate, Machine},
    network::SimNetwork,
    plan::{Gossip, Process},
};
use commonware_cryptography::Signer as _;
use commonware_p2p::simulated::{Config, Link, Network};
use commonware_runtime::{Handle as Task, Spawner as _, Supervisor as _, deterministic::Context};
use commonware_utils::Probability;
use futures::FutureExt as _;
use posync_client::connection::Endpoint;
use posync_node::{
    engine::{PEER_SETS, PEERS_MAX, PublicKey, message_bytes_max},
    epoch::Secrets,
    handle::Handle,
    run::{SimNode, SimRunning, run_sim},
    serve::{Serving, simulated},
};
use posync_protocol::{Account, Amount, PerClass};
use posync_provider::config::{GRACE_LOCAL, LOOSE, SCRUB_LOCAL, SCRUB_RATE};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    future::Future,
    net::SocketAddr,
    sync::Arc,
};

/// Egress that a simulated provider offers, in bytes a second. It is low because every byte is simulated.
const EGRESS_RATE: u64 = 256 << 10;

/// A process that is running.
pub(super) enum Running {
    Authority(SimRunning, Option<Handle>),
    Other(Task<()>),
}

impl Running {
    /// True if the process ended by itself, which none should do.
    pub(super) fn has_ended(&mut self) -> bool {
        let task = match self {
            Self::Authority(running, _) => &mut running.task,
            Self::Other(task) => task,
        };
        task.now_or_never().is_some()
    }

    /// An authority's handle, once its state is readable.
    pub(super) fn handle(&mut self) -> Option<Handle> {
        let Self::Authority(running, handle) = self else { return None };
        if handle.is_none() {
            *handle = running.handle.try_recv().ok();
        }
        handle.clone()
    }
}

impl<'a> World<'a> {
    pub(super) async fn start(context: Context, lasting: &'a mut super::Lasting) -> Self {
        let config = Config {
            max_size: message_bytes_max(),
            max_peers_per_set: PEERS_MAX,
            disconnect_on_block: true,
            tracked_peer_sets: PEER_SETS,
        };
        let keys: Vec<PublicKey> = lasting.seats.iter().map(|seat| seat.key.public_key()).collect();
        let (network, oracle) = Network::new_with_peers(context.child("gossip"), config, keys).await;
        drop(network.start());
        let gossip = lasting.plan.gossip;
        let (running, ended) = (BTreeMap::new(), Arc::default());
        let (paused, away, loiterers) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
        let mut world = Self { context, oracle, running, ended, gossip, paused, away, loiterers, lasting };
        world.link_all(gossip).await;
        for process in world.lasting.up.clone() {
            world.start_process(process);
        }
        world
    }

    fn key(&self, seat: usize) -> PublicKey {
        self.lasting.seats[seat].key.public_key()
    }

    pub(super) fn network(&self, process: Process) -> SimNetwork {
        self.lasting.fabric.at(&self.context, place(process))
    }

    /// Endpoints of every node service.
    pub(super) fn nodes(&self) -> Vec<Endpoint> {
        let endpoint = |(index, seat): (u8, &super::Keys)| Endpoint {
            account: account(&seat.key),
            address: address(Process::Authority(index)).into(),
        };
        (0..).zip(&self.lasting.seats).map(endpoint).collect()
    }

    pub(super) async fn link_all(&mut self, gossip: Gossip) {
        self.gossip = gossip;
        for seat in 0..self.lasting.seats.len() {
            self.link(seat, Some(gossip)).await;
        }
    }

    /// Replaces, or removes, every link to and from an authority.
    pub(super) async fn link(&self, seat: usize, gossip: Option<Gossip>) {
        for other in (0..self.lasting.seats.len()).filter(|other| *other != seat) {
            for (from, to) in [(seat, other), (other, seat)] {
                let (from, to) = (self.key(from), self.key(to));
                // Links are absent at first, and after an isolation.
                let _ = self.oracle.remove_link(from.clone(), to.clone()).await;
                if let Some(gossip) = gossip {
                    self.oracle.add_link(from, to, link(gossip)).await.expect("just removed");
                }
            }
        }
    }

    pub(super) async fn isolate(&self, process: Process) {
        self.lasting.fabric.isolate(place(process));
        if let Process::Authority(index) = process {
            self.link(index.into(), None).await;
        }
    }

    pub(super) async fn rejoin(&self, process: Process) {
        self.lasting.fabric.rejoin(place(process));
        if let Process::Authority(index) = process {
            self.link(index.into(), Some(self.gossip)).await;
        }
    }

    pub(super) async fn crash(&mut self, process: Process) {
        self.lasting.up.remove(&process);
        self.paused.remove(&process);
        if let Process::Authority(index) = process {
            self.stop_relay(index);
        }
        let task = match self.running.remove(&process) {
            Some(Running::Authority(running, _)) => running.task,
            Some(Running::Other(task)) => task,
            None => return,
        };
        task.abort();
        // The task ends as aborted; only its end matters.
        let _ = task.await;
    }

    pub(super) fn wipe(&mut self, index: u8) {
        let seat = &mut self.lasting.seats[usize::from(index)];
        seat.secrets = Secrets::memory();
        seat.prefix.push_str("-again");
        self.start_process(Process::Authority(index));
    }

    pub(super) fn start_process(&mut self, process: Process) {
        let running = match process {
            Process::Authority(index) => {
                self.start_relay(index);
                self.start_authority(index)
            }
            Process::Provider(index) => self.start_provider(index),
            Process::Gateway(index) => self.start_gateway(index),
        };
        self.running.insert(process, running);
        self.lasting.up.insert(process);
    }

    fn start_authority(&self, index: u8) -> Running {
        let process = Process::Authority(index);
        let context = self.context.child("authority").with_attribute("index", index);
        let seat = &self.lasting.seats[usize::from(index)];
        let serving = Serving { key: seat.key.clone(), address: inner_address(index), private: true };
        let (operations, services) = simulated(self.network(process), serving);
        let node = SimNode {
            genesis: self.lasting.genesis.clone(),
            key: seat.key.clone(),
            secrets: seat.secrets.clone(),
            prefix: seat.prefix.clone(),
            operations,
            quiet_ms: 0,
            other_stopped: false,
            rules: posync_protocol::rules::Rules::KNOWN,
            clock_ahead_ms: 0,
        };
        Running::Authority(run_sim(context, self.oracle.clone(), node, services), None)
    }

    /// The runtime as a process sees it. Each start of the process gets a new gate; the disk stays.
    fn machine(&mut self, process: Process, context: Context) -> Machine {
        let gate = Gate::default();
        self.paused.insert(process, gate.clone());
        Machine::new(context, gate, self.lasting.disks.entry(process).or_default().clone())
    }

    fn start_provider(&mut self, index: u8) -> Running {
        let process = Process::Provider(index);
        let config = posync_provider::Config {
            key: member_key(process),
            partition: format!("provider-{index}"),
            listen: address(process),
            advertised: None,
            region: format!("region {}", index % 5),
            operator: format!("operator {index}"),
            bond: Amount::sync(10_000),
            capacity_bytes: 8 << 30,
            space_bytes: u64::MAX,
            egress_rate: EGRESS_RATE,
            pack_bytes: 16 << 20,
            capacity_gas: 0,
            reserve_prices: PerClass::new(1, 1, 0),
            term_max: posync_provider::config::TERM_MAX,
            nodes: self.nodes(),
            chain: self.lasting.genesis.chain(),
            network_key: self.lasting.genesis.network_key(),
            parameters: self.lasting.plan.parameters,
            scrub: SCRUB_LOCAL,
            scrub_rate: SCRUB_RATE,
            loose: LOOSE,
            grace: GRACE_LOCAL,
            report: posync_provider::alerts::Reporter::default(),
            left: posync_provider::left::Left::default(),
        };
        let network = self.network(process);
        let context = self.context.child("provider").with_attribute("index", index);
        let context = self.machine(process, context);
        let started = |address| tracing::info!(%address, "a provider serves");
        self.supervise(context, process, move |context| {
            posync_provider::run(context, network, config, started)
        })
    }

    fn start_gateway(&mut self, index: u8) -> Running {
        let process = Process::Gateway(index);
        let parameters = self.lasting.plan.parameters;
        let config = posync_gateway::Config {
            key: member_key(process),
            partition: format!("gateway-{index}"),
            listen: address(process),
            owner: Account::of(&user_key(0).public_key()),
            users: Vec::new(),
            nodes: self.nodes(),
            chain: self.lasting.genesis.chain(),
            network_key: self.lasting.genesis.network_key(),
            parameters,
            policy: posync_gateway::Policy::of(&parameters),
            grace: self.lasting.plan.grace,
            alerts: posync_gateway::Alerts::default(),
            volume: posync_gateway::Volume::default(),
        };
        let network = self.network(process);
        let context = self.context.child("gateway").with_attribute("index", index);
        let context = self.machine(process, context);
        self.supervise(context, process, move |context| posync_gateway::run(context, network, config))
    }

    /// Runs a role. If it ends by itself, the plan fails, unless its disk failed: see [`World::check_ended`].
    fn supervise<F, E>(
        &self,
        context: Machine,
        process: Process,
        role: impl FnOnce(Machine) -> F + Send + 'static,
    ) -> Running
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        let ended = self.ended.clone();
        Running::Other(context.spawn(move |context| async move {
            let reason = match role(context).await {
                Ok(()) => format!("{process:?} ended"),
                Err(error) => format!("{process:?} ended: {error}"),
            };
            ended.lock().push((process, reason));
        }))
    }
}

/// Address at which a process serves.
pub(super) fn address(process: Process) -> SocketAddr {
    SocketAddr::new(place(process), PORT)
}

/// Address of an authority's own service, behind the [relay](super::relay) that clients ask.
pub(super) fn inner_address(authority: u8) -> SocketAddr {
    SocketAddr::new(place(Process::Authority(authority)), PORT + 1)
}

fn link(gossip: Gossip) -> Link {
    let arrives = Probability::new(u64::from(100 - gossip.loss_percent.min(100)), 100);
    Link {
        latency: gossip.latency,
        jitter: gossip.jitter,
        success_rate: arrives.expect("at most a hundred of a hundred"),
    }
}
