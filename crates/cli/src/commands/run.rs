//! `posync run --local MODULE`: a WebAssembly program on this machine, as a provider would run it.
//!
//! The program's standard output is this command's, and its exit code too; its standard error comes while it runs,
//! and one line about the cost at the end. The engine is in a lane, a child process, so that neither the program
//! nor its compiler can harm this one.

use crate::{
    failure::{Exit, Failure, Outcome},
    interrupt::Signals,
    output::Output,
};
use posync_compute::{
    Exit as Ended, Job,
    lane::{EngineKind, Lane, LaneError},
    limits,
};
use rustix::fs::Access;
use serde_json::{Value, json};
use std::{
    env,
    ffi::OsStr,
    fs::{self, DirBuilder, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Time in which a module must be compiled: esbuild, of 20 MB, takes a fifth of it on two busy cores.
const COMPILE_MAX: Duration = Duration::from_secs(300);
/// Time that a job has whatever its gas.
const RUN_MIN: Duration = Duration::from_secs(60);
/// Gas of a second at the slowest: a hundredth of the usual. A job that is slower than that is ended. The help of `--gas`
/// and docs/compute.md name both numbers.
const GAS_PER_SECOND_MIN: u64 = 50_000_000;

/// Bytes of a file that are written between two looks at signals.
const PIECE_BYTES: usize = 1 << 20;

/// Exit codes of a program that did not end by itself, as a shell reports the signals that are alike: abort,
/// a fault of memory, and too much processor time.
const TRAPPED: u8 = 134;
const OUT_OF_STACK: u8 = 139;
const OUT_OF_GAS: u8 = 152;

/// Command-line arguments of `posync run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// The program: a WebAssembly module for WASI preview 1 (wasm32-wasip1)
    module: PathBuf,
    /// Run it on this machine. Programs cannot be run on the network yet
    #[arg(long)]
    local: bool,
    /// Its standard input; `-` is this command's. It is empty if not given
    #[arg(long, value_name = "FILE")]
    stdin: Option<PathBuf>,
    /// A file for it: its path there, and the file here. Repeat it for more
    #[arg(long = "file", value_name = "PATH=FILE", value_parser = pair)]
    files: Vec<(String, String)>,
    /// A variable of its environment. Repeat it for more
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// A new directory for the files that it leaves in /out
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Gas that it may use; a unit is about one simple instruction. It also buys time: a run is ended after 60 s and
    /// another second for each 50,000,000 of it
    #[arg(long, default_value_t = limits::GAS_MAX)]
    gas: u64,
    /// Arguments of the program
    #[arg(last = true)]
    args: Vec<String>,
}

/// Splits `NAME=VALUE` at the first `=`.
fn pair(text: &str) -> Result<(String, String), String> {
    let split = text.split_once('=').filter(|(name, _)| !name.is_empty());
    split.map(|(name, value)| (name.into(), value.into())).ok_or_else(|| "it has the form NAME=VALUE".into())
}

impl Run {
    /// Runs the program, and returns the exit code of this process.
    pub(crate) fn run(self, output: Output) -> Outcome<u8> {
        if !self.local {
            return Err(Failure::new(
                Exit::Usage,
                "programs cannot be run on the network yet",
                "this version runs them on this machine only",
                "add --local",
            ));
        }
        let module = read(&self.module, limits::MODULE_BYTES_MAX)?;
        let out = self.out.as_deref().map(Directory::new).transpose()?;
        let job = self.job()?;
        let mut lane = start()?;
        let begun = Instant::now();
        let ready = lane.ready(&module, COMPILE_MAX).map_err(|error| uncompiled(&self.module, error))?;
        let compiled = begun.elapsed();
        let within = RUN_MIN + Duration::from_secs(self.gas / GAS_PER_SECOND_MIN);
        let mut live = |bytes: &[u8]| {
            // A reader that closed standard error does not want it.
            let _ = io::stderr().write_all(bytes);
        };
        let begun = Instant::now();
        let done = lane.run(ready, EngineKind::Cranelift, job, within, &mut live);
        let done = done.map_err(|error| unusable(&self.module, error))?;
        let seconds = begun.elapsed().as_secs_f64();
        // First the output, then the files: if one of the two fails, the other is there.
        let printed = if output.json {
            output.answer(&self.json(&ready, &done, seconds), String::new)
        } else {
            print(&done.stdout)
        };
        if let Some(out) = out {
            out.write(&done.files)?;
        }
        printed?;
        if !output.json {
            let note = match (&self.out, done.files.len()) {
                (None, 1..) => "; the files in /out are dropped, --out DIR keeps them",
                _ => "",
            };
            let cost = format!(
                "{}: gas {} of {}, {seconds:.2} s, ready after {:.2} s; gas has no price yet{note}",
                done.exit,
                done.gas,
                self.gas,
                compiled.as_secs_f64()
            );
            let _ = writeln!(io::stderr(), "{cost}");
        }
        Ok(code(done.exit))
    }

    /// The job, with the bytes of its input.
    fn job(&self) -> Outcome<Job> {
        let mut left = limits::INPUT_BYTES_MAX;
        let stdin = match self.stdin.as_deref() {
            None => Vec::new(),
            Some(path) if path == Path::new("-") => bytes(io::stdin().lock(), path, left)?,
            Some(path) => read(path, left)?,
        };
        left -= stdin.len();
        let mut files = Vec::new();
        for (name, path) in &self.files {
            let bytes = read(Path::new(path), left)?;
            left -= bytes.len();
            files.push((name.clone(), bytes));
        }
        let job = Job {
            args: self.args.clone(),
            env: self.env.clone(),
            stdin,
            files,
            gas: self.gas,
            pages: limits::PAGES_MAX,
            output: limits::OUTPUT_BYTES_MAX as u64,
            seed: [0; 32],
        };
        posync_compute::program::check_job(&job).map_err(|refusal| {
            let next = "change the arguments of the command, and run it again";
            Failure::new(Exit::Usage, "the job is not possible", refusal, next)
        })?;
        Ok(job)
    }

    fn json(&self, module: &[u8; 32], done: &posync_compute::Outcome, seconds: f64) -> Value {
        let (kind, detail) = match done.exit {
            Ended::Code(code) => ("exit", json!(code)),
            Ended::Trap(trap) => ("trap", json!(trap.to_string())),
            Ended::OutOfGas => ("out-of-gas", Value::Null),
            Ended::OutOfStack => ("out-of-stack", Value::Null),
        };
        let (stdout, stdout_hex) = match std::str::from_utf8(&done.stdout) {
            Ok(text) => (json!(text), Value::Null),
            Err(_) => (Value::Null, json!(hex::encode(&done.stdout))),
        };
        json!({
            "module": hex::encode(module),
            "exit": { "kind": kind, "detail": detail },
            "gas": done.gas,
            "gas_limit": self.gas,
            "seconds": seconds,
            "stdout": stdout,
            "stdout_hex": stdout_hex,
            "output_blake3": hex::encode(done.output_hash()),
            "files": done.files.iter().map(|(path, bytes)| json!({
                "path": path,
                "bytes": bytes.as_ref().map(Vec::len),
            })).collect::<Vec<_>>(),
        })
    }
}

/// Starts a lane of this program.
fn start() -> Outcome<Lane> {
    let program =
        env::current_exe().map_err(|error| Failure::file(Path::new("this program"), "find", error))?;
    let cache = cache();
    let mut arguments = vec![OsStr::new("lane")];
    if let Some(cache) = &cache {
        arguments.extend([OsStr::new("--cache"), cache.as_os_str()]);
    }
    Lane::start(&program, &arguments).map_err(|error| unusable(&program, error))
}

/// The directory of compiled modules, of this user alone; without one each run compiles its module anew.
fn cache() -> Option<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let base = base.or_else(|| env::home_dir().map(|home| home.join(".cache")))?;
    let directory = base.join("posync/compute");
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
    match made.and_then(|()| check_owner(&directory)) {
        Ok(()) => Some(directory),
        Err(error) => {
            let _ = writeln!(
                io::stderr(),
                "compiled modules are not kept, and none is taken from {}: {error}",
                directory.display()
            );
            None
        }
    }
}

