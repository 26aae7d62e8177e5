//! Answers requests, one per call, from the store, the data sets, the voucher store and the ledger's view.

use super::{
    LOAD_MAX, TERMS_WAIT_MS, answer, no, no_code,
    queue::{Demand, Queue, Turn},
    trace,
    waits::{PUT_KIB, REQUESTS, Waits},
};
use crate::{
    data_sets::DataSets,
    packs::{Store, StoreError, leaves},
    terms::Terms,
    uptime::Uptime,
    view::{NoTerms, View},
    vouchers::{Judged, Vouchers, judge},
};
use bytes::Bytes;
use commonware_cryptography::ed25519::PrivateKey;
use commonware_macros::select;
use commonware_runtime::{Blob, Clock, Spawner};
use commonware_utils::sync::Mutex;
use posync_client::rpc::{Incoming, Provider};
use posync_protocol::{
    Account, AgreementId, Bounded, Class, Code, Hash, Signature,
    operation::{RefusedPlacement, Voucher},
    wire::provider::{Ask, BAD_SHARDS_MAX, ProviderAnswer, Put, Refusal, Refused, Sign, Status},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

/// The parts that a handler answers from.
pub struct Parts<E, B> {
    /// Clock for bounded waits.
    pub clock: Arc<E>,
    /// Store with the shards.
    pub store: Store<B>,
    /// Books with the signed versions.
    pub data_sets: DataSets,
    /// Voucher store with the vouchers.
    pub vouchers: Vouchers,
    /// The provider's proven view of the ledger.
    pub view: View,
    /// Leaves that this provider offers.
    pub capacity_leaves: u64,
    /// Signs refusals of placements for which room was declared.
    pub key: PrivateKey,
}

/// The request handler, shared by all calls.
pub struct Handler<E, B> {
    pub(super) parts: Parts<E, B>,
    queue: Queue,
    load: AtomicU32,
    uptime: Uptime,
    /// Requests that wait for a proof of their agreement, and the KiB of puts among them.
    waits: Waits,
    waiting_bytes: Waits,
    /// Stored shards that are in no signed version yet, each with the time since when.
    loose: Mutex<BTreeMap<(AgreementId, Hash), SystemTime>>,
    missing: Mutex<Vec<Hash>>,
}

/// Counts a request while it exists.
struct Load<'a>(&'a AtomicU32);

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<E: Clock, B: Blob> Handler<E, B> {
    /// Creates a handler over these parts, and starts its uptime.
    pub fn start(context: &E, parts: Parts<E, B>) -> Arc<Self>
    where
        E: Spawner,
    {
        let handler = Arc::new(Self::new(parts));
        let uptime = handler.uptime().clone();
        context.child("uptime").spawn(move |context| uptime.run(context));
        handler
    }

    pub(crate) fn new(parts: Parts<E, B>) -> Self {
        let (load, queue) = (AtomicU32::new(0), Queue::default());
        let uptime = Uptime::default();
        let (waits, waiting_bytes) = (Waits::new(REQUESTS), Waits::new(PUT_KIB));
        let (loose, missing) = (Mutex::default(), Mutex::default());
        Self { parts, queue, load, uptime, waits, waiting_bytes, loose, missing }
    }

    /// Answers a call and its follow-up messages.
    pub async fn handle(&self, mut call: Incoming<Provider>, ask: Ask) {
        let waiting = self.load.fetch_add(1, Ordering::Relaxed);
        let _load = Load(&self.load);
        let peer = call.peer();
        trace(&peer, &ask);
        let result = if waiting >= LOAD_MAX {
            ProviderAnswer::Refused(no(
                Refusal::Busy,
                format!("{LOAD_MAX} requests are open here; try again in a second, or ask another provider"),
            ))
        } else {
            match ask {
                Ask::Put(put) => answer(self.put(peer, put).await, ProviderAnswer::Stored),
                Ask::Sign(sign) => answer(self.sign(peer, sign).await, ProviderAnswer::Signed),
                Ask::Get(get) => match self.stream(&mut call, get).await {
                    Ok(()) => return,
                    Err(refused) => ProviderAnswer::Refused(refused),
                },
                Ask::Pay(voucher) => match self.pay(peer, &voucher).await {
                    Ok(()) => return,
                    Err(refused) => ProviderAnswer::Refused(refused),
                },
                Ask::Status(_) => ProviderAnswer::Status(self.status()),
                Ask::Probe(probe) => answer(self.count(&mut call, probe).await, ProviderAnswer::Counted),
                Ask::Filler(_) => {
                    ProviderAnswer::Refused(no(Refusal::Shape, "bytes to count belong into a probe"))
                }
            }
        };
        if let Err(error) = call.finish(&result).await {
            tracing::debug!(%error, "the caller is gone");
        }
    }

    /// The proven terms, if the caller is the agreement's consumer and it is open.
    pub(super) async fn admit(&self, peer: Account, id: &AgreementId) -> Result<Terms, Refused> {
        self.admit_with(peer, id, 0).await
    }

    /// Like [`Self::admit`], for a request that holds `bytes` while it waits.
    async fn admit_with(&self, peer: Account, id: &AgreementId, bytes: usize) -> Result<Terms, Refused> {
        let terms = self.known_to(peer, id, bytes).await?;
        if !cfg!(planted = "anyone-asks") && terms.agreement.consumer != peer {
            return Err(no(Refusal::Agreement, "you are not the consumer of this agreement"));
        }
        terms.check_open(self.parts.view.epoch()).map_err(|code| no_code(Refusal::Agreement, code))?;
        Ok(terms)
    }

    /// The proven terms; a request that waits for a proof takes one of a bounded number of places.
    async fn known_to(&self, peer: Account, id: &AgreementId, bytes: usize) -> Result<Terms, Refused> {
        if let Some(terms) = self.parts.view.recent(id) {
            return Ok(terms);
        }
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let places = self.waits.enter(peer, 1).zip(self.waiting_bytes.enter(peer, kib));
        let full = "too many requests wait for a proof of their agreement; try again in a second";
        let _places = places.ok_or_else(|| no(Refusal::Busy, full))?;
        self.terms(id, false).await
    }

    /// Waits for the consumer's turn at disk and uplink.
    pub(super) async fn turn(&self, consumer: Account, demand: Demand) -> Result<Turn<'_>, Refused> {
        let weight = self.parts.view.weight(&consumer);
        let turn = self.queue.turn(consumer, weight, demand).await;
        turn.map_err(|full| no(Refusal::Busy, full.to_string()))
    }

    pub(super) async fn terms(&self, id: &AgreementId, fresh: bool) -> Result<Terms, Refused> {
        let view = &self.parts.view;
        let known = async { if fresh { view.fresh(id).await } else { view.terms(id).await } };
        let late = self.parts.clock.sleep(Duration::from_millis(TERMS_WAIT_MS));
        let terms = select! {
            terms = known => terms,
            () = late => Err(NoTerms::Unreachable),
        };
        terms.map_err(|why| match why {
            NoTerms::Unknown => no_code(Refusal::Agreement, Code::AgreementUnknown),
            NoTerms::Unreachable => {
                no(Refusal::Busy, "this provider cannot reach the ledger now; try again later")
            }
        })
    }

    async fn put(&self, peer: Account, put: Put) -> Result<Hash, Refused> {
        let terms = self.admit_with(peer, &put.agreement, put.data.len()).await?;
        // If the ledger forbids growth, no version could ever hold the shard.
        self.parts.view.check_grows().map_err(|code| no_code(Refusal::Space, code))?;
        let data = Bytes::from(put.data.into_inner());
        if blake3::hash(&data).as_bytes() != &put.shard {
            return Err(no(Refusal::Content, "the bytes do not have that BLAKE3 name; send them again"));
        }
        let Parts { store, data_sets, view, .. } = &self.parts;
        let _turn = self.turn(peer, [1, data.len() as u64, 0]).await?;
        let more = leaves(u32::try_from(data.len()).expect("a decoded shard is at most 4 MiB"));
        let known = store.holds(&put.agreement, &put.shard);
        let held = store.held(&put.agreement).leaves;
        if !known && held + more > terms.agreement.quota[Class::Storage] {
            let quota = terms.agreement.quota[Class::Storage];
            return Err(no(
                Refusal::Space,
                format!("{held} of {quota} leaves of the agreement's quota are used"),
            ));
        }
        if !data_sets.take_back(put.agreement, put.shard) {
            return Err(no(Refusal::Busy, "this shard is just being removed; put it again"));
        }
        let now = self.uptime.now();
        self.loose.lock().insert((put.agreement, put.shard), now);
        view.set_unasked(false);
        store.put(put.agreement, put.shard, data).await.map_err(|error| match error {
            // The quota is within the declared capacity, so this is a broken promise.
            StoreError::Full { .. } | StoreError::Bound(_) => Refused {
                signed: Some(self.refusal(peer, put.agreement, more)),
                ..no(Refusal::Space, error.to_string())
            },
            // A full volume is temporary: there may be room again, and no promise is broken for good.
            _ => no(Refusal::Busy, format!("{error}; choose another provider, or try again later")),
        })?;
        Ok(put.shard)
    }

    async fn sign(&self, peer: Account, ask: Sign) -> Result<Signature, Refused> {
        let id = ask.claim.agreement;
        let mut terms = self.admit(peer, &id).await?;
        if self.parts.data_sets.with(|state| state.is_crowded(&id)) {
            terms = self.look(peer, terms).await?;
        }
        let adds: Vec<Hash> = ask.adds.iter().map(|(shard, _)| *shard).collect();
        let signed = self.parts.data_sets.sign(terms, ask, self.parts.view.height()).await;
        let signed = signed.map_err(|error| no(Refusal::Busy, error.to_string()))?;
        let signature = signed.map_err(|(reason, text)| no(reason, text))?;
        let mut loose = self.loose.lock();
        for shard in adds {
            loose.remove(&(id, shard));
        }
        Ok(signature)
    }

    /// Reads an agreement's records anew, and notes the versions that the ledger has taken. The reconciler does
    /// this once a round; a busy consumer fills all places for signed versions sooner. Without a proof the
    /// known terms stay. The reconciler removes what may go: the caller of this request may be gone by then.
    async fn look(&self, peer: Account, terms: Terms) -> Result<Terms, Refused> {
        let Some(_place) = self.waits.enter(peer, 1) else { return Ok(terms) };
        let Ok(terms) = self.terms(&terms.id, true).await else { return Ok(terms) };
        let data_sets = &self.parts.data_sets;
        if data_sets.with(|state| state.is_behind(&terms.id, &terms.data)) {
            let noted = data_sets.note(terms.id, terms.data.clone(), terms.height).await;
            noted.map_err(|error| no(Refusal::Busy, error.to_string()))?;
        }
        Ok(terms)
    }

    /// The signed refusal that proves to the ledger that the declared capacity is missing (PV-5).
    fn refusal(&self, consumer: Account, agreement: AgreementId, leaves: u64) -> RefusedPlacement {
        let Parts { view, key, .. } = &self.parts;
        let (provider, height) = (view.account, view.height());
        let agreement = Some(agreement);
        RefusedPlacement { provider, consumer, agreement, leaves, height, signature: [0; 64] }
            .signed(key, &view.chain)
    }

    /// Accepts a voucher; it is durable when this returns.
    pub(super) async fn pay(&self, peer: Account, voucher: &Voucher) -> Result<(), Refused> {
        let terms = self.known_to(peer, &voucher.agreement, 0).await?;
        let judged = match self.judge(&terms, voucher) {
            // The terms may have changed since they were proved: a rotated key, a top-up.
            Err(Code::BadSignature | Code::VoucherReserveEmpty | Code::VoucherOverRate) => {
                self.judge(&self.terms(&voucher.agreement, true).await?, voucher)
            }
            judged => judged,
        };
        let judged = judged.map_err(|code| no_code(Refusal::Voucher, code))?;
        let better = self.parts.vouchers.with(|state| state.compare(voucher));
        match (judged, better.map_err(|code| no_code(Refusal::Voucher, code))?) {
            (Judged::Better(redemption), true) => self
                .parts
                .vouchers
                .keep(redemption)
                .await
                .map_err(|error| no(Refusal::Busy, error.to_string())),
            _ => Ok(()),
        }
    }

    fn judge(&self, terms: &Terms, voucher: &Voucher) -> Result<Judged, Code> {
        let view = &self.parts.view;
        judge(terms, voucher, &view.chain, view.round(), &view.parameters)
    }

    fn status(&self) -> Status {
        let store = &self.parts.store;
        let bad = Bounded::new(self.bad()).unwrap_or_default();
        Status {
            free_leaves: self.parts.capacity_leaves.saturating_sub(store.totals().leaves),
            load: self.load.load(Ordering::Relaxed),
            bad,
        }
    }

    /// Shards known to be damaged or missing, from reads and the last scrub.
    pub(crate) fn bad(&self) -> Vec<Hash> {
        let mut bad = self.parts.store.damaged(BAD_SHARDS_MAX);
        let missing = self.missing.lock();
        bad.extend(missing.iter().filter(|shard| self.parts.store.length(shard).is_none()));
        bad.truncate(BAD_SHARDS_MAX);
        bad
    }

    /// Notes the owed shards that a scrub did not find.
    pub(crate) fn set_missing(&self, shards: Vec<Hash>) {
        *self.missing.lock() = shards;
    }

    /// Notes a shard that no signed version holds, found at a start.
    pub fn note_loose(&self, agreement: AgreementId, shard: Hash) {
        let now = self.uptime.now();
        self.loose.lock().entry((agreement, shard)).or_insert(now);
    }

    /// Takes out the shards that were put more than `age` ago and never signed for.
    pub fn expired(&self, age: Duration) -> BTreeMap<AgreementId, Vec<Hash>> {
        let now = self.uptime.now();
        let mut expired: BTreeMap<AgreementId, Vec<Hash>> = BTreeMap::new();
        self.loose.lock().retain(|(agreement, shard), since| {
            let old = now.duration_since(*since).is_ok_and(|waited| waited > age);
            if old {
                expired.entry(*agreement).or_default().push(*shard);
            }
            !old
        });
        expired
    }

    /// True if a shard was put again since [`Self::expired`] took it out.
    pub(crate) fn is_loose(&self, agreement: AgreementId, shard: Hash) -> bool {
        self.loose.lock().contains_key(&(agreement, shard))
    }

    /// Agreements with stored shards that are in no signed version.
    pub(crate) fn loose_agreements(&self) -> BTreeSet<AgreementId> {
        self.loose.lock().keys().map(|(agreement, _)| *agreement).collect()
    }

    /// Forgets the loose shards of an agreement whose shards are gone.
    pub(crate) fn forget_loose(&self, agreement: &AgreementId) {
        self.loose.lock().retain(|(id, _), _| id != agreement);
    }

    /// The time by which unsigned shards and unpaid downloads age; the handler's owner must run it.
    pub(crate) const fn uptime(&self) -> &Uptime {
        &self.uptime
    }

    /// Number of requests that wait for their turn.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.queue.waiting()
    }

    /// The parts that this handler answers from.
    pub const fn parts(&self) -> &Parts<E, B> {
        &self.parts
    }
}
