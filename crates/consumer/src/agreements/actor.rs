//! The task that reads the ledger once a tick and acts on its state. Paid work is started and not waited
//! for ([`super::upkeep`]), so providers are watched meanwhile.

use super::{
    alerts::alerts,
    barred::Barred,
    opening::Asked,
    policy::{Policy, Posted, unpaid, urgent, wanted},
    reclaim::forget,
    settle::settle,
    state::{
        AgreementStep, AgreementUsage, Around, Lateness, Stage, View, failed_since, is_late, is_old, judge,
        passes,
    },
    successor::{smallest, successor},
    survey::{Survey, details, posted, survey},
    upkeep::{Busy, Job, Upkeep, is_closed},
};
use crate::{
    agreement::OwnAgreement,
    catalogue::{LoadedAgreement, row::OwnAgreementRow},
    ledger::{Error, Ledger},
    peer::{Dialer, Peer},
    shared::{Known, Notice, Shared},
};
use commonware_utils::sync::Mutex;
use posync_alert::{Alerts, RaisedAlerts};
use posync_client::rpc::Provider;
use posync_protocol::{
    Account, Amount, Class, Code, Metered,
    limits::Parameters,
    operation::{Body, CloseAlone, TopUp},
    record::DataSet,
    reputation::check_takes,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

/// Pause between two looks at the ledger.
const TICK: Duration = Duration::from_secs(1);
/// Looks between two surveys of all providers.
const SURVEY_TICKS: u64 = 10;
/// Looks between two requests for a provider's own scrub results.
const SCRUB_TICKS: u64 = 5;
/// Epochs for which a retired consumer keeps an agreement at least: closing sooner would make it stand
/// out.
const KEPT_EPOCHS: u64 = 16;

/// The inputs and shared state of the task that keeps the agreements.
pub struct Agreements {
    /// State shared with the other tasks.
    pub shared: Arc<Shared>,
    /// Reads and operations on the ledger.
    pub ledger: Ledger,
    /// The account that opens the agreements.
    pub account: Account,
    /// Parameters from the genesis.
    pub parameters: Parameters,
    /// Decides which agreements are wanted.
    pub policy: Policy,
    /// Makes connections to providers.
    pub dialer: Dialer<Provider>,
    /// One link per provider.
    pub(crate) peers: Mutex<BTreeMap<Account, Arc<Peer>>>,
    /// Agreements that were being opened when the process stopped.
    pub opening: Mutex<Vec<LoadedAgreement>>,
    /// Openings whose outcome is unknown.
    pub(crate) unsure: Mutex<Vec<Asked>>,
    /// Receives the alerts about agreements.
    pub alerts: Alerts,
    /// Rows of the catalogue that do not decode.
    pub aside: Vec<String>,
    /// Agreements under which such rows may describe shards. They are neither closed nor forgotten, even
    /// when they are gone from the ledger: their numbers are not used again before the rows are restored.
    pub kept: BTreeSet<u32>,
    /// True once no agreements are wanted: open ones are closed in time.
    pub(crate) retired: AtomicBool,
    /// Providers with which an agreement is needed, beside those that the policy wants.
    pub needed: Mutex<BTreeSet<Account>>,
    /// Jobs under way, and their pauses.
    pub(crate) upkeep: Upkeep,
    /// Number of the closed agreement that was handled last.
    pub(crate) reclaimed: AtomicU32,
}

/// Moves shards of agreements that drain, after each look at the ledger: given all agreements, the numbers
/// of those whose shards move to other providers, and the epoch.
pub type Drain = Box<dyn Fn(&[(Arc<OwnAgreement>, AgreementUsage)], &BTreeSet<u32>, u64) + Send + Sync>;

#[derive(Default)]
struct Seen {
    drain: Option<Drain>,
    providers: BTreeMap<Account, (View, Known)>,
    drawn: BTreeMap<Account, u32>,
    late: BTreeMap<Account, Lateness>,
    /// Providers with which no room is opened.
    barred: Barred,
    /// Agreements whose shards move to other providers.
    away: BTreeSet<u32>,
    /// Agreements with data that are near their end without a successor, and the epochs that are left.
    ending: BTreeMap<u32, u64>,
    /// The alerts that hold now.
    watch: RaisedAlerts,
    /// By agreement, the epoch of the last warning that its shards have nowhere to go.
    warned: BTreeMap<u32, u64>,
    /// By agreement, the epoch of the last warning that the ledger knows more of its data set.
    behind: BTreeMap<u32, u64>,
    /// By agreement, the egress bytes signed for, and the epoch since which it has been empty and these
    /// are unchanged.
    idle: BTreeMap<u32, (u64, u64)>,
}

/// Runs the task; it does not return.
pub async fn start(agreements: Arc<Agreements>, drain: Option<Drain>) {
    let (mut seen, mut tick) = (Seen { drain, ..Seen::default() }, 0u64);
    agreements.resume();
    agreements.shared.common.environment.spawn(agreements.clone().bring());
    loop {
        if let Err(error) = agreements.look(&mut seen, tick).await {
            tracing::warn!(%error,
                "the ledger could not be read; agreements are checked again at the next height");
        }
        tick += 1;
        let environment = &agreements.shared.common.environment;
        // A put that needs room triggers the next look at once.
        environment.within(TICK, agreements.shared.expecting.notified()).await;
    }
}

impl Agreements {
    async fn look(self: &Arc<Self>, seen: &mut Seen, tick: u64) -> Result<(), Error> {
        let few = seen.providers.len() < self.policy.providers;
        let all = few || tick.is_multiple_of(SURVEY_TICKS);
        let environment = &self.shared.common.environment;
        let found = if all {
            survey(&self.ledger, environment).await?
        } else {
            let ours: BTreeSet<Account> =
                self.shared.agreements().iter().map(|agreement| agreement.provider()).collect();
            details(&self.ledger, environment, &ours.into_iter().collect::<Vec<_>>()).await?
        };
        self.shared.height.fetch_max(found.height, Ordering::Relaxed);
        self.learn(seen, found, all);
        self.watch(seen).await;
        // A failure here is retried at the next look; repair, claims and scrubs go on.
        if let Err(error) = self.upkeep(seen).await {
            tracing::warn!(%error, "the check of the agreements failed");
        }
        // An agreement that was never used has no claims to submit.
        self.settle_some(OwnAgreement::is_used);
        self.bring_refusals(&seen.providers);
        if tick.is_multiple_of(SCRUB_TICKS) {
            self.ask_scrubs();
        }
        if all {
            self.begin(Job::LookUp, |agreements, _| async move { agreements.look_up().await });
            self.begin(Job::Reclaim, |agreements, _| async move {
                agreements.reclaim().await;
                Ok(())
            });
        }
        Ok(())
    }

    /// Starts a job, unless it is under way or pauses after a refusal. The look does not wait for it. Returns true if
    /// it starts.
    pub(super) fn begin<F>(self: &Arc<Self>, job: Job, work: impl FnOnce(Arc<Self>, Arc<Busy>) -> F) -> bool
    where
        F: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let Some(busy) = self.upkeep.take(job, self.height()).map(Arc::new) else { return false };
        let work = work(self.clone(), busy.clone());
        self.shared.common.environment.spawn(async move {
            let _busy = busy;
            if let Err(error) = work.await {
                tracing::warn!(%error, ?job, "a job for an agreement failed; it is tried again");
            }
        });
        true
    }

    pub(super) fn height(&self) -> u64 {
        self.shared.height.load(Ordering::Relaxed)
    }

    fn epoch(&self) -> u64 {
        self.parameters.epoch(self.height())
    }

    fn learn(&self, seen: &mut Seen, found: Survey, all: bool) {
        for (account, (_, known)) in &found.providers {
            self.shared.learn(*account, known.clone());
        }
        if all {
            seen.providers = found.providers;
        } else {
            seen.providers.extend(found.providers);
        }
    }

    /// Reports providers that are late or failed a draw.
    async fn watch(&self, seen: &mut Seen) {
        let height = self.shared.height.load(Ordering::Relaxed);
        let ours: BTreeSet<Account> =
            self.shared.agreements().iter().map(|agreement| agreement.provider()).collect();
        for account in ours {
            let Some((View { audit, .. }, _)) = seen.providers.get(&account) else { continue };
            let before = seen.drawn.insert(account, audit.drawn);
            if before.is_some_and(|before| failed_since(before, audit) > 0) {
                self.shared.notice_surely(Notice::Failed(account)).await;
            }
            let late = is_late(audit, height, self.parameters.deadline_blocks);
            let challenge = audit.challenge.map_or(0, |challenge| challenge.height);
            if late {
                if seen.late.entry(account).or_default().is_due(challenge, height) {
                    self.shared.notice_surely(Notice::Late(account)).await;
                }
            } else if seen.late.remove(&account).is_some() || passes(audit) {
                self.regain(account, passes(audit));
            }
        }
    }

    /// Restores the trust in a provider that answers again, passes its reads and reports no bad shards.
    fn regain(&self, account: Account, passes: bool) {
        let distrusted = self.shared.known(&account).is_some_and(|known| !known.trusted);
        let agreements = self.shared.agreements_with(&account);
        let Some(peer) = agreements.first().map(|agreement| agreement.peer.clone()) else { return };
        if distrusted && passes {
            let shared = self.shared.clone();
            self.shared.common.environment.spawn(async move {
                let clean = peer.status().await.is_ok_and(|status| status.bad.is_empty());
                if clean {
                    shared.trust(&account, true);
                }
            });
        }
    }

    async fn usages(&self, seen: &mut Seen) -> Vec<(Arc<OwnAgreement>, AgreementUsage)> {
        let (mut usages, epoch) = (Vec::new(), self.epoch());
        let before = std::mem::take(&mut seen.idle);
        for agreement in self.shared.agreements() {
            let (egress, number) = (agreement.egress().await, agreement.number);
            let usage = AgreementUsage::of(&agreement, egress, epoch);
            let since = before.get(&number).filter(|(read, _)| usage.empty && *read == egress);
            let since = since.map_or(epoch, |(_, since)| *since);
            seen.idle.insert(number, (egress, since));
            let idle = epoch.saturating_sub(since);
            let pace = before.get(&number).map_or(0, |(read, _)| egress.saturating_sub(*read));
            usages.push((agreement, AgreementUsage { pace, idle, ..usage }));
        }
        usages
    }

    async fn upkeep(self: &Arc<Self>, seen: &mut Seen) -> Result<(), Error> {
        let posted = posted(&self.ledger, &self.account, &self.parameters).await?;
        // Read before the agreements are counted: an opening may become an agreement in between.
        let opening = self.upkeep.opening();
        let usages = self.usages(seen).await;
        let rows: Vec<AgreementUsage> = usages.iter().map(|(_, usage)| usage.clone()).collect();
        let epoch = self.epoch();
        seen.barred.look(&rows, epoch);
        let view = |account: &Account, view: &View| View {
            barred: seen.barred.holds(account, &rows, epoch),
            ..view.clone()
        };
        let views = seen.providers.iter().map(|(account, (of, _))| (*account, view(account, of))).collect();
        let retired = self.retired.load(Ordering::Acquire);
        let mut short = 0;
        if !retired {
            let needed = self.needed.lock().clone();
            let wants = (&self.policy, self.shared.demand(self.policy.providers));
            let mut all = wanted(&views, &needed, &rows, wants, &posted, &self.parameters);
            if self.shared.volume.has_room().is_err() {
                all = urgent(all, &rows, epoch, &self.parameters);
            }
            let doubts = self.unsure.lock().iter().map(Asked::provider).collect::<Vec<_>>();
            let unknown = opening.iter().copied().chain(doubts).collect();
            short = unpaid(&views, (&needed, &unknown), &rows, wants, &posted, &self.parameters);
            for (account, opens) in all.into_iter().filter(|(account, _)| !opening.contains(account)) {
                let held = views.get(&account).map_or(0, |view: &View| view.provider.slots);
                self.begin(Job::Open(account), |agreements, busy| async move {
                    // Each attempt costs a number and a fee.
                    match agreements.open(account, opens, held).await {
                        Ok(true) => busy.done(),
                        Ok(false) => busy.refused(agreements.height()),
                        Err(error) => return Err(error),
                    }
                    Ok(())
                });
            }
        }
        seen.ending.clear();
        for of in &usages {
            let (agreement, usage) = of;
            let kept = self.parameters.epoch(agreement.id.opened) + KEPT_EPOCHS;
            let step = if retired && self.epoch() >= kept && Stage::of(&usage.row) == Stage::Open {
                AgreementStep::Drain
            } else {
                self.next(seen, agreement, usage, &rows, &posted)
            };
            self.step(of, step, &posted).await?;
        }
        let kept = rows.iter().filter(|usage| self.kept.contains(&usage.number));
        self.shared.set_unpaid(short);
        self.shared.set_dear(self.policy.is_dear(&posted));
        let now = alerts(short, &seen.ending, &self.aside, kept.map(|usage| usage.row.end_epoch).min());
        self.alerts.watch(&mut seen.watch, &self.account.to_string(), Some(self.height()), now);
        if let Some(drain) = &seen.drain {
            drain(&usages, &seen.away, self.epoch());
        }
        Ok(())
    }

    fn next(
        &self,
        seen: &mut Seen,
        agreement: &OwnAgreement,
        usage: &AgreementUsage,
        rows: &[AgreementUsage],
        posted: &Posted,
    ) -> AgreementStep {
        let (provider, epoch) = (agreement.provider(), self.epoch());
        let mine: Vec<&AgreementUsage> = rows.iter().filter(|s| s.row.id.provider == provider).collect();
        let holds = seen.providers.get(&provider).is_some_and(|(view, _)| {
            view.provider.leaves_at == 0 && passes(&view.audit) && check_takes(&view.reputation).is_ok()
        });
        let awaited = self.shared.demand(1) > 0;
        let old = is_old(&usage.row, epoch, &self.parameters);
        let successor =
            || successor(&self.shared, agreement, smallest(agreement), epoch, &self.parameters).is_some();
        let around = Around {
            successor: holds && old && successor(),
            idle: !awaited && self.policy.is_idle(usage, &mine, epoch, &self.parameters),
            kept: self.kept.contains(&usage.number),
            leaves: seen.providers.get(&provider).is_some_and(|(view, _)| view.provider.leaves_at != 0),
            egress_price: posted.prices[Class::Egress].price,
        };
        let is_kept = matches!(Stage::of(&usage.row), Stage::Open | Stage::Draining) && usage.live > 0;
        let ends = is_kept && old && !around.successor;
        if ends {
            seen.ending.insert(usage.number, usage.row.end_epoch.saturating_sub(epoch));
        }
        if ends && seen.warned.insert(usage.number, epoch) != Some(epoch) {
            let left = usage.row.end_epoch.saturating_sub(epoch);
            tracing::warn!(%provider, agreement = usage.number, leaves = usage.load, epochs = left,
                "an agreement with data is near its end without a successor: no room at its provider, it is in \
                 jail or leaves, or there is no money; add money or providers before the epochs are over");
        }
        if agreement.is_behind() && seen.behind.insert(usage.number, epoch) != Some(epoch) {
            tracing::error!(%provider, agreement = usage.number,
                "the ledger has a newer data set of an agreement than this catalogue: another catalogue of this account \
                 has files under it. It is not closed here. If this gateway was restored from a backup and the newer \
                 catalogue exists, stop this one and start that one before the agreement ends");
        }
        let (step, away) = judge(usage, epoch, around, &self.policy, &self.parameters);
        if away {
            seen.away.insert(usage.number);
        } else {
            seen.away.remove(&usage.number);
        }
        step
    }

    /// Locks more money for vouchers. The bytes read so far are paid first: vouchers redeemed before the
    /// top-up keep their price (AG-8).
    async fn top_up(
        &self,
        agreement: &OwnAgreement,
        amount: Amount,
        posted: u64,
        busy: &Busy,
    ) -> Result<(), Error> {
        if let Err(error) = agreement.pay().await {
            tracing::debug!(%error, "a voucher is sent again");
        }
        let egress_price =
            agreement.terms().egress_price.max(posted.min(self.policy.price_max[Class::Egress]));
        let body = TopUp {
            agreement: agreement.id,
            amount,
            // No gas is bought, so any gas price is accepted.
            price_max: Metered { egress: egress_price, gas: u64::MAX },
        };
        let code = self.ledger.execute(Body::TopUp(body)).await;
        if code != Ok(Code::Done) {
            busy.refused(self.height());
        }
        let code = code?;
        if code != Code::Done {
            tracing::warn!(?code, "a voucher reserve could not be topped up: {}", code.explain());
            return Ok(());
        }
        busy.done();
        let more = |row: &mut OwnAgreementRow| {
            row.voucher_reserve = row.voucher_reserve.checked_add(amount).unwrap_or(row.voucher_reserve);
            row.egress_price = egress_price;
        };
        agreement.set_terms(more).await.map_err(|_| Error::Stopping)
    }

    /// Closes an agreement. After an answer that does not mean it is closed, its stage stays, and the
    /// close is retried after a pause.
    async fn close(&self, agreement: &OwnAgreement, busy: &Busy) -> Result<(), Error> {
        // A ledger that shows a newer data set than this catalogue's shows the files of another catalogue.
        let version = agreement.with_state(|state| state.version());
        let key = DataSet::key(&agreement.provider(), agreement.id.slot);
        let newer = |set: &DataSet| set.next.unwrap_or(set.current).version > version;
        let floor = self.height().saturating_sub(self.parameters.round_blocks);
        if !self.ledger.is_absent(key, floor, newer).await? {
            busy.refused(self.height());
            tracing::debug!(
                agreement = agreement.number,
                "an agreement is not closed: two nodes do not show yet that \
                its data set is the one that is known here"
            );
            return Ok(());
        }
        let close = CloseAlone { agreement: agreement.id };
        let code = self.ledger.execute(Body::CloseAlone(close)).await;
        if !code.as_ref().is_ok_and(|code| is_closed(*code)) {
            busy.refused(self.height());
        }
        let code = code?;
        if !is_closed(code) {
            tracing::warn!(
                ?code,
                agreement = agreement.number,
                "an agreement could not be closed: {}",
                code.explain()
            );
            return Ok(());
        }
        busy.done();
        tracing::info!(?code, agreement = agreement.number, "an agreement is closed");
        agreement.set_terms(|row| row.stage = Stage::Closing as u8).await.map_err(|_| Error::Stopping)
    }

    async fn step(
        self: &Arc<Self>,
        (agreement, usage): &(Arc<OwnAgreement>, AgreementUsage),
        step: AgreementStep,
        posted: &Posted,
    ) -> Result<(), Error> {
        let stopped = |_| Error::Stopping;
        match step {
            AgreementStep::Nothing => {}
            // The ledger would refuse more than the account's balance.
            AgreementStep::TopUp(amount) if amount > posted.balance => {
                tracing::debug!(
                    agreement = agreement.number,
                    "the account lacks money for a voucher reserve"
                );
            }
            AgreementStep::TopUp(amount) => {
                let (of, price) = (agreement.clone(), posted.prices[Class::Egress].price);
                // An earlier top-up became final after the agreement was judged.
                if of.terms().voucher_reserve != usage.row.voucher_reserve {
                    return Ok(());
                }
                self.begin(Job::TopUp(agreement.number), |agreements, busy| async move {
                    agreements.top_up(&of, amount, price, &busy).await
                });
            }
            AgreementStep::Drain => {
                agreement.set_terms(|row| row.stage = Stage::Draining as u8).await.map_err(stopped)?
            }
            AgreementStep::Close if Stage::of(&agreement.terms()) == Stage::Closing => {}
            AgreementStep::Close => {
                let of = agreement.clone();
                self.begin(Job::Close(agreement.number), |agreements, busy| async move {
                    agreements.close(&of, &busy).await
                });
            }
            AgreementStep::Forget => self.forget(agreement).await?,
        }
        Ok(())
    }

    /// Forgets an agreement that is gone from the ledger, or will be. While shards are in force under it,
    /// it only drains: the provider may still have them, or they can be rebuilt, so they move first. One that
    /// a damaged row may describe stays.
    pub(super) async fn forget(&self, agreement: &Arc<OwnAgreement>) -> Result<(), Error> {
        let stopped = |_| Error::Stopping;
        if agreement.with_state(|state| state.is_live()) {
            return agreement.set_terms(|row| row.stage = Stage::Draining as u8).await.map_err(stopped);
        }
        if self.kept.contains(&agreement.number) {
            tracing::debug!(
                agreement = agreement.number,
                "an agreement is kept, because a damaged row may describe shards under it"
            );
            return Ok(());
        }
        forget(&self.shared, agreement).await.map_err(stopped)
    }

    /// Submits claims that become due between two looks.
    async fn bring(self: Arc<Self>) {
        loop {
            self.shared.common.signed.notified().await;
            self.settle_some(|agreement| agreement.is_due());
        }
    }

    /// Submits the waiting claims of some agreements, each in its own task: one that waits for the ledger
    /// delays neither the others nor a look.
    fn settle_some(self: &Arc<Self>, some: impl Fn(&OwnAgreement) -> bool) {
        for agreement in self.shared.agreements().into_iter().filter(|agreement| some(agreement)) {
            let agreements = self.clone();
            self.shared.common.environment.spawn(async move {
                if let Err(error) =
                    settle(&agreements.shared, &agreements.ledger, &agreement, &agreements.parameters).await
                {
                    tracing::debug!(%error, "a data set waits for the ledger");
                }
            });
        }
    }

    fn ask_scrubs(&self) {
        let mut asked = BTreeSet::new();
        for agreement in self.shared.agreements() {
            if !asked.insert(agreement.provider()) {
                continue;
            }
            let shared = self.shared.clone();
            self.shared.common.environment.spawn(async move {
                if let Ok(status) = agreement.peer.status().await
                    && !status.bad.is_empty()
                {
                    shared.notice(Notice::Bad(agreement.provider(), status.bad.into_inner()));
                }
            });
        }
    }

    /// The link to a provider, created on first use.
    pub(crate) fn peer(&self, account: Account) -> Arc<Peer> {
        let mut peers = self.peers.lock();
        let new = || {
            let (dialer, environment) = (self.dialer.clone(), self.shared.common.environment.clone());
            Arc::new(Peer::new(account, dialer, environment, self.shared.heights()))
        };
        let peer = peers.entry(account).or_insert_with(new).clone();
        // The survey was before the link: without this, the link would have no address until the next
        // one.
        if let Some(address) = self.shared.known(&account).and_then(|known| known.address) {
            peer.set_address(address);
        }
        peer
    }
}
