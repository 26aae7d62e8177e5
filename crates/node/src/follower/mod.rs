//! A node without a seat: follows the chain over the node service, runs every block, serves reads.
//!
//! ```text
//!                 certified headers, bodies                     proofs, headers, bodies, receipts
//!  upstream nodes ────────────► source ──► engine::follow ──► handle ──► serve ──────► clients
//!        ▲                                                                 │
//!        └──────────────────────── relay ◄──────── operations ─────────────┘
//! ```
//!
//! It has no vote, no share of the network key and no peer-to-peer address; its key only names it. It checks
//! everything that it fetches under the network key of its genesis, and runs each block by the same rules as
//! an authority, so a client needs no authority: it may ask a node without a seat, and so may another one.
//!
//! A node without state takes that of a recent block from the upstream nodes ([`state`]); its receipts and events
//! begin there. An archive runs all blocks from genesis on, so it needs an upstream archive at its first start.

mod relay;
pub(crate) mod source;
pub(crate) mod state;

pub use relay::{RELAYED_PER_CALLER, RELAYED_PER_ORIGIN, Relay};

use crate::{
    config::{ConfigError, lock},
    engine::{self, FollowerParts, PrivateKey, Runtime},
    genesis::Genesis,
    guard::guarded,
    handle::Handle,
    run::{ROOM_LOW, RunError, STACK_BYTES, room, watch_room, workers},
    serve::{Intake, Serving, listen},
    steady::Steady,
};
use commonware_cryptography::Signer as _;
use commonware_macros::select;
use commonware_runtime::{
    Handle as Task, Network, Resolver, Runner as _, Spawner as _, Supervisor as _, tokio,
};
use futures::FutureExt as _;
use posync_client::{
    connection::{Connection, Endpoint},
    descriptors, known,
    light::Light,
};
use posync_protocol::Account;
use state::Origin;
use std::{num::NonZeroUsize, path::PathBuf, sync::Arc};

/// Prefix of the partitions of a node without a seat: never those of an authority.
const PREFIX: &str = "follower";

/// The settings of a node without a seat.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Genesis of the network: its hash and its network key decide what is believed.
    pub genesis: Arc<Genesis>,
    /// Key of the node service.
    pub key: PrivateKey,
    /// Nodes that are followed, one at a time; any node of the network will do. An entry with this node's own
    /// account is ignored.
    pub upstream: Vec<Endpoint>,
    /// Address at which clients reach the node service.
    pub listen: std::net::SocketAddr,
    /// Pages of 4 KiB that the storage cache holds.
    pub page_cache_pages: usize,
    /// If true, all blocks are run and nothing is pruned, and other archives can start from this one.
    pub archive: bool,
    /// Most blocks that a node without state runs itself; an archive, or with `u64::MAX`, all.
    pub replayed_max: u64,
    /// True if the network is private: then callers of any address are dialled back.
    pub private: bool,
}

/// The nodes to follow: all but the node itself.
///
/// # Errors
/// [`RunError::NoUpstream`].
fn others(key: &PrivateKey, mut upstream: Vec<Endpoint>) -> Result<Vec<Endpoint>, RunError> {
    let own = Account::of(&key.public_key());
    upstream.retain(|node| node.account != own);
    if upstream.is_empty() { Err(RunError::NoUpstream) } else { Ok(upstream) }
}

/// Runs beside the node; receives the runtime and the node's handle once its state is readable.
pub type Beside<E> = Box<dyn FnOnce(E, Handle) + Send>;

/// Runs a node without a seat in `directory`, until it fails.
///
/// # Errors
/// [`RunError`]: the directory or the address cannot be used, or a part of the node ended.
pub fn follow(
    directory: PathBuf,
    mut settings: Settings,
    beside: Beside<tokio::Context>,
) -> Result<(), RunError> {
    settings.upstream = others(&settings.key, settings.upstream)?;
    let at = |source| ConfigError::File { path: directory.clone(), source };
    std::fs::create_dir_all(&directory).map_err(at)?;
    let _lock = lock(&directory)?;
    descriptors::require(descriptors::MEMBER)?;
    let room = room(&directory);
    if room < ROOM_LOW {
        return Err(RunError::Full(room));
    }
    let runtime = tokio::Config::new()
        .with_storage_directory(directory.join("storage"))
        .with_tcp_nodelay(Some(true))
        .with_worker_threads(workers())
        .with_thread_stack_size(STACK_BYTES)
        .with_catch_panics(false);
    let run = guarded(|| {
        tokio::Runner::new(runtime).start(|context| async move {
            let networks = (context.child("dialing"), context.child("listening"));
            let machine = context.child("beside");
            // What runs beside the node measures the machine's clock.
            let beside: Beside<Steady<tokio::Context>> = Box::new(move |_, handle: Handle| {
                let watched = handle.clone();
                // The task lives as long as the node, even without its handle.
                drop(machine.child("room").spawn(move |context| watch_room(context, directory, watched)));
                beside(machine, handle);
            });
            run(Steady::of_machine(context), networks, PREFIX.into(), settings, beside).await
        })
    });
    run.unwrap_or_else(|cause| Err(RunError::Follower(cause)))
}

/// Runs a node without a seat over any runtime, dialling and listening on these networks, until it fails.
///
/// # Errors
/// As [`follow`].
pub async fn run<E: Runtime + Resolver, N: Network>(
    context: E,
    (dialing, network): (N, N),
    prefix: String,
    settings: Settings,
    beside: Beside<E>,
) -> Result<(), RunError> {
    let Settings {
        genesis,
        key,
        upstream,
        listen: address,
        page_cache_pages,
        archive,
        replayed_max,
        private,
    } = settings;
    let upstream = others(&key, upstream)?;
    let light = Light::new(genesis.chain(), genesis.network_key());
    let connection =
        Connection::new(context.child("upstream"), dialing, key.clone(), upstream.clone(), light);
    let learned = format!("{prefix}-known");
    known::keep(
        context.child("known"),
        vec![connection.clone()],
        &learned,
        Some(Account::of(&key.public_key())),
    )
    .await;
    let replayed_max = (!archive && replayed_max < u64::MAX).then_some(replayed_max);
    let origin = Origin::new(context.child("origin"), connection.clone(), &upstream, replayed_max);
    let relay = Relay::new(context.child("relay"), genesis.chain(), connection.clone());
    let parts = FollowerParts {
        genesis,
        key: key.clone(),
        prefix,
        page_cache_pages: NonZeroUsize::new(page_cache_pages).unwrap_or(NonZeroUsize::MIN),
        archive,
        origin: origin.clone(),
    };
    let (running, store) = select! {
        started = engine::follow(context.child("engine"), parts) => started,
        () = origin.lost() => return Err(RunError::StateGone),
    };
    let handle = running.handle;
    let serving = Serving { key, address, private };
    let service = listen(&context, Arc::new(network), serving, &handle, Intake::Upstream(relay)).await?;
    let source = context.child("source").spawn({
        let handle = handle.clone();
        move |context| source::run(context, connection, handle, store)
    });
    beside(context.child("beside"), handle);
    let (actors, versions) = (Task::select(running.actors).fuse(), running.versions);
    select! {
        unknown = versions.ended() => Err(unknown.into()),
        ended = source => match ended {
            Ok(Ok(())) => Err(RunError::Follower("its source of blocks".into())),
            Ok(Err(forked)) => Err(forked.into()),
            Err(error) => Err(RunError::Follower(format!("its source of blocks: {error}"))),
        },
        part = service => Err(RunError::Follower(part.into())),
        ended = actors => Err(RunError::Follower(format!("its block store or state: {ended:?}"))),
    }
}
