//! Whether an operation may wait, by what the applied state says of it.
//!
//! A statement needs its open challenge, a commitment or a reveal a seat, upkeep a provider with
//! something due; everything but a statement an account. The ledger judges again, over everything
//! that the operation names: this is what keeps the pool free of what could never stand in a block.

use super::state::{Admission, Funds};
use posync_protocol::{
    Body, Code, Key, Operation, Record, Slot,
    audit::is_expired,
    ledger::{BlockContext, Size},
    operation::{Lane, Settle},
    record::{AccountState, Agreement, Audit, DataSet, Endings, Provider, Seat, Use},
};
use std::collections::BTreeMap;

/// Slots of the applied state.
pub(super) type Slots = BTreeMap<Key, Slot>;

/// The records that decide whether an operation may wait: a handful, whatever it names.
pub(super) fn keys(operation: &Operation) -> Vec<Key> {
    let signer = &operation.signer;
    let mut keys = match &operation.body {
        Body::Statement(_) => return vec![Audit::key(signer)],
        Body::AuditCommit(_) | Body::AuditReveal(_) => vec![Seat::key(signer)],
        Body::Settle(settle) => {
            let provider = &settle.provider;
            let mut keys = vec![Provider::key(provider), Audit::key(provider), Endings::key(provider)];
            if let Some((slot, _, _)) = settle.slots.first() {
                keys.extend([Agreement::key(provider, *slot), Use::key(provider, *slot)]);
                keys.push(DataSet::key(provider, *slot));
            }
            keys
        }
        _ => vec![],
    };
    keys.push(AccountState::key(signer));
    keys
}

fn read<R: Record>(slots: &Slots, key: Key) -> Option<R> {
    R::from_slot(slots.get(&key)?).ok()
}

/// The funds of an account.
pub(super) fn funds(slot: &Slot) -> Option<Funds> {
    let state = AccountState::from_slot(slot).ok()?;
    Some(Funds { nonce: state.nonce, balance: state.balance })
}

/// Why and how an operation may wait for the block `next`.
///
/// # Errors
/// `NotDrawn` for a statement without its challenge, `UnknownAccount`, `AuditNotSeat`; for upkeep
/// `ProviderUnknown`, `BadShape` for a wrong hint, or `NothingToSettle`.
pub(super) fn admit(operation: &Operation, next: &BlockContext, slots: &Slots) -> Result<Admission, Code> {
    let signer = &operation.signer;
    if let Body::Statement(statement) = &operation.body {
        let challenge = read::<Audit>(slots, Audit::key(signer)).and_then(|audit| audit.challenge);
        let is_drawn = challenge.is_some_and(|challenge| challenge.height == statement.height);
        return if is_drawn { Ok(Admission::Statement) } else { Err(Code::NotDrawn) };
    }
    let funds = slots.get(&AccountState::key(signer)).and_then(funds).ok_or(Code::UnknownAccount)?;
    match (&operation.body, operation.body.lane()) {
        (Body::Settle(settle), _) => {
            let is_party = check_due(settle, next, slots)?.is_some_and(|consumer| consumer == *signer);
            Ok(Admission::Upkeep { is_party: is_party || settle.provider == *signer })
        }
        (Body::Evidence(_), _) => Ok(Admission::Reserved(funds)),
        (_, Lane::Reserved) => match read::<Seat>(slots, Seat::key(signer)) {
            Some(seat) if seat.jailed.is_none() => Ok(Admission::Reserved(funds)),
            _ => Err(Code::AuditNotSeat),
        },
        _ => Ok(Admission::Paid { funds, units: Size::of(next, operation).units() }),
    }
}

/// Whether upkeep finds its provider and something due; the consumer of its first slot, if it names
/// one.
fn check_due(
    settle: &Settle,
    next: &BlockContext,
    slots: &Slots,
) -> Result<Option<posync_protocol::Account>, Code> {
    let account = &settle.provider;
    let provider: Provider = read(slots, Provider::key(account)).ok_or(Code::ProviderUnknown)?;
    if provider.index != settle.index {
        return Err(Code::BadShape);
    }
    let challenge = read::<Audit>(slots, Audit::key(account)).and_then(|audit| audit.challenge);
    let expires = challenge.is_some_and(|open| is_expired(&open, next.height, &next.parameters));
    if let Some(last) = settle.endings.last() {
        // A challenge that expires settles up to its own round first.
        let settled = expires || next.parameters.epoch_start(*last) <= provider.settled_round;
        let endings: Endings = read(slots, Endings::key(account)).ok_or(Code::EndingsMissing)?;
        if !settled || !endings.due(*last).eq(settle.endings.iter().copied()) {
            return Err(Code::EndingsMissing);
        }
    }
    let Some((slot, consumer, end_epoch)) = settle.slots.first() else {
        let is_due = expires || !settle.endings.is_empty();
        return if is_due { Ok(None) } else { Err(Code::SettledAlready) };
    };
    let agreement: Agreement = read(slots, Agreement::key(account, *slot)).ok_or(Code::AgreementUnknown)?;
    if (agreement.consumer, agreement.end_epoch) != (*consumer, *end_epoch) {
        return Err(Code::BadShape);
    }
    let closing = read::<Use>(slots, Use::key(account, *slot)).and_then(|usage| usage.closing_epoch);
    let waits = read::<DataSet>(slots, DataSet::key(account, *slot)).is_some_and(|set| set.next.is_some());
    let epoch = next.epoch();
    let is_over = closing.is_some_and(|closing| epoch >= closing) || epoch >= agreement.end_epoch;
    let is_due = (challenge.is_none() || expires) && (is_over || waits);
    if is_due { Ok(Some(*consumer)) } else { Err(Code::NothingToSettle) }
}
