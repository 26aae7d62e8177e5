//! The books: how an epoch is measured, paid and sealed while no block's work grows with the members.
//!
//! ```text
//!   epoch e          e + 1                    e + 2                      e + 3
//!   rows fill up --> pass 1: measure, sum --> prices, pool (first block)
//!                                             pass 2: score, pay, hash --> root (first block)
//! ```
//!
//! After its first round, each block of an epoch closes one slice of provider indices: the second pass of the
//! epoch before the last one, then the first pass of the last one. The slice follows from the height alone.
//! The totals of an epoch that a pass needs (the sum of weights, the pool) are known before that pass begins.
//!
//! Invariants
//! 1. A block visits at most `closing_slice` providers, the same ones in both passes (BK-2).
//! 2. An epoch's rows, sums and root follow from the state alone; no operation changes them (BK-3).
//! 3. Payments come out of the carry, the carry is filled from the reserve, and the payments of an epoch are
//!    at most its pool (BK-6).
//! 4. A closed epoch is never changed: its row, its books and its root stand (BK-7).

mod market;
mod measure;
mod pay;
pub mod tree;

pub use crate::record::Pair;
pub use market::pair;
pub(crate) use market::touches as touches_market;
pub use measure::{Figures, figures_of, on_time_of, proven_of, quality_of};

use crate::number::{count, saturate_u8};
use crate::{
    Account, Amount, Broken, Class, Record, authority,
    invalid::Invalid,
    limits::{AUDITORS_MAX, SETTLEMENT_RING},
    record::{
        AccountState, Audit, Books, CLOSING_RING, Closing, Key, Market, Measured, Offer, Peak, Provider,
        ProviderAt, Reports, Reputation, Seat, SeatAt, ServiceRound, Settlement, System,
    },
    working::{BlockContext, Records, Touched, Working, decode},
};
use alloc::vec::Vec;
use core::ops::Range;

/// The accounts that a block closes: the providers at its indices, the epoch's service audit, and the seats.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClosingSet {
    /// The occupied indices of the slice, each with the account that stands there.
    providers: Vec<(u32, Account)>,
    /// The service audit of the epoch that the first pass measures.
    service: Option<ServiceRound>,
    /// All seats in order, if the block closes an epoch or a slice; else empty.
    seats: Vec<Account>,
}

/// The indices that a block closes, in both passes (BK-2).
fn slice(context: &BlockContext, system: &System) -> Range<u32> {
    let parameters = &context.parameters;
    let offset = context.height % parameters.epoch_blocks();
    let Some(step) = offset.checked_sub(parameters.round_blocks).filter(|_| context.epoch() > 0) else {
        return 0..0;
    };
    let first = step.saturating_mul(parameters.closing_slice);
    let bound = |index: u64| u32::try_from(index).unwrap_or(u32::MAX).min(system.providers);
    bound(first)..bound(first.saturating_add(parameters.closing_slice))
}

/// The records to read before [`crate::ledger::touches`] can name a block's records: the accounts at the
/// indices that it closes, the epoch's service audit, and the seats. `system` is the parent's.
pub fn closing_set_keys(context: &BlockContext, system: &System) -> Vec<Key> {
    let round = audited_epoch(context, system).map(ServiceRound::of);
    let providers = slice(context, system).map(ProviderAt::key);
    providers.chain(seat_keys(context, system)).chain(round).collect()
}

/// The epoch whose service audit this block closes for its slice.
fn audited_epoch(context: &BlockContext, system: &System) -> Option<u64> {
    context.epoch().checked_sub(1).filter(|_| !slice(context, system).is_empty())
}

/// The keys of the seats, each once, if the block closes an epoch for them or closes a slice with their audits.
fn seat_keys(context: &BlockContext, system: &System) -> impl Iterator<Item = Key> {
    let is_needed = begins_epoch(context) || !slice(context, system).is_empty();
    (0..if is_needed { system.seats } else { 0 }).map(SeatAt::key)
}

impl ClosingSet {
    /// Builds the closing set from the records of [`closing_set_keys`].
    ///
    /// # Errors
    /// [`Invalid::State`] if one is missing or does not decode.
    pub fn new(context: &BlockContext, system: &System, records: &Records) -> Result<Self, Invalid> {
        let mut closing_set = Self::default();
        for index in slice(context, system) {
            let at: ProviderAt = read(records, &ProviderAt::key(index), "ProviderAt")?;
            closing_set.providers.extend(at.account.map(|account| (index, account)));
        }
        for key in seat_keys(context, system) {
            closing_set.seats.push(read::<SeatAt>(records, &key, "SeatAt")?.account);
        }
        if let Some(epoch) = audited_epoch(context, system) {
            let slot =
                records.get(&ServiceRound::of(epoch)).ok_or(Broken::Unnamed { what: "ServiceRound" })?;
            let round: Option<ServiceRound> = slot.as_ref().map(decode).transpose()?;
            closing_set.service = round.filter(|round| round.epoch == epoch);
        }
        Ok(closing_set)
    }

    /// Accounts of all seats in the order of their indices; empty if the block does not need them.
    pub(crate) fn seats(&self) -> &[Account] {
        &self.seats
    }

    /// The epoch's service audit and the stratum in which it draws `index`; `None` if it does not.
    fn audited(&self, index: u32) -> Option<(&ServiceRound, u32)> {
        let round = self.service.as_ref()?;
        Some((round, round.stratum(index)?))
    }

