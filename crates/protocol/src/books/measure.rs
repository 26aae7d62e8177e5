//! The first pass over the providers of an epoch: the figures of each, and its weight.
//!
//! Only ratios enter the quality, never volume; only the row's base and the least quality of the
//! last epochs enter the weight.

use super::ClosingSet;
use crate::number::{bound_u32, count, saturate_u8, saturate_u32};
use crate::{
    Account, Broken, Class, PerClass,
    amount::ONE,
    capacity::offered_egress,
    economics::{pool, score},
    limits::{ANSWERED_FRESH_EPOCHS, HISTORY, Parameters, READS, SETTLEMENT_RING},
    provider::sellable,
    record::{Audit, Closing, Measured, Offer, Provider, Ratio, Reputation, Settlement, UNMEASURED},
    reputation::check_takes,
    service::{self, Verdict},
    working::Working,
};
use alloc::vec::Vec;

/// The inputs of the quality, parts per billion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Correct share of storage and egress; [`UNMEASURED`] for a class not measured in the epoch.
    pub correct: PerClass<u64>,
    /// The lower of the on-time share of the last 64 challenges and of the answered share that auditors last
    /// agreed on; [`UNMEASURED`] before the first of both.
    pub available: u64,
    /// Latency score that auditors last agreed on; 0 before the first, which halves the quality.
    pub latency: u64,
}

/// Share of set bits among the newest `count` (at most 64) of a history.
fn share(history: u64, count: u64) -> u64 {
    let count = count.min(HISTORY.into());
    let Some(rest) = HISTORY.checked_sub(saturate_u32(count)).filter(|rest| *rest < HISTORY) else {
        return UNMEASURED;
    };
    u64::from((history << rest).count_ones()) * ONE / count
}

/// On-time share of the last 64 challenges; [`UNMEASURED`] before the first.
pub fn on_time_of(audit: &Audit) -> u64 {
    share(audit.on_time, u64::from(audit.drawn) / count(READS))
}

/// Passed share of the answered reads among the last 64; [`UNMEASURED`] without one (JL-1).
pub fn proven_of(audit: &Audit) -> u64 {
    let answered = u64::from(audit.drawn.min(HISTORY).saturating_sub(audit.silent.count_ones()));
    let passed = u64::from((audit.history & !audit.silent).count_ones());
    (passed * ONE).checked_div(answered).unwrap_or(UNMEASURED)
}

/// Counts those of the newest `reads` that were answered and did not pass, as far as the history goes back
/// (JL-1). The history of 64 reads suffices: the 0.9 of the same rule looks at no more.
fn wrong_of(audit: &Audit, reads: u32) -> u8 {
    saturate_u8((!audit.history & !audit.silent & newest(reads)).count_ones().into())
}

/// The challenges among those of the newest `reads` that were answered late or not at all (JL-1).
fn late_of(audit: &Audit, reads: u32) -> u8 {
    saturate_u8((!audit.on_time & newest(reads / bound_u32(READS))).count_ones().into())
}

/// The bits of the newest `count` in a history; all of them from 64 on.
fn newest(count: u32) -> u64 {
    u64::MAX.checked_shr(HISTORY.saturating_sub(count)).unwrap_or_default()
}

/// The figures of a provider at a close (SC-1). `egress` is the correct share that its auditors agreed on in
/// this epoch. The availability and latency that they last agreed on are in `reputation`.
pub fn figures_of(offer: &Offer, reputation: &Reputation, audit: &Audit, egress: Option<u64>) -> Figures {
    let is_drawn = audit.drawn > reputation.drawn_at_close && offer.capacity[Class::Storage] > 0;
    let storage = if is_drawn { share(audit.history, audit.drawn.into()) } else { UNMEASURED };
    let available = on_time_of(audit).min(reputation.answered);
    let correct = PerClass::new(storage, egress.unwrap_or(UNMEASURED), UNMEASURED);
    Figures { correct, available, latency: reputation.latency }
}

/// The quality of an epoch: the least over the measured classes; `None` if no class was measured (SC-2).
pub fn quality_of(figures: &Figures) -> Option<u64> {
    let measured = figures.correct.values().iter().filter(|correct| **correct != UNMEASURED);
    measured.map(|correct| score::quality(*correct, figures.available, figures.latency)).min()
}

/// The capacity of each class in the epoch, in units of its use (MK-3). Storage counts as far as the bond
/// covers it, if the provider answered a challenge lately. Egress counts as far as it was measured (CP-6).
/// Gas is not measured yet, so its price rests. A provider that may sell nothing offers nothing.
fn capacities(
    (offer, provider): (&Offer, &Provider),
    reputation: &Reputation,
    measured: Option<&Measured>,
    epoch: u64,
    parameters: &Parameters,
) -> PerClass<u128> {
    let mut capacities = PerClass::default();
    if check_takes(reputation).is_err() || provider.leaves_at != 0 {
        return capacities;
    }
    if u64::from(reputation.silent) < ANSWERED_FRESH_EPOCHS {
        let leaves = u128::from(sellable(offer, provider, parameters));
        capacities[Class::Storage] = leaves * u128::from(parameters.epoch_rounds);
    }
    capacities[Class::Egress] = offered_egress(offer, measured, epoch).into();
    capacities
}

