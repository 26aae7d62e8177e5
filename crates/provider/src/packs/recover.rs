//! Recovery at a start: reads the parts of the packs that the index had not noted.
//!
//! ```text
//!   newest known file, and later ones --> every whole frame behind the noted ones
//!   a file that the index does not know, before them --> the shards that lie nowhere else
//!   a bad header --> the next whole header; no hold of a shard is removed after it
//! ```
//!
//! Only the torn end of the newest file is cut off, and only when all of it was read. What was acknowledged is no torn
//! end: below the length that was noted after a sync, a shard whose bytes do not match its name is damaged. A sealed file is
//! never shortened: bytes that look bad today may be readable tomorrow. A file with an unreadable part is
//! neither written nor removed, and the next start reads it again from there.

use super::{
    StoreError,
    files::File,
    frame::{Frame, HEADER_BYTES, Kind, MAGIC},
    index::{Place, StoredShard},
    store::{Writer, read},
};
use commonware_runtime::{Blob, Error as RuntimeError};
use commonware_storage::Context;
use std::collections::BTreeMap;

/// Bytes that are searched for the next header at once.
const SEARCH_BYTES: usize = 64 << 10;

/// Faults that a walk through a file has passed.
#[derive(Clone, Copy, Default)]
struct Passed {
    /// True after a bad header.
    bad: bool,
    /// True after bytes that could not be read, whose content is unknown.
    unread: bool,
}

/// A frame with a whole header, and the faults before it.
struct FoundFrame {
    at: u64,
    frame: Frame,
    passed: Passed,
}

impl<E: Context> Writer<E> {
    /// Opens every file once and takes the frames that the index lacks.
    pub(super) async fn open_files(&mut self) -> Result<(), StoreError> {
        let numbers = self.numbers().await?;
        let newest = self.shared.lock().index.packs().keys().next_back().copied();
        let last = numbers.last().copied();
        let given_up = self.shared.lock().index.given_up().clone();
        let mut sizes = BTreeMap::new();
        for number in numbers {
            if given_up.contains(&number) {
                // A crash came between the note that the file is empty and its removal.
                let partition = self.config.packs_partition();
                self.context.remove(&partition, Some(&number.to_be_bytes())).await?;
                continue;
            }
            let known = self.shared.lock().index.packs().get(&number).copied();
            let file = match self.shared.files.get(number).await {
                Ok(file) => file,
                Err(StoreError::Disk(error @ RuntimeError::Closed)) => return Err(error.into()),
                Err(error) => {
                    // The file exists: its shards are not lost, and every read tries again.
                    tracing::error!(%error, pack = number, "a pack cannot be opened now");
                    let mut state = self.shared.lock();
                    state.present.insert(number);
                    state.unread.insert(number);
                    drop(state);
                    sizes.insert(number, u64::MAX);
                    continue;
                }
            };
            self.shared.lock().present.insert(number);
            let is_old = newest.is_some_and(|newest| number < newest);
            match known {
                None if is_old => self.adopt(number, &file).await?,
                known => {
                    let end = known.map_or(0, |file| file.end);
                    self.recover(number, end, &file, is_old, last == Some(number)).await?;
                }
            }
            sizes.insert(number, file.size);
            self.active = number;
        }
        given_up.iter().for_each(|number| self.shared.lock().index.off_disk(*number));
        self.lose_missing(&sizes);
        let top = last.max(newest);
        let is_usable = {
            let state = self.shared.lock();
            // Only the highest file may be written to, and only when all of it is known.
            top == Some(self.active)
                && state.present.contains(&self.active)
                && !state.unread.contains(&self.active)
        };
        if !is_usable {
            let number = top.map_or(Some(0), |top| top.checked_add(1));
            self.open_pack(number.ok_or(StoreError::Bound("pack numbers"))?).await?;
        }
        Ok(())
    }

