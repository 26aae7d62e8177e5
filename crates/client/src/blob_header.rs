//! Restores damaged headers of a member's files.
//!
//! The runtime begins each file with one page: its mark, two versions, a checksum, zeros. All files of a member begin
//! with the same page. So one flipped bit there need not cost the whole file, which the runtime would not open: what
//! lies behind the header has checksums of its own.
//!
//! ```text
//!   the member's own partitions alone --> a file of the runtime, by its name
//!     --> its page is nearly the header, or was erased --> the page is kept on the volume, synced --> the header
//!     --> any other page                               --> not touched
//! ```
//!
//! Nothing here fails a start: what cannot be listed, read or written is logged and passed over.

use crate::format_mark::replace_bytes;
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
/// Most bytes in which a damaged header differs from a whole one. A page that differs in more is another's content.
const DAMAGED_BYTES: usize = 16;
/// Ending of a kept page's name.
const KEPT: &str = "header-damaged";

/// The header of every file that a member's storage holds: layout 1, version 0.
fn canonical() -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..COVERED].copy_from_slice(b"CWIK\x00\x01\x00\x00");
    let sum = Crc32::checksum(&header[..COVERED]).to_be_bytes();
    header[COVERED..COVERED + sum.len()].copy_from_slice(&sum);
    header
}

/// The partitions of a member on its volume: the directories whose names begin with `partition-`; none without the
/// volume.
///
/// # Errors
/// The volume cannot be listed.
pub fn partitions(volume: &Path, partition: &str) -> io::Result<Vec<PathBuf>> {
    let is_own = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        let rest = name.and_then(|name| name.strip_prefix(partition));
        rest.is_some_and(|rest| rest.starts_with('-')) && path.is_dir()
    };
    Ok(entries(volume)?.into_iter().filter(is_own).collect())
}

/// Restores the damaged headers of the files in the partitions of a member, which no process uses; returns the paths.
/// The names of the partitions begin with `partition-`. The page that was there is kept at the volume's root, as
/// `PARTITION.NAME.header-damaged`: in a partition the runtime takes no other files.
pub fn restore(volume: &Path, partition: &str) -> Vec<PathBuf> {
    let canonical = canonical();
    let mut restored = vec![];
    for partition in listed(volume, partitions(volume, partition)) {
        for path in listed(&partition, entries(&partition)) {
            match restore_one(volume, &path, &canonical) {
                Ok(true) => restored.push(path),
                Ok(false) => {}
                Err(error) => {
                    let file = path.display().to_string();
                    tracing::error!(
                        %error,
                        file,
                        "the header of a file is not checked, or is damaged and not restored; the start goes on"
                    );
                }
            }
        }
    }
    restored
}

/// The paths, or none if they could not be listed, which is logged.
fn listed(directory: &Path, paths: io::Result<Vec<PathBuf>>) -> Vec<PathBuf> {
    paths.unwrap_or_else(|error| {
        let directory = directory.display().to_string();
        tracing::error!(%error, directory, "the headers of the files in a directory are not checked; the start goes on");
        vec![]
    })
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
fn restore_one(volume: &Path, path: &Path, canonical: &[u8; HEADER]) -> io::Result<bool> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let about = fs::symlink_metadata(path)?;
    if !is_number || !about.is_file() || about.len() <= HEADER as u64 {
        return Ok(false);
    }
    let mut header = [0; HEADER];
    File::open(path)?.read_exact_at(&mut header, 0)?;
    if !is_damaged(&header, canonical) {
        return Ok(false);
    }
    let file = OpenOptions::new().write(true).open(path)?;
    keep(volume, path, &header)?;
    file.write_all_at(canonical, 0)?;
    file.sync_all()?;
    Ok(true)
}

/// True for a page that was the header: few bytes of it changed (zeros everywhere are few, too), or it was erased to ones.
fn is_damaged(header: &[u8; HEADER], canonical: &[u8; HEADER]) -> bool {
    let changed = header.iter().zip(canonical).filter(|(one, other)| one != other).count();
    let is_erased = header.iter().all(|byte| *byte == u8::MAX);
    changed > 0 && (changed <= DAMAGED_BYTES || is_erased) && !is_another(header)
}

