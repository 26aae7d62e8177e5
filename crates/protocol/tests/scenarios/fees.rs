//! Fees: the cost of spam, operations that do not move them, and the lane that no spam reaches.

use crate::{
    script::Stage,
    world::{World, account},
};
use commonware_codec::EncodeSize;
use posync_protocol::Record;
use posync_protocol::{
    Account, AgreementId, Amount, Body, Bounded, Code, Operation, Units,
    ledger::{Invalid, Mode, Size, execute, fee, floor, next_base_fee, select},
    limits::{PAID_LANE_BYTES, PAID_LANE_KEYS, Parameters, REDEEM_VOUCHERS_MAX},
    operation::{AuditCommit, Redeem, Redemption, Transfer, Voucher},
    record::{AccountState, System},
};
use proptest::prelude::*;

const SYNC: u128 = 1_000_000_000;
const FULL: Size = Size { bytes: PAID_LANE_BYTES as u64, records: 0 };

fn base(world: &World) -> u64 {
    world.system().base_fee
}

/// An operation of `p` whose nonce is `after` above its next one.
fn unsigned(world: &World, after: u64, body: Body) -> Operation {
    let state: AccountState = world.get(AccountState::key(&account("p"))).expect("it is funded");
    let (nonce, expires) = (state.nonce + after, world.height + 1);
    let max_fee = Amount::sync(1_000);
    Operation { signer: account("p"), nonce, max_fee, expires, body, signature: [0; 64] }
}

/// A redemption of `count` vouchers of one agreement: many bytes and few records.
fn bulk(count: usize) -> Body {
    let agreement = AgreementId { provider: account("p"), slot: 0, opened: 1 };
    let voucher = Voucher { agreement, units: Units { egress: 1, gas: 1 }, signature: [0; 64] };
    let one =
        Redemption { voucher, session_key: Account::default(), claim: Some(Units { egress: 1, gas: 1 }) };
    Body::Redeem(Redeem { vouchers: Bounded::new(vec![one; count]).expect("within the bound") })
}

/// The cheapest operations that fill the paid lane: they name as few records as possible.
fn spam(world: &World) -> Vec<Operation> {
    let transfer = Body::Transfer(Transfer { to: account("p"), amount: Amount::new(1).expect("small") });
    let bodies = (1..=REDEEM_VOUCHERS_MAX).rev().step_by(3).map(bulk).chain([transfer]);
    let (mut operations, mut bytes) = (Vec::new(), 0);
    for body in bodies {
        loop {
            let operation = unsigned(world, operations.len() as u64, body.clone());
            let size = operation.encode_size();
            if bytes + size > PAID_LANE_BYTES {
                break;
            }
            bytes += size;
            operations.push(operation);
        }
    }
    operations
}

#[test]
fn keeping_everybody_out_for_sixty_blocks_costs_four_hundred_sync() {
    let mut stage = Stage::new();
    stage.world.seat("s");
    let before = stage.world.system().burned.grains();
    for block in 0..60 {
        let mut operations = spam(&stage.world);
        let honest = stage.sign("a send b 1");
        let context = stage.world.context(stage.world.height + 1);
        let both = [operations.clone(), vec![honest]].concat();
        let records = stage.world.read(&context, &[], &both).expect("few records");
        let run = execute(&context, &[], &both, &records, Mode::Verify);
        assert_eq!(run.unwrap_err(), Invalid::Body, "nobody else fits");
        let mut floor_fee = None;
        if block == 40 {
            // Evidence is not affected, and pays the usual fee.
            let evidence = stage.sign("b evidence s");
            floor_fee = Some(evidence.max_fee);
            assert_eq!(evidence.max_fee, fee(&context, u64::MAX, &evidence));
            operations.insert(0, evidence);
        }
        let balance = stage.world.balance("b").grains();
        let kept = stage.world.block(&operations).expect("it is full and valid").kept;
        assert_eq!(kept.len(), operations.len(), "all of it stands");
        if let Some(paid) = floor_fee {
            let reward = stage.world.parameters.seat_bond.grains() / 80;
            assert_eq!(stage.world.balance("b").grains(), balance - paid.grains() + reward);
        }
    }
    let slashed = stage.world.parameters.seat_bond.grains() / 80 * 3;
    let burned = stage.world.system().burned.grains() - before - slashed;
    assert!(burned >= 400 * SYNC, "{burned}");
    assert!(base(&stage.world) > 1_000 * floor(&stage.world.parameters), "{}", base(&stage.world));
    let blocks = (1..).find(|_| {
        stage.world.block(&[]).expect("an empty block is valid");
        base(&stage.world) == floor(&stage.world.parameters)
    });
    assert!(blocks.is_some_and(|blocks| blocks <= 60), "the floor is back: {blocks:?}");
}

