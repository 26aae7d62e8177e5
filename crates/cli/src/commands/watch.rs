//! `posync watch`: reports what is about to go wrong with providers, until it is stopped. It judges by
//! the ledger's proven records alone, so it also covers a provider that is too broken to report.

use crate::{
    failure::{Exit, Failure, Outcome},
    ledger::Ledger,
    net::{Access, Net},
    network::Role,
    output::Output,
    session,
};
use posync_alert::{Alert, Alerts, BadHook, Facts, Signal, State, conditions};
use posync_protocol::{
    Account,
    limits::Parameters,
    record::{Audit, Offer, Provider, Reputation},
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Command-line arguments of `posync watch`.
#[derive(Debug, clap::Args)]
pub(crate) struct Watch {
    /// Providers to watch: sync1... or names as in `posync status` (all if none is named)
    providers: Vec<String>,
    /// Also post each alert as JSON to this address
    #[arg(long, value_name = "URL")]
    alert_url: Option<String>,
    /// Certificate authorities (PEM) that may have signed that host's certificate; the public ones if not given
    #[arg(long, value_name = "FILE", requires = "alert_url")]
    alert_ca: Option<PathBuf>,
}

impl Watch {
    /// Runs `posync watch` until a signal.
    pub(crate) fn run(self, access: &Access, output: Output) -> Outcome {
        let net = Net::open(access)?;
        let alerts = hook(self.alert_url.as_deref(), self.alert_ca.as_deref())?;
        session::run(async |context| {
            let ledger = Ledger::open(&context, &net).await?;
            let accounts = self.accounts(&net, &ledger).await?;
            let mut watches: BTreeMap<Account, posync_alert::RaisedAlerts> = BTreeMap::new();
            let mut blocks = ledger.follow();
            loop {
                let header = blocks.next().await.map_err(crate::ledger::failed)?;
                if output.is_closed() {
                    return Ok(());
                }
                for account in &accounts {
                    let (height, now) = look(&ledger, account, header.height).await?;
                    for (state, alert) in watches.entry(*account).or_default().step(now) {
                        let signal = Signal::new(account.to_string(), Some(height), state, alert);
                        output.answer(&signal, || line(&signal))?;
                        alerts.send(signal);
                    }
                }
            }
        })
    }

    async fn accounts(&self, net: &Net, ledger: &Ledger) -> Outcome<Vec<Account>> {
        if self.providers.is_empty() {
            // The providers of a devnet are known before they are registered.
            let members: Vec<Account> = net
                .members(Role::Provider)
                .map(|member| net.resolve(&member.name))
                .collect::<Outcome<_>>()?;
            return if members.is_empty() { ledger.providers().await } else { Ok(members) };
        }
        self.providers.iter().map(|provider| net.resolve(provider)).collect()
    }
}

/// The destination of alerts; an empty address is none. `authorities` names a file of certificates.
pub(crate) fn hook(url: Option<&str>, authorities: Option<&Path>) -> Outcome<Alerts> {
    let read = |path: &Path| fs::read(path).map_err(|error| Failure::file(path, "read", error));
    let pem = authorities.map(read).transpose()?;
    Alerts::to(url.filter(|url| !url.is_empty()), pem.as_deref()).map_err(|error| {
        // The error does not repeat the address: anyone who knows it may write there.
        let next = match error {
            BadHook::Url => "give the whole address of the webhook",
            BadHook::Authorities => {
                "give the PEM file of the authority that signed the webhook's certificate"
            }
        };
        Failure::new(Exit::Usage, "alerts cannot go there", error, next)
    })
}

/// The alerts that hold for a provider, by records proven at `height` or later.
async fn look(ledger: &Ledger, account: &Account, height: u64) -> Outcome<(u64, Vec<Alert>)> {
    let Some(provider) = ledger.read::<Provider>(Provider::key(account)).await? else {
        return Ok((height, Vec::new()));
    };
    let audit: Audit = ledger.read(Audit::key(account)).await?.unwrap_or_default();
    let reputation: Option<Reputation> = ledger.read(Reputation::key(account)).await?;
    let Some(offer) = ledger.read::<Offer>(Offer::key(account)).await? else {
        return Ok((height, Vec::new()));
    };
    Ok((height, alerts(ledger.parameters(), height, (&provider, &offer), &audit, reputation.as_ref())))
}

/// The alerts that follow from a provider's records; the room on its volume is known only to itself.
pub(crate) fn alerts(
    parameters: &Parameters,
    height: u64,
    (provider, offer): (&Provider, &Offer),
    audit: &Audit,
    reputation: Option<&Reputation>,
) -> Vec<Alert> {
    // The records may be newer than `height`, which was read before them.
    let drawn = audit.challenge.map_or(0, |open| open.height);
    let height = height.max(drawn);
    conditions(&Facts { parameters, height, provider, offer, audit, reputation, space: None })
}

fn line(signal: &Signal) -> String {
    let mark = if signal.state == State::Raised { "!" } else { "ok" };
    format!("{mark:<2} height {}  {}", signal.height.unwrap_or(0), signal.text)
}
