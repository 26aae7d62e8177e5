//! Lanes of a block: where an operation stands, what it pays, and whether it carries a nonce (RD-8).

use super::Body;

/// A part of a block's body. They stand in this order, and each operation's kind alone says in which
/// it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Answers to challenges: free, without a nonce.
    Statement,
    /// Audits and evidence: at the least fee, without a nonce, kept only if they succeed (RD-8).
    Reserved,
    /// Upkeep of anyone: free, without a nonce, kept only if it succeeds.
    Upkeep,
    /// Everything else: at the base fee, in the order of nonces.
    Paid,
}

impl Body {
    /// Where it stands in a block.
    pub const fn lane(&self) -> Lane {
        match self {
            Self::Statement(_) => Lane::Statement,
            Self::AuditCommit(_) | Self::AuditReveal(_) | Self::Evidence(_) => Lane::Reserved,
            Self::Settle(_) => Lane::Upkeep,
            _ => Lane::Paid,
        }
    }

    /// Whether it costs nothing.
    pub const fn is_free(&self) -> bool {
        matches!(self.lane(), Lane::Statement | Lane::Upkeep)
    }

    /// Whether it carries its account's next nonce.
    pub const fn has_nonce(&self) -> bool {
        matches!(self.lane(), Lane::Paid)
    }
}
