//! Moves operations from callers and other authorities through admission into the pool, and to the others.
//!
//! One task decides the order. It gathers operations of callers and peers for [`GATHER_MS`], looks up their
//! signers in the applied state, verifies the signatures of those that have standing there, and only
//! then locks the pool, for microseconds. The free lanes go first, and again after each [`CHECKS_MAX`]
//! signatures of paid operations, so an answer to a challenge waits for some milliseconds at most. An
//! answer to a challenge that this node has not applied yet waits for its block.
//!
//! Bounds: [`INGRESS_QUEUED_MAX`] operations of callers in each lane, [`QUEUED_PER_PEER`] of one caller,
//! early storage proofs with a good signature ([`Early`]), batches of [`BATCH_MAX`]. Operations beyond a bound
//! are answered with `Full`. A signer whose own operation carries a bad signature, and an authority that
//! passes one on, is ignored until the next block.

use super::{
    admit::{self, Slots, funds},
    early::Early,
    state::{Admission, Pool, Refused},
    upkeep,
};
use crate::{
    engine::PublicKey,
    handle::{Handle, Operations},
    ingress::{self, Part},
};
use commonware_codec::{Copying, Decode as _, Encode as _, EncodeSize as _};
use commonware_macros::select;
use commonware_p2p::{Receiver, Recipients, Sender};
use commonware_runtime::Clock;
use commonware_utils::channel::{mpsc, oneshot};
use commonware_utils::sync::{Mutex, MutexGuard};
use futures::{FutureExt as _, future::BoxFuture};
use posync_client::watch;
use posync_protocol::{
    Account, Body, Bounded, Code, Hash, Key, Operation, Record as _,
    ledger::{self, BlockContext, Records},
    limits::{GATHER_MS, GOSSIP_BYTES_MAX, INGRESS_QUEUED_MAX, OPERATIONS_MAX},
    operation::Lane,
    record::{AccountState, Audit, System},
};
use rand_core::CryptoRng;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// Operations that one batch verifies.
const BATCH_MAX: usize = 512;
/// Signatures of paid operations verified before the free lanes are served again: about 20 ms.
const CHECKS_MAX: usize = 512;
/// Operations of one caller that wait to be checked.
const QUEUED_PER_PEER: usize = INGRESS_QUEUED_MAX / 8;
/// Signers and authorities that are remembered for a bad signature, until the next block.
const LIARS_MAX: usize = 1024;
/// Blocks by which a challenge may be ahead of the applied state.
const EARLY_BLOCKS_MAX: u64 = 64;

type Batch = Bounded<Operation, OPERATIONS_MAX>;

/// The result of a submission, for its caller.
pub(crate) type Submitted = Result<Hash, Refused>;

/// An operation before admission. Peers wait for no answer.
pub(super) struct Arrival {
    pub(super) id: Hash,
    pub(super) operation: Operation,
    pub(super) done: Option<oneshot::Sender<Submitted>>,
    /// Authority that passed it on; `None` if a caller submitted it.
    pub(super) from: Option<Account>,
    /// It was run alone once and refused, and waited for the next block.
    pub(super) again: bool,
}

impl Arrival {
    pub(super) fn answer(self, answer: Result<(), Refused>) {
        if let Some(done) = self.done {
            // A caller that has left does not need the answer.
            let _ = done.send(answer.map(|()| self.id));
        }
    }
}

/// A handle on the mempool: the application draws from it, and callers submit to it.
#[derive(Clone)]
pub struct Mempool {
    pool: Arc<Mutex<Pool>>,
    free: mpsc::Sender<Arrival>,
    paid: mpsc::Sender<Arrival>,
    dirty: Arc<Mutex<BTreeSet<Account>>>,
    moved: watch::Sender<u64>,
    placed: watch::Sender<()>,
    /// Number of each caller's operations that wait for their check.
    callers: Arc<Mutex<BTreeMap<Account, usize>>>,
}

/// Counts an operation of a caller while it waits.
struct Queued<'a> {
    callers: &'a Mutex<BTreeMap<Account, usize>>,
    caller: Account,
}

