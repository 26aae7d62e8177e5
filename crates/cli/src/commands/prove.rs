//! `posync prove`: one record of the ledger, with its whole proof up to the network key.

use super::recompute::{replay, root};
use crate::{
    failure::{Exit, Failure, Outcome},
    ledger::Ledger,
    net::{Access, Net},
    output::Output,
    records, session, target,
};
use commonware_runtime::tokio::Context;
use posync_client::light::{ProvedRow, Subject};
use posync_protocol::{
    Account, Bounded, Hash, Record as _, Slot,
    books::tree,
    limits::SETTLEMENT_RING,
    record::{AccountState, Audit, Books, Node, Provider, ProviderAt, Reputation, Seat, Settlement, System},
};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Command-line arguments of `posync prove`.
#[derive(Debug, clap::Args)]
pub(crate) struct Prove {
    #[command(subcommand)]
    record: RecordName,
    /// Where to write the proof
    #[arg(long, global = true, default_value = "proof.sync", value_name = "FILE")]
    out: PathBuf,
}

/// The record to prove. An account is `sync1...` or the name of a member, such as provider-3.
#[derive(Debug, clap::Subcommand)]
enum RecordName {
    /// Nonce and balance of an account
    Account {
        /// The account: sync1..., or the name of a member such as provider-3
        account: String,
    },
    /// A provider's offer, bond and totals
    Provider {
        /// The provider: sync1..., or the name of a member such as provider-3
        provider: String,
    },
    /// A provider's history of challenges
    Audit {
        /// The provider: sync1..., or the name of a member such as provider-3
        provider: String,
    },
    /// A provider's pay for an epoch whose books are closed, and its scores then; any past epoch
    Payout {
        /// The provider: sync1..., or the name of a member such as provider-3
        provider: String,
        /// Epoch of the pay
        epoch: u64,
    },
    /// A provider's pay so far in one of the last 512 epochs
    Settlement {
        /// The provider: sync1..., or the name of a member such as provider-3
        provider: String,
        /// Epoch of the pay
        epoch: u64,
    },
    /// A provider's scores and warnings
    Reputation {
        /// The provider: sync1..., or the name of a member such as provider-3
        provider: String,
    },
    /// An authority's seat: its bond, its pay, and whether it is jailed
    Seat {
        /// The authority: sync1..., or the name of a member such as authority-0
        account: String,
    },
    /// The entry of a node in the ledger's list: its address, its place and its deposit
    Node {
        /// The node: sync1..., or the name of a member such as authority-0
        account: String,
    },
    /// The totals of an epoch, with the root over its rows
    Books {
        /// Epoch of the books
        epoch: u64,
    },
    /// The terms of an agreement
    Agreement {
        /// The provider: sync1..., or the name of a member such as provider-3
        provider: String,
        /// The agreement's slot at the provider, as `posync agreements` lists it
        slot: u32,
    },
    /// The ledger's totals: all money, by where it is
    System,
}

impl Prove {
    /// Writes the proof of the record to a file.
    pub(crate) fn run(self, access: &Access, output: Output) -> Outcome {
        let net = Net::open(access)?;
        let subject = self.record.subject(&net)?;
        session::run(async |context| {
            let ledger = Ledger::open(&context, &net).await?;
            let bytes = match &self.record {
                RecordName::Payout { provider, epoch } => {
                    let account = net.resolve(provider)?;
                    export_payout(&context, (&ledger, &net), &account, *epoch, &self.out).await?
                }
                _ => export(&ledger, &subject, &self.out).await?,
            };
            let file = self.out.display().to_string();
            output.answer(&json!({ "file": file, "bytes": bytes, "network_key": net.network_key() }), || {
                format!(
                    "wrote {file}: {bytes} bytes\ncheck it with\n  posync verify {file} --network-key {}",
                    net.network_key()
                )
            })
        })
    }
}

