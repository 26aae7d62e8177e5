//! Starts and stops a provider.
//!
//! ```text
//!   open store, data sets, voucher store --> listen --> register, follow, prove, settle (reconciler)
//!        (disk first)             |                scrub
//!                                 +--> requests (serve)
//! ```
//!
//! A provider whose volume is missing or fails goes offline by itself: `run` ends with the error,
//! its answers stop, and its challenges stay open; it promises only data that is on disk.

use crate::{
    config::{Config, ConfigError},
    data_sets::{DataSets, DataSetsError, Held},
    node::Node,
    packs::{Store, StoreError},
    probe::Prober,
    reconciler::{Ends, Finds, Journals, Patience, Reconciler, ReconcilerError, answer_questions},
    scrub::{self, Unreadable},
    serve::{Handler, Parts},
    view::View,
    vouchers::{Vouchers, VouchersError},
};
use commonware_cryptography::Signer as _;
use commonware_macros::select;
use commonware_runtime::{Clock, Metrics, Network, Resolver, Spawner, Storage};
use posync_client::{
    channel::{self, Listen, SharedNetwork},
    connection::Connection,
    floor, known,
    light::Light,
    rpc::{self, Server, Service as _},
    watch,
};
use posync_protocol::Account;
use rand_core::CryptoRng;
use std::{net::SocketAddr, sync::Arc};