impl<'a> Queued<'a> {
    fn new(callers: &'a Mutex<BTreeMap<Account, usize>>, caller: Account) -> Option<Self> {
        let mut all = callers.lock();
        let count = all.entry(caller).or_insert(0);
        if *count >= QUEUED_PER_PEER {
            return None;
        }
        *count += 1;
        Some(Self { callers, caller })
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        let mut all = self.callers.lock();
        if let Some(count) = all.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.caller);
            }
        }
    }
}

/// The receiving end of the mempool's queues, for [`Mempool::run`].
pub struct Inbox {
    free: mpsc::Receiver<Arrival>,
    paid: mpsc::Receiver<Arrival>,
}

impl Mempool {
    /// Creates an empty mempool and its inbox.
    pub(crate) fn new() -> (Self, Inbox) {
        let (free, free_inbox) = mpsc::channel(INGRESS_QUEUED_MAX);
        let (paid, paid_inbox) = mpsc::channel(INGRESS_QUEUED_MAX);
        let (pool, dirty, moved) = (Arc::default(), Arc::default(), watch::Sender::new(0));
        let placed = watch::Sender::new(());
        let mempool = Self { pool, free, paid, dirty, moved, placed, callers: Arc::default() };
        (mempool, Inbox { free: free_inbox, paid: paid_inbox })
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock()
    }

    /// Takes an encoded operation of `caller`, as [`Self::submit`]; each caller has a share of the queue.
    ///
    /// # Errors
    /// [`Refused`], with `Full` if the caller's share is used up.
    pub(crate) async fn submit_of(&self, caller: Account, bytes: Vec<u8>) -> Submitted {
        let _queued = Queued::new(&self.callers, caller).ok_or(Refused::Full)?;
        self.submit(bytes).await
    }

    /// Takes an encoded operation and waits until it is checked.
    ///
    /// # Errors
    /// [`Refused`].
    pub(crate) async fn submit(&self, bytes: Vec<u8>) -> Submitted {
        let operation = ingress::decode(&bytes)?;
        let (done, answer) = oneshot::channel();
        // The lanes are separate from the start: a queue full of payments delays no answer to a challenge.
        let queue = if operation.body.has_nonce() { &self.paid } else { &self.free };
        let arrival = Arrival { id: operation.id(), operation, done: Some(done), from: None, again: false };
        queue.try_send(arrival).map_err(|_| Refused::Full)?;
        answer.await.unwrap_or(Err(Refused::Full))
    }

    /// Runs until the node stops.
    pub(crate) async fn run<E, S, R>(self, context: E, handle: Handle, inbox: Inbox, channel: (S, R))
    where
        E: Clock + CryptoRng,
        S: Sender,
        R: Receiver<PublicKey = PublicKey>,
    {
        let moved = self.moved.subscribe();
        let heights = handle.heights();
        let actor = Actor {
            mempool: self,
            context,
            handle,
            sender: channel.0,
            early: Early::default(),
            liars: BTreeSet::new(),
            tried: BTreeSet::new(),
        };
        actor.run(inbox, channel.1, moved, heights).await;
    }
}

impl Operations for Mempool {
    fn candidates(&self, context: &BlockContext, base_fee: u64) -> Vec<Operation> {
        self.pool().candidates(context.height, base_fee)
    }

    fn finalized(&self, height: u64, operations: &[Operation]) {
        let mut pool = self.pool();
        pool.finalized(height, operations);
        // A balance falls only by operations that its owner signed.
        let waiting = pool.waiting(operations.iter().map(|operation| operation.signer));
        drop(pool);
        self.dirty.lock().extend(waiting);
        self.moved.send_replace(height);
    }

    fn verified(&self, id: &Hash) -> bool {
        self.pool().met(id)
    }

    fn refused(&self, ids: &[Hash]) {
        self.pool().refused(ids);
    }

