//! Operations that no block ever charges must not keep others out.

use super::*;
use posync_protocol::{
    Class, Metered, PerClass,
    limits::{MEMPOOL_GAP_BYTES, MEMPOOL_GAP_PER_ACCOUNT, OPERATOR_BYTES},
    operation::{Commitments, Evidence, Open, RegisterProvider, TopUp, Unjail},
};

/// An account that leaves out its next nonce is never offered to a block and never charged, so its operations
/// must not keep others out.
#[test]
fn what_can_never_stand_in_a_block_keeps_nobody_out() {
    let mut pool = Pool::default();
    let base_fee = 100;
    let units = |operation: &Operation| operation.encode_size() as u128;
    let (mut accounts, mut balance) = (0, 0);
    'fill: for signer in 1.. {
        accounts = signer;
        for nonce in 1..MEMPOOL_PER_ACCOUNT as u64 {
            let fee = units(&bulky(signer, nonce, 0)) * base_fee * 5;
            match add(&mut pool, &bulky(signer, nonce, fee), rich(0)) {
                Ok(()) => balance += fee,
                Err(refused) => {
                    assert_eq!(refused, Refused::Full);
                    break 'fill;
                }
            }
        }
    }
    // Fills the last bytes with small operations.
    accounts += 1;
    for nonce in 1.. {
        let fee = units(&pay(accounts, nonce, 0)) * base_fee * 5;
        match add(&mut pool, &pay(accounts, nonce, fee), rich(0)) {
            Ok(()) => balance += fee,
            Err(Refused::Code(Code::NonceGap)) => panic!("one more account fills it"),
            Err(_) => break,
        }
    }
    assert!(balance > 0 && !pool.is_empty(), "some of it waits");
    assert!(pool.candidates(1, base_fee as u64).is_empty(), "none of it can stand in any block");
    // A wallet offers four times today's fee.
    let honest = pay(1_000, 0, units(&pay(1_000, 0, 0)) * base_fee * 4);
    assert_eq!(add(&mut pool, &honest, rich(0)), Ok(()));
}

/// Evidence against an account without a seat passes the first checks; every block refuses it at no cost.
#[test]
fn evidence_against_nobody_keeps_no_seat_out() {
    use super::super::admit::{self, Slots};
    use posync_protocol::{Record as _, operation::check_structure, record::AccountState};
    let next = next();
    let evidence = |signer: u64, number: u64| {
        let commit = |digest| AuditCommit { epoch: number, digest: [digest; 32], signature: [0; 64] };
        let commits = Bounded::new(vec![commit(1), commit(2)]).expect("two");
        let pair = Commitments { seat: account(900_000 + number), commits };
        operation(signer, 0, 10, Body::Evidence(Evidence::Commitments(pair)))
    };
    let mut pool = Pool::default();
    let poor = AccountState { nonce: 0, balance: Amount::new(10).expect("small") };
    let (mut signer, mut number) = (1, 0);
    loop {
        let operation = evidence(signer, number);
        assert_eq!(check_structure(&operation, &next), Ok(()), "the door lets it in");
        // The state has no seat of that account.
        let slots = Slots::from([(AccountState::key(&account(signer)), poor.to_slot())]);
        let Ok(admission) = admit::admit(&operation, &next, &slots) else { break };
        number += 1;
        if pool.insert(operation.id(), operation, admission).is_err() {
            if number > 1 && pool.bytes() + 1_000 > MEMPOOL_RESERVED_BYTES {
                break;
            }
            signer += 1;
        }
    }
    assert_eq!(add(&mut pool, &commit(500_000, 1, 10), rich(0)), Ok(()), "a seat commits");
}

/// An operation behind an offer below the base fee counts for no more than that offer.
#[test]
fn what_stands_behind_a_low_offer_keeps_nobody_out() {
    let mut pool = Pool::default();
    let units = |operation: &Operation| operation.encode_size() as u128;
    let mut signer = 1;
    // The first offers the former base fee, and the next ones offer a thousand times as much.
    while add(&mut pool, &bulky(signer, 0, units(&bulky(signer, 0, 0)) * 100), rich(0)).is_ok() {
        for nonce in 1..MEMPOOL_PER_ACCOUNT as u64 {
            let _ = add(&mut pool, &bulky(signer, nonce, units(&bulky(signer, nonce, 0)) * 100_000), rich(0));
        }
        signer += 1;
    }
    assert!(pool.candidates(1, 200).is_empty(), "the base fee doubled");
    let before = pool.bytes();
    let honest = bulky(1_000, 0, units(&bulky(1_000, 0, 0)) * 800);
    assert_eq!(add(&mut pool, &honest, rich(0)), Ok(()));
    assert_eq!(ids(&pool.candidates(1, 200)), [honest.id()]);
    assert!(pool.bytes() <= before);
    // Once the first of them offers more, the later ones count as much.
    let raised = bulky(1, 0, units(&bulky(1, 0, 0)) * 100_000);
    assert_eq!(add(&mut pool, &raised, rich(0)), Ok(()), "in the place of its first offer");
    assert!(pool.candidates(1, 200).len() > 2);
}