#[test]
fn the_base_fee_moves_by_an_eighth_and_never_below_the_floor() {
    let run =
        |from: u64, blocks: usize, paid: Size| (0..blocks).fold(from, |fee, _| next_base_fee(fee, 100, paid));
    let full = [10, 20, 40, 60].map(|blocks| run(100, blocks, FULL));
    assert_eq!(full, [316, 1_018, 10_712, 112_929]);
    for (fee, blocks) in [(1_054, 18), (11_140, 36), (117_000, 54)] {
        assert_eq!(run(fee, blocks, Size::default()), 100);
        assert!(run(fee, blocks - 3, Size::default()) > 100, "{fee}");
    }
    assert_eq!(run(100, 1_000, Size::default()), 100);
    let half = Size { bytes: FULL.bytes / 2, records: PAID_LANE_KEYS as u64 / 2 };
    assert_eq!((run(777, 1_000, half), run(100, 9, half)), (777, 100), "half full, it rests");
    let above = Size { bytes: FULL.bytes / 2 + 1, records: 0 };
    assert_eq!(run(100, 1, above), 101, "the least step up is one");
    // The larger share counts, and more than full counts as full.
    let keys = Size { bytes: 0, records: PAID_LANE_KEYS as u64 };
    assert_eq!(
        [keys, FULL, Size { bytes: u64::MAX, records: u64::MAX }].map(|paid| run(800, 1, paid)),
        [900; 3]
    );
    assert_eq!(run(0, 1, Size::default()), 100, "a zero counts as the floor");
    assert_eq!(next_base_fee(u64::MAX, 100, FULL), u64::MAX);
}

#[test]
fn ninety_full_blocks_cost_what_no_one_has_and_eighty_empty_ones_forget_them() {
    let (mut fee, mut burned) = (100, 0_u128);
    for _ in 0..90 {
        burned += u128::from(fee) * PAID_LANE_BYTES as u128;
        fee = next_base_fee(fee, 100, FULL);
    }
    assert!(burned > 16_000 * SYNC, "{burned}");
    assert_eq!((0..90).fold(fee, |fee, _| next_base_fee(fee, 100, Size::default())), 100);
}

#[test]
fn a_leader_that_stuffs_its_own_blocks_raises_the_fee_that_it_burns() {
    let blocks = |shares: [u64; 4]| {
        let one = |fee, share| next_base_fee(fee, 100, Size { bytes: FULL.bytes * share / 10, records: 0 });
        (0..25).fold(1_000, |fee, _| shares.into_iter().fold(fee, one))
    };
    assert!(blocks([10, 4, 4, 4]) > 1_000, "one of four, the others at 0.4");
    assert!(blocks([0, 6, 6, 6]) < 1_000, "one that leaves its own empty makes everybody's cheaper");
}

#[test]
fn a_block_moves_the_fee_of_the_next_one_by_what_pays_it_alone() {
    let mut stage = Stage::new();
    stage.world.seat("s");
    let mut system = stage.world.system();
    system.base_fee = 8_000;
    stage.world.state.insert(System::key(), system.to_slot());
    let transfer = stage.sign("a send b 1");
    assert_eq!(transfer.max_fee.grains(), 80 * stage_fee(&stage, &transfer));
    stage.play("blocks 1");
    assert_eq!(base(&stage.world), 7_000, "an empty block");
    let evidence = stage.sign("b evidence s");
    assert_eq!(evidence.max_fee.grains(), stage_fee(&stage, &evidence), "at the floor");
    assert_eq!(stage.world.submit(&evidence), Ok(Code::Done));
    assert_eq!(base(&stage.world), 6_125, "who pays the floor moves nothing");
    let transfer = stage.sign("a send b 1");
    stage.world.submit(&transfer).expect("it pays");
    let size = Size::of(&stage.world.context(1), &transfer);
    assert_eq!(base(&stage.world), next_base_fee(6_125, 100, size));
    assert!(base(&stage.world) > 6_125 * 7 / 8);
    stage.play("a send b 1 fee=300000 => !FeeAboveMaximum");
}

/// Fee of an operation at the floor, in grains.
fn stage_fee(stage: &Stage, operation: &Operation) -> u128 {
    fee(&stage.world.context(stage.world.height + 1), floor(&Parameters::LOCAL), operation).grains()
}

#[test]
fn a_zero_in_the_state_counts_as_the_floor() {
    let mut stage = Stage::new();
    let system = System { base_fee: 0, ..stage.world.system() };
    stage.world.state.insert(System::key(), system.to_slot());
    let transfer = stage.sign("a send b 1");
    assert!(transfer.max_fee > Amount::ZERO);
    assert_eq!(stage.world.submit(&transfer), Ok(Code::Done));
    assert_eq!(base(&stage.world), floor(&stage.world.parameters));
}

#[test]
fn records_are_summed_and_not_merged() {
    let mut stage = Stage::new();
    let close = stage.sign("p close a/0 second=a").body;
    let each = Size::of(&stage.world.context(1), &unsigned(&stage.world, 0, close.clone())).records;
    let count = (PAID_LANE_KEYS as u64).div_ceil(each);
    let operations: Vec<Operation> =
        (0..count).map(|after| unsigned(&stage.world, after, close.clone())).collect();
    let bytes: usize = operations.iter().map(EncodeSize::encode_size).sum();
    assert!(bytes < PAID_LANE_BYTES / 2 && each > 40, "{bytes} {each}");
    stage.world.block(&operations).expect("it is valid");
    assert!(stage.world.named < 100, "the same records again and again");
    assert_eq!(base(&stage.world), 112, "and a full block");
}

