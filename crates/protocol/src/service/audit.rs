//! Commit, then reveal: the way of a report from an auditor to the record of its provider.

use crate::{
    Account, Bounded, Broken, Code, Halt, Key,
    bodies::{AuditCommit, AuditReveal, Report},
    event::Event,
    limits::AUDIT_READ_BYTES,
    record::{
        Agreement, Commitment, Finding, ProviderAt, Reports, Reputation, Seat, ServiceRound, System, Usage,
    },
    working::{BlockContext, Touched, Working},
};

/// Returns true if the block lies in the first round of its epoch.
fn is_first_round(working: &Working<'_>) -> bool {
    let parameters = &working.context.parameters;
    working.context.height % parameters.epoch_blocks() < parameters.round_blocks
}

/// Names the record that the first block of an epoch with a seed writes. The passes begin after the first
/// round, so a later seed would draw no provider.
pub(crate) fn touches_round(context: &BlockContext, touched: &mut Touched) {
    let parameters = &context.parameters;
    if context.height % parameters.epoch_blocks() < parameters.round_blocks {
        touched.writable.push(ServiceRound::of(context.epoch()));
    }
}

/// Draws the epoch's service audit with the first seed of the epoch, on the parent's state (SQ-1).
pub(crate) fn open_round(working: &mut Working<'_>) -> Result<(), Broken> {
    let Some(seed) = working.context.seed.filter(|_| is_first_round(working)) else { return Ok(()) };
    let epoch = working.context.epoch();
    if round(working, epoch)?.is_some() {
        return Ok(());
    }
    let System { providers, seats, .. } = working.system;
    working.put(ServiceRound::of(epoch), &ServiceRound { epoch, seed, providers, seats })
}

/// The round of an epoch; `None` if it was not drawn or its record was overwritten.
pub(super) fn round(working: &mut Working<'_>, epoch: u64) -> Result<Option<ServiceRound>, Broken> {
    let found: Option<ServiceRound> = working.get(ServiceRound::of(epoch))?;
    Ok(found.filter(|round| round.epoch == epoch))
}

/// The seat of an auditor; refused if it was jailed.
fn seat(working: &mut Working<'_>, signer: &Account) -> Result<Seat, Halt> {
    let seat: Seat = working.need(Seat::key(signer), Code::AuditNotSeat)?;
    if seat.jailed.is_some() { Err(Code::AuditNotSeat.into()) } else { Ok(seat) }
}

/// The records of reports that a leaving provider may still have: those about the epoch before.
pub(crate) fn touches_forget<'a>(
    context: &BlockContext,
    provider: &'a Account,
) -> impl Iterator<Item = Key> + 'a {
    context.epoch().checked_sub(1).into_iter().flat_map(|epoch| Reports::parts(provider, epoch))
}

/// Removes the reports on a provider that leaves before they are judged.
pub(crate) fn forget(working: &mut Working<'_>, provider: &Account) -> Result<(), Broken> {
    for key in touches_forget(working.context, provider) {
        working.delete(key)?;
    }
    Ok(())
}

/// Names the records of a commitment.
pub(crate) fn touches_commit(signer: &Account, body: &AuditCommit, touched: &mut Touched) {
    touched.readable.extend([Seat::key(signer), ServiceRound::of(body.epoch)]);
    touched.writable.push(Commitment::of(signer, body.epoch));
}

/// Stores the digest of an auditor's reports, once, within the epoch that they are about (SQ-3).
///
/// # Errors
/// `AuditNotSeat`, `AuditTime`, `AuditUndrawn`, `AuditCommitted`.
pub(crate) fn commit(working: &mut Working<'_>, signer: &Account, body: &AuditCommit) -> Result<(), Halt> {
    seat(working, signer)?;
    let AuditCommit { epoch, digest, .. } = *body;
    if working.context.epoch() != epoch {
        return Err(Code::AuditTime.into());
    }
    if round(working, epoch)?.is_none() {
        return Err(Code::AuditUndrawn.into());
    }
    let key = Commitment::of(signer, epoch);
    let before: Option<Commitment> = working.get(key)?;
    if before.is_some_and(|before| before.epoch == epoch) {
        return Err(Code::AuditCommitted.into());
    }
    Ok(working.put(key, &Commitment { epoch, digest })?)
}

/// Names the records of a reveal.
pub(crate) fn touches_reveal(signer: &Account, body: &AuditReveal, touched: &mut Touched) {
    let epoch = body.epoch;
    touched.readable.extend([Seat::key(signer), ServiceRound::of(epoch), Commitment::of(signer, epoch)]);
    for report in body.reports.iter() {
        let Report { provider, index, slot, auditor, .. } = report;
        touched.readable.extend([
            ProviderAt::key(*index),
            Reputation::key(provider),
            Agreement::key(provider, *slot),
        ]);
        touched.writable.extend([Reports::of(provider, epoch, *auditor), Usage::key(provider, *slot)]);
    }
}

