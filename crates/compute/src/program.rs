//! A module that was checked and metered, for an engine to compile.

use crate::{
    job::Job,
    limits, meter, price,
    profile::{self, Refusal},
};

/// BLAKE3 of a module's bytes as its author made them.
pub type ModuleHash = [u8; 32];

/// A module of the profile, with its gas in it.
#[derive(Debug)]
pub struct Program {
    hash: ModuleHash,
    metered: Vec<u8>,
    start_gas: u64,
    pages: u32,
}

impl Program {
    /// Checks a module against the profile and puts its gas in.
    ///
    /// # Errors
    /// The [`Refusal`] with its reason.
    pub fn new(module: &[u8]) -> Result<Self, Refusal> {
        Self::build(module, true)
    }

    /// The program without its gas, to measure what counting it costs. It must be one that ends by itself.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn uncounted(module: &[u8]) -> Result<Self, Refusal> {
        Self::build(module, false)
    }

    fn build(module: &[u8], counts: bool) -> Result<Self, Refusal> {
        let facts = profile::check(module)?;
        let metered = meter::meter(module, &facts, counts)?;
        profile::check_metered(&metered)?;
        let hash = blake3::hash(module).into();
        Ok(Self { hash, metered, start_gas: facts.start_gas, pages: facts.pages })
    }

    /// Name of the module.
    pub fn hash(&self) -> ModuleHash {
        self.hash
    }

    /// The module as engines compile it: with its gas and stack counted.
    pub fn metered(&self) -> &[u8] {
        &self.metered
    }

    /// Pages of memory, 64 KiB each, with which the module begins.
    pub fn pages(&self) -> u32 {
        self.pages
    }

    /// Refuses a job that has less memory than the module begins with.
    pub(crate) fn check_pages(&self, job: &Job) -> Result<(), JobRefusal> {
        if self.pages <= job.pages {
            return Ok(());
        }
        let of = "pages of memory at the module's start";
        Err(JobRefusal::Bound { of, has: self.pages.into(), max: job.pages.into() })
    }

    /// Gas of a job without input before its first instruction: a fresh instance with its memory and segments.
    pub fn start_gas(&self) -> u64 {
        self.start_gas
    }
}

/// Gas of a job's input.
pub(crate) fn input_gas(job: &Job) -> u64 {
    (input_bytes(job) + word_bytes(job)) as u64 * price::INPUT_BYTE
}

pub(crate) fn input_bytes(job: &Job) -> usize {
    job.stdin.len() + job.files.iter().map(|(_, bytes)| bytes.len()).sum::<usize>()
}

fn word_bytes(job: &Job) -> usize {
    let args = job.args.iter().map(String::len);
    let env = job.env.iter().map(|(name, value)| name.len() + value.len() + 1);
    args.chain(env).chain(job.files.iter().map(|(path, _)| path.len())).sum()
}

/// The reason for which a job is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobRefusal {
    /// A number above its bound.
    #[error("{of}: {has}, and {max} are the most")]
    Bound {
        /// The thing that is bounded.
        of: &'static str,
        /// The number in the job.
        has: u64,
        /// The most that is accepted.
        max: u64,
    },
    /// A zero in an argument or a variable, or `=` in a variable's name.
    #[error("{0:?} cannot be an argument or a variable of a program")]
    Word(String),
    /// A path of a file that the job's tree cannot hold, and why.
    #[error("{0}")]
    Path(String),
}

/// Checks a job against the bounds of the profile.
///
/// # Errors
/// The first [`JobRefusal`] that applies.
pub fn check_job(job: &Job) -> Result<(), JobRefusal> {
    let bound = |of, has: u64, max: u64| {
        if has > max { Err(JobRefusal::Bound { of, has, max }) } else { Ok(()) }
    };
    bound("gas", job.gas, limits::GAS_MAX)?;
    bound("pages of memory", job.pages.into(), limits::PAGES_MAX.into())?;
    bound("bytes of output", job.output, limits::OUTPUT_BYTES_MAX as u64)?;
    bound("arguments", job.args.len() as u64, limits::WORDS_MAX as u64)?;
    bound("variables", job.env.len() as u64, limits::WORDS_MAX as u64)?;
    bound("bytes of input", input_bytes(job) as u64, limits::INPUT_BYTES_MAX as u64)?;
    bound("bytes of arguments, variables and paths", word_bytes(job) as u64, limits::WORD_BYTES_MAX as u64)?;
    if let Some((path, _)) = job.files.iter().find(|(path, _)| !is_path(path)) {
        return Err(JobRefusal::Path(format!(
            "{path:?}: a part of the path is `.` or `..`, or it has no name"
        )));
    }
    let bad = job.args.iter().find(|word| word.contains('\0'));
    let bad = bad.or_else(|| {
        let variable = job
            .env
            .iter()
            .find(|(name, value)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0'));
        variable.map(|(name, _)| name)
    });
    bad.map_or(Ok(()), |word| Err(JobRefusal::Word(word.clone())))
}

/// True for a path of a tree: names, none of which leads upwards.
fn is_path(path: &str) -> bool {
    let mut names = path.split('/').filter(|name| !name.is_empty()).peekable();
    names.peek().is_some() && names.all(|name| !matches!(name, "." | "..") && !name.contains('\0'))
}
