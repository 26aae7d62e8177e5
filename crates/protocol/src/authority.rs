//! Authorities: the pay of a seat by credits, and its loss when it signs two contradicting headers or commitments.
//!
//! ```text
//!   epoch e                 e + 1                    e + 2        e + 3
//!   blocks led: a credit -> pool of e is fixed;                -> pool shared by credits of e,
//!                           audits of e: credits                  seats that equivocated in e pay
//!                                                                 the correlated rest (first block)
//! ```
//!
//! Invariants
//! 1. Only credits count, and only those of seats without a proven fault at that time (AU-2).
//! 2. The fees of an epoch in the committee's pool are shared once; rounding and unearned shares belong to
//!    the pool of a later epoch (AU-3).
//! 3. A seat loses at most its bond. For the faults of one epoch it loses exactly the share that follows from
//!    the number of offenders (AU-5, AU-6).
//! 4. All of it happens in the first block of an epoch, over at most `SEATS_MAX` seats.
//! 5. The seats that order blocks follow from the seats' records at one height of a term (AU-9).

mod evidence;
pub mod leaders;

pub(crate) use evidence::{apply, check, touches as touches_evidence};

use crate::{
    Account, Amount, Broken, Record as _,
    account::credit as pay_out,
    books::begins_epoch,
    economics::{slash, split::floor_carry},
    event::Event,
    header::sha256,
    record::{AccountState, Closing, Offences, Seat},
    working::{BlockContext, Touched, Working},
};
use alloc::vec::Vec;

/// Epochs after which the faults and the credits of an epoch are closed, like its books.
pub(crate) const CLOSED_AFTER: u64 = 3;

/// Names the records of the authorities in this block; `seats` are those of the closing set.
pub(crate) fn touches(context: &BlockContext, seats: &[Account], touched: &mut Touched) {
    touched.writable.push(Seat::key(&context.leader));
    let Some(closed) = context.epoch().checked_sub(CLOSED_AFTER).filter(|_| begins_epoch(context)) else {
        return;
    };
    touched.readable.push(Offences::at(closed));
    for account in seats {
        touched.writable.extend([Seat::key(account), AccountState::key(account)]);
    }
}

/// Gives the leader of a block a credit (AU-2).
pub(crate) fn lead(working: &mut Working<'_>) -> Result<(), Broken> {
    let (leader, epoch) = (working.context.leader, working.context.epoch());
    credit(working, &leader, epoch)
}

/// Gives a seat one credit of `epoch`, which must not be closed yet: for a block that it led, or for a paid
/// audit (AU-2). An account without a seat, or with a jailed one, earns none.
pub(crate) fn credit(working: &mut Working<'_>, account: &Account, epoch: u64) -> Result<(), Broken> {
    let key = Seat::key(account);
    let Some(mut seat) = working.get::<Seat>(key)?.filter(|seat| seat.jailed.is_none()) else {
        return Ok(());
    };
    let credits = &mut seat.credits[Seat::place(epoch)];
    *credits = credits.saturating_add(1);
    working.put(key, &seat)
}

/// Fixes the committee's pool of the epoch that just ended: the balance less `owed`, the pool of the epoch
/// before it, which is not shared yet (AU-3).
pub(crate) fn fix_pool(working: &Working<'_>, owed: Amount) -> Result<Amount, Broken> {
    working.system.committee.checked_sub(owed).ok_or(Broken::bound("System.committee"))
}

