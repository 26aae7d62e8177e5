//! Reserving costs by time, an option has a price, and neither moves a posted price: the attacks,
//! and the payments of honest consumers beside them.

use crate::{
    audits::{answer, holding, submit},
    books::{row, run_to},
    model_provider::{ModelProvider, bytes},
    script::Stage,
    world::{FUNDED, World, account},
};
use posync_protocol::{
    Account, Amount, Body, Class, Code, PerClass, Record, Units,
    agreement::{deposit, last_round, storage_reserve, unused},
    limits::Parameters,
    record::{Agreement, CLOSING_RING, Closing, Market, Offer, Pair, Provider, Reputation, Usage},
    settlement::hold,
};
use proptest::prelude::*;

const UNIT: u128 = 1 << 20;
const MIB: u64 = 1 << 20;

/// Makes the next block the first of `epoch`, without running the empty blocks before it.
fn leap(stage: &mut Stage, epoch: u64) {
    stage.world.height = epoch * stage.world.parameters.epoch_blocks() - 1;
}

fn burned(world: &World) -> u128 {
    world.system().burned.grains()
}

fn usage(world: &World) -> Usage {
    world.get(Usage::key(&account("p"), 0)).expect("it is open")
}

fn terms(world: &World) -> Agreement {
    world.get(Agreement::key(&account("p"), 0)).expect("it is open")
}

/// Removes ended agreements of `p`, by free upkeep of a stranger. Returns the grains that this burned.
fn removed(stage: &mut Stage, slots: &[u32]) -> u128 {
    let before = burned(&stage.world);
    let upkeep = Body::Settle(ModelProvider::new("p").settle(&stage.world, slots));
    assert_eq!(submit(stage, "b", upkeep), Ok(Code::Done));
    burned(&stage.world) - before
}

/// Burn of squatting all of an 8 GiB provider for `term` epochs, in grains.
fn squatted_storage(term: u64) -> u128 {
    let mut stage = Stage::new();
    stage.play("p register capacity=8388608");
    for slot in 0..4 {
        let line =
            format!("a open p slot={slot} quota=2097152 quota_egress=0 quota_gas=0 reserve=0 end={term}");
        stage.play(&line);
    }
    stage.play("b open p slot=9 quota=1 end=1 => NoCapacity");
    leap(&mut stage, term + 2);
    removed(&mut stage, &[0, 1, 2, 3])
}

#[test]
fn squatting_storage_costs_a_tenth_of_what_it_keeps_out() {
    for (term, expected) in [(1, 120_000_000), (40, 1_680_000_000), (720, 28_880_000_000)] {
        // Terms of one epoch also pay for the window in which they keep others out.
        let honest = 4 * (1 << 21) * 10_000_000 * u128::from(term + 2) * 5 / UNIT;
        assert_eq!(expected * 10, honest, "the table is a tenth");
        assert_eq!(squatted_storage(term), expected, "{term} epochs");
    }
}

#[test]
fn squatting_egress_costs_a_tenth_of_what_it_keeps_out() {
    for (term, expected) in [(1, 307_200_000), (60, 6_348_800_000)] {
        let mut stage = Stage::new();
        stage.play("p register out=1073741824");
        let quota = term << 30;
        stage.play(&format!("a open p quota=0 quota_egress={quota} quota_gas=0 reserve=0 rate=1 end={term}"));
        stage.play("b open p slot=9 quota_egress=1 quota=0 end=1 => NoEgress");
        let honest = u128::from(term + 2) * 1024 * 1_000_000;
        assert_eq!(expected * 10, honest, "the table is a tenth");
        leap(&mut stage, term + 2);
        assert_eq!(removed(&mut stage, &[0]), expected, "{term} epochs");
    }
}

#[test]
fn removed_late_it_costs_no_more_than_to_the_end_of_the_window() {
    let lost = |epoch: u64| {
        let mut stage = Stage::new();
        stage.play("p register\n a open p quota=1001 end=3");
        leap(&mut stage, epoch);
        removed(&mut stage, &[0])
    };
    assert_eq!(lost(5), lost(40));
}

