//! The only writer of the packs: groups and compaction. No policy, no mailbox.

use super::{
    StoreConfig, StoreError,
    files::{File, Files},
    frame::{Frame, Kind},
    full::{Volume, is_full, is_of_device},
    index::{Index, Place},
    log::{FRAMES_MAX, Log},
};
use bytes::Bytes;
use commonware_runtime::{Blob, Error as RuntimeError, IoBuf, ReadOptions, WriteOptions};
use commonware_storage::Context;
use commonware_utils::sync::Mutex;
use posync_client::{
    volume::is_away,
    watermark::{Mark, Watermark},
};
use posync_protocol::Hash;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Bytes written before the index is synced: a start reads at most this many again.
const UNLOGGED_BYTES_MAX: u64 = 64 << 20;
/// Bytes that one step of compaction moves.
const MOVE_BYTES: u64 = 8 << 20;

/// State that readers and the writer share.
pub(super) struct State {
    /// Locations and holders of all shards.
    pub index: Index,
    /// Numbers of the files that exist.
    pub present: BTreeSet<u32>,
    /// Files with unread parts that the index lacks: none of them is removed.
    pub unread: BTreeSet<u32>,
    /// Shards of which the last read failed or gave wrong bytes: a new put replaces them.
    pub bad: BTreeMap<Hash, Bad>,
    /// Why no new shard is accepted now; `None` if they are.
    pub full: Option<Full>,
}

/// Why a shard's bytes are not trusted now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// They are wrong, or gone, or failed to be read too often.
    Damaged,
    /// The disk failed to read them; so many times that it was read again ([`super::READ_AGAIN`]).
    Unread(u8),
}

impl State {
    /// Notes a failed read of a shard at a place, and returns its error as the caller sees it: damage, or a read that
    /// is tried again before it counts as damage. An error of the device says nothing about the bytes.
    pub(super) fn note_bad(&mut self, shard: &Hash, place: &Place, error: StoreError) -> StoreError {
        let is_there = self.index.get(shard).is_some_and(|entry| entry.place == *place);
        let error = match error {
            StoreError::Disk(error) if is_of_device(&error) && self.bad.get(shard) != Some(&Bad::Damaged) => {
                if is_there {
                    self.bad.entry(*shard).or_insert(Bad::Unread(0));
                }
                return StoreError::Unread(error);
            }
            error => error,
        };
        if is_there {
            self.bad.insert(*shard, Bad::Damaged);
        }
        error
    }
}

/// The state in which no new shard is accepted.
pub(super) struct Full {
    /// The reason, for the operator.
    pub why: String,
    /// Bytes for which the volume had no room, or was away; `None` if a write failed.
    pub refused: Option<u64>,
}

/// The shared state behind its lock, which is never held across an await, and the files.
pub(super) struct Inner<B> {
    state: Mutex<State>,
    pub files: Files<B>,
    volume: Volume,
}

impl<B> Inner<B> {
    pub(super) fn lock(&self) -> impl std::ops::DerefMut<Target = State> + '_ {
        self.state.lock()
    }

    /// Notes that shards are accepted, and logs it after a time when they were not.
    fn note_room(&self) {
        if self.lock().full.take().is_some() {
            tracing::info!("over: the volume takes shards again");
        }
    }

    /// Notes that shards are accepted if the volume has room now for those that it had no room for.
    pub(super) fn note_room_if_any(&self) {
        let refused = self.lock().full.as_ref().and_then(|full| full.refused);
        if refused.is_some_and(|bytes| self.volume.takes(bytes).is_ok()) {
            self.note_room();
        }
    }
}

/// Handle that readers and the writer share.
pub(super) type Shared<B> = Arc<Inner<B>>;

/// A frame and the bytes that follow it.
pub(super) type Item = (Frame, Option<Bytes>);

/// The writer of all packs.
pub(super) struct Writer<E: Context> {
    pub(super) context: E,
    pub(super) config: StoreConfig,
    pub(super) shared: Shared<E::Blob>,
    pub(super) log: Log<E>,
    pub(super) active: u32,
    unlogged: u64,
    /// True after a failed write to the active file: it is not written to again.
    broken: bool,
    /// Notes how much of the active file is durable.
    watermark: Option<Watermark<E::Blob>>,
    /// The file that was written last by the process before, and its durable bytes.
    pub(super) durable: Option<Mark>,
}

