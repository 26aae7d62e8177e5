//! Which agreements to open, how large, and which to close. Unused room costs a tenth of its price over
//! time (AG-7), so agreements start small and double with the load. Pure decisions; sends nothing.
//!
//! ```text
//!   load, bytes on their way ─► room: first, 2 x, 4 x ..   as many as it takes, opened together
//!   bytes read ───────────────► egress: no leaves, twice what was read
//!   nothing, for a while ─────► closed, but for a first one
//! ```
//!
//! Invariants
//! 1. No room is opened with a provider that the load does not need: while an agreement is below three
//!    quarters full no other is opened for it, and each is twice the largest before it, up to the
//!    genesis's largest quota.
//! 2. An opening is proposed only if the ledger's own rules would accept it ([`check_offer`]) and the
//!    account can pay for it.
//! 3. A quota that does not fit in one piece is requested in halves, down to the first quota: held data
//!    is renewed piece by piece.
//! 4. Renewing and reading held data has no highest price but the account's balance; price limits apply to new
//!    data alone.

use super::state::{AgreementUsage, Stage, View, is_late_in_term, is_old, passes, takes_over};
use crate::{agreement::state::leaves, limits::SHARD_BYTES};
use posync_protocol::{
    Account, Amount, Class, PerClass, Units,
    agreement::{Seen, check_offer, locked, terms},
    amount::{UNIT, mul_div_up},
    books::Pair,
    capacity::{sellable_egress, share},
    limits::{LEAF_BYTES, Parameters},
    operation::Open,
    record::Agreement,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    iter::successors,
};

/// Leaves of the first agreement with a provider: 8 MiB.
const FIRST_LEAVES: u64 = 1 << 13;
/// Egress quota of an agreement that stores, as a multiple of the bytes that it may hold.
const EGRESS_TIMES: u64 = 4;
/// Divisor of a provider's free egress: one agreement takes at most this part, so that others have room.
const EGRESS_PART: u64 = 16;
/// Egress bytes below which an agreement with a reduced quota is not opened.
const EGRESS_LEAST: u64 = 16 << 20;
/// Highest prices accepted for new data, as a multiple of the genesis prices.
const PRICES: u64 = 4;
/// Divisor of the slack: limits are raised by this part, as prices may rise before an opening is
/// executed, by an eighth at once.
const SLACK_PART: u64 = 4;
/// Shortest agreement that is worth opening, in epochs.
const TERM_LEAST: u64 = 8;
/// Terms are shortened by up to one part in `TERM_PART`, in `TERMS` steps.
const TERM_PART: u64 = 8;
const TERMS: u64 = 16;
/// Looks that an opening may take: reads during that time must not use up all egress.
const PACE_LOOKS: u64 = 16;
/// Most leaves that are opened ahead with one provider, whatever a put announces: 256 MiB.
const AHEAD_LEAVES: u64 = 1 << 18;
/// Most agreements opened with one provider at once.
const AT_ONCE: usize = 12;
/// Epochs without use after which an empty agreement is closed.
pub(crate) const IDLE_EPOCHS: u64 = 16;

/// The quotas of an agreement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Leaves that may be stored; 0 for reading only.
    pub leaves: u64,
    /// Egress bytes over the agreement's whole term.
    pub egress: u64,
}

/// A consumer's limits and wishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Number of providers to have agreements with.
    pub providers: usize,
    /// Quota of the first agreement with a provider.
    pub first: Quota,
    /// Largest quota of an agreement.
    pub most: Quota,
    /// Most egress bytes per round.
    pub rate_egress: u64,
    /// Most money for vouchers that one opening or top-up locks.
    pub voucher_reserve: Amount,
    /// Longest term of an agreement, in epochs; the offer may limit it further.
    pub epochs: u64,
    /// Highest prices accepted for new data, by class. A class without a quota has no limit.
    pub(crate) price_max: PerClass<u64>,
}

