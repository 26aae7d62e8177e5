//! Losses: any four of a file's eight holders may fail, and the file stays readable while it is repaired.

mod common;

use common::{Net, end, file};
use std::collections::BTreeMap;

#[test]
fn losses_do_not_lose_files() {
    let net = Net::start();
    let home = tempfile::tempdir().expect("a temporary directory");
    let source = file(home.path(), "source", 4_200_000, 11);
    net.round_trip(&source, "precious");
    net.wait_for(&["ls"], 60, "all shards are durable", |files| {
        files.as_array().expect("a list").iter().all(|file| file["shards_durable"] == file["shards"])
    });
    let holders = holders(&net);
    assert!(holders.len() >= 8, "{holders:?}");
    for pid in holders.values().take(4) {
        end(*pid);
    }
    net.reads(&source, "precious");
    // Two spares take the shards of two of the four lost holders; the file stays readable meanwhile.
    net.wait_for(&["status"], 180, "spares take over", |status| {
        net.reads(&source, "precious");
        let faults = status["gateway"]["faults"].as_array().expect("a list");
        faults.iter().filter_map(|fault| fault["shards_repaired"].as_u64()).sum::<u64>() > 0
    });
    net.reads(&source, "precious");
}

/// Accounts of the providers that hold shards, with their processes.
fn holders(net: &Net) -> BTreeMap<String, u32> {
    let rows = net.ask(&["agreements"]);
    let holding: Vec<String> = rows
        .as_array()
        .expect("a list")
        .iter()
        .filter(|row| row["shards"].as_u64() > Some(0))
        .map(|row| row["agreement"]["provider"].as_str().expect("text").to_owned())
        .collect();
    let description = net.description();
    let nodes = description["nodes"].as_array().expect("a list");
    nodes
        .iter()
        .filter(|node| holding.iter().any(|account| node["account"] == account.as_str()))
        .map(|node| {
            let pid = u32::try_from(node["pid"].as_u64().expect("a number")).expect("a pid");
            (node["name"].as_str().expect("text").to_owned(), pid)
        })
        .collect()
}
