//! The logs of commands and roles, and their destinations.
//!
//! ```text
//!   command        ─► standard error
//!   role           ─► Repeats ─► standard error          (log = "stderr")
//!                             └► DIR/log, log.1 .. log.3  (log = "file")
//! ```

mod repeats;
mod rotating;

use repeats::{Repeats, WithoutRepeats};
use rotating::{Rotating, is_stderr};
use std::{
    io::{self, IsTerminal as _, Write as _},
    panic,
    path::Path,
};
use tracing_subscriber::{EnvFilter, fmt::writer::BoxMakeWriter};

/// Default filter of a member: its own messages, and the engine's warnings.
const MEMBER: &str = "warn,posync_node=info,posync_provider=info,posync_consumer=info,posync_gateway=info,posync_client=info,posync=info";
/// Default filter of a command.
const COMMAND: &str = "error";

/// The filter that `POSYNC_LOG` gives (`info`, `posync_provider=debug`), or the default `usual`.
fn filter(usual: &str) -> EnvFilter {
    // An empty variable counts as unset.
    let asked = std::env::var_os("POSYNC_LOG").filter(|asked| !asked.is_empty());
    let Some(asked) = asked.as_ref().map(|asked| asked.to_string_lossy()) else {
        return EnvFilter::new(usual);
    };
    EnvFilter::try_new(&asked).unwrap_or_else(|error| {
        let _ = writeln!(
            io::stderr(),
            "POSYNC_LOG is not followed: {error}; it is a list such as warn,posync_node=debug"
        );
        EnvFilter::new(usual)
    })
}

/// Starts the log of a command, on standard error.
pub(crate) fn command() {
    tracing_subscriber::fmt()
        .with_env_filter(filter(COMMAND))
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
}

/// Starts the log of the role in `directory`: of bounded size in its own file if `to_file`, else on standard
/// error. A lasting condition is logged once when it begins and once when it is over. Returns true if
/// standard error gets none of it.
pub(crate) fn member(directory: &Path, to_file: bool) -> bool {
    let file = to_file.then(|| Rotating::of(directory)).and_then(|file| {
        file.inspect_err(|error| {
            let _ = writeln!(io::stderr(), "the log cannot be written in {}: {error}", directory.display());
        })
        .ok()
    });
    let apart = file.is_some() && !is_stderr(&directory.join("log"));
    let ansi = file.is_none() && io::stderr().is_terminal();
    let writer = match file {
        Some(rotating) => BoxMakeWriter::new(rotating),
        None => BoxMakeWriter::new(io::stderr),
    };
    let repeats = Repeats::default();
    repeats.log_ends();
    tracing_subscriber::fmt()
        .with_env_filter(filter(MEMBER))
        .with_writer(writer)
        .with_ansi(ansi)
        .event_format(WithoutRepeats(repeats))
        .init();
    panic::set_hook(Box::new(|panicked| {
        tracing::error!(
            "this is a fault of the program, report it: {}",
            panicked.to_string().replace('\n', " ")
        );
    }));
    apart
}
