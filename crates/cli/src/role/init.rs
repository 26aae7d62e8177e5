//! `posync init`: makes the directory of a role: its key, its settings, its copy of the network file, and for a node
//! the genesis, which a node of the network gives.
//!
//! Everything that may fail is tried before the key is made: a directory in which something cannot be
//! written is found while nothing is lost.

use super::{
    GENESIS_FILE, KEY_FILE,
    settings::{self, Settings},
    start::writable,
};
use crate::{
    checks::machine::has_room,
    commands::card::{self, Places},
    failure::{Exit, Failure, Outcome},
    keys,
    net::{Access, Net, file},
    network::Role,
    output::Output,
    session, target,
};
use commonware_codec::Encode as _;
use commonware_cryptography::ed25519::PrivateKey;
use commonware_math::algebra::Random as _;
use posync_node::{ceremony::CARD_FILE, genesis::SIGNATURES_FILE};
use serde_json::json;
use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

/// Command-line arguments of `posync init`.
#[derive(Debug, clap::Args)]
pub(crate) struct Init {
    /// The role that the directory is for
    #[arg(value_enum)]
    role: Role,
    /// The role's directory; made if it does not exist
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// A setting of its config.toml, such as advertise=storage.example.org:4100; may be repeated (--help lists them)
    #[arg(long = "set", value_name = "KEY=VALUE", long_help = settings::listed(&Role::ALL))]
    set: Vec<String>,
}

impl Init {
    /// Makes the directory; prints the account, what to back up and what never to restore.
    pub(crate) fn run(self, access: Option<&Access>, output: Output) -> Outcome {
        let Self { role, dir, set } = self;
        let mut settings = Settings::new(role, &dir);
        apply(&mut settings, &set)?;
        let net = access.map(Net::open).transpose()?;
        vacant(role, &dir)?;
        private(&dir)?;
        writable(&dir)?;
        has_room(&settings)?;
        if let Some(net) = &net {
            target::replace(&dir.join(file::FILE), net.file.to_toml().as_bytes())?;
        }
        let genesis =
            net.as_ref().filter(|_| role == Role::Node).map(|net| genesis(net, &dir)).transpose()?;
        let path = dir.join(KEY_FILE);
        let key = if path.exists() {
            keys::read(&path)?
        } else {
            keys::create(&path, &mut commonware_utils::sys_rng())?
        };
        let card = match (role == Role::Authority).then(|| write_card(&settings, &key)) {
            // Addresses were given, and make no card: the same command with better ones finds no settings.
            Some(Err(failure)) if !settings.text("advertise")?.is_empty() => return Err(failure),
            card => card,
        };
        // The settings are last, as in `posync join`: a directory with settings had a key before it had them.
        settings.write()?;
        let made =
            Made { role, directory: &dir, account: keys::account(&key).to_string(), card, net, genesis };
        let card = made.card.as_ref().and_then(|card| card.as_ref().ok());
        let value = json!({ "role": role, "directory": dir, "account": made.account,
            "network": made.net.as_ref().map(Net::chain), "card": card });
        output.answer(&value, || made.screen())
    }
}

/// Fetches the genesis into a node's directory. A network that does not run yet is none of its reasons to fail: the
/// start of the node fetches it then.
///
/// # Errors
/// [`Failure`] if a node gives the genesis of another network, or the directory holds one.
fn genesis(net: &Net, dir: &Path) -> Outcome<Fetched> {
    let path = dir.join(GENESIS_FILE);
    if net.kept_genesis(&path)?.is_some() {
        return Ok(Fetched::Kept);
    }
    let key = PrivateKey::random(commonware_utils::sys_rng());
    match session::run(async |context| net.fetch_genesis(&context, &key).await) {
        Ok(genesis) => target::replace(&path, &genesis.encode()).map(|()| Fetched::Kept),
        Err(failure) if failure.exit == Exit::Unreachable => Ok(Fetched::Later(failure)),
        Err(failure) => Err(failure),
    }
}

/// Enters the settings of a command line, each as key=value.
pub(crate) fn apply(settings: &mut Settings, set: &[String]) -> Outcome {
    for pair in set {
        let (key, value) = pair.split_once('=').ok_or_else(|| {
            let next = "write it as --set capacity=\"500 GiB\"";
            Failure::new(Exit::Usage, format!("'{pair}' sets nothing"), "there is no = in it", next)
        })?;
        settings.set(key.trim(), value.trim())?;
    }
    Ok(())
}

/// Writes the card of an authority with the addresses that its settings announce; returns its path.
fn write_card(settings: &Settings, key: &PrivateKey) -> Outcome<PathBuf> {
    let places = Places {
        advertise: settings.announced("advertise", "listen")?.to_string(),
        egress: settings.ip("egress")?,
        service: settings.announced("service_advertise", "service_listen")?.to_string(),
        payout: None,
    };
    card::write(&settings.directory, key, &places)?;
    Ok(settings.directory.join(CARD_FILE))
}

/// Refuses a directory that holds a role. A key alone holds none: an authority may have its key from `posync card`
/// and its share from a ceremony, and an `init` that was killed left no more than the key. An empty `storage` is the
/// mount point of a new disk.
fn vacant(role: Role, directory: &Path) -> Outcome {
    let all = [settings::FILE, "storage", "secrets"];
    let found = if role == Role::Authority { &all[..1] } else { &all[..] };
    let is_used = |name: &&&str| {
        let path = directory.join(name);
        fs::symlink_metadata(&path).is_ok() && !(**name == "storage" && is_new_volume(&path))
    };
    let Some(found) = found.iter().find(is_used) else {
        return Ok(());
    };
    Err(Failure::new(
        Exit::Refused,
        format!("{} holds a role already", directory.display()),
        format!("it holds {found}"),
        "name another directory with --dir; `posync start` runs the role that is there",
    ))
}

