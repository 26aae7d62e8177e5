//! A whole network on this machine: one process per member, real sockets, real directories.
//!
//! ```text
//!   posync devnet ── lays out DIR once (layout, create)
//!        │
//!        ├── starts `posync start --child --dir DIR/<member>` for each (supervise)
//!        │        stdin = a pipe that only the parent holds: when it ends, so does the child
//!        └── waits for the first final block and the providers' registration, then for a signal
//! ```
//!
//! Invariants
//! 1. No child outlives its parent, however the parent ends.
//! 2. A directory holds one network forever: a new start continues the same chain.
//! 3. Two supervisors never run on one directory.
//! 4. A member that is late, broken or dead stops no other; it alone is restarted.

mod ceremony;
pub(crate) mod create;
pub(crate) mod layout;
pub(crate) mod restart;
pub(crate) mod running;
pub(crate) mod supervise;