    fn waiting(&self) -> BoxFuture<'_, ()> {
        let mut placed = self.placed.subscribe();
        async move {
            while !self.pool().has_new() {
                placed.changed().await.expect("the sender lives in self");
            }
        }
        .boxed()
    }
}

struct Actor<E, S> {
    mempool: Mempool,
    context: E,
    handle: Handle,
    sender: S,
    early: Early,
    /// Signers and authorities with a bad signature since the last block.
    liars: BTreeSet<Account>,
    /// Providers that had a storage proof tried since the last block.
    tried: BTreeSet<Account>,
}

/// An operation with standing, in its lane.
type Admitted = (Arrival, Admission);

impl<E: Clock + CryptoRng, S: Sender> Actor<E, S> {
    async fn run<R: Receiver<PublicKey = PublicKey>>(
        mut self,
        mut inbox: Inbox,
        mut gossip: R,
        mut moved: watch::Receiver<u64>,
        mut heights: watch::Receiver<u64>,
    ) {
        loop {
            let mut arrivals = Vec::new();
            select! {
                changed = moved.changed() => match changed {
                    Ok(()) => self.refresh().await,
                    Err(_) => return,
                },
                changed = heights.changed() => match changed {
                    Ok(()) => {
                        self.liars.clear();
                        self.tried.clear();
                        arrivals.append(&mut self.early.take());
                    }
                    Err(_) => return,
                },
                arrival = inbox.free.recv() => match arrival {
                    Some(arrival) => arrivals.push(arrival),
                    None => return,
                },
                message = gossip.recv() => match message {
                    Ok((from, bytes)) => arrivals.extend(self.passed_on(Account::of(&from), bytes.as_ref())),
                    Err(_) => return,
                },
                arrival = inbox.paid.recv() => match arrival {
                    Some(arrival) => arrivals.push(arrival),
                    None => return,
                },
            }
            if arrivals.iter().any(|arrival| arrival.done.is_some()) {
                self.context.sleep(Duration::from_millis(GATHER_MS)).await;
            }
            // Served even while gossip never pauses.
            while arrivals.len() < BATCH_MAX
                && let Ok(arrival) = inbox.free.try_recv().or_else(|_| inbox.paid.try_recv())
            {
                arrivals.push(arrival);
            }
            // One message of the other authorities in each turn, however much callers submit.
            if let Some(Ok((from, bytes))) = gossip.recv().now_or_never() {
                arrivals.extend(self.passed_on(Account::of(&from), bytes.as_ref()));
            }
            if !arrivals.is_empty() {
                self.admit(arrivals, &mut inbox.free).await;
            }
        }
    }

    /// Decodes a batch of an authority; none if it passed on a bad signature since the last block.
    fn passed_on(&self, from: Account, bytes: &[u8]) -> Vec<Arrival> {
        if self.liars.contains(&from) { Vec::new() } else { unpacked(from, bytes) }
    }

    /// The context of the next block, as far as admission needs it.
    fn next(&self) -> BlockContext {
        BlockContext {
            chain: self.handle.chain(),
            parameters: self.handle.genesis().parameters,
            height: self.handle.applied() + 1,
            leader: Account::default(),
            parent: [0; 32],
            seed: None,
        }
    }

    /// Checks arrivals: the free lanes first, and again between pieces of the paid lane.
    async fn admit(&mut self, arrivals: Vec<Arrival>, free: &mut mpsc::Receiver<Arrival>) {
        let (paid, first): (Vec<_>, Vec<_>) =
            arrivals.into_iter().partition(|arrival| arrival.operation.body.has_nonce());
        let mut own = Vec::new();
        self.admit_batch(first, &mut own).await;
        let mut paid = self.screen(paid).await.into_iter().peekable();
        while paid.peek().is_some() {
            let (mut piece, mut checks) = (Vec::new(), 0);
            while let Some((arrival, _)) = paid.peek()
                && (piece.is_empty() || checks < CHECKS_MAX)
            {
                checks += arrival.operation.signatures(&self.handle.chain()).len();
                piece.extend(paid.next());
            }
            self.verify(piece, &mut own).await;
            let between: Vec<Arrival> = std::iter::from_fn(|| free.try_recv().ok()).take(BATCH_MAX).collect();
            self.admit_batch(between, &mut own).await;
        }
        self.send(own);
    }

