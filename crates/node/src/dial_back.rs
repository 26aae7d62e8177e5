//! Dials a caller back: a member learns from nodes that others reach it, before it announces an address.
//!
//! Invariants
//! 1. A node dials only the IP address from which the request comes: nobody can make it dial a third party.
//! 2. Outside a private network a node dials no address that the internet does not route, and not its own: the
//!    request then comes through a proxy or from the node's own network, and strangers would learn what listens
//!    there.
//! 3. At most one attempt for each caller, by address and by key, and [`DIALS_MAX`] in all; each ends within
//!    [`DIAL_BACK_MS_MAX`], or when its caller leaves. The addresses of an IPv6 /64 count as one.

use crate::engine::Runtime;
use commonware_cryptography::ed25519::PrivateKey;
use commonware_macros::select;
use commonware_runtime::{Error as RuntimeError, Network, Resolver};
use commonware_utils::sync::Mutex;
use posync_client::{
    address::{group, is_public},
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
#[derive(Clone)]
pub(crate) struct Dials {
    running: Arc<Mutex<BTreeSet<(IpAddr, Account)>>>,
    /// True if the network is private, so that all addresses are dialled.
    is_private: bool,
    /// Address at which the node listens.
    own: IpAddr,
}

/// An attempt; dropping it makes room for the next one.
pub(crate) struct Attempt {
    dials: Dials,
    /// Address that is dialled back.
    ip: IpAddr,
    /// Place that the attempt takes.
    caller: (IpAddr, Account),
}

impl Dials {
    /// Starts without attempts, for a node that listens at `own`.
    pub(crate) fn new(own: IpAddr, is_private: bool) -> Self {
        Self { running: Arc::default(), is_private, own: own.to_canonical() }
    }

    /// True if callers of that address are dialled.
    pub(crate) fn may_dial(&self, ip: IpAddr) -> bool {
        self.is_private || (is_public(ip) && ip.to_canonical() != self.own)
    }

    /// Takes a place; `None` if this caller has one, or all are taken.
    pub(crate) fn begin(&self, ip: IpAddr, account: Account) -> Option<Attempt> {
        let mut running = self.running.lock();
        let caller = (group(ip), account);
        let has_one = running.iter().any(|(from, by)| *from == caller.0 || *by == account);
        if has_one || running.len() >= DIALS_MAX {
            return None;
        }
        running.insert(caller);
        Some(Attempt { dials: self.clone(), ip, caller })
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.dials.running.lock().remove(&self.caller);
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
        let to = SocketAddr::new(self.ip, ask.port);
        let late = context.sleep(Duration::from_millis(DIAL_BACK_MS_MAX));
        let namespace = match ask.service {
            Dial::Provider(_) => rpc::Provider::NAMESPACE,
            Dial::Gateway(_) => rpc::Gateway::NAMESPACE,
            Dial::Node(_) => rpc::Node::NAMESPACE,
            Dial::Consensus(_) => {
                return select! {
                    connected = network.dial(to) => {
                        outcome(connected.err().map(|error| Error::Dial(to.into(), error)))
                    },
                    () = late => DialOutcome::TimedOut(Nothing {}),
                };
            }
        };
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

    fn private() -> Dials {
        Dials::new(IpAddr::from([10, 0, 0, 1]), true)
    }

    #[test]
    fn outside_a_private_network_only_addresses_of_the_internet_are_dialled() {
        let own = IpAddr::from([203, 0, 114, 1]);
        let (public, inside) = (Dials::new(own, false), Dials::new(own, true));
        for hidden in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.0.9",
            "172.17.0.1",
            "169.254.1.1",
            "100.64.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "192.0.0.8",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "203.0.114.1",
            "::ffff:127.0.0.1",
            "::ffff:203.0.114.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "2001:db8::1",
            "3fff::1",
            "3fff:fff::1",
            "2002:7f00:1::",
            "64:ff9b::7f00:1",
            "2001::1",
        ] {
            let ip = hidden.parse().expect("an address");
            assert!(!public.may_dial(ip), "{hidden}");
            assert!(inside.may_dial(ip), "{hidden}");
        }
        for open in ["203.0.114.2", "9.9.9.9", "2a01:4f8::1", "2001:470::1", "3fff:1000::1", "::ffff:9.9.9.9"]
        {
            assert!(public.may_dial(open.parse().expect("an address")), "{open}");
        }
    }

    /// Whoever has one IPv6 address has 2^64 of them.
    #[test]
    fn an_ipv6_network_is_one_caller() {
        let dials = private();
        let begin = |ip: &str, last| dials.begin(ip.parse().expect("an address"), Account([last; 32]));
        let first = begin("2a01:4f8:1:2::1", 1).expect("a place");
        assert!(begin("2a01:4f8:1:2:ffff::9", 2).is_none());
        assert_eq!(
            first.ip,
            "2a01:4f8:1:2::1".parse::<IpAddr>().expect("an address"),
            "the address itself is dialled"
        );
        let other = begin("2a01:4f8:1:3::1", 3);
        assert!(other.is_some());
    }

    #[test]
    fn one_caller_has_one_attempt_and_all_callers_together_a_few() {
        let dials = private();
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
                // The port for authorities proves nothing to others: it is enough that it takes the connection.
                (41, &member, Dial::Consensus(Nothing {}), DialOutcome::Reached(Nothing {})),
                (42, &member, Dial::Consensus(Nothing {}), DialOutcome::Refused(Nothing {})),
            ] {
                let attempt = private().begin(ip, account(&member)).expect("a place");
                let ask = DialBack { port, account: account(key), service };
                let outcome = attempt.run(context.child("dial"), &context, &node, ask).await;
                assert_eq!(outcome, expected, "{port} {service:?}");
            }
            // Another caller's address has nobody at that port.
            let elsewhere = private().begin(IpAddr::from([10, 0, 0, 8]), account(&stranger));
            let ask = DialBack { port: 40, account: account(&member), service: provider };
            let outcome = elsewhere.expect("a place").run(context.child("dial"), &context, &node, ask).await;
            assert_eq!(outcome, DialOutcome::Refused(Nothing {}));
            listening.task.abort();
            drop(silent);
        });
    }
}
