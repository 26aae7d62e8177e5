//! Checks that the invariants can fail: they find every fault planted in a sound state.

use crate::{
    audits::holding,
    books::run_to,
    world::{World, account},
};
use posync_protocol::{
    Account, Amount, Class, Key, Record, Slot,
    agreement::lock_of,
    fenwick::place,
    invariants::check_all,
    record::{
        self, AccountState, Agreement, Audit, Books, Closing, DataSet, Ending, Endings, Endpoint, FeeTree,
        Lock, Market, Newcomer, Offer, Peak, Probe, Provider, ProviderAt, Reputation, Settlement, SlotTree,
        System, Usage,
    },
};

pub(crate) fn broken(world: &World) -> String {
    let slots = world.state.iter().map(|(key, slot)| (*key, *slot));
    check_all(slots, world.supply).err().map_or("sound".into(), |broken| broken.to_string())
}

/// Changes a record in place.
pub(crate) fn change<R: Record>(world: &mut World, key: Key, work: impl FnOnce(&mut R)) {
    let mut record: R = world.get(key).expect("the record stands");
    work(&mut record);
    world.state.insert(key, record.to_slot());
}

pub(crate) fn remove(world: &mut World, key: Key) {
    assert!(world.state.remove(&key).is_some(), "the record stood");
}

pub(crate) fn insert(world: &mut World, key: Key, slot: Slot) {
    assert!(world.state.insert(key, slot).is_none(), "a record of its own");
}

fn more(amount: &mut Amount) {
    *amount = Amount::new(amount.grains() + 1).expect("below the bound");
}

/// Plants a lock at the opening's prices, with a change.
fn lock(world: &mut World, p: &Account, work: impl FnOnce(&mut Lock)) {
    let terms: Agreement = world.get(Agreement::key(p, 0)).expect("it stands");
    change(world, Usage::key(p, 0), |usage: &mut Usage| {
        let mut lock = lock_of(&terms, usage);
        work(&mut lock);
        usage.lock = Some(lock);
    });
}