/// Refuses a directory into which another user can put machine code, or from which one can read it. Rights that are taken
/// away later leave the code in it, so the only way to trust it again is a new one.
fn check_owner(directory: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(directory)?;
    let is_ours = found.is_dir() && found.uid() == rustix::process::geteuid().as_raw();
    if is_ours && found.mode() & 0o077 == 0 {
        return Ok(());
    }
    let why = "it must be a directory of this user on which group and others have no rights; remove it";
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

/// The failure of a lane that made a module ready, with the next step.
fn uncompiled(module: &Path, error: LaneError) -> Failure {
    let LaneError::Late(within) = error else { return unusable(module, error) };
    let why = format!("compiling it took longer than {} s and was ended", within.as_secs());
    let next =
        "build it smaller, or without what it does not use; or run it again when this machine has less to do";
    Failure::new(Exit::TimedOut, format!("{} has no result", module.display()), why, next)
}

/// The failure of a lane, with the next step.
fn unusable(module: &Path, error: LaneError) -> Failure {
    let (exit, next) = match error {
        LaneError::Refused(_) => (Exit::Refused, "docs/compute.md says which programs can be run"),
        LaneError::Late(_) => (Exit::TimedOut, "give it less to do, or more --gas, which brings more time"),
        _ => (Exit::Failed, "run it again; if it fails each time, the module is not for this engine"),
    };
    Failure::new(exit, format!("{} has no result", module.display()), error, next)
}

/// The exit code of this process for a program's end. A shell sees eight bits; larger codes become 255.
fn code(exit: Ended) -> u8 {
    match exit {
        Ended::Code(code) => u8::try_from(code).unwrap_or(u8::MAX),
        Ended::Trap(_) => TRAPPED,
        Ended::OutOfStack => OUT_OF_STACK,
        Ended::OutOfGas => OUT_OF_GAS,
    }
}

/// Reads a file of at most `most` bytes.
fn read(path: &Path, most: usize) -> Outcome<Vec<u8>> {
    let file = File::open(path).map_err(|error| Failure::file(path, "read", error))?;
    bytes(file, path, most)
}

fn bytes(from: impl io::Read, path: &Path, most: usize) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = from.take(most as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::file(path, "read", error))?;
    if bytes.len() > most {
        let why = format!("only {most} bytes more can be given to a program");
        return Err(Failure::new(
            Exit::Usage,
            format!("{} is too large", path.display()),
            why,
            "give it less",
        ));
    }
    Ok(bytes)
}

