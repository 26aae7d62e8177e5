//! The network file: everything that a member or a user needs to find a network and to believe it.
//!
//! It is public and holds no secret. It exists as a TOML file and as one `posync1...` line; both carry a
//! checksum over the same bytes:
//!
//! ```text
//!   1 | chain 32 | network key 96 | parameters 32 | height 8 | block 32 | n | node ... | m | gateway ...
//!   node = account 32 | bit 0: archive | kind 4, 6 or 0 | IPv4 4, IPv6 16, or length 1 and name | port 2
//! ```
//!
//! The line ends with the first 4 bytes of the SHA-256 of these bytes, and is bech32m as a whole. It is at
//! most 1,023 characters long, as bech32m demands; of more nodes than fit it names the first.

use crate::failure::{Exit, Failure, Outcome};
use bech32::{Bech32m, Hrp, primitives::decode::CheckedHrpstring};
use commonware_codec::Encode as _;
use posync_client::{
    address::Address,
    connection::Endpoint,
    known::Listed,
    light::{self, Light},
};
use posync_node::genesis::Genesis;
use posync_protocol::{Account, Hash, block::sha256, wire::node::NETWORK_KEY_BYTES};
use std::net::{IpAddr, SocketAddr};
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

/// Name of the network file in a directory.
pub(crate) const FILE: &str = "network.toml";
/// Most bytes of a network file.
pub(crate) const BYTES_MAX: u64 = 256 << 10;
/// Most nodes that a network file names; more would change little.
const NODES_MAX: usize = 64;
/// Prefix of the line.
const PREFIX: Hrp = Hrp::parse_unchecked("posync");
/// Longest line: bech32m detects errors up to this length.
const LINE_MAX: usize = 1_023;
/// Format of the file and the line.
const VERSION: u8 = 1;
/// Bytes of the checksum.
const CHECKSUM_BYTES: usize = 4;

/// A service with its account, at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    /// Account whose key the service proves.
    pub(crate) account: Account,
    /// Address at which it is dialled.
    pub(crate) address: Address,
    /// True for a node that keeps every block.
    pub(crate) archive: bool,
}

impl Service {
    /// A node as the ledger lists it.
    pub(crate) fn of(endpoint: Endpoint) -> Self {
        Self { account: endpoint.account, address: endpoint.address, archive: false }
    }

    /// The same with its word that it keeps every block.
    fn listed(node: Listed) -> Self {
        Self { archive: node.archive, ..Self::of(node.endpoint) }
    }
}

/// A block that was certified when the file was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Its height; an older state is not believed.
    pub(crate) height: u64,
    /// Its hash: the chain itself at height 0.
    pub(crate) block: Hash,
}

/// The description of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetworkFile {
    /// SHA-256 of the genesis.
    pub(crate) chain: Hash,
    /// Key under which every certificate verifies.
    pub(crate) network_key: [u8; NETWORK_KEY_BYTES],
    /// SHA-256 of the encoded parameters of the genesis.
    pub(crate) parameters: Hash,
    /// A block that is certified under the network key.
    pub(crate) checkpoint: Checkpoint,
    /// Nodes that serve the network's state; at least one.
    pub(crate) nodes: Vec<Service>,
    /// Gateways that its author uses; they serve the accounts that their owners list.
    pub(crate) gateways: Vec<Service>,
}

/// A failure of a text that is no network file.
fn bad(why: impl std::fmt::Display) -> Failure {
    let next =
        "copy the whole network file or line again from where you got it; `posync net show` checks one";
    Failure::new(Exit::Usage, "this is no valid network file", why, next)
}

impl NetworkFile {
    /// The description of the network that begins with this genesis.
    pub(crate) fn new(genesis: &Genesis, mut nodes: Vec<Service>, gateways: Vec<Service>) -> Self {
        let chain = genesis.chain();
        archives_first(&mut nodes);
        Self {
            chain,
            network_key: light::network_key_bytes(&genesis.network_key()),
            parameters: sha256(&genesis.parameters.encode()),
            checkpoint: Checkpoint { height: 0, block: chain },
            nodes,
            gateways,
        }
    }

