//! Stores a file: codes segments as their bytes arrive, and sends each to eight operators.
//!
//! ```text
//!   bytes ─► 4 MiB ─► encode ─► 8 x store ─► 8 x signature ─► 6 of 8: the segment is durable
//!            │ of the caller's  │ memory of all   │ at most 64 wait    └─► the others go on behind
//!            │ own share        ▼ puts            ▼
//!   file durable when every segment is: the name is switched in one commit, then acknowledged
//! ```
//!
//! Invariants
//! 1. `Ok` means that at least 6 of 8 shards of every segment are durable on providers that signed
//!    for them, and the catalogue has this on disk. A put waits for no block and no seventh shard.
//! 2. Dropping the future while segments are stored leaves a job that frees the space again, and repair
//!    is notified of no segment of the file. Once the file is being recorded, the put completes.
//! 3. A put reserves its bytes of its account's quota, and its name, before anything else; one that fails gives
//!    both back.
//! 4. Room is opened ahead for as many bytes as have arrived, and for one segment of an account at any time, whatever
//!    is announced: agreements lock the gateway's money.
//! 5. On a full volume no put begins, and none goes on to its next segment: each takes a row of the catalogue.
//! 6. Arriving bytes are kept in the caller's share of memory. Memory that all puts have in common
//!    ([`crate::limits::CODING_BYTES_MAX`]) is taken when a segment is whole, never while the put waits
//!    for its caller.

use super::{Error, segment};
use crate::{
    access::{Buffer, Share},
    catalogue::{Claim, FileId, Stopped, row::FileRow},
    coding::{self, FileKey, SEGMENT_BYTES},
    expected::Coming,
    limits::{ACKNOWLEDGE_SHARDS, SEGMENTS_UNSIGNED_MAX},
    repair::Notice,
    shared::{Putting, Shared},
};
use commonware_macros::select;
use commonware_utils::channel::oneshot;
use commonware_utils::sync::Mutex;
use futures::{
    StreamExt as _,
    future::pending,
    stream::{BoxStream, FuturesUnordered},
};
use posync_client::watch;
use posync_protocol::wire::gateway::{File, Name};
use std::{sync::Arc, time::Duration};

/// Room is opened for this multiple of the bytes that have arrived.
const AHEAD_TIMES: u64 = 2;
/// Time for which a put waits for agreements to open in a new network.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// Stores `length` bytes from `pieces` under `name`, for the account that owns `share`.
///
/// # Errors
/// [`Error`]; a piece may be an error, which is returned. The reaper then frees what was stored.
pub(crate) async fn put(
    shared: &Arc<Shared>,
    share: &Arc<Share>,
    name: Name,
    length: u64,
    mut pieces: BoxStream<'_, Result<Vec<u8>, Error>>,
) -> Result<File, Error> {
    if name.is_empty() {
        return Err(Error::Name);
    }
    let segments = coding::segments(length).ok_or(Error::Length(length))?;
    shared.volume.has_room()?;
    let claim = Claim {
        owner: share.owner,
        name: name.to_vec(),
        bytes: length,
        quota: share.quota,
        names: share.names,
    };
    let seed = shared.common.environment.random();
    let id: FileId = seed[..16].try_into().expect("sixteen of 32 bytes");
    let putting = shared.putting(id);
    let job = shared.catalogue.begin(id, claim).await?;
    let job = job.map_err(|no| Error::no_room(length, share.quota, no))?;
    let ending = Ending(Arc::new(Fate::new(shared.clone(), id)));
    let coming = shared.begin();
    let first = share.opens_ahead.try_acquire().ok();
    let ahead = if first.is_some() { SEGMENT_BYTES as u64 } else { 0 };
    shared.expect(&coming, ahead.min(length));
    ready(shared, segments).await?;
    let under_way = UnderWay { shared, share, id, length, coming: &coming, fate: &ending.0 };
    let blake3 = under_way.stream(&mut pieces).await?;
    let row = FileRow { name, id, bytes: length, blake3, segments, owner: share.owner };
    finish(shared, job, row, putting, ending).await
}

