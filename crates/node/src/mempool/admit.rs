//! Decides from the applied state if the pool admits an operation.
//!
//! A storage proof needs its open challenge, a commitment or a reveal needs a seat, evidence needs a seat as its
//! offender, and upkeep needs a provider for which everything named is due. All but storage proofs need an
//! account. The ledger judges again, over every record that the operation names; this check keeps out
//! operations that no block can hold. It comes before signatures are verified, so an operation of a
//! stranger costs a look-up.

use super::state::{Admission, Funds};
use posync_protocol::{
    Account, Body, Code, Key, Operation, Record, Slot,
    agreement::is_over,
    audit::{is_awake, is_expired, proved_nothing},
    ledger::{BlockContext, Size},
    limits::{EVIDENCE_EPOCHS_MAX, MEMPOOL_PER_ACCOUNT, Parameters},
    operation::{Evidence, Lane, Settle},
    record::{AccountState, Agreement, Audit, DataSet, Ending, Endings, Offences, Provider, Seat, Usage},
};
use std::collections::BTreeMap;

/// Slots of the applied state.
pub(super) type Slots = BTreeMap<Key, Slot>;

/// The records that decide if the pool admits an operation: a handful, and four for each slot that
/// upkeep names.
pub(super) fn keys(operation: &Operation, parameters: &Parameters) -> Vec<Key> {
    let signer = &operation.signer;
    let mut keys = match (operation.body.lane(), &operation.body) {
        (Lane::StorageProof, _) => return vec![Audit::key(signer)],
        (Lane::Reserved, Body::Evidence(evidence)) => {
            let offences = Offences::at(evidence.epoch(parameters));
            vec![Seat::key(signer), Seat::key(&evidence.offender()), offences]
        }
        (Lane::Reserved, _) => vec![Seat::key(signer)],
        (Lane::Upkeep, Body::Settle(settle)) => {
            let provider = &settle.provider;
            let mut keys = vec![Provider::key(provider), Audit::key(provider), Endings::key(provider)];
            for (slot, _, end_epoch) in settle.slots.iter() {
                keys.extend([Agreement::key(provider, *slot), Usage::key(provider, *slot)]);
                keys.extend([DataSet::key(provider, *slot), Ending::key(provider, *end_epoch)]);
            }
            keys
        }
        (Lane::Upkeep | Lane::Paid, _) => vec![],
    };
    keys.push(AccountState::key(signer));
    keys
}

fn read<R: Record>(slots: &Slots, key: Key) -> Option<R> {
    R::from_slot(slots.get(&key)?).ok()
}

/// The next nonce and the balance in an account's slot.
pub(super) fn funds(slot: &Slot) -> Option<Funds> {
    let state = AccountState::from_slot(slot).ok()?;
    Some(Funds { nonce: state.nonce, balance: state.balance })
}

/// Admits an operation that waits for the block `next`, and returns its lane.
///
/// # Errors
/// `NotDrawn` for a storage proof without its challenge, `UnknownAccount`, `AuditNotSeat`; for evidence
/// `EvidenceStale`, `SeatUnknown`, `EvidenceKnown`; for upkeep
/// `ProviderUnknown`, `AgreementUnknown`, `EndingsMissing`, `BadShape` for a wrong hint,
/// `NothingToSettle` or `SettledAlready`.
pub(super) fn admit(operation: &Operation, next: &BlockContext, slots: &Slots) -> Result<Admission, Code> {
    let signer = &operation.signer;
    if let Body::StorageProof(storage_proof) = &operation.body {
        let challenge = read::<Audit>(slots, Audit::key(signer)).and_then(|audit| audit.challenge);
        let is_drawn = challenge.is_some_and(|challenge| challenge.height == storage_proof.height);
        return if is_drawn { Ok(Admission::StorageProof) } else { Err(Code::NotDrawn) };
    }
    let funds = slots.get(&AccountState::key(signer)).and_then(funds).ok_or(Code::UnknownAccount)?;
    let is_seat = || read::<Seat>(slots, Seat::key(signer)).is_some_and(|seat| seat.jailed.is_none());
    match (operation.body.lane(), &operation.body) {
        (Lane::Upkeep, Body::Settle(settle)) => Upkeep::new(settle, signer, next, slots)?.check(),
        (Lane::Reserved, Body::Evidence(evidence)) => {
            check_evidence(evidence, next, slots)?;
            Ok(Admission::Reserved { funds, is_seat: is_seat() })
        }
        (Lane::Reserved, _) if is_seat() => Ok(Admission::Reserved { funds, is_seat: true }),
        (Lane::Reserved, _) => Err(Code::AuditNotSeat),
        (Lane::Paid, _) => {
            let (units, takes) = (Size::of(next, operation).units(), operation.takes(next));
            Ok(Admission::Paid { funds, units, takes })
        }
        // A kind that joins one of these lanes is refused until its admission stands here.
        (Lane::StorageProof | Lane::Upkeep, _) => Err(Code::BadShape),
    }
}

