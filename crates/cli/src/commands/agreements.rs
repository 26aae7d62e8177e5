//! `posync agreements`: what the gateway has agreed with providers, and how both kept to it.

use crate::{
    failure::Outcome,
    gateway::Gateway,
    json,
    ledger::Ledger,
    output::{Output, table},
    session,
};
use posync_protocol::{
    agreement::trust, amount::ONE, limits::Parameters, record::Use, wire::gateway::AgreementRow,
};
use serde_json::{Value, json};
use std::path::Path;

/// Arguments of `agreements`.
#[derive(Debug, clap::Args)]
pub(crate) struct Agreements {}

impl Agreements {
    /// Runs the command.
    pub(crate) fn run(self, net: &Path, output: Output) -> Outcome {
        session::run(async |context| {
            let agreements = Gateway::connect(&context, net).await?.agreements().await?;
            let ledger = Ledger::open(&context, net).await?;
            let keys = agreements.iter().map(|row| Use::key(&row.agreement.provider, row.agreement.slot));
            let uses = ledger.read_all::<Use>(keys.collect()).await?.into_iter();
            let rows: Vec<(AgreementRow, Use)> =
                agreements.into_iter().zip(uses.map(Option::unwrap_or_default)).collect();
            let values: Vec<Value> = rows.iter().map(|row| to_json(row, ledger.parameters())).collect();
            output.answer(&values, || {
                let headings = [
                    "provider",
                    "slot",
                    "shards",
                    "bytes",
                    "version",
                    "egress",
                    "signed SYNC",
                    "disputed",
                    "ends",
                ];
                table(&headings, &rows.iter().map(to_text).collect::<Vec<_>>())
            })
        })
    }
}

fn to_json((row, usage): &(AgreementRow, Use), parameters: &Parameters) -> Value {
    json!({ "agreement": json::agreement(&row.agreement), "shards": row.shards, "bytes": row.bytes,
        "version": row.version, "egress": row.egress, "end_epoch": row.end_epoch,
        "voucher_reserve": json::grains(row.voucher_reserve), "signed": json::grains(usage.signed),
        "disputed": json::grains(usage.disputed), "trust": trust(usage, parameters) as f64 / ONE as f64 })
}

fn to_text((row, usage): &(AgreementRow, Use)) -> Vec<String> {
    vec![
        row.agreement.provider.to_string(),
        row.agreement.slot.to_string(),
        row.shards.to_string(),
        row.bytes.to_string(),
        row.version.to_string(),
        row.egress.to_string(),
        usage.signed.to_string(),
        usage.disputed.to_string(),
        row.end_epoch.to_string(),
    ]
}
