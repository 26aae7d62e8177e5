//! The shard store: shards by name in append-only files, with one sync for all waiting puts.
//!
//! ```text
//!   put, unlink --> mailbox --> writer: collect a group -> one write -> one sync -> answer all
//!                                  |          (the next group collects meanwhile)
//!                                  +--> index in memory, journal of the index (synced now and then)
//!                                  +--> compaction between groups
//!   read ------------------------------> index -> file (never through the mailbox)
//! ```
//!
//! A pack is a sequence of self-describing frames ([`frame`]). The index ([`index`]) holds the
//! location and the holders of each shard. Its journal ([`log`]) spares a start from reading the files: at
//! most 64 MiB after the journal's last sync are read again.
//!
//! Invariants
//! 1. A put that was acknowledged survives any crash: its frame was synced first.
//! 2. A shard's bytes are never overwritten. A file is removed only when no shard points into it and the
//!    journal record of that is durable.
//! 3. Files never exceed `cap_bytes`: a put that does not fit after compaction is refused.
//! 4. The torn end of the newest file is cut off at the last frame whose checksum and name hold, if all
//!    of it was read, and never below the length that was noted after a sync: what does not hold there is
//!    damage. No other file is ever shortened. A file that a start could not open or read
//!    whole is neither written nor removed until a later start can.
//! 5. Wrong bytes cost only their shard, and so do bytes that the disk fails to read again and again, and a volume that accepts no writes costs only new shards:
//!    a put is refused with [`StoreError::NoSpace`] until one succeeds again.
//!
//! Any other failed write or sync ends the writer for good: every later call returns
//! [`StoreError::Closed`] and the provider stops.

pub(crate) mod damage;
mod files;
mod frame;
mod full;
mod index;
mod log;
mod recover;
mod store;

pub use damage::{Extent, extents};
pub(crate) use full::Volume;
pub(crate) use full::is_full;
pub(crate) use index::{Totals, leaves};

use bytes::Bytes;
use commonware_runtime::{Blob, Handle, Spawner};
use commonware_storage::Context;
use commonware_utils::channel::{mpsc, oneshot};
use frame::{Frame, Kind};
use posync_client::volume::is_away;
use posync_protocol::{AgreementId, Hash, limits::SHARD_BYTES_MAX};
use std::collections::BTreeSet;
use store::{Bad, Item, Shared, Writer};

/// Commands that wait for the writer; the service bounds their bytes (`CALL_BYTES_MAX`).
const MAILBOX: usize = 64;
/// Maximum bytes that one group collects.
const GROUP_BYTES: u64 = 16 << 20;
/// Smallest permitted size at which a file is sealed.
pub(crate) const PACK_BYTES_MIN: u64 = 1 << 20;
/// Reads of a shard in a row that the disk fails, with a pause before each, until it counts as damaged.
const READ_AGAIN: u8 = 3;
/// Shards that are read again at once; the others follow.
const UNREAD_MAX: usize = 64;
/// Maximum number of shards in one `unlink`.
pub(crate) const UNLINK_MAX: usize = 512;

/// Location and limits of a store.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Prefix of the partitions.
    pub partition: String,
    /// Size in bytes at which a file is sealed.
    pub pack_bytes: u64,
    /// Maximum bytes of all packs together.
    pub cap_bytes: u64,
    /// The volume, of which a reserve stays free.
    pub(crate) volume: Volume,
}

impl StoreConfig {
    /// For `capacity` bytes of shards: headers take at most an eighth, compaction needs room.
    pub fn for_capacity(partition: &str, capacity: u64, pack_bytes: u64) -> Self {
        let spare = 2 * (pack_bytes + GROUP_BYTES);
        let cap_bytes = capacity.saturating_add(capacity / 8).saturating_add(spare);
        Self { partition: partition.into(), pack_bytes, cap_bytes, volume: Volume::default() }
    }

