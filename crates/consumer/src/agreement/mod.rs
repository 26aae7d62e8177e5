//! One agreement with one provider: its data set, its vouchers, its keys.
//!
//! ```text
//!   put, repair ──store──► provider keeps the bytes ──queue──► signer: intent on disk ► provider
//!   reaper, repair ──drop──────────────────────────────────►   signs ► entries on disk ► callers
//!   get ──fetch──► slices, each verified ► meter ► voucher on disk ► provider (until it has it)
//! ```
//!
//! Invariants
//! 1. The provider is asked to sign only changes that are on disk as intents. After a crash the same
//!    change is asked for again, so both sides agree on the data set.
//! 2. A voucher is on disk before it leaves.
//! 3. The newest signed claim waits on disk until the ledger has it, or a later one. It describes the
//!    whole data set, so one operation carries all that was signed before it (DS-1). No further
//!    version is signed while [`VERSIONS_AHEAD_MAX`] versions are above the ledger's last: the
//!    provider keeps a tree of each. The nearer that is, the longer each signature waits, so that no put waits
//!    for a whole block.
//! 4. Every verified byte is paid, even if the reader is gone or the connection broke before the voucher
//!    arrived; otherwise the provider disputes it (BK-8). Only a crash forgets bytes that verified
//!    and were not signed for yet: less than a credit window.

mod pace;
mod part;
mod reluctance;
mod room;
mod spread;
pub mod state;
#[cfg(test)]
mod tests;

pub use part::Arrived;
pub use part::Part;
pub use room::Room;
pub use room::Unsigned;

use crate::{
    catalogue::{
        Catalogue, LoadedAgreement, Stopped,
        row::{Added, Intent, OwnAgreementRow, PaidRow, SignedClaim},
    },
    environment::Environment,
    limits::{VERSIONS_AHEAD, VERSIONS_AHEAD_MAX},
    meter::Meter,
    peer::{Error, Peer},
};
use commonware_codec::DecodeExt;
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_macros::select;
use commonware_utils::channel::oneshot;
use commonware_utils::sync::{AsyncMutex, Mutex};
use posync_client::watch;
use posync_protocol::{
    Account, AgreementId, Hash, Signature, Units,
    amount::ONE,
    block::with_chain,
    operation::{DATA_SET_NAMESPACE, DataSetClaim, SignatureCheck, Voucher, sign},
    record::Version,
    shard,
    wire::provider::{Refusal, Slice},
};
use reluctance::Reluctance;
use spread::Spread;
use state::{Damaged, State};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// Time within which a reader expects the next slice of a stream.
pub(crate) const SLICE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time within which a late slice is still verified and paid, although its reader has given up.
const SLICE_LATE: Duration = Duration::from_secs(60);
/// Time without a slice after which a voucher is sent: the provider may be waiting for money, because
/// lost slices or a lost voucher made its credit window smaller than this side knows.
const PAY_IDLE: Duration = Duration::from_millis(100);
/// Pause before a voucher is sent again; a provider waits for several such pauses.
const PAY_PAUSE: Duration = Duration::from_secs(10);
/// Pause after a request for a signature that failed.
const SIGN_PAUSE: Duration = Duration::from_millis(500);
/// Divisor of the patience with a provider that answers and does not sign: after this part of it without an answer
/// the patience begins anew.
const ANSWERS_PART: u64 = 4;
/// Pause before a provider that disagrees is asked again.
const DISAGREE_PAUSE: Duration = Duration::from_secs(60);
/// Requests for a refused claim before it is given up: the provider may hold as many versions above
/// the ledger's as it can, and learn the ledger's state later than the consumer.
const CLAIM_TRIES: u32 = 10;

/// The account's parts that every agreement uses.
#[derive(Clone)]
pub struct Common {
    /// Clock, randomness and task spawner of the runtime.
    pub environment: Environment,
    /// Durable record of files, shards and agreements.
    pub catalogue: Catalogue,
    /// SHA-256 of the genesis.
    pub chain: Hash,
    /// Master secret from which the keys of all agreements and files are derived.
    pub master: Hash,
    /// Wakes the task that submits claims to the ledger.
    pub signed: Arc<Notify>,
}

