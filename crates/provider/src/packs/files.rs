//! Packs, opened on demand; a bounded number stays open.

use super::StoreError;
use commonware_runtime::{Blob, Error, Storage, reschedule};
use commonware_utils::sync::AsyncMutex;
use futures::{FutureExt as _, future::BoxFuture};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Weak},
};

/// Number of files that stay open; each takes one descriptor.
pub(super) const OPEN_MAX: usize = 32;
/// Attempts to open a file that another task is just closing.
const CLOSING_TRIES: usize = 1 << 10;

type Opener<B> = dyn Fn(u32) -> BoxFuture<'static, Result<(B, u64), Error>> + Send + Sync;

/// An open file and its size in bytes when it was opened.
#[derive(Debug)]
pub(super) struct File<B> {
    pub blob: B,
    pub size: u64,
}

struct Open<B> {
    /// Files used recently, the newest last.
    kept: VecDeque<(u32, Arc<File<B>>)>,
    /// Every file that still has a reader.
    alive: BTreeMap<u32, Weak<File<B>>>,
}

/// Opens files and keeps some of them open.
pub(super) struct Files<B> {
    opener: Box<Opener<B>>,
    open: AsyncMutex<Open<B>>,
}

impl<B: Blob> Files<B> {
    /// Manages the files of a partition.
    pub(super) fn new<E: Storage<Blob = B>>(context: E, partition: String) -> Self {
        let context = Arc::new(context);
        let opener = move |number: u32| {
            let (context, partition) = (context.clone(), partition.clone());
            async move { context.open(&partition, &number.to_be_bytes()).await }.boxed()
        };
        let open = Open { kept: VecDeque::new(), alive: BTreeMap::new() };
        Self { opener: Box::new(opener), open: AsyncMutex::new(open) }
    }

    /// Returns a file; creates it if there is none.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(super) async fn get(&self, number: u32) -> Result<Arc<File<B>>, StoreError> {
        let mut open = self.open.lock().await;
        if let Some(file) = open.alive.get(&number).and_then(Weak::upgrade) {
            open.kept.retain(|(known, _)| *known != number);
            open.keep(number, &file);
            return Ok(file);
        }
        let mut tries = 0;
        let (blob, size) = loop {
            match (self.opener)(number).await {
                Err(Error::BlobAlreadyOpen(..)) if tries < CLOSING_TRIES => {
                    tries += 1;
                    reschedule().await;
                }
                opened => break opened?,
            }
        };
        let file = Arc::new(File { blob, size });
        open.alive.retain(|_, file| file.strong_count() > 0);
        open.alive.insert(number, Arc::downgrade(&file));
        open.keep(number, &file);
        Ok(file)
    }

    /// Closes a file once its last reader is done.
    pub(super) async fn close(&self, number: u32) {
        let mut open = self.open.lock().await;
        open.kept.retain(|(known, _)| *known != number);
        open.alive.remove(&number);
    }

    /// Number of open files.
    #[cfg(test)]
    pub(super) async fn open(&self) -> usize {
        self.open.lock().await.alive.values().filter(|file| file.strong_count() > 0).count()
    }
}

impl<B> Open<B> {
    fn keep(&mut self, number: u32, file: &Arc<File<B>>) {
        self.kept.push_back((number, file.clone()));
        if self.kept.len() > OPEN_MAX {
            self.kept.pop_front();
        }
    }
}
