//! The judge of drawn plans: the losses that it finds, and the contents of the plans.

use posync_protocol::ledger::{AgreementChange, Event};
use posync_sim::{
    drawn::{BLOCKS_MIN, Kind},
    plan::{Damage, Lie, Plan, Process, Refused, Sample, Step},
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
fn any_eight_seeds_in_a_row_meet_every_kind() {
    // Some steps occur only if the plan has an episode of this kind.
    let first = |seed| {
        let kind = Kind::ALL[(seed % 8) as usize];
        let behind = matches!(Plan::drawn(seed).steps[1], Step::Lag(_) | Step::Crash(Process::Authority(_)));
        assert_eq!(behind, matches!(kind, Kind::Lagging | Kind::AnyOrder), "seed {seed}");
        let slow = Plan::drawn(seed).steps.iter().any(|step| matches!(step, Step::Loiter(_)));
        assert!(slow || kind != Kind::Slow, "seed {seed}");
        let lies =
            Plan::drawn(seed).steps.iter().any(|step| matches!(step, Step::Lie(..) | Step::LieEach(_)));
        assert!(lies || kind != Kind::Lying, "seed {seed}");
    };
    (0..80).for_each(first);
}

/// Forty seeds are what every change must pass: `GATE` in `xtask/src/campaign.rs`.
#[test]
fn forty_seeds_draw_every_variant_of_every_fault() {
    let steps: Vec<Step> = (0..40).flat_map(|seed| Plan::drawn(seed).steps).collect();
    let count = |name, least, is: fn(&Step) -> bool| {
        let found = steps.iter().filter(|step| is(step)).count();
        assert!(found >= least, "{name}: drawn {found} times");
    };
    count("lagging node", 5, |step| matches!(step, Step::Lag(_)));
    count("power cut, any order", 5, |step| matches!(step, Step::Blackout));
    count("paused gateway", 1, |step| matches!(step, Step::Pause(Process::Gateway(_))));
    count("paused authority", 1, |step| matches!(step, Step::Pause(Process::Authority(_))));
    count("paused provider", 5, |step| matches!(step, Step::Pause(Process::Provider(_))));
    count("longer than every timeout", 3, |step| matches!(step, Step::Wait(time) if time.as_secs() > 180));
    count("cut off", 5, |step| matches!(step, Step::Isolate(Process::Provider(_))));
    for lie in [Lie::Withhold, Lie::StandStill, Lie::Deny] {
        let told = |step: &&Step| matches!(step, Step::Lie(_, said) | Step::LieEach(said) if *said == lie);
        assert!(steps.iter().filter(told).count() >= 2, "{lie:?}");
    }
    count("one liar", 2, |step| matches!(step, Step::Lie(..)));
    count("a liar for each client", 2, |step| matches!(step, Step::LieEach(_)));
    count("torn writes", 2, |step| matches!(step, Step::PowerCut));
    count("full disk", 1, |step| matches!(step, Step::Fill(Process::Provider(_))));
    count("full disk of a gateway", 1, |step| matches!(step, Step::Fill(Process::Gateway(_))));
    let beyond = |seed| Plan::drawn(seed).grace.is_some() && Kind::ALL[(seed % 8) as usize] == Kind::Majority;
    assert!((0..40).filter(|seed| beyond(*seed)).count() >= 2, "away beyond the grace period");
    for operation in [Refused::Write, Refused::Sync] {
        for gateway in [true, false] {
            let fails = |step: &&Step| {
                matches!(step, Step::Refuse { process, operation: fails, .. }
                    if *fails == operation && matches!(process, Process::Gateway(_)) == gateway)
            };
            assert!(steps.iter().any(|step| fails(&step)), "{operation:?}, gateway: {gateway}");
        }
    }
    count("unreadable sector", 1, |step| matches!(step, Step::Damage(_, Damage::Unreadable)));
    count("flipped bit", 1, |step| matches!(step, Step::Damage(_, Damage::FlippedBit)));
    count("slow users", 5, |step| matches!(step, Step::Loiter(_)));
}
