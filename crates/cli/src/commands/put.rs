//! `posync put FILE [NAME]`: answered when at least 6 of 8 shards of every segment are durable.

use crate::{
    failure::{Exit, Failure, Outcome},
    gateway::Gateway,
    json,
    output::Output,
    session,
};
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Arguments of `put`.
#[derive(Debug, clap::Args)]
pub(crate) struct Put {
    /// The file to store; `-` is standard input
    file: PathBuf,
    /// Its name on the network; the file's own name if not given
    name: Option<String>,
    /// How many bytes standard input will bring
    #[arg(long, value_name = "BYTES")]
    length: Option<u64>,
}

impl Put {
    /// Runs the command.
    pub(crate) fn run(self, net: &Path, output: Output) -> Outcome {
        let (mut source, length): (Box<dyn Read>, u64) = if self.file == Path::new("-") {
            (Box::new(io::stdin().lock()), self.length.ok_or_else(unknown_length)?)
        } else {
            let (file, length) = open(&self.file)?;
            (Box::new(file), length)
        };
        let name = match self.name {
            Some(name) => name,
            None => own_name(&self.file)?,
        };
        session::run(async |context| {
            let gateway = Gateway::connect(&context, net).await?;
            let bar = output.progress(length);
            let file = gateway.put(&name, length, &mut source, |bytes| bar.inc(bytes)).await?;
            bar.finish_and_clear();
            output.answer(&json::file(&file), || {
                format!(
                    "stored '{name}': {} bytes, {} segments, {} of {} shards durable\nblake3 {}",
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

fn unknown_length() -> Failure {
    let why = "a file is announced with its length before its first byte";
    Failure::new(Exit::Usage, "standard input has no known length", why, "give it with --length BYTES")
}

/// Opens a regular file and tells its length.
pub(crate) fn open(path: &Path) -> Outcome<(File, u64)> {
    let failed = |error| Failure::file(path, "read", error);
    let file = File::open(path).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() {
        return Err(Failure::file(path, "store", "it is not a regular file"));
    }
    Ok((file, about.len()))
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
