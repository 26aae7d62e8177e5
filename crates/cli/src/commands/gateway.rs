//! `posync gateway backup|restore FILE`: the catalogue of a network's gateway, with the secret of its files.

use crate::{
    failure::{Exit, Failure, Outcome},
    keys,
    net::{Access, Net},
    network::Role,
    output::Output,
    role::settings::{self, Settings},
};
use commonware_runtime::{
    Runner as _, Supervisor as _,
    tokio::{Config, Runner},
};
use posync_client::volume::{self, VolumeError};
use posync_gateway::{self as catalogue, Held};
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io::{self, BufReader, BufWriter},
    path::{Path, PathBuf},
    time::SystemTime,
};
use tempfile::{Builder, NamedTempFile};

/// Name of the gateway's partition in its storage.
const PARTITION: &str = "gateway";
/// Name of the file that the runtime locks while it uses a storage directory.
const HOLD: &str = ".hold";
/// Most attempts to copy the catalogue of a running gateway before a grown file is accepted.
const COPIES: u32 = 10;

/// Command-line arguments of `posync gateway`.
#[derive(Debug, clap::Args)]
pub(crate) struct Gateway {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Save the catalogue of the gateway whose directory --net names, with the secret of its files; it may run
    Backup {
        /// A new file, readable by its owner alone: anyone who has it can read every stored file
        file: PathBuf,
    },
    /// Bring a catalogue back into the empty storage of a stopped gateway, whose directory --net names
    Restore {
        /// The backup to bring back
        file: PathBuf,
    },
}

impl Gateway {
    /// Saves or restores the catalogue in the directory of the network.
    pub(crate) fn run(self, access: &Access, output: Output) -> Outcome {
        let net = Net::open(access)?;
        let own = directory(&net)?;
        let storage = own.join("storage");
        let (held, file, done) = match self.command {
            Command::Backup { file } => (backup(&storage, &file)?, file, "saved to"),
            Command::Restore { file } => (restore(&own, &storage, &file)?, file, "restored from"),
        };
        let value =
            json!({ "file": file, "files": held.files, "agreements": held.agreements, "rows": held.rows });
        let (files, agreements) = (held.files, held.agreements);
        output.answer(&value, || format!("{done} {}: {files} files, {agreements} agreements", file.display()))
    }
}

/// The gateway's directory: the one that `--net` names, or the gateway's in a devnet's.
fn directory(net: &Net) -> Outcome<PathBuf> {
    let own = net.directory.as_ref().filter(|own| own.join(settings::FILE).exists());
    if let Some(own) = own
        && Settings::read(own)?.role == Role::Gateway
    {
        return Ok(own.clone());
    }
    let member = net.members(Role::Gateway).next().map(|member| member.dir.clone());
    member.ok_or_else(|| {
        let next = "name the gateway's own directory with --net";
        Failure::new(Exit::Local, "there is no gateway", "the directory holds none", next)
    })
}

fn failed(file: &Path, doing: &str, why: impl std::fmt::Display) -> Failure {
    let next = "do what the reason names; nothing was changed";
    Failure::new(Exit::Local, format!("cannot {doing} {}", file.display()), why, next)
}

/// Copies the catalogue and writes the rows of the copy. The copy of a running gateway's catalogue looks as
/// after a power cut, and is opened as after one.
fn backup(storage: &Path, file: &Path) -> Outcome<Held> {
    let doing = |error: io::Error| failed(file, "save the catalogue to", error);
    if fs::symlink_metadata(file).is_ok() {
        return Err(failed(file, "save the catalogue to", "there is a file of that name; choose another"));
    }
    let beside = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let copied = Builder::new().prefix(".posync-").tempdir_in(beside).map_err(doing)?;
    copy_all(storage, copied.path()).map_err(doing)?;
    let mut out = NamedTempFile::new_in(beside).map_err(doing)?;
    let config = Config::new().with_storage_directory(copied.path());
    let work = async |context: commonware_runtime::tokio::Context| {
        catalogue::backup(context.child("backup"), PARTITION, BufWriter::new(out.as_file_mut())).await
    };
    let held = Runner::new(config).start(work).map_err(|why| failed(file, "save the catalogue to", why))?;
    out.as_file().sync_all().map_err(doing)?;
    out.persist_noclobber(file).map_err(|error| doing(error.error))?;
    File::open(beside).and_then(|directory| directory.sync_all()).map_err(doing)?;
    Ok(held)
}

