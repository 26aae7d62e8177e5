//! A member as its operator meets it: which signals end it, and how many descriptors it takes.

mod common;

use common::{Net, POSYNC, eventually, file, set, signal};
use posync_client::descriptors::{LISTENER, MEMBER};
use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

/// Starts a program as a shell does, even if the parent of this test ignores signals.
const PLAINLY: &[&str] = &["env", "--default-signal=HUP"];
const TO_SURVIVE: &[&str] = &["nohup"];

/// Starts a member by hand through another program; what it logs goes to a file.
fn start(directory: &Path, through: &[&str], log: &Path) -> Child {
    let mut command = Command::new(through[0]);
    command.args(&through[1..]).arg(POSYNC);
    let log = fs::File::create(log).expect("writable");
    command.args(["start", "--dir"]).arg(directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().expect("it starts")
}

/// Returns true if a mask of signals in a process's status has the signal of that number.
fn has(pid: u32, mask: &str, number: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix(mask)?.strip_prefix(':'));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (number - 1) & 1 == 1)
}

#[test]
fn a_terminal_that_closes_ends_a_member_in_order_and_one_under_nohup_not_at_all() {
    let mut net = Net::start();
    net.down();
    let log = net.directory.with_file_name("said");
    for name in ["authority-0", "provider-0", "gateway"] {
        set(&net.directory.join(name), "log", "\"stderr\"");
        let mut member = start(&net.directory.join(name), PLAINLY, &log);
        eventually(30, "it listens for signals", || has(member.id(), "SigCgt", 15));
        eventually(5, "for SIGHUP too", || has(member.id(), "SigCgt", 1));
        signal("HUP", member.id());
        let status = member.wait().expect("it was started here");
        let said = fs::read_to_string(&log).expect("readable");
        assert_eq!(status.code(), Some(0), "{name}: {said}");
        assert!(said.contains("SIGHUP"), "{name}: {said}");
    }
    let mut member = start(&net.directory.join("provider-0"), TO_SURVIVE, &log);
    eventually(30, "it listens for signals", || has(member.id(), "SigCgt", 15));
    signal("HUP", member.id());
    assert!(has(member.id(), "SigIgn", 1), "who started it wants it to survive its terminal");
    signal("TERM", member.id());
    assert_eq!(member.wait().expect("it was started here").code(), Some(0));
    let said = fs::read_to_string(&log).expect("readable");
    assert!(said.contains("SIGTERM") && !said.contains("SIGHUP"), "{said}");
}

#[test]
fn what_a_member_has_open_and_all_that_its_listener_may_hold_is_less_than_it_asks_for() {
    let net = Net::start();
    let home = tempfile::tempdir().expect("a directory");
    net.round_trip(&file(home.path(), "source", 6_000_000, 31), "kept");
    for (name, pid) in net.members() {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count() as u64;
        assert!(open + LISTENER <= MEMBER, "{name} has {open} open");
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("it runs");
        let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
        let soft: u64 = line.split_whitespace().nth(3).and_then(|word| word.parse().ok()).expect("a limit");
        assert!(soft >= MEMBER, "{name} may open {soft}");
    }
}
