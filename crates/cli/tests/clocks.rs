//! Machines whose clock is an hour, a day or years off, or set meanwhile: real processes, each with a clock of its own
//! before the system's.

mod common;

use common::{Net, POSYNC, end, eventually, posync, text};
use posync_alert::test_utils::{Posted, listen};
use serde_json::Value;
use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc::Receiver,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// A library that moves the clock of a process by the seconds in a file, as they are now. The time since boot stays as it
/// is.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long ahead(void) {
    static int file = -1;
    char text[32] = {0};
    const char *path = getenv("POSYNC_TEST_AHEAD");
    if (file < 0 && path) file = open(path, O_RDONLY | O_CLOEXEC);
    return file >= 0 && pread(file, text, sizeof text - 1, 0) > 0 ? atol(text) : 0;
}

int clock_gettime(clockid_t id, struct timespec *out) {
    int result = syscall(SYS_clock_gettime, id, out);
    if (result == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) out->tv_sec += ahead();
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
    let clock = library.with_extension(seconds.to_string());
    fs::write(&clock, seconds.to_string()).expect("writable");
    by_clock(library, &clock)
}

/// The program with a clock that is ahead by the seconds in the file `clock`, which may change.
fn by_clock(library: &Path, clock: &Path) -> Command {
    let mut command = Command::new(POSYNC);
    command.env("LD_PRELOAD", library).env("POSYNC_TEST_AHEAD", clock);
    command.env_remove("POSYNC_NET").stdin(Stdio::null());
    command
}

/// A clock that a test sets while processes run by it.
struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    fn new(home: &Path) -> Self {
        let clock = Self { library: library(home), file: home.join("clock") };
        fs::write(&clock.file, "").expect("writable");
        clock.set(0);
        clock
    }

    /// Sets the clock, which steps to so many seconds ahead of the system's.
    fn set(&self, seconds: i64) {
        let file = File::options().write(true).open(&self.file).expect("it was made");
        // Written over, not cut: no process reads an empty file.
        file.write_all_at(format!("{seconds:<20}").as_bytes(), 0).expect("writable");
    }

    /// The program with this clock.
    fn command(&self) -> Command {
        by_clock(&self.library, &self.file)
    }
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

/// The account of a member of the network.
fn account_of(net: &Net, name: &str) -> String {
    let description = net.description();
    let mut nodes = description["nodes"].as_array().expect("a list").iter();
    text(&nodes.find(|node| node["name"] == name).expect("a member")["account"]).to_owned()
}

/// The doctor's report, and the check of the clock in it.
fn clock_check(shown: &Output) -> (Value, Value) {
    let report: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    let checks = report["checks"].as_array().cloned().expect("a list");
    let clock = checks.into_iter().find(|check| check["name"] == "clock").expect("a check");
    (report, clock)
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
    let wrong = [("authority-3", HOUR), ("provider-0", -HOUR), ("gateway", HOUR)];
    let mut roles = Vec::new();
    for (name, seconds) in wrong {
        end(net.pid(name));
        roles.push(Role::start(ahead(&library, seconds), &net.directory.join(name)));
    }
    let (node, account) = node(&net, home.path(), &url);
    roles.push(Role::start(ahead(&library, -HOUR), &node));

    let accounts = [wrong.map(|(name, _)| account_of(&net, name)).to_vec(), vec![account]].concat();
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
        clock_check(&shown).1["state"] == "ok"
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
    let wrong = account_of(&net, "authority-3");
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
        let (report, clock) = clock_check(&shown);
        assert_eq!((shown.status.code(), &clock["state"]), (Some(1), &"fail".into()), "{report}");
        text(&clock["what"]).to_owned()
    };
    let said = doctor("provider-0", -DAY);
    assert!(said.contains("behind") && names_a_day(&said), "{said}");
    role.take();
    let said = doctor("authority-3", DAY);
    assert!(said.contains("ahead of") && names_a_day(&said), "{said}");
}

/// Seconds by which a clock that shows the first day of 1970 is ahead: fewer than none.
fn in_1970() -> i64 {
    3_600 - now()
}

/// Seconds by which a clock that shows the first day of 2100 is ahead.
fn in_2100() -> i64 {
    4_102_444_800 - now()
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("this machine's clock is right");
    i64::try_from(since.as_secs()).expect("it fits")
}

