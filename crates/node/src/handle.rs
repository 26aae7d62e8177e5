//! A node as its services see it: blocks, certificates, proven state, and the two links to the mempool.
//!
//! ```text
//! services ──► Handle ──► marshal   (headers, bodies, finalizations)
//!                    ├──► outcomes  (receipts, events)
//!                    └──► state     (records, each with a proof against a header)
//!
//! application ──► Operations (candidates for a block, notice of final operations)
//! ```
//!
//! A handle is cheap to clone and may be used from any task. It cannot change the ledger.
//!
//! Invariants:
//! 1. A proven read names the header whose state root its proofs verify under.
//! 2. A follower gets every block from its start on, in order, each once. A slow follower costs nothing.

use crate::{
    engine::{Block, Database, Digest, Finalization, Marshal, NetworkKey, Runtime, Scheme, Taking},
    equivocation::EquivocationWatcher,
    genesis::Genesis,
    outcomes::{BlockOutcome, Outcomes},
    steady::MachineClock,
};
use bytes::Bytes;
use commonware_codec::{Copying, DecodeExt as _, Encode as _};
use commonware_consensus::{Reporter as _, simplex::types::Activity, types::Height};
use commonware_cryptography::Digested;
use commonware_glue::stateful::db::Shared;
use commonware_storage::{
    mmr::Family,
    qmdb::sync::source::{Request, Source as _},
};
use commonware_utils::sync::{AsyncMutex, AsyncMutexGuard};
use commonware_utils::sync::{Mutex, MutexGuard};
use futures::{
    FutureExt as _,
    future::{self, BoxFuture},
};
use posync_client::{light::Light, watch};
use posync_protocol::{
    Account, Bounded, Hash, Key, Operation, Slot,
    block::{BlockBody, Header},
    ledger::BlockContext,
    limits::READ_KEYS_MAX,
    wire::node::{Certified, STATE_BYTES_MAX, STATE_OPERATIONS_MAX, Unavailable},
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};
use thiserror::Error;

/// Most headers from a block to the next certificate that a proof may carry.
pub(crate) const HEADERS_TO_CERTIFICATE_MAX: u64 = 64;
/// Headers and certificates that stay in memory: about 1 MiB.
const HEADERS_MAX: usize = 2048;
/// Blocks around the applied height among which the header of the current state is searched.
const APPLIED_WINDOW: u64 = 64;

/// The source of a proposer's operations, which is also notified of final ones.
///
/// Consensus calls it, so every method must return at once.
pub trait Operations: Send + Sync + 'static {
    /// Candidates for the next block, whose paid operations pay `base_fee`, best first. The proposer selects
    /// from them the operations that fit a body.
    fn candidates(&self, context: &BlockContext, base_fee: u64) -> Vec<Operation>;

    /// Notifies that these operations of the block at `height` are final.
    fn finalized(&self, height: u64, operations: &[Operation]);

    /// True if the signatures of the operation with that id were verified here before.
    fn verified(&self, _id: &Hash) -> bool {
        false
    }

    /// Notifies that an own proposal had to leave these operations out.
    fn refused(&self, _ids: &[Hash]) {}

    /// Waits until an operation waits that stands in no block that was seen here.
    fn waiting(&self) -> BoxFuture<'_, ()> {
        future::ready(()).boxed()
    }
}