#[test]
fn touching_it_every_round_floors_away_less_than_a_grain_a_touch() {
    let mut stage = Stage::new();
    stage.play("p register\n a open p quota=1001 quota_egress=0 quota_gas=0 end=100");
    let (mut member, start, touches) = (ModelProvider::new("p"), usage(&stage.world), 40);
    for _ in 0..touches {
        stage.play("blocks 7");
        let empty = member.change(&stage.world, 0, &[], &[]);
        assert_eq!(submit(&mut stage, "a", Body::SetDataSet(empty)), Ok(Code::Done));
    }
    let now = usage(&stage.world);
    let rounds = u128::from(now.held_round - start.held_round);
    let exact = 10_000_000 * 1_001 * rounds / 10 / UNIT;
    let taken = start.storage_reserve.grains() - now.storage_reserve.grains();
    assert!(rounds >= touches && taken <= exact && taken + touches > exact, "{taken} of {exact}");
}

#[test]
fn closed_by_both_in_its_round_it_costs_nothing() {
    let mut stage = Stage::new();
    stage.play("p register\n blocks 7");
    let fees = |stage: &Stage| FUNDED.grains() - stage.world.balance("a").grains();
    let before = burned(&stage.world);
    stage.play("a open p quota=1048576 quota_egress=1073741824 end=20\n a close p/0 second=p");
    assert_eq!(fees(&stage), burned(&stage.world) - before, "fees, and they are all that burned");
    let of = |line: &str, stage: &Stage| stage.sign(line).max_fee.grains();
    let (opening, mut again) = (of("a open p", &stage), Stage::new());
    again.play("p register\n blocks 7\n a open p");
    assert_eq!(fees(&stage), opening + of("a close p/0 second=p", &again));
}

/// Posts a pair of prices, which the next epoch moves again.
fn post(stage: &mut Stage, class: Class, price: u64, slow: u64) {
    let market = Market { price, slow, ..Market::default() };
    stage.world.state.insert(Market::key(class), market.to_slot());
}

fn signed(stage: &Stage) -> u128 {
    usage(&stage.world).signed.grains()
}

#[test]
fn an_option_pays_the_price_of_the_day_it_is_used() {
    let mut stage = Stage::new();
    stage.play("p register\n a open p reserve=0 end=720 quota_egress=68719476736 rate=1073741824");
    post(&mut stage, Class::Egress, 1_000_000_000, 1_000_000_000);
    stage.play(
        "p redeem p/0 egress=1048576                => VoucherReserveEmpty
         a topup p/0 5s max_egress=999999999        => PriceAboveMaximum
         b topup p/0 5s                             => WrongParty
         a topup p/0 5s max_egress=1000000000
         p redeem p/0 egress=1048576",
    );
    assert_eq!(signed(&stage), 1_000_000_000, "not the million that was posted when it opened");
}

