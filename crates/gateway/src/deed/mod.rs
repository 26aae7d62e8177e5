//! One agreement with one provider: its data set, its vouchers, its keys.
//!
//! ```text
//!   put, repair ──store──► provider keeps the bytes ──queue──► signer: intent on disk ► provider
//!   reaper, repair ──drop──────────────────────────────────►   signs ► entries on disk ► callers
//!   get ──fetch──► slices, each verified ► meter ► voucher on disk ► provider (until it has it)
//! ```
//!
//! Invariants
//! 1. The provider is asked to sign only what is on disk as an intent: after a crash the same is
//!    asked again, so both sides agree on what the data set is.
//! 2. A voucher is on disk before it leaves.
//! 3. The newest signed claim waits on disk until the ledger has it, or one above it. It
//!    describes the whole data set, so one operation carries all that was signed before it (DS-1).
//!    Nothing new is signed while [`VERSIONS_AHEAD_MAX`] versions are above the ledger's last: the
//!    provider keeps a tree of each.
//! 4. Every verified byte is paid, also of a read that nobody waits for any more and when the
//!    connection broke before the voucher was there: else the provider disputes it (BK-8). Only a
//!    crash forgets bytes that had verified and were not signed for yet: less than a window.

mod part;
mod room;
pub mod state;
#[cfg(test)]
mod tests;

pub use part::{Arrived, Part};
pub use room::{Room, Unsigned};

use crate::{
    catalogue::{
        Catalogue, LoadedDeed, Stopped,
        row::{Added, DeedRow, Intent, PaidRow, SignedClaim},
    },
    environment::Environment,
    limits::{VERSIONS_AHEAD, VERSIONS_AHEAD_MAX},
    link::{Error, Link},
    meter::Meter,
};
use commonware_codec::DecodeExt;
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_macros::select;
use commonware_utils::channel::oneshot;
use posync_client::watch;
use posync_protocol::{
    Account, AgreementId, Hash, Signature,
    amount::ONE,
    block::with_chain,
    chunk,
    operation::{DATA_SET_NAMESPACE, DataSetClaim, SignatureCheck, Voucher, sign},
    record::Version,
    wire::provider::{Refusal, Slice},
};
use state::{Damaged, State};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Mutex as AsyncMutex, Notify};

/// Time for the next slice of a stream.
pub const SLICE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time in which a late slice is still verified and paid, though nobody waits for it.
const SLICE_LATE: Duration = Duration::from_secs(60);
/// Time without a slice after which the provider may be waiting for money: its window is smaller
/// than we know when something was lost on the way, or a voucher was.
const PAY_IDLE: Duration = Duration::from_millis(100);
/// Pause before a voucher is brought again: several times within what a provider waits for.
const PAY_PAUSE: Duration = Duration::from_secs(10);
/// Pause after a signature that did not come.
const SIGN_PAUSE: Duration = Duration::from_millis(500);
/// Claims refused for good, in a row, after which the two sides do not agree on what the data set is.
const REFUSALS: u32 = 3;
/// Pause before such a provider is asked again.
const DISAGREE_PAUSE: Duration = Duration::from_secs(60);
/// Times that a refused claim is asked for again: the provider may hold as many versions above the
/// ledger's as it can, and learn of the ledger's state later than the gateway.
const CLAIM_TRIES: u32 = 10;

/// What every agreement needs of the gateway.
#[derive(Clone)]
pub struct Common {
    /// The runtime.
    pub environment: Environment,
    /// The catalogue.
    pub catalogue: Catalogue,
    /// SHA-256 of the genesis.
    pub chain: Hash,
    /// The gateway's secret.
    pub master: Hash,
    /// Wakes the task that submits claims to the ledger.
    pub signed: Arc<Notify>,
}

fn key(master: &Hash, purpose: &str, deed: u32) -> PrivateKey {
    let mut hasher = blake3::Hasher::new_derive_key(purpose);
    hasher.update(master).update(&deed.to_be_bytes());
    PrivateKey::decode(hasher.finalize().as_bytes().to_vec()).expect("any 32 bytes are an Ed25519 seed")
}

/// The key that signs vouchers of agreement `deed`.
pub fn session_key(master: &Hash, deed: u32) -> PrivateKey {
    key(master, "posync gateway 2026-11 session key", deed)
}

/// The key that signs data sets of agreement `deed`.
pub fn storage_key(master: &Hash, deed: u32) -> PrivateKey {
    key(master, "posync gateway 2026-11 storage key", deed)
}

