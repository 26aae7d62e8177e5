//! Runs a job on both engines, and compares everything.
#![allow(dead_code, reason = "every test file uses its own part")]

use posync_compute::{
    Job, Outcome, Program, cranelift::Cranelift, interpreter::Interpreter, lane::with_stack, limits,
};
use std::sync::Arc;

/// A job without input that may use `gas`, 8 MiB of memory and 1 MiB of output.
pub(crate) fn job(gas: u64) -> Job {
    Job {
        args: Vec::new(),
        env: Vec::new(),
        stdin: Vec::new(),
        files: Vec::new(),
        gas,
        pages: 128,
        output: 1 << 20,
        seed: [7; 32],
    }
}

/// Both engines, made once for many programs.
pub(crate) struct Engines {
    cranelift: Cranelift,
    interpreter: Interpreter,
}

impl Engines {
    pub(crate) fn new() -> Self {
        let cranelift = Cranelift::new(None).expect("it has no directory that could fail");
        Self { cranelift, interpreter: Interpreter::new() }
    }

    /// The outcome of a job, which must be equal on both.
    pub(crate) fn run(&self, name: &str, module: &[u8], job: &Job) -> Outcome {
        let program = Program::new(module).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        let program = Arc::new(program);
        let compiled =
            self.cranelift.compile(program.clone()).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        let translated =
            self.interpreter.translate(program).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        let live = || Box::new(|_: &[u8]| ());
        let ours = self.cranelift.run(&compiled, job.clone(), live());
        let ours = ours.unwrap_or_else(|fault| panic!("{name}: cranelift: {fault}"));
        let theirs = self.interpreter.run(&translated, job.clone(), live());
        let theirs = theirs.unwrap_or_else(|fault| panic!("{name}: interpreter: {fault}"));
        assert_eq!(ours.exit, theirs.exit, "{name}: exit");
        assert_eq!(ours.gas, theirs.gas, "{name}: gas");
        assert!(ours == theirs, "{name}: output or memory differs");
        assert!(ours.gas <= job.gas.min(limits::GAS_MAX), "{name}: more gas than there was");
        ours
    }
}

/// Runs a test on a thread with the stack of an engine.
pub(crate) fn on_engines(test: impl FnOnce(&Engines) + Send + 'static) {
    with_stack(move || test(&Engines::new()));
}

/// A module from its text.
pub(crate) fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}
