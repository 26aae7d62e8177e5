//! The auditor's part of service quality: reads like a consumer, commits, then reveals.
//!
//! ```text
//!   group of 16 epochs ─► an account of its own ─► [`crate::account`]: agreements, samples
//!                              ▲ one fixed sum                      │
//!   seat's account ────────────┘                                    ▼
//!        ▲                                       state: what the samples of the drawn say
//!        └── last round: AuditCommit, then AuditReveal ◄── rounds (disk first) ◄──┘
//!                                   └── not backed yet: again, while the first round lasts
//! ```
//!
//! To providers an auditor is a consumer that only reads. It opens agreements without leaves by the same
//! code as a gateway, with an egress quota of just what it reads, since unused room is burned. It takes
//! the same reads, at moments of the same kind, from every provider it has an agreement with, drawn or
//! not. Its findings stay secret until the reveal; that exposes the group's account, so the next group
//! reads under another one.
//!
//! Invariants
//! 1. A commitment is on disk before it is sent, and an epoch is never committed to twice: two different
//!    commitments would cost the seat's bond. An epoch that began before this process has none.
//! 2. A reading account is funded by transfers of one size and used for nothing else.
//! 3. Nothing here delays the authority: a failure costs at most reports.

mod group;
mod rounds;
mod seat;
pub mod state;

use crate::{
    Error, account::Means, agreements::Policy, ledger::Error as LedgerError, limits::MAILBOX, sample::Sample,
    volume::Volume,
};
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_macros::select;
use commonware_runtime::{Clock, Metrics, Network, Resolver, Spawner, Storage};
use commonware_utils::channel::mpsc;
use group::Groups;
use posync_alert::Alerts;
use posync_client::{channel::SharedNetwork, connection::Endpoint, light::Light, watch};
use posync_protocol::{Account, limits::Parameters};
use rand_core::CryptoRng;
use rounds::Rounds;
use seat::Seat;

/// Configuration of an auditor, given by its authority.
#[derive(Clone)]
pub struct Config {
    /// The seat's key. Only the auditor may spend from its account.
    pub key: PrivateKey,
    /// Prefix of its partitions in the runtime's storage.
    pub partition: String,
    /// Nodes to ask, in turn, the seat's own node first.
    pub nodes: Vec<Endpoint>,
    /// Verifies the nodes' answers. Its memory holds the certificates that the seat's own node has verified.
    pub light: Light,
    /// Parameters from the genesis.
    pub parameters: Parameters,
    /// Heights of final blocks, as the seat's own node applies them.
    pub heights: watch::Receiver<u64>,
    /// Receives the alerts about its own disk.
    pub alerts: Alerts,
}

impl Config {
    /// The configuration of a consumer that only reads.
    fn means(&self, key: PrivateKey, partition: String) -> Means {
        Means {
            key,
            partition,
            nodes: self.nodes.clone(),
            // Each account has its own partitions, and its node runs beside it, so no floor is kept.
            keeps_floor: false,
            light: self.light.clone(),
            parameters: self.parameters,
            policy: Policy::to_read(&self.parameters, state::READ_EPOCHS, state::READ_BYTES),
            // A reading account stores nothing that could be lost.
            alerts: Alerts::default(),
            // Its node takes no part while the volume is full.
            volume: Volume::default(),
        }
    }
}

/// Runs an auditor until the runtime stops, its disk fails or its node ends.
///
/// # Errors
/// [`Error`].
pub async fn run<E, N>(context: E, network: N, config: Config) -> Result<(), Error>
where
    E: Spawner + Clock + Storage + Metrics + CryptoRng + Resolver,
    N: Network,
{
    let mut stopped = context.stopped();
    let network = SharedNetwork::new(network);
    let rounds = Rounds::open(context.child("rounds"), &config.partition).await?;
    let (sampled, samples) = mpsc::channel(MAILBOX);
    let seat = Seat::new(&context, &network, &config);
    let heights = config.heights.clone();
    let groups = Groups::new(context, network, config.clone(), sampled);
    let auditor = Auditor {
        seat,
        rounds,
        groups,
        samples,
        found: Vec::new(),
        parameters: config.parameters,
        began: None,
        done: state::Done::default(),
        revealed: None,
    };
    tracing::info!(seat = %Account::of(&config.key.public_key()), "the auditor started");
    select! {
        _ = &mut stopped => Ok(()),
        ended = auditor.follow(heights) => ended,
    }
}

struct Auditor<E: Spawner + Clock + Storage + Metrics + CryptoRng + Resolver, N: Network> {
    seat: Seat,
    rounds: Rounds<E>,
    groups: Groups<E, N>,
    samples: mpsc::Receiver<Sample>,
    /// Samples of this epoch and the previous one.
    found: Vec<Sample>,
    parameters: Parameters,
    /// The epoch in which this process started.
    began: Option<u64>,
    done: state::Done,
    /// The last reveal of reports.
    revealed: Option<state::Revealed>,
}