/// Empty batteries and mistyped years: each kind of role, in 1970 and in 2100, names the distance in its log and in its
/// alert, and so does the doctor of its machine.
#[test]
fn a_clock_that_is_years_off_is_measured_by_each_role_and_its_doctor() {
    let (url, got) = listen(vec![]);
    let net = Net::start_with(&["--alert-url", &url]);
    let home = tempfile::tempdir().expect("a directory");
    let library = library(home.path());
    let (past, future) = (in_1970(), in_2100());
    let wrong = [("authority-3", past), ("provider-0", past), ("provider-1", future), ("gateway", future)];
    let mut roles = Vec::new();
    for (name, seconds) in wrong {
        end(net.pid(name));
        common::set(&net.directory.join(name), "log", "\"stderr\"");
        roles.push(Role::start(ahead(&library, seconds), &net.directory.join(name)));
    }
    let (node, account) = node(&net, home.path(), &url);
    roles.push(Role::start(ahead(&library, past), &node));

    let accounts = [wrong.map(|(name, _)| account_of(&net, name)).to_vec(), vec![account]].concat();
    let accounts: Vec<&str> = accounts.iter().map(String::as_str).collect();
    let logs = || roles.iter().map(Role::log).collect::<String>();
    let texts = clocks_off(&got, &accounts, logs);
    let seconds = wrong.map(|(_, seconds)| seconds).into_iter().chain([past]);
    let names = |what: &str, seconds: i64| {
        let side = if seconds < 0 { "behind" } else { "ahead of" };
        let mut numbers = what.split([' ', '.']).filter_map(|word| word.parse::<i64>().ok());
        what.contains(side) && numbers.any(|number| (number - seconds.abs()).abs() < 600)
    };
    for ((what, seconds), role) in texts.iter().zip(seconds).zip(&roles) {
        assert!(names(what, seconds), "{what}");
        assert!(
            role.log().lines().any(|line| line.contains("clock") && names(line, seconds)),
            "{}",
            role.log()
        );
    }
    for (name, seconds) in [("provider-2", past), ("provider-3", future)] {
        let mut command = ahead(&library, seconds);
        command.arg("--json").args(["doctor", "--dir"]).arg(net.directory.join(name));
        let shown = command.output().expect("it runs");
        let (report, clock) = clock_check(&shown);
        assert_eq!(clock["state"], "fail", "{report}");
        assert!(names(text(&clock["what"]), seconds), "{report}");
    }
}

/// An authority that has lost its disk starts while its machine's clock is a day off: the others refuse it, and it gets no
/// state. It says what it waits for and by how much the clock is off, and follows by itself once the clock is right.
#[test]
fn an_authority_without_state_says_that_its_clock_is_wrong_and_goes_on_when_it_is_right() {
    let (url, got) = listen(vec![]);
    let net = Net::start_with(&["--providers", "8", "--alert-url", &url]);
    let home = tempfile::tempdir().expect("a directory");
    let (library, clock) = (library(home.path()), home.path().join("now"));
    let wrong = account_of(&net, "authority-3");
    end(net.pid("authority-3"));
    let directory = net.directory.join("authority-3");
    common::set(&directory, "log", "\"stderr\"");
    fs::remove_dir_all(directory.join("storage")).expect("it was there");
    fs::write(&clock, DAY.to_string()).expect("writable");
    let role = Role::start(by_clock(&library, &clock), &directory);
    let alert = |state: &str| {
        let start = Instant::now();
        loop {
            let left = PATIENCE.checked_sub(start.elapsed()).unwrap_or_default();
            let posted =
                got.recv_timeout(left).unwrap_or_else(|_| panic!("not {state}: {}", role.log())).json;
            if posted["alert"] == "clock_off" && posted["node"] == wrong && posted["state"] == state {
                return posted;
            }
        }
    };
    let raised = alert("raised");
    assert!(names_a_day(text(&raised["what"])), "{raised}");
    eventually(180, "it says that it waits", || role.log().contains("has no state yet"));
    assert!(!role.log().contains("the node service listens"), "it has nothing to serve: {}", role.log());

    fs::write(&clock, "0").expect("writable");
    eventually(240, "it applies blocks", || role.log().contains("ready: the node applies blocks"));
    let log = role.log();
    assert!(log.contains("begins anew with the time that the clock shows now"), "{log}");
    let height = net.height();
    eventually(180, "the others go on", || net.height() > height + 20);
}

