//! `posync account`: an account, its balance and its next nonce, with proof.

use crate::{
    failure::Outcome,
    keys,
    ledger::Ledger,
    network::{Network, USER_KEY},
    output::Output,
    session,
};
use posync_protocol::record::AccountState;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Command-line arguments of `posync account`.
#[derive(Debug, clap::Args)]
pub(crate) struct Account {
    /// The account: sync1..., or the name of a member such as provider-3; your own if not given
    who: Option<String>,
    /// The key file whose account is yours; the network's user.key if not given
    #[arg(long, value_name = "FILE", conflicts_with = "who")]
    key: Option<PathBuf>,
}

impl Account {
    /// Prints the proven balance and next nonce of the account.
    pub(crate) fn run(self, net: &Path, output: Output) -> Outcome {
        let account = match &self.who {
            Some(who) => Network::read(net)?.resolve(who)?,
            None => keys::account(&keys::read(&self.key.unwrap_or_else(|| net.join(USER_KEY)))?),
        };
        session::run(async |context| {
            let ledger = Ledger::open(&context, net).await?;
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