#[test]
fn a_top_up_raises_what_is_not_redeemed_and_lowers_nothing() {
    let mut stage = Stage::new();
    stage.play(
        "p register\n a open p rate=1073741824 reserve=1999998\n p redeem p/0 egress=1048576\n a topup p/0 1",
    );
    assert_eq!((signed(&stage), usage(&stage.world).lock), (1_000_000, None), "nothing rose");
    post(&mut stage, Class::Egress, 500_000, 400_000);
    stage.play("a topup p/0 1\n p redeem p/0 egress=2097152");
    assert_eq!((signed(&stage), usage(&stage.world).lock), (2_000_000, None), "a fall locks nothing");
    post(&mut stage, Class::Egress, 3_000_000, 2_000_000);
    stage.play("a topup p/0 3000000\n p redeem p/0 egress=3145728");
    assert_eq!(signed(&stage), 5_000_000, "what was redeemed before keeps its price");
    let locked = usage(&stage.world).lock.expect("it rose");
    assert_eq!(
        (locked.prices.egress.price, locked.prices.egress.slow, locked.from.egress),
        (3_000_000, 2_000_000, 2 * MIB)
    );
    assert_eq!((locked.prices.gas.price, locked.prices.gas.slow), (1_000, 1_000), "the other class rests");
    let row = row(&stage.world, &account("p"), 0).expect("it was paid");
    assert_eq!(row.base.grains(), 4_000_000, "the base is at the slow price of the pair");
    post(&mut stage, Class::Egress, 2_000_000, 2_000_000);
    post(&mut stage, Class::Compute, 5_000, 1_000);
    stage.play("a topup p/0 3005000\n p redeem p/0 egress=4194304 gas=1048576");
    assert_eq!(signed(&stage), 8_005_000, "egress stays at three millions, gas rises");
    assert_eq!(
        terms(&stage.world).prices[Class::Egress].price,
        1_000_000,
        "the agreement stays what was opened"
    );
}

#[test]
fn a_claim_beyond_a_raised_voucher_is_worth_the_raised_price() {
    let mut stage = Stage::new();
    stage.play("p register\n a open p rate=1073741824 reserve=0");
    post(&mut stage, Class::Egress, 3_000_000, 3_000_000);
    stage.play("a topup p/0 1s\n p redeem p/0 egress=2097152 claim=3145728");
    assert_eq!(usage(&stage.world).disputed.grains(), 3_000_000);
}

#[test]
fn a_price_is_locked_no_longer_than_its_provider_agreed_to() {
    let mut stage = Stage::new();
    stage.play("p register term=5\n a open p end=6 => TermTooLong\n a open p end=5\n epoch 2");
    stage.play("a open p slot=1 end=8 => TermTooLong\n a open p slot=1 end=7\n p update term=800");
    stage.play("a open p slot=2 end=723 => TermTooLong\n a open p slot=2 end=722");
    stage.play("p update term=0\n a open p slot=3 end=3 => TermTooLong");
}

/// Runs blocks until `p` has just answered, with a few blocks of the round left.
fn settled(stage: &mut Stage, member: &ModelProvider, epoch: u64) {
    run_to(stage, member, epoch, true);
    for _ in 0..200 {
        let answered = answer(stage, member);
        let left =
            stage.world.parameters.round_blocks - stage.world.height % stage.world.parameters.round_blocks;
        match answered {
            Some(result) if left > 2 => return assert_eq!(result, Ok(Code::Done)),
            Some(_) => {}
            None => drop(stage.world.block(&[]).expect("an empty block is valid")),
        }
    }
    panic!("never answered early in a round");
}

/// Payments of a consumer that uses `percent` of its quotas for eight epochs: (in all, for its use).
fn consumer(percent: u64) -> (u128, u128) {
    let mut stage = Stage::new();
    let (leaves, quota) = (1_000, 1_000 * 100 / percent);
    // Egress of 4 MiB an epoch.
    stage.play("p register");
    stage.play(&format!("a open p quota={quota} quota_egress={} quota_gas=0 end=700", 2_800 * MIB));
    let mut member = ModelProvider::new("p");
    let set = member.change(&stage.world, 0, &[], &[bytes(1, leaves * 1024)]);
    assert_eq!(submit(&mut stage, "a", Body::SetDataSet(set)), Ok(Code::Done));
    let opened = usage(&stage.world);
    assert_eq!(stage.world.parameters.round(stage.world.height), 0, "all within a round");
    stage.world.draws = true;
    settled(&mut stage, &member, 8);
    stage.world.draws = false;
    let rounds = stage.world.parameters.round(stage.world.height);
    let egress = 4 * MIB * rounds / 5 * percent / 100;
    stage.play(&format!("p redeem p/0 egress={egress}"));
    let locked = [opened.storage_reserve, opened.voucher_reserve, opened.deposit].map(Amount::grains);
    let close = stage.sign("a close p/0 second=p").max_fee.grains();
    let before = stage.world.balance("a").grains();
    stage.play("a close p/0 second=p");
    assert_eq!(stage.world.parameters.round(stage.world.height), rounds, "still in that round");
    let returned = stage.world.balance("a").grains() + close - before;
    let used =
        10_000_000 * leaves as u128 * u128::from(rounds) / UNIT + 1_000_000 * u128::from(egress) / UNIT;
    (locked.iter().sum::<u128>() - returned, used)
}

