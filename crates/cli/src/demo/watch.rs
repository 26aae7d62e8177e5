//! Follows the chain during the tour: adds up events, and times blocks.

use crate::{failure::Outcome, ledger::Ledger, net::Net, tally::Tally};
use commonware_cryptography::ed25519::PrivateKey;
use commonware_runtime::{Spawner as _, Supervisor as _, tokio::Context};
use commonware_utils::sync::Mutex;
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// Most blocks that one look reads, so that it ends.
const BLOCKS_A_LOOK: u64 = 256;

/// The figures of the chain so far.
#[derive(Debug, Default)]
pub(crate) struct BlockWatch {
    /// Height of the last block that was added.
    pub(crate) height: u64,
    /// Sums over the events of these blocks.
    pub(crate) tally: Tally,
    times: Arc<Mutex<Vec<u64>>>,
}

impl BlockWatch {
    /// Starts to time blocks, on a connection of its own that ends with the context.
    pub(crate) async fn start(context: &Context, net: &Net, key: &PrivateKey) -> Outcome<Self> {
        let watch = Self::default();
        let times = watch.times.clone();
        let ledger = Ledger::connect(context, net, key).await?;
        let mut blocks = ledger.follow();
        context.child("watch").spawn(move |_| async move {
            while let Ok(header) = blocks.next().await {
                times.lock().push(age_ms(header.time_ms));
            }
        });
        Ok(watch)
    }

    /// Adds the blocks that became final since the last look.
    pub(crate) async fn look(&mut self, ledger: &Ledger) -> Outcome {
        let tip = ledger.height().await?.min(self.height + BLOCKS_A_LOOK);
        for height in self.height + 1..=tip {
            let block = ledger.block(height).await?;
            self.tally.enter(height, &block.events);
            self.height = height;
        }
        Ok(())
    }

    /// Milliseconds from each block's time to the arrival of its certificate.
    pub(crate) fn finality_ms(&self) -> Vec<u64> {
        self.times.lock().clone()
    }
}

/// Age of a block in milliseconds; proposer and watcher share a machine and its clock.
fn age_ms(time_ms: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    u64::try_from(now).unwrap_or(u64::MAX).saturating_sub(time_ms)
}
