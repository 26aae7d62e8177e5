//! The output file of a command: written whole or not at all; an existing file is never harmed.
//!
//! ```text
//!   no file, or a regular one  -> a new file beside it, renamed over it at the end; its mode stays
//!   a link                     -> the file that it leads to, by the same rules, as `cp` does; the link stays
//!   one of several hard links  -> this name alone gets the new file; the other names keep the bytes that they had
//!   a device, FIFO or socket   -> opened, and written as the bytes come
//!   a directory                -> refused before the first byte
//! ```
//!
//! The temporary file has a unique name (created exclusively) and is removed on every failure. Of two
//! commands with one target the last rename wins, and each content is whole.

use crate::failure::{Failure, Outcome};
use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, BufWriter, Write},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};
use tempfile::NamedTempFile;

/// Links that are followed before a loop is assumed, as the system does.
const LINKS_MAX: usize = 40;
/// Mode of a new file, before the process's umask.
const MODE: u32 = 0o666;

/// An open target, and the path that names it.
#[derive(Debug)]
pub(crate) struct Target {
    /// The path as the user gave it.
    named: PathBuf,
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    /// The target itself, written as the bytes come.
    Stream(File),
    /// A temporary file that is renamed to `path` at the end.
    Beside { file: BufWriter<NamedTempFile>, path: PathBuf },
}

impl Target {
    /// Checks and opens a target.
    ///
    /// # Errors
    /// [`Failure::file`] for a directory, or a target that may not be written.
    pub(crate) fn open(named: &Path) -> Outcome<Self> {
        let sink = sink(named).map_err(|error| Failure::file(named, "write", error))?;
        Ok(Self { named: named.to_path_buf(), sink })
    }

    /// Makes the written bytes durable under the target's name.
    ///
    /// # Errors
    /// [`Failure::file`]; the previous content is still there then.
    pub(crate) fn keep(self) -> Outcome {
        let Self { named, sink } = self;
        let kept = match sink {
            Sink::Stream(mut file) => file.flush(),
            Sink::Beside { file, path } => rename(file, &path),
        };
        kept.map_err(|error| Failure::file(&named, "write", error))
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.sink {
            Sink::Stream(file) => file.write(bytes),
            Sink::Beside { file, .. } => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.sink {
            Sink::Stream(file) => file.flush(),
            Sink::Beside { file, .. } => file.flush(),
        }
    }
}

/// Replaces a file's content: all of it, or none.
///
/// # Errors
/// [`Failure::file`] if the file cannot be written.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Outcome {
    let mut target = Target::open(path)?;
    target.write_all(bytes).map_err(|error| Failure::file(path, "write", error))?;
    target.keep()
}

/// Creates a file that only its owner may read, whole and durable or not at all.
///
/// # Errors
/// The system's error; [`io::ErrorKind::AlreadyExists`] if the file exists.
pub(crate) fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = parent(path);
    let mut file = beside(&directory, 0o600)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map_err(|failed| failed.error)?;
    File::open(directory)?.sync_all()
}

/// Creates a file with a unique name in `directory`.
fn beside(directory: &Path, mode: u32) -> io::Result<NamedTempFile> {
    let mut named = tempfile::Builder::new();
    named.prefix(".posync-").suffix(".part").permissions(Permissions::from_mode(mode)).tempfile_in(directory)
}

