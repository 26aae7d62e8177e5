//! Limits requests that wait for a proof of their agreement, for each peer and in total.
//!
//! A waiting put holds its bytes, of which the listener has a bounded number; any other holds a place.
//! So a peer that names agreements that do not exist fills only its own places.

use commonware_utils::sync::Mutex;
use posync_protocol::Account;
use std::collections::BTreeMap;

/// KiB of waiting puts, per peer and in total: at most half of the listener's bytes wait.
pub(super) const PUT_KIB: (u32, u32) = (16 << 10, 32 << 10);
/// Waiting requests, per peer and in total: half of the handler's places.
pub(super) const REQUESTS: (u32, u32) = (64, super::LOAD_MAX / 2);

const _: () = assert!(2 * 1024 * (PUT_KIB.1 as usize) <= posync_protocol::limits::CALL_BYTES_MAX);

/// Counts the amounts that wait, per peer and in total.
pub(super) struct Waits {
    most: (u32, u32),
    waiting: Mutex<(BTreeMap<Account, u32>, u32)>,
}

/// A place of a waiting request; dropping it frees the place.
pub(super) struct Wait<'a> {
    waits: &'a Waits,
    peer: Account,
    amount: u32,
}

impl Waits {
    /// Limits the amount per peer, and in total.
    pub(super) fn new(most: (u32, u32)) -> Self {
        Self { most, waiting: Mutex::default() }
    }

    /// Takes a place; `None` when a limit is reached.
    pub(super) fn enter(&self, peer: Account, amount: u32) -> Option<Wait<'_>> {
        let mut waiting = self.waiting.lock();
        let theirs = waiting.0.get(&peer).copied().unwrap_or(0).checked_add(amount)?;
        let all = waiting.1.checked_add(amount)?;
        if theirs > self.most.0 || all > self.most.1 {
            return None;
        }
        waiting.0.insert(peer, theirs);
        waiting.1 = all;
        Some(Wait { waits: self, peer, amount })
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut waiting = self.waits.waiting.lock();
        waiting.1 = waiting.1.saturating_sub(self.amount);
        if let Some(theirs) = waiting.0.get_mut(&self.peer) {
            *theirs = theirs.saturating_sub(self.amount);
            if *theirs == 0 {
                waiting.0.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_fills_its_own_places_alone() {
        let (waits, peer) = (Waits::new((4, 8)), |tag| Account([tag; 32]));
        let first = waits.enter(peer(1), 3).expect("free");
        assert!(waits.enter(peer(1), 2).is_none());
        let one = waits.enter(peer(1), 1).expect("free");
        let second = waits.enter(peer(2), 4).expect("another one has its own");
        assert!(waits.enter(peer(3), 1).is_none(), "all places are taken");
        drop(second);
        assert!(waits.enter(peer(3), 1).is_some() && waits.enter(peer(1), 1).is_none());
        drop((first, one));
        assert!(waits.enter(peer(1), 4).is_some() && waits.waiting.lock().0.is_empty());
    }
}
