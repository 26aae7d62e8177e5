//! A whole ledger in a map: the only helper that runs blocks.

use commonware_codec::Encode as _;
use commonware_cryptography::{Signer, ed25519::PrivateKey};
use posync_protocol::{
    Account, Amount, Body, Code, Hash, Key, Operation, Record, Slot,
    audit::Resolver,
    block::{Draw, sha256},
    invariants::check_all,
    ledger::{
        BlockContext, ClosingSet, Event, Invalid, Mode, Outcome, Records, base_fee, closing_set_keys,
        execute, fee, floor, touches,
    },
    limits::Parameters,
    record::{AccountState, Seat, SeatAt, System},
};
use std::{cell::RefCell, collections::BTreeMap};

/// Balance of each named actor at genesis.
pub(crate) const FUNDED: Amount = Amount::sync(1_000_000);

thread_local! {
    /// Keys of actors that were named before, because deriving one costs more than running a block.
    static KEYS: RefCell<BTreeMap<String, (PrivateKey, Account)>> = const { RefCell::new(BTreeMap::new()) };
}

fn named<T>(name: &str, part: impl Fn(&(PrivateKey, Account)) -> T) -> T {
    KEYS.with_borrow_mut(|keys| {
        if let Some(found) = keys.get(name) {
            return part(found);
        }
        let digest = sha256(name.as_bytes());
        let key = PrivateKey::from_seed(u64::from_be_bytes(digest[..8].try_into().expect("eight bytes")));
        let account = Account::of(&key.public_key());
        part(keys.entry(name.into()).or_insert((key, account)))
    })
}

/// Derives the key of a named actor.
pub(crate) fn key(name: &str) -> PrivateKey {
    named(name, |(key, _)| key.clone())
}

/// Derives the account of a named actor.
pub(crate) fn account(name: &str) -> Account {
    named(name, |(_, account)| *account)
}

/// The state, the height, and the results of the last block.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) parameters: Parameters,
    pub(crate) chain: Hash,
    /// Height of the last block.
    pub(crate) height: u64,
    pub(crate) state: BTreeMap<Key, Slot>,
    pub(crate) supply: Amount,
    /// Events of the last block.
    pub(crate) events: Vec<Event>,
    /// Number of records that the last block named.
    pub(crate) named: usize,
    /// Leaders of the blocks, in turn; none of them has a seat until a script asks.
    pub(crate) leaders: Vec<Account>,
    /// True if blocks carry a seed, from which they draw providers; false until a script asks.
    pub(crate) draws: bool,
    /// Hash over all changes, receipts and events of every block.
    pub(crate) history: Hash,
    /// Number of blocks between checks. A checked block runs again as a verifier's, and its whole
    /// state is held against the invariants. The scenarios check every block; long simulations
    /// sample.
    pub(crate) check_every: u64,
}

impl World {
    /// A genesis in which these actors have money, with as much again in the reserve.
    pub(crate) fn new(funded: &[&str]) -> Self {
        let balances = Amount::new(FUNDED.grains() * funded.len() as u128).expect("few actors");
        let reserve = balances;
        let mut state = BTreeMap::new();
        let parameters = Parameters::LOCAL;
        let base_fee = floor(&parameters);
        let system = System { balances, reserve, base_fee, ..System::default() };
        state.insert(System::key(), system.to_slot());
        for name in funded {
            let record = AccountState { nonce: 0, balance: FUNDED };
            state.insert(AccountState::key(&account(name)), record.to_slot());
        }
        let supply = balances.checked_add(reserve).expect("below the bound");
        let world = Self {
            parameters,
            chain: [7; 32],
            height: 0,
            state,
            supply,
            events: Vec::new(),
            named: 0,
            leaders: Vec::new(),
            draws: false,
            history: [0; 32],
            check_every: 1,
        };
        world.check();
        world
    }

