//! Starts the members as processes of their own and stops them, all of them, always.
//!
//! A child's standard input is a pipe whose other end only this process holds. It never carries a
//! byte: when it ends, because the parent stopped the child or because the parent died, the child
//! ends too. So even a parent killed with SIGKILL leaves no orphan.

use crate::failure::{Failure, Outcome};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long a child may take to end by itself before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// How often an ending child is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The hidden subcommand that runs one member.
pub(crate) const COMMAND: &str = "run-role";

/// A running member.
#[derive(Debug)]
struct Running {
    name: String,
    child: Child,
}

/// The processes of a network; dropping it stops them.
#[derive(Debug, Default)]
pub(crate) struct Processes(Vec<Running>);

impl Processes {
    /// Starts the member in `directory`; its log is appended to `directory/log`.
    pub(crate) fn start(&mut self, name: &str, directory: &Path) -> Outcome<u32> {
        let log = directory.join("log");
        let open = || OpenOptions::new().create(true).append(true).mode(0o600).open(&log);
        let failed = |error| Failure::file(&log, "write", error);
        let (out, err) = (open().map_err(failed)?, open().map_err(failed)?);
        let program = std::env::current_exe()
            .map_err(|error| Failure::file(Path::new("posync"), "find the program", error))?;
        let child = Command::new(&program)
            .arg(COMMAND)
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(|error| Failure::file(&program, "start", error))?;
        let pid = child.id();
        self.0.push(Running { name: name.into(), child });
        Ok(pid)
    }

    /// Members that have ended though nobody stopped them, with how.
    pub(crate) fn ended(&mut self) -> Vec<(String, ExitStatus)> {
        let mut ended = Vec::new();
        self.0.retain_mut(|running| match running.child.try_wait() {
            Ok(Some(status)) => {
                ended.push((running.name.clone(), status));
                false
            }
            _ => true,
        });
        ended
    }

    /// Kills one member at once, as a power cut would, and forgets it.
    pub(crate) fn kill(&mut self, name: &str) -> bool {
        let Some(place) = self.0.iter().position(|running| running.name == name) else { return false };
        let mut running = self.0.swap_remove(place);
        running.child.kill().is_ok() && running.child.wait().is_ok()
    }

    /// Asks every member to end, waits for them, and kills what does not listen.
    pub(crate) fn stop(&mut self) {
        for running in &mut self.0 {
            drop(running.child.stdin.take());
            if let Some(pid) = Pid::from_raw(running.child.id().cast_signed()) {
                // It may have ended already, which is what is wanted.
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        let deadline = Instant::now() + STOP_WITHIN;
        for mut running in self.0.drain(..) {
            while Instant::now() < deadline && matches!(running.child.try_wait(), Ok(None)) {
                thread::sleep(LOOK_EVERY);
            }
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.stop();
    }
}
