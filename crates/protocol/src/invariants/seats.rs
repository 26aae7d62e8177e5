//! The seats' part of the invariant: each seat has its index, and the bonds add up.

use super::{Broken, State, at_most, equal};
use crate::{
    limits::SEATS_MAX,
    record::{Seat, SeatAt, System},
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
    equal("orphaned Seat", state.count::<Seat>(), u64::from(system.seats))?;
    equal("orphaned SeatAt", state.count::<SeatAt>(), u64::from(system.seats))
}
