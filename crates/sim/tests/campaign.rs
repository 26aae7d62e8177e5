//! The judge of drawn plans: the losses that it finds, and the contents of the plans.

use posync_protocol::ledger::{AgreementChange, Event};
use posync_sim::{
    drawn::{BLOCKS_MIN, Kind},
    plan::{Plan, Process, Sample, Step},
    world::{Failure, run},
};

const FILE: Sample = Sample { name: "a file", length: 40_000 };

fn ready(events: &[(u64, Event)]) -> bool {
    let opened = |event: &Event| matches!(event, Event::Agreement { change: AgreementChange::Opened, .. });
    events.iter().filter(|(_, event)| opened(event)).count() >= 10
}

#[test]
fn canary_an_acknowledged_file_that_is_gone_is_missed() {
    let steps = vec![Step::Until(ready, 200), Step::Put(FILE), Step::Remove(FILE), Step::Promises];
    match run(Plan::whole(31, steps)) {
        Err(Failure::Lost { name, .. }) => assert_eq!(name, FILE.name),
        other => panic!("the lost file was not missed: {other:?}"),
    }
}

#[test]
fn canary_a_payment_that_nobody_was_told_of_is_found() {
    let steps = vec![Step::Send, Step::SendUntold, Step::Promises];
    match run(Plan::whole(32, steps)) {
        Err(Failure::NotOnce(reason)) => assert!(reason.contains("1 payments"), "{reason}"),
        other => panic!("a payment too many was not found: {other:?}"),
    }
}

#[test]
fn equal_seeds_draw_equal_plans_and_other_seeds_others() {
    let steps = |seed| format!("{:?}", Plan::drawn(seed).steps);
    assert_eq!(steps(1), steps(1));
    assert_ne!(steps(1), steps(8));
}

#[test]
fn every_plan_reaches_its_blocks_ends_every_fault_and_asks_for_what_was_promised() {
    for seed in 0..1_000 {
        let steps = Plan::drawn(seed).steps;
        assert!(matches!(steps[..], [.., Step::Reach(BLOCKS_MIN), Step::Promises]), "seed {seed}");
        let count = |is: fn(&Step) -> bool| steps.iter().filter(|step| is(step)).count();
        assert_eq!(
            count(|step| matches!(step, Step::Pause(_) | Step::Isolate(_) | Step::Lag(_) | Step::Fill(_))),
            count(|step| {
                matches!(step, Step::Resume(_) | Step::Rejoin(_) | Step::CatchUp(_) | Step::Empty(_))
            }),
            "seed {seed}"
        );
        assert!(count(|step| matches!(step, Step::Put(_) | Step::Try(_))) >= 2, "seed {seed}");
    }
}

#[test]
fn any_seven_seeds_in_a_row_meet_every_kind() {
    // Some steps occur only if the plan has an episode of this kind.
    let first = |seed| {
        let kind = Kind::ALL[(seed % 7) as usize];
        let behind = matches!(Plan::drawn(seed).steps[1], Step::Lag(_) | Step::Crash(Process::Authority(_)));
        assert_eq!(behind, matches!(kind, Kind::Lagging | Kind::AnyOrder), "seed {seed}");
        let slow = Plan::drawn(seed).steps.iter().any(|step| matches!(step, Step::Loiter(_)));
        assert!(slow || kind != Kind::Slow, "seed {seed}");
        let lies = Plan::drawn(seed).steps.iter().any(|step| matches!(step, Step::Lie(..)));
        assert!(lies || kind != Kind::Lying, "seed {seed}");
    };
    (0..70).for_each(first);
}
