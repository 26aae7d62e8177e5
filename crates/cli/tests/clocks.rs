//! Machines whose clock is an hour or a day off: real processes, each with a clock of its own before the system's.

mod common;

use common::{Net, POSYNC, end, eventually, posync, text};
use posync_alert::test_utils::{Posted, listen};
use serde_json::Value;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::Receiver,
    time::{Duration, Instant},
};

/// A library that moves the clock of a process by the seconds of a variable. The time since boot stays as it is.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t id, struct timespec *out) {
    int result = syscall(SYS_clock_gettime, id, out);
    const char *ahead = getenv("POSYNC_TEST_AHEAD");
    if (result == 0 && ahead && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) out->tv_sec += atol(ahead);
    return result;
}

int gettimeofday(struct timeval *out, void *zone) {
    struct timespec now;
    int result = clock_gettime(CLOCK_REALTIME, &now);
    (void)zone;
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return result;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
"#;
/// Seconds by which a clock is off.
const HOUR: i64 = 3_600;
const DAY: i64 = 86_400;
/// Time limit for an alert: a role looks ten seconds after its start.
const PATIENCE: Duration = Duration::from_secs(180);

/// Builds the library; the linker that built this test compiles it.
fn library(home: &Path) -> PathBuf {
    let (source, library) = (home.join("clock.c"), home.join("clock.so"));
    fs::write(&source, CLOCK).expect("writable");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    assert!(built.expect("a C compiler, which also links this test").success());
    library
}

/// The program with a clock that is ahead by these seconds.
fn ahead(library: &Path, seconds: i64) -> Command {
    let mut command = Command::new(POSYNC);
    command.env("LD_PRELOAD", library).env("POSYNC_TEST_AHEAD", seconds.to_string());
    command.env_remove("POSYNC_NET").stdin(Stdio::null());
    command
}

/// A role that runs beside the network's supervisor; dropping it ends it.
struct Role {
    process: Child,
    log: PathBuf,
}

impl Role {
    fn start(mut command: Command, directory: &Path) -> Self {
        let log = directory.with_extension("clock-log");
        let err = File::create(&log).expect("writable");
        let process =
            command.args(["start", "--dir"]).arg(directory).stdout(Stdio::null()).stderr(err).spawn();
        Self { process: process.expect("it starts"), log }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// True if the text names about an hour in seconds. It may be some minutes less: the authority that is ahead puts each
/// block that it leads up to ten seconds ahead of the one before (BL-2).
fn is_about_an_hour(what: &str) -> bool {
    let mut numbers = what.split(' ').filter_map(|word| word.parse::<i64>().ok());
    numbers.any(|seconds| (HOUR - 1_200..HOUR + 120).contains(&seconds))
}

/// Waits for the alert of each account that its clock is off; returns their texts, in the order of the accounts.
fn clocks_off(got: &Receiver<Posted>, accounts: &[&str], logs: impl Fn() -> String) -> Vec<String> {
    let (mut texts, start) = (vec![None; accounts.len()], Instant::now());
    while texts.iter().any(Option::is_none) {
        let left = PATIENCE.checked_sub(start.elapsed()).unwrap_or_default();
        let posted = got.recv_timeout(left).unwrap_or_else(|_| panic!("{texts:?}{}", logs())).json;
        if posted["alert"] != "clock_off" {
            continue;
        }
        assert_eq!(posted["state"], "raised", "no clock was set: {posted}");
        let what = text(&posted["what"]).to_owned();
        match accounts.iter().position(|account| posted["node"] == *account) {
            Some(place) => texts[place] = Some(what),
            // The blocks of an authority that is ahead may be seconds ahead of a right clock, as far as the rules allow.
            None => {
                assert!(!what.contains(" 3600 ") && !what.contains(" 3599 "), "its clock is right: {posted}")
            }
        }
    }
    texts.into_iter().flatten().collect()
}

#[test]
fn an_hour_off_is_said_by_status_and_by_each_roles_alert_and_stalls_nobody() {
    let (url, got) = listen(vec![]);
    let net = Net::start_with(&["--alert-url", &url]);
    let home = tempfile::tempdir().expect("a directory");
    let library = library(home.path());
    let description = net.description();
    let member = |name: &str| {
        let mut nodes = description["nodes"].as_array().expect("a list").iter();
        text(&nodes.find(|node| node["name"] == name).expect("a member")["account"]).to_owned()
    };
    let wrong = [("authority-3", HOUR), ("provider-0", -HOUR), ("gateway", HOUR)];
    let mut roles = Vec::new();
    for (name, seconds) in wrong {
        end(net.pid(name));
        roles.push(Role::start(ahead(&library, seconds), &net.directory.join(name)));
    }
    let (node, account) = node(&net, home.path(), &url);
    roles.push(Role::start(ahead(&library, -HOUR), &node));

    let accounts = [wrong.map(|(name, _)| member(name)).to_vec(), vec![account]].concat();
    let accounts: Vec<&str> = accounts.iter().map(String::as_str).collect();
    let logs = || roles.iter().map(Role::log).collect::<String>();
    let texts = clocks_off(&got, &accounts, logs);
    for (what, side) in texts.iter().zip(["ahead of", "behind", "ahead of", "behind"]) {
        assert!(what.contains(side) && is_about_an_hour(what), "{what}");
    }

    // Without another one the network needs the authority whose clock is wrong.
    end(net.pid("authority-2"));
    let height = net.height();
    eventually(180, "three authorities make blocks, one of them an hour off", || net.height() > height + 20);
    let status = net.ask(&["status"]);
    assert_eq!(status["consensus"]["state"], "running", "{status}");
    let off = |status: &Value| {
        let all = status["consensus"]["authorities"].as_array().cloned().expect("a list");
        all.iter().filter(|one| one["clock_ahead_ms"].as_i64().is_some_and(|ms| ms.abs() > 3_000_000)).count()
    };
    assert_eq!(off(&status), 1, "{status}");
    // The blocks of the one that is ahead are ahead of every right clock.
    let directory = net.directory.join("provider-1").display().to_string();
    eventually(180, "the doctor finds a right clock right", || {
        let shown = posync(&["doctor", "--dir", &directory]);
        let report: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
        let checks = report["checks"].as_array().cloned().expect("a list");
        checks.iter().any(|check| check["name"] == "clock" && check["state"] == "ok")
    });
    let own = ahead(&library, HOUR).arg("--net").arg(&net.directory).arg("status").output().expect("it runs");
    let own = String::from_utf8_lossy(&own.stdout).into_owned();
    assert!(own.contains("THIS MACHINE'S CLOCK IS OFF by +3"), "{own}");
}

/// Numbers in a text that are a day in seconds, give or take two minutes.
fn names_a_day(what: &str) -> bool {
    let mut numbers = what.split([' ', '.']).filter_map(|word| word.parse::<i64>().ok());
    numbers.any(|seconds| (DAY - 120..DAY + 120).contains(&seconds))
}

/// The other authorities refuse the connections of one whose clock is a day off. It learns from their node services by
/// how much, and says so at its start; the others go on.
#[test]
fn an_authority_that_starts_a_day_off_names_the_distance_and_the_others_go_on() {
    let (url, got) = listen(vec![]);
    let net = Net::start_with(&["--providers", "8", "--alert-url", &url]);
    let home = tempfile::tempdir().expect("a directory");
    let library = library(home.path());
    let description = net.description();
    let mut members = description["nodes"].as_array().expect("a list").iter();
    let wrong = text(&members.find(|node| node["name"] == "authority-3").expect("a member")["account"]);
    end(net.pid("authority-3"));
    let directory = net.directory.join("authority-3");
    common::set(&directory, "log", "\"stderr\"");
    let mut role = Some(Role::start(ahead(&library, DAY), &directory));
    let start = Instant::now();
    let what = loop {
        let left = PATIENCE.checked_sub(start.elapsed()).unwrap_or_default();
        let log = || role.as_ref().map(Role::log).unwrap_or_default();
        let posted = got.recv_timeout(left).unwrap_or_else(|_| panic!("no alert: {}", log())).json;
        if posted["alert"] == "clock_off" && posted["node"] == wrong {
            break text(&posted["what"]).to_owned();
        }
    };
    assert!(what.contains("ahead of") && names_a_day(&what), "{what}");
    let log = role.as_ref().expect("it runs").log();
    assert!(log.lines().any(|line| line.contains("clock") && names_a_day(line)), "the log names it: {log}");
    let height = net.height();
    eventually(180, "the others go on", || net.height() > height + 20);

    // The doctor of each machine with such a clock names the distance, while the role runs and while it does not.
    let doctor = |name: &str, seconds: i64| {
        let mut command = ahead(&library, seconds);
        command.arg("--json").args(["doctor", "--dir"]).arg(net.directory.join(name));
        let shown = command.output().expect("it runs");
        let report: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
        let checks = report["checks"].as_array().cloned().expect("a list");
        let clock = checks.into_iter().find(|check| check["name"] == "clock").expect("a check");
        assert_eq!((shown.status.code(), &clock["state"]), (Some(1), &"fail".into()), "{report}");
        text(&clock["what"]).to_owned()
    };
    let said = doctor("provider-0", -DAY);
    assert!(said.contains("behind") && names_a_day(&said), "{said}");
    role.take();
    let said = doctor("authority-3", DAY);
    assert!(said.contains("ahead of") && names_a_day(&said), "{said}");
}

/// A directory for a node without a seat, and its account.
fn node(net: &Net, home: &Path, url: &str) -> (PathBuf, String) {
    let directory = home.join("node");
    let at = format!("service_listen=127.0.0.1:{}", common::port());
    let (of_net, own) = (net.directory.display().to_string(), directory.display().to_string());
    let alerts = format!("alert_url={url}");
    let settings = ["--set", "private=true", "--set", &at, "--set", &alerts];
    let made = posync(&[&["--net", &of_net, "init", "node", "--dir", &own][..], &settings].concat());
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
    (directory, text(&made["account"]).to_owned())
}
