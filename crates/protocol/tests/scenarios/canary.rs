//! The invariant can fail: every planted fault in a sound state is found.

use crate::{
    audits::holding,
    world::{World, account},
};
use posync_protocol::{
    Account, Amount, Key, Record, Slot,
    invariants::check_all,
    record::{
        AccountState, Agreement, Audit, DataSet, Ending, Endings, Endpoint, FeeTree, Newcomer, Provider,
        ProviderAt, SlotTree, System, Use,
    },
};

fn broken(world: &World) -> String {
    let slots = world.state.iter().map(|(key, slot)| (*key, *slot));
    check_all(slots, world.supply).err().map_or("sound".into(), |broken| broken.to_string())
}

/// Changes a record in place.
fn change<R: Record>(world: &mut World, key: Key, work: impl FnOnce(&mut R)) {
    let mut record: R = world.get(key).expect("the record stands");
    work(&mut record);
    world.state.insert(key, record.to_slot());
}

fn remove(world: &mut World, key: Key) {
    assert!(world.state.remove(&key).is_some(), "the record stood");
}

fn insert(world: &mut World, key: Key, slot: Slot) {
    assert!(world.state.insert(key, slot).is_none(), "a record of its own");
}

fn more(amount: &mut Amount) {
    *amount = Amount::new(amount.grains() + 1).expect("below the bound");
}

type Fault = (&'static str, fn(&mut World, &Account));

const MONEY: &[Fault] = &[
    ("System.balances", |w, p| change(w, AccountState::key(p), |r: &mut AccountState| more(&mut r.balance))),
    ("System.voucher_reserves", |w, p| {
        change(w, Use::key(p, 0), |r: &mut Use| more(&mut r.voucher_reserve));
    }),
    ("System.deposits", |w, p| change(w, Use::key(p, 0), |r: &mut Use| more(&mut r.deposit))),
    ("System.storage_pools", |w, p| change(w, Provider::key(p), |r: &mut Provider| more(&mut r.pool))),
    ("System.bonds", |w, p| change(w, Provider::key(p), |r: &mut Provider| more(&mut r.bond))),
    ("the supply", |w, _| change(w, System::key(), |r: &mut System| more(&mut r.burned))),
    ("the supply", |w, _| change(w, System::key(), |r: &mut System| more(&mut r.reserve))),
    ("the supply", |w, _| more(&mut w.supply)),
];

const SUMS: &[Fault] = &[
    ("Provider.slots", |w, p| change(w, Provider::key(p), |r: &mut Provider| r.slots += 1)),
    ("Provider.sold", |w, p| change(w, Provider::key(p), |r: &mut Provider| r.sold += 1)),
    ("sold within the capacity", |w, p| change(w, Provider::key(p), |r: &mut Provider| r.capacity = 1)),
    ("Provider.phi", |w, p| change(w, Provider::key(p), |r: &mut Provider| r.phi += 1)),
    ("Provider.paid", |w, p| change(w, Provider::key(p), |r: &mut Provider| r.paid += 1)),
    ("Provider.paid_base", |w, p| change(w, Provider::key(p), |r: &mut Provider| r.paid_base += 1)),
    ("Provider.index", |w, p| change(w, Provider::key(p), |r: &mut Provider| r.index += 1)),
    ("storage reserves within the pool", |w, p| {
        change(w, Use::key(p, 0), |r: &mut Use| r.storage_reserve = Amount::sync(1_000));
    }),
    ("disputed within signed", |w, p| change(w, Use::key(p, 0), |r: &mut Use| more(&mut r.disputed))),
    ("egress within the quota", |w, p| change(w, Use::key(p, 0), |r: &mut Use| r.egress = u64::MAX)),
    ("leaves within the quota", |w, p| {
        change(w, Agreement::key(p, 0), |r: &mut Agreement| r.quota_leaves = 0);
    }),
    ("Ending.agreements", |w, p| change(w, Ending::key(p, 700), |r: &mut Ending| r.agreements += 1)),
    ("Ending.paid", |w, p| change(w, Ending::key(p, 700), |r: &mut Ending| r.paid += 1)),
    ("SlotTree.sum", |w, p| change(w, SlotTree::key(p, 1), |r: &mut SlotTree| r.sum += 1)),
    ("FeeTree.sum", |w, _| change(w, FeeTree::key(1), |r: &mut FeeTree| r.sum += 1)),
    ("System.phi", |w, _| change(w, System::key(), |r: &mut System| r.phi += 1)),
    ("System.agreements", |w, _| change(w, System::key(), |r: &mut System| r.agreements += 1)),
    ("System.phi", |w, _| change(w, ProviderAt::key(0), |r: &mut ProviderAt| r.account = None)),
];

/// Records that are gone, or that nothing refers to.
const RECORDS: &[Fault] = &[
    ("System", |w, _| remove(w, System::key())),
    ("ProviderAt", |w, _| remove(w, ProviderAt::key(0))),
    ("Newcomer", |w, _| remove(w, Newcomer::key(0))),
    ("Audit of a provider", |w, p| remove(w, Audit::key(p))),
    ("Endpoint of a provider", |w, p| remove(w, Endpoint::key(p))),
    ("marked", |w, p| remove(w, Endings::key(p))),
    ("Ending", |w, p| remove(w, Ending::key(p, 700))),
    ("Provider.phi", |w, p| remove(w, DataSet::key(p, 0))),
    ("SlotTree node", |w, p| remove(w, SlotTree::key(p, 1))),
    ("FeeTree node", |w, _| remove(w, FeeTree::key(1))),
    ("FeeTree nodes with a sum", |w, _| insert(w, FeeTree::key(7), FeeTree { sum: 1 }.to_slot())),
    ("SlotTree nodes with a sum", |w, p| {
        insert(w, SlotTree::key(p, 7), SlotTree { sum: 1 }.to_slot());
    }),
    ("orphaned Ending", |w, p| insert(w, Ending::key(p, 99), Ending::default().to_slot())),
    ("orphaned DataSet", |w, p| insert(w, DataSet::key(p, 99), DataSet::default().to_slot())),
    ("orphaned Use", |w, p| insert(w, Use::key(p, 99), Use::default().to_slot())),
    ("slots of a known kind", |w, _| insert(w, Key([9; 32]), [99; 256])),
    ("does not decode", |w, _| {
        let mut damaged = FeeTree { sum: 1 }.to_slot();
        damaged[255] = 1;
        insert(w, Key([9; 32]), damaged);
    }),
];

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
