//! Properties that hold for any operations: conservation, order, splits, bounds of a block.

use crate::{
    script::Stage,
    world::{World, account},
};
use commonware_codec::EncodeSize as _;
use posync_protocol::{
    Account, Amount, Body, Bounded, Code, Operation,
    amount::ONE,
    fees::{Split, split_fee},
    ledger::{Event, Invalid, Mode, execute, select},
    limits::{BODY_BYTES_MAX, FREE_LANE_BYTES, OPERATIONS_MAX, SETTLE_SLOTS_MAX},
    operation::{AuditCommit, Lane, Redeem, Settle, Transfer},
    record::Usage,
};
use proptest::prelude::*;

const ACTORS: [&str; 4] = ["a", "b", "p", "q"];

/// A line of a random operation; most are sensible.
fn line() -> impl Strategy<Value = String> {
    let actor = prop::sample::select(ACTORS.to_vec());
    let provider = prop::sample::select(vec!["p", "q"]);
    (actor, provider, 0..14_u8, 0..3_u32, 1..200_000_u64, 1..12_u64).prop_map(
        |(actor, provider, verb, slot, number, small)| match verb {
            0 => format!("{actor} send {provider} {number}"),
            1 => format!("{provider} register bond=1000s capacity={number}"),
            2 => format!("{provider} update capacity={number} bond={small}s"),
            3 => format!("{provider} leave"),
            4..=6 => {
                format!("{actor} open {provider} slot={slot} quota={small} reserve={number} end={small}")
            }
            7 => format!("{actor} topup {provider}/{slot} {number}"),
            8 => format!("{actor} close {provider}/{slot} second={provider}"),
            9 => format!("{actor} closealone {provider}/{slot}"),
            10 => format!("{actor} rotate {provider}/{slot} fresh"),
            11 => format!("{provider} redeem {provider}/{slot} egress={number} gas={small}"),
            12 => {
                format!("{provider} redeem {provider}/{slot} egress={number} session=fresh claim={number}0")
            }
            _ => format!("epoch {small}"),
        },
    )
}

/// Redeems `units` of agreement p/0 in one operation. Returns the receipt and the payments.
fn redeem(stage: &mut Stage, units: &[(u64, u64)]) -> (Code, Vec<Split>) {
    let id = stage.id("p/0");
    let vouchers = units.iter().map(|(egress, gas)| stage.redemption_of(id, "session", *egress, *gas));
    let vouchers = Bounded::new(vouchers.collect()).expect("few vouchers");
    let operation = stage.world.sign("p", Body::Redeem(Redeem { vouchers }));
    let code = stage.world.submit(&operation).expect("a provider may redeem");
    let paid = stage.world.events.iter().filter_map(|event| match event {
        Event::Settled { burn, committee, pay, .. } => {
            Some(Split { burn: *burn, committee: *committee, pay: *pay })
        }
        _ => None,
    });
    (code, paid.collect())
}

fn opened() -> Stage {
    let mut stage = Stage::new();
    stage.play("p register\n a open p reserve=1s\n blocks 8");
    stage
}

fn usage(stage: &Stage) -> Usage {
    stage.world.get(Usage::key(&account("p"), 0)).expect("it is open")
}