#[test]
fn an_honest_consumer_that_uses_half_pays_a_tenth_more() {
    // 10 x (1 - u) / u percent.
    for (percent, thousandths) in [(50, 100), (80, 25), (25, 300)] {
        let (paid, used) = consumer(percent);
        let expected = used * (1_000 + thousandths) / 1_000;
        assert!(paid.abs_diff(expected) <= 64, "{percent} %: {paid} paid for {used}, {expected} expected");
    }
}

fn markets(world: &World) -> Vec<Option<Market>> {
    Class::ALL.into_iter().map(|class| world.get(Market::key(class))).collect()
}

#[test]
fn reserving_moves_no_price() {
    let priced = |line: &str| {
        let (mut stage, member) = holding(&[70_000]);
        stage.world.draws = false;
        stage.play(line);
        stage.world.draws = true;
        run_to(&mut stage, &member, 10, true);
        stage.world
    };
    let free = 1_048_576 - 100_000;
    let (idle, sold) = (priced("blocks 1"), priced(&format!("b open p slot=1 quota={free} end=700")));
    let provider: Provider = sold.get(Provider::key(&account("p"))).expect("it stands");
    let offer: Offer = sold.get(Offer::key(&account("p"))).expect("it stands");
    assert_eq!(provider.sold[Class::Storage], offer.capacity[Class::Storage], "sold out");
    assert_eq!(markets(&idle), markets(&sold));
    assert!(markets(&sold)[0].as_ref().expect("it was looked at").used > 0, "what is paid is used");
}

/// A provider that is never audited sells all its room to its own consumer and stores nothing.
#[test]
fn an_own_provider_with_a_false_data_set_moves_no_price() {
    let (mut stage, member) = holding(&[70_000]);
    stage.world.draws = false;
    stage.play("q register\n b open q quota=1048576 end=700");
    let set = ModelProvider::new("q").change(&stage.world, 0, &[], &[bytes(9, 1 << 20)]);
    assert_eq!(submit(&mut stage, "b", Body::SetDataSet(set)), Ok(Code::Done));
    stage.world.draws = true;
    run_to(&mut stage, &member, 9, true);
    let closing: Closing = stage.world.get(Closing::key(7 % CLOSING_RING)).expect("it is measured");
    let own = row(&stage.world, &account("p"), 7).expect("its row");
    assert_eq!((closing.epoch, closing.used[Class::Storage]), (7, own.storage.into()));
    let offer: Offer = stage.world.get(Offer::key(&account("p"))).expect("it stands");
    let rounds = stage.world.parameters.epoch_rounds;
    assert_eq!(
        closing.capacity[Class::Storage],
        u128::from(offer.capacity[Class::Storage] * rounds),
        "the silent one offers nothing"
    );
}

/// A provider that answered within eight epochs counts as offered; one that went away stops counting.
#[test]
fn what_is_offered_is_of_those_who_answered_lately() {
    let (mut stage, member) = holding(&[70_000]);
    run_to(&mut stage, &member, 2, true);
    stage.world.draws = false;
    let offered = |world: &World, epoch: u64| {
        let closing: Closing = world.get(Closing::of(epoch)).expect("it is measured");
        assert_eq!(closing.epoch, epoch);
        closing.capacity[Class::Storage] > 0
    };
    for epoch in 2..14 {
        stage.world.skip_to_epoch(epoch);
        assert!(epoch == 2 || offered(&stage.world, epoch - 2) == (epoch - 2 < 9), "epoch {epoch}");
    }
}

