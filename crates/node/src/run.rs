//! The two instantiations of the engine: sockets and disks, and the deterministic runtime.
//!
//! Everything generic is compiled here, once for each. Callers pass in the differences (a directory, or an
//! oracle and a prefix) and a [`Services`] function, which receives the node's handle and channel 8.

use crate::{
    config::{Config, ConfigError},
    engine::{self, Parts, PrivateKey, PublicKey, Transport, channels},
    epoch::Secrets,
    follower::source::Forked,
    genesis::Genesis,
    guard::guarded,
    handle::{Handle, Operations},
    own_key::{OwnKey, Refusal, Word},
    repair::{Damage, Repair, WISH},
    rules::UnknownRules,
    silence,
    steady::{Anchor, ClockWatch, News, Steady, is_lost},
};
use commonware_cryptography::{ChaCha20Poly1305, Signer as _};
use commonware_p2p::{
    authenticated::lookup,
    simulated::{self, Oracle},
};
use commonware_runtime::{
    Blob as _, Clock as _, Handle as Task, Runner as _, Spawner as _, Storage as _, Supervisor as _,
    deterministic, tokio,
};
use commonware_stream::{
    cups::{self, Cups},
    sake::{self, Sake},
};
use commonware_utils::sync::Mutex;
use commonware_utils::{NZU32, NZUsize};
use futures::{
    FutureExt as _,
    future::{BoxFuture, Either, select},
};
use posync_client::{
    channel,
    descriptors::{self, TooFew},
    volume, watch,
};
use posync_protocol::{limits::PEER_SKEW_MS_MAX, rules::Rules};
use rustix::io::Errno;
use std::{
    fs::{self, File},
    io::{self, Write as _},
    net::{SocketAddr, TcpListener},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use thiserror::Error;

/// Stack of a worker thread: the engine's futures are large in builds without optimisation.
pub(crate) const STACK_BYTES: usize = 8 << 20;
/// Lower bound on the worker threads.
const WORKERS_MIN: usize = 2;

/// Number of worker threads of a role: as many as the machine runs at once, but enough that one that waits
/// for the disk does not block all others.
pub fn workers() -> usize {
    std::thread::available_parallelism().map_or(WORKERS_MIN, NonZeroUsize::get).max(WORKERS_MIN)
}

/// Why a node ended.
#[derive(Debug, Error)]
pub enum RunError {
    /// The node's directory cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The process may not open as many files as the node needs.
    #[error(transparent)]
    TooFew(#[from] TooFew),
    /// The node service cannot listen at its address.
    #[error("the node service cannot start: {0}")]
    Service(#[from] channel::Error),
    /// The node cannot listen for the other authorities.
    #[error(
        "the node cannot listen to the other authorities at {0}: {1}; end what holds the address, or wait until \
         this machine has it"
    )]
    Peers(SocketAddr, std::io::Error),
    /// A part of the node ended.
    #[error("a part of the node ended: {0}; the reason is above, start the node again")]
    Ended(String),
    /// A part of the node ended before the node had applied a new block.
    #[error(
        "a part of the node ended soon after its start: {0}; start it again. If this authority alone ends so at \
         each start, its state may be damaged: make an empty file named {WISH} in its directory, and the next \
         start sets the state aside and takes it from the other authorities"
    )]
    Stuck(String),
    /// The machine refused what the node needs, which says nothing about its state.
    #[error(
        "the node cannot use its files or start its threads: {0}; nothing is wrong with its state, and nothing of it was \
         moved. See that the user of this role owns all files below `storage` and `secrets`, that their volume is \
         mounted, takes writes and answers without errors, and that the limits of the process (open files, threads, memory) are high enough; then \
         start it again"
    )]
    Refused(String),
    /// The node's own time is far from that of its network, which runs on without it.
    #[error(
        "the clock of this machine was set by {0} seconds since the node's start, and no block became final here \
         for a minute: the node ends, because it takes the time from the clock only when it starts; see that a time \
         service sets the clock, and start the node again if its supervisor does not"
    )]
    Clock(i64),
    /// Another process signs with the node's key, or the node's directory is an old copy.
    #[error("the node in {0} ends: {1}")]
    SecondSigner(PathBuf, Refusal),
    /// The network follows rules that this program does not know.
    #[error(transparent)]
    UnknownRules(#[from] UnknownRules),
    /// A node without a seat has no upstream node.
    #[error(
        "this node has no other node to follow; name at least one other node of the network, with its account"
    )]
    NoUpstream,
    /// The chain of the upstream nodes is not the one that this node holds.
    #[error(transparent)]
    Forked(#[from] Forked),
    /// The state that a node without a seat was taking is too old by now.
    #[error(
        "no upstream node keeps the state any more that this node was taking: start it again, and it takes a newer one; if \
         that happens again, its line is too slow for the state, or this machine for its disk"
    )]
    StateGone,
    /// A part of a node without a seat ended.
    #[error(
        "a part of the node ended: {0}; start it again. If it ends so at each start, its storage may be damaged: move \
         `storage` in its directory away, and the next start takes every block from the upstream nodes again"
    )]
    Follower(String),
    /// The volume is too full to start.
    #[error(
        "the node cannot start: only {0} bytes are free on the volume of its directory, or on that of `storage` in it; make \
         room and start it again"
    )]
    Full(u64),
}

