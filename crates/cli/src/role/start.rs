//! `posync start`: runs the role of a directory until a signal asks it to end.
//!
//! It needs no parent and reads no input. SIGTERM, SIGINT and SIGHUP end it with 0; every other end has
//! another code and a line that says why.

use super::{GENESIS_FILE, follower, settings::Settings, watching};
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
    channel::SharedNetwork, connection::Endpoint, descriptors::MEMBER, directory_lock::hold_member, watch,
};
use posync_consumer::auditor;
use posync_gateway::Policy;
use posync_node::{
    config::{Config as NodeConfig, ConfigError, Settings as NodeSettings},
    run::{RunError, TokioServices, run_tokio, workers},
    serve::{self, Serving},
};
use posync_protocol::{
    Amount, PerClass, amount::SYNC, block::sha256, limits::Parameters, provider::bond_needed,
};
use posync_provider::{
    config::{self, LOOSE, PACK_BYTES},
    report::Reporter,
};
use std::{
    fs,
    io::{self, Read as _},
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
    /// more. It waits for a whole term, then signs again
    #[arg(long)]
    i_stopped_the_other: bool,
}

/// Why a role ended if none of its parts gave a reason.
pub(super) const SERVICE_ENDED: &str = "one of its services ended; the lines above say why";
/// Time between two attempts to find a node.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// Name of the file that keeps the parameters of the network.
const PARAMETERS: &str = "parameters";

