//! Properties from the doc comments of `economics`, and an oracle for the fast filling.

use posync_protocol::{
    amount::ONE,
    economics::{fair, pool, price, score, slash, split},
};
use proptest::prelude::*;

/// Progressive filling, one task at a time: slow and simple.
fn filling_one_by_one(total: &[u64], demands: &[Vec<u64>], weights: &[u64]) -> Vec<u64> {
    let mut granted = vec![0u64; demands.len()];
    let mut blocked: Vec<bool> =
        demands.iter().zip(weights).map(|(d, w)| *w == 0 || d.iter().all(|x| *x == 0)).collect();
    let mut used = vec![0u64; total.len()];
    while blocked.contains(&false) {
        let held: Vec<Vec<u64>> =
            demands.iter().zip(&granted).map(|(d, n)| d.iter().map(|x| x * n).collect()).collect();
        let user = *fair::order(total, &held, weights).iter().find(|u| !blocked[**u]).expect("one waits");
        let after: Vec<u64> = used.iter().zip(&demands[user]).map(|(u, d)| u + d).collect();
        if after.iter().zip(total).all(|(u, t)| u <= t) {
            used = after;
            granted[user] += 1;
        } else {
            blocked[user] = true;
        }
    }
    granted
}

fn weights() -> impl Strategy<Value = Vec<u128>> {
    prop::collection::vec(prop_oneof![Just(0u128), 0..1000u128, any::<u128>()], 1..12)
}

