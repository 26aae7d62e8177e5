//! What a command says when it cannot do what was asked: what happened, why, and what to do next.
//!
//! The exit code is part of the interface: scripts branch on it, so a number never changes its
//! meaning (the table is in README.md).

use crate::output::visible;
use miette::Diagnostic;
use serde_json::json;
use std::{fmt, path::Path};

/// How the process ends. `0` is success; clap itself uses `2` for a command line it cannot read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// A step did not hold, or something went wrong that no other code names.
    Failed = 1,
    /// The arguments contradict each other or the network's files.
    Usage = 2,
    /// No network answers.
    Unreachable = 3,
    /// What was named does not exist.
    NotFound = 4,
    /// The network, a node or the gateway said no, with a reason.
    Refused = 5,
    /// A proof does not verify.
    Unproven = 6,
    /// Something awaited did not happen within its bound.
    TimedOut = 7,
    /// A local file or directory cannot be read or written.
    Local = 8,
    /// Ctrl-C, as a shell reports it of other programs.
    Interrupted = 130,
    /// Told to end (SIGTERM, SIGHUP), as a shell reports the first of other programs.
    Terminated = 143,
    /// Whoever read standard output has seen enough, as a shell reports it of other programs.
    Closed = 141,
}

/// A failed command.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    what: String,
    #[source]
    why: Why,
    next: String,
}

/// The reason, as a cause in the chain that is shown.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Why(String);

/// What every command returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// `what` happened, `why`, and what to do `next`.
    pub(crate) fn new(
        exit: Exit,
        what: impl Into<String>,
        why: impl fmt::Display,
        next: impl Into<String>,
    ) -> Self {
        let (what, why, next) = (what.into(), why.to_string(), next.into());
        Self { exit, what: visible(&what), why: Why(visible(&why)), next: visible(&next) }
    }

    /// A file that cannot be used.
    pub(crate) fn file(path: &Path, doing: &str, why: impl fmt::Display) -> Self {
        Self::new(
            Exit::Local,
            format!("cannot {doing} {}", path.display()),
            why,
            "check that the path is right, that you may access it, and that the disk has space",
        )
    }

    /// A file that can be read and does not say what it must; `next` tells where that can be had.
    pub(crate) fn damaged(path: &Path, why: impl fmt::Display, next: &str) -> Self {
        Self::new(Exit::Local, format!("{} is damaged", path.display()), why, next)
    }

    /// Nobody reads standard output any more: no words are due, `yes | head` has none either.
    pub(crate) fn closed() -> Self {
        let next = "read the output to its end";
        Self::new(Exit::Closed, "standard output is closed", "its reader has ended", next)
    }

    /// Something awaited that did not happen.
    pub(crate) fn timed_out(
        awaited: &str,
        seconds: u64,
        seen: impl fmt::Display,
        next: impl Into<String>,
    ) -> Self {
        Self::new(Exit::TimedOut, format!("{awaited}: did not happen within {seconds} s"), seen, next)
    }

    /// Everything in one line, for a log.
    pub(crate) fn in_one_line(&self) -> String {
        let Self { what, why, next, .. } = self;
        format!("{what}: {}; {next}", why.0).replace(['\n', '\r'], " ")
    }

    /// For `--json`: one object on stderr.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        json!({ "error": { "what": self.what, "why": self.why.0, "next": self.next, "exit": self.exit as u8 } })
    }
}

impl Diagnostic for Failure {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.next))
    }
}
