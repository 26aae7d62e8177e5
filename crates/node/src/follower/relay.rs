//! Passes operations of clients on to the upstream nodes, and their answer back.
//!
//! Invariants
//! 1. At most [`RELAYED_MAX`] operations are on their way, [`RELAYED_PER_CALLER`] of them for one caller.
//! 2. An operation whose signatures do not verify costs this node a check, and the upstream nodes nothing.
//! 3. An operation is on its way once: nodes that have each other as upstream do not pass it in a circle.

use crate::{
    engine::Runtime,
    ingress::{self, Part},
    mempool::state::Refused,
};
use commonware_macros::select;
use commonware_utils::sync::Mutex;
use futures::{FutureExt as _, future::BoxFuture};
use posync_client::connection::{Connection, Error};
use posync_protocol::{Account, Code, Hash, Operation, limits::RECEIPT_WAIT_MS};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Operations on their way. An upstream node answers 64 calls of this node at once, and some are for blocks.
pub const RELAYED_MAX: usize = 32;
/// Operations of one caller on their way.
pub const RELAYED_PER_CALLER: usize = 16;
/// Time that the upstream nodes have to answer: less than a client waits.
const LIMIT: Duration = Duration::from_millis(RECEIPT_WAIT_MS);

/// Verifies the signatures of an operation of a chain.
type Verify = dyn Fn(&Operation, &Hash) -> bool + Send + Sync;
type Sleep = dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync;
type UnderWay = Arc<Mutex<BTreeMap<Hash, Account>>>;

/// Passes operations on; clones share its bounds.
#[derive(Clone)]
pub struct Relay {
    chain: Hash,
    connection: Connection,
    under_way: UnderWay,
    verify: Arc<Verify>,
    sleep: Arc<Sleep>,
}

/// Counts an operation while it is on its way.
struct Under<'a> {
    under_way: &'a UnderWay,
    id: Hash,
}

impl<'a> Under<'a> {
    fn new(under_way: &'a UnderWay, id: Hash, caller: Account) -> Option<Self> {
        let mut all = under_way.lock();
        let own = all.values().filter(|other| **other == caller).count();
        if all.len() >= RELAYED_MAX || own >= RELAYED_PER_CALLER || all.contains_key(&id) {
            return None;
        }
        all.insert(id, caller);
        drop(all);
        Some(Self { under_way, id })
    }
}

impl Drop for Under<'_> {
    fn drop(&mut self) {
        self.under_way.lock().remove(&self.id);
    }
}

impl Relay {
    /// Passes operations of the network `chain` on over `connection`.
    pub fn new<E: Runtime>(context: E, chain: Hash, connection: Connection) -> Self {
        let random = Mutex::new(context.child("random"));
        let verify = move |operation: &_, chain: &_| {
            ingress::verify_guarded(&mut *random.lock(), chain, [operation], Part::All) == [true]
        };
        let sleep = move |time| context.sleep(time).boxed();
        Self {
            chain,
            connection,
            under_way: Arc::default(),
            verify: Arc::new(verify),
            sleep: Arc::new(sleep),
        }
    }

    /// Passes an encoded operation of `caller` on, and returns the upstream nodes' answer.
    ///
    /// # Errors
    /// [`Refused`], with `Full` when a bound is reached or no upstream node answers: the caller tries again.
    pub async fn submit(&self, caller: Account, bytes: &[u8]) -> Result<Hash, Refused> {
        let operation = ingress::decode(bytes)?;
        let id = operation.id();
        let _under = Under::new(&self.under_way, id, caller).ok_or(Refused::Full)?;
        if !(self.verify)(&operation, &self.chain) {
            return Err(Code::BadSignature.into());
        }
        let limit = (self.sleep)(LIMIT);
        let answer = select! {
            answer = self.connection.submit(&operation) => answer,
            () = limit => return Err(Refused::Full),
        };
        match answer {
            Ok(id) => Ok(id),
            Err(Error::Refused(code)) => Err(code.into()),
            Err(error) => {
                tracing::debug!(%error, "an operation could not be passed on; its sender tries again");
                Err(Refused::Full)
            }
        }
    }
}
