//! Decides which vouchers to keep and how much is owed: pure.

use crate::{
    credit::{self, Credit, Tab},
    terms::Terms,
};
use posync_protocol::{
    AgreementId, Code, Hash, agreement,
    limits::Parameters,
    operation::{Redemption, Voucher},
};
use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

/// Time after the last download of an agreement from which its unpaid bytes may be claimed: as long as
/// an honest gateway waits for a late slice, and many times what it needs to pay for one.
pub const OVERDUE: Duration = Duration::from_secs(60);

/// The best voucher of each agreement and the bytes sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    all: BTreeMap<AgreementId, Kept>,
    /// The journal was damaged when it was read: the best voucher of some agreement may be gone.
    damaged: bool,
}

/// State of one agreement; only `best` survives a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Kept {
    best: Option<Redemption>,
    sent: u64,
    lost: u64,
    overdue: u64,
    /// Number of running downloads.
    running: u32,
    /// Time at which the last of them ended; `None` before the first one of this process.
    rests_since: Option<SystemTime>,
}

impl Kept {
    fn paid(&self) -> u64 {
        self.best.map_or(0, |best| best.voucher.units.egress)
    }

    fn sent(&self) -> u64 {
        self.sent.max(self.paid())
    }

    fn owed(&self) -> u64 {
        self.sent() - self.paid()
    }

    /// True if no download has run for long enough: the bytes owed now will not be paid.
    fn rests(&self, now: SystemTime) -> bool {
        let waited = self.rests_since.and_then(|since| now.duration_since(since).ok());
        self.running == 0 && waited.is_some_and(|waited| waited >= OVERDUE)
    }
}

/// Outcome of a check of a voucher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    /// Better than the kept one: keep it, then count it as paid.
    Better(Redemption),
    /// Not above the kept or redeemed one; it was overtaken by a later one on the way.
    Old,
}

/// Checks a voucher on proven terms: its signature, then [`agreement::check`], the ledger's own rule.
///
/// # Errors
/// The code with which the ledger would refuse it.
pub(crate) fn judge(
    terms: &Terms,
    voucher: &Voucher,
    chain: &Hash,
    round: u64,
    parameters: &Parameters,
) -> Result<Judged, Code> {
    if voucher.agreement != terms.id {
        return Err(Code::AgreementUnknown);
    }
    let keys = [terms.agreement.session_key, terms.usage.old_session_key];
    let signer = keys.into_iter().find(|key| voucher.check(chain, *key).verify());
    let session_key = signer.ok_or(Code::BadSignature)?;
    match agreement::check(&terms.agreement, &terms.usage, voucher, &session_key, round, parameters) {
        Ok(_) => Ok(Judged::Better(Redemption { voucher: *voucher, session_key, claim: None })),
        Err(_) if cfg!(planted = "own-rule") => {
            Ok(Judged::Better(Redemption { voucher: *voucher, session_key, claim: None }))
        }
        Err(Code::VoucherNothingNew) => Ok(Judged::Old),
        Err(code) => Err(code),
    }
}

impl State {
    /// Returns true if a voucher that passed [`judge`] is above the kept one.
    ///
    /// # Errors
    /// `VoucherWentBack` if one unit is above and another below.
    pub(crate) fn compare(&self, voucher: &Voucher) -> Result<bool, Code> {
        let Some(best) = self.voucher(&voucher.agreement).map(|kept| kept.voucher) else { return Ok(true) };
        let above = !voucher.units.is_within(best.units);
        let below = !best.units.is_within(voucher.units);
        if above && below { Err(Code::VoucherWentBack) } else { Ok(above) }
    }

    /// Keeps a voucher that is durable now, unless a better one is kept already.
    pub(crate) fn keep(&mut self, redemption: Redemption) {
        if cfg!(planted = "worse-voucher") || self.compare(&redemption.voucher) == Ok(true) {
            let kept = self.all.entry(redemption.voucher.agreement).or_default();
            kept.best = Some(redemption);
            kept.lost = kept.lost.min(kept.owed());
            kept.overdue = kept.overdue.min(kept.owed());
        }
    }

