//! A running network: its description, its processes and the lock on its directory.
//!
//! A member that is not well neither keeps others from starting nor stops them.

use super::{create, supervise::Processes};
use crate::{
    descriptors,
    failure::{Exit, Failure, Outcome},
    keys,
    net::Net,
    network::{self, Network, Role},
    role::settings,
};
use commonware_cryptography::ed25519::PrivateKey;
use posync_client::descriptors::MEMBER;
use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

/// Bytes at the end of a log that an error shows.
const LOG_TAIL: u64 = 2_000;

/// The members to start, and the address for their alerts.
#[derive(Clone, Debug)]
pub(crate) struct Size {
    /// Number of authorities, if given.
    pub(crate) authorities: Option<u16>,
    /// Number of providers, if given.
    pub(crate) providers: Option<u16>,
    /// True if the authorities of a new network make its key by a ceremony.
    pub(crate) by_ceremony: bool,
    /// Address to which members post their alerts from now on, if given.
    pub(crate) alert_url: Option<String>,
    /// File of the certificate authorities for that address; the public ones without it.
    pub(crate) alert_ca: Option<PathBuf>,
    /// Grace period of the gateway for silent providers, if it is not the network's.
    pub(crate) grace: Option<&'static str>,
    /// Milliseconds between blocks while no operation waits, if given.
    pub(crate) quiet_ms: Option<u16>,
}

impl Size {
    /// Default numbers: four authorities; ten providers, of which eight hold a segment and two are spare.
    pub(crate) const USUAL: Self = Self {
        authorities: None,
        providers: None,
        by_ceremony: false,
        alert_url: None,
        alert_ca: None,
        grace: None,
        quiet_ms: None,
    };
}

/// A running network; dropping it stops every process.
#[derive(Debug)]
pub(crate) struct Running {
    /// The network's directory, as an absolute path.
    pub(crate) directory: PathBuf,
    /// The network, as commands reach it.
    pub(crate) net: Net,
    /// The description, as in `devnet.json`.
    pub(crate) network: Network,
    processes: Processes,
    /// Messages for the user that were not fetched yet.
    lines: Vec<String>,
    _lock: File,
}

impl Running {
    /// Creates the network if the directory is new, and starts every member that can be started.
    pub(crate) fn start(directory: &Path, size: &Size) -> Outcome<Self> {
        descriptors::ensure("a member of the network", MEMBER)?;
        let lock = create::lock(directory)?;
        let directory =
            fs::canonicalize(directory).map_err(|error| Failure::file(directory, "resolve", error))?;
        let network = create::open(&directory, size, &mut commonware_utils::sys_rng())?;
        let net = Net::in_directory(&directory)?;
        let (processes, lines) = Default::default();
        let mut running = Self { directory, net, network, processes, lines, _lock: lock };
        for member in &running.network.nodes {
            if let (Some(grace), Role::Gateway) = (size.grace, member.role) {
                settings::change(&member.dir, &[("grace", grace)])?;
            }
            if let (Some(quiet_ms), Role::Authority) = (size.quiet_ms, member.role)
                && let Err(failure) = settings::change(&member.dir, &[("quiet_ms", &quiet_ms.to_string())])
            {
                running.lines.push(format!("{} keeps its pause: {}", member.name, failure.in_one_line()));
            }
            if let Some(url) = &size.alert_url
                && let Err(failure) = set_alert(&member.dir, url, size.alert_ca.as_deref())
            {
                running.lines.push(format!(
                    "{} does not get the alert hook: {}",
                    member.name,
                    failure.in_one_line()
                ));
            }
            running.lines.extend(running.processes.start(&member.name, &member.dir));
        }
        running.note_processes();
        running.network.write(&running.directory)?;
        Ok(running)
    }

    /// Restarts the members that failed; returns the messages since the last call.
    pub(crate) fn look(&mut self) -> Vec<String> {
        let mut lines = std::mem::take(&mut self.lines);
        lines.extend(self.processes.look());
        if self.note_processes()
            && let Err(failure) = self.network.write(&self.directory)
        {
            lines.push(format!("devnet.json names old processes: {}", failure.in_one_line()));
        }
        lines
    }

    /// True if a member has a process now.
    pub(crate) fn is_up(&self, name: &str) -> bool {
        self.processes.pid(name) != 0
    }

    /// Enters the members' process ids into the description; returns true if one changed.
    fn note_processes(&mut self) -> bool {
        let mut changed = false;
        for member in &mut self.network.nodes {
            let pid = self.processes.pid(&member.name);
            changed |= pid != member.pid;
            member.pid = pid;
        }
        changed
    }

