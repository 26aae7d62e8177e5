//! What each seat was seen to sign, and which two of it cannot both be honest (AU-11). Nothing here
//! waits.
//!
//! ```text
//!  header of (term, view)  ── first ──► kept ── the final chain passes the view without it ──► told
//!                          ── again, same bytes ──► nothing
//!                          ── other bytes ──► evidence ──► told, and held until the ledger has it
//!  commitment of an epoch  ── the same ──
//! ```
//!
//! A leader that shows block A to some and B to others is seen by nobody who is shown one of them. If
//! one becomes final, who holds the other has both. If none does, the view is passed over, and
//! everybody tells the others the header that it holds: then all have both.
//!
//! Invariants
//! 1. Evidence is of two valid signatures of one seat, for one place, over different bytes: what the
//!    ledger calls evidence (AU-4). An honest seat signs once (AU-8), so it is never accused.
//! 2. A seat has at most [`HEADERS_MAX`] headers here, none more than [`AHEAD_MAX`] views ahead of
//!    what is final, and gives way with its lowest place: it cannot push out what it signed near the
//!    tip by signing more.
//! 3. For a seat and an epoch there is one evidence: the ledger takes no second.
//! 4. What others told is not told again, so a message causes at most one message.

use posync_protocol::{
    Account, Body, Bounded, Hash, Operation,
    block::Header,
    limits::{EVIDENCE_EPOCHS_MAX, Parameters},
    operation::{AuditCommit, Commitments, Evidence, Proposals},
    tagged,
};
use std::collections::{BTreeMap, VecDeque};

/// Headers kept of a seat.
pub const HEADERS_MAX: usize = 512;
/// Views above the newest final one, and views of the next term, of which headers are kept.
pub const AHEAD_MAX: u64 = 128;
/// Terms of which headers are kept: the running one and those before it.
pub const TERMS_KEPT: u64 = 3;
/// Sightings that wait to be told; the oldest give way.
pub const OUTBOX_MAX: usize = 256;

tagged! {
    /// What an authority tells the others.
    Sighting {
        /// A header of a view that became final without it.
        1 => Header(Header),
        /// Two signatures that contradict each other.
        2 => Evidence(Evidence),
    }
}

/// Evidence that was found here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The two signatures.
    pub evidence: Evidence,
    /// The newest final height when it was found.
    pub height: u64,
    /// Whether nothing is left to do: the ledger has it, or can never have it.
    is_over: bool,
}

/// Names evidence: the epoch of the fault and who did it.
pub type Fault = (u64, Account);
/// Term and view.
type Place = (u64, u64);

#[derive(Clone, Debug)]
struct Held {
    header: Header,
    is_told: bool,
}

/// What one seat signed.
#[derive(Clone, Debug, Default)]
struct Signed {
    headers: BTreeMap<Place, Held>,
    commits: BTreeMap<u64, AuditCommit>,
}

/// The newest final block.
#[derive(Clone, Copy, Debug)]
struct Tip {
    place: Place,
    height: u64,
    epoch: u64,
}

impl Tip {
    /// Whether headers of a place are kept.
    fn watches(&self, (term, view): Place) -> bool {
        let (now, newest) = self.place;
        match term.checked_sub(now) {
            None => now - term < TERMS_KEPT,
            Some(0) => view <= newest.saturating_add(AHEAD_MAX),
            Some(ahead) => ahead == 1 && view <= AHEAD_MAX,
        }
    }
}

/// All that is remembered.
#[derive(Clone, Debug)]
pub struct State {
    chain: Hash,
    parameters: Parameters,
    seats: BTreeMap<Account, Signed>,
    tip: Tip,
    found: BTreeMap<Fault, Found>,
    outbox: VecDeque<Sighting>,
}

impl State {
    /// Remembers nothing yet; signatures of others than `seats` are of no interest.
    pub fn new(chain: Hash, parameters: Parameters, seats: impl IntoIterator<Item = Account>) -> Self {
        let seats = seats.into_iter().map(|seat| (seat, Signed::default())).collect();
        let (found, outbox) = Default::default();
        let tip = Tip { place: (0, 0), height: 0, epoch: 0 };
        Self { chain, parameters, seats, tip, found, outbox }
    }

    /// Goes on at a height that is final already; a term's views are at least as many as its blocks.
    pub fn begin(&mut self, height: u64) {
        let term = self.parameters.term_blocks();
        let place = (height / term, height % term);
        self.tip = Tip { place, height, epoch: self.parameters.epoch(height) };
    }

