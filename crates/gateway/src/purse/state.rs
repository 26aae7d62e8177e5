//! Which agreements are wanted, and what an agreement needs next: decides, sends nothing.
//!
//! ```text
//!   wanted ─► Opening ─► Open ──3/4 of the term, or a fault──► Draining ──empty──► Closing ─► Gone
//!                          └─ 3/4 of the voucher reserve used: top up, stays open
//! ```
//!
//! Invariants
//! 1. Agreements are opened before they are needed: a put never waits for one.
//! 2. A renewal opens the new agreement first; the old one only drains while a successor is open.
//! 3. Nothing is forgotten before the redemption window is over: vouchers stay good until then.

use crate::catalogue::row::DeedRow;
use posync_protocol::{
    Account, Amount,
    amount::{UNIT, mul_div_up},
    capacity::sellable_egress,
    limits::{HISTORY, Parameters},
    record::{Audit, Measured, Offer, Provider},
};
use std::collections::{BTreeMap, BTreeSet};

/// Part of a provider's free egress that one agreement takes: room stays for a successor and others.
const EGRESS_PART: u64 = 16;
/// Below this an egress quota is not worth an agreement.
const EGRESS_LEAST: u64 = 16 << 20;
/// Highest egress price accepted, in genesis prices: it follows what the network uses.
const EGRESS_PRICES: u64 = 4;

/// How far an agreement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Asked of the ledger.
    Opening = 0,
    /// Takes shards.
    Open = 1,
    /// Takes none: what it holds moves elsewhere.
    Draining = 2,
    /// Closed, or ended: only vouchers are redeemed.
    Closing = 3,
    /// Gone from the ledger.
    Gone = 4,
}

impl Stage {
    /// The stage of a row.
    pub const fn of(row: &DeedRow) -> Self {
        match row.stage {
            0 => Self::Opening,
            1 => Self::Open,
            2 => Self::Draining,
            3 => Self::Closing,
            _ => Self::Gone,
        }
    }
}

/// Leaves of an agreement, 512 MiB, and no more than the genesis permits. An agreement that is three
/// quarters full gets a successor, so a small one costs only an operation; whoever holds agreements
/// to read holds the same room as who stores, so it must not be much.
const QUOTA_LEAVES: u64 = 1 << 19;

/// What a gateway wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Providers to have agreements with.
    pub providers: usize,
    /// Leaves of each agreement.
    pub quota_leaves: u64,
    /// Most egress bytes of each agreement.
    pub quota_egress: u64,
    /// Egress bytes per round.
    pub rate_egress: u64,
    /// Money for vouchers.
    pub voucher_reserve: Amount,
    /// Epochs of each agreement.
    pub epochs: u64,
    /// Most that may be locked in one storage reserve.
    pub storage_reserve_max: Amount,
    /// Highest prices accepted: storage, egress.
    pub price_max: (u64, u64),
}

impl Policy {
    /// What the genesis permits, with a voucher reserve that covers the whole egress quota or 100 SYNC.
    pub fn of(parameters: &Parameters) -> Self {
        let price = |price: u128| u64::try_from(price).unwrap_or(u64::MAX);
        let egress = price(parameters.price_egress);
        let whole = egress_cost(egress, parameters.quota_egress_max).unwrap_or(Amount::MAX);
        Self {
            providers: 10,
            quota_leaves: parameters.quota_leaves_max.min(QUOTA_LEAVES),
            quota_egress: parameters.quota_egress_max,
            rate_egress: parameters.rate_egress_max,
            voucher_reserve: whole.min(Amount::sync(100)),
            epochs: parameters.agreement_epochs_max,
            storage_reserve_max: Amount::sync(1_000),
            price_max: (price(parameters.price_storage), egress.saturating_mul(EGRESS_PRICES)),
        }
    }
}

/// What `bytes` of egress cost, rounded up.
pub fn egress_cost(price: u64, bytes: u64) -> Option<Amount> {
    Amount::new(mul_div_up(u128::from(price), u128::from(bytes), UNIT)?)
}

/// The ledger's view of a provider.
#[derive(Clone, Debug)]
pub struct View {
    /// What it declares.
    pub offer: Offer,
    /// What the ledger counts of it.
    pub provider: Provider,
    /// Its audits.
    pub audit: Audit,
    /// What it was measured to send.
    pub measured: Option<Measured>,
}

/// The lowest share of its last reads that a provider must have passed: nine tenths.
pub fn passes(audit: &Audit) -> bool {
    let reads = audit.drawn.min(HISTORY);
    let passed = (audit.history & mask(reads)).count_ones();
    passed * 10 >= reads * 9
}

