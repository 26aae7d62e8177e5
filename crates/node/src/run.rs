//! The two places where the engine becomes concrete: sockets and disks, and the deterministic runtime.
//!
//! Everything generic is compiled here, once for each. Callers hand in what differs (a directory, or
//! an oracle and a prefix) and a [`Services`] function that gets the node's handle and channel 8.

use crate::{
    config::{Config, ConfigError},
    engine::{self, Parts, PrivateKey, PublicKey, Transport, channels},
    epoch::secrets::Secrets,
    genesis::Genesis,
    handle::{Handle, Operations},
};
use commonware_cryptography::{ChaCha20Poly1305, Signer as _};
use commonware_p2p::{
    authenticated::lookup,
    simulated::{self, Oracle},
};
use commonware_runtime::{Handle as Task, Runner as _, Spawner as _, Supervisor as _, deterministic, tokio};
use commonware_stream::{
    cups::{self, Cups},
    sake::{self, Sake},
};
use commonware_utils::NZUsize;
use futures::{FutureExt as _, future::BoxFuture};
use std::{num::NonZeroUsize, path::Path, sync::Arc, time::Duration};
use thiserror::Error;

/// Stack of a worker thread: the engine's futures are large where they are not optimised.
const STACK_BYTES: usize = 8 << 20;
/// Least worker threads.
const WORKERS_MIN: usize = 2;

/// Worker threads of a role: as many as the machine runs at once, and never so few that one that
/// waits for the disk holds up all others.
pub fn workers() -> usize {
    std::thread::available_parallelism().map_or(WORKERS_MIN, NonZeroUsize::get).max(WORKERS_MIN)
}

/// Why a node ended.
#[derive(Debug, Error)]
pub enum RunError {
    /// Its directory cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// One of its parts ended.
    #[error("a part of the node ended: {0}; the reason is above, start the node again")]
    Ended(String),
}

/// What runs beside the engine: given the runtime, the node's handle and the mempool's channel.
pub type Services<E, S, R> = Box<dyn FnOnce(E, Handle, (S, R)) -> BoxFuture<'static, ()> + Send>;
/// Services over sockets.
pub type TokioServices =
    Services<tokio::Context, lookup::Sender<PublicKey, tokio::Context>, lookup::Receiver<PublicKey>>;
/// Services on the deterministic runtime.
pub type SimServices = Services<
    deterministic::Context,
    simulated::Sender<PublicKey, deterministic::Context>,
    simulated::Receiver<PublicKey>,
>;

/// Runs the authority in `directory` until `services` returns, which is how it is stopped.
///
/// # Errors
/// [`RunError`]: the directory cannot be used, or a part of the node ended first.
pub fn run_tokio(
    directory: &Path,
    operations: Arc<dyn Operations>,
    services: TokioServices,
) -> Result<(), RunError> {
    let config = Config::open(directory)?;
    let runtime = tokio::Config::new()
        .with_storage_directory(config.directory.join("storage"))
        .with_tcp_nodelay(Some(true))
        .with_worker_threads(workers())
        .with_thread_stack_size(STACK_BYTES)
        .with_catch_panics(false);
    tokio::Runner::new(runtime).start(|context| serve(context, config, operations, services))
}

async fn serve(
    context: tokio::Context,
    config: Config,
    operations: Arc<dyn Operations>,
    services: TokioServices,
) -> Result<(), RunError> {
    let (mut network, oracle) = lookup::Network::new(context.child("network"), network_config(&config));
    let channels = channels::ENGINE.map(|channel| network.register(channel, engine::quota())).into();
    let mempool = network.register(channels::MEMPOOL, engine::quota());
    let transport = Transport { manager: oracle.clone(), blocker: oracle, channels };
    let network_task = network.start();
    let parts = Parts {
        state_sync: config.secrets.is_empty(),
        genesis: Arc::new(config.genesis.clone()),
        key: config.key.clone(),
        secrets: config.secrets.clone(),
        operations,
        prefix: "posync".into(),
        archive: config.settings.archive,
        page_cache_pages: NonZeroUsize::new(config.settings.page_cache_pages).unwrap_or(NonZeroUsize::MIN),
    };
    let mut running = engine::start(context.child("engine"), parts, transport).await;
    running.actors.push(network_task);
    let services = services(context.child("services"), running.handle, mempool);
    let ended = Task::select(running.actors).map(|result| Err(RunError::Ended(format!("{result:?}"))));
    futures::future::select(Box::pin(ended), services.map(Ok)).await.factor_first().0
}

