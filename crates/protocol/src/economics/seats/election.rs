//! One term's changes of seats, as one function of the seats, the candidates and their scores over time.
//!
//! Order: seats due to leave go first (voted out before low, lower scores before higher). Candidates then
//! come in (voted in before automatic, higher scores before lower), as far as the term's churn allows. Ties
//! go to the lower account.

use super::{Track, automatic_max, churn_max, seats_for};
use crate::number::index;
use crate::{
    Account,
    limits::{OPERATOR_BYTES, SEATS_MAX, SEATS_MIN},
};
use alloc::{collections::BTreeSet, vec::Vec};
use core::cmp::Reverse;

/// A member that has a seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seated {
    /// Account of the authority.
    pub account: Account,
    /// Declared operator of the authority.
    pub operator: [u8; OPERATOR_BYTES],
    /// Effective score of the authority, parts per billion.
    pub score: u64,
    /// Runs of high and low epochs of the score.
    pub track: Track,
    /// True if the seat was given without votes.
    pub automatic: bool,
    /// True if the seats removed it, or it signed against itself; no later score changes that.
    pub ousted: bool,
}

impl Seated {
    /// Returns true if the seat is to leave; it then neither leads nor vetoes.
    pub const fn leaves(&self) -> bool {
        self.ousted || self.track.is_due()
    }
}

/// An account that wants a seat, has locked the bond for one, and is neither jailed nor suspended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Account that wants the seat.
    pub account: Account,
    /// Declared operator of the account.
    pub operator: [u8; OPERATOR_BYTES],
    /// Effective score of the account, parts per billion.
    pub score: u64,
    /// Runs of high and low epochs of the score.
    pub track: Track,
    /// True if the seats admitted it by a majority.
    pub voted: bool,
    /// Accounts whose veto stands, each once; only those of seats are counted.
    pub vetoes: BTreeSet<Account>,
}

/// How a seat was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// By a majority vote of the seats.
    Vote,
    /// Into an open seat, because no more than a third objected.
    Automatic,
}

/// The changes of seats in one term.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Accounts that get a seat, in the order in which it was given.
    pub admitted: Vec<(Account, Way)>,
    /// Accounts that lose their seat, in the order in which it was taken.
    pub removed: Vec<Account>,
    /// Accounts that are to leave and stay without leadership until a replacement is in, or until the next
    /// term's churn.
    pub waiting: Vec<Account>,
    /// Accounts of seats whose score fell below the line in this epoch, in ascending order.
    pub warned: Vec<Account>,
}

/// The counters that change while a term's changes are decided.
struct Room {
    seats: usize,
    automatic: usize,
    churn: usize,
}

impl Room {
    /// Takes a seat away if the term's churn, the least number of seats and the share of automatic ones allow
    /// it. Returns true if it did.
    const fn take(&mut self, automatic: bool) -> bool {
        let left = if automatic { self.automatic - 1 } else { self.automatic };
        let few = self.seats <= index(SEATS_MIN);
        let is_over = !automatic && left > automatic_max(self.seats - 1);
        if self.churn == 0 || few || is_over {
            return false;
        }
        (self.seats, self.automatic, self.churn) = (self.seats - 1, left, self.churn - 1);
        true
    }

    /// Gives a seat if the same limits and the largest number of seats allow it. Returns true if it did.
    const fn give(&mut self, way: Way) -> bool {
        let is_automatic = matches!(way, Way::Automatic);
        let automatic = if is_automatic { self.automatic + 1 } else { self.automatic };
        let is_over = is_automatic && automatic > automatic_max(self.seats + 1);
        if self.churn == 0 || self.seats >= index(SEATS_MAX) || is_over {
            return false;
        }
        (self.seats, self.automatic, self.churn) = (self.seats + 1, automatic, self.churn - 1);
        true
    }
}

/// Decides a term's changes; `providers` is the number of bonded ones whose score is at least
/// [`super::LEAVE`]. Accounts are distinct.
///
/// Guarantees, for `n` seats: at most [`churn_max`]`(n)` are given or taken; none is taken that would leave
/// fewer than four (SE-5), or more automatic ones than [`automatic_max`] of those left (SE-6); an account
/// gets a seat only if it is eligible, has none, and its operator has none (SE-4); without votes only an open
/// seat is given, and none against the vetoes of more than a third (SE-4); a seat is taken only if it was
/// voted out or was low for long enough. The order of the inputs changes nothing.
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
    // A seat that only waits for its replacement counts as open.
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
