//! Salvages a catalogue with damaged pages: its readable rows become a new catalogue in its place.
//!
//! ```text
//!   a page is damaged ──► every row on whole pages, to the last commit
//!     ──► the files as they are in `-damaged`, synced ──► the rows in `-salvage`, synced
//!     ──► the files are removed ──► a new catalogue of these rows, synced ──► `-salvage` is removed
//! ```
//!
//! A damaged page may have held newer rows than the readable ones, so these may be as old as a backup. They are
//! treated like one: agreements take no new shards, and their data moves to new agreements. Jobs are left out,
//! so that no segment is removed by a job that may have been completed.
//!
//! Invariants
//! 1. A file is removed only after its readable rows are durable elsewhere. After a crash at any point the same
//!    work is done again.
//! 2. A row counts only if it decodes and begins at the end of the row before it, or where the table's index of the
//!    file says (`salvage/changes.rs`): users choose bytes of rows, and these may read as rows.
//! 3. The secret of all files is never replaced by another one.

mod changes;

use super::{
    row::{AGREEMENTS, DAMAGED_PAGES, FILES, JOBS, Key, Meta, OwnAgreementRow, RESTORING, drained, place},
    store::{Error, FILE_CHANGES, Store, disk, durable_partition, partitions},
};
use crate::limits::COMMIT_ROWS_MAX;
use bytes::Bytes;
use changes::{Change, between, starts};
use commonware_codec::{DecodeExt as _, Encode as _};
use commonware_cryptography::Crc32;
use commonware_runtime::{
    Blob as _, Clock, Error as RuntimeError, IoBufs, Metrics, ReadOptions, Spawner, Storage, WriteOptions,
};
use commonware_storage::qmdb::any::unordered::{Update, variable::Operation};
use posync_client::watermark::Watermark;
use std::{collections::BTreeMap, ops::Range};

/// Bytes of a page without and with its checksums.
const PAGE: usize = 4096;
const SUMS: usize = 12;
/// Bytes that are read and written at once.
const PART: usize = 1 << 20;
/// Name of the file with the rows.
const ROWS: &[u8] = b"rows";

type Rows = BTreeMap<Key, Vec<u8>>;

/// The rows that could be read, and the bytes that could not.
#[derive(Default)]
struct SalvagedPage {
    rows: Rows,
    lost: usize,
}

fn salvage(partition: &str) -> String {
    format!("{partition}-catalogue-salvage")
}

async fn names<E: Storage>(context: &E, partition: &str) -> Result<Vec<Vec<u8>>, Error> {
    match context.scan(partition).await {
        Err(RuntimeError::PartitionMissing(_)) => Ok(Vec::new()),
        Err(error) => Err(disk(error)),
        Ok(mut names) => {
            names.sort();
            Ok(names)
        }
    }
}

async fn remove<E: Storage>(context: &E, partition: &str) -> Result<(), Error> {
    if names(context, partition).await?.is_empty() {
        return Ok(());
    }
    context.remove(partition, None).await.map_err(disk)
}

/// Removes the catalogue in `partition`: its rows, their index, and the notes about them. Copies that a salvage made
/// stay. The notes go first: without its rows they would say that everything was lost.
///
/// # Errors
/// A disk failure; the rest may be removed later.
pub async fn erase<E: Storage>(context: &E, partition: &str) -> Result<(), Error> {
    remove(context, &durable_partition(partition)).await?;
    for partition in partitions(partition) {
        remove(context, &partition).await?;
    }
    Ok(())
}

/// Returns true if the catalogue in `partition` has no file of rows.
///
/// # Errors
/// A disk failure.
pub(crate) async fn is_gone<E: Storage>(context: &E, partition: &str) -> Result<bool, Error> {
    let [data, ..] = partitions(partition);
    Ok(names(context, &data).await?.is_empty())
}

/// Bytes of a file. A failed read is an error and no damage, because it may succeed later.
async fn read<E: Storage>(context: &E, partition: &str, name: &[u8]) -> Result<Vec<u8>, Error> {
    let (blob, size) = context.open(partition, name).await.map_err(disk)?;
    let size = usize::try_from(size).map_err(disk)?;
    let mut bytes = Vec::new();
    while bytes.len() < size {
        let part = PART.min(size - bytes.len());
        let read = blob.read_at(bytes.len() as u64, part, ReadOptions::default()).await.map_err(disk)?;
        bytes.extend_from_slice(read.coalesce().as_ref());
    }
    Ok(bytes)
}

