//! Money over real processes and sockets: each success is one payment of its own, a lying node makes
//! no one pay twice, the status reports the network's true state, and JSON shows money in one exact form.

mod common;

use common::{Net, POSYNC, bytes, digits, grains, key, signal, text};
use commonware_cryptography::{Signer as _, ed25519::PrivateKey};
use commonware_runtime::{Runner as _, Supervisor as _, tokio};
use posync_client::{
    account::Submitter,
    channel::Listen,
    connection::{Connection, Endpoint},
    light::{Light, network_key},
    rpc::{self, Incoming, Server, Service as _},
};
use posync_protocol::{
    Account, Amount, Body, Code,
    operation::Transfer,
    wire::node::{Ask, NodeAnswer, Unavailable},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    net::TcpListener,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

fn balance(net: &Net, who: &str) -> u128 {
    grains(&net.ask(&["account", who])["balance"])
}

#[test]
fn money_moves_once_and_says_so() {
    let net = Net::start();
    ones_own_account_is_shown(&net);
    ten_equal_payments_at_once_are_ten(&net);
    pays_once(&net, 60, &[Way::SaysOld]);
    pays_once(&net, 70, &[Way::Lost, Way::Synced]);
    usage_errors_are_failures_like_others(&net);
    every_amount_is_in_grains_and_in_sync(&net);
    a_network_without_a_quorum_says_so(&net);
}

fn ones_own_account_is_shown(net: &Net) {
    let own = net.ask(&["account"]);
    let account = Account::of(&key(&net.directory.join("user.key")).public_key()).to_string();
    assert_eq!((text(&own["account"]), &own["exists"]), (account.as_str(), &json!(true)), "{own}");
    assert!(grains(&own["balance"]) > 0 && own["height"].as_u64() > Some(0), "{own}");
    let nonce = own["nonce"].as_u64().expect("a number");
    net.ask(&["send", "provider-0", "0.5"]);
    assert_eq!(net.ask(&["account", &account])["nonce"], nonce + 1, "by its name, too");
    let nobody = Account::of(&PrivateKey::from_seed(404).public_key()).to_string();
    let nobody = net.ask(&["account", &nobody]);
    assert_eq!((&nobody["exists"], grains(&nobody["balance"])), (&json!(false), 0));
}

/// Ten processes with one key pay the same amount to the same account at once.
fn ten_equal_payments_at_once_are_ten(net: &Net) {
    const SENDS: usize = 10;
    let before = balance(net, "provider-2");
    let start = Instant::now();
    let started: Vec<_> = (0..SENDS)
        .map(|_| {
            let mut command = Command::new(POSYNC);
            command.arg("--json").arg("--net").arg(&net.directory).args(["send", "provider-2", "1"]);
            let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            piped.spawn().expect("the program starts")
        })
        .collect();
    let (mut ids, mut heights) = (BTreeSet::new(), BTreeSet::new());
    for sent in started {
        let sent = sent.wait_with_output().expect("it was started here");
        assert!(sent.status.success(), "{}{}", String::from_utf8_lossy(&sent.stderr), net.logs());
        let answer: Value = serde_json::from_slice(&sent.stdout).expect("JSON");
        ids.insert(text(&answer["operation"]).to_owned());
        heights.insert(answer["height"].as_u64().expect("a number"));
    }
    let took = start.elapsed();
    assert_eq!(ids.len(), SENDS, "each is an operation of its own");
    let got = balance(net, "provider-2") - before;
    assert!(got >= SENDS as u128 * 1_000_000_000, "all arrived: {got}");
    // No payment waits for the block of another: at four blocks a second, these take less than 5 s.
    let (first, last) = (heights.first().expect("ten"), heights.last().expect("ten"));
    eprintln!("ten equal payments took {took:?}, blocks {first} to {last}");
    assert!(last - first < 20, "blocks {first} to {last}");
}

/// The behaviour of a node between a client and an honest node; none of them knows a receipt.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Passes an operation on and reports that its nonce was used.
    SaysOld,
    /// Passes an operation on and closes the connection before it answers.
    Lost,
    /// Began from a synced state a moment ago: it knows nonces, but no earlier block.
    Synced,
}

/// The lie instead of the honest answer; `Some(None)` for no answer at all.
async fn lie(way: Way, ask: &Ask) -> Option<Option<NodeAnswer>> {
    Some(match (way, ask) {
        (_, Ask::Receipt(_)) => Some(NodeAnswer::Receipt(None)),
        (Way::SaysOld | Way::Synced, Ask::Submit(_)) => Some(NodeAnswer::Refused(Code::NonceOld)),
        (Way::Lost, Ask::Submit(_)) => None,
        (Way::Synced, Ask::Header(_) | Ask::Body(_) | Ask::Events(_)) => {
            Some(NodeAnswer::Unavailable(Unavailable::Pruned))
        }
        _ => return None,
    })
}

