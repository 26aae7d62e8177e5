//! Ctrl-C, SIGTERM and SIGHUP: a command ends in order, so that half-written files go with it.
//!
//! A thread listens. It interrupts the command, and ends the process itself if the command does not end
//! soon: one that waits for its input or for the reader of its output cannot hear. A command that removes what it wrote
//! holds that off until it is done, or until a second signal.
//!
//! Networks and members end by the same signals. SIGHUP stays ignored where the parent of the process had
//! it ignored (`nohup`).

use crate::failure::{Exit, Failure, Outcome};
use std::{fs, future::pending, io, process, sync::Arc, thread, time::Duration};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Mutex, OwnedMutexGuard, watch},
};

/// Time that a command has to end in order.
const END_WITHIN: Duration = Duration::from_secs(1);

/// The origin of the request that ends a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// The user, with Ctrl-C.
    User,
    /// The system: SIGTERM or SIGHUP.
    System,
}

impl Interrupt {
    /// The exit code of a command that ends because of it.
    pub(crate) fn exit(self) -> Exit {
        match self {
            Self::User => Exit::Interrupted,
            Self::System => Exit::Terminated,
        }
    }
}

/// The signals that ask a process to end, from the moment that this was made.
pub(crate) struct Asked {
    user: Signal,
    terminate: Signal,
    /// `None` if it is ignored.
    hang_up: Option<Signal>,
}

impl Asked {
    /// Starts to listen; within a runtime.
    pub(crate) fn listen() -> Outcome<Self> {
        let listen = || -> io::Result<Self> {
            let hang_up = if is_hang_up_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
            let (user, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
            Ok(Self { user, terminate, hang_up })
        };
        listen().map_err(cannot_listen)
    }

    /// Waits for the next one; its name too.
    pub(crate) async fn next(&mut self) -> (Interrupt, &'static str) {
        let Self { user, terminate, hang_up } = self;
        let hung_up = async {
            match hang_up {
                Some(hang_up) => drop(hang_up.recv().await),
                None => pending().await,
            }
        };
        tokio::select! {
            _ = user.recv() => (Interrupt::User, "SIGINT"),
            _ = terminate.recv() => (Interrupt::System, "SIGTERM"),
            () = hung_up => (Interrupt::System, "SIGHUP"),
        }
    }
}

/// True if SIGHUP was ignored when this process started; false where the system does not say.
fn is_hang_up_ignored() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores_hang_up(&status))
}

/// The same, from the status of a process: a mask in hexadecimal, whose lowest bit is signal 1.
fn ignores_hang_up(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

/// The failure of a process that cannot listen for signals.
pub(crate) fn cannot_listen(error: io::Error) -> Failure {
    let next = "raise the limits of open files and threads (`ulimit -n`, `ulimit -u`), and try again";
    Failure::new(Exit::Failed, "cannot listen for signals", error, next)
}

/// Signals as they come, from the moment that this was made.
#[derive(Clone)]
pub(crate) struct Signals {
    first: Arc<watch::Sender<Option<Interrupt>>>,
    /// Taken by work after which the process may be ended.
    held: Arc<Mutex<()>>,
}

impl Signals {
    /// Starts to listen for the three signals.
    pub(crate) fn listen() -> Outcome<Self> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot_listen)?;
        let mut asked = {
            let _entered = runtime.enter();
            Asked::listen()?
        };
        let signals = Self { first: Arc::new(watch::Sender::new(None)), held: Arc::default() };
        let Self { first, held } = signals.clone();
        thread::spawn(move || {
            runtime.block_on(async {
                let (by, _) = asked.next().await;
                first.send_replace(Some(by));
                tokio::time::sleep(END_WITHIN).await;
                released(&held, asked.next()).await;
                process::exit(by.exit() as i32);
            });
        });
        Ok(signals)
    }

    /// Holds off the forced end of this process until the guard is dropped; a second signal ends it all the same. For a
    /// thread outside of a runtime.
    pub(crate) fn hold(&self) -> OwnedMutexGuard<()> {
        self.held.clone().blocking_lock_owned()
    }

    /// The first signal, if it has come.
    pub(crate) fn first(&self) -> Option<Interrupt> {
        *self.first.borrow()
    }

    /// Waits for the first signal.
    pub(crate) async fn wait(&self) -> Interrupt {
        let mut signal = self.first.subscribe();
        let by = signal.wait_for(Option::is_some).await.map(|by| *by);
        // The sender lives in `self`, so the awaited value is there.
        by.ok().flatten().unwrap_or(Interrupt::System)
    }
}

/// Waits until nothing holds the process, or for a `second` signal.
async fn released<T>(held: &Mutex<()>, second: impl Future<Output = T>) {
    tokio::select! {
        _ = held.lock() => {}
        _ = second => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use std::future::ready;

    #[test]
    fn a_forced_end_waits_for_work_that_holds_it_and_not_after_a_second_signal() {
        let held = Arc::new(Mutex::new(()));
        let ends = |second: bool| match second {
            true => released(&held, ready(())).now_or_never().is_some(),
            false => released(&held, pending::<()>()).now_or_never().is_some(),
        };
        let guard = held.clone().blocking_lock_owned();
        assert!(!ends(false), "it ended while files were removed");
        assert!(ends(true));
        drop(guard);
        assert!(ends(false));
    }

    #[test]
    fn a_process_that_was_started_to_survive_its_terminal_does() {
        let status = |mask: &str| format!("Name:\tposync\nSigBlk:\tffff\nSigIgn:\t{mask}\nSigCgt:\t1\n");
        for (mask, is_ignored) in [("0000000000001001", true), ("0000000000001000", false), ("", false)] {
            assert_eq!(ignores_hang_up(&status(mask)), is_ignored, "{mask}");
        }
        assert!(!ignores_hang_up(""), "a system that does not tell");
    }
}