/// True if a file does not open because its own header is damaged.
async fn is_headless<E: Storage>(context: &E, partition: &str, name: &[u8]) -> bool {
    matches!(context.open(partition, name).await, Err(RuntimeError::BlobCorrupt(..)))
}

async fn write<E: Storage>(context: &E, partition: &str, name: &[u8], bytes: &[u8]) -> Result<(), Error> {
    let (blob, _) = context.open(partition, name).await.map_err(disk)?;
    blob.resize(0).await.map_err(disk)?;
    for (place, part) in bytes.chunks(PART).enumerate() {
        let part = IoBufs::from(part.to_vec());
        blob.write_at((place * PART) as u64, part, WriteOptions::default()).await.map_err(disk)?;
    }
    blob.sync().await.map_err(disk)
}

/// The bytes at the start of a page that one of its checksums covers, and true if both hold. The older of the
/// two covers what was there before the last write: nothing in a page that was written once.
fn covered(page: &[u8]) -> (usize, bool) {
    let Some((body, sums)) = page.split_last_chunk::<SUMS>() else { return (0, false) };
    let holds = |at: usize| {
        let length = usize::from(u16::from_be_bytes([sums[at], sums[at + 1]]));
        let sum = [sums[at + 2], sums[at + 3], sums[at + 4], sums[at + 5]];
        let part = body.get(..length)?;
        (Crc32::checksum(part).to_be_bytes() == sum).then_some(length)
    };
    let (one, two) = (holds(0), holds(6));
    let length = one.max(two).unwrap_or(0);
    (length, length > 0 && one.is_some() && two.is_some())
}

/// The bytes of a file without its checksums, and the ranges of them that are damaged. The last page may hold
/// less; if one of its checksums does not hold, its end counts as damaged.
fn content(bytes: &[u8]) -> (Vec<u8>, Vec<Range<usize>>) {
    let (mut content, mut holes) = (Vec::with_capacity(bytes.len()), Vec::<Range<usize>>::new());
    let mut pages = bytes.chunks(PAGE + SUMS).peekable();
    while let Some(page) = pages.next() {
        let ((length, both), is_last) = (covered(page), pages.peek().is_none());
        let end = content.len() + PAGE.min(page.len());
        content.extend_from_slice(&page[..length]);
        if length == PAGE || is_last && both {
            continue;
        }
        let start = content.len();
        content.resize(end, 0);
        match holes.last_mut() {
            Some(hole) if hole.end == start => hole.end = end,
            _ => holes.push(start..end),
        }
    }
    (content, holes)
}

/// Changes that wait for their commit.
#[derive(Default)]
struct Replay {
    found: SalvagedPage,
    waiting: Vec<Change>,
}

impl Replay {
    fn take(&mut self, all: Vec<Change>) {
        for next in all {
            if matches!(next, Operation::CommitFloor(..)) {
                self.commit();
            } else {
                self.waiting.push(next);
            }
        }
    }

    fn commit(&mut self) {
        for change in self.waiting.drain(..) {
            match change {
                Operation::Update(Update(key, value)) => {
                    if !is_other_secret(&self.found.rows, &key, &value) {
                        self.found.rows.insert(key, value);
                    }
                }
                Operation::Delete(key) if is_meta(&key) => {}
                Operation::Delete(key) => drop(self.found.rows.remove(&key)),
                Operation::CommitFloor(..) => {}
            }
        }
    }

    /// Reads on in a file whose changes begin at `starts`.
    fn file(&mut self, bytes: &[u8], starts: &[usize]) {
        let (content, holes) = content(bytes);
        for part in parts(&content, &holes) {
            let (all, lost) = between(&content, part, starts);
            self.take(all);
            self.found.lost += if holes.is_empty() { 0 } else { lost };
        }
        self.found.lost += holes.iter().map(ExactSizeIterator::len).sum::<usize>();
        // A later commit may have been in the hole: the changes before it are kept.
        if !holes.is_empty() {
            self.commit();
        }
    }
}

/// The parts of a file between the ranges of it that are damaged.
fn parts(content: &[u8], holes: &[Range<usize>]) -> Vec<Range<usize>> {
    let ends = holes.iter().map(|hole| hole.start).chain([content.len()]);
    let starts = [0].into_iter().chain(holes.iter().map(|hole| hole.end));
    starts.zip(ends).map(|(start, end)| start..end).collect()
}

fn is_meta(key: &Key) -> bool {
    *key == Meta::key() || *key == Meta::copy()
}

