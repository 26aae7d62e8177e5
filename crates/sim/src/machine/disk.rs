//! A disk with partial failures: a bad sector, a flipped bit, a write or a sync that fails once, or no room.

use super::Machine;
use commonware_runtime::{
    Blob, BlobVersion, Error, Handle, IoBufs, IoBufsMut, ReadOptions, Storage, WriteOptions, deterministic,
};
use commonware_utils::sync::Mutex;
use std::{io, ops::RangeInclusive, sync::Arc};

/// The damage to the next place that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Reads of the place fail.
    Unreadable,
    /// One bit of the place is flipped.
    FlippedBit,
}

/// An operation of a disk that fails once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A write, or a change of a file's length. Nothing of it is done.
    Write,
    /// A sync. What it should have made durable is lost with the power.
    Sync,
}

/// The faults of one machine's disk; the runtime stores its bytes. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Damage that strikes the next read of a partition whose name has this ending.
    armed: Option<(&'static str, Damage)>,
    places: Vec<DamagedPlace>,
    /// Damage that struck so far, also where a write has repaired it.
    struck: Vec<Damage>,
    /// The operation that fails, and the number of such operations that succeed before it.
    refusing: Option<(Refused, u32)>,
    /// Operations that failed so far.
    refused: Vec<Refused>,
    /// True if an operation failed since the last look.
    failed: bool,
    full: bool,
}

#[derive(Debug)]
struct DamagedPlace {
    partition: String,
    name: Vec<u8>,
    offset: u64,
    damage: Damage,
}

impl Disk {
    /// Damages permanently the place that is read next from a partition with this ending.
    pub(crate) fn damage(&self, ending: &'static str, damage: Damage) {
        self.0.lock().armed = Some((ending, damage));
    }

    /// Sets whether every write fails because the disk is full.
    pub(crate) fn fill(&self, full: bool) {
        self.0.lock().full = full;
    }

    /// Fails one operation of this kind, after `after` that succeed.
    pub(crate) fn refuse(&self, operation: Refused, after: u32) {
        self.0.lock().refusing = Some((operation, after));
    }

    /// Cancels the failure of an operation that did not happen yet.
    pub(crate) fn allow(&self) {
        self.0.lock().refusing = None;
    }

    /// Operations that failed so far.
    pub(crate) fn refused(&self) -> Vec<Refused> {
        self.0.lock().refused.clone()
    }

    /// True if an operation failed since the last call: a process may end because of it.
    pub(crate) fn has_failed(&self) -> bool {
        std::mem::take(&mut self.0.lock().failed)
    }

    /// Damage that struck so far, also where a write has repaired it.
    pub(crate) fn struck(&self) -> Vec<Damage> {
        self.0.lock().struck.clone()
    }

    /// Number of damaged places.
    #[cfg(test)]
    pub(crate) fn damaged(&self) -> usize {
        self.0.lock().places.len()
    }
}

/// A file on the disk of a [`Machine`].
pub(crate) struct MachineBlob {
    blob: <deterministic::Context as Storage>::Blob,
    partition: String,
    name: Vec<u8>,
    disk: Disk,
}

impl MachineBlob {
    /// Applies the damage to the bytes of a read.
    fn given(&self, offset: u64, bytes: IoBufsMut, length: usize) -> Result<IoBufsMut, Error> {
        let mut state = self.disk.0.lock();
        if let Some((ending, damage)) = state.armed
            && self.partition.ends_with(ending)
            && length > 0
        {
            state.armed = None;
            state.struck.push(damage);
            let (partition, name) = (self.partition.clone(), self.name.clone());
            state.places.push(DamagedPlace { partition, name, offset: offset + length as u64 / 2, damage });
        }
        let end = offset + length as u64;
        let here = |place: &&DamagedPlace| self.is_mine(place) && (offset..end).contains(&place.offset);
        let mut flips = Vec::new();
        for place in state.places.iter().filter(here) {
            match place.damage {
                Damage::Unreadable => return Err(Error::ReadFailed),
                Damage::FlippedBit => flips.push((place.offset - offset) as usize),
            }
        }
        if flips.is_empty() {
            return Ok(bytes);
        }
        let mut bytes = bytes.coalesce();
        flips.into_iter().for_each(|at| bytes.as_mut()[at] ^= 1);
        Ok(bytes.into())
    }

