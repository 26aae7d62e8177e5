//! Service audits: the draws, the conditions for a report to count, and the resulting figures.

use crate::{
    books::row,
    crowd::populate,
    script::Stage,
    world::{World, account, key},
};
use posync_protocol::{
    Account, Amount, Body, Class, Code, Hash, Key, PerClass, Record, Slot,
    amount::ONE,
    economics::score,
    ledger::Event,
    limits::AUDIT_READ_BYTES,
    operation::{AuditCommit, AuditReveal, Commitments, Evidence, Report, digest_of, reveals},
    record::{
        CLOSING_RING, Finding, Provider, Ratio, Reports, Reputation, Seat, SeatAt, ServiceRound, Settlement,
        UNMEASURED, Usage,
    },
    service::{self, PAID_WITHIN, Verdict},
};
use proptest::prelude::*;
use std::collections::BTreeMap;

const SALT: Hash = [9; 32];

/// The figures that a seat reports of one provider.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said {
    asked: u16,
    answered: u16,
    correct: u16,
    latency: u8,
}

pub(crate) const GOOD: Said = Said { asked: 4, answered: 4, correct: 4, latency: 0 };

pub(crate) fn seat_name(seat: usize) -> String {
    format!("seat {seat}")
}

/// Name of the key under which a seat reads, at every provider.
fn session_name(seat: usize) -> String {
    format!("session {seat}")
}

/// Gives `count` authorities a seat, and creates the money for their bonds.
fn seat(world: &mut World, count: usize) {
    let bond = world.parameters.seat_bond;
    let mut system = world.system();
    for index in 0..count {
        let account = account(&seat_name(index));
        world.state.insert(Seat::key(&account), Seat::new(index as u32, bond).to_slot());
        world.state.insert(SeatAt::key(index as u32), SeatAt { account }.to_slot());
    }
    system.seats = count as u32;
    system.seat_bonds = Amount::new(bond.grains() * count as u128).expect("few seats");
    world.supply = world.supply.checked_add(system.seat_bonds).expect("below the bound");
    world.state.insert(posync_protocol::record::System::key(), system.to_slot());
}

/// Epoch 1 with its audit drawn. It has providers `p` and `q`, `count` seats, an agreement of each
/// seat with each provider (in the slot of the seat's number), and `reads` redeemed under each
/// agreement.
pub(crate) fn audited(count: usize, reads: u64) -> Stage {
    let names: Vec<String> = (0..count).map(seat_name).collect();
    let mut funded: Vec<&str> = vec!["a", "b", "p", "q"];
    funded.extend(names.iter().map(String::as_str));
    let mut world = World::new(&funded);
    seat(&mut world, count);
    let mut stage = Stage { world, opened: BTreeMap::new() };
    stage.play("p register\n q register\n epoch 1");
    stage.world.draws = true;
    stage.world.block(&[]).expect("an empty block is valid");
    stage.world.draws = false;
    for provider in ["p", "q"] {
        for seat in 0..count {
            open(&mut stage, provider, seat);
        }
    }
    for provider in ["p", "q"] {
        for seat in 0..count {
            redeem(&mut stage, provider, seat, reads);
        }
    }
    assert_eq!(stage.world.epoch(), 1, "all of it fits one epoch");
    stage
}

fn open(stage: &mut Stage, provider: &str, seat: usize) {
    let mut line = stage.sign(&format!("a open {provider} slot={seat} quota=1"));
    let Body::Open(body) = &mut line.body else { panic!("it opens") };
    body.session_key = account(&session_name(seat));
    let signed = stage.world.sign("a", line.body);
    assert_eq!(stage.world.submit(&signed), Ok(Code::Done));
    stage.opened.insert((provider.into(), seat as u32), stage.world.height);
}

fn redeem(stage: &mut Stage, provider: &str, seat: usize, reads: u64) {
    let id = stage.id(&format!("{provider}/{seat}"));
    let redemption = stage.redemption_of(id, &session_name(seat), reads * AUDIT_READ_BYTES, 0);
    let vouchers = posync_protocol::Bounded::new(vec![redemption]).expect("one");
    let body = Body::Redeem(posync_protocol::operation::Redeem { vouchers });
    let signed = stage.world.sign(provider, body);
    assert_eq!(stage.world.submit(&signed), Ok(Code::Done));
}

fn round(world: &World) -> ServiceRound {
    world.get(ServiceRound::of(1)).expect("epoch 1 had a seed")
}