fn restore(own: &Path, storage: &Path, file: &Path) -> Outcome<Held> {
    let doing = |error: io::Error| failed(file, "restore", error);
    if let Ok(hold) = File::open(storage.join(HOLD))
        && matches!(hold.try_lock(), Err(TryLockError::WouldBlock))
    {
        return Err(failed(file, "restore", "the gateway runs; stop the network first"));
    }
    let account = keys::account(&Settings::read(own)?.key()?);
    if let Err(error @ VolumeError::Foreign(..)) = volume::check(own, storage, &account, PARTITION) {
        return Err(failed(file, "restore", error));
    }
    // The runtime writes into the storage when it starts, and that may be the mount point of a volume.
    let backup = File::open(file).map(BufReader::new).map_err(doing)?;
    catalogue::check(backup).map_err(|why| failed(file, "restore", why))?;
    let config = Config::new().with_storage_directory(storage);
    let open = || File::open(file).map(BufReader::new);
    let work = async |context: commonware_runtime::tokio::Context| {
        catalogue::restore(context.child("restore"), PARTITION, open).await
    };
    let held = Runner::new(config).start(work).map_err(|why| failed(file, "restore", why))?;
    // The storage that was lost, or moved aside, is replaced on the operator's word, once the catalogue is in it: an
    // empty one with the mark would be taken for that of a gateway without files.
    volume::take(own, storage, &account).map_err(|error| {
        let what = "the catalogue is restored, but its volume does not take the mark of this gateway";
        let next = format!(
            "do what the reason names, then run `posync start --dir {} --take-this-volume`",
            own.display()
        );
        Failure::new(Exit::Local, what, error, next)
    })?;
    Ok(held)
}

/// The files of the catalogue, with their lengths and times.
type Listed = BTreeMap<PathBuf, (u64, Option<SystemTime>)>;

fn list(storage: &Path) -> io::Result<Listed> {
    let mut listed = Listed::new();
    for partition in catalogue::partitions(PARTITION) {
        let entries = match fs::read_dir(storage.join(&partition)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let data = entry.metadata()?;
            let name = Path::new(&partition).join(entry.file_name());
            listed.insert(name, (data.len(), data.modified().ok()));
        }
    }
    Ok(listed)
}

/// Copies the catalogue's files, again while they change. From the [`COPIES`]th attempt on it is enough that
/// the same files exist afterwards; their ends may have grown.
fn copy_all(storage: &Path, to: &Path) -> io::Result<()> {
    for copy in 1.. {
        let before = list(storage)?;
        let copied = copy_once(storage, to, &before);
        let after = list(storage)?;
        if copied.is_ok() && (before == after || copy >= COPIES && before.keys().eq(after.keys())) {
            return Ok(());
        }
        if copy >= 2 * COPIES {
            let busy =
                io::Error::new(io::ErrorKind::ResourceBusy, "the catalogue changes all the time; try again");
            return Err(copied.err().unwrap_or(busy));
        }
    }
    unreachable!("the loop ends by itself")
}

fn copy_once(storage: &Path, to: &Path, listed: &Listed) -> io::Result<()> {
    for partition in catalogue::partitions(PARTITION) {
        let partition = to.join(partition);
        match fs::remove_dir_all(&partition) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir_all(&partition)?,
        }
    }
    // The index of the rows is written after them, so it is copied before them.
    for name in listed.keys().rev() {
        fs::copy(storage.join(name), to.join(name))?;
    }
    Ok(())
}
