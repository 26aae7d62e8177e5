//! Vouchers: cumulative units on signed terms, and the check that provider and ledger share.
//!
//! Invariants
//! 1. Redeemed units never decrease and exceed no quota and no rate cap (VO-1, VO-2).
//! 2. Accepted in any order or batches, vouchers cost the consumer the same in all: the price of the units
//!    redeemed last (fees are differences of cumulative prices, VO-7). The split of each payment rounds its
//!    burn up, so a provider gains nothing by redeeming in more pieces.
//! 3. A refused voucher does not affect the others of its batch (VO-4).
//! 4. Only paid units count: if the reserve is short, only the units that it pays for are redeemed (VO-3).

use super::{is_over, lock_of, start_round};
use crate::{
    Account, AgreementId, Amount, Code, Halt, Units,
    amount::mul_div,
    bodies::{Redemption, Voucher},
    event::Event,
    fees::{self, FeeEntry},
    limits::Parameters,
    record::{Agreement, Lock, Usage},
    working::{BlockContext, Touched, Working},
};
use alloc::vec::Vec;

/// The units that a voucher redeems and their price: all new units, or as many as the reserve pays for
/// (VO-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delta {
    /// Egress bytes and gas that this redemption pays for.
    pub units: Units,
    /// The consumer's payment: the price of these units, at most the rest of the voucher reserve.
    pub fee: Amount,
    /// The provider's base within `fee`, at the lower of price and slow price.
    pub base: Amount,
}

/// The one voucher check: the provider runs it before it sends more, the ledger before it pays, so that the
/// two cannot disagree. `session_key` is the key whose signature on the voucher was verified.
///
/// # Errors
/// The lowest that applies of `BadSignature` (not a key of this agreement), `AgreementUnknown` (a voucher of
/// another agreement), `WindowOver`, `VoucherWentBack`, `VoucherNothingNew`, `VoucherOverQuota`,
/// `VoucherOverRate`, `VoucherReserveEmpty`.
pub fn check(
    agreement: &Agreement,
    usage: &Usage,
    voucher: &Voucher,
    session_key: &Account,
    round: u64,
    parameters: &Parameters,
) -> Result<Delta, Code> {
    let epoch = parameters.epoch_of_round(round);
    let old_key = *session_key == usage.old_session_key && epoch < usage.old_key_until.into();
    if *session_key != agreement.session_key && !old_key {
        return Err(Code::BadSignature);
    }
    if voucher.agreement.opened != agreement.opened {
        return Err(Code::AgreementUnknown);
    }
    if is_over(agreement, usage, epoch, parameters) {
        return Err(Code::WindowOver);
    }
    let new = voucher.units.checked_sub(usage.redeemed).ok_or(Code::VoucherWentBack)?;
    if new == Units::ZERO {
        return Err(Code::VoucherNothingNew);
    }
    if !voucher.units.is_within(agreement.quota.metered()) {
        return Err(Code::VoucherOverQuota);
    }
    check_rate(agreement, voucher, round, parameters)?;
    pay(agreement, usage, new)
}

/// Checks that cumulative units are at most cap x (rounds since the start + 1); no round after the end
/// counts.
fn check_rate(
    agreement: &Agreement,
    voucher: &Voucher,
    round: u64,
    parameters: &Parameters,
) -> Result<(), Code> {
    let last = parameters.epoch_start(agreement.end_epoch).saturating_sub(1);
    let rounds = round.min(last).saturating_sub(start_round(agreement, parameters)).saturating_add(1);
    let over = |(units, cap): (u64, u64)| u128::from(units) > u128::from(cap) * u128::from(rounds);
    let is_over = voucher.units.zip(agreement.rate).into_array().into_iter().any(over);
    if is_over { Err(Code::VoucherOverRate) } else { Ok(()) }
}

/// Prices `units` beyond the redeemed units, as far as the reserve pays (VO-3). Fee and base are
/// differences of cumulative prices (VO-7).
fn pay(agreement: &Agreement, usage: &Usage, units: Units) -> Result<Delta, Code> {
    let lock = lock_of(agreement, usage);
    let rise = |of: fn(&Lock, Units) -> u128, units: Units| {
        let after = of(&lock, usage.redeemed.saturating_add(units));
        after.saturating_sub(of(&lock, usage.redeemed))
    };
    let left = usage.voucher_reserve.grains();
    let full = rise(Lock::value, units);
    let paid = if full > left {
        affordable(units, lock.bends(usage, units), left, |units| rise(Lock::value, units))
    } else {
        units
    };
    let fee = at_most(rise(Lock::value, paid), usage.voucher_reserve);
    if full > 0 && fee == Amount::ZERO {
        return Err(Code::VoucherReserveEmpty);
    }
    let base = at_most(rise(Lock::base, paid), fee);
    Ok(Delta { units: paid, fee, base })
}

/// The amount of `grains`, at most `most`.
fn at_most(grains: u128, most: Amount) -> Amount {
    Amount::new(grains).map_or(most, |amount| amount.min(most))
}

