//! Stores a file: segments are coded as bytes arrive and go to eight operators each.
//!
//! ```text
//!   bytes ─► 4 MiB ─► encode ─► 8 x store ─► 8 x signature ─► 6 of 8: the segment is durable
//!            │ at most 3 in memory        │ at most 64 wait for signatures
//!            ▼                            ▼
//!   file durable when every segment is: the name is switched in one commit, then acknowledged
//! ```
//!
//! Invariants
//! 1. `Ok` means that at least 6 of 8 shards of every segment are durable on providers that signed
//!    for them, and the catalogue says so on disk. No block is waited for.
//! 2. Dropping the future at any point leaves a job that gives the space back.
//! 3. Memory: [`crate::limits::SEGMENTS_IN_FLIGHT`] segments with their shards, over all puts.

use super::Error;
use crate::{
    catalogue::row::{Added, FileRow, SegmentRow},
    coding::{self, FileId, FileKey, SHARDS, Shard},
    core::Core,
    deed::{Room, Unsigned, state::leaves},
    expected::Coming,
    limits::{ACKNOWLEDGE_SHARDS, SEGMENTS_UNSIGNED_MAX},
    repair::Notice,
};
use commonware_macros::select;
use futures::{
    StreamExt as _,
    future::pending,
    stream::{BoxStream, FuturesUnordered},
};
use posync_protocol::{
    Account, Bounded,
    wire::gateway::{File, Name},
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::OwnedSemaphorePermit;

/// How long an empty network is given to open agreements.
const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause between looks for room when there was too little.
const ROOM_PAUSE: Duration = Duration::from_millis(500);
/// Other places that a shard is brought to when one does not take it.
const SHARD_ATTEMPTS: u32 = 4;
/// How long the last two shards of a segment are waited for before repair takes over.
const LINGER: Duration = Duration::from_secs(2);
/// How long six signatures are waited for.
const SIGNED_TIMEOUT: Duration = Duration::from_secs(60);

/// Stores `length` bytes from `pieces` (which end early when the caller gave up) under `name`.
///
/// # Errors
/// [`Error`]; nothing of the file stays.
pub async fn put(
    core: &Arc<Core>,
    name: Name,
    length: u64,
    mut pieces: BoxStream<'_, Vec<u8>>,
) -> Result<File, Error> {
    if name.is_empty() {
        return Err(Error::Name);
    }
    let segments = coding::segments(length).ok_or(Error::Length(length))?;
    let coming = core.expect(length);
    ready(core, segments).await?;
    let seed = core.common.environment.random();
    let id: FileId = seed[..16].try_into().expect("sixteen of 32 bytes");
    let _putting = core.putting(id);
    let job = core.common.catalogue.begin(id, segments).await?;
    let blake3 = stream(core, id, length, &mut pieces, &coming).await?;
    let row = FileRow { name, id, bytes: length, blake3, segments };
    let (file, _replaced) = core.common.catalogue.finish(job, row).await?.map_err(Error::Full)?;
    Ok(file)
}

/// Waits until enough operators can take shards.
async fn ready(core: &Arc<Core>, segments: u32) -> Result<(), Error> {
    let enough = async {
        loop {
            let opened = core.opened.notified();
            if segments == 0 || core.operators() >= SHARDS {
                return;
            }
            opened.await;
        }
    };
    // With six or seven the put goes on: repair completes it when others come.
    core.common.environment.within(READY_TIMEOUT, enough).await;
    let operators = core.operators();
    if segments > 0 && operators < ACKNOWLEDGE_SHARDS {
        return Err(Error::Operators(operators, ACKNOWLEDGE_SHARDS));
    }
    Ok(())
}

/// Stores the segments; the BLAKE3 of the bytes.
async fn stream(
    core: &Arc<Core>,
    id: FileId,
    length: u64,
    pieces: &mut BoxStream<'_, Vec<u8>>,
    coming: &Coming,
) -> Result<[u8; 32], Error> {
    let key = FileKey::derive(&core.common.master, &id);
    let mut hasher = blake3::Hasher::new();
    let (mut arrived, mut rest) = (0, Vec::new());
    let mut under_way = FuturesUnordered::new();
    for segment in 0..coding::segments(length).ok_or(Error::Length(length))? {
        let plain = coding::segment_bytes(length, segment);
        let memory = core.put_memory.clone().acquire_owned();
        let memory = among(&mut under_way, memory).await?.expect("the semaphore is never closed");
        let mut bytes = Vec::with_capacity(plain + rest.len());
        bytes.append(&mut rest);
        while bytes.len() < plain {
            let piece = among(&mut under_way, pieces.next()).await?.ok_or(Error::Cancelled)?;
            hasher.update(&piece);
            arrived += piece.len() as u64;
            if arrived > length || piece.is_empty() {
                return Err(Error::Incomplete(arrived, length));
            }
            bytes.extend_from_slice(&piece);
        }
        rest = bytes.split_off(plain);
        under_way.push(store(core.clone(), (id, segment), key.clone(), bytes, memory, coming));
        while under_way.len() >= SEGMENTS_UNSIGNED_MAX {
            under_way.next().await.expect("not empty")?;
        }
    }
    while let Some(stored) = under_way.next().await {
        stored?;
    }
    Ok(*hasher.finalize().as_bytes())
}

/// What `work` gives, while the segments under way go on; ends at once if one of them fails.
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

/// Codes one segment and brings its shards to eight operators.
async fn store(
    core: Arc<Core>,
    (file, segment): (FileId, u32),
    key: FileKey,
    plain: Vec<u8>,
    memory: OwnedSemaphorePermit,
    coming: &Coming,
) -> Result<(), Error> {
    let bytes = coding::shard_bytes(plain.len()) as u64;
    let length = u32::try_from(plain.len()).expect("a segment is 4 MiB");
    let shards = encode(&core, key, segment, plain).await;
    let names = shards.iter().map(|shard| shard.name).collect();
    let names = Bounded::new(names).expect("eight");
    let holdings = Bounded::new(Vec::new()).expect("none");
    let row = SegmentRow { plain: length, names, holdings };
    core.common.catalogue.place(file, segment, row).await?;
    let place = [&file[..], &segment.to_be_bytes()].concat();
    let rooms = rooms(&core, &place, bytes).await?;
    coming.placed(leaves(bytes).saturating_mul(SHARDS as u64));
    let memory = Arc::new(memory);
    let used = Mutex::new(rooms.iter().map(|room| room.deed().provider()).collect::<BTreeSet<_>>());
    let under_way = FuturesUnordered::new();
    for ((position, shard), room) in shards.into_iter().enumerate().zip(rooms) {
        let added = Added {
            file,
            segment,
            position: position as u8,
            sequence: 0,
            name: shard.name,
            bytes: u32::try_from(bytes).expect("a shard is 1 MiB"),
            moves: false,
        };
        under_way.push(one(&core, &place, &used, room, added, shard.bytes, memory.clone()));
    }
    drop(memory);
    collect(&core, file, segment, under_way).await
}

/// Room at eight operators, or at six when there are no more. Who kept somebody waiting is passed over
/// for a while, and agreements fill up while others open: too few now may be enough in a moment.
async fn rooms(core: &Arc<Core>, place: &[u8], bytes: u64) -> Result<Vec<Room>, Error> {
    let environment = &core.common.environment;
    let enough = async {
        loop {
            let rooms = core.rooms(place, SHARDS, bytes, &BTreeSet::new(), &BTreeSet::new());
            if rooms.len() >= ACKNOWLEDGE_SHARDS {
                return rooms;
            }
            drop(rooms);
            environment.sleep(ROOM_PAUSE).await;
        }
    };
    let rooms = environment.within(READY_TIMEOUT, enough).await;
    rooms.ok_or_else(|| Error::Operators(core.operators(), ACKNOWLEDGE_SHARDS))
}

/// Waits for six signatures, then a little for the others.
async fn collect(
    core: &Core,
    file: FileId,
    segment: u32,
    mut under_way: FuturesUnordered<impl Future<Output = Result<(), String>>>,
) -> Result<(), Error> {
    let (mut signed, mut why) = (0, String::new());
    let environment = &core.common.environment;
    while signed < SHARDS {
        let patience = if signed < ACKNOWLEDGE_SHARDS { SIGNED_TIMEOUT } else { LINGER };
        match environment.within(patience, under_way.next()).await {
            Some(Some(Ok(()))) => signed += 1,
            Some(Some(Err(error))) => why = error,
            Some(None) | None => break,
        }
    }
    if signed < ACKNOWLEDGE_SHARDS {
        return Err(Error::Unsigned(signed, why));
    }
    if signed < SHARDS {
        core.notice(Notice::Incomplete { file, segment });
    }
    Ok(())
}

async fn encode(core: &Core, key: FileKey, segment: u32, plain: Vec<u8>) -> [Shard; SHARDS] {
    let (sender, receiver) = commonware_utils::channel::oneshot::channel();
    core.common.environment.spawn(async move {
        // The put may be gone: then nobody wants the shards.
        let _ = sender.send(coding::encode(&key, segment, &plain));
    });
    match receiver.await {
        Ok(shards) => shards,
        // The runtime is stopping: so is this future.
        Err(_) => pending().await,
    }
}

/// Brings one shard to its provider, or to others if that one cannot be reached or does not take it, and
/// waits for the signature.
async fn one(
    core: &Arc<Core>,
    place: &[u8],
    used: &Mutex<BTreeSet<Account>>,
    mut room: Room,
    added: Added,
    bytes: Vec<u8>,
    memory: Arc<OwnedSemaphorePermit>,
) -> Result<(), String> {
    let mut attempts = 0;
    let unsigned = loop {
        let (full, length) = (room.deed().clone(), room.bytes());
        let sent = match full.link.ready().await {
            Ok(()) => send(room, added, bytes.clone()).await,
            Err(error) => {
                full.link.doubt();
                Err(error.to_string())
            }
        };
        match sent {
            Ok(unsigned) => break unsigned,
            Err(error) => {
                attempts += 1;
                room =
                    elsewhere(core, place, used, (&full.provider(), length), attempts).await.ok_or(error)?;
            }
        }
    };
    drop((memory, bytes));
    if unsigned.signed().await { Ok(()) } else { Err("a provider refused to sign".into()) }
}

/// Room for a shard that was not taken: with an operator that holds none of the segment, the one that
/// did not take it included, which may have another agreement by now. Full is not final: agreements
/// open meanwhile. `None` when that was waited for in vain.
async fn elsewhere(
    core: &Arc<Core>,
    place: &[u8],
    used: &Mutex<BTreeSet<Account>>,
    (refused, bytes): (&Account, u64),
    attempts: u32,
) -> Option<Room> {
    if attempts > SHARD_ATTEMPTS {
        return None;
    }
    used.lock().expect("no holder of this lock panics").remove(refused);
    let environment = &core.common.environment;
    let found = async {
        loop {
            if let Some(room) = instead(core, place, used, bytes) {
                return room;
            }
            environment.sleep(ROOM_PAUSE).await;
        }
    };
    environment.within(SIGNED_TIMEOUT, found).await
}

/// Room at an operator that holds no shard of the segment.
fn instead(core: &Core, place: &[u8], used: &Mutex<BTreeSet<Account>>, bytes: u64) -> Option<Room> {
    let mut used = used.lock().expect("no holder of this lock panics");
    let other = core.rooms(place, 1, bytes, &used, &BTreeSet::new()).pop()?;
    used.insert(other.deed().provider());
    Some(other)
}

async fn send(room: Room, added: Added, bytes: Vec<u8>) -> Result<Unsigned, String> {
    let link = room.deed().link.clone();
    room.store(added, bytes).await.map_err(|error| {
        link.doubt();
        error.to_string()
    })
}
