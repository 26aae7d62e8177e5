//! The index on disk: a journal of what was written where, so that a start reads no shard.
//!
//! ```text
//!   section g:    Begin  Entries...  Files  Complete  Group  Group  Dropped  Group ...
//!                 \______ snapshot ______/            \____ since then ____/
//! ```
//!
//! It is a cache of the segment files' heads and is synced only now and then: what is missing
//! at its end is read from the heads of the last files ([`super::recover`]). When what came since
//! the snapshot outgrows the snapshot, a new section begins with a new one, and the old goes.
//! An unfinished snapshot (no `Complete`) is ignored: the section before it is still whole.
//!
//! The journal's own page checksums find torn and damaged records.

use super::{
    StoreError,
    frame::Frame,
    index::{Entry, Index, Place},
};
use commonware_runtime::{
    ReadOptions,
    buffer::paged::{CacheRef, page_size},
};
use commonware_storage::{
    Context,
    journal::{
        Error,
        segmented::variable::{Config, Journal},
    },
};
use commonware_utils::NZUsize;
use posync_protocol::{AgreementId, Bounded, Hash, encoded, tagged, wire::node::Nothing};

/// Entries in one record of a snapshot.
const ENTRIES_MAX: usize = 256;
/// Agreements that may hold one shard.
pub(super) const HOLDERS_MAX: usize = 1024;
/// Frames in one group.
pub(super) const FRAMES_MAX: usize = 1024;
/// Segment files.
pub(super) const FILES_MAX: usize = 1 << 20;
/// Frames after which a snapshot is considered.
const SNAPSHOT_FRAMES: u64 = 1 << 16;

encoded! {
    /// An entry of a snapshot.
    Kept {
        shard: Hash,
        segment: u32,
        offset: u64,
        length: u32,
        holders: Bounded<AgreementId, HOLDERS_MAX>,
    }
}

encoded! {
    /// Frames that were written one after the other.
    Group {
        segment: u32,
        start: u64,
        frames: Bounded<Frame, FRAMES_MAX>,
    }
}

tagged! {
    /// A record of the journal.
    Record {
        0 => Begin(Nothing),
        1 => Entries(Bounded<Kept, ENTRIES_MAX>),
        2 => Files(Bounded<(u32, u64), FILES_MAX>),
        3 => Complete(Nothing),
        4 => Group(Group),
        5 => Dropped(u32),
    }
}

/// The journal, open for appending.
pub(super) struct Log<E: Context> {
    journal: Option<Journal<E, Record>>,
    section: u64,
    next: u64,
    frames: u64,
    whole: bool,
}

impl<E: Context> Log<E> {
    /// Opens the journal and rebuilds what it knows. One that is damaged beyond its end is
    /// discarded: everything is then read from the segment files' heads.
    pub(super) async fn open(context: E, partition: &str) -> Result<(Self, Index), StoreError> {
        match Self::replay(context.child("index"), partition).await {
            Err(StoreError::Index(Error::Runtime(error))) => Err(error.into()),
            Err(StoreError::Index(error)) => {
                tracing::warn!(%error, "the index is damaged; rebuilding it from the segment files");
                context.remove(partition, None).await?;
                Self::replay(context, partition).await
            }
            other => other,
        }
    }

    async fn replay(context: E, partition: &str) -> Result<(Self, Index), StoreError> {
        let config = Config {
            partition: partition.into(),
            compression: None,
            codec_config: (),
            page_cache: CacheRef::new(page_size(4096), NZUsize!(64)),
            write_buffer: NZUsize!(256 << 10),
        };
        let journal = Journal::<E, Record>::init(context, config).await?;
        let newest = journal.newest_section();
        let (mut section, mut frames, mut whole) = (0, 0, false);
        let mut index = Index::default();
        let mut snapshot: Option<Index> = None;
        let mut replay = journal.replay(0, 0, NZUsize!(1 << 20), ReadOptions::default()).await?;
        while let Some(item) = replay.next().await {
            let (at, _, _, record) = item?;
            match (&record, &mut snapshot) {
                (Record::Begin(_), _) => snapshot = Some(Index::default()),
                (Record::Complete(_), Some(_)) => {
                    (section, frames, whole) = (at, 0, true);
                    index = snapshot.take().unwrap_or_default();
                }
                (_, Some(part)) => apply(part, &record),
                (_, None) => {
                    frames += frames_of(&record);
                    apply(&mut index, &record);
                }
            }
        }
        let journal = Some(replay.finish()?);
        let next = newest.map_or(0, |newest| newest.max(section) + 1);
        Ok((Self { journal, section, next, frames, whole }, index))
    }

