//! The auditor's commitments, written to disk before they are sent: after a restart they can be revealed,
//! and no epoch is committed to twice.

use crate::catalogue::Error;
use commonware_runtime::{Clock, Metrics, Storage};
use commonware_storage::metadata::{Config, Metadata};
use commonware_utils::sequence::U64;
use posync_protocol::{
    Bounded, encoded,
    limits::REPORT_BATCHES_MAX,
    operation::{AuditCommit, AuditReveal},
};

/// Rounds kept: the one of this epoch and the one that is revealed in it.
const KEPT: u64 = 2;

encoded! {
    /// An epoch's commitment and the reports that it binds.
    Round {
        /// The epoch that the reports are about.
        epoch: u64,
        /// The commitment, sent within the epoch.
        commit: AuditCommit,
        /// The reports that it binds, sent in the next epoch.
        reveals: Bounded<AuditReveal, REPORT_BATCHES_MAX>,
    }
}

/// The newest rounds on disk; `None` after a failed write.
pub(super) struct Rounds<E: Storage + Clock + Metrics>(Option<Metadata<E, U64, Round>>);

fn disk(error: impl std::fmt::Display) -> Error {
    Error::Disk(error.to_string())
}

impl<E: Storage + Clock + Metrics> Rounds<E> {
    /// Opens the rounds in `partition`.
    ///
    /// # Errors
    /// A disk failure.
    pub(super) async fn open(context: E, partition: &str) -> Result<Self, Error> {
        let config = Config { partition: format!("{partition}-rounds"), codec_config: () };
        Ok(Self(Some(Metadata::init(context, config).await.map_err(disk)?)))
    }

    /// The round of an epoch, if there is one.
    pub(super) fn of(&self, epoch: u64) -> Option<&Round> {
        self.0.as_ref()?.get(&U64::new(epoch % KEPT)).filter(|round| round.epoch == epoch)
    }

    /// Writes a round; it is durable when this returns.
    ///
    /// # Errors
    /// A disk failure; every later write fails, too.
    pub(super) async fn keep(&mut self, epoch: u64, round: Round) -> Result<(), Error> {
        let kept = self.0.take().ok_or_else(|| disk("an earlier write failed"))?;
        self.0 = Some(kept.put_sync(U64::new(epoch % KEPT), round).await.map_err(disk)?);
        Ok(())
    }
}
