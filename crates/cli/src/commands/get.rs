//! `posync get NAME FILE`: a failed read leaves an existing file as it was ([`crate::target`]).

use crate::{
    failure::Outcome,
    gateway::Gateway,
    net::{Access, Net},
    output::Output,
    session,
    target::Target,
};
use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Command-line arguments of `posync get`.
#[derive(Debug, clap::Args)]
pub(crate) struct Get {
    /// The name on the network
    name: String,
    /// The file to write; `-` is standard output
    file: PathBuf,
}

impl Get {
    /// Reads the file into its target; the target changes only once the whole file has arrived.
    pub(crate) fn run(self, access: &Access, output: Output) -> Outcome {
        if self.file == Path::new("-") {
            return self.read_into(access, output, &mut io::stdout().lock()).map(|_| ());
        }
        let mut target = Target::open(&self.file)?;
        let file = self.read_into(access, output, &mut target)?;
        target.keep()?;
        output.answer(&file, || {
            format!(
                "wrote {}: {} bytes\nblake3 {}",
                self.file.display(),
                file.bytes,
                hex::encode(file.blake3)
            )
        })
    }

    fn read_into(
        &self,
        access: &Access,
        output: Output,
        target: &mut impl Write,
    ) -> Outcome<posync_protocol::wire::gateway::File> {
        let net = Net::open(access)?;
        session::run(async |context| {
            let gateway = Gateway::connect(&context, &net).await?;
            let bar = output.progress(0);
            let begin = |file: &posync_protocol::wire::gateway::File| bar.set_length(file.bytes);
            let file = gateway.get(&self.name, target, begin, |bytes| bar.inc(bytes)).await?;
            bar.finish_and_clear();
            Ok(file)
        })
    }
}
