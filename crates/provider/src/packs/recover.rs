//! Recovery at a start: reads the parts of the packs that the index had not noted.
//!
//! ```text
//!   newest known file, and later ones --> every whole frame behind the noted ones
//!   a file that the index does not know, before them --> the shards that lie nowhere else
//!   a bad header --> the next whole header; no hold of a shard is removed after it
//! ```
//!
//! The bytes behind a bad header may be user data that reads as headers. So behind it, every header moves the walk on
//! by one byte, unless it is of a whole shard with another header, or the end of the file, right behind it.
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
    store::{Bad, Writer, read},
};
use bytes::Bytes;
use commonware_runtime::{Blob, Error as RuntimeError};
use commonware_storage::Context;
use posync_protocol::limits::SHARD_BYTES_MAX;
use std::collections::BTreeMap;

/// Bytes that are searched for the next header at once.
const SEARCH_BYTES: usize = 64 << 10;
/// Bytes of one file that are hashed for headers without their shard: 256 of the largest. Beyond that only a shard with
/// a header, or the end of the file, right behind it is hashed: thousands of headers stored in a shard do not delay a
/// start by hours.
const VAIN_BYTES_MAX: u64 = 256 * SHARD_BYTES_MAX;

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
    /// True if the frames before it lead there: it was not searched for.
    is_next: bool,
}

impl FoundFrame {
    fn end(&self) -> u64 {
        self.at + self.frame.size()
    }
}

