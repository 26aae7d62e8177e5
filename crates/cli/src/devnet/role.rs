//! The child's side: runs one member in its directory until the supervisor lets go of it.

use super::{
    create::{GENESIS_FILE, KEY_FILE, RoleFile},
    watching,
};
use crate::{
    commands::watch::hook,
    failure::{Exit, Failure, Outcome},
    keys,
    network::Role,
};
use commonware_cryptography::ed25519::PrivateKey;
use commonware_runtime::{
    ListenerOf, Network, Runner as _, SinkOf, Spawner as _, StreamOf, Supervisor as _,
    tokio::{Config, Context, Runner},
};
use posync_alert::Alerts;
use posync_client::connection::Endpoint;
use posync_gateway::{Policy, auditor};
use posync_node::{
    genesis::Genesis,
    run::{TokioServices, run_tokio},
    serve::{self, Serving},
};
use posync_provider::{
    config::{self, EGRESS_LOCAL, LOOSE, SCRUB_LOCAL, SEGMENT_BYTES, TERM_MAX},
    report::Reporter,
};
use std::{
    fs,
    io::{self, Read as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process,
    sync::Arc,
    thread,
};
use tokio::signal::unix::{SignalKind, signal};

/// What each provider of a local network offers to keep: 8 GiB.
const CAPACITY_BYTES: u64 = 8 << 30;

/// Arguments of the hidden command.
#[derive(Debug, clap::Args)]
pub(crate) struct RunRole {
    /// The member's directory
    directory: PathBuf,
}

impl RunRole {
    /// Runs the member; returns only when it fails.
    pub(crate) fn run(self) -> Outcome {
        let role = RoleFile::read(&self.directory)?;
        end_with_the_parent();
        end_on_signals()?;
        match role.role {
            Role::Authority => authority(&self.directory, &role),
            Role::Provider => provider(&self.directory, &role),
            Role::Gateway => gateway(&self.directory, &role),
        }
    }
}

/// Ends the process when the supervisor closes the pipe or dies. Nothing is lost by ending at
/// once: whatever was acknowledged is on disk already.
fn end_with_the_parent() {
    thread::spawn(|| {
        let mut bytes = [0; 64];
        while matches!(io::stdin().read(&mut bytes), Ok(read) if read > 0) {}
        process::exit(0);
    });
}

fn end_on_signals() -> Outcome {
    let failed = |error: io::Error| {
        Failure::new(Exit::Failed, "cannot listen for signals", error, "check the limits of this process")
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let (mut terminate, mut interrupt) = {
        let _entered = runtime.enter();
        (signal(SignalKind::terminate()).map_err(failed)?, signal(SignalKind::interrupt()).map_err(failed)?)
    };
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        process::exit(0);
    });
    Ok(())
}

impl RoleFile {
    /// Where its alerts go.
    fn alerts(&self) -> Outcome<Alerts> {
        hook(self.alert_url.as_deref(), self.alert_ca.as_deref())
    }
}

fn authority(directory: &Path, role: &RoleFile) -> Outcome {
    let key: PrivateKey = keys::read(&directory.join(KEY_FILE))?;
    let account = keys::account(&key).to_string();
    let alerts = role.alerts()?;
    watching::space(directory.to_path_buf(), account.clone(), alerts.clone());
    let serving = Serving { key: key.clone(), address: role.listen };
    let (operations, services) = serve::over_sockets(serving);
    let mut nodes = role.nodes()?;
    // The own node knows first what is final.
    nodes.sort_by_key(|node| node.address != role.listen);
    run_tokio(directory, operations, beside(key, nodes, alerts.clone(), services)).map_err(|error| {
        alerts.offline(&account, None, &error);
        ended(directory, error)
    })
}

/// The services of a node and, beside them, the auditor of its seat and who watches it. If those end,
/// the node goes on.
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
        let sockets = Sockets(Arc::new(context.child("auditor_sockets")));
        let auditing = context.child("auditor").spawn(|context| async move {
            if let Err(error) = auditor::run(context, sockets, config).await {
                tracing::error!(%error, "the auditor has ended; this seat reports nothing until a restart");
            }
        });
        // It lives as long as the node's services do, whatever becomes of its handle.
        drop(auditing);
        services(context, handle, channel)
    })
}

fn ended(directory: &Path, why: impl std::fmt::Display) -> Failure {
    let next = "mend what the reason names, and start it again: it goes on where it was";
    Failure::new(Exit::Failed, format!("the member in {} has ended", directory.display()), why, next)
}

fn gateway(directory: &Path, role: &RoleFile) -> Outcome {
    let genesis = genesis(directory)?;
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
    };
    runner(directory)
        .start(async |context| posync_gateway::run(context.child("gateway"), context, config).await)
        .map_err(|error| ended(directory, error))
}

fn genesis(directory: &Path) -> Outcome<Genesis> {
    let path = directory.join(GENESIS_FILE);
    let bytes = fs::read(&path).map_err(|error| Failure::file(&path, "read", error))?;
    Genesis::from_bytes(&bytes).map_err(|error| Failure::file(&path, "read", error))
}

fn runner(directory: &Path) -> Runner {
    let config = Config::new().with_storage_directory(directory.join("storage")).with_tcp_nodelay(Some(true));
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
        segment_bytes: SEGMENT_BYTES,
        capacity_gas: 0,
        reserve_prices: (0, 0, 0),
        term_max: TERM_MAX,
        nodes: role.nodes()?,
        chain: genesis.chain(),
        network_key: genesis.network_key(),
        parameters: genesis.parameters,
        scrub: SCRUB_LOCAL,
        loose: LOOSE,
        report: Reporter::new(role.alerts()?, Some(directory.to_path_buf())),
    };
    let _lock = config::lock(directory).map_err(|error| ended(directory, error))?;
    runner(directory)
        .start(async |context| {
            let sockets = Sockets(Arc::new(context.child("sockets")));
            posync_provider::run(context.child("provider"), sockets, config, |_| ()).await
        })
        .map_err(|error| ended(directory, error))
}

/// The runtime's sockets, for those who hand them on.
#[derive(Clone)]
struct Sockets(Arc<Context>);

impl Network for Sockets {
    type Listener = ListenerOf<Context>;

    async fn bind(&self, address: SocketAddr) -> Result<Self::Listener, commonware_runtime::Error> {
        self.0.bind(address).await
    }

    async fn dial(
        &self,
        address: SocketAddr,
    ) -> Result<(SinkOf<Self>, StreamOf<Self>), commonware_runtime::Error> {
        self.0.dial(address).await
    }
}
