//! `posync get NAME FILE`: writes beside the target and renames, so a failed read leaves nothing.

use crate::{
    failure::{Failure, Outcome},
    gateway::Gateway,
    json,
    output::Output,
    session,
};
use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

/// Arguments of `get`.
#[derive(Debug, clap::Args)]
pub(crate) struct Get {
    /// The name on the network
    name: String,
    /// Where to write it; `-` is standard output
    file: PathBuf,
}

impl Get {
    /// Runs the command.
    pub(crate) fn run(self, net: &Path, output: Output) -> Outcome {
        if self.file == Path::new("-") {
            return self.read_into(net, output, &mut io::stdout().lock()).map(|_| ());
        }
        let mut part = OsString::from(self.file.as_os_str());
        part.push(".part");
        let part = PathBuf::from(part);
        let failed = |error| Failure::file(&self.file, "write", error);
        let mut target = BufWriter::new(File::create(&part).map_err(failed)?);
        let file = self.read_into(net, output, &mut target).inspect_err(|_| {
            // The failure that led here is the one to report.
            let _ = fs::remove_file(&part);
        })?;
        target.flush().and_then(|()| target.get_ref().sync_all()).map_err(failed)?;
        fs::rename(&part, &self.file).map_err(failed)?;
        output.answer(&json::file(&file), || {
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
        net: &Path,
        output: Output,
        target: &mut impl Write,
    ) -> Outcome<posync_protocol::wire::gateway::File> {
        session::run(async |context| {
            let gateway = Gateway::connect(&context, net).await?;
            let bar = output.progress(0);
            let begin = |file: &posync_protocol::wire::gateway::File| bar.set_length(file.bytes);
            let file = gateway.get(&self.name, target, begin, |bytes| bar.inc(bytes)).await?;
            bar.finish_and_clear();
            Ok(file)
        })
    }
}