/// Runs beside the engine; receives the runtime, the node's handle and the mempool's channel.
pub(crate) type Services<E, S, R, T = ()> =
    Box<dyn FnOnce(E, Handle, (S, R)) -> BoxFuture<'static, T> + Send>;
/// Services over sockets; their error ends the node.
pub type TokioServices = Services<
    tokio::Context,
    lookup::Sender<PublicKey, Steady<tokio::Context>>,
    lookup::Receiver<PublicKey>,
    Result<(), RunError>,
>;
/// Services on the deterministic runtime.
pub type SimServices = Services<
    deterministic::Context,
    simulated::Sender<PublicKey, deterministic::Context>,
    simulated::Receiver<PublicKey>,
>;

/// Runs the authority of an opened directory until `services` returns, which stops it.
///
/// Unusable state is set aside and fetched again from the other authorities ([`crate::repair`]).
///
/// # Errors
/// [`RunError`]: the directory cannot be used, or a part of the node ended first.
pub fn run_tokio(
    config: Config,
    operations: Arc<dyn Operations>,
    services: TokioServices,
) -> Result<(), RunError> {
    let limit = descriptors::require(descriptors::MEMBER)?;
    tracing::debug!(limit, "files that this node may have open");
    let repair = Repair::new(&config.directory, &config.secrets);
    repair.before_start()?;
    let start = Start { services: Mutex::new(Some(services)), applied: Mutex::new(None) };
    can_listen(config.settings.listen)?;
    let mut damages = [Damage::State, Damage::Votes].into_iter();
    loop {
        let runtime = tokio::Config::new()
            .with_storage_directory(config.directory.join("storage"))
            .with_tcp_nodelay(Some(true))
            .with_worker_threads(workers())
            .with_thread_stack_size(STACK_BYTES)
            .with_catch_panics(false);
        let run = guarded(|| {
            tokio::Runner::new(runtime)
                .start(|context| serve(context, &config, &repair, operations.clone(), &start))
        });
        let cause = match run {
            // It has begun nothing that must end: it takes the time again by itself.
            Ok(Err(RunError::Clock(seconds))) if start.has_services() => {
                tracing::warn!(
                    seconds,
                    "the clock of this machine was set by that many seconds while the node waited for its state: it \
                     begins anew with the time that the clock shows now"
                );
                can_listen(config.settings.listen)?;
                continue;
            }
            Ok(ended) => return ended,
            Err(cause) => cause,
        };
        // The engine's listener panics if it cannot listen, and that panic is no damage.
        can_listen(config.settings.listen)?;
        let room = room(&config.directory);
        if room < ROOM_LOW {
            return Err(RunError::Full(room));
        }
        if names(&cause, &REFUSALS)
            || names(&cause, &AWAY) && !takes_writes(&config.directory.join("storage"))
        {
            return Err(RunError::Refused(cause));
        }
        if start.has_services()
            && let Some(damage) = damages.next()
        {
            repair.set_aside(damage, &cause)?;
        } else if start.has_progressed() {
            return Err(RunError::Ended(cause));
        } else {
            return Err(RunError::Stuck(cause));
        }
    }
}

