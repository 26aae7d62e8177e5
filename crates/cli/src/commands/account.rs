//! `posync account`: an account, its balance and its next nonce, with proof.

use crate::{
    failure::Outcome,
    keys,
    ledger::Ledger,
    net::{Access, Net},
    output::Output,
    session,
};
use posync_protocol::record::AccountState;
use serde_json::json;

/// Command-line arguments of `posync account`.
#[derive(Debug, clap::Args)]
pub(crate) struct Account {
    /// The account: sync1..., or the name of a member such as provider-3; your own if not given
    who: Option<String>,
}

impl Account {
    /// Prints the proven balance and next nonce of the account.
    pub(crate) fn run(self, access: &Access, output: Output) -> Outcome {
        let net = Net::open(access)?;
        let account = match &self.who {
            Some(who) => net.resolve(who)?,
            None => keys::account(&net.key()?),
        };
        session::run(async |context| {
            let ledger = Ledger::open(&context, &net).await?;
            let (height, found) = ledger.read_at::<AccountState>(AccountState::key(&account)).await?;
            let state = found.clone().unwrap_or_default();
            let value = json!({ "account": account, "exists": found.is_some(),
                "balance": state.balance, "nonce": state.nonce, "height": height });
            output.answer(&value, || {
                let rest = match &found {
                    Some(state) => format!(
                        "balance   {} SYNC\nnonce     {} (of the next operation)",
                        state.balance, state.nonce
                    ),
                    None => "balance   none: nothing was ever sent to it".into(),
                };
                format!("account   {account}\n{rest}\nproved    at block {height}")
            })
        })
    }
}
