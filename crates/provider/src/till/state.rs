//! Decides which vouchers are worth keeping: pure.

use crate::{
    credit::{self, Credit},
    terms::Terms,
};
use posync_protocol::{
    AgreementId, Code, Hash, agreement,
    limits::Parameters,
    operation::{Redemption, Voucher},
};
use std::collections::BTreeMap;

/// The best voucher of each agreement and what was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    best: BTreeMap<AgreementId, Redemption>,
    sent: BTreeMap<AgreementId, u64>,
}

/// What became of a voucher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// Better than what was there: keep it, then count it as paid.
    Better(Redemption),
    /// Not above what is kept or redeemed already; it overtook a later one on the way.
    Old,
}

/// Judges a voucher on proven terms: its signature, then [`agreement::check`], the ledger's own.
///
/// # Errors
/// The ledger's code.
pub fn judge(
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
        Err(Code::VoucherNothingNew) => Ok(Judged::Old),
        Err(code) => Err(code),
    }
}

impl State {
    /// Whether a voucher that passed [`judge`] is above the one kept.
    ///
    /// # Errors
    /// `VoucherWentBack` if one unit is above and another below.
    pub fn compare(&self, voucher: &Voucher) -> Result<bool, Code> {
        let Some(best) = self.best.get(&voucher.agreement).map(|kept| kept.voucher) else { return Ok(true) };
        let above = voucher.egress > best.egress || voucher.gas > best.gas;
        let below = voucher.egress < best.egress || voucher.gas < best.gas;
        if above && below { Err(Code::VoucherWentBack) } else { Ok(above) }
    }

    /// Keeps a voucher that is durable now, unless a better one came first.
    pub fn keep(&mut self, redemption: Redemption) {
        if self.compare(&redemption.voucher) == Ok(true) {
            self.best.insert(redemption.voucher.agreement, redemption);
        }
    }

    /// Egress bytes paid by voucher.
    pub fn paid(&self, agreement: &AgreementId) -> u64 {
        self.best.get(agreement).map_or(0, |kept| kept.voucher.egress)
    }

    /// Egress bytes sent. After a restart: what was paid, since what was owed is not kept.
    pub fn sent(&self, agreement: &AgreementId) -> u64 {
        self.sent.get(agreement).copied().unwrap_or_default().max(self.paid(agreement))
    }

    /// Takes credit for `bytes` more, if they may leave now.
    pub fn draw(&mut self, agreement: AgreementId, bytes: u64, ceiling: u64) -> Credit {
        let (sent, paid) = (self.sent(&agreement), self.paid(&agreement));
        let credit = credit::judge(sent, bytes, paid, ceiling);
        if credit == Credit::Send {
            self.sent.insert(agreement, sent.saturating_add(bytes));
        }
        credit
    }

    /// Gives back credit for bytes that did not leave.
    pub fn give_back(&mut self, agreement: AgreementId, bytes: u64) {
        if let Some(sent) = self.sent.get_mut(&agreement) {
            *sent = sent.saturating_sub(bytes);
        }
    }

    /// All kept vouchers, in the order of agreements.
    pub fn vouchers(&self) -> impl Iterator<Item = &Redemption> {
        self.best.values()
    }

    /// The kept voucher of an agreement.
    pub fn voucher(&self, agreement: &AgreementId) -> Option<&Redemption> {
        self.best.get(agreement)
    }

    /// Drops an agreement that redeems nothing any more.
    pub fn forget(&mut self, agreement: &AgreementId) {
        self.best.remove(agreement);
        self.sent.remove(agreement);
    }

    /// Agreements with a voucher.
    pub fn len(&self) -> usize {
        self.best.len()
    }

    /// Whether no voucher is kept.
    pub fn is_empty(&self) -> bool {
        self.best.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{CHAIN, id, session, terms};
    use commonware_cryptography::Signer as _;
    use posync_protocol::{Account, Amount};

    const P: Parameters = Parameters::LOCAL;

    fn voucher(egress: u64, gas: u64) -> Voucher {
        Voucher::signed(&session(), &CHAIN, id(), egress, gas)
    }

    #[test]
    fn the_ledgers_check_decides() {
        let base = terms();
        let mut ended = terms();
        ended.agreement.end_epoch = 0;
        ended.usage.closing_epoch = Some(0);
        let mut used = terms();
        used.usage.egress = 500;
        let mut empty = terms();
        empty.usage.voucher_reserve = Amount::ZERO;
        let mut rotated = terms();
        rotated.usage.old_session_key = rotated.agreement.session_key;
        rotated.usage.old_key_until = 3;
        rotated.agreement.session_key = Account([9; 32]);
        let mut forged = voucher(10, 0);
        forged.egress = 11;
        let mut other = id();
        other.opened += 1;
        let foreign = Voucher::signed(&session(), &CHAIN, other, 10, 0);
        let big = voucher(base.agreement.quota_egress + 1, 0);
        let fast = voucher(base.agreement.rate_egress + 1, 0);
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

    #[test]
    fn credit_is_drawn_paid_and_given_back() {
        let mut state = State::default();
        let slice = 64 << 10;
        assert_eq!(state.draw(id(), slice, u64::MAX), Credit::Send);
        assert_eq!(state.draw(id(), 1, u64::MAX), Credit::Pay(slice));
        state.give_back(id(), slice);
        assert_eq!(state.draw(id(), slice, u64::MAX), Credit::Send);
        let voucher = voucher(slice, 0);
        state.keep(Redemption { voucher, session_key: Account([0; 32]), claim: None });
        assert_eq!(state.draw(id(), slice, u64::MAX), Credit::Send);
        assert_eq!(state.draw(id(), slice, 2 * slice), Credit::Never);
        state.forget(&id());
        assert_eq!((state.paid(&id()), state.sent(&id()), state.len()), (0, 0, 0));
    }
}