    async fn admit_batch(&mut self, arrivals: Vec<Arrival>, own: &mut Vec<Operation>) {
        if !arrivals.is_empty() {
            let admitted = self.screen(arrivals).await;
            self.verify(admitted, own).await;
        }
    }

    /// Answers operations that are known, malformed or without standing in the applied state; returns the
    /// rest.
    async fn screen(&mut self, arrivals: Vec<Arrival>) -> Vec<Admitted> {
        if arrivals.is_empty() {
            return Vec::new();
        }
        let next = self.next();
        let mut keys = upkeep::keys(arrivals.iter().map(|arrival| &arrival.operation));
        keys.insert(System::key());
        let known = self.look_up(keys).await;
        let system = known.get(&System::key()).and_then(|slot| System::from_slot(slot).ok());
        let base_fee = ledger::base_fee(&system.unwrap_or_default(), &next.parameters);
        let (mut open, mut seen) = (Vec::new(), BTreeSet::new());
        for arrival in arrivals {
            if self.mempool.pool().contains(&arrival.id) {
                arrival.answer(Ok(()));
            } else if let Err(code) = ingress::check(&arrival.operation, &next, base_fee) {
                arrival.answer(Err(code.into()));
            } else if seen.insert(arrival.id) || arrival.done.is_some() {
                open.push(arrival);
            }
        }
        let (named, keys) = self.named(open, &known, &next);
        let slots = self.look_up(keys).await;
        let mut early = Vec::new();
        let judge = |arrival| self.judge(arrival, &next, &slots, &mut early);
        let admitted = named.into_iter().filter_map(judge).collect();
        // They wait for blocks and take room meanwhile, so only those with a good signature are kept.
        for (arrival, _) in self.only_good(early, Part::Own) {
            self.early.keep(arrival);
        }
        admitted
    }

    /// Names the records needed to judge each operation. Upkeep reads many records, so it reads none unless
    /// its signer has signed it, and few enough for its share of the reads.
    fn named(
        &mut self,
        open: Vec<Arrival>,
        known: &Slots,
        next: &BlockContext,
    ) -> (Vec<Arrival>, BTreeSet<Key>) {
        let is_upkeep = |arrival: &Arrival| upkeep::is_known(&arrival.operation, known);
        let (upkeep, mut open): (Vec<_>, Vec<_>) = open.into_iter().partition(is_upkeep);
        let upkeep = upkeep.into_iter().map(|arrival| (arrival, Admission::Upkeep { is_party: false }));
        let mut signed: Vec<Arrival> =
            self.only_good(upkeep.collect(), Part::Own).into_iter().map(|(arrival, _)| arrival).collect();
        // Upkeep that the provider itself sends comes first.
        signed.sort_by_key(|arrival| !upkeep::is_own(&arrival.operation));
        open.extend(signed);
        let (mut keys, mut reads, mut named) = (BTreeSet::new(), upkeep::Reads::default(), Vec::new());
        for arrival in open {
            let operation = &arrival.operation;
            let is_upkeep = operation.body.lane() == Lane::Upkeep;
            if is_upkeep && !upkeep::is_known(operation, known) {
                // If its provider or signer is not in the ledger, that decides already.
                named.push(arrival);
                continue;
            }
            match ingress::guarded(operation, || Ok(admit::keys(operation, &next.parameters))) {
                Ok(names) if is_upkeep && !reads.take(&operation.signer, names.len()) => {
                    arrival.answer(Err(Refused::Full));
                }
                Ok(names) => {
                    keys.extend(names);
                    named.push(arrival);
                }
                Err(code) => arrival.answer(Err(code.into())),
            }
        }
        keys.extend(known.keys().copied());
        (named, keys)
    }

