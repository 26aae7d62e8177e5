//! Keeps a node silent until it knows that it alone signs with its key.
//!
//! Two machines with one key, an old copy of a directory and a restored backup all sign views a second time.
//! The blocks and votes that the others have seen show them: this node records every view durably before it signs
//! a proposal (AU-8) or sends a vote (the engine's journal), so one above that record was signed elsewhere, or the
//! record is an old one.
//!
//! ```text
//!   start ──► silent ──enough others answered──► their newest proposal and vote of this key, against the record
//!                                                 ├─ none above ───────────► signs
//!                                                 ├─ above ────────────────► refused, the node ends
//!                                                 ├─ above, but the operator stopped the other, or the
//!                                                 │  record is lost ───────► listens, then signs in the next term
//!                                                 └─ above, but the operators of all machines agreed on the
//!                                                    last final height
//!                                                     ├─ it stays that ───► signs, proposes in the next term
//!                                                     └─ it is passed ────► listens, then signs in the next term
//!   signs or waits ──a newer proposal or vote of this key is seen──────────► refused, the node ends
//! ```
//!
//! "Enough" is a quorum of the term's authorities with this node: without it nothing becomes final anyway.
//! An answer counts once its sender has searched the chain up to the highest block that a first answer proved: an
//! authority that lags has not seen what it would have to report. A signature in an answer needs no trust, because
//! it is this node's own.
//!
//! The running term is over before a node without a record signs: in the next one nothing is signed yet, and a
//! process that would sign there shows itself by its proposals meanwhile. Its votes show it only at a peer that is
//! connected to it: a peer holds one connection of a key. So the node listens for several blocks of each member. A
//! process of a seat without weight never proposes, and may stay unseen: the node of such a seat listens for votes
//! alone, for fewer blocks.
//!
//! Invariants
//! 1. A silent node sends no vote and signs no proposal. Certificates, blocks and reshares go on, so it follows
//!    and is dealt a share.
//! 2. A wait is durable. It ends with the record set above everything that can be signed in the terms waited
//!    for.
//! 3. The memory is bounded: one header, one vote and one clock for each authority of the genesis and the term.
//! 4. A vote is noted before it leaves, so a healthy node never meets its own vote as another's.
//! 5. The last vote of a node that signs nothing is kept beside the secrets: what consensus writes to the journal of
//!    votes meanwhile is not this node's.

pub(crate) mod actor;
mod state;
#[cfg(test)]
mod tests;
pub(crate) mod votes;

pub(crate) use state::SigningRight;
pub use state::{Refusal, Word};

use crate::{
    engine::PublicKey,
    epoch::{
        Weights,
        secrets::{Secrets, SignedAt},
    },
    genesis::Genesis,
};
use commonware_utils::{
    ordered::Set,
    sync::{Mutex, MutexGuard},
};
use posync_client::watch;
use posync_protocol::block::Header;
use state::{Answered, State};
use std::{fmt, sync::Arc, time::SystemTime};

/// The node's right to sign; clones share it.
#[derive(Clone)]
pub struct OwnKey {
    state: Arc<Mutex<State>>,
    right: watch::Sender<SigningRight>,
}

impl fmt::Debug for OwnKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnKey").finish_non_exhaustive()
    }
}

impl OwnKey {
    /// Starts silent. `word` is the operator's; `weights` are those of the terms, as they become known.
    pub(crate) fn new(
        genesis: &Genesis,
        key: &PublicKey,
        secrets: Secrets,
        word: Word,
        weights: Weights,
    ) -> Self {
        let state = State::new(genesis, key, secrets, word, weights);
        Self { state: Arc::new(Mutex::new(state)), right: watch::Sender::new(SigningRight::Silent) }
    }

    /// Takes the applied height at the start, and the newest view in the journals of votes. Called before consensus
    /// runs.
    pub(crate) fn begin(&self, applied: u64, voted: Option<SignedAt>) {
        self.state().begin(applied, voted);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Changes the state, and publishes the new right to sign before another change can.
    fn change(&self, change: impl FnOnce(&mut State) -> Option<SigningRight>) {
        let mut state = self.state();
        if let Some(right) = change(&mut state) {
            right.log();
            self.right.send_replace(right);
        }
    }

    fn signs(&self) -> bool {
        matches!(*self.right.subscribe().borrow(), SigningRight::Signs)
    }

    /// Waits until the node may sign proposals.
    pub(crate) async fn may_sign(&self) {
        let mut right = self.right.subscribe();
        // The sender lives in self.
        let _ = right.wait_for(|right| matches!(right, SigningRight::Signs)).await;
    }

    /// Waits until the node must end.
    pub(crate) async fn refused(&self) -> Refusal {
        let mut right = self.right.subscribe();
        loop {
            if let SigningRight::Refused(refusal) = &*right.borrow_and_update() {
                return refusal.clone();
            }
            if right.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Takes a header whose signature was verified.
    pub(crate) fn saw(&self, header: &Header) {
        self.change(|state| state.saw(header));
    }

    /// Takes the authorities of a term that begins.
    pub(crate) fn term(&self, term: u64, members: &Set<PublicKey>) {
        self.change(|state| state.term(term, members));
    }

    /// Seconds by which this node's clock is ahead of most others' clocks; `None` until enough have answered.
    pub fn ahead_of_peers(&self) -> Option<i64> {
        self.state().ahead()
    }

    fn answered(&self, peer: &PublicKey, answer: &Answered, now: SystemTime) {
        self.change(|state| state.answered(peer, answer, actor::millis(now)));
    }
}
