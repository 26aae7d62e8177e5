//! Storage proofs that arrive before the block that challenges their signer.
//!
//! Each is signed by its signer, which has [`PER_SIGNER`] places and takes none of another's. The same
//! storage proof takes no second place, whichever peer or caller sends it.

use super::{actor::Arrival, state::Refused};

/// Storage proofs that wait here; further ones are answered with `Full`.
const EARLY_MAX: usize = 256;
/// Places of one signer: it has one open challenge at a time, and may sign its answer again.
const PER_SIGNER: usize = 2;

/// Storage proofs that wait for their block.
#[derive(Default)]
pub(super) struct Early(Vec<Arrival>);

impl Early {
    /// Takes all storage proofs, in order of arrival, for another check.
    pub(super) fn take(&mut self) -> Vec<Arrival> {
        std::mem::take(&mut self.0)
    }

    /// Keeps a storage proof with a good signature, or answers `Full`.
    pub(super) fn keep(&mut self, arrival: Arrival) {
        if let Some(held) = self.0.iter_mut().find(|held| held.id == arrival.id) {
            // Another authority may have sent it first; the caller then waits on that entry.
            if held.done.is_none() {
                held.done = arrival.done;
            } else {
                arrival.answer(Err(Refused::Full));
            }
            return;
        }
        let signer = arrival.operation.signer;
        let of_signer = self.0.iter().filter(|held| held.operation.signer == signer).count();
        if self.0.len() < EARLY_MAX && of_signer < PER_SIGNER {
            self.0.push(arrival);
        } else {
            arrival.answer(Err(Refused::Full));
        }
    }
}
