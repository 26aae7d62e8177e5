//! The check of a provider's term on the ledger: in jail until when, and the command that releases it.

use super::Check;
use crate::{jail_term::JailTerm, keys, ledger::Ledger, net::Net, network::Role, role::settings::Settings};
use commonware_cryptography::ed25519::PrivateKey;
use commonware_runtime::tokio::Context;

/// Checks that a registered provider is not in jail; `None` for other roles, before the registration, and if no
/// node proves the records, which other checks name.
pub(super) async fn check(
    context: &Context,
    settings: &Settings,
    net: &Net,
    key: &PrivateKey,
) -> Option<Check> {
    if settings.role != Role::Provider {
        return None;
    }
    let ledger = Ledger::connect(context, net, key).await.ok()?;
    let term = JailTerm::read(&ledger, &keys::account(key)).await.ok()??;
    Some(judge(&term, &settings.directory.display().to_string()))
}

fn judge(term: &JailTerm, directory: &str) -> Check {
    let Some(what) = term.in_jail() else {
        return Check::ok("jail", "the provider is not in jail");
    };
    let why =
        "it answered with wrong or missing data in three epochs: it takes no new agreements and no new data";
    let command = format!("`posync unjail --dir {directory}`");
    let next = match term.check_release(&format!("run {command}")) {
        Ok(()) => format!("mend the cause if that is not done (see the role's log and disk), then {command}"),
        Err(failure) => failure.parts()[2].to_owned(),
    };
    Check::warn("jail", what, why, next)
}
