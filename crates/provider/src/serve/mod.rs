//! The provider service: keep shards, sign data sets, stream verified slices against vouchers.
//!
//! ```text
//!   Put  --> terms proved? name right? quota? --> store (durable) --> Stored
//!   Sign --> books: root computed, consumer's signature, shards there, durable --> Signed
//!   Get  --> shard read whole and hashed --> slice, credit, slice, credit ... <-- Pay
//!   Probe, Filler ... --> bytes that arrive within the slot --> Counted (signed)
//!   Pay  --> the ledger's check --> till (durable) --> credit
//! ```
//!
//! Invariants
//! 1. `Stored` and `Signed` are sent after the sync that makes them true.
//! 2. No byte leaves beyond the credit window of its agreement, none beyond what can be redeemed.
//! 3. Every slice is proved to the shard's name; a damaged shard is refused, never served.
//! 4. At most [`LOAD_MAX`] requests at once; puts and downloads wait in a fair [`queue`] that bounds
//!    their number and bytes, so a greedy consumer delays nobody else. What waits for a proof of its
//!    agreement is bounded for each peer ([`waits`]).

mod count;
mod desk;
pub mod queue;
mod stream;
#[cfg(test)]
mod tests;
mod waits;

pub use desk::{Desk, Parts};

use posync_protocol::{
    Account, Bounded, Code,
    wire::provider::{Answer, Ask, Refusal, Refused},
};

/// Requests at once: the queue's, and the short ones that never wait in it.
pub const LOAD_MAX: u32 = 2048;
/// Milliseconds for which a stream waits for a voucher.
pub const PAY_WAIT_MS: u64 = 10_000;
/// Milliseconds for which a request waits for a proof of its terms.
pub const TERMS_WAIT_MS: u64 = 8_000;

/// Tells everything that is known of who asks for what, to an operator who looks for it: all that a
/// provider could tell its customers apart by.
fn tell(peer: &Account, ask: &Ask) {
    match ask {
        Ask::Put(put) => {
            tracing::trace!(%peer, kind = "put", slot = put.agreement.slot, bytes = put.data.len(), "asked");
        }
        Ask::Sign(sign) => {
            let (slot, version) = (sign.claim.agreement.slot, sign.claim.version);
            tracing::trace!(%peer, kind = "sign", slot, version, "asked");
        }
        Ask::Get(get) => {
            let (slot, offset, length) = (get.agreement.slot, get.offset, get.length);
            tracing::trace!(%peer, kind = "get", slot, offset, length, "asked");
        }
        Ask::Pay(voucher) => {
            let (slot, egress, gas) = (voucher.agreement.slot, voucher.egress, voucher.gas);
            tracing::trace!(%peer, kind = "pay", slot, egress, gas, "asked");
        }
        Ask::Status(_) => tracing::trace!(%peer, kind = "status", "asked"),
        // Between providers: no customer asks for these.
        Ask::Probe(_) | Ask::Filler(_) => {}
    }
}

/// A refusal in words.
fn no(reason: Refusal, text: impl Into<String>) -> Refused {
    let mut bytes = text.into().into_bytes();
    bytes.truncate(512);
    Refused { reason, text: Bounded::new(bytes).unwrap_or_default(), signed: None }
}

/// A refusal with a ledger code.
fn no_code(reason: Refusal, code: Code) -> Refused {
    no(reason, format!("{code:?}: {}", code.explain()))
}

fn answer<T>(result: Result<T, Refused>, good: impl FnOnce(T) -> Answer) -> Answer {
    result.map_or_else(Answer::Refused, good)
}
