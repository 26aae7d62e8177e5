//! The gateway: turns files into shards and vouchers, owns the money, the catalogue and the keys, and repairs
//! what it stored.
//!
//! ```text
//!   CLI ──wire::gateway──► serve ─► transfer ──┬─► agreement ─► peer ──wire::provider──► providers
//!                                     ▲        ▼             ▲
//!                                  repair ◄─ catalogue       │ sign, fetch, pay
//!                                     ▲                      │
//!                                   agreements ──► ledger ─► node ─┴─wire::node──► authorities
//! ```
//!
//! Paths: a *put* goes `serve -> transfer::put -> agreement -> peer` and is acknowledged by `catalogue`;
//! `agreements::settle` submits it to the ledger later. `repair` learns of a *loss* from the audits that
//! `agreements` watches, from reads, or from a provider's scrub.
//!
//! Invariants
//! 1. A put is acknowledged only when it is on disk, here and at six providers that signed.
//! 2. Only verified bytes are paid; a signature is on disk before it is sent.
//! 3. A crash at any point loses no acknowledged file and forgets no shard that is paid for.

mod access;
mod catalogue;
mod limits;
mod placement;
mod renew;
mod repair;
mod serve;
mod shared;
#[cfg(test)]
mod tests;
mod transfer;
mod why;

pub use access::{TooMany, User};
pub use catalogue::{Held, backup, check, partitions, restore};
pub use coding::SHARDS;
pub use posync_alert::Alerts;
pub use posync_consumer::{
    Policy,
    volume::{Full, Volume},
};

use crate::{
    access::Access,
    catalogue::{Catalogue, Files, Stopped},
    serve::Service,
    shared::Shared,
};
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_macros::select;
use commonware_runtime::{Clock, Metrics, Network, Resolver, Spawner, Storage};
use posync_client::{
    channel::{self, Listen, SharedNetwork},
    connection::Endpoint,
    light::{Light, NetworkKey},
    rpc::{self, Gateway, Server},
};
use posync_coding as coding;
use posync_consumer::{
    Consumer, Means, account, agreement, agreements,
    environment::{self, Environment},
    expected, peer,
};
use posync_protocol::{Account, Hash, limits::Parameters};
use rand_core::CryptoRng;
use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Time between two looks at the height until the first is known.
const READY_LOOK: Duration = Duration::from_millis(250);

/// Configuration of a gateway: its account, users, network and policy.
#[derive(Clone)]
pub struct Config {
    /// Its key: account, node identity and payer. No other process may spend from this account.
    pub key: PrivateKey,
    /// Prefix of its partitions in the runtime's storage.
    pub partition: String,
    /// The address at which users reach it; see [`listening`].
    pub listen: SocketAddr,
    /// The account that owns the gateway.
    pub owner: Account,
    /// Other accounts that may store files here, at most [`limits::USERS_MAX`].
    pub users: Vec<User>,
    /// Nodes of the network, asked in turn.
    pub nodes: Vec<Endpoint>,
    /// SHA-256 hash of the genesis.
    pub chain: Hash,
    /// The key under which certificates verify.
    pub network_key: NetworkKey,
    /// Parameters from the genesis.
    pub parameters: Parameters,
    /// Decides which agreements to open.
    pub policy: Policy,
    /// Time for which a provider may be silent before its shards are rebuilt with others; if `None`, a quarter
    /// of an epoch, and two minutes at least.
    pub grace: Option<Duration>,
    /// Receives the gateway's alerts.
    pub alerts: Alerts,
    /// The volume of its storage.
    pub volume: Volume,
}