    /// Private key of the network's user.
    pub(crate) fn user_key(&self) -> Outcome<PrivateKey> {
        keys::read(&self.directory.join(network::USER_KEY))
    }

    /// Fails with the end of its log if a member that should run has ended.
    pub(crate) fn check(&mut self) -> Outcome {
        let Some((name, why)) = self.processes.unwell() else { return Ok(()) };
        let log = self.network.member(&name).map(|member| member.dir.join("log")).unwrap_or_default();
        Err(Failure::new(
            Exit::Failed,
            format!("{name} has ended ({why})"),
            tail(&log),
            format!("read {}, mend the cause, and start the network again", log.display()),
        ))
    }

    /// Kills a member at once, as a power cut would.
    pub(crate) fn kill(&mut self, name: &str) -> bool {
        self.processes.kill(name)
    }

    /// Stops every member and clears the process ids in `devnet.json`.
    pub(crate) fn stop(mut self) -> Outcome {
        self.processes.stop();
        for member in &mut self.network.nodes {
            member.pid = 0;
        }
        self.network.write(&self.directory)
    }
}

/// Sets the address for the alerts of the member in `directory`, from its next start on; none if empty.
fn set_alert(directory: &Path, url: &str, ca: Option<&Path>) -> Outcome {
    let ca = ca.map(|ca| ca.display().to_string()).unwrap_or_default();
    settings::change(directory, &[("alert_url", url), ("alert_ca", &ca)])
}

/// The last [`LOG_TAIL`] bytes of a log, as text.
pub(crate) fn end_of(log: &Path) -> io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The end of a log as text, or the reason why it cannot be read.
fn tail(log: &Path) -> String {
    match end_of(log) {
        Ok(text) if text.trim().is_empty() => "its log is empty".into(),
        Ok(text) => format!("the end of its log:\n{}", text.trim()),
        Err(error) => format!("its log cannot be read: {error}"),
    }
}

/// Removes a network's files from its directory. Refuses a directory without the description of a network, one that holds
/// anything else, and one in which the network or one of its members runs.
pub(crate) fn clear(directory: &Path) -> Outcome {
    let failed = |error| Failure::file(directory, "clear", error);
    let mut entries = match fs::read_dir(directory) {
        Ok(entries) => entries.collect::<Result<Vec<_>, _>>().map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    // The lock itself stays: another process may be waiting for this very file.
    entries.retain(|entry| !create::is_lock(&entry.file_name()));
    if entries.is_empty() {
        return Ok(());
    }
    let members = create::described(directory)?;
    let stray = entries.iter().find(|entry| !create::makes(&entry.file_name(), &entry.path(), &members));
    if let Some(stray) = stray {
        return Err(Failure::new(
            Exit::Usage,
            format!("will not clear {}", directory.display()),
            format!("it holds {}, which no network made", stray.file_name().display()),
            "move that away, or name another directory with --dir",
        ));
    }
    // Held during the removal, so that neither another supervisor nor a member that ran before starts meanwhile.
    let _lock = create::lock(directory)?;
    let members = entries.iter().filter(|entry| entry.path().is_dir());
    let _members = members.map(|entry| create::lock_member(&entry.path())).collect::<Outcome<Vec<_>>>()?;
    // The description goes last: a removal that was cut can be repeated.
    entries.sort_by_key(|entry| entry.file_name() == network::FILE);
    for entry in &entries {
        let path = entry.path();
        let is_directory = entry.file_type().map_err(failed)?.is_dir();
        let removed = if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(|error| Failure::file(&path, "remove", error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_cleared_whole_and_a_member_with_another_key_is_none_of_it() {
        let home = tempfile::tempdir().expect("a directory");
        let size = Size { authorities: Some(4), providers: Some(1), ..Size::USUAL };
        let mut rng = commonware_utils::sys_rng();
        create::open(home.path(), &size, &mut rng).expect("made");
        // Commands keep the nodes there that they learned.
        fs::write(home.path().join("nodes.known"), "learned").expect("writable");
        let key = home.path().join("provider-0").join("node.key");
        let own = fs::read(&key).expect("made");
        fs::remove_file(&key).expect("there");
        keys::create(&key, &mut rng).expect("writable");
        let refused = clear(home.path()).expect_err("it has another key").in_one_line();
        assert!(refused.contains("provider-0"), "{refused}");
        assert!(
            key.exists() && home.path().join("devnet.json").exists() && home.path().join("user.key").exists()
        );
        fs::write(&key, own).expect("writable");
        clear(home.path()).expect("the network made all of it");
        let left = fs::read_dir(home.path()).expect("a directory");
        let left: Vec<_> = left.map(|entry| entry.expect("readable").file_name()).collect();
        assert_eq!(left, ["lock"]);
    }
}
