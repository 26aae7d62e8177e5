//! State that the tasks of one account share: its agreements, and facts about providers.

use crate::{
    agreement::{Common, OwnAgreement},
    agreements::{
        policy::egress_cost,
        state::{Stage, is_ended, patience},
    },
    catalogue::row::FileId,
    expected::{Coming, Expected},
    peer::Heights,
    volume::Volume,
};
use commonware_utils::channel::mpsc;
use commonware_utils::sync::Mutex;
use posync_client::address::Address;
use posync_protocol::{Account, Hash, limits::Parameters};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// Assumed number of simultaneous reads under one agreement.
const READS_AT_ONCE: u64 = 4;

/// A provider's record on the ledger, and this account's experience with it.
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

/// A finding about the shards that providers hold for this account.
#[derive(Debug)]
pub enum Notice {
    /// A segment lost a holder with its agreement.
    Incomplete {
        /// File that the segment belongs to.
        file: FileId,
        /// Number of the segment in the file.
        segment: u32,
    },
    /// A provider is late on a draw.
    Late(Account),
    /// A draw found a provider's reads missing.
    Failed(Account),
    /// A provider reports that these shards are damaged.
    Bad(Account, Vec<Hash>),
}

/// The state that the tasks of an account share.
pub struct Shared {
    /// Runtime, catalogue and secrets, as agreements use them.
    pub common: Common,
    /// Wakes puts that wait for agreements: one opened, or a provider's record changed.
    pub opened: Notify,
    /// Wakes the task that opens agreements: a put began that may need more room.
    pub(crate) expecting: Notify,
    /// Greatest certified height seen, in blocks.
    pub height: Arc<AtomicU64>,
    /// Leaves that will need room soon.
    pub(crate) expected: Expected,
    /// Parameters of the network, from the genesis.
    pub parameters: Parameters,
    /// The volume of the catalogue.
    pub volume: Volume,
    unpaid: AtomicUsize,
    dear: AtomicBool,
    notices: mpsc::Sender<Notice>,
    agreements: Mutex<BTreeMap<u32, Arc<OwnAgreement>>>,
    known: Mutex<BTreeMap<Account, Known>>,
}

impl Shared {
    /// State without agreements and without records of providers.
    pub fn new(
        common: Common,
        notices: mpsc::Sender<Notice>,
        parameters: Parameters,
        volume: Volume,
    ) -> Arc<Self> {
        Arc::new(Self {
            common,
            opened: Notify::new(),
            expecting: Notify::new(),
            height: Arc::default(),
            expected: Expected::default(),
            parameters,
            volume,
            unpaid: AtomicUsize::new(0),
            dear: AtomicBool::new(false),
            notices,
            agreements: Mutex::default(),
            known: Mutex::default(),
        })
    }

    /// True while the account cannot pay for an agreement that it needs.
    pub fn lacks_money(&self) -> bool {
        self.unpaid.load(Ordering::Acquire) > 0
    }

    /// Notes the number of providers with which an agreement is needed and cannot be paid.
    pub(crate) fn set_unpaid(&self, providers: usize) {
        self.unpaid.store(providers, Ordering::Release);
    }

    /// True while a posted price is above the highest that the account pays for new data.
    pub fn is_dear(&self) -> bool {
        self.dear.load(Ordering::Acquire)
    }

    /// Notes if a posted price is above the highest that the account pays for new data.
    pub(crate) fn set_dear(&self, dear: bool) {
        self.dear.store(dear, Ordering::Release);
    }

    /// Adds an agreement and wakes the puts that wait for one.
    pub fn add_agreement(&self, agreement: Arc<OwnAgreement>) {
        self.agreements.lock().insert(agreement.number, agreement);
        self.opened.notify_waiters();
    }

    /// Removes and returns the agreement with this number.
    pub(crate) fn remove_agreement(&self, number: u32) -> Option<Arc<OwnAgreement>> {
        self.agreements.lock().remove(&number)
    }

    /// The agreement with this number.
    pub fn agreement(&self, number: u32) -> Option<Arc<OwnAgreement>> {
        self.agreements.lock().get(&number).cloned()
    }

    /// All agreements, by number.
    pub fn agreements(&self) -> Vec<Arc<OwnAgreement>> {
        self.agreements.lock().values().cloned().collect()
    }

