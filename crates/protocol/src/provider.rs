//! Providers: registration, the public offer, the exit.
//!
//! ```text
//!   RegisterProvider -> active -> UpdateProvider{leave} -> leaving -> UpdateProvider{exit} -> gone
//!        bond locked, burn              no new agreements; may end them   bond back
//!                                       after exit_epochs                 after unbonding_epochs
//! ```
//!
//! Invariants
//! 1. All sold capacity is covered by the bond at the time of sale ([`sellable`]): a bond that restitution
//!    lowered stops new agreements until it is added to, but existing ones go on (PV-4).
//! 2. `sold <= capacity`, also for egress: a capacity never falls below the amount under contract (PV-2).
//! 3. An index belongs to one provider. A vacant one is in the list that starts at `System::vacant`, and has
//!    no weight in the fee tree.

use crate::{
    Account, AgreementId, Amount, Class, Code, Halt,
    account::{credit, debit},
    bodies::{RefusedPlacement, RegisterProvider, UpdateProvider, ranges},
    event::Event,
    limits::{OPERATOR_BYTES, PROVIDERS_MAX, Parameters, SETTLEMENT_RING},
    record::{
        Audit, CLOSING_RING, Endings, Endpoint, Measured, Newcomer, Offer, Provider, ProviderAt, Reputation,
        Seat, Settlement,
    },
    service,
    working::{BlockContext, Touched, Working},
};
use core::ops::RangeInclusive;

/// The least bond for `capacity` declared leaves, in grains.
pub fn bond_needed(capacity: u64, parameters: &Parameters) -> Amount {
    let by_capacity = parameters.bond_per_leaf.grains().checked_mul(u128::from(capacity));
    by_capacity.and_then(Amount::new).unwrap_or(Amount::MAX).max(parameters.bond_min)
}

/// Leaves that may be under contract: the declared ones, as far as the bond covers them (PV-4).
pub fn sellable(offer: &Offer, provider: &Provider, parameters: &Parameters) -> u64 {
    if provider.bond < parameters.bond_min {
        return 0;
    }
    let covered = provider.bond.grains() / parameters.bond_per_leaf.grains().max(1);
    u64::try_from(covered).unwrap_or(u64::MAX).min(offer.capacity[Class::Storage])
}

/// Returns true if the bytes are a name: UTF-8, not empty, padded with zeros only.
pub fn is_operator(name: &[u8; OPERATOR_BYTES]) -> bool {
    let used = name.iter().position(|byte| *byte == 0).unwrap_or(OPERATOR_BYTES);
    let (text, rest) = name.split_at(used);
    !text.is_empty() && rest.iter().all(|byte| *byte == 0) && core::str::from_utf8(text).is_ok()
}

/// True if the fields of a registration are in range.
pub(crate) fn registration_fits(body: &RegisterProvider) -> bool {
    ranges::addresses_fit(&body.addresses) && ranges::is_text(&body.region)
}

/// True if the fields of an update are in range.
pub(crate) fn update_fits(body: &UpdateProvider) -> bool {
    body.index < PROVIDERS_MAX && ranges::addresses_fit(&body.addresses)
}

/// True if the fields of a signed refusal are in range.
pub(crate) fn refusal_fits(body: &RefusedPlacement) -> bool {
    let own = |id: &AgreementId| ranges::id_fits(id) && id.provider == body.provider;
    body.leaves > 0 && body.agreement.as_ref().is_none_or(own)
}

/// Names the records of a registration; index and newcomer place follow from `System`.
pub(crate) fn touches_register(signer: &Account, touched: &mut Touched) {
    touched.writable.extend([Provider::key(signer), Audit::key(signer)]);
    touched.writable.extend([Offer::key(signer), Endpoint::key(signer), Reputation::key(signer)]);
    touched.readable.push(Seat::key(signer));
}

/// The epochs in which rows of a provider that registered in `registered` may still exist in `epoch`.
fn row_epochs(registered: u64, epoch: u64) -> RangeInclusive<u64> {
    registered.max(epoch.saturating_sub(SETTLEMENT_RING - 1))..=epoch
}

/// Names the records of an update; an exit also returns the index and deletes the provider's rows.
pub(crate) fn touches_update(
    context: &BlockContext,
    signer: &Account,
    body: &UpdateProvider,
    touched: &mut Touched,
) {
    touched.writable.extend([Provider::key(signer), Offer::key(signer), Endpoint::key(signer)]);
    if let Some(registered) = body.exit {
        let rows = row_epochs(registered, context.epoch());
        touched.writable.extend(rows.map(|epoch| Settlement::key(signer, epoch % SETTLEMENT_RING)));
        touched.writable.extend([Audit::key(signer), Endings::key(signer), Reputation::key(signer)]);
        touched.writable.extend([ProviderAt::key(body.index), Measured::key(signer)]);
        touched.writable.extend(service::touches_forget(context, signer));
    }
}

/// Names the records of the provider that signed the refusal.
pub(crate) fn touches_cut(body: &RefusedPlacement, touched: &mut Touched) {
    touched.writable.extend([Provider::key(&body.provider), Offer::key(&body.provider)]);
}

