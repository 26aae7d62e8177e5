//! Properties of the mechanism as a whole; those of its single functions are in `economics.rs`.
//! They check which plans gain, which results no order changes, and the ends of all ranges.
//! The numbers are those of `docs/invariants.md`.

use posync_protocol::{
    Amount,
    amount::{ONE, mul_div},
    economics::{fair, pool, price, score, slash, split},
    fees::split_fee,
};
use proptest::prelude::*;

const BETA: u64 = ONE / 5;
const ALPHA: u64 = ONE / 20;
const KAPPA: u64 = ONE / 5 * 2;

/// A provider in an epoch, as `(base, quality)`.
type Provider = (u128, u64);

fn weights(providers: &[Provider]) -> Vec<u128> {
    providers.iter().map(|(base, quality)| pool::weight(*base, &[*quality])).collect()
}

/// The subsidy of each provider, capped by the burn of `capped`.
fn subsidies(reserve: u128, providers: &[Provider], capped: u128) -> Vec<u128> {
    let (_, target) = pool::usage_pool(reserve, 4096, ONE / 2, KAPPA, BETA, capped);
    pool::pay_pool(target, 0, &weights(providers)).shares
}

fn capped(providers: &[Provider]) -> u128 {
    weights(providers).iter().sum()
}

/// Splits a fee at one price into burn, committee's part and provider's part.
fn parts(fee: u128) -> [u128; 3] {
    let fee = Amount::new(fee).expect("below all money");
    let split = split_fee(fee, fee, BETA, ALPHA).expect("within bounds");
    [split.burn, split.committee, split.pay].map(Amount::grains)
}

fn providers() -> impl Strategy<Value = Vec<Provider>> {
    let base = prop_oneof![Just(0_u128), 0..1_000_u128, 0..1_u128 << 80];
    prop::collection::vec((base, 0..=ONE), 1..12)
}

fn reserves() -> impl Strategy<Value = u128> {
    prop_oneof![0..1_000_000_u128, 0..1_u128 << 100]
}

/// A world in which a coalition owns the first `own` providers and the share `credit` of the
/// committee, and settles `fake` with itself at the first of them, in one epoch.
#[derive(Clone, Debug)]
struct Wash {
    reserve: u128,
    providers: Vec<Provider>,
    own: usize,
    credit: u64,
    fake: u128,
}

impl Wash {
    /// Gain of the coalition from the fake use; `cap` computes the base that caps the subsidy.
    fn profit(&self, cap: fn(&[Provider]) -> u128) -> i128 {
        let subsidy = |providers: &[Provider]| -> u128 {
            subsidies(self.reserve, providers, cap(providers))[..self.own].iter().sum()
        };
        let mut washed = self.providers.clone();
        washed[0].0 += self.fake;
        let [_, committee, pay] = parts(self.fake);
        let credit = committee * u128::from(self.credit) / u128::from(ONE);
        let back = pay + credit + subsidy(&washed);
        back as i128 - (self.fake + subsidy(&self.providers)) as i128
    }
}

fn wash() -> impl Strategy<Value = Wash> {
    let fake = prop_oneof![1..1_000_u128, 1_000..1_u128 << 80];
    (reserves(), providers(), any::<prop::sample::Index>(), 0..=ONE, fake).prop_map(
        |(reserve, providers, own, credit, fake)| {
            let own = 1 + own.index(providers.len());
            Wash { reserve, providers, own, credit, fake }
        },
    )
}

/// A small generator, for searches that must find the same result in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

