//! Votes of seats for and against accounts, in the sense of EIP-225 (Clique).
//!
//! Source: <https://eips.ethereum.org/EIPS/eip-225>, whose table of cases these ballots reproduce.
//! The engine, not these ballots, decides which seats may sign a block.

use crate::number::index;
use crate::{Account, limits::SEATS_MAX};
use alloc::collections::{BTreeMap, BTreeSet};

/// Votes of one seat that may be pending at the same time.
pub const BALLOTS_MAX: usize = 16;

/// The decision of a vote about the account that it named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The account has a seat from now on.
    Admitted,
    /// The account has no seat from now on.
    Removed,
}

/// Why a vote is refused; a refused vote changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The voting account has no seat.
    Stranger,
    /// The seat has [`BALLOTS_MAX`] votes pending about other accounts; withdraw one first.
    TooMany,
}

/// The seats, and the votes that are pending in this epoch (SE-3).
///
/// A vote that could change nothing is not counted: to admit an account that has a seat, to admit while all
/// [`SEATS_MAX`] are taken, or to remove an account without one. It only withdraws the same seat's earlier
/// vote about the same account. So all pending votes about an account ask for the same change.
///
/// Guarantees: a seat counts once about an account; more than half of the seats decide, at once; only the
/// account of the vote changes, even if others reached a majority meanwhile (they change when they are next
/// voted about); a decision clears the votes about its account; a removed seat's votes are cleared. At most
/// `SEATS_MAX x BALLOTS_MAX` votes are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ballots {
    seats: BTreeSet<Account>,
    /// For each seat, the accounts for which it wants to change whether they have a seat.
    votes: BTreeMap<Account, BTreeSet<Account>>,
}

impl Ballots {
    /// Starts without votes; seats beyond [`SEATS_MAX`] are left out.
    pub fn new(seats: impl IntoIterator<Item = Account>) -> Self {
        Self { seats: seats.into_iter().take(index(SEATS_MAX)).collect(), votes: BTreeMap::new() }
    }

    /// The accounts that have a seat.
    pub const fn seats(&self) -> &BTreeSet<Account> {
        &self.seats
    }

    /// Records a seat's vote: `about` should have a seat if `admit`, else none.
    ///
    /// # Errors
    /// [`Refused`]: the vote has no effect.
    pub fn vote(
        &mut self,
        seat: &Account,
        about: &Account,
        admit: bool,
    ) -> Result<Option<Decision>, Refused> {
        if !self.seats.contains(seat) {
            return Err(Refused::Stranger);
        }
        let is_full = self.seats.len() >= index(SEATS_MAX);
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

    /// Gives `about` a seat, or takes it away if it has one.
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

    /// Ends the epoch: clears all pending votes.
    pub fn end_epoch(&mut self) {
        self.votes.clear();
    }
}
