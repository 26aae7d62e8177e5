//! Keeps the provider in step with the ledger: one pass for each certified height.
//!
//! ```text
//!   height --> own records --> not registered?  register
//!                          --> alerts (report)
//!                          --> capacity cut by a refusal?  declare again what there is room for
//!                          --> challenge open?  statement (again until the record says answered)
//!                          --> none, and asleep or with slots that ended?  free upkeep
//!                          --> more agreements than are known?  look for them in blocks
//!              each round --> terms of all books: versions in force, ended agreements, their space
//!                          --> loose shards go, due vouchers redeemed, claims brought that pay
//! ```
//!
//! Everything that it decides follows from the ledger's records and this provider's own durable
//! state, so a restart at any point goes on where it was.

mod beside;
mod bring;
mod find;
mod finds;

pub use finds::Finds;

use crate::{
    ledger::{Ledger, LedgerError, decode},
    prover::{Case, NoStatement, Reader},
    redeem,
    report::Reporter,
    segments::StoreError,
    serve::Desk,
    terms::Terms,
    till::State,
    view::Question,
};
use beside::Beside;
use commonware_runtime::{Blob, Spawner};
use commonware_storage::Context;
use commonware_utils::channel::mpsc;
use posync_protocol::{
    Account, AgreementId, Amount, Body, Code, Hash,
    amount::UNIT,
    ledger::base_fee,
    limits::READ_KEYS_MAX,
    operation::{Redeem, Redemption, RegisterProvider, UpdateProvider},
    provider::sellable,
    record::{Agreement, Audit, DataSet, Endings, Offer, Provider, RoundInfo, Standing, System, Use},
    standing::check_grows,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// Blocks after which an unanswered challenge is answered again.
const RETRY_BLOCKS: u64 = 3;
/// Blocks between tries to register.
const REGISTER_BLOCKS: u64 = 16;
/// Slots whose three records fit one proven read.
const SLOTS_READ: usize = READ_KEYS_MAX / 3;
/// Agreements looked at in one round.
const REFRESH_MAX: usize = 4 * SLOTS_READ;

/// Why the keeper ends.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The books failed.
    #[error(transparent)]
    Books(#[from] crate::books::BooksError),
    /// The till failed.
    #[error(transparent)]
    Till(#[from] crate::till::TillError),
    /// The list of agreements that were found failed.
    #[error("the keeper's journal failed: {0}; check the volume, then start again")]
    Finds(#[from] crate::journal::Error),
    /// A step could not be done now; the next height tries again.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// The keeper.
pub struct Keeper<E: Spawner + Context, B, L> {
    context: E,
    desk: Arc<Desk<E, B>>,
    ledger: L,
    registration: RegisterProvider,
    loose: Duration,
    report: Reporter,
    is_registered: bool,
    registered_at: Option<u64>,
    /// The challenge answered last, and when.
    answered: Option<(u64, u64)>,
    /// The last agreement that was refreshed.
    refreshed: Option<AgreementId>,
    /// The round in which it tidied last.
    tidied: Option<u64>,
    freed_at: Option<u64>,
    /// The epoch in which it declared its capacity last.
    declared: Option<u64>,
    declaring: Beside,
    freeing: Beside,
    redeeming: Beside,
    bringer: bring::Bringer,
    finder: find::Finder<E>,
    costs: Costs,
}

/// What an operation of its own costs depends on, as last proved.
#[derive(Clone, Copy, Debug, Default)]
struct Costs {
    /// Its index: names the path in the fee tree.
    index: u32,
    /// Grains per unit that the next block charges.
    base_fee: u64,
    /// Grains that an epoch of good answers pays for storage, of which fees are paid.
    pay: u128,
}

impl<E: Spawner + Context, B: Blob, L: Ledger> Keeper<E, B, L> {
    /// A keeper of a desk.
    pub const fn new(
        context: E,
        desk: Arc<Desk<E, B>>,
        ledger: L,
        registration: RegisterProvider,
        loose: Duration,
        report: Reporter,
        finds: Finds<E>,
    ) -> Self {
        Self {
            context,
            desk,
            ledger,
            registration,
            loose,
            report,
            is_registered: false,
            registered_at: None,
            answered: None,
            refreshed: None,
            tidied: None,
            freed_at: None,
            declared: None,
            declaring: Beside::new(),
            freeing: Beside::new(),
            redeeming: Beside::new(),
            bringer: bring::Bringer::new(),
            finder: find::Finder::new(finds),
            costs: Costs { index: 0, base_fee: 0, pay: 0 },
        }
    }

    fn account(&self) -> Account {
        self.desk.parts().view.account
    }

    /// Runs until the disk fails or every handle of the desk is gone.
    ///
    /// # Errors
    /// The store, the books or the till failed. The ledger being out of reach is no error: it is
    /// told, and tried again.
    pub async fn run(mut self) -> Result<(), KeeperError> {
        self.sweep().await?;
        let mut height = 0;
        loop {
            let step = match self.ledger.above(height).await {
                Ok(next) => {
                    height = next;
                    self.desk.parts().view.advance(height);
                    self.step().await
                }
                Err(error) => Err(error.into()),
            };
            match step {
                Ok(()) => {}
                // An earlier copy of the answer was still under way.
                Err(KeeperError::Ledger(LedgerError::Refused(Code::NotDrawn))) => {
                    tracing::debug!(height, "the challenge is answered already");
                }
                Err(KeeperError::Ledger(error)) => {
                    tracing::warn!(%error, height, "the ledger did not take what is due; trying again");
                    self.context.sleep(Duration::from_millis(250)).await;
                }
                Err(fatal) => return Err(fatal),
            }
        }
    }

    /// What is due at the view's height.
    ///
    /// # Errors
    /// [`KeeperError`]; `Ledger` may be tried again.
    pub async fn step(&mut self) -> Result<(), KeeperError> {
        let height = self.desk.parts().view.height();
        let Some(case) = self.own(height).await? else {
            return self.register(height).await;
        };
        self.is_registered = true;
        self.look(&case);
        self.keep_asked(&case).await?;
        self.costs.index = case.provider.index;
        let rounds = u128::from(case.parameters.epoch_rounds);
        self.costs.pay = case.provider.paid_base.saturating_mul(rounds) / UNIT;
        self.declare(&case);
        self.find(case.provider.born).await?;
        let Some(challenge) = case.audit.challenge else {
            self.free(case).await?;
            return self.tidy_each_round(height).await;
        };
        let waits = self
            .answered
            .is_some_and(|(drawn, at)| drawn == challenge.height && case.height < at + RETRY_BLOCKS);
        if !waits {
            self.answered = self.answer(case).await?.then_some((challenge.height, height));
        }
        self.tidy_each_round(height).await
    }

    /// Tells the operator what these records mean, and the desk whether new data is of any use.
    fn look(&mut self, case: &Case) {
        let parts = self.desk.parts();
        self.report.look(case, parts.store.totals().leaves);
        parts.view.set_growth(case.standing.as_ref().map_or(Ok(()), check_grows));
    }

    /// Keeps the shards of reads that are asked again, whatever is in force by now (RD-7).
    async fn keep_asked(&self, case: &Case) -> Result<(), KeeperError> {
        let asked = case.audit.missing.iter().map(|missing| (missing.slot, missing.shard)).collect();
        for (agreement, shard) in self.desk.parts().books.ask_again(asked) {
            self.unlink(agreement, vec![shard]).await?;
        }
        Ok(())
    }

    async fn tidy_each_round(&mut self, height: u64) -> Result<(), KeeperError> {
        let round = self.desk.parts().view.parameters.round(height);
        if self.tidied.is_none_or(|last| round > last) {
            self.tidy().await?;
            self.tidied = Some(round);
        }
        Ok(())
    }

    /// Frees what ended, beside other work: of the agreements that were used, by what was proved of
    /// them in the last round, and of those that were found in blocks.
    async fn free(&mut self, mut case: Case) -> Result<(), KeeperError> {
        if self.freed_at.is_some_and(|at| case.height < at + RETRY_BLOCKS) || self.freeing.is_busy() {
            return Ok(());
        }
        let view = &self.desk.parts().view;
        let kept = self.used().into_iter().filter_map(|id| view.kept(&id));
        case.terms = kept.map(|terms| (terms.id.slot, terms)).collect();
        case.terms = self.due_now(&case).await?;
        let settle = case.upkeep();
        if settle.is_some() || !case.terms.is_empty() {
            self.freed_at = Some(case.height);
        }
        if let Some(settle) = settle {
            self.freeing = self.send_beside(Body::Settle(settle), "upkeep could not be sent now");
        }
        Ok(())
    }

    async fn register(&mut self, height: u64) -> Result<(), KeeperError> {
        if self.is_registered {
            // It left, or was removed: coming back is the operator's decision, by a new start.
            return Ok(());
        }
        if self.registered_at.is_none_or(|at| height >= at + REGISTER_BLOCKS) {
            self.registered_at = Some(height);
            tracing::info!("registering as a provider");
            self.ledger.pay(Body::RegisterProvider(self.registration.clone())).await?;
        }
        Ok(())
    }

    /// Declares again what there is room for when a refusal has cut the capacity (PV-5), as far as the
    /// bond covers it, beside other work: at most once an epoch, since each try costs a fee.
    fn declare(&mut self, case: &Case) {
        let Case { provider, offer, parameters, height, .. } = case;
        let (epoch, capacity) = (parameters.epoch(*height), self.registration.capacity);
        let capacity = sellable(&Offer { capacity, ..offer.clone() }, provider, parameters);
        let leaves = provider.leaves_at != 0;
        let is_tried = self.declared == Some(epoch) || self.declaring.is_busy();
        if leaves || capacity <= offer.capacity || is_tried {
            return;
        }
        self.declared = Some(epoch);
        tracing::info!(from = offer.capacity, to = capacity, "declaring the capacity again");
        let update = UpdateProvider {
            bond_add: Amount::ZERO,
            capacity,
            capacity_egress: offer.capacity_egress,
            capacity_gas: offer.capacity_gas,
            reserve_storage: offer.reserve_storage,
            reserve_egress: offer.reserve_egress,
            reserve_gas: offer.reserve_gas,
            term_max: offer.term_max,
            addresses: self.registration.addresses.clone(),
            index: provider.index,
            leave: false,
            exit: None,
        };
        let failed = "the capacity could not be declared again now";
        self.declaring = self.pay_beside(Body::UpdateProvider(update), failed);
    }

    /// The own records without slots; `None` when not registered.
    async fn own(&mut self, height: u64) -> Result<Option<Case>, LedgerError> {
        let (account, parameters) = (self.account(), self.desk.parts().view.parameters);
        let mut keys = vec![Provider::key(&account), Audit::key(&account), Endings::key(&account)];
        keys.extend([Standing::key(&account), Offer::key(&account), System::key()]);
        let (at, slots) = self.ledger.read(keys).await?;
        let slot = |place: usize| slots.get(place).and_then(Option::as_ref);
        self.costs.base_fee = base_fee(&decode::<System>(slot(5))?.unwrap_or_default(), &parameters);
        let Some(provider) = decode::<Provider>(slot(0))? else { return Ok(None) };
        let Some(offer) = decode::<Offer>(slot(4))? else { return Ok(None) };
        let (audit, endings) = (decode::<Audit>(slot(1))?.unwrap_or_default(), decode::<Endings>(slot(2))?);
        self.finder.saw(at, provider.slots);
        let (height, anchor, terms) = (at.max(height), [0; 32], BTreeMap::new());
        let standing = decode::<Standing>(slot(3))?;
        Ok(Some(Case {
            account,
            parameters,
            height,
            provider,
            offer,
            audit,
            standing,
            endings,
            anchor,
            terms,
        }))
    }

    /// Proves the records of slots; absent agreements are `None`.
    async fn read_slots(&self, slots: &[u32]) -> Result<(u64, Vec<Option<Terms>>), LedgerError> {
        read_slots(&self.ledger, &self.account(), slots).await
    }

    /// Builds and sends a statement. `false` if there is none to send (now).
    async fn answer(&mut self, mut case: Case) -> Result<bool, KeeperError> {
        let parts = self.desk.parts();
        let slots: BTreeSet<u32> =
            parts.books.with(|state| state.agreements().map(|agreement| agreement.slot).collect());
        let slots: Vec<u32> = slots.into_iter().collect();
        for page in slots.chunks(SLOTS_READ) {
            for terms in self.read_slots(page).await?.1.into_iter().flatten() {
                parts.view.learn(terms.clone());
                case.terms.insert(terms.id.slot, terms);
            }
        }
        let Ok(challenge) = case.challenge() else { return Ok(false) };
        let round = case.parameters.round(challenge.height);
        let key = RoundInfo::key(round % case.parameters.round_ring);
        let keys = vec![Audit::key(&case.account), Provider::key(&case.account), key];
        let (at, last) = self.ledger.read(keys).await?;
        let now: Option<Audit> = decode(last.first().and_then(Option::as_ref))?;
        if now.as_ref().and_then(|audit| audit.challenge) != Some(challenge) {
            return Ok(false);
        }
        let info: Option<RoundInfo> = decode(last.get(2).and_then(Option::as_ref))?;
        let Some(info) = info.filter(|info| info.round == round) else { return Ok(false) };
        (case.anchor, case.height) = (info.anchor, at);
        let reader = Reader { store: &parts.store, books: &parts.books };
        let vouchers = self.payable(&case);
        let statement = match reader.answers(&case).await {
            Ok(answers) => case.statement(answers, reader.reasked(&case).await, vouchers),
            Err(error) => Err(error),
        };
        match statement {
            Ok(statement) => {
                self.ledger.send(Body::Statement(statement)).await?;
                Ok(true)
            }
            Err(NoStatement::NotDrawn) => Ok(false),
            Err(error) => {
                tracing::error!(%error, height = challenge.height, "a challenge cannot be answered");
                Ok(true)
            }
        }
    }

    fn payable(&self, case: &Case) -> Vec<Redemption> {
        let kept = self.kept();
        let round = case.parameters.round(case.height);
        redeem::payable(kept.iter().map(|(terms, kept)| (terms, kept)), round, &case.parameters)
    }

    /// The kept vouchers with their terms, and with a claim where something is overdue.
    fn kept(&self) -> Vec<(Terms, Redemption)> {
        let parts = self.desk.parts();
        let now = self.context.current();
        let overdue = |till: &mut State| -> Vec<(Redemption, u64)> {
            till.vouchers().map(|kept| (*kept, till.overdue(&kept.voucher.agreement, now))).collect()
        };
        let kept = parts.till.with(overdue).into_iter();
        let with_terms = kept.filter_map(|(kept, overdue)| {
            let terms = parts.view.kept(&kept.voucher.agreement)?;
            let redemption = redeem::claiming(&kept, overdue, terms.disputed_bytes());
            Some((terms, redemption))
        });
        with_terms.collect()
    }

    /// Refreshes some agreements, gives back what is no longer held, and redeems.
    async fn tidy(&mut self) -> Result<(), KeeperError> {
        self.refresh().await?;
        self.recheck().await?;
        for (agreement, mut shards) in self.desk.expired(self.loose) {
            shards.retain(|shard| !self.desk.is_loose(agreement, *shard));
            let going = self.desk.parts().books.let_go(agreement, shards);
            self.unlink(agreement, going).await?;
        }
        self.redeem();
        self.bring();
        Ok(())
    }

    /// Proves the records of some agreements in turn; notes versions in force and ended ones.
    async fn refresh(&mut self) -> Result<(), KeeperError> {
        let due = self.due();
        self.refreshed = due.last().copied().or(Some(nobody()));
        for page in due.chunks(SLOTS_READ) {
            let slots: Vec<u32> = page.iter().map(|id| id.slot).collect();
            let (height, all) = self.read_slots(&slots).await?;
            for (id, terms) in page.iter().zip(all) {
                match terms.filter(|terms| terms.id == *id) {
                    // A node that is behind proves the absence of what came since.
                    None if height < self.last_seen(id) => {}
                    None => self.end(*id, height).await?,
                    Some(terms) => {
                        let going = self.desk.parts().books.observe(*id, terms.data.clone()).await?;
                        self.desk.parts().view.learn(terms);
                        self.unlink(*id, going).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The agreements to look at now: those after the last one, then from the start.
    fn due(&self) -> Vec<AgreementId> {
        let all = self.used();
        let from = self.refreshed.unwrap_or_else(nobody);
        let later = all.iter().filter(|id| **id > from);
        later.chain(all.iter().filter(|id| **id <= from)).take(REFRESH_MAX).copied().collect()
    }

    /// The agreements that books or till tell of.
    fn used(&self) -> BTreeSet<AgreementId> {
        let parts = self.desk.parts();
        let mut all: BTreeSet<AgreementId> = parts.books.with(|state| state.agreements().collect());
        all.extend(parts.till.with(|till| till.agreements().collect::<Vec<_>>()));
        all
    }

    /// Gives back what an agreement held that was proved gone at a height.
    async fn end(&mut self, id: AgreementId, height: u64) -> Result<(), KeeperError> {
        self.finder.ended(height);
        let parts = self.desk.parts();
        tracing::info!(slot = id.slot, opened = id.opened, "an agreement is over; its space comes back");
        let going = parts.books.end(id).await?;
        self.unlink(id, going).await?;
        parts.till.forget(id).await?;
        parts.view.forget(id.slot);
        self.drop_found(id).await
    }

    async fn unlink(&self, id: AgreementId, shards: Vec<Hash>) -> Result<(), KeeperError> {
        if shards.is_empty() {
            return Ok(());
        }
        let parts = self.desk.parts();
        parts.store.unlink(id, &shards).await?;
        parts.books.gone(id, &shards);
        Ok(())
    }

    /// Pays for a redemption when some voucher must not wait; one at a time, beside the rest.
    fn redeem(&mut self) {
        if self.redeeming.is_busy() {
            return;
        }
        let (view, Costs { base_fee, pay, .. }) = (&self.desk.parts().view, self.costs);
        let (height, parameters, kept) = (view.height(), view.parameters, self.kept());
        let reads = kept.iter().filter(|(terms, kept)| redeem::is_read(terms, kept)).count();
        let spare = redeem::spare(pay, reads);
        let is_due =
            |(terms, kept): &(Terms, _)| redeem::is_due(terms, kept, height, base_fee, spare, &parameters);
        let due = kept.into_iter().filter(is_due).map(|(_, kept)| kept);
        let vouchers = crate::prover::up_to(due);
        if !vouchers.is_empty() {
            let body = Body::Redeem(Redeem { vouchers });
            self.redeeming = self.pay_beside(body, "vouchers could not be redeemed now");
        }
    }

    /// At the start: what the store holds and no book names is loose; what a book names and the
    /// store no longer counts to its agreement is counted again.
    async fn sweep(&self) -> Result<(), KeeperError> {
        let parts = self.desk.parts();
        let mut owed: BTreeSet<(AgreementId, Hash)> = parts.books.with(|state| state.kept());
        let mut after = None;
        loop {
            let page = parts.store.page(after, 1024);
            let Some(last) = page.last() else { break };
            after = Some(*last);
            for shard in page {
                for agreement in parts.store.holders(&shard) {
                    if !owed.remove(&(agreement, shard)) {
                        self.desk.note_loose(agreement, shard);
                    }
                }
            }
        }
        for (agreement, shard) in owed {
            if let Ok(data) = parts.store.get(&shard).await {
                parts.store.put(agreement, shard, data).await?;
            }
        }
        Ok(())
    }
}

const fn nobody() -> AgreementId {
    AgreementId { provider: Account([0; 32]), slot: 0, opened: 0 }
}

/// Proves the records of at most [`SLOTS_READ`] slots, and says at which height.
///
/// # Errors
/// `Unreachable`, `Record`.
pub async fn read_slots<L: Ledger>(
    ledger: &L,
    account: &Account,
    slots: &[u32],
) -> Result<(u64, Vec<Option<Terms>>), LedgerError> {
    let keys = slots.iter().flat_map(|slot| {
        [Agreement::key(account, *slot), Use::key(account, *slot), DataSet::key(account, *slot)]
    });
    let (height, records) = ledger.read(keys.collect()).await?;
    let mut all = vec![];
    for (slot, three) in slots.iter().zip(records.chunks(3)) {
        let [agreement, usage, data] = three else { return Err(LedgerError::Record) };
        let agreement: Option<Agreement> = decode(agreement.as_ref())?;
        let usage: Option<Use> = decode(usage.as_ref())?;
        let data: DataSet = decode(data.as_ref())?.unwrap_or_default();
        all.push(agreement.zip(usage).map(|(agreement, usage)| {
            let id = agreement.id(*account, *slot);
            Terms { id, height, agreement, usage, data }
        }));
    }
    Ok((height, all))
}

/// Answers the view's questions, one proven read each.
pub async fn answer_questions<L: Ledger>(
    ledger: L,
    view: crate::view::View,
    mut questions: mpsc::Receiver<Question>,
) {
    while let Some(Question { slot, done }) = questions.recv().await {
        match read_slots(&ledger, &view.account, &[slot]).await {
            Ok((_, mut terms)) => {
                let terms = terms.pop().flatten();
                if let Some(terms) = &terms {
                    view.learn(terms.clone());
                }
                let _ = done.send(terms);
            }
            // Dropping the sender says that no proof could be had.
            Err(error) => tracing::debug!(%error, slot, "no proof of an agreement"),
        }
    }
}

#[cfg(test)]
mod tests;
