//! What a start finds in the catalogue.

use super::row::{Added, DeedRow, Intent, JobRow, PaidRow, SetRow, Waiting};
use crate::coding::FileId;
use posync_protocol::Hash;
use std::collections::BTreeMap;

/// A shard in an agreement's data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What was added.
    pub added: Added,
    /// Waits to be taken out.
    pub dropped: bool,
}

/// An agreement as it was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedDeed {
    /// Its number.
    pub number: u32,
    /// Its terms.
    pub row: DeedRow,
    /// How far its data set is.
    pub set: SetRow,
    /// What was signed away.
    pub paid: PaidRow,
    /// A change that may be signed already.
    pub intent: Option<Intent>,
    /// The newest signed data set, if the ledger may not know it.
    pub waiting: Waiting,
    /// Its data set, by sequence.
    pub entries: BTreeMap<u64, Entry>,
}

impl LoadedDeed {
    /// A new agreement.
    pub fn fresh(number: u32, row: DeedRow) -> Self {
        let (set, paid, waiting) = (SetRow::default(), PaidRow::default(), Waiting::default());
        Self { number, row, set, paid, intent: None, waiting, entries: BTreeMap::new() }
    }
}

/// What a start finds.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The gateway's secret.
    pub master: Hash,
    /// Agreements, by number.
    pub deeds: Vec<LoadedDeed>,
    /// Segments of files that lack a holder.
    pub open: Vec<(FileId, u32)>,
    /// Jobs.
    pub jobs: Vec<(u32, JobRow)>,
    /// Rows that do not decode, by kind and number.
    pub aside: Vec<String>,
}

impl Loaded {
    /// Whether a file, a segment or a job was set aside: shards that nothing else names may be held under
    /// any agreement of this start.
    pub fn hides_shards(&self) -> bool {
        self.aside.iter().any(|row| !row.starts_with("agreement"))
    }
}