/// The purpose of an opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// To store new data, or to read what is not this account's.
    New,
    /// To read data that the provider holds for this account.
    Read,
    /// To keep data that is held already and would end with its agreement.
    Held,
}

/// The posted prices, and the account's balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posted {
    /// The prices of the classes.
    pub prices: PerClass<Pair>,
    /// The account's balance, from which openings are paid.
    pub balance: Amount,
    /// The height of the state that was read.
    pub height: u64,
}

impl Policy {
    /// The policy of a gateway that stores: the longest agreements that the genesis permits, the first
    /// one small.
    pub fn of(parameters: &Parameters) -> Self {
        let price = |price: u128| u64::try_from(price).unwrap_or(u64::MAX).saturating_mul(PRICES);
        let most = Quota {
            leaves: parameters.quota_max[Class::Storage],
            egress: parameters.quota_max[Class::Egress],
        };
        Self {
            providers: 10,
            first: Quota::to_hold(FIRST_LEAVES.min(most.leaves), most),
            most,
            rate_egress: parameters.rate_max.egress,
            voucher_reserve: Amount::sync(100),
            epochs: parameters.agreement_epochs_max,
            // No gas is bought, so its price has no limit.
            price_max: PerClass::from_fn(|class| match class {
                Class::Storage | Class::Egress => price(parameters.prices[class]),
                Class::Compute => u64::MAX,
            }),
        }
    }

    /// The policy of an auditor, which only reads: `egress` bytes from each provider within `epochs`. No
    /// leaves, so nothing is burned for unused storage.
    pub fn to_read(parameters: &Parameters, epochs: u64, egress: u64) -> Self {
        let of = Self::of(parameters);
        let first = Quota { leaves: 0, egress: egress.min(of.most.egress) };
        Self { first, epochs: of.epochs.min(epochs), ..of }
    }

    /// Returns true if a posted price is above the highest that is paid for new data.
    pub(crate) fn is_dear(&self, posted: &Posted) -> bool {
        Class::ALL.into_iter().any(|class| posted.prices[class].price > self.price_max[class])
    }

    /// Returns true if agreements under it store shards.
    pub(crate) const fn stores(&self) -> bool {
        self.first.leaves > 0
    }

    /// The term of an agreement with a provider, in epochs: up to an eighth shorter than the longest,
    /// depending on the provider, so that agreements opened together do not end together.
    fn term(&self, view: &View, parameters: &Parameters) -> u64 {
        let most = self.epochs.min(view.offer.term_max.into()).min(parameters.agreement_epochs_max);
        let place = u64::from(view.provider.index) % TERMS;
        most - (most / TERM_PART).saturating_mul(place) / TERMS
    }

    /// The opening that requests a quota for new data from a provider; the caller fills in provider, slot
    /// and keys. `None` if the ledger would refuse it, or the policy does not want it.
    pub fn open(&self, view: &View, quota: Quota, posted: &Posted, p: &Parameters) -> Option<Open> {
        self.open_for(Need::New, view, quota, posted, p)
    }