/// True if the row would replace the secret of all files by another one. It never changes.
fn is_other_secret(rows: &Rows, key: &Key, value: &[u8]) -> bool {
    let secret = |row: &[u8]| Meta::decode(Bytes::copy_from_slice(row)).ok().map(|meta| meta.master);
    let known = [Meta::key(), Meta::copy()].iter().find_map(|key| rows.get(key).and_then(|row| secret(row)));
    is_meta(key) && known.is_some() && secret(value) != known
}

/// Raises the counts of dense numbers so that they cover every row that was found.
fn counted(mut meta: Meta, rows: &Rows) -> Meta {
    for key in rows.keys() {
        let number = key.get(1..5).and_then(|number| number.try_into().ok()).map(u32::from_be_bytes);
        let (Some(number), 5) = (number, key.len()) else { continue };
        let count = match key[0] {
            FILES => &mut meta.files,
            JOBS => &mut meta.jobs,
            AGREEMENTS => &mut meta.agreements,
            _ => continue,
        };
        *count = (*count).max(number.saturating_add(1));
    }
    meta
}

/// The rows of a new catalogue; `None` without the secret of all files.
fn renewed(SalvagedPage { mut rows, lost }: SalvagedPage) -> Option<Rows> {
    let meta = |key: &Key| rows.get(key).and_then(|row| Meta::decode(Bytes::from(row.clone())).ok());
    let meta = counted(meta(&Meta::key()).or_else(|| meta(&Meta::copy()))?, &rows);
    rows.insert(Meta::key(), meta.encode().to_vec());
    rows.insert(Meta::copy(), meta.encode().to_vec());
    if lost == 0 {
        return Some(rows);
    }
    rows.retain(|key, _| key.first() != Some(&JOBS));
    for (_, row) in rows.iter_mut().filter(|(key, _)| key.first() == Some(&AGREEMENTS)) {
        if let Ok(found) = OwnAgreementRow::decode(Bytes::from(row.clone())) {
            *row = drained(found).encode().to_vec();
        }
    }
    rows.insert(place(DAMAGED_PAGES, &[]), (lost as u64).encode().to_vec());
    Some(rows)
}

fn encode(rows: &Rows) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in rows.iter().flat_map(|(key, value)| [key, value]) {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    let sum = *blake3::hash(&bytes).as_bytes();
    bytes.extend_from_slice(&sum);
    bytes
}

/// The rows of [`encode`]; `None` if they are not whole.
fn decode(bytes: &[u8]) -> Option<Rows> {
    let (mut rest, sum) = bytes.split_last_chunk::<32>()?;
    if blake3::hash(rest).as_bytes() != sum {
        return None;
    }
    let mut next = || {
        let (length, after) = rest.split_first_chunk::<8>()?;
        let (part, after) = after.split_at_checked(usize::try_from(u64::from_be_bytes(*length)).ok()?)?;
        rest = after;
        Some(part.to_vec())
    };
    let mut rows = Rows::new();
    while let Some(key) = next() {
        rows.insert(key, next()?);
    }
    Some(rows)
}

/// Number of commits behind a damaged page that prove it was durable: the table syncs each before the next.
const COMMITS: usize = 2;
/// Files that may have been written when the process ended: the newest, and the one before it if the last commit filled
/// that. The table checks all others when it opens.
const WRITTEN: usize = 2;

/// The end of the log, as far as it can be read.
#[derive(Default)]
struct End {
    /// Number of changes before the first damaged page, or of all.
    changes: u64,
    is_hit: bool,
    /// Commits behind that page.
    commits: usize,
}

impl End {
    const fn is_short_of(&self, durable: Option<u64>) -> bool {
        matches!(durable, Some(durable) if self.changes < durable)
    }

    /// Reads on in a file that begins with change `first`, and whose changes begin at `starts`.
    fn file(&mut self, first: u64, bytes: &[u8], starts: &[usize]) {
        let (content, holes) = content(bytes);
        for (place, part) in parts(&content, &holes).into_iter().enumerate() {
            let found = between(&content, part, starts).0;
            if place == 0 && !self.is_hit {
                self.changes = first + found.len() as u64;
            } else {
                let is_commit = |change: &&Change| matches!(change, Operation::CommitFloor(..));
                self.commits += found.iter().filter(is_commit).count();
            }
            self.is_hit |= !holes.is_empty();
        }
    }
}

/// Reads the files that may have been written last; also returns true if a page is damaged in one that is not the
/// newest.
async fn end<E: Storage>(context: &E, partition: &str) -> Result<(End, bool), Error> {
    let [data, ..] = partitions(partition);
    let names = names(context, &data).await?;
    let (mut end, mut is_sealed_hit) = (End::default(), false);
    for (place, name) in names.iter().enumerate().skip(names.len().saturating_sub(WRITTEN)) {
        let file = <[u8; 8]>::try_from(name.as_slice()).map_or(0, u64::from_be_bytes);
        let starts = starts(context, partition, name).await?;
        end.file(file.saturating_mul(FILE_CHANGES), &read(context, &data, name).await?, &starts);
        is_sealed_hit |= end.is_hit && place + 1 < names.len();
    }
    Ok((end, is_sealed_hit))
}

