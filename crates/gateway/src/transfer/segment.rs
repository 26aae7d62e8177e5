//! Stores the shards of one segment at eight operators.
//!
//! ```text
//!   eight rooms ─► each: connect ─► bytes ─► stored ─► signature ──► the sixth: durable
//!                          │ refused, or late: another operator's room  └─► the rest goes on behind
//! ```
//!
//! Invariants
//! 1. The segment's row is on disk before a shard leaves: every signed shard has its place there, and
//!    after a crash repair finds the missing shards.
//! 2. A put does not wait for the seventh shard, and no single provider decides whether it succeeds.
//! 3. A provider that was late or silent gets a shard only beside another provider, or where there are too few
//!    others.
//! 4. A refusal because the provider is busy or the agreement full ([`Refusal::Busy`],
//!    [`Refusal::Space`]) uses up no attempt; the provider may be asked again.
//! 5. All attempts share a shard's bytes, which are freed as soon as one provider has them.

use super::{Error, put::Fate};
use crate::{
    access::{Buffer, Part, Share},
    agreement::{Room, Unsigned, state::leaves},
    catalogue::{
        FileId,
        row::{Added, SegmentRow},
    },
    coding::{self, DATA, FileKey, SHARDS, Shard},
    expected::Coming,
    limits::ACKNOWLEDGE_SHARDS,
    peer::{self, Parcel, Peer},
    shared::Shared,
};
use commonware_macros::select;
use commonware_utils::sync::Mutex;
use futures::{
    StreamExt as _,
    future::{BoxFuture, pending},
    stream::FuturesUnordered,
};
use posync_client::watch;
use posync_protocol::{Account, Bounded, wire::provider::Refusal};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::sync::OwnedSemaphorePermit;

/// Time for which a segment waits for room at enough operators: agreements fill up while others open.
const ROOM_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause between looks for room when there was too little.
const ROOM_PAUSE: Duration = Duration::from_millis(500);
/// Maximum of other places that are tried for a refused shard.
const SHARD_ATTEMPTS: u32 = 4;
/// Maximum of the time, beside that of the way, after which a second provider is offered a shard that the first
/// has not stored.
const HEDGE: Duration = Duration::from_secs(1);
/// Time for which a shard may be later than the others of its segment, beyond the time that half of them
/// took and beyond that of its way, before it is offered to a second provider.
const HEDGE_BEYOND: Duration = Duration::from_millis(200);
/// Bounds of the time after the sixth signature within which the other providers must answer, or they count
/// as slow. Between them it is [`LINGER_TIMES`] as long as the six took.
const LINGER: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(2)];
/// Factor on the time of the six, within the bounds of [`LINGER`].
const LINGER_TIMES: u32 = 4;
/// Time for which a put waits for its next signature. It is long because a provider stops signing while
/// signed data sets wait for the ledger, and because a provider that pauses comes back.
const SIGNED_TIMEOUT: Duration = Duration::from_secs(180);
/// Maximum of providers that an error names.
const NAMED_MAX: usize = 4;
/// Characters of a provider's answer that an error repeats, beside the provider's name.
const SAID_MAX: usize = 120;

type UnderWay = FuturesUnordered<BoxFuture<'static, ()>>;

/// The upload of one segment to its providers.
pub(super) struct Task {
    shared: Arc<Shared>,
    share: Arc<Share>,
    fate: Arc<Fate>,
    file: FileId,
    segment: u32,
    /// Bytes of a shard.
    bytes: usize,
    /// The segment's name in placement: file and number.
    place: Vec<u8>,
    signed: AtomicUsize,
    stored: AtomicUsize,
    /// Time that the first half of the shards took to be stored, once they are.
    half: watch::Sender<Option<Duration>>,
    /// Providers that hold a shard of the segment, or are asked to.
    used: Mutex<BTreeSet<Account>>,
    /// Providers that have not answered yet, by the number of the question.
    asked: Mutex<BTreeMap<u64, Arc<Peer>>>,
    questions: AtomicU64,
    /// The last reason for which each provider did not take a shard.
    said: Mutex<BTreeMap<Account, String>>,
}

/// Guard of an open question to a provider; dropping it removes the question.
struct Asked<'a>(&'a Task, u64);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.asked.lock().remove(&self.1);
    }
}

