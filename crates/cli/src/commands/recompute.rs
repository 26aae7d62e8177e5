//! `posync recompute`: an epoch's books from blocks alone, compared with the ledger byte for byte.

use crate::{
    failure::{Exit, Failure, Outcome},
    ledger::Ledger,
    net::{Access, Net},
    output::{Output, table},
    replay::{Replay, SettlementRow},
    session,
};
use posync_node::genesis::Genesis;
use posync_protocol::{
    Account, Hash, Record as _,
    books::tree,
    limits::SETTLEMENT_RING,
    record::{Books, Settlement},
};
use serde_json::{Value, json};
use std::{ops::RangeInclusive, path::PathBuf};

/// Command-line arguments of `posync recompute`.
#[derive(Debug, clap::Args)]
pub(crate) struct Recompute {
    /// The epoch; its books must be closed
    epoch: u64,
    /// The genesis of the network; if not given, the one in the directory of --net, or that of a node
    #[arg(long, value_name = "FILE")]
    genesis: Option<PathBuf>,
}

impl Recompute {
    /// Prints the comparison; fails if the ledger's books differ.
    pub(crate) fn run(self, access: &Access, output: Output) -> Outcome {
        let net = Net::open(access)?;
        session::run(async |context| {
            let genesis = net.genesis(&context, self.genesis.as_deref()).await?;
            let ledger = Ledger::open(&context, &net).await?;
            let compared = compare(&ledger, genesis, self.epoch..=self.epoch).await?;
            let compared = compared.first().expect("one epoch was asked for");
            output.answer(&compared.to_json(), || compared.to_text())?;
            compared.judge()
        })
    }
}

/// A provider's recomputed row, and if the ledger has the same.
struct Pair {
    provider: Account,
    row: Settlement,
    equal: bool,
}

/// The comparison of an epoch's recomputed books with the ledger's.
pub(crate) struct Compared {
    epoch: u64,
    blocks: u64,
    pairs: Vec<Pair>,
    books: Books,
    books_equal: bool,
}

/// Replays every block until the books of these epochs are sealed.
pub(crate) async fn replay(
    ledger: &Ledger,
    genesis: Genesis,
    epochs: &RangeInclusive<u64>,
) -> Outcome<Replay> {
    let last = sealing_block(ledger, *epochs.end()).await?;
    let mut replay = Replay::new(genesis, epochs);
    while replay.next() <= last {
        let (header, body) = ledger.header_and_body(replay.next()).await?;
        replay.apply(&header, &body)?;
    }
    Ok(replay)
}

/// Computes the root over an epoch's rows.
pub(crate) fn root(rows: &[SettlementRow]) -> Hash {
    tree::root_of(&rows.iter().map(|(account, slot)| tree::leaf(account, slot)).collect::<Vec<_>>())
}

/// Replays every block until the books of `epochs` are sealed, and compares them with the ledger's.
/// Rows that the ledger no longer keeps are compared by the root over all rows.
pub(crate) async fn compare(
    ledger: &Ledger,
    genesis: Genesis,
    epochs: RangeInclusive<u64>,
) -> Outcome<Vec<Compared>> {
    let replay = replay(ledger, genesis, &epochs).await?;
    let mut all = Vec::new();
    for epoch in epochs {
        all.push(compare_one(ledger, &replay, epoch).await?);
    }
    Ok(all)
}

async fn compare_one(ledger: &Ledger, replay: &Replay, epoch: u64) -> Outcome<Compared> {
    let rows = replay.rows(epoch);
    let books: Books = replay.record(&Books::key(epoch)).unwrap_or_default();
    let kept: Option<Books> = ledger.read(Books::key(epoch)).await?;
    let books_equal = kept.is_some_and(|kept| kept.to_slot() == books.to_slot());
    let by_root = root(rows) == books.root;
    let keys = rows.iter().map(|(account, _)| Settlement::key(account, epoch % SETTLEMENT_RING));
    let kept = ledger.read_all::<Settlement>(keys.collect()).await?;
    let pairs = rows.iter().zip(kept).filter_map(|((provider, slot), kept)| {
        let kept = kept.filter(|kept| kept.epoch == epoch);
        let equal = by_root && kept.is_none_or(|kept| kept.to_slot() == *slot);
        Some(Pair { provider: *provider, row: Settlement::from_slot(slot).ok()?, equal })
    });
    let (pairs, blocks) = (pairs.collect(), replay.next() - 1);
    Ok(Compared { epoch, blocks, pairs, books, books_equal: books_equal && by_root })
}

/// Height of the block that seals the books of `epoch`; fails if it is not final yet.
pub(crate) async fn sealing_block(ledger: &Ledger, epoch: u64) -> Outcome<u64> {
    let sealed = epoch.saturating_add(3).saturating_mul(ledger.parameters().epoch_blocks());
    let tip = ledger.height().await?;
    if sealed <= tip {
        return Ok(sealed);
    }
    let why = format!("block {sealed} seals the books of epoch {epoch}, the newest is {tip}");
    Err(Failure::new(
        Exit::NotFound,
        "the epoch's books are not closed",
        why,
        "wait, or name an earlier epoch",
    ))
}

impl Compared {
    /// True if all rows and the books are the same, byte for byte.
    pub(crate) fn equal(&self) -> bool {
        self.books_equal && self.pairs.iter().all(|pair| pair.equal)
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
            .map(|Pair { provider, row, equal }| json!({ "provider": provider, "row": row, "equal": equal }))
            .collect();
        json!({ "epoch": self.epoch, "blocks": self.blocks, "rows": rows,
            "root": hex::encode(self.books.root), "books_equal": self.books_equal, "recomputed": self.equal() })
    }

    fn to_text(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .pairs
            .iter()
            .map(|Pair { provider, row, equal }| {
                let amounts = [row.fee, row.burn, row.committee, row.pay, row.subsidy];
                let amounts = amounts.map(|amount| amount.to_string());
                let equal = if *equal { "yes" } else { "NO" };
                let provider = provider.to_string();
                let short = format!("{}...", provider.get(..12).unwrap_or(&provider));
                [short].into_iter().chain(amounts).chain([equal.to_owned()]).collect()
            })
            .collect();
        let rows = table(&["provider", "fee SYNC", "burned", "committee", "paid", "subsidy", "equal"], &rows);
        let verdict = if self.equal() { "the same as" } else { "NOT the same as" };
        format!(
            "{rows}\nepoch {}: {} rows and the books' root from blocks 1 to {}, {verdict} the ledger's, byte for byte",
            self.epoch,
            self.pairs.len(),
            self.blocks
        )
    }
}
