//! The child process: runs one member in its directory until the supervisor lets go of it.

use super::{
    create::{GENESIS_FILE, KEY_FILE, RoleFile},
    restart::Restarts,
    watching,
};
use crate::{
    commands::{recompute::FROM_A_MEMBER, watch::hook},
    descriptors,
    failure::{Exit, Failure, Outcome},
    interrupt::{Asked, cannot_listen},
    keys,
    network::Role,
};
use commonware_cryptography::ed25519::PrivateKey;
use commonware_runtime::{
    Clock as _, Runner as _, Spawner as _, Supervisor as _,
    tokio::{Config, Context, Runner},
};
use posync_alert::Alerts;
use posync_client::{
    channel::SharedNetwork, connection::Endpoint, descriptors::MEMBER, directory_lock::hold_member,
};
use posync_consumer::auditor;
use posync_gateway::Policy;
use posync_node::{
    genesis::Genesis,
    run::{TokioServices, run_tokio, workers},
    serve::{self, Serving},
};
use posync_provider::{
    config::{self, EGRESS_LOCAL, GRACE_LOCAL, LOOSE, PACK_BYTES, SCRUB_LOCAL, TERM_MAX},
    report::Reporter,
};
use rustix::fs::{FileType, fstat};
use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    process, thread,
};

/// Capacity that each provider of a local network offers: 8 GiB.
const CAPACITY_BYTES: u64 = 8 << 30;

/// Arguments of the hidden command.
#[derive(Debug, clap::Args)]
pub(crate) struct RunRole {
    /// Directory of the member to run
    directory: PathBuf,
}

/// Why a member ended if none of its parts gave a reason.
const SERVICE_ENDED: &str = "one of its services ended; the lines above say why";

impl RunRole {
    /// Directory of the member to run.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Runs the member; returns only when it fails. If a signal asks it to end, the process exits with 0.
    pub(crate) fn run(self) -> Outcome {
        let role = RoleFile::read(&self.directory)?;
        end_with_the_parent();
        end_on_signals()?;
        let who = match role.role {
            Role::Authority => "an authority",
            Role::Provider => "a provider",
            Role::Gateway => "a gateway",
        };
        descriptors::ensure(who, MEMBER)?;
        match role.role {
            Role::Authority => authority(&self.directory, &role),
            Role::Provider => provider(&self.directory, &role),
            Role::Gateway => gateway(&self.directory, &role),
        }?;
        // No signal asked it to end, and a member's work has no end of its own.
        Err(ended(&self.directory, SERVICE_ENDED))
    }
}

/// Ends the process when the supervisor closes the pipe or dies. An immediate end loses no data:
/// everything acknowledged is on disk already. If the input is no pipe, the member ends on a signal
/// alone, as under another supervisor.
fn end_with_the_parent() {
    let is_pipe =
        fstat(io::stdin()).is_ok_and(|about| FileType::from_raw_mode(about.st_mode) == FileType::Fifo);
    if !is_pipe {
        return;
    }
    // A stopped member (SIGSTOP) does not notice the closed pipe; the system kills it all the same.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    thread::spawn(|| {
        let mut bytes = [0; 64];
        while matches!(io::stdin().read(&mut bytes), Ok(read) if read > 0) {}
        tracing::info!("the supervisor has ended or closed this member's input: the member ends");
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
        tracing::info!(signal, "a signal asked this member to end: it ends");
        process::exit(0);
    });
    Ok(())
}

impl RoleFile {
    /// Opens the destination of the member's alerts.
    fn alerts(&self) -> Outcome<Alerts> {
        hook(self.alert_url.as_deref(), self.alert_ca.as_deref())
    }
}

fn authority(directory: &Path, role: &RoleFile) -> Outcome {
    let key: PrivateKey = keys::read(&directory.join(KEY_FILE))?;
    let account = keys::account(&key).to_string();
    let alerts = role.alerts()?;
    watching::space(directory.to_path_buf(), account.clone(), alerts.clone(), watching::authority_space);
    let serving = Serving { key: key.clone(), address: role.listen };
    let (operations, services) = serve::over_sockets(serving);
    let mut nodes = role.nodes()?;
    // The authority's own node knows first which blocks are final.
    nodes.sort_by_key(|node| node.address != role.listen);
    let why = match run_tokio(directory, operations, beside(key, nodes, alerts.clone(), services)) {
        Ok(()) => SERVICE_ENDED.to_owned(),
        Err(error) => error.to_string(),
    };
    alerts.offline(&account, None, &why);
    Err(ended(directory, why))
}

