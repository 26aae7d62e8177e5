//! Answers the ledger's draws: no message announces a challenge, the provider sees it in its own record.
//!
//! ```text
//!   Audit record has a challenge --> proven reads: own records, data sets in force
//!     --> four dependent reads: question -> tree -> shard -> leaf, or "missing"
//!     --> reads asked again --> vouchers, `next` to apply, endings to cross --> Storage proof
//! ```
//!
//! All inputs are on the ledger: after a crash the same records give the same storage proof, and the
//! ledger refuses a second one for a challenge. The prover keeps no state.
//!
//! Invariants
//! 1. A read is declared missing only if the shard's bytes are gone or do not match its name, or if the disk fails to
//!    read them when half of the deadline is over. While the volume is away, nothing is answered.
//! 2. A storage proof is built only on consistent records: the slots' weights sum up to `slot_weight`.

mod state;
#[cfg(test)]
mod tests;

pub(crate) use state::up_to;
pub(crate) use state::{Case, answer, reask};

use crate::{
    data_sets::DataSets,
    packs::{Store, StoreError},
};
use bytes::Bytes;
use commonware_runtime::Blob;
use posync_protocol::{
    Bounded, Hash,
    audit::Question,
    limits::{MISSING_MAX, READS},
    operation::{EndedRead, ReadAnswer, Reasked, StillMissing},
    record::Missing,
    tree::SumTree,
};
use std::sync::Arc;

/// Reasons for which there is no storage proof.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoStorageProof {
    /// No challenge is open.
    #[error("no challenge is open")]
    NotDrawn,
    /// The weights of the slots known to the data sets do not sum up to the ledger's figure.
    #[error("the data sets know weights of {known}, the ledger {slot_weight}; a data set is missing here")]
    Incomplete {
        /// Sum of weights over the known slots.
        known: u128,
        /// Sum of weights on the ledger.
        slot_weight: u128,
    },
    /// The consumer put a version in force that this provider never saw.
    #[error("the data set in force at slot {0} was never signed here, so its reads cannot be placed")]
    UnknownDataSet(u32),
    /// The volume is away: nothing is declared missing that may be there.
    #[error("a drawn shard cannot be read now: {0}")]
    Away(String),
}

/// Reads shards for answers.
pub(crate) struct Reader<'a, B> {
    /// Store with the shards to prove.
    pub store: &'a Store<B>,
    /// Books with the trees of the data sets.
    pub data_sets: &'a DataSets,
}

impl<B: Blob> Reader<'_, B> {
    /// The four answers to an open challenge.
    ///
    /// # Errors
    /// [`NoStorageProof`].
    pub(crate) async fn answers(&self, case: &Case) -> Result<Bounded<ReadAnswer, READS>, NoStorageProof> {
        let mut prover = case.prover()?;
        while let Some(question) = prover.question() {
            prover.answer(self.answer(case, &question).await?);
        }
        prover.finish().ok_or(NoStorageProof::NotDrawn)
    }

    async fn answer(&self, case: &Case, question: &Question) -> Result<ReadAnswer, NoStorageProof> {
        let Question { slot, place, leaf, ended } = *question;
        if ended {
            return Ok(ReadAnswer::Ended(EndedRead { place }));
        }
        let unknown = NoStorageProof::UnknownDataSet(slot);
        let tree = self.tree(case, slot).ok_or(unknown.clone())?;
        let read = tree.read(leaf).ok_or(unknown)?;
        let data = self.shard(&read.shard, case).await?;
        Ok(answer(place, read, data.as_deref()))
    }

    /// The answers to the reads that are asked again, in the order of the record.
    ///
    /// # Errors
    /// `Away`.
    pub(crate) async fn reasked(&self, case: &Case) -> Result<Bounded<Reasked, MISSING_MAX>, NoStorageProof> {
        let mut all = vec![];
        for missing in case.audit.missing.iter() {
            all.push(self.reask(missing, case).await?);
        }
        Ok(up_to(all))
    }

    async fn reask(&self, missing: &Missing, case: &Case) -> Result<Reasked, NoStorageProof> {
        let still = Reasked::Missing(StillMissing { slot: missing.slot });
        let data = self.shard(&missing.shard, case).await?;
        Ok(data.and_then(|data| reask(missing, &data)).unwrap_or(still))
    }

    fn tree(&self, case: &Case, slot: u32) -> Option<Arc<SumTree>> {
        let terms = case.terms.get(&slot)?;
        let current = &terms.data.current;
        self.data_sets.with(|state| state.tree(&terms.id, (current.version, current.root)))
    }

    /// The bytes of a shard; `None` if they are gone or damaged. A shard that the disk fails to read withholds the whole
    /// answer for half of the deadline at most, as the other reads are lost with it; a later answer can prove it.
    async fn shard(&self, name: &Hash, case: &Case) -> Result<Option<Bytes>, NoStorageProof> {
        match self.store.get(name).await {
            Ok(data) => Ok(Some(data)),
            Err(StoreError::Unread(_)) if case.is_pressed() => Ok(None),
            Err(error) if error.is_away() => Err(NoStorageProof::Away(error.to_string())),
            Err(error) => {
                // The alert of damaged shards informs the operator, so not every draw does.
                tracing::debug!(%error, shard = %crate::data_sets::hex(name), "a drawn shard cannot be proved");
                Ok(None)
            }
        }
    }
}
