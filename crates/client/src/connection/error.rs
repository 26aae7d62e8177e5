//! Why a request fails, and what is known of an operation then.

use crate::light;
use posync_protocol::{Code, Hash, wire::node::Unavailable};

/// Why a request fails.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No node answered in time.
    #[error("no node answers, the last one said: {0}; check that the network runs")]
    Unreachable(String),
    /// No endpoint was given.
    #[error("no node is configured; name at least one")]
    NoEndpoint,
    /// A node's answer does not verify under the network key.
    #[error("a node's answer is not believed: {0}")]
    NotBelieved(#[from] light::Error),
    /// The nodes cannot answer the request.
    #[error("the nodes cannot answer: {}", match .0 {
        Unavailable::Pruned => "the block is older than what they keep",
        Unavailable::NotYet => "the block is not final yet",
        Unavailable::Moved => "the state moves too fast",
        Unavailable::Busy => "they are busy; try later",
    })]
    Unavailable(Unavailable),
    /// The operation is refused: by its receipt, by the proved state, or by the node that answered
    /// [`super::Connection::submit`].
    #[error("the ledger refuses the operation, code {}: {}", *.0 as u8, .0.explain())]
    Refused(Code),
    /// The operation did not become final before its expiry height, and never will.
    #[error("the operation did not become final before it expired, and never will; send it again")]
    Expired,
    /// The nodes show a state older than the one proved before.
    #[error(
        "the nodes show block {height}, but block {floor} was proved before; they are catching up, or hold \
         back: wait, or ask other nodes"
    )]
    Behind {
        /// Height that the nodes show.
        height: u64,
        /// Height that was proved before.
        floor: u64,
    },
    /// Fewer nodes than needed prove a record, each by itself.
    #[error("{proved} of {needed} nodes that must prove it did; {failed}")]
    TooFew {
        /// Number of nodes that prove it.
        proved: usize,
        /// Number of nodes that must prove it.
        needed: usize,
        /// The nodes that do not, each with its reason.
        failed: String,
    },
    /// An operation was sent to the network, and its fate is not proved.
    #[error(
        "operation {} was given to the network, but what became of it is not proved: {why}; it may still \
         happen until block {expires} is final. {}", hex(.id), advice(*.nonce, *.expires)
    )]
    Undecided {
        /// Id of the bytes that were signed last for it.
        id: Hash,
        /// Nonce of the operation; `None` if it has none.
        nonce: Option<u64>,
        /// Last height at which it may be included.
        expires: u64,
        /// Reason for which nodes refused it. It is not proved.
        refusal: Option<Code>,
        /// Why its fate is not proved.
        why: String,
    },
    /// The request exceeds its bounds.
    #[error("the question is too large: {0}")]
    TooLarge(&'static str),
}

/// Advice for an operation whose fate is not proved.
fn advice(nonce: Option<u64>, expires: u64) -> String {
    match nonce {
        Some(nonce) => format!(
            "Do not send it again before: it has nonce {nonce}, and while the account's next nonce is {nonce} \
             at a block above {expires}, it never happened"
        ),
        None => "It may be sent again: it counts once, however often it is sent".into(),
    }
}

/// Formats a hash in hex.
fn hex(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
