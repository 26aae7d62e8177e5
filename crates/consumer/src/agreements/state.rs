//! The next step of an agreement, and the findings of its provider's audits. Pure decisions; sends
//! nothing.
//!
//! ```text
//!   wanted ─► Opening ─► Open ──3/4 of the term, or idle──► Draining ──empty──► Closing ─► Gone
//!                          └─ half of the voucher reserve used: top up, stays open
//! ```
//!
//! Invariants
//! 1. Agreements are opened before they are needed: a put waits for one only when it is larger than all
//!    free room.
//! 2. A renewal opens the new agreement first. The old one drains only while a successor is open, or its
//!    provider leaves, or it has no successor by seven eighths of the term: then it drains to others.
//! 3. An agreement is forgotten only after the redemption window, since vouchers stay good until then,
//!    and only when no shard is in force under it: shards that cannot move are not given up on a date.

use super::policy::{Policy, egress_cost};
use crate::catalogue::row::OwnAgreementRow;
use posync_protocol::{
    Amount, Class,
    limits::{HISTORY, Parameters},
    record::{Audit, Measured, Offer, Provider, Reputation},
};

/// The stage of an agreement's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Submitted to the ledger, not open yet.
    Opening = 0,
    /// Open: takes new shards.
    Open = 1,
    /// Takes no new shards; those that it holds move elsewhere.
    Draining = 2,
    /// Closed, or ended: vouchers are still redeemed.
    Closing = 3,
    /// Removed from the ledger.
    Gone = 4,
}

impl Stage {
    /// The stage of a row.
    pub const fn of(row: &OwnAgreementRow) -> Self {
        match row.stage {
            0 => Self::Opening,
            1 => Self::Open,
            2 => Self::Draining,
            3 => Self::Closing,
            _ => Self::Gone,
        }
    }
}

/// The ledger's view of a provider.
#[derive(Clone, Debug)]
pub struct View {
    /// Its declared capacity, reserve prices and longest term.
    pub offer: Offer,
    /// Its registration: index, bond, and the quotas that it sold.
    pub provider: Provider,
    /// Its open challenge and the results of its reads.
    pub audit: Audit,
    /// Its score, jail and suspension.
    pub reputation: Reputation,
    /// Its measured egress rates, if there are any.
    pub measured: Option<Measured>,
}

/// Returns true if a provider passed at least nine tenths of its last [`HISTORY`] reads.
pub fn passes(audit: &Audit) -> bool {
    let reads = audit.drawn.min(HISTORY);
    let passed = (audit.history & mask(reads)).count_ones();
    passed * 10 >= reads * 9
}

const fn mask(bits: u32) -> u64 {
    if bits >= 64 { u64::MAX } else { (1 << bits) - 1 }
}

/// Reads that failed since the provider had `drawn_before` draws.
pub(crate) fn failed_since(drawn_before: u32, audit: &Audit) -> u32 {
    let fresh = audit.drawn.saturating_sub(drawn_before).min(HISTORY);
    fresh - (audit.history & mask(fresh)).count_ones()
}

/// Returns true if a challenge is open past its deadline at `height`.
pub(crate) fn is_late(audit: &Audit, height: u64, deadline_blocks: u64) -> bool {
    audit.challenge.is_some_and(|challenge| height > challenge.height.saturating_add(deadline_blocks))
}

/// The load and use of one agreement.
#[derive(Clone, Debug)]
pub struct AgreementUsage {
    /// Its number in the catalogue.
    pub number: u32,
    /// Its identity, stage and terms.
    pub row: OwnAgreementRow,
    /// Leaves held and reserved.
    pub load: u64,
    /// Egress bytes that its vouchers sign for.
    pub egress: u64,
    /// Egress bytes signed for since the last look.
    pub pace: u64,
    /// It holds no shard, and no change of it is under way or waits for the ledger.
    pub empty: bool,
    /// A shard is in force under it, and may be readable nowhere else.
    pub live: bool,
    /// Epochs for which it has been empty and was not read.
    pub idle: u64,
}

/// Returns true once three quarters of the term are over.
pub(crate) fn is_old(row: &OwnAgreementRow, epoch: u64, p: &Parameters) -> bool {
    let term = row.end_epoch.saturating_sub(p.epoch(row.id.opened));
    row.id.opened > 0 && row.end_epoch.saturating_sub(epoch) <= term / 4
}

/// Returns true once the term is over: the provider then serves nothing under it and signs no change.
pub(crate) const fn is_ended(row: &OwnAgreementRow, epoch: u64) -> bool {
    epoch >= row.end_epoch
}

/// Returns true once seven eighths of the term are over.
pub(crate) fn is_late_in_term(row: &OwnAgreementRow, epoch: u64, p: &Parameters) -> bool {
    let term = row.end_epoch.saturating_sub(p.epoch(row.id.opened));
    row.id.opened > 0 && row.end_epoch.saturating_sub(epoch) <= term / 8
}

