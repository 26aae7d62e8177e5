//! Creates a network's directory, once: keys, genesis, one directory for each member.
//!
//! ```text
//!   DIR/
//!     devnet.json      the network's description; written last, so its presence means "complete"
//!     network.toml     the network file, the same in every member's directory
//!     genesis          the same bytes in every authority's directory
//!     user.key         an account with money for `send`
//!     lock             held by the supervisor
//!     authority-0/ ... provider-0/ ... gateway/
//!       config.toml    the role and its settings, which `posync start` reads
//!       node.key       the member's key
//!       log            the member's log
//! ```
//!
//! One process generates all private keys here: right for one machine, wrong for any other network. With
//! `devnet --ceremony` it generates the accounts' keys alone, and the authorities make the network key.

use super::{
    ceremony,
    layout::{self, Seat},
    running::Size,
};
use crate::{
    failure::{Exit, Failure, Outcome},
    keys,
    net::{
        self,
        file::{NetworkFile, Service},
    },
    network::{self, Endpoints, Member, Network, Role},
    role::{
        GENESIS_FILE, KEY_FILE,
        init::private,
        settings::{self, Settings},
    },
    target,
};
use commonware_codec::Encode as _;
use commonware_cryptography::Signer as _;
use posync_client::directory_lock::hold;
use posync_node::{
    config::Config,
    genesis::{self, AuthoritySecret, Genesis, sign_all},
};
use posync_protocol::{Account, Amount, limits::Parameters};
use rand_core::CryptoRng;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    net::SocketAddr,
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
/// Advice for a network whose genesis is damaged.
const GENESIS_OF_ANY: &str = "copy `genesis` from the directory of any authority: it is the same for all";
/// Name of the file that the supervisor locks.
const LOCK_FILE: &str = "lock";
/// Names of the locks that members hold while they run: of an authority, a provider and a gateway.
const MEMBER_LOCKS: [&str; 3] = ["lock", "provider.lock", "gateway.lock"];
/// Name of the file in which commands keep the nodes that they learned.
const KNOWN_FILE: &str = "nodes.known";
/// Capacity that each provider of a local network offers.
const CAPACITY: &str = "8 GiB";
/// Milliseconds between the blocks of a local network while no operation waits: all its members share one machine.
const QUIET_MS: &str = "600";
/// Pause of such a provider before each scrub, and its grace period for an agreement that is gone.
const SOON: &str = "20 s";

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

/// Locks the member in `directory` for this process, as far as it ran before; the locks last as long as the returned files.
pub(crate) fn lock_member(directory: &Path) -> Outcome<Vec<File>> {
    let paths = MEMBER_LOCKS.map(|name| directory.join(name)).into_iter().filter(|path| path.is_file());
    let lock = |path: PathBuf| {
        let held = hold(&path).map_err(|error| Failure::file(&path, "lock", error))?;
        held.ok_or_else(|| {
            Failure::new(
                Exit::Refused,
                format!("a member runs in {}", directory.display()),
                format!("another process holds {}", path.display()),
                "stop that process, or name another directory with --dir",
            )
        })
    };
    paths.map(lock).collect()
}

/// The part of `devnet.json` that every version has written.
#[derive(Deserialize)]
struct Description {
    nodes: Vec<Described>,
}

/// A member in that part.
#[derive(Deserialize)]
struct Described {
    name: String,
    account: String,
}

/// The accounts of the members that `devnet.json` describes, by name, also if an earlier version wrote it.
///
/// # Errors
/// It is not there, or describes no network: then nothing shows that a network made the other files.
pub(crate) fn described(directory: &Path) -> Outcome<BTreeMap<String, String>> {
    let path = directory.join(network::FILE);
    let refused = |error: String| {
        Failure::new(
            Exit::Usage,
            format!("will not clear {}", directory.display()),
            format!("{} does not show that a network made what is there: {error}", path.display()),
            "name another directory with --dir; if nothing there is to be kept, remove it by hand",
        )
    };
    let text = fs::read_to_string(&path).map_err(|error| refused(error.to_string()))?;
    let description: Description = serde_json::from_str(&text).map_err(|error| refused(error.to_string()))?;
    Ok(description.nodes.into_iter().map(|member| (member.name, member.account)).collect())
}

/// True if an entry of a network's directory has a name and a kind that [`open`], [`lock`] and commands create. A directory
/// is a member's only if `members`, from [`described`], has its name, and its key is of that account. Without a key it
/// must be empty or hold a member's settings.
pub(crate) fn makes(name: &OsStr, path: &Path, members: &BTreeMap<String, String>) -> bool {
    let Some(name) = name.to_str() else { return false };
    let about = fs::symlink_metadata(path);
    // The temporary file of a supervisor that was killed while it replaced a file.
    let half_written = name.starts_with(".posync-") && name.ends_with(".part");
    let own = [
        network::FILE,
        net::file::FILE,
        GENESIS_FILE,
        network::USER_KEY,
        network::USER_TURN,
        LOCK_FILE,
        KNOWN_FILE,
    ];
    if half_written || own.contains(&name) {
        return about.is_ok_and(|about| about.is_file());
    }
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let numbered = ["authority-", "provider-"].iter().filter_map(|role| name.strip_prefix(role)).any(number);
    let is_member = |account: &String| match keys::read(&path.join(KEY_FILE)) {
        Ok(key) => keys::account(&key).to_string() == *account,
        Err(_) => {
            let is_empty = || fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
            path.join(settings::FILE).is_file() || is_empty()
        }
    };
    (numbered || name == "gateway")
        && about.is_ok_and(|about| about.is_dir())
        && members.get(name).is_some_and(is_member)
}

