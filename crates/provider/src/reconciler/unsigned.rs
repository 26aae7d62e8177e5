//! Removes shards that no signed version holds after a delay, but only where every version that the ledger
//! has is known here.
//!
//! A shard that no data set names may be one whose data set was damaged. So its agreement must exist, as last
//! proved, with data sets that the data sets know. Agreements that are gone are left to `give_up`.

use super::{Reconciler, ReconcilerError};
use crate::{ledger::Ledger, packs::StoreError};
use commonware_runtime::{Blob, Spawner};
use commonware_storage::Context;
use posync_protocol::{AgreementId, Hash};
use std::collections::BTreeSet;

impl<E: Spawner + Context, B: Blob, L: Ledger> Reconciler<E, B, L> {
    /// Lets go shards that were put long ago and never signed for.
    pub(super) fn drop_loose(&self) {
        for (agreement, mut shards) in self.handler.expired(self.patience.loose) {
            shards.retain(|shard| !self.handler.is_loose(agreement, *shard));
            match self.known_here_at(&agreement) {
                Some(height) => self.handler.parts().data_sets.let_go(agreement, shards, height),
                None => shards.into_iter().for_each(|shard| self.handler.note_loose(agreement, shard)),
            }
        }
    }

    /// The height at which the agreement was proved last, if it exists and all of its data set's versions are known
    /// here.
    fn known_here_at(&self, id: &AgreementId) -> Option<u64> {
        let parts = self.handler.parts();
        let terms = parts.view.kept(id).filter(|_| !self.ender.is_gone(id))?;
        parts.data_sets.with(|state| state.knows(id, &terms.data)).then_some(terms.height)
    }

    /// Runs at the start. Stored shards that no data set names become loose; shards that a data set names and the
    /// store no longer counts for its agreement are linked again. After damage of the data sets no stored shard
    /// becomes loose: it stays until its agreement is over.
    pub(super) async fn sweep(&self) -> Result<(), ReconcilerError> {
        let parts = self.handler.parts();
        let mut owed: BTreeSet<(AgreementId, Hash)> = parts.data_sets.with(|state| state.kept());
        let (mut after, is_whole) = (None, parts.data_sets.with(|state| !state.is_damaged()));
        loop {
            let page = parts.store.page(after, 1024);
            let Some(last) = page.last() else { break };
            after = Some(*last);
            for shard in page {
                for agreement in parts.store.holders(&shard) {
                    if !owed.remove(&(agreement, shard)) && is_whole {
                        self.handler.note_loose(agreement, shard);
                    }
                }
            }
        }
        for (agreement, shard) in owed {
            if let Ok(data) = parts.store.get(&shard).await {
                match parts.store.put(agreement, shard, data).await {
                    Err(StoreError::NoSpace(_) | StoreError::Full { .. }) => {}
                    done => done?,
                }
            }
        }
        Ok(())
    }
}
