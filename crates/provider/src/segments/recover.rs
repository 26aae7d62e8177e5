//! What a start reads of the segment files: whatever the index had not noted.
//!
//! ```text
//!   newest known file, and later ones --> every whole frame behind what is known
//!   a file that the index does not know, before them --> the shards that lie nowhere else
//!   a bad head --> the next head that is whole; behind it nothing is taken off a shard
//! ```
//!
//! Only the torn end of the newest file is cut off. A sealed file is never made shorter: what looks bad
//! today may be read tomorrow.

use super::{
    StoreError,
    files::File,
    frame::{Frame, HEADER_BYTES, Kind, MAGIC},
    store::{Writer, read},
};
use commonware_runtime::{Blob, Error as RuntimeError};
use commonware_storage::Context;
use std::collections::BTreeMap;

/// Bytes in which the next head is looked for at once.
const SEARCH_BYTES: usize = 64 << 10;

/// A frame that was found whole, and whether it stands behind a bad head.
struct Found {
    at: u64,
    frame: Frame,
    behind: bool,
}

impl<E: Context> Writer<E> {
    /// Opens every file once and takes what the index lacks.
    pub(super) async fn open_files(&mut self) -> Result<(), StoreError> {
        let numbers = self.numbers().await?;
        let newest = self.shared.lock().index.segments().keys().next_back().copied();
        let last = numbers.last().copied();
        let given_up = self.shared.lock().index.given_up().clone();
        let mut sizes = BTreeMap::new();
        for number in numbers {
            if given_up.contains(&number) {
                // A crash came between the note that nothing lies in it and its removal.
                let partition = self.config.segments_partition();
                self.context.remove(&partition, Some(&number.to_be_bytes())).await?;
                continue;
            }
            let known = self.shared.lock().index.segments().get(&number).copied();
            let file = match self.shared.files.get(number).await {
                Ok(file) => file,
                Err(StoreError::Disk(error @ RuntimeError::Closed)) => return Err(error.into()),
                Err(error) => {
                    // It is there: what lies in it is not lost, and every read tries again.
                    tracing::error!(%error, segment = number, "a segment file cannot be opened now");
                    self.shared.lock().present.insert(number);
                    sizes.insert(number, u64::MAX);
                    continue;
                }
            };
            self.shared.lock().present.insert(number);
            let is_old = newest.is_some_and(|newest| number < newest);
            match known {
                None if is_old => self.adopt(number, &file).await?,
                // A later file was begun after this one's frames were noted.
                Some(_) if is_old => {}
                known => {
                    let end = known.map_or(0, |file| file.end);
                    self.recover(number, end, &file, last == Some(number)).await?;
                }
            }
            sizes.insert(number, file.size);
            self.active = number;
        }
        given_up.iter().for_each(|number| self.shared.lock().index.off_disk(*number));
        self.lose_missing(&sizes);
        if !self.shared.lock().present.contains(&self.active) {
            self.open_segment(newest.map_or(0, |newest| newest + 1)).await?;
        }
        Ok(())
    }