type Fault = (&'static str, fn(&mut World, &Account));

const MONEY: &[Fault] = &[
    ("System.balances", |w, p| change(w, AccountState::key(p), |r: &mut AccountState| more(&mut r.balance))),
    ("System.voucher_reserves", |w, p| {
        change(w, Usage::key(p, 0), |r: &mut Usage| more(&mut r.voucher_reserve));
    }),
    ("System.deposits", |w, p| change(w, Usage::key(p, 0), |r: &mut Usage| more(&mut r.deposit))),
    ("System.storage_pools", |w, p| change(w, Provider::key(p), |r: &mut Provider| more(&mut r.pool))),
    ("System.bonds", |w, p| change(w, Provider::key(p), |r: &mut Provider| more(&mut r.bond))),
    ("the supply", |w, _| change(w, System::key(), |r: &mut System| more(&mut r.burned))),
    ("the supply", |w, _| change(w, System::key(), |r: &mut System| more(&mut r.reserve))),
    ("the supply", |w, _| more(&mut w.supply)),
];

/// The lowest node of slot 0, whose agreement ends in epoch 700.
const NODE: u32 = place(700, 0) + 1;

const SUMS: &[Fault] = &[
    ("Provider.slots", |w, p| change(w, Provider::key(p), |r: &mut Provider| r.slots += 1)),
    ("Provider.sold", |w, p| change(w, Provider::key(p), |r: &mut Provider| r.sold[Class::Storage] += 1)),
    ("sold within the declared", |w, p| {
        change(w, Offer::key(p), |r: &mut Offer| r.capacity[Class::Storage] = 1)
    }),
    ("sold within the declared", |w, p| {
        change(w, Provider::key(p), |r: &mut Provider| r.sold[Class::Egress] = u64::MAX);
    }),
    ("Provider.slot_weight", |w, p| change(w, Provider::key(p), |r: &mut Provider| r.slot_weight += 1)),
    ("Provider.weighed", |w, p| change(w, Provider::key(p), |r: &mut Provider| r.weighed -= 1)),
    ("System.fee_weight", |w, p| change(w, Provider::key(p), |r: &mut Provider| r.weighed = 0)),
    ("Provider.leaves", |w, p| change(w, Provider::key(p), |r: &mut Provider| r.leaves += 1)),
    ("Provider.paid", |w, p| change(w, Provider::key(p), |r: &mut Provider| r.paid += 1)),
    ("Provider.paid_base", |w, p| change(w, Provider::key(p), |r: &mut Provider| r.paid_base += 1)),
    ("Provider.index", |w, p| change(w, Provider::key(p), |r: &mut Provider| r.index += 1)),
    ("storage reserves within the pool", |w, p| {
        change(w, Usage::key(p, 0), |r: &mut Usage| r.storage_reserve = Amount::sync(1_000));
    }),
    ("disputed within signed", |w, p| change(w, Usage::key(p, 0), |r: &mut Usage| more(&mut r.disputed))),
    ("egress within the quota", |w, p| {
        change(w, Usage::key(p, 0), |r: &mut Usage| r.redeemed.egress = u64::MAX)
    }),
    ("leaves within the quota", |w, p| {
        change(w, Agreement::key(p, 0), |r: &mut Agreement| r.quota[Class::Storage] = 0);
    }),
    ("Ending.agreements", |w, p| change(w, Ending::key(p, 700), |r: &mut Ending| r.agreements += 1)),
    ("at the opening's prices or above", |w, p| lock(w, p, |lock| lock.before.egress.price -= 1)),
    ("at the opening's prices or above", |w, p| lock(w, p, |lock| lock.before.gas.price -= 1)),
    ("at the opening's base or above", |w, p| lock(w, p, |lock| lock.before.egress.base -= 1)),
    ("at the opening's base or above", |w, p| lock(w, p, |lock| lock.before.gas.base -= 1)),
    ("what was paid in is not dearer", |w, p| lock(w, p, |lock| lock.prices.egress.price -= 1)),
    ("what was paid in is not dearer", |w, p| lock(w, p, |lock| lock.prices.gas.price -= 1)),
    ("the base in force never falls", |w, p| lock(w, p, |lock| lock.prices.egress.slow -= 1)),
    ("the base in force never falls", |w, p| lock(w, p, |lock| lock.prices.gas.slow -= 1)),
    ("Ending.paid", |w, p| change(w, Ending::key(p, 700), |r: &mut Ending| r.paid += 1)),
    ("Ending.leaves", |w, p| change(w, Ending::key(p, 700), |r: &mut Ending| r.leaves += 1)),
    ("SlotTree.sum", |w, p| change(w, SlotTree::key(p, NODE), |r: &mut SlotTree| r.sum += 1)),
    ("FeeTree.sum", |w, _| change(w, FeeTree::key(1), |r: &mut FeeTree| r.sum += 1)),
    ("System.fee_weight", |w, _| change(w, System::key(), |r: &mut System| r.fee_weight += 1)),
    ("System.agreements", |w, _| change(w, System::key(), |r: &mut System| r.agreements += 1)),
    ("System.fee_weight", |w, _| change(w, ProviderAt::key(0), |r: &mut ProviderAt| r.account = None)),
];

/// Faults with records that are missing, or that no record refers to.
const RECORDS: &[Fault] = &[
    ("System", |w, _| remove(w, System::key())),
    ("ProviderAt", |w, _| remove(w, ProviderAt::key(0))),
    ("Newcomer", |w, _| remove(w, Newcomer::key(0))),
    ("Audit of a provider", |w, p| remove(w, Audit::key(p))),
    ("Endpoint of a provider", |w, p| remove(w, Endpoint::key(p))),
    ("marked", |w, p| remove(w, Endings::key(p))),
    ("Ending", |w, p| remove(w, Ending::key(p, 700))),
    ("Provider.slot_weight", |w, p| remove(w, DataSet::key(p, 0))),
    ("SlotTree node", |w, p| remove(w, SlotTree::key(p, NODE))),
    ("SlotTree node", |w, p| {
        remove(w, SlotTree::key(p, NODE));
        insert(w, SlotTree::key(p, 1), SlotTree { sum: 1 }.to_slot());
    }),
    ("FeeTree node", |w, _| remove(w, FeeTree::key(1))),
    ("FeeTree nodes with a sum", |w, _| insert(w, FeeTree::key(7), FeeTree { sum: 1 }.to_slot())),
    ("SlotTree nodes with a sum", |w, p| {
        insert(w, SlotTree::key(p, 7), SlotTree { sum: 1 }.to_slot());
    }),
    ("orphaned Ending", |w, p| insert(w, Ending::key(p, 99), Ending::default().to_slot())),
    ("orphaned DataSet", |w, p| insert(w, DataSet::key(p, 99), DataSet::default().to_slot())),
    ("orphaned Audit", |w, _| insert(w, Audit::key(&Account::default()), Audit::default().to_slot())),
    ("orphaned ProviderAt", |w, _| {
        insert(w, ProviderAt::key(9), ProviderAt { account: None, next_vacant: None }.to_slot());
    }),
    ("orphaned Probe", |w, _| {
        for place in 100..200 {
            insert(w, Key([place; 32]), Probe { epoch: 1, seed: [0; 32], providers: 1 }.to_slot());
        }
    }),
    ("orphaned Usage", |w, p| insert(w, Usage::key(p, 99), Usage::default().to_slot())),
    ("slots of a known kind", |w, _| insert(w, Key([9; 32]), [99; 256])),
    ("does not decode", |w, _| {
        let mut damaged = FeeTree { sum: 1 }.to_slot();
        damaged[255] = 1;
        insert(w, Key([9; 32]), damaged);
    }),
];

fn row(account: &Account, epoch: u64) -> Key {
    Settlement::key(account, epoch)
}

/// Faults in the accounting of a ledger whose last block is in epoch 4.
const BOOKS: &[Fault] = &[
    ("the supply", |w, _| change(w, System::key(), |r: &mut System| more(&mut r.carry))),
    ("Closing.weight", |w, _| change(w, Closing::of(3), |r: &mut Closing| r.weight += 1)),
    ("Closing.weight", |w, p| change(w, row(p, 3), |r: &mut Settlement| r.weight -= 1)),
    ("Closing.paid", |w, _| change(w, Closing::of(2), |r: &mut Closing| more(&mut r.paid))),
    ("Closing.paid", |w, p| change(w, row(p, 2), |r: &mut Settlement| r.subsidy = Amount::ZERO)),
    ("Closing.burn", |w, _| change(w, Closing::of(2), |r: &mut Closing| more(&mut r.burn))),
    ("paid within the pool", |w, _| change(w, Closing::of(2), |r: &mut Closing| r.pool = Amount::ZERO)),
    ("the pool within the emission", |w, _| {
        change(w, Closing::of(2), |r: &mut Closing| r.emission = Amount::ZERO);
    }),
    ("rows of an epoch", |w, _| change(w, Closing::of(2), |r: &mut Closing| r.rows = 2)),
    ("the carry covers the pool", |w, _| {
        change(w, Closing::of(2), |r: &mut Closing| {
            r.pool = Amount::new(r.pool.grains() + 1_000).expect("below the bound");
        });
    }),
    ("Closing stands in its place", |w, _| change(w, Closing::of(2), |r: &mut Closing| r.epoch = 9)),
    ("Settlement.fee", |w, p| change(w, row(p, 1), |r: &mut Settlement| more(&mut r.fee))),
    ("Settlement.signed", |w, p| change(w, row(p, 1), |r: &mut Settlement| more(&mut r.signed))),
    ("base within its fee", |w, p| change(w, row(p, 1), |r: &mut Settlement| r.base = Amount::sync(1))),
    ("disputed within signed", |w, p| {
        change(w, row(p, 1), |r: &mut Settlement| r.disputed = Amount::sync(1))
    }),
    ("weight within its base", |w, p| change(w, row(p, 1), |r: &mut Settlement| r.weight = u128::MAX)),
    ("subsidy within its burn", |w, p| {
        change(w, row(p, 1), |r: &mut Settlement| r.subsidy = Amount::sync(1))
    }),
    ("Books.paid", |w, _| change(w, Books::key(1), |r: &mut Books| r.paid = Amount::sync(1))),
    ("Books.drawn", |w, _| change(w, Books::key(1), |r: &mut Books| r.drawn = Amount::sync(1))),
    ("Books.pool", |w, _| change(w, Books::key(1), |r: &mut Books| r.emission = Amount::ZERO)),
    ("Books.pool within the burn", |w, _| change(w, Books::key(1), |r: &mut Books| r.burn = Amount::ZERO)),
    ("Books stand in their place", |w, _| change(w, Books::key(1), |r: &mut Books| r.epoch = 9)),
    ("a score or quality", |w, p| {
        change(w, Reputation::key(p), |r: &mut Reputation| r.scores[Class::Storage] = 1_000_000_001);
    }),
    ("Reputation of a provider", |w, p| remove(w, Reputation::key(p))),
    ("orphaned Reputation", |w, _| {
        insert(w, Reputation::key(&Account::default()), Reputation::newborn(0).to_slot());
    }),
    ("orphaned Settlement", |w, _| {
        insert(
            w,
            Settlement::key(&Account::default(), 1),
            Settlement { epoch: 1, ..Settlement::default() }.to_slot(),
        );
    }),
    ("orphaned Market", |w, _| insert(w, record::place(Market::KIND, &[9]), Market::default().to_slot())),
    ("orphaned Peak", |w, _| {
        for place in 9..99 {
            insert(w, Peak::key(place, 0), Peak::default().to_slot());
        }
    }),
];

#[test]
fn every_planted_fault_in_the_books_is_found() {
    let (mut stage, member) = holding(&[70_000, 3_000]);
    run_to(&mut stage, &member, 5, true);
    assert_eq!(broken(&stage.world), "sound");
    for (expected, fault) in BOOKS {
        let mut world = stage.world.clone();
        fault(&mut world, &account("p"));
        let found = broken(&world);
        assert!(found.contains(expected), "planted '{expected}', found '{found}'");
    }
}

#[test]
fn every_planted_fault_is_found() {
    let (stage, _) = holding(&[70_000, 3_000]);
    assert_eq!(broken(&stage.world), "sound");
    for (expected, fault) in [MONEY, SUMS, RECORDS].concat() {
        let mut world = stage.world.clone();
        fault(&mut world, &account("p"));
        let found = broken(&world);
        assert!(found.contains(expected), "planted '{expected}', found '{found}'");
    }
}
