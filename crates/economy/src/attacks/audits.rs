//! Attacks on storage audits in a model of draws and answers: dropped, diluted or silent data, and
//! idle names. The attacks on the ledger itself are in `stored`.

use crate::{
    audit::{Answers, Audits, Lot, Member, Rules},
    chance::Chance,
    row::{Row, Runs},
    world::Terms,
};
use posync_protocol::{amount::ONE, economics::score, limits::Parameters};

const MEMBERS: usize = 24;
const EPOCH_BLOCKS: u64 = 400;
const EPOCHS: u64 = 60;
const FEE: u64 = 1_000_000;
const LEAVES: u64 = 1 << 20;
/// Cost of holding a leaf, as a share of its fee: four fifths of the provider's part of the fee.
const COST: u64 = ONE / 10 * 6;

fn full() -> Lot {
    Lot { fee: FEE, leaves: LEAVES, missing: 0 }
}

fn part(whole: u128, share: u64) -> i128 {
    i128::try_from(whole * u128::from(share) / u128::from(ONE)).expect("below the supply")
}

/// An attacker's wealth after all epochs, in grains: its part of the fees and the subsidy by the
/// least quality of eight epochs, minus the cost of the storage it keeps, the fees that it pays to
/// itself for `fake` of its lots, and restitution.
fn wealth(seed: u64, rules: Rules, lots: &[Lot], answers: Answers, fake: u64) -> i128 {
    let honest = (1..MEMBERS).map(|_| Member::new(vec![full()], Answers::Always));
    let attacker = Member::new(lots.to_vec(), answers);
    let members: Vec<Member> = [attacker].into_iter().chain(honest).collect();
    let mut audits = Audits::new(members, rules, EPOCH_BLOCKS, Chance::new(seed, "audits"));
    let Terms { burn, committee, kappa, .. } = Terms::DEFAULT;
    let subsidy = u64::try_from(u128::from(burn) * u128::from(kappa) / u128::from(ONE)).expect("a ratio");
    let held: u128 = lots.iter().map(|lot| u128::from(lot.fee) * u128::from(ONE - lot.missing)).sum();
    let cost = part(held / u128::from(ONE) * u128::from(EPOCH_BLOCKS), COST);
    let (mut total, mut history) = (0, Vec::new());
    for _ in 0..EPOCHS {
        let before = audits.members[0].earned;
        audits.epoch();
        let earned = audits.members[0].earned - before;
        history.push(score::quality(audits.members[0].correct(), ONE, ONE));
        let quality = *history.iter().rev().take(8).min().expect("an epoch");
        let weighed = u128::from(subsidy) * u128::from(quality) / u128::from(ONE);
        // The attacker pays the fee of a fake lot itself, as far as it is charged.
        let fees: u64 = lots.iter().map(|lot| lot.fee).sum();
        let own = i128::try_from(earned * u128::from(fake) / u128::from(fees)).expect("below the supply");
        total += part(earned, ONE - burn - committee);
        total += part(earned, u64::try_from(weighed).expect("a ratio")) - cost - own;
    }
    total - i128::try_from(audits.members[0].restitution).expect("below the supply")
}

fn against_honesty(seed: u64, rules: Rules, lots: &[Lot], answers: Answers, fake: u64) -> i128 {
    let honest = wealth(seed, rules, &[full()], Answers::Always, 0);
    (wealth(seed, rules, lots, answers, fake) - honest) / i128::from(EPOCHS)
}

/// Profit of dropping `missing` parts per billion of the data.
pub(crate) fn dropped(seed: u64, rules: Rules, missing: u64, answers: Answers) -> i128 {
    against_honesty(seed, rules, &[Lot { missing, ..full() }], answers, 0)
}

/// Gain of answering only when complete over answering always, with the same data and seed.
pub(crate) fn silence_gains(seed: u64, rules: Rules, missing: u64) -> i128 {
    dropped(seed, rules, missing, Answers::Complete) - dropped(seed, rules, missing, Answers::Always)
}

/// Profit of dropping a third of the paid data and adding a hundred times as many leaves that
/// anyone could compute, at `price` parts per billion of the usual fee in all. Fake leaves cost
/// nothing to hold.
pub(crate) fn diluted(seed: u64, rules: Rules, price: u64) -> i128 {
    let fee = u64::try_from(u128::from(FEE) * u128::from(price) / u128::from(ONE)).expect("a fee");
    let real = Lot { missing: ONE / 3, ..full() };
    let fake = Lot { fee, leaves: 100 * LEAVES, missing: 0 };
    let profit = against_honesty(seed, rules, &[real, fake], Answers::Always, fee);
    // `wealth` charges the cost of holding by fee, but fake data costs nothing.
    profit + part(u128::from(fee) * u128::from(EPOCH_BLOCKS), COST)
}

