//! The provider's interface to the ledger: proven records, certified heights, and sending operations.
//!
//! Two implementations: a light connection to a node ([`crate::node`]), and the rules in memory in
//! the reconciler's tests.

use posync_protocol::{Body, Code, Key, Record, Slot};

/// Reasons for which the ledger gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// No node answered, or none could prove its answer.
    #[error("no node of the ledger gives a proven answer: {0}")]
    Unreachable(String),
    /// The operation was refused before or in a block.
    #[error("the ledger refused it: {}", .0.explain())]
    Refused(Code),
    /// None of the nodes asked keeps the block any more.
    #[error("no node keeps the block any more")]
    Pruned,
    /// A proven slot does not decode: this program is older than the ledger.
    #[error("a record of the ledger does not decode; install a newer version")]
    Record,
}

/// Records in the order of the keys, and the certified height at which they were proved.
pub(crate) type Proven = (u64, Vec<Option<Slot>>);

/// A view of the ledger that believes only proofs.
pub trait Ledger: Clone + Send + Sync + 'static {
    /// Proves at most [`posync_protocol::limits::READ_KEYS_MAX`] records.
    fn read(&self, keys: Vec<Key>) -> impl Future<Output = Result<Proven, LedgerError>> + Send;

    /// Proves records by two different nodes, or by the only known one, each at or above a height. Other
    /// nodes replace those that lag or do not answer.
    ///
    /// # Errors
    /// `Unreachable` while fewer nodes prove them.
    fn confirmers(
        &self,
        keys: Vec<Key>,
        least: u64,
    ) -> impl Future<Output = Result<Vec<Proven>, LedgerError>> + Send;

    /// Waits for a certified height above `height`; returns the newest, and may skip some.
    fn above(&self, height: u64) -> impl Future<Output = Result<u64, LedgerError>> + Send;

    /// Slots at which an operation of the block at `height` asks to open an agreement with this
    /// provider. They are hints; each needs a proof.
    ///
    /// # Errors
    /// `Pruned` when every node that may be asked has dropped the block; the other errors may pass.
    fn openings(&self, height: u64) -> impl Future<Output = Result<Vec<u32>, LedgerError>> + Send;

    /// Signs a free operation and submits it to a node; whether it reached a block shows in state.
    fn send(&self, body: Body) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Signs a paid operation with the account's next nonce and waits for its receipt.
    fn pay(&self, body: Body) -> impl Future<Output = Result<(), LedgerError>> + Send;
}

/// Decodes a proven slot.
///
/// # Errors
/// `Record`.
pub(crate) fn decode<R: Record>(slot: Option<&Slot>) -> Result<Option<R>, LedgerError> {
    slot.map(|slot| R::from_slot(slot).map_err(|_| LedgerError::Record)).transpose()
}
