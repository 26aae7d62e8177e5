//! What puts, gets and repair share: the agreements, what is known of providers, memory.

use crate::{
    catalogue::row::Holding,
    coding::{self, FileId, SHARDS},
    deed::{Common, Deed, Room, state::leaves},
    expected::{Coming, Expected},
    limits::{CODING_BYTES_MAX, SEGMENTS_MENDED_MAX, SEGMENTS_READ_MAX, TAILS_MAX},
    link::Heights,
    placement::{Candidate, choose},
    purse::{
        policy::egress_cost,
        state::{Stage, is_ended},
    },
    repair::{
        Notice,
        suspects::{Grace, Suspects},
    },
    why::Recent,
};
use commonware_utils::channel::mpsc;
use posync_protocol::{Account, limits::Parameters, wire::gateway::Why};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};
use tokio::sync::{Notify, Semaphore};

/// Reads under one agreement at once, about.
const READS_AT_ONCE: u64 = 4;

/// What the ledger says of a provider, and what we found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Place in the fee tree: operations name it.
    pub index: u32,
    /// Declared operator.
    pub operator: Vec<u8>,
    /// Region.
    pub region: Vec<u8>,
    /// Where it is reached, once resolved.
    pub address: Option<SocketAddr>,
    /// Whether it may be given new shards: it answers, and its reads are found.
    pub trusted: bool,
    /// Whether the ledger lets it take new agreements: neither suspended nor in jail.
    pub takes: bool,
    /// Its sync score, parts per billion.
    pub score: u64,
    /// It was drawn for its first reads already: no newcomer.
    pub vetted: bool,
}

/// The shared parts.
pub struct Core {
    /// Runtime, catalogue, secrets.
    pub common: Common,
    /// Memory of puts while segments are coded and shards are on their way, in KiB.
    pub coding: Arc<Semaphore>,
    /// Segments that gets gather.
    pub reads: Arc<Semaphore>,
    /// Segments that repair and renewal read.
    pub mending: Arc<Semaphore>,
    /// Acknowledged segments whose last shards are on their way.
    pub tails: Arc<Semaphore>,
    /// Wakes whoever waits for agreements.
    pub opened: Notify,
    /// Wakes who opens agreements: something larger than the room there is comes.
    pub expecting: Notify,
    /// Segments that wait for repair.
    pub repairs_open: AtomicU32,
    /// Last certified height seen.
    pub height: Arc<AtomicU64>,
    /// Providers that do not answer.
    pub suspects: Suspects,
    /// How long they are waited for.
    pub grace: Grace,
    /// Genesis parameters.
    parameters: Parameters,
    notices: mpsc::Sender<Notice>,
    deeds: Mutex<BTreeMap<u32, Arc<Deed>>>,
    known: Mutex<BTreeMap<Account, Known>>,
    putting: Mutex<BTreeSet<FileId>>,
    recent: Mutex<Recent>,
    expected: Expected,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}

impl Core {
    /// Nothing open, nothing known.
    pub fn new(common: Common, notices: mpsc::Sender<Notice>, parameters: Parameters) -> Arc<Self> {
        Arc::new(Self {
            common,
            coding: Arc::new(Semaphore::new(CODING_BYTES_MAX / 1024)),
            reads: Arc::new(Semaphore::new(SEGMENTS_READ_MAX)),
            mending: Arc::new(Semaphore::new(SEGMENTS_MENDED_MAX)),
            tails: Arc::new(Semaphore::new(TAILS_MAX)),
            opened: Notify::new(),
            expecting: Notify::new(),
            repairs_open: AtomicU32::new(0),
            height: Arc::default(),
            suspects: Suspects::default(),
            grace: Grace::of(&parameters),
            parameters,
            notices,
            deeds: Mutex::default(),
            known: Mutex::default(),
            putting: Mutex::default(),
            recent: Mutex::default(),
            expected: Expected::default(),
        })
    }

