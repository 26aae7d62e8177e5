//! `posync start`: runs the role of a directory until a signal asks it to end.
//!
//! It needs no parent and reads no input. SIGTERM, SIGINT and SIGHUP end it with 0, and so does the end of a
//! provider that has left; every other end has another code and a line that says why.

use super::{
    GENESIS_FILE, announcing::Announcing, follower, on_volume::OnVolume, ports, settings::Settings, watching,
};
use crate::{
    descriptors,
    devnet::restart::Restarts,
    failure::{Exit, Failure, Outcome},
    interrupt::{Asked, cannot_listen},
    keys,
    net::{self, Net},
    network::Role,
    target,
};
use commonware_codec::{Copying, DecodeExt as _, Encode as _};
use commonware_cryptography::ed25519::PrivateKey;
use commonware_runtime::{
    Clock as _, Runner as _, Spawner as _, Supervisor as _,
    tokio::{Config, Context, Runner},
};
use posync_alert::Alerts;
use posync_client::{
    blob_header,
    channel::SharedNetwork,
    connection::Endpoint,
    descriptors::MEMBER,
    directory_lock::hold_member,
    light::Light,
    volume::{self, InUse, VolumeError},
    watch,
};
use posync_consumer::auditor;
use posync_gateway::Policy;
use posync_node::{
    Steady,
    config::{Config as NodeConfig, ConfigError, Settings as NodeSettings},
    handle::Handle,
    own_key::Word,
    run::{RunError, TokioServices, run_tokio, workers},
    serve::{self, Serving},
};
use posync_protocol::{
    Account, Amount, PerClass, amount::SYNC, block::sha256, limits::Parameters, provider::bond_needed,
};
use posync_provider::{
    alerts::Reporter,
    config::{self, LOOSE, PACK_BYTES},
    left::Left,
    reconciler::ReconcilerError,
};
use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process, thread,
    time::Duration,
};

/// Command-line arguments of `posync start`.
#[derive(Debug, clap::Args)]
pub(crate) struct Start {
    /// Directory of the role, as `posync init` made it
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// End when standard input closes (given by `devnet`)
    #[arg(long, hide = true)]
    child: bool,
    /// For an authority that refused to start because its key signs elsewhere: no other process uses the key any
    /// more. It listens without a vote, and signs again from the next term on
    #[arg(long)]
    i_stopped_the_other: bool,
    /// For a provider that left with `posync leave`: it comes back, and registers again
    #[arg(long)]
    register_again: bool,
    /// For a provider or gateway whose volume lacks its mark: it takes the volume as it is now. What was on another
    /// one is lost
    #[arg(long)]
    take_this_volume: bool,
    /// For each authority with restored copies, if more than a third of them were restored at once: the height of
    /// the last final block, on which all operators agreed by voice. It votes once the others show for some seconds
    /// that the network stands still there. A block above that height that someone has seen as final is replaced
    /// then, and the network has two histories
    #[arg(long, value_name = "HEIGHT", conflicts_with = "i_stopped_the_other")]
    we_agreed_on: Option<u64>,
    /// True if the process ends on signals already
    #[arg(skip)]
    hears_signals: bool,
}

/// Why a role ended if none of its parts gave a reason.
pub(super) const SERVICE_ENDED: &str = "one of its services ended; the lines above say why";
/// Time between two attempts to find a node.
pub(super) const ASK_EVERY: Duration = Duration::from_millis(500);
/// Beginning of the names of a gateway's partitions.
pub(crate) const GATEWAY: &str = "gateway";
/// Beginning of the names of a provider's partitions.
pub(crate) const PROVIDER: &str = "provider";

impl Start {
    /// Starts the role of a directory in this process, which has called [`end_on_signals`].
    pub(crate) const fn of(dir: PathBuf) -> Self {
        Self {
            dir,
            child: false,
            i_stopped_the_other: false,
            register_again: false,
            take_this_volume: false,
            we_agreed_on: None,
            hears_signals: true,
        }
    }

    /// Directory of the role.
    pub(crate) fn directory(&self) -> &Path {
        &self.dir
    }

    /// Reads the settings, before the log is opened.
    pub(crate) fn settings(&self) -> Outcome<Settings> {
        Settings::read(&self.dir)
    }

