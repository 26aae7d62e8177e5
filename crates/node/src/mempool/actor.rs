//! Moves operations: from callers and other authorities through the door into the pool, and out.
//!
//! One task owns the order of things. It gathers for [`GATHER_MS`] what callers and peers bring,
//! verifies all signatures of the batch at once, asks the applied state about signers, and only
//! then locks the pool, for microseconds. An answer to a challenge that this node has not applied
//! yet waits for its block.
//!
//! Bounds: [`INGRESS_QUEUED_MAX`] operations of callers in each lane, [`EARLY_MAX`] early statements, batches of
//! [`BATCH_MAX`]; what exceeds them is told `Full`.

use super::{
    admit::{self, Slots, funds},
    state::{Pool, Refused},
};
use crate::{
    handle::{Handle, Operations},
    ingress,
};
use commonware_codec::{Copying, Decode as _, Encode as _, EncodeSize as _};
use commonware_macros::select;
use commonware_p2p::{Receiver, Recipients, Sender};
use commonware_runtime::Clock;
use commonware_utils::channel::{mpsc, oneshot};
use posync_client::watch;
use posync_protocol::{
    Account, Body, Bounded, Code, Hash, Key, Operation, Record as _,
    ledger::{self, BlockContext},
    limits::{GATHER_MS, GOSSIP_BYTES_MAX, INGRESS_QUEUED_MAX, OPERATIONS_MAX},
    operation::Lane,
    record::{AccountState, System},
};
use rand_core::CryptoRng;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

/// Operations that one batch verifies.
const BATCH_MAX: usize = 512;
/// Statements that came before their block; the next ones are refused.
const EARLY_MAX: usize = 256;
/// Records that one batch of upkeep reads: of 31 that name as much as they may. More is told `Full`.
const UPKEEP_KEYS_MAX: usize = 8192;
/// How far ahead of the applied state a challenge may be.
const EARLY_BLOCKS_MAX: u64 = 64;

type Batch = Bounded<Operation, OPERATIONS_MAX>;

/// What a caller is told.
pub type Submitted = Result<Hash, Refused>;

/// An operation on its way in. Peers wait for no answer.
struct Arrival {
    id: Hash,
    operation: Operation,
    done: Option<oneshot::Sender<Submitted>>,
}

impl Arrival {
    fn answer(self, answer: Result<(), Refused>) {
        if let Some(done) = self.done {
            // A caller that has gone does not need the answer.
            let _ = done.send(answer.map(|()| self.id));
        }
    }
}

/// A handle on the mempool: what the application draws from and what callers submit to.
#[derive(Clone)]
pub struct Mempool {
    pool: Arc<Mutex<Pool>>,
    free: mpsc::Sender<Arrival>,
    paid: mpsc::Sender<Arrival>,
    dirty: Arc<Mutex<BTreeSet<Account>>>,
    moved: watch::Sender<u64>,
}

/// The other end, to be given to [`Mempool::run`].
pub struct Inbox {
    free: mpsc::Receiver<Arrival>,
    paid: mpsc::Receiver<Arrival>,
}

impl Mempool {
    /// An empty mempool.
    pub fn new() -> (Self, Inbox) {
        let (free, free_inbox) = mpsc::channel(INGRESS_QUEUED_MAX);
        let (paid, paid_inbox) = mpsc::channel(INGRESS_QUEUED_MAX);
        let (pool, dirty, moved) = (Arc::default(), Arc::default(), watch::Sender::new(0));
        let mempool = Self { pool, free, paid, dirty, moved };
        (mempool, Inbox { free: free_inbox, paid: paid_inbox })
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().expect("the pool does not panic")
    }

    /// Takes an encoded operation and waits until it is checked.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn submit(&self, bytes: Vec<u8>) -> Submitted {
        let operation = ingress::decode(&bytes)?;
        let (done, answer) = oneshot::channel();
        // Apart from the first step on: a queue full of payments holds up no answer to a challenge.
        let queue = if operation.body.has_nonce() { &self.paid } else { &self.free };
        let arrival = Arrival { id: operation.id(), operation, done: Some(done) };
        queue.try_send(arrival).map_err(|_| Refused::Full)?;
        answer.await.unwrap_or(Err(Refused::Full))
    }

    /// Whether an account has paid operations that wait.
    pub fn has_waiting(&self, account: &Account) -> bool {
        !self.pool().waiting([*account]).is_empty()
    }

    /// Operations that wait.
    pub fn waiting(&self) -> usize {
        self.pool().len()
    }

    /// Runs until the node stops.
    pub async fn run<E, S, R>(self, context: E, handle: Handle, inbox: Inbox, channel: (S, R))
    where
        E: Clock + CryptoRng,
        S: Sender,
        R: Receiver,
    {
        let moved = self.moved.subscribe();
        let heights = handle.heights();
        let actor = Actor { mempool: self, context, handle, sender: channel.0, early: Vec::new() };
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
        self.dirty.lock().expect("the set does not panic").extend(waiting);
        self.moved.send_replace(height);
    }

    fn verified(&self, id: &Hash) -> bool {
        self.pool().contains(id)
    }

    fn refused(&self, ids: &[Hash]) {
        self.pool().refused(ids);
    }
}

struct Actor<E, S> {
    mempool: Mempool,
    context: E,
    handle: Handle,
    sender: S,
    early: Vec<Arrival>,
}

