//! Reads a file: data shards first, parity when one is late, wrong or gone.
//!
//! ```text
//!   segment row ─► four best holders ─► slices, each verified and paid ─► four shards ─► plain
//!                        │ an error, or nothing after HEDGE: the next holder is asked too
//! ```
//!
//! Invariants
//! 1. Every byte that leaves here was verified against a shard's name from the catalogue.
//! 2. Segments leave in order; at most [`SEGMENTS_READ_AHEAD`] of a get are in memory.
//! 3. A provider that shows that it lost a shard is told to repair; one that is late only waits, and one
//!    that is suspected of a loss is asked last.

use super::Error;
use crate::{
    catalogue::row::{FileRow, SegmentRow},
    coding::{self, DATA, FileId, FileKey, Held, SEGMENT_BYTES, SHARDS},
    core::Core,
    deed::Deed,
    limits::SEGMENTS_READ_AHEAD,
    link,
    repair::Notice,
};
use commonware_macros::select;
use futures::{
    StreamExt as _,
    future::pending,
    stream::{BoxStream, FuturesUnordered},
};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::sync::OwnedSemaphorePermit;

/// How long four shards are waited for before a fifth is asked for.
const HEDGE: Duration = Duration::from_millis(750);

/// How long a segment whose holders do not answer is waited for: a network that has just started
/// is there in a moment.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause before its holders are asked again.
const AGAIN: Duration = Duration::from_millis(500);

type Memory = OwnedSemaphorePermit;

/// A range of a file, read piece by piece.
pub struct Reader {
    segments: BoxStream<'static, Result<(Vec<u8>, Memory), Error>>,
    /// Of the piece that was given last: it may still be on its way out.
    _memory: Option<Memory>,
    offset: u64,
    end: u64,
}

impl Reader {
    /// Opens bytes `offset` to `offset + length` of a file (to its end without a length).
    ///
    /// # Errors
    /// [`Error::Range`].
    pub fn open(core: &Arc<Core>, file: &FileRow, offset: u64, length: Option<u64>) -> Result<Self, Error> {
        let end = length.map_or(Some(file.bytes), |length| offset.checked_add(length));
        let end = end.filter(|end| offset <= *end && *end <= file.bytes);
        let end = end.ok_or(Error::Range(offset, file.bytes))?;
        let (step, id, core) = (SEGMENT_BYTES as u64, file.id, core.clone());
        let indices = offset / step..end.div_ceil(step);
        let segments = futures::stream::iter(indices)
            .map(move |index| one(core.clone(), id, u32::try_from(index).expect("segments are numbered")))
            .buffered(SEGMENTS_READ_AHEAD);
        Ok(Self { segments: segments.boxed(), _memory: None, offset, end })
    }

    /// The next piece, at most a segment; `None` after the last.
    ///
    /// # Errors
    /// [`Error`]; what was given before is right all the same.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        self._memory = None;
        if self.offset >= self.end {
            return Ok(None);
        }
        let (mut plain, memory) = self.segments.next().await.expect("one per segment of the range")?;
        self._memory = Some(memory);
        let start = self.offset / SEGMENT_BYTES as u64 * SEGMENT_BYTES as u64;
        let within = |at: u64| usize::try_from(at - start).expect("within a segment");
        plain.truncate(within(self.end.min(start + SEGMENT_BYTES as u64)));
        let piece = plain.split_off(within(self.offset));
        self.offset += piece.len() as u64;
        Ok(Some(piece))
    }
}

async fn one(core: Arc<Core>, file: FileId, index: u32) -> Result<(Vec<u8>, Memory), Error> {
    let memory = core.get_memory.clone().acquire_owned().await.expect("the semaphore is never closed");
    Ok((segment(&core, file, index).await?, memory))
}

