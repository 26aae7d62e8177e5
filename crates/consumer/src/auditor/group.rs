//! The reading accounts: each serves a group of epochs, is opened a little before it and retired after
//! it.
//!
//! A retired account closes its agreements once they are old enough, has them removed, returns the rest
//! of its money to the seat, and is forgotten with its catalogue.

use super::{
    Config,
    seat::Seat,
    state::{LEAD_EPOCHS, account_key, group_of, phase},
};
use crate::{
    account::{self, Consumer},
    agreements::Agreements,
    catalogue::{self, Nothing, store::durable_partition},
    ledger::Error,
    sample::Sample,
    shared::Shared,
};
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_runtime::{Clock, Handle, Metrics, Network, Resolver, Spawner, Storage};
use commonware_utils::channel::{mpsc, oneshot};
use posync_alert::{Alert, Kind, RaisedAlerts};
use posync_client::{
    account::{paying, sign_paying},
    channel::SharedNetwork,
};
use posync_protocol::{
    Account, Amount, Code, Hash, ledger,
    limits::{Parameters, SERVICE_DRAWS},
    operation::{Body, Transfer},
    record::{AccountState, System},
};
use rand_core::CryptoRng;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
};

/// The fixed amount of a transfer to a reading account: more than a thousand reading agreements lock.
const FUNDS: Amount = Amount::sync(50);
/// Balance below which an account may be unable to open agreements with all drawn providers; it then gets
/// [`FUNDS`] again.
const LOW: Amount = Amount::sync(10);
/// Multiple of the current fee that is left for the transfer which empties an account: the client offers
/// four times the fee, and the base fee may rise before it signs.
const FEE_TIMES: u128 = 8;

/// The most that an account's last operation may cost.
fn last_fee(key: &PrivateKey, parameters: &Parameters, system: &System, body: &Body) -> Amount {
    // A fee depends on the size of the operation, not on the chain or the height.
    let context = paying(Hash::default(), *parameters, 0);
    let base_fee = ledger::base_fee(system, parameters);
    sign_paying(key, &context, base_fee, FEE_TIMES, u64::MAX, u64::MAX, body).max_fee
}

/// A reading account whose tasks run.
struct Reading {
    shared: Arc<Shared>,
    agreements: Arc<Agreements>,
    task: Handle<()>,
}

/// The reading accounts, by group.
pub(super) struct Groups<E: Spawner + Clock + Storage + Metrics + CryptoRng + Resolver, N: Network> {
    context: E,
    network: SharedNetwork<N>,
    config: Config,
    phase: u64,
    samples: mpsc::Sender<Sample>,
    all: BTreeMap<u64, Reading>,
    /// The group that was active at the last look.
    last: Option<u64>,
    /// Groups before it whose account was not opened or emptied, of this process or of an earlier one.
    left: Left,
    /// Groups whose account does not open, each with the reason.
    refused: BTreeMap<u64, String>,
    /// The alerts that hold now.
    watch: RaisedAlerts,
}

/// Groups of [`Left`] that are looked at in one epoch.
const LEFT_AT_ONCE: usize = 4;
/// The longest pause between two looks at one of them, in epochs, as a power of two.
const PAUSE_MAX: u32 = 3;

/// Groups that are over and not finished. Each is looked at again after a pause that grows, and at most
/// [`LEFT_AT_ONCE`] in one epoch, so that accounts that never open cost the same however many there are.
#[derive(Default)]
struct Left(BTreeMap<u64, Look>);

/// The next look at a group.
#[derive(Clone, Copy, Default)]
struct Look {
    /// Epoch in which it is due.
    epoch: u64,
    /// Number of looks before.
    tries: u32,
}

impl Left {
    /// Adds groups, which are due at once.
    fn add(&mut self, groups: impl IntoIterator<Item = u64>) {
        for group in groups {
            self.0.entry(group).or_default();
        }
    }

    /// The groups to look at in `epoch`: those that have been due for longest.
    fn due(&self, epoch: u64) -> Vec<u64> {
        let mut due: Vec<(Look, u64)> = self.0.iter().map(|(group, look)| (*look, *group)).collect();
        due.retain(|(look, _)| look.epoch <= epoch);
        due.sort_by_key(|(look, group)| (look.epoch, *group));
        due.into_iter().take(LEFT_AT_ONCE).map(|(_, group)| group).collect()
    }

