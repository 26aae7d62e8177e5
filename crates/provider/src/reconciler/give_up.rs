//! Gives up agreements that are gone from the ledger, and none before that is certain.
//!
//! ```text
//!   a node proves no record --> suspected
//!     --> two nodes prove it at or above the opening, the floor and the last proof --> gone
//!     --> the grace period passes in certified blocks; a record that appears takes it back
//!     --> two nodes prove it again --> data sets and bytes go; vouchers too, once their window is over
//! ```
//!
//! The grace period is counted in certified heights: no clock moves it, and it continues across restarts.

use super::{
    REFRESH_MAX, RETRY_BLOCKS, Reconciler, ReconcilerError, SLOTS_READ, ends::Ends, slot_keys, terms_of,
};
use crate::{
    ledger::{Ledger, LedgerError, Proven},
    terms::Terms,
};
use commonware_runtime::{Blob, Handle, Spawner};
use commonware_storage::Context;
use futures::FutureExt as _;
use posync_protocol::{Account, AgreementId, Hash};
use std::collections::{BTreeMap, BTreeSet};

/// Outcome of a suspicion.
enum Verdict {
    /// Every confirming node proves that there is no record; the height is that of the oldest proof.
    Gone(u64),
    /// A confirming node proves that the agreement exists.
    Stands(Box<Terms>),
}

type Judged = Vec<(AgreementId, Verdict)>;

/// Agreements that are suspected, gone, or given up.
pub(super) struct Ender<E: Context> {
    pub(super) ends: Ends<E>,
    /// Agreements of which a node proved, in a state that may count, that there is no record.
    suspects: BTreeSet<AgreementId>,
    task: Option<Handle<Judged>>,
    /// Height at which confirming nodes were asked last.
    asked: Option<u64>,
    /// Agreements that are given up except for their voucher, which is kept until this epoch.
    waiting: BTreeMap<AgreementId, u64>,
    /// Blocks between the first confirmed proof and the last.
    grace: u64,
}

impl<E: Context> Ender<E> {
    pub(super) fn new(ends: Ends<E>, grace: u64) -> Self {
        let (suspects, waiting) = (BTreeSet::new(), BTreeMap::new());
        Self { ends, suspects, task: None, asked: None, waiting, grace }
    }

    /// Notes that a node proved, at a height that counts, that there is no such record.
    pub(super) fn suspect(&mut self, id: AgreementId) {
        self.suspects.insert(id);
    }

    /// True if its absence is proved and confirmed.
    pub(super) fn is_gone(&self, id: &AgreementId) -> bool {
        self.ends.gone(id).is_some()
    }

    /// Agreements to ask confirming nodes about at `height` in `epoch`, each with the least height that counts.
    fn due(
        &self,
        height: u64,
        epoch: u64,
        last_seen: impl Fn(&AgreementId) -> u64,
    ) -> Vec<(AgreementId, u64)> {
        let over = |since: u64| since.saturating_add(self.grace);
        let ripe = self.ends.all_gone().filter(|(_, since)| over(**since) <= height);
        let ripe = ripe.filter(|(id, _)| self.waiting.get(id).is_none_or(|until| epoch >= *until));
        let ripe = ripe.map(|(id, since)| (*id, over(*since)));
        let new = self.suspects.iter().filter(|id| !self.is_gone(id)).map(|id| (*id, 0));
        let floor = self.ends.floor();
        let all = ripe.chain(new).take(REFRESH_MAX);
        all.map(|(id, least)| (id, least.max(floor).max(last_seen(&id)))).collect()
    }
}

