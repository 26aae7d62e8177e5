//! Versioned data sets: the shards that a provider holds under an agreement, signed by both parties.
//!
//! ```text
//!   SetDataSet --+-- settled point --> current (weights move: slot_weight, paid, weighed, trees, ending)
//!                +-- otherwise ------> next --storage proof / Settle at a settled point--> current
//! ```
//!
//! A *settled point* of a provider: no challenge is open, and it is settled up to this round (or is paid for
//! nothing). Weights move only there (DS-4). Between two settlements it is undecided which rounds a later
//! audit covers. Growth in between would be paid for rounds before it, a shrink would take back earned pay,
//! and a provider could dilute reads for free.
//!
//! Invariants
//! 1. A version is above the last one (that of `next` if there is one), and a claim describes the whole set.
//!    So older sets are void, and only the newest one need reach the ledger (DS-1).
//! 2. A provider need not prove a set that it did not sign: only the *empty* data set is valid with the
//!    consumer's signature alone (DS-3). (Otherwise a consumer could name shards that never existed, and make
//!    every audit of the provider unanswerable.) A consumer deletes without consent by emptying the set.
//! 3. No shrink below the set in force within two settlements of its last growth in force (DS-3). A set that
//!    waits as `next` never had a weight, so a new claim is compared with it by version alone.
//! 4. No data set grows with a provider that is suspended or jailed (JL-4). A claim with more leaves than are
//!    in force is refused, and growth that waits keeps waiting. Test:
//!    `faults::who_is_jailed_or_suspended_grows_no_data_set`.

use crate::{
    Account, Broken, Class, Code, Halt,
    agreement::check_open,
    audit::{self, is_awake, proved_nothing},
    bodies::{DataSetClaim, SetDataSet, ranges},
    fenwick,
    limits::{LEAF_BYTES, PLACES_MAX, PROVIDERS_MAX},
    record::{Agreement, Audit, DataSet, Ending, Endings, Provider, Reputation, SlotTree, Usage, Version},
    reputation::check_grows,
    settlement,
    tree::EMPTY_ROOT,
    working::{Touched, Working},
};
use alloc::vec::Vec;

/// Settlements that must lie between a growth and the next shrink.
pub const SHRINK_SETTLEMENTS: u32 = 2;

/// True if the fields of a signed data set are in range.
pub(crate) const fn fits(body: &SetDataSet) -> bool {
    ranges::id_fits(&body.claim.agreement) && body.index < PROVIDERS_MAX
}

/// Names the records that a move of a slot's weight needs.
pub(crate) fn touches_weight(
    provider: &Account,
    index: u32,
    slot: u32,
    end_epoch: u64,
    touched: &mut Touched,
) {
    touched.readable.push(Agreement::key(provider, slot));
    touched.writable.extend([
        Provider::key(provider),
        Audit::key(provider),
        Endings::key(provider),
        Usage::key(provider, slot),
        DataSet::key(provider, slot),
        Ending::key(provider, end_epoch),
    ]);
    touches_slot(provider, index, slot, end_epoch, touched);
}

/// Names a slot's path in its provider's tree, and the provider's path in the fee tree.
pub(crate) fn touches_slot(provider: &Account, index: u32, slot: u32, end_epoch: u64, touched: &mut Touched) {
    let nodes = fenwick::update_path(fenwick::place(end_epoch, slot), PLACES_MAX).into_iter();
    touched.writable.extend(nodes.map(|node| SlotTree::key(provider, node)));
    audit::touches_weight(index, touched);
}

/// Names the records of a change, without the signer's account.
pub(crate) fn touches(body: &SetDataSet, touched: &mut Touched) {
    let id = body.claim.agreement;
    touches_weight(&id.provider, body.index, id.slot, body.end_epoch, touched);
    touched.readable.push(Reputation::key(&id.provider));
}

