//! Follows the chain while the tour goes on: events into books, times into a list.

use crate::{books::Books, failure::Outcome, ledger::Ledger, network::Network};
use commonware_cryptography::ed25519::PrivateKey;
use commonware_runtime::{Spawner as _, Supervisor as _, tokio::Context};
use std::{
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

/// Blocks that one look takes at most, so that a look ends.
const BLOCKS_A_LOOK: u64 = 256;

/// What was seen of the chain so far.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Height of the last block entered.
    pub(crate) height: u64,
    /// What the events add up to.
    pub(crate) books: Books,
    times: Arc<Mutex<Vec<u64>>>,
}

impl Watch {
    /// Begins to time blocks, on a connection of its own that ends with the context.
    pub(crate) async fn start(context: &Context, network: &Network, key: &PrivateKey) -> Outcome<Self> {
        let watch = Self::default();
        let times = watch.times.clone();
        let ledger = Ledger::connect(context, network, key).await?;
        let mut blocks = ledger.follow();
        context.child("watch").spawn(move |_| async move {
            while let Ok(header) = blocks.next().await {
                times.lock().expect("no holder panics").push(age_ms(header.time_ms));
            }
        });
        Ok(watch)
    }

    /// Enters the blocks that became final since the last look.
    pub(crate) async fn look(&mut self, ledger: &Ledger) -> Outcome {
        let tip = ledger.height().await?.min(self.height + BLOCKS_A_LOOK);
        for height in self.height + 1..=tip {
            let block = ledger.block(height).await?;
            self.books.enter(height, &block.events);
            self.height = height;
        }
        Ok(())
    }

    /// Milliseconds from a block's time until its certificate came, for every block timed.
    pub(crate) fn finality_ms(&self) -> Vec<u64> {
        self.times.lock().expect("no holder panics").clone()
    }
}

/// Proposer and watcher are on one machine, so one clock tells both times.
fn age_ms(time_ms: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    u64::try_from(now).unwrap_or(u64::MAX).saturating_sub(time_ms)
}