fn print(bytes: &[u8]) -> Outcome {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::closed()),
        written => written.map_err(|error| Failure::file(Path::new("standard output"), "write to", error)),
    }
}

/// Writes a new file, unless a signal asks this process to end.
fn write_file(path: &Path, bytes: &[u8], signals: &Signals) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    for piece in bytes.chunks(PIECE_BYTES) {
        if signals.first().is_some() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        file.write_all(piece)?;
    }
    Ok(())
}

/// The directory for a program's files: it appears whole, or not at all.
struct Directory {
    /// Where it will be; the directory above it has no links in its path.
    path: PathBuf,
    parent: PathBuf,
}

impl Directory {
    /// Checks the path before anything runs: nothing may be there but an empty directory that can be replaced.
    fn new(path: &Path) -> Outcome<Self> {
        let refused = |why: &str| {
            let next = "name a directory that does not exist yet";
            Failure::new(Exit::Local, format!("{} cannot hold the files", path.display()), why, next)
        };
        let name = path.file_name().ok_or_else(|| refused("its path ends without a name"))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let parent = fs::canonicalize(parent).map_err(|error| Failure::file(parent, "use", error))?;
        let whole = parent.join(name);
        match fs::symlink_metadata(&whole) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::file(path, "use", error)),
            Ok(found) if !found.is_dir() => return Err(refused("something else has that name")),
            Ok(found) => {
                let above = fs::metadata(&parent).map_err(|error| Failure::file(&parent, "use", error))?;
                if found.dev() != above.dev() {
                    return Err(refused("it is a mount point, which cannot be replaced"));
                }
                let mut entries = fs::read_dir(&whole).map_err(|error| Failure::file(path, "use", error))?;
                if entries.next().is_some() {
                    return Err(refused("it is not empty"));
                }
            }
        }
        // A directory that cannot be written shows now, and not after the run.
        let writable = rustix::fs::access(&parent, Access::WRITE_OK | Access::EXEC_OK);
        writable.map_err(|error| Failure::file(&parent, "write into", error))?;
        Ok(Self { path: whole, parent })
    }

    /// Writes the files, whose paths the lane's owner has checked, and gives them their name. If that fails, those
    /// that were written stay where they are; if a signal ends it, they go, and this process ends after that.
    fn write(self, files: &[(String, Option<Vec<u8>>)]) -> Outcome {
        let signals = Signals::listen()?;
        let _held = signals.hold();
        let beside = tempfile::Builder::new().prefix(".posync-out-").tempdir_in(&self.parent);
        let beside = beside.map_err(|error| Failure::file(&self.path, "make", error))?;
        let whole = beside.path().join("out");
        let write = || -> io::Result<()> {
            fs::create_dir(&whole)?;
            for (path, bytes) in files {
                let path = whole.join(path);
                match bytes {
                    None => fs::create_dir_all(path)?,
                    Some(bytes) => {
                        path.parent().map_or(Ok(()), fs::create_dir_all)?;
                        write_file(&path, bytes, &signals)?;
                    }
                }
            }
            fs::rename(&whole, &self.path)
        };
        write().map_err(|error| {
            if let Some(by) = signals.first() {
                let why = "a signal asked it to end before the files were written";
                let place = beside.path().to_owned();
                let next = match beside.close() {
                    Ok(()) => format!("nothing is left of them; run it again for {}", self.path.display()),
                    Err(error) => {
                        format!("remove {}, which this command could not: {error}", place.display())
                    }
                };
                return Failure::new(by.exit(), "the command was interrupted", why, next);
            }
            let kept = beside.keep();
            let next = format!("the files that were written are in {}; move or remove them", kept.display());
            Failure::new(Exit::Local, format!("cannot write {}", self.path.display()), error, next)
        })
    }
}