proptest! {
    /// 10: neither more verified use nor better quality lowers one's own pay.
    #[test]
    fn more_use_or_better_quality_never_pays_less(reserve in reserves(), providers in providers(), more in 0..1_u128 << 80, better in 0..=ONE) {
        let pay = |providers: &[Provider]| {
            parts(providers[0].0)[2] + subsidies(reserve, providers, capped(providers))[0]
        };
        let before = pay(&providers);
        let mut grown = providers.clone();
        grown[0].0 += more;
        prop_assert!(pay(&grown) >= before, "more use");
        let mut improved = providers.clone();
        improved[0].1 = improved[0].1.max(better);
        prop_assert!(pay(&improved) >= before, "better quality");
    }

    /// 16: paying oneself loses in any company; rounding alone never makes it win.
    #[test]
    fn paying_oneself_loses_in_any_world(wash in wash()) {
        let profit = wash.profit(capped);
        // It loses beta (1 - kappa) of the fake, which is 0.12. The floors of its shares and of the
        // pool move by less than a grain each.
        let (lost, rounding) = ((wash.fake * 12 / 100) as i128, wash.own as i128 + 1);
        prop_assert!(profit <= rounding - lost, "{profit} of {}", wash.fake);
        prop_assert!(wash.own > 1 || profit <= 0);
    }

    /// 15: splitting one weight into k parts gains at most k - 1 units under largest remainders,
    /// and nothing under floors.
    #[test]
    fn a_split_identity_gains_at_most_a_unit_a_further_part(pool in 0..10_000_u128, others in prop::collection::vec(0..1_000_u128, 0..8), part in prop::collection::vec(0..1_000_u128, 2..6)) {
        let own: u128 = part.iter().sum();
        let whole: Vec<u128> = [own].into_iter().chain(others.iter().copied()).collect();
        let apart: Vec<u128> = part.iter().chain(&others).copied().collect();
        let count = part.len();
        let gain = |shares: fn(u128, &[u128]) -> Vec<u128>| {
            shares(pool, &apart)[..count].iter().sum::<u128>() as i128 - shares(pool, &whole)[0] as i128
        };
        prop_assert!(gain(split::largest_remainder) < count as i128);
        prop_assert!(gain(|pool, weights| split::floor_carry(pool, weights).0) <= 0);
    }

    /// 8: no order of the inputs changes a byte of anyone's result.
    #[test]
    fn no_order_of_the_inputs_changes_anything(
        (rows, shuffled) in prop::collection::vec((0..50_u64, 0..1_u128 << 60), 1..12)
            .prop_flat_map(|rows| (Just(rows.clone()), Just((0..rows.len()).collect::<Vec<_>>()).prop_shuffle())),
        pool in 0..1_u128 << 80,
    ) {
        let turned: Vec<(u64, u128)> = shuffled.iter().map(|place| rows[*place]).collect();
        prop_assert_eq!(score::lower_weighted_median(&rows), score::lower_weighted_median(&turned));
        let weights = |rows: &[(u64, u128)]| rows.iter().map(|row| row.1).collect::<Vec<u128>>();
        let (shares, carry) = split::floor_carry(pool, &weights(&rows));
        let (of_turned, same) = split::floor_carry(pool, &weights(&turned));
        prop_assert_eq!(carry, same);
        for (place, share) in shuffled.iter().zip(&of_turned) {
            prop_assert_eq!(share, &shares[*place]);
        }
        // Ties of remainder and weight go to the lower index, so equal weights may trade places.
        let sorted = |rows: &[(u64, u128)]| {
            let weights = weights(rows);
            let mut pairs: Vec<_> = split::largest_remainder(pool, &weights).into_iter().zip(weights).collect();
            pairs.sort_unstable();
            pairs
        };
        prop_assert_eq!(sorted(&rows), sorted(&turned));
    }

    /// 18: the score's step is monotone in both arguments, and two scores never move further apart.
    #[test]
    fn the_scores_step_is_monotone_and_contracts(a in 0..=ONE, b in 0..=ONE, q in 0..=ONE, better in 0..=ONE, failed in any::<bool>()) {
        let (low, high) = (a.min(b), a.max(b));
        let step = |score, quality| score::update(score, quality, failed);
        for quality in [Some(q), None] {
            let (from_low, from_high) = (step(low, quality), step(high, quality));
            prop_assert!(from_low <= from_high);
            prop_assert!(from_high - from_low <= high - low);
        }
        prop_assert!(step(a, Some(q.max(better))) >= step(a, Some(q)));
    }

    /// 19: any weights, any silence that leaves a quorum of two thirds, and less than a third that lies.
    #[test]
    fn a_quorum_with_less_than_a_third_lying_stays_within_the_honest(
        honest in prop::collection::vec((0..=ONE, 1..1_000_u128), 1..20),
        lies in prop::collection::vec((0..=ONE, 1..1_000_u128), 0..10),
        silent in prop::collection::vec(1..1_000_u128, 0..10),
    ) {
        let sum = |rows: &[(u64, u128)]| rows.iter().map(|row| row.1).sum::<u128>();
        let (truth, lying) = (sum(&honest), sum(&lies));
        let assigned = truth + lying + silent.iter().sum::<u128>();
        prop_assume!(3 * lying < assigned && 3 * (truth + lying) >= 2 * assigned);
        let reports: Vec<(u64, u128)> = honest.iter().chain(&lies).copied().collect();
        let median = score::lower_weighted_median(&reports).expect("weights are positive");
        let (least, most) = (honest.iter().map(|row| row.0).min(), honest.iter().map(|row| row.0).max());
        prop_assert!(least <= Some(median) && Some(median) <= most);
    }

    /// 21: one counterparty, whose disputes count for at most its signed value, moves the books by
    /// at most a half.
    #[test]
    fn one_counterparty_moves_the_books_by_at_most_a_half(signed in 0..1_u128 << 100, disputed in 0..1_u128 << 100, own in 0..1_u128 << 100, claimed in any::<u128>(), b0 in 1..1_u128 << 40) {
        let disputed = disputed.min(signed);
        let before = score::books(signed, disputed, b0);
        let after = score::books(signed + own, disputed + claimed.min(own), b0);
        prop_assert!(before.abs_diff(after) <= ONE / 2 + 1, "{before} {after}");
        prop_assert!(after >= ONE / 2 - 1);
    }

    /// 23: off the clamp only the sum of the use matters, not its order.
    #[test]
    fn prices_depend_on_no_path_off_the_clamp(
        (steps, turned) in prop::collection::vec(0..=1_000_000_u128, 1..40)
            .prop_flat_map(|steps| (Just(steps.clone()), Just(steps).prop_shuffle())),
    ) {
        let walk = |steps: &[u128]| {
            let step = |x, used: &u128| price::excess_next(x, *used, 1_000_000, price::TARGET_FLOW, price::FRACTION_FLOW);
            steps.iter().fold(32 * price::FRACTION_FLOW, step)
        };
        prop_assert_eq!(walk(&steps), walk(&turned));
    }

    /// 23: one epoch moves a price by at most an eighth of the lower one, for any use.
    #[test]
    fn one_epoch_moves_a_price_by_a_bounded_ratio(x in 0..64 * price::FRACTION_FLOW, used in any::<u128>(), capacity in 1..1_u128 << 100, least in 1_000_000..1_u128 << 35) {
        let (target, fraction) = (price::TARGET_FLOW, price::FRACTION_FLOW);
        let next = price::excess_next(x, used, capacity, target, fraction);
        let (before, after) = (price::posted(least, x, fraction), price::posted(least, next, fraction));
        let (low, high) = (before.min(after), before.max(after));
        // e^(1/2 / 4.245) is 1.125; rounding adds at most two grains.
        let most = mul_div(low, 1_125_001, 1_000_000).expect("below 2^128") + 2;
        prop_assert!(high <= most, "{low} {high}");
    }

    /// 31: with whole tasks, each user gets the n-th part of the resource that it needs most, minus
    /// the mean of all users' tasks in it. With another's grant, no user could run more of its own
    /// tasks, beyond one task of each of the two.
    #[test]
    fn sharing_pays_and_nobody_envies_beyond_a_task(total in prop::collection::vec(1..300_u64, 1..4), demands in prop::collection::vec(prop::collection::vec(0..10_u64, 3), 2..6)) {
        let demands: Vec<Vec<u64>> = demands.iter().map(|demand| demand[..total.len()].to_vec()).collect();
        prop_assume!(demands.iter().all(|demand| demand.iter().any(|amount| *amount > 0)));
        let granted = fair::dominant_resource(&total, &demands, &vec![1; demands.len()]);
        let tasks: Vec<u128> = demands.iter().map(|demand| dominant(&total, demand)).collect();
        let (count, all) = (demands.len() as u128, tasks.iter().sum::<u128>());
        for (user, demand) in demands.iter().enumerate() {
            let share = u128::from(granted[user]) * tasks[user];
            prop_assert!(count * share + all >= whole(&total), "{user} of {granted:?}");
            for (other, theirs) in demands.iter().enumerate() {
                let held: Vec<u64> = theirs.iter().map(|amount| amount * granted[other]).collect();
                let envied = u128::from(runs(&held, demand).saturating_sub(granted[user])) * tasks[user];
                prop_assert!(envied <= tasks[user] + tasks[other], "{user} envies {other}: {granted:?}");
            }
        }
    }
}