/// Operations behind a gap have little room, for each account and in all; they move up when the gap is
/// filled.
#[test]
fn what_waits_behind_a_gap_gives_way_and_comes_in_when_the_gap_is_filled() {
    let mut pool = Pool::default();
    let waiting: Vec<Operation> = (1..=3).map(|nonce| bulky(1, nonce, 1_000)).collect();
    for operation in &waiting {
        add(&mut pool, operation, rich(0)).expect("taken");
    }
    assert_eq!(add(&mut pool, &bulky(1, 4, 1_000), rich(0)), Err(Refused::Full), "its own share");
    for nonce in 1..=MEMPOOL_GAP_PER_ACCOUNT as u64 {
        add(&mut pool, &pay(2, nonce, 1_000), rich(0)).expect("taken");
    }
    let more = pay(2, MEMPOOL_GAP_PER_ACCOUNT as u64 + 1, 1_000);
    assert_eq!(add(&mut pool, &more, rich(0)), Err(Refused::Full), "its own number");
    add(&mut pool, &bulky(1, 0, 1_000), rich(0)).expect("it fills the gap");
    assert_eq!(pool.candidates(1, 0).len(), 4);
    // A flood behind gaps displaces only operations behind a gap.
    for signer in 10..110 {
        add(&mut pool, &bulky(signer, 1, 9_000), rich(0)).expect("the oldest gives way");
    }
    assert!(!pool.contains(&pay(2, 1, 1_000).id()));
    assert_eq!(pool.candidates(1, 0).len(), 4, "what can stand stays");
    assert!(pool.bytes() <= 4 * bulky(1, 0, 0).encode_size() + MEMPOOL_GAP_BYTES);
    // A block with the missing nonce fills a gap, too.
    pool.finalized(2, &[]);
    pool.refresh(&account(109), Funds { nonce: 1, balance: Amount::MAX });
    assert_eq!(pool.candidates(3, 0).len(), 5);
}

#[test]
fn a_seat_displaces_evidence_of_strangers_and_an_account_brings_two() {
    let evidence = |signer: u64, epoch: u64| {
        let commit = |digest| AuditCommit { epoch, digest: [digest; 32], signature: [0; 64] };
        let commits = Bounded::new(vec![commit(1), commit(2)]).expect("two");
        let pair = Commitments { seat: account(9), commits };
        operation(signer, 0, 10, Body::Evidence(Evidence::Commitments(pair)))
    };
    let funds = rich(0).expect("rich");
    let put = |pool: &mut Pool, operation: &Operation, is_seat| {
        pool.insert(operation.id(), operation.clone(), Admission::Reserved { funds, is_seat })
    };
    let mut pool = Pool::default();
    put(&mut pool, &evidence(1, 1), false).expect("the first");
    put(&mut pool, &evidence(1, 2), false).expect("the second");
    assert_eq!(put(&mut pool, &evidence(1, 3), false), Err(Refused::Full));
    let mut signer = 2;
    while put(&mut pool, &evidence(signer, 1), false).is_ok() {
        signer += 1;
    }
    let last = evidence(signer - 1, 1);
    put(&mut pool, &commit(50_000, 1, 10), true).expect("a stranger gives way");
    assert!(!pool.contains(&last.id()), "the last one");
    assert!(pool.bytes() <= MEMPOOL_RESERVED_BYTES);
    assert_eq!(ids(&pool.candidates(1, 0))[0], commit(50_000, 1, 10).id(), "and comes after");
    // A refused operation displaces none: it is too large for the room that its first copy leaves.
    let (full, count) = (pool.bytes(), pool.len());
    assert_eq!(put(&mut pool, &evidence(signer, 1), false), Err(Refused::Full));
    assert_eq!((pool.bytes(), pool.len()), (full, count));
}

/// The provider's own upkeep comes before that of all others, of whatever kind.
#[test]
fn upkeep_of_the_provider_itself_displaces_every_other_of_it() {
    let by = |signer, slots: usize, endings: Vec<u64>| {
        let slots = Bounded::new(vec![Default::default(); slots]).expect("few");
        let endings = Bounded::new(endings).expect("few");
        operation(signer, 0, 0, Body::Settle(Settle { provider: account(9), index: 0, slots, endings }))
    };
    let put = |pool: &mut Pool, operation: &Operation, is_party| {
        pool.insert(operation.id(), operation.clone(), Admission::Upkeep { is_party })
    };
    let mut pool = Pool::default();
    let others = [by(1, 1, vec![]), by(2, 0, vec![4]), by(3, 0, vec![])];
    for (operation, is_party) in others.iter().zip([true, true, false]) {
        put(&mut pool, operation, is_party).expect("taken");
    }
    let own = by(9, 2, vec![4]);
    put(&mut pool, &own, true).expect("it displaces them");
    assert_eq!(ids(&pool.candidates(1, 0)), [own.id()]);
    for (operation, is_party) in others.iter().zip([true, true, false]) {
        assert_eq!(put(&mut pool, operation, is_party), Err(Refused::Full));
    }
    put(&mut pool, &by(9, 3, vec![4]), true).expect("it replaces its own");
    assert_eq!(pool.len(), 1);
}

