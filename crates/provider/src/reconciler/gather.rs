//! Gathers the terms of all slots for a storage proof: each is proved anew, in reads that overlap.
//!
//! With ten thousand agreements these are 477 reads, [`READS_AT_ONCE`] at a time: 60 round trips.

use super::{Reconciler, read::read_pages};
use crate::{
    ledger::{Ledger, LedgerError},
    prover::Case,
};
use commonware_runtime::{Blob, Spawner};
use commonware_storage::Context;
use std::collections::BTreeSet;

impl<E: Spawner + Context, B: Blob, L: Ledger> Reconciler<E, B, L> {
    /// Fills the terms of all slots that a data set names.
    pub(super) async fn gather(&self, case: &mut Case) -> Result<(), LedgerError> {
        let parts = self.handler.parts();
        let slots: BTreeSet<u32> =
            parts.data_sets.with(|state| state.agreements().map(|agreement| agreement.slot).collect());
        let slots: Vec<u32> = slots.into_iter().collect();
        let pages = read_pages(&self.ledger, &self.account(), &slots).await?;
        for terms in pages.into_iter().flat_map(|(_, terms)| terms).flatten() {
            parts.view.learn(terms.clone());
            case.terms.insert(terms.id.slot, terms);
        }
        Ok(())
    }
}
