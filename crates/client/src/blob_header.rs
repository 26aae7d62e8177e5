//! Restores damaged headers of a member's files.
//!
//! The runtime begins each file with one page: its mark, two versions, a checksum, zeros. All files of a member begin
//! with the same page. So one flipped bit there need not cost the whole file, which the runtime would not open: what
//! lies behind the header has checksums of its own.

use commonware_cryptography::Crc32;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

/// Bytes of a header.
const HEADER: usize = 4096;
/// Bytes that the checksum covers: the mark and the versions.
const COVERED: usize = 8;

/// The header of every file that a member's storage holds: layout 1, version 0.
fn canonical() -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..COVERED].copy_from_slice(b"CWIK\x00\x01\x00\x00");
    let sum = Crc32::checksum(&header[..COVERED]).to_be_bytes();
    header[COVERED..COVERED + sum.len()].copy_from_slice(&sum);
    header
}

/// Restores the damaged headers of the files in the partitions of `storage`, which no process uses; returns the paths.
///
/// # Errors
/// A directory cannot be listed, or a file not be read or written.
pub fn restore(storage: &Path) -> io::Result<Vec<PathBuf>> {
    let canonical = canonical();
    let mut restored = vec![];
    for partition in entries(storage)? {
        if !partition.is_dir() {
            continue;
        }
        for path in entries(&partition)? {
            if restore_one(&path, &canonical)? {
                restored.push(path);
            }
        }
    }
    Ok(restored)
}

fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(vec![]),
        Err(error) => Err(error),
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
    }
}

/// Restores a file's header if it is damaged. A file without content is left to the runtime: a crash may have torn its
/// creation.
fn restore_one(path: &Path, canonical: &[u8; HEADER]) -> io::Result<bool> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let about = fs::symlink_metadata(path)?;
    if !is_number || !about.is_file() || about.len() <= HEADER as u64 {
        return Ok(false);
    }
    let mut header = [0; HEADER];
    File::open(path)?.read_exact_at(&mut header, 0)?;
    if header == *canonical || is_another(&header) {
        return Ok(false);
    }
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(canonical, 0)?;
    file.sync_all()?;
    Ok(true)
}

/// True for a whole header of another version: its checksum holds, and nothing follows it.
fn is_another(header: &[u8; HEADER]) -> bool {
    let (head, rest) = header.split_at(COVERED + 4);
    let sum = Crc32::checksum(&head[..COVERED]).to_be_bytes();
    head[COVERED..] == sum && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_runtime::{
        Blob as _, ReadOptions, Runner as _, Storage as _, WriteOptions,
        tokio::{Config, Runner},
    };

    fn run<T>(directory: &Path, work: impl AsyncFnOnce(commonware_runtime::tokio::Context) -> T) -> T {
        Runner::new(Config::default().with_storage_directory(directory))
            .start(async move |context| work(context).await)
    }

    #[test]
    fn a_bit_flipped_anywhere_in_a_header_costs_nothing() {
        let home = tempfile::tempdir().expect("a directory");
        run(home.path(), async |context| {
            let (blob, _) = context.open("part", &[7]).await.expect("opens");
            blob.write_at(0, b"content".to_vec(), WriteOptions::SYNC).await.expect("writable");
        });
        let path = home.path().join("part").join("07");
        let whole = fs::read(&path).expect("there");
        assert_eq!(whole[..HEADER], canonical(), "the runtime writes this one");
        assert!(restore(home.path()).expect("readable").is_empty(), "nothing is damaged");
        let damages = (0..12).map(|byte| vec![byte]).chain([vec![99], (0..HEADER).collect()]);
        for bytes in damages {
            let mut damaged = whole.clone();
            bytes.iter().for_each(|at| damaged[*at] ^= 8);
            fs::write(&path, &damaged).expect("writable");
            let refused = run(home.path(), async |context| context.open("part", &[7]).await.map(drop));
            refused.expect_err("the runtime opens none that is damaged");
            let restored = restore(home.path()).expect("writable");
            assert_eq!(restored, std::slice::from_ref(&path), "{} bytes", bytes.len());
            let content = run(home.path(), async |context| {
                let (blob, size) = context.open("part", &[7]).await.expect("opens again");
                assert_eq!(size, 7);
                blob.read_at(0, 7, ReadOptions::default())
                    .await
                    .expect("readable")
                    .coalesce()
                    .as_ref()
                    .to_vec()
            });
            assert_eq!(content, b"content");
        }
    }

    #[test]
    fn files_of_others_and_files_without_content_are_left_alone() {
        let home = tempfile::tempdir().expect("a directory");
        fs::create_dir(home.path().join("part")).expect("made");
        let mut another = canonical().to_vec();
        another[7] = 3;
        let sum = Crc32::checksum(&another[..COVERED]).to_be_bytes();
        another[COVERED..COVERED + 4].copy_from_slice(&sum);
        another.push(1);
        for (name, bytes) in [("0a", &another[..]), ("notes", &[9; 5_000]), ("0b", &[9; HEADER]), ("0c", b"")]
        {
            let path = home.path().join("part").join(name);
            fs::write(&path, bytes).expect("writable");
            assert!(restore(home.path()).expect("readable").is_empty(), "{name}");
            assert_eq!(fs::read(&path).expect("there"), bytes);
        }
        fs::write(home.path().join("member"), [9; 5_000]).expect("writable");
        assert!(restore(home.path()).expect("readable").is_empty(), "no partition");
        assert!(restore(&home.path().join("missing")).expect("nothing there").is_empty());
    }
}