async fn between(context: &tokio::Context, way: Way, seed: u64, honest: Endpoint) -> Endpoint {
    let own = PrivateKey::from_seed(seed);
    let behind = context.child("behind");
    let dialled = rpc::Client::<rpc::Node>::dial(behind, context, &own, honest.account, honest.address);
    let behind = dialled.await.expect("connects");
    let server = Server::<rpc::Node, _>::new(move |call: Incoming<rpc::Node>, ask| {
        let behind = behind.clone();
        async move {
            let lie = lie(way, &ask).await;
            let mut answers = behind.open(ask).await.expect("the honest node lives");
            while let Some(answer) = answers.recv().await {
                let said = lie.clone().unwrap_or(Some(answer));
                let Some(said) = said else { return };
                if call.send(&said).await.is_err() {
                    return;
                }
            }
        }
    });
    let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    let listen = Listen::new(own.clone(), rpc::Node::NAMESPACE, free);
    let listening = server.listen(context.child("between"), context, listen).await.expect("listens");
    Endpoint { account: Account::of(&own.public_key()), address: listening.address.into() }
}

/// With these nodes in front of the honest ones, a payment is made once.
fn pays_once(net: &Net, seed: u64, ways: &[Way]) {
    let description = net.description();
    let light = Light::new(
        bytes(&description["chain"]),
        network_key(&bytes(&description["network_key"])).expect("a key"),
    );
    let endpoint = |node: &Value| Endpoint {
        account: text(&node["account"]).parse().expect("an account"),
        address: text(&node["address"]).parse().expect("an address"),
    };
    let nodes = description["nodes"].as_array().expect("a list").iter();
    let honest: Vec<Endpoint> = nodes.filter(|node| node["role"] == "authority").map(endpoint).collect();
    let user = key(&net.directory.join("user.key"));
    let payee = Account::of(&PrivateKey::from_seed(seed).public_key());
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let config = tokio::Config::new().with_storage_directory(scratch.path());
    let before = net.ask(&["account"])["nonce"].as_u64().expect("a number");
    tokio::Runner::new(config).start(|context| async move {
        let mut nodes = Vec::new();
        for (place, way) in ways.iter().enumerate() {
            nodes.push(between(&context, *way, seed + 1 + place as u64, honest[0].clone()).await);
        }
        nodes.extend_from_slice(&honest[1..]);
        let (client, over) = (context.child("client"), context.child("network"));
        let connection = Connection::new(client, over, user.clone(), nodes, light).beginning_at(0);
        let parameters = connection.info().await.expect("answers").parameters;
        let body = Body::Transfer(Transfer { to: payee, amount: Amount::sync(3) });
        let sender = Submitter::new(connection.clone(), user, parameters);
        let sent = sender.send(body).await.expect("final").done().expect("done");
        // Any other signed operation would be in a block by then.
        let mut blocks = connection.follow(sent.receipt.height);
        while blocks.next().await.expect("goes on").height < sent.receipt.height + 12 {}
    });
    assert_eq!(balance(net, &payee.to_string()), 3_000_000_000, "it was paid once: {ways:?}");
    assert_eq!(net.ask(&["account"])["nonce"], before + 1, "one operation");
}

fn usage_errors_are_failures_like_others(net: &Net) {
    let table: [(&[&str], &str); 5] = [
        (&["send", "provider-0", "-5"], "below zero"),
        (&["recompute", "-1"], "below zero"),
        (&["send", "provider-0"], "AMOUNT"),
        (&["nonsense"], "nonsense"),
        (&["blocks", "--from", "x"], "'x'"),
    ];
    for (arguments, says) in table {
        let (code, failure) = net.refuse(arguments);
        assert_eq!((code, &failure["error"]["exit"]), (2, &json!(2)), "{arguments:?}: {failure}");
        assert!(failure.to_string().contains(says), "{arguments:?}: {failure}");
        assert!(!text(&failure["error"]["next"]).is_empty(), "{failure}");
    }
    // An empty variable counts as unset.
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new(POSYNC);
    command.args(["--json", "status"]).env("POSYNC_NET", "").current_dir(home.path());
    let output = command.output().expect("the program starts");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("no network in devnet"), "{error}");
    // A name's control characters never reach the terminal.
    let mut command = Command::new(POSYNC);
    command.arg("--net").arg(&net.directory).args(["rm", "a\u{1b}[2Jb\r"]);
    let output = command.output().expect("the program starts");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!error.contains(['\u{1b}', '\r']) && error.contains("\\u{1b}"), "{error:?}");
}

/// Names of fields that hold money in every answer.
const MONEY: [&str; 32] = [
    "accounted",
    "amount",
    "balance",
    "balances",
    "base_fee",
    "bond",
    "bond_needed",
    "bonds",
    "burn",
    "burned",
    "carry",
    "committee",
    "deposit",
    "deposits",
    "disputed",
    "earned_recent_epochs",
    "emission",
    "fee",
    "max_fee",
    "pool",
    "provider_pay",
    "reserve",
    "seat_bonds",
    "signed",
    "slashed",
    "storage_pools",
    "storage_reserve",
    "storage_reserve_max",
    "subsidy",
    "supply",
    "unjail_burn",
    "voucher_reserve",
];