    /// The lane of an operation by the applied state, or its answer; a storage proof whose challenge may still
    /// come goes to `early`.
    fn judge(
        &self,
        arrival: Arrival,
        next: &BlockContext,
        slots: &Slots,
        early: &mut Vec<Admitted>,
    ) -> Option<Admitted> {
        let operation = &arrival.operation;
        let judged = ingress::guarded(operation, || {
            let admission = admit::admit(operation, next, slots)?;
            admit::check_funds(operation, &admission).map(|()| admission)
        });
        match (judged, &operation.body) {
            (Ok(_), _) | (Err(_), Body::StorageProof(_)) if self.liars.contains(&operation.signer) => {
                arrival.answer(Err(Refused::Full));
            }
            (Ok(admission), _) => return Some((arrival, admission)),
            (Err(_), Body::StorageProof(storage_proof))
                if may_come_true(operation, storage_proof.height, next, slots) =>
            {
                early.push((arrival, Admission::StorageProof));
            }
            (Err(code), _) => arrival.answer(Err(code.into())),
        }
        None
    }

    /// Places operations whose signatures are all good. The signers' own signatures are verified first.
    async fn verify(&mut self, admitted: Vec<Admitted>, own: &mut Vec<Operation>) {
        let chain = self.handle.chain();
        let signed = self.only_good(admitted, Part::Own);
        let signed = self.untried(signed);
        let (carriers, single): (Vec<_>, Vec<_>) =
            signed.into_iter().partition(|(arrival, _)| arrival.operation.signatures(&chain).len() > 1);
        let mut good = single;
        good.extend(self.only_good(carriers, Part::All));
        for (arrival, admission) in good {
            if let Body::AuditCommit(commit) = &arrival.operation.body {
                // Recorded even if the pool then refuses it: the commitment was signed all the same.
                self.handle.equivocation().commitment(&arrival.operation.signer, commit);
            }
            match self.stands(&arrival.operation).await {
                Ok(()) => self.place(arrival, admission, own),
                Err(refused) => self.try_again(arrival, refused),
            }
        }
    }

    /// Returns what is not a storage proof, and the first storage proof of each provider since the last block:
    /// before what it carries is verified, because a provider may sign any number of them for nothing.
    fn untried(&mut self, signed: Vec<Admitted>) -> Vec<Admitted> {
        let mut first = Vec::new();
        for (arrival, admission) in signed {
            let is_other = !matches!(arrival.operation.body, Body::StorageProof(_));
            if is_other || self.tried.insert(arrival.operation.signer) {
                first.push((arrival, admission));
            } else {
                self.try_again(arrival, Refused::Full);
            }
        }
        first
    }

    /// Lets a refused storage proof wait for the next block once: its provider may have read a block that is not
    /// applied here yet.
    fn try_again(&mut self, arrival: Arrival, refused: Refused) {
        if arrival.again {
            arrival.answer(Err(refused));
        } else {
            self.early.keep(Arrival { again: true, ..arrival });
        }
    }

    /// Runs a storage proof alone on the applied state (LE-3). One that no block would accept costs its author
    /// nothing, and would take the room of other free operations.
    ///
    /// # Errors
    /// The ledger's refusal.
    async fn stands(&self, operation: &Operation) -> Result<(), Refused> {
        if !matches!(operation.body, Body::StorageProof(_)) {
            return Ok(());
        }
        let next = self.next();
        let keys = ingress::guarded(operation, || Ok(ledger::touches_free(&next, operation)))?;
        let slots = self.handle.read_unproven(keys.clone()).await;
        let records: Records = keys.into_iter().zip(slots).collect();
        Ok(ingress::guarded(operation, || {
            ledger::check_free(&next, operation, &records)
                .map_err(|stopped| ingress::refusal(operation, stopped))
        })?)
    }