/// Why a read cannot be answered.
#[derive(Debug, Error)]
pub enum ReadError {
    /// More keys than one read may name.
    #[error("a read names at most {READ_KEYS_MAX} records; split it")]
    TooMany,
    /// The header of the current state is not available yet.
    #[error("the state has moved while it was read; ask again")]
    Moved,
    /// This node no longer keeps the block.
    #[error("the block at {0} is not kept here any more; ask an archive or start later")]
    Pruned(u64),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

/// A record, and the proof of its presence or absence in the state.
#[derive(Clone, Debug)]
pub struct ProvenRecord {
    /// Bytes of the record; `None` if it does not exist.
    pub slot: Option<Slot>,
    /// Encoded key-value proof if the record exists, otherwise an encoded exclusion proof.
    pub proof: Bytes,
}

/// Records of one state, in the requested order.
#[derive(Clone, Debug)]
pub struct ProvenRead {
    /// Header whose `state_root` the proofs verify under.
    pub header: Header,
    /// Records with their proofs, one for each requested key.
    pub records: Vec<ProvenRecord>,
}

/// A finalized block and its outcome.
#[derive(Clone, Debug)]
pub struct FinalizedBlock {
    /// Header of the block, whose certificate is separate.
    pub header: Header,
    /// Operations, draws and reshare payload.
    pub body: BlockBody,
    /// Receipts and events of the block's execution.
    pub outcome: BlockOutcome,
}

/// The runtime-dependent half of a handle.
trait State: Send + Sync {
    fn prove(&self, keys: Vec<Key>) -> BoxFuture<'_, (Digest, Vec<ProvenRecord>)>;
    fn get(&self, keys: Vec<Key>) -> BoxFuture<'_, Vec<Option<Slot>>>;
    fn outcome(&self, height: u64) -> BoxFuture<'_, Option<BlockOutcome>>;
    fn part(&self, request: Request<Family>) -> BoxFuture<'_, Option<Bytes>>;
}

/// Access to the node's blocks and state, for its services.
#[derive(Clone)]
pub struct Handle {
    genesis: Arc<Genesis>,
    chain: Hash,
    marshal: Marshal,
    state: Arc<dyn State>,
    applied: watch::Receiver<u64>,
    equivocation: EquivocationWatcher,
    headers: Arc<Headers>,
    taking: Taking,
    clock: watch::Sender<MachineClock>,
}

/// A cache of recent headers and certificates, so that followers and readers do not load the block store.
/// Final headers never change; the oldest entry of the cache is dropped first.
#[derive(Default)]
struct Headers {
    known: Mutex<Known>,
    /// Held by the one reader that queries the store for the newest blocks; the others then find the answer
    /// here.
    turn: AsyncMutex<()>,
}

#[derive(Default)]
struct Known {
    headers: BTreeMap<u64, Header>,
    certificates: BTreeMap<u64, Finalization>,
    order: VecDeque<u64>,
}

impl Headers {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }

    fn header(&self, height: u64) -> Option<Header> {
        self.known().headers.get(&height).cloned()
    }

    fn certificate(&self, height: u64) -> Option<Finalization> {
        self.known().certificates.get(&height).cloned()
    }

    fn add(&self, height: u64, header: Option<&Header>, certificate: Option<&Finalization>) {
        let mut known = self.known();
        if !known.headers.contains_key(&height) && !known.certificates.contains_key(&height) {
            known.order.push_back(height);
        }
        if let Some(header) = header {
            known.headers.insert(height, header.clone());
        }
        if let Some(certificate) = certificate {
            known.certificates.insert(height, certificate.clone());
        }
        while known.order.len() > HEADERS_MAX
            && let Some(oldest) = known.order.pop_front()
        {
            known.headers.remove(&oldest);
            known.certificates.remove(&oldest);
        }
    }
}

impl Handle {
    pub(crate) fn new<E: Runtime>(
        genesis: Arc<Genesis>,
        marshal: Marshal,
        database: Shared<Database<E>>,
        outcomes: Outcomes<E>,
        applied: watch::Receiver<u64>,
        (equivocation, taking): (EquivocationWatcher, Taking),
    ) -> Self {
        let chain = genesis.chain();
        Self {
            genesis,
            chain,
            marshal,
            state: Arc::new(Store { database, outcomes }),
            applied,
            equivocation,
            headers: Arc::default(),
            taking,
            clock: watch::Sender::new(MachineClock::default()),
        }
    }

    /// The accounts that this node found to have signed twice, as far as its memory reaches.
    pub fn accused(&self) -> Vec<Account> {
        self.equivocation.accused()
    }

    /// The node's record of headers and commitments that other authorities signed.
    pub(crate) const fn equivocation(&self) -> &EquivocationWatcher {
        &self.equivocation
    }

    /// The node's switch for its part in consensus. With a full volume it is off, and the node still serves.
    pub const fn taking(&self) -> &Taking {
        &self.taking
    }

    /// The present errors of the machine's clock, if any.
    pub fn clock(&self) -> MachineClock {
        *self.clock.borrow()
    }

    pub(crate) fn set_clock(&self, clock: MachineClock) {
        self.clock.send_replace(clock);
    }

    /// The genesis of the network.
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// The checks of a client that trusts the chain's name and the network key alone.
    pub fn light(&self) -> Light {
        Light::new(self.chain, self.network_key())
    }

    /// The name of the chain.
    pub(crate) const fn chain(&self) -> Hash {
        self.chain
    }

    /// The key under which every certificate verifies.
    pub(crate) fn network_key(&self) -> NetworkKey {
        self.genesis.network_key()
    }

    /// A scheme that verifies certificates of every term with the network key.
    pub fn verifier(&self) -> Scheme {
        Scheme::certificate_verifier(&self.genesis.namespace(), self.network_key())
    }