fn sum(splits: &[Split], part: fn(&Split) -> Amount) -> u128 {
    splits.iter().map(|split| part(split).grains()).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// `World::block` checks the whole state and that proposer and verifier agree.
    #[test]
    fn any_operations_conserve_to_the_grain(lines in prop::collection::vec(line(), 1..40)) {
        let mut stage = Stage::new();
        stage.play("p register\n a open p");
        for line in lines {
            stage.attempt(&line);
        }
    }

    /// Several operations a block, one per sender: a dropped operation does not affect the others.
    #[test]
    fn any_blocks_conserve_to_the_grain(blocks in prop::collection::vec(prop::collection::vec(line(), 0..6), 1..12)) {
        let mut stage = Stage::new();
        stage.play("p register\n q register\n a open p\n b open q");
        for block in blocks {
            let lines = block.iter().filter(|line| !line.starts_with("epoch"));
            let operations: Vec<Operation> = lines.map(|line| stage.sign(line)).collect();
            stage.world.block(&operations).expect("a proposer drops what is not valid");
        }
    }

    #[test]
    fn vouchers_of_one_redemption_end_the_same_in_any_order(
        units in prop::collection::vec((0..2_000_000_u64, 0..2_000_000_u64), 1..8),
        seed in any::<prop::sample::Index>(),
    ) {
        let (mut one, mut other) = (opened(), opened());
        redeem(&mut one, &units);
        let mut turned = units.clone();
        turned.rotate_left(seed.index(units.len()));
        turned.reverse();
        redeem(&mut other, &turned);
        prop_assert_eq!(one.world.state, other.world.state);
    }

    #[test]
    fn vouchers_in_any_batches_cost_the_consumer_the_same(
        steps in prop::collection::vec((1..300_000_u64, 0..300_000_u64), 1..8),
        backward in any::<bool>(),
    ) {
        let units: Vec<(u64, u64)> = steps
            .iter()
            .scan((0, 0), |sum, step| {
                *sum = (sum.0 + step.0, sum.1 + step.1);
                Some(*sum)
            })
            .collect();
        let (mut whole, mut parts) = (opened(), opened());
        let (code, at_once) = redeem(&mut whole, &units[units.len() - 1..]);
        prop_assert_eq!(code, Code::Done);
        let order: Vec<(u64, u64)> =
            if backward { units.iter().rev().copied().collect() } else { units.clone() };
        let mut splits = Vec::new();
        for (place, unit) in order.iter().enumerate() {
            let (code, paid) = redeem(&mut parts, &[*unit]);
            let refused = backward && place > 0;
            prop_assert_eq!(code == Code::VoucherWentBack, refused);
            splits.extend(paid);
        }
        let (one, other) = (usage(&whole), usage(&parts));
        prop_assert_eq!((one.redeemed, one.signed), (other.redeemed, other.signed));
        prop_assert_eq!(one.voucher_reserve, other.voucher_reserve);
        prop_assert!(sum(&splits, |s| s.pay) <= sum(&at_once, |s| s.pay) + splits.len() as u128);
        prop_assert!(sum(&splits, |s| s.burn) >= sum(&at_once, |s| s.burn));
    }

    #[test]
    fn a_split_has_exactly_three_parts(
        paid in prop_oneof![0..200_u128, 0..=Amount::MAX.grains()],
        part in 0..=ONE,
        burn in 0..ONE,
        committee in 0..ONE,
    ) {
        prop_assume!(burn + committee < ONE);
        let paid = Amount::new(paid).expect("below the bound");
        let base = posync_protocol::amount::mul_div(paid.grains(), part.into(), ONE.into());
        let base = base.and_then(Amount::new).expect("at most what is paid");
        let split = split_fee(paid, base, burn, committee).expect("within the bounds");
        let parts = [split.burn, split.committee, split.pay].map(Amount::grains);
        prop_assert_eq!(parts.iter().sum::<u128>(), paid.grains());
        prop_assert!(split.pay <= base);
        let least = posync_protocol::amount::mul_div_up(base.grains(), burn.into(), ONE.into());
        prop_assert!(split.burn.grains() >= least.expect("below the base"));
    }

    /// For any mempool, the selected operations fit a block, keep the order of their senders and of
    /// the lanes, and contain at most two reserved operations of an account.
    #[test]
    fn what_is_selected_fits(picks in prop::collection::vec((0..5_usize, 0..9_u8), 0..90)) {
        let world = World::new(&ACTORS);
        let bodies = crowd();
        let candidates: Vec<Operation> = picks.iter().enumerate().map(|(place, (kind, who))| {
            let body = bodies[*kind].clone();
            let nonce = if body.has_nonce() { place as u64 } else { 0 };
            let max_fee = if body.is_free() { Amount::ZERO } else { Amount::sync(1) };
            let signer = if *kind == 2 { account("p") } else { Account([*who; 32]) };
            Operation { signer, nonce, max_fee, expires: 9, body: apart(body, place as u8), signature: [0; 64] }
        }).collect();
        let context = world.context(1);
        let system = world.system();
        let chosen = select(&context, &system, &world.closing_set(&context), &[], &candidates);
        let operations: Vec<Operation> = chosen.iter().map(|place| candidates[*place].clone()).collect();
        let records = world.read(&context, &[], &operations);
        prop_assert!(records.is_ok(), "the keys fit");
        prop_assert!(execute(&context, &[], &operations, &records.unwrap(), Mode::Propose).is_ok());
        let lanes: Vec<Lane> = operations.iter().map(|operation| operation.body.lane()).collect();
        prop_assert!(lanes.is_sorted());
        let paid = lanes.partition_point(|lane| *lane < Lane::Paid);
        for who in 0..9 {
            let signed = |place: &usize| candidates[*place].signer == Account([who; 32]);
            let is_reserved = |place: &usize| candidates[*place].body.lane() == Lane::Reserved;
            let asked = (0..candidates.len()).filter(|place| signed(place) && is_reserved(place)).count();
            let taken = chosen.iter().filter(|place| signed(place) && is_reserved(place)).count();
            prop_assert_eq!(taken, asked.min(2));
            let own = chosen[paid..].iter().filter(|place| candidates[**place].signer == Account([who; 32]));
            prop_assert!(own.is_sorted());
        }
    }
}