    async fn numbers(&self) -> Result<Vec<u32>, StoreError> {
        let names = match self.context.scan(&self.config.packs_partition()).await {
            Err(RuntimeError::PartitionMissing(_)) => vec![],
            names => names?,
        };
        let mut numbers: Vec<u32> = vec![];
        for name in names {
            let bytes = <[u8; 4]>::try_from(name.as_slice()).map_err(|_| StoreError::Foreign(name))?;
            numbers.push(u32::from_be_bytes(bytes));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Takes whole frames that the index had not noted; in the newest file, cuts off the remains of a crash
    /// behind them. In an old file, whose successors were noted without it, no hold is removed.
    async fn recover(
        &mut self,
        number: u32,
        end: u64,
        file: &File<E::Blob>,
        is_old: bool,
        is_newest: bool,
    ) -> Result<(), StoreError> {
        if file.size < self.durable_end(number) {
            tracing::error!(
                pack = number,
                size = file.size,
                "the end of a pack is gone; its shards are lost"
            );
        }
        if file.size <= end {
            return Ok(());
        }
        let durable = self.durable_end(number).min(file.size);
        let (mut at, mut passed, mut valid) = (end, Passed::default(), end);
        while let Some(found) = next(file, at, &mut passed).await? {
            at = found.at + found.frame.size();
            let is_whole = is_whole(file, &found, &mut passed).await?;
            if is_whole || at <= durable && !passed.unread {
                valid = at;
                // A header behind a bad one may be part of stored user data.
                let keeps_all = is_old || found.passed.bad || found.passed.unread;
                if !(keeps_all && found.frame.kind == Kind::Unlink) {
                    self.take(number, &found, is_old, is_whole).await?;
                }
            }
        }
        if passed.unread {
            self.leave_unread(number, end);
            return Ok(());
        }
        if passed.bad && (valid > end && !is_newest || valid < durable) {
            tracing::error!(pack = number, "a pack is damaged; what was not hit is kept");
        }
        let valid = valid.max(durable);
        if valid < file.size && is_newest {
            let size = file.size;
            tracing::info!(pack = number, valid, size, "cutting off what a crash left unfinished");
            file.blob.resize(valid).await?;
            file.blob.sync().await?;
            self.shared.lock().index.note_pack(number, valid);
        } else {
            self.shared.lock().index.note_pack(number, file.size);
        }
        Ok(())
    }

    /// Bytes of a file that were durable when the process before ended.
    fn durable_end(&self, number: u32) -> u64 {
        self.durable.filter(|(of, _)| *of == u64::from(number)).map_or(0, |(_, length)| length)
    }

    /// Takes a frame into the index. After unread bytes, the file's noted end stays before them. A shard of
    /// an old file that lies elsewhere by now stays there, and so does one whose frame here is not whole: the copy
    /// may be of a compaction that did not end. Only a shard without another place is known by damaged bytes, and none
    /// behind a bad header, where its name may be part of stored user data.
    async fn take(
        &mut self,
        number: u32,
        found: &FoundFrame,
        is_old: bool,
        is_whole: bool,
    ) -> Result<(), StoreError> {
        let Frame { kind, agreement, shard, length } = found.frame;
        let here = Place { pack: number, offset: found.at + HEADER_BYTES as u64, length };
        let (known, is_damaged) = {
            let state = self.shared.lock();
            (state.index.get(&shard).map(|entry| entry.place), state.damaged.contains(&shard))
        };
        let is_taken = match known {
            None => is_whole || !found.passed.bad,
            Some(_) => is_whole && (!is_old || is_damaged),
        };
        let place = if kind == Kind::Keep && is_taken { Some(here) } else { known };
        if kind == Kind::Keep && place == Some(here) {
            let damaged = &mut self.shared.lock().damaged;
            if is_whole {
                damaged.remove(&shard)
            } else {
                damaged.insert(shard)
            };
        }
        if kind == Kind::Keep && place.is_none() {
            return Ok(());
        }
        if found.passed.unread {
            let Some(place) = place else { return Ok(()) };
            let entry = StoredShard { place, holders: vec![agreement] };
            self.log.entry(&shard, &entry).await?;
            self.shared.lock().index.restore(shard, entry);
            return Ok(());
        }
        let moves = kind == Kind::Keep && place != Some(here);
        let frame = if moves { Frame { kind: Kind::Link, ..found.frame } } else { found.frame };
        self.shared.lock().index.apply(number, found.at, &frame);
        self.log.group(number, found.at, &[frame]).await
    }

    /// Notes that a part of a file could not be read.
    fn leave_unread(&self, number: u32, end: u64) {
        tracing::error!(
            pack = number,
            "a pack cannot be read in parts now; it stays as it is, and the next start reads it again"
        );
        let mut state = self.shared.lock();
        state.index.note_pack(number, end);
        state.unread.insert(number);
    }

    /// Takes the shards of an unknown file that lie nowhere else. The file may have been away, or a crash
    /// left it after everything had moved. No file is removed because an index lacks it.
    async fn adopt(&mut self, number: u32, file: &File<E::Blob>) -> Result<(), StoreError> {
        let (mut at, mut passed, mut shards) = (0, Passed::default(), 0_usize);
        while let Some(found) = next(file, at, &mut passed).await? {
            let frame = found.frame;
            at = found.at + frame.size();
            let place = self.shared.lock().index.get(&frame.shard).map(|entry| entry.place);
            let here = place.is_some_and(|place| place.pack == number);
            let takes = match frame.kind {
                Kind::Keep => place.is_none() && is_whole(file, &found, &mut passed).await?,
                Kind::Link => here,
                Kind::Unlink => false,
            };
            if takes {
                shards += usize::from(frame.kind == Kind::Keep);
                self.take(number, &found, true, true).await?;
            }
        }
        if passed.unread {
            self.leave_unread(number, 0);
        } else {
            self.shared.lock().index.note_pack(number, file.size);
        }
        tracing::info!(pack = number, shards, "took what lies in a pack that the index lacked");
        Ok(())
    }

    /// Forgets shards whose file is gone or too short: the data sets still name them, so they are
    /// reported as missing. A file that returns is adopted by the next start.
    fn lose_missing(&self, sizes: &BTreeMap<u32, u64>) {
        let mut state = self.shared.lock();
        let files: Vec<(u32, u64)> =
            state.index.packs().iter().map(|(number, file)| (*number, file.end)).collect();
        for (number, end) in files {
            let size = sizes.get(&number).copied();
            if size.unwrap_or(0) >= end {
                continue;
            }
            let mut lost = state.index.in_pack(number, u64::MAX, &Default::default());
            lost.retain(|shard| {
                state.index.get(shard).is_none_or(|entry| entry.place.end() > size.unwrap_or(0))
            });
            tracing::error!(pack = number, shards = lost.len(), "a pack is missing or too short");
            for shard in lost {
                let entry = state.index.get(&shard).cloned();
                for agreement in entry.map(|entry| entry.holders).unwrap_or_default() {
                    let frame = Frame { kind: Kind::Unlink, agreement, shard, length: 0 };
                    state.index.apply(number, 0, &frame);
                }
            }
            if size.is_none() {
                state.index.drop_pack(number);
            }
        }
    }
}

/// The first frame at or after `at` whose header is whole and that ends within the file. `passed`
/// notes faults before it.
///
/// # Errors
/// A disk error that must end the process.
async fn next<B: Blob>(
    file: &File<B>,
    at: u64,
    passed: &mut Passed,
) -> Result<Option<FoundFrame>, StoreError> {
    let mut at = at;
    while at + HEADER_BYTES as u64 <= file.size {
        if let Some(frame) = head(file, at, passed).await? {
            return Ok(Some(FoundFrame { at, frame, passed: *passed }));
        }
        passed.bad = true;
        at = search(file, at + 1, passed).await?;
    }
    Ok(None)
}

async fn head<B: Blob>(file: &File<B>, at: u64, passed: &mut Passed) -> Result<Option<Frame>, StoreError> {
    let Some(head) = try_read(file, at, HEADER_BYTES, passed).await? else { return Ok(None) };
    Ok(Frame::parse(&head).filter(|frame| at + frame.size() <= file.size))
}

/// The offset at which the next header may begin, from `at` on; the end of the file if there is none.
async fn search<B: Blob>(file: &File<B>, at: u64, passed: &mut Passed) -> Result<u64, StoreError> {
    let mut at = at;
    while at + HEADER_BYTES as u64 <= file.size {
        let length = usize::try_from(file.size - at).unwrap_or(usize::MAX).min(SEARCH_BYTES);
        match try_read(file, at, length, passed).await? {
            Some(bytes) => {
                if let Some(place) = bytes.windows(MAGIC.len()).position(|part| part == MAGIC) {
                    return Ok(at + place as u64);
                }
                // The magic may lie across the end.
                at += (length - (MAGIC.len() - 1)) as u64;
            }
            None => at += length as u64,
        }
    }
    Ok(file.size)
}

/// Reads bytes; `None` if the disk cannot read them, which `passed` notes.
async fn try_read<B: Blob>(
    file: &File<B>,
    at: u64,
    length: usize,
    passed: &mut Passed,
) -> Result<Option<bytes::Bytes>, StoreError> {
    match read(&file.blob, at, length).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(StoreError::Disk(error @ RuntimeError::Closed)) => Err(error.into()),
        Err(_) => {
            passed.unread = true;
            Ok(None)
        }
    }
}

async fn is_whole<B: Blob>(
    file: &File<B>,
    found: &FoundFrame,
    passed: &mut Passed,
) -> Result<bool, StoreError> {
    let FoundFrame { at, frame, .. } = found;
    if frame.kind != Kind::Keep {
        return Ok(true);
    }
    let data = try_read(file, at + HEADER_BYTES as u64, frame.length as usize, passed).await?;
    Ok(data.is_some_and(|data| blake3::hash(&data).as_bytes() == &frame.shard))
}
