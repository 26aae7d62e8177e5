//! The state as one map, and blocks run on it exactly as a node runs them: name the records, read
//! them, execute, write. After every block the whole state is checked.

use posync_protocol::{
    Account, Amount, Hash, Key, Operation, Record as _, Slot,
    block::Draw,
    invariants,
    ledger::{self, BlockContext, Invalid, Mode, Outcome, Records, Roster},
    limits::Parameters,
    record::System,
};
use std::collections::BTreeMap;

/// Why a block, or the state after it, is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The rules refuse the block.
    #[error("block {height} breaks a rule: {source}")]
    Invalid {
        /// Of the block.
        height: u64,
        /// Which rule.
        source: Invalid,
    },
    /// The state after the block is wrong.
    #[error("the state after block {height} is wrong: {reason}")]
    State {
        /// Of the block.
        height: u64,
        /// How.
        reason: String,
    },
    /// The chain of blocks is broken.
    #[error("block {height}: {reason}")]
    Chain {
        /// Of the block.
        height: u64,
        /// How.
        reason: String,
    },
}

/// A ledger in memory.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// The name of the chain.
    pub chain: Hash,
    /// Genesis parameters.
    pub parameters: Parameters,
    /// All money.
    pub supply: Amount,
    /// Every record.
    pub state: BTreeMap<Key, Slot>,
    /// The whole state is checked, and a proposer's block verified, at every height that is a
    /// multiple of this: 1, but where thousands of futures of one checked history are run.
    pub check_every: u64,
}

impl Ledger {
    /// The record of sums.
    ///
    /// # Panics
    /// If the state has none: it then is no state.
    pub fn system(&self) -> System {
        self.record(System::key()).expect("every state has a System record")
    }

    /// A record.
    ///
    /// # Panics
    /// If its slot does not decode: only the rules write slots.
    pub fn record<R: posync_protocol::Record>(&self, key: Key) -> Option<R> {
        self.state.get(&key).map(|slot| R::from_slot(slot).expect("the rules wrote this slot"))
    }

    /// What a block of `leader` knows of itself at `height`.
    pub const fn context(
        &self,
        height: u64,
        leader: Account,
        parent: Hash,
        seed: Option<Hash>,
    ) -> BlockContext {
        BlockContext { chain: self.chain, parameters: self.parameters, height, leader, parent, seed }
    }

    /// Runs a block and keeps what it writes. Under [`Mode::Propose`] the kept operations are run
    /// again as a verifier would, and must leave the same.
    ///
    /// # Errors
    /// [`Fault`]; the state is unchanged if the block is invalid.
    pub fn run(
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

    /// Who stands at the indices that a block closes.
    ///
    /// # Errors
    /// [`Invalid::State`] if an index has no record.
    pub fn roster(&self, context: &BlockContext) -> Result<Roster, Invalid> {
        let keys = ledger::roster_keys(context, &self.system()).into_iter();
        let records = keys.map(|key| (key, self.state.get(&key).copied())).collect();
        Roster::new(context, &self.system(), &records)
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
        let roster = self.roster(context).map_err(invalid)?;
        let keys = ledger::touches(context, &self.system(), &roster, draws, operations).map_err(invalid)?;
        let records: Records = keys.into_iter().map(read).collect();
        ledger::execute(context, draws, operations, &records, mode).map_err(invalid)
    }

    /// Plants a fault: one grain appears in the sum of balances.
    ///
    /// # Panics
    /// If that is more than all money there can be.
    pub fn mint(&mut self) {
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
