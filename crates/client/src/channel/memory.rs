//! The memory that the messages of one listener hold, allotted before a byte of a message is read.
//!
//! A message takes its memory when its length is known and returns it when it is dropped. The shares
//! follow the free memory: a key may hold as much as is free beside it, an origin twice as much. So one
//! key gets at most half of all, n equally greedy keys one part in n + 1 each, and a newcomer finds memory
//! as long as there are fewer greedy keys than messages that fit.
//! Source: dynamic thresholds of shared-memory switches, Choudhury and Hahne,
//! IEEE/ACM Transactions on Networking 6(2), 1998.
//!
//! Invariants
//! 1. The memory held never exceeds the total; all of it is returned, also by a connection that is cut.
//! 2. Small messages count: each is charged [`OVERHEAD`] on top of its bytes.
//! 3. A frame that ends a call or grants messages is read even when there is no memory.

use super::places::{Calls, Origin};
use commonware_runtime::{Clock, Error as RuntimeError, IoBufs, Stream};
use commonware_utils::sync::{Mutex, MutexGuard};
use futures::{FutureExt as _, future::BoxFuture};
use posync_protocol::{Account, limits::CALL_MEMORY_MS_MAX};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::sync::Notify;

/// Bytes charged for a message on top of its own: its entries in tables and queues, its decoded form.
pub(crate) const OVERHEAD: usize = 512;
/// Reads up to this length take no memory here: headers of records, and frames without a message, which
/// return memory and must not wait for it. If one does hold a message, memory is taken after parsing.
const FREE: usize = 64;

/// The key and the origin that a message's memory is charged to.
#[derive(Clone, Copy)]
pub(crate) struct Holder {
    /// The key that the connection proved.
    pub(crate) key: Account,
    /// Network address that the connection comes from.
    pub(crate) origin: Origin,
}

struct Table {
    free: usize,
    keys: BTreeMap<Account, usize>,
    origins: BTreeMap<Origin, usize>,
}

/// The memory of one listener for one direction.
pub(crate) struct Budget {
    table: Mutex<Table>,
    freed: Notify,
}

/// Memory that a message holds; dropping it returns the memory.
pub(crate) struct Held {
    budget: Arc<Budget>,
    holder: Holder,
    bytes: usize,
}

impl Budget {
    /// Creates a budget of `bytes` for all connections together.
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        let table = Table { free: bytes, keys: BTreeMap::new(), origins: BTreeMap::new() };
        Arc::new(Self { table: Mutex::new(table), freed: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }

    /// Takes memory for a message if this holder's share allows it now.
    pub(crate) fn try_take(self: &Arc<Self>, holder: Holder, message: usize) -> Option<Held> {
        let bytes = message + OVERHEAD;
        let mut table = self.lock();
        let free = table.free;
        let key = table.keys.get(&holder.key).copied().unwrap_or(0) + bytes;
        let origin = table.origins.get(&holder.origin).copied().unwrap_or(0) + bytes;
        if key > free || origin > free.saturating_mul(2) {
            return None;
        }
        table.free -= bytes;
        table.keys.insert(holder.key, key);
        table.origins.insert(holder.origin, origin);
        Some(Held { budget: self.clone(), holder, bytes })
    }

    /// Waits for memory; the caller sets a time limit.
    pub(crate) async fn take(self: &Arc<Self>, holder: Holder, message: usize) -> Held {
        loop {
            let freed = self.freed.notified();
            let mut freed = std::pin::pin!(freed);
            // Registered first, so that memory returned between the check and the wait wakes it.
            freed.as_mut().enable();
            if let Some(held) = self.try_take(holder, message) {
                return held;
            }
            freed.await;
        }
    }

    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.lock().free
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut guard = self.budget.lock();
        let table = &mut *guard;
        table.free += self.bytes;
        give_back(&mut table.keys, self.holder.key, self.bytes);
        give_back(&mut table.origins, self.holder.origin, self.bytes);
        drop(guard);
        self.budget.freed.notify_waiters();
    }
}

fn give_back<K: Ord>(held: &mut BTreeMap<K, usize>, who: K, bytes: usize) {
    if let Some(sum) = held.get_mut(&who) {
        *sum -= bytes;
        if *sum == 0 {
            held.remove(&who);
        }
    }
}

/// A listener's record of a connection: whose memory it uses and how many calls are open.
pub(crate) struct Gate {
    pub(crate) reads: Arc<Budget>,
    pub(crate) writes: Arc<Budget>,
    origin: Origin,
    /// Address from which the peer connected.
    pub(crate) address: SocketAddr,
    proved: OnceLock<(Account, Calls)>,
    /// Memory of the message that was read last.
    last: Mutex<Option<Held>>,
    sleep: Box<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>,
}

