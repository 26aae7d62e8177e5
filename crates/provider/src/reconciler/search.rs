//! Finds agreements that were opened with this provider and never used. No message announces them, and
//! they hold its room until they are removed (AG-4, AG-7).
//!
//! ```text
//!   proven Provider.slots > known ones --> blocks from where the last search ended, some per tick
//!     --> hint: an opening that names it --> proven Agreement, opened at that height --> kept
//!     --> over --> proven once more --> free upkeep (ST-7) --> proven absent --> dropped
//! ```
//!
//! While the counts agree, no block is requested, and no block up to that height is ever needed.

use super::{
    Case, Finds, REFRESH_MAX, Reconciler, ReconcilerError, SLOTS_READ,
    found::{BLOCKS_A_TICK, Proof, Reach},
    give_up::window_end,
    read_pages,
};
use crate::{
    ledger::{Ledger, LedgerError, decode},
    terms::Terms,
};
use commonware_runtime::{Blob, Handle, Spawner};
use commonware_storage::Context;
use futures::FutureExt as _;
use posync_client::Backoff;
use posync_protocol::{
    Account, AgreementId,
    limits::{READ_KEYS_MAX, SETTLE_SLOTS_MAX, SLOTS_MAX},
    record::Agreement,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::{Duration, SystemTime},
};

/// Pauses while nodes are busy or out of reach.
const PAUSES: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));
/// Interval between attempts to get blocks that no node kept, and between warnings.
const HOUR: Duration = Duration::from_secs(3_600);
/// Blocks by which the agreed height advances before it is made durable.
const AGREED_BLOCKS: u64 = 256;

/// Result of a search through some blocks.
struct Looked {
    blocks: Range<u64>,
    /// The first block that was not searched.
    done: u64,
    found: Vec<AgreementId>,
    /// The reason for stopping before the end.
    stop: Option<Stop>,
}

enum Stop {
    /// No node keeps the block; the height is the first that is kept.
    Pruned(u64),
    /// The block is unavailable now.
    Later(LedgerError),
}

/// Searches blocks for agreements with this provider.
pub(super) struct Finder<E: Context> {
    pub(super) finds: Finds<E>,
    task: Option<Handle<Looked>>,
    /// No block is requested before `wait`; the next of `pauses` follows the next failure.
    wait: Option<SystemTime>,
    pauses: Backoff,
    /// Blocks that no node kept are not requested before this time.
    again: Option<SystemTime>,
    /// Time of the last warning about agreements that cannot be found.
    pub(super) logged_at: Option<SystemTime>,
    /// Height and number of slots as last proved.
    slots: (u64, u32),
    /// The last height at which an agreement was proved gone.
    gone: u64,
    /// An earlier such pair: once every agreement has been proved since, the counts are compared.
    pub(super) confirmer: Option<(u64, u32)>,
    /// Every agreement opened up to this height is known.
    agreed: u64,
}

impl<E: Context> Finder<E> {
    pub(super) const fn new(finds: Finds<E>) -> Self {
        let (slots, gone, confirmer, agreed) = ((0, 0), 0, None, 0);
        let (task, wait, pauses, again, logged_at) = (None, None, PAUSES, None, None);
        Self { finds, task, wait, pauses, again, logged_at, slots, gone, confirmer, agreed }
    }

    /// Notes the number of slots proved at a height.
    pub(super) const fn saw(&mut self, height: u64, slots: u32) {
        self.slots = (height, slots);
    }

    /// Notes that an agreement was proved gone at a height: an earlier slot count may include it.
    pub(super) fn ended(&mut self, height: u64) {
        self.gone = self.gone.max(height);
    }

    fn reach(&self, born: u64) -> Reach {
        let reach = self.finds.reach().since(born);
        if self.agreed >= reach.next { reach.agreed(self.agreed) } else { reach }
    }

    /// Takes the result of the search once it has finished.
    fn take(&mut self) -> Option<Looked> {
        let done = self.task.as_mut().and_then(|task| task.now_or_never())?;
        self.task = None;
        done.map_err(|error| tracing::error!(%error, "looking through blocks ended")).ok()
    }

    fn back_off(&mut self, now: SystemTime) {
        self.wait = self.pauses.next().map(|pause| now + pause);
    }
}