/// A jailed, suspended or leaving provider may not sell, so no price counts its room as offered.
#[test]
fn who_may_sell_nothing_offers_nothing() {
    fn stand(stage: &mut Stage, change: fn(&mut Reputation)) {
        let key = Reputation::key(&account("p"));
        let mut reputation: Reputation = stage.world.get(key).expect("it registered");
        change(&mut reputation);
        stage.world.state.insert(key, reputation.to_slot());
    }
    let offered = |why: fn(&mut Stage)| {
        let (mut stage, member) = holding(&[70_000]);
        run_to(&mut stage, &member, 2, true);
        while stage.world.epoch() < 4 {
            why(&mut stage);
            stage.world.block(&[]).expect("an empty block is valid");
        }
        let closing: Closing = stage.world.get(Closing::of(2)).expect("it is measured");
        assert_eq!(closing.epoch, 2);
        closing.capacity[Class::Storage]
    };
    assert!(offered(|_| ()) > 0);
    let leave = |stage: &mut Stage| {
        if stage.world.epoch() == 2 && stage.world.height.is_multiple_of(40) {
            stage.play("p leave");
        }
    };
    assert_eq!(offered(leave), 0, "leaving");
    assert_eq!(offered(|stage| stand(stage, |reputation| reputation.jailed_until = 40)), 0, "jailed");
    assert_eq!(
        offered(|stage| stand(stage, |reputation| (reputation.suspended, reputation.on_time) = (2, 0))),
        0,
        "suspended"
    );
}

#[test]
fn leaf_rounds_count_as_far_as_reads_passed() {
    let (mut stage, mut member) = holding(&[70_000]);
    member.lose_tenths(5);
    run_to(&mut stage, &member, 3, true);
    let leaves = u128::from(member.data_set(&stage.world, 0).current.leaves);
    let paid: u128 = (0..3)
        .filter_map(|epoch| row(&stage.world, &account("p"), epoch))
        .map(|row| u128::from(row.storage))
        .sum();
    let acc = member.provider(&stage.world).acc;
    assert!(acc > 0 && acc < u128::from(15 * posync_protocol::amount::ONE), "some failed");
    let exact = leaves * acc / u128::from(posync_protocol::amount::ONE);
    // Each interval is floored once.
    assert!(paid <= exact && paid + 15 * 4 > exact, "{paid} of {exact}");
}

fn agreement(price: u64, quota: u64, egress: u64, opened: u64, end: u64) -> Agreement {
    let one = Account::default();
    Agreement {
        opened,
        consumer: one,
        session_key: one,
        storage_key: one,
        end_epoch: end,
        prices: PerClass::new(
            Pair { price, slow: price },
            Pair { price, slow: price },
            Pair { price: 0, slow: 0 },
        ),
        quota: PerClass::new(quota, egress, 0),
        rate: Units::egress(0),
    }
}