    /// Limits the files to `space` bytes in total, and makes them smaller if that is little.
    #[must_use]
    pub(crate) fn within(self, space: u64) -> Self {
        let pack_bytes = self.pack_bytes.min((space / 8).max(PACK_BYTES_MIN));
        Self { cap_bytes: self.cap_bytes.min(space), pack_bytes, ..self }
    }

    /// Sets the volume that holds the files.
    #[must_use]
    pub(crate) fn on(self, volume: Volume) -> Self {
        Self { volume, ..self }
    }

    /// Bytes of shards that it has room for: headers take at most an eighth of them.
    pub(crate) const fn room_bytes(&self) -> u64 {
        self.usable_bytes() / 9 * 8
    }

    fn packs_partition(&self) -> String {
        format!("{}-segments", self.partition)
    }

    fn index_partition(&self) -> String {
        format!("{}-index", self.partition)
    }

    fn durable_partition(&self) -> String {
        format!("{}-durable", self.partition)
    }

    /// Bytes that puts may fill: the rest is for moving shards during compaction.
    const fn usable_bytes(&self) -> u64 {
        self.cap_bytes.saturating_sub(self.pack_bytes + GROUP_BYTES)
    }
}

/// Errors of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk failed to read or write.
    #[error("the shard store's disk failed: {0}; check the volume, then start again")]
    Disk(#[from] commonware_runtime::Error),
    /// The index journal failed.
    #[error("the shard store's index failed: {0}; check the volume, then start again")]
    Index(#[from] commonware_storage::journal::Error),
    /// A put would exceed the cap, even after compaction.
    #[error("the shard store is full: {used} of {cap} bytes; raise the capacity or free space")]
    Full {
        /// Bytes of all packs.
        used: u64,
        /// Maximum bytes of all packs.
        cap: u64,
    },
    /// The volume accepts no writes now: it is full or away.
    #[error("the volume takes nothing: {0}; nothing new is stored until it does")]
    NoSpace(String),
    /// The shard is not stored here.
    #[error("no such shard")]
    Unknown,
    /// The disk failed to read the shard, which is read again before it counts as damaged.
    #[error("the shard cannot be read now: {0}; it is read again before it counts as damaged")]
    Unread(commonware_runtime::Error),
    /// The bytes on disk do not match the shard's name.
    #[error("the shard is damaged on disk")]
    Damaged,
    /// A file of the store is gone.
    #[error("pack {0} is missing; its shards are lost")]
    MissingFile(u32),
    /// The partition holds a file that the store did not write.
    #[error("the pack directory holds a file that is not a pack: {0:02x?}; move it away")]
    Foreign(Vec<u8>),
    /// A bound was reached.
    #[error("more {0} than the store keeps")]
    Bound(&'static str),
    /// The writer ended, after an error that it reported or at shutdown.
    #[error("the shard store is closed")]
    Closed,
}

impl StoreError {
    /// True if the volume is away, or a shard of it cannot be read now: nothing is lost or damaged by that.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Disk(error) if is_away(error)) || matches!(self, Self::Unread(_))
    }
}

type Done<T> = oneshot::Sender<Result<T, StoreError>>;

enum Command {
    Put { agreement: AgreementId, shard: Hash, data: Bytes, done: Done<()> },
    Unlink { agreement: AgreementId, shards: Vec<Hash>, done: Done<()> },
    Close { done: Done<()> },
}

/// A handle on the store: cheap to clone.
pub struct Store<B> {
    shared: Shared<B>,
    mailbox: mpsc::Sender<Command>,
}

impl<B> Clone for Store<B> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), mailbox: self.mailbox.clone() }
    }
}

