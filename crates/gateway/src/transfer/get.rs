//! Reads a file: asks for data shards first, and for parity when one is late, wrong or gone.
//!
//! ```text
//!   segment row ─► four best holders ─► slices, each verified and paid ─► four shards ─► plain
//!                        │ an error, or nothing after HEDGE: the next holder is asked too
//! ```
//!
//! Invariants
//! 1. Every byte that leaves here was verified against a shard's name from the catalogue.
//! 2. Segments leave in order; at most [`SEGMENTS_READ_AHEAD`] of a get are in memory beside the one that
//!    leaves, in the reader's own share. A place to gather is held while a segment is gathered, not while
//!    it waits for its reader.
//! 3. Repair is notified of a provider that shows that it lost a shard. One that is late is asked after
//!    the others for a while, and one that is suspected of a loss after those.

use super::Error;
use crate::{
    access::{Buffer, Share},
    agreement::OwnAgreement,
    catalogue::{
        FileId, Stopped,
        row::{FileRow, SegmentRow},
    },
    coding::{self, DATA, FileKey, Held, SEGMENT_BYTES, SHARDS},
    limits::SEGMENTS_READ_AHEAD,
    peer,
    repair::Notice,
    shared::Shared,
};
use commonware_macros::select;
use commonware_utils::channel::oneshot;
use futures::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, pending},
    stream::FuturesUnordered,
};
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// Time without a shard, beside that of the shortest way from those that have not answered, after which one more
/// holder is asked.
const HEDGE: Duration = Duration::from_millis(750);

/// Time for which a get waits for the holders of a segment: a network that has just started answers soon.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause before the holders of a segment are asked again.
const AGAIN: Duration = Duration::from_millis(500);

/// A segment's plain bytes, and the reservation of the memory that they use.
type Gathered = Result<(Vec<u8>, Buffer), Error>;

/// A range of a file, read piece by piece.
pub(crate) struct Reader {
    shared: Arc<Shared>,
    share: Arc<Share>,
    file: FileId,
    bytes: u64,
    /// Segments that are being gathered or are ready, in order.
    ahead: VecDeque<BoxFuture<'static, Gathered>>,
    /// Number of the first segment that is not being gathered yet.
    next: u64,
    /// Memory of the last returned piece, which may still be on its way out.
    buffer: Option<Buffer>,
    offset: u64,
    end: u64,
}

impl Reader {
    /// Opens bytes `offset` to `offset + length` of a file, or to its end without a length.
    ///
    /// # Errors
    /// [`Error::Range`].
    pub(crate) fn open(
        shared: &Arc<Shared>,
        share: &Arc<Share>,
        file: &FileRow,
        offset: u64,
        length: Option<u64>,
    ) -> Result<Self, Error> {
        let end = length.map_or(Some(file.bytes), |length| offset.checked_add(length));
        let end = end.filter(|end| offset <= *end && *end <= file.bytes);
        let end = end.ok_or(Error::Range(offset, file.bytes))?;
        Ok(Self {
            shared: shared.clone(),
            share: share.clone(),
            file: file.id,
            bytes: file.bytes,
            ahead: VecDeque::new(),
            next: offset / SEGMENT_BYTES as u64,
            buffer: None,
            offset,
            end,
        })
    }

    /// The next piece, at most a segment; `None` after the last.
    ///
    /// # Errors
    /// [`Error`]; the pieces returned before are right all the same.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        self.buffer = None;
        if self.offset >= self.end {
            return Ok(None);
        }
        if self.ahead.is_empty() {
            let buffer = self.share.outgoing(self.plain()).await;
            self.gather(buffer);
        }
        while self.ahead.len() <= SEGMENTS_READ_AHEAD
            && self.next * (SEGMENT_BYTES as u64) < self.end
            && let Some(buffer) = self.share.ahead(self.plain())
        {
            self.gather(buffer);
        }
        let first = self.ahead.pop_front().expect("one is on its way");
        let (mut plain, buffer) = first.await?;
        self.buffer = Some(buffer);
        let start = self.offset / SEGMENT_BYTES as u64 * SEGMENT_BYTES as u64;
        let within = |at: u64| usize::try_from(at - start).expect("within a segment");
        plain.truncate(within(self.end.min(start + SEGMENT_BYTES as u64)));
        let piece = plain.split_off(within(self.offset));
        self.offset += piece.len() as u64;
        Ok(Some(piece))
    }

    fn segment(&self) -> u32 {
        u32::try_from(self.next).expect("segments are numbered")
    }

    /// Plain bytes of the first segment that is not being gathered yet.
    fn plain(&self) -> usize {
        coding::segment_bytes(self.bytes, self.segment())
    }

    /// Begins to gather the next segment, which goes on while the reader takes those before it.
    fn gather(&mut self, buffer: Buffer) {
        let (shared, share, file, index) =
            (self.shared.clone(), self.share.clone(), self.file, self.segment());
        let (sender, receiver) = oneshot::channel();
        self.next += 1;
        self.shared.common.environment.spawn(async move {
            let mut sender = sender;
            let found = select! {
                found = segment(&shared, &share, file, index) => found,
                // The reader is gone.
                () = sender.closed() => return,
            };
            // The reader may be gone by now.
            let _ = sender.send(found.map(|plain| (plain, buffer)));
        });
        let stopping = |_| Error::Stopped(Stopped);
        self.ahead.push_back(receiver.map(move |found| found.map_err(stopping).flatten()).boxed());
    }
}

