//! Votes of seats for and against accounts, in the sense of EIP-225 (Clique).
//!
//! Source: <https://eips.ethereum.org/EIPS/eip-225>, whose table of cases these ballots reproduce.
//! Who may sign a block is the engine's business and not theirs.

use crate::{Account, limits::SEATS_MAX};
use alloc::collections::{BTreeMap, BTreeSet};

/// Votes of one seat that may be pending at the same time.
pub const BALLOTS_MAX: usize = 16;

/// What a vote decided about the account that it named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It has a seat from now on.
    Admitted,
    /// It has none from now on.
    Removed,
}

/// Why a vote is refused: nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Whoever voted has no seat.
    Stranger,
    /// The seat has [`BALLOTS_MAX`] votes pending about other accounts; withdraw one first.
    TooMany,
}

/// The seats, and the votes that are pending in this epoch (SE-3).
///
/// A vote that could change nothing (to admit who has a seat or when all [`SEATS_MAX`] are taken, to
/// remove who has none) is not counted, but takes back what the same seat said before about the
/// same account. So all votes pending about an account want the same.
///
/// Guarantees: a seat counts once about an account; more than half of the seats decide, at once;
/// only the account of the vote changes, also where others reached a majority meanwhile (they
/// change when they are next voted about); a decision clears the votes about its account; the
/// removed take their votes with them. At most `SEATS_MAX x BALLOTS_MAX` votes are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ballots {
    seats: BTreeSet<Account>,
    /// By seat: the accounts whose having a seat it wants to change.
    votes: BTreeMap<Account, BTreeSet<Account>>,
}

impl Ballots {
    /// Without any vote; seats beyond [`SEATS_MAX`] are left out.
    pub fn new(seats: impl IntoIterator<Item = Account>) -> Self {
        Self { seats: seats.into_iter().take(SEATS_MAX as usize).collect(), votes: BTreeMap::new() }
    }

    /// Who has a seat.
    pub const fn seats(&self) -> &BTreeSet<Account> {
        &self.seats
    }

    /// A seat's vote on whether `about` should have one.
    ///
    /// # Errors
    /// [`Refused`]: the vote is as if it had not been.
    pub fn vote(
        &mut self,
        seat: &Account,
        about: &Account,
        admit: bool,
    ) -> Result<Option<Decision>, Refused> {
        if !self.seats.contains(seat) {
            return Err(Refused::Stranger);
        }
        let is_full = self.seats.len() >= SEATS_MAX as usize;
        let has_meaning = self.seats.contains(about) != admit && !(admit && is_full);
        let own = self.votes.entry(*seat).or_default();
        if !has_meaning {
            own.remove(about);
        } else if own.len() >= BALLOTS_MAX && !own.contains(about) {
            return Err(Refused::TooMany);
        } else {
            own.insert(*about);
        }
        let wanted = self.votes.values().filter(|about_whom| about_whom.contains(about)).count();
        Ok((2 * wanted > self.seats.len()).then(|| self.decide(about)))
    }

    /// Turns whether `about` has a seat.
    fn decide(&mut self, about: &Account) -> Decision {
        for about_whom in self.votes.values_mut() {
            about_whom.remove(about);
        }
        if self.seats.remove(about) {
            self.votes.remove(about);
            return Decision::Removed;
        }
        self.seats.insert(*about);
        Decision::Admitted
    }

    /// The epoch ends: what is pending is forgotten.
    pub fn end_epoch(&mut self) {
        self.votes.clear();
    }
}
