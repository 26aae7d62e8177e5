//! `posync unjail`: releases a provider from jail after its term (JL-5).
//!
//! ```text
//!   jailed until epoch N ─► before N: refused here, nothing is sent
//!                        └► from N on: Unjail{bond that is missing} ─► probation: a score of a quarter at most
//! ```
//!
//! A person sends it, never the provider by itself: jail follows wrong answers, and the next jailing is twice as
//! long.

use crate::{
    failure::{Exit, Failure, Outcome},
    jail_term::JailTerm,
    keys,
    ledger::Ledger,
    net,
    output::Output,
    role::{KEY_FILE, settings::Settings},
    session,
};
use posync_protocol::{Body, operation::Unjail as Release};
use serde_json::json;
use std::path::PathBuf;

/// Command-line arguments of `posync unjail`.
#[derive(Debug, clap::Args)]
pub(crate) struct Unjail {
    /// Directory of the provider
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

impl Unjail {
    /// Sends the release if the term in jail is over, and adds what its bond lacks.
    pub(crate) fn run(self, output: Output) -> Outcome {
        let next = "name the directory of a provider; an authority's seat stays in jail for ever";
        let settings = Settings::of_provider(&self.dir, "only providers are released from jail", next)?;
        let (key, net) = (settings.key()?, net::of_role(&settings)?);
        session::run(async |context| {
            let ledger = Ledger::connect(&context, &net, &key).await?;
            let account = keys::account(&key);
            let Some(term) = JailTerm::read(&ledger, &account).await? else {
                let next =
                    "start it (`posync start`), which registers it; a registered provider can be in jail";
                let what = format!("{account} is no registered provider");
                return Err(Failure::new(Exit::NotFound, what, "the ledger has no record of it", next));
            };
            term.check_release("repeat the command")?;
            let body = Body::Unjail(Release { bond_add: term.bond_missing });
            let sent = ledger.run(&key, &self.dir.join(KEY_FILE), body).await?;
            let cost = ledger.parameters().unjail_burn;
            let value = json!({ "account": account, "released": true, "height": sent.receipt.height, "burned": cost,
                "bond_added": term.bond_missing });
            output.answer(&value, || {
                format!(
                    "account   {account}\nreleased  in block {}; {cost} SYNC were burned, and {} SYNC were added to the \
                     bond\nIt takes new agreements and new data again. Its score is a quarter at most until three \
                     measured epochs were good.",
                    sent.receipt.height, term.bond_missing
                )
            })
        })
    }
}
