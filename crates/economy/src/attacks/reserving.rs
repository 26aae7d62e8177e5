//! Attacks with quotas that are reserved and not used: squatting, the free option, prices moved by
//! quotas. Honest consumers stand beside them and pay for the room that they leave empty.
//!
//! ```text
//!   quota - leaves in force --x rate x rounds--> a tenth, burned        until the end and the window
//!   a share of the quota an epoch - redeemed --> a tenth, burned        at the removal
//! ```

use super::market::{kept, part, value};
use crate::{
    chance::Chance,
    price::{CAPACITY, ORIGIN, PostedPrice, demand},
    row::{Bound, Row, Runs, Topic},
    world::Terms,
};
use posync_protocol::{
    Account, Amount, Class, PerClass, Units,
    agreement::unused,
    amount::{ONE, SYNC, UNIT, mul_div},
    economics::pool,
    limits::Parameters,
    record::{Agreement, Pair, Usage},
    settlement,
};

/// Price of reserving, as a share of the price of the reserved quota, in parts per billion (AG-7).
const RESERVE_SHARE: u64 = Parameters::PRODUCTION.reserve_share;

/// An agreement from epoch 0 to `end` with these `(price, quota)` pairs.
fn agreement(storage: (u64, u64), egress: (u64, u64), end: u64) -> Agreement {
    let pair = |price: u64| Pair { price, slow: price };
    Agreement {
        opened: 0,
        consumer: Account::default(),
        session_key: Account::default(),
        storage_key: Account::default(),
        end_epoch: end,
        prices: PerClass::new(storage.0, egress.0, 0).map(pair),
        quota: PerClass::new(storage.1, egress.1, 0),
        rate: Units { egress: 1, gas: 1 },
    }
}

/// A usage record with more money than any charge.
fn rich() -> Usage {
    Usage { storage_reserve: Amount::MAX, deposit: Amount::MAX, ..Usage::default() }
}

fn ratio(part: u128, whole: u128) -> i128 {
    i128::try_from(mul_div(part, u128::from(ONE), whole.max(1)).expect("below 2^128")).expect("a ratio")
}

/// Cost of `unused` leaves for `rounds` rounds: the ledger's own charge, in grains.
fn hold(rate: u64, unused: u64, rounds: u64) -> u128 {
    let long = agreement((rate, unused), (0, 0), 720);
    settlement::hold(&long, &rich(), 0, rounds, &Parameters::PRODUCTION).grains()
}

/// Fee for `leaves` used leaves over `rounds` rounds, in grains.
fn fee(rate: u64, leaves: u64, rounds: u64) -> u128 {
    mul_div(u128::from(rate) * u128::from(leaves), u128::from(rounds), UNIT).expect("below 2^128")
}

/// Cost of squatting `leaves` leaves for a term, and the price of their honest use for as long as
/// they are blocked. Without `window` only the term is charged: a mutant.
fn squat(parameters: &Parameters, leaves: u64, term: u64, window: bool) -> (u128, u128) {
    let rate = u64::try_from(parameters.prices[Class::Storage]).expect("a price");
    let blocked = (term + parameters.redemption_epochs) * parameters.epoch_rounds;
    let charged = if window { blocked } else { term * parameters.epoch_rounds };
    let agreements = leaves.div_ceil(parameters.quota_max[Class::Storage]);
    let burned = u128::from(agreements) * hold(rate, leaves / agreements, charged);
    (burned, fee(rate, leaves, blocked))
}

/// The same two amounts for `egress` bytes an epoch.
fn squat_egress(parameters: &Parameters, egress: u64, term: u64) -> (u128, u128) {
    let blocked = term + parameters.redemption_epochs;
    let price = u64::try_from(parameters.prices[Class::Egress]).expect("a price");
    let held = agreement((0, 0), (price, egress * term), term);
    let burned = unused(&held, &rich(), parameters.epoch_start(blocked), parameters);
    (burned.grains(), u128::from(egress) * u128::from(blocked) * parameters.prices[Class::Egress] / UNIT)
}

