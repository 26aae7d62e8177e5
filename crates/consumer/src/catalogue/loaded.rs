//! The catalogue's content as it is loaded at a start.

use super::row::{Added, Intent, OwnAgreementRow, PaidRow, SetRow, Waiting};
use posync_protocol::Hash;
use std::collections::BTreeMap;

/// A shard in an agreement's data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The shard as it was added to the data set.
    pub added: Added,
    /// True if it waits to be removed from the data set.
    pub dropped: bool,
    /// True if it waited for that when a backup was taken from which it came: another catalogue may have put it into a
    /// file since, so it is not removed.
    pub frozen: bool,
}

/// An agreement as the last process left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedAgreement {
    /// Its number in the catalogue.
    pub number: u32,
    /// Its identity, stage and terms.
    pub row: OwnAgreementRow,
    /// The version and next sequence number of its data set.
    pub set: SetRow,
    /// The total that its vouchers sign for.
    pub paid: PaidRow,
    /// A change that the provider may have signed already.
    pub intent: Option<Intent>,
    /// The newest signed data set, if the ledger may not have it yet.
    pub waiting: Waiting,
    /// If it came from a backup, the version that the backup knew.
    pub restored: Option<u64>,
    /// Its data set, by sequence.
    pub entries: BTreeMap<u64, Entry>,
}

impl LoadedAgreement {
    /// A new agreement, with an empty data set and nothing paid.
    pub fn fresh(number: u32, row: OwnAgreementRow) -> Self {
        let (set, paid, waiting) = (SetRow::default(), PaidRow::default(), Waiting::default());
        Self { number, row, set, paid, intent: None, waiting, restored: None, entries: BTreeMap::new() }
    }
}

/// The catalogue's content at a start.
#[derive(Debug, Default)]
pub struct Loaded<T> {
    /// The account's secret, from which its keys derive.
    pub master: Hash,
    /// Agreements in the order of their numbers.
    pub agreements: Vec<LoadedAgreement>,
    /// The findings of the start beside the agreements.
    pub contents: T,
    /// Rows that do not decode, as kind and number.
    pub aside: Vec<String>,
}

impl<T> Loaded<T> {
    /// Returns true if a row of another kind than an agreement's was set aside: any agreement of this start
    /// may then hold shards that no other row names.
    pub fn hides_shards(&self) -> bool {
        self.aside.iter().any(|row| !row.starts_with("agreement"))
    }
}