/// Closes an epoch for all seats: shares the pool in `sums` by credits, each share floored, and takes the
/// cost of correlated faults beyond the first slash (AU-3, AU-6). Returns all credits.
///
/// Guarantees: the shares sum to at most the pool; equal credits earn equal shares; without a credit nothing
/// is paid; the rest stays in the committee's pool.
pub(crate) fn close(working: &mut Working<'_>, seats: &[Account], sums: &Closing) -> Result<u64, Broken> {
    let (epoch, place) = (sums.epoch, Seat::place(sums.epoch));
    let mut records: Vec<Seat> = Vec::with_capacity(seats.len());
    for account in seats {
        records.push(working.kept(Seat::key(account))?);
    }
    let credits: Vec<u128> = records.iter().map(|seat| seat.credits[place].into()).collect();
    let (shares, _) = floor_carry(sums.committee.grains(), &credits);
    let offences = Offences::of(epoch, working.get(Offences::at(epoch))?);
    for ((account, mut seat), share) in seats.iter().zip(records).zip(shares) {
        let amount = Amount::new(share).ok_or(Broken::bound("a seat's share"))?;
        pay_seat(working, account, &mut seat, epoch, amount)?;
        if offences.has(seat.index) {
            take_rest(working, account, &mut seat, &offences)?;
        }
        (seat.credits[place], seat.exposed[place]) = (0, Amount::ZERO);
        working.put(Seat::key(account), &seat)?;
    }
    Ok(credits.into_iter().sum::<u128>().try_into().unwrap_or(u64::MAX))
}

/// Pays a seat its share, also if it was jailed since (AU-7).
fn pay_seat(
    working: &mut Working<'_>,
    account: &Account,
    seat: &mut Seat,
    epoch: u64,
    amount: Amount,
) -> Result<(), Broken> {
    if amount == Amount::ZERO {
        return Ok(());
    }
    working.system.committee.lose(amount, "System.committee")?;
    pay_out(working, account, amount)?;
    seat.paid.gain(amount, "Seat.paid")?;
    let credits = seat.credits[Seat::place(epoch)];
    working.events.push(Event::CommitteePaid { epoch, seat: *account, credits, amount });
    Ok(())
}

/// Takes the cost of the faults of a closed epoch beyond the first slash. All of it is burned: the reporter
/// was paid for the finding, not for the number of offenders (AU-6).
fn take_rest(
    working: &mut Working<'_>,
    account: &Account,
    seat: &mut Seat,
    offences: &Offences,
) -> Result<(), Broken> {
    let exposed = seat.exposed[Seat::place(offences.epoch)];
    let of = |parts: u64| {
        let amount = slash::of(exposed.grains(), parts).and_then(Amount::new);
        amount.ok_or(Broken::bound("a slash"))
    };
    let parts = slash::equivocation(working.system.seats.into(), offences.count().into());
    let rest = of(parts)?.saturating_sub(of(slash::EQUIVOCATION_MIN)?).min(seat.bond);
    if rest == Amount::ZERO {
        return Ok(());
    }
    let evidence = sha256(&offences.to_slot());
    let (epoch, burned) = (offences.epoch, take(working, seat, rest, None)?);
    working.events.push(Event::Slashed {
        seat: *account,
        epoch,
        parts,
        amount: rest,
        burned,
        reporter: None,
        evidence,
        until: u64::MAX,
    });
    Ok(())
}

/// Moves `amount` out of a seat's bond: a quarter to the reporter if there is one, the rest is burned (AU-5).
/// Returns the burned amount.
///
/// Guarantees: burned and reward sum to `amount`; the reward is at most a quarter, so a seat that reports
/// itself loses three quarters.
fn take(
    working: &mut Working<'_>,
    seat: &mut Seat,
    amount: Amount,
    reporter: Option<&Account>,
) -> Result<Amount, Broken> {
    let reward = reporter.map_or(0, |_| amount.grains() / slash::REPORTER_DIVISOR);
    let reward = Amount::new(reward).ok_or(Broken::bound("a reward"))?;
    let burned = amount.checked_sub(reward).ok_or(Broken::bound("a reward"))?;
    seat.bond.lose(amount, "Seat.bond")?;
    seat.slashed.gain(amount, "Seat.slashed")?;
    let system = &mut working.system;
    system.seat_bonds.lose(amount, "System.seat_bonds")?;
    system.burned.gain(burned, "System.burned")?;
    if let Some(reporter) = reporter {
        pay_out(working, reporter, reward)?;
    }
    Ok(burned)
}
