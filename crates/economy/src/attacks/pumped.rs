//! Attacks on posted prices, on the ledger itself: use that a provider buys from itself, use
//! without payment, and room that is only reserved.

use crate::{
    audit::Answers,
    ledger::{Bench, account},
    price::{ORIGIN, demand},
    row::{Bound, Row, Runs, Topic},
};
use posync_protocol::{
    Class, Record, Units,
    amount::{ONE, UNIT, mul_div},
    economics::price::{FRACTION_FLOW, posted},
    limits::SETTLEMENT_RING,
    record::{MEASURED, Market, Measured, Settlement},
};
use std::sync::OnceLock;

/// Egress of all providers, in bytes an epoch.
const CAPACITY: u64 = 1 << 32;
/// The attacker's share of it in parts per billion, and the elasticity of demand in hundredths.
const SHARE: u64 = ONE / 100 * 33;
const ELASTICITY: u64 = 25;
/// Epochs of pumping. As many follow, in which the price comes down.
const EPOCHS: u64 = 32;

/// Where the attacker's use comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// Bought from itself and paid.
    Bought,
    /// Signed for over a reserve of one grain.
    Unpaid,
    /// A mutant: counted as use without any payment.
    Counted,
}

/// A pump: its source, its push as a share of the usual use, and its goal above the usual price.
#[derive(Clone, Copy, Debug)]
struct Pump {
    from: Source,
    part: u64,
    goal: u64,
}

fn part(whole: u64, share: u64) -> u64 {
    u64::try_from(u128::from(whole) * u128::from(share) / u128::from(ONE)).expect("a part")
}

/// Both providers, measured in every epoch, in a market at rest.
fn market() -> Bench {
    let mut bench = Bench::new(1, &["c", "x", "p", "h"]);
    for (name, share) in [("p", SHARE), ("h", ONE - SHARE)] {
        bench.play(&format!("{name} register out={}", part(CAPACITY, share)));
        bench.holder(name, Answers::Always);
    }
    let least = bench.world().parameters.prices[Class::Egress];
    let price = u64::try_from(posted(least, ORIGIN, FRACTION_FLOW)).expect("a price");
    let bucket = u128::from(CAPACITY / 2) * 7;
    let rests = Market { price, slow: price, excess: ORIGIN, bucket, ..Market::default() };
    bench.stage.world.state.insert(Market::key(Class::Egress), rests.to_slot());
    bench.run_to(1);
    bench
}

fn measure(bench: &mut Bench) {
    let epoch = bench.world().epoch();
    for (name, share) in [("p", SHARE), ("h", ONE - SHARE)] {
        let rates = [part(CAPACITY, share); MEASURED];
        let measured = Measured { taken: MEASURED as u8, epochs: [epoch; MEASURED], rates };
        bench.stage.world.state.insert(Measured::key(&account(name)), measured.to_slot());
    }
}

fn posted_now(bench: &Bench, class: Class) -> Market {
    bench.world().get(Market::key(class)).unwrap_or_default()
}

/// Opens, redeems and closes with both signatures: the use of one epoch. `reserve` is in grains;
/// `None` reserves enough to pay for all bytes.
fn use_of(bench: &mut Bench, consumer: &str, provider: &str, bytes: u64, reserve: Option<u128>) {
    if bytes == 0 {
        return;
    }
    let price = u128::from(posted_now(bench, Class::Egress).price);
    let reserve = reserve.unwrap_or(u128::from(bytes) * price / UNIT + 1);
    let end = bench.world().epoch() + 1;
    bench.play(&format!(
        "{consumer} open {provider} quota=0 quota_gas=0 quota_egress={bytes} rate={bytes} reserve={reserve} end={end}"
    ));
    bench.attempt(&format!("{provider} redeem {provider}/0 egress={bytes}"));
    bench.play(&format!("{consumer} close {provider}/0 second={provider}"));
}

/// Counts unpaid use of `p`.
fn count(bench: &mut Bench, bytes: u64) {
    let epoch = bench.world().epoch();
    let key = Settlement::key(&account("p"), epoch % SETTLEMENT_RING);
    let row = Settlement::of(epoch, bench.world().get(key));
    let row = Settlement { redeemed: row.redeemed.saturating_add(Units::egress(bytes)), ..row };
    bench.stage.world.state.insert(key, row.to_slot());
}