/// Puts a version in force, or in `next`.
///
/// # Errors
/// `BadShape` for a wrong hint, `ProviderUnknown`, `AgreementUnknown`, `AgreementClosed`,
/// `AgreementEnded`, `DataSetVersion`, `DataSetSignature`, `DataSetOverQuota`,
/// `DataSetShrinkEarly`, `DataSetEmptyRoot`, `GrowthJailed`, `GrowthSuspended`, `EndingsMissing`.
pub(crate) fn apply(working: &mut Working<'_>, body: &SetDataSet) -> Result<(), Halt> {
    let (claim, account, slot) = (&body.claim, body.claim.agreement.provider, body.claim.agreement.slot);
    let provider: Provider = working.need(Provider::key(&account), Code::ProviderUnknown)?;
    let agreement: Agreement = working.need(Agreement::key(&account, slot), Code::AgreementUnknown)?;
    if agreement.opened != claim.agreement.opened {
        return Err(Code::AgreementUnknown.into());
    }
    let hints = (body.index, body.end_epoch, body.storage_key);
    if hints != (provider.index, agreement.end_epoch, agreement.storage_key) {
        return Err(Code::BadShape.into());
    }
    let usage: Usage = working.kept(Usage::key(&account, slot))?;
    check_open(&agreement, &usage, working.context.epoch())?;
    let audit: Audit = working.kept(Audit::key(&account))?;
    let mut data_set: DataSet = working.get(DataSet::key(&account, slot))?.unwrap_or_default();
    check_claim(claim, &data_set, &agreement, &audit, body.provider_signature.is_some())?;
    if claim.leaves > data_set.current.leaves {
        let reputation: Option<Reputation> = working.get(Reputation::key(&account))?;
        reputation.map_or(Ok(()), |reputation| check_grows(&reputation))?;
    }
    let DataSetClaim { version, root, leaves, bytes, .. } = *claim;
    let version = Version { version, root, leaves, bytes, grown_at: data_set.current.grown_at };
    if is_settled(working, &account)? {
        return take_effect(working, &account, slot, version);
    }
    data_set.next = Some(version);
    Ok(working.put(DataSet::key(&account, slot), &data_set)?)
}

fn check_claim(
    claim: &DataSetClaim,
    data_set: &DataSet,
    agreement: &Agreement,
    audit: &Audit,
    provider_signed: bool,
) -> Result<(), Code> {
    let (current, last) = (&data_set.current, data_set.next.unwrap_or(data_set.current));
    if claim.version <= last.version {
        return Err(Code::DataSetVersion);
    }
    let is_empty = claim.leaves == 0;
    if !provider_signed && !is_empty {
        return Err(Code::DataSetSignature);
    }
    if claim.leaves > agreement.quota[Class::Storage] {
        return Err(Code::DataSetOverQuota);
    }
    let shrinks = claim.leaves < current.leaves;
    if shrinks && audit.settlements < current.grown_at.saturating_add(SHRINK_SETTLEMENTS) {
        return Err(Code::DataSetShrinkEarly);
    }
    let fits = u128::from(claim.bytes) <= u128::from(claim.leaves) * u128::from(LEAF_BYTES);
    if is_empty != (claim.root == EMPTY_ROOT) || !fits {
        return Err(Code::DataSetEmptyRoot);
    }
    Ok(())
}

/// Returns true if weights may move now. A provider that is paid for nothing is marked as settled up to now.
pub(crate) fn is_settled(working: &mut Working<'_>, account: &Account) -> Result<bool, Broken> {
    let (round, epoch) = (working.context.round(), working.context.epoch());
    let mut provider: Provider = working.kept(Provider::key(account))?;
    let audit: Audit = working.kept(Audit::key(account))?;
    let endings: Option<Endings> = working.get(Endings::key(account))?;
    if audit.challenge.is_some() {
        return Ok(false);
    }
    if provider.slot_weight == 0 {
        provider.settled_round = round;
        working.put(Provider::key(account), &provider)?;
        working.put(Endings::key(account), &Endings::new(epoch))?;
        return Ok(true);
    }
    let crossed = endings.is_none_or(|endings| endings.due(epoch).next().is_none());
    Ok(crossed && provider.settled_round == round)
}

