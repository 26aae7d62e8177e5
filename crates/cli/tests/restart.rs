//! A network that is stopped, or whose supervisor is killed, continues where it stopped.

mod common;

use common::{Net, file, grains, runs};
use std::time::{Duration, Instant};

#[test]
fn the_same_directory_continues_the_same_chain() {
    let mut net = Net::start();
    let home = tempfile::tempdir().expect("a temporary directory");
    let source = file(home.path(), "source", 5_000_000, 3);
    net.round_trip(&source, "kept");
    net.ask(&["send", "provider-1", "2.25"]);
    let (height, chain) = (net.height(), net.description()["chain"].clone());
    let before = net.run(&["blocks", "--to", &height.to_string()]).stdout;

    net.down();
    assert!(net.pids().iter().all(|pid| *pid == 0), "a stopped network names no processes");
    assert_eq!(net.refuse(&["status"]).0, 3, "nobody answers");
    net.up();

    assert!(net.height() >= height, "the chain goes on, it does not start over");
    assert_eq!(net.description()["chain"], chain);
    let after = net.run(&["blocks", "--to", &height.to_string()]).stdout;
    assert_eq!(before, after, "history is what it was");
    net.reads(&source, "kept");
    net.ask(&["send", "provider-1", "0.75"]);

    a_killed_supervisor_leaves_no_orphan(&mut net);
    net.up();
    net.reads(&source, "kept");
    let status = net.ask(&["status"]);
    assert_eq!(grains(&status["accounted"]), 1_000_000_000_000_000_000, "money is conserved");
    net.wait_for(&["providers"], 120, "holders are paid after the restarts", |rows| {
        let rows = rows.as_array().expect("a list");
        rows.iter().filter(|row| grains(&row["earned_recent_epochs"]) > 0).count() >= 8
    });
    // A voucher or a round that was paid twice would differ from the result of the rules.
    net.recompute();
    blocks_alone_give_the_same_books(&net);
    two_supervisors_are_refused(&net);
    net.down();
}

fn a_killed_supervisor_leaves_no_orphan(net: &mut Net) {
    let pids = net.kill_supervisor();
    let start = Instant::now();
    while pids.iter().any(|pid| runs(*pid)) {
        assert!(start.elapsed() < Duration::from_secs(20), "a member outlived its supervisor");
    }
}

const EPOCH_BLOCKS: u64 = 40;

/// Across restarts, the blocks alone give the ledger's books of every closed epoch.
fn blocks_alone_give_the_same_books(net: &Net) {
    // Eight holders were paid in the epochs before this one: wait until its books are sealed.
    let epochs = net.height() / EPOCH_BLOCKS + 1;
    net.wait_for(&["status"], 120, "the epoch's books are sealed", |status| {
        status["height"].as_u64() >= Some((epochs + 2) * EPOCH_BLOCKS)
    });
    let mut rows = 0;
    for epoch in 0..epochs {
        let answer = net.ask(&["recompute", &epoch.to_string()]);
        assert_eq!(answer["recomputed"], true, "{answer}");
        rows += answer["rows"].as_array().expect("a list").len();
    }
    assert!(rows >= 8, "eight holders were paid");
    let reward = net.ask(&["explain", "reward", "provider-1", &(epochs - 1).to_string()]);
    assert_eq!(reward["holds"], true, "{reward}");
    assert_eq!(net.refuse(&["recompute", &(epochs + 1_000).to_string()]).0, 4, "not over yet");
    a_payout_is_proved_by_the_books(net, epochs - 1);
}

/// A process without the network verifies the row that `recompute` found, under the network key.
fn a_payout_is_proved_by_the_books(net: &Net, epoch: u64) {
    let epoch = epoch.to_string();
    let answer = net.ask(&["recompute", &epoch]);
    let file = net.directory.join("payout.sync").display().to_string();
    let written = net.ask(&["prove", "payout", "provider-1", &epoch, "--out", &file]);
    assert!(written["bytes"].as_u64() <= Some(3_000), "{written}");
    let key = written["network_key"].as_str().expect("hex");
    let verified = net.ask(&["verify", &file, "--network-key", key]);
    assert_eq!(verified["record"], "payout", "{verified}");
    let rows = answer["rows"].as_array().expect("a list");
    let row = rows.iter().find(|row| row["provider"] == verified["account"]).expect("it has a row");
    assert_eq!(verified["fields"], row["row"]);
    assert_eq!(net.refuse(&["prove", "payout", "provider-1", "100000"]).0, 4, "not over yet");
    assert_eq!(net.refuse(&["prove", "payout", "gateway", &epoch]).0, 4, "it provides nothing");
}

fn two_supervisors_are_refused(net: &Net) {
    let directory = net.directory.to_str().expect("text");
    let (code, error) = net.refuse(&["devnet", "--dir", directory]);
    assert_eq!(code, 5, "{error}");
}
