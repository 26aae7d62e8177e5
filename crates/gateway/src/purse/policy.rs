//! How much is reserved of whom: room costs by time what is not used of it (AG-7), so agreements begin
//! small and double with the load; decides, sends nothing.
//!
//! ```text
//!   load, bytes on their way ─► room: first, 2 x, 4 x ..   as many as it takes, opened together
//!   bytes read ───────────────► egress: no leaves, twice what was read
//!   nothing, for a while ─────► closed, but for a first one
//! ```
//!
//! Invariants
//! 1. With one provider there is never more room than what it holds or is about to hold needs: below
//!    three quarters of the newest there is no other, and each is at least twice the one before.
//! 2. What is asked for is what the ledger's own rules would accept ([`check_offer`]).

use super::state::{Stage, Standing, View, is_old, passes};
use posync_protocol::{
    Account, Amount,
    agreement::{Seen, check_offer, terms},
    amount::{UNIT, mul_div_up},
    books::Pair,
    capacity::sellable_egress,
    limits::{LEAF_BYTES, Parameters},
    operation::Open,
    record::{CLASSES, EGRESS, GAS, STORAGE},
};
use std::collections::{BTreeMap, BTreeSet};

/// Leaves of the first agreement with a provider: 8 MiB.
const FIRST_LEAVES: u64 = 1 << 13;
/// Times that what an agreement may hold is read within it before another is opened to read, about.
const EGRESS_TIMES: u64 = 4;
/// Part of a provider's free egress that one agreement takes: room stays for a successor and others.
const EGRESS_PART: u64 = 16;
/// Below this an egress quota that was cut is not worth an agreement.
const EGRESS_LEAST: u64 = 16 << 20;
/// Highest prices accepted, in genesis prices: they follow what the network uses.
const PRICES: u64 = 4;
/// Shortest agreement worth opening, in epochs.
const TERM_LEAST: u64 = 8;
/// Leaves that are opened ahead with one provider at most, whatever a put announces: 256 MiB.
const AHEAD_LEAVES: u64 = 1 << 18;
/// Agreements opened with one provider at once.
const AT_ONCE: usize = 12;
/// Epochs without use after which an agreement that holds nothing is closed.
pub const IDLE_EPOCHS: u64 = 16;

/// What an agreement reserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Leaves; 0 to read only.
    pub leaves: u64,
    /// Egress bytes, over its whole time.
    pub egress: u64,
}

/// What a customer wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Providers to have agreements with.
    pub providers: usize,
    /// The first agreement with a provider.
    pub first: Quota,
    /// The largest one.
    pub most: Quota,
    /// Egress bytes per round.
    pub rate_egress: u64,
    /// Most money for vouchers that is locked at once.
    pub voucher_reserve: Amount,
    /// Epochs of each agreement, at most; the offer may name fewer.
    pub epochs: u64,
    /// Most that may be locked in one storage reserve.
    pub storage_reserve_max: Amount,
    /// Highest prices accepted, by class.
    pub price_max: [u64; CLASSES],
}

/// What the ledger posts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posted {
    /// The prices of the classes.
    pub prices: [Pair; CLASSES],
    /// The height at which they were read.
    pub height: u64,
}

impl Policy {
    /// Of who stores: the longest agreements that the genesis permits, the first one small.
    pub fn of(parameters: &Parameters) -> Self {
        let price = |price: u128| u64::try_from(price).unwrap_or(u64::MAX).saturating_mul(PRICES);
        let most = Quota { leaves: parameters.quota_leaves_max, egress: parameters.quota_egress_max };
        let [storage, egress, gas] =
            [parameters.price_storage, parameters.price_egress, parameters.price_gas];
        Self {
            providers: 10,
            first: Quota::to_hold(FIRST_LEAVES.min(most.leaves), most),
            most,
            rate_egress: parameters.rate_egress_max,
            voucher_reserve: Amount::sync(100),
            epochs: parameters.agreement_epochs_max,
            storage_reserve_max: Amount::sync(1_000),
            price_max: [price(storage), price(egress), price(gas)],
        }
    }

    /// Of who only reads: `egress` bytes of each provider within `epochs`. No leaves, so nothing is
    /// burned for room that nobody wants.
    pub fn to_read(parameters: &Parameters, epochs: u64, egress: u64) -> Self {
        let of = Self::of(parameters);
        let first = Quota { leaves: 0, egress: egress.min(of.most.egress) };
        Self { first, epochs: of.epochs.min(epochs), ..of }
    }

