//! A provider as every command shows it, from proven records.

use crate::{egress::Egress, failure::Outcome, ledger::Ledger};
use posync_protocol::{
    Account, Class,
    json::{first, text},
    limits::{HISTORY, LEAF_BYTES, READS},
    record::{Audit, Endpoint, Offer, Provider},
};
use serde_json::{Value, json};

/// A provider's records, read one after the other.
pub(crate) struct Shown {
    /// Account of the provider.
    pub(crate) account: Account,
    /// Its bond and totals.
    pub(crate) provider: Provider,
    /// Its declared offer: capacity, egress, prices and region.
    pub(crate) offer: Offer,
    /// Its open challenge and the history of its reads.
    pub(crate) audit: Audit,
    /// Its egress: declared, measured and sold.
    pub(crate) egress: Egress,
    /// The address that clients try first; empty if there is none.
    pub(crate) address: String,
}

impl Shown {
    /// Reads the records of a provider; `None` if the ledger has no such registration.
    pub(crate) async fn read(ledger: &Ledger, account: &Account) -> Outcome<Option<Self>> {
        let Some(provider) = ledger.read::<Provider>(Provider::key(account)).await? else { return Ok(None) };
        let Some(offer) = ledger.read::<Offer>(Offer::key(account)).await? else { return Ok(None) };
        let audit = ledger.read(Audit::key(account)).await?.unwrap_or_default();
        let egress = Egress::read(ledger, account, &offer, &provider).await?;
        let endpoint: Option<Endpoint> = ledger.read(Endpoint::key(account)).await?;
        let address = endpoint.map(|endpoint| first(&endpoint.addresses)).unwrap_or_default();
        Ok(Some(Self { account: *account, provider, offer, audit, egress, address }))
    }

    /// The operator that it declares.
    pub(crate) fn operator(&self) -> String {
        text(&self.offer.operator)
    }

    /// Passed reads in the history, and the number of reads in it.
    pub(crate) fn reads(&self) -> (u32, u64) {
        (self.audit.history.count_ones(), u64::from(self.audit.drawn.min(HISTORY)))
    }

    /// Bytes of the leaves in its data sets.
    pub(crate) const fn stored_bytes(&self) -> u64 {
        self.provider.leaves.saturating_mul(LEAF_BYTES)
    }

    /// Declared capacity in bytes.
    pub(crate) fn capacity_bytes(&self) -> u64 {
        self.offer.capacity[Class::Storage].saturating_mul(LEAF_BYTES)
    }

    /// Bytes under contract: the sum of its agreements' quotas.
    pub(crate) fn sold_bytes(&self) -> u64 {
        self.provider.sold[Class::Storage].saturating_mul(LEAF_BYTES)
    }

    /// The provider as JSON, with the entries that a command adds.
    pub(crate) fn to_json(&self, more: Value) -> Value {
        let (passed, drawn) = self.reads();
        let mut value = json!({ "account": self.account, "operator": self.operator(), "region": text(&self.offer.region),
            "address": self.address, "bond": self.provider.bond, "capacity_bytes": self.capacity_bytes(),
            "stored_bytes": self.stored_bytes(), "sold_bytes": self.sold_bytes(), "egress": self.egress.to_json(),
            "agreements": self.provider.slots, "challenges": self.audit.drawn / READS as u32,
            "recent_reads": drawn, "recent_reads_passed": passed,
            "open_challenge": self.audit.challenge.map(|open| open.height) });
        if let (Value::Object(all), Value::Object(more)) = (&mut value, more) {
            all.extend(more);
        }
        value
    }
}