    /// Parses a file in TOML, or a line.
    ///
    /// # Errors
    /// [`Failure`] that says what is wrong.
    pub(crate) fn parse(text: &str) -> Outcome<Self> {
        let text = text.trim();
        if is_line(text) { Self::of_line(text) } else { Self::of_toml(text) }
    }

    /// Account and address of each node.
    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        let endpoint = |node: &Service| Endpoint { account: node.account, address: node.address.clone() };
        self.nodes.iter().map(endpoint).collect()
    }

    /// The same without the node of `own`, which is no witness of itself.
    pub(crate) fn others(&self, own: &Account) -> Vec<Endpoint> {
        self.endpoints().into_iter().filter(|node| node.account != *own).collect()
    }

    /// Takes over the ledger's list: a node of the file that has moved gets its new address, and nodes that `fits`
    /// accepts are added at the end, up to the bound. Archives come first among the nodes that were there before: a
    /// listed node is an archive by its own word.
    pub(crate) fn add(&mut self, listed: Vec<Listed>, fits: impl Fn(&Listed) -> bool) {
        let before = self.nodes.len();
        for node in listed {
            let may_be_new = fits(&node) && self.nodes.len() < NODES_MAX;
            let service = Service::listed(node);
            match self.nodes.iter().position(|node| node.account == service.account) {
                Some(place) => self.nodes[place] = service,
                None if may_be_new => self.nodes.push(service),
                None => (),
            }
        }
        archives_first(&mut self.nodes[..before]);
    }

    /// Names the nodes of these accounts alone, in this order, with a seat or without: each at its address in the
    /// ledger's list, or at that of the file if it is not listed. The caller vouches for them by naming them.
    ///
    /// # Errors
    /// [`Failure`] that names an account that neither has, or too many accounts.
    pub(crate) fn keep_only(&mut self, listed: Vec<Listed>, accounts: &[Account]) -> Outcome {
        let known: Vec<Service> = listed.into_iter().map(Service::listed).chain(self.nodes.clone()).collect();
        let mut kept: Vec<Service> = Vec::new();
        for account in accounts {
            let found = known.iter().find(|node| node.account == *account).ok_or_else(|| {
                let why = format!("neither the network file nor the ledger's list names the node {account}");
                let next = "see the accounts of the known nodes with `posync net show --ask`";
                Failure::new(Exit::Usage, "the file was not written", why, next)
            })?;
            if !kept.contains(found) {
                kept.push(found.clone());
            }
        }
        if kept.len() > NODES_MAX {
            let why = format!("{} nodes are named, and a network file has room for {NODES_MAX}", kept.len());
            return Err(Failure::new(Exit::Usage, "the file was not written", why, "name fewer nodes"));
        }
        self.nodes = kept;
        Ok(())
    }

    /// The light client that verifies under the network key.
    pub(crate) fn light(&self) -> Outcome<Light> {
        let key = light::network_key(&self.network_key);
        Ok(Light::new(self.chain, key.map_err(|_| bad("its network key is no point of the curve"))?))
    }

    fn checked(self) -> Outcome<Self> {
        self.light()?;
        if self.nodes.is_empty() {
            return Err(bad("it names no node"));
        }
        if self.nodes.len() > NODES_MAX || self.gateways.len() > NODES_MAX {
            return Err(bad(format!("it names more than {NODES_MAX} nodes or gateways")));
        }
        Ok(self)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let Self { chain, network_key, parameters, checkpoint, nodes, gateways } = self;
        let mut bytes = vec![VERSION];
        bytes.extend(chain);
        bytes.extend(network_key);
        bytes.extend(parameters);
        bytes.extend(checkpoint.height.to_be_bytes());
        bytes.extend(checkpoint.block);
        for services in [nodes, gateways] {
            bytes.push(u8::try_from(services.len()).expect("at most 64"));
            services.iter().for_each(|service| write_service(&mut bytes, service));
        }
        bytes
    }

    /// The checksum that the file names.
    fn checksum(&self) -> [u8; CHECKSUM_BYTES] {
        checksum(&self.to_bytes())
    }

    /// The line, in the order of the file. Nodes at its end that do not fit are left out.
    pub(crate) fn to_line(&self) -> String {
        let mut short = self.clone();
        loop {
            let mut bytes = short.to_bytes();
            bytes.extend(checksum(&bytes));
            let line = bech32::encode::<Bech32m>(PREFIX, &bytes);
            if let Some(line) = line.ok().filter(|line| line.len() <= LINE_MAX) {
                return line;
            }
            if short.gateways.pop().is_none() {
                short.nodes.pop().expect("one node fits");
            }
        }
    }

    fn of_line(line: &str) -> Outcome<Self> {
        if line.len() > LINE_MAX {
            return Err(bad(format!("the line has {} characters and may have {LINE_MAX}", line.len())));
        }
        let wrong = |why: String| bad(format!("the line was changed on its way: {why}"));
        let parts = CheckedHrpstring::new::<Bech32m>(line).map_err(|error| wrong(error.to_string()))?;
        if parts.hrp() != PREFIX {
            return Err(bad(format!("the line starts with '{}1', a network's with 'posync1'", parts.hrp())));
        }
        let bytes: Vec<u8> = parts.byte_iter().collect();
        let at = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or_else(|| bad("the line is too short"))?;
        if bytes[at..] != checksum(&bytes[..at]) {
            return Err(wrong("its checksum does not fit".into()));
        }
        let mut reader = Reader(&bytes[..at]);
        let file = reader
            .network()
            .ok_or_else(|| bad("the line ends in the middle, or an address in it is none"))?;
        if !reader.0.is_empty() {
            return Err(bad("the line holds more than a network file"));
        }
        file.checked()
    }

    /// The file in TOML.
    pub(crate) fn to_toml(&self) -> String {
        let mut document = DocumentMut::new();
        document["version"] = value(i64::from(VERSION));
        document["chain"] = value(hex::encode(self.chain));
        document["network_key"] = value(hex::encode(self.network_key));
        document["parameters"] = value(hex::encode(self.parameters));
        document["checksum"] = value(hex::encode(self.checksum()));
        let mut checkpoint = Table::new();
        let height = i64::try_from(self.checkpoint.height).unwrap_or(i64::MAX);
        checkpoint["height"] = value(height);
        checkpoint["block"] = value(hex::encode(self.checkpoint.block));
        document["checkpoint"] = Item::Table(checkpoint);
        for (name, services) in [("node", &self.nodes), ("gateway", &self.gateways)] {
            let mut tables = ArrayOfTables::new();
            for service in services {
                let mut table = Table::new();
                table["account"] = value(service.account.to_string());
                table["address"] = value(service.address.to_string());
                if service.archive {
                    table["archive"] = value(true);
                }
                tables.push(table);
            }
            if !tables.is_empty() {
                document[name] = Item::ArrayOfTables(tables);
            }
        }
        format!(
            "# A posync network: public, holds no secret, may be copied to anyone who joins or uses it.\n\
             # The checksum is over all of it: what was changed on its way is refused.\n{document}"
        )
    }

    fn of_toml(text: &str) -> Outcome<Self> {
        let document: DocumentMut = text.parse().map_err(bad)?;
        let known =
            ["version", "chain", "network_key", "parameters", "checksum", "checkpoint", "node", "gateway"];
        if let Some((key, _)) = document.iter().find(|(key, _)| !known.contains(key)) {
            return Err(bad(format!("it has an unknown entry `{key}`")));
        }
        let version = document.get("version").and_then(Item::as_integer);
        if version != Some(i64::from(VERSION)) {
            let given = version.map_or("none".into(), |version| version.to_string());
            return Err(bad(format!("its version is {given}, this program reads {VERSION}")));
        }
        let table = document.as_table();
        let point = table.get("checkpoint").and_then(Item::as_table);
        let point = point.ok_or_else(|| bad("it has no [checkpoint]"))?;
        let height =
            point.get("height").and_then(Item::as_integer).and_then(|height| u64::try_from(height).ok());
        let checkpoint = Checkpoint {
            height: height.ok_or_else(|| bad("the height of its checkpoint is no number"))?,
            block: digits(point, "block")?,
        };
        let file = Self {
            chain: digits(table, "chain")?,
            network_key: digits(table, "network_key")?,
            parameters: digits(table, "parameters")?,
            checkpoint,
            nodes: services(table, "node")?,
            gateways: services(table, "gateway")?,
        };
        let file = file.checked()?;
        let named: [u8; CHECKSUM_BYTES] = digits(table, "checksum")?;
        if named != file.checksum() {
            return Err(bad("its checksum does not fit: a part of it was changed, lost or added"));
        }
        Ok(file)
    }
}

