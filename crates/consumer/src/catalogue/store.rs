//! Rows by key on the runtime's storage: reads them, stages changes, and makes the changes durable
//! together.
//!
//! The table is `commonware_storage::qmdb::store`: a log of updates with an index in memory (about 30
//! bytes a row), atomic batches and one sync per commit; old space of the log is freed.

use super::row::{CatalogueRow, Key};
use crate::limits::ROW_BYTES_MAX;
use bytes::Bytes;
use commonware_codec::{Decode as _, RangeCfg};
use commonware_runtime::{Clock, Metrics, Spawner, Storage, buffer::paged::CacheRef};
use commonware_storage::{
    journal::contiguous::variable::Config as LogConfig,
    qmdb::{
        floor::Proportional,
        store::db::{Config, Db},
    },
    translator::{EightCap, Hashed},
};
use commonware_utils::{NZU16, NZU64, NZUsize};
use posync_client::watermark::Watermark;
use std::collections::BTreeMap;

/// Reasons for which the catalogue fails.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk failed; nothing more is acknowledged.
    #[error("the catalogue's disk failed: {0}; free space or replace the disk, then start again")]
    Disk(String),
    /// A page of the store is damaged.
    #[error(
        "a page of the catalogue is damaged ({0}); start the gateway again: it sets the page aside and goes on \
         with what can be read. If it does not start, move its `storage` directory aside and bring back the last \
         backup with `posync gateway restore FILE`: what it knows is read from the providers as before, files \
         stored since then are not"
    )]
    Page(String),
    /// A row does not decode.
    #[error(
        "a row of the catalogue does not decode ({0}); it is kept as it is. If files are missing, stop the \
         gateway, move its `storage` directory aside and run `posync gateway restore FILE` with a backup"
    )]
    Damaged(commonware_codec::Error),
    /// The file is not a whole backup.
    #[error("this is no whole backup of a catalogue: {0}; take another one")]
    Backup(&'static str),
    /// A restore found a catalogue that is not empty.
    #[error(
        "the catalogue here is not empty; a backup replaces none. To give it up, stop the gateway and move \
         its `storage` directory aside, then restore"
    )]
    NotEmpty,
    /// A restore was interrupted.
    #[error("a restore into this catalogue did not end; run `posync gateway restore FILE` again, then start")]
    Restoring,
    /// A bound of the catalogue is reached.
    #[error("the catalogue is full: {0}")]
    Full(&'static str),
}

/// The runtime's partitions that hold the catalogue opened in `partition`.
pub fn partitions(partition: &str) -> [String; 3] {
    ["data", "offsets-blobs", "offsets-metadata"].map(|part| format!("{partition}-catalogue_{part}"))
}

/// The partition of the notes about how much of the catalogue in `partition` is durable.
pub(crate) fn durable_partition(partition: &str) -> String {
    format!("{partition}-catalogue-durable")
}

/// Changes in one file of the log.
pub(super) const FILE_CHANGES: u64 = 16_384;

type Translator = Hashed<EightCap>;
type Table<E> = Db<E, Key, Vec<u8>, Translator>;

/// Log items below the floor that are kept before they are pruned.
const PRUNE_ITEMS: u64 = 8192;

/// The durable rows, and changes that are not durable yet.
pub struct Store<E: Storage + Clock + Metrics> {
    /// `None` only after a failed write; every later call fails.
    table: Option<Table<E>>,
    staged: BTreeMap<Key, Option<Vec<u8>>>,
    /// Notes how many changes are durable.
    watermark: Option<Watermark<E::Blob>>,
}

