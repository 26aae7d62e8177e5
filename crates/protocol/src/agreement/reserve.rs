//! The money that an opening locks, and the cost of reserving without use.
//!
//! ```text
//!   opened ------------------------- end ------ redemption window ------ last round
//!     |  storage reserve: the price        |  a tenth of the price         |
//!     |  deposit: that of genesis, and a tenth of the price of egress and gas over all of it
//! ```
//!
//! Everything here is pure, so that a consumer can run the ledger's own checks before it sends an opening
//! ([`check_offer`]). The cost of reserving is burned: it is the price of keeping others out, not pay for
//! capacity without proof.
//!
//! Invariants
//! 1. The charges of an agreement for its leaves, and the burn for leaves that it does not hold, are together
//!    at most its prepayment: the prepayment is rounded up, the burn is floored (AG-3, AG-7).
//! 2. A removal burns at most the deposit beyond that of genesis (AG-4, AG-7).
//! 3. Reserving costs by time: closed by both in the round of its opening, an agreement costs nothing.

use super::start_round;
use crate::{
    Account, Amount, Class, Code, Metered, PerClass,
    amount::{ONE, UNIT, mul_div, mul_div_up},
    bodies::Open,
    books::Pair,
    capacity::{self, share},
    limits::Parameters,
    record::{Agreement, Measured, Offer, Provider, Reputation, Usage},
    reputation::check_takes,
    working::BlockContext,
};

/// The records that decide an opening, and the height of its block.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The provider's reserve prices, declared capacity and longest term.
    pub offer: &'a Offer,
    /// The provider's totals on the ledger: sold units, bond, pool and notice of exit.
    pub provider: &'a Provider,
    /// The provider's score, warnings, suspension and jail.
    pub reputation: &'a Reputation,
    /// The provider's measured egress; `None` before its first measurement.
    pub measured: Option<&'a Measured>,
    /// True if another agreement holds the slot.
    pub is_taken: bool,
    /// Height of the block that holds the opening.
    pub height: u64,
}

/// The money that an opening locks besides its voucher reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locked {
    /// Prepaid into the provider's pool (AG-3).
    pub storage: Amount,
    /// Returned when the records are deleted, less the cost of reserving (AG-4).
    pub deposit: Amount,
}

/// The record of an agreement that opens at `height`, at the pairs of prices posted then (MK-1).
pub const fn terms(consumer: &Account, body: &Open, prices: PerClass<Pair>, height: u64) -> Agreement {
    Agreement {
        opened: height,
        consumer: *consumer,
        session_key: body.session_key,
        storage_key: body.storage_key,
        end_epoch: body.end_epoch,
        prices,
        quota: body.quota,
        rate: body.rate,
    }
}

/// Checks an opening whose [`terms`] are `agreement` against both sides' conditions, in the order of the
/// codes (AG-2). The ledger runs the same check. An opening that passed it before sending is refused only for
/// lack of money, or because a record changed in between.
///
/// # Errors
/// `ProviderLeaving`, `PriceAboveMaximum`, `PriceBelowReserve`, `NoCapacity`, `SlotTaken`,
/// `TermTooLong`, `EscrowTooSmall`, `ProviderJailed`, `ProviderSuspended`, `NoEgress`,
/// `NoGas`.
pub fn check_offer(
    agreement: &Agreement,
    body: &Open,
    seen: &Seen<'_>,
    parameters: &Parameters,
) -> Result<(), Code> {
    let Seen { offer, provider, .. } = *seen;
    let Agreement { prices, end_epoch, .. } = *agreement;
    if provider.leaves_at != 0 {
        return Err(Code::ProviderLeaving);
    }
    if prices.iter().any(|(class, posted)| posted.price > body.price_max[class]) {
        return Err(Code::PriceAboveMaximum);
    }
    let is_below = |class: Class| body.quota[class] > 0 && prices[class].price < offer.reserve[class];
    if Class::ALL.into_iter().any(is_below) {
        return Err(Code::PriceBelowReserve);
    }
    let free = capacity::Free::of(agreement, seen, parameters);
    free.check(Class::Storage)?;
    if seen.is_taken {
        return Err(Code::SlotTaken);
    }
    let epoch = parameters.epoch(seen.height);
    let longest = parameters.agreement_epochs_max.min(offer.term_max.into());
    if end_epoch <= epoch || end_epoch > epoch.saturating_add(longest) {
        return Err(Code::TermTooLong);
    }
    if locked(agreement, provider, parameters).storage > body.storage_reserve_max {
        return Err(Code::EscrowTooSmall);
    }
    check_takes(seen.reputation)?;
    Class::ALL.into_iter().try_for_each(|class| free.check(class))
}

