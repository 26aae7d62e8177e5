//! Agreements: the terms, the two reserves and the deposit.
//!
//! ```text
//!   Open --> open --CloseAlone--> closing (vouchers redeem until closing_epoch) --+
//!             |  \--Close (both signed)---------------------------------------->  |
//!             +--end_epoch--> ended (vouchers redeem for the redemption window) --+--> removed
//! ```
//!
//! The escrow of an opening is split into the *storage reserve*, prepaid into the provider's pool, and the
//! *voucher reserve*, from which only vouchers draw: no meter empties the reserve of another. Units that are
//! reserved and not used cost a tenth of their price, by time; that cost is burned ([`unused`],
//! [`settlement::hold`]).
//!
//! Invariants
//! 1. An agreement is named by provider, slot and opening height: an old signature never applies to the
//!    slot's next agreement (AG-1).
//! 2. `sum of storage_reserve over a provider's agreements <= pool`.
//! 3. After a close by one party, an end or a key rotation, vouchers redeem for the redemption window (AG-5).
//! 4. Removal returns both reserves and the deposit to the consumer, less the cost of reserving, and frees
//!    slot and capacity (AG-4, AG-7).
//! 5. A top-up buys at today's price and does not reprice money that was paid in before (AG-8).

mod credit;
mod lock;
mod reserve;
mod voucher;

pub use credit::{credit_window, trust};
pub use lock::{lock_of, raise};
pub(crate) use reserve::open_takes;
pub use reserve::{Locked, Seen, check_offer, deposit, last_round, locked, storage_reserve, terms, unused};
pub use voucher::{Delta, check};
pub(crate) use voucher::{redeem, touches_redeem};

use crate::{
    Account, AgreementId, Amount, Broken, Class, Code, Halt, Metered, PerClass,
    account::{credit, debit},
    bodies::{Close, CloseAlone, Open, Redeem, RotateKey, TopUp, ranges},
    books::{self, Pair},
    capacity, data_set,
    event::{AgreementChange, Event},
    limits::{PROVIDERS_MAX, Parameters, SLOTS_MAX},
    record::{
        AccountState, Agreement, Audit, DataSet, Ending, Lock, Market, Measured, Offer, Provider, Reputation,
        System, Usage,
    },
    settlement,
    working::{Touched, Working},
};

/// The round in which the agreement was opened.
pub const fn start_round(agreement: &Agreement, parameters: &Parameters) -> u64 {
    parameters.round(agreement.opened)
}

/// Checks that new use is covered at `epoch`: the agreement is neither closing nor ended.
///
/// # Errors
/// `AgreementClosed`, `AgreementEnded`.
pub fn check_open(agreement: &Agreement, usage: &Usage, epoch: u64) -> Result<(), Code> {
    if usage.closing_epoch.is_some() {
        return Err(Code::AgreementClosed);
    }
    if epoch >= agreement.end_epoch { Err(Code::AgreementEnded) } else { Ok(()) }
}

/// Returns true once nothing more can be redeemed and the records may be deleted: the closing epoch is
/// reached, or the redemption window after the end is over.
pub fn is_over(agreement: &Agreement, usage: &Usage, epoch: u64, parameters: &Parameters) -> bool {
    let end = agreement.end_epoch.saturating_add(parameters.redemption_epochs);
    epoch >= usage.closing_epoch.unwrap_or(end).min(end)
}

/// True if the fields of an opening are in range.
pub(crate) fn open_fits(body: &Open, parameters: &Parameters) -> bool {
    body.slot < SLOTS_MAX
        && body.quota.iter().all(|(class, asked)| *asked <= parameters.quota_max[class])
        && body.rate.is_within(parameters.rate_max)
}

/// True if the fields of a top-up are in range.
pub(crate) fn top_up_fits(body: &TopUp) -> bool {
    ranges::id_fits(&body.agreement) && ranges::amount_fits(body.amount)
}

/// True if the fields of a close by both parties are in range.
pub(crate) const fn close_fits(body: &Close) -> bool {
    ranges::id_fits(&body.agreement) && body.index < PROVIDERS_MAX
}

