//! One term's changes of seats, as one function of who is in, who wants in and how they stood.
//!
//! Order: who ought to leave goes first (voted out before low, lower scores before higher), then
//! who wants in comes (voted in before automatic, higher scores before lower), as far as the
//! term's churn allows. Ties go to the lower account.

use super::{Track, automatic_max, churn_max, seats_for};
use crate::{
    Account,
    limits::{OPERATOR_BYTES, SEATS_MAX, SEATS_MIN},
};
use alloc::{collections::BTreeSet, vec::Vec};
use core::cmp::Reverse;

/// Who has a seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seated {
    /// The authority.
    pub account: Account,
    /// Its operator.
    pub operator: [u8; OPERATOR_BYTES],
    /// Its effective score.
    pub score: u64,
    /// How the score has stood.
    pub track: Track,
    /// Whether it got in without votes.
    pub automatic: bool,
    /// Whether the seats removed it, or it signed against itself: for good.
    pub ousted: bool,
}

impl Seated {
    /// Whether it ought to leave, and so neither leads nor vetoes.
    pub const fn leaves(&self) -> bool {
        self.ousted || self.track.is_due()
    }
}

/// Who wants a seat, has locked the bond of one, and is neither jailed nor suspended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The account.
    pub account: Account,
    /// Its operator.
    pub operator: [u8; OPERATOR_BYTES],
    /// Its effective score.
    pub score: u64,
    /// How the score has stood.
    pub track: Track,
    /// Whether the seats admitted it by a majority.
    pub voted: bool,
    /// Seats whose veto stands, each once; others are not counted.
    pub vetoes: BTreeSet<Account>,
}

/// How a seat was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// By a majority of the seats.
    Vote,
    /// Into an open seat, because no more than a third objected.
    Automatic,
}

/// What a term changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Who gets a seat, in the order in which it was given.
    pub admitted: Vec<(Account, Way)>,
    /// Who loses its seat, in the order in which it was taken.
    pub removed: Vec<Account>,
    /// Who ought to leave and stays without leadership until a replacement is in, or for the next
    /// term's churn.
    pub waiting: Vec<Account>,
    /// Seats whose score fell below the line in this epoch, by account.
    pub warned: Vec<Account>,
}

/// Numbers that move while a term's changes are decided.
struct Room {
    seats: usize,
    automatic: usize,
    churn: usize,
}

impl Room {
    /// Takes a seat away if the term's churn, the least number of seats and the share of automatic
    /// ones allow it.
    const fn take(&mut self, automatic: bool) -> bool {
        let left = self.automatic - automatic as usize;
        let few = self.seats <= SEATS_MIN as usize;
        let is_over = !automatic && left > automatic_max(self.seats - 1);
        if self.churn == 0 || few || is_over {
            return false;
        }
        (self.seats, self.automatic, self.churn) = (self.seats - 1, left, self.churn - 1);
        true
    }

    /// Gives a seat if the same allow it.
    const fn give(&mut self, way: Way) -> bool {
        let automatic = self.automatic + matches!(way, Way::Automatic) as usize;
        let is_over = matches!(way, Way::Automatic) && automatic > automatic_max(self.seats + 1);
        if self.churn == 0 || self.seats >= SEATS_MAX as usize || is_over {
            return false;
        }
        (self.seats, self.automatic, self.churn) = (self.seats + 1, automatic, self.churn - 1);
        true
    }
}

/// Decides a term's changes; `providers` are the bonded ones whose score is at least
/// [`super::LEAVE`]. Accounts are distinct.
///
/// Guarantees, for `n` seats: at most [`churn_max`]`(n)` are given or taken; none is taken that would
/// leave fewer than four (SE-5), or more automatic ones than [`automatic_max`] of those left (SE-6);
/// nobody gets one who is not eligible, has one, or whose operator has one (SE-4); without votes only
/// an open seat is given, and none against the vetoes of more than a third (SE-4); a seat is taken
/// only from who was voted out or was low for long enough. The order of the inputs changes nothing.
pub fn elect(seats: &[Seated], candidates: &[Candidate], providers: u64) -> Changes {
    let automatic = seats.iter().filter(|seat| seat.automatic).count();
    let mut room = Room { seats: seats.len(), automatic, churn: churn_max(seats.len()) };
    let mut changes = Changes::default();
    let mut leaving: Vec<&Seated> = seats.iter().filter(|seat| seat.leaves()).collect();
    leaving.sort_unstable_by_key(|seat| (!seat.ousted, seat.score, seat.account));
    for seat in leaving {
        let taken = room.take(seat.automatic);
        let list = if taken { &mut changes.removed } else { &mut changes.waiting };
        list.push(seat.account);
    }
    // A seat that only waits to be replaced is open.
    let mut open = seats_for(providers).saturating_sub(room.seats - changes.waiting.len());
    let staying = || seats.iter().filter(|seat| !changes.removed.contains(&seat.account));
    let mut operators: BTreeSet<[u8; OPERATOR_BYTES]> = staying().map(|seat| seat.operator).collect();
    let voters: BTreeSet<Account> =
        seats.iter().filter(|seat| !seat.leaves()).map(|seat| seat.account).collect();
    let has_seat: BTreeSet<Account> = seats.iter().map(|seat| seat.account).collect();
    let mut coming: Vec<&Candidate> = candidates
        .iter()
        .filter(|candidate| candidate.track.is_eligible() && !has_seat.contains(&candidate.account))
        .collect();
    coming.sort_unstable_by_key(|c| (!c.voted, Reverse(c.score), c.account));
    for candidate in coming {
        let is_vetoed = 3 * candidate.vetoes.intersection(&voters).count() > voters.len();
        let way = if candidate.voted { Way::Vote } else { Way::Automatic };
        let may = way == Way::Vote || (open > 0 && !is_vetoed);
        if may && !operators.contains(&candidate.operator) && room.give(way) {
            operators.insert(candidate.operator);
            changes.admitted.push((candidate.account, way));
            open = open.saturating_sub(1);
        }
    }
    changes.warned = seats.iter().filter(|seat| seat.track.is_warned()).map(|seat| seat.account).collect();
    changes.warned.sort_unstable();
    changes
}