/// Returns true if shards under the `old` terms may move to the `new` ones: open, not old itself, and
/// ending later. It decides both which room counts for a move and where shards move.
pub(crate) fn takes_over(new: &OwnAgreementRow, old: &OwnAgreementRow, epoch: u64, p: &Parameters) -> bool {
    let holds = new.quota_leaves > 0 || old.quota_leaves == 0;
    Stage::of(new) == Stage::Open && !is_old(new, epoch, p) && new.end_epoch > old.end_epoch && holds
}

/// The next step that an agreement needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// No step is needed now.
    Nothing,
    /// Add this amount to its voucher reserve.
    TopUp(Amount),
    /// Stop adding shards; those that it holds move to its successor.
    Drain,
    /// Close it on the ledger.
    Close,
    /// Forget it: the redemption window is over, and no shard is in force under it.
    Forget,
}

/// Facts beside an agreement's own that decide its next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Around {
    /// Its provider has another agreement, to which its shards can move.
    pub successor: bool,
    /// It can be closed ([`Policy::is_idle`]).
    pub idle: bool,
    /// A row that does not decode may describe shards under it, so an empty data set proves nothing.
    pub kept: bool,
    /// The posted egress price, in grains per 2^20 bytes.
    pub egress_price: u64,
}

/// The next step of an agreement at `epoch`.
pub(crate) fn next(
    usage: &AgreementUsage,
    epoch: u64,
    around: Around,
    policy: &Policy,
    p: &Parameters,
) -> Step {
    let row = &usage.row;
    let over = epoch >= row.end_epoch.saturating_add(p.redemption_epochs);
    match Stage::of(row) {
        Stage::Gone => Step::Nothing,
        _ if over && !usage.live && around.kept => Step::Nothing,
        _ if over && !usage.live => Step::Forget,
        // Shards in force move to other agreements even after the end of its own term.
        Stage::Closing if over => Step::Drain,
        Stage::Draining if over => Step::Nothing,
        Stage::Opening | Stage::Closing => Step::Nothing,
        Stage::Draining if usage.empty && !around.kept => Step::Close,
        Stage::Draining if usage.empty => Step::Nothing,
        // The move comes first: it must not wait for a top-up that the ledger may never accept.
        Stage::Open if around.idle && !around.kept || around.successor && is_old(row, epoch, p) => {
            Step::Drain
        }
        _ => more(usage, around.egress_price, policy).map_or(Step::Nothing, Step::TopUp),
    }
}

/// The amount to add to a voucher reserve that the whole egress quota would exhaust. Due at half used
/// while the posted price is not above the agreement's: a top-up buys the rest at the higher of the two
/// (AG-8). Otherwise due at three quarters used, unless the posted price is above the policy's limit,
/// where the ledger would refuse it.
fn more(usage: &AgreementUsage, posted: u64, policy: &Policy) -> Option<Amount> {
    let row = &usage.row;
    if posted > row.egress_price.max(policy.price_max[Class::Egress]) {
        return None;
    }
    let cost = |bytes| egress_cost(row.egress_price.max(posted), bytes).unwrap_or(Amount::MAX);
    let (used, whole) = (cost(usage.egress).grains(), cost(row.quota_egress));
    let part = if posted <= row.egress_price { 2 } else { 3 };
    let low = used / part >= row.voucher_reserve.grains() / 4;
    let left = whole.saturating_sub(row.voucher_reserve);
    (low && left > Amount::ZERO).then_some(left.min(policy.voucher_reserve))
}

#[cfg(test)]
mod tests {
    use super::*;
    use posync_protocol::{Account, AgreementId, record::Challenge};

    const P: Parameters = Parameters::LOCAL;
    const POSTED: u64 = 1_000_000;

    fn usage_of(stage: Stage, end_epoch: u64) -> AgreementUsage {
        let row = OwnAgreementRow {
            id: AgreementId { provider: Account([1; 32]), slot: 0, opened: 1 },
            stage: stage as u8,
            end_epoch,
            quota_leaves: 1 << 21,
            quota_egress: 64 << 30,
            voucher_reserve: Amount::sync(28),
            egress_price: POSTED,
            rate_egress: Default::default(),
        };
        AgreementUsage { number: 0, row, load: 0, egress: 0, pace: 0, empty: true, live: false, idle: 0 }
    }

