//! The volume of a member: its free space, and the mark that an empty mount point lacks.
//!
//! ```text
//!   first start   --> mark on the volume, then a record in the member's own directory
//!   later starts  --> record, and the mark of this account --> goes on
//!                     record, and no mark                  --> refused: the volume is not mounted, or another one
//!   a member that ran before there were marks
//!                 --> its partitions are on the volume --> marked; if the volume is full, at a later start
//!                     they are not                     --> refused
//! ```
//!
//! Each start writes the next number into the mark, and then into the record: a copy of the data that is older than the
//! member's last start has a lower number than the record, and is refused.
//!
//! A mount can also end, or its device fail, under a member that runs ([`InUse`]): open files go on, and every name
//! leads to the mount point from then on.
//!
//! A mount point without its volume is an empty directory. Taken for the store, everything on it would count as lost,
//! and what is written there would vanish below the volume when that is mounted.

mod in_use;

pub use in_use::InUse;

use crate::{
    blob_header::partitions,
    format_mark::{replace, replace_bytes},
};
use commonware_runtime::Error as RuntimeError;
use posync_protocol::Account;
use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::Arc,
};
use thiserror::Error;

/// Name of the mark on a volume.
const MARK: &str = "member";
/// Name of the record in the member's directory. No setting suggests this name for a volume.
const RECORD: &str = ".volume-mark";
/// Name of the file in the member's directory that keeps the parameters of the network since the first start.
pub const PARAMETERS: &str = "parameters";
/// Names of the files on a volume that are read to find out whether its device answers: two, as a bad sector may lie
/// under one.
const PROBES: [&str; 2] = ["probe", "probe-2"];
/// Bytes of a probe: more than a file system keeps beside a file's name, so that a device must read them.
const PROBE_BYTES: usize = 4096;
/// Most bytes of a mark; a longer file is damaged.
const BYTES_MAX: u64 = 256;

/// Why a volume cannot be used.
#[derive(Debug, Error)]
pub enum VolumeError {
    /// The volume does not hold the mark that the member left there.
    #[error(
        "{0} lacks the mark or the data of this member, which kept them there before: the volume is not mounted, or it \
         is another one; nothing was written to it"
    )]
    Missing(PathBuf),
    /// The mark does not read as one.
    #[error(
        "the mark {0} is damaged: it must hold the line \"member ACCOUNT\", and may hold a line \"start NUMBER\"; nothing was \
         written to the volume"
    )]
    Damaged(PathBuf),
    /// Another member keeps its data on the volume.
    #[error("{0} is the volume of another member, {1}; nothing was written to it")]
    Foreign(PathBuf, Account),
    /// The volume holds a mark from before the member's last start.
    #[error(
        "{0} holds an older copy of the data of this member, from its start {1}; the last one was start {2}: the volume is \
         not mounted, or was put back to an older state; nothing was written to it"
    )]
    Older(PathBuf, u64, u64),
    /// The name of the volume leads elsewhere than at the start of the member that runs.
    #[error(
        "{0} is another file system or directory than when this member started: the volume is not mounted, or was \
         mounted anew as another device; mount it, and if it is, start the member again; nothing was written to it"
    )]
    Other(PathBuf),
    /// The file system of the volume takes no writes: it was mounted so, or the system made it so after an error.
    #[error(
        "the file system of {0} is read-only; if nobody mounted it so, the system found an error on it: see the kernel's \
         log, check the disk, and mount it for writing again"
    )]
    ReadOnly(PathBuf),
    /// The device of the volume answers no read.
    #[error("the device of {0} answers no read: {1}; check the disk and its connection")]
    Failing(PathBuf, io::Error),
    /// The mark or the record cannot be read or written.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
}

