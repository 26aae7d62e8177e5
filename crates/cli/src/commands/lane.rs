//! `posync lane`: the child process in which programs run. Only this program starts it; people do not.

use std::{path::PathBuf, process::ExitCode};

/// Command-line arguments of `posync lane`.
#[derive(Debug, clap::Args)]
pub(crate) struct Lane {
    /// The directory that keeps compiled modules
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
}

impl Lane {
    /// Serves the owner on standard input and output until it closes them.
    pub(crate) fn run(self) -> ExitCode {
        posync_compute::lane::serve(self.cache.as_deref())
    }
}
