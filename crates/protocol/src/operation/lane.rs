//! Lanes of a block: where an operation stands, what it pays, and whether it carries a nonce (BL-5,
//! RD-8).

use super::Body;

/// A part of a block's body. The lanes stand in this order; an operation's kind alone decides its
/// lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Answers to challenges: free, without a nonce.
    Statement,
    /// Audits and evidence: at the fee floor, without a nonce, may not stand if refused (RD-8).
    Reserved,
    /// Upkeep of anyone: free, without a nonce, may not stand if refused.
    Upkeep,
    /// Everything else: at the base fee, in the order of nonces; stands even if refused.
    Paid,
}

impl Body {
    /// The lane in which it stands.
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