const ID: AgreementId = AgreementId { provider: Account([1; 32]), slot: 0, opened: 1 };

fn registration() -> RegisterProvider {
    RegisterProvider {
        operator: [b'o'; OPERATOR_BYTES],
        bond: Amount::ZERO,
        capacity: PerClass::all(1),
        reserve: PerClass::all(1),
        term_max: 1,
        addresses: Bounded::default(),
        region: Bounded::default(),
    }
}

/// An opening of storage alone: its deposit is that of the genesis.
fn opening() -> Open {
    Open {
        provider: account(1),
        slot: 0,
        session_key: account(2),
        storage_key: account(3),
        price_max: PerClass::all(1 << 20),
        quota: PerClass::default(),
        rate: Units::default(),
        end_epoch: 40,
        voucher_reserve: Amount::ZERO,
        storage_reserve_max: Amount::ZERO,
    }
}

/// The deposit of [`opening`] with a quota of egress: its 38 epochs and the two of its redemption window have
/// shares of 100, at a grain a byte, and a tenth of that is deposited.
#[test]
fn an_opening_counts_the_deposit_for_its_egress() {
    let plain = operation(1, 0, 10, Body::Open(opening())).takes(&next());
    let mut egress = opening();
    egress.quota[Class::Egress] = 3_800;
    let context = BlockContext { height: Parameters::LOCAL.epoch_blocks() * 2, ..next() };
    let takes =
        Operation { expires: context.height, ..operation(1, 0, 10, Body::Open(egress)) }.takes(&context);
    assert_eq!(takes.grains() - plain.grains(), 100 * 40 / 10);
}

/// Makes an operation's body that moves this sum.
type Kind = fn(Amount) -> Body;

/// An offer is never charged if an earlier operation of the account spends the money.
#[test]
fn an_offer_is_not_spent_by_what_stands_before_it() {
    // Each kind with a sum that it names, which is taken beside the burns and deposits of the genesis.
    let kinds: [(Kind, Amount); 6] = [
        (|amount| Body::Transfer(Transfer { to: account(2), amount }), Parameters::LOCAL.account_burn),
        (|bond_add| Body::Unjail(Unjail { bond_add }), Parameters::LOCAL.unjail_burn),
        (
            |bond| Body::RegisterProvider(RegisterProvider { bond, ..registration() }),
            Parameters::LOCAL.registration_burn,
        ),
        (|voucher_reserve| Body::Open(Open { voucher_reserve, ..opening() }), Parameters::LOCAL.deposit),
        (
            |storage_reserve_max| Body::Open(Open { storage_reserve_max, ..opening() }),
            Parameters::LOCAL.deposit,
        ),
        (|amount| Body::TopUp(TopUp { agreement: ID, amount, price_max: Metered::default() }), Amount::ZERO),
    ];
    for (kind, burned) in kinds {
        let funds = |balance: u128| {
            let balance = Amount::new(balance + burned.grains()).expect("small");
            Some(Funds { nonce: 0, balance })
        };
        let moves = |nonce, grains| operation(1, nonce, 10, kind(Amount::new(grains).expect("small")));
        // The result is the same in either order of arrival.
        for turned in [false, true] {
            let mut both = [moves(0, 981), moves(1, 0)];
            if turned {
                both.reverse();
            }
            let mut pool = Pool::default();
            assert_eq!(add(&mut pool, &both[0], funds(1_000)), Ok(()));
            assert_eq!(add(&mut pool, &both[1], funds(1_000)), Err(Code::Balance.into()));
            assert_eq!(add(&mut pool, &both[1], funds(1_001)), Ok(()), "both can be charged");
        }
        let mut pool = Pool::default();
        assert_eq!(add(&mut pool, &moves(0, 990), funds(1_000)), Ok(()), "the last may move all");
    }
}

/// A restarted gateway sends its interrupted openings again at once, and they arrive in any order.
#[test]
fn one_that_waits_behind_a_gap_keeps_out_none_that_fills_it() {
    let funds = Some(Funds { nonce: 0, balance: Amount::new(1_000).expect("small") });
    let pays = |nonce, grains| {
        let amount = Amount::new(grains).expect("small");
        operation(1, nonce, 10, Body::Transfer(Transfer { to: account(2), amount }))
    };
    let mut pool = Pool::default();
    assert_eq!(add(&mut pool, &pays(2, 0), funds), Ok(()), "it waits behind the gap");
    assert_eq!(add(&mut pool, &pays(0, 5_000), funds), Ok(()), "nothing stands between it and its block");
    assert_eq!(
        add(&mut pool, &pays(1, 0), funds),
        Err(Code::Balance.into()),
        "now it would come before both"
    );
}
