//! What a network on this machine tells its users: `DIR/devnet.json`, written when it starts.
//!
//! It holds only public facts (addresses, keys that verify, process ids), so it may be shown and
//! copied. Private keys stay in the members' own directories.

use crate::{
    failure::{Exit, Failure, Outcome},
    target,
};
use posync_protocol::Account;
use serde::{Deserialize, Serialize};
use std::{
    fmt, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// The file that describes a running network.
pub(crate) const FILE: &str = "devnet.json";
/// The key that `send` and the other commands use.
pub(crate) const USER_KEY: &str = "user.key";
/// Where the processes that use it take turns.
pub(crate) const USER_TURN: &str = "user.key.turn";

/// What to do when it is damaged: the members and their money are still there.
const DAMAGED: &str =
    "restore devnet.json from a copy; it holds no secret, and the members' directories are untouched";

/// A member's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Orders blocks and serves state.
    Authority,
    /// Keeps shards.
    Provider,
    /// Stores files for users.
    Gateway,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Authority => "authority",
            Self::Provider => "provider",
            Self::Gateway => "gateway",
        })
    }
}

/// A process of the network.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Member {
    /// `authority-0`, `provider-3`, `gateway`.
    pub(crate) name: String,
    /// What it does.
    pub(crate) role: Role,
    /// Its process while the network runs.
    pub(crate) pid: u32,
    /// Everything that it keeps.
    pub(crate) dir: PathBuf,
    /// Where its service listens.
    pub(crate) address: SocketAddr,
    /// Its account, which is its public key.
    pub(crate) account: String,
    /// A provider's declared operator.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) operator: Option<String>,
    /// A provider's region.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) region: Option<String>,
}

/// Where the services of the network listen, by role.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Endpoints {
    /// Node services of the authorities.
    pub(crate) nodes: Vec<SocketAddr>,
    /// The gateway service.
    pub(crate) gateway: SocketAddr,
    /// Provider services.
    pub(crate) providers: Vec<SocketAddr>,
}

/// A network on this machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Network {
    /// The key that every certificate verifies under, hex.
    pub(crate) network_key: String,
    /// SHA-256 of the genesis, hex.
    pub(crate) chain: String,
    /// The first port; every listener derives from it.
    pub(crate) port: u16,
    /// Services by role.
    pub(crate) endpoints: Endpoints,
    /// Every process.
    pub(crate) nodes: Vec<Member>,
}

impl Network {
    /// Reads the description of the network in `directory`.
    pub(crate) fn read(directory: &Path) -> Outcome<Self> {
        let path = directory.join(FILE);
        let text = fs::read_to_string(&path).map_err(|error| {
            Failure::new(
                Exit::Unreachable,
                format!("no network in {}", directory.display()),
                format!("{}: {error}", path.display()),
                "start one with `posync devnet`, or name its directory with --net or POSYNC_NET",
            )
        })?;
        let mut network: Self =
            serde_json::from_str(&text).map_err(|error| Failure::damaged(&path, error, DAMAGED))?;
        // Members live beside the file, wherever the directory was moved or copied to.
        for member in &mut network.nodes {
            member.dir = directory.join(&member.name);
        }
        Ok(network)
    }

    /// Writes the description whole or not at all.
    pub(crate) fn write(&self, directory: &Path) -> Outcome {
        let text = serde_json::to_vec_pretty(self).expect("a network is plain data");
        target::replace(&directory.join(FILE), &text)
    }

    /// The account of a member.
    pub(crate) fn account(&self, member: &Member) -> Outcome<Account> {
        member.account.parse().map_err(|error: String| {
            Failure::new(Exit::Usage, format!("devnet.json is damaged at {}", member.name), error, DAMAGED)
        })
    }

    /// An account as people name it: `sync1...`, the name of a member, or an operator's name.
    pub(crate) fn resolve(&self, text: &str) -> Outcome<Account> {
        let operates = |member: &&Member| member.operator.as_deref() == Some(text);
        let mut operated = self.nodes.iter().filter(operates);
        if let Some(member) =
            self.member(text).or_else(|| operated.next().filter(|_| operated.next().is_none()))
        {
            return self.account(member);
        }
        text.parse().map_err(|error: String| {
            let next = "give sync1..., a name that `posync status` lists, or an operator that `posync providers` lists";
            Failure::new(Exit::Usage, format!("'{text}' names no account"), error, next)
        })
    }

    /// The member with a name.
    pub(crate) fn member(&self, name: &str) -> Option<&Member> {
        self.nodes.iter().find(|member| member.name == name)
    }

    /// The members with a role.
    pub(crate) fn members(&self, role: Role) -> impl Iterator<Item = &Member> {
        self.nodes.iter().filter(move |member| member.role == role)
    }
}
