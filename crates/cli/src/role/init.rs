//! `posync init`: makes the directory of a role: its key, its settings, its copy of the network file.
//!
//! Everything that may fail is tried before the key is made: a directory in which something cannot be
//! written is found while nothing is lost.

use super::{
    GENESIS_FILE, KEY_FILE,
    settings::{self, Settings},
    start::writable,
};
use crate::{
    failure::{Exit, Failure, Outcome},
    keys,
    net::{Access, Net, file},
    network::Role,
    output::Output,
    target,
};
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
    /// A setting of its config.toml, such as advertise=storage.example.org:4100; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Init {
    /// Makes the directory; prints the account, what to back up and what never to restore.
    pub(crate) fn run(self, access: Option<&Access>, output: Output) -> Outcome {
        let Self { role, dir, set } = self;
        let mut settings = Settings::new(role, &dir);
        apply(&mut settings, &set)?;
        let net = access.map(Net::open).transpose()?;
        vacant(&dir)?;
        private(&dir)?;
        writable(&dir)?;
        if let Some(net) = &net {
            target::replace(&dir.join(file::FILE), net.file.to_toml().as_bytes())?;
        }
        settings.write()?;
        // The key is last: its presence means that the directory is complete.
        let key = keys::create(&dir.join(KEY_FILE), &mut commonware_utils::sys_rng())?;
        let account = keys::account(&key).to_string();
        let value = json!({ "role": role, "directory": dir, "account": account, "network": net.as_ref().map(Net::chain) });
        output.answer(&value, || screen(role, &dir, &account, net.is_some()))
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

/// Refuses a directory that holds a role.
fn vacant(directory: &Path) -> Outcome {
    let found = [KEY_FILE, settings::FILE, "storage", "secrets"];
    let Some(found) = found.iter().find(|name| fs::symlink_metadata(directory.join(name)).is_ok()) else {
        return Ok(());
    };
    Err(Failure::new(
        Exit::Refused,
        format!("{} holds a role already", directory.display()),
        format!("it holds {found}"),
        "name another directory with --dir; `posync start` runs the role that is there",
    ))
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
        Role::Authority | Role::Node => {
            "secrets/ and storage/. An old copy of them, or a second machine with the same key, signs twice and\n  \
             is slashed. After a lost disk start with node.key, config.toml and genesis alone: the node syncs and\n  \
             is dealt a new share."
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

/// The steps that are left to the operator.
fn next(role: Role, directory: &Path, has_network: bool) -> String {
    let at = directory.display();
    let mut steps = Vec::new();
    if role == Role::Authority {
        steps.push(format!("take part in the ceremony of the network: it writes {at}/{GENESIS_FILE}"));
    } else if !has_network {
        steps.push(format!("copy the network file to {at}/{}", file::FILE));
    }
    if role == Role::Node {
        steps.push(format!("copy the genesis of the network to {at}/{GENESIS_FILE}"));
    }
    let settings = match role {
        Role::Authority | Role::Node => "advertise, service_advertise",
        Role::Provider => "operator, region, capacity, advertise",
        Role::Gateway => "owner, users, listen",
    };
    steps.push(format!("edit {at}/{}: {settings}", settings::FILE));
    if matches!(role, Role::Provider | Role::Gateway) {
        steps.push("send money to the account above".into());
    }
    steps.push(format!("posync start --dir {at}"));
    let lines = steps.iter().zip(1..).map(|(step, number)| format!("  {number}. {step}"));
    lines.collect::<Vec<_>>().join("\n")
}

fn screen(role: Role, directory: &Path, account: &str, has_network: bool) -> String {
    format!(
        "role      {role} in {}\naccount   {account}\n\nBack up, where nobody else can read it:\n  {}\n\n\
         Never restore:\n  {}\n\nNext:\n{}",
        directory.display(),
        back_up(role),
        never(role),
        next(role, directory, has_network)
    )
}
