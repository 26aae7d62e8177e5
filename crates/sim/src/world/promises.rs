//! Checks the promises of the network after all faults have ended.

use super::{Failure, World, account, user_key};
use crate::plan::{JUDGED_WITHIN, Lie, Process, Sample};
use commonware_macros::select;
use commonware_runtime::{Clock as _, deterministic::FaultConfig};
use posync_protocol::{Amount, ledger::Event, record::AccountState};
use std::{collections::BTreeSet, time::Duration};

/// Time that a reader waits for an answer, and its pause before the next attempt.
const ASKS: Duration = Duration::from_secs(20);
const AGAIN: Duration = Duration::from_secs(2);

impl World<'_> {
    /// Ends every fault, then checks that the network kept everything it acknowledged.
    pub(super) async fn promises(&mut self) -> Result<(), Failure> {
        self.end_faults().await;
        let start = self.lasting.judge.height();
        for sample in self.lasting.acknowledged.clone() {
            self.must_read(&sample, start).await?;
        }
        // One block more than the newest puts the last payments and requests on the ledger.
        self.catch_up().await?;
        self.check_payments()?;
        self.check_endings()
    }

    async fn end_faults(&mut self) {
        self.loiterers.drain(..).for_each(|task| task.abort());
        *self.context.storage_fault_config().write() = FaultConfig::default();
        self.lasting.relays.iter().for_each(|relay| relay.say(Lie::Nothing, None));
        for disk in self.lasting.disks.values() {
            disk.fill(false);
            disk.allow();
        }
        let plan = &self.lasting.plan;
        let all: Vec<Process> = (0..plan.authorities)
            .map(Process::Authority)
            .chain((0..plan.providers).map(Process::Provider))
            .chain((0..plan.gateways).map(Process::Gateway))
            .collect();
        for process in all {
            if !self.lasting.up.contains(&process) {
                self.start_process(process);
            }
            self.resume(process).await;
            self.rejoin(process).await;
        }
    }

    /// Asks for a file until it arrives or the time is over.
    async fn must_read(&mut self, sample: &Sample, start: u64) -> Result<(), Failure> {
        loop {
            let read = select! {
                read = self.get(sample) => read,
                _ = self.context.sleep(ASKS) => Err("no answer in 20 s".into()),
            };
            let Err(reason) = read else { return Ok(()) };
            let blocks = self.lasting.judge.height() - start;
            tracing::info!(name = sample.name, blocks, reason, "not read yet");
            if blocks >= JUDGED_WITHIN {
                return Err(Failure::Lost { name: sample.name, blocks, reason });
            }
            self.context.sleep(AGAIN).await;
            self.catch_up().await?;
        }
    }

    /// The payee must have exactly the payments that were acknowledged to the sender.
    fn check_payments(&self) -> Result<(), Failure> {
        let key = AccountState::key(&account(&user_key(1)));
        let state: AccountState = self.lasting.judge.ledger.record(key).unwrap_or_default();
        let paid = u64::from(self.lasting.paid);
        let expected = super::FUNDS.checked_add(Amount::sync(paid)).expect("below all money");
        if state.balance == expected {
            return Ok(());
        }
        let balance = state.balance;
        Err(Failure::NotOnce(format!("{paid} payments of 1 SYNC were acknowledged, the payee has {balance}")))
    }

    /// No agreement may have made the same change twice.
    fn check_endings(&self) -> Result<(), Failure> {
        let mut seen = BTreeSet::new();
        for (height, event) in &self.lasting.events {
            let Event::Agreement { agreement, change, .. } = event else { continue };
            if !seen.insert((*agreement, format!("{change:?}"))) {
                return Err(Failure::NotOnce(format!("{change:?} of {agreement:?} again in block {height}")));
            }
        }
        Ok(())
    }
}
