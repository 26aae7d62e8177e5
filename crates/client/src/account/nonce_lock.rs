//! Turns of the processes that share a key file: which of them signs next, and with which nonce.
//!
//! A file beside the key is locked while a process picks a nonce and sends its operation to a node. The
//! file holds the next nonce, so that the next process need not wait for a block. Correctness does not
//! depend on it: if it is missing or damaged, processes that pick the same nonce learn so from the blocks,
//! one block later.

use crate::connection::Connection;
use posync_protocol::Hash;
use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

/// Attempts to take a lock that another process holds. With the pause between them: 10 s.
const TRIES: u32 = 1_000;
const PAUSE: Duration = Duration::from_millis(10);
/// Bytes of the file: a chain in hex and two numbers.
const BYTES_MAX: u64 = 128;

/// Path of the turn file beside the key at `key`.
pub fn beside(key: &Path) -> PathBuf {
    let mut name = key.as_os_str().to_owned();
    name.push(".turn");
    name.into()
}

/// A turn, which ends when this value is dropped.
pub(super) struct Turn {
    file: File,
    chain: String,
}

impl Turn {
    /// Waits for a turn. `None` when the file cannot be used, or its holder does not release it in time.
    pub(super) async fn take(path: &Path, chain: &Hash, connection: &Connection) -> Option<Self> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(path).inspect_err(|error| unused(path, error)).ok()?;
        for _ in 0..TRIES {
            match file.try_lock() {
                // The lock is ours, so the file does not change now.
                Ok(()) if !is_ours(&mut file) => {
                    unused(path, &io::Error::other("it holds something else"));
                    return None;
                }
                Ok(()) => {
                    let chain = chain.iter().map(|byte| format!("{byte:02x}")).collect();
                    return Some(Self { file, chain });
                }
                Err(TryLockError::WouldBlock) => connection.sleep(PAUSE).await,
                Err(TryLockError::Error(error)) => {
                    unused(path, &error);
                    return None;
                }
            }
        }
        unused(path, &io::ErrorKind::WouldBlock.into());
        None
    }

    /// The next nonce after those handed out, if an operation under one may still be included at
    /// `height`.
    pub(super) fn next(&mut self, height: u64) -> Option<u64> {
        let mut text = String::new();
        self.file.rewind().ok()?;
        (&self.file).take(BYTES_MAX).read_to_string(&mut text).ok()?;
        let mut words = text.split_ascii_whitespace();
        if words.next() != Some(self.chain.as_str()) {
            return None;
        }
        let (next, expires): (u64, u64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        (height <= expires).then_some(next)
    }

    /// Records that an operation with the nonce before `next` may be included until `expires`.
    pub(super) fn give(&mut self, next: u64, expires: u64) {
        let text = format!("{} {next} {expires}\n", self.chain);
        let written = self.file.set_len(0).and_then(|()| self.file.rewind());
        if let Err(error) = written.and_then(|()| self.file.write_all(text.as_bytes())) {
            tracing::debug!(%error,
                "the next nonce could not be written; the next process waits for a block");
        }
    }
}

/// True for an empty file and for one that [`Turn::give`] wrote. No other file is overwritten.
fn is_ours(file: &mut File) -> bool {
    let mut text = String::new();
    let is_file = file.metadata().is_ok_and(|about| about.is_file() && about.len() <= BYTES_MAX);
    if !is_file || file.rewind().is_err() || (&*file).take(BYTES_MAX).read_to_string(&mut text).is_err() {
        return false;
    }
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let hex = |word: &str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    text.is_empty()
        || matches!(words[..], [chain, next, expires]
            if hex(chain) && next.parse::<u64>().is_ok() && expires.parse::<u64>().is_ok())
}

fn unused(path: &Path, error: &io::Error) {
    tracing::debug!(path = %path.display(), %error,
        "the lock file of the key cannot be used; nonces are read from blocks");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(path: &Path) -> File {
        OpenOptions::new().read(true).write(true).open(path).expect("it is there")
    }

    fn turn(path: &Path, chain: &str) -> Turn {
        Turn { file: opened(path), chain: chain.into() }
    }

    #[test]
    fn the_next_process_goes_on_behind_what_is_on_its_way() {
        let path = std::env::temp_dir().join(format!("posync-turn-{}", std::process::id()));
        std::fs::write(&path, "").expect("writable");
        let (chain, other) = ("a".repeat(64), "b".repeat(64));
        assert_eq!(turn(&path, &chain).next(5), None);
        turn(&path, &chain).give(1_000_000, 120);
        turn(&path, &chain).give(8, 90);
        assert!(is_ours(&mut opened(&path)));
        assert_eq!(turn(&path, &chain).next(90), Some(8));
        assert_eq!(turn(&path, &chain).next(91), None, "what had that nonce has expired");
        assert_eq!(turn(&path, &other).next(5), None, "of another network");
        std::fs::remove_file(&path).expect("it was made here");
    }

    #[test]
    fn a_file_of_somebody_else_is_left_as_it_is() {
        let path = std::env::temp_dir().join(format!("posync-not-a-turn-{}", std::process::id()));
        for text in ["my notes\n", "zz 1 2", "1 2 3", &"a".repeat(64), &"x".repeat(4_000)] {
            std::fs::write(&path, text).expect("writable");
            assert!(!is_ours(&mut opened(&path)), "{text}");
        }
        assert_eq!(turn(&path, &"a".repeat(64)).next(0), None);
        assert!(!is_ours(&mut opened(Path::new("/dev/null"))), "a device");
        std::fs::remove_file(&path).expect("it was made here");
    }
}