    /// The same for any need. Held data is read and renewed at the posted price, and renewed even where little or
    /// no egress is left.
    fn open_for(
        &self,
        need: Need,
        view: &View,
        quota: Quota,
        posted: &Posted,
        p: &Parameters,
    ) -> Option<Open> {
        let term = self.term(view, p);
        let free = sellable_egress(&view.offer, view.measured.as_ref());
        let free = free.saturating_sub(view.provider.sold[Class::Egress]);
        let egress = quota.egress.min((free / EGRESS_PART).saturating_mul(term));
        let price = posted.prices[Class::Egress].price;
        let most = self.highest(need, Quota { egress, ..quota }, posted);
        let mut open = Open {
            provider: Account::default(),
            slot: 0,
            session_key: Account::default(),
            storage_key: Account::default(),
            price_max: most,
            quota: PerClass::new(quota.leaves, egress, 0),
            rate: Units::egress(self.rate_egress),
            end_epoch: p.epoch(posted.height).saturating_add(term),
            voucher_reserve: self.reserve(price.saturating_add(price / 8), egress),
            storage_reserve_max: Amount::ZERO,
        };
        let agreement = agreement(&open, posted);
        let storage = locked(&agreement, &view.provider, p).storage;
        let slack = storage.grains() / u128::from(SLACK_PART);
        open.storage_reserve_max = Amount::new(storage.grains() + slack).unwrap_or(Amount::MAX);
        let seen = Seen {
            offer: &view.offer,
            provider: &view.provider,
            reputation: &view.reputation,
            measured: view.measured.as_ref(),
            is_taken: false,
            height: posted.height,
        };
        let reads = need == Need::Held || egress >= quota.egress.min(EGRESS_LEAST);
        // A provider that fails its reads gets no new data, but its shards must stay readable.
        let serves = quota.leaves == 0 || passes(&view.audit);
        let wanted = term >= TERM_LEAST && reads && serves;
        let paid = cost(&open, view, posted, p) <= posted.balance;
        (wanted && paid && check_offer(&agreement, &open, &seen, p).is_ok()).then_some(open)
    }

    /// The highest prices that an opening of this quota accepts, by class.
    fn highest(&self, need: Need, quota: Quota, posted: &Posted) -> PerClass<u64> {
        let bought = PerClass::new(quota.leaves, quota.egress, 0);
        PerClass::from_fn(|class| {
            let (most, price) = (self.price_max[class], posted.prices[class].price);
            match need {
                _ if bought[class] == 0 => u64::MAX,
                Need::New => most,
                Need::Read | Need::Held => most.max(price.saturating_add(price / SLACK_PART)),
            }
        })
    }

    /// Openings for these quotas, one after another; each that does not fit is halved until it does, down
    /// to the first quota. With [`Need::Read`], those that store are for new data all the same.
    fn fit(&self, need: Need, view: &View, quotas: &[Quota], posted: &Posted, p: &Parameters) -> Vec<Open> {
        let (mut view, mut opens) = (view.clone(), Vec::new());
        for quota in quotas {
            let mut halves = successors(Some(*quota), |quota| self.half(*quota));
            let need = if need == Need::Read && quota.leaves > 0 { Need::New } else { need };
            let Some(open) = halves.find_map(|half| self.open_for(need, &view, half, posted, p)) else {
                continue;
            };
            let sold = &mut view.provider;
            let egress = share(open.quota[Class::Egress], posted.height, open.end_epoch, p);
            for (class, more) in [(Class::Storage, open.quota[Class::Storage]), (Class::Egress, egress)] {
                sold.sold[class] = sold.sold[class].saturating_add(more);
            }
            opens.push(open);
        }
        opens
    }

    /// Half of a quota that stores, but at least the first quota.
    fn half(&self, quota: Quota) -> Option<Quota> {
        let is_more = self.stores() && quota.leaves > self.first.leaves;
        is_more.then(|| Quota::to_hold((quota.leaves / 2).max(self.first.leaves), self.most))
    }

    /// The openings with one provider: `quotas` as far as they fit; failing that, at least room for held
    /// data that has nowhere to go.
    fn pieces(
        &self,
        view: &View,
        mine: &[&AgreementUsage],
        quotas: &[Quota],
        posted: &Posted,
        p: &Parameters,
    ) -> Vec<Open> {
        let mut opens = self.fit(reading(mine), view, quotas, posted, p);
        let homeless = homeless(mine, p.epoch(posted.height), p);
        if self.stores() && homeless > 0 && opens.iter().all(|open| open.quota[Class::Storage] == 0) {
            let quota = Quota::to_hold(self.large_enough(homeless), self.most);
            opens.extend(self.fit(Need::Held, view, &[quota], posted, p));
        }
        opens
    }