/// The money that an opening with these terms locks at a provider; [`Amount::MAX`] where a sum is above all
/// money there can be.
pub fn locked(agreement: &Agreement, provider: &Provider, parameters: &Parameters) -> Locked {
    let opened = start_round(agreement, parameters);
    // A provider that is paid for nothing has been owed nothing since it last settled.
    let since = if provider.slot_weight == 0 { 0 } else { opened.saturating_sub(provider.settled_round) };
    let to_end = parameters.epoch_start(agreement.end_epoch).saturating_sub(opened);
    let rounds = to_end.saturating_add(since);
    let (price, quota) = (agreement.prices[Class::Storage].price, agreement.quota[Class::Storage]);
    let storage = storage_reserve(price, quota, rounds, parameters);
    Locked {
        storage: storage.unwrap_or(Amount::MAX),
        deposit: deposit(agreement, parameters).unwrap_or(Amount::MAX),
    }
}

/// The storage reserve of an opening (AG-3), at `rate` per 2^20 leaf-rounds: rate x quota x `rounds` (those
/// to the end and those since the provider last settled), and a tenth of rate x quota over the redemption
/// window. Both terms are rounded up. `None` above all money there can be.
pub fn storage_reserve(rate: u64, quota: u64, rounds: u64, parameters: &Parameters) -> Option<Amount> {
    let weight = u128::from(rate) * u128::from(quota);
    let pay = mul_div_up(weight, rounds.into(), UNIT)?;
    let window = parameters.redemption_epochs.saturating_mul(parameters.epoch_rounds);
    let held = u128::from(window) * u128::from(parameters.reserve_share);
    Amount::new(pay.checked_add(mul_div_up(weight, held, u128::from(ONE) * UNIT)?)?)
}

/// The deposit of an opening (AG-4): that of genesis, and a tenth of the price of the quotas of egress and
/// gas, spread over the agreement and its redemption window, rounded up. `None` above all money there can be.
/// A term above the longest, which [`check_offer`] refuses, counts as the longest.
pub fn deposit(agreement: &Agreement, parameters: &Parameters) -> Option<Amount> {
    deposit_until(agreement, agreement.opened, parameters)
}

/// All that an opening may take, in a block of `context`'s height or a later one, until it expires: the most
/// for the deposit, the voucher reserve, and its bound of the storage reserve. The deposit is at most that of
/// the prices that the opening bounds, and a later opening takes larger shares of its quotas.
pub(crate) fn open_takes(body: &Open, expires: u64, context: &BlockContext) -> [Amount; 3] {
    let prices = PerClass::from_fn(|class| Pair { price: body.price_max[class], slow: 0 });
    let agreement = terms(&Account::default(), body, prices, context.height);
    let deposit = deposit_until(&agreement, expires, &context.parameters).unwrap_or(Amount::MAX);
    [deposit, body.voucher_reserve, body.storage_reserve_max]
}

/// The deposit of an opening whose shares are those at the height `latest`, which is not below its own.
fn deposit_until(agreement: &Agreement, latest: u64, parameters: &Parameters) -> Option<Amount> {
    let epochs = parameters.agreement_epochs_max.saturating_add(parameters.redemption_epochs);
    let longest = start_round(agreement, parameters).saturating_add(parameters.epoch_start(epochs));
    let price = cost(held(agreement, latest, longest, parameters), agreement);
    let tenth = mul_div_up(price, parameters.reserve_share.into(), ONE.into())?;
    parameters.deposit.checked_add(Amount::new(tenth)?)
}

/// The part of the deposit that a removal in `round` burns (AG-7): a tenth of the price of the egress and gas
/// that were held until then and not redeemed, floored, at the prices of the opening.
pub fn unused(agreement: &Agreement, usage: &Usage, round: u64, parameters: &Parameters) -> Amount {
    let held = held(agreement, agreement.opened, round, parameters).zip(usage.redeemed);
    let price = cost(held.map(|(held, redeemed)| held.saturating_sub(redeemed.into())), agreement);
    let tenth = mul_div(price, parameters.reserve_share.into(), ONE.into());
    let most = usage.deposit.saturating_sub(parameters.deposit);
    tenth.and_then(Amount::new).unwrap_or(Amount::MAX).min(most)
}

/// The price of units in grains, at the prices of the opening; each class is floored alone.
fn cost(units: Metered<u128>, agreement: &Agreement) -> u128 {
    let prices = agreement.prices.metered().zip(units);
    let costs = prices.map(|(pair, units)| mul_div(pair.price.into(), units, UNIT).unwrap_or(u128::MAX));
    costs.egress.saturating_add(costs.gas)
}

/// The first round in which reserving costs nothing more: the redemption window after the end is over.
pub const fn last_round(agreement: &Agreement, parameters: &Parameters) -> u64 {
    parameters.epoch_start(agreement.end_epoch.saturating_add(parameters.redemption_epochs))
}

/// Units of egress and gas that were kept from others from the opening to `round`: the agreement's share of
/// an epoch (CP-5), as if opened at the height `shared`, x rounds / rounds of an epoch, floored.
fn held(agreement: &Agreement, shared: u64, round: u64, parameters: &Parameters) -> Metered<u128> {
    let until = round.min(last_round(agreement, parameters));
    let rounds = until.saturating_sub(start_round(agreement, parameters));
    let spread = |quota| {
        let share = share(quota, shared, agreement.end_epoch, parameters);
        mul_div(share.into(), rounds.into(), parameters.epoch_rounds.into()).unwrap_or_default()
    };
    agreement.quota.metered().map(spread)
}