    /// Runs the role; returns only when it fails. If a signal asks it to end, the process exits with 0.
    pub(crate) fn run(self, settings: &Settings) -> Outcome {
        if self.child {
            end_with_the_parent();
        }
        if !self.hears_signals {
            end_on_signals()?;
        }
        let who = match settings.role {
            Role::Authority => "an authority",
            Role::Provider => "a provider",
            Role::Gateway => "a gateway",
            Role::Node => "a node",
        };
        if self.register_again && settings.role != Role::Provider {
            let next = "leave the flag out";
            let why = "--register-again calls a provider back that left";
            return Err(Failure::new(Exit::Usage, format!("this is {who}"), why, next));
        }
        if (self.i_stopped_the_other || self.we_agreed_on.is_some()) && settings.role != Role::Authority {
            let why = "--i-stopped-the-other and --we-agreed-on are words about the key of an authority";
            return Err(Failure::new(Exit::Usage, format!("this is {who}"), why, "leave the flag out"));
        }
        descriptors::ensure(who, MEMBER)?;
        writable(&settings.directory)?;
        match settings.role {
            Role::Authority => {
                let word = Word { other_stopped: self.i_stopped_the_other, agreed: self.we_agreed_on };
                authority(settings, word)
            }
            Role::Node => follower::run(settings),
            Role::Provider => provider(settings, &self),
            Role::Gateway => gateway(settings, &self),
        }?;
        // No signal asked it to end, and a role's work has no end of its own.
        Err(ended(&settings.directory, SERVICE_ENDED))
    }
}

/// Checks that files can be made in the role's directory. A full volume is no error: reading goes on there.
pub(crate) fn writable(directory: &Path) -> Outcome {
    let probe = tempfile::Builder::new().prefix(".posync-").suffix(".part").tempfile_in(directory);
    match probe {
        Err(error) if error.kind() != io::ErrorKind::StorageFull => {
            Err(Failure::file(directory, "write into the role's directory", error))
        }
        _ => Ok(()),
    }
}

/// Ends the process when the supervisor closes the pipe or dies. An immediate end loses no data:
/// everything acknowledged is on disk already.
pub(crate) fn end_with_the_parent() {
    // A stopped member (SIGSTOP) does not notice the closed pipe; the system kills it all the same.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    thread::spawn(|| {
        let mut bytes = [0; 64];
        while matches!(io::stdin().read(&mut bytes), Ok(read) if read > 0) {}
        tracing::info!("the supervisor ended, or closed this role's input: the role ends");
        process::exit(0);
    });
}

/// Ends the process with 0 on SIGTERM, SIGINT and SIGHUP, from now on.
///
/// # Errors
/// [`Failure`] if the system lets it not listen.
pub(crate) fn end_on_signals() -> Outcome {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot_listen)?;
    let mut asked = {
        let _entered = runtime.enter();
        Asked::listen()?
    };
    thread::spawn(move || {
        let (_, signal) = runtime.block_on(asked.next());
        tracing::info!(signal, "a signal asked this role to end: it ends");
        process::exit(0);
    });
    Ok(())
}

/// Runs the authority of a directory until it fails.
fn authority(settings: &Settings, word: Word) -> Outcome {
    let directory = &settings.directory;
    let key = settings.key()?;
    let account = keys::account(&key);
    let (listen, service) = (settings.listen("listen")?, settings.listen("service_listen")?);
    settings.announced("advertise", "listen")?;
    let reached = settings.announced("service_advertise", "service_listen")?;
    let alerts = settings.alerts()?;
    let genesis = directory.join(GENESIS_FILE);
    if !genesis.exists() {
        let why = format!("there is no {}", genesis.display());
        let next = "the ceremony of a network writes it";
        return Err(Failure::new(Exit::Local, "this node does not know the network's genesis", why, next));
    }
    let mut config = node_config(settings, listen, service)?;
    config.word = word;
    listens(settings, &account, &alerts, &[("listen", listen), ("service_listen", service)])?;
    let mut nodes = vec![Endpoint { account, address: loopback(service).into() }];
    if settings.file("network")?.exists() {
        let net = net::of_role(settings)?;
        if net.file.chain != config.genesis.chain() {
            return Err(mixed("copy the network file of this genesis"));
        }
        watching::far_clock(&net, &key, alerts.clone());
        // The node itself knows first which blocks are final.
        nodes.extend(net.file.others(&account));
    }
    let volumes = watching::both_volumes(directory);
    watching::space(volumes, account.to_string(), alerts.clone(), watching::authority_space);
    let announcing = Announcing::new(settings, key.clone(), nodes.clone(), &reached)?;
    let private = settings.flag("private")?;
    let serving = Serving { key: key.clone(), address: service, private };
    let (operations, services) = serve::over_sockets(serving);
    let why = match run_tokio(config, operations, beside(key, nodes, alerts.clone(), announcing, services)) {
        Ok(()) => SERVICE_ENDED.to_owned(),
        Err(error @ RunError::SecondSigner(..)) => {
            alerts.offline(&account.to_string(), None, &error.to_string());
            return Err(signs_elsewhere(settings, &error));
        }
        Err(error) => error.to_string(),
    };
    alerts.offline(&account.to_string(), None, &why);
    Err(ended(directory, why))
}

