//! A backup of the catalogue in one file, and its restore: all that a gateway needs to read its files
//! again from their providers.
//!
//! ```text
//!   magic | key length, value length, key, value | .. | 0, 0 | rows | BLAKE3 of all before
//! ```
//!
//! It holds the secret of all files: anyone who has it, and can reach the providers as this gateway, can
//! read them all.
//!
//! Invariants
//! 1. A backup holds one committed state; one that was cut or changed anywhere is rejected as a whole.
//! 2. A restore never replaces a catalogue that knows a file, a put or an agreement.
//! 3. An agreement from a backup may lack changes that were signed since. It takes no new shards; its
//!    data moves to a new agreement, and is read from there as soon as there is one.

use super::row::{
    FaultRow, FileRow, Intent, JobRow, Key, Meta, OwnAgreementRow, PaidRow, SegmentRow, SetRow, Waiting,
    restoring,
};
use crate::{
    catalogue::FileId,
    limits::{AGREEMENTS_MAX, COMMIT_ROWS_MAX, FAULTS_MAX, FILES_MAX, ROW_BYTES_MAX},
};
use blake3::Hasher;
use bytes::Bytes;
use commonware_codec::{DecodeExt as _, Encode as _};
use commonware_runtime::{Clock, Metrics, Spawner, Storage};
use posync_consumer::catalogue::store::{Error, Store};
use std::io::{Read, Write};

const MAGIC: &[u8; 24] = b"posync catalogue 2026-11";
const KEY_BYTES_MAX: usize = 64;

/// The contents of a backup, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Rows of every kind.
    pub rows: u64,
    /// Rows that describe a file.
    pub files: u64,
    /// Rows that describe an agreement.
    pub agreements: u64,
}

fn disk(error: std::io::Error) -> Error {
    Error::Disk(error.to_string())
}

struct Writer<W: Write> {
    out: W,
    hasher: Hasher,
    held: Held,
}

impl<W: Write> Writer<W> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.hasher.update(bytes);
        self.out.write_all(bytes).map_err(disk)
    }

    fn lengths(&mut self, key: usize, value: usize) -> Result<(), Error> {
        let bound = "rows are bounded";
        self.bytes(&u32::try_from(key).expect(bound).to_be_bytes())?;
        self.bytes(&u32::try_from(value).expect(bound).to_be_bytes())
    }

    /// Writes a row if it exists; returns whether it does.
    async fn row<E>(&mut self, store: &Store<E>, key: &Key) -> Result<bool, Error>
    where
        E: Storage + Clock + Metrics + Spawner,
    {
        let Some(value) = store.raw(key).await? else { return Ok(false) };
        self.lengths(key.len(), value.len())?;
        self.bytes(key)?;
        self.bytes(&value)?;
        self.held.rows += 1;
        Ok(true)
    }

    async fn segments<E>(&mut self, store: &Store<E>, file: &FileId, segments: u32) -> Result<(), Error>
    where
        E: Storage + Clock + Metrics + Spawner,
    {
        for segment in 0..segments {
            self.row(store, &SegmentRow::key(file, segment)).await?;
        }
        Ok(())
    }
}

/// Writes a backup of the catalogue in `partition`, which must not be open elsewhere, to `out`.
///
/// # Errors
/// [`Error`]; [`Error::Backup`] if there is no catalogue.
pub async fn backup<E>(context: E, partition: &str, out: impl Write) -> Result<Held, Error>
where
    E: Storage + Clock + Metrics + Spawner,
{
    let store = Store::open(context, partition).await?;
    let meta = match store.get::<Meta>(&Meta::key()).await {
        Ok(Some(meta)) => Some(meta),
        _ => store.get::<Meta>(&Meta::copy()).await?,
    };
    let meta = meta.ok_or(Error::Backup("there is no catalogue in this directory"))?;
    let mut writer = Writer { out, hasher: Hasher::new(), held: Held::default() };
    writer.bytes(MAGIC)?;
    for key in [Meta::key(), Meta::copy()] {
        writer.row(&store, &key).await?;
    }
    for number in 0..meta.files {
        let key = FileRow::key(number);
        if writer.row(&store, &key).await? {
            writer.held.files += 1;
        }
        if let Ok(Some(file)) = store.get::<FileRow>(&key).await {
            writer.segments(&store, &file.id, file.segments).await?;
        }
    }
    for number in 0..meta.jobs {
        let key = JobRow::key(number);
        writer.row(&store, &key).await?;
        if let Ok(Some(job)) = store.get::<JobRow>(&key).await {
            writer.segments(&store, &job.file, job.placed()).await?;
        }
    }
    for number in 0..meta.agreements {
        let rows = [Intent::key, Waiting::key, SetRow::key, PaidRow::key];
        writer.held.agreements += u64::from(writer.row(&store, &OwnAgreementRow::key(number)).await?);
        for key in rows {
            writer.row(&store, &key(number)).await?;
        }
    }
    for number in 0..meta.faults.min(FAULTS_MAX as u64) {
        writer.row(&store, &FaultRow::key(number as u32)).await?;
    }
    let held = writer.held;
    writer.lengths(0, 0)?;
    writer.bytes(&held.rows.to_be_bytes())?;
    let sum = *writer.hasher.finalize().as_bytes();
    writer.out.write_all(&sum).and_then(|()| writer.out.flush()).map_err(disk)?;
    Ok(held)
}

