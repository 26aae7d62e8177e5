//! The pay of providers for an epoch, with its reasons, from the rows of the epoch's sealed books.

use crate::{
    commands::recompute::sealing_block,
    failure::Outcome,
    ledger::Ledger,
    wait::{Look, until},
};
use posync_protocol::{
    Account, Amount, Class,
    amount::ONE,
    economics::score::CORRECTNESS_MIN,
    limits::SETTLEMENT_RING,
    record::{Provider, Settlement, UNMEASURED},
};
use serde_json::{Value, json};
use std::time::Duration;

/// Limit for sealing an epoch's books: three epochs of ten seconds, and as much again.
const SEALED_WITHIN: Duration = Duration::from_secs(90);

/// A provider's pay for an epoch.
#[derive(Clone, Debug)]
pub(crate) struct Payout {
    /// Account of the provider that is paid.
    pub(crate) node: Account,
    /// Its settlement row of the epoch.
    pub(crate) row: Settlement,
    /// Its bond, which absence never lowers.
    pub(crate) bond: Amount,
}

impl Payout {
    /// All pay for the epoch: fees and subsidy.
    pub(crate) fn amount(&self) -> Amount {
        self.row.pay.checked_add(self.row.subsidy).unwrap_or(Amount::MAX)
    }

    /// Its storage score after the epoch.
    pub(crate) fn score(&self) -> u64 {
        self.row.scores[Class::Storage].ppb()
    }

    /// Explains in words why the pay is not higher.
    pub(crate) fn why(&self) -> String {
        let correct = self.row.correct[Class::Storage].ppb();
        if self.row.answers == 0 && self.row.fee == Amount::ZERO {
            return "answered no challenge in the epoch: nothing was settled, nothing is taken".into();
        }
        if correct == UNMEASURED {
            return "no read of it was drawn in the epoch: not measured".into();
        }
        let percent = correct / (ONE / 100);
        if correct < CORRECTNESS_MIN {
            return format!("{percent} % of its drawn reads were correct, below 90 %: quality 0, no subsidy");
        }
        format!("{percent} % of its drawn reads were correct")
    }

    /// The payout as JSON, with its reason.
    pub(crate) fn to_json(&self) -> Value {
        json!({ "epoch": self.row.epoch, "provider": self.node, "amount": self.amount(),
            "parts": { "provider_pay": self.row.pay, "subsidy": self.row.subsidy },
            "disputed": self.row.disputed, "score": self.score(), "bond": self.bond, "why": self.why() })
    }
}

/// Waits until the books of `epoch` are sealed.
pub(crate) async fn sealed(ledger: &Ledger, epoch: u64, next: &str) -> Outcome {
    until("the epoch's books are sealed", SEALED_WITHIN, next, async || {
        Ok(match sealing_block(ledger, epoch).await {
            Ok(_) => Look::Done(()),
            Err(waiting) => Look::Waiting(waiting.to_string()),
        })
    })
    .await
}

/// Reads the pay of `nodes` for `epoch`, whose books must be sealed.
pub(crate) async fn of(ledger: &Ledger, nodes: &[Account], epoch: u64) -> Outcome<Vec<Payout>> {
    let keys = nodes.iter().map(|node| Settlement::key(node, epoch % SETTLEMENT_RING)).collect();
    let rows = ledger.read_all::<Settlement>(keys).await?;
    let providers = ledger.read_all::<Provider>(nodes.iter().map(Provider::key).collect()).await?;
    let all = nodes.iter().zip(rows).zip(providers);
    let payouts = all.filter_map(|((node, row), provider)| {
        let row = row.filter(|row| row.epoch == epoch)?;
        Some(Payout { node: *node, row, bond: provider?.bond })
    });
    Ok(payouts.collect())
}
