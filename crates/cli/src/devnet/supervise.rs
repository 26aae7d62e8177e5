//! Starts the members as processes of their own, restarts those that fail, and always stops all of them.
//!
//! ```text
//!             start                 ends unasked                pause over
//!   (new) ───────────────► runs ────────────────────► waits ────────────────► runs
//!     └─ cannot start ─► waits     ends with code 0, or killed by us ─► stopped
//! ```
//!
//! A child's standard input is a pipe whose other end only this process holds. It never carries a
//! byte: when it closes, because the parent stopped the child or because the parent died, the child
//! ends too. On Linux the system also kills a child whose parent died, so a paused child (SIGSTOP) ends as
//! well, and a parent killed with SIGKILL leaves no orphan. That signal follows the thread that started the
//! child, so the main thread alone starts children. Each child has a process group of
//! its own: Ctrl-C reaches only the parent, which ends the children in order.
//!
//! A member that ends with code 0 was asked to end (SIGTERM), and stays stopped until the network starts
//! again. Every other end is a failure: that member alone is restarted, after a pause.

use super::restart::{News, Restarts};
use crate::failure::{Failure, Outcome};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::OpenOptions,
    os::unix::{
        fs::OpenOptionsExt as _,
        process::{CommandExt as _, ExitStatusExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Time that members of one rank have to end by themselves before they are killed.
const STOP_WITHIN: Duration = Duration::from_secs(3);
/// Pause between two checks of an ending child.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Characters of a log's line that are shown.
const LINE_MAX: usize = 400;

#[derive(Debug)]
enum State {
    Runs { child: Child, since: Instant },
    Waits { until: Instant },
    Stopped,
}

/// A member, its process and its failures so far.
#[derive(Debug)]
struct Supervised {
    name: String,
    directory: PathBuf,
    state: State,
    restarts: Restarts,
    /// Reason why the member does not run.
    why: String,
}

/// The processes of a network, in the order of their start; dropping the value stops them.
#[derive(Debug)]
pub(crate) struct Processes {
    members: Vec<Supervised>,
    began: Instant,
}

impl Default for Processes {
    fn default() -> Self {
        Self { members: Vec::new(), began: Instant::now() }
    }
}

impl Processes {
    /// Starts the member in `directory`; its log is `directory/log`. Returns a message if the start fails;
    /// it is then tried again, as after an end.
    pub(crate) fn start(&mut self, name: &str, directory: &Path) -> Option<String> {
        let mut member = Supervised {
            name: name.into(),
            directory: directory.into(),
            state: State::Stopped,
            restarts: Restarts::default(),
            why: String::new(),
        };
        let line = member.start(self.began);
        self.members.push(member);
        line
    }

    /// Checks every member, restarts those whose pause is over, and returns messages for the operator.
    pub(crate) fn look(&mut self) -> Vec<String> {
        let began = self.began;
        self.members.iter_mut().filter_map(|member| member.look(began)).collect()
    }

    /// The first member that does not run although it was not stopped, and why.
    pub(crate) fn unwell(&mut self) -> Option<(String, String)> {
        for member in &mut self.members {
            if let State::Runs { child, .. } = &mut member.state
                && let Ok(Some(status)) = child.try_wait()
            {
                member.why = status.to_string();
                member.state = State::Waits { until: Instant::now() };
            }
        }
        let unwell = self.members.iter().find(|member| matches!(member.state, State::Waits { .. }));
        unwell.map(|member| (member.name.clone(), member.why.clone()))
    }

    /// Process id of a member; 0 if it does not run.
    pub(crate) fn pid(&self, name: &str) -> u32 {
        let member = self.members.iter().find(|member| member.name == name);
        member.map_or(0, |member| match &member.state {
            State::Runs { child, .. } => child.id(),
            State::Waits { .. } | State::Stopped => 0,
        })
    }

    /// Kills one member at once, as a power cut would; it stays stopped.
    pub(crate) fn kill(&mut self, name: &str) -> bool {
        let Some(member) = self.members.iter_mut().find(|member| member.name == name) else { return false };
        match std::mem::replace(&mut member.state, State::Stopped) {
            State::Runs { mut child, .. } => child.kill().is_ok() && child.wait().is_ok(),
            State::Waits { .. } | State::Stopped => false,
        }
    }

    /// Ends every member, by rank: the last started rank first, so that members that ask end before
    /// those that answer. Each rank has [`STOP_WITHIN`]; members that still run then are killed.
    pub(crate) fn stop(&mut self) {
        let mut members = std::mem::take(&mut self.members);
        while let Some(last) = members.last() {
            let rank = rank(&last.name).to_owned();
            let of_rank = members.iter().rposition(|member| self::rank(&member.name) != rank);
            let mut ending = members.split_off(of_rank.map_or(0, |place| place + 1));
            ending.iter_mut().for_each(Supervised::ask_to_end);
            let deadline = Instant::now() + STOP_WITHIN;
            ending.into_iter().for_each(|member| member.end_by(deadline));
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Rank of a member's name: `provider` for `provider-3`.
fn rank(name: &str) -> &str {
    name.split_once('-').map_or(name, |(rank, _)| rank)
}

impl Supervised {
    /// Starts the process; returns a message if that fails.
    fn start(&mut self, began: Instant) -> Option<String> {
        match spawn(&self.directory) {
            Ok(child) => {
                self.state = State::Runs { child, since: Instant::now() };
                None
            }
            Err(failure) => self.ended(failure.in_one_line(), began),
        }
    }

    fn look(&mut self, began: Instant) -> Option<String> {
        match &mut self.state {
            State::Runs { child, since } => match child.try_wait() {
                Ok(Some(status)) if status.success() => {
                    self.state = State::Stopped;
                    Some(format!(
                        "{} was asked to end and has ended; it stays stopped until the network starts again",
                        self.name
                    ))
                }
                Ok(Some(status)) => self.ended(why(status, &self.directory.join("log")), began),
                // A child whose status cannot be read counts as running.
                Ok(None) | Err(_) => {
                    let (lived, pid) = (since.elapsed(), child.id());
                    let (starts, down) = self.restarts.runs(lived, began.elapsed())?;
                    let (name, down) = (&self.name, down.as_secs());
                    Some(format!("{name} runs again (process {pid}), after {starts} starts and {down} s"))
                }
            },
            State::Waits { until } if Instant::now() >= *until => self.start(began),
            State::Waits { .. } | State::Stopped => None,
        }
    }

    fn ended(&mut self, why: String, began: Instant) -> Option<String> {
        let (pause, news) = self.restarts.ended(began.elapsed());
        self.state = State::Waits { until: Instant::now() + pause };
        let (name, seconds) = (&self.name, pause.as_secs());
        let line = match news {
            News::Begins => Some(format!(
                "{name} does not run ({why}); the others go on, and it is started again in {seconds} s"
            )),
            News::Lasts => Some(format!(
                "{name} still does not run ({why}); it is tried every {seconds} s from now on: mend what the \
                 reason names, its log is {}",
                self.directory.join("log").display()
            )),
            News::Nothing => None,
        };
        self.why = why;
        line
    }

    fn ask_to_end(&mut self) {
        if let State::Runs { child, .. } = &mut self.state {
            drop(child.stdin.take());
            if let Some(pid) = Pid::from_raw(child.id().cast_signed()) {
                // It may have ended already, which is just as good.
                let _ = kill_process(pid, Signal::TERM);
            }
        }
    }

    fn end_by(self, deadline: Instant) {
        if let State::Runs { mut child, .. } = self.state {
            while Instant::now() < deadline && matches!(child.try_wait(), Ok(None)) {
                thread::sleep(LOOK_EVERY);
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn spawn(directory: &Path) -> Outcome<Child> {
    let log = directory.join("log");
    let open = || OpenOptions::new().create(true).append(true).mode(0o600).open(&log);
    let failed = |error| Failure::file(&log, "write", error);
    let (out, err) = (open().map_err(failed)?, open().map_err(failed)?);
    let program = std::env::current_exe()
        .map_err(|error| Failure::file(Path::new("posync"), "find the program", error))?;
    Command::new(&program)
        .args(["start", "--child", "--dir"])
        .arg(directory)
        .stdin(Stdio::piped())
        .stdout(out)
        .stderr(err)
        .process_group(0)
        .spawn()
        .map_err(|error| Failure::file(&program, "start", error))
}

/// Why a member has ended: its status and the last line of its log, which is the reason of a failure. A process that is
/// killed writes none.
fn why(status: ExitStatus, log: &Path) -> String {
    if status.signal() == Some(Signal::KILL.as_raw()) {
        return format!(
            "{status}: it was killed from outside, by a person, or by the system when memory ran out, which the kernel's log \
             shows"
        );
    }
    format!("{status}: {}", last_line(log))
}

/// Last non-empty line of a member's log, cut to [`LINE_MAX`] characters.
fn last_line(log: &Path) -> String {
    match super::running::end_of(log) {
        Ok(text) => {
            let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("its log is empty");
            line.trim().chars().take(LINE_MAX).collect()
        }
        Err(error) => format!("its log cannot be read: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_one_rank_end_together() {
        assert_eq!(
            (rank("provider-3"), rank("authority-31"), rank("gateway")),
            ("provider", "authority", "gateway")
        );
    }

    #[test]
    fn a_member_whose_directory_is_gone_is_told_once_and_tried_again() {
        let home = tempfile::tempdir().expect("a directory");
        let mut processes = Processes::default();
        let line = processes.start("provider-3", &home.path().join("gone")).expect("it cannot start");
        assert!(line.contains("provider-3") && line.contains("started again in 1 s"), "{line}");
        assert!(line.contains("gone/log"), "it says what is missing: {line}");
        assert_eq!(processes.look(), Vec::<String>::new(), "nothing new");
        assert_eq!(processes.pid("provider-3"), 0);
        assert_eq!(processes.unwell().expect("it waits").0, "provider-3");
        assert!(!processes.kill("provider-3") && processes.unwell().is_none(), "stopped is not unwell");
    }

    #[test]
    fn the_reason_of_an_end_is_the_last_line_of_the_log_but_not_of_a_member_that_was_killed() {
        let home = tempfile::tempdir().expect("a directory");
        let log = home.path().join("log");
        std::fs::write(&log, "a block came\n").expect("writable");
        let ended = |command: &str| {
            let ended = Command::new("sh").args(["-c", command]).status().expect("a shell");
            why(ended, &log)
        };
        let killed = ended("kill -KILL $$");
        assert!(killed.starts_with("signal: 9 (SIGKILL)") && killed.contains("memory"), "{killed}");
        assert!(!killed.contains("a block came"), "it is no reason: {killed}");
        for (command, begins) in [("kill -ABRT $$", "signal: 6 (SIGABRT)"), ("exit 8", "exit status: 8")] {
            let why = ended(command);
            assert!(why.starts_with(begins) && why.ends_with(": a block came"), "{why}");
        }
    }

    #[test]
    fn the_last_line_of_a_log_is_shown_within_a_bound() {
        let home = tempfile::tempdir().expect("a directory");
        let log = home.path().join("log");
        assert!(last_line(&log).contains("cannot be read"));
        std::fs::write(&log, "\n\n").expect("writable");
        assert_eq!(last_line(&log), "its log is empty");
        std::fs::write(&log, format!("first\nlast {}\n\n", "x".repeat(9_000))).expect("writable");
        assert_eq!(last_line(&log).len(), LINE_MAX);
    }
}
