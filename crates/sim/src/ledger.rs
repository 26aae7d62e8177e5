//! A ledger in memory: the state as one map. Blocks run on it exactly as on a node: name the records, read
//! them, execute, write. After every block the whole state is checked.

use posync_protocol::{
    Account, Amount, Hash, Key, Operation, Record as _, Slot,
    block::Draw,
    invariants,
    ledger::{self, BlockContext, ClosingSet, Invalid, Mode, Outcome, Records},
    limits::Parameters,
    record::System,
};
use std::collections::BTreeMap;

/// A fault in a block, or in the state after it.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The rules reject the block.
    #[error("block {height} breaks a rule: {source}")]
    Invalid {
        /// Height of the rejected block.
        height: u64,
        /// The rule that rejects it.
        source: Invalid,
    },
    /// The state after the block is wrong.
    #[error("the state after block {height} is wrong: {reason}")]
    State {
        /// Height of the block before the wrong state.
        height: u64,
        /// Description of the broken invariant.
        reason: String,
    },
    /// The chain of blocks is broken.
    #[error("block {height}: {reason}")]
    Chain {
        /// Height of the block that does not follow.
        height: u64,
        /// Description of the mismatch.
        reason: String,
    },
}

/// A ledger with its state in memory.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    /// Identifier of the chain.
    pub(crate) chain: Hash,
    /// Parameters from the genesis.
    pub(crate) parameters: Parameters,
    /// All money that exists, in every form.
    pub(crate) supply: Amount,
    /// Every record, by key.
    pub(crate) state: BTreeMap<Key, Slot>,
    /// Heights at which the whole state is checked and a proposer's block verified: the multiples
    /// of this. It is 1, except for runs of thousands of futures of one checked history.
    pub(crate) check_every: u64,
}

impl Ledger {
    /// Reads the `System` record, which holds the sums.
    ///
    /// # Panics
    /// If the state has none, so that it is not a valid state.
    pub(crate) fn system(&self) -> System {
        self.record(System::key()).expect("every state has a System record")
    }

    /// Reads and decodes a record.
    ///
    /// # Panics
    /// If its slot does not decode: only the rules write slots.
    pub(crate) fn record<R: posync_protocol::Record>(&self, key: Key) -> Option<R> {
        self.state.get(&key).map(|slot| R::from_slot(slot).expect("the rules wrote this slot"))
    }

    /// The context of a block by `leader` at `height`.
    pub(crate) const fn context(
        &self,
        height: u64,
        leader: Account,
        parent: Hash,
        seed: Option<Hash>,
    ) -> BlockContext {
        BlockContext { chain: self.chain, parameters: self.parameters, height, leader, parent, seed }
    }

    /// Runs a block and writes its changes. Under [`Mode::Propose`] the kept operations run again
    /// in the verifier's mode and must leave the same state.
    ///
    /// # Errors
    /// [`Fault`]; the state is unchanged if the block is invalid.
    pub(crate) fn run(
        &mut self,
        context: &BlockContext,
        draws: &[Option<Draw>],
        operations: &[Operation],
        mode: Mode,
    ) -> Result<Outcome, Fault> {
        let outcome = self.execute(context, draws, operations, mode)?;
        let thorough = context.height.is_multiple_of(self.check_every);
        if thorough && mode == Mode::Propose {
            let kept: Vec<_> = outcome.kept.iter().map(|index| operations[*index].clone()).collect();
            let verified = self.execute(context, draws, &kept, Mode::Verify)?;
            if verified.changes != outcome.changes || verified.receipts != outcome.receipts {
                let reason = "a verifier computes another state than the proposer".into();
                return Err(Fault::State { height: context.height, reason });
            }
        }
        for (key, slot) in &outcome.changes {
            match slot {
                Some(slot) => self.state.insert(*key, *slot),
                None => self.state.remove(key),
            };
        }
        if thorough {
            self.check(context.height)?;
        }
        Ok(outcome)
    }

    /// The accounts at the indices that a block closes.
    ///
    /// # Errors
    /// [`Invalid::State`] if an index has no record.
    pub(crate) fn closing_set(&self, context: &BlockContext) -> Result<ClosingSet, Invalid> {
        let keys = ledger::closing_set_keys(context, &self.system()).into_iter();
        let records = keys.map(|key| (key, self.state.get(&key).copied())).collect();
        ClosingSet::new(context, &self.system(), &records)
    }

    fn execute(
        &self,
        context: &BlockContext,
        draws: &[Option<Draw>],
        operations: &[Operation],
        mode: Mode,
    ) -> Result<Outcome, Fault> {
        let invalid = |source| Fault::Invalid { height: context.height, source };
        let read = |key| (key, self.state.get(&key).copied());
        let closing_set = self.closing_set(context).map_err(invalid)?;
        let keys =
            ledger::touches(context, &self.system(), &closing_set, draws, operations).map_err(invalid)?;
        let records: Records = keys.into_iter().map(read).collect();
        ledger::execute(context, draws, operations, &records, mode).map_err(invalid)
    }

    /// Plants a fault: adds one grain to the sum of balances.
    ///
    /// # Panics
    /// If the sum exceeds the most money that can exist.
    pub(crate) fn mint(&mut self) {
        let mut system = self.system();
        system.balances = system.balances.checked_add(Amount::new(1).expect("one")).expect("below the bound");
        self.state.insert(System::key(), system.to_slot());
    }

    fn check(&self, height: u64) -> Result<(), Fault> {
        let slots = self.state.iter().map(|(key, slot)| (*key, *slot));
        invariants::check_all(slots, self.supply)
            .map_err(|broken| Fault::State { height, reason: broken.to_string() })
    }
}
