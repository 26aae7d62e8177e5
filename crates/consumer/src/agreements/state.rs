//! The next step of an agreement, and the findings of its provider's audits. Pure decisions; sends
//! nothing.
//!
//! ```text
//!   wanted ─► Opening ─► Open ──3/4 of the term, or idle──► Draining ──nothing in force──► Closing ─► Gone
//!                          ├─ half of the voucher reserve used: top up, stays open
//!                          └─ its provider signs no more ──► Draining, to other operators
//! ```
//!
//! Invariants
//! 1. Agreements are opened before they are needed: a put waits for one only when it is larger than all
//!    free room.
//! 2. A renewal opens the new agreement first. The old one drains only while a successor is open, or its
//!    provider leaves, or it has no successor by seven eighths of the term: then it drains to others.
//! 3. An agreement is forgotten only after the redemption window, since vouchers stay good until then,
//!    and only when no shard is in force under it: shards that cannot move are not given up on a date.
//! 4. No provider can keep an agreement in force by signing no removal: a close needs no entry's signature, but for one
//!    that came from a backup.
//! 5. An agreement is closed before the end of its term only if its data set is known here ([`OwnAgreement::is_known`]): a
//!    gateway that was restored from a backup closes none of which the ledger shows the files of a newer catalogue. A
//!    provider can make a data set unknown by submitting a claim that was withdrawn (`docs/threats.md`).

use super::policy::{Policy, egress_cost};
use crate::{agreement::OwnAgreement, catalogue::row::OwnAgreementRow};
use posync_protocol::{
    Amount, Class,
    limits::{HISTORY, Parameters},
    record::{Audit, Measured, Offer, Provider, Reputation},
};

/// Epochs for which a provider may answer and sign nothing before its shards move to others: four days in production.
const PATIENCE_EPOCHS: u64 = 4;
/// Lower bound of that time, for the short epochs of a local network.
const PATIENCE_LEAST_MS: u64 = 5 * 60 * 1_000;
/// Pause after the first notice that a provider is late on a challenge, in blocks, and how often it doubles.
const LATE_PAUSE_BLOCKS: u64 = 4;
const LATE_DOUBLINGS: u32 = 16;

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
    /// True if no room is opened with it ([`super::barred`]).
    pub barred: bool,
}

/// Returns true if a provider passed at least nine tenths of its last [`HISTORY`] reads.
pub(crate) fn passes(audit: &Audit) -> bool {
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

/// The notices of one provider's lateness. Each makes its holders read from it, which they pay for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lateness {
    challenge: u64,
    notices: u32,
    due: u64,
}

impl Lateness {
    /// Returns true if a notice is due at `height`, while the challenge of height `challenge` is late: at once, then
    /// after a pause that doubles.
    pub(crate) fn is_due(&mut self, challenge: u64, height: u64) -> bool {
        if self.notices == 0 || self.challenge != challenge {
            *self = Self { challenge, notices: 0, due: height };
        }
        let due = height >= self.due;
        if due {
            self.due = height.saturating_add(LATE_PAUSE_BLOCKS << self.notices.min(LATE_DOUBLINGS));
            self.notices = self.notices.saturating_add(1);
        }
        due
    }
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
    /// Leaves of the shards in force under it, which may be readable nowhere else.
    pub live: u64,
    /// A shard is on its way into it.
    pub coming: bool,
    /// It runs, and its provider answers and signs no change of it any more.
    pub refuses: bool,
    /// Its data set may hold shards that this catalogue does not know ([`OwnAgreement::is_known`]).
    pub unknown: bool,
    /// Epochs for which it has been empty and was not read.
    pub idle: u64,
}

impl AgreementUsage {
    /// The load and use of an agreement, of which vouchers sign for `egress` bytes, at `epoch`. It was not used since
    /// the last look.
    pub fn of(agreement: &OwnAgreement, egress: u64, epoch: u64) -> Self {
        let row = agreement.terms();
        let empty = agreement.with_state(|state| state.is_empty()) && agreement.waiting().is_none();
        let (load, live, coming) =
            agreement.with_state(|state| (state.load(), state.live_leaves(), state.is_coming()));
        // One that is closed or over takes no change any more, and its provider is right to refuse it.
        let runs = matches!(Stage::of(&row), Stage::Open | Stage::Draining) && !is_ended(&row, epoch);
        let refuses = runs && agreement.refuses();
        let (number, unknown) = (agreement.number, !agreement.is_known());
        Self { number, row, load, egress, pace: 0, empty, live, coming, refuses, unknown, idle: 0 }
    }
}