    /// Egress bytes paid by voucher.
    pub fn paid(&self, agreement: &AgreementId) -> u64 {
        self.all.get(agreement).map_or(0, Kept::paid)
    }

    /// Egress bytes sent. After a restart: the paid bytes and, from the first download on, the bytes that
    /// the ledger has as disputed; other debt is not kept.
    pub fn sent(&self, agreement: &AgreementId) -> u64 {
        self.all.get(agreement).map_or(0, Kept::sent)
    }

    /// Notes that a download begins, under an agreement of which the ledger has `disputed` bytes.
    pub(crate) fn begin(&mut self, agreement: AgreementId, disputed: u64, now: SystemTime) {
        let kept = self.all.entry(agreement).or_default();
        if kept.sent == 0 {
            kept.sent = kept.paid().saturating_add(disputed);
        }
        if kept.rests(now) {
            kept.overdue = kept.owed();
        }
        if kept.running == 0 {
            kept.lost = kept.owed();
        }
        kept.running += 1;
    }

    /// Notes that a download has ended.
    pub(crate) fn end(&mut self, agreement: &AgreementId, now: SystemTime) {
        if let Some(kept) = self.all.get_mut(agreement) {
            kept.running = kept.running.saturating_sub(1);
            kept.rests_since = Some(now);
        }
    }

    /// Draws credit for `bytes` more, if they may leave now.
    pub(crate) fn draw(&mut self, agreement: AgreementId, bytes: u64, trust: u64, ceiling: u64) -> Credit {
        let kept = self.all.entry(agreement).or_default();
        let tab = Tab { sent: kept.sent(), paid: kept.paid(), lost: kept.lost };
        let credit = credit::judge(tab, bytes, trust, ceiling);
        if credit == Credit::Send {
            kept.sent = tab.sent.saturating_add(bytes);
        }
        credit
    }

    /// Gives back credit for bytes that did not leave.
    pub(crate) fn give_back(&mut self, agreement: &AgreementId, bytes: u64) {
        if let Some(kept) = self.all.get_mut(agreement) {
            kept.sent = kept.sent.saturating_sub(bytes);
        }
    }

    /// Egress bytes that were sent and will not be paid: the debt after no download had run for
    /// [`OVERDUE`], less later payments.
    pub fn overdue(&self, agreement: &AgreementId, now: SystemTime) -> u64 {
        self.all.get(agreement).map_or(0, |kept| if kept.rests(now) { kept.owed() } else { kept.overdue })
    }

    /// All kept vouchers, in the order of agreements.
    pub(crate) fn vouchers(&self) -> impl Iterator<Item = &Redemption> {
        self.all.values().filter_map(|kept| kept.best.as_ref())
    }

    /// The kept voucher of an agreement.
    pub(crate) fn voucher(&self, agreement: &AgreementId) -> Option<&Redemption> {
        self.all.get(agreement)?.best.as_ref()
    }

    /// Agreements of which the voucher store keeps any state.
    pub(crate) fn agreements(&self) -> impl Iterator<Item = AgreementId> {
        self.all.keys().copied()
    }

    /// Sets whether the journal was damaged.
    pub(super) const fn set_damaged(&mut self, damaged: bool) {
        self.damaged = damaged;
    }

    /// True if the journal was damaged when it was read, now or at an earlier start.
    pub(crate) const fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// Drops an agreement that can redeem no more vouchers.
    pub(crate) fn forget(&mut self, agreement: &AgreementId) {
        self.all.remove(agreement);
    }

    /// Number of agreements of which any state is kept.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{CHAIN, id, session, terms};
    use commonware_cryptography::Signer as _;
    use posync_protocol::{Account, Amount, Class, Units, amount::ONE, economics::score};
    use proptest::prelude::*;

    const P: Parameters = Parameters::LOCAL;

    fn voucher(egress: u64, gas: u64) -> Voucher {
        Voucher::signed(&session(), &CHAIN, id(), Units { egress, gas })
    }

