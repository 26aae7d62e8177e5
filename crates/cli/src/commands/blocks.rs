//! `posync blocks`: the content of blocks.
//!
//! With `--json` the first line describes the network (constants of the rules, supply), then every
//! block is one line with all of its draws, operations, receipts and events: enough to recompute
//! every settled figure without this program (`tests/settlement.py` does).

use crate::{
    devnet::create::SUPPLY,
    failure::{Exit, Failure, Outcome},
    ledger::{Block, Ledger},
    net::{Access, Net},
    output::{Output, table},
    session,
};
use posync_protocol::{
    block::{BlockBody, Header, Receipts},
    event::Event,
    limits::Parameters,
};
use serde::Serialize;
use serde_json::{Value, json};

/// Number of blocks shown by default.
const LAST: u64 = 20;

/// Command-line arguments of `posync blocks`.
#[derive(Debug, clap::Args)]
pub(crate) struct Blocks {
    /// First height; if not given, 1 with --json, otherwise the last 20 blocks are shown
    #[arg(long)]
    from: Option<u64>,
    /// Last height; the newest if not given
    #[arg(long)]
    to: Option<u64>,
}

impl Blocks {
    /// Prints the blocks of a range; fails if the first is newer than the newest final one.
    pub(crate) fn run(self, access: &Access, output: Output) -> Outcome {
        let net = Net::open(access)?;
        session::run(async |context| {
            let ledger = Ledger::open(&context, &net).await?;
            let tip = ledger.height().await?;
            let to = self.to.unwrap_or(tip).min(tip);
            let usual = if output.json { 1 } else { to.saturating_sub(LAST - 1) };
            let from = self.from.unwrap_or(usual).max(1);
            if from > to {
                let why = format!("block {from} was asked for, the newest is {to}");
                let next = "wait for it, or ask for earlier blocks";
                return Err(Failure::new(Exit::NotFound, "there are no such blocks", why, next));
            }
            if output.json {
                print_lines(&ledger, &net, from..=to, output).await
            } else {
                print_table(&ledger, from..=to, output).await
            }
        })
    }
}

async fn print_lines(
    ledger: &Ledger,
    net: &Net,
    heights: std::ops::RangeInclusive<u64>,
    output: Output,
) -> Outcome {
    let parameters = ledger.parameters();
    let about = json!({ "network_key": net.network_key(), "chain": net.chain(),
        "supply": SUPPLY, "parameters": parameters });
    output.answer(&about, String::new)?;
    for height in heights {
        output.answer(&Line::of(&ledger.block(height).await?, parameters), String::new)?;
    }
    Ok(())
}

/// A block as one line: its header, its content and what followed from it.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    header: &'a Header,
    round: u64,
    epoch: u64,
    #[serde(flatten)]
    body: &'a BlockBody,
    #[serde(flatten)]
    receipts: &'a Receipts,
    events: &'a [Event],
}

impl<'a> Line<'a> {
    fn of(block: &'a Block, parameters: &Parameters) -> Self {
        let Block { header, body, receipts, events, .. } = block;
        let (round, epoch) = (parameters.round(header.height), parameters.epoch(header.height));
        Self { header, round, epoch, body, receipts, events }
    }
}

async fn print_table(ledger: &Ledger, heights: std::ops::RangeInclusive<u64>, output: Output) -> Outcome {
    let mut rows = Vec::new();
    for height in heights {
        let block = ledger.block(height).await?;
        let draws = block.body.draws.iter().flatten().count();
        rows.push(vec![
            height.to_string(),
            ledger.parameters().epoch(height).to_string(),
            block.header.term.to_string(),
            block.header.view.to_string(),
            draws.to_string(),
            block.body.operations.len().to_string(),
            block.events.len().to_string(),
            hex::encode(&block.header.digest()[..8]),
        ]);
    }
    let heading = ["height", "epoch", "term", "view", "draws", "operations", "events", "digest"];
    output.answer(&Value::Null, || table(&heading, &rows))
}
