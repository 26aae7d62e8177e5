//! Reserved room on the ledger itself: the cost of squatting, the extra cost of an honest consumer,
//! and the gain of an option to buy later.

use crate::{
    audit::Answers,
    ledger::{Bench, account, shards, signed},
    row::{Bound, Row, Runs, Topic},
};
use posync_protocol::{
    Body, Class, Record,
    amount::{ONE, UNIT, mul_div},
    limits::{LEAF_BYTES, Parameters},
    record::{Market, Usage},
};
use std::sync::OnceLock;

/// Makes the next block the first of `epoch`, without running the empty blocks before it.
fn leap(bench: &mut Bench, epoch: u64) {
    bench.stage.world.height = epoch * bench.world().parameters.epoch_blocks() - 1;
}

/// Removes agreements that have ended. Draws are off, so no challenge delays the removal.
fn remove(bench: &mut Bench, slots: &[u32]) {
    let settle = bench.holders["p"].member.settle(bench.world(), slots);
    let operation = bench.stage.world.sign("p", Body::Settle(settle));
    assert_eq!(bench.block(&[operation]).len(), 1, "it is over");
}

fn stand(parameters: Parameters, register: &str) -> Bench {
    let mut bench = Bench::new(1, &["c", "x", "p"]);
    bench.stage.world.parameters = parameters;
    bench.play(&format!("p register bond=6000s term_max=720 {register}"));
    bench.holder("p", Answers::Always);
    bench
}

fn ratio(part: i128, whole: u128) -> i128 {
    part * i128::from(ONE) / signed(whole)
}

/// Cost of keeping everyone out of all room of a provider for a term, as a share of the price of
/// the room's honest use for as long as it is blocked. In parts per billion, for storage and
/// egress.
fn squatted(parameters: Parameters, term: u64) -> [i128; 2] {
    let blocked = term + parameters.redemption_epochs;
    let mut storage = stand(parameters, &format!("capacity={}", 4 * parameters.quota_max[Class::Storage]));
    let before = storage.fortune(&["x"]);
    for slot in 0..4 {
        let quota = parameters.quota_max[Class::Storage];
        storage.play(&format!("x open p slot={slot} quota={quota} quota_egress=0 quota_gas=0 reserve=0 end={term} storage_max=100000s"));
    }
    storage.play("c open p slot=9 quota=1 end=1 => NoCapacity");
    leap(&mut storage, blocked);
    remove(&mut storage, &[0, 1, 2, 3]);
    let leaf_rounds =
        u128::from(4 * parameters.quota_max[Class::Storage] * blocked * parameters.epoch_rounds);
    let held =
        ratio(before - storage.fortune(&["x"]), leaf_rounds * parameters.prices[Class::Storage] / UNIT);

    let each = parameters.quota_max[Class::Egress] / term;
    let mut egress = stand(parameters, &format!("out={each}"));
    let before = egress.fortune(&["x"]);
    egress.play(&format!(
        "x open p quota=0 quota_egress={} quota_gas=0 rate=1 reserve=0 end={term}",
        each * term
    ));
    egress.play("c open p slot=9 quota=0 quota_egress=1 end=1 => NoEgress");
    leap(&mut egress, blocked);
    remove(&mut egress, &[0]);
    let worth = u128::from(each) * u128::from(blocked) * parameters.prices[Class::Egress] / UNIT;
    [held, ratio(before - egress.fortune(&["x"]), worth)]
}

/// The least of [`squatted`] over terms and networks. `free` selects the mutant without a charge
/// for reserving.
fn squatted_least(free: bool) -> i128 {
    let all = [Parameters::LOCAL, Parameters::PRODUCTION].into_iter().flat_map(|parameters| {
        let reserve_share = if free { 0 } else { parameters.reserve_share };
        [1, 40, 718]
            .into_iter()
            .flat_map(move |term| squatted(Parameters { reserve_share, ..parameters }, term))
    });
    all.min().expect("some terms")
}

/// Payments of a consumer that stores `leaves` leaves under a quota of `quota` for some epochs and
/// closes, in grains. Fees of operations are small beside them.
fn paid(leaves: u64, quota: u64) -> i128 {
    const EPOCHS: u64 = 20;
    let mut prices = Parameters::LOCAL.prices;
    prices[Class::Storage] = 1 << 44;
    let mut bench = stand(Parameters { prices, ..Parameters::LOCAL }, "");
    let before = bench.fortune(&["c"]);
    bench.play(&format!(
        "c open p quota={quota} quota_egress=0 quota_gas=0 reserve=0 end=60 storage_max=100000s"
    ));
    bench.store("c", "p", 0, &shards(1, leaves / 8, (8 * LEAF_BYTES) as usize));
    bench.stage.world.draws = true;
    bench.run_to(EPOCHS);
    bench.close("c", "p", &[0]);
    before - bench.fortune(&["c"])
}

