//! Reconciles the provider with the ledger: one pass for each certified height.
//!
//! ```text
//!   height --> own records --> not registered?  register
//!                          --> alerts (report)
//!                          --> offer or address not as configured?  declare it again
//!                          --> challenge open?  storage proof (again until the record says answered)
//!                          --> none, and asleep or with slots that ended?  free upkeep
//!                          --> more agreements than are known?  search blocks for them
//!              each round --> terms of all data sets: versions in force, ended agreements, their space
//!                          --> loose shards go, due vouchers redeemed, profitable claims submitted
//! ```
//!
//! Every decision follows from the ledger's records and this provider's own durable state, so it
//! resumes correctly after a restart at any point.

mod ends;
mod found;
mod gather;
mod give_up;
mod leave;
mod read;
mod search;
mod sending;
mod submit;
mod unsigned;

pub(crate) use ends::Ends;
pub(crate) use found::Finds;
pub(crate) use read::answer_questions;

use crate::{
    alerts::{Disk, Reporter},
    condition::Condition,
    ledger::{Ledger, LedgerError, decode},
    left::Left,
    packs::StoreError,
    prover::{Case, NoStorageProof, Reader},
    redeem,
    serve::Handler,
    terms::Terms,
    vouchers::State,
};
use commonware_runtime::{Blob, Spawner};
use commonware_storage::Context;
use leave::Leaver;
use posync_client::trips::Trips;
use posync_protocol::{
    Account, AgreementId, Amount, Body, Class, Code, Hash,
    amount::UNIT,
    ledger::base_fee,
    limits::{READ_KEYS_MAX, STALE_BLOCKS_MAX},
    operation::{Redeem, Redemption, RegisterProvider, StorageProof, UpdateProvider},
    provider::sellable,
    record::{Address, Audit, Endings, Endpoint, Offer, Provider, Reputation, RoundInfo, System},
    reputation::check_grows,
};
use read::{read_pages, slot_keys, terms_of};
use sending::{FailedSends, Sending, UNDECLARED, UNREGISTERED};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// Blocks after which an unanswered challenge is answered again, beside the time of a round trip.
const RETRY_BLOCKS: u64 = 3;
/// Blocks between two reads of the chain and of its own records by a provider that stores nothing: half of the
/// time in which a challenge is answered on a local network.
pub(crate) const EMPTY_BLOCKS: u64 = 4;
/// Blocks between attempts to register.
const REGISTER_BLOCKS: u64 = 16;
/// Number of slots whose three records fit one proven read.
const SLOTS_READ: usize = READ_KEYS_MAX / 3;
/// Maximum number of agreements refreshed in one round.
const REFRESH_MAX: usize = 4 * SLOTS_READ;

