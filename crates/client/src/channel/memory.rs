//! Memory that the messages of one listener hold, shared out before a byte of a message is read.
//!
//! A message takes its room when its length is known and gives it back when nobody holds the message
//! any more. The shares follow what is free: a key may hold as much as is free beside it, an origin
//! twice as much. So one key gets at most half of all, n equally greedy ones a part of n + 1, and a
//! newcomer finds room as long as there are fewer greedy keys than messages that fit.
//! Source: dynamic thresholds of shared-memory switches, Choudhury and Hahne,
//! IEEE/ACM Transactions on Networking 6(2), 1998.
//!
//! Invariants
//! 1. What is held never exceeds the whole; what was taken is given back, also by a cut connection.
//! 2. Small messages count: each is charged [`OVERHEAD`] beside its bytes.
//! 3. A frame that ends a call or takes messages is read also when there is no memory.

use super::places::{Calls, Origin};
use commonware_runtime::{Clock, Error as RuntimeError, IoBufs, Stream};
use futures::{FutureExt as _, future::BoxFuture};
use posync_protocol::{Account, limits::CALL_MEMORY_MS_MAX};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock},
    time::Duration,
};
use tokio::sync::Notify;

/// What a message is charged beside its bytes: its place in tables and queues, its decoded form.
pub(crate) const OVERHEAD: usize = 512;
/// Reads up to this length take no memory here: headers of records, and frames without a message, which
/// give memory back and must not wait for it. Who finds a message in one takes memory for it then.
const FREE: usize = 64;

/// Who holds memory.
#[derive(Clone, Copy)]
pub(crate) struct Holder {
    /// The key that the connection proved.
    pub(crate) key: Account,
    /// Where it comes from.
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

/// Memory that a message holds; dropping it gives it back.
pub(crate) struct Held {
    budget: Arc<Budget>,
    holder: Holder,
    bytes: usize,
}

impl Budget {
    /// `bytes` for all connections.
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        let table = Table { free: bytes, keys: BTreeMap::new(), origins: BTreeMap::new() };
        Arc::new(Self { table: Mutex::new(table), freed: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no holder of this lock panics")
    }

    /// Takes room for a message if there is any for this holder now.
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

    /// Waits for room; give it a time limit.
    pub(crate) async fn take(self: &Arc<Self>, holder: Holder, message: usize) -> Held {
        loop {
            let freed = self.freed.notified();
            let mut freed = std::pin::pin!(freed);
            // Registered first, so that what is freed between the look and the wait wakes it.
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

/// What a listener knows of a connection: whose memory it uses and how many calls it has.
pub(crate) struct Gate {
    pub(crate) reads: Arc<Budget>,
    pub(crate) writes: Arc<Budget>,
    origin: Origin,
    proved: OnceLock<(Account, Calls)>,
    /// What the message that was read last holds.
    last: Mutex<Option<Held>>,
    sleep: Box<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>,
}

impl Gate {
    pub(super) fn new<E: Clock>(context: E, origin: Origin, reads: Arc<Budget>, writes: Arc<Budget>) -> Self {
        let context = Arc::new(context);
        let sleep = Box::new(move |time| {
            let context = context.clone();
            async move { context.sleep(time).await }.boxed()
        });
        let (proved, last) = (OnceLock::new(), Mutex::new(None));
        Self { reads, writes, origin, proved, last, sleep }
    }

    /// From now on messages are counted, for `key`.
    pub(super) fn open(&self, key: Account, calls: Calls) {
        let _ = self.proved.set((key, calls));
    }

    /// Who holds what this connection reads and writes.
    pub(crate) fn holder(&self) -> Option<Holder> {
        self.proved.get().map(|(key, _)| Holder { key: *key, origin: self.origin })
    }

    /// The count of its open calls.
    pub(crate) fn calls(&self) -> Option<&Calls> {
        self.proved.get().map(|(_, calls)| calls)
    }

    /// What the message that was read last holds.
    pub(super) fn taken(&self) -> Option<Held> {
        self.last.lock().expect("no holder of this lock panics").take()
    }

    /// Waits for memory for a message; none before the key is proved.
    ///
    /// # Errors
    /// `Timeout`: there was none in time, and the connection has to end.
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

/// A stream that asks for memory before it reads a message.
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
            *gate.last.lock().expect("no holder of this lock panics") = held;
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
        /// Whatever is taken and given back in whatever order: never more than all, and all at the end.
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