/// The least cost of squatting over terms and networks, as a share of the price of honest use of
/// the blocked room, in parts per billion.
fn squat_least(window: bool) -> i128 {
    let terms = [1, 40, 720];
    let all = [Parameters::LOCAL, Parameters::PRODUCTION].into_iter().flat_map(|parameters| {
        terms.map(|term| {
            let (burned, blocked) = squat(&parameters, 1 << 23, term, window);
            ratio(burned, blocked)
        })
    });
    all.min().expect("some terms")
}

/// Profit of a provider with `share` of a class that blocks all free room of its rivals, so that
/// their demand moves to its own free room, at `margin` of the fee. In parts per billion of the
/// price of the whole class's capacity, half of which is used.
fn rivals(share: u64, margin: u64) -> i128 {
    let (share, margin, one) = (i128::from(share), i128::from(margin), i128::from(ONE));
    let free = share / 2;
    let blocked = (one - share) / 2;
    let diverted = free.min((one - share) / 2);
    (margin * diverted - i128::from(RESERVE_SHARE) * blocked) / one
}

/// Extra cost of a consumer that uses `share` of its quota, in parts per billion of the price of its use.
fn honest(share: u64) -> i128 {
    let (quota, rate, rounds) = (1_000_000, 10 << 20, 3_600);
    let used = u64::try_from(u128::from(share) * quota as u128 / u128::from(ONE)).expect("below the quota");
    ratio(hold(rate, quota - used, rounds), fee(rate, used, rounds))
}

/// The price of a top-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lock {
    /// The price of the opening: the free option, a mutant.
    Opening,
    /// Today's price, for all units that are left: the rule (AG-8).
    Today,
}

/// When the holder adds money, and how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pays {
    /// In each epoch, the price of that epoch's use.
    AsItGoes,
    /// The price of all that is left, once the price reaches this share of the opening's, in parts
    /// per billion.
    At(u64),
}

/// Epochs of the agreement, and of the time in which demand is doubled ([`SURGE`]).
const TERM: usize = 720;
const SURGE: usize = 120;

/// Prices of a term's epochs, starting with the epoch in which demand doubles for [`SURGE`] epochs,
/// in parts per billion of the price before. A price of the ledger is one epoch late.
fn surge(elasticity: u64) -> Vec<u128> {
    let mut class = PostedPrice::flow(ORIGIN);
    let (first, mut seen) = (class.price, class.excess);
    let mut prices = Vec::with_capacity(TERM);
    for epoch in 0..TERM {
        let usual = if epoch < SURGE { CAPACITY } else { CAPACITY / 2 };
        let wanted = demand(usual, ORIGIN, seen, elasticity);
        seen = class.excess;
        class.close(wanted);
        prices.push(mul_div(class.price, u128::from(ONE), first).expect("a ratio"));
    }
    prices
}

/// Terms in which the surge begins at a random epoch; the price is constant before it.
fn paths(seed: u64, elasticity: u64) -> Vec<Vec<u128>> {
    const PATHS: usize = 100;
    let mut chance = Chance::new(seed, "surges");
    let curve = surge(elasticity);
    let path = |_| {
        let start = 1 + chance.below((TERM - SURGE) as u64);
        let start = usize::try_from(start).expect("below the term");
        [vec![u128::from(ONE); start], curve[..TERM - start].to_vec()].concat()
    };
    (0..PATHS).map(path).collect()
}

