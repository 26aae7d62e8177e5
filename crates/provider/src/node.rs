//! The ledger as a provider sees it: over a light connection to the network's nodes.

use crate::ledger::{Ledger, LedgerError, Proven};
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_runtime::{Clock, Spawner};
use commonware_utils::channel::watch;
use posync_client::{
    account::Submitter,
    connection::{Connection, Error},
};
use posync_protocol::{Account, Amount, Body, Key, Operation, limits::Parameters, wire::node::Unavailable};
use std::time::Duration;

/// Pause after the nodes were out of reach.
const PAUSE: Duration = Duration::from_millis(500);

/// A light connection, the sender of this provider's operations, and the newest certified height.
#[derive(Clone)]
pub struct Node {
    connection: Connection,
    submitter: Submitter,
    key: PrivateKey,
    parameters: Parameters,
    height: watch::Receiver<u64>,
}

impl From<Error> for LedgerError {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(code) => Self::Refused(code),
            Error::Unavailable(Unavailable::Pruned) => Self::Pruned,
            other => Self::Unreachable(other.to_string()),
        }
    }
}

impl Node {
    /// Follows the chain over `connection` for as long as `context` lives.
    pub fn start<E: Spawner + Clock>(
        context: E,
        connection: Connection,
        key: PrivateKey,
        parameters: Parameters,
    ) -> Self {
        let (tell, height) = watch::channel(0);
        let followed = connection.clone();
        context.spawn(move |context| async move { follow(&context, &followed, &tell).await });
        let submitter = Submitter::new(connection.clone(), key.clone(), parameters);
        Self { connection, submitter, key, parameters, height }
    }
}

/// Tells every new height; a gap in what nodes keep is skipped.
async fn follow<E: Clock>(context: &E, connection: &Connection, tell: &watch::Sender<u64>) {
    let mut chain = connection.follow(0);
    loop {
        match chain.next().await {
            Ok(header) => {
                tell.send_replace(header.height);
            }
            Err(error) => {
                if matches!(error, Error::Unavailable(Unavailable::Pruned)) {
                    chain = connection.follow(0);
                }
                tracing::warn!(%error, "following the ledger was interrupted");
                context.sleep(PAUSE).await;
            }
        }
    }
}

impl Ledger for Node {
    async fn read(&self, keys: Vec<Key>) -> Result<Proven, LedgerError> {
        let proved = self.connection.read_many(&keys).await?;
        Ok((proved.header.height, proved.value))
    }

    async fn above(&self, height: u64) -> Result<u64, LedgerError> {
        let mut heights = self.height.clone();
        let newest = heights.wait_for(|newest| *newest > height).await;
        newest.map(|newest| *newest).map_err(|_| LedgerError::Unreachable("the follower ended".into()))
    }

    async fn openings(&self, height: u64) -> Result<Vec<u32>, LedgerError> {
        // The body is checked against the certified header: no node can leave an opening out.
        let header = self.connection.header(height).await?;
        let body = self.connection.body(&header).await?;
        let account = Account::of(&self.key.public_key());
        let slots = body.operations.iter().filter_map(|operation| match &operation.body {
            Body::Open(open) if open.provider == account => Some(open.slot),
            _ => None,
        });
        Ok(slots.collect())
    }

    async fn send(&self, body: Body) -> Result<(), LedgerError> {
        let height = *self.height.borrow();
        // A free operation that became useless should not wait long for a block.
        let expires = height + self.parameters.round_blocks.min(self.parameters.expiry_blocks_max);
        let chain = self.connection.light().chain();
        let operation = Operation::signed(&self.key, &chain, 0, Amount::ZERO, expires, body);
        self.connection.submit(&operation).await?;
        Ok(())
    }

    async fn pay(&self, body: Body) -> Result<(), LedgerError> {
        self.submitter.send(body).await?.done()?;
        Ok(())
    }
}
