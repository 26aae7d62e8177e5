//! The task that takes the samples that are due.

use super::{
    IN_TIME_MS, SPREAD_MS, Sample,
    names::{self, Known, Named},
    state::{due, found, parts},
};
use crate::{
    agreement::{Arrived, OwnAgreement, Part},
    agreements::state::Stage,
    ledger::Ledger,
    peer::Error,
    shared::Shared,
};
use commonware_utils::channel::mpsc;
use commonware_utils::sync::Mutex;
use futures::future::try_join_all;
use posync_protocol::{Account, Hash, limits::Parameters};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// Pause between two checks of the height.
const PAUSE: Duration = Duration::from_millis(500);
/// Epochs after which names are looked up again.
const NAMES_EPOCHS: u64 = 2;
/// Most attempts of one sample: when the provider no longer owes a shard, others are tried.
const TRIES: usize = 3;
/// Small shards requested at once, so that a whole sample arrives in time over a line of 200 ms.
const AT_ONCE: usize = 16;

/// A known shard and the part of it to read.
type Read = (Named, Part);
/// The shard that could not be read, and the error.
type Failed = (Named, Error);

/// The inputs and shared state of the sampling task.
pub struct Sampler {
    /// Shared state with the agreements.
    pub shared: Arc<Shared>,
    /// Reads of the ledger, from which names are learned.
    pub ledger: Ledger,
    /// Parameters from the genesis.
    pub parameters: Parameters,
    /// Secret from which the moments derive.
    pub secret: Hash,
    /// Receiver of every sample; `None` at a gateway, which only uses them itself.
    pub samples: Option<mpsc::Sender<Sample>>,
    /// Known shards, by provider.
    pub names: Mutex<BTreeMap<Account, Known>>,
}

/// Runs the task; it does not return.
pub async fn start(sampler: Arc<Sampler>) {
    let shared = sampler.shared.clone();
    let mut seen = shared.height.load(Ordering::Relaxed);
    loop {
        let height = shared.height.load(Ordering::Relaxed);
        let providers: BTreeSet<Account> =
            shared.agreements().iter().map(|agreement| agreement.provider()).collect();
        sampler.names().retain(|provider, _| providers.contains(provider));
        for provider in providers {
            for epoch in due(&sampler.secret, &provider, seen, height, &sampler.parameters) {
                shared.common.environment.spawn(sampler.clone().one(provider, epoch));
            }
        }
        seen = seen.max(height);
        shared.common.environment.sleep(PAUSE).await;
    }
}

impl Sampler {
    fn names(&self) -> commonware_utils::sync::MutexGuard<'_, BTreeMap<Account, Known>> {
        self.names.lock()
    }

    async fn one(self: Arc<Self>, provider: Account, epoch: u64) {
        let environment = &self.shared.common.environment;
        let random = environment.random();
        let late = u64::from(u16::from_be_bytes([random[0], random[1]])) % SPREAD_MS;
        environment.sleep(Duration::from_millis(late)).await;
        let open = |agreement: &Arc<OwnAgreement>| {
            Stage::of(&agreement.terms()) == Stage::Open && !agreement.is_closed()
        };
        let Some(agreement) = self.shared.agreements_with(&provider).into_iter().rfind(open) else { return };
        // A read that starts too late would be paid too late to be redeemed within its epoch.
        let learned =
            environment.within(Duration::from_millis(SPREAD_MS), self.learn(&provider, epoch)).await;
        if let Some(Err(error)) = learned {
            tracing::debug!(%error, "newer names of shards could not be read");
        }
        if let Some(sample) = self.take(&agreement, epoch).await
            && let Some(samples) = &self.samples
            && samples.try_send(sample).is_err()
        {
            tracing::warn!("a sample is dropped: the auditor's queue is full, or the auditor is stopping");
        }
    }

    /// Takes a sample under `agreement`; `None` if no shard is known that could be read.
    async fn take(&self, agreement: &Arc<OwnAgreement>, epoch: u64) -> Option<Sample> {
        let provider = agreement.provider();
        for _ in 0..TRIES {
            let known = self.names().get(&provider).cloned().unwrap_or_default();
            let parts = parts(&known.shards, &self.shared.common.environment.random());
            let (first, rest) = parts.split_first()?;
            let result = self.in_time(agreement, first, rest).await;
            let result = result.unwrap_or(Err((first.0, Error::Slow(provider))));
            if let Err((named, error)) = &result {
                tracing::debug!(%error, "a sample failed");
                // The consumer's own bound says nothing about the provider.
                if matches!(error, Error::Paced(_)) {
                    return None;
                }
                agreement.peer.doubt();
                if error.says_loss() && !self.is_owed(&provider, named).await {
                    let forget = |known: &mut Known| known.shards.retain(|old| old.root != named.root);
                    self.names().get_mut(&provider).into_iter().for_each(forget);
                    continue;
                }
            }
            let found = found(&result.map_err(|(_, error)| error));
            let (agreement, number) = (agreement.id, agreement.number);
            return Some(Sample { epoch, provider, agreement, number, found });
        }
        None
    }

    /// Returns true if a provider must have a shard; false if that is not known.
    async fn is_owed(&self, provider: &Account, named: &Named) -> bool {
        names::is_owed(&self.ledger, provider, named, &self.parameters).await.unwrap_or(false)
    }

    /// Reads the parts; `None` after [`IN_TIME_MS`]. Bytes that arrive later are paid all the same.
    async fn in_time(
        &self,
        agreement: &Arc<OwnAgreement>,
        first: &Read,
        rest: &[Read],
    ) -> Option<Result<Arrived, Failed>> {
        let environment = &self.shared.common.environment;
        environment.within(Duration::from_millis(IN_TIME_MS), self.read(agreement, first, rest)).await
    }

    /// Reads the first part alone, as its latency counts, then the others a few at once.
    async fn read(
        &self,
        agreement: &Arc<OwnAgreement>,
        first: &Read,
        rest: &[Read],
    ) -> Result<Arrived, Failed> {
        let environment = &self.shared.common.environment;
        let asked = environment.now();
        let one = |(named, part): &Read| {
            let (named, read) = (*named, agreement.read(*part));
            async move { read.await.map_err(|error| (named, error)) }
        };
        let mut all = one(first).await?;
        for few in rest.chunks(AT_ONCE) {
            for arrived in try_join_all(few.iter().map(one)).await? {
                all.bytes.extend(arrived.bytes);
                all.whole = environment.now().duration_since(asked).unwrap_or_default();
            }
        }
        Ok(all)
    }

    async fn learn(&self, provider: &Account, epoch: u64) -> Result<(), crate::ledger::Error> {
        let known = self.names().get(provider).cloned();
        let known = match known {
            Some(known) if !known.shards.is_empty() && epoch < known.epoch + NAMES_EPOCHS => return Ok(()),
            known => known.unwrap_or_default(),
        };
        let known = names::learn(&self.ledger, provider, known, epoch, &self.parameters).await?;
        self.names().insert(*provider, known);
        Ok(())
    }
}
