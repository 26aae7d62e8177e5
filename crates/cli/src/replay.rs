//! Rebuilds the whole state from blocks alone: the genesis, then every body run through the rules again.
//!
//! A replay uses no node's report of its state. Each block's receipts must hash to the value in its
//! certified header, so a replay that diverges ends at the first block that shows it.

use crate::failure::{Exit, Failure, Outcome};
use posync_node::genesis::Genesis;
use posync_protocol::{
    Account, Bounded, Hash, Key, Record, Slot,
    block::{BlockBody, Header, Receipts, sha256},
    ledger::{self, BlockContext, ClosingSet, Event, Invalid, Mode, Records},
    limits::SETTLEMENT_RING,
    record::{Reputation, Settlement, System},
};
use std::{collections::BTreeMap, ops::RangeInclusive};

/// The complete settlement row of a provider for an epoch.
pub(crate) type SettlementRow = (Account, Slot);

/// A ledger in memory, after the last applied block.
pub(crate) struct Replay {
    chain: Hash,
    genesis: Genesis,
    parent: Option<Hash>,
    height: u64,
    state: BTreeMap<Key, Slot>,
    rows: BTreeMap<u64, Vec<SettlementRow>>,
}

impl Replay {
    /// Starts with the state before the first block; the rows of `epochs` will be collected.
    pub(crate) fn new(genesis: Genesis, epochs: &RangeInclusive<u64>) -> Self {
        let (chain, state) = (genesis.chain(), genesis.records());
        let rows = epochs.clone().map(|epoch| (epoch, Vec::new())).collect();
        Self { chain, state, genesis, parent: None, height: 0, rows }
    }

    /// The complete rows of a collected epoch, in the order of its books.
    pub(crate) fn rows(&self, epoch: u64) -> &[SettlementRow] {
        self.rows.get(&epoch).map_or(&[], |rows| rows)
    }

    /// Height of the block to apply next.
    pub(crate) const fn next(&self) -> u64 {
        self.height + 1
    }

    /// Runs the next block; returns its events.
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
        let closing_set = self.read(ledger::closing_set_keys(&context, &system));
        let closing_set = ClosingSet::new(&context, &system, &closing_set).map_err(refused)?;
        let keys = ledger::touches(&context, &system, &closing_set, &body.draws, &body.operations);
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
            rows.extend(closing_set.accounts().filter_map(|account| self.completed(account, paid)));
            self.rows.insert(paid, rows);
        }
        Ok(outcome.events)
    }

    /// The row that the second pass has just completed (BK-6), if the account has one.
    fn completed(&self, account: &Account, epoch: u64) -> Option<SettlementRow> {
        let reputation: Reputation = self.record(&Reputation::key(account))?;
        let slot = self.state.get(&Settlement::key(account, epoch % SETTLEMENT_RING))?;
        let row = Settlement::from_slot(slot).ok()?;
        (row.epoch == epoch && reputation.registered <= epoch).then_some((*account, *slot))
    }

    fn read(&self, keys: Vec<Key>) -> Records {
        keys.into_iter().map(|key| (key, self.state.get(&key).copied())).collect()
    }

    /// Reads a record of the replayed state.
    pub(crate) fn record<R: Record>(&self, key: &Key) -> Option<R> {
        self.state.get(key).and_then(|slot| R::from_slot(slot).ok())
    }
}

