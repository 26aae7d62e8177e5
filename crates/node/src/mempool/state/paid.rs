//! The paid lane: which of its operations a block can hold, and which are evicted.
//!
//! The *main part* holds each account's operations from its next nonce on, without a gap: each is charged
//! once a block holds it. No block can hold an operation behind a gap, so it is never charged; those get a
//! small part of their own, in which the oldest is evicted first.
//!
//! Invariants
//! 1. The main part stays within [`PAID_BYTES`] and the other within [`MEMPOOL_GAP_BYTES`], of one account
//!    within [`MEMPOOL_GAP_BYTES_PER_ACCOUNT`] and [`MEMPOOL_GAP_PER_ACCOUNT`].
//! 2. In the main part an operation ranks as the lowest offer of its account up to it, because it cannot
//!    be in a block before those.

use super::{Funds, Pending, Pool, PoolEntry, Rank, Refused};
use posync_protocol::{
    Account, Amount, Code, Hash,
    limits::{
        MEMPOOL_BYTES, MEMPOOL_FREE_BYTES, MEMPOOL_GAP_BYTES, MEMPOOL_GAP_BYTES_PER_ACCOUNT,
        MEMPOOL_GAP_PER_ACCOUNT, MEMPOOL_PER_ACCOUNT, MEMPOOL_REPLACE_PERCENT, MEMPOOL_RESERVED_BYTES,
    },
};
use std::{cmp::Reverse, collections::BTreeMap};

/// Bytes for paid operations that a block can hold.
const PAID_BYTES: usize = MEMPOOL_BYTES - MEMPOOL_FREE_BYTES - MEMPOOL_RESERVED_BYTES - MEMPOOL_GAP_BYTES;
/// Fees per unit are compared in millionths of a grain.
const RATE_SCALE: u128 = 1_000_000;

/// Lowest rank of the account up to the operation; later nonces are evicted first.
pub(super) type Key = (Rank, Reverse<u64>, Hash);

/// The part of the lane in which a paid operation waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PoolPlace {
    /// The operation is in no part, as while it is inserted or removed.
    None,
    /// In the main part, at this rank.
    Main(Rank),
    /// Behind a gap in the account's nonces.
    Gap,
}

impl Pool {
    pub(super) fn insert_paid(&mut self, id: Hash, entry: PoolEntry, funds: Funds) -> Result<(), Refused> {
        let PoolEntry { operation, bytes, units, .. } = &entry;
        let (signer, nonce, bytes) = (operation.signer, operation.nonce, *bytes);
        let rate = operation.max_fee.grains().saturating_mul(RATE_SCALE) / u128::from((*units).max(1));
        self.refresh(&signer, funds);
        let funds = self.accounts.get(&signer).map_or(funds, |pending| pending.funds);
        if !cfg!(planted = "nonce-again") && nonce < funds.nonce {
            return Err(Code::NonceOld.into());
        }
        if nonce - funds.nonce >= MEMPOOL_PER_ACCOUNT as u64 {
            return Err(Code::NonceGap.into());
        }
        let old = self.accounts.get(&signer).and_then(|pending| pending.by_nonce.get(&nonce)).copied();
        if let Some(old) = old {
            let offered = self.entries[&old].rank.0;
            if rate.saturating_mul(100) < offered.saturating_mul(MEMPOOL_REPLACE_PERCENT) {
                return Err(Code::NonceOld.into());
            }
        }
        self.check_balance(&entry, funds)?;
        let rank = (rate, Reverse(self.arrivals));
        match self.before(&signer, funds.nonce, nonce) {
            Some(before) => self.check_room(bytes, old, (before.min(rank), Reverse(nonce)))?,
            None => self.make_gap(bytes, old, &signer)?,
        }
        if let Some(old) = old {
            self.remove(&old);
        }
        let pending = self.accounts.entry(signer).or_insert(Pending { funds, by_nonce: BTreeMap::new() });
        pending.by_nonce.insert(nonce, id);
        self.keep(id, PoolEntry { rank, ..entry });
        self.arrange(&signer);
        self.shrink();
        Ok(())
    }

    /// Checks that the account's balance covers its waiting operations, this one included: the fees of all,
    /// and the most that all but the last may take. Otherwise the first could spend the money that the
    /// others offer for their places. Those behind a gap count only for one that is behind it, too: they must not keep
    /// out the one that fills it, which is checked with them then.
    fn check_balance(&self, entry: &PoolEntry, funds: Funds) -> Result<(), Code> {
        let PoolEntry { operation, .. } = entry;
        let others = self.accounts.get(&operation.signer).into_iter().flat_map(|pending| &pending.by_nonce);
        let mut all: BTreeMap<u64, &PoolEntry> =
            others.map(|(nonce, id)| (*nonce, &self.entries[id])).collect();
        all.insert(operation.nonce, entry);
        let runnable = (funds.nonce..).take_while(|nonce| all.contains_key(nonce)).count() as u64;
        if operation.nonce.saturating_sub(funds.nonce) < runnable {
            all.retain(|nonce, _| nonce.saturating_sub(funds.nonce) < runnable);
        }
        let last = all.keys().next_back().copied();
        let cost = all.values().try_fold(Amount::ZERO, |sum, PoolEntry { operation, takes, .. }| {
            let taken = if Some(operation.nonce) == last { Amount::ZERO } else { *takes };
            sum.checked_add(operation.max_fee)?.checked_add(taken)
        });
        if cost.is_some_and(|cost| cost <= funds.balance) { Ok(()) } else { Err(Code::Balance) }
    }