type Handshake = Cups<Sake<PrivateKey>, ChaCha20Poly1305>;

fn network_config(config: &Config) -> lookup::Config<Handshake> {
    let handshake = Cups::new(
        Sake {
            signer: config.key.clone(),
            synchrony_bound: Duration::from_secs(5),
            max_handshake_age: Duration::from_secs(10),
            version: sake::Version::V1,
        },
        cups::Version::V1,
    );
    let namespace = [b"posync/p2p/1".as_slice(), &config.genesis.chain()].concat();
    // Inbound queues are allocated for this many peers at the quota of every channel.
    let peers = config.genesis.authorities.len() + 1;
    let make = if config.settings.local { lookup::Config::local } else { lookup::Config::recommended };
    make(
        handshake,
        &namespace,
        config.settings.listen,
        NonZeroUsize::new(peers).expect("one more is not zero"),
        engine::message_bytes_max(),
        NZUsize!(1_024),
    )
}

/// An authority on the deterministic runtime; what survives a crash of it is in here and in storage.
#[derive(Clone)]
pub struct SimNode {
    /// The network's beginning.
    pub genesis: Arc<Genesis>,
    /// Its key.
    pub key: PrivateKey,
    /// Its shares.
    pub secrets: Secrets,
    /// Prefix of its partitions; a new prefix and empty secrets make a wiped node.
    pub prefix: String,
    /// Where its operations come from.
    pub operations: Arc<dyn Operations>,
}

/// A running simulated authority; abort `task` to crash it.
pub struct SimRunning {
    /// Resolves to the node's handle once its state is readable.
    pub handle: commonware_utils::channel::oneshot::Receiver<Handle>,
    /// Everything it runs hangs from this.
    pub task: Task<()>,
}

/// Starts an authority over the simulated network that `oracle` controls.
pub fn run_sim(
    context: deterministic::Context,
    oracle: Oracle<PublicKey, deterministic::Context>,
    node: SimNode,
    services: SimServices,
) -> SimRunning {
    let (sender, handle) = commonware_utils::channel::oneshot::channel();
    let task = context.spawn(|context| {
        async move {
            let control = oracle.control(node.key.public_key());
            let mut channels = Vec::new();
            for channel in channels::ENGINE.into_iter().chain([channels::MEMPOOL]) {
                let pair = control.register(channel, engine::quota()).await;
                channels.push(pair.expect("the simulated network outlives its nodes"));
            }
            let mempool = channels.pop().expect("the mempool's channel was just registered");
            let transport = Transport { manager: oracle.socket_manager(), blocker: control, channels };
            let parts = Parts {
                state_sync: node.secrets.is_empty(),
                genesis: node.genesis,
                key: node.key,
                secrets: node.secrets,
                operations: node.operations,
                prefix: node.prefix,
                archive: false,
                page_cache_pages: NZUsize!(1_024),
            };
            let running = engine::start(context.child("engine"), parts, transport).await;
            let services = services(context.child("services"), running.handle.clone(), mempool);
            let _ = sender.send(running.handle);
            let ended = Task::select(running.actors).map(|_| ());
            let _ = futures::future::select(Box::pin(ended), services).await;
        }
        .boxed()
    });
    SimRunning { handle, task }
}