impl Task {
    /// The upload of a segment of `plain` bytes.
    pub(super) fn new(
        shared: &Arc<Shared>,
        share: &Arc<Share>,
        fate: &Arc<Fate>,
        (file, segment): (FileId, u32),
        plain: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            shared: shared.clone(),
            share: share.clone(),
            fate: fate.clone(),
            file,
            segment,
            bytes: coding::shard_bytes(plain),
            place: [&file[..], &segment.to_be_bytes()].concat(),
            signed: AtomicUsize::new(0),
            stored: AtomicUsize::new(0),
            half: watch::Sender::new(None),
            used: Mutex::default(),
            asked: Mutex::default(),
            questions: AtomicU64::new(0),
            said: Mutex::default(),
        })
    }

    /// Codes the segment and sends its shards to eight operators; returns when six have signed.
    pub(super) async fn store(
        self: Arc<Self>,
        key: FileKey,
        plain: Vec<u8>,
        buffer: Buffer,
        coming: &Coming,
    ) -> Result<(), Error> {
        let length = u32::try_from(plain.len()).expect("a segment is 4 MiB");
        self.shared.volume.has_room()?;
        let rooms = self.rooms().await?;
        coming.placed(leaves(self.bytes as u64).saturating_mul(SHARDS as u64));
        self.used.lock().extend(rooms.iter().map(|room| room.agreement().provider()));
        let mut memory = self.share.coding(&self.shared, (DATA + SHARDS) * self.bytes).await;
        let shards = self.encode(key, plain).await;
        drop((buffer, memory.split(DATA * self.bytes)));
        let names = Bounded::new(shards.iter().map(|shard| shard.name).collect()).expect("eight");
        let row = SegmentRow { plain: length, names, holdings: Bounded::default() };
        self.shared.catalogue.place(self.file, self.segment, row).await?;
        let under_way = UnderWay::new();
        for ((position, shard), room) in shards.into_iter().enumerate().zip(rooms) {
            let (name, parcel) = (shard.name, Parcel::new(shard.bytes));
            let parcel = parcel.expect("a shard is 1 MiB");
            let added = Added {
                file: self.file,
                segment: self.segment,
                position: position as u8,
                sequence: 0,
                name,
                bytes: u32::try_from(self.bytes).expect("a shard is 1 MiB"),
                moves: false,
            };
            under_way.push(Box::pin(self.clone().bring(room, added, parcel, memory.split(self.bytes))));
        }
        drop(memory);
        self.collect(under_way).await
    }

    /// Reserves room at eight operators, or at six or seven when there are no more.
    async fn rooms(&self) -> Result<Vec<Room>, Error> {
        let (shared, nobody) = (&self.shared, BTreeSet::new());
        let enough = async {
            loop {
                let rooms = shared.all_rooms(&self.place, SHARDS, self.bytes as u64, &nobody);
                if rooms.len() >= ACKNOWLEDGE_SHARDS {
                    return rooms;
                }
                drop(rooms);
                shared.common.environment.sleep(ROOM_PAUSE).await;
            }
        };
        let rooms = shared.common.environment.within(ROOM_TIMEOUT, enough).await;
        let leaves = leaves(self.bytes as u64);
        rooms.ok_or_else(|| {
            Error::Operators(shared.operators(leaves), ACKNOWLEDGE_SHARDS, shared.hindrances(leaves))
        })
    }

    async fn encode(&self, key: FileKey, plain: Vec<u8>) -> [Shard; SHARDS] {
        let (sender, receiver) = commonware_utils::channel::oneshot::channel();
        let segment = self.segment;
        self.shared.common.environment.spawn(async move {
            // The put may be gone: the shards are then not needed any more.
            let _ = sender.send(coding::encode(&key, segment, &plain));
        });
        match receiver.await {
            Ok(shards) => shards,
            // The runtime is stopping, and this future with it.
            Err(_) => pending().await,
        }
    }

    fn signed(&self) -> usize {
        self.signed.load(Ordering::Acquire)
    }

    /// Waits for six signatures; the other shards are sent in the background.
    async fn collect(self: &Arc<Self>, mut under_way: UnderWay) -> Result<(), Error> {
        let environment = &self.shared.common.environment;
        let begun = environment.now();
        while self.signed() < ACKNOWLEDGE_SHARDS {
            let possible = self.signed() + under_way.len() >= ACKNOWLEDGE_SHARDS;
            let next = environment.within(SIGNED_TIMEOUT, under_way.next());
            if !possible || next.await.flatten().is_none() {
                return Err(Error::Unsigned(self.signed(), self.why()));
            }
        }
        if self.signed() < SHARDS {
            let place = self.shared.tails.clone().try_acquire_owned().ok();
            let took = environment.now().duration_since(begun).unwrap_or_default();
            let linger = took.saturating_mul(LINGER_TIMES).clamp(LINGER[0], LINGER[1]);
            environment.spawn(self.clone().go_on(under_way, place, linger));
        }
        Ok(())
    }

    /// Sends the last shards of a segment that is durable. Without a `place` too many segments are at that
    /// point, and repair completes this one. A provider that leaves an offer unanswered for `linger` counts as
    /// slow; one whose signature waits for the ledger does not.
    async fn go_on(
        self: Arc<Self>,
        mut under_way: UnderWay,
        place: Option<OwnedSemaphorePermit>,
        linger: Duration,
    ) {
        let environment = &self.shared.common.environment;
        if place.is_some() {
            let rest = async { while under_way.next().await.is_some() {} };
            let patient = async {
                tokio::pin!(rest);
                if environment.within(linger, &mut rest).await.is_none()
                    && environment.within(self.furthest(), &mut rest).await.is_none()
                {
                    self.asked.lock().values().filter(|peer| peer.owes(linger)).for_each(Peer::late);
                    environment.within(SIGNED_TIMEOUT, rest).await;
                }
            };
            select! {
                () = patient => {},
                () = self.fate.failed() => {},
            }
        }
        drop((under_way, place));
        if self.signed() < SHARDS {
            self.fate.incomplete(self.segment).await;
        }
    }

    /// The longest way to a provider that has not answered yet.
    fn furthest(&self) -> Duration {
        self.asked.lock().values().map(|peer| peer.way()).max().unwrap_or_default()
    }

    /// Sends one shard to its provider, or to others if that one is late or refuses, and waits for the
    /// signature.
    async fn bring(self: Arc<Self>, room: Room, added: Added, parcel: Parcel, memory: Part) {
        let given = self.give(room, added, &parcel).await;
        drop((parcel, memory));
        let Some((peer, unsigned)) = given else { return };
        let _asked = self.ask(&peer);
        if unsigned.signed().await {
            self.signed.fetch_add(1, Ordering::AcqRel);
        } else {
            let why = peer.last_refusal().unwrap_or_else(|| "it did not sign".into());
            self.note(peer.account(), format!("provider {}: {why}", peer.account()));
        }
    }

    /// Completes when a shard is later at `peer` than those of its segment that are stored, and after [`HEDGE`];
    /// both are counted beside the time of the way.
    async fn late(&self, peer: Arc<Peer>) {
        let behind = async {
            let mut half = self.half.subscribe();
            let took = half.wait_for(Option::is_some).await.ok().and_then(|half| *half);
            peer.overdue(took.unwrap_or(HEDGE) + HEDGE_BEYOND).await;
        };
        select! {
            () = behind => {},
            () = peer.overdue(HEDGE) => {},
        }
    }

    fn note_stored(&self, begun: SystemTime) {
        if self.stored.fetch_add(1, Ordering::AcqRel) + 1 == DATA {
            let took = self.shared.common.environment.now().duration_since(begun).unwrap_or_default();
            self.half.send_replace(Some(took));
        }
    }

    /// Has one provider store a shard: the one with `room`, or the faster of two when that one is late or on
    /// trial.
    async fn give(&self, room: Room, added: Added, parcel: &Parcel) -> Option<(Arc<Peer>, Unsigned)> {
        let begun = self.shared.common.environment.now();
        let mut attempts = FuturesUnordered::new();
        let (mut refused, mut hedged) = (0, room.agreement().peer.is_on_trial());
        let mut offered = Vec::new();
        let mut attempt = |room: Room| {
            offered.push(room.agreement().peer.clone());
            self.attempt(room, added, parcel)
        };
        let late = self.late(room.agreement().peer.clone());
        attempts.push(attempt(room));
        if hedged {
            attempts.extend(self.instead(false).map(&mut attempt));
        }
        tokio::pin!(late);
        loop {
            let answer = select! {
                answer = attempts.next() => Some(answer?),
                () = async { if hedged { pending().await } else { (&mut late).await } } => None,
            };
            match answer {
                Some(Ok(given)) => {
                    self.note_stored(begun);
                    // Another one was faster than these.
                    let late = offered.iter().filter(|peer| peer.owes(HEDGE_BEYOND));
                    late.filter(|peer| peer.account() != given.0.account()).for_each(Peer::late);
                    return Some(given);
                }
                Some(Err((provider, uses_none))) => {
                    self.used.lock().remove(&provider);
                    refused += u32::from(!uses_none);
                    if attempts.is_empty() {
                        let room = if refused > SHARD_ATTEMPTS { None } else { self.elsewhere().await };
                        attempts.push(attempt(room?));
                    }
                }
                None => {
                    hedged = true;
                    attempts.extend(self.instead(false).map(&mut attempt));
                }
            }
        }
    }

    /// Offers a shard to one provider. The error holds its account, and `true` if it is only busy or the
    /// agreement is full. A full agreement is passed over for a while, and others open meanwhile.
    async fn attempt(
        &self,
        room: Room,
        added: Added,
        parcel: &Parcel,
    ) -> Result<(Arc<Peer>, Unsigned), (Account, bool)> {
        let peer = room.agreement().peer.clone();
        let _asked = self.ask(&peer);
        let given = match peer.ready().await {
            Ok(()) => room.give(added, parcel).await,
            Err(error) => Err(error),
        };
        given.map(|unsigned| (peer.clone(), unsigned)).map_err(|error| {
            peer.doubt();
            self.note(peer.account(), error.to_string());
            let goes_on = matches!(error, peer::Error::Refused(_, Refusal::Busy | Refusal::Space, _));
            (peer.account(), goes_on)
        })
    }

    /// Waits for room for a refused shard, at an operator that holds no shard of the segment. It may be the
    /// operator that refused: it may have another agreement by now, or be less busy. Full agreements are no
    /// reason to give up, since others open meanwhile. `None` after [`SIGNED_TIMEOUT`].
    async fn elsewhere(&self) -> Option<Room> {
        let environment = &self.shared.common.environment;
        let found = async {
            loop {
                if let Some(room) = self.instead(false) {
                    return room;
                }
                environment.sleep(ROOM_PAUSE).await;
                if let Some(room) = self.instead(true) {
                    return room;
                }
            }
        };
        environment.within(SIGNED_TIMEOUT, found).await
    }

    /// Reserves room at an operator that holds no shard of the segment; with `late`, also at one that was
    /// late a moment ago.
    fn instead(&self, late: bool) -> Option<Room> {
        let (mut used, bytes) = (self.used.lock(), self.bytes as u64);
        let mut rooms = match late {
            true => self.shared.all_rooms(&self.place, 1, bytes, &used),
            false => self.shared.rooms(&self.place, 1, bytes, &used, &BTreeSet::new()),
        };
        let room = rooms.pop()?;
        used.insert(room.agreement().provider());
        Some(room)
    }

    fn ask(&self, peer: &Arc<Peer>) -> Asked<'_> {
        let question = self.questions.fetch_add(1, Ordering::Relaxed);
        self.asked.lock().insert(question, peer.clone());
        Asked(self, question)
    }

    fn note(&self, provider: Account, why: String) {
        tracing::debug!(%why, segment = self.segment, "a provider did not store a shard");
        let said = why.chars().flat_map(char::escape_debug).take(SAID_MAX + 80).collect();
        self.said.lock().insert(provider, said);
    }

    /// The providers that did not take a shard and the reason of each, as text of an error.
    fn why(&self) -> String {
        let mut all = self.said.lock().clone();
        for peer in self.asked.lock().values() {
            let late = || format!("provider {} has not answered yet", peer.account());
            all.entry(peer.account()).or_insert_with(late);
        }
        let (count, mut named) = (all.len(), all.into_values().take(NAMED_MAX).collect::<Vec<_>>());
        if count > NAMED_MAX {
            named.push(format!("and {} others", count - NAMED_MAX));
        }
        named.join(", ")
    }
}