/// Gain of a holder that opens in epoch `from` at that epoch's price, until the end of the term. It
/// uses its quota evenly where that pays, and resells at nine tenths of the posted price. In parts
/// per billion of the whole term's quota at the first price.
fn option(prices: &[u128], from: usize, pays: Pays, lock: Lock) -> i128 {
    let opening = prices[from];
    let (mut locked, mut is_paid) = (opening, false);
    let (mut gain, mut used) = (0i128, 0u128);
    for price in &prices[from..] {
        if let (Pays::At(rise), false) = (pays, is_paid) {
            is_paid = *price >= opening * u128::from(rise) / u128::from(ONE);
            locked = if is_paid && lock == Lock::Today { locked.max(*price) } else { locked };
        }
        let costs = match (pays, lock) {
            (Pays::AsItGoes, Lock::Today) => locked.max(*price),
            _ => locked,
        };
        let resold = *price * 9 / 10;
        if (is_paid || pays == Pays::AsItGoes) && resold > costs {
            gain += i128::try_from(resold - costs).expect("a ratio");
            used += 1;
        }
    }
    let unused = (prices.len() - from) as u128 - used;
    let held = i128::try_from(unused * opening / 10).expect("a ratio");
    (gain - if lock == Lock::Today { held } else { 0 }) / TERM as i128
}

/// The best of these plans by its mean over the paths. With `anew`, the holder opens only when it
/// would pay.
fn option_best(paths: &[Vec<u128>], plans: &[Pays], lock: Lock, anew: bool) -> i128 {
    let mean = |pays: Pays| {
        let gain = |prices: &Vec<u128>| match pays {
            // A holder that opens after the rise has held nothing before, and pays at once.
            Pays::At(rise) if anew => {
                let from = prices.iter().position(|price| *price >= u128::from(rise));
                option(prices, from.unwrap_or(TERM - 1), Pays::At(0), lock)
            }
            _ => option(prices, 0, pays, lock),
        };
        paths.iter().map(gain).sum::<i128>() / paths.len() as i128
    };
    plans.iter().map(|plan| mean(*plan)).max().expect("some plans")
}

/// The use that moves the price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sees {
    /// Paid use: the rule (MK-3).
    Paid,
    /// Sold quota, used or not: a mutant.
    Sold,
}

/// Profit per epoch of a provider with a third of the class that reserves, at others and at itself,
/// enough to keep the price up by about a tenth. The reserved quota costs a tenth. In parts per
/// billion of its honest income.
fn reserve_pump(sees: Sees, size: u128) -> i128 {
    const PUMP_EPOCHS: u64 = 64;
    let (usual, share) = (CAPACITY / 2, ONE / 100 * 33);
    let mut class = PostedPrice::flow(ORIGIN);
    let honest = part(part(value(usual, class.price), share), kept());
    let goal = ORIGIN + posync_protocol::economics::price::FRACTION_FLOW / 10;
    let mut profit = 0;
    for epoch in 0..2 * PUMP_EPOCHS {
        let wanted = demand(usual, ORIGIN, class.excess, 25);
        let missing = usual.saturating_sub(wanted);
        let push = if class.excess < goal { usual / size } else { 0 };
        let reserved = if epoch < PUMP_EPOCHS { missing + push } else { 0 };
        profit += part(part(value(wanted, class.price.min(class.slow)), share), kept()) - honest;
        profit -= part(value(reserved, class.price), RESERVE_SHARE);
        class.close(wanted + if sees == Sees::Sold { reserved } else { 0 });
    }
    profit / i128::from(2 * PUMP_EPOCHS) * i128::from(ONE) / honest
}

fn reserve_pump_best(sees: Sees) -> i128 {
    [5, 10, 20, 40].map(|size| reserve_pump(sees, size)).into_iter().max().expect("some sizes")
}

/// Profit of reserving a quota worth `quota` at one's own provider. A tenth of it is burned, and
/// `weighs` of it weighs in the subsidy, among others of the same weight.
fn own_quota(quota: u128, weighs: u128) -> i128 {
    let others = quota;
    let kappa = ONE / 10 * 8;
    let Terms { burn, gamma, divisor, .. } = Terms::DEFAULT;
    let reserve = 10_000_000_000 * SYNC;
    let (_, target) = pool::usage_pool(reserve, divisor, gamma, kappa, burn, others + weighs);
    let subsidy = pool::share(target, weighs, others + weighs);
    i128::try_from(subsidy).expect("small") - i128::try_from(quota / 10).expect("small")
}