/// The share of 1: all shares have this denominator.
fn whole(total: &[u64]) -> u128 {
    total.iter().map(|amount| u128::from(*amount)).product()
}

/// The share of one task in the resource that it needs most.
fn dominant(total: &[u64], demand: &[u64]) -> u128 {
    let share = |(amount, of): (&u64, &u64)| whole(total) / u128::from(*of) * u128::from(*amount);
    demand.iter().zip(total).map(share).max().unwrap_or(0)
}

/// Number of whole tasks that fit in the held resources.
fn runs(held: &[u64], demand: &[u64]) -> u64 {
    demand.iter().zip(held).filter(|(need, _)| **need > 0).map(|(need, held)| held / need).min().unwrap_or(0)
}

/// 31: a user that lies about its demand runs no more of its real tasks, beyond the remainder of
/// whole tasks: one task of each user.
#[test]
fn a_lie_about_ones_demand_gains_nothing_beyond_a_task() {
    let mut dice = Dice(31);
    let mut demand = |count: usize| -> Vec<u64> { (0..count).map(|_| 1 + dice.below(9)).collect() };
    for number in 0..4_000_u64 {
        let resources = 1 + number as usize % 3;
        let total: Vec<u64> = demand(resources).iter().map(|amount| 60 * amount).collect();
        let demands: Vec<Vec<u64>> = (0..2 + number % 4).map(|_| demand(resources)).collect();
        let mut said = demands.clone();
        said[0] = demand(resources);
        let equal = vec![1; demands.len()];
        let honest = fair::dominant_resource(&total, &demands, &equal)[0];
        let granted = fair::dominant_resource(&total, &said, &equal)[0];
        let held: Vec<u64> = said[0].iter().map(|amount| amount * granted).collect();
        let gained = runs(&held, &demands[0]).saturating_sub(honest);
        let gained = u128::from(gained) * dominant(&total, &demands[0]);
        let tasks: u128 = demands.iter().chain(&said[..1]).map(|demand| dominant(&total, demand)).sum();
        assert!(gained <= tasks, "{number}: {gained} of {tasks}, {demands:?} said {:?}", said[0]);
    }
}

