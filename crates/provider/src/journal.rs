//! A small state on disk: a snapshot of it, and what happened since.
//!
//! ```text
//!   section g:    Begin  Record...  Complete  Record  Record ...
//!                 \_____ snapshot _________/  \___ since then __/
//! ```
//!
//! The index of the store, the books and the till each keep their state in memory and every change
//! in such a journal. When what came since the snapshot outgrows it, a new section begins with a
//! new snapshot, and the old section goes. A snapshot without `Complete` is ignored: the section
//! before it is still whole.
//!
//! Invariants
//! 1. A record is durable once `sync` returned after its `append`.
//! 2. A torn end is cut off; damage before it is an error, never silence.
//!
//! The page checksums and the repair are those of `commonware_storage::journal`.

use bytes::BufMut;
use commonware_codec::{Codec, EncodeSize, Read, Write};
use commonware_runtime::{
    ReadOptions,
    buffer::paged::{CacheRef, page_size},
};
use commonware_storage::{
    Context,
    journal::segmented::variable::{Config, Journal as Sections},
};
use commonware_utils::NZUsize;

pub(crate) use commonware_storage::journal::Error;

/// Records after which a snapshot is considered.
const TAIL_MIN: u64 = 1 << 12;

enum Item<R> {
    Begin,
    Complete,
    Record(R),
}

impl<R: Write> Write for Item<R> {
    fn write(&self, buf: &mut impl BufMut) {
        match self {
            Self::Begin => buf.put_u8(0),
            Self::Complete => buf.put_u8(1),
            Self::Record(record) => {
                buf.put_u8(2);
                record.write(buf);
            }
        }
    }
}

impl<R: EncodeSize> EncodeSize for Item<R> {
    fn encode_size(&self) -> usize {
        1 + match self {
            Self::Record(record) => record.encode_size(),
            Self::Begin | Self::Complete => 0,
        }
    }
}

impl<R: Read<Cfg = ()>> Read for Item<R> {
    type Cfg = ();
    fn read_cfg(buf: &mut impl commonware_codec::Buf, _: &()) -> Result<Self, commonware_codec::Error> {
        match u8::read_cfg(buf, &())? {
            0 => Ok(Self::Begin),
            1 => Ok(Self::Complete),
            2 => Ok(Self::Record(R::read_cfg(buf, &())?)),
            tag => Err(commonware_codec::Error::InvalidEnum(tag)),
        }
    }
}

/// A journal of records `R`.
pub(crate) struct Journal<E: Context, R: Codec<Cfg = ()> + Send + Sync> {
    sections: Option<Sections<E, Item<R>>>,
    section: u64,
    next: u64,
    tail: u64,
    whole: bool,
}

impl<E: Context, R: Codec<Cfg = ()> + Send + Sync + 'static> Journal<E, R> {
    /// Opens the journal and rebuilds the state with `apply`, record after record.
    ///
    /// # Errors
    /// The disk failed, or a record is damaged (not merely torn at the end).
    pub(crate) async fn open<S: Default>(
        context: E,
        partition: &str,
        mut apply: impl FnMut(&mut S, R),
    ) -> Result<(Self, S), Error> {
        let config = Config {
            partition: partition.into(),
            compression: None,
            codec_config: (),
            page_cache: CacheRef::new(page_size(4096), NZUsize!(64)),
            write_buffer: NZUsize!(256 << 10),
        };
        let sections = Sections::<E, Item<R>>::init(context, config).await?;
        let newest = sections.newest_section();
        let (mut section, mut tail, mut whole) = (0, 0, false);
        let (mut state, mut snapshot) = (S::default(), None);
        let mut replay = sections.replay(0, 0, NZUsize!(1 << 20), ReadOptions::default()).await?;
        while let Some(item) = replay.next().await {
            let (at, _, _, item) = item?;
            match (item, snapshot.take()) {
                (Item::Begin, _) => snapshot = Some(S::default()),
                (Item::Complete, Some(done)) => (state, section, tail, whole) = (done, at, 0, true),
                (Item::Complete, None) => {}
                (Item::Record(record), Some(mut part)) => {
                    apply(&mut part, record);
                    snapshot = Some(part);
                }
                (Item::Record(record), None) => {
                    tail += 1;
                    apply(&mut state, record);
                }
            }
        }
        let sections = Some(replay.finish()?);
        let next = newest.map_or(0, |newest| newest + 1);
        Ok((Self { sections, section, next, tail, whole }, state))
    }

    async fn write(&mut self, item: Item<R>) -> Result<(), Error> {
        let sections = self.sections.take().ok_or(Error::ReplayFailed)?;
        let (sections, _, _) = sections.append(self.section, &item).await?;
        self.sections = Some(sections);
        Ok(())
    }

    /// Appends a record.
    pub(crate) async fn append(&mut self, record: R) -> Result<(), Error> {
        self.tail += 1;
        self.write(Item::Record(record)).await
    }

    /// Makes everything appended so far durable, with one sync.
    pub(crate) async fn sync(&mut self) -> Result<(), Error> {
        let sections = self.sections.take().ok_or(Error::ReplayFailed)?;
        self.sections = Some(sections.sync(self.section).await?);
        Ok(())
    }

    /// Whether there is no snapshot yet, or what came since the last outgrew a state of `size`
    /// records. Before the first append it is always so on a new journal: write one.
    pub(crate) fn is_long(&self, size: u64) -> bool {
        !self.whole || self.tail > TAIL_MIN.max(2 * size)
    }

    /// Writes a snapshot into a section of its own, durably, then drops the older ones.
    pub(crate) async fn snapshot(&mut self, records: Vec<R>) -> Result<(), Error> {
        self.section = self.next;
        self.next += 1;
        self.write(Item::Begin).await?;
        for record in records {
            self.write(Item::Record(record)).await?;
        }
        self.write(Item::Complete).await?;
        (self.tail, self.whole) = (0, true);
        self.sync().await?;
        let sections = self.sections.take().ok_or(Error::ReplayFailed)?;
        self.sections = Some(sections.prune(self.section).await?.0);
        Ok(())
    }
}