/// The services of a node, with the auditor and the alerts of its seat beside them. The node survives
/// the end of those two.
fn beside(key: PrivateKey, nodes: Vec<Endpoint>, alerts: Alerts, services: TokioServices) -> TokioServices {
    Box::new(move |context, handle, channel| {
        watching::seat(context.child("seat_alerts"), handle.clone(), keys::account(&key), alerts);
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
            tracing::info!(starts, seconds = down.as_secs(), "the auditor ran again until now");
        }
        let (pause, _) = restarts.ended(since(began));
        tracing::error!(
            error = why,
            "the auditor has ended; until it is started again this seat reports nothing"
        );
        context.sleep(pause).await;
    }
}

fn ended(directory: &Path, why: impl std::fmt::Display) -> Failure {
    let next = "mend what the reason names, and start it again: it goes on where it was";
    Failure::new(Exit::Failed, format!("the member in {} has ended", directory.display()), why, next)
}

fn gateway(directory: &Path, role: &RoleFile) -> Outcome {
    let genesis = genesis(directory)?;
    let alerts = role.alerts()?;
    let config = posync_gateway::Config {
        key: keys::read(&directory.join(KEY_FILE))?,
        partition: "gateway".into(),
        listen: role.listen,
        owner: role.owner(directory)?,
        users: role.users()?,
        nodes: role.nodes()?,
        chain: genesis.chain(),
        network_key: genesis.network_key(),
        parameters: genesis.parameters,
        policy: Policy::of(&genesis.parameters),
        alerts: role.alerts()?,
    };
    let _lock = only_here(directory)?;
    let account = keys::account(&config.key).to_string();
    watching::space(directory.to_path_buf(), account.clone(), alerts.clone(), watching::gateway_space);
    runner(directory)
        .start(async |context| posync_gateway::run(context.child("gateway"), context, config).await)
        .map_err(|error| {
            alerts.offline(&account, None, &error);
            ended(directory, error)
        })
}

/// Locks a gateway's directory for this process: a second one would spend from the same account.
fn only_here(directory: &Path) -> Outcome<fs::File> {
    let path = directory.join("gateway.lock");
    let held = hold_member(&path).map_err(|error| Failure::file(&path, "lock", error))?;
    held.ok_or_else(|| {
        Failure::new(
            Exit::Refused,
            format!("a gateway runs in {} already", directory.display()),
            "another process holds its lock",
            "use that one, or stop it first; a second gateway needs a directory and a key of its own",
        )
    })
}

fn genesis(directory: &Path) -> Outcome<Genesis> {
    let path = directory.join(GENESIS_FILE);
    let bytes = fs::read(&path).map_err(|error| Failure::file(&path, "read", error))?;
    Genesis::from_bytes(&bytes).map_err(|error| Failure::damaged(&path, error, FROM_A_MEMBER))
}

fn runner(directory: &Path) -> Runner {
    let config = Config::new()
        .with_storage_directory(directory.join("storage"))
        .with_tcp_nodelay(Some(true))
        .with_worker_threads(workers());
    Runner::new(config)
}

fn provider(directory: &Path, role: &RoleFile) -> Outcome {
    let genesis = genesis(directory)?;
    let config = posync_provider::config::Config {
        key: keys::read(&directory.join(KEY_FILE))?,
        partition: "provider".into(),
        listen: role.listen,
        advertised: None,
        region: role.region.clone().unwrap_or_default(),
        operator: role.operator.clone().unwrap_or_default(),
        bond: genesis.parameters.bond_min,
        capacity_bytes: CAPACITY_BYTES,
        space_bytes: role.space_bytes.unwrap_or(u64::MAX),
        egress_rate: EGRESS_LOCAL,
        pack_bytes: PACK_BYTES,
        capacity_gas: 0,
        reserve_prices: (0, 0, 0),
        term_max: TERM_MAX,
        nodes: role.nodes()?,
        chain: genesis.chain(),
        network_key: genesis.network_key(),
        parameters: genesis.parameters,
        scrub: SCRUB_LOCAL,
        loose: LOOSE,
        grace: GRACE_LOCAL,
        report: Reporter::new(role.alerts()?, Some(directory.to_path_buf())),
    };
    let _lock = config::lock(directory).map_err(|error| ended(directory, error))?;
    runner(directory)
        .start(async |context| {
            let sockets = SharedNetwork::new(context.child("sockets"));
            posync_provider::run(context.child("provider"), sockets, config, |_| ()).await
        })
        .map_err(|error| ended(directory, error))
}
