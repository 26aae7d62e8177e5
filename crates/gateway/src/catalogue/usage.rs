//! Counts the bytes of each account: its files, puts under way, and files whose space is not freed yet.
//!
//! Invariants
//! 1. A put counts in full from its beginning, so puts at once never exceed a quota together.
//! 2. A removed or replaced file, and a put that failed, count until the space of their segments is freed.

use super::row::Owner;
use std::collections::BTreeMap;

/// The bytes that a put asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claim {
    /// The account for which they count.
    pub owner: Owner,
    /// Plain bytes of the new file.
    pub bytes: u64,
    /// Maximum of bytes of that account, this file included; none without one.
    pub quota: Option<u64>,
}

/// The bytes that count for an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Number of its files.
    pub files: u64,
    /// Plain bytes of its files, and those that are pending.
    pub bytes: u64,
    /// Bytes of puts under way, and of removed files whose space is not freed yet.
    pub pending: u64,
}

/// The bytes of all accounts.
#[derive(Debug, Default)]
pub(super) struct UsageBook {
    /// Bytes of the files of each account.
    files: BTreeMap<Owner, u64>,
    /// Bytes that are pending for each account: the sum over its jobs.
    pending: BTreeMap<Owner, u64>,
    /// Owner and bytes of each job.
    jobs: BTreeMap<u32, (Owner, u64)>,
}

fn more(all: &mut BTreeMap<Owner, u64>, owner: Owner, bytes: u64) {
    let sum = all.entry(owner).or_default();
    *sum = sum.saturating_add(bytes);
}

fn less(all: &mut BTreeMap<Owner, u64>, owner: Owner, bytes: u64) {
    let sum = all.entry(owner).or_default();
    *sum = sum.saturating_sub(bytes);
}

impl UsageBook {
    /// Counts a file's bytes for its owner.
    pub(super) fn file(&mut self, owner: Owner, bytes: u64) {
        more(&mut self.files, owner, bytes);
    }

    /// Counts a file no longer.
    pub(super) fn no_file(&mut self, owner: Owner, bytes: u64) {
        less(&mut self.files, owner, bytes);
    }

    /// Counts the bytes of a job as pending for its owner.
    pub(super) fn job(&mut self, number: u32, owner: Owner, bytes: u64) {
        self.no_job(number);
        self.jobs.insert(number, (owner, bytes));
        more(&mut self.pending, owner, bytes);
    }

    /// Counts a job no longer.
    pub(super) fn no_job(&mut self, number: u32) {
        if let Some((owner, bytes)) = self.jobs.remove(&number) {
            less(&mut self.pending, owner, bytes);
        }
    }

    /// Sets the bytes of a job that are still to be freed.
    pub(super) fn left(&mut self, number: u32, bytes: u64) {
        if let Some((owner, _)) = self.jobs.get(&number).copied() {
            self.job(number, owner, bytes);
        }
    }

    /// The bytes of an account, without the number of its files.
    pub(super) fn of(&self, owner: &Owner) -> Usage {
        let pending = self.pending.get(owner).copied().unwrap_or(0);
        let files = self.files.get(owner).copied().unwrap_or(0);
        Usage { files: 0, bytes: files.saturating_add(pending), pending }
    }

    /// The usage of each account that has a file or pending bytes.
    pub(super) fn all(&self, names: &BTreeMap<Owner, BTreeMap<Vec<u8>, u32>>) -> Vec<(Owner, Usage)> {
        let owners: std::collections::BTreeSet<Owner> =
            names.keys().chain(self.files.keys()).chain(self.pending.keys()).copied().collect();
        let of = |owner: Owner| {
            let files = names.get(&owner).map_or(0, |names| names.len() as u64);
            (owner, Usage { files, ..self.of(&owner) })
        };
        owners.into_iter().map(of).filter(|(_, usage)| *usage != Usage::default()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use posync_protocol::Account;

    #[test]
    fn bytes_count_from_the_beginning_of_a_put_until_their_space_is_freed() {
        let (mut book, user) = (UsageBook::default(), Owner(Some(Account([1; 32]))));
        let used = |book: &UsageBook| (book.of(&user).bytes, book.of(&user).pending);
        book.job(4, user, 100);
        assert_eq!(used(&book), (100, 100), "reserved");
        book.no_job(4);
        book.file(user, 100);
        assert_eq!(used(&book), (100, 0), "stored");
        book.no_file(user, 100);
        book.job(4, user, 100);
        assert_eq!(used(&book), (100, 100), "removed and not freed");
        book.left(4, 30);
        assert_eq!(used(&book), (30, 30), "freed in part");
        book.no_job(4);
        book.left(4, 30);
        assert_eq!(used(&book), (0, 0), "freed");
        assert_eq!(book.of(&Owner::default()), Usage::default());
    }
}
