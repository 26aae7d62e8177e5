//! The child's side: runs one member in its directory until the supervisor lets go of it.

use super::create::{GENESIS_FILE, KEY_FILE, ROLE_FILE, RoleFile};
use crate::{
    failure::{Exit, Failure, Outcome},
    keys,
    network::Role,
};
use commonware_runtime::{
    Runner as _, Supervisor as _,
    tokio::{Config, Runner},
};
use posync_gateway::Policy;
use posync_node::{
    genesis::Genesis,
    run::run_tokio,
    serve::{self, Serving},
};
use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    process, thread,
};
use tokio::signal::unix::{SignalKind, signal};

/// Arguments of the hidden command.
#[derive(Debug, clap::Args)]
pub(crate) struct RunRole {
    /// The member's directory
    directory: PathBuf,
}

impl RunRole {
    /// Runs the member; returns only when it fails.
    pub(crate) fn run(self) -> Outcome {
        let path = self.directory.join(ROLE_FILE);
        let text = fs::read_to_string(&path).map_err(|error| Failure::file(&path, "read", error))?;
        let role: RoleFile =
            serde_json::from_str(&text).map_err(|error| Failure::file(&path, "read", error))?;
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

fn authority(directory: &Path, role: &RoleFile) -> Outcome {
    let serving = Serving { key: keys::read(&directory.join(KEY_FILE))?, address: role.listen };
    let (operations, services) = serve::over_sockets(serving);
    run_tokio(directory, operations, services).map_err(|error| ended(directory, error))
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

fn provider(_: &Path, _: &RoleFile) -> Outcome {
    std::thread::sleep(std::time::Duration::from_secs(1000));
    Ok(())
}