/// Errors of the system that say nothing about the node's data: no right to a file, a read-only volume, or too few
/// descriptors, threads or memory. The runtime ends by a panic for each.
const REFUSALS: [Errno; 8] = [
    Errno::PERM,
    Errno::ACCESS,
    Errno::ROFS,
    Errno::NFILE,
    Errno::MFILE,
    Errno::AGAIN,
    Errno::NOMEM,
    Errno::DQUOT,
];

/// Errors of one bad place on a disk, or of a disk that is away. A disk that still takes writes has a bad place.
const AWAY: [Errno; 5] = [Errno::IO, Errno::NXIO, Errno::NODEV, Errno::STALE, Errno::TIMEDOUT];

/// True if the text of a panic names one of these errors.
fn names(cause: &str, errors: &[Errno]) -> bool {
    let codes = cause.split("os error ").skip(1).map(|rest| {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        rest[..digits].parse::<i32>()
    });
    codes.flatten().any(|code| errors.iter().any(|error| error.raw_os_error() == code))
}

/// True if the volume of this directory keeps a small file durably.
fn takes_writes(directory: &Path) -> bool {
    let path = directory.join(".written");
    let write = |mut file: File| file.write_all(b"posync").and_then(|()| file.sync_all());
    let written = File::create(&path).and_then(write);
    // One that stays says nothing, and the next one replaces it.
    let _ = fs::remove_file(&path);
    written.is_ok()
}

/// Checks that the node can listen at that address.
fn can_listen(address: SocketAddr) -> Result<(), RunError> {
    TcpListener::bind(address).map(drop).map_err(|error| RunError::Peers(address, error))
}

/// The progress of a start.
struct Start {
    /// Present until the state is readable.
    services: Mutex<Option<TokioServices>>,
    /// Present from then on: the height applied at that time, and a receiver that follows it.
    applied: Mutex<Option<(u64, watch::Receiver<u64>)>>,
}

impl Start {
    fn has_services(&self) -> bool {
        self.services.lock().is_some()
    }

    fn has_progressed(&self) -> bool {
        let applied = self.applied.lock();
        applied.as_ref().is_some_and(|(before, now)| *now.borrow() > *before)
    }
}

