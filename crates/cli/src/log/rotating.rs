//! A log of bounded size: full files are renamed, and the oldest is deleted.
//!
//! The crates that rotate files bring a calendar and a compressor along, and miss what a member
//! writes without them. Here standard error follows to the new file, so that a panic or a message of the
//! allocator is never written to a deleted file.

use commonware_utils::sync::Mutex;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};
use tracing_subscriber::fmt::MakeWriter;

/// Most bytes of one file.
pub(super) const FILE_BYTES_MAX: u64 = 16 << 20;
/// Number of full files that are kept: `log.1`, the newest, to `log.3`.
pub(super) const FULL_FILES: u32 = 3;

/// The rotating log of a member.
#[derive(Clone)]
pub(super) struct Rotating(Arc<Mutex<Open>>);

struct Open {
    path: PathBuf,
    file: File,
    /// Bytes in the current file.
    length: u64,
    most: u64,
    /// Called with every new file.
    follow: fn(&File) -> io::Result<()>,
}

impl Rotating {
    /// Opens the log in a role's directory. If standard error is that very file, it follows to each new one.
    pub(super) fn of(directory: &Path) -> io::Result<Self> {
        let path = directory.join("log");
        let stays: fn(&File) -> io::Result<()> = |_| Ok(());
        let log = Self::open(path.clone(), FILE_BYTES_MAX, stays)?;
        if is_stderr(&path) {
            log.0.lock().follow = follow;
        }
        Ok(log)
    }

    fn open(path: PathBuf, most: u64, follow: fn(&File) -> io::Result<()>) -> io::Result<Self> {
        let file = append_to(&path)?;
        let length = file.metadata()?.len();
        Ok(Self(Arc::new(Mutex::new(Open { path, file, length, most, follow }))))
    }
}

/// True if standard error is the file at `path`.
pub(super) fn is_stderr(path: &Path) -> bool {
    let ids = || Some((rustix::fs::fstat(io::stderr()).ok()?, fs::metadata(path).ok()?));
    ids().is_some_and(|(stderr, log)| (stderr.st_dev, stderr.st_ino) == (log.dev(), log.ino()))
}

/// Redirects standard output and standard error to `file`.
fn follow(file: &File) -> io::Result<()> {
    rustix::stdio::dup2_stdout(file)?;
    rustix::stdio::dup2_stderr(file)?;
    Ok(())
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

impl Open {
    fn rotate(&mut self) -> io::Result<()> {
        let full = |number: u32| {
            let mut name = self.path.as_os_str().to_owned();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..FULL_FILES).rev() {
            match fs::rename(full(number), full(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        // The file is missing if an earlier rotation ended halfway.
        match fs::rename(&self.path, full(1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.file = append_to(&self.path)?;
        (self.follow)(&self.file)
    }
}

impl Write for Rotating {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut open = self.0.lock();
        if open.length > 0 && open.length.saturating_add(line.len() as u64) > open.most {
            // If the directory takes no new file, the next attempt is after as many bytes again; until then
            // the lines go to the old file.
            let rotated = open.rotate();
            open.length = 0;
            if let Err(error) = rotated {
                let _ = writeln!(open.file, "this log could not be rotated: {error}");
            }
        }
        // A full volume loses lines, not members: an error here would be reported on standard error, which is
        // this log.
        let written = open.file.write(line).unwrap_or(line.len());
        open.length = open.length.saturating_add(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().file.flush()
    }
}

impl<'a> MakeWriter<'a> for Rotating {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(directory: &Path, most: u64) -> Rotating {
        Rotating::open(directory.join("log"), most, |_| Ok(())).expect("a directory")
    }

    fn size(directory: &Path) -> u64 {
        let entries = fs::read_dir(directory).expect("readable");
        entries.map(|entry| entry.expect("an entry").metadata().expect("there").len()).sum()
    }

    #[test]
    fn a_log_of_any_length_stays_within_its_bound_and_keeps_the_newest_lines() {
        let home = tempfile::tempdir().expect("a directory");
        let mut log = open(home.path(), 100);
        for number in 0..1_000 {
            writeln!(log, "line {number:04}").expect("written");
            assert!(size(home.path()) <= 400, "after line {number}");
        }
        let mut all = String::new();
        for name in ["log.3", "log.2", "log.1", "log"] {
            all += &fs::read_to_string(home.path().join(name)).expect("kept");
        }
        let lines: Vec<&str> = all.lines().collect();
        assert!(lines.len() >= 30, "three full files at least");
        let newest: Vec<String> =
            (1_000 - lines.len()..1_000).map(|number| format!("line {number:04}")).collect();
        assert_eq!(lines, newest, "in order, without a gap");
    }

    #[test]
    fn a_log_that_was_full_before_the_start_is_rotated_too() {
        let home = tempfile::tempdir().expect("a directory");
        fs::write(home.path().join("log"), vec![b'x'; 5_000]).expect("writable");
        writeln!(open(home.path(), 100), "new").expect("written");
        assert_eq!(fs::read_to_string(home.path().join("log")).expect("there"), "new\n");
        assert_eq!(fs::metadata(home.path().join("log.1")).expect("kept").len(), 5_000);
    }

    #[test]
    fn a_line_is_not_lost_when_the_directory_takes_no_new_file() {
        let home = tempfile::tempdir().expect("a directory");
        let mut log = open(home.path(), 10);
        writeln!(log, "before").expect("written");
        fs::create_dir_all(home.path().join("log.3/in the way")).expect("made");
        fs::create_dir(home.path().join("log.2")).expect("made");
        writeln!(log, "after").expect("written");
        let text = fs::read_to_string(home.path().join("log")).expect("there");
        assert!(text.starts_with("before\n") && text.ends_with("after\n"), "{text}");
        assert!(text.contains("could not be rotated"), "{text}");
    }

    #[test]
    fn a_full_volume_loses_lines_and_is_no_error_for_the_member() {
        let home = tempfile::tempdir().expect("a directory");
        std::os::unix::fs::symlink("/dev/full", home.path().join("log")).expect("made");
        let mut log = open(home.path(), 1_000);
        for _ in 0..3 {
            writeln!(log, "there is no room for this line").expect("no error ends the member");
        }
        log.flush().expect("nor here");
        assert!(log.0.lock().file.write(b"x").is_err(), "the file takes nothing");
    }
}
