//! State that puts, gets and repair share, beside that of the account: files, suspects, limits of memory.

use crate::{
    agreement::{OwnAgreement, Room, state::leaves},
    agreements::state::Stage,
    catalogue::{Catalogue, FileId, row::Holding},
    coding::{self, SHARDS},
    expected::Coming,
    limits::{
        CODING_BYTES_MAX, MAILBOX, SEGMENTS_MENDED_MAX, SEGMENTS_READ_MAX, TAILS_MAX, VERSIONS_AHEAD_MAX,
    },
    placement::{Candidate, choose},
    repair::{
        Notice,
        budget::Budget,
        suspects::{Grace, Suspects},
    },
    why::Recent,
};
use commonware_utils::channel::mpsc;
use commonware_utils::sync::Mutex;
use posync_consumer::shared as consumer;
use posync_protocol::{Account, wire::gateway::Why};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Deref,
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};
use tokio::sync::Semaphore;

pub(crate) use consumer::Known;

/// The state that the gateway's tasks share.
pub(crate) struct Shared {
    /// State of the gateway's account: agreements, facts about providers.
    pub consumer: Arc<consumer::Shared>,
    /// Durable record of files, shards and agreements.
    pub catalogue: Catalogue,
    /// Memory, in KiB, for the segments that puts code and for their shards until a provider has them.
    pub coding: Arc<Semaphore>,
    /// Permits for segments that gets gather at once.
    pub reads: Arc<Semaphore>,
    /// Permits for segments that repair and renewal read at once.
    pub mending: Arc<Semaphore>,
    /// Permits for acknowledged segments whose last shards are still being sent.
    pub tails: Arc<Semaphore>,
    /// Number of segments that wait for repair or are being repaired.
    pub repairs_open: AtomicU32,
    /// Providers that are suspected because they are silent.
    pub suspects: Suspects,
    /// The egress that examinations of providers cost.
    pub examinations: Budget,
    /// Times for which a suspect may be silent before its shards are rebuilt.
    pub grace: Grace,
    notices: mpsc::Sender<Notice>,
    putting: Mutex<BTreeSet<FileId>>,
    recent: Mutex<Recent>,
}

/// State of the account that holds the agreements.
impl Deref for Shared {
    type Target = consumer::Shared;

    fn deref(&self) -> &Self::Target {
        &self.consumer
    }
}

impl Shared {
    /// The state of a gateway beside that of its account, and the notices for repair. Findings that are
    /// `heard` about the account's shards become notices. `grace` is the grace period that the operator chose.
    pub(crate) fn new(
        consumer: Arc<consumer::Shared>,
        catalogue: Catalogue,
        mut heard: mpsc::Receiver<consumer::Notice>,
        grace: Option<Duration>,
    ) -> (Arc<Self>, mpsc::Receiver<Notice>) {
        let (notices, receiver) = mpsc::channel(MAILBOX);
        let sender = notices.clone();
        consumer.common.environment.spawn(async move {
            while let Some(finding) = heard.recv().await {
                // This fails only when repair has ended with the gateway.
                let _ = sender.send(finding.into()).await;
            }
        });
        let shared = Self {
            catalogue,
            coding: Arc::new(Semaphore::new(CODING_BYTES_MAX / 1024)),
            reads: Arc::new(Semaphore::new(SEGMENTS_READ_MAX)),
            mending: Arc::new(Semaphore::new(SEGMENTS_MENDED_MAX)),
            tails: Arc::new(Semaphore::new(TAILS_MAX)),
            repairs_open: AtomicU32::new(0),
            suspects: Suspects::default(),
            examinations: Budget::default(),
            grace: Grace::of(&consumer.parameters, grace),
            notices,
            putting: Mutex::default(),
            recent: Mutex::default(),
            consumer,
        };
        (Arc::new(shared), receiver)
    }

    /// The agreement under which a shard is held, unless it is closed.
    pub(crate) fn holder(&self, holding: &Holding) -> Option<Arc<OwnAgreement>> {
        self.agreement(holding.agreement).filter(|agreement| !agreement.is_closed())
    }

    fn candidate(account: &Account, known: &Known) -> Candidate {
        Candidate {
            account: *account,
            operator: known.operator.clone(),
            region: known.region.clone(),
            address: known.socket,
            load: 0,
            capacity: 0,
            score: known.score,
            vetted: known.vetted,
            eligible: known.trusted && known.takes,
        }
    }

