//! Runs a WebAssembly program the same everywhere, and counts its work.
//!
//! ```text
//!   module --check--> profile --meter--> metered module --compile--> Cranelift     runs jobs
//!                     (refusals)         (gas and stack in it)  \--> interpreter   must give the same
//!
//!   owner (provider, CLI) <== frames over stdin and stdout ==> lane: a child process with limits
//! ```
//!
//! A [`Job`] is everything that a result depends on: there is no clock, no network and no file of the host. Its
//! [`Outcome`] is equal on both engines, down to the gas of a program that traps. A party that wants the outcome
//! of a job without its risks runs it in a [`lane`]: a crash of the engine, a program that never ends or a module that
//! is built to take its compiler hours ends the lane, and never its owner.
//!
//! Invariants: the outcome depends on the module and the job only; every instruction and every call of the shim is
//! charged before it runs; nothing compiled comes from outside this machine. Gas is no measure of seconds: a load
//! that misses the caches takes hundreds of times as long as an addition and costs the same, and compiling has no price
//! yet. The lane's deadline bounds both.

mod cache;
pub mod cranelift;
mod environment;
pub mod interpreter;
pub mod job;
pub mod lane;
pub mod limits;
mod meter;
mod price;
pub mod profile;
pub mod program;
mod tree;
mod wasi;

pub use job::{Exit, Job, Outcome, Trap};
pub use profile::Refusal;
pub use program::Program;
