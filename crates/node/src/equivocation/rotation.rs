//! Decides which seat submits evidence, so that one fee is burned for it and not one for each seat
//! (AU-12).
//!
//! The seat after the offender's begins; every [`TURN_BLOCKS`] the next seat may submit too, until the
//! ledger has the evidence. A seat that is down, or has no money, costs eight blocks.

use posync_protocol::limits::EVIDENCE_EPOCHS_MAX;

/// Blocks that one seat has for itself before the next one tries: a proposal, its certificate, and
/// some slack.
pub(crate) const TURN_BLOCKS: u64 = 8;

/// The facts about a fault in the applied state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TurnFacts {
    /// Epoch of the applied height.
    pub now: u64,
    /// Number of seats on the ledger.
    pub seats: u32,
    /// Index of this node's seat; `None` if it has none.
    pub mine: Option<u32>,
    /// Index of the offender's seat; `None` if it has none.
    pub offender: Option<u32>,
    /// True if the fault is proven already, or can cost the seat nothing more.
    pub is_settled: bool,
}

/// The step that this node takes about a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing, ever: the ledger has the evidence or no longer accepts it, or this node is the offender.
    Over,
    /// Another seat goes first.
    Wait,
    /// Submit the evidence in this node's name.
    Now,
}

/// Decides at `height` about a fault of `epoch` that was found at height `found`.
pub(crate) fn turn(epoch: u64, found: u64, height: u64, facts: &TurnFacts) -> Turn {
    let TurnFacts { now, seats, mine, offender, is_settled } = *facts;
    let Some(offender) = offender.filter(|_| !is_settled && epoch.saturating_add(EVIDENCE_EPOCHS_MAX) >= now)
    else {
        return Turn::Over;
    };
    // The ledger accepts no evidence of a future epoch.
    if epoch > now {
        return Turn::Wait;
    }
    let seats = u64::from(seats.max(1));
    // A node without a seat is last; the offender does not submit it.
    let before = match mine {
        Some(mine) if mine == offender => return Turn::Over,
        Some(mine) => (u64::from(mine) + seats - u64::from(offender) - 1) % seats,
        None => seats,
    };
    if height >= found.saturating_add(before * TURN_BLOCKS) { Turn::Now } else { Turn::Wait }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUND: u64 = 100;

    fn facts(mine: Option<u32>) -> TurnFacts {
        TurnFacts { now: 5, seats: 4, mine, offender: Some(2), is_settled: false }
    }

    #[test]
    fn the_seat_after_the_offenders_is_first() {
        for (mine, waits) in [(Some(3), 0), (Some(0), 1), (Some(1), 2), (None, 4)] {
            let due = FOUND + waits * TURN_BLOCKS;
            assert_eq!(turn(5, FOUND, due, &facts(mine)), Turn::Now, "{mine:?}");
            if waits > 0 {
                assert_eq!(turn(5, FOUND, due - 1, &facts(mine)), Turn::Wait, "{mine:?}");
            }
        }
    }

    #[test]
    fn what_the_ledger_would_refuse_is_not_brought() {
        let (mine, late) = (facts(Some(3)), 1_000);
        let table = [
            ("its own", 5, facts(Some(2)), Turn::Over),
            ("settled", 5, TurnFacts { is_settled: true, ..mine }, Turn::Over),
            ("no seat", 5, TurnFacts { offender: None, ..mine }, Turn::Over),
            ("of an epoch to come", 6, mine, Turn::Wait),
            ("as old as may be", 5, TurnFacts { now: 19, ..mine }, Turn::Now),
            ("too old", 5, TurnFacts { now: 20, ..mine }, Turn::Over),
            ("no seats at all", 5, TurnFacts { seats: 0, mine: None, ..mine }, Turn::Now),
        ];
        for (what, epoch, facts, expected) in table {
            assert_eq!(turn(epoch, FOUND, late, &facts), expected, "{what}");
        }
    }
}
