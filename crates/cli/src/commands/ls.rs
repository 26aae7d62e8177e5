//! `posync ls`: the caller's files in the gateway's catalogue; for the gateway's owner also those of other accounts.

use crate::{
    failure::Outcome,
    gateway::Gateway,
    net::{Access, Net},
    output::{Output, table},
    session,
};

/// Command-line arguments of `posync ls`.
#[derive(Debug, clap::Args)]
pub(crate) struct Ls {
    /// List the files of this account; for the gateway's owner alone
    #[arg(long, value_name = "ACCOUNT")]
    account: Option<String>,
}

impl Ls {
    /// Prints name, size, hash and durable shards of every file.
    pub(crate) fn run(self, access: &Access, output: Output) -> Outcome {
        let net = Net::open(access)?;
        let of = self.account.map(|account| net.resolve(&account)).transpose()?;
        session::run(async |context| {
            let files = Gateway::connect(&context, &net).await?.list(of).await?;
            output.answer(&files, || {
                let rows: Vec<Vec<String>> = files
                    .iter()
                    .map(|file| {
                        let shards = format!("{}/{}", file.shards_durable, file.shards);
                        let name = String::from_utf8_lossy(&file.name).escape_debug().to_string();
                        vec![file.bytes.to_string(), shards, hex::encode(&file.blake3[..8]), name]
                    })
                    .collect();
                table(&["bytes", "shards", "blake3", "name"], &rows)
            })
        })
    }
}
