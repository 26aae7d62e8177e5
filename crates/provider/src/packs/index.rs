//! Location and holders of each shard: pure, in memory, with running totals.
//!
//! Built by [`Index::apply`] from one frame after the other in the order in which they were written;
//! it never reads a shard's bytes. It takes about 200 bytes a shard.
//!
//! Invariants
//! 1. An entry has at least one holder; it is removed with the last one.
//! 2. `Pack::live` is the sum of the frames that entries point at; the rest of a file is dead.
//! 3. Totals are those of the entries: never recounted, checked by the property test.

use super::{
    frame::{Frame, HEADER_BYTES, Kind},
    store::Bad,
};
use posync_protocol::{AgreementId, Hash, limits::LEAF_BYTES};
use std::collections::{BTreeMap, BTreeSet};

/// Location of a shard's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Number of the pack.
    pub pack: u32,
    /// Offset of the shard in the file, after the frame's header.
    pub offset: u64,
    /// Length of the shard in bytes.
    pub length: u32,
}

impl Place {
    /// First byte after the shard.
    pub(super) fn end(&self) -> u64 {
        self.offset + u64::from(self.length)
    }

    fn frame_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.length)
    }
}

/// Location and holders of a stored shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredShard {
    /// Location of the shard's bytes.
    pub place: Place,
    /// Agreements that hold the shard, sorted.
    pub holders: Vec<AgreementId>,
}

/// Counters of a pack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pack {
    /// Bytes written; if a part of the file was unreadable, the bytes before it.
    pub end: u64,
    /// Bytes that entries still point at.
    pub live: u64,
}

/// Sums over shards. A leaf is 1 KiB; an empty shard has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Number of stored shards.
    pub shards: u64,
    /// Sum of the shards' bytes.
    pub bytes: u64,
    /// Sum of the shards' leaves.
    pub leaves: u64,
}

impl Totals {
    fn add(&mut self, length: u32) {
        self.shards += 1;
        self.bytes += u64::from(length);
        self.leaves += leaves(length);
    }

    fn sub(&mut self, length: u32) {
        self.shards -= 1;
        self.bytes -= u64::from(length);
        self.leaves -= leaves(length);
    }
}

/// Leaves of a shard: 1 KiB each, at least one.
pub(crate) fn leaves(length: u32) -> u64 {
    u64::from(length).div_ceil(LEAF_BYTES).max(1)
}

/// Index of all shards and packs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    shards: BTreeMap<Hash, StoredShard>,
    places: BTreeMap<(u32, u64), Hash>,
    packs: BTreeMap<u32, Pack>,
    held: BTreeMap<AgreementId, Totals>,
    totals: Totals,
    /// Files that were given up when empty, and may still be on disk.
    dropped: BTreeSet<u32>,
}

impl Index {
    /// Applies a frame that starts at `start` in `pack`.
    pub(super) fn apply(&mut self, pack: u32, start: u64, frame: &Frame) {
        let file = self.packs.entry(pack).or_default();
        file.end = file.end.max(start + frame.size());
        match frame.kind {
            Kind::Keep => self.keep(pack, start + HEADER_BYTES as u64, frame),
            Kind::Link => self.hold(frame),
            Kind::Unlink => self.release(frame),
        }
    }

    fn keep(&mut self, pack: u32, offset: u64, frame: &Frame) {
        let place = Place { pack, offset, length: frame.length };
        self.restore(frame.shard, StoredShard { place, holders: vec![] });
        self.hold(frame);
    }

    /// Places an entry where a snapshot, or a newer frame, locates it.
    pub(super) fn restore(&mut self, shard: Hash, entry: StoredShard) {
        let place = entry.place;
        match self.shards.get_mut(&shard) {
            Some(known) if known.place == place => {}
            Some(known) => {
                let old = std::mem::replace(&mut known.place, place);
                self.abandon(&old);
                self.occupy(place, shard);
            }
            None => {
                self.totals.add(place.length);
                self.shards.insert(shard, StoredShard { place, holders: vec![] });
                self.occupy(place, shard);
            }
        }
        for agreement in entry.holders {
            self.hold(&Frame { kind: Kind::Link, agreement, shard, length: place.length });
        }
    }

    fn occupy(&mut self, place: Place, shard: Hash) {
        self.packs.entry(place.pack).or_default().live += place.frame_bytes();
        self.places.insert((place.pack, place.offset), shard);
    }

    fn abandon(&mut self, place: &Place) {
        self.places.remove(&(place.pack, place.offset));
        if let Some(file) = self.packs.get_mut(&place.pack) {
            file.live -= place.frame_bytes();
        }
    }

    fn hold(&mut self, frame: &Frame) {
        let Some(entry) = self.shards.get_mut(&frame.shard) else { return };
        if let Err(at) = entry.holders.binary_search(&frame.agreement) {
            entry.holders.insert(at, frame.agreement);
            self.held.entry(frame.agreement).or_default().add(entry.place.length);
        }
    }

