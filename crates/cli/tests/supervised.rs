//! A network whose members die, are broken or late: the healthy ones go on; each of the others is reported
//! and restarted, alone.

mod common;

use common::{Net, POSYNC, end, eventually, file, grains, run_role, runs, signal};
use std::{
    fs,
    net::{SocketAddr, TcpListener},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Seconds to wait for a restart: more than the longest pause between two starts.
const BACK_WITHIN: u64 = 90;

/// The address on which a member's service listens.
fn address(net: &Net, name: &str) -> SocketAddr {
    let description = net.description();
    let nodes = description["nodes"].as_array().expect("a list");
    let node = nodes.iter().find(|node| node["name"] == name).expect("a member");
    node["address"].as_str().expect("text").parse().expect("an address")
}

#[test]
fn a_member_that_dies_is_started_again_alone_and_who_is_told_to_end_stays_stopped() {
    let mut net = Net::start();
    let home = tempfile::tempdir().expect("a directory");
    let source = file(home.path(), "source", 3_000_000, 21);
    net.round_trip(&source, "kept");

    let names = ["gateway", "authority-2", "provider-4"];
    let before = names.map(|name| net.pid(name));
    let other = net.pid("provider-5");
    before.iter().for_each(|pid| signal("KILL", *pid));
    for (name, old) in names.iter().zip(before) {
        eventually(BACK_WITHIN, "a member that died runs again", || ![0, old].contains(&net.pid(name)));
        let line = format!("{name} does not run (signal: 9 (SIGKILL): it was killed from outside");
        assert!(net.told().contains(&line), "{}", net.told());
    }
    assert_eq!(net.pid("provider-5"), other, "nobody else was touched");
    eventually(BACK_WITHIN, "the gateway serves again", || net.run(&["ls"]).status.success());
    net.reads(&source, "kept");

    end(net.pid("provider-9"));
    eventually(10, "it is told", || net.told().contains("provider-9 was asked to end"));
    eventually(10, "it is entered", || net.pid("provider-9") == 0);
    a_second_gateway_on_one_directory_is_refused(&net);
    eventually(60, "who is well again is told", || net.told().contains("gateway runs again (process"));
    assert_eq!(net.pid("provider-9"), 0, "it stays stopped");
    assert_eq!(net.told().matches("gateway does not run").count(), 1, "{}", net.told());

    // Even a stopped member does not outlive a killed supervisor.
    signal("STOP", net.pid("provider-5"));
    let pids = net.kill_supervisor();
    eventually(20, "no orphan is left", || !pids.iter().any(|pid| *pid != 0 && runs(*pid)));
}

fn a_second_gateway_on_one_directory_is_refused(net: &Net) {
    let (code, said) = run_role(&net.directory.join("gateway"));
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("a gateway runs in") && said.contains("already"), "{said}");
}

#[test]
fn members_that_are_not_well_keep_nobody_from_starting_and_come_back_when_mended() {
    let mut net = Net::start();
    let home = tempfile::tempdir().expect("a directory");
    let source = file(home.path(), "source", 3_000_000, 22);
    net.round_trip(&source, "kept");
    net.down();
    every_end_that_nobody_asked_for_is_an_error_with_a_reason(&net);

    let gone = (net.directory.join("provider-7"), home.path().join("provider-7"));
    fs::rename(&gone.0, &gone.1).expect("moved");
    let taken = TcpListener::bind(address(&net, "provider-2")).expect("it is free");
    let role = net.directory.join("authority-3/config.toml");
    let was = fs::read(&role).expect("readable");
    fs::write(&role, "{ broken").expect("writable");
    // The member itself rotates a log that is full already.
    fs::write(net.directory.join("provider-0/log"), vec![b'\n'; 16 << 20]).expect("writable");
    net.up();
    for name in ["provider-7", "provider-2", "authority-3"] {
        let told = format!("{name} does not run (");
        eventually(BACK_WITHIN, &format!("{name} is told of"), || net.told().contains(&told));
    }
    let told = net.told();
    assert_eq!(net.pid("provider-7"), 0, "there is nothing to start");
    assert!(told.contains("provider-7/log"), "it says what is missing: {told}");
    net.reads(&source, "kept");
    net.round_trip(&source, "stored without them");
    let log = net.directory.join("provider-0/log");
    assert!(fs::metadata(&log).expect("there").len() < 1 << 20, "a new file");
    assert_eq!(fs::metadata(log.with_extension("1")).expect("kept").len(), 16 << 20);

    fs::rename(&gone.1, &gone.0).expect("moved back");
    drop(taken);
    fs::write(&role, was).expect("writable");
    eventually(BACK_WITHIN, "who was mended comes back by itself", || !net.pids().contains(&0));
    net.down();
}