impl<E: Spawner + Context, B: Blob, L: Ledger> Reconciler<E, B, L> {
    /// Applies the confirming nodes' answers, and asks them about the agreements that are due.
    pub(super) async fn judge_gone(&mut self) -> Result<(), ReconcilerError> {
        if let Some(task) = self.ender.task.as_mut() {
            let Some(done) = task.now_or_never() else { return Ok(()) };
            self.ender.task = None;
            let judged = done.unwrap_or_else(|error| {
                tracing::error!(%error, "asking two nodes about ended agreements failed");
                vec![]
            });
            for (id, verdict) in judged {
                match verdict {
                    Verdict::Gone(height) => self.lose(id, height).await?,
                    Verdict::Stands(terms) => self.stands(&terms).await?,
                }
            }
        }
        let (height, epoch) = (self.handler.parts().view.height(), self.handler.parts().view.epoch());
        if self.ender.asked.is_some_and(|at| height > at && height < at + RETRY_BLOCKS) {
            return Ok(());
        }
        let due = self.ender.due(height, epoch, |id| self.last_seen(id));
        self.ender.suspects.clear();
        if !due.is_empty() {
            self.ender.asked = Some(height);
            let (ledger, account) = (self.ledger.clone(), self.account());
            let ask = move |_| async move { confirmed(&ledger, &account, due).await };
            self.ender.task = Some(self.context.child("confirmers").spawn(ask));
        }
        Ok(())
    }

    /// The height from which on an absence counts: that of the opening or of the last proof.
    pub(super) fn last_seen(&self, id: &AgreementId) -> u64 {
        let found = self.finder.finds.proof(id).map_or(0, |proof| proof.height);
        let kept = self.handler.parts().view.kept(id).map_or(0, |terms| terms.height);
        id.opened.max(found).max(kept)
    }

    /// Notes that a record was proved: a suspected or gone agreement exists.
    pub(super) async fn stands(&mut self, terms: &Terms) -> Result<(), ReconcilerError> {
        let id = terms.id;
        self.ender.suspects.remove(&id);
        if self.ender.ends.gone(&id).is_some_and(|since| since <= terms.height) {
            tracing::warn!(
                slot = id.slot,
                opened = id.opened,
                "an agreement is on the ledger again; everything of it was kept"
            );
            self.ender.waiting.remove(&id);
            self.ender.ends.find(id).await?;
        }
        Ok(())
    }

    /// Handles the proof by two nodes, at a height, that an agreement is gone.
    async fn lose(&mut self, id: AgreementId, height: u64) -> Result<(), ReconcilerError> {
        self.finder.ended(height);
        let (slot, opened, blocks) = (id.slot, id.opened, self.ender.grace);
        match self.ender.ends.gone(&id) {
            Some(since) if height >= since.saturating_add(blocks) => self.end(id, height).await,
            Some(_) => Ok(()),
            None if !self.used().contains(&id) => self.drop_found(id).await,
            None => {
                tracing::info!(
                    slot,
                    opened,
                    blocks,
                    "an agreement is gone from the ledger; its data is kept for this many blocks more"
                );
                Ok(self.ender.ends.lose(id, height).await?)
            }
        }
    }

    /// Frees the space of an agreement that is gone for good, and drops its vouchers when their window is
    /// over.
    async fn end(&mut self, id: AgreementId, height: u64) -> Result<(), ReconcilerError> {
        let (store, data_sets) = (&self.handler.parts().store, &self.handler.parts().data_sets);
        let mut going: BTreeSet<Hash> = data_sets.end(id).await?.into_iter().collect();
        going.extend(store.held_by(&id));
        if !going.is_empty() {
            let (slot, opened, shards) = (id.slot, id.opened, going.len());
            tracing::info!(slot, opened, shards, "an agreement is over; its space comes back");
        }
        self.unlink(id, going.into_iter().collect()).await?;
        if !store.held_by(&id).is_empty() {
            // The disk accepts no removal now; the next round tries again.
            return Ok(());
        }
        self.handler.forget_loose(&id);
        let view = &self.handler.parts().view;
        let (parameters, term) = (view.parameters, u64::from(self.registration.term_max));
        // An agreement that was never proved here counts as the longest that is allowed.
        let longest = parameters.epoch(id.opened).saturating_add(term + 1 + parameters.redemption_epochs);
        let over = self.ender.ends.window(&id).unwrap_or(longest);
        let parts = self.handler.parts();
        if parts.vouchers.with(|vouchers| vouchers.voucher(&id).is_none()) || parameters.epoch(height) >= over
        {
            parts.vouchers.forget(id).await?;
            parts.view.forget(id.slot);
            self.ender.ends.forget(id).await?;
            self.ender.waiting.remove(&id);
            self.drop_found(id).await?;
        } else {
            self.ender.waiting.insert(id, over);
        }
        Ok(())
    }