/// Blocks for which a provider may answer and sign nothing before its shards move to others.
pub(crate) fn patience(p: &Parameters) -> u64 {
    let least = PATIENCE_LEAST_MS.checked_div(p.block_ms).unwrap_or(0);
    p.epoch_blocks().saturating_mul(PATIENCE_EPOCHS).max(least)
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
pub enum AgreementStep {
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
pub struct Around {
    /// Its provider has another agreement, to which its shards can move.
    pub successor: bool,
    /// It can be closed ([`Policy::is_idle`]).
    pub idle: bool,
    /// A row that does not decode may describe shards under it, so an empty data set proves nothing.
    pub kept: bool,
    /// Its provider leaves the network.
    pub leaves: bool,
    /// The posted egress price, in grains per 2^20 bytes.
    pub egress_price: u64,
}

/// The next step of an agreement at `epoch`, and true if its shards move to other providers: its provider leaves or
/// signs nothing any more, or the term is nearly over without a successor. Late in the term a successor is better than
/// nothing, with any provider.
pub fn judge(
    usage: &AgreementUsage,
    epoch: u64,
    around: Around,
    policy: &Policy,
    p: &Parameters,
) -> (AgreementStep, bool) {
    let stage = Stage::of(&usage.row);
    let is_kept = matches!(stage, Stage::Open | Stage::Draining) && usage.live > 0;
    let late = is_late_in_term(&usage.row, epoch, p);
    let refuses = usage.refuses && !(late && around.successor);
    let away = is_kept && (around.leaves || refuses || late && !around.successor);
    match next(usage, epoch, around, policy, p) {
        AgreementStep::Nothing | AgreementStep::TopUp(_)
            if (away || usage.refuses) && stage == Stage::Open =>
        {
            (AgreementStep::Drain, away)
        }
        step => (step, away),
    }
}

/// The next step of an agreement at `epoch` that nothing drives away.
fn next(
    usage: &AgreementUsage,
    epoch: u64,
    around: Around,
    policy: &Policy,
    p: &Parameters,
) -> AgreementStep {
    let row = &usage.row;
    let over = epoch >= row.end_epoch.saturating_add(p.redemption_epochs);
    // Entries that are only to be removed are in force nowhere else, or nobody's. A shard that waits for a signature
    // which is refused was never acknowledged.
    let is_drained = usage.live == 0 && (!usage.coming || usage.refuses);
    match Stage::of(row) {
        Stage::Gone => AgreementStep::Nothing,
        _ if over && usage.live == 0 && around.kept => AgreementStep::Nothing,
        _ if over && usage.live == 0 => AgreementStep::Forget,
        // Shards in force move to other agreements even after the end of its own term.
        Stage::Closing if over => AgreementStep::Drain,
        Stage::Draining if over => AgreementStep::Nothing,
        Stage::Opening | Stage::Closing => AgreementStep::Nothing,
        Stage::Draining if is_drained && !around.kept && !usage.unknown => AgreementStep::Close,
        Stage::Draining if is_drained => AgreementStep::Nothing,
        // The move comes first: it must not wait for a top-up that the ledger may never accept.
        Stage::Open if around.idle && !around.kept || around.successor && is_old(row, epoch, p) => {
            AgreementStep::Drain
        }
        _ => more(usage, around, policy).map_or(AgreementStep::Nothing, AgreementStep::TopUp),
    }
}

/// The amount to add to a voucher reserve that the whole egress quota would exhaust. Due at half used
/// while the posted price is not above the agreement's: a top-up buys the rest at the higher of the two
/// (AG-8). Otherwise due at three quarters used, unless the posted price is above the policy's limit: a
/// top-up would buy at it for the rest of the term, and what is held is read under a new agreement instead.
fn more(usage: &AgreementUsage, around: Around, policy: &Policy) -> Option<Amount> {
    let (row, posted) = (&usage.row, around.egress_price);
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
pub(super) mod tests {
    use super::*;
    use posync_protocol::{Account, AgreementId, record::Challenge};

    const P: Parameters = Parameters::LOCAL;
    const POSTED: u64 = 1_000_000;

    /// Nothing around an agreement while egress costs this.
    const fn around_of(egress_price: u64) -> Around {
        Around { successor: false, idle: false, kept: false, leaves: false, egress_price }
    }

    pub(in crate::agreements) fn usage_of(stage: Stage, end_epoch: u64) -> AgreementUsage {
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
        AgreementUsage {
            number: 0,
            row,
            load: 0,
            egress: 0,
            pace: 0,
            empty: true,
            live: 0,
            coming: false,
            refuses: false,
            unknown: false,
            idle: 0,
        }
    }

    /// A catalogue from a backup may not know all that an agreement holds.
    #[test]
    fn an_agreement_that_may_hold_more_than_is_known_is_not_closed_before_its_end() {
        let unknown = |stage| AgreementUsage { unknown: true, refuses: true, ..usage_of(stage, 720) };
        let (around, policy) = (around_of(POSTED), Policy::of(&P));
        let idle = Around { idle: true, ..around };
        for (what, stage, epoch, around, expected) in [
            ("drained", Stage::Draining, 0, around, AgreementStep::Nothing),
            ("drained and old", Stage::Draining, 719, around, AgreementStep::Nothing),
            ("idle", Stage::Open, 0, idle, AgreementStep::Drain),
            ("ended", Stage::Draining, 722, around, AgreementStep::Forget),
        ] {
            assert_eq!(next(&unknown(stage), epoch, around, &policy, &P), expected, "{what}");
        }
    }

    #[test]
    fn what_an_agreement_needs() {
        let policy = Policy::of(&P);
        let open = || usage_of(Stage::Open, 720);
        let full = || AgreementUsage { load: 1 << 21, empty: false, ..open() };
        let around = around_of(POSTED);
        let successor = Around { successor: true, ..around };
        let idle = Around { idle: true, ..around };
        let kept = Around { kept: true, ..around };
        let dropped = |stage| AgreementUsage { load: 9, empty: false, ..usage_of(stage, 720) };
        let live = |stage| AgreementUsage { live: 9, ..dropped(stage) };
        let coming = |usage| AgreementUsage { coming: true, empty: false, ..usage };
        let rows = [
            ("fresh", open(), 0, around, AgreementStep::Nothing),
            ("old without a successor", open(), 540, around, AgreementStep::Nothing),
            ("old with a successor", open(), 540, successor, AgreementStep::Drain),
            ("old and full", full(), 540, successor, AgreementStep::Drain),
            ("not old", full(), 539, successor, AgreementStep::Nothing),
            ("idle", open(), 0, idle, AgreementStep::Drain),
            ("draining", live(Stage::Draining), 0, successor, AgreementStep::Nothing),
            (
                "draining, all is dropped and unsigned",
                dropped(Stage::Draining),
                0,
                around,
                AgreementStep::Close,
            ),
            (
                "draining, a shard is still on its way into it",
                coming(dropped(Stage::Draining)),
                0,
                around,
                AgreementStep::Nothing,
            ),
            (
                "draining, its provider refuses what is on its way into it",
                AgreementUsage { refuses: true, ..coming(dropped(Stage::Draining)) },
                0,
                around,
                AgreementStep::Close,
            ),
            ("drained", usage_of(Stage::Draining, 720), 0, around, AgreementStep::Close),
            ("closing", usage_of(Stage::Closing, 720), 700, around, AgreementStep::Nothing),
            ("ended, redeemable", usage_of(Stage::Closing, 720), 721, around, AgreementStep::Nothing),
            ("ended for good", usage_of(Stage::Closing, 720), 722, around, AgreementStep::Forget),
            ("never opened", usage_of(Stage::Opening, 720), 722, around, AgreementStep::Forget),
            ("ended with data", live(Stage::Draining), 900, around, AgreementStep::Nothing),
            ("closed with data", live(Stage::Closing), 722, around, AgreementStep::Drain),
            ("ended with what is dropped", dropped(Stage::Draining), 722, around, AgreementStep::Forget),
            ("a row is set aside, idle", open(), 0, Around { kept: true, ..idle }, AgreementStep::Nothing),
            ("a row is set aside, drained", usage_of(Stage::Draining, 720), 0, kept, AgreementStep::Nothing),
            ("a row is set aside, ended", usage_of(Stage::Draining, 720), 900, kept, AgreementStep::Nothing),
            ("a row is set aside, closed", usage_of(Stage::Closing, 720), 900, kept, AgreementStep::Nothing),
            (
                "a row is set aside, old",
                full(),
                540,
                Around { kept: true, ..successor },
                AgreementStep::Drain,
            ),
            ("gone", usage_of(Stage::Gone, 720), 900, around, AgreementStep::Nothing),
        ];
        for (what, usage, epoch, around, expected) in rows {
            assert_eq!(next(&usage, epoch, around, &policy, &P), expected, "{what}");
        }
        let mut short = usage_of(Stage::Open, 40);
        short.row.id.opened = 10 * P.epoch_blocks();
        let at = |epoch| next(&short, epoch, successor, &policy, &P);
        assert_eq!([at(32), at(33)], [AgreementStep::Nothing, AgreementStep::Drain], "its own term counts");
    }

    #[test]
    fn who_signs_nothing_any_more_loses_its_shards_to_others_and_the_agreement_is_closed() {
        let policy = Policy::of(&P);
        let held = |stage| AgreementUsage { load: 9, live: 9, empty: false, ..usage_of(stage, 720) };
        let refused = |stage| AgreementUsage { refuses: true, ..held(stage) };
        let around = around_of(POSTED);
        let successor = Around { successor: true, ..around };
        for (what, usage, epoch, around, expected) in [
            ("it signs", held(Stage::Open), 0, around, (AgreementStep::Nothing, false)),
            ("it refuses", refused(Stage::Open), 0, around, (AgreementStep::Drain, true)),
            (
                "it refuses while it drains",
                refused(Stage::Draining),
                0,
                around,
                (AgreementStep::Nothing, true),
            ),
            (
                "to others, whatever it sells",
                refused(Stage::Draining),
                600,
                successor,
                (AgreementStep::Nothing, true),
            ),
            (
                "unless the term is nearly over",
                refused(Stage::Draining),
                630,
                successor,
                (AgreementStep::Nothing, false),
            ),
            (
                "it leaves",
                held(Stage::Open),
                0,
                Around { leaves: true, ..around },
                (AgreementStep::Drain, true),
            ),
            ("late without a successor", held(Stage::Open), 630, around, (AgreementStep::Drain, true)),
            (
                "nothing in force, it refuses",
                AgreementUsage { live: 0, ..refused(Stage::Open) },
                0,
                around,
                (AgreementStep::Drain, false),
            ),
            (
                "and then",
                AgreementUsage { live: 0, ..refused(Stage::Draining) },
                0,
                around,
                (AgreementStep::Close, false),
            ),
        ] {
            assert_eq!(judge(&usage, epoch, around, &policy, &P), expected, "{what}");
        }
    }

    #[test]
    fn a_provider_that_stays_late_is_reported_ever_less_often_and_anew_with_each_challenge() {
        let mut lateness = Lateness::default();
        let due = |lateness: &mut Lateness, challenge, heights: std::ops::Range<u64>| {
            heights.filter(|height| lateness.is_due(challenge, *height)).collect::<Vec<_>>()
        };
        assert_eq!(due(&mut lateness, 100, 200..300), [200, 204, 212, 228, 260]);
        assert_eq!(due(&mut lateness, 290, 300..310), [300, 304], "another challenge");
        // A day in production.
        let mut lateness = Lateness::default();
        assert!(due(&mut lateness, 100, 161..86_500).len() < 20);
    }

    #[test]
    fn the_patience_is_days_in_production_and_longer_than_every_pause_locally() {
        assert_eq!(patience(&Parameters::PRODUCTION), 4 * 86_400);
        assert_eq!(patience(&P) * P.block_ms, 300_000);
    }

    #[test]
    fn money_for_vouchers_is_added_at_half_while_that_costs_nothing() {
        let policy = Policy::of(&P);
        let used = |mib: u64| AgreementUsage { egress: mib << 20, ..usage_of(Stage::Open, 720) };
        // The whole quota costs 65.536 SYNC, 28 are locked: 28,000 MiB.
        let step = |mib, egress_price| {
            let around = around_of(egress_price);
            next(&used(mib), 0, around, &policy, &P)
        };
        let rest = Amount::sync(65_536).grains() / 1_000 - Amount::sync(28).grains();
        let rest = AgreementStep::TopUp(Amount::new(rest).expect("below the bound"));
        assert_eq!([step(13_999, POSTED), step(14_000, POSTED)], [AgreementStep::Nothing, rest]);
        assert_eq!(step(14_000, POSTED - 1), rest, "a lower price changes nothing");
        let dearer = POSTED + POSTED / 8;
        assert_eq!(
            step(18_600, dearer),
            AgreementStep::Nothing,
            "it would buy all that is left at the higher price"
        );
        assert!(matches!(step(21_000, dearer), AgreementStep::TopUp(_)), "before there is none left");
        let mut whole = used(21_000);
        whole.row.voucher_reserve = Amount::sync(66);
        let around = around_of(POSTED);
        assert_eq!(
            next(&whole, 0, around, &policy, &P),
            AgreementStep::Nothing,
            "all of the quota is covered"
        );
    }

    /// Once a top-up that the ledger refuses each time (the posted price is above the policy's limit) was
    /// submitted again at every look, for a fee, and came before the move to the successor: shards ended with
    /// the term.
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
        let around = Around { successor: true, ..around_of(dear) };
        for epoch in 540..720 {
            assert_eq!(next(&old, epoch, around, &policy, &P), AgreementStep::Drain, "epoch {epoch}");
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
