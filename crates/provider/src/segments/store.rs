//! The one writer of the segment files: groups, recovery and compaction. No policy, no mailbox.

use super::{
    StoreConfig, StoreError,
    frame::{Frame, HEADER_BYTES, Kind},
    index::{Index, Place},
    log::{FRAMES_MAX, Log},
};
use bytes::Bytes;
use commonware_runtime::{Blob, Error as RuntimeError, IoBuf, ReadOptions, WriteOptions};
use commonware_storage::Context;
use commonware_utils::sync::Mutex;
use posync_protocol::Hash;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Bytes written before the index is synced: a start reads at most this much again.
const UNLOGGED_BYTES_MAX: u64 = 64 << 20;
/// Bytes that one step of compaction moves.
const MOVE_BYTES: u64 = 8 << 20;

/// What readers and the writer share.
pub(super) struct State<B> {
    /// Where everything lies.
    pub index: Index,
    /// Open files.
    pub files: BTreeMap<u32, Arc<B>>,
    /// Shards that a read or the scrub found damaged: a new put writes them anew.
    pub damaged: BTreeSet<Hash>,
}

/// State behind its lock; never held across an await.
pub(super) type Shared<B> = Arc<Mutex<State<B>>>;

/// A frame and the bytes that follow it.
pub(super) type Item = (Frame, Option<Bytes>);

/// The writer.
pub(super) struct Writer<E: Context> {
    context: E,
    config: StoreConfig,
    shared: Shared<E::Blob>,
    log: Log<E>,
    active: u32,
    unlogged: u64,
}

impl<E: Context> Writer<E> {
    /// Opens the files, replays the index and reads what the index had not noted yet.
    pub(super) async fn open(context: E, config: StoreConfig) -> Result<Self, StoreError> {
        let (log, index) = Log::open(context.child("log"), &config.index_partition()).await?;
        let state = State { index, files: BTreeMap::new(), damaged: BTreeSet::new() };
        let shared = Arc::new(Mutex::new(state));
        let mut writer = Self { context, config, shared, log, active: 0, unlogged: 0 };
        writer.open_files().await?;
        writer.maintain_log(true).await?;
        Ok(writer)
    }

    /// The state that readers share.
    pub(super) fn shared(&self) -> Shared<E::Blob> {
        self.shared.clone()
    }

    async fn open_files(&mut self) -> Result<(), StoreError> {
        let partition = self.config.segments_partition();
        let names = match self.context.scan(&partition).await {
            Err(RuntimeError::PartitionMissing(_)) => vec![],
            names => names?,
        };
        let mut numbers: Vec<u32> = vec![];
        for name in names {
            let bytes = <[u8; 4]>::try_from(name.as_slice()).map_err(|_| StoreError::Foreign(name))?;
            numbers.push(u32::from_be_bytes(bytes));
        }
        numbers.sort_unstable();
        let newest = self.shared.lock().index.segments().keys().next_back().copied();
        let mut sizes = BTreeMap::new();
        for number in numbers {
            let known = self.shared.lock().index.segments().get(&number).copied();
            if known.is_none() && newest.is_some_and(|newest| number < newest) {
                self.context.remove(&partition, Some(&number.to_be_bytes())).await?;
                continue;
            }
            let (blob, size) = self.context.open(&partition, &number.to_be_bytes()).await?;
            self.shared.lock().files.insert(number, Arc::new(blob));
            self.recover(number, known.map_or(0, |file| file.end), size).await?;
            sizes.insert(number, size);
            self.active = number;
        }
        self.lose_missing(&sizes);
        if !self.shared.lock().files.contains_key(&self.active) {
            self.open_segment(newest.map_or(0, |newest| newest + 1)).await?;
        }
        Ok(())
    }

