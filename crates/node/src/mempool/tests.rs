//! The pool, by table and by property. Signatures play no part here: they were checked before.

use super::state::{Admission, Funds, Pool, Refused};
use crate::application::SELECTIONS_MAX;
use commonware_codec::EncodeSize as _;
use posync_protocol::{
    Account, AgreementId, Amount, Body, Bounded, Code, Hash, Operation, Units,
    ledger::BlockContext,
    limits::{
        BODY_BYTES_MAX, FREE_LANE_BYTES, MEMPOOL_BYTES, MEMPOOL_FREE_BYTES, MEMPOOL_PER_ACCOUNT,
        MEMPOOL_REFUSALS_MAX, MEMPOOL_RESERVED_BYTES, MEMPOOL_RESERVED_PER_ACCOUNT, MEMPOOL_SETTLE_BYTES,
        MEMPOOL_SETTLE_PER_ACCOUNT, Parameters,
    },
    operation::{
        AuditCommit, Lane, ProvedRead, ReadAnswer, Redeem, Redemption, Settle, StorageProof, SumPath,
        Transfer, Voucher,
    },
};
use proptest::prelude::*;
use std::collections::BTreeMap;

mod keeps_out;

const EXPIRES: u64 = 100;

fn account(number: u64) -> Account {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    Account(bytes)
}

/// The context of the next block of an empty chain, on which nothing of these tests depends but its parameters.
fn next() -> BlockContext {
    BlockContext {
        chain: [9; 32],
        parameters: Parameters::LOCAL,
        height: 50,
        leader: account(0),
        parent: [0; 32],
        seed: None,
    }
}

fn operation(signer: u64, nonce: u64, fee: u128, body: Body) -> Operation {
    let max_fee = Amount::new(fee).expect("small");
    Operation { signer: account(signer), nonce, max_fee, expires: EXPIRES, body, signature: [0; 64] }
}

fn pay(signer: u64, nonce: u64, fee: u128) -> Operation {
    let body = Body::Transfer(Transfer { to: account(0), amount: Amount::ZERO });
    operation(signer, nonce, fee, body)
}

/// A paid operation of about 20 KiB, so that floods need few of them.
fn bulky(signer: u64, nonce: u64, fee: u128) -> Operation {
    let agreement = AgreementId { provider: account(signer), slot: 0, opened: 1 };
    let voucher = Voucher { agreement, units: Units::egress(1), signature: [0; 64] };
    let redemption = Redemption { voucher, session_key: account(1), claim: None };
    let vouchers = Bounded::new(vec![redemption; 110]).expect("within the bound");
    operation(signer, nonce, fee, Body::Redeem(Redeem { vouchers }))
}

/// A storage proof of about 8 KiB.
fn storage_proof(provider: u64, height: u64) -> Operation {
    let position = SumPath { lefts: 0, siblings: Bounded::new(vec![([1; 32], 1); 20]).expect("a path") };
    let read = ProvedRead {
        place: 0,
        shard: [1; 32],
        length: 1024,
        position,
        leaf: Bounded::new(vec![7; 1024]).expect("a leaf"),
        path: Bounded::new(vec![[2; 32]; 12]).expect("a path"),
    };
    let body = Body::StorageProof(StorageProof {
        height,
        answers: Bounded::new(vec![ReadAnswer::Proved(read); 4]).expect("four reads"),
        ..StorageProof::default()
    });
    operation(provider, 0, 0, body)
}

fn settle(signer: u64, provider: u64) -> Operation {
    let slots = Bounded::new(vec![Default::default(); 64]).expect("64 slots");
    let settle = Settle { provider: account(provider), index: 0, slots, endings: Bounded::default() };
    operation(signer, 0, 0, Body::Settle(settle))
}

fn commit(signer: u64, epoch: u64, fee: u128) -> Operation {
    let commit = AuditCommit { epoch, digest: [1; 32], signature: [0; 64] };
    operation(signer, 0, fee, Body::AuditCommit(commit))
}