/// Checks that there are vouchers, and that the signer is the provider of each.
///
/// # Errors
/// `BadShape`, `WrongParty`.
pub(crate) fn check_redeem(signer: &Account, body: &Redeem) -> Result<(), Code> {
    if body.vouchers.is_empty() {
        Err(Code::BadShape)
    } else {
        ranges::check_redemptions(signer, &body.vouchers)
    }
}

/// Names the records of an opening.
pub(crate) fn touches_open(body: &Open, touched: &mut Touched) {
    let Open { provider, slot, end_epoch, .. } = body;
    touched.writable.extend([
        Provider::key(provider),
        Agreement::key(provider, *slot),
        Usage::key(provider, *slot),
        Ending::key(provider, *end_epoch),
    ]);
    touched.readable.extend([Offer::key(provider), Reputation::key(provider), Measured::key(provider)]);
    books::touches_market(touched);
}

/// Opens an agreement within the provider's offer, at the posted prices (AG-2).
///
/// # Errors
/// `Balance`, `ProviderUnknown`, `ProviderLeaving`, `PriceAboveMaximum`, `PriceBelowReserve`,
/// `NoCapacity`, `SlotTaken`, `TermTooLong`, `EscrowTooSmall`, `ProviderJailed`,
/// `ProviderSuspended`, `NoEgress`, `NoGas`.
pub(crate) fn open(working: &mut Working<'_>, signer: &Account, body: &Open) -> Result<(), Halt> {
    let (context, parameters) = (working.context, &working.context.parameters);
    let mut prices = PerClass::default();
    for class in Class::ALL {
        prices[class] = posted(working, class)?;
    }
    let agreement = terms(signer, body, prices, context.height);
    debit(working, signer, deposit(&agreement, parameters).unwrap_or(Amount::MAX))?;
    debit(working, signer, body.voucher_reserve)?;
    let mut provider: Provider = working.need(Provider::key(&body.provider), Code::ProviderUnknown)?;
    let offer: Offer = working.kept(Offer::key(&body.provider))?;
    let needed = locked(&agreement, &provider, parameters);
    debit(working, signer, needed.storage.min(body.storage_reserve_max))?;
    let reputation: Reputation = working.kept(Reputation::key(&body.provider))?;
    let measured: Option<Measured> = working.get(Measured::key(&body.provider))?;
    let is_taken = working.get::<Agreement>(Agreement::key(&body.provider, body.slot))?.is_some();
    let seen = Seen {
        offer: &offer,
        provider: &provider,
        reputation: &reputation,
        measured: measured.as_ref(),
        is_taken,
        height: context.height,
    };
    check_offer(&agreement, body, &seen, parameters)?;
    if provider.slot_weight == 0 {
        // The provider was owed nothing since it last settled: the interval starts here.
        provider.settled_round = context.round();
    }
    let usage = Usage {
        storage_reserve: needed.storage,
        voucher_reserve: body.voucher_reserve,
        deposit: needed.deposit,
        acc: provider.acc,
        held_round: context.round(),
        ..Usage::default()
    };
    admit(working, body, &agreement, provider, needed)?;
    working.put(Agreement::key(&body.provider, body.slot), &agreement)?;
    working.put(Usage::key(&body.provider, body.slot), &usage)?;
    emit(working, &agreement, body.provider, body.slot, AgreementChange::Opened);
    Ok(())
}

/// The pair of prices posted for a class (MK-1).
fn posted(working: &mut Working<'_>, class: Class) -> Result<Pair, Broken> {
    let market = working.get::<Market>(Market::key(class))?;
    Ok(books::pair(market, class, &working.context.parameters))
}