    /// Whether it holds shards.
    pub const fn stores(&self) -> bool {
        self.first.leaves > 0
    }

    /// The epochs of an agreement with a provider.
    fn term(&self, view: &View, parameters: &Parameters) -> u64 {
        self.epochs.min(view.offer.term_max.into()).min(parameters.agreement_epochs_max)
    }

    /// The opening that asks a provider for a quota; who, where and the keys are the caller's.
    /// `None` if it would be refused, or is not wanted at these prices.
    pub fn open(&self, view: &View, quota: Quota, posted: &Posted, p: &Parameters) -> Option<Open> {
        let term = self.term(view, p);
        let free = sellable_egress(&view.offer, view.measured.as_ref());
        let free = free.saturating_sub(view.provider.sold_egress);
        let egress = quota.egress.min((free / EGRESS_PART).saturating_mul(term));
        let price = posted.prices[EGRESS].price;
        let open = Open {
            provider: Account::default(),
            slot: 0,
            session_key: Account::default(),
            storage_key: Account::default(),
            max_storage_price: self.price_max[STORAGE],
            max_egress_price: self.price_max[EGRESS],
            max_gas_price: self.price_max[GAS],
            quota_leaves: quota.leaves,
            quota_egress: egress,
            quota_gas: 0,
            rate_egress: self.rate_egress,
            rate_gas: 0,
            end_epoch: p.epoch(posted.height).saturating_add(term),
            voucher_reserve: self.reserve(price.saturating_add(price / 8), egress),
            storage_reserve_max: self.storage_reserve_max,
        };
        let agreement = terms(&Account::default(), &open, &posted.prices, posted.height);
        let seen = Seen {
            offer: &view.offer,
            provider: &view.provider,
            standing: &view.standing,
            measured: view.measured.as_ref(),
            is_taken: false,
            height: posted.height,
        };
        let wanted = term >= TERM_LEAST && egress >= quota.egress.min(EGRESS_LEAST) && passes(&view.audit);
        (wanted && check_offer(&agreement, &open, &seen, p).is_ok()).then_some(open)
    }

    /// Money for vouchers over `bytes` at `price`.
    pub fn reserve(&self, price: u64, bytes: u64) -> Amount {
        egress_cost(price, bytes).unwrap_or(Amount::MAX).min(self.voucher_reserve)
    }

    /// What is to be opened with a provider, beside the agreements `mine` with it, while `demand`
    /// leaves are on their way to it.
    pub fn openings(&self, mine: &[&Standing], demand: u64, epoch: u64, p: &Parameters) -> Vec<Quota> {
        let (live, over): (Vec<&Standing>, Vec<&Standing>) = mine.iter().partition(|s| is_live(s, epoch, p));
        let mut quotas = self.rooms(&live, &over, demand);
        let egress: u64 = live.iter().map(|s| s.row.quota_egress).fold(0, u64::saturating_add);
        let opened = quotas.iter().map(|quota| quota.egress).fold(egress, u64::saturating_add);
        let read = live.iter().map(|s| s.egress).fold(0, u64::saturating_add);
        if opened == 0 || three_quarters(read, opened) {
            let egress = read.saturating_mul(2).clamp(self.first.egress, self.most.egress);
            quotas.push(Quota { leaves: 0, egress });
        }
        quotas
    }

    /// Room for what is on its way and for what the agreements that are `over` hold, each twice the
    /// one before; one, when none of the `live` is below three quarters.
    fn rooms(&self, live: &[&Standing], over: &[&Standing], demand: u64) -> Vec<Quota> {
        if !self.stores() {
            return Vec::new();
        }
        let storing: Vec<&&Standing> = live.iter().filter(|s| s.row.quota_leaves > 0).collect();
        let mut largest = storing.iter().map(|s| s.row.quota_leaves).max();
        let mut free: u64 = storing.iter().map(|s| s.row.quota_leaves.saturating_sub(s.load)).sum();
        let fresh = storing.iter().any(|s| !three_quarters(s.load, s.row.quota_leaves));
        let moves: u64 = over.iter().map(|s| s.load).sum();
        let needed = demand.min(AHEAD_LEAVES).saturating_add(moves);
        let mut quotas = Vec::new();
        while quotas.len() < AT_ONCE && (!fresh && quotas.is_empty() || free < needed) {
            let leaves = match largest {
                Some(largest) => largest.saturating_mul(2),
                None => self.large_enough(moves),
            };
            let leaves = leaves.min(self.most.leaves);
            quotas.push(Quota::to_hold(leaves, self.most));
            largest = Some(leaves);
            free = free.saturating_add(leaves);
        }
        quotas
    }

