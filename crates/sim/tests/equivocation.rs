//! Authorities whose key signs two blocks of one view: they are caught automatically, and only they.

use posync_protocol::{amount::ONE, economics::slash, ledger::Event, limits::Parameters};
use posync_sim::{
    plan::{Gossip, Plan, Process, Step},
    world::{Report, run, run_twice},
};
use std::time::Duration;

/// True once a seat was slashed.
fn is_slashed(events: &[(u64, Event)]) -> bool {
    events.iter().any(|(_, event)| matches!(event, Event::Slashed { .. }))
}

/// Only the liar lost money, only the reporter got a quarter of the first slash, and it was reported once.
fn check(report: &Report, liar: usize, reporter: usize) {
    let bond = Parameters::LOCAL.seat_bond.grains();
    let first = bond / u128::from(ONE / slash::EQUIVOCATION_MIN);
    for (index, (account, seat, state)) in report.seats.iter().enumerate() {
        assert_eq!(seat.jailed.is_some(), index == liar, "{account}");
        assert_eq!(seat.bond.grains() + seat.slashed.grains(), bond);
        assert_eq!(seat.slashed.grains() > 0, index == liar, "{account}");
        // Evidence carries no nonce; its content and its reporter show in the slashes below.
        assert_eq!(state.nonce, 0, "{account} sent {} other operations", state.nonce);
    }
    let slashes: Vec<_> = report.events.iter().filter_map(|(_, event)| slashed(event)).collect();
    let (seat, of) = (report.seats[liar].0, report.seats[reporter].0);
    assert_eq!(slashes.first(), Some(&(seat, first, first - first / 4, Some(of))));
    assert!(slashes[1..].iter().all(|(_, amount, burned, reporter)| amount == burned && reporter.is_none()));
    assert!(
        report.seats[reporter].2.balance.grains() > first / 4,
        "a quarter, and what it was sent less a fee"
    );
}

fn slashed(
    event: &Event,
) -> Option<(posync_protocol::Account, u128, u128, Option<posync_protocol::Account>)> {
    match event {
        Event::Slashed { seat, amount, burned, reporter, .. } => {
            Some((*seat, amount.grains(), burned.grains(), *reporter))
        }
        _ => None,
    }
}

/// The leader of the first view shows one block to half of the others and another to the rest. No
/// block of the view is final, so no authority sees both before they exchange them.
#[test]
fn two_blocks_of_one_view_are_found_brought_and_paid_for() {
    let liar = Process::Authority(0);
    let steps = vec![
        Step::Crash(liar),
        Step::Equivocate(0),
        Step::Fund(1),
        Step::Fund(2),
        Step::Fund(3),
        Step::Until(is_slashed, 60),
        // The epoch of the fault closes with the first block of the third epoch after it.
        Step::Reach(3 * Parameters::LOCAL.epoch_blocks() + 5),
    ];
    let report = run_twice(&Plan::new(31, steps));
    check(&report, 0, 1);
    let bond = Parameters::LOCAL.seat_bond.grains();
    let all = bond * u128::from(slash::equivocation(4, 1)) / u128::from(ONE);
    assert_eq!(report.seats[0].1.slashed.grains(), all, "with the rest, 9/16");
}

/// A final block is signed again and shown to one other authority, which stops at once. It has
/// informed the rest by then.
#[test]
fn a_second_version_of_a_final_block_is_found_by_who_is_shown_it() {
    let steps = vec![
        Step::Reach(12),
        Step::Crash(Process::Authority(2)),
        Step::SignAgain { liar: 2, to: 1 },
        Step::Restart(Process::Authority(2)),
        Step::Crash(Process::Authority(1)),
        Step::Fund(3),
        Step::Until(is_slashed, 60),
        Step::Restart(Process::Authority(1)),
        Step::Fund(0),
        Step::Reach(80),
    ];
    check(&run_twice(&Plan::new(32, steps)), 2, 3);
}

/// Crashes, cuts, loss and a wiped disk for seven terms, with money to pay for accusations. The
/// world fails if any authority accuses another.
#[test]
fn nobody_honest_is_accused_whatever_happens() {
    let [a, b, c] = [1, 2, 3].map(Process::Authority);
    let bad = Gossip { loss_percent: 10, jitter: Duration::from_millis(30), ..Gossip::LOCAL };
    let steps = vec![
        Step::Fund(0),
        Step::Fund(2),
        Step::Crash(a),
        Step::Reach(30),
        Step::Restart(a),
        Step::Gossip(bad),
        Step::Reach(60),
        Step::PowerCut,
        Step::Reach(75),
        Step::Isolate(b),
        Step::Reach(110),
        Step::Rejoin(b),
        Step::Crash(c),
        Step::Reach(125),
        Step::Restart(c),
        Step::PowerCut,
        Step::Reach(150),
        Step::Crash(a),
        Step::Reach(160),
        Step::Wipe(1),
        Step::Reach(250),
        Step::Crash(b),
        Step::Restart(b),
        Step::Reach(280),
    ];
    let report = run(Plan::new(33, steps)).expect("nobody is accused");
    assert!(!is_slashed(&report.events));
    assert!(report.seats.iter().all(|(_, seat, state)| seat.jailed.is_none() && state.nonce == 0));
}
