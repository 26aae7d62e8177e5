//! The log of the shard index: the location of every shard on disk, so that a start reads no shard.
//!
//! It is a cache of the headers in the packs and is synced only occasionally: entries missing at
//! its end are read from the last files, and a damaged one is rebuilt.

use super::{
    StoreError,
    frame::Frame,
    full::is_full,
    index::{Index, Place, StoredShard},
};
use crate::journal::{Error, Journal};
use commonware_storage::Context;
use posync_protocol::{AgreementId, Bounded, Hash, encoded, tagged};

/// Maximum entries in one record of a snapshot.
const ENTRIES_MAX: usize = 256;
/// Maximum number of agreements that hold one shard.
pub(super) const HOLDERS_MAX: usize = 1024;
/// Maximum frames in one group.
pub(super) const FRAMES_MAX: usize = 1024;
/// Maximum number of packs.
const FILES_MAX: usize = 1 << 20;

encoded! {
    /// An entry of a snapshot.
    Kept {
        shard: Hash,
        pack: u32,
        offset: u64,
        length: u32,
        holders: Bounded<AgreementId, HOLDERS_MAX>,
    }
}

encoded! {
    /// Frames that were written in sequence, from `start` on.
    Group {
        pack: u32,
        start: u64,
        frames: Bounded<Frame, FRAMES_MAX>,
    }
}

tagged! {
    /// A record of the index journal.
    Record {
        0 => Files(Bounded<(u32, u64), FILES_MAX>),
        1 => Entries(Bounded<Kept, ENTRIES_MAX>),
        2 => Group(Group),
        3 => Dropped(u32),
    }
}

/// The journal. If there is no room for it the store continues: it is a cache, and is rewritten later.
pub(super) struct Log<E: Context> {
    context: E,
    partition: String,
    journal: Option<Journal<E, Record>>,
}

/// True if an error means damaged journal bytes, which do not end the process.
fn is_damage(error: &Error) -> bool {
    use commonware_runtime::Error as Runtime;
    match error {
        Error::Runtime(error) => matches!(
            error,
            Runtime::InvalidChecksum
                | Runtime::Io(_)
                | Runtime::ReadFailed
                | Runtime::BlobCorrupt(..)
                | Runtime::BlobInsufficientLength
        ),
        _ => true,
    }
}

impl<E: Context> Log<E> {
    /// Opens the journal and rebuilds the index: after a crash or damage, from a prefix of the records. A
    /// journal that is wholly unreadable is discarded. The rest is read from the headers in the pack
    /// files.
    pub(super) async fn open(context: E, partition: &str) -> Result<(Self, Index), StoreError> {
        let (journal, index) = match Journal::open_whole(context.child("index"), partition, apply).await {
            Ok(open) => open,
            Err(error) if is_damage(&error) => {
                tracing::warn!(%error, "the index is damaged; rebuilding it from the packs");
                context.remove(partition, None).await?;
                Journal::open_whole(context.child("rebuilt"), partition, apply).await?
            }
            Err(error) => return Err(error.into()),
        };
        Ok((Self { context, partition: partition.into(), journal: Some(journal) }, index))
    }

    /// Notes frames that were written from `start` on; durable after [`Self::sync`].
    pub(super) async fn group(&mut self, pack: u32, start: u64, frames: &[Frame]) -> Result<(), StoreError> {
        let frames = Bounded::new(frames.to_vec()).ok_or(StoreError::Bound("frames of a group"))?;
        let Some(journal) = &mut self.journal else { return Ok(()) };
        let done = journal.append(Record::Group(Group { pack, start, frames })).await;
        self.settle(done)
    }

    /// Notes a shard's location and holders, regardless of its file's end; durable after [`Self::sync`].
    pub(super) async fn entry(&mut self, shard: &Hash, entry: &StoredShard) -> Result<(), StoreError> {
        let entries = Bounded::new(vec![kept(shard, entry)]).ok_or(StoreError::Bound("entries"))?;
        let Some(journal) = &mut self.journal else { return Ok(()) };
        let done = journal.append(Record::Entries(entries)).await;
        self.settle(done)
    }

    /// Notes that a file is about to be removed.
    pub(super) async fn dropped(&mut self, pack: u32) -> Result<(), StoreError> {
        let Some(journal) = &mut self.journal else { return Ok(()) };
        let done = journal.append(Record::Dropped(pack)).await;
        self.settle(done)
    }

    /// Makes everything appended so far durable.
    pub(super) async fn sync(&mut self) -> Result<(), StoreError> {
        let Some(journal) = &mut self.journal else { return Ok(()) };
        let done = journal.sync().await;
        self.settle(done)
    }

    /// True if a new snapshot is due.
    pub(super) fn is_long(&self, index: &Index) -> bool {
        self.journal.as_ref().is_none_or(|journal| journal.is_long(index.totals().shards))
    }

    /// Replaces the journal with a snapshot of the index.
    pub(super) async fn snapshot(&mut self, index: &Index) -> Result<(), StoreError> {
        let files: Vec<_> = index.packs().iter().map(|(number, file)| (*number, file.end)).collect();
        let files = Record::Files(Bounded::new(files).ok_or(StoreError::Bound("packs"))?);
        let all: Vec<Kept> = index.shards().map(|(shard, entry)| kept(shard, entry)).collect();
        let mut records = vec![files];
        records.extend(index.given_up().iter().map(|number| Record::Dropped(*number)));
        for part in all.chunks(ENTRIES_MAX) {
            records.extend(Bounded::new(part.to_vec()).map(Record::Entries));
        }
        let done = self.rewrite(records).await;
        self.settle(done)
    }

    async fn rewrite(&mut self, records: Vec<Record>) -> Result<(), Error> {
        let mut journal = match self.journal.take() {
            Some(journal) => journal,
            None => {
                let again = self.context.child("again");
                Journal::open_whole::<Index>(again, &self.partition, apply).await?.0
            }
        };
        journal.snapshot(records).await?;
        self.journal = Some(journal);
        Ok(())
    }

    /// Drops the journal if there is no room or it is damaged, until a snapshot can be written.
    fn settle(&mut self, done: Result<(), Error>) -> Result<(), StoreError> {
        match done {
            Err(Error::Runtime(error)) if is_full(&error) => {
                if self.journal.take().is_some() {
                    tracing::warn!(%error, "the index cannot be written now; a start reads more files");
                }
                Ok(())
            }
            done => Ok(done?),
        }
    }
}

fn kept(shard: &Hash, entry: &StoredShard) -> Kept {
    let Place { pack, offset, length } = entry.place;
    let holders = Bounded::new(entry.holders.clone()).expect("a put refuses more holders");
    Kept { shard: *shard, pack, offset, length, holders }
}

fn apply(index: &mut Index, record: Record) {
    match record {
        Record::Files(files) => files.iter().for_each(|(number, end)| index.note_pack(*number, *end)),
        Record::Entries(entries) => entries.into_inner().into_iter().for_each(|kept| {
            let place = Place { pack: kept.pack, offset: kept.offset, length: kept.length };
            index.restore(kept.shard, StoredShard { place, holders: kept.holders.into_inner() });
        }),
        Record::Group(group) => {
            let mut start = group.start;
            for frame in group.frames.iter() {
                index.apply(group.pack, start, frame);
                start += frame.size();
            }
        }
        Record::Dropped(pack) => index.give_up(pack),
    }
}