impl<E: Spawner + Context, B: Blob, L: Ledger> Reconciler<E, B, L> {
    /// Searches blocks, beside other work, while the ledger counts more agreements than are known.
    pub(super) async fn find(&mut self, born: u64) -> Result<(), ReconcilerError> {
        self.keep_found(born).await?;
        let (height, slots) = self.finder.slots;
        let known = self.known().len();
        let now = self.context.current();
        let waits = |until: Option<SystemTime>| until.is_some_and(|until| now < until);
        let is_short = slots as usize > known && height >= self.finder.gone;
        if !is_short || waits(self.finder.wait) || self.finder.task.is_some() {
            return Ok(());
        }
        let reach = self.finder.reach(born);
        let Some(blocks) = reach.ahead(height, !waits(self.finder.again)) else {
            self.log_progress(now, reach);
            return Ok(());
        };
        let (ledger, account) = (self.ledger.clone(), self.account());
        let look = move |_| async move { look(&ledger, &account, blocks).await };
        self.finder.task = Some(self.context.child("find").spawn(look));
        Ok(())
    }

    /// Keeps the agreements that the last search found, and its progress.
    async fn keep_found(&mut self, born: u64) -> Result<(), ReconcilerError> {
        let Some(Looked { blocks, done, mut found, stop }) = self.finder.take() else { return Ok(()) };
        let (now, before) = (self.context.current(), self.finder.reach(born));
        let mut reach = before.looked(blocks.start, done);
        match stop {
            None => (self.finder.wait, self.finder.pauses) = (None, PAUSES),
            // Another node may keep it later: an archive that is added, or returns.
            Some(Stop::Pruned(kept)) if kept == before.missed.1 => {
                self.finder.again = Some(now + HOUR);
                self.log_progress(now, reach);
            }
            Some(Stop::Pruned(kept)) => reach = reach.skip(done, kept),
            Some(Stop::Later(error)) => {
                tracing::debug!(%error, height = done, "a block cannot be looked through now");
                self.finder.back_off(now);
            }
        }
        let used = self.used();
        found.retain(|id| !used.contains(id));
        for id in &found {
            tracing::info!(
                slot = id.slot,
                opened = id.opened,
                "found an agreement whose consumer never contacted this provider"
            );
        }
        Ok(self.finder.finds.keep(found, reach).await?)
    }

    /// Warns that agreements cannot be found, at most once an hour.
    fn log_progress(&mut self, now: SystemTime, reach: Reach) {
        if self.finder.logged_at.is_some_and(|at| now < at + HOUR) {
            return;
        }
        self.finder.logged_at = Some(now);
        let missing = (self.finder.slots.1 as usize).saturating_sub(self.known().len());
        let (from, to) = reach.missed;
        tracing::warn!(
            missing,
            from,
            to,
            "the ledger counts agreements that hold room here and that no kept block shows; \
             add a node that keeps all blocks (an archive)"
        );
    }

    /// Own agreements known from data sets, voucher store or blocks and not proved gone.
    fn known(&self) -> BTreeSet<AgreementId> {
        let mut known = self.used();
        known.extend(self.finder.finds.all().map(|(id, _)| *id));
        known.retain(|id| !self.ender.is_gone(id));
        known
    }

    /// Runs once a round: proves found agreements that were not proved for an epoch, then compares counts.
    pub(super) async fn recheck(&mut self) -> Result<(), ReconcilerError> {
        let view = &self.handler.parts().view;
        let oldest = view.height().saturating_sub(view.parameters.epoch_blocks());
        let stale = self.finder.finds.all().filter(|(_, proof)| proof.height <= oldest);
        let stale: Vec<AgreementId> = stale.map(|(id, _)| *id).take(REFRESH_MAX).collect();
        self.prove(&stale).await?;
        self.compare().await
    }

    /// If the proved count equals the number of agreements known to have existed at that height, all are
    /// known: no block up to there needs a search.
    async fn compare(&mut self) -> Result<(), ReconcilerError> {
        let (height, slots) = *self.finder.confirmer.get_or_insert(self.finder.slots);
        let view = &self.handler.parts().view;
        let found = |id: &AgreementId| self.finder.finds.proof(id).map_or(0, |proof| proof.height);
        let proved = |id: &AgreementId| view.kept(id).map_or(0, |terms| terms.height).max(found(id));
        let known = self.known();
        let (mut count, mut all) = (0, true);
        for id in known.iter().filter(|id| id.opened <= height) {
            if proved(id) >= height {
                count += 1;
            } else {
                all = false;
            }
        }
        if count == slots {
            self.finder.agreed = self.finder.agreed.max(height);
        }
        if all || count == slots {
            self.finder.confirmer = None;
        }
        let reach = self.finder.finds.reach();
        if self.finder.agreed > reach.next.saturating_add(AGREED_BLOCKS) {
            self.finder.finds.keep(vec![], reach.agreed(self.finder.agreed)).await?;
        }
        Ok(())
    }

