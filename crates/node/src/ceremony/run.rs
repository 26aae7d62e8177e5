//! Runs the ceremony of one member over real sockets and disks, from the first announcement to the signed genesis.

use super::{
    CeremonyError, Draft, PREFIX,
    attempt::Attempt,
    home::{Home, Opened},
    presence::Announcement,
};
use crate::{
    engine::{Gated, PublicKey, Taking, Variant, channels, quota},
    epoch::{Directory, Peers, Weights},
    genesis::Genesis,
    guard::guarded,
    run::{Handshake, STACK_BYTES, handshake, workers},
    steady::{Anchor, Steady},
};
use commonware_codec::Encode as _;
use commonware_consensus::types::Epoch;
use commonware_cryptography::bls12381::{
    dkg::feldman_desmedt::Reveal,
    primitives::sharing::{Mode, ModeVersion},
};
use commonware_glue::dkg::{
    bootstrap::{self, Completion, Engine},
    network::Manager as _,
};
use commonware_macros::select;
use commonware_p2p::{
    Receiver as _, Recipients, Sender as _, TrackedPeers, authenticated::lookup, max_message_size,
};
use commonware_parallel::Sequential;
use commonware_runtime::{
    Clock as _, Handle as Task, Metrics as _, Quota, Runner as _, Supervisor as _,
    buffer::paged::{CacheRef, page_size},
    tokio,
};
use commonware_utils::{NZDuration, NZU32, NZU64, NZUsize, channel::oneshot};
use posync_client::descriptors;
use std::{
    net::{SocketAddr, TcpListener},
    num::{NonZeroU32, NonZeroU64, NonZeroUsize},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Namespace of the connections. It lacks the id of the draft, so that members with different drafts can
/// still connect, and name the difference.
const NAMESPACE: &[u8] = b"posync/ceremony/1";
/// Channel of the announcements; no engine uses it.
const ANNOUNCEMENTS: u64 = 16;
/// Channels of the engine, in the order of its arguments.
const ENGINE: [u64; 6] = [
    channels::VOTES,
    channels::CERTIFICATES,
    channels::RESOLVER,
    channels::BACKFILL,
    channels::BROADCAST,
    channels::RESHARE,
];
/// Most milliseconds by which clocks may differ at a handshake: no bound. Keys decide, and a clock that is wrong, by a
/// day or because a battery is empty, must be named and not be a silence.
const SKEW_MS_MAX: u64 = u64::MAX;
/// Time between two looks at the state of the ceremony.
const TICK: Duration = Duration::from_millis(100);
/// Buffers of the chain's files, in bytes; the whole chain has a few hundred kilobytes.
const BUFFER: NonZeroUsize = NZUsize!(65_536);

type Context = Steady<tokio::Context>;
type Channel = (lookup::Sender<PublicKey, Context>, lookup::Receiver<PublicKey>);
type Outcome = oneshot::Receiver<Completion<Variant, Directory>>;

/// Settings of one member's part in a ceremony.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address on which this member listens for the others.
    pub listen: SocketAddr,
    /// Time after which a member that has everything ends, although others have not confirmed that they do.
    pub give_up_after: Duration,
    /// Version of the program; all members need the same one.
    pub version: String,
    /// The machine's clock, in milliseconds since 1970.
    pub clock_ms: fn() -> u64,
}