struct Reader<R: Read> {
    from: R,
    hasher: Hasher,
}

impl<R: Read> Reader<R> {
    fn bytes(&mut self, length: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; length];
        let short = Error::Backup("it ends in the middle");
        self.from.read_exact(&mut bytes).map_err(|_| short)?;
        self.hasher.update(&bytes);
        Ok(bytes)
    }

    fn length(&mut self, most: usize) -> Result<usize, Error> {
        let bytes = self.bytes(4)?;
        let length = u32::from_be_bytes(bytes.try_into().expect("four bytes")) as usize;
        if length > most { Err(Error::Backup("a row is too long")) } else { Ok(length) }
    }

    /// The next row; `None` after the last, once the count and the checksum match.
    fn row(&mut self, rows: u64) -> Result<Option<(Key, Vec<u8>)>, Error> {
        let (key, value) = (self.length(KEY_BYTES_MAX)?, self.length(ROW_BYTES_MAX)?);
        if key > 0 {
            return Ok(Some((self.bytes(key)?, self.bytes(value)?)));
        }
        let count = u64::from_be_bytes(self.bytes(8)?.try_into().expect("eight bytes"));
        let sum = *self.hasher.finalize().as_bytes();
        if count != rows || self.bytes(32)? != sum {
            return Err(Error::Backup("its checksum is another one"));
        }
        Ok(None)
    }
}

/// Checks a whole backup.
///
/// # Errors
/// [`Error::Backup`].
pub fn check(from: impl Read) -> Result<(), Error> {
    let mut reader = Reader { from, hasher: Hasher::new() };
    if reader.bytes(MAGIC.len())? != MAGIC {
        return Err(Error::Backup("it does not begin as one"));
    }
    let most = (FILES_MAX + AGREEMENTS_MAX) as u64 * 64;
    let mut rows = 0;
    while reader.row(rows)?.is_some() {
        rows += 1;
        if rows > most {
            return Err(Error::Backup("it has too many rows"));
        }
    }
    Ok(())
}

/// Fills the empty catalogue in `partition`, which must not be open elsewhere, from a backup. `open` is
/// called twice: the backup is checked to its end before anything is written.
///
/// # Errors
/// [`Error::NotEmpty`], [`Error::Backup`], or a disk failure.
pub async fn restore<E, R: Read>(
    context: E,
    partition: &str,
    open: impl Fn() -> std::io::Result<R>,
) -> Result<Held, Error>
where
    E: Storage + Clock + Metrics + Spawner,
{
    check(open().map_err(disk)?)?;
    let mut store = Store::open(context, partition).await?;
    match store.get::<Meta>(&Meta::key()).await {
        Ok(None) => {}
        Ok(Some(meta)) if meta.files == 0 && meta.jobs == 0 && meta.agreements == 0 => {}
        Ok(Some(_)) | Err(Error::Damaged(_)) => return Err(Error::NotEmpty),
        Err(error) => return Err(error),
    }
    let mut reader = Reader { from: open().map_err(disk)?, hasher: Hasher::new() };
    reader.bytes(MAGIC.len())?;
    let mut held = Held::default();
    let (files, agreements) = (FileRow::key(0)[0], OwnAgreementRow::key(0)[0]);
    // The row with the counts is written last: an interrupted restore leaves a catalogue that does not
    // open, and can be started again.
    store.put_raw(restoring(), vec![1]);
    store.commit().await?;
    let mut last = Vec::new();
    while let Some((key, value)) = reader.row(held.rows)? {
        held.rows += 1;
        held.files += u64::from(key[0] == files);
        if key == Meta::key() || key == Meta::copy() {
            last.push((key, value));
        } else if key[0] == agreements
            && let Ok(row) = OwnAgreementRow::decode(Bytes::from(value.clone()))
        {
            held.agreements += 1;
            store.put_raw(key, super::row::drained(row).encode().to_vec());
        } else {
            store.put_raw(key, value);
        }
        if store.staged() >= COMMIT_ROWS_MAX {
            store.commit().await?;
        }
    }
    last.into_iter().for_each(|(key, value)| store.put_raw(key, value));
    store.delete(restoring());
    store.commit().await?;
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_that_is_cut_or_changed_is_refused() {
        let mut out = Vec::new();
        let mut writer = Writer { out: &mut out, hasher: Hasher::new(), held: Held::default() };
        writer.bytes(MAGIC).expect("memory");
        writer.lengths(1, 3).expect("memory");
        writer.bytes(b"kabc").expect("memory");
        writer.lengths(0, 0).expect("memory");
        writer.bytes(&1u64.to_be_bytes()).expect("memory");
        let sum = *writer.hasher.finalize().as_bytes();
        out.extend(sum);
        assert!(check(&out[..]).is_ok());
        for cut in 0..out.len() {
            assert!(matches!(check(&out[..cut]), Err(Error::Backup(_))), "cut at {cut}");
            let mut changed = out.clone();
            changed[cut] ^= 1;
            assert!(matches!(check(&changed[..]), Err(Error::Backup(_))), "changed at {cut}");
        }
    }
}
