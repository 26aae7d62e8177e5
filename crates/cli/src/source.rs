//! The input of a put: a file whose length is known before its first byte, and which must not change.
//!
//! ```text
//!   a regular file            -> its length; read whole, and checked again before its last byte is sent
//!   a file of length 0 that holds bytes (/proc), a FIFO, standard input without --length
//!                             -> copied to an unnamed file first, then as above
//!   a directory, a device     -> refused
//! ```
//!
//! A source that ends early, goes on, or changes meanwhile is an error, and nothing is stored: the
//! gateway drops a put whose last byte does not arrive.

use crate::failure::{Exit, Failure, Outcome};
use std::{
    fs::{File, Metadata},
    io::{self, Read, Seek as _, SeekFrom},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

/// The bytes to store, and their length.
pub(crate) struct Source {
    named: PathBuf,
    bytes: Box<dyn Read>,
    length: u64,
    left: u64,
    /// The open file and its metadata before the first byte; `None` for a stream with a given length.
    judged: Option<(File, Metadata)>,
}

impl Source {
    /// Standard input of `length` bytes, or to its end without a length.
    pub(crate) fn stdin(length: Option<u64>) -> Outcome<Self> {
        let named = PathBuf::from("standard input");
        match length {
            Some(length) => {
                let bytes = Box::new(io::stdin().lock());
                Ok(Self { named, bytes, length, left: length, judged: None })
            }
            None => Self::spooled(named, &mut io::stdin().lock()),
        }
    }

    /// Opens the file at `path`.
    pub(crate) fn open(path: &Path) -> Outcome<Self> {
        let failed = |error| Failure::file(path, "read", error);
        let about = std::fs::metadata(path).map_err(failed)?;
        let kind = about.file_type();
        if !kind.is_file() && !kind.is_fifo() {
            return Err(Failure::file(path, "store", "it is neither a file nor a pipe"));
        }
        let mut file = File::open(path).map_err(failed)?;
        // The length of such a file is 0 or unknown: it is read to its end.
        if kind.is_fifo() || about.len() == 0 {
            return Self::spooled(path.to_path_buf(), &mut file);
        }
        Self::regular(path.to_path_buf(), file).map_err(failed)
    }

    /// The same if it has `length` bytes, or if no length is given.
    ///
    /// # Errors
    /// [`Failure`] that names both lengths.
    pub(crate) fn of_length(self, length: Option<u64>) -> Outcome<Self> {
        match length {
            Some(length) if length != self.length => Err(Failure::new(
                Exit::Local,
                format!(
                    "{} does not have the length that --length names; nothing was stored",
                    self.named.display()
                ),
                format!("it has {} bytes, and not {length}", self.length),
                "put it without --length, or find out why its length differs",
            )),
            _ => Ok(self),
        }
    }

    /// Bytes that are part of the program.
    pub(crate) fn bytes(label: &str, bytes: &'static [u8]) -> Self {
        let length = bytes.len() as u64;
        Self { named: label.into(), bytes: Box::new(bytes), length, left: length, judged: None }
    }

    fn regular(named: PathBuf, file: File) -> io::Result<Self> {
        let about = file.metadata()?;
        let (length, bytes) = (about.len(), Box::new(file.try_clone()?));
        Ok(Self { named, bytes, length, left: length, judged: Some((file, about)) })
    }

    /// Copies a source of unknown length to an unnamed temporary file.
    fn spooled(named: PathBuf, from: &mut impl Read) -> Outcome<Self> {
        let mut copy = || {
            let mut file = tempfile::tempfile()?;
            io::copy(from, &mut file)?;
            file.seek(SeekFrom::Start(0))?;
            Self::regular(named.clone(), file)
        };
        copy().map_err(|error| {
            let next = "free space in the temporary directory, or say how many bytes come with --length";
            let what = format!("cannot copy {} aside to learn its length", named.display());
            Failure::new(Exit::Local, what, error, next)
        })
    }

    /// Number of bytes that the source will yield in all.
    pub(crate) const fn length(&self) -> u64 {
        self.length
    }

    /// The next bytes, at most `most`; `None` at the end. The last ones are returned only once the source
    /// has ended where it said it would, and has not changed.
    ///
    /// # Errors
    /// [`Failure`] if it ends early, goes on, or changed.
    pub(crate) fn next(&mut self, most: usize) -> Outcome<Option<Vec<u8>>> {
        let piece = usize::try_from(self.left).unwrap_or(usize::MAX).min(most);
        let mut data = vec![0; piece];
        if let Err(error) = self.bytes.read_exact(&mut data) {
            let early = error.kind() == io::ErrorKind::UnexpectedEof;
            let why = if early {
                format!(
                    "it ended at least {} bytes before the {} that it had",
                    self.left - piece as u64 + 1,
                    self.length
                )
            } else {
                error.to_string()
            };
            return Err(self.broken(why));
        }
        self.left -= piece as u64;
        if self.left == 0 && (piece > 0 || self.length == 0) {
            self.check_end()?;
        }
        Ok((piece > 0).then_some(data))
    }

    /// Checks that the source ends here and has not changed.
    fn check_end(&mut self) -> Outcome {
        match self.bytes.read(&mut [0]) {
            Ok(0) => {}
            Ok(_) => {
                return Err(self.broken(format!("it holds more than the {} bytes that it had", self.length)));
            }
            Err(error) => return Err(self.broken(error)),
        }
        let Some((file, before)) = &self.judged else { return Ok(()) };
        // The time of the last change also moves when a program puts the time of writing back.
        let state = |about: &Metadata| {
            (about.len(), about.mtime(), about.mtime_nsec(), about.ctime(), about.ctime_nsec())
        };
        match file.metadata() {
            Ok(now) if cfg!(planted = "changed-source") || state(&now) == state(before) => Ok(()),
            Ok(_) => Err(self.broken("it was written to meanwhile, or its mode, name or links were changed")),
            Err(error) => Err(self.broken(error)),
        }
    }

    fn broken(&self, why: impl std::fmt::Display) -> Failure {
        Failure::new(
            Exit::Local,
            format!("{} is not what it was when the put began; nothing was stored", self.named.display()),
            why,
            "put it again when no program writes to it, or put a copy of it",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Write as _};

    fn all(source: &mut Source) -> Outcome<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(piece) = source.next(7)? {
            bytes.extend(piece);
        }
        Ok(bytes)
    }

    fn written(length: usize) -> (tempfile::TempDir, PathBuf, Vec<u8>) {
        let home = tempfile::tempdir().expect("a directory");
        let bytes: Vec<u8> = (0..length).map(|at| at as u8).collect();
        let path = home.path().join("f");
        fs::write(&path, &bytes).expect("writable");
        (home, path, bytes)
    }

    #[test]
    fn a_file_comes_whole_whatever_its_length() {
        for length in [0, 1, 6, 7, 8, 14, 100] {
            let (_home, path, bytes) = written(length);
            let mut source = Source::open(&path).expect("a file");
            assert_eq!(source.length(), length as u64);
            assert_eq!(all(&mut source).expect("it did not change"), bytes, "{length}");
        }
    }

    #[test]
    fn a_file_that_says_nothing_of_its_length_comes_whole() {
        let mut source = Source::open(Path::new("/proc/self/status")).expect("a file");
        let bytes = all(&mut source).expect("a copy");
        assert!(source.length() > 0 && bytes.len() as u64 == source.length());
        assert!(bytes.starts_with(b"Name:"));
    }

    #[test]
    fn what_is_no_file_is_refused() {
        for path in ["/dev/zero", "/", "/nonexistent"] {
            assert!(Source::open(Path::new(path)).is_err(), "{path}");
        }
    }

    /// The last bytes are held back, so the gateway never receives all of a file that changed.
    #[test]
    fn a_file_that_changes_on_the_way_never_gives_its_last_bytes() {
        type Change = fn(&Path);
        let changes: [(&str, Change); 3] = [
            ("grew", |path| {
                fs::OpenOptions::new()
                    .append(true)
                    .open(path)
                    .expect("there")
                    .write_all(b"x")
                    .expect("writable");
            }),
            ("shrank", |path| {
                fs::OpenOptions::new().write(true).open(path).expect("there").set_len(3).expect("writable");
            }),
            ("other bytes", |path| {
                let file = fs::OpenOptions::new().write(true).open(path).expect("there");
                let later = file.metadata().expect("there").modified().expect("a time")
                    + std::time::Duration::from_secs(1);
                file.set_modified(later).expect("own file");
            }),
        ];
        for (name, change) in changes {
            let (_home, path, bytes) = written(20);
            let mut source = Source::open(&path).expect("a file");
            let first = source.next(7).expect("as it was").expect("bytes");
            change(&path);
            let rest = all(&mut source);
            assert!(rest.is_err(), "{name}");
            assert!(first.len() < bytes.len(), "{name}");
        }
    }

    #[test]
    fn a_stream_that_brings_more_or_less_than_it_said_is_an_error() {
        for (brings, said, ends_well) in
            [(20, 20, true), (21, 20, false), (19, 20, false), (0, 0, true), (1, 0, false)]
        {
            let bytes = Box::new(io::Cursor::new(vec![5; brings]));
            let named = PathBuf::from("standard input");
            let mut source = Source { named, bytes, length: said, left: said, judged: None };
            assert_eq!(all(&mut source).is_ok(), ends_well, "{brings} of {said}");
        }
    }
}