impl<E: Storage + Clock + Metrics + Spawner> Store<E> {
    /// Opens the table in `partition`; uncommitted changes are gone.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn open(context: E, partition: &str) -> Result<Self, Error> {
        let noted = Watermark::open(&context, &durable_partition(partition)).await;
        let (watermark, durable) = noted.map_or((None, None), |(notes, newest)| (Some(notes), newest));
        if super::salvage::is_damaged(&context, partition, durable.map(|(_, changes)| changes)).await? {
            return Err(Error::Page("a checksum does not hold".into()));
        }
        let config = Config {
            log: LogConfig {
                partition: format!("{partition}-catalogue"),
                items_per_section: NZU64!(FILE_CHANGES),
                compression: None,
                codec_config: ((RangeCfg::new(0..=64), ()), (RangeCfg::new(0..=ROW_BYTES_MAX), ())),
                page_cache: CacheRef::new(NZU16!(4096), NZUsize!(2048)),
                write_buffer: NZUsize!(256 << 10),
                replay_buffer: NZUsize!(1 << 20),
            },
            translator: Hashed::from_seed(0x706f_7379_6e63, EightCap),
            init_cache: Some(NZUsize!(1 << 16)),
            init_buffer: NZUsize!(1 << 20),
        };
        let table = Table::init(context, config, None).await.map_err(disk)?;
        Ok(Self { table: Some(table), staged: BTreeMap::new(), watermark })
    }

    fn table(&self) -> Result<&Table<E>, Error> {
        self.table.as_ref().ok_or_else(|| Error::Disk("an earlier write failed".into()))
    }

    /// The row at `key`, including staged changes.
    ///
    /// # Errors
    /// A disk failure, or bytes that do not decode.
    pub async fn get<R: CatalogueRow>(&self, key: &Key) -> Result<Option<R>, Error> {
        let bytes = self.raw(key).await?;
        bytes.map(|bytes| R::decode_cfg(Bytes::from(bytes), &()).map_err(Error::Damaged)).transpose()
    }

    /// The bytes of the row at `key`, including staged changes.
    ///
    /// # Errors
    /// A disk failure.
    pub async fn raw(&self, key: &Key) -> Result<Option<Vec<u8>>, Error> {
        match self.staged.get(key) {
            Some(staged) => Ok(staged.clone()),
            None => self.table()?.get(key).await.map_err(disk),
        }
    }

    /// Stages a row as encoded bytes.
    pub fn put_raw(&mut self, key: Key, bytes: Vec<u8>) {
        self.staged.insert(key, Some(bytes));
    }

    /// Stages a row for the next commit.
    pub fn put<R: CatalogueRow>(&mut self, key: Key, row: &R) {
        self.staged.insert(key, Some(row.encode().to_vec()));
    }

    /// Stages the deletion of a row.
    pub fn delete(&mut self, key: Key) {
        self.staged.insert(key, None);
    }

    /// Number of changes that are staged and not durable.
    pub fn staged(&self) -> usize {
        self.staged.len()
    }

    /// Makes all staged changes durable together.
    ///
    /// # Errors
    /// A disk failure; every later call fails, too.
    pub async fn commit(&mut self) -> Result<(), Error> {
        if self.staged.is_empty() {
            return Ok(());
        }
        let changes = std::mem::take(&mut self.staged).into_iter().collect();
        let table = self.table.take().ok_or_else(|| Error::Disk("an earlier write failed".into()))?;
        let table = table.apply_batch(changes, &mut Proportional).await.map_err(disk)?;
        let mut table = table.commit().await.map_err(disk)?;
        if let Some(watermark) = &mut self.watermark {
            watermark.note((0, *table.bounds().end)).await;
        }
        let floor = table.inactivity_floor_loc();
        if *floor >= *table.bounds().start + PRUNE_ITEMS {
            table = table.prune(floor).await.map_err(disk)?;
        }
        self.table = Some(table);
        Ok(())
    }
}

pub(super) fn disk(error: impl std::fmt::Display) -> Error {
    let text = error.to_string();
    let damage = ["checksum", "corrupt", "mismatch"];
    let is_damage = damage.iter().any(|word| text.to_lowercase().contains(word));
    if is_damage { Error::Page(text) } else { Error::Disk(text) }
}