/// Sorts archives before other nodes, each kind in its own order.
fn archives_first(nodes: &mut [Service]) {
    nodes.sort_by_key(|node| !node.archive);
}

/// True if a text can only be a line.
pub(crate) fn is_line(text: &str) -> bool {
    text.trim().get(..7).is_some_and(|start| start.eq_ignore_ascii_case("posync1"))
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = sha256(&[b"posync/net/1".as_slice(), bytes].concat());
    hash[..CHECKSUM_BYTES].try_into().expect("a hash is longer")
}

fn digits<const N: usize>(table: &Table, key: &str) -> Outcome<[u8; N]> {
    let text = table.get(key).and_then(Item::as_str).ok_or_else(|| bad(format!("it has no text `{key}`")))?;
    let bytes = hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| bad(format!("its `{key}` is not {N} bytes in hex")))
}

fn services(table: &Table, key: &str) -> Outcome<Vec<Service>> {
    let Some(item) = table.get(key) else { return Ok(Vec::new()) };
    let all = item.as_array_of_tables().ok_or_else(|| bad(format!("its `{key}` is no list of tables")))?;
    let text = |table: &Table, name: &str| {
        let text = table.get(name).and_then(Item::as_str).map(str::to_owned);
        text.ok_or_else(|| bad(format!("a {key} has no `{name}`")))
    };
    let parse = |table: &Table| {
        let account = text(table, "account")?.parse().map_err(|error: String| bad(error))?;
        let address: Address = text(table, "address")?.parse().map_err(bad)?;
        let archive = table.get("archive").and_then(Item::as_bool).unwrap_or_default();
        Ok(Service { account, address, archive })
    };
    all.iter().map(parse).collect()
}