async fn serve(
    context: tokio::Context,
    config: &Config,
    repair: &Repair<'_>,
    operations: Arc<dyn Operations>,
    start: &Start,
) -> Result<(), RunError> {
    let anchor = Anchor::now();
    let steady = Steady::new(context.child("steady"), anchor);
    let (mut network, oracle) = lookup::Network::new(steady.child("network"), network_config(config));
    let channels =
        channels::ENGINE.map(|channel| network.register(channel, engine::quota_of(channel))).into();
    let mempool = network.register(channels::MEMPOOL, engine::quota_of(channels::MEMPOOL));
    let transport = Transport { manager: oracle.clone(), blocker: oracle, channels };
    let network_task = network.start();
    let parts = Parts {
        state_sync: repair.needs_state(),
        word: config.word,
        rules: Rules::KNOWN,
        genesis: Arc::new(config.genesis.clone()),
        key: config.key.clone(),
        secrets: config.secrets.clone(),
        operations,
        quiet_ms: config.settings.quiet_ms,
        prefix: "posync".into(),
        archive: config.settings.archive,
        page_cache_pages: NonZeroUsize::new(config.settings.page_cache_pages).unwrap_or(NonZeroUsize::MIN),
    };
    let starting = engine::start(steady.child("engine"), parts, transport);
    let mut running = match select(Box::pin(starting), Box::pin(watch_start(&context, anchor))).await {
        Either::Left((running, _)) => running,
        Either::Right((step, _)) => return Err(RunError::Clock(step)),
    };
    repair.started()?;
    let handle = running.handle;
    *start.applied.lock() = Some((handle.applied(), handle.heights()));
    let services = start.services.lock().take();
    let services = services.expect("the state becomes readable once");
    let (directory, watched) = (config.directory.clone(), handle.clone());
    let room = context.child("room").spawn(move |context| watch_room(context, directory, watched));
    let (watched, own_key) = (handle.clone(), running.own_key.clone());
    let clock = context.child("clock").spawn(move |context| watch_clock(context, anchor, watched, own_key));
    running.actors.extend([network_task, room]);
    let services = services(context.child("services"), handle, mempool);
    let ended = Task::select(running.actors).map(|result| Err(RunError::Ended(format!("{result:?}"))));
    let lost = clock.map(|step| {
        Err(step.map_or_else(|error| RunError::Ended(format!("its clock: {error}")), RunError::Clock))
    });
    let ended = select(Box::pin(ended), lost).map(|first| first.factor_first().0);
    let own_key = running.own_key;
    let refused = own_key.refused().map(|why| Err(RunError::SecondSigner(config.directory.clone(), why)));
    let ended = select(ended, Box::pin(refused)).map(|first| first.factor_first().0);
    let versions = running.versions;
    let unknown = versions.ended().map(|why| Err(RunError::UnknownRules(why)));
    let ended = select(ended, Box::pin(unknown)).map(|first| first.factor_first().0);
    select(ended, services).await.factor_first().0
}

/// Free bytes, as [`room`] counts them, below which the node stops taking part in consensus, and from which it resumes.
/// The blocks that it has begun when it stops, 16 at most, still fit.
pub(crate) const ROOM_LOW: u64 = 32 << 20;
const ROOM_AGAIN: u64 = 48 << 20;
/// Time between two checks: of the volume here, of the clock below.
const ROOM_LOOK: Duration = Duration::from_secs(1);
const CLOCK_LOOK: Duration = Duration::from_secs(2);

/// True if a node with `free` bytes may take part; `takes_part` says if it does so now.
const fn has_room(free: u64, takes_part: bool) -> bool {
    free >= if takes_part { ROOM_LOW } else { ROOM_AGAIN }
}

/// Bytes that a node may still write: `storage` in its directory may be a volume of its own, and then the fuller one counts.
pub(crate) fn room(directory: &Path) -> u64 {
    least([volume::free(directory), volume::free(&directory.join("storage"))])
}

/// The least of the free bytes of two volumes. A volume that cannot be queried does not count as full.
fn least(volumes: [io::Result<u64>; 2]) -> u64 {
    volumes.into_iter().flatten().min().unwrap_or(u64::MAX)
}

/// Stops the node's part in consensus before a volume is full, and resumes it when there is room.
pub(crate) async fn watch_room(context: tokio::Context, directory: PathBuf, handle: Handle) {
    loop {
        let free = room(&directory);
        let (before, now) = (handle.taking().is_on(), has_room(free, handle.taking().is_on()));
        if now != before {
            handle.taking().set(now);
            if now {
                tracing::warn!(free, "there is room on the volume again: this node takes part again");
            } else {
                tracing::error!(
                    free,
                    "the volume of {} or of `storage` in it is nearly full: this node stops taking part, so that \
                     nothing breaks, and serves what it has; make room, and it goes on by itself",
                    directory.display()
                );
            }
        }
        context.sleep(ROOM_LOOK).await;
    }
}

