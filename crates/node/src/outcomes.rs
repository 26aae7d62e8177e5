//! The outcome of each finalized block: receipts and events, kept for as long as the block.
//!
//! The state does not contain them, and they cannot be recomputed once the state has moved on. So they are
//! written, durably, before the block's state is applied: whenever the state of a block is on disk, so is
//! its outcome. A block that is applied again after a crash writes the same outcome, which changes nothing.

use crate::engine::{Digest, Files, Runtime};
use bytes::BufMut;
use commonware_codec::{Buf, EncodeSize, Error as CodecError, RangeCfg, Read, Write};
use commonware_storage::{
    archive::{Archive as _, Identifier, prunable},
    translator::EightCap,
};
use commonware_utils::sync::{AsyncMutex, Mutex};
use posync_protocol::{
    Code, Hash,
    ledger::Event,
    limits::{BLOCKS_KEPT, OPERATIONS_MAX},
};
use std::{collections::VecDeque, sync::Arc};

/// Upper bound on the events of a block when decoding, against damage. No block can cause as many.
const EVENTS_MAX: usize = 1 << 20;
/// Blocks between two prunings of the archive.
const PRUNE_EVERY: u64 = 256;
/// Outcomes that stay in memory: the feed and the services read each one right after its block.
const REMEMBERED_MAX: usize = 4;

/// Receipts and events of one block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockOutcome {
    /// Id and code of each operation, in the block's order.
    pub receipts: Vec<(Hash, Code)>,
    /// Events of the block, in the order in which they occurred.
    pub events: Vec<Event>,
}

impl Write for BlockOutcome {
    fn write(&self, buf: &mut impl BufMut) {
        self.receipts.write(buf);
        self.events.write(buf);
    }
}

impl EncodeSize for BlockOutcome {
    fn encode_size(&self) -> usize {
        self.receipts.encode_size() + self.events.encode_size()
    }
}

impl Read for BlockOutcome {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, CodecError> {
        Ok(Self {
            receipts: Vec::read_cfg(buf, &(RangeCfg::new(0..=OPERATIONS_MAX), ((), ())))?,
            events: Vec::read_cfg(buf, &(RangeCfg::new(0..=EVENTS_MAX), ()))?,
        })
    }
}

type Archive<E> = prunable::Archive<EightCap, E, Digest, BlockOutcome>;

/// The outcomes of the kept blocks; clones share the archive.
pub(crate) struct Outcomes<E: Runtime> {
    archive: Arc<AsyncMutex<Option<Archive<E>>>>,
    newest: Arc<Mutex<VecDeque<(u64, BlockOutcome)>>>,
    prunes: bool,
}

impl<E: Runtime> Clone for Outcomes<E> {
    fn clone(&self) -> Self {
        Self { archive: self.archive.clone(), newest: self.newest.clone(), prunes: self.prunes }
    }
}

impl<E: Runtime> Outcomes<E> {
    /// Opens the archive; with `all`, nothing is ever pruned.
    pub(crate) async fn open(context: E, files: &Files, all: bool) -> Self {
        let config = files.archive("outcomes");
        let archive =
            Archive::init(context, config).await.expect("a node that cannot read its disk must stop");
        Self { archive: Arc::new(AsyncMutex::new(Some(archive))), newest: Arc::default(), prunes: !all }
    }

    /// Stores the outcome of the block at `height`; it is durable on return.
    pub(crate) async fn put(&self, height: u64, digest: Digest, outcome: &BlockOutcome) {
        let mut slot = self.archive.lock().await;
        let archive = slot.take().expect("only a failed write loses the archive, and it ends the node");
        let mut archive =
            archive.put_sync(height, digest, outcome).await.expect("a node that cannot write must stop");
        if self.prunes && height.is_multiple_of(PRUNE_EVERY) && height > BLOCKS_KEPT {
            let pruned = archive.prune(height - BLOCKS_KEPT).await;
            archive = pruned.expect("a node that cannot write must stop");
        }
        *slot = Some(archive);
        let mut newest = self.newest.lock();
        if newest.len() == REMEMBERED_MAX {
            newest.pop_front();
        }
        newest.push_back((height, outcome.clone()));
    }

    /// The outcome of the block at `height`, if it is kept.
    pub(crate) async fn get(&self, height: u64) -> Option<BlockOutcome> {
        if let Some(outcome) = self.remembered(height) {
            return Some(outcome);
        }
        let slot = self.archive.lock().await;
        let archive = slot.as_ref()?;
        archive.get(Identifier::Index(height)).await.expect("a node that cannot read its disk must stop")
    }

    fn remembered(&self, height: u64) -> Option<BlockOutcome> {
        let newest = self.newest.lock();
        newest.iter().find(|(known, _)| *known == height).map(|(_, outcome)| outcome.clone())
    }

    /// The highest block whose outcome is kept; 0 before the first.
    pub(crate) async fn last(&self) -> u64 {
        let slot = self.archive.lock().await;
        slot.as_ref().and_then(|archive| archive.last_index()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_cryptography::{Hasher as _, Sha256};
    use commonware_runtime::{Runner as _, Supervisor as _, deterministic};
    use commonware_utils::NZUsize;

    #[test]
    fn an_outcome_from_memory_is_the_one_on_disk() {
        deterministic::Runner::default().start(|context| async move {
            let outcome = |height: u64| BlockOutcome {
                receipts: vec![([height as u8; 32], Code::Done)],
                events: vec![],
            };
            let files = Files::open(&context, "node".into(), NZUsize!(64), false).await;
            let outcomes = Outcomes::open(context.child("outcomes"), &files, false).await;
            let count = 3 * REMEMBERED_MAX as u64;
            for height in 1..=count {
                outcomes.put(height, Sha256::hash(&[&height.to_be_bytes()]), &outcome(height)).await;
                assert_eq!(outcomes.clone().get(height).await, Some(outcome(height)), "from memory");
            }
            assert_eq!(outcomes.newest.lock().len(), REMEMBERED_MAX);
            drop(outcomes);
            let outcomes = Outcomes::open(context.child("again"), &files, false).await;
            for height in 1..=count {
                assert_eq!(outcomes.get(height).await, Some(outcome(height)), "from the disk");
            }
            assert_eq!(outcomes.get(count + 1).await, None);
        });
    }
}
