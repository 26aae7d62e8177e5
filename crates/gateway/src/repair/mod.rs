//! Finds what providers lost and rebuilds it elsewhere, under its old name.
//!
//! ```text
//!   late on a draw ─► does it answer us? no ─► everything it held is lost ─┐
//!   failed draw ────► read what it holds ────► what does not verify ───────┤
//!   failed read, its own scrub ──────────────► those shards ───────────────┤
//!                                                                          ▼
//!   holdings dropped on disk ─► segment queue ─► any 4 of 8 ─► same shard ─► another operator
//!                            └► taken out of the old data set             └► signed: in force
//! ```
//!
//! Invariants
//! 1. Progress is what the catalogue says: a start finds every segment without eight holders.
//! 2. A rebuilt shard has the name that the catalogue always had, or nothing is stored.
//! 3. A slow answer is no loss: only silence after a missed draw, bytes that do not verify, or the
//!    provider's own word are.
//! 4. At most [`crate::limits::REPAIRS_AT_ONCE`] segments are rebuilt at once.

mod actor;
mod examine;
mod reaper;
mod rebuild;
pub mod state;

pub use actor::start;
pub use reaper::reap;

use crate::coding::FileId;
use posync_protocol::{Account, Hash};
use state::FoundBy;

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