    /// Takes a header that was seen in whatever way; returns new evidence.
    pub fn header(&mut self, header: &Header) -> Option<Found> {
        self.see(header, false)
    }

    /// Takes what another authority told.
    pub fn hear(&mut self, sighting: &Sighting) -> Option<Found> {
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

    /// Takes a final block: its header, and what was committed to in it. Whatever headers the chain
    /// passed over are told from now on.
    pub fn block(&mut self, header: &Header, operations: &[Operation]) -> Vec<Found> {
        let (place, height) = ((header.term, header.view), header.height);
        let tip = Tip { place, height, epoch: self.parameters.epoch(height) };
        if self.tip.place < place {
            self.tip = tip;
        }
        // Everybody gets a final header anyway.
        let mut found: Vec<Found> = self.see(header, true).into_iter().collect();
        for operation in operations {
            if let Body::AuditCommit(commit) = &operation.body {
                found.extend(self.commitment(&operation.signer, commit));
            }
        }
        self.pass(place);
        found
    }

    /// Takes a commitment; returns new evidence.
    pub fn commitment(&mut self, seat: &Account, commit: &AuditCommit) -> Option<Found> {
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

    /// Whether there is something to tell the others.
    pub fn has_news(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// What to tell the others, once.
    pub fn take_outbox(&mut self) -> Vec<Sighting> {
        self.outbox.drain(..).collect()
    }

    /// Evidence that the ledger may not have yet.
    pub fn open(&self) -> Vec<(Fault, Found)> {
        let open = self.found.iter().filter(|(_, found)| !found.is_over);
        open.map(|(fault, found)| (*fault, found.clone())).collect()
    }

    /// Nothing is left to do about a fault.
    pub fn close(&mut self, fault: &Fault) {
        if let Some(found) = self.found.get_mut(fault) {
            found.is_over = true;
        }
    }

    /// Who was found to have signed twice, ever since the memory reaches.
    pub fn accused(&self) -> Vec<Account> {
        self.found.keys().map(|(_, seat)| *seat).collect()
    }

    fn see(&mut self, header: &Header, is_told: bool) -> Option<Found> {
        let place = (header.term, header.view);
        if header.chain != self.chain || !self.tip.watches(place) {
            return None;
        }
        let signed = self.seats.get_mut(&header.leader)?;
        let Some(held) = signed.headers.get_mut(&place) else {
            if header.check().verify() {
                signed.headers.insert(place, Held { header: header.clone(), is_told });
                if signed.headers.len() > HEADERS_MAX {
                    signed.headers.pop_first();
                }
            }
            return None;
        };
        if held.header.signed_bytes() == header.signed_bytes() {
            held.is_told |= is_told;
            return None;
        }
        let headers = Bounded::new(vec![held.header.clone(), header.clone()])?;
        let evidence = Evidence::Proposals(Proposals { headers });
        let fault = (evidence.epoch(&self.parameters), header.leader);
        if self.found.contains_key(&fault) || !header.check().verify() {
            return None;
        }
        held.is_told = true;
        self.find(evidence)
    }

    fn find(&mut self, evidence: Evidence) -> Option<Found> {
        let fault = (evidence.epoch(&self.parameters), evidence.offender());
        let found = Found { evidence: evidence.clone(), height: self.tip.height, is_over: false };
        self.found.insert(fault, found.clone());
        self.tell(Sighting::Evidence(evidence));
        Some(found)
    }

    fn tell(&mut self, sighting: Sighting) {
        if self.outbox.len() == OUTBOX_MAX {
            self.outbox.pop_front();
        }
        self.outbox.push_back(sighting);
    }

    /// The final chain has reached `place`: what is held below it and was not final is told, what is
    /// too old is forgotten.
    fn pass(&mut self, place: Place) {
        let (tip, epoch) = (self.tip, self.tip.epoch);
        let mut passed = Vec::new();
        for signed in self.seats.values_mut() {
            signed.headers.retain(|place, _| tip.watches(*place));
            signed.commits.retain(|of, _| of.abs_diff(epoch) <= 1);
            for held in signed.headers.range_mut(..place).map(|(_, held)| held).filter(|held| !held.is_told) {
                held.is_told = true;
                passed.push(Sighting::Header(held.header.clone()));
            }
        }
        passed.into_iter().for_each(|sighting| self.tell(sighting));
        self.found.retain(|(of, _), _| of.saturating_add(EVIDENCE_EPOCHS_MAX) >= epoch);
    }
}
