//! Counts the bytes, names and jobs of each account: its files, puts under way, and files whose space is not
//! freed yet.
//!
//! Invariants
//! 1. A put counts in full from its beginning, so puts at once never exceed a quota, or a share of the names,
//!    together.
//! 2. A removed or replaced file, and a put that failed, count until the space of their segments is freed.
//! 3. A file counts as what it costs: see [`posync_coding::billed`].

use super::row::Owner;
use std::collections::BTreeMap;

/// The room that a put asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claim {
    /// The account for which it counts.
    pub owner: Owner,
    /// Name of the new file.
    pub name: Vec<u8>,
    /// Plain bytes of the new file.
    pub bytes: u64,
    /// Maximum of bytes of that account, this file included; none without one.
    pub quota: Option<u64>,
    /// Maximum of names of that account, this one included; none without one.
    pub names: Option<u64>,
}

/// Reasons for which a put does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// The bytes do not fit the quota: the present usage.
    Bytes(Usage),
    /// The account has all names of its share: their number.
    Names(u64),
    /// The account has too many jobs: their number.
    Jobs(u64),
    /// The catalogue has as many names as it takes.
    Full,
}

/// The bytes that count for an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Number of its files.
    pub files: u64,
    /// Bytes that its files count as, and those that are pending.
    pub bytes: u64,
    /// Bytes of puts under way, and of removed files whose space is not freed yet.
    pub pending: u64,
}

/// The count of the jobs of one account, or of one job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pending {
    /// Number of its jobs.
    pub jobs: u64,
    /// Bytes that they count as.
    pub bytes: u64,
    /// Names that are reserved for puts under way.
    pub names: u64,
}

/// The bytes of all accounts.
#[derive(Debug, Default)]
pub(super) struct UsageBook {
    /// Bytes of the files of each account.
    files: BTreeMap<Owner, u64>,
    /// The sum over the jobs of each account.
    pending: BTreeMap<Owner, Pending>,
    /// Each job, with its owner.
    jobs: BTreeMap<u32, (Owner, Pending)>,
    /// Names that are reserved for puts under way, over all accounts.
    reserved: u64,
}

impl UsageBook {
    /// Counts a file's bytes for its owner.
    pub(super) fn file(&mut self, owner: Owner, bytes: u64) {
        let sum = self.files.entry(owner).or_default();
        *sum = sum.saturating_add(bytes);
    }

    /// Counts a file no longer.
    pub(super) fn no_file(&mut self, owner: Owner, bytes: u64) {
        let sum = self.files.entry(owner).or_default();
        *sum = sum.saturating_sub(bytes);
    }

    /// Counts a job for its owner. With `reserves`, a name is reserved until the job ends.
    pub(super) fn job(&mut self, number: u32, owner: Owner, bytes: u64, reserves: bool) {
        self.no_job(number);
        let job = Pending { jobs: 1, bytes, names: u64::from(reserves) };
        self.jobs.insert(number, (owner, job));
        let sum = self.pending.entry(owner).or_default();
        sum.jobs += job.jobs;
        sum.bytes = sum.bytes.saturating_add(job.bytes);
        sum.names += job.names;
        self.reserved += job.names;
    }

    /// Returns true if a name is reserved for the job.
    pub(super) fn reserves(&self, number: u32) -> bool {
        self.jobs.get(&number).is_some_and(|(_, job)| job.names > 0)
    }

    /// Counts a job no longer.
    pub(super) fn no_job(&mut self, number: u32) {
        let Some((owner, job)) = self.jobs.remove(&number) else { return };
        let sum = self.pending.entry(owner).or_default();
        sum.jobs = sum.jobs.saturating_sub(job.jobs);
        sum.bytes = sum.bytes.saturating_sub(job.bytes);
        sum.names = sum.names.saturating_sub(job.names);
        self.reserved = self.reserved.saturating_sub(job.names);
    }

    /// Sets the bytes of a job that are still to be freed.
    pub(super) fn left(&mut self, number: u32, bytes: u64) {
        if let Some((owner, job)) = self.jobs.get(&number).copied() {
            self.job(number, owner, bytes, job.names > 0);
        }
    }

    /// The sum over the jobs of an account.
    pub(super) fn pending(&self, owner: &Owner) -> Pending {
        self.pending.get(owner).copied().unwrap_or_default()
    }

    /// Names that are reserved for puts under way, over all accounts.
    pub(super) const fn reserved(&self) -> u64 {
        self.reserved
    }

    /// The bytes of an account, without the number of its files.
    pub(super) fn of(&self, owner: &Owner) -> Usage {
        let pending = self.pending(owner).bytes;
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
        book.job(4, user, 100, false);
        assert_eq!(used(&book), (100, 100), "reserved");
        book.no_job(4);
        book.file(user, 100);
        assert_eq!(used(&book), (100, 0), "stored");
        book.no_file(user, 100);
        book.job(4, user, 100, false);
        assert_eq!(used(&book), (100, 100), "removed and not freed");
        book.left(4, 30);
        assert_eq!(used(&book), (30, 30), "freed in part");
        book.no_job(4);
        book.left(4, 30);
        assert_eq!(used(&book), (0, 0), "freed");
        assert_eq!(book.of(&Owner::default()), Usage::default());
    }

    #[test]
    fn a_reserved_name_counts_until_its_job_ends() {
        let (mut book, user) = (UsageBook::default(), Owner(Some(Account([1; 32]))));
        book.job(4, user, 100, true);
        book.job(5, user, 100, false);
        book.left(4, 30);
        assert_eq!(book.pending(&user), Pending { jobs: 2, bytes: 130, names: 1 });
        assert_eq!((book.reserved(), book.reserves(4), book.reserves(5)), (1, true, false));
        [4, 4, 5].into_iter().for_each(|number| book.no_job(number));
        assert_eq!((book.reserved(), book.pending(&user)), (0, Pending::default()));
    }
}
