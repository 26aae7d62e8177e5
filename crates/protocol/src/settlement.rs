//! Storage pay: a settled challenge pays the whole interval since the last one at passed / 4 (ST-1).
//!
//! ```text
//!     settled_round      epoch end (Ending)       through       now
//!   -------|------------------|----------------------|-----------|--->   rounds
//!          |  paid x passed/4 | (paid - ended) x passed/4        | unpaid if late
//!          acc ------------- acc of the ending ----- acc
//! ```
//!
//! The provider is credited at once from its storage pool. Each agreement is charged when it is next touched,
//! from its storage reserve (a claim on that pool), by the change of `acc` since then:
//!
//! credit = floor(sum of paid x rounds x passed / (4 x 2^20)) (ST-2)
//! charge = ceil(rate x leaves x change of acc / (ONE x 2^20)),  acc += rounds x passed x ONE / 4 (ST-4)
//!
//! Before a charge, the price of holding unused leaves is burned from the same reserve: a tenth of the price
//! of the reserved leaves that the agreement does not hold ([`hold`], AG-7).
//!
//! Invariants
//! 1. Weights move at settled points only ([`crate::data_set`]). So the sum of all charges due is never below
//!    the credited sum, and exceeds it by less than one grain per charge and per settlement. A close alone
//!    ends an agreement's pay at the last settlement (ST-8). A hold is floored, and is for leaves that are
//!    not charged: charges and holds stay within the reserve.
//! 2. Endings are crossed in order. The agreements of one are charged up to `acc` at the end of that epoch,
//!    whenever the crossing happens (ST-5, ST-6), and have no weight in draws by fee any more (DR-3).
//! 3. Free upkeep ([`apply`]) changes something for every slot that it names, or is refused, so that it
//!    cannot be used to fill blocks (ST-7).

use crate::number::{count, widest};
use crate::{
    Account, Amount, Broken, Class, Code, Halt, Units,
    agreement::{is_over, last_round, remove, touches_removal},
    amount::{ONE, UNIT, mul_div, mul_div_up},
    audit,
    bodies::{Settle, ranges},
    data_set, faults, fees,
    limits::{ENDINGS_MAX, PROVIDERS_MAX, Parameters, READS},
    record::{Agreement, Audit, DataSet, Ending, Endings, Provider, Reputation, Usage},
    working::{BlockContext, Touched, Working},
};
use alloc::vec::Vec;
use ruint::aliases::U256;

/// The grains that the agreement owes for storage and was not charged yet, at most its storage reserve
/// (ST-4). `ending` is the record of its end epoch.
pub fn owed(
    agreement: &Agreement,
    usage: &Usage,
    data_set: &DataSet,
    ending: &Ending,
    provider: &Provider,
) -> Amount {
    let acc = ending.acc.unwrap_or(provider.acc);
    let weight = u128::from(agreement.prices[Class::Storage].price) * u128::from(data_set.current.leaves);
    let grains = mul_div_up(weight, acc.saturating_sub(usage.acc), u128::from(ONE) * UNIT);
    grains.and_then(Amount::new).unwrap_or(Amount::MAX).min(usage.storage_reserve)
}

/// The grains that an agreement with `leaves` in force burns when it is touched in `round` (AG-7): a tenth of
/// the price of the other leaves of its quota, since it was last touched, at most to the end of the
/// redemption window after its end, floored. From its end on it holds no leaves, whenever they are cleared.
pub fn hold(
    agreement: &Agreement,
    usage: &Usage,
    leaves: u64,
    round: u64,
    parameters: &Parameters,
) -> Amount {
    let until = round.min(last_round(agreement, parameters));
    let end =
        parameters.epoch_start(agreement.end_epoch).clamp(usage.held_round, until.max(usage.held_round));
    let before = u128::from(end.saturating_sub(usage.held_round));
    let after = u128::from(until.saturating_sub(end));
    let (quota, free) =
        (agreement.quota[Class::Storage], agreement.quota[Class::Storage].saturating_sub(leaves));
    let unused = u128::from(free) * before + u128::from(quota) * after;
    let tenths = u128::from(agreement.prices[Class::Storage].price) * u128::from(parameters.reserve_share);
    let grains = mul_div(unused, tenths, u128::from(ONE) * UNIT);
    grains.and_then(Amount::new).unwrap_or(Amount::MAX).min(usage.storage_reserve)
}

