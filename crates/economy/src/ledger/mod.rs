//! The ledger itself, in memory: attacks run its own `touches` and `execute`, block by block.
//!
//! ```text
//!   script line -> operation --+                     +-> records -> fortune of a coalition
//!   provider's open challenge -+-> World::block -----+-> events
//!   Resolver -> draws ---------+    (check_all, sampled)
//! ```
//!
//! World, model of a provider and script come from the rules' scenario tests. With one set of fixtures, an
//! operation is built in one place and a change of the rules reaches both.
//!
//! Invariants
//! 1. An operation enters a block only if its signatures verify, as on a node. Only a mutant skips
//!    the check, by calling [`Bench::forge`].
//! 2. A coalition's fortune is the money that the ledger's records still let it take out; nothing
//!    is estimated.

#[allow(dead_code, reason = "the scenario tests use the rest")]
#[path = "../../../protocol/tests/scenarios/model_provider.rs"]
mod model_provider;
#[allow(dead_code, reason = "the scenario tests use the rest")]
#[path = "../../../protocol/tests/scenarios/script.rs"]
mod script;
#[allow(dead_code, reason = "the scenario tests use the rest")]
#[path = "../../../protocol/tests/scenarios/world.rs"]
mod world;

pub(crate) use model_provider::{ModelProvider, bytes};
pub(crate) use script::Stage;
pub(crate) use world::{World, account, key};

use crate::audit::Answers;
use posync_protocol::{
    Account, Amount, Body, Code, Operation, Record,
    ledger::Event,
    operation::{ReadAnswer, SetDataSet},
    record::{AccountState, Provider, Seat, System},
};
use std::collections::BTreeMap;

/// Number of blocks between checks of the whole state.
const CHECK_EVERY: u64 = 50;

/// Number of a provider's slots that its model watches.
const SLOTS: u32 = 32;

/// A provider of the world, and how it answers.
#[derive(Clone)]
pub(crate) struct Holder {
    pub(crate) member: ModelProvider,
    answers: Answers,
    /// Height of the challenge that it leaves unanswered.
    silent_at: Option<u64>,
}

/// A ledger, the providers that hold data in it, and the outcomes of their audits.
#[derive(Clone)]
pub(crate) struct Bench {
    pub(crate) stage: Stage,
    pub(crate) holders: BTreeMap<String, Holder>,
    /// Results of the challenges that were answered or expired, by provider.
    pub(crate) audited: BTreeMap<Account, Audited>,
}

/// Read counts of a provider's challenges.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Audited {
    /// Number of reads that passed.
    pub(crate) passed: u64,
    /// Number of reads that failed.
    pub(crate) failed: u64,
}

impl Bench {
    /// A genesis in which these actors have money. `seed` decides every draw. Draws are off.
    pub(crate) fn new(seed: u64, actors: &[&str]) -> Self {
        let mut world = World::new(actors);
        world.chain[..8].copy_from_slice(&seed.to_be_bytes());
        world.check_every = CHECK_EVERY;
        Self {
            stage: Stage { world, opened: BTreeMap::new() },
            holders: BTreeMap::new(),
            audited: BTreeMap::new(),
        }
    }

    pub(crate) fn world(&self) -> &World {
        &self.stage.world
    }

    /// Runs script lines, one block each, and asserts the receipt that each names.
    pub(crate) fn play(&mut self, script: &str) {
        self.stage.play(script);
    }

    /// Runs one script line and returns its outcome.
    pub(crate) fn attempt(&mut self, line: &str) -> String {
        let got = self.stage.attempt(line).expect("an operation");
        self.notice();
        got
    }

    /// Registers `name` as a provider that answers as `answers` says.
    pub(crate) fn provider(&mut self, name: &str, answers: Answers) {
        self.play(&format!("{name} register bond=5000s"));
        self.holder(name, answers);
    }

    /// Makes the registered provider `name` answer as `answers` says.
    pub(crate) fn holder(&mut self, name: &str, answers: Answers) {
        let mut member = ModelProvider::new(name);
        member.slots = SLOTS;
        let holder = Holder { member, answers, silent_at: None };
        self.holders.insert(name.into(), holder);
    }