/// Time between two lines about a state that is not there yet.
const WAITING_LOGGED: Duration = Duration::from_secs(60);

/// Logs that the node has no state yet, at intervals, and when the machine's clock is set meanwhile. Once the node must
/// begin anew to take the time again, it returns the seconds by which the clock was set: the others refuse a node whose
/// time is hours off, however right its machine's clock is by now.
async fn watch_start(context: &tokio::Context, anchor: Anchor) -> i64 {
    let (mut watch, began, mut logged) = (ClockWatch::default(), Instant::now(), Duration::ZERO);
    loop {
        context.sleep(CLOCK_LOOK).await;
        let (step, waited) = (anchor.step(), began.elapsed());
        if let Some(news) = watch.step(step) {
            news.log();
        }
        if is_lost(step, waited) {
            return step;
        }
        if waited >= logged + WAITING_LOGGED {
            logged = waited;
            tracing::warn!(
                seconds = waited.as_secs(),
                "this node has no state yet, serves nothing and signs nothing: it waits for the other authorities. See \
                 that most of them run, that this machine reaches them, that no other process runs with this key (each \
                 hears one connection of a key), and that this machine's clock is right (compare with `date -u`): they \
                 refuse a clock that is two hours off; set it, and the node goes on by itself"
            );
        }
    }
}

/// Logs when the machine's clock is set, or is far from the time of the others' blocks. Once the node must
/// restart to take the time again, it returns the seconds by which the clock was set.
async fn watch_clock(context: tokio::Context, anchor: Anchor, handle: Handle, own_key: OwnKey) -> i64 {
    let pace = Duration::from_millis(handle.genesis().parameters.block_ms) / 2;
    let mut watch = ClockWatch::default();
    let (mut height, mut since) = (handle.applied(), Instant::now());
    loop {
        context.sleep(CLOCK_LOOK).await;
        let (applied, step) = (handle.applied(), anchor.step());
        let mut news = vec![watch.step(step)];
        // Faster blocks are old ones from the backlog, and their time is not the present.
        let is_live = applied > height && since.elapsed() / (applied - height) as u32 >= pace;
        if is_live && let Some(header) = handle.header(applied).await {
            news.push(watch.block(Anchor::ahead_of(header.time_ms)));
        }
        news.push(own_key.ahead_of_peers().and_then(|ahead| watch.peers(ahead.saturating_add(step))));
        // A node that takes no part for lack of room gets no blocks, whatever its clock shows.
        if applied > height || !handle.taking().is_on() {
            (height, since) = (applied, Instant::now());
        }
        news.into_iter().flatten().for_each(News::log);
        handle.set_clock(watch.clock());
        // Time in which the machine was suspended does not count as silence of the others.
        if is_lost(step, since.elapsed()) {
            return step;
        }
    }
}

/// Time between two blocks below which peers are looked for as often as on one machine.
const FAST_BLOCK_MS: u64 = 500;
/// Longest time between two connections of one peer.
const COOLDOWN_MAX: Duration = Duration::from_secs(5);

pub(crate) type Handshake = Cups<Sake<PrivateKey>, ChaCha20Poly1305>;

/// The handshake of two authorities whose clocks differ by at most `skew_ms`.
pub(crate) const fn handshake(key: PrivateKey, skew_ms: u64) -> Handshake {
    let bound = Duration::from_millis(skew_ms);
    let sake =
        Sake { signer: key, synchrony_bound: bound, max_handshake_age: bound, version: sake::Version::V1 };
    Cups::new(sake, cups::Version::V1)
}

