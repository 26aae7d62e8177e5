//! Reads the changes of a file of the log, also behind damaged pages.
//!
//! A row may hold bytes that a user chose, as the name of a file. If the first whole page behind a damaged one begins
//! within such a row, these bytes can read as changes. So the place at which a change begins is never guessed while
//! the table's index of the file has it. The gateway alone writes that index, in files of its own: the place of every
//! change as eight bytes, in a file that is named like the one of the log.

use super::{Error, Key, PAGE, content, disk, names, partitions, read};
use crate::limits::ROW_BYTES_MAX;
use bytes::Bytes;
use commonware_codec::{Decode as _, RangeCfg, ReadExt as _, varint::UInt};
use commonware_runtime::{Error as RuntimeError, Storage};
use commonware_storage::{mmr, qmdb::any::unordered::variable::Operation};
use posync_protocol::limits::NAME_BYTES_MAX;
use std::ops::Range;

/// Maximum bytes of a change's length prefix.
const PREFIX_BYTES: usize = 5;
/// Bytes of a place in the index.
const PLACE_BYTES: usize = 8;
/// Bytes from the start of those in a row that a user may have chosen, which are the name of a file, to the row's end.
const CHOSEN_BYTES: usize = 2048;
const _: () = assert!(NAME_BYTES_MAX + 512 < CHOSEN_BYTES);
/// Maximum bytes of a row's key.
const KEY_BYTES_MAX: usize = 64;

/// A change of the log.
pub(super) type Change = Operation<mmr::Family, Key, Vec<u8>>;

/// The places at which the changes of a file begin, in order, as far as the index has them on whole pages.
///
/// # Errors
/// A disk failure.
pub(super) async fn starts<E: Storage>(
    context: &E,
    partition: &str,
    name: &[u8],
) -> Result<Vec<usize>, Error> {
    let [_, index, _] = partitions(partition);
    if !names(context, &index).await?.iter().any(|known| known == name) {
        return Ok(Vec::new());
    }
    match context.open(&index, name).await {
        Err(RuntimeError::BlobCorrupt(..)) => return Ok(Vec::new()),
        opened => drop(opened.map_err(disk)?),
    }
    let (content, holes) = content(&read(context, &index, name).await?);
    let mut starts: Vec<usize> = Vec::with_capacity(content.len() / PLACE_BYTES);
    for (number, place) in content.chunks_exact(PLACE_BYTES).enumerate() {
        let at = number * PLACE_BYTES;
        let is_hit = holes.iter().any(|hole| hole.start < at + PLACE_BYTES && at < hole.end);
        let place = u64::from_be_bytes(place.try_into().expect("eight bytes"));
        if let Ok(place) = usize::try_from(place)
            && !is_hit
            && starts.last().is_none_or(|last| *last < place)
        {
            starts.push(place);
        }
    }
    Ok(starts)
}

/// The changes of the part of a file between two damaged ranges, and the bytes of it that belong to none.
pub(super) fn between(content: &[u8], part: Range<usize>, starts: &[usize]) -> (Vec<Change>, usize) {
    let Range { start, end } = part;
    let (mut all, mut lost, mut at) = (Vec::new(), 0, start);
    if start > 0 {
        let is_indexed = starts.last().is_some_and(|last| *last >= start);
        let first = if is_indexed { next(starts, start, end) } else { guess(content, start, end) };
        (lost, at) = (first - start, first);
    }
    while at < end {
        let (found, length) = changes(&content[at..end]);
        all.extend(found);
        at += length;
        if at < end {
            // A change that the damage behind it cuts, or bytes that are none.
            let again = next(starts, at + 1, end);
            lost += again - at;
            at = again;
        }
    }
    (all, lost)
}

/// The first place of the index from `from` on, or `end`.
fn next(starts: &[usize], from: usize, end: usize) -> usize {
    let known = starts.get(starts.partition_point(|start| *start < from));
    known.map_or(end, |start| (*start).min(end))
}

/// Without an index: the first place from which changes follow each other to the end of the part, or, if damage
/// is behind it, to one that is cut there; else `end`. The first of them may be in a name that goes on from the damage:
/// those that begin in its reach are passed over.
fn guess(content: &[u8], start: usize, end: usize) -> usize {
    let is_cut_behind = end < content.len();
    let runs = |from: &usize| {
        let (all, length) = changes(&content[*from..end]);
        let stop = &content[from + length..end];
        !all.is_empty() && (stop.is_empty() || is_cut_behind && is_cut(stop))
    };
    let mut at = (start..end.min(start + ROW_BYTES_MAX + PAGE)).find(runs).unwrap_or(end);
    while at < end.min(start + CHOSEN_BYTES) {
        at += change(&content[at..end]).map_or(end - at, |(_, length)| length);
    }
    at
}