/// Reads the network in `directory`, or creates it if there is none.
pub(crate) fn open(directory: &Path, size: &Size, rng: &mut impl CryptoRng) -> Outcome<Network> {
    if directory.join(network::FILE).exists() {
        let network = Network::read(directory)?;
        same_size(directory, &network, size)?;
        let path = directory.join(GENESIS_FILE);
        let bytes = fs::read(&path).map_err(|error| Failure::file(&path, "read", error))?;
        let genesis =
            Genesis::from_bytes(&bytes).map_err(|error| Failure::damaged(&path, error, GENESIS_OF_ANY))?;
        let text = network_file(&network, &genesis)?.to_toml();
        replace_if_changed(&directory.join(net::file::FILE), &text)?;
        for member in &network.nodes {
            // A member whose directory is not well says so itself when it is started.
            let _ = replace_if_changed(&member.dir.join(net::file::FILE), &text);
        }
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
            "name an empty or new directory with --dir; if a start that was cut left this, remove it by hand",
        ));
    }
    let authorities = size.authorities.unwrap_or(AUTHORITIES_USUAL);
    let providers = size.providers.unwrap_or(PROVIDERS_USUAL);
    create(directory, (authorities, providers), size.by_ceremony, rng)
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

fn create(
    directory: &Path,
    (authorities, providers): (u16, u16),
    by_ceremony: bool,
    rng: &mut impl CryptoRng,
) -> Outcome<Network> {
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
    let (genesis, mut all, secrets) = if by_ceremony {
        let (genesis, authorities) = ceremony::hold(directory, &seats, funded, FUNDS, rng)?;
        (genesis, authorities, Vec::new())
    } else {
        let (genesis, secrets) = deal(&seats, funded, rng)?;
        let of = |secret: &AuthoritySecret| Account::of(&secret.key.public_key());
        (genesis, secrets.iter().map(of).collect(), secrets)
    };
    all.extend(accounts);
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

/// The network file of a local network. Its first authority is an archive.
fn network_file(network: &Network, genesis: &Genesis) -> Outcome<NetworkFile> {
    let service = |member: &Member, archive| {
        Ok(Service { account: network.account(member)?, address: member.address.into(), archive })
    };
    let nodes = network.members(Role::Authority).enumerate();
    let nodes = nodes.map(|(place, member)| service(member, place == 0)).collect::<Outcome<_>>()?;
    let gateways = network.members(Role::Gateway).map(|member| service(member, false));
    Ok(NetworkFile::new(genesis, nodes, gateways.collect::<Outcome<_>>()?))
}

fn replace_if_changed(path: &Path, text: &str) -> Outcome {
    if fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    target::replace(path, text.as_bytes())
}

fn write_members(
    directory: &Path,
    seats: &[Seat],
    network: &Network,
    genesis: &Genesis,
    (user, secrets): (&Account, &[AuthoritySecret]),
) -> Outcome {
    target::replace(&directory.join(GENESIS_FILE), &genesis.encode())?;
    let text = network_file(network, genesis)?.to_toml();
    target::replace(&directory.join(net::file::FILE), text.as_bytes())?;
    let signatures = sign_all(genesis, secrets);
    let mut secrets = secrets.iter();
    // One of them is an archive: with it, old epochs can be explained, recomputed and proved.
    let mut archive = true;
    for seat in seats {
        let own = directory.join(&seat.name);
        // After a ceremony each authority has its secret, and the genesis with all signatures.
        if seat.peers.is_some()
            && let Some(secret) = secrets.next()
        {
            Config::deal(&own, genesis, &signatures, secret)
                .map_err(|error| Failure::file(&own, "write the node's directory", error))?;
        }
        target::replace(&own.join(net::file::FILE), text.as_bytes())?;
        let is_archive = seat.peers.is_some() && std::mem::take(&mut archive);
        settings(seat, &own, user, is_archive)?.write()?;
    }
    Ok(())
}

/// The settings of a member: the defaults of its role, but for one machine and at the pace of its chain.
fn settings(seat: &Seat, own: &Path, user: &Account, archive: bool) -> Outcome<Settings> {
    let mut settings = Settings::new(seat.role, own);
    let service = seat.service.to_string();
    settings.set("private", "true")?;
    settings.set("log", "file")?;
    match seat.peers {
        Some(peers) => {
            settings.set("listen", &peers.to_string())?;
            settings.set("service_listen", &service)?;
            settings.set("quiet_ms", QUIET_MS)?;
            settings.set("archive", if archive { "true" } else { "false" })?;
        }
        None => settings.set("listen", &service)?,
    }
    if let Some((operator, region)) = &seat.offer {
        for (key, value) in [("operator", operator.as_str()), ("region", region), ("capacity", CAPACITY)] {
            settings.set(key, value)?;
        }
        settings.set("scrub_every", SOON)?;
        settings.set("grace", SOON)?;
    }
    if seat.role == Role::Gateway {
        settings.set("owner", &user.to_string())?;
    }
    Ok(settings)
}