    /// For each provider, its first agreement with room for `leaves` more, and the load and capacity of all
    /// its agreements. One agreement is filled before the next is begun, so that few data sets change. A
    /// provider without room counts as full. With `late`, providers that were late a moment ago and agreements
    /// that wait for the ledger are eligible, too.
    fn usable(&self, leaves: u64, late: bool) -> Vec<(Candidate, Arc<OwnAgreement>)> {
        let known = self.all_known();
        let mut all: BTreeMap<Account, (Candidate, Arc<OwnAgreement>, bool)> = BTreeMap::new();
        for agreement in self.agreements() {
            let (Some(of), terms) = (known.get(&agreement.provider()), agreement.terms()) else { continue };
            let (load, capacity) = (agreement.with_state(|state| state.load()), terms.quota_leaves);
            if terms.stage != Stage::Open as u8 || agreement.is_closed() || capacity == 0 {
                continue;
            }
            let answers =
                if late { agreement.peer.unanswered().1 == 0 } else { !agreement.peer.is_doubtful() };
            let eligible = of.trusted && of.takes && answers;
            // One that can have nothing signed until the ledger goes on comes after those that can.
            let signs = late || agreement.ahead() < VERSIONS_AHEAD_MAX;
            let has_room = signs && load.saturating_add(leaves) <= capacity;
            let candidate = Candidate { eligible, ..Self::candidate(&agreement.provider(), of) };
            let one =
                all.entry(agreement.provider()).or_insert_with(|| (candidate, agreement.clone(), false));
            (one.0.load, one.0.capacity) = (one.0.load.saturating_add(load), one.0.capacity + capacity);
            if has_room && !one.2 {
                (one.1, one.2) = (agreement, true);
            }
        }
        let full = |candidate: Candidate| Candidate { load: candidate.capacity, ..candidate };
        let of = |(candidate, agreement, has_room)| {
            (if has_room { candidate } else { full(candidate) }, agreement)
        };
        all.into_values().map(of).collect()
    }

    /// Announces the first `length` bytes of a put, so that agreements are opened for them if room is short.
    pub(crate) fn expect(&self, coming: &Coming, length: u64) {
        let segments = coding::segments(length).unwrap_or(0);
        let of = |segment| leaves(coding::shard_bytes(coding::segment_bytes(length, segment)) as u64);
        let (full, last) = if segments == 0 { (0, 0) } else { (of(0), of(segments - 1)) };
        let all = full.saturating_mul(u64::from(segments.saturating_sub(1))).saturating_add(last);
        self.announce(coming, all.saturating_mul(SHARDS as u64));
    }

    /// Number of operators that could take a shard of `leaves` now, including those that were late a moment
    /// ago.
    pub(crate) fn operators(&self, leaves: u64) -> usize {
        let usable = self.usable(leaves, true);
        let fits = |c: &Candidate| c.eligible && c.load.saturating_add(leaves) <= c.capacity;
        let eligible = usable.iter().filter(|(c, _)| fits(c));
        eligible.map(|(c, _)| &c.operator).collect::<BTreeSet<_>>().len()
    }

    /// Why the other providers cannot take a shard of `leaves`: the number of providers for each reason.
    pub(crate) fn hindrances(&self, leaves: u64) -> String {
        let usable: BTreeMap<Account, Candidate> =
            self.usable(leaves, true).into_iter().map(|(c, _)| (c.account, c)).collect();
        let (mut counts, dear) = (BTreeMap::<&str, usize>::new(), self.is_dear());
        for (account, known) in self.all_known() {
            let silent =
                self.agreements_with(&account).iter().any(|agreement| agreement.peer.unanswered().1 > 0);
            let reason = match usable.get(&account) {
                _ if !known.takes => "suspended or in jail",
                _ if !known.trusted => "late or failed at a read",
                _ if silent => "silent when they were offered shards",
                None if self.lacks_money() => {
                    "without an open agreement, for which the gateway's account lacks money"
                }
                None if dear => {
                    "without an open agreement, while the posted price is above what this gateway pays for new room"
                }
                None => "without an open agreement",
                Some(of) if of.load.saturating_add(leaves) > of.capacity && dear => {
                    "full, while the posted price is above what this gateway pays for new room"
                }
                Some(of) if of.load.saturating_add(leaves) > of.capacity => {
                    "full until another agreement opens"
                }
                Some(_) => continue,
            };
            *counts.entry(reason).or_default() += 1;
        }
        if counts.is_empty() {
            return "no other provider is known".into();
        }
        let count = |(reason, count): (&str, usize)| format!("{count} {reason}");
        counts.into_iter().map(count).collect::<Vec<_>>().join(", ")
    }

