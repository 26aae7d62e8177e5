//! Reads a damaged journal and keeps every record whose own checksum holds.
//!
//! ```text
//!   every page's checksum holds? --> open as usual
//!   else: every record whose mark and checksum hold, in order
//!     --> a snapshot of them in `<partition>-mended`, synced --> the old files go
//!     --> the same snapshot in their place, synced --> `-mended` goes
//! ```
//!
//! After a crash at any point the work is resumed: a whole `-mended` replaces the files that it was made
//! from. A record that was written after a sync proves that everything before it was durable: a gap before
//! such a record is damage. So is a gap below the length that was noted after a sync. Any other gap is a torn end.

use super::{AFTER_SYNC, Error, Item, Journal, MAGIC, MARK_BYTES, MARKED, Marked, PAGE_BYTES, Replayed};
use bytes::Buf as _;
use commonware_codec::{Codec, Copying, EncodeSize, Read};
use commonware_cryptography::Crc32;
use commonware_runtime::{Blob, Error as RuntimeError, ReadOptions};
use commonware_storage::Context;
use posync_client::watermark::{Mark, Watermark};

const PAGE: usize = PAGE_BYTES as usize;
/// Bytes of checksums at the end of a page: twice a length and the checksum of that many bytes.
const SUMS: usize = 12;
/// Number of pages read at once.
const PAGES: usize = 256;
/// Maximum bytes of the length prefix of an item.
const PREFIX_BYTES: usize = 5;

/// Result of checking a journal's files.
pub(super) enum Mended<S> {
    /// Every page is whole, or there are no files.
    Whole,
    /// The readable state, and true if durable records are missing from it.
    Salvaged(S, bool),
}

fn mended(partition: &str) -> String {
    format!("{partition}-mended")
}

async fn names<E: Context>(context: &E, partition: &str) -> Result<Vec<Vec<u8>>, Error> {
    match context.scan(partition).await {
        Err(RuntimeError::PartitionMissing(_)) => Ok(vec![]),
        Err(error) => Err(error.into()),
        Ok(mut names) => {
            names.sort();
            Ok(names)
        }
    }
}

/// Checks every page; if one is not whole, reads all whole records.
pub(super) async fn look<E, R, S>(
    context: &E,
    partition: &str,
    durable: Option<Mark>,
    apply: &mut impl FnMut(&mut S, R),
) -> Result<Mended<S>, Error>
where
    E: Context,
    R: Codec<Cfg = ()> + Clone + Send + Sync + 'static,
    S: Default,
{
    let beside = mended(partition);
    if !names(context, &beside).await?.is_empty() {
        let (journal, state) =
            Journal::<E, R>::open_whole(context.child("mended"), &beside, &mut *apply).await?;
        if journal.whole {
            return Ok(Mended::Salvaged(state, false));
        }
        drop(journal);
        if names(context, partition).await?.is_empty() {
            // The files went once this copy was whole, so it was hit since.
            let (state, _) = salvage(context, &beside, None, apply).await?;
            return Ok(Mended::Salvaged(state, true));
        }
        context.remove(&beside, None).await?;
    }
    if is_whole(context, partition).await? {
        return Ok(Mended::Whole);
    }
    let (state, damaged) = salvage(context, partition, durable, apply).await?;
    Ok(Mended::Salvaged(state, damaged))
}

