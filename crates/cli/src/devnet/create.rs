//! Creates a network's directory, once: keys, genesis, one directory for each member.
//!
//! ```text
//!   DIR/
//!     devnet.json      the network's description; written last, so its presence means "complete"
//!     genesis          the same bytes in every member's directory
//!     user.key         an account with money for `send`
//!     lock             held by the supervisor
//!     authority-0/ ... provider-0/ ... gateway/
//!       role.json      the role that `run-role` starts here
//!       node.key       the member's key
//!       log            the member's log
//! ```
//!
//! One process generates all private keys here: right for one machine, wrong for any other network.

use super::{
    layout::{self, Seat},
    running::Size,
};
use crate::{
    failure::{Exit, Failure, Outcome},
    keys,
    network::{self, Endpoints, Member, Network, Role},
    target,
};
use commonware_codec::Encode as _;
use commonware_cryptography::Signer as _;
use posync_client::{connection::Endpoint, directory_lock::hold};
use posync_gateway::User;
use posync_node::{
    config::{Config, Settings},
    genesis::{self, AuthoritySecret, Genesis, signatures},
};
use posync_protocol::{Account, Amount, limits::Parameters};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File},
    io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// All money of a local network: 10^18 grains.
pub(crate) const SUPPLY: Amount = Amount::sync(1_000_000_000);
/// Money of each member and of the user at the start; an authority's bond comes on top.
const FUNDS: Amount = Amount::sync(1_000_000);
/// Number of authorities by default.
const AUTHORITIES_USUAL: u16 = 4;
/// Number of providers by default: eight holders and two spares.
const PROVIDERS_USUAL: u16 = 10;
/// Name of the file that describes a member's role.
pub(crate) const ROLE_FILE: &str = "role.json";
/// Name of the member's key file.
pub(crate) const KEY_FILE: &str = "node.key";
/// Name of the file that the supervisor locks.
const LOCK_FILE: &str = "lock";
/// Name of the file that holds the genesis.
pub(crate) const GENESIS_FILE: &str = "genesis";

/// The address and the account of a node service.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeService {
    /// Address on which the service listens.
    pub(crate) address: SocketAddr,
    /// Account of the node, which is its public key.
    pub(crate) account: String,
}

/// An account under `users` of a gateway's role file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged, expecting = "a user is an account, or {\"account\": ACCOUNT, \"bytes\": QUOTA}")]
pub(crate) enum ListedUser {
    /// An account without a quota.
    Account(String),
    /// An account with a quota.
    Quota(UserQuota),
}

/// An account and the most bytes that its files may have together.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UserQuota {
    /// The user's account, in text.
    account: String,
    /// Maximum of bytes of its files.
    bytes: u64,
}

/// The role of a member and its settings, as `run-role` reads them from `role.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoleFile {
    /// The role that is run.
    pub(crate) role: Role,
    /// Address on which the member's service listens.
    pub(crate) listen: SocketAddr,
    /// The operator that a provider declares.
    pub(crate) operator: Option<String>,
    /// The region that a provider declares.
    pub(crate) region: Option<String>,
    /// The node services that the member may ask; their answers are verified.
    pub(crate) nodes: Vec<NodeService>,
    /// Address to which a provider or an authority posts its alerts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) alert_url: Option<String>,
    /// File of the certificate authorities for that address; the public ones without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) alert_ca: Option<PathBuf>,
    /// Account of a gateway's owner; without it, the user of the network whose directory it lies in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<String>,
    /// Other accounts that may store files at the gateway, each with its quota if it has one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) users: Vec<ListedUser>,
    /// Most bytes that a provider's shards may take on its volume; without it, as many as it offers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) space_bytes: Option<u64>,
}

impl RoleFile {
    /// Reads the role of the member in `directory`.
    pub(crate) fn read(directory: &Path) -> Outcome<Self> {
        let path = directory.join(ROLE_FILE);
        let text = fs::read_to_string(&path).map_err(|error| Failure::file(&path, "read", error))?;
        let next =
            "restore it from a copy, or write it after the role.json of another member with the same role";
        serde_json::from_str(&text).map_err(|error| Failure::damaged(&path, error, next))
    }