    /// Takes whole frames that the index had not noted; cuts off what a crash left behind them.
    async fn recover(&mut self, number: u32, end: u64, size: u64) -> Result<(), StoreError> {
        if size <= end {
            return Ok(());
        }
        let file = self.file(number)?;
        let (mut at, mut valid) = (end, end);
        while at + HEADER_BYTES as u64 <= size {
            let head = read(&file, at, HEADER_BYTES).await?;
            let Some(frame) = Frame::parse(&head).filter(|frame| at + frame.size() <= size) else { break };
            if whole(&file, at, &frame).await? {
                self.shared.lock().index.apply(number, at, &frame);
                self.log.group(number, at, &[frame]).await?;
                valid = at + frame.size();
            }
            at += frame.size();
        }
        if valid < size {
            tracing::info!(segment = number, valid, size, "cutting off what a crash left unfinished");
            file.resize(valid).await?;
            file.sync().await?;
        }
        Ok(())
    }

    /// Forgets shards whose file is gone or too short: the books still name them, so they are
    /// reported as missing.
    fn lose_missing(&self, sizes: &BTreeMap<u32, u64>) {
        let mut state = self.shared.lock();
        let files: Vec<(u32, u64)> =
            state.index.segments().iter().map(|(number, file)| (*number, file.end)).collect();
        for (number, end) in files {
            let size = sizes.get(&number).copied();
            if size.unwrap_or(0) >= end {
                continue;
            }
            let mut lost = state.index.in_segment(number, u64::MAX);
            lost.retain(|shard| {
                state.index.get(shard).is_none_or(|entry| entry.place.end() > size.unwrap_or(0))
            });
            tracing::error!(segment = number, shards = lost.len(), "a segment file is missing or too short");
            for shard in lost {
                let entry = state.index.get(&shard).cloned();
                for agreement in entry.map(|entry| entry.holders).unwrap_or_default() {
                    let frame = Frame { kind: Kind::Unlink, agreement, shard, length: 0 };
                    state.index.apply(number, 0, &frame);
                }
            }
            if size.is_none() {
                state.index.drop_segment(number);
            }
        }
    }

    fn file(&self, number: u32) -> Result<Arc<E::Blob>, StoreError> {
        self.shared.lock().files.get(&number).cloned().ok_or(StoreError::MissingFile(number))
    }

    async fn open_segment(&mut self, number: u32) -> Result<(), StoreError> {
        let partition = self.config.segments_partition();
        let (blob, _) = self.context.open(&partition, &number.to_be_bytes()).await?;
        let mut state = self.shared.lock();
        state.files.insert(number, Arc::new(blob));
        state.index.note_segment(number, 0);
        self.active = number;
        Ok(())
    }

    async fn rotate(&mut self) -> Result<(), StoreError> {
        self.log.sync().await?;
        self.unlogged = 0;
        let number = self.active.checked_add(1).ok_or(StoreError::Bound("segment numbers"))?;
        self.open_segment(number).await
    }

    fn active_end(&self) -> u64 {
        self.shared.lock().index.segments().get(&self.active).map_or(0, |file| file.end)
    }

    /// Writes a group with one write and one sync; on return it is durable and readable.
    pub(super) async fn write(&mut self, items: Vec<Item>) -> Result<(), StoreError> {
        if items.is_empty() {
            return Ok(());
        }
        if items.len() > FRAMES_MAX {
            return Err(StoreError::Bound("frames of a group"));
        }
        if self.active_end() >= self.config.segment_bytes {
            self.rotate().await?;
        }
        let start = self.active_end();
        let file = self.file(self.active)?;
        let mut buffers: Vec<IoBuf> = Vec::with_capacity(2 * items.len());
        let mut frames = Vec::with_capacity(items.len());
        for (frame, data) in items {
            buffers.push(frame.header().into());
            buffers.extend(data.filter(|data| !data.is_empty()).map(IoBuf::from));
            frames.push(frame);
        }
        file.write_at(start, buffers, WriteOptions::default()).await?;
        if !cfg!(planted = "unsynced-shard") {
            file.sync().await?;
        }
        let mut at = start;
        {
            let mut state = self.shared.lock();
            for frame in &frames {
                state.index.apply(self.active, at, frame);
                if frame.kind == Kind::Keep {
                    state.damaged.remove(&frame.shard);
                }
                at += frame.size();
            }
        }
        self.log.group(self.active, start, &frames).await?;
        self.unlogged += at - start;
        self.maintain_log(false).await
    }

