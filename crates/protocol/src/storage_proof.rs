//! The answer to a challenge: four dependent reads, each proved to the signed data set or declared missing.
//!
//! ```text
//!   anchor ok -> read 0 .. 3: prefix(place) <= i < prefix(place + 1)
//!                             shard --sum path--> root in force, leaf --path--> shard's name
//!             -> reads asked again -> histories -> settle the interval -> `next` -> vouchers
//! ```
//!
//! A storage proof that does not verify may not stand in a block. A read is proved, or declared missing (its
//! shard and place are still proved), or lies in an agreement that ended so long ago that its end came round
//! again.
//!
//! Invariants
//! 1. One answer per challenge: it is keyed by (provider, height), and has no nonce and no fee (RD-8).
//! 2. Silence is never better than an answer. Until the provider answers, the same reads stay due and no pay
//!    accrues; an expired challenge settles at zero of four (RD-4, RD-5, RD-6).
//! 3. The time of the answer changes neither the reads nor which of them pass. The live agreements are those
//!    at the draw, and data sets do not change meanwhile (RD-9, RD-12).
//! 4. Stake moves only for a read that was declared missing in four storage proofs in a row, and only to the
//!    agreement that paid for it, less a tenth that is burned (RD-7).

use crate::number::{count, saturate_u8};
use crate::{
    Account, Amount, Bounded, Broken, Class, Code, Halt,
    agreement::{redeem, touches_redeem},
    amount::{UNIT, mul_div},
    audit::{self, Live, Reads, Timing},
    bodies::{FoundRead, MissingRead, ProvedRead, ReadAnswer, Reasked, StorageProof, SumPath, ranges},
    data_set,
    event::Event,
    faults, fenwick,
    limits::{MISSING_MAX, PLACES_MAX, PROVIDERS_MAX, REASKS, RESTITUTION_BURN, SLOTS_MAX},
    record::{
        Agreement, Audit, Challenge, DataSet, Missing, Provider, Reputation, RoundInfo, SlotTree, Usage,
    },
    settlement, shard,
    working::{BlockContext, Touched, Working},
};
use alloc::{collections::BTreeSet, vec::Vec};

/// True if the fields of a storage proof are in range.
pub(crate) fn fits(body: &StorageProof, context: &BlockContext) -> bool {
    let mut reasked = body.reasked.iter().map(|reasked| match reasked {
        Reasked::Proved(read) => read.slot,
        Reasked::Missing(still) => still.slot,
    });
    body.index < PROVIDERS_MAX
        && body.answers.iter().all(|answer| answer.place() < PLACES_MAX)
        && reasked.all(|slot| slot < SLOTS_MAX)
        && ranges::redemptions_fit(&body.vouchers)
        && ranges::slots_fit(&body.apply)
        && ranges::endings_fit(&body.endings, context)
}

/// Names the records of a storage proof.
pub(crate) fn touches(context: &BlockContext, signer: &Account, body: &StorageProof, touched: &mut Touched) {
    touched.writable.push(faults::place(body.height, &context.parameters));
    settlement::touches_settle(context, signer, &body.endings, touched);
    audit::touches_weight(body.index, touched);
    let (first, last) = live(context, body.height);
    let asked = body.answers.iter().map(ReadAnswer::place);
    let below = asked.flat_map(|place| [place, place.saturating_add(1)]).chain([first, last]);
    let nodes: BTreeSet<u32> = below.flat_map(fenwick::prefix_path).collect();
    touched.readable.extend(nodes.into_iter().map(|node| SlotTree::key(signer, node)));
    for slot in body.answers.iter().map(ReadAnswer::slot) {
        touched.readable.extend([Agreement::key(signer, slot), DataSet::key(signer, slot)]);
    }
    for slot in body.reasked.iter().map(Reasked::slot) {
        touched.readable.extend([Agreement::key(signer, slot), DataSet::key(signer, slot)]);
        touched.writable.push(Usage::key(signer, slot));
    }
    if !body.apply.is_empty() {
        touched.readable.push(Reputation::key(signer));
    }
    for (slot, _, end_epoch) in body.apply.iter() {
        data_set::touches_weight(signer, body.index, *slot, *end_epoch, touched);
    }
    touches_redeem(context, signer, &body.vouchers, touched);
}

/// The range of places that were live when the challenge of `height` was drawn.
const fn live(context: &BlockContext, height: u64) -> (u32, u32) {
    fenwick::window(context.parameters.epoch(height), context.parameters.agreement_epochs_max)
}

