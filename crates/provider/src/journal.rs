//! A small durable state: a snapshot, followed by the changes since.
//!
//! ```text
//!   section g:    Begin  Record...  Complete  Record  Record ...
//!                 \_____ snapshot _________/  \___ since then __/
//! ```
//!
//! The index of the store, the data sets and the voucher store each keep their state in memory and log every change
//! in such a journal. When the changes outgrow the snapshot, a new section begins with a new snapshot,
//! and the old section is dropped. A snapshot without `Complete` is ignored if the section before it is
//! still there, and is damage if it is not.
//!
//! Invariants
//! 1. A record is durable once `sync` returned after its `append`.
//! 2. A torn end is cut off. Damage before it costs the records that it hit and is reported ([`mend`]).
//! 3. `Complete` is written after everything before it was synced. Only behind such a mark does damage differ
//!    from a torn end, so a `Complete` without a snapshot also seals the changes so far ([`Journal::seal`]).
//! 4. The length of the section is noted after each sync ([`Watermark`]): what is missing below it is damage, although
//!    nothing follows it.
//! 5. An older section goes only when the snapshot that replaces it is synced with its `Complete`.
//!
//! The page checksums are those of `commonware_storage::journal`, whose own repair would cut off
//! everything behind a damaged page.

mod mend;

use bytes::BufMut;
use commonware_codec::{Codec, Encode as _, EncodeSize, Read, ReadExt as _, Write};
use commonware_cryptography::Crc32;
use commonware_macros::select;
use commonware_runtime::{
    Clock, ReadOptions,
    buffer::paged::{CacheRef, page_size},
};
use commonware_storage::{
    Context,
    journal::segmented::variable::{Config, Journal as Sections},
};
use commonware_utils::{NZUsize, channel::mpsc};
use mend::Mended;
use posync_client::watermark::{Mark, Watermark};
use std::time::Duration;

pub(crate) use commonware_storage::journal::Error;

/// True if a failed write means that the volume accepts nothing now, but may later.
pub(crate) fn is_full(error: &Error) -> bool {
    matches!(error, Error::Runtime(error) if crate::packs::is_full(error))
}

/// Number of changes after which a new snapshot is considered.
const TAIL_MIN: u64 = 1 << 12;
/// Time without a change after which a journal is sealed.
const IDLE: Duration = Duration::from_secs(1);
/// Bytes of a page on disk, including its checksums.
const PAGE_BYTES: u32 = 4096;
/// First byte of an item with its own checksum; items of the older format have none.
const MARKED: u8 = 3;
/// Magic bytes that follow `MARKED`.
const MAGIC: [u8; 4] = *b"pjr1";
/// Flag in a kind: everything before this item was synced before it was written.
const AFTER_SYNC: u8 = 0x80;
/// Bytes of the mark before an item's record.
const MARK_BYTES: usize = 1 + MAGIC.len() + 1 + 4;

enum Item<R> {
    Begin,
    Complete,
    Record(R),
}

impl<R> Item<R> {
    const fn kind(&self) -> u8 {
        match self {
            Self::Begin => 0,
            Self::Complete => 1,
            Self::Record(_) => 2,
        }
    }
}

/// An item as written, with a mark by which it can be found behind damage.
struct Marked<R> {
    item: Item<R>,
    after_sync: bool,
}

impl<R: Write + EncodeSize> Write for Marked<R> {
    fn write(&self, buf: &mut impl BufMut) {
        let kind = self.item.kind() | if self.after_sync { AFTER_SYNC } else { 0 };
        let mut body = vec![kind];
        if let Item::Record(record) = &self.item {
            body.extend_from_slice(&record.encode());
        }
        buf.put_u8(MARKED);
        buf.put_slice(&MAGIC);
        buf.put_u8(kind);
        buf.put_slice(&Crc32::checksum(&body).to_be_bytes());
        buf.put_slice(&body[1..]);
    }
}

impl<R: EncodeSize> EncodeSize for Marked<R> {
    fn encode_size(&self) -> usize {
        MARK_BYTES
            + match &self.item {
                Item::Record(record) => record.encode_size(),
                Item::Begin | Item::Complete => 0,
            }
    }
}

impl<R: Read<Cfg = ()>> Read for Marked<R> {
    type Cfg = ();
    fn read_cfg(buf: &mut impl commonware_codec::Buf, _: &()) -> Result<Self, commonware_codec::Error> {
        let mut kind = u8::read(buf)?;
        if kind == MARKED {
            let magic = <[u8; 4]>::read(buf)?;
            kind = u8::read(buf)?;
            let _checked_by_the_page = u32::read(buf)?;
            if magic != MAGIC {
                return Err(commonware_codec::Error::InvalidEnum(magic[0]));
            }
        }
        let after_sync = kind & AFTER_SYNC != 0;
        let item = match kind & !AFTER_SYNC {
            0 => Item::Begin,
            1 => Item::Complete,
            2 => Item::Record(R::read_cfg(buf, &())?),
            tag => return Err(commonware_codec::Error::InvalidEnum(tag)),
        };
        Ok(Self { item, after_sync })
    }
}