    /// Takes up an agreement.
    pub fn add_deed(&self, deed: Arc<Deed>) {
        lock(&self.deeds).insert(deed.number, deed);
        self.opened.notify_waiters();
    }

    /// Forgets an agreement.
    pub fn remove_deed(&self, number: u32) -> Option<Arc<Deed>> {
        lock(&self.deeds).remove(&number)
    }

    /// An agreement.
    pub fn deed(&self, number: u32) -> Option<Arc<Deed>> {
        lock(&self.deeds).get(&number).cloned()
    }

    /// All agreements, by number.
    pub fn deeds(&self) -> Vec<Arc<Deed>> {
        lock(&self.deeds).values().cloned().collect()
    }

    /// The agreements with a provider.
    pub fn deeds_with(&self, provider: &Account) -> Vec<Arc<Deed>> {
        self.deeds().into_iter().filter(|deed| deed.provider() == *provider).collect()
    }

    /// The agreement under which a shard is held.
    pub fn holder(&self, holding: &Holding) -> Option<Arc<Deed>> {
        self.deed(holding.deed).filter(|deed| !deed.is_closed())
    }

    /// What is known of a provider.
    pub fn known(&self, provider: &Account) -> Option<Known> {
        lock(&self.known).get(provider).cloned()
    }

    /// Everything that is known, by account.
    pub fn all_known(&self) -> BTreeMap<Account, Known> {
        lock(&self.known).clone()
    }

    /// Learns of a provider; keeps what we found of it.
    pub fn learn(&self, provider: Account, known: Known) {
        if let Some(address) = known.address {
            self.deeds_with(&provider).iter().for_each(|deed| deed.link.set_address(address));
        }
        lock(&self.known).insert(provider, known);
        self.opened.notify_waiters();
    }

    /// Whether a provider may be given new shards.
    pub fn trust(&self, provider: &Account, trusted: bool) {
        if let Some(known) = lock(&self.known).get_mut(provider) {
            known.trusted = trusted;
        }
    }

    fn candidate(account: &Account, known: &Known) -> Candidate {
        Candidate {
            account: *account,
            operator: known.operator.clone(),
            region: known.region.clone(),
            address: known.address,
            load: 0,
            capacity: 0,
            score: known.score,
            vetted: known.vetted,
            eligible: known.trusted && known.takes,
        }
    }

    /// The first agreement of each provider that has room for `leaves` more, with the load and capacity
    /// of all of them: one is filled before the next is begun, so that few data sets change. Without
    /// room the provider counts as full. With `late`, also those that kept somebody waiting a moment ago.
    fn usable(&self, leaves: u64, late: bool) -> Vec<(Candidate, Arc<Deed>)> {
        let known = lock(&self.known);
        let mut all: BTreeMap<Account, (Candidate, Arc<Deed>, bool)> = BTreeMap::new();
        for deed in self.deeds() {
            let (Some(of), terms) = (known.get(&deed.provider()), deed.terms()) else { continue };
            let (load, capacity) = (deed.with_state(|state| state.load()), terms.quota_leaves);
            if terms.stage != Stage::Open as u8 || deed.is_closed() || capacity == 0 {
                continue;
            }
            let answers = if late { deed.link.unanswered().1 == 0 } else { !deed.link.is_doubtful() };
            let eligible = of.trusted && of.takes && answers;
            let has_room = load.saturating_add(leaves) <= capacity;
            let candidate = Candidate { eligible, ..Self::candidate(&deed.provider(), of) };
            let one = all.entry(deed.provider()).or_insert_with(|| (candidate, deed.clone(), false));
            (one.0.load, one.0.capacity) = (one.0.load.saturating_add(load), one.0.capacity + capacity);
            if has_room && !one.2 {
                (one.1, one.2) = (deed, true);
            }
        }
        let full = |candidate: Candidate| Candidate { load: candidate.capacity, ..candidate };
        let of = |(candidate, deed, has_room)| (if has_room { candidate } else { full(candidate) }, deed);
        all.into_values().map(of).collect()
    }

