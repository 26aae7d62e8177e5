//! The repair task: receives notices of losses and keeps the workers busy.

use super::{
    Notice, examine,
    rebuild::rebuild,
    state::{FoundBy, Rebuilt, State, Task},
    suspects,
};
use crate::{
    agreement::OwnAgreement,
    catalogue::{FileId, Stopped, row::FaultRow},
    limits::REPAIRS_AT_ONCE,
    shared::Shared,
};
use commonware_macros::select;
use commonware_utils::channel::mpsc;
use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use posync_protocol::{Account, Hash};
use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// Pause between retries of failed repairs, and between looks at suspected providers.
const TICK: Duration = Duration::from_secs(2);

struct Actor {
    shared: Arc<Shared>,
    state: State,
    examined: BTreeSet<Account>,
    workers: FuturesUnordered<BoxFuture<'static, (Task, Result<Rebuilt, Stopped>)>>,
}

/// Runs repair until the notices end. `open` are the segments that a start found without eight holders.
pub(crate) async fn start(
    shared: Arc<Shared>,
    mut notices: mpsc::Receiver<Notice>,
    open: Vec<(FileId, u32)>,
) -> Result<(), Stopped> {
    let mut state = State::default();
    for (number, row) in state.resume(shared.catalogue.faults().await?, open) {
        shared.catalogue.put_fault(number, row).await?;
    }
    let mut actor =
        Actor { shared: shared.clone(), state, examined: BTreeSet::new(), workers: FuturesUnordered::new() };
    let mut tick = Box::pin(shared.common.environment.sleep(TICK));
    loop {
        actor.employ();
        select! {
            notice = notices.recv() => match notice {
                Some(notice) => actor.hear(notice).await?,
                None => return Ok(()),
            },
            done = next(&mut actor.workers) => {
                let (task, rebuilt) = done;
                actor.done(task, rebuilt?).await?;
            },
            () = &mut tick => {
                actor.state.tick();
                actor.shared.suspects.wait(TICK);
                actor.shared.suspects.all().into_iter().for_each(|provider| actor.examine(provider, Look::Suspected));
                tick = Box::pin(shared.common.environment.sleep(TICK));
            },
        }
    }
}

async fn next<T>(workers: &mut FuturesUnordered<BoxFuture<'static, T>>) -> T {
    match workers.next().await {
        Some(done) => done,
        None => futures::future::pending().await,
    }
}

/// Why a provider is examined.
#[derive(Clone, Copy)]
enum Look {
    /// It is late on a draw.
    Late,
    /// A draw found reads missing.
    Failed,
    /// It is suspected already.
    Suspected,
}

impl Actor {
    fn employ(&mut self) {
        while self.workers.len() < REPAIRS_AT_ONCE {
            let Some(task) = self.state.pop() else { break };
            let (shared, owed) = (self.shared.clone(), self.state.owed(&task));
            self.workers.push(Box::pin(async move { (task, rebuild(shared, task, owed).await) }));
        }
        let open = u32::try_from(self.state.open()).unwrap_or(u32::MAX);
        self.shared.repairs_open.store(open, Ordering::Relaxed);
    }

    async fn hear(&mut self, notice: Notice) -> Result<(), Stopped> {
        match notice {
            Notice::Incomplete { file, segment } => self.state.push((file, segment)),
            Notice::Unread { agreement, sequence } => {
                self.lost(agreement, vec![sequence], FoundBy::Read).await?;
            }
            Notice::Lost { agreement, sequences, found_by } => {
                self.lost(agreement, sequences, found_by).await?
            }
            Notice::Late(provider) => self.examine(provider, Look::Late),
            Notice::Failed(provider) => self.examine(provider, Look::Failed),
            Notice::Silent(provider) => self.silent(provider),
            Notice::Answers(provider) => self.answers(&provider).await?,
            Notice::Overdue(provider, shards) => self.overdue(provider, shards).await?,
            Notice::Examined(provider) => drop(self.examined.remove(&provider)),
            Notice::Bad(provider, names) => self.bad(&provider, &names.into_iter().collect()).await?,
        }
        Ok(())
    }

    /// Examines a provider, unless an examination of it is running.
    fn examine(&mut self, provider: Account, look: Look) {
        if !self.examined.insert(provider) {
            return;
        }
        let shared = self.shared.clone();
        self.shared.common.environment.spawn(async move {
            match look {
                Look::Late => examine::late(shared.clone(), provider).await,
                Look::Failed => examine::failed(shared.clone(), provider).await,
                Look::Suspected => examine::suspected(shared.clone(), provider).await,
            }
            shared.notice_surely(Notice::Examined(provider)).await;
        });
    }