/// Grains by which holds exceed the money set aside for them, after `touches` touches within the
/// term of one epoch. `up` selects the mutant that rounds each hold up.
fn overdrawn(rate: u64, quota: u64, touches: u64, up: bool) -> i128 {
    let rounds: u64 = 3 * 1_440;
    let exact = u128::from(rate) * u128::from(quota) * u128::from(RESERVE_SHARE) * u128::from(rounds);
    let set_aside = exact.div_ceil(u128::from(ONE) * UNIT);
    let each = rounds / touches;
    let taken = u128::from(touches) * (hold(rate, quota, each) + u128::from(up));
    i128::try_from(taken).expect("small") - i128::try_from(set_aside).expect("small")
}

fn overdrawn_most(up: bool) -> i128 {
    let rates = [1, 25_000, 10_000_000];
    let all = rates.into_iter().flat_map(|rate| {
        [1, 1 << 10, 1 << 21]
            .into_iter()
            .flat_map(move |quota| [1, 7, 60, 1_440].map(move |touches| overdrawn(rate, quota, touches, up)))
    });
    all.max().expect("some histories")
}

const SHARES: &str = "ppb of what the room would pay";
const QUOTA: &str = "ppb of the quota's price";
/// Elasticities of a surge, in hundredths, and their names in the report.
const SURGES: [(u64, &str); 3] = [(25, "elasticity 0.25"), (50, "elasticity 0.5"), (100, "elasticity 1")];
/// Rises at which a holder adds its money: at once, when the price first moves, or later.
const RISES: [Pays; 5] = [
    Pays::At(ONE),
    Pays::At(ONE / 100 * 102),
    Pays::At(ONE / 1_000 * 1_125),
    Pays::At(ONE / 10 * 15),
    Pays::At(2 * ONE),
];

fn row(topic: Topic, name: &str, region: &str, figure: i128, unit: &'static str, bound: Bound) -> Row {
    Row::new(topic, name, region, figure, unit, bound).runs(Runs::Functions)
}

/// Squatting: its cost, and the cases in which blocking rivals pays nevertheless.
fn squat_rows() -> Vec<Row> {
    let (burned, worth) = squat_egress(&Parameters::PRODUCTION, 1 << 30, 60);
    let cost =
        |name: &str, region: &str, figure, bound| row(Topic::Attack, name, region, figure, SHARES, bound);
    let tenth = Bound::AtLeast(i128::from(RESERVE_SHARE) - 1);
    let blocked = |name: &str, share: u64, margin: u64, topic, bound| {
        let region = format!(
            "share 0.{share:02}, margin 0.{margin:02} of the fee, rivals' room blocked, class half used"
        );
        let figure = rivals(ONE / 100 * share, ONE / 100 * margin);
        row(topic, name, &region, figure, "ppb of what the class would pay", bound).runs(Runs::Formula)
    };
    let mut rows = vec![
        cost(
            "A29 squatting storage, what it costs",
            "8 GiB for 1, 40, 720 epochs, local and production",
            squat_least(true),
            tenth,
        ),
        cost(
            "A29 squatting egress, what it costs",
            "1 GiB an epoch for 60 epochs",
            ratio(burned, worth),
            tenth,
        ),
        row(
            Topic::Mutant,
            "mutant: the window is left out",
            "A29, what the shortest term costs less than a tenth",
            i128::from(RESERVE_SHARE) - squat_least(false),
            SHARES,
            Bound::Positive,
        ),
    ];
    for (share, margin) in [(20, 15), (33, 15)] {
        rows.push(blocked("A29 squatting rivals", share, margin, Topic::Attack, Bound::AtMost(0)));
    }
    for (share, margin) in [(20, 45), (33, 45), (50, 45), (50, 15)] {
        let name = "A29 squatting rivals, market power";
        rows.push(blocked(name, share, margin, Topic::Published, Bound::Positive));
    }
    rows
}