const fn mask(bits: u32) -> u64 {
    if bits >= 64 { u64::MAX } else { (1 << bits) - 1 }
}

/// Reads that failed between two looks at a provider's history.
pub fn failed_since(drawn_before: u32, audit: &Audit) -> u32 {
    let fresh = audit.drawn.saturating_sub(drawn_before).min(HISTORY);
    fresh - (audit.history & mask(fresh)).count_ones()
}

/// Whether a challenge waits longer than the deadline at `height`.
pub fn is_late(audit: &Audit, height: u64, deadline_blocks: u64) -> bool {
    audit.challenge.is_some_and(|challenge| height > challenge.height.saturating_add(deadline_blocks))
}

/// The egress quota to ask of a provider: a sixteenth of what it may still sell in each of the
/// agreement's epochs, at most the policy's.
pub fn quota_egress(view: &View, policy: &Policy) -> u64 {
    let most = sellable_egress(&view.offer, view.measured.as_ref());
    let free = most.saturating_sub(view.provider.sold_egress);
    policy.quota_egress.min((free / EGRESS_PART).saturating_mul(policy.epochs))
}

/// Whether a new agreement with that provider would be accepted and is wanted.
pub fn eligible(view: &View, policy: &Policy, posted: (u64, u64)) -> bool {
    let Provider { leaves_at, sold, .. } = view.provider;
    let Offer { capacity, reserve_storage, reserve_egress, .. } = view.offer;
    leaves_at == 0
        && capacity.saturating_sub(sold) >= policy.quota_leaves
        && quota_egress(view, policy) >= EGRESS_LEAST.min(policy.quota_egress)
        && posted.0 >= reserve_storage
        && posted.1 >= reserve_egress
        && posted.0 <= policy.price_max.0
        && posted.1 <= policy.price_max.1
        && passes(&view.audit)
}

/// How one agreement stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Its terms.
    pub row: DeedRow,
    /// Leaves held and reserved.
    pub load: u64,
    /// Egress bytes signed away.
    pub egress: u64,
    /// Nothing is held, asked or waiting for the ledger.
    pub empty: bool,
}

impl Standing {
    /// Whether it will take shards for a while: open, not nearly full, used or over.
    fn is_fresh(&self, epoch: u64, policy: &Policy) -> bool {
        let row = &self.row;
        matches!(Stage::of(row), Stage::Open | Stage::Opening)
            && self.load / 3 < row.quota_leaves / 4
            && self.egress / 3 < row.quota_egress / 4
            && !is_old(row, epoch, policy)
    }
}

/// Whether three quarters of the term are over.
fn is_old(row: &DeedRow, epoch: u64, policy: &Policy) -> bool {
    row.end_epoch.saturating_sub(epoch) <= policy.epochs / 4
}

/// Providers with whom an agreement should be opened now: all of the `needed` ones, and as many
/// others until the policy's number have a fresh one; those with an agreement already come first,
/// then by account.
pub fn wanted(
    views: &BTreeMap<Account, View>,
    needed: &BTreeSet<Account>,
    deeds: &[Standing],
    epoch: u64,
    policy: &Policy,
    posted: (u64, u64),
) -> Vec<Account> {
    let with = |account: &Account, deed: &Standing| deed.row.agreement.provider == *account;
    let fresh = |account: &Account| deeds.iter().any(|d| with(account, d) && d.is_fresh(epoch, policy));
    let covered = views.keys().filter(|account| fresh(account)).count();
    let known = |account: &Account| deeds.iter().any(|deed| with(account, deed));
    let mut missing: Vec<(bool, bool, Account)> = views
        .iter()
        .filter(|(account, view)| !fresh(account) && eligible(view, policy, posted))
        .map(|(account, _)| (!needed.contains(account), !known(account), *account))
        .collect();
    missing.sort_unstable();
    let first = missing.iter().filter(|(other, ..)| !other).count();
    let most = policy.providers.saturating_sub(covered).max(first);
    missing.into_iter().take(most).map(|(.., account)| account).collect()
}

/// What an agreement needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Nothing,
    /// More money for vouchers.
    TopUp(Amount),
    /// No new shards; what it holds moves to its successor.
    Drain,
    /// To be closed by us.
    Close,
    /// The redemption window is over: what it held is nobody's.
    Forget,
}