    #[test]
    fn the_ledgers_check_decides() {
        let base = terms();
        let mut ended = terms();
        ended.agreement.end_epoch = 0;
        ended.usage.closing_epoch = Some(0);
        let mut used = terms();
        used.usage.redeemed.egress = 500;
        let mut empty = terms();
        empty.usage.voucher_reserve = Amount::ZERO;
        let mut rotated = terms();
        rotated.usage.old_session_key = rotated.agreement.session_key;
        rotated.usage.old_key_until = 3;
        rotated.agreement.session_key = Account([9; 32]);
        let mut forged = voucher(10, 0);
        forged.units.egress = 11;
        let mut other = id();
        other.opened += 1;
        let foreign = Voucher::signed(&session(), &CHAIN, other, Units::egress(10));
        let big = voucher(base.agreement.quota[Class::Egress] + 1, 0);
        let fast = voucher(base.agreement.rate.egress + 1, 0);
        let mib = voucher(1 << 20, 0);
        for (name, terms, voucher, round, expected) in [
            ("good", &base, voucher(10, 0), 0, Ok(true)),
            ("nothing", &base, voucher(0, 0), 0, Ok(false)),
            ("forged", &base, forged, 0, Err(Code::BadSignature)),
            ("other agreement", &base, foreign, 0, Err(Code::AgreementUnknown)),
            ("over", &ended, voucher(10, 0), 0, Err(Code::WindowOver)),
            ("redeemed", &used, voucher(500, 0), 0, Ok(false)),
            ("below redeemed", &used, voucher(499, 0), 0, Err(Code::VoucherWentBack)),
            ("over quota", &base, big, 0, Err(Code::VoucherOverQuota)),
            ("too fast", &base, fast, 0, Err(Code::VoucherOverRate)),
            ("later", &base, fast, 1, Ok(true)),
            ("reserve empty", &empty, mib, 0, Err(Code::VoucherReserveEmpty)),
            ("old key", &rotated, voucher(10, 0), 0, Ok(true)),
            ("old key too late", &rotated, voucher(10, 0), 3 * P.epoch_rounds, Err(Code::BadSignature)),
        ] {
            let got = judge(terms, &voucher, &CHAIN, round, &P);
            assert_eq!(got.map(|judged| judged != Judged::Old), expected, "{name}");
        }
    }

    #[test]
    fn only_a_better_voucher_is_kept_in_any_order() {
        let kept =
            |voucher| Redemption { voucher, session_key: Account::of(&session().public_key()), claim: None };
        for order in [[10, 20, 30], [30, 20, 10], [20, 30, 10], [10, 30, 20]] {
            let mut state = State::default();
            order.into_iter().for_each(|egress| state.keep(kept(voucher(egress, 0))));
            assert_eq!(state.paid(&id()), 30, "{order:?}");
        }
        let mut state = State::default();
        state.keep(kept(voucher(10, 5)));
        assert_eq!(state.compare(&voucher(11, 4)), Err(Code::VoucherWentBack));
        assert_eq!(state.compare(&voucher(10, 5)), Ok(false));
        assert_eq!(state.compare(&voucher(10, 6)), Ok(true));
    }

    const SLICE: u64 = 64 << 10;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn pay(state: &mut State, egress: u64) {
        let session_key = Account::of(&session().public_key());
        // Unsigned: kept vouchers were judged before.
        let voucher = Voucher { agreement: id(), units: Units::egress(egress), signature: [0; 64] };
        state.keep(Redemption { voucher, session_key, claim: None });
    }

