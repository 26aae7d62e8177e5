//! Half of the providers of a real network are stopped for some rounds: the round in which they fell
//! silent is found faulty, and `explain` shows each late answer that is left out of a provider's figures.

mod common;

use common::{Net, file, key, signal};
use commonware_codec::Encode as _;
use commonware_cryptography::Signer as _;
use posync_node::genesis::{Genesis, SIGNATURES_FILE, Signatures};
use posync_protocol::{Account, limits::Parameters};
use serde_json::Value;
use std::{fs, path::Path};

/// Ten providers can be drawn only a few times in a round, so a round of this network needs
/// fewer challenges to be judged than one of a large network.
const PARAMETERS: Parameters =
    Parameters { draw_every_blocks: 1, draws: 2, fault_draws_min: 4, ..Parameters::LOCAL };
const EPOCH: u64 = PARAMETERS.epoch_rounds * PARAMETERS.round_blocks;
/// Tries until a round is faulty: which providers are drawn in it, and if by fee, is chance.
const TRIES: u64 = 6;
/// Files that a member's directory keeps when its network begins anew.
const KEPT: [&str; 4] = ["config.toml", "node.key", "secrets", "genesis"];

/// Restarts the chain under other parameters, with the same members and keys.
fn begin_anew(net: &Net, parameters: Parameters) {
    let bytes = fs::read(net.directory.join("genesis")).expect("readable");
    let mut genesis = Genesis::from_bytes(&bytes).expect("a genesis");
    genesis.parameters = parameters;
    let path = net.directory.join("genesis");
    fs::write(path, genesis.encode()).expect("writable");
    let mut description = net.description();
    let keys = (0..genesis.authorities.len())
        .map(|index| key(&net.directory.join(format!("authority-{index}/node.key"))));
    let signed = keys.map(|key| (Account::of(&key.public_key()), genesis.sign(&key)));
    let signatures = Signatures(signed.collect()).to_text();
    for node in description["nodes"].as_array().expect("a list") {
        let directory = Path::new(node["dir"].as_str().expect("text"));
        for entry in fs::read_dir(directory).expect("readable").map(|entry| entry.expect("readable")) {
            if !KEPT.iter().any(|kept| entry.file_name() == *kept) {
                let gone = if entry.path().is_dir() { fs::remove_dir_all } else { fs::remove_file };
                gone(entry.path()).expect("it goes");
            }
        }
        fs::write(directory.join("genesis"), genesis.encode()).expect("writable");
        fs::write(directory.join(SIGNATURES_FILE), &signatures).expect("writable");
        let secrets = fs::read_dir(directory.join("secrets")).into_iter().flatten();
        let later = secrets.map(|entry| entry.expect("readable").path()).filter(|path| {
            // Only the shares of the genesis are older than the network.
            path.file_name().is_none_or(|name| name != "share-00000000000000000000")
        });
        later.for_each(|path| fs::remove_file(path).expect("it goes"));
    }
    let chain = genesis.chain().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    description["chain"] = chain.into();
    let text = serde_json::to_vec(&description).expect("plain data");
    fs::write(net.directory.join("devnet.json"), text).expect("writable");
}

/// All events of the blocks, with their heights.
fn events(net: &Net) -> Vec<(u64, Value)> {
    let output = net.run(&["blocks"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    // The first line describes the network.
    let blocks = text.lines().skip(1).map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let told = blocks.flat_map(|block| {
        let height = block["height"].as_u64().expect("a number");
        block["events"].as_array().expect("a list").iter().map(|e| (height, e.clone())).collect::<Vec<_>>()
    });
    told.collect()
}

fn reach(net: &Net, height: u64) {
    net.wait_for(&["status"], 120, "blocks", |status| status["height"].as_u64() >= Some(height));
}

#[test]
fn a_network_fault_is_explained_to_those_in_it() {
    let mut net = Net::start();
    net.down();
    begin_anew(&net, PARAMETERS);
    net.up();
    let home = tempfile::tempdir().expect("a temporary directory");
    for (index, length) in [40_000, 50_000, 60_000, 70_000].into_iter().enumerate() {
        let name = format!("file {index}");
        net.round_trip(&file(home.path(), &name, length, index as u64), &name);
    }
    reach(&net, net.height() + 2 * EPOCH);
    let description = net.description();
    let nodes = description["nodes"].as_array().expect("a list");
    let providers = nodes.iter().filter(|node| node["role"] == "provider");
    let pids: Vec<u32> = providers
        .take(5)
        .map(|node| u32::try_from(node["pid"].as_u64().expect("a number")).expect("a pid"))
        .collect();
    let mut excused = None;
    for _ in 0..TRIES {
        pids.iter().for_each(|pid| signal("STOP", *pid));
        reach(&net, net.height() + 3 * PARAMETERS.round_blocks);
        pids.iter().for_each(|pid| signal("CONT", *pid));
        reach(&net, net.height() + 4 * PARAMETERS.round_blocks);
        let told = events(&net);
        excused = told.into_iter().find(|(_, event)| event["event"] == "Audited" && event["excused"] == true);
        if excused.is_some() {
            break;
        }
    }
    let (height, event) = excused.expect("a round of so many draws is faulty sooner or later");
    assert_eq!((&event["answered"], &event["on_time"]), (&true.into(), &false.into()), "{event}");
    let epoch = height / EPOCH;
    reach(&net, (epoch + 3) * EPOCH + PARAMETERS.round_blocks);
    let provider = event["provider"].as_str().expect("text");
    let reward = net.ask(&["explain", "reward", provider, &epoch.to_string()]);
    assert_eq!(reward["holds"], true, "{reward}");
    let listed = reward["faults"]["excused"].as_array().expect("a list");
    assert!(listed.iter().any(|told| told["drawn_at"] == event["height"]), "{reward}");
    net.recompute();
}