/// What an agreement needs at `epoch`; `successor` says that its provider has a fresh one.
pub fn next(standing: &Standing, epoch: u64, successor: bool, policy: &Policy, p: &Parameters) -> Step {
    let row = &standing.row;
    let over = epoch >= row.end_epoch.saturating_add(p.redemption_epochs);
    match Stage::of(row) {
        Stage::Gone => Step::Nothing,
        _ if over => Step::Forget,
        Stage::Opening | Stage::Closing => Step::Nothing,
        Stage::Draining if standing.empty => Step::Close,
        stage => {
            let used = egress_cost(row.egress_price, standing.egress).unwrap_or(Amount::MAX);
            let low = used.grains() / 3 >= row.voucher_reserve.grains() / 4;
            let whole = egress_cost(row.egress_price, row.quota_egress).unwrap_or(Amount::MAX);
            if low && row.voucher_reserve < whole {
                return Step::TopUp(policy.voucher_reserve);
            }
            let full = standing.load / 3 >= row.quota_leaves / 4;
            // What is left of the egress moves what it holds: unread, it would stay unreadable.
            let spent = standing.egress / 3 >= row.quota_egress / 4;
            let leaves = spent || (is_old(row, epoch, policy) && !full);
            if stage == Stage::Open && successor && leaves {
                return Step::Drain;
            }
            Step::Nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use posync_protocol::{AgreementId, Bounded, record::Challenge};

    const P: Parameters = Parameters::LOCAL;
    const POSTED: (u64, u64) = (10_000_000, 1_000_000);

    fn row(provider: u8, stage: Stage, end_epoch: u64) -> DeedRow {
        let provider = Account([provider; 32]);
        DeedRow {
            agreement: AgreementId { provider, slot: 0, opened: 1 },
            stage: stage as u8,
            end_epoch,
            quota_leaves: 1 << 21,
            quota_egress: 64 << 30,
            voucher_reserve: Amount::sync(28),
            egress_price: 1_000_000,
        }
    }

    fn standing(provider: u8, stage: Stage, end_epoch: u64) -> Standing {
        Standing { row: row(provider, stage, end_epoch), load: 0, egress: 0, empty: true }
    }

    fn view(capacity: u64, sold: u64) -> View {
        let provider = Provider { sold, ..Provider::default() };
        let offer = Offer {
            operator: [0; 32],
            capacity,
            capacity_egress: 1 << 30,
            capacity_gas: 0,
            reserve_storage: 0,
            reserve_egress: 0,
            reserve_gas: 0,
            term_max: 720,
            region: Bounded::default(),
        };
        View { offer, provider, audit: Audit::default(), measured: None }
    }

    const fn measured(rates: [u64; 3]) -> Measured {
        Measured { taken: 3, epochs: [3, 2, 1], rates }
    }

    #[test]
    fn an_agreement_asks_for_a_sixteenth_of_what_is_free() {
        let policy = Policy::of(&P);
        let mib = 1 << 20;
        for (declared, sold, rates, expected) in [
            (1 << 40, 0, None, 64 << 30),
            (80 * mib, 0, None, 720 * 5 * mib),
            (80 * mib, 48 * mib, None, 720 * 2 * mib),
            (40 * mib, 0, Some([16 * mib, 8 * mib, 17 * mib]), 720 * mib),
            (40 * mib, 20 * mib, Some([8 * mib; 3]), 0),
            (0, 0, None, 0),
        ] {
            let mut view = view(1 << 23, 0);
            (view.offer.capacity_egress, view.provider.sold_egress) = (declared, sold);
            view.measured = rates.map(measured);
            assert_eq!(quota_egress(&view, &policy), expected, "{declared} {sold} {rates:?}");
        }
    }

    fn change(mut view: View, f: impl FnOnce(&mut View)) -> View {
        f(&mut view);
        view
    }

    #[test]
    fn who_is_eligible() {
        let policy = Policy::of(&P);
        let good = || view(1 << 23, 0);
        let rows = [
            ("with room", good(), true),
            ("exactly full", view(1 << 23, (1 << 23) - policy.quota_leaves), true),
            ("one leaf short", view(1 << 23, (1 << 23) - policy.quota_leaves + 1), false),
            ("leaving", change(good(), |v| v.provider.leaves_at = 7), false),
            ("dearer storage", change(good(), |v| v.offer.reserve_storage = POSTED.0 + 1), false),
            ("all egress sold", change(good(), |v| v.provider.sold_egress = 1 << 30), false),
            ("egress measured away", change(good(), |v| v.measured = Some(measured([0, 9, 0]))), false),
            (
                "measured twice",
                change(good(), |v| v.measured = Some(Measured { taken: 2, ..measured([0; 3]) })),
                true,
            ),
            ("dearer egress", change(good(), |v| v.offer.reserve_egress = POSTED.1 + 1), false),
            (
                "one of ten reads failed",
                change(good(), |v| (v.audit.drawn, v.audit.history) = (10, 0x3fe)),
                true,
            ),
            ("one of nine failed", change(good(), |v| (v.audit.drawn, v.audit.history) = (9, 0x1fe)), false),
            (
                "all of 64 passed",
                change(good(), |v| (v.audit.drawn, v.audit.history) = (900, u64::MAX)),
                true,
            ),
        ];
        for (what, view, expected) in rows {
            assert_eq!(eligible(&view, &policy, POSTED), expected, "{what}");
        }
        assert!(!eligible(&good(), &policy, (POSTED.0 + 1, POSTED.1)), "above what we pay");
    }

    #[test]
    fn ten_providers_have_a_fresh_agreement() {
        let policy = Policy::of(&P);
        let views: BTreeMap<_, _> = (0..14).map(|i| (Account([i; 32]), view(1 << 23, 0))).collect();
        let none = BTreeSet::new();
        let count = |deeds: &[Standing], epoch| wanted(&views, &none, deeds, epoch, &policy, POSTED);
        assert_eq!(count(&[], 0).len(), 10);
        let nine: Vec<_> = (0..9).map(|i| standing(i, Stage::Open, 720)).collect();
        assert_eq!(count(&nine, 0), [Account([9; 32])]);
        assert_eq!(count(&nine, 539), [Account([9; 32])]);
        let renewed = count(&nine, 540);
        assert_eq!(renewed.len(), 10, "at three quarters all are renewed");
        assert_eq!(renewed[0], Account([0; 32]), "known providers first");
        let mut full = nine.clone();
        full[0].load = 3 << 19;
        assert_eq!(count(&full, 0), [Account([0; 32]), Account([9; 32])]);
        let draining: Vec<_> = (0..10).map(|i| standing(i, Stage::Draining, 720)).collect();
        assert_eq!(count(&draining, 0).len(), 10);
        let ten: Vec<_> = (0..10).map(|i| standing(i, Stage::Open, 720)).collect();
        let needed = BTreeSet::from([12, 3, 99].map(|i| Account([i; 32])));
        let also = wanted(&views, &needed, &ten, 0, &policy, POSTED);
        assert_eq!(also, [Account([12; 32])], "what is needed and not there yet, of those who exist");
    }

    #[test]
    fn what_an_agreement_needs() {
        let policy = Policy::of(&P);
        let open = || standing(1, Stage::Open, 720);
        let spent = || {
            let row = DeedRow { quota_egress: 12 << 30, ..row(1, Stage::Open, 720) };
            Standing { row, egress: 9 << 30, ..open() }
        };
        let used = |sync: u64| Standing { egress: sync << 30, ..open() };
        let rows = [
            ("fresh", open(), 0, false, Step::Nothing),
            ("old without a successor", open(), 540, false, Step::Nothing),
            ("old with a successor", open(), 540, true, Step::Drain),
            ("little used", used(20), 0, false, Step::Nothing),
            ("its egress three quarters used", spent(), 0, true, Step::Drain),
            ("without a successor", spent(), 0, false, Step::Nothing),
            ("three quarters used", used(21), 0, false, Step::TopUp(policy.voucher_reserve)),
            (
                "draining",
                Standing { empty: false, ..standing(1, Stage::Draining, 720) },
                0,
                true,
                Step::Nothing,
            ),
            ("drained", standing(1, Stage::Draining, 720), 0, true, Step::Close),
            ("closing", standing(1, Stage::Closing, 720), 700, true, Step::Nothing),
            ("ended, redeemable", standing(1, Stage::Closing, 720), 721, true, Step::Nothing),
            ("ended for good", standing(1, Stage::Closing, 720), 722, true, Step::Forget),
            ("never opened", standing(1, Stage::Opening, 720), 722, true, Step::Forget),
            ("gone", standing(1, Stage::Gone, 720), 900, true, Step::Nothing),
        ];
        for (what, standing, epoch, successor, expected) in rows {
            assert_eq!(next(&standing, epoch, successor, &policy, &P), expected, "{what}");
        }
    }

    #[test]
    fn late_and_failed() {
        let late = |height| {
            let challenge = Some(Challenge { height: 100, seed: [0; 32], by_fee: false });
            is_late(&Audit { challenge, ..Audit::default() }, height, 8)
        };
        assert_eq!([late(100), late(108), late(109)], [false, false, true]);
        assert!(!is_late(&Audit::default(), 1000, 8), "nothing is asked");
        for (before, drawn, history, failed) in [
            (0, 0, 0, 0),
            (0, 4, 0b1111, 0),
            (0, 4, 0b1101, 1),
            (4, 8, 0b1111_0000, 4),
            (4, 8, 0b1111, 0),
            (0, 500, 0, 64),
        ] {
            assert_eq!(failed_since(before, &Audit { drawn, history, ..Audit::default() }), failed);
        }
    }
}