    /// The voucher reserve for `bytes` at `price`, at most the policy's.
    pub fn reserve(&self, price: u64, bytes: u64) -> Amount {
        egress_cost(price, bytes).unwrap_or(Amount::MAX).min(self.voucher_reserve)
    }

    /// The quotas to open with a provider, beside the agreements `mine` with it, while `demand` leaves
    /// are to be placed on it.
    pub fn openings(&self, mine: &[&AgreementUsage], demand: u64, epoch: u64, p: &Parameters) -> Vec<Quota> {
        let live: Vec<&AgreementUsage> = mine.iter().filter(|s| is_live(s, epoch, p)).copied().collect();
        let mut quotas = self.rooms(mine, demand, epoch, p);
        let egress: u64 = live.iter().map(|s| s.row.quota_egress).fold(0, u64::saturating_add);
        let opened = quotas.iter().map(|quota| quota.egress).fold(egress, u64::saturating_add);
        let read = live.iter().map(|s| s.egress).fold(0, u64::saturating_add);
        // At the pace of the last look the egress would be used up before another agreement opens.
        let pace = live.iter().map(|s| s.pace).fold(0, u64::saturating_add);
        let ahead = pace.saturating_mul(PACE_LOOKS);
        if opened == 0 || three_quarters(read, opened) || ahead > opened.saturating_sub(read) {
            let egress = read.saturating_mul(2).max(ahead.saturating_mul(2));
            let egress = egress.clamp(self.first.egress, self.most.egress);
            quotas.push(Quota { leaves: 0, egress });
        }
        quotas
    }

    /// Quotas for the `demand` and for the data of agreements that are over, each twice the one before;
    /// at least one if no live agreement is below three quarters.
    fn rooms(&self, mine: &[&AgreementUsage], demand: u64, epoch: u64, p: &Parameters) -> Vec<Quota> {
        if !self.stores() {
            return Vec::new();
        }
        let (live, over): (Vec<&AgreementUsage>, Vec<&AgreementUsage>) =
            mine.iter().partition(|s| is_live(s, epoch, p));
        let storing: Vec<&&AgreementUsage> = live.iter().filter(|s| s.row.quota_leaves > 0).collect();
        let mut largest = storing.iter().map(|s| s.row.quota_leaves).max();
        let fresh = storing.iter().any(|s| !three_quarters(s.load, s.row.quota_leaves));
        let moves: u64 = over.iter().map(|s| s.live).fold(0, u64::saturating_add);
        let free: u64 = storing.iter().map(|s| room(s)).fold(0, u64::saturating_add);
        let needed = demand.min(AHEAD_LEAVES).saturating_add(moves);
        let short = needed.saturating_sub(free).max(homeless(mine, epoch, p));
        let (mut quotas, mut opened) = (Vec::new(), 0u64);
        while quotas.len() < AT_ONCE && (!fresh && quotas.is_empty() || opened < short) {
            let leaves = match largest {
                Some(largest) => largest.saturating_mul(2),
                None => self.large_enough(moves),
            };
            let leaves = leaves.min(self.most.leaves);
            quotas.push(Quota::to_hold(leaves, self.most));
            largest = Some(leaves);
            opened = opened.saturating_add(leaves);
        }
        quotas
    }

    /// The first quota's leaves, doubled while `load` would fill three quarters of them.
    fn large_enough(&self, load: u64) -> u64 {
        let mut leaves = self.first.leaves;
        while three_quarters(load, leaves) && leaves < self.most.leaves {
            leaves = leaves.saturating_mul(2);
        }
        leaves
    }

