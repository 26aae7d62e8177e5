//! Whether the pool admits an operation, judged by the applied state.
//!
//! A statement needs its open challenge, a commitment or a reveal needs a seat, upkeep needs a
//! provider with something due. All but statements need an account. The ledger judges again, over
//! every record that the operation names; this check keeps out what could never stand in a block.

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

/// The records that decide whether the pool admits an operation: a handful, whatever it names.
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

/// Admits an operation that waits for the block `next`, to its lane.
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

/// Checks that upkeep finds its provider and something due. Returns the consumer of its first slot, if
/// it names one.
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

#[cfg(test)]
mod tests {
    use super::*;
    use posync_protocol::{
        Account, Amount, Bounded,
        limits::Parameters,
        operation::{AuditCommit, Transfer},
        record::Challenge,
    };

    const P: Account = Account([1; 32]);
    const C: Account = Account([2; 32]);
    const STRANGER: Account = Account([3; 32]);

    fn next() -> BlockContext {
        BlockContext {
            chain: [9; 32],
            parameters: Parameters::LOCAL,
            height: 400,
            leader: P,
            parent: [0; 32],
            seed: None,
        }
    }

    /// A provider with index 7, an agreement of `C` to epoch 20 in slot 3 that is closed in epoch 5,
    /// and an ending in epoch 4 that is settled.
    fn state() -> Slots {
        let provider = Provider { index: 7, settled_round: 30, ..Provider::default() };
        let mut endings = Endings::new(1);
        endings.set(4).expect("within the ring");
        let agreement = Agreement { consumer: C, end_epoch: 20, ..agreement() };
        let usage = Use { closing_epoch: Some(5), ..Use::default() };
        let account = AccountState { nonce: 0, balance: Amount::sync(1) };
        let mut slots = Slots::from([
            (Provider::key(&P), provider.to_slot()),
            (Audit::key(&P), Audit::default().to_slot()),
            (Endings::key(&P), endings.to_slot()),
            (Agreement::key(&P, 3), agreement.to_slot()),
            (Use::key(&P, 3), usage.to_slot()),
            (Seat::key(&C), Seat::new(0, Amount::sync(1)).to_slot()),
        ]);
        for who in [P, C, STRANGER] {
            slots.insert(AccountState::key(&who), account.to_slot());
        }
        slots
    }

    fn agreement() -> Agreement {
        Agreement {
            opened: 1,
            consumer: C,
            session_key: C,
            storage_key: C,
            end_epoch: 20,
            storage_price: 1,
            storage_slow: 1,
            egress_price: 1,
            egress_slow: 1,
            gas_price: 1,
            gas_slow: 1,
            quota_leaves: 1,
            quota_egress: 1,
            quota_gas: 1,
            rate_egress: 1,
            rate_gas: 1,
        }
    }

    fn signed(signer: Account, body: Body) -> Operation {
        Operation { signer, nonce: 0, max_fee: Amount::ZERO, expires: 500, body, signature: [0; 64] }
    }

    fn upkeep(signer: Account, slots: &[(u32, Account, u64)], endings: &[u64]) -> Operation {
        let slots = Bounded::new(slots.to_vec()).expect("few");
        let endings = Bounded::new(endings.to_vec()).expect("few");
        signed(signer, Body::Settle(Settle { provider: P, index: 7, slots, endings }))
    }

    fn admitted(operation: &Operation, state: &Slots) -> Result<Admission, Code> {
        let keys = keys(operation);
        let seen = state.iter().filter(|(key, _)| keys.contains(key)).map(|(key, slot)| (*key, *slot));
        admit(operation, &next(), &seen.collect())
    }