/// Reasons for which a gateway ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Listening at its address failed.
    #[error(transparent)]
    Channel(#[from] channel::Error),
    /// The catalogue could not be opened or written.
    #[error(transparent)]
    Catalogue(#[from] catalogue::Error),
    /// The task that accepts connections ended.
    #[error("the task that listens on {0} ended: the gateway hears nobody any more; start it again")]
    Deaf(SocketAddr),
    /// A task of the gateway ended.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// More accounts are listed as users than a gateway serves.
    #[error(transparent)]
    Users(#[from] TooMany),
}

/// The address on which a gateway listens: the configured one, except that an unspecified address becomes
/// the loopback address while the gateway serves its owner alone. A specific address is taken as given.
pub fn listening(listen: SocketAddr, users: &[User]) -> SocketAddr {
    if !users.is_empty() || !listen.ip().is_unspecified() {
        return listen;
    }
    let loopback = if listen.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    tracing::warn!(
        port = listen.port(),
        "no users are listed: this gateway listens on the loopback address only; list users, or give it one \
         address to listen on"
    );
    SocketAddr::new(loopback, listen.port())
}

/// Runs a gateway until the runtime stops or its disk fails.
///
/// # Errors
/// [`Error`].
pub async fn run<E, N>(context: E, network: N, config: Config) -> Result<(), Error>
where
    E: Spawner + Clock + Storage + Metrics + CryptoRng + Resolver,
    N: Network,
{
    let mut stopped = context.stopped();
    let network = SharedNetwork::new(network);
    let own = Account::of(&config.key.public_key());
    let access = Access::new(config.owner, &config.users)?;
    let address = listening(config.listen, &config.users);
    let means = Means {
        key: config.key.clone(),
        partition: config.partition,
        nodes: config.nodes,
        keeps_floor: true,
        light: Light::new(config.chain, config.network_key),
        parameters: config.parameters,
        policy: config.policy,
        alerts: config.alerts,
        volume: config.volume,
    };
    let Consumer { shared, agreements, heard, contents, found, disk } =
        Consumer::<Files>::open(&context, &network, means).await?;
    let catalogue = Catalogue::of(shared.common.catalogue.clone(), contents);
    let (shared, notices) = Shared::new(shared, catalogue, heard, config.grace);
    account::start(&agreements, None, Some(renew::drainer(&shared)));
    shared.common.environment.spawn(repair::reap(shared.clone()));
    let repair = repair::start(shared.clone(), notices, found.open);
    let (environment, height) = (shared.common.environment.clone(), shared.height.clone());
    let service = Arc::new(Service { shared, account: own, access });
    let server = Server::<Gateway, _>::new(move |call, ask| serve::handle(service.clone(), call, ask));
    let listen = Listen::new(config.key, <Gateway as rpc::Service>::NAMESPACE, address);
    let listening = server.listen(context.child("listen"), &network, listen).await?;
    tracing::info!(address = %listening.address, account = %own, owner = %config.owner, users = config.users.len(), "the gateway serves");
    environment.spawn(log_ready(environment.clone(), height));
    select! {
        _ = &mut stopped => Ok(()),
        ended = disk => match ended {
            Ok(Err(error)) => Err(error.into()),
            _ => Err(Stopped.into()),
        },
        ended = repair => Ok(ended?),
        // A gateway that accepts no connections is useless: it ends, and its supervisor restarts it.
        _ = listening.task => Err(Error::Deaf(listening.address)),
    }
}

/// Logs the first certified height: from then on the gateway knows its agreements' state.
async fn log_ready(environment: Environment, height: Arc<AtomicU64>) {
    while height.load(Ordering::Relaxed) == 0 {
        environment.sleep(READY_LOOK).await;
    }
    tracing::info!(height = height.load(Ordering::Relaxed), "ready: the gateway follows the chain");
}

#[cfg(test)]
mod addresses {
    use super::*;

    #[test]
    fn every_address_is_loopback_until_users_are_listed() {
        let user = [User::from(Account([1; 32]))];
        for (told, users, listens) in [
            ("0.0.0.0:7", &[][..], "127.0.0.1:7"),
            ("[::]:7", &[], "[::1]:7"),
            ("0.0.0.0:7", &user, "0.0.0.0:7"),
            ("127.0.0.2:7", &[], "127.0.0.2:7"),
            ("192.0.2.1:7", &[], "192.0.2.1:7"),
        ] {
            let told = told.parse().expect("an address");
            assert_eq!(listening(told, users), listens.parse().expect("an address"), "{told}");
        }
    }
}
