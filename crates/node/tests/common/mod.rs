//! A small network of authorities on the deterministic runtime, shared by the tests of this crate.

use commonware_p2p::simulated::{self, Link, Network, Oracle};
use commonware_runtime::{Clock as _, Spawner as _, Supervisor as _, deterministic};
use commonware_utils::{TestRng, probability, sync::Mutex};
use futures::FutureExt as _;
use posync_node::{
    engine::{self, PublicKey},
    epoch::Secrets,
    genesis::{self, Genesis},
    handle::{Handle, Operations},
    run::{SimNode, SimRunning, SimServices, run_sim},
    serve::{Serving, simulated},
};
use posync_protocol::{Account, Amount, Operation, ledger::BlockContext, limits::Parameters};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

/// Operations that wait for a block, in the order in which they were added.
#[derive(Default)]
pub(crate) struct Queue(Mutex<Vec<Operation>>);

impl Queue {
    pub(crate) fn add(&self, operation: Operation) {
        self.0.lock().push(operation);
    }
}

impl Operations for Queue {
    fn candidates(&self, _: &BlockContext, _: u64) -> Vec<Operation> {
        self.0.lock().clone()
    }

    fn finalized(&self, _: u64, operations: &[Operation]) {
        self.0.lock().retain(|waiting| !operations.contains(waiting));
    }
}

/// The data that survives crashes: the genesis, keys, shares, and queues of all authorities.
#[derive(Clone)]
pub(crate) struct Network4 {
    pub(crate) genesis: Arc<Genesis>,
    pub(crate) nodes: Vec<SimNode>,
    pub(crate) queue: Arc<Queue>,
}

impl Network4 {
    /// Deals a network of `authorities`, with one funded account.
    pub(crate) fn deal(authorities: u16, parameters: Parameters, accounts: Vec<(Account, Amount)>) -> Self {
        let addresses: Vec<SocketAddr> =
            (0..authorities).map(|i| SocketAddr::from(([127, 0, 0, 1], 9_000 + i))).collect();
        let supply = Amount::sync(1_000_000_000);
        let (genesis, secrets) = genesis::deal(&addresses, parameters, supply, accounts, TestRng::new(7))
            .expect("the deal is valid");
        let (genesis, queue) = (Arc::new(genesis), Arc::new(Queue::default()));
        let nodes = secrets.into_iter().enumerate().map(|(index, secret)| {
            let shares = Secrets::memory();
            shares.seed(&secret.share);
            SimNode {
                genesis: genesis.clone(),
                key: secret.key,
                secrets: shares,
                prefix: format!("authority-{index}"),
                operations: queue.clone(),
                quiet_ms: 0,
                other_stopped: false,
                rules: posync_protocol::rules::Rules::KNOWN,
                clock_ahead_ms: 0,
            }
        });
        Self { nodes: nodes.collect(), genesis, queue }
    }
}

/// A running network: its authorities, their handles, the simulated links.
pub(crate) struct World {
    pub(crate) context: deterministic::Context,
    pub(crate) oracle: Oracle<PublicKey, deterministic::Context>,
    pub(crate) network: Network4,
    pub(crate) running: BTreeMap<usize, SimRunning>,
    pub(crate) handles: BTreeMap<usize, Handle>,
    starts: u64,
    serve: Option<Serve>,
}

/// Creates the operations and services of an authority, at its n-th start.
pub(crate) type Serve =
    Box<dyn Fn(&deterministic::Context, &SimNode, usize, u64) -> (Arc<dyn Operations>, SimServices)>;

/// Address of the node service at the n-th start: the simulated network never frees an address.
pub(crate) fn address(index: usize, start: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, index as u8, 1], 7_000 + start as u16))
}

/// Makes every authority serve at [`address`].
pub(crate) fn serve() -> Option<Serve> {
    Some(Box::new(|context, node, index, start| {
        let serving = Serving { key: node.key.clone(), address: address(index, start), private: true };
        simulated(context.child("sockets"), serving)
    }))
}

impl World {
    /// Connects all authorities with links of 10 ms and starts them.
    pub(crate) async fn start(context: deterministic::Context, network: Network4) -> Self {
        Self::start_serving(context, network, None).await
    }

    /// As [`Self::start`]; `serve` creates the services beside each engine.
    pub(crate) async fn start_serving(
        context: deterministic::Context,
        network: Network4,
        serve: Option<Serve>,
    ) -> Self {
        use commonware_cryptography::Signer as _;
        let config = simulated::Config {
            max_size: engine::message_bytes_max(),
            max_peers_per_set: engine::PEERS_MAX,
            disconnect_on_block: true,
            tracked_peer_sets: engine::PEER_SETS,
        };
        let (transport, oracle) = Network::new(context.child("network"), config);
        transport.start();
        let keys: Vec<_> = network.nodes.iter().map(|node| node.key.public_key()).collect();
        let link = Link {
            latency: Duration::from_millis(10),
            jitter: Duration::from_millis(2),
            success_rate: probability!(1.0),
        };
        for from in &keys {
            for to in keys.iter().filter(|to| *to != from) {
                oracle.add_link(from.clone(), to.clone(), link.clone()).await.expect("the link is new");
            }
        }
        let indices = 0..network.nodes.len();
        let (running, handles) = Default::default();
        let mut world = Self { context, oracle, network, running, handles, starts: 0, serve };
        for index in indices {
            world.boot(index).await;
        }
        world
    }

    /// Starts an authority, possibly again, and waits until its state is readable.
    pub(crate) async fn boot(&mut self, index: usize) {
        self.launch(index);
        let running = self.running.get_mut(&index).expect("it was just started");
        let handle = (&mut running.handle).await.expect("the authority starts");
        self.handles.insert(index, handle);
    }

    /// Starts an authority without waiting for it.
    pub(crate) fn launch(&mut self, index: usize) {
        self.starts += 1;
        let context = self.context.child("authority").with_attribute("start", self.starts);
        let services: SimServices = Box::new(|context: deterministic::Context, _: Handle, _| {
            async move {
                let _ = context.stopped().await;
            }
            .boxed()
        });
        let mut node = self.network.nodes[index].clone();
        let services = match &self.serve {
            Some(serve) => {
                let (operations, services) = serve(&self.context, &node, index, self.starts);
                node.operations = operations;
                services
            }
            None => services,
        };
        self.running.insert(index, run_sim(context, self.oracle.clone(), node, services));
    }

    /// Kills an authority; the data that it synced stays.
    pub(crate) fn crash(&mut self, index: usize) {
        self.handles.remove(&index);
        self.running.remove(&index).expect("it runs").task.abort();
    }

    /// Waits until every running authority has applied `height`.
    pub(crate) async fn reach(&self, height: u64) {
        while self.handles.values().any(|handle| handle.applied() < height) {
            self.context.sleep(Duration::from_millis(50)).await;
        }
    }

    /// The state roots of the running authorities at `height`.
    pub(crate) async fn roots(&self, height: u64) -> Vec<[u8; 32]> {
        let mut roots = Vec::new();
        for handle in self.handles.values() {
            roots.push(handle.header(height).await.expect("the height was reached").state_root);
        }
        roots
    }
}
