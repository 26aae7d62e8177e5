//! A provider with less room than it declared: its refusal reaches the ledger, which cuts the
//! declaration to what is sold; the file is whole elsewhere; with room again it declares the full capacity.

mod common;

use common::{Net, file, set};
use serde_json::Value;

/// Bytes that every provider of a local network declares, and the room that one of them is left with,
/// of which 16 MiB are reserved for moving shards.
const DECLARED: u64 = 8 << 30;
const SPACE: u64 = 20 << 20;
const NAME: &str = "provider-3";

/// Limits the room for the member's shards from its next start on; `None` for as much as it declared.
fn set_space(net: &Net, space: Option<u64>) {
    set(&net.directory.join(NAME), "space", &space.unwrap_or(0).to_string());
}

/// The provider's row in the list of providers.
fn of<'a>(rows: &'a Value, account: &str) -> &'a Value {
    let rows = rows.as_array().expect("a list");
    rows.iter().find(|row| row["account"] == account).expect("it is registered")
}

#[test]
fn a_refused_placement_cuts_the_declared_capacity_until_it_is_declared_anew() {
    let mut net = Net::start();
    let description = net.description();
    let nodes = description["nodes"].as_array().expect("a list");
    let node = nodes.iter().find(|node| node["name"] == NAME).expect("ten providers");
    let account = node["account"].as_str().expect("text").to_owned();
    assert_eq!(of(&net.ask(&["providers"]), &account)["capacity_bytes"], DECLARED);
    net.down();
    set_space(&net, Some(SPACE));
    net.up();

    let home = tempfile::tempdir().expect("a temporary directory");
    let mut sources = Vec::new();
    let cut = loop {
        let name = format!("file {}", sources.len());
        let source = file(home.path(), &name, 8_000_000, sources.len() as u64);
        net.ask(&["put", source.to_str().expect("UTF-8"), &name]);
        sources.push((source, name));
        let rows = net.ask(&["providers"]);
        let row = of(&rows, &account);
        if row["capacity_bytes"] != DECLARED {
            break row.clone();
        }
        assert!(sources.len() < 12, "it never refused, or nobody brought it: {row}{}", net.logs());
    };
    assert_eq!(cut["capacity_bytes"], cut["sold_bytes"], "cut to what is under contract");
    let why = net.ask(&["why", NAME]);
    assert_eq!(why["ledger"]["capacity_bytes"], why["ledger"]["sold_bytes"]);
    let blocks = String::from_utf8(net.run(&["blocks"]).stdout).expect("text");
    let cuts = blocks.lines().filter(|line| line.contains("CapacityCut") && line.contains(&account)).count();
    assert!(cuts > 0, "the event names it");
    net.wait_for(&["ls"], 120, "the refused shards are elsewhere", |files| {
        files.as_array().expect("a list").iter().all(|file| file["shards_durable"] == file["shards"])
    });
    for (source, name) in &sources {
        net.reads(source, name);
    }

    net.down();
    set_space(&net, None);
    net.up();
    net.wait_for(&["providers"], 60, "it declares anew", |rows| {
        of(rows, &account)["capacity_bytes"] == DECLARED
    });
    net.recompute();
}
