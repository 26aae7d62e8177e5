//! Evidence: two signatures of one seat that contradict each other. Any party that holds both can submit
//! them; they need no trust in that party.

use super::{CLOSED_AFTER, take};
use crate::{
    Account, Broken, Code, Halt, Hash, PerClass,
    bodies::Evidence,
    economics::slash,
    event::{Event, ReputationReason, ReputationStep},
    header::{Header, sha256},
    limits::{EVIDENCE_EPOCHS_MAX, Parameters},
    record::{Offences, Reputation, Seat},
    working::{Touched, Working},
};
use commonware_codec::Encode;

impl Evidence {
    /// Account of the seat that signed both.
    pub fn offender(&self) -> Account {
        match self {
            Self::Proposals(pair) => pair.headers.first().map(|header| header.leader).unwrap_or_default(),
            Self::Commitments(pair) => pair.seat,
        }
    }

    /// The epoch of the fault. For two proposals it follows from the term, which consensus fixes, and not
    /// from the heights that they claim.
    pub fn epoch(&self, parameters: &Parameters) -> u64 {
        match self {
            Self::Proposals(pair) => {
                let terms = parameters.epoch_rounds.checked_div(parameters.term_rounds).unwrap_or(1).max(1);
                pair.headers.first().map_or(0, |header| header.term) / terms
            }
            Self::Commitments(pair) => pair.commits.first().map_or(0, |commit| commit.epoch),
        }
    }
}

/// Checks that the two signatures contradict each other (AU-4): same chain, seat and place, different bytes.
/// Two different signatures over the same bytes are no fault.
///
/// # Errors
/// `NotEvidence`.
pub(crate) fn check(evidence: &Evidence, chain: &Hash) -> Result<(), Code> {
    let contradict = match evidence {
        Evidence::Proposals(pair) => match &pair.headers[..] {
            [first, second] => proposals_contradict(first, second, chain),
            _ => false,
        },
        Evidence::Commitments(pair) => match &pair.commits[..] {
            [first, second] => first.epoch == second.epoch && first.digest != second.digest,
            _ => false,
        },
    };
    if contradict { Ok(()) } else { Err(Code::NotEvidence) }
}

fn proposals_contradict(first: &Header, second: &Header, chain: &Hash) -> bool {
    let place = |header: &Header| (header.chain, header.leader, header.term, header.view);
    first.chain == *chain && place(first) == place(second) && first.signed_bytes() != second.signed_bytes()
}

/// Names the records of evidence, without the signer's account.
pub(crate) fn touches(evidence: &Evidence, parameters: &Parameters, touched: &mut Touched) {
    let offender = evidence.offender();
    let offences = Offences::at(evidence.epoch(parameters));
    touched.writable.extend([Seat::key(&offender), Reputation::key(&offender), offences]);
}

/// Slashes and jails the seat that signed both, once for each epoch with a fault of its own (AU-5).
///
/// # Errors
/// `EvidenceStale`, `SeatUnknown`, `EvidenceKnown`.
pub(crate) fn apply(working: &mut Working<'_>, reporter: &Account, evidence: &Evidence) -> Result<(), Halt> {
    let (now, epoch) = (working.context.epoch(), evidence.epoch(&working.context.parameters));
    let age = now.checked_sub(epoch).filter(|age| *age <= EVIDENCE_EPOCHS_MAX).ok_or(Code::EvidenceStale)?;
    let offender = evidence.offender();
    let (key, offences_key) = (Seat::key(&offender), Offences::at(epoch));
    let mut seat: Seat = working.need(key, Code::SeatUnknown)?;
    let mut offences = Offences::of(epoch, working.get(offences_key)?);
    if !offences.add(seat.index) {
        return Err(Code::EvidenceKnown.into());
    }
    if age < CLOSED_AFTER {
        seat.exposed[Seat::place(epoch)] = seat.bond;
    }
    let parts = slash::EQUIVOCATION_MIN;
    let amount = slash::of(seat.bond.grains(), parts).and_then(crate::Amount::new);
    let amount = amount.ok_or(Broken::bound("a slash"))?;
    let hash = sha256(&evidence.encode());
    seat.jailed.get_or_insert(working.context.height);
    let burned = take(working, &mut seat, amount, Some(reporter))?;
    working.put(key, &seat)?;
    working.put(offences_key, &offences)?;
    working.events.push(Event::Slashed {
        seat: offender,
        epoch,
        parts,
        amount,
        burned,
        reporter: Some(*reporter),
        evidence: hash,
        until: u64::MAX,
    });
    Ok(jail_provider(working, offender, hash)?)
}

/// Jails the provider of the same account forever, if there is one, and sets its scores to zero: it takes no
/// new agreements.
fn jail_provider(working: &mut Working<'_>, provider: Account, evidence: Hash) -> Result<(), Broken> {
    let key = Reputation::key(&provider);
    let Some(mut reputation) = working.get::<Reputation>(key)? else { return Ok(()) };
    if reputation.jailed_until == u64::MAX {
        return Ok(());
    }
    (reputation.jailed_until, reputation.scores) = (u64::MAX, PerClass::default());
    working.put(key, &reputation)?;
    working.events.push(Event::Reputation {
        provider,
        epoch: working.context.epoch(),
        step: ReputationStep::Jailed,
        reason: ReputationReason::Equivocation,
        evidence,
        until: u64::MAX,
    });
    Ok(())
}
