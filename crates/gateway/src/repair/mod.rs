//! Finds what providers lost and rebuilds it elsewhere, under its old name.
//!
//! ```text
//!   late on a draw ─► does it serve us? no ─► suspected ─► silent for the grace period ─┐ beside it
//!                                              └─ serves: nothing happened               │
//!   failed draw ────► read of what it holds ─► what does not verify ─┐                    │
//!   failed read, its own scrub ──────────────► those shards ─────────┤ dropped            │
//!                                                                    ▼                    ▼
//!             segment queue ─► any 4 of 8 ─► the same shard ─► another operator ─► signed: in force,
//!                                                          a silent holder's is dropped with that
//! ```
//!
//! Invariants
//! 1. Progress is what the catalogue says: a start finds every segment without eight holders.
//! 2. A rebuilt shard has the name that the catalogue always had, or nothing is stored.
//! 3. Silence is no loss ([`suspects`]): a silent provider's shards count, are read last, and stay in its
//!    data set until others have signed for them. Bytes that do not verify and the provider's own word
//!    are a loss, unless too few others are held.
//! 4. At most [`crate::limits::REPAIRS_AT_ONCE`] segments are rebuilt at once.

mod actor;
mod examine;
mod reaper;
mod rebuild;
pub mod state;
pub mod suspects;

pub use actor::start;
pub use reaper::reap;
pub use rebuild::restore;

use crate::coding::FileId;
use posync_protocol::{Account, Hash};
use state::{FoundBy, Task};

/// What repair is told.
#[derive(Debug)]
pub enum Notice {
    /// A put was acknowledged with fewer than eight shards.
    Incomplete {
        /// The file.
        file: FileId,
        /// The segment.
        segment: u32,
    },
    /// A read showed that a shard is lost.
    Unread {
        /// Under which agreement.
        deed: u32,
        /// Its place in the data set.
        sequence: u64,
    },
    /// A provider is late on a draw.
    Late(Account),
    /// A provider that is late does not answer.
    Silent(Account),
    /// A suspected provider answers.
    Answers(Account),
    /// A suspected provider was silent for too long for these segments and positions.
    Overdue(Account, Vec<(Task, u8)>),
    /// A draw found a provider's reads missing.
    Failed(Account),
    /// A provider says that these are damaged.
    Bad(Account, Vec<Hash>),
    /// An examination ended: these entries of an agreement are lost.
    Lost {
        /// Under which agreement.
        deed: u32,
        /// Their places in the data set.
        sequences: Vec<u64>,
        /// How it was found.
        found_by: FoundBy,
    },
    /// An examination ended.
    Examined(Account),
}
