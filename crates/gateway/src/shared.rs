//! State that puts, gets and repair share: agreements, facts about providers, limits of memory.

use crate::{
    agreement::{Common, OwnAgreement, Room, state::leaves},
    agreements::{
        policy::egress_cost,
        state::{Stage, is_ended},
    },
    catalogue::row::Holding,
    coding::{self, FileId, SHARDS},
    expected::{Coming, Expected},
    limits::{CODING_BYTES_MAX, SEGMENTS_MENDED_MAX, SEGMENTS_READ_MAX, TAILS_MAX},
    peer::Heights,
    placement::{Candidate, choose},
    repair::{
        Notice,
        suspects::{Grace, Suspects},
    },
    why::Recent,
};
use commonware_utils::channel::mpsc;
use posync_client::address::Address;
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

/// Assumed number of simultaneous reads under one agreement.
const READS_AT_ONCE: u64 = 4;

/// A provider's record on the ledger, and this gateway's experience with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Index in the fee tree, by which operations name the provider.
    pub index: u32,
    /// Operator that the provider declared.
    pub operator: Vec<u8>,
    /// Name of the region that the provider declared.
    pub region: Vec<u8>,
    /// First address on the ledger that parses as one; `None` if none does.
    pub address: Option<Address>,
    /// Socket address that it had when the ledger was last read, for placement; `None` if its name has none.
    pub socket: Option<SocketAddr>,
    /// True while it may get new shards: it answers, and its reads are found.
    pub trusted: bool,
    /// True while the ledger lets it take new agreements: it is neither suspended nor in jail.
    pub takes: bool,
    /// Sync score in parts per billion.
    pub score: u64,
    /// True once it was drawn for [`posync_protocol::limits::HISTORY`] reads, and so is no newcomer.
    pub vetted: bool,
}

/// The state that the gateway's tasks share.
pub struct Shared {
    /// Runtime, catalogue and secrets, as agreements use them.
    pub common: Common,
    /// Memory, in KiB, for the segments that puts code and for their shards until a provider has them.
    pub coding: Arc<Semaphore>,
    /// Permits for segments that gets gather at once.
    pub reads: Arc<Semaphore>,
    /// Permits for segments that repair and renewal read at once.
    pub mending: Arc<Semaphore>,
    /// Permits for acknowledged segments whose last shards are still being sent.
    pub tails: Arc<Semaphore>,
    /// Wakes puts that wait for agreements: one opened, or a provider's record changed.
    pub opened: Notify,
    /// Wakes the task that opens agreements: a put began that may need more room.
    pub expecting: Notify,
    /// Number of segments that wait for repair or are being repaired.
    pub repairs_open: AtomicU32,
    /// Greatest certified height seen, in blocks.
    pub height: Arc<AtomicU64>,
    /// Providers that are suspected because they are silent.
    pub suspects: Suspects,
    /// Times for which a suspect may be silent before its shards are rebuilt.
    pub grace: Grace,
    /// Parameters of the network, from the genesis.
    parameters: Parameters,
    notices: mpsc::Sender<Notice>,
    agreements: Mutex<BTreeMap<u32, Arc<OwnAgreement>>>,
    known: Mutex<BTreeMap<Account, Known>>,
    putting: Mutex<BTreeSet<FileId>>,
    recent: Mutex<Recent>,
    expected: Expected,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}