/// Gathers and decodes the plain bytes of a segment, retrying for [`PATIENCE`].
///
/// # Errors
/// [`Error`].
async fn segment(shared: &Arc<Shared>, share: &Share, file: FileId, index: u32) -> Result<Vec<u8>, Error> {
    let unreadable = |error| Error::Unreadable(index, error);
    let environment = &shared.common.environment;
    let (mut waited, mut held, mut paced) = (Duration::ZERO, Held::default(), false);
    let (row, _place) = loop {
        let row = shared.catalogue.segment(file, index).await?.ok_or(Error::Changed)?;
        // The time spent waiting for a place does not count against the holders.
        let place = share.reads(shared).await;
        let begun = environment.now();
        let gathered = gather_rest(shared, index, &row, &mut held, &mut paced);
        let gathered = environment.within(PATIENCE.saturating_sub(waited), gathered).await;
        // The next round allows more: the holders are not the reason.
        if !std::mem::take(&mut paced) {
            waited += environment.now().duration_since(begun).unwrap_or_default() + AGAIN;
        }
        let few = || coding::Error::TooFew(held.iter().flatten().count());
        match gathered.unwrap_or_else(|| Err(few())) {
            Ok(()) => break (row, place),
            Err(error) if waited >= PATIENCE || sources(shared, &row).len() < DATA => {
                return Err(unreadable(error));
            }
            Err(_) => {}
        }
        drop(place);
        environment.sleep(AGAIN).await;
    };
    let key = FileKey::derive(&shared.common.master, &file);
    coding::decode(&key, index, row.plain as usize, &mut held).map_err(unreadable)
}

/// A holder that can be asked for its shard.
struct Source {
    position: usize,
    sequence: u64,
    agreement: Arc<OwnAgreement>,
}

/// The holders in the order in which they are asked: those that answer, then doubtful ones, then silent
/// ones; data before parity within each. Last come shards that are marked for removal and may still be
/// there, at positions without another holder.
fn sources(shared: &Shared, row: &SegmentRow) -> VecDeque<Source> {
    let of = |position: usize| {
        let mut there = row.holdings.iter().filter(move |holding| usize::from(holding.position) == position);
        row.holder(position).or_else(|| there.next_back())
    };
    let mut all: Vec<(bool, Source)> = (0..SHARDS)
        .filter_map(|position| {
            let holding = of(position)?;
            let source = Source { position, sequence: holding.sequence, agreement: shared.holder(holding)? };
            Some((holding.dropped, source))
        })
        .collect();
    all.sort_by_key(|(dropped, source)| {
        let silent = shared.suspects.silent_for(&source.agreement.provider()).is_some();
        (*dropped, silent, source.agreement.peer.is_doubtful(), source.position)
    });
    all.into_iter().map(|(_, source)| source).collect()
}

/// Reads any four shards of a segment, verified.
///
/// # Errors
/// [`coding::Error::TooFew`].
pub(crate) async fn gather(
    shared: &Arc<Shared>,
    index: u32,
    row: &SegmentRow,
) -> Result<Held, coding::Error> {
    let mut held = Held::default();
    gather_rest(shared, index, row, &mut held, &mut false).await?;
    Ok(held)
}

/// Adds shards to `held` until there are four. Shards that arrived stay there, even on an error. Sets `paced` if
/// a holder was left out because the agreed rate allows no more in this round.
async fn gather_rest(
    shared: &Arc<Shared>,
    index: u32,
    row: &SegmentRow,
    held: &mut Held,
    paced: &mut bool,
) -> Result<(), coding::Error> {
    let mut rest = sources(shared, row);
    rest.retain(|source| held[source.position].is_none());
    let mut count = held.iter().flatten().count();
    let mut under_way = FuturesUnordered::new();
    let fetch = |source: Source| fetch(shared, source, row);
    let mut asked: Vec<(usize, Arc<peer::Peer>)> = Vec::new();
    let mut failed_at: Vec<usize> = Vec::new();
    for source in rest.drain(..rest.len().min(DATA.saturating_sub(count))) {
        asked.push((source.position, source.agreement.peer.clone()));
        under_way.push(fetch(source));
    }
    while count < DATA {
        let is_open = |position: usize| held[position].is_none() && !failed_at.contains(&position);
        let open = asked.iter().filter(|(position, _)| is_open(*position));
        let way = open.map(|(_, peer)| peer.way()).min().unwrap_or_default();
        let hedge = async {
            if rest.is_empty() {
                return pending().await;
            }
            shared.common.environment.sleep(HEDGE + way).await;
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
            Some((_, Err(peer::Error::Paced(_)))) => *paced = true,
            Some((source, Err(error))) => {
                failed_at.push(source.position);
                failed(shared, index, &source, &error);
            }
            None => {}
        }
        if let Some(source) = rest.pop_front() {
            asked.push((source.position, source.agreement.peer.clone()));
            under_way.push(fetch(source));
        }
    }
    drop(under_way);
    if *paced {
        return Ok(());
    }
    // Four others were faster than these, including those asked later.
    asked
        .iter()
        .filter(|(position, _)| asked.len() > DATA && held[*position].is_none())
        .for_each(|(_, l)| l.doubt());
    Ok(())
}

/// Reads a shard. The read ends and is paid even if this future is dropped.
async fn fetch(shared: &Shared, source: Source, row: &SegmentRow) -> (Source, Result<Vec<u8>, peer::Error>) {
    let payer = shared.payer(&source.agreement, row.shard_bytes()).await;
    let fetched = payer.fetch(row.names[source.position], row.shard_bytes()).await;
    (source, fetched)
}

fn failed(shared: &Shared, segment: u32, source: &Source, error: &peer::Error) {
    tracing::debug!(%error, segment, "a shard could not be read");
    source.agreement.peer.doubt();
    if error.shows_loss() {
        let (agreement, sequence) = (source.agreement.number, source.sequence);
        shared.notice(Notice::Unread { agreement, sequence });
    }
}