impl Start {
    /// Starts the role of a directory in this process.
    pub(crate) const fn of(dir: PathBuf) -> Self {
        Self { dir, child: false, i_stopped_the_other: false }
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
        end_on_signals()?;
        let who = match settings.role {
            Role::Authority => "an authority",
            Role::Provider => "a provider",
            Role::Gateway => "a gateway",
            Role::Node => "a node",
        };
        descriptors::ensure(who, MEMBER)?;
        writable(&settings.directory)?;
        match settings.role {
            Role::Authority => authority(settings, self.i_stopped_the_other),
            Role::Node => follower::run(settings),
            Role::Provider => provider(settings),
            Role::Gateway => gateway(settings),
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
fn end_with_the_parent() {
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

fn end_on_signals() -> Outcome {
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
fn authority(settings: &Settings, other_stopped: bool) -> Outcome {
    let directory = &settings.directory;
    let key = settings.key()?;
    let account = keys::account(&key);
    let (listen, service) = (settings.listen("listen")?, settings.listen("service_listen")?);
    settings.announced("advertise", "listen")?;
    settings.announced("service_advertise", "service_listen")?;
    let alerts = settings.alerts()?;
    let genesis = directory.join(GENESIS_FILE);
    if !genesis.exists() {
        let why = format!("there is no {}", genesis.display());
        let next = "the ceremony of a network writes it";
        return Err(Failure::new(Exit::Local, "this node does not know the network's genesis", why, next));
    }
    let mut config = node_config(settings, listen, service)?;
    config.other_stopped = other_stopped;
    let mut nodes = vec![Endpoint { account, address: loopback(service).into() }];
    if settings.file("network")?.exists() {
        let net = net::of_role(settings)?;
        if net.file.chain != config.genesis.chain() {
            return Err(mixed("copy the network file of this genesis"));
        }
        // The node itself knows first which blocks are final.
        nodes.extend(net.file.endpoints().into_iter().filter(|node| node.account != account));
    }
    watching::space(directory.clone(), account.to_string(), alerts.clone(), watching::authority_space);
    let serving = Serving { key: key.clone(), address: service };
    let (operations, services) = serve::over_sockets(serving);
    let why = match run_tokio(config, operations, beside(key, nodes, alerts.clone(), services)) {
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
        "stop the other process for good and run `posync start --dir {} --i-stopped-the-other`: the authority waits \
         for a whole term and signs again. An old copy is started the same way",
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
    let own = NodeSettings { listen, service, page_cache_pages: pages, archive, private };
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

/// The services of a node, with the auditor and the alerts of its seat beside them. The node survives
/// the end of those two.
fn beside(key: PrivateKey, nodes: Vec<Endpoint>, alerts: Alerts, services: TokioServices) -> TokioServices {
    Box::new(move |context, handle, channel| {
        watching::seat(context.child("seat_alerts"), handle.clone(), keys::account(&key), alerts);
        let (heights, began) = (handle.heights(), handle.applied());
        drop(context.child("ready").spawn(move |_| tell_ready(heights, began)));
        let genesis = handle.genesis();
        let config = auditor::Config {
            key,
            partition: "auditor".into(),
            nodes,
            chain: handle.chain(),
            network_key: handle.network_key(),
            parameters: genesis.parameters,
            heights: handle.heights(),
        };
        // The task lives as long as the node's services, even without its handle.
        drop(context.child("audit").spawn(|context| audit(context, config)));
        services(context, handle, channel)
    })
}

/// Logs the first block that is applied after the start.
pub(super) async fn tell_ready(mut heights: watch::Receiver<u64>, began: u64) {
    if let Ok(height) = heights.wait_for(|height| *height > began).await {
        tracing::info!(height = *height, "ready: the node applies blocks");
    }
}

/// Runs the auditor and restarts it when it ends: a seat without an auditor earns less.
async fn audit(context: Context, config: auditor::Config) {
    let began = context.current();
    let since = |moment| context.current().duration_since(moment).unwrap_or_default();
    let mut restarts = Restarts::default();
    loop {
        let started = context.current();
        let sockets = SharedNetwork::new(context.child("auditor_sockets"));
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

fn gateway(settings: &Settings) -> Outcome {
    let directory = &settings.directory;
    let net = net::of_role(settings)?;
    let (key, alerts) = (settings.key()?, settings.alerts()?);
    let owner = settings.account("owner")?.ok_or_else(|| {
        let next = "set `owner` to the account that `posync account` prints for your own key";
        Failure::new(
            Exit::Usage,
            "the gateway has no owner",
            "it serves its owner and the accounts that it lists",
            next,
        )
    })?;
    let (listen, users) = (settings.listen("listen")?, settings.users("users")?);
    let held = hold_member(&directory.join("gateway.lock"));
    let held = held.map_err(|error| Failure::file(&directory.join("gateway.lock"), "lock", error))?;
    let _lock = held.ok_or_else(|| running_already(settings))?;
    let account = keys::account(&key).to_string();
    watching::space(directory.clone(), account.clone(), alerts.clone(), watching::gateway_space);
    runner(&directory.join("storage"))
        .start(async |context| {
            let parameters = parameters(&context, settings, &net, &key).await?;
            let config = posync_gateway::Config {
                key: key.clone(),
                partition: "gateway".into(),
                listen,
                owner,
                users,
                nodes: net.file.endpoints(),
                chain: net.file.chain,
                network_key: *net.light.network_key(),
                parameters,
                policy: Policy::of(&parameters),
                alerts: alerts.clone(),
            };
            let run = posync_gateway::run(context.child("gateway"), context, config).await;
            run.map_err(|error| ended(directory, error))
        })
        .inspect_err(|failure| alerts.offline(&account, None, &failure.in_one_line()))
}

/// The parameters of the network: as kept here from an earlier start, or from a node. Waits for a node as
/// long as it takes: it may start later than this role.
async fn parameters(
    context: &Context,
    settings: &Settings,
    net: &Net,
    key: &PrivateKey,
) -> Outcome<Parameters> {
    let path = settings.directory.join(PARAMETERS);
    let kept = fs::read(&path).ok().filter(|bytes| sha256(bytes) == net.file.parameters);
    if let Some(kept) = kept.and_then(|bytes| Parameters::decode(Copying(&bytes)).ok()) {
        return Ok(kept);
    }
    let mut told = None;
    loop {
        match net.parameters(context, key).await {
            Ok(parameters) => {
                target::replace(&path, &parameters.encode())?;
                return Ok(parameters);
            }
            Err(failure) if failure.exit == Exit::Unreachable => {
                let why = failure.in_one_line();
                if told.as_ref() != Some(&why) {
                    tracing::warn!("waiting for a node of the network: {why}");
                    told = Some(why);
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

fn provider(settings: &Settings) -> Outcome {
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
    runner(&storage).start(async |context| {
        let parameters = parameters(&context, settings, &net, &key).await?;
        let report = Reporter::new(alerts, Some(storage.clone()));
        let config = provider_config(settings, &net, key, parameters, report)?;
        let sockets = SharedNetwork::new(context.child("sockets"));
        let run = posync_provider::run(context.child("provider"), sockets, config, |_| ()).await;
        run.map_err(|error| ended(directory, error))
    })
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
        partition: "provider".into(),
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