fn rich(nonce: u64) -> Option<Funds> {
    Some(Funds { nonce, balance: Amount::MAX })
}

/// Adds it as the ledger admits it; upkeep counts as a stranger's. A unit of the fee is a byte.
fn add(pool: &mut Pool, operation: &Operation, funds: Option<Funds>) -> Result<(), Refused> {
    let of = || funds.unwrap_or(Funds { nonce: 0, balance: Amount::ZERO });
    let admission = match operation.body.lane() {
        Lane::StorageProof => Admission::StorageProof,
        Lane::Reserved => Admission::Reserved { funds: of(), is_seat: true },
        Lane::Upkeep => Admission::Upkeep { is_party: false },
        Lane::Paid => Admission::Paid {
            funds: of(),
            units: operation.encode_size() as u64,
            takes: operation.takes(&next()),
        },
    };
    pool.insert(operation.id(), operation.clone(), admission)
}

fn ids(operations: &[Operation]) -> Vec<Hash> {
    operations.iter().map(Operation::id).collect()
}

#[test]
fn order_of_the_paid_lane() {
    // (signer, nonce, fee), in the order of arrival, and the order in which they are offered.
    type Offer = (u64, u64, u128);
    let table: [(&str, &[Offer], &[Offer]); 6] = [
        ("by fee", &[(1, 0, 100), (2, 0, 300), (3, 0, 200)], &[(2, 0, 300), (3, 0, 200), (1, 0, 100)]),
        ("then by arrival", &[(2, 0, 100), (1, 0, 100)], &[(2, 0, 100), (1, 0, 100)]),
        ("nonces in order", &[(1, 1, 900), (1, 0, 100)], &[(1, 0, 100), (1, 1, 900)]),
        ("a gap waits", &[(1, 0, 100), (1, 2, 100), (2, 5, 100)], &[(1, 0, 100)]),
        (
            "the gap is filled",
            &[(1, 2, 100), (1, 1, 100), (1, 0, 100)],
            &[(1, 0, 100), (1, 1, 100), (1, 2, 100)],
        ),
        (
            "accounts interleave by fee",
            &[(1, 0, 300), (1, 1, 100), (2, 0, 200), (2, 1, 400)],
            &[(1, 0, 300), (2, 0, 200), (2, 1, 400), (1, 1, 100)],
        ),
    ];
    for (name, arrivals, offered) in table {
        let mut pool = Pool::default();
        for (signer, nonce, fee) in arrivals {
            add(&mut pool, &pay(*signer, *nonce, *fee), rich(0)).expect("taken");
        }
        let expected: Vec<Operation> = offered.iter().map(|(s, n, f)| pay(*s, *n, *f)).collect();
        assert_eq!(ids(&pool.candidates(1, 0)), ids(&expected), "{name}");
    }
}

