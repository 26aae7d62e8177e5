//! The result of the tour: one object for scripts, the same figures in words for people.

use super::payouts::Payout;
use crate::{output::table, tally::SettledFee};
use posync_protocol::Amount;
use serde::Serialize;
use serde_json::{Value, json};
use std::fmt;

/// The file that was stored.
#[derive(Clone, Debug)]
pub(crate) struct File {
    /// Length of the file in bytes.
    pub(crate) bytes: u64,
    /// BLAKE3 of the bytes that were stored.
    pub(crate) blake3_in: String,
    /// BLAKE3 of the bytes that were read back after the repair.
    pub(crate) blake3_out: String,
}

/// The figures of one provider.
#[derive(Clone, Debug)]
pub(crate) struct Provider {
    /// Account of the provider, as text.
    pub(crate) id: String,
    /// The operator that it declares.
    pub(crate) operator: String,
    /// Bytes of the data sets in force, from proven records.
    pub(crate) stored_bytes: u64,
    /// Bytes redeemed by voucher, from proven records.
    pub(crate) egress_bytes: u64,
    /// Challenges passed in full.
    pub(crate) passed: u64,
    /// Challenges with a missing read or no answer.
    pub(crate) failed: u64,
    /// All its pay for storage and downloads.
    pub(crate) earned: Amount,
}

/// The way in which the tour breaks a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Damage {
    /// Its process is killed.
    Stopped,
    /// The bytes of its shards are changed.
    Corrupted,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Stopped => "stopped",
            Self::Corrupted => "corrupted",
        })
    }
}

/// A fault that the tour made, and that was found and repaired.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    /// The damage that the tour did.
    pub(crate) kind: Damage,
    /// Account of the provider that it hit.
    pub(crate) provider: String,
    /// Rounds from the fault to its detection.
    pub(crate) detected_after_rounds: u64,
    /// Means by which it was found.
    pub(crate) found_by: &'static str,
    /// Shards that the provider held when it was found.
    pub(crate) shards_lost: u32,
    /// Shards rebuilt at other providers under the same names.
    pub(crate) shards_repaired: u32,
}

/// The proof that another process checked.
#[derive(Clone, Debug)]
pub(crate) struct Proof {
    /// Path of the proof's file.
    pub(crate) file: String,
    /// Its length in bytes.
    pub(crate) bytes: u64,
    /// True if the other process accepted it.
    pub(crate) verified: bool,
}

/// All figures of a tour.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// Public key of the network, in hex.
    pub(crate) network_key: String,
    /// Height of the last block that the tour read.
    pub(crate) blocks: u64,
    /// Milliseconds from a block's time to its certificate, median and 99th percentile.
    pub(crate) finality_ms: (u64, u64),
    /// The file that was stored and read back.
    pub(crate) file: File,
    /// Figures of every provider.
    pub(crate) providers: Vec<Provider>,
    /// The two faults that the tour made.
    pub(crate) faults: Vec<Fault>,
    /// All settled fees, in the order of blocks.
    pub(crate) settlements: Vec<SettledFee>,
    /// All money at genesis, and the money that the ledger's sums account for.
    pub(crate) supply: (Amount, Amount),
    /// The exported proof of a settlement.
    pub(crate) proof: Proof,
    /// Pay of every provider for each sealed epoch that the tour covers.
    pub(crate) payouts: Vec<Payout>,
    /// True if the blocks alone gave the ledger's rows and books of all these epochs.
    pub(crate) recomputed: bool,
}

