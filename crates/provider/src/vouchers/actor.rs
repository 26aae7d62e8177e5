//! Makes vouchers durable: one journal, one sync for all that wait.

use super::state::State;
use crate::{
    condition::Condition,
    credit::Credit,
    journal::{self, Journal},
};
use commonware_runtime::{Handle, Spawner};
use commonware_storage::Context;
use commonware_utils::{
    channel::{mpsc, oneshot},
    sync::Mutex,
};
use posync_client::watch;
use posync_protocol::{AgreementId, operation::Redemption, tagged};
use std::{sync::Arc, time::Duration};

/// Number of vouchers that may wait for the disk.
const MAILBOX: usize = 256;

/// Pause between attempts to open the journal on a volume that accepts no writes.
const RETRY: Duration = Duration::from_secs(1);

/// Reasons for which the voucher store refuses a call.
#[derive(Debug, thiserror::Error)]
pub enum VouchersError {
    /// The disk failed, and the writer ended.
    #[error("the voucher store's journal failed: {0}; check the volume, then start again")]
    Disk(#[from] journal::Error),
    /// The volume accepts no writes: the change is not durable, and a later attempt may succeed.
    #[error("the volume is full; nothing was written, try again")]
    NoSpace,
    /// The writer ended, so no call succeeds any more.
    #[error("the voucher store is closed")]
    Closed,
}

tagged! {
    /// A record of the voucher store's journal.
    Record {
        0 => Keep(Redemption),
        1 => Forget(AgreementId),
        2 => Damaged(bool),
    }
}

struct Command {
    record: Record,
    done: oneshot::Sender<()>,
}

/// A handle on the voucher store: cheap to clone.
#[derive(Clone)]
pub struct Vouchers {
    state: Arc<Mutex<State>>,
    mailbox: mpsc::Sender<Command>,
    changed: watch::Receiver<()>,
}

impl Vouchers {
    /// Opens the journal and starts the writer, which ends when it fails or all handles are dropped.
    ///
    /// # Errors
    /// `Disk`.
    pub async fn open<E>(
        context: E,
        partition: &str,
    ) -> Result<(Self, Handle<Result<(), VouchersError>>), VouchersError>
    where
        E: Context + Spawner,
    {
        let open = Journal::open(context.child("vouchers"), partition, apply, snapshot, hurt);
        let (mut journal, state) = open.await?;
        if journal.is_long(state.len() as u64) {
            journal.snapshot(snapshot(&state)).await?;
        }
        let state = Arc::new(Mutex::new(state));
        let (mailbox, commands) = mpsc::channel(MAILBOX);
        let (changes, changed) = watch::channel(());
        let writer =
            Writer { journal, state: state.clone(), partition: partition.into(), changes, is_behind: false };
        let task = context.child("vouchers_writer").spawn(move |context| writer.run(context, commands));
        Ok((Self { state, mailbox, changed }, task))
    }

    /// Keeps a voucher that passed [`super::judge`]; returns once it is durable and counts as paid.
    ///
    /// # Errors
    /// `Closed`, `NoSpace`.
    pub(crate) async fn keep(&self, redemption: Redemption) -> Result<(), VouchersError> {
        self.ask(Record::Keep(redemption)).await
    }

    /// Drops an agreement whose vouchers are worthless by now.
    ///
    /// # Errors
    /// `Closed`, `NoSpace`.
    pub(crate) async fn forget(&self, agreement: AgreementId) -> Result<(), VouchersError> {
        self.ask(Record::Forget(agreement)).await
    }

    async fn ask(&self, record: Record) -> Result<(), VouchersError> {
        let (done, answer) = oneshot::channel();
        self.mailbox.send(Command { record, done }).await.map_err(|_| VouchersError::Closed)?;
        answer.await.map_err(|_| VouchersError::NoSpace)
    }

    /// Runs `work` on the state, for example to draw credit.
    pub fn with<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        work(&mut self.state.lock())
    }