    #[test]
    fn what_an_agreement_needs() {
        let policy = Policy::of(&P);
        let open = || usage_of(Stage::Open, 720);
        let full = || AgreementUsage { load: 1 << 21, empty: false, ..open() };
        let around = Around { successor: false, idle: false, kept: false, egress_price: POSTED };
        let successor = Around { successor: true, ..around };
        let idle = Around { idle: true, ..around };
        let kept = Around { kept: true, ..around };
        let dropped = |stage| AgreementUsage { load: 9, empty: false, ..usage_of(stage, 720) };
        let live = |stage| AgreementUsage { live: true, ..dropped(stage) };
        let rows = [
            ("fresh", open(), 0, around, Step::Nothing),
            ("old without a successor", open(), 540, around, Step::Nothing),
            ("old with a successor", open(), 540, successor, Step::Drain),
            ("old and full", full(), 540, successor, Step::Drain),
            ("not old", full(), 539, successor, Step::Nothing),
            ("idle", open(), 0, idle, Step::Drain),
            ("draining", live(Stage::Draining), 0, successor, Step::Nothing),
            ("draining, all is dropped and unsigned", dropped(Stage::Draining), 0, around, Step::Close),
            ("drained", usage_of(Stage::Draining, 720), 0, around, Step::Close),
            ("closing", usage_of(Stage::Closing, 720), 700, around, Step::Nothing),
            ("ended, redeemable", usage_of(Stage::Closing, 720), 721, around, Step::Nothing),
            ("ended for good", usage_of(Stage::Closing, 720), 722, around, Step::Forget),
            ("never opened", usage_of(Stage::Opening, 720), 722, around, Step::Forget),
            ("ended with data", live(Stage::Draining), 900, around, Step::Nothing),
            ("closed with data", live(Stage::Closing), 722, around, Step::Drain),
            ("ended with what is dropped", dropped(Stage::Draining), 722, around, Step::Forget),
            ("a row is set aside, idle", open(), 0, Around { kept: true, ..idle }, Step::Nothing),
            ("a row is set aside, drained", usage_of(Stage::Draining, 720), 0, kept, Step::Nothing),
            ("a row is set aside, ended", usage_of(Stage::Draining, 720), 900, kept, Step::Nothing),
            ("a row is set aside, closed", usage_of(Stage::Closing, 720), 900, kept, Step::Nothing),
            ("a row is set aside, old", full(), 540, Around { kept: true, ..successor }, Step::Drain),
            ("gone", usage_of(Stage::Gone, 720), 900, around, Step::Nothing),
        ];
        for (what, usage, epoch, around, expected) in rows {
            assert_eq!(next(&usage, epoch, around, &policy, &P), expected, "{what}");
        }
        let mut short = usage_of(Stage::Open, 40);
        short.row.id.opened = 10 * P.epoch_blocks();
        let at = |epoch| next(&short, epoch, successor, &policy, &P);
        assert_eq!([at(32), at(33)], [Step::Nothing, Step::Drain], "its own term counts");
    }

    #[test]
    fn money_for_vouchers_is_added_at_half_while_that_costs_nothing() {
        let policy = Policy::of(&P);
        let used = |mib: u64| AgreementUsage { egress: mib << 20, ..usage_of(Stage::Open, 720) };
        // The whole quota costs 65.536 SYNC, 28 are locked: 28,000 MiB.
        let step = |mib, egress_price| {
            let around = Around { successor: false, idle: false, kept: false, egress_price };
            next(&used(mib), 0, around, &policy, &P)
        };
        let rest = Amount::sync(65_536).grains() / 1_000 - Amount::sync(28).grains();
        let rest = Step::TopUp(Amount::new(rest).expect("below the bound"));
        assert_eq!([step(13_999, POSTED), step(14_000, POSTED)], [Step::Nothing, rest]);
        assert_eq!(step(14_000, POSTED - 1), rest, "a lower price changes nothing");
        let dearer = POSTED + POSTED / 8;
        assert_eq!(step(18_600, dearer), Step::Nothing, "it would buy all that is left at the higher price");
        assert!(matches!(step(21_000, dearer), Step::TopUp(_)), "before there is none left");
        let mut whole = used(21_000);
        whole.row.voucher_reserve = Amount::sync(66);
        let around = Around { successor: false, idle: false, kept: false, egress_price: POSTED };
        assert_eq!(next(&whole, 0, around, &policy, &P), Step::Nothing, "all of the quota is covered");
    }

    /// Found by audit 2: a top-up that the ledger refuses each time (the posted price is above the
    /// policy's limit) was submitted again at every look, for a fee, and came before the move to the
    /// successor: shards ended with the term.
    #[test]
    fn what_cannot_be_topped_up_moves_on_all_the_same() {
        let policy = Policy::of(&P);
        let dear = policy.price_max[Class::Egress] + 1;
        let old = AgreementUsage {
            egress: 28_000 << 20,
            load: 1 << 20,
            empty: false,
            ..usage_of(Stage::Open, 720)
        };
        let around = Around { successor: true, idle: false, kept: false, egress_price: dear };
        for epoch in 540..720 {
            assert_eq!(next(&old, epoch, around, &policy, &P), Step::Drain, "epoch {epoch}");
        }
    }

    #[test]
    fn room_for_a_move_is_open_and_ends_later_and_a_last_eighth_is_left_for_others() {
        let row = |stage, end_epoch| usage_of(stage, end_epoch).row;
        let old = row(Stage::Draining, 720);
        let takes = |new: &OwnAgreementRow| takes_over(new, &old, 540, &P);
        assert!(takes(&row(Stage::Open, 900)));
        assert!(!takes(&row(Stage::Draining, 900)) && !takes(&row(Stage::Open, 720)));
        assert!(!takes_over(&row(Stage::Open, 721), &old, 541, &P), "it is old itself");
        assert!(!takes(&OwnAgreementRow { quota_leaves: 0, ..row(Stage::Open, 900) }), "it stores nothing");
        assert_eq!([629, 630].map(|epoch| is_late_in_term(&old, epoch, &P)), [false, true]);
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
