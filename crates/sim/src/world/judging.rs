//! Hands every finalized block to the judge, and compares the authorities' stores with its state.

use super::{Failure, Report, World, account};
use crate::{
    machine::Disk,
    plan::{Condition, Process},
};
use commonware_runtime::Clock as _;
use posync_node::handle::{Handle, ReadError};
use posync_protocol::{
    Account, Hash, Key,
    limits::READ_KEYS_MAX,
    record::{AccountState, Seat},
};
use std::time::Duration;

/// Interval at which the world checks a condition.
pub(super) const LOOK: Duration = Duration::from_millis(20);
/// Pause before a process whose disk failed starts again.
const RESTART: Duration = Duration::from_secs(1);
/// Checks in a row without a new block after which a plan has stalled: a minute.
const LOOKS_MAX: u32 = 3_000;

impl World<'_> {
    /// Judges the blocks up to `height`, as they become final.
    pub(super) async fn reach(&mut self, height: u64) -> Result<(), Failure> {
        let mut looks = 0;
        while self.lasting.judge.height() < height {
            self.check_ended().await?;
            if self.judge_next().await? {
                looks = 0;
            } else if looks == LOOKS_MAX {
                return Err(Failure::Stalled(self.lasting.judge.height()));
            } else {
                looks += 1;
                self.context.sleep(LOOK).await;
            }
        }
        Ok(())
    }

    /// Judges the blocks that any running authority has applied, and one more. The judge falls behind while a step
    /// waits for an answer.
    pub(super) async fn catch_up(&mut self) -> Result<(), Failure> {
        let newest = self.handles().iter().map(|(_, handle)| handle.applied()).max().unwrap_or(0);
        self.reach(newest.max(self.lasting.judge.height()) + 1).await
    }

    /// Judges blocks until `condition` holds.
    pub(super) async fn until(
        &mut self,
        step: usize,
        condition: Condition,
        last: u64,
    ) -> Result<(), Failure> {
        while !condition(&self.lasting.events) {
            let height = self.lasting.judge.height();
            if height >= last {
                return Err(Failure::Never(step, last));
            }
            self.reach(height + 1).await?;
        }
        Ok(())
    }

    /// Fails if a process ended by itself. One whose disk failed may, and starts again like under a supervisor.
    async fn check_ended(&mut self) -> Result<(), Failure> {
        loop {
            let ended = self.ended.lock().pop();
            let Some((process, reason)) = ended else { break };
            if !self.lasting.disks.get(&process).is_some_and(Disk::has_failed) {
                return Err(Failure::Ended(reason));
            }
            tracing::info!(?process, reason, "its disk failed; it starts again");
            self.context.sleep(RESTART).await;
            self.crash(process).await;
            self.start_process(process);
        }
        match self.running.iter_mut().find_map(|(process, running)| running.has_ended().then_some(process)) {
            Some(process) => Err(Failure::Ended(format!("{process:?} ended by itself"))),
            None => Ok(()),
        }
    }

    /// Handles of the running authorities whose state is readable.
    pub(super) fn handles(&mut self) -> Vec<(u8, Handle)> {
        let mut handles = Vec::new();
        for (process, running) in &mut self.running {
            let Process::Authority(index) = process else { continue };
            handles.extend(running.handle().map(|handle| (*index, handle)));
        }
        handles
    }

    /// Judges the next block if some authority has it. Returns false if none has.
    async fn judge_next(&mut self) -> Result<bool, Failure> {
        let next = self.lasting.judge.height() + 1;
        for (_, handle) in self.handles() {
            if handle.applied() < next {
                continue;
            }
            if let (Some(header), Some(body)) = (handle.header(next).await, handle.body(next).await) {
                let outcome = self.lasting.judge.block(&header, &body)?;
                self.lasting.events.extend(outcome.events.into_iter().map(|event| (next, event)));
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Fails if an authority accuses an honest one.
    pub(super) fn check_accused(&mut self) -> Result<(), Failure> {
        for (authority, handle) in self.handles() {
            let accused = handle.accused();
            if let Some(seat) = accused.into_iter().find(|seat| !self.lasting.liars.contains(seat)) {
                return Err(Failure::Accused { authority, seat });
            }
        }
        Ok(())
    }

    fn seats(&self) -> Vec<(Account, Seat, AccountState)> {
        let ledger = &self.lasting.judge.ledger;
        let seat = |account: Account| {
            let seat = ledger.record(Seat::key(&account)).expect("every authority has a seat");
            (account, seat, ledger.record(AccountState::key(&account)).unwrap_or_default())
        };
        self.lasting.seats.iter().map(|keys| seat(account(&keys.key))).collect()
    }

    /// Compares the store of every running authority with the judge's state, record by record.
    pub(super) async fn report(&mut self) -> Result<Report, Failure> {
        self.struck();
        let mut state_root = [0; 32];
        for (index, handle) in self.handles() {
            state_root = self.compare(index, &handle).await?;
        }
        Ok(Report {
            height: self.lasting.judge.height(),
            digest: self.lasting.judge.digest(),
            state_root,
            seats: self.seats(),
            audit: self.context.auditor().state(),
            events: std::mem::take(&mut self.lasting.events),
            state: self.lasting.judge.ledger.state.clone(),
            faults: std::mem::take(&mut self.lasting.faults),
            refused: self.lasting.refused,
        })
    }

    async fn compare(&mut self, authority: u8, handle: &Handle) -> Result<Hash, Failure> {
        'again: for _ in 0..LOOKS_MAX {
            // A state is compared while it is the newest one; the next block follows in a quarter second.
            self.reach(handle.applied().max(self.lasting.judge.height())).await?;
            let height = self.lasting.judge.height();
            let differs = |reason: String| Failure::Differs { authority, height, reason };
            let records: Vec<_> = self.lasting.judge.records().collect();
            let mut state_root = [0; 32];
            for group in records.chunks(READ_KEYS_MAX) {
                let keys: Vec<Key> = group.iter().map(|(key, _)| *key).collect();
                let read = match handle.read(keys).await {
                    Ok(read) if read.header.height == height => read,
                    Ok(_) | Err(ReadError::Moved) => {
                        self.context.sleep(LOOK).await;
                        continue 'again;
                    }
                    Err(error) => return Err(differs(error.to_string())),
                };
                if read.header.digest() != self.lasting.judge.digest() {
                    return Err(differs("it has another block".into()));
                }
                if read.records.iter().map(|record| record.slot).ne(group.iter().map(|(_, slot)| Some(*slot)))
                {
                    return Err(differs("its store holds another record than the blocks say".into()));
                }
                state_root = read.header.state_root;
            }
            return Ok(state_root);
        }
        Err(Failure::Stalled(self.lasting.judge.height()))
    }
}
