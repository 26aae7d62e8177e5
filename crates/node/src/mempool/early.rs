//! Statements that came before the block that challenges their signer.
//!
//! Each of them is signed by its signer, who has [`PER_SIGNER`] places and takes none of another's. Bytes that
//! are here already take no second place, whoever brings them.

use super::{actor::Arrival, state::Refused};

/// Statements that wait; the next ones are answered `Full`.
const EARLY_MAX: usize = 256;
/// Of one signer: it has one open challenge at a time, and may sign its answer anew.
const PER_SIGNER: usize = 2;

/// Statements that wait for their block.
#[derive(Default)]
pub(super) struct Early(Vec<Arrival>);

impl Early {
    /// All of them, in the order in which they came, to be looked at again.
    pub(super) fn take(&mut self) -> Vec<Arrival> {
        std::mem::take(&mut self.0)
    }

    /// Keeps a statement with a good signature, or answers `Full`.
    pub(super) fn keep(&mut self, arrival: Arrival) {
        if let Some(held) = self.0.iter_mut().find(|held| held.id == arrival.id) {
            // Another authority brought it first, say: the caller waits on its place.
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
