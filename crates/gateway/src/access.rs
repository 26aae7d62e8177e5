//! The accounts that are served, and each one's share of the gateway's memory.
//!
//! The gateway serves its owner and the accounts that the owner lists, and refers strangers to the owner.
//! Each account lists, reads, replaces and removes only files that it stored itself. The owner alone also lists the
//! files of others, and removes those of accounts that it serves no more.
//!
//! Invariants
//! 1. [`Access::of`] is checked once per call, before anything else in the call is looked at.
//! 2. Everything an account uses is taken from its own [`Share`]: a slow account does not delay others.
//! 3. All shares together are at most [`BUFFERS_BYTES`] in each direction.

use crate::{
    allowance::Allowance,
    catalogue::row::Owner,
    coding::SEGMENT_BYTES,
    limits::{
        ACCOUNT_PERCENT, BUFFERS_BYTES, CODING_BYTES_MAX, FILES_MAX, READ_BYTES_PER_DAY, SEGMENTS_READ_MAX,
        SHARE_BYTES_MAX, TRANSFERS_PER_ACCOUNT, USERS_MAX,
    },
    shared::Shared,
};
use posync_protocol::Account;
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The list of users is longer than [`USERS_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} accounts are listed as users and a gateway serves at most {USERS_MAX} beside its owner; take some off the list"
)]
pub struct TooMany(usize);

/// An account that the owner lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// Account that signs its requests.
    pub account: Account,
    /// Maximum of bytes that its files may count as together; none without one.
    pub quota: Option<u64>,
    /// Bytes that it may read in a day; 32 GiB without a number.
    pub reads: Option<u64>,
}

impl From<Account> for User {
    fn from(account: Account) -> Self {
        Self { account, quota: None, reads: None }
    }
}

/// The accounts that are served, with their shares.
pub(crate) struct Access(BTreeMap<Account, Arc<Share>>);

/// The resources that one account may use at once.
pub(crate) struct Share {
    /// The owner of its files.
    pub owner: Owner,
    /// Maximum of bytes that its files may count as together; none without one.
    pub quota: Option<u64>,
    /// Maximum of its files, those under way included; none without one.
    pub names: Option<u64>,
    /// The bytes that it may read in a day; any number without one.
    pub allowance: Option<Arc<Allowance>>,
    /// Files being stored; further ones wait.
    pub puts: Semaphore,
    /// Files being read; further ones wait.
    pub gets: Semaphore,
    /// Held by the put for which room is opened before its bytes arrive.
    pub opens_ahead: Semaphore,
    incoming: Arc<Semaphore>,
    outgoing: Arc<Semaphore>,
    coding: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    bytes: usize,
}

/// Memory or a place, taken from an account's own share and from the common pool; both are released on
/// drop.
pub(crate) struct Part {
    own: OwnedSemaphorePermit,
    common: OwnedSemaphorePermit,
}

impl Part {
    async fn take(own: &Arc<Semaphore>, common: &Arc<Semaphore>, permits: u32) -> Self {
        let closed = "the semaphore is never closed";
        let own = own.clone().acquire_many_owned(permits).await.expect(closed);
        let common = common.clone().acquire_many_owned(permits).await.expect(closed);
        Self { own, common }
    }

    /// Splits off memory for `bytes`, or all that is left if that is less.
    pub(crate) fn split(&mut self, bytes: usize) -> Self {
        let permits = self.own.num_permits().min(kib(bytes) as usize);
        let few = "no more than there are";
        Self { own: self.own.split(permits).expect(few), common: self.common.split(permits).expect(few) }
    }
}

/// Memory for a segment's plain bytes, released on drop.
pub(crate) type Buffer = OwnedSemaphorePermit;

fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).expect("a segment is 4 MiB")
}

impl Access {
    /// Serves `owner` and `users`.
    ///
    /// # Errors
    /// [`TooMany`] above [`USERS_MAX`].
    pub(crate) fn new(owner: Account, users: &[User]) -> Result<Self, TooMany> {
        Self::sharing(FILES_MAX, owner, users)
    }

    /// As [`Self::new`], with `files` names to share. A put that replaces a file reserves no name, so each of
    /// those under way may take one above the share: room for them is left.
    pub(crate) fn sharing(files: usize, owner: Account, users: &[User]) -> Result<Self, TooMany> {
        if users.len() > USERS_MAX {
            return Err(TooMany(users.len()));
        }
        let names = (files / (1 + users.len())).saturating_sub(TRANSFERS_PER_ACCOUNT) as u64;
        let bytes = (BUFFERS_BYTES / (1 + users.len())).min(SHARE_BYTES_MAX);
        let listed = users.iter().map(|User { account, quota, reads }| {
            let allowance = Some(Arc::new(Allowance::new(reads.unwrap_or(READ_BYTES_PER_DAY))));
            let (quota, names) = (*quota, Some(names));
            let share = Share { quota, names, allowance, ..Share::new(Owner(Some(*account)), bytes) };
            (*account, Arc::new(share))
        });
        let mut all: BTreeMap<_, _> = listed.collect();
        // An owner that is also listed as a user stays the owner.
        let own = Share { names: Some(names), ..Share::new(Owner::default(), bytes) };
        all.insert(owner, Arc::new(own));
        Ok(Self(all))
    }

    /// The accounts that are served, in order, each with its share.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Account, &Arc<Share>)> {
        self.0.iter()
    }

    /// The share of an account; `None` if it is not served.
    pub(crate) fn of(&self, account: &Account) -> Option<Arc<Share>> {
        self.0.get(account).cloned()
    }
}

impl Share {
    /// True for the share of the gateway's owner.
    pub(crate) fn is_owners(&self) -> bool {
        self.owner == Owner::default()
    }

    /// A share of `bytes` in each direction.
    pub(crate) fn new(owner: Owner, bytes: usize) -> Self {
        Self {
            owner,
            quota: None,
            names: None,
            allowance: None,
            puts: Semaphore::new(TRANSFERS_PER_ACCOUNT),
            gets: Semaphore::new(TRANSFERS_PER_ACCOUNT),
            opens_ahead: Semaphore::new(1),
            incoming: Arc::new(Semaphore::new(bytes / 1024)),
            outgoing: Arc::new(Semaphore::new(bytes / 1024)),
            coding: Arc::new(Semaphore::new(CODING_BYTES_MAX / 1024 * ACCOUNT_PERCENT / 100)),
            reads: Arc::new(Semaphore::new(SEGMENTS_READ_MAX * ACCOUNT_PERCENT / 100)),
            bytes,
        }
    }

    /// Waits for memory for `bytes` of a segment and of its shards.
    pub(crate) async fn coding(&self, shared: &Shared, bytes: usize) -> Part {
        Part::take(&self.coding, &shared.coding, kib(bytes)).await
    }

    /// Waits for a place to gather a segment.
    pub(crate) async fn reads(&self, shared: &Shared) -> Part {
        Part::take(&self.reads, &shared.reads, 1).await
    }

    /// Waits for memory for a segment of `bytes` on its way in.
    pub(crate) async fn incoming(&self, bytes: usize) -> Buffer {
        let buffer = self.incoming.clone().acquire_many_owned(kib(bytes));
        buffer.await.expect("the semaphore is never closed")
    }

    /// Waits for memory for a segment of `bytes` on its way out.
    pub(crate) async fn outgoing(&self, bytes: usize) -> Buffer {
        let buffer = self.outgoing.clone().acquire_many_owned(kib(bytes));
        buffer.await.expect("the semaphore is never closed")
    }

    /// Memory for a segment that is read ahead. `None` once half of the share is taken, so that slow
    /// readers leave room for each other.
    pub(crate) fn ahead(&self, bytes: usize) -> Option<Buffer> {
        let is_free = self.outgoing.available_permits() * 1024 >= self.bytes / 2 + bytes;
        is_free.then(|| self.outgoing.clone().try_acquire_many_owned(kib(bytes)).ok()).flatten()
    }
}

const _: () = assert!(BUFFERS_BYTES / (1 + USERS_MAX) >= SEGMENT_BYTES, "each has room for a segment");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_and_the_listed_are_served_and_nobody_else() {
        let [owner, user, stranger] = [1, 2, 3].map(|byte| Account([byte; 32]));
        let access = Access::new(owner, &[user.into(), owner.into()]).expect("few");
        assert_eq!(access.of(&owner).expect("served").owner, Owner(None));
        assert_eq!(access.of(&user).expect("served").owner, Owner(Some(user)));
        assert!(access.of(&stranger).is_none());
    }

    #[test]
    fn shares_are_bounded_together_and_each_holds_a_segment() {
        for users in [0, 1, 5, USERS_MAX] {
            let listed: Vec<User> = (0..users).map(|number| Account([number as u8; 32]).into()).collect();
            let access = Access::new(Account([255; 32]), &listed).expect("few enough");
            let all: usize = access.0.values().map(|share| share.bytes).sum();
            assert!(all <= BUFFERS_BYTES, "{users}: {all}");
            assert!(access.0.values().all(|share| share.bytes >= SEGMENT_BYTES), "{users}");
        }
        let listed = vec![User::from(Account([7; 32])); USERS_MAX + 1];
        assert_eq!(Access::new(Account([255; 32]), &listed).err(), Some(TooMany(USERS_MAX + 1)));
    }

    #[test]
    fn what_is_read_ahead_leaves_room_for_other_readers() {
        let share = Share::new(Owner::default(), 4 * SEGMENT_BYTES);
        let ahead: Vec<_> = std::iter::from_fn(|| share.ahead(SEGMENT_BYTES)).collect();
        assert_eq!(ahead.len(), 2);
        assert_eq!(share.outgoing.available_permits() * 1024, 2 * SEGMENT_BYTES);
    }
}
