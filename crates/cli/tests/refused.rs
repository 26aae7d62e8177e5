//! A provider with less room than it declared: it declares less by itself, no less than what is sold; what it refuses of
//! that is whole elsewhere; with room again it declares the full capacity.

mod common;

use common::{Net, file, set};
use serde_json::Value;

/// Bytes that every provider of a local network declares, and the room that one of them is left with,
/// of which 16 MiB are reserved for moving shards.
const DECLARED: u64 = 8 << 30;
const SPACE: u64 = 20 << 20;
const NAME: &str = "provider-3";
/// Files that are stored meanwhile: their shards take more than that room.
const FILES: u64 = 6;

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
fn a_provider_with_less_room_than_it_declared_promises_less_until_it_has_room_again() {
    let mut net = Net::start();
    let description = net.description();
    let nodes = description["nodes"].as_array().expect("a list");
    let node = nodes.iter().find(|node| node["name"] == NAME).expect("ten providers");
    let account = node["account"].as_str().expect("text").to_owned();
    assert_eq!(of(&net.ask(&["providers"]), &account)["capacity_bytes"], DECLARED);
    net.down();
    set_space(&net, Some(SPACE));
    net.up();
    net.wait_for(&["providers"], 60, "it declares less", |rows| {
        let row = of(rows, &account);
        row["capacity_bytes"].as_u64() < Some(DECLARED)
            && row["capacity_bytes"].as_u64() >= row["sold_bytes"].as_u64()
    });
    let why = net.ask(&["why", NAME]);
    assert!(why["ledger"]["capacity_bytes"].as_u64() >= Some(SPACE - (16 << 20)), "{why}");

    let home = tempfile::tempdir().expect("a temporary directory");
    let mut sources = Vec::new();
    for number in 0..FILES {
        let name = format!("file {number}");
        let source = file(home.path(), &name, 8_000_000, number);
        net.ask(&["put", source.to_str().expect("UTF-8"), &name]);
        sources.push((source, name));
    }
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
