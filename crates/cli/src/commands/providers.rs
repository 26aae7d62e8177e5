//! `posync providers`: each provider's data, audits and recent pay.

use crate::{
    egress::Egress,
    failure::Outcome,
    json,
    ledger::Ledger,
    net::{Access, Net},
    output::{Output, table},
    session,
};
use posync_protocol::{
    Account, Amount,
    limits::{HISTORY, LEAF_BYTES, READS, SETTLEMENT_RING},
    record::{Audit, Endpoint, Offer, Provider, Settlement},
};
use serde_json::{Value, json};

/// Epochs over which the pay is added up.
const EPOCHS: u64 = 8;

/// Command-line arguments of `posync providers`.
#[derive(Debug, clap::Args)]
pub(crate) struct Providers {}

impl Providers {
    /// Prints a row for each registered provider.
    pub(crate) fn run(self, access: &Access, output: Output) -> Outcome {
        let net = Net::open(access)?;
        session::run(async |context| {
            let ledger = Ledger::open(&context, &net).await?;
            let epoch = ledger.parameters().epoch(ledger.height().await?);
            let mut rows = Vec::new();
            for account in ledger.providers().await? {
                rows.extend(row(&ledger, &account, epoch).await?);
            }
            let values: Vec<Value> = rows.iter().map(Row::to_json).collect();
            output.answer(&values, || {
                let heading = [
                    "operator",
                    "account",
                    "stored",
                    "capacity",
                    "egress/s",
                    "measured/s",
                    "reads passed",
                    "earned SYNC",
                    "address",
                ];
                table(&heading, &rows.iter().map(Row::cells).collect::<Vec<_>>())
            })
        })
    }
}

struct Row {
    account: Account,
    provider: Provider,
    offer: Offer,
    audit: Audit,
    egress: Egress,
    address: String,
    earned: Amount,
}

async fn row(ledger: &Ledger, account: &Account, epoch: u64) -> Outcome<Option<Row>> {
    let Some(provider) = ledger.read::<Provider>(Provider::key(account)).await? else { return Ok(None) };
    let Some(offer) = ledger.read::<Offer>(Offer::key(account)).await? else { return Ok(None) };
    let audit = ledger.read(Audit::key(account)).await?.unwrap_or_default();
    let egress = Egress::read(ledger, account, &offer, &provider).await?;
    let endpoint: Option<Endpoint> = ledger.read(Endpoint::key(account)).await?;
    let epochs = epoch.saturating_sub(EPOCHS - 1)..=epoch;
    let keys = epochs.clone().map(|epoch| Settlement::key(account, epoch % SETTLEMENT_RING)).collect();
    let settled: Vec<Option<Settlement>> = ledger.read_all(keys).await?;
    let recent = settled.into_iter().flatten().filter(|row| epochs.contains(&row.epoch));
    let earned = recent.fold(Amount::ZERO, |sum, row| sum.checked_add(row.pay).unwrap_or(Amount::MAX));
    let address = endpoint.map(|endpoint| json::address(&endpoint.addresses)).unwrap_or_default();
    Ok(Some(Row { account: *account, provider, offer, audit, egress, address, earned }))
}

impl Row {
    /// Passed reads in the history, and the number of reads in it.
    fn reads(&self) -> (u32, u64) {
        (self.audit.history.count_ones(), u64::from(self.audit.drawn.min(HISTORY)))
    }

    /// Bytes of the leaves in its data sets.
    const fn stored_bytes(&self) -> u64 {
        self.provider.leaves.saturating_mul(LEAF_BYTES)
    }

    fn to_json(&self) -> Value {
        let (passed, drawn) = self.reads();
        json!({ "account": self.account.to_string(), "operator": json::text(&self.offer.operator),
            "address": self.address, "bond": json::grains(self.provider.bond),
            "capacity_bytes": self.offer.capacity * LEAF_BYTES, "stored_bytes": self.stored_bytes(), "sold_bytes": self.provider.sold * LEAF_BYTES,
            "egress": self.egress.to_json(), "agreements": self.provider.slots, "challenges": self.audit.drawn / READS as u32,
            "recent_reads": drawn, "recent_reads_passed": passed,
            "open_challenge": self.audit.challenge.map(|open| open.height),
            "earned_recent_epochs": json::grains(self.earned), "recent_epochs": EPOCHS })
    }

    fn cells(&self) -> Vec<String> {
        let (passed, drawn) = self.reads();
        let [declared, measured] = self.egress.cells();
        vec![
            json::text(&self.offer.operator),
            self.account.to_string(),
            self.stored_bytes().to_string(),
            (self.offer.capacity * LEAF_BYTES).to_string(),
            declared,
            measured,
            format!("{passed}/{drawn}"),
            self.earned.to_string(),
            self.address.clone(),
        ]
    }
}
