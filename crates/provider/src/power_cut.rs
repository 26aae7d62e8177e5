//! Test support: a storage that fails at its n-th operation, as in a power cut.
//!
//! From then on every operation fails. The run ends, and the runtime's own fault model decides
//! which unsynced bytes survive ([`power_cut`]).

use commonware_runtime::{
    Blob, BlobVersion, Error, Handle, IoBufs, IoBufsMut, ReadOptions, Runner as _, Storage, WriteOptions,
    deterministic::{self, FaultConfig, PartialWriteMode, ResizeConfig, WriteConfig},
};
use commonware_utils::{Probability, probability};
use posync_client::volume::{VolumeError, away};
use std::{
    future::Future,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

/// Operations left until the cut, and whether the volume is full or away; shared by a context and everything
/// opened through it.
#[derive(Clone, Default)]
pub(crate) struct Fuse(Arc<AtomicI64>, Arc<AtomicBool>, Arc<AtomicI64>, Arc<AtomicBool>, Arc<AtomicBool>);

impl Fuse {
    pub(crate) fn after(operations: i64) -> Self {
        Self(
            Arc::new(AtomicI64::new(operations)),
            Arc::default(),
            Arc::default(),
            Arc::default(),
            Arc::default(),
        )
    }

    /// Operations left; negative once the fuse has blown.
    pub(crate) fn left(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    /// Makes every write from now on fail with "no space left on device", or succeed again.
    pub(crate) fn set_full(&self, full: bool) {
        self.1.store(full, Ordering::SeqCst);
    }

    /// Makes every opening, listing and removing from now on fail as on an unmounted volume, or succeed again. Open
    /// files go on.
    pub(crate) fn set_away(&self, is_away: bool) {
        self.3.store(is_away, Ordering::SeqCst);
    }

    fn by_name(&self) -> Result<(), Error> {
        let is_away = self.3.load(Ordering::SeqCst);
        if is_away { Err(away(VolumeError::Missing("volume".into()))) } else { Ok(()) }
    }

    /// Makes the n-th opening or reading of a pack from now on fail once.
    pub(crate) fn fail_packs(&self, nth: i64) {
        self.2.store(nth, Ordering::SeqCst);
    }

    /// Makes every reading of a pack from now on fail with an error of the device, or succeed again.
    pub(crate) fn fail_reads(&self, fails: bool) {
        self.4.store(fails, Ordering::SeqCst);
    }

    /// True until the requested failure has happened.
    pub(crate) fn is_pack_failure_due(&self) -> bool {
        self.2.load(Ordering::SeqCst) > 0
    }

    fn pack(&self, is_pack: bool) -> Result<(), Error> {
        self.burn()?;
        let is_due = is_pack && self.2.fetch_sub(1, Ordering::SeqCst) == 1;
        let fails = is_due || is_pack && self.4.load(Ordering::SeqCst);
        if fails { Err(std::io::Error::from_raw_os_error(5).into()) } else { Ok(()) }
    }

    fn write(&self) -> Result<(), Error> {
        self.burn()?;
        let full = self.1.load(Ordering::SeqCst);
        if full { Err(std::io::Error::from_raw_os_error(28).into()) } else { Ok(()) }
    }

    fn burn(&self) -> Result<(), Error> {
        if self.0.fetch_sub(1, Ordering::SeqCst) > 0 { Ok(()) } else { Err(Error::Closed) }
    }
}

/// A context whose storage fails at the cut.
pub(crate) struct Cut<E> {
    inner: E,
    fuse: Fuse,
}

impl<E> Cut<E> {
    pub(crate) const fn new(inner: E, fuse: Fuse) -> Self {
        Self { inner, fuse }
    }
}

posync_client::forward_runtime!(Cut { inner, fuse });
posync_client::forward_clock!(Cut);

impl<E: Storage> Storage for Cut<E> {
    type Blob = CutBlob<E::Blob>;
    async fn open_versioned(
        &self,
        partition: &str,
        name: &[u8],
        versions: RangeInclusive<BlobVersion>,
    ) -> Result<(Self::Blob, u64, BlobVersion), Error> {
        let is_pack = partition.ends_with("-segments");
        self.fuse.by_name()?;
        self.fuse.pack(is_pack)?;
        let (inner, size, version) = self.inner.open_versioned(partition, name, versions).await?;
        Ok((CutBlob { inner, fuse: self.fuse.clone(), is_pack }, size, version))
    }
    async fn remove(&self, partition: &str, name: Option<&[u8]>) -> Result<(), Error> {
        self.fuse.by_name()?;
        self.fuse.burn()?;
        self.inner.remove(partition, name).await
    }
    async fn scan(&self, partition: &str) -> Result<Vec<Vec<u8>>, Error> {
        self.fuse.by_name()?;
        self.fuse.burn()?;
        self.inner.scan(partition).await
    }
}

/// A blob of [`Cut`], which fails with it.
pub(crate) struct CutBlob<B> {
    inner: B,
    fuse: Fuse,
    is_pack: bool,
}

impl<B: Blob> Blob for CutBlob<B> {
    async fn read_at_buf(
        &self,
        offset: u64,
        len: usize,
        bufs: impl Into<IoBufsMut> + Send,
        options: ReadOptions,
    ) -> Result<IoBufsMut, Error> {
        self.fuse.pack(self.is_pack)?;
        self.inner.read_at_buf(offset, len, bufs, options).await
    }
    async fn read_at(&self, offset: u64, len: usize, options: ReadOptions) -> Result<IoBufsMut, Error> {
        self.fuse.pack(self.is_pack)?;
        self.inner.read_at(offset, len, options).await
    }
    async fn write_at(
        &self,
        offset: u64,
        bufs: impl Into<IoBufs> + Send,
        options: WriteOptions,
    ) -> Result<(), Error> {
        self.fuse.write()?;
        self.inner.write_at(offset, bufs, options).await
    }
    async fn resize(&self, len: u64) -> Result<(), Error> {
        self.fuse.burn()?;
        self.inner.resize(len).await
    }
    async fn sync(&self) -> Result<(), Error> {
        self.fuse.write()?;
        self.inner.sync().await
    }
    async fn start_sync(&self) -> Handle<()> {
        match self.fuse.burn() {
            Ok(()) => self.inner.start_sync().await,
            Err(error) => Handle::ready(Err(error)),
        }
    }
}

/// Fates of unsynced bytes at the cut: lost, a prefix, a random subset, all kept.
pub(crate) const CUTS: [(PartialWriteMode, u64); 4] = [
    (PartialWriteMode::Prefix, 0),
    (PartialWriteMode::Prefix, 97),
    (PartialWriteMode::Subset, 50),
    (PartialWriteMode::Subset, 100),
];

/// Runs `work` until storage operation `operation`, cuts the power, and passes the surviving bytes to
/// `check` in a new run. Returns `true` if the work ended before the fuse blew.
pub(crate) fn power_cut<W, WF, C, CF, T>(
    operation: i64,
    cut: (PartialWriteMode, u64),
    work: W,
    check: C,
) -> bool
where
    W: FnOnce(Cut<deterministic::Context>) -> WF,
    WF: Future<Output = T>,
    C: FnOnce(deterministic::Context, T) -> CF,
    CF: Future<Output = ()>,
{
    let faults = FaultConfig::default()
        .write(WriteConfig {
            failure_rate: probability!(0.0),
            retention_rate: Probability::new(cut.1, 100).expect("a percentage"),
            mode: cut.0,
        })
        .resize(ResizeConfig { failure_rate: probability!(0.0), partial_rate: probability!(0.0) });
    let seed = u64::try_from(operation).expect("not negative");
    let config = deterministic::Config::default().with_seed(seed).with_storage_fault_config(faults);
    let fuse = Fuse::after(operation);
    let burning = fuse.clone();
    let (result, checkpoint) =
        deterministic::Runner::new(config).start_and_recover(|context| work(Cut::new(context, burning)));
    deterministic::Runner::from(checkpoint).start(|context| check(context, result));
    fuse.left() >= 0
}