#[test]
fn what_the_paid_lane_refuses() {
    let funds = |nonce, balance| Some(Funds { nonce, balance: Amount::new(balance).expect("small") });
    let limit = MEMPOOL_PER_ACCOUNT as u64;
    // A payment may create its receiver's account.
    let burn = next().parameters.account_burn.grains();
    // The waiting operations, the new one, the signer's funds, the verdict.
    type Refusal = (&'static str, Vec<Operation>, Operation, Option<Funds>, Result<(), Refused>);
    let no = |code: Code| Err(Refused::Code(code));
    let table: Vec<Refusal> = vec![
        ("an old nonce", vec![], pay(1, 4, 10), funds(5, 10), no(Code::NonceOld)),
        ("the next nonce", vec![], pay(1, 5, 10), funds(5, 10), Ok(())),
        ("the last in reach", vec![], pay(1, 5 + limit - 1, 10), funds(5, 10), Ok(())),
        ("out of reach", vec![], pay(1, 5 + limit, 10), funds(5, 10), no(Code::NonceGap)),
        ("a fee beyond the balance", vec![], pay(1, 0, 11), funds(0, 10), no(Code::Balance)),
        ("fees beyond it together", vec![pay(1, 0, 6)], pay(1, 1, 5), funds(0, 10), no(Code::Balance)),
        ("fees just within", vec![pay(1, 0, 5)], pay(1, 1, 5), funds(0, 10 + burn), Ok(())),
        ("a burn beyond it", vec![pay(1, 0, 5)], pay(1, 1, 5), funds(0, 9 + burn), no(Code::Balance)),
        ("the same again", vec![pay(1, 0, 10)], pay(1, 0, 10), funds(0, 10), Ok(())),
        (
            "another for the same fee",
            vec![pay(1, 0, 100)],
            bulky(1, 0, 100),
            funds(0, 200),
            no(Code::NonceOld),
        ),
        ("a tenth more replaces", vec![pay(1, 0, 100)], pay(1, 0, 111), funds(0, 111), Ok(())),
        ("a little more does not", vec![pay(1, 0, 100)], pay(1, 0, 109), funds(0, 200), no(Code::NonceOld)),
    ];
    for (name, waiting, comes, funds, verdict) in table {
        let mut pool = Pool::default();
        for operation in &waiting {
            add(&mut pool, operation, funds).expect("taken");
        }
        assert_eq!(add(&mut pool, &comes, funds), verdict, "{name}");
        let count = waiting.iter().filter(|other| other.nonce != comes.nonce).count();
        let expected = if verdict.is_ok() { count + 1 } else { waiting.len() };
        assert_eq!(pool.len(), expected, "{name}");
    }
}

#[test]
fn an_operation_is_new_until_a_block_has_it() {
    let mut pool = Pool::default();
    let (first, second) = (pay(1, 0, 10), pay(1, 1, 10));
    assert!(!pool.has_new() && !pool.met(&first.id()));
    for operation in [&first, &second] {
        add(&mut pool, operation, rich(0)).expect("taken");
    }
    assert!(pool.met(&first.id()) && pool.has_new(), "the second stands in no block");
    assert!(pool.met(&second.id()) && !pool.has_new());
    pool.finalized(1, &[first]);
    assert!(!pool.has_new());
}

#[test]
fn what_the_ledger_says_clears_the_pool() {
    let mut pool = Pool::default();
    for nonce in 0..5 {
        add(&mut pool, &pay(1, nonce, 10), rich(0)).expect("taken");
    }
    for provider in [7, 8] {
        add(&mut pool, &storage_proof(provider, 4), None).expect("taken");
    }
    add(&mut pool, &settle(1, 9), rich(0)).expect("taken");
    // Another operation with the same nonce was final, so ours can never be included.
    pool.finalized(5, &[pay(1, 0, 77), pay(1, 1, 10), storage_proof(7, 4)]);
    assert!(!pool.contains(&pay(1, 0, 10).id()) && !pool.contains(&pay(1, 1, 10).id()));
    assert!(!pool.contains(&storage_proof(7, 4).id()) && pool.contains(&storage_proof(8, 4).id()));
    assert_eq!(pool.candidates(6, 0).len(), 5, "a storage proof, a settle, three payments");
    // The balance fell: only the first is covered.
    pool.refresh(&account(1), Funds { nonce: 2, balance: Amount::new(15).expect("small") });
    assert_eq!(ids(&pool.candidates(6, 0))[2..], [pay(1, 2, 10).id()]);
    // An older state resets nothing.
    pool.refresh(&account(1), Funds { nonce: 0, balance: Amount::MAX });
    assert!(pool.contains(&pay(1, 2, 10).id()));
    assert_eq!(pool.candidates(6, 0).len(), 3);
    // Expiry: the last valid height still allows a proposal at that height.
    pool.finalized(EXPIRES - 1, &[]);
    assert_eq!(pool.candidates(EXPIRES, 0).len(), 3);
    pool.finalized(EXPIRES, &[]);
    assert!(pool.is_empty() && pool.bytes() == 0);
}

#[test]
fn free_operations_that_proposals_leave_out_go() {
    let mut pool = Pool::default();
    let (free, paid) = (storage_proof(7, 4), pay(1, 0, 10));
    add(&mut pool, &free, None).expect("taken");
    add(&mut pool, &paid, rich(0)).expect("taken");
    for _ in 1..MEMPOOL_REFUSALS_MAX {
        pool.refused(&[free.id(), paid.id()]);
    }
    assert_eq!(pool.len(), 2);
    pool.refused(&[free.id(), paid.id()]);
    assert_eq!(ids(&pool.candidates(5, 0)), [paid.id()]);
}

#[test]
fn who_was_refused_for_a_challenge_answers_it_behind_those_who_were_not() {
    let mut pool = Pool::default();
    let (old, young) = (storage_proof(7, 4), storage_proof(8, 5));
    for operation in [&young, &old] {
        add(&mut pool, operation, None).expect("taken");
    }
    assert_eq!(ids(&pool.candidates(5, 0)), ids(&[old.clone(), young.clone()]), "the oldest challenge first");
    for _ in 0..MEMPOOL_REFUSALS_MAX {
        pool.refused(&[old.id()]);
    }
    assert_eq!(ids(&pool.candidates(5, 0)), [young.id()], "it was refused often enough");
    add(&mut pool, &old, None).expect("taken again");
    assert_eq!(ids(&pool.candidates(5, 0)), ids(&[young, old]), "and comes last for this challenge");
}

#[test]
fn what_is_refused_once_in_the_reserved_lane_or_as_upkeep_goes() {
    let mut pool = Pool::default();
    let all = [commit(1, 0, 10), settle(2, 9), pay(1, 0, 10)];
    for operation in &all {
        add(&mut pool, operation, rich(0)).expect("taken");
    }
    assert_eq!(ids(&pool.candidates(5, 0)), ids(&all), "in the order of the lanes");
    pool.refused(&ids(&all));
    assert_eq!(ids(&pool.candidates(5, 0)), [all[2].id()], "who pays stays");
}

#[test]
fn what_offers_less_than_the_base_fee_waits_with_what_follows_on_it() {
    let mut pool = Pool::default();
    let units = pay(1, 0, 0).encode_size() as u128;
    let all =
        [pay(1, 0, 300 * units), pay(1, 1, 100 * units), pay(1, 2, 900 * units), pay(2, 0, 200 * units)];
    for operation in &all {
        add(&mut pool, operation, rich(0)).expect("taken");
    }
    let offered = |base_fee: u64| ids(&pool.candidates(5, base_fee));
    let [first, second, third, other] = all.each_ref().map(Operation::id);
    assert_eq!(offered(100), [first, other, second, third]);
    assert_eq!(offered(101), [first, other]);
    assert_eq!(offered(201), [first]);
    assert!(offered(301).is_empty());
    assert_eq!(pool.len(), 4, "none is dropped");
    add(&mut pool, &commit(3, 0, 1), rich(0)).expect("taken");
    assert_eq!(
        ids(&pool.candidates(5, u64::MAX)),
        [commit(3, 0, 1).id()],
        "the reserved lane does not notice"
    );
}

/// By fee per byte, an operation that names many records would come before one that names few.
#[test]
fn paid_ones_are_ranked_by_what_they_are_charged_for() {
    let mut pool = Pool::default();
    let (wide, plain) = (pay(1, 0, 8_000), pay(2, 0, 2_000));
    let paid = |units| Admission::Paid { funds: rich(0).expect("rich"), units, takes: Amount::ZERO };
    pool.insert(wide.id(), wide.clone(), paid(8_000)).expect("taken");
    pool.insert(plain.id(), plain.clone(), paid(1_000)).expect("taken");
    assert_eq!(ids(&pool.candidates(5, 0)), [plain.id(), wide.id()]);
}

#[test]
fn the_reserved_lane_has_room_of_its_own_and_bounds_each_account() {
    let mut pool = Pool::default();
    let most = MEMPOOL_RESERVED_PER_ACCOUNT as u64;
    for epoch in 0..most {
        add(&mut pool, &commit(1, epoch, 10), rich(0)).expect("taken");
    }
    assert_eq!(add(&mut pool, &commit(1, most, 10), rich(0)), Err(Refused::Full));
    add(&mut pool, &commit(1, 3, 11), rich(0)).expect("it takes the place of the one with its key");
    assert!(!pool.contains(&commit(1, 3, 10).id()) && pool.contains(&commit(1, 3, 11).id()));
    let poor = Some(Funds { nonce: 0, balance: Amount::new(9).expect("small") });
    assert_eq!(add(&mut pool, &commit(2, 0, 10), poor), Err(Refused::Code(Code::Balance)));
    let mut signer = 3;
    while add(&mut pool, &commit(signer, 0, 10), rich(0)).is_ok() {
        signer += 1;
    }
    assert!(pool.bytes() <= MEMPOOL_RESERVED_BYTES && pool.bytes() > MEMPOOL_RESERVED_BYTES - 1_000);
    add(&mut pool, &storage_proof(7, 4), None).expect("its share is its own");
    add(&mut pool, &bulky(1, 0, 1), rich(0)).expect("so is that of who pays");
    pool.finalized(5, &[commit(3, 0, 10)]);
    add(&mut pool, &commit(3, 0, 11), rich(0)).expect("there is room again");
}

#[test]
fn upkeep_of_a_provider_waits_once_and_parties_come_first() {
    let mut pool = Pool::default();
    let by = |signer, provider, is_party| {
        let operation = settle(signer, provider);
        (operation.id(), operation, Admission::Upkeep { is_party })
    };
    let put = |pool: &mut Pool, (id, operation, admission)| pool.insert(id, operation, admission);
    put(&mut pool, by(1, 9, false)).expect("the first");
    assert_eq!(put(&mut pool, by(2, 9, false)), Err(Refused::Full), "the same work");
    put(&mut pool, by(3, 9, true)).expect("a party takes a stranger's place");
    assert_eq!(put(&mut pool, by(1, 9, false)), Err(Refused::Full));
    assert_eq!(put(&mut pool, by(4, 9, true)), Err(Refused::Full));
    put(&mut pool, by(5, 8, false)).expect("another provider's");
    put(&mut pool, by(6, 7, true)).expect("another provider's");
    let order = [by(3, 9, true).0, by(6, 7, true).0, by(5, 8, false).0];
    assert_eq!(ids(&pool.candidates(5, 0)), order);
    // One account with upkeep of ever more providers fills its own share and no more.
    let mut provider = 100;
    while put(&mut pool, by(1, provider, false)).is_ok() {
        provider += 1;
    }
    let size = settle(1, 1).encode_size();
    assert_eq!((provider - 100) as usize, MEMPOOL_SETTLE_PER_ACCOUNT / size);
    put(&mut pool, by(2, 50, false)).expect("others have theirs");
}

#[test]
fn storage_proofs_come_oldest_first_and_replace_themselves() {
    let mut pool = Pool::default();
    for (provider, height) in [(1, 9), (2, 4), (3, 6)] {
        add(&mut pool, &storage_proof(provider, height), None).expect("taken");
    }
    let mut again = storage_proof(2, 4);
    again.expires -= 1;
    add(&mut pool, &again, None).expect("taken");
    let expected = [again.id(), storage_proof(3, 6).id(), storage_proof(1, 9).id()];
    assert_eq!(ids(&pool.candidates(10, 0)), expected);
}

/// Upkeep of strangers fills its own share and gives way to storage proofs; the oldest challenge stays.
#[test]
fn a_full_free_lane_keeps_the_oldest_challenges() {
    let mut pool = Pool::default();
    let mut settles = 0;
    while add(&mut pool, &settle(settles, settles), rich(0)).is_ok() {
        settles += 1;
    }
    assert!(pool.bytes() <= MEMPOOL_SETTLE_BYTES && settles > 100);
    let size = storage_proof(0, 0).encode_size();
    let room = (MEMPOOL_FREE_BYTES / size) as u64;
    for number in 0..room {
        add(&mut pool, &storage_proof(number, 1_000 + number), None).expect("settles give way");
    }
    assert!(pool.bytes() <= MEMPOOL_FREE_BYTES);
    let youngest = storage_proof(room - 1, 1_000 + room - 1).id();
    assert!(pool.contains(&youngest));
    assert_eq!(add(&mut pool, &storage_proof(5_000, 9_000), None), Err(Refused::Full));
    add(&mut pool, &storage_proof(5_000, 1), None).expect("an older challenge comes in");
    assert!(!pool.contains(&youngest));
    assert_eq!(ids(&pool.candidates(1, 0))[0], storage_proof(5_000, 1).id());
}

/// Adds ten mempools' worth of paid operations, each offering more than the last.
#[test]
fn a_flood_displaces_no_storage_proof() {
    let mut pool = Pool::default();
    let waiting: Vec<Operation> = (0..60).map(|number| storage_proof(number, 10 + number)).collect();
    for operation in &waiting {
        add(&mut pool, operation, None).expect("taken");
    }
    let before = ids(&pool.candidates(1, 0));
    let (mut flood, mut signer) = (0, 1_000);
    while flood < 10 * MEMPOOL_BYTES {
        let operation = bulky(signer, 0, u128::from(signer) * 1_000_000);
        flood += operation.encode_size();
        signer += 1;
        add(&mut pool, &operation, rich(0)).expect("it offers more than the worst");
    }
    assert!(pool.bytes() <= MEMPOOL_BYTES);
    assert!(waiting.iter().all(|operation| pool.contains(&operation.id())));
    let after = pool.candidates(1, 0);
    assert_eq!(ids(&after)[..before.len()], before);
    let paid: usize = after[before.len()..].iter().map(|operation| operation.encode_size()).sum();
    assert!(
        paid <= SELECTIONS_MAX * (BODY_BYTES_MAX - FREE_LANE_BYTES)
            && paid > (BODY_BYTES_MAX - FREE_LANE_BYTES) / 2
    );
    // One more storage proof is accepted, and an operation that offers less than all the flood is not.
    add(&mut pool, &storage_proof(99, 99), None).expect("its share is its own");
    assert_eq!(add(&mut pool, &bulky(1, 0, 1), rich(0)), Err(Refused::Full));
    // The best offers stayed.
    assert!(pool.contains(&bulky(signer - 1, 0, u128::from(signer - 1) * 1_000_000).id()));
}

#[derive(Clone, Debug)]
enum PoolAction {
    Pay { signer: u64, nonce: u64, fee: u128, bulky: bool },
    StorageProof { provider: u64, height: u64 },
    Settle { signer: u64 },
    Commit { signer: u64, epoch: u64 },
    Finalize { height: u64, take: usize },
    Refresh { signer: u64, balance: u128 },
    Refuse { take: usize },
}

fn step() -> impl Strategy<Value = PoolAction> {
    prop_oneof![
        6 => (0..6u64, 0..70u64, 1..10_000u128, any::<bool>())
            .prop_map(|(signer, nonce, fee, bulky)| PoolAction::Pay { signer, nonce, fee, bulky }),
        3 => (0..6u64, 0..40u64).prop_map(|(provider, height)| PoolAction::StorageProof { provider, height }),
        1 => (0..6u64).prop_map(|signer| PoolAction::Settle { signer }),
        2 => (0..6u64, 0..30u64).prop_map(|(signer, epoch)| PoolAction::Commit { signer, epoch }),
        1 => (0..120u64, 0..8usize).prop_map(|(height, take)| PoolAction::Finalize { height, take }),
        1 => (0..6u64, 0..50_000u128).prop_map(|(signer, balance)| PoolAction::Refresh { signer, balance }),
        1 => (0..8usize).prop_map(|take| PoolAction::Refuse { take }),
    ]
}

/// Checks that the offered operations fit together: unique keys, no gaps in nonces, fees covered, lanes kept.
fn check(pool: &Pool, nonces: &BTreeMap<u64, u64>, height: u64) {
    assert!(pool.bytes() <= MEMPOOL_BYTES);
    assert_eq!(pool.is_empty(), pool.bytes() == 0);
    let offered = pool.candidates(height, 0);
    let (mut all, mut paid, mut next) = (0, 0, nonces.clone());
    let mut keys = std::collections::BTreeSet::new();
    let mut free_ended = false;
    for operation in &offered {
        let size = operation.encode_size();
        all += size;
        assert!(operation.expires >= height && pool.contains(&operation.id()));
        match &operation.body {
            Body::StorageProof(storage_proof) => {
                assert!(keys.insert((operation.signer, storage_proof.height)))
            }
            Body::Settle(_) => {}
            Body::AuditCommit(_) => {}
            _ => {
                paid += size;
                free_ended = true;
                let number = u64::from_be_bytes(operation.signer.0[..8].try_into().expect("8 bytes"));
                let next = next.entry(number).or_default();
                assert_eq!(operation.nonce, *next, "no gap, no repetition");
                *next += 1;
            }
        }
        assert!(!free_ended || operation.body.has_nonce(), "paid ones come last");
    }
    assert!(paid <= SELECTIONS_MAX * (BODY_BYTES_MAX - FREE_LANE_BYTES) && all <= 3 * BODY_BYTES_MAX);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_what_is_offered_may_stand(steps in prop::collection::vec(step(), 1..120)) {
        let mut pools = [Pool::default(), Pool::default()];
        let (mut nonces, mut now) = (BTreeMap::<u64, u64>::new(), 1);
        for step in steps {
            let offered = pools[0].candidates(now, 0);
            match step {
                PoolAction::Pay { signer, nonce, fee, bulky: large } => {
                    let operation = if large { bulky(signer, nonce, fee) } else { pay(signer, nonce, fee) };
                    let funds = rich(*nonces.entry(signer).or_default());
                    pools.iter_mut().for_each(|pool| _ = add(pool, &operation, funds));
                }
                PoolAction::StorageProof { provider, height } => {
                    pools.iter_mut().for_each(|pool| _ = add(pool, &storage_proof(provider, height), None));
                }
                PoolAction::Settle { signer } => {
                    pools.iter_mut().for_each(|pool| _ = add(pool, &settle(signer, 3), rich(0)));
                }
                PoolAction::Commit { signer, epoch } => {
                    pools.iter_mut().for_each(|pool| _ = add(pool, &commit(signer, epoch, 10), rich(0)));
                }
                PoolAction::Finalize { height, take } => {
                    now = height.max(now);
                    let skip = offered.len().saturating_sub(take);
                    let block: Vec<Operation> = offered.into_iter().skip(skip).collect();
                    for operation in block.iter().filter(|operation| operation.body.has_nonce()) {
                        let number = u64::from_be_bytes(operation.signer.0[..8].try_into().expect("8 bytes"));
                        let next = nonces.entry(number).or_default();
                        *next = (*next).max(operation.nonce + 1);
                    }
                    pools.iter_mut().for_each(|pool| pool.finalized(now, &block));
                    prop_assert!(block.iter().all(|operation| !pools[0].contains(&operation.id())));
                }
                PoolAction::Refresh { signer, balance } => {
                    let balance = Amount::new(balance).expect("small");
                    let funds = Funds { nonce: *nonces.entry(signer).or_default(), balance };
                    pools.iter_mut().for_each(|pool| pool.refresh(&account(signer), funds));
                }
                PoolAction::Refuse { take } => {
                    let some = ids(&offered[..take.min(offered.len())]);
                    pools.iter_mut().for_each(|pool| pool.refused(&some));
                }
            }
            check(&pools[0], &nonces, now);
            let [first, second] = pools.each_ref().map(|pool| ids(&pool.candidates(now, 0)));
            prop_assert_eq!(first, second, "the same calls, the same offer");
        }
    }
}