/// A machine's clock is set by an hour while its authority runs: that is an alert, and the node service goes on by the
/// authority's own time, as consensus does.
#[test]
fn a_step_of_an_hour_is_an_alert_and_moves_no_time_of_a_running_authority() {
    let (url, got) = listen(vec![]);
    let net = Net::start_with(&["--providers", "8", "--alert-url", &url]);
    let home = tempfile::tempdir().expect("a directory");
    let (library, clock) = (library(home.path()), home.path().join("now"));
    end(net.pid("authority-3"));
    let directory = net.directory.join("authority-3");
    common::set(&directory, "log", "\"stderr\"");
    fs::write(&clock, "0").expect("writable");
    let role = Role::start(by_clock(&library, &clock), &directory);
    eventually(180, "it applies blocks", || role.log().contains("ready: the node applies blocks"));
    fs::write(&clock, HOUR.to_string()).expect("writable");
    let start = Instant::now();
    loop {
        let left = PATIENCE.checked_sub(start.elapsed()).unwrap_or_default();
        let posted = got.recv_timeout(left).unwrap_or_else(|_| panic!("no alert: {}", role.log())).json;
        if posted["alert"] == "clock_off" && text(&posted["what"]).contains("while the node ran") {
            break;
        }
    }
    eventually(180, "all four answer, and no clock of a node is off", || {
        let status = net.ask(&["status"]);
        let all = status["consensus"]["authorities"].as_array().cloned().expect("a list");
        let near = |one: &&Value| one["clock_ahead_ms"].as_i64().is_some_and(|ms| ms.abs() < 60_000);
        all.iter().filter(near).count() == 4
    });
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

/// An hour forward and back, twice, while a put and the chain run: no wall clock decides when something is late.
#[test]
fn a_clock_that_steps_by_an_hour_under_a_running_put_ends_no_put_and_stalls_nobody() {
    const PIECE: usize = 3 << 20;
    let net = Net::start();
    let home = tempfile::tempdir().expect("a directory");
    let clock = Clock::new(home.path());
    let mut roles = Vec::new();
    for name in ["authority-3", "provider-0", "gateway"] {
        end(net.pid(name));
        roles.push(Role::start(clock.command(), &net.directory.join(name)));
    }
    // Without another one the network needs the authority whose clock steps.
    end(net.pid("authority-2"));
    eventually(180, "the gateway serves", || net.run(&["ls"]).status.success());
    let steps = [HOUR, 0, -HOUR, 0];
    let source = common::file(home.path(), "source", PIECE * steps.len(), 7);
    let bytes = fs::read(&source).expect("readable");
    let mut put = clock.command();
    put.arg("--json").arg("--net").arg(&net.directory).args(["put", "-", "stepped", "--length"]);
    put.arg(bytes.len().to_string()).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut put = put.spawn().expect("it starts");
    let mut input = put.stdin.take().expect("it is piped");
    let logs = || roles.iter().map(Role::log).collect::<String>();
    for (piece, seconds) in bytes.chunks(PIECE).zip(steps) {
        input.write_all(piece).unwrap_or_else(|error| panic!("the put ended: {error}{}", logs()));
        clock.set(seconds);
        let height = net.height();
        eventually(180, "blocks come after a step", || net.height() > height + 8);
    }
    drop(input);
    let ended = put.wait_with_output().expect("it was started here");
    assert!(ended.status.success(), "{}{}", String::from_utf8_lossy(&ended.stderr), logs());
    net.reads(&source, "stepped");
    // The same while it is read.
    let target = home.path().join("target");
    for seconds in [HOUR, -HOUR] {
        let mut get = clock.command();
        get.arg("--net").arg(&net.directory).args(["get", "stepped"]).arg(&target).stdout(Stdio::null());
        let mut get = get.spawn().expect("it starts");
        clock.set(seconds);
        assert!(get.wait().expect("it was started here").success(), "{}", logs());
        assert!(fs::read(&target).expect("written") == bytes, "{seconds}");
    }
    assert_eq!(net.ask(&["status"])["consensus"]["state"], "running");
}
