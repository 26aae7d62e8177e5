//! Keeps reads within the agreed rate: what the ledger would not pay, no provider sends.
//!
//! By each round a provider may be paid for the rate cap times the rounds since the opening (VO-2), and it sends
//! nothing beyond. A read beyond is not begun, so that the provider never refuses one for a reason of ours.

use super::OwnAgreement;
use crate::{
    catalogue::row::OwnAgreementRow,
    peer::{Error, Heights},
};
use posync_protocol::wire::provider::Refusal;

/// Rounds by which a provider may be behind this consumer: it looks at the ledger by itself.
const BEHIND: u64 = 1;

/// Cumulative egress bytes that the agreed rate allows by the round `behind` rounds before the present one.
fn reach(terms: &OwnAgreementRow, heights: &Heights, behind: u64) -> u64 {
    if terms.rate_egress.0 == 0 {
        return u64::MAX;
    }
    let rounds = heights.round().saturating_sub(behind).saturating_sub(heights.round_of(terms.id.opened));
    terms.rate_egress.0.saturating_mul(rounds.saturating_add(1))
}

impl OwnAgreement {
    /// Egress bytes that can be read in this round: within the quota and the agreed rate. The flag is false
    /// while the provider refuses to send ([`crate::meter::Meter::bar`]).
    pub async fn unread(&self) -> (u64, bool) {
        let (terms, meter) = (self.terms(), *self.meter.lock().await);
        let by_rate = meter.left(reach(&terms, self.peer.heights(), 0));
        (meter.left(terms.quota_egress).min(by_rate), !meter.is_barred())
    }

    /// Egress bytes that were read and verified so far.
    pub(crate) async fn verified(&self) -> u64 {
        self.meter.lock().await.verified()
    }

    /// Checks that `bytes` can be read in this round.
    ///
    /// # Errors
    /// [`Error::Paced`].
    pub(super) async fn check_pace(&self, bytes: u64) -> Result<(), Error> {
        if self.is_beyond(bytes, 0).await { Err(Error::Paced(self.provider())) } else { Ok(()) }
    }

    /// The reason of ours for a failed read of `bytes`, if there is one: a provider that is still in an earlier
    /// round refuses what the agreed rate allows in this one.
    pub(super) async fn own_reason(&self, error: Error, bytes: u64) -> Error {
        let is_refused = matches!(error, Error::Refused(_, Refusal::Credit, _));
        if is_refused && self.is_beyond(bytes, BEHIND).await { Error::Paced(self.provider()) } else { error }
    }

    async fn is_beyond(&self, bytes: u64, behind: u64) -> bool {
        let most = reach(&self.terms(), self.peer.heights(), behind);
        self.meter.lock().await.left(most) < bytes
    }
}
