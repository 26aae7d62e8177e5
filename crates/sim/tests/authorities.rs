//! Four authorities on one thread: crashes, cuts, loss, and canaries that must fail.

use posync_sim::{
    ledger::Fault,
    plan::{Gossip, Plan, Process, Step},
    world::{Failure, run, run_twice},
};

#[test]
fn authorities_agree_and_reshare_their_key() {
    // Slightly more than two terms of 40 blocks.
    let report = run_twice(&Plan::new(1, vec![Step::Reach(90)]));
    assert!(report.height >= 90);
}

#[test]
fn a_crashed_authority_catches_up() {
    let steps = vec![
        Step::Reach(10),
        Step::Crash(Process::Authority(2)),
        Step::Reach(30),
        Step::Restart(Process::Authority(2)),
        Step::Reach(50),
    ];
    run_twice(&Plan::new(2, steps));
}

#[test]
fn a_power_cut_of_all_loses_nothing_final() {
    let steps = vec![Step::Reach(25), Step::PowerCut, Step::Reach(45), Step::PowerCut, Step::Reach(60)];
    run_twice(&Plan::new(3, steps));
}

#[test]
fn a_tenth_of_all_messages_may_be_lost() {
    let gossip = Gossip { loss_percent: 10, ..Gossip::LOCAL };
    run_twice(&Plan { gossip, ..Plan::new(4, vec![Step::Reach(60)]) });
}

#[test]
fn a_wiped_authority_comes_back_with_its_keys_alone() {
    let steps = vec![
        Step::Reach(50),
        Step::Crash(Process::Authority(1)),
        Step::Reach(60),
        Step::Wipe(1),
        Step::Reach(130),
    ];
    run_twice(&Plan::new(5, steps));
}

/// `cargo xtask campaign --behind 10000` runs the same with 10,000 blocks.
#[test]
fn an_authority_that_lost_its_disk_signs_again_while_another_one_is_down() {
    let report = run(Plan::behind(9, 200)).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(report.height >= 200 + 4 * 40, "{}", report.height);
}

#[test]
fn canary_a_minted_grain_is_found_in_the_next_block() {
    let plan = Plan::new(6, vec![Step::Reach(5), Step::Mint, Step::Reach(10)]);
    match run(plan) {
        Err(Failure::Fault(Fault::State { height, .. })) => assert!(height <= 10),
        other => panic!("the planted fault was not found: {other:?}"),
    }
}

#[test]
fn canary_half_of_the_authorities_cannot_go_on_alone() {
    let steps = vec![
        Step::Reach(5),
        Step::Isolate(Process::Authority(0)),
        Step::Isolate(Process::Authority(1)),
        Step::Reach(20),
    ];
    match run(Plan::new(7, steps)) {
        Err(Failure::Stalled(height)) => assert!((5..10).contains(&height)),
        other => panic!("two of four authorities made blocks: {other:?}"),
    }
    let steps = vec![
        Step::Reach(5),
        Step::Isolate(Process::Authority(0)),
        Step::Isolate(Process::Authority(1)),
        Step::Crash(Process::Authority(0)),
        Step::Crash(Process::Authority(1)),
    ];
    let back = [
        Step::Rejoin(Process::Authority(0)),
        Step::Rejoin(Process::Authority(1)),
        Step::Restart(Process::Authority(0)),
        Step::Restart(Process::Authority(1)),
        Step::Reach(20),
    ];
    run_twice(&Plan::new(7, steps.into_iter().chain(back).collect()));
}

#[test]
fn money_moves_through_the_node_service_while_an_authority_is_down() {
    let down = Process::Authority(0);
    let steps =
        vec![Step::Send, Step::Crash(down), Step::Send, Step::Restart(down), Step::Send, Step::Reach(30)];
    run_twice(&Plan::new(8, steps));
}
