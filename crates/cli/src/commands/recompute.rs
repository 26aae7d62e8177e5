//! `posync recompute`: an epoch's books from blocks alone, compared with the ledger byte for byte.

use crate::{
    devnet::create::GENESIS_FILE,
    failure::{Exit, Failure, Outcome},
    json,
    ledger::Ledger,
    network::Network,
    output::{Output, table},
    replay::Replay,
    session,
};
use posync_node::genesis::Genesis;
use posync_protocol::{Key, Record as _, record::Settlement};
use serde_json::{Value, json};
use std::{fs, path::Path};

/// Arguments of `recompute`.
#[derive(Debug, clap::Args)]
pub(crate) struct Recompute {
    /// The epoch; it must be over
    epoch: u64,
}

impl Recompute {
    /// Runs the command.
    pub(crate) fn run(self, net: &Path, output: Output) -> Outcome {
        let network = Network::read(net)?;
        let genesis = genesis(net, &network)?;
        session::run(async |context| {
            let ledger = Ledger::open(&context, net).await?;
            let compared = compare(&ledger, genesis, self.epoch).await?;
            output.answer(&compared.to_json(), || compared.to_text())?;
            compared.judge()
        })
    }
}

/// The genesis in `net`, if it is the one that `devnet.json` names.
pub(crate) fn genesis(net: &Path, network: &Network) -> Outcome<Genesis> {
    let path = net.join(GENESIS_FILE);
    let bytes = fs::read(&path).map_err(|error| Failure::file(&path, "read", error))?;
    let genesis = Genesis::from_bytes(&bytes).map_err(|error| Failure::file(&path, "read", error))?;
    if hex::encode(genesis.chain()) == network.chain {
        return Ok(genesis);
    }
    Err(Failure::file(&path, "use", "it is the genesis of another network than devnet.json names"))
}

/// A provider's row, computed and as the ledger has it.
struct Pair {
    row: Settlement,
    equal: bool,
}

/// What came out.
pub(crate) struct Compared {
    epoch: u64,
    blocks: u64,
    pairs: Vec<Pair>,
}

/// Repeats every block up to the end of `epoch` and compares its rows with the ledger's.
pub(crate) async fn compare(ledger: &Ledger, genesis: Genesis, epoch: u64) -> Outcome<Compared> {
    let last = last_block(ledger, epoch).await?;
    let mut replay = Replay::new(genesis);
    while replay.next() <= last {
        let (header, body) = ledger.header_and_body(replay.next()).await?;
        replay.apply(&header, &body)?;
    }
    let rows: Vec<(Key, Settlement)> = replay
        .all::<Settlement>()
        .filter(|(_, row)| row.epoch == epoch)
        .map(|(key, row)| (*key, row))
        .collect();
    let kept = ledger.read_all::<Settlement>(rows.iter().map(|(key, _)| *key).collect()).await?;
    let pairs = rows.into_iter().zip(kept).map(|((_, row), kept)| {
        let equal = kept.is_some_and(|kept| kept.to_slot() == row.to_slot());
        Pair { row, equal }
    });
    Ok(Compared { epoch, blocks: last, pairs: pairs.collect() })
}

/// The last block that changes a row of `epoch`.
async fn last_block(ledger: &Ledger, epoch: u64) -> Outcome<u64> {
    let parameters = ledger.parameters();
    let after = epoch.saturating_add(1).saturating_mul(parameters.epoch_blocks());
    let tip = ledger.height().await?;
    if after <= tip {
        return Ok(after - 1);
    }
    let now = parameters.epoch(tip);
    let why = format!("epoch {epoch} ends with block {}, the newest is {tip} (epoch {now})", after - 1);
    Err(Failure::new(Exit::NotFound, "the epoch is not over", why, "wait, or name an earlier epoch"))
}

impl Compared {
    fn equal(&self) -> bool {
        self.pairs.iter().all(|pair| pair.equal)
    }

    fn judge(&self) -> Outcome {
        if self.equal() {
            return Ok(());
        }
        let next = "ask another node; if all say the same, report this with the blocks";
        Err(Failure::new(Exit::Failed, "the ledger's books differ from the blocks", self.to_text(), next))
    }

    fn to_json(&self) -> Value {
        let rows: Vec<Value> = self
            .pairs
            .iter()
            .map(|Pair { row, equal }| {
                json!({ "fee": json::grains(row.fee), "burn": json::grains(row.burn),
                    "committee": json::grains(row.committee), "provider_pay": json::grains(row.pay),
                    "equal": equal })
            })
            .collect();
        json!({ "epoch": self.epoch, "blocks": self.blocks, "rows": rows, "recomputed": self.equal() })
    }

    fn to_text(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .pairs
            .iter()
            .map(|Pair { row, equal }| {
                let amounts = [row.fee, row.burn, row.committee, row.pay].map(|amount| amount.to_string());
                amounts.into_iter().chain([if *equal { "yes" } else { "NO" }.to_owned()]).collect()
            })
            .collect();
        let rows = table(&["fee SYNC", "burned", "committee", "provider", "equal"], &rows);
        let verdict = if self.equal() { "the same as" } else { "NOT the same as" };
        format!(
            "{rows}\nepoch {}: {} rows from blocks 1 to {}, {verdict} the ledger's, byte for byte",
            self.epoch,
            self.pairs.len(),
            self.blocks
        )
    }
}