    /// A put of `length` bytes begins: room is opened for what has none.
    pub fn expect(&self, length: u64) -> Coming {
        let segments = coding::segments(length).unwrap_or(0);
        let of = |segment| leaves(coding::shard_bytes(coding::segment_bytes(length, segment)) as u64);
        let (full, last) = if segments == 0 { (0, 0) } else { (of(0), of(segments - 1)) };
        let all = full.saturating_mul(u64::from(segments.saturating_sub(1))).saturating_add(last);
        let coming = self.expected.more(all.saturating_mul(SHARDS as u64));
        self.expecting.notify_one();
        coming
    }

    /// Leaves that are on their way to each of `providers`.
    pub fn demand(&self, providers: usize) -> u64 {
        self.expected.leaves().div_ceil(providers.max(1) as u64)
    }

    /// The agreement under which `bytes` that are held under this one are read: itself while it is open and
    /// its egress lasts, else an open one with the same provider that has enough left, else the one that
    /// has most.
    pub async fn payer(&self, deed: &Arc<Deed>, bytes: u64) -> Arc<Deed> {
        // Others read under it at this moment.
        let enough = bytes.saturating_mul(READS_AT_ONCE);
        let epoch = self.parameters.epoch(self.height.load(Ordering::Relaxed));
        let is_open = |deed: &Deed| Stage::of(&deed.terms()) == Stage::Open;
        let (mut most, mut payer) = ((false, 0), deed.clone());
        for other in [vec![deed.clone()], self.deeds_with(&deed.provider())].concat() {
            let pays = matches!(Stage::of(&other.terms()), Stage::Open | Stage::Draining);
            if !pays || other.is_closed() || is_ended(&other.terms(), epoch) {
                continue;
            }
            let (left, sends) = other.unread().await;
            let left = if sends { left } else { 0 };
            let of = (is_open(&other) && left >= enough, left);
            if of.0 && other.number == deed.number {
                return other;
            }
            if of > most {
                (most, payer) = (of, other);
            }
        }
        payer
    }

    /// Whether nothing on our side stands against reading `bytes` under an agreement: it runs, its quota and
    /// its reserve pay for them.
    pub async fn can_read(&self, deed: &Deed, bytes: u64) -> bool {
        let epoch = self.parameters.epoch(self.height.load(Ordering::Relaxed));
        let (terms, (left, _)) = (deed.terms(), deed.unread().await);
        let read = terms.quota_egress.saturating_sub(left);
        let cost = egress_cost(terms.egress_price, read.saturating_add(bytes));
        let runs = matches!(Stage::of(&terms), Stage::Open | Stage::Draining);
        runs && !deed.is_closed()
            && !is_ended(&terms, epoch)
            && left >= bytes
            && cost.is_some_and(|cost| cost <= terms.voucher_reserve)
    }

    /// Operators that could take a shard of `leaves` now, those that kept somebody waiting a moment ago
    /// included.
    pub fn operators(&self, leaves: u64) -> usize {
        let usable = self.usable(leaves, true);
        let fits = |c: &Candidate| c.eligible && c.load.saturating_add(leaves) <= c.capacity;
        let eligible = usable.iter().filter(|(c, _)| fits(c));
        eligible.map(|(c, _)| &c.operator).collect::<BTreeSet<_>>().len()
    }

