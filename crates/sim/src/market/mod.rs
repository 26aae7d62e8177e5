//! Test support: the ledger alone for thousands of blocks in seconds, with providers that keep or break their word.
//!
//! ```text
//!  beacon ──► draws ──► block ◄── storage proofs ◄── providers (Manner decides what they answer)
//!                         │  ◄── paid operations
//!                         └──► Ledger::run: as a proposer, then as a verifier, then check_all
//! ```
//!
//! No signatures, no network, no engine; rules, proofs and money are real. A block holds the
//! operations that `ledger::select` chooses, and a storage proof arrives [`ANSWER_BLOCKS`] after its
//! draw, as on a network.

mod member;
#[path = "../../../protocol/tests/scenarios/registration.rs"]
mod registration;
mod tests;

pub(crate) use member::{Manner, Member, Terms};

use crate::ledger::{Fault, Ledger};
use posync_protocol::{
    Account, Amount, Body, Class, Code, Hash, Operation, PerClass, Units,
    audit::Resolver,
    block::{Draw, sha256},
    ledger::{BlockContext, Event, Mode, Records, select},
    limits::Parameters,
    operation::{DataSetClaim, Open, RegisterProvider, SetDataSet},
    record::{AccountState, Agreement, Provider, RoundInfo, System},
};
use registration::registration;
use std::collections::{BTreeMap, BTreeSet};

/// Blocks from a draw to the block with the answer: the drawing block becomes final, the storage proof
/// travels, the next leader includes it.
pub(crate) const ANSWER_BLOCKS: u64 = 3;
/// Blocks in which members register, open and sign, before anything is measured.
pub(crate) const SETUP_BLOCKS: u64 = 4;
/// The account that pays for everything.
pub(crate) const CONSUMER: Account = Account([200; 32]);

/// A ledger and the providers on it.
#[derive(Clone)]
pub(crate) struct Market {
    /// The state and the rules.
    pub(crate) ledger: Ledger,
    /// Height of the last block.
    pub(crate) height: u64,
    /// The providers, by place.
    pub(crate) members: Vec<Member>,
    /// Events of the blocks since the list was last cleared, with their heights.
    pub(crate) events: Vec<(u64, Event)>,
    /// Receipts of the last block.
    pub(crate) receipts: Vec<(Hash, Code)>,
    beacon: Hash,
    parent: Hash,
    nonces: BTreeMap<Account, u64>,
    /// Paid operations that wait for a block.
    pub(crate) pending: Vec<Operation>,
}

impl Market {
    /// A ledger on which each of `terms` is a registered provider with an agreement and a data set.
    ///
    /// # Panics
    /// If the setup breaks a rule.
    pub(crate) fn new(seed: u64, parameters: Parameters, terms: &[Terms]) -> Self {
        let members: Vec<Member> =
            (0..).zip(terms).map(|(index, terms)| Member::new(index, *terms)).collect();
        let accounts = members.iter().map(|member| member.account).chain([CONSUMER]);
        let mut market = Self {
            ledger: genesis(parameters, accounts),
            height: 0,
            members,
            events: Vec::new(),
            receipts: Vec::new(),
            beacon: sha256(&seed.to_be_bytes()),
            parent: [0; 32],
            nonces: BTreeMap::new(),
            pending: Vec::new(),
        };
        market.set_up();
        market
    }

    fn set_up(&mut self) {
        for place in 0..self.members.len() {
            let body = Body::RegisterProvider(registration_of(place));
            self.submit(self.members[place].account, body);
        }
        self.block_done();
        let holders: Vec<usize> =
            (0..self.members.len()).filter(|place| self.members[*place].terms.shards > 0).collect();
        for place in holders.clone() {
            let body = Body::Open(self.members[place].opening(&self.ledger.parameters));
            self.submit(CONSUMER, body);
        }
        self.block_done();
        for place in holders {
            let member = &mut self.members[place];
            let key = Agreement::key(&member.account, member.slot);
            let agreement: Agreement = self.ledger.record(key).expect("opened in the block before");
            member.opened = agreement.opened;
            let body = Body::SetDataSet(member.data_set(1));
            self.submit(CONSUMER, body);
        }
        while self.height < SETUP_BLOCKS {
            self.block_done();
        }
        self.events.clear();
    }