/// Keeps the page of a file durably. The first page that is kept of a file stays: after it, the file was the runtime's.
fn keep(volume: &Path, path: &Path, header: &[u8; HEADER]) -> io::Result<()> {
    let name = |path: Option<&Path>| {
        let name = path.and_then(Path::file_name).unwrap_or_default();
        name.to_string_lossy().into_owned()
    };
    let kept = volume.join(format!("{}.{}.{KEPT}", name(path.parent()), name(Some(path))));
    if kept.try_exists()? { Ok(()) } else { replace_bytes(&kept, header) }
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

    const OWN: &str = "own";

    fn run<T>(directory: &Path, work: impl AsyncFnOnce(commonware_runtime::tokio::Context) -> T) -> T {
        Runner::new(Config::default().with_storage_directory(directory))
            .start(async move |context| work(context).await)
    }

    #[test]
    fn a_bit_flipped_anywhere_in_a_header_costs_nothing() {
        let home = tempfile::tempdir().expect("a directory");
        run(home.path(), async |context| {
            let (blob, _) = context.open("own-part", &[7]).await.expect("opens");
            blob.write_at(0, b"content".to_vec(), WriteOptions::SYNC).await.expect("writable");
        });
        let path = home.path().join("own-part").join("07");
        let whole = fs::read(&path).expect("there");
        assert_eq!(whole[..HEADER], canonical(), "the runtime writes this one");
        assert!(restore(home.path(), OWN).is_empty(), "nothing is damaged");
        let flipped = (0..12).map(|byte| vec![byte]).chain([vec![99], (0..DAMAGED_BYTES).collect()]);
        let flipped = flipped.map(|bytes| {
            let mut damaged = whole.clone();
            bytes.iter().for_each(|at| damaged[*at] ^= 8);
            damaged
        });
        let erased = [0, u8::MAX].map(|byte| [&[byte; HEADER], &whole[HEADER..]].concat());
        for damaged in flipped.chain(erased) {
            fs::write(&path, &damaged).expect("writable");
            let refused = run(home.path(), async |context| context.open("own-part", &[7]).await.map(drop));
            refused.expect_err("the runtime opens none that is damaged");
            let kept = home.path().join("own-part.07.header-damaged");
            let _ = fs::remove_file(&kept);
            assert_eq!(restore(home.path(), OWN), std::slice::from_ref(&path));
            assert_eq!(fs::read(kept).expect("the old page is kept"), damaged[..HEADER]);
            let content = run(home.path(), async |context| {
                let (blob, size) = context.open("own-part", &[7]).await.expect("opens again");
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
        fs::create_dir(home.path().join("own-part")).expect("made");
        let mut another = canonical().to_vec();
        another[7] = 3;
        let sum = Crc32::checksum(&another[..COVERED]).to_be_bytes();
        another[COVERED..COVERED + 4].copy_from_slice(&sum);
        another.push(1);
        // A program of somebody else names its files likewise; a byte more than a damaged header changes.
        let mut foreign = canonical().to_vec();
        foreign[..=DAMAGED_BYTES].fill(0xab);
        foreign.push(1);
        for (name, bytes) in [
            ("0a", &another[..]),
            ("0d", &foreign),
            ("notes", &[9; 5_000]),
            ("0b", &[9; HEADER]),
            ("0c", b""),
        ] {
            let path = home.path().join("own-part").join(name);
            fs::write(&path, bytes).expect("writable");
            assert!(restore(home.path(), OWN).is_empty(), "{name}");
            assert_eq!(fs::read(&path).expect("there"), bytes);
        }
        let zeros = [0; 5_000];
        fs::create_dir(home.path().join("index")).expect("made");
        let others = ["own-member", "index/0a"].map(|name| home.path().join(name));
        others.iter().for_each(|path| fs::write(path, zeros).expect("writable"));
        assert!(restore(home.path(), OWN).is_empty(), "no partition of this member");
        others.iter().for_each(|path| assert_eq!(fs::read(path).expect("there"), zeros));
        assert!(restore(&home.path().join("missing"), OWN).is_empty());
    }

    #[test]
    fn what_cannot_be_listed_read_or_opened_costs_no_start_and_no_other_header() {
        use std::{
            os::unix::fs::{PermissionsExt as _, symlink},
            process::Command,
        };
        let home = tempfile::tempdir().expect("a directory");
        let at = |name: &str| home.path().join(name);
        let damaged = [&[0; HEADER][..], b"content"].concat();
        for partition in ["own-a", "own-closed", "own-z", "lost+found"] {
            fs::create_dir(at(partition)).expect("made");
        }
        for closed in ["own-closed", "lost+found"] {
            fs::set_permissions(at(closed), fs::Permissions::from_mode(0o000)).expect("its owner's");
        }
        let whole = ["own-a/01", "own-z/02"].map(at);
        whole.iter().for_each(|path| fs::write(path, &damaged).expect("writable"));
        // Neither may be waited for, nor do they open.
        symlink(at("own-loop"), at("own-loop")).expect("made");
        symlink(at("own-a/03"), at("own-a/03")).expect("made");
        symlink(at("nowhere"), at("own-z/04")).expect("made");
        let made = Command::new("mkfifo").arg(at("own-a/05")).status().expect("it starts");
        assert!(made.success());
        // The place of its page is taken by what is no file, so its header stays as it is.
        fs::write(at("own-a/06"), &damaged).expect("writable");
        fs::create_dir(at(".own-a.06.header-damaged.new")).expect("made");
        let mut restored = restore(home.path(), OWN);
        restored.sort();
        assert_eq!(restored, whole);
        assert_eq!(
            fs::read(at("own-a/06")).expect("there"),
            damaged,
            "nothing is written unless the page is kept"
        );
        for closed in ["own-closed", "lost+found"] {
            fs::set_permissions(at(closed), fs::Permissions::from_mode(0o700)).expect("its owner's");
        }
        assert!(restore(&whole[0], OWN).is_empty(), "a volume that is no directory");
    }
}
