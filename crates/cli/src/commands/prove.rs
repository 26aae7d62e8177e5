//! `posync prove`: one record of the ledger with everything that leads to the network key.

use crate::{
    failure::{Failure, Outcome},
    ledger::Ledger,
    network::{Network, replace},
    output::Output,
    records, session,
};
use posync_client::light::Subject;
use posync_protocol::record::{AccountState, Audit, Books, Provider, Seat, Standing, System};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Arguments of `prove`.
#[derive(Debug, clap::Args)]
pub(crate) struct Prove {
    #[command(subcommand)]
    record: Record,
    /// Where to write the proof
    #[arg(long, global = true, default_value = "proof.sync", value_name = "FILE")]
    out: PathBuf,
}

/// What to prove. An account is `sync1...` or the name of a member, such as provider-3.
#[derive(Debug, clap::Subcommand)]
enum Record {
    /// Nonce and balance of an account
    Account {
        /// Whose
        account: String,
    },
    /// A provider's offer, bond and totals
    Provider {
        /// Whose
        account: String,
    },
    /// A provider's history of challenges
    Audit {
        /// Whose
        account: String,
    },
    /// What a provider was paid in an epoch
    Settlement {
        /// Whose
        account: String,
        /// Which epoch
        epoch: u64,
    },
    /// A provider's scores, and what it was warned of
    Standing {
        /// Whose
        account: String,
    },
    /// An authority's seat: its bond, what it was paid, and whether it is jailed
    Seat {
        /// Whose
        account: String,
    },
    /// What an epoch added up to, with the root over its rows
    Books {
        /// Which epoch
        epoch: u64,
    },
    /// The terms of an agreement
    Agreement {
        /// Its provider
        account: String,
        /// The provider's slot
        slot: u32,
    },
    /// The sums of all money
    System,
}

impl Prove {
    /// Runs the command.
    pub(crate) fn run(self, net: &Path, output: Output) -> Outcome {
        let network = Network::read(net)?;
        let subject = self.record.subject(&network)?;
        session::run(async |context| {
            let ledger = Ledger::open(&context, net).await?;
            let bytes = export(&ledger, &subject, &self.out).await?;
            let file = self.out.display().to_string();
            output.answer(
                &json!({ "file": file, "bytes": bytes, "network_key": network.network_key }),
                || {
                    format!(
                        "wrote {file}: {bytes} bytes\ncheck it with\n  posync verify {file} --network-key {}",
                        network.network_key
                    )
                },
            )
        })
    }
}

impl Record {
    fn subject(&self, network: &Network) -> Outcome<Subject> {
        Ok(match self {
            Self::Account { account } => Subject::of_account::<AccountState>(&network.resolve(account)?),
            Self::Provider { account } => Subject::of_account::<Provider>(&network.resolve(account)?),
            Self::Audit { account } => Subject::of_account::<Audit>(&network.resolve(account)?),
            Self::Settlement { account, epoch } => records::settlement(&network.resolve(account)?, *epoch),
            Self::Standing { account } => Subject::of_account::<Standing>(&network.resolve(account)?),
            Self::Seat { account } => Subject::of_account::<Seat>(&network.resolve(account)?),
            Self::Books { epoch } => Subject::new::<Books>(&[&epoch.to_be_bytes()]).expect("8 bytes fit"),
            Self::Agreement { account, slot } => Subject::agreement(&network.resolve(account)?, *slot),
            Self::System => Subject::new::<System>(&[]).expect("an empty id fits"),
        })
    }
}

/// Writes the proof of a record; returns its length.
pub(crate) async fn export(ledger: &Ledger, subject: &Subject, path: &Path) -> Outcome<u64> {
    let proof = ledger.prove(subject).await?;
    if proof.is_empty() {
        return Err(Failure::file(path, "write", "the proof is empty"));
    }
    replace(path, &proof)?;
    Ok(proof.len() as u64)
}