    fn write(&self, directory: &Path) -> Outcome {
        let json = serde_json::to_vec_pretty(self).expect("a role is plain data");
        target::replace(&directory.join(ROLE_FILE), &json)
    }

    /// Sets the address for the alerts of the member in `directory`, from its next start on; none if empty.
    pub(crate) fn set_alert(directory: &Path, url: &str, ca: Option<&Path>) -> Outcome {
        let (alert_url, alert_ca) = ((!url.is_empty()).then(|| url.to_owned()), ca.map(Path::to_path_buf));
        Self { alert_url, alert_ca, ..Self::read(directory)? }.write(directory)
    }

    /// Account of the owner of the gateway in `directory`.
    pub(crate) fn owner(&self, directory: &Path) -> Outcome<Account> {
        match &self.owner {
            Some(owner) => account(owner, "owner"),
            None => Ok(keys::account(&keys::read(&directory.join("..").join(network::USER_KEY))?)),
        }
    }

    /// Accounts that a gateway serves besides its owner, with their quotas.
    pub(crate) fn users(&self) -> Outcome<Vec<User>> {
        let user = |user: &ListedUser| match user {
            ListedUser::Account(text) => Ok(User { account: account(text, "users")?, quota: None }),
            ListedUser::Quota(of) => {
                Ok(User { account: account(&of.account, "users")?, quota: Some(of.bytes) })
            }
        };
        self.users.iter().map(user).collect()
    }

    /// The node services, as endpoints for the roles.
    pub(crate) fn nodes(&self) -> Outcome<Vec<Endpoint>> {
        let parse = |node: &NodeService| {
            let account = node.account.parse();
            account.map(|account| Endpoint { account, address: node.address }).map_err(|error: String| {
                Failure::new(
                    Exit::Usage,
                    "the role file is damaged",
                    error,
                    "copy `nodes` from the role.json of another member: it is the same for all",
                )
            })
        };
        self.nodes.iter().map(parse).collect()
    }
}

/// Parses an account of a role file's field.
fn account(text: &str, field: &str) -> Outcome<Account> {
    text.parse().map_err(|error: String| {
        let what = format!("{ROLE_FILE} names no account under \"{field}\": {text:?}");
        Failure::new(Exit::Usage, what, error, "write an account there, as `posync status` prints them")
    })
}

/// Locks the directory for this process; the lock lasts as long as the returned file.
pub(crate) fn lock(directory: &Path) -> Outcome<File> {
    private(directory)?;
    let path = directory.join(LOCK_FILE);
    let held = hold(&path).map_err(|error| Failure::file(&path, "lock", error))?;
    held.ok_or_else(|| {
        Failure::new(
            Exit::Refused,
            format!("a network runs in {} already", directory.display()),
            "another process holds its lock",
            "use that network, stop it, or name another directory with --dir",
        )
    })
}

/// True if an entry of a network's directory is the supervisor's lock.
pub(crate) fn is_lock(name: &OsStr) -> bool {
    name == LOCK_FILE
}

/// True if an entry of a network's directory has a name and a kind that [`open`] and [`lock`] create.
pub(crate) fn makes(name: &OsStr, path: &Path) -> bool {
    let Some(name) = name.to_str() else { return false };
    let about = fs::symlink_metadata(path);
    // The temporary file of a supervisor that was killed while it replaced a file.
    let half_written = name.starts_with(".posync-") && name.ends_with(".part");
    let own = [network::FILE, GENESIS_FILE, network::USER_KEY, network::USER_TURN, LOCK_FILE];
    if half_written || own.contains(&name) {
        return about.is_ok_and(|about| about.is_file());
    }
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let numbered = ["authority-", "provider-"].iter().filter_map(|role| name.strip_prefix(role)).any(number);
    (numbered || name == "gateway") && about.is_ok_and(|about| about.is_dir())
}