impl<E, N> Auditor<E, N>
where
    E: Spawner + Clock + Storage + Metrics + CryptoRng + Resolver,
    N: Network,
{
    async fn follow(mut self, mut heights: watch::Receiver<u64>) -> Result<(), Error> {
        loop {
            let height = *heights.borrow_and_update();
            self.step(height).await?;
            if heights.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// Does the task that is due at a height.
    ///
    /// # Errors
    /// A disk failure: without the disk an epoch could be committed to twice.
    async fn step(&mut self, height: u64) -> Result<(), Error> {
        let epoch = self.parameters.epoch(height);
        self.began.get_or_insert(epoch);
        self.groups.advance(height);
        while let Ok(sample) = self.samples.try_recv() {
            self.found.push(sample);
        }
        self.found.retain(|sample| sample.epoch + 1 >= epoch);
        match self.done.next(height, &self.parameters) {
            Some(state::Due::Groups) => self.groups.keep(epoch, &self.seat).await,
            Some(state::Due::Reveal) => self.reveal(epoch, height),
            Some(state::Due::Draw) => self.draw(epoch).await,
            Some(state::Due::Commit) => self.commit(epoch).await?,
            None => {}
        }
        if let Some(revealed) = self.revealed.filter(|revealed| revealed.is_due(height, &self.parameters))
            && let Err(error) = self.reveal_again(revealed, height).await
        {
            tracing::debug!(%error, epoch = revealed.epoch, "the reports that count could not be read");
        }
        Ok(())
    }

    /// Asks for agreements with the drawn providers, where there are none yet.
    async fn draw(&mut self, epoch: u64) {
        match self.seat.assigned(epoch).await {
            Ok(drawn) => self.groups.need(epoch, drawn.iter().map(|drawn| drawn.provider).collect()),
            Err(error) => tracing::debug!(%error, epoch, "the drawn providers could not be read yet"),
        }
    }

    /// Commits to the reports of this epoch's samples.
    async fn commit(&mut self, epoch: u64) -> Result<(), Error> {
        if self.rounds.of(epoch).is_none() {
            if self.began.is_none_or(|began| began >= epoch) {
                return Ok(());
            }
            let round = match self.seat.assigned(epoch).await {
                Ok(drawn) => self.round(epoch, &drawn),
                Err(error) => {
                    tracing::warn!(%error, epoch,
                        "no reports for this epoch: the drawn providers could not be read");
                    None
                }
            };
            let Some(round) = round else { return Ok(()) };
            self.rounds.keep(epoch, round).await?;
        }
        if let Some(round) = self.rounds.of(epoch) {
            self.seat.commit(round.commit);
        }
        Ok(())
    }

    fn round(&self, epoch: u64, drawn: &[state::Drawn]) -> Option<rounds::Round> {
        let (master, salt) = (self.groups.master(epoch)?, self.groups.random(epoch)?);
        let auditor = self.seat.account;
        let report = |drawn: &state::Drawn| {
            let of = |s: &&Sample| s.epoch == epoch && s.provider == drawn.provider && self.groups.took(s);
            let samples = self.found.iter().filter(of);
            let (report, number) = state::report(drawn, samples)?;
            let session = crate::agreement::session_key(&master, number);
            Some(report.signed(&session, &self.seat.chain, epoch, &auditor))
        };
        let reports: Vec<_> = drawn.iter().filter_map(report).collect();
        tracing::info!(epoch, reports = reports.len(), drawn = drawn.len(), "the epoch's reads are over");
        self.seat.round(epoch, salt, reports)
    }

    fn reveal(&mut self, epoch: u64, height: u64) {
        let before = epoch.checked_sub(1).and_then(|before| self.rounds.of(before));
        if let Some(round) = before {
            self.seat.reveal(round.reveals.to_vec());
            self.revealed = Some(state::Revealed { epoch: round.epoch, height, times: 1 });
        }
    }

    /// Reveals again those batches in which a report lacked backing that is there now: a provider may
    /// redeem shortly after the reveal (SQ-4).
    async fn reveal_again(&mut self, revealed: state::Revealed, height: u64) -> Result<(), LedgerError> {
        let Some(round) = self.rounds.of(revealed.epoch) else { return Ok(()) };
        let mut again = Vec::new();
        for batch in round.reveals.iter() {
            if state::reveals_again(&self.seat.fates(revealed.epoch, &batch.reports).await?) {
                again.push(batch.clone());
            }
        }
        if !again.is_empty() {
            tracing::info!(epoch = revealed.epoch, batches = again.len(), "reports are revealed again");
            self.seat.reveal(again);
            self.revealed = Some(state::Revealed { height, times: revealed.times + 1, ..revealed });
        }
        Ok(())
    }
}
