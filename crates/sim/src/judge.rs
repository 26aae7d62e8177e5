//! Judges a chain from its blocks alone: runs each block again, from the genesis on, in its own map.
//!
//! It shares the rules with the nodes and nothing else: no engine, no database, no mempool.
//!
//! Checks for every block
//! 1. It follows its parent: height, parent digest, time.
//! 2. Its body and its receipts are those that its header commits to.
//! 3. The rules accept it, and the state after it holds every invariant.

use crate::ledger::{Fault, Ledger};
use posync_protocol::{
    Bounded, Hash, Key, Slot,
    block::{BlockBody, Header, Receipts, sha256},
    ledger::{Mode, Outcome},
    limits::TIME_STEP_MS_MAX,
};

/// A judge with its state.
#[derive(Clone, Debug)]
pub(crate) struct Judge {
    /// The state after the last block.
    pub ledger: Ledger,
    height: u64,
    digest: Hash,
    time_ms: u64,
}

impl Judge {
    /// A judge before the first block, whose parent has the digest `genesis`.
    pub(crate) const fn new(ledger: Ledger, genesis: Hash) -> Self {
        Self { ledger, height: 0, digest: genesis, time_ms: 0 }
    }

    /// Height of the last judged block.
    pub(crate) const fn height(&self) -> u64 {
        self.height
    }

    /// Digest of the last judged block, which covers the whole history.
    pub(crate) const fn digest(&self) -> Hash {
        self.digest
    }

    /// Judges the next block.
    ///
    /// # Errors
    /// The first [`Fault`] found.
    pub(crate) fn block(&mut self, header: &Header, body: &BlockBody) -> Result<Outcome, Fault> {
        self.check_chain(header, body)
            .map_err(|reason| Fault::Chain { height: header.height, reason: reason.into() })?;
        let seed = header.beacon.map(|beacon| sha256(&beacon));
        let context = self.ledger.context(header.height, header.leader, header.parent, seed);
        let outcome = self.ledger.run(&context, &body.draws, &body.operations, Mode::Verify)?;
        let rows = Bounded::new(outcome.receipts.clone()).expect("a body bounds its operations");
        if (Receipts { rows }).root() != header.receipts_root {
            let reason = "its receipts are not those of its header".into();
            return Err(Fault::Chain { height: header.height, reason });
        }
        (self.height, self.digest, self.time_ms) = (header.height, header.digest(), header.time_ms);
        Ok(outcome)
    }

    fn check_chain(&self, header: &Header, body: &BlockBody) -> Result<(), &'static str> {
        if header.height != self.height + 1 {
            return Err("a height is missing or repeated");
        }
        if header.parent != self.digest {
            return Err("its parent is not the block before it: a fork");
        }
        if header.height > 1 && !(self.time_ms..=self.time_ms + TIME_STEP_MS_MAX).contains(&header.time_ms) {
            return Err("its time lies outside the permitted step");
        }
        if header.chain != self.ledger.chain {
            return Err("it belongs to another chain");
        }
        if body.root() != header.body_root {
            return Err("its body is not that of its header");
        }
        Ok(())
    }

    /// Every record after the last block, in key order.
    pub(crate) fn records(&self) -> impl Iterator<Item = (Key, Slot)> {
        self.ledger.state.iter().map(|(key, slot)| (*key, *slot))
    }
}