    /// Height of the last block whose state can be read here.
    pub fn applied(&self) -> u64 {
        *self.applied.borrow()
    }

    /// A receiver of the height that [`Self::applied`] returns.
    pub fn heights(&self) -> watch::Receiver<u64> {
        self.applied.clone()
    }

    /// The finalized header at `height`, if it is kept.
    pub async fn header(&self, height: u64) -> Option<Header> {
        if let Some(header) = self.headers.header(height) {
            return Some(header);
        }
        let _turn = self.turn(height).await;
        match self.headers.header(height) {
            Some(header) => Some(header),
            None => Some(self.block(height).await?.inner().header().clone()),
        }
    }

    /// The finalized body at `height`, if it is kept.
    pub async fn body(&self, height: u64) -> Option<BlockBody> {
        Some(self.block(height).await?.inner().body().clone())
    }

    /// Receipts and events of the finalized block at `height`, if they are kept.
    pub async fn outcome(&self, height: u64) -> Option<BlockOutcome> {
        self.state.outcome(height).await
    }

    /// The certificate of the block at `height`; not every final block has one of its own.
    pub async fn finalization(&self, height: u64) -> Option<Finalization> {
        if let Some(certificate) = self.headers.certificate(height) {
            return Some(certificate);
        }
        let _turn = self.turn(height).await;
        if let Some(certificate) = self.headers.certificate(height) {
            return Some(certificate);
        }
        let certificate = self.marshal.get_finalization(Height::new(height)).await?;
        self.headers.add(height, None, Some(&certificate));
        Some(certificate)
    }

    /// Queues readers of the newest blocks, who arrive all at once with each block.
    async fn turn(&self, height: u64) -> Option<AsyncMutexGuard<'_, ()>> {
        if height.saturating_add(APPLIED_WINDOW) > self.applied() {
            Some(self.headers.turn.lock().await)
        } else {
            None
        }
    }

    /// The headers from `height` to the next block with a certificate, and that certificate.
    pub async fn headers_to_certificate(&self, height: u64) -> Option<(Vec<Header>, Finalization)> {
        let mut headers = Vec::new();
        for height in height..height.saturating_add(HEADERS_TO_CERTIFICATE_MAX) {
            headers.push(self.header(height).await?);
            if let Some(finalization) = self.finalization(height).await {
                return Some((headers, finalization));
            }
        }
        None
    }

    /// The headers from `height` to the next certificate, as this node's service shows them.
    pub async fn certified(&self, height: u64) -> Option<Certified> {
        let (headers, finalization) = self.headers_to_certificate(height).await?;
        Some(crate::serve::certified(headers, &finalization))
    }

    /// Reads records of the applied state, each with a proof of its presence or absence.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read(&self, keys: Vec<Key>) -> Result<ProvenRead, ReadError> {
        if keys.len() > READ_KEYS_MAX {
            return Err(ReadError::TooMany);
        }
        let (root, records) = self.state.prove(keys).await;
        let header = self.header_of(&root).await.ok_or(ReadError::Moved)?;
        Ok(ProvenRead { header, records })
    }

    /// Reads records of the applied state without proofs.
    pub async fn read_unproven(&self, keys: Vec<Key>) -> Vec<Option<Slot>> {
        self.state.get(keys).await
    }

    /// A part of a recent state with its proof, for a node that has none: the answer to an encoded request of the
    /// store's synchronization.
    ///
    /// # Errors
    /// Why there is none: the state is not kept any more, or this node does not have it yet.
    pub(crate) async fn state_part(
        &self,
        request: &[u8],
    ) -> Result<Bounded<u8, STATE_BYTES_MAX>, Unavailable> {
        let request = Request::<Family>::decode(Copying(request)).map_err(|_| Unavailable::Pruned)?;
        if request.max_ops().get() > STATE_OPERATIONS_MAX {
            return Err(Unavailable::Pruned);
        }
        let newest = self.header(self.applied()).await.map_or(0, |header| header.range_end);
        let missing = if *request.size() > newest { Unavailable::NotYet } else { Unavailable::Pruned };
        let part = self.state.part(request).await.ok_or(missing)?;
        Ok(Bounded::new(part.to_vec()).expect("256 operations and their proof fit"))
    }

    /// Follows all finalized blocks from `height` on, in order, without end.
    pub fn subscribe_finalized(&self, height: u64) -> Follow {
        Follow { handle: self.clone(), next: height.max(1) }
    }

    /// Passes a verified certificate on to the block store, which fetches the blocks up to it.
    pub(crate) fn learn(&self, certificate: Finalization) {
        // The mailbox is closed only while the node stops.
        let _ = self.marshal.clone().report(Activity::Finalization(certificate));
    }

    async fn block(&self, height: u64) -> Option<Digested<Block>> {
        if height == 0 {
            return None;
        }
        let block = self.marshal.get_block(Height::new(height)).await?;
        self.headers.add(height, Some(block.inner().header()), None);
        Some(block)
    }

    /// Finds the header that commits to `root`: the applied block's, or one close to it.
    async fn header_of(&self, root: &Digest) -> Option<Header> {
        let applied = self.applied();
        let above = applied..=applied.saturating_add(2);
        let below = (applied.saturating_sub(APPLIED_WINDOW)..applied).rev();
        for height in above.chain(below) {
            if let Some(header) = self.header(height).await
                && header.state_root == root.as_ref()
            {
                return Some(header);
            }
        }
        None
    }
}

