//! `posync net show|export`: checks a network file, and writes one with a newer checkpoint.

use crate::{
    failure::Outcome,
    ledger::Ledger,
    net::{Access, Net, file::Checkpoint},
    output::{Output, table},
    session, target,
};
use posync_client::connection::Heard;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Command-line arguments of `posync net`.
#[derive(Debug, clap::Args)]
pub(crate) struct NetCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print and check the network file that --net names, and its line
    Show {
        /// Ask every node, and fail if none of them serves this network
        #[arg(long)]
        ask: bool,
    },
    /// Write the network file with the newest certified block as its checkpoint
    Export {
        /// The file to write
        file: PathBuf,
    },
}

impl NetCommand {
    /// Prints or writes the network file.
    pub(crate) fn run(self, access: &Access, output: Output) -> Outcome {
        let net = Net::open(access)?;
        match self.command {
            Command::Show { ask: false } => show(&net, &[], output),
            Command::Show { ask: true } => session::run(async |context| {
                let ledger = Ledger::open(&context, &net).await?;
                show(&net, &ledger.survey().await, output)
            }),
            Command::Export { file } => session::run(async |context| {
                let ledger = Ledger::open(&context, &net).await?;
                let height = ledger.certified_height().await?;
                let header = ledger.header(height).await?;
                let mut newer = net.file.clone();
                newer.checkpoint = Checkpoint { height, block: header.digest() };
                target::replace(&file, newer.to_toml().as_bytes())?;
                let value = json!({ "file": file, "height": height, "line": newer.to_line() });
                output.answer(&value, || {
                    format!("wrote {}, with block {height}\n{}", file.display(), newer.to_line())
                })
            }),
        }
    }
}

/// Prints the network file; `heard` holds what its nodes answered, in their order.
fn show(net: &Net, heard: &[Heard], output: Output) -> Outcome {
    let file = &net.file;
    let answers = |place: usize| match heard.get(place).map(|heard| &heard.newest) {
        None => "not asked".into(),
        Some(Ok(header)) => format!("proves block {}", header.height),
        Some(Err(why)) => format!("does not answer: {why}"),
    };
    let nodes: Vec<Value> = file
        .nodes
        .iter()
        .enumerate()
        .map(|(place, node)| {
            json!({ "account": node.account.to_string(), "address": node.address.to_string(), "archive": node.archive,
                "answer": answers(place) })
        })
        .collect();
    let gateways: Vec<Value> = file
        .gateways
        .iter()
        .map(|gateway| json!({ "account": gateway.account.to_string(), "address": gateway.address.to_string() }))
        .collect();
    let value = json!({ "chain": net.chain(), "network_key": net.network_key(),
        "parameters": hex::encode(file.parameters), "checkpoint": { "height": file.checkpoint.height,
        "block": hex::encode(file.checkpoint.block) }, "nodes": nodes, "gateways": gateways, "line": file.to_line() });
    output.answer(&value, || {
        let rows: Vec<Vec<String>> = file
            .nodes
            .iter()
            .enumerate()
            .map(|(place, node)| {
                let kind = if node.archive { "archive" } else { "node" };
                vec![kind.into(), node.address.to_string(), node.account.to_string(), answers(place)]
            })
            .chain(file.gateways.iter().map(|gateway| {
                vec!["gateway".into(), gateway.address.to_string(), gateway.account.to_string(), String::new()]
            }))
            .collect();
        format!(
            "chain       {}\nkey         {}\ncheckpoint  block {}\n\n{}\n\nThe checksum fits. The same as one line:\n{}",
            net.chain(),
            net.network_key(),
            file.checkpoint.height,
            table(&["kind", "address", "account", "answer"], &rows),
            file.to_line()
        )
    })
}