/// The option to buy later at today's price.
fn option_rows(seed: u64) -> Vec<Row> {
    let mut rows = Vec::new();
    for (elasticity, text) in SURGES {
        let paths = paths(seed, elasticity);
        let best = |plans: &[Pays], lock, anew| option_best(&paths, plans, lock, anew);
        let free = best(&[Pays::AsItGoes], Lock::Opening, false);
        let rule = best(&[Pays::AsItGoes], Lock::Today, false);
        let held = best(&RISES[1..], Lock::Today, false);
        let anew = best(&RISES[1..], Lock::Today, true);
        let forward = best(&RISES[..1], Lock::Today, false);
        let region = format!("{text}, demand doubles for 120 of 720 epochs");
        let of = |topic, name: &str, figure, bound| row(topic, name, &region, figure, QUOTA, bound);
        rows.extend([
            of(Topic::Attack, "A30 free option, paid as it is used", rule, Bound::AtMost(0)),
            of(
                Topic::Attack,
                "A30 held since before the rise, above opening at it",
                held - anew,
                Bound::AtMost(0),
            ),
            of(
                Topic::Published,
                "A30 prepaid forward, from the first day",
                forward,
                Bound::AtLeast(-i128::from(RESERVE_SHARE)),
            ),
            of(
                Topic::Published,
                "A30 prepaid forward, as the price rises",
                anew,
                Bound::AtLeast(-i128::from(RESERVE_SHARE)),
            ),
            of(Topic::Mutant, "mutant: a top-up at the opening's price", free, Bound::Positive),
        ]);
    }
    rows
}

/// Consumers, prices, weights and roundings of reserved quotas.
fn consumer_rows() -> Vec<Row> {
    let more = |share: u64, most: i128| {
        let region = format!("{} % of the quota used", share / (ONE / 100));
        let bound = Bound::AtMost(most);
        row(Topic::Honest, "an honest consumer pays more", &region, honest(share), "ppb of its use", bound)
    };
    let billion = i128::from(ONE);
    vec![
        more(ONE / 2, billion / 10),
        more(ONE / 4 * 3, billion / 30 + 1),
        more(ONE / 10 * 9, billion / 90 + 1),
        row(
            Topic::Attack,
            "A7 price pump by reserving",
            "share 0.33, elasticity 0.25, 64 epochs, 1/5 to 1/40 of use",
            reserve_pump_best(Sees::Paid),
            "ppb of income",
            Bound::AtMost(0),
        ),
        row(
            Topic::Attack,
            "A29 holds beyond what is set aside",
            "one epoch and its window, 1 to 1,440 touches",
            overdrawn_most(false),
            "grains",
            Bound::AtMost(0),
        ),
        row(
            Topic::Attack,
            "A1 wash by reserving",
            "kappa 0.8",
            own_quota(SYNC, 0),
            "grains a SYNC",
            Bound::AtMost(0),
        ),
        row(
            Topic::Mutant,
            "mutant: the price sees what is sold",
            "A7 by reserving",
            reserve_pump_best(Sees::Sold),
            "ppb of income",
            Bound::Positive,
        ),
        row(
            Topic::Mutant,
            "mutant: the whole quota weighs",
            "A1 by reserving, kappa 0.8",
            own_quota(SYNC, SYNC),
            "grains a SYNC",
            Bound::Positive,
        ),
        row(
            Topic::Mutant,
            "mutant: a hold rounded up",
            "A29, 1 to 1,440 touches",
            overdrawn_most(true),
            "grains short of the pool",
            Bound::Positive,
        ),
    ]
}

/// The rows of this module.
pub(crate) fn rows(seed: u64) -> Vec<Row> {
    let mut rows = squat_rows();
    rows.extend(option_rows(seed));
    rows.extend(consumer_rows());
    rows
}