fn key(master: &Hash, purpose: &str, agreement: u32) -> PrivateKey {
    let mut hasher = blake3::Hasher::new_derive_key(purpose);
    hasher.update(master).update(&agreement.to_be_bytes());
    PrivateKey::decode(hasher.finalize().as_bytes().to_vec()).expect("any 32 bytes are an Ed25519 seed")
}

/// Derives the key that signs vouchers of agreement `agreement`.
pub fn session_key(master: &Hash, agreement: u32) -> PrivateKey {
    key(master, "posync gateway 2026-11 session key", agreement)
}

/// Derives the key that signs data sets of agreement `agreement`.
pub fn storage_key(master: &Hash, agreement: u32) -> PrivateKey {
    key(master, "posync gateway 2026-11 storage key", agreement)
}

/// Counts the looks at the ledger since a claim was refused.
#[derive(Debug, Default)]
struct Looks {
    /// Height of the refusal, or of the last look that was counted.
    height: u64,
    /// Looks that were counted: each at a greater height than the one before.
    count: u32,
}

impl Looks {
    fn at(&mut self, height: u64) {
        if height > self.height {
            (self.height, self.count) = (height, self.count.saturating_add(1));
        }
    }
}

/// An agreement that is open.
pub struct OwnAgreement {
    /// Number of the agreement in the catalogue.
    pub number: u32,
    /// Identity of the agreement on the ledger.
    pub id: AgreementId,
    /// Connection to the provider.
    pub peer: Arc<Peer>,
    terms: Mutex<OwnAgreementRow>,
    state: Mutex<State>,
    waiters: Mutex<BTreeMap<Hash, oneshot::Sender<bool>>>,
    waiting: Mutex<Option<SignedClaim>>,
    /// The last version that a backup knew from which the agreement came.
    restored: Option<u64>,
    on_ledger: AtomicU64,
    looks: Mutex<Looks>,
    tries: AtomicU32,
    spread: Spread,
    reluctance: Mutex<Reluctance>,
    meter: AsyncMutex<Meter>,
    trust: AtomicU64,
    owing: Notify,
    wake: Notify,
    closed: AtomicBool,
    /// One above the version that may shrink; 0 if none may.
    may_shrink: AtomicU64,
    bringing: AsyncMutex<()>,
    session: PrivateKey,
    storage: PrivateKey,
    common: Common,
}

impl OwnAgreement {
    /// Resumes an agreement from its catalogue rows and starts its signer and its payer.
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn start(loaded: LoadedAgreement, peer: Arc<Peer>, common: Common) -> Result<Arc<Self>, Damaged> {
        let LoadedAgreement { number, row, set, paid, intent, waiting, restored, entries } = loaded;
        let state = State::new(number, row.id, row.quota_leaves, set, entries, intent)?;
        let on_ledger = waiting.claim.map_or(set.version, |signed| signed.claim.version - 1);
        let agreement = Arc::new(Self {
            number,
            id: row.id,
            peer,
            state: Mutex::new(state),
            waiters: Mutex::default(),
            waiting: Mutex::new(waiting.claim),
            restored,
            on_ledger: AtomicU64::new(on_ledger),
            looks: Mutex::default(),
            tries: AtomicU32::new(0),
            spread: Spread::default(),
            reluctance: Mutex::default(),
            meter: AsyncMutex::new(Meter::resumed(paid.egress)),
            trust: AtomicU64::new(ONE),
            owing: Notify::new(),
            wake: Notify::new(),
            closed: AtomicBool::new(false),
            may_shrink: AtomicU64::new(0),
            bringing: AsyncMutex::default(),
            session: session_key(&common.master, number),
            storage: storage_key(&common.master, number),
            terms: Mutex::new(row),
            common: common.clone(),
        });
        common.environment.spawn(agreement.clone().run());
        common.environment.spawn(agreement.clone().pay_up());
        agreement.wake.notify_one();
        Ok(agreement)
    }

    /// Account of the provider.
    pub const fn provider(&self) -> Account {
        self.id.provider
    }

    /// Account of the key that signs this agreement's data sets.
    pub(crate) fn storage_account(&self) -> Account {
        Account::of(&self.storage.public_key())
    }

    /// A copy of the agreement's terms: stage, quotas, prices and end.
    pub fn terms(&self) -> OwnAgreementRow {
        self.terms.lock().clone()
    }

