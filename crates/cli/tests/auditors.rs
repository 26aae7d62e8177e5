//! Auditors in a real network: their findings raise quality, and until its reveal neither a provider
//! nor a reader of blocks can distinguish an auditor from another consumer.

mod common;

use common::{Net, file, grains, text};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

/// Blocks of an epoch and of a round on a local network.
const EPOCH: u64 = 40;
const ROUND: u64 = 8;
/// Bytes of a slice, the unit of a read.
const SLICE: u64 = 64 << 10;
/// Number of compared epochs, from the second after the file is stored.
const COMPARED: u64 = 3;

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

/// All blocks, from the first to the newest.
fn blocks(net: &Net) -> Vec<Value> {
    let output = net.run(&["blocks"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    // The first line describes the network.
    lines.lines().skip(1).map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Operations that succeeded, with their heights.
fn done(blocks: &[Value]) -> impl Iterator<Item = (u64, &Value)> {
    blocks.iter().flat_map(|block| {
        let codes: BTreeMap<&str, u64> = block["receipts"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|receipt| (text(&receipt["id"]), number(&receipt["code"])))
            .collect();
        let operations = block["operations"].as_array().expect("a list");
        let good = operations.iter().filter(move |operation| codes[text(&operation["id"])] == 0);
        good.map(|operation| (number(&block["height"]), operation))
    })
}

fn of_kind<'a>(blocks: &'a [Value], kind: &'a str) -> impl Iterator<Item = (u64, &'a Value)> {
    done(blocks).filter(move |(_, operation)| operation["kind"] == kind)
}

#[test]
fn auditors_raise_quality_and_look_like_consumers() {
    let net = Net::logging("warn,posync_consumer=info,posync_provider::serve=trace");
    let source = file(net.directory.parent().expect("a home"), "source", 3_000_000, 5);
    net.ask(&["put", source.to_str().expect("UTF-8"), "file"]);
    let first = net.height() / EPOCH + 2;
    let over = (first + COMPARED + 3) * EPOCH + ROUND;
    net.wait_for(&["status"], 180, "epochs pass", |status| status["height"].as_u64() > Some(over));
    let blocks = blocks(&net);
    let last = first + COMPARED - 1;
    quality_rises(&net, &blocks, last);
    let accounts = accounts(&net, &blocks);
    nobody_is_disputed(&blocks);
    the_ledger_shows_equal_consumers(&blocks, &accounts);
    providers_see_equal_consumers(&net, &blocks, &accounts, first..=last);
    net.recompute();
}

/// The seats measure every provider that holds data, and `explain` accounts for its quality.
fn quality_rises(net: &Net, blocks: &[Value], epoch: u64) {
    let events = blocks.iter().flat_map(|block| block["events"].as_array().expect("a list"));
    let measured: Vec<&Value> = events
        .filter(|event| event["event"] == "ServiceMeasured" && event["epoch"] == epoch)
        .filter(|event| event["answered"].as_u64() > Some(0))
        .collect();
    assert!(measured.len() >= 6, "eight hold a shard: {measured:?}{}", net.logs());
    let mut raised = 0;
    for event in measured {
        assert!(number(&event["auditors_reported"]) * 3 >= number(&event["auditors"]) * 2, "{event}");
        let epoch = epoch.to_string();
        let reward = net.ask(&["explain", "reward", text(&event["provider"]), &epoch]);
        assert_eq!(reward["holds"], true, "{reward}");
        let lines = reward["lines"].as_array().expect("a list");
        let quality = lines.iter().find(|line| line["name"] == "quality").expect("a line");
        assert!(text(&quality["formula"]).contains("L "), "{quality}");
        // Without latency, quality would be one half at most.
        raised += usize::from(text(&quality["value"]).parse::<u64>().expect("digits") > 500_000_000);
    }
    assert!(raised >= 6, "quality of honest providers rises above one half: {raised}");
}

/// Every voucher was redeemed without a claim, although unpaid egress would have been claimed by then.
fn nobody_is_disputed(blocks: &[Value]) {
    let mut redeemed = 0;
    for (_, operation) in done(blocks) {
        for voucher in operation["fields"]["vouchers"].as_array().into_iter().flatten() {
            assert_eq!(voucher["claim"], Value::Null, "{operation}");
            redeemed += 1;
        }
    }
    assert!(redeemed > 0, "vouchers were redeemed");
}

/// The consumers: the gateway, and the accounts whose agreements auditors read under.
struct Accounts {
    gateway: String,
    auditors: BTreeSet<String>,
}

fn accounts(net: &Net, blocks: &[Value]) -> Accounts {
    let description = net.description();
    let nodes = description["nodes"].as_array().expect("a list");
    let account_of = |role: &str| {
        nodes
            .iter()
            .filter(|node| node["role"] == role)
            .map(|node| text(&node["account"]).to_owned())
            .collect::<Vec<_>>()
    };
    let (gateway, seats) = (account_of("gateway").remove(0), account_of("authority"));
    let opened = of_kind(blocks, "Open").map(|(_, open)| text(&open["signer"]).to_owned());
    let auditors: BTreeSet<String> = opened.filter(|signer| *signer != gateway).collect();
    assert!(auditors.len() >= seats.len(), "every seat reads under an account of its own: {auditors:?}");
    assert!(seats.iter().all(|seat| !auditors.contains(seat)), "a seat's own account opens nothing");
    for (_, transfer) in of_kind(blocks, "Transfer") {
        assert_eq!(grains(&transfer["fields"]["amount"]), 50_000_000_000, "one size: {transfer}");
        assert!(auditors.contains(text(&transfer["fields"]["to"])), "{transfer}");
    }
    Accounts { gateway, auditors }
}

/// Agreements of auditors differ only in the provider, the slot and the keys; until its reveal, no other
/// operation on the ledger is an auditor's. A consumer that stores has leaves, one that only reads has none:
/// that difference is accepted (`docs/decisions/auditors-are-gateways.md`).
fn the_ledger_shows_equal_consumers(blocks: &[Value], accounts: &Accounts) {
    let mut terms = BTreeSet::new();
    let read = of_kind(blocks, "Open").filter(|(_, open)| accounts.auditors.contains(text(&open["signer"])));
    for (height, open) in read {
        let mut fields = open["fields"].clone();
        let length = number(&fields["end_epoch"]) - height / EPOCH;
        let object = fields.as_object_mut().expect("fields");
        // The epoch may change between its signing and its block.
        object.insert("end_epoch".into(), length.next_multiple_of(4).into());
        // The egress quota may follow the egress that a provider has left to sell.
        for differs in ["provider", "slot", "session_key", "storage_key", "quota_egress"] {
            object.remove(differs);
        }
        terms.insert(fields.to_string());
    }
    assert_eq!(terms.len(), 1, "readers open one kind of agreement: {terms:?}");
    let known = ["Open", "TopUp", "CloseAlone"];
    for (_, operation) in done(blocks).filter(|(_, o)| accounts.auditors.contains(text(&o["signer"]))) {
        assert!(known.contains(&text(&operation["kind"])), "no consumer does this: {operation}");
    }
}

/// A request as a provider's log shows it.
#[derive(Debug)]
struct Seen {
    height: u64,
    peer: String,
    fields: BTreeMap<String, String>,
}

impl Seen {
    fn number(&self, field: &str) -> u64 {
        self.fields.get(field).and_then(|value| value.parse().ok()).unwrap_or_default()
    }

    /// All of a request except the shard it names and the amount read before.
    fn shape(&self) -> String {
        let kind = &self.fields["kind"];
        let names: Vec<&String> = self.fields.keys().collect();
        let within = self.number("offset") % SLICE;
        let (length, gas, egress) =
            (self.number("length"), self.number("gas"), self.number("egress") % SLICE);
        format!("{kind} {names:?} offset {within} length {length} gas {gas} egress {egress}")
    }
}

/// Milliseconds since midnight of a time like `2026-11-25T14:51:32.790020Z`.
fn of_day(time: &str) -> Option<u64> {
    let clock = time.split_once('T')?.1;
    let part = |range: std::ops::Range<usize>| clock.get(range)?.parse::<u64>().ok();
    Some(((part(0..2)? * 60 + part(3..5)?) * 60 + part(6..8)?) * 1_000 + part(9..12)?)
}

/// The requests in a provider's log; the newest block at each is computed from its time.
fn requests(log: &str, blocks: &[Value]) -> Vec<Seen> {
    let times: Vec<u64> = blocks.iter().map(|block| number(&block["time_ms"]) % 86_400_000).collect();
    let seen = |line: &str| {
        let (head, rest) = line.split_once(" asked ")?;
        let time = of_day(head.split_whitespace().next()?)?;
        let height = times.partition_point(|block| *block <= time) as u64;
        let pairs = rest.split_whitespace().filter_map(|pair| pair.split_once('='));
        let mut fields: BTreeMap<String, String> =
            pairs.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned())).collect();
        Some(Seen { height, peer: fields.remove("peer")?, fields })
    };
    log.lines().filter_map(seen).collect()
}