    /// Builds a change of the data set in a slot of `provider`. Both sides sign, `sender` pays.
    pub(crate) fn claim(
        &mut self,
        sender: &str,
        provider: &str,
        slot: u32,
        removes: &[u32],
        adds: &[Vec<u8>],
    ) -> (SetDataSet, Operation) {
        let holder = self.holders.get_mut(provider).expect("it is a provider");
        let set = holder.member.change(&self.stage.world, slot, removes, adds);
        let operation = self.stage.world.sign(sender, Body::SetDataSet(set.clone()));
        (set, operation)
    }

    /// Runs one block with such a change, which must be accepted.
    pub(crate) fn store(&mut self, sender: &str, provider: &str, slot: u32, adds: &[Vec<u8>]) {
        let (_, operation) = self.claim(sender, provider, slot, &[], adds);
        let outcome = self.block(&[operation]);
        assert_eq!(outcome, [Code::Done], "{provider}/{slot}");
    }

    /// Removes from `provider` each leaf of `data` whose position satisfies `is_lost`. Returns how
    /// many it removed.
    pub(crate) fn lose(
        &mut self,
        provider: &str,
        data: &[Vec<u8>],
        mut is_lost: impl FnMut(u64) -> bool,
    ) -> u64 {
        let holder = self.holders.get_mut(provider).expect("it is a provider");
        let before = holder.member.lost.len();
        let leaves = data.iter().flat_map(|shard| {
            let name = posync_protocol::shard::name(shard);
            (0..posync_protocol::shard::leaves(shard.len() as u64)).map(move |leaf| (name, leaf))
        });
        let lost: Vec<_> =
            (0..).zip(leaves).filter(|(place, _)| is_lost(*place)).map(|(_, leaf)| leaf).collect();
        holder.member.lost.extend(lost);
        (holder.member.lost.len() - before) as u64
    }

    /// True if all signatures verify, so that a node would accept the operation.
    pub(crate) fn is_signed(&self, operation: &Operation) -> bool {
        operation.signatures(&self.stage.world.chain).iter().all(|check| check.verify())
    }

    /// Runs one block with these operations and the storage proofs of the drawn providers that answer.
    /// Returns the receipts of the kept operations, without those of storage proofs.
    pub(crate) fn block(&mut self, operations: &[Operation]) -> Vec<Code> {
        for operation in operations {
            assert!(self.is_signed(operation), "a node refuses what is not signed: {operation:?}");
        }
        self.forge(operations)
    }

    /// Runs a block like [`Bench::block`], without the check of signatures.
    pub(crate) fn forge(&mut self, operations: &[Operation]) -> Vec<Code> {
        // Lanes keep their order, and storage proofs come first.
        let asked = (0..).zip(operations).map(|(place, operation)| (Some(place), operation.clone()));
        let mut all: Vec<(Option<usize>, Operation)> = asked.collect();
        all.extend(self.storage_proofs().into_iter().map(|storage_proof| (None, storage_proof)));
        all.sort_by_key(|(_, operation)| operation.body.lane());
        let (places, body): (Vec<Option<usize>>, Vec<Operation>) = all.into_iter().unzip();
        let outcome = self.stage.world.block(&body).expect("a proposer leaves out what is invalid");
        self.notice();
        let kept = outcome.kept.iter().zip(&outcome.receipts);
        let mut receipts: Vec<(usize, Code)> =
            kept.filter_map(|(place, (_, code))| Some((places[*place]?, *code))).collect();
        receipts.sort_unstable_by_key(|(place, _)| *place);
        receipts.into_iter().map(|(_, code)| code).collect()
    }

    fn notice(&mut self) {
        for event in &self.stage.world.events {
            if let Event::Audited { provider, passed, reads, .. } = event {
                let seen = self.audited.entry(*provider).or_default();
                seen.passed += u64::from(*passed);
                seen.failed += u64::from(reads - passed);
            }
        }
    }