/// Looks at the ledger since a claim was refused.
#[derive(Debug, Default)]
struct Looks {
    /// The height of the refusal, or of the last look that counts.
    height: u64,
    /// Those that count: each later than the one before.
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
pub struct Deed {
    /// Its number in the catalogue.
    pub number: u32,
    /// Its identity in the ledger.
    pub agreement: AgreementId,
    /// The way to its provider.
    pub link: Arc<Link>,
    terms: Mutex<DeedRow>,
    state: Mutex<State>,
    waiters: Mutex<BTreeMap<Hash, oneshot::Sender<bool>>>,
    waiting: Mutex<Option<SignedClaim>>,
    on_ledger: AtomicU64,
    looks: Mutex<Looks>,
    tries: AtomicU32,
    /// Claims that the provider refused for good, in a row.
    refusals: AtomicU32,
    meter: AsyncMutex<Meter>,
    trust: AtomicU64,
    owing: Notify,
    wake: Notify,
    closed: AtomicBool,
    /// One above the version below which a data set may shrink; 0: none.
    may_shrink: AtomicU64,
    bringing: AsyncMutex<()>,
    session: PrivateKey,
    storage: PrivateKey,
    common: Common,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}

impl Deed {
    /// Takes up an agreement and starts its signer.
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn start(loaded: LoadedDeed, link: Arc<Link>, common: Common) -> Result<Arc<Self>, Damaged> {
        let LoadedDeed { number, row, set, paid, intent, waiting, entries } = loaded;
        let state = State::new(number, row.agreement, row.quota_leaves, set, entries, intent)?;
        let on_ledger = waiting.claim.map_or(set.version, |signed| signed.claim.version - 1);
        let deed = Arc::new(Self {
            number,
            agreement: row.agreement,
            link,
            state: Mutex::new(state),
            waiters: Mutex::default(),
            waiting: Mutex::new(waiting.claim),
            on_ledger: AtomicU64::new(on_ledger),
            looks: Mutex::default(),
            tries: AtomicU32::new(0),
            refusals: AtomicU32::new(0),
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
        common.environment.spawn(deed.clone().run());
        common.environment.spawn(deed.clone().pay_up());
        deed.wake.notify_one();
        Ok(deed)
    }

    /// Who provides.
    pub const fn provider(&self) -> Account {
        self.agreement.provider
    }

    /// The account of the storage key.
    pub fn storage_account(&self) -> Account {
        Account::of(&self.storage.public_key())
    }

    /// The terms.
    pub fn terms(&self) -> DeedRow {
        lock(&self.terms).clone()
    }

    /// Changes the terms, durably.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn set_terms(&self, change: impl FnOnce(&mut DeedRow)) -> Result<(), Stopped> {
        let row = {
            let mut terms = lock(&self.terms);
            change(&mut terms);
            terms.clone()
        };
        self.common.catalogue.put_deed(self.number, row).await
    }

    /// Reads the data set.
    pub fn with_state<T>(&self, read: impl FnOnce(&mut State) -> T) -> T {
        read(&mut lock(&self.state))
    }

    /// Egress bytes signed away.
    pub async fn egress(&self) -> u64 {
        self.meter.lock().await.signed()
    }

    /// Egress bytes that its quota still pays for, and whether its provider sends them: see [`Meter::bar`].
    pub async fn unread(&self) -> (u64, bool) {
        let (quota, meter) = (self.terms().quota_egress, *self.meter.lock().await);
        (meter.left(quota), !meter.is_barred())
    }

    /// The newest claim, if the ledger does not have it yet.
    pub fn waiting(&self) -> Option<SignedClaim> {
        *lock(&self.waiting)
    }

    /// Taken by the task that submits a claim to the ledger; `None` while one does.
    pub fn bring(&self) -> Option<impl Drop + '_> {
        self.bringing.try_lock().ok()
    }

    /// Versions that both signed above the ledger's last.
    pub fn ahead(&self) -> u64 {
        let signed = self.with_state(|state| state.version());
        signed.saturating_sub(self.on_ledger.load(Ordering::Acquire))
    }

    /// Whether the newest claim should be submitted at once, not at the next look at the ledger.
    pub fn is_due(&self) -> bool {
        self.ahead() >= VERSIONS_AHEAD
    }

    /// Takes note of the ledger's last version at `height`. A provider whose answer was lost may have
    /// submitted a change that it signed: then the change is signed, also one that was given up.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn looked(&self, last: &Version, height: u64) -> Result<(), Stopped> {
        if self.with_state(|state| state.adopt(last)) {
            // No claim is brought with it: the ledger has this one.
            self.signed([0; 64]).await?;
        }
        self.settled(last.version).await?;
        lock(&self.looks).at(height);
        self.wake.notify_one();
        Ok(())
    }

    /// Whether its provider and this gateway take the data set for different ones, as after a restored
    /// backup: nothing more will be signed under it.
    pub fn disagrees(&self) -> bool {
        self.refusals.load(Ordering::Acquire) >= REFUSALS
    }

