//! Two slots of one file, written in turn: a write that a crash tears leaves the other slot.
//!
//! A slot's content says which of the two is newer, and carries a checksum of its own.

use bytes::Bytes;
use commonware_runtime::{Blob, Error, ReadOptions, Storage, WriteOptions};

/// The slots of a file.
pub(crate) struct TwoSlots<B> {
    blob: B,
    /// Bytes of a slot.
    size: usize,
}

impl<B: Blob> TwoSlots<B> {
    /// Opens the slots of `size` bytes in the file `name` of a partition; also returns their contents, as far as
    /// they were written.
    ///
    /// # Errors
    /// The disk failed, or the file's header is damaged.
    pub(crate) async fn open<E>(
        context: &E,
        partition: &str,
        name: &[u8],
        size: usize,
    ) -> Result<(Self, Vec<Bytes>), Error>
    where
        E: Storage<Blob = B>,
    {
        let (blob, written) = context.open(partition, name).await?;
        let length = usize::try_from(written).unwrap_or(usize::MAX).min(2 * size);
        let bytes: Bytes = if length == 0 {
            Bytes::new()
        } else {
            blob.read_at(0, length, ReadOptions::default()).await?.coalesce().freeze().into()
        };
        let contents = bytes.chunks(size).map(|slot| bytes.slice_ref(slot)).collect();
        Ok((Self { blob, size }, contents))
    }

    /// Writes the slot of this turn, without a sync.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) async fn write(&self, turn: u64, slot: Vec<u8>) -> Result<(), Error> {
        self.blob.write_at(turn % 2 * self.size as u64, slot, WriteOptions::default()).await
    }

    /// As [`Self::write`], and durable when it returns.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) async fn write_durably(&self, turn: u64, slot: Vec<u8>) -> Result<(), Error> {
        self.write(turn, slot).await?;
        self.blob.sync().await
    }
}