/// A signed report of `seat` about `provider`.
pub(crate) fn report(stage: &Stage, seat: usize, provider: &str, said: Said) -> Report {
    let (world, round) = (&stage.world, round(&stage.world));
    let index = world.get::<Provider>(Provider::key(&account(provider))).map_or(0, |provider| provider.index);
    let stratum = round.stratum(index).expect("two providers are both drawn");
    let auditor = round.auditor(stratum, seat as u32).expect("few seats all audit");
    let id = stage.id(&format!("{provider}/{seat}"));
    let report = Report {
        stratum: stratum as u16,
        auditor,
        provider: account(provider),
        index,
        slot: id.slot,
        opened: id.opened,
        session_key: Account::default(),
        asked: said.asked,
        answered: said.answered,
        correct: said.correct,
        latency: said.latency,
        throughput: 3,
        signature: [0; 64],
    };
    report.signed(&key(&session_name(seat)), &world.chain, 1, &account(&seat_name(seat)))
}

pub(crate) fn batch(reports: Vec<Report>) -> AuditReveal {
    reveals(1, SALT, reports).expect("one of a stratum").remove(0)
}

/// `Done`, or the code for which it may not stand in a block: a refused reserved operation never does.
fn submit(stage: &mut Stage, seat: usize, body: Body) -> Code {
    let signed = stage.world.sign(&seat_name(seat), body);
    assert!(signed.signatures(&stage.world.chain).iter().all(|check| check.verify()));
    match stage.world.submit(&signed) {
        Ok(Code::Done) => Code::Done,
        Ok(code) => panic!("it is refused and stands in a block: {code:?}"),
        Err(code) => code,
    }
}

fn commit(stage: &mut Stage, seat: usize, reveal: &AuditReveal) -> Code {
    let digest = digest_of(core::slice::from_ref(reveal), &account(&seat_name(seat))).expect("one batch");
    let commit = AuditCommit::signed(&key(&seat_name(seat)), &stage.world.chain, 1, digest);
    submit(stage, seat, Body::AuditCommit(commit))
}

fn reveal(stage: &mut Stage, seat: usize, reveal: &AuditReveal) -> Code {
    submit(stage, seat, Body::AuditReveal(reveal.clone()))
}

/// Commits in epoch 1, reveals in the first round of epoch 2, with many operations in a block, and
/// runs until the epoch is measured. Returns all events.
fn judge(stage: &mut Stage, batches: &[(usize, AuditReveal)]) -> Vec<Event> {
    let commits: Vec<_> = batches
        .iter()
        .map(|(seat, reveal)| {
            let name = seat_name(*seat);
            let digest = reveal.digest(&account(&name));
            let commit = AuditCommit::signed(&key(&name), &stage.world.chain, 1, digest);
            stage.world.sign(&name, Body::AuditCommit(commit))
        })
        .collect();
    let outcome = stage.world.block(&commits).expect("commitments are valid");
    assert!(outcome.receipts.iter().all(|(_, code)| *code == Code::Done));
    stage.play("epoch 2");
    let reveals: Vec<_> = batches
        .iter()
        .map(|(seat, reveal)| stage.world.sign(&seat_name(*seat), Body::AuditReveal(reveal.clone())))
        .collect();
    let mut events = stage.world.block(&reveals).expect("reveals are valid").events;
    for _ in 0..stage.world.parameters.round_blocks {
        events.extend(stage.world.block(&[]).expect("an empty block is valid").events);
    }
    events
}

/// An epoch in which three seats agree about `p`, one does not, and too few seats report about `q`.
pub(crate) fn judged() -> World {
    let mut stage = audited(4, 4);
    let away = Said { asked: 4, answered: 2, correct: 2, latency: 0 };
    let slow = Said { latency: 4, ..GOOD };
    let said = [GOOD, slow, slow, away].into_iter().enumerate();
    let batches: Vec<_> = said
        .map(|(seat, said)| {
            let of_q = (seat < 2).then(|| report(&stage, seat, "q", GOOD));
            (seat, batch([report(&stage, seat, "p", said)].into_iter().chain(of_q).collect()))
        })
        .collect();
    judge(&mut stage, &batches);
    stage.play("epoch 4");
    stage.world
}

fn reputation(world: &World, name: &str) -> Reputation {
    world.get(Reputation::key(&account(name))).expect("it is registered")
}

fn credits(world: &World, seat: usize) -> u32 {
    let seat: Seat = world.get(Seat::key(&account(&seat_name(seat)))).expect("it has a seat");
    seat.credits[Seat::place(1)]
}

