//! The message of a command that cannot do what was asked: what happened, why, and what to do next.
//!
//! The exit code is part of the interface: scripts branch on it, so a number never changes its
//! meaning (the table is in README.md).

use crate::output::visible;
use miette::Diagnostic;
use serde_json::json;
use std::{fmt, path::Path};

/// Exit code of the process. `0` is success; clap itself uses `2` for a command line it cannot parse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// A step did not hold, or another failure that has no code of its own.
    Failed = 1,
    /// The arguments contradict each other or the network's files.
    Usage = 2,
    /// No node or gateway of the network answers.
    Unreachable = 3,
    /// The named thing does not exist.
    NotFound = 4,
    /// The network, a node or the gateway refused, with a reason.
    Refused = 5,
    /// A proof does not verify.
    Unproven = 6,
    /// An awaited event did not happen in time.
    TimedOut = 7,
    /// A local file or directory cannot be read or written.
    Local = 8,
    /// Interrupted by Ctrl-C, as a shell reports it of other programs.
    Interrupted = 130,
    /// Ended by SIGTERM or SIGHUP, as a shell reports the first of other programs.
    Terminated = 143,
    /// The reader of standard output has closed it, as a shell reports it of other programs.
    Closed = 141,
}

/// The failure of a command: what happened, why, and what to do next.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Failure {
    /// Exit code of the process.
    pub(crate) exit: Exit,
    what: String,
    #[source]
    why: Why,
    next: String,
}

/// The reason, as the cause in the error chain that is shown.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Why(String);

/// The result of every command.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// Makes a failure: `what` happened, `why`, and what to do `next`.
    pub(crate) fn new(
        exit: Exit,
        what: impl Into<String>,
        why: impl fmt::Display,
        next: impl Into<String>,
    ) -> Self {
        let (what, why, next) = (what.into(), why.to_string(), next.into());
        Self { exit, what: visible(&what), why: Why(visible(&why)), next: visible(&next) }
    }

    /// The failure of an operation (`doing`) on a file.
    pub(crate) fn file(path: &Path, doing: &str, why: impl fmt::Display) -> Self {
        Self::new(
            Exit::Local,
            format!("cannot {doing} {}", path.display()),
            why,
            "check that the path is right, that you may access it, and that the disk has space",
        )
    }

    /// The failure of a readable file with invalid content; `next` says where a good one can be had.
    pub(crate) fn damaged(path: &Path, why: impl fmt::Display, next: &str) -> Self {
        Self::new(Exit::Local, format!("{} is damaged", path.display()), why, next)
    }

    /// The failure of a command whose output has no reader left; it prints no message, like `yes | head`.
    pub(crate) fn closed() -> Self {
        let next = "read the output to its end";
        Self::new(Exit::Closed, "standard output is closed", "its reader has ended", next)
    }

    /// The failure of a wait: the awaited event did not happen in time.
    pub(crate) fn timed_out(
        awaited: &str,
        seconds: u64,
        seen: impl fmt::Display,
        next: impl Into<String>,
    ) -> Self {
        Self::new(Exit::TimedOut, format!("{awaited}: did not happen within {seconds} s"), seen, next)
    }

    /// The failure in its three parts: what happened, why, and what to do next.
    pub(crate) fn parts(&self) -> [&str; 3] {
        [&self.what, &self.why.0, &self.next]
    }

    /// The whole failure on one line, for a log.
    pub(crate) fn in_one_line(&self) -> String {
        let Self { what, why, next, .. } = self;
        format!("{what}: {}; {next}", why.0).replace(['\n', '\r'], " ")
    }

    /// The failure as the one object that `--json` prints on stderr.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        json!({ "error": { "what": self.what, "why": self.why.0, "next": self.next, "exit": self.exit as u8 } })
    }
}

impl Diagnostic for Failure {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.next))
    }
}