/// True if a page is damaged that was durable once. The table takes one in its newest files for a torn end, and
/// would cut off everything behind it. `durable` is the number of changes that were noted after a sync: one that is
/// missing below it was acknowledged. Without such a note, only two commits behind a damaged page show that.
///
/// # Errors
/// A disk failure.
pub(super) async fn is_damaged<E: Storage>(
    context: &E,
    partition: &str,
    durable: Option<u64>,
) -> Result<bool, Error> {
    let (end, is_sealed_hit) = end(context, partition).await?;
    Ok(end.is_short_of(durable)
        || end.is_hit && (end.commits >= COMMITS || is_sealed_hit && durable.is_none()))
}

/// Replaces a catalogue with damaged pages by what can be read of it; `why` is the error that it did not open
/// with, and is returned if the secret of all files cannot be read. A file of rows whose own header is damaged stays,
/// and is an error: nothing of it can be read here, and it would go with all that it holds. The start of a gateway
/// restores headers.
///
/// # Errors
/// [`Error::Page`], or a disk failure.
pub(super) async fn mend<E>(context: &E, partition: &str, why: String) -> Result<(), Error>
where
    E: Storage + Clock + Metrics + Spawner,
{
    let [data, ..] = partitions(partition);
    let mut replay = Replay::default();
    for name in names(context, &data).await? {
        let starts = starts(context, partition, &name).await?;
        replay.file(&read(context, &data, &name).await?, &starts);
    }
    let durable =
        Watermark::open(context, &durable_partition(partition)).await.and_then(|(_, newest)| newest);
    if end(context, partition).await?.0.is_short_of(durable.map(|(_, changes)| changes)) {
        // The end is gone, and no page of what is left is damaged.
        replay.found.lost = replay.found.lost.max(1);
    }
    let lost = replay.found.lost;
    let rows = renewed(replay.found).ok_or(Error::Page(why))?;
    for partition in partitions(partition) {
        for name in names(context, &partition).await? {
            // Of the index, which is made anew from the rows, a file that does not open is nothing to keep.
            if partition != data && is_headless(context, &partition, &name).await {
                continue;
            }
            let bytes = read(context, &partition, &name).await?;
            write(context, &format!("{partition}-damaged"), &name, &bytes).await?;
        }
    }
    write(context, &salvage(partition), ROWS, &encode(&rows)).await?;
    tracing::error!(
        lost,
        rows = rows.len(),
        "pages of the catalogue are damaged; they are set aside, and all else goes on: agreements are renewed, \
         and files whose rows were lost are missing. A copy of the damaged files is kept beside the catalogue"
    );
    resume(context, partition).await
}

/// Puts the rows of an interrupted salvage in the catalogue's place, if there is one.
///
/// # Errors
/// A disk failure.
pub(super) async fn resume<E>(context: &E, partition: &str) -> Result<(), Error>
where
    E: Storage + Clock + Metrics + Spawner,
{
    let kept = salvage(partition);
    if names(context, &kept).await?.is_empty() {
        return Ok(());
    }
    // An incomplete salvage was interrupted before any file was removed: the catalogue's rows and its notes, which
    // it had opened before, are both there.
    if let Some(rows) = decode(&read(context, &kept, ROWS).await?) {
        // The new log is shorter than what was noted of the old one. Notes without rows keep a damaged salvage from
        // being taken for an incomplete one; rows without notes would hide their damage.
        for partition in partitions(partition).into_iter().chain([durable_partition(partition)]) {
            remove(context, &partition).await?;
        }
        let mut store = Store::open(context.child("salvage"), partition).await?;
        store.put_raw(place(RESTORING, &[]), vec![1]);
        for (key, row) in rows {
            store.put_raw(key, row);
            if store.staged() >= COMMIT_ROWS_MAX {
                store.commit().await?;
            }
        }
        store.delete(place(RESTORING, &[]));
        store.commit().await?;
    } else if is_gone(context, partition).await?
        || names(context, &durable_partition(partition)).await?.is_empty()
    {
        return Err(Error::Page(format!("what was read of it, in {kept}, does not hold")));
    }
    remove(context, &kept).await
}

#[cfg(test)]
mod tests;
