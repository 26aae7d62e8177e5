//! The signatures seen of each seat, and the pairs of them that contradict each other (AU-11). No call here
//! waits.
//!
//! ```text
//!  header of (term, view)  ── first ──► kept ── the final chain passes the view without it ──► sent
//!                          ── again, same bytes ──► nothing
//!                          ── other bytes ──► evidence ──► sent, and held until the ledger has it
//!  commitment of an epoch  ── the same ──
//! ```
//!
//! If a leader shows block A to some and B to others, no one who sees only one of them notices. If one
//! becomes final, a holder of the other has both. If neither does, the view is passed over, and every
//! authority sends the others the header that it holds: then all have both.
//!
//! Invariants
//! 1. Evidence is two valid signatures of one seat, for one place, over different bytes: the ledger's
//!    definition (AU-4). An honest seat signs once (AU-8), so it is never accused.
//! 2. A seat has at most [`HEADERS_MAX`] headers here, none more than [`AHEAD_MAX`] views ahead of the
//!    final chain, and its lowest place is dropped first: by signing more, a seat cannot push out the
//!    headers that it signed near the tip.
//! 3. For a seat and an epoch there is one piece of evidence: the ledger accepts no second.
//! 4. Sightings received from others are not sent on, so a message causes at most one message.

use posync_protocol::{
    Account, Body, Bounded, Hash, Operation,
    block::Header,
    limits::{EVIDENCE_EPOCHS_MAX, Parameters},
    operation::{AuditCommit, Commitments, Evidence, Proposals},
    tagged,
};
use std::collections::{BTreeMap, VecDeque};

/// Headers kept for each seat.
pub(crate) const HEADERS_MAX: usize = 512;
/// Views above the newest final one, and views of the next term, whose headers are kept.
pub(crate) const AHEAD_MAX: u64 = 128;
/// Terms whose headers are kept: the running one and those before it.
pub(crate) const TERMS_KEPT: u64 = 3;
/// Sightings that wait to be sent; the oldest are dropped first.
pub(crate) const OUTBOX_MAX: usize = 256;

tagged! {
    /// A message of one authority to the others.
    Sighting {
        /// A header of a view that became final without it.
        1 => Header(Header),
        /// Two signatures that contradict each other.
        2 => Evidence(Evidence),
    }
}

/// Evidence that was found here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contradiction {
    /// Two signatures of one seat that contradict each other.
    pub evidence: Evidence,
    /// The newest final height when it was found.
    pub height: u64,
    /// True once the ledger has it, or can never accept it.
    is_over: bool,
}

/// Identifies evidence: the epoch of the fault and the offender.
pub(crate) type Fault = (u64, Account);
/// Term and view of a header.
type TermView = (u64, u64);

#[derive(Clone, Debug)]
struct Held {
    header: Header,
    is_sent: bool,
}

/// The signatures seen of one seat.
#[derive(Clone, Debug, Default)]
struct Signed {
    headers: BTreeMap<TermView, Held>,
    commits: BTreeMap<u64, AuditCommit>,
}

/// The newest final block.
#[derive(Clone, Copy, Debug)]
struct Tip {
    place: TermView,
    height: u64,
    epoch: u64,
}

impl Tip {
    /// True if headers of a place are kept.
    fn watches(&self, (term, view): TermView) -> bool {
        let (now, newest) = self.place;
        match term.checked_sub(now) {
            None => now - term < TERMS_KEPT,
            Some(0) => view <= newest.saturating_add(AHEAD_MAX),
            Some(ahead) => ahead == 1 && view <= AHEAD_MAX,
        }
    }
}

/// The signatures of all seats, the evidence found, and the sightings to send.
#[derive(Clone, Debug)]
pub(crate) struct State {
    chain: Hash,
    parameters: Parameters,
    seats: BTreeMap<Account, Signed>,
    tip: Tip,
    found: BTreeMap<Fault, Contradiction>,
    outbox: VecDeque<Sighting>,
}

impl State {
    /// Starts empty; signatures of accounts other than `seats` are ignored.
    pub(crate) fn new(chain: Hash, parameters: Parameters, seats: impl IntoIterator<Item = Account>) -> Self {
        let seats = seats.into_iter().map(|seat| (seat, Signed::default())).collect();
        let (found, outbox) = Default::default();
        let tip = Tip { place: (0, 0), height: 0, epoch: 0 };
        Self { chain, parameters, seats, tip, found, outbox }
    }

    /// Resumes at a final height. A term has at least as many views as blocks, so this view is a lower bound.
    pub(crate) fn begin(&mut self, height: u64) {
        let term = self.parameters.term_blocks();
        let place = (height / term, height % term);
        self.tip = Tip { place, height, epoch: self.parameters.epoch(height) };
    }

    /// Takes a header from any source; returns new evidence.
    pub(crate) fn header(&mut self, header: &Header) -> Option<Contradiction> {
        self.see(header, false)
    }

    /// Takes a sighting of another authority; returns new evidence.
    pub(crate) fn hear(&mut self, sighting: &Sighting) -> Option<Contradiction> {
        match sighting {
            Sighting::Header(header) => self.see(header, true),
            Sighting::Evidence(Evidence::Proposals(pair)) => {
                pair.headers.iter().filter_map(|header| self.see(header, true)).last()
            }
            Sighting::Evidence(Evidence::Commitments(pair)) => {
                pair.commits.iter().filter_map(|commit| self.commitment(&pair.seat, commit)).last()
            }
        }
    }