    /// Drops an agreement that was found in blocks and is proved gone.
    async fn drop_found(&mut self, id: AgreementId) -> Result<(), ReconcilerError> {
        Ok(self.finder.finds.drop_gone(id).await?)
    }

    /// Notes, durably, when the windows of proved agreements end: their vouchers are kept until then.
    pub(super) async fn note_windows(&mut self, proved: &[Terms]) -> Result<(), ReconcilerError> {
        let epochs = self.handler.parts().view.parameters.redemption_epochs;
        let windows = proved.iter().map(|terms| (terms.id, window_end(terms, epochs)));
        Ok(self.ender.ends.note(windows.collect()).await?)
    }
}

/// The epoch from which on no voucher of an agreement can be redeemed.
pub(super) fn window_end(terms: &Terms, epochs: u64) -> u64 {
    let end = terms.agreement.end_epoch.saturating_add(epochs);
    terms.usage.closing_epoch.unwrap_or(end).min(end)
}

/// Proofs of agreements by two nodes, each at or above its least height. Agreements whose proofs are
/// unavailable now are left out.
async fn confirmed<L: Ledger>(ledger: &L, account: &Account, due: Vec<(AgreementId, u64)>) -> Judged {
    let mut judged = vec![];
    for page in due.chunks(SLOTS_READ) {
        let least = page.iter().map(|(_, least)| *least).max().unwrap_or(0);
        let slots: Vec<u32> = page.iter().map(|(id, _)| id.slot).collect();
        match proofs(ledger, account, &slots, least).await {
            Ok(proofs) => {
                let verdict = |(place, (id, _)): (usize, &(AgreementId, u64))| judge(*id, place, &proofs);
                judged.extend(page.iter().enumerate().filter_map(verdict));
            }
            Err(error) => tracing::debug!(%error, least, "an ended agreement cannot be confirmed now"),
        }
    }
    judged
}

type Proofs = Vec<(u64, Vec<Option<Terms>>)>;

async fn proofs<L: Ledger>(
    ledger: &L,
    account: &Account,
    slots: &[u32],
    least: u64,
) -> Result<Proofs, LedgerError> {
    let all = ledger.confirmers(slot_keys(account, slots), least).await?;
    let below = |(height, _): &(u64, _)| *height < least;
    if all.is_empty() || all.iter().any(below) {
        return Err(LedgerError::Unreachable("a confirming node is behind".into()));
    }
    let each = |(height, records): Proven| Ok((height, terms_of(account, slots, height, &records)?));
    all.into_iter().map(each).collect()
}

/// The verdict that the proofs of one page give on the agreement at a place.
fn judge(id: AgreementId, place: usize, proofs: &Proofs) -> Option<(AgreementId, Verdict)> {
    let of = |all: &Vec<Option<Terms>>| all.get(place).cloned().flatten().filter(|terms| terms.id == id);
    let asked = if cfg!(planted = "one-word") { 1 } else { proofs.len() };
    let stands = proofs.iter().take(asked).find_map(|(_, all)| of(all));
    let verdict = match stands {
        Some(terms) => Verdict::Stands(Box::new(terms)),
        None => Verdict::Gone(proofs.iter().map(|(height, _)| *height).min()?),
    };
    Some((id, verdict))
}