/// The refusal of a directory whose network file and genesis do not belong together.
pub(super) fn mixed(next: &str) -> Failure {
    let why = "the network file and the genesis name different chains";
    Failure::new(Exit::Usage, "this directory mixes two networks", why, next)
}

fn signs_elsewhere(settings: &Settings, error: &RunError) -> Failure {
    let next = format!(
        "stop the other process for good and run `posync start --dir {} --i-stopped-the-other`: the authority listens \
         without a vote and signs again from the next term on. An old copy is started the same way. If more than a \
         third of the authorities are old copies, read \"More than a third at once\" in docs/operating.md",
        settings.directory.display()
    );
    Failure::new(
        Exit::Refused,
        "this authority's key signs elsewhere, or its directory is an old copy",
        error,
        next,
    )
}

fn node_config(settings: &Settings, listen: SocketAddr, service: SocketAddr) -> Outcome<NodeConfig> {
    let pages = usize::try_from(settings.count("page_cache_pages")?).unwrap_or(usize::MAX);
    let (archive, private) = (settings.flag("archive")?, settings.flag("private")?);
    let quiet_ms = settings.count("quiet_ms")?;
    let own = NodeSettings { listen, service, page_cache_pages: pages, archive, private, quiet_ms };
    let directory = &settings.directory;
    NodeConfig::open(directory, own).map_err(|error| match error {
        ConfigError::Locked(_) => running_already(settings),
        other => ended(directory, other),
    })
}