/// Reasons for which a provider is offline.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The shard store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal of the data sets failed.
    #[error(transparent)]
    DataSets(#[from] DataSetsError),
    /// The journal of the voucher store failed.
    #[error(transparent)]
    Vouchers(#[from] VouchersError),
    /// The scrub could not read a single shard of the volume.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// The reconciler ended with an error.
    #[error(transparent)]
    Reconciler(#[from] ReconcilerError),
    /// It cannot listen, or stopped listening.
    #[error(transparent)]
    Listen(#[from] channel::Error),
    /// A task ended unexpectedly.
    #[error("the provider's {0} ended unexpectedly: {1}")]
    Task(&'static str, commonware_runtime::Error),
}

/// Runs a provider until the runtime is asked to stop, or until it cannot continue.
///
/// `started` is called with the bound address once requests are answered.
///
/// # Errors
/// [`Error`]: the part that failed, and the remedy.
pub async fn run<E, N>(
    context: E,
    network: N,
    config: Config,
    started: impl FnOnce(SocketAddr) + Send,
) -> Result<(), Error>
where
    E: Spawner + Clock + Storage + Metrics + CryptoRng + Resolver,
    N: Network,
{
    let (chain, account) = (config.chain, Account::of(&config.key.public_key()));
    config.registration(config.listen)?;
    let name = |part: &str| format!("{}-{part}", config.partition);
    let (store, mut store_task) = Store::open(context.child("store"), config.store()).await?;
    let (key, held) = (config.key.clone(), held(&store));
    let (data_sets, mut data_sets_task) =
        DataSets::open(context.child("data_sets"), &name("books"), key, chain, held).await?;
    let (vouchers, mut vouchers_task) = Vouchers::open(context.child("vouchers"), &name("till")).await?;
    let journals = journals(&context, &config).await?;
    let (view, questions) = View::new(account, chain, config.parameters);
    let (asking, seen) = (view.clone(), view.clone());
    let (clock, capacity_leaves) = (Arc::new(context.child("clock")), config.capacity_leaves());
    let key = config.key.clone();
    let handler = Parts { clock, store: store.clone(), data_sets, vouchers, view, capacity_leaves, key };
    let handler = Handler::start(&context, handler);
    let mut listening = listen(&context, &network, &config, handler.clone()).await?;
    let registration = config.registration(listening.address)?;
    let network = SharedNetwork::new(network);
    let node = follow(&context, &network, &config, handler.parts().view.clone()).await;
    let asked = node.clone();
    context.child("questions").spawn(move |_| answer_questions(asked, asking, questions));
    measure(&context, network, &config, handler.parts().view.clone(), node.clone());
    let reconciler = Reconciler::new(
        context.child("reconciler"),
        handler.clone(),
        node,
        registration,
        Patience { loose: config.loose, grace_blocks: config.grace_blocks() },
        config.report.clone(),
        journals,
    );
    let mut reconciler_task = context.child("reconciler_task").spawn(move |_| reconciler.run());
    let mut scrub_task = scrub_store(&context, handler, &config);
    tracing::info!(%account, address = %listening.address, "the provider is up");
    log_when_ready(&context, seen.heights());
    started(listening.address);
    let mut stopped = context.stopped();
    let ended = select! {
        _ = &mut stopped => Ok(()),
        ended = &mut store_task => over("store", ended),
        ended = &mut data_sets_task => over("data sets", ended),
        ended = &mut vouchers_task => over("vouchers", ended),
        ended = &mut reconciler_task => over("reconciler", ended),
        ended = &mut scrub_task => over("scrub", ended),
        ended = &mut listening.task => over("listener", ended.map(Ok::<(), Error>)),
    };
    // No new requests; durable data stays so, and the next start reads no shard.
    listening.task.abort();
    reconciler_task.abort();
    match &ended {
        Ok(()) | Err(Error::Reconciler(ReconcilerError::Left)) => store.close().await?,
        Err(error) => {
            tracing::error!(%error, "the provider goes offline");
            config.report.offline(&account, seen.height(), error);
        }
    }
    ended
}

/// Logs the first certified height: from then on the provider knows what it owes.
fn log_when_ready<E: Spawner>(context: &E, mut heights: watch::Receiver<u64>) {
    context.child("ready").spawn(move |_| async move {
        if let Ok(height) = heights.wait_for(|height| *height > 0).await {
            tracing::info!(height = *height, "ready: the provider follows the chain");
        }
    });
}

/// Starts the scrub of the whole store, and beside it second reads of what the disk failed to read.
fn scrub_store<E: Spawner + Clock, B: commonware_runtime::Blob>(
    context: &E,
    handler: Arc<Handler<E, B>>,
    config: &Config,
) -> commonware_runtime::Handle<Result<(), Unreadable>> {
    let (every, rate, again) = (config.scrub, config.scrub_rate, Arc::clone(&handler));
    context.child("unread").spawn(move |_| async move { scrub::read_again(&again).await });
    context.child("scrub").spawn(move |_| async move { scrub::run(&handler, every, rate).await })
}

/// Starts measuring egress in every epoch.
fn measure<E, N>(context: &E, network: SharedNetwork<N>, config: &Config, view: View, node: Node)
where
    E: Spawner + Clock + CryptoRng + Resolver,
    N: Network,
{
    let (key, rate) = (config.key.clone(), config.egress_rate);
    let prober = Prober::new(context.child("prober"), network, view, node, key, rate);
    context.child("prober_task").spawn(move |_| prober.run());
}

/// Opens the reconciler's journals.
async fn journals<E>(context: &E, config: &Config) -> Result<Journals<E>, ReconcilerError>
where
    E: Spawner + Clock + Storage + Metrics,
{
    let partition = &config.partition;
    let finds = Finds::open(context.child("finds"), &format!("{partition}-finds")).await?;
    let ends = Ends::open(context.child("ends"), &format!("{partition}-ends")).await?;
    Ok(Journals { finds, ends, left: config.left.clone() })
}

/// Follows the chain over a light connection to one node at a time; two nodes must prove an absence.
async fn follow<E, N>(context: &E, network: &SharedNetwork<N>, config: &Config, view: View) -> Node
where
    E: Spawner + Clock + Storage + Metrics + CryptoRng + Resolver,
    N: Network,
{
    let light = Light::new(config.chain, config.network_key);
    let (dialing, key) = (context.child("connection"), config.key.clone());
    let connection = Connection::new(dialing, network.clone(), key, config.nodes.clone(), light);
    floor::keep(context.child("floor"), &connection, &format!("{}-floor", config.partition)).await;
    let learned = format!("{}-known", config.partition);
    known::keep(context.child("known"), vec![connection.clone()], &learned, None).await;
    Node::start(context.child("follower"), connection, config.key.clone(), view)
}

fn held<B: commonware_runtime::Blob>(store: &Store<B>) -> Held {
    let store = store.clone();
    Arc::new(move |agreement, shard| store.length(shard).filter(|_| store.holds(agreement, shard)))
}

async fn listen<E, N, B>(
    context: &E,
    network: &N,
    config: &Config,
    handler: Arc<Handler<E, B>>,
) -> Result<channel::Listening, channel::Error>
where
    E: Spawner + Clock + CryptoRng + Resolver,
    N: Network,
    B: commonware_runtime::Blob,
{
    let server = Server::<rpc::Provider, _>::new(move |call, ask| {
        let handler = handler.clone();
        async move { handler.handle(call, ask).await }
    });
    let listen = Listen::new(config.key.clone(), rpc::Provider::NAMESPACE, config.listen);
    server.listen(context.child("listen"), network, listen).await
}

/// Maps the end of a part to an error: its own, a missing one, or a panic.
fn over<T>(what: &'static str, ended: Result<Result<(), T>, commonware_runtime::Error>) -> Result<(), Error>
where
    Error: From<T>,
{
    match ended {
        Ok(Ok(())) => Err(Error::Task(what, commonware_runtime::Error::Closed)),
        Ok(Err(error)) => Err(error.into()),
        Err(error) => Err(Error::Task(what, error)),
    }
}
