//! Passes operations of clients on to the upstream nodes, and their answer back.
//!
//! Invariants
//! 1. At most [`RELAYED_MAX`] operations are on their way, [`RELAYED_PER_CALLER`] of them for one caller's key, and
//!    [`RELAYED_PER_ORIGIN`] for one address: a key costs nothing.
//! 2. An operation whose signatures do not verify costs this node a check. It takes no place, and costs the upstream
//!    nodes nothing.
//! 3. An operation is on its way once: nodes that have each other as upstream do not pass it in a circle.
//! 4. That an upstream node refuses an operation moves this node to no other one: anyone can send operations that are
//!    refused.

use crate::{
    engine::Runtime,
    ingress::{self, Part},
    mempool::state::Refused,
};
use commonware_macros::select;
use commonware_utils::sync::Mutex;
use futures::{FutureExt as _, future::BoxFuture};
use posync_client::{
    address::group,
    connection::{Connection, Error},
};
use posync_protocol::{Account, Code, Hash, Operation, limits::RECEIPT_WAIT_MS};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

/// Operations on their way. An upstream node answers 64 calls of this node at once, and some are for blocks.
pub(crate) const RELAYED_MAX: usize = 32;
/// Operations of one caller on their way.
pub const RELAYED_PER_CALLER: usize = 16;
/// Operations on their way that came from one address; the addresses of an IPv6 /64 count as one.
pub const RELAYED_PER_ORIGIN: usize = 24;
const _: () = assert!(RELAYED_PER_CALLER < RELAYED_PER_ORIGIN && RELAYED_PER_ORIGIN < RELAYED_MAX);
/// Time that the upstream nodes have to answer: less than a client waits.
const LIMIT: Duration = Duration::from_millis(RECEIPT_WAIT_MS);

/// Verifies the signatures of an operation of a chain.
type Verify = dyn Fn(&Operation, &Hash) -> bool + Send + Sync;
type Sleep = dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync;
/// The key and the address from which an operation came; no address without a listener.
type Caller = (Account, Option<IpAddr>);
type UnderWay = Arc<Mutex<BTreeMap<Hash, Caller>>>;

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
    fn new(under_way: &'a UnderWay, id: Hash, (key, origin): Caller) -> Option<Self> {
        let origin = origin.map(group);
        let mut all = under_way.lock();
        let of_key = all.values().filter(|(other, _)| *other == key).count();
        let of_origin = all.values().filter(|(_, other)| origin.is_some() && *other == origin).count();
        let is_full =
            all.len() >= RELAYED_MAX || of_key >= RELAYED_PER_CALLER || of_origin >= RELAYED_PER_ORIGIN;
        if is_full || all.contains_key(&id) {
            return None;
        }
        all.insert(id, (key, origin));
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
    pub async fn submit(&self, caller: Caller, bytes: &[u8]) -> Result<Hash, Refused> {
        let operation = ingress::decode(bytes)?;
        let id = operation.id();
        // One that is under way costs no second check of its signatures.
        if self.under_way.lock().contains_key(&id) {
            return Err(Refused::Full);
        }
        if !(self.verify)(&operation, &self.chain) {
            return Err(Code::BadSignature.into());
        }
        let _under = Under::new(&self.under_way, id, caller).ok_or(Refused::Full)?;
        let limit = (self.sleep)(LIMIT);
        let answer = select! {
            answer = self.connection.pass_on(&operation) => answer,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_many_keys_takes_no_other_address_its_places() {
        let under_way = UnderWay::default();
        let mut held = Vec::new();
        let mut id = 0_u8;
        let mut take = |key: u8, origin: Option<&str>| {
            id += 1;
            let caller = (Account([key; 32]), origin.map(|ip| ip.parse().expect("an address")));
            Under::new(&under_way, [id; 32], caller).map(|under| held.push(under)).is_some()
        };
        let keys = (0..40).filter(|key| take(*key, Some("2a01:4f8:1:2::1"))).count();
        assert_eq!(keys, RELAYED_PER_ORIGIN, "a key each");
        assert!(!take(90, Some("2a01:4f8:1:2:ffff::1")), "the same network");
        let of_other = (0..40).filter(|_| take(80, Some("192.0.2.7"))).count();
        assert_eq!(of_other, RELAYED_MAX - RELAYED_PER_ORIGIN);
    }
}