/// Weight of the slots before `place`.
fn below(working: &mut Working<'_>, account: &Account, place: u32) -> Result<u128, Broken> {
    let node = |node| Ok(working.get::<SlotTree>(SlotTree::key(account, node))?.map_or(0, |n| n.sum));
    fenwick::prefix(place, Broken::bound("SlotTree.sum"), node)
}

/// Judges a storage proof of `signer`.
///
/// # Errors
/// `BadShape` for a wrong hint or number of answers, `ProviderUnknown`, `NotDrawn`,
/// `AnsweredAlready`, `WrongAnchor`, `ReadOutsideSlot`, `ReadPath`, `ReadLeaf`, `ReaskedWrong`,
/// `EndingsMissing`.
pub(crate) fn apply(working: &mut Working<'_>, signer: &Account, body: &StorageProof) -> Result<(), Halt> {
    let (context, parameters) = (working.context, &working.context.parameters);
    let provider: Provider = working.need(Provider::key(signer), Code::ProviderUnknown)?;
    let mut audit: Audit = working.kept(Audit::key(signer))?;
    if provider.index != body.index {
        return Err(Code::BadShape.into());
    }
    let challenge = open_challenge(context, &audit, body)?;
    check_anchor(working, body)?;
    let judged = judge(working, signer, &challenge, provider.slot_weight, body)?;
    audit.missing = ask_again(working, signer, &challenge, &audit, body)?;
    remember(&mut audit, &judged);
    let reads: Vec<bool> = judged.iter().map(|read| read.passed).collect();
    let passed = count(reads.iter().filter(|passed| **passed).count());
    let on_time = audit::is_on_time(&challenge, context.height, parameters);
    let excused = !on_time && faults::is_excused(working, &challenge)?;
    let timing = match (on_time, excused) {
        (true, _) => Timing::OnTime,
        (false, false) => Timing::Late,
        (false, true) => Timing::Excused,
    };
    if on_time {
        faults::count_on_time(working, &challenge)?;
    }
    audit::note(&mut audit, challenge.height, &reads, timing);
    // An excused answer counts neither for the provider nor against it (NF-3).
    audit.answered = audit.answered.saturating_add(u32::from(!excused || reads.is_empty()));
    working.put(Audit::key(signer), &audit)?;
    working.events.push(Event::Audited {
        provider: *signer,
        height: challenge.height,
        answered: true,
        passed: saturate_u8(passed),
        reads: saturate_u8(count(reads.len())),
        on_time,
        excused,
    });
    let through = if on_time { context.round() } else { parameters.round(challenge.height) };
    settlement::settle(working, signer, passed, through, &body.endings)?;
    for slot in body.apply.iter() {
        put_in_force(working, signer, *slot)?;
    }
    // Each voucher is judged on its own: a refused one becomes an event and voids nothing else.
    match redeem(working, &body.vouchers) {
        Ok(_) | Err(Halt::Refused(_)) => Ok(()),
        broken => broken.map(|_| ()),
    }
}

fn open_challenge(context: &BlockContext, audit: &Audit, body: &StorageProof) -> Result<Challenge, Code> {
    let open = audit.challenge.filter(|c| !audit::is_expired(c, context.height, &context.parameters));
    match open {
        Some(challenge) if challenge.height == body.height => Ok(challenge),
        _ if body.height <= audit.last_height => Err(Code::AnsweredAlready),
        _ => Err(Code::NotDrawn),
    }
}

/// Checks that the storage proof names the block that was final when the challenge was drawn: the parent of the
/// round's first block (RD-3).
fn check_anchor(working: &mut Working<'_>, body: &StorageProof) -> Result<(), Halt> {
    let parameters = &working.context.parameters;
    let round = parameters.round(body.height);
    let info: Option<RoundInfo> = working.get(RoundInfo::key(round % parameters.round_ring))?;
    let matches = info.is_some_and(|info| info.round == round && info.anchor == body.anchor);
    if matches { Ok(()) } else { Err(Code::WrongAnchor.into()) }
}

/// The outcome of one of the four reads.
struct Judged {
    passed: bool,
    /// The read to ask again, if it was declared missing.
    missing: Option<Missing>,
}