#[test]
fn reports_of_all_auditors_become_figures_quality_and_credits() {
    let mut stage = audited(4, 4);
    let slow = Said { latency: 4, ..GOOD };
    let away = Said { asked: 4, answered: 2, correct: 2, latency: 0 };
    let batches: Vec<(usize, AuditReveal)> = [GOOD, slow, slow, away]
        .into_iter()
        .enumerate()
        .map(|(seat, said)| {
            (seat, batch(vec![report(&stage, seat, "p", said), report(&stage, seat, "q", GOOD)]))
        })
        .collect();
    let events = judge(&mut stage, &batches);
    let measured = |name: &str| {
        events.iter().find_map(|event| match event {
            Event::ServiceMeasured { provider, assigned, reported, answered, correct, latency, .. }
                if *provider == account(name) =>
            {
                Some((*assigned, *reported, *answered, *correct, *latency))
            }
            _ => None,
        })
    };
    let middle = service::latency_score(4);
    assert_eq!(measured("p"), Some((4, 4, ONE, ONE, middle)), "the lower median of each figure");
    assert_eq!(measured("q"), Some((4, 4, ONE, ONE, ONE)));
    let (world, p) = (&stage.world, account("p"));
    let own = row(world, &p, 1).expect("it is measured");
    assert_eq!((own.assigned, own.reported), (4, 4));
    assert_eq!((own.available.ppb(), own.latency.ppb()), (ONE, middle));
    assert_eq!(
        own.correct.map(Ratio::measured),
        PerClass::new(None, Some(ONE), None),
        "it held nothing, but what it sent was right"
    );
    assert_eq!(own.quality.ppb(), score::quality(ONE, ONE, middle));
    assert!(own.quality.ppb() > ONE / 2, "a measured latency lifts the quality above one half");
    assert_eq!((reputation(world, "p").answered, reputation(world, "p").latency), (ONE, middle));
    assert_eq!([0, 1, 2, 3].map(|seat| credits(world, seat)), [2, 2, 2, 1], "half answered is too far off");
    assert_eq!(
        world.state.values().filter(|slot| slot[0] == Reports::KIND).count(),
        0,
        "read once, then gone"
    );
    let counted = events.iter().filter(|event| matches!(event, Event::Reported { code: Code::Done, .. }));
    assert_eq!(counted.count(), 8);
    stage.play("epoch 4");
    let score = score::update(score::SCORE_START, Some(own.quality.ppb()), false);
    assert_eq!(reputation(&stage.world, "p").scores[Class::Egress], score, "the score of egress begins");
}

#[test]
fn below_the_quorum_the_last_figures_stand_and_nothing_is_held_against_anyone() {
    let mut stage = audited(4, 4);
    let before = reputation(&stage.world, "p");
    let before = Reputation { answered: ONE / 4, latency: 7, low_available: 2, ..before };
    stage.world.state.insert(Reputation::key(&account("p")), before.to_slot());
    let batches: Vec<_> = (0..2).map(|seat| (seat, batch(vec![report(&stage, seat, "p", GOOD)]))).collect();
    let events = judge(&mut stage, &batches);
    assert!(events.iter().any(|event| matches!(event,
        Event::ServiceMeasured { provider, reported: 2, answered: UNMEASURED, .. } if *provider == account("p"))));
    let own = row(&stage.world, &account("p"), 1).expect("it is measured");
    assert_eq!((own.available.ppb(), own.latency.ppb(), own.quality), (ONE / 4, 7, Ratio::UNMEASURED));
    assert_eq!([0, 1].map(|seat| credits(&stage.world, seat)), [0, 0]);
    stage.play("epoch 4");
    assert_eq!(reputation(&stage.world, "p").suspended, 0, "an old figure suspends nobody");
}

