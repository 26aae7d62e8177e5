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
mod genesis;
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
use futures::{StreamExt as _, stream::FuturesUnordered};
use posync_client::{
    connection::{Learned, Reach},
    light::Light,
    rpc::{self, Client},
};
use posync_protocol::{
    Account,
    block::sha256,
    limits::Parameters,
    wire::node::{Ask, Info, NodeAnswer, Nothing},
};
use std::{
    ffi::OsString,
    fs::{self, File},
    io::Read as _,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// Time that a node has to describe its network; after that the next ones are asked.
const ANSWER: Duration = Duration::from_secs(3);
/// Nodes that are asked at the same time once the first has failed.
const AT_ONCE: usize = 8;

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
    pub(crate) known: Vec<Learned>,
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

    /// The parameters of the network's rules, from the first node that has those of the network file: one of its own
    /// nodes or, only if all of them fail, a learned one. A learned node of another network counts for nothing.
    ///
    /// # Errors
    /// [`Failure`] that gives the reason of each node of the network file.
    pub(crate) async fn parameters(&self, context: &Context, key: &PrivateKey) -> Outcome<Parameters> {
        let mut reasons = Vec::new();
        let reach = Reach::of(&self.file.endpoints());
        let mut given: Vec<&Service> = self.file.nodes.iter().collect();
        // Every command begins elsewhere, so that no node has all the work.
        let first = usize::from(keys::account(&PrivateKey::random(commonware_utils::sys_rng())).0[0]);
        let count = given.len().max(1);
        given.rotate_left(first % count);
        let widen = |ip| {
            reach.widen(ip);
            true
        };
        let (one, rest) = given.split_at(given.len().min(1));
        for nodes in std::iter::once(one).chain(rest.chunks(AT_ONCE)) {
            match self.first_of(context, nodes, key, widen).await {
                Ok(parameters) => return Ok(parameters),
                Err(why) => reasons.extend(why),
            }
        }
        let (seats, strangers): (Vec<_>, Vec<_>) = self.known.iter().partition(|node| node.has_seat);
        let learned = seats.into_iter().chain(strangers);
        let learned: Vec<Service> = learned.map(|node| Service::of(node.endpoint.clone())).collect();
        let learned: Vec<&Service> = learned.iter().collect();
        for nodes in learned.chunks(AT_ONCE) {
            if let Ok(parameters) = self.first_of(context, nodes, key, |ip| reach.allows(ip)).await {
                return Ok(parameters);
            }
        }
        // The same nodes with the same reasons are the same text: a role that waits logs it once.
        reasons.sort();
        Err(unreached(&reasons))
    }

    /// Asks these nodes at the same time, and returns the first good answer.
    ///
    /// # Errors
    /// Why each has failed, and true if it serves another network.
    async fn first_of(
        &self,
        context: &Context,
        nodes: &[&Service],
        key: &PrivateKey,
        may_dial: impl Fn(IpAddr) -> bool + Copy + Send,
    ) -> Result<Parameters, Vec<(bool, String)>> {
        let ask = async |node: &Service| {
            let name = self.name(node);
            match tokio::time::timeout(ANSWER, info(context, node, key, may_dial)).await {
                Ok(Ok(info)) => match self.judge(&info) {
                    Ok(()) => Ok(info.parameters),
                    Err(why) => Err((true, format!("{name} {why}"))),
                },
                Ok(Err(why)) => Err((false, format!("{name}: {why}"))),
                Err(_) => Err((false, format!("{name} does not answer within {} s", ANSWER.as_secs()))),
            }
        };
        let mut asked: FuturesUnordered<_> = nodes.iter().map(|node| ask(node)).collect();
        let mut reasons = Vec::new();
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(parameters) => return Ok(parameters),
                Err(why) => reasons.push(why),
            }
        }
        Err(reasons)
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

async fn info(
    context: &Context,
    node: &Service,
    key: &PrivateKey,
    may_dial: impl Fn(IpAddr) -> bool + Send,
) -> Result<Info, String> {
    let client = dialled(context, node, key, may_dial).await?;
    match client.call(Ask::Info(Nothing {})).await {
        Ok(NodeAnswer::Info(info)) => Ok(info),
        Ok(_) => Err("it answers something else".into()),
        Err(error) => Err(error.to_string()),
    }
}