/// 16, the mutant: with a cap on the whole base instead of the weighted one, paying oneself pays in
/// some worlds.
#[test]
fn paying_oneself_wins_in_some_world_under_an_aggregate_cap() {
    let mut dice = Dice(16);
    let base: fn(&[Provider]) -> u128 = |providers| providers.iter().map(|(base, _)| base).sum();
    let (mut won, mut worlds) = (0, 0);
    while worlds < 500 {
        let others = (0..10).map(|_| (u128::from(dice.below(1 << 30)) << 20, dice.below(ONE)));
        let providers: Vec<Provider> = [(0, ONE)].into_iter().chain(others).collect();
        let fake = u128::from(dice.below(1 << 30)) << 16;
        let wash = Wash { reserve: 1 << 99, providers, own: 1, credit: ONE, fake };
        assert!(wash.profit(capped) <= 0);
        won += u32::from(wash.profit(base) > 0);
        worlds += 1;
    }
    assert!(won > 0, "the test can see profit");
}

/// 19: the guarantee ends at exactly a third. One of three lies and another is silent, so two
/// thirds reported and half of the reports are lies. The *lower* median then follows a lie
/// downwards, never upwards.
#[test]
fn at_exactly_a_third_a_lie_moves_the_median_down_only() {
    let (truth, low, high) = ((ONE / 2, 1), (0, 1), (ONE, 1));
    assert_eq!(score::lower_weighted_median(&[truth, low]), Some(0));
    assert_eq!(score::lower_weighted_median(&[truth, high]), Some(ONE / 2));
    assert_eq!(score::lower_weighted_median(&[truth, truth, low]), Some(ONE / 2), "nobody is silent");
}

