//! A runtime whose storage is a volume that may be unmounted while its member runs.
//!
//! Open files go on then, and what is synced in them is on the volume. But each name leads to the empty mount point: a
//! file that is opened would be an empty one, and what it held would count as lost. So a file is opened, listed or
//! removed only while the volume is there; the error says that it is away otherwise.

use commonware_runtime::{
    BlobVersion, Clock, Error, Handle, Metrics, Name, Resolver, Spawner, Storage, Supervisor,
    signal::Signal,
    telemetry::metrics::{Metric, Registered},
};
use governor::clock::{Clock as GovernorClock, ReasonablyRealtime};
use posync_client::volume::{InUse, away};
use rand_core::{TryCryptoRng, TryRng};
use std::{
    net::IpAddr,
    ops::RangeInclusive,
    time::{Duration, SystemTime},
};

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

impl<E: Storage> Storage for OnVolume<E> {
    type Blob = E::Blob;

    async fn open_versioned(
        &self,
        partition: &str,
        name: &[u8],
        versions: RangeInclusive<BlobVersion>,
    ) -> Result<(E::Blob, u64, BlobVersion), Error> {
        self.is_there()?;
        let opened = self.inner.open_versioned(partition, name, versions).await?;
        // It may have gone meanwhile, and the file be one of the mount point.
        self.is_there().map(|()| opened)
    }

    async fn remove(&self, partition: &str, name: Option<&[u8]>) -> Result<(), Error> {
        self.is_there()?;
        self.inner.remove(partition, name).await
    }

    async fn scan(&self, partition: &str) -> Result<Vec<Vec<u8>>, Error> {
        self.is_there()?;
        let names = self.inner.scan(partition).await?;
        self.is_there().map(|()| names)
    }
}

impl<E: Supervisor> Supervisor for OnVolume<E> {
    fn name(&self) -> Name {
        self.inner.name()
    }

    fn child(&self, label: &'static str) -> Self {
        Self { inner: self.inner.child(label), volume: self.volume.clone() }
    }

    fn with_attribute(self, key: &'static str, value: impl std::fmt::Display) -> Self {
        Self { inner: self.inner.with_attribute(key, value), volume: self.volume }
    }
}

impl<E: Spawner> Spawner for OnVolume<E> {
    fn shared(self, blocking: bool) -> Self {
        Self { inner: self.inner.shared(blocking), volume: self.volume }
    }

    fn dedicated(self) -> Self {
        Self { inner: self.inner.dedicated(), volume: self.volume }
    }

    fn spawn<F, Fut, T>(self, f: F) -> Handle<T>
    where
        F: FnOnce(Self) -> Fut + Send + 'static,
        Fut: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        let volume = self.volume;
        self.inner.spawn(move |inner| f(Self { inner, volume }))
    }

    async fn stop(self, value: i32, timeout: Option<Duration>) -> Result<(), Error> {
        self.inner.stop(value, timeout).await
    }

    fn stopped(&self) -> Signal {
        self.inner.stopped()
    }
}

impl<E: Clock> Clock for OnVolume<E> {
    fn current(&self) -> SystemTime {
        self.inner.current()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + 'static + use<E> {
        self.inner.sleep(duration)
    }

    fn sleep_until(&self, deadline: SystemTime) -> impl Future<Output = ()> + Send + 'static + use<E> {
        self.inner.sleep_until(deadline)
    }
}

impl<E: Clock> GovernorClock for OnVolume<E> {
    type Instant = SystemTime;

    fn now(&self) -> SystemTime {
        self.current()
    }
}

impl<E: Clock> ReasonablyRealtime for OnVolume<E> {}

impl<E: Metrics> Metrics for OnVolume<E> {
    fn register<N: Into<String>, H: Into<String>, M: Metric>(
        &self,
        name: N,
        help: H,
        metric: M,
    ) -> Registered<M> {
        self.inner.register(name, help, metric)
    }

    fn encode(&self) -> String {
        self.inner.encode()
    }
}

impl<E: TryRng> TryRng for OnVolume<E> {
    type Error = E::Error;

    fn try_next_u32(&mut self) -> Result<u32, E::Error> {
        self.inner.try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, E::Error> {
        self.inner.try_next_u64()
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), E::Error> {
        self.inner.try_fill_bytes(bytes)
    }
}

impl<E: TryCryptoRng> TryCryptoRng for OnVolume<E> {}

impl<E: Resolver> Resolver for OnVolume<E> {
    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, Error> {
        self.inner.resolve(host).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_runtime::{Runner as _, tokio::Runner};
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
            let in_use = InUse::new(&directory, &volume, &account, "provider");
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