/// Reads the network in `directory`, or creates it if there is none.
pub(crate) fn open(directory: &Path, size: &Size, rng: &mut impl CryptoRng) -> Outcome<Network> {
    if directory.join(network::FILE).exists() {
        let network = Network::read(directory)?;
        same_size(directory, &network, size)?;
        return Ok(network);
    }
    let stray = fs::read_dir(directory)
        .map_err(|error| Failure::file(directory, "read", error))?
        .filter_map(Result::ok)
        .find(|entry| entry.file_name() != LOCK_FILE);
    if let Some(stray) = stray {
        return Err(Failure::new(
            Exit::Usage,
            format!("{} holds no complete network and is not empty", directory.display()),
            format!("it holds {} but no {}", stray.file_name().display(), network::FILE),
            "name an empty or new directory with --dir, or start over with --fresh",
        ));
    }
    let authorities = size.authorities.unwrap_or(AUTHORITIES_USUAL);
    let providers = size.providers.unwrap_or(PROVIDERS_USUAL);
    create(directory, authorities, providers, rng)
}

/// Refuses another number of members: they are part of the genesis.
fn same_size(directory: &Path, network: &Network, size: &Size) -> Outcome {
    for (role, asked) in [(Role::Authority, size.authorities), (Role::Provider, size.providers)] {
        let has = network.members(role).count();
        if asked.is_some_and(|asked| usize::from(asked) != has) {
            return Err(Failure::new(
                Exit::Usage,
                format!("the network in {} has {has} members with the role {role}", directory.display()),
                "a network's members are part of its genesis and stay",
                "leave the number out, name another directory, or start over with --fresh",
            ));
        }
    }
    Ok(())
}

fn create(directory: &Path, authorities: u16, providers: u16, rng: &mut impl CryptoRng) -> Outcome<Network> {
    let port = layout::free_port(authorities, providers, std::process::id()).ok_or_else(|| {
        Failure::new(
            Exit::Local,
            "no free ports for a network",
            "every range from 20000 to 32000 has a listener on some address of 127.0.0.0/8",
            "stop what listens there, or an older network of yours",
        )
    })?;
    let seats = layout::seats(authorities, providers, port);
    for seat in &seats {
        private(&directory.join(&seat.name))?;
    }
    let user = keys::create(&directory.join(network::USER_KEY), rng)?;
    let mut funded = vec![(keys::account(&user), FUNDS)];
    let mut accounts = Vec::new();
    for seat in &seats {
        if seat.role != Role::Authority {
            let key = keys::create(&directory.join(&seat.name).join(KEY_FILE), rng)?;
            funded.push((keys::account(&key), FUNDS));
            accounts.push(keys::account(&key));
        }
    }
    let (genesis, secrets) = deal(&seats, funded, rng)?;
    let all: Vec<Account> =
        secrets.iter().map(|secret| Account::of(&secret.key.public_key())).chain(accounts).collect();
    let network = describe(directory, port, &genesis, seats.iter().zip(&all));
    write_members(directory, &seats, &network, &genesis, (&keys::account(&user), &secrets))?;
    network.write(directory)?;
    Ok(network)
}

fn deal(
    seats: &[Seat],
    funded: Vec<(Account, Amount)>,
    rng: &mut impl CryptoRng,
) -> Outcome<(Genesis, Vec<AuthoritySecret>)> {
    let peers: Vec<SocketAddr> = seats.iter().filter_map(|seat| seat.peers).collect();
    let (mut genesis, secrets) =
        genesis::deal(&peers, Parameters::LOCAL, SUPPLY, funded, rng).map_err(|error| {
            let next = "report this: it should not depend on you";
            Failure::new(Exit::Failed, "cannot make a genesis", error, next)
        })?;
    let seats = genesis.authorities.iter().map(|authority| (Account::of(&authority.key), FUNDS));
    genesis.accounts.extend(seats);
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    genesis.time_ms = u64::try_from(since_1970.as_millis()).unwrap_or_default();
    Ok((genesis, secrets))
}