/// Errors of a reconciler; it continues after `Ledger` and after a full volume.
#[derive(Debug, thiserror::Error)]
pub enum ReconcilerError {
    /// The shard store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal of the data sets failed.
    #[error(transparent)]
    DataSets(#[from] crate::data_sets::DataSetsError),
    /// The journal of the voucher store failed.
    #[error(transparent)]
    Vouchers(#[from] crate::vouchers::VouchersError),
    /// The journal of found agreements, or of ends, failed.
    #[error("the reconciler's journal failed: {0}; check the volume, then start again")]
    Finds(#[from] crate::journal::Error),
    /// A step is impossible now; the next height tries again.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The provider has left, and holds nothing any more.
    #[error("the provider has left the network, and nothing that it held is under contract any more")]
    Left,
}

impl ReconcilerError {
    /// True if the volume accepted no writes: the write is repeated at the next height.
    fn is_full(&self) -> bool {
        match self {
            Self::DataSets(error) => matches!(error, crate::data_sets::DataSetsError::NoSpace),
            Self::Vouchers(error) => matches!(error, crate::vouchers::VouchersError::NoSpace),
            Self::Store(error) => matches!(error, StoreError::NoSpace(_)),
            Self::Finds(error) => crate::journal::is_full(error),
            Self::Ledger(_) | Self::Left => false,
        }
    }
}

/// The loop that keeps the provider in step with the ledger.
pub struct Reconciler<E: Spawner + Context, B, L> {
    context: E,
    handler: Arc<Handler<E, B>>,
    ledger: L,
    registration: RegisterProvider,
    patience: Patience,
    report: Reporter,
    condition: Condition,
    /// The condition that a challenge cannot be answered.
    unanswered: Condition,
    failed_sends: FailedSends,
    /// The newest height at which the provider's own records were proved.
    own_at: u64,
    is_registered: bool,
    /// True if the records proved last hold no challenge and no read that is asked again.
    is_unasked: bool,
    /// The height at which the duties were performed last.
    stepped: u64,
    registered_at: Option<u64>,
    /// The challenge answered last, and the height of the last records that the answer was made from.
    answered: Option<(u64, u64)>,
    /// Round trips to the node, each measured by a proven read before an answer.
    trips: Trips,
    /// The storage proof made last: its challenge, and the height of the records that it was made from.
    proved: Option<(u64, u64, StorageProof)>,
    /// The agreement that was refreshed last.
    refreshed: Option<AgreementId>,
    /// The round of the last tidying.
    tidied: Option<u64>,
    freed_at: Option<u64>,
    /// The addresses on the ledger, as last proved.
    announced: Option<Endpoint>,
    /// The last declaration of the offer or the address.
    declared: Option<Declared>,
    declaring: Sending,
    freeing: Sending,
    redeeming: Sending,
    claim_submitter: submit::ClaimSubmitter,
    finder: search::Finder<E>,
    ender: give_up::Ender<E>,
    costs: Costs,
    leaver: Leaver,
}

/// A declaration that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Declared {
    epoch: u64,
    height: u64,
    /// Blocks after which it is sent again in the same epoch if it failed.
    pause: u64,
}

/// Delays after which a reconciler gives something up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Time allowed for a signature after a put.
    pub loose: Duration,
    /// Blocks for which everything of an agreement is kept after its absence was proved.
    pub grace_blocks: u64,
}

/// The durable notes of a reconciler.
pub(crate) struct Journals<E: Context> {
    /// Agreements that were found in blocks.
    pub finds: Finds<E>,
    /// Facts that must be known before an agreement is given up.
    pub ends: Ends<E>,
    /// The mark that the provider leaves.
    pub left: Left,
}

/// The factors that decide the cost of the provider's own operations, as last proved.
#[derive(Clone, Copy, Debug, Default)]
struct Costs {
    /// The provider's index; it names the path in the fee tree.
    index: u32,
    /// Base fee of the next block, in grains per unit.
    base_fee: u64,
    /// Storage pay of an epoch with good answers, in grains; fees come out of it.
    pay: u128,
}

impl<E: Spawner + Context, B: Blob, L: Ledger> Reconciler<E, B, L> {
    /// Creates a reconciler for a handler.
    pub(crate) fn new(
        context: E,
        handler: Arc<Handler<E, B>>,
        ledger: L,
        registration: RegisterProvider,
        patience: Patience,
        report: Reporter,
        journals: Journals<E>,
    ) -> Self {
        let Journals { finds, ends, left } = journals;
        Self {
            context,
            handler,
            ledger,
            registration,
            patience,
            report,
            condition: Condition::new("the ledger did not take what is due"),
            unanswered: Condition::new("a challenge cannot be answered"),
            failed_sends: FailedSends::default(),
            own_at: 0,
            is_registered: false,
            is_unasked: false,
            stepped: 0,
            registered_at: None,
            answered: None,
            trips: Trips::default(),
            proved: None,
            refreshed: None,
            tidied: None,
            freed_at: None,
            announced: None,
            declared: None,
            declaring: Sending::new(),
            freeing: Sending::new(),
            redeeming: Sending::new(),
            claim_submitter: submit::ClaimSubmitter::new(),
            finder: search::Finder::new(finds),
            ender: give_up::Ender::new(ends, patience.grace_blocks.max(1)),
            costs: Costs { index: 0, base_fee: 0, pay: 0 },
            leaver: Leaver::new(left),
        }
    }

    fn account(&self) -> Account {
        self.handler.parts().view.account
    }