/// Checks that `volume` is the one on which the member of `directory` keeps its data, or a new one. The names of the
/// member's partitions begin with `partition-`. It writes nothing.
///
/// # Errors
/// [`VolumeError`].
pub fn check(directory: &Path, volume: &Path, account: &Account, partition: &str) -> Result<(), VolumeError> {
    match read(&volume.join(MARK))? {
        Mark::Of(theirs, _) if theirs != *account => Err(VolumeError::Foreign(volume.into(), theirs)),
        Mark::Of(_, start) => match read(&directory.join(RECORD))?.start() {
            last if start < last => Err(VolumeError::Older(volume.into(), start, last)),
            _ => Ok(()),
        },
        Mark::Damaged => Err(VolumeError::Damaged(volume.join(MARK))),
        Mark::None => {
            let is_recorded = matches!(read(&directory.join(RECORD))?, Mark::Of(..));
            // A member that ran before there were marks has no record.
            let is_lost = is_recorded || has_run(directory)? && !has_partitions(volume, partition)?;
            if is_lost { Err(VolumeError::Missing(volume.into())) } else { Ok(()) }
        }
    }
}

fn has_run(directory: &Path) -> Result<bool, VolumeError> {
    let path = directory.join(PARAMETERS);
    path.try_exists().map_err(|error| VolumeError::File(path, error))
}

fn has_partitions(volume: &Path, partition: &str) -> Result<bool, VolumeError> {
    let own = partitions(volume, partition).map_err(|error| VolumeError::File(volume.into(), error))?;
    Ok(!own.is_empty())
}

/// Checks the volume as [`check`] does, and marks it with the number of this start: called before anything is stored
/// there. A volume that holds the member's data and takes no mark now is marked at a later start.
///
/// # Errors
/// [`VolumeError`].
pub fn claim(directory: &Path, volume: &Path, account: &Account, partition: &str) -> Result<(), VolumeError> {
    check(directory, volume, account, partition)?;
    match write(directory, volume, account) {
        Err(VolumeError::File(path, error)) if has_partitions(volume, partition)? => {
            let path = path.display().to_string();
            tracing::warn!(
                %error,
                path,
                "the volume does not take the mark of this start; until it does, an empty mount point or an older copy \
                 may be taken for it: make room, or allow writing, and start again"
            );
            Ok(())
        }
        written => written,
    }
}

/// Takes the volume as it is on the operator's word, with a missing, damaged or older mark. What was on another is lost.
///
/// # Errors
/// `Foreign`, `File`.
pub fn take(directory: &Path, volume: &Path, account: &Account) -> Result<(), VolumeError> {
    let path = volume.join(MARK);
    if let Mark::Of(theirs, _) = read(&path)?
        && theirs != *account
    {
        return Err(VolumeError::Foreign(volume.into(), theirs));
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(VolumeError::File(path, error)),
        _ => write(directory, volume, account),
    }
}

/// An error of the runtime that says why a volume cannot be used: [`is_away`] finds it again.
pub fn away(error: VolumeError) -> RuntimeError {
    RuntimeError::Io(Arc::new(io::Error::other(error)))
}

/// True if an error of the runtime says that the volume is away: nothing was read or written, and nothing on it is
/// lost.
pub fn is_away(error: &RuntimeError) -> bool {
    let RuntimeError::Io(io) = error else { return false };
    io.get_ref().is_some_and(|error| error.is::<VolumeError>())
}

/// The content of a mark or a record.
enum Mark {
    /// Nothing is there yet.
    None,
    /// It names an account, and the number of the member's last start: 0 from a version that did not count them.
    Of(Account, u64),
    /// Something else is there.
    Damaged,
}

impl Mark {
    const fn start(&self) -> u64 {
        match self {
            Self::Of(_, start) => *start,
            Self::None | Self::Damaged => 0,
        }
    }
}

fn read(path: &Path) -> Result<Mark, VolumeError> {
    let failed = |error| VolumeError::File(path.into(), error);
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Mark::None),
        Err(error) => return Err(failed(error)),
        Ok(about) if !about.is_file() || about.len() > BYTES_MAX => return Ok(Mark::Damaged),
        Ok(_) => {}
    }
    let bytes = fs::read(path).map_err(failed)?;
    let text = std::str::from_utf8(&bytes).ok();
    Ok(text.and_then(parse).unwrap_or(Mark::Damaged))
}