/// Rebuilds a state from items, one by one.
struct Replayed<S> {
    state: S,
    snapshot: Option<S>,
    section: u64,
    tail: u64,
    whole: bool,
}

impl<S: Default> Replayed<S> {
    fn new() -> Self {
        Self { state: S::default(), snapshot: None, section: 0, tail: 0, whole: false }
    }

    fn take<R>(&mut self, at: u64, item: Item<R>, apply: &mut impl FnMut(&mut S, R)) {
        match (item, self.snapshot.take()) {
            (Item::Begin, _) => self.snapshot = Some(S::default()),
            (Item::Complete, Some(done)) => {
                (self.state, self.section, self.tail, self.whole) = (done, at, 0, true);
            }
            (Item::Complete, None) => {}
            (Item::Record(record), Some(mut part)) => {
                apply(&mut part, record);
                self.snapshot = Some(part);
            }
            (Item::Record(record), None) => {
                self.tail += 1;
                apply(&mut self.state, record);
            }
        }
    }
}

/// A journal of records of type `R`.
pub(crate) struct Journal<E: Context, R: Codec<Cfg = ()> + Send + Sync> {
    context: E,
    partition: String,
    sections: Option<Sections<E, Marked<R>>>,
    section: u64,
    next: u64,
    tail: u64,
    whole: bool,
    /// True if something was appended since the last sync.
    dirty: bool,
    /// True if the last item is a `Complete`.
    sealed: bool,
    /// Notes how much of the section is durable.
    watermark: Option<Watermark<E::Blob>>,
}

