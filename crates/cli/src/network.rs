//! The description of a network on this machine: `DIR/devnet.json`, written when it starts.
//!
//! It holds public facts only (addresses, public keys, process ids), so it may be shown and
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

/// Name of the file that describes a running network.
pub(crate) const FILE: &str = "devnet.json";
/// Name of the key file that `send` and the other commands use.
pub(crate) const USER_KEY: &str = "user.key";
/// Name of the file on which processes that share the user's key take turns.
pub(crate) const USER_TURN: &str = "user.key.turn";

/// Advice when the file is damaged: the members and their money are still there.
const DAMAGED: &str =
    "restore devnet.json from a copy; it holds no secret, and the members' directories are untouched";

/// The role of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Orders blocks, executes them and serves state.
    Authority,
    /// Keeps shards and serves reads.
    Provider,
    /// Stores files for its users.
    Gateway,
    /// Follows the chain and serves its state, without a seat.
    Node,
}

impl Role {
    /// All roles, in the order in which they are listed.
    pub(crate) const ALL: [Self; 4] = [Self::Authority, Self::Provider, Self::Gateway, Self::Node];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Authority => "authority",
            Self::Provider => "provider",
            Self::Gateway => "gateway",
            Self::Node => "node",
        })
    }
}

/// A member of the network and its process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Member {
    /// Its name, such as `authority-0`, `provider-3` or `gateway`.
    pub(crate) name: String,
    /// The role that its process runs.
    pub(crate) role: Role,
    /// Its process id; 0 if it does not run.
    pub(crate) pid: u32,
    /// The member's own directory.
    pub(crate) dir: PathBuf,
    /// The address on which its service listens.
    pub(crate) address: SocketAddr,
    /// Its account (`sync1...`), which is its public key.
    pub(crate) account: String,
    /// The operator that a provider declares.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) operator: Option<String>,
    /// The region that a provider declares.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) region: Option<String>,
}

/// Addresses of the network's services, by role.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Endpoints {
    /// Node services of the authorities.
    pub(crate) nodes: Vec<SocketAddr>,
    /// Service of the network's gateway.
    pub(crate) gateway: SocketAddr,
    /// Services of the providers.
    pub(crate) providers: Vec<SocketAddr>,
}

/// The description of a network on this machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Network {
    /// Public key of the network, under which every certificate verifies, in hex.
    pub(crate) network_key: String,
    /// SHA-256 of the genesis, in hex.
    pub(crate) chain: String,
    /// First port of the network; every listener's port derives from it.
    pub(crate) port: u16,
    /// Addresses of the services, by role.
    pub(crate) endpoints: Endpoints,
    /// All members of the network.
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
        // Members live beside the file, even if the directory was moved or copied.
        for member in &mut network.nodes {
            member.dir = directory.join(&member.name);
        }
        Ok(network)
    }

    /// Writes the description: the whole file, or none of it.
    pub(crate) fn write(&self, directory: &Path) -> Outcome {
        let text = serde_json::to_vec_pretty(self).expect("a network is plain data");
        target::replace(&directory.join(FILE), &text)
    }

    /// Parses the account of a member.
    pub(crate) fn account(&self, member: &Member) -> Outcome<Account> {
        member.account.parse().map_err(|error: String| {
            Failure::new(Exit::Usage, format!("devnet.json is damaged at {}", member.name), error, DAMAGED)
        })
    }

    /// The member with this name.
    pub(crate) fn member(&self, name: &str) -> Option<&Member> {
        self.nodes.iter().find(|member| member.name == name)
    }

    /// The members with this role.
    pub(crate) fn members(&self, role: Role) -> impl Iterator<Item = &Member> {
        self.nodes.iter().filter(move |member| member.role == role)
    }
}

/// Resolves an account as users name it: `sync1...`, a member's name, or an operator with one provider.
pub(crate) fn resolve(members: &[Member], text: &str) -> Outcome<Account> {
    let mut operated = members.iter().filter(|member| member.operator.as_deref() == Some(text));
    let named = members.iter().find(|member| member.name == text);
    let member = named.or_else(|| operated.next().filter(|_| operated.next().is_none()));
    let account = member.map_or(text, |member| member.account.as_str());
    account.parse().map_err(|error: String| {
        let next =
            "give sync1..., a name that `posync status` lists, or an operator that `posync providers` lists";
        Failure::new(Exit::Usage, format!("'{text}' names no account"), error, next)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_was_moved_or_copied_has_its_members_beside_its_file() {
        let home = tempfile::tempdir().expect("a directory");
        let (first, second) = (home.path().join("first"), home.path().join("second"));
        let address = SocketAddr::from(([127, 0, 0, 1], 4_000));
        let member = Member {
            name: "provider-3".into(),
            role: Role::Provider,
            pid: 0,
            dir: first.join("provider-3"),
            address,
            account: Account([7; 32]).to_string(),
            operator: None,
            region: None,
        };
        let endpoints = Endpoints { nodes: vec![address], gateway: address, providers: vec![address] };
        let (network_key, chain) = (String::new(), String::new());
        let network = Network { network_key, chain, port: 4_000, endpoints, nodes: vec![member] };
        fs::create_dir(&first).expect("writable");
        network.write(&first).expect("writable");
        let copied = || {
            fs::create_dir(&second).expect("writable");
            fs::copy(first.join(FILE), second.join(FILE)).expect("writable")
        };
        copied();
        let of = |directory: &Path| Network::read(directory).expect("readable").nodes[0].dir.clone();
        assert_eq!((of(&first), of(&second)), (first.join("provider-3"), second.join("provider-3")));
        let moved = home.path().join("moved");
        fs::rename(&first, &moved).expect("same volume");
        assert_eq!(of(&moved), moved.join("provider-3"));
    }
}