impl<E: Context> Writer<E> {
    /// Opens the files, replays the index and reads the frames that the index had not noted yet.
    pub(super) async fn open(context: E, config: StoreConfig) -> Result<Self, StoreError> {
        let (log, index) = Log::open(context.child("log"), &config.index_partition()).await?;
        let state = State {
            index,
            present: BTreeSet::new(),
            unread: BTreeSet::new(),
            bad: BTreeMap::new(),
            full: None,
        };
        let files = Files::new(context.child("files"), config.packs_partition());
        let shared = Arc::new(Inner { state: Mutex::new(state), files, volume: config.volume.clone() });
        let noted = Watermark::open(&context, &config.durable_partition()).await;
        let (watermark, durable) = noted.map_or((None, None), |(notes, newest)| (Some(notes), newest));
        let (active, unlogged, broken) = (0, 0, false);
        let mut writer = Self { context, config, shared, log, active, unlogged, broken, watermark, durable };
        writer.open_files().await?;
        writer.maintain_log(true).await?;
        Ok(writer)
    }

    /// The state that readers share.
    pub(super) fn shared(&self) -> Shared<E::Blob> {
        self.shared.clone()
    }

    /// Opens a file that exists.
    pub(super) async fn file(&self, number: u32) -> Result<Arc<File<E::Blob>>, StoreError> {
        let present = self.shared.lock().present.contains(&number);
        if present { self.shared.files.get(number).await } else { Err(StoreError::MissingFile(number)) }
    }

    pub(super) async fn open_pack(&mut self, number: u32) -> Result<(), StoreError> {
        let mut number = number;
        // A file that reappeared is skipped: the next start reads it.
        while self.shared.files.get(number).await?.size > 0 {
            number = number.checked_add(1).ok_or(StoreError::Bound("pack numbers"))?;
        }
        let mut state = self.shared.lock();
        state.present.insert(number);
        state.index.note_pack(number, 0);
        self.active = number;
        Ok(())
    }

    async fn rotate(&mut self) -> Result<(), StoreError> {
        self.log.sync().await?;
        self.unlogged = 0;
        let number = self.active.checked_add(1).ok_or(StoreError::Bound("pack numbers"))?;
        self.open_pack(number).await?;
        self.broken = false;
        Ok(())
    }

    fn active_end(&self) -> u64 {
        self.shared.lock().index.packs().get(&self.active).map_or(0, |file| file.end)
    }

    /// Writes a group with one write and one sync; on return it is durable and readable.
    ///
    /// # Errors
    /// `NoSpace` when the volume accepts no writes now: no part of the group took effect, and the next one
    /// may succeed.
    pub(super) async fn write(&mut self, items: Vec<Item>) -> Result<(), StoreError> {
        if items.is_empty() {
            return Ok(());
        }
        if items.len() > FRAMES_MAX {
            return Err(StoreError::Bound("frames of a group"));
        }
        let mut buffers: Vec<IoBuf> = Vec::with_capacity(2 * items.len());
        let mut frames = Vec::with_capacity(items.len());
        for (frame, data) in items {
            buffers.push(frame.header().into());
            buffers.extend(data.filter(|data| !data.is_empty()).map(IoBuf::from));
            frames.push(frame);
        }
        let start = match self.write_bytes(buffers).await {
            Err(StoreError::Disk(error)) if is_full(&error) => return Err(self.fill(&error).await),
            start => start?,
        };
        if self.shared.lock().full.is_some() && self.config.volume.takes(0).is_ok() {
            self.shared.note_room();
        }
        let mut at = start;
        {
            let mut state = self.shared.lock();
            for frame in &frames {
                state.index.apply(self.active, at, frame);
                if frame.kind == Kind::Keep {
                    state.bad.remove(&frame.shard);
                }
                at += frame.size();
            }
        }
        self.log.group(self.active, start, &frames).await?;
        self.unlogged += at - start;
        self.maintain_log(false).await
    }

