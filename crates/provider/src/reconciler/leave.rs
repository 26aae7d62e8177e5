//! A provider that leaves: it notes its notice, never registers again, and ends when it holds nothing more.
//!
//! ```text
//!   own record with a notice --> the mark in its directory
//!   mark, and no own record  --> what it holds is given up as its agreements end
//!     --> nothing is left, and two nodes prove that it is not registered --> the provider ends
//! ```

use super::{Reconciler, ReconcilerError};
use crate::{condition::Condition, ledger::Ledger, left::Left};
use commonware_runtime::{Blob, Spawner};
use commonware_storage::Context;
use posync_protocol::record::Provider;

/// The mark of the exit.
pub(super) struct Leaver {
    pub(super) left: Left,
    /// True once the mark is on disk.
    is_noted: bool,
    /// The condition that it cannot be written.
    unnoted: Condition,
}

impl Leaver {
    pub(super) const fn new(left: Left) -> Self {
        Self { left, is_noted: false, unnoted: Condition::new("the mark of the exit cannot be written") }
    }

    /// Writes the mark if the ledger has a notice: `leaves_at` of the own record, proved at height `at`.
    pub(super) fn note(&mut self, leaves_at: u64, at: u64) {
        if leaves_at == 0 || self.is_noted {
            return;
        }
        match self.left.note(at) {
            Ok(_) => {
                self.unnoted.ended();
                self.is_noted = true;
            }
            Err(error) => drop(self.unnoted.holds(&error)),
        }
    }
}

impl<E: Spawner + Context, B: Blob, L: Ledger> Reconciler<E, B, L> {
    /// Gives up what is held as its agreements end.
    ///
    /// # Errors
    /// `Left` when nothing is held any more and no registration can come.
    pub(super) async fn empty(&mut self, height: u64) -> Result<(), ReconcilerError> {
        self.tidy_each_round(height).await?;
        let parts = self.handler.parts();
        if parts.store.totals().shards > 0 || !self.used().is_empty() {
            return Ok(());
        }
        // A registration that was signed before the mark is in a block by then, or never.
        let lifetime = parts.view.parameters.expiry_blocks_max;
        let since = self.since(height).await?;
        let sure = since.saturating_add(lifetime).max(self.ender.ends.floor());
        if height <= sure {
            return Ok(());
        }
        let proofs = self.ledger.confirmers(vec![Provider::key(&self.account())], sure).await?;
        let is_absent = |records: &Vec<Option<_>>| records.iter().all(Option::is_none);
        let all = !proofs.is_empty() && proofs.iter().all(|(at, records)| *at >= sure && is_absent(records));
        if all { Err(ReconcilerError::Left) } else { Ok(()) }
    }

    /// The height in the mark. One that is missing is noted: the newest that several nodes prove, as the node behind
    /// `height` may keep old states.
    async fn since(&self, height: u64) -> Result<u64, ReconcilerError> {
        if let Some(since) = self.leaver.left.since() {
            return Ok(since);
        }
        let proofs = self.ledger.confirmers(vec![Provider::key(&self.account())], 0).await?;
        let newest = proofs.iter().map(|(at, _)| *at).fold(height, u64::max);
        Ok(self.leaver.left.note(newest).unwrap_or(newest))
    }
}