/// A change of a good batch of seat 0, and the code that refuses it.
type Wrong = (&'static str, fn(&mut Stage, &mut Report), Code);

/// Reports that are committed and do not count.
const WRONG_REPORTS: &[Wrong] = &[
    ("an index that is not drawn", |_, report| report.index = 9, Code::AuditNotAssigned),
    ("another account", |_, report| report.provider = account("b"), Code::AuditNotAssigned),
    ("the other provider", |_, report| report.provider = account("q"), Code::AuditNotAssigned),
    ("the other stratum", |_, report| report.stratum ^= 1, Code::AuditNotAssigned),
    ("a stratum beyond those drawn", |_, report| report.stratum = 2, Code::AuditNotAssigned),
    ("another auditor's place", |_, report| report.auditor += 1, Code::AuditNotAssigned),
    ("an empty slot", |_, report| report.slot = 77, Code::AuditAgreement),
    ("the slot's agreement before", |_, report| report.opened -= 1, Code::AuditAgreement),
    (
        "the key of another seat",
        |_, report| report.session_key = account(&session_name(1)),
        Code::AuditAgreement,
    ),
    ("another seat's agreement", |_, report| report.slot = 1, Code::AuditAgreement),
    (
        "a read more than was redeemed",
        |_, report| (report.asked, report.answered, report.correct) = (5, 5, 5),
        Code::AuditUnbacked,
    ),
    (
        "redeemed bytes used before",
        |stage, report| {
            let key = Usage::key(&report.provider, report.slot);
            let usage: Usage = stage.world.get(key).expect("it is open");
            stage.world.state.insert(key, Usage { audited: 1, ..usage }.to_slot());
        },
        Code::AuditUnbacked,
    ),
];

#[test]
fn a_report_that_does_not_count_has_a_code_and_changes_nothing() {
    for (what, change, code) in WRONG_REPORTS {
        let mut stage = audited(4, 4);
        let mut wrong = report(&stage, 0, "p", GOOD);
        change(&mut stage, &mut wrong);
        let batch = batch(vec![wrong]);
        let name = seat_name(0);
        let digest = batch.digest(&account(&name));
        let commit = AuditCommit::signed(&key(&name), &stage.world.chain, 1, digest);
        assert_eq!(submit(&mut stage, 0, Body::AuditCommit(commit)), Code::Done, "{what}");
        stage.play("epoch 2");
        let signed = stage.world.sign(&name, Body::AuditReveal(batch));
        assert_eq!(stage.world.submit(&signed), Err(*code), "{what}");
        let reported = |event: &Event| matches!(event, Event::Reported { .. });
        assert!(!stage.world.events.iter().any(reported), "{what}: nothing of it stays");
        assert_eq!(stage.world.state.values().filter(|slot| slot[0] == Reports::KIND).count(), 0, "{what}");
    }
}

/// A reveal without any counting report is refused with the lowest of its codes, in any order.
#[test]
fn a_reveal_of_which_nothing_counts_is_refused_with_the_lowest_code() {
    for swapped in [false, true] {
        let mut stage = audited(4, 4);
        let mut wrong = ["p", "q"].map(|name| report(&stage, 0, name, GOOD));
        wrong[0].slot = 77;
        wrong[1].index = 9;
        if swapped {
            wrong.reverse();
        }
        let batch = batch(wrong.to_vec());
        assert_eq!(commit(&mut stage, 0, &batch), Code::Done);
        stage.play("epoch 2");
        let signed = stage.world.sign(&seat_name(0), Body::AuditReveal(batch));
        let lowest = Code::AuditNotAssigned.min(Code::AuditAgreement);
        assert_eq!(stage.world.submit(&signed), Err(lowest), "{swapped}");
    }
}

/// Codes that tests of this file assert besides the tables.
pub(crate) const ALSO: &[Code] = &[
    Code::AuditNotSeat,
    Code::AuditTime,
    Code::AuditUndrawn,
    Code::AuditCommitted,
    Code::AuditUncommitted,
    Code::AuditAltered,
    Code::AuditNotAssigned,
    Code::AuditReported,
    Code::AuditAgreement,
    Code::AuditUnbacked,
];

#[test]
fn a_commitment_is_made_once_by_a_seat_in_the_epoch() {
    let mut stage = audited(4, 4);
    let good = batch(vec![report(&stage, 0, "p", GOOD)]);
    let chain = stage.world.chain;
    let of = |epoch: u64| {
        Body::AuditCommit(AuditCommit::signed(&key(&seat_name(0)), &chain, epoch, good.digest(&account("x"))))
    };
    let stranger = stage.world.sign("a", of(1));
    assert_eq!(stage.world.submit(&stranger), Err(Code::AuditNotSeat));
    for epoch in [0, 2, u64::MAX] {
        assert_eq!(submit(&mut stage, 0, of(epoch)), Code::AuditTime);
    }
    assert_eq!(submit(&mut stage, 0, of(1)), Code::Done);
    assert_eq!(submit(&mut stage, 0, of(1)), Code::AuditCommitted, "the same one neither");
    stage.play("epoch 2");
    assert_eq!(submit(&mut stage, 0, of(2)), Code::AuditUndrawn, "no block of epoch 2 had a seed");
    let key = Seat::key(&account(&seat_name(1)));
    let own: Seat = stage.world.get(key).expect("it has a seat");
    stage.world.state.insert(key, Seat { jailed: Some(0), ..own }.to_slot());
    assert_eq!(commit(&mut stage, 1, &good), Code::AuditNotSeat, "a jailed seat audits nobody");
}

#[test]
fn two_commitments_of_an_epoch_are_evidence_and_cost_the_seat() {
    let mut stage = audited(4, 4);
    let evidence = |stage: &Stage, epochs: [u64; 2], digests: [u8; 2]| {
        let commits = [0, 1].map(|place| {
            let digest = [digests[place]; 32];
            AuditCommit::signed(&key(&seat_name(2)), &stage.world.chain, epochs[place], digest)
        });
        let commits = posync_protocol::Bounded::new(commits.to_vec()).expect("two");
        let pair = Commitments { seat: account(&seat_name(2)), commits };
        let signed = stage.world.sign("a", Body::Evidence(Evidence::Commitments(pair)));
        assert!(signed.signatures(&stage.world.chain).iter().all(|check| check.verify()));
        signed
    };
    for (epochs, digests) in [([1, 1], [3, 3]), ([0, 1], [3, 4])] {
        let signed = evidence(&stage, epochs, digests);
        assert_eq!(stage.world.submit(&signed), Err(Code::NotEvidence));
    }
    let early = evidence(&stage, [2, 2], [3, 4]);
    assert_eq!(stage.world.submit(&early), Err(Code::EvidenceStale));
    let good = evidence(&stage, [1, 1], [3, 4]);
    assert_eq!(stage.world.submit(&good), Ok(Code::Done));
    assert!(stage.world.events.iter().any(|event| matches!(event, Event::Slashed { epoch: 1, .. })));
    let seat: Seat = stage.world.get(Seat::key(&account(&seat_name(2)))).expect("it has a seat");
    assert_eq!(seat.jailed, Some(stage.world.height));
    let late = batch(vec![report(&stage, 2, "p", GOOD)]);
    assert_eq!(commit(&mut stage, 2, &late), Code::AuditNotSeat);
}

#[test]
fn a_reveal_is_of_what_was_committed_in_the_first_round_and_once() {
    let mut stage = audited(4, 4);
    let good = batch(vec![report(&stage, 0, "p", GOOD), report(&stage, 0, "q", GOOD)]);
    assert_eq!(commit(&mut stage, 0, &good), Code::Done);
    assert_eq!(reveal(&mut stage, 0, &good), Code::AuditTime, "not before the epoch is over");
    stage.play("epoch 2");
    let uncommitted = batch(vec![report(&stage, 1, "p", GOOD)]);
    assert_eq!(reveal(&mut stage, 1, &uncommitted), Code::AuditUncommitted);
    let altered = batch(vec![report(&stage, 0, "p", Said { answered: 3, correct: 3, ..GOOD })]);
    assert_eq!(reveal(&mut stage, 0, &altered), Code::AuditAltered);
    let salted = AuditReveal { salt: [8; 32], ..good.clone() };
    assert_eq!(reveal(&mut stage, 0, &salted), Code::AuditAltered, "the secret is part of it");
    let unheard = AuditReveal { epoch: 0, ..good.clone() };
    let unheard = stage.world.sign(&seat_name(0), Body::AuditReveal(unheard));
    assert_eq!(stage.world.submit(&unheard), Err(Code::AuditTime));
    assert_eq!(reveal(&mut stage, 0, &good), Code::Done);
    assert_eq!(reveal(&mut stage, 0, &good), Code::AuditReported);
    stage.play("blocks 1\n blocks 1");
    assert_eq!(reveal(&mut stage, 0, &good), Code::AuditTime, "the first round is over");
    let stranger = stage.world.sign("a", Body::AuditReveal(good));
    assert_eq!(stage.world.submit(&stranger), Err(Code::AuditNotSeat));
}

#[test]
fn what_was_not_redeemed_in_time_may_be_revealed_again_once_it_is() {
    let mut stage = audited(4, 4);
    let more = Said { asked: 8, answered: 8, correct: 8, latency: 0 };
    let good = batch(vec![report(&stage, 0, "p", more), report(&stage, 0, "q", GOOD)]);
    assert_eq!(commit(&mut stage, 0, &good), Code::Done);
    stage.play("epoch 2");
    assert_eq!(reveal(&mut stage, 0, &good), Code::Done, "one of the two counts");
    let refused = |event: &Event| matches!(event, Event::Reported { code: Code::AuditUnbacked, .. });
    assert!(stage.world.events.iter().any(refused), "the other is told");
    redeem(&mut stage, "p", 0, 8);
    assert_eq!(reveal(&mut stage, 0, &good), Code::Done);
    let usage: Usage = stage.world.get(Usage::key(&account("p"), 0)).expect("it is open");
    assert_eq!((usage.audited, usage.redeemed.egress), (8 * AUDIT_READ_BYTES, 8 * AUDIT_READ_BYTES));
}

/// A seat signs for reads that it never made, and leaves next to nothing to pay for them.
#[test]
fn a_report_is_backed_by_what_was_paid_alone() {
    let mut stage = audited(4, 4);
    for (reserve, code) in [(1, "VoucherReserveEmpty"), (1_000, "Done")] {
        stage.play("a close p/0 second=p");
        let line =
            format!("a open p quota=1 session={} reserve={reserve}", session_name(0).replace(' ', "_"));
        let mut opening = stage.sign(&line);
        let Body::Open(body) = &mut opening.body else { panic!("it opens") };
        body.session_key = account(&session_name(0));
        let signed = stage.world.sign("a", opening.body);
        assert_eq!(stage.world.submit(&signed), Ok(Code::Done));
        stage.opened.insert(("p".into(), 0), stage.world.height);
        let redemption = stage.redemption_of(stage.id("p/0"), &session_name(0), 4 * AUDIT_READ_BYTES, 0);
        let vouchers = posync_protocol::Bounded::new(vec![redemption]).expect("one");
        let body = Body::Redeem(posync_protocol::operation::Redeem { vouchers });
        let signed = stage.world.sign("p", body);
        let got = stage.world.submit(&signed).expect("it may stand in a block");
        assert_eq!(format!("{got:?}"), code, "{reserve} grains");
    }
    let usage = stage.world.get::<Usage>(Usage::key(&account("p"), 0));
    assert_eq!(usage.map(|usage| usage.redeemed.egress), Some(1_048), "of 256 KiB that were signed for");
    let lazy = batch(vec![report(&stage, 0, "p", GOOD)]);
    assert_eq!(commit(&mut stage, 0, &lazy), Code::Done);
    stage.play("epoch 2");
    assert_eq!(reveal(&mut stage, 0, &lazy), Code::AuditUnbacked);
}

#[test]
fn malformed_batches_stand_in_no_block() {
    let stage = audited(4, 4);
    let good = batch(vec![report(&stage, 0, "p", GOOD), report(&stage, 0, "q", GOOD)]);
    let with = |change: fn(&mut Report)| {
        let mut reports: Vec<Report> = good.reports.to_vec();
        change(&mut reports[0]);
        AuditReveal { reports: posync_protocol::Bounded::new(reports).expect("two"), ..good.clone() }
    };
    let wrong = [
        with(|report| report.asked = 0),
        with(|report| report.answered = 5),
        with(|report| (report.answered, report.correct) = (3, 4)),
        with(|report| report.latency = 10),
        with(|report| report.throughput = 7),
        with(|report| report.auditor = 61),
        with(|report| report.index = u32::MAX),
        with(|report| report.slot = u32::MAX),
        with(|report| report.stratum = 64),
        with(|report| report.stratum = 1),
        AuditReveal { batch: 1, ..good.clone() },
        AuditReveal { reports: Default::default(), ..good.clone() },
    ];
    for reveal in wrong {
        let mut stage = Stage { world: stage.world.clone(), opened: stage.opened.clone() };
        let signed = stage.world.sign(&seat_name(0), Body::AuditReveal(reveal));
        assert_eq!(stage.world.submit(&signed), Err(Code::BadShape));
    }
}

#[test]
fn a_provider_that_leaves_before_it_is_judged_takes_its_reports_along() {
    let mut stage = audited(4, 4);
    let good = batch(vec![report(&stage, 0, "p", GOOD)]);
    assert_eq!(commit(&mut stage, 0, &good), Code::Done);
    stage.play("epoch 2");
    assert_eq!(reveal(&mut stage, 0, &good), Code::Done);
    for seat in 0..4 {
        stage.play(&format!("p close p/{seat} second=a"));
    }
    let key = Provider::key(&account("p"));
    let provider: Provider = stage.world.get(key).expect("it is registered");
    stage.world.state.insert(key, Provider { leaves_at: 1, ..provider }.to_slot());
    // The reads were paid for long ago, and the bond can be returned.
    stage.world.state.remove(&Settlement::key(&account("p"), 1));
    stage.world.state.remove(&Settlement::key(&account("p"), 2));
    stage.world.parameters.unbonding_epochs = stage.world.parameters.exit_epochs;
    stage.play("p leave\n epoch 3");
    assert_eq!(stage.world.state.values().filter(|slot| slot[0] == Reports::KIND).count(), 0);
}

#[test]
fn a_provider_that_registered_in_the_epoch_is_not_audited_in_it() {
    let mut stage = audited(4, 4);
    let key = Reputation::key(&account("p"));
    let young = Reputation { registered: 1, ..reputation(&stage.world, "p") };
    let good = batch(vec![report(&stage, 0, "p", GOOD)]);
    stage.world.state.insert(key, young.to_slot());
    assert_eq!(commit(&mut stage, 0, &good), Code::Done);
    stage.play("epoch 2");
    assert_eq!(reveal(&mut stage, 0, &good), Code::AuditNotAssigned);
}

#[test]
fn only_the_first_seed_of_an_epoch_draws_and_only_in_its_first_round() {
    let mut world = World::new(&["a", "p"]);
    seat(&mut world, 4);
    let mut stage = Stage { world, opened: BTreeMap::new() };
    stage.play("p register\n epoch 1\n blocks 3");
    stage.world.draws = true;
    stage.play("blocks 1");
    let first: ServiceRound = stage.world.get(ServiceRound::of(1)).expect("drawn");
    assert_eq!((first.epoch, first.providers, first.seats), (1, 1, 4));
    stage.play("blocks 20");
    assert_eq!(stage.world.get(ServiceRound::of(1)), Some(first));
    stage.world.draws = false;
    stage.play("epoch 2\n blocks 8");
    stage.world.draws = true;
    stage.play("epoch 3");
    assert_eq!(stage.world.get::<ServiceRound>(ServiceRound::of(2)), None, "after the first round nobody is");
}

#[test]
fn a_commitment_of_many_batches_is_revealed_in_any_order() {
    let auditor = account("seat 0");
    let report = |stratum: u16| Report {
        stratum,
        auditor: 0,
        provider: account("p"),
        index: stratum.into(),
        slot: 0,
        opened: 1,
        session_key: Account::default(),
        asked: 1,
        answered: 1,
        correct: 1,
        latency: 0,
        throughput: 0,
        signature: [0; 64],
    };
    let all: Vec<Report> = (0..1024).step_by(3).filter(|s| *s < 64 || *s >= 128).map(report).collect();
    let batches = reveals(1, SALT, all.clone()).expect("one of a stratum");
    assert_eq!(batches.len(), 15, "the batch without reports is not revealed");
    let digest = digest_of(&batches, &auditor).expect("some");
    assert!(batches.iter().all(|batch| batch.digest(&auditor) == digest));
    assert_ne!(digest, batches[0].digest(&account("seat 1")), "nobody copies a digest");
    let other = reveals(1, [7; 32], all).expect("one of a stratum");
    assert_ne!(digest_of(&other, &auditor), Some(digest));
    assert_eq!(reveals(1, SALT, vec![report(4), report(4)]), None, "two of one stratum");
    assert_eq!(reveals(1, SALT, vec![report(1024)]), None, "beyond all strata");
    assert_eq!(reveals(1, SALT, vec![]), None);
}

#[test]
fn bands_are_published_constants() {
    let latencies =
        [(0, 0, ONE), (200, 0, ONE), (201, 1, 944_444_444), (700, 4, 722_222_222), (1_800, 8, 111_111_111)];
    for (milliseconds, band, score) in latencies {
        assert_eq!(service::latency_band(milliseconds), band);
        assert_eq!(service::latency_score(band), score, "band {band}");
    }
    assert_eq!((service::latency_band(1_801), service::latency_score(9)), (9, 0));
    assert_eq!(service::latency_score(u8::MAX), 0);
    let throughputs = [(0, 0), (65_535, 0), (65_536, 1), (1 << 20, 3), (64 << 20, 6), (u64::MAX, 6)];
    for (speed, band) in throughputs {
        assert_eq!(service::throughput_band(speed), band);
    }
    assert_eq!((service::share(1, 3), service::share(0, 0)), (333_333_333, 0));
}

proptest! {
    #[test]
    fn every_stratum_draws_one_and_membership_is_checked_without_a_search(
        seed in any::<Hash>(), providers in 0_u32..5_000, seats in 0_u32..=256,
    ) {
        let round = ServiceRound { epoch: 1, seed, providers, seats };
        prop_assert_eq!(round.drawn(), providers.min(4 * seats));
        prop_assert_eq!(round.auditors(), seats.min(61));
        let mut last = None;
        for stratum in 0..round.drawn() {
            let index = round.provider(stratum).expect("each stratum draws");
            prop_assert!(index < providers && last.is_none_or(|last| last < index), "ascending, so distinct");
            prop_assert_eq!(round.stratum(index), Some(stratum));
            last = Some(index);
        }
        prop_assert_eq!(round.provider(round.drawn()), None);
        let drawn = (0..providers).filter(|index| round.stratum(*index).is_some()).count();
        prop_assert_eq!(drawn, round.drawn() as usize, "who is not drawn is not found");
        if round.drawn() > 0 {
            let stratum = round.drawn() / 2;
            for auditor in 0..round.auditors() as u8 {
                let seat = round.seat(stratum, auditor).expect("each place draws");
                prop_assert_eq!(round.auditor(stratum, seat), Some(auditor));
            }
            let auditors = (0..seats).filter(|seat| round.auditor(stratum, *seat).is_some()).count();
            prop_assert_eq!(auditors, round.auditors() as usize);
        }
        prop_assert_eq!((round.stratum(providers), round.auditor(0, seats)), (None, None));
        prop_assert_eq!(round.seat(round.drawn(), 0), None);
    }

    #[test]
    fn a_seat_is_assigned_about_as_much_as_any_other(seed in any::<Hash>()) {
        let round = ServiceRound { epoch: 1, seed, providers: 100_000, seats: 256 };
        let counts = [0, 100, 255].map(|seat| round.assigned(seat).count());
        prop_assert!(counts.iter().all(|count| (150..350).contains(count)), "{counts:?} of 244 on average");
    }
}

/// Seven seats, at most two of which lie or are silent.
const JURY: usize = 7;

fn verdict_of(stage: &Stage, said: &[(usize, Said)]) -> (Verdict, Vec<u32>) {
    let mut stage = Stage { world: stage.world.clone(), opened: stage.opened.clone() };
    let batches: Vec<_> =
        said.iter().map(|(seat, said)| (*seat, batch(vec![report(&stage, *seat, "p", *said)]))).collect();
    let events = judge(&mut stage, &batches);
    let verdict = events.into_iter().find_map(|event| match event {
        Event::ServiceMeasured {
            provider,
            assigned,
            reported,
            answered,
            correct,
            latency,
            throughput,
            ..
        } if provider == account("p") => {
            let [answered, correct, latency, throughput] =
                [answered, correct, latency, throughput].map(|x| Some(x).filter(|x| *x != UNMEASURED));
            Some(Verdict { assigned, reported, answered, correct, latency, throughput })
        }
        _ => None,
    });
    let credits = (0..JURY).map(|seat| credits(&stage.world, seat)).collect();
    (verdict.expect("it is drawn"), credits)
}

fn said(most: u16) -> impl Strategy<Value = Said> {
    (1..=most, 0..=most, 0..=most, 0_u8..10).prop_map(|(asked, answered, correct, latency)| {
        let answered = answered.min(asked);
        Said { asked, answered, correct: correct.min(answered), latency }
    })
}

fn range(values: impl Iterator<Item = u64> + Clone) -> (u64, u64) {
    (values.clone().min().unwrap_or(0), values.max().unwrap_or(0))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Invariant 19 of docs/invariants.md, through commitments, reveals, vouchers and the close.
    #[test]
    fn fewer_than_a_third_cannot_move_a_figure_beyond_what_the_others_say(
        honest in prop::collection::vec(said(8), JURY - 2),
        liars in prop::collection::vec(said(8), 2),
        silent in 0_usize..=2,
        lying in 0_usize..=2,
    ) {
        thread_local!(static STAGE: Stage = audited(JURY, 8));
        let lying = lying.min(2 - silent);
        let reports: Vec<(usize, Said)> =
            honest.iter().chain(&liars[..lying]).copied().enumerate().collect();
        let (verdict, credits) = STAGE.with(|stage| verdict_of(stage, &reports));
        prop_assert_eq!((verdict.assigned, usize::from(verdict.reported)), (JURY as u8, reports.len()));
        let (low, high) = range(honest.iter().map(|said| service::share(said.answered, said.asked)));
        let answered = verdict.answered.expect("five of seven are a quorum");
        prop_assert!((low..=high).contains(&answered));
        let answering: Vec<&Said> = honest.iter().filter(|said| said.answered > 0).collect();
        if let (Some(correct), Some(latency), true) =
            (verdict.correct, verdict.latency, answering.len() == honest.len())
        {
            let (low, high) = range(answering.iter().map(|said| service::share(said.correct, said.answered)));
            prop_assert!((low..=high).contains(&correct));
            let (low, high) = range(answering.iter().map(|said| service::latency_score(said.latency)));
            prop_assert!((low..=high).contains(&latency));
        }
        for (seat, said) in &reports {
            let near = |value: u64, median: Option<u64>| median.is_some_and(|m| value.abs_diff(m) <= PAID_WITHIN);
            let paid = said.correct > 0
                && near(service::share(said.answered, said.asked), verdict.answered)
                && near(service::share(said.correct, said.answered), verdict.correct);
            prop_assert_eq!(credits[*seat], u32::from(paid), "one credit for a report near the medians");
        }
    }
}

proptest! {
    #[test]
    fn one_reporter_moves_a_figure_at_most_to_the_report_beside_it(
        mut reports in prop::collection::vec(said(50), 41..=61), other in said(50),
    ) {
        let finding = |(auditor, said): (usize, &Said)| {
            let Said { asked, answered, correct, latency } = *said;
            Finding { auditor: auditor as u8, asked, answered, correct, latency, throughput: 0 }
        };
        let verdict = |said: &[Said]| {
            Verdict::of(&said.iter().enumerate().map(finding).collect::<Vec<_>>(), 61)
        };
        let before = verdict(&reports).answered.expect("a quorum");
        let mut shares: Vec<u64> = reports.iter().map(|s| service::share(s.answered, s.asked)).collect();
        shares.sort_unstable();
        let at = shares.len().div_ceil(2) - 1;
        prop_assert_eq!(before, shares[at]);
        let mut backwards = reports.clone();
        backwards.reverse();
        prop_assert_eq!(verdict(&backwards).answered, Some(before), "no order changes anything");
        reports[0] = other;
        let after = verdict(&reports).answered.expect("a quorum");
        prop_assert!(after >= shares[at - 1] && after <= shares[at + 1]);
    }
}

/// Every block of a closing names a bounded number of records, for any audit.
#[test]
fn the_audit_of_a_full_slice_names_a_bounded_number_of_records() {
    let mut stage = Stage::new();
    populate(&mut stage.world, 1_000);
    seat(&mut stage.world, 256);
    let round = ServiceRound { epoch: 0, seed: [5; 32], providers: 1_000, seats: 256 };
    stage.world.state.insert(ServiceRound::of(0), round.to_slot());
    let p = stage.world.parameters;
    stage.world.height = p.epoch_blocks() + p.round_blocks - 1;
    let context = stage.world.context(stage.world.height + 1);
    let keys: Vec<Key> = posync_protocol::ledger::closing_set_keys(&context, &stage.world.system());
    assert_eq!(keys.len() as u64, p.closing_slice + 256 + 1);
    let records = stage.world.read(&context, &[], &[]).expect("a small block");
    assert!(records.len() < 64 * 14 + 2 * 256 + 64, "{}", records.len());
    let slots: Vec<Option<Slot>> = records.values().copied().collect();
    assert!(slots.iter().flatten().any(|slot| slot[0] == Seat::KIND));
    assert!(p.closing_slice * CLOSING_RING < 1_000, "one slice of many");
}
