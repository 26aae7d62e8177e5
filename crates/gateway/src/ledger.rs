//! The gateway's account on the ledger: proven reads, and operations in the order in which they
//! were given.
//!
//! Invariants
//! 1. What is read came with a proof to a certificate of the network.
//! 2. Calls of [`Ledger::execute`] that are polled in an order take nonces in that order.
//! 3. At most [`IN_FLIGHT_MAX`] operations wait: below the mempool's bound for one account.

use posync_client::{
    account::Submitter,
    connection::{self, Connection},
};
use posync_protocol::{Body, Code, Key, Record, Slot, block::BlockBody};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Operations without a receipt at once.
pub const IN_FLIGHT_MAX: usize = 32;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No node can be asked, or none is believed.
    #[error("the ledger cannot be reached: {0}")]
    Unreachable(String),
    /// It did not become final in time, or its receipt is gone: read what it would have changed.
    #[error("an operation did not become final before it expired")]
    Expired,
    /// The gateway is stopping.
    #[error("the gateway is stopping")]
    Stopping,
    /// A bound of the gateway.
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

/// A handle to the account.
#[derive(Clone)]
pub struct Ledger {
    connection: Connection,
    submitter: Submitter,
    /// Begins with another node: what is to be given up is asked of two.
    second: Option<Connection>,
    places: Arc<Semaphore>,
}

impl Ledger {
    /// Reads over `connection`, spends as `submitter`.
    pub fn new(connection: Connection, submitter: Submitter) -> Self {
        Self { connection, submitter, second: None, places: Arc::new(Semaphore::new(IN_FLIGHT_MAX)) }
    }

    /// Asks `second` too before something counts as absent.
    #[must_use]
    pub fn beside(self, second: Connection) -> Self {
        Self { second: Some(second), ..self }
    }

    /// The newest certified height seen.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub async fn height(&self) -> Result<u64, Error> {
        Ok(self.connection.height().await?)
    }

    /// Whether two nodes prove, at heights of at least `floor`, that no record at `key` is `ours`. One
    /// node alone may lag behind what happened.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub async fn is_absent<R: Record>(
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

    /// Records of one certified state, and its height; at most
    /// [`posync_protocol::limits::READ_KEYS_MAX`].
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub async fn read(&self, keys: Vec<Key>) -> Result<(u64, Vec<Option<Slot>>), Error> {
        let proved = self.connection.read_many(&keys).await?;
        Ok((proved.header.height, proved.value))
    }

    /// One record.
    ///
    /// # Errors
    /// [`Error::Unreachable`], also for a slot that does not decode.
    pub async fn record<R: Record>(&self, key: Key) -> Result<Option<R>, Error> {
        Ok(self.connection.read::<R>(key).await?.value)
    }

    /// The body of a final block; `None` if it is not final yet or not kept any more.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub async fn body(&self, height: u64) -> Result<Option<BlockBody>, Error> {
        let body = async { self.connection.body(&self.connection.header(height).await?).await };
        match body.await {
            Ok(body) => Ok(Some(body)),
            Err(connection::Error::Unavailable(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Has an operation executed; what its receipt says, or a node that does not take it.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn execute(&self, body: Body) -> Result<Code, Error> {
        Ok(self.ask(body).await?.0)
    }

    /// Has an operation executed. Whether its receipt says so, or only a node's word.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn ask(&self, body: Body) -> Result<(Code, bool), Error> {
        let _place = self.places.acquire().await.expect("the semaphore is never closed");
        match self.submitter.send(body).await {
            Ok(done) => Ok((done.receipt.code, true)),
            // Another operation took its nonce, or its receipt is gone.
            Err(connection::Error::Refused(Code::NonceOld | Code::NonceGap)) => Err(Error::Expired),
            Err(connection::Error::Refused(code)) => Ok((code, false)),
            // Sent again, it counts once.
            Err(connection::Error::Undecided { nonce: None, refusal: Some(code), .. }) => Ok((code, false)),
            Err(error) => Err(error.into()),
        }
    }
}

/// Reads a slot of a certified state.
///
/// # Errors
/// [`Error::Unreachable`] for one of another kind: the node runs other rules.
pub fn decode<R: Record>(slot: Option<Slot>) -> Result<Option<R>, Error> {
    let decoded = slot.map(|slot| R::from_slot(&slot)).transpose();
    decoded.map_err(|_| Error::Unreachable("a record does not decode; is this version the network's?".into()))
}