/// A taken port and other unasked ends of a member: supervisors such as systemd restart
/// a process that fails, and no other.
fn every_end_that_nobody_asked_for_is_an_error_with_a_reason(net: &Net) {
    for name in ["authority-0", "provider-0", "gateway"] {
        let taken = TcpListener::bind(address(net, name)).expect("it is free");
        let (code, said) = run_role(&net.directory.join(name));
        assert_eq!(code, Some(8), "{name}: {said}");
        assert!(said.contains("is taken") && said.contains(name), "{name}: {said}");
        drop(taken);
    }
}

#[test]
fn a_network_whose_gateway_is_broken_or_without_money_starts_and_goes_on() {
    let mut net = Net::start();
    net.down();
    let role = net.directory.join("gateway/config.toml");
    let was = fs::read(&role).expect("readable");
    fs::write(&role, "").expect("writable");
    net.up();
    assert!(net.told().contains("gateway does not run"), "{}", net.told());
    let pids = net.pids();
    spend_everything(&net);
    net.down();
    assert_eq!(pids.iter().filter(|pid| **pid == 0).count(), 1, "all others ran");

    fs::write(&role, was).expect("writable");
    fs::remove_dir_all(net.directory.join("gateway/storage")).expect("it had a catalogue");
    for noted in [".volume-mark", "parameters"] {
        fs::remove_file(net.directory.join("gateway").join(noted)).expect("it had started before");
    }
    let start = Instant::now();
    net.up();
    assert!(start.elapsed() < Duration::from_secs(400), "it is announced within a bound");
    let told = net.told();
    assert!(told.contains("not everything is ready: the gateway has "), "{told}");
    assert!(!net.pids().contains(&0), "all members run: {told}");
    net.ask(&["send", "provider-1", "1"]);
    net.down();
}

/// Sends the gateway's money away, except less than eight agreements would cost.
fn spend_everything(net: &Net) {
    let at = |name: &str| net.directory.with_file_name(name).display().to_string();
    let key = net.directory.join("gateway/node.key").display().to_string();
    let proof = at("proof");
    let network_key = net.description()["network_key"].as_str().expect("hex").to_owned();
    net.ask(&["prove", "account", "gateway", "--out", &proof]);
    let account = net.ask(&["verify", &proof, "--network-key", &network_key]);
    let all_but_one = (grains(&account["fields"]["balance"]) / 1_000_000_000 - 1).to_string();
    net.ask(&["send", "provider-1", &all_but_one, "--key", &key]);
}

#[test]
fn too_few_descriptors_are_an_error_before_anything_is_made() {
    let home = tempfile::tempdir().expect("a directory");
    let directory = home.path().join("net");
    let limited = |limit: u32, arguments: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\""), POSYNC]).args(arguments);
        let output = command.stdin(Stdio::null()).output().expect("a shell");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = limited(400, &["--json", "devnet", "--dir", directory.to_str().expect("text")]);
    assert_eq!(code, Some(8), "{said}");
    assert!(said.contains("needs 1024") && said.contains("400 at most"), "{said}");
    assert!(!directory.exists(), "nothing was made");
    let (code, said) = limited(20, &["--json", "status"]);
    assert_eq!(code, Some(8), "{said}");
    assert!(said.contains("needs 64"), "{said}");
}
