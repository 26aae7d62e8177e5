//! A state that contradicts the rules ends the block, for its proposer and for a verifier, and the error
//! names what broke. It never becomes a receipt, and no operation is left out for it.

use crate::{
    audits::{holding, until_drawn},
    canary::{change, insert, remove},
    script::Stage,
    world::{World, account},
};
use posync_protocol::{
    Account, Amount, Body, Bounded, Halt, Operation,
    ledger::{Invalid, Mode, Records, check_free, execute, touches_free},
    record::{Agreement, Audit, Ending, Offer, Provider, Reputation, Seat, System, Usage},
};

/// The faults with which the next block fails in both modes; what it did if it did not fail.
fn broken(world: &World, operations: &[Operation]) -> [String; 2] {
    let context = world.context(world.height + 1);
    let draws = world.resolve(&context);
    let records = world.read(&context, &draws, operations).expect("the block fits");
    [Mode::Propose, Mode::Verify].map(|mode| match execute(&context, &draws, operations, &records, mode) {
        Err(Invalid::State(broken)) => broken.to_string(),
        other => format!("not broken: {other:?}"),
    })
}

fn all_name(expected: &str, found: &[String]) {
    assert!(found.iter().all(|found| found.starts_with(expected)), "expected '{expected}', found {found:?}");
}

fn system(world: &mut World, work: impl FnOnce(&mut System)) {
    change(world, System::key(), work);
}

type Case = (&'static str, fn(&mut World, &Account), &'static str);

/// The fault that is named, the fault that is planted, the operation that meets it.
const CASES: &[Case] = &[
    ("System.balances", |w, _| system(w, |s| s.balances = Amount::ZERO), "a send b 5"),
    ("System.burned", |w, _| system(w, |s| s.burned = Amount::MAX), "a send b 5"),
    ("System.bonds", |w, _| system(w, |s| s.bonds = Amount::MAX), "p update bond=5s"),
    ("System.deposits", |w, _| system(w, |s| s.deposits = Amount::ZERO), "a close p"),
    ("System.agreements", |w, _| system(w, |s| s.agreements = 0), "a close p"),
    ("Usage: the record is missing", |w, p| remove(w, Usage::key(p, 0)), "a topup p 5"),
    ("Offer: the record is missing", |w, p| remove(w, Offer::key(p)), "b open p slot=1 end=700"),
    ("Reputation: the record is missing", |w, p| remove(w, Reputation::key(p)), "b open p slot=1 end=700"),
    ("Provider: the record is missing", |w, p| remove(w, Provider::key(p)), "a close p"),
    ("Ending: the record is missing", |w, p| remove(w, Ending::key(p, 700)), "a close p"),
    // Each voucher is judged apart, and so is each fault: it is no refused voucher.
    ("Usage: the record is missing", |w, p| remove(w, Usage::key(p, 0)), "p redeem p egress=10"),
    (
        "System.voucher_reserves",
        |w, _| system(w, |s| s.voucher_reserves = Amount::ZERO),
        "p redeem p egress=1048576",
    ),
    (
        "a slot of kind 99 does not decode",
        |w, p| {
            remove(w, Agreement::key(p, 0));
            insert(w, Agreement::key(p, 0), [99; 256]);
        },
        "a topup p 5",
    ),
];

#[test]
fn what_cannot_be_ends_the_block_and_is_named() {
    let mut stage = Stage::new();
    stage.play("p register\n a open p reserve=1s end=700\n blocks 8");
    for (expected, fault, line) in CASES {
        let operation = stage.sign(line);
        assert!(broken(&stage.world, core::slice::from_ref(&operation))[0].starts_with("not broken"));
        let mut world = stage.world.clone();
        fault(&mut world, &account("p"));
        all_name(expected, &broken(&world, &[operation]));
    }
}

#[test]
fn a_block_without_operations_ends_at_what_cannot_be() {
    let (stage, _) = holding(&[70_000]);
    let mut world = stage.world.clone();
    insert(&mut world, Seat::key(&Account::default()), [99; 256]);
    all_name("a slot of kind 99 does not decode", &broken(&world, &[]));
    let mut world = stage.world;
    world.check_every = u64::MAX;
    remove(&mut world, Audit::key(&account("p")));
    for _ in 0..100 {
        let found = broken(&world, &[]);
        if !found[0].starts_with("not broken") {
            return all_name("Audit: the record is missing", &found);
        }
        world.block(&[]).expect("no draw meets the provider");
    }
    panic!("100 blocks without a draw");
}

#[test]
fn a_storage_proof_hides_no_fault_behind_its_vouchers() {
    let (mut stage, member) = holding(&[70_000]);
    stage.play("a topup p 1s");
    until_drawn(&mut stage, &member);
    let mut proof = member.storage_proof(&stage.world).expect("a challenge is open");
    let voucher = stage.redemption_of(stage.id("p"), "session", 1 << 20, 0);
    proof.vouchers = Bounded::new(vec![voucher]).expect("one");
    let operation = stage.world.sign("p", Body::StorageProof(proof));
    assert!(broken(&stage.world, core::slice::from_ref(&operation))[0].starts_with("not broken"));
    let world = &mut stage.world;
    system(world, |s| s.voucher_reserves = Amount::ZERO);
    all_name("System.voucher_reserves", &broken(world, core::slice::from_ref(&operation)));
    // A node that tries it alone meets the same fault, and reports no refusal to its author.
    let context = world.context(world.height + 1);
    let keys = touches_free(&context, &operation).into_iter();
    let records: Records = keys.map(|key| (key, world.state.get(&key).copied())).collect();
    let tried = check_free(&context, &operation, &records);
    assert!(matches!(tried, Err(Halt::Broken(_))), "{tried:?}");
}
