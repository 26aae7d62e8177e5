//! How a command reaches its network: `--net`, `--key`, `--gateway`.
//!
//! ```text
//!   --net FILE              a network file
//!   --net posync1...        the same as one line
//!   --net DIR               a directory with a network.toml: a role's own, or a devnet's
//!   --key FILE or DIR       the caller's key, or a directory of the caller's own that holds one
//!   --gateway SYNC1@HOST:PORT   the gateway to use, if the network file names none
//! ```
//!
//! Only a devnet's directory knows its members by name and process; no command needs that.

pub(crate) mod file;
pub(crate) mod known;

use crate::{
    failure::{Exit, Failure, Outcome},
    keys,
    network::{self, Member, Network, Role, USER_KEY},
    role::{KEY_FILE, settings},
};
use commonware_codec::Encode as _;
use commonware_cryptography::ed25519::PrivateKey;
use commonware_math::algebra::Random as _;
use commonware_runtime::{Supervisor as _, tokio::Context};
use file::{FILE, NetworkFile, Service};
use posync_client::{
    connection::Endpoint,
    light::Light,
    rpc::{self, Client},
};
use posync_protocol::{
    Account,
    block::sha256,
    limits::Parameters,
    wire::node::{Answer, Ask, Info, Nothing},
};
use std::{
    ffi::OsString,
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

/// Time that a node has to describe its network; after that the next one is asked.
const ANSWER: Duration = Duration::from_secs(3);

/// The options that name a network.
#[derive(Clone, Debug, Default)]
pub(crate) struct Access {
    /// A network file, a line, or a directory.
    pub(crate) net: OsString,
    /// The caller's key file, or a directory that holds it.
    pub(crate) key: Option<PathBuf>,
    /// The gateway to use, as account@host:port.
    pub(crate) gateway: Option<String>,
}

impl Access {
    /// The directory that `--net` names, for commands that make one there.
    pub(crate) fn directory(&self) -> &Path {
        Path::new(&self.net)
    }
}

/// A network that a command talks to.
#[derive(Clone, Debug)]
pub(crate) struct Net {
    /// The description of the network.
    pub(crate) file: NetworkFile,
    /// Verifies answers under its network key.
    pub(crate) light: Light,
    /// The directory that was named, if it was one.
    pub(crate) directory: Option<PathBuf>,
    /// Nodes that earlier commands learned from the ledger; none without a directory.
    pub(crate) known: Vec<Endpoint>,
    /// Members with names and processes; none outside a devnet's directory.
    pub(crate) members: Vec<Member>,
    key: Option<PathBuf>,
    gateway: Option<Service>,
}

impl Net {
    /// Reads the network that the options name.
    pub(crate) fn open(access: &Access) -> Outcome<Self> {
        let path = access.directory();
        let line = access.net.to_str().filter(|text| file::is_line(text) && !path.exists());
        let mut net = match line {
            Some(line) => Self::of(NetworkFile::parse(line)?, None)?,
            None if path.is_dir() => Self::in_directory(path)?,
            None => Self::of(read(path)?, None)?,
        };
        if let Some(key) = &access.key {
            net.key = Some(if key.is_dir() {
                key_in(key).unwrap_or_else(|| key.join(KEY_FILE))
            } else {
                key.clone()
            });
        }
        if let Some(text) = &access.gateway {
            net.gateway = Some(gateway(text)?);
        }
        Ok(net)
    }

    /// Reads the network of a directory.
    pub(crate) fn in_directory(directory: &Path) -> Outcome<Self> {
        let path = directory.join(FILE);
        let file = read(&path).map_err(|failure| {
            if path.exists() { failure } else { no_network(directory, &format!("it holds no {FILE}")) }
        })?;
        let mut net = Self::of(file, Some(directory.to_path_buf()))?;
        if directory.join(network::FILE).exists() {
            net.members = Network::read(directory)?.nodes;
        }
        net.key = key_in(directory);
        Ok(net)
    }

    fn of(file: NetworkFile, directory: Option<PathBuf>) -> Outcome<Self> {
        let (light, gateway) = (file.light()?, file.gateways.first().cloned());
        let known = directory.as_ref().map(|at| known::read(at, &file)).unwrap_or_default();
        let (members, key) = Default::default();
        Ok(Self { file, light, directory, known, members, key, gateway })
    }

    /// The network key in hex.
    pub(crate) fn network_key(&self) -> String {
        hex::encode(self.file.network_key)
    }

    /// The chain in hex.
    pub(crate) fn chain(&self) -> String {
        hex::encode(self.file.chain)
    }

    /// Path of the caller's key.
    ///
    /// # Errors
    /// [`Failure`] if none was named.
    pub(crate) fn key_file(&self) -> Outcome<PathBuf> {
        self.key.clone().ok_or_else(|| {
            let next = "name your key's file with --key, or the directory of your own that holds it";
            Failure::new(Exit::Usage, "this command acts for an account", "no key is named", next)
        })
    }

    /// The private key of the caller.
    pub(crate) fn key(&self) -> Outcome<PrivateKey> {
        keys::read(&self.key_file()?)
    }

    /// The caller's key, or one for this command alone: what is public is answered to anyone.
    pub(crate) fn any_key(&self) -> Outcome<PrivateKey> {
        match &self.key {
            Some(path) => keys::read(path),
            None => Ok(PrivateKey::random(commonware_utils::sys_rng())),
        }
    }

    /// The gateway that stores the caller's files.
    pub(crate) fn gateway(&self) -> Outcome<&Service> {
        self.gateway.as_ref().ok_or_else(|| {
            let next = "name the one that serves your account with --gateway sync1...@host:port; its owner knows both";
            Failure::new(Exit::Usage, "this command needs a gateway", "the network file names none", next)
        })
    }

    /// The name of a node: a member's, or the beginning of its account.
    pub(crate) fn name(&self, node: &Service) -> String {
        let account = node.account.to_string();
        match self.members.iter().find(|member| member.account == account) {
            Some(member) => member.name.clone(),
            None => format!("{}... at {}", &account[..12], node.address),
        }
    }

    /// The members of a devnet with this role.
    pub(crate) fn members(&self, role: Role) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |member| member.role == role)
    }

    /// Resolves an account as users name it: `sync1...`, a member's name, or an operator with one provider.
    pub(crate) fn resolve(&self, text: &str) -> Outcome<Account> {
        network::resolve(&self.members, text)
    }

    /// The parameters of the network's rules, from the first node that has those of the network file.
    ///
    /// # Errors
    /// [`Failure`] that gives the reason of each node.
    pub(crate) async fn parameters(&self, context: &Context, key: &PrivateKey) -> Outcome<Parameters> {
        let mut reasons = Vec::new();
        let learned = self.known.iter().map(|node| Service::of(node.clone()));
        let nodes: Vec<Service> = self.file.nodes.iter().cloned().chain(learned).collect();
        // Every command begins elsewhere, so that no node has all the work.
        let first = usize::from(keys::account(&PrivateKey::random(commonware_utils::sys_rng())).0[0]);
        for node in (0..nodes.len()).map(|i| &nodes[(first + i) % nodes.len()]) {
            match tokio::time::timeout(ANSWER, info(context, node, key)).await {
                Ok(Ok(info)) => match self.judge(&info) {
                    Ok(()) => return Ok(info.parameters),
                    Err(why) => reasons.push((true, format!("{} {why}", self.name(node)))),
                },
                Ok(Err(why)) => reasons.push((false, format!("{}: {why}", self.name(node)))),
                Err(_) => {
                    let seconds = ANSWER.as_secs();
                    reasons.push((false, format!("{} does not answer within {seconds} s", self.name(node))));
                }
            }
        }
        Err(unreached(&reasons))
    }

    /// The difference between a node's network and this one.
    pub(crate) fn judge(&self, info: &Info) -> Result<(), String> {
        if info.chain != self.file.chain {
            let [theirs, ours] = [info.chain, self.file.chain].map(|chain| hex::encode(&chain[..8]));
            return Err(format!("serves another chain: {theirs}..., not {ours}..."));
        }
        if info.network_key != self.file.network_key {
            return Err(
                "serves this chain under another network key: the network file is wrong, or the node is"
                    .into(),
            );
        }
        if sha256(&info.parameters.encode()) != self.file.parameters {
            return Err("names other parameters than the network file".into());
        }
        Ok(())
    }
}

