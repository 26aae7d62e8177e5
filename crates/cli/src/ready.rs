//! Waits until a network that was just started is ready for use.

use crate::{
    devnet::running::Running,
    failure::Outcome,
    gateway::Gateway,
    ledger::Ledger,
    net::Net,
    network::Role,
    wait::{Look, until},
};
use commonware_cryptography::ed25519::PrivateKey;
use commonware_runtime::tokio::Context;
use posync_protocol::record::System;
use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

/// Limit for the first final block: it usually takes 5 s; a busy machine gets more.
const FIRST_BLOCK_WITHIN: Duration = Duration::from_secs(60);
/// Limit for every provider's registration and the gateway's first answer.
const MEMBERS_WITHIN: Duration = Duration::from_secs(60);
/// Time without any change after which a network is announced as it is.
const STILL_FOR: Duration = Duration::from_secs(60);
/// Time between two looks at the network.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Agreements that a file needs: one for each shard of a segment.
const HOLDERS: usize = 8;
/// Advice to the user when a wait ran out.
const NEXT: &str =
    "read the logs in the members' directories; a machine with less than two cores may be too slow";

/// Waits for the first final block, for every provider's registration and for the gateway; fails
/// at once if a member ends. Returns the height.
pub(crate) async fn wait(context: &Context, running: &mut Running) -> Outcome<u64> {
    let (network, net) = (running.network.clone(), running.net.clone());
    let key = running.user_key()?;
    let ledger = until("the first final block", FIRST_BLOCK_WITHIN, NEXT, async || {
        running.check()?;
        Ok(first_block(context, &net, &key).await)
    })
    .await?;
    let wanted = Wanted { providers: network.members(Role::Provider).count(), gateway: true };
    until("every provider registered, the gateway ready to store", MEMBERS_WITHIN, NEXT, async || {
        running.check()?;
        Ok(members(context, &net, &key, &ledger, wanted).await)
    })
    .await?;
    ledger.height().await
}

/// The height at which the running members are ready; otherwise, what they still wait for when the time is
/// up. A late member keeps no user from the rest of the network.
pub(crate) async fn soon(context: &Context, running: &RefCell<Running>) -> (Option<u64>, Option<String>) {
    let (network, net) = (running.borrow().network.clone(), running.borrow().net.clone());
    let key = match running.borrow().user_key() {
        Ok(key) => key,
        Err(failure) => return (None, Some(failure.in_one_line())),
    };
    let first = patiently(FIRST_BLOCK_WITHIN * 2, FIRST_BLOCK_WITHIN * 2, async || {
        first_block(context, &net, &key).await
    });
    let ledger = match first.await {
        Ok(ledger) => ledger,
        Err(seen) => return (None, Some(seen)),
    };
    let late = patiently(MEMBERS_WITHIN * 4, STILL_FOR, async || {
        let wanted = {
            let running = running.borrow();
            let up = |member: &&crate::network::Member| running.is_up(&member.name);
            Wanted {
                providers: network.members(Role::Provider).filter(up).count(),
                gateway: network.members(Role::Gateway).any(|member| up(&member)),
            }
        };
        members(context, &net, &key, &ledger, wanted).await
    })
    .await
    .err();
    (ledger.height().await.ok(), late)
}

/// Looks until the condition holds, `within` is over, or nothing changed for `still`; the error is what was
/// seen last.
async fn patiently<T>(
    within: Duration,
    still: Duration,
    mut look: impl AsyncFnMut() -> Look<T>,
) -> Result<T, String> {
    let start = Instant::now();
    let (mut last, mut since) = (String::new(), start);
    loop {
        match look().await {
            Look::Done(value) => return Ok(value),
            Look::Waiting(seen) if seen != last => (last, since) = (seen, Instant::now()),
            Look::Waiting(_) => {}
        }
        if start.elapsed() >= within || since.elapsed() >= still {
            return Err(last);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn first_block(context: &Context, net: &Net, key: &PrivateKey) -> Look<Ledger> {
    let ledger = match Ledger::connect(context, net, key).await {
        Ok(ledger) => ledger,
        Err(failure) => return Look::Waiting(failure.in_one_line()),
    };
    match ledger.height().await {
        Ok(height) if height > 0 => Look::Done(ledger),
        Ok(_) => Look::Waiting("the nodes answer, no block is final yet".into()),
        Err(failure) => Look::Waiting(failure.in_one_line()),
    }
}

/// The members that a wait is for.
#[derive(Clone, Copy)]
struct Wanted {
    providers: usize,
    gateway: bool,
}

async fn members(
    context: &Context,
    net: &Net,
    key: &PrivateKey,
    ledger: &Ledger,
    wanted: Wanted,
) -> Look<()> {
    let system: Option<System> = match ledger.read(System::key()).await {
        Ok(system) => system,
        Err(failure) => return Look::Waiting(failure.in_one_line()),
    };
    let registered = system.map_or(0, |system| system.providers as usize);
    if registered < wanted.providers {
        return Look::Waiting(format!("{registered} of {} providers are registered", wanted.providers));
    }
    if !wanted.gateway {
        return Look::Done(());
    }
    let agreements = match Gateway::dial(context, net, key).await {
        Ok(gateway) => gateway.agreements().await,
        Err(failure) => Err(failure),
    };
    match agreements {
        Ok(rows) if rows.len() >= HOLDERS => Look::Done(()),
        Ok(rows) => Look::Waiting(format!("the gateway has {} agreements of {HOLDERS}", rows.len())),
        Err(failure) => Look::Waiting(failure.in_one_line()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_stands_still_is_not_waited_for_and_what_moves_is_within_a_bound() {
        let (within, still) = (Duration::ZERO, Duration::from_secs(60));
        let late = patiently::<()>(within, still, async || Look::Waiting("3 of 10".into())).await;
        assert_eq!(late, Err("3 of 10".into()), "the bound");
        let (within, still) = (still, within);
        let late = patiently::<()>(within, still, async || Look::Waiting("3 of 10".into())).await;
        assert_eq!(late, Err("3 of 10".into()), "nothing moved");
        let mut looks = 0;
        let done = patiently(Duration::from_secs(60), Duration::from_secs(60), async || {
            looks += 1;
            if looks > 1 { Look::Done(looks) } else { Look::Waiting(looks.to_string()) }
        });
        assert_eq!(done.await, Ok(2));
    }
}
