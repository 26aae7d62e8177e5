//! Handles damaged or lost local state of an authority: it is set aside, never deleted, and the authority
//! fetches its state from the others.
//!
//! ```text
//!   start ──panic before the state is readable──► 1. state, blocks, outcomes ──► set-aside-N/   start again:
//!                                                    (votes and shares stay)                   state sync
//!                 ──panic again─────────────────► 2. all of storage and the shares ──► set-aside-N+1/
//!                                                    (it signs with the next term's share)
//!   storage gone, shares there ─────────────────► as 2
//!   secrets gone, storage there ────────────────► as 2: without a share its own votes cannot be replayed
//!   both gone ──────────────────────────────────► state sync, signs from the next term on, or from the one after
//!   a file `set-state-aside` ───────────────────► as 1
//! ```
//!
//! `set-aside-N` is in the node's directory. If `storage` is a volume of its own, its partitions go to
//! `storage/set-aside-N`, which is the name of no partition.
//!
//! A failure after the state is readable does not count as damage: a fault in the program would stop all
//! authorities at once, and none may give up its state for that. The operator decides then.
//!
//! Invariants
//! 1. No file is deleted. State is renamed within its volume, and shares may move to another one.
//! 2. The node never signs twice. Where the journals of votes stay, they are replayed. Where they are lost or
//!    damaged, the shares of the running terms are set aside with them: the node follows, and signs again
//!    with the share of the next term, for which it has signed nothing. The record of the last view it
//!    proposed in stays in both cases.
//! 3. After a crash at any point the next start continues the repair: the request for state sync is on disk
//!    before anything is moved, and is removed when the state is readable again.

use crate::{
    config::ConfigError,
    epoch::secrets::{Secrets, write_private},
};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Most directories of set-aside state. If more are needed, the cause is something else.
const ASIDE_MAX: u32 = 8;
/// Marker file that requests state sync at the next start.
const SYNC: &str = "sync-state";
/// Marker file of a node that has had state: if storage is missing then, it was lost.
const STARTED: &str = "started";
/// Marker file by which the operator asks the next start to set the state aside.
pub(crate) const WISH: &str = "set-state-aside";
/// A partition without data. It exists before the first signature, so storage without it was lost.
const BEGUN: &str = "posync-begun";
/// Partitions that stay when the state is set aside: the node's votes and dealings.
const SIGNED: [&str; 3] = ["posync-orchestrator", "posync-reshare", BEGUN];

/// The extent of the damage to the local state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// The state, the blocks or the outcomes are damaged.
    State,
    /// The journals of votes are or may be damaged as well.
    Votes,
}

/// The repair of one authority's directory.
pub(crate) struct Repair<'a> {
    directory: &'a Path,
    secrets: &'a Secrets,
}

impl<'a> Repair<'a> {
    /// Uses a directory that the caller has locked.
    pub(crate) const fn new(directory: &'a Path, secrets: &'a Secrets) -> Self {
        Self { directory, secrets }
    }

    fn at<T>(&self, name: &str, result: io::Result<T>) -> Result<T, ConfigError> {
        result.map_err(|source| ConfigError::File { path: self.directory.join(name), source })
    }

    fn mark(&self, name: &str, text: &str) -> Result<(), ConfigError> {
        self.at(name, write_private(self.directory, name, text.as_bytes()))
    }

    fn unmark(&self, name: &str) -> Result<(), ConfigError> {
        match fs::remove_file(self.directory.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => self.at(name, result),
        }
    }

    /// True if the node has to fetch its state from the others.
    pub(crate) fn needs_state(&self) -> bool {
        self.directory.join(SYNC).exists() || !self.secrets.has_share()
    }