    fn release(&mut self, frame: &Frame) {
        let Some(entry) = self.shards.get_mut(&frame.shard) else { return };
        let Ok(at) = entry.holders.binary_search(&frame.agreement) else { return };
        entry.holders.remove(at);
        let (place, last) = (entry.place, entry.holders.is_empty());
        if let Some(held) = self.held.get_mut(&frame.agreement) {
            held.sub(place.length);
            if held.shards == 0 {
                self.held.remove(&frame.agreement);
            }
        }
        if last {
            self.shards.remove(&frame.shard);
            self.totals.sub(place.length);
            self.abandon(&place);
        }
    }

    /// Notes a file, so that an empty one is known, too.
    pub(super) fn note_pack(&mut self, pack: u32, end: u64) {
        let file = self.packs.entry(pack).or_default();
        file.end = file.end.max(end);
    }

    /// Forgets a file that no entry points at. Returns `false` if one does.
    pub(super) fn drop_pack(&mut self, pack: u32) -> bool {
        let empty = self.packs.get(&pack).is_none_or(|file| file.live == 0);
        if empty {
            self.packs.remove(&pack);
        }
        empty
    }

    /// Notes that an empty file is given up.
    pub(super) fn give_up(&mut self, pack: u32) {
        if self.drop_pack(pack) {
            self.dropped.insert(pack);
        }
    }

    /// Files that were given up and may still be on disk.
    pub(super) const fn given_up(&self) -> &BTreeSet<u32> {
        &self.dropped
    }

    /// Notes that a file that was given up is removed from the disk.
    pub(super) fn off_disk(&mut self, pack: u32) {
        self.dropped.remove(&pack);
    }

    /// The entry of a shard, if it is stored.
    pub(super) fn get(&self, shard: &Hash) -> Option<&StoredShard> {
        self.shards.get(shard)
    }

    /// True if the agreement holds the shard.
    pub(super) fn holds(&self, agreement: &AgreementId, shard: &Hash) -> bool {
        self.shards.get(shard).is_some_and(|entry| entry.holders.binary_search(agreement).is_ok())
    }

    /// The shards that an agreement holds.
    pub(super) fn held_by(&self, agreement: &AgreementId) -> Vec<Hash> {
        if !self.held.contains_key(agreement) {
            return vec![];
        }
        let theirs = self.shards.iter().filter(|(_, entry)| entry.holders.binary_search(agreement).is_ok());
        theirs.map(|(shard, _)| *shard).collect()
    }

    /// All shards in the order of their names.
    pub(super) fn shards(&self) -> impl Iterator<Item = (&Hash, &StoredShard)> {
        self.shards.iter()
    }

    /// At most `limit` shards with names above `after`, in order.
    pub(super) fn page(&self, after: Option<Hash>, limit: usize) -> Vec<Hash> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.shards.range((from, Unbounded)).take(limit).map(|(shard, _)| *shard).collect()
    }

    /// The first shards in a file that are not in `but`, until their sizes reach `bytes`.
    pub(super) fn in_pack(&self, pack: u32, bytes: u64, but: &BTreeMap<Hash, Bad>) -> Vec<Hash> {
        let mut sum = 0;
        let lie = self.places.range((pack, 0)..=(pack, u64::MAX));
        lie.map(|(_, shard)| *shard)
            .filter(|shard| !but.contains_key(shard))
            .take_while(|shard| {
                let before = sum;
                sum += self.shards.get(shard).map_or(0, |entry| entry.place.frame_bytes());
                before < bytes
            })
            .collect()
    }

    /// All files, by number.
    pub(super) const fn packs(&self) -> &BTreeMap<u32, Pack> {
        &self.packs
    }

    /// Sum of the sizes of all files.
    pub(super) fn file_bytes(&self) -> u64 {
        self.packs.values().map(|file| file.end).sum()
    }

    /// Bytes in files that no entry points at.
    pub(super) fn dead_bytes(&self) -> u64 {
        self.packs.values().map(|file| file.end.saturating_sub(file.live)).sum()
    }

    /// The file with the most dead bytes, except `active`, `unread` files, and files in which only `stuck`
    /// shards lie: what cannot be read cannot be moved.
    pub(super) fn emptiest(
        &self,
        active: u32,
        stuck: &BTreeMap<Hash, Bad>,
        unread: &BTreeSet<u32>,
    ) -> Option<u32> {
        let sealed = self
            .packs
            .iter()
            .filter(|(number, file)| **number != active && file.end > file.live && !unread.contains(number));
        let mut sealed: Vec<(u64, u32)> =
            sealed.map(|(number, file)| (file.end - file.live, *number)).collect();
        sealed.sort_unstable_by(|a, b| b.cmp(a));
        let moves = |number: u32| {
            let is_empty = self.packs.get(&number).is_none_or(|file| file.live == 0);
            is_empty || stuck.is_empty() || !self.in_pack(number, 1, stuck).is_empty()
        };
        sealed.into_iter().map(|(_, number)| number).find(|number| moves(*number))
    }

    /// Sums over all shards, each counted once.
    pub(super) const fn totals(&self) -> Totals {
        self.totals
    }

    /// Sums over the shards that an agreement holds.
    pub(super) fn held(&self, agreement: &AgreementId) -> Totals {
        self.held.get(agreement).copied().unwrap_or_default()
    }
}