fn network_config(config: &Config) -> lookup::Config<Handshake> {
    // Keys decide: a clock that is an hour off excludes no authority.
    let handshake = handshake(config.key.clone(), PEER_SKEW_MS_MAX);
    let namespace = [b"posync/p2p/1".as_slice(), &config.genesis.chain()].concat();
    // A network with fast blocks finds its peers as fast; who may be dialled is a setting of its own.
    let is_fast = config.genesis.parameters.block_ms < FAST_BLOCK_MS;
    let make = if is_fast { lookup::Config::local } else { lookup::Config::recommended };
    let mut network = make(
        handshake,
        &namespace,
        config.settings.listen,
        engine::PEERS_MAX,
        engine::message_bytes_max(),
        NZUsize!(1_024),
    );
    network.allow_private_ips = config.settings.private;
    // Failed dials count, too: a restarted authority must not wait a minute for a peer that just tried it.
    network.peer_connection_cooldown = network.peer_connection_cooldown.min(COOLDOWN_MAX);
    network.ping_frequency = silence::PING_EVERY;
    network.tracked_peer_sets = engine::PEER_SETS;
    // Each handshake takes a file descriptor, and those are counted.
    network.max_concurrent_handshakes = NZU32!(descriptors::PEER_HANDSHAKES);
    network
}

/// An authority on the deterministic runtime. Its fields and its storage survive a crash.
#[derive(Clone)]
pub struct SimNode {
    /// Genesis of the network that it joins.
    pub genesis: Arc<Genesis>,
    /// Private key of the authority.
    pub key: PrivateKey,
    /// Store of its shares of the network key.
    pub secrets: Secrets,
    /// Prefix of its partitions. A new prefix and empty secrets make a wiped node.
    pub prefix: String,
    /// Source of operations for its proposals.
    pub operations: Arc<dyn Operations>,
    /// Milliseconds between its blocks while no operation waits, if that is more than `block_ms`.
    pub quiet_ms: u64,
    /// The operator's word that no other process uses the key.
    pub other_stopped: bool,
    /// Versions of the rules that its program knows.
    pub rules: Rules,
    /// Milliseconds by which its clock is ahead of virtual time; negative if behind.
    pub clock_ahead_ms: i64,
}

/// A running simulated authority; abort `task` to crash it.
pub struct SimRunning {
    /// Resolves to the node's handle once its state is readable.
    pub handle: commonware_utils::channel::oneshot::Receiver<Handle>,
    /// Resolves to the node's right to sign at the same time.
    pub own_key: commonware_utils::channel::oneshot::Receiver<OwnKey>,
    /// Resolves if the node ended because its key signs elsewhere.
    pub refused: commonware_utils::channel::oneshot::Receiver<Refusal>,
    /// Resolves if the node ended before rules that it does not know.
    pub unknown: commonware_utils::channel::oneshot::Receiver<UnknownRules>,
    /// Parent of all its tasks.
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
    let (key_sender, own_key_receiver) = commonware_utils::channel::oneshot::channel();
    let (refusal, refused) = commonware_utils::channel::oneshot::channel();
    let (rules, unknown) = commonware_utils::channel::oneshot::channel();
    let task = context.spawn(|context| {
        async move {
            let control = oracle.control(node.key.public_key());
            let mut channels = Vec::new();
            for channel in channels::ENGINE.into_iter().chain([channels::MEMPOOL]) {
                let pair = control.register(channel, engine::quota_of(channel)).await;
                channels.push(pair.expect("the simulated network outlives its nodes"));
            }
            let mempool = channels.pop().expect("the mempool's channel was just registered");
            let transport = Transport { manager: oracle.socket_manager(), blocker: control, channels };
            let parts = Parts {
                state_sync: needs_state(&context, &node).await,
                word: Word { other_stopped: node.other_stopped, agreed: None },
                rules: node.rules,
                genesis: node.genesis,
                key: node.key,
                secrets: node.secrets,
                operations: node.operations,
                quiet_ms: node.quiet_ms,
                prefix: node.prefix,
                archive: false,
                page_cache_pages: NZUsize!(1_024),
            };
            let engine = Steady::shifted(context.child("engine"), node.clock_ahead_ms);
            let running = engine::start(engine, parts, transport).await;
            let _ = key_sender.send(running.own_key.clone());
            let services = services(context.child("services"), running.handle.clone(), mempool);
            let _ = sender.send(running.handle);
            let ended = Task::select(running.actors).map(|_| ());
            let refused = async {
                let _ = refusal.send(running.own_key.refused().await);
            };
            let unknown = async {
                let _ = rules.send(running.versions.ended().await);
            };
            let ended = select(Box::pin(ended), Box::pin(refused)).map(|_| ());
            let ended = select(ended, Box::pin(unknown)).map(|_| ());
            let _ = select(ended, services).await;
        }
        .boxed()
    });
    SimRunning { handle, own_key: own_key_receiver, refused, unknown, task }
}

