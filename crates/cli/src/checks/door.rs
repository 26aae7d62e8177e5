//! The ports at which others reach a role, and the address that it announces for each.
//!
//! A node dials only the address from which it is asked. Where another one is announced, this machine dials that one
//! itself: a listener with another key there, or none, means that the address leads elsewhere.

use super::Check;
use crate::{keys, network::Role, role::settings::Settings};
use commonware_cryptography::ed25519::PrivateKey;
use commonware_math::algebra::Random as _;
use commonware_runtime::{Network as _, Supervisor as _, tokio::Context};
use posync_client::{
    address::Address,
    channel,
    rpc::{self, Service as _},
};
use posync_protocol::{
    Account,
    wire::node::{Dial, DialBack, Nothing},
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Time to reach a listener from this machine.
const OWN: Duration = Duration::from_secs(5);

/// A port at which others reach the role.
#[derive(Clone, Copy)]
pub(super) struct Door {
    /// Name of the check of the way in.
    pub(super) check: &'static str,
    /// Setting with the address on which the role listens.
    pub(super) listen: &'static str,
    /// Setting with the announced address; `None` for a gateway, whose owner gives its address to its users.
    pub(super) advertise: Option<&'static str>,
    /// The service, as a node dials it back.
    dial: Dial,
    /// Namespace of its channel; `None` for the port at which authorities listen for each other, which answers to
    /// nobody else.
    namespace: Option<&'static [u8]>,
}

/// The listener that answered at an address.
enum Found {
    /// The one that proves the role's key; at the port for authorities, any that takes the connection.
    Own,
    /// Another one, for this reason.
    Other(String),
    /// None, for this reason.
    Nobody(String),
}

impl Door {
    /// The door to the role's service.
    pub(super) const fn of(role: Role) -> Self {
        let (listen, advertise, dial, namespace) = match role {
            Role::Provider => {
                ("listen", Some("advertise"), Dial::Provider(Nothing {}), rpc::Provider::NAMESPACE)
            }
            Role::Gateway => ("listen", None, Dial::Gateway(Nothing {}), rpc::Gateway::NAMESPACE),
            Role::Authority | Role::Node => {
                ("service_listen", Some("service_advertise"), Dial::Node(Nothing {}), rpc::Node::NAMESPACE)
            }
        };
        Self { check: "outside", listen, advertise, dial, namespace: Some(namespace) }
    }

    /// The door of an authority to the others.
    pub(super) const fn of_consensus() -> Self {
        Self {
            check: "consensus",
            listen: "listen",
            advertise: Some("advertise"),
            dial: Dial::Consensus(Nothing {}),
            namespace: None,
        }
    }

    /// Namespace of the role's service.
    pub(super) const fn namespace(&self) -> &'static [u8] {
        self.namespace.expect("the door to a service has one")
    }

    /// The setting from which others have the port.
    pub(super) const fn named_by(&self) -> &'static str {
        match self.advertise {
            Some(advertise) => advertise,
            None => self.listen,
        }
    }

    /// The address that the role announces for this door, if it is valid.
    pub(super) fn announced(&self, settings: &Settings) -> Option<Address> {
        settings.announced(self.advertise?, self.listen).ok()
    }

    /// True if others come through this door: a gateway without users serves its owner alone, who is at home.
    pub(super) fn is_for_others(&self, settings: &Settings) -> bool {
        settings.role != Role::Gateway || settings.users("users").is_ok_and(|users| !users.is_empty())
    }

    /// The request to dial the role back; `None` if its port is not known before its start.
    pub(super) fn ask(&self, settings: &Settings, account: Account) -> Option<DialBack> {
        let port = match self.advertise {
            Some(_) => self.announced(settings)?.port(),
            None => settings.listen(self.listen).ok()?.port(),
        };
        (port > 0).then_some(DialBack { port, account, service: self.dial })
    }

    /// Dials `to` from this machine, and compares what answers with the role of `account`.
    async fn find(&self, context: &Context, account: Account, to: SocketAddr) -> Found {
        match tokio::time::timeout(OWN, context.dial(to)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Found::Nobody(format!("{to}: {error}")),
            Err(_) => return Found::Nobody(format!("{to} does not answer within {} s", OWN.as_secs())),
        }
        let Some(namespace) = self.namespace else { return Found::Own };
        let caller = PrivateKey::random(commonware_utils::sys_rng());
        let dialling = channel::dial(context.child("own"), context, &caller, namespace, account, to);
        match tokio::time::timeout(OWN, dialling).await {
            Ok(Ok(_)) => Found::Own,
            Ok(Err(error)) => Found::Other(error.to_string()),
            Err(_) => {
                Found::Other(format!("{to} takes connections and proves no key within {} s", OWN.as_secs()))
            }
        }
    }

    /// True if the listener at `to` is the role's own.
    pub(super) async fn is_own(&self, context: &Context, account: Account, to: SocketAddr) -> bool {
        matches!(self.find(context, account, to).await, Found::Own)
    }

    /// Judges an announced address, which leads to `named`, that is none at which nodes `saw` this machine. `None` if
    /// it leads to this role as far as this machine can find out.
    pub(super) async fn elsewhere(
        &self,
        context: &Context,
        key: &PrivateKey,
        named: &[SocketAddr],
        saw: &[IpAddr],
    ) -> Option<Check> {
        if named.is_empty() || named.iter().any(|named| saw.contains(&named.ip())) {
            return None;
        }
        let (mut is_other, mut why) = (false, Vec::new());
        for to in named {
            match self.find(context, keys::account(key), *to).await {
                Found::Own => return None,
                Found::Other(reason) => {
                    is_other = true;
                    why.push(reason);
                }
                Found::Nobody(reason) => why.push(reason),
            }
        }
        // A router may hide its own address from the inside: silence counts once nodes have seen another one of the
        // same kind.
        let is_seen = |named: &SocketAddr| saw.iter().any(|saw| saw.is_ipv4() == named.is_ipv4());
        if !is_other && !named.iter().any(is_seen) {
            return None;
        }
        let addresses = named.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ");
        let who =
            if is_other { "another program or another key answers there" } else { "nobody answers there" };
        if !saw.is_empty() {
            let once: BTreeSet<&IpAddr> = saw.iter().collect();
            let list = once.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            why.push(format!("nodes see this machine at {list}"));
        }
        let next = format!(
            "set `{}` to the address at which others reach this machine; if a name is announced, change its record. A \
             machine whose line is reached from outside alone is started with `posync start`, which does not check it",
            self.named_by()
        );
        Some(Check::fail(
            self.check,
            format!("the announced address leads elsewhere: {addresses}, and {who}"),
            why.join("\n"),
            next,
        ))
    }
}