/// Checks that the signer can pay its offer and that its nonce is near. The applied state decides both,
/// before signatures are verified.
///
/// # Errors
/// `NonceOld`, `NonceGap`, `Balance`.
pub(super) fn check_funds(operation: &Operation, admission: &Admission) -> Result<(), Code> {
    let funds = match admission {
        Admission::Paid { funds, .. } if operation.nonce < funds.nonce => return Err(Code::NonceOld),
        Admission::Paid { funds, .. } if operation.nonce - funds.nonce >= MEMPOOL_PER_ACCOUNT as u64 => {
            return Err(Code::NonceGap);
        }
        Admission::Paid { funds, .. } | Admission::Reserved { funds, .. } => funds,
        Admission::StorageProof | Admission::Upkeep { .. } => return Ok(()),
    };
    if operation.max_fee > funds.balance { Err(Code::Balance) } else { Ok(()) }
}

/// Checks that evidence is against a seat, is not stale, and is not known (AU-5).
fn check_evidence(evidence: &Evidence, next: &BlockContext, slots: &Slots) -> Result<(), Code> {
    let epoch = evidence.epoch(&next.parameters);
    next.epoch().checked_sub(epoch).filter(|age| *age <= EVIDENCE_EPOCHS_MAX).ok_or(Code::EvidenceStale)?;
    let seat: Seat = read(slots, Seat::key(&evidence.offender())).ok_or(Code::SeatUnknown)?;
    let known = Offences::of(epoch, read(slots, Offences::at(epoch)));
    if known.has(seat.index) { Err(Code::EvidenceKnown) } else { Ok(()) }
}

/// An upkeep operation with its provider's records from the applied state.
struct Upkeep<'a> {
    settle: &'a Settle,
    signer: &'a Account,
    next: &'a BlockContext,
    slots: &'a Slots,
    provider: Provider,
    /// True if the provider has an open challenge.
    is_challenged: bool,
    /// True if that challenge expires with this operation.
    expires: bool,
    /// True if the provider is asleep; its own `Settle` may then wake it (DR-6).
    is_asleep: bool,
    endings: Option<Endings>,
}

impl<'a> Upkeep<'a> {
    fn new(
        settle: &'a Settle,
        signer: &'a Account,
        next: &'a BlockContext,
        slots: &'a Slots,
    ) -> Result<Self, Code> {
        let account = &settle.provider;
        let provider: Provider = read(slots, Provider::key(account)).ok_or(Code::ProviderUnknown)?;
        if provider.index != settle.index {
            return Err(Code::BadShape);
        }
        let audit: Option<Audit> = read(slots, Audit::key(account));
        let challenge = audit.as_ref().and_then(|audit| audit.challenge);
        let is_asleep = !is_awake(&provider) && !audit.as_ref().is_some_and(proved_nothing);
        let expires = challenge.is_some_and(|open| is_expired(&open, next.height, &next.parameters));
        let endings = read(slots, Endings::key(account));
        let is_challenged = challenge.is_some();
        Ok(Self { settle, signer, next, slots, provider, is_challenged, expires, is_asleep, endings })
    }

