//! The settings of all roles: name, default, and the reason for the default.

use crate::network::Role::{self, Authority, Gateway, Node, Provider};

/// The form of a setting's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Any text, which may be empty.
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    /// An IP address and a port to listen on.
    Listen,
    /// `host:port` as others dial it, or nothing.
    Announce,
    /// An IP address, or nothing.
    Ip,
    /// A switch: true or false.
    Flag,
    /// A whole number from 0 on.
    Count,
    /// A number of bytes, such as "100 GiB"; 0 or more.
    Bytes,
    /// A duration, such as "14 days".
    Time,
    /// An account, or nothing.
    Account,
    /// A list of accounts, each with its quota if it has one.
    Users,
}

/// A setting of one or more roles.
pub(super) struct Setting {
    /// Its name in `config.toml`.
    pub(super) key: &'static str,
    /// The roles that have it.
    pub(super) roles: &'static [Role],
    /// The form of its value.
    pub(super) kind: Kind,
    /// Its default, as it is written in TOML.
    pub(super) usual: &'static str,
    /// Its effect and the reason for the default; each line becomes a comment.
    pub(super) about: &'static str,
}

const ALL: &[Role] = &[Authority, Provider, Gateway, Node];
const NODES: &[Role] = &[Authority, Node];
const AUTHORITY: &[Role] = &[Authority];
const NODE: &[Role] = &[Node];
const PROVIDER: &[Role] = &[Provider];
const GATEWAY: &[Role] = &[Gateway];

const fn setting(
    key: &'static str,
    roles: &'static [Role],
    kind: Kind,
    usual: &'static str,
    about: &'static str,
) -> Setting {
    Setting { key, roles, kind, usual, about }
}

