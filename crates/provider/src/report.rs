//! Tells the operator what is about to go wrong, from the records that the keeper reads anyway.
//!
//! ```text
//!   each height: own records + room on the volume --> conditions --> begun, ended --> log, webhook
//! ```

use crate::prover::Case;
use posync_alert::{Alerts, Facts, Space, Watch, conditions};
use posync_protocol::{Account, limits::LEAF_BYTES};
use std::path::PathBuf;

/// Where a provider's alerts go, and which hold now.
#[derive(Clone, Debug, Default)]
pub struct Reporter {
    alerts: Alerts,
    volume: Option<PathBuf>,
    watch: Watch,
}

impl Reporter {
    /// Alerts go to `alerts`; `volume` is a directory of the volume that holds the shards.
    pub fn new(alerts: Alerts, volume: Option<PathBuf>) -> Self {
        Self { alerts, volume, watch: Watch::default() }
    }

    /// Tells what began and ended with these records, `stored` leaves being on the disk.
    pub(crate) fn look(&mut self, case: &Case, stored: u64) {
        let promised = case.provider.sold.saturating_sub(stored).saturating_mul(LEAF_BYTES);
        let space = self.volume.as_deref().and_then(|volume| Space::of(volume, promised));
        let Case { parameters, height, provider, offer, audit, .. } = case;
        let (height, standing) = (*height, case.standing.as_ref());
        let now = conditions(&Facts { parameters, height, provider, offer, audit, standing, space });
        self.alerts.watch(&mut self.watch, &case.account.to_string(), Some(height), now);
    }

    /// Says that the provider goes offline, and waits a little until it was heard.
    pub(crate) fn offline(&self, account: &Account, height: u64, why: &dyn std::fmt::Display) {
        self.alerts.offline(&account.to_string(), Some(height), why);
    }
}
