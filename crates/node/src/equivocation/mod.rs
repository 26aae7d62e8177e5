//! Detects seats that sign contradictory data, and submits the evidence to the ledger (AU-4 to AU-6).
//!
//! ```text
//!  blocks of leaders ── [`Overheard`] ──┐                       ┌──► channel 9: what the chain passed
//!  blocks that are verified, final ─────┼──► state: memory ─────┤    over, and evidence
//!  channel 9: others' reports ──────────┤                       └──► bring: whose turn? ──► mempool
//!  commitments that the mempool sees ───┘
//! ```
//!
//! [`state`] and [`turn`] decide and never wait; [`actor`] and [`bring`] move bytes. The memory is
//! lost with the process. As evidence is sent to every authority when it is found, and each of them
//! submits it in its turn, it is lost only if all of them stop at once.
//!
//! `docs/threats.md` lists the faults that are found and those that can go unseen.

pub(crate) mod actor;
pub(crate) mod rotation;
pub(crate) mod state;
pub(crate) mod submit;
#[cfg(test)]
mod tests;

pub(crate) use actor::Overheard;

use crate::{engine::Digest, genesis::Genesis};
use commonware_codec::{Copying, Encode as _, Read as _};
use commonware_utils::sync::{Mutex, MutexGuard};
use posync_client::watch;
use posync_protocol::{
    Account, Operation,
    block::{Header, sha256},
    operation::{AuditCommit, Evidence},
};
use state::{Contradiction, Fault, Sighting, State};
use std::{fmt, sync::Arc};

/// A handle on the record of signatures; clones share it.
#[derive(Clone)]
pub(crate) struct EquivocationWatcher {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<()>,
}

impl fmt::Debug for EquivocationWatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EquivocationWatcher").finish_non_exhaustive()
    }
}

impl EquivocationWatcher {
    /// Watches the seats of a network.
    pub(crate) fn new(genesis: &Genesis) -> Self {
        let seats = genesis.authorities.iter().map(|authority| Account::of(&authority.key));
        let state = State::new(genesis.chain(), genesis.parameters, seats);
        Self { state: Arc::new(Mutex::new(state)), changed: watch::Sender::new(()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Resumes at a height that is final already.
    pub(crate) fn begin(&self, height: u64) {
        self.state().begin(height);
    }

    /// Takes the header of a block that will be verified.
    pub(crate) fn header(&self, header: &Header) {
        let found = self.state().header(header);
        self.settle(found);
    }

    /// Takes the bytes of an incoming block, which begin with its header.
    pub(crate) fn overhear(&self, bytes: &[u8]) {
        if let Ok(header) = Header::read_cfg(&mut Copying(bytes), &()) {
            self.header(&header);
        }
    }

    /// Takes a final block.
    pub(crate) fn block(&self, header: &Header, operations: &[Operation]) {
        let found = self.state().block(header, operations);
        self.settle(found);
    }

    /// Takes the commitment of a seat.
    pub(crate) fn commitment(&self, seat: &Account, commit: &AuditCommit) {
        let found = self.state().commitment(seat, commit);
        self.settle(found);
    }

    /// The accounts that were found to have signed twice, as far as the memory reaches.
    pub(crate) fn accused(&self) -> Vec<Account> {
        self.state().accused()
    }

    fn hear(&self, sightings: &[Sighting]) {
        for sighting in sightings {
            let found = self.state().hear(sighting);
            self.settle(found);
        }
    }

    fn open(&self) -> Vec<(Fault, Contradiction)> {
        self.state().open()
    }

    fn close(&self, fault: &Fault) {
        self.state().close(fault);
    }

    /// Logs new evidence, and wakes the task that sends sightings.
    fn settle(&self, found: impl IntoIterator<Item = Contradiction>) {
        found.into_iter().for_each(|found| log(&found.evidence));
        if self.state().has_news() {
            self.changed.send_replace(());
        }
    }
}

/// Logs a fault: the offender, the place, and the name of the evidence on the ledger.
fn log(evidence: &Evidence) {
    let (seat, name) = (evidence.offender(), Digest::from(sha256(&evidence.encode())));
    match evidence {
        Evidence::Proposals(pair) => {
            let digests: Vec<String> =
                pair.headers.iter().map(|header| Digest::from(header.digest()).to_string()).collect();
            let place = pair.headers.first().map(|header| (header.term, header.view));
            let (term, view) = place.unwrap_or_default();
            tracing::warn!(%seat, term, view, ?digests, evidence = %name, "an authority signed two blocks of one view");
        }
        Evidence::Commitments(pair) => {
            let epoch = pair.commits.first().map(|commit| commit.epoch);
            tracing::warn!(%seat, epoch, evidence = %name, "an authority signed two commitments of one epoch");
        }
    }
}
