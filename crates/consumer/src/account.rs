//! The holder of agreements under one account: opens its catalogue, resumes its agreements, starts its
//! tasks.
//!
//! A provider sees only the account, the terms that [`crate::agreements`] asks for, and the reads of
//! [`crate::sample`] and of files.

use crate::{
    Error,
    agreement::Common,
    agreements::{self, Agreements, Drain, Policy, state::Stage},
    catalogue::{self, Contents, LoadedAgreement, Sender, Started},
    dialer,
    environment::Environment,
    ledger::Ledger,
    limits::MAILBOX,
    sample::{self, Sample, Sampler},
    shared::{Notice, Shared},
    volume::Volume,
};
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_runtime::{Clock, Handle, Metrics, Network, Resolver, Spawner, Storage};
use commonware_utils::channel::mpsc;
use posync_alert::Alerts;
use posync_client::{
    account::Submitter,
    channel::SharedNetwork,
    connection::{Connection, Endpoint},
    floor, known,
    light::Light,
};
use posync_protocol::{Account, limits::Parameters};
use rand_core::CryptoRng;
use std::{collections::BTreeSet, sync::Arc};

/// Configuration of a consumer's account, nodes and agreements.
#[derive(Clone)]
pub struct Means {
    /// Its key: account, node identity and payer. No other process may spend from this account.
    pub key: PrivateKey,
    /// Prefix of its partitions in the runtime's storage.
    pub partition: String,
    /// Nodes of the network, asked in turn.
    pub nodes: Vec<Endpoint>,
    /// True if the newest proved height is kept across restarts.
    pub keeps_floor: bool,
    /// Verifies the nodes' answers; its clones share the memory of certificates.
    pub light: Light,
    /// Parameters from the genesis.
    pub parameters: Parameters,
    /// Decides which agreements to open.
    pub policy: Policy,
    /// Receives the alerts about its agreements.
    pub alerts: Alerts,
    /// The volume of the catalogue.
    pub volume: Volume,
}

/// A consumer whose tasks have not started.
pub struct Consumer<C: Contents> {
    /// Its agreements, and its knowledge of providers.
    pub shared: Arc<Shared>,
    /// Opens, renews and closes the agreements.
    pub agreements: Arc<Agreements>,
    /// Findings about the shards that providers hold.
    pub heard: mpsc::Receiver<Notice>,
    /// The catalogue's rows beside those of agreements.
    pub contents: Sender<C::Ask>,
    /// The findings of the start in those rows.
    pub found: C::Found,
    /// The catalogue's task; it ends when the catalogue fails or is no longer used.
    pub disk: Handle<Result<(), catalogue::Error>>,
}

impl<C: Contents> Consumer<C> {
    /// Opens the catalogue and resumes the agreements in it.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn open<E, N>(context: &E, network: &SharedNetwork<N>, means: Means) -> Result<Self, Error>
    where
        E: Spawner + Clock + Storage + Metrics + CryptoRng + Resolver,
        N: Network,
    {
        let Means { key, partition, nodes, keeps_floor, light, parameters, policy, alerts, volume } = means;
        let chain = light.chain();
        let environment = Environment::new(context);
        let opened =
            catalogue::start::<C, _>(context.child("catalogue"), &partition, environment.random()).await;
        let Started { catalogue, contents, loaded, disk } = opened?;
        let common =
            Common { environment, catalogue, chain, master: loaded.master, signed: Default::default() };
        let (notices, heard) = mpsc::channel(MAILBOX);
        let shared = Shared::new(common, notices, parameters, volume);
        let dialing = context.child("nodes");
        let (asking, others) = (context.child("second_node"), nodes.clone());
        // Starts at an arbitrary node, and at the one after it: absence is confirmed by a second node.
        let first = usize::from(key.public_key().as_ref()[0]);
        let connection =
            Connection::new(dialing, network.clone(), key.clone(), nodes, light.clone()).beginning_at(first);
        let second =
            Connection::new(asking, network.clone(), key.clone(), others, light).beginning_at(first + 1);
        if keeps_floor {
            floor::keep(context.child("floor"), &connection, &format!("{partition}-floor")).await;
            let both = vec![connection.clone(), second.clone()];
            known::keep(context.child("known"), both, &format!("{partition}-known"), None).await;
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
            reclaimed: Default::default(),
        });
        take_up(&agreements, loaded.agreements);
        Ok(Self { shared, agreements, heard, contents, found: loaded.contents, disk })
    }
}

/// Starts the upkeep of agreements and the sampling of their providers. A sender gets every sample; `drain`
/// moves the shards of agreements that end.
pub fn start(agreements: &Arc<Agreements>, samples: Option<mpsc::Sender<Sample>>, drain: Option<Drain>) {
    let shared = &agreements.shared;
    let sampler = Sampler {
        shared: shared.clone(),
        ledger: agreements.ledger.clone(),
        parameters: agreements.parameters,
        secret: shared.common.master,
        samples,
        names: Default::default(),
    };
    shared.common.environment.spawn(agreements::start(agreements.clone(), drain));
    shared.common.environment.spawn(sample::start(Arc::new(sampler)));
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
                agreements.opening.lock().push(loaded);
            }
            _ => agreements.add(loaded),
        }
    }
}
