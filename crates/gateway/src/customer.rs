//! Who holds agreements under an account: what a gateway and an auditor have in common.
//!
//! A provider meets nothing but this: the account, the terms that [`crate::purse`] asks for, and the
//! reads of [`crate::sample`] and of files.

use crate::{
    Error, Shared,
    catalogue::{self, LoadedDeed},
    core::Core,
    deed::Common,
    dialer,
    environment::Environment,
    ledger::Ledger,
    limits::MAILBOX,
    purse::{self, Policy, Purse, state::Stage},
    repair::Notice,
    sample::{self, Sample, Sampler},
};
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_runtime::{Clock, Handle, Metrics, Network, Spawner, Storage};
use commonware_utils::channel::mpsc;
use posync_alert::Alerts;
use posync_client::{
    account::Submitter,
    connection::{Connection, Endpoint},
    floor,
    light::{Light, NetworkKey},
};
use posync_protocol::{Account, Hash, limits::Parameters};
use rand_core::CryptoRng;
use std::{collections::BTreeSet, sync::Arc};

/// What a customer is told.
#[derive(Clone)]
pub(crate) struct Means {
    /// Its key: account, node identity and payer. No other process may spend from this account.
    pub(crate) key: PrivateKey,
    /// Prefix of its partitions in the runtime's storage.
    pub(crate) partition: String,
    /// Nodes to ask, in turn.
    pub(crate) nodes: Vec<Endpoint>,
    /// Whether the newest proved height is kept through a restart.
    pub(crate) keeps_floor: bool,
    /// SHA-256 of the genesis.
    pub(crate) chain: Hash,
    /// Under which certificates verify.
    pub(crate) network_key: NetworkKey,
    /// Genesis parameters.
    pub(crate) parameters: Parameters,
    /// What agreements to open.
    pub(crate) policy: Policy,
    /// Where its alerts go.
    pub(crate) alerts: Alerts,
}

/// A customer that is not at work yet.
pub(crate) struct Customer {
    /// Its agreements, and what is known of providers.
    pub(crate) core: Arc<Core>,
    /// Keeps the agreements.
    pub(crate) purse: Arc<Purse>,
    /// What repair is told.
    pub(crate) heard: mpsc::Receiver<Notice>,
    /// Segments without eight holders.
    pub(crate) incomplete: Vec<(crate::coding::FileId, u32)>,
    /// Ends when the catalogue cannot go on.
    pub(crate) disk: Handle<Result<(), catalogue::Error>>,
}

impl Customer {
    /// Opens the catalogue and takes up what it knows.
    ///
    /// # Errors
    /// [`Error`].
    pub(crate) async fn open<E, N>(context: &E, network: &Arc<N>, means: Means) -> Result<Self, Error>
    where
        E: Spawner + Clock + Storage + Metrics + CryptoRng,
        N: Network,
    {
        let Means { key, partition, nodes, keeps_floor, chain, network_key, parameters, policy, alerts } =
            means;
        let environment = Environment::new(context);
        let opened = catalogue::start(context.child("catalogue"), &partition, environment.random()).await;
        let (catalogue, loaded, disk) = opened?;
        let common =
            Common { environment, catalogue, chain, master: loaded.master, signed: Default::default() };
        let (notices, heard) = mpsc::channel(MAILBOX);
        let core = Core::new(common, notices, parameters);
        let (dialing, light) = (context.child("nodes"), Light::new(chain, network_key));
        let (asking, others) = (context.child("second_node"), nodes.clone());
        // Any of them, and the next one: what one says is gone is asked of another.
        let first = usize::from(key.public_key().as_ref()[0]);
        let connection = Connection::new(dialing, Shared(network.clone()), key.clone(), nodes, light.clone())
            .beginning_at(first);
        let second = Connection::new(asking, Shared(network.clone()), key.clone(), others, light)
            .beginning_at(first + 1);
        if keeps_floor {
            floor::keep(context.child("floor"), &connection, &format!("{partition}-floor")).await;
        }
        let submitter = Submitter::new(connection.clone(), key.clone(), parameters);
        let kept = if loaded.hides_shards() { kept(&loaded.deeds) } else { Default::default() };
        let purse = Arc::new(Purse {
            core: core.clone(),
            ledger: Ledger::new(connection, submitter).beside(second),
            account: Account::of(&key.public_key()),
            parameters,
            policy,
            dialer: dialer(context, network, &key),
            links: Default::default(),
            opening: Default::default(),
            unsure: Default::default(),
            alerts,
            kept,
            aside: loaded.aside,
            retired: Default::default(),
            needed: Default::default(),
            upkeep: Default::default(),
            moving: Default::default(),
            reclaimed: Default::default(),
        });
        take_up(&purse, loaded.deeds);
        Ok(Self { core, purse, heard, incomplete: loaded.open, disk })
    }

    /// Begins to keep agreements and to sample those who are at the other end.
    pub(crate) fn start(&self, tell: Option<mpsc::Sender<Sample>>) {
        let sampler = Sampler {
            core: self.core.clone(),
            ledger: self.purse.ledger.clone(),
            parameters: self.purse.parameters,
            secret: self.core.common.master,
            tell,
            names: Default::default(),
        };
        self.core.common.environment.spawn(purse::start(self.purse.clone()));
        self.core.common.environment.spawn(sample::start(Arc::new(sampler)));
    }
}

/// Agreements under which shards may be held.
fn kept(deeds: &[LoadedDeed]) -> BTreeSet<u32> {
    let may_hold = |deed: &&LoadedDeed| !matches!(Stage::of(&deed.row), Stage::Gone | Stage::Opening);
    deeds.iter().filter(may_hold).map(|deed| deed.number).collect()
}

/// Goes on with the agreements that the catalogue knows.
fn take_up(purse: &Purse, deeds: Vec<LoadedDeed>) {
    for loaded in deeds {
        match Stage::of(&loaded.row) {
            Stage::Gone => {}
            Stage::Opening => {
                purse.opening.lock().expect("no holder of this lock panics").push(loaded);
            }
            _ => purse.add(loaded),
        }
    }
}
