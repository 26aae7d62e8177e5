//! The seats' part of the invariant: each seat has its index, and the bonds add up (AU-1).

use super::{Broken, State, at_most, equal};
use crate::{
    limits::{EVIDENCE_EPOCHS_MAX, SEATS_MAX},
    record::{Closing, Offences, Seat, SeatAt, System},
};

pub(super) fn check(state: &State, system: &System) -> Result<(), Broken> {
    at_most("seats", system.seats, SEATS_MAX)?;
    let mut bonds = 0_u128;
    for index in 0..system.seats {
        let at: SeatAt = state.need(SeatAt::key(index), "SeatAt")?;
        let seat: Seat = state.need(Seat::key(&at.account), "Seat at an index")?;
        equal("Seat.index", seat.index, index)?;
        bonds += seat.bond.grains();
    }
    equal("System.seat_bonds", system.seat_bonds.grains(), bonds)?;
    let mut owed = 0_u128;
    for closing in state.all::<Closing>() {
        owed += closing?.committee.grains();
    }
    at_most("the committee's pool covers what seats will share", owed, system.committee.grains())?;
    for offences in state.all::<Offences>() {
        let offences = offences?;
        let there: Option<Offences> = state.get(Offences::at(offences.epoch))?;
        equal("Offences stand in their place", there.as_ref() == Some(&offences), true)?;
    }
    at_most("orphaned Offences", state.count::<Offences>(), EVIDENCE_EPOCHS_MAX + 2)?;
    equal("orphaned Seat", state.count::<Seat>(), u64::from(system.seats))?;
    equal("orphaned SeatAt", state.count::<SeatAt>(), u64::from(system.seats))
}
