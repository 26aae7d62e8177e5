//! What was committed to, on disk before it leaves: a restart reveals it, and never commits twice.

use crate::{Error, catalogue};
use commonware_runtime::{Clock, Metrics, Storage};
use commonware_storage::metadata::{Config, Metadata};
use commonware_utils::sequence::U64;
use posync_protocol::{
    Bounded, encoded,
    limits::REPORT_BATCHES_MAX,
    operation::{AuditCommit, AuditReveal},
};

/// Rounds kept: this epoch's and the one that is revealed in it.
const KEPT: u64 = 2;

encoded! {
    /// An epoch's commitment and what it stands for.
    Round {
        /// The epoch.
        epoch: u64,
        /// What leaves within the epoch.
        commit: AuditCommit,
        /// What leaves in the next one.
        reveals: Bounded<AuditReveal, REPORT_BATCHES_MAX>,
    }
}

/// The rounds.
pub(super) struct Rounds<E: Storage + Clock + Metrics>(Option<Metadata<E, U64, Round>>);

fn disk(error: impl std::fmt::Display) -> Error {
    Error::Catalogue(catalogue::Error::Disk(error.to_string()))
}

impl<E: Storage + Clock + Metrics> Rounds<E> {
    /// Opens them in `partition`.
    ///
    /// # Errors
    /// The disk.
    pub(super) async fn open(context: E, partition: &str) -> Result<Self, Error> {
        let config = Config { partition: format!("{partition}-rounds"), codec_config: () };
        Ok(Self(Some(Metadata::init(context, config).await.map_err(disk)?)))
    }

    /// What was committed to for an epoch.
    pub(super) fn of(&self, epoch: u64) -> Option<&Round> {
        self.0.as_ref()?.get(&U64::new(epoch % KEPT)).filter(|round| round.epoch == epoch)
    }

    /// Keeps a round; durable when this returns.
    ///
    /// # Errors
    /// The disk; nothing can be kept from then on.
    pub(super) async fn keep(&mut self, epoch: u64, round: Round) -> Result<(), Error> {
        let kept = self.0.take().ok_or_else(|| disk("an earlier write failed"))?;
        self.0 = Some(kept.put_sync(U64::new(epoch % KEPT), round).await.map_err(disk)?);
        Ok(())
    }
}
