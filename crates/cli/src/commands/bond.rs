//! `posync bond`: shows a provider's bond, and adds to it.
//!
//! ```text
//!   bond 1,000, `capacity` in config.toml needs 1,200 ─► it declares what 1,000 cover ─► posync bond --add 200 ─► all
//! ```
//!
//! A person adds, never the provider by itself: a bond falls when the ledger pays what wrong answers have cost others.

use super::send;
use crate::{
    failure::{Exit, Failure, Outcome},
    keys,
    ledger::Ledger,
    net,
    output::Output,
    role::{KEY_FILE, settings::Settings},
    session,
};
use posync_protocol::{
    Account, Amount, Body, Class,
    limits::LEAF_BYTES,
    operation::UpdateProvider,
    provider::bond_needed,
    record::{Endpoint, Offer, Provider},
};
use serde_json::json;
use std::path::PathBuf;

/// Command-line arguments of `posync bond`.
#[derive(Debug, clap::Args)]
pub(crate) struct Bond {
    /// Directory of the provider
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Amount to add from the provider's account, in SYNC
    #[arg(long, value_name = "SYNC")]
    add: Option<String>,
}

impl Bond {
    /// Adds the amount, if one is given, and shows the bond with what the capacity needs: that of the settings, or the
    /// declared one if it is larger.
    pub(crate) fn run(self, output: Output) -> Outcome {
        let add = self.add.as_deref().map(send::parse).transpose()?;
        let next = "name the directory of a provider; no other role has a bond that can be added to";
        let settings = Settings::of_provider(&self.dir, "only providers add to a bond", next)?;
        let (key, net) = (settings.key()?, net::of_role(&settings)?);
        let offered = settings.promised()? / LEAF_BYTES;
        session::run(async |context| {
            let ledger = Ledger::connect(&context, &net, &key).await?;
            let account = keys::account(&key);
            if let Some(bond_add) = add.filter(|add| *add > Amount::ZERO) {
                let body = update(&ledger, &account, bond_add).await?;
                ledger.run(&key, &self.dir.join(KEY_FILE), body).await?;
            }
            let (provider, offer, _) = records(&ledger, &account).await?;
            let leaves = offered.max(offer.capacity[Class::Storage]);
            let needed = bond_needed(leaves, ledger.parameters());
            let missing = needed.saturating_sub(provider.bond);
            let value = json!({ "account": account, "bond": provider.bond, "added": add.unwrap_or(Amount::ZERO),
                "needed": needed, "missing": missing });
            output.answer(&value, || {
                let rest = match missing {
                    Amount::ZERO => "It covers the capacity.".into(),
                    missing => format!(
                        "It sells less than it declares, or nothing, until {missing} SYNC are added: posync bond --dir {} \
                         --add {missing}",
                        self.dir.display()
                    ),
                };
                format!("account  {account}\nbond     {} SYNC; its capacity needs {needed}\n{rest}", provider.bond)
            })
        })
    }
}

/// The records of a registered provider.
async fn records(ledger: &Ledger, account: &Account) -> Outcome<(Provider, Offer, Endpoint)> {
    let provider = ledger.read::<Provider>(Provider::key(account)).await?;
    // One node may be a block behind: an old offer or address must not replace a new one.
    let offer = ledger.confirmed::<Offer>(Offer::key(account)).await?.record;
    let endpoint = ledger.confirmed::<Endpoint>(Endpoint::key(account)).await?.record;
    match (provider, offer, endpoint) {
        (Some(provider), Some(offer), Some(endpoint)) => Ok((provider, offer, endpoint)),
        _ => {
            let next = "start it (`posync start`), which registers it with the bond of its settings";
            let what = format!("{account} is no registered provider");
            Err(Failure::new(Exit::NotFound, what, "the ledger has no record of it", next))
        }
    }
}

/// The operation that adds to the bond and leaves the offer as it is.
async fn update(ledger: &Ledger, account: &Account, bond_add: Amount) -> Outcome<Body> {
    let (provider, offer, endpoint) = records(ledger, account).await?;
    if provider.leaves_at != 0 {
        let why = "its bond comes back when it has left";
        let next = "nothing is to be done; `posync leave` shows when the machine may be switched off";
        return Err(Failure::new(Exit::Refused, format!("{account} leaves the network"), why, next));
    }
    Ok(Body::UpdateProvider(UpdateProvider { bond_add, ..unchanged(&provider, &offer, endpoint) }))
}

/// The operation that changes nothing of these records.
pub(super) fn unchanged(provider: &Provider, offer: &Offer, endpoint: Endpoint) -> UpdateProvider {
    UpdateProvider {
        bond_add: Amount::ZERO,
        capacity: offer.capacity,
        reserve: offer.reserve,
        term_max: offer.term_max,
        addresses: endpoint.addresses,
        index: provider.index,
        leave: false,
        exit: None,
    }
}