async fn info(context: &Context, node: &Service, key: &PrivateKey) -> Result<Info, String> {
    let (asking, address) = (context.child("info"), node.address.clone());
    let client = Client::<rpc::Node>::dial(asking, context, key, node.account, address).await;
    let client = client.map_err(|error| error.to_string())?;
    match client.call(Ask::Info(Nothing {})).await {
        Ok(Answer::Info(info)) => Ok(info),
        Ok(_) => Err("it answers something else".into()),
        Err(error) => Err(error.to_string()),
    }
}

fn unreached(reasons: &[(bool, String)]) -> Failure {
    let all = reasons.iter().map(|(_, why)| why.as_str()).collect::<Vec<_>>().join("\n");
    if reasons.iter().any(|(other, _)| *other) {
        let next = "use the network file of the network that you mean: ask one of its operators for it";
        return Failure::new(
            Exit::Unproven,
            "a node belongs to another network than the network file",
            all,
            next,
        );
    }
    let next = "see that the network runs and that this machine reaches it; a newer network file may name other nodes";
    Failure::new(Exit::Unreachable, "no node of the network answers", all, next)
}

/// Reads a network file, or a file that holds its line.
pub(crate) fn read(path: &Path) -> Outcome<NetworkFile> {
    let open = || {
        let mut text = String::new();
        File::open(path)?.take(file::BYTES_MAX + 1).read_to_string(&mut text).map(|_| text)
    };
    let text = open().map_err(|error| no_network(path, &error.to_string()))?;
    if text.len() as u64 > file::BYTES_MAX {
        return Err(Failure::damaged(path, "it is longer than 256 KiB", "name a network file with --net"));
    }
    NetworkFile::parse(&text)
}

