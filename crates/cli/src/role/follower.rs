//! Runs a node without a seat: it follows the nodes of its network file and serves reads.

use super::{GENESIS_FILE, announcing::Announcing, ports, settings::Settings, start, watching};
use crate::{
    failure::{Exit, Failure, Outcome},
    keys, net,
};
use commonware_runtime::{Spawner as _, Supervisor as _};
use posync_client::{connection::Endpoint, directory_lock::hold_member};
use posync_node::{follower, genesis::Genesis};
use std::{fs, path::Path, sync::Arc};

/// Follows the network of the role's network file until the node fails.
pub(super) fn run(settings: &Settings) -> Outcome {
    let directory = settings.directory.clone();
    let key = settings.key()?;
    let account = keys::account(&key).to_string();
    let listen = settings.listen("service_listen")?;
    let reached = settings.announced("service_advertise", "service_listen")?;
    let alerts = settings.alerts()?;
    let net = net::of_role(settings)?;
    let genesis = genesis(&directory.join(GENESIS_FILE), &net.chain())?;
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
    watching::space(directory.clone(), account.clone(), alerts.clone(), watching::authority_space);
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

/// Reads the genesis, which must be the one that the network file names.
fn genesis(path: &Path, chain: &str) -> Outcome<Genesis> {
    let bytes = fs::read(path).map_err(|error| {
        let next =
            "copy the file `genesis` of any authority there: it is public, and the network file names its hash";
        Failure::new(
            Exit::Local,
            "this node does not know the network's genesis",
            format!("{}: {error}", path.display()),
            next,
        )
    })?;
    let genesis =
        Genesis::from_bytes(&bytes).map_err(|error| Failure::file(path, "read the genesis", error))?;
    if hex::encode(genesis.chain()) == chain {
        return Ok(genesis);
    }
    Err(start::mixed("copy the genesis and the network file of one network"))
}