impl Shared {
    /// A core without agreements and without records of providers.
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
            agreements: Mutex::default(),
            known: Mutex::default(),
            putting: Mutex::default(),
            recent: Mutex::default(),
            expected: Expected::default(),
        })
    }

    /// Adds an agreement and wakes the puts that wait for one.
    pub fn add_agreement(&self, agreement: Arc<OwnAgreement>) {
        lock(&self.agreements).insert(agreement.number, agreement);
        self.opened.notify_waiters();
    }

    /// Removes and returns the agreement with this number.
    pub fn remove_agreement(&self, number: u32) -> Option<Arc<OwnAgreement>> {
        lock(&self.agreements).remove(&number)
    }

    /// The agreement with this number.
    pub fn agreement(&self, number: u32) -> Option<Arc<OwnAgreement>> {
        lock(&self.agreements).get(&number).cloned()
    }

    /// All agreements, by number.
    pub fn agreements(&self) -> Vec<Arc<OwnAgreement>> {
        lock(&self.agreements).values().cloned().collect()
    }

    /// The agreements with a provider.
    pub fn agreements_with(&self, provider: &Account) -> Vec<Arc<OwnAgreement>> {
        self.agreements().into_iter().filter(|agreement| agreement.provider() == *provider).collect()
    }

    /// The agreement under which a shard is held, unless it is closed.
    pub fn holder(&self, holding: &Holding) -> Option<Arc<OwnAgreement>> {
        self.agreement(holding.agreement).filter(|agreement| !agreement.is_closed())
    }

    /// The record of a provider, if the ledger has shown one.
    pub fn known(&self, provider: &Account) -> Option<Known> {
        lock(&self.known).get(provider).cloned()
    }

    /// The records of all providers, by account.
    pub fn all_known(&self) -> BTreeMap<Account, Known> {
        lock(&self.known).clone()
    }

    /// Replaces the record of a provider, and passes its address on to its connections. The trust in a known
    /// provider stays: repair takes it, and what regains it calls [`Self::trust`].
    pub fn learn(&self, provider: Account, known: Known) {
        if let Some(address) = &known.address {
            let agreements = self.agreements_with(&provider);
            agreements.iter().for_each(|agreement| agreement.peer.set_address(address.clone()));
        }
        {
            let mut all = lock(&self.known);
            let trusted = all.get(&provider).map_or(known.trusted, |old| old.trusted);
            all.insert(provider, Known { trusted, ..known });
        }
        self.opened.notify_waiters();
    }

    /// Sets whether a known provider may get new shards.
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
    /// provider without room counts as full. With `late`, providers that were late a moment ago are
    /// eligible, too.
    fn usable(&self, leaves: u64, late: bool) -> Vec<(Candidate, Arc<OwnAgreement>)> {
        let known = lock(&self.known);
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
            let has_room = load.saturating_add(leaves) <= capacity;
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

    /// Announces a put of `length` bytes, so that agreements are opened for it if room is short.
    pub fn expect(&self, length: u64) -> Coming {
        let segments = coding::segments(length).unwrap_or(0);
        let of = |segment| leaves(coding::shard_bytes(coding::segment_bytes(length, segment)) as u64);
        let (full, last) = if segments == 0 { (0, 0) } else { (of(0), of(segments - 1)) };
        let all = full.saturating_mul(u64::from(segments.saturating_sub(1))).saturating_add(last);
        let coming = self.expected.more(all.saturating_mul(SHARDS as u64));
        self.expecting.notify_one();
        coming
    }

    /// Leaves that announced puts will bring to each of `providers`, on average.
    pub fn demand(&self, providers: usize) -> u64 {
        self.expected.leaves().div_ceil(providers.max(1) as u64)
    }

    /// The agreement under which to read `bytes` of a shard that `agreement` holds. It is `agreement` itself while that
    /// is open and has enough egress left, else an open one with the same provider that has enough left, else
    /// the one with most left.
    pub async fn payer(&self, agreement: &Arc<OwnAgreement>, bytes: u64) -> Arc<OwnAgreement> {
        // Other reads under the agreement may be running.
        let enough = bytes.saturating_mul(READS_AT_ONCE);
        let epoch = self.parameters.epoch(self.height.load(Ordering::Relaxed));
        let is_open = |agreement: &OwnAgreement| Stage::of(&agreement.terms()) == Stage::Open;
        let (mut most, mut payer) = ((false, 0), agreement.clone());
        for other in [vec![agreement.clone()], self.agreements_with(&agreement.provider())].concat() {
            let pays = matches!(Stage::of(&other.terms()), Stage::Open | Stage::Draining);
            if !pays || other.is_closed() || is_ended(&other.terms(), epoch) {
                continue;
            }
            let (left, sends) = other.unread().await;
            let left = if sends { left } else { 0 };
            let of = (is_open(&other) && left >= enough, left);
            if of.0 && other.number == agreement.number {
                return other;
            }
            if of > most {
                (most, payer) = (of, other);
            }
        }
        payer
    }

    /// True if this gateway can read `bytes` under an agreement: it runs, and its quota and voucher reserve
    /// cover them.
    pub async fn can_read(&self, agreement: &OwnAgreement, bytes: u64) -> bool {
        let epoch = self.parameters.epoch(self.height.load(Ordering::Relaxed));
        let (terms, (left, _)) = (agreement.terms(), agreement.unread().await);
        let read = terms.quota_egress.saturating_sub(left);
        let cost = egress_cost(terms.egress_price, read.saturating_add(bytes));
        let runs = matches!(Stage::of(&terms), Stage::Open | Stage::Draining);
        runs && !agreement.is_closed()
            && !is_ended(&terms, epoch)
            && left >= bytes
            && cost.is_some_and(|cost| cost <= terms.voucher_reserve)
    }

    /// Number of operators that could take a shard of `leaves` now, including those that were late a moment
    /// ago.
    pub fn operators(&self, leaves: u64) -> usize {
        let usable = self.usable(leaves, true);
        let fits = |c: &Candidate| c.eligible && c.load.saturating_add(leaves) <= c.capacity;
        let eligible = usable.iter().filter(|(c, _)| fits(c));
        eligible.map(|(c, _)| &c.operator).collect::<BTreeSet<_>>().len()
    }

    /// Why the other providers cannot take a shard of `leaves`: the number of providers for each reason.
    pub fn hindrances(&self, leaves: u64) -> String {
        let usable: BTreeMap<Account, Candidate> =
            self.usable(leaves, true).into_iter().map(|(c, _)| (c.account, c)).collect();
        let mut counts = BTreeMap::<&str, usize>::new();
        for (account, known) in self.all_known() {
            let silent =
                self.agreements_with(&account).iter().any(|agreement| agreement.peer.unanswered().1 > 0);
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

    /// Reserves room for `wanted` shards of `bytes` of a segment, beside those that `kept` providers hold
    /// and away from the `avoided` ones. Returns fewer when too few operators have room.
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

    /// As [`Self::rooms`]; where too few operators have room, those that were late a moment ago follow at
    /// the end.
    pub fn all_rooms(&self, place: &[u8], wanted: usize, bytes: u64, kept: &BTreeSet<Account>) -> Vec<Room> {
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
            lock(&self.recent).note(place, leaves);
        }
        let kept: Vec<Candidate> = self.describe(kept);
        let chosen = choose(place, wanted, leaves, &candidates, &kept);
        chosen.into_iter().filter_map(|index| agreements[index].reserve(bytes)).collect()
    }

    /// Explains why recent segments would or would not place a shard with a provider now.
    pub fn why(&self, provider: &Account) -> Why {
        let candidates: Vec<Candidate> =
            self.usable(1, false).into_iter().map(|(candidate, _)| candidate).collect();
        let peer_health =
            self.agreements_with(provider).first().map_or((0, 0), |agreement| agreement.peer.unanswered());
        lock(&self.recent).why(provider, self.known(provider).as_ref(), peer_health, &candidates)
    }

    fn describe(&self, accounts: &BTreeSet<Account>) -> Vec<Candidate> {
        let known = lock(&self.known);
        let of = |account: &Account| known.get(account).map(|known| Self::candidate(account, known));
        accounts.iter().filter_map(of).collect()
    }

    /// Notifies repair. A full mailbox drops the notice: the next draw, read or scrub finds the same.
    pub fn notice(&self, notice: Notice) {
        if self.notices.try_send(notice).is_err() {
            tracing::debug!("repair is busy; a notice is dropped");
        }
    }

    /// Notifies repair, and waits for room in its mailbox.
    pub async fn notice_surely(&self, notice: Notice) {
        // This fails only when repair has ended with the gateway.
        let _ = self.notices.send(notice).await;
    }

    /// The ledger's time, for the connections to providers.
    pub fn heights(&self) -> Heights {
        Heights { height: self.height.clone(), epoch_blocks: self.parameters.epoch_blocks() }
    }

    /// Round of the greatest certified height seen.
    pub fn round(&self) -> u64 {
        self.parameters.round(self.height.load(Ordering::Relaxed))
    }

    /// Marks a file as being put: the reaper skips its job until the guard is dropped.
    pub fn putting(self: &Arc<Self>, file: FileId) -> Putting {
        lock(&self.putting).insert(file);
        Putting { shared: self.clone(), file }
    }

    /// True while a put of this file is running.
    pub fn is_putting(&self, file: &FileId) -> bool {
        lock(&self.putting).contains(file)
    }
}

/// Guard of a running put; dropping it lets the reaper have the file's job.
pub struct Putting {
    shared: Arc<Shared>,
    file: FileId,
}

impl Drop for Putting {
    fn drop(&mut self) {
        lock(&self.shared.putting).remove(&self.file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{catalogue, environment::Environment};
    use commonware_runtime::{Runner as _, Supervisor as _, deterministic::Runner};

    #[test]
    fn what_the_ledger_shows_of_a_provider_leaves_the_trust_in_it_as_it_is() {
        Runner::default().start(|context| async move {
            let started = catalogue::start(context.child("catalogue"), "test", [9; 32]).await;
            let (catalogue, _, _disk) = started.expect("opens");
            let environment = Environment::new(&context);
            let (chain, master) = ([1; 32], [9; 32]);
            let common = Common { environment, catalogue, chain, master, signed: Default::default() };
            let shared = Shared::new(common, mpsc::channel(8).0, Parameters::LOCAL);
            let who = Account([7; 32]);
            let shown = |score| Known {
                index: 0,
                operator: b"one".to_vec(),
                region: b"here".to_vec(),
                address: None,
                socket: None,
                trusted: true,
                takes: true,
                score,
                vetted: false,
            };
            shared.learn(who, shown(1));
            assert!(shared.known(&who).expect("it was learned").trusted, "a new one is trusted");
            // A survey read the ledger before repair lost its trust, and passes it on afterwards.
            shared.trust(&who, false);
            shared.learn(who, shown(2));
            let known = shared.known(&who).expect("it was learned");
            assert_eq!((known.trusted, known.score), (false, 2));
            shared.trust(&who, true);
            shared.learn(who, shown(3));
            assert!(shared.known(&who).expect("it was learned").trusted);
        });
    }
}
