//! Why a question has no answer, and what is known of an operation then.

use crate::light;
use posync_protocol::{Code, Hash, wire::node::Unavailable};

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No node answered in time.
    #[error("no node answers, the last one said: {0}; check that the network runs")]
    Unreachable(String),
    /// No endpoint was given.
    #[error("no node is configured; name at least one")]
    NoEndpoint,
    /// What the nodes say does not lead to the network key.
    #[error("a node's answer is not believed: {0}")]
    NotBelieved(#[from] light::Error),
    /// The nodes cannot answer it.
    #[error("the nodes cannot answer: {}", match .0 {
        Unavailable::Pruned => "the block is older than what they keep",
        Unavailable::NotYet => "the block is not final yet",
        Unavailable::Moved => "the state moves too fast",
        Unavailable::Busy => "they are busy; try later",
    })]
    Unavailable(Unavailable),
    /// The operation is refused: by its receipt, by what is proved, or in the answer to
    /// [`super::Connection::submit`] by the node that was asked.
    #[error("the ledger refuses the operation, code {}: {}", *.0 as u8, .0.explain())]
    Refused(Code),
    /// The operation did not become final before its expiry height, and never will.
    #[error("the operation did not become final before it expired, and never will; send it again")]
    Expired,
    /// The nodes show a state that is older than what was proved before.
    #[error(
        "the nodes show block {height}, but block {floor} was proved before; they are catching up, or hold \
         back: wait, or ask other nodes"
    )]
    Behind {
        /// What is shown.
        height: u64,
        /// What was proved.
        floor: u64,
    },
    /// An operation was given to the network, and what became of it is not proved.
    #[error(
        "operation {} was given to the network, but what became of it is not proved: {why}; it may still \
         happen until block {expires} is final. {}", hex(.id), advice(*.nonce, *.expires)
    )]
    Undecided {
        /// Of the last bytes that were signed for it.
        id: Hash,
        /// Its nonce; `None` for an operation that has none.
        nonce: Option<u64>,
        /// The last block that may hold it.
        expires: u64,
        /// Why nodes did not take it: their word.
        refusal: Option<Code>,
        /// Why nothing is proved.
        why: String,
    },
    /// The question is outside its bounds.
    #[error("the question is too large: {0}")]
    TooLarge(&'static str),
}

/// What to do about an operation that is not decided.
fn advice(nonce: Option<u64>, expires: u64) -> String {
    match nonce {
        Some(nonce) => format!(
            "Do not send it again before: it has nonce {nonce}, and while the account's next nonce is {nonce} \
             at a block above {expires}, it never happened"
        ),
        None => "It may be sent again: it counts once, however often it is sent".into(),
    }
}

/// A hash in hex.
fn hex(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
