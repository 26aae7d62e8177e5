//! The provider service: keeps shards, signs data sets, streams verified slices against vouchers.
//!
//! ```text
//!   Put  --> terms proved? name right? quota? --> store (durable) --> Stored
//!   Sign --> data sets: root computed, consumer's signature, shards there, durable --> Signed
//!   Get  --> shard read whole and hashed --> slice, credit, slice, credit ... <-- Pay
//!   Probe, Filler ... --> bytes that arrive within the window --> Counted (signed)
//!   Pay  --> the ledger's check --> voucher store (durable) --> credit
//! ```
//!
//! Invariants
//! 1. `Stored` and `Signed` are sent after the sync that makes them true.
//! 2. No byte leaves beyond the credit window of its agreement, or beyond the redeemable amount.
//! 3. Every slice is proved to the shard's name; a damaged shard is refused, never served.
//! 4. At most [`LOAD_MAX`] requests run at once; puts and downloads wait in a fair [`queue`] that bounds
//!    their number and bytes, so a greedy consumer delays no other. Requests that wait for a proof of
//!    their agreement are bounded for each peer ([`waits`]).

mod count;
mod handler;
pub(crate) mod queue;
mod stream;
#[cfg(test)]
mod tests;
mod waits;

pub use handler::{Handler, Parts};

use posync_protocol::{
    Account, Bounded, Code,
    wire::provider::{Ask, ProviderAnswer, Refusal, Refused},
};

/// Requests at once: those of the queue, and short ones that never wait in it.
pub(crate) const LOAD_MAX: u32 = 2048;
/// Maximum time in milliseconds that a stream waits for a voucher.
pub(crate) const PAY_WAIT_MS: u64 = 10_000;
/// Maximum time in milliseconds that a request waits for a proof of its terms.
pub(crate) const TERMS_WAIT_MS: u64 = 8_000;

/// Traces every request with all fields by which a provider could distinguish consumers.
fn trace(peer: &Account, ask: &Ask) {
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
            let (slot, egress, gas) = (voucher.agreement.slot, voucher.units.egress, voucher.units.gas);
            tracing::trace!(%peer, kind = "pay", slot, egress, gas, "asked");
        }
        Ask::Status(_) => tracing::trace!(%peer, kind = "status", "asked"),
        // Sent between providers: no consumer sends these.
        Ask::Probe(_) | Ask::Filler(_) => {}
    }
}

/// Builds a refusal with a text.
fn no(reason: Refusal, text: impl Into<String>) -> Refused {
    let mut bytes = text.into().into_bytes();
    bytes.truncate(512);
    Refused { reason, text: Bounded::new(bytes).unwrap_or_default(), signed: None }
}

/// Builds a refusal with a ledger code and its explanation.
fn no_code(reason: Refusal, code: Code) -> Refused {
    no(reason, format!("{code:?}: {}", code.explain()))
}

fn answer<T>(result: Result<T, Refused>, good: impl FnOnce(T) -> ProviderAnswer) -> ProviderAnswer {
    result.map_or_else(ProviderAnswer::Refused, good)
}
