//! The parts of a run that both engines share: the host's side of a program, its limits, and its outcome.

use crate::{
    job::{Exit, Job, Outcome, Trap},
    limits,
    program::{JobRefusal, Program, check_job, input_gas},
    wasi::{Halt, State},
};

/// The engine could not run a job to an outcome, which says nothing about the job.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The job is refused.
    #[error("the job is refused: {0}")]
    Refused(#[from] JobRefusal),
    /// The machine has no memory left.
    #[error("this machine could not give the program its memory")]
    Memory,
    /// The engine's own stack ended before the program's.
    #[error("the engine's stack ended before the program's")]
    Stack,
    /// Another failure of the engine.
    #[error("the engine failed: {0}")]
    Engine(String),
}

/// The receiver of standard error while a program runs.
pub(crate) type Live = Box<dyn FnMut(&[u8]) + Send>;

/// A job that may start: its state, its gas at the start, and the gas of its limit.
pub(crate) struct Start {
    pub(crate) state: State,
    pub(crate) growth: Growth,
    /// Gas that is left when the first instruction runs; below zero if the start alone took more.
    pub(crate) gas: i64,
    pub(crate) limit: u64,
}

impl Start {
    pub(crate) fn new(program: &Program, job: Job, live: Live) -> Result<Self, Fault> {
        check_job(&job)?;
        program.check_pages(&job)?;
        let (limit, pages) = (job.gas, job.pages);
        let start = program.start_gas() + input_gas(&job);
        let gas = limit.cast_signed() - start.cast_signed();
        let state = State::new(job, live).map_err(JobRefusal::Path)?;
        let growth = Growth { bytes_max: pages as usize * (64 << 10), failed: false };
        Ok(Self { state, growth, gas, limit })
    }
}

/// The bound of a program's memory and tables. A job's result must not depend on the memory of the machine, so a
/// growth that the machine refuses is remembered, and the result is thrown away.
#[derive(Debug)]
pub(crate) struct Growth {
    pub(crate) bytes_max: usize,
    pub(crate) failed: bool,
}

impl Growth {
    pub(crate) fn allows_memory(&self, bytes: usize, maximum: Option<usize>) -> bool {
        bytes <= self.bytes_max && maximum.is_none_or(|maximum| bytes <= maximum)
    }

    pub(crate) fn allows_table(&self, elements: usize, maximum: Option<usize>) -> bool {
        elements <= limits::ELEMENTS_MAX as usize && maximum.is_none_or(|maximum| elements <= maximum)
    }
}

/// The end of a program, as an engine reports it.
pub(crate) enum End {
    Returned,
    Halted(Halt),
    Trapped(Trap),
}

/// The state of a program that has ended.
pub(crate) struct Left {
    pub(crate) end: End,
    pub(crate) gas: i64,
    pub(crate) stack: i32,
    /// BLAKE3 of the memory.
    pub(crate) memory: [u8; 32],
}

impl Left {
    /// The outcome. A trap of the metering is known by the sign of its global.
    pub(crate) fn outcome(self, state: State, limit: u64) -> Outcome {
        let exit = match self.end {
            _ if self.gas < 0 => Exit::OutOfGas,
            _ if self.stack < 0 => Exit::OutOfStack,
            End::Returned => Exit::Code(0),
            End::Halted(Halt::Exit(code)) => Exit::Code(code),
            End::Halted(Halt::OutOfGas) => Exit::OutOfGas,
            End::Trapped(trap) => Exit::Trap(trap),
        };
        let gas = limit - u64::try_from(self.gas).unwrap_or(0);
        let results = state.results();
        Outcome {
            exit,
            gas,
            stdout: results.stdout,
            stderr: results.stderr,
            files: results.files,
            memory: self.memory,
        }
    }
}