proptest! {
    #[test]
    fn splits_conserve(pool in any::<u128>(), weights in weights()) {
        let (shares, carry) = split::floor_carry(pool, &weights);
        prop_assert_eq!(shares.iter().sum::<u128>() + carry, pool);
        let any_weight = weights.iter().any(|w| *w > 0);
        prop_assert!(!any_weight || carry < weights.len() as u128);
        let exact = split::largest_remainder(pool, &weights);
        prop_assert_eq!(exact.iter().sum::<u128>(), if any_weight { pool } else { 0 });
        for ((floor, exact), weight) in shares.iter().zip(&exact).zip(&weights) {
            prop_assert!(*exact == *floor || *exact == floor + 1);
            prop_assert!(*weight > 0 || *floor == 0);
        }
    }

    #[test]
    fn a_larger_weight_never_gets_less_and_scaling_changes_nothing(pool in any::<u64>(), weights in prop::collection::vec(0..1u128 << 64, 1..10), factor in 1..1u128 << 32) {
        let (shares, _) = split::floor_carry(pool.into(), &weights);
        for (a, x) in weights.iter().zip(&shares) {
            for (b, y) in weights.iter().zip(&shares) {
                prop_assert!(a < b || x >= y);
            }
        }
        let scaled: Vec<u128> = weights.iter().map(|w| w * factor).collect();
        prop_assert_eq!(split::floor_carry(pool.into(), &scaled).0, shares);
    }

    #[test]
    fn splitting_an_identity_never_gains(pool in any::<u64>(), weights in prop::collection::vec(0..1u128 << 40, 1..8), part in 0..1u128 << 40) {
        let whole = split::floor_carry(pool.into(), &weights).0[0];
        let mut parts = weights.clone();
        let part = part.min(weights[0]);
        parts[0] -= part;
        parts.push(part);
        let shares = split::floor_carry(pool.into(), &parts).0;
        prop_assert!(shares[0] + shares[shares.len() - 1] <= whole);
    }

    #[test]
    fn a_larger_pool_gives_nobody_less(pool in 0..u128::MAX / 2, more in any::<u64>(), weights in weights()) {
        let (before, after) = (split::floor_carry(pool, &weights).0, split::floor_carry(pool + u128::from(more), &weights).0);
        prop_assert!(before.iter().zip(&after).all(|(b, a)| a >= b));
    }

    #[test]
    fn a_pool_conserves_and_never_exceeds_its_caps(reserve in 0..1u128 << 100, carry in 0..1u128 << 100, weights in prop::collection::vec(prop_oneof![Just(0u128), 0..1000u128, 0..1u128 << 100], 1..12)) {
        let total: u128 = weights.iter().sum();
        let (emission, target) = pool::usage_pool(reserve, 4096, ONE / 2, ONE / 5 * 2, ONE / 5, total);
        prop_assert!(target <= emission && emission <= reserve);
        prop_assert!(target <= total / 5 * 2 / 5 + 2, "below the burn");
        let paid = pool::pay_pool(target, carry, &weights);
        let shares: u128 = paid.shares.iter().sum();
        prop_assert_eq!(shares + paid.carry, carry + paid.drawn);
        prop_assert!(shares <= target && paid.drawn <= target);
        prop_assert!(total > 0 || (paid.drawn, shares) == (0, 0), "zero in, zero out");
        for (weight, paid) in weights.iter().zip(&paid.shares) {
            prop_assert_eq!(*paid, pool::share(target, *weight, total));
            prop_assert!(*weight > 0 || *paid == 0);
            let burn = weight.div_ceil(5);
            prop_assert!(*paid * 5 <= burn * 2 + 5, "a subsidy is at most kappa of the burn");
        }
    }

    #[test]
    fn a_larger_target_pays_nobody_less_and_scaling_or_order_change_nothing(target in 0..1u128 << 90, more in any::<u64>(), weights in prop::collection::vec(0..1u128 << 80, 1..10), factor in 1..1u128 << 32) {
        let paid = pool::pay_pool(target, 0, &weights);
        let larger = pool::pay_pool(target + u128::from(more), 0, &weights);
        prop_assert!(paid.shares.iter().zip(&larger.shares).all(|(less, more)| less <= more));
        let scaled: Vec<u128> = weights.iter().map(|weight| weight * factor).collect();
        prop_assert_eq!(&pool::pay_pool(target, 0, &scaled), &paid);
        let reversed: Vec<u128> = weights.iter().rev().copied().collect();
        let mut back = pool::pay_pool(target, 0, &reversed);
        back.shares.reverse();
        prop_assert_eq!(back, paid);
    }

    #[test]
    fn weight_grows_with_base_and_quality(base in 0..1u128 << 100, more in any::<u64>(), q in prop::collection::vec(0..=ONE, 1..8), place in any::<prop::sample::Index>(), d in 0..ONE) {
        let before = pool::weight(base, &q);
        prop_assert!(before <= base);
        prop_assert!(pool::weight(base + u128::from(more), &q) >= before);
        let mut better = q.clone();
        better[place.index(q.len())] += d;
        prop_assert!(pool::weight(base, &better) >= before);
        prop_assert_eq!(pool::weight(base, &[]), 0);
    }

    #[test]
    fn classes_share_a_whole_pool(pool in 0..1u128 << 80, rows in prop::collection::vec((0..1u128 << 80, 0..=ONE), 1..4)) {
        let (fees, prior_shares): (Vec<u128>, Vec<u64>) = rows.into_iter().unzip();
        let (parts, prior) = pool::class_split(pool, &fees, &prior_shares, ONE / 5);
        prop_assert_eq!(prior, if pool == 0 { 1 } else { pool * 10 });
        let weighs = fees.iter().any(|fee| *fee > 0) || prior_shares.iter().any(|share| *share > 0);
        prop_assert_eq!(parts.iter().sum::<u128>(), if weighs { pool } else { 0 });
    }

    #[test]
    fn filling_equals_one_by_one(
        total in prop::collection::vec(0..60u64, 1..4),
        users in prop::collection::vec((prop::collection::vec(0..9u64, 3), 0..5u64), 1..5),
    ) {
        let demands: Vec<Vec<u64>> = users.iter().map(|u| u.0[..total.len()].to_vec()).collect();
        let weights: Vec<u64> = users.iter().map(|u| u.1).collect();
        prop_assert_eq!(fair::dominant_resource(&total, &demands, &weights), filling_one_by_one(&total, &demands, &weights));
    }

    #[test]
    fn filling_huge_counts_is_feasible_and_pareto(
        total in prop::collection::vec(any::<u64>(), 2),
        users in prop::collection::vec((prop::collection::vec(1..u64::MAX, 2), 1..u64::MAX), 1..6),
    ) {
        let demands: Vec<Vec<u64>> = users.iter().map(|u| u.0.clone()).collect();
        let weights: Vec<u64> = users.iter().map(|u| u.1).collect();
        let granted = fair::dominant_resource(&total, &demands, &weights);
        let used: Vec<u128> = (0..2).map(|r| granted.iter().zip(&demands).map(|(n, d)| u128::from(*n) * u128::from(d[r])).sum()).collect();
        prop_assert!(used.iter().zip(&total).all(|(u, t)| *u <= u128::from(*t)));
        for demand in &demands {
            prop_assert!((0..2).any(|r| used[r] + u128::from(demand[r]) > u128::from(total[r])));
        }
    }

    #[test]
    fn score_stays_between(score in 0..=ONE, q in 0..=ONE, failed in any::<bool>()) {
        let next = score::update(score, Some(q), failed);
        prop_assert!(next >= score.min(q) && next <= score.max(q));
        prop_assert!(score::update(score, None, failed) <= score);
    }

    #[test]
    fn quality_is_monotone_and_gated(c in 0..=ONE, a in 0..=ONE, l in 0..=ONE, d in 0..ONE) {
        let q = score::quality(c, a, l);
        prop_assert!(q <= ONE);
        prop_assert!(c >= score::CORRECTNESS_MIN || q == 0);
        prop_assert!(score::quality(c.saturating_add(d), a, l) >= q);
        prop_assert!(score::quality(c, a.saturating_add(d), l) >= q);
        prop_assert!(score::quality(c, a, l.saturating_add(d)) >= q);
    }

    #[test]
    fn a_third_of_liars_cannot_move_the_median_outside_honest_values(honest in prop::collection::vec(0..=ONE, 3..40), lies in prop::collection::vec(0..=ONE, 0..40)) {
        let liars = lies.len().min((honest.len() - 1) / 2);
        let reports: Vec<(u64, u128)> = honest.iter().chain(&lies[..liars]).map(|v| (*v, 1)).collect();
        let median = score::lower_weighted_median(&reports).expect("weights are positive");
        prop_assert!(honest.iter().min().is_some_and(|least| median >= *least));
        prop_assert!(honest.iter().max().is_some_and(|most| median <= *most));
    }

    #[test]
    fn medians_take_any_weights(reports in prop::collection::vec((any::<u64>(), any::<u128>()), 0..20)) {
        let positive = reports.iter().any(|r| r.1 > 0);
        prop_assert_eq!(score::lower_weighted_median(&reports).is_some(), positive);
    }

    #[test]
    fn prices_stay_above_the_least_and_rest_at_the_target(least in 1..1u128 << 35, x in 0..64 * price::FRACTION_FLOW, capacity in 1..1u128 << 100) {
        prop_assert!(price::posted(least, x, price::FRACTION_FLOW) >= least);
        let even = capacity * 2;
        prop_assert_eq!(price::excess_next(x, even / 2, even, price::TARGET_FLOW, price::FRACTION_FLOW), x);
        let after = price::excess_next(x, u128::MAX, capacity, price::TARGET_FLOW, price::FRACTION_FLOW);
        prop_assert!(after - x <= ONE - price::TARGET_FLOW);
    }

    #[test]
    fn slow_price_arrives(slow in 0..1u128 << 100, posted in 0..1u128 << 100) {
        let next = price::slow_next(slow, posted);
        prop_assert!(next.abs_diff(posted) < slow.abs_diff(posted) || slow == posted);
    }

    #[test]
    fn slashes_are_shares(n in any::<u64>(), k in any::<u64>()) {
        prop_assert!(slash::equivocation(n, k) <= ONE && slash::equivocation(n, k) >= ONE / 20);
        prop_assert!(slash::unresponsive(n, k) <= ONE / 100 * 7);
    }
}

#[test]
fn the_median_counts_no_report_without_weight() {
    assert_eq!(score::lower_weighted_median(&[]), None);
    assert_eq!(score::lower_weighted_median(&[(5, 0)]), None);
    assert_eq!(score::lower_weighted_median(&[(5, 0), (7, 1), (9, 0)]), Some(7));
}

#[test]
fn quality_begins_at_the_correctness_gate() {
    assert_eq!(score::quality(score::CORRECTNESS_MIN - 1, ONE, ONE), 0);
    assert!(score::quality(score::CORRECTNESS_MIN, ONE, ONE) > 0);
}

#[test]
fn an_empty_pool_divides_nothing_and_keeps_a_prior() {
    assert_eq!(pool::class_split(0, &[0, 0], &[ONE / 2, ONE / 2], ONE / 5), (vec![0, 0], 1));
}

#[test]
fn of_no_seats_none_is_spared_and_none_was_away() {
    assert_eq!((slash::equivocation(0, 1), slash::unresponsive(0, 1)), (ONE, 0));
    assert_eq!((slash::equivocation(1, 1), slash::unresponsive(1, 1)), (ONE, 0));
}
