//! Dials a caller back: a member learns from nodes that others reach it, before it announces an address.
//!
//! Invariants
//! 1. A node dials only the IP address from which the request comes: nobody can make it dial a third party.
//! 2. At most one attempt for each caller, by address and by key, and [`DIALS_MAX`] in all; each ends within
//!    [`DIAL_BACK_MS_MAX`], or when its caller leaves.

use crate::engine::Runtime;
use commonware_cryptography::ed25519::PrivateKey;
use commonware_macros::select;
use commonware_runtime::{Error as RuntimeError, Network, Resolver};
use commonware_utils::sync::Mutex;
use posync_client::{
    channel::{self, Error},
    rpc::{self, Service as _},
};
use posync_protocol::{
    Account,
    wire::node::{DIAL_BACK_MS_MAX, Dial, DialBack, DialOutcome, Nothing},
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

/// Most attempts at once, of all callers.
const DIALS_MAX: usize = 8;

/// The attempts that run now, by caller.
#[derive(Clone, Default)]
pub(crate) struct Dials(Arc<Mutex<BTreeSet<(IpAddr, Account)>>>);

/// An attempt; dropping it makes room for the next one.
pub(crate) struct Attempt {
    dials: Dials,
    caller: (IpAddr, Account),
}

impl Dials {
    /// Takes a place; `None` if this caller has one, or all are taken.
    pub(crate) fn begin(&self, ip: IpAddr, account: Account) -> Option<Attempt> {
        let mut running = self.0.lock();
        let has_one = running.iter().any(|(from, by)| *from == ip || *by == account);
        if has_one || running.len() >= DIALS_MAX {
            return None;
        }
        running.insert((ip, account));
        Some(Attempt { dials: self.clone(), caller: (ip, account) })
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.dials.0.lock().remove(&self.caller);
    }
}

impl Attempt {
    /// Dials the caller's own address at the port that it asks for.
    pub(crate) async fn run<E, N>(
        self,
        context: E,
        network: &N,
        key: &PrivateKey,
        ask: DialBack,
    ) -> DialOutcome
    where
        E: Runtime + Resolver,
        N: Network,
    {
        let namespace = match ask.service {
            Dial::Provider(_) => rpc::Provider::NAMESPACE,
            Dial::Gateway(_) => rpc::Gateway::NAMESPACE,
            Dial::Node(_) => rpc::Node::NAMESPACE,
        };
        let to = SocketAddr::new(self.caller.0, ask.port);
        let late = context.sleep(Duration::from_millis(DIAL_BACK_MS_MAX));
        let dialling = channel::dial(context, network, key, namespace, ask.account, to);
        select! {
            dialled = dialling => outcome(dialled.err()),
            () = late => DialOutcome::TimedOut(Nothing {}),
        }
    }
}

fn outcome(failed: Option<Error>) -> DialOutcome {
    match failed {
        None => DialOutcome::Reached(Nothing {}),
        Some(Error::Dial(_, RuntimeError::Timeout) | Error::HandshakeTimeout(_)) => {
            DialOutcome::TimedOut(Nothing {})
        }
        Some(Error::Dial(..)) => DialOutcome::Refused(Nothing {}),
        Some(_) => DialOutcome::Other(Nothing {}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_cryptography::Signer as _;
    use commonware_runtime::{Runner as _, Supervisor as _, deterministic};
    use posync_client::channel::Listen;

    #[test]
    fn one_caller_has_one_attempt_and_all_callers_together_a_few() {
        let dials = Dials::default();
        let caller = |last| (IpAddr::from([10, 0, 0, last]), Account([last; 32]));
        let begin = |ip, account| dials.begin(ip, account);
        let (ip, account) = caller(1);
        let first = begin(ip, account).expect("a place");
        assert!(begin(ip, Account([9; 32])).is_none(), "the same address");
        assert!(begin(IpAddr::from([10, 0, 0, 9]), account).is_none(), "the same key");
        let others: Vec<_> =
            (2..2 + DIALS_MAX as u8).map_while(|last| begin(caller(last).0, caller(last).1)).collect();
        assert_eq!(others.len(), DIALS_MAX - 1, "all places are taken");
        drop(first);
        assert!(begin(ip, account).is_some(), "an attempt that is over makes room");
    }

    #[test]
    fn the_callers_own_address_alone_is_dialled_and_what_answers_there_is_judged() {
        deterministic::Runner::default().start(|context| async move {
            let [node, member, stranger] = [1, 2, 3].map(PrivateKey::from_seed);
            let ip = IpAddr::from([10, 0, 0, 7]);
            let at = |port| SocketAddr::new(ip, port);
            let config = Listen::new(member.clone(), rpc::Provider::NAMESPACE, at(40));
            let listening =
                channel::listen(context.child("listener"), &context, config, |_, _, _, _| async {});
            let listening = listening.await.expect("free");
            // It accepts and says nothing.
            let silent = context.bind(at(41)).await.expect("free");
            let account = |key: &PrivateKey| Account::of(&key.public_key());
            let (provider, gateway) = (Dial::Provider(Nothing {}), Dial::Gateway(Nothing {}));
            for (port, key, service, expected) in [
                (40, &member, provider, DialOutcome::Reached(Nothing {})),
                (40, &stranger, provider, DialOutcome::Other(Nothing {})),
                (40, &member, gateway, DialOutcome::Other(Nothing {})),
                (41, &member, provider, DialOutcome::TimedOut(Nothing {})),
                (42, &member, provider, DialOutcome::Refused(Nothing {})),
            ] {
                let attempt = Dials::default().begin(ip, account(&member)).expect("a place");
                let ask = DialBack { port, account: account(key), service };
                let outcome = attempt.run(context.child("dial"), &context, &node, ask).await;
                assert_eq!(outcome, expected, "{port} {service:?}");
            }
            // Another caller's address has nobody at that port.
            let elsewhere = Dials::default().begin(IpAddr::from([10, 0, 0, 8]), account(&stranger));
            let ask = DialBack { port: 40, account: account(&member), service: provider };
            let outcome = elsewhere.expect("a place").run(context.child("dial"), &context, &node, ask).await;
            assert_eq!(outcome, DialOutcome::Refused(Nothing {}));
            listening.task.abort();
            drop(silent);
        });
    }
}