/// Turns the put into a file. Once begun it goes on even if the caller is gone: otherwise the file could
/// exist without repair knowing its incomplete segments, and stay at six holders.
async fn finish(
    shared: &Arc<Shared>,
    job: u32,
    row: FileRow,
    putting: Putting,
    ending: Ending,
) -> Result<File, Error> {
    let (answer, finished) = oneshot::channel();
    let catalogue = shared.catalogue.clone();
    shared.common.environment.spawn(async move {
        let done = catalogue.finish(job, row).await;
        if matches!(done, Ok(Ok(_))) {
            ending.0.stored();
        }
        drop((ending, putting));
        // The caller may be gone.
        let _ = answer.send(done);
    });
    let (file, _replaced) = finished.await.map_err(|_| Stopped)??.map_err(Error::Full)?;
    Ok(file)
}

/// Waits until six operators can take shards; the last two shards of a segment follow when they can.
async fn ready(shared: &Arc<Shared>, segments: u32) -> Result<(), Error> {
    let enough = async {
        loop {
            let opened = shared.opened.notified();
            if segments == 0 || shared.operators(0) >= ACKNOWLEDGE_SHARDS {
                return;
            }
            opened.await;
        }
    };
    match shared.common.environment.within(READY_TIMEOUT, enough).await {
        Some(()) => Ok(()),
        None => Err(Error::Operators(shared.operators(0), ACKNOWLEDGE_SHARDS, shared.hindrances(0))),
    }
}

/// The state of a put, for the shards that are still sent after their segment was acknowledged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Stored,
    Failed,
}

/// The outcome of a put, shared with its segments, which are acknowledged one by one.
pub(super) struct Fate {
    shared: Arc<Shared>,
    file: FileId,
    end: watch::Sender<End>,
    /// Segments with fewer than eight shards; repair is notified of them once the file is stored.
    incomplete: Mutex<Vec<u32>>,
}

impl Fate {
    fn new(shared: Arc<Shared>, file: FileId) -> Self {
        Self { shared, file, end: watch::Sender::new(End::Open), incomplete: Mutex::default() }
    }

    /// Resolves when the put has failed: the file will never exist.
    pub(super) async fn failed(&self) {
        // An error is impossible: `self` holds the sender.
        let _ = self.end.subscribe().wait_for(|end| *end == End::Failed).await;
    }

    /// Records a segment with fewer than eight shards: repair completes it if the file is stored.
    pub(super) async fn incomplete(&self, segment: u32) {
        {
            let mut incomplete = self.incomplete.lock();
            match *self.end.borrow() {
                End::Open => return incomplete.push(segment),
                End::Failed => return,
                End::Stored => {}
            }
        }
        self.shared.notice_surely(Notice::Incomplete { file: self.file, segment }).await;
    }

    fn stored(&self) {
        let segments = {
            let mut incomplete = self.incomplete.lock();
            self.end.send_replace(End::Stored);
            std::mem::take(&mut *incomplete)
        };
        if segments.is_empty() {
            return;
        }
        let (shared, file) = (self.shared.clone(), self.file);
        self.shared.common.environment.spawn(async move {
            for segment in segments {
                shared.notice_surely(Notice::Incomplete { file, segment }).await;
            }
        });
    }
}

/// If this is dropped before the file is stored, the put has failed.
struct Ending(Arc<Fate>);

impl Drop for Ending {
    fn drop(&mut self) {
        let open = |end: &mut End| {
            let is_open = *end == End::Open;
            if is_open {
                *end = End::Failed;
            }
            is_open
        };
        if self.0.end.send_if_modified(open) {
            tracing::debug!("a put ends before its file is stored; its space comes back");
        }
    }
}

struct UnderWay<'a> {
    shared: &'a Arc<Shared>,
    share: &'a Arc<Share>,
    id: FileId,
    length: u64,
    coming: &'a Coming,
    fate: &'a Arc<Fate>,
}

