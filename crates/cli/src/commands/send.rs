//! `posync send ACCOUNT AMOUNT`: pays, and waits until the payment is final.

use crate::{
    failure::{Exit, Failure, Outcome},
    keys,
    ledger::Ledger,
    net::{Access, Net},
    output::Output,
    session,
};
use posync_protocol::{Amount, Body, amount::SYNC, operation::Transfer};
use serde_json::json;

/// Decimals of one SYNC: its smallest part is a grain.
const DECIMALS: usize = 9;

/// Command-line arguments of `posync send`.
#[derive(Debug, clap::Args)]
pub(crate) struct Send {
    /// The account that is paid: sync1..., or the name of a member such as provider-3
    to: String,
    /// The amount in SYNC, with up to nine decimals
    amount: String,
}

impl Send {
    /// Pays, and prints the block that holds the payment.
    pub(crate) fn run(self, access: &Access, output: Output) -> Outcome {
        let amount = parse(&self.amount)?;
        let net = Net::open(access)?;
        let to = net.resolve(&self.to)?;
        let path = net.key_file()?;
        let key = keys::read(&path)?;
        session::run(async |context| {
            let ledger = Ledger::open(&context, &net).await?;
            let sent = ledger.run(&key, &path, Body::Transfer(Transfer { to, amount })).await?;
            let value = json!({ "to": to, "amount": amount,
                "operation": hex::encode(sent.id), "height": sent.receipt.height });
            output.answer(&value, || format!("sent {amount} SYNC to {to} in block {}", sent.receipt.height))
        })
    }
}

/// Parses SYNC with up to nine decimals, without rounding.
pub(crate) fn parse(text: &str) -> Outcome<Amount> {
    let refuse = |why: &str| {
        let next = "give SYNC with up to nine decimals, such as 1.5";
        Failure::new(Exit::Usage, format!("'{text}' is not an amount"), why, next)
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return Err(refuse("it is not digits with at most one point"));
    }
    if !cfg!(planted = "rounded-amount") && fraction.len() > DECIMALS {
        return Err(refuse("a grain is a billionth of a SYNC"));
    }
    let grains = || {
        let fraction: u128 = format!("{fraction:0<DECIMALS$}").parse().ok()?;
        let whole: u128 = whole.parse().ok()?;
        Amount::new(whole.checked_mul(SYNC)?.checked_add(fraction)?)
    };
    grains().ok_or_else(|| refuse("it is more than there can be"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact() {
        let good = [
            ("0", 0),
            ("1", 1_000_000_000),
            ("1.5", 1_500_000_000),
            ("0.000000001", 1),
            ("7.10", 7_100_000_000),
        ];
        for (text, grains) in good {
            assert_eq!(parse(text).expect("an amount").grains(), grains, "{text}");
        }
        let huge = "9".repeat(60);
        for text in ["", ".", "1.", ".5", "-1", "1,5", "1e3", "0.0000000001", "1.2.3", " 1", huge.as_str()] {
            assert_eq!(parse(text).expect_err("no amount").exit, Exit::Usage, "{text}");
        }
    }
}
