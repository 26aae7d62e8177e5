//! `posync put FILE [NAME]`: returns once at least 6 of 8 shards of every segment are durable.

use crate::{
    failure::{Exit, Failure, Outcome},
    gateway::Gateway,
    net::{Access, Net},
    output::Output,
    session,
    source::Source,
};
use std::path::{Path, PathBuf};

/// Command-line arguments of `posync put`.
#[derive(Debug, clap::Args)]
pub(crate) struct Put {
    /// The file to store; `-` is standard input
    file: PathBuf,
    /// Its name on the network; the file's own name if not given
    name: Option<String>,
    /// Number of bytes of the file; a file of another length is refused. Standard input without this number is
    /// first copied to a temporary file
    #[arg(long, value_name = "BYTES")]
    length: Option<u64>,
}

impl Put {
    /// Stores the file and prints how many shards are durable.
    pub(crate) fn run(self, access: &Access, output: Output) -> Outcome {
        let name = match self.name {
            Some(name) => name,
            None => own_name(&self.file)?,
        };
        let mut source = if self.file == Path::new("-") {
            Source::stdin(self.length)?
        } else {
            Source::open(&self.file)?.of_length(self.length)?
        };
        let net = Net::open(access)?;
        session::run(async |context| {
            let gateway = Gateway::connect(&context, &net).await?;
            let bar = output.progress(source.length());
            let file = gateway.put(&name, &mut source, |bytes| bar.inc(bytes)).await?;
            bar.finish_and_clear();
            output.answer(&file, || {
                format!(
                    "stored '{}': {} bytes, {} segments, {} of {} shards durable\nblake3 {}",
                    name.escape_debug(),
                    file.bytes,
                    file.segments,
                    file.shards_durable,
                    file.shards,
                    hex::encode(file.blake3)
                )
            })
        })
    }
}

fn own_name(path: &Path) -> Outcome<String> {
    path.file_name().and_then(|name| name.to_str()).map(str::to_owned).ok_or_else(|| {
        Failure::new(
            Exit::Usage,
            format!("{} has no name that is text", path.display()),
            "names on the network are UTF-8",
            "give a name after the file",
        )
    })
}
