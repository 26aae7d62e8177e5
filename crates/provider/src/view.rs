//! The provider's view of the ledger: the certified height and the terms that were proved.
//!
//! ```text
//!   serve, redeem --terms(id)--> View: kept and fresh? ---- yes --> answer
//!                                  | no
//!                                  +--Question--> follower (proven reads) --learn--> View
//! ```
//!
//! Every record in it was proved against a certified header; no unproven claim is kept.

use crate::{probe::Window, spending::Spending, terms::Terms};
use commonware_utils::{
    channel::{mpsc, oneshot},
    sync::Mutex,
};
use posync_client::watch;
use posync_protocol::{Account, AgreementId, Code, Hash, limits::Parameters};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Maximum number of agreements whose terms are kept; about 600 bytes each.
const TERMS_MAX: usize = 1 << 14;
/// Maximum number of questions that wait for the follower.
const QUESTIONS_MAX: usize = 64;

/// A question to the follower: the records of a slot; the answer is `None` if it has no agreement.
pub struct Question {
    /// Slot of the agreement at this provider.
    pub slot: u32,
    /// Height at which the agreement was opened: a proof below it does not count.
    pub opened: u64,
    /// Receives the answer; dropped if no proof is available.
    pub done: oneshot::Sender<Option<Terms>>,
}

/// Reasons for which there are no terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoTerms {
    /// The ledger has no such agreement of this provider.
    Unknown,
    /// No proof is available now.
    Unreachable,
}

/// A handle on the view: cheap to clone.
#[derive(Clone)]
pub struct View {
    /// Account of this provider.
    pub account: Account,
    /// SHA-256 of the genesis.
    pub chain: Hash,
    /// Protocol parameters from the genesis.
    pub parameters: Parameters,
    known: Arc<Mutex<BTreeMap<u32, Terms>>>,
    spend: Arc<Mutex<Spending>>,
    window: Arc<Mutex<Option<Window>>>,
    height: Arc<watch::Sender<u64>>,
    growth: Arc<Mutex<Result<(), Code>>>,
    unasked: Arc<AtomicBool>,
    ask: mpsc::Sender<Question>,
}

impl View {
    /// An empty view and the questions that its follower answers.
    pub fn new(account: Account, chain: Hash, parameters: Parameters) -> (Self, mpsc::Receiver<Question>) {
        let (ask, questions) = mpsc::channel(QUESTIONS_MAX);
        let (height, _) = watch::channel(0);
        let height = Arc::new(height);
        let (known, spend, window) = (Arc::default(), Arc::default(), Arc::default());
        let (growth, unasked) = (Arc::new(Mutex::new(Ok(()))), Arc::default());
        (Self { account, chain, parameters, known, spend, window, height, growth, unasked, ask }, questions)
    }

    /// The newest certified height.
    pub(crate) fn height(&self) -> u64 {
        *self.height.borrow()
    }

    /// The round of the newest certified height.
    pub(crate) fn round(&self) -> u64 {
        self.parameters.round(self.height())
    }

    /// The epoch of the newest certified height.
    pub(crate) fn epoch(&self) -> u64 {
        self.parameters.epoch(self.height())
    }

    /// Notes a certified height; it never decreases.
    pub fn advance(&self, height: u64) {
        self.height.send_if_modified(|now| {
            let moved = height > *now;
            *now = height.max(*now);
            moved
        });
    }

    /// Notes whether the ledger lets this provider's data sets grow.
    pub(crate) fn set_growth(&self, growth: Result<(), Code>) {
        *self.growth.lock() = growth;
    }

    /// Checks that the ledger lets this provider's data sets grow, as last noted.
    ///
    /// # Errors
    /// `GrowthJailed`, `GrowthSuspended`.
    pub(crate) fn check_grows(&self) -> Result<(), Code> {
        *self.growth.lock()
    }