impl Report {
    /// The requirements that did not hold; empty when the tour succeeded.
    pub(crate) fn broken(&self) -> Vec<&'static str> {
        let checks = [
            (self.file.blake3_in == self.file.blake3_out, "the file came back with other bytes"),
            (self.faults.len() == 2, "a fault was not found"),
            (self.faults.iter().all(|fault| fault.shards_repaired > 0), "a lost shard was not repaired"),
            (self.settlements.iter().any(|row| row.agreement.is_none()), "no storage was settled"),
            (self.settlements.iter().any(|row| row.agreement.is_some()), "no download was settled"),
            (self.settlements.iter().all(SettledFee::adds_up), "a settled fee is not the sum of its parts"),
            (self.supply.0 == self.supply.1, "money was not conserved"),
            (self.proof.verified, "the proof was refused"),
            (self.proof.bytes <= 3_000, "the proof is larger than 3 kB"),
            (self.payouts.iter().any(|payout| payout.amount() > Amount::ZERO), "nobody was paid"),
            (self.recomputed, "the books are not what the blocks say"),
        ];
        checks.into_iter().filter(|(holds, _)| !holds).map(|(_, what)| what).collect()
    }

    /// The report as one object for scripts.
    pub(crate) fn to_json(&self) -> Value {
        let providers: Vec<Value> = self
            .providers
            .iter()
            .map(|p| {
                json!({ "account": p.id, "operator": p.operator, "stored_bytes": p.stored_bytes,
                    "egress_bytes": p.egress_bytes, "challenges_passed": p.passed,
                    "challenges_failed": p.failed, "earned": p.earned })
            })
            .collect();
        let faults: Vec<Value> = self
            .faults
            .iter()
            .map(|f| {
                json!({ "kind": f.kind, "provider": f.provider, "found_by": f.found_by,
                    "detected_after_rounds": f.detected_after_rounds, "shards_lost": f.shards_lost,
                    "shards_repaired": f.shards_repaired })
            })
            .collect();
        json!({
            "ok": self.broken().is_empty(),
            "network_key": self.network_key,
            "blocks": self.blocks,
            "finality_ms": { "p50": self.finality_ms.0, "p99": self.finality_ms.1 },
            "file": { "bytes": self.file.bytes, "blake3_in": self.file.blake3_in,
                "blake3_out": self.file.blake3_out },
            "providers": providers,
            "faults": faults,
            "settlements": self.settlements.iter().map(SettledFee::to_json).collect::<Vec<_>>(),
            "supply": { "genesis": self.supply.0, "accounted": self.supply.1 },
            "payouts": self.payouts.iter().map(Payout::to_json).collect::<Vec<_>>(),
            "recomputed": self.recomputed,
            "proof": { "file": self.proof.file, "bytes": self.proof.bytes, "verified": self.proof.verified },
        })
    }

    /// The report in words.
    pub(crate) fn to_text(&self) -> String {
        let mut lines = vec![self.providers_table(), String::new(), self.payouts_table(), String::new()];
        lines.push(format!("file      {} bytes, blake3 {}", self.file.bytes, self.file.blake3_out));
        lines.extend(self.faults.iter().map(|fault| {
            format!(
                "{:<9} found by {} after {}, {} rebuilt elsewhere",
                fault.kind,
                fault.found_by,
                count(fault.detected_after_rounds, "round"),
                count(fault.shards_repaired.into(), "shard")
            )
        }));
        let (p50, p99) = self.finality_ms;
        let proof = &self.proof;
        lines.extend([
            format!("blocks    {}, final after {p50} ms (median), {p99} ms (99 %)", self.blocks),
            format!(
                "settled   {} fees, each the sum of burn, committee and provider",
                self.settlements.len()
            ),
            format!("supply    {} SYNC at genesis, {} accounted for", self.supply.0, self.supply.1),
            format!(
                "proof     {} ({} bytes), accepted offline with the network key",
                proof.file, proof.bytes
            ),
            format!("key       {}", self.network_key),
        ]);
        lines.extend(self.broken().into_iter().map(|what| format!("BROKEN    {what}")));
        lines.join("\n")
    }

    /// A table of every sealed epoch: pay, score and reason.
    fn payouts_table(&self) -> String {
        let row = |payout: &Payout| {
            let id = payout.node.to_string();
            let operator = self.providers.iter().find(|p| p.id == id).map(|p| p.operator.clone());
            let score = payout.score() / 1_000_000;
            vec![
                payout.row.epoch.to_string(),
                operator.unwrap_or(id),
                payout.row.pay.to_string(),
                payout.row.subsidy.to_string(),
                format!("0.{score:03}"),
                payout.why(),
            ]
        };
        let rows: Vec<Vec<String>> = self.payouts.iter().map(row).collect();
        table(&["epoch", "operator", "fees SYNC", "subsidy SYNC", "score", "why"], &rows)
    }

    fn providers_table(&self) -> String {
        let row = |p: &Provider| {
            vec![
                p.operator.clone(),
                format!("{}...", p.id.get(..12).unwrap_or(&p.id)),
                p.stored_bytes.to_string(),
                p.egress_bytes.to_string(),
                format!("{}/{}", p.passed, p.passed + p.failed),
                p.earned.to_string(),
            ]
        };
        let rows: Vec<Vec<String>> = self.providers.iter().map(row).collect();
        table(&["operator", "provider", "stored", "read", "challenges", "fees SYNC"], &rows)
    }
}

/// A count of things in words: `1 round`, `6 rounds`.
pub(crate) fn count(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// Median and 99th percentile of `values`, zero if there are none.
pub(crate) fn percentiles(mut values: Vec<u64>) -> (u64, u64) {
    values.sort_unstable();
    let at = |percent: usize| values.get((values.len() * percent / 100).min(values.len().saturating_sub(1)));
    (at(50).copied().unwrap_or(0), at(99).copied().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_few_and_many() {
        assert_eq!(percentiles(vec![]), (0, 0));
        assert_eq!(percentiles(vec![5]), (5, 5));
        assert_eq!(percentiles((0..200).collect()), (100, 198));
    }
}
