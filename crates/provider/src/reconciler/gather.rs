//! Gathers the terms of all slots for a storage proof: what may have grown and what was proved longest ago is
//! proved again, the rest is as the view keeps it.
//!
//! ```text
//!   slots of all data sets --> never proved, or a newer version was signed here? ----> proved now
//!                          --> the others: the oldest of them, up to a few pages ----> proved now
//!                                          the rest ---------------------------------> kept
//!   sum of all weights = `slot_weight` of the ledger? --no--> the rest is proved now as well
//! ```
//!
//! No weight moves while a challenge is open (DS-4). The weight of a slot grows only by a version that this
//! provider signed (DS-3), so a slot that is taken as kept weighs at least what the ledger has. If all
//! together weigh `slot_weight`, each of them is as the ledger has it.
//!
//! So the answer to a challenge takes as many round trips with ten thousand agreements as with a hundred.

use super::{
    Reconciler, SLOTS_READ,
    read::{READS_AT_ONCE, read_pages},
};
use crate::{
    ledger::{Ledger, LedgerError},
    prover::Case,
};
use commonware_runtime::{Blob, Spawner};
use commonware_storage::Context;
use std::collections::BTreeSet;

/// Number of slots whose records are proved at once.
pub(super) const SLOTS_AT_ONCE: usize = READS_AT_ONCE * SLOTS_READ;

impl<E: Spawner + Context, B: Blob, L: Ledger> Reconciler<E, B, L> {
    /// Fills the terms of all slots that a data set names.
    pub(super) async fn gather(&self, case: &mut Case) -> Result<(), LedgerError> {
        let mut due = self.keep(case);
        let spare = SLOTS_AT_ONCE.saturating_sub(due.len());
        let mut oldest: Vec<(u64, u32)> =
            case.terms.values().map(|terms| (terms.height, terms.id.slot)).collect();
        oldest.sort_unstable();
        due.extend(oldest.iter().take(spare).map(|(_, slot)| *slot));
        self.prove_terms(case, due).await?;
        if oldest.len() > spare && !case.is_complete() {
            let rest = oldest[spare..].iter().map(|(_, slot)| *slot).collect();
            self.prove_terms(case, rest).await?;
        }
        Ok(())
    }

    /// Takes the terms that the view keeps; returns the slots whose weight may have grown since.
    fn keep(&self, case: &mut Case) -> BTreeSet<u32> {
        let parts = self.handler.parts();
        let mut due = BTreeSet::new();
        parts.data_sets.with(|state| {
            for id in state.agreements() {
                match parts.view.kept(&id).filter(|terms| !state.may_grow(&id, &terms.data)) {
                    Some(terms) => drop(case.terms.insert(id.slot, terms)),
                    None => drop(due.insert(id.slot)),
                }
            }
        });
        // An agreement that ended may have left its slot to another one.
        case.terms.retain(|slot, _| !due.contains(slot));
        due
    }

    /// Replaces the terms of slots by those that are proved now.
    async fn prove_terms(&self, case: &mut Case, slots: BTreeSet<u32>) -> Result<(), LedgerError> {
        case.terms.retain(|slot, _| !slots.contains(slot));
        let slots: Vec<u32> = slots.into_iter().collect();
        let pages = read_pages(&self.ledger, &self.account(), &slots).await?;
        for terms in pages.into_iter().flat_map(|(_, terms)| terms).flatten() {
            self.handler.parts().view.learn(terms.clone());
            case.terms.insert(terms.id.slot, terms);
        }
        Ok(())
    }
}
