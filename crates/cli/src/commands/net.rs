//! `posync net show|export`: checks a network file, and writes one with a newer checkpoint and all known nodes.

use crate::{
    failure::Outcome,
    ledger::Ledger,
    net::{Access, Net, file::Checkpoint},
    output::{Output, table},
    session, target,
};
use posync_client::connection::{Endpoint, Heard};
use posync_protocol::Account;
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
    /// Write the network file with the newest certified block as its checkpoint, the new addresses of its nodes,
    /// and the authorities that the ledger lists
    Export {
        /// The file to write
        file: PathBuf,
        /// Also add the other nodes that the ledger lists, whose owners may be anyone, if they prove a block now; every
        /// user of the file trusts them like the others
        #[arg(long, conflicts_with = "only")]
        all: bool,
        /// Write the nodes of these accounts (sync1...) alone, with a seat or without; give it once for each. Every
        /// user of the file trusts them
        #[arg(long, value_name = "ACCOUNT")]
        only: Vec<Account>,
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
                ledger.learn().await?;
                show(&net, &ledger.survey().await, output)
            }),
            Command::Export { file, all, only } => session::run(async |context| {
                let ledger = Ledger::open(&context, &net).await?;
                let height = ledger.certified_height().await?;
                let header = ledger.header(height).await?;
                let mut newer = net.file.clone();
                let listed = ledger.learn().await?;
                let heard = if all { ledger.survey().await } else { Vec::new() };
                let proves = |node: &Endpoint| {
                    heard.iter().any(|heard| heard.endpoint == *node && heard.newest.is_ok())
                };
                if only.is_empty() {
                    newer.add(listed, |node| node.has_seat || proves(&node.endpoint));
                } else {
                    newer.keep_only(listed, &only)?;
                }
                newer.checkpoint = Checkpoint { height, block: header.digest() };
                target::replace(&file, newer.to_toml().as_bytes())?;
                let value = json!({ "file": file, "height": height, "nodes": newer.nodes.len(),
                    "gateways": newer.gateways.len(), "line": newer.to_line() });
                output.answer(&value, || {
                    format!(
                        "wrote {}, with block {height}, {} nodes and {} gateways\n{}",
                        file.display(),
                        newer.nodes.len(),
                        newer.gateways.len(),
                        newer.to_line()
                    )
                })
            }),
        }
    }
}

/// Prints the network file; `heard` holds what its nodes answered, in their order.
fn show(net: &Net, heard: &[Heard], output: Output) -> Outcome {
    let file = &net.file;
    let answer = |heard: &Heard| match &heard.newest {
        Ok(header) => format!("proves block {}", header.height),
        Err(why) => format!("does not answer: {why}"),
    };
    let answers = |place: usize| heard.get(place).map_or("not asked".into(), answer);
    // Nodes that the ledger lists follow those of the file.
    let known = heard.get(file.nodes.len()..).unwrap_or_default();
    let learned: Vec<Value> = known
        .iter()
        .map(|heard| {
            let Endpoint { account, address } = &heard.endpoint;
            json!({ "account": account.to_string(), "address": address.to_string(), "answer": answer(heard) })
        })
        .collect();
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
        "block": hex::encode(file.checkpoint.block) }, "nodes": nodes, "known": learned, "gateways": gateways, "line": file.to_line() });
    output.answer(&value, || {
        let rows: Vec<Vec<String>> = file
            .nodes
            .iter()
            .enumerate()
            .map(|(place, node)| {
                let kind = if node.archive { "archive" } else { "node" };
                vec![kind.into(), node.address.to_string(), node.account.to_string(), answers(place)]
            })
            .chain(known.iter().map(|heard| {
                let Endpoint { account, address } = &heard.endpoint;
                vec!["known".into(), address.to_string(), account.to_string(), answer(heard)]
            }))
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