/// Follows the four reads; each answer decides the next read.
fn judge(
    working: &mut Working<'_>,
    account: &Account,
    challenge: &Challenge,
    slot_weight: u128,
    body: &StorageProof,
) -> Result<Vec<Judged>, Halt> {
    let (first, last) = live(working.context, challenge.height);
    let live = Live::new(slot_weight, (first, last), |place| below(working, account, place))?;
    let mut reads = Reads::new(challenge, account, live);
    let mut judged = Vec::new();
    for answer in body.answers.iter() {
        let read = reads.take().ok_or(Code::BadShape)?;
        judged.push(judge_one(working, account, challenge, read.index(), answer)?);
        reads = read.next(answer);
    }
    if reads.is_some() { Err(Code::BadShape.into()) } else { Ok(judged) }
}

fn judge_one(
    working: &mut Working<'_>,
    account: &Account,
    challenge: &Challenge,
    index: u128,
    answer: &ReadAnswer,
) -> Result<Judged, Halt> {
    let (place, slot) = (answer.place(), answer.slot());
    let low = below(working, account, place)?;
    let high = below(working, account, place.saturating_add(1))?;
    if index < low || index >= high {
        return Err(Code::ReadOutsideSlot.into());
    }
    let agreement: Agreement = working.need(Agreement::key(account, slot), Code::ReadOutsideSlot)?;
    let data_set: DataSet = working.need(DataSet::key(account, slot), Code::ReadOutsideSlot)?;
    let rate = u128::from(agreement.prices[Class::Storage].price);
    let leaf = (index - low).checked_div(rate).ok_or(Code::ReadOutsideSlot)?;
    let leaf = u64::try_from(leaf).map_err(|_| Code::ReadOutsideSlot)?;
    let drawn_in = working.context.parameters.epoch(challenge.height);
    let has_ended = drawn_in >= agreement.end_epoch;
    match answer {
        ReadAnswer::Ended(_) if has_ended => Ok(Judged { passed: false, missing: None }),
        ReadAnswer::Proved(read) if !has_ended => {
            let within = leaf_in_shard(&data_set, leaf, &read.shard, read.length, &read.position)?;
            check_leaf(read, within)?;
            Ok(Judged { passed: true, missing: None })
        }
        ReadAnswer::Missing(read) if !has_ended => {
            let MissingRead { shard, length, position, .. } = read;
            let within = leaf_in_shard(&data_set, leaf, shard, *length, position)?;
            let within = u32::try_from(within).map_err(|_| Code::ReadPath)?;
            let missing = Missing { slot, shard: *shard, leaf: within, asks_left: REASKS };
            Ok(Judged { passed: false, missing: Some(missing) })
        }
        _ => Err(Code::ReadPath.into()),
    }
}

/// The number within its shard of leaf `leaf` of the data set in force, if the path proves it (RD-2).
fn leaf_in_shard(
    data_set: &DataSet,
    leaf: u64,
    shard: &crate::Hash,
    length: u64,
    position: &SumPath,
) -> Result<u64, Code> {
    let place = position.place(shard, length).ok_or(Code::ReadPath)?;
    if (place.root, place.total) != (data_set.current.root, data_set.current.leaves) {
        return Err(Code::ReadPath);
    }
    leaf.checked_sub(place.start).filter(|within| *within < place.leaves).ok_or(Code::ReadPath)
}

fn check_leaf(read: &ProvedRead, within: u64) -> Result<(), Code> {
    let proved = shard::verify_leaf(&read.shard, read.length, within, &read.leaf, &read.path);
    if proved { Ok(()) } else { Err(Code::ReadLeaf) }
}

/// Judges the reads that were missing before; returns those to ask once more.
fn ask_again(
    working: &mut Working<'_>,
    account: &Account,
    challenge: &Challenge,
    audit: &Audit,
    body: &StorageProof,
) -> Result<Bounded<Missing, MISSING_MAX>, Halt> {
    if body.reasked.len() != audit.missing.len() {
        return Err(Code::ReaskedWrong.into());
    }
    let mut kept = Vec::new();
    for (missing, answer) in audit.missing.iter().zip(body.reasked.iter()) {
        if answer.slot() != missing.slot {
            return Err(Code::ReaskedWrong.into());
        }
        let agreement: Option<Agreement> = working.get(Agreement::key(account, missing.slot))?;
        let drawn_in = working.context.parameters.epoch(challenge.height);
        let live = agreement.filter(|agreement| drawn_in < agreement.end_epoch);
        match answer {
            Reasked::Proved(read) => check_found(missing, read)?,
            Reasked::Missing(_) => match live {
                None => {}
                Some(_) if missing.asks_left > 1 => {
                    kept.push(Missing { asks_left: missing.asks_left - 1, ..*missing });
                }
                Some(agreement) => restitute(working, account, missing.slot, &agreement)?,
            },
        }
    }
    Ok(Bounded::new(kept).ok_or(Broken::bound("Audit.missing"))?)
}