fn parse(text: &str) -> Option<Mark> {
    let mut lines = text.trim_end().lines();
    let account = lines.next()?.strip_prefix("member ")?.parse().ok()?;
    let start = match lines.next() {
        None => 0,
        Some(line) => line.strip_prefix("start ")?.parse().ok()?,
    };
    lines.next().is_none().then_some(Mark::Of(account, start))
}

/// Writes the next number of a start: the mark first, so that a record without a mark, or above it, is always a missing
/// volume.
fn write(directory: &Path, volume: &Path, account: &Account) -> Result<(), VolumeError> {
    fs::create_dir_all(volume).map_err(|error| VolumeError::File(volume.into(), error))?;
    let paths = [volume.join(MARK), directory.join(RECORD)];
    let last = read(&paths[0])?.start().max(read(&paths[1])?.start());
    let text = format!("member {account}\nstart {}\n", last.saturating_add(1));
    for path in paths {
        replace(&path, &text).map_err(|error| VolumeError::File(path, error))?;
    }
    PROBES.into_iter().try_for_each(|name| write_probe(volume, name))
}

/// Writes a file that is read to find out whether the device answers, if it is not there or cannot be read: a new file
/// lies on other sectors.
fn write_probe(volume: &Path, name: &str) -> Result<(), VolumeError> {
    let path = volume.join(name);
    let file = |error| VolumeError::File(path.clone(), error);
    let root = File::open(volume).map_err(file)?;
    if in_use::read_probe(&root, name).is_ok() {
        return Ok(());
    }
    // Bytes that no file system makes smaller.
    let mut bytes = [0; PROBE_BYTES];
    blake3::Hasher::new().update(name.as_bytes()).finalize_xof().fill(&mut bytes);
    replace_bytes(&path, &bytes).map_err(file)
}

/// Bytes of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Bytes that this process may still write.
    pub free: u64,
    /// Bytes of the whole volume, written or not.
    pub all: u64,
}

/// The size of the volume that holds `directory`.
///
/// # Errors
/// The directory or its volume cannot be queried.
pub fn size(directory: &Path) -> io::Result<Size> {
    let volume = rustix::fs::statvfs(directory)?;
    let bytes = |blocks: u64| blocks.saturating_mul(volume.f_frsize);
    Ok(Size { free: bytes(volume.f_bavail), all: bytes(volume.f_blocks) })
}