    /// Returns true if an agreement can be closed: it was unused for [`IDLE_EPOCHS`], and without it the
    /// others of `mine` would need no new one, or a smaller one. One at a time, the largest first.
    pub(crate) fn is_idle(
        &self,
        it: &AgreementUsage,
        mine: &[&AgreementUsage],
        epoch: u64,
        p: &Parameters,
    ) -> bool {
        let size = |s: &AgreementUsage| (s.row.quota_leaves, s.row.quota_egress, s.number);
        let is_unused = |s: &&&AgreementUsage| s.idle >= IDLE_EPOCHS && Stage::of(&s.row) == Stage::Open;
        let mut unused: Vec<&AgreementUsage> = mine.iter().filter(is_unused).copied().collect();
        unused.sort_by_key(|s| std::cmp::Reverse(size(s)));
        let is_spare = |s: &&&AgreementUsage| {
            let rest: Vec<&AgreementUsage> =
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
    /// The quota of an agreement for `leaves`, with egress limited by `most`.
    fn to_hold(leaves: u64, most: Self) -> Self {
        let egress = leaves.saturating_mul(LEAF_BYTES).saturating_mul(EGRESS_TIMES);
        Self { leaves, egress: egress.min(most.egress) }
    }
}

/// The need of agreements that only read from a provider: what it holds must stay readable at any price.
fn reading(mine: &[&AgreementUsage]) -> Need {
    if mine.iter().any(|usage| usage.live > 0) { Need::Read } else { Need::New }
}

/// Returns true if an agreement is open or opening, and not old.
fn is_live(usage: &AgreementUsage, epoch: u64, p: &Parameters) -> bool {
    matches!(Stage::of(&usage.row), Stage::Open | Stage::Opening) && !is_old(&usage.row, epoch, p)
}

/// Free leaves that shards of any size can use: whole multiples of the largest shard.
fn room(usage: &AgreementUsage) -> u64 {
    let free = usage.row.quota_leaves.saturating_sub(usage.load);
    free - free % leaves(SHARD_BYTES as u64)
}

/// Leaves in force under agreements that are over and for which their successors have no room.
fn homeless(mine: &[&AgreementUsage], epoch: u64, p: &Parameters) -> u64 {
    let over: Vec<&&AgreementUsage> = mine.iter().filter(|s| s.live > 0 && !is_live(s, epoch, p)).collect();
    let takes = |new: &&&AgreementUsage| over.iter().all(|old| takes_over(&new.row, &old.row, epoch, p));
    let free = mine.iter().filter(takes).map(|s| room(s)).fold(0, u64::saturating_add);
    over.iter().map(|s| s.live).fold(0u64, u64::saturating_add).saturating_sub(free)
}

/// The agreement that an opening results in at the posted prices.
const fn agreement(open: &Open, posted: &Posted) -> Agreement {
    terms(&Account([0; 32]), open, posted.prices, posted.height)
}

/// The amount that an opening takes from the account.
fn cost(open: &Open, view: &View, posted: &Posted, p: &Parameters) -> Amount {
    let locks = locked(&agreement(open, posted), &view.provider, p);
    let sum = locks.storage.checked_add(locks.deposit).and_then(|sum| sum.checked_add(open.voucher_reserve));
    sum.unwrap_or(Amount::MAX)
}

/// Returns true if at least three quarters of the quota are used.
fn three_quarters(used: u64, quota: u64) -> bool {
    u128::from(used) * 4 >= u128::from(quota) * 3
}

/// The cost of `bytes` of egress at `price`, rounded up; `None` on overflow.
pub(crate) fn egress_cost(price: u64, bytes: u64) -> Option<Amount> {
    Amount::new(mul_div_up(u128::from(price), u128::from(bytes), UNIT)?)
}

/// The openings to submit now: with all `needed` providers, with all that hold data, and with others
/// until the policy's number of providers have enough. Needed providers come first, then those that hold
/// data, then known before new ones, then by account; together they cost at most the balance. `demand` is
/// the number of leaves to be placed on each used provider.
pub fn wanted(
    views: &BTreeMap<Account, View>,
    needed: &BTreeSet<Account>,
    usages: &[AgreementUsage],
    (policy, demand): (&Policy, u64),
    posted: &Posted,
    p: &Parameters,
) -> Vec<(Account, Vec<Open>)> {
    let epoch = p.epoch(posted.height);
    let (mut covered, mut missing) = (0, Vec::new());
    for (account, view) in views {
        let end = epoch.saturating_add(policy.term(view, p));
        // An agreement that a new one would not outlive is not renewed yet: its shards would have nowhere
        // to go.
        let renews = |s: &&AgreementUsage| is_live(s, epoch, p) || s.row.end_epoch < end;
        let of = |s: &&AgreementUsage| s.row.id.provider == *account;
        let mine: Vec<_> = usages.iter().filter(of).filter(renews).collect();
        let bars = view.barred && !mine.iter().any(|s| s.live > 0 && is_late_in_term(&s.row, epoch, p));
        let mut quotas = policy.openings(&mine, demand, epoch, p);
        if bars {
            // What it holds must stay readable.
            let holds = mine.iter().any(|s| s.live > 0);
            quotas.retain(|quota| holds && quota.leaves == 0);
        }
        if quotas.is_empty() {
            covered += usize::from(!bars);
            continue;
        }
        let opens = if bars {
            policy.fit(reading(&mine), view, &quotas, posted, p)
        } else {
            policy.pieces(view, &mine, &quotas, posted, p)
        };
        if !opens.is_empty() {
            let holds = mine.iter().any(|s| s.load > 0);
            missing.push((!needed.contains(account), !holds, mine.is_empty(), *account, opens));
        }
    }
    missing.sort_unstable_by_key(|(other, idle, new, account, _)| (*other, *idle, *new, *account));
    let first = missing.iter().filter(|(other, idle, ..)| !other || !idle).count();
    let most = policy.providers.saturating_sub(covered).max(first);
    let chosen = missing.into_iter().take(most).map(|(.., account, opens)| (account, opens)).collect();
    paid(chosen, views, posted, p)
}

/// Those of the openings that the balance pays for, in their order; providers without any are left out.
fn paid(
    mut chosen: Vec<(Account, Vec<Open>)>,
    views: &BTreeMap<Account, View>,
    posted: &Posted,
    p: &Parameters,
) -> Vec<(Account, Vec<Open>)> {
    let mut left = posted.balance;
    chosen.retain_mut(|(account, opens)| {
        opens.retain(|open| {
            let cost = cost(open, &views[account], posted, p);
            let is_paid = cost <= left;
            left = if is_paid { left.saturating_sub(cost) } else { left };
            is_paid
        });
        !opens.is_empty()
    });
    chosen
}

/// Those of the openings that cannot wait for room on the consumer's volume: egress for reading and, while data is to
/// move from an agreement that is over, all of them.
pub(crate) fn urgent(
    mut wanted: Vec<(Account, Vec<Open>)>,
    usages: &[AgreementUsage],
    epoch: u64,
    p: &Parameters,
) -> Vec<(Account, Vec<Open>)> {
    let moves = usages.iter().any(|s| s.live > 0 && !is_live(s, epoch, p));
    wanted.retain_mut(|(_, opens)| {
        opens.retain(|open| moves || open.quota[Class::Storage] == 0);
        !opens.is_empty()
    });
    wanted
}

/// The number of providers with which [`wanted`] would open an agreement if the account could pay for it. Those in
/// `opening` do not count: the ledger may have taken the money for an agreement that is not taken up yet.
pub(crate) fn unpaid(
    views: &BTreeMap<Account, View>,
    (needed, opening): (&BTreeSet<Account>, &BTreeSet<Account>),
    usages: &[AgreementUsage],
    wants: (&Policy, u64),
    posted: &Posted,
    p: &Parameters,
) -> usize {
    let rich = Posted { balance: Amount::MAX, ..*posted };
    let mut all = wanted(views, needed, usages, wants, &rich, p);
    all.retain(|(account, _)| !opening.contains(account));
    let all_of_them = all.len();
    all_of_them - paid(all, views, posted, p).len()
}

#[cfg(test)]
mod tests;