    /// Runs until the disk fails or every handle of the handler is gone.
    ///
    /// # Errors
    /// The store, the data sets or the voucher store failed. An unreachable ledger is no error: it is logged and tried
    /// again.
    pub(crate) async fn run(mut self) -> Result<(), ReconcilerError> {
        if self.leaver.left.is_noted() {
            tracing::info!(
                "the provider leaves or has left: it registers no more, and serves what it still holds"
            );
        }
        self.sweep().await?;
        let mut height = 0;
        loop {
            let step = match self.ledger.above(height).await {
                Ok(next) => {
                    height = next;
                    self.reached(height).await
                }
                Err(error) => Err(error.into()),
            };
            match step {
                Ok(()) => drop(self.condition.ended()),
                // An earlier copy of the answer was still in flight.
                Err(ReconcilerError::Ledger(LedgerError::Refused(Code::NotDrawn))) => {
                    tracing::debug!(height, "the challenge is answered already");
                }
                Err(ReconcilerError::Ledger(error)) => {
                    self.condition.holds(&error);
                    self.context.sleep(Duration::from_millis(250)).await;
                }
                Err(full) if full.is_full() => {
                    self.condition.holds(&full);
                    self.context.sleep(Duration::from_millis(250)).await;
                }
                Err(fatal) => return Err(fatal),
            }
        }
    }

    /// Takes a new height, and performs the duties unless nothing can be due.
    async fn reached(&mut self, height: u64) -> Result<(), ReconcilerError> {
        self.handler.parts().view.advance(height);
        if !self.rests(height) {
            self.step().await?;
        }
        self.handler.parts().view.set_unasked(self.is_calm());
        Ok(())
    }

    /// True if nothing can be due at this height: the provider stores nothing and nothing is asked of it, and
    /// its records were read a moment ago.
    fn rests(&self, height: u64) -> bool {
        self.is_calm() && height < self.stepped + EMPTY_BLOCKS
    }

    /// True if the provider stores nothing, and its records that were proved last ask nothing of it.
    fn is_calm(&self) -> bool {
        let stores = self.handler.parts().store.totals().leaves > 0;
        self.is_registered && self.is_unasked && !stores
    }

    /// Performs the duties at the view's height.
    ///
    /// # Errors
    /// [`ReconcilerError`]; `Ledger` may be tried again.
    pub(crate) async fn step(&mut self) -> Result<(), ReconcilerError> {
        // A full disk that blocks a note must not delay an answer.
        let judged = self.judge_gone().await;
        self.duties().await?;
        self.stepped = self.handler.parts().view.height();
        judged
    }

    async fn duties(&mut self) -> Result<(), ReconcilerError> {
        let height = self.handler.parts().view.height();
        let (at, case) = self.own(height).await?;
        let Some(case) = case else {
            // A state from before the registration proves nothing about it.
            let is_old = at < self.ender.ends.floor();
            return if is_old { Ok(()) } else { self.unregistered(height).await };
        };
        if !self.is_registered {
            self.failed_sends.note(UNREGISTERED, Ok(()));
            self.note_kept(&case);
        }
        self.is_registered = true;
        self.leaver.note(case.provider.leaves_at, at);
        self.is_unasked = case.audit.challenge.is_none() && case.audit.missing.is_empty();
        self.look(&case);
        // A record older than one seen before, or than the floor, cannot end a read.
        let is_newest = at >= self.own_at && at >= self.ender.ends.floor();
        let missing = case.audit.missing.iter().map(|missing| (missing.slot, missing.shard));
        let asked: BTreeSet<(u32, Hash)> = missing.collect();
        self.own_at = self.own_at.max(at);
        self.costs.index = case.provider.index;
        let rounds = u128::from(case.parameters.epoch_rounds);
        self.costs.pay = case.provider.paid_base.saturating_mul(rounds) / UNIT;
        self.declare(&case);
        let (born, is_drawn) = (case.provider.born, case.audit.challenge.is_some());
        let before = if is_drawn { None } else { Some(self.find(born).await) };
        let answered = self.answer_once(case).await;
        // No duty delays the answer.
        let found = match before {
            Some(found) => found,
            None => self.find(born).await,
        };
        if is_newest {
            for (agreement, shards) in self.handler.parts().data_sets.release(at, &asked) {
                self.unlink(agreement, shards).await?;
            }
        }
        answered?;
        self.tidy_each_round(height).await?;
        found
    }