/// As [`Repair::before_start`] on a disk: sets the shares of a node aside whose storage is lost. True if the
/// node has to fetch its state from the others.
async fn needs_state(context: &deterministic::Context, node: &SimNode) -> bool {
    const STORED: &str = "simulated storage does not fail";
    let begun = format!("{}-begun", node.prefix);
    if context.scan(&begun).await.is_err() {
        if node.secrets.has_run() {
            node.secrets.set_shares_aside(Path::new("")).expect(STORED);
        }
        let (blob, _) = context.open(&begun, b"begun").await.expect(STORED);
        blob.sync().await.expect(STORED);
    }
    node.secrets.begin();
    !node.secrets.has_share()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_device_is_damage_only_if_the_volume_takes_writes() {
        assert!(names("read failed: Input/output error (os error 5)", &AWAY));
        assert!(!names("checksum mismatch", &AWAY));
        let home = tempfile::tempdir().expect("a directory");
        assert!(takes_writes(home.path()));
        assert_eq!(fs::read_dir(home.path()).expect("there").count(), 0, "nothing is left");
        assert!(!takes_writes(&home.path().join("not mounted")));
        assert!(!takes_writes(Path::new("/proc")), "a volume that takes none");
    }

    #[test]
    fn one_worker_that_waits_for_the_disk_does_not_block_all_others() {
        let machine = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        assert!(workers() >= 2 && workers() >= machine);
    }

    #[test]
    fn a_node_stops_before_its_volume_is_full_and_goes_on_with_room_to_spare() {
        assert!(has_room(ROOM_LOW, true) && !has_room(ROOM_LOW - 1, true));
        assert!(has_room(ROOM_AGAIN, false) && !has_room(ROOM_AGAIN - 1, false), "it does not flap");
    }

    #[test]
    fn the_fuller_of_two_volumes_counts_and_one_that_does_not_answer_is_not_full() {
        let fails = || Err(io::ErrorKind::NotFound.into());
        assert_eq!((least([Ok(3), Ok(5)]), least([Ok(5), Ok(3)])), (3, 3));
        assert_eq!((least([fails(), Ok(5)]), least([Ok(5), fails()])), (5, 5));
        assert_eq!(least([fails(), fails()]), u64::MAX);
    }

    /// Nothing can be written to `/proc`, which has no free byte.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_node_whose_storage_is_a_full_volume_has_no_room() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(room(directory.path()) > 0, "`storage` is not there before the first start");
        std::os::unix::fs::symlink("/proc", directory.path().join("storage")).expect("writable");
        assert_eq!(room(directory.path()), 0);
    }

    #[test]
    fn what_the_machine_refuses_is_no_damage_of_the_state() {
        for refused in [
            "OS can't spawn worker thread: Resource temporarily unavailable (os error 11)",
            "failed to acquire storage directory hold: Permission denied (os error 13)",
            "opened 3 blobs (os error 5), then: Too many open files (os error 24)",
            "Read-only file system (os error 30)",
        ] {
            assert!(names(refused, &REFUSALS), "{refused}");
        }
        for damage in
            ["", "checksum mismatch", "Input/output error (os error 5)", "os error", "os error 111)"]
        {
            assert!(!names(damage, &REFUSALS), "{damage}");
        }
    }
}
