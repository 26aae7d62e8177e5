//! A network fault in a whole network: eight of ten providers are cut off for three rounds. The
//! round in which they become silent is found faulty. Draws of them by fee in that round do not
//! change their figures, and they are not paid for the time. The others are paid as usual (NF-1 to
//! NF-4).

use posync_protocol::{
    Account, Amount, Record,
    ledger::{AgreementChange, Event},
    limits::{HISTORY, Parameters, READS},
    record::{Audit, RoundInfo},
};
use posync_sim::{
    plan::{Plan, Process, Sample, Step},
    world::{Report, account, member_key, run},
};
use std::collections::BTreeSet;

const FILES: [Sample; 4] = [
    Sample { name: "one", length: 40_000 },
    Sample { name: "two", length: 50_000 },
    Sample { name: "three", length: 60_000 },
    Sample { name: "four", length: 70_000 },
];
/// Providers that are cut off. With this many, some are drawn by fee before they are in turn, for any seed.
const CUT: std::ops::Range<u8> = 0..8;
/// Ten providers can be drawn a few times a round each, so fewer challenges than in a large network
/// decide about a round.
const PARAMETERS: Parameters =
    Parameters { draw_every_blocks: 1, draws: 2, fault_draws_min: 2, ..Parameters::LOCAL };
/// The first block of the round in which they become silent.
const SILENT: u64 = 40 * PARAMETERS.round_blocks;
const BACK: u64 = SILENT + 3 * PARAMETERS.round_blocks;
const END: u64 = BACK + 4 * PARAMETERS.round_blocks;

type Events<'a> = &'a [(u64, Event)];

fn ready(events: Events<'_>) -> bool {
    let opened = |event: &Event| matches!(event, Event::Agreement { change: AgreementChange::Opened, .. });
    events.iter().filter(|(_, event)| opened(event)).count() >= 10
}

/// Providers that proved all four reads of a challenge.
fn proved(events: Events<'_>) -> BTreeSet<Account> {
    let provider = |event: &Event| match event {
        Event::Audited { provider, passed: 4, reads: 4, .. } => Some(*provider),
        _ => None,
    };
    events.iter().filter_map(|(_, event)| provider(event)).collect()
}

fn cut_off() -> BTreeSet<Account> {
    CUT.map(|index| account(&member_key(Process::Provider(index)))).collect()
}

fn plan(seed: u64) -> Plan {
    let mut steps = vec![Step::Until(ready, 200)];
    steps.extend(FILES.map(Step::Put));
    steps.push(Step::Until(|events| proved(events).len() == 10, SILENT));
    steps.push(Step::Reach(SILENT - 1));
    steps.extend(CUT.map(|index| Step::Isolate(Process::Provider(index))));
    steps.push(Step::Reach(BACK));
    steps.extend(CUT.map(|index| Step::Rejoin(Process::Provider(index))));
    steps.push(Step::Reach(END));
    Plan { parameters: PARAMETERS, ..Plan::whole(seed, steps) }
}

/// Sum of a provider's storage payments in these blocks.
fn paid(report: &Report, provider: &Account, blocks: std::ops::Range<u64>) -> Amount {
    let pays =
        report.events.iter().filter(|(height, _)| blocks.contains(height)).filter_map(
            |(_, event)| match event {
                Event::Settled { provider: who, agreement: None, pay, .. } if who == provider => Some(*pay),
                _ => None,
            },
        );
    pays.fold(Amount::ZERO, |sum, pay| sum.checked_add(pay).expect("below all money"))
}

/// Number of late answers of a provider that were excused, and that were not.
fn late(report: &Report, provider: &Account) -> (usize, usize) {
    let of = |is: bool| {
        let late = |event: &Event| {
            matches!(event, Event::Audited { provider: who, on_time: false, excused, .. }
                if who == provider && *excused == is)
        };
        report.events.iter().filter(|(_, event)| late(event)).count()
    };
    (of(true), of(false))
}

/// The round, its challenges by fee, and the number of them that were answered on time.
fn counted(report: &Report, round: u64) -> (u64, u32, u32) {
    let key = RoundInfo::key(round % PARAMETERS.round_ring);
    let info = RoundInfo::from_slot(&report.state[&key]).expect("a record");
    (info.round, info.drawn, info.on_time)
}

#[test]
fn most_of_a_network_that_is_cut_off_is_not_held_against_those_in_it() {
    let report = run(plan(21)).expect("runs");
    let (cut, silent) = (cut_off(), PARAMETERS.round(SILENT));
    let faulty: Vec<_> = report
        .events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::RoundFaulty { round, drawn, on_time } => Some((*round, *drawn, *on_time)),
            _ => None,
        })
        .collect();
    let rounds: Vec<_> = (silent - 4..silent + 6).map(|round| counted(&report, round)).collect();
    // The round in which the cut begins may have draws whose answers it keeps away.
    assert!((1..=3).contains(&faulty.len()), "{faulty:?} {rounds:?}");
    for (round, drawn, on_time) in &faulty {
        assert!((silent - 1..=silent + 1).contains(round), "{faulty:?} {rounds:?}");
        assert!(*drawn >= PARAMETERS.fault_draws_min && (drawn - on_time) * 5 > *drawn);
    }
    let mut excused = 0;
    for provider in proved(&report.events) {
        let audit = Audit::from_slot(&report.state[&Audit::key(&provider)]).expect("a record");
        let challenges = u64::from((audit.drawn / READS as u32).min(HISTORY));
        let missed = challenges - u64::from(audit.on_time.count_ones());
        let (by_fault, by_itself) = late(&report, &provider);
        assert_eq!(missed, by_itself as u64, "A leaves out what is excused, and nothing else");
        if cut.contains(&provider) {
            excused += by_fault;
            assert_eq!(paid(&report, &provider, SILENT + 3..BACK), Amount::ZERO, "nothing while away");
        } else {
            assert_eq!((by_fault, by_itself), (0, 0), "it was there");
            assert!(paid(&report, &provider, SILENT..BACK) > Amount::ZERO, "paid as always");
        }
        assert!(paid(&report, &provider, BACK..END) > Amount::ZERO, "everybody is paid again");
    }
    assert!(excused > 0, "some were drawn by fee in that round");
}
