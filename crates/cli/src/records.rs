//! The subject of a settlement row's proof, whose place in the ring of epochs must be computed.

use posync_client::light::Subject;
use posync_protocol::{Account, limits::SETTLEMENT_RING, record::Settlement};

/// The subject of a provider's settlement row for an epoch.
pub(crate) fn settlement(provider: &Account, epoch: u64) -> Subject {
    let place = (epoch % SETTLEMENT_RING).to_be_bytes();
    Subject::new::<Settlement>(&[&provider.0, &place]).expect("40 bytes fit")
}
