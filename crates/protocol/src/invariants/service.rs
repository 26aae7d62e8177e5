//! The service audits' part of the invariant: each record stands in its place of the ring, and reports exist
//! only until their provider's close.

use super::{Broken, State, at_most, equal};
use crate::number::count;
use crate::record::{CLOSING_RING, Commitment, REPORT_PARTS, Reports, ServiceRound, System};

pub(super) fn check(state: &State, system: &System) -> Result<(), Broken> {
    for round in state.all::<ServiceRound>() {
        let round = round?;
        let there: Option<ServiceRound> = state.get(ServiceRound::of(round.epoch))?;
        equal("ServiceRound stands in its place", there.as_ref() == Some(&round), true)?;
        at_most("drawn indices", round.providers, system.providers)?;
    }
    for reports in state.all::<Reports>() {
        let findings = reports?.findings;
        let ascends = findings.windows(2).all(|pair| pair[0].auditor < pair[1].auditor);
        equal("reports are in the order of their auditors", ascends && !findings.is_empty(), true)?;
    }
    let reports = u64::from(system.providers) * count(REPORT_PARTS);
    at_most("orphaned Commitment", state.count::<Commitment>(), u64::from(system.seats) * CLOSING_RING)?;
    at_most("orphaned Reports", state.count::<Reports>(), reports)
}