async fn dialled(
    context: &Context,
    node: &Service,
    key: &PrivateKey,
    may_dial: impl Fn(IpAddr) -> bool + Send,
) -> Result<Client<rpc::Node>, String> {
    let (asking, peer) = (context.child("info"), (node.account, node.address.clone()));
    let client = Client::<rpc::Node>::dial_where(asking, context, key, peer, may_dial).await;
    client.map_err(|error| error.to_string())
}

/// The failure to reach a network, from the reason of each node, and if it belongs to another network. It does if most
/// nodes do: a listed one may lie.
fn unreached(reasons: &[(bool, String)]) -> Failure {
    let all = reasons.iter().map(|(_, why)| why.as_str()).collect::<Vec<_>>().join("\n");
    if reasons.iter().filter(|(other, _)| *other).count() * 2 > reasons.len() {
        let next = "use the network file of the network that you mean: ask one of its operators for it";
        return Failure::new(
            Exit::Unproven,
            "the nodes belong to another network than the network file",
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session;
    use commonware_cryptography::Signer as _;
    use posync_client::{
        channel::Listen,
        connection::Endpoint,
        rpc::{Incoming, Server, Service as _},
    };
    use std::{
        net::{Ipv4Addr, SocketAddr, TcpListener},
        time::Instant,
    };

    /// Serves a description of the network at a free port.
    async fn node(context: &Context, seed: u64, info: Info) -> Endpoint {
        let key = PrivateKey::from_seed(seed);
        let server = Server::<rpc::Node, _>::new(move |call: Incoming<rpc::Node>, _| {
            let info = info.clone();
            async move { drop(call.finish(&NodeAnswer::Info(info)).await) }
        });
        let account = Account::of(&key.public_key());
        let listen = Listen::new(key, rpc::Node::NAMESPACE, (Ipv4Addr::LOCALHOST, 0).into());
        let listening = server.listen(context.child("node"), context, listen).await.expect("a free port");
        Endpoint { account, address: listening.address.into() }
    }

    #[test]
    fn silent_learned_nodes_cost_a_command_one_wait_and_those_of_another_network_none() {
        session::run(async |context| {
            let account = |seed| Account::of(&PrivateKey::from_seed(seed).public_key());
            let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into();
            // Nobody listens there any more.
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .expect("free")
                .local_addr()
                .expect("bound")
                .port();
            let gone = Service { account: account(1), address: local(port), archive: false };
            let parameters = sha256(&Parameters::LOCAL.encode());
            let file = NetworkFile { nodes: vec![gone], parameters, ..file::tests::network(1) };
            let mut net = Net::of(file, None)?;
            let ours = Info {
                chain: net.file.chain,
                network_key: net.file.network_key,
                parameters: Parameters::LOCAL,
                height: 1,
            };
            let other = node(&context, 2, Info { chain: [9; 32], ..ours.clone() }).await;
            let learned = |endpoint| Learned { endpoint, has_seat: false };
            net.known = vec![learned(other)];
            let key = PrivateKey::from_seed(9);
            let failed = net.parameters(&context, &key).await.expect_err("no node of the network");
            let said = failed.in_one_line();
            assert!(said.contains("no node of the network answers"), "{said}");
            assert!(!said.contains("another chain"), "{said}");
            let file = net.file.clone();
            for seed in 40..46 {
                let gone = net.file.nodes[0].address.clone();
                net.file.nodes.push(Service { account: account(seed), address: gone, archive: false });
            }
            let mut texts = std::collections::BTreeSet::new();
            for _ in 0..8 {
                texts.insert(net.parameters(&context, &key).await.expect_err("nobody answers").in_one_line());
            }
            assert_eq!(texts.len(), 1, "the nodes come in one order, whichever was asked first: {texts:?}");
            net.file = file;
            // Their sockets accept, and nobody says anything.
            let silent: Vec<TcpListener> =
                (0..6).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("free")).collect();
            for (place, listener) in silent.iter().enumerate() {
                let address = local(listener.local_addr().expect("bound").port());
                net.known.push(learned(Endpoint { account: account(20 + place as u64), address }));
            }
            net.known.push(learned(node(&context, 3, ours).await));
            let began = Instant::now();
            net.parameters(&context, &key).await?;
            assert!(began.elapsed() < 2 * ANSWER, "{:?}", began.elapsed());
            Ok(())
        })
        .expect("a learned node answers");
    }
}