/// True for a directory with nothing in it but what a new file system has.
pub(crate) fn is_new_volume(path: &Path) -> bool {
    fs::read_dir(path)
        .is_ok_and(|mut all| all.all(|entry| entry.is_ok_and(|entry| entry.file_name() == "lost+found")))
}

/// Creates a directory that only its owner may enter.
pub(crate) fn private(directory: &Path) -> Outcome {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|error| Failure::file(directory, "make the directory", error))
}

/// The files to back up, and what losing them costs.
pub(crate) const fn back_up(role: Role) -> &'static str {
    match role {
        Role::Authority => "node.key     the identity of the authority. Lost: the seat is lost.",
        Role::Provider => "node.key     the account with the bond and all pay. Lost: both are lost.",
        Role::Gateway => {
            "node.key     the account that pays providers. Lost: its money is lost.\n  the catalogue  with \
             `posync gateway backup FILE`, often. Lost: every file is lost, for it holds the keys of the files."
        }
        Role::Node => "node.key     the identity of the node. Lost: make a new one.",
    }
}

/// The files of which an old copy would do harm.
pub(crate) const fn never(role: Role) -> &'static str {
    match role {
        Role::Node => {
            "nothing: a copy of storage/ of any age does no harm. Without one the node takes a recent state\n  \
             (an archive runs all blocks again)."
        }
        Role::Authority => {
            "secrets/ and storage/. An old copy of them, or a second machine with the same key, signs twice and\n  \
             is slashed. After a lost disk start with node.key, config.toml, genesis and genesis.signatures alone:\n  \
             the node syncs and is dealt a new share."
        }
        Role::Provider => {
            "the volume from an old copy while the network runs: it lacks vouchers and shards that were\n  \
             acknowledged since. Two machines with one key answer for each other's shards and fail draws."
        }
        Role::Gateway => {
            "storage/ from a copy of its files: an old catalogue forgets what is stored and signs vouchers\n  \
             anew. `posync gateway restore` is the way. Two machines with one key spend from one account."
        }
    }
}

/// The genesis of a node that was made.
enum Fetched {
    /// It is in the directory.
    Kept,
    /// No node gave it now, for this reason; the start fetches it.
    Later(Failure),
}

/// A directory that was made, with what is in it.
struct Made<'a> {
    role: Role,
    directory: &'a Path,
    account: String,
    /// Path of an authority's card, or the reason why there is none.
    card: Option<Outcome<PathBuf>>,
    net: Option<Net>,
    /// Genesis of a node whose network is named.
    genesis: Option<Fetched>,
}

impl Made<'_> {
    /// The steps that are left to the operator.
    fn next(&self) -> String {
        let at = self.directory.display();
        let mut steps = Vec::new();
        let settings = match self.role {
            Role::Authority => "advertise, service_advertise",
            Role::Node => "service_advertise, archive, region",
            Role::Provider => "operator, region, capacity, advertise",
            Role::Gateway => "owner, users, listen",
        };
        // A card names the addresses of the settings; it would not follow a later change of them.
        if !matches!(self.card, Some(Ok(_))) {
            steps.push(format!("edit {at}/{}: {settings}", settings::FILE));
        }
        match &self.card {
            Some(Ok(_)) => steps.push("give the card to the member that writes the draft".into()),
            Some(Err(_)) => steps.push(format!(
                "posync card --dir {at} --advertise HOST:PORT --service HOST:PORT, with the addresses that you set"
            )),
            None => (),
        }
        if self.role == Role::Authority {
            let files = format!("{GENESIS_FILE} and {SIGNATURES_FILE}");
            steps.push(format!("posync ceremony --dir {at} DRAFT, which writes {files} there"));
        } else if self.net.is_none() {
            steps.push(format!("copy the network file to {at}/{}", file::FILE));
        }
        if self.role == Role::Node {
            steps.push(
                "send 101 SYNC to the account above: a deposit of 100 lists the node for clients and returns when it \
                 leaves the list; announce = false serves without it"
                    .into(),
            );
        }
        if matches!(self.role, Role::Provider | Role::Gateway) {
            steps.push("send money to the account above".into());
        }
        steps.push(format!("posync start --dir {at}"));
        let lines = steps.iter().zip(1..).map(|(step, number)| format!("  {number}. {step}"));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn screen(&self) -> String {
        let card = match &self.card {
            Some(Ok(path)) => format!("\ncard      {}, which is public", path.display()),
            Some(Err(why)) => format!("\ncard      none yet: {}", why.in_one_line()),
            None => String::new(),
        };
        let genesis = match &self.genesis {
            None => String::new(),
            Some(Fetched::Kept) => {
                "\ngenesis   as the network file names it, from a node of the network".into()
            }
            Some(Fetched::Later(why)) => {
                format!("\ngenesis   fetched at the start: now {}", why.in_one_line())
            }
        };
        format!(
            "role      {role} in {}\naccount   {}{card}{genesis}\n\nBack up, where nobody else can read it:\n  {}\n\n\
             Never restore:\n  {}\n\nNext:\n{}",
            self.directory.display(),
            self.account,
            back_up(self.role),
            never(self.role),
            self.next(),
            role = self.role
        )
    }
}