/// A walk through the frames of a file.
struct Walk<'a, B> {
    file: &'a File<B>,
    /// Offset from which on the next frame is looked for.
    at: u64,
    /// True if a frame ends at `at`, so that the next one begins there.
    is_next: bool,
    passed: Passed,
    /// Bytes that may still be hashed for headers without their shard.
    left: u64,
    /// The part of the file that is being searched, with its offset.
    part: (u64, Bytes),
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
        let (mut walk, mut valid) = (Walk::new(file, end), end);
        while let Some(found) = walk.next().await? {
            let is_whole = walk.pass(&found, true).await?;
            let is_hit = found.is_next && found.end() <= durable && !walk.passed.unread;
            if is_whole || is_hit {
                valid = valid.max(found.end());
                // A header behind a bad one may be part of stored user data.
                let keeps_all = is_old || found.passed.bad || found.passed.unread;
                if !(keeps_all && found.frame.kind == Kind::Unlink) {
                    self.take(number, &found, is_old, is_whole).await?;
                }
            }
        }
        if walk.passed.unread {
            self.leave_unread(number, end);
            return Ok(());
        }
        if walk.passed.bad && (valid > end && !is_newest || valid < durable) {
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
            (state.index.get(&shard).map(|entry| entry.place), state.bad.contains_key(&shard))
        };
        let is_taken = match known {
            None => is_whole || !found.passed.bad,
            Some(_) => is_whole && (!is_old || is_damaged),
        };
        let place = if kind == Kind::Keep && is_taken { Some(here) } else { known };
        if kind == Kind::Keep && place == Some(here) {
            let bad = &mut self.shared.lock().bad;
            if is_whole {
                bad.remove(&shard)
            } else {
                // A start does not say why: the next read does.
                bad.insert(shard, Bad::Unread(0))
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
        let (mut walk, mut shards) = (Walk::new(file, 0), 0_usize);
        while let Some(found) = walk.next().await? {
            let frame = found.frame;
            let place = self.shared.lock().index.get(&frame.shard).map(|entry| entry.place);
            let here = place.is_some_and(|place| place.pack == number);
            let is_whole = walk.pass(&found, place.is_none()).await?;
            let takes = match frame.kind {
                Kind::Keep => place.is_none() && is_whole,
                Kind::Link => here,
                Kind::Unlink => false,
            };
            if takes {
                shards += usize::from(frame.kind == Kind::Keep);
                self.take(number, &found, true, true).await?;
            }
        }
        if walk.passed.unread {
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

impl<'a, B: Blob> Walk<'a, B> {
    /// A walk from `at` on, where a frame begins.
    fn new(file: &'a File<B>, at: u64) -> Self {
        let (passed, part) = (Passed::default(), (0, Bytes::new()));
        Self { file, at, is_next: true, passed, left: VAIN_BYTES_MAX, part }
    }

    /// The next frame whose header is whole and that ends within the file.
    ///
    /// # Errors
    /// A disk error that must end the process.
    async fn next(&mut self) -> Result<Option<FoundFrame>, StoreError> {
        while self.at + HEADER_BYTES as u64 <= self.file.size {
            let (at, is_next) = (self.at, self.is_next);
            if let Some(frame) = self.head(at).await? {
                return Ok(Some(FoundFrame { at, frame, passed: self.passed, is_next }));
            }
            (self.passed.bad, self.is_next) = (true, false);
            self.search(at + 1).await?;
        }
        Ok(None)
    }

    /// Goes on behind a frame. Returns false if its shard's bytes are damaged, or were not read behind a bad header.
    /// Those of a frame without a bad header before it are read only if `is_new`.
    async fn pass(&mut self, found: &FoundFrame, is_new: bool) -> Result<bool, StoreError> {
        let (is_keep, end) = (found.frame.kind == Kind::Keep, found.end());
        let is_sure = found.is_next && !found.passed.bad;
        let leads_on = !is_sure && (end == self.file.size || self.head(end).await?.is_some());
        let reads = is_keep && if is_sure { is_new } else { self.left > 0 || leads_on };
        let is_whole = if reads { self.is_whole(found).await? } else { !is_keep || is_sure };
        if is_keep && !is_whole && !is_sure {
            self.left = self.left.saturating_sub(found.frame.size());
        }
        let may_lead = if is_keep { is_whole && leads_on } else { found.is_next };
        self.is_next = is_sure || may_lead;
        self.at = if self.is_next { end } else { found.at + 1 };
        Ok(is_whole)
    }

    async fn head(&mut self, at: u64) -> Result<Option<Frame>, StoreError> {
        let size = self.file.size;
        if at + HEADER_BYTES as u64 > size {
            return Ok(None);
        }
        let head = match self.searched(at, HEADER_BYTES) {
            Some(head) => Some(head),
            None => self.try_read(at, HEADER_BYTES).await?,
        };
        Ok(head.and_then(|head| Frame::parse(&head)).filter(|frame| at + frame.size() <= size))
    }

    /// Bytes of the part that was read last.
    fn searched(&self, at: u64, length: usize) -> Option<Bytes> {
        let (start, bytes) = &self.part;
        let from = usize::try_from(at.checked_sub(*start)?).ok()?;
        let end = from.checked_add(length).filter(|end| *end <= bytes.len())?;
        Some(bytes.slice(from..end))
    }

    /// Goes on where the next header may begin, from `at` on; to the end of the file if there is none.
    async fn search(&mut self, at: u64) -> Result<(), StoreError> {
        self.at = at;
        while self.at + HEADER_BYTES as u64 <= self.file.size {
            let (start, bytes) = &self.part;
            // The magic may lie across the end.
            if self.at < *start || self.at + HEADER_BYTES as u64 > start + bytes.len() as u64 {
                let rest = usize::try_from(self.file.size - self.at).unwrap_or(usize::MAX);
                let length = rest.min(SEARCH_BYTES);
                match self.try_read(self.at, length).await? {
                    Some(bytes) => self.part = (self.at, bytes),
                    None => {
                        self.at += length as u64;
                        continue;
                    }
                }
            }
            let (start, bytes) = &self.part;
            let from = usize::try_from(self.at - start).unwrap_or(usize::MAX).min(bytes.len());
            match bytes[from..].windows(MAGIC.len()).position(|part| part == MAGIC) {
                Some(place) => {
                    self.at += place as u64;
                    return Ok(());
                }
                None => self.at = start + (bytes.len() - (MAGIC.len() - 1)) as u64,
            }
        }
        self.at = self.file.size;
        Ok(())
    }

    /// Reads bytes; `None` if the disk cannot read them, which is noted.
    async fn try_read(&mut self, at: u64, length: usize) -> Result<Option<Bytes>, StoreError> {
        match read(&self.file.blob, at, length).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StoreError::Disk(error @ RuntimeError::Closed)) => Err(error.into()),
            Err(_) => {
                self.passed.unread = true;
                Ok(None)
            }
        }
    }

    async fn is_whole(&mut self, FoundFrame { at, frame, .. }: &FoundFrame) -> Result<bool, StoreError> {
        let data = self.try_read(at + HEADER_BYTES as u64, frame.length as usize).await?;
        Ok(data.is_some_and(|data| blake3::hash(&data).as_bytes() == &frame.shard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_runtime::{Runner as _, Storage as _, WriteOptions, deterministic};
    use posync_protocol::{Account, AgreementId};

    fn keep(shard: [u8; 32], length: u64) -> Vec<u8> {
        let agreement = AgreementId { provider: Account([1; 32]), slot: 3, opened: 5 };
        let length = u32::try_from(length).expect("small");
        Frame { kind: Kind::Keep, agreement, shard, length }.header()
    }

    /// Walks through a file; returns the offsets of whole shards, and the number of headers that were looked at.
    async fn walk<B: Blob>(file: &File<B>, left: u64) -> (Vec<u64>, u64) {
        let (mut whole, mut headers) = (vec![], 0);
        let mut walk = Walk { left, ..Walk::new(file, 0) };
        while let Some(found) = walk.next().await.expect("readable") {
            headers += 1;
            if walk.pass(&found, true).await.expect("readable") {
                whole.push(found.at);
            }
        }
        (whole, headers)
    }

    #[test]
    fn a_shard_full_of_headers_is_searched_in_bounded_work() {
        deterministic::Runner::default().start(|context| async move {
            const HEADERS: u64 = 4_000;
            let next = vec![5; 2 << 20];
            let end = keep(*blake3::hash(&next).as_bytes(), next.len() as u64);
            for length in [0, 1 << 20] {
                // Its own header is damaged: the file begins with what was behind it.
                let mut bytes = [1].repeat(HEADER_BYTES);
                (0..HEADERS).for_each(|_| bytes.extend(keep([9; 32], length)));
                let at = bytes.len() as u64;
                bytes.extend([&end[..], &next].concat());
                let (blob, _) = context.open("walk", &length.to_be_bytes()).await.expect("opens");
                let size = bytes.len() as u64;
                blob.write_at(0, bytes, WriteOptions::default()).await.expect("writable");
                let file = File { blob, size };
                let (whole, headers) = walk(&file, 8 << 20).await;
                assert_eq!(
                    (whole, headers),
                    (vec![at], HEADERS + 1),
                    "no length of {length} skips the shard"
                );
            }
        });
    }
}
