//! `posync demo`: the tour of [`crate::demo`], on a network of its own.

use crate::{
    demo::story::{self, Source},
    devnet::running::{Running, Size},
    failure::{Exit, Failure, Outcome},
    network,
    output::Output,
    session, source,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The file stored by default: the versions that this program was built from.
const OWN_FILE: &[u8] = include_bytes!("../../../../Cargo.lock");

/// Command-line arguments of `posync demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// The file to store; this repository's Cargo.lock if not given
    #[arg(long)]
    file: Option<PathBuf>,
    /// A new directory for the network; if not given, a temporary one that is removed after a success
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl Demo {
    /// Runs the tour on a new network; fails if a step did not hold.
    pub(crate) fn run(self, output: Output) -> Outcome {
        let source = source(self.file)?;
        let directory = match &self.dir {
            Some(dir) => dir.clone(),
            None => temporary()?,
        };
        if directory.join(network::FILE).exists() {
            return Err(Failure::new(
                Exit::Usage,
                format!("{} holds a network already", directory.display()),
                "the tour starts from a new one, because it breaks two members",
                "name a new directory with --dir",
            ));
        }
        // The tour waits for epochs, which end after a number of blocks.
        let size = Size { grace: Some(story::GRACE), quiet_ms: Some(0), ..Size::USUAL };
        let mut running = Running::start(&directory, &size)?;
        let directory = running.directory.clone();
        let report = session::run(async |context| story::run(&context, &mut running, &source).await);
        running.stop()?;
        let report = report.inspect_err(|_| eprintln!("everything is kept in {}", directory.display()))?;
        output.answer(&report.to_json(), || report.to_text())?;
        story::judged(&report)?;
        if self.dir.is_none() {
            keep_only_the_proof(&directory)?;
        }
        Ok(())
    }
}

/// Creates a directory with a unique name; the tour's proof stays in it.
fn temporary() -> Outcome<PathBuf> {
    let made = tempfile::Builder::new().prefix("posync-demo-").tempdir();
    made.map(tempfile::TempDir::keep).map_err(|error| {
        let next = "make room in the temporary directory, or name another one with --dir";
        Failure::new(Exit::Local, "cannot make a temporary directory", error, next)
    })
}

fn source(file: Option<PathBuf>) -> Outcome<Source> {
    let Some(path) = file else {
        return Ok(Source {
            label: "Cargo.lock".into(),
            bytes: OWN_FILE.len() as u64,
            open: Box::new(|| Ok(source::Source::bytes("Cargo.lock", OWN_FILE))),
        });
    };
    let bytes = source::Source::open(&path)?.length();
    let label = path.display().to_string();
    let open = move || source::Source::open(&path);
    Ok(Source { label, bytes, open: Box::new(open) })
}

/// Removes the members of a temporary network and keeps the proof.
fn keep_only_the_proof(directory: &Path) -> Outcome {
    let failed = |error| Failure::file(directory, "clean up", error);
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "sync") {
            continue;
        }
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(failed)?;
    }
    Ok(())
}