/// Accepts the reports of a batch that was committed to, each judged on its own. A report that does not count
/// becomes an event, and may be revealed again within the round (SQ-4).
///
/// # Errors
/// `AuditNotSeat`, `AuditTime`, `AuditUndrawn`, `AuditUncommitted`, `AuditAltered`; the lowest code of
/// the reports (`AuditNotAssigned`, `AuditReported`, `AuditAgreement`, `AuditUnbacked`) if none counts.
pub(crate) fn reveal(working: &mut Working<'_>, signer: &Account, body: &AuditReveal) -> Result<(), Halt> {
    let seat = seat(working, signer)?;
    let epoch = body.epoch;
    if working.context.epoch().checked_sub(1) != Some(epoch) || !is_first_round(working) {
        return Err(Code::AuditTime.into());
    }
    let round = round(working, epoch)?.ok_or(Code::AuditUndrawn)?;
    let committed: Option<Commitment> = working.get(Commitment::of(signer, epoch))?;
    let committed = committed.filter(|committed| committed.epoch == epoch).ok_or(Code::AuditUncommitted)?;
    if committed.digest != body.digest(signer) {
        return Err(Code::AuditAltered.into());
    }
    let (mut counted, mut lowest) = (0, None);
    for report in body.reports.iter() {
        let code = match working.atomically(|w| take(w, &round, &seat, report)) {
            Ok(()) => Code::Done,
            Err(Halt::Refused(code)) => code,
            Err(Halt::Broken(broken)) => return Err(broken.into()),
        };
        match code {
            Code::Done => counted += 1,
            code => lowest = Some(lowest.map_or(code, |low: Code| low.min(code))),
        }
        let Report { provider, asked, answered, correct, latency, throughput, .. } = *report;
        let auditor = *signer;
        working.events.push(Event::Reported {
            epoch,
            provider,
            auditor,
            asked,
            answered,
            correct,
            latency,
            throughput,
            code,
        });
    }
    match lowest {
        Some(code) if counted == 0 => Err(code.into()),
        _ => Ok(()),
    }
}

/// Stores one report. It must come from a drawn auditor about a drawn provider, be the first of its epoch,
/// and be backed by egress that its own key paid for.
fn take(working: &mut Working<'_>, round: &ServiceRound, seat: &Seat, report: &Report) -> Result<(), Halt> {
    check_assigned(working, round, seat, report)?;
    let key = Reports::of(&report.provider, round.epoch, report.auditor);
    let found: Option<Reports> = working.get(key)?;
    let mut findings = found
        .filter(|found| found.epoch == round.epoch)
        .map_or_else(Default::default, |found| found.findings.into_inner());
    let place = match findings.binary_search_by_key(&report.auditor, |finding| finding.auditor) {
        Ok(_) => return Err(Code::AuditReported.into()),
        Err(place) => place,
    };
    back(working, report)?;
    findings.insert(place, report.finding());
    let findings = Bounded::new(findings).ok_or(Code::AuditReported)?;
    Ok(working.put(key, &Reports { epoch: round.epoch, findings })?)
}

/// Checks that the round draws this seat to audit this provider, and that the provider registered before the
/// epoch and still has its index (SQ-2).
fn check_assigned(
    working: &mut Working<'_>,
    round: &ServiceRound,
    seat: &Seat,
    report: &Report,
) -> Result<(), Halt> {
    let stratum = u32::from(report.stratum);
    let drawn = round.provider(stratum) == Some(report.index)
        && round.seat(stratum, report.auditor) == Some(seat.index);
    let at: Option<ProviderAt> = working.get(ProviderAt::key(report.index))?;
    let reputation: Option<Reputation> = working.get(Reputation::key(&report.provider))?;
    let stands = at.and_then(|at| at.account) == Some(report.provider)
        && reputation.is_some_and(|reputation| reputation.registered < round.epoch);
    if drawn && stands { Ok(()) } else { Err(Code::AuditNotAssigned.into()) }
}

/// Uses up redeemed egress of the agreement whose key signed: one audit read for each correct read. Wrong
/// bytes are not paid for, so they need no backing (SQ-5).
fn back(working: &mut Working<'_>, report: &Report) -> Result<(), Halt> {
    let Report { provider, slot, opened, session_key, .. } = report;
    let agreement: Agreement = working.need(Agreement::key(provider, *slot), Code::AuditAgreement)?;
    if (agreement.opened, agreement.session_key) != (*opened, *session_key) {
        return Err(Code::AuditAgreement.into());
    }
    let key = Usage::key(provider, *slot);
    let mut usage: Usage = working.kept(key)?;
    usage.audited = report.backed_by(&usage).ok_or(Code::AuditUnbacked)?;
    Ok(working.put(key, &usage)?)
}

impl Report {
    /// Bytes of redeemed egress that back reports under its agreement once this one counts, too; `None` if
    /// too little was redeemed for its correct reads (SQ-5).
    pub fn backed_by(&self, usage: &Usage) -> Option<u64> {
        let needed = u64::from(self.correct) * AUDIT_READ_BYTES;
        usage.audited.checked_add(needed).filter(|audited| *audited <= usage.redeemed.egress)
    }

    const fn finding(&self) -> Finding {
        let Self { auditor, asked, answered, correct, latency, throughput, .. } = *self;
        Finding { auditor, asked, answered, correct, latency, throughput }
    }
}