/// Extra cost of a consumer that uses `percent` of its quota, in parts per billion of its fee.
fn honest(percent: u64) -> i128 {
    let quota = 320;
    let leaves = quota * percent / 100 / 8 * 8;
    let used = paid(leaves, leaves);
    ratio(paid(leaves, quota) - used, u128::try_from(used).expect("it pays"))
}

/// When the holder of an option adds its money: the price in percent of the opening's, and the
/// percentage of the quota that it then buys.
#[derive(Clone, Copy, Debug)]
struct Rise {
    at: u64,
    percent: u64,
}

/// Profit of a holder that opens without money, adds it at a rise, and resells all units that it
/// paid for at nine tenths of the price posted then. `forgets` selects the mutant in which a top-up
/// raises no price.
fn option(plan: Rise, forgets: bool) -> i128 {
    const QUOTA: u64 = 1 << 32;
    let mut bench = stand(Parameters::LOCAL, "");
    let before = bench.fortune(&["x"]);
    bench.play(&format!("x open p quota=0 quota_egress={QUOTA} quota_gas=0 rate={QUOTA} reserve=0 end=40"));
    bench.run_to(3);
    // Prices move in the first block of an epoch.
    bench.block(&[]);
    let first = bench.world().parameters.prices[Class::Egress];
    let price = u64::try_from(first).expect("a price") * plan.at / 100;
    let risen = Market { price, slow: price, ..Market::default() };
    bench.stage.world.state.insert(Market::key(Class::Egress), risen.to_slot());
    let units = QUOTA / 100 * plan.percent;
    let money = u128::from(units) * u128::from(price) / UNIT;
    bench.play(&format!("x topup p/0 {money}"));
    if forgets {
        let key = Usage::key(&account("p"), 0);
        let usage: Usage = bench.world().get(key).expect("it is open");
        bench.stage.world.state.insert(key, Usage { lock: None, ..usage }.to_slot());
    }
    bench.attempt(&format!("p redeem p/0 egress={units}"));
    let got: Usage = bench.world().get(Usage::key(&account("p"), 0)).expect("it is open");
    bench.play("x close p/0 second=p");
    let resold =
        mul_div(u128::from(got.redeemed.egress) * u128::from(price), 9, UNIT * 10).expect("below 2^128");
    signed(resold) - (before - bench.fortune(&["x"]))
}

fn option_best(forgets: bool) -> i128 {
    let plans = [100, 112, 150, 400].into_iter().flat_map(|at| [10, 100].map(|percent| Rise { at, percent }));
    plans.map(|plan| option(plan, forgets)).max().expect("some plans")
}

/// The rows of this module; one run serves every seed.
pub(crate) fn rows() -> Vec<Row> {
    static ROWS: OnceLock<Vec<Row>> = OnceLock::new();
    ROWS.get_or_init(|| {
        let tenth = i128::from(Parameters::LOCAL.reserve_share);
        let room = "ppb of what the room would pay";
        let least = squatted_least(false);
        let more = |percent: u64| {
            let exact = i128::from(ONE / 10 * (100 - percent) / percent);
            // Rounds after the last settlement are held and not paid.
            let bound = Bound::AtMost(exact + exact / 20);
            let region = format!("{percent} % of the quota used for 20 epochs");
            Row::new(
                Topic::Honest,
                "an honest consumer pays more",
                region,
                honest(percent),
                "ppb of its fee",
                bound,
            )
        };
        let rows = [
            Row::new(
                Topic::Attack,
                "A29 squatting, what it costs",
                "all storage or egress of a provider for 1, 40, 718 epochs, local and production",
                least,
                room,
                Bound::AtLeast(tenth - 1),
            ),
            Row::attack(
                "A30 option, a top-up after the rise",
                "price at 1 to 4 times the opening's, all or a tenth of the quota resold",
                option_best(false),
            )
            .unit("grains"),
            more(50),
            more(75),
            more(90),
            Row::new(
                Topic::Mutant,
                "mutant: reserving is free",
                "A29, below a tenth",
                tenth - squatted_least(true),
                room,
                Bound::Positive,
            ),
            Row::mutant("mutant: a top-up raises no price", "A30 on the ledger", option_best(true))
                .unit("grains"),
        ];
        rows.map(|row| row.runs(Runs::Ledger)).into()
    })
    .clone()
}
