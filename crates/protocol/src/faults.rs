//! Network faults: when too many providers are silent at once, the network is at fault and not they.
//!
//! ```text
//!   round r          r + 1               r + 2, first block
//!   draws by fee --> answers on time --> drawn >= 16 and more than 1/5 missed? --> faulty
//!                                        (at most 1/10 of the rounds of 64 epochs)
//!   late answer or expiry of such a draw, from here on: the histories leave it out
//! ```
//!
//! Only draws by fee count, and only they are excused. They follow money, so that cheap identities, which are
//! drawn in turn, can neither make a round faulty nor hide in one.
//!
//! Guarantees
//! 1. A round is judged once every deadline of its challenges has passed. The finding follows from state; no
//!    one submits it (NF-1). Tests: `faults::a_round_is_faulty_above_a_fifth`.
//! 2. In any 64 epochs at most a tenth of the rounds are faulty (NF-2). Tests:
//!    `faults::faults_stay_within_their_share`, `record::faults` against a list.
//! 3. An excused challenge changes no history and no count of reads; money moves as it would without the rule
//!    (NF-3, NF-4). Tests: `faults::pay_is_the_same_with_and_without_the_rule`.
//! 4. A faulty round writes two records; the work of a block does not grow with the providers.

use crate::number::{wide, widest};
use crate::{
    Broken,
    amount::ONE,
    event::Event,
    limits::{FAULT_MISSED_SHARE, Parameters},
    record::{Challenge, FaultBits, FaultRing, Key, RoundInfo},
    working::{BlockContext, Touched, Working},
};

/// Returns true if a round with these challenges by fee is the network's fault (NF-1).
pub const fn is_faulty(drawn: u32, on_time: u32, parameters: &Parameters) -> bool {
    let missed = widest(wide(drawn.saturating_sub(on_time)));
    let many = missed * widest(ONE) > widest(wide(drawn)) * widest(FAULT_MISSED_SHARE);
    drawn >= parameters.fault_draws_min && many
}

/// The key of the record of the round that holds `height`.
pub(crate) fn place(height: u64, parameters: &Parameters) -> Key {
    RoundInfo::key(parameters.round(height).checked_rem(parameters.round_ring).unwrap_or_default())
}

/// The round that this block judges; `None` unless it is the first of its round.
fn judged(context: &BlockContext) -> Option<u64> {
    let begins = context.height.is_multiple_of(context.parameters.round_blocks);
    context.round().checked_sub(2).filter(|_| begins)
}

/// Names the records of the judgement, and the record that decides whether a challenge that a draw closes is
/// excused.
pub(crate) fn touches_round(context: &BlockContext, touched: &mut Touched) {
    touches(touched);
    if let Some(round) = judged(context) {
        touched.readable.push(RoundInfo::key(round % context.parameters.round_ring));
        touched.writable.extend([FaultRing::key(), FaultBits::key()]);
    }
}

/// Names the record that marks the faulty rounds.
pub(crate) fn touches(touched: &mut Touched) {
    touched.readable.push(FaultBits::key());
}

/// Judges round r in the first block of round r + 2, unless faults are at their limit (NF-1, NF-2).
pub(crate) fn judge(working: &mut Working<'_>) -> Result<(), Broken> {
    let (context, parameters) = (working.context, &working.context.parameters);
    let Some(round) = judged(context) else { return Ok(()) };
    let info: Option<RoundInfo> = working.get(RoundInfo::key(round % parameters.round_ring))?;
    let Some(info) = info.filter(|info| info.round == round) else { return Ok(()) };
    if !is_faulty(info.drawn, info.on_time, parameters) {
        return Ok(());
    }
    let epoch = parameters.epoch_of_round(round);
    let mut ring: FaultRing = working.get(FaultRing::key())?.unwrap_or_default();
    if ring.recent(epoch) >= parameters.faults_max() {
        return Ok(());
    }
    let mut bits: FaultBits = working.get(FaultBits::key())?.unwrap_or_default();
    ring.add(epoch);
    bits.mark(round);
    working.put(FaultRing::key(), &ring)?;
    working.put(FaultBits::key(), &bits)?;
    let RoundInfo { drawn, on_time, .. } = info;
    working.events.push(Event::RoundFaulty { round, drawn, on_time });
    Ok(())
}

/// Counts a challenge that a draw by fee of this block opened.
pub(crate) fn count_drawn(working: &mut Working<'_>) -> Result<(), Broken> {
    let key = place(working.context.height, &working.context.parameters);
    let mut info: RoundInfo = working.kept(key)?;
    info.drawn = info.drawn.saturating_add(1);
    working.put(key, &info)
}

/// Counts an answer on time, if a draw by fee opened the challenge.
pub(crate) fn count_on_time(working: &mut Working<'_>, challenge: &Challenge) -> Result<(), Broken> {
    if !challenge.by_fee {
        return Ok(());
    }
    let key = place(challenge.height, &working.context.parameters);
    let mut info: RoundInfo = working.kept(key)?;
    info.on_time = info.on_time.saturating_add(1);
    working.put(key, &info)
}

/// Returns true if a challenge that was not answered on time is left out of the histories: it was drawn by
/// fee in a round that was judged faulty (NF-3, NF-5).
pub(crate) fn is_excused(working: &mut Working<'_>, challenge: &Challenge) -> Result<bool, Broken> {
    if !challenge.by_fee {
        return Ok(false);
    }
    let round = working.context.parameters.round(challenge.height);
    Ok(working.get::<FaultBits>(FaultBits::key())?.is_some_and(|bits| bits.is_faulty(round)))
}