fn write_service(bytes: &mut Vec<u8>, service: &Service) {
    bytes.extend(service.account.0);
    bytes.push(u8::from(service.archive));
    match &service.address {
        Address::Ip(SocketAddr::V4(at)) => {
            bytes.push(4);
            bytes.extend(at.ip().octets());
        }
        Address::Ip(SocketAddr::V6(at)) => {
            bytes.push(6);
            bytes.extend(at.ip().octets());
        }
        Address::Name(name, _) => {
            bytes.extend([0, u8::try_from(name.len()).expect("a host name has at most 253 bytes")]);
            bytes.extend(name.as_bytes());
        }
    }
    bytes.extend(service.address.port().to_be_bytes());
}

/// Reads a network file's bytes from the front.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn network(&mut self) -> Option<NetworkFile> {
        let [version] = self.take()?;
        if version != VERSION {
            return None;
        }
        Some(NetworkFile {
            chain: self.take()?,
            network_key: self.take()?,
            parameters: self.take()?,
            checkpoint: Checkpoint { height: u64::from_be_bytes(self.take()?), block: self.take()? },
            nodes: self.services()?,
            gateways: self.services()?,
        })
    }

    fn services(&mut self) -> Option<Vec<Service>> {
        let [count] = self.take()?;
        (0..count).map(|_| self.service()).collect()
    }

    fn service(&mut self) -> Option<Service> {
        let account = Account(self.take()?);
        let [archive @ 0..=1, kind] = self.take()? else { return None };
        let host = match kind {
            4 => Ok(IpAddr::from(self.take::<4>()?)),
            6 => Ok(IpAddr::from(self.take::<16>()?)),
            0 => {
                let [length] = self.take()?;
                let (name, rest) = self.0.split_at_checked(length.into())?;
                self.0 = rest;
                Err(std::str::from_utf8(name).ok()?.to_owned())
            }
            _ => return None,
        };
        let port = u16::from_be_bytes(self.take()?);
        let address = match host {
            Ok(ip) => SocketAddr::new(ip, port).into(),
            Err(name) => format!("{name}:{port}").parse().ok()?,
        };
        Some(Service { account, address, archive: archive == 1 })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A network key that is a point of its group.
    const KEY: &str = "93e02b6052719f607dacd3a088274f65596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e024aa2b2f08f0a91260805272dc51051c6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8";

    /// A network with as many nodes, of each kind of address.
    pub(crate) fn network(nodes: u8) -> NetworkFile {
        let address = |i: u8| match i % 3 {
            0 => SocketAddr::from(([10, 0, 0, i], 4_001)).into(),
            1 => format!("node-{i}.example.org:4001").parse().expect("a name"),
            _ => "[2001:db8::7]:4001".parse().expect("an address"),
        };
        let service = |i| Service { account: Account([i; 32]), address: address(i), archive: i == 1 };
        NetworkFile {
            chain: [1; 32],
            network_key: hex::decode(KEY).expect("hex").try_into().expect("96 bytes"),
            parameters: [2; 32],
            checkpoint: Checkpoint { height: 77, block: [3; 32] },
            nodes: (0..nodes).map(service).collect(),
            gateways: vec![service(9)],
        }
    }

    #[test]
    fn a_file_and_its_line_say_the_same() {
        let file = network(4);
        assert_eq!(NetworkFile::parse(&file.to_toml()).expect("its own text"), file);
        let line = file.to_line();
        assert!(line.starts_with("posync1") && line.len() <= LINE_MAX, "{line}");
        assert_eq!(NetworkFile::parse(&format!("  {line}\n")).expect("its own line"), file);
        assert_eq!(NetworkFile::parse(&line.to_uppercase()).expect("as a QR code has it").chain, file.chain);
    }

    fn listed(number: u8, address: &str, has_seat: bool) -> Listed {
        let endpoint =
            Endpoint { account: Account([number; 32]), address: address.parse().expect("an address") };
        Listed { endpoint, archive: false, region: String::new(), has_seat }
    }

    #[test]
    fn strangers_that_call_themselves_archives_push_no_given_node_out_of_a_line() {
        let strangers = |has_seat| {
            let names = (60..70).map(|number| (number, format!("stranger-{number}.example.org:4001")));
            let node =
                |(number, name): (u8, String)| Listed { archive: true, ..listed(number, &name, has_seat) };
            names.map(node).collect::<Vec<_>>()
        };
        for has_seat in [false, true] {
            let mut file = network(6);
            file.add(strangers(has_seat), |_| true);
            assert_eq!(file.nodes.len(), 16);
            let line = NetworkFile::parse(&file.to_line()).expect("its own line");
            assert!(line.nodes.len() < 16, "not all fit");
            let names: Vec<u8> = line.nodes.iter().map(|node| node.account.0[0]).collect();
            assert_eq!(
                names[..6],
                [1, 0, 2, 3, 4, 5],
                "the given ones first, their archive before the others"
            );
            assert_eq!(file.nodes[..names.len()], line.nodes, "in the order of the file");
        }
        let mut file = network(6);
        file.add(strangers(false), |node| node.has_seat);
        assert_eq!(file.nodes.len(), 6, "without --all, no stranger at all");
    }

    #[test]
    fn a_new_file_names_no_stranger_but_where_its_own_nodes_have_moved() {
        let all = vec![
            listed(0, "moved.example.org:1", false),
            listed(50, "stranger.example.org:1", false),
            listed(51, "seat.example.org:1", true),
        ];
        let mut file = network(4);
        file.add(all, |node| node.has_seat);
        let names =
            |file: &NetworkFile| -> Vec<u8> { file.nodes.iter().map(|node| node.account.0[0]).collect() };
        assert_eq!(names(&file), [1, 0, 2, 3, 51]);
        assert_eq!(file.nodes[1].address.to_string(), "moved.example.org:1");
        let many = (60..200).map(|number| listed(number, "seat.example.org:1", true)).collect();
        file.add(many, |node| node.has_seat);
        assert_eq!(file.nodes.len(), NODES_MAX);
    }

    #[test]
    fn named_nodes_alone_are_kept_with_a_seat_or_without_and_an_unknown_one_is_refused() {
        let account = |number| Account([number; 32]);
        let all = || {
            vec![
                listed(0, "moved.example.org:1", false),
                listed(50, "stranger.example.org:1", false),
                listed(51, "seat.example.org:1", true),
            ]
        };
        let mut file = network(NODES_MAX as u8);
        file.keep_only(all(), &[account(50), account(3), account(0), account(50)]).expect("all are known");
        let names: Vec<u8> = file.nodes.iter().map(|node| node.account.0[0]).collect();
        assert_eq!(names, [50, 3, 0], "in their order, each once, also from a file that is full");
        assert_eq!(file.nodes[2].address.to_string(), "moved.example.org:1");
        let was = file.clone();
        let refused = file.keep_only(all(), &[account(50), account(99)]).expect_err("nobody knows it");
        assert!(refused.parts().iter().any(|part| part.contains(&account(99).to_string())));
        let many: Vec<Account> = (0..=NODES_MAX as u8).map(|number| account(100 + number)).collect();
        let as_many = (0..=NODES_MAX as u8).map(|number| listed(100 + number, "node.example.org:1", false));
        let refused = file.keep_only(as_many.collect(), &many).expect_err("too many");
        assert!(refused.parts().iter().any(|part| part.contains("room for 64")));
        assert_eq!(file, was, "a refusal changes nothing");
    }

    #[test]
    fn a_line_names_as_many_nodes_as_fit() {
        let file = network(60);
        assert_eq!(NetworkFile::parse(&file.to_toml()).expect("its own text").nodes.len(), 60);
        let line = file.to_line();
        assert!(line.len() <= LINE_MAX);
        let found = NetworkFile::parse(&line).expect("its own line");
        assert!((6..60).contains(&found.nodes.len()), "{}", found.nodes.len());
        assert_eq!(found.nodes, file.nodes[..found.nodes.len()]);
    }

    #[test]
    fn a_line_that_differs_in_one_character_is_refused() {
        let line = network(4).to_line();
        for at in 0..line.len() {
            let other = if line.as_bytes()[at] == b'q' { "p" } else { "q" };
            let mut changed = line.clone();
            changed.replace_range(at..=at, other);
            assert!(NetworkFile::parse(&changed).is_err(), "{at}");
            assert!(NetworkFile::parse(&line[..at]).is_err(), "{at} characters");
        }
    }

    #[test]
    fn a_file_that_was_changed_on_its_way_is_refused_with_what_is_wrong() {
        let text = network(4).to_toml();
        let zero = "00".repeat(96);
        for (from, to, why) in [
            ("10.0.0.0:4001", "10.0.0.1:4001", "checksum does not fit"),
            ("height = 77", "height = 78", "checksum does not fit"),
            ("height = 77", "height = -1", "no number"),
            ("archive = true", "archive = false", "checksum does not fit"),
            ("version = 1", "version = 2", "version is 2"),
            ("chain = \"01", "chain = \"", "`chain` is not 32 bytes"),
            ("chain =", "chian =", "unknown entry `chian`"),
            (KEY, &zero, "network key is no point"),
            ("10.0.0.0:4001", "10.0.0.300:4001", "neither an IP address nor a host name"),
            ("10.0.0.0:4001", "10.0.0.0", "has no port"),
            ("[checkpoint]", "[checkpoint", "TOML"),
        ] {
            assert!(text.contains(from), "{from}");
            let error = NetworkFile::parse(&text.replacen(from, to, 1)).expect_err(to).in_one_line();
            assert!(error.contains(why) && error.contains("copy the whole network file"), "{to}: {error}");
        }
        let cut = &text[..text.find("[[node]]").expect("nodes")];
        assert!(NetworkFile::parse(cut).expect_err("cut").in_one_line().contains("names no node"));
        assert!(NetworkFile::parse("").is_err());
    }
}