    /// Runs before a start: sets aside what the operator or a loss of storage requires.
    ///
    /// # Errors
    /// [`ConfigError`] if files cannot be moved.
    pub(crate) fn before_start(&self) -> Result<(), ConfigError> {
        if self.directory.join(WISH).exists() {
            self.set_aside(Damage::State, "its operator asked for it")?;
            self.unmark(WISH)?;
        }
        let has_state = !partitions(&self.directory.join("storage"))?.is_empty();
        let had_state = self.directory.join(STARTED).exists() || self.secrets.has_run();
        if !has_state && had_state && self.secrets.has_share() {
            self.set_aside(Damage::Votes, "storage/ is missing or empty, and this node has run before")?;
        }
        if has_state && !self.secrets.has_run() && !self.secrets.has_share() {
            self.set_aside(Damage::Votes, "secrets/ is missing or empty, and this node has run before")?;
        }
        self.begin()
    }

    /// Records in storage, then in the secrets, that this node may have signed: whichever of the two is lost,
    /// the other shows it. In this order, a crash between them does not look like lost storage.
    fn begin(&self) -> Result<(), ConfigError> {
        let storage = self.directory.join("storage");
        let begun = storage.join(BEGUN);
        self.at("storage", fs::create_dir_all(&begun))?;
        self.sync("storage", &[&begun, &storage, &self.directory.to_path_buf()])?;
        self.secrets.begin();
        Ok(())
    }

    /// Records, once the state is readable, that the node has state and needs no sync.
    ///
    /// # Errors
    /// [`ConfigError`] if files cannot be written.
    pub(crate) fn started(&self) -> Result<(), ConfigError> {
        self.mark(STARTED, "")?;
        self.unmark(SYNC)
    }

    fn sync(&self, name: &str, directories: &[&PathBuf]) -> Result<(), ConfigError> {
        for directory in directories.iter().filter(|directory| directory.exists()) {
            self.at(name, fs::File::open(directory).and_then(|directory| directory.sync_all()))?;
        }
        Ok(())
    }

    /// Sets damaged state aside, so that the next start fetches it from the others.
    ///
    /// # Errors
    /// [`ConfigError`] if files cannot be moved, or state was set aside too often.
    pub(crate) fn set_aside(&self, damage: Damage, cause: &str) -> Result<(), ConfigError> {
        self.mark(SYNC, "")?;
        let (name, aside) = self.next_aside()?;
        let storage = self.directory.join("storage");
        // Shares go first: a node with shares but without its votes could sign twice, wherever this stops.
        if damage == Damage::Votes {
            self.at(&name, self.secrets.set_shares_aside(&aside))?;
            self.sync(&name, &[&aside, &self.directory.join("secrets")])?;
        }
        let on_volume = storage.join(&name);
        for partition in partitions(&storage)? {
            let is_signed = SIGNED.iter().any(|signed| partition.starts_with(signed));
            if damage == Damage::Votes || !is_signed {
                self.at(&name, move_partition(&storage, &partition, [&aside, &on_volume]))?;
            }
        }
        self.sync(&name, &[&aside, &on_volume, &storage])?;
        let directory = self.directory.display();
        match damage {
            Damage::State => tracing::error!(
                cause,
                "the local state in {directory} is damaged: it is set aside in {name} (in storage/{name} if storage/ \
                 is a volume of its own), and this node takes the state from the other authorities; what it signed \
                 is kept, so it signs nothing twice"
            ),
            Damage::Votes => tracing::error!(
                cause,
                "the local state in {directory} is lost or damaged, and with it the record of what this node \
                 signed: its shares of the network key are set aside in {name}, and what is left of the state with \
                 them (in storage/{name} if storage/ is a volume of its own). It takes the state from the other \
                 authorities, follows them, and signs again from the next term on; if no other authority has the \
                 state, stop all of them and put back a storage/ and secrets/ of one moment"
            ),
        }
        Ok(())
    }