impl Reasked {
    /// The slot of the agreement whose read is asked again.
    const fn slot(&self) -> u32 {
        match self {
            Self::Proved(read) => read.slot,
            Self::Missing(still) => still.slot,
        }
    }
}

/// Checks the proof of a read that was missing and is found. Its place was proved when it was declared
/// missing, so the path to the shard's name suffices (RD-7): a later data set cannot make it unprovable.
fn check_found(missing: &Missing, read: &FoundRead) -> Result<(), Code> {
    if (read.slot, read.shard) != (missing.slot, missing.shard) {
        return Err(Code::ReaskedWrong);
    }
    let FoundRead { shard, length, leaf, path, .. } = read;
    let proved = shard::verify_leaf(shard, *length, u64::from(missing.leaf), leaf, path);
    if proved { Ok(()) } else { Err(Code::ReadLeaf) }
}

/// Takes twice the agreement's fee of an epoch from the bond. A tenth of it, rounded up, is burned, so that a
/// bond does not come back free through an agreement with oneself; the rest goes to the agreement's storage
/// reserve.
fn restitute(
    working: &mut Working<'_>,
    account: &Account,
    slot: u32,
    agreement: &Agreement,
) -> Result<(), Broken> {
    let mut provider: Provider = working.kept(Provider::key(account))?;
    let mut usage: Usage = working.kept(Usage::key(account, slot))?;
    let data_set: DataSet = working.kept(DataSet::key(account, slot))?;
    let weight = u128::from(agreement.prices[Class::Storage].price) * u128::from(data_set.current.leaves);
    let rounds = u128::from(working.context.parameters.epoch_rounds);
    let fee = mul_div(weight, 2 * rounds, UNIT).and_then(Amount::new).unwrap_or(Amount::MAX);
    let amount = fee.min(provider.bond);
    let burned = Amount::new(amount.grains().div_ceil(RESTITUTION_BURN)).ok_or(Broken::bound("a burn"))?;
    let given = amount.saturating_sub(burned);
    provider.bond = provider.bond.saturating_sub(amount);
    provider.pool.gain(given, "Provider.pool")?;
    // The reserve is a claim on the pool, not money: it may hold what was paid out and is not charged yet.
    usage.storage_reserve = usage.storage_reserve.checked_add(given).unwrap_or(Amount::MAX);
    let system = &mut working.system;
    system.bonds.lose(amount, "System.bonds")?;
    system.storage_pools.gain(given, "System.storage_pools")?;
    system.burned.gain(burned, "System.burned")?;
    working.put(Provider::key(account), &provider)?;
    working.put(Usage::key(account, slot), &usage)?;
    let agreement = agreement.id(*account, slot);
    working.events.push(Event::Restitution { provider: *account, agreement, amount });
    Ok(())
}

/// Remembers reads that were declared missing, as far as there is room.
fn remember(audit: &mut Audit, judged: &[Judged]) {
    let mut kept = core::mem::take(&mut audit.missing).into_inner();
    for missing in judged.iter().filter_map(|read| read.missing) {
        let known = |other: &Missing| {
            (other.slot, other.shard, other.leaf) == (missing.slot, missing.shard, missing.leaf)
        };
        if kept.len() < MISSING_MAX && !kept.iter().any(known) {
            kept.push(missing);
        }
    }
    audit.missing = Bounded::new(kept).unwrap_or_default();
}

/// Puts a slot's `next` in force, now that the provider is settled. While a challenge is open nothing else
/// removes `next`. So a storage proof that names a slot without one is invalid; otherwise a free operation could
/// make the block read records for nothing.
fn put_in_force(
    working: &mut Working<'_>,
    account: &Account,
    (slot, consumer, end_epoch): (u32, Account, u64),
) -> Result<(), Halt> {
    let agreement: Agreement = working.need(Agreement::key(account, slot), Code::BadShape)?;
    let data_set: DataSet = working.need(DataSet::key(account, slot), Code::BadShape)?;
    let next = data_set.next.ok_or(Code::BadShape)?;
    if (consumer, end_epoch) != (agreement.consumer, agreement.end_epoch) {
        return Err(Code::BadShape.into());
    }
    if working.context.epoch() < end_epoch
        && data_set::is_settled(working, account)?
        && data_set::may_take_effect(working, account, slot, &next)?
    {
        data_set::take_effect(working, account, slot, next)?;
    }
    Ok(())
}