/// Locks the bond, burns the cost of registration, and takes an index (PV-1).
///
/// # Errors
/// `Balance`, `ProviderExists`, `BondTooSmall`, `OperatorEmpty`, `ProviderFull`.
pub(crate) fn register(
    working: &mut Working<'_>,
    signer: &Account,
    body: &RegisterProvider,
) -> Result<(), Halt> {
    let parameters = &working.context.parameters;
    debit(working, signer, parameters.registration_burn)?;
    working.system.burned.gain(parameters.registration_burn, "System.burned")?;
    lock(working, signer, body.bond)?;
    if working.get::<Provider>(Provider::key(signer))?.is_some() {
        return Err(Code::ProviderExists.into());
    }
    if body.bond < bond_needed(body.capacity[Class::Storage], parameters) {
        return Err(Code::BondTooSmall.into());
    }
    if !is_operator(&body.operator) {
        return Err(Code::OperatorEmpty.into());
    }
    let index = take_index(working)?;
    let at = ProviderAt { account: Some(*signer), next_vacant: None };
    working.put(ProviderAt::key(index), &at)?;
    let before: Option<Reputation> = working.get(Reputation::key(signer))?;
    let seat: Option<Seat> = working.get(Seat::key(signer))?;
    let is_jailed_seat = seat.is_some_and(|seat| seat.jailed.is_some());
    let reputation = Reputation::reborn(working.context.epoch(), before.as_ref(), is_jailed_seat);
    let born = working.context.height;
    working.put(Newcomer::key(working.system.newcomers), &Newcomer { account: *signer, born })?;
    working.system.newcomers += 1;
    working.put(Audit::key(signer), &Audit::default())?;
    working.put(Reputation::key(signer), &reputation)?;
    working.put(Endpoint::key(signer), &Endpoint { addresses: body.addresses.clone() })?;
    working.put(Offer::key(signer), &offer(body))?;
    Ok(working.put(Provider::key(signer), &newborn(index, body.bond, working.context))?)
}

fn offer(body: &RegisterProvider) -> Offer {
    Offer {
        operator: body.operator,
        capacity: body.capacity,
        reserve: body.reserve,
        term_max: body.term_max,
        region: body.region.clone(),
    }
}

fn newborn(index: u32, bond: Amount, context: &BlockContext) -> Provider {
    Provider { index, born: context.height, bond, settled_round: context.round(), ..Provider::default() }
}

/// The first vacant index if this block named it, else the next new one. Indices are limited to as many as a
/// closing pass can visit in an epoch (BK-4).
fn take_index(working: &mut Working<'_>) -> Result<u32, Halt> {
    if let Some(index) = working.system.vacant
        && working.names(&ProviderAt::key(index))
    {
        let at: ProviderAt = working.kept(ProviderAt::key(index))?;
        working.system.vacant = at.next_vacant;
        return Ok(index);
    }
    let index = working.system.providers;
    if u64::from(index) >= working.context.parameters.indices_max() {
        return Err(Code::ProviderFull.into());
    }
    working.system.providers += 1;
    Ok(index)
}

fn lock(working: &mut Working<'_>, signer: &Account, bond: Amount) -> Result<(), Halt> {
    debit(working, signer, bond)?;
    working.system.bonds.gain(bond, "System.bonds")?;
    Ok(())
}

/// Changes the offer. With `leave`, announces the exit; with `exit`, completes it and changes nothing else.
///
/// # Errors
/// `BadShape` for a wrong hint, `Balance`, `ProviderUnknown`, `BondTooSmall`, `HasAgreements`,
/// `CapacityBelowSold`, `ExitEarly`, `NoticeMissing`.
pub(crate) fn update(working: &mut Working<'_>, signer: &Account, body: &UpdateProvider) -> Result<(), Halt> {
    let key = Provider::key(signer);
    let found: Option<Provider> = working.get(key)?;
    if found.as_ref().is_some_and(|provider| provider.index != body.index) {
        return Err(Code::BadShape.into());
    }
    lock(working, signer, body.bond_add)?;
    let mut provider = found.ok_or(Code::ProviderUnknown)?;
    provider.bond.gain(body.bond_add, "Provider.bond")?;
    if let Some(registered) = body.exit {
        return leave(working, signer, &provider, registered);
    }
    let parameters = &working.context.parameters;
    let offer_key = Offer::key(signer);
    let mut offer: Offer = working.kept(offer_key)?;
    let grows = body.capacity[Class::Storage] > offer.capacity[Class::Storage];
    if grows && provider.bond < bond_needed(body.capacity[Class::Storage], parameters) {
        return Err(Code::BondTooSmall.into());
    }
    if provider.sold.iter().any(|(class, sold)| body.capacity[class] < *sold) {
        return Err(Code::CapacityBelowSold.into());
    }
    offer.capacity = body.capacity;
    offer.reserve = body.reserve;
    offer.term_max = body.term_max;
    if body.leave && provider.leaves_at == 0 {
        provider.leaves_at = working.context.epoch().saturating_add(parameters.exit_epochs);
    }
    working.put(Endpoint::key(signer), &Endpoint { addresses: body.addresses.clone() })?;
    working.put(offer_key, &offer)?;
    Ok(working.put(key, &provider)?)
}