fn commit(world: &World, who: &str, digest: u8) -> Operation {
    let body = AuditCommit { epoch: 0, digest: [digest; 32], signature: [0; 64] };
    world.sign(who, Body::AuditCommit(body))
}

#[test]
fn junk_of_strangers_has_no_place_in_the_reserved_lane_and_is_not_charged() {
    let mut stage = Stage::new();
    stage.world.seat("s");
    let before = (stage.world.balance("b"), stage.world.system().burned);
    let junk = commit(&stage.world, "b", 1);
    assert_eq!(stage.world.submit(&junk), Err(Code::AuditNotSeat));
    stage.play("b evidence p => !SeatUnknown\n b evidence s term=9 => !EvidenceStale");
    let again = commit(&stage.world, "b", 1);
    let outcome = stage.world.block(&[again]).expect("a proposer leaves it out");
    assert!(outcome.kept.is_empty());
    assert_eq!((stage.world.balance("b"), stage.world.system().burned), before);
}

#[test]
fn an_account_has_two_places_in_the_reserved_lane_of_a_block() {
    let mut stage = Stage::new();
    let names = ["s", "t", "u"];
    names.iter().for_each(|name| stage.world.seat(name));
    let evidence = names.map(|name| stage.sign(&format!("a evidence {name}")));
    let context = stage.world.context(1);
    let run = |operations: &[Operation]| {
        let records = stage.world.read(&context, &[], operations).expect("few records");
        execute(&context, &[], operations, &records, Mode::Propose)
    };
    assert_eq!(run(&evidence).unwrap_err(), Invalid::Body, "a third");
    assert_eq!(run(&evidence[..2]).expect("two").kept, [0, 1]);
    let other = stage.sign("b evidence u");
    let all = [evidence.to_vec(), vec![other]].concat();
    let chosen = select(&context, &stage.world.system(), &stage.world.closing_set(&context), &[], &all);
    assert_eq!(chosen, [0, 1, 3], "the third waits, another account's does not");
}

#[test]
fn lanes_stand_in_their_order() {
    let mut stage = Stage::new();
    stage.world.seat("s");
    let paid = stage.sign("a send b 1");
    let reserved = stage.sign("b evidence s");
    let upkeep = stage.world.sign(
        "q",
        Body::Settle(posync_protocol::operation::Settle {
            provider: account("p"),
            index: 0,
            slots: Bounded::default(),
            endings: Bounded::default(),
        }),
    );
    let context = stage.world.context(1);
    let all = [reserved, upkeep, paid];
    let run = |order: &[usize]| {
        let operations: Vec<Operation> = order.iter().map(|place| all[*place].clone()).collect();
        let records = stage.world.read(&context, &[], &operations).expect("few records");
        execute(&context, &[], &operations, &records, Mode::Propose).map(|_| ())
    };
    assert_eq!(run(&[0, 1, 2]), Ok(()));
    for wrong in [[1, 0, 2], [2, 0, 1], [0, 2, 1]] {
        assert_eq!(run(&wrong), Err(Invalid::Body), "{wrong:?}");
    }
    let turned: Vec<Operation> = all.iter().rev().cloned().collect();
    let chosen = select(&context, &stage.world.system(), &stage.world.closing_set(&context), &[], &turned);
    assert_eq!(chosen, [2, 1, 0]);
}

#[test]
fn what_waits_for_a_nonce_holds_up_no_evidence() {
    let mut stage = Stage::new();
    stage.world.seat("s");
    let stuck = stage.sign("a send b 1 nonce=7");
    let evidence = stage.sign("a evidence s");
    let outcome = stage.world.block(&[evidence, stuck]).expect("a proposer leaves one out");
    assert_eq!(outcome.kept, [0]);
    let state: AccountState = stage.world.get(AccountState::key(&account("a"))).expect("it is funded");
    assert_eq!(state.nonce, 0, "no nonce is used");
    stage.play("a send b 1 nonce=0");
}

proptest! {
    /// For any block, the fee stays at or above the floor, moves by at most an eighth (or one), and
    /// more use never lowers it.
    #[test]
    fn any_fullness_moves_the_fee_within_its_bounds(
        base in prop_oneof![0..1_000_u64, any::<u64>()],
        floor in prop_oneof![1..1_000_u64, any::<u64>()],
        bytes in prop_oneof![0..2 * FULL.bytes, any::<u64>()],
        records in prop_oneof![0..2 * PAID_LANE_KEYS as u64, any::<u64>()],
    ) {
        let next = next_base_fee(base, floor, Size { bytes, records });
        let from = base.max(floor);
        prop_assert!(next >= floor);
        prop_assert!(next <= from.saturating_add((from / 8).max(1)));
        prop_assert!(next >= from - from / 8);
        let more = next_base_fee(base, floor, Size { bytes: bytes.saturating_add(1_000), records });
        prop_assert!(more >= next);
    }
}