/// Locked money is rounded up and burned money is floored; each figure here has a remainder.
#[test]
fn every_rounding_of_reserving_is_on_the_side_of_the_pool() {
    let p = &Parameters::LOCAL;
    // Pay is 30.04.. and a tenth of two epochs 2.003..: 7 x 300,000 x 15 and x 10 / 10 per 2^20.
    assert_eq!(storage_reserve(7, 300_000, 15, p), Amount::new(31 + 3));
    assert_eq!(storage_reserve(7, 0, 15, p), Some(Amount::ZERO));
    assert_eq!(storage_reserve(u64::MAX, u64::MAX, u64::MAX, p), None, "above all money");
    // 1,000,003 bytes over 3 epochs are 333,335 an epoch. 5 epochs held are 1,666,675 bytes at 7
    // grains per 2^20 bytes: 11.126.. floored to 11; a tenth is 1.1, rounded up.
    let terms = agreement(7, 300_000, 1_000_003, 0, 3);
    let locked = deposit(&terms, p).expect("small");
    assert_eq!(locked.grains() - p.deposit.grains(), 2);
    assert_eq!(last_round(&terms, p), 25);
    let mut usage = Usage { deposit: locked, storage_reserve: Amount::sync(1), ..Usage::default() };
    assert_eq!(unused(&terms, &usage, 25, p).grains(), 1, "floored");
    assert_eq!(unused(&terms, &usage, 99, p), unused(&terms, &usage, 25, p), "not beyond the window");
    assert_eq!(unused(&terms, &usage, 0, p), Amount::ZERO, "by time");
    usage.redeemed.egress = 1_000_003;
    assert_eq!(unused(&terms, &usage, 25, p), Amount::ZERO, "666,672 bytes are 4 grains");
    usage.deposit = p.deposit;
    usage.redeemed.egress = 0;
    assert_eq!(unused(&terms, &usage, 25, p), Amount::ZERO, "never of the genesis deposit");
    // 14 rounds cost 2.8.. grains, floored; a held round counts once.
    assert_eq!(hold(&terms, &usage, 0, 14, p).grains(), 2);
    assert_eq!(hold(&terms, &usage, 0, 99, p), hold(&terms, &usage, 0, 25, p), "not beyond the window");
    assert_eq!(hold(&terms, &usage, 300_000, 14, p), Amount::ZERO, "what is held is not charged");
    usage.held_round = 14;
    assert_eq!(hold(&terms, &usage, 0, 14, p), Amount::ZERO);
    usage.held_round = 0;
    usage.storage_reserve = Amount::new(1).expect("small");
    assert_eq!(hold(&terms, &usage, 0, 14, p).grains(), 1, "never more than is left");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// For any history of holdings and touches, on both networks, burn and charges stay within the
    /// prepaid money. If holds were rounded up, they would not.
    #[test]
    fn no_history_is_short(
        production in any::<bool>(),
        price in prop_oneof![1..9_u64, 1..1_000_000_000_u64],
        quota in prop_oneof![1..9_u64, 1..=1_u64 << 21],
        (egress, redeemed) in (0..1_u64 << 36, 0..=100_u64),
        (start, term) in (0..90_u64, 1..40_u64),
        steps in prop::collection::vec((0..300_u64, 0..=100_u64), 1..60),
    ) {
        let p = if production { &Parameters::PRODUCTION } else { &Parameters::LOCAL };
        let opened = start * p.round_blocks;
        let terms = agreement(price, quota, egress, opened, p.epoch(opened) + term);
        let end = p.epoch_start(terms.end_epoch);
        let reserve = storage_reserve(price, quota, end - start, p).expect("below the bound");
        let locked = deposit(&terms, p).expect("below the bound");
        let mut usage = Usage { held_round: start, storage_reserve: reserve, deposit: locked, ..Usage::default() };
        let (mut round, mut leaves, mut weight, mut burned) = (start, 0, 0, 0);
        for (rounds, percent) in steps {
            let next = round + rounds;
            let taken = hold(&terms, &usage, leaves, next, p);
            burned += taken.grains();
            usage.held_round = next;
            usage.storage_reserve = usage.storage_reserve.checked_sub(taken).expect("within the reserve");
            weight += u128::from(price) * u128::from(leaves) * u128::from(next.min(end).saturating_sub(round));
            (round, leaves) = (next, quota * percent / 100);
        }
        prop_assert!(burned * UNIT + weight <= reserve.grains() * UNIT, "{burned} and {weight} of {reserve}");
        usage.redeemed.egress = egress / 100 * redeemed;
        usage.deposit = Amount::MAX;
        let lost = unused(&terms, &usage, round, p).grains();
        prop_assert!(lost <= locked.grains() - p.deposit.grains(), "{lost} of {locked}");
    }
}