/// Checks that a refusal cuts the declared capacity of its provider at `height`: it is recent, no earlier cut spent
/// it, what was refused is within the declaration, and that exceeds what is sold.
///
/// # Errors
/// `RefusalStale`, `RefusalBeyond`, `RefusalCut`.
pub fn check_cut(
    body: &RefusedPlacement,
    provider: &Provider,
    offer: &Offer,
    height: u64,
    parameters: &Parameters,
) -> Result<(), Code> {
    let age = height.checked_sub(body.height).ok_or(Code::RefusalStale)?;
    let is_spent = body.height < provider.cut.max(provider.born);
    if age > parameters.epoch_blocks() || is_spent {
        return Err(Code::RefusalStale);
    }
    let free = offer.capacity[Class::Storage].saturating_sub(provider.sold[Class::Storage]);
    if body.agreement.is_none() && body.leaves > free {
        return Err(Code::RefusalBeyond);
    }
    if free == 0 { Err(Code::RefusalCut) } else { Ok(()) }
}

/// Lowers a provider's declared capacity to the leaves under contract, because it signed a refusal of a
/// placement (PV-5). A refusal under an agreement is always within the declaration, because its quota is
/// sold. A refusal that was signed before an earlier cut, or before the provider registered, is void.
///
/// # Errors
/// `ProviderUnknown`, `RefusalStale`, `RefusalBeyond`, `RefusalCut`.
pub(crate) fn cut(working: &mut Working<'_>, body: &RefusedPlacement) -> Result<(), Halt> {
    let provider_key = Provider::key(&body.provider);
    let mut provider: Provider = working.need(provider_key, Code::ProviderUnknown)?;
    let key = Offer::key(&body.provider);
    let mut offer: Offer = working.kept(key)?;
    let (height, parameters) = (working.context.height, &working.context.parameters);
    check_cut(body, &provider, &offer, height, parameters)?;
    let (before, after) = (offer.capacity[Class::Storage], provider.sold[Class::Storage]);
    offer.capacity[Class::Storage] = after;
    provider.cut = working.context.height;
    working.put(provider_key, &provider)?;
    working.events.push(Event::CapacityCut {
        provider: body.provider,
        consumer: body.consumer,
        before,
        after,
    });
    Ok(working.put(key, &offer)?)
}

/// Completes the exit: returns the bond, deletes the records and rows, frees the index (PV-3). The standing
/// stays while a jailing still counts (PV-6).
fn leave(
    working: &mut Working<'_>,
    signer: &Account,
    provider: &Provider,
    registered: u64,
) -> Result<(), Halt> {
    let reputation: Reputation = working.kept(Reputation::key(signer))?;
    if reputation.registered != registered {
        return Err(Code::BadShape.into());
    }
    if provider.slots != 0 || provider.slot_weight != 0 {
        return Err(Code::HasAgreements.into());
    }
    let (epoch, parameters) = (working.context.epoch(), &working.context.parameters);
    let unbonding = parameters.unbonding_epochs.saturating_sub(parameters.exit_epochs);
    if provider.leaves_at == 0 {
        return Err(Code::NoticeMissing.into());
    }
    if epoch < provider.leaves_at.saturating_add(unbonding) {
        return Err(Code::ExitEarly.into());
    }
    take_rows(working, signer, registered)?;
    working.system.bonds.lose(provider.bond, "System.bonds")?;
    credit(working, signer, provider.bond)?;
    let vacant = ProviderAt { account: None, next_vacant: working.system.vacant };
    working.put(ProviderAt::key(provider.index), &vacant)?;
    working.system.vacant = Some(provider.index);
    working.delete(Provider::key(signer))?;
    working.delete(Offer::key(signer))?;
    working.delete(Audit::key(signer))?;
    working.delete(Endings::key(signer))?;
    if !reputation.outlives(epoch) {
        working.delete(Reputation::key(signer))?;
    }
    working.delete(Measured::key(signer))?;
    service::forget(working, signer)?;
    Ok(working.delete(Endpoint::key(signer))?)
}

/// Deletes the rows of a provider that leaves; the roots over them stay (PV-3). An epoch that is still being
/// closed, or was just sealed, needs the rows that are part of its sums.
///
/// # Errors
/// `ExitEarly` if the running epoch or one of the last [`CLOSING_RING`] epochs paid the provider.
fn take_rows(working: &mut Working<'_>, signer: &Account, registered: u64) -> Result<(), Halt> {
    let now = working.context.epoch();
    for epoch in row_epochs(registered, now) {
        let key = Settlement::key(signer, epoch % SETTLEMENT_RING);
        let row: Option<Settlement> = working.get(key)?;
        let is_paid = row.is_some_and(|row| row.epoch == epoch && row.fee > Amount::ZERO);
        if is_paid && now - epoch <= CLOSING_RING {
            return Err(Code::ExitEarly.into());
        }
        working.delete(key)?;
    }
    Ok(())
}
