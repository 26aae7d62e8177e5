//! When a network that was just started may be used.

use crate::{
    devnet::running::Running,
    failure::Outcome,
    gateway::Gateway,
    ledger::Ledger,
    network::Role,
    wait::{Look, until},
};
use commonware_runtime::tokio::Context;
use posync_protocol::record::System;
use std::time::Duration;

/// Usually 5 s; a busy machine gets more.
const FIRST_BLOCK_WITHIN: Duration = Duration::from_secs(60);
/// Until every provider is registered and the gateway answers.
const MEMBERS_WITHIN: Duration = Duration::from_secs(60);
/// Agreements that a file needs: one for each shard of a segment.
const HOLDERS: usize = 8;
/// What to do when a wait ran out.
const NEXT: &str =
    "read the logs in the members' directories; a machine with less than two cores may be too slow";

/// Waits for the first final block, for every provider's registration and for the gateway; fails
/// at once if a member ends. Returns the height.
pub(crate) async fn wait(context: &Context, running: &mut Running) -> Outcome<u64> {
    let network = running.network.clone();
    let key = running.user_key()?;
    let ledger = until("the first final block", FIRST_BLOCK_WITHIN, NEXT, async || {
        running.check()?;
        let ledger = match Ledger::connect(context, &network, &key).await {
            Ok(ledger) => ledger,
            Err(failure) => return Ok(Look::Waiting(failure.to_string())),
        };
        Ok(match ledger.height().await {
            Ok(height) if height > 0 => Look::Done(ledger),
            Ok(_) => Look::Waiting("the nodes answer, no block is final yet".into()),
            Err(failure) => Look::Waiting(failure.to_string()),
        })
    })
    .await?;
    let wanted = network.members(Role::Provider).count();

    until("every provider registered, the gateway ready to store", MEMBERS_WITHIN, NEXT, async || {
        running.check()?;
        let system: Option<System> = match ledger.read(System::key()).await {
            Ok(system) => system,
            Err(failure) => return Ok(Look::Waiting(failure.to_string())),
        };
        let registered = system.map_or(0, |system| system.providers as usize);
        if registered < wanted {
            return Ok(Look::Waiting(format!("{registered} of {wanted} providers are registered")));
        }
        let agreements = match Gateway::dial(context, &network, &key).await {
            Ok(gateway) => gateway.agreements().await,
            Err(failure) => Err(failure),
        };
        Ok(match agreements {
            Ok(rows) if rows.len() >= HOLDERS => Look::Done(()),
            Ok(rows) => Look::Waiting(format!("the gateway has {} agreements of {HOLDERS}", rows.len())),
            Err(failure) => Look::Waiting(failure.to_string()),
        })
    })
    .await?;
    ledger.height().await
}