fn no_network(path: &Path, why: &str) -> Failure {
    Failure::new(
        Exit::Unreachable,
        format!("no network in {}", path.display()),
        why,
        "name a network file, its posync1... line or a directory that holds one with --net or POSYNC_NET, or start \
         a network with `posync devnet`",
    )
}

/// The key file of a directory: a user's or a role's.
fn key_in(directory: &Path) -> Option<PathBuf> {
    [USER_KEY, KEY_FILE].iter().map(|name| directory.join(name)).find(|path| path.exists())
}

fn gateway(text: &str) -> Outcome<Service> {
    let refuse = |why: String| {
        let next = "give its account and its address as sync1...@host:port";
        Failure::new(Exit::Usage, format!("'{text}' names no gateway"), why, next)
    };
    let (account, address) = text.split_once('@').ok_or_else(|| refuse("there is no @ in it".into()))?;
    let account = account.parse().map_err(refuse)?;
    let address =
        address.parse().map_err(|error: posync_client::address::BadAddress| refuse(error.to_string()))?;
    Ok(Service { account, address, archive: false })
}

/// The network file of a role, as its settings name it.
pub(crate) fn of_role(settings: &settings::Settings) -> Outcome<Net> {
    let path = settings.file("network")?;
    if fs::symlink_metadata(&path).is_err() {
        let next = "copy the network file there, as one of the network's operators gave it to you";
        return Err(Failure::new(
            Exit::Local,
            "the role does not know its network",
            format!("there is no {}", path.display()),
            next,
        ));
    }
    Net::of(read(&path)?, Some(settings.directory.clone()))
}