impl UnderWay<'_> {
    /// Stores the segments. Returns the BLAKE3 hash of the file's bytes.
    async fn stream(&self, pieces: &mut BoxStream<'_, Result<Vec<u8>, Error>>) -> Result<[u8; 32], Error> {
        let key = FileKey::derive(&self.shared.common.master, &self.id);
        let mut hasher = blake3::Hasher::new();
        let (mut arrived, mut rest) = (0, Vec::new());
        let mut under_way = FuturesUnordered::new();
        for segment in 0..coding::segments(self.length).ok_or(Error::Length(self.length))? {
            let plain = coding::segment_bytes(self.length, segment);
            let mut bytes = std::mem::take(&mut rest);
            let mut buffer: Option<Buffer> = None;
            while bytes.len() < plain {
                let piece = among(&mut under_way, pieces.next()).await?;
                let piece = piece.ok_or(Error::Incomplete(arrived, self.length))??;
                arrived += piece.len() as u64;
                if arrived > self.length || piece.is_empty() {
                    return Err(Error::Incomplete(arrived, self.length));
                }
                self.shared.expect(self.coming, self.length.min(arrived.saturating_mul(AHEAD_TIMES)));
                hasher.update(&piece);
                // Memory is taken once bytes arrive: a caller that sends no bytes holds no memory.
                if buffer.is_none() {
                    buffer = Some(among(&mut under_way, self.share.incoming(plain)).await?);
                    bytes.reserve_exact(plain.saturating_sub(bytes.len()));
                }
                bytes.extend_from_slice(&piece);
            }
            let buffer = match buffer {
                Some(buffer) => buffer,
                // The previous segment's last piece held all of this one.
                None => among(&mut under_way, self.share.incoming(plain)).await?,
            };
            rest = bytes.split_off(plain);
            let task = segment::Task::new(self.shared, self.share, self.fate, (self.id, segment), plain);
            under_way.push(task.store(key.clone(), bytes, buffer, self.coming));
            while under_way.len() >= SEGMENTS_UNSIGNED_MAX {
                under_way.next().await.expect("not empty")?;
            }
        }
        while let Some(stored) = under_way.next().await {
            stored?;
        }
        Ok(*hasher.finalize().as_bytes())
    }
}

/// Waits for `work` while segments are being stored; the first one that fails ends the wait.
async fn among<T>(
    under_way: &mut FuturesUnordered<impl Future<Output = Result<(), Error>>>,
    work: impl Future<Output = T>,
) -> Result<T, Error> {
    let failed = async {
        loop {
            match under_way.next().await {
                Some(Err(error)) => return error,
                Some(Ok(())) => {}
                None => return pending().await,
            }
        }
    };
    select! {
        done = work => Ok(done),
        error = failed => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agreement::Common,
        catalogue::{self, row::Owner},
        environment::Environment,
    };
    use commonware_runtime::{Runner as _, Supervisor as _, deterministic::Runner};
    use commonware_utils::channel::mpsc;
    use futures::poll;
    use posync_protocol::{Bounded, limits::Parameters};

    #[test]
    fn repair_hears_of_a_file_whose_consumer_leaves_while_it_becomes_one() {
        Runner::default().start(|context| async move {
            let started = catalogue::start(context.child("catalogue"), "test", [9; 32]).await;
            let (catalogue, _, _disk) = started.expect("opens");
            let environment = Environment::new(&context);
            let common = Common {
                environment,
                catalogue: (*catalogue).clone(),
                chain: [1; 32],
                master: [9; 32],
                signed: Default::default(),
            };
            let (findings, none) = mpsc::channel(8);
            let account =
                posync_consumer::shared::Shared::new(common, findings, Parameters::LOCAL, Default::default());
            let (shared, mut heard) = Shared::new(account, catalogue, none, None);
            let (id, name) = ([3; 16], Bounded::new(b"a file".to_vec()).expect("short"));
            let putting = shared.putting(id);
            let job = shared.catalogue.begin(id, Claim::default()).await;
            let job = job.expect("runs").expect("room");
            let ending = Ending(Arc::new(Fate::new(shared.clone(), id)));
            ending.0.incomplete(0).await;
            let row =
                FileRow { name, id, bytes: 1000, blake3: [1; 32], segments: 1, owner: Owner::default() };
            {
                let mut finishing = Box::pin(finish(&shared, job, row, putting, ending));
                assert!(poll!(&mut finishing).is_pending(), "it is asked, and nothing is on disk");
            }
            let notice = heard.recv().await;
            assert!(
                matches!(notice, Some(Notice::Incomplete { file, segment: 0 }) if file == id),
                "{notice:?}"
            );
            assert!(shared.catalogue.file(b"a file".to_vec()).await.expect("runs").is_some());
            // The spawned task drops the guard by itself.
            while shared.is_putting(&id) {
                shared.common.environment.sleep(Duration::from_millis(1)).await;
            }
        });
    }
}