    /// Checks that everything named is due, or that work is due which need not be named (ST-7).
    fn check(&self) -> Result<Admission, Code> {
        let Self { settle, signer, .. } = self;
        let is_provider = settle.provider == **signer;
        if let Some(last) = settle.endings.last() {
            let endings = self.endings.as_ref().ok_or(Code::EndingsMissing)?;
            if !self.is_settled(*last) || !endings.due(*last).eq(settle.endings.iter().copied()) {
                return Err(Code::EndingsMissing);
            }
        }
        let mut is_party = is_provider;
        for (slot, consumer, end_epoch) in settle.slots.iter() {
            self.check_slot(*slot, consumer, *end_epoch)?;
            is_party |= *consumer == **signer;
        }
        // It may come after the answer in the same block, so upkeep of a party waits: otherwise upkeep by the
        // consumer of a provider that is drawn all the time would never run. A stranger tries again without a
        // challenge.
        if self.is_challenged && !self.expires && !settle.slots.is_empty() && !is_party {
            return Err(Code::NothingToSettle);
        }
        // DR-6: the provider wakes itself, unless it has to answer first.
        let wakes = is_provider && (!self.is_challenged || self.expires) && self.is_asleep;
        let is_due = self.expires || wakes || !settle.endings.is_empty() || !settle.slots.is_empty();
        if is_due { Ok(Admission::Upkeep { is_party }) } else { Err(Code::SettledAlready) }
    }

    /// True if all rounds before an epoch are settled. A challenge that expires settles them first.
    fn is_settled(&self, epoch: u64) -> bool {
        self.expires || self.next.parameters.epoch_start(epoch) <= self.provider.settled_round
    }

    /// Checks that work on a slot is due, after the endings that are named.
    fn check_slot(&self, slot: u32, consumer: &Account, end_epoch: u64) -> Result<(), Code> {
        let (account, slots) = (&self.settle.provider, self.slots);
        let agreement: Agreement =
            read(slots, Agreement::key(account, slot)).ok_or(Code::AgreementUnknown)?;
        if (agreement.consumer, agreement.end_epoch) != (*consumer, end_epoch) {
            return Err(Code::BadShape);
        }
        let usage: Usage = read(slots, Usage::key(account, slot)).ok_or(Code::AgreementUnknown)?;
        let data: DataSet = read(slots, DataSet::key(account, slot)).unwrap_or_default();
        let ending: Ending = read(slots, Ending::key(account, end_epoch)).ok_or(Code::EndingsMissing)?;
        let epoch = self.next.epoch();
        let has_ended = epoch >= end_epoch;
        let is_crossed = ending.acc.is_some() || self.settle.endings.contains(&end_epoch);
        let is_paid = !is_crossed && data.current.leaves > 0;
        let is_due = match has_ended {
            _ if is_over(&agreement, &usage, epoch, &self.next.parameters) => !(has_ended && is_paid),
            true => (data.current.leaves > 0 || data.next.is_some()) && !is_paid,
            false => data.next.is_some() && self.may_take_effect(),
        };
        if is_due { Ok(()) } else { Err(Code::NothingToSettle) }
    }