/// The part of `units` that `left` grains pay for, both classes in proportion. Between two `bends` of the
/// price each class advances by floor(units x left / price) (VO-3).
fn affordable(units: Units, bends: [Option<Units>; 2], left: u128, price: impl Fn(Units) -> u128) -> Units {
    let (mut paid, mut next) = (Units::ZERO, units);
    for bend in bends.into_iter().flatten() {
        if price(bend) <= left {
            paid = if price(bend) > price(paid) { bend } else { paid };
        } else if price(bend) < price(next) {
            next = bend;
        }
    }
    let (left, full) = (left.saturating_sub(price(paid)), price(next).saturating_sub(price(paid)));
    let part = |(from, to): (u64, u64)| {
        let more = mul_div(to.saturating_sub(from).into(), left, full);
        from.saturating_add(more.and_then(|units| u64::try_from(units).ok()).unwrap_or_default())
    };
    paid.zip(next).map(part)
}

/// Names the records of redemptions by `provider`: agreements, uses, its account, and its row of the epoch.
pub(crate) fn touches_redeem(
    context: &BlockContext,
    provider: &Account,
    redemptions: &[Redemption],
    touched: &mut Touched,
) {
    fees::touches(context, provider, touched);
    for redemption in redemptions {
        let AgreementId { provider, slot, .. } = redemption.voucher.agreement;
        touched.readable.push(Agreement::key(&provider, slot));
        touched.writable.push(Usage::key(&provider, slot));
    }
}

/// Redeems vouchers, each judged on its own (VO-4); a refused one becomes an event. The best come first, so
/// the order in the list does not matter. Returns how many were accepted.
///
/// # Errors
/// The lowest code, if there were vouchers and all were refused; the storage proof that carries them stands.
pub(crate) fn redeem(working: &mut Working<'_>, redemptions: &[Redemption]) -> Result<usize, Halt> {
    let mut best_first: Vec<&Redemption> = redemptions.iter().collect();
    best_first.sort_by_key(|r| {
        let voucher = &r.voucher;
        (voucher.agreement, core::cmp::Reverse(voucher.units), r.session_key, r.claim)
    });
    let (mut accepted, mut lowest) = (0, None);
    for redemption in best_first {
        match working.atomically(|w| redeem_one(w, redemption)) {
            Ok(()) => accepted += 1,
            Err(Halt::Broken(broken)) => return Err(broken.into()),
            Err(Halt::Refused(code)) => {
                lowest = Some(lowest.map_or(code, |low: Code| low.min(code)));
                working.events.push(Event::VoucherRefused { agreement: redemption.voucher.agreement, code });
            }
        }
    }
    match lowest {
        Some(code) if accepted == 0 => Err(code.into()),
        _ => Ok(accepted),
    }
}

fn redeem_one(working: &mut Working<'_>, redemption: &Redemption) -> Result<(), Halt> {
    let voucher = &redemption.voucher;
    let AgreementId { provider, slot, .. } = voucher.agreement;
    let agreement: Agreement = working.need(Agreement::key(&provider, slot), Code::AgreementUnknown)?;
    let key = Usage::key(&provider, slot);
    let mut usage: Usage = working.kept(key)?;
    let (round, parameters) = (working.context.round(), &working.context.parameters);
    let delta = check(&agreement, &usage, voucher, &redemption.session_key, round, parameters)?;
    let disputed = disputed(&agreement, &usage, redemption, delta.fee);
    usage.redeemed = usage.redeemed.checked_add(delta.units).ok_or(Code::VoucherOverQuota)?;
    usage.voucher_reserve.lose(delta.fee, "Usage.voucher_reserve")?;
    // Money circulates, so that the supply does not bound what was ever paid under an agreement.
    usage.signed = usage.signed.checked_add(delta.fee).ok_or(Code::VoucherOverQuota)?;
    usage.disputed = usage.disputed.checked_add(disputed).ok_or(Code::VoucherOverQuota)?;
    working.put(key, &usage)?;
    working.system.voucher_reserves.lose(delta.fee, "System.voucher_reserves")?;
    let Delta { units: redeemed, fee, base } = delta;
    fees::book(
        working,
        &provider,
        FeeEntry { agreement: Some(voucher.agreement), fee, base, redeemed, storage: 0, disputed },
    )
}

/// The amount by which a claim raises the disputed sum (BK-8): the value of the claim, which is cumulative
/// like the voucher, above the voucher and above the sum already disputed. So a gap counts once, however
/// often it is claimed. At most the fee of the voucher, so that one unpaid claimant cannot outweigh a
/// counterparty's signatures.
fn disputed(agreement: &Agreement, usage: &Usage, redemption: &Redemption, fee: Amount) -> Amount {
    let Some(claim) = redemption.claim else { return Amount::ZERO };
    let lock = lock_of(agreement, usage);
    let signed = lock.value(redemption.voucher.units);
    let beyond = lock.value(claim).saturating_sub(signed);
    let new = beyond.saturating_sub(usage.disputed.grains());
    at_most(new, fee)
}