impl<B: Blob> Store<B> {
    /// Opens the store and starts its writer; the handle ends with the writer.
    ///
    /// # Errors
    /// The disk or the index failed, or a foreign file lies among the packs.
    pub async fn open<E>(
        context: E,
        config: StoreConfig,
    ) -> Result<(Self, Handle<Result<(), StoreError>>), StoreError>
    where
        E: Context<Blob = B> + Spawner,
    {
        let writer = Writer::open(context.child("segments"), config).await?;
        let shared = writer.shared();
        let (mailbox, commands) = mpsc::channel(MAILBOX);
        let handle = context.child("writer").spawn(move |_| run(writer, commands));
        Ok((Self { shared, mailbox }, handle))
    }

    /// Keeps a shard for an agreement; returns once it is durable. The caller must have checked that
    /// `shard` is the BLAKE3 hash of `data`.
    ///
    /// # Errors
    /// `NoSpace`, `Full`, `Bound` or `Closed`.
    pub(crate) async fn put(
        &self,
        agreement: AgreementId,
        shard: Hash,
        data: Bytes,
    ) -> Result<(), StoreError> {
        if data.len() as u64 > SHARD_BYTES_MAX {
            return Err(StoreError::Bound("bytes of a shard"));
        }
        self.ask(|done| Command::Put { agreement, shard, data, done }).await
    }

    /// Removes an agreement's hold on shards, durably; unknown ones are skipped.
    ///
    /// # Errors
    /// `NoSpace`: not all were removed, try again later; `Closed`.
    pub async fn unlink(&self, agreement: AgreementId, shards: &[Hash]) -> Result<(), StoreError> {
        for part in shards.chunks(UNLINK_MAX) {
            let shards = part.to_vec();
            self.ask(|done| Command::Unlink { agreement, shards, done }).await?;
        }
        Ok(())
    }

    /// Makes the index durable and ends the writer.
    ///
    /// # Errors
    /// `Closed` if it ended before.
    pub(crate) async fn close(&self) -> Result<(), StoreError> {
        self.ask(|done| Command::Close { done }).await
    }

