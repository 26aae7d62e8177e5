//! `posync doctor`: checks the machine of a role and its way into the network, at any time.

use crate::{
    checks,
    failure::{Exit, Failure, Outcome},
    output::Output,
    role::settings,
    session,
};
use std::path::PathBuf;

/// Command-line arguments of `posync doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {
    /// Directory of the role, as `posync init` or `posync join` made it
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

impl Doctor {
    /// Prints each check; fails if one of them failed.
    pub(crate) fn run(self, output: Output) -> Outcome {
        if !self.dir.join(settings::FILE).exists() {
            let what = format!("there is no role in {}", self.dir.display());
            let why = format!("it holds no {}", settings::FILE);
            let next = "name the directory of a role with --dir; `posync join` or `posync init` makes one";
            return Err(Failure::new(Exit::NotFound, what, why, next));
        }
        let checks = session::run(async |context| Ok(checks::all(&context, &self.dir).await))?;
        checks::report(&checks, output)
    }
}
