//! The holder of agreements under one account: the part that a gateway and an auditor share.
//!
//! A provider sees only the account, the terms that [`crate::agreements`] asks for, and the reads of
//! [`crate::sample`] and of files.

use crate::{
    Error, SharedNetwork,
    agreement::Common,
    agreements::{self, Agreements, Policy, state::Stage},
    catalogue::{self, LoadedAgreement},
    dialer,
    environment::Environment,
    ledger::Ledger,
    limits::MAILBOX,
    repair::Notice,
    sample::{self, Sample, Sampler},
    shared::Shared,
};
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_runtime::{Clock, Handle, Metrics, Network, Resolver, Spawner, Storage};
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

/// Configuration of a consumer's account, nodes and agreements.
#[derive(Clone)]
pub(crate) struct Means {
    /// Its key: account, node identity and payer. No other process may spend from this account.
    pub(crate) key: PrivateKey,
    /// Prefix of its partitions in the runtime's storage.
    pub(crate) partition: String,
    /// Nodes of the network, asked in turn.
    pub(crate) nodes: Vec<Endpoint>,
    /// True if the newest proved height is kept across restarts.
    pub(crate) keeps_floor: bool,
    /// SHA-256 hash of the genesis.
    pub(crate) chain: Hash,
    /// The key under which certificates verify.
    pub(crate) network_key: NetworkKey,
    /// Parameters from the genesis.
    pub(crate) parameters: Parameters,
    /// Decides which agreements to open.
    pub(crate) policy: Policy,
    /// Receives the alerts about its agreements.
    pub(crate) alerts: Alerts,
}

/// A consumer whose tasks have not started.
pub(crate) struct Consumer {
    /// Its agreements, and its knowledge of providers.
    pub(crate) shared: Arc<Shared>,
    /// Opens, renews and closes the agreements.
    pub(crate) agreements: Arc<Agreements>,
    /// Notices of loss, for repair.
    pub(crate) heard: mpsc::Receiver<Notice>,
    /// Segments with fewer than eight holders.
    pub(crate) incomplete: Vec<(crate::coding::FileId, u32)>,
    /// The catalogue's task; it ends when the catalogue fails or is no longer used.
    pub(crate) disk: Handle<Result<(), catalogue::Error>>,
}

impl Consumer {
    /// Opens the catalogue and resumes the agreements in it.
    ///
    /// # Errors
    /// [`Error`].
    pub(crate) async fn open<E, N>(context: &E, network: &Arc<N>, means: Means) -> Result<Self, Error>
    where
        E: Spawner + Clock + Storage + Metrics + CryptoRng + Resolver,
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
        let shared = Shared::new(common, notices, parameters);
        let (dialing, light) = (context.child("nodes"), Light::new(chain, network_key));
        let (asking, others) = (context.child("second_node"), nodes.clone());
        // Starts at an arbitrary node, and at the one after it: absence is confirmed by a second node.
        let first = usize::from(key.public_key().as_ref()[0]);
        let connection =
            Connection::new(dialing, SharedNetwork(network.clone()), key.clone(), nodes, light.clone())
                .beginning_at(first);
        let second = Connection::new(asking, SharedNetwork(network.clone()), key.clone(), others, light)
            .beginning_at(first + 1);
        if keeps_floor {
            floor::keep(context.child("floor"), &connection, &format!("{partition}-floor")).await;
        }
        let submitter = Submitter::new(connection.clone(), key.clone(), parameters);
        let kept = if loaded.hides_shards() { kept(&loaded.agreements) } else { Default::default() };
        let agreements = Arc::new(Agreements {
            shared: shared.clone(),
            ledger: Ledger::new(connection, submitter).beside(second),
            account: Account::of(&key.public_key()),
            parameters,
            policy,
            dialer: dialer(context, network, &key),
            peers: Default::default(),
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
        take_up(&agreements, loaded.agreements);
        Ok(Self { shared, agreements, heard, incomplete: loaded.open, disk })
    }

    /// Starts the upkeep of agreements and the sampling of their providers. A sender gets every sample.
    pub(crate) fn start(&self, tell: Option<mpsc::Sender<Sample>>) {
        let sampler = Sampler {
            shared: self.shared.clone(),
            ledger: self.agreements.ledger.clone(),
            parameters: self.agreements.parameters,
            secret: self.shared.common.master,
            tell,
            names: Default::default(),
        };
        self.shared.common.environment.spawn(agreements::start(self.agreements.clone()));
        self.shared.common.environment.spawn(sample::start(Arc::new(sampler)));
    }
}

/// The numbers of agreements under which shards may be held.
fn kept(agreements: &[LoadedAgreement]) -> BTreeSet<u32> {
    let may_hold =
        |agreement: &&LoadedAgreement| !matches!(Stage::of(&agreement.row), Stage::Gone | Stage::Opening);
    agreements.iter().filter(may_hold).map(|agreement| agreement.number).collect()
}

/// Resumes the agreements that the catalogue knows.
fn take_up(agreements: &Agreements, all: Vec<LoadedAgreement>) {
    for loaded in all {
        match Stage::of(&loaded.row) {
            Stage::Gone => {}
            Stage::Opening => {
                agreements.opening.lock().expect("no holder of this lock panics").push(loaded);
            }
            _ => agreements.add(loaded),
        }
    }
}