/// Reads all whole items. Returns the state, and true if durable records are missing from it; `durable` is the newest
/// section of which a length was noted, with that length.
pub(super) async fn salvage<E, R, S>(
    context: &E,
    partition: &str,
    durable: Option<Mark>,
    apply: &mut impl FnMut(&mut S, R),
) -> Result<(S, bool), Error>
where
    E: Context,
    R: Codec<Cfg = ()> + Clone + Send + Sync + 'static,
    S: Default,
{
    let (mut replayed, mut damaged) = (Replayed::<S>::new(), false);
    for (place, name) in names(context, partition).await?.into_iter().enumerate() {
        let (section, is_oldest) =
            (<[u8; 8]>::try_from(name.as_slice()).map_or(0, u64::from_be_bytes), place == 0);
        let (blob, size) = match context.open(partition, &name).await {
            // The file's own header is damaged: its content is lost, the other files are read.
            Err(RuntimeError::BlobCorrupt(..)) => {
                damaged = true;
                continue;
            }
            open => open?,
        };
        let bytes = payload(&read_all(&blob, size).await?);
        // A section begins with a snapshot, even if its `Begin` was hit.
        replayed.snapshot = Some(S::default());
        let length = durable.filter(|(of, _)| *of == section).map_or(0, |(_, length)| length);
        damaged |= walk(&bytes, length, |marked, gap| {
            damaged |= gap && marked.after_sync;
            if gap && replayed.snapshot.is_some() && matches!(marked.item, Item::Complete) {
                damaged |= is_oldest;
                if replayed.whole {
                    // The section before is still there, and describes the same state.
                    replayed.snapshot = None;
                }
            }
            replayed.take(section, marked.item, apply);
        });
        // Nothing older is there to fall back on. What is older than a section goes only when its snapshot
        // is complete, so in any but the first of all sections the end was lost.
        if !replayed.whole {
            damaged |= section > 0;
            replayed.take(section, Item::<R>::Complete, apply);
        }
    }
    Ok((replayed.state, damaged))
}

/// Replaces a journal's files with a snapshot.
pub(super) async fn keep<E, R>(
    context: &E,
    partition: &str,
    records: Vec<R>,
    watermark: &mut Option<Watermark<E::Blob>>,
) -> Result<(), Error>
where
    E: Context,
    R: Codec<Cfg = ()> + Clone + Send + Sync + 'static,
{
    let beside = mended(partition);
    let nothing = |(): &mut (), _: R| ();
    let (mut copy, ()) = Journal::<E, R>::open_whole(context.child("copy"), &beside, nothing).await?;
    if !copy.whole {
        copy.snapshot(records.clone()).await?;
    }
    drop(copy);
    if !names(context, partition).await?.is_empty() {
        context.remove(partition, None).await?;
    }
    let (mut again, ()) = Journal::<E, R>::open_whole(context.child("again"), partition, nothing).await?;
    // Not the first of all sections: if its end is lost, that is damage.
    again.next = again.next.max(1);
    again.snapshot(records).await?;
    if let (Some(watermark), Some(sections)) = (watermark, &again.sections) {
        watermark.reset((again.section, sections.size(again.section)?)).await?;
    }
    drop(again);
    Ok(context.remove(&beside, None).await?)
}