    /// Suspects a provider that does not answer: it gets no new shards, and those that it holds still count.
    fn silent(&self, provider: Account) {
        let trusted = self.shared.known(&provider).is_some_and(|known| known.trusted);
        if !self.shared.suspects.suspect(provider, trusted) {
            return;
        }
        self.shared.trust(&provider, false);
        let (whole, short) = (self.shared.grace.whole.as_secs(), self.shared.grace.short.as_secs());
        tracing::warn!(%provider, seconds = whole, seconds_near_the_fewest = short,
            "a provider does not answer, or serves none of its shards; they still count, and are \
             rebuilt elsewhere if it stays silent");
    }

    /// Withdraws the suspicion of a provider that serves again: it lost nothing.
    async fn answers(&mut self, provider: &Account) -> Result<(), Stopped> {
        let Some((silent, was_trusted)) = self.shared.suspects.withdraw(provider) else { return Ok(()) };
        if was_trusted {
            self.shared.trust(provider, true);
        }
        tracing::info!(%provider, seconds = silent.as_secs(), "a provider that was silent serves again; it keeps its shards");
        if let Some((number, row)) = self.state.withdraw(provider) {
            self.write(Some(number), row).await?;
        }
        Ok(())
    }

    /// Has shards of a provider that was silent for too long rebuilt beside it.
    async fn overdue(&mut self, provider: Account, mut shards: Vec<(Task, u8)>) -> Result<(), Stopped> {
        shards.retain(|(task, position)| !self.state.is_owed(task, *position, &provider));
        if shards.is_empty() || self.shared.suspects.silent_for(&provider).is_none() {
            return Ok(());
        }
        tracing::warn!(%provider, shards = shards.len(),
            "a provider stays silent; its shards are rebuilt elsewhere, and count at it until then");
        let (number, row) = self.state.lost(provider, FoundBy::Late, self.shared.round(), &shards);
        self.write(number, row).await?;
        shards.into_iter().for_each(|(task, _)| self.state.push(task));
        Ok(())
    }

    async fn bad(&mut self, provider: &Account, names: &BTreeSet<Hash>) -> Result<(), Stopped> {
        for agreement in self.shared.agreements_with(provider) {
            let live = agreement.with_state(|state| state.live());
            let lost = live.iter().filter(|entry| names.contains(&entry.name)).map(|entry| entry.sequence);
            self.lost(agreement.number, lost.collect(), FoundBy::Scrub).await?;
        }
        Ok(())
    }

    async fn lost(&mut self, agreement: u32, sequences: Vec<u64>, found_by: FoundBy) -> Result<(), Stopped> {
        let Some(agreement) = self.shared.agreement(agreement) else { return Ok(()) };
        let spared = spared(&self.shared, &agreement, sequences).await?;
        let entries = agreement.drop_entries(spared).await?;
        if entries.is_empty() {
            return Ok(());
        }
        let provider = agreement.provider();
        let shards: Vec<(Task, u8)> =
            entries.iter().map(|entry| ((entry.file, entry.segment), entry.position)).collect();
        tracing::warn!(%provider, shards = shards.len(), ?found_by, "a provider lost shards; they are rebuilt elsewhere");
        let (number, row) = self.state.lost(provider, found_by, self.shared.round(), &shards);
        self.write(number, row).await?;
        shards.into_iter().for_each(|(task, _)| self.state.push(task));
        Ok(())
    }

    async fn write(&mut self, number: Option<u64>, row: FaultRow) -> Result<(), Stopped> {
        match number {
            Some(number) => self.shared.catalogue.put_fault(number, row).await,
            None => {
                let number = self.shared.catalogue.add_fault(row).await?;
                self.state.numbered(&row.provider, number);
                Ok(())
            }
        }
    }

    async fn done(&mut self, task: Task, rebuilt: Rebuilt) -> Result<(), Stopped> {
        for (number, row) in self.state.done(task, &rebuilt) {
            self.write(Some(number), row).await?;
        }
        Ok(())
    }
}

/// The entries that can be given up, because enough other holders of their segments are free of
/// suspicion. The others are kept: a damaged shard may be all that is left.
async fn spared(shared: &Shared, agreement: &OwnAgreement, sequences: Vec<u64>) -> Result<Vec<u64>, Stopped> {
    let live = agreement.with_state(|state| state.live());
    let wanted: BTreeSet<u64> = sequences.into_iter().collect();
    let mut spared = Vec::new();
    for entry in live.into_iter().filter(|entry| wanted.contains(&entry.sequence)) {
        let row = shared.catalogue.segment(entry.file, entry.segment).await?;
        let suffices = row.is_none_or(|row| {
            let position = usize::from(entry.position);
            let is_it = row
                .holder(position)
                .is_some_and(|h| (h.agreement, h.sequence) == (agreement.number, entry.sequence));
            suspects::suffice(&examine::places(shared, &row), is_it.then_some(position))
        });
        if suffices {
            spared.push(entry.sequence);
        } else {
            tracing::error!(provider = %agreement.provider(), segment = entry.segment,
                "a shard is damaged and too few others can be read; its row is kept until they \
                 answer or its provider recovers");
        }
    }
    Ok(spared)
}