    fn is_mine(&self, place: &DamagedPlace) -> bool {
        place.partition == self.partition && place.name == self.name
    }

    /// Repairs the places that a write or a truncation replaced.
    fn forget(&self, lost: impl Fn(u64) -> bool) {
        let mut state = self.disk.0.lock();
        state.places.retain(|place| !self.is_mine(place) || !lost(place.offset));
    }

    /// True if a write is possible now.
    fn takes_writes(&self) -> bool {
        let mut state = self.disk.0.lock();
        state.failed |= state.full;
        let full = state.full;
        drop(state);
        !full && !self.is_refused(Refused::Write)
    }

    /// True if this operation is the one that fails.
    fn is_refused(&self, operation: Refused) -> bool {
        let mut state = self.disk.0.lock();
        let Some((refusing, after)) = state.refusing.as_mut().filter(|(refusing, _)| *refusing == operation)
        else {
            return false;
        };
        if let Some(fewer) = after.checked_sub(1) {
            *after = fewer;
            return false;
        }
        let refusing = *refusing;
        state.refused.push(refusing);
        (state.refusing, state.failed) = (None, true);
        true
    }

    fn sync_failed(&self) -> Error {
        let name = String::from_utf8_lossy(&self.name).into_owned();
        Error::BlobSyncFailed(self.partition.clone(), name, Arc::new(io::Error::other("the disk failed")))
    }
}

impl Blob for MachineBlob {
    async fn read_at_buf(
        &self,
        offset: u64,
        len: usize,
        bufs: impl Into<IoBufsMut> + Send,
        options: ReadOptions,
    ) -> Result<IoBufsMut, Error> {
        let bytes = self.blob.read_at_buf(offset, len, bufs, options).await?;
        self.given(offset, bytes, len)
    }

    async fn read_at(&self, offset: u64, len: usize, options: ReadOptions) -> Result<IoBufsMut, Error> {
        let bytes = self.blob.read_at(offset, len, options).await?;
        self.given(offset, bytes, len)
    }

    async fn write_at(
        &self,
        offset: u64,
        bufs: impl Into<IoBufs> + Send,
        options: WriteOptions,
    ) -> Result<(), Error> {
        if !self.takes_writes() {
            return Err(Error::WriteFailed);
        }
        let bufs = bufs.into();
        let end = offset + bufs.len() as u64;
        self.blob.write_at(offset, bufs, options).await?;
        self.forget(|place| (offset..end).contains(&place));
        Ok(())
    }

    async fn resize(&self, len: u64) -> Result<(), Error> {
        if self.is_refused(Refused::Write) {
            return Err(Error::WriteFailed);
        }
        self.blob.resize(len).await?;
        self.forget(|place| place >= len);
        Ok(())
    }

    async fn sync(&self) -> Result<(), Error> {
        if self.is_refused(Refused::Sync) {
            return Err(self.sync_failed());
        }
        self.blob.sync().await
    }

    async fn start_sync(&self) -> Handle<()> {
        if self.is_refused(Refused::Sync) {
            return Handle::ready(Err(self.sync_failed()));
        }
        self.blob.start_sync().await
    }
}

impl Storage for Machine {
    type Blob = MachineBlob;

    async fn open_versioned(
        &self,
        partition: &str,
        name: &[u8],
        versions: RangeInclusive<BlobVersion>,
    ) -> Result<(MachineBlob, u64, BlobVersion), Error> {
        let (blob, length, version) = self.context.open_versioned(partition, name, versions).await?;
        let (partition, name) = (partition.to_owned(), name.to_vec());
        Ok((MachineBlob { blob, partition, name, disk: self.disk.clone() }, length, version))
    }

    async fn remove(&self, partition: &str, name: Option<&[u8]>) -> Result<(), Error> {
        self.context.remove(partition, name).await?;
        let gone =
            |place: &DamagedPlace| place.partition == partition && name.is_none_or(|name| name == place.name);
        self.disk.0.lock().places.retain(|place| !gone(place));
        Ok(())
    }

    async fn scan(&self, partition: &str) -> Result<Vec<Vec<u8>>, Error> {
        self.context.scan(partition).await
    }
}