impl Gate {
    pub(super) fn new<E: Clock>(
        context: E,
        address: SocketAddr,
        reads: Arc<Budget>,
        writes: Arc<Budget>,
    ) -> Self {
        let origin = Origin::of(address.ip());
        let context = Arc::new(context);
        let sleep = Box::new(move |time| {
            let context = context.clone();
            async move { context.sleep(time).await }.boxed()
        });
        let (proved, last) = (OnceLock::new(), Mutex::new(None));
        Self { reads, writes, origin, address, proved, last, sleep }
    }

    /// Counts messages from now on, and charges them to `key`.
    pub(super) fn open(&self, key: Account, calls: Calls) {
        let _ = self.proved.set((key, calls));
    }

    /// Key and origin that this connection's memory is charged to; `None` before the key is proved.
    pub(crate) fn holder(&self) -> Option<Holder> {
        self.proved.get().map(|(key, _)| Holder { key: *key, origin: self.origin })
    }

    /// Number of the connection's open calls; `None` before the key is proved.
    pub(crate) fn calls(&self) -> Option<&Calls> {
        self.proved.get().map(|(_, calls)| calls)
    }

    /// Takes the memory of the message that was read last.
    pub(super) fn taken(&self) -> Option<Held> {
        self.last.lock().take()
    }

    /// Waits for memory for a message; takes none before the key is proved.
    ///
    /// # Errors
    /// `Timeout`: no memory became free in time, and the connection has to end.
    pub(crate) async fn take(&self, bytes: usize) -> Result<Option<Held>, RuntimeError> {
        let Some(holder) = self.holder() else { return Ok(None) };
        let limit = (self.sleep)(Duration::from_millis(CALL_MEMORY_MS_MAX));
        commonware_macros::select! {
            held = self.reads.take(holder, bytes) => Ok(Some(held)),
            () = limit => {
                tracing::warn!(peer = %holder.key, bytes, "no memory for a message in time; the connection is cut");
                Err(RuntimeError::Timeout)
            },
        }
    }
}

/// A stream that takes memory before it reads a message.
pub(super) struct Metered<I> {
    pub(super) stream: I,
    pub(super) gate: Option<Arc<Gate>>,
}

impl<I: Stream> Stream for Metered<I> {
    async fn recv(&mut self, length: usize) -> Result<IoBufs, RuntimeError> {
        if length > FREE
            && let Some(gate) = &self.gate
        {
            let held = gate.take(length).await?;
            *gate.last.lock() = held;
        }
        self.stream.recv(length).await
    }

    fn peek(&self, length: usize) -> &[u8] {
        self.stream.peek(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn holder(key: u8, origin: u8) -> Holder {
        Holder { key: Account([key; 32]), origin: Origin::of([192, 0, 2, origin].into()) }
    }

    fn fill(budget: &Arc<Budget>, holder: Holder, message: usize) -> Vec<Held> {
        std::iter::from_fn(|| budget.try_take(holder, message)).collect()
    }

    #[test]
    fn one_key_gets_half_and_one_origin_two_thirds() {
        let budget = Budget::new(64 << 20);
        let first = fill(&budget, holder(1, 1), 1 << 20);
        assert!((30..=32).contains(&first.len()), "{}", first.len());
        let rest: Vec<Held> = (2..200).flat_map(|key| fill(&budget, holder(key, 1), 1 << 20)).collect();
        let origin = first.len() + rest.len();
        assert!((41..=43).contains(&origin), "{origin}");
        assert!(budget.try_take(holder(201, 2), 4 << 20).is_some(), "another origin finds room");
        drop((first, rest));
        assert_eq!(budget.free(), 64 << 20);
    }

    #[test]
    fn small_messages_are_charged_too() {
        let budget = Budget::new(1 << 20);
        let held = fill(&budget, holder(1, 1), 0);
        assert!(held.len() <= (1 << 20) / OVERHEAD / 2 + 1);
    }

    proptest! {
        /// For any order of taking and returning: never more than the total, and all of it at the end.
        #[test]
        fn memory_is_never_handed_out_twice(
            steps in prop::collection::vec((0u8..6, 0u8..3, 0usize..5_000, any::<bool>()), 0..200),
        ) {
            let budget = Budget::new(40_000);
            let mut held: Vec<Held> = Vec::new();
            for (key, origin, bytes, takes) in steps {
                if takes {
                    held.extend(budget.try_take(holder(key, origin), bytes));
                } else if !held.is_empty() {
                    held.swap_remove(bytes % held.len());
                }
                let sum: usize = held.iter().map(|held| held.bytes).sum();
                prop_assert_eq!(sum + budget.free(), 40_000);
            }
            drop(held);
            prop_assert_eq!(budget.free(), 40_000);
            prop_assert!(budget.lock().keys.is_empty() && budget.lock().origins.is_empty());
        }
    }
}
