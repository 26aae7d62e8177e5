//! The order of service under contention: weighted dominant-resource fairness in whole tasks.
//!
//! A user's key is its shares of each resource, divided by its weight, largest first; the least
//! key is served next, ties by index (Ghodsi et al., NSDI 2011). Keys are compared by cross
//! multiplication, so nothing is rounded.
//!
//! [`dominant_resource`] is progressive filling: it grants one task at a time to the least key, and leaves a
//! user out once its next task does not fit. Counts can be large, so it grants whole stretches in which
//! everything fits at once; the result is that of the one-by-one loop.

use alloc::vec::Vec;
use core::cmp::Ordering;
use ruint::aliases::{U256, U512};

/// A share `amount / total` of a user of some weight.
#[derive(Clone, Copy)]
struct Share {
    amount: u128,
    total: u64,
}

fn compare_shares(a: Share, weight_a: u64, b: Share, weight_b: u64) -> Ordering {
    let left = U512::from(a.amount) * U512::from(b.total) * U512::from(weight_b);
    let right = U512::from(b.amount) * U512::from(a.total) * U512::from(weight_a);
    left.cmp(&right)
}

/// A user's shares, largest first. A resource with a total of zero counts only if some is held: then its
/// total is taken as one.
fn key(total: &[u64], amounts: impl Iterator<Item = u128>) -> Vec<Share> {
    let mut shares: Vec<Share> =
        amounts.zip(total).map(|(amount, total)| Share { amount, total: (*total).max(1) }).collect();
    shares.sort_by(|a, b| compare_shares(*b, 1, *a, 1));
    shares
}

/// Least first: by weighted shares in order. A user of weight zero comes after all others.
fn compare(a: &[Share], weight_a: u64, b: &[Share], weight_b: u64) -> Ordering {
    match (weight_a == 0, weight_b == 0) {
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        _ => {}
    }
    let (weight_a, weight_b) = (weight_a.max(1), weight_b.max(1));
    let unequal = a.iter().zip(b).map(|(x, y)| compare_shares(*x, weight_a, *y, weight_b));
    unequal.into_iter().find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

fn weight(weights: &[u64], user: usize) -> u64 {
    weights.get(user).copied().unwrap_or(1)
}

/// Users in the order of service, the next one first, given their allocations. Missing weights count as one.
pub fn order(total: &[u64], allocated: &[Vec<u64>], weights: &[u64]) -> Vec<usize> {
    let keys: Vec<Vec<Share>> =
        allocated.iter().map(|held| key(total, held.iter().map(|x| u128::from(*x)))).collect();
    let mut users: Vec<usize> = (0..allocated.len()).collect();
    users.sort_by(|a, b| {
        compare(&keys[*a], weight(weights, *a), &keys[*b], weight(weights, *b)).then(a.cmp(b))
    });
    users
}

/// The state of a filling.
struct Filling<'a> {
    total: &'a [u64],
    demands: &'a [Vec<u64>],
    weights: &'a [u64],
    granted: Vec<u64>,
    used: Vec<u128>,
    waiting: Vec<usize>,
}

/// Whole tasks granted to each user. Missing weights count as one. A user of weight zero, or that asks for
/// nothing, gets nothing. If `demands[i]` is shorter than `total`, its missing entries are zero.
///
/// Guarantees: never above the total; no further task of any served user fits; with equal weights no user
/// prefers another's bundle, and no user gains by asking for more than it needs.
pub fn dominant_resource(total: &[u64], demands: &[Vec<u64>], weights: &[u64]) -> Vec<u64> {
    let asks = |user: &usize| {
        weight(weights, *user) > 0 && demands[*user].iter().zip(total).any(|(demand, _)| *demand > 0)
    };
    let mut filling = Filling {
        total,
        demands,
        weights,
        granted: alloc::vec![0; demands.len()],
        used: alloc::vec![0; total.len()],
        waiting: (0..demands.len()).filter(asks).collect(),
    };
    while !filling.waiting.is_empty() {
        filling.stretch();
        filling.until_blocked();
    }
    filling.granted
}

impl Filling<'_> {
    fn fits(&self, user: usize) -> bool {
        self.demands[user]
            .iter()
            .zip(&self.used)
            .zip(self.total)
            .all(|((demand, used), total)| used + u128::from(*demand) <= u128::from(*total))
    }

    fn key(&self, user: usize) -> Vec<Share> {
        let tasks = u128::from(self.granted[user]);
        key(self.total, self.demands[user].iter().map(|demand| tasks * u128::from(*demand)))
    }

    fn next(&self) -> usize {
        let mut least = self.waiting[0];
        let mut least_key = self.key(least);
        for user in &self.waiting[1..] {
            let key = self.key(*user);
            if compare(&key, weight(self.weights, *user), &least_key, weight(self.weights, least)).is_lt() {
                (least, least_key) = (*user, key);
            }
        }
        least
    }

    /// Grants tasks one by one, until some user's next task does not fit.
    fn until_blocked(&mut self) {
        loop {
            let user = self.next();
            if !self.fits(user) {
                self.waiting.retain(|waiting| *waiting != user);
                return;
            }
            self.granted[user] += 1;
            for (used, demand) in self.used.iter_mut().zip(&self.demands[user]) {
                *used += u128::from(*demand);
            }
        }
    }

    /// Number of tasks that `user` starts while its weighted dominant share is below `level / 2^128`. The
    /// steps are so fine that two adjacent levels differ by at most one task of a user.
    fn tasks_below(&self, user: usize, level: U256) -> U512 {
        let dominant = key(self.total, self.demands[user].iter().map(|demand| u128::from(*demand)))[0];
        let top = U512::from(level) * U512::from(dominant.total) * U512::from(weight(self.weights, user));
        top.div_ceil(U512::from(dominant.amount) << 128)
    }

    /// Grants and used totals if all tasks of the waiting users below `level` were granted; `None` if that
    /// does not fit.
    fn at_level(&self, level: U256) -> Option<(Vec<u64>, Vec<u128>)> {
        let (mut granted, mut used) = (self.granted.clone(), self.used.clone());
        for user in &self.waiting {
            let tasks = u64::try_from(self.tasks_below(*user, level)).ok()?.max(self.granted[*user]);
            let more = u128::from(tasks - self.granted[*user]);
            for ((used, demand), total) in used.iter_mut().zip(&self.demands[*user]).zip(self.total) {
                *used = more.checked_mul(u128::from(*demand)).and_then(|add| used.checked_add(add))?;
                if *used > u128::from(*total) {
                    return None;
                }
            }
            granted[*user] = tasks;
        }
        Some((granted, used))
    }

    /// Grants every task below the highest level at which all of them fit, at once.
    fn stretch(&mut self) {
        // Weighted shares are at most one over the least weight, and so at most one.
        let (mut low, mut high): (U256, U256) = (U256::ZERO, U256::from(1) << 128);
        while low < high {
            let middle = low + (high - low).div_ceil(U256::from(2));
            if self.at_level(middle).is_some() { low = middle } else { high = middle - U256::from(1) }
        }
        if let Some((granted, used)) = self.at_level(low) {
            (self.granted, self.used) = (granted, used);
        }
    }
}