/// Charges the agreement at `slot` for storage up to the last settlement (or up to its end). Moves its
/// `Usage::acc` forward and takes the charge off `Usage::storage_reserve`, never below zero. Before that, burns
/// the cost of unused leaves ([`hold`]) from reserve and pool. The caller names Agreement, DataSet, Ending as
/// readable and Provider, Use as writable.
pub(crate) fn charge(working: &mut Working<'_>, account: &Account, slot: u32) -> Result<(), Broken> {
    let mut provider: Provider = working.kept(Provider::key(account))?;
    let agreement: Agreement = working.kept(Agreement::key(account, slot))?;
    let mut usage: Usage = working.kept(Usage::key(account, slot))?;
    let data_set: DataSet = working.get(DataSet::key(account, slot))?.unwrap_or_default();
    let ending: Ending = working.get(Ending::key(account, agreement.end_epoch))?.unwrap_or_default();
    let (round, parameters) = (working.context.round(), &working.context.parameters);
    let held = hold(&agreement, &usage, data_set.current.leaves, round, parameters);
    usage.held_round = usage.held_round.max(round);
    usage.storage_reserve = usage.storage_reserve.saturating_sub(held);
    provider.pool.lose(held, "Provider.pool")?;
    let system = &mut working.system;
    system.storage_pools.lose(held, "System.storage_pools")?;
    system.burned.gain(held, "System.burned")?;
    working.put(Provider::key(account), &provider)?;
    let owed = owed(&agreement, &usage, &data_set, &ending, &provider);
    usage.storage_reserve = usage.storage_reserve.saturating_sub(owed);
    usage.acc = usage.acc.max(ending.acc.unwrap_or(provider.acc));
    working.put(Usage::key(account, slot), &usage)
}

/// True if the fields of upkeep are in range.
pub(crate) fn fits(body: &Settle, context: &BlockContext) -> bool {
    body.index < PROVIDERS_MAX
        && ranges::slots_fit(&body.slots)
        && ranges::endings_fit(&body.endings, context)
}

/// Names the records that settling a provider needs.
pub(crate) fn touches_settle(
    context: &BlockContext,
    account: &Account,
    endings: &[u64],
    touched: &mut Touched,
) {
    fees::touches(context, account, touched);
    faults::touches(touched);
    touched.writable.extend([Provider::key(account), Audit::key(account), Endings::key(account)]);
    touched.writable.extend(endings.iter().map(|epoch| Ending::key(account, *epoch)));
}

/// Settles the interval of a provider that answered with `passed` of four reads, up to the round `through`;
/// the rounds from there to now are not paid. Afterwards the provider is awake, or asleep if it proved
/// nothing (DR-6).
///
/// `endings` must name the endings that lie in the interval, at most the first [`ENDINGS_MAX`]. Others are
/// ignored, so that a storage proof stays good if the epoch changes before its block. If more are due, it settles
/// up to the last named one. The next storage proof settles the rest, less the rounds that the provider let wait
/// (ST-5).
///
/// # Errors
/// `EndingsMissing`.
pub(crate) fn settle(
    working: &mut Working<'_>,
    account: &Account,
    passed: u64,
    through: u64,
    endings: &[u64],
) -> Result<(), Halt> {
    let (round, epoch) = (working.context.round(), working.context.epoch());
    let mut record = endings_of(working, account)?;
    let provider: Provider = working.kept(Provider::key(account))?;
    let mut due: Vec<u64> = record.due(epoch).take(ENDINGS_MAX + 1).collect();
    let goes_on = due.len() > ENDINGS_MAX;
    due.truncate(ENDINGS_MAX);
    if !due.iter().all(|ending| endings.contains(ending)) {
        return Err(Code::EndingsMissing.into());
    }
    let mut interval = Interval { provider, passed, fee: U256::ZERO, base: U256::ZERO, leaves: U256::ZERO };
    for ending in &due {
        let end = working.context.parameters.epoch_start(*ending);
        interval.pay_until(end.min(through)).ok_or(Broken::bound("Provider.acc"))?;
        cross(working, account, *ending, &mut interval.provider)?;
    }
    if !goes_on {
        interval.pay_until(through).ok_or(Broken::bound("Provider.acc"))?;
    }
    record.cross(due.last().copied().filter(|_| goes_on).unwrap_or(epoch));
    working.put(Endings::key(account), &record)?;
    let (fee, base) = interval.amounts().ok_or(Broken::bound("Provider.pool"))?;
    let storage = interval.leaf_rounds();
    let mut provider = interval.provider;
    let unpaid = round.saturating_sub(through);
    provider.settled_round = provider.settled_round.saturating_add(unpaid).min(round);
    provider.pool.lose(fee, "Provider.pool")?;
    let answered: Audit = working.kept(Audit::key(account))?;
    let awake = passed > 0 || !audit::proved_nothing(&answered);
    audit::weigh(working, &mut provider, awake)?;
    working.put(Provider::key(account), &provider)?;
    working.system.storage_pools.lose(fee, "System.storage_pools")?;
    let entry =
        fees::FeeEntry { agreement: None, fee, base, redeemed: Units::ZERO, storage, disputed: Amount::ZERO };
    fees::book(working, account, entry)
}

