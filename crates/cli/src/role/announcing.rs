//! Announces an authority or a node without a seat in the ledger, beside its services.

use super::settings::Settings;
use crate::{
    failure::{Exit, Failure, Outcome},
    network::Role,
};
use commonware_cryptography::ed25519::PrivateKey;
use commonware_runtime::{Spawner as _, Supervisor as _, tokio::Context};
use posync_client::{
    address::Address,
    connection::{Connection, Endpoint},
};
use posync_node::{
    Steady,
    announce::{self, ListEntry},
    handle::Handle,
};
use posync_protocol::Amount;

/// The announcement of a role: its key, the nodes that it asks, and its entry.
pub(super) struct Announcing {
    key: PrivateKey,
    nodes: Vec<Endpoint>,
    entry: Option<ListEntry>,
}

impl Announcing {
    /// Reads the entry of a role that is reached at `address` from its settings.
    ///
    /// # Errors
    /// [`Failure`] that names what to set.
    pub(super) fn new(
        settings: &Settings,
        key: PrivateKey,
        nodes: Vec<Endpoint>,
        address: &Address,
    ) -> Outcome<Self> {
        let wanted = settings.flag("announce")?;
        // A seat is listed without a deposit.
        let deposit = match settings.role {
            Role::Node => u128::from(settings.count("announce_deposit")?),
            _ => 0,
        };
        let deposit =
            Amount::new(deposit.saturating_mul(posync_protocol::amount::SYNC)).unwrap_or(Amount::MAX);
        let region = settings.text("region")?;
        // Port 0 is any free port of this machine: no address can be announced.
        let entry = (wanted && address.port() > 0)
            .then(|| {
                ListEntry::new(address, settings.flag("archive")?, region, deposit)
                    .map_err(|why| refused(settings, why))
            })
            .transpose()?;
        Ok(Self { key, nodes, entry })
    }

    /// Keeps the entry in the ledger as it is set, for as long as the role runs.
    pub(super) fn start(self, context: &Context, handle: &Handle) {
        let Self { key, nodes, entry } = self;
        let light = handle.light();
        let parameters = handle.genesis().parameters;
        let (asking, network) = (context.child("announcing"), context.child("announcing_sockets"));
        let asking = Steady::of_machine(asking);
        let connection = Connection::new(asking, network, key.clone(), nodes, light).beginning_at(0);
        drop(Steady::of_machine(context.child("announce")).spawn(move |context| async move {
            announce::keep(context, connection, key, parameters, entry).await;
        }));
    }
}

fn refused(settings: &Settings, why: String) -> Failure {
    let next = format!(
        "change `service_advertise` or `region` in {}, or set announce = false",
        settings.path().display()
    );
    Failure::new(Exit::Usage, "the ledger cannot list this node", why, next)
}