/// Measures one provider: completes the row up to its weight, updates the history in its reputation, and adds
/// to the epoch's sums (BK-3).
pub(super) fn measure(
    working: &mut Working<'_>,
    sums: &mut Closing,
    closing_set: &ClosingSet,
    (index, account): (u32, &Account),
) -> Result<(), Broken> {
    let epoch = sums.epoch;
    let mut reputation: Reputation = working.kept(Reputation::key(account))?;
    if reputation.registered > epoch {
        return Ok(());
    }
    let provider: Provider = working.kept(Provider::key(account))?;
    let offer: Offer = working.kept(Offer::key(account))?;
    let audit: Audit = working.kept(Audit::key(account))?;
    let key = Settlement::key(account, epoch % SETTLEMENT_RING);
    let mut row = Settlement::of(epoch, working.get(key)?);
    let verdict = match closing_set.audited(index) {
        Some((round, stratum)) => {
            service::close(working, round, stratum, &closing_set.seats, account, &mut reputation)?
        }
        None => Verdict::default(),
    };
    working.events.push(service::event(epoch, *account, on_time_of(&audit), &verdict, &reputation));
    (row.assigned, row.reported) = (verdict.assigned, verdict.reported);
    let figures = figures_of(&offer, &reputation, &audit, verdict.correct);
    let Figures { correct, available, latency } = figures;
    row.correct = correct.map(Ratio::new);
    (row.available, row.latency) = (Ratio::new(available), Ratio::new(latency));
    row.quality = quality_of(&figures).map_or(Ratio::UNMEASURED, Ratio::new);
    row.reads = audit.drawn.saturating_sub(reputation.drawn_at_close);
    row.answers = audit.answered.saturating_sub(reputation.answered_at_close);
    row.wrong = wrong_of(&audit, row.reads);
    row.late = late_of(&audit, row.reads);
    remember(&mut reputation, &row, &audit);
    let measured: Vec<u64> = reputation.qualities.into_iter().filter(|q| *q != UNMEASURED).collect();
    row.least = Ratio::new(measured.iter().copied().min().unwrap_or(0));
    row.weight = pool::weight(row.base.grains(), &measured);
    let seen: Option<Measured> = working.get(Measured::key(account))?;
    let parameters = &working.context.parameters;
    let offered = capacities((&offer, &provider), &reputation, seen.as_ref(), epoch, parameters);
    add(sums, &row, offered).ok_or(Broken::bound("Closing"))?;
    working.put(Reputation::key(account), &reputation)?;
    working.put(key, &row)
}

fn remember(reputation: &mut Reputation, row: &Settlement, audit: &Audit) {
    reputation.qualities.rotate_right(1);
    reputation.qualities[0] = row.quality.ppb();
    reputation.idle = if row.reads == 0 { reputation.idle.saturating_add(1) } else { 0 };
    reputation.silent = if row.answers == 0 { reputation.silent.saturating_add(1) } else { 0 };
    reputation.drawn_at_close = audit.drawn;
    reputation.answered_at_close = audit.answered;
    reputation.on_time = on_time_of(audit);
    reputation.proven = proven_of(audit);
}

/// Adds a row to the epoch's sums. Use counts only where the capacity does. Otherwise one measured provider
/// among others that sell more would look sold out (MK-3, CP-6).
fn add(sums: &mut Closing, row: &Settlement, offered: PerClass<u128>) -> Option<()> {
    sums.burn = sums.burn.checked_add(row.burn)?;
    sums.weight = sums.weight.checked_add(row.weight)?;
    for (class, used) in row.used().iter() {
        if offered[class] > 0 {
            sums.capacity[class] = sums.capacity[class].checked_add(offered[class])?;
            sums.used[class] = sums.used[class].checked_add(u128::from(*used))?;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_are_the_answered_reads_of_the_epoch_that_failed() {
        // The newest read is the lowest bit.
        for (history, silent, reads, wrong) in [
            (0_u64, 0_u64, 0, 0),
            (0, 0, 4, 4),
            (0b1011, 0, 4, 1),
            (0x0f, 0, 4, 0),
            (0x0f, 0, 8, 4),
            (0x0f, 0xf0, 8, 0),
            (u64::MAX >> 1, 0, 63, 0),
            (u64::MAX >> 1, 0, 64, 1),
            (0, 0, 900, 64),
            (u64::MAX, 0, 900, 0),
        ] {
            let audit = Audit { history, silent, ..Audit::default() };
            assert_eq!(wrong_of(&audit, reads), wrong, "{history:x} {silent:x} {reads}");
        }
    }
}