    /// Gives a named actor a seat, with a bond from the reserve, as a genesis does.
    pub(crate) fn seat(&mut self, name: &str) {
        let (account, mut system) = (account(name), self.system());
        let bond = self.parameters.seat_bond;
        let seat = Seat::new(system.seats, bond);
        self.state.insert(SeatAt::key(system.seats), SeatAt { account }.to_slot());
        self.state.insert(Seat::key(&account), seat.to_slot());
        system.seats += 1;
        system.seat_bonds = system.seat_bonds.checked_add(bond).expect("below the bound");
        system.reserve = system.reserve.checked_sub(bond).expect("the reserve covers it");
        self.state.insert(System::key(), system.to_slot());
        self.check();
    }

    pub(crate) fn check(&self) {
        if let Err(broken) = check_all(self.state.iter().map(|(k, s)| (*k, *s)), self.supply) {
            panic!("after block {}: {broken}", self.height);
        }
    }

    pub(crate) fn get<R: Record>(&self, key: Key) -> Option<R> {
        self.state.get(&key).map(|slot| R::from_slot(slot).expect("the rules wrote it"))
    }

    pub(crate) fn system(&self) -> System {
        self.get(System::key()).expect("System always stands")
    }

    pub(crate) fn balance(&self, name: &str) -> Amount {
        self.get::<AccountState>(AccountState::key(&account(name))).unwrap_or_default().balance
    }

    /// Epoch of the next block.
    pub(crate) fn epoch(&self) -> u64 {
        self.parameters.epoch(self.height + 1)
    }

    pub(crate) fn context(&self, height: u64) -> BlockContext {
        let parent = sha256(&(height - 1).to_be_bytes());
        let seed = self.draws.then(|| sha256(&[parent, self.chain].concat()));
        let leader = self.leaders.get(height as usize % self.leaders.len().max(1)).copied();
        let leader = leader.unwrap_or_default();
        BlockContext { chain: self.chain, parameters: self.parameters, height, leader, parent, seed }
    }

    /// The draws of a block, found as a proposer finds them.
    pub(crate) fn resolve(&self, context: &BlockContext) -> Vec<Option<Draw>> {
        let mut resolver = Resolver::new(context, &self.system());
        while let Some(keys) = resolver.needs() {
            let records = keys.into_iter().map(|key| (key, self.state.get(&key).copied())).collect();
            resolver.feed(&records);
        }
        resolver.draws()
    }

    /// The providers and seats at the indices that a block closes.
    pub(crate) fn closing_set(&self, context: &BlockContext) -> ClosingSet {
        let keys = closing_set_keys(context, &self.system());
        let records = keys.into_iter().map(|key| (key, self.state.get(&key).copied())).collect();
        ClosingSet::new(context, &self.system(), &records).expect("each index is taken or vacant")
    }

    /// Reads the records that a block names.
    pub(crate) fn read(
        &self,
        context: &BlockContext,
        draws: &[Option<Draw>],
        operations: &[Operation],
    ) -> Result<Records, Invalid> {
        let keys = touches(context, &self.system(), &self.closing_set(context), draws, operations)?;
        Ok(keys.into_iter().map(|key| (key, self.state.get(&key).copied())).collect())
    }

    /// Runs the next block as its proposer, and as a verifier of the kept operations. Applies it,
    /// and checks the whole state.
    pub(crate) fn block(&mut self, operations: &[Operation]) -> Result<Outcome, Invalid> {
        let context = self.context(self.height + 1);
        let draws = self.resolve(&context);
        let records = self.read(&context, &draws, operations)?;
        let proposed = execute(&context, &draws, operations, &records, Mode::Propose)?;
        self.named = records.len();
        if context.height.is_multiple_of(self.check_every) {
            self.verify(&context, &draws, operations, &proposed)?;
        }
        let before = self.balances_of(operations);
        self.apply(context.height, &proposed);
        self.check_taken(&context, operations, &before);
        Ok(proposed)
    }

    fn balances_of(&self, operations: &[Operation]) -> BTreeMap<Account, Amount> {
        let balance =
            |account| self.get::<AccountState>(AccountState::key(account)).unwrap_or_default().balance;
        operations.iter().map(|operation| (operation.signer, balance(&operation.signer))).collect()
    }