/// The address at which this machine reaches what listens there.
pub(crate) fn loopback(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn running_already(settings: &Settings) -> Failure {
    Failure::new(
        Exit::Refused,
        format!("a {} runs in {} already", settings.role, settings.directory.display()),
        "another process holds its lock",
        "use that one, or stop it first; a second one needs a directory and a key of its own",
    )
}

/// The services of a node, with the auditor, the alerts and the announcement of its seat beside them. The node
/// survives the end of those.
fn beside(
    key: PrivateKey,
    nodes: Vec<Endpoint>,
    alerts: Alerts,
    announcing: Announcing,
    services: TokioServices,
) -> TokioServices {
    Box::new(move |context, handle, channel| {
        announcing.start(&context, &handle);
        let steady = Steady::of_machine(context.child("seat_alerts"));
        watching::seat(steady, handle.clone(), keys::account(&key), alerts.clone());
        let (heights, began) = (handle.heights(), handle.applied());
        drop(context.child("ready").spawn(move |_| log_ready(heights, began)));
        let light = handle.light();
        drop(context.child("certificates").spawn({
            let (handle, light) = (handle.clone(), light.clone());
            |_| share_certificates(handle, light)
        }));
        let genesis = handle.genesis();
        let config = auditor::Config {
            key,
            partition: "auditor".into(),
            nodes,
            light,
            parameters: genesis.parameters,
            heights: handle.heights(),
            alerts,
        };
        // The task lives as long as the node's services, even without its handle.
        let auditing = Steady::of_machine(context.child("audit"));
        let sockets = context.child("auditor_sockets");
        drop(auditing.spawn(|context| audit(context, sockets, config)));
        services(context, handle, channel)
    })
}

/// Gives the auditor the certificates of the blocks that its own node applies: the node has verified them, and
/// those that other nodes show for these blocks are the same bytes.
async fn share_certificates(handle: Handle, light: Light) {
    let mut heights = handle.heights();
    while heights.changed().await.is_ok() {
        let height = *heights.borrow_and_update();
        if let Some(certified) = handle.certified(height).await {
            light.remember(&certified);
        }
    }
}

/// Logs the first block that is applied after the start.
pub(super) async fn log_ready(mut heights: watch::Receiver<u64>, began: u64) {
    if let Ok(height) = heights.wait_for(|height| *height > began).await {
        tracing::info!(height = *height, "ready: the node applies blocks");
    }
}

/// Runs the auditor and restarts it when it ends: a seat without an auditor earns less.
async fn audit(context: Steady<Context>, network: Context, config: auditor::Config) {
    let began = context.current();
    let since = |moment| context.current().duration_since(moment).unwrap_or_default();
    let mut restarts = Restarts::default();
    loop {
        let started = context.current();
        let sockets = SharedNetwork::new(network.child("auditor_sockets"));
        let run = config.clone();
        let auditing = context.child("auditor").spawn(|context| auditor::run(context, sockets, run));
        let why = match auditing.await {
            // Its node has ended, or this process was asked to.
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        if let Some((starts, down)) = restarts.runs(since(started), since(began)) {
            tracing::info!(
                starts,
                seconds = down.as_secs(),
                "the auditor, which was restarted, ran until now"
            );
        }
        let (pause, _) = restarts.ended(since(began));
        tracing::error!(
            error = why,
            "the auditor has ended; until it is started again this seat reports nothing"
        );
        context.sleep(pause).await;
    }
}

pub(super) fn ended(directory: &Path, why: impl std::fmt::Display) -> Failure {
    let next = "mend what the reason names, and start it again: it goes on where it was";
    Failure::new(Exit::Failed, format!("the role in {} has ended", directory.display()), why, next)
}

fn gateway(settings: &Settings, start: &Start) -> Outcome {
    let directory = &settings.directory;
    let net = net::of_role(settings)?;
    let (key, alerts) = (settings.key()?, settings.alerts()?);
    let owner = settings.account("owner")?.ok_or_else(|| {
        let next = "set `owner` to the account that `posync key show FILE` prints for your own key";
        Failure::new(
            Exit::Usage,
            "the gateway has no owner",
            "it serves its owner and the accounts that it lists",
            next,
        )
    })?;
    let users = settings.users("users")?;
    let grace = settings.time("grace")?;
    let listen = posync_gateway::listening(settings.listen("listen")?, &users);
    let held = hold_member(&directory.join("gateway.lock"));
    let held = held.map_err(|error| Failure::file(&directory.join("gateway.lock"), "lock", error))?;
    let _lock = held.ok_or_else(|| running_already(settings))?;
    listens(settings, &keys::account(&key), &alerts, &[("listen", listen)])?;
    let (account, storage) = (keys::account(&key).to_string(), directory.join("storage"));
    let in_use = own_volume(settings, start, (&storage, GATEWAY), &alerts)?;
    let volume = posync_gateway::Volume::of(storage.clone());
    let looked = volume.clone();
    let conditions = move |space| watching::gateway_space(space, looked.has_room().err());
    watching::space(vec![storage.clone()], account.clone(), alerts.clone(), conditions);
    runner(&storage)
        .start(async |context| {
            let parameters = parameters(&context, settings, &net, &key).await?;
            watching::clock(&context, &net, &key, alerts.clone());
            let config = posync_gateway::Config {
                key: key.clone(),
                partition: GATEWAY.into(),
                listen,
                owner,
                users,
                nodes: net.file.endpoints(),
                chain: net.file.chain,
                network_key: *net.light.network_key(),
                parameters,
                policy: Policy::of(&parameters),
                grace: (!grace.is_zero()).then_some(grace),
                alerts: alerts.clone(),
                volume,
            };
            let on_volume = OnVolume::new(Steady::of_machine(context.child("gateway")), in_use);
            let run = posync_gateway::run(on_volume, context, config).await;
            run.map_err(|error| ended(directory, error))
        })
        .inspect_err(|failure| alerts.offline(&account, None, &failure.in_one_line()))
}

/// Checks that the member can listen on these addresses, each with the setting that names it. It has its lock already:
/// no other process of it listens there.
fn listens(
    settings: &Settings,
    account: &Account,
    alerts: &Alerts,
    addresses: &[(&str, SocketAddr)],
) -> Outcome {
    let free = addresses.iter().try_for_each(|(key, address)| ports::free(settings, key, *address));
    free.inspect_err(|failure| alerts.offline(&account.to_string(), None, &failure.in_one_line()))
}

/// Checks that what the member stored before is on `volume`, and marks a new one; an empty mount point is no new
/// volume. The member ends with an error otherwise, and its supervisor starts it again: it waits for the mount.
fn own_volume(
    settings: &Settings,
    start: &Start,
    (volume, partition): (&Path, &str),
    alerts: &Alerts,
) -> Outcome<InUse> {
    let (directory, account) = (&settings.directory, keys::account(&settings.key()?));
    let done = if start.take_this_volume {
        volume::take(directory, volume, &account)
    } else {
        volume::claim(directory, volume, &account, partition)
    };
    let in_use = done.and_then(|()| InUse::new(directory, volume, &account, partition)).map_err(|error| {
        let next = match error {
            VolumeError::Missing(_) | VolumeError::Damaged(_) | VolumeError::Older(..) => format!(
                "mount the volume, and start again. Only if it is lost for good, or this is all that is left of it: \
                 `posync start --dir {} --take-this-volume`; what is not on it is lost then",
                directory.display()
            ),
            VolumeError::Foreign(..) => "name the member's own volume".into(),
            VolumeError::File(..)
            | VolumeError::Other(_)
            | VolumeError::ReadOnly(_)
            | VolumeError::Failing(..) => {
                "check the disk, the mount and its permissions, and start again".into()
            }
        };
        alerts.offline(&account.to_string(), None, &error);
        Failure::new(Exit::Local, format!("the {} does not have its volume", settings.role), error, next)
    })?;
    for path in blob_header::restore(volume, partition) {
        let file = path.display().to_string();
        tracing::error!(
            file,
            "the header of a file was damaged, and is restored: nothing in it is lost, and the page that was there is \
             kept beside the partitions; check the disk"
        );
    }
    Ok(in_use)
}

/// The parameters of the network: as kept here from an earlier start, or from a node. Waits for a node as
/// long as it takes: it may start later than this role.
async fn parameters(
    context: &Context,
    settings: &Settings,
    net: &Net,
    key: &PrivateKey,
) -> Outcome<Parameters> {
    let path = settings.directory.join(volume::PARAMETERS);
    let kept = fs::read(&path).ok().filter(|bytes| sha256(bytes) == net.file.parameters);
    if let Some(kept) = kept.and_then(|bytes| Parameters::decode(Copying(&bytes)).ok()) {
        return Ok(kept);
    }
    let mut logged = None;
    loop {
        match net.parameters(context, key).await {
            Ok(parameters) => {
                target::replace(&path, &parameters.encode())?;
                return Ok(parameters);
            }
            Err(failure) if failure.exit == Exit::Unreachable => {
                let why = failure.in_one_line();
                if logged.as_ref() != Some(&why) {
                    tracing::warn!("waiting for a node of the network: {why}");
                    logged = Some(why);
                }
                context.sleep(ASK_EVERY).await;
            }
            Err(other) => return Err(other),
        }
    }
}

fn runner(storage: &Path) -> Runner {
    let config = Config::new()
        .with_storage_directory(storage)
        .with_tcp_nodelay(Some(true))
        .with_worker_threads(workers());
    Runner::new(config)
}

fn provider(settings: &Settings, start: &Start) -> Outcome {
    let directory = &settings.directory;
    let net = net::of_role(settings)?;
    let (key, alerts, storage) = (settings.key()?, settings.alerts()?, settings.file("volume")?);
    settings.announced("advertise", "listen")?;
    for needed in ["operator", "region"] {
        if settings.text(needed)?.is_empty() {
            let next = format!("set `{needed}` in {}", settings.path().display());
            let what = format!("the provider has no {needed}");
            return Err(Failure::new(Exit::Usage, what, "gateways spread the shards of a file by it", next));
        }
    }
    if storage != directory.join("storage") && !storage.is_dir() {
        let next = "mount the volume, or make the directory if this is the provider's first start";
        return Err(Failure::new(
            Exit::Local,
            format!("{} is no directory", storage.display()),
            "the volume is not there",
            next,
        ));
    }
    let locked = |error| match error {
        config::ConfigError::Locked(_) => running_already(settings),
        other => ended(directory, other),
    };
    let _lock = config::lock(directory).map_err(locked)?;
    listens(settings, &keys::account(&key), &alerts, &[("listen", settings.listen("listen")?)])?;
    let left = Left::of(directory);
    let in_use = own_volume(settings, start, (&storage, PROVIDER), &alerts)?;
    if start.register_again {
        left.clear().map_err(|error| Failure::file(directory, "remove the mark of the exit from", error))?;
    }
    runner(&storage).start(async |context| {
        let parameters = parameters(&context, settings, &net, &key).await?;
        watching::clock(&context, &net, &key, alerts.clone());
        let report = Reporter::new(alerts, Some(storage.clone())).checking(in_use.clone());
        let config = provider_config(settings, &net, key, parameters, report)?;
        let sockets = SharedNetwork::new(context.child("sockets"));
        let on_volume = OnVolume::new(Steady::of_machine(context.child("provider")), in_use);
        let run = posync_provider::run(on_volume, sockets, config, |_| ()).await;
        match run {
            Err(posync_provider::Error::Reconciler(ReconcilerError::Left)) => has_left(settings),
            run => run.map_err(|error| ended(directory, error)),
        }
    })
}

/// Ends the process of a provider that left and holds nothing any more: with 0, because `posync leave` asked for
/// this end, and no supervisor shall start it again.
fn has_left(settings: &Settings) -> ! {
    let text = format!(
        "{}. The machine may be switched off. To come back, run `posync start --dir {} --register-again`",
        ReconcilerError::Left,
        settings.directory.display()
    );
    tracing::info!("{text}");
    if settings.text("log").is_ok_and(|log| log == "file") {
        let _ = writeln!(io::stderr(), "{text}");
    }
    process::exit(0);
}

/// The configuration of a provider; a bond of 0 is the least that its capacity needs.
pub(crate) fn provider_config(
    settings: &Settings,
    net: &Net,
    key: PrivateKey,
    parameters: Parameters,
    report: Reporter,
) -> Outcome<config::Config> {
    let (space, bond) = (settings.bytes("space")?, settings.count("bond")?);
    let advertise = settings.text("advertise")?;
    let mut config = config::Config {
        key,
        partition: PROVIDER.into(),
        listen: settings.listen("listen")?,
        advertised: (!advertise.is_empty()).then(|| advertise.to_owned()),
        region: settings.text("region")?.into(),
        operator: settings.text("operator")?.into(),
        bond: sync(bond),
        capacity_bytes: settings.bytes("capacity")?,
        space_bytes: if space == 0 { u64::MAX } else { space },
        egress_rate: settings.bytes("egress_rate")?,
        pack_bytes: PACK_BYTES,
        capacity_gas: 0,
        reserve_prices: PerClass::new(settings.count("price_storage")?, settings.count("price_egress")?, 0),
        term_max: u32::try_from(settings.count("term_max")?).unwrap_or(u32::MAX),
        nodes: net.file.endpoints(),
        chain: net.file.chain,
        network_key: *net.light.network_key(),
        parameters,
        scrub: settings.time("scrub_every")?,
        scrub_rate: settings.bytes("scrub_rate")?,
        loose: LOOSE,
        grace: settings.time("grace")?,
        report,
        left: Left::of(&settings.directory),
    };
    config.bond = bond_of(bond, config.capacity_leaves(), &parameters);
    Ok(config)
}

/// The bond for `leaves` of capacity: `whole` SYNC, or the least that the ledger takes if that is 0.
fn bond_of(whole: u64, leaves: u64, parameters: &Parameters) -> Amount {
    if whole == 0 { bond_needed(leaves, parameters) } else { sync(whole) }
}

/// An amount of whole SYNC, at most all that can be.
fn sync(whole: u64) -> Amount {
    Amount::new(u128::from(whole) * SYNC).unwrap_or(Amount::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_on_every_address_is_reached_over_loopback() {
        for (listen, reached) in [
            ("0.0.0.0:4000", "127.0.0.1:4000"),
            ("[::]:4000", "[::1]:4000"),
            ("192.0.2.7:4000", "192.0.2.7:4000"),
        ] {
            let listen = listen.parse().expect("an address");
            assert_eq!(loopback(listen).to_string(), reached);
        }
    }

    #[test]
    fn a_bond_that_is_not_set_covers_the_capacity() {
        let parameters = Parameters::LOCAL;
        assert_eq!(bond_of(0, 1, &parameters), parameters.bond_min);
        let many = 1 << 40;
        assert_eq!(bond_of(0, many, &parameters), bond_needed(many, &parameters));
        assert!(
            bond_of(0, many, &parameters) > parameters.bond_min,
            "the least of any provider is too small"
        );
        assert_eq!(bond_of(7, many, &parameters), Amount::sync(7), "a bond that is set stays");
    }
}
