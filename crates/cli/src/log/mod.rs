//! What is logged, and where to.
//!
//! ```text
//!   command        ─► standard error
//!   member         ─► Repeats ─► standard error          (started by hand or by another supervisor)
//!                             └► DIR/log, log.1 .. log.3  (started by `devnet`)
//! ```

mod repeats;
mod rotating;

use repeats::{Repeats, Told};
use rotating::Rotating;
use std::{
    io::{self, IsTerminal as _, Write as _},
    panic,
    path::Path,
};
use tracing_subscriber::{EnvFilter, fmt::writer::BoxMakeWriter};

/// What a member of a network logs: its own story, and the engine's warnings.
const MEMBER: &str =
    "warn,posync_node=info,posync_provider=info,posync_gateway=info,posync_client=info,posync=info";
/// What a command logs.
const COMMAND: &str = "error";

/// `POSYNC_LOG` filters what is logged (`info`, `posync_provider=debug`).
fn filter(usual: &str) -> EnvFilter {
    // An empty variable is as if unset.
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

/// Logs a command.
pub(crate) fn command() {
    tracing_subscriber::fmt()
        .with_env_filter(filter(COMMAND))
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
}

/// Logs the member in `directory`: within a bound of bytes if its standard error is its own log, and
/// a condition that lasts once when it begins and once when it is over.
pub(crate) fn member(directory: &Path) {
    let writer = match Rotating::of(directory) {
        Some(rotating) => BoxMakeWriter::new(rotating),
        None => BoxMakeWriter::new(io::stderr),
    };
    let repeats = Repeats::default();
    repeats.tell_ends();
    tracing_subscriber::fmt()
        .with_env_filter(filter(MEMBER))
        .with_writer(writer)
        .with_ansi(io::stderr().is_terminal())
        .event_format(Told(repeats))
        .init();
    panic::set_hook(Box::new(|panicked| {
        tracing::error!(
            "this is a fault of the program, report it: {}",
            panicked.to_string().replace('\n', " ")
        );
    }));
}