/// All settings, in the order in which they are written.
pub(super) const TABLE: &[Setting] = &[
    setting(
        "network",
        ALL,
        Kind::Text,
        "\"network.toml\"",
        "The network file: chain, network key and nodes. A path is relative to this directory.",
    ),
    setting(
        "private",
        ALL,
        Kind::Flag,
        "false",
        "True if all members are on one machine or one private network: loopback and private addresses are\n\
         announced and dialled. False keeps an address that nobody else can reach off the ledger.",
    ),
    setting(
        "listen",
        PROVIDER,
        Kind::Listen,
        "\"0.0.0.0:4100\"",
        "Address on which the service listens; 0.0.0.0 is every address of this machine. A second provider of\n\
         one machine needs another port, such as 4101.",
    ),
    setting(
        "listen",
        GATEWAY,
        Kind::Listen,
        "\"0.0.0.0:4200\"",
        "Address on which the service listens; 0.0.0.0 is every address of this machine. A gateway without\n\
         users listens on loopback alone then. The port is not that of a provider, so that one machine runs both.",
    ),
    setting(
        "listen",
        AUTHORITY,
        Kind::Listen,
        "\"0.0.0.0:4000\"",
        "Address on which this authority listens for the others; 0.0.0.0 is every address of this machine.",
    ),
    setting(
        "advertise",
        PROVIDER,
        Kind::Announce,
        "\"\"",
        "host:port at which others reach the service, a host name or an IP address. It stands on the ledger; a\n\
         change reaches the ledger by itself. Without it `listen` is announced, which must be one address then.",
    ),
    setting(
        "advertise",
        AUTHORITY,
        Kind::Announce,
        "\"\"",
        "host:port at which the other authorities reach this one. Without it `listen` is announced, which must be\n\
         one address then. The addresses of authorities are part of the genesis.",
    ),
    setting(
        "egress",
        AUTHORITY,
        Kind::Ip,
        "\"\"",
        "IP address from which this node's connections reach the others, if it is not the one of `advertise`\n\
         (a second interface, NAT). They accept a connection from no other address.",
    ),
    setting(
        "service_listen",
        NODES,
        Kind::Listen,
        "\"0.0.0.0:4001\"",
        "Address on which the node service listens for clients.",
    ),
    setting(
        "service_advertise",
        NODES,
        Kind::Announce,
        "\"\"",
        "host:port at which clients reach the node service. Without it `service_listen` is announced.",
    ),
    setting(
        "announce",
        NODES,
        Kind::Flag,
        "true",
        "True lists this node in the ledger, so that clients find it; a changed address reaches the ledger by\n\
         itself. False takes it off the list, and returns its deposit.",
    ),
    setting(
        "announce_deposit",
        NODE,
        Kind::Count,
        "100",
        "Most SYNC that this node locks for its place in the list: 100 for a free one, more if all are taken.\n\
         The deposit returns when the node leaves the list.",
    ),
    setting(
        "region",
        NODES,
        Kind::Text,
        "\"\"",
        "Name of the region, such as eu-north, at most 24 bytes; it stands in the list of nodes.",
    ),
    setting(
        "archive",
        NODES,
        Kind::Flag,
        "false",
        "True keeps every block since the first, which explaining and recomputing old epochs needs. It grows\n\
         without end: 1.4 GB a day with a block a second, 5.6 GB with four.",
    ),
    setting(
        "replay_blocks",
        &[Node],
        Kind::Count,
        "1024",
        "Most blocks that a node without state runs itself. If more are missing, it takes the state of a recent block\n\
         from the other nodes, and its receipts and events begin there. An archive runs all blocks.",
    ),
    setting(
        "quiet_ms",
        AUTHORITY,
        Kind::Count,
        "0",
        "Milliseconds between blocks while no operation waits, to save processor time; 0 is the pace of the network.\n\
         At most three quarters of its leader timeout. An operation that arrives ends the pause.",
    ),
    setting(
        "page_cache_pages",
        NODES,
        Kind::Count,
        "16384",
        "Pages of 4 KiB that the storage cache holds: at least the records in use. 64 MiB suit 100,000 records.",
    ),
    setting(
        "operator",
        PROVIDER,
        Kind::Text,
        "\"\"",
        "Name of the operator, at most 32 bytes. A gateway keeps two shards of a segment apart by it. Needed.",
    ),
    setting(
        "region",
        PROVIDER,
        Kind::Text,
        "\"\"",
        "Name of the region, such as eu-north. Gateways spread shards over regions. Needed.",
    ),
    setting(
        "capacity",
        PROVIDER,
        Kind::Bytes,
        "\"100 GiB\"",
        "Bytes of shards that are offered. More needs a larger bond (`posync bond`). A change reaches the ledger by\n\
         itself: no lower than what is sold, and no higher than the bond covers.",
    ),
    setting(
        "space",
        PROVIDER,
        Kind::Bytes,
        "0",
        "Most bytes that the shards may take on the volume; 0 is as many as are offered. 18 MiB of it are for\n\
         moving shards.",
    ),
    setting(
        "volume",
        PROVIDER,
        Kind::Text,
        "\"storage\"",
        "Directory of the shards and journals: the mount point of their volume. A path is relative to this\n\
         directory. It must exist before the start unless it is the default, so that a volume that is not\n\
         mounted is noticed.",
    ),
    setting(
        "egress_rate",
        PROVIDER,
        Kind::Bytes,
        "\"4 MiB\"",
        "Egress that is offered, in bytes a second, and the rate at which it is measured. More than the line\n\
         carries is paid only as measured. A change reaches the ledger by itself.",
    ),
    setting(
        "scrub_every",
        PROVIDER,
        Kind::Time,
        "\"14 days\"",
        "Pause before each pass that reads every shard to find bit rot before a draw does.",
    ),
    setting(
        "scrub_rate",
        PROVIDER,
        Kind::Bytes,
        "\"1 MiB\"",
        "Least rate of such a pass, in bytes a second; a store that would take more than two weeks is read\n\
         faster. Low, so that the disk stays free.",
    ),
    setting(
        "grace",
        PROVIDER,
        Kind::Time,
        "\"6 h\"",
        "Time for which everything of an agreement is kept after two nodes proved that it is over.",
    ),
    setting(
        "bond",
        PROVIDER,
        Kind::Count,
        "0",
        "Bond at the registration, in SYNC; 0 is the least that the network takes. `posync bond --add` adds to it later.",
    ),
    setting(
        "term_max",
        PROVIDER,
        Kind::Count,
        "720",
        "Longest agreement that is taken, in epochs: prices stay locked for that long. A change reaches\n\
         the ledger by itself.",
    ),
    setting(
        "price_storage",
        PROVIDER,
        Kind::Count,
        "0",
        "Least posted price of storage at which agreements are taken, in grains (10^-9 SYNC) for 1 GiB kept for a\n\
         round, as `posync prices` shows it; 0 takes any. A change reaches the ledger by itself.",
    ),
    setting(
        "price_egress",
        PROVIDER,
        Kind::Count,
        "0",
        "Least posted price of egress at which agreements are taken, in grains (10^-9 SYNC) for 1 MiB sent; 0 takes\n\
         any. A change reaches the ledger by itself.",
    ),
    setting(
        "owner",
        GATEWAY,
        Kind::Account,
        "\"\"",
        "Account (sync1...) that owns the gateway and may store files at it. Needed. It is not the gateway's\n\
         own account, which pays the providers.",
    ),
    setting(
        "grace",
        GATEWAY,
        Kind::Time,
        "0",
        "Time for which a provider may be silent before its shards are rebuilt with others, a minute at\n\
         least, 10 s on a local network. 0 is a quarter of an epoch: 6 h, two minutes on a local network.\n\
         Shorter costs repairs after each restart of a provider, longer leaves files on fewer holders\n\
         meanwhile.",
    ),
    setting(
        "users",
        GATEWAY,
        Kind::Users,
        "[]",
        "Other accounts that may store files here, each its own. \"sync1...=50 GiB\" bounds the bytes of its files,\n\
         \"sync1...\" does not; all files are paid from the gateway's account. With no users, a gateway that is\n\
         told to listen on 0.0.0.0 listens on loopback.",
    ),
    setting(
        "alert_url",
        ALL,
        Kind::Text,
        "\"\"",
        "Address to which alerts are posted as JSON; empty sends none. Anyone who knows the address can post to it.",
    ),
    setting(
        "alert_ca",
        ALL,
        Kind::Text,
        "\"\"",
        "PEM file of the certificate authorities that may sign that host's certificate; empty uses the public ones.",
    ),
    setting(
        "log",
        ALL,
        Kind::Word(&["stderr", "file"]),
        "\"stderr\"",
        "\"stderr\" suits a supervisor that keeps logs (systemd, a container); \"file\" writes `log` in this\n\
         directory, 16 MiB at a time, with the last three full ones beside it.",
    ),
];
