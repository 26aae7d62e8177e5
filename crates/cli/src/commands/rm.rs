//! `posync rm NAME`.

use crate::{failure::Outcome, gateway::Gateway, json, output::Output, session};
use std::path::Path;

/// Arguments of `rm`.
#[derive(Debug, clap::Args)]
pub(crate) struct Rm {
    /// The name on the network
    name: String,
}

impl Rm {
    /// Runs the command.
    pub(crate) fn run(self, net: &Path, output: Output) -> Outcome {
        session::run(async |context| {
            let file = Gateway::connect(&context, net).await?.remove(&self.name).await?;
            output.answer(&json::file(&file), || {
                format!("removed '{}': {} bytes", self.name.escape_debug(), file.bytes)
            })
        })
    }
}
