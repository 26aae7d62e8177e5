//! `posync agreements`: the gateway's agreements with providers, and how both sides kept to them.

use crate::{
    failure::Outcome,
    gateway::Gateway,
    ledger::Ledger,
    net::{Access, Net},
    output::{Output, table},
    session,
};
use posync_protocol::{
    Amount, agreement::trust, amount::ONE, limits::Parameters, record::Usage, wire::gateway::AgreementRow,
};
use serde_json::{Value, json};

/// Command-line arguments of `posync agreements`.
#[derive(Debug, clap::Args)]
pub(crate) struct Agreements {}

impl Agreements {
    /// Prints the gateway's agreements and their use as the ledger proves it.
    pub(crate) fn run(self, access: &Access, output: Output) -> Outcome {
        let net = Net::open(access)?;
        session::run(async |context| {
            let agreements = Gateway::connect(&context, &net).await?.agreements().await?;
            let ledger = Ledger::open(&context, &net).await?;
            let keys = agreements.iter().map(|row| Usage::key(&row.agreement.provider, row.agreement.slot));
            let uses = ledger.read_all::<Usage>(keys.collect()).await?.into_iter();
            let rows: Vec<(AgreementRow, Usage)> =
                agreements.into_iter().zip(uses.map(Option::unwrap_or_default)).collect();
            let values: Vec<Value> = rows.iter().map(|row| to_json(row, ledger.parameters())).collect();
            output.answer(&values, || text(&rows, ledger.parameters()))
        })
    }
}

fn to_json((row, usage): &(AgreementRow, Usage), parameters: &Parameters) -> Value {
    let mut value = json!(row);
    value["signed"] = json!(usage.signed);
    value["disputed"] = json!(usage.disputed);
    value["trust"] = json!(trust(usage, parameters) as f64 / ONE as f64);
    value
}

const HEADINGS: [&str; 10] = [
    "provider",
    "slot",
    "shards",
    "bytes",
    "version",
    "egress",
    "signed SYNC",
    "disputed SYNC",
    "trust",
    "ends",
];

fn text(rows: &[(AgreementRow, Usage)], parameters: &Parameters) -> String {
    let cells: Vec<Vec<String>> = rows.iter().map(|row| to_text(row, parameters)).collect();
    let mut text = table(&HEADINGS, &cells);
    if rows.iter().any(|(_, usage)| usage.disputed > Amount::ZERO) {
        text += DISPUTED;
    }
    text
}

/// Explains the column of disputed amounts, and what follows from it.
const DISPUTED: &str = "\n\ndisputed: the value that these providers say they sent and this gateway did not sign for, in \
    SYNC.\n          It is never paid. A connection that broke in the middle of a read causes it. Such a provider sends \
    a little\n          less before it is paid (trust), until a sixteenth of what is paid outgrows it. If it grows while \
    nothing\n          breaks, rent from others.";

fn to_text((row, usage): &(AgreementRow, Usage), parameters: &Parameters) -> Vec<String> {
    vec![
        row.agreement.provider.to_string(),
        row.agreement.slot.to_string(),
        row.shards.to_string(),
        row.bytes.to_string(),
        row.version.to_string(),
        row.egress.to_string(),
        usage.signed.to_string(),
        usage.disputed.to_string(),
        share(trust(usage, parameters)),
        row.end_epoch.to_string(),
    ]
}

/// A share in percent, cut to four decimals, so that less than all is never shown as all.
pub(crate) fn share(ratio: u64) -> String {
    let parts = u128::from(ratio) * 1_000_000 / u128::from(ONE);
    format!("{}.{:04} %", parts / 10_000, parts % 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use posync_protocol::{Account, AgreementId};

    fn row(slot: u32) -> AgreementRow {
        let agreement = AgreementId { provider: Account([1; 32]), slot, opened: 1 };
        let voucher_reserve = Amount::ZERO;
        AgreementRow { agreement, shards: 1, bytes: 2, version: 3, egress: 4, end_epoch: 5, voucher_reserve }
    }

    #[test]
    fn what_is_disputed_is_shown_with_what_it_means() {
        let parameters = Parameters::LOCAL;
        let deposit = parameters.deposit;
        let clean = Usage { signed: deposit, ..Usage::default() };
        let disputed = Usage { disputed: deposit, ..clean.clone() };
        let calm = text(&[(row(0), clean.clone())], &parameters);
        assert!(calm.contains("100.0000 %") && !calm.contains("broke"), "{calm}");
        let both = text(&[(row(0), clean), (row(1), disputed.clone())], &parameters);
        assert!(both.contains("0.010000000    66.6666 %") && both.contains("broke"), "{both}");
        assert_eq!(to_json(&(row(1), disputed), &parameters)["disputed"], json!(deposit));
    }

    #[test]
    fn shares_never_look_whole_when_they_are_not() {
        for (ratio, expected) in
            [(0, "0.0000 %"), (ONE, "100.0000 %"), (ONE - 1, "99.9999 %"), (ONE / 2, "50.0000 %")]
        {
            assert_eq!(share(ratio), expected);
        }
    }
}
