//! `posync rm NAME`: forgets a stored file.

use crate::{
    failure::Outcome,
    gateway::Gateway,
    net::{Access, Net},
    output::Output,
    session,
};

/// Command-line arguments of `posync rm`.
#[derive(Debug, clap::Args)]
pub(crate) struct Rm {
    /// Name of the file on the network
    name: String,
}

impl Rm {
    /// Deletes the file from the catalogue and prints its size.
    pub(crate) fn run(self, access: &Access, output: Output) -> Outcome {
        let net = Net::open(access)?;
        session::run(async |context| {
            let file = Gateway::connect(&context, &net).await?.remove(&self.name).await?;
            output.answer(&file, || format!("removed '{}': {} bytes", self.name.escape_debug(), file.bytes))
        })
    }
}
