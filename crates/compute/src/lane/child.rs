//! The lane's side: limits of the process, modules that are ready, and the thread that runs jobs.

use super::{
    confine::confine,
    frame::{self, EngineKind, Reply, Request},
};
use crate::{
    cranelift::{Compiled, Cranelift},
    environment::Fault,
    interpreter::{Interpreter, Translated},
    job::Outcome,
    limits,
    program::{ModuleHash, Program},
};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::{
    collections::VecDeque,
    io,
    path::Path,
    process::{self, ExitCode},
    sync::{Arc, mpsc},
    thread,
};

/// Modules that a lane keeps ready; the oldest gives way.
const READY_MAX: usize = 16;
/// Requests that wait while a job runs.
const WAITING_MAX: usize = 4;
/// Bytes of private memory that a lane may have: the largest job beside the compilation of the largest module.
const DATA_BYTES_MAX: u64 = 6 << 30;
/// Bytes of the largest file that a lane may write: machine code in the cache.
const FILE_BYTES_MAX: u64 = 512 << 20;
/// Files that a lane may have open.
const FILES_MAX: u64 = 256;
/// Stack of the host's own functions, above the engine's.
const HOST_STACK_BYTES: usize = 4 << 20;

/// Runs `work` on a thread whose stack is large enough for an engine.
///
/// # Panics
/// If the machine has no room for the thread, or if `work` panics.
pub fn with_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = thread::Builder::new().stack_size(limits::ENGINE_STACK_BYTES + HOST_STACK_BYTES).spawn(work);
    let thread = thread.expect("the machine has room for the stack of an engine");
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Serves the owner on standard input and output until it closes them. Compiled modules are kept in `cache`, a directory
/// that exists. Call it before this process has a second thread: rights are taken from one, and those that it starts.
pub fn serve(cache: Option<&Path>) -> ExitCode {
    limit();
    if let Err(left) = confine(cache) {
        eprintln!("a lane keeps rights of its user that it does not need; {left}");
    }
    // A lane with a broken thread must not look as if it were still at work.
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        process::exit(101);
    }));
    let (requests, queue) = mpsc::sync_channel(WAITING_MAX);
    let cache = cache.map(Path::to_owned);
    let worker = thread::Builder::new().stack_size(limits::ENGINE_STACK_BYTES + HOST_STACK_BYTES);
    let worker = worker.spawn(move || work(cache.as_deref(), &queue));
    if let Err(error) = worker {
        eprintln!("a lane cannot start: this machine has no room for its stack: {error}");
        return ExitCode::FAILURE;
    }
    let mut stdin = io::stdin().lock();
    loop {
        match frame::read::<Request>(&mut stdin, limits::FRAME_BYTES_MAX) {
            // The owner is gone, so nobody waits for the job that may be running.
            Ok(None) => process::exit(0),
            Ok(Some(request)) => {
                if requests.send(request).is_err() {
                    return ExitCode::FAILURE;
                }
            }
            Err(error) => {
                eprintln!("a lane ends: its owner sent what is no request: {error}");
                process::exit(1);
            }
        }
    }
}

/// Sets the limits of this process. One that cannot be set is left as the machine has it.
fn limit() {
    let at_most = |resource, most: u64| {
        let now = rustix::process::getrlimit(resource);
        let most = now.maximum.map_or(most, |maximum| maximum.min(most));
        let _ = setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) });
    };
    at_most(Resource::Core, 0);
    at_most(Resource::Data, DATA_BYTES_MAX);
    at_most(Resource::Fsize, FILE_BYTES_MAX);
    at_most(Resource::Nofile, FILES_MAX);
}

/// Answers requests, one after the other.
fn work(cache: Option<&Path>, requests: &mpsc::Receiver<Request>) {
    let mut modules = match Modules::new(cache) {
        Ok(modules) => modules,
        Err(fault) => {
            eprintln!("a lane cannot start: {fault}");
            process::exit(1);
        }
    };
    while let Ok(request) = requests.recv() {
        let answer = match request {
            Request::Module(bytes) => modules.ready(&bytes),
            Request::Job { module, engine, job } => {
                let live = Box::new(|bytes: &[u8]| say(&Reply::Stderr(bytes.to_vec())));
                match modules.run(&module, engine, job, live) {
                    Ok(outcome) => Reply::Done(outcome),
                    Err(fault) => Reply::Failed(fault.to_string()),
                }
            }
        };
        say(&answer);
    }
}

/// Sends an answer. A lane whose owner does not read has no further use.
fn say(answer: &Reply) {
    if frame::write(&mut io::stdout().lock(), answer).is_err() {
        process::exit(1);
    }
}

/// A module that is ready, by engine; the second is made when it is asked for.
struct Ready {
    program: Arc<Program>,
    compiled: Compiled,
    translated: Option<Translated>,
}

/// Modules that are ready, the newest last.
struct Modules {
    cranelift: Cranelift,
    interpreter: Interpreter,
    ready: VecDeque<(ModuleHash, Ready)>,
}

impl Modules {
    fn new(cache: Option<&Path>) -> Result<Self, Fault> {
        let (cranelift, interpreter) = (Cranelift::new(cache)?, Interpreter::new());
        Ok(Self { cranelift, interpreter, ready: VecDeque::new() })
    }

    fn ready(&mut self, module: &[u8]) -> Reply {
        let hash = blake3::hash(module).into();
        if self.ready.iter().any(|(ready, _)| *ready == hash) {
            return Reply::Ready(hash);
        }
        let program = match Program::new(module) {
            Ok(program) => Arc::new(program),
            Err(refusal) => return Reply::Refused(refusal.to_string()),
        };
        match self.cranelift.compile(program.clone()) {
            Ok(compiled) => {
                if self.ready.len() == READY_MAX {
                    self.ready.pop_front();
                }
                self.ready.push_back((hash, Ready { program, compiled, translated: None }));
                Reply::Ready(hash)
            }
            Err(fault) => Reply::Failed(fault.to_string()),
        }
    }

    fn run(
        &mut self,
        module: &ModuleHash,
        engine: EngineKind,
        job: crate::Job,
        live: crate::environment::Live,
    ) -> Result<Outcome, Fault> {
        let found = self.ready.iter_mut().find(|(ready, _)| ready == module);
        let Some((_, ready)) = found else { return Err(Fault::Engine("the module is not ready".into())) };
        match engine {
            EngineKind::Cranelift => self.cranelift.run(&ready.compiled, job, live),
            EngineKind::Interpreter => {
                let translated = match ready.translated.take() {
                    Some(translated) => translated,
                    None => self.interpreter.translate(ready.program.clone())?,
                };
                self.interpreter.run(ready.translated.insert(translated), job, live)
            }
        }
    }
}
