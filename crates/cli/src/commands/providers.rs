//! `posync providers`: each provider's data, audits and recent pay.

use crate::{
    failure::Outcome,
    ledger::Ledger,
    net::{Access, Net},
    output::{Output, table},
    provider::Shown,
    session,
};
use posync_protocol::{Account, Amount, limits::SETTLEMENT_RING, record::Settlement};
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
            let values: Vec<Value> = rows.iter().map(ProviderRow::to_json).collect();
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
                table(&heading, &rows.iter().map(ProviderRow::cells).collect::<Vec<_>>())
            })
        })
    }
}

struct ProviderRow {
    shown: Shown,
    earned: Amount,
}

async fn row(ledger: &Ledger, account: &Account, epoch: u64) -> Outcome<Option<ProviderRow>> {
    let Some(shown) = Shown::read(ledger, account).await? else { return Ok(None) };
    let epochs = epoch.saturating_sub(EPOCHS - 1)..=epoch;
    let keys = epochs.clone().map(|epoch| Settlement::key(account, epoch % SETTLEMENT_RING)).collect();
    let settled: Vec<Option<Settlement>> = ledger.read_all(keys).await?;
    let recent = settled.into_iter().flatten().filter(|row| epochs.contains(&row.epoch));
    let earned = recent.fold(Amount::ZERO, |sum, row| sum.checked_add(row.pay).unwrap_or(Amount::MAX));
    Ok(Some(ProviderRow { shown, earned }))
}

impl ProviderRow {
    fn to_json(&self) -> Value {
        self.shown.to_json(json!({ "earned_recent_epochs": self.earned, "recent_epochs": EPOCHS }))
    }

    fn cells(&self) -> Vec<String> {
        let (passed, drawn) = self.shown.reads();
        let [declared, measured] = self.shown.egress.cells();
        vec![
            self.shown.operator(),
            self.shown.account.to_string(),
            self.shown.stored_bytes().to_string(),
            self.shown.capacity_bytes().to_string(),
            declared,
            measured,
            format!("{passed}/{drawn}"),
            self.earned.to_string(),
            self.shown.address.clone(),
        ]
    }
}
