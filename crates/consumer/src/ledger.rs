//! The consumer's account on the ledger: proved reads, and operations in the order of their calls.
//!
//! Invariants
//! 1. Every record that is read has a proof under a certificate of the network.
//! 2. Calls of [`Ledger::execute`] take nonces in the order in which they are first polled.
//! 3. At most [`IN_FLIGHT_MAX`] operations are in flight: fewer than the mempool takes from one account.

use posync_client::{
    account::Submitter,
    connection::{self, Connection},
};
use posync_protocol::{Body, Code, Key, Record, Slot, block::BlockBody};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Most operations in flight without a receipt.
pub(crate) const IN_FLIGHT_MAX: usize = 32;

/// Reasons for a failed read or operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No node is reachable, or none gives a valid proof.
    #[error("the ledger cannot be reached: {0}")]
    Unreachable(String),
    /// The operation did not become final in time, or its receipt is pruned: read the state it would have
    /// changed.
    #[error("an operation did not become final before it expired")]
    Expired,
    /// This process is stopping.
    #[error("the gateway is stopping")]
    Stopping,
    /// A bound of this account is reached.
    #[error("{0}")]
    Full(&'static str),
}

impl From<connection::Error> for Error {
    fn from(error: connection::Error) -> Self {
        match error {
            connection::Error::Expired => Self::Expired,
            other => Self::Unreachable(other.to_string()),
        }
    }
}

/// A handle to the ledger, for one account.
#[derive(Clone)]
pub struct Ledger {
    connection: Connection,
    submitter: Submitter,
    /// A connection that starts at another node: absence is confirmed by two.
    second: Option<Connection>,
    places: Arc<Semaphore>,
}

impl Ledger {
    /// A handle that reads over `connection` and submits through `submitter`.
    pub fn new(connection: Connection, submitter: Submitter) -> Self {
        Self { connection, submitter, second: None, places: Arc::new(Semaphore::new(IN_FLIGHT_MAX)) }
    }

    /// Also asks `second` before a record counts as absent.
    #[must_use]
    pub(crate) fn beside(self, second: Connection) -> Self {
        Self { second: Some(second), ..self }
    }

    /// The newest certified height that was seen.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub(crate) async fn height(&self) -> Result<u64, Error> {
        Ok(self.connection.height().await?)
    }

    /// Returns true if two nodes prove, at heights of at least `floor`, that no record at `key` is
    /// `ours`. One node alone may lag behind.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub(crate) async fn is_absent<R: Record>(
        &self,
        key: Key,
        floor: u64,
        ours: impl Fn(&R) -> bool,
    ) -> Result<bool, Error> {
        for connection in [Some(&self.connection), self.second.as_ref()].into_iter().flatten() {
            let proved = connection.read::<R>(key).await?;
            if proved.header.height < floor || proved.value.is_some_and(|found| ours(&found)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads records of one certified state, and its height; at most
    /// [`posync_protocol::limits::READ_KEYS_MAX`] keys.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub(crate) async fn read(&self, keys: Vec<Key>) -> Result<(u64, Vec<Option<Slot>>), Error> {
        let proved = self.connection.read_many(&keys).await?;
        Ok((proved.header.height, proved.value))
    }

    /// Reads the record at `key`, if there is one.
    ///
    /// # Errors
    /// [`Error::Unreachable`], also for a slot that does not decode.
    pub(crate) async fn record<R: Record>(&self, key: Key) -> Result<Option<R>, Error> {
        Ok(self.connection.read::<R>(key).await?.value)
    }

    /// The body of a final block; `None` if the block is not final yet or was pruned.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub(crate) async fn body(&self, height: u64) -> Result<Option<BlockBody>, Error> {
        let body = async { self.connection.body(&self.connection.header(height).await?).await };
        match body.await {
            Ok(body) => Ok(Some(body)),
            Err(connection::Error::Unavailable(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Executes an operation; returns the code of its receipt, or of a node's refusal.
    ///
    /// # Errors
    /// [`Error`].
    pub(crate) async fn execute(&self, body: Body) -> Result<Code, Error> {
        Ok(self.ask(body).await?.0)
    }

    /// Executes an operation. The flag is true if the code comes from a final receipt, and false if a
    /// node refused the operation.
    ///
    /// # Errors
    /// [`Error`].
    pub(crate) async fn ask(&self, body: Body) -> Result<(Code, bool), Error> {
        let _place = self.places.acquire().await.expect("the semaphore is never closed");
        match self.submitter.send(body).await {
            Ok(done) => Ok((done.receipt.code, true)),
            // Another operation took the nonce, or the receipt is pruned.
            Err(connection::Error::Refused(Code::NonceOld | Code::NonceGap)) => Err(Error::Expired),
            Err(connection::Error::Refused(code)) => Ok((code, false)),
            // Undecided, but sent again without harm: it executes at most once.
            Err(connection::Error::Undecided { nonce: None, refusal: Some(code), .. }) => Ok((code, false)),
            Err(error) => Err(error.into()),
        }
    }
}

/// Decodes a slot of a certified state.
///
/// # Errors
/// [`Error::Unreachable`] if the slot holds another kind of record: the node runs other rules.
pub(crate) fn decode<R: Record>(slot: Option<Slot>) -> Result<Option<R>, Error> {
    let decoded = slot.map(|slot| R::from_slot(&slot)).transpose();
    decoded.map_err(|_| Error::Unreachable("a record does not decode; is this version the network's?".into()))
}