/// On-time share of a provider with a tenth of the fees that is away in every fourth round, among
/// `idle` silent names without fees. With `by_fee`, the rule of the network fault counts fee draws
/// only.
fn on_time_with(seed: u64, idle: u64, by_fee: bool) -> u64 {
    const FEE_DRAWS: u64 = 48;
    let mut chance = Chance::new(seed, "network fault");
    let (mut on_time, mut owed, mut faulty) = (0u64, 0u64, 0u64);
    for round in 0..6_400u64 {
        let away = round % 4 == 0;
        let mine = (0..FEE_DRAWS).filter(|_| chance.below(10) == 0).count() as u64;
        // In turn: the attacker is one of 24 that answer; the idle names never answer.
        let idle_drawn = (0..FEE_DRAWS).filter(|_| chance.below(24 + idle) >= 24).count() as u64;
        let missed = if away { mine } else { 0 };
        let (missed_in_all, draws) =
            if by_fee { (missed, FEE_DRAWS) } else { (missed + idle_drawn, 2 * FEE_DRAWS) };
        if round % 64 == 0 {
            faulty = 0;
        }
        // The rule excuses at most a tenth of 64 rounds.
        if 5 * missed_in_all > draws && faulty < 6 {
            faulty += 1;
            if away {
                continue;
            }
        }
        owed += mine;
        on_time += mine - missed;
    }
    on_time * ONE / owed
}

/// Profit of `idle` silent names that should make rounds count as faulty: the subsidy that excused
/// misses save in an epoch, minus the registrations spread over a year.
pub(crate) fn idle_sybils(seed: u64, idle: u64, by_fee: bool) -> i128 {
    let base = u128::from(FEE) * u128::from(EPOCH_BLOCKS);
    let subsidy = |idle: u64| part(base, on_time_with(seed, idle, by_fee) / 25 * 2);
    let burn = Parameters::PRODUCTION.registration_burn.grains() * u128::from(idle) / 365;
    subsidy(idle) - subsidy(0) - i128::try_from(burn).expect("below the supply")
}

const SHARES: [u64; 5] = [ONE / 50, ONE / 20, ONE / 10, ONE / 4, ONE / 2];

fn worst(profit: impl Fn(u64) -> i128) -> i128 {
    SHARES.into_iter().map(profit).max().expect("some shares")
}

/// The rows of this module.
pub(crate) fn rows(seed: u64) -> Vec<Row> {
    let rules = Rules::default();
    let optional = Rules { optional: true, ..rules };
    let bytes = Rules { by_bytes: true, ..rules };
    let prices = [ONE / 1_000, ONE / 10, ONE, 10 * ONE];
    vec![
        Row::attack(
            "A3 dropped storage, honest about it",
            "2 to 50 % dropped, holding costs 0.6 of the fee",
            worst(|share| dropped(seed, rules, share, Answers::Always)),
        ),
        Row::attack(
            "A3 dropped storage, silent",
            "2 to 50 % dropped, holding costs 0.6 of the fee",
            worst(|share| dropped(seed, rules, share, Answers::Complete)),
        ),
        Row::attack(
            "A20 selective silence, against saying so",
            "2 to 50 % missing, the same data",
            worst(|share| silence_gains(seed, rules, share)),
        ),
        Row::attack(
            "A21 data dilution, at other prices",
            "a third dropped, 100 fake leaves for one at 0.001 to 10 times the fee",
            prices.into_iter().map(|price| diluted(seed, rules, price)).max().expect("some prices"),
        ),
        Row::attack(
            "A22 idle names, network fault",
            "24 to 10,000 names, a tenth of the fees",
            [24, 1_000, 10_000].map(|idle| idle_sybils(seed, idle, true)).into_iter().max().expect("some"),
        )
        .runs(Runs::Formula),
        Row::mutant(
            "mutant: answering optional",
            "5 % dropped, silent about it",
            dropped(seed, optional, ONE / 20, Answers::Complete),
        ),
        Row::mutant(
            "mutant: draw by bytes",
            "a third dropped, fake leaves at a thousandth of the fee",
            diluted(seed, bytes, ONE / 1_000),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::idle_sybils;

    #[test]
    fn each_rule_is_what_stops_its_attack() {
        let (by_fee, by_all) = (idle_sybils(1, 24, true), idle_sybils(1, 24, false));
        assert!(by_all > by_fee, "silent names would excuse misses: {by_all} and {by_fee}");
    }
}