    /// Answers an open challenge, unless that was done a moment ago; frees slots if there is none.
    async fn answer_once(&mut self, case: Case) -> Result<(), ReconcilerError> {
        let Some(challenge) = case.audit.challenge else { return self.free(case).await };
        let retry = self.retry_blocks();
        let waits =
            self.answered.is_some_and(|(drawn, at)| drawn == challenge.height && case.height < at + retry);
        if !waits {
            let height = case.height;
            // A node that lags must not make each new block look like one after the answer's retry.
            self.answered = self.answer(case).await?.map(|at| (challenge.height, at.max(height)));
        }
        Ok(())
    }

    /// Reports what these records mean to the operator, and sets whether the handler accepts new data.
    fn look(&mut self, case: &Case) {
        let parts = self.handler.parts();
        let data_sets = parts.data_sets.with(crate::data_sets::State::is_damaged);
        let lost = (data_sets, parts.vouchers.with(|vouchers| vouchers.is_damaged()));
        let (full, away) = (parts.store.full(), self.report.away());
        let disk = Disk { full, away, bad: self.handler.bad().len(), lost };
        self.report.look(case, parts.store.totals().leaves, disk);
        parts.view.set_growth(case.reputation.as_ref().map_or(Ok(()), check_grows));
    }

    async fn tidy_each_round(&mut self, height: u64) -> Result<(), ReconcilerError> {
        let round = self.handler.parts().view.parameters.round(height);
        if self.tidied.is_none_or(|last| round > last) {
            self.tidy().await?;
            self.tidied = Some(round);
        }
        Ok(())
    }