    /// The storage proof of `name`; `None` without an open challenge, or if the provider stays silent.
    pub(crate) fn storage_proof(&mut self, name: &str) -> Option<Operation> {
        let world = &self.stage.world;
        let holder = self.holders.get_mut(name)?;
        if !world.draws || world.get::<Provider>(Provider::key(&account(name))).is_none() {
            return None;
        }
        let open = holder.member.audit(world).challenge.map(|challenge| challenge.height);
        if open.is_none() || open == holder.silent_at {
            return None;
        }
        let storage_proof = holder.member.storage_proof(world)?;
        let is_complete =
            !storage_proof.answers.iter().any(|answer| matches!(answer, ReadAnswer::Missing(_)));
        if holder.answers == Answers::Complete && !is_complete {
            holder.silent_at = open;
            return None;
        }
        Some(world.sign(name, Body::StorageProof(storage_proof)))
    }

    fn storage_proofs(&mut self) -> Vec<Operation> {
        let names: Vec<String> = self.holders.keys().cloned().collect();
        names.iter().filter_map(|name| self.storage_proof(name)).collect()
    }

    /// Signs a script line without submitting it.
    pub(crate) fn sign(&self, line: &str) -> Operation {
        self.stage.sign(line)
    }

    /// Evidence by `reporter` that `seat` signed twice in `term`.
    pub(crate) fn evidence(&self, reporter: &str, seat: &str, term: u64) -> Operation {
        self.sign(&format!("{reporter} evidence {seat} term={term}"))
    }

    /// Runs empty blocks until the next block is the first of `epoch`.
    pub(crate) fn run_to(&mut self, epoch: u64) {
        while self.stage.world.epoch() < epoch {
            self.block(&[]);
        }
    }

    /// Closes the agreements in these slots with both signatures, which frees all their money.
    pub(crate) fn close(&mut self, consumer: &str, provider: &str, slots: &[u32]) {
        self.stage.world.draws = true;
        while self.holders[provider].member.audit(self.world()).challenge.is_some() {
            self.block(&[]);
        }
        self.stage.world.draws = false;
        for slot in slots {
            self.play(&format!("{consumer} close {provider}/{slot} second={provider}"));
        }
    }

    /// Sum of the balances, bonds and seat bonds of a coalition, in grains.
    pub(crate) fn fortune(&self, names: &[&str]) -> i128 {
        let world = self.world();
        let held = |name: &str| {
            let account = account(name);
            let bond = world.get::<Provider>(Provider::key(&account)).map_or(Amount::ZERO, |p| p.bond);
            let seat = world.get::<Seat>(Seat::key(&account)).map_or(Amount::ZERO, |seat| seat.bond);
            world.balance(name).grains() + bond.grains() + seat.grains()
        };
        signed(names.iter().map(|name| held(name)).sum())
    }

    /// Pays an account out of the reserve: for mutants in which the ledger rewards too much.
    pub(crate) fn grant(&mut self, name: &str, grains: u128) {
        let key = AccountState::key(&account(name));
        let world = &mut self.stage.world;
        let mut state: AccountState = world.get(key).unwrap_or_default();
        let mut system = world.system();
        let amount = Amount::new(grains).expect("below the supply");
        let sums = [&mut state.balance, &mut system.balances];
        sums.into_iter().for_each(|sum| *sum = sum.checked_add(amount).expect("below the supply"));
        system.reserve = system.reserve.checked_sub(amount).expect("the reserve covers it");
        world.state.insert(key, state.to_slot());
        world.state.insert(System::key(), system.to_slot());
    }
}

/// Converts grains for a sum that may be negative.
pub(crate) fn signed(grains: u128) -> i128 {
    i128::try_from(grains).expect("below the supply")
}

/// `count` shards of `length` bytes, derived from `seed`.
pub(crate) fn shards(seed: u64, count: u64, length: usize) -> Vec<Vec<u8>> {
    (0..count).map(|place| bytes(seed << 16 | place, length)).collect()
}

/// True if the provider would fail its open challenge.
pub(crate) fn would_fail(bench: &Bench, provider: &str) -> bool {
    let storage_proof = bench.holders[provider].member.storage_proof(bench.world());
    let is_missing = |answer: &ReadAnswer| matches!(answer, ReadAnswer::Missing(_));
    storage_proof.is_some_and(|storage_proof| storage_proof.answers.iter().any(is_missing))
}