/// 7: 2^100 of supply, 2^64 units, 100,000 nodes, empty pools, one node, weights of zero.
#[test]
fn nothing_overflows_at_the_ends_of_the_ranges() {
    const SUPPLY: u128 = 1 << 100;
    let nodes = 100_000;
    for weights in [vec![SUPPLY; nodes], vec![0; nodes], vec![u128::MAX; nodes], vec![1], vec![0], vec![]] {
        for pool in [0, 1, SUPPLY, u128::MAX] {
            let (shares, carry) = split::floor_carry(pool, &weights);
            assert_eq!(shares.iter().sum::<u128>() + carry, pool);
            let exact: u128 = split::largest_remainder(pool, &weights).iter().sum();
            assert_eq!(exact, if weights.iter().any(|weight| *weight > 0) { pool } else { 0 });
        }
        let paid = pool::pay_pool(SUPPLY, SUPPLY, &weights);
        assert_eq!(paid.shares.iter().sum::<u128>() + paid.carry, SUPPLY + paid.drawn);
    }
    for (weight, divisor) in [(0, 0), (SUPPLY, 1), (u128::MAX, u128::MAX)] {
        let (emission, target) = pool::usage_pool(SUPPLY, divisor, u64::MAX, u64::MAX, u64::MAX, weight);
        assert!(target <= emission && emission <= SUPPLY);
    }
    assert_eq!(pool::weight(u128::MAX, &[u64::MAX; 8]), u128::MAX);
    assert_eq!(pool::share(SUPPLY, u128::MAX, 0), 0);
    let all = split_fee(Amount::MAX, Amount::MAX, BETA, ALPHA).expect("within bounds");
    let sum = [all.burn, all.committee, all.pay].map(Amount::grains).iter().sum::<u128>();
    assert_eq!(sum, Amount::MAX.grains());
    // The highest price of the range times 2^64 units, per 2^20: saturated or refused, never wrapped.
    let dearest = price::posted(1 << 35, 64 * price::FRACTION_FLOW, price::FRACTION_FLOW);
    assert_eq!(mul_div(dearest, u64::MAX.into(), 1 << 20), None, "2^171 is no amount");
    assert!(mul_div(1 << 63, u64::MAX.into(), 1 << 20).and_then(Amount::new).is_none(), "above all money");
    assert_eq!(price::bucket_next(u128::MAX, u128::MAX), (u128::MAX / 8, u128::MAX - u128::MAX / 8));
    assert_eq!(price::excess_next(u64::MAX, u128::MAX, 1, 0, u64::MAX), u64::MAX);
    assert_eq!(price::slow_next(u128::MAX, 0), u128::MAX - u128::MAX.div_ceil(128));
    assert_eq!(score::books(u128::MAX, u128::MAX, u128::MAX), 2 * ONE / 3);
    assert_eq!(score::lower_weighted_median(&vec![(u64::MAX, u128::MAX); nodes]), Some(u64::MAX));
    assert_eq!(slash::equivocation(u64::MAX, u64::MAX), ONE);
    assert_eq!(slash::of(u128::MAX, ONE), Some(u128::MAX));
}