/// Compares the requests of the gateway and of auditors to each provider, epoch by epoch. The file is
/// not read meanwhile, so the gateway is a consumer that only samples.
fn providers_see_equal_consumers(
    net: &Net,
    blocks: &[Value],
    accounts: &Accounts,
    epochs: std::ops::RangeInclusive<u64>,
) {
    let (mut shapes, mut rhythms, mut moments) =
        <(BTreeMap<bool, BTreeSet<String>>, BTreeMap<bool, Vec<u64>>, BTreeMap<bool, Vec<u64>>)>::default();
    for index in 0..10 {
        let log = fs::read_to_string(net.directory.join(format!("provider-{index}/log"))).expect("a log");
        let requests = requests(&log, blocks);
        let mut statuses: BTreeMap<(&str, u64), u64> = BTreeMap::new();
        let mut gets: BTreeMap<(&str, u64), u64> = BTreeMap::new();
        for seen in requests.iter().filter(|seen| epochs.contains(&(seen.height / EPOCH))) {
            let is_auditor = accounts.auditors.contains(&seen.peer);
            assert!(is_auditor || seen.peer == accounts.gateway, "nobody else is a consumer: {seen:?}");
            shapes.entry(is_auditor).or_default().insert(seen.shape());
            let by = (seen.peer.as_str(), seen.height / EPOCH);
            match seen.fields["kind"].as_str() {
                "status" => *statuses.entry(by).or_default() += 1,
                "get" => {
                    *gets.entry(by).or_default() += 1;
                    moments.entry(is_auditor).or_default().push(seen.height % EPOCH);
                }
                _ => {}
            }
        }
        for ((peer, epoch), count) in gets {
            assert!(count <= 2, "{peer} reads provider-{index} {count} times in epoch {epoch}");
        }
        for ((peer, _), count) in statuses {
            rhythms.entry(accounts.auditors.contains(peer)).or_default().push(count);
        }
    }
    assert_eq!(shapes[&true], shapes[&false], "fields of requests");
    for (what, both) in
        [("questions for the status in an epoch", &rhythms), ("heights of reads within an epoch", &moments)]
    {
        let (auditors, gateway) = (range(&both[&true]), range(&both[&false]));
        eprintln!("{what}: auditors {auditors:?}, gateway {gateway:?}");
        assert!(auditors.0 <= gateway.1 && gateway.0 <= auditors.1, "{what}: {auditors:?}, {gateway:?}");
    }
    let in_time = |all: &Vec<u64>| all.iter().all(|height| *height < EPOCH - ROUND);
    assert!(moments.values().all(in_time), "all read before the last round: {moments:?}");
}

/// The least and the greatest of these numbers; zero if there are none.
fn range(all: &[u64]) -> (u64, u64) {
    (all.iter().copied().min().unwrap_or(0), all.iter().copied().max().unwrap_or(0))
}