/// Adds a new agreement to the sums of the provider, the ending and the ledger.
fn admit(
    working: &mut Working<'_>,
    body: &Open,
    agreement: &Agreement,
    mut provider: Provider,
    locked: Locked,
) -> Result<(), Halt> {
    let Locked { storage, deposit } = locked;
    provider.slots += 1;
    for (class, taken) in capacity::taken(agreement, &working.context.parameters).iter() {
        let sold = provider.sold[class].checked_add(*taken);
        provider.sold[class] = sold.ok_or(capacity::lacking(class))?;
    }
    provider.pool.gain(storage, "Provider.pool")?;
    working.put(Provider::key(&body.provider), &provider)?;
    let key = Ending::key(&body.provider, body.end_epoch);
    let mut ending: Ending = working.get(key)?.unwrap_or_default();
    ending.agreements += 1;
    working.put(key, &ending)?;
    let system = &mut working.system;
    system.agreements += 1;
    system.storage_pools.gain(storage, "System.storage_pools")?;
    system.voucher_reserves.gain(body.voucher_reserve, "System.voucher_reserves")?;
    system.deposits.gain(deposit, "System.deposits")?;
    Ok(())
}

/// Reads an agreement and its usage; fails unless the opening height in `id` matches.
fn named(working: &mut Working<'_>, id: &AgreementId) -> Result<(Agreement, Usage), Halt> {
    let agreement: Agreement = working.need(Agreement::key(&id.provider, id.slot), Code::AgreementUnknown)?;
    if agreement.opened != id.opened {
        return Err(Code::AgreementUnknown.into());
    }
    let usage = working.kept(Usage::key(&id.provider, id.slot))?;
    Ok((agreement, usage))
}

/// Names the records of a top-up.
pub(crate) fn touches_top_up(body: &TopUp, touched: &mut Touched) {
    let AgreementId { provider, slot, .. } = body.agreement;
    touched.readable.push(Agreement::key(&provider, slot));
    touched.writable.push(Usage::key(&provider, slot));
    books::touches_market(touched);
}

/// Adds to the voucher reserve of the consumer's open agreement, at today's price: units beyond those that
/// the reserve already pays for cost the posted price where it is above the one in force (AG-8). Only the
/// consumer may do so, because a stranger's top-up could raise its price.
///
/// # Errors
/// `Balance`, `AgreementUnknown`, `WrongParty`, `AgreementClosed`, `AgreementEnded`,
/// `PriceAboveMaximum`.
pub(crate) fn top_up(working: &mut Working<'_>, signer: &Account, body: &TopUp) -> Result<(), Halt> {
    debit(working, signer, body.amount)?;
    let (agreement, mut usage) = named(working, &body.agreement)?;
    if *signer != agreement.consumer {
        return Err(Code::WrongParty.into());
    }
    check_open(&agreement, &usage, working.context.epoch())?;
    let posted = Metered { egress: posted(working, Class::Egress)?, gas: posted(working, Class::Compute)? };
    let lock = raise(&agreement, &usage, posted);
    let Lock { prices, .. } = lock.unwrap_or_else(|| lock_of(&agreement, &usage));
    if !prices.map(|pair| pair.price).is_within(body.price_max) {
        return Err(Code::PriceAboveMaximum.into());
    }
    usage.lock = lock.or(usage.lock);
    usage.voucher_reserve.gain(body.amount, "Usage.voucher_reserve")?;
    working.system.voucher_reserves.gain(body.amount, "System.voucher_reserves")?;
    Ok(working.put(Usage::key(&body.agreement.provider, body.agreement.slot), &usage)?)
}

/// Names the records of a close, which are those of a removal.
pub(crate) fn touches_close(body: &Close, touched: &mut Touched) {
    let AgreementId { provider, slot, .. } = body.agreement;
    touches_removal(&provider, body.index, slot, &body.consumer, body.end_epoch, touched);
}

/// Closes an agreement that both parties signed off, and removes it at once. Pay ends at the last settlement,
/// and nothing is redeemable from now on (ST-8). Refused while a challenge is open: its reads are due and may
/// lie in the leaves of this agreement.
///
/// # Errors
/// `Expired` after the last height of the second signature (AG-5), `BadShape` for a wrong hint,
/// `AgreementUnknown`, `WrongParty`, `ChallengeOpen`.
pub(crate) fn close(working: &mut Working<'_>, signer: &Account, body: &Close) -> Result<(), Halt> {
    if working.context.height > body.last {
        return Err(Code::Expired.into());
    }
    let AgreementId { provider: account, slot, .. } = body.agreement;
    let (agreement, _) = named(working, &body.agreement)?;
    let provider: Provider = working.kept(Provider::key(&account))?;
    let hints = (body.consumer, body.end_epoch, body.index);
    if hints != (agreement.consumer, agreement.end_epoch, provider.index) {
        return Err(Code::BadShape.into());
    }
    if *signer != agreement.consumer && *signer != account {
        return Err(Code::WrongParty.into());
    }
    let audit: Option<Audit> = working.get(Audit::key(&account))?;
    if audit.is_some_and(|audit| audit.challenge.is_some()) {
        return Err(Code::ChallengeOpen.into());
    }
    settlement::charge(working, &account, slot)?;
    data_set::clear(working, &account, slot)?;
    Ok(remove(working, &account, slot)?)
}