    /// Subscribes to new certified heights.
    pub(crate) fn heights(&self) -> watch::Receiver<u64> {
        self.height.subscribe()
    }

    /// Keeps proven terms, unless newer ones are kept.
    pub(crate) fn learn(&self, terms: Terms) {
        let mut known = self.known.lock();
        if known.len() >= TERMS_MAX && !known.contains_key(&terms.id.slot) {
            let gone = known.pop_first();
            gone.into_iter().for_each(|(_, terms)| self.spend.lock().forget(&terms.id, self.epoch()));
        }
        let newer = known.get(&terms.id.slot).is_none_or(|old| old.height <= terms.height);
        if newer {
            self.spend.lock().learn(&terms, self.epoch());
            known.insert(terms.id.slot, terms);
        }
    }

    /// Forgets a slot that has no agreement any more.
    pub(crate) fn forget(&self, slot: u32) {
        if let Some(terms) = self.known.lock().remove(&slot) {
            self.spend.lock().forget(&terms.id, self.epoch());
        }
    }

    /// Notes the window in which the egress of all providers is measured.
    pub(crate) fn set_window(&self, window: Window) {
        *self.window.lock() = Some(window);
    }

    /// The measuring window that was noted last.
    pub(crate) fn window(&self) -> Option<Window> {
        self.window.lock().clone()
    }

    /// Notes whether this provider stores nothing and the ledger asks nothing of it.
    pub(crate) fn set_unasked(&self, unasked: bool) {
        self.unasked.store(unasked, Ordering::Relaxed);
    }

    /// True if nothing is due at any of the next `blocks` heights, so that they may be read together: nothing is
    /// stored and asked here, and no measuring window is near.
    pub(crate) fn is_calm(&self, blocks: u64) -> bool {
        let height = self.height();
        let is_near =
            |window: &Window| height.saturating_add(blocks) >= window.begins() && height <= window.ends();
        self.unasked.load(Ordering::Relaxed) && !self.window.lock().as_ref().is_some_and(is_near)
    }

    /// A consumer's weight when not all requests can be served: its recent spending here.
    pub(crate) fn weight(&self, consumer: &Account) -> u64 {
        self.spend.lock().weight(consumer, self.epoch())
    }

    /// The kept terms of an agreement, however old.
    pub(crate) fn kept(&self, id: &AgreementId) -> Option<Terms> {
        self.known.lock().get(&id.slot).filter(|terms| terms.id == *id).cloned()
    }

    /// The kept terms of an agreement, if they were proved within the last epoch.
    pub(crate) fn recent(&self, id: &AgreementId) -> Option<Terms> {
        let oldest = self.height().saturating_sub(self.parameters.epoch_blocks());
        self.kept(id).filter(|terms| terms.height >= oldest)
    }

    /// The terms of an agreement, proved within the last epoch.
    ///
    /// # Errors
    /// [`NoTerms`].
    pub(crate) async fn terms(&self, id: &AgreementId) -> Result<Terms, NoTerms> {
        match self.recent(id) {
            Some(terms) => Ok(terms),
            None => self.fresh(id).await,
        }
    }

    /// The terms of an agreement, proved now; at most once per block and slot.
    ///
    /// # Errors
    /// [`NoTerms`].
    pub(crate) async fn fresh(&self, id: &AgreementId) -> Result<Terms, NoTerms> {
        if id.provider != self.account {
            return Err(NoTerms::Unknown);
        }
        if let Some(terms) = self.kept(id).filter(|terms| terms.height >= self.height()) {
            return Ok(terms);
        }
        let (done, answer) = oneshot::channel();
        self.ask
            .send(Question { slot: id.slot, opened: id.opened, done })
            .await
            .map_err(|_| NoTerms::Unreachable)?;
        let terms = answer.await.map_err(|_| NoTerms::Unreachable)?;
        terms.filter(|terms| terms.id == *id).ok_or(NoTerms::Unknown)
    }
}