/// Bytes that this process may still write to the volume that holds `directory`.
///
/// # Errors
/// The directory or its volume cannot be queried.
pub fn free(directory: &Path) -> io::Result<u64> {
    Ok(size(directory)?.free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_has_room_and_a_missing_directory_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(free(directory.path()).expect("it is there") > 0);
        assert!(free(&directory.path().join("not mounted")).is_err());
    }

    const OWN: Account = Account([7; 32]);
    const PARTITION: &str = "provider";

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("a directory");
        entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn an_empty_mount_point_is_no_new_volume_and_stays_empty() {
        let home = tempfile::tempdir().expect("a directory");
        let (directory, volume) = (home.path().join("member"), home.path().join("volume"));
        fs::create_dir(&directory).expect("made");
        check(&directory, &volume, &OWN, PARTITION).expect("a first start");
        claim(&directory, &volume, &OWN, PARTITION).expect("a first start");
        claim(&directory, &volume, &OWN, PARTITION).expect("a second one");
        let away = home.path().join("away");
        fs::rename(&volume, &away).expect("unmounted");
        for is_there in [false, true] {
            if is_there {
                fs::create_dir(&volume).expect("the mount point");
            }
            for refused in
                [check(&directory, &volume, &OWN, PARTITION), claim(&directory, &volume, &OWN, PARTITION)]
            {
                let error = refused.expect_err("it is not mounted").to_string();
                assert!(error.contains("not mounted") && error.contains("nothing was written"), "{error}");
            }
        }
        assert!(names(&volume).is_empty(), "nothing is written below a mount point");
        fs::remove_dir(&volume).expect("empty");
        fs::rename(&away, &volume).expect("mounted again");
        claim(&directory, &volume, &OWN, PARTITION).expect("it is back");
        // A crash between the mark and the record.
        fs::remove_file(directory.join(RECORD)).expect("there");
        claim(&directory, &volume, &OWN, PARTITION).expect("marked already");
        assert!(directory.join(RECORD).exists());
    }

    #[test]
    fn a_volume_that_goes_away_under_its_member_is_missed_until_it_is_back() {
        let (home, directory, volume) = member();
        claim(&directory, &volume, &OWN, PARTITION).expect("a first start");
        let in_use = InUse::new(&directory, &volume, &OWN, PARTITION).expect("it is there");
        in_use.check().expect("it is there");
        let elsewhere = home.path().join("elsewhere");
        fs::rename(&volume, &elsewhere).expect("unmounted");
        fs::create_dir(&volume).expect("the mount point");
        let error = away(in_use.check().expect_err("the mount point is empty"));
        assert!(is_away(&error) && error.to_string().contains("not mounted"), "{error}");
        fs::remove_dir(&volume).expect("empty");
        fs::rename(&elsewhere, &volume).expect("mounted again");
        in_use.check().expect("it is back");
        for other in [RuntimeError::Closed, RuntimeError::Io(Arc::new(io::Error::other("another")))] {
            assert!(!is_away(&other), "{other}");
        }
    }

    #[test]
    fn a_copy_of_the_data_below_the_mount_point_is_taken_neither_by_a_member_that_runs_nor_by_a_start() {
        let (home, directory, volume) = member();
        let [copy, exact, elsewhere] = ["copy", "exact", "elsewhere"].map(|name| home.path().join(name));
        let copy_to = |to: &Path| {
            fs::create_dir(to).expect("made");
            for name in names(&volume) {
                fs::copy(volume.join(&name), to.join(&name)).expect("copied");
            }
        };
        fs::create_dir(&volume).expect("made");
        fs::write(volume.join(MARK), format!("member {OWN}\n")).expect("of a version that counts no starts");
        claim(&directory, &volume, &OWN, PARTITION).expect("a start");
        copy_to(&copy);
        claim(&directory, &volume, &OWN, PARTITION).expect("the last start");
        let in_use = InUse::new(&directory, &volume, &OWN, PARTITION).expect("it is there");
        copy_to(&exact);
        fs::rename(&volume, &elsewhere).expect("unmounted");
        for below in [&copy, &exact] {
            fs::rename(below, &volume).expect("below the mount point");
            let error = in_use.check().expect_err("another directory");
            assert!(is_away(&away(error)), "however its mark looks");
            fs::rename(&volume, below).expect("there");
        }
        fs::rename(&copy, &volume).expect("below the mount point");
        let mark = fs::read(volume.join(MARK)).expect("there");
        for refused in
            [check(&directory, &volume, &OWN, PARTITION), claim(&directory, &volume, &OWN, PARTITION)]
        {
            let error = refused.expect_err("an older copy").to_string();
            assert!(error.contains("older copy") && error.contains("from its start 1"), "{error}");
        }
        assert_eq!(fs::read(volume.join(MARK)).expect("there"), mark, "nothing is written to it");
        fs::rename(&volume, &copy).expect("there");
        fs::rename(&elsewhere, &volume).expect("mounted again");
        in_use.check().expect("it is back");
        claim(&directory, &volume, &OWN, PARTITION).expect("it is back");
        fs::remove_dir_all(&volume).expect("the disk is gone");
        fs::rename(&copy, &volume).expect("a backup");
        take(&directory, &volume, &OWN).expect("on a word");
        claim(&directory, &volume, &OWN, PARTITION).expect("the volume from now on");
    }

    #[test]
    fn another_members_volume_is_never_taken_and_a_lost_one_on_a_word_only() {
        let home = tempfile::tempdir().expect("a directory");
        let (directory, volume) = (home.path().join("member"), home.path().join("volume"));
        fs::create_dir(&directory).expect("made");
        claim(&directory, &volume, &OWN, PARTITION).expect("a first start");
        let other = Account([8; 32]);
        for refused in [claim(home.path(), &volume, &other, PARTITION), take(home.path(), &volume, &other)] {
            let error = refused.expect_err("another's").to_string();
            assert!(error.contains(&OWN.to_string()), "{error}");
        }
        for damaged in [&b"member"[..], b"", b"\xff", &[b'9'; 300]] {
            fs::write(volume.join(MARK), damaged).expect("writable");
            assert!(matches!(claim(&directory, &volume, &OWN, PARTITION), Err(VolumeError::Damaged(_))));
        }
        take(&directory, &volume, &OWN).expect("on a word");
        claim(&directory, &volume, &OWN, PARTITION).expect("marked again");
        fs::remove_dir_all(&volume).expect("the disk is gone");
        assert!(matches!(claim(&directory, &volume, &OWN, PARTITION), Err(VolumeError::Missing(_))));
        take(&directory, &volume, &OWN).expect("on a word");
        claim(&directory, &volume, &OWN, PARTITION).expect("a new disk");
    }

    #[test]
    fn a_bad_sector_under_a_probe_leaves_the_device_one_that_answers_and_a_start_writes_another() {
        let (_home, directory, volume) = member();
        let start = || {
            claim(&directory, &volume, &OWN, PARTITION).expect("a start");
            InUse::new(&directory, &volume, &OWN, PARTITION).expect("its device answers")
        };
        let length = |name: &str| fs::metadata(volume.join(name)).expect("there").len();
        for bad in [&PROBES[..1], &PROBES[1..], &PROBES[..]] {
            let in_use = start();
            // No byte of them can be read.
            bad.iter().for_each(|name| fs::write(volume.join(name), b"").expect("writable"));
            assert_eq!(in_use.ask().is_ok(), bad.len() < PROBES.len(), "{bad:?}");
            start().ask().expect("the start wrote others");
            assert!(PROBES.iter().all(|name| length(name) == PROBE_BYTES as u64), "{bad:?}");
        }
    }

    /// A member's directory, and the place of its volume.
    fn member() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let home = tempfile::tempdir().expect("a directory");
        let (directory, volume) = (home.path().join("member"), home.path().join("volume"));
        fs::create_dir(&directory).expect("made");
        (home, directory, volume)
    }

    #[test]
    fn a_member_of_a_version_without_marks_does_not_take_an_empty_mount_point_for_its_volume() {
        let (home, directory, volume) = member();
        fs::write(directory.join(PARAMETERS), b"from its first start").expect("writable");
        let away = home.path().join("away");
        fs::create_dir_all(away.join("provider-books")).expect("made");
        fs::create_dir_all(volume.join("lost+found")).expect("made");
        for refused in
            [check(&directory, &volume, &OWN, PARTITION), claim(&directory, &volume, &OWN, PARTITION)]
        {
            assert!(matches!(refused, Err(VolumeError::Missing(_))), "{refused:?}");
        }
        assert_eq!(names(&volume), ["lost+found"], "nothing is written below a mount point");
        fs::remove_dir_all(&volume).expect("made above");
        let refused = claim(&directory, &volume, &OWN, PARTITION);
        assert!(matches!(refused, Err(VolumeError::Missing(_))) && !volume.exists(), "{refused:?}");
        fs::rename(&away, &volume).expect("mounted");
        check(&directory, &volume, &OWN, PARTITION).expect("its data is there");
        claim(&directory, &volume, &OWN, PARTITION).expect("its data is there");
        assert!(volume.join(MARK).exists() && directory.join(RECORD).exists());
    }

    #[test]
    fn only_a_file_that_names_an_account_is_a_record_and_a_volume_may_be_called_volume() {
        let (_home, directory, _) = member();
        let volume = directory.join("volume");
        fs::create_dir(&volume).expect("the operator makes it");
        check(&directory, &volume, &OWN, PARTITION).expect("a first start");
        fs::write(directory.join(RECORD), b"notes").expect("writable");
        check(&directory, &volume, &OWN, PARTITION).expect("no record");
        claim(&directory, &volume, &OWN, PARTITION).expect("a first start");
        fs::remove_file(volume.join(MARK)).expect("there");
        let refused = claim(&directory, &volume, &OWN, PARTITION);
        assert!(matches!(refused, Err(VolumeError::Missing(_))), "{refused:?}");
        fs::create_dir(volume.join(MARK)).expect("made");
        let refused = claim(&directory, &volume, &OWN, PARTITION);
        assert!(matches!(refused, Err(VolumeError::Damaged(_))), "{refused:?}");
    }

    /// Set in the process that may mount.
    const INSIDE: &str = "POSYNC_TEST_MAY_MOUNT";

    #[test]
    fn a_full_volume_with_the_members_data_is_used_and_marked_when_there_is_room() {
        use std::process::Command;
        let (_home, directory, volume) = member();
        fs::create_dir(&volume).expect("made");
        let mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none"];
        if std::env::var_os(INSIDE).is_some() {
            let mounted = Command::new(mount[0]).args(&mount[1..]).arg(&volume).status().expect("it starts");
            assert!(mounted.success());
            return on_a_full_volume(&directory, &volume);
        }
        let that_may_mount = || {
            let mut command = Command::new("unshare");
            command.args(["--user", "--map-root-user", "--mount"]);
            command
        };
        if !that_may_mount().args(mount).arg(&volume).status().is_ok_and(|status| status.success()) {
            eprintln!(
                "NOT TESTED: this machine lets no user mount a volume (`unshare --user --mount` fails)"
            );
            return;
        }
        let mut inside = that_may_mount();
        inside.arg(std::env::current_exe().expect("this test")).args(["--exact", "--nocapture"]);
        inside
            .arg("volume::tests::a_full_volume_with_the_members_data_is_used_and_marked_when_there_is_room");
        let output = inside.env(INSIDE, "1").output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }

    fn on_a_full_volume(directory: &Path, volume: &Path) {
        let ballast = volume.join("ballast");
        let full = fs::write(&ballast, vec![1; 1 << 20]).expect_err("there is less room");
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        let refused = claim(directory, volume, &OWN, PARTITION);
        assert!(matches!(refused, Err(VolumeError::File(..))), "a first start needs room: {refused:?}");
        fs::create_dir(volume.join("provider-books")).expect("takes no block");
        fs::write(directory.join(PARAMETERS), b"from its first start").expect("writable");
        for _ in 0..2 {
            claim(directory, volume, &OWN, PARTITION).expect("its data is there");
            assert!(!volume.join(MARK).exists() && !directory.join(RECORD).exists());
        }
        fs::remove_file(ballast).expect("there");
        claim(directory, volume, &OWN, PARTITION).expect("there is room");
        assert!(volume.join(MARK).exists() && directory.join(RECORD).exists());
        on_a_read_only_volume(directory, volume);
    }

    fn on_a_read_only_volume(directory: &Path, volume: &Path) {
        let remount = |how: &str| {
            let mut mount = std::process::Command::new("mount");
            let mounted = mount.args(["-o", &format!("remount,bind,{how}")]).arg(volume).status();
            assert!(mounted.expect("it starts").success(), "{how}");
        };
        let in_use = || InUse::new(directory, volume, &OWN, PARTITION);
        let before = in_use().expect("it takes writes");
        remount("ro");
        for refused in [before.check(), in_use().map(drop)] {
            let error = refused.expect_err("it is read-only");
            assert!(matches!(error, VolumeError::ReadOnly(_)) && is_away(&away(error)));
        }
        before.ask().expect("it can be read");
        remount("rw");
        before.check().expect("it takes writes again");
    }
}