    /// Appends to a file with room, durably; returns the offset.
    async fn write_bytes(&mut self, buffers: Vec<IoBuf>) -> Result<u64, StoreError> {
        if self.broken || self.active_end() >= self.config.pack_bytes {
            self.rotate().await?;
        }
        let start = self.active_end();
        let file = self.file(self.active).await?;
        let length: usize = buffers.iter().map(|buffer| buffer.as_ref().len()).sum();
        file.blob.write_at(start, buffers, WriteOptions::default()).await?;
        if !cfg!(planted = "unsynced-shard") {
            file.blob.sync().await?;
        }
        if let Some(watermark) = &mut self.watermark {
            watermark.note((self.active.into(), start + length as u64)).await;
        }
        Ok(start)
    }

    /// Notes that the volume accepts no writes. The remains of the failed write are cut off, and the file is
    /// not written to again: the system may have dropped its pages.
    async fn fill(&mut self, error: &RuntimeError) -> StoreError {
        let (number, end) = (self.active, self.active_end());
        if !self.broken {
            if let Ok(file) = self.file(number).await {
                let _ = file.blob.resize(end).await;
            }
            self.shared.files.close(number).await;
            self.broken = true;
        }
        let refused = is_away(error).then_some(0);
        self.note_full(format!("the volume takes no more: {error}"), refused)
    }

    /// Notes the reason for which no shard is accepted, and logs it when it begins.
    fn note_full(&self, why: String, refused: Option<u64>) -> StoreError {
        let mut state = self.shared.lock();
        if state.full.is_none() {
            tracing::error!(%why, "no shard is taken until the volume takes some; reading and proving go on");
        }
        state.full = Some(Full { why: why.clone(), refused });
        StoreError::NoSpace(why)
    }

    /// Checks that the volume is there, and has room for `bytes` beside its reserve.
    ///
    /// # Errors
    /// `NoSpace`.
    pub(super) fn check_volume(&self, bytes: u64) -> Result<(), StoreError> {
        let taken = self.config.volume.takes(bytes).map_err(|why| self.note_full(why, Some(bytes)));
        if taken.is_ok() && !self.broken {
            self.shared.note_room();
        }
        taken
    }

    async fn maintain_log(&mut self, at_start: bool) -> Result<(), StoreError> {
        let long = {
            let state = self.shared.lock();
            // Unread parts are older than anything written from now on: the next start must know.
            self.log.is_long(&state.index) || (at_start && !state.unread.is_empty())
        };
        if long {
            let index = self.shared.lock().index.clone();
            self.log.snapshot(&index).await?;
        } else if at_start || self.unlogged >= UNLOGGED_BYTES_MAX {
            self.log.sync().await?;
        } else {
            return Ok(());
        }
        self.unlogged = 0;
        Ok(())
    }

    /// Makes the index durable, so that the next start reads no shard.
    pub(super) async fn finish(&mut self) -> Result<(), StoreError> {
        self.log.sync().await
    }

    /// The next file to compact: an empty one at once, else one when much is dead, unless the last write
    /// failed.
    pub(super) fn victim(&self) -> Option<u32> {
        let state = self.shared.lock();
        let index = &state.index;
        let empty = index
            .packs()
            .iter()
            .find(|(number, file)| {
                **number != self.active && file.live == 0 && !state.unread.contains(number)
            })
            .map(|(n, _)| *n);
        let much = self.config.pack_bytes.max(index.file_bytes() / 4);
        let is_due = !self.broken && index.dead_bytes() > much;
        empty.or_else(|| is_due.then(|| index.emptiest(self.active, &state.bad, &state.unread)).flatten())
    }