    /// True if a waiting data set may take effect: all rounds up to now are settled and all endings are
    /// crossed, or the provider is paid nothing.
    fn may_take_effect(&self) -> bool {
        let mut due = self.endings.iter().flat_map(|endings| endings.due(self.next.epoch()));
        let is_now = self.expires || self.is_challenged || self.provider.settled_round == self.next.round();
        self.provider.slot_weight == 0 || (is_now && due.all(|ending| self.settle.endings.contains(&ending)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use posync_protocol::{
        Amount, Bounded, PerClass, Units,
        operation::{AuditCommit, Commitments, Transfer},
        record::{Challenge, Pair, Version},
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

    /// A provider with index 7; an agreement of `C` up to epoch 20 in slot 3, closed in epoch 5;
    /// and an ending in epoch 4 that is settled.
    fn state() -> Slots {
        let provider = Provider { index: 7, settled_round: 30, ..Provider::default() };
        let mut endings = Endings::new(1);
        endings.set(4).expect("within the ring");
        let agreement = Agreement { consumer: C, end_epoch: 20, ..agreement() };
        let usage = Usage { closing_epoch: Some(5), ..Usage::default() };
        let account = AccountState { nonce: 0, balance: Amount::sync(1) };
        let mut slots = Slots::from([
            (Provider::key(&P), provider.to_slot()),
            (Audit::key(&P), Audit::default().to_slot()),
            (Endings::key(&P), endings.to_slot()),
            (Agreement::key(&P, 3), agreement.to_slot()),
            (Usage::key(&P, 3), usage.to_slot()),
            (Ending::key(&P, 20), Ending::default().to_slot()),
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
            prices: PerClass::all(Pair { price: 1, slow: 1 }),
            quota: PerClass::all(1),
            rate: Units { egress: 1, gas: 1 },
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
        let keys = keys(operation, &next().parameters);
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
        // A stranger's upkeep of a slot waits while reads are due; no slot is due while its agreement is
        // open.
        let challenge = |height| Some(Challenge { height, seed: [0; 32], by_fee: false });
        let with = |height| {
            let audit = Audit { challenge: challenge(height), ..Audit::default() };
            let mut state = state();
            state.insert(Audit::key(&P), audit.to_slot());
            state
        };
        let operation = upkeep(P, &[(3, C, 20)], &[]);
        assert_eq!(admitted(&operation, &with(399)), party(true), "behind the answer, in one block");
        let of_stranger = upkeep(STRANGER, &[(3, C, 20)], &[]);
        assert_eq!(admitted(&of_stranger, &with(399)), Err(Code::NothingToSettle));
        assert_eq!(admitted(&operation, &with(1)), party(true), "the challenge has expired");
        assert_eq!(admitted(&upkeep(STRANGER, &[], &[]), &with(1)), party(false));
        let mut open = state();
        open.insert(Usage::key(&P, 3), Usage::default().to_slot());
        assert_eq!(admitted(&operation, &open), Err(Code::NothingToSettle));
    }

    /// A consumer whose own agreement is over also names a slot that does not exist. Every block refuses it
    /// at no cost, so it must not hold the place of all slot upkeep of that provider.
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

    /// Everything that it names is checked by the ledger's criteria.
    #[test]
    fn upkeep_names_nothing_that_is_not_due() {
        let with = |leaves, next, acc, settled_round| {
            let version = |leaves| Version { leaves, ..Version::default() };
            let next = Some(version(9)).filter(|_| next);
            let set = DataSet { current: version(leaves), next };
            let provider = Provider { index: 7, settled_round, slot_weight: 1, ..Provider::default() };
            let mut state = state();
            let agreement = Agreement { end_epoch: self::next().epoch(), ..agreement() };
            state.insert(Provider::key(&P), provider.to_slot());
            state.insert(Agreement::key(&P, 5), agreement.to_slot());
            state.insert(Usage::key(&P, 5), Usage::default().to_slot());
            state.insert(DataSet::key(&P, 5), set.to_slot());
            state
                .insert(Ending::key(&P, self::next().epoch()), Ending { acc, ..Ending::default() }.to_slot());
            state.insert(Agreement::key(&P, 6), self::agreement().to_slot());
            state.insert(Usage::key(&P, 6), Usage::default().to_slot());
            state.insert(DataSet::key(&P, 6), set.to_slot());
            state
        };
        let (no, yes) = (Err(Code::NothingToSettle), Ok(Admission::Upkeep { is_party: true }));
        let now = self::next().round();
        let (ended, open): (&[_], &[_]) =
            (&[(3, C, 20), (5, C, self::next().epoch())], &[(3, C, 20), (6, C, 20)]);
        for (name, state, slots, endings, expected) in [
            ("ended, to be paid", with(8, false, None, 30), ended, &[][..], no),
            ("ended and crossed", with(8, false, Some(1), 30), ended, &[], yes),
            ("ended and empty", with(0, false, Some(1), 30), ended, &[], no),
            ("ended, with a set that waits", with(0, true, None, 30), ended, &[], yes),
            ("open, with a set that waits", with(0, true, None, now), open, &[4], yes),
            ("that waits for an ending", with(0, true, None, now), open, &[], no),
            ("that waits for a round", with(0, true, None, 40), open, &[4], no),
            ("open, with none", with(0, false, None, now), open, &[4], no),
        ] {
            assert_eq!(admitted(&upkeep(C, slots, endings), &state), expected, "{name}");
        }
    }

    #[test]
    fn evidence_waits_only_against_a_seat_whose_fault_counts_and_is_not_known() {
        let with = |seat, epoch| {
            let commit = |digest| AuditCommit { epoch, digest: [digest; 32], signature: [0; 64] };
            let commits = Bounded::new(vec![commit(1), commit(2)]).expect("two");
            Body::Evidence(Evidence::Commitments(Commitments { seat, commits }))
        };
        let now = next().epoch();
        let mut state = state();
        let mut known = Offences::of(now - 1, None);
        assert!(known.add(0));
        state.insert(Offences::at(now - 1), known.to_slot());
        let funds = Funds { nonce: 0, balance: Amount::sync(1) };
        let ok = |is_seat| Ok(Admission::Reserved { funds, is_seat });
        for (name, signer, seat, epoch, expected) in [
            ("of a stranger", STRANGER, C, now, ok(false)),
            ("of a seat", C, C, now, ok(true)),
            ("known", STRANGER, C, now - 1, Err(Code::EvidenceKnown)),
            ("against nobody", STRANGER, P, now, Err(Code::SeatUnknown)),
            ("of the future", STRANGER, C, now + 1, Err(Code::EvidenceStale)),
        ] {
            assert_eq!(admitted(&signed(signer, with(seat, epoch)), &state), expected, "{name}");
        }
        let old = signed(STRANGER, with(C, 2));
        let late = |epoch| BlockContext { height: next().parameters.epoch_blocks() * epoch, ..next() };
        assert_eq!(admit(&old, &late(16), &state), ok(false));
        assert_eq!(admit(&old, &late(17), &state), Err(Code::EvidenceStale));
    }

    #[test]
    fn the_reserved_lane_is_of_seats_that_are_not_jailed() {
        let commit = |signer| {
            signed(signer, Body::AuditCommit(AuditCommit { epoch: 1, digest: [0; 32], signature: [0; 64] }))
        };
        let funds = Funds { nonce: 0, balance: Amount::sync(1) };
        assert_eq!(admitted(&commit(C), &state()), Ok(Admission::Reserved { funds, is_seat: true }));
        assert_eq!(admitted(&commit(STRANGER), &state()), Err(Code::AuditNotSeat));
        let mut jailed = state();
        let seat = Seat { jailed: Some(1), ..Seat::new(0, Amount::sync(1)) };
        jailed.insert(Seat::key(&C), seat.to_slot());
        assert_eq!(admitted(&commit(C), &jailed), Err(Code::AuditNotSeat));
        let pay = signed(STRANGER, Body::Transfer(Transfer { to: P, amount: Amount::sync(1) }));
        let units = Size::of(&next(), &pay).units();
        let takes = Amount::sync(1).saturating_add(next().parameters.account_burn);
        assert_eq!(admitted(&pay, &state()), Ok(Admission::Paid { funds, units, takes }));
    }
}

#[cfg(test)]
mod waking {
    use super::*;
    use posync_protocol::{Amount, Bounded};

    /// ST-7, DR-6: a provider's own `Settle` wakes it; `posync_provider::prover::Case::upkeep` sends
    /// exactly this.
    #[test]
    fn a_provider_that_is_asleep_may_ask_to_be_woken_unless_it_must_prove_something_first() {
        let account = Account([1; 32]);
        let provider = Provider { index: 7, paid: 5, weighed: 0, slot_weight: 5, ..Provider::default() };
        assert!(!posync_protocol::audit::is_awake(&provider));
        let funds = AccountState { nonce: 0, balance: Amount::sync(1) };
        let slots = |audit: Audit| {
            Slots::from([
                (Provider::key(&account), provider.to_slot()),
                (Audit::key(&account), audit.to_slot()),
                (AccountState::key(&account), funds.to_slot()),
            ])
        };
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
        let admitted = |audit| admit(&operation, &next, &slots(audit));
        assert_eq!(admitted(Audit::default()), Ok(Admission::Upkeep { is_party: true }));
        let proved_nothing = Audit { drawn: 4, ..Audit::default() };
        assert_eq!(admitted(proved_nothing), Err(Code::SettledAlready));
    }
}
