//! `posync agreements`: what the gateway has agreed with providers.

use crate::{
    failure::Outcome,
    gateway::Gateway,
    json,
    output::{Output, table},
    session,
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
            let rows: Vec<Value> = agreements
                .iter()
                .map(|row| {
                    json!({ "agreement": json::agreement(&row.agreement), "shards": row.shards,
                        "bytes": row.bytes, "version": row.version, "egress": row.egress,
                        "end_epoch": row.end_epoch, "voucher_reserve": json::grains(row.voucher_reserve) })
                })
                .collect();
            output.answer(&rows, || {
                let rows: Vec<Vec<String>> = agreements
                    .iter()
                    .map(|row| {
                        vec![
                            row.agreement.provider.to_string(),
                            row.agreement.slot.to_string(),
                            row.shards.to_string(),
                            row.bytes.to_string(),
                            row.version.to_string(),
                            row.egress.to_string(),
                            row.end_epoch.to_string(),
                        ]
                    })
                    .collect();
                table(&["provider", "slot", "shards", "bytes", "version", "egress", "ends"], &rows)
            })
        })
    }
}