fn differs(height: u64, why: &str) -> Failure {
    let next =
        "use the `posync` version that the network runs; if it is the same, report this with the blocks";
    Failure::new(Exit::Failed, format!("block {height} cannot be repeated"), why.to_owned(), next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
    use commonware_utils::TestRng;
    use posync_node::genesis;
    use posync_protocol::{
        Amount, Body, Code, Operation, limits::Parameters, operation::Transfer, record::AccountState,
    };

    fn payer() -> PrivateKey {
        PrivateKey::from_seed(1)
    }

    fn receiver() -> Account {
        Account::of(&PrivateKey::from_seed(2).public_key())
    }

    fn start() -> Replay {
        let funded = vec![(Account::of(&payer().public_key()), Amount::sync(10))];
        let address = [([127, 0, 0, 1], 1).into()];
        let supply = Amount::sync(1_000_000);
        let dealt = genesis::deal(&address, Parameters::LOCAL, supply, funded, TestRng::new(7));
        Replay::new(dealt.expect("one authority").0, &(0..=0))
    }

    fn pay(replay: &Replay, nonce: u64, sync: u64) -> Operation {
        let body = Body::Transfer(Transfer { to: receiver(), amount: Amount::sync(sync) });
        Operation::signed(&payer(), &replay.chain, nonce, Amount::sync(1), replay.next(), body)
    }

    /// Makes the next block with these operations, as an authority that follows the rules would.
    fn block(replay: &Replay, operations: Vec<Operation>) -> (Header, BlockBody) {
        // A block without a seed loses its draw; every second block of a local network has one.
        let draws = vec![None; usize::from(replay.next().is_multiple_of(2))];
        let body = BlockBody {
            draws: Bounded::new(draws).expect("one at most"),
            operations: Bounded::new(operations).expect("few"),
            dkg: Bounded::default(),
        };
        let rows = body.operations.iter().map(|operation| (operation.id(), Code::Done)).collect();
        let header = Header {
            version: 1,
            chain: replay.chain,
            term: 0,
            view: replay.next(),
            leader: Account::of(&replay.genesis.authorities[0].key),
            parent_view: replay.next() - 1,
            parent: replay.parent.unwrap_or_default(),
            height: replay.next(),
            time_ms: 0,
            beacon: None,
            body_root: body.root(),
            receipts_root: Receipts { rows: Bounded::new(rows).expect("few") }.root(),
            state_root: [0; 32],
            ops_root: [0; 32],
            range_start: 0,
            range_end: 0,
            signature: [0; 64],
        };
        (header, body)
    }

    /// Two blocks with one payment each.
    fn chain() -> [(Header, BlockBody); 2] {
        let mut replay = start();
        let first = block(&replay, vec![pay(&replay, 0, 1)]);
        replay.apply(&first.0, &first.1).expect("the rules made it");
        let second = block(&replay, vec![pay(&replay, 1, 2)]);
        replay.apply(&second.0, &second.1).expect("the rules made it");
        let state: Option<AccountState> = replay.record(&AccountState::key(&receiver()));
        assert_eq!(state.expect("it was paid").balance, Amount::sync(3));
        [first, second]
    }

    type Blocks = [(Header, BlockBody); 2];
    /// A change: its name, the first height at which the replay fails, and the edit of the blocks.
    type Change = (&'static str, u64, fn(&mut Blocks));

    #[test]
    fn what_was_tampered_with_ends_a_replay_at_its_block() {
        let changes: &[Change] = &[
            ("a payment is left out", 1, |blocks| blocks[0].1.operations = Bounded::default()),
            ("a payment is made twice", 1, |blocks| {
                let twice = blocks[0].1.operations.iter().chain(blocks[0].1.operations.iter()).cloned();
                blocks[0].1.operations = Bounded::new(twice.collect()).expect("few");
            }),
            ("another sum is paid", 1, |blocks| {
                let replay = start();
                blocks[0].1.operations = Bounded::new(vec![pay(&replay, 0, 5)]).expect("few");
            }),
            ("blocks change places", 1, |blocks| blocks.swap(0, 1)),
            ("a block comes again", 2, |blocks| blocks[1] = blocks[0].clone()),
            ("another parent", 2, |blocks| blocks[1].0.parent = [9; 32]),
            ("another chain", 2, |blocks| blocks[1].0.chain = [9; 32]),
            ("other receipts", 2, |blocks| blocks[1].0.receipts_root = [9; 32]),
        ];
        for (name, at, change) in changes {
            let mut blocks = chain();
            change(&mut blocks);
            let mut replay = start();
            let failed = blocks.iter().find_map(|(header, body)| replay.apply(header, body).err());
            let failed = failed.unwrap_or_else(|| panic!("{name}: it was repeated"));
            assert!(matches!(failed.exit, Exit::Failed), "{name}");
            assert_eq!(replay.next(), *at, "{name}: the state before it stands");
            assert!(failed.to_json().to_string().contains("cannot be repeated"), "{name}");
        }
    }
}