fn sink(named: &Path) -> io::Result<Sink> {
    // A pipe below /dev/fd is a link whose text names no file: what is no file is opened by the name that it was given.
    if fs::metadata(named).is_ok_and(|about| !about.is_file() && !about.is_dir()) {
        return OpenOptions::new().write(true).open(named).map(Sink::Stream);
    }
    let path = follow(named)?;
    let about = match fs::metadata(&path) {
        Ok(about) if about.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
        Ok(_) if cfg!(planted = "in-place") => {
            return OpenOptions::new().write(true).truncate(true).open(&path).map(Sink::Stream);
        }
        Ok(about) => {
            // A file that may not be written may not be replaced either.
            OpenOptions::new().write(true).open(&path)?;
            Some(about)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let beside = beside(&parent(&path), MODE)?;
    if let Some(about) = about {
        let new = beside.as_file().metadata()?;
        if (new.uid(), new.gid()) != (about.uid(), about.gid()) {
            fchown(beside.as_file(), Some(about.uid()), Some(about.gid()))?;
        }
        beside.as_file().set_permissions(about.permissions())?;
    }
    Ok(Sink::Beside { file: BufWriter::new(beside), path })
}

/// Follows a chain of links to its end, which need not exist.
fn follow(named: &Path) -> io::Result<PathBuf> {
    let mut path = named.to_path_buf();
    for _ in 0..LINKS_MAX {
        let is_link = fs::symlink_metadata(&path).is_ok_and(|about| about.is_symlink());
        if !is_link {
            return Ok(path);
        }
        let to = fs::read_link(&path)?;
        path = parent(&path).join(to);
    }
    Err(io::Error::other("too many links lead from it"))
}

fn parent(path: &Path) -> PathBuf {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

fn rename(file: BufWriter<NamedTempFile>, path: &Path) -> io::Result<()> {
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|failed| failed.error)?;
    File::open(parent(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Sorted names of a directory's entries.
    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("readable");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
        names.sort();
        names
    }

    #[test]
    fn a_failed_write_leaves_what_was_there_and_nothing_beside_it() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("f");
        fs::write(&path, "before").expect("writable");
        fs::write(home.path().join("f.part"), "the user's own").expect("writable");
        let mut target = Target::open(&path).expect("a file");
        target.write_all(b"half").expect("writable");
        assert_eq!(names(home.path()).len(), 3, "written beside");
        drop(target);
        assert_eq!(fs::read(&path).expect("readable"), b"before");
        assert_eq!(fs::read(home.path().join("f.part")).expect("readable"), b"the user's own");
        assert_eq!(names(home.path()), ["f", "f.part"]);
    }

    #[test]
    fn a_replaced_file_keeps_its_mode_and_a_new_one_obeys_the_mask() {
        let home = tempfile::tempdir().expect("a directory");
        let (old, new, plain) = (home.path().join("old"), home.path().join("new"), home.path().join("plain"));
        fs::write(&old, "x").expect("writable");
        fs::write(&plain, "x").expect("writable");
        fs::set_permissions(&old, Permissions::from_mode(0o751)).expect("own file");
        replace(&old, b"y").expect("replaced");
        replace(&new, b"y").expect("made");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&old), mode(&new)), (0o751, mode(&plain)));
        assert_eq!(
            (fs::read(&old).expect("there"), fs::read(&new).expect("there")),
            (b"y".into(), b"y".into())
        );
    }

    #[test]
    fn a_made_file_is_its_owners_alone_and_replaces_nothing() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("key");
        create(&path, b"secret").expect("made");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let again = create(&path, b"another").expect_err("it is there");
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(
            (fs::read(&path).expect("there"), names(home.path())),
            (b"secret".into(), vec!["key".into()])
        );
    }

    #[test]
    fn a_link_is_followed_and_stays() {
        let home = tempfile::tempdir().expect("a directory");
        let at = |name: &str| home.path().join(name);
        fs::create_dir(at("d")).expect("made");
        symlink("d/real", at("link")).expect("made");
        symlink("link", at("again")).expect("made");
        replace(&at("again"), b"through both").expect("written");
        assert_eq!(fs::read(at("d/real")).expect("made by it"), b"through both");
        assert!(fs::symlink_metadata(at("link")).expect("there").is_symlink());
        symlink("loop", at("loop")).expect("made");
        assert!(Target::open(&at("loop")).is_err());
    }

    /// `cp` would write through a hard link, and harm what another name shows. Here the name is replaced.
    #[test]
    fn other_names_of_a_file_keep_its_bytes_whether_the_write_ends_well_or_not() {
        let home = tempfile::tempdir().expect("a directory");
        let at = |name: &str| home.path().join(name);
        fs::write(at("kept"), "before").expect("writable");
        fs::set_permissions(at("kept"), Permissions::from_mode(0o640)).expect("own file");
        fs::hard_link(at("kept"), at("target")).expect("made");
        symlink("target", at("link")).expect("made");
        let mut target = Target::open(&at("link")).expect("a file");
        target.write_all(b"half").expect("writable");
        drop(target);
        let read = |name: &str| fs::read(at(name)).expect("there");
        assert_eq!((read("kept"), read("target")), (b"before".to_vec(), b"before".to_vec()));
        replace(&at("link"), b"after").expect("replaced");
        assert_eq!((read("kept"), read("target")), (b"before".to_vec(), b"after".to_vec()));
        assert!(fs::symlink_metadata(at("link")).expect("there").is_symlink(), "the link leads there still");
        let about = |name: &str| fs::metadata(at(name)).expect("there");
        assert_eq!((about("kept").nlink(), about("target").nlink()), (1, 1));
        assert_eq!(about("target").permissions().mode() & 0o777, 0o640);
        assert_eq!(names(home.path()), ["kept", "link", "target"]);
    }

    #[test]
    fn what_is_no_regular_file_is_written_to_and_a_directory_is_refused() {
        let home = tempfile::tempdir().expect("a directory");
        assert!(Target::open(home.path()).is_err());
        let link = home.path().join("null");
        symlink("/dev/null", &link).expect("made");
        let mut target = Target::open(&link).expect("a device");
        target.write_all(b"gone").expect("taken");
        target.keep().expect("nothing to rename");
        assert_eq!(names(home.path()), ["null"]);
        assert!(!fs::metadata("/dev/null").expect("still there").is_file(), "the device stays one");
    }

    #[test]
    fn of_two_writers_the_last_wins_and_is_whole() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("f");
        let (mut first, mut second) = (Target::open(&path).expect("one"), Target::open(&path).expect("two"));
        for _ in 0..100 {
            first.write_all(b"11").expect("writable");
            second.write_all(b"222").expect("writable");
        }
        second.keep().expect("kept");
        assert_eq!(fs::read(&path).expect("there"), b"2".repeat(300));
        first.keep().expect("kept");
        assert_eq!(fs::read(&path).expect("there"), b"1".repeat(200));
        assert_eq!(names(home.path()), ["f"]);
    }

    /// Needs root: others cannot give a file away.
    #[test]
    fn a_file_that_is_replaced_keeps_its_owner_and_its_mode() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("hers");
        fs::write(&path, "old").expect("writable");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("mine");
        if std::os::unix::fs::chown(&path, Some(12_345), Some(12_346)).is_err() {
            return;
        }
        let before = fs::metadata(&path).expect("there");
        replace(&path, b"new").expect("replaced");
        let after = fs::metadata(&path).expect("there");
        let of = |about: &fs::Metadata| (about.uid(), about.gid(), about.mode());
        assert_eq!((of(&after), fs::read(&path).expect("read")), (of(&before), b"new".to_vec()));
    }
}