impl RecordName {
    fn subject(&self, net: &Net) -> Outcome<Subject> {
        Ok(match self {
            Self::Account { account } => Subject::of_account::<AccountState>(&net.resolve(account)?),
            Self::Provider { provider } => Subject::of_account::<Provider>(&net.resolve(provider)?),
            Self::Audit { provider } => Subject::of_account::<Audit>(&net.resolve(provider)?),
            Self::Settlement { provider, epoch } => records::settlement(&net.resolve(provider)?, *epoch),
            Self::Reputation { provider } => Subject::of_account::<Reputation>(&net.resolve(provider)?),
            Self::Seat { account } => Subject::of_account::<Seat>(&net.resolve(account)?),
            Self::Node { account } => Subject::of_account::<Node>(&net.resolve(account)?),
            Self::Payout { epoch, .. } | Self::Books { epoch } => {
                Subject::new::<Books>(&[&epoch.to_be_bytes()]).expect("8 bytes fit")
            }
            Self::Agreement { provider, slot } => Subject::agreement(&net.resolve(provider)?, *slot),
            Self::System => Subject::new::<System>(&[]).expect("an empty id fits"),
        })
    }
}

/// Writes the proof of a record to `path`; returns its length in bytes.
pub(crate) async fn export(ledger: &Ledger, subject: &Subject, path: &Path) -> Outcome<u64> {
    write(path, &ledger.prove(subject).await?.to_bytes())
}

fn write(path: &Path, proof: &[u8]) -> Outcome<u64> {
    target::replace(path, proof)?;
    Ok(proof.len() as u64)
}

/// Writes the proof of a provider's row of closed books; returns its length in bytes.
async fn export_payout(
    context: &Context,
    (ledger, net): (&Ledger, &Net),
    account: &Account,
    epoch: u64,
    path: &Path,
) -> Outcome<u64> {
    super::recompute::sealing_block(ledger, epoch).await?;
    let books: Books = ledger.read(Books::key(epoch)).await?.ok_or_else(|| differ(epoch))?;
    let mut rows = kept_rows(ledger, epoch).await?;
    if root(&rows) != books.root {
        // The ledger keeps a row for 512 epochs, and none of a provider that left: those come from blocks.
        let epochs = epoch..=epoch;
        let genesis = net.genesis(context, None).await?;
        rows = replay(ledger, genesis, &epochs).await?.rows(epoch).to_vec();
    }
    if root(&rows) != books.root {
        return Err(differ(epoch));
    }
    let index = rows.iter().position(|(other, _)| other == account).ok_or_else(|| {
        let why = format!("{account} has no row in the books of epoch {epoch}");
        let next = "`posync recompute EPOCH` lists who has one; a provider has one from its first epoch on";
        Failure::new(Exit::NotFound, "there is no such payout", why, next)
    })?;
    let leaves: Vec<Hash> = rows.iter().map(|(account, slot)| tree::leaf(account, slot)).collect();
    let path_to_root = tree::path(&leaves, index).and_then(Bounded::new).ok_or_else(|| differ(epoch))?;
    let row = ProvedRow {
        account: *account,
        index: u32::try_from(index).map_err(|_| differ(epoch))?,
        slot: rows[index].1,
        path: path_to_root,
    };
    let subject = Subject::new::<Books>(&[&epoch.to_be_bytes()]).expect("8 bytes fit");
    write(path, &ledger.prove(&subject).await?.with_row(row).to_bytes())
}

/// The rows of an epoch that the ledger still keeps, in the order of their indices.
async fn kept_rows(ledger: &Ledger, epoch: u64) -> Outcome<Vec<(Account, Slot)>> {
    let system: System = ledger.read(System::key()).await?.unwrap_or_default();
    let at = ledger.read_all::<ProviderAt>((0..system.providers).map(ProviderAt::key).collect()).await?;
    let accounts: Vec<Account> = at.into_iter().filter_map(|at| at?.account).collect();
    let keys = accounts.iter().map(|account| Settlement::key(account, epoch % SETTLEMENT_RING));
    let rows = ledger.read_all::<Settlement>(keys.collect()).await?;
    let rows = accounts.into_iter().zip(rows);
    Ok(rows
        .filter_map(|(account, row)| Some((account, row.filter(|r| r.epoch == epoch)?.to_slot())))
        .collect())
}

fn differ(epoch: u64) -> Failure {
    let why = format!("the rows of epoch {epoch} do not hash to the root in its books");
    let next = "compare with `posync recompute`, and report this with the blocks";
    Failure::new(Exit::Failed, "the payout cannot be proved", why, next)
}