    fn block_done(&mut self) {
        self.block().expect("the setup keeps the rules");
        for (_, code) in &self.receipts {
            assert_eq!(*code, Code::Done, "the setup keeps the rules");
        }
    }

    /// Changes the beacon from here on: one history, many futures.
    pub(crate) fn reseed(&mut self, seed: u64) {
        self.beacon = sha256(&seed.to_be_bytes());
    }

    /// Queues a paid operation of `signer` for the next block.
    pub(crate) fn submit(&mut self, signer: Account, body: Body) {
        let nonce = *self.nonces.entry(signer).and_modify(|nonce| *nonce += 1).or_default();
        let operation = self.operation(signer, nonce, Amount::sync(1_000), body);
        self.pending.push(operation);
    }

    /// Queues an unchanged operation for the next block.
    pub(crate) fn hand_in(&mut self, operation: Operation) {
        self.pending.push(operation);
    }

    /// Builds a free operation of `signer`.
    pub(crate) fn free(&self, signer: Account, body: Body) -> Operation {
        self.operation(signer, 0, Amount::ZERO, body)
    }

    fn operation(&self, signer: Account, nonce: u64, max_fee: Amount, body: Body) -> Operation {
        let expires = self.height + self.ledger.parameters.expiry_blocks_max;
        Operation { signer, nonce, max_fee, expires, body, signature: [0; 64] }
    }

    /// Makes the next block.
    ///
    /// # Errors
    /// [`Fault`] if a rule or an invariant is broken.
    pub(crate) fn block(&mut self) -> Result<(), Fault> {
        let context = self.next_context();
        let draws = self.draws(&context);
        let storage_proofs = self.storage_proofs(context.height);
        let mut candidates = storage_proofs;
        candidates.append(&mut self.pending);
        let height = context.height;
        let closing_set =
            self.ledger.closing_set(&context).map_err(|source| Fault::Invalid { height, source })?;
        let chosen = select(&context, &self.ledger.system(), &closing_set, &draws, &candidates);
        let operations: Vec<Operation> = chosen.iter().map(|place| candidates[*place].clone()).collect();
        let outcome = self.ledger.run(&context, &draws, &operations, Mode::Propose)?;
        let taken: BTreeSet<usize> = chosen.into_iter().collect();
        let left = candidates.into_iter().enumerate().filter(|(place, _)| !taken.contains(place));
        // A provider builds a new storage proof for the next block; only paid operations wait.
        self.pending = left.map(|(_, operation)| operation).filter(|o| !o.body.is_free()).collect();
        self.height = context.height;
        self.parent = sha256(&[self.parent.as_slice(), &context.height.to_be_bytes()].concat());
        self.receipts = outcome.receipts;
        self.events.extend(outcome.events.into_iter().map(|event| (context.height, event)));
        Ok(())
    }

    /// Makes blocks up to `height`.
    ///
    /// # Errors
    /// As [`Self::block`].
    pub(crate) fn reach(&mut self, height: u64) -> Result<(), Fault> {
        while self.height < height {
            self.block()?;
        }
        Ok(())
    }

    /// The code that the rules would give one operation in the next block: a refusal, or `Done`.
    /// Nothing changes.
    pub(crate) fn verdict(&self, operation: &Operation) -> Code {
        let mut copy = self.clone();
        let context = copy.next_context();
        let draws = copy.draws(&context);
        match copy.ledger.run(&context, &draws, std::slice::from_ref(operation), Mode::Verify) {
            Ok(outcome) => outcome.receipts[0].1,
            Err(Fault::Invalid {
                source: posync_protocol::ledger::Invalid::Operation { code, .. }, ..
            }) => code,
            Err(fault) => panic!("{fault}"),
        }
    }

    fn next_context(&self) -> BlockContext {
        let height = self.height + 1;
        // The first block of a term gets no seed from its parent.
        let first = height.is_multiple_of(self.ledger.parameters.term_blocks());
        let seed = sha256(&[self.beacon.as_slice(), &height.to_be_bytes()].concat());
        self.ledger.context(height, Account::default(), self.parent, (!first).then_some(seed))
    }

