//! Receipts of recent operations by id, kept for as long as an operation may still be valid.
//!
//! An operation expires within `expiry_blocks_max` blocks, so the receipts of that many blocks are kept in
//! memory; at start they are read back from the stored outcomes. Older receipts are in the blocks. A receipt
//! from here is the node's word; for a proof, a caller checks the block's receipts against its certified
//! header.

use crate::handle::{Handle, ReadError};
use commonware_utils::sync::Mutex;
use posync_client::watch;
use posync_protocol::{Code, Hash, wire::node::Receipt};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// Upper bound on the receipts in memory: 16 MiB.
const RECEIPTS_MAX: usize = 1 << 18;

#[derive(Default)]
struct Recent {
    by_id: BTreeMap<Hash, Receipt>,
    order: VecDeque<(u64, Hash)>,
}

impl Recent {
    fn add(&mut self, height: u64, rows: &[(Hash, Code)], oldest: u64) {
        for (index, (id, code)) in rows.iter().enumerate() {
            let index = u32::try_from(index).expect("a block has fewer operations");
            self.by_id.insert(*id, Receipt { height, index, code: *code });
            self.order.push_back((height, *id));
        }
        while let Some((height, id)) = self.order.front().copied()
            && (height < oldest || self.order.len() > RECEIPTS_MAX)
        {
            self.order.pop_front();
            // An id is in two blocks only if it was free of charge; the later receipt stays.
            if self.by_id.get(&id).is_some_and(|receipt| receipt.height <= height) {
                self.by_id.remove(&id);
            }
        }
    }
}

/// The receipts of recent blocks; clones share them.
#[derive(Clone)]
pub(crate) struct Feed {
    recent: Arc<Mutex<Recent>>,
    height: watch::Sender<u64>,
}

impl Default for Feed {
    fn default() -> Self {
        Self { recent: Arc::default(), height: watch::Sender::new(0) }
    }
}

impl Feed {
    /// The receipt of an operation that is final and not too old.
    pub(crate) fn receipt(&self, id: &Hash) -> Option<Receipt> {
        self.recent.lock().by_id.get(id).copied()
    }

    /// Waits for the receipt of an operation; the caller sets a time limit.
    pub(crate) async fn wait(&self, id: &Hash) -> Receipt {
        let mut height = self.height.subscribe();
        loop {
            if let Some(receipt) = self.receipt(id) {
                return receipt;
            }
            height.changed().await.expect("the sender lives in self");
        }
    }

    /// Follows the finalized blocks until the node stops.
    pub(crate) async fn run(self, handle: Handle) {
        let span = handle.genesis().parameters.expiry_blocks_max;
        let applied = handle.applied();
        for height in applied.saturating_sub(span).max(1)..=applied {
            if let Some(outcome) = handle.outcome(height).await {
                self.add(height, &outcome.receipts, span);
            }
        }
        let mut blocks = handle.subscribe_finalized(applied + 1);
        loop {
            match blocks.next().await {
                Ok(block) => self.add(block.header.height, &block.outcome.receipts, span),
                // A node that began with a synced state has no blocks from before it.
                Err(ReadError::Pruned(_)) => blocks = handle.subscribe_finalized(handle.applied() + 1),
                Err(_) => return,
            }
        }
    }

    fn add(&self, height: u64, rows: &[(Hash, Code)], span: u64) {
        self.recent.lock().add(height, rows, height.saturating_sub(span));
        self.height.send_replace(height);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipts_go_with_the_blocks_that_operations_can_still_name() {
        let feed = Feed::default();
        for height in 1..=20 {
            feed.add(
                height,
                &[([height as u8; 32], Code::Done), ([100 + height as u8; 32], Code::Balance)],
                5,
            );
        }
        let heights: Vec<u64> = (1..=20).filter(|h| feed.receipt(&[*h as u8; 32]).is_some()).collect();
        assert_eq!(heights, [15, 16, 17, 18, 19, 20]);
        let second = Receipt { height: 17, index: 1, code: Code::Balance };
        assert_eq!(feed.receipt(&[117; 32]), Some(second));
    }

    #[test]
    fn an_id_that_stands_twice_keeps_its_later_receipt() {
        let feed = Feed::default();
        feed.add(1, &[([7; 32], Code::Done)], 5);
        feed.add(4, &[([7; 32], Code::Done)], 5);
        feed.add(8, &[], 5);
        assert_eq!(feed.receipt(&[7; 32]).map(|receipt| receipt.height), Some(4));
        feed.add(10, &[], 5);
        assert_eq!(feed.receipt(&[7; 32]), None);
    }
}