    /// Moves some shards out of a file, and removes the file when none is left. An unreadable shard stays
    /// where it is and is noted as bad.
    ///
    /// # Errors
    /// `NoSpace`, and errors that end the writer.
    pub(super) async fn compact(&mut self, number: u32) -> Result<(), StoreError> {
        let (shards, is_empty) = {
            let state = self.shared.lock();
            let live = state.index.packs().get(&number).map_or(0, |file| file.live);
            (state.index.in_pack(number, MOVE_BYTES, &state.bad), live == 0)
        };
        if is_empty {
            return self.remove_file(number).await;
        }
        let mut items: Vec<Item> = vec![];
        for shard in shards {
            let Some(entry) = self.shared.lock().index.get(&shard).cloned() else { continue };
            let Some(data) = self.read_to_move(&shard, &entry.place).await? else { continue };
            let frame = |kind, agreement| Frame { kind, agreement, shard, length: entry.place.length };
            let mut holders = entry.holders.iter();
            items.extend(holders.next().map(|first| (frame(Kind::Keep, *first), Some(data))));
            items.extend(holders.map(|other| (frame(Kind::Link, *other), None)));
        }
        let mut rest = items.into_iter().peekable();
        while rest.peek().is_some() {
            self.write(rest.by_ref().take(FRAMES_MAX).collect()).await?;
        }
        Ok(())
    }

    /// The bytes of a shard that is to be moved; `None` if they are damaged or unreadable, which is noted.
    ///
    /// # Errors
    /// `NoSpace` while the volume is away.
    async fn read_to_move(&mut self, shard: &Hash, place: &Place) -> Result<Option<Bytes>, StoreError> {
        let read = match self.file(place.pack).await {
            Ok(file) => read(&file.blob, place.offset, place.length as usize).await,
            Err(error) => Err(error),
        };
        let why = match read {
            Ok(data) if blake3::hash(&data).as_bytes() == shard => return Ok(Some(data)),
            Ok(_) => StoreError::Damaged,
            Err(StoreError::Disk(RuntimeError::Closed)) => return Err(RuntimeError::Closed.into()),
            Err(StoreError::Disk(error)) if is_away(&error) => return Err(self.fill(&error).await),
            Err(error) => error,
        };
        let why = self.shared.lock().note_bad(shard, place, why);
        tracing::error!(error = %why, shard = %crate::data_sets::hex(shard), pack = place.pack,
            "a shard cannot be read and stays where it is");
        Ok(None)
    }

    async fn remove_file(&mut self, number: u32) -> Result<(), StoreError> {
        self.log.dropped(number).await?;
        self.log.sync().await?;
        {
            let mut state = self.shared.lock();
            state.index.give_up(number);
            state.present.remove(&number);
        }
        self.shared.files.close(number).await;
        let partition = self.config.packs_partition();
        match self.context.remove(&partition, Some(&number.to_be_bytes())).await {
            // The index keeps that it was given up: the next start removes it, as after a crash at this place.
            Err(error) if is_away(&error) => {
                tracing::info!(number, "a pack without shards stays for now: {error}");
                return Ok(());
            }
            removed => removed?,
        }
        self.shared.lock().index.off_disk(number);
        Ok(())
    }

    /// Frees space until `bytes` more fit below the cap.
    ///
    /// # Errors
    /// `Full` when no dead bytes are left, `NoSpace` when the volume has no room.
    pub(super) async fn make_room(&mut self, bytes: u64) -> Result<(), StoreError> {
        self.check_volume(bytes)?;
        loop {
            let (used, victim, active_dead) = {
                let state = self.shared.lock();
                let active = state.index.packs().get(&self.active).copied().unwrap_or_default();
                let victim = state.index.emptiest(self.active, &state.bad, &state.unread);
                (state.index.file_bytes(), victim, active.end.saturating_sub(active.live))
            };
            if used + bytes <= self.config.usable_bytes() {
                return Ok(());
            }
            match victim {
                Some(number) => self.compact(number).await?,
                None if active_dead > 0 => match self.rotate().await {
                    Err(StoreError::Disk(error)) if is_full(&error) => return Err(self.fill(&error).await),
                    rotated => rotated?,
                },
                None => return Err(StoreError::Full { used, cap: self.config.usable_bytes() }),
            }
        }
    }
}

pub(super) async fn read<B: Blob>(file: &B, offset: u64, length: usize) -> Result<Bytes, StoreError> {
    if length == 0 {
        return Ok(Bytes::new());
    }
    Ok(file.read_at(offset, length, ReadOptions::default()).await?.coalesce().freeze().into())
}