    fn draws(&self, context: &BlockContext) -> Vec<Option<Draw>> {
        let mut resolver = Resolver::new(context, &self.ledger.system());
        while let Some(needs) = resolver.needs() {
            let records: Records =
                needs.into_iter().map(|key| (key, self.ledger.state.get(&key).copied())).collect();
            resolver.feed(&records);
        }
        resolver.draws()
    }

    fn storage_proofs(&self, height: u64) -> Vec<Operation> {
        let due = |member: &Member| {
            let challenge = member.challenge(&self.ledger)?;
            (height >= challenge.height + ANSWER_BLOCKS).then_some(())?;
            let storage_proof = member.storage_proof(&self.ledger, &challenge, height)?;
            Some(self.free(member.account, Body::StorageProof(storage_proof)))
        };
        self.members.iter().filter_map(due).collect()
    }

    /// Sum of a provider's settlement payments in [`Self::events`].
    pub(crate) fn pay(&self, member: usize) -> Amount {
        let sum = |sum: Amount, (_, event): &(u64, Event)| match event {
            Event::Settled { provider, pay, .. } if *provider == self.members[member].account => {
                sum.checked_add(*pay).expect("below all money")
            }
            _ => sum,
        };
        self.events.iter().fold(Amount::ZERO, sum)
    }

    /// Reads a provider's record.
    pub(crate) fn provider(&self, member: usize) -> Provider {
        self.ledger.record(Provider::key(&self.members[member].account)).expect("it registered")
    }
}

fn genesis(parameters: Parameters, accounts: impl Iterator<Item = Account>) -> Ledger {
    let supply = Amount::sync(1_000_000_000);
    let balance = Amount::sync(1_000_000);
    let mut state = BTreeMap::new();
    let base_fee = posync_protocol::ledger::floor(&parameters);
    let mut system = System { reserve: supply, base_fee, ..System::default() };
    for account in accounts {
        system.balances = system.balances.checked_add(balance).expect("below all money");
        system.reserve = system.reserve.checked_sub(balance).expect("below all money");
        state.insert(AccountState::key(&account), record(&AccountState { nonce: 0, balance }));
    }
    state.insert(System::key(), record(&system));
    state.insert(RoundInfo::key(0), record(&RoundInfo::default()));
    Ledger { chain: [1; 32], parameters, supply, state, check_every: 1 }
}

fn record(record: &impl posync_protocol::Record) -> posync_protocol::Slot {
    record.to_slot()
}

/// The registration of the provider at a place, under an operator of its own.
fn registration_of(place: usize) -> RegisterProvider {
    RegisterProvider {
        bond: Amount::sync(10_000),
        capacity: PerClass::new(1 << 20, u64::MAX, 0),
        reserve: PerClass::new(1, 1, 0),
        ..registration(&format!("operator {place}"), &format!("10.0.2.{place}:1"))
    }
}

impl Member {
    fn opening(&self, parameters: &Parameters) -> Open {
        Open {
            provider: self.account,
            slot: self.slot,
            session_key: CONSUMER,
            storage_key: CONSUMER,
            price_max: PerClass::all(u64::MAX),
            quota: PerClass::new(self.quota_leaves(), parameters.quota_max[Class::Egress], 0),
            rate: Units::egress(parameters.rate_max.egress),
            end_epoch: self.terms.end_epoch,
            voucher_reserve: Amount::sync(100),
            storage_reserve_max: Amount::sync(100_000),
        }
    }

    /// The operation that records its current data set on the ledger, signed by both parties.
    pub(crate) fn data_set(&self, version: u64) -> SetDataSet {
        let claim = DataSetClaim {
            agreement: self.agreement(),
            version,
            root: self.tree.root(),
            leaves: self.tree.leaves(),
            bytes: self.tree.bytes(),
        };
        SetDataSet {
            claim,
            index: self.index,
            end_epoch: self.terms.end_epoch,
            storage_key: CONSUMER,
            consumer_signature: [0; 64],
            provider_signature: Some([0; 64]),
        }
    }
}