    /// Answers operations with a bad signature, and records the signer or authority at fault.
    fn only_good(&mut self, admitted: Vec<Admitted>, part: Part) -> Vec<Admitted> {
        let operations = admitted.iter().map(|(arrival, _)| &arrival.operation);
        let chain = self.handle.chain();
        let verdicts = ingress::verify_guarded(&mut self.context, &chain, operations, part);
        let mut good = Vec::new();
        for ((arrival, admission), is_good) in admitted.into_iter().zip(verdicts) {
            if is_good {
                good.push((arrival, admission));
                continue;
            }
            // A bad signature on a carried part is the signer's fault, once the signer's own is good.
            let signer = (part == Part::All).then_some(arrival.operation.signer);
            for liar in signer.into_iter().chain(arrival.from) {
                if self.liars.len() < LIARS_MAX {
                    self.liars.insert(liar);
                }
            }
            arrival.answer(Err(Code::BadSignature.into()));
        }
        good
    }

    /// Reads slots of the applied state.
    async fn look_up(&self, keys: BTreeSet<Key>) -> Slots {
        let keys: Vec<Key> = keys.into_iter().collect();
        let slots = self.handle.read_unproven(keys.clone()).await;
        keys.into_iter().zip(slots).filter_map(|(key, slot)| Some((key, slot?))).collect()
    }

    /// Puts one verified operation into the pool, and answers its caller.
    fn place(&mut self, arrival: Arrival, admission: Admission, own: &mut Vec<Operation>) {
        let mut pool = self.mempool.pool();
        let result = pool.insert(arrival.id, arrival.operation.clone(), admission);
        let is_behind_gap = pool.is_behind_gap(&arrival.id);
        drop(pool);
        if is_behind_gap {
            // The block with the nonce before it may have become final since its signer was looked up.
            self.mempool.dirty.lock().insert(arrival.operation.signer);
        }
        if result.is_ok() && arrival.done.is_some() {
            own.push(arrival.operation.clone());
        }
        if result.is_ok() {
            self.mempool.placed.send_replace(());
        }
        arrival.answer(result);
    }

    /// Reads again the accounts that final blocks have charged.
    async fn refresh(&self) {
        let dirty = std::mem::take(&mut *self.mempool.dirty.lock());
        let accounts = self.mempool.pool().waiting(dirty);
        if accounts.is_empty() {
            return;
        }
        let slots = self.look_up(accounts.iter().map(AccountState::key).collect()).await;
        let mut pool = self.mempool.pool();
        for account in accounts {
            if let Some(funds) = slots.get(&AccountState::key(&account)).and_then(funds) {
                pool.refresh(&account, funds);
            }
        }
    }

    /// Sends the operations of callers to every authority, in batches.
    fn send(&mut self, operations: Vec<Operation>) {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for operation in operations {
            let size = operation.encode_size();
            if bytes + size > GOSSIP_BYTES_MAX {
                self.flush(std::mem::take(&mut batch));
                bytes = 0;
            }
            bytes += size;
            batch.push(operation);
        }
        self.flush(batch);
    }

    fn flush(&mut self, batch: Vec<Operation>) {
        if batch.is_empty() {
            return;
        }
        let batch = Batch::new(batch).expect("a batch has fewer operations than a body");
        self.sender.send(Recipients::All, batch.encode(), false);
    }
}

/// Decodes a peer's batch; bytes that do not decode count as an empty batch.
fn unpacked(from: Account, bytes: &[u8]) -> Vec<Arrival> {
    let batch = (bytes.len() <= 2 * GOSSIP_BYTES_MAX).then(|| Batch::decode_cfg(Copying(bytes), &()));
    let operations = batch.and_then(Result::ok).map(Bounded::into_inner).unwrap_or_default();
    let arrival = |operation: Operation| Arrival {
        id: operation.id(),
        operation,
        done: None,
        from: Some(from),
        again: false,
    };
    operations.into_iter().map(arrival).collect()
}

/// True for a storage proof of a registered provider for a challenge that one of the next blocks may draw.
/// `next` is the block for which `slots` were read: a block that is applied meanwhile changes nothing here.
fn may_come_true(operation: &Operation, height: u64, next: &BlockContext, slots: &Slots) -> bool {
    let is_near = height >= next.height && height - next.height < EARLY_BLOCKS_MAX;
    is_near && slots.contains_key(&Audit::key(&operation.signer))
}