impl Options {
    /// Settings with this program's version and the machine's clock.
    pub fn new(listen: SocketAddr, give_up_after: Duration) -> Self {
        let clock_ms = || millis(SystemTime::now());
        Self { listen, give_up_after, version: env!("CARGO_PKG_VERSION").into(), clock_ms }
    }
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Takes part in the ceremony of `draft` as the member in `directory`, until the genesis is signed by all.
/// `screen` shows lines to the operator. It may be killed and run again at any moment.
///
/// # Errors
/// [`CeremonyError`] says what ended the ceremony and whether the same draft can be used again.
pub fn run(
    directory: &Path,
    draft: &Draft,
    options: &Options,
    screen: &(dyn Fn(&str) + Sync),
) -> Result<Genesis, CeremonyError> {
    let home = match Home::open(directory, draft, &mut commonware_utils::sys_rng())? {
        Opened::Done(genesis) => {
            screen("this ceremony has ended here before: the genesis is in place");
            return Ok(*genesis);
        }
        Opened::Running(home) => *home,
    };
    descriptors::require(descriptors::MEMBER)?;
    TcpListener::bind(options.listen)
        .map_err(|error| CeremonyError::Listen(options.listen, error))
        .map(drop)?;
    let runtime = tokio::Config::new()
        .with_storage_directory(home.storage())
        .with_tcp_nodelay(Some(true))
        .with_worker_threads(workers())
        .with_thread_stack_size(STACK_BYTES)
        .with_catch_panics(false);
    let mut attempt = Attempt::new(home, draft, options, screen);
    let run =
        guarded(|| tokio::Runner::new(runtime).start(async |context| attend(context, &mut attempt).await));
    let home = attempt.into_home();
    match run {
        Ok(Ok(genesis)) => {
            home.finish()?;
            Ok(genesis)
        }
        Ok(Err(error)) => {
            if error.is_for_ever() {
                home.spend_this()?;
            }
            Err(error)
        }
        Err(cause) => Err(CeremonyError::Ended(cause)),
    }
}

async fn attend(context: tokio::Context, attempt: &mut Attempt<'_>) -> Result<Genesis, CeremonyError> {
    let context = Steady::new(context.child("steady"), Anchor::now());
    let draft = attempt.draft;
    let (mut network, oracle) = lookup::Network::new(context.child("network"), network_config(attempt));
    let channels = ENGINE.map(|channel| network.register(channel, quota()));
    let (mut sender, mut receiver) = network.register(ANNOUNCEMENTS, Quota::per_second(NZU32!(16)));
    let mut peers = Peers::new(oracle.clone(), Weights::default());
    let everyone = TrackedPeers::primary(draft.participants());
    let tracked = peers.track(Epoch::zero(), everyone, &draft.directory());
    tracked.expect("a draft has an address for each of its authorities");
    let _network = network.start();
    let mut dealing = Some((channels, peers, oracle));
    let (mut engine, mut outcome) = (None, None);
    let mut next = context.current();
    attempt.began(millis(next));
    loop {
        select! {
            _ = context.sleep_until(next) => {
                next = context.current() + TICK;
                let now_ms = millis(context.current());
                let height = if attempt.counts_blocks() { final_height(&context.encode()) } else { None };
                attempt.look(now_ms, height)?;
                if attempt.may_begin(now_ms) && let Some((channels, peers, oracle)) = dealing.take() {
                    attempt.begin(&mut context.child("seed")).await?;
                    let (task, waiting) = start(&context, attempt, channels, peers, oracle);
                    (engine, outcome) = (Some(task), Some(waiting));
                }
                if let Some(announcement) = attempt.announcement(now_ms) {
                    sender.send(Recipients::All, announcement.encode(), true);
                }
                if let Some(genesis) = attempt.is_over(now_ms) {
                    // Until here, the engine served those that lagged.
                    drop(engine);
                    return Ok(genesis);
                }
            },
            message = receiver.recv() => {
                let (from, bytes) = message.map_err(|error| CeremonyError::Ended(error.to_string()))?;
                attempt.hear(&from, bytes.as_ref(), millis(context.current()))?;
            },
            completion = completed(&mut outcome) => {
                attempt.take_key(completion)?;
            },
        }
    }
}

/// Height of the newest final block. The engine shows it in its metrics alone.
fn final_height(metrics: &str) -> Option<u64> {
    let mut values =
        metrics.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    let (_, height) = values.find(|(name, _)| name.ends_with("_marshal_finalized_height"))?;
    height.parse().ok()
}

/// The result of the engine, once; never without an engine.
async fn completed(outcome: &mut Option<Outcome>) -> Option<Completion<Variant, Directory>> {
    let Some(waiting) = outcome else { return futures::future::pending().await };
    let completion = waiting.await.ok();
    *outcome = None;
    completion
}

fn start(
    context: &Context,
    attempt: &Attempt<'_>,
    channels: [Channel; 6],
    manager: Peers<lookup::Oracle<PublicKey>>,
    blocker: lookup::Oracle<PublicKey>,
) -> (Task<()>, Outcome) {
    let draft = attempt.draft;
    // One name for each attempt: acknowledgements of an earlier one are signatures of another name.
    let namespace: &'static [u8] = Box::leak([NAMESPACE, &draft.id].concat().into_boxed_slice());
    let config = bootstrap::Config {
        signer: attempt.home.key.clone(),
        manager,
        blocker,
        secret_store: attempt.home.store.clone(),
        strategy: Sequential,
        namespace,
        sharing_mode: Mode::NonZeroCounter,
        reveal: Reveal::V1,
        max_supported_mode: ModeVersion::v0(),
        partition_prefix: PREFIX.into(),
        page_cache: CacheRef::new(page_size(4_096), NZUsize!(1_024)),
        write_buffer: BUFFER,
        replay_buffer: BUFFER,
        mailbox_size: NZUsize!(1_024),
        fetch_timeout: NZDuration!(Duration::from_secs(2)),
        fetch_retry_delay: Duration::from_millis(100),
        items_per_section: NZU64!(1_024),
        participants: draft.participants(),
        directory: draft.directory(),
        blocks_per_epoch: NonZeroU64::new(draft.ceremony_blocks()).expect("at least 40"),
    };
    let [(vote, votes), certificates, resolver, backfill, broadcast, dealings] = channels;
    let votes = (vote, Gated::new(votes, &attempt.valve));
    Engine::<_, Variant, _, _, _, _, _>::new(context.child("engine"), config).start(
        votes,
        certificates,
        resolver,
        backfill,
        broadcast,
        dealings,
    )
}

fn network_config(attempt: &Attempt<'_>) -> lookup::Config<Handshake> {
    let draft = attempt.draft;
    let members = u32::try_from(draft.cards.len()).expect("at most 64");
    let members = NonZeroU32::new(members).expect("a draft has authorities");
    let engine = bootstrap::max_payload_size::<Variant, Directory>(members, ModeVersion::v0());
    let mut network = lookup::Config::local(
        handshake(attempt.home.key.clone(), SKEW_MS_MAX),
        NAMESPACE,
        attempt.options.listen,
        NonZeroUsize::new(draft.cards.len() + 1).expect("one more is not zero"),
        max_message_size(&[engine, Announcement::BYTES_MAX]),
        NZUsize!(1_024),
    );
    network.allow_private_ips = draft.is_private();
    network.max_concurrent_handshakes = NZU32!(descriptors::PEER_HANDSHAKES);
    network
}

/// The switch that lets votes through; it starts closed.
pub(super) fn closed() -> Taking {
    let valve = Taking::default();
    valve.set(false);
    valve
}
