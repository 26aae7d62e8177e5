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
