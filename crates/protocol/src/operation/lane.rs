//! Lanes of a block: the order of operations, the fee that they pay, and their nonces (BL-5, RD-8).

use super::Body;

/// A part of a block's body. Lanes follow each other in this order. An operation's kind alone decides
/// its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Answers to challenges: free, without a nonce.
    StorageProof,
    /// Audits and evidence: at the fee floor, without a nonce; a block with a refused one is invalid
    /// (RD-8).
    Reserved,
    /// Upkeep by anyone: free, without a nonce; a block with a refused one is invalid.
    Upkeep,
    /// Everything else: at the base fee, in the order of nonces; may be in a block even if refused.
    Paid,
}

impl Body {
    /// True for kinds that pay no fee: storage proofs and upkeep.
    pub const fn is_free(&self) -> bool {
        match self.lane() {
            Lane::StorageProof | Lane::Upkeep => true,
            Lane::Reserved | Lane::Paid => false,
        }
    }

    /// True for kinds that carry the account's next nonce: those of the paid lane.
    pub const fn has_nonce(&self) -> bool {
        match self.lane() {
            Lane::Paid => true,
            Lane::StorageProof | Lane::Reserved | Lane::Upkeep => false,
        }
    }
}
