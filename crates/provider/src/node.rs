//! The ledger as a provider sees it: over a light connection to the network's nodes.

use crate::{
    condition::Condition,
    ledger::{Ledger, LedgerError, Proven},
    reconciler::EMPTY_BLOCKS,
    view::View,
};
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_runtime::{Clock, Spawner};
use commonware_utils::sync::Mutex;
use posync_client::{
    account::Submitter,
    connection::{Connection, Error},
    watch,
};
use posync_protocol::{Account, Amount, Body, Key, Operation, limits::Parameters, wire::node::Unavailable};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// Pause after the nodes were out of reach.
const PAUSE: Duration = Duration::from_millis(500);

/// Nodes that must prove the absence of a record: trusted ones while one of them answers.
const CONFIRMERS: usize = 2;

/// A light connection, the sender of this provider's operations, and the newest certified height.
#[derive(Clone)]
pub(crate) struct Node {
    connection: Connection,
    submitter: Submitter,
    key: PrivateKey,
    parameters: Parameters,
    height: watch::Receiver<u64>,
    /// Index of the second node that receives the next operation.
    turn: Arc<AtomicUsize>,
    signed: Arc<Mutex<Signed>>,
}

/// The storage proof that was signed last. Sent again, it is the same operation: nodes know it, where a second one for
/// the same challenge would wait for a block and may find no room then.
#[derive(Default)]
struct Signed(Option<Operation>);

impl Signed {
    /// An operation with this body that expires after `height`: the one signed before, or a new one.
    fn operation(&mut self, body: Body, height: u64, sign: impl FnOnce(Body) -> Operation) -> Operation {
        if !matches!(body, Body::StorageProof(_)) {
            return sign(body);
        }
        let same = self.0.take().filter(|last| last.body == body && last.expires > height);
        let operation = same.unwrap_or_else(|| sign(body));
        self.0 = Some(operation.clone());
        operation
    }
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
    pub(crate) fn start<E: Spawner + Clock>(
        context: E,
        connection: Connection,
        key: PrivateKey,
        view: View,
    ) -> Self {
        let (heights, height) = watch::channel(0);
        let (followed, parameters) = (connection.clone(), view.parameters);
        context.spawn(move |context| async move { follow(&context, &followed, &view, &heights).await });
        let submitter = Submitter::new(connection.clone(), key.clone(), parameters);
        let (turn, signed) = (Arc::default(), Arc::default());
        Self { connection, submitter, key, parameters, height, turn, signed }
    }
}

/// Publishes the newest height; a gap in the nodes' blocks is skipped. While nothing is due, the headers of
/// several blocks are read together: one certificate proves them all.
async fn follow<E: Clock>(context: &E, connection: &Connection, view: &View, heights: &watch::Sender<u64>) {
    let block = Duration::from_millis(view.parameters.block_ms);
    // The last of these blocks may be a little late.
    let pause = block * u32::try_from(EMPTY_BLOCKS).unwrap_or(1) + block / 4;
    let (mut chain, mut condition) = (connection.follow(0), Condition::new("the ledger cannot be followed"));
    loop {
        match chain.next_run().await {
            Ok(run) => {
                condition.ended();
                if let Some(newest) = run.headers.last() {
                    heights.send_replace(newest.height);
                }
                if view.is_calm(EMPTY_BLOCKS + 2) {
                    context.sleep(pause).await;
                }
            }
            Err(error) => {
                if matches!(error, Error::Unavailable(Unavailable::Pruned)) {
                    chain = connection.follow(0);
                }
                condition.holds(&error);
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

    async fn confirmers(&self, keys: Vec<Key>, least: u64) -> Result<Vec<Proven>, LedgerError> {
        let proofs = self.connection.read_from_several(&keys, least, CONFIRMERS).await?;
        Ok(proofs.into_iter().map(|proved| (proved.header.height, proved.value)).collect())
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
        let sign = |body| Operation::signed(&self.key, &chain, 0, Amount::ZERO, expires, body);
        let operation = self.signed.lock().operation(body, height, sign);
        // Two nodes, the second in rotation: a node that accepts it and withholds it delays nothing.
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let given = (self.connection.submit(&operation), self.connection.submit_elsewhere(turn, &operation));
        let (first, second) = futures::join!(given.0, given.1);
        first.map(drop).or_else(|error| second.map_err(|_| error))?;
        Ok(())
    }

    async fn pay(&self, body: Body) -> Result<(), LedgerError> {
        self.submitter.send(body).await?.done()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use posync_protocol::operation::StorageProof;

    #[test]
    fn a_storage_proof_that_is_sent_again_is_the_same_operation_until_it_expires() {
        let key = PrivateKey::from_seed(7);
        let proof = |height| Body::StorageProof(StorageProof { height, ..StorageProof::default() });
        let mut signed = Signed::default();
        let mut send = |body: Body, height: u64| {
            let sign = |body| Operation::signed(&key, &[1; 32], 0, Amount::ZERO, height + 8, body);
            signed.operation(body, height, sign).id()
        };
        let first = send(proof(3), 10);
        assert_eq!([send(proof(3), 11), send(proof(3), 17)], [first; 2], "nodes know it");
        assert_ne!(send(proof(3), 18), first, "no block takes the first one any more");
        assert_ne!(send(proof(4), 18), send(proof(3), 18), "another challenge, another operation");
    }
}
