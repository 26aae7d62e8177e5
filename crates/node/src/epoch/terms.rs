//! The leaders and the receivers of shares in the coming terms: the engine's view of the ledger's seats.
//!
//! ```text
//!   second half of term t: engine ── players of t+2? weights of t+1? ──► Authorities
//!                                                                            │ waits until the state
//!                                                                            ▼ holds the first half
//!                                         finalized state: System.height, Seat of each authority
//! ```
//!
//! All nodes must give the same answer, whenever they are asked: also a node that applied one block more,
//! restarted, replays, or got a recent state from its peers. So the state may be of any height from the
//! middle of the term on, and only facts that held at the middle are used (AU-9).
//!
//! Invariants:
//! 1. An answer depends only on the term and on the finalized blocks up to its middle.
//! 2. The wait ends without the engine's help. The engine asks only after it has applied the deciding
//!    block, and the same delivery gave that block to the state, which applies it on its own.
//! 3. Height and seats come from one read of the state. The height that services follow will not do:
//!    after a crash it may be ahead of the state.
//!
//! Tests: `tests/terms.rs` (five and four authorities, restarts where a term ends, a state from
//! peers, each run twice), and `equivocation` of the command line (real processes).

use super::{Directory, DirectoryEntry};
use crate::{engine::PublicKey, genesis::Genesis, handle::Handle};
use commonware_consensus::types::Epoch;
use commonware_glue::dkg::ParticipantsProvider;
use commonware_utils::ordered::{Map, Set};
use posync_client::watch::{self, Closed};
use posync_protocol::{
    Account, Key, Record, Slot,
    authority::leaders::{decided_at, players},
    record::{Seat, System},
};
use std::sync::Arc;

/// The authorities of every term: those of the genesis, minus those jailed since for a proved fault.
#[derive(Clone)]
pub(crate) struct Authorities {
    genesis: Arc<Genesis>,
    ledger: watch::Receiver<Option<Handle>>,
}

impl Authorities {
    /// Answers from the genesis and, once it is readable, from the `ledger`.
    pub(crate) const fn new(genesis: Arc<Genesis>, ledger: watch::Receiver<Option<Handle>>) -> Self {
        Self { genesis, ledger }
    }

    /// Marks the authorities, in genesis order, that count as jailed for the decisions of `term`.
    async fn jailed(&self, term: u64) -> Vec<bool> {
        let height = decided_at(&self.genesis.parameters, term);
        match self.seats(height).await {
            Ok(seats) => seats.iter().map(|seat| seat.jailed_by(height)).collect(),
            // The node is stopping, so no one waits for the answer.
            Err(Closed) => std::future::pending().await,
        }
    }

    /// The seats of all authorities, in a state of `height` or later.
    async fn seats(&self, height: u64) -> Result<Vec<Seat>, Closed> {
        let ledger = self.ledger.clone().wait_for(Option::is_some).await?.clone();
        let ledger = ledger.expect("it was just seen");
        let accounts = self.genesis.authorities.iter().map(|authority| Account::of(&authority.key));
        let seats = accounts.map(|account| Seat::key(&account));
        let keys: Vec<Key> = std::iter::once(System::key()).chain(seats).collect();
        let mut heights = ledger.heights();
        loop {
            // Marked first, so that a block applied during the read is not missed.
            heights.mark_unchanged();
            let slots = ledger.read_unproven(keys.clone()).await;
            // Before the first block the state is empty.
            let reached = slots[0].is_some_and(|slot| record::<System>(&slot).height >= height);
            if reached {
                let seat = |slot: &Option<Slot>| record(&slot.expect("a seat is never removed"));
                return Ok(slots[1..].iter().map(seat).collect());
            }
            heights.changed().await?;
        }
    }
}

fn record<T: Record>(slot: &Slot) -> T {
    T::from_slot(slot).expect("the state holds what the rules wrote")
}

impl ParticipantsProvider for Authorities {
    type PublicKey = PublicKey;
    type Directory = Directory;

    /// The engine asks for the term after next (AU-10).
    async fn participants(&mut self, epoch: Epoch) -> Set<PublicKey> {
        let plays = players(&self.jailed(epoch.get().saturating_sub(2)).await);
        let keys = self.genesis.authorities.iter().map(|authority| authority.key.clone());
        Set::from_iter_dedup(keys.zip(plays).filter_map(|(key, plays)| plays.then_some(key)))
    }

    /// The engine asks for the next term (AU-9).
    async fn directory(&mut self, epoch: Epoch, peers: Set<PublicKey>) -> Directory {
        let jailed = self.jailed(epoch.get().saturating_sub(1)).await;
        let jailed = self.genesis.authorities.iter().map(|authority| &authority.key).zip(jailed);
        let weightless: Vec<_> = jailed.filter_map(|(key, jailed)| jailed.then_some(key)).collect();
        let Directory(known) = self.genesis.directory();
        let entries = peers.into_iter().map(|peer| {
            let entry = known.get_value(&peer).expect("every dealer and player is a genesis authority");
            let weight = if weightless.contains(&&peer) { 0 } else { entry.weight };
            let entry = DirectoryEntry { weight, address: entry.address.clone() };
            (peer, entry)
        });
        Directory(Map::from_iter_dedup(entries.collect::<Vec<_>>()))
    }
}