    #[test]
    fn credit_is_drawn_paid_and_given_back() {
        let mut state = State::default();
        let draw = |state: &mut State, bytes, ceiling| state.draw(id(), bytes, ONE, ceiling);
        assert_eq!(draw(&mut state, SLICE, u64::MAX), Credit::Send);
        assert_eq!(draw(&mut state, 1, u64::MAX), Credit::Pay(SLICE));
        state.give_back(&id(), SLICE);
        assert_eq!(draw(&mut state, SLICE, u64::MAX), Credit::Send);
        pay(&mut state, SLICE);
        assert_eq!(draw(&mut state, SLICE, u64::MAX), Credit::Send);
        assert_eq!(draw(&mut state, SLICE, 2 * SLICE), Credit::Never);
        state.forget(&id());
        assert_eq!((state.paid(&id()), state.sent(&id()), state.len()), (0, 0, 0));
    }

    /// An event of an agreement; each takes a second of its own.
    #[derive(Clone, Copy, Debug)]
    enum StreamAction {
        Begin,
        Draw(u64),
        Pay(u64),
        End,
        /// Time passes without an event.
        Wait,
    }
    use StreamAction::{Begin, Draw, End, Pay, Wait};

    #[test]
    fn only_what_rested_unpaid_is_overdue() {
        let (late, soon) = (1_000, 1);
        for (name, steps, expected) in [
            ("paid in the stream", &[(0, Begin), (0, Draw(9)), (0, Pay(9)), (0, End), (late, Wait)][..], 0),
            ("paid after the stream", &[(0, Begin), (0, Draw(9)), (0, End), (59, Pay(9)), (late, Wait)], 0),
            ("unpaid, just now", &[(0, Begin), (0, Draw(9)), (0, End), (59, Wait)], 0),
            ("unpaid", &[(0, Begin), (0, Draw(9)), (0, End), (60, Wait)], 9),
            ("paid in part", &[(0, Begin), (0, Draw(9)), (0, Pay(4)), (0, End), (60, Wait)], 5),
            ("still running", &[(0, Begin), (0, Draw(9)), (late, Wait)], 0),
            ("one of two runs", &[(0, Begin), (0, Begin), (0, Draw(9)), (0, End), (late, Wait)], 0),
            ("paid late", &[(0, Begin), (0, Draw(9)), (0, End), (late, Pay(9)), (soon, Wait)], 0),
            (
                "the next one runs and pays for itself",
                &[(0, Begin), (0, Draw(9)), (0, End), (60, Begin), (0, Draw(7)), (0, Pay(7)), (soon, Wait)],
                9,
            ),
            (
                "the next one runs and pays for the first",
                &[(0, Begin), (0, Draw(9)), (0, End), (60, Begin), (0, Pay(9)), (0, Draw(7)), (soon, Wait)],
                0,
            ),
            (
                "the next one came before it was overdue",
                &[(0, Begin), (0, Draw(9)), (0, End), (59, Begin), (0, Draw(7)), (late, Wait)],
                0,
            ),
            (
                "both unpaid",
                &[(0, Begin), (0, Draw(9)), (0, End), (60, Begin), (0, Draw(7)), (0, End), (60, Wait)],
                16,
            ),
        ] {
            let (mut state, mut now) = (State::default(), 0);
            for (after, step) in steps {
                now += after;
                match step {
                    Begin => state.begin(id(), 0, at(now)),
                    Draw(bytes) => assert_eq!(state.draw(id(), *bytes, ONE, 100), Credit::Send, "{name}"),
                    Pay(egress) => pay(&mut state, *egress),
                    End => state.end(&id(), at(now)),
                    Wait => {}
                }
            }
            assert_eq!(state.overdue(&id(), at(now)), expected, "{name}");
        }
    }

    #[test]
    fn after_a_restart_what_the_ledger_has_as_disputed_is_still_owed() {
        let mut state = State::default();
        pay(&mut state, 100);
        assert_eq!(state.sent(&id()), 100, "nothing runs yet");
        state.begin(id(), 3 * SLICE, at(0));
        assert_eq!(state.sent(&id()), 100 + 3 * SLICE);
        assert_eq!(state.draw(id(), SLICE, ONE, u64::MAX), Credit::Send, "one slice is left");
        assert_eq!(state.draw(id(), 1, ONE, u64::MAX), Credit::Pay(100 + 4 * SLICE));
        state.end(&id(), at(0));
        assert_eq!(state.overdue(&id(), at(60)), 4 * SLICE);
    }