    async fn ask(&self, command: impl FnOnce(Done<()>) -> Command) -> Result<(), StoreError> {
        let (done, answer) = oneshot::channel();
        self.mailbox.send(command(done)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Reads a whole shard and compares it with its name.
    ///
    /// # Errors
    /// `Unknown`; `Damaged` if the bytes do not match the name; `Unread` if the disk failed to read them, and `Disk`
    /// once it failed too often ([`Self::read_again`]). Each is noted, unless the volume is away: a new put replaces
    /// the bytes.
    pub async fn get(&self, shard: &Hash) -> Result<Bytes, StoreError> {
        let (place, present) = {
            let state = self.shared.lock();
            let place = state.index.get(shard).ok_or(StoreError::Unknown)?.place;
            (place, state.present.contains(&place.pack))
        };
        let file = if present {
            self.shared.files.get(place.pack).await
        } else {
            Err(StoreError::MissingFile(place.pack))
        };
        let read = match file {
            Ok(file) => store::read(&file.blob, place.offset, place.length as usize).await,
            Err(error) => Err(error),
        };
        let error = match read {
            Ok(data) if cfg!(planted = "unnamed-bytes") || blake3::hash(&data).as_bytes() == shard => {
                self.shared.lock().bad.remove(shard);
                return Ok(data);
            }
            Ok(_) => StoreError::Damaged,
            Err(error) if error.is_away() => return Err(error),
            Err(error) => error,
        };
        Err(self.shared.lock().note_bad(shard, &place, error))
    }

    /// Reads again what the disk failed to read. A shard that fails for the [`READ_AGAIN`]th time counts as damaged: the
    /// device answered other reads meanwhile, or else the volume is away and nothing counts.
    pub(crate) async fn read_again(&self) {
        let unread: Vec<Hash> = {
            let state = self.shared.lock();
            let unread = state.bad.iter().filter(|(_, bad)| matches!(bad, Bad::Unread(_)));
            unread.map(|(shard, _)| *shard).take(UNREAD_MAX).collect()
        };
        for shard in unread {
            match self.get(&shard).await {
                Err(StoreError::Unread(error)) if full::is_own(&error) => {}
                Err(StoreError::Unread(error)) => self.count_unread(&shard, &error),
                Err(error) if error.is_away() => return,
                Err(StoreError::Unknown) => {
                    self.shared.lock().bad.remove(&shard);
                }
                // It is read, or known to be damaged.
                _ => {}
            }
        }
    }

    fn count_unread(&self, shard: &Hash, error: &commonware_runtime::Error) {
        let mut state = self.shared.lock();
        let Some(Bad::Unread(times)) = state.bad.get(shard).copied() else { return };
        let is_damaged = times + 1 >= READ_AGAIN;
        state.bad.insert(*shard, if is_damaged { Bad::Damaged } else { Bad::Unread(times + 1) });
        if is_damaged {
            tracing::error!(%error, shard = %crate::data_sets::hex(shard),
                "a shard cannot be read {READ_AGAIN} times in a row while its disk answers: it counts as damaged");
        }
    }

    /// A shard's length, if it is stored.
    pub fn length(&self, shard: &Hash) -> Option<u32> {
        self.shared.lock().index.get(shard).map(|entry| entry.place.length)
    }

    /// True if an agreement holds a shard.
    pub fn holds(&self, agreement: &AgreementId, shard: &Hash) -> bool {
        self.shared.lock().index.holds(agreement, shard)
    }

    /// At most `limit` names above `after`, in order.
    pub fn page(&self, after: Option<Hash>, limit: usize) -> Vec<Hash> {
        self.shared.lock().index.page(after, limit)
    }

    /// Agreements that hold the shard.
    pub fn holders(&self, shard: &Hash) -> Vec<AgreementId> {
        self.shared.lock().index.get(shard).map(|entry| entry.holders.clone()).unwrap_or_default()
    }

    /// The shards that an agreement holds.
    pub(crate) fn held_by(&self, agreement: &AgreementId) -> Vec<Hash> {
        self.shared.lock().index.held_by(agreement)
    }

    /// Sums over all shards, each counted once.
    pub fn totals(&self) -> Totals {
        self.shared.lock().index.totals()
    }

    /// Sums over the shards that an agreement holds.
    pub(crate) fn held(&self, agreement: &AgreementId) -> Totals {
        self.shared.lock().index.held(agreement)
    }

    /// Bytes of all packs.
    #[cfg(test)]
    pub(crate) fn file_bytes(&self) -> u64 {
        self.shared.lock().index.file_bytes()
    }

    /// The reason for which no new shard is accepted now; `None` if shards are accepted. It writes nothing: that a
    /// volume without room has room again is seen at once, and that writes succeed again with the next put.
    pub(crate) fn full(&self) -> Option<String> {
        self.shared.note_room_if_any();
        self.shared.lock().full.as_ref().map(|full| full.why.clone())
    }

    /// Shards found damaged and not put again since, in order, at most `limit`.
    pub(crate) fn damaged(&self, limit: usize) -> Vec<Hash> {
        let state = self.shared.lock();
        let damaged = state.bad.iter().filter(|(_, bad)| **bad == Bad::Damaged).map(|(shard, _)| shard);
        damaged.filter(|shard| state.index.get(shard).is_some()).take(limit).copied().collect()
    }
}

async fn run<E: Context>(
    mut writer: Writer<E>,
    mut commands: mpsc::Receiver<Command>,
) -> Result<(), StoreError> {
    loop {
        let victim = writer.victim();
        let first = match victim {
            Some(_) => commands.try_recv().ok(),
            None => match commands.recv().await {
                None => return writer.finish().await,
                first => first,
            },
        };
        if let Some(first) = first
            && let Some(done) = group(&mut writer, &mut commands, first).await?
        {
            let result = writer.finish().await;
            let _ = done.send(Ok(()));
            return result;
        }
        if let Some(victim) = victim {
            match writer.compact(victim).await {
                Err(StoreError::NoSpace(_)) => {}
                done => done?,
            }
        }
    }
}

/// Collects waiting commands, writes them as one group and answers. Returns the closer's channel.
async fn group<E: Context>(
    writer: &mut Writer<E>,
    commands: &mut mpsc::Receiver<Command>,
    first: Command,
) -> Result<Option<Done<()>>, StoreError> {
    let mut group = Group::default();
    let mut next = Some(first);
    let mut closer = None;
    while let Some(command) = next {
        match command {
            Command::Put { agreement, shard, data, done } => {
                let room = writer.make_room(group.bytes + data.len() as u64 + 2 * frame::HEADER_BYTES as u64);
                match room.await {
                    Ok(()) => group.put(&writer.shared(), agreement, shard, data, done),
                    Err(full @ (StoreError::Full { .. } | StoreError::NoSpace(_))) => {
                        drop(done.send(Err(full)));
                    }
                    Err(error) => return Err(error),
                }
            }
            Command::Unlink { agreement, shards, done } => {
                group.unlink(&writer.shared(), agreement, shards);
                group.waiting.push(done);
            }
            Command::Close { done } => closer = Some(done),
        }
        let full = group.bytes >= GROUP_BYTES || group.items.len() + UNLINK_MAX >= log::FRAMES_MAX;
        next = if full || closer.is_some() { None } else { commands.try_recv().ok() };
    }
    let full = match writer.write(group.items).await {
        Err(StoreError::NoSpace(why)) => Some(why),
        done => done.map(|()| None)?,
    };
    for done in group.waiting {
        let answer = full.clone().map_or(Ok(()), |why| Err(StoreError::NoSpace(why)));
        let _ = done.send(answer);
    }
    Ok(closer)
}

#[derive(Default)]
struct Group {
    items: Vec<Item>,
    bytes: u64,
    /// Shards whose bytes this group writes.
    fresh: BTreeSet<Hash>,
    /// Shards whose bytes may be removed with this group.
    gone: BTreeSet<Hash>,
    waiting: Vec<Done<()>>,
}

impl Group {
    fn put<B>(
        &mut self,
        shared: &Shared<B>,
        agreement: AgreementId,
        shard: Hash,
        data: Bytes,
        done: Done<()>,
    ) {
        let (stored, held, holders) = {
            let state = shared.lock();
            let entry = state.index.get(&shard);
            let stored = entry.is_some() && !state.bad.contains_key(&shard) && !self.gone.contains(&shard);
            let held = stored && state.index.holds(&agreement, &shard);
            (stored || self.fresh.contains(&shard), held, entry.map_or(0, |entry| entry.holders.len()))
        };
        if holders >= log::HOLDERS_MAX && !held {
            let _ = done.send(Err(StoreError::Bound("agreements of one shard")));
            return;
        }
        let length = u32::try_from(data.len()).expect("a shard is at most 4 MiB");
        let frame = |kind| Frame { kind, agreement, shard, length };
        if !stored {
            self.fresh.insert(shard);
            self.bytes += frame(Kind::Keep).size();
            self.items.push((frame(Kind::Keep), Some(data)));
        } else if !held {
            self.bytes += frame(Kind::Link).size();
            self.items.push((frame(Kind::Link), None));
        }
        self.waiting.push(done);
    }

    fn unlink<B>(&mut self, shared: &Shared<B>, agreement: AgreementId, shards: Vec<Hash>) {
        let state = shared.lock();
        for shard in shards {
            if state.index.get(&shard).is_some() || self.fresh.remove(&shard) {
                // From here on in this group the bytes may be gone: a later put writes them again.
                self.gone.insert(shard);
                let frame = Frame { kind: Kind::Unlink, agreement, shard, length: 0 };
                self.bytes += frame.size();
                self.items.push((frame, None));
            }
        }
    }
}

#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;