/// Returns true if a waiting `next` may take effect. Growth may not while its provider is jailed or
/// suspended; it keeps waiting (JL-4). Needs the provider's `Reputation`.
pub(crate) fn may_take_effect(
    working: &mut Working<'_>,
    account: &Account,
    slot: u32,
    next: &Version,
) -> Result<bool, Broken> {
    let data_set: DataSet = working.get(DataSet::key(account, slot))?.unwrap_or_default();
    let reputation: Option<Reputation> = working.get(Reputation::key(account))?;
    let grows = next.leaves > data_set.current.leaves;
    Ok(!grows || reputation.is_none_or(|reputation| check_grows(&reputation).is_ok()))
}

/// Puts `version` in force at a settled point: charges for the set held so far, then moves the weights. This
/// decides whether the version counts as growth, and since when (DS-3): only a set in force is read.
///
/// # Errors
/// `EndingsMissing`, `NoCapacity`.
pub(crate) fn take_effect(
    working: &mut Working<'_>,
    account: &Account,
    slot: u32,
    mut version: Version,
) -> Result<(), Halt> {
    settlement::charge(working, account, slot)?;
    let key = DataSet::key(account, slot);
    let data_set: DataSet = working.get(key)?.unwrap_or_default();
    let audit: Audit = working.kept(Audit::key(account))?;
    let grows = version.leaves >= data_set.current.leaves && version.leaves > 0;
    version.grown_at = if grows { audit.settlements } else { data_set.current.grown_at };
    weigh(working, account, slot, data_set.current.leaves, version.leaves)?;
    if version.leaves < data_set.current.leaves {
        forget_missing(working, account, slot)?;
    }
    Ok(working.put(key, &DataSet { current: version, next: None })?)
}

/// Removes the leaves of the agreement at `slot` from every sum, as if it shrank to nothing: trees,
/// `slot_weight`, `paid`, `paid_base`, `weighed`, the ending record. It also drops `next`. The agreement was charged before,
/// and no challenge is open. The caller deletes the record. Away from a settled point the provider loses the
/// pay of the rounds since it last settled.
pub(crate) fn clear(working: &mut Working<'_>, account: &Account, slot: u32) -> Result<(), Halt> {
    let key = DataSet::key(account, slot);
    let Some(mut data_set) = working.get::<DataSet>(key)? else { return Ok(()) };
    weigh(working, account, slot, data_set.current.leaves, 0)?;
    forget_missing(working, account, slot)?;
    data_set.current = Version { root: EMPTY_ROOT, leaves: 0, bytes: 0, ..data_set.current };
    data_set.next = None;
    Ok(working.put(key, &data_set)?)
}

/// Stops asking again for the missing reads of a slot (RD-7).
fn forget_missing(working: &mut Working<'_>, account: &Account, slot: u32) -> Result<(), Broken> {
    let key = Audit::key(account);
    let mut audit: Audit = working.kept(key)?;
    let kept: Vec<_> = audit.missing.iter().copied().filter(|missing| missing.slot != slot).collect();
    if kept.len() < audit.missing.len() {
        audit.missing = crate::Bounded::new(kept).ok_or(Broken::bound("Audit.missing"))?;
        working.put(key, &audit)?;
    }
    Ok(())
}