    /// Checks that the operations took from each signer no more than they say: a mempool trusts that sum.
    fn check_taken(
        &self,
        context: &BlockContext,
        operations: &[Operation],
        before: &BTreeMap<Account, Amount>,
    ) {
        for (signer, after) in self.balances_of(operations) {
            let own = operations.iter().filter(|operation| operation.signer == signer);
            let most = own.fold(after, |sum, operation| {
                sum.saturating_add(operation.max_fee).saturating_add(operation.takes(context))
            });
            assert!(before[&signer] <= most, "{signer}: {:?} above {most:?}", before[&signer]);
        }
    }

    /// Runs the kept operations as a verifier, and asserts the proposer's outcome.
    fn verify(
        &mut self,
        context: &BlockContext,
        draws: &[Option<Draw>],
        operations: &[Operation],
        proposed: &Outcome,
    ) -> Result<(), Invalid> {
        let kept: Vec<Operation> = proposed.kept.iter().map(|place| operations[*place].clone()).collect();
        let records = self.read(context, draws, &kept)?;
        let verified = execute(context, draws, &kept, &records, Mode::Verify)?;
        assert_eq!(proposed.changes, verified.changes, "proposer and verifier agree on the state");
        assert_eq!(proposed.receipts, verified.receipts, "and on the receipts");
        assert_eq!(proposed.events, verified.events, "and on the events");
        self.named = records.len();
        Ok(())
    }

    pub(crate) fn apply(&mut self, height: u64, outcome: &Outcome) {
        for (key, slot) in &outcome.changes {
            match slot {
                Some(slot) => self.state.insert(*key, *slot),
                None => self.state.remove(key),
            };
        }
        self.height = height;
        self.events.clone_from(&outcome.events);
        let mut told = self.history.to_vec();
        for (key, slot) in &outcome.changes {
            told.extend(key.0);
            told.extend(slot.iter().flatten());
        }
        outcome.receipts.iter().for_each(|(id, code)| told.extend(id.iter().chain([&(*code as u8)])));
        outcome.events.iter().for_each(|event| told.extend(event.encode()));
        self.history = sha256(&told);
        if height.is_multiple_of(self.check_every) {
            self.check();
        }
    }

    /// Runs a block with one operation. Returns its receipt, or the code for which it may not stand
    /// in a block (the block is then empty).
    pub(crate) fn submit(&mut self, operation: &Operation) -> Result<Code, Code> {
        let one = core::slice::from_ref(operation);
        let context = self.context(self.height + 1);
        let draws = self.resolve(&context);
        let refused = match self.read(&context, &draws, one) {
            Ok(records) => execute(&context, &draws, one, &records, Mode::Verify),
            Err(invalid) => Err(invalid),
        };
        match refused {
            Ok(_) => Ok(self.block(one).expect("a verifier accepted it").receipts[0].1),
            Err(Invalid::Operation { code, .. }) => {
                self.block(&[]).expect("an empty block is valid");
                Err(code)
            }
            Err(invalid) => panic!("{invalid}"),
        }
    }

    /// Signs an operation with the next nonce and the exact fee.
    pub(crate) fn sign(&self, who: &str, body: Body) -> Operation {
        let state = self.get::<AccountState>(AccountState::key(&account(who))).unwrap_or_default();
        let (nonce, height) = (state.nonce, self.height + 1);
        let has_nonce = body.has_nonce();
        let base = base_fee(&self.system(), &self.parameters);
        let mut operation = Operation {
            signer: account(who),
            nonce: if has_nonce { nonce } else { 0 },
            max_fee: Amount::ZERO,
            expires: height,
            body,
            signature: [0; 64],
        };
        operation.max_fee = fee(&self.context(height), base, &operation);
        Operation::signed(&key(who), &self.chain, operation.nonce, operation.max_fee, height, operation.body)
    }

    /// Runs empty blocks up to the last one before `epoch`.
    pub(crate) fn skip_to_epoch(&mut self, epoch: u64) {
        while self.epoch() < epoch {
            self.block(&[]).expect("an empty block is valid");
        }
    }
}