    /// Notes that a look in `epoch` did not finish a group.
    fn put_off(&mut self, group: u64, epoch: u64) {
        if let Some(look) = self.0.get_mut(&group) {
            look.epoch = epoch.saturating_add(1 << look.tries.min(PAUSE_MAX));
            look.tries = look.tries.saturating_add(1);
        }
    }
}

/// The groups below `now` that still have a catalogue, or notes about one: their accounts were never emptied.
async fn left<E: Storage>(context: &E, partition: &str, now: u64) -> BTreeSet<u64> {
    let mut left = BTreeSet::new();
    for group in 0..now {
        let of = of_group(partition, group);
        let [rows, ..] = catalogue::partitions(&of);
        // Notes without rows: the rows were lost, and the account may still hold money.
        for part in [rows, durable_partition(&of)] {
            if context.scan(&part).await.is_ok_and(|blobs| !blobs.is_empty()) {
                left.insert(group);
            }
        }
    }
    left
}

/// Removes what is left of a catalogue without rows if its account was retired: what it had is closed. Its notes alone
/// would say that everything was lost, at each start. In any other case they are right: the rows were lost, and they
/// may be brought back.
async fn clear_remains<E: Storage>(
    context: &E,
    partition: &str,
    is_emptied: bool,
) -> Result<(), catalogue::Error> {
    if is_emptied && catalogue::is_gone(context, partition).await? {
        catalogue::erase(context, partition).await?;
    }
    Ok(())
}

/// True if an account holds no more than what retiring it leaves.
fn is_emptied(active: bool, balance: Amount, last_fee: Amount) -> bool {
    !active && balance <= last_fee
}

/// The alert about reading accounts that do not open.
fn alerts(partition: &str, refused: &BTreeMap<u64, String>) -> Vec<Alert> {
    let alert = |(group, why): (&u64, &String)| Alert {
        kind: Kind::Damaged,
        what: format!(
            "{} reading accounts of the auditor do not open; the first is {group}: {why}",
            refused.len()
        ),
        next: format!(
            "check the disk, and bring back the files of the partitions `{}-catalogue*`; until then the auditor does \
             not read with this account, and its agreements stay as they are",
            of_group(partition, *group)
        ),
        due: None,
    };
    refused.first_key_value().map(alert).into_iter().collect()
}

/// The storage partition of a group's account.
fn of_group(partition: &str, group: u64) -> String {
    format!("{partition}-{group}")
}