/// Moves a slot's weight from `before` to `after` leaves in every sum that counts it: `slot_weight`, `paid`,
/// `paid_base`, `leaves`, the ending record, the slot tree and the fee tree (DS-4).
fn weigh(
    working: &mut Working<'_>,
    account: &Account,
    slot: u32,
    before: u64,
    after: u64,
) -> Result<(), Halt> {
    if before == after {
        return Ok(());
    }
    weigh_paid(working, account, slot, before, after)?;
    let agreement: Agreement = working.kept(Agreement::key(account, slot))?;
    let mut provider: Provider = working.kept(Provider::key(account))?;
    let paid = WeightStep::of_rate(agreement.prices[Class::Storage].price, before, after);
    provider.slot_weight = paid.of(provider.slot_weight, "Provider.slot_weight")?;
    working.put(Provider::key(account), &provider)?;
    if after > 0 {
        let key = Endings::key(account);
        let mut endings: Endings = working.get(key)?.unwrap_or_else(|| Endings::new(working.context.epoch()));
        endings.set(agreement.end_epoch).ok_or(Code::EndingsMissing)?;
        working.put(key, &endings)?;
    }
    for node in fenwick::update_path(fenwick::place(agreement.end_epoch, slot), PLACES_MAX) {
        let key = SlotTree::key(account, node);
        let sum = paid.of(working.get::<SlotTree>(key)?.map_or(0, |node| node.sum), "SlotTree.sum")?;
        if sum == 0 { working.delete(key)? } else { working.put(key, &SlotTree { sum })? }
    }
    Ok(())
}

/// Moves a slot's weight in the sums of paid weights: `paid`, `paid_base`, `leaves`, those of the ending
/// record, and the weight in the fee tree. Once its ending is crossed, none of them counts it.
fn weigh_paid(
    working: &mut Working<'_>,
    account: &Account,
    slot: u32,
    before: u64,
    after: u64,
) -> Result<(), Halt> {
    let agreement: Agreement = working.kept(Agreement::key(account, slot))?;
    let ending_key = Ending::key(account, agreement.end_epoch);
    let mut ending: Ending = working.kept(ending_key)?;
    if ending.acc.is_some() {
        return Ok(());
    }
    let mut provider: Provider = working.kept(Provider::key(account))?;
    let audit: Audit = working.kept(Audit::key(account))?;
    let awake = is_awake(&provider) && (provider.weighed > 0 || !proved_nothing(&audit));
    let paid = WeightStep::of_rate(agreement.prices[Class::Storage].price, before, after);
    let base = WeightStep::of_rate(agreement.prices[Class::Storage].base(), before, after);
    let leaves = WeightStep::of_rate(1, before, after);
    provider.paid = paid.of(provider.paid, "Provider.paid")?;
    provider.paid_base = base.of(provider.paid_base, "Provider.paid_base")?;
    provider.leaves = leaves.of_leaves(provider.leaves, "Provider.leaves")?;
    ending.paid = paid.of(ending.paid, "Ending.paid")?;
    ending.paid_base = base.of(ending.paid_base, "Ending.paid_base")?;
    ending.leaves = leaves.of_leaves(ending.leaves, "Ending.leaves")?;
    working.put(ending_key, &ending)?;
    audit::weigh(working, &mut provider, awake)?;
    Ok(working.put(Provider::key(account), &provider)?)
}

/// A change of one weight within a sum.
#[derive(Clone, Copy)]
struct WeightStep {
    before: u128,
    after: u128,
}

impl WeightStep {
    fn of_rate(rate: u64, before: u64, after: u64) -> Self {
        let weight = |leaves| u128::from(rate) * u128::from(leaves);
        Self { before: weight(before), after: weight(after) }
    }

    /// The sum `what` after the change. Ended agreements that nobody cleared yet weigh, too, so that no
    /// bound follows from the supply: a weight that does not fit is refused.
    fn of(self, sum: u128, what: &'static str) -> Result<u128, Halt> {
        let rest = sum.checked_sub(self.before).ok_or(Broken::bound(what))?;
        Ok(rest.checked_add(self.after).ok_or(Code::NoCapacity)?)
    }

    /// The number of leaves `what` after the change: at most what is sold, which fits.
    fn of_leaves(self, sum: u64, what: &'static str) -> Result<u64, Halt> {
        Ok(u64::try_from(self.of(sum.into(), what)?).map_err(|_| Broken::bound(what))?)
    }
}