impl<E: Clock + CryptoRng, S: Sender> Actor<E, S> {
    async fn run<R: Receiver>(
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
                    Ok(()) => arrivals.append(&mut self.early),
                    Err(_) => return,
                },
                message = gossip.recv() => match message {
                    Ok((_, bytes)) => arrivals.extend(unpacked(bytes.as_ref())),
                    Err(_) => return,
                },
                arrival = inbox.free.recv() => match arrival {
                    Some(arrival) => arrivals.push(arrival),
                    None => return,
                },
                arrival = inbox.paid.recv() => match arrival {
                    Some(arrival) => arrivals.push(arrival),
                    None => return,
                },
            }
            if arrivals.iter().any(|arrival| arrival.done.is_some()) {
                self.context.sleep(Duration::from_millis(GATHER_MS)).await;
                while arrivals.len() < BATCH_MAX
                    && let Ok(arrival) = inbox.free.try_recv().or_else(|_| inbox.paid.try_recv())
                {
                    arrivals.push(arrival);
                }
            }
            if !arrivals.is_empty() {
                self.admit(arrivals).await;
            }
        }
    }

    /// What the next block knows, as far as the door needs it.
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

    async fn admit(&mut self, arrivals: Vec<Arrival>) {
        let next = self.next();
        let slots = self.look_up(BTreeSet::from([System::key()])).await;
        let system = slots.get(&System::key()).and_then(|slot| System::from_slot(slot).ok());
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
        let operations = open.iter().map(|arrival| &arrival.operation);
        let good = ingress::verify_guarded(&mut self.context, &next.chain, operations);
        let mut verified = Vec::new();
        for (arrival, good) in open.into_iter().zip(good) {
            if good { verified.push(arrival) } else { arrival.answer(Err(Code::BadSignature.into())) }
        }
        for Arrival { operation, .. } in &verified {
            // Also one that may not wait here, beside another with its nonce, was signed.
            if let Body::AuditCommit(commit) = &operation.body {
                self.handle.witness().commitment(&operation.signer, commit);
            }
        }
        let (mut keys, mut left) = (BTreeSet::new(), UPKEEP_KEYS_MAX);
        let mut named = Vec::new();
        // Upkeep that the provider itself sends is looked at first.
        verified.sort_by_key(|arrival| !is_own_upkeep(&arrival.operation));
        for arrival in verified {
            let operation = &arrival.operation;
            match ingress::guarded(operation, || Ok(admit::keys(operation, &next.parameters))) {
                Ok(names) if operation.body.lane() == Lane::Upkeep && names.len() > left => {
                    arrival.answer(Err(Refused::Full));
                }
                Ok(names) => {
                    left -= if operation.body.lane() == Lane::Upkeep { names.len() } else { 0 };
                    keys.extend(names);
                    named.push(arrival);
                }
                Err(code) => arrival.answer(Err(code.into())),
            }
        }
        let (verified, slots) = (named, self.look_up(keys).await);
        let mut own = Vec::new();
        for arrival in verified {
            self.place(arrival, &next, &slots, &mut own);
        }
        self.send(own);
    }

    /// Reads slots of the applied state.
    async fn look_up(&self, keys: BTreeSet<Key>) -> Slots {
        let keys: Vec<Key> = keys.into_iter().collect();
        let slots = self.handle.read_unproven(keys.clone()).await;
        keys.into_iter().zip(slots).filter_map(|(key, slot)| Some((key, slot?))).collect()
    }

    /// Puts one verified operation into the pool, or says why not.
    fn place(&mut self, arrival: Arrival, next: &BlockContext, slots: &Slots, own: &mut Vec<Operation>) {
        let judged = ingress::guarded(&arrival.operation, || admit::admit(&arrival.operation, next, slots));
        let admission = match (judged, &arrival.operation.body) {
            (Ok(admission), _) => admission,
            (Err(_), Body::Statement(statement)) => {
                let height = statement.height;
                return self.wait_or_refuse(arrival, height);
            }
            (Err(code), _) => return arrival.answer(Err(code.into())),
        };
        let mut pool = self.mempool.pool();
        let result = pool.insert(arrival.id, arrival.operation.clone(), admission);
        let is_behind_gap = pool.is_behind_gap(&arrival.id);
        drop(pool);
        if is_behind_gap {
            // The block with the nonce before it may have become final since its signer was looked up.
            self.mempool.dirty.lock().expect("the set does not panic").insert(arrival.operation.signer);
        }
        if result.is_ok() && arrival.done.is_some() {
            own.push(arrival.operation.clone());
        }
        arrival.answer(result);
    }

    /// A challenge of a block that is not applied here yet may come true; any other is refused.
    fn wait_or_refuse(&mut self, arrival: Arrival, height: u64) {
        let applied = self.handle.applied();
        if height > applied && height - applied <= EARLY_BLOCKS_MAX && self.early.len() < EARLY_MAX {
            self.early.push(arrival);
        } else {
            arrival.answer(Err(Code::NotDrawn.into()));
        }
    }

    /// Looks again at the accounts that final blocks have charged.
    async fn refresh(&self) {
        let dirty = std::mem::take(&mut *self.mempool.dirty.lock().expect("the set does not panic"));
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

    /// Sends what callers brought to every authority, in batches.
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

fn is_own_upkeep(operation: &Operation) -> bool {
    matches!(&operation.body, Body::Settle(settle) if settle.provider == operation.signer)
}

/// A peer's batch; bytes that do not decode are no batch.
fn unpacked(bytes: &[u8]) -> Vec<Arrival> {
    let batch = (bytes.len() <= 2 * GOSSIP_BYTES_MAX).then(|| Batch::decode_cfg(Copying(bytes), &()));
    let operations = batch.and_then(Result::ok).map(Bounded::into_inner).unwrap_or_default();
    let arrival = |operation: Operation| Arrival { id: operation.id(), operation, done: None };
    operations.into_iter().map(arrival).collect()
}
