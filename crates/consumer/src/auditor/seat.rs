//! The seat's account: the providers it reports on, and the operations that only it may send.

use super::{
    Config,
    rounds::Round,
    state::{Drawn, Fate},
};
use crate::{
    environment::Environment,
    ledger::{Error, Ledger, decode},
};
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_runtime::{Clock, Network, Resolver, Spawner};
use posync_client::{account::Submitter, channel::SharedNetwork, connection::Connection, light::Light};
use posync_protocol::{
    Account, Amount, Body, Bounded, Code, Hash,
    limits::READ_KEYS_MAX,
    operation::{AuditCommit, AuditReveal, Report, Transfer, digest_of, reveals},
    record::{self, AccountState, ProviderAt, Reports, ServiceRound, System, Usage},
};
use rand_core::CryptoRng;

/// A handle to the seat's account on the ledger.
#[derive(Clone)]
pub(super) struct Seat {
    /// The seat's account, which signs its reports.
    pub(super) account: Account,
    /// SHA-256 hash of the genesis.
    pub(super) chain: Hash,
    key: PrivateKey,
    ledger: Ledger,
    environment: Environment,
}

impl Seat {
    /// A handle that is not connected yet.
    pub(super) fn new<E, N>(context: &E, network: &SharedNetwork<N>, config: &Config) -> Self
    where
        E: Spawner + Clock + CryptoRng + Resolver,
        N: Network,
    {
        let (key, chain) = (config.key.clone(), config.chain);
        let (dialing, light) = (context.child("seat"), Light::new(chain, config.network_key));
        let nodes = config.nodes.clone();
        // The seat's own node comes first: it is the first to know what is final.
        let connection = Connection::new(dialing, network.clone(), key.clone(), nodes, light);
        let connection = connection.beginning_at(0);
        let submitter = Submitter::new(connection.clone(), key.clone(), config.parameters);
        let ledger = Ledger::new(connection, submitter);
        let account = Account::of(&key.public_key());
        Self { account, chain, key, ledger, environment: Environment::new(context) }
    }

    /// The providers that the epoch's seed draws for this seat; empty if the seat is jailed.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub(super) async fn assigned(&self, epoch: u64) -> Result<Vec<Drawn>, Error> {
        let keys = vec![record::Seat::key(&self.account), ServiceRound::of(epoch)];
        let (_, slots) = self.ledger.read(keys).await?;
        let seat: Option<record::Seat> = decode(slots.first().copied().flatten())?;
        let round: Option<ServiceRound> = decode(slots.get(1).copied().flatten())?;
        let seat = seat.filter(|seat| seat.jailed.is_none());
        let Some((seat, round)) = seat.zip(round.filter(|round| round.epoch == epoch)) else {
            return Ok(Vec::new());
        };
        let assigned: Vec<(u16, u32)> = round.assigned(seat.index).collect();
        let mut drawn = Vec::with_capacity(assigned.len());
        for group in assigned.chunks(READ_KEYS_MAX) {
            let keys = group.iter().map(|(_, index)| ProviderAt::key(*index)).collect();
            let (_, slots) = self.ledger.read(keys).await?;
            for ((stratum, index), slot) in group.iter().zip(slots) {
                let provider = decode::<ProviderAt>(slot)?.and_then(|at| at.account);
                let auditor = round.auditor((*stratum).into(), seat.index);
                drawn.extend(provider.zip(auditor).map(|(provider, auditor)| Drawn {
                    provider,
                    stratum: *stratum,
                    index: *index,
                    auditor,
                }));
            }
        }
        Ok(drawn)
    }

    /// The commitment and the reveals of signed reports; `None` if there are none.
    pub(super) fn round(&self, epoch: u64, salt: Hash, reports: Vec<Report>) -> Option<Round> {
        let reveals = reveals(epoch, salt, reports)?;
        let digest = digest_of(&reveals, &self.account)?;
        let commit = AuditCommit::signed(&self.key, &self.chain, epoch, digest);
        Some(Round { epoch, commit, reveals: Bounded::new(reveals)? })
    }

    /// Sends a commitment, in the background.
    pub(super) fn commit(&self, commit: AuditCommit) {
        self.send("a commitment", vec![Body::AuditCommit(commit)]);
    }

    /// Reveals the reports of a commitment, in the background.
    pub(super) fn reveal(&self, reveals: Vec<AuditReveal>) {
        self.send("reports", reveals.into_iter().map(Body::AuditReveal).collect());
    }

    /// The state on the ledger of revealed reports, in the order of `reports`.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub(super) async fn fates(&self, epoch: u64, reports: &[Report]) -> Result<Vec<Fate>, Error> {
        let mut fates = Vec::with_capacity(reports.len());
        for few in reports.chunks(READ_KEYS_MAX / 2) {
            let keys = few.iter().flat_map(|report| {
                let Report { provider, auditor, slot, .. } = report;
                [Reports::of(provider, epoch, *auditor), Usage::key(provider, *slot)]
            });
            let (_, slots) = self.ledger.read(keys.collect()).await?;
            for (report, two) in few.iter().zip(slots.chunks(2)) {
                let at = |place: usize| two.get(place).copied().flatten();
                let (found, usage) = (decode::<Reports>(at(0))?, decode::<Usage>(at(1))?);
                fates.push(Fate::of(report, epoch, found.as_ref(), usage.as_ref()));
            }
        }
        Ok(fates)
    }

    fn send(&self, what: &'static str, bodies: Vec<Body>) {
        let ledger = self.ledger.clone();
        self.environment.spawn(async move {
            let sent = futures::future::join_all(bodies.into_iter().map(|body| ledger.execute(body)));
            for result in sent.await {
                match result {
                    Ok(Code::Done) => tracing::debug!(what, "the ledger accepted an audit operation"),
                    Ok(code) => tracing::warn!(
                        what,
                        ?code,
                        "the ledger refused an audit operation: {}",
                        code.explain()
                    ),
                    Err(error) => tracing::warn!(what, %error, "an audit operation could not be sent"),
                }
            }
        });
    }

    /// An account's balance and nonce; default if it is not on the ledger.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub(super) async fn account_of(&self, account: &Account) -> Result<AccountState, Error> {
        Ok(self.ledger.record(AccountState::key(account)).await?.unwrap_or_default())
    }

    /// The ledger's totals.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub(super) async fn system(&self) -> Result<System, Error> {
        Ok(self.ledger.record::<System>(System::key()).await?.unwrap_or_default())
    }

    /// Transfers an amount from the seat's account; returns the receipt's code.
    ///
    /// # Errors
    /// [`Error`].
    pub(super) async fn give(&self, to: Account, amount: Amount) -> Result<Code, Error> {
        self.ledger.execute(Body::Transfer(Transfer { to, amount })).await
    }
}