/// An endless stream of finalized blocks, in order.
pub struct Follow {
    handle: Handle,
    next: u64,
}

impl Follow {
    /// Waits for the next block.
    ///
    /// # Errors
    /// [`ReadError::Stopping`] when the node stops, [`ReadError::Pruned`] if the block is no longer kept.
    pub async fn next(&mut self) -> Result<FinalizedBlock, ReadError> {
        let next = self.next;
        let applied = self.handle.applied.wait_for(|applied| *applied >= next).await;
        applied.map_err(|_| ReadError::Stopping)?;
        let block = self.handle.block(next).await.ok_or(ReadError::Pruned(next))?;
        let outcome = self.handle.outcome(next).await.ok_or(ReadError::Pruned(next))?;
        let (header, body) = (block.inner().header().clone(), block.inner().body().clone());
        self.next += 1;
        Ok(FinalizedBlock { header, body, outcome })
    }
}

struct Store<E: Runtime> {
    database: Shared<Database<E>>,
    outcomes: Outcomes<E>,
}

const DISK: &str = "a node that cannot read its disk must stop";

impl<E: Runtime> State for Store<E> {
    fn prove(&self, keys: Vec<Key>) -> BoxFuture<'_, (Digest, Vec<ProvenRecord>)> {
        async move {
            let database = self.database.read().await;
            let mut records = Vec::with_capacity(keys.len());
            for key in keys {
                let key: Digest = key.0.into();
                let slot = database.get(&key).await.expect(DISK);
                let proof = match slot {
                    Some(_) => database.key_value_proof(key).await.expect(DISK).encode(),
                    None => database.exclusion_proof(&key).await.expect(DISK).encode(),
                };
                records.push(ProvenRecord { slot, proof });
            }
            (database.root(), records)
        }
        .boxed()
    }

    fn get(&self, keys: Vec<Key>) -> BoxFuture<'_, Vec<Option<Slot>>> {
        async move {
            let digests: Vec<Digest> = keys.iter().map(|key| key.0.into()).collect();
            let database = self.database.read().await;
            database.get_many(&digests.iter().collect::<Vec<_>>()).await.expect(DISK)
        }
        .boxed()
    }

    fn outcome(&self, height: u64) -> BoxFuture<'_, Option<BlockOutcome>> {
        self.outcomes.get(height).boxed()
    }

    fn part(&self, request: Request<Family>) -> BoxFuture<'_, Option<Bytes>> {
        async move {
            let served = self.database.serve(request).await;
            served.ok().map(|(part, _)| part.encode())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::genesis::deal;
    use commonware_runtime::deterministic;
    use commonware_utils::TestRng;
    use posync_protocol::{Amount, limits::Parameters};

    /// A caller that asks for all past blocks cannot make a node keep them in memory.
    #[test]
    fn what_is_remembered_of_blocks_is_bounded() {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 9_000));
        let (genesis, _) =
            deal(&[address], Parameters::LOCAL, Amount::sync(10_000), Vec::new(), TestRng::new(1))
                .expect("valid");
        let header = genesis.block::<deterministic::Context>().header().clone();
        let headers = Headers::default();
        for height in 1..=3 * HEADERS_MAX as u64 {
            headers.add(height, Some(&header), None);
            headers.add(height, Some(&header), None);
        }
        assert_eq!(headers.known().headers.len(), HEADERS_MAX);
        assert_eq!(headers.known().order.len(), HEADERS_MAX);
        assert!(headers.header(3 * HEADERS_MAX as u64).is_some());
        assert!(headers.header(2 * HEADERS_MAX as u64).is_none(), "the first read is forgotten first");
    }
}