    /// Whether the ledger may have something of this agreement's data set, or will.
    pub fn is_used(&self) -> bool {
        self.with_state(|state| state.version() > 0 || state.intended().is_some())
    }

    /// The ledger's last version is this one: those up to it are there, or void.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn settled(&self, version: u64) -> Result<(), Stopped> {
        let is_there = |signed: &SignedClaim| signed.claim.version <= version;
        if self.waiting().is_some_and(|signed| is_there(&signed)) {
            self.common.catalogue.settled(self.number, self.agreement, version).await?;
            lock(&self.waiting).take_if(|signed| is_there(signed));
        }
        if self.on_ledger.fetch_max(version, Ordering::AcqRel) < version {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// What trust the ledger gives us under this agreement.
    pub fn set_trust(&self, trust: u64) {
        self.trust.store(trust, Ordering::Release);
    }

    /// The ledger would take a data set that is smaller than this version's; of one that was signed
    /// since then nothing is known.
    pub fn set_may_shrink(&self, below: Option<u64>) {
        self.may_shrink.store(below.map_or(0, |version| version.saturating_add(1)), Ordering::Release);
        if below.is_some() {
            self.wake.notify_one();
        }
    }

    /// The agreement is gone: its signer ends, what it held is nobody's. Returns that.
    pub fn close(&self) -> Vec<Added> {
        self.closed.store(true, Ordering::Release);
        self.wake.notify_one();
        self.owing.notify_one();
        lock(&self.waiters).clear();
        self.with_state(State::clear)
    }

    /// Whether [`Self::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Keeps room for a shard of `bytes`, if there is.
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Option<Room> {
        let open = !self.is_closed() && self.with_state(|state| state.reserve(bytes));
        open.then(|| Room { deed: self.clone(), bytes, kept: false })
    }

    /// These entries are to be taken out of the data set. Returns those that were in force.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn drop_entries(&self, sequences: Vec<u64>) -> Result<Vec<Added>, Stopped> {
        let dropped = self.with_state(|state| state.drop_entries(sequences));
        if !dropped.is_empty() {
            self.common.catalogue.drop_holdings(self.number, self.agreement, dropped.clone()).await?;
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

    /// Waits for something to sign and has it signed.
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
            Ok(signature) => self.signed(signature).await?,
            Err(error) if error.may_pass() || self.may_be_right(&error) => {
                tracing::debug!(%error, "a signature is late");
                self.common.environment.sleep(SIGN_PAUSE).await;
            }
            Err(error) => {
                tracing::warn!(%error, agreement = self.number, "a data set was not signed");
                self.tries.store(0, Ordering::Release);
                if matches!(error, Error::Refused(_, Refusal::Claim, _)) {
                    self.refusals.fetch_add(1, Ordering::AcqRel);
                }
                self.common.catalogue.withdraw(self.number, self.agreement).await?;
                let refused = self.with_state(State::refuse);
                refused.iter().for_each(|added| self.answer(&added.name, false));
                let pause = if self.disagrees() { DISAGREE_PAUSE } else { SIGN_PAUSE };
                self.common.environment.sleep(pause).await;
            }
        }
        Ok(())
    }

    /// Whether a claim that the provider refuses may be right all the same, so that the very same is
    /// asked for: the provider may have signed it before and brought it to the ledger, which two looks
    /// of the ledger after the refusal show, or hold as many versions above the ledger's as it can and
    /// not have heard of a later one.
    fn may_be_right(&self, error: &Error) -> bool {
        if !matches!(error, Error::Refused(_, Refusal::Claim, _)) {
            return false;
        }
        let tries = self.tries.fetch_add(1, Ordering::AcqRel);
        if tries == 0 {
            *lock(&self.looks) = Looks { height: self.link.height(), count: 0 };
        }
        self.common.signed.notify_one();
        let unseen = lock(&self.looks).count < 2;
        let many = self.with_state(|state| state.version()) >= VERSIONS_AHEAD_MAX;
        unseen || many && tries < CLAIM_TRIES
    }

    /// The consumer's signature over a claim.
    pub fn sign_claim(&self, claim: &DataSetClaim) -> Signature {
        sign(&self.storage, DATA_SET_NAMESPACE, &with_chain(&self.common.chain, claim))
    }

    async fn ask(&self, intent: &Intent) -> Result<Signature, Error> {
        let message = with_chain(&self.common.chain, &intent.claim);
        let own = self.sign_claim(&intent.claim);
        let request = self.with_state(|state| state.request(intent, own));
        let signature = self.link.sign(request).await?;
        let check =
            SignatureCheck { namespace: DATA_SET_NAMESPACE, message, key: self.provider(), signature };
        let wrong = || Error::Wrong(self.provider(), "its signature does not verify");
        check.verify().then_some(signature).ok_or_else(wrong)
    }