    fn next_aside(&self) -> Result<(String, PathBuf), ConfigError> {
        for number in 0..ASIDE_MAX {
            let name = format!("set-aside-{number}");
            let path = self.directory.join(&name);
            // Left when the other directory of that name was moved away: nothing is added to it.
            if self.directory.join("storage").join(&name).exists() {
                continue;
            }
            match fs::create_dir(&path) {
                Ok(()) => return Ok((name, path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(ConfigError::File { path, source }),
            }
        }
        Err(ConfigError::Damaged {
            path: self.directory.join("storage"),
            reason: format!(
                "its state was set aside {ASIDE_MAX} times: check the disk and the memory of this machine, then \
                 move the set-aside-* directories, also those in storage/, away and start it again"
            ),
        })
    }
}

/// Moves a partition out of `storage`: to the first of two directories, or to the second, which is made if need be, if the
/// first is on another volume.
fn move_partition(storage: &Path, partition: &str, [aside, on_volume]: [&Path; 2]) -> io::Result<()> {
    let from = storage.join(partition);
    match fs::rename(&from, aside.join(partition)) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            fs::create_dir_all(on_volume)?;
            fs::rename(from, on_volume.join(partition))
        }
        result => result,
    }
}

/// Names of the partitions of a storage directory; none if there is no such directory.
///
/// # Errors
/// The directory is there and cannot be read: that is no loss.
fn partitions(storage: &Path) -> Result<Vec<String>, ConfigError> {
    let at = |source| ConfigError::File { path: storage.into(), source };
    let entries = match fs::read_dir(storage) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(at)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(at)?.file_name().into_string();
        names.extend(name.ok().filter(|name| name.starts_with("posync")));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_cryptography::bls12381::primitives::group::{Private, Scalar, Share};
    use commonware_utils::Participant;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    fn share() -> Share {
        Share::new(Participant::new(0), Private::new(Scalar::from_u64(7)))
    }

    fn node(directory: &Path) -> Secrets {
        let secrets = Secrets::disk(directory.join("secrets")).expect("writable");
        secrets.seed(&share());
        assert!(secrets.may_propose(3, 9));
        for partition in
            ["posync-state-log", "posync-blocks-key", "posync-orchestrator_consensus_3", "posync-reshare"]
        {
            let at = directory.join("storage").join(partition);
            fs::create_dir_all(&at).expect("writable");
            fs::write(at.join("00"), partition).expect("writable");
        }
        secrets
    }

    fn has(directory: &Path, path: &str) -> bool {
        directory.join(path).exists()
    }

    #[test]
    fn damaged_state_is_set_aside_and_what_was_signed_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        let secrets = node(path);
        let repair = Repair::new(path, &secrets);
        assert!(!repair.needs_state());
        repair.set_aside(Damage::State, "the log ends early").expect("movable");
        assert!(repair.needs_state());
        assert!(
            has(path, "set-aside-0/posync-state-log/00") && has(path, "set-aside-0/posync-blocks-key/00")
        );
        assert!(
            has(path, "storage/posync-orchestrator_consensus_3/00") && has(path, "storage/posync-reshare/00")
        );
        assert!(secrets.has_share());
        repair.started().expect("writable");
        assert!(!repair.needs_state());
    }

    #[test]
    fn who_lost_its_votes_sets_its_shares_aside_and_never_proposes_again_what_it_did() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        let secrets = node(path);
        let repair = Repair::new(path, &secrets);
        repair.before_start().expect("nothing to do");
        assert!(!has(path, "set-aside-0"), "a sound node is left alone");
        repair.started().expect("writable");
        fs::remove_dir_all(path.join("storage")).expect("it was there");
        repair.before_start().expect("movable");
        assert!(!secrets.has_share() && repair.needs_state());
        assert!(has(path, "set-aside-0/share-00000000000000000000"), "nothing is deleted");
        assert!(!secrets.may_propose(3, 9), "it remembers what it proposed");
        repair.before_start().expect("nothing more to do");
        assert!(!has(path, "set-aside-1"));
    }

    #[test]
    fn a_new_node_is_no_node_that_lost_its_state() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        let secrets = Secrets::disk(path.join("secrets")).expect("writable");
        secrets.seed(&share());
        for _ in 0..2 {
            Repair::new(path, &secrets).before_start().expect("nothing to do");
            assert!(
                secrets.has_share() && !has(path, "set-aside-0"),
                "also if its first start was cut short"
            );
        }
        fs::remove_dir_all(path.join("storage")).expect("it was there");
        Repair::new(path, &secrets).before_start().expect("movable");
        assert!(!secrets.has_share(), "it may have signed with the share of the first term");
    }

    #[test]
    fn a_node_without_its_secrets_takes_its_state_anew_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        drop(node(path));
        fs::remove_dir_all(path.join("secrets")).expect("it was there");
        let secrets = Secrets::disk(path.join("secrets")).expect("writable");
        let repair = Repair::new(path, &secrets);
        repair.before_start().expect("movable");
        assert!(repair.needs_state() && has(path, "set-aside-0/posync-orchestrator_consensus_3/00"));
        repair.started().expect("writable");
        repair.before_start().expect("nothing more to do");
        assert!(!has(path, "set-aside-1"), "it waits for a share with the state that it fetched");
    }

    /// The secrets may be on a volume of their own, and everything else on the one that was lost.
    #[test]
    fn shares_are_set_aside_from_another_volume_and_a_lost_data_directory_is_noticed() {
        let directory = tempfile::tempdir().expect("a directory");
        let memory = Path::new("/dev/shm");
        let other = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let other = other.expect("a directory");
        let secrets = Secrets::disk(other.path()).expect("writable");
        secrets.seed(&share());
        let first = directory.path().join("first");
        fs::create_dir(&first).expect("writable");
        Repair::new(&first, &secrets).before_start().expect("writable");
        let second = directory.path().join("second");
        fs::create_dir(&second).expect("writable");
        let repair = Repair::new(&second, &secrets);
        repair.before_start().expect("movable");
        assert!(repair.needs_state() && has(&second, "set-aside-0/share-00000000000000000000"));
        assert!(!has(other.path(), "share-00000000000000000000"));
    }

    #[test]
    fn state_on_a_volume_of_its_own_is_set_aside_there_and_shares_beside_the_node() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        let memory = Path::new("/dev/shm");
        let other = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let other = other.expect("a directory");
        symlink(other.path(), path.join("storage")).expect("writable");
        let volume = |path: &Path| fs::metadata(path).expect("there").dev();
        let storage = if volume(other.path()) == volume(path) { "" } else { "storage/" };
        let secrets = node(path);
        let repair = Repair::new(path, &secrets);
        repair.set_aside(Damage::State, "the log ends early").expect("movable");
        assert!(has(path, &format!("{storage}set-aside-0/posync-state-log/00")));
        assert!(!has(path, "storage/posync-state-log") && has(path, "storage/posync-reshare/00"));
        repair.before_start().expect("nothing to do");
        assert!(!has(path, "set-aside-1") && secrets.has_share(), "it is no partition that was lost");
        // Of the two directories, its operator moves one away.
        fs::remove_dir_all(path.join("set-aside-0")).expect("there");
        repair.set_aside(Damage::Votes, "the journal ends early").expect("movable");
        let next = if storage.is_empty() { "set-aside-0" } else { "set-aside-1" };
        assert!(has(path, &format!("{storage}{next}/posync-orchestrator_consensus_3/00")));
        assert!(!has(path, "storage/posync-reshare") && !secrets.has_share());
        assert!(has(path, &format!("{next}/share-00000000000000000000")), "nothing is deleted");
    }

    #[test]
    fn an_operator_may_ask_for_it_once_and_too_many_are_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        let secrets = node(path);
        let repair = Repair::new(path, &secrets);
        fs::write(path.join(WISH), "").expect("writable");
        repair.before_start().expect("movable");
        assert!(has(path, "set-aside-0/posync-state-log/00") && repair.needs_state());
        repair.before_start().expect("nothing more to do");
        assert!(!has(path, "set-aside-1"));
        for _ in 1..ASIDE_MAX {
            repair.set_aside(Damage::State, "again").expect("movable");
        }
        let told = repair.set_aside(Damage::State, "again").expect_err("enough").to_string();
        assert!(told.contains("check the disk"), "{told}");
    }
}