/// The plain bytes of a segment.
///
/// # Errors
/// [`Error`].
pub async fn segment(core: &Arc<Core>, file: FileId, index: u32) -> Result<Vec<u8>, Error> {
    let unreadable = |error| Error::Unreadable(index, error);
    let environment = &core.common.environment;
    let mut last = unreadable(coding::Error::TooFew(0));
    let patient = async {
        loop {
            let Some(row) = core.common.catalogue.segment(file, index).await? else { return Ok(None) };
            match gather(core, index, &row).await {
                Ok(held) => return Ok(Some((row, held))),
                Err(error) => last = unreadable(error),
            }
            if sources(core, &row).len() < DATA {
                return Ok(None);
            }
            environment.sleep(AGAIN).await;
        }
    };
    let found: Result<_, Error> = environment.within(PATIENCE, patient).await.unwrap_or(Ok(None));
    let Some((row, mut held)) = found? else { return Err(last) };
    let key = FileKey::derive(&core.common.master, &file);
    coding::decode(&key, index, row.plain as usize, &mut held).map_err(unreadable)
}

/// A shard that can be asked for.
struct Source {
    position: usize,
    sequence: u64,
    deed: Arc<Deed>,
}

/// Holders in the order of asking: those that answer before those that do not, the silent ones after
/// them, data before parity. Last comes what is to be taken out of a data set and may be there still, at
/// positions that nobody else holds.
fn sources(core: &Core, row: &SegmentRow) -> VecDeque<Source> {
    let of = |position: usize| {
        let mut there = row.holdings.iter().filter(move |holding| usize::from(holding.position) == position);
        row.holder(position).or_else(|| there.next_back())
    };
    let mut all: Vec<(bool, Source)> = (0..SHARDS)
        .filter_map(|position| {
            let holding = of(position)?;
            let source = Source { position, sequence: holding.sequence, deed: core.holder(holding)? };
            Some((holding.dropped, source))
        })
        .collect();
    all.sort_by_key(|(dropped, source)| {
        let silent = core.suspects.silent_for(&source.deed.provider()).is_some();
        (*dropped, silent, source.deed.link.is_doubtful(), source.position)
    });
    all.into_iter().map(|(_, source)| source).collect()
}

/// Any four shards of a segment, verified.
///
/// # Errors
/// [`coding::Error::TooFew`].
pub async fn gather(core: &Arc<Core>, index: u32, row: &SegmentRow) -> Result<Held, coding::Error> {
    let mut rest = sources(core, row);
    let mut held = Held::default();
    let mut under_way = FuturesUnordered::new();
    let fetch = |source: Source| fetch(core, source, row);
    let mut asked: Vec<(usize, Arc<link::Link>)> = Vec::new();
    let mut ask = |source: Source| {
        asked.push((source.position, source.deed.link.clone()));
        fetch(source)
    };
    under_way.extend(rest.drain(..rest.len().min(DATA)).map(&mut ask));
    let mut count = 0;
    while count < DATA {
        let hedge = async {
            if rest.is_empty() {
                return pending().await;
            }
            core.common.environment.sleep(HEDGE).await;
        };
        let arrived = select! {
            arrived = under_way.next() => Some(arrived.ok_or(coding::Error::TooFew(count))?),
            () = hedge => None,
        };
        match arrived {
            Some((source, Ok(bytes))) => {
                held[source.position] = Some(bytes);
                count += 1;
                continue;
            }
            Some((source, Err(error))) => failed(core, index, &source, &error),
            None => {}
        }
        under_way.extend(rest.pop_front().map(&mut ask));
    }
    drop(under_way);
    // Four others were faster than these, hedge included.
    asked
        .iter()
        .filter(|(position, _)| asked.len() > DATA && held[*position].is_none())
        .for_each(|(_, l)| l.doubt());
    Ok(held)
}

/// Reads a shard. One that is not waited for any more still ends, and pays.
async fn fetch(core: &Core, source: Source, row: &SegmentRow) -> (Source, Result<Vec<u8>, link::Error>) {
    let payer = core.payer(&source.deed, row.shard_bytes()).await;
    let fetched = payer.fetch(row.names[source.position], row.shard_bytes()).await;
    (source, fetched)
}

fn failed(core: &Core, segment: u32, source: &Source, error: &link::Error) {
    tracing::debug!(%error, segment, "a shard could not be read");
    source.deed.link.doubt();
    if error.shows_loss() {
        let (deed, sequence) = (source.deed.number, source.sequence);
        core.notice(Notice::Unread { deed, sequence });
    }
}