fn describe<'a>(
    directory: &Path,
    port: u16,
    genesis: &Genesis,
    seats: impl Iterator<Item = (&'a Seat, &'a Account)>,
) -> Network {
    let nodes: Vec<Member> = seats
        .map(|(seat, account)| Member {
            name: seat.name.clone(),
            role: seat.role,
            pid: 0,
            dir: directory.join(&seat.name),
            address: seat.service,
            account: account.to_string(),
            operator: seat.offer.as_ref().map(|offer| offer.0.clone()),
            region: seat.offer.as_ref().map(|offer| offer.1.clone()),
        })
        .collect();
    let services =
        |role| nodes.iter().filter(|node| node.role == role).map(|node| node.address).collect::<Vec<_>>();
    let endpoints = Endpoints {
        nodes: services(Role::Authority),
        gateway: services(Role::Gateway)[0],
        providers: services(Role::Provider),
    };
    let network_key = hex::encode(genesis.network_key().encode());
    Network { network_key, chain: hex::encode(genesis.chain()), port, endpoints, nodes }
}

fn write_members(
    directory: &Path,
    seats: &[Seat],
    network: &Network,
    genesis: &Genesis,
    (user, secrets): (&Account, &[AuthoritySecret]),
) -> Outcome {
    let nodes: Vec<NodeService> = network
        .members(Role::Authority)
        .map(|member| NodeService { address: member.address, account: member.account.clone() })
        .collect();
    let bytes = genesis.encode();
    target::replace(&directory.join(GENESIS_FILE), &bytes)?;
    let signatures = signatures::sign_all(genesis, secrets);
    let mut secrets = secrets.iter();
    // One of them is an archive: with it, old epochs can be explained, recomputed and proved.
    let mut archive = true;
    for seat in seats {
        let own = directory.join(&seat.name);
        if let Some(peers) = seat.peers {
            let secret = secrets.next().expect("one secret for each authority");
            let settings = Settings::local(peers, seat.service, std::mem::take(&mut archive));
            Config::create(&own, genesis, &signatures, &settings, secret)
                .map_err(|error| Failure::file(&own, "write the node's directory", error))?;
        } else {
            target::replace(&own.join(GENESIS_FILE), &bytes)?;
        }
        let (operator, region) = seat.offer.clone().unzip();
        let (role, listen, nodes) = (seat.role, seat.service, nodes.clone());
        let owner = (role == Role::Gateway).then(|| user.to_string());
        let (alert_url, alert_ca, users, space_bytes) = Default::default();
        let file = RoleFile {
            role,
            listen,
            operator,
            region,
            nodes,
            alert_url,
            alert_ca,
            owner,
            users,
            space_bytes,
        };
        file.write(&own)?;
    }
    Ok(())
}

/// Creates a directory that only its owner may enter.
fn private(directory: &Path) -> Outcome {
    let made: io::Result<()> = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|error| Failure::file(directory, "make the directory", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_accounts_with_or_without_a_quota_and_anything_else_is_refused_with_what_is_expected() {
        let user = Account([7; 32]);
        let role = |users: &str| {
            let text = format!(
                r#"{{"role": "gateway", "listen": "127.0.0.1:1", "operator": null, "region": null, "nodes": [],
                "users": {users}}}"#
            );
            serde_json::from_str::<RoleFile>(&text).map_err(|error| error.to_string())
        };
        let users = |users: String| role(&users).expect("it is a role").users().expect("accounts");
        let found = users(format!(r#"["{user}", {{"account": "{user}", "bytes": 9}}]"#));
        assert_eq!(found, [User { account: user, quota: None }, User { account: user, quota: Some(9) }]);
        for wrong in ["[7]", r#"[{"account": "x"}]"#, r#"[{"account": "x", "bytes": 1, "files": 2}]"#] {
            let error = role(wrong).expect_err("no user");
            assert!(error.contains("a user is an account, or"), "{error}");
        }
        assert!(role(r#"[{"account": "x", "bytes": 1}]"#).expect("it is a role").users().is_err());
    }
}