    /// Changes the terms in memory and then on disk.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn set_terms(&self, change: impl FnOnce(&mut OwnAgreementRow)) -> Result<(), Stopped> {
        let row = {
            let mut terms = self.terms.lock();
            change(&mut terms);
            terms.clone()
        };
        self.common.catalogue.put_agreement(self.number, row).await
    }

    /// Calls `read` with the data set's state, under its lock.
    pub fn with_state<T>(&self, read: impl FnOnce(&mut State) -> T) -> T {
        read(&mut self.state.lock())
    }

    /// Egress bytes that vouchers were signed for.
    pub async fn egress(&self) -> u64 {
        self.meter.lock().await.signed()
    }

    /// The newest claim, if the ledger does not have it yet.
    pub fn waiting(&self) -> Option<SignedClaim> {
        *self.waiting.lock()
    }

    /// Guard for the task that submits a claim to the ledger; `None` while another task holds it.
    pub(crate) fn bring(&self) -> Option<impl Drop + '_> {
        self.bringing.try_lock().ok()
    }

    /// Number of versions signed by both sides above the ledger's last.
    pub fn ahead(&self) -> u64 {
        let signed = self.with_state(|state| state.version());
        signed.saturating_sub(self.on_ledger.load(Ordering::Acquire))
    }

    /// True if the ledger has shown a data set of this agreement that this catalogue does not know.
    pub(crate) fn is_behind(&self) -> bool {
        self.on_ledger.load(Ordering::Acquire) > self.with_state(|state| state.version())
    }

    /// True if this catalogue knows all that the ledger shows of the agreement, so that it may be closed once it is empty
    /// here. An agreement that came from a backup counts as known once its provider has signed a change for this
    /// catalogue. Until then another catalogue of the account, newer than the backup, may have files under it.
    pub fn is_known(&self) -> bool {
        let (version, frozen) = self.with_state(|state| (state.version(), state.is_frozen()));
        !frozen && !self.is_behind() && self.restored.is_none_or(|restored| version > restored)
    }

    /// True if the newest claim should be submitted at once, without waiting for the next look at the ledger.
    pub(crate) fn is_due(&self) -> bool {
        self.ahead() >= VERSIONS_AHEAD
    }

    /// Records the ledger's last version at `height`. A provider whose answer was lost may have submitted
    /// the change that it signed: the change then counts as signed, even if it was given up here.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn looked(&self, last: &Version, height: u64) -> Result<(), Stopped> {
        if self.with_state(|state| state.adopt(last)) {
            // The signature is not used: the ledger has this claim.
            self.signed([0; 64]).await?;
        }
        self.settled(last.version).await?;
        self.looks.lock().at(height);
        self.wake.notify_one();
        Ok(())
    }

    /// True once the provider signs no more changes of this agreement: it disagrees on the data set, as after a
    /// restored backup, or has answered and not signed for as long as the patience lasts.
    pub fn refuses(&self) -> bool {
        let reluctance = self.reluctance.lock();
        reluctance.disagrees() || reluctance.blocks() >= self.peer.heights().patience_blocks
    }

    /// True if the ledger has, or may come to have, a version of this agreement's data set.
    pub(crate) fn is_used(&self) -> bool {
        self.with_state(|state| state.version() > 0 || state.intended().is_some())
    }

    /// Records that `version` is the ledger's last: versions up to it are on the ledger, or void.
    ///
    /// # Errors
    /// [`Stopped`].
    pub(crate) async fn settled(&self, version: u64) -> Result<(), Stopped> {
        let is_there = |signed: &SignedClaim| signed.claim.version <= version;
        if self.waiting().is_some_and(|signed| is_there(&signed)) {
            self.common.catalogue.settled(self.number, self.id, version).await?;
            self.waiting.lock().take_if(|signed| is_there(signed));
        }
        if self.on_ledger.fetch_max(version, Ordering::AcqRel) < version {
            self.wake.notify_one();
            self.spread.taken();
        }
        Ok(())
    }

    /// Sets the trust that the ledger grants the consumer under this agreement, in parts per billion.
    pub(crate) fn set_trust(&self, trust: u64) {
        self.trust.store(trust, Ordering::Release);
    }

    /// Records that the ledger accepts a data set smaller than that of version `below`, or with `None` no
    /// smaller one. It says nothing about a version signed since then.
    pub fn set_may_shrink(&self, below: Option<u64>) {
        self.may_shrink.store(below.map_or(0, |version| version.saturating_add(1)), Ordering::Release);
        if below.is_some() {
            self.wake.notify_one();
        }
    }

    /// Ends the signer and the payer of an agreement that is gone. Returns all entries that it held.
    pub(crate) fn close(&self) -> Vec<Added> {
        self.closed.store(true, Ordering::Release);
        self.wake.notify_one();
        self.owing.notify_one();
        self.waiters.lock().clear();
        self.with_state(State::clear)
    }

    /// True once [`Self::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Reserves room for a shard of `bytes`; `None` if the agreement is closed or full.
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Option<Room> {
        let open = !self.is_closed() && self.with_state(|state| state.reserve(bytes));
        open.then(|| Room { agreement: self.clone(), bytes, kept: false })
    }

    /// Marks entries for removal from the data set. Returns those that were in force.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn drop_entries(&self, sequences: Vec<u64>) -> Result<Vec<Added>, Stopped> {
        let dropped = self.with_state(|state| state.drop_entries(sequences));
        if !dropped.is_empty() {
            self.common.catalogue.drop_holdings(self.number, self.id, dropped.clone()).await?;
            self.wake.notify_one();
        }
        Ok(dropped)
    }

    async fn run(self: Arc<Self>) {
        while !self.is_closed() {
            if self.step().await.is_err() {
                return;
            }
        }
    }

    /// Has the next change signed, or waits until there may be one.
    async fn step(&self) -> Result<(), Stopped> {
        let below = self.may_shrink.load(Ordering::Acquire);
        let next = |state: &mut State| state.next_intent(below == state.version().saturating_add(1));
        let intent = (self.ahead() < VERSIONS_AHEAD_MAX).then(|| self.with_state(next)).flatten();
        let Some(intent) = intent else {
            self.wake.notified().await;
            return Ok(());
        };
        self.common.catalogue.intend(self.number, intent.clone()).await?;
        match self.ask(&intent).await {
            Ok(signature) => {
                self.signed(signature).await?;
                self.spread().await;
                Ok(())
            }
            Err(error) => self.not_signed(&intent, error).await,
        }
    }

    /// Handles a request for a signature over an intent that failed.
    async fn not_signed(&self, intent: &Intent, error: Error) -> Result<(), Stopped> {
        if self.answers(&error).await {
            let gap = self.peer.heights().patience_blocks / ANSWERS_PART;
            self.reluctance.lock().answered(self.peer.height(), gap, !intent.removes.is_empty());
        }
        match error {
            error if error.may_pass() || self.may_be_right(&error) => {
                tracing::debug!(%error, "a signature is late");
                let pause = self.pause_after(&error);
                self.common.environment.sleep(pause).await;
            }
            error => {
                tracing::warn!(%error, agreement = self.number, "a data set was not signed");
                self.tries.store(0, Ordering::Release);
                if matches!(error, Error::Refused(_, Refusal::Claim, _)) {
                    self.reluctance.lock().refused();
                }
                self.common.catalogue.withdraw(self.number, self.id).await?;
                let refused = self.with_state(State::refuse);
                refused.iter().for_each(|added| self.answer(&added.name, false));
                let pause = if self.refuses() { DISAGREE_PAUSE } else { SIGN_PAUSE };
                self.common.environment.sleep(pause).await;
            }
        }
        Ok(())
    }

    /// True if a provider that did not sign answered: with a refusal, with something wrong, or, where the signature is
    /// late or the connection ended before it, to a small request.
    async fn answers(&self, error: &Error) -> bool {
        match error {
            Error::Refused(..) | Error::Wrong(..) => true,
            Error::Slow(_) | Error::Unreachable(..) => self.peer.status().await.is_ok(),
            Error::Paced(_) => false,
        }
    }

    /// True if a refused claim may still be right, so that it is asked for again. The provider may have
    /// signed it before and submitted it, which two looks at the ledger after the refusal show. Or it
    /// holds as many versions above the ledger's as it can, and has not learned of a later one.
    fn may_be_right(&self, error: &Error) -> bool {
        if !matches!(error, Error::Refused(_, Refusal::Claim, _)) {
            return false;
        }
        let tries = self.tries.fetch_add(1, Ordering::AcqRel);
        if tries == 0 {
            *self.looks.lock() = Looks { height: self.peer.height(), count: 0 };
        }
        self.common.signed.notify_one();
        let unseen = self.looks.lock().count < 2;
        let many = self.with_state(|state| state.version()) >= VERSIONS_AHEAD_MAX;
        unseen || many && tries < CLAIM_TRIES
    }

    /// Signs a claim with the storage key, as the consumer.
    pub(crate) fn sign_claim(&self, claim: &DataSetClaim) -> Signature {
        sign(&self.storage, DATA_SET_NAMESPACE, &with_chain(&self.common.chain, claim))
    }

    async fn ask(&self, intent: &Intent) -> Result<Signature, Error> {
        let message = with_chain(&self.common.chain, &intent.claim);
        let own = self.sign_claim(&intent.claim);
        let request = self.with_state(|state| state.request(intent, own));
        let signature = self.peer.sign(request).await?;
        let check =
            SignatureCheck { namespace: DATA_SET_NAMESPACE, message, key: self.provider(), signature };
        let wrong = || Error::Wrong(self.provider(), "its signature does not verify");
        check.verify().then_some(signature).ok_or_else(wrong)
    }

    async fn signed(&self, signature: Signature) -> Result<(), Stopped> {
        let Some(agreed) = self.with_state(|state| state.sign(signature)) else { return Ok(()) };
        self.tries.store(0, Ordering::Release);
        self.reluctance.lock().signed(!agreed.removes.is_empty());
        let (claim, adds) = (agreed.claim, agreed.adds.clone());
        let Some(orphans) = self.common.catalogue.agreed(agreed).await? else {
            // The agreement is gone, and another one has its number: the signature is useless.
            adds.iter().for_each(|add| self.answer(&add.name, false));
            return Ok(());
        };
        *self.waiting.lock() = Some(claim);
        if self.is_due() {
            self.common.signed.notify_one();
        }
        let strays = self.with_state(|state| state.relocate(&orphans));
        adds.iter().for_each(|added| self.answer(&added.name, !strays.contains(&added.sequence)));
        if !orphans.is_empty() {
            self.drop_entries(orphans.iter().map(|added| added.sequence).collect()).await?;
        }
        Ok(())
    }

    fn answer(&self, name: &Hash, signed: bool) {
        // The caller may have given up: the entry is then an orphan and is removed again.
        let _ = self.waiters.lock().remove(name).map(|waiter| waiter.send(signed));
    }

    /// Reads a whole shard, verifying and paying slice by slice.
    ///
    /// # Errors
    /// [`Error`]; bytes that had verified are paid all the same.
    pub async fn fetch(self: &Arc<Self>, name: Hash, length: u64) -> Result<Vec<u8>, Error> {
        Ok(self.read(Part::whole(name, length)).await?.bytes)
    }

    /// Reads a part of a shard, of any data set, as [`Self::fetch`] reads a whole one. The stream goes on
    /// when its reader is gone: bytes in flight would otherwise stay unpaid, and a provider stops serving
    /// a consumer whose debt reaches the credit window.
    ///
    /// # Errors
    /// [`Error`]; bytes that had verified are paid all the same.
    pub async fn read(self: &Arc<Self>, part: Part) -> Result<Arrived, Error> {
        let (progress, mut moves) = watch::channel(());
        let (sender, receiver) = oneshot::channel();
        let (agreement, environment) = (self.clone(), &self.common.environment);
        environment.spawn(async move {
            let arrived = agreement.stream_and_pay(&part, &progress).await;
            // The reader may be gone.
            let _ = sender.send(arrived);
        });
        tokio::pin!(receiver);
        loop {
            let moved = environment.within(SLICE_TIMEOUT, moves.changed());
            select! {
                arrived = &mut receiver => {
                    return arrived.unwrap_or_else(|_| Err(Error::Slow(self.provider())));
                },
                moved = moved => if moved.is_none() {
                    return Err(Error::Slow(self.provider()));
                },
            }
        }
    }

    async fn stream_and_pay(&self, part: &Part, progress: &watch::Sender<()>) -> Result<Arrived, Error> {
        self.check_pace(part.bytes).await?;
        let arrived = match self.stream(part, progress).await {
            Err(error) => Err(self.own_reason(error, part.bytes).await),
            arrived => arrived,
        };
        let is_barred = matches!(arrived, Err(Error::Refused(_, Refusal::Credit, _)));
        if is_barred || arrived.is_ok() {
            self.meter.lock().await.bar(is_barred);
        }
        if let Err(error) = self.pay().await {
            tracing::debug!(%error, "a voucher is sent again");
            self.owing.notify_one();
        }
        arrived
    }

    /// Sends a voucher over all verified bytes, unless the provider has acknowledged one.
    ///
    /// # Errors
    /// [`Error`].
    pub(crate) async fn pay(&self) -> Result<(), Error> {
        if let Some(voucher) = self.voucher(0, true).await? {
            self.peer.pay(voucher).await?;
            self.meter.lock().await.acknowledge(voucher.units.egress);
        }
        Ok(())
    }

    /// Sends the last voucher until the provider has it, also after a start.
    async fn pay_up(self: Arc<Self>) {
        while !self.is_closed() {
            match self.pay().await {
                Err(error) if error.may_pass() => self.common.environment.sleep(PAY_PAUSE).await,
                Err(error) => {
                    let agreement = self.number;
                    tracing::warn!(%error, agreement, "the provider rejected a voucher; another follows when more is owed");
                    self.owing.notified().await;
                }
                Ok(()) => self.owing.notified().await,
            }
        }
    }

    async fn stream(&self, part: &Part, progress: &watch::Sender<()>) -> Result<Arrived, Error> {
        let late = || Error::Slow(self.provider());
        let environment = &self.common.environment;
        let asked = environment.now();
        let since = || environment.now().duration_since(asked).unwrap_or_default();
        let get = part.get(self.id);
        let mut slices = environment.within(SLICE_TIMEOUT, self.peer.get(get)).await.ok_or_else(late)??;
        let mut arrived = Arrived { bytes: Vec::with_capacity(part.room()), ..Arrived::default() };
        if let Some(voucher) = self.voucher(0, true).await? {
            // An earlier stream may have broken before its voucher arrived.
            slices.pay(voucher).await?;
        }
        while (arrived.bytes.len() as u64) < part.bytes {
            let slice = match environment.within(PAY_IDLE, slices.next()).await {
                Some(slice) => slice?,
                None => {
                    if let Some(voucher) = self.voucher(0, true).await? {
                        slices.pay(voucher).await?;
                    }
                    environment.within(SLICE_LATE, slices.next()).await.ok_or_else(late)??
                }
            };
            progress.send_replace(());
            arrived.whole = since();
            if arrived.bytes.is_empty() {
                arrived.first = arrived.whole;
            }
            self.check(&part.name, part.length, part.offset + arrived.bytes.len() as u64, &slice)?;
            arrived.bytes.extend_from_slice(&slice.data);
            if let Some(voucher) = self.voucher(slice.data.len() as u64, false).await? {
                slices.pay(voucher).await?;
            }
        }
        Ok(arrived)
    }

    fn check(&self, name: &Hash, length: u64, offset: u64, slice: &Slice) -> Result<(), Error> {
        let whole = slice.shard_bytes == length && slice.offset == offset && !slice.data.is_empty();
        if whole && shard::verify_slice(name, length, offset, &slice.data, &slice.path) {
            Ok(())
        } else {
            Err(Error::Wrong(self.provider(), "a slice does not lead to the shard's name"))
        }
    }

    /// Counts `bytes` as verified and returns a voucher if one is due; it is on disk before it is
    /// returned. With `all`, one is due unless the provider has acknowledged every verified byte.
    async fn voucher(&self, bytes: u64, all: bool) -> Result<Option<Voucher>, Error> {
        let (most, trust) = (self.terms().quota_egress, self.trust.load(Ordering::Acquire));
        let mut meter = self.meter.lock().await;
        meter.verify(bytes);
        if let Some(egress) = meter.due(all, most, trust) {
            let paid = self.common.catalogue.put_paid(self.number, self.id, PaidRow { egress }).await;
            if !paid.map_err(|stopped| Error::Unreachable(self.provider(), stopped.to_string()))? {
                // A voucher is signed only if it is on disk.
                return Err(Error::Unreachable(self.provider(), "the agreement is gone".into()));
            }
            meter.sign(egress);
        } else if !(all && meter.is_unacknowledged()) {
            return Ok(None);
        }
        Ok(Some(Voucher::signed(&self.session, &self.common.chain, self.id, Units::egress(meter.signed()))))
    }
}
