//! The task that looks at the ledger once a tick and does what the state says.

use super::{
    policy::{Policy, Posted, wanted},
    renew,
    settle::settle,
    state::{Around, Stage, Standing, Step, View, failed_since, is_late, next, passes},
    survey::{Survey, details, posted, survey},
};
use crate::{
    catalogue::{LoadedDeed, row::DeedRow},
    core::{Core, Known},
    deed::{Deed, session_key, storage_key},
    ledger::{Error, Ledger},
    link::{Dialer, Link},
    repair::Notice,
};
use commonware_cryptography::Signer as _;
use futures::future::join_all;
use posync_client::rpc::Provider;
use posync_protocol::{
    Account, AgreementId, Amount, Code,
    limits::{Parameters, READ_KEYS_MAX},
    operation::{Body, CloseAlone, Open, TopUp},
    record::{Agreement, EGRESS, GAS, STORAGE},
    standing::check_takes,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Pause between looks.
const TICK: Duration = Duration::from_secs(1);
/// Looks between two surveys of all providers.
const SURVEY_TICKS: u64 = 10;
/// Looks between two questions for a provider's own scrub.
const SCRUB_TICKS: u64 = 5;
/// Free slots among which one is chosen.
const SLOTS_TRIED: usize = 16;
/// Epochs for which a retired customer keeps an agreement at least: who closes sooner stands out.
const KEPT_EPOCHS: u64 = 16;

/// What the task works with.
pub struct Purse {
    /// Shared parts.
    pub core: Arc<Core>,
    /// The account.
    pub ledger: Ledger,
    /// Its owner.
    pub account: Account,
    /// Genesis parameters.
    pub parameters: Parameters,
    /// What is wanted.
    pub policy: Policy,
    /// Makes connections to providers.
    pub dialer: Dialer<Provider>,
    /// One way per provider.
    pub links: Mutex<BTreeMap<Account, Arc<Link>>>,
    /// Agreements that were being opened when the gateway stopped.
    pub opening: Mutex<Vec<LoadedDeed>>,
    /// Nothing is wanted any more: what is open is closed in its time.
    pub retired: AtomicBool,
    /// Providers with whom an agreement is needed, beside those that the policy wants.
    pub needed: Mutex<BTreeSet<Account>>,
}

#[derive(Default)]
struct Seen {
    providers: BTreeMap<Account, (View, Known)>,
    drawn: BTreeMap<Account, u32>,
    late: BTreeMap<Account, u64>,
    /// By agreement, what was read and the epoch since which it is empty and no more was.
    idle: BTreeMap<u32, (u64, u64)>,
}

/// Runs for ever.
pub async fn start(purse: Arc<Purse>) {
    let (mut seen, mut tick) = (Seen::default(), 0u64);
    purse.resume().await;
    purse.core.common.environment.spawn(purse.clone().bring());
    loop {
        if let Err(error) = purse.look(&mut seen, tick).await {
            tracing::warn!(%error, "the ledger could not be looked at");
        }
        tick += 1;
        let environment = &purse.core.common.environment;
        // A put that needs more room does not wait for the next look.
        environment.within(TICK, purse.core.expecting.notified()).await;
    }
}

impl Purse {
    async fn look(self: &Arc<Self>, seen: &mut Seen, tick: u64) -> Result<(), Error> {
        let few = seen.providers.len() < self.policy.providers;
        let all = few || tick.is_multiple_of(SURVEY_TICKS);
        let found = if all {
            survey(&self.ledger).await?
        } else {
            let ours: BTreeSet<Account> = self.core.deeds().iter().map(|deed| deed.provider()).collect();
            details(&self.ledger, &ours.into_iter().collect::<Vec<_>>()).await?
        };
        self.core.height.fetch_max(found.height, Ordering::Relaxed);
        self.learn(seen, found, all);
        self.watch(seen).await;
        self.upkeep(seen).await?;
        // An agreement that never held anything has nothing to bring.
        self.settle_all(Deed::is_used).await;
        self.bring_refusals().await?;
        if tick.is_multiple_of(SCRUB_TICKS) {
            self.ask_scrubs();
        }
        if all {
            self.reclaim().await?;
        }
        Ok(())
    }

    fn epoch(&self) -> u64 {
        self.parameters.epoch(self.core.height.load(Ordering::Relaxed))
    }

    fn learn(&self, seen: &mut Seen, found: Survey, all: bool) {
        for (account, (_, known)) in &found.providers {
            // Trust is lost by what repair finds and won again by what audits say.
            let trusted = self.core.known(account).is_none_or(|old| old.trusted);
            self.core.learn(*account, Known { trusted, ..known.clone() });
        }
        if all {
            seen.providers = found.providers;
        } else {
            seen.providers.extend(found.providers);
        }
    }

    /// Tells repair who is late or failed a draw.
    async fn watch(&self, seen: &mut Seen) {
        let height = self.core.height.load(Ordering::Relaxed);
        let ours: BTreeSet<Account> = self.core.deeds().iter().map(|deed| deed.provider()).collect();
        for account in ours {
            let Some((View { audit, .. }, _)) = seen.providers.get(&account) else { continue };
            let before = seen.drawn.insert(account, audit.drawn);
            if before.is_some_and(|before| failed_since(before, audit) > 0) {
                self.core.notice_surely(Notice::Failed(account)).await;
            }
            let late = is_late(audit, height, self.parameters.deadline_blocks);
            let challenge = audit.challenge.map_or(0, |challenge| challenge.height);
            if late {
                seen.late.insert(account, challenge);
                self.core.notice_surely(Notice::Late(account)).await;
            } else if seen.late.remove(&account).is_some() || passes(audit) {
                self.regain(account, passes(audit));
            }
        }
    }

    /// A provider that answers again and whose reads are found is trusted again.
    fn regain(&self, account: Account, passes: bool) {
        let distrusted = self.core.known(&account).is_some_and(|known| !known.trusted);
        let deeds = self.core.deeds_with(&account);
        let Some(link) = deeds.first().map(|deed| deed.link.clone()) else { return };
        if distrusted && passes {
            let core = self.core.clone();
            self.core.common.environment.spawn(async move {
                let clean = link.status().await.is_ok_and(|status| status.bad.is_empty());
                if clean {
                    core.trust(&account, true);
                }
            });
        }
    }

    async fn standings(&self, seen: &mut Seen) -> Vec<(Arc<Deed>, Standing)> {
        let (mut standings, epoch) = (Vec::new(), self.epoch());
        let before = std::mem::take(&mut seen.idle);
        for deed in self.core.deeds() {
            let load = deed.with_state(|state| state.load());
            let empty = deed.with_state(|state| state.is_empty()) && deed.waiting().is_none();
            let (egress, number) = (deed.egress().await, deed.number);
            let since = before.get(&number).filter(|(read, _)| empty && *read == egress);
            let since = since.map_or(epoch, |(_, since)| *since);
            seen.idle.insert(number, (egress, since));
            let idle = epoch.saturating_sub(since);
            standings.push((deed.clone(), Standing { number, row: deed.terms(), load, egress, empty, idle }));
        }
        standings
    }

    async fn upkeep(self: &Arc<Self>, seen: &mut Seen) -> Result<(), Error> {
        let posted = posted(&self.ledger, &self.parameters).await?;
        let standings = self.standings(seen).await;
        let rows: Vec<Standing> = standings.iter().map(|(_, standing)| standing.clone()).collect();
        let views = seen.providers.iter().map(|(account, (view, _))| (*account, view.clone())).collect();
        let retired = self.retired.load(Ordering::Acquire);
        if !retired {
            let needed = self.needed.lock().expect("no holder of this lock panics").clone();
            let wants = (&self.policy, self.core.demand(self.policy.providers));
            let all = wanted(&views, &needed, &rows, wants, &posted, &self.parameters);
            let opened = all.into_iter().map(|(account, opens)| self.open(account, opens, &views));
            join_all(opened).await.into_iter().collect::<Result<Vec<()>, _>>()?;
        }
        for (deed, standing) in &standings {
            let kept = self.parameters.epoch(deed.agreement.opened) + KEPT_EPOCHS;
            let step = if retired && self.epoch() >= kept && Stage::of(&standing.row) == Stage::Open {
                Step::Drain
            } else {
                self.next(deed, standing, &rows, &views, &posted)
            };
            self.step(deed, step, &posted).await?;
            if Stage::of(&standing.row) == Stage::Draining {
                renew::drain(&self.core, deed);
            }
        }
        Ok(())
    }

    fn next(
        &self,
        deed: &Deed,
        standing: &Standing,
        rows: &[Standing],
        views: &BTreeMap<Account, View>,
        posted: &Posted,
    ) -> Step {
        let provider = deed.provider();
        let mine: Vec<&Standing> = rows.iter().filter(|s| s.row.agreement.provider == provider).collect();
        let holds = views.get(&provider).is_some_and(|view| {
            view.provider.leaves_at == 0 && passes(&view.audit) && check_takes(&view.standing).is_ok()
        });
        let awaited = self.core.demand(1) > 0;
        let around = Around {
            successor: holds && renew::successor(&self.core, deed).is_some(),
            idle: !awaited && self.policy.is_idle(standing, &mine, self.epoch(), &self.parameters),
            egress_price: posted.prices[EGRESS].price,
        };
        next(standing, self.epoch(), around, &self.policy, &self.parameters)
    }

    /// Has more money locked for vouchers. What was read is brought first: what the provider redeems
    /// before the top-up keeps its price (AG-8).
    async fn top_up(&self, deed: &Deed, amount: Amount, posted: &Posted) -> Result<(), Error> {
        if let Err(error) = deed.pay().await {
            tracing::debug!(%error, "a voucher is brought again");
        }
        let price = |class: usize| posted.prices[class].price.min(self.policy.price_max[class]);
        let egress_price = deed.terms().egress_price.max(price(EGRESS));
        let body = TopUp {
            agreement: deed.agreement,
            amount,
            max_egress_price: egress_price,
            max_gas_price: self.policy.price_max[GAS],
        };
        let code = self.ledger.execute(Body::TopUp(body)).await?;
        if code != Code::Done {
            tracing::warn!(?code, "a voucher reserve could not be topped up: {}", code.explain());
            return Ok(());
        }
        let more = |row: &mut DeedRow| {
            row.voucher_reserve = row.voucher_reserve.checked_add(amount).unwrap_or(row.voucher_reserve);
            row.egress_price = egress_price;
        };
        deed.set_terms(more).await.map_err(|_| Error::Stopping)
    }

    async fn step(&self, deed: &Arc<Deed>, step: Step, posted: &Posted) -> Result<(), Error> {
        let stopped = |_| Error::Stopping;
        match step {
            Step::Nothing => {}
            Step::TopUp(amount) => self.top_up(deed, amount, posted).await?,
            Step::Drain => deed.set_terms(|row| row.stage = Stage::Draining as u8).await.map_err(stopped)?,
            Step::Close => {
                let close = CloseAlone { agreement: deed.agreement };
                let code = self.ledger.execute(Body::CloseAlone(close)).await?;
                tracing::info!(?code, deed = deed.number, "an agreement is closed");
                deed.set_terms(|row| row.stage = Stage::Closing as u8).await.map_err(stopped)?;
            }
            Step::Forget => self.forget(deed).await?,
        }
        Ok(())
    }

    /// An agreement is gone from the ledger, or will be: what it held is nobody's.
    pub(super) async fn forget(&self, deed: &Arc<Deed>) -> Result<(), Error> {
        let stopped = |_| Error::Stopping;
        let held = deed.close();
        self.core.common.catalogue.erase_holdings(deed.number, held.clone()).await.map_err(stopped)?;
        deed.set_terms(|row| row.stage = Stage::Gone as u8).await.map_err(stopped)?;
        self.core.remove_deed(deed.number);
        for entry in held {
            let notice = Notice::Incomplete { file: entry.file, segment: entry.segment };
            self.core.notice_surely(notice).await;
        }
        Ok(())
    }

    /// Brings what is due between two looks.
    async fn bring(self: Arc<Self>) {
        loop {
            self.core.common.signed.notified().await;
            self.settle_all(|deed| deed.is_due()).await;
        }
    }

    async fn settle_all(&self, some: impl Fn(&Deed) -> bool) {
        let deeds: Vec<_> = self.core.deeds().into_iter().filter(|deed| some(deed)).collect();
        let settled =
            join_all(deeds.iter().map(|deed| settle(&self.core, &self.ledger, deed, &self.parameters))).await;
        for error in settled.into_iter().filter_map(Result::err) {
            tracing::debug!(%error, "a data set waits for the ledger");
        }
    }

    /// Brings signed refusals to the ledger, one per agreement and tick, as far as it would take them.
    async fn bring_refusals(&self) -> Result<(), Error> {
        let height = self.core.height.load(Ordering::Relaxed);
        for deed in self.core.deeds() {
            let Some(refused) = deed.link.take_refusal() else { continue };
            let recent = height.abs_diff(refused.height) < self.parameters.epoch_blocks();
            let own = refused.provider == deed.provider() && refused.check(&self.core.common.chain).verify();
            if recent && own {
                let code = self.ledger.execute(Body::Refusal(refused)).await?;
                tracing::warn!(provider = %refused.provider, ?code, "a provider refused within its declared capacity");
            }
        }
        Ok(())
    }

    fn ask_scrubs(&self) {
        let mut asked = BTreeSet::new();
        for deed in self.core.deeds() {
            if !asked.insert(deed.provider()) {
                continue;
            }
            let core = self.core.clone();
            self.core.common.environment.spawn(async move {
                if let Ok(status) = deed.link.status().await
                    && !status.bad.is_empty()
                {
                    core.notice(Notice::Bad(deed.provider(), status.bad.into_inner()));
                }
            });
        }
    }

    /// The way to a provider.
    pub fn link(&self, account: Account) -> Arc<Link> {
        let mut links = self.links.lock().expect("no holder of this lock panics");
        let new = || {
            let (dialer, environment) = (self.dialer.clone(), self.core.common.environment.clone());
            Arc::new(Link::new(account, dialer, environment, self.core.heights()))
        };
        let link = links.entry(account).or_insert_with(new).clone();
        // The survey came before the link: without this, it would have no address until the next.
        if let Some(address) = self.core.known(&account).and_then(|known| known.address) {
            link.set_address(address);
        }
        link
    }

    /// Opens agreements with a provider at once, each from its number to its first shard.
    async fn open(
        &self,
        provider: Account,
        opens: Vec<Open>,
        views: &BTreeMap<Account, View>,
    ) -> Result<(), Error> {
        let Some(view) = views.get(&provider) else { return Ok(()) };
        let slots = self.free_slots(provider, view.provider.slots).await?;
        let mut rows = Vec::new();
        for (open, slot) in opens.into_iter().zip(slots) {
            let row = DeedRow {
                agreement: AgreementId { provider, slot, opened: 0 },
                stage: Stage::Opening as u8,
                end_epoch: open.end_epoch,
                quota_leaves: open.quota_leaves,
                quota_egress: open.quota_egress,
                voucher_reserve: open.voucher_reserve,
                egress_price: open.max_egress_price,
            };
            let number = self.core.common.catalogue.add_deed(row.clone()).await;
            let Some(number) = number.map_err(|_| Error::Stopping)? else {
                let full = "this gateway has opened all the agreements that it may; start a new one";
                return Err(Error::Full(full));
            };
            rows.push((number, row));
        }
        let asked = join_all(rows.into_iter().map(|(number, row)| self.ask(number, row))).await;
        asked.into_iter().collect()
    }

    /// Free slots of a provider, from where some are likely, in an order of their own: others may be
    /// opening agreements with it at the same moment.
    async fn free_slots(&self, provider: Account, held: u32) -> Result<Vec<u32>, Error> {
        let first = held.saturating_sub(READ_KEYS_MAX as u32 / 2);
        let slots: Vec<u32> = (first..first + READ_KEYS_MAX as u32).collect();
        let keys = slots.iter().map(|slot| Agreement::key(&provider, *slot)).collect();
        let (_, found) = self.ledger.read(keys).await?;
        let free = slots.into_iter().zip(found).filter(|(_, found)| found.is_none()).map(|(slot, _)| slot);
        let mut few: Vec<u32> = free.take(SLOTS_TRIED).collect();
        let place = usize::from(self.core.common.environment.random()[0]) % few.len().max(1);
        few.rotate_left(place);
        Ok(few)
    }

    /// Has the ledger open what the row says, and takes it up.
    async fn ask(&self, number: u32, row: DeedRow) -> Result<(), Error> {
        let (master, policy) = (&self.core.common.master, &self.policy);
        let account = |key: commonware_cryptography::ed25519::PrivateKey| Account::of(&key.public_key());
        let session_key = account(session_key(master, number));
        let open = Open {
            provider: row.agreement.provider,
            slot: row.agreement.slot,
            session_key,
            storage_key: account(storage_key(master, number)),
            max_storage_price: policy.price_max[STORAGE],
            max_egress_price: policy.price_max[EGRESS],
            max_gas_price: policy.price_max[GAS],
            quota_leaves: row.quota_leaves,
            quota_egress: row.quota_egress,
            quota_gas: 0,
            rate_egress: policy.rate_egress,
            rate_gas: 0,
            end_epoch: row.end_epoch,
            voucher_reserve: row.voucher_reserve,
            storage_reserve_max: policy.storage_reserve_max,
        };
        let code = self.ledger.execute(Body::Open(open)).await;
        let key = Agreement::key(&row.agreement.provider, row.agreement.slot);
        let found = self.ledger.record::<Agreement>(key).await?;
        let ours = found.filter(|found| found.consumer == self.account && found.session_key == session_key);
        match (ours, code) {
            (Some(found), _) => self.take_up(number, row, &found).await,
            (None, Ok(code)) => {
                let provider = row.agreement.provider;
                tracing::warn!(%provider, ?code, "an agreement was not opened: {}", code.explain());
                self.give_up(number, row).await
            }
            (None, Err(Error::Expired)) => self.give_up(number, row).await,
            (None, Err(error)) => Err(error),
        }
    }

    async fn give_up(&self, number: u32, row: DeedRow) -> Result<(), Error> {
        let gone = DeedRow { stage: Stage::Gone as u8, ..row };
        self.core.common.catalogue.put_deed(number, gone).await.map_err(|_| Error::Stopping)
    }

    async fn take_up(&self, number: u32, row: DeedRow, found: &Agreement) -> Result<(), Error> {
        let row = DeedRow {
            agreement: found.id(row.agreement.provider, row.agreement.slot),
            stage: Stage::Open as u8,
            egress_price: found.egress_price,
            ..row
        };
        self.core.common.catalogue.put_deed(number, row.clone()).await.map_err(|_| Error::Stopping)?;
        let loaded = LoadedDeed::fresh(number, row);
        self.add(loaded);
        Ok(())
    }

    /// Takes up an agreement that is open.
    pub fn add(&self, loaded: LoadedDeed) {
        let link = self.link(loaded.row.agreement.provider);
        match Deed::start(loaded, link, self.core.common.clone()) {
            Ok(deed) => self.core.add_deed(deed),
            Err(damaged) => tracing::error!(%damaged, "an agreement is left alone"),
        }
    }

    /// Goes on with what was being opened when the gateway stopped: asking again is harmless, since
    /// a slot that is taken by us shows our key.
    async fn resume(&self) {
        let opening = std::mem::take(&mut *self.opening.lock().expect("no holder of this lock panics"));
        for loaded in opening {
            if let Err(error) = self.ask(loaded.number, loaded.row).await {
                tracing::warn!(%error, "an agreement that was being opened is looked at after the next start");
            }
        }
    }
}