    /// The ledger's side: redeemed and disputed bytes of one agreement, as [`agreement`] counts.
    #[derive(Default)]
    struct OnLedger {
        egress: u64,
        disputed: u64,
    }

    impl OnLedger {
        fn redeem(&mut self, redemption: &Redemption) {
            let paid = redemption.voucher.units.egress;
            if paid > self.egress {
                let claimed = redemption.claim.map_or(paid, |claim| claim.egress);
                self.disputed += (claimed - paid).saturating_sub(self.disputed).min(paid - self.egress);
                self.egress = paid;
            }
        }
    }

    proptest! {
        /// Reads, payments, restarts, and redemptions that come late, twice, never or out of order.
        #[test]
        fn what_is_disputed_was_unpaid_and_what_is_unpaid_is_bounded(
            steps in proptest::collection::vec((0u8..9, any::<u16>()), 1..300),
        ) {
            let (mut state, mut books, mut now) = (State::default(), OnLedger::default(), 0);
            let (mut sent, mut paid, mut worst, mut running) = (0u64, 0u64, 0u64, 0u32);
            let mut under_way: Vec<Redemption> = vec![];
            for (kind, amount) in steps {
                match kind {
                    0 => {
                        state.begin(id(), books.disputed, at(now));
                        running += 1;
                    }
                    1 | 2 if running > 0 => {
                        let bytes = (u64::from(amount) + 1).min(SLICE);
                        let trust = score::books(books.egress.into(), books.disputed.into(), 1 << 20);
                        if state.draw(id(), bytes, trust, u64::MAX) == Credit::Send {
                            sent += bytes;
                        }
                    }
                    3 => {
                        paid = sent.min(paid + 16 * u64::from(amount));
                        pay(&mut state, paid);
                    }
                    4 if running > 0 => {
                        state.end(&id(), at(now));
                        running -= 1;
                    }
                    5 => now += u64::from(amount) % 100,
                    6 => under_way.extend(state.voucher(&id()).map(|kept| {
                        let overdue = state.overdue(&id(), at(now));
                        crate::redeem::claiming(kept, overdue, books.disputed)
                    })),
                    7 if !under_way.is_empty() => {
                        let place = usize::from(amount) % under_way.len();
                        books.redeem(&under_way[place]);
                        if amount % 2 == 0 {
                            under_way.remove(place);
                        }
                    }
                    8 if amount % 16 == 0 => {
                        let best = state.voucher(&id()).copied();
                        state = State::default();
                        best.into_iter().for_each(|best| state.keep(best));
                        (sent, running) = (paid.max(sent), 0);
                    }
                    _ => {}
                }
                worst = worst.max(sent - paid);
                prop_assert!(books.disputed <= worst, "{} of {worst}", books.disputed);
                prop_assert!(books.disputed <= books.egress);
                let most = state.paid(&id()) / 16 + 4 * SLICE;
                prop_assert!(state.sent(&id()) - state.paid(&id()) <= most);
            }
        }

        /// A consumer that pays in time never owes overdue bytes, however its downloads overlap.
        #[test]
        fn who_pays_a_moment_later_owes_nothing(
            steps in proptest::collection::vec((any::<bool>(), 0u64..50), 1..200),
        ) {
            let (mut state, mut now, mut running) = (State::default(), 0, 0u32);
            for (begins, waits) in steps {
                if begins || running == 0 {
                    state.begin(id(), 0, at(now));
                    running += 1;
                    prop_assert_eq!(state.draw(id(), SLICE, ONE, u64::MAX), Credit::Send);
                } else {
                    state.end(&id(), at(now));
                    running -= 1;
                }
                now += waits;
                prop_assert_eq!(state.overdue(&id(), at(now)), 0);
                let sent = state.sent(&id());
                pay(&mut state, sent);
                now += waits;
            }
            prop_assert_eq!(state.overdue(&id(), at(now + 1_000)), 0);
        }
    }
}