impl<E: Context, R: Codec<Cfg = ()> + Clone + Send + Sync + 'static> Journal<E, R> {
    /// Opens the journal and rebuilds the state by calling `apply` for each record. If a page is damaged,
    /// a `snapshot` of the readable part replaces the files; `hurt` marks a state that lost records.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) async fn open<S: Default>(
        context: E,
        partition: &str,
        mut apply: impl FnMut(&mut S, R),
        snapshot: impl Fn(&S) -> Vec<R>,
        hurt: impl Fn(&mut S),
    ) -> Result<(Self, S), Error> {
        let noted = Watermark::open(&context, &format!("{partition}-durable")).await;
        let (mut watermark, durable) = noted.map_or((None, None), |(notes, newest)| (Some(notes), newest));
        let (mut state, damaged) = match mend::look(&context, partition, durable, &mut apply).await? {
            Mended::Salvaged(state, damaged) => (state, damaged),
            Mended::Whole => {
                let child = context.child("whole");
                let (mut journal, state) = Self::open_whole(child, partition, &mut apply).await?;
                let oldest = journal.sections.as_ref().and_then(Sections::oldest_section);
                let is_short = durable.is_some_and(|durable| journal.is_short_of(durable));
                if !is_short && (journal.whole || oldest.is_none_or(|oldest| oldest == 0)) {
                    journal.watermark = watermark;
                    return Ok((journal, state));
                }
                drop(journal);
                if is_short {
                    // Its pages are whole, and the last of them are gone.
                    (state, true)
                } else {
                    // The file was cut: its snapshot has no end.
                    mend::salvage(&context, partition, durable, &mut apply).await?
                }
            }
        };
        if damaged {
            tracing::error!(partition, "a journal is damaged on disk; what was not hit is kept");
            hurt(&mut state);
        } else {
            tracing::info!(partition, "cutting off what a crash left unfinished in a journal");
        }
        mend::keep::<E, R>(&context, partition, snapshot(&state), &mut watermark).await?;
        // Read it again as the next start will.
        let (mut journal, _) = Self::open_whole(context, partition, apply).await?;
        journal.watermark = watermark;
        Ok((journal, state))
    }

    /// True if durable bytes of a section are gone, and no newer section is in its place.
    fn is_short_of(&self, (section, length): Mark) -> bool {
        let Some(sections) = &self.sections else { return false };
        match sections.newest_section() {
            Some(newest) if newest > section => false,
            Some(newest) if newest == section => sections.size(section).is_ok_and(|size| size < length),
            _ => true,
        }
    }

    /// Opens a journal without checking for damage first.
    pub(crate) async fn open_whole<S: Default>(
        context: E,
        partition: &str,
        mut apply: impl FnMut(&mut S, R),
    ) -> Result<(Self, S), Error> {
        let config = Config {
            partition: partition.into(),
            compression: None,
            codec_config: (),
            page_cache: CacheRef::new(page_size(PAGE_BYTES), NZUsize!(64)),
            write_buffer: NZUsize!(256 << 10),
        };
        let sections = Sections::<E, Marked<R>>::init(context.child("sections"), config).await?;
        let newest = sections.newest_section();
        let mut replayed = Replayed::<S>::new();
        let mut replay = sections.replay(0, 0, NZUsize!(1 << 20), ReadOptions::default()).await?;
        let mut sealed = true;
        while let Some(item) = replay.next().await {
            let (at, _, _, marked) = item?;
            sealed = matches!(marked.item, Item::Complete);
            replayed.take(at, marked.item, &mut apply);
        }
        let sections = Some(replay.finish()?);
        let next = newest.map_or(0, |newest| newest + 1);
        let Replayed { state, section, tail, whole, .. } = replayed;
        let (partition, dirty, watermark) = (partition.into(), false, None);
        let journal =
            Self { context, partition, sections, section, next, tail, whole, dirty, sealed, watermark };
        Ok((journal, state))
    }

    /// Returns the sections; after a failed write they are reopened and cut off behind the last whole item.
    async fn sections(&mut self) -> Result<Sections<E, Marked<R>>, Error> {
        if let Some(sections) = self.sections.take() {
            return Ok(sections);
        }
        let (context, nothing) = (self.context.child("again"), |(): &mut (), _: R| ());
        let (again, ()) = Self::open_whole(context, &self.partition, nothing).await?;
        (self.section, self.next, self.tail, self.whole, self.dirty, self.sealed) =
            (again.section, again.next, again.tail, again.whole, false, again.sealed);
        again.sections.ok_or(Error::ReplayFailed)
    }

    async fn write(&mut self, item: Item<R>) -> Result<(), Error> {
        let section = self.section;
        let sections = self.sections().await?;
        if section != self.section && !matches!(item, Item::Record(_)) {
            // A snapshot is written whole or not at all.
            self.sections = Some(sections);
            return Err(Error::ReplayFailed);
        }
        let sealed = matches!(item, Item::Complete);
        let marked = Marked { item, after_sync: !self.dirty };
        self.dirty = true;
        let (sections, _, _) = sections.append(self.section, &marked).await?;
        (self.sections, self.sealed) = (Some(sections), sealed);
        Ok(())
    }

    /// Appends a record; durable after [`Self::sync`].
    pub(crate) async fn append(&mut self, record: R) -> Result<(), Error> {
        self.tail += 1;
        self.write(Item::Record(record)).await
    }

    /// Makes everything appended so far durable, with one sync.
    pub(crate) async fn sync(&mut self) -> Result<(), Error> {
        let sections = self.sections.take().ok_or(Error::ReplayFailed)?;
        let sections = sections.sync(self.section).await?;
        if let Some(watermark) = &mut self.watermark {
            watermark.note((self.section, sections.size(self.section)?)).await;
        }
        self.sections = Some(sections);
        self.dirty = false;
        Ok(())
    }

    /// Appends records and makes them durable, with one sync.
    pub(crate) async fn keep(&mut self, records: &[R]) -> Result<(), Error> {
        for record in records {
            self.append(record.clone()).await?;
        }
        self.sync().await
    }

    /// Writes a mark behind the last synced record: from now on damage to that record differs from a torn
    /// write. Costs a sync, so it is called when nothing waits for the journal.
    pub(crate) async fn seal(&mut self) -> Result<(), Error> {
        if self.sealed || self.dirty || self.sections.is_none() {
            return Ok(());
        }
        self.write(Item::Complete).await?;
        self.sync().await
    }

    /// Receives the next command; `None` once all senders are gone. Seals the journal when none came for a
    /// while, and at the end.
    pub(crate) async fn next<T>(
        &mut self,
        context: &impl Clock,
        commands: &mut mpsc::Receiver<T>,
    ) -> Result<Option<T>, Error> {
        if !self.sealed {
            select! {
                next = commands.recv() => {
                    if next.is_none() && let Err(error) = self.seal().await {
                        tracing::warn!(%error, "a journal ends without its mark; nothing in it is lost by that");
                    }
                    return Ok(next);
                },
                () = context.sleep(IDLE) => {},
            }
            self.seal().await?;
        }
        Ok(commands.recv().await)
    }

    /// True if there is no snapshot yet, or if the changes since have outgrown a state of `size` records.
    /// A new journal always returns true before its first append: write a snapshot.
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
        // The mark proves that the records were durable before it.
        self.sync().await?;
        self.write(Item::Complete).await?;
        self.sync().await?;
        (self.tail, self.whole) = (0, true);
        let sections = self.sections.take().ok_or(Error::ReplayFailed)?;
        self.sections = Some(sections.prune(self.section).await?.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
