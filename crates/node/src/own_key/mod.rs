//! Keeps a node silent until it knows that it alone signs with its key.
//!
//! Two machines with one key, an old copy of a directory and a restored backup all sign views a second time.
//! The blocks that the others have seen show them: this node records every view durably before it signs a proposal
//! (AU-8), so a proposal above that record was signed elsewhere, or the record is an old one.
//!
//! ```text
//!   start ──► silent ──enough others answered──► their newest proposal of this key, against the record
//!                                                 ├─ none above ───────────► signs
//!                                                 ├─ above ────────────────► refused, the node ends
//!                                                 └─ above, but the operator stopped the other, or the
//!                                                    record is lost ───────► waits a whole term, then signs
//!   signs or waits ──a newer proposal of this key is seen──────────────────► refused, the node ends
//! ```
//!
//! "Enough" is a quorum of the term's authorities with this node: without it nothing becomes final anyway.
//! An answer needs no trust, because the header in it carries this node's own signature.
//!
//! Invariants
//! 1. A silent node sends no vote and signs no proposal. Certificates, blocks and reshares go on, so it follows
//!    and is dealt a share.
//! 2. A wait is durable. It ends with the record set above everything that can be signed in the terms waited
//!    for.
//! 3. The memory is bounded: one header and one clock for each authority of the genesis.

pub mod actor;
mod state;
#[cfg(test)]
mod tests;

pub use state::{Refusal, Standing};

use crate::{engine::PublicKey, epoch::secrets::Secrets, genesis::Genesis};
use commonware_p2p::{LimitedSender, Recipients, Sender};
use commonware_utils::{
    ordered::Set,
    sync::{Mutex, MutexGuard},
};
use posync_client::watch;
use posync_protocol::block::Header;
use state::State;
use std::{fmt, sync::Arc, time::SystemTime};

/// The node's right to sign; clones share it.
#[derive(Clone)]
pub struct OwnKey {
    state: Arc<Mutex<State>>,
    standing: watch::Sender<Standing>,
}

impl fmt::Debug for OwnKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnKey").finish_non_exhaustive()
    }
}

impl OwnKey {
    /// Starts silent. `other_stopped` is the operator's word that no other process uses the key.
    pub(crate) fn new(genesis: &Genesis, key: PublicKey, secrets: Secrets, other_stopped: bool) -> Self {
        let authorities = genesis.authorities.iter().map(|authority| authority.key.clone()).collect();
        let state = State::new(genesis.chain(), authorities, key, secrets, other_stopped);
        Self { state: Arc::new(Mutex::new(state)), standing: watch::Sender::new(Standing::Silent) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Changes the state, and publishes the new standing before another change can.
    fn change(&self, change: impl FnOnce(&mut State) -> Option<Standing>) {
        let mut state = self.state();
        if let Some(standing) = change(&mut state) {
            standing.log();
            self.standing.send_replace(standing);
        }
    }

    /// The node's standing, and its changes.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    fn signs(&self) -> bool {
        matches!(*self.standing.subscribe().borrow(), Standing::Signs)
    }

    /// Waits until the node may sign proposals.
    pub(crate) async fn may_sign(&self) {
        let mut standing = self.standing.subscribe();
        // The sender lives in self.
        let _ = standing.wait_for(|standing| matches!(standing, Standing::Signs)).await;
    }

    /// Waits until the node must end.
    pub(crate) async fn refused(&self) -> Refusal {
        let mut standing = self.standing.subscribe();
        loop {
            if let Standing::Refused(refusal) = &*standing.borrow_and_update() {
                return refusal.clone();
            }
            if standing.changed().await.is_err() {
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

    fn answered(&self, peer: &PublicKey, header: Option<&Header>, theirs_ms: u64, now: SystemTime) {
        self.change(|state| state.answered(peer, header, theirs_ms, actor::millis(now)));
    }
}

/// A sender of the engine. One of votes sends nothing while the node is silent.
#[derive(Clone, Debug)]
pub(crate) struct Muted<S> {
    inner: S,
    own_key: Option<OwnKey>,
}

impl<S> Muted<S> {
    /// Wraps a sender of votes, controlled by `own_key`.
    pub(crate) const fn votes(inner: S, own_key: OwnKey) -> Self {
        Self { inner, own_key: Some(own_key) }
    }

    /// Wraps a sender of what proves itself, which always sends.
    pub(crate) const fn proofs(inner: S) -> Self {
        Self { inner, own_key: None }
    }
}

impl<S: Sender<PublicKey = PublicKey>> LimitedSender for Muted<S> {
    type PublicKey = PublicKey;
    type Checked<'a> = S::Checked<'a>;

    fn check(&mut self, recipients: Recipients<PublicKey>) -> Result<S::Checked<'_>, SystemTime> {
        let is_silent = self.own_key.as_ref().is_some_and(|own_key| !own_key.signs());
        self.inner.check(if is_silent { Recipients::Some(Vec::new()) } else { recipients })
    }
}