    /// The agreements of `case.terms` that are due for upkeep, and the found ones that are over, proved now:
    /// an operation that names a slot already cleared by another is refused as a whole.
    pub(super) async fn due_now(&mut self, case: &Case) -> Result<BTreeMap<u32, Terms>, ReconcilerError> {
        let settle = case.upkeep();
        let slots = settle.iter().flat_map(|settle| settle.slots.iter().map(|(slot, ..)| slot));
        let mut due: Vec<AgreementId> =
            slots.filter_map(|slot| case.terms.get(slot)).map(|terms| terms.id).collect();
        let kept: BTreeSet<AgreementId> = case.terms.values().map(|terms| terms.id).collect();
        let epoch = case.parameters.epoch(case.height);
        let over = self.finder.finds.all().filter(|(id, proof)| proof.over <= epoch && !kept.contains(id));
        let over = over.filter(|(id, _)| !self.ender.is_gone(id));
        due.extend(over.map(|(id, _)| *id).take(SETTLE_SLOTS_MAX));
        let proved = self.prove(&due).await?;
        Ok(proved.into_iter().map(|terms| (terms.id.slot, terms)).collect())
    }

    /// Proves agreements; returns the terms of those that exist and suspects those that seem gone.
    async fn prove(&mut self, ids: &[AgreementId]) -> Result<Vec<Terms>, ReconcilerError> {
        let (ledger, account) = (self.ledger.clone(), self.account());
        let view = self.handler.parts().view.clone();
        let window = view.parameters.redemption_epochs;
        let mut reputation = vec![];
        let slots: Vec<u32> = ids.iter().map(|id| id.slot).collect();
        let pages = read_pages(&ledger, &account, &slots).await?;
        for (page, (height, all)) in ids.chunks(SLOTS_READ).zip(pages) {
            for (id, terms) in page.iter().zip(all) {
                if let Some(terms) = terms.filter(|terms| terms.id == *id) {
                    let over = window_end(&terms, window);
                    self.stands(&terms).await?;
                    self.finder.finds.note(id, Proof { height, over });
                    if view.kept(id).is_some() {
                        view.learn(terms.clone());
                    }
                    reputation.push(terms);
                } else if height >= self.last_seen(id) {
                    self.ender.suspect(*id);
                }
            }
        }
        Ok(reputation)
    }
}

/// Searches the first of these blocks, up to one that is unavailable.
async fn look<L: Ledger>(ledger: &L, account: &Account, blocks: Range<u64>) -> Looked {
    let (mut found, mut stop, mut done) = (vec![], None, blocks.start);
    let end = blocks.end.min(done.saturating_add(BLOCKS_A_TICK));
    while done < end && stop.is_none() {
        match opened_at(ledger, account, done).await {
            Ok(ids) => {
                found.extend(ids);
                done += 1;
            }
            Err(LedgerError::Pruned) => {
                let kept = first_kept(ledger, done, blocks.end).await;
                stop = Some(kept.map_or_else(Stop::Later, Stop::Pruned));
            }
            Err(error) => stop = Some(Stop::Later(error)),
        }
    }
    Looked { blocks, done, found, stop }
}

/// The first block after `pruned` that some node keeps, or `end`: a node that keeps one keeps all later ones.
async fn first_kept<L: Ledger>(ledger: &L, mut pruned: u64, end: u64) -> Result<u64, LedgerError> {
    let mut kept = end;
    while pruned + 1 < kept {
        let middle = pruned + (kept - pruned) / 2;
        match ledger.openings(middle).await {
            Ok(_) => kept = middle,
            Err(LedgerError::Pruned) => pruned = middle,
            Err(error) => return Err(error),
        }
    }
    Ok(kept)
}

/// The agreements with this provider that were opened at a height and still exist, by proof.
async fn opened_at<L: Ledger>(
    ledger: &L,
    account: &Account,
    height: u64,
) -> Result<Vec<AgreementId>, LedgerError> {
    let hints: BTreeSet<u32> = ledger.openings(height).await?.into_iter().collect();
    let hints: Vec<u32> = hints.into_iter().filter(|slot| *slot < SLOTS_MAX).collect();
    let mut found = vec![];
    for page in hints.chunks(READ_KEYS_MAX) {
        let keys = page.iter().map(|slot| Agreement::key(account, *slot)).collect();
        let (at, records) = ledger.read(keys).await?;
        if at < height {
            return Err(LedgerError::Unreachable("the node is behind the block".into()));
        }
        for (slot, record) in page.iter().zip(&records) {
            let agreement: Option<Agreement> = decode(record.as_ref())?;
            found.extend(agreement.filter(|a| a.opened == height).map(|a| a.id(*account, *slot)));
        }
    }
    Ok(found)
}