    /// The lowest rank of an account's nonces from `next` up to before `nonce`; `None` if one is missing.
    fn before(&self, signer: &Account, next: u64, nonce: u64) -> Option<Rank> {
        let by_nonce = self.accounts.get(signer).map(|pending| &pending.by_nonce);
        (next..nonce).try_fold((u128::MAX, Reverse(0)), |least: Rank, nonce| {
            by_nonce?.get(&nonce).map(|id| least.min(self.entries[id].rank))
        })
    }

    /// Checks that evicting entries ranked below `key` in the main part, and `old`, leaves room for `bytes`.
    fn check_room(&self, bytes: usize, old: Option<Hash>, key: (Rank, Reverse<u64>)) -> Result<(), Refused> {
        let returned = old.filter(|old| self.entries[old].place != PoolPlace::Gap);
        let returned = returned.map_or(0, |old| self.entries[&old].bytes);
        let mut over = (self.paid_bytes - returned + bytes).saturating_sub(PAID_BYTES);
        for (rank, nonce, victim) in &self.paid {
            if over == 0 || (*rank, *nonce) >= key {
                break;
            }
            if Some(*victim) != old {
                over = over.saturating_sub(self.entries[victim].bytes);
            }
        }
        if over == 0 { Ok(()) } else { Err(Refused::Full) }
    }

    /// Makes room behind gaps by evicting those that have waited longest.
    fn make_gap(&mut self, bytes: usize, old: Option<Hash>, signer: &Account) -> Result<(), Refused> {
        let pending = self.accounts.get(signer).into_iter().flat_map(|pending| pending.by_nonce.values());
        let own = pending.filter(|id| Some(**id) != old).map(|id| &self.entries[id]);
        let (mut count, mut own_bytes) = (1, bytes);
        for entry in own.filter(|entry| entry.place == PoolPlace::Gap) {
            (count, own_bytes) = (count + 1, own_bytes + entry.bytes);
        }
        if count > MEMPOOL_GAP_PER_ACCOUNT || own_bytes > MEMPOOL_GAP_BYTES_PER_ACCOUNT {
            return Err(Refused::Full);
        }
        let returned = old.map_or(0, |old| self.entries[&old].bytes);
        while self.gap_bytes - returned + bytes > MEMPOOL_GAP_BYTES {
            let oldest = self.gaps.iter().map(|(_, id)| *id).find(|id| Some(*id) != old);
            self.remove(&oldest.ok_or(Refused::Full)?);
        }
        Ok(())
    }

    /// Puts each paid operation of an account into its part of the lane.
    fn arrange(&mut self, signer: &Account) {
        let Some(pending) = self.accounts.get(signer) else { return };
        let (mut next, mut least): (u64, Rank) = (pending.funds.nonce, (u128::MAX, Reverse(0)));
        let all: Vec<(u64, Hash)> = pending.by_nonce.iter().map(|(nonce, id)| (*nonce, *id)).collect();
        for (nonce, id) in all {
            let place = if nonce == next {
                next = next.saturating_add(1);
                least = least.min(self.entries[&id].rank);
                PoolPlace::Main(least)
            } else {
                PoolPlace::Gap
            };
            self.put_at(&id, place);
        }
    }

    /// Moves a paid operation to another part, or out of both.
    pub(super) fn put_at(&mut self, id: &Hash, place: PoolPlace) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let (bytes, nonce, Reverse(arrival)) = (entry.bytes, Reverse(entry.operation.nonce), entry.rank.1);
        match std::mem::replace(&mut entry.place, place) {
            PoolPlace::None => {}
            PoolPlace::Main(rank) => {
                self.paid.remove(&(rank, nonce, *id));
                self.paid_bytes -= bytes;
            }
            PoolPlace::Gap => {
                self.gaps.remove(&(arrival, *id));
                self.gap_bytes -= bytes;
            }
        }
        match place {
            PoolPlace::None => {}
            PoolPlace::Main(rank) => {
                self.paid.insert((rank, nonce, *id));
                self.paid_bytes += bytes;
            }
            PoolPlace::Gap => {
                self.gaps.insert((arrival, *id));
                self.gap_bytes += bytes;
            }
        }
    }

    /// Drops the worst of the main part, with the later nonces of its account, while the part is too large.
    fn shrink(&mut self) {
        while self.paid_bytes > PAID_BYTES
            && let Some((_, _, worst)) = self.paid.first().copied()
        {
            self.drop_from(&worst);
        }
    }

    /// True if an operation waits behind a gap.
    pub(in crate::mempool) fn is_behind_gap(&self, id: &Hash) -> bool {
        self.entries.get(id).is_some_and(|entry| entry.place == PoolPlace::Gap)
    }

    /// Applies an account's present state: drops old nonces, and operations that its balance no longer
    /// covers.
    pub(crate) fn refresh(&mut self, account: &Account, funds: Funds) {
        let Some(pending) = self.accounts.get_mut(account) else { return };
        // The state read may be one block older than the blocks known to be final.
        let funds = Funds { nonce: funds.nonce.max(pending.funds.nonce), ..funds };
        pending.funds = funds;
        let old: Vec<Hash> = pending.by_nonce.range(..funds.nonce).map(|(_, id)| *id).collect();
        old.iter().for_each(|id| self.remove(id));
        let Some(pending) = self.accounts.get(account) else { return };
        let mut left = funds.balance;
        let uncovered = pending.by_nonce.values().find(|id| {
            match left.checked_sub(self.entries[*id].operation.max_fee) {
                Some(rest) => {
                    left = rest;
                    false
                }
                None => true,
            }
        });
        if let Some(id) = uncovered.copied() {
            self.drop_from(&id);
        }
        self.arrange(account);
        self.shrink();
    }
}