/// Money of the attacker and its consumer after pumping, and as long a time without it.
fn pumped(pump: Option<Pump>) -> i128 {
    let mut bench = market();
    for epoch in 1..=2 * EPOCHS {
        measure(&mut bench);
        let excess = posted_now(&bench, Class::Egress).excess;
        let usual = u128::from(CAPACITY / 2);
        let wanted = u64::try_from(demand(usual, ORIGIN, excess, ELASTICITY)).expect("a size");
        let mine = part(wanted, SHARE);
        use_of(&mut bench, "c", "p", mine, None);
        use_of(&mut bench, "c", "h", wanted - mine, None);
        if let Some(Pump { from, part: share, goal }) = pump.filter(|_| epoch <= EPOCHS) {
            let missing = (CAPACITY / 2).saturating_sub(wanted);
            let push =
                if excess < ORIGIN + part(FRACTION_FLOW, goal) { part(CAPACITY / 2, share) } else { 0 };
            let bytes = (missing + push).min(part(CAPACITY, SHARE));
            match from {
                Source::Bought => use_of(&mut bench, "x", "p", bytes, None),
                Source::Unpaid => use_of(&mut bench, "x", "p", bytes, Some(1)),
                Source::Counted => count(&mut bench, bytes),
            }
        }
        bench.run_to(epoch + 1);
    }
    bench.run_to(2 * EPOCHS + 4);
    bench.fortune(&["p", "x"])
}

/// The best pump of the given sources, per epoch, in parts per billion of the provider's honest income.
fn pumped_best(from: &[Source]) -> i128 {
    let before = market().fortune(&["p", "x"]);
    let honest = pumped(None);
    let income = (honest - before) / i128::from(2 * EPOCHS);
    let plans = from.iter().flat_map(|from| {
        [(ONE / 20, ONE / 10), (ONE / 5, ONE / 10), (ONE / 5, ONE / 2)].map(|(part, goal)| Pump {
            from: *from,
            part,
            goal,
        })
    });
    let profit = plans.map(|plan| pumped(Some(plan)) - honest).max().expect("some plans");
    profit / i128::from(2 * EPOCHS) * i128::from(ONE) / income
}

/// Change of the posted storage price in a dozen epochs in which all free room is reserved and not
/// a byte of it used, in parts per million.
fn reserved() -> i128 {
    let run = |leaves: u64| {
        let mut bench = Bench::new(1, &["c", "x", "p", "h"]);
        for name in ["p", "h"] {
            bench.provider(name, Answers::Always);
        }
        bench.play("c open h quota=64 quota_egress=0 quota_gas=0 reserve=0 end=40");
        bench.store("c", "h", 0, &crate::ledger::shards(1, 4, 4096));
        bench.stage.world.draws = true;
        if leaves > 0 {
            for (name, slot, quota) in [("p", 0, leaves), ("h", 1, leaves - 64)] {
                bench.play(&format!(
                    "x open {name} slot={slot} quota={quota} quota_egress=0 quota_gas=0 reserve=0 end=40 storage_max=400000s"
                ));
            }
        }
        for epoch in bench.world().epoch() + 1..14 {
            bench.run_to(epoch);
        }
        bench.world().get::<Market>(Market::key(Class::Storage)).map_or(0, |market| market.price)
    };
    let (moved, rests) = (u128::from(run(1 << 20)), u128::from(run(0)));
    i128::try_from(mul_div(moved, 1_000_000, rests).expect("a ratio")).expect("a ratio") - 1_000_000
}

/// The rows of this module. They draw nothing, so one run serves every seed.
pub(crate) fn rows() -> Vec<Row> {
    static ROWS: OnceLock<Vec<Row>> = OnceLock::new();
    ROWS.get_or_init(|| {
        let rows = [
            Row::attack(
                "A7 price pump, bought or unpaid",
                "share 0.33, elasticity 0.25, 32 epochs; 1/20 or 1/5 of use, to 1.1 or 1.6 of the price",
                pumped_best(&[Source::Bought, Source::Unpaid]),
            )
            .unit("ppb of income"),
            Row::new(
                Topic::Attack,
                "A7 storage price by reserving",
                "all room of both providers, 12 epochs, nothing stored",
                reserved(),
                "ppm of the price",
                Bound::Exactly(0),
            ),
            Row::mutant("mutant: unpaid use moves the price", "A7", pumped_best(&[Source::Counted]))
                .unit("ppb of income"),
        ];
        rows.map(|row| row.runs(Runs::Ledger)).into()
    })
    .clone()
}