    /// Draws credit for `bytes`, waiting while a voucher is due. The caller bounds the wait.
    pub(crate) async fn draw(&self, agreement: AgreementId, bytes: u64, trust: u64, ceiling: u64) -> Credit {
        let mut changed = self.changed.clone();
        loop {
            changed.mark_unchanged();
            match self.with(|state| state.draw(agreement, bytes, trust, ceiling)) {
                Credit::Pay(due) => {
                    if changed.changed().await.is_err() {
                        return Credit::Pay(due);
                    }
                }
                decided => return decided,
            }
        }
    }
}

struct Writer<E: Context> {
    journal: Journal<E, Record>,
    state: Arc<Mutex<State>>,
    partition: String,
    changes: watch::Sender<()>,
    /// True if the journal lacks a part of the state.
    is_behind: bool,
}

impl<E: Context> Writer<E> {
    async fn run(mut self, context: E, mut commands: mpsc::Receiver<Command>) -> Result<(), VouchersError> {
        let mut condition = Condition::new("the volume takes no vouchers; who pays is asked to try again");
        loop {
            match self.work(&context, &mut commands).await {
                Ok(true) => drop(condition.ended()),
                Ok(false) => return Ok(()),
                // No caller was answered that these are kept; the journal resumes at its last durable record.
                Err(error) if journal::is_full(&error) => {
                    condition.holds(&error);
                    self.reopen(&context).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes what waits; `false` once nothing more can come.
    async fn work(
        &mut self,
        context: &E,
        commands: &mut mpsc::Receiver<Command>,
    ) -> Result<bool, journal::Error> {
        let Some(first) = self.journal.next(context, commands).await? else { return Ok(false) };
        let mut group = vec![first];
        while group.len() < MAILBOX
            && let Ok(next) = commands.try_recv()
        {
            group.push(next);
        }
        self.write(group).await?;
        Ok(true)
    }

    async fn write(&mut self, group: Vec<Command>) -> Result<(), journal::Error> {
        if self.is_behind {
            let now = snapshot(&self.state.lock());
            self.journal.snapshot(now).await?;
            self.is_behind = false;
        }
        for command in &group {
            self.journal.append(command.record.clone()).await?;
        }
        if !cfg!(planted = "unsynced-voucher") {
            self.journal.sync().await?;
        }
        let size = {
            let mut state = self.state.lock();
            group.iter().for_each(|command| apply(&mut state, command.record.clone()));
            state.len() as u64
        };
        self.changes.send_replace(());
        for command in group {
            let _ = command.done.send(());
        }
        if self.journal.is_long(size) {
            let now = snapshot(&self.state.lock());
            self.journal.snapshot(now).await?;
        }
        Ok(())
    }

    /// Reads the journal again after a failed write: the durable state is the known state.
    async fn reopen(&mut self, context: &E) -> Result<(), VouchersError> {
        let mut condition = Condition::new("the voucher store's journal cannot be opened");
        loop {
            let context_of = context.child("again");
            let open = Journal::open(context_of, &self.partition, apply, snapshot, hurt);
            match open.await {
                Ok((journal, durable)) => {
                    self.journal = journal;
                    let mut state = self.state.lock();
                    let is_damaged = state.is_damaged() || durable.is_damaged();
                    state.set_damaged(is_damaged);
                    // Damage may have removed vouchers that count as paid; memory still has them.
                    self.is_behind = state.vouchers().any(|kept| durable.compare(&kept.voucher) != Ok(false));
                    return Ok(());
                }
                Err(error) if journal::is_full(&error) => drop(condition.holds(&error)),
                Err(error) => return Err(error.into()),
            }
            context.sleep(RETRY).await;
        }
    }
}

/// Snapshot of the voucher store. The mark of damage stays: the alert lasts until the disk is repaired.
fn snapshot(state: &State) -> Vec<Record> {
    let damaged = state.is_damaged().then_some(Record::Damaged(true));
    damaged.into_iter().chain(state.vouchers().map(|kept| Record::Keep(*kept))).collect()
}

fn apply(state: &mut State, record: Record) {
    match record {
        Record::Keep(redemption) => state.keep(redemption),
        Record::Forget(agreement) => state.forget(&agreement),
        Record::Damaged(damaged) => state.set_damaged(damaged),
    }
}

fn hurt(state: &mut State) {
    state.set_damaged(true);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixtures::{CHAIN, id, session},
        power_cut::{CUTS, Cut, Fuse, power_cut},
    };
    use commonware_cryptography::Signer as _;
    use commonware_runtime::{Runner as _, Supervisor as _, deterministic};
    use posync_protocol::{Account, Units, amount::ONE, operation::Voucher};

    fn redemption(slot: u32, egress: u64) -> Redemption {
        let agreement = AgreementId { slot, ..id() };
        Redemption {
            voucher: Voucher::signed(&session(), &CHAIN, agreement, Units::egress(egress)),
            session_key: Account::of(&session().public_key()),
            claim: None,
        }
    }

    #[test]
    fn what_was_counted_as_paid_survives_a_power_cut_at_every_operation() {
        let work = |context: Cut<deterministic::Context>| async move {
            let mut paid = [0u64; 3];
            let Ok((vouchers, _task)) = Vouchers::open(context, "till").await else { return paid };
            for step in 1..=12u64 {
                let slot = u32::try_from(step % 3).expect("small");
                if vouchers.keep(redemption(slot, 1_000 * step)).await.is_err() {
                    break;
                }
                paid[slot as usize] = vouchers.with(|state| state.paid(&AgreementId { slot, ..id() }));
            }
            paid
        };
        for cut in CUTS {
            let mut operation = 0;
            while !power_cut(operation, cut, work, |context, paid| async move {
                let (vouchers, _task) = Vouchers::open(context, "till").await.expect("recovers");
                for (slot, paid) in (0u32..).zip(paid) {
                    let now = vouchers.with(|state| state.paid(&AgreementId { slot, ..id() }));
                    assert!(now >= paid, "slot {slot}: {now} < {paid}");
                }
            }) {
                operation += 1;
            }
            assert!(operation > 12, "{operation}");
        }
    }

    #[test]
    fn vouchers_that_wait_share_one_sync_and_wake_who_waits_for_credit() {
        deterministic::Runner::default().start(|context| async move {
            let fuse = Fuse::after(1_000_000);
            let context = Cut::new(context, fuse.clone());
            let (vouchers, _task) = Vouchers::open(context.child("a"), "till").await.expect("opens");
            let slice = 64 << 10;
            assert_eq!(vouchers.draw(id(), slice, ONE, u64::MAX).await, Credit::Send);
            let waiting = vouchers.clone();
            let waiter = context
                .child("wait")
                .spawn(move |_| async move { waiting.draw(id(), slice, ONE, u64::MAX).await });
            let before = fuse.left();
            let all = (0..10).map(|slot| vouchers.keep(redemption(slot, slice)));
            assert!(futures::future::join_all(all).await.iter().all(Result::is_ok));
            assert_eq!(before - fuse.left(), 2, "one synced write, and a note of the length without a sync");
            assert_eq!(waiter.await.expect("lives"), Credit::Send);
            vouchers.forget(id()).await.expect("open");
            assert_eq!(vouchers.with(|state| state.len()), 9);
        });
    }

    #[test]
    fn a_full_volume_loses_no_voucher_and_takes_them_again_when_there_is_room() {
        deterministic::Runner::default().start(|context| async move {
            let fuse = Fuse::after(1_000_000);
            let cut = Cut::new(context.child("cut"), fuse.clone());
            let (vouchers, task) = Vouchers::open(cut, "till").await.expect("opens");
            for round in 1..=3u64 {
                vouchers.keep(redemption(0, 1_000 * round)).await.expect("durable");
                fuse.set_full(true);
                for _ in 0..3 {
                    let kept = vouchers.keep(redemption(0, 1_000 * round + 500)).await;
                    assert!(matches!(kept, Err(VouchersError::NoSpace)), "{kept:?}");
                }
                assert_eq!(vouchers.with(|state| state.paid(&id())), 1_000 * round);
                fuse.set_full(false);
            }
            vouchers.keep(redemption(0, 5_000)).await.expect("durable");
            drop(vouchers);
            task.await.expect("lives").expect("did not fail");
            let (vouchers, _task) = Vouchers::open(context.child("again"), "till").await.expect("opens");
            assert_eq!(vouchers.with(|state| (state.paid(&id()), state.is_damaged())), (5_000, false));
        });
    }
}
