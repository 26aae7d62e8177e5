//! How a fee is split: burn, committee, provider (ST-3).
//!
//! The consumer pays F at the price of its agreement; the provider's base is P at the lower of
//! price and slow price, so that pumping the posted price only feeds the burn.

use crate::{
    Account, AgreementId, Amount, Code,
    amount::{ONE, mul_div, mul_div_up},
    ledger::{BlockContext, Event, Touched, Working},
    limits::SETTLEMENT_RING,
    record::{AccountState, Settlement},
};

/// What a fee was paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The voucher agreement; `None` for storage.
    pub(crate) agreement: Option<AgreementId>,
    /// Paid by the consumers.
    pub(crate) fee: Amount,
    /// The provider's base within it.
    pub(crate) base: Amount,
    /// Egress bytes redeemed.
    pub(crate) egress: u64,
    /// Gas redeemed.
    pub(crate) gas: u64,
    /// Leaf-rounds paid.
    pub(crate) storage: u64,
    /// Claimed beyond the signature.
    pub(crate) disputed: Amount,
}

/// A fee in its three parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Gone.
    pub burn: Amount,
    /// To the committee's pool.
    pub committee: Amount,
    /// To the provider.
    pub pay: Amount,
}

/// Splits a fee `paid` whose provider's base is `base`, with `burn` and `committee` in parts per
/// billion: burn = ceil(burn x base) + (paid - base), committee = floor(committee x base), the
/// provider keeps the rest. Guarantees, for `base <= paid` and `burn + committee < ONE`:
///
/// 1. The three parts sum to `paid` exactly.
/// 2. The burn is at least its share of `base`, so no rounding favours paying oneself.
/// 3. The provider is never paid more than `base`.
///
/// `None` if the arguments are outside these bounds.
pub fn split_fee(paid: Amount, base: Amount, burn: u64, committee: u64) -> Option<Split> {
    if burn.checked_add(committee)? >= ONE {
        return None;
    }
    let premium = paid.checked_sub(base)?;
    let share = Amount::new(mul_div_up(base.grains(), u128::from(burn), u128::from(ONE))?)?;
    let committee = Amount::new(mul_div(base.grains(), u128::from(committee), u128::from(ONE))?)?;
    let pay = base.checked_sub(share)?.checked_sub(committee)?;
    Some(Split { burn: share.checked_add(premium)?, committee, pay })
}

/// Names the records of a provider's pay in this block: its account and the epoch's row.
pub(crate) fn touches(context: &BlockContext, provider: &Account, touched: &mut Touched) {
    touched.writable.push(AccountState::key(provider));
    touched.writable.push(Settlement::key(provider, context.epoch() % SETTLEMENT_RING));
}

/// Books (BK-8) a fee that just left its pot (the caller has lowered the pot and its sum in `System`):
/// burns, credits the committee and the provider, adds to the epoch's row, tells the event. An
/// entry of nothing does nothing.
///
/// # Errors
/// `Balance` if money were not conserved: unreachable.
pub(crate) fn book(working: &mut Working<'_>, provider: &Account, entry: Entry) -> Result<(), Code> {
    let Entry { agreement, fee, base, .. } = entry;
    if fee == Amount::ZERO && entry.egress == 0 && entry.gas == 0 {
        return Ok(());
    }
    let parameters = &working.context.parameters;
    let split = split_fee(fee, base, parameters.burn, parameters.committee).ok_or(Code::Balance)?;
    let Split { burn, committee, pay } = split;
    let system = &mut working.system;
    system.burned = system.burned.checked_add(burn).ok_or(Code::Balance)?;
    system.committee = system.committee.checked_add(committee).ok_or(Code::Balance)?;
    crate::account::credit(working, provider, pay)?;
    let epoch = working.context.epoch();
    let key = Settlement::key(provider, epoch % SETTLEMENT_RING);
    let row = Settlement::of(epoch, working.get(key)?);
    working.put(key, &add_row(row, &entry, split).ok_or(Code::Balance)?)?;
    let provider = *provider;
    working.events.push(Event::Settled { epoch, provider, agreement, fee, burn, committee, pay });
    Ok(())
}

/// Adds to the row of (provider, epoch mod ring).
fn add_row(row: Settlement, entry: &Entry, split: Split) -> Option<Settlement> {
    Some(Settlement {
        fee: row.fee.checked_add(entry.fee)?,
        burn: row.burn.checked_add(split.burn)?,
        committee: row.committee.checked_add(split.committee)?,
        pay: row.pay.checked_add(split.pay)?,
        base: row.base.checked_add(entry.base)?,
        egress: row.egress.checked_add(entry.egress)?,
        gas: row.gas.checked_add(entry.gas)?,
        storage: row.storage.saturating_add(entry.storage),
        signed: row.signed.checked_add(entry.fee)?,
        disputed: row.disputed.checked_add(entry.disputed)?,
        ..row
    })
}
