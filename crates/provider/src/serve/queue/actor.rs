//! Makes requests wait for their turn.

use super::state::{Demand, Queued, State};
use commonware_utils::{channel::oneshot, sync::Mutex};
use posync_protocol::Account;
use std::collections::BTreeMap;

/// The queue is full, or a consumer with fewer requests took the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the queue is full and you have most of it; wait for your open requests, or ask another provider")]
pub(crate) struct Full;

#[derive(Default)]
struct Inner {
    state: State,
    turns: BTreeMap<u64, oneshot::Sender<()>>,
}

impl Inner {
    fn serve(&mut self) {
        while let Some(ticket) = self.state.next() {
            if let Some(turn) = self.turns.remove(&ticket) {
                // A place that is gone already has left by itself.
                let _ = turn.send(());
            }
        }
    }
}

/// A fair queue of requests, shared by all calls.
#[derive(Default)]
pub(crate) struct Queue(Mutex<Inner>);

/// A place in the queue, then a turn; dropping it makes room.
pub(crate) struct Turn<'a> {
    queue: &'a Queue,
    ticket: u64,
}

impl Queue {
    /// Waits for this request's turn.
    ///
    /// # Errors
    /// [`Full`].
    pub(crate) async fn turn(
        &self,
        consumer: Account,
        weight: u64,
        demand: Demand,
    ) -> Result<Turn<'_>, Full> {
        let (turn, mine) = oneshot::channel();
        let place = {
            let mut inner = self.0.lock();
            let Queued { ticket, displaced } = inner.state.ask(consumer, weight, demand).ok_or(Full)?;
            inner.turns.insert(ticket, turn);
            // The displaced request learns that its turn will not come.
            displaced.and_then(|ticket| inner.turns.remove(&ticket));
            inner.serve();
            Turn { queue: self, ticket }
        };
        mine.await.map_err(|_| Full)?;
        Ok(place)
    }

    /// Number of requests that wait.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.0.lock().state.waiting()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut inner = self.queue.0.lock();
        inner.turns.remove(&self.ticket);
        inner.state.leave(self.ticket);
        inner.serve();
    }
}
