//! A runtime whose storage is a volume that may be unmounted, or whose device may fail, while its member runs.
//!
//! Open files go on then, and what is synced in them is on the volume. But each name leads to the empty mount point: a
//! file that is opened would be an empty one, and what it held would count as lost. So a file is opened, listed or
//! removed only while the volume is there; the error says that it is away otherwise.
//!
//! A read that fails says nothing about the other bytes. If the device answers no other read either, the error says that
//! the volume is away, and what was to be read counts neither as damaged nor as lost.

use commonware_runtime::{
    Blob, BlobVersion, Error, Handle, IoBufs, IoBufsMut, ReadOptions, Storage, WriteOptions,
};
use futures::{Stream, StreamExt as _};
use posync_client::volume::{InUse, away, is_away};
use std::ops::RangeInclusive;

/// A runtime with its storage on a volume.
pub(super) struct OnVolume<E> {
    inner: E,
    volume: InUse,
}

impl<E> OnVolume<E> {
    /// Wraps a runtime whose storage lies on `volume`.
    pub(super) const fn new(inner: E, volume: InUse) -> Self {
        Self { inner, volume }
    }

    fn is_there(&self) -> Result<(), Error> {
        self.volume.check().map_err(away)
    }
}

/// The error of a read: that of the volume if its device answers nothing.
fn of_volume(volume: &InUse, error: Error) -> Error {
    let is_of_disk = matches!(error, Error::ReadFailed | Error::BlobOpenFailed(..) | Error::Io(_));
    if !is_of_disk || is_away(&error) {
        return error;
    }
    volume.ask().map_or_else(away, |()| error)
}

impl<E: Storage> Storage for OnVolume<E> {
    type Blob = OnVolumeBlob<E::Blob>;

    async fn open_versioned(
        &self,
        partition: &str,
        name: &[u8],
        versions: RangeInclusive<BlobVersion>,
    ) -> Result<(Self::Blob, u64, BlobVersion), Error> {
        self.is_there()?;
        let opened = self.inner.open_versioned(partition, name, versions).await;
        let (inner, size, version) = opened.map_err(|error| of_volume(&self.volume, error))?;
        // It may have gone meanwhile, and the file be one of the mount point.
        self.is_there()?;
        Ok((OnVolumeBlob { inner, volume: self.volume.clone() }, size, version))
    }

    async fn remove(&self, partition: &str, name: Option<&[u8]>) -> Result<(), Error> {
        self.is_there()?;
        self.inner.remove(partition, name).await
    }

    async fn scan(&self, partition: &str) -> Result<Vec<Vec<u8>>, Error> {
        self.is_there()?;
        let names = self.inner.scan(partition).await.map_err(|error| of_volume(&self.volume, error))?;
        self.is_there().map(|()| names)
    }
}

/// An open file on a volume.
pub(super) struct OnVolumeBlob<B> {
    inner: B,
    volume: InUse,
}

impl<B: Blob> Blob for OnVolumeBlob<B> {
    async fn read_at_buf(
        &self,
        offset: u64,
        len: usize,
        bufs: impl Into<IoBufsMut> + Send,
        options: ReadOptions,
    ) -> Result<IoBufsMut, Error> {
        let read = self.inner.read_at_buf(offset, len, bufs, options).await;
        read.map_err(|error| of_volume(&self.volume, error))
    }

    async fn read_at(&self, offset: u64, len: usize, options: ReadOptions) -> Result<IoBufsMut, Error> {
        let read = self.inner.read_at(offset, len, options).await;
        read.map_err(|error| of_volume(&self.volume, error))
    }

    fn read_many(
        &self,
        ranges: &[(u64, usize)],
        options: ReadOptions,
    ) -> impl Stream<Item = Result<(usize, IoBufsMut), Error>> + Send {
        let volume = self.volume.clone();
        self.inner.read_many(ranges, options).map(move |read| read.map_err(|error| of_volume(&volume, error)))
    }

    fn start_read_many(
        &self,
        ranges: &[(u64, usize)],
        options: ReadOptions,
    ) -> impl Future<Output = Handle<Vec<IoBufsMut>>> + Send {
        self.inner.start_read_many(ranges, options)
    }

    async fn write_at(
        &self,
        offset: u64,
        bufs: impl Into<IoBufs> + Send,
        options: WriteOptions,
    ) -> Result<(), Error> {
        self.inner.write_at(offset, bufs, options).await
    }

    async fn resize(&self, len: u64) -> Result<(), Error> {
        self.inner.resize(len).await
    }

    async fn sync(&self) -> Result<(), Error> {
        self.inner.sync().await
    }

    async fn start_sync(&self) -> Handle<()> {
        self.inner.start_sync().await
    }
}

posync_client::forward_runtime!(OnVolume { inner, volume });
posync_client::forward_clock!(OnVolume);

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_runtime::{Runner as _, Supervisor as _, tokio::Runner};
    use posync_client::volume::{claim, is_away};
    use posync_protocol::Account;
    use std::fs;

    #[test]
    fn no_file_is_opened_listed_or_removed_while_the_volume_is_away() {
        let home = tempfile::tempdir().expect("a directory");
        let (directory, volume) = (home.path().join("member"), home.path().join("volume"));
        let account = Account([7; 32]);
        fs::create_dir(&directory).expect("made");
        claim(&directory, &volume, &account, "provider").expect("a first start");
        let config = commonware_runtime::tokio::Config::new().with_storage_directory(&volume);
        Runner::new(config).start(async |context| {
            let in_use = InUse::new(&directory, &volume, &account, "provider").expect("it is there");
            let storage = OnVolume::new(context.child("storage"), in_use);
            drop(storage.open("provider-x", b"one").await.expect("it is there"));
            let elsewhere = home.path().join("elsewhere");
            fs::rename(&volume, &elsewhere).expect("unmounted");
            fs::create_dir(&volume).expect("the mount point");
            let child = storage.child("child");
            for refused in [
                child.open("provider-x", b"one").await.map(drop),
                storage.scan("provider-x").await.map(drop),
                storage.remove("provider-x", None).await,
            ] {
                assert!(refused.as_ref().is_err_and(is_away), "{refused:?}");
            }
            assert_eq!(fs::read_dir(&volume).expect("there").count(), 0, "nothing is written below it");
            fs::remove_dir(&volume).expect("empty");
            fs::rename(&elsewhere, &volume).expect("mounted again");
            assert_eq!(storage.scan("provider-x").await.expect("it is back"), [b"one".to_vec()]);
        });
    }
}