/// Names the records of [`remove`] and of clearing the data set before it: the provider's totals and paths,
/// the agreement's records, the consumer's account.
pub(crate) fn touches_removal(
    provider: &Account,
    index: u32,
    slot: u32,
    consumer: &Account,
    end_epoch: u64,
    touched: &mut Touched,
) {
    touched.writable.extend([
        Provider::key(provider),
        Audit::key(provider),
        Agreement::key(provider, slot),
        Usage::key(provider, slot),
        DataSet::key(provider, slot),
        Ending::key(provider, end_epoch),
        AccountState::key(consumer),
    ]);
    data_set::touches_slot(provider, index, slot, end_epoch, touched);
}

/// Deletes an agreement that both parties close or that [`is_over`]. The caller has charged it
/// (`settlement::charge`) and then cleared its data set (`data_set::clear`). Burns the cost of unused egress
/// and gas (AG-7), returns both reserves and the rest of the deposit to the consumer, and frees slot and
/// capacity. Drops the ending record with its last agreement, and burns the pool's dust with the provider's
/// last agreement. Needs [`touches_removal`].
pub(crate) fn remove(working: &mut Working<'_>, account: &Account, slot: u32) -> Result<(), Broken> {
    let agreement: Agreement = working.kept(Agreement::key(account, slot))?;
    let usage: Usage = working.kept(Usage::key(account, slot))?;
    let mut provider: Provider = working.kept(Provider::key(account))?;
    let storage = usage.storage_reserve.min(provider.pool);
    provider.slots = provider.slots.saturating_sub(1);
    let taken = capacity::taken(&agreement, &working.context.parameters);
    for (class, taken) in taken.iter() {
        provider.sold[class] = provider.sold[class].saturating_sub(*taken);
    }
    provider.pool = provider.pool.saturating_sub(storage);
    let dust = if provider.slots == 0 { core::mem::take(&mut provider.pool) } else { Amount::ZERO };
    working.put(Provider::key(account), &provider)?;
    let cost = unused(&agreement, &usage, working.context.round(), &working.context.parameters);
    unbook(&mut working.system, &usage, storage, dust, cost)?;
    for returned in [storage, usage.voucher_reserve, usage.deposit.saturating_sub(cost)] {
        credit(working, &agreement.consumer, returned)?;
    }
    drop_ending(working, account, agreement.end_epoch)?;
    working.delete(Agreement::key(account, slot))?;
    working.delete(Usage::key(account, slot))?;
    working.delete(DataSet::key(account, slot))?;
    emit(working, &agreement, *account, slot, AgreementChange::Deleted);
    Ok(())
}

/// Subtracts a removed agreement from the ledger's sums.
fn unbook(
    system: &mut System,
    usage: &Usage,
    storage: Amount,
    dust: Amount,
    cost: Amount,
) -> Result<(), Broken> {
    system.agreements = system.agreements.checked_sub(1).ok_or(Broken::bound("System.agreements"))?;
    for taken in [storage, dust] {
        system.storage_pools.lose(taken, "System.storage_pools")?;
    }
    system.voucher_reserves.lose(usage.voucher_reserve, "System.voucher_reserves")?;
    system.deposits.lose(usage.deposit, "System.deposits")?;
    for burned in [dust, cost] {
        system.burned.gain(burned, "System.burned")?;
    }
    Ok(())
}

