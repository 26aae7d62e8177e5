//! The split of a fee into burn, committee and provider (ST-3).
//!
//! The consumer pays F at the price of its agreement. The provider's base P is the same units at the
//! lower of price and slow price, so raising the posted price artificially only increases the burn.

use crate::{
    Account, AgreementId, Amount, Broken, Code, Halt, Units,
    amount::{ONE, mul_div, mul_div_up},
    event::Event,
    limits::SETTLEMENT_RING,
    record::{AccountState, Settlement},
    working::{BlockContext, Touched, Working},
};

/// A fee to book, and the units that it pays for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FeeEntry {
    /// Agreement of the voucher; `None` for storage.
    pub(crate) agreement: Option<AgreementId>,
    /// Fee that the consumers pay.
    pub(crate) fee: Amount,
    /// Part of the fee that counts as the provider's base.
    pub(crate) base: Amount,
    /// Egress and gas that were redeemed.
    pub(crate) redeemed: Units,
    /// Storage paid for, in leaf-rounds.
    pub(crate) storage: u64,
    /// Value that the provider claims beyond the signed voucher (BK-8).
    pub(crate) disputed: Amount,
}

/// A fee, split into its three parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Part that leaves circulation.
    pub burn: Amount,
    /// Part for the committee's pool.
    pub committee: Amount,
    /// Part for the provider.
    pub pay: Amount,
}

/// Splits a fee `paid` with the provider's base `base`; `burn` and `committee` are shares in parts per
/// billion. burn = ceil(burn x base) + (paid - base), committee = floor(committee x base), and the
/// provider gets the rest. Guarantees, for `base <= paid` and `burn + committee < ONE`:
///
/// 1. The three parts sum to `paid` exactly.
/// 2. The burn is at least its share of `base`, so rounding never favours a provider that pays itself.
/// 3. The provider never gets more than `base`.
///
/// `None` if the arguments violate these bounds, or a sum overflows.
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

/// Names the records that paying a provider writes: its account and its row of the epoch.
pub(crate) fn touches(context: &BlockContext, provider: &Account, touched: &mut Touched) {
    touched.writable.push(AccountState::key(provider));
    touched.writable.push(Settlement::key(provider, context.epoch() % SETTLEMENT_RING));
}

/// Books a fee whose money the caller has taken out of its pot and of that pot's sum in `System` (BK-8):
/// burns, credits the committee and the provider, adds to the epoch's row and emits the event. Does nothing
/// for an entry without fee, units and disputed value; storage worth less than a grain counts as use without
/// an event.
///
/// # Errors
/// `VoucherOverRate` if the epoch's row cannot count more: fees circulate within an epoch, so that the
/// supply does not bound their sum.
pub(crate) fn book(working: &mut Working<'_>, provider: &Account, entry: FeeEntry) -> Result<(), Halt> {
    let FeeEntry { agreement, fee, base, redeemed, storage, disputed } = entry;
    if (fee, redeemed, storage, disputed) == (Amount::ZERO, Units::ZERO, 0, Amount::ZERO) {
        return Ok(());
    }
    let parameters = &working.context.parameters;
    let split = split_fee(fee, base, parameters.burn, parameters.committee);
    let split = split.ok_or(Broken::bound("a fee's base"))?;
    let Split { burn, committee, pay } = split;
    let system = &mut working.system;
    system.burned.gain(burn, "System.burned")?;
    system.committee.gain(committee, "System.committee")?;
    crate::account::credit(working, provider, pay)?;
    let epoch = working.context.epoch();
    let key = Settlement::key(provider, epoch % SETTLEMENT_RING);
    let row = Settlement::of(epoch, working.get(key)?);
    working.put(key, &add_row(row, &entry, split).ok_or(Code::VoucherOverRate)?)?;
    let provider = *provider;
    if fee > Amount::ZERO || redeemed != Units::ZERO {
        working.events.push(Event::Settled { epoch, provider, agreement, fee, burn, committee, pay });
    }
    Ok(())
}

/// Adds the entry to the provider's row; `None` on overflow.
fn add_row(row: Settlement, entry: &FeeEntry, split: Split) -> Option<Settlement> {
    Some(Settlement {
        fee: row.fee.checked_add(entry.fee)?,
        burn: row.burn.checked_add(split.burn)?,
        committee: row.committee.checked_add(split.committee)?,
        pay: row.pay.checked_add(split.pay)?,
        base: row.base.checked_add(entry.base)?,
        redeemed: row.redeemed.checked_add(entry.redeemed)?,
        storage: row.storage.saturating_add(entry.storage),
        signed: row.signed.checked_add(entry.fee)?,
        disputed: row.disputed.checked_add(entry.disputed)?,
        ..row
    })
}