/// BL-5: upkeep that names more records than a block may leaves half of them to paid operations.
#[test]
fn what_is_free_leaves_half_of_the_records_to_who_pays() {
    let world = World::new(&ACTORS);
    let [settle, ..] = crowd();
    let unsigned = |place: u8, body: Body, max_fee| Operation {
        signer: Account([place; 32]),
        nonce: 0,
        max_fee,
        expires: 9,
        body,
        signature: [0; 64],
    };
    let free = (0..200).map(|place| unsigned(place, apart(settle.clone(), place), Amount::ZERO));
    let transfer = Body::Transfer(Transfer { to: account("b"), amount: Amount::sync(1) });
    let paid = (0..200).map(|place| unsigned(place, transfer.clone(), Amount::sync(1)));
    let candidates: Vec<Operation> = free.chain(paid).collect();
    let context = world.context(1);
    let chosen = select(&context, &world.system(), &world.closing_set(&context), &[], &candidates);
    assert!(chosen.len() < candidates.len(), "all that is free does not fit");
    assert_eq!(chosen[chosen.len() - 200..], (200..400).collect::<Vec<_>>(), "who pays has room");
}

#[test]
fn no_more_operations_are_selected_than_a_block_may_hold() {
    let world = World::new(&ACTORS);
    let [Body::Settle(settle), ..] = crowd() else { unreachable!("the first is upkeep") };
    // The smallest upkeep names the same few records each time.
    let body = Body::Settle(Settle { slots: Bounded::default(), ..settle });
    let (signer, signature) = (account("a"), [0; 64]);
    let least = Operation { signer, nonce: 0, max_fee: Amount::ZERO, expires: 9, body, signature };
    let context = world.context(1);
    let candidates = vec![least; OPERATIONS_MAX + 1];
    let chosen = select(&context, &world.system(), &world.closing_set(&context), &[], &candidates);
    assert_eq!(chosen.len(), OPERATIONS_MAX);
}

#[test]
fn a_body_beyond_its_bytes_is_invalid() {
    let world = World::new(&ACTORS);
    let [body, ..] = crowd();
    let (signer, signature) = (account("a"), [0; 64]);
    let upkeep = Operation { signer, nonce: 0, max_fee: Amount::ZERO, expires: 9, body, signature };
    let most = BODY_BYTES_MAX / upkeep.encode_size();
    let context = world.context(1);
    let run = |count| {
        let operations = vec![upkeep.clone(); count];
        let records = world.read(&context, &[], &operations)?;
        execute(&context, &[], &operations, &records, Mode::Propose).map(|_| ())
    };
    assert_eq!((run(most), run(most + 1)), (Ok(()), Err(Invalid::Body)));
}

/// Bodies of a crowded mempool; they need not be valid.
fn crowd() -> [Body; 5] {
    let stage = Stage::new();
    let slots = (0..SETTLE_SLOTS_MAX as u32).map(|slot| (slot, Account::default(), 1)).collect();
    let slots = Bounded::new(slots).expect("as many as fit");
    let endings = Bounded::new(vec![]).expect("none");
    [
        Body::Settle(Settle { provider: account("p"), index: 1, slots, endings }),
        stage.sign("p register").body,
        stage.sign("p redeem p/0 egress=5").body,
        Body::Transfer(Transfer { to: account("b"), amount: Amount::sync(1) }),
        Body::AuditCommit(AuditCommit { epoch: 0, digest: [0; 32], signature: [0; 64] }),
    ]
}

/// The same body about another provider, so that it names other records.
fn apart(body: Body, who: u8) -> Body {
    match body {
        Body::Settle(settle) => Body::Settle(Settle { provider: Account([who; 32]), ..settle }),
        body => body,
    }
}

#[test]
fn paid_operations_leave_the_lane_free() {
    let world = World::new(&["a"]);
    let transfer = Transfer { to: account("b"), amount: Amount::sync(1) };
    let one = |nonce| Operation {
        signer: account("a"),
        nonce,
        max_fee: Amount::sync(1),
        expires: 1,
        body: Body::Transfer(transfer.clone()),
        signature: [0; 64],
    };
    let size = commonware_codec::EncodeSize::encode_size(&one(0));
    let fits = (BODY_BYTES_MAX - FREE_LANE_BYTES) / size;
    let operations: Vec<Operation> = (0..=fits as u64).map(one).collect();
    let context = world.context(1);
    let records = world.read(&context, &[], &operations).unwrap();
    let run = |operations: &[Operation]| execute(&context, &[], operations, &records, Mode::Verify);
    assert!(run(&operations[..fits]).is_ok());
    assert_eq!(run(&operations).unwrap_err(), Invalid::Body);
    let chosen = select(&context, &world.system(), &world.closing_set(&context), &[], &operations);
    assert_eq!(chosen, (0..fits).collect::<Vec<_>>());
}