/// The interval of a provider while it is paid, piece by piece.
struct Interval {
    provider: Provider,
    passed: u64,
    /// Sum of `paid` x rounds x passed.
    fee: U256,
    /// Sum of `paid_base` x rounds x passed.
    base: U256,
    /// Sum of leaves x rounds x passed.
    leaves: U256,
}

impl Interval {
    /// Pays from the provider's settled round up to `round`; `None` on overflow.
    fn pay_until(&mut self, round: u64) -> Option<()> {
        let provider = &mut self.provider;
        let units = u128::from(round.saturating_sub(provider.settled_round)) * u128::from(self.passed);
        provider.settled_round = provider.settled_round.max(round);
        provider.acc =
            provider.acc.checked_add(units.checked_mul(u128::from(ONE) / widest(count(READS)))?)?;
        let product = |paid: u128| U256::from(paid).checked_mul(U256::from(units));
        self.fee = self.fee.checked_add(product(provider.paid)?)?;
        self.base = self.base.checked_add(product(provider.paid_base)?)?;
        self.leaves = self.leaves.checked_add(product(provider.leaves.into())?)?;
        Some(())
    }

    /// Paid leaf-rounds, floored once: the use of storage that the market counts (MK-3).
    fn leaf_rounds(&self) -> u64 {
        u64::try_from(self.leaves / U256::from(READS)).unwrap_or(u64::MAX)
    }

    /// Fee and base in grains, each floored once.
    fn amounts(&self) -> Option<(Amount, Amount)> {
        let unit = U256::from(UNIT * widest(count(READS)));
        let grains = |sum: U256| Amount::new((sum / unit).try_into().ok()?);
        Some((grains(self.fee)?, grains(self.base)?))
    }
}

/// Crosses an epoch's end: agreements that end there are no longer paid or counted, and the ending record
/// keeps the `acc` of that moment. The caller writes the provider and sets its weight.
fn cross(
    working: &mut Working<'_>,
    account: &Account,
    epoch: u64,
    provider: &mut Provider,
) -> Result<(), Broken> {
    let key = Ending::key(account, epoch);
    let Some(mut ending) = working.get::<Ending>(key)? else { return Ok(()) };
    ending.acc = Some(provider.acc);
    provider.paid = provider.paid.checked_sub(ending.paid).ok_or(Broken::bound("Provider.paid"))?;
    provider.paid_base =
        provider.paid_base.checked_sub(ending.paid_base).ok_or(Broken::bound("Provider.paid_base"))?;
    provider.leaves = provider.leaves.checked_sub(ending.leaves).ok_or(Broken::bound("Provider.leaves"))?;
    working.put(key, &ending)
}

fn endings_of(working: &mut Working<'_>, account: &Account) -> Result<Endings, Broken> {
    let now = working.context.epoch();
    Ok(working.get(Endings::key(account))?.unwrap_or_else(|| Endings::new(now)))
}

/// Names the records of an upkeep operation.
pub(crate) fn touches(context: &BlockContext, signer: &Account, body: &Settle, touched: &mut Touched) {
    touches_settle(context, &body.provider, &body.endings, touched);
    if *signer == body.provider || !body.endings.is_empty() {
        audit::touches_weight(body.index, touched);
    }
    if !body.slots.is_empty() {
        touched.readable.push(Reputation::key(&body.provider));
    }
    for (slot, consumer, end_epoch) in body.slots.iter() {
        touches_removal(&body.provider, body.index, *slot, consumer, *end_epoch, touched);
    }
}