    /// The agreements with a provider.
    pub fn agreements_with(&self, provider: &Account) -> Vec<Arc<OwnAgreement>> {
        self.agreements().into_iter().filter(|agreement| agreement.provider() == *provider).collect()
    }

    /// The record of a provider, if the ledger has shown one.
    pub fn known(&self, provider: &Account) -> Option<Known> {
        self.known.lock().get(provider).cloned()
    }

    /// The records of all providers, by account.
    pub fn all_known(&self) -> BTreeMap<Account, Known> {
        self.known.lock().clone()
    }

    /// Replaces the record of a provider, and passes its address on to its connections. The trust in a known
    /// provider stays: repair takes it, and what regains it calls [`Self::trust`].
    pub fn learn(&self, provider: Account, known: Known) {
        if let Some(address) = &known.address {
            let agreements = self.agreements_with(&provider);
            agreements.iter().for_each(|agreement| agreement.peer.set_address(address.clone()));
        }
        {
            let mut all = self.known.lock();
            let trusted = all.get(&provider).map_or(known.trusted, |old| old.trusted);
            all.insert(provider, Known { trusted, ..known });
        }
        self.opened.notify_waiters();
    }

    /// Sets whether a known provider may get new shards.
    pub fn trust(&self, provider: &Account, trusted: bool) {
        if let Some(known) = self.known.lock().get_mut(provider) {
            known.trusted = trusted;
        }
    }

    /// Begins a put, for which no agreement is opened yet.
    pub fn begin(&self) -> Coming {
        self.expected.begin()
    }

    /// Announces that a put will need room for `leaves` in all, so that agreements are opened if room is short.
    pub fn announce(&self, coming: &Coming, leaves: u64) {
        // The next look finds what is not worth a look of its own.
        if coming.up_to(leaves) {
            self.expecting.notify_one();
        }
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

    /// True if this account can read `bytes` under an agreement: it runs, and its quota, rate and voucher
    /// reserve cover them.
    pub async fn can_read(&self, agreement: &OwnAgreement, bytes: u64) -> bool {
        let epoch = self.parameters.epoch(self.height.load(Ordering::Relaxed));
        let (terms, (left, _)) = (agreement.terms(), agreement.unread().await);
        let read = agreement.verified().await;
        let cost = egress_cost(terms.egress_price, read.saturating_add(bytes));
        let runs = matches!(Stage::of(&terms), Stage::Open | Stage::Draining);
        runs && !agreement.is_closed()
            && !is_ended(&terms, epoch)
            && left >= bytes
            && cost.is_some_and(|cost| cost <= terms.voucher_reserve)
    }

    /// Reports a finding. A full mailbox drops it: the next draw or scrub finds the same.
    pub(crate) fn notice(&self, notice: Notice) {
        if self.notices.try_send(notice).is_err() {
            tracing::debug!("the receiver of findings is busy; a finding is dropped");
        }
    }

    /// Reports a finding, and waits for room in the mailbox.
    pub async fn notice_surely(&self, notice: Notice) {
        // This fails only when the receiver has ended with the process.
        let _ = self.notices.send(notice).await;
    }

    /// The ledger's time, for the connections to providers.
    pub fn heights(&self) -> Heights {
        let (height, p) = (self.height.clone(), &self.parameters);
        Heights {
            height,
            epoch_blocks: p.epoch_blocks(),
            round_blocks: p.round_blocks,
            block: Duration::from_millis(p.block_ms),
            patience_blocks: patience(p),
        }
    }

    /// Round of the greatest certified height seen.
    pub fn round(&self) -> u64 {
        self.parameters.round(self.height.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        catalogue::{self, Nothing},
        environment::Environment,
    };
    use commonware_runtime::{Runner as _, Supervisor as _, deterministic::Runner};

    #[test]
    fn what_the_ledger_shows_of_a_provider_leaves_the_trust_in_it_as_it_is() {
        Runner::default().start(|context| async move {
            let started = catalogue::start::<Nothing, _>(context.child("catalogue"), "test", [9; 32]).await;
            let catalogue = started.expect("opens").catalogue;
            let environment = Environment::new(&context);
            let (chain, master) = ([1; 32], [9; 32]);
            let common = Common { environment, catalogue, chain, master, signed: Default::default() };
            let shared = Shared::new(common, mpsc::channel(8).0, Parameters::LOCAL, Volume::default());
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
