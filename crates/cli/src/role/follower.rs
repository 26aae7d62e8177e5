//! Runs a node without a seat: it follows the nodes of its network file and serves reads.

use super::{GENESIS_FILE, announcing::Announcing, ports, settings::Settings, start, watching};
use crate::{
    failure::{Exit, Outcome},
    keys,
    net::{self, Net},
    session, target,
};
use commonware_codec::Encode as _;
use commonware_cryptography::ed25519::PrivateKey;
use commonware_runtime::{Clock as _, Spawner as _, Supervisor as _};
use posync_client::{connection::Endpoint, directory_lock::hold_member};
use posync_node::{follower, genesis::Genesis};
use std::{path::Path, sync::Arc, time::Duration};

/// Follows the network of the role's network file until the node fails.
pub(super) fn run(settings: &Settings) -> Outcome {
    let directory = settings.directory.clone();
    let key = settings.key()?;
    let account = keys::account(&key).to_string();
    let listen = settings.listen("service_listen")?;
    let reached = settings.announced("service_advertise", "service_listen")?;
    let alerts = settings.alerts()?;
    let net = net::of_role(settings)?;
    let genesis = genesis(&directory.join(GENESIS_FILE), &net, &key)?;
    let pages = usize::try_from(settings.count("page_cache_pages")?).unwrap_or(usize::MAX);
    let own_node = Endpoint { account: keys::account(&key), address: start::loopback(listen).into() };
    let nodes = std::iter::once(own_node).chain(net.file.endpoints()).collect();
    let announcing = Announcing::new(settings, key.clone(), nodes, &reached)?;
    let own = follower::Settings {
        genesis: Arc::new(genesis),
        key,
        upstream: net.file.endpoints(),
        listen,
        page_cache_pages: pages,
        archive: settings.flag("archive")?,
        replayed_max: settings.count("replay_blocks")?,
        private: settings.flag("private")?,
    };
    // The node listens only once its upstream answers. If its lock is held, it runs already, and says so below.
    if let Ok(Some(_held)) = hold_member(&directory.join("lock")) {
        let free = ports::free(settings, "service_listen", listen);
        free.inspect_err(|failure| alerts.offline(&account, None, &failure.in_one_line()))?;
    }
    let volumes = watching::both_volumes(&directory);
    watching::space(volumes, account.clone(), alerts.clone(), watching::authority_space);
    let (watched, watching_key) = (alerts.clone(), own.key.clone());
    let ready: follower::Beside<commonware_runtime::tokio::Context> = Box::new(move |context, handle| {
        announcing.start(&context, &handle);
        watching::clock(&context, &net, &watching_key, watched);
        let (heights, began) = (handle.heights(), handle.applied());
        drop(context.child("ready").spawn(move |_| start::log_ready(heights, began)));
    });
    let why = match posync_node::follow(directory.clone(), own, ready) {
        Ok(()) => start::SERVICE_ENDED.to_owned(),
        Err(error) => error.to_string(),
    };
    alerts.offline(&account, None, &why);
    Err(start::ended(&directory, why))
}

/// Longest pause before nodes are asked for the genesis again.
const ASK_EVERY_MAX: Duration = Duration::from_secs(30);

/// The genesis in the role's directory, or that of a node of the network, which is kept there. Waits for a node as
/// long as it takes: it may start later than this one.
fn genesis(path: &Path, net: &Net, key: &PrivateKey) -> Outcome<Genesis> {
    if let Some(genesis) = net.kept_genesis(&path.to_path_buf())? {
        return Ok(genesis);
    }
    let genesis = session::until_done(async |context| {
        let (mut logged, mut pause) = (None, start::ASK_EVERY);
        loop {
            match net.fetch_genesis(&context, key).await {
                Err(failure) if failure.exit == Exit::Unreachable => {
                    let why = failure.in_one_line();
                    if logged.as_ref() != Some(&why) {
                        tracing::warn!("waiting for a node that gives the genesis of the network: {why}");
                        logged = Some(why);
                    }
                    context.sleep(pause).await;
                    pause = (pause * 2).min(ASK_EVERY_MAX);
                }
                fetched => return fetched,
            }
        }
    })?;
    target::replace(path, &genesis.encode())?;
    tracing::info!(
        chain = net.chain(),
        "the genesis was fetched from a node: its hash is the network file's chain"
    );
    Ok(genesis)
}