/// Runs upkeep (ST-7): closes an expired challenge and crosses settled endings. For each slot it removes an
/// agreement that is over, frees an ended one's place in the tree, or puts `next` in force. If the provider
/// itself sent it, it may also wake the provider (DR-6).
///
/// # Errors
/// `BadShape` for a wrong hint, `ProviderUnknown`, `AgreementUnknown`, `EndingsMissing`, `SettledAlready` or,
/// with slots, `NothingToSettle` if a named slot would not change.
pub(crate) fn apply(working: &mut Working<'_>, signer: &Account, body: &Settle) -> Result<(), Halt> {
    let account = &body.provider;
    let provider: Provider = working.need(Provider::key(account), Code::ProviderUnknown)?;
    if provider.index != body.index {
        return Err(Code::BadShape.into());
    }
    let expired = expire_stale(working, account)?;
    cross_settled(working, account, &body.endings)?;
    let audit: Audit = working.kept(Audit::key(account))?;
    for (slot, consumer, end_epoch) in body.slots.iter() {
        let agreement: Agreement = working.need(Agreement::key(account, *slot), Code::AgreementUnknown)?;
        if (*consumer, *end_epoch) != (agreement.consumer, agreement.end_epoch) {
            return Err(Code::BadShape.into());
        }
        if audit.challenge.is_some() || !tend(working, account, *slot, &agreement)? {
            return Err(Code::NothingToSettle.into());
        }
    }
    let woken = signer == account && audit::wake(working, account)?;
    let changed = expired || woken || !body.endings.is_empty() || !body.slots.is_empty();
    if changed { Ok(()) } else { Err(Code::SettledAlready.into()) }
}

fn expire_stale(working: &mut Working<'_>, account: &Account) -> Result<bool, Broken> {
    let context = working.context;
    let mut audit: Audit = working.kept(Audit::key(account))?;
    let open = audit.challenge.filter(|c| audit::is_expired(c, context.height, &context.parameters));
    let Some(open) = open else { return Ok(false) };
    let mut provider: Provider = working.kept(Provider::key(account))?;
    let excused = faults::is_excused(working, &open)?;
    let event = audit::expire(context, account, &mut provider, &mut audit, &open, excused);
    working.events.push(event);
    working.put(Provider::key(account), &provider)?;
    working.put(Audit::key(account), &audit)?;
    Ok(true)
}

/// Crosses the named endings, which must be the first of those due, in order, and lie in settled rounds. (An
/// expired challenge settles rounds without naming endings.)
fn cross_settled(working: &mut Working<'_>, account: &Account, endings: &[u64]) -> Result<(), Halt> {
    let Some(last) = endings.last() else { return Ok(()) };
    let mut provider: Provider = working.kept(Provider::key(account))?;
    let mut record = endings_of(working, account)?;
    let settled = working.context.parameters.epoch_start(*last) <= provider.settled_round;
    if !settled || !record.due(*last).eq(endings.iter().copied()) {
        return Err(Code::EndingsMissing.into());
    }
    let awake = audit::is_awake(&provider);
    for ending in endings {
        cross(working, account, *ending, &mut provider)?;
    }
    audit::weigh(working, &mut provider, awake)?;
    record.cross(*last);
    working.put(Endings::key(account), &record)?;
    Ok(working.put(Provider::key(account), &provider)?)
}

/// Does the upkeep that is due for one slot while no challenge is open. Returns true if any was due.
pub(crate) fn tend(
    working: &mut Working<'_>,
    account: &Account,
    slot: u32,
    agreement: &Agreement,
) -> Result<bool, Halt> {
    let (epoch, parameters) = (working.context.epoch(), &working.context.parameters);
    let usage: Usage = working.kept(Usage::key(account, slot))?;
    let data_set: DataSet = working.get(DataSet::key(account, slot))?.unwrap_or_default();
    let ending: Ending = working.kept(Ending::key(account, agreement.end_epoch))?;
    let has_ended = epoch >= agreement.end_epoch;
    let is_paid = ending.acc.is_none() && data_set.current.leaves > 0;
    if is_over(agreement, &usage, epoch, parameters) && !(has_ended && is_paid) {
        charge(working, account, slot)?;
        data_set::clear(working, account, slot)?;
        remove(working, account, slot)?;
        return Ok(true);
    }
    if has_ended {
        let holds = data_set.current.leaves > 0 || data_set.next.is_some();
        if holds && !is_paid {
            charge(working, account, slot)?;
            data_set::clear(working, account, slot)?;
            return Ok(true);
        }
        return Ok(false);
    }
    match data_set.next {
        Some(next)
            if data_set::may_take_effect(working, account, slot, &next)?
                && data_set::is_settled(working, account)? =>
        {
            data_set::take_effect(working, account, slot, next)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}
