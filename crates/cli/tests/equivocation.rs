//! Five real authorities, of which one signs two proposals of a view: that is reported, and it leads no more.
//! Once it holds no share, two of the five may be down.

mod common;

use common::{Net, bytes, end, key, text};
use commonware_cryptography::Signer as _;
use commonware_runtime::{Runner as _, Supervisor as _, tokio};
use posync_alert::test_utils::listen;
use posync_client::{
    account::Submitter,
    connection::{Connection, Endpoint},
    light::{Light, network_key},
};
use posync_protocol::{
    Account, Body, Bounded,
    block::{HEADER_NAMESPACE, Header},
    operation::{Evidence, Proposals, sign},
};
use serde_json::Value;
use std::{path::Path, time::Duration};

/// Blocks of a term on a local network.
const TERM: u64 = 40;
const GUILTY: &str = "authority-2";
/// Time limit for five terms on a busy machine, in seconds.
const PATIENCE: u64 = 600;

fn member(net: &Net, name: &str) -> Value {
    let description = net.description();
    let nodes = description["nodes"].as_array().expect("a list");
    nodes.iter().find(|node| node["name"] == name).expect("a member").clone()
}

fn pid(net: &Net, name: &str) -> u32 {
    member(net, name)["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a pid")
}

/// Signs two headers of one view with the key of the guilty authority; the user submits them as evidence.
fn report(net: &Net) {
    let description = net.description();
    let light = Light::new(
        bytes(&description["chain"]),
        network_key(&bytes(&description["network_key"])).expect("a key"),
    );
    let endpoint = |node: &Value| Endpoint {
        account: Account::of(&key(&Path::new(text(&node["dir"])).join("node.key")).public_key()),
        address: text(&node["address"]).parse().expect("an address"),
    };
    let nodes = description["nodes"].as_array().expect("a list").iter();
    let nodes = nodes.filter(|node| node["role"] == "authority").map(endpoint).collect();
    let user = key(&net.directory.join("user.key"));
    let guilty = key(&Path::new(text(&member(net, GUILTY)["dir"])).join("node.key"));
    let scratch = net.directory.with_file_name("scratch");
    let config = tokio::Config::new().with_storage_directory(scratch);
    tokio::Runner::new(config).start(|context| async move {
        let (client, over) = (context.child("client"), context.child("network"));
        let connection = Connection::new(client, over, user.clone(), nodes, light);
        let parameters = connection.info().await.expect("answers").parameters;
        let honest = connection.header(3).await.expect("kept");
        let headers = [1, 2].map(|time_ms| {
            let leader = Account::of(&guilty.public_key());
            let mut header = Header { leader, time_ms, ..honest.clone() };
            header.signature = sign(&guilty, HEADER_NAMESPACE, &header.signed_bytes());
            header
        });
        let headers = Bounded::new(headers.to_vec()).expect("two");
        let body = Body::Evidence(Evidence::Proposals(Proposals { headers }));
        Submitter::new(connection, user, parameters).send(body).await.expect("final").done().expect("proved");
    });
}

/// Height of the block with the evidence, as the status shows it.
fn jailed(net: &Net) -> Option<u64> {
    let status = net.ask(&["status"]);
    let seats = status["seats"].as_array().expect("a list");
    seats.iter().find(|seat| seat["name"] == GUILTY).expect("a seat")["jailed"].as_u64()
}

/// Number of blocks from `height` on that `account` led.
fn led_by(net: &Net, account: &str, height: u64) -> usize {
    let output = net.run(&["blocks"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let blocks = lines.lines().skip(1).map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let later = blocks.filter(|block| block["height"].as_u64() >= Some(height));
    later.filter(|block| block["leader"] == account).count()
}

fn reach(net: &Net, height: u64) {
    net.wait_for(&["status"], PATIENCE, "the height", |status| status["height"].as_u64() >= Some(height));
}

#[test]
fn of_five_one_that_signed_twice_is_out_and_two_may_be_gone() {
    let (url, got) = listen(Vec::new());
    let net = Net::start_with(&["--authorities", "5", "--providers", "8", "--alert-url", &url]);
    assert_eq!(jailed(&net), None);
    report(&net);
    let proved = jailed(&net).expect("it is in jail");
    let account = text(&member(&net, GUILTY)["account"]).to_owned();
    let alert = loop {
        let posted = got.recv_timeout(Duration::from_secs(60)).expect("an alert").json;
        if posted["node"] == account.as_str() && posted["alert"] == "seat_jailed" {
            break posted;
        }
    };
    assert!(text(&alert["what"]).contains(&format!("block {proved} proved")), "{alert}");

    // The first term that it does not lead in; it votes until the end of the second.
    let first = proved / TERM + if proved % TERM < TERM / 2 { 1 } else { 2 };
    reach(&net, (first + 2) * TERM + 4);
    assert!(led_by(&net, &account, 0) > 0, "it led before");
    assert_eq!(led_by(&net, &account, first * TERM), 0, "it leads no more");
    for gone in [GUILTY, "authority-3"] {
        end(pid(&net, gone));
    }
    // Five voters would need four; here three of the four that are left reach this height.
    reach(&net, (first + 3) * TERM + 4);
    assert_eq!(led_by(&net, &account, first * TERM), 0, "{}", net.logs());
}