    async fn numbers(&self) -> Result<Vec<u32>, StoreError> {
        let names = match self.context.scan(&self.config.segments_partition()).await {
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

    /// Takes whole frames that the index had not noted; of the newest file, cuts off what a crash left
    /// behind them.
    async fn recover(
        &mut self,
        number: u32,
        end: u64,
        file: &File<E::Blob>,
        is_newest: bool,
    ) -> Result<(), StoreError> {
        if file.size <= end {
            return Ok(());
        }
        let (mut at, mut behind, mut valid) = (end, false, end);
        while let Some(found) = next(file, at, &mut behind).await? {
            at = found.at + found.frame.size();
            if is_whole(file, &found).await? {
                valid = at;
                // A head behind a bad one may be part of what somebody stored.
                if !(found.behind && found.frame.kind == Kind::Unlink) {
                    self.shared.lock().index.apply(number, found.at, &found.frame);
                    self.log.group(number, found.at, &[found.frame]).await?;
                }
            }
        }
        if behind && valid > end && !is_newest {
            tracing::error!(segment = number, "a segment file is damaged; what was not hit is kept");
        }
        if valid < file.size && is_newest {
            let size = file.size;
            tracing::info!(segment = number, valid, size, "cutting off what a crash left unfinished");
            file.blob.resize(valid).await?;
            file.blob.sync().await?;
        } else {
            self.shared.lock().index.note_segment(number, file.size);
        }
        Ok(())
    }

    /// Takes the shards of a file that the index does not know and that lie nowhere else: it may have been
    /// away, or a crash left it when everything had moved. Nothing goes because an index lacks it.
    async fn adopt(&mut self, number: u32, file: &File<E::Blob>) -> Result<(), StoreError> {
        let (mut at, mut behind, mut shards) = (0, false, 0_usize);
        while let Some(found) = next(file, at, &mut behind).await? {
            let (start, frame) = (found.at, found.frame);
            at = start + frame.size();
            let place = self.shared.lock().index.get(&frame.shard).map(|entry| entry.place);
            let here = place.is_some_and(|place| place.segment == number);
            let takes = match frame.kind {
                Kind::Keep => place.is_none() && is_whole(file, &found).await?,
                Kind::Link => here,
                Kind::Unlink => false,
            };
            if takes {
                shards += usize::from(frame.kind == Kind::Keep);
                self.shared.lock().index.apply(number, start, &frame);
                self.log.group(number, start, &[frame]).await?;
            }
        }
        self.shared.lock().index.note_segment(number, file.size);
        tracing::info!(segment = number, shards, "took what lies in a segment file that the index lacked");
        Ok(())
    }

    /// Forgets shards whose file is gone or too short: the books still name them, so they are
    /// reported as missing. A file that is there again is adopted by the next start.
    fn lose_missing(&self, sizes: &BTreeMap<u32, u64>) {
        let mut state = self.shared.lock();
        let files: Vec<(u32, u64)> =
            state.index.segments().iter().map(|(number, file)| (*number, file.end)).collect();
        for (number, end) in files {
            let size = sizes.get(&number).copied();
            if size.unwrap_or(0) >= end {
                continue;
            }
            let mut lost = state.index.in_segment(number, u64::MAX, &Default::default());
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
}

/// The first frame at or behind `at` whose head is whole and that ends within the file. `behind` is set
/// once a bad head was passed.
///
/// # Errors
/// The process is to end.
async fn next<B: Blob>(file: &File<B>, at: u64, behind: &mut bool) -> Result<Option<Found>, StoreError> {
    let mut at = at;
    while at + HEADER_BYTES as u64 <= file.size {
        if let Some(frame) = head(file, at).await? {
            return Ok(Some(Found { at, frame, behind: *behind }));
        }
        *behind = true;
        at = search(file, at + 1).await?;
    }
    Ok(None)
}

async fn head<B: Blob>(file: &File<B>, at: u64) -> Result<Option<Frame>, StoreError> {
    let Some(head) = try_read(file, at, HEADER_BYTES).await? else { return Ok(None) };
    Ok(Frame::parse(&head).filter(|frame| at + frame.size() <= file.size))
}

/// Where the next head may begin, from `at` on; the end of the file if none does.
async fn search<B: Blob>(file: &File<B>, at: u64) -> Result<u64, StoreError> {
    let mut at = at;
    while at + HEADER_BYTES as u64 <= file.size {
        let length = usize::try_from(file.size - at).unwrap_or(usize::MAX).min(SEARCH_BYTES);
        match try_read(file, at, length).await? {
            Some(bytes) => {
                if let Some(place) = bytes.windows(MAGIC.len()).position(|part| part == MAGIC) {
                    return Ok(at + place as u64);
                }
                // A magic may lie across the end.
                at += (length - (MAGIC.len() - 1)) as u64;
            }
            None => at += length as u64,
        }
    }
    Ok(file.size)
}

/// Bytes, or `None` where the disk has none.
async fn try_read<B: Blob>(
    file: &File<B>,
    at: u64,
    length: usize,
) -> Result<Option<bytes::Bytes>, StoreError> {
    match read(&file.blob, at, length).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(StoreError::Disk(error @ RuntimeError::Closed)) => Err(error.into()),
        Err(_) => Ok(None),
    }
}

async fn is_whole<B: Blob>(file: &File<B>, found: &Found) -> Result<bool, StoreError> {
    let Found { at, frame, .. } = found;
    if frame.kind != Kind::Keep {
        return Ok(true);
    }
    let data = try_read(file, at + HEADER_BYTES as u64, frame.length as usize).await?;
    Ok(data.is_some_and(|data| blake3::hash(&data).as_bytes() == &frame.shard))
}