/// Names of fields that hold a price in grains: a string of digits.
const PRICES: [&str; 2] = ["price", "slow_price"];

/// Objects in which such a name stands for something else: shares of a fee in parts per billion.
const SHARES: [&str; 1] = ["parameters"];

/// Counts the amounts of money and the prices in an answer. Fails on an amount that is not in both units, on a
/// price that is not digits, and on a number that a reader of JSON would round.
fn check_money(at: &str, value: &Value) -> usize {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, field)| {
                let is_share = SHARES.iter().any(|share| at.ends_with(share)) && field.is_u64();
                let is_money = MONEY.contains(&name.as_str()) && !is_share && !field.is_null();
                if is_money {
                    grains(field);
                }
                let is_price = PRICES.contains(&name.as_str());
                if is_price {
                    digits(field);
                }
                usize::from(is_money || is_price) + check_money(&format!("{at} {name}"), field)
            })
            .sum(),
        Value::Array(all) => all.iter().map(|one| check_money(at, one)).sum(),
        Value::Number(number) => {
            let fits = number.as_f64().is_some_and(|number| number.abs() <= 9_007_199_254_740_992.0);
            assert!(fits, "{at}: {number} is more than every reader of JSON holds");
            0
        }
        _ => 0,
    }
}

fn every_amount_is_in_grains_and_in_sync(net: &Net) {
    let prices = net.wait_for(&["prices"], 120, "an epoch is closed", |prices| {
        !prices["epochs"].as_array().expect("a list").is_empty()
    });
    let status = net.ask(&["status"]);
    assert_eq!(grains(&status["accounted"]), 1_000_000_000_000_000_000, "exact above 2^53");
    let epoch = prices["epochs"][0]["epoch"].to_string();
    let commands: [&[&str]; 9] = [
        &["status"],
        &["account"],
        &["providers"],
        &["agreements"],
        &["prices"],
        &["why", "provider-1"],
        &["send", "provider-1", "0.25"],
        &["recompute", &epoch],
        &["explain", "reward", "provider-1", &epoch],
    ];
    for arguments in commands {
        let answer = net.ask(arguments);
        let found = check_money(&arguments.join(" "), &answer);
        assert!(found > 0, "{arguments:?} shows money: {answer}");
    }
    let blocks = String::from_utf8(net.run(&["blocks"]).stdout).expect("text");
    let found: usize =
        blocks.lines().map(|line| check_money("blocks", &serde_json::from_str(line).expect("JSON"))).sum();
    assert!(found > 20, "blocks hold fees: {found}");
    for record in ["account", "provider", "system"] {
        let file = net.directory.join(format!("{record}.sync")).display().to_string();
        let who = if record == "account" { "gateway" } else { "provider-1" };
        let written = net.run(&["prove", record, who, "--out", &file]);
        if !written.status.success() {
            net.ask(&["prove", record, "--out", &file]);
        }
        let verified = net.ask(&["verify", &file, "--network-key", text(&net.description()["network_key"])]);
        assert!(check_money(record, &verified) > 0, "{verified}");
    }
}

/// Two of four authorities hang: the status reports it, and a payment ends within its bound.
fn a_network_without_a_quorum_says_so(net: &Net) {
    let healthy = net.ask(&["status"]);
    assert_eq!(
        (text(&healthy["consensus"]["state"]), &healthy["consensus"]["answering"]),
        ("running", &json!(4))
    );
    let pid = |name: &str| {
        let description = net.description();
        let nodes = description["nodes"].as_array().expect("a list").clone();
        let node = nodes.iter().find(|node| node["name"] == name).expect("a member").clone();
        u32::try_from(node["pid"].as_u64().expect("a number")).expect("a pid")
    };
    let hung = [pid("authority-0"), pid("authority-1")];
    hung.iter().for_each(|pid| signal("STOP", *pid));
    let status = net.ask(&["status"]);
    let consensus = &status["consensus"];
    assert_eq!(
        (&consensus["quorum"], &consensus["answering"], &consensus["needed"]),
        (&json!(false), &json!(2), &json!(3)),
        "{status}"
    );
    assert_eq!(text(&consensus["state"]), "no quorum");
    assert!(consensus["seconds_since_block"].is_u64(), "{consensus}");
    let before = balance(net, "provider-3");
    let start = Instant::now();
    let (code, failure) = net.refuse(&["send", "provider-3", "2"]);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(60), "{took:?}");
    assert_eq!(code, 7, "{failure}");
    let why = text(&failure["error"]["why"]).to_owned();
    assert!(why.contains("may still happen") && why.contains("operation "), "{why}");
    hung.iter().for_each(|pid| signal("CONT", *pid));
    // The payment was not refused: it is made, once, when there is a quorum again.
    net.wait_for(&["account", "provider-3"], 120, "the payment is final", |account| {
        grains(&account["balance"]) >= before + 2_000_000_000
    });
}