    /// Frees the slots of ended agreements, beside other work: used ones, as proved in the last round, and
    /// those that were found in blocks.
    async fn free(&mut self, mut case: Case) -> Result<(), ReconcilerError> {
        if self.freed_at.is_some_and(|at| case.height < at + RETRY_BLOCKS) || self.freeing.is_busy() {
            return Ok(());
        }
        let view = &self.handler.parts().view;
        let used = self.used().into_iter().filter(|id| !self.ender.is_gone(id));
        let kept = used.filter_map(|id| view.kept(&id));
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

    /// Registers, or gives up what is left once the provider has left.
    async fn unregistered(&mut self, height: u64) -> Result<(), ReconcilerError> {
        if self.leaver.left.is_noted() { self.empty(height).await } else { self.register(height).await }
    }

    async fn register(&mut self, height: u64) -> Result<(), ReconcilerError> {
        if self.is_registered {
            // The provider left, or was removed: the operator decides whether it returns, by a new start.
            return Ok(());
        }
        if self.registered_at.is_none_or(|at| height >= at + REGISTER_BLOCKS) {
            if self.registered_at.is_none() {
                tracing::info!("registering as a provider");
            }
            self.registered_at = Some(height);
            let done = self.ledger.pay(Body::RegisterProvider(self.registration.clone())).await;
            self.failed_sends.note(UNREGISTERED, done);
        }
        Ok(())
    }

    /// The offer that the configuration asks for: never below what is sold (PV-2), and growing no further than the bond
    /// covers (PV-4). After a refusal has cut the capacity (PV-5) that is more than the ledger has.
    fn wanted(&self, case: &Case) -> Offer {
        let Case { provider, offer, parameters, .. } = case;
        let mut wanted = self.asked(offer);
        for (class, sold) in provider.sold.iter() {
            wanted.capacity[class] = wanted.capacity[class].max(*sold);
        }
        let (from, to) = (offer.capacity[Class::Storage], wanted.capacity[Class::Storage]);
        if to > from {
            wanted.capacity[Class::Storage] = sellable(&wanted, provider, parameters).max(from);
        }
        wanted
    }

    /// The declaration that may be sent now: one an epoch, since each costs a fee, and after a failure others, each after
    /// twice as many blocks.
    fn next_declaration(&mut self, epoch: u64, height: u64) -> Option<Declared> {
        if self.declaring.is_busy() {
            return None;
        }
        let Some(last) = self.declared.filter(|last| last.epoch == epoch) else {
            return Some(Declared { epoch, height, pause: REGISTER_BLOCKS });
        };
        let is_due =
            height >= last.height.saturating_add(last.pause) && self.failed_sends.is_held(UNDECLARED);
        is_due.then_some(Declared { epoch, height, pause: last.pause.saturating_mul(2) })
    }

    /// Declares again what the ledger has otherwise than the configuration, beside other work.
    fn declare(&mut self, case: &Case) {
        let Case { provider, offer, parameters, height, .. } = case;
        let Some(declaration) = self.next_declaration(parameters.epoch(*height), *height) else { return };
        // A provider that leaves still serves what it holds, at its address; it offers nothing.
        let wanted = if provider.leaves_at != 0 { offer.clone() } else { self.wanted(case) };
        let addresses = &self.registration.addresses;
        let moved = self.announced.as_ref().is_some_and(|announced| announced.addresses != *addresses);
        if !moved && wanted == *offer {
            return;
        }
        self.declared = Some(declaration);
        if moved {
            let text = |address: &Address| String::from_utf8_lossy(address).into_owned();
            let to = addresses.iter().map(text).collect::<Vec<_>>().join(", ");
            tracing::info!(to, "announcing another address than the ledger has");
        }
        if wanted != *offer {
            let (capacity, reserve, term_max) = (&wanted.capacity, &wanted.reserve, wanted.term_max);
            tracing::info!(?capacity, ?reserve, term_max, "declaring another offer than the ledger has");
        }
        let update = UpdateProvider {
            bond_add: Amount::ZERO,
            capacity: wanted.capacity,
            reserve: wanted.reserve,
            term_max: wanted.term_max,
            addresses: addresses.clone(),
            index: provider.index,
            leave: false,
            exit: None,
        };
        self.declaring = self.pay_beside(Body::UpdateProvider(update), UNDECLARED);
    }

    /// Logs what the ledger keeps though the configuration has it otherwise.
    fn note_kept(&self, case: &Case) {
        let (own, Case { provider, offer, parameters, .. }) = (&self.registration, case);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
        for (setting, kept, asked) in [
            ("operator", text(&offer.operator), text(&own.operator)),
            ("region", text(&offer.region), text(&own.region)),
        ] {
            if kept != asked {
                tracing::warn!(
                    setting,
                    kept,
                    asked,
                    "the ledger keeps the value of the registration until this provider has left and registers again"
                );
            }
        }
        let (asked, covered) = (own.capacity, sellable(&self.asked(offer), provider, parameters));
        if covered < asked[Class::Storage] {
            tracing::warn!(
                leaves = asked[Class::Storage],
                covered,
                "the bond covers less than the capacity of the settings; `posync bond --add` adds to it"
            );
        }
    }

    /// The offer with the values of the configuration.
    fn asked(&self, offer: &Offer) -> Offer {
        let own = &self.registration;
        Offer { capacity: own.capacity, reserve: own.reserve, term_max: own.term_max, ..offer.clone() }
    }

    /// The own records without slots, and the height at which they were proved; `None` if not registered.
    ///
    /// # Errors
    /// `Unreachable` if they are far older than those an earlier process of this provider saw.
    async fn own(&mut self, height: u64) -> Result<(u64, Option<Case>), LedgerError> {
        let (account, parameters) = (self.account(), self.handler.parts().view.parameters);
        let mut keys = vec![Provider::key(&account), Audit::key(&account), Endings::key(&account)];
        keys.extend([
            Reputation::key(&account),
            Offer::key(&account),
            System::key(),
            Endpoint::key(&account),
        ]);
        let (at, slots) = self.ledger.read(keys).await?;
        if at.saturating_add(STALE_BLOCKS_MAX) < self.ender.ends.floor() {
            return Err(LedgerError::Unreachable(format!("the node is at height {at}, far behind")));
        }
        let slot = |place: usize| slots.get(place).and_then(Option::as_ref);
        self.costs.base_fee = base_fee(&decode::<System>(slot(5))?.unwrap_or_default(), &parameters);
        let Some(provider) = decode::<Provider>(slot(0))? else { return Ok((at, None)) };
        let Some(offer) = decode::<Offer>(slot(4))? else { return Ok((at, None)) };
        let (audit, endings) = (decode::<Audit>(slot(1))?.unwrap_or_default(), decode::<Endings>(slot(2))?);
        self.announced = decode::<Endpoint>(slot(6))?;
        self.finder.saw(at, provider.slots);
        let (height, anchor, terms) = (at.max(height), [0; 32], BTreeMap::new());
        let reputation = decode::<Reputation>(slot(3))?;
        let case =
            Case { account, parameters, height, provider, offer, audit, reputation, endings, anchor, terms };
        Ok((at, Some(case)))
    }

    /// Builds and sends a storage proof. Returns the height of the last records that it was made from, or
    /// `None` if there is none to send now.
    async fn answer(&mut self, mut case: Case) -> Result<Option<u64>, ReconcilerError> {
        self.gather(&mut case).await?;
        let parts = self.handler.parts();
        let Ok(challenge) = case.challenge() else { return Ok(None) };
        let round = case.parameters.round(challenge.height);
        let key = RoundInfo::key(round % case.parameters.round_ring);
        let keys = vec![Audit::key(&case.account), Provider::key(&case.account), key];
        let asked = self.context.current();
        let (at, last) = self.ledger.read(keys).await?;
        self.trips.took(self.context.current().duration_since(asked).unwrap_or_default());
        let now: Option<Audit> = decode(last.first().and_then(Option::as_ref))?;
        if now.as_ref().and_then(|audit| audit.challenge) != Some(challenge) {
            return Ok(None);
        }
        let info: Option<RoundInfo> = decode(last.get(2).and_then(Option::as_ref))?;
        let Some(info) = info.filter(|info| info.round == round) else { return Ok(None) };
        // Until a block comes, what was sent and not confirmed may wait in a node: a second one is not made.
        if let Some((_, _, again)) =
            self.proved.as_ref().filter(|(of, from, _)| (*of, *from) == (challenge.height, at))
        {
            self.ledger.send(Body::StorageProof(again.clone())).await?;
            return Ok(Some(at));
        }
        (case.anchor, case.height) = (info.anchor, at);
        let reader = Reader { store: &parts.store, data_sets: &parts.data_sets };
        let vouchers = self.payable(&case);
        let storage_proof = match reader.answers(&case).await {
            Ok(answers) => reader.reasked(&case).await.map(|reasked| (answers, reasked)),
            Err(error) => Err(error),
        };
        let storage_proof =
            storage_proof.and_then(|(answers, reasked)| case.storage_proof(answers, reasked, vouchers));
        match storage_proof {
            Ok(storage_proof) => {
                self.proved = Some((challenge.height, at, storage_proof.clone()));
                self.ledger.send(Body::StorageProof(storage_proof)).await?;
                self.unanswered.ended();
                Ok(Some(at))
            }
            Err(NoStorageProof::NotDrawn) => Ok(None),
            Err(error) => {
                self.unanswered.holds(&error);
                Ok(Some(at))
            }
        }
    }

    /// Blocks after an answer in which it may reach a block and be proved here: at most half of those up to the deadline,
    /// so that a lost answer is sent again in time.
    fn retry_blocks(&self) -> u64 {
        let parameters = &self.handler.parts().view.parameters;
        let trip = u64::try_from(self.trips.distance(1).as_millis()).unwrap_or(u64::MAX);
        let blocks = RETRY_BLOCKS.saturating_add(trip.div_ceil(parameters.block_ms.max(1)));
        blocks.min((parameters.deadline_blocks / 2).max(1))
    }

    fn payable(&self, case: &Case) -> Vec<Redemption> {
        let kept = self.kept();
        let round = case.parameters.round(case.height);
        redeem::payable(kept.iter().map(|(terms, kept)| (terms, kept)), round, &case.parameters)
    }

    /// The kept vouchers with their terms, and with a claim where something is overdue.
    fn kept(&self) -> Vec<(Terms, Redemption)> {
        let parts = self.handler.parts();
        let now = self.handler.uptime().now();
        let overdue = |vouchers: &mut State| -> Vec<(Redemption, u64)> {
            vouchers.vouchers().map(|kept| (*kept, vouchers.overdue(&kept.voucher.agreement, now))).collect()
        };
        let kept = parts.vouchers.with(overdue).into_iter();
        let reputation = kept.filter(|(kept, _)| !self.ender.is_gone(&kept.voucher.agreement));
        let with_terms = reputation.filter_map(|(kept, overdue)| {
            let terms = parts.view.kept(&kept.voucher.agreement)?;
            let redemption = redeem::claiming(&kept, overdue, terms.disputed_bytes());
            Some((terms, redemption))
        });
        with_terms.collect()
    }

    /// Refreshes some agreements, submits claims, removes loose shards, and redeems.
    async fn tidy(&mut self) -> Result<(), ReconcilerError> {
        // Due work continues although the disk accepts no writes.
        let height = self.handler.parts().view.height();
        let raised = self.ender.ends.raise(height).await.map_err(ReconcilerError::from);
        let refreshed = self.refresh().await;
        self.redeem();
        self.bring();
        raised.and(refreshed)?;
        self.recheck().await?;
        self.drop_loose();
        Ok(())
    }

    /// Proves the records of some agreements in turn; notes versions in force and ended agreements.
    async fn refresh(&mut self) -> Result<(), ReconcilerError> {
        let due = self.due();
        self.refreshed = due.last().copied().or(Some(nobody()));
        let slots: Vec<u32> = due.iter().map(|id| id.slot).collect();
        let pages = read_pages(&self.ledger, &self.account(), &slots).await?;
        for (page, (height, all)) in due.chunks(SLOTS_READ).zip(pages) {
            let mut proved = vec![];
            for (id, terms) in page.iter().zip(all) {
                match terms.filter(|terms| terms.id == *id) {
                    // A node that lags proves the absence of newer records.
                    None if height < self.last_seen(id) => {}
                    None => self.ender.suspect(*id),
                    Some(terms) => {
                        let (data, height) = (terms.data.clone(), terms.height);
                        self.handler.parts().data_sets.note(*id, data, height).await?;
                        self.stands(&terms).await?;
                        proved.push(terms.clone());
                        self.handler.parts().view.learn(terms);
                    }
                }
            }
            self.note_windows(&proved).await?;
        }
        Ok(())
    }

    /// The agreements to refresh now: those after the last one, then from the start.
    fn due(&self) -> Vec<AgreementId> {
        let all = self.used();
        let from = self.refreshed.unwrap_or_else(nobody);
        let later = all.iter().filter(|id| **id > from);
        later.chain(all.iter().filter(|id| **id <= from)).take(REFRESH_MAX).copied().collect()
    }

    /// The agreements known from data sets, voucher store or unsigned shards.
    fn used(&self) -> BTreeSet<AgreementId> {
        let parts = self.handler.parts();
        let mut all: BTreeSet<AgreementId> = parts.data_sets.with(|state| state.agreements().collect());
        all.extend(parts.vouchers.with(|vouchers| vouchers.agreements().collect::<Vec<_>>()));
        all.extend(self.handler.loose_agreements());
        all
    }

    async fn unlink(&self, id: AgreementId, shards: Vec<Hash>) -> Result<(), ReconcilerError> {
        if shards.is_empty() {
            return Ok(());
        }
        let parts = self.handler.parts();
        match parts.store.unlink(id, &shards).await {
            // They are removed later like shards that were never signed for.
            Err(StoreError::NoSpace(_)) => {
                shards.iter().for_each(|shard| self.handler.note_loose(id, *shard));
            }
            done => done?,
        }
        parts.data_sets.gone(id, &shards);
        Ok(())
    }

    /// Pays for a redemption if some voucher must not wait; one at a time, beside other work.
    fn redeem(&mut self) {
        if self.redeeming.is_busy() {
            return;
        }
        let (view, Costs { base_fee, pay, .. }) = (&self.handler.parts().view, self.costs);
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
}

const fn nobody() -> AgreementId {
    AgreementId { provider: Account([0; 32]), slot: 0, opened: 0 }
}

#[cfg(test)]
mod tests;