impl<E, N> Groups<E, N>
where
    E: Spawner + Clock + Storage + Metrics + CryptoRng + Resolver,
    N: Network,
{
    /// Starts without any account. Each sample goes to the sender.
    pub(super) fn new(
        context: E,
        network: SharedNetwork<N>,
        config: Config,
        samples: mpsc::Sender<Sample>,
    ) -> Self {
        let phase = phase(&config.key);
        Self {
            context,
            network,
            config,
            phase,
            samples,
            all: BTreeMap::new(),
            last: None,
            left: Left::default(),
            refused: BTreeMap::new(),
            watch: RaisedAlerts::default(),
        }
    }

    fn of(&self, epoch: u64) -> Option<&Reading> {
        self.all.get(&group_of(epoch, self.phase))
    }

    /// The secret from which the session keys of an epoch's account derive.
    pub(super) fn master(&self, epoch: u64) -> Option<Hash> {
        Some(self.of(epoch)?.shared.common.master)
    }

    /// A random salt for the commitment of an epoch; `None` without an account for it.
    pub(super) fn random(&self, epoch: u64) -> Option<Hash> {
        Some(self.of(epoch)?.shared.common.environment.random())
    }

    /// Returns true if the account that reports on the sample's epoch took it.
    pub(super) fn took(&self, sample: &Sample) -> bool {
        let agreement = self.of(sample.epoch).and_then(|reading| reading.shared.agreement(sample.number));
        agreement.is_some_and(|agreement| agreement.id == sample.agreement)
    }

    /// Passes the height of a final block to all accounts.
    pub(super) fn advance(&self, height: u64) {
        for reading in self.all.values() {
            reading.shared.height.fetch_max(height, Ordering::Relaxed);
        }
    }

    /// Asks the account that reports on `epoch` to open agreements with the `drawn` providers.
    pub(super) fn need(&self, epoch: u64, drawn: BTreeSet<Account>) {
        if let Some(reading) = self.of(epoch) {
            *reading.agreements.needed.lock() = drawn;
        }
    }

    /// Opens the accounts that read in `epoch` or soon after, and retires those that no longer do.
    pub(super) async fn keep(&mut self, epoch: u64, seat: &Seat) {
        let (now, soon) = (group_of(epoch, self.phase), group_of(epoch + LEAD_EPOCHS, self.phase));
        // After a start, the previous group may still have agreements to close, and so may earlier ones.
        let last = match self.last {
            Some(last) => last,
            None => {
                let before = now.saturating_sub(1);
                self.left.add(left(&self.context, &self.config.partition, before).await);
                before
            }
        };
        self.left.add(last..now);
        self.last = Some(now);
        // Those that are open close their agreements.
        let open: Vec<u64> = self.all.keys().copied().filter(|group| *group < now).collect();
        let due = self.left.due(epoch).into_iter().filter(|group| !open.contains(group));
        let mut waiting = BTreeSet::new();
        for group in due.chain(open.iter().copied()).chain(now..=soon).collect::<Vec<_>>() {
            let looked = self.look_after(group, group >= now, seat).await;
            if let Err(error) = &looked {
                tracing::warn!(%error, group, "a reading account waits for the ledger");
                waiting.insert(group);
            }
            if looked.is_err() {
                self.left.put_off(group, epoch);
            } else {
                self.left.0.remove(&group);
            }
        }
        self.refused.retain(|group, _| waiting.contains(group) || self.left.0.contains_key(group));
        let now = alerts(&self.config.partition, &self.refused);
        self.config.alerts.watch(&mut self.watch, &seat.account.to_string(), None, now);
    }

    async fn look_after(&mut self, group: u64, active: bool, seat: &Seat) -> Result<(), Error> {
        let account = Account::of(&account_key(&self.config.key, group).public_key());
        let state = seat.account_of(&account).await?;
        if active && (state.balance < LOW || state == AccountState::default()) {
            let code = seat.give(account, FUNDS).await?;
            tracing::info!(group, ?code, "an account is funded");
        }
        if !active && state == AccountState::default() {
            return Ok(());
        }
        let (key, parameters) = (self.config.key.clone(), self.config.parameters);
        let all = Body::Transfer(Transfer { to: seat.account, amount: state.balance });
        let fee = |system: &System| last_fee(&key, &parameters, system, &all);
        if !self.all.contains_key(&group) {
            let system = seat.system().await?;
            let is_emptied = is_emptied(active, state.balance, fee(&system));
            self.open(group, active, is_emptied, system.seats).await?;
        }
        let Some(reading) = self.all.get(&group) else { return Ok(()) };
        if active {
            return Ok(());
        }
        reading.agreements.retired.store(true, Ordering::Release);
        if !reading.shared.agreements().is_empty() || reading.agreements.is_opening() {
            return Ok(());
        }
        let left = state.balance.saturating_sub(fee(&seat.system().await?));
        if left > Amount::ZERO {
            let body = Body::Transfer(Transfer { to: seat.account, amount: left });
            let code = reading.agreements.ledger.execute(body).await?;
            if code != Code::Done {
                tracing::warn!(group, ?code, "an account is not emptied yet: {}", code.explain());
                return Ok(());
            }
            tracing::info!(group, "the rest of an account's money went back to the seat's account");
        }
        self.close(group).await;
        Ok(())
    }

    async fn open(&mut self, group: u64, active: bool, is_emptied: bool, seats: u32) -> Result<(), Error> {
        let mut means = self.config.means(account_key(&self.config.key, group), self.partition(group));
        means.policy.providers = means.policy.providers.max((seats * SERVICE_DRAWS) as usize);
        if let Err(error) = clear_remains(&self.context, &self.partition(group), is_emptied).await {
            tracing::warn!(%error, group, "what is left of a retired account's catalogue is not removed");
        }
        let (opened, ready) = oneshot::channel();
        let (network, samples) = (self.network.clone(), self.samples.clone());
        let context = self.context.child("reading").with_attribute("group", group);
        let task = context.spawn(move |context| async move {
            match Consumer::<Nothing>::open(&context, &network, means).await {
                Ok(consumer) => {
                    consumer.agreements.retired.store(!active, Ordering::Release);
                    account::start(&consumer.agreements, Some(samples), None);
                    let Consumer { shared, agreements, mut heard, disk, .. } = consumer;
                    drop(opened.send(Ok((shared, agreements))));
                    // A reading account stores nothing, so it has nothing to repair.
                    while heard.recv().await.is_some() {}
                    drop(disk);
                }
                Err(error) => {
                    tracing::error!(%error, group, "an account cannot read");
                    drop(opened.send(Err(error.to_string())));
                }
            }
        });
        match ready.await.map_err(|_| Error::Stopping)? {
            Ok((shared, agreements)) => {
                self.refused.remove(&group);
                self.all.insert(group, Reading { shared, agreements, task });
                Ok(())
            }
            Err(why) => {
                self.refused.insert(group, why);
                Err(Error::Stopping)
            }
        }
    }

    fn partition(&self, group: u64) -> String {
        of_group(&self.config.partition, group)
    }

    /// Ends an account's tasks and removes its catalogue.
    async fn close(&mut self, group: u64) {
        if let Some(reading) = self.all.remove(&group) {
            reading.task.abort();
            // The task was aborted, so its result does not matter.
            let _ = reading.task.await;
        }
        if let Err(error) = catalogue::erase(&self.context, &self.partition(group)).await {
            tracing::warn!(%error, group, "a part of the catalogue of a retired account stays on the disk");
        }
        tracing::info!(group, "a reading account is retired");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agreements::state::Stage,
        catalogue::{
            Started,
            row::{OwnAgreementRow, RateCap},
        },
    };
    use posync_protocol::{AgreementId, operation::Operation};

    /// Opens an account's catalogue anew, writes to it and ends it.
    async fn use_once<E: Storage + Clock + Metrics + Spawner>(context: &E, partition: &str) {
        let opened = catalogue::start::<Nothing, _>(context.child("account"), partition, [1; 32]);
        let Started { catalogue, contents, loaded, disk } = opened.await.expect("opens");
        assert!(loaded.aside.is_empty(), "nothing is damaged");
        drop((catalogue, contents));
        disk.await.expect("ends").expect("no disk error");
    }

    #[test]
    fn a_retired_account_leaves_nothing_behind_and_opens_empty_if_an_older_version_left_a_note() {
        use commonware_runtime::{Runner as _, Supervisor as _};
        // A real disk keeps the note of a process that ended.
        let home = tempfile::tempdir().expect("a directory");
        let config = commonware_runtime::tokio::Config::default().with_storage_directory(home.path());
        commonware_runtime::tokio::Runner::new(config).start(async |context| {
            let partition = of_group("auditor", 3);
            use_once(&context, &partition).await;
            let notes = format!("{partition}-catalogue-durable");
            assert!(!context.scan(&notes).await.expect("it was written").is_empty());
            catalogue::erase(&context, &partition).await.expect("goes");
            for part in catalogue::partitions(&partition).into_iter().chain([notes.clone()]) {
                assert!(context.scan(&part).await.is_err(), "{part}");
            }
            use_once(&context, &partition).await;
            for part in catalogue::partitions(&partition) {
                context.remove(&part, None).await.expect("an older version left the note alone");
            }
            let opened = catalogue::start::<Nothing, _>(context.child("refused"), &partition, [1; 32]);
            let refused = opened.await.map(drop).expect_err("the note says that all was lost");
            assert!(matches!(refused, catalogue::Error::Page(_)), "{refused}");
            clear_remains(&context, &partition, true).await.expect("goes");
            use_once(&context, &partition).await;
            // A catalogue that is there stays.
            clear_remains(&context, &partition, true).await.expect("nothing to do");
            assert!(!catalogue::is_gone(&context, &partition).await.expect("listed"));
        });
    }

    #[test]
    fn notes_about_lost_rows_stay_while_their_account_is_active_or_has_money() {
        use commonware_runtime::{Runner as _, Supervisor as _};
        let home = tempfile::tempdir().expect("a directory");
        let config = commonware_runtime::tokio::Config::default().with_storage_directory(home.path());
        commonware_runtime::tokio::Runner::new(config).start(async |context| {
            let partition = of_group("auditor", 3);
            let opened = catalogue::start::<Nothing, _>(context.child("account"), &partition, [1; 32]);
            let Started { catalogue, contents, disk, .. } = opened.await.expect("opens");
            let row = OwnAgreementRow {
                id: AgreementId { provider: Account([7; 32]), slot: 3, opened: 9 },
                stage: Stage::Open as u8,
                end_epoch: 20,
                quota_leaves: 0,
                quota_egress: 1 << 20,
                voucher_reserve: Amount::sync(1),
                egress_price: 5,
                rate_egress: RateCap(1 << 20),
            };
            catalogue.add_agreement(row).await.expect("open").expect("a number");
            drop((catalogue, contents));
            disk.await.expect("ends").expect("no disk error");
            // A check of the file system moved the rows away.
            for part in catalogue::partitions(&partition) {
                context.remove(&part, None).await.expect("it was written");
            }
            let notes = format!("{partition}-catalogue-durable");
            let fee = Amount::new(1_000_000).expect("small");
            for (active, balance) in
                [(true, Amount::ZERO), (true, Amount::sync(10)), (false, Amount::sync(10))]
            {
                let is_emptied = is_emptied(active, balance, fee);
                clear_remains(&context, &partition, is_emptied).await.expect("nothing to do");
                assert!(!context.scan(&notes).await.expect("there").is_empty(), "{active} {balance}");
                let opened = catalogue::start::<Nothing, _>(context.child("refused"), &partition, [1; 32]);
                let refused = opened.await.map(drop).expect_err("its agreements would be forgotten");
                assert!(matches!(refused, catalogue::Error::Page(_)), "{refused}");
                let raised = alerts("auditor", &BTreeMap::from([(3, refused.to_string())]));
                assert!(
                    raised[0].kind == Kind::Damaged && raised[0].next.contains("auditor-3-catalogue"),
                    "{raised:?}"
                );
            }
            clear_remains(&context, &partition, is_emptied(false, fee, fee)).await.expect("goes");
            use_once(&context, &partition).await;
        });
    }

    #[test]
    fn accounts_that_never_open_cost_the_same_however_many_there_are_and_keep_no_other_one_waiting() {
        let (mut left, mut looked) = (Left::default(), BTreeMap::<u64, Vec<u64>>::new());
        left.add(0..100);
        for epoch in 1_000..1_200 {
            if epoch == 1_100 {
                left.add([40, 500]);
            }
            let due = left.due(epoch);
            assert!(due.len() <= LEFT_AT_ONCE, "{epoch}: {due:?}");
            for group in due {
                looked.entry(group).or_default().push(epoch);
                left.put_off(group, epoch);
            }
        }
        assert_eq!(looked[&500][0], 1_100, "a new one is due at once");
        assert!((0..100).all(|group| looked[&group].len() >= 6), "each comes again: {looked:?}");
        // One alone is looked at less and less often, and never after more than eight epochs.
        let mut one = Left::default();
        one.add([7]);
        let mut epochs = vec![];
        for epoch in 0..40 {
            if one.due(epoch) == [7] {
                epochs.push(epoch);
                one.put_off(7, epoch);
            }
        }
        assert_eq!(epochs, [0, 1, 3, 7, 15, 23, 31, 39]);
    }

    #[test]
    fn what_an_earlier_process_left_is_found_however_old_it_is() {
        use commonware_runtime::Runner as _;
        commonware_runtime::deterministic::Runner::default().start(|context| async move {
            for group in [3, 40] {
                use_once(&context, &of_group("auditor", group)).await;
            }
            assert_eq!(left(&context, "auditor", 60).await, BTreeSet::from([3, 40]));
            assert_eq!(left(&context, "auditor", 40).await, BTreeSet::from([3]));
            // Its rows were moved away, and its notes are there.
            for part in catalogue::partitions(&of_group("auditor", 3)) {
                context.remove(&part, None).await.expect("there");
            }
            assert_eq!(left(&context, "auditor", 40).await, BTreeSet::from([3]), "it may hold money");
        });
    }

    #[test]
    fn what_is_left_for_the_last_fee_follows_the_base_fee() {
        let (key, parameters) = (PrivateKey::from_seed(1), Parameters::LOCAL);
        let body = Body::Transfer(Transfer { to: Account([9; 32]), amount: FUNDS });
        let context = paying([7; 32], parameters, 1_000_000);
        let operation = Operation::signed(&key, &context.chain, 9, Amount::ZERO, 1_000_100, body.clone());
        for base_fee in [0, 100, 1_000_000] {
            let system = System { base_fee, ..System::default() };
            let charged = ledger::fee(&context, ledger::base_fee(&system, &parameters), &operation).grains();
            let left = last_fee(&key, &parameters, &system, &body).grains();
            // The client offers four times the fee at the base fee that it sees.
            assert!(
                charged > 0 && left >= 4 * charged && left <= 16 * charged,
                "{base_fee}: {left} {charged}"
            );
        }
    }
}