    /// Takes a final block: its header, and the commitments in it. Headers that the chain passed over are
    /// queued for the other authorities.
    pub(crate) fn block(&mut self, header: &Header, operations: &[Operation]) -> Vec<Contradiction> {
        let (place, height) = ((header.term, header.view), header.height);
        let tip = Tip { place, height, epoch: self.parameters.epoch(height) };
        if self.tip.place < place {
            self.tip = tip;
        }
        // Every authority gets a final header anyway.
        let mut found: Vec<Contradiction> = self.see(header, true).into_iter().collect();
        for operation in operations {
            if let Body::AuditCommit(commit) = &operation.body {
                found.extend(self.commitment(&operation.signer, commit));
            }
        }
        self.pass(place);
        found
    }

    /// Takes a commitment; returns new evidence.
    pub(crate) fn commitment(&mut self, seat: &Account, commit: &AuditCommit) -> Option<Contradiction> {
        if commit.epoch.abs_diff(self.tip.epoch) > 1 || self.found.contains_key(&(commit.epoch, *seat)) {
            return None;
        }
        let signed = self.seats.get_mut(seat)?;
        let held = signed.commits.get(&commit.epoch).copied();
        if held.is_some_and(|held| held.digest == commit.digest) || !commit.check(&self.chain, *seat).verify()
        {
            return None;
        }
        let Some(held) = held else {
            signed.commits.insert(commit.epoch, *commit);
            return None;
        };
        let commits = Bounded::new(vec![held, *commit])?;
        self.find(Evidence::Commitments(Commitments { seat: *seat, commits }))
    }

    /// True if there are sightings to send.
    pub(crate) fn has_news(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Takes the sightings to send; each is returned once.
    pub(crate) fn take_outbox(&mut self) -> Vec<Sighting> {
        self.outbox.drain(..).collect()
    }

    /// Evidence that the ledger may not have yet.
    pub(crate) fn open(&self) -> Vec<(Fault, Contradiction)> {
        let open = self.found.iter().filter(|(_, found)| !found.is_over);
        open.map(|(fault, found)| (*fault, found.clone())).collect()
    }

    /// Marks a fault as done.
    pub(crate) fn close(&mut self, fault: &Fault) {
        if let Some(found) = self.found.get_mut(fault) {
            found.is_over = true;
        }
    }

    /// The seats found to have signed twice, since the memory began.
    pub(crate) fn accused(&self) -> Vec<Account> {
        self.found.keys().map(|(_, seat)| *seat).collect()
    }

    fn see(&mut self, header: &Header, is_sent: bool) -> Option<Contradiction> {
        let place = (header.term, header.view);
        if header.chain != self.chain || !self.tip.watches(place) {
            return None;
        }
        let signed = self.seats.get_mut(&header.leader)?;
        let Some(held) = signed.headers.get_mut(&place) else {
            if header.check().verify() {
                signed.headers.insert(place, Held { header: header.clone(), is_sent });
                if signed.headers.len() > HEADERS_MAX {
                    signed.headers.pop_first();
                }
            }
            return None;
        };
        if held.header.signed_bytes() == header.signed_bytes() {
            held.is_sent |= is_sent;
            return None;
        }
        let headers = Bounded::new(vec![held.header.clone(), header.clone()])?;
        let evidence = Evidence::Proposals(Proposals { headers });
        let fault = (evidence.epoch(&self.parameters), header.leader);
        if self.found.contains_key(&fault) || !header.check().verify() {
            return None;
        }
        held.is_sent = true;
        self.find(evidence)
    }

    fn find(&mut self, evidence: Evidence) -> Option<Contradiction> {
        let fault = (evidence.epoch(&self.parameters), evidence.offender());
        let found = Contradiction { evidence: evidence.clone(), height: self.tip.height, is_over: false };
        self.found.insert(fault, found.clone());
        self.queue(Sighting::Evidence(evidence));
        Some(found)
    }

    fn queue(&mut self, sighting: Sighting) {
        if self.outbox.len() == OUTBOX_MAX {
            self.outbox.pop_front();
        }
        self.outbox.push_back(sighting);
    }

    /// The final chain has reached `place`: kept headers below it that are not final are queued for the
    /// others, and headers that are too old are dropped.
    fn pass(&mut self, place: TermView) {
        let (tip, epoch) = (self.tip, self.tip.epoch);
        let mut passed = Vec::new();
        for signed in self.seats.values_mut() {
            signed.headers.retain(|place, _| tip.watches(*place));
            signed.commits.retain(|of, _| of.abs_diff(epoch) <= 1);
            for held in signed.headers.range_mut(..place).map(|(_, held)| held).filter(|held| !held.is_sent) {
                held.is_sent = true;
                passed.push(Sighting::Header(held.header.clone()));
            }
        }
        passed.into_iter().for_each(|sighting| self.queue(sighting));
        self.found.retain(|(of, _), _| of.saturating_add(EVIDENCE_EPOCHS_MAX) >= epoch);
    }
}