/// True if every page of every file is whole.
pub(super) async fn is_whole<E: Context>(context: &E, partition: &str) -> Result<bool, Error> {
    for name in names(context, partition).await? {
        let (blob, size) = match context.open(partition, &name).await {
            Err(RuntimeError::BlobCorrupt(..)) => return Ok(false),
            open => open?,
        };
        if !are_whole(&read_all(&blob, size).await?) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The bytes of a file; unreadable ones are zero.
///
/// # Errors
/// The last read error, if no page can be read.
async fn read_all<B: Blob>(blob: &B, size: u64) -> Result<Vec<u8>, Error> {
    let size = usize::try_from(size).map_err(|_| Error::OffsetOverflow)?;
    let mut bytes = Vec::with_capacity(size);
    let mut failed: Option<RuntimeError> = None;
    let mut read = 0;
    while bytes.len() < size {
        let part = (size - bytes.len()).min(PAGES * PAGE);
        match read_part(blob, bytes.len(), part).await {
            Ok(part) => {
                read += 1;
                bytes.extend_from_slice(&part);
            }
            Err(_) => {
                for _ in 0..part.div_ceil(PAGE) {
                    let page = (size - bytes.len()).min(PAGE);
                    match read_part(blob, bytes.len(), page).await {
                        Ok(page) => {
                            read += 1;
                            bytes.extend_from_slice(&page);
                        }
                        Err(error) => {
                            failed = Some(error);
                            bytes.resize(bytes.len() + page, 0);
                        }
                    }
                }
            }
        }
    }
    match failed {
        Some(error) if read == 0 => Err(error.into()),
        _ => Ok(bytes),
    }
}

async fn read_part<B: Blob>(blob: &B, at: usize, length: usize) -> Result<Vec<u8>, RuntimeError> {
    let read = blob.read_at(at as u64, length, ReadOptions::default()).await?;
    Ok(read.coalesce().as_ref().to_vec())
}

/// Number of bytes of a page covered by each of its two checksums; `None` for one that does not hold.
fn covered(page: &[u8]) -> [Option<usize>; 2] {
    let Some((body, sums)) = page.split_last_chunk::<SUMS>() else { return [None; 2] };
    [0, 6].map(|at: usize| {
        let length = usize::from(u16::from_be_bytes([sums[at], sums[at + 1]]));
        let sum = [sums[at + 2], sums[at + 3], sums[at + 4], sums[at + 5]];
        let holds = body.get(..length).is_some_and(|part| Crc32::checksum(part).to_be_bytes() == sum);
        holds.then_some(length)
    })
}

/// True if every page is whole. In the last one both checksums must hold: if only the older one does, what
/// was written since is torn or damaged, and which of the two the items say.
fn are_whole(bytes: &[u8]) -> bool {
    let pages = bytes.chunks(PAGE);
    let last = pages.len().saturating_sub(1);
    let mut pages = pages.enumerate();
    pages.all(|(place, page)| match covered(page) {
        [Some(one), Some(two)] if place == last => one.max(two) > 0,
        covered => covered.contains(&Some(PAGE - SUMS)),
    })
}

/// The bytes of all pages without their checksums.
fn payload(bytes: &[u8]) -> Vec<u8> {
    bytes.chunks(PAGE).flat_map(|page| page.iter().take(PAGE - SUMS)).copied().collect()
}

/// Passes on every item whose mark and checksum hold, in order, and whether bytes before it do not. Returns true if
/// bytes do not that belong to the first `durable` ones.
fn walk<R: Read<Cfg = ()> + EncodeSize>(
    bytes: &[u8],
    durable: u64,
    mut take: impl FnMut(Marked<R>, bool),
) -> bool {
    let (mut at, mut end, mut gap) = (0, 0, false);
    let is_durable = |end: usize| (end as u64) < durable;
    let mut damaged = false;
    while at < bytes.len() {
        let Some((marked, length)) = item(&bytes[at..]) else {
            at += 1;
            continue;
        };
        if at - end > PREFIX_BYTES {
            gap = true;
            damaged |= is_durable(end);
        }
        at += length;
        end = at;
        take(marked, gap);
    }
    damaged || is_durable(end)
}

/// Parses the marked item at the start of these bytes; returns it with its length.
fn item<R: Read<Cfg = ()> + EncodeSize>(bytes: &[u8]) -> Option<(Marked<R>, usize)> {
    if bytes.len() < MARK_BYTES || bytes[0] != MARKED || bytes[1..5] != MAGIC {
        return None;
    }
    let (kind, sum) = (bytes[5], [bytes[6], bytes[7], bytes[8], bytes[9]]);
    let mut rest = Copying(bytes);
    let marked = Marked::<R>::read_cfg(&mut rest, &()).ok()?;
    let length = bytes.len() - rest.remaining();
    debug_assert_eq!(marked.after_sync, kind & AFTER_SYNC != 0);
    let mut body = vec![kind];
    body.extend_from_slice(&bytes[MARK_BYTES..length]);
    (Crc32::checksum(&body).to_be_bytes() == sum).then_some((marked, length))
}
