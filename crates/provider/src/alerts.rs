//! Warns the operator of coming trouble, from the records that the reconciler reads anyway.
//!
//! ```text
//!   each height: own records + room on the volume --> conditions --> begun, ended --> log, webhook
//! ```

use crate::prover::Case;
use posync_alert::{Alert, Alerts, Facts, Kind, RaisedAlerts, Space, conditions, full_volume};
use posync_client::volume::InUse;
use posync_protocol::{Account, Class, limits::LEAF_BYTES};
use std::path::PathBuf;

/// State of a provider's disk, as far as alerts need it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    /// Reason for which no new shard is stored; `None` if they are.
    pub full: Option<String>,
    /// Reason for which the volume is not the provider's; `None` if it is.
    pub away: Option<String>,
    /// Number of shards known to be damaged or missing.
    pub bad: usize,
    /// True if records of signed data sets, or of vouchers, were lost to damage.
    pub lost: (bool, bool),
}

impl Disk {
    fn alerts(self) -> Vec<Alert> {
        let Self { full, away, bad, lost: (books, vouchers) } = self;
        let mut what = vec![];
        if bad > 0 {
            what.push(format!("{bad} shards are damaged or missing"));
        }
        if books {
            what.push("records of signed data sets were lost".into());
        }
        if vouchers {
            what.push("records of vouchers were lost".into());
        }
        let damaged = (!what.is_empty()).then(|| Alert {
            kind: Kind::Damaged,
            what: format!("the disk is damaged: {}", what.join(", ")),
            next:
                "what was not hit is served, proved and paid; gateways rebuild lost shards elsewhere: check \
                   the disk, and replace it if more follows"
                    .into(),
            due: None,
        });
        // A volume that is away takes no shard either.
        let full = full.filter(|_| away.is_none()).map(|what| {
            full_volume(what, "no shard is taken until there is room; reading and proving go on")
        });
        damaged.into_iter().chain(full).chain(away.map(away_alert)).collect()
    }
}

/// The alert that the volume is away, for the reason `what`.
fn away_alert(what: String) -> Alert {
    let next = "no shard is taken, and nothing on the volume counts as lost: mount it again; the provider goes on by itself";
    Alert { kind: Kind::VolumeAway, what, next: next.into(), due: None }
}

/// Destination of a provider's alerts, and the conditions that hold now.
#[derive(Clone, Debug, Default)]
pub struct Reporter {
    alerts: Alerts,
    volume: Option<PathBuf>,
    in_use: Option<InUse>,
    watch: RaisedAlerts,
}

impl Reporter {
    /// Creates a reporter; `volume` is a directory of the volume that holds the shards.
    pub fn new(alerts: Alerts, volume: Option<PathBuf>) -> Self {
        Self { alerts, volume, in_use: None, watch: RaisedAlerts::default() }
    }

    /// Checks from now on that the volume is there.
    #[must_use]
    pub fn checking(self, in_use: InUse) -> Self {
        Self { in_use: Some(in_use), ..self }
    }

    /// The check of the volume, if there is one.
    pub(crate) fn in_use(&self) -> Option<InUse> {
        self.in_use.clone()
    }

    /// The reason for which the volume is not the provider's now.
    pub(crate) fn away(&self) -> Option<String> {
        Some(self.in_use.as_ref()?.check().err()?.to_string())
    }

    /// A directory of the volume that holds the shards, if known.
    pub(crate) fn volume(&self) -> Option<PathBuf> {
        self.volume.clone()
    }

    /// Sends the alerts that begin or end with these records and this disk, on which `stored` leaves lie.
    pub(crate) fn look(&mut self, case: &Case, stored: u64, disk: Disk) {
        let promised = case.provider.sold[Class::Storage].saturating_sub(stored).saturating_mul(LEAF_BYTES);
        let space = self.volume.as_deref().and_then(|volume| Space::of(volume, promised));
        let Case { parameters, height, provider, offer, audit, .. } = case;
        let (height, reputation) = (*height, case.reputation.as_ref());
        let mut now = conditions(&Facts { parameters, height, provider, offer, audit, reputation, space });
        now.extend(disk.alerts());
        self.alerts.watch(&mut self.watch, &case.account.to_string(), Some(height), now);
    }

    /// Alerts that the provider goes offline, and waits briefly for delivery.
    pub(crate) fn offline(&self, account: &Account, height: u64, why: &dyn std::fmt::Display) {
        self.alerts.offline(&account.to_string(), Some(height), why);
    }
}