/// The length of the change at the start of these bytes, and that of its prefix.
fn prefix(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut prefix = Bytes::copy_from_slice(&bytes[..bytes.len().min(PREFIX_BYTES)]);
    let before = prefix.len();
    let length = UInt::<u32>::read(&mut prefix).ok()?.0 as usize;
    Some((length, before - prefix.len()))
}

/// True if these bytes may be the beginning of a change that goes on behind them.
fn is_cut(bytes: &[u8]) -> bool {
    let most = ROW_BYTES_MAX + KEY_BYTES_MAX + 2 * PREFIX_BYTES;
    match prefix(bytes) {
        Some((length, start)) => length <= most && start + length > bytes.len(),
        None => bytes.len() < PREFIX_BYTES,
    }
}

/// The change at the start of these bytes, and its length with its prefix. No row has an empty key, and no commit
/// has a value.
fn change(bytes: &[u8]) -> Option<(Change, usize)> {
    let (length, start) = prefix(bytes)?;
    let item = bytes[start..].get(..length)?;
    let config = ((RangeCfg::new(1..=KEY_BYTES_MAX), ()), (RangeCfg::new(0..=ROW_BYTES_MAX), ()));
    let change = Change::decode_cfg(Bytes::copy_from_slice(item), &config).ok()?;
    let is_ours = !matches!(change, Operation::CommitFloor(Some(_), _));
    is_ours.then_some((change, start + length))
}

/// The changes that follow each other from the start of these bytes, and the bytes that they take.
fn changes(bytes: &[u8]) -> (Vec<Change>, usize) {
    let (mut all, mut at) = (Vec::new(), 0);
    while let Some((next, length)) = change(&bytes[at..]) {
        all.push(next);
        at += length;
    }
    (all, at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut as _;
    use commonware_codec::{Encode as _, Write as _};
    use commonware_storage::qmdb::any::unordered::Update;

    fn row(key: u8, value: &[u8]) -> Change {
        Operation::Update(Update(vec![key; 5], value.to_vec()))
    }

    /// The bytes of changes in the log, and the places at which they begin.
    fn log(all: &[Change]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut starts) = (Vec::new(), Vec::new());
        for change in all {
            starts.push(bytes.len());
            let item = change.encode();
            UInt(item.len() as u32).write(&mut bytes);
            bytes.put(item);
        }
        (bytes, starts)
    }

    /// Three rows, of which the second holds a change to its end.
    fn forged() -> (Vec<Change>, Vec<u8>, Vec<usize>) {
        let (inner, _) = log(&[row(66, b"forged")]);
        let rows = vec![row(1, b"one"), row(2, &[&[0; 8][..], &inner].concat()), row(3, b"three")];
        let (bytes, starts) = log(&rows);
        (rows, bytes, starts)
    }

    #[test]
    fn behind_damage_the_index_says_where_a_change_begins() {
        let (rows, bytes, starts) = forged();
        for start in 1..bytes.len() {
            let (found, lost) = between(&bytes, start..bytes.len(), &starts);
            let first = starts.partition_point(|known| *known < start);
            assert_eq!(found.len(), rows.len() - first, "from {start}");
            assert!(found == rows[first..], "from {start}");
            assert_eq!(lost, starts.get(first).map_or(bytes.len(), |known| *known) - start, "from {start}");
        }
    }

    #[test]
    fn a_change_that_damage_cuts_is_lost_and_nothing_in_it_is_read() {
        let (rows, bytes, starts) = forged();
        let end = starts[2] - 1;
        let (found, lost) = between(&bytes, 0..end, &starts);
        assert!(found == rows[..1], "the second ends in the damage");
        assert_eq!(lost, end - starts[1]);
    }

    /// The damage ends in a name that reads as changes up to the row that follows it. What follows is read, from
    /// behind all bytes that a name may take.
    #[test]
    fn without_an_index_nothing_is_read_that_a_user_may_have_chosen() {
        let (_, forged, starts) = forged();
        let rows: Vec<Change> = (0..200).map(|key| row(key, b"a row of thirty bytes or so")).collect();
        let (behind, _) = log(&rows);
        let start = starts[1] + 4;
        let content = [&forged[..], &behind].concat();
        let (found, lost) = between(&content, start..content.len(), &[]);
        assert!(found.len() > 100 && found == rows[rows.len() - found.len()..], "{} changes", found.len());
        assert!((CHOSEN_BYTES..CHOSEN_BYTES + 64).contains(&lost), "{lost} bytes");
        // Bytes that read as changes and then stop are passed over.
        let stopped = [&forged[..], &[0; 9], &behind].concat();
        let (found, _) = between(&stopped, start..stopped.len(), &[]);
        assert!(found.len() > 100 && found == rows[rows.len() - found.len()..], "{} changes", found.len());
    }
}