    async fn signed(&self, signature: Signature) -> Result<(), Stopped> {
        let Some(agreed) = self.with_state(|state| state.sign(signature)) else { return Ok(()) };
        self.tries.store(0, Ordering::Release);
        self.refusals.store(0, Ordering::Release);
        let (claim, adds) = (agreed.claim, agreed.adds.clone());
        let Some(orphans) = self.common.catalogue.agreed(agreed).await? else {
            // The agreement is gone, and another one has its number: the signature is of no use.
            adds.iter().for_each(|add| self.answer(&add.name, false));
            return Ok(());
        };
        *lock(&self.waiting) = Some(claim);
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
        // The caller may have given up: then the entry is an orphan and taken out again.
        let _ = lock(&self.waiters).remove(name).map(|waiter| waiter.send(signed));
    }

    /// Reads a whole shard, verifying and paying slice by slice.
    ///
    /// # Errors
    /// [`Error`]; what had verified is paid all the same.
    pub async fn fetch(self: &Arc<Self>, name: Hash, length: u64) -> Result<Vec<u8>, Error> {
        Ok(self.read(Part::whole(name, length)).await?.bytes)
    }

    /// Reads a part of a shard, of whatever data set, as [`Self::fetch`] reads a whole one. The stream
    /// goes on when nobody waits for it any more: what is on its way then would be owed and never
    /// paid, and a provider sends no more to who owes a window.
    ///
    /// # Errors
    /// [`Error`]; what had verified is paid all the same.
    pub async fn read(self: &Arc<Self>, part: Part) -> Result<Arrived, Error> {
        let (progress, mut moves) = watch::channel(());
        let (sender, receiver) = oneshot::channel();
        let (deed, environment) = (self.clone(), &self.common.environment);
        environment.spawn(async move {
            let arrived = deed.stream_and_pay(&part, &progress).await;
            // Nobody may be waiting any more.
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
        let arrived = self.stream(part, progress).await;
        let is_barred = matches!(arrived, Err(Error::Refused(_, Refusal::Credit, _)));
        if is_barred || arrived.is_ok() {
            self.meter.lock().await.bar(is_barred);
        }
        if let Err(error) = self.pay().await {
            tracing::debug!(%error, "a voucher is brought again");
            self.owing.notify_one();
        }
        arrived
    }

    /// Pays for all that verified, unless the provider has it.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn pay(&self) -> Result<(), Error> {
        if let Some(voucher) = self.voucher(0, true).await? {
            self.link.pay(voucher).await?;
            self.meter.lock().await.acknowledge(voucher.egress);
        }
        Ok(())
    }

    /// Brings the last voucher until the provider has it; at a start, too.
    async fn pay_up(self: Arc<Self>) {
        while !self.is_closed() {
            match self.pay().await {
                Err(error) if error.may_pass() => self.common.environment.sleep(PAY_PAUSE).await,
                Err(error) => {
                    tracing::warn!(%error, agreement = self.number, "a voucher is not taken");
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
        let get = part.get(self.agreement);
        let mut slices = environment.within(SLICE_TIMEOUT, self.link.get(get)).await.ok_or_else(late)??;
        let mut arrived = Arrived { bytes: Vec::with_capacity(part.room()), ..Arrived::default() };
        if let Some(voucher) = self.voucher(0, true).await? {
            // An earlier stream may have broken with it.
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
        if whole && chunk::verify_slice(name, length, offset, &slice.data, &slice.path) {
            Ok(())
        } else {
            Err(Error::Wrong(self.provider(), "a slice does not lead to the shard's name"))
        }
    }

    /// Counts verified bytes; a voucher if one is due, on disk before it is returned. With `all`,
    /// whenever the provider has not acknowledged everything that verified.
    async fn voucher(&self, bytes: u64, all: bool) -> Result<Option<Voucher>, Error> {
        let (most, trust) = (self.terms().quota_egress, self.trust.load(Ordering::Acquire));
        let mut meter = self.meter.lock().await;
        meter.verify(bytes);
        if let Some(egress) = meter.due(all, most, trust) {
            let paid = self.common.catalogue.put_paid(self.number, self.agreement, PaidRow { egress }).await;
            if !paid.map_err(|stopped| Error::Unreachable(self.provider(), stopped.to_string()))? {
                // Nothing is signed that is not on disk.
                return Err(Error::Unreachable(self.provider(), "the agreement is gone".into()));
            }
            meter.sign(egress);
        } else if !(all && meter.is_unacknowledged()) {
            return Ok(None);
        }
        Ok(Some(Voucher::signed(&self.session, &self.common.chain, self.agreement, meter.signed(), 0)))
    }
}
