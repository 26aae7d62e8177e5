//! The whole state from blocks alone: the genesis, then every body run through the rules again.
//!
//! Nothing that a node says of its state is used. Each block's receipts must hash to what its
//! certified header says, so a replay that went another way ends at the first block that shows it.

use crate::failure::{Exit, Failure, Outcome};
use posync_node::genesis::Genesis;
use posync_protocol::{
    Account, Bounded, Hash, Key, Record, Slot,
    block::{BlockBody, Header, Receipts, sha256},
    ledger::{self, BlockContext, Event, Invalid, Mode, Records, Roster},
    limits::SETTLEMENT_RING,
    record::{Settlement, Standing, System},
};
use std::{collections::BTreeMap, ops::RangeInclusive};

/// A provider's complete row of an epoch.
pub(crate) type Row = (Account, Slot);

/// A ledger in memory, as of the last block that was applied.
pub(crate) struct Replay {
    chain: Hash,
    genesis: Genesis,
    parent: Option<Hash>,
    height: u64,
    state: BTreeMap<Key, Slot>,
    rows: BTreeMap<u64, Vec<Row>>,
}

impl Replay {
    /// The state before the first block; the rows of these epochs will be gathered.
    pub(crate) fn new(genesis: Genesis, epochs: &RangeInclusive<u64>) -> Self {
        let (chain, state) = (genesis.chain(), genesis.records());
        let rows = epochs.clone().map(|epoch| (epoch, Vec::new())).collect();
        Self { chain, state, genesis, parent: None, height: 0, rows }
    }

    /// The complete rows of a gathered epoch, in the order in which its books have them.
    pub(crate) fn rows(&self, epoch: u64) -> &[Row] {
        self.rows.get(&epoch).map_or(&[], |rows| rows)
    }

    /// Height of the next block.
    pub(crate) const fn next(&self) -> u64 {
        self.height + 1
    }

    /// Runs the next block; what happened in it.
    pub(crate) fn apply(&mut self, header: &Header, body: &BlockBody) -> Outcome<Vec<Event>> {
        let follows =
            header.height == self.next() && self.parent.is_none_or(|parent| parent == header.parent);
        if !follows || header.chain != self.chain {
            return Err(differs(header.height, "it does not follow the block before it"));
        }
        let context = BlockContext {
            chain: self.chain,
            parameters: self.genesis.parameters,
            height: header.height,
            leader: header.leader,
            parent: header.parent,
            seed: header.beacon.map(|beacon| sha256(&beacon)),
        };
        let refused = |invalid: Invalid| differs(header.height, &invalid.to_string());
        let system = self.record::<System>(&System::key()).unwrap_or_default();
        let roster = self.read(ledger::roster_keys(&context, &system));
        let roster = Roster::new(&context, &system, &roster).map_err(refused)?;
        let keys = ledger::touches(&context, &system, &roster, &body.draws, &body.operations);
        let records = self.read(keys.map_err(refused)?);
        let outcome = ledger::execute(&context, &body.draws, &body.operations, &records, Mode::Verify)
            .map_err(refused)?;
        let rows = Bounded::new(outcome.receipts).unwrap_or_default();
        if (Receipts { rows }).root() != header.receipts_root {
            return Err(differs(header.height, "its receipts are not those of the certified header"));
        }
        for (key, slot) in outcome.changes {
            match slot {
                Some(slot) => self.state.insert(key, slot),
                None => self.state.remove(&key),
            };
        }
        (self.height, self.parent) = (header.height, Some(header.digest()));
        if let Some(paid) = context.epoch().checked_sub(2)
            && let Some(mut rows) = self.rows.remove(&paid)
        {
            rows.extend(roster.accounts().filter_map(|account| self.completed(account, paid)));
            self.rows.insert(paid, rows);
        }
        Ok(outcome.events)
    }

    /// The row that the second pass has just completed (BK-6).
    fn completed(&self, account: &Account, epoch: u64) -> Option<Row> {
        let standing: Standing = self.record(&Standing::key(account))?;
        let slot = self.state.get(&Settlement::key(account, epoch % SETTLEMENT_RING))?;
        let row = Settlement::from_slot(slot).ok()?;
        (row.epoch == epoch && standing.registered <= epoch).then_some((*account, *slot))
    }

    fn read(&self, keys: Vec<Key>) -> Records {
        keys.into_iter().map(|key| (key, self.state.get(&key).copied())).collect()
    }

    /// A record.
    pub(crate) fn record<R: Record>(&self, key: &Key) -> Option<R> {
        self.state.get(key).and_then(|slot| R::from_slot(slot).ok())
    }
}

fn differs(height: u64, why: &str) -> Failure {
    let next =
        "use the `posync` version that the network runs; if it is the same, report this with the blocks";
    Failure::new(Exit::Failed, format!("block {height} cannot be repeated"), why.to_owned(), next)
}