    /// Appends a record; it is durable after [`Self::sync`].
    async fn append(&mut self, record: &Record) -> Result<(), StoreError> {
        let journal = self.journal.take().ok_or(StoreError::Closed)?;
        let (journal, _, _) = journal.append(self.section, record).await?;
        self.journal = Some(journal);
        self.frames += frames_of(record);
        Ok(())
    }

    /// Notes frames that were written from `start` on.
    pub(super) async fn group(
        &mut self,
        segment: u32,
        start: u64,
        frames: &[Frame],
    ) -> Result<(), StoreError> {
        let frames = Bounded::new(frames.to_vec()).ok_or(StoreError::Bound("frames of a group"))?;
        self.append(&Record::Group(Group { segment, start, frames })).await
    }

    /// Notes that a file is about to go.
    pub(super) async fn dropped(&mut self, segment: u32) -> Result<(), StoreError> {
        self.append(&Record::Dropped(segment)).await
    }

    /// Makes everything appended so far durable.
    pub(super) async fn sync(&mut self) -> Result<(), StoreError> {
        let journal = self.journal.take().ok_or(StoreError::Closed)?;
        self.journal = Some(journal.sync_all().await?);
        Ok(())
    }

    /// Whether there is no snapshot yet, or what came since the last outgrew it.
    pub(super) fn is_long(&self, index: &Index) -> bool {
        !self.whole || self.frames > SNAPSHOT_FRAMES.max(2 * index.totals().shards)
    }

    /// Writes a snapshot into a section of its own, durably, then drops the older sections.
    pub(super) async fn snapshot(&mut self, index: &Index) -> Result<(), StoreError> {
        self.section = self.next;
        self.next += 1;
        self.append(&Record::Begin(Nothing {})).await?;
        let files: Vec<_> = index.segments().iter().map(|(number, file)| (*number, file.end)).collect();
        self.append(&Record::Files(Bounded::new(files).ok_or(StoreError::Bound("segment files"))?)).await?;
        let all: Vec<Kept> = index.shards().map(|(shard, entry)| kept(shard, entry)).collect();
        for part in all.chunks(ENTRIES_MAX) {
            let part = Bounded::new(part.to_vec()).ok_or(StoreError::Bound("entries"))?;
            self.append(&Record::Entries(part)).await?;
        }
        self.append(&Record::Complete(Nothing {})).await?;
        (self.frames, self.whole) = (0, true);
        self.sync().await?;
        let journal = self.journal.take().ok_or(StoreError::Closed)?;
        self.journal = Some(journal.prune(self.section).await?.0);
        Ok(())
    }
}

const fn frames_of(record: &Record) -> u64 {
    match record {
        Record::Group(_) | Record::Dropped(_) => 1,
        _ => 0,
    }
}

fn kept(shard: &Hash, entry: &Entry) -> Kept {
    let Place { segment, offset, length } = entry.place;
    let holders = Bounded::new(entry.holders.clone()).expect("a put refuses more holders");
    Kept { shard: *shard, segment, offset, length, holders }
}

fn apply(index: &mut Index, record: &Record) {
    match record {
        Record::Begin(_) | Record::Complete(_) => {}
        Record::Files(files) => files.iter().for_each(|(number, end)| index.note_segment(*number, *end)),
        Record::Entries(entries) => entries.iter().for_each(|kept| {
            let place = Place { segment: kept.segment, offset: kept.offset, length: kept.length };
            index.restore(kept.shard, Entry { place, holders: kept.holders.to_vec() });
        }),
        Record::Group(group) => {
            let mut start = group.start;
            for frame in group.frames.iter() {
                index.apply(group.segment, start, frame);
                start += frame.size();
            }
        }
        Record::Dropped(segment) => {
            index.drop_segment(*segment);
        }
    }
}