    async fn maintain_log(&mut self, at_start: bool) -> Result<(), StoreError> {
        let long = self.log.is_long(&self.shared.lock().index);
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

    /// The next file worth compacting: an empty one at once, else one when much is dead.
    pub(super) fn victim(&self) -> Option<u32> {
        let state = self.shared.lock();
        let index = &state.index;
        let empty = index
            .segments()
            .iter()
            .find(|(number, file)| **number != self.active && file.live == 0)
            .map(|(n, _)| *n);
        let much = self.config.segment_bytes.max(index.file_bytes() / 4);
        empty.or_else(|| (index.dead_bytes() > much).then(|| index.emptiest(self.active)).flatten())
    }

    /// Moves some shards out of a file, and removes the file when none is left.
    pub(super) async fn compact(&mut self, number: u32) -> Result<(), StoreError> {
        let shards = self.shared.lock().index.in_segment(number, MOVE_BYTES);
        if shards.is_empty() {
            return self.remove_file(number).await;
        }
        let file = self.file(number)?;
        let mut items: Vec<Item> = vec![];
        for shard in shards {
            let Some(entry) = self.shared.lock().index.get(&shard).cloned() else { continue };
            let data = read_place(&file, &entry.place, 0, entry.place.length as usize).await?;
            let frame = |kind, agreement| Frame { kind, agreement, shard, length: entry.place.length };
            let mut holders = entry.holders.iter();
            items.extend(holders.next().map(|first| (frame(Kind::Keep, *first), Some(data))));
            items.extend(holders.map(|other| (frame(Kind::Link, *other), None)));
        }
        let mut rest = items.into_iter().peekable();
        while rest.peek().is_some() {
            let damaged = self.shared.lock().damaged.clone();
            self.write(rest.by_ref().take(FRAMES_MAX).collect()).await?;
            self.shared.lock().damaged.extend(damaged);
        }
        Ok(())
    }

    async fn remove_file(&mut self, number: u32) -> Result<(), StoreError> {
        self.log.dropped(number).await?;
        self.log.sync().await?;
        {
            let mut state = self.shared.lock();
            state.index.drop_segment(number);
            state.files.remove(&number);
        }
        let partition = self.config.segments_partition();
        Ok(self.context.remove(&partition, Some(&number.to_be_bytes())).await?)
    }

    /// Frees space until `bytes` more fit below the cap.
    ///
    /// # Errors
    /// `Full` when nothing dead is left.
    pub(super) async fn make_room(&mut self, bytes: u64) -> Result<(), StoreError> {
        loop {
            let (used, victim, active_dead) = {
                let state = self.shared.lock();
                let active = state.index.segments().get(&self.active).copied().unwrap_or_default();
                (state.index.file_bytes(), state.index.emptiest(self.active), active.end - active.live)
            };
            if used + bytes <= self.config.usable_bytes() {
                return Ok(());
            }
            match victim {
                Some(number) => self.compact(number).await?,
                None if active_dead > 0 => self.rotate().await?,
                None => return Err(StoreError::Full { used, cap: self.config.usable_bytes() }),
            }
        }
    }
}

async fn whole<B: Blob>(file: &B, at: u64, frame: &Frame) -> Result<bool, StoreError> {
    if frame.kind != Kind::Keep {
        return Ok(true);
    }
    let data = read(file, at + HEADER_BYTES as u64, frame.length as usize).await?;
    Ok(blake3::hash(&data).as_bytes() == &frame.shard)
}

async fn read<B: Blob>(file: &B, offset: u64, length: usize) -> Result<Bytes, StoreError> {
    if length == 0 {
        return Ok(Bytes::new());
    }
    Ok(file.read_at(offset, length, ReadOptions::default()).await?.coalesce().freeze().into())
}

/// Reads a range of a shard.
pub(super) async fn read_place<B: Blob>(
    file: &B,
    place: &Place,
    offset: u64,
    length: usize,
) -> Result<Bytes, StoreError> {
    read(file, place.offset + offset, length).await
}
