//! Whose turn it is to bring evidence, so that one fee is burned for it and not one for each seat
//! (AU-12).
//!
//! The seat after the offender's begins; every [`TURN_BLOCKS`] the one after it may, too, until the
//! ledger has it. Somebody that is down, or has no money, costs eight blocks.

use posync_protocol::limits::EVIDENCE_EPOCHS_MAX;

/// Blocks that one seat has for itself before the next one tries: a proposal, its certificate, and
/// a little.
pub const TURN_BLOCKS: u64 = 8;

/// What the applied state says of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The epoch.
    pub now: u64,
    /// How many seats there are.
    pub seats: u32,
    /// This node's place among them.
    pub mine: Option<u32>,
    /// The offender's.
    pub offender: Option<u32>,
    /// Whether the fault is proven already, or nothing is left that it could cost.
    pub is_settled: bool,
}

/// What to do about a fault now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing, ever: the ledger has it, or takes it no more.
    Over,
    /// Another seat is first.
    Wait,
    /// Bring it.
    Now,
}

/// Decides for a fault of `epoch` that was found at height `found`, at `height`.
pub fn turn(epoch: u64, found: u64, height: u64, standing: &Standing) -> Turn {
    let Standing { now, seats, mine, offender, is_settled } = *standing;
    let Some(offender) = offender.filter(|_| !is_settled && epoch.saturating_add(EVIDENCE_EPOCHS_MAX) >= now)
    else {
        return Turn::Over;
    };
    // The ledger takes no evidence of an epoch to come.
    if epoch > now {
        return Turn::Wait;
    }
    let seats = u64::from(seats.max(1));
    // Who has no seat is last; who signed it does not bring it.
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

    fn standing(mine: Option<u32>) -> Standing {
        Standing { now: 5, seats: 4, mine, offender: Some(2), is_settled: false }
    }

    #[test]
    fn the_seat_after_the_offenders_is_first() {
        for (mine, waits) in [(Some(3), 0), (Some(0), 1), (Some(1), 2), (None, 4)] {
            let due = FOUND + waits * TURN_BLOCKS;
            assert_eq!(turn(5, FOUND, due, &standing(mine)), Turn::Now, "{mine:?}");
            if waits > 0 {
                assert_eq!(turn(5, FOUND, due - 1, &standing(mine)), Turn::Wait, "{mine:?}");
            }
        }
    }

    #[test]
    fn what_the_ledger_would_refuse_is_not_brought() {
        let (mine, late) = (standing(Some(3)), 1_000);
        let table = [
            ("its own", 5, standing(Some(2)), Turn::Over),
            ("settled", 5, Standing { is_settled: true, ..mine }, Turn::Over),
            ("no seat", 5, Standing { offender: None, ..mine }, Turn::Over),
            ("of an epoch to come", 6, mine, Turn::Wait),
            ("as old as may be", 5, Standing { now: 19, ..mine }, Turn::Now),
            ("too old", 5, Standing { now: 20, ..mine }, Turn::Over),
            ("no seats at all", 5, Standing { seats: 0, mine: None, ..mine }, Turn::Now),
        ];
        for (what, epoch, standing, expected) in table {
            assert_eq!(turn(epoch, FOUND, late, &standing), expected, "{what}");
        }
    }
}