    /// The first quota, doubled while three quarters are used.
    fn large_enough(&self, load: u64) -> u64 {
        let mut leaves = self.first.leaves;
        while three_quarters(load, leaves) && leaves < self.most.leaves {
            leaves = leaves.saturating_mul(2);
        }
        leaves
    }

    /// Whether an agreement is one too many: unused for a while, and the others of `mine` need nothing
    /// in its place, or something smaller. One at a time, the largest first.
    pub fn is_idle(&self, it: &Standing, mine: &[&Standing], epoch: u64, p: &Parameters) -> bool {
        let size = |s: &Standing| (s.row.quota_leaves, s.row.quota_egress, s.number);
        let is_unused = |s: &&&Standing| s.idle >= IDLE_EPOCHS && Stage::of(&s.row) == Stage::Open;
        let mut unused: Vec<&Standing> = mine.iter().filter(is_unused).copied().collect();
        unused.sort_by_key(|s| std::cmp::Reverse(size(s)));
        let is_spare = |s: &&&Standing| {
            let rest: Vec<&Standing> =
                mine.iter().filter(|other| other.number != s.number).copied().collect();
            let instead = self.openings(&rest, 0, epoch, p);
            instead
                .iter()
                .all(|quota| (quota.leaves, quota.egress) < (s.row.quota_leaves, s.row.quota_egress))
        };
        unused.iter().find(is_spare).is_some_and(|spare| spare.number == it.number)
    }
}

impl Quota {
    /// For an agreement that holds `leaves`, within `most`.
    fn to_hold(leaves: u64, most: Self) -> Self {
        let egress = leaves.saturating_mul(LEAF_BYTES).saturating_mul(EGRESS_TIMES);
        Self { leaves, egress: egress.min(most.egress) }
    }
}

/// Whether it takes more, for a while.
fn is_live(standing: &Standing, epoch: u64, p: &Parameters) -> bool {
    matches!(Stage::of(&standing.row), Stage::Open | Stage::Opening) && !is_old(&standing.row, epoch, p)
}

/// Whether three quarters or more are used.
fn three_quarters(used: u64, quota: u64) -> bool {
    u128::from(used) * 4 >= u128::from(quota) * 3
}

/// What `bytes` of egress cost, rounded up.
pub fn egress_cost(price: u64, bytes: u64) -> Option<Amount> {
    Amount::new(mul_div_up(u128::from(price), u128::from(bytes), UNIT)?)
}

/// What should be opened now: with all of the `needed` providers, and with as many others until the
/// policy's number have what they need; those with an agreement already come first, then by account.
/// `demand`: leaves on their way to each provider that is used.
pub fn wanted(
    views: &BTreeMap<Account, View>,
    needed: &BTreeSet<Account>,
    standings: &[Standing],
    (policy, demand): (&Policy, u64),
    posted: &Posted,
    p: &Parameters,
) -> Vec<(Account, Vec<Open>)> {
    let epoch = p.epoch(posted.height);
    let (mut covered, mut missing) = (0, Vec::new());
    for (account, view) in views {
        let mine: Vec<_> = standings.iter().filter(|s| s.row.agreement.provider == *account).collect();
        let quotas = policy.openings(&mine, demand, epoch, p);
        if quotas.is_empty() {
            covered += 1;
            continue;
        }
        let opens: Vec<Open> =
            quotas.iter().map_while(|quota| policy.open(view, *quota, posted, p)).collect();
        if !opens.is_empty() {
            missing.push((!needed.contains(account), mine.is_empty(), *account, opens));
        }
    }
    missing.sort_unstable_by_key(|(other, new, account, _)| (*other, *new, *account));
    let first = missing.iter().filter(|(other, ..)| !other).count();
    let most = policy.providers.saturating_sub(covered).max(first);
    missing.into_iter().take(most).map(|(.., account, opens)| (account, opens)).collect()
}

#[cfg(test)]
mod tests;
