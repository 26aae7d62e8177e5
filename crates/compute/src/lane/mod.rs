//! Lanes: child processes that run jobs, one after the other.
//!
//! ```text
//!   owner                                          lane (same binary, hidden command)
//!     | -- Module(bytes) ------------------------->  check, meter, compile; keeps it by hash
//!     | <------------------------ Ready | Refused --
//!     | -- Job(hash, job) ------------------------>  runs it on a thread with a large stack
//!     | <------------------------ Stderr(bytes) ... --
//!     | <------------------------ Done | Failed ---
//! ```
//!
//! The owner trusts nothing that comes back: it reads a frame only when it waits for one, no longer than the job allows,
//! and one that does not decode ends the lane. It kills a lane at a deadline, also one that does not read, does not end
//! or never stops to answer; a lane ends itself when its owner is gone. The lane's limits bound its memory, files and core
//! dumps: a module that is built to fill the compiler's memory ends its lane. Of its user's rights it keeps the cache of
//! machine code alone ([`confine`]).

mod child;
mod confine;
mod frame;
mod owner;

pub use child::{serve, with_stack};
pub use frame::EngineKind;
pub use owner::{Lane, LaneError};