    #[test]
    fn upkeep_waits_only_where_something_is_due() {
        let party = |is_party| Ok(Admission::Upkeep { is_party });
        let other = |change: fn(&mut Settle)| {
            let mut operation = upkeep(P, &[(3, C, 20)], &[]);
            let Body::Settle(settle) = &mut operation.body else { unreachable!("it is upkeep") };
            change(settle);
            operation
        };
        let table = [
            ("of the consumer", upkeep(C, &[(3, C, 20)], &[]), party(true)),
            ("of the provider", upkeep(P, &[(3, C, 20)], &[]), party(true)),
            ("of a stranger", upkeep(STRANGER, &[(3, C, 20)], &[]), party(false)),
            ("who names itself", upkeep(STRANGER, &[(3, STRANGER, 20)], &[]), Err(Code::BadShape)),
            ("an ending that is due", upkeep(STRANGER, &[], &[4]), party(false)),
            ("one that is none", upkeep(P, &[], &[5]), Err(Code::EndingsMissing)),
            ("one too many", upkeep(P, &[], &[3, 4]), Err(Code::EndingsMissing)),
            ("nothing", upkeep(P, &[], &[]), Err(Code::SettledAlready)),
            ("an empty slot", upkeep(P, &[(4, C, 20)], &[]), Err(Code::AgreementUnknown)),
            ("no provider", other(|settle| settle.provider = C), Err(Code::ProviderUnknown)),
            ("a wrong index", other(|settle| settle.index = 8), Err(Code::BadShape)),
            ("nobody asks", upkeep(Account([9; 32]), &[(3, C, 20)], &[]), Err(Code::UnknownAccount)),
        ];
        for (name, operation, expected) in table {
            assert_eq!(admitted(&operation, &state()), expected, "{name}");
        }
        // Nothing of a slot is due while its reads are, nor while it is open.
        let challenge = |height| Some(Challenge { height, seed: [0; 32], by_fee: false });
        let with = |height| {
            let audit = Audit { challenge: challenge(height), ..Audit::default() };
            let mut state = state();
            state.insert(Audit::key(&P), audit.to_slot());
            state
        };
        let operation = upkeep(P, &[(3, C, 20)], &[]);
        assert_eq!(admitted(&operation, &with(399)), Err(Code::NothingToSettle));
        assert_eq!(admitted(&operation, &with(1)), party(true), "the challenge has expired");
        assert_eq!(admitted(&upkeep(STRANGER, &[], &[]), &with(1)), party(false));
        let mut open = state();
        open.insert(Use::key(&P, 3), Use::default().to_slot());
        assert_eq!(admitted(&operation, &open), Err(Code::NothingToSettle));
    }

    /// Found by audit 2: only the first slot is looked at. A consumer whose own agreement is over names a
    /// second slot that does not exist: refused by every block, for nothing, and it holds the place of all
    /// upkeep of slots of that provider.
    #[test]
    fn a_consumer_cannot_hold_up_the_upkeep_of_its_provider() {
        let mut pool = super::super::state::Pool::default();
        let mut put = |operation: &Operation| {
            let admission = admitted(operation, &state())?;
            pool.insert(operation.id(), operation.clone(), admission)
        };
        let _ = put(&upkeep(C, &[(3, C, 20), (4, STRANGER, 20)], &[]));
        assert_eq!(put(&upkeep(P, &[(3, C, 20)], &[])), Ok(()));
    }

    #[test]
    fn the_reserved_lane_is_of_seats_that_are_not_jailed() {
        let commit = |signer| {
            signed(signer, Body::AuditCommit(AuditCommit { epoch: 1, digest: [0; 32], signature: [0; 64] }))
        };
        let funds = Funds { nonce: 0, balance: Amount::sync(1) };
        assert_eq!(admitted(&commit(C), &state()), Ok(Admission::Reserved(funds)));
        assert_eq!(admitted(&commit(STRANGER), &state()), Err(Code::AuditNotSeat));
        let mut jailed = state();
        let seat = Seat { jailed: Some(1), ..Seat::new(0, Amount::sync(1)) };
        jailed.insert(Seat::key(&C), seat.to_slot());
        assert_eq!(admitted(&commit(C), &jailed), Err(Code::AuditNotSeat));
        let pay = signed(STRANGER, Body::Transfer(Transfer { to: P, amount: Amount::sync(1) }));
        let units = Size::of(&next(), &pay).units();
        assert_eq!(admitted(&pay, &state()), Ok(Admission::Paid { funds, units }));
    }
}

/// Found by audit 2.
#[cfg(test)]
mod audit2 {
    use super::*;
    use posync_protocol::{Account, Amount, Bounded, limits::Parameters};

    /// ST-7, DR-6: `Settle` of a provider itself wakes it. The door turns away the only operation with
    /// which it can: `posync_provider::prover::Case::upkeep` sends exactly this.
    #[test]
    fn a_provider_that_is_asleep_may_ask_to_be_woken() {
        let account = Account([1; 32]);
        let provider = Provider { index: 7, paid: 5, weighed: 0, phi: 5, ..Provider::default() };
        assert!(!posync_protocol::audit::is_awake(&provider));
        let funds = AccountState { nonce: 0, balance: Amount::sync(1) };
        let slots = Slots::from([
            (Provider::key(&account), provider.to_slot()),
            (Audit::key(&account), Audit::default().to_slot()),
            (AccountState::key(&account), funds.to_slot()),
        ]);
        let next = BlockContext {
            chain: [9; 32],
            parameters: Parameters::LOCAL,
            height: 400,
            leader: account,
            parent: [0; 32],
            seed: None,
        };
        let settle =
            Settle { provider: account, index: 7, slots: Bounded::default(), endings: Bounded::default() };
        let operation = Operation {
            signer: account,
            nonce: 0,
            max_fee: Amount::ZERO,
            expires: 500,
            body: Body::Settle(settle),
            signature: [0; 64],
        };
        assert_eq!(admit(&operation, &next, &slots), Ok(Admission::Upkeep { is_party: true }));
    }
}