fn drop_ending(working: &mut Working<'_>, account: &Account, end_epoch: u64) -> Result<(), Broken> {
    let key = Ending::key(account, end_epoch);
    let mut ending: Ending = working.kept(key)?;
    ending.agreements = ending.agreements.saturating_sub(1);
    if ending.agreements == 0 { working.delete(key) } else { working.put(key, &ending) }
}

/// Names the records of a close by one party.
pub(crate) fn touches_close_alone(body: &CloseAlone, touched: &mut Touched) {
    let AgreementId { provider, slot, .. } = body.agreement;
    touched.readable.extend([Agreement::key(&provider, slot), Provider::key(&provider)]);
    touched.writable.push(Usage::key(&provider, slot));
}

/// Ends an agreement by one party after the redemption window. A provider may do so once it announced its exit,
/// at the earliest one redemption window before it may end agreements alone: until then the consumer may use
/// what it paid for (AG-6).
///
/// # Errors
/// `NoticeMissing`, `ExitEarly`, `AgreementUnknown`, `WrongParty`, `AgreementClosed`, `AgreementEnded`.
pub(crate) fn close_alone(
    working: &mut Working<'_>,
    signer: &Account,
    body: &CloseAlone,
) -> Result<(), Halt> {
    let AgreementId { provider: account, slot, .. } = body.agreement;
    let (agreement, mut usage) = named(working, &body.agreement)?;
    let (epoch, parameters) = (working.context.epoch(), &working.context.parameters);
    let closing = epoch.saturating_add(parameters.redemption_epochs);
    if *signer != agreement.consumer {
        let provider: Provider = working.kept(Provider::key(&account))?;
        if *signer == account && provider.leaves_at == 0 {
            return Err(Code::NoticeMissing.into());
        }
        if *signer != account {
            return Err(Code::WrongParty.into());
        }
        if closing < provider.leaves_at {
            return Err(Code::ExitEarly.into());
        }
    }
    if usage.closing_epoch.is_some_and(|before| before <= closing) {
        return Err(Code::AgreementClosed.into());
    }
    if epoch >= agreement.end_epoch {
        return Err(Code::AgreementEnded.into());
    }
    usage.closing_epoch = Some(closing);
    working.put(Usage::key(&account, slot), &usage)?;
    emit(working, &agreement, account, slot, AgreementChange::Closing);
    Ok(())
}

/// Names the records of a key rotation.
pub(crate) fn touches_rotate(body: &RotateKey, touched: &mut Touched) {
    let AgreementId { provider, slot, .. } = body.agreement;
    touched.writable.extend([Agreement::key(&provider, slot), Usage::key(&provider, slot)]);
}

/// Replaces the session key. The old key redeems for the redemption window; a second rotation within it is
/// refused, because it would void the vouchers of the first key (AG-6).
///
/// # Errors
/// `AgreementUnknown`, `WrongParty`, `AgreementClosed`, `AgreementEnded`, `KeyRotated`.
pub(crate) fn rotate(working: &mut Working<'_>, signer: &Account, body: &RotateKey) -> Result<(), Halt> {
    let AgreementId { provider: account, slot, .. } = body.agreement;
    let (mut agreement, mut usage) = named(working, &body.agreement)?;
    let epoch = working.context.epoch();
    if *signer != agreement.consumer {
        return Err(Code::WrongParty.into());
    }
    check_open(&agreement, &usage, epoch)?;
    if epoch < usage.old_key_until.into() {
        return Err(Code::KeyRotated.into());
    }
    usage.old_session_key = core::mem::replace(&mut agreement.session_key, body.session_key);
    let until = epoch.saturating_add(working.context.parameters.redemption_epochs);
    usage.old_key_until = u32::try_from(until).unwrap_or(u32::MAX);
    working.put(Agreement::key(&account, slot), &agreement)?;
    Ok(working.put(Usage::key(&account, slot), &usage)?)
}

fn emit(
    working: &mut Working<'_>,
    agreement: &Agreement,
    provider: Account,
    slot: u32,
    change: AgreementChange,
) {
    let (agreement, consumer) = (agreement.id(provider, slot), agreement.consumer);
    working.events.push(Event::Agreement { agreement, consumer, change });
}