    /// Names the records of the service audit of the slice's providers: at most all seats, and each
    /// provider's reports.
    fn touches_service(&self, touched: &mut Touched) {
        for (index, account) in &self.providers {
            let Some((round, stratum)) = self.audited(*index) else { continue };
            touched.writable.extend(Reports::parts(account, round.epoch));
            let auditors =
                (0..saturate_u8(count(AUDITORS_MAX))).filter_map(|auditor| round.seat(stratum, auditor));
            let seats = auditors.filter_map(|seat| self.seats.get(crate::number::index(seat)));
            touched.writable.extend(seats.map(Seat::key));
        }
    }

    /// Accounts of the slice's providers, in the order of their indices.
    pub fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.providers.iter().map(|(_, account)| account)
    }
}

fn read<R: Record>(records: &Records, key: &Key, what: &'static str) -> Result<R, Broken> {
    let slot = records.get(key).and_then(Option::as_ref);
    decode(slot.ok_or(Broken::Missing { what })?)
}

/// Returns true for the first block of every epoch but the first.
pub(crate) fn begins_epoch(context: &BlockContext) -> bool {
    context.height > 0 && context.height.is_multiple_of(context.parameters.epoch_blocks())
}

/// Names the records of the books in this block.
pub(crate) fn touches(
    context: &BlockContext,
    system: &System,
    closing_set: &ClosingSet,
    touched: &mut Touched,
) {
    touched.readable.extend(closing_set_keys(context, system));
    let epoch = context.epoch();
    let peaks = |epoch: u64| (0..=tree::LEVELS).map(move |level| Peak::key(epoch % CLOSING_RING, level));
    if begins_epoch(context) {
        touched
            .writable
            .extend([1, 2, 3].iter().filter_map(|back| epoch.checked_sub(*back)).map(Closing::of));
        touched.writable.extend(Class::ALL.map(Market::key));
        if let Some(sealed) = epoch.checked_sub(3) {
            touched.readable.extend(peaks(sealed));
            touched.writable.push(Books::key(sealed));
        }
    }
    if closing_set.providers.is_empty() {
        return;
    }
    closing_set.touches_service(touched);
    for closed in [1, 2].iter().filter_map(|back| epoch.checked_sub(*back)) {
        touched.writable.push(Closing::of(closed));
        let rows = closing_set
            .providers
            .iter()
            .map(|(_, account)| Settlement::key(account, closed % SETTLEMENT_RING));
        touched.writable.extend(rows);
    }
    if let Some(paid) = epoch.checked_sub(2) {
        touched.writable.extend(peaks(paid));
        touched.writable.extend(closing_set.providers.iter().map(|(_, account)| AccountState::key(account)));
    }
    for (_, account) in &closing_set.providers {
        touched.writable.push(Reputation::key(account));
        touched.readable.extend([Provider::key(account), Offer::key(account)]);
        touched.readable.extend([Audit::key(account), Measured::key(account)]);
    }
}

/// The closing record of `epoch`; `None` if its closing has not begun.
fn closing(working: &mut Working<'_>, epoch: u64) -> Result<Option<Closing>, Broken> {
    Ok(working.get::<Closing>(Closing::of(epoch))?.filter(|closing| closing.epoch == epoch))
}

/// Does the books' part of a block, before its draws and operations.
///
/// # Errors
/// [`Broken`] if money is not conserved, or a record is missing.
pub(crate) fn close(working: &mut Working<'_>, closing_set: &ClosingSet) -> Result<(), Broken> {
    let epoch = working.context.epoch();
    if begins_epoch(working.context) {
        if let Some(sealed) = epoch.checked_sub(3) {
            pay::seal(working, sealed, closing_set.seats())?;
        }
        if let Some(measured) = epoch.checked_sub(2) {
            settle_epoch(working, measured)?;
        }
        begin(working, epoch - 1)?;
    }
    if closing_set.providers.is_empty() {
        return Ok(());
    }
    // The second pass runs first: it judges by the counters that the first pass changes.
    if let Some(paid) = epoch.checked_sub(2)
        && let Some(mut sums) = closing(working, paid)?
    {
        let providers = sums.providers;
        for (_, account) in closing_set.providers.iter().filter(|(index, _)| *index < providers) {
            pay::pay(working, &mut sums, account)?;
        }
        working.put(Closing::of(paid), &sums)?;
    }
    if let Some(measured) = epoch.checked_sub(1)
        && let Some(mut sums) = closing(working, measured)?
    {
        let providers = sums.providers;
        for (index, account) in closing_set.providers.iter().filter(|(index, _)| *index < providers) {
            measure::measure(working, &mut sums, closing_set, (*index, account))?;
        }
        working.put(Closing::of(measured), &sums)?;
    }
    Ok(())
}

/// Fixes the number of indices and the committee's pool of the epoch that just ended (BK-1, AU-3).
fn begin(working: &mut Working<'_>, epoch: u64) -> Result<(), Broken> {
    let before = epoch.checked_sub(1).map_or(Ok(None), |before| closing(working, before))?;
    let owed = before.map_or(Amount::ZERO, |before| before.committee);
    let committee = authority::fix_pool(working, owed)?;
    let providers = working.system.providers;
    working.put(Closing::of(epoch), &Closing { epoch, providers, committee, ..Closing::default() })
}

/// Ends the first pass of an epoch: draws its pool, and moves the prices by its use.
fn settle_epoch(working: &mut Working<'_>, epoch: u64) -> Result<(), Broken> {
    let Some(mut sums) = closing(working, epoch)? else { return Ok(()) };
    pay::draw_pool(working, &mut sums)?;
    market::move_prices(working, &sums)?;
    working.put(Closing::of(epoch), &sums)
}