    /// Why the others cannot take a shard of `leaves`: how many providers for which reason.
    pub fn hindrances(&self, leaves: u64) -> String {
        let usable: BTreeMap<Account, Candidate> =
            self.usable(leaves, true).into_iter().map(|(c, _)| (c.account, c)).collect();
        let mut counts = BTreeMap::<&str, usize>::new();
        for (account, known) in self.all_known() {
            let silent = self.deeds_with(&account).iter().any(|deed| deed.link.unanswered().1 > 0);
            let reason = match usable.get(&account) {
                _ if !known.takes => "suspended or in jail",
                _ if !known.trusted => "late or failed at a read",
                _ if silent => "silent when they were offered shards",
                None => "without an open agreement",
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

    /// Room for `wanted` shards of `bytes` of a segment, beside those that `kept` providers hold and
    /// away from the `avoided` ones. Fewer when there are too few operators with room.
    pub fn rooms(
        &self,
        place: &[u8],
        wanted: usize,
        bytes: u64,
        kept: &BTreeSet<Account>,
        avoided: &BTreeSet<Account>,
    ) -> Vec<Room> {
        self.rooms_of(place, wanted, bytes, kept, avoided, false)
    }

    /// As [`Self::rooms`], with those that kept somebody waiting a moment ago where there are too few
    /// others: the last in the order.
    pub fn all_rooms(&self, place: &[u8], wanted: usize, bytes: u64, kept: &BTreeSet<Account>) -> Vec<Room> {
        let nobody = BTreeSet::new();
        let mut rooms = self.rooms(place, wanted, bytes, kept, &nobody);
        if rooms.len() < wanted {
            let more = wanted - rooms.len();
            let kept = kept | &rooms.iter().map(|room| room.deed().provider()).collect();
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
        let (mut candidates, mut deeds) = (Vec::new(), Vec::new());
        let leaves = leaves(bytes);
        for (candidate, deed) in self.usable(leaves, late) {
            if !kept.contains(&candidate.account) && !avoided.contains(&candidate.account) {
                candidates.push(candidate);
                deeds.push(deed);
            }
        }
        if kept.is_empty() && avoided.is_empty() {
            lock(&self.recent).note(place, leaves);
        }
        let kept: Vec<Candidate> = self.describe(kept);
        let chosen = choose(place, wanted, leaves, &candidates, &kept);
        chosen.into_iter().filter_map(|index| deeds[index].reserve(bytes)).collect()
    }

    /// What placement says of a provider now.
    pub fn why(&self, provider: &Account) -> Why {
        let candidates: Vec<Candidate> =
            self.usable(1, false).into_iter().map(|(candidate, _)| candidate).collect();
        let silence = self.deeds_with(provider).first().map_or((0, 0), |deed| deed.link.unanswered());
        lock(&self.recent).why(provider, self.known(provider).as_ref(), silence, &candidates)
    }

    fn describe(&self, accounts: &BTreeSet<Account>) -> Vec<Candidate> {
        let known = lock(&self.known);
        let of = |account: &Account| known.get(account).map(|known| Self::candidate(account, known));
        accounts.iter().filter_map(of).collect()
    }

    /// Tells repair. A full mailbox loses it: the next draw, read or scrub finds the same.
    pub fn notice(&self, notice: Notice) {
        if self.notices.try_send(notice).is_err() {
            tracing::debug!("repair is busy; a notice is dropped");
        }
    }

    /// Tells repair, waiting for room.
    pub async fn notice_surely(&self, notice: Notice) {
        // Refused only when repair has ended with the gateway.
        let _ = self.notices.send(notice).await;
    }

    /// The ledger's time, for the ways to providers.
    pub fn heights(&self) -> Heights {
        Heights { height: self.height.clone(), epoch_blocks: self.parameters.epoch_blocks() }
    }

    /// The round of the last certified height seen.
    pub fn round(&self) -> u64 {
        self.parameters.round(self.height.load(Ordering::Relaxed))
    }

    /// A put is under way: its job is left alone until the guard is dropped.
    pub fn putting(self: &Arc<Self>, file: FileId) -> Putting {
        lock(&self.putting).insert(file);
        Putting { core: self.clone(), file }
    }

    /// Whether a put of this file is under way.
    pub fn is_putting(&self, file: &FileId) -> bool {
        lock(&self.putting).contains(file)
    }
}

/// A put under way.
pub struct Putting {
    core: Arc<Core>,
    file: FileId,
}

impl Drop for Putting {
    fn drop(&mut self) {
        lock(&self.core.putting).remove(&self.file);
    }
}