    /// Reserves room for `wanted` shards of `bytes` of a segment, beside those that `kept` providers hold
    /// and away from the `avoided` ones. Returns fewer when too few operators have room.
    pub(crate) fn rooms(
        &self,
        place: &[u8],
        wanted: usize,
        bytes: u64,
        kept: &BTreeSet<Account>,
        avoided: &BTreeSet<Account>,
    ) -> Vec<Room> {
        self.rooms_of(place, wanted, bytes, kept, avoided, false)
    }

    /// As [`Self::rooms`]; where too few operators have room, those that were late a moment ago follow at
    /// the end.
    pub(crate) fn all_rooms(
        &self,
        place: &[u8],
        wanted: usize,
        bytes: u64,
        kept: &BTreeSet<Account>,
    ) -> Vec<Room> {
        let nobody = BTreeSet::new();
        let mut rooms = self.rooms(place, wanted, bytes, kept, &nobody);
        if rooms.len() < wanted {
            let more = wanted - rooms.len();
            let kept = kept | &rooms.iter().map(|room| room.agreement().provider()).collect();
            rooms.extend(self.rooms_of(place, more, bytes, &kept, &nobody, true));
        }
        rooms
    }

    fn rooms_of(
        &self,
        place: &[u8],
        wanted: usize,
        bytes: u64,
        kept: &BTreeSet<Account>,
        avoided: &BTreeSet<Account>,
        late: bool,
    ) -> Vec<Room> {
        let (mut candidates, mut agreements) = (Vec::new(), Vec::new());
        let leaves = leaves(bytes);
        for (candidate, agreement) in self.usable(leaves, late) {
            if !kept.contains(&candidate.account) && !avoided.contains(&candidate.account) {
                candidates.push(candidate);
                agreements.push(agreement);
            }
        }
        if kept.is_empty() && avoided.is_empty() {
            self.recent.lock().note(place, leaves);
        }
        let kept: Vec<Candidate> = self.describe(kept);
        let chosen = choose(place, wanted, leaves, &candidates, &kept);
        chosen.into_iter().filter_map(|index| agreements[index].reserve(bytes)).collect()
    }

    /// Explains why recent segments would or would not place a shard with a provider now.
    pub(crate) fn why(&self, provider: &Account) -> Why {
        let candidates: Vec<Candidate> =
            self.usable(1, false).into_iter().map(|(candidate, _)| candidate).collect();
        let peer_health =
            self.agreements_with(provider).first().map_or((0, 0), |agreement| agreement.peer.unanswered());
        self.recent.lock().why(provider, self.known(provider).as_ref(), peer_health, &candidates)
    }

    fn describe(&self, accounts: &BTreeSet<Account>) -> Vec<Candidate> {
        let known = self.all_known();
        let of = |account: &Account| known.get(account).map(|known| Self::candidate(account, known));
        accounts.iter().filter_map(of).collect()
    }

    /// Notifies repair. A full mailbox drops the notice: the next draw, read or scrub finds the same.
    pub(crate) fn notice(&self, notice: Notice) {
        if self.notices.try_send(notice).is_err() {
            tracing::debug!("repair is busy; a notice is dropped");
        }
    }

    /// Notifies repair, and waits for room in its mailbox.
    pub(crate) async fn notice_surely(&self, notice: Notice) {
        // This fails only when repair has ended with the gateway.
        let _ = self.notices.send(notice).await;
    }

    /// Marks a file as being put: the reaper skips its job until the guard is dropped.
    pub(crate) fn putting(self: &Arc<Self>, file: FileId) -> Putting {
        self.putting.lock().insert(file);
        Putting { shared: self.clone(), file }
    }

    /// True while a put of this file is running.
    pub(crate) fn is_putting(&self, file: &FileId) -> bool {
        self.putting.lock().contains(file)
    }
}

/// Guard of a running put; dropping it lets the reaper have the file's job.
pub(crate) struct Putting {
    shared: Arc<Shared>,
    file: FileId,
}

impl Drop for Putting {
    fn drop(&mut self) {
        self.shared.putting.lock().remove(&self.file);
    }
}
