//! Finds shards that providers lost and rebuilds them elsewhere, under their old names.
//!
//! ```text
//!   late on a draw ─► does it serve us? no ─► suspected ─► silent for the grace period ─┐ beside it
//!                                              └─ serves: nothing happened               │
//!   failed draw ────► reads of a few ───────► what does not verify ─┐                    │
//!   failed read, its own scrub ──────────────► those shards ─────────┤ dropped            │
//!                                                                    ▼                    ▼
//!             segment queue ─► any 4 of 8 ─► the same shard ─► another operator ─► signed: in force,
//!                                                          a silent holder's is dropped with that
//! ```
//!
//! Invariants
//! 1. The catalogue alone holds the progress: a start finds every segment without eight holders.
//! 2. A rebuilt shard has the name that the catalogue always had; otherwise it is not stored.
//! 3. Silence is not loss ([`suspects`]): a silent provider's shards count, are read last, and stay in its
//!    data set until others have signed for them. Bytes that do not verify, and the provider's own
//!    report, are a loss, unless too few other holders are free of suspicion.
//! 4. At most [`crate::limits::REPAIRS_AT_ONCE`] segments are rebuilt at once.
//! 5. On a full volume a segment with at least [`crate::limits::ACKNOWLEDGE_SHARDS`] shards waits; one with fewer does
//!    not.

mod actor;
pub(crate) mod budget;
mod examine;
mod reaper;
mod rebuild;
pub(crate) mod state;
pub(crate) mod suspects;

pub(crate) use actor::start;
pub(crate) use reaper::reap;
pub(crate) use rebuild::restore;

use crate::catalogue::FileId;
use posync_protocol::{Account, Hash};
use state::{FoundBy, Task};

/// A message to the repair task.
#[derive(Debug)]
pub(crate) enum Notice {
    /// A put was acknowledged with fewer than eight shards.
    Incomplete {
        /// File that the segment belongs to.
        file: FileId,
        /// Number of the segment in the file.
        segment: u32,
    },
    /// A read showed that a shard is lost.
    Unread {
        /// Number of the agreement that holds the shard.
        agreement: u32,
        /// Sequence of the shard's entry in the data set.
        sequence: u64,
    },
    /// A provider is late on a draw.
    Late(Account),
    /// A provider that is late does not answer, or serves no slice.
    Silent(Account),
    /// A suspected provider serves again.
    Answers(Account),
    /// A suspected provider was silent beyond the grace period of these segments and positions.
    Overdue(Account, Vec<(Task, u8)>),
    /// A draw found a provider's reads missing.
    Failed(Account),
    /// A provider reports that these shards are damaged.
    Bad(Account, Vec<Hash>),
    /// An examination found that these entries of an agreement are lost.
    Lost {
        /// Number of the agreement that holds the shards.
        agreement: u32,
        /// Sequences of the shards' entries in the data set.
        sequences: Vec<u64>,
        /// How the loss was found.
        found_by: FoundBy,
    },
    /// The examination of a provider ended, so another one may begin.
    Examined(Account),
}

/// A finding about the shards of the gateway's account.
impl From<posync_consumer::shared::Notice> for Notice {
    fn from(finding: posync_consumer::shared::Notice) -> Self {
        use posync_consumer::shared::Notice as Finding;
        match finding {
            Finding::Incomplete { file, segment } => Self::Incomplete { file, segment },
            Finding::Late(provider) => Self::Late(provider),
            Finding::Failed(provider) => Self::Failed(provider),
            Finding::Bad(provider, names) => Self::Bad(provider, names),
        }
    }
}
